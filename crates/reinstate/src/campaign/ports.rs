//! What a campaign is given: stores, images, and what only an operator knows.

use reinstate_core::{LiveStore, Repository, Silent, StoreError, Tenant, TenantId, Timestamp};
use reinstate_format::CampaignStep;

use crate::{Context, Error, Pace, TenantImage};

/// A store of an estate that is open.
#[derive(Clone, Copy)]
pub struct EstateStore<'e> {
    /// The live store.
    pub live: &'e dyn LiveStore,
    /// The repository with its snapshots and plans.
    pub repository: &'e dyn Repository,
    /// How fast it may be written to; none if as fast as it can.
    pub pace: Option<&'e Pace<'e>>,
}

impl std::fmt::Debug for EstateStore<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "EstateStore({})", self.live.identity().name)
    }
}

/// Where the images of a store's tenants come from: one point in time of it.
pub trait Images: Sync {
    /// The images of these tenants, as many and in the same order. One that cannot be had does not
    /// keep the others from being found.
    ///
    /// # Errors
    /// If none can be had.
    fn images(
        &self,
        context: Context<'_>,
        tenants: &[Tenant],
    ) -> Result<Vec<Result<TenantImage, Error>>, Error>;
}

/// Whom a step is about.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'s> {
    /// The site.
    pub site: &'s Tenant,
    /// Its id in each store of the campaign; none where it is not.
    pub tenants: &'s [Option<TenantId>],
}

/// What a step is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepPurpose {
    /// To see whether something holds: it must not change anything.
    Check,
    /// To change something: to close a site or to open it.
    Act,
}

/// What became of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepAnswer {
    /// Whether it went well: a program ended with 0, a statement was run.
    pub is_done: bool,
    /// What a statement answered, or a program said last; for people.
    pub text: String,
}

/// What only an operator knows, and the clock.
pub trait Operator: Sync {
    /// This moment.
    fn now(&self) -> Timestamp;

    /// Who runs this: what the journal names.
    fn actor(&self) -> &str;

    /// Runs a step, for no longer than this many seconds.
    ///
    /// # Errors
    /// If it could not be run at all. A step that ran and did not go well is an answer.
    fn step(
        &self,
        step: &CampaignStep,
        timeout_seconds: u32,
        purpose: StepPurpose,
        subject: Subject<'_>,
    ) -> Result<StepAnswer, StoreError>;
}

/// What a run does with a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deed<'d> {
    /// It closes it.
    Closing,
    /// It waits until fewer sites are written to a store.
    Queueing {
        /// Which, by its place in the plan.
        store: u32,
    },
    /// It writes and verifies its rows in a store.
    Merging {
        /// Which, by its place in the plan.
        store: u32,
    },
    /// It looks whether it passes a gate.
    Checking {
        /// Which.
        gate: &'d str,
    },
    /// It opens it.
    Opening,
    /// It takes its rows back in a store.
    TakingBack {
        /// Which.
        store: u32,
    },
    /// It waits to try again what it was about to do.
    TryingAgain {
        /// What was in the way.
        why: &'d str,
    },
}

/// Is told what a run does at this moment. Nothing depends on it. Called from several threads; must
/// return soon.
pub trait CampaignWatcher: Sync {
    /// The run does this with the site at this place of the plan; none: nothing for now.
    fn does(&self, site: u32, deed: Option<Deed<'_>>);
}

impl CampaignWatcher for Silent {
    fn does(&self, _site: u32, _deed: Option<Deed<'_>>) {}
}
