//! All that a memory store holds, as one value.

use std::collections::BTreeMap;

use reinstate_core::{
    Committed, ErrorKind, JobId, JournalEntry, KeyForm, KeyPart, KeyWriter, Owner, Position, Route,
    RouteCondition, RowBatch, RowRef, SequenceValue, StoreError, StoreSchema, TableIndex, Tenancy,
    TenantId, Timestamp, read_varint,
};

use crate::memory::{KeySpace, MemoryOptions};

/// Where a row lies in its table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// The owner, where tenants have keys of their own; else nothing.
    pub(crate) scope: Vec<u8>,
    /// The encoded key; of a table without one, the encoded columns.
    pub(crate) key: Vec<u8>,
}

/// What lies there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The owner as the store keeps it beside the row; only in native tables.
    pub(crate) owner: Vec<u8>,
    pub(crate) columns: Vec<u8>,
    /// How often the row is there; more than once only without a key.
    pub(crate) count: u64,
    /// The commit that wrote it last.
    pub(crate) commit: u64,
}

/// One thing a transaction does to one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Create,
    PutBack,
    Delete,
}

/// A whole store.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) schema: StoreSchema,
    pub(crate) tables: Vec<BTreeMap<Place, Stored>>,
    pub(crate) commit: u64,
    pub(crate) versions: BTreeMap<TenantId, u64>,
    pub(crate) journal: BTreeMap<(JobId, TenantId), JournalEntry>,
    /// What the commits of merges left.
    pub(crate) commits: BTreeMap<(JobId, TenantId), Committed>,
    pub(crate) sequences: Vec<SequenceValue>,
    pub(crate) is_prepared: bool,
    key_space: KeySpace,
}

impl State {
    pub(crate) fn new(schema: StoreSchema, options: &MemoryOptions) -> Self {
        let counted =
            |index: &TableIndex| options.has_counters && counter(&schema, *index).is_some();
        let sequences = schema
            .iter()
            .map(|(index, _)| index)
            .filter(counted)
            .filter_map(|index| counter(&schema, index))
            .map(|name| SequenceValue {
                name,
                last_value: 0,
            })
            .collect();
        Self {
            tables: vec![BTreeMap::new(); schema.tables().len()],
            schema,
            commit: 1,
            versions: BTreeMap::new(),
            journal: BTreeMap::new(),
            commits: BTreeMap::new(),
            sequences,
            is_prepared: false,
            key_space: options.key_space,
        }
    }

    pub(crate) fn position(&self) -> Position {
        Position {
            commit: self.commit,
            ordinal: 0,
        }
    }

    /// A clock that ticks once a commit.
    pub(crate) fn taken_at(&self) -> Timestamp {
        Timestamp::from_micros(self.commit.cast_signed().saturating_mul(1_000_000))
    }

    /// Where a row of this owner lies.
    pub(crate) fn place(&self, table: TableIndex, owner: &[u8], row: RowRef<'_>) -> Place {
        let schema = self.schema.table(table);
        let scoped = matches!(schema.tenancy, Tenancy::Native)
            && (self.key_space == KeySpace::PerTenant || !schema.has_key());
        Place {
            scope: if scoped { owner.to_vec() } else { Vec::new() },
            key: if schema.has_key() {
                row.key().to_vec()
            } else {
                row.columns().to_vec()
            },
        }
    }

    /// Who owns what lies at a place. A row whose path to its tenant is broken is shared.
    pub(crate) fn owner(&self, table: TableIndex, stored: &Stored) -> Owner {
        match &self.schema.table(table).tenancy {
            Tenancy::Native => Owner::from_bytes(&stored.owner).unwrap_or(Owner::Shared),
            _ => self.owner_of_columns(table, &stored.columns),
        }
    }

    /// Whose row it would be, by its columns; for tables where those decide.
    pub(crate) fn owner_of_columns(&self, table: TableIndex, columns: &[u8]) -> Owner {
        match &self.schema.table(table).tenancy {
            Tenancy::Direct { column } => {
                let value = nth_value(columns, column.get()).unwrap_or_default();
                Owner::from_bytes(value).unwrap_or(Owner::Shared)
            }
            Tenancy::Via { .. } | Tenancy::OneOf { .. } => match self.parent(table, columns) {
                Some((parent, stored)) => self.owner(parent, stored),
                None => Owner::Shared,
            },
            Tenancy::Native | Tenancy::Shared | Tenancy::Excluded => Owner::Shared,
        }
    }

    /// The row that the path to the tenant names; for tables that have one.
    fn parent(&self, table: TableIndex, columns: &[u8]) -> Option<(TableIndex, &Stored)> {
        let reference = match &self.schema.table(table).tenancy {
            Tenancy::Via { reference } => reference,
            Tenancy::OneOf { routes } => {
                let open = routes.iter().find(|route| is_open(route, columns));
                &open?.reference
            }
            _ => return None,
        };
        let parent = self.schema.table(reference.parent);
        let mut key = KeyWriter::new();
        for key_column in &parent.key {
            let side = reference
                .parent_columns
                .iter()
                .position(|c| c == key_column)?;
            let value = nth_value(columns, reference.columns[side].get())?;
            key.push(parent.columns[key_column.get()].key_form, value);
        }
        let place = Place {
            scope: Vec::new(),
            key: key.as_bytes().to_vec(),
        };
        Some((
            reference.parent,
            self.tables[reference.parent.get()].get(&place)?,
        ))
    }

