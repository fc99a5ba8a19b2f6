//! One thing that happened in a campaign.

use reinstate_core::{Digest, Position, Timestamp};

use super::plan::BatchPlan;

/// What happened. Persisted: never renumber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// The campaign was planned; the digest is the plan's.
    Planned = 1,
    /// Somebody approved the plan with this digest.
    Approved = 2,
    /// Somebody asked for something that was refused; the detail says what and why.
    Refused = 3,
    /// A run began, or went on.
    Started = 4,
    /// A run stopped before its end; the detail says why.
    Stopped = 5,
    /// Every tenant came to an end; the detail is `undo` if the campaign was taken back.
    Finished = 6,
    /// Somebody asked running processes to stop.
    Paused = 7,
    /// Somebody let them go on.
    Resumed = 8,
    /// Somebody ended the campaign; the detail is `undo` if it is to be taken back.
    Aborted = 9,
    /// The tenant's rows in the plans of its batch were read back, every byte.
    Extracted = 10,
    /// The tenant was closed to its users.
    Closed = 11,
    /// The tenant's rows were committed in this store.
    Merged = 12,
    /// They were read back and are what the plan expects; the rows are how many.
    Verified = 13,
    /// The tenant passed the gate; the detail says what was looked at.
    GatePassed = 14,
    /// The tenant did not pass the gate; the detail says why.
    GateFailed = 15,
    /// The tenant waits for somebody to accept it at the gate.
    Waiting = 16,
    /// Somebody accepted the tenant at the gate.
    Accepted = 17,
    /// The tenant is about to be opened.
    Opening = 18,
    /// The tenant is its users' again.
    HandedBack = 19,
    /// The tenant was set aside; the detail says why.
    Parked = 20,
    /// A tenant that was set aside gets another try.
    Retried = 21,
    /// The undo of a batch in a store was planned; the plan is which.
    UndoPlanned = 22,
    /// The tenant's rows in this store are as they were before the campaign.
    Undone = 23,
    /// Somebody limited how fast runs may write to this store; the detail says to what.
    Paced = 24,
    /// Rows of others carry the mark of what was merged for the tenant in this store: the rows are how many.
    Violated = 25,
}

impl EntryKind {
    /// All of them, by number.
    pub const ALL: [Self; 25] = [
        Self::Planned,
        Self::Approved,
        Self::Refused,
        Self::Started,
        Self::Stopped,
        Self::Finished,
        Self::Paused,
        Self::Resumed,
        Self::Aborted,
        Self::Extracted,
        Self::Closed,
        Self::Merged,
        Self::Verified,
        Self::GatePassed,
        Self::GateFailed,
        Self::Waiting,
        Self::Accepted,
        Self::Opening,
        Self::HandedBack,
        Self::Parked,
        Self::Retried,
        Self::UndoPlanned,
        Self::Undone,
        Self::Paced,
        Self::Violated,
    ];

    /// Its name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Approved => "approved",
            Self::Refused => "refused",
            Self::Started => "started",
            Self::Stopped => "stopped",
            Self::Finished => "finished",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::Aborted => "aborted",
            Self::Extracted => "extracted",
            Self::Closed => "closed",
            Self::Merged => "merged",
            Self::Verified => "verified",
            Self::GatePassed => "gate_passed",
            Self::GateFailed => "gate_failed",
            Self::Waiting => "waiting",
            Self::Accepted => "accepted",
            Self::Opening => "opening",
            Self::HandedBack => "handed_back",
            Self::Parked => "parked",
            Self::Retried => "retried",
            Self::UndoPlanned => "undo_planned",
            Self::Undone => "undone",
            Self::Paced => "paced",
            Self::Violated => "violated",
        }
    }

    pub(super) fn of(number: u8) -> Option<Self> {
        let place = usize::from(number).checked_sub(1)?;
        Self::ALL.get(place).copied()
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignEntry {
    /// When, by the clock of whoever wrote it.
    pub at: Timestamp,
    /// Who asked for it, or ran what did it.
    pub actor: String,
    /// What.
    pub kind: EntryKind,
    /// The tenant's place in the campaign, if it is about one.
    pub tenant: Option<u32>,
    /// The store's place, if it is about one.
    pub store: Option<u32>,
    /// The batch's place, if it is about one.
    pub batch: Option<u32>,
    /// The gate that it is about; empty if none.
    pub gate: String,
    /// How many rows it is about.
    pub rows: u64,
    /// Where in the store's order it is, if it is a commit.
    pub position: Option<Position>,
    /// The digest of what it is about.
    pub digest: Option<Digest>,
    /// The stored plan that it is about.
    pub plan: Option<BatchPlan>,
    /// What else there is to say.
    pub detail: String,
}

impl CampaignEntry {
    /// An entry that says nothing but who did what when.
    #[must_use]
    pub fn new(at: Timestamp, actor: impl Into<String>, kind: EntryKind) -> Self {
        Self {
            at,
            actor: actor.into(),
            kind,
            tenant: None,
            store: None,
            batch: None,
            gate: String::new(),
            rows: 0,
            position: None,
            digest: None,
            plan: None,
            detail: String::new(),
        }
    }
}
