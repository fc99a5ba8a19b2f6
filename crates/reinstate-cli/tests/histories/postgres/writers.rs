//! Sessions that write, each a client program of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use reinstate_testkit::cluster::TestDatabase;

use super::{WRITERS, first_tenant, schema};
use crate::Dice;

/// Transactions of one writer of a history.
const TRANSACTIONS: u64 = 8;
/// Lets the server send what the transaction did so far, which it keeps 64 KiB of.
const SENT_EARLY: &str = " PERFORM pg_logical_emit_message(true, 'padding', repeat('x', 70000));";
const DONE: &str = "done with this history";

/// A session in which statements fail and others go on.
#[derive(Debug)]
pub struct Psql {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Psql {
    pub fn connect(database: &TestDatabase<'_>) -> Self {
        let mut psql = database.cluster().command("psql").unwrap();
        psql.args(["-X", "-q", "-A", "-t", "-d", database.name(), "-f", "-"]);
        psql.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = psql.spawn().unwrap();
        Self {
            input: child.stdin.take().unwrap(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// Hands over what is to be done next, and does not wait for it.
    pub fn send(&mut self, script: &str) {
        let end = format!("SELECT '{DONE}';\n");
        self.input.write_all(script.as_bytes()).unwrap();
        self.input.write_all(end.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    /// Waits until it is done.
    pub fn wait(&mut self) {
        let mut line = String::new();
        while line.trim_end() != DONE {
            line.clear();
            let read = self.output.read_line(&mut line).unwrap();
            assert!(read > 0, "psql went away");
        }
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One statement of a writer.
fn statement(dice: &mut Dice, history: usize, writer: u64) -> String {
    let id = 1 + dice.below(14);
    let own = 20 + writer * 10 + dice.below(4);
    let (tenant, other) = (
        first_tenant(history) as u64 + dice.below(4),
        1 + dice.below(14),
    );
    let text = dice.pick(&["x", "again", "a-longer-text"]);
    // Kept out of line, and not logged again by an update that leaves it.
    let long = "long".repeat(dice.pick(&[1, 1000]));
    match dice.below(20) {
        0 => format!("INSERT INTO projects VALUES ({own}, {tenant}, '{text}')"),
        1 => format!("UPDATE projects SET name = '{text}' WHERE id = {id}"),
        // A family goes to another tenant.
        2 => format!("UPDATE projects SET account_id = {tenant} WHERE id = {id}"),
        3 => format!("UPDATE projects SET account_id = NULL WHERE id = {own}"),
        4 => format!("DELETE FROM projects WHERE id = {id} AND name <> 'p'"),
        5 | 6 => format!(
            "INSERT INTO issues VALUES ({own}, {id}, '{text}') ON CONFLICT (id) DO UPDATE SET title = 'upsert'"
        ),
        7 => format!("UPDATE issues SET project_id = {other} WHERE id = {id}"),
        8 => format!("DELETE FROM issues WHERE id = {id}"),
        9 => format!("UPDATE issues SET id = {own} + 100 WHERE id = {own}"),
        10 | 11 => {
            format!("INSERT INTO comments VALUES ({own}, {id}, '{long}') ON CONFLICT DO NOTHING")
        }
        12 => format!("UPDATE comments SET issue_id = {other}, body = '{text}' WHERE id = {own}"),
        13 => format!("DELETE FROM comments WHERE id = {id}"),
        14 if dice.below(2) == 0 => format!("UPDATE comments SET id = id + 1000 WHERE id = {own}"),
        14 => format!("UPDATE comments SET issue_id = {other} WHERE id = {own}"),
        15 | 16 => format!("INSERT INTO visits VALUES ({tenant}, 'same'), ({tenant}, '{text}')"),
        17 => format!(
            "UPDATE visits SET account_id = {tenant} WHERE ctid IN (SELECT ctid FROM visits WHERE page = '{text}' LIMIT 2)"
        ),
        18 => format!(
            "DELETE FROM visits WHERE ctid IN (SELECT ctid FROM visits WHERE account_id = {tenant} LIMIT 2)"
        ),
        _ if dice.below(4) == 0 => "TRUNCATE visits".to_owned(),
        _ => "TRUNCATE comments".to_owned(),
    }
}

/// Tables that change while they are written to, and others that come: the log goes on with them. Not those
/// that are truncated as well: where both come between two looks, the log ends.
fn alteration(dice: &mut Dice, history: usize, number: u64) -> String {
    let table = dice.pick(&["projects", "issues"]);
    let (kind, default) = dice.pick(&[("text", "d"), ("int", ""), ("numeric", "1.50")]);
    if history.is_multiple_of(3) && number < 3 {
        return format!(
            "CREATE TABLE later_{history}_{number} (id int PRIMARY KEY, account_id int);\n"
        );
    }
    let (note, sql) = match dice.below(5) {
        0 => (
            "dropped spare".to_owned(),
            format!("ALTER TABLE {table} DROP COLUMN spare"),
        ),
        1 => (
            format!("renamed spare kept_{number}"),
            format!("ALTER TABLE {table} RENAME COLUMN spare TO kept_{number}"),
        ),
        _ if default.is_empty() => (
            format!("added more_{number}"),
            format!("ALTER TABLE {table} ADD COLUMN more_{number} {kind}"),
        ),
        // What rows that were there have is not what those that come later have.
        _ => (
            format!("added more_{number} {default}"),
            format!(
                "ALTER TABLE {table} ADD COLUMN more_{number} {kind} DEFAULT '{default}';
                 ALTER TABLE {table} ALTER more_{number} SET DEFAULT '9'"
            ),
        ),
    };
    let schema = schema(history);
    format!(
        "DO $$ BEGIN {sql};
         PERFORM pg_logical_emit_message(true, 'altered', '{schema}.{table} {note}'); END $$;\n"
    )
}

/// What one writer of a history does: transactions of a few statements, each of which may fail and be left
/// out, in sub-transactions; some are rolled back.
pub fn script(seed: u64, history: usize, writer: u64) -> String {
    let mut dice = Dice((seed * 100 + history as u64) * WRITERS as u64 + writer);
    let schema = schema(history);
    let mut script = format!("SET deadlock_timeout = '20ms'; SET search_path = {schema};\n");
    if writer == 0 {
        script += "INSERT INTO comments VALUES (500, 1, repeat('long', 1000));
                   UPDATE comments SET issue_id = 2 WHERE id = 500;
                   UPDATE comments SET id = 501 WHERE id = 500;\n";
    }
    for number in 0..TRANSACTIONS {
        let mut body = String::new();
        for _ in 0..=dice.below(4) {
            let statement = statement(&mut dice, history, writer);
            body += &format!(" BEGIN {statement}; EXCEPTION WHEN OTHERS THEN NULL; END;");
            if dice.below(8) == 0 {
                body += SENT_EARLY;
            }
        }
        let end = dice.pick(&["ROLLBACK", "COMMIT", "COMMIT", "COMMIT"]);
        // A deferred constraint may still refuse the commit.
        script += &format!("BEGIN; DO $$ BEGIN{body} END $$; {end};\n");
        if writer == 0 && number % 4 == 1 {
            script += &alteration(&mut dice, history, number);
        }
    }
    script
}
