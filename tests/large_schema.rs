//! A schema of the size and variety that real applications have: three accounts are deleted and
//! come back, and of everybody else's rows not one is written.

#[path = "large_schema/copying.rs"]
mod copying;
#[path = "large_schema/mod.rs"]
mod fixture;
#[path = "large_schema/shapes.rs"]
mod shapes;
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
const TO_BE_DECIDED: [&str; 7] = [
    "attachments",
    "coupon_uses",
    "issue_labels",
    "notes",
    "page_views",
    "reactions",
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
    assert_eq!(application.tables().count(), TABLE_COUNT);
    let before = application.digests();
    let row_count: u64 = before.values().map(|digest| digest.count).sum();
    assert!((20_000..40_000).contains(&row_count), "{row_count} rows");

    let shell = Shell::new(cluster).with_database(application.database());
    find_the_map(&shell);
    shell.run("reinstate init && reinstate guard install");
    let role = format!("restorer_{}", application.database());
    application.make_role(&role);
    let operator = Operator { shell, role };
    operator.run("reinstate capture once && reinstate verify");
    whose_rows_they_are(&operator, &before);

    let deleted = comes_back(&operator, &application, &before, || {
        application.delete(&DELETED, keys);
    });
    assert!(rows_of(&deleted, &DELETED).is_empty());
    comes_back(&operator, &application, &before, || {
        application.damage(&DELETED, keys);
    });

    // Restored, there is nothing left to write.
    let after = application.digests();
    let again = restore_all(&operator);
    let nothing = "\"create\":0,\"put_back\":0,\"delete\":0";
    assert!(again.contains(nothing), "{again}");
    assert!(again.contains("\"rows_changed\":0"), "{again}");
    assert_eq!(application.digests(), after);
    operator.run("reinstate diff account:3@latest --detailed-exitcode");
    rewritten_neighbours_are_seen(&application, &before);
    new_rows_get_new_ids(&application);
}

/// Whoever restores: no superuser.
struct Operator {
    shell: Shell,
    role: String,
}

impl Operator {
    #[track_caller]
    fn run(&self, script: &str) -> String {
        self.shell.run(&format!(
            "export DATABASE_URL=\"${{DATABASE_URL%user=*}}user={}\"; {script}",
            self.role
        ))
    }
}

/// The snapshot has as many rows of each account as can be told without following a key.
fn whose_rows_they_are(operator: &Operator, digests: &Digests) {
    let mut counts = BTreeMap::<u32, u64>::new();
    for ((owner, _), digest) in digests {
        *counts.entry(*owner).or_default() += digest.count;
    }
    let text = operator.run("reinstate tenants --json");
    assert_eq!(counts.remove(&EVERYBODY).map(|count| count > 0), Some(true));
    assert_eq!(counts.len(), 12);
    for (account, count) in counts {
        let says = format!("\"tenant\":\"account:{account}\",\"rows\":{count},");
        assert!(text.contains(&says), "no {says} in {text}");
    }
}

/// The accounts are what they were before an incident, and again after the restore was taken back
/// and repeated. Of everybody else's rows none is written. Returns what the incident left.
fn comes_back(
    operator: &Operator,
    application: &Application<'_>,
    before: &Digests,
    incident: impl FnOnce(),
) -> Digests {
    incident();
    let spoilt = application.digests();
    assert_ne!(rows_of(&spoilt, &DELETED), rows_of(before, &DELETED));
    assert_eq!(neighbours(&spoilt), neighbours(before));

    let output = restore_all(operator);
    for account in DELETED {
        let outcome = format!("\"tenant\":\"account:{account}\",\"verdict\":\"restored\"");
        assert!(output.contains(&outcome), "{output}");
    }
    let after = application.digests();
    assert_eq!(rows_of(&after, &DELETED), rows_of(before, &DELETED));
    assert_eq!(neighbours(&after), neighbours(before));

    undo(operator, &output);
    let undone = application.digests();
    assert_eq!(rows_of(&undone, &DELETED), rows_of(&spoilt, &DELETED));
    assert_eq!(neighbours(&undone), neighbours(before));

    restore_all(operator);
    let after = application.digests();
    assert_eq!(rows_of(&after, &DELETED), rows_of(before, &DELETED));
    assert_eq!(neighbours(&after), neighbours(before));
    spoilt
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
fn restore_all(operator: &Operator) -> String {
    let tenants = DELETED.map(|account| format!("account:{account}"));
    apply(
        operator,
        &format!("reinstate plan {} --at latest", tenants.join(" ")),
    )
}

/// Takes back what a run did.
fn undo(operator: &Operator, output: &str) -> String {
    let job = text_after(output, "\"type\":\"summary\",\"job\":\"");
    apply(operator, &format!("reinstate undo {job}"))
}

/// Applies what a command plans, as somebody who has read it; returns what was said.
fn apply(operator: &Operator, plan: &str) -> String {
    let planned = operator.run(&format!("rm -f a.plan; {plan} --out a.plan --json"));
    let digest = text_after(&planned, "\"digest\":\"");
    operator.run(&format!(
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

/// What is compared would tell, had a restore written a row of somebody else as it was before.
fn rewritten_neighbours_are_seen(application: &Application<'_>, before: &Digests) {
    application.psql(
        "UPDATE issues SET title = title WHERE id = 101;
         UPDATE page_views SET path = path WHERE path = '/';
         UPDATE visits SET day = day WHERE id = 4005;",
    );
    let (before, after) = (neighbours(before), neighbours(&application.digests()));
    let rewritten: Vec<(u32, &str)> = after
        .iter()
        .filter(|(place, digest)| before.get(*place) != Some(*digest))
        .map(|((owner, table), _)| (*owner, table.as_str()))
        .collect();
    let expected = [
        (EVERYBODY, "ONLY page_views"),
        (1, "ONLY issues"),
        (5, "visits"),
    ];
    assert_eq!(rewritten, expected);
}
