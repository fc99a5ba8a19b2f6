//! A campaign at a glance: for a terminal that somebody watches, for one line, for machines.

use std::fmt::Write as _;
use std::time::Duration;

use reinstate::{CampaignState, StoredCampaign, TenantState};
use serde::Serialize;

use super::figures::{Figures, Part, waiting_at};
use super::status::{STATES, stage_name, state_name};
use crate::pacing::{limits_text, milliseconds};
use crate::render::{bytes, count, grid};

/// How wide bars are.
const BAR: usize = 24;
/// How many sites of a kind are listed.
const LISTED_MAX: usize = 8;
/// A site is named as at work once it is for so long: what is over at once only flickers.
const NAMED_AFTER: f64 = 1.0;

/// A campaign with where it is.
#[derive(Clone, Copy, Debug)]
pub struct View<'v> {
    /// The campaign.
    pub campaign: &'v StoredCampaign,
    /// Where it is.
    pub state: &'v CampaignState,
    /// In numbers.
    pub figures: &'v Figures,
}

impl View<'_> {
    fn site(&self, place: usize) -> String {
        let description = self.campaign.description();
        let site = description.tenants.get(place).map(|tenant| &tenant.site);
        site.map_or_else(String::new, |site| {
            format!("{}:{site}", description.site_kind)
        })
    }

    /// Everything that one looks for at once, in lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.head()];
        lines.extend(self.run());
        lines.extend(self.bars());
        lines.extend(self.stores());
        lines.extend(self.waiting());
        lines.extend(self.at_work());
        lines.extend(self.parked());
        lines
    }

    fn head(&self) -> String {
        let description = self.campaign.description();
        let (short, asked) = (description.campaign.short(), &description.asked);
        let stage = stage_name(self.state.stage);
        format!("campaign {short}  {stage}, back to {asked}")
    }

    /// Who is at work; or that nobody is, though a run did not say that it ended.
    fn run(&self) -> Option<String> {
        if let Some(signs) = &self.figures.signs {
            let since = length(signs.length());
            let (actor, process) = (&signs.actor, signs.process);
            return Some(format!("run      {actor}, for {since} (process {process})"));
        }
        let silent = length(self.figures.silent_for?);
        let short = self.campaign.description().campaign.short();
        let next = match self.figures.is_undo {
            true => "type the same abort again".to_owned(),
            false => format!("reinstate campaign resume {short}"),
        };
        Some(format!(
            "run      NOT HEARD OF FOR {silent}: killed, or cut off; next: {next}"
        ))
    }

    fn bars(&self) -> [String; 3] {
        let Figures {
            sites,
            rows,
            bytes: held,
            ..
        } = self.figures;
        let speed = self.figures.signs.as_ref().and_then(|signs| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a speed for people"
            )]
            let speed = signs.rows_per_second()?.round() as u64;
            Some(format!(", {} rows/s", count(speed)))
        });
        let left = self
            .figures
            .left
            .map(|left| format!(", about {} left", length(left)));
        [
            format!("sites    {}  {}", bar(*sites), self.sites()),
            format!(
                "rows     {}  {} of {}{}{}",
                bar(*rows),
                count(rows.done),
                count(rows.all),
                speed.unwrap_or_default(),
                left.unwrap_or_default()
            ),
            format!(
                "bytes    {}  {} of {} in the snapshots",
                bar(*held),
                bytes(held.done),
                bytes(held.all)
            ),
        ]
    }

    /// How many sites are where.
    fn sites(&self) -> String {
        let figures = self.figures;
        let done = match figures.is_undo {
            true => "taken back",
            false => "handed back",
        };
        let mut text = format!("{} of {} {done}", figures.sites.done, figures.sites.all);
        for (number, what) in [
            (figures.parked, "parked"),
            (figures.waiting, "to be accepted"),
            (figures.under_way, "under way"),
        ] {
            if number > 0 {
                let _ = write!(text, ", {number} {what}");
            }
        }
        text
    }

    fn stores(&self) -> Vec<String> {
        let stores = self.campaign.description().stores.iter();
        let rows = stores.zip(&self.figures.stores).enumerate();
        let rows = rows.map(|(place, (store, figures))| {
            let signs = self.figures.signs.as_ref();
            let signs = signs.and_then(|signs| signs.stores.get(place));
            let speed = |speed: Option<f64>| {
                speed.map_or_else(|| "-".to_owned(), |speed| format!("{speed:.0}"))
            };
            let latency = signs.and_then(|signs| signs.latency_seconds);
            vec![
                store.name.clone(),
                store.phase.to_string(),
                figures.pending.to_string(),
                figures.merged.to_string(),
                match self.figures.is_undo {
                    true => figures.undone.to_string(),
                    false => figures.verified.to_string(),
                },
                count(figures.rows.done),
                count(figures.rows.all),
                speed(signs.and_then(|signs| signs.rows_per_second)),
                speed(signs.and_then(|signs| signs.let_through)),
                latency.map_or_else(
                    || "-".to_owned(),
                    |latency| milliseconds(Duration::from_secs_f64(latency)),
                ),
                limits_text(figures.limits),
            ]
        });
        let header = [
            "store",
            ">phase",
            ">pending",
            ">merged",
            match self.figures.is_undo {
                true => ">undone",
                false => ">verified",
            },
            ">rows",
            ">of",
            ">rows/s",
            ">allowed",
            ">answers in",
            "limits",
        ];
        grid(&header, rows)
    }

    fn waiting(&self) -> Vec<String> {
        let short = self.campaign.description().campaign.short();
        let gates = waiting_at(self.state).into_iter().map(|(gate, places)| {
            let sites: Vec<String> = places
                .iter()
                .take(LISTED_MAX)
                .map(|place| self.site(*place))
                .collect();
            format!(
                "waiting  {} at {gate} (reinstate campaign accept {short} SITE): {}{}",
                places.len(),
                sites.join(", "),
                if places.len() > LISTED_MAX {
                    ", ..."
                } else {
                    ""
                }
            )
        });
        gates.collect()
    }

    fn at_work(&self) -> Vec<String> {
        let signs = self.figures.signs.iter().flat_map(|signs| &signs.sites);
        let mut longest: Vec<_> = signs
            .filter(|site| site.seconds >= NAMED_AFTER || site.trouble.is_some())
            .collect();
        longest.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
        let lines = longest.iter().take(LISTED_MAX).map(|site| {
            let since = length(Duration::from_secs_f64(site.seconds));
            let trouble = site.trouble.as_ref().map(|(why, seconds)| {
                let tried = length(Duration::from_secs_f64(*seconds));
                format!("; TRIED AGAIN FOR {tried}: {why}")
            });
            format!(
                "at work  {}  {} for {since}{}",
                self.site(site.place as usize),
                site.deed,
                trouble.unwrap_or_default()
            )
        });
        lines.collect()
    }

    fn parked(&self) -> Vec<String> {
        let mut parked = self.parked_sites();
        let all = parked.len();
        // The newest are what somebody who watches has not seen yet.
        parked.sort_by_key(|(place, _)| std::cmp::Reverse(self.state.tenants[*place].changed_at));
        let mut lines: Vec<String> = parked
            .iter()
            .take(LISTED_MAX)
            .map(|(place, reason)| format!("parked   {}  {reason}", self.site(*place)))
            .collect();
        if all > LISTED_MAX {
            let short = self.campaign.description().campaign.short();
            lines.push(format!(
                "parked   and {} more: reinstate campaign status {short}",
                all - LISTED_MAX
            ));
        }
        lines
    }

    /// The sites that are parked, by their places, with the reasons.
    #[must_use]
    pub fn parked_sites(&self) -> Vec<(usize, &str)> {
        let tenants = self.state.tenants.iter().enumerate();
        let parked = tenants.filter(|(_, tenant)| tenant.state == TenantState::Parked);
        parked
            .map(|(place, tenant)| (place, tenant.reason.as_deref().unwrap_or("")))
            .collect()
    }

    /// A parked site in one line.
    #[must_use]
    pub fn parked_line(&self, place: usize, reason: &str) -> String {
        format!("parked   {}  {reason}", self.site(place))
    }

    /// How far it is in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let [_, rows, _] = self.bars();
        let rows = rows.rsplit("]  ").next().unwrap_or_default().to_owned();
        let head = format!(
            "campaign {}  {}: {}",
            self.campaign.description().campaign.short(),
            stage_name(self.state.stage),
            self.sites()
        );
        format!("{head}; rows {rows}")
    }

    /// How far it is, for machines.
    #[must_use]
    pub fn record(&self) -> ProgressRecord {
        let figures = self.figures;
        let states = STATES.map(|of| (state_name(of), self.state.count(of)));
        let signs = figures.signs.as_ref();
        let stores = self.campaign.description().stores.iter();
        let stores = stores.zip(&figures.stores).enumerate();
        let stores = stores.map(|(place, (store, figures))| {
            let signs = signs.and_then(|signs| signs.stores.get(place));
            StoreRecord {
                store: store.name.clone(),
                phase: store.phase,
                pending: figures.pending,
                merged: figures.merged,
                verified: figures.verified,
                undone: figures.undone,
                rows_done: figures.rows.done,
                rows_planned: figures.rows.all,
                rows_per_second_max: figures.limits.rows_per_second.map(std::num::NonZero::get),
                latency_max_seconds: figures.limits.latency_max.map(|max| max.as_secs_f64()),
                rows_per_second: signs.and_then(|signs| signs.rows_per_second),
                rows_per_second_allowed: signs.and_then(|signs| signs.let_through),
                latency_seconds: signs.and_then(|signs| signs.latency_seconds),
                waited_seconds: signs.map(|signs| signs.waited_seconds),
            }
        });
        ProgressRecord {
            record: "progress",
            campaign: self.campaign.description().campaign.to_string(),
            stage: stage_name(self.state.stage),
            is_at_work: signs.is_some(),
            silent_seconds: figures.silent_for.map(|silent| silent.as_secs_f64()),
            run_by: signs.map(|signs| signs.actor.clone()),
            process: signs.map(|signs| signs.process),
            seconds: signs.map(|signs| signs.length().as_secs_f64()),
            states: states.into_iter().collect(),
            rows_done: figures.rows.done,
            rows_planned: figures.rows.all,
            bytes_done: figures.bytes.done,
            bytes_planned: figures.bytes.all,
            rows_per_second: signs.and_then(super::signs::Signs::rows_per_second),
            seconds_left: figures.left.map(|left| left.as_secs_f64()),
            stores: stores.collect(),
            at_work: signs
                .iter()
                .flat_map(|signs| &signs.sites)
                .map(|site| WorkRecord {
                    site: self.site(site.place as usize),
                    deed: site.deed.clone(),
                    seconds: site.seconds,
                    trouble: site.trouble.as_ref().map(|(why, _)| why.clone()),
                })
                .collect(),
            parked: self
                .parked_sites()
                .into_iter()
                .map(|(place, reason)| ParkedRecord {
                    site: self.site(place),
                    reason: reason.to_owned(),
                })
                .collect(),
        }
    }
}

