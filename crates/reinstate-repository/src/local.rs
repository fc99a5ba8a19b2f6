//! The machine's own file system.

use std::fs::{self, DirBuilder, File, FileType, Metadata, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::file_system::{DirectoryEntry, FileKind, FileStatus, FileSystem, OpenMode, StoredFile};

/// Nobody but the owner may list, read or write.
const DIRECTORY_MODE: u32 = 0o700;
/// Nobody but the owner may read or write.
const FILE_MODE: u32 = 0o600;

/// The file system that the operating system offers.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFileSystem;

impl FileSystem for LocalFileSystem {
    fn create_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(DIRECTORY_MODE).create(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.push(DirectoryEntry {
                name: entry.file_name(),
                kind: kind(entry.file_type()?),
            });
        }
        Ok(entries)
    }

    fn status(&self, path: &Path) -> io::Result<FileStatus> {
        fs::symlink_metadata(path).map(|metadata| status(&metadata))
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn StoredFile>> {
        let mut options = OpenOptions::new();
        match mode {
            OpenMode::CreateNew => options.write(true).create_new(true).mode(FILE_MODE),
            OpenMode::OpenOrCreate => options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(FILE_MODE),
            OpenMode::Change => options.read(true).write(true),
            OpenMode::Read => options.read(true),
        };
        Ok(Box::new(options.open(path)?))
    }

    fn link(&self, path: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(path, name)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn draw_name(&self, name: &mut [u8; 16]) -> io::Result<()> {
        getrandom::fill(name).map_err(|error| io::Error::other(error.to_string()))
    }
}

impl StoredFile for File {
    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        let mut file = self;
        file.write_all(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_all()
    }

    fn clear(&self) -> io::Result<()> {
        self.set_len(0)
    }

    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.metadata().map(|metadata| status(&metadata))
    }

    fn try_lock(&self) -> io::Result<bool> {
        match File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

fn kind(file_type: FileType) -> FileKind {
    if file_type.is_file() {
        FileKind::File
    } else if file_type.is_dir() {
        FileKind::Directory
    } else {
        FileKind::Other
    }
}

fn status(metadata: &Metadata) -> FileStatus {
    FileStatus {
        kind: kind(metadata.file_type()),
        identity: (metadata.dev(), metadata.ino()),
        byte_count: metadata.len(),
        link_count: metadata.nlink(),
    }
}
