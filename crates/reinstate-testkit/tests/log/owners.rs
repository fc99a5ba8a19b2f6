//! Rows that an incident gave to a tenant are not newer than the snapshot: whoever had them, had them.

use reinstate::{
    Context, DriftRules, MEMORY_BYTES_MIN, OwnerCheck, PlanRequest, ResourceOptions, Resources,
    RestorePoint, WrittenPlan, extract_all_at, plan,
};
use reinstate_core::{JobId, KeyPart, Policy, Position, Repository, Tenant, Timestamp};

use crate::ground::Ground;
use crate::model::{
    ACTIVITY, COMMENTS, ISSUES, Model, NOTES, PROJECTS, Step, schema, schema_of_one, values,
};

/// What a plan for tenant a says: keys of conflicts by table, and rows deleted by table.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    conflicts: Vec<(u32, String)>,
    deleted: Vec<(u32, u64)>,
}

fn said(conflicts: &[(u32, &str)], deleted: &[(u32, u64)]) -> Said {
    let owned = |(table, key): &(u32, &str)| (*table, (*key).to_owned());
    Said {
        conflicts: conflicts.iter().map(owned).collect(),
        deleted: deleted.to_vec(),
    }
}

/// Plans to bring tenant a back to what it was after so many transactions.
fn make(
    ground: &Ground,
    context: Context<'_>,
    what: (u64, &Model),
    check_owners: OwnerCheck<'_>,
) -> WrittenPlan {
    make_for(&["a"], ground, context, what, check_owners)
}

/// Plans to bring tenants back to what they were after so many transactions.
fn make_for(
    tenants: &[&str],
    ground: &Ground,
    context: Context<'_>,
    (transactions, live): (u64, &Model),
    check_owners: OwnerCheck<'_>,
) -> WrittenPlan {
    let tenants: Vec<Tenant> = tenants
        .iter()
        .map(|name| format!("account:{name}").parse().unwrap())
        .collect();
    let point = RestorePoint {
        position: Position {
            commit: ground.base.commit + 10 * transactions,
            ordinal: 0,
        },
        time: Timestamp::from_micros(0),
    };
    let log = ground.log();
    let images = extract_all_at(context, &ground.repository, &log, point, &tenants).unwrap();
    let images: Vec<_> = images.into_iter().map(Result::unwrap).collect();
    let request = PlanRequest {
        job: JobId::from_bytes([3; 16]),
        repository: ground.repository.id(),
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        check_owners,
        planned_at: Timestamp::from_micros(0),
    };
    let output = ground.repository.create_object().unwrap();
    plan(context, &images, &ground.store(live), &request, output).unwrap()
}

fn read(plan: &WrittenPlan) -> Said {
    let [part] = plan.description.tenants.as_slice() else {
        panic!("a plan for one tenant")
    };
    let mut said = Said::default();
    for conflict in &part.conflicts {
        assert!(
            conflict
                .constraint
                .starts_with("belonged to another tenant"),
            "{conflict:?}"
        );
        let key = KeyPart::parse_all(&conflict.key).unwrap();
        let text = key[0].text();
        said.conflicts
            .push((conflict.table.0, String::from_utf8(text.to_vec()).unwrap()));
    }
    let deletes = part.tables.iter().filter(|table| table.counts.deleted > 0);
    said.deleted = deletes
        .map(|table| (table.table.0, table.counts.deleted))
        .collect();
    said.deleted.sort_unstable();
    said.conflicts.sort_unstable();
    said
}

#[track_caller]
fn check(ground: &Ground, transactions: u64, live: &Model, expected: &Said) {
    let on = OwnerCheck::In(&ground.repository);
    let written = make(ground, ground.context(), (transactions, live), on);
    assert_eq!(read(&written), *expected, "{transactions} transactions");
    assert!(written.owner_bytes_read > 0);
}

/// Projects of a and b, each with an issue, a comment and a note.
fn base() -> Model {
    let mut base = Model::new(&schema());
    for (id, account) in [("1", "a"), ("2", "b"), ("3", "b"), ("4", "b"), ("5", "b")] {
        base.apply(&Step::Insert(PROJECTS, values(&[id, account, "x"])));
        base.apply(&Step::Insert(ISSUES, values(&[id, id, "x"])));
        base.apply(&Step::Insert(COMMENTS, values(&[id, id, "x"])));
        base.apply(&Step::Insert(NOTES, values(&[id, "i", id, "x"])));
    }
    base
}

/// An update of the tenant's column without a condition.
fn give_all_to_a(model: &mut Model) {
    for row in &mut model.tables[PROJECTS as usize] {
        row[1] = Some("a".to_owned());
    }
}

