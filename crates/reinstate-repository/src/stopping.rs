//! The machine's file system, whose steps of writing a test can stop or fail.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::file_system::{DirectoryEntry, FileStatus, FileSystem, OpenMode, StoredFile};
use crate::local::LocalFileSystem;

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the temporary file.
    Create,
    /// Append bytes to it.
    Write,
    /// Bring its bytes to the disk.
    SyncFile,
    /// Give it its name.
    Link,
    /// Bring the name to the disk.
    SyncDirectory,
    /// Take the temporary name away.
    Unlink,
}

/// Decides about a step.
pub(crate) type Fault = Box<dyn FnMut(Step) -> io::Result<()> + Send>;

/// Clones share what decides.
#[derive(Clone)]
pub(crate) struct StoppingFileSystem(Arc<Mutex<Fault>>);

impl StoppingFileSystem {
    pub(crate) fn new(fault: Fault) -> Self {
        Self(Arc::new(Mutex::new(fault)))
    }

    /// From now on steps are decided by `fault`.
    pub(crate) fn inject(&self, fault: Fault) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn reach(&self, step: Step) -> io::Result<()> {
        (self.0.lock().unwrap_or_else(PoisonError::into_inner))(step)
    }
}

impl fmt::Debug for StoppingFileSystem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StoppingFileSystem")
    }
}

impl FileSystem for StoppingFileSystem {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        LocalFileSystem.create_directory(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.reach(Step::SyncDirectory)?;
        LocalFileSystem.sync_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        LocalFileSystem.list(path)
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        LocalFileSystem.status(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoredFile>> {
        if mode == OpenMode::CreateNew {
            self.reach(Step::Create)?;
        }
        Ok(Box::new(StoppingFile {
            file: LocalFileSystem.open(path, mode)?,
            stops: self.clone(),
        }))
    }

    fn link(&self, path: &Path, name: &Path) -> io::Result<()> {
        self.reach(Step::Link)?;
        LocalFileSystem.link(path, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.reach(Step::Unlink)?;
        LocalFileSystem.remove(path)
    }

    fn draw_name(&self, name: &mut [u8; 16]) -> io::Result<()> {
        LocalFileSystem.draw_name(name)
    }
}

#[derive(Debug)]
struct StoppingFile {
    file: Box<dyn StoredFile>,
    stops: StoppingFileSystem,
}

impl StoredFile for StoppingFile {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.stops.reach(Step::Write)?;
        self.file.append(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.stops.reach(Step::SyncFile)?;
        self.file.sync()
    }

    fn clear(&self) -> io::Result<()> {
        self.file.clear()
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(offset, bytes)
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.file.status()
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }
}
