//! What a live view must hold.

use reinstate_core::{RowBatch, RowOrder, RowRole, TableIndex, compare_rows};

use super::capture::{BATCH_BYTES_MAX, write_much};
use crate::certification::observe::encoded;
use crate::certification::scenario::Scenario;
use crate::certification::{Fixture, TENANTS, Violation, ensure, owner, tenant, viewed};
use crate::{ApplicationChange, ApplicationRow, KeySpace};

pub(super) fn a_view_holds_exactly_the_rows_of_the_tenant(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let view = scenario.store().read_view()?;
    for name in TENANTS {
        let tenant = tenant(name);
        let found = viewed(view.as_ref(), &tenant)?;
        found.expect(&scenario.expected.of(&tenant), "a view")?;
    }
    let nobody = tenant("acm");
    let found = viewed(view.as_ref(), &nobody)?.row_count();
    ensure!(found == 0, "a tenant without rows has {found}");
    Ok(())
}

pub(super) fn a_view_stays_at_its_position(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let acme = tenant("acme");
    let before = scenario.expected.of(&acme);
    let view = scenario.store().read_view()?;
    let (position, fingerprint) = (view.position(), view.fingerprint(&acme)?);
    let rows = scenario.rows_of("acme");
    scenario.write(&[
        ApplicationChange::Delete(rows[5].clone()),
        ApplicationChange::Put(rows[7].clone()),
        ApplicationChange::Put(scenario.rows.setting(&owner("acme"), "new", None)),
    ])?;
    viewed(view.as_ref(), &acme)?.expect(&before, "a view that was opened before a write")?;
    ensure!(
        view.fingerprint(&acme)? == fingerprint,
        "the fingerprint of an open view changed"
    );
    ensure!(
        view.position() == position,
        "the position of an open view changed"
    );
    Ok(())
}

pub(super) fn rows_come_in_the_order_that_the_view_claims(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let owner = owner("acme");
    let ids = [30, 4, 200, 11, 5, 100];
    let mut changes: Vec<_> = ids
        .iter()
        .map(|number| {
            scenario
                .rows
                .project(&owner, scenario.id("acme", *number), None)
        })
        .map(ApplicationChange::Put)
        .collect();
    for name in ["b", "", "ab", "a", "a b", "B"] {
        changes.push(ApplicationChange::Put(
            scenario.rows.setting(&owner, name, None),
        ));
    }
    scenario.write(&changes)?;
    let view = scenario.store().read_view()?;
    for (index, table) in view.schema().iter() {
        if !table.tenancy.is_tenant_owned() {
            continue;
        }
        let mut stream = view.tenant_rows(&tenant("acme"), index)?;
        let (mut batch, mut all) = (RowBatch::new(), RowBatch::new());
        while stream.next_batch(&mut batch)? {
            batch.iter().for_each(|row| all.push_row(row));
        }
        drop(stream);
        let sorted = all
            .iter()
            .is_sorted_by(|left, right| compare_rows(*left, *right).is_le());
        let claimed = view.row_order() == RowOrder::Sorted;
        ensure!(
            sorted || !claimed,
            "rows of {} are not sorted as claimed",
            table.name
        );
    }
    viewed(view.as_ref(), &tenant("acme"))?.expect(
        &scenario.expected.of(&tenant("acme")),
        "a view of rows written out of order",
    )
}

pub(super) fn a_view_hands_out_bounded_batches(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    write_much(&mut scenario)?;
    let view = scenario.store().read_view()?;
    let mut stream = view.tenant_rows(&tenant("acme"), table(&scenario, "activity")?)?;
    let mut batch = RowBatch::new();
    let mut row_count = 0;
    while stream.next_batch(&mut batch)? {
        ensure!(!batch.is_empty(), "a stream went on with an empty batch");
        let bytes = batch.as_bytes().len();
        ensure!(
            bytes <= BATCH_BYTES_MAX,
            "a batch of {bytes} bytes; at most {BATCH_BYTES_MAX}"
        );
        row_count += batch.len();
    }
    ensure!(batch.is_empty(), "a stream ended with rows in its batch");
    let expected = scenario.expected.of(&tenant("acme")).rows_in("activity");
    ensure!(row_count == expected, "{row_count} rows of {expected}");
    Ok(())
}

