//! A PostgreSQL server of one's own, for tests.
//!
//! [`PostgresCluster::start`] makes a database cluster in a temporary directory and serves it on
//! a unix socket there, so that any number of them run side by side. [`shared_cluster`] is one
//! cluster for a whole test process, in which every test takes a database of its own.
//!
//! # Crash consistency
//! A watchdog process, and not the test process, holds the server. It stops the server and
//! removes the directory as soon as the test process is gone, however it went.

mod copy;
mod database;
mod error;
mod installation;
mod run;
mod server;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

pub use database::TestDatabase;
pub use error::ClusterError;
use installation::{Account, Installation};
use run::finish;
use server::Server;

/// The name of the role that may do everything.
const SUPERUSER: &str = "postgres";

/// The longest path that leaves room for the name of a socket, which ends at 107 bytes.
const DIRECTORY_BYTES_MAX: usize = 80;

/// How a cluster is run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterOptions {
    /// Whether commits reach the disk. Off is faster and right for every test that does not
    /// crash the server.
    pub fsync: bool,
    /// Further lines of `postgresql.conf`: names and values, the last one of a name wins.
    pub settings: Vec<(String, String)>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            fsync: true,
            settings: Vec::new(),
        }
    }
}

impl ClusterOptions {
    /// Commits that do not wait for the disk.
    #[must_use]
    pub fn fast() -> Self {
        Self {
            fsync: false,
            ..Self::default()
        }
    }

    /// The same options with one more line of `postgresql.conf`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Open transactions are rolled back, connections closed, everything written out.
    Fast,
    /// At once, nothing written out; the next start recovers.
    Immediate,
}

/// A running PostgreSQL server with an empty database `postgres`. Dropping it stops the server
/// and removes its files.
#[derive(Debug)]
pub struct PostgresCluster {
    // Before `directory`: the server has to be gone when its files are removed.
    server: Option<Server>,
    directory: TempDir,
    installation: Installation,
    account: Account,
    database_count: AtomicU64,
}

impl PostgresCluster {
    /// Makes a cluster and starts its server. Takes about two seconds.
    ///
    /// Whoever is root cannot run a server; then it runs as `postgres` or, where there is no such
    /// user, as `nobody`.
    ///
    /// # Errors
    /// If PostgreSQL 15 or newer is not installed, or will not start; the message has the
    /// server's own words.
    pub fn start(options: &ClusterOptions) -> Result<Self, ClusterError> {
        let installation = Installation::find()?;
        let directory = make_directory()?;
        let account = Account::for_directory(directory.path())?;
        let mut cluster = Self {
            server: None,
            directory,
            installation,
            account,
            database_count: AtomicU64::new(0),
        };
        cluster.initialise(options)?;
        cluster.serve()?;
        Ok(cluster)
    }

    /// Makes a standby of this server, which streams what is committed here, and starts it. It answers
    /// to reading until it is [promoted](Self::promote).
    ///
    /// # Errors
    /// If `pg_basebackup` is not installed or fails, or the standby will not start.
    pub fn standby(&self, options: &ClusterOptions) -> Result<Self, ClusterError> {
        let installation = Installation::find()?;
        let directory = make_directory()?;
        let account = Account::for_directory(directory.path())?;
        let mut standby = Self {
            server: None,
            directory,
            installation,
            account,
            database_count: AtomicU64::new(0),
        };
        let tool = standby.installation.tool("pg_basebackup")?;
        let mut command = standby.account.command(&tool);
        command
            .current_dir(standby.directory.path())
            .arg("-h")
            .arg(self.socket_dir())
            .args(["-U", SUPERUSER, "--write-recovery-conf", "--no-sync"])
            .args(["--checkpoint=fast", "--wal-method=stream", "-D"])
            .arg(standby.data_path())
            .stdin(Stdio::null());
        finish(command, "pg_basebackup", b"")?;
        // Of a name that is there twice, the last one wins.
        let path = standby.data_path().join("postgresql.auto.conf");
        let failed = |error: std::io::Error| {
            ClusterError::new("write the standby's configuration").because(&error)
        };
        let inherited = std::fs::read_to_string(&path).map_err(failed)?;
        let own = standby.configuration(options);
        std::fs::write(&path, format!("{inherited}\n{own}")).map_err(failed)?;
        standby.serve()?;
        Ok(standby)
    }

