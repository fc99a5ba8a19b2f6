//! Where PostgreSQL's programs are, and who may run them.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ClusterError;

/// The oldest major version that reinstate supports.
const MAJOR_MIN: u32 = 15;

/// Where Debian keeps the server's programs, one directory a major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The users under which root runs a server, the preferred one first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];

/// PostgreSQL's programs of one version.
#[derive(Clone, Debug)]
pub(super) struct Installation {
    directory: PathBuf,
}

impl Installation {
    /// The first installation in `PATH`, or the newest of Debian's, that is new enough.
    pub(super) fn find() -> Result<Self, ClusterError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&path)
            .filter_map(|directory| directory.join("postgres").canonicalize().ok())
            .filter_map(|program| program.parent().map(Path::to_path_buf));
        in_path
            .chain(debian_directories())
            .find(|directory| is_usable(directory))
            .map(|directory| Self { directory })
            .ok_or_else(|| {
                ClusterError::new(format!(
                    "find PostgreSQL {MAJOR_MIN} or newer: neither in PATH nor under {DEBIAN}; \
                     tests/run installs it, or type: apt-get install postgresql"
                ))
            })
    }

    /// Where one of the programs is.
    pub(super) fn tool(&self, name: &str) -> Result<PathBuf, ClusterError> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::iter::once(self.directory.clone())
            .chain(std::env::split_paths(&path))
            .map(|directory| directory.join(name))
            .find(|program| program.is_file())
            .ok_or_else(|| {
                ClusterError::new(format!(
                    "find {name}: neither in {} nor in PATH; tests/run installs it, or type: \
                     apt-get install postgresql",
                    self.directory.display()
                ))
            })
    }
}

/// Debian's directories of programs, the newest version first.
fn debian_directories() -> impl Iterator<Item = PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    versions.sort_by_key(|&(major, _)| std::cmp::Reverse(major));
    versions.into_iter().map(|(_, directory)| directory)
}

fn is_usable(directory: &Path) -> bool {
    if !directory.join("initdb").is_file() {
        return false;
    }
    let output = Command::new(directory.join("postgres"))
        .arg("--version")
        .output();
    output.is_ok_and(|output| {
        major_version(&String::from_utf8_lossy(&output.stdout)) >= Some(MAJOR_MIN)
    })
}

/// The major version in a line such as `postgres (PostgreSQL) 15.18 (Debian ...)`.
pub(super) fn major_version(line: &str) -> Option<u32> {
    let version = line.split(' ').nth(2)?;
    let digits = version.split(|character: char| !character.is_ascii_digit());
    digits.into_iter().next()?.parse().ok()
}

/// Under whose name the server runs.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// What stands before a program's path so that it runs under that name.
    prefix: Vec<OsString>,
}

impl Account {
    /// Whoever owns this new directory runs the server. If that is root, the directory goes to a
    /// user who may.
    pub(super) fn for_directory(directory: &Path) -> Result<Self, ClusterError> {
        let failed =
            |error| ClusterError::new(format!("hand over {}", directory.display())).because(&error);
        if directory.metadata().map_err(failed)?.uid() != 0 {
            return Ok(Self { prefix: Vec::new() });
        }
        let Some((user, group)) = UNPRIVILEGED.into_iter().find_map(user_and_group) else {
            return Err(ClusterError::new(
                "run a server as root: PostgreSQL refuses, and there is neither a user postgres \
                 nor a user nobody to run it as; run the tests as an ordinary user",
            ));
        };
        chown(directory, Some(user), Some(group)).map_err(failed)?;
        let prefix = [
            "setpriv".to_owned(),
            format!("--reuid={user}"),
            format!("--regid={group}"),
            "--clear-groups".to_owned(),
            "--".to_owned(),
        ];
        Ok(Self {
            prefix: prefix.map(OsString::from).into(),
        })
    }

    /// A program that will run under that name.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut words = self.prefix.iter().cloned().chain([program.into()]);
        let first = words.next().unwrap_or_default();
        let mut command = Command::new(first);
        command.args(words);
        command
    }
}

fn user_and_group(name: &str) -> Option<(u32, u32)> {
    let number = |option: &str| {
        let output = Command::new("id").args([option, name]).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.trim().parse().ok()
    };
    Some((number("-u")?, number("-g")?))
}
