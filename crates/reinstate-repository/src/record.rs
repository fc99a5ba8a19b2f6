//! Records: small, put if absent, read whole.

use std::io::{self, Read};
use std::path::Path;

use reinstate_core::{ErrorKind, ObjectReader, RepositoryError};

use crate::directory::{ensure_directory, named_files, parent, sync_directory};
use crate::draft::Draft;
use crate::failure::{corrupt, failure};
use crate::layout::{Layout, RECORD_BYTES_MAX, digits};
use crate::object::open_plain;

/// Publishes a record of a kind; see `Repository::publish`.
pub(crate) fn publish(
    layout: &Layout,
    kind: &str,
    name: [u8; 16],
    bytes: &[u8],
) -> Result<(), RepositoryError> {
    let directory = layout.kind(kind)?;
    check_length(kind, bytes.len() as u64).map_err(|fact| {
        RepositoryError::new(ErrorKind::Usage, format!("publish {kind}: {fact}"))
    })?;
    ensure_directory(&directory)?;
    // Whoever made the directory, its name is on the disk before anything in it is promised.
    sync_directory(parent(&directory))
        .map_err(|error| failure("publish", parent(&directory), error))?;
    publish_at(layout, &directory.join(digits(name)), bytes)
}

/// Publishes bytes at a path, unless other bytes are there.
///
/// After an error the record may be there or not; doing it again tells.
pub(crate) fn publish_at(
    layout: &Layout,
    path: &Path,
    bytes: &[u8],
) -> Result<(), RepositoryError> {
    let failed = |error| failure("publish", path, error);
    let temporary = layout.temporary();
    let mut draft = Draft::create(|digits| temporary.join(digits)).map_err(failed)?;
    draft.write(bytes).map_err(failed)?;
    draft.sync().map_err(failed)?;
    match draft.link(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if read_at(path, bytes.len())? != bytes {
                let message = format!(
                    "publish {}: something else has been published there",
                    path.display()
                );
                return Err(RepositoryError::new(ErrorKind::Conflict, message));
            }
        }
        Err(error) => return Err(failed(error)),
    }
    // Also when somebody else published the same: their sync may be yet to come.
    sync_directory(parent(path)).map_err(failed)
}

/// Reads a record of a kind; see `Repository::read`.
pub(crate) fn read(
    layout: &Layout,
    kind: &str,
    name: [u8; 16],
) -> Result<Vec<u8>, RepositoryError> {
    let path = layout.kind(kind)?.join(digits(name));
    let operation = format!("read {kind} {}", digits(name));
    let reader = open_plain(&path, &operation, kind)?;
    check_length(kind, reader.byte_count()).map_err(|fact| corrupt(&operation, &path, &fact))?;
    read_all(&reader, RECORD_BYTES_MAX).map_err(|error| failure(&operation, &path, error))
}

/// The names of all records of a kind; see `Repository::list`.
pub(crate) fn list(layout: &Layout, kind: &str) -> Result<Vec<[u8; 16]>, RepositoryError> {
    if let Some(names) = named_files(&layout.kind(kind)?)? {
        return Ok(names);
    }
    // A kind of which nothing was ever published has no directory; all kinds together have one.
    let records = layout.records();
    if records.is_dir() {
        return Ok(Vec::new());
    }
    Err(corrupt(
        format!("list {kind}"),
        &records,
        "the directory is missing",
    ))
}

/// Up to `limit` bytes of a file and one more, so that a longer file is not taken for it.
pub(crate) fn read_at(path: &Path, limit: usize) -> Result<Vec<u8>, RepositoryError> {
    let reader = open_plain(path, "read", "such file")?;
    read_all(&reader, limit.saturating_add(1)).map_err(|error| failure("read", path, error))
}

fn read_all(reader: &crate::FileObjectReader, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.file().take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_length(kind: &str, length: u64) -> Result<(), String> {
    if length <= RECORD_BYTES_MAX as u64 {
        return Ok(());
    }
    Err(format!(
        "a {kind} of {length} bytes, where {RECORD_BYTES_MAX} are the most"
    ))
}
