//! How fast a merge is against the server's own COPY of the same rows into the same live table.
//!
//! `cargo run --release -p reinstate-postgres --example merge_speed -- [rows] [rounds]`
//!
//! Starts a server of its own. Each round copies the rows in with `psql`, deletes them, merges
//! them, and deletes them again; medians of the rounds are printed. With `REINSTATE_LOG=1`, how
//! long the server says that each statement of the last merge took.

#![expect(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

use std::time::{Duration, Instant};

use reinstate_core::{
    ChangeCounts, ChangeSource, Digest, JobId, JournalEntry, LiveStore, RowBatch, RowRole,
    RowStream, StoreError, TableIndex, TenantId, TenantKind,
};
use reinstate_postgres::{ConnectionSettings, PostgresStore, SecretUrl, TenancyMap};
use reinstate_testkit::cluster::{ClusterOptions, PostgresCluster};

/// Rows of other tenants that are there already.
const LIVE_ROWS: u32 = 400_000;

const TABLE: &str = "\
CREATE TABLE issues (id bigint PRIMARY KEY, account_id bigint NOT NULL, project_id bigint NOT NULL,
    author_id bigint, title text NOT NULL, body text NOT NULL, state text NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz);
CREATE INDEX issues_account_id ON issues (account_id);
";

/// Changes of one table, held as batches.
struct OneTable {
    tables: [TableIndex; 1],
    role: RowRole,
    batches: Vec<RowBatch>,
}

impl ChangeSource for OneTable {
    fn tables(&self) -> &[TableIndex] {
        &self.tables
    }

    fn counts(&self, _table: TableIndex) -> ChangeCounts {
        let rows = self.batches.iter().map(|batch| batch.len() as u64).sum();
        match self.role {
            RowRole::Created => ChangeCounts {
                created: rows,
                ..ChangeCounts::NONE
            },
            RowRole::Deleted => ChangeCounts {
                deleted: rows,
                ..ChangeCounts::NONE
            },
            _ => ChangeCounts {
                put_back: rows,
                ..ChangeCounts::NONE
            },
        }
    }

    fn rows(
        &self,
        _table: TableIndex,
        _role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        Ok(Box::new(Batches(&self.batches)))
    }
}

struct Batches<'a>(&'a [RowBatch]);

impl RowStream for Batches<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        batch.clear();
        let Some((first, rest)) = self.0.split_first() else {
            return Ok(false);
        };
        self.0 = rest;
        first.iter().for_each(|row| batch.push_row(row));
        Ok(true)
    }
}

fn print_log(log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    let starts = |line: &&&str| line.contains("pg_try_advisory_lock");
    let after_last = lines.iter().rev().take_while(|line| !starts(line)).count();
    for line in &lines[lines.len() - after_last..] {
        if let Some(text) = line.strip_prefix("reinstate LOG:  duration: ") {
            println!("{}", text.chars().take(110).collect::<String>());
        }
    }
}

fn select(account: u32, first: u32, rows: u32) -> String {
    format!(
        "SELECT n, {account}, n % 40, n % 90, 'Issue ' || n || ': the printer is on fire',
                repeat(md5(n::text), 5), CASE WHEN n % 3 = 0 THEN 'closed' ELSE 'open' END,
                '2026-01-01'::timestamptz + n * interval '1 s', NULL::timestamptz
           FROM generate_series({first}, {}) n",
        first + rows - 1
    )
}

