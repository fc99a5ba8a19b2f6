//! What is proven about a restore, and what a proof would have to notice.

use std::num::NonZeroUsize;

use reinstate::{
    Context, Finding, ResourceOptions, Resources, StoreDigests, Verdict, keep_receipt, plan_of,
    receipt_of, store_digests, verify_snapshot,
};
use reinstate_core::{Cancellation, JobId, Owner, Silent, SnapshotDescription, Timestamp};
use reinstate_testkit::ApplicationChange;
use reinstate_testkit::certification::{Fixture, owner, tenant};
use reinstate_testkit::faults::{FaultyStore, StoreFault};

use crate::faults::{NOW, ROWS, Scene};

fn digests(scene: &Scene) -> StoreDigests {
    store_digests(scene.context(), scene.fixture.store()).expect("a store that works")
}

#[test]
fn every_owner_whose_rows_changed_is_named_and_nobody_else() {
    let scene = Scene::set();
    let before = digests(&scene);
    // Two tenants, and the rows of everybody.
    assert_eq!(before.owner_count(), 3);
    let restored = [tenant("acme")];
    let changes = [
        // The restored one.
        (
            ApplicationChange::Delete(ROWS.setting(&owner("acme"), "new", None)),
            None,
        ),
        // Another one, of which a row was changed.
        (
            ApplicationChange::Put(ROWS.project(&owner("acme2"), 2, Some("other"))),
            Some(owner("acme2")),
        ),
        (
            ApplicationChange::Put(ROWS.currency("EUR", "other")),
            Some(Owner::Shared),
        ),
        // One that was not there.
        (
            ApplicationChange::Put(ROWS.setting(&owner("new"), "new", None)),
            Some(owner("new")),
        ),
    ];
    let mut changed = Vec::new();
    for (change, whose) in changes {
        scene.write(&[change]);
        changed.extend(whose);
        changed.sort();
        let report = digests(&scene).compare(&before, &restored);
        assert_eq!(report.changed, changed);
        let others = 3 + usize::from(changed.contains(&owner("new"))) - 1;
        assert_eq!(report.unchanged, (others - changed.len()) as u64);
    }
    // One that was there and is gone: seen from the other side.
    let report = before.compare(&digests(&scene), &restored);
    assert_eq!(report.changed, changed);
    let same = digests(&scene).compare(&digests(&scene), &[]);
    assert_eq!((same.unchanged, same.changed), (4, Vec::new()));
}

