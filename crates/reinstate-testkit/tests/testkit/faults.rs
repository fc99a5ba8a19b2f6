//! The engine when a store or a repository fails: at every operation, one after the other.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reinstate::{
    CaptureOptions, Context, DriftRules, Error, ResourceOptions, Resources, RestoreRequest,
};
use reinstate_core::{
    Cancellation, ChangeCounts, ErrorKind, JobId, LiveStore, Policy, Repository, Silent,
    SnapshotDescription, SnapshotId, Tenant, Timestamp,
};
use reinstate_testkit::certification::{Contents, Fixture, Flavour, Rows, captured, owner, tenant};
use reinstate_testkit::faults::{
    Damage, FaultyRepository, FaultyStore, RepositoryFault, StoreFault,
};
use reinstate_testkit::{ApplicationChange, KeySpace, MemoryRepository};

use crate::memory::{MemoryFixture, SQL};

/// More operations than any run here has.
pub(crate) const OPERATIONS_MAX: u64 = 10_000;

pub(crate) const NOW: Timestamp = Timestamp::from_micros(0);

pub(crate) const ROWS: Rows = Rows {
    flavour: Flavour::Columns,
    key_space: KeySpace::Global,
};

/// A store with a snapshot, and a tenant that has lost rows since.
pub(crate) struct Scene {
    pub(crate) fixture: MemoryFixture<SQL>,
    pub(crate) repository: Arc<MemoryRepository>,
    pub(crate) snapshot: Arc<SnapshotDescription>,
    pub(crate) then: Contents,
    pub(crate) now: Contents,
    pub(crate) resources: Resources,
    cancellation: Cancellation,
}

impl Scene {
    pub(crate) fn set() -> Self {
        let fixture = MemoryFixture::create();
        fixture.store().prepare().expect("a store that works");
        let resources = ResourceOptions {
            threads: NonZeroUsize::MIN,
            memory_bytes_max: reinstate::MEMORY_BYTES_MIN,
            ..ResourceOptions::default()
        };
        let mut scene = Self {
            repository: Arc::new(MemoryRepository::default()),
            snapshot: Arc::new(empty_snapshot(&fixture)),
            then: Contents::default(),
            now: Contents::default(),
            resources: Resources::try_new(resources).expect("threads"),
            cancellation: Cancellation::new(),
            fixture,
        };
        let (acme, other) = (owner("acme"), owner("acme2"));
        let put = ApplicationChange::Put;
        let first = [
            ROWS.currency("EUR", "euro"),
            ROWS.project(&acme, 1, Some("one")),
            ROWS.issue(&acme, 1, 1, Some("issue"), None),
            ROWS.comment(&acme, 1, 1, Some("comment")),
            ROWS.activity(&acme, None, Some("twice")),
            ROWS.activity(&acme, None, Some("twice")),
            ROWS.project(&other, 2, Some("two")),
            ROWS.activity(&other, None, Some("twice")),
        ];
        scene.write(&first.clone().map(put));
        scene.then = scene.contents();
        let snapshot = scene.capture(scene.fixture.store(), scene.repository.as_ref());
        scene.snapshot = Arc::new(snapshot.expect("a capture that works"));
        scene.write(&[
            ApplicationChange::Delete(first[3].clone()),
            ApplicationChange::Delete(first[4].clone()),
            put(ROWS.project(&acme, 1, Some("changed"))),
            put(ROWS.setting(&acme, "new", None)),
        ]);
        scene.now = scene.contents();
        scene
    }

    pub(crate) fn write(&self, changes: &[ApplicationChange]) {
        self.fixture
            .application_write(changes)
            .expect("rows that fit");
    }

    pub(crate) fn contents(&self) -> Contents {
        captured(self.fixture.store()).expect("a store that works")
    }