#[test]
fn what_another_tenant_had_in_the_snapshot_is_a_conflict_and_what_is_new_is_deleted() {
    let ground = Ground::new(&schema(), base(), Vec::new());
    let mut live = base();
    give_all_to_a(&mut live);
    live.apply(&Step::Insert(PROJECTS, values(&["9", "a", "new"])));
    live.apply(&Step::Insert(ISSUES, values(&["9", "2", "new"])));
    live.apply(&Step::Insert(ACTIVITY, values(&["a", "new"])));
    let mut expected = said(&[], &[(PROJECTS, 1), (ISSUES, 1), (ACTIVITY, 1)]);
    for table in [PROJECTS, ISSUES, COMMENTS, NOTES] {
        for id in ["2", "3", "4", "5"] {
            expected.conflicts.push((table, id.to_owned()));
        }
    }
    expected.conflicts.sort_unstable();
    check(&ground, 0, &live, &expected);

    // Unless nobody asks: then nobody else's block is read.
    let written = make(&ground, ground.context(), (0, &live), OwnerCheck::Off);
    let all = said(
        &[],
        &[
            (PROJECTS, 5),
            (ISSUES, 5),
            (COMMENTS, 4),
            (ACTIVITY, 1),
            (NOTES, 4),
        ],
    );
    assert_eq!((read(&written), written.owner_bytes_read), (all, 0));
}

#[test]
fn a_tenant_from_which_nothing_is_deleted_costs_no_reading_of_others() {
    let ground = Ground::new(&schema(), base(), Vec::new());
    let mut live = base();
    live.apply(&Step::Delete(COMMENTS, values(&["1", "1", "x"])));
    let on = OwnerCheck::In(&ground.repository);
    let written = make(&ground, ground.context(), (0, &live), on);
    assert_eq!(written.owner_bytes_read, 0);
    assert_eq!(read(&written), Said::default());
}

#[test]
fn keys_that_were_free_at_a_commit_are_nobodys_and_those_taken_by_then_are() {
    let project = |id: &str| values(&[id, "b", "x"]);
    let family = |id: &str| {
        vec![
            Step::Delete(NOTES, values(&[id, "i", id, "x"])),
            Step::Delete(COMMENTS, values(&[id, id, "x"])),
            Step::Delete(ISSUES, values(&[id, id, "x"])),
            Step::Delete(PROJECTS, project(id)),
        ]
    };
    let mut again = family("4");
    again.push(Step::Insert(PROJECTS, project("4")));
    let moved = Step::Update(PROJECTS, project("5"), values(&["5", "c", "x"]));
    let transactions = vec![
        family("3"),
        vec![Step::Insert(PROJECTS, project("7"))],
        again,
        vec![moved],
        vec![Step::Insert(PROJECTS, project("8"))],
    ];
    // In one run, and in several.
    for step in [(9, 1 << 20), (1, 1)] {
        let ground = Ground::new(&schema(), base(), transactions.clone());
        ground.follow(&[step]);
        check_history(&ground);
    }
}

/// Plans to go back to each commit of the history above.
fn check_history(ground: &Ground) {
    // Tenant a takes the free number 3, and then the incident gives it everything.
    let mut live = ground.models[5].clone();
    live.apply(&Step::Insert(PROJECTS, values(&["3", "a", "new"])));
    give_all_to_a(&mut live);
    let children = |ids: &[&str]| -> Vec<(u32, String)> {
        let tables = [ISSUES, COMMENTS, NOTES].into_iter();
        let of = |table| ids.iter().map(move |id| (table, (*id).to_owned()));
        tables.flat_map(of).collect()
    };
    for (transactions, projects, newer) in [
        (0, &["2", "3", "4", "5"][..], 2),
        (1, &["2", "4", "5"], 3),
        (2, &["2", "4", "5", "7"], 2),
        (3, &["2", "4", "5", "7"], 2),
        (4, &["2", "4", "5", "7"], 2),
        (5, &["2", "4", "5", "7", "8"], 1),
    ] {
        let mut expected = said(&[], &[(PROJECTS, newer)]);
        let projects = projects.iter().map(|id| (PROJECTS, (*id).to_owned()));
        expected.conflicts.extend(projects);
        expected.conflicts.extend(children(&["2", "5"]));
        expected.conflicts.sort_unstable();
        check(ground, transactions, &live, &expected);
    }
}

#[test]
fn a_table_that_was_emptied_leaves_its_keys_to_anybody() {
    let row = |id: &str, account: &str| values(&[id, account, "x"]);
    let mut base = Model::new(&schema_of_one());
    base.apply(&Step::Insert(0, row("1", "a")));
    base.apply(&Step::Insert(0, row("2", "b")));
    base.apply(&Step::Insert(0, row("3", "b")));
    let transactions = vec![
        vec![Step::Insert(0, row("4", "b"))],
        vec![
            Step::Truncate(0),
            Step::Insert(0, row("1", "a")),
            Step::Insert(0, row("3", "b")),
        ],
    ];
    let ground = Ground::new(&schema_of_one(), base, transactions);
    ground.follow(&[(9, 1 << 20)]);
    let mut live = Model::new(&schema_of_one());
    for id in ["1", "2", "3", "4"] {
        live.apply(&Step::Insert(0, row(id, "a")));
    }
    let all = [(0, "2"), (0, "3"), (0, "4")];
    check(&ground, 0, &live, &said(&all[..2], &[(0, 1)]));
    check(&ground, 1, &live, &said(&all, &[]));
    check(&ground, 2, &live, &said(&all[1..2], &[(0, 2)]));
}

