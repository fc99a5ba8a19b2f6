//! Finding a snapshot's log: from record to record, each of which names what it follows.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use reinstate_core::{
    Digest, ErrorKind, ObjectId, ObjectReader, Position, Repository, SnapshotDescription,
    SnapshotId, TableIndex, Timestamp,
};
use reinstate_format::{
    LogBase, LogRunDescription, LoggedCommit, SegmentReader, decode_log_base, decode_log_run,
    decode_log_version, decode_snapshot, is_log_version, link_name, log_version_place,
    open_log_run, record_digest,
};

use super::pack::{Records, pack};
use super::versions::LogVersion;

use crate::Error;
use crate::capture::SNAPSHOT_RECORD;
use crate::verify::chain;

/// Name of the kind of record that a log run has.
pub(crate) const LOG_RECORD: &str = "log";

/// Name of the kind of record of a snapshot that was made from a log.
pub(crate) const BASE_RECORD: &str = "base";

/// A snapshot, and what was committed after it as far as that is known without a gap.
#[derive(Clone, Debug)]
pub struct Log {
    snapshot: Arc<SnapshotDescription>,
    /// The snapshot that names the log: this one, or the one that this one was made from.
    id: SnapshotId,
    /// The place of the first of the runs in the log.
    first_number: u64,
    runs: Vec<Arc<LogRun>>,
    /// Where its tables changed, in order.
    pub(super) versions: Vec<LogVersion>,
    tip: Digest,
    /// The names of its last records, which are in no pack.
    unpacked: Vec<[u8; 16]>,
    /// Why the next record cannot be read, if there is one.
    damage: Option<String>,
}

/// One run of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRun {
    /// What its record says.
    pub description: LogRunDescription,
    /// Its record's digest.
    pub digest: Digest,
}

/// A run that no log leads to: one before it is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreachable {
    /// The name of its record.
    pub name: [u8; 16],
    /// The snapshot whose log it belongs to, and its place there; none if it cannot be read.
    pub place: Option<(SnapshotId, u64)>,
}

/// The log of one snapshot. It ends before a record that is damaged: what lies before it is as good
/// as ever.
///
/// *Cost*: reads one record for each pack of runs, and one for each run behind the last pack.
///
/// # Errors
/// `NotFound` if there is no such snapshot; `Corrupt` if its manifest is not what was written; `Other`
/// if a record cannot be read for a reason that may pass.
pub fn log_of(repository: &dyn Repository, snapshot: SnapshotId) -> Result<Log, Error> {
    log_with(snapshot, &mut Known::of(repository)?)
}

/// Records that were read already, by their names, with whether they came from a pack: logs of snapshots
/// that were made of each other share most of them.
struct Known<'r> {
    repository: &'r dyn Repository,
    records: Records<'r>,
    links: HashMap<[u8; 16], (Link, bool)>,
}

impl<'r> Known<'r> {
    fn of(repository: &'r dyn Repository) -> Result<Self, Error> {
        Ok(Self {
            repository,
            records: Records::of(repository)?,
            links: HashMap::new(),
        })
    }
}

/// A record of a log.
#[derive(Clone, Debug)]
pub(super) enum Link {
    Run(Arc<LogRun>),
    Version(LogVersion),
}

fn log_with(snapshot: SnapshotId, known: &mut Known<'_>) -> Result<Log, Error> {
    let repository = known.repository;
    let operation = || format!("read the log of snapshot {snapshot}");
    let bytes = repository
        .read(SNAPSHOT_RECORD, *snapshot.as_bytes())
        .map_err(Error::repository(operation()))?;
    let description =
        decode_snapshot(&bytes, repository.id(), snapshot).map_err(Error::format(operation()))?;
    let digest = record_digest(&bytes).map_err(Error::format(operation()))?;
    let base = base_of(repository, snapshot)?;
    let first_number = match base {
        None => 0,
        Some(base) => base.number.checked_add(1).ok_or_else(|| {
            let message = format!("{}: no log has so many runs", operation());
            Error::new(ErrorKind::Corrupt, message)
        })?,
    };
    let mut log = Log {
        snapshot: Arc::new(description),
        id: base.map_or(snapshot, |base| base.log),
        first_number,
        runs: Vec::new(),
        versions: Vec::new(),
        tip: base.map_or(digest, |base| base.run),
        unpacked: Vec::new(),
        damage: None,
    };
    log.extend(known)?;
    Ok(log)
}

/// What a snapshot was made from, if from a log.
fn base_of(repository: &dyn Repository, snapshot: SnapshotId) -> Result<Option<LogBase>, Error> {
    let operation = || format!("read what snapshot {snapshot} was made from");
    match repository.read(BASE_RECORD, *snapshot.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => {
            let bytes = read.map_err(Error::repository(operation()))?;
            decode_log_base(&bytes, repository.id(), snapshot)
                .map(Some)
                .map_err(Error::format(operation()))
        }
    }
}

