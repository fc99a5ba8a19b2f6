//! What stands in a merge's way: said when the plan is made, with what would help, before anything is
//! written.

use crate::ground::Ground;
use crate::sandbox::Run;

const TENANCY: &str = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";

const NOTES: &str = "\
CREATE TABLE notes (id serial PRIMARY KEY, account_id int NOT NULL, body text NOT NULL, place int);
INSERT INTO notes (account_id, body, place) SELECT n % 3, 'body ' || n, n FROM generate_series(1, 30) n;
";

const INCIDENT: &str = "\
DELETE FROM notes WHERE account_id = 1 AND id > 15;
UPDATE notes SET body = 'spoiled' WHERE account_id = 1;
";

fn notes(ground: &Ground) -> String {
    ground.psql("SELECT t.* FROM notes t ORDER BY id")
}

/// Checks that the run was refused by the plan, for these reasons, and wrote nothing.
#[track_caller]
fn refused_by_the_plan(ground: &Ground, run: &Run, says: &[&str]) {
    run.refused(1, says);
    assert!(run.stdout.contains("refuse   "), "{run:#?}");
    let journal = ground.psql("SELECT count(*) FROM reinstate.journal");
    assert_eq!(journal, "0", "something was written: {run:#?}");
}

#[test]
fn a_journal_of_before_the_first_release_is_refused_until_it_is_put_away() {
    let ground = Ground::captured(NOTES, TENANCY);
    let before = notes(&ground);
    ground.psql("DELETE FROM notes WHERE account_id = 1");
    let destroyed = notes(&ground);
    ground.psql("ALTER TABLE reinstate.journal DROP COLUMN commit_mark");
    let restore = [
        "restore",
        "account:1",
        "--at",
        "latest",
        "--confirm",
        "account:1",
    ];
    let advice = "ALTER TABLE reinstate.journal RENAME TO journal_before";
    ground
        .sandbox
        .run(&restore)
        .refused(1, &[advice, "reinstate init"]);
    assert_eq!(notes(&ground), destroyed);
    ground.database.psql(advice).unwrap();
    ground.sandbox.run(&["init"]).done(&[]);
    ground.configure(TENANCY);
    ground.sandbox.run(&restore).done(&[]);
    assert_eq!(notes(&ground), before);
}

/// An event trigger whose function does this.
fn event_trigger(does: &str) -> String {
    format!(
        "CREATE FUNCTION see() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {does} END $$;
         CREATE EVENT TRIGGER seen ON ddl_command_end EXECUTE FUNCTION see();"
    )
}

#[test]
fn an_event_trigger_that_may_write_is_refused_until_it_is_allowed() {
    let sections = format!("{TENANCY}excluded = [\"seen_ddl\"]\n");
    let schema = format!("{NOTES}CREATE TABLE seen_ddl (tag text);");
    let ground = Ground::captured(&schema, &sections);
    let before = notes(&ground);
    ground.psql(INCIDENT);
    // Whoever describes a role anew would be seen as well.
    let writes = event_trigger("INSERT INTO seen_ddl VALUES (tg_tag);");
    ground.database.psql(&writes).unwrap();
    let spoiled = notes(&ground);
    let says = ["event trigger seen", "ALTER EVENT TRIGGER seen DISABLE"];
    refused_by_the_plan(&ground, &ground.restore(&[]), &says);
    assert_eq!(ground.psql("SELECT count(*) FROM seen_ddl"), "0");

    // Allowed although it writes: the counts of the merge do not let that pass.
    ground.configure(&format!("{sections}allowed_triggers = [\"seen\"]\n"));
    let run = ground.restore(&[]);
    assert_ne!(run.code, 0, "{run:#?}");
    assert!(run.stderr.contains("seen_ddl"), "{run:#?}");
    assert_eq!(notes(&ground), spoiled);

    // Allowed with right: it has a word in it that writes, and writes nothing.
    ground.psql("DROP EVENT TRIGGER seen; DROP FUNCTION see()");
    ground.psql(&event_trigger("PERFORM tg_tag;"));
    ground
        .restore(&[])
        .done(&["event trigger seen", "restored"]);
    assert_eq!(notes(&ground), before);
}

#[test]
fn an_event_trigger_that_writes_nothing_is_only_mentioned() {
    let ground = Ground::captured(NOTES, TENANCY);
    let before = notes(&ground);
    ground.psql(INCIDENT);
    ground.psql(&event_trigger("RAISE DEBUG '%', tg_tag;"));
    ground
        .restore(&[])
        .done(&["event trigger seen", "seems to write nothing", "restored"]);
    assert_eq!(notes(&ground), before);
}

