//! Messages of the output plugin `pgoutput` taken apart, as its protocol version 1 has them: those of
//! transactions that come before their commit were made the same ([`super::streams`]).
//!
//! Values stay where they are: a tuple is read into places of its message.

use std::ops::Range;

use reinstate_core::{ErrorKind, StoreError};

/// The first number of microseconds of the server's clock, 2000-01-01, in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The flag of a column by which old rows are told.
const IS_KEY: u8 = 1;
/// How many columns a table can have is less than this.
const COLUMNS_MAX: usize = 4_096;

/// What a follower's own messages in the server's log start with.
pub(super) const MESSAGE_PREFIX: &str = "reinstate";
/// What those say that took tables in, before the ids of their relations.
const TAKEN_IN: &str = "taken in";

/// The words of a follower that takes these relations in.
pub(super) fn take_in_words(relations: impl Iterator<Item = u32>) -> String {
    let mut words = TAKEN_IN.to_owned();
    for relation in relations {
        words.push(' ');
        words.push_str(&relation.to_string());
    }
    words
}

fn taken_in(content: &[u8]) -> Option<Vec<u32>> {
    let words = std::str::from_utf8(content).ok()?;
    let ids = words.strip_prefix(TAKEN_IN)?.split_ascii_whitespace();
    ids.map(|id| id.parse().ok()).collect()
}

/// One message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A transaction begins, whose commit is at this position.
    Begin { commit: u64, transaction: u32 },
    /// It ends at this position, committed at this time, in microseconds since 1970.
    Commit { end: u64, micros: i64 },
    /// What a relation looks like to the changes that follow.
    Relation(Relation),
    /// A row of a relation. What it was and what it is are in the tuples that were filled.
    Row { relation: u32, change: RowChange },
    /// All rows of relations went.
    Truncate { relations: Vec<u32> },
    /// A follower's own: the transaction took these relations in.
    TakenIn { relations: Vec<u32> },
    /// Something that says nothing about rows.
    Other,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RowChange {
    Insert,
    Update,
    Delete,
}

/// What a relation looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Relation {
    pub id: u32,
    pub namespace: String,
    pub name: String,
    /// How its old rows are told: `f` is whole.
    pub identity: u8,
    /// Names, types and modifiers of its columns.
    pub columns: Vec<(String, u32, i32)>,
    /// The places of those by which an old row is told where it is not told whole.
    pub key: Vec<usize>,
}

/// Where a value is in its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Null,
    /// As it was, and not said again.
    Unchanged,
    Text(Range<usize>),
}

/// The rows of a change.
#[derive(Clone, Debug, Default)]
pub(super) struct Tuples {
    /// The row as it was, if it was told whole; where only its key was, with NULL in place of the rest.
    pub old: Vec<Field>,
    /// Whether of the row as it was only the key was told.
    pub is_key: bool,
    /// The row as it is.
    pub new: Vec<Field>,
}

/// Takes a message apart.
///
/// # Errors
/// `Other` if it is not one.
pub(super) fn parse(message: &[u8], tuples: &mut Tuples) -> Result<Message, StoreError> {
    tuples.old.clear();
    tuples.new.clear();
    tuples.is_key = false;
    let mut reader = Reader { message, at: 0 };
    let parsed = reader.message(tuples);
    parsed.ok_or_else(|| {
        let kind = message.first().copied().unwrap_or(b'?').escape_ascii();
        let text = format!("follow the log: a message {kind} that makes no sense");
        StoreError::new(ErrorKind::Other, text)
    })
}

struct Reader<'m> {
    message: &'m [u8],
    at: usize,
}

