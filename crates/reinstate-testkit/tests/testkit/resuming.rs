//! A plan for several tenants that is stopped at any operation and gone on with: it ends as if nothing had
//! happened, byte for byte.

use std::collections::BTreeMap;
use std::sync::Arc;

use reinstate::{Context, DriftRules, OwnerCheck, PlanRequest, StoredPlan};
use reinstate_core::{
    Cancellation, ErrorKind, JobId, JournalEntry, LiveStore, Policy, Repository, Silent, Tenant,
    TenantId,
};
use reinstate_testkit::certification::{Contents, Fixture, Flavour, Rows, owner, tenant};
use reinstate_testkit::faults::{FaultyRepository, FaultyStore, RepositoryFault, StoreFault};
use reinstate_testkit::{ApplicationChange, KeySpace, MemoryRepository, figures};

use crate::faults::{NOW, OPERATIONS_MAX, Scene};

const TENANTS: [&str; 2] = ["acme", "acme2"];
const JOB: JobId = JobId::from_bytes([9; 16]);
const KINDS: [&str; 3] = ["snapshot", "job", "receipt"];

/// What became of each tenant of a plan.
type Applied = Vec<(TenantId, Result<(), ErrorKind>)>;

/// Everything that a run leaves: the rows of everybody, the store's journal, and every object and record of
/// the repository with its name and its bytes.
#[derive(Clone, Debug, PartialEq)]
struct Left {
    rows: Contents,
    journal: Vec<Option<JournalEntry>>,
    objects: BTreeMap<String, Vec<u8>>,
    records: BTreeMap<(String, [u8; 16]), Vec<u8>>,
}

fn left(scene: &Scene) -> Left {
    let store = scene.fixture.store();
    let repository: &MemoryRepository = &scene.repository;
    let entry = |name: &&str| store.journal_entry(JOB, &tenant(name)).expect("what works");
    let objects = repository.list_objects().expect("what works").into_iter();
    let objects = objects.map(|name| {
        let object = repository.open_object(name).expect("what works");
        let mut bytes = vec![0; usize::try_from(object.byte_count()).expect("what works")];
        object.read_exact_at(0, &mut bytes).expect("what works");
        (name.to_string(), bytes)
    });
    let records = KINDS.into_iter().flat_map(|kind| {
        let names = repository.list(kind).expect("what works").into_iter();
        names.map(move |name| {
            let bytes = repository.read(kind, name).expect("what works");
            ((kind.to_owned(), name), bytes)
        })
    });
    Left {
        rows: scene.contents(),
        journal: TENANTS.iter().map(entry).collect(),
        objects: objects.collect(),
        records: records.collect(),
    }
}

impl Left {
    /// Takes other receipts of the same names.
    fn take_receipts(&mut self, expected: &Self) {
        for ((kind, name), bytes) in &mut self.records {
            if let (true, Some(other)) = (
                kind == "receipt",
                expected.records.get(&(kind.clone(), *name)),
            ) {
                bytes.clone_from(other);
            }
        }
    }
}

/// What differs, by name: all bytes would fill a screen.
#[track_caller]
fn expect_same(found: &Left, expected: &Left, what: &str) {
    let names = |left: &Left| -> Vec<String> {
        let objects = left.objects.keys().cloned();
        let records = left
            .records
            .keys()
            .map(|(kind, name)| format!("{kind} {name:02x?}"));
        objects.chain(records).collect()
    };
    assert_eq!(names(found), names(expected), "{what}");
    assert!(found.rows == expected.rows, "{what}: rows");
    assert_eq!(found.journal, expected.journal, "{what}");
    for (name, bytes) in &found.objects {
        assert!(expected.objects[name] == *bytes, "{what}: object {name}");
    }
    for (name, bytes) in &found.records {
        assert_eq!(expected.records[name], *bytes, "{what}: record {name:02x?}");
    }
}

