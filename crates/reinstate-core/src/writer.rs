//! The port through which a plan is merged into a live store: one transaction, one tenant.

use crate::{
    ChangeCounts, Digest, ErrorKind, Fingerprint, JobId, Position, RowRole, RowStream, StoreError,
    TableIndex, TableName, TenantId,
};

/// The changes of one tenant's plan. May be read more than once, and in any order.
pub trait ChangeSource: Sync {
    /// The tables with changes, parents before children.
    fn tables(&self) -> &[TableIndex];

    /// How many rows of a table change.
    fn counts(&self, table: TableIndex) -> ChangeCounts;

    /// The shared tables in which rows of everybody are created, parents before children.
    fn shared_tables(&self) -> &[TableIndex] {
        &[]
    }

    /// How many rows of everybody a plan creates in a table, if all are gone.
    fn shared_count(&self, _table: TableIndex) -> u64 {
        0
    }

    /// The rows of one table in one role, sorted. Of a table without a key, a row that changes
    /// several times over is there as often.
    ///
    /// # Errors
    /// `Corrupt` if the plan's bytes are not what was written.
    fn rows(&self, table: TableIndex, role: RowRole)
    -> Result<Box<dyn RowStream + '_>, StoreError>;
}

/// One open transaction on one tenant. Dropping it without a commit leaves the store as it was.
pub trait TenantWriter: Send {
    /// Creates the rows of everybody that the changes hold, as far as they are still gone, and makes
    /// sure that those which somebody made meanwhile are the same. Never writes over one. Called
    /// before [`apply`](Self::apply), and only if there are any. Returns how many rows were created
    /// in which table; `apply` counts them too.
    ///
    /// # Errors
    /// `Refused` unless the store's operator lets such rows be created in these tables; `Conflict` if
    /// one is there with other contents, or its place is taken; otherwise as `apply`.
    fn create_shared(
        &mut self,
        _changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, u64)>, StoreError> {
        let message = "write rows of everybody: no plan may do that in this store";
        Err(StoreError::new(ErrorKind::Refused, message))
    }

    /// Makes all changes of the plan. Returns, for every table of the store in which this
    /// transaction changed anything, how many rows the *store* counted: effects of cascades and
    /// triggers included.
    ///
    /// # Errors
    /// `Conflict` if the store's own rules refuse a row; `Contended` if other writers came in the
    /// way; otherwise as the store reports it.
    fn apply(
        &mut self,
        changes: &dyn ChangeSource,
    ) -> Result<Vec<(TableName, ChangeCounts)>, StoreError>;

    /// What may have changed rows of a table in this transaction, beside the plan: triggers, rules and
    /// references that act, as a message can name them. Asked when a merge is refused for its counts;
    /// what cannot be found out is left out.
    fn suspects(&mut self, _table: &TableName, _changes: &dyn ChangeSource) -> Vec<String> {
        Vec::new()
    }

    /// The tenant's rows in one table as they are inside this transaction, in any order.
    ///
    /// # Errors
    /// As the store reports it.
    fn read_back(&mut self, table: TableIndex) -> Result<Box<dyn RowStream + '_>, StoreError>;

    /// The state that the tenant has as soon as this is committed, if every row that it has was read back,
    /// and every row that the transaction left is one of these: whoever finds the tenant in the same state
    /// afterwards finds what was read back, and nothing of anybody else's that was written. Otherwise, and
    /// where a store cannot tell, none. Asked after [`read_back`](Self::read_back) of the tables.
    fn state_read_back(&mut self) -> Option<Fingerprint> {
        None
    }

    /// Writes the journal's entry and commits, durably. All or nothing.
    ///
    /// # Errors
    /// `OutcomeUnknown` if the commit was sent and no answer came; with every other error nothing
    /// was committed.
    fn commit(self: Box<Self>, entry: &JournalEntry) -> Result<Committed, StoreError>;
}

/// What a commit left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Where in the store's order the commit is.
    pub position: Position,
    /// What marks this commit's rows; see [`LiveStore::foreign_rows_written`](crate::LiveStore::foreign_rows_written).
    pub commit_mark: Vec<u8>,
    /// Counters that were raised so that restored values are not handed out again.
    pub sequences_raised: Vec<SequenceRaise>,
}

/// A counter that a merge raised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceRaise {
    /// The counter's name.
    pub name: String,
    /// Its last value before.
    pub from: i64,
    /// Its last value after.
    pub to: i64,
}

/// What the store remembers of a merge, written in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalEntry {
    /// The run.
    pub job: JobId,
    /// Whose rows it changed.
    pub tenant: TenantId,
    /// The plan that was applied.
    pub plan: Digest,
    /// What the engine wants to find again; opaque to the store.
    pub payload: Vec<u8>,
}
