//! Writing one tenant of a memory store.

use std::sync::Arc;

use reinstate_core::{
    ChangeCounts, ChangeSource, Committed, ErrorKind, Fingerprint, JournalEntry, RowBatch, RowRole,
    RowStream, SequenceRaise, SequenceValue, StoreError, StoreSchema, TableIndex, TableName,
    Tenancy, TenantId, TenantWriter,
};

use crate::memory::MemoryStore;
use crate::memory::state::{Effect, State};
use crate::memory::store::{fingerprint, is_own};
use crate::memory::view::BatchedRows;

/// Rows of one table and what is to happen to them.
type Change = (TableIndex, Effect, RowBatch);

/// One open transaction: a copy of the store, and what was done to it.
#[derive(Debug)]
pub(crate) struct MemoryWriter<'a> {
    store: &'a MemoryStore,
    tenant: TenantId,
    opened: Arc<State>,
    working: State,
    changes: Vec<Change>,
}

impl<'a> MemoryWriter<'a> {
    pub(crate) fn try_begin(
        store: &'a MemoryStore,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Self, StoreError> {
        let refuse = |kind, fact| Err(StoreError::new(kind, format!("merge {tenant}: {fact}")));
        let opened = store.state();
        if !opened.is_prepared {
            return refuse(
                ErrorKind::Usage,
                "the store has no journal; prepare it first",
            );
        }
        if opened.schema != *schema {
            return refuse(
                ErrorKind::Stale,
                "the tables changed after the plan was made",
            );
        }
        if fingerprint(&opened, tenant) != *expected {
            return refuse(
                ErrorKind::Stale,
                "the tenant changed after the plan was made",
            );
        }
        if !store.locked().insert(tenant.clone()) {
            return refuse(ErrorKind::Locked, "another run holds the tenant");
        }
        let mut working = State::clone(&opened);
        working.commit += 1;
        Ok(Self {
            store,
            tenant: tenant.clone(),
            opened,
            working,
            changes: Vec::new(),
        })
    }
}

impl Drop for MemoryWriter<'_> {
    fn drop(&mut self) {
        self.store.locked().remove(&self.tenant);
    }
}

impl TenantWriter for MemoryWriter<'_> {
    fn apply(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, ChangeCounts)>, StoreError> {
        let changes = collect(changes)?;
        let counts = run_changes(&mut self.working, &self.tenant, &changes)?;
        self.changes.extend(changes);
        Ok(counts)
    }

    fn read_back(&mut self, table: TableIndex) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let rows = self.working.rows_of(&self.tenant, table);
        Ok(Box::new(BatchedRows::new(rows, &self.store.options)))
    }

    fn commit(self: Box<Self>, entry: &JournalEntry) -> Result<Committed, StoreError> {
        let mut shared = self.store.lock();
        let mut state = State::clone(&shared);
        if fingerprint(&state, &self.tenant) != fingerprint(&self.opened, &self.tenant)
            || state.schema != self.opened.schema
        {
            let message = format!(
                "merge {}: somebody wrote to the tenant meanwhile",
                self.tenant
            );
            return Err(StoreError::new(ErrorKind::Contended, message));
        }
        state.commit += 1;
        let before = state.sequences.clone();
        run_changes(&mut state, &self.tenant, &self.changes)?;
        let sequences_raised = raised(&before, &state.sequences);
        state
            .journal
            .insert((entry.job, self.tenant.clone()), entry.clone());
        let committed = Committed {
            position: state.position(),
            commit_mark: state.commit.to_be_bytes().to_vec(),
            sequences_raised,
        };
        state
            .commits
            .insert((entry.job, self.tenant.clone()), committed.clone());
        *shared = Arc::new(state);
        Ok(committed)
    }
}

/// Reads a plan's changes: first what is created and put back, parents before children, so that
/// no row loses its parent on the way; then what is deleted, children before parents.
fn collect(source: &dyn ChangeSource) -> Result<Vec<Change>, StoreError> {
    let mut changes = Vec::new();
    let tables = source.tables();
    let creates = tables
        .iter()
        .map(|&table| (table, RowRole::Created, Effect::Create));
    let updates = tables
        .iter()
        .map(|&table| (table, RowRole::PutBackAfter, Effect::PutBack));
    let deletes = tables
        .iter()
        .rev()
        .map(|&table| (table, RowRole::Deleted, Effect::Delete));
    for (table, role, effect) in creates.chain(updates).chain(deletes) {
        let mut batch = RowBatch::new();
        let mut rows = source.rows(table, role)?;
        while rows.next_batch(&mut batch)? {
            changes.push((table, effect, batch.clone()));
        }
    }
    Ok(changes)
}

/// Makes the changes on a state and says how many rows each table really changed by.
///
/// # Errors
/// `Refused` if a row would not be the tenant's own; `Conflict` if a key is taken or a path to a
/// tenant would break.
pub(crate) fn run_changes(
    state: &mut State,
    tenant: &TenantId,
    changes: &[Change],
) -> Result<Vec<(TableName, ChangeCounts)>, StoreError> {
    let mut counts = vec![ChangeCounts::NONE; state.schema.tables().len()];
    for (table, effect, rows) in changes {
        if !state.schema.table(*table).tenancy.is_tenant_owned() {
            let name = &state.schema.table(*table).name;
            let message = format!("write {name}: no tenant owns its rows");
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        for row in rows.iter() {
            if state.change(*table, tenant.as_bytes(), *effect, row)? {
                let count = &mut counts[table.get()];
                match effect {
                    Effect::Create => count.created += 1,
                    Effect::PutBack => count.put_back += 1,
                    Effect::Delete => count.deleted += 1,
                }
            }
        }
    }
    state.check_paths()?;
    check_owners(state, tenant, changes)?;
    let changed = state.schema.tables().iter().zip(&counts);
    let changed: Vec<_> = changed
        .filter(|(_, counts)| counts.total() > 0)
        .map(|(table, &counts)| (table.name.clone(), counts))
        .collect();
    if !changed.is_empty() {
        state.touch(&reinstate_core::Owner::Tenant(tenant.clone()));
    }
    Ok(changed)
}

/// Whether every row that was written belongs to the tenant, by what its columns say.
fn check_owners(state: &State, tenant: &TenantId, changes: &[Change]) -> Result<(), StoreError> {
    for (table, effect, rows) in changes {
        let schema = state.schema.table(*table);
        if *effect == Effect::Delete || matches!(schema.tenancy, Tenancy::Native) {
            continue;
        }
        for row in rows.iter() {
            if !is_own(&state.owner_of_columns(*table, row.columns()), tenant) {
                let message = format!("write {}: a row is not of {tenant}", schema.name);
                return Err(StoreError::new(ErrorKind::Refused, message));
            }
        }
    }
    Ok(())
}

fn raised(before: &[SequenceValue], after: &[SequenceValue]) -> Vec<SequenceRaise> {
    before
        .iter()
        .zip(after)
        .filter(|(before, after)| before.last_value < after.last_value)
        .map(|(before, after)| SequenceRaise {
            name: before.name.clone(),
            from: before.last_value,
            to: after.last_value,
        })
        .collect()
}
