//! Arguments of what restores many sites over many stores.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::Whose;

/// Where an estate is described, and who asks.
#[derive(Clone, Debug, Args)]
pub struct OfEstate {
    /// The file that names the estate's stores.
    #[arg(
        long,
        value_name = "FILE",
        default_value = crate::configuration::ESTATE_PATH,
        env = "REINSTATE_ESTATE",
        hide_env_values = true
    )]
    pub estate: PathBuf,
    /// Who asks, as the journal names them [default: the operating system's user].
    #[arg(
        long = "as",
        value_name = "NAME",
        env = "REINSTATE_ACTOR",
        hide_env_values = true
    )]
    pub actor: Option<String>,
}

/// A campaign.
#[derive(Clone, Debug, Args)]
pub struct OfCampaign {
    /// The campaign: 4 or more digits of its id.
    pub campaign: String,
    /// Of which estate.
    #[command(flatten)]
    pub of: OfEstate,
}

/// Arguments of `campaign`.
#[derive(Debug, Subcommand)]
pub enum Campaign {
    /// Find out what it takes to bring sites back in all stores, and keep that to be approved.
    Plan(CampaignPlan),
    /// Approve a campaign by its digest.
    Approve {
        /// Which.
        #[command(flatten)]
        which: OfCampaign,
        /// The digest that is approved, or its first 12 digits or more.
        #[arg(long, value_name = "DIGEST")]
        confirm_digest: String,
    },
    /// Run an approved campaign.
    Run(CampaignRun),
    /// Say how far campaigns are; of one, how far each of its sites is.
    Status {
        /// The campaign: 4 or more digits of its id [default: all; to watch: the last one].
        campaign: Option<String>,
        /// Show how far it is until it is over: redrawn in place on a terminal, lines elsewhere.
        #[arg(long)]
        watch: bool,
        /// Of which estate.
        #[command(flatten)]
        of: OfEstate,
    },
    /// Say how fast runs may write to stores, also while one is at work; without a limit, what holds.
    Pace {
        /// Which.
        #[command(flatten)]
        which: OfCampaign,
        /// The store, as the estate calls it [default: every store].
        #[arg(long, value_name = "NAME")]
        store: Vec<String>,
        /// What changes.
        #[command(flatten)]
        change: PaceChange,
    },
    /// Ask whoever runs a campaign to stop after what is being written.
    Pause {
        /// Which.
        #[command(flatten)]
        which: OfCampaign,
    },
    /// Go on with a campaign that was paused, stopped or killed.
    Resume {
        /// How.
        #[command(flatten)]
        run: CampaignRun,
        /// Try sites that are parked again.
        #[arg(long)]
        retry_parked: bool,
    },
    /// Say that a site is accepted, where a campaign waits for that.
    Accept {
        /// Which.
        #[command(flatten)]
        which: OfCampaign,
        /// The site, as in site:42.
        site: String,
        /// The gate [default: the one it waits at].
        #[arg(long, value_name = "NAME")]
        gate: Option<String>,
    },
    /// End a campaign. What was done stays, or is taken back.
    Abort {
        /// Which.
        #[command(flatten)]
        which: OfCampaign,
        /// Put every site that was touched back to what it was before the campaign.
        #[arg(long, requires = "confirm_digest")]
        undo: bool,
        /// The campaign's digest, or its first 12 digits or more.
        #[arg(long, value_name = "DIGEST")]
        confirm_digest: Option<String>,
        /// How many seconds a run that stops, or a store that is away, is waited for.
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        patience: u32,
        /// How fast.
        #[command(flatten)]
        pace: PaceChange,
    },
    /// Write what a campaign did into one HTML file that can be shown.
    Report {
        /// Which.
        #[command(flatten)]
        which: OfCampaign,
        /// The file to write, in HTML; must not exist yet.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
        /// Report one site and nothing of the others: for its owner.
        #[arg(long, value_name = "SITE")]
        site: Option<String>,
    },
    /// Print who did what when: of one campaign, or what never became one.
    Audit {
        /// The campaign: 4 or more digits of its id [default: what was refused before there was one].
        campaign: Option<String>,
        /// Of which estate.
        #[command(flatten)]
        of: OfEstate,
    },
}

/// Arguments of `campaign plan`.
#[derive(Debug, Args)]
pub struct CampaignPlan {
    /// The sites, as in site:42, in the order of their priority.
    #[arg(value_name = "SITE", required_unless_present_any = ["tenants_from", "everyone"])]
    pub sites: Vec<String>,
    /// A file with one site a line; - is standard input.
    #[arg(long, value_name = "FILE")]
    pub tenants_from: Option<PathBuf>,
    /// Every site there was, into stores that are new and empty, and that the operator has created.
    #[arg(long, conflicts_with_all = ["sites", "tenants_from"])]
    pub everyone: bool,
    /// The wall time that all stores go back to: a time with its offset or [zone], -5m, latest.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub at: String,
    /// Take the latest point before that can be had, in stores where the time itself cannot.
    #[arg(long)]
    pub nearest_before: bool,
    /// Park sites that cannot be restored, with their reasons, and plan the others.
    #[arg(long)]
    pub park_unfit: bool,
    /// Where somebody else has a site's id by now, restore it under the id that the estate has for that, and
    /// write into this new file which key became which. Two people have to approve it.
    #[arg(long, value_name = "FILE", conflicts_with = "everyone")]
    pub remap: Option<PathBuf>,
    /// Of which estate.
    #[command(flatten)]
    pub of: OfEstate,
}

impl CampaignPlan {
    /// The sites that are named.
    #[must_use]
    pub fn whose(&self) -> Whose {
        Whose {
            tenants: self.sites.clone(),
            tenants_from: self.tenants_from.clone(),
        }
    }
}

/// Arguments of `campaign run`.
#[derive(Debug, Args)]
pub struct CampaignRun {
    /// Which.
    #[command(flatten)]
    pub which: OfCampaign,
    /// How many seconds a store that is away or busy is tried again before the run stops.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub patience: u32,
    /// How fast.
    #[command(flatten)]
    pub pace: PaceChange,
}

/// Limits of how fast stores may be written to; from now on, and for the runs that follow.
#[derive(Clone, Copy, Debug, Args)]
pub struct PaceChange {
    /// Write no more rows a second to a store, on average; or none, for as many as can be.
    #[arg(long, value_name = "N", value_parser = crate::pacing::parse_cap::<NonZeroU64>)]
    pub rows_per_second: Option<Cap<NonZeroU64>>,
    /// Write slower when a store takes longer than this to commit nothing, as in 20ms; or none.
    #[arg(long, value_name = "TIME", value_parser = crate::pacing::parse_latency)]
    pub latency_max: Option<Cap<Duration>>,
}

/// A limit that somebody set, or took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cap<T> {
    /// There is none.
    Off,
    /// It is this.
    At(T),
}
