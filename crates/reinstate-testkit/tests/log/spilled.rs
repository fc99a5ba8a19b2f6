//! More became of rows than there is memory for.

use proptest::prelude::*;
use reinstate::{RestorePoint, extract_at};
use reinstate_core::{RowBatch, RowStream, TableIndex, Timestamp};

use crate::ground::Ground;
use crate::model::{ACTIVITY, Model, PROJECTS, Step, schema};

/// Rows at the beginning; every second number is a project.
const ROWS: usize = 3_000;
const TRANSACTIONS: usize = 3;
const STEPS: usize = 2_500;
/// Of one row among five hundred.
const LONG_BYTES: usize = 70_000;

/// Numbers that look random: the same ones for the same seed.
struct Draw(u64);

impl Draw {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }
}

fn text(number: usize, length: usize) -> String {
    let letter = char::from(b'a' + u8::try_from(number % 26).unwrap());
    letter.to_string().repeat(length)
}

fn row(first: String, second: &str, third: Option<String>) -> Vec<Option<String>> {
    let mut row = vec![Some(first), Some(second.to_owned())];
    row.extend(third.map(Some));
    row
}

fn project(id: usize, name: String) -> Vec<Option<String>> {
    row(id.to_string(), "a", Some(name))
}

fn activity(number: usize, length: usize) -> Vec<Option<String>> {
    row(
        "a".to_owned(),
        &format!("{number}{}", text(number, length)),
        None,
    )
}

/// What a table with a key, or one without, goes through next.
fn step(draw: &mut Draw, now: &Model, length: usize) -> Step {
    if draw.below(3) == 0 {
        let rows = &now.tables[ACTIVITY as usize];
        return if draw.below(2) == 0 && !rows.is_empty() {
            Step::Delete(ACTIVITY, rows[draw.below(rows.len())].clone())
        } else {
            Step::Insert(ACTIVITY, activity(draw.below(2_000), length))
        };
    }
    let id = draw.below(ROWS + 100);
    let length = if draw.below(500) == 0 {
        LONG_BYTES
    } else {
        length
    };
    let new = project(id, text(draw.below(26), length));
    match now.find(PROJECTS, &id.to_string()).cloned() {
        None => Step::Insert(PROJECTS, new),
        Some(row) if draw.below(3) == 0 => Step::Delete(PROJECTS, row),
        Some(row) => Step::Update(PROJECTS, row, new),
    }
}

/// A thousand copies of one row are handed out as a thousand rows are: so many at a time.
#[test]
fn copies_of_a_row_come_in_batches() {
    const COPIES: usize = 1_000;
    let copies = (0..COPIES).map(|_| Step::Insert(ACTIVITY, activity(1, 1_000)));
    let model = Model::new(&schema());
    let ground = Ground::new(&schema(), model, vec![copies.collect()]);
    ground.follow(&[(1, 1 << 20)]);
    let log = ground.log();
    let point = RestorePoint {
        position: log.through(),
        time: Timestamp::from_micros(0),
    };
    let (context, tenant) = (ground.context(), "account:a".parse().unwrap());
    let image = extract_at(context, &ground.repository, &log, point, &tenant).unwrap();
    let mut rows = image.rows(context, TableIndex(ACTIVITY));
    let mut batch = RowBatch::new();
    let mut count = 0;
    while rows.next_batch(&mut batch).unwrap() {
        assert!(batch.as_bytes().len() < RowBatch::TARGET_BYTES + 2_000);
        count += batch.len();
    }
    assert_eq!(count, COPIES);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_became_of_many_rows_is_read_from_a_file(seed in 1_u64.., length in 200_usize..900) {
        let mut draw = Draw(seed);
        let mut model = Model::new(&schema());
        for id in 0..ROWS {
            if id % 2 == 0 {
                model.tables[PROJECTS as usize].push(project(id, text(id, length)));
            }
            model.tables[ACTIVITY as usize].push(activity(id % 40, length));
        }
        let mut now = model.clone();
        let transactions = (0..TRANSACTIONS).map(|_| {
            let steps = (0..STEPS).map(|_| {
                let step = step(&mut draw, &now, length);
                now.apply(&step);
                step
            });
            steps.collect()
        });
        let transactions = transactions.collect();
        let mut ground = Ground::new(&schema(), model, transactions);
        ground.reads_blocks = true;
        ground.follow(&[(1, 1), (usize::MAX, 1 << 20)]);
        ground.check(&["a"]);
    }
}