/// The logs of all snapshots of the repository, by store and position, and the runs that none of them
/// leads to: the logs that those belonged to are [damaged](Log::damage).
///
/// # Errors
/// As [`log_of`].
pub fn logs(repository: &dyn Repository) -> Result<(Vec<Log>, Vec<Unreachable>), Error> {
    let mut known = Known::of(repository)?;
    let mut logs = all_logs(&mut known)?;
    let names = repository
        .list(LOG_RECORD)
        .map_err(Error::repository("list the runs of logs"))?;
    let lost = |logs: &[Log]| {
        let mut lost: BTreeSet<[u8; 16]> = names.iter().copied().collect();
        for previous in logs.iter().flat_map(Log::previous) {
            lost.remove(&link_name(repository.id(), previous));
        }
        lost
    };
    let mut unreachable = lost(&logs);
    if !unreachable.is_empty() {
        // They may have been sealed since the logs were read, even of a snapshot that is younger.
        logs = all_logs(&mut known)?;
        unreachable = lost(&logs);
    }
    let unreachable = unreachable.into_iter().map(|name| Unreachable {
        name,
        place: place_of(repository, name),
    });
    let unreachable: Vec<Unreachable> = unreachable.collect();
    for lost in &unreachable {
        logs.iter_mut().for_each(|log| log.note_hole(lost));
    }
    Ok((logs, unreachable))
}

fn all_logs(known: &mut Known<'_>) -> Result<Vec<Log>, Error> {
    let repository = known.repository;
    crate::catalogue::snapshots(repository)?
        .iter()
        .map(|snapshot| log_with(snapshot.id, known))
        .collect()
}

/// Which run a record is, taken by its own word: it is only named in a message.
fn place_of(repository: &dyn Repository, name: [u8; 16]) -> Option<(SnapshotId, u64)> {
    let bytes = repository.read(LOG_RECORD, name).ok()?;
    if is_log_version(&bytes) {
        return log_version_place(&bytes).ok();
    }
    let previous = reinstate_format::log_run_previous(&bytes).ok()?;
    let (run, _) = decode_log_run(&bytes, repository.id(), &previous).ok()?;
    Some((run.log, run.number))
}

