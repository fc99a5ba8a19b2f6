//! What changed a tenant's rows after the restore point, as far as a change log says.
//!
//! A plan compares two states, then and now; the log is the third: it says which transaction changed
//! a row last. That is only said of a row that is live as the log's last change left it. Any
//! other was changed after what the log has, however far that goes.
//!
//! *Cost*: one reading of the tenant's changes after the point, sorted by row, on disk if need be.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use reinstate_core::{
    Commit, ContentDigest, ErrorKind, Owner, Position, Repository, RowBatch, RowRef, TableIndex,
    Timestamp,
};
use reinstate_format::{
    ChangeKind, LOG_COMMITS_MAX, LoggedChange, LoggedCommit, NoteKind, PlanNote,
};

use super::cursor::RowCursor;
use crate::image::TenantImage;
use crate::layers::{Layers, Parts, Place, PlaceInLog, last_place};
use crate::log::{Log, LogRun};
use crate::opened::Opened;
use crate::run_stream::RunStream;
use crate::sort::{SortBudget, Sorted, SortedRows, Sorter};
use crate::{Context, Error};

/// Where it is looked up what changed a tenant's rows after the restore point.
#[derive(Clone, Copy)]
pub struct Since<'r> {
    /// The repository that has the log.
    pub repository: &'r dyn Repository,
    /// The log of the images' snapshot.
    pub log: &'r Log,
    /// Numbers of commits: only rows that these changed last go back. A row that one of them changed
    /// and another transaction after it is a conflict, any other difference stays. Whatever
    /// differs goes back if there are none.
    pub only: &'r [u64],
}

impl fmt::Debug for Since<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Since")
            .field("log", &self.log.id())
            .field("only", &self.only)
            .finish_non_exhaustive()
    }
}

/// What changed a row last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// This transaction: the row is as it left it.
    Logged(Commit),
    /// Something that is not in the log.
    Later,
    /// The log does not speak of this table as it is now, or there is none.
    Unknown,
}

/// Whether the transactions that are to be taken back changed a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Touched {
    /// They did not.
    Not,
    /// One of them did, and nothing after it.
    Last,
    /// One of them did, and something else after it.
    Before,
}

impl By {
    /// The transaction, if it is known.
    pub(super) const fn commit(self) -> Option<Commit> {
        match self {
            Self::Logged(commit) => Some(commit),
            Self::Later | Self::Unknown => None,
        }
    }
}

impl<'r> Since<'r> {
    /// Checks that the log is that of the images, and that it has every commit that is to be taken back.
    pub(super) fn check(&self, image: &TenantImage) -> Result<(), Error> {
        let snapshot = self.log.snapshot();
        if snapshot.id != image.snapshot_id() || image.position() < snapshot.position {
            let message = format!(
                "make a plan: the images are of snapshot {}, the log is of {}",
                image.snapshot_id(),
                snapshot.id
            );
            return Err(Error::new(ErrorKind::Usage, message));
        }
        let shown = |commit: u64| Position { commit, ordinal: 0 }.display(snapshot.notation);
        for &commit in self.only {
            let position = Position { commit, ordinal: 0 };
            let is_after = image.position() < position;
            let around = match is_after {
                true => self.log.around(self.repository, position)?,
                false => None,
            };
            let found = around.and_then(|around| around.before);
            if found.is_none_or(|found| found.position.commit != commit) {
                let message = format!(
                    "{}: the change log has no transaction of this position between the restore \
                     point, {}, and its end, {}",
                    shown(commit),
                    shown(image.position().commit),
                    shown(self.log.through().commit)
                );
                return Err(Error::new(ErrorKind::NotRecoverable, message));
            }
        }
        Ok(())
    }
}

impl Since<'_> {
    /// What a reviewer should know of what is left alone.
    pub(super) fn notes(&self) -> impl Iterator<Item = PlanNote> {
        let notation = self.log.snapshot().notation;
        self.only.iter().map(move |&commit| PlanNote {
            kind: NoteKind::OnlyChangedBy,
            object: Position { commit, ordinal: 0 }.display(notation),
            detail: "is taken back: rows that it was not the last to change stay as they are"
                .to_owned(),
            count: 0,
        })
    }
}

/// What is read of a log for the tenants of a plan, each part once.
pub(super) struct Lookup<'r> {
    pub(super) since: Since<'r>,
    opened: Opened<'r>,
    times: RefCell<Times>,
}

impl<'r> Lookup<'r> {
    pub(super) fn of(since: Since<'r>) -> Self {
        Self {
            since,
            opened: Opened::of(since.repository),
            times: RefCell::default(),
        }
    }
}

/// What a log says about one tenant.
pub(super) struct TenantSince<'a> {
    context: Context<'a>,
    lookup: &'a Lookup<'a>,
    after: u64,
    layers: Layers,
    parts: Parts,
    /// How many records of tables come before the restore point, and before the end of the log.
    versions: (usize, usize),
}

