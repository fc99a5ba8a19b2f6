//! Follow: what is committed to a live store becomes its log, run by run.
//!
//! *Crash consistency*: read, seal, publish, and only then let the store forget. Whatever ends this
//! process, the next one finds the last published run and goes on behind it: what was read and not
//! published comes again, what was published and not acknowledged is passed over.

use reinstate_core::{
    Change, ChangeByKey, ChangeFeed, ChangeSink, Commit, ContentDigest, ErrorKind, FeedProgress,
    FeedRow, FeedSource, FeedTables, Owner, Position, Repository, RowRef, SchemaChange,
    SnapshotDescription, SnapshotId, StoreError, TableIndex, Timestamp,
};
use reinstate_format::{ChangeKind, FamilyMove, LOG_PACK_RECORDS_MAX, LoggedChange, LoggedCommit};

use super::chain::{Link, Log, LogRun, log_of};
use super::kept::KeptRows;
use super::origin::check_same;
use super::owners::{Found, Owners};
use super::seal::{Gathering, Seal, check};
use super::waiting::Waiting;
use crate::capture::{CaptureOptions, capture_view};
use crate::{Context, Error};

/// How a log is followed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FollowOptions {
    /// zstd level, 1 to 19.
    pub compression_level: i32,
    /// A run is sealed at the next commit after this many bytes of changes.
    pub run_bytes_target: u64,
    /// Once so many records are in no pack, they are packed: between 1 and
    /// [`LOG_PACK_RECORDS_MAX`].
    pub pack_records: usize,
}

impl Default for FollowOptions {
    /// Level 3, runs of 64 MiB before compression at most, a pack for every 512 records.
    fn default() -> Self {
        Self {
            compression_level: 3,
            run_bytes_target: 64 << 20,
            pack_records: 512,
        }
    }
}

/// What one step of following did.
#[derive(Clone, Debug)]
pub struct FollowStep {
    /// The runs that were published, in order.
    pub sealed: Vec<LogRun>,
    /// How often the tables changed, and the log went on with others.
    pub versions: usize,
    /// Whether the store has more already.
    pub has_more: bool,
}

/// Takes a snapshot that a log can go on from, and starts the store's feed exactly there.
///
/// # Errors
/// As [`capture`](crate::capture()); `Refused` if the store cannot be followed. The store keeps
/// nothing then.
pub fn begin_log(
    context: Context<'_>,
    source: &dyn FeedSource,
    repository: &dyn Repository,
    options: &CaptureOptions,
) -> Result<SnapshotDescription, Error> {
    let view = source
        .begin_feed(options.snapshot)
        .map_err(Error::store("start to follow the store"))?;
    let live: &dyn reinstate_core::LiveStore = source;
    capture_view(context, view, live, repository, options).inspect_err(|_| {
        // Without its snapshot the feed is of no use, and the store would keep everything for it. If
        // this fails too, the feed is still there to be ended by name.
        let _ = source.end_feed(options.snapshot);
    })
}

/// Follows one log.
pub struct Follower<'a> {
    context: Context<'a>,
    repository: &'a dyn Repository,
    options: FollowOptions,
    log: Log,
    owners: Owners,
    kept: KeptRows,
    feed: Box<dyn ChangeFeed + 'a>,
    /// Whether the log has what the store says of its tables now.
    is_noted: bool,
}

impl std::fmt::Debug for Follower<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Follower")
            .field("log", &self.log.snapshot().id)
            .finish_non_exhaustive()
    }
}

