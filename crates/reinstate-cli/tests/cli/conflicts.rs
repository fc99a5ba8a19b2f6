//! Unique values that somebody took since: another tenant, or the tenant's own newer rows.

use crate::ground::Ground;

const SCHEMA: &str = "\
CREATE TABLE users (id int PRIMARY KEY, account_id int NOT NULL, email text UNIQUE, name text,
                    number int, gone boolean NOT NULL DEFAULT false);
CREATE UNIQUE INDEX users_name ON users (account_id, lower(name)) WHERE NOT gone;
CREATE TABLE seats (account_id int NOT NULL, place int, label text, UNIQUE (account_id, place));
INSERT INTO users SELECT n, n % 3, 'u' || n || '@example.org', 'User ' || n, n
  FROM generate_series(1, 30) n;
INSERT INTO seats SELECT n % 3, n, 's' || n FROM generate_series(1, 30) n;
";

fn captured() -> Ground {
    Ground::captured(
        SCHEMA,
        "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n",
    )
}

fn users(ground: &Ground) -> String {
    ground.psql("SELECT id, email, name FROM users WHERE account_id = 1 ORDER BY id")
}

#[test]
fn a_value_that_another_tenant_took_is_named_for_rows_created_and_put_back_alike() {
    for incident in [
        "DELETE FROM users WHERE id = 4; UPDATE users SET email = 'u4@example.org' WHERE id = 6",
        "UPDATE users SET email = 'new@example.org' WHERE id = 4;
         UPDATE users SET email = 'u4@example.org' WHERE id = 6",
    ] {
        let ground = captured();
        ground.psql(incident);
        ground.psql("UPDATE users SET name = 'other' WHERE id = 7");
        let neighbour = "SELECT xmin, * FROM users WHERE id = 6";
        let (before, others) = (users(&ground), ground.psql(neighbour));
        let refused = ground.restore(&[]);
        refused.refused(5, &["1 conflict"]);
        assert!(
            refused
                .stdout
                .contains("! account:1 users id=4: users_email_key"),
            "{refused:?}"
        );
        assert_eq!(users(&ground), before);
        // With the row left out the rest comes back, and nobody calls it complete.
        let run = ground.restore(&["--on-conflict", "keep-live"]);
        assert_eq!(run.code, 4, "{run:?}");
        assert!(
            users(&ground).contains("7|u7@example.org|User 7"),
            "{incident}"
        );
        assert!(!users(&ground).contains("u4@"));
        assert_eq!(ground.psql(neighbour), others);
    }
}

/// Row 4 is gone; a new one has its address, and another its name but for the case.
const REPLACED: &str = "\
DELETE FROM users WHERE id IN (4, 10);
INSERT INTO users VALUES (100, 1, 'u4@example.org', 'Fresh'), (101, 1, 'f@example.org', 'USER 10');
DELETE FROM seats WHERE place = 1;
INSERT INTO seats VALUES (1, 1, 'newer');
";

#[test]
fn a_newer_row_of_the_tenant_makes_room_when_all_is_put_back() {
    let ground = captured();
    let before = users(&ground);
    ground.psql(REPLACED);
    ground.restore(&[]).done(&["restored"]);
    assert_eq!(users(&ground), before);
    assert_eq!(ground.psql("SELECT label FROM seats WHERE place = 1"), "s1");
}

#[test]
fn a_newer_row_that_stays_follows_the_policy() {
    let ground = captured();
    ground.psql(REPLACED);
    let replaced = users(&ground);
    let run = ground.restore(&["--delete", "off"]);
    run.refused(5, &["3 conflicts"]);
    for line in [
        "! account:1 users id=4: users_email_key (by a newer row of the tenant)",
        "! account:1 users id=10: users_name (by a newer row of the tenant)",
        "seats_account_id_place_key (by a newer row of the tenant)",
    ] {
        assert!(run.stdout.contains(line), "{run:?}");
    }
    assert_eq!(users(&ground), replaced);

    let kept = ground.restore(&["--delete", "off", "--on-conflict", "keep-live"]);
    assert_eq!(kept.code, 4, "{kept:?}");
    assert_eq!(users(&ground), replaced);

    ground.psql("DELETE FROM seats WHERE label = 'newer'");
    let taken = ["--delete", "off", "--on-conflict", "take-snapshot"];
    ground.psql("INSERT INTO users VALUES (102, 1, 'stays@example.org', 'Stays')");
    ground.restore(&taken).done(&["restored"]);
    let users = users(&ground);
    assert!(
        users.contains("4|u4@") && users.contains("10|u10@"),
        "{users}"
    );
    assert!(
        users.contains("102|stays@") && !users.contains("Fresh"),
        "{users}"
    );
}

#[test]
fn a_changed_row_that_stays_follows_the_policy() {
    let ground = captured();
    let incident = "DELETE FROM users WHERE id = 4;
                    UPDATE users SET email = 'u4@example.org' WHERE id = 7";
    ground.psql(incident);
    let run = ground.restore(&["--put-back", "off"]);
    run.refused(5, &["1 conflict"]);
    assert!(
        run.stdout
            .contains("users id=4: users_email_key (by a newer row"),
        "{run:?}"
    );
    let taken = ["--put-back", "off", "--on-conflict", "take-snapshot"];
    ground.psql("UPDATE users SET name = 'left alone' WHERE id = 10");
    ground.restore(&taken).done(&["restored"]);
    let users = users(&ground);
    assert!(
        users.contains("4|u4@") && users.contains("7|u7@"),
        "{users}"
    );
    assert!(users.contains("10|u10@example.org|left alone"), "{users}");
}

