//! A benchmark run on a synthetic snapshot: how fast can one tenant be read, verified?

use std::sync::Arc;
use std::time::Instant;

use reinstate::{CaptureOptions, Context, Resources};
use reinstate_core::{
    Cancellation, RepositoryId, Silent, SnapshotId, SnapshotSource, StoreId, StoreIdentity, Tenant,
    Timestamp,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_repository::LocalRepository;
use reinstate_synthetic::{Flavour, SyntheticSpec, SyntheticStore};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let row_count = std::env::args()
        .nth(1)
        .map_or(Ok(20_000), |rows| rows.parse())?;
    let spec = SyntheticSpec {
        seed: 1,
        tenant_count: 50,
        row_count,
        skew: 1.0,
        large_tenant: None,
    };
    let synthetic = SyntheticStore::try_new(spec, Flavour::Native)?;
    let directory = tempfile::tempdir()?;
    let store = EmbeddedStore::create(
        directory.path().join("live.redb"),
        &EmbeddedOptions::default(),
        StoreIdentity {
            id: StoreId::from_bytes([1; 16]),
            name: "synthetic".to_owned(),
        },
        synthetic.tenant_kind(),
        synthetic.schema().clone(),
    )?;
    store.load(synthetic.begin_capture()?.as_ref())?;

    let start = Timestamp::from_micros(0);
    let repository = LocalRepository::init(
        directory.path().join("repository"),
        RepositoryId::from_bytes([2; 16]),
        start,
    )?;
    let resources = Resources::try_new(reinstate::ResourceOptions::default())?;
    let cancellation = Cancellation::new();
    let context = Context::new(&resources, &Silent, &cancellation);
    let options = CaptureOptions::new(SnapshotId::from_bytes([3; 16]), start);
    let snapshot = Arc::new(reinstate::capture(context, &store, &repository, &options)?);

    let largest = synthetic.tenants_by_size()[0];
    let tenant = Tenant {
        kind: synthetic.tenant_kind(),
        id: synthetic.tenant(largest),
    };
    let image = reinstate::extract(&repository, &snapshot, &tenant)?;
    let begin = Instant::now();
    image.for_each_block(context, |_, _| ())?;
    let seconds = begin.elapsed().as_secs_f64();
    println!(
        "{tenant}: {} bytes of rows in {:.1} ms, {} bytes read for {} stored",
        image.plain_bytes(),
        seconds * 1e3,
        image.bytes_read(),
        image.stored_bytes(),
    );
    Ok(())
}
