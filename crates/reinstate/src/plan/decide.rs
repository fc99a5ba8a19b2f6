//! What becomes of a row that differs: the policy says, and what changed it last.

use reinstate_core::{ConflictPolicy, Policy, Position, PositionNotation, Switch};

use super::cursor::{Side, Walk};
use super::since::{By, TableSince, Touched};
use crate::Error;

/// What becomes of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// It is what it was.
    Same,
    /// It becomes what it was.
    Write,
    /// It stays as it is.
    Keep,
    /// It stays as it is, and is a conflict for this reason.
    Conflict(String),
}

/// By what it is decided, for one table.
pub(super) struct Deciding<'a> {
    pub(super) policy: Policy,
    /// What the change log says about the table; none if it says nothing.
    pub(super) since: Option<TableSince<'a>>,
    /// Whether only what certain transactions changed goes back.
    pub(super) is_selective: bool,
    /// Where the change log ends, and how that is written.
    pub(super) end: (Position, PositionNotation),
}

impl Deciding<'_> {
    /// What becomes of the walk's current row, and what changed it last. To be asked once for each row.
    pub(super) fn decide(&mut self, side: Side, walk: &Walk<'_>) -> Result<(Decision, By), Error> {
        let (row, live, switch) = match side {
            Side::Left => (walk.then(), None, self.policy.create),
            Side::Right => (walk.now(), Some(walk.now()), self.policy.delete),
            Side::Both => {
                let (then, live) = (walk.then(), walk.now());
                if then.columns() == live.columns() {
                    return Ok((Decision::Same, By::Unknown));
                }
                (live, Some(live), self.policy.put_back)
            }
        };
        let (by, touched) = match &mut self.since {
            Some(since) => since.last_change(row, side != Side::Right, live)?,
            // Nothing is known, so that it may have been any of them.
            None => (By::Unknown, Touched::Before),
        };
        let decision = match (switch, touched) {
            (Switch::Off, _) => Decision::Keep,
            (Switch::On, _) if !self.is_selective => Decision::Write,
            (Switch::On, Touched::Last) => Decision::Write,
            (Switch::On, Touched::Not) => Decision::Keep,
            (Switch::On, Touched::Before) => match self.policy.on_conflict {
                ConflictPolicy::TakeSnapshot => Decision::Write,
                ConflictPolicy::Fail | ConflictPolicy::KeepLive => {
                    Decision::Conflict(self.reason(by))
                }
            },
        };
        Ok((decision, by))
    }

    fn reason(&self, by: By) -> String {
        let (end, notation) = self.end;
        match by {
            By::Logged(commit) => format!(
                "changed since by {} at {}",
                commit.position.display(notation),
                commit.time
            ),
            By::Later => format!(
                "changed since by something that is not in the change log, which ends at {}",
                end.display(notation)
            ),
            By::Unknown => "changed since, in a table that is not what it was, so that the change \
                            log does not say by what"
                .to_owned(),
        }
    }
}
