//! Arguments of what takes snapshots and keeps the change log.

use std::time::Duration;

use clap::{Args, Subcommand};

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
