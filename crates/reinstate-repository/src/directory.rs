//! Directories: made private, brought to the disk, listed without guessing.

use std::fs::{self, DirBuilder, File, FileType};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use reinstate_core::RepositoryError;

use crate::failure::{corrupt, failure};
use crate::fault::{Step, reach};
use crate::layout::parse_digits;

/// Nobody but the owner may list, read or write.
const DIRECTORY_MODE: u32 = 0o700;

/// Makes a directory unless it is there.
pub(crate) fn ensure_directory(path: &Path) -> Result<(), RepositoryError> {
    match DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failure("make directory", path, error)),
    }
}

/// Brings the names in a directory to the disk.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    reach(Step::SyncDirectory)?;
    File::open(path)?.sync_all()
}

/// The directory that a file is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether a path leads nowhere, as opposed to something that cannot be looked at.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// One name in a directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) file_type: FileType,
}

/// Every name in a directory, in any order; `None` if there is no such directory.
///
/// # Errors
/// `Corrupt` if a name is not text.
pub(crate) fn entries(path: &Path) -> Result<Option<Vec<Entry>>, RepositoryError> {
    let failed = |error| failure("list", path, error);
    let listing = match fs::read_dir(path) {
        Ok(listing) => listing,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut entries = Vec::new();
    for entry in listing {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let Ok(name) = entry.file_name().into_string() else {
            return Err(corrupt("list", &path, "this program writes no such name"));
        };
        entries.push(Entry {
            path,
            name,
            file_type: entry.file_type().map_err(failed)?,
        });
    }
    Ok(Some(entries))
}

/// The names in a directory that holds nothing but files with names of 32 digits, sorted; `None`
/// if there is no such directory.
///
/// # Errors
/// `Corrupt` if anything else is in it.
pub(crate) fn named_files(path: &Path) -> Result<Option<Vec<[u8; 16]>>, RepositoryError> {
    let Some(entries) = entries(path)? else {
        return Ok(None);
    };
    let mut names = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(name) = parse_digits(&entry.name) else {
            return Err(corrupt(
                "list",
                &entry.path,
                "this program writes no such name",
            ));
        };
        if !entry.file_type.is_file() {
            return Err(corrupt("list", &entry.path, "it is not a file"));
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(Some(names))
}
