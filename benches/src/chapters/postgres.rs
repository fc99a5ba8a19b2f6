//! PostgreSQL: merge beside COPY, capture beside COPY, other tenants' writers beside both.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use reinstate::BlockLayout;
use reinstate_benches::{
    ForeignKeys, PostgresSite, PostgresWriters, RawClient, Spread, Waits, copy_tables_out, pairs,
    time,
};
use reinstate_core::Tenant;
use reinstate_synthetic::Table;

use super::Row;

const LAYOUTS: [(BlockLayout, &str); 2] = [
    (BlockLayout::Rows, "by rows"),
    (BlockLayout::Columns, "by columns"),
];
const PAIRS: usize = 7;
const WRITERS: usize = 4;
const PAUSE: Duration = Duration::from_millis(10);
const IDLE: Duration = Duration::from_secs(3);
const RESTORED_TENANTS: usize = 60;
const ROUNDS: usize = 5;
/// A variable of the environment that is `writers`, or `merge` for merges beside one foreign key, to leave everything else out.
const ONLY: &str = "REINSTATE_BENCH_ONLY";

pub fn measure() -> Result<Vec<Row>> {
    match std::env::var(ONLY).as_deref() {
        Ok("writers") => return writers(&PostgresSite::create(ForeignKeys::All)?),
        Ok("merge") => return merges_with_one_key(),
        Ok(other) => bail!("{ONLY}={other}: this chapter knows writers and merge"),
        Err(_) => {}
    }
    let site = PostgresSite::create(ForeignKeys::All)?;
    let mut rows = vec![Row {
        what: "PostgreSQL server".to_owned(),
        figure: site.server()?,
        beside: "synthetic tables with primary keys, foreign keys and tenant indexes, 400,000 rows"
            .to_owned(),
        target: "",
        reached: None,
    }];
    rows.extend(sizes(&site)?);
    for (layout, words) in LAYOUTS {
        rows.push(capture(&site, layout, words)?);
    }
    for row_count in [10_000, 100_000] {
        rows.push(merge(&site, row_count, "nine foreign keys")?);
    }
    rows.extend(writers(&site)?);
    drop(site);
    rows.extend(merges_with_one_key()?);
    Ok(rows)
}

/// What COPY saves by checking less, a merge that reads back does not.
fn merges_with_one_key() -> Result<Vec<Row>> {
    let site = PostgresSite::create(ForeignKeys::ToTenant)?;
    let sizes = [10_000, 100_000].into_iter();
    sizes
        .map(|row_count| merge(&site, row_count, "one foreign key"))
        .collect()
}

/// What a snapshot adds to the repository beside the server's own dump.
fn sizes(site: &PostgresSite) -> Result<Vec<Row>> {
    let dump = site.directory().join("tracker.dump");
    let path = dump.to_str().context("a path that is not text")?;
    let arguments = ["-Fc", "-f", path, site.database()];
    site.cluster().run("pg_dump", &arguments)?;
    let dumped = std::fs::metadata(&dump)?.len();
    let repository = site.directory().join("repository");
    let sized = |(layout, words): (BlockLayout, &str)| {
        let before = bytes_below(&repository)?;
        site.capture(layout)?;
        let stored = bytes_below(&repository)? - before;
        #[expect(clippy::cast_precision_loss, reason = "bytes of one store")]
        let ratio = stored as f64 / dumped as f64;
        Ok(Row {
            what: format!("PostgreSQL: size of a snapshot, {words}"),
            figure: format!("{ratio:.3} x the limit, {stored} bytes"),
            beside: format!("`pg_dump -Fc`, {dumped} bytes"),
            target: "at most 1.0",
            reached: Some(ratio <= 1.0),
        })
    };
    LAYOUTS.into_iter().map(sized).collect()
}

