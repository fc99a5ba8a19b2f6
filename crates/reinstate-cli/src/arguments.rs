//! The command line.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use reinstate_core::{ConflictPolicy, Policy, Switch};

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
    /// Read snapshots back and check every byte; or check what a job left in the live store.
    Verify(Verify),
    /// Generate a synthetic store to try things on.
    Generate(Generate),
    /// Print a completion script for a shell.
    Completions(Completions),
    /// Write manual pages into a directory.
    Man(Man),
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Tenants in the store.
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub tenants: u32,
    /// Tenants that are destroyed and restored.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub restore: u32,
    /// Rows in the store.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    pub rows: u64,
    /// Where all variety comes from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Keep the store, the repository and a configuration in this new directory.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// The store is this file of the embedded database.
    #[arg(long, value_name = "FILE", conflicts_with = "postgres_env")]
    pub embedded: Option<PathBuf>,
    /// The store is the PostgreSQL database whose URL is in this environment variable.
    #[arg(long, value_name = "NAME")]
    pub postgres_env: Option<String>,
    /// The repository's directory.
    #[arg(long, value_name = "DIR", default_value = "reinstate-repository")]
    pub repository: PathBuf,
    /// What to call the store.
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub name: String,
    /// The kind of id that tenants have.
    #[arg(long, value_name = "KIND", default_value = "account")]
    pub kind: String,
    /// The column that holds the tenant's id (PostgreSQL).
    #[arg(long, value_name = "COLUMN", requires = "postgres_env")]
    pub column: Option<String>,
}

/// Arguments of `tenancy`.
#[derive(Debug, Subcommand)]
pub enum Tenancy {
    /// Propose a section [tenancy] from the catalogue; what it is unsure of is left to be decided.
    Suggest {
        /// A column that holds the tenant's id; may be repeated [default: the configured one, or the
        /// likeliest].
        #[arg(long = "column", value_name = "NAME")]
        columns: Vec<String>,
        /// Count rows, and read which kinds (type, id) pairs have: reads whole tables.
        #[arg(long)]
        count: bool,
        /// Write the proposal to this file; must not exist yet [default: standard output].
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check the configured map against every row: reads whole tables, and writes nothing.
    Check,
}

/// Arguments of `guard`.
#[derive(Debug, Subcommand)]
pub enum Guard {
    /// Put guard triggers on every table, or renew them after the tenancy map changed.
    Install,
    /// Take the guard triggers off again.
    Remove,
    /// Show which tables are guarded, and how.
    Status,
    /// Print the statements that make a role of least privilege out of an existing one; nothing is
    /// run.
    Role {
        /// The role's name.
        name: String,
    },
}

/// Arguments of `capture`.
#[derive(Debug, Subcommand)]
pub enum Capture {
    /// Take one snapshot of the whole store while others write on.
    Once {
        /// zstd level: higher is smaller, slower to write, and no slower to read.
        #[arg(long, value_name = "1-19", default_value_t = 3)]
        #[arg(value_parser = clap::value_parser!(i32).range(1..=19))]
        level: i32,
        /// Learn a dictionary for each of the largest tables: smaller where tenants are small.
        #[arg(long)]
        dictionaries: bool,
    },
    /// Keep the change log: take a snapshot if there is none to go on from, then follow what is
    /// committed, so that tenants can go back to any moment.
    Follow(Follow),
    /// Make a younger snapshot of the latest one and its change log, without reading the store.
    Compact {
        /// zstd level: higher is smaller, slower to write, and no slower to read.
        #[arg(long, value_name = "1-19", default_value_t = 3)]
        #[arg(value_parser = clap::value_parser!(i32).range(1..=19))]
        level: i32,
    },
    /// Let the store forget a feed that nobody reads any more.
    End {
        /// The snapshot that the feed goes on from: 4 or more digits of its id.
        snapshot: String,
    },
}

/// Arguments of `capture follow`.
#[derive(Debug, Args)]
pub struct Follow {
    /// Write down what was committed so far, and stop.
    #[arg(long)]
    pub once: bool,
    /// Take a new snapshot and start a new log, also where one could be gone on with.
    #[arg(long)]
    pub new_base: bool,
    /// zstd level: higher is smaller, slower to write, and no slower to read.
    #[arg(long, value_name = "1-19", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=19))]
    pub level: i32,
    /// Seconds between looks at the store: what is committed in between goes into one run.
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub every: u32,
    /// Seconds without a commit after which a mark is committed, as proof that there was none.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub mark_every: u32,
}

impl Follow {
    /// The pause between looks at the store.
    #[must_use]
    pub fn every(&self) -> Duration {
        Duration::from_secs(self.every.into())
    }

