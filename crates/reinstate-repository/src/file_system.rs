//! The few things that a repository asks of a file system, behind a seam.
//!
//! [`LocalFileSystem`] is the one that programs use. A test puts another in its place: one that fails
//! at a step, or that writes down every step so that a crash can be played after each.
//!
//! # Crash consistency
//! What [`StoredFile::append`] wrote is promised to be there after a crash only when
//! [`StoredFile::sync`] returned, and a name only when [`FileSystem::sync_directory`] of its directory
//! did. Until then any part of it may be there, in any order.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// A link, a pipe, or anything else: nothing that a repository makes.
    Other,
}

/// What is known of a file without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// What it is.
    pub kind: FileKind,
    /// Which file of the machine it is: equal for all of its names.
    pub identity: (u64, u64),
    /// How long it is.
    pub byte_count: u64,
    /// How many names it has.
    pub link_count: u64,
}

/// One name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The name.
    pub name: OsString,
    /// What it stands for; a link is not followed.
    pub kind: FileKind,
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Make a file that only its owner may read or write; `AlreadyExists` if the name is taken.
    CreateNew,
    /// Make it unless it is there.
    OpenOrCreate,
    /// Open one that is there, to read and change it.
    Change,
    /// Open one that is there, to read it.
    Read,
}

/// A file system with hard links and locks.
pub trait FileSystem: fmt::Debug + Send + Sync {
    /// Makes a directory that only its owner may use; `AlreadyExists` if the name is taken.
    ///
    /// # Errors
    /// As the system reports it.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Brings the names in a directory to the disk.
    ///
    /// # Errors
    /// As the system reports it. After one, nobody knows which names are there.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Every name in a directory, in any order.
    ///
    /// # Errors
    /// As the system reports it; never a part of the list.
    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>>;

    /// What a name stands for; a link is not followed.
    ///
    /// # Errors
    /// As the system reports it.
    fn status(&self, path: &Path) -> io::Result<FileStatus>;

    /// Opens a file.
    ///
    /// # Errors
    /// As the system reports it.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoredFile>>;

    /// Gives a file another name; `AlreadyExists` if that is taken.
    ///
    /// # Errors
    /// As the system reports it.
    fn link(&self, path: &Path, name: &Path) -> io::Result<()>;

    /// Takes a name of a file away.
    ///
    /// # Errors
    /// As the system reports it.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Fills this with bytes that nobody has drawn before: the name of a new file.
    ///
    /// # Errors
    /// If the system has none.
    fn draw_name(&self, name: &mut [u8; 16]) -> io::Result<()>;
}

/// An open file. A lock that was taken on it goes when it is dropped.
pub trait StoredFile: fmt::Debug + Send + Sync {
    /// Writes bytes behind those that were written before.
    ///
    /// # Errors
    /// As the system reports it; a part of them may be written.
    fn append(&self, bytes: &[u8]) -> io::Result<()>;

    /// Brings every byte to the disk.
    ///
    /// # Errors
    /// As the system reports it. After one, nobody knows what is on the disk.
    fn sync(&self) -> io::Result<()>;

    /// Takes all bytes away.
    ///
    /// # Errors
    /// As the system reports it.
    fn clear(&self) -> io::Result<()>;

    /// Reads bytes from this place on; fewer than asked for at the end of the file.
    ///
    /// # Errors
    /// As the system reports it.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// What is known of it.
    ///
    /// # Errors
    /// As the system reports it.
    fn status(&self) -> io::Result<FileStatus>;

    /// Takes the file's lock, unless somebody has it.
    ///
    /// # Errors
    /// As the system reports it.
    fn try_lock(&self) -> io::Result<bool>;
}
