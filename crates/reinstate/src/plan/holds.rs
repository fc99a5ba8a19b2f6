//! Unique values that the tenant's own newer rows hold.
//!
//! A plan that deletes what is newer and puts back what changed makes room for every row of the
//! snapshot by itself. One that leaves some of it alone may not: a row that was added since, and
//! that stays, can hold the address or the number of a row that is to come back. Which of them stay
//! is known only when all keys were compared, so that tables with unique values are walked through
//! once more before, and, if anything was found, a third time.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{
    ConflictPolicy, LiveView, OwnHold, Policy, RowBatch, RowRef, Switch, TableIndex, TenantId,
};

use super::cursor::{Side, Walk};
use super::decide::{Deciding, Decision};
use crate::Error;

/// Which rows of one table are in each other's way, and which of them give way.
#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Rows of the snapshot that are not written, by what tells them apart, with the constraint.
    stopped: BTreeMap<Vec<u8>, String>,
    /// Keys of live rows that give way although the switches would let them stay.
    giving_way: BTreeSet<Vec<u8>>,
}

impl Holds {
    /// Nothing is in anything's way.
    pub(super) const NONE: Self = Self {
        stopped: BTreeMap::new(),
        giving_way: BTreeSet::new(),
    };

    /// Why this row of the snapshot cannot be written.
    pub(super) fn constraint(&self, row: RowRef<'_>) -> Option<&str> {
        if self.stopped.is_empty() {
            return None;
        }
        self.stopped.get(identity(row)).map(String::as_str)
    }

    /// Whether a live row is deleted, or put back, whatever the switches say.
    pub(super) fn gives_way(&self, live: RowRef<'_>) -> bool {
        self.giving_way.contains(live.key())
    }
}

/// What tells a row apart in its table.
fn identity(row: RowRef<'_>) -> &[u8] {
    if row.key().is_empty() {
        row.columns()
    } else {
        row.key()
    }
}

/// Whether a plan of this policy may leave a row that is in the way.
pub(super) fn may_stay(policy: Policy) -> bool {
    let writes = policy.create == Switch::On || policy.put_back == Switch::On;
    writes && (policy.delete == Switch::Off || policy.put_back == Switch::Off)
}

/// Finds the rows that are in each other's way, by walking through the table as often as it takes.
/// `start` begins a walk, and to decide about its rows.
pub(super) fn find<'a>(
    (view, question_bytes): (&dyn LiveView, usize),
    (tenant, table): (&TenantId, TableIndex),
    policy: Policy,
    start: impl Fn() -> Result<(Walk<'a>, Deciding<'a>), Error>,
) -> Result<Holds, Error> {
    let mut written = Written {
        view,
        tenant,
        table,
        question_bytes,
        rows: RowBatch::new(),
        held: Vec::new(),
    };
    let (mut walk, mut deciding) = start()?;
    while let Some(side) = walk.side() {
        let (decision, _) = deciding.decide(side, &walk)?;
        if side != Side::Right && decision == Decision::Write {
            written.push(walk.then())?;
        }
        walk.pass(side)?;
    }
    written.ask()?;
    let held = written.held;
    if held.is_empty() {
        return Ok(Holds::default());
    }
    let staying = staying(&held, start()?)?;
    let mut holds = Holds::default();
    for hold in held
        .into_iter()
        .filter(|hold| staying.contains(&hold.holder))
    {
        let gives_way = policy.on_conflict == ConflictPolicy::TakeSnapshot;
        if gives_way && !hold.holder.is_empty() {
            holds.giving_way.insert(hold.holder);
            continue;
        }
        let identity = if hold.key.is_empty() {
            hold.columns
        } else {
            hold.key
        };
        let constraint = format!("{} (by a newer row of the tenant)", hold.constraint);
        holds.stopped.entry(identity).or_insert(constraint);
    }
    Ok(holds)
}

/// The keys of those holders that the plan leaves as they are.
fn staying(
    held: &[OwnHold],
    (mut walk, mut deciding): (Walk<'_>, Deciding<'_>),
) -> Result<BTreeSet<Vec<u8>>, Error> {
    let holders: BTreeSet<&[u8]> = held.iter().map(|hold| hold.holder.as_slice()).collect();
    let mut staying = BTreeSet::new();
    let may_stay = deciding.policy.delete == Switch::Off || deciding.is_selective;
    if holders.contains(&[][..]) && may_stay {
        // A row without a key that has the value and is not the row to be written is newer.
        staying.insert(Vec::new());
    }
    while let Some(side) = walk.side() {
        let (decision, _) = deciding.decide(side, &walk)?;
        let stays = match decision {
            Decision::Keep | Decision::Conflict(_) => true,
            Decision::Same => deciding.policy.put_back == Switch::Off || deciding.is_selective,
            Decision::Write => false,
        };
        if stays && side != Side::Left {
            let key = walk.now().key();
            if holders.contains(key) {
                staying.insert(key.to_vec());
            }
        }
        walk.pass(side)?;
    }
    Ok(staying)
}

/// Rows that would be written, on their way to the question who has their values.
struct Written<'a> {
    view: &'a dyn LiveView,
    tenant: &'a TenantId,
    table: TableIndex,
    question_bytes: usize,
    rows: RowBatch,
    held: Vec<OwnHold>,
}

impl Written<'_> {
    fn push(&mut self, row: RowRef<'_>) -> Result<(), Error> {
        self.rows.push_row(row);
        if self.rows.as_bytes().len() >= self.question_bytes {
            self.ask()?;
        }
        Ok(())
    }

    fn ask(&mut self) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let held = self
            .view
            .held_by_own(self.tenant, self.table, &self.rows)
            .map_err(Error::store("look for the tenant's own rows in the way"))?;
        self.held.extend(held);
        self.rows.clear();
        Ok(())
    }
}
