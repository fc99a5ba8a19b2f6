//! Servers and connections that go away, and other tenants that go on writing meanwhile.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reinstate_core::{
    ErrorKind, JobId, JournalEntry, LiveStore, RowBatch, RowStream, StoreError, TenantKind,
};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};
use reinstate_testkit::cluster::{ClusterOptions, PostgresCluster, shared_cluster};

use crate::ground::{
    Ground, Image, Plan, bind, check_read_back, collect, entry, image, open_store, restore, tenant,
};

const ITEMS: &str = "\
CREATE TABLE lists (id bigserial PRIMARY KEY, account_id text NOT NULL, name text);
CREATE TABLE items (id bigserial PRIMARY KEY, account_id text NOT NULL,
    list_id bigint NOT NULL REFERENCES lists, body text);
CREATE INDEX ON items (account_id); CREATE INDEX ON items (list_id);
CREATE INDEX ON lists (account_id);
INSERT INTO lists (account_id, name)
    SELECT CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'beta' END, 'l' || n FROM generate_series(1, 100) n;
INSERT INTO items (account_id, list_id, body)
    SELECT account_id, id, repeat('b' || n, 20) FROM lists, generate_series(1, 200) n;
";
/// Something to delete, something to put back and something to create.
const DAMAGE: &str = "\
DELETE FROM items WHERE account_id = 'acme' AND id % 3 = 0;
UPDATE items SET body = 'x' WHERE account_id = 'acme' AND id % 3 = 1;
INSERT INTO items (account_id, list_id, body) SELECT 'acme', 2, 'y' FROM generate_series(1, 3000);
UPDATE lists SET name = 'z' WHERE account_id = 'acme';
";

/// A tenant before and after its damage.
struct Damaged {
    ground: Ground,
    before: Image,
    after: Image,
}

fn damaged() -> Damaged {
    let ground = Ground::new(ITEMS);
    let before = ground.image("acme");
    ground.psql(DAMAGE);
    let after = ground.image("acme");
    Damaged {
        ground,
        before,
        after,
    }
}

impl Damaged {
    fn neighbours(&self) -> String {
        self.ground.others(&["lists", "items"], "acme")
    }
}

/// The steps of a merge, after each of which `between` is called with the step's number.
fn merge_in_steps(
    store: &PostgresStore,
    before: &Image,
    between: &dyn Fn(u32),
) -> Result<(), StoreError> {
    let id = tenant("acme");
    let (fingerprint, schema) = bind(store, &id);
    let plan = Plan::between(&schema, &image(store, "acme"), before);
    let mut writer = store.begin_merge(&id, &fingerprint, &schema)?;
    between(0);
    assert_eq!(writer.apply(&plan)?, plan.counts_by_name());
    between(1);
    let (&table, _) = before.iter().next().unwrap();
    collect(writer.read_back(table)?)?;
    between(2);
    check_read_back(writer.as_mut(), before)?;
    between(3);
    writer.commit(&entry(1, &id)).map(drop)
}

const JOB: [u8; 16] = [1; 16];

#[test]
fn a_session_that_is_ended_at_any_step_leaves_nothing_half_written() {
    let damaged = damaged();
    let (ground, neighbours) = (&damaged.ground, damaged.neighbours());
    for step in 0..4 {
        let end = |now: u32| {
            if now == step {
                let pid = ground.merging_process();
                ground.psql(&format!("SELECT pg_terminate_backend({pid}, 5000)"));
            }
        };
        let error = merge_in_steps(&ground.store, &damaged.before, &end).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "step {step}: {error}");
        assert_eq!(ground.image("acme"), damaged.after, "step {step}");
        let found = settled_entry(&ground.store, JobId::from_bytes(JOB));
        assert_eq!(found, None);
    }
    merge_in_steps(&ground.store, &damaged.before, &|_| {}).unwrap();
    assert_eq!(ground.image("acme"), damaged.before);
    assert_eq!(damaged.neighbours(), neighbours);
}

/// Ends the session at moments that fall into its statements, the commit included.
#[test]
fn a_session_that_is_ended_within_a_statement_is_all_or_nothing() {
    let damaged = damaged();
    let (ground, neighbours) = (&damaged.ground, damaged.neighbours());
    let id = tenant("acme");
    let mut ends = (0, 0);
    for round in 0..24_u8 {
        let delay = Duration::from_millis(u64::from(round) * 12);
        let is_over = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(delay);
                while !is_over.load(Ordering::Relaxed) {
                    ground.psql(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                          WHERE datname = current_database() AND application_name = 'reinstate'",
                    );
                }
            });
            let result = attempt(ground, &damaged.before, round);
            is_over.store(true, Ordering::Relaxed);
            result
        });
        let journal = settled_entry(&ground.store, entry(round, &id).job);
        let live = ground.image("acme");
        match result {
            Ok(()) => assert!(journal.is_some()),
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert!(journal.is_none());
            }
        }
        if journal.is_some() {
            assert!(live == damaged.before, "round {round}");
            ends.1 += 1;
            ground.psql(DAMAGE);
        } else {
            assert!(live != damaged.before, "round {round}");
            ends.0 += 1;
        }
    }
    assert!(ends.0 > 0, "no merge was ever interrupted");
    assert_eq!(damaged.neighbours(), neighbours);
}

