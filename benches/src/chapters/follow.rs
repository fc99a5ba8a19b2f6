//! Following a PostgreSQL server beside `pg_recvlogical`, which asks for the same and writes it down as it comes.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reinstate::{CaptureOptions, FollowOptions, Follower, begin_log};
use reinstate_benches::{ForeignKeys, PostgresSite, pairs, time};
use reinstate_core::{FeedSource as _, Repository as _, RepositoryId, SnapshotId, Timestamp};
use reinstate_repository::LocalRepository;

use super::Row;

const PAIRS: usize = 5;
const NOW: Timestamp = Timestamp::from_micros(0);
/// Transactions of one measurement, and how many rows each changes in each of four ways.
const TRANSACTIONS: u64 = 1_000;
const ROWS: u64 = 40;
const SLOT: &str = "bare";

pub fn measure() -> Result<Vec<Row>> {
    let site = PostgresSite::create(ForeignKeys::All)?;
    let server = Row {
        what: "PostgreSQL server that is followed".to_owned(),
        figure: site.server()?,
        beside: "400,000 rows, nine foreign keys".to_owned(),
        target: "",
        reached: None,
    };
    let whole = follow(&site, 1, "REPLICA IDENTITY FULL")?;
    let by_key = follow(&site, 2, "REPLICA IDENTITY DEFAULT")?;
    Ok(vec![server, whole, by_key])
}

/// The rows that are changed, by numbers.
const PICKED: &str = "\
CREATE TEMP TABLE picked AS SELECT row_number() OVER (ORDER BY c.id) AS n, c.id AS comment, c.issue_id AS issue FROM comments c;
CREATE INDEX ON picked (n); ANALYZE picked;";

/// What one measurement changes: rows of issues and comments, and comments that come and go.
fn changes() -> String {
    let last = 9_000_000_000_000_000_u64;
    format!(
        "DO $$ DECLARE k bigint; total bigint := (SELECT count(*) FROM picked); BEGIN
         FOR n IN 1..{TRANSACTIONS} LOOP
           k := (random() * (total - {ROWS}))::bigint;
           UPDATE issues SET status = reverse(status)
            WHERE id IN (SELECT issue FROM picked WHERE picked.n BETWEEN k + 1 AND k + {ROWS});
           UPDATE comments SET body = reverse(body)
            WHERE id IN (SELECT comment FROM picked WHERE picked.n BETWEEN k + 1 AND k + {ROWS});
           INSERT INTO comments SELECT {last} + row_number() OVER (), issue_id, author_id, created_at,
               edited_at, reactions, body FROM comments
            WHERE id IN (SELECT comment FROM picked WHERE picked.n BETWEEN k + 1 AND k + {ROWS});
           DELETE FROM comments WHERE id > {last};
           COMMIT;
         END LOOP; END $$"
    )
}

fn follow(site: &PostgresSite, number: u8, identity: &str) -> Result<Row> {
    let client = site.client()?;
    for table in [
        "projects",
        "issues",
        "comments",
        "members",
        "currencies",
        "plans",
    ] {
        client.run(&format!("ALTER TABLE {table} {identity}"))?;
    }
    client.run("ALTER TABLE activity REPLICA IDENTITY FULL")?;
    client.run(PICKED)?;
    let (store, snapshot) = (site.store(), SnapshotId::from_bytes([number; 16]));
    let path = site.directory().join(format!("followed-{number}"));
    let repository = LocalRepository::init(path, RepositoryId::from_bytes([number; 16]), NOW)?;
    let options = CaptureOptions::new(snapshot, NOW);
    begin_log(site.context(), store, &repository, &options)?;
    client.run(&format!(
        "SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')"
    ))?;
    // Whoever is first has the changes made, for both.
    let made = Cell::new(0_usize);
    let make = |mine: usize| -> Result<()> {
        if made.get() < mine {
            client.run(&changes())?;
            client.run("CHECKPOINT")?;
            made.set(mine);
        }
        Ok(())
    };
    let [followed, received] = [const { Cell::new(0_usize) }; 2];
    let ours = || -> Result<Duration> {
        followed.set(followed.get() + 1);
        make(followed.get())?;
        time(|| {
            let options = FollowOptions::default();
            let mut follower =
                Follower::start(site.context(), store, &repository, snapshot, options)?;
            while follower.step(NOW)?.has_more {}
            Ok(())
        })
    };
    let bare = || -> Result<Duration> {
        received.set(received.get() + 1);
        make(received.get())?;
        let end = client.value("SELECT pg_current_wal_flush_lsn()")?;
        time(|| receive(site, &end))
    };
    let summary = pairs(PAIRS, ours, bare)?.summary();
    ensure!(
        made.get() == PAIRS + 1,
        "every measurement has its own changes"
    );
    let rows = count(&repository, snapshot)? / made.get() as u64;
    client.run(&format!("SELECT pg_drop_replication_slot('{SLOT}')"))?;
    store.end_feed(snapshot)?;
    #[expect(clippy::cast_precision_loss, reason = "a few changes")]
    let rate = rows as f64 / summary.ours_ms.median * 1e3;
    Ok(Row {
        what: format!("follow, {rows} changes in {TRANSACTIONS} transactions, {identity}"),
        figure: format!("{} of the limit, {rate:.0} changes/s", summary.ratio),
        beside: format!(
            "`pg_recvlogical -o proto_version=2 -o streaming=on`, {:.0} ms",
            summary.limit_ms.median
        ),
        target: "0.8 or more",
        reached: Some(summary.ratio.median >= 0.8),
    })
}

/// How many changes the log has.
fn count(repository: &LocalRepository, snapshot: SnapshotId) -> Result<u64> {
    let log = reinstate::log_of(repository, snapshot)?;
    ensure!(repository.list("log")?.len() >= log.runs().len());
    let runs = log.runs().iter();
    Ok(runs.map(|run| run.description.extent.change_count).sum())
}

/// What comes up to there, by the server's own client.
fn receive(site: &PostgresSite, end: &str) -> Result<()> {
    let end = format!("--endpos={}", end.trim());
    let arguments = [
        "--dbname",
        site.database(),
        "--slot",
        SLOT,
        "--start",
        "--no-loop",
        &end,
        "--file=/dev/null",
        "--option=proto_version=2",
        "--option=streaming=on",
        "--option=publication_names=reinstate",
        "--option=messages=true",
    ];
    site.cluster()
        .run("pg_recvlogical", &arguments)
        .map(drop)
        .context("receive what was committed")
}
