//! Taking away what crashed writers left.

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use reinstate_core::RepositoryError;

use crate::directory::entries;
use crate::failure::{corrupt, failure};
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
    let temporary = layout.temporary();
    let Some(entries) = entries(&temporary)? else {
        return Err(corrupt("sweep", &temporary, "the directory is missing"));
    };
    // Nothing is removed from a directory in which something else is, too.
    for entry in &entries {
        if parse_digits(&entry.name).is_none() || !entry.file_type.is_file() {
            return Err(corrupt(
                "sweep",
                &entry.path,
                "this program writes no such file",
            ));
        }
    }
    let mut swept = Swept::default();
    for entry in entries {
        sweep_file(&entry.path, &mut swept)
            .map_err(|error| failure("sweep", &entry.path, error))?;
    }
    Ok(swept)
}

fn sweep_file(path: &Path, swept: &mut Swept) -> io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => file,
        // Its writer finished in the meantime.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            swept.kept_count += 1;
            return Ok(());
        }
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let metadata = file.metadata()?;
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    swept.file_count += 1;
    // A file with another name was published; its bytes stay.
    if metadata.nlink() == 1 {
        swept.byte_count += metadata.len();
    }
    Ok(())
}
