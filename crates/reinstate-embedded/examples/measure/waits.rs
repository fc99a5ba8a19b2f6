//! How long an application's writers wait while tenants are restored under them.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use reinstate_core::{Owner, RowBuilder};
use reinstate_embedded::EmbeddedStore;

use crate::rows::{self, CreateBatches, TABLE, batches};

/// Writers, and how often each starts a transaction, unless the one before is still waiting.
const BUSY: (usize, Duration) = (4, Duration::from_millis(5));
/// One writer that comes seldom, and may find much that is not on disk yet.
const SELDOM: (usize, Duration) = (1, Duration::from_millis(50));
const SMALL_TENANTS: usize = 60;
const SMALL_ROWS: u64 = 5_000;
const LARGE_ROWS: u64 = 300_000;

pub(crate) fn measure(directory: &Path) {
    let store = crate::create(&directory.join("waits"));
    let small = batches(SMALL_ROWS);
    for neighbour in 1..=20 {
        crate::merge(
            &store,
            &crate::tenant(10_000 + neighbour),
            &CreateBatches { batches: &small },
        );
    }
    let idle = beside(&store, BUSY, || thread::sleep(Duration::from_secs(2)));
    report("nothing", idle);
    let restored = beside(&store, BUSY, || {
        for number in 0..SMALL_TENANTS {
            crate::merge(
                &store,
                &crate::tenant(5000 + number),
                &CreateBatches { batches: &small },
            );
        }
    });
    report("60 tenants of 5,000 rows", restored);
    let large = batches(LARGE_ROWS);
    let restored = beside(&store, BUSY, || {
        crate::merge(
            &store,
            &crate::tenant(6000),
            &CreateBatches { batches: &large },
        );
    });
    report("one tenant of 300,000 rows", restored);
    let replaced = beside(&store, BUSY, || {
        replace(&store, 6000, &large);
    });
    report("the same tenant once more, its rows replaced", replaced);
    let restored = beside(&store, SELDOM, || {
        for number in 7000..7005 {
            crate::merge(
                &store,
                &crate::tenant(number),
                &CreateBatches { batches: &large },
            );
        }
    });
    report("five tenants of 300,000 rows, one writer at 20/s", restored);
    let alone = Instant::now();
    crate::merge(
        &store,
        &crate::tenant(6001),
        &CreateBatches { batches: &large },
    );
    println!(
        "one tenant of 300,000 rows with no writers beside: {:.1?}",
        alone.elapsed()
    );
}

/// Empties the tenant as an application would, a few rows at a time, and restores it.
fn replace(store: &EmbeddedStore, number: usize, rows: &[reinstate_core::RowBatch]) {
    let plan = rows::Replace { batches: rows };
    crate::merge(store, &crate::tenant(number), &plan);
}

struct Waits {
    elapsed: Duration,
    waits: Vec<Duration>,
}

/// Runs `work` beside the writers.
fn beside(
    store: &EmbeddedStore,
    (writers, pace): (usize, Duration),
    work: impl FnOnce() + Send,
) -> Waits {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..writers)
            .map(|number| {
                let stop = &stop;
                scope.spawn(move || write_until(store, number, pace, stop))
            })
            .collect();
        let start = Instant::now();
        let worked = thread::Builder::new()
            .spawn_scoped(scope, work)
            .expect("a thread")
            .join();
        let elapsed = start.elapsed();
        // Also when the work failed: the writers would write for ever.
        stop.store(true, Ordering::Relaxed);
        worked.expect("the work beside the writers");
        let mut waits: Vec<Duration> = writers
            .into_iter()
            .flat_map(|writer| writer.join().expect("a writer"))
            .collect();
        waits.sort_unstable();
        Waits { elapsed, waits }
    })
}

fn write_until(
    store: &EmbeddedStore,
    number: usize,
    pace: Duration,
    stop: &AtomicBool,
) -> Vec<Duration> {
    let owner = Owner::Tenant(crate::tenant(number));
    let (schema, mut builder) = (rows::schema(), RowBuilder::new());
    let mut waits = Vec::new();
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        rows::build(&schema, waits.len() as u64 % 1000, &mut builder);
        let start = Instant::now();
        store
            .write(|transaction| transaction.table(TABLE)?.put(&owner, builder.row()))
            .expect("a small durable write");
        waits.push(start.elapsed());
        next = (next + pace).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    waits
}

fn report(what: &str, measured: Waits) {
    let Waits { elapsed, waits } = measured;
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100];
    println!(
        "beside {what}: {elapsed:.1?}, {} writes, p50 {:.1?} p99 {:.1?} max {:.1?}",
        waits.len(),
        at(50),
        at(99),
        at(100),
    );
}
