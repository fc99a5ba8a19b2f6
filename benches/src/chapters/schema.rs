//! The application of some 150 tables that the tests have, with millions of rows: capture and restore by
//! the program beside the server's own tools.

#[path = "../../../tests/large_schema/mod.rs"]
#[expect(dead_code, reason = "what only the tests need")]
mod application;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use reinstate_benches::{Summary, pairs, time, with_further_settings};
use reinstate_testkit::cluster::{ClusterOptions, PostgresCluster};
use tempfile::TempDir;

use self::application::{Application, DECIDED, Keys};
use super::Row;

/// How often the ordinary tables have the rows that they have in the tests: some five million.
const TIMES: u64 = 390;
/// A variable of the environment with another number, to profile with.
const OTHER_TIMES: &str = "REINSTATE_BENCH_TIMES";
/// A variable of the environment that is `restore` to leave everything out but the restore of one account.
const ONLY: &str = "REINSTATE_BENCH_ONLY";
const PAIRS: usize = 3;
/// The accounts that are deleted and restored: one, and three in one run.
const RESTORED: [&[u32]; 2] = [&[3], &[3, 8, 12]];

pub fn measure() -> Result<Vec<Row>> {
    let times = match std::env::var(OTHER_TIMES) {
        Ok(times) => times.parse().context(OTHER_TIMES)?,
        Err(_) => TIMES,
    };
    let cluster = PostgresCluster::start(&with_further_settings(ClusterOptions::fast()))?;
    let application = Application::with_rows(cluster.fresh_database()?, Keys::Deferrable, times);
    application.psql("ANALYZE");
    let bench = Bench::new(&cluster, &application)?;
    bench.find_the_map()?;
    bench.reinstate(&["init"])?;
    bench.reinstate(&["guard", "install"])?;
    let what = |verb: &str, rows: u64| format!("150 tables: {verb}, {rows} rows");
    let mut rows = Vec::new();
    // As soon as it is known: the rest takes long.
    let mut push = |row: Row| {
        eprintln!("{}: {}, beside {}", row.what, row.figure, row.beside);
        rows.push(row);
    };
    let is_restore_only = std::env::var(ONLY).is_ok_and(|only| only == "restore");
    let capture = || time(|| bench.reinstate(&["capture", "once"]));
    if is_restore_only {
        capture()?;
    } else {
        let row_count = bench.count("1 = 1")?;
        let dumped = pairs(PAIRS, capture, || time(|| bench.dump()))?.summary();
        push(row(what("capture", row_count), dumped, "`pg_dump -Fc`"));
        let copied = pairs(PAIRS, capture, || time(|| bench.copy_out()))?.summary();
        let beside = "COPY of every table TO STDOUT, one after the other";
        push(row(what("capture", row_count), copied, beside));
    }
    let restored_count = if is_restore_only { 1 } else { RESTORED.len() };
    for accounts in RESTORED.into_iter().take(restored_count) {
        bench.keep_rows_of(accounts)?;
        let account_rows = bench.count_of(accounts)?;
        let restored = pairs(
            PAIRS,
            || {
                bench.delete(accounts);
                time(|| bench.restore(accounts))
            },
            || {
                bench.delete(accounts);
                time(|| bench.copy_in())
            },
        )?;
        let verb = match accounts.len() {
            1 => "restore of an account, plan, undo image and proof included".to_owned(),
            count => format!(
                "restore of {count} accounts, plan, undo images and proofs included, two merges at a time"
            ),
        };
        push(row(
            what(&verb, account_rows),
            restored.summary(),
            "COPY of the same rows into the same tables, one transaction on one connection",
        ));
    }
    Ok(rows)
}

fn row(what: String, summary: Summary, beside: &str) -> Row {
    Row {
        what,
        figure: format!(
            "{} of the limit, {:.0} ms",
            summary.ratio, summary.ours_ms.median
        ),
        beside: format!("{beside}, {:.0} ms", summary.limit_ms.median),
        target: "0.5 or more",
        reached: Some(summary.ratio.median >= 0.5),
    }
}

