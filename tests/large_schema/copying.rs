//! One account of the large schema is copied under another id: as many rows in every table, and every
//! reference leads to the copy where the original's leads to the original.

use std::fs;

use reinstate_testkit::cluster::shared_cluster;

use super::fixture::{Application, Keys};
use super::support::Shell;
use super::{Operator, apply, find_the_map, undo};

/// The account that is copied, and what its copy is called.
const ORIGINAL: u32 = 3;
const COPY: u32 = 9003;

/// What a person decides about values that must be unique.
const INTO: &str = include_str!("into.toml");

/// The foreign keys, with the columns of both sides.
const FOREIGN_KEYS: &str = "
    SELECT conname, CASE c.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || c.oid::regclass,
           CASE p.relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || p.oid::regclass,
           (SELECT string_agg(format('c.%I = p.%I', a.attname, b.attname), ' AND ')
              FROM unnest(conkey, confkey) u(own, theirs)
              JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = u.own
              JOIN pg_attribute b ON b.attrelid = confrelid AND b.attnum = u.theirs)
      FROM pg_constraint JOIN pg_class c ON c.oid = conrelid JOIN pg_class p ON p.oid = confrelid
     WHERE contype = 'f' AND conparentid = 0 AND NOT c.relispartition ORDER BY conname";

/// References that only the map declares: the child, the parent, what joins them.
const WAYS: [(&str, &str, &str); 7] = [
    (
        "ONLY attachments",
        "ONLY folders",
        "c.subject_type = 'folder' AND p.id = c.subject_id",
    ),
    (
        "ONLY attachments",
        "ONLY issues",
        "c.subject_type = 'issue' AND p.id = c.subject_id",
    ),
    (
        "ONLY attachments",
        "ONLY orders",
        "c.subject_type = 'order' AND p.id = c.subject_id",
    ),
    (
        "ONLY reactions",
        "ONLY comments",
        "c.subject_kind = 1 AND p.id = c.subject_id",
    ),
    (
        "ONLY reactions",
        "ONLY issues",
        "c.subject_kind = 2 AND p.id = c.subject_id",
    ),
    ("ONLY page_views", "ONLY projects", "p.id = c.project_id"),
    ("ONLY search_log", "ONLY issues", "p.id = c.issue_id"),
];

#[test]
fn an_account_is_copied_if_all_foreign_keys_can_wait() {
    an_account_is_copied(Keys::Deferrable);
}

#[test]
fn an_account_is_copied_if_no_foreign_key_can_wait() {
    an_account_is_copied(Keys::Immediate);
}

fn an_account_is_copied(keys: Keys) {
    let cluster = shared_cluster().expect("a PostgreSQL server");
    let database = cluster.fresh_database().expect("a database");
    let application = Application::new(database, keys);
    let shell = Shell::new(cluster).with_database(application.database());
    find_the_map(&shell);
    shell.run("reinstate init && reinstate guard install");
    let role = format!("copier_{}", application.database());
    application.make_role(&role);
    let path = shell.directory().join("reinstate.toml");
    let map = fs::read_to_string(&path).expect("read the configuration");
    fs::write(&path, format!("{map}\n{INTO}")).expect("write a file");
    let operator = Operator { shell, role };
    operator.run("reinstate capture once");
    let (before, others_before) = (application.digests(), others(&application, "0"));

    let plan = format!("reinstate plan account:{ORIGINAL} --at latest --into side:{COPY}");
    let output = apply(&operator, &plan);
    assert!(output.contains("\"verdict\":\"restored\""), "{output}");
    let merge = application.psql(&format!("SELECT xmin FROM accounts WHERE id = {COPY}"));
    let written = as_many_rows(&application, &merge);
    assert!(written > 2_500, "{written} rows");
    references_lead_where_the_originals_do(&application, &merge);
    assert_eq!(others(&application, &merge), others_before);

    let output = undo(&operator, &output);
    assert!(output.contains("\"verdict\":\"restored\""), "{output}");
    assert_eq!(application.digests(), before);
}