/// A role as `guard role` prints it, less these rights.
fn under_a_role_without(ground: &Ground, name: &str, revoked: &str, sections: &str) -> String {
    ground.as_owner();
    let role = format!("{name}_{}", ground.database.name());
    ground.psql(&format!("CREATE ROLE {role} LOGIN"));
    ground.sandbox.run(&["guard", "install"]).done(&[]);
    let printed = ground.sandbox.run(&["guard", "role", &role]);
    ground.psql(&printed.stdout);
    ground.psql(&revoked.replace("ROLE", &role));
    ground.configure_as(Some(&role), sections);
    role
}

#[test]
fn a_role_that_may_not_raise_a_sequence_is_told_what_it_lacks() {
    let ground = Ground::captured(NOTES, TENANCY);
    let before = notes(&ground);
    let revoke = "REVOKE ALL ON SEQUENCE notes_id_seq FROM ROLE";
    let role = under_a_role_without(&ground, "low", revoke, TENANCY);
    ground.psql(INCIDENT);
    let run = ground.restore(&[]);
    run.refused(
        1,
        &[
            "sequence",
            "notes_id_seq",
            "GRANT SELECT, USAGE, UPDATE ON SEQUENCE",
        ],
    );
    ground.psql(&format!(
        "GRANT SELECT, USAGE, UPDATE ON SEQUENCE notes_id_seq TO {role}"
    ));
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(notes(&ground), before);
}

const TOUCH: &str = "\
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.body = NEW.body || '!'; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch();
";

#[test]
fn triggers_that_cannot_be_kept_still_are_refused_by_the_plan() {
    let sections = format!("{TENANCY}silenced_triggers = [\"notes.touch\"]\n");
    let ground = Ground::captured(&format!("{NOTES}{TOUCH}"), &sections);
    let before = notes(&ground);
    ground.psql(INCIDENT);
    ground.psql("ALTER TABLE notes ADD CONSTRAINT places UNIQUE (place) DEFERRABLE");
    let says = ["table notes", "places can be deferred", "silenced_triggers"];
    refused_by_the_plan(&ground, &ground.restore(&[]), &says);
    ground.psql("ALTER TABLE notes DROP CONSTRAINT places");

    let role = under_a_role_without(&ground, "still", "", &sections);
    ground.psql(&format!(
        "REVOKE SET ON PARAMETER session_replication_role FROM {role}"
    ));
    ground
        .restore(&[])
        .refused(1, &["GRANT SET ON PARAMETER session_replication_role"]);
    ground.psql(&format!(
        "GRANT SET ON PARAMETER session_replication_role TO {role}"
    ));
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(notes(&ground), before);
    ground.psql(&format!(
        "REVOKE SET ON PARAMETER session_replication_role FROM {role}"
    ));
}

/// Rows of everybody that such rows refer to have to be locked, for which the server wants a right to update
/// them; the role has it and can update none.
#[test]
fn a_confined_role_locks_what_everybody_has_and_updates_none_of_it() {
    let sections =
        format!("{TENANCY}shared = [\"kinds\"]\nsilenced_triggers = [\"notes.touch\"]\n");
    let schema = format!(
        "CREATE TABLE kinds (id int PRIMARY KEY, name text);
         INSERT INTO kinds SELECT n, 'k' || n FROM generate_series(1, 40) n;
         {NOTES}ALTER TABLE notes ADD FOREIGN KEY (place) REFERENCES kinds;{TOUCH}"
    );
    let ground = Ground::captured(&schema, &sections);
    let before = notes(&ground);
    let role = under_a_role_without(&ground, "locks", "", &sections);
    ground.psql("UPDATE notes SET body = 'spoiled', place = NULL WHERE account_id = 1");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(notes(&ground), before);
    for sql in [
        "UPDATE kinds SET id = id + 100",
        // No key stands in the way of these.
        "UPDATE kinds SET id = id + 100 WHERE id > 30",
        "UPDATE kinds SET name = ''",
        "DELETE FROM kinds",
    ] {
        // Where no tenant is named the guard's triggers keep still.
        for named in ["SET LOCAL reinstate.tenant = '1';", ""] {
            let sql = format!("BEGIN; {named} {sql}; COMMIT");
            let cluster = ground.database.cluster();
            let refused = cluster.psql_as(&role, ground.database.name(), &sql);
            assert!(refused.is_err(), "{sql}");
        }
    }
    // Everybody else does as before.
    ground.psql("UPDATE kinds SET name = 'other'");
    ground.psql(&format!(
        "REVOKE SET ON PARAMETER session_replication_role FROM {role}"
    ));
}