fn main() {
    let mut arguments = std::env::args()
        .skip(1)
        .map(|text| text.parse::<u32>().unwrap());
    let rows = arguments.next().unwrap_or(100_000);
    let rounds = arguments.next().unwrap_or(5);
    let is_logged = std::env::var_os("REINSTATE_LOG").is_some();
    let limit = if is_logged { "0" } else { "-1" };
    let options = ClusterOptions::default()
        .with("shared_buffers", "512MB")
        .with("max_wal_size", "4GB")
        .with("log_min_duration_statement", limit)
        .with("log_line_prefix", "%a ");
    let cluster = PostgresCluster::start(&options).unwrap();
    let psql = |sql: &str| cluster.psql("postgres", sql).unwrap();
    let file = cluster.socket_dir().join("rows.copy").display().to_string();
    psql(TABLE);
    for account in 0..20 {
        let part = LIVE_ROWS / 20;
        psql(&format!(
            "INSERT INTO issues {}",
            select(account, account * part, part)
        ));
    }
    psql(&format!(
        "COPY ({}) TO '{file}'; VACUUM ANALYZE issues",
        select(100, LIVE_ROWS * 2, rows)
    ));
    let mut map = TenancyMap::new(TenantKind::parse("account").unwrap());
    map.column = Some("account_id".to_owned());
    let settings = ConnectionSettings::new(SecretUrl::new(cluster.url("postgres")), "speed");
    let store = PostgresStore::connect(settings, map).unwrap();
    store.prepare().unwrap();
    let remove = "DELETE FROM issues WHERE account_id = 100; VACUUM issues; CHECKPOINT";
    let copy = || {
        let text = psql(&format!("\\timing on\n\\copy issues from '{file}'\n"));
        let time = text
            .lines()
            .find_map(|line| line.strip_prefix("Time: "))
            .unwrap();
        let milliseconds: f64 = time.split(' ').next().unwrap().parse().unwrap();
        Duration::from_secs_f64(milliseconds / 1e3)
    };
    copy();
    let plan = read_plan(&store);
    let bytes: usize = plan
        .batches
        .iter()
        .map(|batch| batch.as_bytes().len())
        .sum();
    println!(
        "{rows} rows of {} bytes, {rounds} rounds",
        bytes / rows as usize
    );
    let mut times: [Vec<Duration>; 6] = Default::default();
    for round in 0..rounds {
        psql(remove);
        times[0].push(copy());
        psql(remove);
        for (place, time) in merge(&store, &plan, round).into_iter().enumerate() {
            times[place + 1].push(time);
        }
    }
    if is_logged {
        print_log(&cluster.log().unwrap());
    }
    let median = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() / 2]
    };
    let names = [
        "COPY",
        "begin",
        "apply",
        "read back",
        "commit",
        "whole merge",
    ];
    for (name, times) in names.iter().zip(&times) {
        println!("{name:12} {:8.1} ms", median(times).as_secs_f64() * 1e3);
    }
    let (raw, whole) = (median(&times[0]), median(&times[5]));
    let without = whole - median(&times[3]);
    println!(
        "speed against COPY: {:.2}",
        raw.as_secs_f64() / without.as_secs_f64()
    );
    println!(
        "with read back:     {:.2}",
        raw.as_secs_f64() / whole.as_secs_f64()
    );
}

/// Begin, apply, read back, commit, all of it.
fn merge(store: &PostgresStore, plan: &OneTable, round: u32) -> [Duration; 5] {
    let tenant = TenantId::try_new("100").unwrap();
    let view = store.read_view().unwrap();
    let (fingerprint, schema) = (view.fingerprint(&tenant).unwrap(), view.schema().clone());
    drop(view);
    let mut times = [Duration::ZERO; 5];
    let whole = Instant::now();
    let mut start = whole;
    let mut lap = |place: usize| {
        times[place] = start.elapsed();
        start = Instant::now();
    };
    let mut writer = store.begin_merge(&tenant, &fingerprint, &schema).unwrap();
    lap(0);
    writer.apply(plan).unwrap();
    lap(1);
    let mut stream = writer.read_back(plan.tables[0]).unwrap();
    let mut batch = RowBatch::new();
    while stream.next_batch(&mut batch).unwrap() {}
    drop(stream);
    lap(2);
    let entry = JournalEntry {
        job: JobId::from_bytes(u128::from(round).to_be_bytes()),
        tenant,
        plan: Digest::from_bytes([7; 32]),
        payload: vec![0; 100],
    };
    writer.commit(&entry).unwrap();
    lap(3);
    times[4] = whole.elapsed();
    times
}

fn read_plan(store: &PostgresStore) -> OneTable {
    let view = store.read_view().unwrap();
    let (table, _) = view.schema().find("issues").unwrap();
    let tenant = TenantId::try_new("100").unwrap();
    let mut stream = view.tenant_rows(&tenant, table).unwrap();
    let mut batches = Vec::new();
    let mut batch = RowBatch::new();
    while stream.next_batch(&mut batch).unwrap() {
        batches.push(batch.clone());
    }
    OneTable {
        tables: [table],
        role: RowRole::Created,
        batches,
    }
}
