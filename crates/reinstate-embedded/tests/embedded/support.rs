//! A small store, a model of what is in it, and plans from one state of a tenant to another.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use reinstate_core::{
    CaptureView, ChangeCounts, ChangeSource, ColumnIndex, ColumnSchema, Committed, Digest,
    Fingerprint, JobId, JournalEntry, KeyForm, LiveStore, OwnedRowBatch, Owner, RowBatch,
    RowBuilder, RowRef, RowRole, RowStream, SnapshotSource, StoreError, StoreId, StoreIdentity,
    StoreSchema, TableIndex, TableName, TableSchema, Tenancy, TenantId, TenantKind,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};

/// Rows with a key.
pub(crate) const ISSUES: TableIndex = TableIndex(0);
/// Rows without one.
pub(crate) const EVENTS: TableIndex = TableIndex(1);
/// Rows of everybody.
pub(crate) const LABELS: TableIndex = TableIndex(2);

/// Key and columns of each row of a table, with the number of its copies.
pub(crate) type Rows = BTreeMap<(Vec<u8>, Vec<u8>), u64>;
/// What one owner has in each table.
pub(crate) type State = BTreeMap<TableIndex, Rows>;
/// What every owner has.
pub(crate) type World = BTreeMap<Vec<u8>, State>;

pub(crate) fn schema() -> StoreSchema {
    let column = |name: &str, nullable, key_form| ColumnSchema {
        name: name.to_owned(),
        type_name: "text".to_owned(),
        nullable,
        key_form,
    };
    let table = |name: &str, key: Vec<ColumnIndex>, tenancy| TableSchema {
        name: TableName::new(name),
        columns: vec![
            column("id", false, KeyForm::Integer),
            column("text", true, KeyForm::Bytes),
        ],
        key,
        tenancy,
        references: Vec::new(),
    };
    StoreSchema::try_new(vec![
        table("issues", vec![ColumnIndex(0)], Tenancy::Native),
        table("events", Vec::new(), Tenancy::Native),
        table("labels", vec![ColumnIndex(0)], Tenancy::Shared),
        table("sessions", vec![ColumnIndex(0)], Tenancy::Excluded),
    ])
    .unwrap()
}

pub(crate) fn identity() -> StoreIdentity {
    StoreIdentity {
        id: StoreId::from_bytes([5; 16]),
        name: "tested".to_owned(),
    }
}

pub(crate) fn kind() -> TenantKind {
    TenantKind::parse("site").unwrap()
}

/// How a store merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    InPlace,
    Aside,
}

impl Way {
    pub(crate) fn options(self) -> EmbeddedOptions {
        let mut options = EmbeddedOptions::default();
        options.cache_bytes = 4 * 1024 * 1024;
        options.in_place_rows_max = match self {
            Self::InPlace => u64::MAX,
            Self::Aside => 0,
        };
        options
    }
}

pub(crate) fn create(path: &Path, way: Way) -> EmbeddedStore {
    EmbeddedStore::create(path, &way.options(), identity(), kind(), schema()).unwrap()
}

pub(crate) fn tenant(id: &[u8]) -> TenantId {
    TenantId::try_new(id).unwrap()
}

pub(crate) fn owner(id: &[u8]) -> Owner {
    Owner::Tenant(tenant(id))
}

/// Encodes a row of a table.
pub(crate) fn row(table: TableIndex, id: u64, text: Option<&str>) -> RowBuilder {
    let mut builder = RowBuilder::new();
    let id = id.to_string();
    let values = [Some(id.as_bytes()), text.map(str::as_bytes)];
    let schema = schema();
    schema
        .table(table)
        .encode_row(&values, &mut builder)
        .unwrap();
    builder
}

/// As a store that has a row once more, or instead of the one with its key.
pub(crate) fn put(state: &mut State, table: TableIndex, row: RowRef<'_>) {
    let rows = state.entry(table).or_default();
    let place = (row.key().to_vec(), row.columns().to_vec());
    if row.key().is_empty() {
        *rows.entry(place).or_default() += 1;
    } else {
        rows.retain(|(key, _), _| key != row.key());
        rows.insert(place, 1);
    }
}

