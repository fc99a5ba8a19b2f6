//! What is committed after a snapshot: all of it, once, in order.

mod altered;
mod changes;
mod ends;
mod exact;
mod faults;
mod migrations;
mod partitions;
mod protected;
mod refusals;
mod session;
mod streamed;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use reinstate_core::{
    CaptureView, Change, ChangeFeed, ChangeSink, ColumnOrigin, Commit, ErrorKind, FeedProgress,
    FeedSource, FeedTables, OwnedRowBatch, Position, RowBatch, RowBuilder, RowRef, SchemaChange,
    SnapshotId, SnapshotSource, StoreError, StoreSchema, TableIndex, TableOrigin,
};
use reinstate_postgres::PostgresStore;
use reinstate_testkit::cluster::{ClusterOptions, PostgresCluster};

use crate::ground::Ground;

pub const SNAPSHOT: SnapshotId = SnapshotId::from_bytes([0x5a; 16]);

/// Every table logs its old rows whole.
pub const FULL: &str = "
DO $$ DECLARE t regclass; BEGIN
    FOR t IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'reinstate' AND n.nspname !~ '^pg_'
                AND n.nspname <> 'information_schema' AND c.relpersistence = 'p' LOOP
        EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', t);
    END LOOP;
END $$;";

/// All rows of a store, by table: key and columns, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content(BTreeMap<String, Rows>);

type Rows = BTreeMap<(Vec<u8>, Vec<u8>), u32>;

/// A row that is kept.
fn kept(row: RowRef<'_>) -> (Vec<u8>, Vec<u8>) {
    (row.key().to_vec(), row.columns().to_vec())
}

impl Content {
    pub fn of(view: &dyn CaptureView) -> Self {
        let mut content = Self::default();
        for (index, table) in view.schema().iter() {
            let rows = content.0.entry(table.name.to_string()).or_default();
            let mut stream = view.table_rows(index).unwrap();
            let mut batch = OwnedRowBatch::new();
            while stream.next_batch(&mut batch).unwrap() {
                for (_, row) in batch.iter() {
                    *rows.entry(kept(row)).or_default() += 1;
                }
            }
        }
        content
    }

    pub fn live(store: &PostgresStore) -> Self {
        Self::of(store.begin_capture().unwrap().as_ref())
    }

    fn add(&mut self, table: &str, row: RowRef<'_>, is_keyed: bool) {
        let rows = self.0.get_mut(table).unwrap();
        let count = rows.entry(kept(row)).or_default();
        *count += 1;
        assert!(*count == 1 || !is_keyed, "{table}: a row came twice");
    }

    fn remove(&mut self, table: &str, row: RowRef<'_>) {
        let rows = self.0.get_mut(table).unwrap();
        let Some(count) = rows.get_mut(&kept(row)) else {
            panic!("{table}: a row went that was not there: {row:?}");
        };
        *count -= 1;
        if *count == 0 {
            rows.remove(&kept(row));
        }
    }

    /// The same rows in other tables.
    fn alter(&mut self, before: &StoreSchema, change: &SchemaChange) {
        let mut known = std::mem::take(self);
        for ((_, table), origin) in change.schema().iter().zip(change.origins()) {
            let was = origin
                .as_ref()
                .map(|origin| &before.table(origin.table).name);
            let rows = was.and_then(|name| known.0.remove(&name.to_string()));
            let rows = rows.unwrap_or_default().into_iter();
            let rows = rows.map(|(row, count)| match origin {
                Some(origin) => (reshape(&row, origin), count),
                None => panic!("rows of a table that is new"),
            });
            self.0.insert(table.name.to_string(), rows.collect());
        }
    }

    pub fn count(&self, table: &str) -> u32 {
        self.0[table].values().sum()
    }
}

/// A row of a table as it was, as one of the table as it became.
fn reshape((key, columns): &(Vec<u8>, Vec<u8>), origin: &TableOrigin) -> (Vec<u8>, Vec<u8>) {
    let mut batch = RowBatch::new();
    batch.push_parts(key, columns);
    let row = batch.iter().next().unwrap();
    let values: Vec<Option<&[u8]>> = row.values().collect();
    let mut builder = RowBuilder::new();
    builder.start(key);
    for column in &origin.columns {
        builder.push(match column {
            ColumnOrigin::From(column) => values[column.get()],
            ColumnOrigin::Filled(value) => value.as_deref(),
        });
    }
    kept(builder.row())
}

/// Follows by the book: applies whole transactions, and insists that they fit.
pub struct Follower {
    pub schema: StoreSchema,
    /// What the feed said of these tables.
    pub facts: RefCell<Option<Vec<u8>>>,
    /// After how many commits they changed.
    pub altered: Vec<usize>,
    pub content: Content,
    pub at: Position,
    pub commits: Vec<Commit>,
    /// What each commit changed: inserts, updates, deletes, truncates.
    pub counts: Vec<[u64; 4]>,
    open: Vec<Owned>,
    tally: [u64; 4],
    /// The tables into which rows were inserted, one behind the other.
    pub came: Vec<String>,
    /// Changes are counted and not kept.
    pub counts_only: bool,
    /// How many steps it has left until it is stopped; none: it is not.
    pub steps_left: Option<u32>,
}

enum Owned {
    Row(TableIndex, Option<Row>, Option<Row>),
    Truncate(TableIndex),
}

type Row = RowBatch;

fn own(row: RowRef<'_>) -> Row {
    let mut batch = Row::new();
    batch.push_row(row);
    batch
}

impl Follower {
    /// Begins a feed and reads what is there.
    pub fn begin(store: &PostgresStore) -> Self {
        Self::try_begin(store).unwrap()
    }

