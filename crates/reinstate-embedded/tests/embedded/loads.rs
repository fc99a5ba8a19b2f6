//! Loading into a store that somebody follows.

use reinstate_core::{
    CaptureView, OwnedRowStream, Owner, Position, SequenceValue, SnapshotSource, StoreError,
    StoreSchema, TableIndex, Timestamp,
};
use reinstate_embedded::EmbeddedStore;

use crate::replica::{Replica, SNAPSHOT};
use crate::storage::Disk;
use crate::support::{
    EVENTS, State, Way, capture, create, identity, kind, many, merge, row, schema, tenant,
};

/// Looks, before each table of a load, at what is already there.
struct Watched<'a> {
    inner: Box<dyn CaptureView + 'a>,
    look: &'a (dyn Fn() + Sync + Send),
}

impl CaptureView for Watched<'_> {
    fn schema(&self) -> &StoreSchema {
        self.inner.schema()
    }

    fn position(&self) -> Position {
        self.inner.position()
    }

    fn taken_at(&self) -> Option<Timestamp> {
        None
    }

    fn sequences(&self) -> &[SequenceValue] {
        &[]
    }

    fn lanes(&self) -> usize {
        1
    }

    fn table_rows(&self, table: TableIndex) -> Result<Box<dyn OwnedRowStream + '_>, StoreError> {
        (self.look)();
        self.inner.table_rows(table)
    }
}

/// A feed that handed out a commit which a crash takes away would be wrong for ever: the store gives
/// the same number to another one.
#[test]
fn a_load_comes_through_the_feed_and_no_commit_of_it_before_it_is_on_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let source = create(&directory.path().join("source"), Way::Aside);
    merge(&source, &tenant(b"a"), &State::new(), &many(400, 1), 1).unwrap();
    let event = row(EVENTS, 7, None);
    source
        .write(|transaction| transaction.table(EVENTS)?.put(&Owner::Shared, event.row()))
        .unwrap();
    let disk = Disk::default();
    let store = EmbeddedStore::create_on(disk.clone(), identity(), kind(), schema()).unwrap();
    let base = Replica::begin(&store, SNAPSHOT);
    let look = || {
        let mut replica = base.clone();
        replica.follow(&store, SNAPSHOT, u64::MAX).unwrap();
        let after_a_crash = EmbeddedStore::open_on(disk.copy(), &Way::InPlace.options()).unwrap();
        assert!(capture(&after_a_crash) == replica.world);
    };
    let watched = Watched {
        inner: source.begin_capture().unwrap(),
        look: &look,
    };
    store.load(&watched).unwrap();
    look();
    let mut replica = base.clone();
    replica.follow(&store, SNAPSHOT, 1).unwrap();
    assert!(replica.world == capture(&source));
}
