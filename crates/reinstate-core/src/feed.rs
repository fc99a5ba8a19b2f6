//! The feed: what was committed to a live store after a position, one transaction after the other.

use crate::{
    CaptureView, ColumnIndex, ErrorKind, LiveStore, Position, RowRef, SchemaChange, SnapshotId,
    StoreError, StoreSchema, TableIndex, TableName, Timestamp,
};

/// One committed transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The position just after it. No two transactions of a store have the same one.
    pub position: Position,
    /// When it was committed, by the store's clock: equal to, or before, that of an earlier commit
    /// where the clock stood still or went back.
    pub time: Timestamp,
}

/// A whole row, with its owner where the store keeps that beside the row.
#[derive(Clone, Copy, Debug)]
pub struct FeedRow<'a> {
    /// The owner's bytes as in [`Owner::as_bytes`](crate::Owner::as_bytes). None: the tenancy of the
    /// table says whose the row is.
    pub owner: Option<&'a [u8]>,
    /// The row.
    pub row: RowRef<'a>,
}

/// One change of a row, or of all rows of a table.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// A row that was not there.
    Insert {
        /// Its table.
        table: TableIndex,
        /// The row.
        row: FeedRow<'a>,
    },
    /// A row that became another, possibly with another key or owner.
    Update {
        /// Its table.
        table: TableIndex,
        /// The row as it was.
        before: FeedRow<'a>,
        /// The row as it became.
        after: FeedRow<'a>,
    },
    /// A row that went away.
    Delete {
        /// Its table.
        table: TableIndex,
        /// The row as it was.
        before: FeedRow<'a>,
    },
    /// All rows of a table, of every owner, went away.
    Truncate {
        /// The table.
        table: TableIndex,
    },
}

/// One change of a row of which the store only says the key that it had.
#[derive(Clone, Copy, Debug)]
pub enum ChangeByKey<'a> {
    /// A row that became another.
    Update {
        /// Its table.
        table: TableIndex,
        /// The encoded key of the row as it was.
        key: &'a [u8],
        /// The row as it became, with NULL in place of the values that are not said again.
        after: FeedRow<'a>,
        /// The columns of those, in order: they stayed as they were.
        unchanged: &'a [ColumnIndex],
    },
    /// A row that went away.
    Delete {
        /// Its table.
        table: TableIndex,
        /// The encoded key of the row as it was.
        key: &'a [u8],
    },
}

/// Where a feed puts what it reads.
pub trait ChangeSink {
    /// The next change of the transaction that is under way.
    ///
    /// # Errors
    /// As the receiver reports it; the feed stops.
    fn change(&mut self, change: Change<'_>) -> Result<(), StoreError>;

    /// The transaction under way is whole: these were all its changes, perhaps none.
    ///
    /// # Errors
    /// As the receiver reports it; the feed stops.
    fn commit(&mut self, commit: Commit) -> Result<(), StoreError>;

    /// All that follows is written to these tables. Never within a transaction: what one wrote before it
    /// altered a table is handed over as rows of the table as it is then.
    ///
    /// # Errors
    /// As the receiver reports it; the feed stops. `Stale` if it cannot go on with other tables.
    fn tables(&mut self, change: &SchemaChange) -> Result<(), StoreError> {
        let message = format!(
            "the tables are no longer what they were: {} now",
            change.schema().tables().len()
        );
        Err(StoreError::new(ErrorKind::Stale, message))
    }

    /// Of which tables changes may come by the key of the row alone, in order. Said before the first change
    /// of a feed and after [`tables`](Self::tables), never within a transaction; a feed that never says
    /// it tells rows whole.
    ///
    /// # Errors
    /// As the receiver reports it; the feed stops. `Refused` if it does not keep rows.
    fn told_by_key(&mut self, tables: &[TableIndex]) -> Result<(), StoreError> {
        if tables.is_empty() {
            return Ok(());
        }
        Err(not_whole())
    }

    /// The next change of the transaction that is under way, in one of those tables.
    ///
    /// # Errors
    /// As the receiver reports it; the feed stops. `NotRecoverable` if the receiver does not have the row.
    fn change_by_key(&mut self, _change: ChangeByKey<'_>) -> Result<(), StoreError> {
        Err(not_whole())
    }
}

fn not_whole() -> StoreError {
    let message = "changes by the key of the row alone cannot be made whole here";
    StoreError::new(ErrorKind::Refused, message)
}

/// How far a feed was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedProgress {
    /// Every commit up to here was handed over. At least the last one's position; beyond it where
    /// the store says that nothing came after.
    pub through: Position,
    /// Whether there was more than was asked for.
    pub has_more: bool,
}

/// Committed transactions in the order of their commits.
///
/// What was handed over and not acknowledged comes again when the feed is resumed.
pub trait ChangeFeed: Send {
    /// The store's tables, in which the changes are written that follow.
    fn schema(&self) -> &StoreSchema;

