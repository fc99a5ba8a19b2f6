//! Merge, undo and journal included, beside redb's own sorted bulk insert of the same rows.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use reinstate_benches::{RawStore, Site, SiteOptions, merge_once, plan_again};

fn merge(criterion: &mut Criterion) {
    let site = Site::create(&SiteOptions::default()).expect("make a site");
    for rows in [1_000, 10_000, 100_000] {
        let tenant = site.tenant_of_about(rows);
        let path = site.directory().join(format!("raw-{rows}.redb"));
        let raw = RawStore::create(&site, &tenant, &path).expect("make a plain store");
        let mut group = criterion.benchmark_group("merge");
        group.sample_size(10);
        group.throughput(Throughput::Elements(site.row_count(&tenant)));
        group.bench_function(BenchmarkId::new("merge", rows), |bencher| {
            bencher.iter_custom(|count| {
                (0..count).fold(Duration::ZERO, |sum, _| {
                    let plan = plan_again(&site, &tenant).expect("plan");
                    let start = Instant::now();
                    merge_once(&site, &plan, &tenant).expect("merge");
                    sum + start.elapsed()
                })
            });
        });
        group.bench_function(BenchmarkId::new("raw bulk insert", rows), |bencher| {
            bencher.iter_custom(|count| {
                (0..count).fold(Duration::ZERO, |sum, _| {
                    raw.delete().expect("delete");
                    let start = Instant::now();
                    raw.insert().expect("insert");
                    sum + start.elapsed()
                })
            });
        });
        group.finish();
    }
}

criterion_group!(benches, merge);
criterion_main!(benches);
