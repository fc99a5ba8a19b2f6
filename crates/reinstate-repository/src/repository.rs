//! A repository in a local directory.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reinstate_core::{
    ErrorKind, ObjectId, ObjectReader, ObjectWriter, Repository, RepositoryError, RepositoryId,
    Timestamp,
};
use reinstate_format::{RepositoryHeader, decode_repository_header, encode_repository_header};

use crate::directory::{ensure_directory, entries, named_files, parent};
use crate::failure::{corrupt, failure};
use crate::file_system::{FileKind, FileSystem};
use crate::layout::{DIRECTORIES, HEADER_BYTES_MAX, Layout};
use crate::local::LocalFileSystem;
use crate::object::{FileObjectReader, LocalObjectWriter};
use crate::{RepositoryLock, Swept, record, sweep};

/// How much of an object is copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Immutable objects and records in a directory of their own, readable by its owner only.
///
/// Used from several threads and processes at once. The directory has to be on a file system
/// with hard links, and with locks if several machines share it.
#[derive(Debug)]
pub struct LocalRepository {
    layout: Layout,
    header: RepositoryHeader,
}

impl LocalRepository {
    /// Makes a repository in a directory that is empty or not there; its parent must be. An
    /// attempt that was cut short can be made again.
    ///
    /// # Errors
    /// `Usage` if there is a repository or anything else in the directory; `Full` or `Refused`
    /// as the file system has it.
    pub fn init(
        path: impl Into<PathBuf>,
        id: RepositoryId,
        created_at: Timestamp,
    ) -> Result<Self, RepositoryError> {
        Self::init_on(Arc::new(LocalFileSystem), path, id, created_at)
    }

    /// Makes a repository on a file system of the caller's own, to test what happens when it fails.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub fn init_on(
        files: Arc<dyn FileSystem>,
        path: impl Into<PathBuf>,
        id: RepositoryId,
        created_at: Timestamp,
    ) -> Result<Self, RepositoryError> {
        let layout = Layout::new(files, path);
        let (files, root) = (layout.files().as_ref(), layout.root());
        ensure_directory(files, root)?;
        check_vacant(&layout)?;
        for name in DIRECTORIES {
            ensure_directory(files, &root.join(name))?;
        }
        layout
            .shards()
            .try_for_each(|shard| ensure_directory(files, &shard))?;
        let synced = [
            layout.objects(),
            root.to_path_buf(),
            parent(root).to_path_buf(),
        ];
        for directory in synced {
            files
                .sync_directory(&directory)
                .map_err(|error| failure("sync", &directory, error))?;
        }
        let header = RepositoryHeader { id, created_at };
        let bytes = encode_repository_header(&header);
        record::publish_at(&layout, &layout.header(), &bytes).map_err(|error| {
            match error.kind() {
                ErrorKind::Conflict => occupied(root, "there is a repository already"),
                _ => error,
            }
        })?;
        Ok(Self { layout, header })
    }

    /// Opens a repository. Reads its header; takes no lock and writes nothing.
    ///
    /// # Errors
    /// `NotFound` if there is none; `Corrupt` if its header is damaged, or missing although
    /// there are objects; `Refused` if a newer version of this program made it.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, RepositoryError> {
        Self::open_on(Arc::new(LocalFileSystem), path)
    }

    /// Opens a repository on a file system of the caller's own.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_on(
        files: Arc<dyn FileSystem>,
        path: impl Into<PathBuf>,
    ) -> Result<Self, RepositoryError> {
        let layout = Layout::new(files, path);
        let operation = format!("open repository {}", layout.root().display());
        let path = layout.header();
        let bytes = match record::read_at(layout.files().as_ref(), &path, HEADER_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(missing(&layout, &operation));
            }
            Err(error) => return Err(error),
        };
        if bytes.len() > HEADER_BYTES_MAX {
            return Err(corrupt(operation, &path, "its header is too long"));
        }
        let header = decode_repository_header(&bytes).map_err(|error| {
            RepositoryError::new(error.kind(), format!("{operation}: {error}")).because(error)
        })?;
        Ok(Self { layout, header })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.layout.root()
    }

    /// When it was made.
    #[must_use]
    pub fn created_at(&self) -> Timestamp {
        self.header.created_at
    }

    /// Copies something that is open for reading into the repository, as an object. Holds one
    /// mebibyte of it at a time.
    ///
    /// # Errors
    /// `Full`; or `Corrupt` if what is read is shorter than it says. Nothing is published then.
    pub fn adopt(&self, reader: &dyn ObjectReader) -> Result<ObjectId, RepositoryError> {
        let mut writer = Box::new(LocalObjectWriter::create(&self.layout)?);
        let mut buffer = vec![0; COPY_BYTES];
        let byte_count = reader.byte_count();
        let mut offset = 0;
        while offset < byte_count {
            let left = usize::try_from(byte_count - offset).unwrap_or(usize::MAX);
            let part = &mut buffer[..left.min(COPY_BYTES)];
            reader.read_exact_at(offset, part)?;
            writer.write(part)?;
            offset += part.len() as u64;
        }
        writer.seal()
    }

    /// Takes a lock of this name, if nobody has it. For those who must not overlap with others
    /// of their kind; reading needs no lock, nor does writing an object or a record. `note` is a line that
    /// whoever finds it held is shown: who holds it. 256 bytes of it are kept.
    ///
    /// # Errors
    /// `Locked` if somebody holds it; `Usage` if the name is not 1 to 32 of a to z, digits and
    /// hyphens.
    pub fn lock(&self, name: &str, note: &str) -> Result<RepositoryLock, RepositoryError> {
        let (files, path) = (self.layout.files(), self.layout.lock(name)?);
        RepositoryLock::take(files.as_ref(), &path, name, note)
    }

    /// The note of whoever holds the lock of this name, or held it last and did not let go of it; empty if
    /// nobody ever did.
    ///
    /// # Errors
    /// As [`lock`](Self::lock), but that it does not matter whether it is held.
    pub fn lock_note(&self, name: &str) -> Result<String, RepositoryError> {
        let (files, path) = (self.layout.files(), self.layout.lock(name)?);
        RepositoryLock::note(files.as_ref(), &path, name)
    }

    /// Removes what writers left that are gone. Those at work are not disturbed.
    ///
    /// # Errors
    /// `Corrupt` if there are files that this program did not write; then nothing is removed.
    pub fn sweep_temporary(&self) -> Result<Swept, RepositoryError> {
        sweep::sweep(&self.layout)
    }
}

