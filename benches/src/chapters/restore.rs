//! One tenant's restore as the store around it grows.

use anyhow::Result;
use reinstate_benches::{RestoreTimes, Site, SiteOptions, Spread, restore_once};

use super::Row;

const RUNS: usize = 9;

pub fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut smallest: Option<(f64, u64)> = None;
    for times in [1_u32, 4, 16] {
        let options = SiteOptions {
            tenant_count: 50 * times,
            row_count: 100_000 * u64::from(times),
            large_tenant_rows: Some(10_000),
            ..SiteOptions::default()
        };
        let site = Site::create(&options)?;
        let tenant = site.tenant_of_about(10_000);
        restore_once(&site, &tenant)?;
        let runs = (0..RUNS)
            .map(|_| restore_once(&site, &tenant))
            .collect::<Result<Vec<RestoreTimes>>>()?;
        let totals: Vec<f64> = runs
            .iter()
            .map(|run| run.total().as_secs_f64() * 1e3)
            .collect();
        let total = Spread::of(&totals);
        let bytes = runs.first().map_or(0, |run| run.bytes_read);
        let (first_total, first_bytes) = *smallest.get_or_insert((total.median, bytes));
        #[expect(clippy::cast_precision_loss, reason = "bytes of one tenant")]
        let (time_ratio, byte_ratio) = (
            total.median / first_total,
            bytes as f64 / first_bytes as f64,
        );
        rows.push(Row {
            what: format!("restore of 10,000 rows, store {times}x"),
            figure: format!("{time_ratio:.2} x the time, {byte_ratio:.3} x the bytes"),
            beside: format!("{total} ms, {bytes} bytes"),
            target: "within 10 % of 1x",
            reached: Some(time_ratio <= 1.1 && byte_ratio <= 1.1),
        });
    }
    Ok(rows)
}
