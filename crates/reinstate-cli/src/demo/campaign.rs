//! The campaign, by the commands that an operator types; and taking one of its sites away again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser as _;
use reinstate::{
    CampaignState, DriftRules, OwnerCheck, PlanRequest, StoredCampaign, StoredPlan, TenantState,
    apply, campaign_journal, campaign_state, plan_undo,
};
use reinstate_core::{ErrorKind, Phase, Policy, Repository};

use super::Stage;
use super::estate::ESTATE;
use super::story::Story;
use crate::arguments::{Arguments, Campaign, Command};
use crate::commands::campaign::{self, Begin};
use crate::exit::Exit;
use crate::failure::{Failure, one_line};
use crate::progress::Progress;
use crate::render::{bytes, count, counted};
use crate::session::{new_job, now};

/// The list of sites, as somebody has gathered it.
const SITES: &str = "sites.txt";
/// What is written for whoever wants to know.
const REPORT: &str = "report.html";
/// Who approves: the first alone, unless so many sites take two.
const PEOPLE: [&str; 2] = ["ada", "grace"];

/// What the campaign came to.
#[derive(Debug)]
pub struct RestoredAll {
    /// The campaign.
    pub campaign: StoredCampaign,
    /// Sites that are handed back.
    pub site_count: usize,
    /// Rows that were written.
    pub row_count: u64,
    /// How long it took, from the first byte read to the last site handed back.
    pub elapsed: Duration,
    /// Bytes that the sites have stored in the snapshots.
    pub stored_bytes: u64,
}

