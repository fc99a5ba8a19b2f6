//! The proposal.

use reinstate_core::ErrorKind;
use reinstate_postgres::{
    Proposal, RowCount, SuggestOptions, TableRule, TenancyMap, TenancyProposal, Unowned,
};
use reinstate_testkit::cluster::shared_cluster;

use super::{SCHEMA, database, empty_map, reviewed, store, suggest};

fn of<'p>(proposal: &'p TenancyProposal, table: &str) -> &'p Proposal {
    let mut tables = proposal.tables.iter();
    tables.find(|found| found.table == table).unwrap()
}

fn counted() -> SuggestOptions {
    let mut options = SuggestOptions::default();
    options.count_rows = true;
    options
}

fn given(columns: &[&str]) -> SuggestOptions {
    let mut options = SuggestOptions::default();
    options.columns = columns.iter().map(|&name| name.to_owned()).collect();
    options
}

#[test]
fn every_shape_is_proposed_as_it_was_reviewed() {
    let database = database(SCHEMA);
    let proposal = suggest(&database, &SuggestOptions::default());
    reviewed("proposal.toml", &proposal.to_toml());
    let proposal = suggest(&database, &counted());
    reviewed("counted.toml", &proposal.to_toml());
}

#[test]
fn a_key_that_may_be_null_never_decides() {
    let database = database(
        "CREATE TABLE accounts (id bigint PRIMARY KEY);
         CREATE TABLE users (id bigint PRIMARY KEY, account_id_default bigint REFERENCES accounts);
         CREATE TABLE logins (id bigint PRIMARY KEY, user_id bigint NOT NULL REFERENCES users);
         CREATE TABLE orders (id bigint PRIMARY KEY, account_id bigint NOT NULL);",
    );
    let proposal = suggest(&database, &SuggestOptions::default());
    for table in ["users", "logins"] {
        let found = of(&proposal, table);
        assert!(found.is_unsure, "{found:?}");
        assert_eq!(found.alternatives.last(), Some(&TableRule::Shared));
    }
    assert!(!of(&proposal, "orders").is_unsure);
    assert_eq!(of(&proposal, "orders").rows, RowCount::Unknown);
}

#[test]
fn the_nearest_way_is_taken() {
    let database = database(
        "CREATE TABLE accounts (id bigint PRIMARY KEY);
         CREATE TABLE a (id bigint PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts);
         CREATE TABLE b (id bigint PRIMARY KEY, a_id bigint NOT NULL REFERENCES a);
         CREATE TABLE c (id bigint PRIMARY KEY, b_id bigint NOT NULL REFERENCES b,
                         a_id bigint NOT NULL REFERENCES a);
         ALTER TABLE a ADD c_id bigint REFERENCES c;",
    );
    let proposal = suggest(&database, &SuggestOptions::default());
    let found = of(&proposal, "c");
    assert!(!found.is_unsure);
    let TableRule::Via { reference, .. } = &found.decision else {
        panic!("{found:?}");
    };
    assert_eq!(reference, "a_id -> a.id");
}

#[test]
fn what_belongs_to_a_tenant_is_not_the_tenant() {
    let ddl = "CREATE TABLE companies (id int PRIMARY KEY);
         CREATE TABLE projects (id int PRIMARY KEY, company_id int NOT NULL REFERENCES companies);
         CREATE TABLE tasks (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects);
         CREATE TABLE notes (id int PRIMARY KEY, project_id int NOT NULL REFERENCES projects);";
    let database = database(ddl);
    let proposal = suggest(&database, &SuggestOptions::default());
    assert_eq!(proposal.column, "company_id");
    let tasks = of(&proposal, "tasks");
    assert!(
        matches!(&tasks.decision, TableRule::Via { .. }),
        "{tasks:?}"
    );
    assert!(
        proposal
            .to_toml()
            .contains("project_id (2 tables, leads to projects.id)")
    );
    let proposal = suggest(&database, &given(&["project_id"]));
    assert_eq!(proposal.column, "project_id");
    assert_eq!(of(&proposal, "companies").decision, TableRule::Shared);
}

#[test]
fn several_columns_can_be_given() {
    let ddl = "CREATE TABLE sites (id int PRIMARY KEY);
         CREATE TABLE a (id int PRIMARY KEY, site_id int NOT NULL REFERENCES sites);
         CREATE TABLE b (id int PRIMARY KEY, blog int NOT NULL);";
    let database = database(ddl);
    let proposal = suggest(&database, &given(&["site_id", "blog"]));
    let column = "blog".to_owned();
    assert_eq!(of(&proposal, "b").decision, TableRule::Direct { column });
    let text = proposal.to_toml();
    assert!(
        text.contains("[tenancy.table.b]\ncolumn = \"blog\"\n"),
        "{text}"
    );
    let store = store(&database.url(), empty_map());
    let error = store.suggest_tenancy(&given(&["nonsense"])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("site_id"), "{error}");
}

