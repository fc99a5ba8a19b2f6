//! What a merge must do.

use reinstate_core::{ChangeCounts, ChangeSource, TableName, TenantWriter};

use crate::certification::scenario::{Scenario, entry};
use crate::certification::{
    Contents, Fixture, TENANTS, Violation, captured, ensure, owner, tenant, viewed,
};
use crate::{ApplicationChange, ApplicationRow, Changes};

/// Changes of every kind to the rows that the tenant starts with, and the same for the answer.
fn typical(
    scenario: &Scenario<'_>,
    name: &str,
) -> Result<(Changes, Vec<ApplicationChange>), Violation> {
    let rows = scenario.rows;
    let owner = owner(name);
    let id = |number| scenario.id(name, number);
    let old = scenario.rows_of(name);
    let mut changes = scenario.changes();
    let mut answer = Vec::new();
    for row in [
        rows.project(&owner, id(3), Some("third")),
        rows.issue(&owner, id(4), id(3), Some("new"), None),
        rows.comment(&owner, id(3), id(4), Some("on the new issue")),
        rows.activity(&owner, Some("issue"), Some("created")),
        rows.activity(&owner, Some("issue"), Some("created")),
        rows.setting(&owner, "theme3", Some("")),
    ] {
        changes.create(&row)?;
        answer.push(ApplicationChange::Put(row));
    }
    for (before, after) in [
        (&old[1], rows.project(&owner, id(2), Some("second"))),
        (
            &old[3],
            rows.issue(&owner, id(2), id(2), Some("moved"), None),
        ),
        (
            &old[5],
            rows.comment(&owner, id(1), id(2), Some("moved too")),
        ),
        (&old[12], rows.setting(&owner, "theme", None)),
    ] {
        changes.put_back(before, &after)?;
        answer.push(ApplicationChange::Put(after));
    }
    // The issue, its comment, two of three equal rows, and one more.
    for row in [&old[4], &old[6], &old[7], &old[8], &old[10], &old[13]] {
        changes.delete(row)?;
        answer.push(ApplicationChange::Delete(row.clone()));
    }
    Ok((changes, answer))
}

pub(super) fn a_merge_makes_exactly_its_changes(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    for (job, name) in (1..).zip(TENANTS) {
        let (changes, answer) = typical(&scenario, name)?;
        let tenant = tenant(name);
        let mut writer = scenario.begin(&tenant)?;
        let counted = writer.apply(&changes)?;
        writer.commit(&entry(&tenant, job))?;
        scenario.expected.write(&scenario.schema, &answer)?;
        captured(scenario.store())?.expect(&scenario.expected, "the store after a merge")?;
        let found = viewed(scenario.store().read_view()?.as_ref(), &tenant)?;
        found.expect(&scenario.expected.of(&tenant), "the tenant after a merge")?;
        expect_counts(&scenario, &changes, counted)?;
    }
    Ok(())
}

fn expect_counts(
    scenario: &Scenario<'_>,
    changes: &Changes,
    mut counted: Vec<(TableName, ChangeCounts)>,
) -> Result<(), Violation> {
    let mut planned: Vec<_> = changes
        .tables()
        .iter()
        .map(|&table| {
            (
                scenario.schema.table(table).name.clone(),
                changes.counts(table),
            )
        })
        .collect();
    counted.retain(|(_, counts)| counts.total() > 0);
    planned.sort_by(|left, right| left.0.cmp(&right.0));
    counted.sort_by(|left, right| left.0.cmp(&right.0));
    ensure!(
        planned == counted,
        "the store counted {counted:?} instead of {planned:?}"
    );
    Ok(())
}

pub(super) fn a_transaction_reads_its_own_changes_back(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let acme = tenant("acme");
    let (changes, answer) = typical(&scenario, "acme")?;
    let before = scenario.expected.clone();
    let mut writer = scenario.begin(&acme)?;
    let found = read_back(&scenario, writer.as_mut())?;
    found.expect(&before.of(&acme), "a transaction before its changes")?;
    writer.apply(&changes)?;
    scenario.expected.write(&scenario.schema, &answer)?;
    let found = read_back(&scenario, writer.as_mut())?;
    found.expect(
        &scenario.expected.of(&acme),
        "a transaction after its changes",
    )?;
    let outside = viewed(scenario.store().read_view()?.as_ref(), &acme)?;
    outside.expect(&before.of(&acme), "a view beside an open transaction")
}

