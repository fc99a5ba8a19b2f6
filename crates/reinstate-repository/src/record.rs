//! Records: small, put if absent, read whole.

use std::io;
use std::path::Path;

use reinstate_core::{ErrorKind, ObjectReader, RepositoryError};

use crate::directory::{ensure_directory, is_absence, named_files, parent};
use crate::draft::Draft;
use crate::failure::{corrupt, failure};
use crate::file_system::{FileKind, FileSystem};
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
    let files = layout.files().as_ref();
    ensure_directory(files, &directory)?;
    // Whoever made the directory, its name is on the disk before anything in it is promised.
    files
        .sync_directory(parent(&directory))
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
    let (files, temporary) = (layout.files(), layout.temporary());
    let mut draft = Draft::create(files, |digits| temporary.join(digits)).map_err(failed)?;
    draft.write(bytes).map_err(failed)?;
    draft.sync().map_err(failed)?;
    match draft.link(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if read_at(files.as_ref(), path, bytes.len())? != bytes {
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
    files.sync_directory(parent(path)).map_err(failed)
}

/// Reads a record of a kind; see `Repository::read`.
pub(crate) fn read(
    layout: &Layout,
    kind: &str,
    name: [u8; 16],
) -> Result<Vec<u8>, RepositoryError> {
    let path = layout.kind(kind)?.join(digits(name));
    let operation = format!("read {kind} {}", digits(name));
    let reader = open_plain(layout.files().as_ref(), &path, &operation, kind)?;
    check_length(kind, reader.byte_count()).map_err(|fact| corrupt(&operation, &path, &fact))?;
    read_all(&reader, RECORD_BYTES_MAX).map_err(|error| failure(&operation, &path, error))
}

/// The names of all records of a kind; see `Repository::list`.
pub(crate) fn list(layout: &Layout, kind: &str) -> Result<Vec<[u8; 16]>, RepositoryError> {
    if let Some(names) = named_files(layout.files().as_ref(), &layout.kind(kind)?)? {
        return Ok(names);
    }
    // A kind of which nothing was ever published has no directory; all kinds together have one.
    let records = layout.records();
    match layout.files().status(&records) {
        Ok(status) if status.kind != FileKind::File => return Ok(Vec::new()),
        Err(error) if !is_absence(&error) => return Err(failure("look for", &records, error)),
        _ => {}
    }
    Err(corrupt(
        format!("list {kind}"),
        &records,
        "the directory is missing",
    ))
}

/// Up to `limit` bytes of a file and one more, so that a longer file is not taken for it.
pub(crate) fn read_at(
    files: &dyn FileSystem,
    path: &Path,
    limit: usize,
) -> Result<Vec<u8>, RepositoryError> {
    let reader = open_plain(files, path, "read", "such file")?;
    read_all(&reader, limit.saturating_add(1)).map_err(|error| failure("read", path, error))
}

fn read_all(reader: &crate::FileObjectReader, limit: usize) -> io::Result<Vec<u8>> {
    // One more than there should be, so that the end is seen; it may have grown.
    let expected = usize::try_from(reader.byte_count()).unwrap_or(limit);
    let mut bytes = vec![0; expected.saturating_add(1).min(limit)];
    let mut length = 0;
    loop {
        let count = reader.file().read_at(length as u64, &mut bytes[length..])?;
        length += count;
        if count == 0 || length == limit {
            bytes.truncate(length);
            return Ok(bytes);
        }
        if length == bytes.len() {
            bytes.resize(bytes.len().saturating_mul(2).min(limit), 0);
        }
    }
}

fn check_length(kind: &str, length: u64) -> Result<(), String> {
    if length <= RECORD_BYTES_MAX as u64 {
        return Ok(());
    }
    Err(format!(
        "a {kind} of {length} bytes, where {RECORD_BYTES_MAX} are the most"
    ))
}