    pub fn try_begin(store: &PostgresStore) -> Result<Self, StoreError> {
        let view = store.begin_feed(SNAPSHOT)?;
        Ok(Self {
            schema: view.schema().clone(),
            facts: RefCell::default(),
            altered: Vec::new(),
            content: Content::of(view.as_ref()),
            at: view.position(),
            commits: Vec::new(),
            counts: Vec::new(),
            open: Vec::new(),
            tally: [0; 4],
            came: Vec::new(),
            counts_only: false,
            steps_left: None,
        })
    }

    /// Whether it is stopped here.
    fn step(&mut self) -> Result<(), StoreError> {
        match &mut self.steps_left {
            Some(0) => Err(StoreError::new(ErrorKind::Cancelled, "stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub fn resume<'s>(&self, store: &'s PostgresStore) -> Box<dyn ChangeFeed + 's> {
        self.try_resume(store).unwrap()
    }

    pub fn try_resume<'s>(
        &self,
        store: &'s PostgresStore,
    ) -> Result<Box<dyn ChangeFeed + 's>, StoreError> {
        let mut facts = self.facts.borrow_mut();
        let tables = FeedTables {
            schema: &self.schema,
            facts: facts.as_deref(),
            last: self.commits.last().copied(),
        };
        let feed = store.resume_feed_with(SNAPSHOT, self.at, tables)?;
        assert_eq!(*feed.schema(), self.schema);
        *facts = feed.facts();
        Ok(feed)
    }

    /// Reads until nothing is left.
    pub fn drain(&mut self, feed: &mut dyn ChangeFeed) -> Result<FeedProgress, StoreError> {
        loop {
            self.open.clear();
            self.tally = [0; 4];
            let progress = feed.read(100_000, self)?;
            assert!(progress.through >= self.at, "{progress:?}");
            if !progress.has_more {
                self.at = progress.through;
                return Ok(progress);
            }
            assert_eq!(progress.through, self.at);
        }
    }

    /// Resumes, reads everything and acknowledges it.
    pub fn follow(&mut self, store: &PostgresStore) -> Result<(), StoreError> {
        let mut feed = self.try_resume(store)?;
        let progress = self.drain(feed.as_mut())?;
        feed.acknowledge(progress.through)
    }

    #[track_caller]
    pub fn expect_live(&self, store: &PostgresStore) {
        let live = Content::live(store);
        for (table, rows) in &live.0 {
            assert!(
                self.content.0[table] == *rows,
                "table {table} is not what is live"
            );
        }
        assert_eq!(self.content, live);
    }

    fn apply(&mut self, change: Owned) {
        let name = |table: TableIndex| self.schema.table(table).name.to_string();
        match change {
            Owned::Truncate(table) => self.content.0.get_mut(&name(table)).unwrap().clear(),
            Owned::Row(table, before, after) => {
                let (name, is_keyed) = (name(table), self.schema.table(table).has_key());
                if let Some(before) = before {
                    self.content.remove(&name, before.iter().next().unwrap());
                }
                if let Some(after) = after {
                    let row = after.iter().next().unwrap();
                    self.content.add(&name, row, is_keyed);
                }
            }
        }
    }
}

impl ChangeSink for Follower {
    fn change(&mut self, change: Change<'_>) -> Result<(), StoreError> {
        let (place, owned) = match change {
            Change::Insert { table, row } => (0, Owned::Row(table, None, Some(own(row.row)))),
            Change::Update {
                table,
                before,
                after,
            } => {
                let rows = (Some(own(before.row)), Some(own(after.row)));
                (1, Owned::Row(table, rows.0, rows.1))
            }
            Change::Delete { table, before } => (2, Owned::Row(table, Some(own(before.row)), None)),
            Change::Truncate { table } => (3, Owned::Truncate(table)),
        };
        self.step()?;
        if let Owned::Row(table, None, _) = owned {
            let name = self.schema.table(table).name.to_string();
            if self.came.last() != Some(&name) {
                self.came.push(name);
            }
        }
        self.tally[place] += 1;
        if !self.counts_only {
            self.open.push(owned);
        }
        Ok(())
    }

    fn tables(&mut self, change: &SchemaChange) -> Result<(), StoreError> {
        assert!(self.open.is_empty(), "within a transaction");
        let checked = SchemaChange::try_new(
            &self.schema,
            change.schema().clone(),
            change.origins().to_vec(),
            Vec::new(),
        );
        checked.map_err(|error| StoreError::new(ErrorKind::Stale, error.to_string()))?;
        self.content.alter(&self.schema, change);
        self.schema = change.schema().clone();
        *self.facts.borrow_mut() = Some(change.facts().to_vec());
        self.altered.push(self.commits.len());
        self.step()
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        self.step()?;
        assert!(commit.position > self.at, "{commit:?} after {:?}", self.at);
        self.at = commit.position;
        self.commits.push(commit);
        self.counts.push(std::mem::take(&mut self.tally));
        for change in std::mem::take(&mut self.open) {
            self.apply(change);
        }
        Ok(())
    }
}

/// A server for tests whose transactions are short: a feed cannot begin before every transaction
/// of its server that writes is over, whatever the database. It sends transactions before they are
/// committed as soon as it may.
pub fn cluster() -> &'static PostgresCluster {
    static CLUSTER: OnceLock<PostgresCluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let options = ClusterOptions::fast().with("logical_decoding_work_mem", "64kB");
        PostgresCluster::start(&options).unwrap()
    })
}

/// A database with these tables, all of which log their old rows whole.
pub fn ground(ddl: &str) -> Ground {
    let ground = Ground::on(cluster(), ddl, |_| {});
    ground.psql(FULL);
    ground
}
