//! What somebody has who took a store's base and follows its feed. Every change has to fit what is
//! there: one that is lost, doubled or out of its order does not.

use reinstate_core::{
    CaptureView, Change, ChangeFeed, ChangeSink, Commit, FeedRow, FeedSource, Position, SnapshotId,
    StoreError, TableIndex, Timestamp,
};
use reinstate_embedded::EmbeddedStore;

use crate::support::{World, schema, world_of};

pub(crate) const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([7; 16]);

pub(crate) fn at(commit: u64) -> Position {
    Position { commit, ordinal: 0 }
}

/// A copy of a store, as far as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    pub(crate) world: World,
    pub(crate) through: u64,
    pub(crate) commits: Vec<ReadCommit>,
    changes: usize,
}

/// What was read of a commit.
#[derive(Clone, Debug)]
pub(crate) struct ReadCommit {
    pub(crate) position: u64,
    pub(crate) time: Timestamp,
    pub(crate) changes: usize,
    /// Everything, just after it.
    pub(crate) world: World,
}

/// The same world; owners without rows are not mentioned.
pub(crate) fn owners_with_rows(mut world: World) -> World {
    for state in world.values_mut() {
        state.retain(|_, rows| !rows.is_empty());
    }
    world.retain(|_, state| !state.is_empty());
    world
}

impl Replica {
    pub(crate) fn of(view: &dyn CaptureView) -> Self {
        assert_eq!(view.position().ordinal, 0);
        assert!(view.taken_at().is_some(), "a feed's view knows its time");
        Self {
            world: world_of(view),
            through: view.position().commit,
            commits: Vec::new(),
            changes: 0,
        }
    }

    /// Begins a feed and takes its base.
    pub(crate) fn begin(store: &EmbeddedStore, snapshot: SnapshotId) -> Self {
        Self::of(store.begin_feed(snapshot).unwrap().as_ref())
    }

    /// Reads the feed on from where this is, so many bytes at a time, to its end.
    pub(crate) fn follow(
        &mut self,
        store: &EmbeddedStore,
        snapshot: SnapshotId,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let mut feed = store.resume_feed(snapshot, at(self.through))?;
        while self.step(feed.as_mut(), bytes)? {}
        Ok(())
    }

    /// Reads once; returns whether there is more.
    pub(crate) fn step(
        &mut self,
        feed: &mut dyn ChangeFeed,
        bytes: u64,
    ) -> Result<bool, StoreError> {
        let before = self.through;
        let progress = feed.read(bytes, self)?;
        assert_eq!(self.changes, 0, "changes without their commit");
        assert_eq!(progress.through, at(self.through));
        assert!(!progress.has_more || before < self.through, "no progress");
        Ok(progress.has_more)
    }

    fn insert(&mut self, table: TableIndex, row: FeedRow<'_>) {
        let has_key = schema().table(table).has_key();
        let owner = row.owner.expect("the owner beside the row").to_vec();
        let rows = self.world.entry(owner).or_default();
        let rows = rows.entry(table).or_default();
        let (key, columns) = (row.row.key().to_vec(), row.row.columns().to_vec());
        assert_eq!(!key.is_empty(), has_key);
        assert!(
            !has_key || rows.keys().all(|(other, _)| *other != key),
            "a row that is there already"
        );
        *rows.entry((key, columns)).or_default() += 1;
    }

    fn delete(&mut self, table: TableIndex, row: FeedRow<'_>) {
        let owner = row.owner.expect("the owner beside the row");
        let place = (row.row.key().to_vec(), row.row.columns().to_vec());
        let rows = self.world.get_mut(owner).expect("an owner with rows");
        let rows = rows.get_mut(&table).expect("a table with rows");
        let copies = rows.get_mut(&place).expect("the row as it was before");
        *copies -= 1;
        if *copies == 0 {
            rows.remove(&place);
        }
    }
}

impl ChangeSink for Replica {
    fn change(&mut self, change: Change<'_>) -> Result<(), StoreError> {
        self.changes += 1;
        match change {
            Change::Insert { table, row } => self.insert(table, row),
            Change::Update {
                table,
                before,
                after,
            } => {
                assert_eq!(before.row.key(), after.row.key());
                self.delete(table, before);
                self.insert(table, after);
            }
            Change::Delete { table, before } => self.delete(table, before),
            Change::Truncate { .. } => panic!("nothing here truncates a table"),
        }
        Ok(())
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        assert_eq!(commit.position, at(self.through + 1), "commits in order");
        self.through += 1;
        self.world = owners_with_rows(std::mem::take(&mut self.world));
        self.commits.push(ReadCommit {
            position: self.through,
            time: commit.time,
            changes: std::mem::take(&mut self.changes),
            world: self.world.clone(),
        });
        Ok(())
    }
}
