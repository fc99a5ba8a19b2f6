//! The traps of PostgreSQL that restores by hand fall into: each is sprung once the way one would naively
//! do it, to show what it does to a neighbour, and then a restore goes past it, or refuses to.
//!
//! The naive way runs in a transaction that is rolled back. Traps that need more than one statement,
//! such as writers at the same time or a lost connection, have tests of their own: `docs/postgres.md`
//! lists them all.

use crate::ground::Ground;

const TENANCY: &str = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";

/// A trap, and how it is gone past.
struct Trap {
    schema: &'static str,
    /// What the map says besides the tenant's column.
    sections: &'static str,
    /// What happens to account 1 after the snapshot.
    incident: &'static str,
    /// How one would undo that by hand, thinking of account 1 only.
    naive: &'static str,
    /// A question, and its answers before and after that: it is about rows of neighbours, or about rows
    /// that are lost.
    harm: (&'static str, &'static str, &'static str),
    /// The exit code of a refusal, and what it names; none: the account comes back.
    refused: Option<(i32, &'static str)>,
}

#[track_caller]
fn check(trap: &Trap) {
    let ground = Ground::captured(trap.schema, &format!("{TENANCY}{}", trap.sections));
    let everything = || {
        let tables = ground.psql(
            "SELECT string_agg(format('SELECT %L, t.ctid, t.xmin, t.account_id::text, t::text
                                         FROM ONLY %s t', c.oid::regclass, c.oid::regclass),
                               ' UNION ALL ')
               FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'account_id'
              WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace",
        );
        let rows = |condition: &str, columns: &str| {
            ground.psql(&format!(
                "SELECT {columns} FROM ({tables}) u(oid, ctid, xmin, account, line)
                  WHERE account {condition} ORDER BY oid, line"
            ))
        };
        (rows("= '1'", "oid, line"), rows("<> '1'", "u"))
    };
    let (before, _) = everything();
    ground.psql(trap.incident);
    let (question, unharmed, harmed) = trap.harm;
    assert_eq!(ground.psql(question), unharmed);
    let naive = format!("BEGIN; {}; {question}; ROLLBACK", trap.naive);
    let answers = ground.psql(&naive);
    assert_eq!(answers.lines().next_back(), Some(harmed), "it does no harm");
    let (left, neighbours) = everything();
    let run = ground.restore(&[]);
    let expected = match trap.refused {
        None => {
            run.done(&["1 of 1 tenant restored and proven"]);
            before
        }
        Some((code, says)) => {
            run.refused(code, &[says]);
            left
        }
    };
    assert_eq!(everything(), (expected, neighbours));
}

const ISSUES: &str = "\
CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, number int);
INSERT INTO issues SELECT n, n % 3, n FROM generate_series(1, 9) n;
CREATE TABLE links (id int PRIMARY KEY, account_id int NOT NULL,
    issue int REFERENCES issues ON DELETE CASCADE);
INSERT INTO links SELECT n, n % 3, n FROM generate_series(1, 9) n;
";

/// The neighbour's link is gone, without an error: referential actions pass row-level security too.
#[test]
fn a_cascade_takes_a_neighbours_row_along() {
    check(&Trap {
        schema: ISSUES,
        sections: "",
        incident: "INSERT INTO issues VALUES (31, 1, 0); UPDATE links SET issue = 31 WHERE id = 5",
        naive: "DELETE FROM issues WHERE account_id = 1 AND id > 9",
        harm: ("SELECT count(*) FROM links WHERE account_id = 2", "3", "2"),
        refused: Some((
            1,
            "foreign key links_issue_fkey of links leads from rows that are not",
        )),
    });
}

/// Whatever the role may not do, a function with the rights of its owner may.
#[test]
fn a_trigger_with_the_rights_of_its_owner_writes_to_a_neighbour() {
    check(&Trap {
        schema: "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, number int);
             INSERT INTO issues SELECT n, n % 3, n FROM generate_series(1, 9) n;
             CREATE FUNCTION renumber() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
                 UPDATE public.issues SET number = number + 1 WHERE account_id <> 1; RETURN NULL;
             END $$;
             CREATE TRIGGER renumber AFTER INSERT ON issues EXECUTE FUNCTION renumber()",
        sections: "",
        incident: "DELETE FROM issues WHERE id = 4",
        naive: "INSERT INTO issues VALUES (4, 1, 4)",
        harm: ("SELECT number FROM issues WHERE id = 5", "5", "6"),
        refused: Some((1, "trigger or rule issues.renumber would fire")),
    });
}

/// The row is back, and is not what it was.
#[test]
fn a_trigger_of_the_application_rewrites_what_comes_back() {
    check(&Trap {
        schema: "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, number int);
             INSERT INTO issues SELECT n, n % 3, 42 FROM generate_series(1, 9) n;
             CREATE FUNCTION number_it() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN NEW.number := 1; RETURN NEW; END';
             CREATE TRIGGER number_it BEFORE INSERT ON issues FOR EACH ROW EXECUTE FUNCTION number_it()",
        sections: "",
        incident: "DELETE FROM issues WHERE id = 4",
        naive: "INSERT INTO issues VALUES (4, 1, 42)",
        harm: ("SELECT coalesce(max(number), 0) FROM issues WHERE id = 4", "0", "1"),
        refused: Some((1, "trigger or rule issues.number_it would fire")),
    });
}

/// Named by itself, a partition obeys none of the policies of its table.
#[test]
fn a_partition_named_by_itself_has_no_policy() {
    check(&Trap {
        schema: "CREATE TABLE events (id int, account_id int NOT NULL, month int, PRIMARY KEY (id, month))
                 PARTITION BY LIST (month);
             CREATE TABLE events_1 PARTITION OF events FOR VALUES IN (1);
             CREATE TABLE events_2 PARTITION OF events DEFAULT;
             INSERT INTO events SELECT n, n % 3, n % 2 FROM generate_series(1, 12) n;
             ALTER TABLE events ENABLE ROW LEVEL SECURITY; ALTER TABLE events FORCE ROW LEVEL SECURITY;
             CREATE POLICY own ON events USING (account_id = 1)",
        sections: "",
        incident: "INSERT INTO events VALUES (31, 1, 1)",
        naive: "CREATE ROLE trap_of_partitions; GRANT SELECT, DELETE ON events, events_1 TO \
                trap_of_partitions; SET ROLE trap_of_partitions; DELETE FROM events_1; RESET ROLE",
        harm: (
            "SELECT count(*) FROM events WHERE month = 1 AND account_id <> 1",
            "4",
            "0",
        ),
        refused: None,
    });
}

/// A tenant that is another one under the collation of its column.
#[test]
fn a_collation_under_which_two_tenants_are_equal_is_refused() {
    let schema = "\
CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE TABLE issues (id int PRIMARY KEY, account_id text COLLATE blind NOT NULL);
INSERT INTO issues VALUES (1, 'acme'), (2, 'ACME');";
    let ground = Ground::prepared("", TENANCY);
    ground.psql(schema);
    let naive = "BEGIN; DELETE FROM issues WHERE account_id = 'acme'; SELECT count(*) FROM issues;
                 ROLLBACK";
    assert_eq!(ground.psql(naive), "0", "the neighbour's row went as well");
    let says = "column issues.account_id has a nondeterministic collation";
    ground.sandbox.run(&["capture", "once"]).refused(1, &[says]);
}

/// The row is lost without a word, or the neighbour's is written over.
#[test]
fn an_id_that_a_neighbour_has_by_now_is_not_taken() {
    for (naive, harm) in [
        (
            "INSERT INTO issues VALUES (4, 1, 4) ON CONFLICT DO NOTHING",
            ("SELECT count(*) FROM issues WHERE account_id = 1", "2", "2"),
        ),
        (
            "INSERT INTO issues VALUES (4, 1, 4) ON CONFLICT (id) DO UPDATE SET account_id = 1",
            ("SELECT count(*) FROM issues WHERE account_id = 2", "4", "3"),
        ),
    ] {
        check(&Trap {
            schema: "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, number int);
                 INSERT INTO issues SELECT n, n % 3, n FROM generate_series(1, 9) n",
            sections: "",
            incident: "DELETE FROM issues WHERE id = 4; INSERT INTO issues VALUES (4, 2, 0)",
            naive,
            harm,
            refused: Some((5, "the plan has 1 conflict")),
        });
    }
}

/// The next id that the server gives away is one that came back.
#[test]
fn an_identity_that_came_back_is_not_given_away_again() {
    let schema = "CREATE TABLE issues (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
             account_id int NOT NULL, number int);
         INSERT INTO issues (account_id) SELECT CASE WHEN n > 6 THEN 1 ELSE 2 END
           FROM generate_series(1, 9) n";
    // As after a dump of the schema alone: the sequence begins again.
    let incident =
        "DELETE FROM issues WHERE account_id = 1; ALTER SEQUENCE issues_id_seq RESTART WITH 7";
    check(&Trap {
        schema,
        sections: "",
        incident,
        naive: "INSERT INTO issues OVERRIDING SYSTEM VALUE VALUES (7, 1)",
        harm: (
            "SELECT EXISTS (SELECT FROM issues i JOIN issues_id_seq q ON i.id = q.last_value)",
            "f",
            "t",
        ),
        refused: None,
    });
    let ground = Ground::captured(schema, TENANCY);
    ground.psql(incident);
    ground.restore(&[]).done(&["restored"]);
    let next = "INSERT INTO issues (account_id) VALUES (2) RETURNING id";
    assert_eq!(ground.psql(next), "10");
}

