//! The tables of pgbench with the branch as the tenant: what a branch is, and loads of which every
//! committed transaction is accounted for.

use std::collections::BTreeMap;
use std::fs;

use reinstate_testkit::cluster::PostgresCluster;

use super::Shell;

pub const TABLES: [&str; 4] = [
    "pgbench_branches",
    "pgbench_tellers",
    "pgbench_accounts",
    "pgbench_history",
];

/// How many transactions pgbench said that it committed, by branch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Ledger(BTreeMap<u32, u64>);

/// What one branch's rows are, table by table, as the server writes them.
pub fn branch(
    cluster: &PostgresCluster,
    database: &str,
    bid: u32,
) -> BTreeMap<&'static str, String> {
    let digest = |table: &str| {
        let sql = format!(
            "SELECT count(*), md5(string_agg(row, E'\\n' ORDER BY row)) \
             FROM (SELECT t::text AS row FROM {table} t WHERE bid = {bid}) AS rows"
        );
        cluster.psql(database, &sql).expect("digest a branch")
    };
    TABLES.iter().map(|&table| (table, digest(table))).collect()
}

/// The number that follows a label in a report.
#[track_caller]
pub fn number_after(report: &str, label: &str) -> u64 {
    let rest = report.split_once(label).map_or("", |(_, rest)| rest);
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number after {label:?} in:\n{report}"))
}

/// Writes a script for each of these branches, of pgbench's own transaction, and returns the command
/// that plays them at random. pgbench reports on each script by itself.
pub fn load_of(shell: &Shell, branches: impl Iterator<Item = u32>, how: &str) -> String {
    let files: String = branches
        .map(|bid| {
            let file = shell.directory().join(format!("{bid}.sql"));
            fs::write(file, transaction_of(bid)).expect("write a file");
            format!(" --file {bid}.sql")
        })
        .collect();
    format!("pgbench --no-vacuum{files} {how} \"$DATABASE\"")
}

fn transaction_of(bid: u32) -> String {
    format!(
        "\\set aid ({bid} - 1) * 100000 + random(1, 100000)\n\
         \\set tid ({bid} - 1) * 10 + random(1, 10)\n\
         \\set delta random(-5000, 5000)\n\
         BEGIN;\n\
         UPDATE pgbench_accounts SET abalance = abalance + :delta WHERE aid = :aid;\n\
         UPDATE pgbench_tellers SET tbalance = tbalance + :delta WHERE tid = :tid;\n\
         UPDATE pgbench_branches SET bbalance = bbalance + :delta WHERE bid = {bid};\n\
         INSERT INTO pgbench_history (tid, bid, aid, delta, mtime)\n\
           VALUES (:tid, {bid}, :aid, :delta, CURRENT_TIMESTAMP);\n\
         END;\n"
    )
}

impl Ledger {
    /// Adds what the reports of one or more loads by `load_of` say; no client may have seen an error.
    #[track_caller]
    pub fn add(&mut self, reports: &str) {
        for bad in ["error", "aborted"] {
            assert!(!reports.to_lowercase().contains(bad), "{reports}");
        }
        let mut of_scripts = 0;
        let mut of_loads = 0;
        let mut bid = None;
        for line in reports.lines() {
            if let Some(failed) = line.strip_prefix("number of failed transactions: ") {
                assert!(failed.starts_with("0 "), "{reports}");
            } else if line.starts_with("number of transactions actually processed: ") {
                of_loads += number_after(line, "processed: ");
            } else if line.starts_with("SQL script ") {
                let file = line.rsplit(": ").next().unwrap_or_default();
                bid = file
                    .strip_suffix(".sql")
                    .and_then(|bid| bid.parse::<u32>().ok());
            } else if line.contains(" transactions (") {
                let committed = number_after(line, "- ");
                of_scripts += committed;
                let bid = bid.take().expect("a script of one branch");
                *self.0.entry(bid).or_default() += committed;
            }
        }
        assert!(of_loads > 0 && of_scripts == of_loads, "{reports}");
    }

    /// Compares with the lines of history that each branch has, of which there were none at first.
    #[track_caller]
    pub fn check(&self, cluster: &PostgresCluster, database: &str) {
        let sql = "SELECT bid, count(*) FROM pgbench_history GROUP BY bid";
        let found = cluster.psql(database, sql).expect("count history");
        let number = |text: &str| text.trim().parse::<u64>().expect("a number");
        let found: BTreeMap<u32, u64> = found
            .lines()
            .filter_map(|line| line.split_once('|'))
            .map(|(bid, count)| (u32::try_from(number(bid)).expect("a branch"), number(count)))
            .collect();
        assert_eq!(
            found, self.0,
            "lines of history, and transactions committed"
        );
    }
}
