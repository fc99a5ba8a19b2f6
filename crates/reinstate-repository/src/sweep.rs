//! Taking away what crashed writers left.

use std::io;
use std::path::Path;

use reinstate_core::RepositoryError;

use crate::directory::entries;
use crate::failure::{corrupt, failure};
use crate::file_system::{FileKind, FileSystem, OpenMode};
use crate::layout::{Layout, parse_digits};

/// What a sweep took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Swept {
    /// Files.
    pub file_count: u64,
    /// The bytes that became free.
    pub byte_count: u64,
    /// Files that are still being written, and were left.
    pub kept_count: u64,
}

/// Removes the temporary files whose writers are gone: those that nobody holds locked.
pub(crate) fn sweep(layout: &Layout) -> Result<Swept, RepositoryError> {
    let (files, temporary) = (layout.files().as_ref(), layout.temporary());
    let Some(entries) = entries(files, &temporary)? else {
        return Err(corrupt("sweep", &temporary, "the directory is missing"));
    };
    // Nothing is removed from a directory in which something else is, too.
    for entry in &entries {
        if parse_digits(&entry.name).is_none() || entry.kind != FileKind::File {
            return Err(corrupt(
                "sweep",
                &entry.path,
                "this program writes no such file",
            ));
        }
    }
    let mut swept = Swept::default();
    for entry in entries {
        sweep_file(files, &entry.path, &mut swept)
            .map_err(|error| failure("sweep", &entry.path, error))?;
    }
    Ok(swept)
}

fn sweep_file(files: &dyn FileSystem, path: &Path, swept: &mut Swept) -> io::Result<()> {
    let file = match files.open(path, OpenMode::Change) {
        Ok(file) => file,
        // Its writer finished in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(true) => {}
        Ok(false) => {
            swept.kept_count += 1;
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let status = file.status()?;
    match files.remove(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    swept.file_count += 1;
    // A file with another name was published; its bytes stay.
    if status.link_count == 1 {
        swept.byte_count += status.byte_count;
    }
    Ok(())
}
