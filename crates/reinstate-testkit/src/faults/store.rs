//! A live store that fails, forgets to answer, or is written to at the worst moment.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use reinstate_core::{
    CaptureView, ChangeCounts, ChangeSource, ColumnIndex, Committed, ErrorKind, Filling,
    Fingerprint, Fit, HeldKey, Hindrance, JobId, JournalEntry, LiveStore, LiveView, OtherRelations,
    OwnHold, OwnedRowBatch, OwnedRowStream, Position, PositionNotation, QuestionCost, Reference,
    RowBatch, RowOrder, RowRole, RowStream, SequenceValue, SharedCreation, SideEffect,
    SnapshotSource, StoreError, StoreIdentity, StoreSchema, StrayReference, TableIndex, TableName,
    TenantFence, TenantId, TenantKind, TenantWriter, Timestamp, UniqueKey, ValueKind,
};

use super::fence::{CountedFence, FenceCounts};

/// What a store does wrong, and when. Calls are counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// Nothing; it only counts.
    None,
    /// One call fails, before it does anything.
    Fail {
        /// Which.
        call: u64,
        /// How.
        kind: ErrorKind,
    },
    /// The first commit happens, and no answer comes.
    UnknownAfterCommit,
    /// The same, and then the journal cannot be read for a while.
    UnknownAndAway {
        /// How often it cannot.
        reads: u64,
        /// With what error.
        kind: ErrorKind,
    },
    /// The first commit does not happen, and no answer comes.
    UnknownBeforeCommit,
    /// It counts so many rows of others with the mark of a merge, whatever there are.
    ForeignRows {
        /// How many.
        rows: u64,
    },
    /// It counts other changes in a table than it made.
    Counts {
        /// In which table.
        table: TableIndex,
        /// What it counts there; none at all leaves the table out.
        counts: ChangeCounts,
    },
    /// Somebody does something just before one call: see [`FaultyStore::with_interloper`].
    Interlope {
        /// Which.
        call: u64,
    },
}

/// A store around another that does one thing wrong.
///
/// Every call that can fail counts, those of its views, streams and writers included; a stream's
/// call is one batch.
pub struct FaultyStore<'a> {
    inner: &'a dyn LiveStore,
    faults: Faults<'a>,
    fences: Option<&'a FenceCounts>,
}

struct Faults<'a> {
    fault: StoreFault,
    calls: AtomicU64,
    commits: AtomicU64,
    /// How often the journal was read since the first commit.
    journal_reads: AtomicU64,
    interloper: Box<dyn Fn() + Send + Sync + 'a>,
}

impl fmt::Debug for FaultyStore<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "FaultyStore({:?})", self.faults.fault)
    }
}

impl<'a> FaultyStore<'a> {
    /// A store that holds what `inner` holds.
    #[must_use]
    pub fn new(inner: &'a dyn LiveStore, fault: StoreFault) -> Self {
        Self::with_interloper(inner, fault, || ())
    }

    /// The same, with something that happens once, just before the call of
    /// [`StoreFault::Interlope`]: a write of the application, say.
    #[must_use]
    pub fn with_interloper(
        inner: &'a dyn LiveStore,
        fault: StoreFault,
        interloper: impl Fn() + Send + Sync + 'a,
    ) -> Self {
        Self {
            inner,
            faults: Faults {
                fault,
                calls: AtomicU64::new(0),
                commits: AtomicU64::new(0),
                journal_reads: AtomicU64::new(0),
                interloper: Box::new(interloper),
            },
            fences: None,
        }
    }

    /// The same, with fences.
    #[must_use]
    pub fn with_fences(self, counts: &'a FenceCounts) -> Self {
        Self {
            fences: Some(counts),
            ..self
        }
    }

    /// How many calls there were.
    #[must_use]
    pub fn call_count(&self) -> u64 {
        self.faults.calls.load(Ordering::Relaxed)
    }
}