impl<'a> TenantSince<'a> {
    pub(super) fn open(
        context: Context<'a>,
        lookup: &'a Lookup<'a>,
        image: &TenantImage,
    ) -> Result<Self, Error> {
        let log = lookup.since.log;
        let owner = Owner::Tenant(image.tenant().id.clone());
        let after = image.position().commit;
        let end = PlaceInLog::end_of(log, log.through());
        let range = (after, end);
        let layers = Layers::between(context, &lookup.opened, log, range, &owner)?;
        let parts = layers.parts(&owner)?;
        Ok(Self {
            context,
            lookup,
            after,
            layers,
            parts,
            versions: (log.version_at(image.position()), end.version),
        })
    }

    /// Bytes read so far.
    pub(super) fn bytes_read(&self) -> u64 {
        self.layers.bytes_read()
    }

    /// What it says about one table of the image; none if the table was altered after the restore point.
    /// To be asked about rows in their order.
    pub(super) fn table(&self, table: TableIndex) -> Result<Option<TableSince<'a>>, Error> {
        let carried = self.lookup.since.log.carry(table, self.versions);
        let Some((table, None)) = carried else {
            return Ok(None);
        };
        let resources = self.context.resources;
        let budget = SortBudget {
            memory_bytes_max: resources.memory_bytes_max() / 8,
            directory: resources.spill_directory().to_owned(),
        };
        let since = &self.lookup.since;
        let time_of = |commit| self.lookup.times.borrow_mut().of(since, commit);
        let mut sorter = Sorter::new(resources.pool(), budget);
        let mut noted = RowBatch::new();
        let mut note = |row: RowRef<'_>| -> Result<(), Error> {
            let change = LoggedChange::read(row).map_err(Error::format("read a change"))?;
            let place = (change.commit, change.ordinal);
            if change.commit <= self.after || place > last_place(since.log.through()) {
                return Ok(());
            }
            let time = time_of(change.commit)?.time;
            noted.clear();
            Entry::push(&change, time, &mut noted);
            noted
                .iter()
                .try_for_each(|row| sorter.push(&[], table, row))
        };
        for place in self.layers.places(table) {
            let parts = self.parts.get(&place).cloned().unwrap_or_default();
            let mut rows = RunStream::new(resources, parts);
            let mut batch = RowBatch::new();
            while rows.next(&mut batch)? {
                self.context.check()?;
                batch.iter().try_for_each(&mut note)?;
            }
            let followed = self.layers.followed(place).into_iter();
            followed.flat_map(RowBatch::iter).try_for_each(&mut note)?;
        }
        let rows = Sorted::merge(vec![sorter.finish()?], resources.memory_bytes_max() / 32)?;
        let places = self.layers.places(table);
        let truncated = places
            .filter_map(|place| self.layers.truncated_in(place))
            .max();
        let truncated = match truncated {
            None => None,
            Some(place) => Some((place, time_of(place.0)?)),
        };
        TableSince::start(rows, truncated, since.only).map(Some)
    }
}

/// When commits were committed: the commits of some runs, at most `LOG_COMMITS_MAX` in all.
#[derive(Default)]
struct Times {
    read: HashMap<usize, Vec<LoggedCommit>>,
    read_count: usize,
}

impl Times {
    fn of(&mut self, since: &Since<'_>, commit: u64) -> Result<Commit, Error> {
        let end = |run: &Arc<LogRun>| run.description.through.commit;
        let index = since.log.runs().partition_point(|run| end(run) < commit);
        let missing = || {
            let message = format!("commit {commit}: the log has its changes and does not list it");
            Error::new(ErrorKind::Corrupt, message)
        };
        let run = since.log.runs().get(index).ok_or_else(missing)?;
        if !self.read.contains_key(&index) {
            let commits = run.commits(since.repository)?;
            if self.read_count + commits.len() > LOG_COMMITS_MAX {
                self.read.clear();
                self.read_count = 0;
            }
            self.read_count += commits.len();
            self.read.insert(index, commits);
        }
        let commits = &self.read[&index];
        let place = commits.binary_search_by_key(&commit, |logged| logged.commit.position.commit);
        place
            .map(|place| commits[place].commit)
            .map_err(|_| missing())
    }
}

/// The changes of one row, as far as it matters what was last.
#[derive(Default)]
struct Entry {
    /// The key, or all columns where there is none.
    identity: Vec<u8>,
    place: Place,
    time: i64,
    is_there: bool,
    /// What the row contains, if it has a key and is there.
    sum: u128,
    /// Whether one of the transactions that are taken back changed it.
    is_touched: bool,
}

/// Bytes of what is noted of a change: place, time, whether the row is there, its content.
const NOTE_BYTES: usize = 8 + 4 + 8 + 1 + 16;