/// How far a campaign is, for machines.
#[derive(Clone, Debug, Serialize)]
pub struct ProgressRecord {
    #[serde(rename = "type")]
    record: &'static str,
    campaign: String,
    stage: &'static str,
    is_at_work: bool,
    silent_seconds: Option<f64>,
    run_by: Option<String>,
    process: Option<u32>,
    seconds: Option<f64>,
    states: std::collections::BTreeMap<&'static str, usize>,
    rows_done: u64,
    rows_planned: u64,
    bytes_done: u64,
    bytes_planned: u64,
    rows_per_second: Option<f64>,
    seconds_left: Option<f64>,
    stores: Vec<StoreRecord>,
    at_work: Vec<WorkRecord>,
    parked: Vec<ParkedRecord>,
}

#[derive(Clone, Debug, Serialize)]
struct StoreRecord {
    store: String,
    phase: u8,
    pending: usize,
    merged: usize,
    verified: usize,
    undone: usize,
    rows_done: u64,
    rows_planned: u64,
    rows_per_second_max: Option<u64>,
    latency_max_seconds: Option<f64>,
    rows_per_second: Option<f64>,
    rows_per_second_allowed: Option<f64>,
    latency_seconds: Option<f64>,
    waited_seconds: Option<f64>,
}

#[derive(Clone, Debug, Serialize)]
struct WorkRecord {
    site: String,
    deed: String,
    seconds: f64,
    trouble: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
struct ParkedRecord {
    site: String,
    reason: String,
}

fn bar(part: Part) -> String {
    // Nothing to do is all of it.
    let full = (BAR as u64 * part.done).checked_div(part.all);
    let full = full
        .map_or(BAR, |full| usize::try_from(full).unwrap_or(BAR))
        .min(BAR);
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR - full))
}

/// A length of time for people.
#[must_use]
pub fn length(length: Duration) -> String {
    let seconds = length.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}
