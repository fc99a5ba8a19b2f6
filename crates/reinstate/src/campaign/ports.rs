//! What a campaign is given: stores, images, and what only an operator knows.

use reinstate_core::{LiveStore, Repository, StoreError, Tenant, TenantId, Timestamp};
use reinstate_format::CampaignStep;

use crate::{Context, Error, TenantImage};

/// A store of an estate that is open.
#[derive(Clone, Copy)]
pub struct EstateStore<'e> {
    /// The live store.
    pub live: &'e dyn LiveStore,
    /// The repository with its snapshots and plans.
    pub repository: &'e dyn Repository,
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