    /// How long a store may be quiet without a mark.
    #[must_use]
    pub fn mark_every(&self) -> Duration {
        Duration::from_secs(self.mark_every.into())
    }
}

/// Arguments of `snapshots`.
#[derive(Debug, Args)]
pub struct Snapshots {
    /// One snapshot: 4 or more digits of its id.
    pub id: Option<String>,
}

/// A point in time, and whether an earlier one will do.
#[derive(Clone, Debug, Args)]
pub struct At {
    /// When: latest, latest~1, snap:ID, a time with its offset or [zone], -5m, lsn:, commit:.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub at: String,
    /// Leave out what was committed at that very time or position.
    #[arg(long)]
    pub exclusive: bool,
    /// Take the latest point before that can be had, where the time itself cannot.
    #[arg(long)]
    pub nearest_before: bool,
}

/// Arguments of `window`.
#[derive(Debug, Args)]
pub struct Window {
    /// A tenant: say also what it had at both ends.
    pub tenant: Option<String>,
}

/// Arguments of `tenants`.
#[derive(Debug, Args)]
pub struct Tenants {
    /// When; as for plan.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "latest",
        allow_hyphen_values = true
    )]
    pub at: String,
    /// Take the latest snapshot before, where the time itself cannot be had.
    #[arg(long)]
    pub nearest_before: bool,
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct Export {
    /// What: TENANT@TIME, TENANT@TIME:TABLE or TENANT@TIME:TABLE/KEY; TIME can be live.
    #[arg(value_name = "TENANT@TIME[:TABLE[/KEY]]")]
    pub what: String,
    /// Leave out what was committed at that very time or position.
    #[arg(long)]
    pub exclusive: bool,
    /// Take the latest point before that can be had, where the time itself cannot.
    #[arg(long)]
    pub nearest_before: bool,
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub struct Diff {
    /// The one side.
    #[arg(value_name = "TENANT@TIME")]
    pub left: String,
    /// The other side: live, a time, or TENANT@TIME.
    #[arg(value_name = "TENANT@TIME|live", default_value = "live")]
    pub right: String,
    /// Count the rows that differ, by table. This is the default.
    #[arg(long, conflicts_with = "rows")]
    pub stat: bool,
    /// List the rows that differ, by their keys.
    #[arg(long)]
    pub rows: bool,
    /// List the rows that differ with their values.
    #[arg(long, requires = "rows")]
    pub show_values: bool,
    /// Take the latest snapshot before, where a time itself cannot be had.
    #[arg(long)]
    pub nearest_before: bool,
    /// Exit with 20 if there are differences.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

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

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The plan.
    pub file: PathBuf,
    /// Approval.
    #[command(flatten)]
    pub approval: Approval,
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
    /// Read the whole store before and after, and compare every other tenant. For times when
    /// nobody else writes.
    #[arg(long)]
    pub prove_isolation: bool,
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
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// A snapshot or a job: 4 or more digits of its id [default: every snapshot].
    pub id: Option<String>,
}

/// Arguments of `generate`.
#[derive(Debug, Args)]
pub struct Generate {
    /// Tenants in the store.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub tenants: u32,
    /// Rows in the store.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    pub rows: u64,
    /// Where all variety comes from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How unequal the tenants are: 0 makes them all the same, 1 is Zipf's law.
    #[arg(long, value_name = "EXPONENT", default_value_t = 1.0)]
    pub skew: f64,
    /// What to call the store.
    #[arg(long, value_name = "NAME", default_value = "main")]
    pub name: String,
    /// Make this new file of the embedded database.
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "sql",
        conflicts_with = "sql"
    )]
    pub into: Option<PathBuf>,
    /// Print SQL for PostgreSQL instead, to be read by psql.
    #[arg(long)]
    pub sql: bool,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    pub shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The directory.
    pub directory: PathBuf,
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