/// With triggers switched off, so are foreign keys: rows come back to what is not there.
#[test]
fn rows_do_not_come_back_to_nothing_while_triggers_keep_still() {
    check(&Trap {
        schema: "CREATE TABLE users (id int PRIMARY KEY);
             INSERT INTO users SELECT n FROM generate_series(1, 9) n;
             CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL, number int,
                 author int REFERENCES users);
             INSERT INTO issues SELECT n, n % 3, n, n FROM generate_series(1, 9) n;
             CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql
                 AS 'BEGIN NEW.number := 0; RETURN NEW; END';
             CREATE TRIGGER touch BEFORE UPDATE ON issues FOR EACH ROW EXECUTE FUNCTION touch()",
        sections: "shared = [\"users\"]\nsilenced_triggers = [\"issues.touch\"]\n",
        incident: "UPDATE issues SET author = NULL WHERE id = 4; DELETE FROM users WHERE id = 4",
        naive: "SET LOCAL session_replication_role = replica; \
                UPDATE issues SET author = 4 WHERE id = 4",
        harm: (
            "SELECT count(*) FROM issues WHERE author NOT IN (SELECT id FROM users)",
            "0",
            "1",
        ),
        refused: Some((1, "issues.author -> users leads to rows that are gone (4)")),
    });
}

