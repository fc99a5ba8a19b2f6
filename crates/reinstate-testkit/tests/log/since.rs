//! The third side of a plan: which transaction changed a row last, after the point it goes back to.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reinstate::{
    DriftRules, Error, NoteKind, OwnerCheck, PlanRequest, RestorePoint, Since, StoredPlan,
    TenantPlanDescription, WrittenPlan, extract_at, is_blocked, plan_since,
};
use reinstate_core::{
    ChangeSource, ConflictPolicy, ErrorKind, JobId, KeyPart, Owner, Policy, Position, Repository,
    RowBatch, RowRole, Switch, Tenant, Timestamp,
};

use crate::ground::Ground;
use crate::histories::{TENANTS, draws, history};
use crate::model::{
    ACTIVITY, Model, PROJECTS, Step, Values, encode, schema, schema_of_one, values,
};

fn tenant(name: &str) -> Tenant {
    format!("account:{name}").parse().unwrap()
}

/// Plans to bring a tenant back to what it was after so many transactions; none if it had no row then.
fn make(
    ground: &Ground,
    name: &str,
    (transactions, live): (u64, &Model),
    policy: Policy,
    only: &[u64],
) -> Result<Option<WrittenPlan>, Error> {
    let point = RestorePoint {
        position: Position {
            commit: ground.base.commit + 10 * transactions,
            ordinal: 0,
        },
        time: Timestamp::from_micros(0),
    };
    let log = ground.log();
    let image = match extract_at(
        ground.context(),
        &ground.repository,
        &log,
        point,
        &tenant(name),
    ) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        image => image?,
    };
    let request = PlanRequest {
        job: JobId::from_bytes([3; 16]),
        repository: ground.repository.id(),
        policy,
        drift: DriftRules::default(),
        check_owners: OwnerCheck::In(&ground.repository),
        planned_at: Timestamp::from_micros(0),
    };
    let since = Since {
        repository: &ground.repository,
        log: &log,
        only,
    };
    let output = ground.repository.create_object().unwrap();
    let store = ground.store(live);
    plan_since(ground.context(), &[image], &store, &request, since, output).map(Some)
}

/// A row that a plan changes: its table, what is done, its encoding, and the number of the transaction
/// that changed it last.
type Said = (u32, RowRole, Vec<u8>, Option<u64>);

fn read(ground: &Ground, name: &str, written: &WrittenPlan) -> Vec<Said> {
    let stored = StoredPlan::open(&ground.repository, written.object).unwrap();
    let changes = stored
        .plan()
        .changes(ground.context(), &tenant(name).id)
        .unwrap();
    let mut said = Vec::new();
    for &table in changes.tables() {
        for role in [RowRole::Created, RowRole::PutBackBefore, RowRole::Deleted] {
            let mut by = changes.last_changes(table, role).unwrap();
            let mut rows = changes.rows(table, role).unwrap();
            let mut batch = RowBatch::new();
            while rows.next_batch(&mut batch).unwrap() {
                for row in batch.iter() {
                    let commit = by.advance().unwrap();
                    let number =
                        commit.map(|by| (by.position.commit - ground.base.commit).div_ceil(10));
                    let mut single = RowBatch::new();
                    single.push_row(row);
                    said.push((table.0, role, single.as_bytes().to_vec(), number));
                }
            }
            assert_eq!(by.advance().unwrap(), None, "as many as there are rows");
        }
    }
    said
}

/// What tells a row apart: its key, or all of it.
fn identity(bytes: &[u8]) -> Vec<u8> {
    let batch = RowBatch::try_from_bytes(bytes.to_vec()).unwrap();
    let row = batch.iter().next().unwrap();
    let part = if row.key().is_empty() {
        row.columns()
    } else {
        row.key()
    };
    part.to_vec()
}

/// The rows of a tenant in a table that have this identity.
fn state(ground: &Ground, number: usize, name: &str, table: u32, identity: &[u8]) -> Vec<Vec<u8>> {
    let owner = Owner::from_bytes(name.as_bytes()).unwrap();
    let bytes = ground.models[number].rows_of(table, &owner);
    let batch = RowBatch::try_from_bytes(bytes).unwrap();
    let mut found = Vec::new();
    for row in batch.iter() {
        let mut single = RowBatch::new();
        single.push_row(row);
        if self::identity(single.as_bytes()) == identity {
            found.push(single.as_bytes().to_vec());
        }
    }
    found
}

