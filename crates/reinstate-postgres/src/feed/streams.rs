//! Transactions that the server sends before they are committed.
//!
//! A transaction that is more than the server keeps in its memory comes in pieces, between those that were
//! committed meanwhile. Nobody looks at it before its commit: it is kept, what is rolled back of it is
//! taken back, and at its commit it is handed on as if it had come whole, then. One that is rolled back
//! is forgotten.
//!
//! *Crash consistency*: what is kept here is of no use to anybody else. The server sends all of it again to
//! whoever comes next, since its commit was not acknowledged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;

use bytes::BytesMut;
use reinstate_core::{ErrorKind, StoreError};

use super::message::{Message, Tuples, parse};
use super::underway::{MEMORY_BYTES_MAX, Messages, Underway};

/// How many bytes of all transactions under way wait in memory.
const ALL_MEMORY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The transactions under way.
#[derive(Debug)]
pub(super) struct Streams {
    directory: PathBuf,
    open: BTreeMap<u32, Underway>,
    /// The one whose messages come now.
    current: Option<u32>,
    /// Bytes of all in memory.
    memory_bytes: usize,
}

/// What became of a message.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is kept, or said what becomes of others.
    Kept,
    /// It belongs to none of these transactions.
    Not(BytesMut),
    /// It was the commit of one.
    Whole(Whole),
}

/// A transaction that was committed, as if it came whole.
#[derive(Debug)]
pub(super) struct Whole {
    pub transaction: u32,
    begin: Vec<u8>,
    end: Vec<u8>,
    underway: Underway,
}

impl Streams {
    /// None yet. Files are made in this directory.
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            open: BTreeMap::new(),
            current: None,
            memory_bytes: 0,
        }
    }

    /// Whether the next message belongs to one of them.
    pub(super) const fn is_within(&self) -> bool {
        self.current.is_some()
    }

    /// Takes a message, if it is about one of them.
    ///
    /// # Errors
    /// `Full` if there is no room for it; `Other` if it makes no sense.
    pub(super) fn take(&mut self, message: BytesMut) -> Result<Taken, StoreError> {
        let Some(&kind) = message.first() else {
            return Err(senseless(b'?'));
        };
        let mut fields = Fields(&message[1..]);
        match (kind, self.current) {
            (b'S', None) => {
                let started = fields
                    .number()
                    .zip(fields.byte())
                    .filter(|_| fields.is_over());
                let (transaction, is_first) = started.ok_or_else(|| senseless(kind))?;
                self.start(transaction, is_first == 1)?;
            }
            (b'E', Some(_)) if fields.is_over() => self.current = None,
            (b'A', None) => {
                let (transaction, part) = fields.pair().ok_or_else(|| senseless(kind))?;
                self.roll_back(transaction, part)?;
            }
            (b'c', None) => {
                let committed = self.commit(&message[1..]).ok_or_else(|| senseless(kind))?;
                // What wrote nothing, or took all of it back, would not have come.
                if committed.underway.has_message || !committed.underway.is_empty() {
                    return Ok(Taken::Whole(committed));
                }
            }
            (b'I' | b'U' | b'D' | b'T' | b'R', Some(transaction)) => {
                let part = fields.number().ok_or_else(|| senseless(kind))?;
                self.keep(transaction, part, kind, fields.0)?;
            }
            // A message of somebody. It has the number of the whole transaction, wherever in it it was.
            (b'M', Some(transaction)) => {
                let underway = self.open.get_mut(&transaction);
                let underway = underway.ok_or_else(|| senseless(kind))?;
                underway.has_message = true;
                fields.number().ok_or_else(|| senseless(kind))?;
                let whole = [&[kind], fields.0].concat();
                if let Message::TakenIn { .. } = parse(&whole, &mut Tuples::default())? {
                    underway.taken_in.push(whole);
                }
            }
            // A type, and the origin, which has no number.
            (b'Y' | b'O', Some(_)) => {}
            (b'S' | b'E' | b'A' | b'c', _) | (_, Some(_)) => return Err(senseless(kind)),
            (_, None) => return Ok(Taken::Not(message)),
        }
        Ok(Taken::Kept)
    }

    fn start(&mut self, transaction: u32, is_first: bool) -> Result<(), StoreError> {
        if is_first {
            // One of before with this number went without a word, when the server was killed.
            self.forget(transaction);
            self.open.insert(transaction, Underway::default());
        } else if !self.open.contains_key(&transaction) {
            return Err(senseless(b'S'));
        }
        self.current = Some(transaction);
        Ok(())
    }

    fn keep(
        &mut self,
        transaction: u32,
        part: u32,
        kind: u8,
        rest: &[u8],
    ) -> Result<(), StoreError> {
        self.change(transaction, |underway, directory, others_bytes| {
            underway.push(part, kind, rest);
            let own_bytes = underway.memory_bytes();
            if own_bytes > MEMORY_BYTES_MAX || others_bytes + own_bytes > ALL_MEMORY_BYTES_MAX {
                underway.spill(directory)?;
            }
            Ok(())
        })
    }

    fn roll_back(&mut self, transaction: u32, part: u32) -> Result<(), StoreError> {
        if part == transaction {
            self.forget(transaction);
            return Ok(());
        }
        self.change(transaction, |underway, _, _| underway.take_back(part))
    }

    /// Changes a transaction under way, with the bytes of all others in memory.
    fn change(
        &mut self,
        transaction: u32,
        change: impl FnOnce(&mut Underway, &Path, usize) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(underway) = self.open.get_mut(&transaction) else {
            return Ok(());
        };
        let others_bytes = self.memory_bytes - underway.memory_bytes();
        let changed = change(underway, &self.directory, others_bytes);
        self.memory_bytes = others_bytes + underway.memory_bytes();
        changed
    }

    fn forget(&mut self, transaction: u32) -> Option<Underway> {
        let underway = self.open.remove(&transaction)?;
        self.memory_bytes -= underway.memory_bytes();
        Some(underway)
    }

    /// The transaction of a commit: its number, flags, the place of its commit, its end and its time.
    fn commit(&mut self, message: &[u8]) -> Option<Whole> {
        let (number, rest) = message.split_first_chunk::<4>()?;
        let (_flags, places) = rest.split_first()?;
        if places.len() != 3 * 8 {
            return None;
        }
        let transaction = u32::from_be_bytes(*number);
        let underway = self.forget(transaction)?;
        let (commit, time) = (&places[..8], &places[16..]);
        Some(Whole {
            transaction,
            begin: [b"B", commit, time, number].concat(),
            end: [b"C", rest].concat(),
            underway,
        })
    }
}

