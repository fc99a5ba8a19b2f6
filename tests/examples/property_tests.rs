//! Property tests of a store of one's own: say how to make one and how its application writes,
//! and the kit tries random histories on it.
//!
//! Here the store is the kit's own in memory; in an adapter's tests, `certify_live_store!` and
//! `certify_engine!` make one test of each property and suite instead of the loops below.

use reinstate_core::{LiveStore, StoreError};
use reinstate_testkit::certification::{Fixture, Flavour, Profile, standard_schema};
use reinstate_testkit::{ApplicationChange, KeySpace, MemoryOptions, MemoryStore};

/// The store under test.
struct MyStore(MemoryStore);

impl Fixture for MyStore {
    fn create() -> Self {
        let schema = standard_schema(Flavour::Native);
        let store = MemoryStore::try_new(schema, MemoryOptions::default());
        Self(store.expect("a store in memory"))
    }

    fn profile(&self) -> Profile {
        Profile {
            flavour: Flavour::Native,
            key_space: KeySpace::Global,
            has_counters: true,
            checks_references: true,
        }
    }

    fn store(&self) -> &dyn LiveStore {
        &self.0
    }

    fn application_write(&self, changes: &[ApplicationChange]) -> Result<(), StoreError> {
        self.0.write(changes)
    }
}

fn main() {
    for suite in reinstate_testkit::engine::SUITES {
        reinstate_testkit::engine::check::<MyStore>(suite.name, 10);
    }
}
