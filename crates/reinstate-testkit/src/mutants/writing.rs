//! What mutants do when they write.

use std::collections::BTreeMap;
use std::sync::Arc;

use reinstate_core::{
    ChangeCounts, ChangeSource, Committed, Digest, JobId, JournalEntry, LiveStore, RowBatch,
    RowRole, RowStream, StoreError, TableIndex, TableName, TenantId, TenantWriter,
};

use crate::memory::{Effect, State};
use crate::mutants::reading::{PlainRows, single, without_null};
use crate::mutants::{MutantStore, Mutation};

pub(super) struct MutantWriter<'a> {
    store: &'a MutantStore,
    tenant: TenantId,
    inner: Option<Box<dyn TenantWriter + 'a>>,
    opened: Arc<State>,
    applied: Rows,
    /// Rows that only a mutant would write.
    smuggled: Vec<(TableIndex, RowBatch)>,
}

/// A plan's rows, copied, one batch a row.
#[derive(Clone, Default)]
struct Rows {
    tables: Vec<TableIndex>,
    rows: BTreeMap<(TableIndex, u8), Vec<RowBatch>>,
    /// Whether streams end after their first batch.
    first_batch_only: bool,
}

/// How many rows a batch of [`Rows`] holds.
const BATCH_ROWS: usize = 100;

impl Rows {
    fn read(source: &dyn ChangeSource) -> Result<Self, StoreError> {
        let mut rows = Self {
            tables: source.tables().to_vec(),
            ..Self::default()
        };
        for &table in source.tables() {
            for role in RowRole::ALL {
                let mut batch = RowBatch::new();
                let mut read = Vec::new();
                let mut stream = source.rows(table, role)?;
                while stream.next_batch(&mut batch)? {
                    read.extend(batch.iter().map(single));
                }
                rows.rows.insert((table, role as u8), read);
            }
        }
        Ok(rows)
    }

    fn of(&mut self, table: TableIndex, role: RowRole) -> &mut Vec<RowBatch> {
        self.rows.entry((table, role as u8)).or_default()
    }

    fn count(&self, table: TableIndex, role: RowRole) -> u64 {
        self.rows
            .get(&(table, role as u8))
            .map_or(0, |rows| rows.len() as u64)
    }
}

impl ChangeSource for Rows {
    fn tables(&self) -> &[TableIndex] {
        &self.tables
    }

    fn counts(&self, table: TableIndex) -> ChangeCounts {
        ChangeCounts {
            created: self.count(table, RowRole::Created),
            put_back: self.count(table, RowRole::PutBackAfter),
            deleted: self.count(table, RowRole::Deleted),
        }
    }

    fn rows(
        &self,
        table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let rows = self
            .rows
            .get(&(table, role as u8))
            .map_or(&[][..], Vec::as_slice);
        let length = if self.first_batch_only {
            rows.len().min(BATCH_ROWS)
        } else {
            rows.len()
        };
        Ok(Box::new(Batches(&rows[..length])))
    }
}

struct Batches<'a>(&'a [RowBatch]);

impl RowStream for Batches<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        let (now, later) = self.0.split_at(self.0.len().min(BATCH_ROWS));
        self.0 = later;
        now.iter()
            .flat_map(RowBatch::iter)
            .for_each(|row| batch.push_row(row));
        Ok(!batch.is_empty())
    }
}

impl<'a> MutantWriter<'a> {
    pub(super) fn new(
        store: &'a MutantStore,
        tenant: &TenantId,
        inner: Box<dyn TenantWriter + 'a>,
    ) -> Self {
        Self {
            store,
            tenant: tenant.clone(),
            inner: Some(inner),
            opened: store.inner.state(),
            applied: Rows::default(),
            smuggled: Vec::new(),
        }
    }

    fn inner(&mut self) -> &mut (dyn TenantWriter + 'a) {
        let inner = self.inner.as_deref_mut();
        inner.expect("BUG: used after the commit")
    }