impl Whole {
    /// Whether it is so short that all of it is in memory.
    pub(super) const fn is_in_memory(&self) -> bool {
        self.underway.is_in_memory()
    }

    /// The last of its messages: its commit.
    pub(super) fn end(&self) -> &[u8] {
        &self.end
    }

    /// Its messages, from its beginning to its commit.
    ///
    /// # Errors
    /// As [`Underway::messages`].
    pub(super) fn messages(&self) -> Result<WholeMessages<'_>, StoreError> {
        Ok(WholeMessages {
            begin: Some(&self.begin),
            taken_in: self.underway.taken_in.iter(),
            between: self.underway.messages()?,
            end: Some(&self.end),
        })
    }
}

/// The messages of a whole transaction.
pub(super) struct WholeMessages<'w> {
    begin: Option<&'w [u8]>,
    taken_in: slice::Iter<'w, Vec<u8>>,
    between: Messages<'w>,
    end: Option<&'w [u8]>,
}

impl WholeMessages<'_> {
    /// The next one; none behind its commit.
    ///
    /// # Errors
    /// As [`Messages::next`].
    pub(super) fn next(&mut self) -> Result<Option<&[u8]>, StoreError> {
        if let Some(begin) = self.begin.take() {
            return Ok(Some(begin));
        }
        if let Some(taken_in) = self.taken_in.next() {
            return Ok(Some(taken_in));
        }
        match self.between.next()? {
            Some(message) => Ok(Some(message)),
            None => Ok(self.end.take()),
        }
    }
}

/// What is left of a message.
struct Fields<'m>(&'m [u8]);

impl Fields<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    /// Two numbers and nothing else.
    fn pair(&mut self) -> Option<(u32, u32)> {
        let pair = self.number().zip(self.number())?;
        self.is_over().then_some(pair)
    }

    const fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