impl Repository for LocalRepository {
    fn id(&self) -> RepositoryId {
        self.header.id
    }

    fn create_object(&self) -> Result<Box<dyn ObjectWriter + '_>, RepositoryError> {
        Ok(Box::new(LocalObjectWriter::create(&self.layout)?))
    }

    fn open_object(&self, object: ObjectId) -> Result<Box<dyn ObjectReader>, RepositoryError> {
        let path = self.layout.object(object);
        Ok(Box::new(FileObjectReader::open_object(
            self.layout.files().as_ref(),
            &path,
            object,
        )?))
    }

    /// Sorted.
    fn list_objects(&self) -> Result<Vec<ObjectId>, RepositoryError> {
        list_objects(&self.layout)
    }

    /// After any error but `Conflict` the record may be there or not; publishing the same bytes
    /// again tells.
    fn publish(&self, kind: &str, name: [u8; 16], bytes: &[u8]) -> Result<(), RepositoryError> {
        record::publish(&self.layout, kind, name, bytes)
    }

    fn read(&self, kind: &str, name: [u8; 16]) -> Result<Vec<u8>, RepositoryError> {
        record::read(&self.layout, kind, name)
    }

    /// Sorted.
    fn list(&self, kind: &str) -> Result<Vec<[u8; 16]>, RepositoryError> {
        record::list(&self.layout, kind)
    }
}

fn list_objects(layout: &Layout) -> Result<Vec<ObjectId>, RepositoryError> {
    let (files, operation) = (layout.files().as_ref(), "list objects");
    let mut objects = Vec::new();
    for shard in layout.shards() {
        let Some(names) = named_files(files, &shard)? else {
            return Err(corrupt(operation, &shard, "the directory is missing"));
        };
        for name in names {
            let object = ObjectId::from_bytes(name);
            let path = shard.join(object.to_string());
            if layout.object(object) != path {
                return Err(corrupt(operation, &path, "it lies in another's directory"));
            }
            objects.push(object);
        }
    }
    // Whatever lies beside the 256 was not counted above.
    let shards: HashSet<PathBuf> = layout.shards().collect();
    for entry in entries(files, &layout.objects())?.unwrap_or_default() {
        if !shards.contains(&entry.path) {
            return Err(corrupt(
                operation,
                &entry.path,
                "this program writes no such name",
            ));
        }
    }
    Ok(objects)
}

/// Checks that nothing is in the way of a new repository: an attempt that was cut short is not.
fn check_vacant(layout: &Layout) -> Result<(), RepositoryError> {
    let root = layout.root();
    let files = layout.files().as_ref();
    if files.status(&layout.header()).is_ok() {
        return Err(occupied(root, "there is a repository already"));
    }
    for entry in entries(files, root)?.unwrap_or_default() {
        if !DIRECTORIES.contains(&entry.name.as_str()) || entry.kind != FileKind::Directory {
            let fact = format!(
                "the directory is not empty, there is {:?} in it",
                entry.name
            );
            return Err(occupied(root, &fact));
        }
    }
    if holds_anything(layout)? {
        return Err(occupied(
            root,
            "there are objects of a repository that lost its header",
        ));
    }
    Ok(())
}

/// Whether there are objects or records.
fn holds_anything(layout: &Layout) -> Result<bool, RepositoryError> {
    let files = layout.files().as_ref();
    for shard in layout.shards() {
        if entries(files, &shard)?.is_some_and(|entries| !entries.is_empty()) {
            return Ok(true);
        }
    }
    Ok(entries(files, &layout.records())?.is_some_and(|kinds| !kinds.is_empty()))
}

fn missing(layout: &Layout, operation: &str) -> RepositoryError {
    match holds_anything(layout) {
        Ok(false) => {
            let message = format!("{operation}: there is no repository");
            RepositoryError::new(ErrorKind::NotFound, message)
        }
        Ok(true) => corrupt(operation, &layout.header(), "the header is missing"),
        Err(error) => error,
    }
}

fn occupied(root: &Path, fact: &str) -> RepositoryError {
    let message = format!("make a repository in {}: {fact}", root.display());
    RepositoryError::new(ErrorKind::Usage, message)
}
