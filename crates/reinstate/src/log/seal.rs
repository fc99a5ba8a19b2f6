//! Sealing a run: changes gathered by owner become an object, and a record makes it part of the log.
//!
//! *Crash consistency*: the object first, durable, then the record by put-if-absent, under the name
//! that follows from the record before. Until the record is there nobody sees the run; if another
//! follower published one first, this one is refused and nothing of it counts.

use reinstate_core::{
    ErrorKind, Owner, Position, Repository, RowBuilder, RowRole, SchemaChange, SchemaChangeError,
    StoreSchema, TableIndex, Timestamp,
};
use reinstate_format::{
    FamilyMove, LOG_COMMITS_MAX, LogRunDescription, LogRunExtent, LogVersionDescription,
    LoggedChange, LoggedCommit, RunKey, Truncation, encode_commits, encode_log_run,
    encode_log_version, link_name, log_run_identity, push_change,
};

use super::chain::{LOG_RECORD, Log, LogRun};
use super::versions::LogVersion;
use crate::segment_writer::{OpenRun, SegmentWriter};
use crate::sort::{Cursor, SortBudget, Sorted, SortedRows, Sorter};
use crate::{Context, Error};

/// Changes on their way into a run.
///
/// While a transaction is under way its position is not known yet: until the run is sealed a change
/// carries the number of its transaction in the run instead, which orders changes alike. What belongs
/// to a transaction that did not end is left out.
pub(crate) struct Gathering<'a> {
    sorter: Sorter<'a>,
    commits: Vec<LoggedCommit>,
    truncations: Vec<Truncation>,
    moves: Vec<FamilyMove>,
    plain_bytes: u64,
    change: RowBuilder,
}

impl<'a> Gathering<'a> {
    pub(crate) fn start(context: Context<'a>) -> Self {
        let resources = context.resources;
        let budget = SortBudget {
            memory_bytes_max: resources.memory_bytes_max() / 4,
            directory: resources.spill_directory().to_owned(),
        };
        Self {
            sorter: Sorter::new(resources.pool(), budget),
            commits: Vec::new(),
            truncations: Vec::new(),
            moves: Vec::new(),
            plain_bytes: 0,
            change: RowBuilder::new(),
        }
    }

    /// Adds a change of the transaction that is under way; its number is filled in here.
    pub(crate) fn push(
        &mut self,
        owner: &[u8],
        table: TableIndex,
        change: LoggedChange<'_>,
    ) -> Result<(), Error> {
        let commit = self.commits.len() as u64;
        push_change(LoggedChange { commit, ..change }, &mut self.change);
        self.plain_bytes += self.change.row().body().len() as u64;
        self.sorter.push(owner, table, self.change.row())
    }

    /// Notes that a table lost all its rows in the transaction that is under way.
    pub(crate) fn truncate(&mut self, table: TableIndex, ordinal: u32) {
        let commit = self.commits.len() as u64;
        self.truncations.push(Truncation {
            commit,
            ordinal,
            table,
        });
    }

    /// Notes that the row which the last change inserted took others along from its owner before.
    pub(crate) fn moved(&mut self, moved: FamilyMove) {
        let commit = self.commits.len() as u64;
        self.moves.push(FamilyMove { commit, ..moved });
    }

    /// Ends the transaction that is under way.
    pub(crate) fn commit(&mut self, commit: LoggedCommit) {
        self.commits.push(commit);
    }

    /// Whether it is time to seal, after a commit.
    pub(crate) fn is_full(&self, bytes_target: u64) -> bool {
        self.plain_bytes >= bytes_target || self.commits.len() == LOG_COMMITS_MAX
    }

    pub(crate) fn commits(&self) -> &[LoggedCommit] {
        &self.commits
    }
}

/// How a run is sealed.
pub(crate) struct Seal<'a> {
    pub(crate) context: Context<'a>,
    pub(crate) repository: &'a dyn Repository,
    pub(crate) compression_level: i32,
    pub(crate) sealed_at: Timestamp,
}

