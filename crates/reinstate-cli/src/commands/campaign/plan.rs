//! `campaign plan`: what it takes to bring sites back in all stores of an estate.

use reinstate::{
    CampaignCheck, CampaignMode, CampaignPlanned, CampaignRequest, CampaignStep, Context, Images,
    PlannedStore, Remapping, StoredCampaign, TenantImage, Unfit, UnfitTenant, plan_campaign,
};
use reinstate_core::{
    CampaignId, ErrorKind, Phase, Policy, Repository, RowRef, TableSchema, Tenant,
};
use serde::Serialize;

use super::estate::{Estate, OpenStore, check_kind, lock_all};
use super::everyone::everyone;
use super::ids::{ids_if_taken, site_requests};
use super::status::{RemapRecord, parked_lines, remap_lines, remaps, store_lines};
use crate::arguments::CampaignPlan;
use crate::configuration::EstateConfiguration;
use crate::console::Console;
use crate::exit::{Exit, kind_name, next_step};
use crate::failure::{Failure, exit_of};
use crate::point::PointInTime;
use crate::progress::Progress;
use crate::render::{count, counted};
use crate::resolve::{Match, Resolved, resolve};
use crate::session::{all_logs, check_history, now, random};

use super::super::copying::RemapFile;
use super::super::tenants::parse_tenants;

/// How many sites that cannot be restored are listed for people.
const LISTED_MAX: usize = 50;

/// `campaign plan`.
pub fn run(arguments: &CampaignPlan, estate: &Estate<'_>) -> anyhow::Result<Exit> {
    make(arguments, estate).map_err(|error| estate.note_refusal("campaign plan", error))
}

fn make(arguments: &CampaignPlan, estate: &Estate<'_>) -> anyhow::Result<Exit> {
    plan(arguments, estate).map(|_| Exit::Done)
}

/// Plans a campaign, keeps it and shows it.
///
/// # Errors
/// Whatever keeps it from being planned; nothing was written to a store then.
pub fn plan(arguments: &CampaignPlan, estate: &Estate<'_>) -> anyhow::Result<StoredCampaign> {
    let configuration = &estate.configuration;
    let named = match arguments.everyone {
        true => Vec::new(),
        false => parse_tenants(&arguments.whose())?,
    };
    check_kind(configuration, &named)?;
    let point = PointInTime::parse(&arguments.at)?;
    if !matches!(
        point,
        PointInTime::Time(_)
            | PointInTime::Ago { .. }
            | PointInTime::Unclear { .. }
            | PointInTime::Latest { .. }
    ) {
        let message = format!("point in time {point}: stores have no positions in common");
        return Err(Failure::usage(message)
            .next("give a wall time, as in --at 2026-04-05T07:38Z")
            .into());
    }
    let stores = estate.stores()?;
    check_statements(configuration, stores)?;
    let _locks = lock_all(stores)?;
    // A time ago is the same moment for every store.
    let at = now();
    let mut resolved = Vec::with_capacity(stores.len());
    for store in stores {
        resolved.push(resolve_in(estate.console, store, &point, arguments, at)?);
    }
    let (sites, requests) = match arguments.everyone {
        true => everyone(estate, stores, &resolved)?,
        false => {
            let requests = site_requests(&named, stores)?;
            (named, requests)
        }
    };
    let sources: Vec<Source<'_>> = stores
        .iter()
        .zip(&resolved)
        .map(|(store, resolved)| Source {
            repository: &store.repository,
            resolved,
        })
        .collect();
    let planned = stores.iter().zip(&resolved).zip(&sources);
    let planned = planned.map(|((store, resolved), source)| PlannedStore {
        name: store.of.name.clone(),
        live: store.live.as_ref(),
        repository: &store.repository,
        phase: store.of.phase,
        concurrency: store.of.concurrency,
        snapshot: std::sync::Arc::clone(&resolved.snapshot),
        point: resolved.point,
        images: source,
        drift: store.configuration.drift.clone(),
        check_owners: store.configuration.check_owners,
        may_be_absent: store.of.may_be_absent || arguments.everyone,
    });
    let is_large = sites.len() as u64 > u64::from(configuration.second_approval_above);
    let campaign = CampaignId::from_bytes(random()?);
    let remap = arguments.remap.as_deref();
    let remap = remap.map(|path| RemapFile::of_campaign(path, campaign));
    let remap = remap.transpose()?;
    let told =
        |store: &str, site: &Tenant, table: &TableSchema, old: RowRef<'_>, new: RowRef<'_>| {
            let Some(file) = &remap else { return Ok(()) };
            file.write_of(Some((store, site)), table, old, new)
        };
    let remapping = match &remap {
        None => None,
        Some(_) => Some(Remapping {
            ids: ids_if_taken(&sites, stores)?,
            rules: stores
                .iter()
                .map(|store| store.configuration.into.clone())
                .collect(),
            told: &told,
        }),
    };
    let request = CampaignRequest {
        campaign,
        repository: &estate.repository,
        estate: configuration.name.clone(),
        site_kind: configuration.kind.clone(),
        mode: match arguments.everyone {
            true => CampaignMode::Everyone,
            false => CampaignMode::Chosen,
        },
        asked: point.to_string(),
        planned_by: estate.actor.clone(),
        planned_at: now(),
        approvals_needed: if is_large { 2 } else { 1 },
        batch_size: configuration.batch_size,
        policy: Policy::EXACT,
        stores: planned.collect(),
        gates: configuration.gates.clone(),
        links: configuration.links.clone(),
        close: configuration.close.clone(),
        open: configuration.open.clone(),
        tenants: requests,
        unfit: match arguments.park_unfit {
            true => Unfit::Park,
            false => Unfit::Refuse,
        },
        remapping,
    };
    let progress = Progress::new(&[Phase::Plan], sites.len() * stores.len());
    let context = estate
        .engine
        .context(&progress, estate.interruption.cancellation());
    let planned = plan_campaign(context, &request)?;
    progress.clear();
    match planned {
        CampaignPlanned::Campaign(campaign) => {
            show(estate, &campaign);
            // Of a campaign that is refused there is no such file.
            if let Some(file) = remap {
                let path = file.seal()?;
                estate
                    .console
                    .note(format_args!("which key became which: {}", path.display()));
            }
            Ok(*campaign)
        }
        CampaignPlanned::Unfit(unfit) => Err(refused(estate, &unfit, sites.len()).into()),
    }
}

