//! What a live store must refuse, and that refusing changes nothing.

use reinstate_core::{ErrorKind, StoreSchema, TableSchema};

use crate::certification::scenario::{Scenario, entry, error_of};
use crate::certification::{Fixture, Flavour, Violation, captured, ensure, owner, tenant};
use crate::{ApplicationChange, KeySpace};

/// What a migration did to a table.
type Migration<'a> = &'a dyn Fn(&mut TableSchema);

pub(super) fn a_writer_that_is_dropped_leaves_nothing(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let (owner, acme) = (owner("acme"), tenant("acme"));
    let fingerprint = scenario.fingerprint(&acme)?;
    let rows = scenario.rows_of("acme");
    let mut changes = scenario.changes();
    changes
        .create(&scenario.rows.project(&owner, scenario.id("acme", 9), None))?
        .delete(&rows[5])?
        .delete(&rows[7])?;
    let mut writer = scenario.begin(&acme)?;
    writer.apply(&changes)?;
    drop(writer);
    captured(scenario.store())?.expect(&scenario.expected, "a store after a dropped writer")?;
    ensure!(
        scenario.fingerprint(&acme)? == fingerprint,
        "a dropped writer left another fingerprint"
    );
    let entry = scenario.store().journal_entry(entry(&acme, 1).job, &acme)?;
    ensure!(entry.is_none(), "a dropped writer left a journal entry");
    scenario.merge(&acme, &changes, 2)?;
    Ok(())
}

pub(super) fn a_tenant_that_changed_is_refused(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let acme = tenant("acme");
    let planned = scenario.fingerprint(&acme)?;
    let neighbour = scenario
        .rows
        .setting(&owner("acme2"), "theme", Some("loud"));
    scenario.write(&[ApplicationChange::Put(neighbour)])?;
    drop(
        scenario
            .store()
            .begin_merge(&acme, &planned, &scenario.schema)?,
    );
    let own = scenario.rows.setting(&owner("acme"), "theme", Some("loud"));
    scenario.write(&[ApplicationChange::Put(own)])?;
    let result = scenario
        .store()
        .begin_merge(&acme, &planned, &scenario.schema);
    let error = error_of(result, "a plan for a tenant that changed")?;
    ensure!(
        error.kind() == ErrorKind::Stale,
        "{:?} instead of Stale: {error}",
        error.kind()
    );
    captured(scenario.store())?.expect(&scenario.expected, "a store after a refusal")
}

pub(super) fn tables_that_changed_are_refused(fixture: &dyn Fixture) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let acme = tenant("acme");
    let planned = scenario.fingerprint(&acme)?;
    let renamed = |table: &mut TableSchema| "before".clone_into(&mut table.columns[1].name);
    let retyped = |table: &mut TableSchema| "citext".clone_into(&mut table.columns[1].type_name);
    let other_key = |table: &mut TableSchema| table.key = vec![];
    let looser = |table: &mut TableSchema| table.columns[1].nullable ^= true;
    let changes: [(&str, Migration<'_>); 4] = [
        ("a renamed column", &renamed),
        ("a column of another type", &retyped),
        ("another key", &other_key),
        ("a column that may now be NULL", &looser),
    ];
    for (what, change) in changes {
        let mut tables = scenario.schema.tables().to_vec();
        let settings = tables
            .iter_mut()
            .find(|table| table.name.as_str() == "settings");
        change(settings.ok_or_else(|| Violation::new("there is no table settings"))?);
        let schema = StoreSchema::try_new(tables)
            .map_err(|error| Violation::new(format!("BUG: {what}: {error}")))?;
        let result = scenario.store().begin_merge(&acme, &planned, &schema);
        let error = error_of(result, what)?;
        ensure!(
            error.kind() == ErrorKind::Stale,
            "{what}: {:?}: {error}",
            error.kind()
        );
    }
    drop(
        scenario
            .store()
            .begin_merge(&acme, &planned, &scenario.schema)?,
    );
    Ok(())
}

