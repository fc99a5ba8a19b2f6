//! An application of some 150 tables and twelve accounts, in two variants.

mod ordinary;

use std::collections::BTreeMap;

use reinstate_testkit::cluster::TestDatabase;

const SPECIAL: &str = include_str!("special.sql");
const UNCOMMON: &str = include_str!("uncommon.sql");
const UNCOMMON_ROWS: &str = include_str!("uncommon_rows.sql");
const DESK: &str = include_str!("desk.sql");
const HELPERS: &str = include_str!("helpers.sql");
const SPECIAL_ROWS: &str = include_str!("special_rows.sql");
const DAMAGE: &str = include_str!("damage.sql");
const PLAIN_COLUMNS: &str = include_str!("plain_columns.sql");
const TIGHT: &str = include_str!("tight.sql");

/// What a person decides about the tables whose owner is not plain.
pub const DECIDED: &str = include_str!("decided.toml");

/// The seed of the ordinary tables.
const SEED: u64 = 150;

/// Whose a row is of everybody's.
pub const EVERYBODY: u32 = 0;

/// How to tell whose a row of a special table is, where the last two digits of `id` do not say it.
/// None of them follows a reference.
const OWNERS: &[(&str, &str)] = &[
    ("schema_migrations", "0"),
    ("currencies", "0"),
    ("countries", "0"),
    ("users", "0"),
    ("user_preferences", "0"),
    ("accounts", "id"),
    ("memberships", "account_id"),
    ("account_settings", "account_id"),
    ("api_tokens", "account_id"),
    ("sessions", "account_id"),
    ("documents", "right(id::text, 2)::int"),
    ("document_versions", "right(document_id::text, 2)::int"),
    ("milestones", "account_id"),
    ("issue_labels", "issue_id % 100"),
    ("reactions", "subject_id % 100"),
    ("page_views", "project_id % 100"),
    ("audit_log", "account_id"),
    ("order_lines", "order_id % 100"),
    ("coupon_uses", "order_id % 100"),
    ("price_history", "account_id"),
    ("event_payloads", "event_id % 100"),
    ("measurements", "account_id"),
    ("template_steps", "template_id % 100"),
    ("billing.invoices", "account_id"),
    ("billing.lines", "account_id"),
    ("billing.plans", "0"),
    ("key_of_many", "account_id"),
    ("key_of_float", "account_id"),
    ("key_of_bytes", "account_id"),
    ("key_of_range", "account_id"),
    ("key_of_json", "account_id"),
    ("key_of_array", "account_id"),
    ("key_of_row", "account_id"),
    ("key_of_numeric", "account_id"),
    ("key_of_interval", "account_id"),
    ("key_of_text", "account_id"),
    ("sketches", "account_id"),
    ("clicks", "account_id"),
    ("vehicles", "asset_id % 100"),
];

/// Whether foreign keys can wait until the end of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// All of them can.
    Deferrable,
    /// None of them can.
    Immediate,
}

/// The rows of one owner in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// How many there are.
    pub count: u64,
    /// A digest of their text.
    pub rows: String,
    /// A digest that also covers which transaction wrote each of them.
    pub written: String,
}

/// Digests by owner and table.
pub type Digests = BTreeMap<(u32, String), Digest>;

/// The application in a database.
pub struct Application<'c> {
    database: TestDatabase<'c>,
    /// The tables that hold rows, as SQL names them without what inherits from them, with SQL that
    /// tells whose a row `t` is.
    owners: BTreeMap<String, String>,
}

impl<'c> Application<'c> {
    /// Makes the tables and their rows.
    pub fn new(database: TestDatabase<'c>, keys: Keys) -> Self {
        Self::with_rows(database, keys, 1)
    }

    /// The same with so many times the rows in ordinary tables. Where that is more than once, the
    /// server does not look at the references of each: that would take longer than all else.
    pub fn with_rows(database: TestDatabase<'c>, keys: Keys, times: u64) -> Self {
        let ordinary = ordinary::tables(SEED, times);
        let mut sql = format!("\\set times {times}\n{SPECIAL}{UNCOMMON}{DESK}");
        sql.extend(ordinary.iter().map(|table| table.definition.as_str()));
        // Rows come in an order that only keys that wait can bear.
        sql.push_str(&alter_keys(Keys::Deferrable));
        sql.push_str("BEGIN;\nSET CONSTRAINTS ALL DEFERRED;\n");
        if times > 1 {
            sql.push_str("SET LOCAL session_replication_role = replica;\n");
        }
        sql.push_str(HELPERS);
        sql.push_str(SPECIAL_ROWS);
        sql.push_str(UNCOMMON_ROWS);
        sql.extend(ordinary.iter().map(|table| table.rows.as_str()));
        sql.push_str("COMMIT;\n");
        if keys == Keys::Immediate {
            sql.push_str(TIGHT);
            sql.push_str(&alter_keys(Keys::Immediate));
        }
        database.psql(&sql).expect("make the application");
        let owners = owners(&database, &ordinary);
        Self { database, owners }
    }

    /// The tables that hold rows.
    pub fn tables(&self) -> impl Iterator<Item = &str> {
        self.owners.keys().map(String::as_str)
    }

    /// SQL that tells whose a row `t` of a table is.
    pub fn owner_of(&self, table: &str) -> &str {
        &self.owners[table]
    }

