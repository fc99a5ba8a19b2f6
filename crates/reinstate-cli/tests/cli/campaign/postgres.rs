//! Campaigns over a PostgreSQL database.

use std::fs;

use super::ground::{approve, id_and_digest};
use crate::ground::Ground;

pub const TENANCY: &str = "[tenancy]\nkind = \"account\"\ncolumn = \"account_id\"\n";

pub const ESTATE: &str = "version = 1\nname = \"shop\"\nkind = \"account\"\n\
    [repository]\nurl = \"file:campaigns\"\n\
    [[store]]\nname = \"main\"\nconfiguration = \"reinstate.toml\"\nphase = 1\n";

pub const NOTES: &str = "\
CREATE TABLE notes (id serial PRIMARY KEY, account_id int NOT NULL, body text NOT NULL);
INSERT INTO notes (account_id, body) SELECT n % 3, 'body ' || n FROM generate_series(1, 30) n;
";

#[test]
fn what_stands_in_the_way_of_one_site_parks_no_other() {
    let ground = Ground::captured(NOTES, TENANCY);
    fs::write(ground.sandbox.path("estate.toml"), ESTATE).unwrap();
    let notes = |account: u32| {
        ground.psql(&format!(
            "SELECT t.* FROM notes t WHERE account_id = {account} ORDER BY id"
        ))
    };
    let before = notes(2);
    // The trigger fires for deletes only: only the first site has a row to be deleted.
    ground.psql(
        "INSERT INTO notes (account_id, body) VALUES (1, 'newer');
         DELETE FROM notes WHERE account_id = 2;
         CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER acting AFTER DELETE ON notes FOR EACH ROW EXECUTE FUNCTION act();",
    );
    let now = notes(1);
    let plan = [
        "campaign",
        "plan",
        "--at",
        "latest",
        "account:1",
        "account:2",
    ];
    let refused = ground.sandbox.run(&plan);
    refused.refused(1, &["1 of 2 sites cannot be restored", "notes.acting"]);
    let planned = ground
        .sandbox
        .json(&[&plan[..], &["--park-unfit"]].concat());
    let record = planned.record("campaign_planned");
    let planned = id_and_digest(&record);
    approve(&ground.sandbox, &planned);
    let campaign = &planned.0;
    ground
        .sandbox
        .run(&["campaign", "run", campaign])
        .refused(3, &["1 of 2 sites handed back, 1 parked"]);
    assert_eq!(notes(2), before);
    assert_eq!(notes(1), now);
}

#[test]
fn references_to_rows_of_others_lead_somewhere_and_those_to_nothing_park() {
    let schema = format!(
        "{NOTES}CREATE TABLE links (id int PRIMARY KEY, account_id int NOT NULL, note_id int);
         INSERT INTO links SELECT n, n % 3, n FROM generate_series(1, 30) n;
         -- To a note of account 2, and to none: a key that nobody ever validated.
         INSERT INTO links VALUES (101, 1, 2), (102, 2, 999);
         ALTER TABLE links ADD FOREIGN KEY (note_id) REFERENCES notes NOT VALID;"
    );
    let ground = Ground::captured(&schema, TENANCY);
    fs::write(ground.sandbox.path("estate.toml"), ESTATE).unwrap();
    ground.psql("DELETE FROM links WHERE id < 30 AND account_id IN (1, 2)");
    let plan = [
        "campaign",
        "plan",
        "--at",
        "latest",
        "account:1",
        "account:2",
    ];
    let planned = ground.sandbox.json(&plan);
    let record = planned.record("campaign_planned");
    let planned = id_and_digest(&record);
    approve(&ground.sandbox, &planned);
    let campaign = &planned.0;
    let run = ground.sandbox.run(&["campaign", "run", campaign]);
    run.refused(3, &["1 of 2 sites handed back, 1 parked"]);
    let says = "gate references, phase 1: store main: rows of table links refer to rows of table notes \
                that are not there";
    assert!(run.stdout.contains(says), "{run:#?}");
    let status = ground.sandbox.json(&["campaign", "status", campaign]);
    let sites = status.records();
    let states: Vec<_> = sites
        .iter()
        .filter(|record| record["type"] == "site")
        .collect();
    assert_eq!(states[0]["state"], "handed_back", "{status:#?}");
    assert_eq!(states[1]["state"], "parked", "{status:#?}");
}

/// Sites are restored side by side, each when its turn comes: none can rely on another one being first.
#[test]
fn a_site_that_another_ones_rows_hold_in_place_is_not_begun_and_no_part_is_taken_for_another() {
    let schema = "CREATE TABLE issues (id int PRIMARY KEY, account_id int NOT NULL);
         CREATE TABLE links (id int PRIMARY KEY, account_id int NOT NULL, issue int,
             CONSTRAINT to_issue FOREIGN KEY (issue) REFERENCES issues);
         INSERT INTO issues SELECT n, n % 3 FROM generate_series(1, 9) n;
         INSERT INTO links SELECT n, n % 3, n FROM generate_series(1, 9) n;";
    let ground = Ground::captured(schema, TENANCY);
    fs::write(ground.sandbox.path("estate.toml"), ESTATE).unwrap();
    let rows = |account: u32| {
        ["issues", "links"].map(|table| {
            let sql = format!("SELECT t.* FROM {table} t WHERE account_id = {account} ORDER BY id");
            ground.psql(&sql)
        })
    };
    let before = rows(2);
    // A link of the second site leads to an issue of the first one that is newer than the snapshot.
    ground.psql("INSERT INTO issues VALUES (31, 1); UPDATE links SET issue = 31 WHERE id = 5");
    let now = rows(1);
    let plan = [
        "campaign",
        "plan",
        "--at",
        "latest",
        "account:1",
        "account:2",
    ];
    let refused = ground.sandbox.run(&plan);
    refused.refused(1, &["1 of 2 sites cannot be restored", "to_issue"]);
    let planned = ground
        .sandbox
        .json(&[&plan[..], &["--park-unfit"]].concat());
    let record = planned.record("campaign_planned");
    let planned = id_and_digest(&record);
    approve(&ground.sandbox, &planned);
    let campaign = &planned.0;
    ground
        .sandbox
        .run(&["campaign", "run", campaign])
        .refused(3, &["1 of 2 sites handed back, 1 parked"]);
    assert_eq!(rows(2), before);
    assert_eq!(rows(1), now);
    // Now nothing holds the first one in place.
    let resume = ["campaign", "plan", "--at", "latest", "account:1"];
    ground.sandbox.run(&resume).done(&["1 site"]);
}