/// Two tables that refer to each other by keys that can neither wait nor be NULL, of which one has the
/// tenant only through the other.
#[test]
fn a_cycle_that_no_statement_can_write_is_refused_by_the_plan() {
    let schema = "\
CREATE TABLE boards (id int PRIMARY KEY, account_id int NOT NULL, first_list int NOT NULL);
CREATE TABLE lists (id int PRIMARY KEY, board_id int NOT NULL);
INSERT INTO boards SELECT n, n % 3, n FROM generate_series(1, 9) n;
INSERT INTO lists SELECT n, n FROM generate_series(1, 9) n;
ALTER TABLE boards ADD CONSTRAINT boards_first FOREIGN KEY (first_list) REFERENCES lists;
ALTER TABLE lists ADD CONSTRAINT lists_board FOREIGN KEY (board_id) REFERENCES boards;
";
    let sections = format!("{TENANCY}[tenancy.table.lists]\nvia = \"board_id -> boards.id\"\n");
    let ground = Ground::captured(schema, &sections);
    let all = || {
        ["boards", "lists"].map(|table| ground.psql(&format!("SELECT * FROM {table} ORDER BY id")))
    };
    let before = all();
    ground.psql(
        "WITH gone AS (DELETE FROM boards WHERE account_id = 1 RETURNING id)
         DELETE FROM lists WHERE board_id IN (SELECT id FROM gone)",
    );
    let says = ["table lists", "Make one of those keys DEFERRABLE"];
    refused_by_the_plan(&ground, &ground.restore(&[]), &says);
    ground.psql("ALTER TABLE boards ALTER CONSTRAINT boards_first DEFERRABLE");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(all(), before);
}

/// One row of an account had the greatest number that there is, given by hand. Raised to that, the
/// sequence would have nothing to give any more, to anybody.
#[test]
fn a_sequence_that_would_be_at_its_end_is_an_obstacle() {
    for (key, max) in [
        ("smallserial PRIMARY KEY", 32_767),
        (
            "int GENERATED ALWAYS AS IDENTITY (MAXVALUE 500) PRIMARY KEY",
            500,
        ),
        ("int PRIMARY KEY DEFAULT nextval('numbers')", 2_147_483_647),
    ] {
        let schema = format!(
            "CREATE SEQUENCE numbers; CREATE TABLE notes (id {key}, account_id int NOT NULL);
             INSERT INTO notes (account_id) SELECT n % 3 FROM generate_series(1, 9) n;
             INSERT INTO notes OVERRIDING SYSTEM VALUE VALUES ({max}, 1)"
        );
        let ground = Ground::captured(&schema, TENANCY);
        ground.psql("DELETE FROM notes WHERE account_id = 1");
        let says = ["would be at its end, so that nobody gets a number from it any more"];
        refused_by_the_plan(&ground, &ground.restore(&[]), &says);
        let next = "INSERT INTO notes (account_id) VALUES (2) RETURNING id";
        assert_eq!(ground.psql(next), "10", "neighbours go on");
    }
}

/// A table came with the last deployment, and nobody said whose its rows are.
#[test]
fn a_table_that_nobody_classified_is_named_with_the_lines_to_add() {
    let schema = "CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL);
                  INSERT INTO notes SELECT n, n % 3 FROM generate_series(1, 9) n";
    let ground = Ground::captured(schema, TENANCY);
    ground.psql(
        "DELETE FROM notes WHERE account_id = 1;
         CREATE TABLE marks (id int PRIMARY KEY, note int NOT NULL REFERENCES notes)",
    );
    let says = [
        "[tenancy.table.marks]",
        "via = \"note -> notes.id\"",
        "shared = [\"marks\"]",
    ];
    ground.restore(&[]).refused(2, &says);
    ground.sandbox.run(&["tenancy", "check"]).refused(2, &says);
    assert_eq!(ground.psql("SELECT count(*) FROM notes"), "6");
    ground.configure(&format!(
        "{TENANCY}[tenancy.table.marks]\nvia = \"note -> notes.id\"\n"
    ));
    ground.restore(&[]).done(&["restored"]);
}