impl<'a> Follower<'a> {
    /// Goes on with the log of a snapshot, behind its last run. That of a snapshot that was made of a log
    /// is that log, as long as its first snapshot is there.
    ///
    /// # Errors
    /// `NotRecoverable` if the store forgot what comes after the last run; `NotFound` if it keeps
    /// nothing for this log; `Stale` if its tables are no longer those of the log, and it cannot be said
    /// what became of their rows.
    pub fn start(
        context: Context<'a>,
        source: &'a dyn FeedSource,
        repository: &'a dyn Repository,
        snapshot: SnapshotId,
        options: FollowOptions,
    ) -> Result<Self, Error> {
        let log = whole_log(repository, log_of(repository, snapshot)?)?;
        check_same(repository, &log, source)?;
        let tables = FeedTables {
            schema: log.last_schema(),
            facts: log.last_facts(),
            last: last_commit(repository, &log)?,
        };
        let feed = source
            .resume_feed_with(log.id(), log.through(), tables)
            .map_err(Error::store(format!(
                "follow the log of snapshot {}",
                snapshot.short()
            )))?;
        Self::with_feed(context, feed, repository, log, options)
    }

    /// Goes on with a log by a feed that is open already, and hands out what was committed behind the
    /// log's last run.
    ///
    /// # Errors
    /// `Stale` if the feed's tables are not those of the snapshot; `NotRecoverable` if the log's last
    /// record is damaged.
    pub fn with_feed(
        context: Context<'a>,
        feed: Box<dyn ChangeFeed + 'a>,
        repository: &'a dyn Repository,
        log: Log,
        options: FollowOptions,
    ) -> Result<Self, Error> {
        check(&log, feed.schema())?;
        let owners = super::known::owners(context, repository, &log)?;
        Ok(Self {
            context,
            repository,
            options,
            log,
            owners,
            kept: KeptRows::default(),
            feed,
            is_noted: false,
        })
    }

    /// The log as far as it is published.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Commits a mark to the store: after the next step the log proves that nothing else was
    /// committed before it.
    ///
    /// # Errors
    /// As the store reports it.
    pub fn mark(&mut self) -> Result<(), Error> {
        self.feed
            .mark()
            .map_err(Error::store("leave a mark in the store"))
    }

    /// Reads what was committed, publishes it, and lets the store forget it. `now` is noted as the
    /// time of sealing.
    ///
    /// # Errors
    /// `Stale` or `NotRecoverable` if the log ends here: every whole transaction before was published.
    /// `Locked` if somebody else follows the same log. After an error the follower is of no further
    /// use.
    pub fn step(&mut self, now: Timestamp) -> Result<FollowStep, Error> {
        let seal = Seal {
            context: self.context,
            repository: self.repository,
            compression_level: self.options.compression_level,
            sealed_at: now,
        };
        self.note_facts(&seal)?;
        let (first, versions) = (self.log.runs().len(), self.log.versions().len());
        let mut receiver = Receiver {
            seal,
            log: &mut self.log,
            owners: &mut self.owners,
            kept: &mut self.kept,
            gathering: Some(Gathering::start(self.context)),
            bytes_target: self.options.run_bytes_target,
            ordinal: 0,
            waiting: Waiting::new(self.context),
        };
        let read = self.feed.read(self.options.run_bytes_target, &mut receiver);
        let sealed = receiver.finish(read.as_ref().ok());
        let read = read.map_err(Error::store("read what was committed"));
        let progress = match (read, sealed) {
            (Ok(progress), Ok(())) => progress,
            // What failed while sealing is the cause of what the feed reports, or hides nothing of it.
            (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
        };
        let sealed: Vec<LogRun> = self.log.runs()[first..]
            .iter()
            .map(|run| run.as_ref().clone())
            .collect();
        if !sealed.is_empty() {
            let through = self.log.through();
            self.feed
                .acknowledge(through)
                .map_err(Error::store("let the store forget what was published"))?;
        }
        let pack_records = self.options.pack_records.clamp(1, LOG_PACK_RECORDS_MAX);
        self.log.pack(self.repository, pack_records)?;
        Ok(FollowStep {
            sealed,
            versions: self.log.versions().len() - versions,
            has_more: progress.has_more,
        })
    }
}

impl Follower<'_> {
    /// Notes what the store says of its tables, unless the log has it: whoever goes on with the log can
    /// tell then what became of them.
    fn note_facts(&mut self, seal: &Seal<'_>) -> Result<(), Error> {
        let facts = if self.is_noted {
            None
        } else {
            self.feed.facts()
        };
        self.is_noted = true;
        let Some(facts) = facts.filter(|facts| self.log.last_facts() != Some(facts)) else {
            return Ok(());
        };
        let change = SchemaChange::unchanged(self.log.last_schema(), facts);
        let version = seal.note_tables(&self.log, &change)?;
        self.log.push(self.repository, Link::Version(version));
        Ok(())
    }
}

