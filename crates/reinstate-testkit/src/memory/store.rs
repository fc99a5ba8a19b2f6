//! The memory store: what an application and the engine see of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reinstate_core::{
    CaptureView, Committed, ErrorKind, Fingerprint, JobId, JournalEntry, LiveStore, LiveView,
    Owner, PositionNotation, RowBuilder, RowOrder, SnapshotSource, StoreError, StoreId,
    StoreIdentity, StoreSchema, Tenancy, TenantId, TenantKind, TenantWriter,
};

use crate::application::{ApplicationChange, encode_row};
use crate::memory::state::{Effect, State};
use crate::memory::view::{MemoryCapture, MemoryView};
use crate::memory::writer::MemoryWriter;

/// Whose keys must differ from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeySpace {
    /// Two tenants may use the same key. Only for tables whose owner the store keeps itself.
    PerTenant,
    /// A key is unique in its table, as in a SQL database.
    Global,
}

/// How a memory store behaves where stores may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryOptions {
    /// Whose keys must differ from each other.
    pub key_space: KeySpace,
    /// The order in which a view hands out rows; [`RowOrder::Any`] means backwards.
    pub row_order: RowOrder,
    /// How many rows a batch holds at most; at least one.
    pub batch_rows_max: usize,
    /// Whether tables with one integer key column have a counter.
    pub has_counters: bool,
}

impl Default for MemoryOptions {
    /// Global keys, sorted rows, batches of 64 rows, counters.
    fn default() -> Self {
        Self {
            key_space: KeySpace::Global,
            row_order: RowOrder::Sorted,
            batch_rows_max: 64,
            has_counters: true,
        }
    }
}

/// A live store in memory: the reference for what a live store must do.
///
/// Costs a copy of the whole store per commit. Views never wait; a writer waits for nobody and
/// finds out when it commits whether somebody came in its way.
#[derive(Debug)]
pub struct MemoryStore {
    pub(crate) identity: StoreIdentity,
    pub(crate) tenant_kind: TenantKind,
    pub(crate) options: MemoryOptions,
    state: Mutex<Arc<State>>,
    locked: Mutex<BTreeSet<TenantId>>,
}

impl MemoryStore {
    /// An empty store with these tables.
    ///
    /// # Errors
    /// `Usage` if keys are unique only per tenant and a column says who the tenant is.
    pub fn try_new(schema: StoreSchema, options: MemoryOptions) -> Result<Self, StoreError> {
        let by_column =
            |tenancy: &Tenancy| tenancy.is_tenant_owned() && *tenancy != Tenancy::Native;
        if options.key_space == KeySpace::PerTenant
            && schema
                .tables()
                .iter()
                .any(|table| by_column(&table.tenancy))
        {
            let message = "create memory store: keys per tenant need tables with a native owner";
            return Err(StoreError::new(ErrorKind::Usage, message));
        }
        let state = State::new(schema, &options);
        Ok(Self {
            identity: StoreIdentity {
                id: StoreId::from_bytes(*b"memory store, 01"),
                name: "memory".to_owned(),
            },
            tenant_kind: TenantKind::parse("account").map_err(|error| {
                StoreError::new(ErrorKind::Usage, "create memory store").because(error)
            })?,
            options,
            state: Mutex::new(Arc::new(state)),
            locked: Mutex::new(BTreeSet::new()),
        })
    }

    /// Makes an application's changes in one transaction; on an error, none of them.
    ///
    /// # Errors
    /// `Usage` if a row does not fit its table; `Conflict` if a path to a tenant would break.
    pub fn write(&self, changes: &[ApplicationChange]) -> Result<(), StoreError> {
        let mut shared = self.lock();
        let mut state = State::clone(&shared);
        state.commit += 1;
        for change in changes {
            write_one(&mut state, change)?;
        }
        state.check_paths()?;
        *shared = Arc::new(state);
        Ok(())
    }

