//! Random histories: several changes in a transaction, in any order; rows before the rows that they
//! belong to; cascades; moves from tenant to tenant; new keys; duplicates; truncations; followers
//! that come and go.

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use reinstate::Error;
use reinstate_core::{ErrorKind, Timestamp};
use reinstate_testkit::figures;

use crate::ground::Ground;
use crate::model::{
    ACTIVITY, COMMENTS, CURRENCIES, ISSUES, MARKS, Model, NOTES, PROJECTS, Step, Values, schema,
    values,
};

pub const TENANTS: [&str; 3] = ["a", "b", "ab"];
const TEXTS: [&str; 4] = ["-", "", "x", "a longer text"];

/// What to do; which rows it means depends on what is there.
pub type Draw = (u8, u8, u8, u8);

pub fn draws() -> impl Strategy<Value = Vec<Vec<Draw>>> {
    let draw = (0_u8..25, 0_u8..6, any::<u8>(), any::<u8>());
    let transaction = proptest::collection::vec(draw, 0..6);
    proptest::collection::vec(transaction, 1..14)
}

/// Makes transactions of draws, each on the store that those before it left.
struct Writer {
    model: Model,
    steps: Vec<Step>,
}

impl Writer {
    fn push(&mut self, step: Step) {
        self.model.apply(&step);
        self.steps.push(step);
    }

    /// Changes an existing row that nothing goes by, or inserts one with this id.
    fn put(&mut self, table: u32, row: Values, may_move: bool) {
        let id = row[0].clone().unwrap();
        match self.model.find(table, &id).cloned() {
            None => self.push(Step::Insert(table, row)),
            Some(before) if may_move => self.push(Step::Update(table, before, row)),
            Some(before) => {
                // The text alone.
                let mut after = before.clone();
                *after.last_mut().unwrap() = row.last().unwrap().clone();
                self.push(Step::Update(table, before, after));
            }
        }
    }

    fn delete_all(&mut self, table: u32, column: usize, id: &str) {
        for row in self.model.named_by(table, column, id) {
            self.push(Step::Delete(table, row));
        }
    }

    fn delete_notes(&mut self, kind: &str, id: &str) {
        for row in self.model.named_by(NOTES, 2, id) {
            if row[1].as_deref() == Some(kind) {
                self.push(Step::Delete(NOTES, row));
            }
        }
    }

    /// As a cascade goes: the row first, then those that belonged to it.
    fn delete_issue(&mut self, row: Values) {
        let id = row[0].clone().unwrap();
        self.push(Step::Delete(ISSUES, row));
        self.delete_all(COMMENTS, 1, &id);
        self.delete_notes("i", &id);
    }

    fn delete_project(&mut self, row: Values) {
        let id = row[0].clone().unwrap();
        self.push(Step::Delete(PROJECTS, row));
        for issue in self.model.named_by(ISSUES, 1, &id) {
            self.delete_issue(issue);
        }
        self.delete_all(MARKS, 0, &id);
        self.delete_notes("p", &id);
    }

    fn some(&self, table: u32, draw: u8) -> Option<Values> {
        let rows = &self.model.tables[table as usize];
        rows.get(usize::from(draw) % rows.len().max(1)).cloned()
    }

