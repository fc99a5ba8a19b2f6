//! Arguments of what plans a change, makes it, takes it back and checks it.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use reinstate_core::{ConflictPolicy, Policy, Switch};

use super::At;

/// Whose rows.
#[derive(Clone, Debug, Args)]
pub struct Whose {
    /// The tenants, as in account:42.
    #[arg(value_name = "TENANT", required_unless_present = "tenants_from")]
    pub tenants: Vec<String>,
    /// A file with one tenant a line; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub tenants_from: Option<PathBuf>,
}

/// Whether the tenant is copied.
#[derive(Clone, Debug, Args)]
pub struct Copying {
    /// Copy the tenant, only one, under another id that nobody has rows under: side:NEWID.
    #[arg(long, value_name = "side:NEWID")]
    pub into: Option<String>,
    /// Where to write down which key became which; must not exist yet [default with --out: beside
    /// the plan, with .remap at its end].
    #[arg(long, value_name = "FILE", requires = "into")]
    pub remap_out: Option<PathBuf>,
}

/// Which changes may be made.
#[derive(Clone, Debug, Args)]
pub struct Changes {
    /// Create rows that the tenant had and has no more.
    #[arg(long, value_enum, default_value_t = OnOff::On, value_name = "on|off", hide_possible_values = true)]
    pub create: OnOff,
    /// Put rows back that the tenant has with other contents.
    #[arg(long, value_enum, default_value_t = OnOff::On, value_name = "on|off", hide_possible_values = true)]
    pub put_back: OnOff,
    /// Delete rows that the tenant has and did not have.
    #[arg(long, value_enum, default_value_t = OnOff::On, value_name = "on|off", hide_possible_values = true)]
    pub delete: OnOff,
    /// What to do with a row whose place is taken.
    #[arg(long, value_enum, default_value_t = OnConflict::Fail, value_name = "HOW")]
    pub on_conflict: OnConflict,
    /// Look for rows to delete among those that other tenants had in the snapshot, and keep those:
    /// reads other tenants' blocks of these tables [default: restore.check_owners, or on].
    #[arg(long, value_enum, value_name = "on|off", hide_possible_values = true)]
    pub check_owners: Option<OnOff>,
    /// Take back only what this transaction changed, and leave every other difference alone: a row
    /// that another one changed after it is a conflict. Needs a change log. Can be given several times.
    #[arg(long, value_name = "POSITION")]
    pub only_changed_by: Vec<String>,
}

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Whose rows.
    #[command(flatten)]
    pub whose: Whose,
    /// When.
    #[command(flatten)]
    pub at: At,
    /// Whether it is a copy.
    #[command(flatten)]
    pub copying: Copying,
    /// Which changes.
    #[command(flatten)]
    pub changes: Changes,
    /// Where to save the plan; must not exist yet.
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Exit with 20 if there are changes.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The plan.
    pub file: PathBuf,
    /// List the rows that would change, by their keys.
    #[arg(long)]
    pub rows: bool,
    /// List the rows with their values.
    #[arg(long, requires = "rows")]
    pub show_values: bool,
}

/// What counts as approval.
#[derive(Clone, Debug, Args)]
pub struct Approval {
    /// Approve a plan that deletes nothing, is for one tenant, and changes up to 1,000,000 rows.
    #[arg(long)]
    pub yes: bool,
    /// Approve any plan for one tenant, by its id.
    #[arg(long, value_name = "TENANT")]
    pub confirm: Option<String>,
    /// Approve the very plan with this digest, or its first 12 digits or more.
    #[arg(long, value_name = "DIGEST")]
    pub confirm_digest: Option<String>,
}

/// How fast the live store may be written to.
#[derive(Clone, Debug, Default, Args)]
pub struct Pacing {
    /// Write no more rows in a second, on average [default: as many as can be].
    #[arg(long, value_name = "N")]
    pub rows_per_second: Option<NonZeroU64>,
    /// Write slower, or not at all for a while, when the store takes longer than this to commit
    /// nothing, as in 20ms: it is tried every 200 ms [default: it is not tried].
    #[arg(long, value_name = "TIME", value_parser = crate::pacing::parse_length)]
    pub latency_max: Option<Duration>,
}

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The plan.
    pub file: PathBuf,
    /// Approval.
    #[command(flatten)]
    pub approval: Approval,
    /// How fast.
    #[command(flatten)]
    pub pacing: Pacing,
    /// Read the whole store before and after, and compare every other tenant. For times when
    /// nobody else writes.
    #[arg(long)]
    pub prove_isolation: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// Whose rows.
    #[command(flatten)]
    pub whose: Whose,
    /// When.
    #[command(flatten)]
    pub at: At,
    /// Whether it is a copy.
    #[command(flatten)]
    pub copying: Copying,
    /// Which changes.
    #[command(flatten)]
    pub changes: Changes,
    /// Approval.
    #[command(flatten)]
    pub approval: Approval,
    /// How fast.
    #[command(flatten)]
    pub pacing: Pacing,
    /// Read the whole store before and after, and compare every other tenant. For times when
    /// nobody else writes.
    #[arg(long)]
    pub prove_isolation: bool,
    /// Keep the tenants' users from writing from before the plan is made until the result is verified,
    /// so that the plan cannot become stale: needs `reinstate guard install --fence`.
    #[arg(long)]
    pub fence: bool,
}

/// Arguments of `undo`.
#[derive(Debug, Args)]
pub struct Undo {
    /// The job: 4 or more digits of its id.
    pub job: String,
    /// What to do with a row that somebody changed since.
    #[arg(long, value_enum, default_value_t = OnConflict::Fail, value_name = "HOW")]
    pub on_conflict: OnConflict,
    /// Save the plan to this file and stop; `reinstate apply` goes on from there.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Approval.
    #[command(flatten)]
    pub approval: Approval,
    /// How fast.
    #[command(flatten)]
    pub pacing: Pacing,
}

/// Arguments of `lease`.
#[derive(Debug, Args)]
pub struct Lease {
    /// Whose: KIND:ID, as in account:9001.
    #[arg(value_name = "TENANT")]
    pub tenant: String,
    /// End the run that has it, wherever that is: what it has not committed is rolled back, and it can
    /// commit nothing from then on.
    #[arg(long)]
    pub take_over: bool,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// A snapshot or a job: 4 or more digits of its id [default: every snapshot].
    pub id: Option<String>,
}

/// Whether a kind of change may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnOff {
    /// It may.
    On,
    /// It may not.
    Off,
}

/// What to do with a row whose place is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnConflict {
    /// Refuse to apply the plan.
    Fail,
    /// Leave the row out; the result is then not a full success.
    KeepLive,
    /// Put it in the live row's place, if that is the tenant's own.
    TakeSnapshot,
}

impl From<OnOff> for Switch {
    fn from(value: OnOff) -> Self {
        match value {
            OnOff::On => Self::On,
            OnOff::Off => Self::Off,
        }
    }
}

impl From<OnConflict> for ConflictPolicy {
    fn from(value: OnConflict) -> Self {
        match value {
            OnConflict::Fail => Self::Fail,
            OnConflict::KeepLive => Self::KeepLive,
            OnConflict::TakeSnapshot => Self::TakeSnapshot,
        }
    }
}

impl Changes {
    /// The policy that they are.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            create: self.create.into(),
            put_back: self.put_back.into(),
            delete: self.delete.into(),
            on_conflict: self.on_conflict.into(),
        }
    }
}