fn senseless(kind: u8) -> StoreError {
    let kind = kind.escape_ascii();
    let message = format!("follow the log: a message {kind} that makes no sense where it is");
    StoreError::new(ErrorKind::Other, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, fields: &[&[u8]]) -> BytesMut {
        let message = [&[kind], fields.concat().as_slice()].concat();
        BytesMut::from(message.as_slice())
    }

    fn number(number: u32) -> [u8; 4] {
        number.to_be_bytes()
    }

    fn start(transaction: u32, is_first: u8) -> BytesMut {
        message(b'S', &[&number(transaction), &[is_first]])
    }

    fn insert(part: u32, body: &[u8]) -> BytesMut {
        message(b'I', &[&number(part), body])
    }

    fn commit(transaction: u32) -> BytesMut {
        let places: Vec<u8> = (1..=24).collect();
        message(b'c', &[&number(transaction), &[0], &places])
    }

    fn read(whole: &Whole) -> Vec<Vec<u8>> {
        let mut messages = whole.messages().unwrap();
        let mut read = Vec::new();
        while let Some(message) = messages.next().unwrap() {
            read.push(message.to_vec());
        }
        read
    }

    fn take_all(streams: &mut Streams, messages: Vec<BytesMut>) -> Option<Whole> {
        let mut whole = None;
        for message in messages {
            match streams.take(message).unwrap() {
                Taken::Kept => {}
                Taken::Whole(found) => whole = Some(found),
                Taken::Not(message) => panic!("{message:?}"),
            }
        }
        whole
    }

    #[test]
    fn a_transaction_in_pieces_reads_as_one_that_came_whole() {
        let directory = tempfile::tempdir().unwrap();
        let mut streams = Streams::new(directory.path());
        let end = || message(b'E', &[]);
        let pieces = vec![
            start(7, 1),
            message(b'O', &[b"somewhere"]),
            message(b'Y', &[&number(7), b"type"]),
            insert(7, b"one"),
            end(),
            start(8, 1),
            insert(8, b"other"),
            end(),
            start(7, 0),
            insert(9, b"rolled back"),
            message(b'M', &[&number(7), b"somebody"]),
            insert(10, b"within it"),
            end(),
            message(b'A', &[&number(7), &number(10)]),
            message(b'A', &[&number(7), &number(9)]),
            message(b'A', &[&number(8), &number(8)]),
            start(7, 0),
            insert(11, b"two"),
            end(),
            commit(7),
        ];
        let whole = take_all(&mut streams, pieces).unwrap();
        let messages = read(&whole);
        assert_eq!(messages[0][..9], *b"B\x01\x02\x03\x04\x05\x06\x07\x08");
        assert_eq!(messages[0][9..17], (17..=24).collect::<Vec<u8>>());
        assert_eq!(messages[0][17..], number(7));
        assert_eq!(messages[1..3], [b"Ione".to_vec(), b"Itwo".to_vec()]);
        assert_eq!(messages[3][..3], [b'C', 0, 1]);
        assert_eq!(messages.len(), 4);
        assert!(streams.open.is_empty() && streams.memory_bytes == 0);
        // A follower's own message comes first, and without the number.
        let words = b"taken in 7 8";
        let own = [
            b"\0\0\0\0\0\0\0\0\0reinstate\0".as_slice(),
            &number(12),
            words,
        ]
        .concat();
        let pieces = vec![
            start(7, 1),
            insert(7, b"one"),
            message(b'M', &[&number(7), &own]),
            end(),
            commit(7),
        ];
        let messages = read(&take_all(&mut streams, pieces).unwrap());
        assert_eq!(
            messages[1..3],
            [[b"M", own.as_slice()].concat(), b"Ione".to_vec()]
        );
        // Nothing of it is left, as if nothing had been written; but for a message.
        for says in [false, true] {
            let mut nothing = vec![
                start(20, 1),
                insert(21, b"x"),
                end(),
                message(b'A', &[&number(20), &number(21)]),
                commit(20),
            ];
            if says {
                nothing.insert(1, message(b'M', &[&number(20), b"somebody"]));
            }
            let whole = take_all(&mut streams, nothing);
            assert_eq!(whole.map(|whole| read(&whole).len()), says.then_some(2));
        }
    }

    #[test]
    fn what_waits_in_memory_has_a_limit_however_many_are_under_way() {
        let directory = tempfile::tempdir().unwrap();
        let mut streams = Streams::new(directory.path());
        let body = vec![b'x'; MEMORY_BYTES_MAX / 2];
        let count = 100;
        for transaction in 0..count {
            for is_first in [1, 0, 0] {
                streams.take(start(transaction, is_first)).unwrap();
                streams.take(insert(transaction, &body)).unwrap();
                streams.take(message(b'E', &[])).unwrap();
                assert!(streams.memory_bytes <= ALL_MEMORY_BYTES_MAX);
            }
        }
        for transaction in 0..count {
            let whole = take_all(&mut streams, vec![commit(transaction)]).unwrap();
            assert_eq!(read(&whole).len(), 5);
        }
        assert_eq!(streams.memory_bytes, 0);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let end = || message(b'E', &[]);
        let within: Vec<BytesMut> = vec![
            start(7, 1),
            message(b'B', &[&[0; 20]]),
            commit(7),
            message(b'I', &[b"\0\0"]),
            message(b'A', &[&number(7), &number(7)]),
            message(b'E', &[b"x"]),
            BytesMut::new(),
        ];
        for senseless in within {
            let mut streams = Streams::new(Path::new("."));
            streams.take(start(7, 1)).unwrap();
            assert!(streams.take(senseless.clone()).is_err(), "{senseless:?}");
        }
        let outside = [
            end(),
            start(7, 0),
            commit(7),
            message(b'S', &[&number(7)]),
            message(b'A', &[&number(7)]),
            BytesMut::new(),
        ];
        for senseless in outside {
            let mut streams = Streams::new(Path::new("."));
            assert!(streams.take(senseless.clone()).is_err(), "{senseless:?}");
        }
        let mut streams = Streams::new(Path::new("."));
        let taken = streams.take(message(b'B', &[&[0; 20]])).unwrap();
        assert!(matches!(taken, Taken::Not(_)), "{taken:?}");
    }
}
