//! Many tenants at once: a batch beside as many single restores, and a campaign's worth of tenants beside
//! redb's own bulk insert.

use std::time::Duration;

use anyhow::Result;
use reinstate_benches::{
    Campaigns, ForeignKeys, PostgresSite, RawStore, Site, SiteOptions, Spread, pairs, time,
};
use reinstate_core::Tenant;

use super::Row;

const PAIRS: usize = 3;
const BATCH: usize = 60;
const CAMPAIGN: usize = 400;

/// Measures everything of this chapter.
///
/// # Errors
/// As the stores report it.
pub fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for part in [embedded, postgres, campaign] {
        let measured = part()?;
        // It takes minutes: said as it comes.
        for row in &measured {
            eprintln!("{}: {}; {}", row.what, row.figure, row.beside);
        }
        rows.extend(measured);
    }
    Ok(rows)
}

/// Tenants that were deleted from an embedded store, on one thread and on two.
fn embedded() -> Result<Vec<Row>> {
    let mut site = Site::create(&SiteOptions {
        tenant_count: 500,
        row_count: 200_000,
        large_tenant_rows: None,
        ..SiteOptions::default()
    })?;
    let tenants = middle(site.tenants_by_size(), BATCH);
    let mut rows = Vec::new();
    for threads in [1, 2] {
        site.set_threads(threads)?;
        let batch = || {
            site.delete_all(&tenants)?;
            time(|| site.restore(&tenants))
        };
        let singles = || {
            site.delete_all(&tenants)?;
            time(|| {
                tenants
                    .iter()
                    .try_for_each(|tenant| site.restore(std::slice::from_ref(tenant)))
            })
        };
        let summary = pairs(PAIRS, batch, singles)?.summary();
        let changed: u64 = tenants.iter().map(|tenant| site.row_count(tenant)).sum();
        rows.push(Row {
            what: format!("batch of {BATCH} tenants, {changed} rows, {threads} threads"),
            figure: format!(
                "{} x as fast, {:.0} ms",
                summary.ratio, summary.ours_ms.median
            ),
            beside: format!("{BATCH} single restores, {:.0} ms", summary.limit_ms.median),
            target: "faster",
            reached: Some(summary.ratio.median > 1.0),
        });
    }
    Ok(rows)
}

/// Tenants of a database that have newer rows, of which it has to be found out whose they were.
fn postgres() -> Result<Vec<Row>> {
    let site = PostgresSite::create(ForeignKeys::All)?;
    let tenants = middle(site.tenants_by_size(), BATCH);
    site.add_members(&tenants)?;
    let batch = || time(|| site.plan_checked(&tenants));
    let singles = || {
        time(|| {
            let mut tenants = tenants.iter();
            tenants.try_for_each(|tenant| site.plan_checked(std::slice::from_ref(tenant)))
        })
    };
    let summary = pairs(PAIRS, batch, singles)?.summary();
    Ok(vec![Row {
        what: format!("PostgreSQL: plan of {BATCH} tenants with newer rows"),
        figure: format!(
            "{} x as fast, {:.0} ms",
            summary.ratio, summary.ours_ms.median
        ),
        beside: format!(
            "{BATCH} plans of one tenant, {:.0} ms",
            summary.limit_ms.median
        ),
        target: "3 or more",
        reached: Some(summary.ratio.median >= 3.0),
    }])
}

/// Hundreds of tenants by a campaign in batches: plan, undo images, proof, gates and journal included.
fn campaign() -> Result<Vec<Row>> {
    let mut site = Site::create(&SiteOptions {
        tenant_count: 1_000,
        row_count: 400_000,
        skew: 0.5,
        large_tenant_rows: None,
        ..SiteOptions::default()
    })?;
    let tenants = middle(site.tenants_by_size(), CAMPAIGN);
    let changed: u64 = tenants.iter().map(|tenant| site.row_count(tenant)).sum();
    let path = site.directory().join("raw-campaign.redb");
    let raw = RawStore::of_all(&site, &tenants, &path)?;
    let mut rows = Vec::new();
    let mut by_threads = Vec::new();
    for threads in [1, 2] {
        site.set_threads(usize::try_from(threads)?)?;
        let campaigns = Campaigns::create(&site)?;
        let mut planning = Vec::new();
        let ours = || {
            site.delete_all(&tenants)?;
            let times = campaigns.run(&tenants, BATCH, threads)?;
            planning.push(times.plan.as_secs_f64() / times.total().as_secs_f64() * 100.0);
            Ok(times.total())
        };
        let limit = || -> Result<Duration> {
            raw.delete()?;
            time(|| raw.insert_one_by_one())
        };
        let summary = pairs(PAIRS, ours, limit)?.summary();
        by_threads.push(summary.ours_ms);
        #[expect(clippy::cast_precision_loss, reason = "rows of one store")]
        let speed = changed as f64 / summary.ours_ms.median * 1e3;
        rows.push(Row {
            what: format!(
                "campaign of {CAMPAIGN} tenants in batches of {BATCH}, {changed} rows, {threads} threads"
            ),
            figure: format!(
                "{} of the limit, {speed:.0} rows/s, {:.0} % of the time for the plan",
                summary.ratio,
                Spread::of(&planning).median
            ),
            beside: format!(
                "redb bulk insert, a transaction for each tenant, {:.0} ms",
                summary.limit_ms.median
            ),
            target: "",
            reached: None,
        });
    }
    rows.extend(scaling(&by_threads));
    Ok(rows)
}

fn scaling(by_threads: &[Spread]) -> Option<Row> {
    let [one, two] = by_threads else {
        return None;
    };
    Some(Row {
        what: format!("campaign of {CAMPAIGN} tenants: from one thread to two"),
        figure: format!("{:.2} x as fast", one.median / two.median),
        beside: format!("{:.0} and {:.0} ms", one.median, two.median),
        target: "",
        reached: None,
    })
}

/// As many tenants from the middle of the list, neither the largest nor the smallest.
fn middle(tenants: Vec<Tenant>, count: usize) -> Vec<Tenant> {
    let first = tenants.len().saturating_sub(count) / 2;
    tenants.into_iter().skip(first).take(count).collect()
}
