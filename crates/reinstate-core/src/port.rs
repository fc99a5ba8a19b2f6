//! The ports: what a live store has to offer.
//!
//! All are synchronous and object-safe, take batches in and hand streams out. A key-value store
//! and a SQL database fit them alike. `reinstate-testkit` certifies an implementation.

use std::fmt;

use crate::manner::{QuestionCost, RowOrder};
use crate::{
    ChangeCounts, ColumnIndex, Committed, ErrorKind, Filling, Fit, Hindrance, JobId, JournalEntry,
    KeyForm, OtherRelations, OwnedRowBatch, Position, PositionNotation, Reference, RowBatch,
    RowRole, SequenceValue, SharedCreation, SideEffect, StoreError, StoreIdentity, StoreSchema,
    StrayReference, TableIndex, Tenancy, TenantId, TenantKind, TenantWriter, Timestamp, UniqueKey,
    ValueKind,
};

/// Rows of one table and one tenant.
pub trait RowStream: Send {
    /// Replaces what is in `batch` by the next rows. `false` when there are no more; then the
    /// batch is empty.
    ///
    /// # Errors
    /// Whatever kept the rows from being read; the stream is then of no further use.
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError>;
}

impl RowStream for Box<dyn RowStream + '_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        (**self).next_batch(batch)
    }
}

/// Rows of one table, of every owner.
pub trait OwnedRowStream: Send {
    /// Replaces what is in `batch` by the next rows. `false` when there are no more.
    ///
    /// # Errors
    /// Whatever kept the rows from being read; the stream is then of no further use.
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError>;
}

/// A store that can be captured.
pub trait SnapshotSource: Send + Sync {
    /// Fixes one position for the whole store and opens it for reading, while others write on.
    ///
    /// # Errors
    /// `Refused` if the role may not see every row; `Unclassified` if a table has no owner.
    fn begin_capture(&self) -> Result<Box<dyn CaptureView + '_>, StoreError>;
}

/// A whole store at one position. Used from several threads at once.
pub trait CaptureView: Send + Sync {
    /// The store's tables at this position.
    fn schema(&self) -> &StoreSchema;

    /// The position: every commit up to it is seen, none after.
    fn position(&self) -> Position;

    /// The time of that position by the store's own clock, if it has one.
    fn taken_at(&self) -> Option<Timestamp>;

    /// The store's counters at this position.
    fn sequences(&self) -> &[SequenceValue];

    /// How many streams can be open at once without waiting for each other; at least one.
    fn lanes(&self) -> usize;

    /// Every row of a table, in any order, each once, with its owner. Rows of excluded tables are
    /// not asked for.
    ///
    /// # Errors
    /// `Refused` if rows would be hidden; otherwise as the store reports it.
    fn table_rows(&self, table: TableIndex) -> Result<Box<dyn OwnedRowStream + '_>, StoreError>;
}

/// What identifies the state of one live tenant: equal before and after means that nobody wrote
/// to it. Opaque; each store has its own way to make one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// The fingerprint with these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Fingerprint({})", crate::id::hex(&self.0))
    }
}

/// A key whose place a row of somebody else holds. Says nothing about that row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldKey {
    /// The encoded key of the row that was to be created.
    pub key: Vec<u8>,
    /// What holds it, without any value: the name of the key or index.
    pub constraint: String,
}

/// A unique value of a row to be written that another of the tenant's own live rows has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnHold {
    /// The encoded key of the row that was to be written; empty in a table without a key.
    pub key: Vec<u8>,
    /// Its encoded columns.
    pub columns: Vec<u8>,
    /// The encoded key of the live row that has the value; empty in a table without a key.
    pub holder: Vec<u8>,
    /// What must not be there twice: the name of the key or index.
    pub constraint: String,
}

/// A store that is in use, and into which tenants are restored.
pub trait LiveStore: SnapshotSource {
    /// Which store this is.
    fn identity(&self) -> StoreIdentity;

    /// What kind of id its tenants have.
    fn tenant_kind(&self) -> &TenantKind;