/// As a store that deletes the row with this key, or one that equals it; whether there was one.
pub(crate) fn delete(state: &mut State, table: TableIndex, row: RowRef<'_>) -> bool {
    let rows = state.entry(table).or_default();
    if row.key().is_empty() {
        let place = (Vec::new(), row.columns().to_vec());
        let Some(copies) = rows.get_mut(&place) else {
            return false;
        };
        *copies -= 1;
        if *copies == 0 {
            rows.remove(&place);
        }
        return true;
    }
    let before = rows.len();
    rows.retain(|(key, _), _| key != row.key());
    rows.len() < before
}

/// Many rows of about 100 bytes, told apart by `seed`; every seed leaves other rows out.
pub(crate) fn many(row_count: u64, seed: u64) -> State {
    let mut state = State::new();
    let mut rows = Rows::new();
    let mut events = Rows::new();
    for id in (0..row_count).filter(|id| !(id + seed).is_multiple_of(7)) {
        let text = format!("{seed} {id} {}", "word ".repeat(18));
        let issue = row(ISSUES, id, Some(&text));
        let issue = issue.row();
        rows.insert((issue.key().to_vec(), issue.columns().to_vec()), 1);
        let event = row(EVENTS, id / 3 + seed, Some("moved"));
        *events
            .entry((Vec::new(), event.row().columns().to_vec()))
            .or_default() += 1;
    }
    state.insert(ISSUES, rows);
    state.insert(EVENTS, events);
    state
}

/// What one owner has, read as an application reads.
pub(crate) fn read(store: &EmbeddedStore, owner: &Owner) -> State {
    let transaction = store.read().unwrap();
    let mut state = State::new();
    for table in [ISSUES, EVENTS, LABELS] {
        let mut rows = Rows::new();
        let mut last = None;
        transaction
            .rows(owner, table, |batch| {
                for row in batch.iter() {
                    let place = (row.key().to_vec(), row.columns().to_vec());
                    assert!(last.as_ref() <= Some(&place), "rows come in their order");
                    *rows.entry(place.clone()).or_default() += 1;
                    last = Some(place);
                }
                Ok(())
            })
            .unwrap();
        state.insert(table, rows);
    }
    without_nothing(state)
}

/// What every owner has, read as a capture reads.
pub(crate) fn capture(store: &EmbeddedStore) -> World {
    world_of(store.begin_capture().unwrap().as_ref())
}

/// What every owner has in a view.
pub(crate) fn world_of(view: &dyn CaptureView) -> World {
    let mut world = World::new();
    for table in [ISSUES, EVENTS, LABELS] {
        let mut rows = view.table_rows(table).unwrap();
        let mut batch = OwnedRowBatch::new();
        while rows.next_batch(&mut batch).unwrap() {
            for (owner, row) in batch.iter() {
                let place = (row.key().to_vec(), row.columns().to_vec());
                let state = world.entry(owner.to_vec()).or_default();
                *state.entry(table).or_default().entry(place).or_default() += 1;
            }
        }
    }
    world
}

/// The same state; tables without rows are not mentioned.
pub(crate) fn without_nothing(mut state: State) -> State {
    state.retain(|_, rows| !rows.is_empty());
    state
}

pub(crate) fn fingerprint(store: &EmbeddedStore, tenant: &TenantId) -> Fingerprint {
    store.read_view().unwrap().fingerprint(tenant).unwrap()
}

pub(crate) fn entry(tenant: &TenantId, job: u8) -> JournalEntry {
    JournalEntry {
        job: JobId::from_bytes([job; 16]),
        tenant: tenant.clone(),
        plan: Digest::from_bytes([job; 32]),
        payload: vec![job; 3],
    }
}