    pub(crate) fn context(&self) -> Context<'_> {
        Context::new(&self.resources, &Silent, &self.cancellation)
    }

    fn capture(
        &self,
        store: &dyn LiveStore,
        repository: &dyn Repository,
    ) -> Result<SnapshotDescription, Error> {
        let options = CaptureOptions::new(SnapshotId::from_bytes([3; 16]), NOW);
        reinstate::capture(self.context(), store, repository, &options)
    }

    /// Restores the tenant; an error of the whole run and one of the tenant are the same here.
    pub(crate) fn restore(
        &self,
        store: &dyn LiveStore,
        repository: &dyn Repository,
        job: u8,
    ) -> Result<reinstate::Restored, Error> {
        self.restore_from(store, repository, job, &self.snapshot)
    }

    fn restore_from(
        &self,
        store: &dyn LiveStore,
        repository: &dyn Repository,
        job: u8,
        snapshot: &Arc<SnapshotDescription>,
    ) -> Result<reinstate::Restored, Error> {
        let request = RestoreRequest {
            job: JobId::from_bytes([job; 16]),
            snapshot: Arc::clone(snapshot),
            tenants: vec![Tenant {
                kind: store.tenant_kind().clone(),
                id: tenant("acme"),
            }],
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            requested_at: NOW,
        };
        let outcomes = reinstate::restore(self.context(), store, repository, &request)?;
        outcomes.into_iter().next().expect("one outcome").result
    }

    /// The store is either as it was, or restored with an entry in its journal.
    #[track_caller]
    fn expect_all_or_nothing(&self, job: u8, what: &str) -> bool {
        let found = self.contents();
        let journal = self.fixture.store();
        let job = JobId::from_bytes([job; 16]);
        let entry = journal
            .journal_entry(job, &tenant("acme"))
            .expect("a journal");
        let expected = if entry.is_some() {
            &self.then
        } else {
            &self.now
        };
        if let Err(violation) = found.expect(expected, what) {
            panic!("{violation}");
        }
        entry.is_some()
    }
}

fn empty_snapshot(fixture: &MemoryFixture<SQL>) -> SnapshotDescription {
    let scratch = MemoryRepository::default();
    let resources = Resources::try_new(ResourceOptions::default()).expect("threads");
    let cancellation = Cancellation::new();
    let context = Context::new(&resources, &Silent, &cancellation);
    let options = CaptureOptions::new(SnapshotId::from_bytes([2; 16]), NOW);
    reinstate::capture(context, fixture.store(), &scratch, &options).expect("a capture")
}

#[test]
fn a_store_that_fails_at_any_call_is_left_as_it_was_or_restored() {
    let mut committed = 0;
    for call in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let fault = StoreFault::Fail {
            call,
            kind: ErrorKind::Unavailable,
        };
        let store = FaultyStore::new(scene.fixture.store(), fault);
        let result = scene.restore(&store, scene.repository.as_ref(), 1);
        let was_committed = scene.expect_all_or_nothing(1, &format!("a failure at call {call}"));
        if store.call_count() <= call {
            assert!(result.expect("no fault was met").verdict.is_restored());
            assert!(committed > 0, "no fault came after a commit");
            assert!(call > 30, "only {call} calls");
            return;
        }
        committed += u64::from(was_committed);
        let error = result.expect_err("a fault is not a success");
        let kind = if was_committed {
            ErrorKind::Unverified
        } else {
            ErrorKind::Unavailable
        };
        assert_eq!(error.kind(), kind, "call {call}: {error}");
        // Whatever happened, the next run ends well.
        let again = scene.restore(scene.fixture.store(), scene.repository.as_ref(), 2);
        assert!(
            again.expect("no fault").verdict.is_restored(),
            "call {call}"
        );
    }
    panic!("a restore takes more than {OPERATIONS_MAX} calls");
}

#[test]
fn a_commit_without_an_answer_is_looked_up_in_the_journal() {
    let scene = Scene::set();
    let store = FaultyStore::new(scene.fixture.store(), StoreFault::UnknownAfterCommit);
    let restored = scene
        .restore(&store, scene.repository.as_ref(), 1)
        .expect("it was committed");
    assert!(scene.expect_all_or_nothing(1, "a commit whose answer was lost"));
    // Proven as any other: the store's journal knows what marks its rows, and rows of others were counted.
    assert!(restored.verdict.is_restored(), "{:?}", restored.verdict);
    let commit = restored.receipt.committed.expect("a commit");
    let job = JobId::from_bytes([1; 16]);
    let noted = scene.fixture.store().committed(job, &tenant("acme"));
    assert_eq!(noted.expect("a journal").map(Into::into), Some(commit));

    let scene = Scene::set();
    let store = FaultyStore::new(scene.fixture.store(), StoreFault::UnknownBeforeCommit);
    let error = scene
        .restore(&store, scene.repository.as_ref(), 1)
        .expect_err("it was not");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!scene.expect_all_or_nothing(1, "a commit that never came"));
}

