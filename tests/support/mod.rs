//! Running what a reader of the README would type.

pub mod following;
pub mod pgbench;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reinstate_testkit::cluster::PostgresCluster;

/// A shell in an empty directory, with the built program on its path and a server to talk to.
pub struct Shell {
    directory: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

/// A command that runs while the test goes on.
pub struct Running(Child);

impl Shell {
    /// A shell whose PostgreSQL tools talk to this server.
    pub fn new(cluster: &PostgresCluster) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let psql = cluster.command("psql").expect("psql");
        let tools = Path::new(psql.get_program())
            .parent()
            .expect("a directory of tools");
        let path = format!(
            "{}:{}:{path}",
            program_directory().display(),
            tools.display()
        );
        let environment = vec![
            ("PATH".to_owned(), path),
            (
                "PGHOST".to_owned(),
                cluster.socket_dir().display().to_string(),
            ),
            ("PGUSER".to_owned(), cluster.superuser().to_owned()),
        ];
        Self {
            directory: tempfile::tempdir().expect("a directory"),
            environment,
        }
    }

    /// The same shell with `DATABASE` and `DATABASE_URL` set.
    pub fn with_database(mut self, name: &str) -> Self {
        self.environment
            .push(("DATABASE".to_owned(), name.to_owned()));
        let value = |wanted: &str| {
            let found = self.environment.iter().find(|(name, _)| name == wanted);
            found.map_or("", |(_, value)| value.as_str())
        };
        let (host, user) = (value("PGHOST"), value("PGUSER"));
        let url = format!("postgres:///{name}?host={host}&user={user}");
        self.environment.push(("DATABASE_URL".to_owned(), url));
        self
    }

    /// Where it runs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Runs a script and returns all that it printed.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let output = self.command(script).output().expect("run a shell");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(
            output.status.success(),
            "{}: {script}\n{text}",
            output.status
        );
        text
    }

    /// Runs a script that is to fail; returns its exit code and all that it printed.
    pub fn fail(&self, script: &str) -> (Option<i32>, String) {
        let output = self.command(script).output().expect("run a shell");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.code(), text)
    }

    /// Starts a script.
    pub fn spawn(&self, script: &str) -> Running {
        let mut command = self.command(script);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running(command.spawn().expect("run a shell"))
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .current_dir(self.directory.path());
        command
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::null());
        command
    }
}

impl Running {
    /// Whether the script is over.
    pub fn is_over(&mut self) -> bool {
        self.0.try_wait().expect("look at a shell").is_some()
    }

    /// Kills what the script became by `exec`, as a power cut would.
    pub fn kill(mut self) {
        self.0.kill().expect("kill a shell");
        self.0.wait().expect("wait for a shell");
    }

    /// Waits for the script; returns its exit code and all that it printed.
    pub fn end(self) -> (Option<i32>, String) {
        let output = self.0.wait_with_output().expect("wait for a shell");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        (output.status.code(), text)
    }

    /// Waits for the script and returns all that it printed.
    #[track_caller]
    pub fn wait(self) -> String {
        let output = self.0.wait_with_output().expect("wait for a shell");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success(), "{}\n{text}", output.status);
        text
    }
}

/// The first code block of this language under a heading of the README.
pub fn readme_block(heading: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(path).expect("read the README");
    let fence = format!("```{language}\n");
    let after = readme
        .split_once(heading)
        .expect("the README has the heading")
        .1;
    let block = after
        .split_once(&fence)
        .expect("there is a block under it")
        .1;
    block
        .split_once("```")
        .expect("the block ends")
        .0
        .to_owned()
}

/// Where the workspace's programs are built: beside this test's own directory.
fn program_directory() -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let directory = test
        .parent()
        .and_then(Path::parent)
        .expect("a target directory");
    assert!(
        directory.join("reinstate").exists(),
        "{} has no `reinstate`: build the workspace first, as tests/run does",
        directory.display()
    );
    directory.to_owned()
}