#[test]
fn what_is_taken_back_out_of_turn_can_be_taken_back_again() {
    let ground = captured();
    // The restore creates user 1, puts user 25 back and deletes users 0 and 40.
    ground.psql(
        "DELETE FROM users WHERE id = 1; UPDATE users SET name = 'x' WHERE id = 25;
         INSERT INTO users VALUES (40, 1, NULL, 'forty'), (0, 1, NULL, 'zero')",
    );
    let before = users(&ground);
    let restored = ground.sandbox.json(&[
        "restore",
        "account:1",
        "--at",
        "latest",
        "--nearest-before",
        "--confirm",
        "account:1",
    ]);
    let job = restored.record("plan")["job"].as_str().unwrap().to_owned();
    // Then a user deletes one of them and takes the place of another that the restore removed.
    ground.psql("DELETE FROM users WHERE id = 25; INSERT INTO users VALUES (40, 1, NULL, 'mine')");
    let after = users(&ground);
    let undo = |job: &str| {
        let arguments = [
            "undo",
            job,
            "--on-conflict",
            "take-snapshot",
            "--confirm",
            "account:1",
        ];
        let run = ground.sandbox.json(&arguments);
        assert_eq!(run.code, 0, "{run:?}");
        run.record("plan")["job"].as_str().unwrap().to_owned()
    };
    let undone = undo(&job);
    assert_eq!(users(&ground), before);
    undo(&undone);
    assert_eq!(users(&ground), after);
}

/// The classic update without a condition: what was everybody's is the tenant's now, but it is not
/// newer than the snapshot, and nothing would bring it back.
#[test]
fn a_row_of_everybody_that_an_incident_gave_away_is_not_deleted() {
    let ground = captured();
    ground.psql(
        "ALTER TABLE users ALTER account_id DROP NOT NULL;
         INSERT INTO users VALUES (200, NULL, 'template@example.org', 'Template', 1)",
    );
    ground.sandbox.run(&["capture", "once"]).done(&[]);
    ground
        .psql("UPDATE users SET account_id = 1 WHERE account_id IS NULL; INSERT INTO users VALUES (300, 1, NULL, 'new', 1)");
    let taken = users(&ground);
    let refused = ground.restore(&[]);
    refused.refused(5, &["1 conflict"]);
    let says = "! account:1 users id=200: everybody's in the snapshot";
    assert!(refused.stdout.contains(says), "{refused:?}");
    assert_eq!(users(&ground), taken);
    let kept = ground.restore(&["--on-conflict", "keep-live"]);
    assert_eq!(kept.code, 4, "{kept:?}");
    let count = "SELECT count(*) FROM users WHERE id = 200 AND account_id = 1";
    assert_eq!(ground.psql(count), "1");
    assert_eq!(
        ground.psql("SELECT count(*) FROM users WHERE id = 300"),
        "0"
    );
}

/// What belonged to neighbours is theirs still, however it came to be this tenant's.
#[test]
fn rows_of_neighbours_that_an_incident_gave_away_are_not_deleted_unless_told() {
    let ground = captured();
    ground.psql(
        "CREATE TABLE files (account_id int, number int, name text, PRIMARY KEY (account_id, number));
         INSERT INTO files SELECT n % 3, n, 'f' || n FROM generate_series(1, 9) n",
    );
    ground.sandbox.run(&["capture", "once"]).done(&[]);
    ground.psql(
        "UPDATE users SET account_id = 1; UPDATE files SET account_id = 1;
         INSERT INTO users VALUES (300, 1, NULL, 'new', 1)",
    );
    let taken = users(&ground);
    let refused = ground.restore(&[]);
    refused.refused(5, &["20 conflicts"]);
    for says in [
        "! account:1 users id=3: belonged to another tenant in the snapshot",
        "to find out whose rows to delete were)",
    ] {
        assert!(refused.stdout.contains(says), "{refused:?}");
    }
    for secret in ["account:0", "account:2", "u3@", "User 3"] {
        assert!(!refused.stdout.contains(secret), "{refused:?}");
    }
    assert_eq!(users(&ground), taken);

    let kept = ground.restore(&["--on-conflict", "keep-live"]);
    assert_eq!(kept.code, 4, "{kept:?}");
    let count = |where_clause: &str| {
        let count = format!("SELECT count(*) FROM users WHERE account_id = 1 AND {where_clause}");
        ground.psql(&count)
    };
    assert_eq!(
        (count("id <= 30"), count("id = 300")),
        ("30".into(), "0".into())
    );
    // A key that names the tenant went with it: files are not told from newer ones.
    assert_eq!(ground.psql("SELECT count(*) FROM files"), "3");

    // The neighbours' own restores would bring nothing back that is still there, so that whoever
    // knows better may say so.
    ground.configure(
        "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n\
         [restore]\ncheck_owners = false\n",
    );
    let on = ground.restore(&["--check-owners", "on"]);
    on.refused(5, &["20 conflicts"]);
    let off = ground.restore(&[]);
    off.done(&["restored"]);
    assert!(!off.stdout.contains("to find out whose"), "{off:?}");
    assert_eq!(count("true"), "10");
}