fn resolve_in(
    console: &Console,
    store: &OpenStore,
    point: &PointInTime,
    arguments: &CampaignPlan,
    at: reinstate_core::Timestamp,
) -> anyhow::Result<Resolved> {
    let mut logs = all_logs(console, &store.repository)?;
    let identity = store.live.identity();
    if arguments.everyone {
        // The store that was: of the same name, and not the new one.
        logs.retain(|log| {
            let taken_from = &log.snapshot().store;
            taken_from.name == identity.name && taken_from.id != identity.id
        });
        let several = logs
            .windows(2)
            .any(|pair| pair[0].snapshot().store.id != pair[1].snapshot().store.id);
        if several {
            let message = format!(
                "the repository has snapshots of several stores named {:?}",
                identity.name
            );
            return Err(Failure::usage(message)
                .next("take the snapshots of the store that was into a repository of their own")
                .into());
        }
    } else {
        logs.retain(|log| log.snapshot().store.id == identity.id);
    }
    let wanted = Match::of(arguments.nearest_before);
    let resolved = resolve(&store.repository, &logs, point, wanted, at).and_then(|resolved| {
        // A new store has no history yet.
        if !arguments.everyone {
            check_history(&store.repository, &resolved, store.live.as_ref())?;
        }
        Ok(resolved)
    });
    resolved.map_err(|error| {
        let message = format!("look {point} up in store {:?}", store.of.name);
        if exit_of(&error) != Exit::of(ErrorKind::NotRecoverable) {
            return error.context(message);
        }
        // What would be said of one store is a point of its own, which the others do not have.
        let next = format!(
            "--at a time that every store can go back to, or with --nearest-before; see what this one can: \
             reinstate --config {} window",
            store.of.configuration.display()
        );
        Failure::new(ErrorKind::NotRecoverable, message)
            .because(error)
            .next(next)
            .into()
    })
}

/// Statements are for SQL databases: that a store is none is found out before anything is written.
fn check_statements(estate: &EstateConfiguration, stores: &[OpenStore]) -> Result<(), Failure> {
    let gates = estate.gates.iter().filter_map(|gate| match &gate.check {
        CampaignCheck::Step { step, .. } => Some((format!("gate {:?}", gate.name), step)),
        CampaignCheck::Acceptance => None,
    });
    let actions = [("close", &estate.close), ("open", &estate.open)];
    let actions = actions
        .into_iter()
        .filter_map(|(name, action)| Some((name.to_owned(), &action.as_ref()?.step)));
    for (name, step) in gates.chain(actions) {
        let CampaignStep::Sql { store, .. } = step else {
            continue;
        };
        let of = stores.get(*store as usize);
        if let Some(of) = of.filter(|of| of.postgres.is_none()) {
            let message = format!(
                "estate {}: {name}: store {:?} is no SQL database",
                estate.path.display(),
                of.of.name
            );
            return Err(Failure::usage(message).next("use a command, or another store"));
        }
    }
    Ok(())
}

/// The images of a store at one point.
struct Source<'s> {
    repository: &'s dyn Repository,
    resolved: &'s Resolved,
}

impl Images for Source<'_> {
    fn images(
        &self,
        context: Context<'_>,
        tenants: &[Tenant],
    ) -> Result<Vec<Result<TenantImage, reinstate::Error>>, reinstate::Error> {
        self.resolved.images(context, self.repository, tenants)
    }
}