    /// Makes one change to one row of this owner. Returns whether there was anything to change.
    ///
    /// # Errors
    /// `Conflict` if a row is created whose key is taken.
    pub(crate) fn change(
        &mut self,
        table: TableIndex,
        owner: &[u8],
        effect: Effect,
        row: RowRef<'_>,
    ) -> Result<bool, StoreError> {
        let place = self.place(table, owner, row);
        let has_key = self.schema.table(table).has_key();
        let commit = self.commit;
        let present = self.tables[table.get()].get(&place);
        let own = present.is_some_and(|stored| self.owner(table, stored).as_bytes() == owner);
        if effect == Effect::Create && present.is_some() && has_key {
            let name = &self.schema.table(table).name;
            let message = format!("insert into {name}: the key is taken");
            return Err(StoreError::new(ErrorKind::Conflict, message));
        }
        if effect == Effect::Create && present.is_none() {
            self.raise_counter(table, row);
        }
        let rows = &mut self.tables[table.get()];
        match (effect, rows.get_mut(&place)) {
            (Effect::Create, Some(stored)) => {
                stored.count += 1;
                stored.commit = commit;
            }
            (Effect::Create, None) => {
                let stored = Stored {
                    owner: owner.to_vec(),
                    columns: row.columns().to_vec(),
                    count: 1,
                    commit,
                };
                rows.insert(place, stored);
            }
            (Effect::PutBack, Some(stored)) if own => {
                stored.columns = row.columns().to_vec();
                stored.commit = commit;
            }
            (Effect::Delete, Some(stored)) if own => {
                stored.count -= 1;
                if stored.count == 0 {
                    rows.remove(&place);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The tenant's rows in a table, sorted; duplicates as often as they are there.
    pub(crate) fn rows_of(&self, tenant: &TenantId, table: TableIndex) -> RowBatch {
        let mut rows: Vec<(&[u8], &[u8], u64)> = Vec::new();
        for (place, stored) in &self.tables[table.get()] {
            if self.owner(table, stored).as_bytes() == tenant.as_bytes() {
                rows.push((self.key(table, place), &stored.columns, stored.count));
            }
        }
        rows.sort_unstable();
        let mut batch = RowBatch::new();
        for (key, columns, count) in rows {
            for _ in 0..count {
                batch.push_parts(key, columns);
            }
        }
        batch
    }

    /// The row's encoded key; empty in a table without one.
    pub(crate) fn key<'p>(&self, table: TableIndex, place: &'p Place) -> &'p [u8] {
        if self.schema.table(table).has_key() {
            &place.key
        } else {
            &[]
        }
    }

    /// Whether every row finds the parent that says whose it is.
    ///
    /// # Errors
    /// `Conflict` naming the first table where one does not.
    pub(crate) fn check_paths(&self) -> Result<(), StoreError> {
        for (index, table) in self.schema.iter() {
            if !matches!(table.tenancy, Tenancy::Via { .. }) {
                continue;
            }
            let mut rows = self.tables[index.get()].values();
            if rows.any(|stored| self.parent(index, &stored.columns).is_none()) {
                let message = format!("write {}: a row would lose its parent", table.name);
                return Err(StoreError::new(ErrorKind::Conflict, message));
            }
        }
        Ok(())
    }

    /// Remembers that this transaction changed something of this owner.
    pub(crate) fn touch(&mut self, owner: &Owner) {
        if let Owner::Tenant(tenant) = owner {
            self.versions.insert(tenant.clone(), self.commit);
        }
    }

    /// How many rows of anybody but `tenant` the commit at `commit` wrote.
    pub(crate) fn foreign_rows(&self, tenant: &TenantId, commit: u64) -> u64 {
        let mut found = 0;
        for (index, _) in self.schema.iter() {
            for stored in self.tables[index.get()].values() {
                let own = self.owner(index, stored).as_bytes() == tenant.as_bytes();
                if stored.commit == commit && !own {
                    found += stored.count;
                }
            }
        }
        found
    }

    fn raise_counter(&mut self, table: TableIndex, row: RowRef<'_>) {
        let Some(name) = counter(&self.schema, table) else {
            return;
        };
        let Some(parts) = KeyPart::parse_all(row.key()) else {
            return;
        };
        let sequence = self
            .sequences
            .iter_mut()
            .find(|sequence| sequence.name == name);
        if let (Some(sequence), [KeyPart::Integer(value)]) = (sequence, parts.as_slice()) {
            sequence.last_value = sequence.last_value.max(*value);
        }
    }
}

/// The counter of a table whose key is one integer column.
fn counter(schema: &StoreSchema, table: TableIndex) -> Option<String> {
    let table = schema.table(table);
    let [key] = table.key.as_slice() else {
        return None;
    };
    let column = &table.columns[key.get()];
    (column.key_form == KeyForm::Integer).then(|| format!("{}_{}_seq", table.name, column.name))
}

/// One value of an encoded row. `None` for NULL.
fn nth_value(mut columns: &[u8], place: usize) -> Option<&[u8]> {
    for _ in 0..place {
        columns = split_value(columns)?.1;
    }
    split_value(columns)?.0
}

fn split_value(columns: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (marker, taken) = read_varint(columns)?;
    let rest = &columns[taken..];
    let Some(length) = marker.checked_sub(1) else {
        return Some((None, rest));
    };
    let (value, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((Some(value), rest))
}

/// Whether a row may go this way towards its tenant.
fn is_open(route: &Route, columns: &[u8]) -> bool {
    let holds = |condition: &RouteCondition| {
        let value = nth_value(columns, condition.column.get());
        value == Some(condition.value.as_bytes())
    };
    let mut named = route.reference.columns.iter();
    route.condition.as_ref().is_none_or(holds)
        && named.all(|column| nth_value(columns, column.get()).is_some())
}