/// As [`merge_in_steps`], for a server that may be gone from the start.
fn attempt(ground: &Ground, before: &Image, round: u8) -> Result<(), StoreError> {
    let id = tenant("acme");
    let view = ground.store.read_view()?;
    let (fingerprint, schema) = (view.fingerprint(&id)?, view.schema().clone());
    let mut live = Image::new();
    for &table in before.keys() {
        live.insert(table, collect(view.tenant_rows(&id, table)?)?);
    }
    let plan = Plan::between(&schema, &live, before);
    let mut writer = ground.store.begin_merge(&id, &fingerprint, &schema)?;
    writer.apply(&plan)?;
    writer.commit(&entry(round, &id)).map(drop)
}

#[test]
fn a_server_that_dies_at_any_step_comes_back_with_all_or_nothing() {
    let mut cluster = PostgresCluster::start(&ClusterOptions::default()).unwrap();
    cluster.create_database("shop").unwrap();
    cluster.psql("shop", ITEMS).unwrap();
    let store = open_store(&cluster.url("shop"), |_| {});
    store.prepare().unwrap();
    let before = image(&store, "acme");
    let neighbours = image(&store, "beta");
    cluster.psql("shop", DAMAGE).unwrap();
    let after = image(&store, "acme");
    for step in 0..4 {
        let shared = Mutex::new(&mut cluster);
        let kill = |now: u32| {
            if now == step {
                shared.lock().unwrap().kill_nine().unwrap();
            }
        };
        let error = merge_in_steps(&store, &before, &kill).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "step {step}: {error}");
        let gone = store.read_view().map(drop).unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::Unavailable, "{gone}");
        cluster.restart().unwrap();
        assert!(image(&store, "acme") == after, "step {step}");
        let found = settled_entry(&store, JobId::from_bytes(JOB));
        assert_eq!(found, None);
    }
    restore(&store, "acme", &before, 1).unwrap();
    // What was committed survives.
    cluster.kill_nine().unwrap();
    cluster.restart().unwrap();
    assert!(image(&store, "acme") == before && image(&store, "beta") == neighbours);
    assert!(settled_entry(&store, JobId::from_bytes(JOB)).is_some());
}

/// What a connection does with a COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The server never gets it.
    Before,
    /// The server gets it, and its answer is lost.
    After,
}

#[test]
fn a_commit_without_an_answer_is_unknown_and_the_journal_tells() {
    for cut in [Cut::Before, Cut::After] {
        let damaged = damaged();
        let ground = &damaged.ground;
        let directory = ground.psql("SELECT current_setting('unix_socket_directories')");
        let proxy = Path::new(&directory).join(format!("proxy-{}-{cut:?}", ground.database.name()));
        std::fs::create_dir(&proxy).unwrap();
        let listener = UnixListener::bind(proxy.join(".s.PGSQL.5432")).unwrap();
        let server = Path::new(&directory).join(".s.PGSQL.5432");
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (client, server) = (client.unwrap(), UnixStream::connect(&server).unwrap());
                std::thread::spawn(move || forward(client, server, cut));
            }
        });
        let url = format!(
            "postgres:///{}?host={}&user={}",
            ground.database.name(),
            proxy.display(),
            shared_cluster().unwrap().superuser()
        );
        let store = open_store(&url, |_| {});
        let error = restore(&store, "acme", &damaged.before, 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
        let expected = match cut {
            Cut::Before => (None, &damaged.after),
            Cut::After => (Some(entry(1, &tenant("acme"))), &damaged.before),
        };
        // One answer: what the journal says once it says anything stays.
        let found = settled_entry(&store, JobId::from_bytes(JOB));
        assert_eq!(found, expected.0, "{cut:?}");
        assert!(ground.image("acme") == *expected.1, "{cut:?}");
    }
}

/// Passes bytes both ways until a COMMIT comes.
fn forward(mut client: UnixStream, mut server: UnixStream, cut: Cut) {
    let (mut answers, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut answers, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Both);
    });
    let mut buffer = [0; 65536];
    loop {
        let Ok(length @ 1..) = client.read(&mut buffer) else {
            let _ = server.shutdown(std::net::Shutdown::Both);
            return;
        };
        let bytes = &buffer[..length];
        if bytes.windows(7).any(|window| window == b"COMMIT\0") {
            // The client is cut off first, so that it can get no answer.
            client.shutdown(std::net::Shutdown::Both).unwrap();
            if cut == Cut::After {
                server.write_all(bytes).unwrap();
                std::thread::sleep(Duration::from_millis(300));
            }
            let _ = server.shutdown(std::net::Shutdown::Both);
            return;
        }
        if server.write_all(bytes).is_err() {
            return;
        }
    }
}

