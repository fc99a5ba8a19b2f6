//! What must be true of the engine on any store, whatever happened there.

use std::sync::Arc;

use reinstate::Verdict;
use reinstate_core::{ChangeCounts, ErrorKind, Policy, SnapshotDescription};

pub(super) use super::batch::a_batch_is_planned_as_singles_are;
use super::history::{Application, History};
use super::oracle::{answer, difference, is_closed};
use super::run::{Engine, MEMORY_BYTES, succeeded};
use crate::KeySpace;
use crate::certification::{Contents, Fixture, Violation, captured, ensure, tenant};

/// A store with a history behind it and a snapshot in the middle of it.
pub(super) struct Story<'f> {
    pub(super) engine: Engine<'f>,
    pub(super) snapshot: Arc<SnapshotDescription>,
    then: Contents,
    now: Contents,
}

impl<'f> Story<'f> {
    pub(super) fn tell(fixture: &'f dyn Fixture, history: &History) -> Result<Self, Violation> {
        let engine = Engine::new(fixture)?;
        let mut application = Application::new(fixture.profile());
        fixture.application_write(&application.start())?;
        fixture.application_write(&application.run(&history.before))?;
        fixture.application_write(&application.settle())?;
        let then = captured(engine.store)?;
        let snapshot = engine.capture(1)?;
        fixture.application_write(&application.run(&history.after))?;
        let now = captured(engine.store)?;
        Ok(Self {
            engine,
            snapshot,
            then,
            now,
        })
    }

    fn contents(&self) -> Result<Contents, Violation> {
        Ok(captured(self.engine.store)?)
    }
}

/// Whatever a restore does or refuses to do, nobody but the restored tenants changes.
pub(super) fn other_tenants_keep_every_byte(
    fixture: &dyn Fixture,
    history: &History,
) -> Result<(), Violation> {
    let story = Story::tell(fixture, history)?;
    let names = history.restored();
    let outcomes = story
        .engine
        .restore(&story.snapshot, &names, history.policy(), 1)?;
    ensure!(outcomes.len() == names.len(), "{} outcomes", outcomes.len());
    let (mut before, mut after) = (story.now.clone(), story.contents()?);
    for name in names {
        before = before.without(&tenant(name));
        after = after.without(&tenant(name));
    }
    after.expect(&before, "the tenants that were not restored")?;
    for outcome in outcomes {
        let verdict = outcome.result.as_ref().map(|restored| &restored.verdict);
        let violated = matches!(verdict, Ok(Verdict::IsolationViolated(_)));
        ensure!(
            !violated,
            "a restore of {} says that it hit others",
            outcome.tenant
        );
    }
    Ok(())
}

/// A tenant that was just restored has nothing left to restore.
pub(super) fn a_second_restore_writes_nothing(
    fixture: &dyn Fixture,
    history: &History,
) -> Result<(), Violation> {
    let story = Story::tell(fixture, history)?;
    let names = history.restored();
    let first = story
        .engine
        .restore(&story.snapshot, &names, history.policy(), 1)?;
    let between = story.contents()?;
    let second = story
        .engine
        .restore(&story.snapshot, &names, history.policy(), 2)?;
    let after = story.contents()?;
    for (first, second) in first.into_iter().zip(second) {
        // A tenant that was refused may find its places free now.
        if first.result.is_err() {
            continue;
        }
        let tenant = &second.tenant;
        let restored = second.result?;
        let rows = restored.receipt.changed_rows();
        ensure!(
            rows == 0,
            "a second restore of {tenant} changed {rows} rows"
        );
        ensure!(
            restored.receipt.committed.is_none(),
            "nothing to write was committed"
        );
        let before = between.of(tenant);
        after
            .of(tenant)
            .expect(&before, "a tenant after a second restore")?;
    }
    Ok(())
}

/// Undoing a restore gives back every byte that was there before it, and undoing the undo the
/// rest.
pub(super) fn undo_gives_back_every_byte(
    fixture: &dyn Fixture,
    history: &History,
) -> Result<(), Violation> {
    let story = Story::tell(fixture, history)?;
    let names = history.restored();
    let outcomes = story
        .engine
        .restore(&story.snapshot, &names, history.policy(), 1)?;
    let restored = story.contents()?;
    let changed = |outcome: &reinstate::TenantOutcome| {
        let result = outcome.result.as_ref();
        result.is_ok_and(|restored| restored.receipt.committed.is_some())
    };
    if !outcomes.iter().any(changed) {
        let error = story.engine.undo(1, Policy::EXACT, 2).err();
        let kind = error.map(|error| error.kind());
        ensure!(
            kind == Some(ErrorKind::NotFound),
            "undo of nothing ended with {kind:?}"
        );
        return story
            .contents()?
            .expect(&story.now, "a store where nothing was restored");
    }
    let undo = story.engine.undo(1, Policy::EXACT, 2)?;
    for (tenant, undone) in succeeded(story.engine.apply(&undo)?)? {
        let is_restored = undone.verdict.is_restored();
        ensure!(is_restored, "undo of {tenant}: {:?}", undone.verdict);
    }
    story
        .contents()?
        .expect(&story.now, "the store after an undo")?;
    let redo = story.engine.undo(2, Policy::EXACT, 3)?;
    succeeded(story.engine.apply(&redo)?)?;
    story
        .contents()?
        .expect(&restored, "the store after an undone undo")
}

