//! One tenant's restore as the store around it grows.

use anyhow::Result;
use reinstate_benches::{Site, SiteOptions, Spread, restore_once};
use reinstate_core::Tenant;

use super::Row;

const RUNS: usize = 15;

/// The same tenant in a store of its size.
struct Sized {
    times: u32,
    site: Site,
    tenant: Tenant,
    totals_ms: Vec<f64>,
    bytes: u64,
}

pub fn measure() -> Result<Vec<Row>> {
    let mut sizes = [1, 4, 16]
        .map(create)
        .into_iter()
        .collect::<Result<Vec<Sized>>>()?;
    // In turns, so that what else happens on the machine happens to all of them.
    for _ in 0..RUNS {
        for Sized {
            site,
            tenant,
            totals_ms,
            bytes,
            ..
        } in &mut sizes
        {
            let run = restore_once(site, tenant)?;
            totals_ms.push(run.total().as_secs_f64() * 1e3);
            *bytes = run.bytes_read;
        }
    }
    let Some((first_total, first_bytes)) = sizes
        .first()
        .map(|size| (Spread::of(&size.totals_ms).median, size.bytes))
    else {
        return Ok(Vec::new());
    };
    Ok(sizes
        .iter()
        .map(|size| row(size, first_total, first_bytes))
        .collect())
}

fn create(times: u32) -> Result<Sized> {
    let site = Site::create(&SiteOptions {
        tenant_count: 50 * times,
        row_count: 100_000 * u64::from(times),
        large_tenant_rows: Some(10_000),
        ..SiteOptions::default()
    })?;
    let tenant = site.tenant_of_about(10_000);
    restore_once(&site, &tenant)?;
    Ok(Sized {
        times,
        site,
        tenant,
        totals_ms: Vec::new(),
        bytes: 0,
    })
}

fn row(size: &Sized, first_total: f64, first_bytes: u64) -> Row {
    let Sized {
        times,
        totals_ms,
        bytes,
        ..
    } = size;
    let total = Spread::of(totals_ms);
    #[expect(clippy::cast_precision_loss, reason = "bytes of one tenant")]
    let (time_ratio, byte_ratio) = (
        total.median / first_total,
        *bytes as f64 / first_bytes as f64,
    );
    Row {
        what: format!("restore of 10,000 rows, store {times}x"),
        figure: format!("{time_ratio:.2} x the time, {byte_ratio:.3} x the bytes"),
        beside: format!("{total} ms, {bytes} bytes"),
        target: "within 10 % of 1x",
        reached: Some(time_ratio <= 1.1 && byte_ratio <= 1.1),
    }
}
