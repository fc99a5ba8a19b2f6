//! Signs of life: what a run of a campaign does at this moment, in a file that others read.
//!
//! Nothing depends on it. What is done is in the journal; the file says what cannot be there: how fast
//! it goes, what it works on, and that somebody is at work at all.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reinstate::{CampaignWatcher, Deed, Pace, StoredCampaign};
use serde::{Deserialize, Serialize};

use super::estate::Estate;
use crate::session::now;

/// The directory of the campaigns' repository with the files; may be deleted at any time.
const DIRECTORY: &str = "running";
/// Over how long a time speeds are measured.
const WINDOW: Duration = Duration::from_secs(60);
/// For how long speeds have to be measured before they mean something.
const WINDOW_MIN: Duration = Duration::from_secs(3);

/// What a run does at this moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Signs {
    /// Who runs it.
    pub actor: String,
    /// As which process.
    pub process: u32,
    /// When it began, in microseconds since 1970.
    pub began_at: i64,
    /// When this was written.
    pub at: i64,
    /// Its stores, in the order of the plan.
    pub stores: Vec<StoreSigns>,
    /// The sites that it works on.
    pub sites: Vec<SiteSigns>,
}

/// How fast it writes to a store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StoreSigns {
    /// Rows handed to the store in this run.
    pub rows: u64,
    /// Rows a second, over the last minute; none if that means nothing yet.
    pub rows_per_second: Option<f64>,
    /// Rows a second that are let through; none if as many as can be.
    pub let_through: Option<f64>,
    /// How long the last probe of the store took, in seconds.
    pub latency_seconds: Option<f64>,
    /// How often it was probed.
    pub probes: u64,
    /// How often that took too long.
    pub slow_probes: u64,
    /// How long nothing was written because of the limits, in seconds, over all who write.
    pub waited_seconds: f64,
}

/// What it does with a site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SiteSigns {
    /// The site's place in the plan.
    pub place: u32,
    /// What.
    pub deed: String,
    /// For how many seconds.
    pub seconds: f64,
    /// What is in the way, and for how many seconds.
    pub trouble: Option<(String, f64)>,
}

impl Signs {
    /// Where a campaign's are.
    #[must_use]
    pub fn path(estate: &Estate<'_>, campaign: &StoredCampaign) -> PathBuf {
        let name = format!("{}.json", campaign.description().campaign);
        estate.repository.path().join(DIRECTORY).join(name)
    }

    /// The last that were given; none if no run is at work, or they cannot be read.
    #[must_use]
    pub fn read(estate: &Estate<'_>, campaign: &StoredCampaign) -> Option<Self> {
        let text = fs::read(Self::path(estate, campaign)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// How long ago they were given.
    #[must_use]
    pub fn age(&self) -> Duration {
        let micros = now().as_micros().saturating_sub(self.at);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// How long the run goes on.
    #[must_use]
    pub fn length(&self) -> Duration {
        let micros = self.at.saturating_sub(self.began_at);
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }

    /// Rows a second, over all stores; none if that means nothing yet.
    #[must_use]
    pub fn rows_per_second(&self) -> Option<f64> {
        let speeds = self.stores.iter().map(|store| store.rows_per_second);
        speeds.sum::<Option<f64>>()
    }
}

/// The file of a run that is at work. Taken away when the run ends, unless it is killed.
#[derive(Debug)]
pub struct SignsFile {
    path: PathBuf,
}

impl SignsFile {
    /// The file of this campaign.
    #[must_use]
    pub fn of(estate: &Estate<'_>, campaign: &StoredCampaign) -> Self {
        let path = Signs::path(estate, campaign);
        Self { path }
    }

    /// Puts others in its place. If that cannot be done, whoever looks sees older ones, and how old.
    pub fn write(&self, signs: &Signs) {
        let fresh = self.path.with_extension("new");
        let Ok(text) = serde_json::to_vec(signs) else {
            return;
        };
        let _ = self.path.parent().map(fs::create_dir_all);
        let _ = fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, &self.path));
    }
}

impl Drop for SignsFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What a run does with which site.
#[derive(Debug)]
pub struct Board {
    stores: Vec<String>,
    sites: Mutex<BTreeMap<u32, Work>>,
}

#[derive(Debug)]
struct Work {
    deed: String,
    since: Instant,
    trouble: Option<(String, Instant)>,
}

impl Board {
    /// An empty board of a campaign.
    #[must_use]
    pub fn of(campaign: &StoredCampaign) -> Self {
        let stores = campaign.description().stores.iter();
        Self {
            stores: stores.map(|store| store.name.clone()).collect(),
            sites: Mutex::default(),
        }
    }

