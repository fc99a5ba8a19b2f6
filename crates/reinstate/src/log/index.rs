//! Entries by key, more than fit into memory: in an unnamed file in the spill directory.
//!
//! What was set or asked for lately is held in memory, up to a bound, and goes into the file in one piece, in
//! the order of the keys. Whether it did makes no difference to what is found.

use std::collections::HashMap;
use std::io;

use redb::backends::FileBackend;
use redb::{
    Database, ReadOnlyTable, ReadTransaction, ReadableDatabase, StorageBackend, TableDefinition,
    TableError, WriteTransaction,
};
use reinstate_core::ErrorKind;

use crate::{Context, Error};

/// What a held entry takes besides its key and its value, roughly.
const HELD_OVERHEAD_BYTES: usize = 96;

/// A file that is gone with the process: nothing waits until it is on the disk.
#[derive(Debug)]
struct Scratch(FileBackend);

impl StorageBackend for Scratch {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.0.write(offset, data)
    }
}

/// A kind of entries, each with keys of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Entries(&'static str);

impl Entries {
    pub(super) const fn new(name: &'static str) -> Self {
        Self(name)
    }

    const fn table(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.0)
    }
}

/// Entries by key.
pub(super) struct Index {
    /// What it is for, in errors.
    purpose: &'static str,
    database: Database,
    kinds: HashMap<Entries, Kind>,
    held_bytes: usize,
    held_bytes_max: usize,
}

/// The entries of one kind.
#[derive(Default)]
struct Kind {
    held: HashMap<Vec<u8>, Held>,
    /// Those in the file; none if it has none.
    file: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

/// What is known of a key, whatever the file says.
struct Held {
    entry: Option<Vec<u8>>,
    /// Whether the file says something else.
    is_changed: bool,
}

impl Held {
    fn bytes(&self, key: &[u8]) -> usize {
        HELD_OVERHEAD_BYTES + key.len() + self.entry.as_ref().map_or(0, Vec::len)
    }
}

impl Index {
    /// None yet. Holds an eighth of the memory that there is: half of it entries, half of it pages of the
    /// file.
    pub(super) fn create(context: Context<'_>, purpose: &'static str) -> Result<Self, Error> {
        let memory = context.resources.memory_bytes_max() / 16;
        let file =
            tempfile::tempfile_in(context.resources.spill_directory()).map_err(Error::spill)?;
        let database = redb::Builder::new()
            .set_cache_size(memory)
            .create_with_backend(Scratch(
                FileBackend::new(file).map_err(|error| failed(purpose, error))?,
            ))
            .map_err(|error| failed(purpose, error))?;
        Ok(Self {
            purpose,
            database,
            kinds: HashMap::new(),
            held_bytes: 0,
            held_bytes_max: memory,
        })
    }

    pub(super) fn get(&mut self, entries: Entries, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let purpose = self.purpose;
        let kind = self.kinds.entry(entries).or_default();
        if let Some(held) = kind.held.get(key) {
            return Ok(held.entry.clone());
        }
        let Some(file) = &kind.file else {
            return Ok(None);
        };
        let found = file.get(key).map_err(|error| failed(purpose, error))?;
        let entry = found.map(|entry| entry.value().to_vec());
        self.hold(entries, key, entry.clone(), false)?;
        Ok(entry)
    }

    pub(super) fn set(&mut self, entries: Entries, key: &[u8], entry: &[u8]) -> Result<(), Error> {
        self.hold(entries, key, Some(entry.to_vec()), true)
    }

    /// Removes an entry, if there is one.
    pub(super) fn remove(&mut self, entries: Entries, key: &[u8]) -> Result<(), Error> {
        self.hold(entries, key, None, true)
    }

    fn hold(
        &mut self,
        entries: Entries,
        key: &[u8],
        entry: Option<Vec<u8>>,
        is_changed: bool,
    ) -> Result<(), Error> {
        let held = Held { entry, is_changed };
        self.held_bytes += held.bytes(key);
        let kind = self.kinds.entry(entries).or_default();
        match kind.held.get_mut(key) {
            Some(before) => {
                self.held_bytes -= before.bytes(key);
                *before = held;
            }
            None => drop(kind.held.insert(key.to_vec(), held)),
        }
        if self.held_bytes > self.held_bytes_max {
            self.write_out()?;
        }
        Ok(())
    }