/// Merges `after` into a tenant that is as `before`. Everything that a merge promises about its
/// counts and what can be read back is checked before the commit.
pub(crate) fn merge(
    store: &EmbeddedStore,
    tenant: &TenantId,
    before: &State,
    after: &State,
    job: u8,
) -> Result<Committed, StoreError> {
    let plan = Plan::new(before, after);
    let fingerprint = fingerprint(store, tenant);
    let mut writer = store.begin_merge(tenant, &fingerprint, store.schema())?;
    let counted = writer.apply(&plan)?;
    let schema = schema();
    let planned: BTreeMap<_, _> = plan
        .tables
        .iter()
        .map(|&table| (schema.table(table).name.clone(), plan.counts(table)))
        .collect();
    assert_eq!(counted.into_iter().collect::<BTreeMap<_, _>>(), planned);
    for table in [ISSUES, EVENTS] {
        let mut rows = Rows::new();
        let mut stream = writer.read_back(table)?;
        let mut batch = RowBatch::new();
        while stream.next_batch(&mut batch)? {
            for row in batch.iter() {
                let place = (row.key().to_vec(), row.columns().to_vec());
                *rows.entry(place).or_default() += 1;
            }
        }
        let expected = after.get(&table).cloned().unwrap_or_default();
        assert!(rows == expected, "rows read back before the commit");
    }
    writer.commit(&entry(tenant, job))
}

/// A plan that leads from one state to another.
pub(crate) struct Plan {
    tables: Vec<TableIndex>,
    rows: BTreeMap<(TableIndex, u8), Vec<RowBatch>>,
    counts: BTreeMap<TableIndex, ChangeCounts>,
}

impl Plan {
    pub(crate) fn new(before: &State, after: &State) -> Self {
        let mut plan = Self {
            tables: Vec::new(),
            rows: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        let nothing = Rows::new();
        for table in [ISSUES, EVENTS] {
            let before = before.get(&table).unwrap_or(&nothing);
            let after = after.get(&table).unwrap_or(&nothing);
            plan.add(table, before, after);
            if plan
                .counts
                .get(&table)
                .is_some_and(|counts| counts.total() > 0)
            {
                plan.tables.push(table);
            }
        }
        plan
    }

    fn add(&mut self, table: TableIndex, before: &Rows, after: &Rows) {
        let keys = |rows: &Rows| -> BTreeSet<Vec<u8>> {
            let keys = rows.keys().map(|(key, _)| key.clone());
            keys.filter(|key| !key.is_empty()).collect()
        };
        let (keys_before, keys_after) = (keys(before), keys(after));
        let places: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for place in places {
            let had = before.get(place).copied().unwrap_or(0);
            let gets = after.get(place).copied().unwrap_or(0);
            let (loses, wins) = (had.saturating_sub(gets), gets.saturating_sub(had));
            let stays = keys_before.contains(&place.0) && keys_after.contains(&place.0);
            let (deleted, created) = if stays {
                (RowRole::PutBackBefore, RowRole::PutBackAfter)
            } else {
                (RowRole::Deleted, RowRole::Created)
            };
            self.push(table, deleted, place, loses);
            self.push(table, created, place, wins);
        }
    }

    fn push(&mut self, table: TableIndex, role: RowRole, place: &(Vec<u8>, Vec<u8>), copies: u64) {
        if copies == 0 {
            return;
        }
        let counts = self.counts.entry(table).or_default();
        match role {
            RowRole::Created => counts.created += copies,
            RowRole::PutBackAfter => counts.put_back += copies,
            RowRole::Deleted => counts.deleted += copies,
            RowRole::PutBackBefore
            | RowRole::Image
            | RowRole::SharedCreated
            | RowRole::LastChange => {}
        }
        let batches = self.rows.entry((table, role as u8)).or_default();
        for _ in 0..copies {
            // Small batches, so that a store meets more than one.
            if batches.last().is_none_or(|batch| batch.len() >= 100) {
                batches.push(RowBatch::new());
            }
            let batch = batches.last_mut().unwrap();
            batch.push_parts(&place.0, &place.1);
        }
    }
}

impl ChangeSource for Plan {
    fn tables(&self) -> &[TableIndex] {
        &self.tables
    }

    fn counts(&self, table: TableIndex) -> ChangeCounts {
        self.counts.get(&table).copied().unwrap_or_default()
    }

    fn rows(
        &self,
        table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let batches = self.rows.get(&(table, role as u8));
        Ok(Box::new(Batches(batches.map_or(&[], Vec::as_slice))))
    }
}

struct Batches<'p>(&'p [RowBatch]);

impl RowStream for Batches<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        if let Some((first, rest)) = self.0.split_first() {
            batch.clone_from(first);
            self.0 = rest;
        }
        Ok(!batch.is_empty())
    }
}
