//! Objects: written once, read in parts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use reinstate_core::{ErrorKind, ObjectId, ObjectReader, ObjectWriter, RepositoryError};

use crate::directory::is_absence;
use crate::draft::Draft;
use crate::failure::{corrupt, failure};
use crate::file_system::{FileKind, FileStatus, FileSystem, OpenMode, StoredFile};
use crate::layout::Layout;
use crate::local::LocalFileSystem;

/// An object of a repository that is being written. Dropping it leaves nothing.
#[derive(Debug)]
pub struct LocalObjectWriter<'a> {
    layout: &'a Layout,
    draft: Draft,
}

impl<'a> LocalObjectWriter<'a> {
    pub(crate) fn create(layout: &'a Layout) -> Result<Self, RepositoryError> {
        let temporary = layout.temporary();
        let draft = Draft::create(layout.files(), |digits| temporary.join(digits))
            .map_err(|error| failure("start an object", &temporary, error))?;
        Ok(Self { layout, draft })
    }
}

impl ObjectWriter for LocalObjectWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.draft
            .write(bytes)
            .map_err(|error| failure("write an object", self.draft.path(), error))
    }

    fn seal(self: Box<Self>) -> Result<ObjectId, RepositoryError> {
        let object = ObjectId::from_bytes(self.draft.name());
        let path = self.layout.object(object);
        self.draft
            .publish(&path)
            .map_err(|error| failure("seal an object", &path, error))?;
        Ok(object)
    }
}

/// A sealed object, or a file of the user's own, open for reading.
#[derive(Debug)]
pub struct FileObjectReader {
    file: Box<dyn StoredFile>,
    path: PathBuf,
    byte_count: u64,
}

impl FileObjectReader {
    /// Opens an object of a repository. What is not a plain file was not put there by us.
    pub(crate) fn open_object(
        files: &dyn FileSystem,
        path: &Path,
        object: ObjectId,
    ) -> Result<Self, RepositoryError> {
        open_plain(
            files,
            path,
            &format!("open object {object}"),
            &format!("object {object}"),
        )
    }

    /// Opens a file that the user names; a symbolic link is followed.
    pub(crate) fn open_file(path: &Path) -> Result<Self, RepositoryError> {
        let failed = |error: io::Error| {
            if is_absence(&error) {
                not_found("open", path, "there is no such file")
            } else {
                failure("open", path, error)
            }
        };
        // Looked at before it is opened: a pipe would wait for a writer.
        let metadata = fs::metadata(path).map_err(failed)?;
        if !metadata.is_file() {
            let message = format!("open {}: it is not a file", path.display());
            return Err(RepositoryError::new(ErrorKind::Usage, message));
        }
        let file = LocalFileSystem.open(path, OpenMode::Read).map_err(failed)?;
        let byte_count = file.status().map_err(failed)?.byte_count;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            byte_count,
        })
    }

    pub(crate) fn file(&self) -> &dyn StoredFile {
        &*self.file
    }
}

impl ObjectReader for FileObjectReader {
    fn byte_count(&self) -> u64 {
        self.byte_count
    }

    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), RepositoryError> {
        read_exact_at(&*self.file, offset, bytes).map_err(|error| {
            let operation = format!("read {} bytes at byte {offset}", bytes.len());
            match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    let fact = format!("it ends before; it had {} bytes", self.byte_count);
                    corrupt(operation, &self.path, &fact)
                }
                _ => failure(operation, &self.path, error),
            }
        })
    }
}

/// Opens a file that must be there and must be a plain file, not a link to one.
pub(crate) fn open_plain(
    files: &dyn FileSystem,
    path: &Path,
    operation: &str,
    noun: &str,
) -> Result<FileObjectReader, RepositoryError> {
    let failed = |error: io::Error| {
        if is_absence(&error) {
            not_found(operation, path, &format!("there is no {noun}"))
        } else {
            failure(operation, path, error)
        }
    };
    let is_same = |left: &FileStatus, right: &FileStatus| {
        left.kind == FileKind::File && left.identity == right.identity
    };
    let named = files.status(path).map_err(failed)?;
    if named.kind != FileKind::File {
        return Err(corrupt(operation, path, "it is not a file"));
    }
    let file = files.open(path, OpenMode::Read).map_err(failed)?;
    let opened = file.status().map_err(failed)?;
    if !is_same(&opened, &named) {
        return Err(corrupt(
            operation,
            path,
            "it was replaced by something else",
        ));
    }
    Ok(FileObjectReader {
        file,
        path: path.to_path_buf(),
        byte_count: opened.byte_count,
    })
}

/// Reads all of these bytes from a place on.
fn read_exact_at(file: &dyn StoredFile, mut offset: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(offset, bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                offset = offset.saturating_add(count as u64);
                bytes = &mut bytes[count..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn not_found(operation: &str, path: &Path, fact: &str) -> RepositoryError {
    let message = format!("{operation}: {}: {fact}", path.display());
    RepositoryError::new(ErrorKind::NotFound, message)
}