impl Faults<'_> {
    fn call(&self, what: &str) -> Result<(), StoreError> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            StoreFault::Fail { call, kind } if call == number => {
                let message = format!("{what}: injected fault at call {number}");
                Err(StoreError::new(kind, message))
            }
            StoreFault::Interlope { call } if call == number => {
                (self.interloper)();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Fails while the journal cannot be read.
    fn read_journal(&self) -> Result<(), StoreError> {
        if let StoreFault::UnknownAndAway { reads, kind } = self.fault
            && self.commits.load(Ordering::Relaxed) > 0
            && self.journal_reads.fetch_add(1, Ordering::Relaxed) < reads
        {
            return Err(StoreError::new(kind, "read journal: injected fault"));
        }
        Ok(())
    }
}

fn no_answer() -> StoreError {
    let message = "commit: injected fault: the connection was lost";
    StoreError::new(ErrorKind::OutcomeUnknown, message)
}

impl SnapshotSource for FaultyStore<'_> {
    fn begin_capture(&self) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        self.faults.call("begin capture")?;
        Ok(Box::new(FaultyCapture {
            inner: self.inner.begin_capture()?,
            faults: &self.faults,
        }))
    }
}

impl LiveStore for FaultyStore<'_> {
    fn identity(&self) -> StoreIdentity {
        self.inner.identity()
    }

    fn tenant_kind(&self) -> &TenantKind {
        self.inner.tenant_kind()
    }

    fn notation(&self) -> PositionNotation {
        self.inner.notation()
    }

    fn prepare(&self) -> Result<(), StoreError> {
        self.faults.call("prepare")?;
        self.inner.prepare()
    }

    fn read_view(&self) -> Result<Box<dyn LiveView + '_>, StoreError> {
        self.faults.call("read view")?;
        Ok(Box::new(FaultyView {
            inner: self.inner.read_view()?,
            faults: &self.faults,
        }))
    }

    fn begin_merge(
        &self,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError> {
        self.faults.call("begin merge")?;
        let miscounted = match self.faults.fault {
            StoreFault::Counts { table, counts } => {
                Some((schema.table(table).name.clone(), counts))
            }
            _ => None,
        };
        Ok(Box::new(FaultyWriter {
            inner: self.inner.begin_merge(tenant, expected, schema)?,
            faults: &self.faults,
            miscounted,
        }))
    }

    fn fence(&self, tenant: &TenantId) -> Result<Option<Box<dyn TenantFence + '_>>, StoreError> {
        let Some(counts) = self.fences else {
            return Ok(None);
        };
        self.faults.call("put up a fence")?;
        Ok(Some(Box::new(CountedFence::raise(self, tenant, counts))))
    }

    fn journal_entry(
        &self,
        job: JobId,
        tenant: &TenantId,
    ) -> Result<Option<JournalEntry>, StoreError> {
        self.faults.call("read journal")?;
        self.faults.read_journal()?;
        self.inner.journal_entry(job, tenant)
    }

    fn committed(&self, job: JobId, tenant: &TenantId) -> Result<Option<Committed>, StoreError> {
        self.faults.call("read a commit back")?;
        self.inner.committed(job, tenant)
    }

    fn foreign_rows_written(
        &self,
        tenant: &TenantId,
        commit_mark: &[u8],
    ) -> Result<u64, StoreError> {
        self.faults.call("count foreign rows")?;
        if let StoreFault::ForeignRows { rows } = self.faults.fault {
            return Ok(rows);
        }
        self.inner.foreign_rows_written(tenant, commit_mark)
    }

    fn probe(&self) -> Result<(), StoreError> {
        self.faults.call("probe")?;
        self.inner.probe()
    }

    fn writes_between_batches(&self) -> bool {
        self.inner.writes_between_batches()
    }
}

struct FaultyCapture<'a> {
    inner: Box<dyn CaptureView + 'a>,
    faults: &'a Faults<'a>,
}

