//! What a store pays for being followed: transactions of few and of many rows, and restores, each on
//! a store that nobody follows, one that somebody follows, and one whose feed is drained meanwhile.

use std::path::Path;
use std::time::{Duration, Instant};

use reinstate_core::{
    Change, ChangeSink, Commit, FeedSource, LiveStore, Owner, RowBuilder, SnapshotId, StoreError,
};
use reinstate_embedded::EmbeddedStore;

use crate::rows::{self, CreateBatches, TABLE, batches};

const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([7; 16]);
/// How often each is measured; the stores take turns.
const ROUNDS: usize = 15;

/// Takes what is handed over and forgets it.
#[derive(Default)]
struct Nowhere(u64);

impl ChangeSink for Nowhere {
    fn change(&mut self, _change: Change<'_>) -> Result<(), StoreError> {
        self.0 += 1;
        Ok(())
    }

    fn commit(&mut self, _commit: Commit) -> Result<(), StoreError> {
        Ok(())
    }
}

pub(crate) fn measure(directory: &Path) {
    let plain = crate::create(&directory.join("plain"));
    let followed = crate::create(&directory.join("followed"));
    drop(followed.begin_feed(SNAPSHOT).expect("a feed"));
    let neighbours = batches(5_000);
    for store in [&plain, &followed] {
        for number in 1..=20 {
            let plan = CreateBatches {
                batches: &neighbours,
            };
            crate::merge(store, &crate::tenant(number), &plan);
        }
    }
    drain(&followed);
    for (transactions, rows) in [(200, 1), (50, 20), (10, 1_000)] {
        let name = format!("a transaction of {rows} rows");
        let transactions = u32::try_from(transactions).expect("a small number");
        compare(&name, [&plain, &followed], |store, round| {
            let start = Instant::now();
            for number in 0..transactions {
                write(store, round * 7919 + u64::from(number) * 31, rows);
            }
            start.elapsed() / transactions
        });
    }
    for row_count in [2_000, 50_000] {
        let rows = batches(row_count);
        let name = format!("a restore of {row_count} rows");
        compare(&name, [&plain, &followed], |store, _| {
            let tenant = crate::tenant(105);
            let owner = Owner::Tenant(tenant.clone());
            store
                .write(|transaction| transaction.table(TABLE)?.delete_all(&owner))
                .expect("an empty tenant");
            let start = Instant::now();
            crate::merge(store, &tenant, &CreateBatches { batches: &rows });
            start.elapsed()
        });
    }
}

/// Puts rows of one neighbour, about half of which were there.
fn write(store: &EmbeddedStore, first: u64, row_count: u64) {
    let owner = Owner::Tenant(crate::tenant(
        usize::try_from(first % 20 + 1).expect("small"),
    ));
    let mut builder = RowBuilder::new();
    store
        .write(|transaction| {
            let mut table = transaction.table(TABLE)?;
            for number in first..first + row_count {
                rows::build(store.schema(), number * 17 % 10_000, &mut builder);
                table.put(&owner, builder.row())?;
            }
            Ok(())
        })
        .expect("a transaction");
}

/// Reads everything and lets the store forget it; returns how many changes there were.
fn drain(store: &EmbeddedStore) -> u64 {
    let after = store.feeds().expect("feeds")[0].acknowledged;
    let mut feed = store.resume_feed(SNAPSHOT, after).expect("the feed");
    let mut sink = Nowhere::default();
    loop {
        let progress = feed.read(64 << 20, &mut sink).expect("changes");
        feed.acknowledge(progress.through).expect("forgotten");
        if !progress.has_more {
            let last = store.read_view().expect("a view").position();
            assert_eq!(progress.through, last);
            return sink.0;
        }
    }
}

fn compare(
    name: &str,
    stores: [&EmbeddedStore; 2],
    mut one: impl FnMut(&EmbeddedStore, u64) -> Duration,
) {
    let mut times = [Vec::new(), Vec::new()];
    let (mut drained, mut changes) = (Duration::ZERO, 0);
    for round in 0..=ROUNDS {
        for (store, times) in stores.iter().zip(&mut times) {
            let elapsed = one(store, round as u64);
            // The first round warms the files up.
            if round > 0 {
                times.push(elapsed);
            }
        }
        let start = Instant::now();
        changes += drain(stores[1]);
        drained += start.elapsed();
    }
    let [plain, followed] = times.map(|mut times| {
        times.sort();
        times[ROUNDS / 2]
    });
    let per_change = drained.as_secs_f64() / changes as f64 * 1e6;
    println!(
        "{name}: {plain:.1?}, followed {followed:.1?} ({:+.0} %); reading and forgetting {per_change:.1} us a change",
        (followed.as_secs_f64() / plain.as_secs_f64() - 1.0) * 100.0,
    );
}
