//! Copies of a server's files, as a backup of its disk is one: with its replication slots.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;

use super::run::finish;
use super::{Account, ClusterError, ClusterOptions, Installation, PostgresCluster, make_directory};

impl PostgresCluster {
    /// Starts a server on a copy of all files of this one, which has to be stopped: the same one, with a
    /// life of its own from there on.
    ///
    /// # Errors
    /// If the files cannot be copied, or the copy will not start.
    pub fn copy(&self, options: &ClusterOptions) -> Result<Self, ClusterError> {
        let installation = Installation::find()?;
        let directory = make_directory()?;
        let account = Account::for_directory(directory.path())?;
        let mut copy = Self {
            server: None,
            directory,
            installation,
            account,
            database_count: AtomicU64::new(0),
        };
        copy_files(&self.data_path(), &copy.data_path())?;
        // Of a name that is there twice, the last one wins.
        let path = copy.data_path().join("postgresql.auto.conf");
        let failed = |error: std::io::Error| {
            ClusterError::new("write the copy's configuration").because(&error)
        };
        let inherited = std::fs::read_to_string(&path).map_err(failed)?;
        let own = copy.configuration(options);
        std::fs::write(&path, format!("{inherited}\n{own}")).map_err(failed)?;
        copy.serve()?;
        Ok(copy)
    }

    /// Takes over the replication slots of another server, as of now, in place of all that this one has, which has
    /// to be stopped.
    ///
    /// # Errors
    /// If they cannot be copied.
    pub fn take_slots_of(&self, other: &Self) -> Result<(), ClusterError> {
        let slots = self.data_path().join("pg_replslot");
        std::fs::remove_dir_all(&slots)
            .map_err(|error| ClusterError::new("make room for slots").because(&error))?;
        copy_files(&other.data_path().join("pg_replslot"), &slots)
    }
}

/// Copies a directory with everything in it, owners and rights included.
fn copy_files(from: &Path, to: &Path) -> Result<(), ClusterError> {
    let mut command = Command::new("cp");
    command.arg("-a").args([from, to]).stdin(Stdio::null());
    finish(command, "cp", b"").map(drop)
}
