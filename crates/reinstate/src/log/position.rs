//! Which position a time means.
//!
//! The rule is that of recovery in PostgreSQL: everything is in it up to the first commit with a
//! later time. Where the clock of a store went back, a commit behind that one may have an earlier time
//! and is not in it: what is kept is always all commits up to a position, and never some of
//! them.

use reinstate_core::{Commit, Position, Repository, Timestamp};

use crate::Error;
use crate::log::Log;

/// A time, and whether commits of that very time count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time.
    pub time: Timestamp,
    /// Whether what was committed at that very time is left out.
    pub exclusive: bool,
}

/// A position and the commits around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The position.
    pub position: Position,
    /// The last commit of the log that is in it; none if the log's snapshot has everything.
    pub before: Option<Commit>,
    /// The first commit that is not in it, if there is one yet.
    pub after: Option<Commit>,
}

impl Moment {
    fn is_before(self, time: Timestamp) -> bool {
        if self.exclusive {
            self.time <= time
        } else {
            self.time < time
        }
    }
}

impl Log {
    /// The position that a time means: everything up to the first commit of a later time. None if
    /// the log has no such commit: then it is not proven that nothing else was committed before.
    ///
    /// Only meant for times at or after the snapshot's.
    ///
    /// *Cost*: reads the commits of one run.
    ///
    /// # Errors
    /// `Corrupt` if the commits are not what was written.
    pub fn at(
        &self,
        repository: &dyn Repository,
        moment: Moment,
    ) -> Result<Option<Surroundings>, Error> {
        let later = self.runs().iter().enumerate().find(|(_, run)| {
            let latest = run.description.latest_time;
            latest.is_some_and(|latest| moment.is_before(latest))
        });
        let Some((index, run)) = later else {
            return Ok(None);
        };
        let commits = run.commits(repository)?;
        let place = commits
            .iter()
            .position(|logged| moment.is_before(logged.commit.time))
            .expect("BUG: the record and the commits were compared");
        let before = match place.checked_sub(1) {
            Some(place) => Some(commits[place].commit),
            None => self.last_commit(repository, index)?,
        };
        Ok(Some(Surroundings {
            position: before.map_or(self.snapshot().position, |commit| commit.position),
            before,
            after: Some(commits[place].commit),
        }))
    }

    /// The commits around a position that the log covers; none if it does not.
    ///
    /// # Errors
    /// `Corrupt` if the commits are not what was written.
    pub fn around(
        &self,
        repository: &dyn Repository,
        position: Position,
    ) -> Result<Option<Surroundings>, Error> {
        if position < self.snapshot().position || position > self.through() {
            return Ok(None);
        }
        let index = self
            .runs()
            .partition_point(|run| run.description.through < position);
        let (mut before, mut after) = (None, None);
        if let Some(run) = self.runs().get(index) {
            let commits = run.commits(repository)?;
            let place = commits.partition_point(|logged| logged.commit.position <= position);
            before = place.checked_sub(1).map(|place| commits[place].commit);
            after = commits.get(place).map(|logged| logged.commit);
        }
        if before.is_none() {
            before = self.last_commit(repository, index)?;
        }
        if after.is_none() {
            after = self.first_commit(repository, index + 1)?;
        }
        Ok(Some(Surroundings {
            position,
            before,
            after,
        }))
    }

    /// The last commit of the runs before this one.
    fn last_commit(
        &self,
        repository: &dyn Repository,
        index: usize,
    ) -> Result<Option<Commit>, Error> {
        let runs = self.runs().get(..index).unwrap_or_else(|| self.runs());
        let mut runs = runs.iter().rev();
        let Some(run) = runs.find(|run| run.description.commit_count > 0) else {
            return Ok(None);
        };
        Ok(run.commits(repository)?.last().map(|logged| logged.commit))
    }

    /// The first commit of this run or those after.
    fn first_commit(
        &self,
        repository: &dyn Repository,
        index: usize,
    ) -> Result<Option<Commit>, Error> {
        let mut runs = self.runs().get(index..).unwrap_or_default().iter();
        let Some(run) = runs.find(|run| run.description.commit_count > 0) else {
            return Ok(None);
        };
        Ok(run.commits(repository)?.first().map(|logged| logged.commit))
    }
}
