//! Measures merges into a store on redb: their speed beside redb's own bulk insert of the same
//! rows, how long other writers wait meanwhile, the memory of a large one, and what a store pays
//! for being followed.
//!
//! `cargo run --release -p reinstate-embedded --example measure -- [speed|waits|memory|followed]`

mod followed;
mod memory;
mod rows;
mod speed;
mod waits;

use std::path::Path;

use reinstate_core::{
    ChangeSource, ContentDigest, Digest, JobId, JournalEntry, LiveStore, RowBatch, StoreId,
    StoreIdentity, TenantId, TenantKind,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};

fn main() {
    let directory = tempfile::tempdir_in(".").expect("a directory on this disk");
    let wanted = std::env::args().nth(1);
    let is_wanted = |name| wanted.as_deref().is_none_or(|wanted| wanted == name);
    if is_wanted("speed") {
        speed::measure(directory.path());
    }
    if is_wanted("waits") {
        waits::measure(directory.path());
    }
    if is_wanted("memory") {
        memory::measure(directory.path());
    }
    if is_wanted("followed") {
        followed::measure(directory.path());
    }
}

/// A store with nothing in it.
fn create(path: &Path) -> EmbeddedStore {
    let identity = StoreIdentity {
        id: StoreId::from_bytes([1; 16]),
        name: "measured".to_owned(),
    };
    let kind = TenantKind::parse("site").expect("a kind");
    EmbeddedStore::create(
        path,
        &EmbeddedOptions::default(),
        identity,
        kind,
        rows::schema(),
    )
    .expect("a new store")
}

fn tenant(number: usize) -> TenantId {
    TenantId::try_new(format!("tenant-{number:05}").into_bytes()).expect("an id")
}

/// One merge as the engine makes it: apply, read back and digest, commit.
fn merge(store: &EmbeddedStore, tenant: &TenantId, plan: &dyn ChangeSource) -> ContentDigest {
    let view = store.read_view().expect("a view");
    let fingerprint = view.fingerprint(tenant).expect("a fingerprint");
    drop(view);
    let mut writer = store
        .begin_merge(tenant, &fingerprint, store.schema())
        .expect("a writer");
    let counted = writer.apply(plan).expect("rows applied");
    assert_eq!(counted.len(), 1);
    assert_eq!(counted[0].1, plan.counts(rows::TABLE));
    let mut digest = ContentDigest::EMPTY;
    {
        let mut stream = writer.read_back(rows::TABLE).expect("rows to read back");
        let mut batch = RowBatch::new();
        while stream.next_batch(&mut batch).expect("rows read back") {
            batch.iter().for_each(|row| digest.add(row));
        }
    }
    let entry = JournalEntry {
        job: JobId::from_bytes([9; 16]),
        tenant: tenant.clone(),
        plan: Digest::from_bytes([3; 32]),
        payload: vec![0; 100],
    };
    writer.commit(&entry).expect("a commit");
    digest
}