/// A rule that came after the snapshot, and that all live rows were made to satisfy since.
#[test]
fn a_check_that_is_younger_than_the_rows_is_named_by_the_plan() {
    let ground = Ground::captured(NOTES, TENANCY);
    let before = notes(&ground);
    ground.psql(
        "DELETE FROM notes WHERE place > 20;
         ALTER TABLE notes ADD CONSTRAINT low CHECK (place <= 20)",
    );
    let says = ["constraint low of notes", "broken by rows of the snapshot"];
    refused_by_the_plan(&ground, &ground.restore(&[]), &says);
    ground.psql("ALTER TABLE notes DROP CONSTRAINT low");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(own(&notes(&ground)), own(&before));
}

fn own(rows: &str) -> Vec<&str> {
    rows.lines().filter(|row| row.contains("|1|")).collect()
}

/// A rule that asks another table holds when that table's rows are back, and not before.
#[test]
fn a_check_that_asks_other_tables_is_left_to_the_server() {
    let schema = format!(
        "CREATE TABLE boards (id int PRIMARY KEY, account_id int NOT NULL);
         INSERT INTO boards SELECT n, n % 3 FROM generate_series(1, 6) n; {NOTES}"
    );
    let ground = Ground::captured(&schema, TENANCY);
    let before = notes(&ground);
    ground.psql(
        "CREATE FUNCTION has_board(account int) RETURNS boolean LANGUAGE sql
             AS 'SELECT EXISTS (SELECT FROM public.boards b WHERE b.account_id = account)';
         ALTER TABLE notes ADD CONSTRAINT has_board CHECK (has_board(account_id));
         DELETE FROM notes WHERE account_id = 1; DELETE FROM boards WHERE account_id = 1",
    );
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(own(&notes(&ground)), own(&before));
}

/// A function that says of itself that it looks at nothing but its arguments is asked before.
#[test]
fn a_check_by_an_immutable_function_is_named_by_the_plan() {
    let ground = Ground::captured(NOTES, TENANCY);
    let before = notes(&ground);
    ground.psql(
        "CREATE FUNCTION is_low(place int) RETURNS boolean IMMUTABLE LANGUAGE sql
             AS 'SELECT place <= 20';
         DELETE FROM notes WHERE place > 20;
         ALTER TABLE notes ADD CONSTRAINT low CHECK (is_low(place))",
    );
    let says = ["constraint low of notes", "broken by rows of the snapshot"];
    refused_by_the_plan(&ground, &ground.restore(&[]), &says);
    ground.psql("ALTER TABLE notes DROP CONSTRAINT low");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(own(&notes(&ground)), own(&before));
}

/// A trigger that was let fire writes to another table: the counts see that, and the message says which
/// trigger it may have been.
#[test]
fn an_allowed_trigger_that_writes_elsewhere_is_named_with_the_table() {
    let schema = format!(
        "{NOTES}CREATE TABLE log (id serial PRIMARY KEY, account_id int NOT NULL);
         CREATE FUNCTION note_it() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN INSERT INTO public.log (account_id) VALUES (NEW.account_id); RETURN NEW; END $$;
         CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
         CREATE TRIGGER harmless BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION nothing();
         CREATE TRIGGER noted AFTER UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION note_it();"
    );
    let sections = format!("{TENANCY}allowed_triggers = [\"notes.noted\", \"notes.harmless\"]\n");
    let ground = Ground::captured(&schema, &sections);
    ground.psql("ALTER TABLE notes DISABLE TRIGGER noted");
    ground.psql(INCIDENT);
    ground.psql("ALTER TABLE notes ENABLE TRIGGER noted");
    let spoiled = notes(&ground);
    let run = ground.restore(&[]);
    run.refused(1, &["in table log", "look at trigger notes.noted"]);
    assert!(!run.stderr.contains("harmless"), "{run:?}");
    assert_eq!(notes(&ground), spoiled);
}

