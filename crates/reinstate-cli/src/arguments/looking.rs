//! Arguments of what looks at snapshots and tenants, and changes nothing.

use clap::Args;

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
    /// Leave out what was committed at that very time or position.
    #[arg(long)]
    pub exclusive: bool,
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
