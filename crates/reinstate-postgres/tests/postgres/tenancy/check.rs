//! The check of the map against the data.

use reinstate_core::{Cancellation, ErrorKind, OwnedRowBatch, Silent, SnapshotSource, StoreError};
use reinstate_postgres::{
    PostgresStore, RouteRule, SuggestOptions, TableRule, TenancyCheck, TenancyFault,
    TenancyFinding, TenancyMap, TenancyProposal, Unowned,
};
use reinstate_testkit::cluster::TestDatabase;

use super::{SCHEMA, database, empty_map, store, suggest};

/// The rules that a person may have chosen for what the proposal is unsure of: the first one,
/// but for a table that is nobody's.
fn decided(proposal: &TenancyProposal) -> TenancyMap {
    let mut map = empty_map();
    for table in &proposal.tables {
        let rule = match table.table.as_str() {
            "legacy_events" => &table.alternatives[0],
            _ => &table.decision,
        };
        map.tables.insert(table.table.clone(), rule.clone());
    }
    map
}

/// The database of all shapes, with a map that was decided.
fn ground() -> (TestDatabase<'static>, PostgresStore) {
    let database = database(SCHEMA);
    database
        .psql("ALTER TABLE shipments VALIDATE CONSTRAINT shipments_order")
        .unwrap();
    let mut options = SuggestOptions::default();
    options.count_rows = true;
    let map = decided(&suggest(&database, &options));
    let store = store(&database.url(), map);
    (database, store)
}

fn check(store: &PostgresStore) -> TenancyCheck {
    store.check_tenancy(&Silent, &Cancellation::new()).unwrap()
}

fn finding(
    table: &str,
    fault: TenancyFault,
    reference: Option<&str>,
    keys: &[&[&str]],
) -> TenancyFinding {
    let keys: Vec<Vec<String>> = keys
        .iter()
        .map(|key| key.iter().map(|&value| value.to_owned()).collect())
        .collect();
    let key_columns = match table {
        "order_tags" => vec!["order_id".to_owned(), "tag_id".to_owned()],
        _ => vec!["id".to_owned()],
    };
    TenancyFinding {
        table: table.to_owned(),
        fault,
        reference: reference.map(ToOwned::to_owned),
        row_count: keys.len() as u64,
        key_columns,
        keys,
    }
}

/// Plants faults in the data and compares what is found with all that is expected.
#[track_caller]
fn finds(faults: &str, expected: &[TenancyFinding]) {
    let (database, store) = ground();
    database.psql(faults).unwrap();
    assert_eq!(check(&store).findings, expected);
}

#[test]
fn good_data_under_a_decided_map_is_clean() {
    let (database, store) = ground();
    let found = check(&store);
    assert_eq!(found.findings, []);
    assert_eq!(found.owned_table_count, 19);
    assert_eq!(found.reference_count, 5);
    // Rows of everybody that refer to each other, and tenants' rows that refer to them.
    database
        .psql(
            "INSERT INTO feedback_replies VALUES (2, 2); INSERT INTO billing.lines VALUES (1, 900)",
        )
        .unwrap();
    assert_eq!(check(&store).findings, []);
    database
        .psql(
            "ALTER TABLE orders ADD invoice_id bigint REFERENCES invoices;
             UPDATE orders SET invoice_id = 900 WHERE id = 101;",
        )
        .unwrap();
    assert_eq!(check(&store).findings, []);
}

#[test]
fn routes_that_disagree_are_found_wherever_every_row_has_both() {
    use TenancyFault::RoutesDisagree as Disagree;
    finds(
        "UPDATE orders SET customer_id = 201 WHERE id IN (102, 104);
         UPDATE order_tags SET tag_id = 101 WHERE order_id = 203;
         UPDATE attachments SET page_id = 201 WHERE id = 1;",
        &[
            finding(
                "attachments",
                Disagree,
                Some("page_id -> pages.id"),
                &[&["1"]],
            ),
            finding(
                "order_tags",
                Disagree,
                Some("tag_id -> tags.id"),
                &[&["203", "101"]],
            ),
            finding(
                "orders",
                Disagree,
                Some("customer_id -> customers.id"),
                &[&["102"], &["104"]],
            ),
        ],
    );
}

