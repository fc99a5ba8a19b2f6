//! Whose a row is, as of its commit.
//!
//! Where a table has the tenant's column the row says so itself. Where a foreign key leads towards the
//! tenant, the row at its end has the owner, and that row may have been written long before: an
//! index holds, for each row that others go by, its name as they write it, and its owner or the name of
//! the row that it goes by itself: a row that moves takes everything along without being told. It lies
//! in an unnamed file, and is made anew from snapshot and log whenever a log is followed: what it says
//! can be derived, and a file that survived a crash would have to be proven instead.
//!
//! *Cost*: rows of tables that no way leads over are not in it: none where every table has the
//! tenant's column.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reinstate_core::{ColumnIndex, ErrorKind, FeedRow, RowRef, StoreSchema, TableIndex};

use reinstate_format::{ChangeKind, LoggedChange};

use super::index::{Entries, Index};
use super::ways::{Way, names_of, prefix, way};
use crate::{Context, Error};

const OWNERS: Entries = Entries::new("owners");
const REMOVED: Entries = Entries::new("removed");
/// Where in a run something was said last of a row.
const SAID: Entries = Entries::new("said");

/// First byte of an entry that holds an owner.
const IS_OWNER: u8 = 0;
/// First byte of an entry that holds the name of the row that the row goes by.
const IS_NAME: u8 = 1;

/// Finds the owners of changed rows.
pub(crate) struct Owners {
    schema: StoreSchema,
    /// By which columns rows of a table are named by those that go by them.
    names: Names,
    index: Option<Index>,
    /// How many rows this transaction took away. They stay in the index until it ends: those that
    /// belonged to them may still have to go, and need them for their owner.
    removed_count: u64,
    /// Names whose rows go, and come again in what waited: how often they are still to come. Until then
    /// what goes by them belongs to whom it would have belonged before.
    coming: HashMap<Vec<u8>, u32>,
}

/// By which columns rows of tables are named by those that go by them.
pub(crate) type Names = BTreeMap<TableIndex, BTreeSet<Vec<ColumnIndex>>>;

/// The columns by which rows are named in these tables.
pub(crate) fn names(schema: &StoreSchema) -> Names {
    let mut names = Names::new();
    let tables = schema.tables().iter();
    for reference in tables.flat_map(|table| table.tenancy.references()) {
        let by = names.entry(reference.parent).or_default();
        by.insert(reference.parent_columns.clone());
    }
    names
}

/// Whose a row is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// This owner's; no bytes: shared.
    Owner(Vec<u8>),
    /// It goes by a row that is not there, or not yet.
    Nowhere,
}

impl Owners {
    /// Owners in these tables, of no rows yet.
    pub(crate) fn try_new(context: Context<'_>, schema: &StoreSchema) -> Result<Self, Error> {
        let names = names(schema);
        let index = if names.is_empty() {
            None
        } else {
            Some(Index::create(context, "keep the owners of rows")?)
        };
        Ok(Self {
            schema: schema.clone(),
            names,
            index,
            removed_count: 0,
            coming: HashMap::new(),
        })
    }

    /// The tables whose rows have to be known.
    pub(crate) fn tables(&self) -> impl Iterator<Item = TableIndex> {
        self.names.keys().copied()
    }

    /// Whether rows go by rows of this table.
    pub(crate) fn is_named(&self, table: TableIndex) -> bool {
        self.names.contains_key(&table)
    }

    /// Whose a row is, as things stand.
    pub(crate) fn after(&mut self, table: TableIndex, row: FeedRow<'_>) -> Result<Found, Error> {
        self.find(table, row, false)
    }

    /// Whose a row was that is to change or to go. What it goes by may be gone already.
    pub(crate) fn before(&mut self, table: TableIndex, row: FeedRow<'_>) -> Result<Vec<u8>, Error> {
        match self.find(table, row, true)? {
            Found::Owner(owner) => Ok(owner),
            Found::Nowhere => Ok(Vec::new()),
        }
    }

    /// Notes a row that is there now. Returns whose a row of the same name was before, if it was there
    /// and may have left rows behind that go by it.
    pub(crate) fn insert(
        &mut self,
        table: TableIndex,
        row: RowRef<'_>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut was = None;
        for name in self.names_of(table, row) {
            self.keep(&name)?;
            if let Found::Owner(owner) = self.follow(name.clone(), true)? {
                was.get_or_insert(owner);
            }
            self.set(table, row, &name)?;
        }
        Ok(was)
    }

