//! What a database must be like to be followed, and the publication that says what is.
//!
//! One publication, `reinstate`, holds exactly the tables that the tenancy map does not exclude. It
//! publishes partitions by themselves: published through their parent, a `TRUNCATE` of one of them
//! would be left out of the stream without a word.
//!
//! A table tells its old rows whole, or by the columns of the key by which the engine tells its rows apart.
//! A table in a publication without a replica identity refuses the application's own updates. So
//! every table is looked at, under the locks that making the publication takes, before it is in.

use std::collections::{BTreeMap, BTreeSet};

use reinstate_core::{ErrorKind, FollowCost, OldRows, StoreError, TableName, Tenancy};
use tokio_postgres::types::Type;

use crate::catalog::{Catalog, CatalogTable, TenantType, get};
use crate::session::Session;
use crate::sql::{literal, qualified};

/// The name of the publication.
pub(super) const PUBLICATION: &str = "reinstate";

/// How the publication publishes.
const OPTIONS: &str =
    "publish = 'insert, update, delete, truncate', publish_via_partition_root = false";

/// Checks everything that the server and its tables must have, and says all that is missing at
/// once.
///
/// # Errors
/// `Refused`.
pub(super) fn require(session: &Session, catalog: &Catalog) -> Result<(), StoreError> {
    let mut missing = missing_of_server(session)?;
    missing.extend(missing_of_tables(session, catalog)?);
    if missing.is_empty() {
        return Ok(());
    }
    let message = format!("this database cannot be followed:\n{}", missing.join("\n"));
    Err(StoreError::new(ErrorKind::Refused, message))
}

fn missing_of_server(session: &Session) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT current_setting('wal_level'), pg_is_in_recovery(),
                      (SELECT count(*) FROM pg_replication_slots)
                          < current_setting('max_replication_slots')::int8";
    let row = session.row("look at the server's settings", sql, &[])?;
    let level: String = get(&row, 0)?;
    let mut missing = Vec::new();
    if level != "logical" {
        missing.push(format!(
            "wal_level is {level}: an administrator runs ALTER SYSTEM SET wal_level = logical; and \
             restarts the server"
        ));
    }
    if get(&row, 1)? {
        missing.push("the server is a standby: name the primary in the store's url".to_owned());
    }
    if !get::<bool>(&row, 2)? {
        missing.push(
            "every replication slot is in use: an administrator raises max_replication_slots and \
             restarts the server, or ends a feed that nobody needs any more"
                .to_owned(),
        );
    }
    Ok(missing)
}

/// What is wrong with the tables that are to be followed, partitions included.
pub(super) fn missing_of_tables(
    session: &Session,
    catalog: &Catalog,
) -> Result<Vec<String>, StoreError> {
    let mut missing = Vec::new();
    let followed = || followed(catalog);
    let is_keyed = |table: &CatalogTable| table.unique_indexes.iter().any(|index| index.is_primary);
    let keyless: Vec<&str> = followed()
        .filter(|(_, table)| table.is_partitioned && !is_keyed(table))
        .map(|(name, _)| name)
        .collect();
    if !keyless.is_empty() {
        missing.push(format!(
            "partitioned tables without a primary key: {}. Updates of a partition that is added \
             later would fail: give them one, or list them as excluded",
            keyless.join(", ")
        ));
    }
    let padded: Vec<String> = catalog
        .iter()
        .filter_map(|(_, schema, table)| match &schema.tenancy {
            Tenancy::Direct { column } => {
                let column = &table.columns[column.get()];
                let is_padded = column.tenant_type == Some(TenantType::Blank);
                is_padded.then(|| format!("{}.{}", schema.name, column.name))
            }
            _ => None,
        })
        .collect();
    if !padded.is_empty() {
        missing.push(format!(
            "tenants' ids that the server pads with blanks, in the log but not where it compares \
             them: {}. Give the columns the type text or character varying",
            padded.join(", ")
        ));
    }
    let (mut partial, mut unlogged) = (Vec::new(), Vec::new());
    for relation in relations(session, catalog)? {
        if relation.old_rows.is_none() {
            partial.push(format!(
                "ALTER TABLE {} REPLICA IDENTITY FULL;",
                relation.sql_name
            ));
        }
        if !relation.is_logged {
            unlogged.push(relation.sql_name);
        }
    }
    if !unlogged.is_empty() {
        missing.push(format!(
            "unlogged tables, of which the server logs no change: {}. Make them LOGGED, or list \
             them as excluded",
            unlogged.join(", ")
        ));
    }
    if !partial.is_empty() {
        missing.push(format!(
            "tables whose old rows are logged neither whole nor by the key that tells their rows apart. \
             Their owner runs what follows; from then on every UPDATE and DELETE writes the old row to \
             the server's log as well:\n{}",
            partial.join("\n")
        ));
    }
    Ok(missing)
}