/// Whether a transaction names a row of this identity, or empties its table.
fn names(ground: &Ground, number: usize, table: u32, wanted: &[u8]) -> bool {
    let is = |of: u32, row: &Values| {
        let row = encode(&ground.script.schema, of, row);
        let mut single = RowBatch::new();
        single.push_row(row.row());
        of == table && identity(single.as_bytes()) == wanted
    };
    let (_, steps) = &ground.script.transactions[number - 1];
    steps.iter().any(|step| match step {
        Step::Insert(of, row) | Step::Delete(of, row) => is(*of, row),
        Step::Update(of, before, after) => is(*of, before) || is(*of, after),
        Step::Truncate(of) => *of == table,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_transaction_that_is_named_changed_the_row_and_none_after_it_did(
        base in draws(), after in draws(), point: prop::sample::Index, run_bytes in prop_oneof![Just(1_u64), Just(1 << 20)],
    ) {
        let (base, transactions) = history(&base, &after);
        let ground = Ground::new(&schema(), base, transactions);
        ground.follow(&[(2, run_bytes), (3, run_bytes)]);
        let last = ground.models.len() - 1;
        let point = point.index(last + 1);
        for name in TENANTS {
            let live = &ground.models[last];
            let made = make(&ground, name, (point as u64, live), Policy::EXACT, &[]).unwrap();
            let Some(written) = made else { continue };
            for (table, role, bytes, number) in read(&ground, name, &written) {
                let wanted = identity(&bytes);
                // A log that goes up to the live store knows of every row.
                let number = number.map(|number| usize::try_from(number).unwrap());
                let number = number.unwrap_or_else(|| panic!("{role:?} of table {table}: nobody"));
                prop_assert!(point < number && number <= last);
                let at = |number| state(&ground, number, name, table, &wanted);
                for later in number..last {
                    prop_assert_eq!(at(later), at(last), "{} changed after {}", table, number);
                }
                let differs = at(number - 1) != at(number);
                prop_assert!(differs || names(&ground, number, table, &wanted));
            }
            let part = &written.description.tenants[0];
            let counted: u64 = part.notes.iter()
                .filter(|note| note.kind == NoteKind::ChangedBy)
                .map(|note| note.count)
                .sum();
            let changed: u64 = part.tables.iter().map(|table| table.counts.total()).sum();
            prop_assert_eq!(counted, changed);
        }
    }
}

/// Projects 1 to 6 of tenant a; the incident; what another transaction did after it; and what
/// happened after the log.
fn incident() -> (Ground, Model) {
    let row = |id: &str, name: &str| values(&[id, "a", name]);
    let mut base = Model::new(&schema_of_one());
    for id in ["1", "2", "3", "4", "5", "6"] {
        base.apply(&Step::Insert(0, row(id, "then")));
    }
    let transactions = vec![
        vec![
            Step::Delete(0, row("1", "then")),
            Step::Delete(0, row("2", "then")),
            Step::Delete(0, row("3", "then")),
            Step::Update(0, row("4", "then"), row("4", "bad")),
            Step::Insert(0, row("7", "bad")),
        ],
        vec![
            Step::Insert(0, row("2", "good")),
            Step::Update(0, row("4", "bad"), row("4", "good")),
            Step::Update(0, row("5", "then"), row("5", "good")),
            Step::Insert(0, row("8", "good")),
        ],
    ];
    let ground = Ground::new(&schema_of_one(), base, transactions);
    ground.follow(&[(9, 1 << 20)]);
    let mut live = ground.models[2].clone();
    live.apply(&Step::Insert(0, row("3", "later")));
    (ground, live)
}

/// What becomes of each row, by its id.
fn fates(ground: &Ground, written: &WrittenPlan) -> BTreeMap<String, String> {
    let id = |key: &[u8]| {
        let text = KeyPart::parse_all(key).unwrap()[0].text();
        String::from_utf8(text.to_vec()).unwrap()
    };
    let mut fates = BTreeMap::new();
    for (_, role, bytes, number) in read(ground, "a", written) {
        let by = number.map_or("nobody".to_owned(), |number| number.to_string());
        fates.insert(id(&identity(&bytes)), format!("{role:?} {by}"));
    }
    for conflict in &written.description.tenants[0].conflicts {
        fates.insert(
            id(&conflict.key),
            format!("conflict: {}", conflict.constraint),
        );
    }
    fates
}

fn part(written: &WrittenPlan) -> &TenantPlanDescription {
    &written.description.tenants[0]
}

#[track_caller]
fn check(fates: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    let ids: Vec<&str> = fates.keys().map(String::as_str).collect();
    let expected_ids: Vec<&str> = expected.iter().map(|(id, _)| *id).collect();
    assert_eq!(ids, expected_ids, "{fates:?}");
    for (id, fate) in expected {
        assert!(
            fates[*id].contains(fate),
            "{id}: {} is not {fate}",
            fates[*id]
        );
    }
}

#[test]
fn every_row_of_a_plan_says_what_changed_it_last_and_what_the_log_does_not_know() {
    let (ground, live) = incident();
    let made = make(&ground, "a", (0, &live), Policy::EXACT, &[]).unwrap();
    let written = made.unwrap();
    let expected = [
        ("1", "Created 1"),
        ("2", "PutBackBefore 2"),
        ("3", "PutBackBefore nobody"),
        ("4", "PutBackBefore 2"),
        ("5", "PutBackBefore 2"),
        ("7", "Deleted 1"),
        ("8", "Deleted 2"),
    ];
    check(&fates(&ground, &written), &expected);
    let notes: Vec<(NoteKind, u64)> = part(&written)
        .notes
        .iter()
        .map(|note| (note.kind, note.count))
        .collect();
    let (by, later) = (NoteKind::ChangedBy, NoteKind::ChangedLater);
    assert_eq!(notes, [(by, 4), (by, 2), (later, 1)]);
}

#[test]
fn only_what_one_transaction_changed_goes_back_and_what_others_changed_after_it_is_a_conflict() {
    let (ground, live) = incident();
    let first = ground.base.commit + 10;
    let plan = |on_conflict, only: &[u64]| {
        let policy = Policy {
            on_conflict,
            ..Policy::EXACT
        };
        make(&ground, "a", (0, &live), policy, only)
            .unwrap()
            .unwrap()
    };
    let written = plan(ConflictPolicy::Fail, &[first]);
    let second = (ground.base.commit + 20).to_string();
    let by_second = format!("changed since by commit:{second}");
    let expected = [
        ("1", "Created 1"),
        ("2", by_second.as_str()),
        ("3", "not in the change log"),
        ("4", &by_second),
        ("7", "Deleted 1"),
    ];
    check(&fates(&ground, &written), &expected);
    assert!(is_blocked(written.description.policy, part(&written)));
    let table = &part(&written).tables[0];
    assert_eq!((table.same, table.kept, table.conflicts), (1, 2, 3));

    let written = plan(ConflictPolicy::KeepLive, &[first]);
    check(&fates(&ground, &written), &expected);
    assert!(!is_blocked(written.description.policy, part(&written)));

    let written = plan(ConflictPolicy::TakeSnapshot, &[first]);
    let expected = [
        ("1", "Created 1"),
        ("2", "PutBackBefore 2"),
        ("3", "PutBackBefore nobody"),
        ("4", "PutBackBefore 2"),
        ("7", "Deleted 1"),
    ];
    check(&fates(&ground, &written), &expected);

    // Both transactions: only what came after the log is left, and a switch that is off stays off.
    let policy = Policy {
        delete: Switch::Off,
        ..Policy::EXACT
    };
    let both = [first, ground.base.commit + 20];
    let written = make(&ground, "a", (0, &live), policy, &both).unwrap();
    let expected = [
        ("1", "Created 1"),
        ("2", "PutBackBefore 2"),
        ("3", "not in the change log"),
        ("4", "PutBackBefore 2"),
        ("5", "PutBackBefore 2"),
    ];
    check(&fates(&ground, &written.unwrap()), &expected);
}

#[test]
fn a_transaction_that_the_log_does_not_have_is_refused_with_its_ends_named() {
    let (ground, live) = incident();
    for (point, commit) in [(0, 5), (0, 30), (1, 10), (0, 0)] {
        let only = [ground.base.commit + commit];
        let error = make(&ground, "a", (point, &live), Policy::EXACT, &only).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotRecoverable, "{error}");
        let end = format!("its end, commit:{}", ground.base.commit + 20);
        assert!(error.to_string().contains(&end), "{error}");
    }
}

#[test]
fn rows_of_an_emptied_table_were_changed_by_what_emptied_it() {
    let activity = |text: &str| values(&["a", text]);
    let project = values(&["1", "a", "x"]);
    let mut base = Model::new(&schema());
    base.apply(&Step::Insert(PROJECTS, project.clone()));
    base.apply(&Step::Insert(ACTIVITY, activity("x")));
    base.apply(&Step::Insert(ACTIVITY, activity("x")));
    base.apply(&Step::Insert(ACTIVITY, activity("y")));
    let transactions = vec![
        vec![Step::Delete(ACTIVITY, activity("y"))],
        vec![Step::Truncate(PROJECTS), Step::Truncate(ACTIVITY)],
        vec![
            Step::Insert(ACTIVITY, activity("z")),
            Step::Insert(PROJECTS, project),
        ],
    ];
    let ground = Ground::new(&schema(), base, transactions);
    ground.follow(&[(9, 1 << 20)]);
    let live = &ground.models[3];
    let made = make(&ground, "a", (0, live), Policy::EXACT, &[]).unwrap();
    let said = read(&ground, "a", &made.unwrap());
    let said: Vec<_> = said
        .iter()
        .map(|(table, role, _, by)| (*table, *role, *by))
        .collect();
    let (created, deleted) = (RowRole::Created, RowRole::Deleted);
    let expected = [
        (ACTIVITY, created, Some(2)),
        (ACTIVITY, created, Some(2)),
        (ACTIVITY, created, Some(2)),
        (ACTIVITY, deleted, Some(3)),
    ];
    assert_eq!(said, expected);
    // The project is as it was, whoever wrote it again; all that was emptied comes back.
    let emptied = [ground.base.commit + 20];
    let made = make(&ground, "a", (1, live), Policy::EXACT, &emptied).unwrap();
    let said = read(&ground, "a", &made.unwrap());
    let said: Vec<_> = said
        .iter()
        .map(|(table, role, _, by)| (*table, *role, *by))
        .collect();
    assert_eq!(said, expected[..2]);
}
