//! The reference store keeps every promise, however it may differ where stores may differ.

use reinstate_core::{LiveStore, RowOrder, StoreError};
use reinstate_testkit::certification::{Fixture, Flavour, Profile, standard_schema};
use reinstate_testkit::{ApplicationChange, KeySpace, MemoryOptions, MemoryStore};

/// A memory store of one of the shapes that stores come in.
pub struct MemoryFixture<const SHAPE: u8> {
    store: MemoryStore,
}

/// As a SQL database: columns name the owner.
pub const SQL: u8 = 0;
/// As an embedded store: owners beside the rows, keys per tenant.
pub const EMBEDDED: u8 = 1;
/// Owners beside the rows, keys unique in the table, rows in no order.
pub const UNORDERED: u8 = 2;

fn profile(shape: u8) -> Profile {
    Profile {
        flavour: if shape == SQL {
            Flavour::Columns
        } else {
            Flavour::Native
        },
        key_space: if shape == EMBEDDED {
            KeySpace::PerTenant
        } else {
            KeySpace::Global
        },
        has_counters: shape != EMBEDDED,
        checks_references: false,
    }
}

impl<const SHAPE: u8> Fixture for MemoryFixture<SHAPE> {
    fn create() -> Self {
        let Profile {
            flavour,
            key_space,
            has_counters,
            ..
        } = profile(SHAPE);
        let mut options = MemoryOptions::default();
        options.key_space = key_space;
        options.has_counters = has_counters;
        options.row_order = if SHAPE == UNORDERED {
            RowOrder::Any
        } else {
            RowOrder::Sorted
        };
        let store = MemoryStore::try_new(standard_schema(flavour), options);
        Self {
            store: store.expect("options that fit"),
        }
    }

    fn profile(&self) -> Profile {
        profile(SHAPE)
    }

    fn store(&self) -> &dyn LiveStore {
        &self.store
    }

    fn application_write(&self, changes: &[ApplicationChange]) -> Result<(), StoreError> {
        self.store.write(changes)
    }
}

mod like_sql {
    reinstate_testkit::certify_live_store!(super::MemoryFixture<{ super::SQL }>);
    reinstate_testkit::certify_engine!(super::MemoryFixture<{ super::SQL }>, cases = 200);
}

mod like_embedded {
    reinstate_testkit::certify_live_store!(super::MemoryFixture<{ super::EMBEDDED }>);
    reinstate_testkit::certify_engine!(super::MemoryFixture<{ super::EMBEDDED }>, cases = 100);
}

mod without_order {
    reinstate_testkit::certify_live_store!(super::MemoryFixture<{ super::UNORDERED }>);
    reinstate_testkit::certify_engine!(super::MemoryFixture<{ super::UNORDERED }>, cases = 100);
}
