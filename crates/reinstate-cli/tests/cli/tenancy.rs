//! `tenancy`: a map is proposed, decided, accepted, and checked against the data.

use std::fs;

use reinstate_testkit::cluster::{TestDatabase, shared_cluster};

use crate::sandbox::Sandbox;

/// One table of each shape that real schemas have.
const SCHEMA: &str = include_str!("../../../reinstate-postgres/tests/postgres/tenancy/schema.sql");

/// What says whether a map is accepted.
const CHECK: [&str; 2] = ["tenancy", "check"];

/// A directory with a configuration for a database of its own.
struct Ground {
    sandbox: Sandbox,
    database: TestDatabase<'static>,
}

impl Ground {
    fn new() -> Self {
        let database = shared_cluster().unwrap().fresh_database().unwrap();
        database.psql(SCHEMA).unwrap();
        let ground = Self {
            sandbox: Sandbox::empty(),
            database,
        };
        ground.configure("[tenancy]\nkind = \"account\"\n");
        ground
    }

    /// Writes a configuration with the proposal, its doubts decided.
    fn decide(&self) {
        let run = self.sandbox.run(&["tenancy", "suggest", "--count"]);
        assert!(run.stderr.contains("7 tables to be decided"), "{run:?}");
        let mut map = run.stdout;
        for (table, choice) in CHOICES {
            map = decided(&map, table, choice);
        }
        self.configure(&map);
    }

    /// Writes a configuration with this section `[tenancy]`.
    fn configure(&self, tenancy: &str) {
        let head = format!(
            "version = 1\n[repository]\nurl = \"file:repository\"\n\
             [store]\nname = \"main\"\nkind = \"postgres\"\nurl = {:?}\n",
            self.database.url()
        );
        fs::write(self.sandbox.path("reinstate.toml"), head + tenancy).unwrap();
    }
}

/// Takes the comment marks off the header of a table and one of the rules under it.
fn decided(proposal: &str, table: &str, choice: usize) -> String {
    let header = format!("[tenancy.table.{table}]");
    let mut place = None;
    let mut is_done = false;
    let lines = proposal.lines().map(|line| {
        let rule = line.strip_prefix("# ").unwrap_or(line);
        match place {
            None if rule == header => {
                place = Some(0);
                return rule;
            }
            Some(_) if line.is_empty() => place = None,
            Some(number) if line == "#   or" => place = Some(number + 1),
            Some(number) if number == choice => {
                is_done = true;
                return rule;
            }
            _ => {}
        }
        line
    });
    let text = lines.collect::<Vec<_>>().join("\n") + "\n";
    assert!(is_done, "{table} has no rule {choice} in {proposal}");
    text
}

/// A choice for each table that the proposal is unsure of when rows are counted.
const CHOICES: [(&str, usize); 7] = [
    ("attachments", 0),
    ("feedback", 0),
    ("feedback_replies", 0),
    ("legacy_events", 1),
    ("order_tags", 0),
    ("page_views", 0),
    ("shipments", 0),
];

#[test]
fn a_proposal_is_refused_until_it_is_decided_and_then_accepted() {
    let ground = Ground::new();
    let suggest = ["tenancy", "suggest", "--out", "map.toml"];
    let run = ground.sandbox.run(&suggest);
    run.done(&["map.toml written"]);
    assert!(
        run.stderr.contains("24 tables, 8 tables to be decided"),
        "{run:?}"
    );
    let mut map = fs::read_to_string(ground.sandbox.path("map.toml")).unwrap();
    let printed = ground.sandbox.run(&["tenancy", "suggest"]);
    assert_eq!(printed.stdout, map);
    ground
        .sandbox
        .run(&suggest)
        .refused(2, &["map.toml", "exists"]);
    ground.configure(&map);
    let wrong = "tenancy.table.legacy_events: expected exactly one of";
    ground.sandbox.run(&CHECK).refused(2, &[wrong]);
    map = decided(&map, "legacy_events", 1);
    ground.configure(&map);
    let run = ground.sandbox.run(&CHECK);
    run.refused(
        2,
        &[
            "7 tables have no declared owner",
            "[tenancy.table.comments]",
        ],
    );
}

