//! A log from which one change is missing: what its row says later does not fit, and is refused.

use std::sync::Mutex;

use reinstate::{RestorePoint, TenantImage, extract_at};
use reinstate_core::{ErrorKind, Owner, Position, RowBatch, RowStream, TableIndex, Timestamp};

use crate::exhaustive::{PROJECTS, go_on};
use crate::ground::Ground;
use crate::model::{Model, Step, schema_of_one, values};

const TENANTS: [&str; 2] = ["a", "b"];
const STEPS: usize = 3;

/// The encoded rows of a tenant, or why there are none.
type Found = Result<Vec<u8>, ErrorKind>;

/// The rows in order, and the rows in any order, sorted.
fn found(ground: &Ground, commit: u64, tenant: &str) -> [Found; 2] {
    let point = RestorePoint {
        position: Position { commit, ordinal: 0 },
        time: Timestamp::from_micros(0),
    };
    let tenant = format!("account:{tenant}").parse().unwrap();
    let (context, log) = (ground.context(), ground.log());
    match extract_at(context, &ground.repository, &log, point, &tenant) {
        Ok(image) => [in_order(ground, &image), in_any_order(ground, &image)],
        Err(error) if error.kind() == ErrorKind::NotFound => [Ok(Vec::new()), Ok(Vec::new())],
        Err(error) => [Err(error.kind()), Err(error.kind())],
    }
}

fn in_order(ground: &Ground, image: &TenantImage) -> Found {
    let mut rows = image.rows(ground.context(), TableIndex(PROJECTS));
    let mut batch = RowBatch::new();
    let mut all = Vec::new();
    while rows.next_batch(&mut batch).map_err(|error| error.kind())? {
        all.extend_from_slice(batch.as_bytes());
    }
    Ok(all)
}

fn in_any_order(ground: &Ground, image: &TenantImage) -> Found {
    let rows = Mutex::new(Vec::new());
    let read = image.for_each_block(ground.context(), |_, batch| {
        let found = batch.iter();
        let found = found.map(|row| (row.key().to_vec(), row.columns().to_vec()));
        rows.lock().unwrap().extend(found);
    });
    read.map_err(|error| error.kind())?;
    let mut rows = rows.into_inner().unwrap();
    rows.sort();
    let mut all = RowBatch::new();
    rows.iter()
        .for_each(|(key, columns)| all.push_parts(key, columns));
    Ok(all.into_bytes())
}

/// Whether a step changes what a tenant has under a key.
fn touches(ground: &Ground, step: usize, tenant: &str, key: &str) -> bool {
    let row = |model: &Model| {
        let row = model.find(PROJECTS, key)?;
        (row[1].as_deref() == Some(tenant)).then(|| row.clone())
    };
    row(&ground.models[step]) != row(&ground.models[step + 1])
}

/// All histories of three steps from three beginnings, each without one of the steps. Where every row that
/// the step touched changed again since, its change was told, so that the gap shows.
#[test]
fn a_change_that_is_missing_is_noticed_once_its_row_changes_again() {
    let schema = schema_of_one();
    let beginnings: [&[&[&str]]; 3] = [
        &[],
        &[&["1", "a", "x"]],
        &[&["1", "a", "x"], &["2", "a", "y"]],
    ];
    let (mut refused, mut same) = (0, 0);
    for rows in beginnings {
        let mut start = Model::new(&schema);
        for row in rows {
            start.apply(&Step::Insert(PROJECTS, values(row)));
        }
        let empty = Ground::new(&schema, start.clone(), Vec::new());
        go_on(&start, &mut Vec::new(), STEPS, &mut |steps| {
            for missing in 0..STEPS {
                let transactions = steps.iter().map(|step| vec![step.clone()]).collect();
                let mut ground = empty.and_then(transactions);
                ground.script.transactions[missing].1.clear();
                ground.follow(&[(2, 1)]);
                let is_told = |through: usize, tenant| {
                    ["1", "2"].iter().all(|key| {
                        !touches(&ground, missing, tenant, key)
                            || (missing + 1..through)
                                .any(|step| touches(&ground, step, tenant, key))
                    })
                };
                let through = missing + 1..=STEPS;
                let told = through.flat_map(|through| TENANTS.map(|tenant| (through, tenant)));
                for (through, tenant) in told.filter(|(through, tenant)| is_told(*through, tenant))
                {
                    let owner = Owner::from_bytes(tenant.as_bytes()).unwrap();
                    let truth = ground.models[through].rows_of(PROJECTS, &owner);
                    let commit = ground.base.commit + 10 * through as u64;
                    for found in found(&ground, commit, tenant) {
                        match found {
                            Err(ErrorKind::Corrupt) => refused += 1,
                            Ok(rows) if rows == truth => same += 1,
                            other => panic!(
                                "{rows:?}, {steps:?} without {missing}: {tenant} after {through} has \
                                 {other:?}, and should have {truth:?}"
                            ),
                        }
                    }
                }
            }
        });
    }
    assert!(
        refused > 1_000 && same > 1_000,
        "{refused} refused, {same} as they were"
    );
}