#[test]
fn more_rows_than_fit_at_once_are_looked_for_in_several_passes() {
    let row = |id: usize, account: &str| {
        let long = "x".repeat(700_000);
        values(&[&id.to_string(), account, &long])
    };
    let mut base = Model::new(&schema_of_one());
    base.apply(&Step::Insert(0, row(0, "a")));
    for id in (1..9).step_by(2) {
        base.apply(&Step::Insert(0, row(id, "b")));
    }
    let ground = Ground::new(&schema_of_one(), base, Vec::new());
    let mut live = Model::new(&schema_of_one());
    for id in 0..9 {
        live.apply(&Step::Insert(0, row(id, "a")));
    }
    let options = ResourceOptions {
        memory_bytes_max: MEMORY_BYTES_MIN,
        ..ResourceOptions::default()
    };
    let small = Resources::try_new(options).unwrap();
    let context = Context {
        resources: &small,
        ..ground.context()
    };
    let on = OwnerCheck::In(&ground.repository);
    let at_once = make(&ground, ground.context(), (0, &live), on);
    let written = make(&ground, context, (0, &live), on);
    // What it takes to open the segment is read once.
    assert!(2 * written.owner_bytes_read > 3 * at_once.owner_bytes_read);
    let expected = said(&[(0, "1"), (0, "3"), (0, "5"), (0, "7")], &[(0, 4)]);
    assert_eq!(read(&written), expected);
    assert_eq!(written.description.tenants, at_once.description.tenants);
}

/// Compares a plan for these tenants with one plan for each. Returns the bytes that were read to find
/// out whose rows were, by the one plan and by the others together.
#[track_caller]
fn check_batch(
    tenants: &[&str],
    ground: &Ground,
    context: Context<'_>,
    what: (u64, &Model),
) -> (u64, u64) {
    let on = OwnerCheck::In(&ground.repository);
    let batch = make_for(tenants, ground, context, what, on);
    let singles = tenants
        .iter()
        .map(|name| make_for(&[name], ground, context, what, on));
    let mut bytes_read = 0;
    let mut parts = Vec::new();
    for single in singles {
        bytes_read += single.owner_bytes_read;
        parts.extend(single.description.tenants);
    }
    assert_eq!(batch.description.tenants, parts);
    (batch.owner_bytes_read, bytes_read)
}

#[test]
fn rows_of_all_tenants_of_a_plan_are_looked_up_in_one_reading() {
    let names = ["a", "b", "c", "d", "e", "f"];
    let row = |id: usize, account: &str| values(&[&id.to_string(), account, &"x".repeat(3000)]);
    let mut base = Model::new(&schema_of_one());
    for id in 0..240 {
        base.apply(&Step::Insert(0, row(id, names[id % 6])));
    }
    // The 6 and 12 are another's by now, and the 18 nobody's.
    let transactions = vec![
        vec![Step::Update(0, row(6, "a"), row(6, "c"))],
        vec![Step::Update(0, row(12, "a"), row(12, "f"))],
        vec![Step::Delete(0, row(18, "a"))],
    ];
    let ground = Ground::new(&schema_of_one(), base, transactions);
    ground.follow(&[(1, 1)]);
    let mut live = Model::new(&schema_of_one());
    for id in 0..240 {
        // Every other row goes to the next tenant; e has none left, d only what it had.
        let moved = names[(id + id / 6 % 2) % 6];
        match (moved, names[id % 6]) {
            ("e", _) | ("d", "c") => {}
            (moved, _) => live.apply(&Step::Insert(0, row(id, moved))),
        }
    }
    for (id, name) in (1000..).zip(["a", "a", "b", "c", "f"]) {
        live.apply(&Step::Insert(0, row(id, name)));
    }
    for transactions in 0..=3 {
        let what = (transactions, &live);
        let (at_once, one_by_one) = check_batch(&names, &ground, ground.context(), what);
        assert!(
            0 < at_once && 3 * at_once < one_by_one,
            "{at_once} bytes at once, {one_by_one} one by one"
        );
    }
}

#[test]
fn rows_of_many_tenants_that_do_not_fit_at_once_are_looked_for_in_several_readings() {
    let row = |id: usize, account: &str| {
        let long = "x".repeat(700_000);
        values(&[&id.to_string(), account, &long])
    };
    let names = ["a", "b", "c"];
    let mut base = Model::new(&schema_of_one());
    for id in 0..9 {
        base.apply(&Step::Insert(0, row(id, names[id % 3])));
    }
    let ground = Ground::new(&schema_of_one(), base, Vec::new());
    let mut live = Model::new(&schema_of_one());
    for id in 0..18 {
        live.apply(&Step::Insert(0, row(id, names[(id + 1) % 3])));
    }
    let options = ResourceOptions {
        memory_bytes_max: MEMORY_BYTES_MIN,
        ..ResourceOptions::default()
    };
    let small = Resources::try_new(options).unwrap();
    let context = Context {
        resources: &small,
        ..ground.context()
    };
    check_batch(&names, &ground, context, (0, &live));
    check_batch(&names, &ground, ground.context(), (0, &live));
}
