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
