//! Merge beside redb's own bulk insert; other tenants' writers beside their idle waits.

use std::time::{Duration, Instant};

use anyhow::Result;
use reinstate_benches::{
    RawStore, Site, SiteOptions, Writers, merge_once, pairs, plan_again, restore_once, time,
};

use super::Row;

const PAIRS: usize = 9;
const WRITERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(20);
const RESTORED_TENANTS: usize = 60;

pub fn measure() -> Result<Vec<Row>> {
    let site = Site::create(&SiteOptions::default())?;
    let mut rows = Vec::new();
    for row_count in [1_000, 10_000, 100_000] {
        let tenant = site.tenant_of_about(row_count);
        let image = site.image(&tenant)?;
        let path = site.directory().join(format!("raw-{row_count}.redb"));
        let mut raw = RawStore::create(&site, &image, &path)?;
        let summary = pairs(
            PAIRS,
            || {
                let plan = plan_again(&site, &tenant)?;
                let start = Instant::now();
                merge_once(&site, &plan, &tenant)?;
                Ok(start.elapsed())
            },
            || {
                raw.delete(b"tenant ")?;
                time(|| raw.insert(b"tenant "))
            },
        )?
        .summary();
        rows.push(Row {
            what: format!(
                "merge, journal and read-back included, {} rows",
                raw.row_count()
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
        std::thread::sleep(Duration::from_secs(5));
        Ok(())
    })?;
    let (elapsed, busy) = writers.during(site, || {
        let start = Instant::now();
        for tenant in restored {
            restore_once(site, tenant)?;
        }
        Ok(start.elapsed())
    })?;
    Ok(vec![Row {
        what: format!("waits of {WRITERS} other writers, {RESTORED_TENANTS} tenants restored"),
        figure: busy.to_string(),
        beside: format!("idle: {idle}; restores took {:.1} s", elapsed.as_secs_f64()),
        target: "p99 at most 10 ms",
        reached: Some(busy.quantile_ms(0.99) <= 10.0),
    }])
}
