//! One transaction under way: its messages, in their order, until it ends.
//!
//! They wait in memory while they are few, and in an unnamed file otherwise. Each has the number of the
//! (sub)transaction that wrote it, by which what was rolled back is taken back from the end: numbers go
//! up, and whatever was written since a savepoint has that savepoint's number or a greater one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use reinstate_core::{ErrorKind, StoreError};

/// How many bytes of one transaction wait in memory.
pub(super) const MEMORY_BYTES_MAX: usize = 256 * 1024;
/// The number of the transaction and the length before a message, and the length behind it.
const HEADER_BYTES: usize = 8;
const TRAILER_BYTES: usize = 4;

/// Messages of a transaction, or rows that wait likewise.
#[derive(Debug)]
pub(super) struct Underway {
    /// What they are, for whoever reads an error.
    what: &'static str,
    /// The last ones, behind those in the file.
    tail: Vec<u8>,
    file: Option<File>,
    file_bytes: u64,
    /// Whether somebody's message was in it, which is not kept.
    pub has_message: bool,
    /// A follower's own messages that say which relations it took in, apart from the others: they stay
    /// whatever is taken back.
    pub taken_in: Vec<Vec<u8>>,
}

impl Default for Underway {
    fn default() -> Self {
        Self::of("a transaction that is under way")
    }
}

impl Underway {
    /// Nothing yet of what errors call so.
    pub(super) const fn of(what: &'static str) -> Self {
        Self {
            what,
            tail: Vec::new(),
            file: None,
            file_bytes: 0,
            has_message: false,
            taken_in: Vec::new(),
        }
    }

    /// Whether nothing of it is left.
    pub(super) const fn is_empty(&self) -> bool {
        self.tail.is_empty() && self.file_bytes == 0
    }

    /// Whether all of it is in memory.
    pub(super) const fn is_in_memory(&self) -> bool {
        self.file_bytes == 0
    }

    /// Bytes of it in memory.
    pub(super) const fn memory_bytes(&self) -> usize {
        self.tail.len()
    }

    /// Puts a message behind the others, given in two parts.
    pub(super) fn push(&mut self, transaction: u32, kind: u8, rest: &[u8]) {
        let length = u32::try_from(1 + rest.len()).expect("BUG: longer than the server's messages");
        self.tail.extend_from_slice(&transaction.to_le_bytes());
        self.tail.extend_from_slice(&length.to_le_bytes());
        self.tail.push(kind);
        self.tail.extend_from_slice(rest);
        self.tail.extend_from_slice(&length.to_le_bytes());
    }

    /// Moves what is in memory to the file.
    ///
    /// # Errors
    /// `Full` if there is no room.
    pub(super) fn spill(&mut self, directory: &Path) -> Result<(), StoreError> {
        let written = self.write_tail(directory);
        written.map_err(|error| failed(self.what, Some(directory), error))
    }

    fn write_tail(&mut self, directory: &Path) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(directory)?),
        };
        file.seek(SeekFrom::Start(self.file_bytes))?;
        file.write_all(&self.tail)?;
        self.file_bytes += self.tail.len() as u64;
        self.tail.clear();
        self.tail.shrink_to(MEMORY_BYTES_MAX);
        Ok(())
    }

    /// Takes back what this (sub)transaction and those that began after it wrote.
    ///
    /// # Errors
    /// `Other` if the file cannot be read.
    pub(super) fn take_back(&mut self, since: u32) -> Result<(), StoreError> {
        loop {
            while let Some(start) = last_start(&self.tail) {
                let (number, _) = self.tail[start..]
                    .split_first_chunk()
                    .expect("BUG: a header");
                if !is_since(u32::from_le_bytes(*number), since) {
                    return Ok(());
                }
                self.tail.truncate(start);
            }
            if self.file_bytes == 0 {
                return Ok(());
            }
            let brought = self.bring_back();
            brought.map_err(|error| failed(self.what, None, error))?;
        }
    }

    /// Brings the last messages of the file back into memory, which is empty.
    fn bring_back(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(cut_short());
        };
        let mut read_last = |bytes: u64| -> io::Result<Vec<u8>> {
            let start = self.file_bytes.checked_sub(bytes).ok_or_else(cut_short)?;
            let mut read = vec![0; usize::try_from(bytes).map_err(|_| cut_short())?];
            file.seek(SeekFrom::Start(start))?;
            file.read_exact(&mut read)?;
            Ok(read)
        };
        let trailer = read_last(TRAILER_BYTES as u64)?;
        let length = u32::from_le_bytes(*trailer.first_chunk().ok_or_else(cut_short)?);
        let last = u64::from(length) + (HEADER_BYTES + TRAILER_BYTES) as u64;
        let wanted = (MEMORY_BYTES_MAX as u64).min(self.file_bytes).max(last);
        let mut read = read_last(wanted)?;
        let mut start = read.len();
        while let Some(before) = last_start(&read[..start]) {
            start = before;
        }
        read.drain(..start);
        self.file_bytes -= read.len() as u64;
        file.set_len(self.file_bytes)?;
        self.tail = read;
        Ok(())
    }

    /// The messages, from the first on.
    ///
    /// # Errors
    /// `Other` if the file cannot be read.
    pub(super) fn messages(&self) -> Result<Messages<'_>, StoreError> {
        let mut spilled: Box<dyn BufRead + '_> = Box::new(io::empty());
        if let Some(mut file) = self.file.as_ref() {
            let sought = file.seek(SeekFrom::Start(0));
            sought.map_err(|error| failed(self.what, None, error))?;
            let part = file.take(self.file_bytes);
            spilled = Box::new(BufReader::with_capacity(MEMORY_BYTES_MAX, part));
        }
        Ok(Messages {
            what: self.what,
            rest: Box::new(spilled.chain(self.tail.as_slice())),
            message: Vec::new(),
        })
    }
}