#[derive(Serialize)]
struct PlannedRecord {
    #[serde(rename = "type")]
    record: &'static str,
    campaign: String,
    digest: String,
    asked: String,
    spread_seconds: f64,
    sites: usize,
    parked: usize,
    batches: usize,
    approvals_needed: u8,
    rows: u64,
    /// Where sites get other ids.
    remapped: Vec<RemapRecord>,
}

fn show(estate: &Estate<'_>, campaign: &StoredCampaign) {
    let console = estate.console;
    let description = campaign.description();
    let parts = || {
        description
            .tenants
            .iter()
            .flat_map(|tenant| tenant.parts.iter().flatten())
    };
    let rows: u64 = parts().map(|part| part.counts.total()).sum();
    let parked = description
        .tenants
        .iter()
        .filter(|tenant| tenant.parked.is_some())
        .count();
    let times = || {
        description
            .stores
            .iter()
            .map(|store| store.point_time.as_micros())
    };
    let spread = times().max().unwrap_or(0) - times().min().unwrap_or(0);
    #[expect(clippy::cast_precision_loss, reason = "a length of time for people")]
    let spread_seconds = spread as f64 / 1e6;
    console.record(&PlannedRecord {
        record: "campaign_planned",
        campaign: description.campaign.to_string(),
        digest: campaign.digest().to_string(),
        asked: description.asked.clone(),
        spread_seconds,
        sites: description.tenants.len(),
        parked,
        batches: description.batches.len(),
        approvals_needed: description.approvals_needed,
        rows,
        remapped: remaps(description),
    });
    console.line(format_args!(
        "estate   {}: {} in {}, back to {}",
        description.estate,
        counted(description.tenants.len() as u64, "site", "sites"),
        counted(description.stores.len() as u64, "store", "stores"),
        description.asked
    ));
    store_lines(description)
        .into_iter()
        .for_each(|line| console.line(line));
    console.line(format_args!(
        "spread   {spread_seconds:.3} s between the points of the stores"
    ));
    for gate in &description.gates {
        console.line(format_args!(
            "gate     {}, after phase {}",
            gate.name, gate.phase
        ));
    }
    console.line(format_args!(
        "rows     {} to change, {}",
        count(rows),
        counted(description.batches.len() as u64, "batch", "batches")
    ));
    remap_lines(description)
        .into_iter()
        .for_each(|line| console.line(line));
    parked_lines(campaign)
        .into_iter()
        .for_each(|line| console.line(line));
    let short = description.campaign.short();
    console.line(format_args!("campaign {short}  {}", campaign.digest()));
    if description.approvals_needed > 1 {
        console.note(format_args!(
            "{} people have to approve it: it is for more than {} sites, or gives some of them other ids",
            description.approvals_needed, estate.configuration.second_approval_above
        ));
    }
    console.note(format_args!(
        "next: reinstate campaign approve {short} --confirm-digest {}",
        campaign.digest().short()
    ));
}

#[derive(Serialize)]
struct UnfitRecord<'u> {
    #[serde(rename = "type")]
    record: &'static str,
    site: String,
    kind: &'static str,
    reason: &'u str,
}

/// Shows why no campaign was made.
fn refused(estate: &Estate<'_>, unfit: &[UnfitTenant], asked: usize) -> Failure {
    let console = estate.console;
    let kind = &estate.configuration.kind;
    for tenant in unfit {
        console.record(&UnfitRecord {
            record: "unfit",
            site: format!("{kind}:{}", tenant.site),
            kind: kind_name(tenant.kind),
            reason: &tenant.reason,
        });
    }
    for tenant in unfit.iter().take(LISTED_MAX) {
        console.line(format_args!(
            "REFUSED  {kind}:{}    {}",
            tenant.site, tenant.reason
        ));
    }
    if unfit.len() > LISTED_MAX {
        console.line(format_args!(
            "REFUSED  and {} more",
            unfit.len() - LISTED_MAX
        ));
    }
    let first = unfit.first().map_or(ErrorKind::Other, |tenant| tenant.kind);
    let is_one_kind = unfit.iter().all(|tenant| tenant.kind == first);
    let (exit, name) = match is_one_kind {
        true => (Exit::of(first), kind_name(first)),
        false => (Exit::Other, "unfit"),
    };
    let named: Vec<String> = unfit
        .iter()
        .take(3)
        .map(|tenant| format!("{kind}:{}: {}", tenant.site, tenant.reason))
        .collect();
    let message = format!(
        "{} of {asked} sites cannot be restored, and no campaign was made: {}",
        unfit.len(),
        named.join("; ")
    );
    let next = match unfit.len() < asked {
        true => "leave them out, or set them aside with --park-unfit",
        false if first == ErrorKind::Usage => {
            "look at one: reinstate --config STORE'S reinstate.toml diff TENANT@TIME TENANT@live"
        }
        false => next_step(first),
    };
    Failure::ending(exit, name, message).next(next)
}