    /// Notes a row that goes in what waited, before the first of that is handled.
    pub(crate) fn expect_to_go(&mut self, table: TableIndex, row: RowRef<'_>) {
        let names = self.names_of(table, row).into_iter();
        self.coming.extend(names.map(|name| (name, 0)));
    }

    /// Notes a row that is written in what waited, unless one of its name is known: before the first of that
    /// is handled, and after those that go were noted.
    pub(crate) fn expect(&mut self, table: TableIndex, row: RowRef<'_>) -> Result<(), Error> {
        for name in self.names_of(table, row) {
            let is_gone = self.is_removed(&name)?;
            if is_gone {
                // Rows that it left behind still belong to whom they did.
                self.keep(&name)?;
                self.coming.entry(name.clone()).or_default();
            }
            if let Some(count) = self.coming.get_mut(&name) {
                *count += 1;
            }
            self.expect_again(table, row, &name)?;
        }
        Ok(())
    }

    /// Notes a row that is still to come, where nothing is known of its name any more.
    pub(crate) fn expect_after_truncation(
        &mut self,
        table: TableIndex,
        row: RowRef<'_>,
    ) -> Result<(), Error> {
        let mut names = self.names_of(table, row).into_iter();
        names.try_for_each(|name| self.expect_again(table, row, &name))
    }

    fn expect_again(
        &mut self,
        table: TableIndex,
        row: RowRef<'_>,
        name: &[u8],
    ) -> Result<(), Error> {
        if self.follow(name.to_vec(), false)? == Found::Nowhere {
            self.keep(name)?;
            self.set(table, row, name)?;
        }
        Ok(())
    }

    /// Notes that a row that was expected is handled now.
    pub(crate) fn come(&mut self, table: TableIndex, row: RowRef<'_>) {
        if self.coming.is_empty() {
            return;
        }
        for name in self.names_of(table, row) {
            if let Some(count) = self.coming.get_mut(&name) {
                *count = count.saturating_sub(1);
            }
        }
    }

    /// Notes that everything that waited is handled.
    pub(crate) fn expect_nothing(&mut self) {
        self.coming = HashMap::new();
    }

    fn is_coming(&self, name: &[u8]) -> bool {
        self.coming.get(name).is_some_and(|count| *count > 0)
    }

    fn is_removed(&mut self, name: &[u8]) -> Result<bool, Error> {
        match self.index.as_mut() {
            Some(index) if self.removed_count > 0 => Ok(index.get(REMOVED, name)?.is_some()),
            _ => Ok(false),
        }
    }

    /// Notes that a row became another.
    pub(crate) fn update(
        &mut self,
        table: TableIndex,
        before: RowRef<'_>,
        after: RowRef<'_>,
    ) -> Result<(), Error> {
        let kept = self.names_of(table, after);
        let gone = self.names_of(table, before).into_iter();
        for name in gone.filter(|name| !kept.contains(name)) {
            self.take_away(&name)?;
        }
        for name in kept {
            self.keep(&name)?;
            self.set(table, after, &name)?;
        }
        Ok(())
    }

    /// Notes that a row is there no more.
    pub(crate) fn remove(&mut self, table: TableIndex, row: RowRef<'_>) -> Result<(), Error> {
        let names = self.names_of(table, row);
        names.iter().try_for_each(|name| self.take_away(name))
    }

    /// Notes that a table lost all its rows.
    pub(crate) fn truncate(&mut self, table: TableIndex) -> Result<(), Error> {
        let prefix = prefix(table);
        if !self.is_named(table) {
            return Ok(());
        }
        if let Some(index) = self.index.as_mut() {
            index.clear(OWNERS, &prefix)?;
            index.clear(REMOVED, &prefix)?;
        }
        Ok(())
    }

    /// Ends a transaction.
    pub(crate) fn end_transaction(&mut self) -> Result<(), Error> {
        match self.index.as_mut() {
            Some(index) if self.removed_count > 0 => {
                self.removed_count = 0;
                index.remove_all_in(OWNERS, REMOVED)
            }
            _ => Ok(()),
        }
    }