    fn take(&mut self, (action, id, one, two): Draw) {
        let id = id.to_string();
        let tenant = TENANTS[usize::from(one) % TENANTS.len()];
        let text = TEXTS[usize::from(two) % TEXTS.len()];
        match action {
            0..=3 => self.put(PROJECTS, values(&[&id, tenant, text]), false),
            4 => {
                let tenant = ["-", "", tenant][usize::from(two) % 3];
                self.put(PROJECTS, values(&[&id, tenant, text]), true);
            }
            5..=7 => {
                if let Some(project) = self.some(PROJECTS, one) {
                    let project = project[0].clone().unwrap();
                    self.put(ISSUES, values(&[&id, &project, text]), false);
                }
            }
            8 | 9 => {
                if let Some(issue) = self.some(ISSUES, one) {
                    let issue = issue[0].clone().unwrap();
                    self.put(COMMENTS, values(&[&id, &issue, text]), true);
                }
            }
            10 | 11 => {
                let (kind, table) = if two % 2 == 0 {
                    ("p", PROJECTS)
                } else {
                    ("i", ISSUES)
                };
                let subject = self.some(table, one).map(|row| row[0].clone().unwrap());
                let subject = subject.unwrap_or_else(|| "-".to_owned());
                self.put(NOTES, values(&[&id, kind, &subject, text]), true);
            }
            12..=14 => self.push(Step::Insert(ACTIVITY, values(&[tenant, text]))),
            15 => {
                if let Some(row) = self.some(ACTIVITY, one) {
                    self.push(Step::Update(ACTIVITY, row, values(&[tenant, text])));
                }
            }
            16 => {
                if let Some(row) = self.some(ACTIVITY, one) {
                    self.push(Step::Delete(ACTIVITY, row));
                }
            }
            17 => {
                if let Some(project) = self.some(PROJECTS, one) {
                    let project = project[0].clone().unwrap();
                    self.push(Step::Insert(MARKS, values(&[&project, text])));
                }
            }
            18 => {
                if let Some(row) = self.some(PROJECTS, one) {
                    self.delete_project(row);
                }
            }
            19 => {
                if let Some(row) = self.some(ISSUES, one) {
                    self.delete_issue(row);
                }
            }
            20 => self.new_family(&id, tenant, text),
            21 => self.new_key(one),
            22 => self.truncate(one),
            23 => self.move_all(tenant, TENANTS[usize::from(two) % TENANTS.len()]),
            _ => self.put(CURRENCIES, values(&[&id, text]), true),
        }
    }

    /// Rows before the row that they belong to, as deferred keys allow.
    fn new_family(&mut self, id: &str, tenant: &str, text: &str) {
        let is_free = |table| self.model.find(table, id).is_none();
        if !(is_free(PROJECTS) && is_free(ISSUES) && is_free(COMMENTS)) {
            return;
        }
        self.push(Step::Insert(COMMENTS, values(&[id, id, text])));
        self.push(Step::Insert(MARKS, values(&[id, text])));
        self.push(Step::Insert(ISSUES, values(&[id, id, text])));
        self.push(Step::Insert(PROJECTS, values(&[id, tenant, text])));
        let before = values(&[id, id, text]);
        let after = values(&[id, id, "again"]);
        self.push(Step::Update(COMMENTS, before, after));
        self.push(Step::Delete(MARKS, values(&[id, text])));
    }

    fn new_key(&mut self, draw: u8) {
        let free = (10..).map(|id| id.to_string());
        let free = free
            .clone()
            .find(|id| self.model.find(COMMENTS, id).is_none());
        if let (Some(row), Some(free)) = (self.some(COMMENTS, draw), free) {
            let mut after = row.clone();
            after[0] = Some(free);
            self.push(Step::Update(COMMENTS, row, after));
        }
    }

    /// As one statement does it.
    fn move_all(&mut self, from: &str, to: &str) {
        for row in self.model.named_by(PROJECTS, 1, from) {
            let mut after = row.clone();
            after[1] = Some(to.to_owned());
            self.push(Step::Update(PROJECTS, row, after));
        }
    }

    fn truncate(&mut self, draw: u8) {
        match draw % 6 {
            0 => self.push(Step::Truncate(ACTIVITY)),
            1 => self.push(Step::Truncate(COMMENTS)),
            2 => {
                for table in [PROJECTS, ISSUES, COMMENTS, NOTES, MARKS] {
                    self.push(Step::Truncate(table));
                }
            }
            _ => {}
        }
    }
}

pub fn history(base: &[Vec<Draw>], after: &[Vec<Draw>]) -> (Model, Vec<Vec<Step>>) {
    let mut writer = Writer {
        model: Model::new(&schema()),
        steps: Vec::new(),
    };
    let all = base.iter().flatten();
    all.for_each(|draw| writer.take(*draw));
    writer.steps.clear();
    let base = writer.model.clone();
    let mut transactions = Vec::new();
    for draws in after {
        draws.iter().for_each(|draw| writer.take(*draw));
        transactions.push(std::mem::take(&mut writer.steps));
    }
    (base, transactions)
}

/// How many histories: 150, or `REINSTATE_SCALE` times as many.
fn cases() -> u32 {
    u32::try_from(150 * figures::scale()).unwrap()
}