impl Reader<'_> {
    fn message(&mut self, tuples: &mut Tuples) -> Option<Message> {
        Some(match self.byte()? {
            b'B' => {
                let commit = u64::from_be_bytes(self.bytes()?);
                let _time: [u8; 8] = self.bytes()?;
                let transaction = self.number()?;
                Message::Begin {
                    commit,
                    transaction,
                }
            }
            b'C' => {
                let _flags = self.byte()?;
                let _start: [u8; 8] = self.bytes()?;
                let end = u64::from_be_bytes(self.bytes()?);
                let micros = i64::from_be_bytes(self.bytes()?);
                let micros = micros.checked_add(EPOCH_MICROS)?;
                Message::Commit { end, micros }
            }
            b'R' => Message::Relation(self.relation()?),
            b'I' => self.row(RowChange::Insert, tuples)?,
            b'U' => self.row(RowChange::Update, tuples)?,
            b'D' => self.row(RowChange::Delete, tuples)?,
            b'T' => {
                let count = self.number()? as usize;
                let _options = self.byte()?;
                if count > self.message.len() / 4 {
                    return None;
                }
                let relations = (0..count).map(|_| self.number());
                Message::Truncate {
                    relations: relations.collect::<Option<_>>()?,
                }
            }
            b'M' => self.somebodys().unwrap_or(Message::Other),
            // An origin, a type.
            b'O' | b'Y' => Message::Other,
            _ => return None,
        })
    }

    /// A message of somebody, which says something only if it is a follower's own.
    fn somebodys(&mut self) -> Option<Message> {
        let _flags_and_place: [u8; 9] = self.bytes()?;
        let prefix = self.text()?;
        let length = self.number()? as usize;
        let content = self.message.get(self.at..)?;
        if content.len() != length {
            return None;
        }
        let relations = (prefix == MESSAGE_PREFIX).then(|| taken_in(content));
        Some(match relations.flatten() {
            Some(relations) => Message::TakenIn { relations },
            None => Message::Other,
        })
    }

    fn relation(&mut self) -> Option<Relation> {
        let id = self.number()?;
        let (namespace, name) = (self.text()?, self.text()?);
        let identity = self.byte()?;
        let count = usize::from(u16::from_be_bytes(self.bytes()?));
        let (mut columns, mut key) = (Vec::new(), Vec::new());
        for place in 0..count {
            if self.byte()? & IS_KEY != 0 {
                key.push(place);
            }
            let (name, kind) = (self.text()?, self.number()?);
            columns.push((name, kind, i32::from_be_bytes(self.bytes()?)));
        }
        Some(Relation {
            id,
            namespace,
            name,
            identity,
            columns,
            key,
        })
    }

    fn row(&mut self, change: RowChange, tuples: &mut Tuples) -> Option<Message> {
        let relation = self.number()?;
        let mut kind = self.byte()?;
        match (change, kind) {
            (RowChange::Insert, b'N') | (RowChange::Update, b'N') => {}
            (RowChange::Update | RowChange::Delete, b'O') => {
                self.tuple(&mut tuples.old)?;
            }
            (RowChange::Update | RowChange::Delete, b'K') => {
                self.tuple(&mut tuples.old)?;
                tuples.is_key = true;
            }
            _ => return None,
        }
        if change == RowChange::Update && kind != b'N' {
            kind = self.byte()?;
        }
        if change != RowChange::Delete {
            if kind != b'N' {
                return None;
            }
            self.tuple(&mut tuples.new)?;
        }
        (self.at == self.message.len()).then_some(Message::Row { relation, change })
    }

    fn tuple(&mut self, fields: &mut Vec<Field>) -> Option<()> {
        let count = usize::from(u16::from_be_bytes(self.bytes()?));
        if count > COLUMNS_MAX {
            return None;
        }
        for _ in 0..count {
            let field = match self.byte()? {
                b'n' => Field::Null,
                b'u' => Field::Unchanged,
                b't' => {
                    let length = self.number()? as usize;
                    let end = self.at.checked_add(length)?;
                    self.message.get(self.at..end)?;
                    let field = Field::Text(self.at..end);
                    self.at = end;
                    field
                }
                _ => return None,
            };
            fields.push(field);
        }
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let [byte] = self.bytes()?;
        Some(byte)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.bytes()?))
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, _) = self.message.get(self.at..)?.split_first_chunk()?;
        self.at += N;
        Some(*bytes)
    }

    fn text(&mut self) -> Option<String> {
        let rest = self.message.get(self.at..)?;
        let length = memchr::memchr(0, rest)?;
        self.at += length + 1;
        String::from_utf8(rest[..length].to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(message: &[u8]) -> Option<(Message, Tuples)> {
        let mut tuples = Tuples::default();
        let parsed = parse(message, &mut tuples).ok()?;
        Some((parsed, tuples))
    }

    const UPDATE: &[u8] = b"U\0\0\0\x07O\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x02ab u";

    #[test]
    fn a_row_is_found_where_it_is() {
        let update = b"U\0\0\0\x07O\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x02abu";
        let (message, tuples) = read(update).unwrap();
        let change = RowChange::Update;
        assert_eq!(
            message,
            Message::Row {
                relation: 7,
                change
            }
        );
        assert_eq!(tuples.old, [Field::Text(13..14), Field::Null]);
        assert_eq!(tuples.new, [Field::Text(23..25), Field::Unchanged]);
        assert!(read(UPDATE).is_none(), "a byte too many");
        let (_, tuples) = read(b"D\0\0\0\x07K\0\x01t\0\0\0\x011").unwrap();
        assert!(tuples.is_key, "a key is not a row");
    }

    #[test]
    fn only_a_followers_own_words_say_what_was_taken_in() {
        let message = |prefix: &str, content: &str| {
            let length = u32::try_from(content.len()).unwrap().to_be_bytes();
            let parts = [
                b"M\x01\0\0\0\0\0\0\0\x09",
                prefix.as_bytes(),
                b"\0",
                &length,
            ];
            let mut message = parts.concat();
            message.extend(content.as_bytes());
            read(&message).map(|(message, _)| message)
        };
        let words = take_in_words([7, 4_000_000_000].into_iter());
        let relations = vec![7, 4_000_000_000];
        let taken_in = Some(Message::TakenIn { relations });
        assert_eq!(message(MESSAGE_PREFIX, &words), taken_in);
        for (prefix, content) in [
            ("reinstat", words.as_str()),
            (MESSAGE_PREFIX, ""),
            (MESSAGE_PREFIX, "taken in x"),
            (MESSAGE_PREFIX, "taken in 4294967296"),
        ] {
            assert_eq!(message(prefix, content), Some(Message::Other), "{content}");
        }
        assert_eq!(read(b"M\x01\0\0").unwrap().0, Message::Other);
    }

    #[test]
    fn times_are_since_1970() {
        let mut commit = b"C\0".to_vec();
        commit.extend([0; 7].iter().chain(&[5]).chain(&[0; 7]).chain(&[9]));
        commit.extend(1_000_000_i64.to_be_bytes());
        let expected = Message::Commit {
            end: 9,
            micros: 946_684_801_000_000,
        };
        assert_eq!(read(&commit).unwrap().0, expected);
    }

    #[test]
    fn what_is_cut_short_is_refused() {
        let relation = b"R\0\0\0\x01public\0t\0f\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff";
        let truncate = b"T\0\0\0\x01\0\0\0\0\x07";
        let insert = b"I\0\0\0\x07N\0\x01t\0\0\0\x02ab";
        for message in [relation.as_slice(), truncate, insert] {
            assert!(read(message).is_some());
            for end in 0..message.len() {
                assert!(read(&message[..end]).is_none(), "{message:?} {end}");
            }
        }
        assert!(read(b"T\xff\xff\xff\xff\0").is_none());
    }

    /// Each is a message, or with a byte changed, added or taken away perhaps none.
    const MESSAGES: [&[u8]; 6] = [
        b"R\0\0\0\x01public\0t\0f\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff",
        b"T\0\0\0\x01\0\0\0\0\x07",
        b"I\0\0\0\x07N\0\x01t\0\0\0\x02ab",
        b"U\0\0\0\x07O\0\x02t\0\0\0\x011nN\0\x02t\0\0\0\x02abu",
        b"D\0\0\0\x07K\0\x01t\0\0\0\x011",
        b"B\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09\0\0\0\x03",
    ];

    /// What is found lies in the message, and is no more than it can hold.
    fn holds(message: &[u8]) {
        let Some((parsed, tuples)) = read(message) else {
            return;
        };
        for field in tuples.old.iter().chain(&tuples.new) {
            if let Field::Text(place) = field {
                assert!(
                    message.get(place.clone()).is_some(),
                    "{message:?} {place:?}"
                );
            }
        }
        assert!(tuples.old.len() + tuples.new.len() <= message.len());
        match parsed {
            Message::Relation(relation) => assert!(relation.columns.len() <= message.len()),
            Message::Truncate { relations } => assert!(relations.len() <= message.len()),
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn any_bytes_as_a_message_of_the_log(bytes: Vec<u8>) {
            holds(&bytes);
        }

        #[test]
        fn any_edit_of_a_message_of_the_log(
            which in 0..MESSAGES.len(),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 1..6),
        ) {
            let mut bytes = MESSAGES[which].to_vec();
            for (place, byte, edit) in edits {
                let place = place.index(bytes.len().max(1));
                match edit {
                    0 if place < bytes.len() => bytes[place] = byte,
                    1 => bytes.insert(place, byte),
                    _ => drop((place < bytes.len()).then(|| bytes.remove(place))),
                }
            }
            holds(&bytes);
        }
    }
}
