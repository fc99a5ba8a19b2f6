//! The pace of a run: kept between merges, and never in the middle of one that others wait for.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use reinstate::{
    CaptureOptions, Context, DriftRules, Pace, PaceLimits, ResourceOptions, Resources,
    RestoreRequest, TenantOutcome,
};
use reinstate_core::{
    Cancellation, Clock, ErrorKind, Fingerprint, JobId, LiveStore, Policy, Silent, SnapshotId,
    Tenant, Timestamp,
};
use reinstate_testkit::certification::{Fixture, Flavour, Rows, owner, tenant};
use reinstate_testkit::{ApplicationChange, KeySpace, MemoryRepository};

use crate::memory::{MemoryFixture, SQL};

const NAMES: [&str; 3] = ["acme", "acme2", "b"];
/// Rows that each of them loses.
const LOST: u64 = 40;
const NOW: Timestamp = Timestamp::from_micros(0);

/// A clock that moves when it is waited for, and looks then who is being merged.
struct Watch<'s> {
    store: &'s dyn LiveStore,
    micros: AtomicU64,
    waits: AtomicU64,
    waits_inside: AtomicU64,
}

impl Clock for Watch<'_> {
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed))
    }

    fn wait(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).expect("a short wait");
        self.micros.fetch_add(micros + 1, Ordering::Relaxed);
        self.waits.fetch_add(1, Ordering::Relaxed);
        let schema = self.store.read_view().expect("a view").schema().clone();
        for name in NAMES {
            let nothing = Fingerprint::new(Vec::new());
            let merge = self.store.begin_merge(&tenant(name), &nothing, &schema);
            let is_open = merge.is_err_and(|error| error.kind() == ErrorKind::Locked);
            self.waits_inside
                .fetch_add(u64::from(is_open), Ordering::Relaxed);
        }
    }
}

#[test]
fn a_run_keeps_its_pace_between_transactions_and_never_inside_of_one() {
    let fixture = MemoryFixture::<SQL>::create();
    let store = fixture.store();
    store.prepare().unwrap();
    let rows = Rows {
        flavour: Flavour::Columns,
        key_space: KeySpace::Global,
    };
    let mut lost = Vec::new();
    for (number, name) in (0..).zip(NAMES) {
        for id in 0..40 {
            lost.push(rows.project(&owner(name), 100 * number + id, Some("lost")));
        }
    }
    let put: Vec<_> = lost.iter().cloned().map(ApplicationChange::Put).collect();
    fixture.application_write(&put).unwrap();
    let resources = Resources::try_new(ResourceOptions::default()).unwrap();
    let cancellation = Cancellation::new();
    let context = Context::new(&resources, &Silent, &cancellation);
    let repository = MemoryRepository::default();
    let options = CaptureOptions::new(SnapshotId::from_bytes([3; 16]), NOW);
    let snapshot = reinstate::capture(context, store, &repository, &options).unwrap();
    let gone: Vec<_> = lost.into_iter().map(ApplicationChange::Delete).collect();
    fixture.application_write(&gone).unwrap();

    let watch = Watch {
        store,
        micros: AtomicU64::new(0),
        waits: AtomicU64::new(0),
        waits_inside: AtomicU64::new(0),
    };
    let probe = || store.probe();
    let limits = PaceLimits {
        rows_per_second: NonZeroU64::new(10),
        latency_max: Some(Duration::from_secs(1)),
    };
    let pace = Pace::new(&watch, &probe, limits);
    let request = RestoreRequest {
        job: JobId::from_bytes([1; 16]),
        snapshot: Arc::new(snapshot),
        tenants: NAMES
            .map(|name| Tenant {
                kind: store.tenant_kind().clone(),
                id: tenant(name),
            })
            .to_vec(),
        policy: Policy::EXACT,
        drift: DriftRules::default(),
        requested_at: NOW,
    };
    let outcomes = reinstate::restore(context.paced(&pace), store, &repository, &request).unwrap();
    assert!(outcomes.iter().all(TenantOutcome::is_restored));

    let report = pace.report();
    assert_eq!(report.rows, 3 * LOST);
    assert!(report.probes > 2, "{report:?}");
    // The last tenant's rows are paid for by whoever comes next.
    let expected = Duration::from_secs(2 * LOST / 10);
    let waited = watch.elapsed();
    assert!(
        expected <= waited && waited < expected + Duration::from_secs(1),
        "{waited:?}"
    );
    let inside = watch.waits_inside.load(Ordering::Relaxed);
    assert_eq!(
        inside,
        0,
        "of {} waits",
        watch.waits.load(Ordering::Relaxed)
    );
}
