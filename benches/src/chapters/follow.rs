//! Following a PostgreSQL server beside `pg_recvlogical`, which asks for the same and writes it down as it comes.

use std::cell::{Cell, RefCell};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reinstate::{CaptureOptions, FollowOptions, Follower, begin_log};
use reinstate_benches::{ForeignKeys, PostgresSite, RawClient, Summary, pairs, time};
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
    let rows = [vec![server], whole, by_key];
    Ok(rows.into_iter().flatten().collect())
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

fn follow(site: &PostgresSite, number: u8, identity: &str) -> Result<Vec<Row>> {
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
    // What a follower has to know of rows is gathered once, when it begins.
    let options = FollowOptions::default();
    let follower = Follower::start(site.context(), store, &repository, snapshot, options)?;
    let follower = RefCell::new(follower);
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
            while follower.borrow_mut().step(NOW)?.has_more {}
            Ok(())
        })
    };
    let bare = || -> Result<Duration> {
        received.set(received.get() + 1);
        make(received.get())?;
        let end = client.value("SELECT pg_current_wal_flush_lsn()")?;
        time(|| receive(site, Some(&end))?.finish())
    };
    let behind = pairs(PAIRS, ours, bare)?.summary();
    ensure!(
        made.get() == PAIRS + 1,
        "every measurement has its own changes"
    );
    let changes_made = count(&repository, snapshot)? / made.get() as u64;
    // The other slot would keep the server busy as well.
    let drop_slot = format!("SELECT pg_drop_replication_slot('{SLOT}')");
    let add_slot = format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
    client.run(&drop_slot)?;
    let ours = || -> Result<Duration> {
        client.run("CHECKPOINT")?;
        let is_over = AtomicBool::new(false);
        time(|| {
            thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    let made = client.run(&changes());
                    is_over.store(true, Ordering::SeqCst);
                    made
                });
                loop {
                    let was_over = is_over.load(Ordering::SeqCst);
                    let has_more = follower.borrow_mut().step(NOW)?.has_more;
                    if was_over && !has_more {
                        break;
                    }
                }
                writer.join().expect("BUG: the writer panicked")
            })
        })
    };
    let bare = || -> Result<Duration> {
        client.run(&add_slot)?;
        client.run("CHECKPOINT")?;
        let mut receiving = receive(site, None)?;
        let taken = time(|| {
            client.run(&changes())?;
            let end = client.value("SELECT pg_current_wal_flush_lsn()")?;
            let is_sent = format!(
                "SELECT '{}' <= sent_lsn FROM pg_stat_replication WHERE application_name = 'pg_recvlogical'",
                end.trim()
            );
            wait_for(&client, &is_sent)
        })?;
        receiving.0.kill()?;
        receiving.0.wait()?;
        wait_for(
            &client,
            &format!("SELECT NOT active FROM pg_replication_slots WHERE slot_name = '{SLOT}'"),
        )?;
        client.run(&drop_slot)?;
        // What it received the follower did not: that is not part of what is measured.
        while follower.borrow_mut().step(NOW)?.has_more {}
        Ok(taken)
    };
    let meanwhile = pairs(PAIRS, ours, bare)?.summary();
    drop(follower);
    store.end_feed(snapshot)?;
    let row = |what: String, summary: &Summary, target| {
        #[expect(clippy::cast_precision_loss, reason = "a few changes")]
        let rate = changes_made as f64 / summary.ours_ms.median * 1e3;
        Row {
            what,
            figure: format!("{} of the limit, {rate:.0} changes/s", summary.ratio),
            beside: format!(
                "`pg_recvlogical -o proto_version=2 -o streaming=on`, {:.0} ms",
                summary.limit_ms.median
            ),
            target,
            reached: (!target.is_empty()).then_some(summary.ratio.median >= 0.8),
        }
    };
    let changed = format!("{changes_made} changes in {TRANSACTIONS} transactions, {identity}");
    Ok(vec![
        row(
            format!("follow while they are made: {changed}"),
            &meanwhile,
            "0.8 or more",
        ),
        row(format!("follow a backlog: {changed}"), &behind, ""),
    ])
}

/// How many changes the log has.
fn count(repository: &LocalRepository, snapshot: SnapshotId) -> Result<u64> {
    let log = reinstate::log_of(repository, snapshot)?;
    ensure!(repository.list("log")?.len() >= log.runs().len());
    let runs = log.runs().iter();
    Ok(runs.map(|run| run.description.extent.change_count).sum())
}

/// The server's own client at work.
struct Receiving(Child);

impl Receiving {
    fn finish(mut self) -> Result<()> {
        let status = self.0.wait()?;
        ensure!(status.success(), "pg_recvlogical: {status}");
        Ok(())
    }
}

/// Asks until the answer is yes.
fn wait_for(client: &RawClient, question: &str) -> Result<()> {
    while client.value(question)?.trim() != "t" {
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Receives what is committed, up to there if it is said how far.
fn receive(site: &PostgresSite, end: Option<&str>) -> Result<Receiving> {
    let mut command = site.cluster().command("pg_recvlogical")?;
    command.args([
        "--dbname",
        site.database(),
        "--slot",
        SLOT,
        "--start",
        "--no-loop",
    ]);
    command.args(end.map(|end| format!("--endpos={}", end.trim())));
    command.args([
        "--file=/dev/null",
        "--option=proto_version=2",
        "--option=streaming=on",
        "--option=publication_names=reinstate",
        "--option=messages=true",
    ]);
    let child = command.spawn().context("start pg_recvlogical")?;
    Ok(Receiving(child))
}
