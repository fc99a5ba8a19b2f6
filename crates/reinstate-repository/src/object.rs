//! Objects: written once, read in parts.

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use reinstate_core::{ErrorKind, ObjectId, ObjectReader, ObjectWriter, RepositoryError};

use crate::directory::is_absence;
use crate::draft::Draft;
use crate::failure::{corrupt, failure};
use crate::layout::Layout;

/// An object of a repository that is being written. Dropping it leaves nothing.
#[derive(Debug)]
pub struct LocalObjectWriter<'a> {
    layout: &'a Layout,
    draft: Draft,
}

impl<'a> LocalObjectWriter<'a> {
    pub(crate) fn create(layout: &'a Layout) -> Result<Self, RepositoryError> {
        let temporary = layout.temporary();
        let draft = Draft::create(|digits| temporary.join(digits))
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
    file: File,
    path: PathBuf,
    byte_count: u64,
}

impl FileObjectReader {
    /// Opens an object of a repository. What is not a plain file was not put there by us.
    pub(crate) fn open_object(path: &Path, object: ObjectId) -> Result<Self, RepositoryError> {
        open_plain(
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
        let file = File::open(path).map_err(failed)?;
        let byte_count = file.metadata().map_err(failed)?.len();
        Ok(Self {
            file,
            path: path.to_path_buf(),
            byte_count,
        })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl ObjectReader for FileObjectReader {
    fn byte_count(&self) -> u64 {
        self.byte_count
    }

    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), RepositoryError> {
        self.file.read_exact_at(bytes, offset).map_err(|error| {
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
    let is_same = |left: &Metadata, right: &Metadata| {
        left.is_file() && (left.dev(), left.ino()) == (right.dev(), right.ino())
    };
    let named = fs::symlink_metadata(path).map_err(failed)?;
    if !named.is_file() {
        return Err(corrupt(operation, path, "it is not a file"));
    }
    let file = File::open(path).map_err(failed)?;
    let opened = file.metadata().map_err(failed)?;
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
        byte_count: opened.len(),
    })
}

fn not_found(operation: &str, path: &Path, fact: &str) -> RepositoryError {
    let message = format!("{operation}: {}: {fact}", path.display());
    RepositoryError::new(ErrorKind::NotFound, message)
}