    /// How it writes positions.
    fn notation(&self) -> PositionNotation;

    /// Which of its histories the store is in, where it can have several: a standby that becomes a
    /// store of its own goes on with another one. None where there is only one, or while it follows
    /// another store.
    ///
    /// # Errors
    /// If the store cannot be read.
    fn timeline(&self) -> Result<Option<u32>, StoreError> {
        Ok(None)
    }

    /// Where the history of the store left an earlier one: commits of that one up to here are its own
    /// too, and none after. None if its history does not come from that one.
    ///
    /// # Errors
    /// `Refused` if the role may not know; otherwise if the store cannot be read.
    fn timeline_end(&self, timeline: u32) -> Result<Option<Position>, StoreError> {
        let _ = timeline;
        Ok(None)
    }

    /// Creates what the engine needs to keep in the store: the journal. Does nothing when it is
    /// there already.
    ///
    /// # Errors
    /// As the store reports it.
    fn prepare(&self) -> Result<(), StoreError>;

    /// Opens the store for reading at one position, without taking any lock that a writer minds.
    ///
    /// # Errors
    /// As [`SnapshotSource::begin_capture`].
    fn read_view(&self) -> Result<Box<dyn LiveView + '_>, StoreError>;

    /// The same, for whoever asks for this tenant's fingerprint first: it may be looked for meanwhile.
    ///
    /// # Errors
    /// As [`read_view`](Self::read_view).
    fn read_view_of(&self, _tenant: &TenantId) -> Result<Box<dyn LiveView + '_>, StoreError> {
        self.read_view()
    }

    /// Opens one tenant for writing, in one transaction that ends with the writer. Rows of other
    /// tenants cannot be named through it.
    ///
    /// # Errors
    /// `Stale` if the tenant's fingerprint or the tables' schema is not the expected one;
    /// `Locked` if another run holds the tenant; `Refused` if a guard finds that a neighbour
    /// could be touched.
    fn begin_merge(
        &self,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError>;

    /// Keeps everybody from writing to the tenant, but a merge that is opened through what is returned,
    /// until that is dropped. None if the store has no fence, or it was not put up there: what others write
    /// is then found out by the merge, or after it by verifying.
    ///
    /// # Errors
    /// `Locked` if another run holds the tenant; `Contended` if its users have a transaction open that
    /// wrote to it and does not end in time.
    fn fence(&self, tenant: &TenantId) -> Result<Option<Box<dyn TenantFence + '_>>, StoreError> {
        let _ = tenant;
        Ok(None)
    }

    /// The journal's entry for this job and tenant, if that merge was committed.
    ///
    /// # Errors
    /// As the store reports it.
    fn journal_entry(
        &self,
        job: JobId,
        tenant: &TenantId,
    ) -> Result<Option<JournalEntry>, StoreError>;

    /// What the commit of this merge left behind, as its own transaction noted it; none if that merge was
    /// not committed. The mark and the counters are what [`commit`](TenantWriter::commit) returned, or would
    /// have if anybody had been there to hear; the position is that of the commit, or right before it where
    /// the store cannot know it beforehand.
    ///
    /// # Errors
    /// As the store reports it; `Corrupt` if the entry is not what a merge writes.
    fn committed(&self, job: JobId, tenant: &TenantId) -> Result<Option<Committed>, StoreError>;

    /// How many rows of anybody but `tenant` carry the mark of the commit at `position`, in
    /// tenant-owned and shared tables, read after that commit. Zero unless something is wrong.
    ///
    /// # Errors
    /// As the store reports it.
    fn foreign_rows_written(
        &self,
        tenant: &TenantId,
        commit_mark: &[u8],
    ) -> Result<u64, StoreError>;

    /// Does the least that somebody who uses the store does, changes nothing, and returns when it is done:
    /// how long that takes says how long others have to wait at present.
    ///
    /// # Errors
    /// As the store reports it.
    fn probe(&self) -> Result<(), StoreError> {
        self.read_view().map(drop)
    }

    /// How many merges, each of another tenant, get on at the same time without waiting for each other; at
    /// least one.
    fn merges_at_once(&self) -> usize {
        1
    }

    /// Whether nobody has to wait while a merge waits for the next rows of its changes: no transaction that
    /// writes is open then.
    fn writes_between_batches(&self) -> bool {
        false
    }
}

