//! How fast rows are made: `cargo run --release -p reinstate-synthetic --example synthetic_speed`.

use std::time::Instant;

use reinstate_core::{OwnedRowBatch, StoreError};
use reinstate_synthetic::{Flavour, SyntheticSpec, SyntheticStore, Table};

fn main() -> Result<(), StoreError> {
    let spec = SyntheticSpec {
        seed: 1,
        tenant_count: 1_000,
        row_count: 2_000_000,
        skew: 1.0,
        large_tenant: None,
    };
    let Ok(store) = SyntheticStore::try_new(spec, Flavour::Native) else {
        unreachable!("BUG: the description is in bounds")
    };
    let start = Instant::now();
    let (mut rows, mut bytes) = (0, 0);
    let mut batch = OwnedRowBatch::new();
    for table in Table::ALL {
        let mut stream = store.heap_rows(table.index());
        while stream.next_batch(&mut batch)? {
            rows += batch.len();
            bytes += batch.byte_count();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{rows} rows, {bytes} bytes: {:.2} million rows/s, {:.0} MB/s on one thread",
        rows as f64 / seconds / 1e6,
        bytes as f64 / seconds / 1e6
    );
    Ok(())
}