#[test]
fn a_transaction_that_others_came_in_the_way_of_is_tried_again() {
    let mut tried_again = 0;
    for call in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let kind = ErrorKind::Contended;
        let fault = StoreFault::Fail { call, kind };
        let store = FaultyStore::new(scene.fixture.store(), fault);
        let result = scene.restore(&store, scene.repository.as_ref(), 1);
        scene.expect_all_or_nothing(1, &format!("contended at call {call}"));
        if store.call_count() <= call {
            // Opening the transaction, its rows, reading them back, and the commit.
            assert!(tried_again > 3, "only {tried_again} calls were tried again");
            return;
        }
        tried_again += u64::from(result.is_ok_and(|restored| restored.verdict.is_restored()));
    }
    panic!("a restore takes more than {OPERATIONS_MAX} calls");
}

#[test]
fn a_journal_that_is_away_for_a_while_is_asked_again_and_a_damaged_one_is_not() {
    let restore = |kind| {
        let scene = Scene::set();
        let fault = StoreFault::UnknownAndAway { reads: 1, kind };
        let store = FaultyStore::new(scene.fixture.store(), fault);
        let result = scene.restore(&store, scene.repository.as_ref(), 1);
        assert!(scene.expect_all_or_nothing(1, &format!("{kind:?}")));
        result
    };
    for kind in [
        ErrorKind::Unavailable,
        ErrorKind::Contended,
        ErrorKind::Locked,
    ] {
        let restored = restore(kind).expect("the journal knows it");
        assert!(restored.verdict.is_restored(), "{:?}", restored.verdict);
    }
    for kind in [ErrorKind::Corrupt, ErrorKind::Refused] {
        let error = restore(kind).expect_err("nobody knows it");
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        assert!(error.to_string().contains("no answer"), "{error}");
    }
}

#[test]
fn a_write_that_comes_in_between_is_never_lost() {
    let (mut refused, mut restored) = (0, 0);
    for call in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let row = ROWS.setting(&owner("acme"), "concurrent", Some("here"));
        let fault = StoreFault::Interlope { call };
        let write = || scene.write(&[ApplicationChange::Put(row.clone())]);
        let store = FaultyStore::with_interloper(scene.fixture.store(), fault, write);
        let result = scene.restore(&store, scene.repository.as_ref(), 1);
        if store.call_count() <= call {
            assert!(
                refused > 0 && restored > 0,
                "{refused} refused, {restored} restored"
            );
            return;
        }
        let after = scene.contents();
        let job = JobId::from_bytes([1; 16]);
        let entry = scene
            .fixture
            .store()
            .journal_entry(job, &tenant("acme"))
            .expect("a journal");
        let schema = scene.snapshot.schema.clone();
        let written = [ApplicationChange::Put(row.clone())];
        let mut base = if entry.is_some() {
            scene.then.clone()
        } else {
            scene.now.clone()
        };
        let overwritten = after == base && entry.is_some();
        base.write(&schema, &written).expect("rows that fit");
        // A row that came before the plan is one that the snapshot lacks: it is deleted, and the
        // plan says so. One that came after it must still be there.
        let planned = result.as_ref().is_ok_and(|restored| {
            let deleted = restored
                .receipt
                .applied
                .iter()
                .map(|(_, _, counts)| counts.deleted);
            deleted.sum::<u64>() == 2
        });
        assert!(
            after == base || (overwritten && planned),
            "a write before call {call} was lost"
        );
        match result {
            Ok(_) => restored += 1,
            Err(error) => {
                let kind = error.kind();
                assert!(
                    matches!(kind, ErrorKind::Stale | ErrorKind::Contended),
                    "{error}"
                );
                refused += 1;
            }
        }
    }
    panic!("a restore takes more than {OPERATIONS_MAX} calls");
}

