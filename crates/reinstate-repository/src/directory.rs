//! Directories: made private, brought to the disk, listed without guessing.

use std::io;
use std::path::{Path, PathBuf};

use reinstate_core::RepositoryError;

use crate::failure::{corrupt, failure};
use crate::file_system::{FileKind, FileSystem};
use crate::layout::parse_digits;

/// Makes a directory unless it is there.
pub(crate) fn ensure_directory(files: &dyn FileSystem, path: &Path) -> Result<(), RepositoryError> {
    match files.create_directory(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failure("make directory", path, error)),
    }
}

/// The directory that a file is in.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether a path leads nowhere, as opposed to something that cannot be looked at.
pub(crate) fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// One name in a directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    pub(crate) kind: FileKind,
}

/// Every name in a directory, in any order; `None` if there is no such directory.
///
/// # Errors
/// `Corrupt` if a name is not text.
pub(crate) fn entries(
    files: &dyn FileSystem,
    path: &Path,
) -> Result<Option<Vec<Entry>>, RepositoryError> {
    let listing = match files.list(path) {
        Ok(listing) => listing,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(failure("list", path, error)),
    };
    let mut entries = Vec::with_capacity(listing.len());
    for entry in listing {
        let path = path.join(&entry.name);
        let Ok(name) = entry.name.into_string() else {
            return Err(corrupt("list", &path, "this program writes no such name"));
        };
        entries.push(Entry {
            path,
            name,
            kind: entry.kind,
        });
    }
    Ok(Some(entries))
}

/// The names in a directory that holds nothing but files with names of 32 digits, sorted; `None`
/// if there is no such directory.
///
/// # Errors
/// `Corrupt` if anything else is in it.
pub(crate) fn named_files(
    files: &dyn FileSystem,
    path: &Path,
) -> Result<Option<Vec<[u8; 16]>>, RepositoryError> {
    let Some(entries) = entries(files, path)? else {
        return Ok(None);
    };
    let mut names = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(name) = parse_digits(&entry.name) else {
            return Err(corrupt(
                "list",
                &entry.path,
                "this program writes no such name",
            ));
        };
        if entry.kind != FileKind::File {
            return Err(corrupt("list", &entry.path, "it is not a file"));
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(Some(names))
}