#[test]
fn a_schema_without_tenants_is_refused_with_what_could_be_meant() {
    let database = database(
        "CREATE TABLE users (id int PRIMARY KEY);
         CREATE TABLE posts (id int PRIMARY KEY, user_id int NOT NULL REFERENCES users);",
    );
    let store = store(&database.url(), empty_map());
    let error = store
        .suggest_tenancy(&SuggestOptions::default())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    assert!(error.to_string().contains("user_id (1 table)"), "{error}");
}

/// The catalogue is open to everybody; the rows are not, and are not needed.
#[test]
fn a_role_without_any_right_gets_the_same_proposal() {
    let database = database(SCHEMA);
    database
        .psql(
            "DROP ROLE IF EXISTS onlooker; CREATE ROLE onlooker LOGIN;
             ALTER TABLE orders ENABLE ROW LEVEL SECURITY; GRANT SELECT ON orders TO onlooker;",
        )
        .unwrap();
    let url = shared_cluster()
        .unwrap()
        .url_as("onlooker", database.name());
    let own = store(&url, empty_map());
    for options in [SuggestOptions::default(), counted()] {
        let found = own.suggest_tenancy(&options).unwrap();
        let all = suggest(&database, &SuggestOptions::default());
        assert_eq!(found.to_toml(), all.to_toml());
    }
}

#[test]
fn names_that_no_rule_can_write_are_left_to_a_person() {
    let database = database(
        "CREATE TABLE accounts (id int PRIMARY KEY);
         CREATE TABLE orders (\"a.b\" int PRIMARY KEY, account_id int NOT NULL);
         CREATE TABLE items (id int, \"x\ny\" int NOT NULL REFERENCES orders);",
    );
    let proposal = suggest(&database, &SuggestOptions::default());
    let items = of(&proposal, "items");
    assert!(items.is_unsure, "{items:?}");
    assert!(items.reason.contains("cannot name"), "{items:?}");
}

#[test]
fn a_pair_decides_only_if_every_kind_leads_to_a_tenant_for_sure() {
    let database = database(SCHEMA);
    let decides = |change: &str| {
        database.psql(change).unwrap();
        let proposal = suggest(&database, &counted());
        let found = of(&proposal, "comments").clone();
        (!found.is_unsure, found.reason)
    };
    assert!(decides("").0);
    for (insert, why) in [
        ("'Feedback', 1", "to be decided first"),
        ("'Nothing', 1", "by the kind Nothing"),
        ("'User', 1", "by the kind User"),
        ("'Comment', 1", "by the kind Comment"),
        ("' Order', 101", "by the kind  Order"),
    ] {
        let change =
            format!("DELETE FROM comments WHERE id = 9; INSERT INTO comments VALUES (9, {insert})");
        let (is_sure, reason) = decides(&change);
        assert!(!is_sure && reason.contains(why), "{insert}: {reason}");
    }
    let nullable = "DELETE FROM comments WHERE id = 9;
        ALTER TABLE comments ALTER commentable_id DROP NOT NULL";
    assert!(!decides(nullable).0);
    let (is_sure, reason) = decides("DELETE FROM comments");
    assert!(!is_sure && reason.contains("no row says yet"), "{reason}");
}

#[test]
fn what_is_decided_stays_decided_and_decides_what_follows_from_it() {
    let database = database(SCHEMA);
    let all = |map: TenancyMap| {
        let store = store(&database.url(), map);
        store.suggest_tenancy(&SuggestOptions::default()).unwrap()
    };
    let mut owned = empty_map();
    owned.column = Some("account_id".to_owned());
    let unowned = Unowned::Shared;
    let reference = "page_id -> pages.id".to_owned();
    let rule = TableRule::Via { reference, unowned };
    owned.tables.insert("feedback".to_owned(), rule.clone());
    let proposal = all(owned);
    assert_eq!(of(&proposal, "feedback").decision, rule);
    assert!(!of(&proposal, "feedback").is_unsure);
    let replies = of(&proposal, "feedback_replies");
    assert_eq!(
        replies.decision,
        TableRule::via("feedback_id -> feedback.id")
    );
    assert!(!replies.is_unsure);

    let mut shared = empty_map();
    shared.shared = vec!["feedback".to_owned(), "orders".to_owned()];
    let proposal = all(shared);
    for table in ["feedback", "feedback_replies", "orders", "shipments"] {
        let found = of(&proposal, table);
        assert_eq!(
            (&found.decision, found.is_unsure),
            (&TableRule::Shared, false),
            "{found:?}"
        );
    }
    let tags = of(&proposal, "order_tags");
    assert_eq!(tags.decision, TableRule::via("tag_id -> tags.id"));
}
