//! Extract beside plain zstd decode; bytes read beside the tenant's own.

use anyhow::Result;
use reinstate::BlockLayout;
use reinstate_benches::{DecodeFrom, Site, SiteOptions, StoredBlocks, pairs, time};

use super::Row;

const PAIRS: usize = 21;

pub fn measure() -> Result<Vec<Row>> {
    let mut site = Site::create(&SiteOptions::default())?;
    let mut rows = beside_decode(&mut site, "")?;
    rows.extend(bytes_read(&site)?);
    drop(site);
    let mut site = Site::create(&SiteOptions {
        layout: BlockLayout::Columns,
        ..SiteOptions::default()
    })?;
    rows.extend(beside_decode(&mut site, ", by columns")?);
    Ok(rows)
}

fn beside_decode(site: &mut Site, layout: &str) -> Result<Vec<Row>> {
    let tenant = site.tenant_of_about(100_000);
    let blocks = StoredBlocks::read(site, &tenant)?;
    let mut rows = Vec::new();
    for threads in [1, 2] {
        site.set_threads(threads)?;
        let image = site.image(&tenant)?;
        let limits = [
            (
                DecodeFrom::Memory,
                "plain zstd decode, the blocks in memory",
            ),
            (
                DecodeFrom::Files,
                "plain zstd decode, the blocks read as well",
            ),
        ];
        for (from, limit) in limits {
            let summary = pairs(
                PAIRS,
                || time(|| Ok(image.for_each_block(site.context(), |_, _| ())?)),
                || time(|| blocks.decode(threads, from)),
            )?
            .summary();
            rows.push(Row {
                what: format!("extract, verified, 100,000 rows, {threads} threads{layout}"),
                figure: format!("{} of the limit", summary.ratio),
                beside: format!("{limit}, {:.1} ms", summary.limit_ms.median),
                target: "0.9 or more",
                reached: Some(summary.ratio.median >= 0.9),
            });
        }
    }
    Ok(rows)
}

fn bytes_read(site: &Site) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for row_count in [200, 1_500, 10_000, 100_000] {
        let tenant = site.tenant_of_about(row_count);
        let image = site.image(&tenant)?;
        image.for_each_block(site.context(), |_, _| ())?;
        let (read, stored) = (image.bytes_read(), image.stored_bytes());
        #[expect(clippy::cast_precision_loss, reason = "bytes of one tenant")]
        let ratio = read as f64 / stored as f64;
        let large = row_count >= 10_000;
        rows.push(Row {
            what: format!("bytes read, tenant of {} rows", site.row_count(&tenant)),
            figure: format!("{ratio:.3} x its stored bytes"),
            beside: format!("{stored} bytes stored"),
            target: if large { "at most 1.05" } else { "" },
            reached: large.then_some(ratio <= 1.05),
        });
    }
    Ok(rows)
}
