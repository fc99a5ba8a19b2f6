//! Merge beside redb's own bulk insert; other tenants' writers beside their idle waits.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use reinstate_benches::{
    RawStore, Site, SiteOptions, Waits, Writers, merge_once, pairs, plan_again, restore, time,
};

use super::Row;

const PAIRS: usize = 21;
const WRITERS: usize = 4;
/// Longer than the store takes to call itself quiet.
const QUIET: Duration = Duration::from_millis(1_200);
const PAUSE: Duration = Duration::from_millis(20);
const WRITER_ROUNDS: u32 = 5;
const RESTORED_TENANTS: usize = 60;

pub fn measure() -> Result<Vec<Row>> {
    let site = Site::create(&SiteOptions::default())?;
    let mut rows = Vec::new();
    for row_count in [1_000, 10_000, 100_000] {
        let tenant = site.tenant_of_about(row_count);
        let path = site.directory().join(format!("raw-{row_count}.redb"));
        let raw = RawStore::create(&site, &tenant, &path)?;
        let summary = pairs(
            PAIRS,
            || {
                let plan = plan_again(&site, &tenant)?;
                // The incident is over when a restore begins: nobody has just written.
                thread::sleep(QUIET);
                let start = Instant::now();
                merge_once(&site, &plan, &tenant)?;
                Ok(start.elapsed())
            },
            || {
                raw.delete()?;
                // As long after the delete as ours begins, on cores as idle and with caches as cold. What
                // ours has that the limit has not: its plan was written to the disk in between.
                thread::sleep(QUIET);
                time(|| raw.insert())
            },
        )?
        .summary();
        rows.push(Row {
            what: format!(
                "merge, journal and read-back included, {} rows",
                site.row_count(&tenant)
            ),
            figure: format!("{} of the limit", summary.ratio),
            beside: format!("redb bulk insert, {:.1} ms", summary.limit_ms.median),
            target: "0.7 or more",
            reached: Some(summary.ratio.median >= 0.7),
        });
    }
    rows.extend(writers(&site)?);
    Ok(rows)
}

fn writers(site: &Site) -> Result<Vec<Row>> {
    let by_size = site.tenants_by_size();
    let (restored, others) = by_size.split_at(RESTORED_TENANTS);
    let writers = Writers::new(others.iter().take(WRITERS).cloned().collect(), PAUSE);
    let ((), idle) = writers.during(site, || {
        thread::sleep(Duration::from_secs(5));
        Ok(())
    })?;
    let mut busy = Waits::default();
    let mut elapsed = Duration::ZERO;
    for _ in 0..WRITER_ROUNDS {
        for tenant in restored {
            site.delete(&tenant.id)?;
        }
        let (took, waits) = writers.during(site, || {
            let start = Instant::now();
            for tenant in restored {
                restore(site, tenant)?;
            }
            Ok(start.elapsed())
        })?;
        elapsed += took;
        busy.extend(waits);
    }
    let elapsed = elapsed.as_secs_f64() / f64::from(WRITER_ROUNDS);
    Ok(vec![Row {
        what: format!("waits of {WRITERS} other writers, {RESTORED_TENANTS} tenants restored"),
        figure: busy.to_string(),
        beside: format!("idle: {idle}; restores took {elapsed:.1} s"),
        target: "p99 at most 10 ms",
        reached: Some(busy.quantile_ms(0.99) <= 10.0),
    }])
}
