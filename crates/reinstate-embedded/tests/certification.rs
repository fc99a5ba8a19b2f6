//! The store on redb keeps every promise of a live store, and the engine's on it.

use redb::backends::InMemoryBackend;
use reinstate_core::{
    FeedSource, LiveStore, SnapshotId, StoreError, StoreId, StoreIdentity, TenantKind,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_testkit::certification::{Fixture, Flavour, Profile, standard_schema};
use reinstate_testkit::{ApplicationChange, KeySpace};

/// A store in a file of its own, or in memory, where commits cost nothing. It merges this many
/// rows in place, and more by building them aside. Somebody follows it, or nobody does.
struct EmbeddedFixture<
    const IN_FILE: bool,
    const IN_PLACE_ROWS_MAX: u64 = 4096,
    const IS_FOLLOWED: bool = false,
> {
    store: EmbeddedStore,
    _directory: Option<tempfile::TempDir>,
}

impl<const IN_FILE: bool, const IN_PLACE_ROWS_MAX: u64, const IS_FOLLOWED: bool> Fixture
    for EmbeddedFixture<IN_FILE, IN_PLACE_ROWS_MAX, IS_FOLLOWED>
{
    fn create() -> Self {
        let schema = standard_schema(Flavour::Native);
        let kind = TenantKind::parse("site").expect("a kind");
        let identity = StoreIdentity {
            id: StoreId::from_bytes([7; 16]),
            name: "certified".to_owned(),
        };
        if !IN_FILE {
            let store = EmbeddedStore::create_on(InMemoryBackend::new(), identity, kind, schema);
            return Self {
                store: store.expect("a store in memory"),
                _directory: None,
            };
        }
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("store.redb");
        let mut options = EmbeddedOptions::default();
        options.in_place_rows_max = IN_PLACE_ROWS_MAX;
        let store = EmbeddedStore::create(path, &options, identity, kind, schema);
        let store = store.expect("a store in a file");
        if IS_FOLLOWED {
            let feed = store.begin_feed(SnapshotId::from_bytes([9; 16]));
            drop(feed.expect("a feed"));
        }
        Self {
            store,
            _directory: Some(directory),
        }
    }

    fn profile(&self) -> Profile {
        Profile {
            flavour: Flavour::Native,
            key_space: KeySpace::PerTenant,
            has_counters: false,
            checks_references: false,
        }
    }

    fn store(&self) -> &dyn LiveStore {
        &self.store
    }

    fn application_write(&self, changes: &[ApplicationChange]) -> Result<(), StoreError> {
        self.store.write(|transaction| {
            for change in changes {
                let row = change.row();
                let (index, table) = row.find(self.store.schema())?;
                let mut batch = reinstate_core::RowBatch::new();
                row.encode(table, &mut batch)?;
                let mut writer = transaction.table(index)?;
                for encoded in batch.iter() {
                    match change {
                        ApplicationChange::Put(_) => writer.put(&row.owner, encoded)?,
                        ApplicationChange::Delete(_) => {
                            writer.delete(&row.owner, encoded)?;
                        }
                    }
                }
            }
            Ok(())
        })
    }
}

mod in_a_file {
    reinstate_testkit::certify_live_store!(super::EmbeddedFixture<true>);
    reinstate_testkit::certify_engine!(super::EmbeddedFixture<true>, cases = 10);
}

mod aside_in_a_file {
    reinstate_testkit::certify_live_store!(super::EmbeddedFixture<true, 0>);
    reinstate_testkit::certify_engine!(super::EmbeddedFixture<true, 0>, cases = 10);
}

mod followed_in_a_file {
    reinstate_testkit::certify_live_store!(super::EmbeddedFixture<true, 4096, true>);
    reinstate_testkit::certify_engine!(super::EmbeddedFixture<true, 4096, true>, cases = 5);
}

mod followed_aside_in_a_file {
    reinstate_testkit::certify_live_store!(super::EmbeddedFixture<true, 0, true>);
    reinstate_testkit::certify_engine!(super::EmbeddedFixture<true, 0, true>, cases = 5);
}

mod in_memory {
    reinstate_testkit::certify_engine!(super::EmbeddedFixture<false>, cases = 60);
}

/// Sixty of a thousand tenants restored again and again while eight threads write to the others.
mod under_load {
    use std::time::Duration;

    use reinstate_testkit::engine::{Load, check_load};

    use super::EmbeddedFixture;

    const LOAD: Load = Load {
        tenants: 1000,
        restored: 60,
        writers: 8,
        runs: 0,
        pause: Duration::from_millis(4),
    };

    #[test]
    fn restores_in_place_lose_no_write_of_others() {
        check_load::<EmbeddedFixture<false>>("load-embedded", Load { runs: 135, ..LOAD });
    }

    #[test]
    fn restores_aside_in_a_file_lose_no_write_of_others() {
        let load = Load { runs: 25, ..LOAD };
        check_load::<EmbeddedFixture<true, 0>>("load-embedded-aside", load);
    }

    #[test]
    fn restores_of_a_followed_store_lose_no_write_of_others() {
        let load = Load { runs: 40, ..LOAD };
        check_load::<EmbeddedFixture<true, 4096, true>>("load-embedded-followed", load);
    }
}