/// One tenant that nobody else can write to at present. Dropping it lets them again.
///
/// It may fall by itself where the store frees what somebody holds who says nothing for too long, or is
/// gone. Then its merges fail, and what is written after its last merge is found by verifying.
pub trait TenantFence: Send {
    /// Opens the tenant for writing, behind the fence, as [`LiveStore::begin_merge`] does without one.
    ///
    /// # Errors
    /// As [`LiveStore::begin_merge`].
    fn begin_merge(
        &mut self,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError>;
}

/// A live store at one position, for reading.
///
/// While a stream of a view whose order is [`RowOrder::Any`] is open, the view is asked for
/// nothing else; a view in order [`RowOrder::Sorted`] may be asked at any time.
pub trait LiveView: Send {
    /// The store's tables at this position.
    fn schema(&self) -> &StoreSchema;

    /// The position.
    fn position(&self) -> Position;

    /// The time of that position by the store's own clock, if it has one.
    fn taken_at(&self) -> Option<Timestamp>;

    /// The state of one tenant at this position.
    ///
    /// # Errors
    /// As the store reports it.
    fn fingerprint(&self, tenant: &TenantId) -> Result<Fingerprint, StoreError>;

    /// The order in which [`tenant_rows`](Self::tenant_rows) hands out rows.
    fn row_order(&self) -> RowOrder;

    /// The rows of one tenant in one tenant-owned table.
    ///
    /// # Errors
    /// As the store reports it.
    fn tenant_rows(
        &self,
        tenant: &TenantId,
        table: TableIndex,
    ) -> Result<Box<dyn RowStream + '_>, StoreError>;

    /// What a question about rows takes: [`held_by_others`](Self::held_by_others) and those like it.
    fn question_cost(&self) -> QuestionCost {
        QuestionCost::EachRow
    }

