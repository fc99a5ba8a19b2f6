//! One file of the user's own, written as durably as an object: a plan.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use reinstate_core::{ErrorKind, ObjectId, ObjectReader, ObjectWriter, RepositoryError};

use crate::FileObjectReader;
use crate::directory::parent;
use crate::draft::Draft;
use crate::failure::failure;
use crate::file_system::FileSystem;
use crate::local::LocalFileSystem;

/// Starts a file that is not there yet. It appears, whole and on the disk, when it is sealed.
///
/// Until then its bytes lie beside it in a hidden file whose name ends in `.partial`, which goes
/// when the writer is dropped and stays behind after a crash.
///
/// # Errors
/// `Usage` if there is something of that name; `Full` or `Refused` as the file system has it.
pub fn create_file(path: &Path) -> Result<FileObjectWriter, RepositoryError> {
    let files: Arc<dyn FileSystem> = Arc::new(LocalFileSystem);
    create_file_on(&files, path)
}

pub(crate) fn create_file_on(
    files: &Arc<dyn FileSystem>,
    path: &Path,
) -> Result<FileObjectWriter, RepositoryError> {
    let Some(file_name) = path.file_name() else {
        let message = format!("create {}: it names no file", path.display());
        return Err(RepositoryError::new(ErrorKind::Usage, message));
    };
    match files.status(path) {
        Ok(_) => return Err(taken(path)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failure("create", path, error)),
    }
    let draft = Draft::create(files, |digits| {
        let mut name = std::ffi::OsString::from(".");
        name.push(file_name);
        name.push(format!(".{digits}.partial"));
        parent(path).join(name)
    })
    .map_err(|error| failure("create", path, error))?;
    Ok(FileObjectWriter {
        draft,
        path: path.to_path_buf(),
    })
}

/// Opens a file that [`create_file`] made; a symbolic link is followed.
///
/// # Errors
/// `NotFound` if there is none; `Usage` if it is not a file.
pub fn open_file(path: &Path) -> Result<Arc<dyn ObjectReader>, RepositoryError> {
    Ok(Arc::new(FileObjectReader::open_file(path)?))
}

/// A file of the user's own that is being written. Dropping it leaves nothing.
#[derive(Debug)]
pub struct FileObjectWriter {
    draft: Draft,
    path: PathBuf,
}

impl FileObjectWriter {
    /// Where the file will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl ObjectWriter for FileObjectWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.draft
            .write(bytes)
            .map_err(|error| failure("write", &self.path, error))
    }

    /// The id that is returned is a random one of which no repository knows: the file's name is
    /// its path.
    fn seal(self: Box<Self>) -> Result<ObjectId, RepositoryError> {
        let object = ObjectId::from_bytes(self.draft.name());
        let path = self.path;
        self.draft.publish(&path).map_err(|error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                taken(&path)
            } else {
                failure("write", &path, error)
            }
        })?;
        Ok(object)
    }
}

fn taken(path: &Path) -> RepositoryError {
    let message = format!(
        "create {}: there is something of that name, and it is not overwritten; choose another \
         name or remove it",
        path.display()
    );
    RepositoryError::new(ErrorKind::Usage, message)
}