/// A policy that reads a setting shows nothing to who has not set it: an empty answer, not an error.
#[test]
fn rows_that_a_policy_hides_are_not_taken_for_absent() {
    let schema = "\
CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL);
INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n;
ALTER TABLE issues ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON issues USING (account_id::text = current_setting('app.tenant', true));";
    let ground = Ground::captured(schema, TENANCY);
    ground.as_owner();
    let role = format!("hidden_{}", ground.database.name());
    ground.psql(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT, DELETE ON issues TO {role}"
    ));
    let naive = format!("BEGIN; SET ROLE {role}; SELECT count(*) FROM issues; ROLLBACK");
    assert_eq!(ground.psql(&naive), "0", "no row, and no error");
    ground.configure_as(Some(&role), TENANCY);
    let says = "would hide rows of issues";
    ground.sandbox.run(&["capture", "once"]).refused(1, &[says]);
    ground.restore(&[]).refused(1, &[says]);
}

/// COPY into a table under row-level security is an error; a restore as a role that it confines takes
/// another way.
#[test]
fn rows_come_back_under_row_level_security_where_copy_does_not_go() {
    let schema = "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL);
         INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n";
    let ground = Ground::captured(schema, TENANCY);
    ground.as_owner();
    let role = format!("copying_{}", ground.database.name());
    ground.psql(&format!("CREATE ROLE {role} LOGIN"));
    let script = ground.sandbox.run(&["guard", "role", &role]);
    ground.psql(&script.stdout);
    ground.configure_as(Some(&role), TENANCY);
    ground.psql("DELETE FROM issues WHERE account_id = 1");
    let naive = format!("SET ROLE {role}; SET reinstate.tenant = '1'; COPY issues FROM STDIN");
    let error = ground.database.psql(&naive).unwrap_err().to_string();
    assert!(
        error.contains("COPY FROM not supported with row-level security"),
        "{error}"
    );
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(
        ground.psql("SELECT count(*) FROM issues WHERE account_id = 1"),
        "3"
    );
}
