//! What must hold while others write.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use reinstate_core::ErrorKind;

use crate::ApplicationChange;
use crate::certification::scenario::{Scenario, entry};
use crate::certification::{Fixture, Violation, captured, ensure, owner, tenant};

/// How long the application's writer gets to finish beside an open merge. One that waits for the
/// merge to end waits longer; both are right.
const BESIDE: Duration = Duration::from_millis(200);
/// How long a refusal may take.
const REFUSAL_MAX: Duration = Duration::from_secs(20);

pub(super) fn a_second_run_on_the_same_tenant_is_locked_out(
    fixture: &dyn Fixture,
) -> Result<(), Violation> {
    let scenario = Scenario::populate(fixture)?;
    let acme = tenant("acme");
    let first = scenario.begin(&acme)?;
    let fingerprint = scenario.fingerprint(&acme)?;
    let (sender, receiver) = mpsc::channel();
    let (fixture, schema, tenant) = (scenario.fixture, &scenario.schema, &acme);
    let answer = std::thread::scope(|scope| {
        scope.spawn(move || {
            let second = fixture.store().begin_merge(tenant, &fingerprint, schema);
            let kind = second.map(|_| ()).map_err(|error| error.kind());
            // Nobody listens any more if the answer came too late.
            let _ = sender.send(kind);
        });
        let answer = receiver.recv_timeout(REFUSAL_MAX);
        drop(first);
        answer
    });
    match answer {
        Ok(Err(ErrorKind::Locked)) => {}
        Ok(Ok(())) => return Err(Violation::new("a second writer of the tenant was opened")),
        Ok(Err(kind)) => return Err(Violation::new(format!("{kind:?} instead of Locked"))),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            return Err(Violation::new(
                "a second writer waits instead of being refused",
            ));
        }
    }
    drop(scenario.begin(&acme)?);
    Ok(())
}

pub(super) fn no_write_of_the_application_is_lost(fixture: &dyn Fixture) -> Result<(), Violation> {
    let mut scenario = Scenario::populate(fixture)?;
    let acme = tenant("acme");
    // Once on a neighbour's row, once on a row of the tenant that is being merged.
    for (job, name) in [(1, "acme2"), (2, "acme")] {
        let number = job.to_string();
        let merged = scenario
            .rows
            .setting(&owner("acme"), &format!("merged {number}"), None);
        let written = scenario
            .rows
            .setting(&owner(name), &format!("written {number}"), Some("w"));
        let mut changes = scenario.changes();
        changes.create(&merged)?;
        let write = [ApplicationChange::Put(written)];
        let mut writer = scenario.begin(&acme)?;
        writer.apply(&changes)?;
        let (sender, receiver) = mpsc::channel();
        let committed = std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = sender.send(fixture.application_write(&write));
            });
            let beside = receiver.recv_timeout(BESIDE);
            let committed = writer.commit(&entry(&acme, job));
            let written = match beside {
                Ok(result) => result,
                Err(_) => receiver.recv().unwrap_or(Ok(())),
            };
            written.map(|()| committed)
        })?;
        match committed {
            Ok(_) => scenario
                .expected
                .write(&scenario.schema, &[ApplicationChange::Put(merged)])?,
            Err(error) => ensure!(
                name == "acme" && matches!(error.kind(), ErrorKind::Contended | ErrorKind::Stale),
                "a write to {name} made a merge of acme end with {:?}: {error}",
                error.kind()
            ),
        }
        scenario.expected.write(&scenario.schema, &write)?;
        captured(scenario.store())?.expect(&scenario.expected, "a store that both wrote to")?;
    }
    Ok(())
}
