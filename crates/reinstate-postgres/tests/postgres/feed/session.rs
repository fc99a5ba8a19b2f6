//! Sessions that stay open between statements.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use reinstate_testkit::cluster::PostgresCluster;

use crate::ground::Ground;

/// A session in which a transaction stays open.
pub struct Session {
    psql: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Session {
    pub fn open(cluster: &PostgresCluster, database: &str) -> Self {
        let mut psql = cluster.command("psql").unwrap();
        psql.args(["-X", "-q", "-A", "-t", "-d", database, "-f", "-"]);
        let psql = psql
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut psql = psql.spawn().unwrap();
        Self {
            input: psql.stdin.take(),
            output: BufReader::new(psql.stdout.take().unwrap()),
            psql,
        }
    }

    pub fn of(ground: &Ground) -> Self {
        Self::open(ground.database.cluster(), ground.database.name())
    }

    /// Runs statements to their end, whatever they say.
    pub fn run(&mut self, sql: &str) {
        let input = self.input.as_mut().unwrap();
        input
            .write_all(format!("{sql}\n;\\echo done\n").as_bytes())
            .unwrap();
        let mut line = String::new();
        while line != "done\n" {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "{sql}");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.psql.wait();
    }
}