fn bytes_below(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            bytes_below(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(bytes)
}

fn capture(site: &PostgresSite, layout: BlockLayout, words: &str) -> Result<Row> {
    let mut clients = (0..PostgresSite::LANES)
        .map(|_| site.client())
        .collect::<Result<Vec<RawClient>>>()?;
    let tables = Table::ALL.map(Table::name);
    let mut byte_count = 0;
    let summary = pairs(
        PAIRS,
        || time(|| site.capture(layout).map(drop)),
        || {
            time(|| {
                byte_count = copy_tables_out(&mut clients, &tables)?;
                Ok(())
            })
        },
    )?
    .summary();
    Ok(Row {
        what: format!("PostgreSQL: capture, sorted, compressed and durable, {words}"),
        figure: format!(
            "{} of the limit, {:.0} ms",
            summary.ratio, summary.ours_ms.median
        ),
        beside: format!(
            "COPY of every table TO STDOUT on {} connections, {:.0} ms for {} MB",
            PostgresSite::LANES,
            summary.limit_ms.median,
            byte_count / 1_000_000
        ),
        target: "0.7 or more",
        reached: Some(summary.ratio.median >= 0.7),
    })
}

fn merge(site: &PostgresSite, row_count: u64, keys: &str) -> Result<Row> {
    let tenant = site.tenant_of_about(row_count);
    let text = site.text(&tenant)?;
    let client = site.client()?;
    let gone = std::slice::from_ref(&tenant);
    let summary = pairs(
        PAIRS,
        || {
            site.delete(gone)?;
            let plan = site.plan(&tenant)?;
            time(|| site.merge(&plan, &tenant).map(drop))
        },
        || {
            site.delete(gone)?;
            time(|| text.copy_in(&client))
        },
    )?
    .summary();
    Ok(Row {
        what: format!(
            "PostgreSQL: merge, journal and read-back included, {} rows, {keys}",
            text.row_count()
        ),
        figure: format!(
            "{} of the limit, {:.0} ms",
            summary.ratio, summary.ours_ms.median
        ),
        beside: format!(
            "COPY into the same tables, one transaction, {:.0} ms",
            summary.limit_ms.median
        ),
        target: "0.7 or more",
        reached: Some(summary.ratio.median >= 0.7),
    })
}

/// What the others' transactions take: alone, beside COPY, beside the restore.
fn writers(site: &PostgresSite) -> Result<Vec<Row>> {
    let by_size = site.tenants_by_size();
    let (restored, others) = by_size.split_at(RESTORED_TENANTS);
    let writing: Vec<Tenant> = others.iter().take(WRITERS).cloned().collect();
    let mut writers = PostgresWriters::connect(site, &writing, PAUSE)?;
    let texts = restored
        .iter()
        .map(|tenant| site.text(tenant))
        .collect::<Result<Vec<_>>>()?;
    let client = site.client()?;
    let (mut idle, mut beside_copy, mut beside_restore) =
        (Waits::default(), Waits::default(), Waits::default());
    let (mut copy_times, mut restore_times, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        idle.extend(
            writers
                .during(|| {
                    std::thread::sleep(IDLE);
                    Ok(())
                })?
                .1,
        );
        site.delete(restored)?;
        let (took, waits) = writers.during(|| {
            let start = Instant::now();
            texts.iter().try_for_each(|text| text.copy_in(&client))?;
            Ok(start.elapsed().as_secs_f64())
        })?;
        copy_times.push(took);
        let copy_p99 = waits.quantile_ms(0.99);
        beside_copy.extend(waits);
        site.delete(restored)?;
        let (took, waits) = writers.during(|| {
            let start = Instant::now();
            site.restore(restored)?;
            Ok(start.elapsed().as_secs_f64())
        })?;
        restore_times.push(took);
        ratios.push(waits.quantile_ms(0.99) / copy_p99);
        beside_restore.extend(waits);
    }
    let (copy, restore) = (Spread::of(&copy_times), Spread::of(&restore_times));
    let ratio = Spread::of(&ratios);
    let what = |when: &str| format!("PostgreSQL: waits of {WRITERS} other writers, {when}");
    Ok(vec![
        Row {
            what: what("idle"),
            figure: idle.to_string(),
            beside: String::new(),
            target: "",
            reached: None,
        },
        Row {
            what: what(&format!("COPY of {RESTORED_TENANTS} tenants")),
            figure: beside_copy.to_string(),
            beside: format!("the COPY takes {copy} s"),
            target: "",
            reached: None,
        },
        Row {
            what: what(&format!("restore of {RESTORED_TENANTS} tenants")),
            figure: beside_restore.to_string(),
            beside: format!(
                "{ratio} x the p99 beside COPY, round by round; the restore takes {restore} s"
            ),
            target: "p99 at most 1.2 x that beside COPY",
            reached: Some(ratio.median <= 1.2),
        },
    ])
}