/// A followed table, or a partition of one.
struct Relation {
    /// The table.
    name: TableName,
    sql_name: String,
    /// How its old rows are logged; none: not so that it could be followed.
    old_rows: Option<OldRows>,
    is_logged: bool,
    bytes: u64,
}

fn relations(session: &Session, catalog: &Catalog) -> Result<Vec<Relation>, StoreError> {
    let mut keys: BTreeMap<u32, (&TableName, BTreeSet<&str>)> = BTreeMap::new();
    for (_, schema, table) in catalog.iter() {
        if schema.tenancy == Tenancy::Excluded {
            continue;
        }
        let key = schema
            .key
            .iter()
            .map(|column| schema.columns[column.get()].name.as_str());
        let key: BTreeSet<&str> = key.collect();
        for oid in table.partition_oids.iter().chain([&table.oid]) {
            keys.insert(*oid, (&schema.name, key.clone()));
        }
    }
    let oids: Vec<u32> = keys.keys().copied().collect();
    // A key that is checked late, or an index that is not whole, is not what the server logs rows by.
    let sql = "SELECT c.oid, n.nspname::text, c.relname::text, c.relreplident = 'f',
                      c.relpersistence = 'p', pg_table_size(c.oid),
                      ARRAY(SELECT a.attname::text FROM pg_index i
                              JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
                             WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
                               AND i.indimmediate AND i.indpred IS NULL
                               AND (c.relreplident = 'd' AND i.indisprimary
                                    OR c.relreplident = 'i' AND i.indisreplident))
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.oid = ANY($1)
                ORDER BY 2, 3";
    let rows = session.rows("look at the tables", sql, &[(&oids, Type::OID_ARRAY)])?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let Some((name, key)) = keys.get(&get(row, 0)?) else {
            continue;
        };
        let identity: Vec<String> = get(row, 6)?;
        let identity: BTreeSet<&str> = identity.iter().map(String::as_str).collect();
        let old_rows = if get(row, 3)? {
            Some(OldRows::Whole)
        } else {
            (!key.is_empty() && identity == *key).then_some(OldRows::ByKey)
        };
        found.push(Relation {
            name: (*name).clone(),
            sql_name: qualified(&get::<String>(row, 1)?, &get::<String>(row, 2)?),
            old_rows,
            is_logged: get(row, 4)?,
            bytes: get::<i64>(row, 5)?.cast_unsigned(),
        });
    }
    Ok(found)
}

/// What it takes to follow each table.
pub(super) fn costs(session: &Session, catalog: &Catalog) -> Result<Vec<FollowCost>, StoreError> {
    let mut costs: BTreeMap<TableName, FollowCost> = BTreeMap::new();
    for relation in relations(session, catalog)? {
        let cost = costs.entry(relation.name.clone()).or_insert(FollowCost {
            table: relation.name,
            old_rows: OldRows::Whole,
            bytes: 0,
        });
        if relation.old_rows != Some(OldRows::Whole) {
            cost.old_rows = OldRows::ByKey;
        }
        cost.bytes += relation.bytes;
    }
    Ok(costs.into_values().collect())
}

/// The tables of the map that are not excluded.
pub(super) fn followed(catalog: &Catalog) -> impl Iterator<Item = (&str, &CatalogTable)> {
    let tables = catalog.iter();
    let included = tables.filter(|(_, schema, _)| schema.tenancy != Tenancy::Excluded);
    included.map(|(_, schema, table)| (schema.name.as_str(), table))
}