#[test]
fn a_proof_says_how_much_was_read_and_a_finding_where_it_differs() {
    let scene = Scene::set();
    let store = scene.fixture.store();
    let restored = scene.restore(store, scene.repository.as_ref(), 1);
    let restored = restored.expect("a store that works");
    let Verdict::Restored(proof) = &restored.verdict else {
        panic!("{:?}", restored.verdict)
    };
    // A project, an issue, a comment, and an activity twice.
    assert_eq!(proof.row_count(), 5);
    assert!(proof.table_count() > 1, "{proof:?}");
    // The comment and one activity came back, the project as it was, and the setting went.
    assert_eq!(restored.receipt.changed_rows(), 4);
    let applied = restored.receipt.applied.iter();
    let named: Vec<_> = applied.map(|(_, name, _)| name.to_string()).collect();
    assert_eq!(named.len(), 4, "{named:?}");
    let job = JobId::from_bytes([1; 16]);
    let repository = scene.repository.as_ref();
    let kept = || receipt_of(repository, job, &tenant("acme")).expect("a receipt that is whole");
    let receipt = kept().expect("a receipt");
    assert_eq!(
        (receipt.merged_at, &receipt.counts),
        (NOW, &restored.receipt.applied)
    );
    // One that is there stays.
    let plan = plan_of(repository, job).expect("a plan");
    let later = Timestamp::from_micros(1);
    keep_receipt(repository, &plan, &restored.receipt, later).expect("one is there");
    assert_eq!(kept().expect("a receipt").merged_at, NOW);
    assert!(restored.verdict.is_restored() && restored.verdict.findings().is_empty());

    // The tenant's own users write before it is verified.
    let calls = {
        let scene = Scene::set();
        let counting = FaultyStore::new(scene.fixture.store(), StoreFault::None);
        let run = scene.restore(&counting, scene.repository.as_ref(), 1);
        run.expect("a store that works");
        counting.call_count()
    };
    let mut differing = 0;
    for call in 0..calls {
        let scene = Scene::set();
        let write = || {
            scene.write(&[ApplicationChange::Put(ROWS.setting(
                &owner("acme"),
                "late",
                None,
            ))]);
        };
        let fault = StoreFault::Interlope { call };
        let store = FaultyStore::with_interloper(scene.fixture.store(), fault, write);
        let Ok(restored) = scene.restore(&store, scene.repository.as_ref(), 1) else {
            continue;
        };
        match &restored.verdict {
            Verdict::Incomplete(findings) => {
                differing += 1;
                let [
                    Finding::Differs {
                        expected, found, ..
                    },
                ] = findings.as_slice()
                else {
                    panic!("{findings:?}")
                };
                assert_eq!(found.row_count(), expected.row_count() + 1);
                assert!(!restored.verdict.is_restored());
                let said = findings[0].to_string();
                assert!(
                    said.contains("settings") && said.contains("not the expected"),
                    "{said}"
                );
            }
            // Written after it was read, or before the plan was made.
            verdict => assert!(verdict.is_restored(), "call {call}: {verdict:?}"),
        }
    }
    assert!(differing > 0);

    // The store says that rows of others carry the mark of the merge.
    let scene = Scene::set();
    let fault = StoreFault::ForeignRows { rows: 2 };
    let lying = FaultyStore::new(scene.fixture.store(), fault);
    let restored = scene.restore(&lying, scene.repository.as_ref(), 1);
    let verdict = restored.expect("a store that works").verdict;
    assert_eq!(
        verdict,
        Verdict::IsolationViolated(vec![Finding::ForeignRows { rows: 2 }])
    );
    assert!(verdict.findings()[0].to_string().starts_with("2 rows"));
}

#[test]
fn verifying_a_snapshot_reads_all_of_it_and_names_what_is_damaged() {
    let scene = Scene::set();
    let options = ResourceOptions {
        threads: NonZeroUsize::MIN,
        ..ResourceOptions::default()
    };
    let resources = Resources::try_new(options).expect("threads");
    let cancellation = Cancellation::new();
    let context = Context::new(&resources, &Silent, &cancellation);
    let verify = |snapshot: &SnapshotDescription| {
        verify_snapshot(context, scene.repository.as_ref(), snapshot).expect("a report")
    };
    let intact = verify(&scene.snapshot);
    let rows: u64 = scene
        .snapshot
        .totals
        .iter()
        .map(|total| total.row_count)
        .sum();
    assert_eq!((intact.rows_checked, intact.damage.len()), (rows, 0));
    assert!(intact.bytes_checked > 0);

    // A manifest that says otherwise than the segments.
    let mut other = SnapshotDescription::clone(&scene.snapshot);
    let place = other.totals.iter().position(|total| total.row_count > 0);
    let place = place.expect("a table with rows");
    other.totals[place].row_count += 1;
    let damage = verify(&other).damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert!(
        damage[0].message.contains("the manifest says"),
        "{damage:?}"
    );

    // Any byte of a segment.
    let object = scene.snapshot.segments[0].object;
    let length = {
        let mut length = 0;
        scene
            .repository
            .tamper_object(object, |bytes| length = bytes.len());
        length
    };
    let (mut owners, mut rest) = (0, 0);
    for place in 0..length {
        let flip = |bytes: &mut Vec<u8>| bytes[place] ^= 1;
        assert!(scene.repository.tamper_object(object, flip));
        let report = verify(&scene.snapshot);
        assert!(!report.damage.is_empty(), "byte {place}");
        for damage in &report.damage {
            assert!(damage.message.len() > 10, "{damage:?}");
            owners += u64::from(damage.owner.is_some());
        }
        // Other runs are still read.
        rest += u64::from(report.rows_checked > 0);
        scene.repository.tamper_object(object, flip);
    }
    assert!(owners > 10 && rest > 10, "{owners} {rest}");
    assert_eq!(verify(&scene.snapshot), intact);
}
