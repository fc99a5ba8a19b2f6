//! A campaign over one embedded store, as an operator has it run: planned, approved, led to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use reinstate::{
    CampaignMode, CampaignPlanned, CampaignRequest, CampaignRun, CampaignStep, Context, DriftRules,
    EstateStore, Images, Operator, PlannedStore, RestorePoint, RunLimits, SiteRequest, StepAnswer,
    StepPurpose, Subject, TenantImage, TenantState, Unfit, approve_campaign, campaign_journal,
    extract_all, plan_campaign, run_campaign,
};
use reinstate_core::{
    CampaignId, ErrorKind, LiveStore, Policy, RepositoryId, Silent, StoreError, Tenant, Timestamp,
};
use reinstate_repository::LocalRepository;

use crate::Site;

/// Who asks.
const ACTOR: &str = "bench";

/// Where campaigns over a site are kept.
#[derive(Debug)]
pub struct Campaigns<'s> {
    site: &'s Site,
    repository: LocalRepository,
    next: AtomicU64,
}

/// How long the parts of a campaign took.
#[derive(Clone, Copy, Debug)]
pub struct CampaignTimes {
    /// Until it could be approved.
    pub plan: Duration,
    /// From then on until the last tenant was handed back.
    pub run: Duration,
}

impl CampaignTimes {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.plan + self.run
    }
}

impl<'s> Campaigns<'s> {
    /// Makes the repository that keeps them.
    ///
    /// # Errors
    /// As the repository reports it.
    pub fn create(site: &'s Site) -> Result<Self> {
        let path = site.directory().join("campaigns");
        let id = RepositoryId::from_bytes([4; 16]);
        let repository = match path.exists() {
            true => LocalRepository::open(&path)?,
            false => LocalRepository::init(&path, id, now())?,
        };
        Ok(Self {
            site,
            repository,
            next: AtomicU64::new(u64::try_from(now().as_micros())?),
        })
    }

    /// Brings tenants back in batches, so many of them written at once.
    ///
    /// # Errors
    /// As the engine reports it; or if one of them is not handed back.
    pub fn run(&self, tenants: &[Tenant], batch: usize, at_once: u32) -> Result<CampaignTimes> {
        let (site, context) = (self.site, self.site.context());
        let started = Instant::now();
        let request = self.request(tenants, batch, at_once)?;
        let CampaignPlanned::Campaign(campaign) = plan_campaign(context, &request)? else {
            bail!("the tenants of a campaign cannot be restored");
        };
        let plan = started.elapsed();
        let journal = campaign_journal(&self.repository, &campaign)?;
        approve_campaign(&campaign, &journal, campaign.digest(), ACTOR, now())?;
        let end = run_campaign(&CampaignRun {
            context,
            campaign: &campaign,
            journal: &journal,
            estate: &[EstateStore {
                live: &site.store,
                repository: &site.repository,
                pace: None,
            }],
            operator: &Nobody,
            watcher: &Silent,
            limits: RunLimits::default(),
        })?;
        if let Some(error) = end.stopped {
            return Err(error).context("the campaign stopped");
        }
        let done = end.state.count(TenantState::HandedBack);
        ensure!(
            done == tenants.len(),
            "{done} of {} came back",
            tenants.len()
        );
        Ok(CampaignTimes {
            plan,
            run: started.elapsed() - plan,
        })
    }

    fn request(
        &self,
        tenants: &[Tenant],
        batch: usize,
        at_once: u32,
    ) -> Result<CampaignRequest<'_>> {
        let site = self.site;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let sites = tenants.iter().map(|tenant| SiteRequest {
            site: tenant.id.clone(),
            ids: vec![Some(tenant.id.clone())],
        });
        Ok(CampaignRequest {
            campaign: CampaignId::from_bytes(u128::from(number).to_be_bytes()),
            repository: &self.repository,
            estate: "bench".to_owned(),
            site_kind: site.store.tenant_kind().clone(),
            mode: CampaignMode::Chosen,
            asked: "latest".to_owned(),
            planned_by: ACTOR.to_owned(),
            planned_at: now(),
            approvals_needed: 1,
            batch_size: u32::try_from(batch)?,
            policy: Policy::EXACT,
            stores: vec![PlannedStore {
                name: "main".to_owned(),
                live: &site.store,
                repository: &site.repository,
                phase: 1,
                concurrency: at_once,
                snapshot: Arc::clone(&site.snapshot),
                point: RestorePoint {
                    position: site.snapshot.position,
                    time: site.snapshot.taken_at,
                },
                images: site,
                drift: DriftRules::default(),
                check_owners: true,
                may_be_absent: false,
            }],
            gates: Vec::new(),
            links: Vec::new(),
            close: None,
            open: None,
            tenants: sites.collect(),
            unfit: Unfit::Refuse,
            remapping: None,
        })
    }
}

impl Images for Site {
    fn images(
        &self,
        context: Context<'_>,
        tenants: &[Tenant],
    ) -> Result<Vec<Result<TenantImage, reinstate::Error>>, reinstate::Error> {
        Ok(extract_all(
            context,
            &self.repository,
            &self.snapshot,
            tenants,
        ))
    }
}

/// The operator of a campaign without steps.
struct Nobody;

impl Operator for Nobody {
    fn now(&self) -> Timestamp {
        now()
    }

    fn actor(&self) -> &str {
        ACTOR
    }

    fn step(
        &self,
        _step: &CampaignStep,
        _timeout_seconds: u32,
        _purpose: StepPurpose,
        _subject: Subject<'_>,
    ) -> Result<StepAnswer, StoreError> {
        Err(StoreError::new(
            ErrorKind::Refused,
            "run a step: there is none",
        ))
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let micros = since.map_or(0, |since| since.as_micros());
    Timestamp::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SiteOptions;

    #[test]
    fn what_is_measured_is_a_campaign_that_brings_its_tenants_back() {
        let options = SiteOptions {
            tenant_count: 8,
            row_count: 400,
            large_tenant_rows: None,
            ..SiteOptions::default()
        };
        let site = Site::create(&options).unwrap();
        let tenants: Vec<_> = site.tenants_by_size().into_iter().take(5).collect();
        let campaigns = Campaigns::create(&site).unwrap();
        let intact = campaigns.run(&tenants, 2, 1).unwrap_err().to_string();
        assert!(intact.contains("cannot be restored"), "{intact}");
        for at_once in [1, 2] {
            site.delete_all(&tenants).unwrap();
            campaigns.run(&tenants, 2, at_once).unwrap();
        }
    }
}