impl Entry {
    /// Notes a change, so that those of a row lie together, by place.
    fn push(change: &LoggedChange<'_>, time: Timestamp, noted: &mut RowBatch) {
        let is_there = change.kind != ChangeKind::Removed;
        let mut columns = Vec::new();
        let mut sum = 0;
        if change.key.is_empty() {
            columns.extend_from_slice(change.columns);
        } else if is_there {
            let mut row = RowBatch::new();
            row.push_parts(change.key, change.columns);
            sum = row.iter().map(content_of).sum();
        }
        columns.extend_from_slice(&change.commit.to_be_bytes());
        columns.extend_from_slice(&change.ordinal.to_be_bytes());
        columns.extend_from_slice(&time.as_micros().to_be_bytes());
        columns.push(u8::from(is_there));
        columns.extend_from_slice(&sum.to_be_bytes());
        noted.push_parts(change.key, &columns);
    }

    fn read(row: RowRef<'_>) -> Self {
        let (columns, note) = row
            .columns()
            .split_last_chunk::<NOTE_BYTES>()
            .expect("BUG: noted in another form");
        let (commit, rest) = take(note);
        let (ordinal, rest) = take(rest);
        let (time, rest) = take(rest);
        let ([is_there], rest) = take(rest);
        let (sum, _) = take(rest);
        let identity = if row.key().is_empty() {
            columns
        } else {
            row.key()
        };
        Self {
            identity: identity.to_vec(),
            place: (u64::from_be_bytes(commit), u32::from_be_bytes(ordinal)),
            time: i64::from_be_bytes(time),
            is_there: is_there == 1,
            sum: u128::from_be_bytes(sum),
            is_touched: false,
        }
    }
}

fn take<const LENGTH: usize>(note: &[u8]) -> ([u8; LENGTH], &[u8]) {
    let (taken, rest) = note
        .split_first_chunk()
        .expect("BUG: noted in another form");
    (*taken, rest)
}

fn content_of(row: RowRef<'_>) -> u128 {
    let mut content = ContentDigest::EMPTY;
    content.add(row);
    content.sum()
}

/// What a log says about the rows of one table, asked in the order of the rows.
pub(super) struct TableSince<'a> {
    rows: SortedRows,
    has_row: bool,
    /// The row whose changes were read last.
    entry: Option<Entry>,
    /// Where the table last lost all its rows.
    truncated: Option<(Place, Commit)>,
    only: &'a [u64],
}

impl<'a> TableSince<'a> {
    fn start(
        mut rows: SortedRows,
        truncated: Option<(Place, Commit)>,
        only: &'a [u64],
    ) -> Result<Self, Error> {
        let has_row = RowCursor::advance(&mut rows)?;
        let mut table = Self {
            rows,
            has_row,
            entry: None,
            truncated,
            only,
        };
        table.next()?;
        Ok(table)
    }

    /// Reads all changes of the next row.
    fn next(&mut self) -> Result<(), Error> {
        self.entry = None;
        while self.has_row {
            let mut found = Entry::read(self.rows.row());
            found.is_touched = self.only.contains(&found.place.0);
            match &mut self.entry {
                Some(entry) if entry.identity != found.identity => break,
                Some(entry) => {
                    found.is_touched |= entry.is_touched;
                    *entry = found;
                }
                none => *none = Some(found),
            }
            self.has_row = RowCursor::advance(&mut self.rows)?;
        }
        Ok(())
    }

    /// What changed this row last, given whether it was there at the restore point and the live row in
    /// its place, and whether transactions that are taken back did.
    pub(super) fn last_change(
        &mut self,
        row: RowRef<'_>,
        was: bool,
        live: Option<RowRef<'_>>,
    ) -> Result<(By, Touched), Error> {
        let has_key = !row.key().is_empty();
        let identity = if has_key { row.key() } else { row.columns() };
        while let Some(entry) = &self.entry
            && entry.identity.as_slice().cmp(identity) == Ordering::Less
        {
            self.next()?;
        }
        let entry = self.entry.as_ref();
        let entry = entry.filter(|entry| entry.identity == identity);
        let is_emptied = |(place, _): (Place, Commit)| was && self.only.contains(&place.0);
        let is_touched =
            entry.is_some_and(|entry| entry.is_touched) || self.truncated.is_some_and(is_emptied);
        let truncated = self.truncated;
        let truncated =
            truncated.filter(|(place, _)| entry.is_none_or(|entry| entry.place < *place));
        let (commit, is_as_left) = match (entry, truncated) {
            (None, None) => return Ok((By::Later, Touched::Not)),
            (_, Some((_, commit))) => (commit, live.is_none() || !has_key),
            (Some(entry), None) => {
                let commit = Commit {
                    position: Position {
                        commit: entry.place.0,
                        ordinal: 0,
                    },
                    time: Timestamp::from_micros(entry.time),
                };
                let is_as_left = match live {
                    _ if !has_key => true,
                    None => !entry.is_there,
                    Some(live) => entry.is_there && entry.sum == content_of(live),
                };
                (commit, is_as_left)
            }
        };
        let by = match is_as_left {
            true => By::Logged(commit),
            false => By::Later,
        };
        let is_last = is_as_left && self.only.contains(&commit.position.commit);
        let touched = match (is_touched, is_last) {
            (false, _) => Touched::Not,
            (true, true) => Touched::Last,
            (true, false) => Touched::Before,
        };
        Ok((by, touched))
    }
}