#[test]
fn references_to_another_tenant_are_found() {
    finds(
        "UPDATE orders SET replaces_id = 201 WHERE id = 105;
         UPDATE orders SET replaces_id = 204 WHERE id = 205;
         ALTER TABLE item_notes ADD see_id bigint REFERENCES order_items;
         UPDATE item_notes SET see_id = 2010 WHERE id = 10100;
         ALTER TABLE pages ADD root_id bigint REFERENCES pages;
         UPDATE pages SET root_id = 101;
         ALTER TABLE pages ALTER root_id SET NOT NULL;
         INSERT INTO tags VALUES (1, 2), (2, 2);
         ALTER TABLE invoices ADD FOREIGN KEY (account_id) REFERENCES tags;",
        &[
            finding(
                "invoices",
                TenancyFault::CrossesTenants,
                Some("account_id -> tags.id"),
                &[&["101"], &["102"], &["103"]],
            ),
            finding(
                "item_notes",
                TenancyFault::CrossesTenants,
                Some("see_id -> order_items.id"),
                &[&["10100"]],
            ),
            finding(
                "orders",
                TenancyFault::CrossesTenants,
                Some("replaces_id -> orders.id"),
                &[&["105"]],
            ),
            finding(
                "pages",
                TenancyFault::CrossesTenants,
                Some("root_id -> pages.id"),
                &[&["201"]],
            ),
        ],
    );
}

#[test]
fn rows_that_reach_nobody_are_found() {
    use TenancyFault::Unowned;
    // Keys that are declared can be broken too: by whoever turns them off.
    finds(
        "INSERT INTO comments VALUES (3, 'Nothing', 101), (4, 'Order', 9);
         INSERT INTO attachments VALUES (3, NULL, NULL);
         SET session_replication_role = replica;
         INSERT INTO order_items VALUES (999, 9, 1);
         INSERT INTO feedback VALUES (3, 9);",
        &[
            finding("attachments", Unowned, None, &[&["3"]]),
            finding("comments", Unowned, None, &[&["3"], &["4"]]),
            finding("order_items", Unowned, None, &[&["999"]]),
        ],
    );
}

#[test]
fn rows_of_everybody_that_refer_to_a_tenants_are_found() {
    use TenancyFault::SharedRefersToOwned as Shared;
    finds(
        "ALTER TABLE regions ADD page_id bigint REFERENCES pages;
         INSERT INTO regions VALUES (1, 'north', 101), (2, 'south', NULL);
         ALTER TABLE invoices ADD order_id bigint REFERENCES orders;
         UPDATE invoices SET order_id = 101 WHERE id IN (101, 201, 900);
         ALTER TABLE feedback ADD order_id bigint REFERENCES orders;
         UPDATE feedback SET order_id = 201;",
        &[
            finding(
                "feedback",
                TenancyFault::CrossesTenants,
                Some("order_id -> orders.id"),
                &[&["1"]],
            ),
            finding("feedback", Shared, Some("order_id -> orders.id"), &[&["2"]]),
            finding(
                "invoices",
                TenancyFault::CrossesTenants,
                Some("order_id -> orders.id"),
                &[&["201"]],
            ),
            finding(
                "invoices",
                Shared,
                Some("order_id -> orders.id"),
                &[&["900"]],
            ),
            finding("regions", Shared, Some("page_id -> pages.id"), &[&["1"]]),
        ],
    );
}

/// The only way is not open to every row, and the rest is everybody's: that rest must not refer
/// to a tenant's rows by the same key.
#[test]
fn a_way_with_a_condition_is_followed_for_the_rows_outside_of_it() {
    let database = database(
        "CREATE TABLE accounts (id int PRIMARY KEY);
         CREATE TABLE orders (id int PRIMARY KEY, account_id int NOT NULL REFERENCES accounts);
         CREATE TABLE notes (id int PRIMARY KEY, kind text, order_id int REFERENCES orders);
         INSERT INTO accounts VALUES (1); INSERT INTO orders VALUES (1, 1);
         INSERT INTO notes VALUES (1, 'own', 1), (2, 'template', NULL), (3, 'template', 1);",
    );
    let mut map = empty_map();
    map.column = Some("account_id".to_owned());
    let column = "id".to_owned();
    map.tables
        .insert("accounts".to_owned(), TableRule::Direct { column });
    let routes = vec![RouteRule {
        when: Some("kind = own".to_owned()),
        via: "order_id -> orders.id".to_owned(),
    }];
    let unowned = Unowned::Shared;
    map.tables
        .insert("notes".to_owned(), TableRule::OneOf { routes, unowned });
    let fault = TenancyFault::SharedRefersToOwned;
    let expected = finding("notes", fault, Some("order_id -> orders.id"), &[&["3"]]);
    let store = store(&database.url(), map);
    assert_eq!(check(&store).findings, [expected]);
}

