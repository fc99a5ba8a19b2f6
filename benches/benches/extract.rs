//! Extract, verified, beside plain zstd decode of the same blocks.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use reinstate_benches::{DecodeFrom, Site, SiteOptions, StoredBlocks};

fn extract(criterion: &mut Criterion) {
    for threads in [1, 2] {
        let options = SiteOptions {
            threads,
            ..SiteOptions::default()
        };
        let site = Site::create(&options).expect("make a site");
        let tenant = site.tenant_of_about(100_000);
        let image = site.image(&tenant).expect("find the tenant");
        let blocks = StoredBlocks::read(&site, &tenant).expect("read the blocks");
        let mut group = criterion.benchmark_group("extract");
        group.throughput(Throughput::Bytes(blocks.plain_bytes()));
        group.bench_function(BenchmarkId::new("verified", threads), |bencher| {
            bencher.iter(|| image.for_each_block(site.context(), |_, _| ()));
        });
        group.bench_function(BenchmarkId::new("plain zstd", threads), |bencher| {
            bencher.iter(|| blocks.decode(threads, DecodeFrom::Memory));
        });
        group.finish();
    }
}

criterion_group!(benches, extract);
criterion_main!(benches);
