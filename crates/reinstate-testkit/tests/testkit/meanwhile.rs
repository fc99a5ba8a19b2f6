//! A tenant that its users delete or make anew, or that a second operator restores, at every moment of a
//! restore: nothing of it is lost, nobody else is touched, and what is said is true.

use std::sync::Mutex;

use reinstate_core::{ErrorKind, JobId, TenantId};
use reinstate_testkit::certification::{Contents, Fixture, Flavour, Rows, owner, tenant};
use reinstate_testkit::faults::{FaultyStore, StoreFault};
use reinstate_testkit::{ApplicationChange, KeySpace};

use crate::faults::{OPERATIONS_MAX, Scene};

/// What the tenant's users do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Users {
    /// They delete everything.
    Delete,
    /// They delete everything and begin anew.
    Recreate,
}

impl Users {
    fn changes(self) -> Vec<ApplicationChange> {
        let rows = Rows {
            flavour: Flavour::Columns,
            key_space: KeySpace::Global,
        };
        let acme = owner("acme");
        // All that it may have, then or now, children first.
        let mut changes: Vec<_> = [
            rows.comment(&acme, 1, 1, None),
            rows.activity(&acme, None, Some("twice")),
            rows.activity(&acme, None, Some("twice")),
            rows.setting(&acme, "new", None),
            rows.issue(&acme, 1, 1, None, None),
            rows.project(&acme, 1, None),
        ]
        .map(ApplicationChange::Delete)
        .into();
        if self == Self::Recreate {
            changes.push(ApplicationChange::Put(rows.project(&acme, 1, Some("anew"))));
        }
        changes
    }
}

fn was_merged(scene: &Scene, job: u8) -> bool {
    let job = JobId::from_bytes([job; 16]);
    let entry = scene.fixture.store().journal_entry(job, &tenant("acme"));
    entry.expect("a journal").is_some()
}

fn acme() -> TenantId {
    tenant("acme")
}

#[track_caller]
fn check_others(scene: &Scene, after: &Contents, what: &str) {
    let others = scene.now.without(&acme());
    if let Err(violation) = after.without(&acme()).expect(&others, what) {
        panic!("{violation}");
    }
}

#[test]
fn a_tenant_deleted_or_made_anew_meanwhile_keeps_what_its_users_did_last() {
    for users in [Users::Delete, Users::Recreate] {
        let (mut refused, mut restored, mut incomplete) = (0, 0, 0);
        for call in 0..OPERATIONS_MAX {
            let scene = Scene::set();
            let changes = users.changes();
            let act = || scene.write(&changes);
            let fault = StoreFault::Interlope { call };
            let store = FaultyStore::with_interloper(scene.fixture.store(), fault, act);
            let result = scene.restore(&store, scene.repository.as_ref(), 1);
            if store.call_count() <= call {
                assert!(refused > 0 && restored > 0 && incomplete > 0);
                break;
            }
            let what = format!("{users:?} before call {call}");
            let after = scene.contents();
            check_others(&scene, &after, &what);
            let acted_on = |base: &Contents| {
                let mut base = base.clone();
                base.write(&scene.snapshot.schema, &changes)
                    .expect("rows that fit");
                base
            };
            if !was_merged(&scene, 1) {
                assert_eq!(after, acted_on(&scene.now), "{what}");
                let kind = result.expect_err("nothing was merged").kind();
                assert!(
                    matches!(kind, ErrorKind::Stale | ErrorKind::Contended),
                    "{what}: {kind:?}"
                );
                refused += 1;
                continue;
            }
            let outcome = result.unwrap_or_else(|error| panic!("{what}: {error}"));
            let created: u64 = outcome
                .receipt
                .applied
                .iter()
                .map(|(_, _, counts)| counts.created)
                .sum();
            if after == scene.then {
                // They came first, and the plan says so: all rows are created again, but for a project
                // that was made anew with its old key.
                let kept = usize::from(users == Users::Recreate);
                let expected = scene.then.of(&acme()).row_count() - kept;
                assert_eq!(created, expected as u64, "{what}: what they did was lost");
                assert!(outcome.verdict.is_restored(), "{what}");
                restored += 1;
            } else {
                // They came after the commit: what they did stays, seen or not.
                assert_eq!(after, acted_on(&scene.then), "{what}");
                incomplete += u64::from(!outcome.verdict.is_restored());
            }
        }
    }
}

#[test]
fn of_two_operators_who_restore_a_tenant_at_any_moment_exactly_one_writes() {
    let mut winners = [0, 0];
    for call in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let second = Mutex::new(None);
        let act = || {
            let result = scene.restore(scene.fixture.store(), scene.repository.as_ref(), 2);
            *second.lock().expect("one at a time") = Some(result);
        };
        let fault = StoreFault::Interlope { call };
        let store = FaultyStore::with_interloper(scene.fixture.store(), fault, act);
        let first = scene.restore(&store, scene.repository.as_ref(), 1);
        if store.call_count() <= call {
            assert!(winners[0] > 0 && winners[1] > 0, "{winners:?}");
            return;
        }
        let what = format!("a second operator before call {call}");
        let after = scene.contents();
        check_others(&scene, &after, &what);
        assert_eq!(after, scene.then, "{what}");
        let merged = [was_merged(&scene, 1), was_merged(&scene, 2)];
        assert_eq!(
            merged.iter().filter(|merged| **merged).count(),
            1,
            "{what}: {merged:?}"
        );
        winners[usize::from(merged[1])] += 1;
        let second = second
            .lock()
            .expect("one at a time")
            .take()
            .expect("it ran");
        for (result, merged) in [(first, merged[0]), (second, merged[1])] {
            match result {
                Ok(restored) => assert!(restored.verdict.is_restored(), "{what}"),
                Err(error) => {
                    let kind = error.kind();
                    let is_loser = matches!(
                        kind,
                        ErrorKind::Stale | ErrorKind::Contended | ErrorKind::Locked
                    );
                    assert!(is_loser && !merged, "{what}: {error}");
                }
            }
        }
    }
    panic!("a restore takes more than {OPERATIONS_MAX} calls");
}