impl Seal<'_> {
    /// Publishes what was gathered as the log's next run, which ends at `through`.
    pub(crate) fn seal(
        &self,
        log: &Log,
        gathering: Gathering<'_>,
        through: Position,
    ) -> Result<LogRun, Error> {
        let repository = self.repository;
        let identity = log_run_identity(repository.id(), log.tip());
        let object = repository
            .create_object()
            .map_err(Error::repository("create a log run"))?;
        let mut writer =
            SegmentWriter::start(self.context, identity, object, self.compression_level)?;
        let memory = self.context.resources.memory_bytes_max() / 16;
        let changes = Sorted::merge(vec![gathering.sorter.finish()?], memory)?;
        write_changes(changes, &gathering.commits, &mut writer)?;
        let mut segment = writer.finish()?;
        let (commits, commits_digest) = encode_commits(identity.container, &gathering.commits);
        segment
            .object
            .write(&commits)
            .map_err(Error::repository("write the commits of a log run"))?;
        let (object, end) = segment.seal()?;
        let description = LogRunDescription {
            log: log.id(),
            number: log.next_number(),
            previous: *log.tip(),
            after: log.through(),
            through,
            commit_count: gathering.commits.len() as u64,
            latest_time: gathering
                .commits
                .iter()
                .map(|logged| logged.commit.time)
                .max(),
            sealed_at: self.sealed_at,
            schema_digest: log.last_schema_digest(),
            truncations: placed(&gathering.truncations, &gathering.commits),
            moves: moved(gathering.moves, &gathering.commits),
            extent: LogRunExtent {
                object,
                segment_bytes: end.segment_bytes,
                root: end.root,
                first_owner: end.first_owner,
                last_owner: end.last_owner,
                change_count: end.row_count,
                commits_bytes: commits.len() as u64,
                commits_digest,
            },
        };
        let (bytes, digest) = encode_log_run(repository.id(), &description);
        self.publish(log, &bytes)?;
        Ok(LogRun {
            description,
            digest,
        })
    }

    /// Publishes which tables the runs are written in that follow.
    pub(crate) fn note_tables(
        &self,
        log: &Log,
        change: &SchemaChange,
    ) -> Result<LogVersion, Error> {
        let change = goes_on(log, change)?;
        let description = LogVersionDescription {
            log: log.id(),
            number: log.next_number(),
            previous: *log.tip(),
            after: log.through(),
            noted_at: self.sealed_at,
            change,
        };
        let (bytes, digest) = encode_log_version(self.repository.id(), &description);
        self.publish(log, &bytes)?;
        Ok(LogVersion::new(description, digest))
    }

    /// Publishes the next record of a log.
    fn publish(&self, log: &Log, bytes: &[u8]) -> Result<(), Error> {
        let name = link_name(self.repository.id(), log.tip());
        let published = self.repository.publish(LOG_RECORD, name, bytes);
        published.map_err(|error| match error.kind() {
            ErrorKind::Conflict => {
                let message = format!(
                    "publish run {} of the log of snapshot {}: somebody else follows the same log",
                    log.next_number(),
                    log.id().short()
                );
                Error::new(ErrorKind::Locked, message).caused_by(error)
            }
            _ => Error::repository("publish a log run")(error),
        })
    }
}

/// A change that goes on from the tables of the log, whatever the feed took it from.
fn goes_on(log: &Log, change: &SchemaChange) -> Result<SchemaChange, Error> {
    let checked = SchemaChange::try_new(
        log.last_schema(),
        change.schema().clone(),
        change.origins().to_vec(),
        change.facts().to_vec(),
    );
    checked.map_err(|error: SchemaChangeError| {
        let message = format!(
            "follow the log of snapshot {}: {error}. Everything up to {} stays recoverable; a new \
             snapshot starts a new log",
            log.snapshot().id.short(),
            log.through().display(log.snapshot().notation)
        );
        Error::new(ErrorKind::Stale, message)
    })
}

/// Writes changes that are sorted by owner, table and row into one segment, each with the position of
/// its commit.
fn write_changes(
    mut rows: SortedRows,
    commits: &[LoggedCommit],
    writer: &mut SegmentWriter<'_>,
) -> Result<(), Error> {
    let mut open: Option<OpenRun> = None;
    let mut placed = RowBuilder::new();
    while rows.advance()? {
        let item = rows.current();
        let change = LoggedChange::read(item.row).map_err(Error::format("seal a log run"))?;
        let Some(commit) = position_of(change.commit, commits) else {
            continue;
        };
        push_change(LoggedChange { commit, ..change }, &mut placed);
        let same = open.as_ref().is_some_and(|run| {
            run.key().table == item.table && run.key().owner.as_bytes() == item.owner
        });
        if !same {
            if let Some(run) = open.take() {
                writer.close(run)?;
            }
            let owner = Owner::from_bytes(item.owner).map_err(|error| {
                Error::new(ErrorKind::Refused, format!("read an owner: {error}"))
            })?;
            open = Some(OpenRun::new(RunKey {
                owner,
                table: item.table,
                role: RowRole::Image,
            }));
        }
        let run = open.as_mut().expect("BUG: no run was opened");
        writer.append(run, placed.row())?;
    }
    if let Some(run) = open {
        writer.close(run)?;
    }
    Ok(())
}

/// The truncations of transactions that ended, with the positions of their commits.
fn placed(truncations: &[Truncation], commits: &[LoggedCommit]) -> Vec<Truncation> {
    let placed = truncations.iter().filter_map(|truncation| {
        let commit = position_of(truncation.commit, commits)?;
        Some(Truncation {
            commit,
            ..*truncation
        })
    });
    placed.collect()
}

/// The moves of transactions that ended, with the positions of their commits.
fn moved(moves: Vec<FamilyMove>, commits: &[LoggedCommit]) -> Vec<FamilyMove> {
    let placed = moves.into_iter().filter_map(|moved| {
        let commit = position_of(moved.commit, commits)?;
        Some(FamilyMove { commit, ..moved })
    });
    placed.collect()
}

/// The position of a transaction of the run, by its number there.
fn position_of(number: u64, commits: &[LoggedCommit]) -> Option<u64> {
    let logged = commits.get(usize::try_from(number).ok()?)?;
    Some(logged.commit.position.commit)
}

/// Refuses a log that cannot be gone on with, and a feed whose tables are not those of the log.
pub(crate) fn check(log: &Log, schema: &StoreSchema) -> Result<(), Error> {
    if let Some(damage) = log.damage() {
        let message = format!("go on with a log whose last record is damaged: {damage}");
        return Err(Error::new(ErrorKind::NotRecoverable, message));
    }
    if *log.last_schema() == *schema {
        return Ok(());
    }
    let message = format!(
        "follow the log of snapshot {}: the tables are no longer those of the log. Everything \
         up to {} stays recoverable; a new snapshot starts a new log",
        log.snapshot().id.short(),
        log.through().display(log.snapshot().notation)
    );
    Err(Error::new(ErrorKind::Stale, message))
}