    fn words(&self, deed: Deed<'_>) -> String {
        let name = |store: u32| self.stores.get(store as usize).map_or("?", String::as_str);
        match deed {
            Deed::Closing => "closing".to_owned(),
            Deed::Queueing { store } => format!("waits for its turn in {}", name(store)),
            Deed::Merging { store } => format!("merging in {}", name(store)),
            Deed::Checking { gate } => format!("at gate {gate}"),
            Deed::Opening => "opening".to_owned(),
            Deed::TakingBack { store } => format!("taking back in {}", name(store)),
            _ => "at work".to_owned(),
        }
    }

    fn sites(&self) -> Vec<SiteSigns> {
        let sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        let signs = sites.iter().map(|(place, work)| SiteSigns {
            place: *place,
            deed: work.deed.clone(),
            seconds: work.since.elapsed().as_secs_f64(),
            trouble: work
                .trouble
                .as_ref()
                .map(|(why, since)| (why.clone(), since.elapsed().as_secs_f64())),
        });
        signs.collect()
    }
}

impl CampaignWatcher for Board {
    fn does(&self, site: u32, deed: Option<Deed<'_>>) {
        let mut sites = self.sites.lock().unwrap_or_else(PoisonError::into_inner);
        match deed {
            None => {
                sites.remove(&site);
            }
            Some(Deed::TryingAgain { why }) => {
                if let Some(work) = sites.get_mut(&site) {
                    let since = work.trouble.take().map(|(_, since)| since);
                    work.trouble = Some((why.to_owned(), since.unwrap_or_else(Instant::now)));
                }
            }
            Some(deed) => {
                let deed = self.words(deed);
                // Doing the same again is still the same, with what was in the way.
                if sites.get(&site).is_none_or(|work| work.deed != deed) {
                    let (since, trouble) = (Instant::now(), None);
                    let work = Work {
                        deed,
                        since,
                        trouble,
                    };
                    sites.insert(site, work);
                }
            }
        }
    }
}

/// Measures a run.
#[derive(Debug)]
pub struct Meter<'m> {
    actor: String,
    began_at: i64,
    board: &'m Board,
    paces: &'m [Pace<'m>],
    samples: VecDeque<(Instant, Vec<u64>)>,
}

impl<'m> Meter<'m> {
    /// Begins to measure.
    #[must_use]
    pub fn start(actor: &str, board: &'m Board, paces: &'m [Pace<'m>]) -> Self {
        Self {
            actor: actor.to_owned(),
            began_at: now().as_micros(),
            board,
            paces,
            samples: VecDeque::new(),
        }
    }

    /// What the run does at this moment.
    pub fn signs(&mut self) -> Signs {
        let reports: Vec<_> = self.paces.iter().map(Pace::report).collect();
        let moment = Instant::now();
        let rows = reports.iter().map(|report| report.rows).collect();
        self.samples.push_back((moment, rows));
        while self.samples.len() > 2 && self.samples[1].0 + WINDOW < moment {
            self.samples.pop_front();
        }
        let (since, before) = &self.samples[0];
        let seconds = moment.duration_since(*since);
        let stores = reports.iter().zip(before).map(|(report, before)| {
            #[expect(clippy::cast_precision_loss, reason = "a speed for people")]
            let speed = (report.rows - before) as f64 / seconds.as_secs_f64();
            StoreSigns {
                rows: report.rows,
                rows_per_second: (seconds >= WINDOW_MIN).then_some(speed),
                let_through: report.rows_per_second,
                latency_seconds: report.latency_last.map(|latency| latency.as_secs_f64()),
                probes: report.probes,
                slow_probes: report.slow_probes,
                waited_seconds: report.waited.as_secs_f64(),
            }
        });
        Signs {
            actor: self.actor.clone(),
            process: std::process::id(),
            began_at: self.began_at,
            at: now().as_micros(),
            stores: stores.collect(),
            sites: self.board.sites(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_again_is_still_the_same_work() {
        let board = Board {
            stores: vec!["orders".to_owned()],
            sites: Mutex::default(),
        };
        let merging = Some(Deed::Merging { store: 0 });
        board.does(7, merging);
        board.does(7, Some(Deed::TryingAgain { why: "it is away" }));
        let first = board.sites()[0].trouble.clone().unwrap().1;
        board.does(7, merging);
        board.does(
            7,
            Some(Deed::TryingAgain {
                why: "it is locked",
            }),
        );
        let sites = board.sites();
        let (why, seconds) = sites[0].trouble.clone().unwrap();
        assert_eq!(
            (sites[0].deed.as_str(), why.as_str()),
            ("merging in orders", "it is locked")
        );
        assert!(seconds >= first);
        board.does(7, Some(Deed::Opening));
        assert_eq!(board.sites()[0].trouble, None);
        board.does(7, None);
        assert_eq!(board.sites(), []);
    }
}