/// The log that a snapshot was made of, in place of what came after that snapshot. Only there is what the
/// store said of its tables.
fn whole_log(repository: &dyn Repository, log: Log) -> Result<Log, Error> {
    if log.id() == log.snapshot().id {
        return Ok(log);
    }
    let whole = log_of(repository, log.id()).map_err(|error| {
        let message = format!(
            "snapshot {} was made of the log of snapshot {}, which cannot be gone on with",
            log.snapshot().id.short(),
            log.id().short()
        );
        Error::because(error.kind(), message, error)
    })?;
    if whole.through() < log.through() {
        let message = format!(
            "snapshot {} was made of the log of snapshot {}, of which records are missing since: nothing goes \
             on from there. Take a new snapshot",
            log.snapshot().id.short(),
            log.id().short()
        );
        return Err(Error::new(ErrorKind::NotRecoverable, message));
    }
    Ok(whole)
}

/// The last transaction of a log.
fn last_commit(repository: &dyn Repository, log: &Log) -> Result<Option<Commit>, Error> {
    let mut runs = log.runs().iter().rev();
    let Some(run) = runs.find(|run| run.description.commit_count > 0) else {
        return Ok(None);
    };
    let commits = run.commits(repository)?;
    Ok(commits.last().map(|logged| logged.commit))
}

/// Takes changes from the feed, finds their owners and gathers them.
struct Receiver<'r> {
    seal: Seal<'r>,
    log: &'r mut Log,
    owners: &'r mut Owners,
    kept: &'r mut KeptRows,
    /// None only while a run is being sealed.
    gathering: Option<Gathering<'r>>,
    bytes_target: u64,
    /// The next change's place in its transaction.
    ordinal: u32,
    waiting: Waiting,
}

impl ChangeSink for Receiver<'_> {
    fn change(&mut self, change: Change<'_>) -> Result<(), StoreError> {
        let noted = self.kept.note(change);
        let taken = noted.and_then(|()| self.take_change(change));
        taken.map_err(Error::into_store_error)
    }

    fn change_by_key(&mut self, change: ChangeByKey<'_>) -> Result<(), StoreError> {
        let whole = self.kept.whole(self.log, change);
        let taken = whole.and_then(|whole| self.take_change(whole.change()));
        taken.map_err(Error::into_store_error)
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        self.take_commit(commit).map_err(Error::into_store_error)
    }

    fn tables(&mut self, change: &SchemaChange) -> Result<(), StoreError> {
        self.take_tables(change).map_err(Error::into_store_error)
    }

    fn told_by_key(&mut self, tables: &[TableIndex]) -> Result<(), StoreError> {
        let (context, repository) = (self.seal.context, self.seal.repository);
        let kept = self.kept.keep(context, repository, self.log, tables);
        kept.map_err(Error::into_store_error)
    }
}

impl<'r> Receiver<'r> {
    fn take_change(&mut self, change: Change<'_>) -> Result<(), Error> {
        if !self.waiting.is_empty() {
            return self.waiting.push(change);
        }
        match change {
            Change::Insert { table, row } => match self.owners.after(table, row)? {
                Found::Owner(owner) => self.insert(table, row.row, &owner),
                Found::Nowhere => self.waiting.push(change),
            },
            Change::Update {
                table,
                before,
                after,
            } => match self.owners.after(table, after)? {
                Found::Owner(owner) => self.update(table, before, after.row, &owner),
                Found::Nowhere => self.waiting.push(change),
            },
            Change::Delete { table, before } => self.delete(table, before),
            Change::Truncate { table } => self.truncate(table),
        }
    }