    /// Does to a plan what this mutant does to plans.
    fn mutate(&mut self, mut rows: Rows) -> Rows {
        let mutation = self.store.mutation;
        rows.first_batch_only = mutation == Mutation::MergeWritesTheFirstBatchOnly;
        for table in rows.tables.clone() {
            match mutation {
                Mutation::MergeLosesADuplicate => {
                    rows.of(table, RowRole::Created).dedup();
                    rows.of(table, RowRole::Deleted).dedup();
                }
                Mutation::MergeWritesNullAsEmpty => {
                    for row in rows.of(table, RowRole::Created) {
                        *row = without_null(row);
                    }
                }
                Mutation::MergeTakesKeys => self.take_keys(&mut rows, table),
                Mutation::MergeAcceptsForeignRows => self.smuggle(&mut rows, table),
                _ => {}
            }
        }
        rows
    }

    /// Turns rows to create under a taken key into rows to put back.
    fn take_keys(&self, rows: &mut Rows, table: TableIndex) {
        let state = self.store.inner.state();
        let owner = self.tenant.as_bytes();
        let is_taken = |batch: &RowBatch| {
            batch.iter().any(|row| {
                let place = state.place(table, owner, row);
                !row.key().is_empty() && state.tables[table.get()].contains_key(&place)
            })
        };
        let created = std::mem::take(rows.of(table, RowRole::Created));
        let (taken, free): (Vec<_>, Vec<_>) = created.into_iter().partition(is_taken);
        *rows.of(table, RowRole::Created) = free;
        rows.of(table, RowRole::PutBackAfter).extend(taken);
    }

    /// Keeps rows of others from the checks of the store inside, to write them all the same.
    fn smuggle(&mut self, rows: &mut Rows, table: TableIndex) {
        let state = self.store.inner.state();
        let own = |batch: &RowBatch| {
            batch.iter().all(|row| {
                let owner = state.owner_of_columns(table, row.columns());
                owner.as_bytes() == self.tenant.as_bytes() || owner.as_bytes().is_empty()
            })
        };
        for role in [RowRole::Created, RowRole::PutBackAfter] {
            let all = std::mem::take(rows.of(table, role));
            let (mine, foreign): (Vec<_>, Vec<_>) = all.into_iter().partition(&own);
            *rows.of(table, role) = mine;
            self.smuggled
                .extend(foreign.into_iter().map(|row| (table, row)));
        }
    }

    /// Opens the transaction anew, makes the changes and commits them.
    fn commit_anew(&mut self, rows: &Rows, entry: &JournalEntry) -> Result<Committed, StoreError> {
        self.inner = None;
        let store = &self.store.inner;
        let view = store.read_view()?;
        let fingerprint = view.fingerprint(&self.tenant)?;
        let mut writer = store.begin_merge(&self.tenant, &fingerprint, view.schema())?;
        writer.apply(rows)?;
        writer.commit(entry)
    }

    /// Changes the committed state behind the store's back.
    fn after_commit(&self, state: &mut State, entry: &JournalEntry) {
        match self.store.mutation {
            Mutation::CommitForgetsTheJournal => {
                state.journal.remove(&(entry.job, self.tenant.clone()));
            }
            Mutation::FingerprintIgnoresMerges => {
                match self.opened.versions.get(&self.tenant) {
                    Some(version) => state.versions.insert(self.tenant.clone(), *version),
                    None => state.versions.remove(&self.tenant),
                };
            }
            Mutation::CountersAreForgotten => state.sequences.clone_from(&self.opened.sequences),
            Mutation::CountersAreLowered => self.lower_counters(state),
            Mutation::MergeCascadesIntoNeighbours => self.hit_a_neighbour(state, true),
            Mutation::MergeRewritesANeighbour => self.hit_a_neighbour(state, false),
            Mutation::MergeDeletesByPrefix => self.delete_by_prefix(state),
            Mutation::MergeAcceptsForeignRows => {
                for (table, rows) in &self.smuggled {
                    for row in rows.iter() {
                        let owner = state.owner_of_columns(*table, row.columns());
                        let _ = state.change(*table, owner.as_bytes(), Effect::Create, row);
                    }
                }
            }
            _ => {}
        }
    }

    fn lower_counters(&self, state: &mut State) {
        let Some((projects, _)) = state.schema.find("projects") else {
            return;
        };
        let created = self.applied.rows.get(&(projects, RowRole::Created as u8));
        let rows = created.into_iter().flatten().flat_map(RowBatch::iter);
        let ids = rows.filter_map(|row| row.values().next().flatten());
        let ids = ids.filter_map(|id| std::str::from_utf8(id).ok()?.parse().ok());
        let sequence = state
            .sequences
            .iter_mut()
            .find(|value| value.name.starts_with("projects"));
        if let (Some(last), Some(sequence)) = (ids.max(), sequence) {
            sequence.last_value = last;
        }
    }