    /// Makes a standby a server of its own, on a timeline of its own. Returns when it takes writes.
    ///
    /// # Errors
    /// If it is no standby, or does not become one in a minute.
    pub fn promote(&self) -> Result<(), ClusterError> {
        match self.psql("postgres", "SELECT pg_promote()")?.as_str() {
            "t" => Ok(()),
            said => Err(ClusterError::new(format!(
                "promote the standby: it said {said}"
            ))),
        }
    }

    /// The directory that holds the server's socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.directory.path()
    }

    /// The role that may do everything. No role needs a password.
    #[must_use]
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// How the superuser reaches a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_as(SUPERUSER, database)
    }

    /// How a role reaches a database.
    #[must_use]
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!(
            "postgres:///{}?host={}&user={}",
            percent_encode(database),
            percent_encode(&self.socket_dir().to_string_lossy()),
            percent_encode(role),
        )
    }

    /// One of PostgreSQL's programs, set up to reach this server as the superuser.
    ///
    /// # Errors
    /// If the program is not installed.
    pub fn command(&self, tool: &str) -> Result<Command, ClusterError> {
        let mut command = Command::new(self.installation.tool(tool)?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("PGHOST", self.socket_dir())
            .env("PGUSER", SUPERUSER)
            .env("PGCONNECT_TIMEOUT", "30");
        Ok(command)
    }

    /// Runs one of PostgreSQL's programs and returns what it printed.
    ///
    /// # Errors
    /// If it is not installed or fails; the message has what it complained about.
    pub fn run(&self, tool: &str, arguments: &[&str]) -> Result<String, ClusterError> {
        let mut command = self.command(tool)?;
        command.args(arguments).stdin(Stdio::null());
        finish(command, tool, b"")
    }

    /// Runs SQL as the superuser, each statement by itself, and returns the rows: columns
    /// separated by `|`, rows by line ends, without a last one.
    ///
    /// # Errors
    /// At the first statement that fails.
    pub fn psql(&self, database: &str, sql: &str) -> Result<String, ClusterError> {
        self.psql_as(SUPERUSER, database, sql)
    }

    /// Runs SQL as a role, as [`psql`](Self::psql) does.
    ///
    /// # Errors
    /// At the first statement that fails.
    pub fn psql_as(&self, role: &str, database: &str, sql: &str) -> Result<String, ClusterError> {
        let mut command = self.command("psql")?;
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-U", role, "-d", database, "-f", "-"])
            .stdin(Stdio::piped());
        let mut text = finish(command, "psql", sql.as_bytes())?;
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// If there is one of that name.
    pub fn create_database(&self, name: &str) -> Result<(), ClusterError> {
        self.run("createdb", &["--", name]).map(drop)
    }

    /// Makes an empty database with a name that no other one has; it is dropped with the value.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn fresh_database(&self) -> Result<TestDatabase<'_>, ClusterError> {
        let number = self.database_count.fetch_add(1, Ordering::Relaxed);
        TestDatabase::create(self, format!("test_{number}"))
    }

    /// Stops the server. Does nothing when it is not running.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn stop(&mut self, mode: Mode) -> Result<(), ClusterError> {
        self.end(match mode {
            Mode::Fast => "INT",
            Mode::Immediate => "QUIT",
        })
    }

    /// Kills every process of the server, as a power cut would. Does nothing when it is not
    /// running.
    ///
    /// # Errors
    /// If it does not stop.
    pub fn kill_nine(&mut self) -> Result<(), ClusterError> {
        self.end("KILL")
    }

    /// Starts the server again, after a fast stop if it is still running. Its address stays.
    ///
    /// # Errors
    /// If it does not start; the message has the server's own words.
    pub fn restart(&mut self) -> Result<(), ClusterError> {
        self.stop(Mode::Fast)?;
        self.serve()
    }

    /// What the server has logged since the cluster was made.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn log(&self) -> Result<String, ClusterError> {
        let bytes = std::fs::read(self.log_path())
            .map_err(|error| ClusterError::new("read the server's log").because(&error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn initialise(&self, options: &ClusterOptions) -> Result<(), ClusterError> {
        let mut command = self.account.command(&self.installation.tool("initdb")?);
        command
            .current_dir(self.directory.path())
            .args(["--no-sync", "--no-instructions", "--auth=trust"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["-U", SUPERUSER, "-D"])
            .arg(self.data_path())
            .stdin(Stdio::null());
        finish(command, "initdb", b"")?;
        let path = self.data_path().join("postgresql.auto.conf");
        std::fs::write(&path, self.configuration(options))
            .map_err(|error| ClusterError::new("write the server's configuration").because(&error))
    }

    fn configuration(&self, options: &ClusterOptions) -> String {
        let socket_dir = self.socket_dir().to_string_lossy();
        let durable = if options.fsync { "on" } else { "off" };
        let fixed = [
            ("listen_addresses", ""),
            ("unix_socket_directories", &socket_dir),
            ("fsync", durable),
            ("full_page_writes", durable),
            ("wal_level", "logical"),
            ("max_connections", "60"),
            ("shared_buffers", "48MB"),
            ("max_wal_size", "512MB"),
            ("max_wal_senders", "8"),
            ("max_replication_slots", "8"),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
        ];
        let further = options.settings.iter().map(|(n, v)| (&**n, &**v));
        fixed
            .into_iter()
            .chain(further)
            .map(|(name, value)| format!("{name} = '{}'\n", value.replace('\'', "''")))
            .collect()
    }

    fn serve(&mut self) -> Result<(), ClusterError> {
        let mut command = self.account.command(&self.installation.tool("postgres")?);
        command.arg("-D").arg(self.data_path());
        let server = Server::start(
            &command,
            self.directory.path(),
            &self.data_path(),
            &self.log_path(),
        )?;
        self.server = Some(server);
        Ok(())
    }

    fn end(&mut self, signal: &str) -> Result<(), ClusterError> {
        self.server
            .take()
            .map_or(Ok(()), |server| server.end(signal))
    }

    fn data_path(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for PostgresCluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Mode::Immediate) {
            eprintln!("{error}");
        }
    }
}

/// The cluster of this test process, started by the first call. Commits do not wait for the
/// disk, and nobody can stop it: a test that does either starts one of its own.
///
/// # Errors
/// As [`PostgresCluster::start`]; the same for every call.
pub fn shared_cluster() -> Result<&'static PostgresCluster, ClusterError> {
    static SHARED: OnceLock<Result<PostgresCluster, ClusterError>> = OnceLock::new();
    SHARED
        .get_or_init(|| PostgresCluster::start(&ClusterOptions::fast()))
        .as_ref()
        .map_err(Clone::clone)
}

fn make_directory() -> Result<TempDir, ClusterError> {
    let build = |parent: &Path| {
        tempfile::Builder::new()
            .prefix("reinstate-pg-")
            .tempdir_in(parent)
            .map_err(|error| {
                ClusterError::new(format!("make a directory in {}", parent.display()))
                    .because(&error)
            })
    };
    let parent = std::env::temp_dir();
    let directory = build(&parent)?;
    if directory.path().as_os_str().len() <= DIRECTORY_BYTES_MAX {
        return Ok(directory);
    }
    build(Path::new("/tmp"))
}

/// Everything but letters, digits and `-._~/` as `%XX`.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