fn read_back(
    scenario: &Scenario<'_>,
    writer: &mut dyn TenantWriter,
) -> Result<Contents, Violation> {
    let mut found = Contents::default();
    for (index, table) in scenario.schema.iter() {
        if table.tenancy.is_tenant_owned() {
            let mut rows = writer.read_back(index)?;
            found.add_stream(b"acme", table.name.as_str(), rows.as_mut())?;
        }
    }
    Ok(found)
}

pub(super) fn the_store_counts_what_really_happened(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let rows = scenario.rows;
    let (owner, acme) = (owner("acme"), tenant("acme"));
    let absent = rows.project(&owner, scenario.id("acme", 66), None);
    let mut changes = scenario.changes();
    changes
        .delete(&absent)?
        .delete(&rows.activity(&owner, Some("never"), Some("was")))?
        .delete(&rows.comment(&owner, scenario.id("acme", 2), scenario.id("acme", 3), None))?
        .put_back(
            &rows.setting(&owner, "absent", Some("a")),
            &rows.setting(&owner, "absent", Some("b")),
        )?;
    let mut writer = scenario.begin(&acme)?;
    // Refusing what is not there is as good as counting it right.
    let Ok(counted) = writer.apply(&changes) else {
        return Ok(());
    };
    for (table, counts) in counted {
        let expected = ChangeCounts {
            deleted: u64::from(table.as_str() == "comments"),
            ..ChangeCounts::NONE
        };
        ensure!(
            counts == expected,
            "{table}: counted {counts:?}, but {expected:?} happened"
        );
    }
    Ok(())
}

pub(super) fn duplicates_are_counted_one_by_one(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let (owner, acme) = (owner("acme"), tenant("acme"));
    let row = scenario
        .rows
        .activity(&owner, Some("issue"), Some("viewed"));
    let mut changes = scenario.changes();
    for _ in 0..4 {
        changes.create(&row)?;
    }
    scenario.merge(&acme, &changes, 1)?;
    let put = ApplicationChange::Put(row.clone());
    scenario.expected.write(
        &scenario.schema,
        &[put.clone(), put.clone(), put.clone(), put],
    )?;
    captured(scenario.store())?.expect(&scenario.expected, "four copies more")?;
    let mut changes = scenario.changes();
    changes.delete(&row)?.delete(&row)?;
    scenario.merge(&acme, &changes, 2)?;
    let delete = ApplicationChange::Delete(row);
    scenario
        .expected
        .write(&scenario.schema, &[delete.clone(), delete])?;
    captured(scenario.store())?.expect(&scenario.expected, "two copies less")?;
    let found = viewed(scenario.store().read_view()?.as_ref(), &acme)?;
    found.expect(
        &scenario.expected.of(&acme),
        "a view of what is there five times",
    )
}

pub(super) fn every_value_comes_back_as_it_was(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let (owner, acme) = (owner("acme"), tenant("acme"));
    let long = "long \u{20ac} text\t".repeat(60_000);
    let values = [
        None,
        Some(""),
        Some("\\N"),
        Some("\\"),
        Some("\\.\n"),
        Some("a\tb\nc\rd\u{8}\u{b}\u{c}"),
        Some("'; DROP TABLE issues; --"),
        Some("{\"a\": [1, null]}"),
        Some("\u{1f600}\u{e9}\u{7f}\u{1}"),
        Some("  spaces  "),
        Some(long.as_str()),
    ];
    let mut changes = scenario.changes();
    let mut answer = Vec::new();
    for (number, value) in (100..).zip(values) {
        let id = scenario.id("acme", number);
        let issue = scenario.id("acme", 1);
        for row in [
            scenario.rows.comment(&owner, id, issue, value),
            scenario
                .rows
                .activity(&owner, value.filter(|text| text.len() < 100), value),
            scenario.rows.setting(&owner, &format!("k{number}"), value),
        ] {
            answer.push(ApplicationChange::Put(row));
        }
    }
    for change in &answer {
        changes.create(change.row())?;
    }
    scenario.merge(&acme, &changes, 1)?;
    scenario.expected.write(&scenario.schema, &answer)?;
    captured(scenario.store())?.expect(&scenario.expected, "values that were merged")?;
    // The same rows, written by the application, must look the same to the store.
    let delete = |change: &ApplicationChange| ApplicationChange::Delete(change.row().clone());
    let deletes: Vec<_> = answer.iter().map(delete).collect();
    scenario.write(&deletes)?;
    scenario.write(&answer)?;
    captured(scenario.store())?.expect(&scenario.expected, "values that the application wrote")
}