/// Changes of one tenant, one after the other, each of another kind.
fn steps(scenario: &Scenario<'_>) -> Vec<(&'static str, ApplicationChange)> {
    let rows = scenario.rows;
    let owner = owner("acme");
    let id = |number| scenario.id("acme", number);
    let first = id(1);
    let put = ApplicationChange::Put;
    vec![
        ("a new row", put(rows.project(&owner, id(50), None))),
        (
            "another text of the same length",
            put(rows.project(&owner, first, Some("fIrst"))),
        ),
        (
            "NULL instead of a text",
            put(rows.project(&owner, first, None)),
        ),
        (
            "an empty text instead of NULL",
            put(rows.project(&owner, first, Some(""))),
        ),
        (
            "a row without a key once more",
            put(rows.activity(&owner, Some("issue"), Some("viewed"))),
        ),
        (
            "a row without a key once less",
            ApplicationChange::Delete(rows.activity(&owner, Some("issue"), Some("viewed"))),
        ),
        (
            "another comment",
            put(rows.comment(&owner, first, first, Some("see below"))),
        ),
        (
            "a deleted comment",
            ApplicationChange::Delete(rows.comment(&owner, id(2), first, None)),
        ),
        (
            "another setting",
            put(rows.setting(&owner, "theme", Some("none"))),
        ),
    ]
}

pub(super) fn a_fingerprint_changes_with_every_change_of_the_tenant(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let rows = scenario.rows;
    let owner = owner("acme");
    let steps = steps(&scenario);
    let acme = tenant("acme");
    let mut seen = vec![scenario.fingerprint(&acme)?];
    ensure!(
        seen[0] == scenario.fingerprint(&acme)?,
        "two fingerprints without a change differ"
    );
    for (what, change) in steps {
        scenario.write(&[change])?;
        let now = scenario.fingerprint(&acme)?;
        ensure!(
            seen.last() != Some(&now),
            "the fingerprint did not change with {what}"
        );
        seen.push(now);
    }
    let mut changes = scenario.changes();
    changes.create(&rows.activity(&owner, Some("merge"), None))?;
    scenario.merge(&acme, &changes, 1)?;
    let now = scenario.fingerprint(&acme)?;
    ensure!(
        seen.last() != Some(&now),
        "the fingerprint did not change with a merge"
    );
    Ok(())
}

pub(super) fn a_fingerprint_does_not_change_with_other_tenants(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let acme = tenant("acme");
    let before = scenario.fingerprint(&acme)?;
    for name in &TENANTS[1..] {
        let rows = scenario.rows_of(name);
        let more = scenario
            .rows
            .project(&owner(name), scenario.id(name, 50), None);
        scenario.write(&[
            ApplicationChange::Delete(rows[5].clone()),
            ApplicationChange::Put(rows[7].clone()),
            ApplicationChange::Put(more),
            ApplicationChange::Put(scenario.rows.currency("XTS", name)),
        ])?;
        let mut changes = scenario.changes();
        changes.create(&scenario.rows.activity(&owner(name), Some("merge"), None))?;
        scenario.merge(&tenant(name), &changes, 1)?;
        ensure!(
            scenario.fingerprint(&acme)? == before,
            "the fingerprint of acme changed when {name} was written to"
        );
    }
    Ok(())
}

pub(super) fn keys_held_by_others_are_named_and_no_others(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let view = scenario.store().read_view()?;
    let rows = scenario.rows;
    let acme = owner("acme");
    let neighbour = |number| rows.project(&acme, scenario.id("acme2", number), Some("mine"));
    let candidates: [(ApplicationRow, bool); 4] = [
        (
            rows.project(&acme, scenario.id("acme", 1), Some("own")),
            false,
        ),
        (
            rows.project(&acme, scenario.id("acme", 99), Some("free")),
            false,
        ),
        (neighbour(1), true),
        (neighbour(2), true),
    ];
    let global = fixture.profile().key_space == KeySpace::Global;
    let index = table(&scenario, "projects")?;
    let mut batch = RowBatch::new();
    let mut expected = Vec::new();
    for (row, is_held) in &candidates {
        row.encode(scenario.schema.table(index), &mut batch)?;
        if *is_held && global {
            expected.push(encoded(&scenario.schema, row)?.0);
        }
    }
    let held = view.held_by_others(&tenant("acme"), index, RowRole::Created, &batch)?;
    let mut found: Vec<_> = held.iter().map(|held| held.key.clone()).collect();
    found.sort();
    found.dedup();
    expected.sort();
    ensure!(
        found == expected,
        "{} keys are held by others, not {}",
        found.len(),
        expected.len()
    );
    ensure!(
        held.iter().all(|held| !held.constraint.is_empty()),
        "a held key says not by what"
    );
    let index = table(&scenario, "activity")?;
    let mut batch = RowBatch::new();
    let row = rows.activity(&acme, Some("issue"), Some("viewed"));
    row.encode(scenario.schema.table(index), &mut batch)?;
    let held = view.held_by_others(&tenant("acme"), index, RowRole::Created, &batch)?;
    ensure!(
        held.is_empty(),
        "a table without a key holds {} keys",
        held.len()
    );
    Ok(())
}

pub(super) fn table(scenario: &Scenario<'_>, name: &str) -> Result<TableIndex, Violation> {
    let found = scenario.schema.find(name).map(|(index, _)| index);
    found.ok_or_else(|| Violation::new(format!("there is no table {name}")))
}
