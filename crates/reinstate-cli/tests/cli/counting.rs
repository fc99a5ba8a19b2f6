//! Numbers that a tenant counts for itself: neither counters nor sequences go back, so that no
//! number is given away twice.

use std::fs;

use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

use crate::sandbox::{Run, Sandbox};

/// Issues are numbered by account, from a sequence of the account; its comments from a column.
const SCHEMA: &str = "\
CREATE TABLE accounts (id int PRIMARY KEY, name text, next_comment int);
CREATE TABLE issues (id serial PRIMARY KEY, account_id int NOT NULL, number int NOT NULL);
CREATE SEQUENCE issue_number_1;
CREATE SEQUENCE issue_number_2;
INSERT INTO accounts SELECT n, 'a' || n, 10 * n FROM generate_series(1, 2) n;
INSERT INTO issues (account_id, number) SELECT 1, nextval('issue_number_1') FROM generate_series(1, 7);
INSERT INTO issues (account_id, number) SELECT 2, nextval('issue_number_2') FROM generate_series(1, 9);
";

const COUNTING: &str = "\
counters = [\"accounts.next_comment\"]
sequences = { \"issue_number_{tenant}\" = \"issues.number\" }
[tenancy.table.accounts]
column = \"id\"
";

struct Ground {
    sandbox: Sandbox,
    database: TestDatabase<'static>,
}

impl Ground {
    fn captured(counting: &str) -> Self {
        let database = shared_cluster().unwrap().fresh_database().unwrap();
        database.psql(SCHEMA).unwrap();
        let sandbox = Sandbox::empty();
        let text = format!(
            "version = 1\n[repository]\nurl = \"file:repository\"\n[store]\nname = \"main\"\n\
             kind = \"postgres\"\nunguarded = true\nurl = {:?}\n[tenancy]\nkind = \"account\"\n\
             column = \"account_id\"\n{counting}",
            database.url()
        );
        fs::write(sandbox.path("reinstate.toml"), text).unwrap();
        sandbox.run(&["init"]).done(&[]);
        sandbox.run(&["capture", "once"]).done(&[]);
        Self { sandbox, database }
    }

    fn psql(&self, sql: &str) -> String {
        self.database.psql(sql).unwrap()
    }

    fn restore(&self) -> Run {
        let what = ["restore", "account:1", "--at", "latest", "--nearest-before"];
        let confirmed = ["--confirm", "account:1"];
        self.sandbox.run(&[&what[..], &confirmed].concat())
    }
}

#[test]
fn a_counter_of_a_live_row_is_not_lowered() {
    let ground = Ground::captured(COUNTING);
    ground.psql("UPDATE accounts SET name = 'renamed', next_comment = 15 WHERE id = 1");
    ground.restore().done(&["restored"]);
    assert_eq!(
        ground.psql("SELECT name, next_comment FROM accounts WHERE id = 1"),
        "a1|15"
    );
    ground.restore().done(&["no change"]);
    ground.psql("UPDATE accounts SET next_comment = 3 WHERE id = 1");
    ground.restore().done(&["restored"]);
    assert_eq!(
        ground.psql("SELECT next_comment FROM accounts WHERE id = 1"),
        "10"
    );
    ground.psql("DELETE FROM accounts WHERE id = 1");
    ground.restore().done(&["restored"]);
    assert_eq!(
        ground.psql("SELECT next_comment FROM accounts WHERE id = 1"),
        "10"
    );
}

#[test]
fn a_sequence_of_the_tenant_is_raised_to_what_is_restored() {
    let ground = Ground::captured(COUNTING);
    // The incident drops the sequence, and somebody makes it anew.
    ground.psql("DELETE FROM issues WHERE account_id = 1; DROP SEQUENCE issue_number_1");
    let remedy = "CREATE SEQUENCE \"public\".\"issue_number_1\" first";
    let refused = ground.restore();
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(remedy), "{refused:?}");
    assert_eq!(
        ground.psql("SELECT count(*) FROM issues WHERE account_id = 1"),
        "0"
    );
    ground.psql("CREATE SEQUENCE issue_number_1");
    ground.restore().done(&["restored"]);
    assert_eq!(ground.psql("SELECT nextval('issue_number_1')"), "8");
    assert_eq!(ground.psql("SELECT nextval('issue_number_2')"), "10");
}

#[test]
fn what_cannot_count_is_refused() {
    for (counting, says) in [
        (
            "counters = [\"accounts.name\"]\n",
            "tenancy.counters: accounts.name is no column",
        ),
        (
            "counters = [\"issues.nothing\"]\n",
            "tenancy.counters: issues.nothing is no column",
        ),
    ] {
        let ground = Ground::captured(COUNTING);
        let path = ground.sandbox.path("reinstate.toml");
        let text = fs::read_to_string(&path).unwrap();
        let text = text.replace("counters = [\"accounts.next_comment\"]\n", counting);
        fs::write(&path, text).unwrap();
        ground.restore().refused(2, &[says]);
    }
}