impl Stage<'_> {
    /// Plan, approve and run, while the application writes on.
    pub(super) fn restore(&self, story: &Story<'_>) -> anyhow::Result<RestoredAll> {
        let sites = self.victims.iter();
        let sites: Vec<String> = sites
            .map(|&site| format!("{}\n", self.site(site)))
            .collect();
        fs::write(self.directory.join(SITES), sites.concat())?;
        let started = Instant::now();
        let line = format!("campaign plan --tenants-from {SITES} --at latest");
        let Campaign::Plan(mut arguments) = self.typed(story, &line)? else {
            unreachable!("BUG: {line}");
        };
        arguments.tenants_from = Some(self.directory.join(SITES));
        let campaign = campaign::plan(&arguments, &self.estate)?;
        let planned = started.elapsed();
        let description = campaign.description();
        let short = description.campaign.short();
        let digest = campaign.digest().short();
        let approvals = usize::from(description.approvals_needed.max(1));
        for person in PEOPLE.iter().take(approvals) {
            let line = format!("campaign approve {short} --confirm-digest {digest} --as {person}");
            self.command(&self.typed(story, &line)?)?;
        }
        let line = format!("campaign run {short}");
        let Campaign::Run(arguments) = self.typed(story, &line)? else {
            unreachable!("BUG: {line}");
        };
        campaign::run_campaign(&self.estate, &campaign, &arguments, Begin::Run)?;
        let elapsed = started.elapsed();
        let state = self.state(&campaign)?;
        let parts = description.tenants.iter().flat_map(|site| &site.parts);
        let restored = RestoredAll {
            site_count: state.count(TenantState::HandedBack),
            row_count: state.rows_changed(),
            elapsed,
            stored_bytes: parts.flatten().map(|part| part.stored_bytes).sum(),
            campaign,
        };
        let seconds = elapsed.as_secs_f64();
        story.say("");
        story.step(
            "restore",
            elapsed,
            format_args!(
                "{}, {} brought back: compare {:.1} s, write, verify and check {:.1} s, {} rows/s",
                counted(restored.site_count as u64, "site", "sites"),
                counted(restored.row_count, "row", "rows"),
                planned.as_secs_f64(),
                seconds - planned.as_secs_f64(),
                count(per_second(restored.row_count, seconds))
            ),
        );
        story.say(format_args!(
            "            the sites have {} stored in the snapshots",
            bytes(restored.stored_bytes)
        ));
        Ok(restored)
    }

    /// Writes the report of the campaign, where somebody wants to keep it.
    pub(super) fn report(
        &self,
        story: &Story<'_>,
        campaign: &StoredCampaign,
        out: Option<&Path>,
    ) -> anyhow::Result<()> {
        let out = out.map_or_else(|| self.directory.join(REPORT), PathBuf::from);
        let short = campaign.description().campaign.short();
        let line = format!("campaign report {short} -o");
        story.say(format_args!("\n$ reinstate {line} {}", out.display()));
        // A path may have blanks in it: it is put in afterwards.
        let Campaign::Report { which, site, .. } = self.parsed(&format!("{line} {REPORT}"))? else {
            unreachable!("BUG: {line}");
        };
        self.command(&Campaign::Report { which, out, site })?;
        story.say("");
        Ok(())
    }

    /// Shows what is typed, and what it means to the program.
    fn typed(&self, story: &Story<'_>, line: &str) -> anyhow::Result<Campaign> {
        story.say(format_args!("\n$ reinstate {line}"));
        self.parsed(line)
    }

    /// What a line means to the program, in the directory of the estate.
    fn parsed(&self, line: &str) -> anyhow::Result<Campaign> {
        let estate = self.directory.join(ESTATE);
        let mut words: Vec<_> = ["reinstate"].into_iter().chain(line.split(' ')).collect();
        let estate = estate.display().to_string();
        words.extend(["--estate", &estate]);
        match Arguments::try_parse_from(words)?.command {
            Command::Campaign(campaign) => Ok(campaign),
            other => unreachable!("BUG: {line} is {other:?}"),
        }
    }

    /// Runs a command that opens no store, as a process of its own would.
    fn command(&self, arguments: &Campaign) -> anyhow::Result<Exit> {
        let estate = &self.estate;
        campaign::run(arguments, self.global, estate.console, estate.interruption)
    }

    fn state(&self, campaign: &StoredCampaign) -> anyhow::Result<CampaignState> {
        let journal = campaign_journal(&self.estate.repository, campaign)?;
        Ok(journal.look(|entries| campaign_state(campaign, entries)))
    }

    /// Takes the restore of one site back in every store, the last phase first; returns which.
    pub(super) fn undo(&self, story: &Story<'_>, campaign: &StoredCampaign) -> anyhow::Result<u32> {
        let started = Instant::now();
        let place = self.victims.len() / 2;
        let undone = self.victims[place];
        let progress = Progress::new(&[Phase::Plan, Phase::Merge, Phase::Verify], 1);
        let cancellation = self.estate.interruption.cancellation();
        let context = self.estate.engine.context(&progress, cancellation);
        let description = campaign.description();
        let batch = &description.batches[description.tenants[place].batch as usize];
        let mut row_count = 0;
        let stores = self.estate.stores()?.iter().zip(&self.shops);
        for ((open, shop), planned) in stores.zip(&batch.plans).rev() {
            let Some(planned) = planned else { continue };
            let repository = &open.repository;
            let merged = StoredPlan::open(repository, planned.object)?;
            let request = PlanRequest {
                job: new_job()?,
                repository: repository.id(),
                policy: Policy::EXACT,
                drift: DriftRules::default(),
                check_owners: OwnerCheck::In(repository),
                planned_at: now(),
            };
            let tenants = [shop.synthetic.tenant(undone)];
            let output = repository.create_object()?;
            let live = open.live.as_ref();
            let written = plan_undo(context, &merged, &tenants, live, &request, output)?;
            let plan = StoredPlan::open(repository, written.object)?;
            for outcome in apply(context, &plan, live, repository, now())? {
                let name = outcome.tenant;
                let restored = outcome.result.map_err(|error| {
                    Failure::new(error.kind(), format!("{name}: {}", one_line(&error)))
                })?;
                if !restored.verdict.is_restored() {
                    let findings = restored.verdict.findings();
                    let message = format!("{name} came out as {findings:?}");
                    return Err(Failure::new(ErrorKind::Unverified, message).into());
                }
                row_count += restored.receipt.changed_rows();
            }
        }
        progress.clear();
        story.step(
            "undo",
            started.elapsed(),
            format_args!(
                "the restore of {} is taken back in every store, {}",
                self.site(undone),
                counted(row_count, "row", "rows")
            ),
        );
        Ok(undone)
    }
}

/// A rate, rounded down.
#[must_use]
pub fn per_second(number: u64, seconds: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rate for people, and seconds are positive"
    )]
    let rate = (number as f64 / seconds.max(1e-9)) as u64;
    rate
}