pub(super) fn a_merge_of_many_batches_is_made_whole(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let (owner, acme) = (owner("acme"), tenant("acme"));
    // So many that a store which treats large merges in a way of their own does so.
    let rows: Vec<ApplicationRow> = (100..1_600)
        .flat_map(|number| {
            let id = scenario.id("acme", number);
            let text = format!("row {number}");
            [
                scenario.rows.project(&owner, id, Some(&text)),
                scenario.rows.activity(&owner, Some("many"), Some(&text)),
            ]
        })
        .collect();
    let mut changes = scenario.changes();
    for row in &rows {
        changes.create(row)?;
    }
    scenario.merge(&acme, &changes, 1)?;
    let answer: Vec<_> = rows.iter().cloned().map(ApplicationChange::Put).collect();
    scenario.expected.write(&scenario.schema, &answer)?;
    captured(scenario.store())?.expect(&scenario.expected, "a merge of 3,000 rows")?;
    let mut changes = scenario.changes();
    let mut answer = Vec::new();
    for row in &rows {
        if row.table == "projects" {
            let mut after = row.clone();
            *after.values.last_mut().expect("BUG: a row without columns") = Some(b"back".to_vec());
            changes.put_back(row, &after)?;
            answer.push(ApplicationChange::Put(after));
        } else {
            changes.delete(row)?;
            answer.push(ApplicationChange::Delete(row.clone()));
        }
    }
    scenario.merge(&acme, &changes, 2)?;
    scenario.expected.write(&scenario.schema, &answer)?;
    captured(scenario.store())?.expect(&scenario.expected, "1,500 rows put back, 1,500 deleted")
}

pub(super) fn a_tenant_can_be_emptied_and_filled_again(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let acme = tenant("acme");
    let rows = scenario.rows_of("acme");
    let mut changes = scenario.changes();
    for row in &rows {
        changes.delete(row)?;
    }
    scenario.merge(&acme, &changes, 1)?;
    let others = scenario.expected.without(&acme);
    captured(scenario.store())?.expect(&others, "a store without acme")?;
    let mut changes = scenario.changes();
    for row in &rows {
        changes.create(row)?;
    }
    scenario.merge(&acme, &changes, 2)?;
    captured(scenario.store())?.expect(&scenario.expected, "a store with acme again")
}

pub(super) fn counters_are_raised_and_never_lowered(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let (owner, acme) = (owner("acme"), tenant("acme"));
    let last_value = || -> Result<Option<i64>, Violation> {
        let view = scenario.store().begin_capture()?;
        let is_it = |name: &str| name.rsplit('.').next() == Some("projects_id_seq");
        let found = view.sequences().iter().find(|value| is_it(&value.name));
        Ok(found.map(|value| value.last_value))
    };
    let mut last = last_value()?;
    let has_counters = fixture.profile().has_counters;
    ensure!(
        last.is_some() == has_counters,
        "the counter of projects is {last:?}"
    );
    for (job, id) in [(1, 1_500_000), (2, 1_400_000), (3, 1_500_001)] {
        let mut changes = scenario.changes();
        changes.create(&scenario.rows.project(&owner, id, None))?;
        let committed = scenario.merge(&acme, &changes, job)?;
        let now = last_value()?;
        let expected = last.map(|last| last.max(id));
        ensure!(
            now == expected,
            "after id {id} the counter is {now:?} instead of {expected:?}"
        );
        let raised = &committed.sequences_raised;
        let count = usize::from(now != last);
        ensure!(
            raised.len() == count,
            "{} counters were raised, not {count}",
            raised.len()
        );
        let right = raised
            .iter()
            .all(|raise| (Some(raise.from), Some(raise.to)) == (last, now));
        ensure!(
            right,
            "the counter was raised from {last:?} to {now:?}, not as in {raised:?}"
        );
        last = now;
    }
    Ok(())
}
