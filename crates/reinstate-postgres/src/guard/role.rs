//! The role of least privilege: what an administrator runs to make one.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{StoreError, TableIndex, Tenancy};
use tokio_postgres::types::Type;

use crate::catalog::{Catalog, CatalogTable, get};
use crate::owner::ownership;
use crate::session::Session;
use crate::snapshot::{Access, begin};
use crate::sql::{qualified, quote};
use crate::store::PostgresStore;

impl PostgresStore {
    /// Statements that let `role`, which must exist, capture and restore and nothing else: it reads
    /// all, and row-level security keeps it from writing to any tenant but the one that a merge says
    /// it is about. Everybody else's rights stay what they are. Nothing is run.
    ///
    /// # Errors
    /// As [`SnapshotSource::begin_capture`](reinstate_core::SnapshotSource::begin_capture).
    pub fn role_script(&self, role: &str) -> Result<String, StoreError> {
        let session = Session::connect(self.settings())?;
        let catalog = begin(&session, &self.map, Access::ReadOnly)?.catalog;
        let row = session.row(
            "look for the name of the database",
            "SELECT current_database()::text,
                    ARRAY(SELECT c.oid FROM pg_class c WHERE c.relrowsecurity)",
            &[],
        )?;
        let database: String = get(&row, 0)?;
        let policed: Vec<u32> = get(&row, 1)?;
        let own_sequences = own_sequences(&session, &self.map.sequences)?;
        session.roll_back();
        let script = script(&catalog, role, &database, &policed);
        let role = quote(role).trim().to_owned();
        let silence = match self.map.silenced_triggers.is_empty() {
            true => String::new(),
            false => format!(
                "-- For silenced_triggers, by a superuser:\n\
                 GRANT SET ON PARAMETER session_replication_role TO {role};\n"
            ),
        };
        Ok(format!(
            "{script}{}COMMIT;\n{silence}",
            raises(&own_sequences, &role)
        ))
    }
}

fn script(catalog: &Catalog, role: &str, database: &str, policed: &[u32]) -> String {
    let role = quote(role).trim().to_owned();
    let mut sql = format!(
        "-- Run by the owner of the tables. The role must exist, own nothing, and be neither\n\
         -- superuser nor BYPASSRLS: CREATE ROLE {role} LOGIN;\n\
         BEGIN;\n\
         GRANT CONNECT, TEMPORARY ON DATABASE {} TO {role};\n\
         GRANT USAGE ON SCHEMA reinstate TO {role};\n\
         GRANT SELECT, INSERT ON reinstate.journal TO {role};\n",
        quote(database)
    );
    let included = || {
        catalog
            .iter()
            .filter(|(_, schema, _)| schema.tenancy != Tenancy::Excluded)
    };
    let namespaces: BTreeSet<&str> = included()
        .map(|(_, _, relation)| relation.namespace.as_str())
        .collect();
    for namespace in namespaces {
        sql.push_str(&format!(
            "GRANT USAGE ON SCHEMA {} TO {role};\n",
            quote(namespace)
        ));
    }
    let locked = locked_parents(catalog);
    for (index, _, relation) in included() {
        let name = relation.sql_name();
        let Some(owned) = ownership(catalog, index, &quote(&relation.relation)) else {
            let rights = match relation.creates_missing {
                true => "SELECT, INSERT",
                false => "SELECT",
            };
            sql.push_str(&format!("\nGRANT {rights} ON {name} TO {role};\n"));
            if relation.creates_missing {
                sql.push_str(&sequences(relation, &role));
            }
            let is_policed = policed.contains(&relation.oid);
            sql.push_str(&sees_all(&name, &role, is_policed));
            if locked.contains(&index) {
                if !is_policed {
                    sql.push_str(&everybodys(&name));
                }
                sql.push_str(&locks_only(relation, &role));
            }
            continue;
        };
        sql.push_str(&format!(
            "\nGRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {role};\n"
        ));
        sql.push_str(&sequences(relation, &role));
        if policed.contains(&relation.oid) {
            sql.push_str(&sees_all(&name, &role, true));
        } else {
            sql.push_str(&everybodys(&name));
        }
        let own = owned.is_named_by_setting();
        for (command, check) in [
            ("INSERT", format!("WITH CHECK ({own})")),
            ("UPDATE", format!("USING ({own}) WITH CHECK ({own})")),
            ("DELETE", format!("USING ({own})")),
        ] {
            sql.push_str(&format!(
                "CREATE POLICY reinstate_{} ON {name} AS RESTRICTIVE FOR {command} TO {role}\n    \
                 {check};\n",
                command.to_lowercase()
            ));
        }
    }
    sql
}