struct Bench<'a> {
    cluster: &'a PostgresCluster,
    application: &'a Application<'a>,
    directory: TempDir,
    program: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(cluster: &'a PostgresCluster, application: &'a Application<'a>) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name("reinstate");
        ensure!(
            program.exists(),
            "there is no {}: cargo build --release -p reinstate-cli",
            program.display()
        );
        Ok(Self {
            cluster,
            application,
            directory: tempfile::tempdir()?,
            program,
        })
    }

    /// Runs the program and returns what it printed.
    fn output(&self, arguments: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(arguments)
            .current_dir(self.directory.path())
            .env(
                "DATABASE_URL",
                self.cluster.url(self.application.database()),
            )
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)? + &said)
    }

    fn reinstate(&self, arguments: &[&str]) -> Result<()> {
        self.output(arguments).map(drop)
    }

    /// Configures what is proposed, after some of it was decided.
    fn find_the_map(&self) -> Result<()> {
        let path = self.directory.path().join("reinstate.toml");
        let (head, _) = DECIDED.split_once("[tenancy]\n").context("no head")?;
        fs::write(&path, DECIDED)?;
        self.reinstate(&["tenancy", "suggest", "--count", "--out", "proposal.toml"])?;
        let proposal = fs::read_to_string(self.directory.path().join("proposal.toml"))?;
        fs::write(&path, format!("{head}{proposal}"))?;
        Ok(())
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn psql(&self, sql: &str) -> Result<String> {
        Ok(self.cluster.psql(self.application.database(), sql)?)
    }

    fn dump(&self) -> Result<()> {
        let path = self.path("dump");
        let arguments = ["-Fc", "-f", &path, self.application.database()];
        self.cluster.run("pg_dump", &arguments)?;
        Ok(())
    }

    fn copy_out(&self) -> Result<()> {
        let mut sql = "\\o /dev/null\n".to_owned();
        for table in self.application.tables() {
            sql.push_str(&format!("COPY (SELECT * FROM {table}) TO STDOUT;\n"));
        }
        self.psql(&sql).map(drop)
    }

    fn count(&self, condition: &str) -> Result<u64> {
        let counts = self.application.tables().map(|table| {
            let condition = condition.replace("OWNER", self.application.owner_of(table));
            format!("(SELECT count(*) FROM {table} t WHERE {condition})")
        });
        let sql = format!("SELECT {}", counts.collect::<Vec<_>>().join(" + "));
        Ok(self.psql(&sql)?.trim().parse()?)
    }

    /// The ordinary tables, with SQL for the accounts' rows of each. They are nearly all there is.
    fn ordinary(&self, accounts: &[u32]) -> impl Iterator<Item = (&str, String)> {
        let tables = self.application.tables();
        let accounts: Vec<String> = accounts.iter().map(u32::to_string).collect();
        let accounts = accounts.join(", ");
        let name = |table: &'a str| table.strip_prefix("ONLY ").unwrap_or(table);
        tables
            .map(move |table| {
                let owner = self.application.owner_of(table);
                (name(table), format!("{owner} IN ({accounts})"))
            })
            .filter(|(name, _)| name.starts_with("app_"))
    }

    fn count_of(&self, accounts: &[u32]) -> Result<u64> {
        let counts = self
            .ordinary(accounts)
            .map(|(name, of_account)| format!("(SELECT count(*) FROM {name} WHERE {of_account})"));
        let sql = format!("SELECT {}", counts.collect::<Vec<_>>().join(" + "));
        Ok(self.psql(&sql)?.trim().parse()?)
    }

    /// The columns of a table that are not computed.
    fn columns(&self, table: &str) -> Result<String> {
        let sql = format!(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
              WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped
                AND attgenerated = ''"
        );
        Ok(self.psql(&sql)?.trim().to_owned())
    }

    fn keep_rows_of(&self, accounts: &[u32]) -> Result<()> {
        let (mut take, mut put) = (String::new(), String::new());
        for (name, of_account) in self.ordinary(accounts) {
            let (columns, path) = (self.columns(name)?, self.path(name));
            take.push_str(&format!(
                "\\copy (SELECT {columns} FROM {name} WHERE {of_account}) TO '{path}'\n"
            ));
            put.push_str(&format!("\\copy {name} ({columns}) FROM '{path}'\n"));
        }
        self.psql(&take)?;
        let put = format!("BEGIN; SET CONSTRAINTS ALL DEFERRED;\n{put}COMMIT;\n");
        fs::write(self.directory.path().join("put.sql"), put)?;
        Ok(())
    }

    fn copy_in(&self) -> Result<()> {
        let put = fs::read_to_string(self.directory.path().join("put.sql"))?;
        self.psql(&put).map(drop)
    }

    /// Deletes the accounts as an incident would, and lets the server know: statistics without a row of
    /// the tenants are what it has after autovacuum came by, and the hard case for whoever restores them.
    fn delete(&self, accounts: &[u32]) {
        let mut sql = "BEGIN; SET LOCAL session_replication_role = replica;\n".to_owned();
        for (name, of_account) in self.ordinary(accounts) {
            sql.push_str(&format!("DELETE FROM {name} WHERE {of_account};\n"));
        }
        self.application
            .psql(&format!("{sql}COMMIT;\nVACUUM ANALYZE;\n"));
    }

    fn restore(&self, accounts: &[u32]) -> Result<()> {
        let tenants = accounts.iter().map(|account| format!("account:{account}"));
        let tenants: Vec<String> = tenants.collect();
        let when = ["--at", "latest", "--nearest-before"];
        let (said, done) = if let [tenant] = tenants.as_slice() {
            let what = [&["restore", tenant], &when[..], &["--confirm", tenant]].concat();
            let done = "1 of 1 tenant restored and proven".to_owned();
            (self.output(&what)?, done)
        } else {
            let plan = self.path("several.plan");
            let _ = fs::remove_file(&plan);
            let mut what = vec!["plan"];
            what.extend(tenants.iter().map(String::as_str));
            what.extend(when);
            let planned = self.output(&[&what[..], &["--out", &plan, "--json"]].concat())?;
            let digest = planned.split_once("\"digest\":\"").context("no digest")?.1;
            let digest = digest.split('"').next().context("no digest")?;
            let said = self.output(&["apply", &plan, "--confirm-digest", digest])?;
            let count = tenants.len();
            (
                said,
                format!("{count} of {count} tenants restored and proven"),
            )
        };
        ensure!(said.contains(&done), "{said}");
        Ok(())
    }
}