/// How a history is followed: how many transactions each follower reads and how large its runs are, whether
/// old rows are told by their keys, how many records are packed into one, and behind which run a snapshot
/// is made of the log.
pub type Ways = (Vec<(usize, u64)>, bool, usize, usize);

pub fn ways() -> impl Strategy<Value = Ways> {
    let bytes = prop_oneof![Just(1_u64), Just(200), Just(1 << 20)];
    let followers = proptest::collection::vec((1_usize..4, bytes), 0..6);
    let pack_records = prop_oneof![Just(1_usize), Just(3), Just(512)];
    (followers, any::<bool>(), pack_records, 0_usize..4)
}

/// Follows a history and compares every tenant at every commit. Returns how many images that were.
pub fn check(mut ground: Ground, (followers, is_by_key, pack_records, compacted): &Ways) -> usize {
    ground.script.is_by_key = *is_by_key;
    ground.reads_blocks = *is_by_key;
    ground.pack_records = *pack_records;
    ground.follow(followers);
    let images = ground.check(&TENANTS);
    ground.check_tenants(&TENANTS);
    images + ground.check_compacted(*compacted, &TENANTS)
}

/// Tries so many cases, and notes under this name how many there were.
pub fn try_all<S: Strategy>(
    name: &str,
    part: u32,
    strategy: &S,
    try_one: impl Fn(S::Value) -> (usize, usize),
) {
    let config = ProptestConfig {
        cases: cases() / part,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let [histories, transactions, images] = [const { Cell::new(0_u64) }; 3];
    let outcome = TestRunner::new(config).run(strategy, |case| {
        let (commits, compared) = try_one(case);
        histories.set(histories.get() + 1);
        transactions.set(transactions.get() + commits as u64);
        images.set(images.get() + compared as u64);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
    figures::record(
        name,
        &[
            ("histories", histories.get()),
            ("transactions", transactions.get()),
            ("images compared", images.get()),
        ],
    );
}

#[test]
fn an_image_at_any_commit_is_what_a_naive_replay_says() {
    let strategy = (draws(), draws(), ways());
    try_all(
        "histories-in-memory",
        1,
        &strategy,
        |(base, after, ways)| {
            let (base, transactions) = history(&base, &after);
            let commits = transactions.len();
            let ground = Ground::new(&schema(), base, transactions);
            (commits, check(ground, &ways))
        },
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_transaction_that_breaks_off_is_in_no_run_and_comes_again(
        base in draws(), after in draws(), at in any::<prop::sample::Index>(), at_once in 1_usize..9,
        is_by_key: bool,
    ) {
        let (base, transactions) = history(&base, &after);
        let breaks_in = at.index(transactions.len());
        let mut ground = Ground::new(&schema(), base, transactions);
        ground.script.is_by_key = is_by_key;
        let error = break_off(&ground, breaks_in, at_once).unwrap_err();
        prop_assert_eq!(error.kind(), ErrorKind::Unavailable);
        let published = ground.log().through();
        let broken = ground.script.transactions[breaks_in].0.position;
        prop_assert!(published < broken);
        ground.follow(&[]);
        ground.check(&TENANTS[..1]);
    }
}

fn break_off(ground: &Ground, transaction: usize, at_once: usize) -> Result<(), Error> {
    let log = ground.log();
    let mut feed = ground.script.feed(&log, at_once);
    feed.breaks_in = Some(transaction);
    let mut follower = ground.follower_of(feed);
    while follower.step(Timestamp::from_micros(0))?.has_more {}
    Ok(())
}

#[test]
fn a_row_that_goes_to_another_tenant_takes_along_what_belongs_to_it_and_nobody_else() {
    let schema = schema();
    let mut base = Model::new(&schema);
    for id in ["1", "2"] {
        base.apply(&Step::Insert(PROJECTS, values(&[id, "a", "x"])));
        base.apply(&Step::Insert(ISSUES, values(&[id, id, "x"])));
        base.apply(&Step::Insert(COMMENTS, values(&[id, id, "x"])));
        base.apply(&Step::Insert(MARKS, values(&[id, "x"])));
    }
    let project = |account: &str| values(&["1", account, "x"]);
    let transactions = vec![
        vec![Step::Insert(COMMENTS, values(&["3", "1", "y"]))],
        vec![
            Step::Insert(MARKS, values(&["1", "x"])),
            Step::Update(PROJECTS, project("a"), project("b")),
            Step::Update(COMMENTS, values(&["3", "1", "y"]), values(&["3", "1", "z"])),
        ],
        vec![Step::Insert(COMMENTS, values(&["4", "1", "y"]))],
        vec![Step::Update(PROJECTS, project("b"), project("ab"))],
        vec![Step::Update(PROJECTS, project("ab"), project("a"))],
    ];
    for at_once in [1, 2, 9] {
        let ground = Ground::new(&schema, base.clone(), transactions.clone());
        ground.follow(&[(at_once, 1)]);
        ground.check(&TENANTS);
    }
}

/// A row is inserted, goes along with its project to another tenant, is deleted, and one of its key comes to
/// a third tenant, all in one run: whoever reads that run anew must go by what was said last, and not by
/// what the first tenant heard last.
#[test]
fn a_row_that_went_along_and_was_deleted_is_not_found_again_in_its_run() {
    let schema = schema();
    let mut base = Model::new(&schema);
    base.apply(&Step::Insert(PROJECTS, values(&["0", "a", "x"])));
    base.apply(&Step::Insert(PROJECTS, values(&["2", "ab", "x"])));
    let (from, to) = (values(&["2", "ab", "x"]), values(&["2", "b", "x"]));
    let transactions = vec![
        vec![Step::Insert(ISSUES, values(&["1", "2", "x"]))],
        vec![Step::Update(PROJECTS, from, to.clone())],
        vec![
            Step::Delete(PROJECTS, to),
            Step::Delete(ISSUES, values(&["1", "2", "x"])),
            Step::Insert(ISSUES, values(&["1", "0", "x"])),
        ],
        vec![Step::Insert(COMMENTS, values(&["0", "1", "x"]))],
    ];
    let ground = Ground::new(&schema, base, transactions);
    // The first follower ends behind the third transaction; the next knows only what the log says.
    ground.follow(&[(3, 1 << 20)]);
    ground.check(&TENANTS);
}

/// A row waits for the one that it belongs to; in what waits with it, a row that others go by is deleted or
/// its table truncated, and one of its key comes again. What was inserted in between was given to nobody, and
/// changed as the tenant's: no image could be read any more. Rows that stayed behind go to the new one's owner.
#[test]
fn a_row_that_comes_again_behind_rows_that_wait_for_it_takes_them_and_those_left_behind() {
    let schema = schema();
    let mut base = Model::new(&schema);
    base.apply(&Step::Insert(PROJECTS, values(&["4", "a", "x"])));
    base.apply(&Step::Insert(ISSUES, values(&["5", "4", "x"])));
    base.apply(&Step::Insert(COMMENTS, values(&["5", "5", "x"])));
    let family = |id: &str, tenant: &str| {
        [
            Step::Insert(COMMENTS, values(&[id, id, "x"])),
            Step::Insert(MARKS, values(&[id, "x"])),
            Step::Insert(ISSUES, values(&[id, id, "x"])),
            Step::Insert(PROJECTS, values(&[id, tenant, "x"])),
            Step::Update(COMMENTS, values(&[id, id, "x"]), values(&[id, id, "y"])),
            Step::Delete(MARKS, values(&[id, "x"])),
        ]
    };
    let delete = Step::Delete(PROJECTS, values(&["4", "a", "x"]));
    let left = Step::Delete(COMMENTS, values(&["5", "5", "x"]));
    let truncate = [PROJECTS, ISSUES, COMMENTS, MARKS].map(Step::Truncate);
    for tenant in ["a", "b"] {
        let again = family("4", tenant);
        let ways = [
            [&family("1", "a")[..], std::slice::from_ref(&delete), &again].concat(),
            [std::slice::from_ref(&delete), &again[..]].concat(),
            [&family("1", "ab")[..], &truncate, &again].concat(),
            [&again[..1], std::slice::from_ref(&delete), &again[1..]].concat(),
            [
                &family("1", "a")[..],
                &[delete.clone(), left.clone()],
                &again,
            ]
            .concat(),
        ];
        for way in ways {
            let more = vec![Step::Insert(COMMENTS, values(&["9", "4", "x"]))];
            let ground = Ground::new(&schema, base.clone(), vec![way, more]);
            ground.follow(&[(1, 1)]);
            ground.check(&TENANTS);
        }
    }
}