    /// Removes the entries whose keys are among those of another kind, and those there too.
    pub(super) fn remove_all_in(&mut self, entries: Entries, keys: Entries) -> Result<(), Error> {
        let those = self.kinds.entry(keys).or_default();
        if those.file.is_none() {
            for (key, held) in std::mem::take(&mut those.held) {
                self.held_bytes -= held.bytes(&key);
                if held.entry.is_some() {
                    self.remove(entries, &key)?;
                }
            }
            return Ok(());
        }
        self.in_file(|transaction, purpose| {
            let open = |kind: Entries| {
                let opened = transaction.open_table(kind.table());
                opened.map_err(|error| failed(purpose, error))
            };
            let (mut table, mut names) = (open(entries)?, open(keys)?);
            while let Some((name, _)) = names.pop_first().map_err(|error| failed(purpose, error))? {
                table
                    .remove(name.value())
                    .map_err(|error| failed(purpose, error))?;
            }
            drop(names);
            // As long as the file has the table, it would have to be asked each time.
            let deleted = transaction.delete_table(keys.table());
            deleted.map(drop).map_err(|error| failed(purpose, error))
        })
    }

    /// Removes all entries whose keys begin like this.
    pub(super) fn clear(&mut self, entries: Entries, prefix: &[u8; 4]) -> Result<(), Error> {
        let kind = self.kinds.entry(entries).or_default();
        if kind.file.is_none() {
            let gone = kind.held.extract_if(|key, _| key.starts_with(prefix));
            self.held_bytes -= gone.map(|(key, held)| held.bytes(&key)).sum::<usize>();
            return Ok(());
        }
        self.in_file(|transaction, purpose| {
            let mut table = transaction
                .open_table(entries.table())
                .map_err(|error| failed(purpose, error))?;
            let of_others = |key: &[u8], _: &[u8]| !key.starts_with(prefix);
            let start: &[u8] = prefix;
            table
                .retain_in(start.., of_others)
                .map_err(|error| failed(purpose, error))
        })
    }

    /// Removes all entries of a kind.
    pub(super) fn empty(&mut self, entries: Entries) -> Result<(), Error> {
        let Some(kind) = self.kinds.remove(&entries) else {
            return Ok(());
        };
        let held = kind.held.iter();
        self.held_bytes -= held.map(|(key, held)| held.bytes(key)).sum::<usize>();
        if kind.file.is_none() {
            return Ok(());
        }
        drop(kind);
        self.in_file(|transaction, purpose| {
            let deleted = transaction.delete_table(entries.table());
            deleted.map(drop).map_err(|error| failed(purpose, error))
        })
    }

    /// Has the file take over what is held.
    fn write_out(&mut self) -> Result<(), Error> {
        self.in_file(|_, _| Ok(()))
    }

    /// Changes the file, once it has taken over what is held.
    fn in_file(
        &mut self,
        change: impl FnOnce(&WriteTransaction, &'static str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let purpose = self.purpose;
        let begun = self.database.begin_write();
        let transaction = begun.map_err(|error| failed(purpose, error))?;
        for (entries, kind) in &mut self.kinds {
            // Nobody reads the file as it was, so that it need not keep that.
            kind.file = None;
            kind.write(&transaction, *entries)
                .map_err(|error| failed(purpose, error))?;
        }
        self.held_bytes = 0;
        change(&transaction, purpose)?;
        transaction
            .commit()
            .map_err(|error| failed(purpose, error))?;
        let begun = self.database.begin_read();
        let transaction = begun.map_err(|error| failed(purpose, error))?;
        for (entries, kind) in &mut self.kinds {
            kind.open(&transaction, *entries)
                .map_err(|error| failed(purpose, error))?;
        }
        Ok(())
    }
}

impl Kind {
    /// Writes what is held and changed, in the order of the keys.
    fn write(
        &mut self,
        transaction: &WriteTransaction,
        entries: Entries,
    ) -> Result<(), redb::Error> {
        let held = std::mem::take(&mut self.held).into_iter();
        let mut changed: Vec<_> = held.filter(|(_, held)| held.is_changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        changed.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        let mut table = transaction.open_table(entries.table())?;
        for (key, held) in &changed {
            match &held.entry {
                Some(entry) => drop(table.insert(key.as_slice(), entry.as_slice())?),
                None => drop(table.remove(key.as_slice())?),
            }
        }
        Ok(())
    }

    fn open(&mut self, transaction: &ReadTransaction, entries: Entries) -> Result<(), redb::Error> {
        self.file = match transaction.open_table(entries.table()) {
            Ok(table) => Some(table),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(())
    }
}

fn failed(purpose: &str, error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        redb::Error::Io(error) => match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Full,
            _ => ErrorKind::Other,
        },
        _ => ErrorKind::Other,
    };
    Error::new(kind, format!("{purpose} in the spill directory")).caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use reinstate_core::{Cancellation, Silent};

