//! The whole path over a log: an embedded store is captured and followed, a tenant is wiped out in the
//! middle of everybody's writes, and brought back as it was just before that.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use reinstate::{
    CaptureOptions, Context, DriftRules, FollowOptions, Follower, Moment, OwnerCheck, PlanRequest,
    ResourceOptions, Resources, RestorePoint, StoredPlan, apply, begin_log, extract_at, log_of,
    plan,
};
use reinstate_core::{
    Cancellation, FeedSource, JobId, LiveStore, OwnedRowBatch, Owner, Policy, Repository,
    RepositoryId, RowBatch, Silent, SnapshotId, SnapshotSource, StoreId, StoreIdentity, Tenancy,
    Tenant, TenantId, Timestamp,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_repository::LocalRepository;
use reinstate_synthetic::{Flavour, SyntheticSpec, SyntheticStore};

const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([3; 16]);

/// Every row of each owner, sorted: table, then the row.
type World = BTreeMap<Vec<u8>, Vec<(u32, Vec<u8>)>>;

static NOW: AtomicI64 = AtomicI64::new(1_000);

/// A clock that goes on by one with every look.
fn clock() -> Timestamp {
    Timestamp::from_micros(NOW.fetch_add(1, Ordering::SeqCst))
}

fn options() -> EmbeddedOptions {
    let mut options = EmbeddedOptions::default();
    // Large restores are built aside, small ones are not.
    options.in_place_rows_max = 400;
    options.clock = clock;
    options
}

fn create(path: &Path) -> EmbeddedStore {
    let spec = SyntheticSpec {
        seed: 11,
        tenant_count: 12,
        row_count: 6_000,
        skew: 1.0,
        large_tenant: None,
    };
    let data = SyntheticStore::try_new(spec, Flavour::Native).expect("a synthetic store");
    let identity = StoreIdentity {
        id: StoreId::from_bytes([1; 16]),
        name: "followed".to_owned(),
    };
    let (kind, schema) = (data.tenant_kind(), data.schema().clone());
    let store = EmbeddedStore::create(path, &options(), identity, kind, schema).expect("a store");
    let view = data.begin_capture().expect("synthetic rows");
    store.load(view.as_ref()).expect("rows loaded");
    store
}

fn world(store: &EmbeddedStore) -> World {
    let view = store.begin_capture().expect("a view");
    let mut world = World::new();
    for (index, table) in store.schema().iter() {
        if table.tenancy == Tenancy::Excluded {
            continue;
        }
        let mut rows = view.table_rows(index).expect("rows");
        let mut batch = OwnedRowBatch::new();
        while rows.next_batch(&mut batch).expect("rows") {
            for (owner, row) in batch.iter() {
                let rows = world.entry(owner.to_vec()).or_default();
                rows.push((index.0, row.body().to_vec()));
            }
        }
    }
    world.values_mut().for_each(|rows| rows.sort());
    world
}

fn last_commit(store: &EmbeddedStore) -> u64 {
    store.read_view().expect("a view").position().commit
}

fn owner(tenant: &str) -> Owner {
    Owner::Tenant(tenant.parse::<TenantId>().expect("an id"))
}

/// Takes some rows of one tenant away and gives copies of others to the next one, in one transaction.
fn shuffle(store: &EmbeddedStore, from: &str, to: &str, every: usize) {
    for (index, table) in store.schema().iter() {
        if !table.tenancy.is_tenant_owned() {
            continue;
        }
        let mut all = RowBatch::new();
        let read = store.read().expect("a transaction");
        let collect = |batch: &RowBatch| {
            batch.iter().for_each(|row| all.push_row(row));
            Ok(())
        };
        read.rows(&owner(from), index, collect).expect("rows");
        let write = store.write(|transaction| {
            let mut table = transaction.table(index)?;
            for (number, row) in all.iter().enumerate() {
                if number % every == 0 {
                    table.delete(&owner(from), row)?;
                } else if number % every == 1 {
                    table.put(&owner(to), row)?;
                }
            }
            Ok(())
        });
        write.expect("a transaction");
    }
}

fn wipe(store: &EmbeddedStore, tenant: &str) {
    let write = store.write(|transaction| {
        for (index, table) in store.schema().iter() {
            if table.tenancy.is_tenant_owned() {
                transaction.table(index)?.delete_all(&owner(tenant))?;
            }
        }
        Ok(())
    });
    write.expect("a transaction");
}

fn follow(context: Context<'_>, store: &EmbeddedStore, repository: &LocalRepository) {
    let mut options = FollowOptions::default();
    options.run_bytes_target = 20_000;
    let mut follower =
        Follower::start(context, store, repository, SNAPSHOT, options).expect("a follower");
    follower.mark().expect("a mark");
    while follower.step(clock()).expect("a step").has_more {}
}

/// Brings a tenant back to just before this commit, by the log.
fn restore(
    context: Context<'_>,
    store: &EmbeddedStore,
    repository: &LocalRepository,
    wiped_by: u64,
    tenant: &str,
) {
    let log = log_of(repository, SNAPSHOT).expect("a log");
    let commit = reinstate_core::Position {
        commit: wiped_by,
        ordinal: 0,
    };
    let around = log.around(repository, commit).expect("commits");
    let wipe = around.expect("covered").before.expect("the wipe");
    assert_eq!(wipe.position, commit);
    // The time of the wipe, which is left out, means the same.
    let moment = Moment {
        time: wipe.time,
        exclusive: true,
    };
    let before = log
        .at(repository, moment)
        .expect("commits")
        .expect("covered");
    assert_eq!(before.position.commit, wiped_by - 1);
    let point = RestorePoint {
        position: before.position,
        time: moment.time,
    };
    let tenant = format!("account:{tenant}")
        .parse::<Tenant>()
        .expect("a tenant");
    let image = extract_at(context, repository, &log, point, &tenant).expect("an image");
    let request = PlanRequest {
        job: JobId::from_bytes([u8::try_from(wiped_by % 251).expect("a byte"); 16]),
        repository: repository.id(),
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        check_owners: OwnerCheck::Off,
        planned_at: clock(),
    };
    let output = repository.create_object().expect("an object");
    let written = plan(context, &[image], store, &request, output).expect("a plan");
    let stored = StoredPlan::open(repository, written.object).expect("the plan");
    let outcomes = apply(context, &stored, store, repository, clock()).expect("a run");
    assert!(
        outcomes.iter().all(reinstate::TenantOutcome::is_restored),
        "{outcomes:?}"
    );
}

#[test]
fn a_tenant_of_a_followed_store_is_brought_back_to_the_commit_before_it_was_wiped_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("app.redb");
    let mut store = create(&path);
    let id = RepositoryId::from_bytes([2; 16]);
    let repository = LocalRepository::init(directory.path().join("repository"), id, clock());
    let repository = repository.expect("a repository");
    let resources = Resources::try_new(ResourceOptions::default()).expect("resources");
    let cancellation = Cancellation::new();
    let context = Context::new(&resources, &Silent, &cancellation);
    let capture = CaptureOptions::new(SNAPSHOT, clock());
    begin_log(context, &store, &repository, &capture).expect("a snapshot");
    // The largest tenant, restored aside, and the smallest, restored in place.
    for victim in ["1", "12"] {
        shuffle(&store, "2", "3", 3);
        shuffle(&store, victim, "4", 7);
        shuffle(&store, "4", victim, 11);
        let before = world(&store);
        wipe(&store, victim);
        let wiped_by = last_commit(&store);
        shuffle(&store, "3", victim, 5);
        shuffle(&store, "5", "2", 4);
        follow(context, &store, &repository);
        shuffle(&store, "2", "6", 5);
        // Another process goes on.
        drop(store);
        store = EmbeddedStore::open(&path, &options()).expect("the store");
        follow(context, &store, &repository);
        let others = world(&store);
        let key = victim.as_bytes();
        assert_ne!(others[key], before[key]);
        restore(context, &store, &repository, wiped_by, victim);
        let after = world(&store);
        assert!(after[key] == before[key], "as it was before");
        let without = |mut world: World| {
            world.remove(key);
            world
        };
        assert!(without(after) == without(others), "others untouched");
    }
    // The log has the restores too: at its end, every tenant is as in the store.
    follow(context, &store, &repository);
    let log = log_of(&repository, SNAPSHOT).expect("a log");
    assert_eq!(log.through().commit, last_commit(&store));
    let point = RestorePoint {
        position: log.through(),
        time: clock(),
    };
    for (owner, expected) in world(&store).iter().filter(|(owner, _)| !owner.is_empty()) {
        let tenant = format!("account:{}", String::from_utf8_lossy(owner));
        let tenant = tenant.parse::<Tenant>().expect("a tenant");
        let image = extract_at(context, &repository, &log, point, &tenant).expect("an image");
        let mut found = Vec::new();
        for table in image.tables() {
            let mut rows = image.rows(context, table);
            let mut batch = RowBatch::new();
            while reinstate_core::RowStream::next_batch(&mut rows, &mut batch).expect("rows") {
                found.extend(batch.iter().map(|row| (table.0, row.body().to_vec())));
            }
        }
        found.sort();
        assert!(found == *expected, "{tenant} at the end of the log");
    }
    let health = store.feeds().expect("feeds");
    assert_eq!((health.len(), health[0].kept_bytes), (1, 0));
    store.end_feed(SNAPSHOT).expect("the end");
}