/// Sees to it that the publication holds the followed tables and no others.
///
/// # Errors
/// `Refused` with the statements for somebody who may, if this role may not make or alter it; or
/// as [`require`], with nothing changed.
pub(super) fn ensure(session: &Session, catalog: &Catalog) -> Result<(), StoreError> {
    let tables: BTreeSet<u32> = followed(catalog).map(|(_, table)| table.oid).collect();
    let Some(statements) = needed(session, catalog, &tables)? else {
        return Ok(());
    };
    session.begin("make the publication", "BEGIN")?;
    if let Err(error) = session.run("make the publication", &statements) {
        session.roll_back();
        if error.kind() == ErrorKind::Refused {
            let message = format!(
                "this database cannot be followed: the role may not make the publication \
                 {PUBLICATION}. The owner of the tables, with CREATE on the database, runs:\n\
                 {statements}"
            );
            return Err(StoreError::new(ErrorKind::Refused, message).because(error));
        }
        return Err(error);
    }
    // Only now are the tables locked against another identity.
    let made =
        require(session, catalog).and_then(|()| session.run("make the publication", "COMMIT"));
    session.roll_back();
    made
}

/// The statements that make the publication what it must be; none if it is.
fn needed(
    session: &Session,
    catalog: &Catalog,
    tables: &BTreeSet<u32>,
) -> Result<Option<String>, StoreError> {
    let sql = "SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate
                          AND NOT p.pubviaroot AND NOT EXISTS (
                              SELECT FROM pg_publication_rel l WHERE l.prpubid = p.oid
                                 AND (l.prqual IS NOT NULL OR l.prattrs IS NOT NULL))
                          AND NOT EXISTS (
                              SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid),
                      p.puballtables,
                      ARRAY(SELECT l.prrelid FROM pg_publication_rel l WHERE l.prpubid = p.oid)
                 FROM pg_publication p WHERE p.pubname = $1";
    let rows = session.rows(
        "look for the publication",
        sql,
        &[(&PUBLICATION, Type::TEXT)],
    )?;
    let names: Vec<String> = followed(catalog)
        .map(|(_, table)| table.sql_rows())
        .collect();
    let names = names.join(",\n    ");
    let create = match tables.is_empty() {
        true => format!("CREATE PUBLICATION {PUBLICATION} WITH ({OPTIONS});"),
        false => {
            format!(
                "CREATE PUBLICATION {PUBLICATION} FOR TABLE\n    {names}\n    WITH ({OPTIONS});"
            )
        }
    };
    let Some(row) = rows.first() else {
        return Ok(Some(create));
    };
    let found: Vec<u32> = get(row, 2)?;
    let found: BTreeSet<u32> = found.into_iter().collect();
    let (is_right, is_of_all): (bool, bool) = (get(row, 0)?, get(row, 1)?);
    if is_right && !is_of_all && found == *tables {
        return Ok(None);
    }
    if is_of_all || tables.is_empty() {
        return Ok(Some(format!("DROP PUBLICATION {PUBLICATION};\n{create}")));
    }
    Ok(Some(format!(
        "ALTER PUBLICATION {PUBLICATION} SET TABLE\n    {names};\n\
         ALTER PUBLICATION {PUBLICATION} SET ({OPTIONS});"
    )))
}

/// Drops the publication, if it is the role's own and no feed is left that needs it. Where it
/// stays, a table that loses its replica identity refuses updates.
pub(super) fn drop_unneeded(session: &Session, slot_prefix: &str) -> Result<(), StoreError> {
    let sql = format!(
        "SELECT pg_has_role(p.pubowner, 'USAGE') FROM pg_publication p
          WHERE p.pubname = {} AND NOT EXISTS (
              SELECT FROM pg_replication_slots s
               WHERE s.database = current_database() AND starts_with(s.slot_name, {}))",
        literal(PUBLICATION),
        literal(slot_prefix)
    );
    let rows = session.rows("look for the publication", &sql, &[])?;
    match rows.first().map(|row| get::<bool>(row, 0)).transpose()? {
        Some(true) => session.run(
            "drop the publication",
            &format!("DROP PUBLICATION IF EXISTS {PUBLICATION}"),
        ),
        _ => Ok(()),
    }
}