    /// Notes where in a run this was said of a row, by its key in the tables of that run.
    pub(super) fn note_said(
        &mut self,
        table: TableIndex,
        change: &LoggedChange<'_>,
    ) -> Result<(), Error> {
        if change.key.is_empty() || self.is_said_later(table, change)? {
            return Ok(());
        }
        let index = self
            .index
            .as_mut()
            .expect("BUG: rows to know without an index");
        index.set(SAID, &said_of(table, change), &said_at(change))
    }

    /// Whether nothing was said of the row after this. Rows without a key are never told apart.
    pub(super) fn was_said_last(
        &mut self,
        table: TableIndex,
        change: &LoggedChange<'_>,
    ) -> Result<bool, Error> {
        Ok(change.key.is_empty() || !self.is_said_later(table, change)?)
    }

    fn is_said_later(
        &mut self,
        table: TableIndex,
        change: &LoggedChange<'_>,
    ) -> Result<bool, Error> {
        let index = self
            .index
            .as_mut()
            .expect("BUG: rows to know without an index");
        let said = index.get(SAID, &said_of(table, change))?;
        Ok(said.is_some_and(|said| said.as_slice() > said_at(change).as_slice()))
    }

    /// Ends a run.
    pub(super) fn forget_said(&mut self) -> Result<(), Error> {
        self.index
            .as_mut()
            .map_or(Ok(()), |index| index.empty(SAID))
    }

    fn take_away(&mut self, name: &[u8]) -> Result<(), Error> {
        if self.is_coming(name) {
            return Ok(());
        }
        let index = self.index.as_mut().expect("BUG: names without an index");
        self.removed_count += 1;
        index.set(REMOVED, name, &[])
    }

    fn keep(&mut self, name: &[u8]) -> Result<(), Error> {
        match self.index.as_mut() {
            Some(index) if self.removed_count > 0 => index.remove(REMOVED, name),
            _ => Ok(()),
        }
    }

    fn find(&mut self, table: TableIndex, row: FeedRow<'_>, before: bool) -> Result<Found, Error> {
        if let Some(owner) = row.owner {
            return Ok(Found::Owner(owner.to_vec()));
        }
        let schema = self.schema.table(table);
        match way(schema, row.row) {
            Way::Own(owner) => Ok(Found::Owner(owner)),
            Way::By(name) => self.follow(name, before),
            Way::Native => {
                let message = format!("{}: a row without the owner beside it", schema.name);
                Err(Error::new(ErrorKind::Corrupt, message))
            }
        }
    }

    /// Goes from row to row until one says whose it is.
    fn follow(&mut self, mut name: Vec<u8>, mut before: bool) -> Result<Found, Error> {
        loop {
            before |= self.is_coming(&name);
            if !before && self.is_removed(&name)? {
                return Ok(Found::Nowhere);
            }
            let index = self.index.as_mut().expect("BUG: a way without an index");
            let Some(mut entry) = index.get(OWNERS, &name)? else {
                return Ok(Found::Nowhere);
            };
            let kind = entry.remove(0);
            if kind == IS_OWNER {
                return Ok(Found::Owner(entry));
            }
            name = entry;
        }
    }

    fn set(&mut self, table: TableIndex, row: RowRef<'_>, name: &[u8]) -> Result<(), Error> {
        let (kind, rest) = match way(self.schema.table(table), row) {
            Way::Own(owner) => (IS_OWNER, owner),
            Way::By(name) => (IS_NAME, name),
            Way::Native => return Ok(()),
        };
        let mut entry = vec![kind];
        entry.extend_from_slice(&rest);
        let index = self.index.as_mut().expect("BUG: names without an index");
        index.set(OWNERS, name, &entry)
    }

    /// The names under which a row is found by those that go by it.
    fn names_of(&self, table: TableIndex, row: RowRef<'_>) -> Vec<Vec<u8>> {
        let columns = self.names.get(&table);
        names_of(table, row, columns.into_iter().flatten())
    }
}

fn said_of(table: TableIndex, change: &LoggedChange<'_>) -> Vec<u8> {
    let mut name = prefix(table).to_vec();
    name.extend_from_slice(change.key);
    name
}

/// Ascends as changes were made. A row that goes from owner to owner is lost by one and got by the other in
/// the same place: that it is there comes after.
fn said_at(change: &LoggedChange<'_>) -> Vec<u8> {
    let mut at = change.commit.to_be_bytes().to_vec();
    at.extend_from_slice(&change.ordinal.to_be_bytes());
    at.push(u8::from(change.kind != ChangeKind::Removed));
    at
}