    use super::*;
    use crate::context::MEMORY_BYTES_MIN;
    use crate::{ResourceOptions, Resources};

    const KINDS: [Entries; 2] = [Entries::new("one"), Entries::new("other")];

    /// What is done to the entries of one of the kinds.
    #[derive(Clone, Debug)]
    enum Step {
        Get(usize, Vec<u8>),
        Set(usize, Vec<u8>, usize),
        Remove(usize, Vec<u8>),
        RemoveAllIn,
        Clear(usize, u8),
        Empty(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        let key = || (0..3_u8, 0..6_u8).prop_map(|(table, row)| vec![0, 0, 0, table, row]);
        let kind = || 0..KINDS.len();
        // Four long ones are more than is held.
        let length = prop_oneof![3 => 0..4_usize, 1 => Just(300_000)];
        prop_oneof![
            6 => (kind(), key()).prop_map(|(kind, key)| Step::Get(kind, key)),
            9 => (kind(), key(), length).prop_map(|(kind, key, length)| Step::Set(kind, key, length)),
            3 => (kind(), key()).prop_map(|(kind, key)| Step::Remove(kind, key)),
            2 => Just(Step::RemoveAllIn),
            1 => (kind(), 0..3_u8).prop_map(|(kind, table)| Step::Clear(kind, table)),
            1 => kind().prop_map(Step::Empty),
        ]
    }

    fn check(steps: &[Step]) {
        let options = ResourceOptions {
            memory_bytes_max: MEMORY_BYTES_MIN,
            ..ResourceOptions::default()
        };
        let (resources, cancellation) = (Resources::try_new(options).unwrap(), Cancellation::new());
        let context = Context::new(&resources, &Silent, &cancellation);
        let mut index = Index::create(context, "try an index").unwrap();
        let mut model = [BTreeMap::new(), BTreeMap::new()];
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Get(kind, key) => {
                    let found = index.get(KINDS[*kind], key).unwrap();
                    assert!(found == model[*kind].get(key).cloned(), "{number}");
                }
                Step::Set(kind, key, length) => {
                    let entry = vec![u8::try_from(number).unwrap(); *length];
                    index.set(KINDS[*kind], key, &entry).unwrap();
                    model[*kind].insert(key.clone(), entry);
                }
                Step::Remove(kind, key) => {
                    index.remove(KINDS[*kind], key).unwrap();
                    model[*kind].remove(key);
                }
                Step::RemoveAllIn => {
                    index.remove_all_in(KINDS[0], KINDS[1]).unwrap();
                    for key in std::mem::take(&mut model[1]).into_keys() {
                        model[0].remove(&key);
                    }
                    let those = index.kinds.get(&KINDS[1]);
                    assert!(those.is_none_or(|those| those.file.is_none()), "{number}");
                }
                Step::Clear(kind, table) => {
                    index.clear(KINDS[*kind], &[0, 0, 0, *table]).unwrap();
                    model[*kind].retain(|key, _| key[3] != *table);
                }
                Step::Empty(kind) => {
                    index.empty(KINDS[*kind]).unwrap();
                    model[*kind].clear();
                }
            }
            assert!(index.held_bytes <= index.held_bytes_max, "{number}");
            let held = index.kinds.values().flat_map(|kind| &kind.held);
            let held: usize = held.map(|(key, held)| held.bytes(key)).sum();
            assert_eq!(index.held_bytes, held, "{number}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

        #[test]
        fn what_is_found_does_not_depend_on_what_went_into_the_file(
            steps in proptest::collection::vec(step(), 1..120),
        ) {
            check(&steps);
        }
    }
}