/// A capture refused rows whose parent had no owner and needed none, because it looked at the end
/// of the way only; the check saw nothing wrong with them.
#[test]
fn a_row_whose_parent_is_everybodys_is_everybodys_to_check_and_capture() {
    let database = database(
        "CREATE TABLE accounts (id int PRIMARY KEY);
         CREATE TABLE pages (id int PRIMARY KEY, account_id int NOT NULL REFERENCES accounts);
         CREATE TABLE feedback (id int PRIMARY KEY, page_id int REFERENCES pages);
         CREATE TABLE notes (id int PRIMARY KEY, feedback_id int REFERENCES feedback,
                             page_id int REFERENCES pages);
         INSERT INTO accounts VALUES (1); INSERT INTO pages VALUES (1, 1);
         INSERT INTO feedback VALUES (1, 1), (2, NULL);
         INSERT INTO notes VALUES (1, 1, NULL), (2, NULL, 1), (3, 2, NULL);",
    );
    let mut map = empty_map();
    map.column = Some("account_id".to_owned());
    map.excluded.push("accounts".to_owned());
    let (reference, unowned) = ("page_id -> pages.id".to_owned(), Unowned::Shared);
    map.tables
        .insert("feedback".to_owned(), TableRule::Via { reference, unowned });
    let routes = ["feedback_id -> feedback.id", "page_id -> pages.id"].map(|via| RouteRule {
        when: None,
        via: via.to_owned(),
    });
    let (routes, unowned) = (routes.to_vec(), Unowned::Refused);
    map.tables
        .insert("notes".to_owned(), TableRule::OneOf { routes, unowned });
    let store = store(&database.url(), map);
    assert_eq!(check(&store).findings, []);
    assert_eq!(owners(&store, "notes").unwrap(), ["", "1", "1"]);
    // Without a parent it is nobody's.
    database.psql("INSERT INTO notes VALUES (4)").unwrap();
    let expected = finding("notes", TenancyFault::Unowned, None, &[&["4"]]);
    assert_eq!(check(&store).findings, [expected]);
    assert!(owners(&store, "notes").is_err());
}

/// The owners of the rows of a table, as a capture finds them, sorted.
fn owners(store: &PostgresStore, table: &str) -> Result<Vec<String>, StoreError> {
    let view = store.begin_capture()?;
    let mut tables = view.schema().iter();
    let (index, _) = tables
        .find(|(_, found)| found.name.as_str() == table)
        .unwrap();
    let mut rows = view.table_rows(index)?;
    let (mut batch, mut owners) = (OwnedRowBatch::new(), Vec::new());
    while rows.next_batch(&mut batch)? {
        let found = batch.iter().map(|(owner, _)| owner.to_vec());
        owners.extend(found.map(|owner| String::from_utf8(owner).unwrap()));
    }
    owners.sort();
    Ok(owners)
}

#[test]
fn all_rows_are_counted_and_few_are_named() {
    let (database, store) = ground();
    database
        .psql(
            "ALTER TABLE order_tags DROP CONSTRAINT order_tags_pkey;
             UPDATE order_tags SET tag_id = 302 - tag_id;
             UPDATE customers SET account_id = 3 - account_id;",
        )
        .unwrap();
    let found = check(&store).findings;
    let [tags, orders] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!((tags.row_count, tags.keys.len()), (10, 0));
    assert_eq!(orders.row_count, 10);
    let keys: Vec<&str> = orders.keys.iter().map(|key| key[0].as_str()).collect();
    assert_eq!(keys, ["101", "102", "103", "104", "105"]);
}

#[test]
fn a_map_that_does_not_cover_the_catalogue_is_refused() {
    let (database, store) = ground();
    database.psql("CREATE TABLE since (id int)").unwrap();
    let silent = (Silent, Cancellation::new());
    let error = store.check_tenancy(&silent.0, &silent.1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unclassified);
    assert!(error.to_string().contains("since"), "{error}");
    let stop = Cancellation::new();
    stop.cancel();
    database.psql("DROP TABLE since").unwrap();
    let error = store.check_tenancy(&Silent, &stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}