/// What a plan says, what the store counts and what really changed are one.
pub(super) fn what_is_planned_is_what_changes(
    fixture: &dyn Fixture,
    history: &History,
) -> Result<(), Violation> {
    let story = Story::tell(fixture, history)?;
    let names = history.restored();
    let plan = story
        .engine
        .plan(&story.snapshot, &names, history.policy(), 1)?;
    story
        .contents()?
        .expect(&story.now, "the store after a plan was made")?;
    let outcomes = story.engine.apply(&plan)?;
    let after = story.contents()?;
    let schema = &plan.description.schema;
    for outcome in outcomes {
        let tenant = &outcome.tenant;
        let Ok(restored) = outcome.result else {
            let untouched = story.now.of(tenant);
            after
                .of(tenant)
                .expect(&untouched, "a tenant that was refused")?;
            continue;
        };
        let part = plan
            .description
            .tenants
            .iter()
            .find(|part| part.tenant == *tenant);
        let part = part.ok_or_else(|| Violation::new(format!("{tenant} is not in the plan")))?;
        for (index, table) in schema
            .iter()
            .filter(|(_, table)| table.tenancy.is_tenant_owned())
        {
            let really = difference(&story.now, &after, tenant, table);
            let planned = part.tables.iter().find(|plan| plan.table == index);
            let planned = planned.map_or(ChangeCounts::NONE, |plan| plan.counts);
            let applied = restored
                .receipt
                .applied
                .iter()
                .find(|(of, ..)| *of == index);
            let applied = applied.map_or(ChangeCounts::NONE, |(_, _, counts)| *counts);
            ensure!(
                planned == really && applied == really,
                "{} of {tenant}: planned {planned:?}, applied {applied:?}, changed {really:?}",
                table.name
            );
        }
    }
    Ok(())
}

/// For any switches, a restore leaves exactly what a simple program says it should.
pub(super) fn a_restore_leaves_what_the_oracle_says(
    fixture: &dyn Fixture,
    history: &History,
) -> Result<(), Violation> {
    let story = Story::tell(fixture, history)?;
    let profile = fixture.profile();
    let policy = history.policy();
    let is_exact = policy == Policy::EXACT;
    let keys_are_global = profile.key_space == KeySpace::Global;
    for (job, name) in (1..).zip(history.restored()) {
        let tenant = tenant(name);
        let before = story.contents()?;
        let schema = &story.snapshot.schema;
        let answer = answer(
            schema,
            &story.then,
            &before,
            &tenant,
            policy,
            keys_are_global,
        );
        let others = before.without(&tenant);
        let checks = profile.checks_references;
        let is_closed = is_closed(schema, &others, &answer.contents, &tenant, checks);
        let outcome = story
            .engine
            .restore(&story.snapshot, &[name], policy, job)?;
        let outcome = outcome.into_iter().next();
        let outcome = outcome.ok_or_else(|| Violation::new("a restore has no outcome"))?;
        let after = story.contents()?.of(&tenant);
        match outcome.result {
            Ok(restored) => {
                ensure!(
                    answer.held == 0,
                    "{} rows are held, and left out",
                    answer.held
                );
                after.expect(&answer.contents, "a restored tenant")?;
                let proven = restored.verdict.is_restored();
                ensure!(proven, "a verdict without proof: {:?}", restored.verdict);
                if is_exact {
                    after.expect(&story.then.of(&tenant), "a tenant restored as it was")?;
                }
            }
            Err(error) => {
                let kind = error.kind();
                let right = matches!(kind, ErrorKind::Conflict | ErrorKind::Refused);
                let allowed = answer.held > 0 || !is_closed;
                let violation = Violation::from(error);
                ensure!(allowed, "a restore that should succeed: {violation}");
                ensure!(right, "a restore that should conflict: {violation}");
                after.expect(&before.of(&tenant), "a tenant whose restore was refused")?;
            }
        }
    }
    Ok(())
}

/// Threads and memory decide how long it takes and nothing else.
pub(super) fn threads_and_memory_change_nothing(
    fixture: &dyn Fixture,
    history: &History,
) -> Result<(), Violation> {
    let story = Story::tell(fixture, history)?;
    let names = history.restored();
    let engines = [(1, 1), (2, 1), (3, 2), (4, 4)];
    let mut seen = None;
    for (threads, memory) in engines {
        let engine = Engine::with(fixture.store(), threads, memory * MEMORY_BYTES)?;
        let snapshot = engine.capture(2)?;
        let mut images = Vec::new();
        for name in &names {
            match reinstate::extract(&engine.repository, &snapshot, &engine.tenant(name)) {
                Ok(image) => images.push(Some(image.digest())),
                Err(error) if error.kind() == ErrorKind::NotFound => images.push(None),
                Err(error) => return Err(error.into()),
            }
        }
        // The plan of the first snapshot, read by an engine that has other threads.
        let old = engine.with_repository(story.engine.repository.clone());
        let plan = old.plan(&story.snapshot, &names, history.policy(), 9)?;
        // Not the plan's digest: it covers the store's clock and position, which others move.
        let plan = plan.description;
        let found = (snapshot.totals.clone(), images, plan.segment, plan.tenants);
        let first = seen.get_or_insert_with(|| found.clone());
        ensure!(
            *first == found,
            "{threads} threads and {memory} times the least memory differ"
        );
    }
    Ok(())
}