/// Messages that are read back.
pub(super) struct Messages<'u> {
    what: &'static str,
    rest: Box<dyn BufRead + 'u>,
    message: Vec<u8>,
}

impl Messages<'_> {
    /// The next one; none behind the last.
    ///
    /// # Errors
    /// `Other` if it cannot be read.
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, StoreError> {
        let read = self.read();
        let read = read.map_err(|error| failed(self.what, None, error))?;
        Ok(read.then_some(self.message.as_slice()))
    }

    fn read(&mut self) -> io::Result<bool> {
        if self.rest.fill_buf()?.is_empty() {
            return Ok(false);
        }
        let mut header = [0; HEADER_BYTES];
        self.rest.read_exact(&mut header)?;
        let [_, _, _, _, length @ ..] = header;
        let bytes = u64::from(u32::from_le_bytes(length));
        self.message.clear();
        let read = self
            .rest
            .by_ref()
            .take(bytes)
            .read_to_end(&mut self.message)?;
        let mut trailer = [0; TRAILER_BYTES];
        self.rest.read_exact(&mut trailer)?;
        if read as u64 != bytes || trailer != length {
            return Err(cut_short());
        }
        Ok(true)
    }
}

/// Where the last message of these bytes starts; none if it is not whole here.
fn last_start(bytes: &[u8]) -> Option<usize> {
    let (_, length) = bytes.split_last_chunk::<TRAILER_BYTES>()?;
    let length = u32::from_le_bytes(*length) as usize;
    bytes
        .len()
        .checked_sub(length + HEADER_BYTES + TRAILER_BYTES)
}

/// Whether a transaction got its number at this one or after it. Numbers start anew at the end.
const fn is_since(number: u32, since: u32) -> bool {
    number.wrapping_sub(since) < 1 << 31
}

fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is not what was written")
}

fn failed(what: &str, written_to: Option<&Path>, error: io::Error) -> StoreError {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            ErrorKind::Full
        }
        _ => ErrorKind::Other,
    };
    let message = match (kind, written_to) {
        (_, None) => format!("read back {what}: {error}"),
        (ErrorKind::Full, Some(directory)) => format!(
            "keep {what} in the spill directory {}: there is no room \
             ({error}). Nothing is lost: the server sends it again. Make room there, or name another \
             directory",
            directory.display()
        ),
        (_, Some(directory)) => format!(
            "keep {what} in the spill directory {}: {error}",
            directory.display()
        ),
    };
    StoreError::new(kind, message).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(underway: &Underway) -> Vec<Vec<u8>> {
        let mut messages = underway.messages().unwrap();
        let mut read = Vec::new();
        while let Some(message) = messages.next().unwrap() {
            read.push(message.to_vec());
        }
        read
    }

    /// Every third message is longer than what is read back at once.
    fn body(number: u32) -> Vec<u8> {
        let length = [3, 700, MEMORY_BYTES_MAX + 5][number as usize % 3];
        vec![u8::try_from(number).unwrap(); length]
    }

    #[test]
    fn what_was_written_since_a_savepoint_is_taken_back_wherever_it_is() {
        let directory = tempfile::tempdir().unwrap();
        for base in [100, u32::MAX - 6] {
            for spilled in 0..=12 {
                for since in 0..=13 {
                    let mut underway = Underway::default();
                    for number in 0..12 {
                        if number == spilled {
                            underway.spill(directory.path()).unwrap();
                        }
                        underway.push(base.wrapping_add(number), b'I', &body(number));
                    }
                    underway.take_back(base.wrapping_add(since)).unwrap();
                    let kept = |number| [b"I".as_slice(), &body(number)].concat();
                    let mut expected: Vec<_> = (0..12.min(since)).map(kept).collect();
                    assert_eq!(read(&underway).len(), expected.len(), "{spilled} {since}");
                    assert!(read(&underway) == expected, "{spilled} {since}");
                    assert_eq!(underway.is_empty(), since == 0);
                    // It goes on behind what is left.
                    underway.push(base.wrapping_add(20), b'U', b"more");
                    underway.spill(directory.path()).unwrap();
                    expected.push(b"Umore".to_vec());
                    assert!(read(&underway) == expected, "{spilled} {since}");
                }
            }
        }
    }

    #[test]
    fn what_is_not_what_was_written_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let mut underway = Underway::default();
        underway.push(1, b'I', b"abc");
        underway.push(1, b'I', b"def");
        underway.spill(directory.path()).unwrap();
        underway.file.as_ref().unwrap().set_len(20).unwrap();
        let mut messages = underway.messages().unwrap();
        assert_eq!(messages.next().unwrap(), Some(b"Iabc".as_slice()));
        assert_eq!(messages.next().unwrap_err().kind(), ErrorKind::Other);
        drop(messages);
        assert_eq!(underway.take_back(1).unwrap_err().kind(), ErrorKind::Other);
        let nowhere = directory.path().join("nowhere");
        let mut underway = Underway::default();
        underway.push(1, b'I', b"abc");
        let error = underway.spill(&nowhere).unwrap_err();
        assert!(error.to_string().contains("nowhere"), "{error}");
    }
}
