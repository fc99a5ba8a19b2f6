//! A capture larger than its memory, read back on any number of threads, holds the known answer.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use reinstate::{
    BlockLayout, CaptureOptions, Context, DriftRules, OwnerCheck, PlanRequest, ResourceOptions,
    Resources, TenantImage,
};
use reinstate_core::{
    Cancellation, ContentDigest, JobId, Policy, Repository, RowBatch, Silent, SnapshotDescription,
    SnapshotId, Tenant, Timestamp,
};
use reinstate_synthetic::{Flavour, LargeTenant, SyntheticSpec, SyntheticStore, Table};
use reinstate_testkit::{MemoryRepository, SyntheticLive};

#[test]
fn a_capture_larger_than_its_memory_holds_the_known_answer_on_any_number_of_threads() {
    let spec = SyntheticSpec {
        seed: 11,
        tenant_count: 40,
        row_count: 120_000,
        skew: 0.8,
        large_tenant: Some(LargeTenant {
            index: 6,
            row_count: 60_000,
        }),
    };
    let store = SyntheticStore::try_new(spec, Flavour::Columns).expect("a spec in bounds");
    let live = SyntheticLive::new(store);
    let mut plans = Vec::new();
    let mut stored_bytes = Vec::new();
    let columns = BlockLayout::Columns;
    for (threads, dictionary_bytes_max, layout) in [
        (1, 0, BlockLayout::Rows),
        (3, 0, BlockLayout::Rows),
        (3, 8 * 1024, BlockLayout::Rows),
        (3, 0, columns),
        (1, 8 * 1024, columns),
    ] {
        let resources = ResourceOptions {
            threads: NonZeroUsize::new(threads).expect("not zero"),
            memory_bytes_max: reinstate::MEMORY_BYTES_MIN,
            ..ResourceOptions::default()
        };
        let resources = Resources::try_new(resources).expect("threads");
        let cancellation = Cancellation::new();
        let context = Context::new(&resources, &Silent, &cancellation);
        let repository = MemoryRepository::default();
        let now = Timestamp::from_micros(0);
        let mut options = CaptureOptions::new(SnapshotId::from_bytes([1; 16]), now);
        options.dictionary_bytes_max = dictionary_bytes_max;
        options.layout = layout;
        let snapshot = reinstate::capture(context, &live, &repository, &options);
        let snapshot = Arc::new(snapshot.expect("a capture"));
        assert_eq!(snapshot.tenant_count, 40);
        let totals = snapshot.totals.iter();
        stored_bytes.push(totals.map(|table| table.stored_bytes).sum::<u64>());
        let images = expect_known_answer(&live, &repository, &snapshot);
        expect_known_blocks(context, &live, &images[6]);
        let request = PlanRequest {
            job: JobId::from_bytes([4; 16]),
            repository: repository.id(),
            policy: Policy::EXACT,
            drift: DriftRules::default(),
            check_owners: OwnerCheck::Off,
            planned_at: now,
        };
        let output = repository.create_object().expect("memory");
        let plan = reinstate::plan(context, &images, &live, &request, output).expect("a plan");
        let changed = plan
            .description
            .tenants
            .iter()
            .flat_map(|part| &part.tables);
        assert_eq!(changed.map(|table| table.counts.total()).sum::<u64>(), 0);
        plans.push((
            plan.digest,
            images.iter().map(TenantImage::digest).collect::<Vec<_>>(),
        ));
    }
    assert!(
        plans.windows(2).all(|pair| pair[0] == pair[1]),
        "threads or dictionaries change the result"
    );
    assert_eq!(stored_bytes[0], stored_bytes[1]);
    assert!(stored_bytes[2] < stored_bytes[1], "{stored_bytes:?}");
}

/// Finds every tenant, with the contents it must have.
fn expect_known_answer(
    live: &SyntheticLive,
    repository: &dyn Repository,
    snapshot: &Arc<SnapshotDescription>,
) -> Vec<TenantImage> {
    let image = |index| {
        let tenant = Tenant {
            kind: snapshot.tenant_kind.clone(),
            id: live.answer().tenant(index),
        };
        let image = reinstate::extract(repository, snapshot, &tenant).expect("an image");
        for table in Table::OWNED.map(Table::index) {
            let expected = live.answer().digest_of(index, table);
            assert_eq!(image.content(table), expected, "{tenant}, table {table:?}");
        }
        image
    };
    (0..live.answer().spec().tenant_count).map(image).collect()
}

/// Reads the large tenant's comments on all threads.
fn expect_known_blocks(context: Context<'_>, live: &SyntheticLive, large: &TenantImage) {
    let read = Mutex::new(ContentDigest::EMPTY);
    let comments = Table::Comments.index();
    let each = |table, rows: &RowBatch| {
        if table == comments {
            let mut read = read.lock().expect("no panic");
            rows.iter().for_each(|row| read.add(row));
        }
    };
    large
        .for_each_block(context, each)
        .expect("blocks that are whole");
    let expected = live.answer().digest_of(6, comments);
    assert_eq!(read.into_inner().expect("no panic"), expected);
}