    /// Makes a role that may do what docs/postgres.md says that a restore needs, and no more.
    pub fn make_role(&self, role: &str) {
        let database = self.database();
        let mut sql = format!(
            "CREATE ROLE {role} LOGIN;
             GRANT TEMP ON DATABASE {database} TO {role};
             GRANT USAGE ON SCHEMA reinstate TO {role};
             GRANT SELECT, INSERT ON reinstate.journal TO {role};\n"
        );
        for schema in ["public", "billing"] {
            sql.push_str(&format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role};
                 GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {role};
                 GRANT SELECT, USAGE, UPDATE ON ALL SEQUENCES IN SCHEMA {schema} TO {role};\n"
            ));
        }
        self.psql(&sql);
    }

    /// Runs SQL as the superuser.
    #[track_caller]
    pub fn psql(&self, sql: &str) -> String {
        self.database.psql(sql).expect("run SQL")
    }

    /// The database's name.
    pub fn database(&self) -> &str {
        self.database.name()
    }

    /// Digests of all rows, as the server writes them.
    pub fn digests(&self) -> Digests {
        let select = |(table, owner): (&String, &String)| {
            format!(
                "SELECT '{table}', owner, count(*), md5(string_agg(line, E'\\n' ORDER BY line)),
                        md5(string_agg(line || by, E'\\n' ORDER BY line, by))
                   FROM (SELECT coalesce({owner}, 0) AS owner, t::text AS line, t.xmin::text AS by
                           FROM {table} t) AS rows
                  GROUP BY owner;\n"
            )
        };
        let sql: String = self.owners.iter().map(select).collect();
        let mut digests = Digests::new();
        for line in self.psql(&sql).lines() {
            let fields: Vec<&str> = line.split('|').collect();
            let [table, owner, count, rows, written] = fields.as_slice() else {
                panic!("not a digest: {line}");
            };
            let owner: u32 = owner.parse().expect("the number of an owner");
            let digest = Digest {
                count: count.parse().expect("a number of rows"),
                rows: (*rows).to_owned(),
                written: (*written).to_owned(),
            };
            digests.insert((owner, (*table).to_owned()), digest);
        }
        digests
    }

    /// Deletes all rows of some accounts.
    pub fn delete(&self, accounts: &[u32], keys: Keys) {
        let accounts = list(accounts);
        let mut sql = begin(keys);
        for (table, owner) in &self.owners {
            sql.push_str(&format!(
                "DELETE FROM {table} t WHERE {owner} IN ({accounts});\n"
            ));
        }
        sql.push_str("COMMIT;\n");
        self.psql(&sql);
    }

    /// Changes values in about a third of the rows of some accounts, and more besides.
    pub fn damage(&self, accounts: &[u32], keys: Keys) {
        let accounts = list(accounts);
        let mut sql = begin(keys);
        sql.push_str(&format!(
            "CREATE TEMPORARY TABLE hit AS SELECT unnest(ARRAY[{accounts}]) AS a;\n{DAMAGE}"
        ));
        for line in self.psql(PLAIN_COLUMNS).lines() {
            let (table, assignments) = line.split_once('|').expect("a table and its columns");
            let owner = &self.owners[table];
            sql.push_str(&format!(
                "UPDATE {table} t SET {assignments}
                  WHERE {owner} IN ({accounts}) AND hashtext(t::text) % 3 = 0;\n"
            ));
        }
        sql.push_str("COMMIT;\n");
        self.psql(&sql);
    }
}

/// Begins a transaction that may write rows in any order. Only if keys can wait are they looked at
/// in the end.
fn begin(keys: Keys) -> String {
    match keys {
        Keys::Deferrable => "BEGIN;\nSET CONSTRAINTS ALL DEFERRED;\n".to_owned(),
        Keys::Immediate => "BEGIN;\nSET session_replication_role = replica;\n".to_owned(),
    }
}

/// Numbers as SQL takes them.
fn list(accounts: &[u32]) -> String {
    let accounts: Vec<String> = accounts.iter().map(u32::to_string).collect();
    accounts.join(", ")
}

/// Makes all foreign keys what they shall be.
fn alter_keys(keys: Keys) -> String {
    let not = match keys {
        Keys::Deferrable => "",
        Keys::Immediate => "NOT ",
    };
    format!(
        "SELECT format('ALTER TABLE %s ALTER CONSTRAINT %I {not}DEFERRABLE', conrelid::regclass,
                       conname)
           FROM pg_constraint WHERE contype = 'f' AND conparentid = 0 \\gexec\n"
    )
}

/// The tables that the database has, with what tells whose their rows are.
fn owners(
    database: &TestDatabase<'_>,
    ordinary: &[ordinary::Ordinary],
) -> BTreeMap<String, String> {
    let sql = "SELECT CASE relkind WHEN 'r' THEN 'ONLY ' ELSE '' END || oid::regclass FROM pg_class
        WHERE relkind IN ('r', 'p') AND NOT relispartition AND relpersistence <> 't'
          AND relnamespace IN ('public'::regnamespace, 'billing'::regnamespace)";
    let names = database.psql(sql).expect("list the tables");
    let owner_of = |name: &str| {
        let special = OWNERS.iter().find(|(table, _)| *table == name);
        let ordinary = || ordinary.iter().find(|table| table.name == name);
        special
            .map(|(_, owner)| *owner)
            .or_else(|| ordinary().map(|table| table.owner))
            .unwrap_or("id % 100")
    };
    let pair = |rows: &str| {
        let name = rows.strip_prefix("ONLY ").unwrap_or(rows);
        (rows.to_owned(), owner_of(name).to_owned())
    };
    names.lines().map(pair).collect()
}