/// Every row that the merge did not write, with the transaction that did.
fn others(application: &Application<'_>, merge: &str) -> String {
    let select = |table: &str| {
        format!(
            "SELECT '{table}', count(*), md5(string_agg(t::text || t.xmin, E'\\n' ORDER BY t::text, t.ctid))
               FROM {table} t WHERE t.xmin::text <> '{merge}';\n"
        )
    };
    let sql: String = application.tables().map(select).collect();
    application.psql(&sql)
}

/// The copy has as many rows in a table as the original, unless it is left out. Returns how many.
fn as_many_rows(application: &Application<'_>, merge: &str) -> u64 {
    let select = |table: &str| {
        let rows = rows_of(application, table);
        format!(
            "SELECT '{table}', count(*) FILTER (WHERE by = '{merge}'),
                    count(*) FILTER (WHERE by <> '{merge}' AND whose = {ORIGINAL}) FROM {rows} t;\n"
        )
    };
    let sql: String = application.tables().map(select).collect();
    let mut written = 0;
    for line in application.psql(&sql).lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let name = fields[0].trim_start_matches("ONLY ");
        let expected = if INTO.contains(&format!("\"{name}\"")) {
            "0"
        } else {
            fields[2]
        };
        assert_eq!(fields[1], expected, "{line}");
        written += fields[1].parse::<u64>().expect("a number of rows");
    }
    written
}

/// Of every reference: as many rows of the copy lead to the copy as of the original to itself, none of
/// the copy leads to the original, and as many lead to others or to rows of everybody.
fn references_lead_where_the_originals_do(application: &Application<'_>, merge: &str) {
    let keys = application.psql(FOREIGN_KEYS);
    let keys = keys.lines().map(|line| {
        let fields: Vec<&str> = line.split('|').collect();
        (
            fields[1].to_owned(),
            fields[2].to_owned(),
            fields[3].to_owned(),
        )
    });
    let ways =
        WAYS.map(|(child, parent, equal)| (child.to_owned(), parent.to_owned(), equal.to_owned()));
    let mut counts = (0, 0);
    for (child, parent, equal) in keys.chain(ways) {
        let is_left_out = INTO.contains(&format!("\"{}\"", child.trim_start_matches("ONLY ")));
        let sql = format!(
            "SELECT count(*) FILTER (WHERE c.by = '{merge}' AND p.by = '{merge}'),
                    count(*) FILTER (WHERE c.by <> '{merge}' AND c.whose = {ORIGINAL} AND p.whose = {ORIGINAL}),
                    count(*) FILTER (WHERE c.by = '{merge}' AND p.by <> '{merge}' AND p.whose <> {ORIGINAL}),
                    count(*) FILTER (WHERE c.by <> '{merge}' AND c.whose = {ORIGINAL} AND p.whose <> {ORIGINAL}),
                    count(*) FILTER (WHERE c.by = '{merge}' AND p.by <> '{merge}' AND p.whose = {ORIGINAL})
               FROM {} c JOIN {} p ON {equal}",
            rows_of(application, &child),
            rows_of(application, &parent)
        );
        let found = application.psql(&sql);
        let found: Vec<u64> = found
            .split('|')
            .map(|field| field.parse().expect("a number"))
            .collect();
        let says = format!("{child} -> {parent} ON {equal}: {found:?}");
        assert_eq!(found[4], 0, "leads to the original: {says}");
        if !is_left_out {
            assert_eq!((found[0], found[2]), (found[1], found[3]), "{says}");
        }
        counts = (counts.0 + found[0], counts.1 + found[2]);
    }
    assert!(counts.0 > 2_000 && counts.1 > 0, "{counts:?} references");
}

/// The rows of a table, with the transaction that wrote them and the account that had them before the
/// copy was made.
fn rows_of(application: &Application<'_>, table: &str) -> String {
    let owner = application.owner_of(table);
    format!("(SELECT t.*, t.xmin::text AS by, coalesce({owner}, 0) AS whose FROM {table} t)")
}
