//! Merges into a tenant that lost everything, beside redb's own sorted bulk insert of the same
//! rows in one durable transaction.

use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, Instant};

use redb::{Database, TableDefinition};
use reinstate_core::{Owner, RowBatch};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};

use crate::rows::{CreateBatches, TABLE, batches};

const RAW: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
const NEIGHBOURS: usize = 20;
const NEIGHBOUR_ROWS: u64 = 5_000;

pub(crate) fn measure(directory: &Path) {
    for (row_count, rounds) in [
        (1_000, 41),
        (2_000, 31),
        (4_000, 31),
        (10_000, 21),
        (50_000, 11),
        (300_000, 7),
    ] {
        let store = crate::create(&directory.join(format!("merge-{row_count}")));
        let raw = raw_store(&directory.join(format!("raw-{row_count}")));
        fill(&store, &raw);
        let rows = batches(row_count);
        let mut times: Vec<(Duration, Duration)> = Vec::new();
        for round in 0..=rounds {
            let raw_time = bulk_insert(&raw, &rows);
            let merge_time = merge(&store, &rows);
            // The first round warms the files up.
            if round > 0 {
                times.push((raw_time, merge_time));
            }
        }
        report(row_count, &mut times);
    }
}

fn report(row_count: u64, times: &mut [(Duration, Duration)]) {
    let middle = times.len() / 2;
    let mut ratios: Vec<f64> = times
        .iter()
        .map(|(raw, merge)| raw.as_secs_f64() / merge.as_secs_f64())
        .collect();
    ratios.sort_by(f64::total_cmp);
    times.sort_by_key(|(raw, _)| *raw);
    let raw = times[middle].0;
    times.sort_by_key(|(_, merge)| *merge);
    let merge = times[middle].1;
    println!(
        "{row_count:>7} rows: bulk insert {raw:>9.1?}  merge {merge:>9.1?}  ratio {:.2} \
         ({:.2} to {:.2})",
        ratios[middle],
        ratios[ratios.len() / 10],
        ratios[ratios.len() - 1 - ratios.len() / 10],
    );
}

fn raw_store(path: &Path) -> Database {
    let mut builder = Database::builder();
    builder.set_cache_size(EmbeddedOptions::default().cache_bytes);
    builder.create(path).expect("a new file")
}

/// The same neighbours on both sides, some before the tenant and some after.
fn fill(store: &EmbeddedStore, raw: &Database) {
    let rows = batches(NEIGHBOUR_ROWS);
    for neighbour in (1..=NEIGHBOURS).map(|number| number * 10) {
        crate::merge(
            store,
            &crate::tenant(neighbour),
            &CreateBatches { batches: &rows },
        );
        insert(raw, &raw_prefix(neighbour), &rows);
    }
}

fn raw_prefix(number: usize) -> Vec<u8> {
    let mut prefix = crate::tenant(number).as_bytes().to_vec();
    prefix.extend_from_slice(&[0; 10]);
    prefix
}

const TARGET: usize = 105;

fn bulk_insert(raw: &Database, rows: &[RowBatch]) -> Duration {
    let prefix = raw_prefix(TARGET);
    let transaction = raw.begin_write().expect("a transaction");
    {
        let mut table = transaction.open_table(RAW).expect("the table");
        let mut end = prefix.clone();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        table
            .retain_in(prefix.as_slice()..end.as_slice(), |_, _| false)
            .expect("an empty range");
    }
    transaction.commit().expect("a commit");
    insert(raw, &prefix, rows)
}

fn insert(raw: &Database, prefix: &[u8], rows: &[RowBatch]) -> Duration {
    let start = Instant::now();
    let transaction = raw.begin_write().expect("a transaction");
    {
        let mut table = transaction.open_table(RAW).expect("the table");
        let mut cursor = table
            .upper_bound_mut(Bound::Included(prefix))
            .expect("a cursor");
        let mut key = Vec::new();
        for row in rows.iter().flat_map(RowBatch::iter) {
            key.clear();
            key.extend_from_slice(prefix);
            key.extend_from_slice(row.key());
            cursor
                .insert_before(key.as_slice(), row.columns())
                .expect("a row");
        }
        cursor.close().expect("the rows in place");
    }
    transaction.commit().expect("a commit");
    start.elapsed()
}

fn merge(store: &EmbeddedStore, rows: &[RowBatch]) -> Duration {
    let tenant = crate::tenant(TARGET);
    let owner = Owner::Tenant(tenant.clone());
    store
        .write(|transaction| transaction.table(TABLE)?.delete_all(&owner))
        .expect("an empty tenant");
    let start = Instant::now();
    let digest = crate::merge(store, &tenant, &CreateBatches { batches: rows });
    let elapsed = start.elapsed();
    let expected: usize = rows.iter().map(RowBatch::len).sum();
    assert_eq!(digest.row_count(), expected as u64);
    elapsed
}
