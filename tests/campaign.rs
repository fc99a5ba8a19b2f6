//! A campaign over embedded stores and a PostgreSQL database: 60 of 300 sites, one of them poisoned, the
//! run killed at twenty points from its beginning to its last third, and the database in the middle of a merge.

#[expect(dead_code, reason = "other tests of this package use the rest")]
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use reinstate_core::{ContentDigest, OwnedRowBatch, Owner, SnapshotSource, TenantId};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_testkit::cluster::{ClusterOptions, PostgresCluster};

use support::{Running, Shell};

const SITES: u32 = 300;
const POISONED: u32 = 150;
const KILLS: u32 = 20;
/// A run is killed before it has written so many records more: the kills lie all over the campaign.
const RECORDS_BETWEEN_KILLS: u64 = 36;

const ESTATE: &str = r#"
version = 1
name = "shop"
kind = "account"
[repository]
url = "file:campaigns"
[[store]]
name = "sites"
configuration = "sites.toml"
phase = 1
[[store]]
name = "orders"
configuration = "orders.toml"
phase = 2
concurrency = 3
ids = { sql = "SELECT account_id FROM site_ids WHERE site = $1" }
[[store]]
name = "apps"
configuration = "apps.toml"
phase = 3
[[gate]]
name = "no comment without its issue"
phase = 2
store = "orders"
sql = "SELECT count(*) FROM issues WHERE account_id = $1 AND reporter_id IS NULL"
expect = "0"
[open]
store = "orders"
sql = "INSERT INTO opened VALUES ($1)"
"#;

const ORDERS: &str = r#"
version = 1
[repository]
url = "file:orders-repository"
[store]
name = "orders"
kind = "postgres"
url = { env = "DATABASE_URL" }
[tenancy]
kind = "account"
column = "account_id"
shared = ["currencies", "plans"]
excluded = ["opened", "site_ids"]
[tenancy.table.comments]
via = "issue_id -> issues.id"
"#;

type Contents = BTreeMap<(Vec<u8>, u32), ContentDigest>;

/// The sites that are destroyed: every fifth.
fn destroyed() -> impl Iterator<Item = u32> {
    (1..=SITES).filter(|site| site % 5 == 0)
}

fn open(directory: &Path, name: &str) -> EmbeddedStore {
    let path = directory.join(format!("{name}.redb"));
    EmbeddedStore::open(path, &EmbeddedOptions::default()).expect("an embedded store")
}

fn contents(directory: &Path, name: &str) -> Contents {
    let store = open(directory, name);
    let view = store.begin_capture().expect("a view");
    let (mut contents, mut batch) = (Contents::new(), OwnedRowBatch::new());
    for (index, _) in view.schema().iter() {
        let mut rows = view.table_rows(index).expect("rows");
        while rows.next_batch(&mut batch).expect("rows") {
            for (owner, row) in batch.iter() {
                let place = (owner.to_vec(), index.0);
                contents
                    .entry(place)
                    .or_insert(ContentDigest::EMPTY)
                    .add(row);
            }
        }
    }
    contents
}

fn destroy(directory: &Path, name: &str) {
    let store = open(directory, name);
    let write = store.write(|transaction| {
        for site in destroyed() {
            let owner = Owner::Tenant(TenantId::try_new(site.to_string()).expect("an id"));
            for (index, table) in store.schema().iter() {
                if table.tenancy.is_tenant_owned() {
                    transaction.table(index)?.delete_all(&owner)?;
                }
            }
        }
        Ok(())
    });
    write.expect("a transaction");
}

/// What each account of the database holds: a digest a table.
const DIGESTS: &str = "\
SELECT 'projects', account_id, md5(string_agg(x::text, '|' ORDER BY x::text)) FROM projects x GROUP BY 2
UNION ALL SELECT 'members', account_id, md5(string_agg(x::text, '|' ORDER BY x::text)) FROM members x GROUP BY 2
UNION ALL SELECT 'issues', account_id, md5(string_agg(x::text, '|' ORDER BY x::text)) FROM issues x GROUP BY 2
UNION ALL SELECT 'activity', account_id, md5(string_agg(x::text, '|' ORDER BY x::text)) FROM activity x GROUP BY 2
UNION ALL SELECT 'comments', i.account_id, md5(string_agg(x::text, '|' ORDER BY x::text))
  FROM comments x JOIN issues i ON i.id = x.issue_id GROUP BY 2
