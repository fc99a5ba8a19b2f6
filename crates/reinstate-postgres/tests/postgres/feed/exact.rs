//! Base and feed together are what is live, whoever writes meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use reinstate_core::FeedSource;

use super::{Content, Follower, SNAPSHOT, ground};

const TABLES: &str = "\
CREATE TABLE accounts (id int PRIMARY KEY, account_id int, coins int NOT NULL, note text);
CREATE TABLE events (account_id int, what text);
CREATE TABLE moved (id int PRIMARY KEY, account_id int, seen int);
INSERT INTO accounts SELECT n, n % 7, 100, 'start' FROM generate_series(1, 500) n;
INSERT INTO events SELECT n % 7, 'e' || n % 20 FROM generate_series(1, 500) n;
INSERT INTO moved SELECT n, n % 7, 0 FROM generate_series(1, 100) n;
";

/// A hundred transactions of a writer: small and larger ones, some rolled back, keys and owners that
/// change, duplicates in a table without a key.
fn work(writer: u32, round: u32) -> String {
    format!(
        "SELECT setseed({});
         DO $$ DECLARE k int; BEGIN FOR n IN 1..100 LOOP
             k := 1 + floor(random() * 500);
             UPDATE accounts SET coins = coins + n, note = repeat('w{writer}', n) WHERE id = k;
             INSERT INTO events VALUES (n % 7, 'e' || n % 20);
             IF n % 3 = 0 THEN
                 DELETE FROM accounts WHERE id = 1 + floor(random() * 500);
                 DELETE FROM events WHERE ctid IN (
                     SELECT ctid FROM events ORDER BY random() LIMIT 2 FOR UPDATE SKIP LOCKED);
             END IF;
             IF n % 5 = 0 THEN
                 INSERT INTO accounts SELECT n + 1000 * {writer}, 3, 1, 'new'
                     ON CONFLICT (id) DO UPDATE SET account_id = accounts.account_id + 1;
                 UPDATE moved SET account_id = (account_id + 1) % 7, seen = seen + 1
                  WHERE id = 1 + floor(random() * 100);
             END IF;
             IF {writer} % 2 = 0 AND n % 4 = 1 THEN
                 -- The server sends what there is so far of the transaction.
                 PERFORM pg_logical_emit_message(true, 'padding', repeat('x', 70000));
             END IF;
             IF n % 11 = 0 THEN ROLLBACK; ELSIF n % 2 = 0 THEN COMMIT; END IF;
         END LOOP; END $$;",
        f64::from(writer * 100 + round % 100) / 1000.0
    )
}

struct StopWhenDropped<'s>(&'s AtomicBool);

impl Drop for StopWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_snapshot_and_its_feed_are_what_is_live_however_many_write_meanwhile() {
    let ground = ground(TABLES);
    for round in 0..6 {
        let stop = AtomicBool::new(false);
        let follower = thread::scope(|scope| {
            let stopping = StopWhenDropped(&stop);
            let writers: Vec<_> = (1..=4)
                .map(|writer| {
                    let (ground, stop) = (&ground, &stop);
                    scope.spawn(move || {
                        let mut count = 0;
                        while !stop.load(Ordering::Relaxed) {
                            // A deadlock of two writers is theirs to repeat.
                            let _ = ground.database.psql(&work(writer, round * 10 + count));
                            count += 1;
                        }
                        count
                    })
                })
                .collect();
            thread::sleep(std::time::Duration::from_millis(150));
            let mut follower = Follower::begin(&ground.store);
            let mut feed = follower.resume(&ground.store);
            for _ in 0..3 {
                follower.drain(feed.as_mut()).unwrap();
            }
            drop(stopping);
            for writer in writers {
                assert!(writer.join().unwrap() > 0, "nobody wrote");
            }
            follower.drain(feed.as_mut()).unwrap();
            follower
        });
        follower.expect_live(&ground.store);
        assert!(follower.commits.len() > 50, "{}", follower.commits.len());
        ground.store.end_feed(SNAPSHOT).unwrap();
    }
}

#[test]
fn what_is_read_and_not_acknowledged_comes_again_and_after_that_never() {
    let ground = ground(TABLES);
    let mut follower = Follower::begin(&ground.store);
    ground.psql(&work(1, 1));
    let base = (follower.content.clone(), follower.at);
    let mut feed = follower.resume(&ground.store);
    follower.drain(feed.as_mut()).unwrap();
    let first = follower.commits.clone();
    drop(feed);

    follower.expect_live(&ground.store);
    (follower.content, follower.at) = base;
    follower.commits.clear();
    let mut feed = follower.resume(&ground.store);
    let progress = follower.drain(feed.as_mut()).unwrap();
    assert_eq!(
        follower.commits, first,
        "the same transactions, at the same places"
    );
    follower.expect_live(&ground.store);
    feed.acknowledge(progress.through).unwrap();
    follower.drain(feed.as_mut()).unwrap();
    assert_eq!(follower.commits.len(), first.len(), "and none twice");
    drop(feed);
    let health = ground.store.feeds().unwrap();
    assert_eq!((health.len(), health[0].snapshot), (1, SNAPSHOT));
    assert!(health[0].acknowledged >= progress.through, "{health:?}");
    assert_eq!(health[0].lost, None);

    ground.psql(&work(2, 2));
    follower.follow(&ground.store).unwrap();
    follower.expect_live(&ground.store);
    assert!(follower.commits.len() > first.len());
    assert_eq!(Content::live(&ground.store), follower.content);
}

/// Read in pieces of every size, it is the same.
#[test]
fn a_feed_is_read_in_pieces_of_whole_transactions() {
    let ground = ground(TABLES);
    let mut follower = Follower::begin(&ground.store);
    for round in 0..3 {
        ground.psql(&work(1, round));
    }
    let mut feed = follower.resume(&ground.store);
    let mut pieces = 0;
    loop {
        let commits = follower.commits.len();
        let progress = feed.read(1, &mut follower).unwrap();
        assert!(
            follower.commits.len() <= commits + 1,
            "more than was asked for"
        );
        if !progress.has_more {
            break;
        }
        pieces += 1;
    }
    assert!(pieces > 100, "{pieces}");
    follower.expect_live(&ground.store);
}