    /// What the store wants to be told again about these tables when the feed is resumed; none if it
    /// does not go on with tables that change.
    fn facts(&self) -> Option<Vec<u8>> {
        None
    }

    /// Hands over the transactions that follow, each whole, until they are about this many bytes or
    /// there are no more for now.
    ///
    /// # Errors
    /// `Stale` at the first transaction that was written to other tables than
    /// [`schema`](Self::schema) has, if it cannot be said what became of the rows: the feed ends
    /// before it. `NotRecoverable` if transactions are
    /// lost. After any error the feed is of no further use.
    fn read(
        &mut self,
        bytes_target: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<FeedProgress, StoreError>;

    /// Lets the store forget everything up to this position, which is now durable elsewhere.
    ///
    /// # Errors
    /// As the store reports it. Nothing is lost then: it is handed over again.
    fn acknowledge(&mut self, position: Position) -> Result<(), StoreError>;

    /// Commits a mark to the store, which comes out of the feed as a transaction without changes:
    /// proof that the feed has everything that was committed at an earlier time.
    ///
    /// # Errors
    /// As the store reports it.
    fn mark(&mut self) -> Result<(), StoreError>;
}

/// A feed as the store sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedHealth {
    /// The snapshot that the feed goes on from.
    pub snapshot: SnapshotId,
    /// Everything up to here was acknowledged.
    pub acknowledged: Position,
    /// Bytes of its log that the store keeps for the feed.
    pub kept_bytes: u64,
    /// Why the feed cannot go on, if so.
    pub lost: Option<String>,
}

/// How a store tells the old rows of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldRows {
    /// Whole, with each update and delete.
    Whole,
    /// By their keys: whoever follows keeps a copy of the table's rows.
    ByKey,
}

/// What it takes to follow a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowCost {
    /// The table.
    pub table: TableName,
    /// How its old rows are told.
    pub old_rows: OldRows,
    /// Its bytes in the store, without indexes.
    pub bytes: u64,
}

/// What a feed had when it was read last.
#[derive(Clone, Copy, Debug)]
pub struct FeedTables<'a> {
    /// The tables.
    pub schema: &'a StoreSchema,
    /// What the store said of them. None: they are those of the feed's snapshot.
    pub facts: Option<&'a [u8]>,
    /// The last transaction that was handed over; none if there was none since the snapshot.
    pub last: Option<Commit>,
}

/// A store that hands out what is committed to it.
pub trait FeedSource: LiveStore {
    /// Whether a feed could be started, without starting one.
    ///
    /// # Errors
    /// `Refused` with everything that is missing and what to do about it.
    fn check_feed(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// What it takes to follow each table; empty if following costs the same for all of them.
    ///
    /// # Errors
    /// As the store reports it.
    fn follow_costs(&self) -> Result<Vec<FollowCost>, StoreError> {
        Ok(Vec::new())
    }

    /// Starts a feed and opens the store exactly where it starts: every commit is either in the view
    /// or in the feed, and none in both. From here on the store keeps what was committed until it is
    /// acknowledged or the feed ended, whatever becomes of this process.
    ///
    /// # Errors
    /// `Refused` with what to do if the store, or a table of it, cannot be followed.
    fn begin_feed(&self, snapshot: SnapshotId) -> Result<Box<dyn CaptureView + '_>, StoreError>;

    /// Goes on with the feed of a snapshot. Commits up to and including `after` do not come again.
    ///
    /// # Errors
    /// `NotFound` if there is no such feed; `NotRecoverable` if the store forgot commits after
    /// `after`; `Locked` if somebody else is reading it.
    fn resume_feed(
        &self,
        snapshot: SnapshotId,
        after: Position,
    ) -> Result<Box<dyn ChangeFeed + '_>, StoreError>;

    /// Goes on with the feed of a snapshot that had these tables at `after`, and this last transaction.
    ///
    /// # Errors
    /// As [`resume_feed`](Self::resume_feed); `NotRecoverable` also if the store did not commit that
    /// transaction, and so is not the one that was followed.
    fn resume_feed_with(
        &self,
        snapshot: SnapshotId,
        after: Position,
        _tables: FeedTables<'_>,
    ) -> Result<Box<dyn ChangeFeed + '_>, StoreError> {
        self.resume_feed(snapshot, after)
    }

    /// Ends a feed: the store keeps nothing for it any more. Does nothing if there is none.
    ///
    /// # Errors
    /// `Locked` if somebody is reading it.
    fn end_feed(&self, snapshot: SnapshotId) -> Result<(), StoreError>;

    /// The feeds of this store, those that nobody reads any more included.
    ///
    /// # Errors
    /// As the store reports it.
    fn feeds(&self) -> Result<Vec<FeedHealth>, StoreError>;
}