    fn take_commit(&mut self, commit: Commit) -> Result<(), Error> {
        self.release()?;
        self.owners.end_transaction()?;
        let last = self.gathering().commits().last();
        let last = last.map(|logged| logged.commit.position);
        let last = last.unwrap_or_else(|| self.log.through());
        if commit.position <= last {
            let notation = self.log.snapshot().notation;
            let message = format!(
                "the store hands out commit {} after {}",
                commit.position.display(notation),
                last.display(notation)
            );
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        let change_count = u64::from(std::mem::take(&mut self.ordinal));
        let bytes_target = self.bytes_target;
        let gathering = self.gathering();
        gathering.commit(LoggedCommit {
            commit,
            change_count,
        });
        if gathering.is_full(bytes_target) {
            self.seal(commit.position)?;
        }
        Ok(())
    }

    /// Goes on with other tables: what was gathered is in the tables as they were.
    fn take_tables(&mut self, change: &SchemaChange) -> Result<(), Error> {
        let is_between = self.ordinal == 0 && self.waiting.is_empty();
        if !is_between {
            let message = "the store hands out other tables within a transaction";
            return Err(Error::new(ErrorKind::Corrupt, message));
        }
        if let Some(last) = self.gathering().commits().last() {
            let through = last.commit.position;
            self.seal(through)?;
        }
        let version = self.seal.note_tables(self.log, change)?;
        let (context, repository) = (self.seal.context, self.seal.repository);
        self.log.push(repository, Link::Version(version));
        *self.owners = super::known::owners(context, repository, self.log)?;
        self.kept.forget();
        Ok(())
    }

    /// Handles what waited for rows that were written later in the same transaction.
    fn release(&mut self) -> Result<(), Error> {
        let waited = self.waiting.take();
        if waited.is_empty() {
            return Ok(());
        }
        // What a row goes by is known first, wherever in the transaction it was written; how it goes on
        // from there is followed when it is asked for.
        for (table, row) in waited.gone() {
            self.owners.expect_to_go(table, row);
        }
        for (_, table, row) in waited.written() {
            self.owners.expect(table, row)?;
        }
        for (number, change) in waited.changes().enumerate() {
            match change {
                Change::Insert { table, row } => self.owners.come(table, row.row),
                Change::Update { table, after, .. } => self.owners.come(table, after.row),
                Change::Delete { .. } | Change::Truncate { .. } => {}
            }
            self.released(change)?;
            if let Change::Truncate { table } = change {
                let later = waited.written();
                for (_, _, row) in later.filter(|&(at, of, _)| number < at && of == table) {
                    self.owners.expect_after_truncation(table, row)?;
                }
            }
        }
        self.owners.expect_nothing();
        Ok(())
    }

    fn released(&mut self, change: Change<'_>) -> Result<(), Error> {
        let or_nobody = |found: Found| match found {
            Found::Owner(owner) => owner,
            Found::Nowhere => Vec::new(),
        };
        match change {
            Change::Insert { table, row } => {
                let owner = or_nobody(self.owners.after(table, row)?);
                self.insert(table, row.row, &owner)
            }
            Change::Update {
                table,
                before,
                after,
            } => {
                let owner = or_nobody(self.owners.after(table, after)?);
                self.update(table, before, after.row, &owner)
            }
            Change::Delete { table, before } => self.delete(table, before),
            Change::Truncate { table } => self.truncate(table),
        }
    }

    fn insert(&mut self, table: TableIndex, row: RowRef<'_>, owner: &[u8]) -> Result<(), Error> {
        let was = self.owners.insert(table, row)?;
        self.push(table, owner, row, ChangeKind::Inserted, None)?;
        match was {
            Some(was) => self.move_family(table, &was, owner),
            None => Ok(()),
        }
    }

    fn update(
        &mut self,
        table: TableIndex,
        before: FeedRow<'_>,
        after: RowRef<'_>,
        owner: &[u8],
    ) -> Result<(), Error> {
        let was = self.owners.before(table, before)?;
        self.owners.update(table, before.row, after)?;
        let same_place = was == owner && !after.key().is_empty() && before.row.key() == after.key();
        if same_place {
            return self.push(table, owner, after, ChangeKind::Updated, Some(before.row));
        }
        self.push(
            table,
            &was,
            before.row,
            ChangeKind::Removed,
            Some(before.row),
        )?;
        self.push(table, owner, after, ChangeKind::Inserted, None)?;
        self.move_family(table, &was, owner)
    }

    /// Notes that the row inserted last takes along what goes by it, which nobody wrote.
    fn move_family(&mut self, table: TableIndex, from: &[u8], to: &[u8]) -> Result<(), Error> {
        if from == to || !self.owners.is_named(table) {
            return Ok(());
        }
        let owner = |bytes: &[u8]| {
            Owner::from_bytes(bytes)
                .map_err(|error| Error::new(ErrorKind::Refused, format!("read an owner: {error}")))
        };
        let moved = FamilyMove {
            // Filled in where the run is gathered.
            commit: 0,
            ordinal: self.ordinal - 1,
            table,
            from: owner(from)?,
            to: owner(to)?,
        };
        self.gathering().moved(moved);
        Ok(())
    }

    fn delete(&mut self, table: TableIndex, before: FeedRow<'_>) -> Result<(), Error> {
        let owner = self.owners.before(table, before)?;
        self.owners.remove(table, before.row)?;
        self.push(
            table,
            &owner,
            before.row,
            ChangeKind::Removed,
            Some(before.row),
        )
    }

    fn truncate(&mut self, table: TableIndex) -> Result<(), Error> {
        self.owners.truncate(table)?;
        let ordinal = self.next_ordinal()?;
        self.gathering().truncate(table, ordinal);
        Ok(())
    }

    fn push(
        &mut self,
        table: TableIndex,
        owner: &[u8],
        row: RowRef<'_>,
        kind: ChangeKind,
        was: Option<RowRef<'_>>,
    ) -> Result<(), Error> {
        let mut content = ContentDigest::EMPTY;
        was.into_iter().for_each(|row| content.add(row));
        let is_bare = kind == ChangeKind::Removed && !row.key().is_empty();
        let change = LoggedChange {
            key: row.key(),
            columns: if is_bare { &[] } else { row.columns() },
            // Filled in where the run is gathered.
            commit: 0,
            ordinal: self.next_ordinal()?,
            kind,
            was: content.sum(),
        };
        self.gathering().push(owner, table, change)
    }

    fn next_ordinal(&mut self) -> Result<u32, Error> {
        let ordinal = self.ordinal;
        self.ordinal = ordinal.checked_add(1).ok_or_else(|| {
            let message = "a transaction of more than 2^32 changes";
            Error::new(ErrorKind::Refused, message)
        })?;
        Ok(ordinal)
    }

    fn gathering(&mut self) -> &mut Gathering<'r> {
        self.gathering
            .as_mut()
            .expect("BUG: gathering while a run is sealed")
    }

    fn seal(&mut self, through: Position) -> Result<(), Error> {
        let gathering = self.gathering.take().expect("BUG: sealing twice");
        let run = self.seal.seal(self.log, gathering, through)?;
        self.log.push(self.seal.repository, Link::Run(run.into()));
        self.gathering = Some(Gathering::start(self.seal.context));
        Ok(())
    }

    /// Seals what is left: all whole transactions, whatever came of the one behind them.
    fn finish(mut self, progress: Option<&FeedProgress>) -> Result<(), Error> {
        let Some(gathering) = &self.gathering else {
            return Ok(());
        };
        let Some(last) = gathering.commits().last() else {
            return Ok(());
        };
        let last = last.commit.position;
        // How far beyond its last transaction a feed that failed got is not known.
        let through = progress.map_or(last, |progress| progress.through.max(last));
        self.seal(through)
    }
}