impl CaptureView for FaultyCapture<'_> {
    fn schema(&self) -> &StoreSchema {
        self.inner.schema()
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn taken_at(&self) -> Option<Timestamp> {
        self.inner.taken_at()
    }

    fn sequences(&self) -> &[SequenceValue] {
        self.inner.sequences()
    }

    fn lanes(&self) -> usize {
        self.inner.lanes()
    }

    fn table_rows(&self, table: TableIndex) -> Result<Box<dyn OwnedRowStream + '_>, StoreError> {
        self.faults.call("read table")?;
        Ok(Box::new(FaultyStream {
            inner: self.inner.table_rows(table)?,
            faults: self.faults,
        }))
    }
}

struct FaultyStream<'a, S: ?Sized> {
    inner: Box<S>,
    faults: &'a Faults<'a>,
}

impl OwnedRowStream for FaultyStream<'_, dyn OwnedRowStream + '_> {
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError> {
        self.faults.call("read a batch of a table")?;
        self.inner.next_batch(batch)
    }
}

impl RowStream for FaultyStream<'_, dyn RowStream + '_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        self.faults.call("read a batch of a tenant")?;
        self.inner.next_batch(batch)
    }
}

struct FaultyView<'a> {
    inner: Box<dyn LiveView + 'a>,
    faults: &'a Faults<'a>,
}

impl LiveView for FaultyView<'_> {
    fn schema(&self) -> &StoreSchema {
        self.inner.schema()
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn taken_at(&self) -> Option<Timestamp> {
        self.inner.taken_at()
    }

    fn fingerprint(&self, tenant: &TenantId) -> Result<Fingerprint, StoreError> {
        self.faults.call("fingerprint")?;
        self.inner.fingerprint(tenant)
    }

    fn question_cost(&self) -> QuestionCost {
        self.inner.question_cost()
    }

    fn row_order(&self) -> RowOrder {
        self.inner.row_order()
    }

    fn tenant_rows(
        &self,
        tenant: &TenantId,
        table: TableIndex,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        self.faults.call("read tenant")?;
        Ok(Box::new(FaultyStream {
            inner: self.inner.tenant_rows(tenant, table)?,
            faults: self.faults,
        }))
    }

    fn held_by_others(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        role: RowRole,
        rows: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError> {
        self.faults.call("look for held keys")?;
        self.inner.held_by_others(tenant, table, role, rows)
    }

    fn has_unique_values(&self, table: TableIndex) -> bool {
        self.inner.has_unique_values(table)
    }

    fn held_by_own(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        rows: &RowBatch,
    ) -> Result<Vec<OwnHold>, StoreError> {
        self.faults.call("look for held keys")?;
        self.inner.held_by_own(tenant, table, rows)
    }

    fn stray_references(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        rows: &RowBatch,
        younger: &[Reference],
    ) -> Result<Vec<StrayReference>, StoreError> {
        self.faults.call("follow references")?;
        self.inner.stray_references(tenant, table, rows, younger)
    }

    fn held_in_place(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        before: &RowBatch,
        after: Option<&RowBatch>,
        beside: &[TenantId],
    ) -> Result<Vec<Hindrance>, StoreError> {
        self.faults.call("look for what refers to rows")?;
        self.inner
            .held_in_place(tenant, table, before, after, beside)
    }

    fn not_taken(
        &self,
        table: TableIndex,
        rows: &RowBatch,
        was_changed: bool,
    ) -> Result<Vec<Hindrance>, StoreError> {
        self.faults.call("look whether rows are taken")?;
        self.inner.not_taken(table, rows, was_changed)
    }

    fn parents_of_everybody(
        &self,
        table: TableIndex,
        reference: &Reference,
        rows: &RowBatch,
    ) -> Result<RowBatch, StoreError> {
        self.faults.call("follow references")?;
        self.inner.parents_of_everybody(table, reference, rows)
    }

    fn shared_creation(&self, table: TableIndex) -> Result<SharedCreation, StoreError> {
        self.faults
            .call("ask whether rows of everybody may be created")?;
        self.inner.shared_creation(table)
    }

    fn other_relations(&self, changed: &[TableIndex]) -> Result<Vec<OtherRelations>, StoreError> {
        self.faults.call("look for relations that are no tables")?;
        self.inner.other_relations(changed)
    }

    fn value_kind(&self, table: TableIndex, column: ColumnIndex) -> ValueKind {
        self.inner.value_kind(table, column)
    }

    fn unique_keys(&self, table: TableIndex) -> Result<Vec<UniqueKey>, StoreError> {
        self.faults.call("look for unique keys")?;
        self.inner.unique_keys(table)
    }

    fn greatest(&self, table: TableIndex, column: ColumnIndex) -> Result<Option<i64>, StoreError> {
        self.faults.call("look for the greatest number")?;
        self.inner.greatest(table, column)
    }

    fn is_counted_up(&self, table: TableIndex, column: ColumnIndex) -> bool {
        self.inner.is_counted_up(table, column)
    }

    fn left_behind(
        &self,
        table: TableIndex,
        rows: &RowBatch,
    ) -> Result<Vec<(TableIndex, RowBatch)>, StoreError> {
        self.faults.call("look for what was left behind")?;
        self.inner.left_behind(table, rows)
    }

    fn side_effects(&self, table: TableIndex, counts: ChangeCounts) -> Vec<SideEffect> {
        self.inner.side_effects(table, counts)
    }

    fn fit(
        &self,
        type_name: &str,
        table: TableIndex,
        column: ColumnIndex,
    ) -> Result<Option<Fit>, StoreError> {
        self.inner.fit(type_name, table, column)
    }

    fn is_counter(&self, table: TableIndex, column: ColumnIndex) -> bool {
        self.inner.is_counter(table, column)
    }

    fn filling(&self, table: TableIndex, column: ColumnIndex) -> Result<Filling, StoreError> {
        self.inner.filling(table, column)
    }
}

struct FaultyWriter<'a> {
    inner: Box<dyn TenantWriter + 'a>,
    faults: &'a Faults<'a>,
    miscounted: Option<(TableName, ChangeCounts)>,
}