#[test]
fn a_proposal_whose_doubts_are_decided_is_accepted() {
    let ground = Ground::new();
    ground.decide();
    let unproven = "foreign key shipments_order is not validated";
    ground.sandbox.run(&CHECK).refused(1, &[unproven]);
    let validate = "ALTER TABLE shipments VALIDATE CONSTRAINT shipments_order";
    ground.database.psql(validate).unwrap();
    let clean = "19 tables of tenants and 5 references that could cross: every row has one owner";
    ground.sandbox.run(&CHECK).done(&[clean]);
    let run = ground.sandbox.json(&CHECK);
    assert_eq!(run.record("tenancy_check")["findings"], 0);
    ground.sandbox.run(&["init"]).done(&["prepared: 24 tables"]);
}

#[test]
fn faults_in_the_data_are_named_by_table_with_keys_and_no_other_value() {
    let ground = Ground::new();
    ground.decide();
    let faults = "ALTER TABLE shipments VALIDATE CONSTRAINT shipments_order;
        UPDATE orders SET customer_id = 201 WHERE account_id = 1;
        UPDATE orders SET replaces_id = 101 WHERE id = 203;
        UPDATE order_tags SET tag_id = 201 WHERE order_id = 102;
        INSERT INTO comments VALUES (3, 'Secret', 1)";
    ground.database.psql(faults).unwrap();
    let run = ground.sandbox.run(&CHECK);
    run.refused(1, &["4 findings", "next: correct the rows or the map"]);
    let expected = "\
comments
  1 row without an owner: no way of theirs ends at a row
      id: 3
order_tags
  1 row with two owners: tag_id -> tags.id leads to another tenant than the map does
      order_id, tag_id: (102, 201)
orders
  5 rows with two owners: customer_id -> customers.id leads to another tenant than the map does
      id: 101, 102, 103, 104, 105
  1 row of one tenant with a row of another: replaces_id -> orders.id
      id: 203
";
    assert_eq!(run.stdout, expected);
    assert!(!run.stderr.contains("Secret"));
    let run = ground.sandbox.json(&CHECK);
    assert_eq!(
        (run.code, &run.record("tenancy_check")["findings"]),
        (1, &4.into())
    );
    assert_eq!(run.record("error")["kind"], "tenancy_findings");
    let mut found = run.records();
    found.retain(|record| record["fault"] == "crosses_tenants");
    assert_eq!(found[0]["keys"][0][0], "203");
    assert_eq!(found[0]["reference"], "replaces_id -> orders.id");
}

#[test]
fn a_proposal_is_a_record_for_each_table() {
    let ground = Ground::new();
    let run = ground.sandbox.json(&["tenancy", "suggest", "--count"]);
    assert_eq!(run.code, 0, "{run:#?}");
    let whole = run.record("tenancy_proposal");
    assert_eq!(
        (&whole["tables"], &whole["unsure"]),
        (&24.into(), &7.into())
    );
    let mut tables = run.records();
    tables.retain(|record| record["type"] == "table_proposal");
    assert_eq!(tables.len(), 24);
    let orders = tables
        .iter()
        .find(|record| record["table"] == "order_items")
        .unwrap();
    assert_eq!(orders["decision"], "via");
    assert_eq!(orders["unsure"], false);
    assert_eq!(orders["rows"], 10);
    assert_eq!(orders["rule"], "via = \"order_id -> orders.id\"\n");
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_could() {
    let ground = Ground::new();
    let run = ground
        .sandbox
        .run(&["tenancy", "suggest", "--column", "tenant"]);
    run.refused(2, &["no table has a column tenant", "account_id"]);
}

#[test]
fn an_embedded_store_needs_no_map() {
    let sandbox = Sandbox::captured();
    for verb in ["suggest", "check"] {
        let run = sandbox.run(&["tenancy", verb]);
        run.refused(2, &["keeps every row's owner beside the row"]);
    }
}