#[test]
fn other_tenants_write_on_during_merges_without_errors_or_long_waits() {
    let damaged = damaged();
    let ground = &damaged.ground;
    let script = std::env::temp_dir().join(format!("reinstate-writers-{}", std::process::id()));
    std::fs::write(
        &script,
        "\\set n random(1, 50)
         BEGIN;
         UPDATE items SET body = 'w' || :n WHERE account_id = 'beta' AND list_id = :n * 2 - 1;
         INSERT INTO items (account_id, list_id, body) VALUES ('beta', :n * 2 - 1, 'new');
         UPDATE lists SET name = 'w' || :n WHERE id = :n * 2 - 1;
         COMMIT;\n",
    )
    .unwrap();
    let path = script.to_string_lossy().into_owned();
    let report = std::thread::scope(|scope| {
        let writers = scope.spawn(|| {
            let options = [
                "-n",
                "-c",
                "2",
                "-T",
                "6",
                "-L",
                "2000",
                "-f",
                path.as_str(),
            ];
            let options: Vec<&str> = options
                .into_iter()
                .chain([ground.database.name()])
                .collect();
            shared_cluster().unwrap().run("pgbench", &options).unwrap()
        });
        let mut merges = 0;
        while !writers.is_finished() {
            restore(&ground.store, "acme", &damaged.before, merges).unwrap();
            ground.psql(DAMAGE);
            merges += 1;
        }
        assert!(merges >= 2, "only {merges} merges in six seconds");
        writers.join().unwrap()
    });
    std::fs::remove_file(&script).unwrap();
    assert!(
        report.contains("number of failed transactions: 0 "),
        "{report}"
    );
    assert!(report.contains("latency limit: 0/"), "{report}");
}

#[test]
fn a_connection_that_is_left_to_the_next_reader_may_be_gone_or_cut_off() {
    let ground = Ground::new(
        "CREATE TABLE notes (id bigint PRIMARY KEY, account_id bigint NOT NULL, body text);
         INSERT INTO notes SELECT n, 1, repeat('x', 2000) FROM generate_series(1, 2000) n",
    );
    let read = || ground.image("1").values().map(Vec::len).sum::<usize>();
    let processes = || {
        ground.psql(
            "SELECT string_agg(pid::text, ',' ORDER BY pid) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name = 'reinstate'",
        )
    };
    assert_eq!(read(), 2000);
    let first = processes();
    assert_eq!(read(), 2000);
    assert_eq!(processes(), first, "the second reader has a new connection");
    ground.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND application_name = 'reinstate'",
    );
    assert_eq!(read(), 2000);
    // Somebody stops in the middle of a table: what is still to come is nobody's answer.
    let view = ground.store.read_view().unwrap();
    let table = view.schema().find("notes").unwrap().0;
    let mut rows = view.tenant_rows(&tenant("1"), table).unwrap();
    rows.next_batch(&mut RowBatch::new()).unwrap();
    drop(rows);
    drop(view);
    assert_eq!(read(), 2000);
    // No transaction is left open on a connection that waits.
    let open = ground.psql(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
            AND application_name = 'reinstate' AND state <> 'idle'",
    );
    assert_eq!(open, "0");
}

/// The entry of acme's merge, as soon as the server process that made it, or did not, is done.
fn settled_entry(store: &PostgresStore, job: JobId) -> Option<JournalEntry> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match store.journal_entry(job, &tenant("acme")) {
            Err(error) if error.kind() == ErrorKind::Locked && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            settled => return settled.unwrap(),
        }
    }
}

/// A pooler that has no session for its client takes the connection all the same, and lets the first statement
/// wait, which for some is for ever.
#[test]
fn a_server_that_lets_in_and_says_no_more_is_unavailable() {
    let ground = Ground::new("CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL)");
    let directory = ground.psql("SELECT current_setting('unix_socket_directories')");
    let silent = Path::new(&directory).join(format!("silent-{}", ground.database.name()));
    std::fs::create_dir(&silent).unwrap();
    let listener = UnixListener::bind(silent.join(".s.PGSQL.5432")).unwrap();
    std::thread::spawn(move || {
        let mut client = listener.accept().unwrap().0;
        let mut bytes = [0; 1024];
        assert!(client.read(&mut bytes).unwrap() > 0);
        // Authenticated, and ready for a query.
        client
            .write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I")
            .unwrap();
        while client.read(&mut bytes).unwrap() > 0 {}
    });
    let url = format!("postgres:///silent?host={}&user=somebody", silent.display());
    let mut settings = ConnectionSettings::new(SecretUrl::new(&url), "silent");
    settings.connect_timeout = Duration::from_millis(300);
    let map = TenancyMap::new(TenantKind::parse("account").unwrap());
    let error = PostgresStore::connect(settings, map).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