ORDER BY 1, 2";

const DESTROY: &str = "\
DELETE FROM activity WHERE account_id % 5 = 0;
DELETE FROM comments WHERE issue_id IN (SELECT id FROM issues WHERE account_id % 5 = 0);
DELETE FROM issues WHERE account_id % 5 = 0;
DELETE FROM members WHERE account_id % 5 = 0;
DELETE FROM projects WHERE account_id % 5 = 0;";

/// The lines of an answer that are not about these accounts.
fn but(answer: &str, accounts: &[u32]) -> Vec<String> {
    let lines = answer.lines().filter(|line| {
        let account = line.split('|').nth(1).and_then(|text| text.parse().ok());
        account.is_none_or(|account| !accounts.contains(&account))
    });
    lines.map(ToOwned::to_owned).collect()
}

fn prepare(shell: &Shell) {
    let directory = shell.directory();
    fs::write(directory.join("estate.toml"), ESTATE).expect("write a file");
    fs::write(directory.join("orders.toml"), ORDERS).expect("write a file");
    for (name, seed) in [("sites", 1), ("apps", 3)] {
        shell.run(&format!(
            "reinstate generate --into {name}.redb --name {name} --tenants {SITES} --rows 4500 --seed {seed} \
             && reinstate --config {name}.toml init --embedded {name}.redb --repository {name}-repository \
             && reinstate --config {name}.toml capture once"
        ));
    }
    shell.run(&format!(
        "reinstate generate --sql --tenants {SITES} --rows 6000 --seed 2 | psql --quiet \"$DATABASE\" \
         && psql --quiet \"$DATABASE\" -c 'CREATE TABLE opened (account_id bigint); CREATE TABLE site_ids AS SELECT n AS site, n::bigint AS account_id FROM generate_series(1, {SITES}) n' \
         && reinstate --config orders.toml init && reinstate --config orders.toml guard install \
         && reinstate --config orders.toml capture once"
    ));
}

/// Keeps everybody from writing to a table of the second phase.
const LOCK: &str = "BEGIN; LOCK TABLE issues IN SHARE MODE; SELECT pg_sleep(600)";
const HELD: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'issues'::regclass AND mode = 'ShareLock' AND granted)";
/// Whether the campaign is in the middle of a merge there.
const WAITING: &str = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'issues'::regclass AND mode = 'RowExclusiveLock' AND NOT granted)";

/// Draws numbers that look random, the same ones each time.
struct Draw(u64);

