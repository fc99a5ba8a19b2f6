//! The command line: the commands, and what holds for all of them. What one command takes is in a
//! file with its like.

mod campaign;
mod capturing;
mod changing;
mod looking;
mod proving;
mod setting_up;

use std::num::NonZeroUsize;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand};

pub use campaign::{Campaign, CampaignPlan, CampaignRun, Cap, OfCampaign, OfEstate, PaceChange};
pub use capturing::{Capture, Follow};
pub use changing::{
    Apply, Approval, Copying, Lease, OnOff, Pacing, Plan, Restore, Show, Undo, Verify, Whose,
};
pub use looking::{At, Diff, Export, Snapshots, Tenants, Window};
pub use proving::{Drill, Report};
pub use setting_up::{Completions, Demo, Generate, Guard, Init, Man, Tenancy};

/// Brings chosen tenants of a shared, live database back to a point in time, without touching any
/// other tenant, and proves it.
#[derive(Debug, Parser)]
#[command(
    name = "reinstate",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
#[command(
    after_help = "Exit codes: 0 done and verified, 1 other, 2 usage or configuration, \
    3 some tenants failed, 4 verification failed or corruption, 5 conflicts, 6 plan stale, altered \
    or not approved, 7 point in time not recoverable, 8 not found or ambiguous, 10 no repository, \
    11 locked, 20 changes present (--detailed-exitcode), 75, 130, 143 interrupted."
)]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The configuration file.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "REINSTATE_CONFIG",
        hide_env_values = true
    )]
    #[arg(default_value = crate::configuration::DEFAULT_PATH)]
    pub config: PathBuf,
    /// Print the result as JSON, one object a line.
    #[arg(long, global = true)]
    pub json: bool,
    /// Memory for the whole process.
    #[arg(long, global = true, value_name = "SIZE", default_value = "512MiB")]
    pub memory: ByteSize,
    /// Threads that decode, compress and sort [default: all processors].
    #[arg(long, global = true, visible_alias = "jobs", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Where rows are sorted that do not fit in memory [default: the system's].
    #[arg(long, global = true, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show the whole story on a synthetic store: no server needed.
    Demo(Demo),
    /// Write a configuration, make the repository, prepare the store.
    Init(Init),
    /// Check configuration, repository and store.
    Doctor,
    /// Find out whose rows the tables hold, and check that against the rows (PostgreSQL).
    #[command(subcommand)]
    Tenancy(Tenancy),
    /// Let the database itself stop a restore at another tenant's row (PostgreSQL).
    #[command(subcommand)]
    Guard(Guard),
    /// Take snapshots of the store, and keep its change log.
    #[command(subcommand)]
    Capture(Capture),
    /// List the snapshots: what can be restored. With an id, everything about one.
    Snapshots(Snapshots),
    /// List the tenants in a snapshot.
    Tenants(Tenants),
    /// Say how far the change log is, and what the store keeps for it.
    Status,
    /// Say which points in time can be gone back to, with the gaps named.
    Window(Window),
    /// Print rows of a tenant as JSON lines, without restoring anything.
    Export(Export),
    /// Compare a tenant at two points in time, or with the live store.
    Diff(Diff),
    /// Compare tenants with what they were, and save what would change to a file.
    Plan(Plan),
    /// Show a saved plan.
    Show(Show),
    /// Apply a saved plan to the live store, and verify it.
    Apply(Apply),
    /// Plan, show, confirm, apply and verify in one go.
    Restore(Restore),
    /// Take a restore back.
    Undo(Undo),
    /// Say who is restoring a tenant at the moment, and take it over from a run that hangs (PostgreSQL).
    Lease(Lease),
    /// Restore many sites over many stores: planned, approved, run in parallel, handed back.
    #[command(subcommand)]
    Campaign(Campaign),
    /// Read snapshots back and check every byte; or check what a job left in the live store.
    Verify(Verify),
    /// Bring tenants drawn by lot back beside the live store, prove it, and say how long it took.
    Drill(Drill),
    /// Write what a job did into one HTML file that can be shown.
    Report(Report),
    /// Generate a synthetic store to try things on.
    Generate(Generate),
    /// Print a completion script for a shell.
    Completions(Completions),
    /// Write manual pages into a directory.
    Man(Man),
}