/// Two runs of one job with different plans, each in a repository of its own: what the journal says of the
/// other's commit is no answer to the question what became of this one.
#[test]
fn a_commit_of_another_plan_is_no_answer_to_a_commit_without_one() {
    let mut lost = 0;
    for call in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let store = FaultyStore::new(scene.fixture.store(), StoreFault::UnknownBeforeCommit);
        let committed = AtomicBool::new(false);
        let other = || {
            let (live, repository) = (scene.fixture.store(), MemoryRepository::default());
            let snapshot = scene.capture(live, &repository).expect("a capture");
            scene.write(&[ApplicationChange::Put(ROWS.setting(
                &owner("acme"),
                "late",
                None,
            ))]);
            match scene.restore_from(live, &repository, 1, &Arc::new(snapshot)) {
                Ok(restored) => {
                    assert!(restored.receipt.committed.is_some());
                    committed.store(true, Ordering::Relaxed);
                }
                // The first one is in its transaction.
                Err(error) => assert_eq!(error.kind(), ErrorKind::Locked, "{error}"),
            }
        };
        let fault = StoreFault::Interlope { call };
        let interloped = FaultyStore::with_interloper(&store, fault, other);
        let error = scene
            .restore(&interloped, scene.repository.as_ref(), 1)
            .expect_err("its commit never came");
        if interloped.call_count() <= call {
            assert!(lost > 0, "the other one never came last");
            return;
        }
        let is_lost = error.kind() == ErrorKind::Unavailable;
        lost += u64::from(is_lost && committed.load(Ordering::Relaxed));
    }
    panic!("a restore takes more than {OPERATIONS_MAX} calls");
}

#[test]
fn a_store_that_counts_other_changes_than_planned_commits_nothing() {
    let planned = {
        let scene = Scene::set();
        let restored = scene.restore(scene.fixture.store(), scene.repository.as_ref(), 1);
        restored.expect("no fault").receipt.applied
    };
    let mut tables = 0;
    for (table, schema) in Scene::set().snapshot.schema.iter() {
        let found = planned.iter().find(|(planned, _, _)| *planned == table);
        let right = found.map_or(ChangeCounts::NONE, |(_, _, counts)| *counts);
        tables += usize::from(found.is_some());
        let one = |created, put_back, deleted| ChangeCounts {
            created,
            put_back,
            deleted,
        };
        let mut wrong = vec![one(1, 0, 0), one(0, 1, 0), one(0, 0, 1)];
        for more in &mut wrong {
            *more += right;
        }
        wrong.push(ChangeCounts::NONE);
        for counts in wrong.into_iter().filter(|counts| *counts != right) {
            let scene = Scene::set();
            let fault = StoreFault::Counts { table, counts };
            let store = FaultyStore::new(scene.fixture.store(), fault);
            let error = scene
                .restore(&store, scene.repository.as_ref(), 1)
                .expect_err("other counts than planned");
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            let said = error.to_string();
            assert!(
                said.contains("the store counted other changes")
                    && said.contains(&schema.name.to_string()),
                "{said}"
            );
            assert!(!scene.expect_all_or_nothing(1, &format!("{fault:?}")));
        }
    }
    assert_eq!(tables, planned.len());
    assert!(tables > 1);
}

#[test]
fn a_plan_without_changes_is_stale_once_its_tenant_was_written_to() {
    let mut stale = 0;
    for call in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let first = scene.restore(scene.fixture.store(), scene.repository.as_ref(), 1);
        assert!(first.expect("no fault").verdict.is_restored());
        let row = ROWS.setting(&owner("acme"), "concurrent", Some("here"));
        let write = || scene.write(&[ApplicationChange::Put(row.clone())]);
        let fault = StoreFault::Interlope { call };
        let store = FaultyStore::with_interloper(scene.fixture.store(), fault, write);
        let result = scene.restore(&store, scene.repository.as_ref(), 2);
        if store.call_count() <= call {
            let receipt = result.expect("no fault was met").receipt;
            assert!(receipt.committed.is_none(), "{receipt:?}");
            assert!(stale > 0, "no write came after the plan");
            return;
        }
        match result {
            // Written before the plan, which deletes it, or while it was verified, which finds it.
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Stale, "call {call}: {error}");
                stale += 1;
            }
        }
    }
    panic!("a restore takes more than {OPERATIONS_MAX} calls");
}