impl Log {
    /// The snapshot that the log goes on from.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<SnapshotDescription> {
        &self.snapshot
    }

    /// Its runs, each following the one before.
    #[must_use]
    pub fn runs(&self) -> &[Arc<LogRun>] {
        &self.runs
    }

    /// Every commit up to here is in the snapshot or the log.
    #[must_use]
    pub fn through(&self) -> Position {
        self.runs
            .last()
            .map_or(self.snapshot.position, |run| run.description.through)
    }

    /// The greatest time of its snapshot and its commits.
    #[must_use]
    pub fn latest_time(&self) -> Timestamp {
        let times = self
            .runs
            .iter()
            .filter_map(|run| run.description.latest_time);
        times.fold(self.snapshot.taken_at, Timestamp::max)
    }

    /// The snapshot by which the log, and the feed that it comes from, is named.
    #[must_use]
    pub const fn id(&self) -> SnapshotId {
        self.id
    }

    /// The place in the log of what follows the last run.
    pub(crate) fn next_number(&self) -> u64 {
        self.first_number + self.runs.len() as u64
    }

    /// The digest of the last record: what the next run has to follow.
    pub(crate) const fn tip(&self) -> &Digest {
        &self.tip
    }

    /// Why the log ends where it does, if the record behind it is damaged; or, among all
    /// [`logs`], missing.
    #[must_use]
    pub fn damage(&self) -> Option<&str> {
        self.damage.as_deref()
    }

    /// Takes note of a record that belongs further behind.
    fn note_hole(&mut self, lost: &Unreachable) {
        let behind = lost.place.filter(|(log, _)| *log == self.id);
        if let Some((_, number)) = behind.filter(|(_, number)| *number >= self.next_number()) {
            self.damage.get_or_insert_with(|| {
                let missing = self.first_number + self.runs.len() as u64;
                format!(
                    "read run {missing} of the log of {}: it is missing, and run {number} is there",
                    self.id
                )
            });
        }
    }

    /// What its records follow, in order.
    fn previous(&self) -> impl Iterator<Item = &Digest> {
        let runs = self.runs.iter().map(|run| &run.description.previous);
        let versions = self.versions.iter();
        runs.chain(versions.map(|version| &version.description.previous))
    }

    /// Goes on behind the last record.
    fn extend(&mut self, known: &mut Known<'_>) -> Result<(), Error> {
        loop {
            let name = link_name(known.repository.id(), &self.tip);
            let next = match known.links.get(&name) {
                Some((link, is_packed)) => self
                    .check_next(link)
                    .map(|()| Some((link.clone(), *is_packed))),
                None => match self.read_next(known, name) {
                    // The record by itself may be as good as ever.
                    Err(error)
                        if error.kind() == ErrorKind::Corrupt && known.records.distrust() =>
                    {
                        self.read_next(known, name)
                    }
                    read => read,
                },
            };
            match next {
                Ok(Some((link, is_packed))) => {
                    known.links.insert(name, (link.clone(), is_packed));
                    self.push(known.repository, link);
                    if is_packed {
                        self.unpacked.clear();
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    self.damage = Some(chain(&error));
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn push(&mut self, repository: &dyn Repository, link: Link) {
        self.unpacked.push(link_name(repository.id(), &self.tip));
        match link {
            Link::Run(run) => {
                self.tip = run.digest;
                self.runs.push(run);
            }
            Link::Version(mut version) => {
                self.tip = version.digest;
                version.first_run = self.runs.len();
                self.versions.push(version);
            }
        }
    }

    /// Packs its last records once there are so many.
    pub(super) fn pack(
        &mut self,
        repository: &dyn Repository,
        records_max: usize,
    ) -> Result<(), Error> {
        let packed = pack(repository, &self.unpacked, records_max)?;
        self.unpacked.drain(..packed);
        Ok(())
    }

    /// The record that follows the last one, if it was sealed by now, and whether it is in a pack.
    fn read_next(
        &self,
        known: &mut Known<'_>,
        name: [u8; 16],
    ) -> Result<Option<(Link, bool)>, Error> {
        let number = self.next_number();
        let operation = || format!("read run {number} of the log of {}", self.id);
        let Some(record) = known.records.read(name, &operation())? else {
            return Ok(None);
        };
        let (bytes, repository) = (record.bytes, known.repository);
        if is_log_version(&bytes) {
            let (description, digest) =
                decode_log_version(&bytes, repository.id(), &self.tip, self.last_schema())
                    .map_err(Error::format(operation()))?;
            let link = Link::Version(LogVersion::new(description, digest));
            self.check_next(&link)?;
            return Ok(Some((link, record.is_packed)));
        }
        let (description, digest) = decode_log_run(&bytes, repository.id(), &self.tip)
            .map_err(Error::format(operation()))?;
        let run = Arc::new(LogRun {
            description,
            digest,
        });
        let link = Link::Run(run);
        self.check_next(&link)?;
        Ok(Some((link, record.is_packed)))
    }

    /// Refuses a record that has the right name and does not go on where this log ends.
    fn check_next(&self, link: &Link) -> Result<(), Error> {
        let number = self.next_number();
        let goes_on = match link {
            Link::Run(run) => {
                let run = &run.description;
                run.log == self.id
                    && run.number == number
                    && run.after == self.through()
                    && run.schema_digest == self.last_schema_digest()
            }
            Link::Version(version) => {
                let version = &version.description;
                version.log == self.id
                    && version.number == number
                    && version.after == self.through()
            }
        };
        if goes_on {
            return Ok(());
        }
        let message = format!(
            "read run {number} of the log of {}: it does not follow the one before",
            self.id
        );
        Err(Error::new(ErrorKind::Corrupt, message))
    }
}

impl LogRun {
    fn object(&self, repository: &dyn Repository) -> Result<Arc<dyn ObjectReader>, Error> {
        let operation = self.operation();
        let object = repository.open_object(self.description.extent.object);
        object.map(Arc::from).map_err(|error| match error.kind() {
            // The record says that it is there, so that its absence is damage.
            ErrorKind::NotFound => Error::new(ErrorKind::Corrupt, operation).caused_by(error),
            _ => Error::repository(operation)(error),
        })
    }

    /// The object that has its changes.
    pub(crate) fn changes_object(&self) -> ObjectId {
        self.description.extent.object
    }

    /// Opens its changes.
    pub(crate) fn open(&self, repository: &dyn Repository) -> Result<Arc<SegmentReader>, Error> {
        let object = self.object(repository)?;
        open_log_run(&object, repository.id(), &self.description)
            .map(Arc::new)
            .map_err(Error::format(self.operation()))
    }

    /// Its commits, in order.
    ///
    /// # Errors
    /// `Corrupt` if they are missing or not what was written.
    pub fn commits(&self, repository: &dyn Repository) -> Result<Vec<LoggedCommit>, Error> {
        let object = self.object(repository)?;
        self.description
            .read_commits(object.as_ref(), repository.id())
            .map_err(Error::format(self.operation()))
    }

    /// Where the table last lost all its rows, of the commits up to and including `through`.
    pub(crate) fn truncated(&self, table: TableIndex, through: Position) -> Option<(u64, u32)> {
        let truncations = self.description.truncations.iter().rev();
        truncations
            .filter(|truncation| truncation.table == table && truncation.commit <= through.commit)
            .map(|truncation| (truncation.commit, truncation.ordinal))
            .next()
    }

    fn operation(&self) -> String {
        let run = &self.description;
        format!("open run {} of the log of snapshot {}", run.number, run.log)
    }
}