/// A scene in which both tenants lost rows, with a plan for them.
fn planned() -> (Scene, StoredPlan) {
    let scene = Scene::set();
    damage_other(&scene);
    let plan = plan_for(&scene, &TENANTS);
    (scene, plan)
}

/// What comes after the scene was set: the other tenant has an incident as well.
fn damage_other(scene: &Scene) {
    let rows = Rows {
        flavour: Flavour::Columns,
        key_space: KeySpace::Global,
    };
    let other = owner("acme2");
    scene.write(&[
        ApplicationChange::Put(rows.project(&other, 2, Some("changed"))),
        ApplicationChange::Put(rows.setting(&other, "new", None)),
    ]);
}

/// A plan for some tenants, as job [`JOB`].
fn plan_for(scene: &Scene, names: &[&str]) -> StoredPlan {
    let store = scene.fixture.store();
    let repository: &MemoryRepository = &scene.repository;
    let tenants = names.iter().map(|name| Tenant {
        kind: store.tenant_kind().clone(),
        id: tenant(name),
    });
    let tenants: Vec<_> = tenants.collect();
    let cancellation = Cancellation::new();
    let context = Context::new(&scene.resources, &Silent, &cancellation);
    let images = reinstate::extract_all(context, repository, &scene.snapshot, &tenants);
    let images: Vec<_> = images
        .into_iter()
        .map(|image| image.expect("an image"))
        .collect();
    let request = PlanRequest {
        job: JOB,
        repository: repository.id(),
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        check_owners: OwnerCheck::In(repository),
        planned_at: NOW,
    };
    let output = repository.create_object().expect("a repository that works");
    let written = reinstate::plan(context, &images, store, &request, output).expect("a plan");
    StoredPlan::open(repository, written.object).expect("what was written")
}

/// Applies the plan until it is done or `stop` is cancelled; which of the tenants were merged.
fn apply_until(
    stop: &Cancellation,
    scene: &Scene,
    plan: &StoredPlan,
    store: &dyn LiveStore,
    repository: &dyn Repository,
) -> Result<Applied, ErrorKind> {
    let context = Context::new(&scene.resources, &Silent, stop);
    let outcomes = reinstate::apply(context, plan, store, repository, NOW);
    let outcomes = outcomes.map_err(|error| error.kind())?;
    let results = outcomes.into_iter().map(|outcome| {
        let result = outcome.result.map(drop).map_err(|error| error.kind());
        (outcome.tenant, result)
    });
    Ok(results.collect())
}

fn apply(
    scene: &Scene,
    plan: &StoredPlan,
    store: &dyn LiveStore,
    repository: &dyn Repository,
) -> Result<Applied, ErrorKind> {
    apply_until(&Cancellation::new(), scene, plan, store, repository)
}

/// Goes on with what was stopped: what was merged is proven and not merged again, everything else is merged.
fn go_on(scene: &Scene, plan: &StoredPlan, what: &str) {
    let store = scene.fixture.store();
    let repository = scene.repository.as_ref();
    let cancellation = Cancellation::new();
    let context = Context::new(&scene.resources, &Silent, &cancellation);
    let was_merged = |id: &TenantId| store.journal_entry(JOB, id).expect("what works").is_some();
    let before = TENANTS.map(|name| was_merged(&tenant(name)));
    let results = apply(scene, plan, store, repository).expect("what works");
    for ((id, result), was_merged) in results.into_iter().zip(before) {
        if !was_merged {
            assert_eq!(result, Ok(()), "{what}: {id}");
            continue;
        }
        assert_eq!(result, Err(ErrorKind::Stale), "{what}: {id}");
        let proven = reinstate::apply_once(context, plan, &id, store, repository, NOW);
        assert!(
            proven.expect("what works").verdict.is_restored(),
            "{what}: {id}"
        );
    }
}