/// A key that came after the snapshot, and that nobody asked the older rows about: rows that are written
/// have to satisfy it, those of the snapshot included.
#[test]
fn a_key_that_is_not_validated_is_asked_about_rows_that_lead_nowhere() {
    let schema = format!(
        "CREATE TABLE tags (id int PRIMARY KEY, account_id int NOT NULL);
         INSERT INTO tags SELECT n, n % 3 FROM generate_series(1, 9) n; {NOTES}
         INSERT INTO notes (account_id, body, place) VALUES (1, 'lost', 77)"
    );
    let ground = Ground::captured(&schema, TENANCY);
    let before = notes(&ground);
    ground.psql(
        "DELETE FROM notes WHERE place > 9 AND place <> 77;
         ALTER TABLE notes ADD CONSTRAINT to_tag FOREIGN KEY (place) REFERENCES tags NOT VALID",
    );
    ground.psql("DELETE FROM notes WHERE account_id = 1; DELETE FROM tags WHERE account_id = 1");
    let run = ground.restore(&[]);
    let says = [
        "notes.place -> tags",
        "leads to rows that are gone",
        "neither are they in the snapshot",
    ];
    refused_by_the_plan(&ground, &run, &says);

    // Where all of them come back with what they refer to, nothing is in the way.
    ground.psql(
        "ALTER TABLE notes DROP CONSTRAINT to_tag;
         INSERT INTO tags SELECT n, 2 FROM generate_series(10, 99) n;
         ALTER TABLE notes ADD CONSTRAINT to_tag FOREIGN KEY (place) REFERENCES tags NOT VALID",
    );
    let tagged = ground
        .sandbox
        .run(&["plan", "account:1", "--at", "latest", "--out", "p"]);
    assert!(
        !tagged.stdout.contains("leads to rows that are gone"),
        "{tagged:?}"
    );
    ground.psql("ALTER TABLE notes DROP CONSTRAINT to_tag");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(own(&notes(&ground)), own(&before));
}

/// A key that came after the snapshot, and that all live rows satisfy: the server takes it for proven, and
/// rows that come back may break it all the same.
#[test]
fn a_key_that_is_younger_than_the_snapshot_is_asked_about_rows_that_lead_nowhere() {
    let schema = format!(
        "CREATE TABLE tags (id int PRIMARY KEY, account_id int NOT NULL);
         INSERT INTO tags SELECT n, n % 3 FROM generate_series(1, 9) n; {NOTES}"
    );
    let ground = Ground::captured(&schema, TENANCY);
    let before = notes(&ground);
    ground.psql(
        "DELETE FROM notes WHERE place > 9;
         ALTER TABLE notes ADD CONSTRAINT to_tag FOREIGN KEY (place) REFERENCES tags",
    );
    let run = ground.restore(&[]);
    let says = ["notes.place -> tags", "leads to rows that are gone (10, 13"];
    refused_by_the_plan(&ground, &run, &says);

    // What the plan's own rows answer is in nobody's way.
    ground.psql("DELETE FROM notes WHERE account_id = 1; DELETE FROM tags WHERE account_id = 1");
    let says = ["leads to rows that are gone (10, 13"];
    refused_by_the_plan(&ground, &ground.restore(&[]), &says);
    ground.psql("INSERT INTO tags SELECT n, 1 FROM generate_series(10, 30) n");
    ground.restore(&["--delete", "off"]).done(&["restored"]);
    assert_eq!(own(&notes(&ground)), own(&before));
}

/// The server does not ask about a reference that a row keeps.
#[test]
fn a_row_that_is_put_back_may_keep_a_reference_that_leads_nowhere() {
    let schema = format!(
        "CREATE TABLE tags (id int PRIMARY KEY, account_id int NOT NULL);
         INSERT INTO tags SELECT n, n % 3 FROM generate_series(1, 99) n WHERE n <> 77; {NOTES}
         INSERT INTO notes (account_id, body, place) VALUES (1, 'lost', 77);
         ALTER TABLE notes ADD CONSTRAINT to_tag FOREIGN KEY (place) REFERENCES tags NOT VALID"
    );
    let ground = Ground::captured(&schema, TENANCY);
    let before = notes(&ground);
    ground.psql("UPDATE notes SET body = 'spoiled' WHERE place = 77");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(notes(&ground), before);
    // One that it comes back to, it does ask about.
    ground.psql("UPDATE notes SET place = 1 WHERE place = 77");
    let says = ["notes.place -> tags leads to rows that are gone"];
    ground.restore(&[]).refused(1, &says);
}

/// Nor is it asked where equal values may be written otherwise on its two sides.
#[test]
fn a_key_that_is_not_validated_lets_values_through_that_are_written_otherwise() {
    let schema = "
        CREATE TABLE tags (id numeric PRIMARY KEY, account_id int NOT NULL);
        CREATE TABLE notes (id int PRIMARY KEY, account_id int NOT NULL, place numeric);
        INSERT INTO tags VALUES (1.0, 1), (2.0, 2); INSERT INTO notes VALUES (1, 1, 1.00), (2, 2, 2.00);
        ALTER TABLE notes ADD CONSTRAINT to_tag FOREIGN KEY (place) REFERENCES tags NOT VALID";
    let ground = Ground::captured(schema, TENANCY);
    let before = notes(&ground);
    ground.psql("DELETE FROM notes WHERE account_id = 1; DELETE FROM tags WHERE account_id = 1");
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(notes(&ground), before);
}
