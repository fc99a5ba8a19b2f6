//! Rows that belong to nobody once a plan is carried out.
//!
//! Where nothing guards a reference, a plan that deletes a row, or gives it another value that others
//! refer to, leaves those behind that belong to it: undoing the restore of an issue leaves its
//! comments as they are, whoever wrote to them since. They are found by what rows say, table by
//! table, parents first: values are told apart as the store writes them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use reinstate_core::{ColumnIndex, ErrorKind, Reference, RowRef, StoreSchema, TableIndex, Tenancy};

use crate::{Context, Error};

/// The part of the memory that values which are gone may take, all tables of one tenant together.
const MEMORY_PART: usize = 8;
/// What a value takes beside its bytes, about.
const ENTRY_BYTES: usize = 64;

/// A parent and those of its columns that others refer to.
type Place = (TableIndex, Vec<ColumnIndex>);

/// What other rows refer to and no longer find.
#[derive(Debug)]
pub(super) struct Leaving {
    schema: StoreSchema,
    /// By parent and its columns: for each value how many rows have it no more, less those that
    /// have it instead.
    gone: BTreeMap<Place, HashMap<Vec<u8>, i64>>,
    /// Values that rows had which are put back.
    moved: BTreeMap<Place, HashSet<Vec<u8>>>,
    /// Tables whose rows are followed.
    children: BTreeSet<TableIndex>,
    bytes: usize,
    bytes_max: usize,
}

impl Leaving {
    pub(super) fn new(context: Context<'_>, schema: &StoreSchema) -> Self {
        let (mut gone, mut children) = (BTreeMap::new(), BTreeSet::new());
        for (child, table) in schema.iter() {
            for way in table.tenancy.references() {
                if !is_guarded(schema, child, way) {
                    gone.insert((way.parent, way.parent_columns.clone()), HashMap::new());
                    children.insert(child);
                }
            }
        }
        Self {
            schema: schema.clone(),
            gone,
            moved: BTreeMap::new(),
            children,
            bytes: 0,
            bytes_max: context.resources.memory_bytes_max() / MEMORY_PART,
        }
    }

    /// Whether the row's way to its tenant leads over a row that is gone.
    pub(super) fn leads(&self, table: TableIndex, row: RowRef<'_>) -> bool {
        self.bytes > 0 && self.count(table, row) > 0
    }

    /// Whether the row's way to its tenant leads over a row that is put back and has another value
    /// then.
    pub(super) fn leads_to_moved(&self, table: TableIndex, row: RowRef<'_>) -> bool {
        let way = || self.way(table, row);
        !self.moved.is_empty()
            && way().is_some_and(|(place, value)| {
                let moved = self.moved.get(&place);
                moved.is_some_and(|moved| moved.contains(&value))
            })
    }

    /// Whether the row, that leads over one which is written, is nobody's until then. Asked once all
    /// rows of the other table were noted; `is_created`: whether that one is to be created.
    pub(super) fn returns(&self, table: TableIndex, row: RowRef<'_>, is_created: bool) -> bool {
        let Some(((parent, columns), _)) = self.way(table, row) else {
            return is_created;
        };
        if columns == self.schema.table(parent).key {
            return is_created;
        }
        self.count(table, row) < 0
    }

    /// Whether rows of others refer to this table by anything but its key.
    pub(super) fn has_other_values(&self, table: TableIndex) -> bool {
        let key = &self.schema.table(table).key;
        let mut places = self.gone.keys();
        places.any(|(parent, columns)| *parent == table && columns != key)
    }

    fn count(&self, table: TableIndex, row: RowRef<'_>) -> i64 {
        let count = self.way(table, row).and_then(|(place, value)| {
            let gone = self.gone.get(&place)?;
            gone.get(&value).copied()
        });
        count.unwrap_or(0)
    }

    /// What the row refers to on its way.
    fn way(&self, table: TableIndex, row: RowRef<'_>) -> Option<(Place, Vec<u8>)> {
        if !self.children.contains(&table) {
            return None;
        }
        let values: Vec<Option<&[u8]>> = row.values().collect();
        let found = |way: &Reference| {
            let value = tuple(&values, &way.columns)?;
            Some(((way.parent, way.parent_columns.clone()), value))
        };
        match &self.schema.table(table).tenancy {
            Tenancy::Via { reference } => found(reference),
            Tenancy::OneOf { routes } => routes.iter().find_map(|route| {
                let condition = route.condition.as_ref();
                let holds = condition.is_none_or(|condition| {
                    values.get(condition.column.get()).copied().flatten()
                        == Some(condition.value.as_bytes())
                });
                holds.then(|| found(&route.reference)).flatten()
            }),
            _ => None,
        }
    }