/// What goes wrong with a run.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// It is told to stop, just before a call of the store.
    Told,
    /// A call of the store fails. The tenants after that one go on.
    Store,
    /// The repository fails from an operation on, as after a crash.
    Repository,
}

/// Stops a run at this call or operation; false if it has fewer.
fn is_stopped(how: Stop, at: u64, scene: &Scene, plan: &StoredPlan) -> bool {
    let store = scene.fixture.store();
    let kind = ErrorKind::Full;
    if let Stop::Repository = how {
        let repository = Arc::<MemoryRepository>::clone(&scene.repository);
        let fault = RepositoryFault::FailFrom {
            operation: at,
            kind,
        };
        let repository = FaultyRepository::new(repository, fault);
        let _ = apply(scene, plan, store, &repository);
        return repository.operation_count() > at;
    }
    let stop = Cancellation::new();
    let fault = match how {
        Stop::Told => StoreFault::Interlope { call: at },
        _ => StoreFault::Fail { call: at, kind },
    };
    let faulty = FaultyStore::with_interloper(store, fault, || stop.cancel());
    let _ = apply_until(&stop, scene, plan, &faulty, scene.repository.as_ref());
    faulty.call_count() > at
}

#[test]
fn a_run_that_was_stopped_at_any_operation_ends_as_one_that_was_not() {
    let (scene, plan) = planned();
    let before = scene.contents();
    let store = scene.fixture.store();
    apply(&scene, &plan, store, scene.repository.as_ref()).expect("what works");
    let expected = left(&scene);
    assert!(expected.rows != before && expected.journal.iter().all(Option::is_some));
    let (mut stopped, mut partly) = (0, 0);
    for how in [Stop::Told, Stop::Store, Stop::Repository] {
        for at in 0.. {
            assert!(at < OPERATIONS_MAX);
            let (scene, plan) = planned();
            if !is_stopped(how, at, &scene, &plan) {
                break;
            }
            stopped += 1;
            partly += u64::from(left(&scene).journal.iter().flatten().count() == 1);
            let what = format!("{how:?} {at}");
            go_on(&scene, &plan, &what);
            let mut found = left(&scene);
            if let Stop::Store = how {
                // The order of the tenants is another one, and so are their commits.
                found.take_receipts(&expected);
            }
            expect_same(&found, &expected, &what);
            // And a finished run that is repeated writes nothing.
            let once = left(&scene);
            go_on(&scene, &plan, &what);
            expect_same(&left(&scene), &once, &format!("{what}: repeated"));
        }
    }
    assert!(stopped > 60 && partly > 10, "{stopped} {partly}");
    figures::record(
        "resumed-runs",
        &[
            ("runs stopped", stopped),
            ("of them between two tenants", partly),
            ("violations", 0),
        ],
    );
}

/// The same job in the journal of the store, or in the repository, with another plan.
#[test]
fn a_job_that_was_used_for_something_else_writes_nothing() {
    let (scene, plan) = planned();
    let store = scene.fixture.store();
    apply(&scene, &plan, store, scene.repository.as_ref()).expect("what works");
    let (merged, rows) = (left(&scene), scene.contents());
    damage_other(&scene);
    let damaged = scene.contents();
    assert!(damaged != rows);
    // Another repository knows nothing of the job. The store's journal does.
    let (elsewhere, other) = planned();
    let results = apply(&scene, &other, store, elsewhere.repository.as_ref()).expect("what works");
    for (id, result) in results {
        assert_eq!(result, Err(ErrorKind::Stale), "{id}");
    }
    assert!(scene.contents() == damaged);
    // A plan of this repository that says it is that job.
    let plan = plan_for(&scene, &TENANTS[..1]);
    let refused = apply(&scene, &plan, store, scene.repository.as_ref());
    assert_eq!(refused.expect_err("refused"), ErrorKind::Altered);
    assert!(scene.contents() == damaged);
    assert_eq!(left(&scene).journal, merged.journal);
}
