//! What is where in a repository's directory. `docs/format/repository.md` describes it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use reinstate_core::{ErrorKind, ObjectId, RepositoryError};
use reinstate_format::{FRAME_DIGEST_BYTES, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX};

use crate::file_system::FileSystem;

/// The longest record, in bytes: the longest frame.
pub const RECORD_BYTES_MAX: usize =
    FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX + FRAME_DIGEST_BYTES;

/// The longest header, in bytes. Longer than any version's, short enough to read unseen.
pub(crate) const HEADER_BYTES_MAX: usize = 4096;

/// The longest name of a kind of records, or of a lock, in bytes.
pub(crate) const WORD_BYTES_MAX: usize = 32;

/// The file that says which repository this is.
pub(crate) const HEADER: &str = "repository";
/// Sealed objects, in 256 directories by the first two digits of their names.
pub(crate) const OBJECTS: &str = "objects";
/// Records, in one directory a kind.
pub(crate) const RECORDS: &str = "records";
/// Files that are being written.
pub(crate) const TEMPORARY: &str = "temporary";
/// Files that are locked by whoever must be alone.
pub(crate) const LOCKS: &str = "locks";

/// The directories right below a repository's own.
pub(crate) const DIRECTORIES: [&str; 4] = [OBJECTS, RECORDS, TEMPORARY, LOCKS];

/// Where everything is, and what it is reached through.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    files: Arc<dyn FileSystem>,
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(files: Arc<dyn FileSystem>, root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { files, root }
    }

    pub(crate) fn files(&self) -> &Arc<dyn FileSystem> {
        &self.files
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn header(&self) -> PathBuf {
        self.root.join(HEADER)
    }

    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join(OBJECTS)
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.root.join(RECORDS)
    }

    pub(crate) fn temporary(&self) -> PathBuf {
        self.root.join(TEMPORARY)
    }

    /// The 256 directories that hold objects.
    pub(crate) fn shards(&self) -> impl Iterator<Item = PathBuf> {
        let objects = self.objects();
        (0..=u8::MAX).map(move |shard| objects.join(format!("{shard:02x}")))
    }

    pub(crate) fn object(&self, object: ObjectId) -> PathBuf {
        let name = object.to_string();
        self.objects().join(&name[..2]).join(name)
    }

    /// The directory of a kind of records.
    pub(crate) fn kind(&self, kind: &str) -> Result<PathBuf, RepositoryError> {
        Ok(self.records().join(word("kind of records", kind)?))
    }

    pub(crate) fn lock(&self, name: &str) -> Result<PathBuf, RepositoryError> {
        Ok(self.root.join(LOCKS).join(word("name of a lock", name)?))
    }
}

/// A short name as it may stand in a path.
fn word<'a>(noun: &str, word: &'a str) -> Result<&'a str, RepositoryError> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if (1..=WORD_BYTES_MAX).contains(&word.len()) && word.bytes().all(is_plain) {
        return Ok(word);
    }
    let message = format!(
        "{word:?} is no {noun}: expected 1 to {WORD_BYTES_MAX} of the letters a to z, digits and \
         hyphens"
    );
    Err(RepositoryError::new(ErrorKind::Usage, message))
}

/// The 32 digits of an object's, a record's or a temporary file's name.
pub(crate) fn digits(name: [u8; 16]) -> String {
    ObjectId::from_bytes(name).to_string()
}

/// A name read back from its 32 digits.
pub(crate) fn parse_digits(text: &str) -> Option<[u8; 16]> {
    let name: ObjectId = text.parse().ok()?;
    Some(*name.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::LocalFileSystem;

    fn layout(root: &str) -> Layout {
        Layout::new(Arc::new(LocalFileSystem), root)
    }

    #[test]
    fn a_word_that_leads_elsewhere_is_refused() {
        let layout = layout("/r");
        for bad in ["", ".", "..", "a/b", "A", "a\0", "a b", &"a".repeat(33)] {
            let error = layout.kind(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{bad:?}");
            assert!(layout.lock(bad).is_err(), "{bad:?}");
        }
        let path = layout.kind("snapshot").unwrap();
        assert_eq!(path, Path::new("/r/records/snapshot"));
    }

    #[test]
    fn the_page_on_the_layout_names_what_is_there() {
        let page = include_str!("../../../docs/format/repository.md");
        let layout = layout("");
        let object = ObjectId::from_bytes([0xab; 16]);
        let paths = [
            layout.header(),
            layout.object(object),
            layout.kind("snapshot").unwrap().join("<32 digits>"),
            layout.temporary().join("<32 digits>"),
            layout.lock("capture").unwrap(),
        ];
        let shown = |path: PathBuf| {
            let path = path.to_string_lossy().into_owned();
            let path = path.replace(&object.to_string(), "<32 digits>");
            path.replace("snapshot", "<kind>")
                .replace("capture", "<name>")
        };
        let expected: Vec<String> = paths.into_iter().map(shown).collect();
        let found: Vec<String> = page
            .lines()
            .filter_map(|line| line.strip_prefix("| `"))
            .filter_map(|line| Some(line.split_once('`')?.0.to_owned()))
            .collect();
        assert_eq!(found, expected);
        for limit in [RECORD_BYTES_MAX, HEADER_BYTES_MAX, WORD_BYTES_MAX] {
            assert!(page.contains(&format!(" {limit} bytes")), "{limit}");
        }
    }
}