    /// Replaces the tables' description, as a migration would that leaves every row as it is.
    ///
    /// # Errors
    /// `Usage` if the number of tables differs.
    pub fn migrate(&self, schema: StoreSchema) -> Result<(), StoreError> {
        let mut shared = self.lock();
        if schema.tables().len() != shared.schema.tables().len() {
            let message = "migrate memory store: another number of tables";
            return Err(StoreError::new(ErrorKind::Usage, message));
        }
        let mut state = State::clone(&shared);
        state.commit += 1;
        state.schema = schema;
        *shared = Arc::new(state);
        Ok(())
    }

    /// The state after the last commit.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.lock())
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Arc<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn locked(&self) -> MutexGuard<'_, BTreeSet<TenantId>> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_one(state: &mut State, change: &ApplicationChange) -> Result<(), StoreError> {
    let row = change.row();
    let (table, schema) = row.find(&state.schema)?;
    let values: Vec<Option<&[u8]>> = row.values.iter().map(Option::as_deref).collect();
    let mut builder = RowBuilder::new();
    encode_row(schema, &values, &mut builder)?;
    let is_native = matches!(schema.tenancy, Tenancy::Native);
    let has_key = schema.has_key();
    let encoded = builder.row();
    let place = state.place(table, row.owner.as_bytes(), encoded);
    let before = state.tables[table.get()].get(&place);
    let before = before.map(|stored| state.owner(table, stored));
    let after = if is_native {
        row.owner.clone()
    } else {
        state.owner_of_columns(table, encoded.columns())
    };
    if let (Some(owner), true) = (
        &before,
        has_key || matches!(change, ApplicationChange::Delete(_)),
    ) {
        state.touch(owner);
        state.change(table, owner.as_bytes(), Effect::Delete, encoded)?;
    }
    if matches!(change, ApplicationChange::Put(_)) {
        state.change(table, after.as_bytes(), Effect::Create, encoded)?;
        state.touch(&after);
    }
    Ok(())
}

impl SnapshotSource for MemoryStore {
    fn begin_capture(&self) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        Ok(Box::new(MemoryCapture {
            state: self.state(),
            options: self.options,
        }))
    }
}

impl LiveStore for MemoryStore {
    fn identity(&self) -> StoreIdentity {
        self.identity.clone()
    }

    fn tenant_kind(&self) -> &TenantKind {
        &self.tenant_kind
    }

    fn notation(&self) -> PositionNotation {
        PositionNotation::Commit
    }

    fn prepare(&self) -> Result<(), StoreError> {
        let mut shared = self.lock();
        if !shared.is_prepared {
            Arc::make_mut(&mut shared).is_prepared = true;
        }
        Ok(())
    }

    fn read_view(&self) -> Result<Box<dyn LiveView + '_>, StoreError> {
        Ok(Box::new(MemoryView {
            state: self.state(),
            options: self.options,
        }))
    }

    fn begin_merge(
        &self,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError> {
        let writer = MemoryWriter::try_begin(self, tenant, expected, schema)?;
        Ok(Box::new(writer))
    }

    fn journal_entry(
        &self,
        job: JobId,
        tenant: &TenantId,
    ) -> Result<Option<JournalEntry>, StoreError> {
        Ok(self.state().journal.get(&(job, tenant.clone())).cloned())
    }

    fn committed(&self, job: JobId, tenant: &TenantId) -> Result<Option<Committed>, StoreError> {
        Ok(self.state().commits.get(&(job, tenant.clone())).cloned())
    }

    fn foreign_rows_written(
        &self,
        tenant: &TenantId,
        commit_mark: &[u8],
    ) -> Result<u64, StoreError> {
        let commit = <[u8; 8]>::try_from(commit_mark).map_err(|error| {
            StoreError::new(ErrorKind::Usage, "read commit mark: not eight bytes").because(error)
        })?;
        Ok(self
            .state()
            .foreign_rows(tenant, u64::from_be_bytes(commit)))
    }
}

/// What identifies a tenant's state: the commit that last changed it.
pub(crate) fn fingerprint(state: &State, tenant: &TenantId) -> Fingerprint {
    let version = state.versions.get(tenant).copied().unwrap_or(0);
    Fingerprint::new(version.to_be_bytes())
}

/// Whether a row of this owner may be restored for a tenant.
pub(crate) fn is_own(owner: &Owner, tenant: &TenantId) -> bool {
    owner.as_bytes() == tenant.as_bytes()
}
