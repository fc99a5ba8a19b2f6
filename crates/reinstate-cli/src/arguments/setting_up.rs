//! Arguments of what prepares a store, makes one up, or explains this program.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clap_complete::Shell;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Sites, each a tenant in three stores.
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub tenants: u32,
    /// Sites that are destroyed in every store, and restored by a campaign.
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub restore: u32,
    /// Rows in the stores.
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    pub rows: u64,
    /// Where all variety comes from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Keep the stores, the repositories, the configurations and the report in this new directory.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Write the campaign's report to this file, in HTML; must not exist yet.
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
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
    Install {
        /// Put up the fence as well: a tenant's own writes wait while it is restored, up to half a
        /// second, and are refused after that, to be tried again.
        #[arg(long)]
        fence: bool,
    },
    /// Take the guard triggers off again, and the fence.
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