    /// Notes that a row is no longer there, or no longer somebody's.
    ///
    /// # Errors
    /// `Refused` if there is no room for more.
    pub(super) fn goes(&mut self, table: TableIndex, row: RowRef<'_>) -> Result<(), Error> {
        self.note(table, row, None, 1)
    }

    /// Notes that a row is there that was not, or was nobody's.
    ///
    /// # Errors
    /// As [`goes`](Self::goes).
    pub(super) fn comes(&mut self, table: TableIndex, row: RowRef<'_>) -> Result<(), Error> {
        // No row goes and another comes that have the same key.
        let key = self.schema.table(table).key.clone();
        self.note(table, row, Some(&key), -1)
    }

    /// Notes that a row that was gone is there after all, as this.
    ///
    /// # Errors
    /// As [`goes`](Self::goes).
    pub(super) fn stays(&mut self, table: TableIndex, row: RowRef<'_>) -> Result<(), Error> {
        self.note(table, row, None, -1)
    }

    /// Notes that a row becomes another in its place, and stays somebody's.
    ///
    /// # Errors
    /// As [`goes`](Self::goes).
    pub(super) fn changes(
        &mut self,
        table: TableIndex,
        before: RowRef<'_>,
        after: RowRef<'_>,
    ) -> Result<(), Error> {
        if !self.moves(table, before, after) {
            return Ok(());
        }
        for place in self.gone.keys().filter(|(parent, _)| *parent == table) {
            let value = |row: RowRef<'_>| tuple(&row.values().collect::<Vec<_>>(), &place.1);
            let was = value(before).filter(|was| value(after).as_ref() != Some(was));
            self.moved.entry(place.clone()).or_default().extend(was);
        }
        self.note(table, before, None, 1)?;
        self.note(table, after, None, -1)
    }

    /// Whether rows that refer to one of these do not refer to the other.
    pub(super) fn moves(&self, table: TableIndex, before: RowRef<'_>, after: RowRef<'_>) -> bool {
        let mut columns = self.gone.keys().filter(|(parent, _)| *parent == table);
        columns.any(|(_, columns)| {
            let value = |row: RowRef<'_>| tuple(&row.values().collect::<Vec<_>>(), columns);
            value(before) != value(after)
        })
    }

    fn note(
        &mut self,
        table: TableIndex,
        row: RowRef<'_>,
        except: Option<&[ColumnIndex]>,
        count: i64,
    ) -> Result<(), Error> {
        for ((parent, columns), gone) in &mut self.gone {
            if *parent != table || except == Some(columns.as_slice()) {
                continue;
            }
            let values: Vec<Option<&[u8]>> = row.values().collect();
            // A row with NULL there is nobody's parent.
            if let Some(value) = tuple(&values, columns) {
                self.bytes += value.len() + ENTRY_BYTES;
                *gone.entry(value).or_insert(0) += count;
            }
        }
        if self.bytes <= self.bytes_max {
            return Ok(());
        }
        let message = format!(
            "more rows of {} go than fit in memory, and others may belong to them without a \
             foreign key: give more --memory",
            self.schema.table(table).name
        );
        Err(Error::new(ErrorKind::Refused, message))
    }
}

/// Whether foreign keys keep rows of a table from losing what they belong to this way.
fn is_guarded(schema: &StoreSchema, child: TableIndex, way: &Reference) -> bool {
    let parent = &schema.table(way.parent).tenancy;
    schema.table(child).references.contains(way)
        && parent
            .references()
            .all(|next| is_guarded(schema, way.parent, next))
}

/// The values of some columns, in one; none if one of them is NULL.
fn tuple(values: &[Option<&[u8]>], columns: &[ColumnIndex]) -> Option<Vec<u8>> {
    let mut found = Vec::new();
    for column in columns {
        let value = values.get(column.get()).copied().flatten()?;
        found.extend_from_slice(&(value.len() as u64).to_le_bytes());
        found.extend_from_slice(value);
    }
    Some(found)
}
