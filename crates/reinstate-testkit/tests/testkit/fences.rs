//! When the engine has a fence up around a tenant.

use std::sync::atomic::{AtomicU64, Ordering};

use reinstate::{
    DriftRules, Error, Fences, OwnerCheck, PlanRequest, Restored, StoredPlan, apply_behind,
    extract, plan,
};
use reinstate_core::{ErrorKind, JobId, Policy, Repository, Tenant};
use reinstate_testkit::ApplicationChange;
use reinstate_testkit::certification::{Fixture, owner, tenant};
use reinstate_testkit::faults::{FaultyStore, FenceCounts, StoreFault};

use crate::faults::{NOW, OPERATIONS_MAX, ROWS, Scene};

#[test]
fn behind_a_fence_what_was_merged_is_what_is_verified() {
    let late = ApplicationChange::Put(ROWS.setting(&owner("acme"), "late", None));
    let kept_off = AtomicU64::new(0);
    for call in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let counts = FenceCounts::default();
        let write = || {
            if counts.up() == 0 {
                scene.write(std::slice::from_ref(&late));
            } else {
                kept_off.fetch_add(1, Ordering::Relaxed);
            }
        };
        let fault = StoreFault::Interlope { call };
        let store = FaultyStore::with_interloper(scene.fixture.store(), fault, write);
        let store = store.with_fences(&counts);
        let result = scene.restore(&store, scene.repository.as_ref(), 1);
        assert_eq!(counts.up(), 0, "call {call}: a fence was left up");
        match result {
            Ok(restored) => assert!(
                restored.verdict.is_restored(),
                "call {call}: {:?}",
                restored.verdict
            ),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Stale, "call {call}: {error}"),
        }
        if store.call_count() <= call {
            let kept_off = kept_off.load(Ordering::Relaxed);
            assert!(kept_off > 3, "only {kept_off} calls behind the fence");
            return;
        }
    }
    panic!("a restore takes more than {OPERATIONS_MAX} calls");
}

/// The steps of a restore, behind a fence that is up before the plan is made.
fn restore_behind(scene: &Scene, store: &FaultyStore<'_>) -> Result<Restored, Error> {
    let (context, repository) = (scene.context(), scene.repository.as_ref());
    let whose = Tenant {
        kind: scene.snapshot.tenant_kind.clone(),
        id: tenant("acme"),
    };
    let fences = Fences::raise(context, store, std::slice::from_ref(&whose.id))?;
    let image = extract(repository, &scene.snapshot, &whose)?;
    let request = PlanRequest {
        job: JobId::from_bytes([1; 16]),
        repository: repository.id(),
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        check_owners: OwnerCheck::Off,
        planned_at: NOW,
    };
    let output = repository.create_object().expect("a repository that works");
    let written = plan(context, &[image], store, &request, output)?;
    let stored = StoredPlan::open(repository, written.object)?;
    let mut outcomes = apply_behind(context, &stored, store, repository, NOW, fences)?;
    outcomes.remove(0).result
}

#[test]
fn a_fence_of_the_merge_falls_between_its_attempts_and_one_of_before_stays() {
    let restored_after = |raised_before: bool| {
        let mut restored = Vec::new();
        for call in 0..OPERATIONS_MAX {
            let scene = Scene::set();
            let counts = FenceCounts::default();
            let fault = StoreFault::Fail {
                call,
                kind: ErrorKind::Contended,
            };
            let store = FaultyStore::new(scene.fixture.store(), fault).with_fences(&counts);
            let result = match raised_before {
                true => restore_behind(&scene, &store),
                false => scene.restore(&store, scene.repository.as_ref(), 1),
            };
            assert_eq!(counts.up(), 0, "call {call}: a fence was left up");
            if store.call_count() <= call {
                return restored;
            }
            if result.is_ok_and(|restored| restored.verdict.is_restored()) {
                restored.push(counts.raised());
            }
        }
        panic!("a restore takes more than {OPERATIONS_MAX} calls");
    };
    // Whoever came in the way is let through, unless it was the fence that could not be put up.
    let of_the_merge = restored_after(false);
    let (first, others) = of_the_merge.split_first().expect("calls tried again");
    assert_eq!(*first, 1);
    assert!(others.len() > 3, "{of_the_merge:?}");
    assert!(others.iter().all(|raised| *raised == 2), "{of_the_merge:?}");
    let before = restored_after(true);
    assert!(before.len() > 3, "{before:?}");
    assert!(before.iter().all(|raised| *raised == 1), "{before:?}");
}