impl TenantWriter for FaultyWriter<'_> {
    fn create_shared(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, u64)>, StoreError> {
        self.faults.call("create rows of everybody")?;
        self.inner.create_shared(changes)
    }

    fn apply(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, ChangeCounts)>, StoreError> {
        self.faults.call("apply")?;
        let mut counted = self.inner.apply(changes)?;
        if let Some((table, counts)) = self.miscounted.take() {
            counted.retain(|(name, _)| *name != table);
            if counts.total() > 0 {
                counted.push((table, counts));
            }
        }
        Ok(counted)
    }

    fn suspects(&mut self, table: &TableName, changes: &dyn ChangeSource) -> Vec<String> {
        self.inner.suspects(table, changes)
    }

    fn read_back(&mut self, table: TableIndex) -> Result<Box<dyn RowStream + '_>, StoreError> {
        self.faults.call("read back")?;
        Ok(Box::new(FaultyStream {
            inner: self.inner.read_back(table)?,
            faults: self.faults,
        }))
    }

    fn state_read_back(&mut self) -> Option<Fingerprint> {
        self.inner.state_read_back()
    }

    fn commit(self: Box<Self>, entry: &JournalEntry) -> Result<Committed, StoreError> {
        self.faults.call("commit")?;
        let is_first = self.faults.commits.fetch_add(1, Ordering::Relaxed) == 0;
        match self.faults.fault {
            StoreFault::UnknownBeforeCommit if is_first => {
                drop(self.inner);
                Err(no_answer())
            }
            StoreFault::UnknownAfterCommit | StoreFault::UnknownAndAway { .. } if is_first => {
                self.inner.commit(entry)?;
                Err(no_answer())
            }
            _ => self.inner.commit(entry),
        }
    }
}
