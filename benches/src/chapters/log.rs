//! Extract at a commit of a log beside extract at its snapshot.

use anyhow::{Context as _, Result};
use reinstate::{FollowOptions, Follower, RestorePoint, extract, extract_at, log_of};
use reinstate_benches::{Site, SiteOptions, pairs, time};
use reinstate_core::{
    Change, ChangeFeed, ChangeSink, Commit, FeedProgress, FeedRow, Owner, Position, RowBatch,
    RowBuilder, RowRef, RowStream, StoreError, StoreSchema, TableIndex, Tenant, Timestamp,
};

use super::Row;

/// Each takes some forty milliseconds, and they differ a good deal.
const PAIRS: usize = 101;
/// Of how many rows one changes.
const SHARE: usize = 10;
/// Rows changed by one transaction.
const TRANSACTION_ROWS: usize = 100;

pub fn measure() -> Result<Vec<Row>> {
    let site = Site::create(&SiteOptions::default())?;
    let tenant = site.tenant_of_about(100_000);
    let changed = follow(&site, &tenant)?;
    let log = log_of(&site.repository, site.snapshot.id)?;
    let point = RestorePoint {
        position: log.through(),
        time: site.snapshot.taken_at,
    };
    let at_commit = || {
        time(|| {
            let image = extract_at(site.context(), &site.repository, &log, point, &tenant)?;
            Ok(image.for_each_block(site.context(), |_, _| ())?)
        })
    };
    let at_snapshot = || {
        time(|| {
            let image = extract(&site.repository, &site.snapshot, &tenant)?;
            Ok(image.for_each_block(site.context(), |_, _| ())?)
        })
    };
    let summary = pairs(PAIRS, at_commit, at_snapshot)?.summary();
    Ok(vec![Row {
        what: format!("extract at a commit, {changed} of 100,000 rows changed, 2 threads"),
        figure: format!("{} of the limit", summary.ratio),
        beside: format!("extract at the snapshot, {:.1} ms", summary.limit_ms.median),
        target: "0.67 or more",
        reached: Some(summary.ratio.median >= 0.67),
    }])
}

/// Changes every tenth row of the tenant, and follows. Returns how many rows that are.
fn follow(site: &Site, tenant: &Tenant) -> Result<u64> {
    let image = site.image(tenant)?;
    let mut rows = Vec::new();
    let mut batch = RowBatch::new();
    let mut number = 0_usize;
    for table in image.tables() {
        let mut stream = image.rows(site.context(), table);
        while stream.next_batch(&mut batch)? {
            for row in batch.iter() {
                number += 1;
                if number.is_multiple_of(SHARE) {
                    let mut one = RowBatch::new();
                    one.push_row(row);
                    rows.push((table, one));
                }
            }
        }
    }
    let changed = rows.len() as u64;
    let feed = UpdateFeed {
        schema: site.snapshot.schema.clone(),
        owner: Owner::Tenant(tenant.id.clone()),
        position: site.snapshot.position,
        rows,
    };
    let log = log_of(&site.repository, site.snapshot.id)?;
    let options = FollowOptions::default();
    let feed = Box::new(feed);
    let mut follower = Follower::with_feed(site.context(), feed, &site.repository, log, options)?;
    follower
        .step(Timestamp::from_micros(0))
        .context("follow the changes")?;
    Ok(changed)
}

/// Updates one row after the other.
struct UpdateFeed {
    schema: StoreSchema,
    owner: Owner,
    position: Position,
    rows: Vec<(TableIndex, RowBatch)>,
}

impl ChangeFeed for UpdateFeed {
    fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    fn read(
        &mut self,
        _bytes_target: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<FeedProgress, StoreError> {
        for transaction in self.rows.chunks(TRANSACTION_ROWS) {
            for (table, row) in transaction {
                for before in row.iter() {
                    let after = changed(before);
                    let owned = |row| FeedRow {
                        owner: Some(self.owner.as_bytes()),
                        row,
                    };
                    sink.change(Change::Update {
                        table: *table,
                        before: owned(before),
                        after: owned(after.row()),
                    })?;
                }
            }
            self.position.commit += 1;
            sink.commit(Commit {
                position: self.position,
                time: Timestamp::from_micros(1),
            })?;
        }
        self.rows.clear();
        Ok(FeedProgress {
            through: self.position,
            has_more: false,
        })
    }

    fn acknowledge(&mut self, _position: Position) -> Result<(), StoreError> {
        Ok(())
    }

    fn mark(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// The row with another value in its last column.
fn changed(before: RowRef<'_>) -> RowBuilder {
    let mut values: Vec<Option<Vec<u8>>> = before
        .values()
        .map(|value| value.map(<[u8]>::to_vec))
        .collect();
    if let Some(last) = values.last_mut() {
        let mut value = last.take().unwrap_or_default();
        value.extend_from_slice(b" changed");
        *last = Some(value);
    }
    let mut row = RowBuilder::new();
    row.start(before.key());
    values.iter().for_each(|value| row.push(value.as_deref()));
    row
}