#[test]
fn a_repository_that_fails_at_any_operation_leaves_the_store_as_it_was_or_restored() {
    for operation in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let inner: Arc<MemoryRepository> = Arc::clone(&scene.repository);
        let fault = RepositoryFault::FailFrom {
            operation,
            kind: ErrorKind::Full,
        };
        let repository = FaultyRepository::new(inner, fault);
        let result = scene.restore(scene.fixture.store(), &repository, 1);
        let what = format!("a repository full from operation {operation}");
        let committed = scene.expect_all_or_nothing(1, &what);
        if repository.operation_count() <= operation {
            assert!(result.expect("no fault was met").verdict.is_restored());
            return;
        }
        let error = result.expect_err("a fault is not a success");
        let expected = match committed {
            true => ErrorKind::Unverified,
            false => ErrorKind::Full,
        };
        assert_eq!(error.kind(), expected, "operation {operation}: {error}");
        if committed {
            // Done again, the commit is found, and proven with what its own transaction noted.
            let (job, acme) = (JobId::from_bytes([1; 16]), tenant("acme"));
            let (store, working) = (scene.fixture.store(), scene.repository.as_ref());
            let plan = reinstate::plan_of(working, job).expect("a plan");
            let again = reinstate::apply_once(scene.context(), &plan, &acme, store, working, NOW);
            assert!(again.expect("no fault").verdict.is_restored());
            let kept = reinstate::receipt_of(working, job, &acme).expect("a repository");
            let kept = kept.expect("a receipt");
            let noted = store.committed(job, &acme).expect("a journal");
            assert_eq!(kept.commit_mark, noted.expect("a commit").commit_mark);
            // Undo works from the store's journal.
            let error = scene.restore(scene.fixture.store(), scene.repository.as_ref(), 2);
            assert!(error.expect("no fault").verdict.is_restored());
        }
    }
    panic!("a restore takes more than {OPERATIONS_MAX} operations");
}

#[test]
fn a_capture_that_fails_at_any_operation_publishes_nothing() {
    for operation in 0..OPERATIONS_MAX {
        let scene = Scene::set();
        let target = Arc::new(MemoryRepository::default());
        let fault = RepositoryFault::FailFrom {
            operation,
            kind: ErrorKind::Full,
        };
        let inner: Arc<MemoryRepository> = Arc::clone(&target);
        let repository = FaultyRepository::new(inner, fault);
        let result = scene.capture(scene.fixture.store(), &repository);
        if repository.operation_count() <= operation {
            result.expect("no fault was met");
            assert!(operation > 3, "only {operation} operations");
            return;
        }
        assert_eq!(result.expect_err("a fault").kind(), ErrorKind::Full);
        let snapshots = reinstate::snapshots(target.as_ref()).expect("a list");
        assert!(
            snapshots.is_empty(),
            "a failed capture published a snapshot"
        );
    }
    panic!("a capture takes more than {OPERATIONS_MAX} operations");
}

#[test]
fn damaged_bytes_never_reach_the_store() {
    for damage in Damage::ALL {
        for read in 0..OPERATIONS_MAX {
            let scene = Scene::set();
            let inner: Arc<MemoryRepository> = Arc::clone(&scene.repository);
            let fault = RepositoryFault::Damage { read, damage };
            let repository = FaultyRepository::new(inner, fault);
            let result = scene.restore(scene.fixture.store(), &repository, 1);
            let what = format!("{damage:?} at read {read}");
            let committed = scene.expect_all_or_nothing(1, &what);
            if repository.read_count() <= read {
                assert!(result.expect("no damage was met").verdict.is_restored());
                assert!(read > 10, "only {read} reads");
                break;
            }
            match result {
                Ok(restored) => assert!(restored.verdict.is_restored(), "{what}"),
                Err(error) => {
                    let kind = error.kind();
                    let named = matches!(kind, ErrorKind::Corrupt | ErrorKind::Altered);
                    assert!(named && !committed, "{what}: {kind:?}: {error}");
                }
            }
        }
    }
}
