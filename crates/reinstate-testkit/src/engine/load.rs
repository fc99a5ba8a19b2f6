//! Many tenants restored again and again, while others write: nobody else's row changes, and nothing
//! that was acknowledged to a writer is lost.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use reinstate_core::{Owner, Policy};

use super::run::{Engine, MEMORY_BYTES, succeeded};
use crate::certification::{Fixture, Rows, Violation, captured, ensure, owner};
use crate::{ApplicationChange, ApplicationRow};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Tenants in the store.
    pub tenants: usize,
    /// Of these, those that are hit and restored, all of them in every run.
    pub restored: usize,
    /// Threads that write to the others, each to its own.
    pub writers: usize,
    /// How often.
    pub runs: u64,
    /// How long each waits after a transaction: as busy as a service, not as a machine can be.
    pub pause: Duration,
}

/// What happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadReport {
    /// Merges that were proven.
    pub restores: u64,
    /// Transactions of writers that were acknowledged, each in a ledger.
    pub acknowledged: u64,
}

/// What one writer was told is done, in the order in which it was.
#[derive(Debug, Default)]
struct Ledger(Vec<ApplicationChange>);

/// Restores under load on a new store of a fixture.
///
/// # Errors
/// The first promise that was broken.
///
/// # Panics
/// If a writer's thread does.
pub fn try_load<F: Fixture>(load: Load) -> Result<LoadReport, Violation> {
    let fixture = F::create();
    let profile = fixture.profile();
    let rows = Rows {
        flavour: profile.flavour,
        key_space: profile.key_space,
    };
    let engine = Engine::with(fixture.store(), 1, MEMORY_BYTES)?;
    let names: Vec<String> = (0..load.tenants)
        .map(|number| format!("t{number:04}"))
        .collect();
    fixture.application_write(&[ApplicationChange::Put(rows.currency("EUR", "euro"))])?;
    for (group, names) in names.chunks(50).enumerate() {
        let first = group * 50;
        let of_all = names.iter().enumerate();
        let changes: Vec<ApplicationChange> = of_all
            .flat_map(|(index, name)| rows_of(rows, &owner(name), first + index))
            .map(ApplicationChange::Put)
            .collect();
        fixture.application_write(&changes)?;
    }
    let snapshot = engine.capture(1)?;
    let before = captured(fixture.store())?;
    let (hit, others) = names.split_at(load.restored);
    let stop = AtomicBool::new(false);
    let mut report = LoadReport::default();
    let ledgers = thread::scope(|scope| {
        let share = others.len().div_ceil(load.writers);
        let writers: Vec<_> = others
            .chunks(share)
            .map(|own| scope.spawn(|| write_until_stopped(&fixture, rows, own, load.pause, &stop)))
            .collect();
        let mut restore_all = || -> Result<(), Violation> {
            for run in 0..load.runs {
                hit_all(&fixture, rows, hit, run)?;
                let hit: Vec<&str> = hit.iter().map(String::as_str).collect();
                let job = u8::try_from(run + 2).map_err(|_| Violation::new("too many runs"))?;
                let outcomes = engine.restore(&snapshot, &hit, Policy::EXACT, job)?;
                for (tenant, restored) in succeeded(outcomes)? {
                    ensure!(
                        restored.verdict.is_restored(),
                        "{tenant}: {:?}",
                        restored.verdict
                    );
                    report.restores += 1;
                }
            }
            Ok(())
        };
        let restored = restore_all();
        stop.store(true, Ordering::SeqCst);
        let ledgers: Result<Vec<Ledger>, Violation> = writers
            .into_iter()
            .map(|writer| writer.join().expect("a writer's thread"))
            .collect();
        restored.and(ledgers)
    })?;
    let mut expected = before;
    for ledger in &ledgers {
        report.acknowledged += ledger.0.len() as u64;
        expected.write(&snapshot.schema, &ledger.0)?;
    }
    ensure!(report.acknowledged > 0, "nobody wrote");
    captured(fixture.store())?.expect(&expected, "the store after all restores")?;
    Ok(report)
}

/// The rows of a tenant, with keys that no other has.
fn rows_of(rows: Rows, owner: &Owner, number: usize) -> [ApplicationRow; 5] {
    let id = i64::try_from(number).unwrap_or(0) * 10;
    [
        rows.project(owner, id, Some("project")),
        rows.issue(owner, id, id, Some("first"), None),
        rows.issue(owner, id + 1, id, Some("second"), Some("text")),
        rows.activity(owner, Some("opened"), None),
        rows.setting(owner, "colour", Some("blue")),
    ]
}

/// What a script with a mistake does to tenants that are to be restored.
fn hit_all(fixture: &dyn Fixture, rows: Rows, names: &[String], run: u64) -> Result<(), Violation> {
    let mut changes = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let owner = owner(name);
        let [project, first, second, opened, _] = rows_of(rows, &owner, number);
        changes.push(ApplicationChange::Delete(first));
        changes.push(ApplicationChange::Delete(opened));
        if run.is_multiple_of(2) {
            changes.push(ApplicationChange::Delete(second));
            changes.push(ApplicationChange::Delete(project));
        }
        let wrong = format!("wrong {run}");
        changes.push(ApplicationChange::Put(rows.setting(
            &owner,
            "colour",
            Some(&wrong),
        )));
        changes.push(ApplicationChange::Put(rows.setting(&owner, &wrong, None)));
    }
    Ok(fixture.application_write(&changes)?)
}

/// One writer: small transactions, each in the ledger as soon as it is acknowledged.
fn write_until_stopped(
    fixture: &dyn Fixture,
    rows: Rows,
    own: &[String],
    pause: Duration,
    stop: &AtomicBool,
) -> Result<Ledger, Violation> {
    let mut ledger = Ledger::default();
    let mut number = 0_u64;
    while !stop.load(Ordering::SeqCst) {
        let name = &own[usize::try_from(number).unwrap_or(0) % own.len()];
        let value = number.to_string();
        let row = match number % 3 {
            0 => rows.setting(&owner(name), "colour", Some(&value)),
            1 => rows.setting(&owner(name), &format!("s{value}"), None),
            _ => rows.activity(&owner(name), Some(&value), None),
        };
        let change = ApplicationChange::Put(row);
        fixture.application_write(std::slice::from_ref(&change))?;
        ledger.0.push(change);
        number += 1;
        thread::sleep(pause);
    }
    Ok(ledger)
}

/// Restores under load, and keeps the figures under this name.
///
/// # Panics
/// If a promise is broken.
pub fn check_load<F: Fixture>(name: &str, load: Load) {
    match try_load::<F>(load) {
        Ok(report) => crate::figures::record(
            name,
            &[
                ("runs", load.runs),
                ("tenants restored", report.restores),
                ("writers", load.writers as u64),
                ("acknowledged writes", report.acknowledged),
                ("foreign rows changed", 0),
                ("acknowledged writes lost", 0),
            ],
        ),
        Err(violation) => panic!("{name}, {load:?}: {violation}"),
    }
}
