//! What a live store must remember of a merge.

use crate::certification::scenario::{Scenario, entry};
use crate::certification::{Fixture, TENANTS, Violation, ensure, owner, tenant};

pub(super) fn a_commit_is_found_in_the_journal_and_nothing_else_is(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    for (job, name) in (1..).zip(TENANTS) {
        let tenant = tenant(name);
        let expected = entry(&tenant, job);
        let before = scenario.store().journal_entry(expected.job, &tenant)?;
        ensure!(
            before.is_none(),
            "the journal knows a merge of {name} that was not"
        );
        let mut changes = scenario.changes();
        changes.create(&scenario.rows.activity(&owner(name), None, Some("merged")))?;
        scenario.merge(&tenant, &changes, job)?;
        let found = scenario.store().journal_entry(expected.job, &tenant)?;
        ensure!(
            found.as_ref() == Some(&expected),
            "the journal holds {found:?} of {name}"
        );
    }
    for (job, name) in (1..).zip(TENANTS) {
        for other in TENANTS {
            let tenant = tenant(other);
            let found = scenario
                .store()
                .journal_entry(entry(&tenant, job).job, &tenant)?;
            ensure!(
                found.is_some() == (name == other),
                "the journal answers for {other} in the run that merged {name}"
            );
        }
    }
    Ok(())
}

pub(super) fn preparing_again_keeps_the_journal(fixture: &dyn Fixture) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let acme = tenant("acme");
    let fingerprint = scenario.fingerprint(&acme)?;
    scenario.store().prepare()?;
    ensure!(
        scenario.fingerprint(&acme)? == fingerprint,
        "preparing changed a fingerprint"
    );
    let mut changes = scenario.changes();
    changes.create(&scenario.rows.activity(&owner("acme"), None, Some("merged")))?;
    scenario.merge(&acme, &changes, 1)?;
    scenario.store().prepare()?;
    let found = scenario.store().journal_entry(entry(&acme, 1).job, &acme)?;
    ensure!(found.is_some(), "preparing again lost the journal");
    Ok(())
}

pub(super) fn rows_of_a_commit_carry_its_mark_and_no_others_do(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let (rows, acme, mine) = (scenario.rows, tenant("acme"), owner("acme"));
    let old = scenario.rows_of("acme");
    let mut changes = scenario.changes();
    changes
        .create(&rows.project(&mine, scenario.id("acme", 3), None))?
        .create(&rows.comment(&mine, scenario.id("acme", 3), scenario.id("acme", 1), None))?
        .put_back(&old[12], &rows.setting(&mine, "theme", None))?
        .delete(&old[6])?;
    let mark = scenario.merge(&acme, &changes, 1)?.commit_mark;
    let foreign = scenario.store().foreign_rows_written(&acme, &mark)?;
    ensure!(
        foreign == 0,
        "{foreign} rows of others carry the mark of a merge of acme"
    );
    // To anybody else, what the merge wrote is foreign: three rows, or one owner where the store
    // marks owners.
    let seen = scenario
        .store()
        .foreign_rows_written(&tenant("acme2"), &mark)?;
    ensure!(
        (1..=3).contains(&seen),
        "{seen} rows carry the mark of a merge that wrote 3"
    );
    Ok(())
}

pub(super) fn a_commit_is_read_back_as_it_was_answered(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let rows = scenario.rows;
    let mut answers = Vec::new();
    for (job, name) in (1..).zip(TENANTS) {
        let tenant = tenant(name);
        let before = scenario.store().read_view()?.position();
        let mut changes = scenario.changes();
        changes
            .create(&rows.activity(&owner(name), None, Some("merged")))?
            .create(&rows.project(&owner(name), 1_500_000 + i64::from(job), None))?;
        let answer = scenario.merge(&tenant, &changes, job)?;
        let job = entry(&tenant, job).job;
        answers.push((tenant, job, before, answer));
    }
    for (tenant, job, before, answer) in &answers {
        let found = scenario.store().committed(*job, tenant)?;
        let Some(found) = found else {
            return Err(Violation::new(format!(
                "the commit of {tenant} is not known"
            )));
        };
        ensure!(
            found.commit_mark == answer.commit_mark,
            "the mark of {tenant} is read back as {:?}",
            found.commit_mark
        );
        ensure!(
            found.sequences_raised == answer.sequences_raised,
            "the counters raised for {tenant} are read back as {:?}",
            found.sequences_raised
        );
        ensure!(
            (*before..=answer.position).contains(&found.position),
            "the commit of {tenant} is read back at {:?}",
            found.position
        );
        for (other, other_job, _, _) in &answers {
            let found = scenario.store().committed(*other_job, tenant)?;
            ensure!(
                found.is_some() == (other == tenant),
                "a commit of {tenant} is known in the run that merged {other}"
            );
        }
    }
    Ok(())
}
