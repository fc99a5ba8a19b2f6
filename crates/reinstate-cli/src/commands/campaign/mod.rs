//! `campaign`: many sites over many stores.

mod approve;
mod audit;
mod estate;
mod everyone;
mod figures;
mod ids;
mod live;
mod operator;
mod pace;
mod plan;
mod report;
mod run;
mod signs;
mod status;
mod view;

use crate::arguments::{Campaign, Global};
use crate::console::Console;
use crate::exit::Exit;
use crate::signals::Interruption;

pub use estate::{Estate, OpenStore};
pub use plan::plan;
pub use run::{Begin, run as run_campaign};

/// `campaign ...`.
pub fn run(
    arguments: &Campaign,
    global: &Global,
    console: &Console,
    interruption: &Interruption,
) -> anyhow::Result<Exit> {
    let open = |of| Estate::open(of, global, console, interruption);
    let find = |which| estate::open_campaign(which, global, console, interruption);
    match arguments {
        Campaign::Plan(plan) => plan::run(plan, &open(&plan.of)?),
        Campaign::Approve {
            which,
            confirm_digest,
        } => {
            let (estate, campaign) = find(which)?;
            approve::approve(&estate, &campaign, confirm_digest)
        }
        Campaign::Run(arguments) => {
            let (estate, campaign) = find(&arguments.which)?;
            run::run(&estate, &campaign, arguments, Begin::Run)
        }
        Campaign::Resume { run, retry_parked } => {
            let (estate, campaign) = find(&run.which)?;
            let begin = Begin::Resume {
                retry_parked: *retry_parked,
            };
            run::run(&estate, &campaign, run, begin)
        }
        Campaign::Status {
            campaign,
            watch: true,
            of,
        } => {
            let estate = open(of)?;
            let campaign = estate.find_or_last(campaign.as_deref())?;
            live::watch(&estate, &campaign)
        }
        Campaign::Status { campaign, of, .. } => status::run(&open(of)?, campaign.as_deref()),
        Campaign::Pause { which } => {
            let (estate, campaign) = find(which)?;
            approve::pause(&estate, &campaign)
        }
        Campaign::Pace {
            which,
            store,
            change,
        } => {
            let (estate, campaign) = find(which)?;
            pace::run(&estate, &campaign, store, *change)
        }
        Campaign::Accept { which, site, gate } => {
            let (estate, campaign) = find(which)?;
            approve::accept(&estate, &campaign, site, gate.as_deref())
        }
        Campaign::Abort {
            which,
            undo,
            confirm_digest,
            patience,
            pace,
        } => {
            let (estate, campaign) = find(which)?;
            let abort = run::Abort {
                undo: *undo,
                digest: confirm_digest.as_deref(),
                patience: *patience,
                pace: *pace,
            };
            run::abort(&estate, &campaign, abort)
        }
        Campaign::Report { which, out, site } => {
            let (estate, campaign) = find(which)?;
            report::run(&estate, &campaign, site.as_deref(), out)
        }
        Campaign::Audit { campaign, of } => audit::run(&open(of)?, campaign.as_deref()),
    }
}