    /// Deletes a foreign row, or writes it again.
    fn hit_a_neighbour(&self, state: &mut State, is_deleted: bool) {
        let Some((comments, _)) = state.schema.find("comments") else {
            return;
        };
        let is_foreign =
            |stored| state.owner(comments, stored).as_bytes() != self.tenant.as_bytes();
        let rows = &state.tables[comments.get()];
        let found = rows.iter().find(|(_, stored)| is_foreign(stored));
        let Some(place) = found.map(|(place, _)| place.clone()) else {
            return;
        };
        if is_deleted {
            state.tables[comments.get()].remove(&place);
        } else if let Some(stored) = state.tables[comments.get()].get_mut(&place) {
            stored.commit = state.commit;
        }
    }

    fn delete_by_prefix(&self, state: &mut State) {
        let Some((settings, _)) = state.schema.find("settings") else {
            return;
        };
        let deleted = self.applied.rows.get(&(settings, RowRole::Deleted as u8));
        if deleted.is_none_or(Vec::is_empty) {
            return;
        }
        let prefix = self.tenant.as_bytes();
        let mut rows = std::mem::take(&mut state.tables[settings.get()]);
        rows.retain(|_, stored| {
            let owner = state.owner(settings, stored);
            owner.as_bytes() == prefix || !owner.as_bytes().starts_with(prefix)
        });
        state.tables[settings.get()] = rows;
    }
}

impl TenantWriter for MutantWriter<'_> {
    fn apply(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, ChangeCounts)>, StoreError> {
        let asked = Rows::read(changes)?;
        let rows = self.mutate(asked.clone());
        let counted = self.inner().apply(&rows)?;
        self.applied = rows;
        let lies = [Mutation::MergeCountsWhatWasAsked, Mutation::MergeTakesKeys];
        if lies.contains(&self.store.mutation) {
            let name = |table: TableIndex| self.opened.schema.table(table).name.clone();
            let tables = asked.tables.iter();
            return Ok(tables
                .map(|&table| (name(table), asked.counts(table)))
                .collect());
        }
        Ok(counted)
    }

    fn read_back(&mut self, table: TableIndex) -> Result<Box<dyn RowStream + '_>, StoreError> {
        if self.store.mutation == Mutation::ReadBackShowsTheOutside {
            let view = self.store.inner.read_view()?;
            let rows = PlainRows::read(view.tenant_rows(&self.tenant, table)?.as_mut())?;
            return Ok(Box::new(rows));
        }
        self.inner().read_back(table)
    }

    fn commit(mut self: Box<Self>, entry: &JournalEntry) -> Result<Committed, StoreError> {
        let mut rows = self.applied.clone();
        let committed = match self.store.mutation {
            Mutation::CommitLeavesTheLastChangeOut => {
                let last = rows.rows.values_mut().rev().find(|rows| !rows.is_empty());
                last.map(Vec::pop);
                self.commit_anew(&rows, entry)?
            }
            mutation => {
                if mutation == Mutation::CommitLosesConcurrentWrites {
                    *self.store.inner.lock() = Arc::clone(&self.opened);
                }
                let inner = self.inner.take();
                inner.expect("BUG: committed twice").commit(entry)?
            }
        };
        let mut shared = self.store.inner.lock();
        self.after_commit(Arc::make_mut(&mut shared), entry);
        drop(shared);
        self.inner = None;
        self.applied = Rows::default();
        Ok(committed)
    }
}

impl Drop for MutantWriter<'_> {
    fn drop(&mut self) {
        let is_open = self.inner.take().is_some();
        if is_open && self.store.mutation == Mutation::DropCommits {
            let entry = JournalEntry {
                job: JobId::from_bytes([0xdd; 16]),
                tenant: self.tenant.clone(),
                plan: Digest::from_bytes([0; 32]),
                payload: Vec::new(),
            };
            let rows = std::mem::take(&mut self.applied);
            let _ = self.commit_anew(&rows, &entry);
        }
    }
}
