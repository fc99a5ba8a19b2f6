//! One tenant's restore, all four steps, at store sizes 1x, 4x and 16x.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use reinstate_benches::{Site, SiteOptions, restore_once};

fn restore(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("restore 10,000 rows");
    group.sample_size(10);
    for times in [1_u32, 4, 16] {
        let options = SiteOptions {
            tenant_count: 50 * times,
            row_count: 100_000 * u64::from(times),
            large_tenant_rows: Some(10_000),
            ..SiteOptions::default()
        };
        let site = Site::create(&options).expect("make a site");
        let tenant = site.tenant_of_about(10_000);
        group.bench_function(BenchmarkId::new("store size", times), |bencher| {
            bencher.iter_custom(|count| {
                (0..count).fold(Duration::ZERO, |sum, _| {
                    sum + restore_once(&site, &tenant).expect("restore").total()
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, restore);
criterion_main!(benches);
