//! Numbers that a tenant counts for itself: neither counters nor sequences go back, so that no
//! number is given away twice.

use crate::ground::Ground;

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

fn sections(counting: &str) -> String {
    format!("[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n{counting}")
}

#[test]
fn a_counter_of_a_live_row_is_not_lowered() {
    let ground = Ground::captured(SCHEMA, &sections(COUNTING));
    ground.psql("UPDATE accounts SET name = 'renamed', next_comment = 15 WHERE id = 1");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(
        ground.psql("SELECT name, next_comment FROM accounts WHERE id = 1"),
        "a1|15"
    );
    ground.restore(&[]).done(&["no change"]);
    ground.psql("UPDATE accounts SET next_comment = 3 WHERE id = 1");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(
        ground.psql("SELECT next_comment FROM accounts WHERE id = 1"),
        "10"
    );
    ground.psql("DELETE FROM accounts WHERE id = 1");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(
        ground.psql("SELECT next_comment FROM accounts WHERE id = 1"),
        "10"
    );
}

#[test]
fn a_sequence_of_the_tenant_is_raised_to_what_is_restored() {
    let ground = Ground::captured(SCHEMA, &sections(COUNTING));
    // The incident drops the sequence, and somebody makes it anew.
    ground.psql("DELETE FROM issues WHERE account_id = 1; DROP SEQUENCE issue_number_1");
    let remedy = "CREATE SEQUENCE \"public\".\"issue_number_1\" first";
    let refused = ground.restore(&[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(remedy), "{refused:?}");
    assert_eq!(
        ground.psql("SELECT count(*) FROM issues WHERE account_id = 1"),
        "0"
    );
    ground.psql("CREATE SEQUENCE issue_number_1");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(ground.psql("SELECT nextval('issue_number_1')"), "8");
    assert_eq!(ground.psql("SELECT nextval('issue_number_2')"), "10");
}

/// The role of least privilege may raise the sequences of the tenants that there are, and of those that
/// come after it was made.
#[test]
fn a_confined_role_raises_the_sequences_of_tenants_old_and_new() {
    let ground = Ground::prepared(SCHEMA, &sections(COUNTING));
    ground.as_owner();
    let role = format!("counting_{}", ground.database.name());
    ground.psql(&format!("CREATE ROLE {role} LOGIN"));
    let script = ground.sandbox.run(&["guard", "role", &role]);
    ground.psql(&script.stdout);
    ground.configure_as(Some(&role), &sections(COUNTING));
    ground.psql(
        "INSERT INTO accounts VALUES (7, 'new', 1); CREATE SEQUENCE issue_number_7;
         INSERT INTO issues VALUES (700, 7, 5), (701, 7, 6)",
    );
    ground.sandbox.run(&["capture", "once"]).done(&[]);
    ground.psql(
        "DELETE FROM issues WHERE account_id IN (1, 7);
         DROP SEQUENCE issue_number_1; CREATE SEQUENCE issue_number_1",
    );
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(ground.psql("SELECT nextval('issue_number_1')"), "8");
    let seven = ["restore", "account:7", "--at", "latest", "--nearest-before"];
    let confirm = ["--confirm", "account:7"];
    ground
        .sandbox
        .run(&[&seven[..], &confirm].concat())
        .done(&["restored"]);
    assert_eq!(ground.psql("SELECT nextval('issue_number_7')"), "7");
}

/// The server's log has no sequences. What replaces them is enough at any commit: no number of a row that
/// came back is given away again, an undo lowers nothing, and the next restore finds them high enough.
#[test]
fn numbers_go_on_behind_what_comes_back_to_a_commit_of_the_log() {
    let schema = format!(
        "{SCHEMA}
         CREATE SEQUENCE letters;
         CREATE TABLE sent (id int PRIMARY KEY DEFAULT nextval('letters'), account_id int NOT NULL);
         CREATE TABLE received (id int PRIMARY KEY DEFAULT nextval('letters'), account_id int NOT NULL);
         CREATE TABLE notes (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, account_id int NOT NULL);
         ALTER TABLE accounts REPLICA IDENTITY FULL; ALTER TABLE issues REPLICA IDENTITY FULL;
         ALTER TABLE sent REPLICA IDENTITY FULL; ALTER TABLE received REPLICA IDENTITY FULL;
         ALTER TABLE notes REPLICA IDENTITY FULL;"
    );
    let ground = Ground::prepared(&schema, &sections(COUNTING));
    let follow = || ground.sandbox.run(&["capture", "follow", "--once"]);
    follow().done(&["captured"]);
    let work = |account: i32| {
        ground.psql(&format!(
            "INSERT INTO issues (account_id, number)
               SELECT {account}, nextval('issue_number_{account}') FROM generate_series(1, 3);
             INSERT INTO sent (account_id) SELECT {account} FROM generate_series(1, 5);
             INSERT INTO received (account_id) SELECT {account} FROM generate_series(1, 5);
             INSERT INTO notes (account_id) VALUES ({account}), ({account});
             UPDATE accounts SET next_comment = next_comment + 5 WHERE id = {account}"
        ));
    };
    // Two commits after the snapshot, with numbers that it never saw; between them somebody else's.
    work(2);
    work(1);
    let lsn = ground.psql("SELECT pg_current_wal_insert_lsn()");
    work(1);
    // The incident: everything of the account, and every sequence begins again behind account 2's rows.
    ground.psql(
        "DELETE FROM issues WHERE account_id = 1; DELETE FROM sent WHERE account_id = 1;
         DELETE FROM received WHERE account_id = 1; DELETE FROM notes WHERE account_id = 1;
         UPDATE accounts SET next_comment = 0 WHERE id = 1;
         SELECT setval('issues_id_seq', 19), setval('letters', 10), setval('notes_id_seq', 2),
                setval('issue_number_1', 1, false)",
    );
    follow().done(&["sealed"]);
    let what = ["restore", "account:1", "--at", &format!("lsn:{lsn}")];
    let restore = || {
        let restored = ground
            .sandbox
            .json(&[&what[..], &["--confirm", "account:1"]].concat());
        assert_eq!(restored.code, 0, "{restored:?}");
        restored.record("plan")["job"].as_str().unwrap().to_owned()
    };
    let next = "SELECT nextval('issues_id_seq'), nextval('letters'), nextval('notes_id_seq'), nextval('issue_number_1'),
                       nextval('issue_number_2'), (SELECT next_comment FROM accounts WHERE id = 1)";
    let job = restore();
    assert_eq!(ground.psql(next), "23|21|5|11|13|15");
    let undone = ground
        .sandbox
        .run(&["undo", &job, "--confirm", "account:1"]);
    undone.done(&["undone"]);
    assert_eq!(
        ground.psql("SELECT count(*) FROM issues WHERE account_id = 1"),
        "0"
    );
    // Nobody gets a number that was given away while the restore stood. A counter is a row: it is what it
    // was, since nothing was counted meanwhile.
    assert_eq!(ground.psql(next), "24|22|6|12|14|0");
    restore();
    assert_eq!(ground.psql(next), "25|23|7|13|15|15");
    // Both accounts work on.
    work(1);
    work(2);
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
        let ground = Ground::captured(SCHEMA, &sections(COUNTING));
        let right = "counters = [\"accounts.next_comment\"]
";
        ground.configure(&sections(&COUNTING.replace(right, counting)));
        ground.restore(&[]).refused(2, &[says]);
    }
}