    /// Which of these rows, all to be written for `tenant`, would meet a row that is not its own:
    /// a key or unique value that somebody else holds. Rows in the role `Created` have keys that the
    /// tenant's live rows do not have; so have those in the role `SharedCreated`, of a shared table, in
    /// which every live row is somebody else's; those in the role `PutBackAfter` take the place of the live
    /// row with their key, whosever it is now.
    ///
    /// # Errors
    /// As the store reports it.
    fn held_by_others(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        role: RowRole,
        rows: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError>;

    /// The same, but for rows of nobody that give way: those with these keys, which the plan puts back
    /// or deletes as soon as they are the tenant's. A store that knows no such rows need not tell them
    /// apart.
    ///
    /// # Errors
    /// As the store reports it.
    fn held_by_strangers(
        &self,
        tenant: &TenantId,
        table: TableIndex,
        role: RowRole,
        rows: &RowBatch,
        _giving_way: &RowBatch,
    ) -> Result<Vec<HeldKey>, StoreError> {
        self.held_by_others(tenant, table, role, rows)
    }

    /// Whether rows of the table that have different keys, or none, can still stand in each other's
    /// way.
    fn has_unique_values(&self, _table: TableIndex) -> bool {
        false
    }

    /// Which of these rows, all to be written for `tenant`, have a unique value that another of its
    /// own live rows has, once for each such value.
    ///
    /// # Errors
    /// As the store reports it.
    fn held_by_own(
        &self,
        _tenant: &TenantId,
        _table: TableIndex,
        _rows: &RowBatch,
    ) -> Result<Vec<OwnHold>, StoreError> {
        Ok(Vec::new())
    }

    /// The references of these rows, all to be written for `tenant`, that lead to no row although
    /// they lead out of what tenants own, or to a row of another tenant. The table's references in
    /// `younger` were not there when the rows were: a store that enforces them also tells which lead to no
    /// row at all yet, as it does of those that its own rows need not satisfy.
    ///
    /// # Errors
    /// As the store reports it.
    fn stray_references(
        &self,
        _tenant: &TenantId,
        _table: TableIndex,
        _rows: &RowBatch,
        _younger: &[Reference],
    ) -> Result<Vec<StrayReference>, StoreError> {
        Ok(Vec::new())
    }

    /// What [`held_by_strangers`](Self::held_by_strangers) says of these rows, and, if nothing,
    /// [`stray_references`](Self::stray_references): a store may look for both at once.
    ///
    /// # Errors
    /// As the store reports it.
    fn look_around(
        &self,
        tenant: &TenantId,
        (table, role): (TableIndex, RowRole),
        rows: &RowBatch,
        giving_way: &RowBatch,
        younger: &[Reference],
    ) -> Result<(Vec<HeldKey>, Vec<StrayReference>), StoreError> {
        let held = self.held_by_strangers(tenant, table, role, rows, giving_way)?;
        Ok(match held.is_empty() {
            true => (held, self.stray_references(tenant, table, rows, younger)?),
            false => (held, Vec::new()),
        })
    }

    /// What refers to these rows of `tenant`, which become the rows `after`, in the same order, or go if
    /// there are none, from rows that are not the tenant's, so that the store would not let it happen,
    /// or would change those rows as well. Rows of each of the tenants `beside` are told apart.
    ///
    /// # Errors
    /// As the store reports it.
    fn held_in_place(
        &self,
        _tenant: &TenantId,
        _table: TableIndex,
        _before: &RowBatch,
        _after: Option<&RowBatch>,
        _beside: &[TenantId],
    ) -> Result<Vec<Hindrance>, StoreError> {
        Ok(Vec::new())
    }

    /// Whether a table is made of parts that can be taken out of it and are tables then.
    fn is_divided(&self, _table: TableIndex) -> bool {
        false
    }

    /// What the table has against these rows, all to be written, whoever else holds what: values that its
    /// columns do not take, rules that the rows break. `was_changed`: whether the table is not as it was
    /// when they were in it.
    ///
    /// # Errors
    /// `Refused` if a value is none of its column's type; otherwise as the store reports it.
    fn not_taken(
        &self,
        _table: TableIndex,
        _rows: &RowBatch,
        _was_changed: bool,
    ) -> Result<Vec<Hindrance>, StoreError> {
        Ok(Vec::new())
    }

    /// A value for a column as the store writes it, from a text that a person wrote; or why it is none.
    ///
    /// # Errors
    /// As the store reports it.
    fn value_of(
        &self,
        _table: TableIndex,
        _column: ColumnIndex,
        text: &str,
    ) -> Result<Result<Vec<u8>, String>, StoreError> {
        Ok(Ok(text.as_bytes().to_vec()))
    }

    /// Whether rows of everybody that are gone may be created in a shared table.
    ///
    /// # Errors
    /// As the store reports it.
    fn shared_creation(&self, _table: TableIndex) -> Result<SharedCreation, StoreError> {
        Ok(SharedCreation::NotAllowed)
    }

    /// The live rows of everybody that these rows, all to be written into `table`, refer to by one
    /// of its references, each at least once.
    ///
    /// # Errors
    /// As the store reports it.
    fn parents_of_everybody(
        &self,
        _table: TableIndex,
        _reference: &Reference,
        _rows: &RowBatch,
    ) -> Result<RowBatch, StoreError> {
        Ok(RowBatch::new())
    }

    /// Rows whose way to their tenant leads over one of these rows of `table`, and ends there, because
    /// the row is to be created, or is such a row itself: what an incident left behind, by table.
    /// They are nobody's, and the tenant's again as soon as it is restored.
    ///
    /// # Errors
    /// As the store reports it.
    fn left_behind(
        &self,
        _table: TableIndex,
        _rows: &RowBatch,
    ) -> Result<Vec<(TableIndex, RowBatch)>, StoreError> {
        Ok(Vec::new())
    }

    /// The constraints of a table whose unique values cannot move from one of the tenant's rows to
    /// another while both are put back, each with the reason and what would help.
    fn fixed_values(&self, _table: TableIndex) -> Vec<(String, String)> {
        Vec::new()
    }

    /// What else happens, or keeps a merge from being made, when this many rows of these tables
    /// change for each of these tenants.
    ///
    /// # Errors
    /// As the store reports it.
    fn other_effects(
        &self,
        _tenants: &[&TenantId],
        _changes: &[(TableIndex, ChangeCounts)],
    ) -> Result<Vec<SideEffect>, StoreError> {
        Ok(Vec::new())
    }

    /// What happens by itself when this many rows of a table change.
    fn side_effects(&self, _table: TableIndex, _counts: ChangeCounts) -> Vec<SideEffect> {
        Vec::new()
    }

    /// The relations of the store that are no ordinary tables, and what becomes of them when rows
    /// of these tables change.
    ///
    /// # Errors
    /// As the store reports it.
    fn other_relations(&self, _changed: &[TableIndex]) -> Result<Vec<OtherRelations>, StoreError> {
        Ok(Vec::new())
    }

    /// Which values of a column that once had the type `type_name` can be written, as the same
    /// text, into this column. None: the text may have to change.
    ///
    /// # Errors
    /// As the store reports it.
    fn fit(
        &self,
        type_name: &str,
        table: TableIndex,
        column: ColumnIndex,
    ) -> Result<Option<Fit>, StoreError> {
        let now = &self.schema().table(table).columns[column.get()].type_name;
        Ok((now == type_name).then_some(Fit::Every))
    }

    /// Whether the column counts something for the tenant, so that it may be raised and never
    /// lowered.
    fn is_counter(&self, _table: TableIndex, _column: ColumnIndex) -> bool {
        false
    }

    /// How the values of a column are written.
    fn value_kind(&self, table: TableIndex, column: ColumnIndex) -> ValueKind {
        let column = &self.schema().table(table).columns[column.get()];
        match (column.key_form, column.type_name.as_str()) {
            (KeyForm::Integer, _) => ValueKind::Integer {
                min: i64::MIN,
                max: i64::MAX,
            },
            (_, "uuid") => ValueKind::Uuid,
            (_, "text") => ValueKind::Text {
                characters_max: None,
            },
            (_, "json" | "jsonb") => ValueKind::Json,
            _ => ValueKind::Other,
        }
    }

    /// What a copy of a tenant's rows in this table would meet the original's rows in. Where the
    /// store itself keeps the owner beside the row, keys do not meet.
    ///
    /// # Errors
    /// As the store reports it.
    fn unique_keys(&self, table: TableIndex) -> Result<Vec<UniqueKey>, StoreError> {
        let table = self.schema().table(table);
        let is_apart = table.tenancy == Tenancy::Native || !table.has_key();
        let primary = (!is_apart).then(|| UniqueKey {
            name: "its primary key".to_owned(),
            columns: table.key.clone(),
        });
        Ok(primary.into_iter().collect())
    }

    /// A number so great that neither the rows of anybody nor what counts the column up is beyond
    /// it; none if there is neither.
    ///
    /// # Errors
    /// `Refused` if the store cannot tell; otherwise as it reports it.
    fn greatest(&self, table: TableIndex, column: ColumnIndex) -> Result<Option<i64>, StoreError> {
        let table = self.schema().table(table);
        let name = &table.columns[column.get()].name;
        let message = format!("the store cannot tell the greatest {}.{name}", table.name);
        Err(StoreError::new(ErrorKind::Refused, message))
    }

    /// Whether the store counts the column's numbers up by itself, and a merge moves what counts them
    /// beyond those that it writes.
    fn is_counted_up(&self, _table: TableIndex, _column: ColumnIndex) -> bool {
        false
    }

    /// What a row that was written before this column was added holds in it.
    ///
    /// # Errors
    /// As the store reports it.
    fn filling(&self, table: TableIndex, column: ColumnIndex) -> Result<Filling, StoreError> {
        Ok(
            if self.schema().table(table).columns[column.get()].nullable {
                Filling::Value(None)
            } else {
                Filling::Unknown("it may not be NULL")
            },
        )
    }
}