/// Tables of everybody whose rows are locked while rows that refer to them are put back and triggers keep
/// still, the server's own check of foreign keys among them.
fn locked_parents(catalog: &Catalog) -> BTreeSet<TableIndex> {
    let keys = catalog.foreign_keys.iter();
    let quiet = keys.filter(|key| catalog.tables[key.child.get()].is_put_back_quietly());
    quiet.map(|key| key.reference.parent).collect()
}

/// Row-level security that lets everybody do what they could before.
fn everybodys(name: &str) -> String {
    format!(
        "CREATE POLICY reinstate_everybody ON {name} USING (true) WITH CHECK (true);\n\
         ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;\n"
    )
}

/// What lets a role lock rows of a table, for which it needs a right to update, and update none.
fn locks_only(relation: &CatalogTable, role: &str) -> String {
    let Some(column) = relation.columns.first() else {
        return String::new();
    };
    let name = relation.sql_name();
    format!(
        "GRANT UPDATE ({}) ON {name} TO {role};\n\
         CREATE POLICY reinstate_lock ON {name} AS RESTRICTIVE FOR UPDATE TO {role}\n    \
         USING (true) WITH CHECK (false);\n",
        quote(&column.name)
    )
}

/// A sequence that a tenant has of its own.
struct OwnSequence {
    namespace: String,
    relation: String,
    /// The role that owns it, as SQL.
    owner: String,
    /// Whether others of its kind come into the same schema.
    is_of_one_schema: bool,
}

/// The sequences that there are whose names follow one of these patterns.
fn own_sequences(
    session: &Session,
    patterns: &BTreeMap<String, String>,
) -> Result<Vec<OwnSequence>, StoreError> {
    let sql = "SELECT n.nspname::text, c.relname::text, quote_ident(pg_get_userbyid(c.relowner))
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind = 'S' AND n.nspname LIKE $1 AND c.relname LIKE $2 ORDER BY 1, 2";
    let like = |name: &str| {
        let literal = name.replace('\\', "\\\\").replace('%', "\\%");
        literal.replace('_', "\\_").replace("{tenant}", "%")
    };
    let mut found = Vec::new();
    for pattern in patterns.keys() {
        let (namespace, relation) = pattern.split_once('.').unwrap_or(("public", pattern));
        let values = [like(namespace), like(relation)];
        let values = [(&values[0] as _, Type::TEXT), (&values[1] as _, Type::TEXT)];
        for row in session.rows("look for the tenants' own sequences", sql, &values)? {
            found.push(OwnSequence {
                namespace: get(&row, 0)?,
                relation: get(&row, 1)?,
                owner: get(&row, 2)?,
                is_of_one_schema: !namespace.contains("{tenant}"),
            });
        }
    }
    Ok(found)
}

/// What lets a role raise the tenants' own sequences, those to come included.
fn raises(sequences: &[OwnSequence], role: &str) -> String {
    const RIGHTS: &str = "USAGE, SELECT, UPDATE";
    let mut statements = BTreeSet::new();
    let mut to_come = BTreeSet::new();
    for sequence in sequences {
        let (schema, name) = (quote(&sequence.namespace), &sequence.relation);
        statements.insert(format!("GRANT USAGE ON SCHEMA {schema} TO {role};\n"));
        let name = qualified(&sequence.namespace, name);
        statements.insert(format!("GRANT {RIGHTS} ON SEQUENCE {name} TO {role};\n"));
        if sequence.is_of_one_schema {
            to_come.insert(format!(
                "ALTER DEFAULT PRIVILEGES FOR ROLE {} IN SCHEMA {schema}\n    GRANT {RIGHTS} ON \
                 SEQUENCES TO {role};\n",
                sequence.owner
            ));
        }
    }
    if statements.is_empty() {
        return String::new();
    }
    let head = "\n-- The tenants' own sequences, and those of tenants to come.\n";
    [head.to_owned()]
        .into_iter()
        .chain(statements)
        .chain(to_come)
        .collect()
}

/// What lets a role raise the sequences of a table.
fn sequences(relation: &CatalogTable, role: &str) -> String {
    let sequences = relation.sequences.iter();
    sequences
        .map(|sequence| {
            let sequence = qualified(&sequence.namespace, &sequence.relation);
            format!("GRANT USAGE, SELECT, UPDATE ON SEQUENCE {sequence} TO {role};\n")
        })
        .collect()
}

/// A policy that shows a role every row of a table that is under row-level security.
fn sees_all(name: &str, role: &str, is_policed: bool) -> String {
    if !is_policed {
        return String::new();
    }
    format!("CREATE POLICY reinstate_all ON {name} TO {role} USING (true) WITH CHECK (true);\n")
}
