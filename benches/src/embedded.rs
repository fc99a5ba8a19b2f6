//! The pieces of a restore on the embedded store, one at a time.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reinstate::{DriftRules, OwnerCheck, PlanRequest, StoredPlan, Verdict};
use reinstate_core::{Policy, Repository, Tenant, Timestamp};

use crate::Site;

/// How long the steps of one restore took, and what was read.
#[derive(Clone, Copy, Debug)]
pub struct RestoreTimes {
    /// Finding the tenant in the snapshot.
    pub extract: Duration,
    /// Reading its image and the live tenant, and writing the plan.
    pub plan: Duration,
    /// The transaction, read-back and journal included.
    pub merge: Duration,
    /// Reading the tenant back.
    pub verify: Duration,
    /// Bytes read from the snapshot.
    pub bytes_read: u64,
    /// Bytes of the tenant's stored blocks.
    pub stored_bytes: u64,
    /// Rows written.
    pub row_count: u64,
}

impl RestoreTimes {
    /// All steps together.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.extract + self.plan + self.merge + self.verify
    }
}

/// Deletes a tenant and plans its restore.
///
/// # Errors
/// As the engine reports it.
pub fn plan_again(site: &Site, tenant: &Tenant) -> Result<StoredPlan> {
    site.delete(&tenant.id)?;
    plan_only(site, tenant)
}

fn plan_only(site: &Site, tenant: &Tenant) -> Result<StoredPlan> {
    let request = PlanRequest {
        job: site.next_job(),
        repository: site.repository.id(),
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        check_owners: OwnerCheck::Off,
        planned_at: Timestamp::from_micros(0),
    };
    let images = [site.image(tenant)?];
    let output = site.repository.create_object()?;
    let written = reinstate::plan(site.context(), &images, &site.store, &request, output)?;
    Ok(StoredPlan::open(&site.repository, written.object)?)
}

/// Merges a plan; returns how many rows changed.
///
/// # Errors
/// As the engine reports it.
pub fn merge_once(site: &Site, plan: &StoredPlan, tenant: &Tenant) -> Result<u64> {
    let receipt = reinstate::merge(site.context(), plan, &tenant.id, &site.store)?;
    Ok(receipt.changed_rows())
}

/// Deletes a tenant, then restores it.
///
/// # Errors
/// As [`restore`].
pub fn restore_once(site: &Site, tenant: &Tenant) -> Result<RestoreTimes> {
    site.delete(&tenant.id)?;
    restore(site, tenant)
}

/// Restores a tenant that was deleted, with all four steps.
///
/// # Errors
/// As the engine reports it; or if the tenant is not proven to be restored.
pub fn restore(site: &Site, tenant: &Tenant) -> Result<RestoreTimes> {
    let start = Instant::now();
    let image = site.image(tenant)?;
    let extracted = Instant::now();
    let request = PlanRequest {
        job: site.next_job(),
        repository: site.repository.id(),
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        check_owners: OwnerCheck::Off,
        planned_at: Timestamp::from_micros(0),
    };
    let output = site.repository.create_object()?;
    let images = [image];
    let written = reinstate::plan(site.context(), &images, &site.store, &request, output)?;
    let plan = StoredPlan::open(&site.repository, written.object)?;
    let planned = Instant::now();
    let receipt = reinstate::merge(site.context(), &plan, &tenant.id, &site.store)?;
    let merged = Instant::now();
    let verdict = reinstate::verify(site.context(), plan.plan(), &receipt, &site.store)?;
    let verified = Instant::now();
    ensure!(
        matches!(verdict, Verdict::Restored(_)),
        "{tenant} is not restored: {verdict:?}"
    );
    Ok(RestoreTimes {
        extract: extracted - start,
        plan: planned - extracted,
        merge: merged - planned,
        verify: verified - merged,
        bytes_read: images[0].bytes_read(),
        stored_bytes: images[0].stored_bytes(),
        row_count: receipt.changed_rows(),
    })
}
