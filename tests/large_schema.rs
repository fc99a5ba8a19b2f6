//! A schema of the size and variety that real applications have: three accounts are deleted and
//! come back, and of everybody else's rows not one is written.

#[path = "large_schema/mod.rs"]
mod fixture;
#[expect(dead_code, reason = "other tests of this package use the rest")]
mod support;

use std::collections::BTreeMap;
use std::fs;

use fixture::{Application, DECIDED, Digests, EVERYBODY, Keys};
use reinstate_testkit::cluster::shared_cluster;
use support::Shell;

/// The accounts that are deleted. The last one has the greatest ids of all.
const DELETED: [u32; 3] = [3, 8, 12];

/// How many tables hold rows.
const TABLE_COUNT: usize = 150;

/// What `reinstate tenancy suggest` leaves to a person.
const TO_BE_DECIDED: [&str; 6] = [
    "attachments",
    "coupon_uses",
    "issue_labels",
    "notes",
    "page_views",
    "search_log",
];

#[test]
fn accounts_come_back_if_all_foreign_keys_can_wait() {
    accounts_come_back(Keys::Deferrable);
}

#[test]
fn accounts_come_back_if_no_foreign_key_can_wait() {
    accounts_come_back(Keys::Immediate);
}

fn accounts_come_back(keys: Keys) {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let application = Application::new(database, keys);
    let shell = Shell::new(cluster).with_database(application.database());
    find_the_map(&shell);
    shell.run("reinstate init && reinstate capture once");

    let before = application.digests();
    assert_eq!(application.tables().count(), TABLE_COUNT);
    let row_count: u64 = before.values().map(|digest| digest.count).sum();
    assert!((20_000..40_000).contains(&row_count), "{row_count} rows");
    application.delete(&DELETED, keys);
    let meanwhile = application.digests();
    assert!(rows_of(&meanwhile, &DELETED).is_empty());
    assert_eq!(neighbours(&meanwhile), neighbours(&before));

    // Back, taken back, and back again.
    let output = restore_all(&shell);
    let first = application.digests();
    assert_eq!(rows_of(&first, &DELETED), rows_of(&before, &DELETED));
    undo(&shell, &output);
    assert!(rows_of(&application.digests(), &DELETED).is_empty());
    let output = restore_all(&shell);
    for account in DELETED {
        assert!(
            output.contains(&format!(
                "\"tenant\":\"account:{account}\",\"verdict\":\"restored\""
            )),
            "{output}"
        );
    }
    let after = application.digests();
    assert_eq!(rows_of(&after, &DELETED), rows_of(&before, &DELETED));
    assert_eq!(neighbours(&after), neighbours(&before));

    // Restored once, there is nothing left to write.
    let again = restore_all(&shell);
    assert!(
        again.contains("\"create\":0,\"put_back\":0,\"delete\":0"),
        "{again}"
    );
    assert!(again.contains("\"rows_changed\":0"), "{again}");
    assert_eq!(application.digests(), after);
    new_rows_get_new_ids(&application);
}

/// Writes the configuration as a user would: what is proposed, after some of it was decided.
fn find_the_map(shell: &Shell) {
    let path = shell.directory().join("reinstate.toml");
    let (head, decisions) = DECIDED.split_once("[tenancy]\n").expect("a head");
    let (question, _) = decisions.split_once("[tenancy.table").expect("a rule");
    fs::write(&path, format!("{head}[tenancy]\n{question}")).expect("write a file");
    let proposal = shell.run("reinstate tenancy suggest --count");
    let marked = proposal
        .lines()
        .filter_map(|line| line.strip_prefix("# decide: ")?.split(':').next());
    assert_eq!(marked.collect::<Vec<_>>(), TO_BE_DECIDED, "{proposal}");
    fs::write(&path, DECIDED).expect("write a file");
    let said = shell.run("reinstate tenancy suggest --count --out proposal.toml");
    assert!(said.contains(" 0 tables to be decided"), "{said}");
    let proposal = fs::read_to_string(shell.directory().join("proposal.toml"));
    let proposal = proposal.expect("read the proposal");
    fs::write(&path, format!("{head}{proposal}")).expect("write a file");
    let said = shell.run("reinstate tenancy check");
    assert!(said.contains("every row has one owner"), "{said}");
}

/// Restores the accounts to the latest snapshot by one plan.
fn restore_all(shell: &Shell) -> String {
    let tenants = DELETED.map(|account| format!("account:{account}"));
    apply(
        shell,
        &format!("reinstate plan {} --at latest", tenants.join(" ")),
    )
}

/// Takes back what a run did.
fn undo(shell: &Shell, output: &str) -> String {
    let job = text_after(output, "\"type\":\"summary\",\"job\":\"");
    apply(shell, &format!("reinstate undo {job}"))
}

/// Applies what a command plans, as somebody who has read it; returns what was said.
fn apply(shell: &Shell, plan: &str) -> String {
    let planned = shell.run(&format!("rm -f a.plan; {plan} --out a.plan --json"));
    let digest = text_after(&planned, "\"digest\":\"");
    shell.run(&format!(
        "reinstate apply a.plan --json --confirm-digest {digest}"
    ))
}

/// What stands between a label and the next quotation mark.
fn text_after<'t>(text: &'t str, label: &str) -> &'t str {
    let rest = text.split_once(label).map(|(_, rest)| rest);
    rest.and_then(|rest| rest.split('"').next())
        .unwrap_or_else(|| panic!("no {label} in {text}"))
}

/// How many rows some accounts have in each table, with digests of them.
fn rows_of(digests: &Digests, accounts: &[u32]) -> BTreeMap<(u32, String), (u64, String)> {
    let own = digests
        .iter()
        .filter(|((owner, _), _)| accounts.contains(owner));
    own.map(|(place, digest)| (place.clone(), (digest.count, digest.rows.clone())))
        .collect()
}

/// Digests of everybody else's rows, with the transactions that wrote them.
fn neighbours(digests: &Digests) -> Digests {
    let mut digests = digests.clone();
    digests.retain(|(owner, _), _| !DELETED.contains(owner));
    assert!(digests.keys().any(|(owner, _)| *owner == EVERYBODY));
    digests
}

/// Nothing ever told the sequences which ids there are, but the restore of the account with the
/// greatest ones.
fn new_rows_get_new_ids(application: &Application<'_>) {
    for (table, columns, values) in [
        ("projects", "account_id, code, name", "3, 'NEW', 'new'"),
        ("folders", "account_id, name", "8, 'new'"),
        ("labels", "account_id, name", "12, 'new'"),
        (
            "issues",
            "account_id, project_id, number, title",
            "3, 103, 900, 'new'",
        ),
        ("customers", "account_id, reference", "8, 'new'"),
    ] {
        let sql = format!(
            "INSERT INTO {table} ({columns}) VALUES ({values})
             RETURNING id > (SELECT max(id) FROM {table})"
        );
        assert_eq!(application.psql(&sql), "t", "{table}");
    }
}