pub(super) fn a_taken_key_is_refused_or_counted_as_replaced(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let (owner, acme) = (owner("acme"), tenant("acme"));
    let own = scenario
        .rows
        .project(&owner, scenario.id("acme", 1), Some("usurper"));
    let foreign = scenario
        .rows
        .project(&owner, scenario.id("acme2", 1), Some("usurper"));
    let candidates: &[_] = match fixture.profile().key_space {
        KeySpace::Global => &[("an own key", own), ("a neighbour's key", foreign)],
        KeySpace::PerTenant => &[("an own key", own)],
    };
    for (what, row) in candidates {
        let mut changes = scenario.changes();
        changes
            .create(row)?
            .create(&scenario.rows.activity(&owner, Some("with"), Some("it")))?;
        let mut writer = scenario.begin(&acme)?;
        match writer.apply(&changes) {
            Err(error) => {
                // Both are true: the place is taken, and a plan that did not see it is stale.
                let kind = error.kind();
                let right = matches!(kind, ErrorKind::Conflict | ErrorKind::Stale);
                ensure!(right, "{what}: {kind:?}: {error}");
            }
            // The engine compares the counts with its plan, which says that a row is created.
            Ok(counted) => {
                let projects = counted.iter().find(|(name, _)| name.as_str() == "projects");
                let created = projects.map_or(0, |(_, counts)| counts.created);
                ensure!(
                    created == 0,
                    "{what}: a row was counted as created in its place"
                );
            }
        }
        drop(writer);
        captured(scenario.store())?.expect(&scenario.expected, "a store after a conflict")?;
    }
    Ok(())
}

pub(super) fn a_row_of_a_neighbour_cannot_be_written(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let rows = scenario.rows;
    let acme = tenant("acme");
    let mine = owner("acme");
    let theirs = owner("acme2");
    let id = |number| scenario.id("acme2", number);
    // Where keys are per tenant, the neighbour's key names an own row instead: only rows that the
    // tenant does not have tell the two apart.
    let mut cases = vec![scenario.changes(), scenario.changes()];
    if fixture.profile().key_space == KeySpace::Global {
        let neighbour = scenario.rows_of("acme2");
        cases[0].delete(&neighbour[5])?.delete(&neighbour[12])?;
        cases[1].put_back(
            &neighbour[0],
            &rows.project(&mine, id(1), Some("taken over")),
        )?;
    }
    if rows.flavour == Flavour::Columns {
        let mut created = scenario.changes();
        created.create(&rows.project(&theirs, id(88), None))?;
        let mut smuggled = scenario.changes();
        smuggled.create(&rows.comment(&mine, id(88), id(1), Some("under their issue")))?;
        let mut unowned = scenario.changes();
        unowned.create(&rows.project(&reinstate_core::Owner::Shared, id(87), None))?;
        let mut given_away = scenario.changes();
        let own = &scenario.rows_of("acme")[0];
        let away = rows.project(&theirs, scenario.id("acme", 1), Some("given away"));
        given_away.put_back(own, &away)?;
        let mut keyless = scenario.changes();
        keyless.delete(&rows.activity(&theirs, None, Some("")))?;
        cases.extend([created, smuggled, unowned, given_away, keyless]);
    }
    let mut shared = scenario.changes();
    shared.delete(&rows.currency("XTS", ""))?;
    cases.push(shared);
    for changes in &cases {
        let mut writer = scenario.begin(&acme)?;
        // The engine compares these counts with its plan: whatever is counted must be own.
        if writer.apply(changes).is_ok() {
            let _ = writer.commit(&entry(&acme, 1));
        }
        let found = captured(scenario.store())?;
        let others = scenario.expected.without(&acme);
        found.without(&acme).expect(&others, "the neighbours")?;
        found
            .of(&acme)
            .expect(&scenario.expected.of(&acme), "the tenant")?;
    }
    Ok(())
}
