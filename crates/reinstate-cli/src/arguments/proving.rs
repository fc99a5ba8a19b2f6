//! Arguments of what proves that tenants can be brought back, and that they were.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

/// Arguments of `drill`.
#[derive(Debug, Args)]
pub struct Drill {
    /// How many tenants, each at a moment of its own.
    #[arg(long, value_name = "N", default_value = "3")]
    pub tenants: NonZeroU32,
    /// Where the lots come from: the same seed draws the same again, as long as nothing is captured
    /// [default: random].
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Fail if a tenant takes longer to come back, as in 10m.
    #[arg(long, value_name = "TIME", value_parser = crate::pacing::parse_length)]
    pub recovery_time_max: Option<Duration>,
    /// Fail if the newest moment that can be gone back to is longer ago, as in 15m.
    #[arg(long, value_name = "TIME", value_parser = crate::pacing::parse_length)]
    pub recovery_point_max: Option<Duration>,
    /// Put the result into this file, for monitoring: in the text format of Prometheus.
    #[arg(long, value_name = "FILE")]
    pub publish: Option<PathBuf>,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct Report {
    /// The job: 4 or more digits of its id.
    pub job: String,
    /// The file to write, in HTML; must not exist yet.
    #[arg(long, short, value_name = "FILE")]
    pub out: PathBuf,
    /// Report one tenant of the job and nothing of the others: for its owner.
    #[arg(long, value_name = "TENANT")]
    pub tenant: Option<String>,
}