impl Draw {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn records(directory: &Path) -> u64 {
    let records = fs::read_dir(directory.join("campaigns/records/campaign-log"));
    records.expect("the journal").count() as u64
}

/// Waits until so many more records are there. Whether that came before the end of the run.
fn until(directory: &Path, run: &mut Running, more: u64) -> bool {
    let wanted = records(directory) + more;
    while !run.is_over() {
        if records(directory) >= wanted {
            return true;
        }
    }
    false
}

/// The campaign's short id and its digest, from what planning printed.
fn planned(output: &str) -> (String, String) {
    let line = output.lines().find(|line| line.starts_with("campaign "));
    let mut words = line.expect("a campaign").split_whitespace().skip(1);
    let mut next = || words.next().expect("a word").to_owned();
    (next(), next())
}

#[test]
fn sixty_of_three_hundred_sites_come_back_whatever_is_killed() {
    let mut cluster = PostgresCluster::start(&ClusterOptions::fast()).expect("a server");
    cluster.create_database("shop").expect("a database");
    let shell = Shell::new(&cluster).with_database("shop");
    let directory = shell.directory();
    prepare(&shell);
    let ask = |cluster: &PostgresCluster, sql: &str| cluster.psql("shop", sql).expect("an answer");
    let before = ask(&cluster, DIGESTS);
    let embedded = ["sites", "apps"].map(|name| (name, contents(directory, name)));
    let taken = ask(
        &cluster,
        &format!("SELECT min(id) FROM projects WHERE account_id = {POISONED}"),
    );
    ask(&cluster, DESTROY);
    destroy(directory, "sites");
    destroy(directory, "apps");
    let sites: Vec<String> = destroyed().map(|site| format!("account:{site}")).collect();
    fs::write(directory.join("sites.txt"), sites.join("\n")).expect("write a file");
    let plan = shell.run("reinstate campaign plan --at latest --tenants-from sites.txt");
    let (campaign, digest) = planned(&plan);
    shell.run(&format!(
        "reinstate campaign approve {campaign} --confirm-digest {digest}"
    ));
    // A neighbour takes the place of a row of one of them, after it was planned.
    ask(
        &cluster,
        &format!(
            "INSERT INTO projects (id, account_id, currency_code, name, created_at, settings)
             VALUES ({taken}, {}, 'EUR', 'poison', now(), '{{}}')",
            POISONED + 1
        ),
    );
    let resume = format!("exec reinstate campaign resume {campaign}");
    let mut draw = Draw(6);
    let mut killed = 0;
    let mut at = Vec::new();
    while killed < KILLS {
        let mut run = shell.spawn(&resume);
        if !until(directory, &mut run, draw.below(RECORDS_BETWEEN_KILLS)) {
            break;
        }
        thread::sleep(Duration::from_millis(draw.below(30)));
        run.kill();
        killed += 1;
        at.push(records(directory));
    }
    assert_eq!(killed, KILLS, "the campaign ended before: {at:?}");
    // The database goes away while merges of its phase wait for it, and comes back.
    let mut lock = shell.spawn(&format!("exec psql --quiet \"$DATABASE\" -c '{LOCK}'"));
    while ask(&cluster, HELD) != "t" {
        assert!(!lock.is_over(), "the table was not locked");
    }
    let mut run = shell.spawn(&resume);
    while ask(&cluster, WAITING) != "t" {
        assert!(!run.is_over(), "the campaign ended before");
    }
    cluster.kill_nine().expect("kill the server");
    assert_ne!(lock.end().0, Some(0), "the server went on");
    cluster.restart().expect("start the server");
    let (mut code, mut output) = run.end();
    for _ in 0..3 {
        if code == Some(3) {
            break;
        }
        (code, output) = shell.spawn(&resume).end();
    }
    assert_eq!(code, Some(3), "{output}");
    assert!(
        output.contains("59 of 60 sites handed back, 1 parked"),
        "{output}"
    );
    assert!(output.contains("store orders"), "{output}");
    let after = ask(&cluster, DIGESTS);
    let touched = [POISONED, POISONED + 1];
    assert_eq!(but(&after, &touched), but(&before, &touched));
    assert_eq!(
        but(&after, &[POISONED + 1]),
        but(&before, &touched),
        "the poisoned one has rows"
    );
    for (name, before) in &embedded {
        let mut before = before.clone();
        if *name == "apps" {
            before.retain(|(owner, _), _| owner != POISONED.to_string().as_bytes());
        }
        assert!(contents(directory, name) == before, "store {name}");
    }
    let opened = ask(
        &cluster,
        "SELECT count(DISTINCT account_id), bool_or(account_id = 150) FROM opened",
    );
    assert_eq!(opened, "59|f");
    assert_eq!(
        ask(&cluster, "SELECT count(*) FROM reinstate.journal"),
        "59"
    );
    // Run again, it writes nothing.
    let (code, _) = shell.spawn(&resume).end();
    assert_eq!(code, Some(3));
    assert_eq!(
        ask(&cluster, "SELECT count(*) FROM reinstate.journal"),
        "59"
    );
    assert_eq!(ask(&cluster, DIGESTS), after);
}
