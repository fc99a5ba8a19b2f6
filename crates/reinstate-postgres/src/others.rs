//! Relations that are no ordinary tables: by which rule each kind of them is treated.
//!
//! | kind | what becomes of it |
//! | --- | --- |
//! | partition | part of its table, reached through it; on another server it refuses changes |
//! | view | no data |
//! | materialised view | refreshed by its owner, if tables change that it is computed from |
//! | foreign table | neither captured nor restored: its rows are another server's |
//! | unlogged table | as any other, and empty after a crash of the server |
//! | temporary table | a session's own, never looked at |
//!
//! What belongs to an extension or to the server is left out.

use reinstate_core::{ErrorKind, OtherRelations, StoreError, Tenancy};

use crate::catalog::{Catalog, OWN_NAMESPACE, display_name, get};
use crate::session::Session;
use crate::sql::literal;

/// How many relations of one kind are named.
const NAMED_MAX: usize = 8;

/// What a relation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    View,
    MaterialisedView,
    ForeignTable,
    ForeignPartition,
    Unlogged,
}

/// A relation that is no ordinary table.
#[derive(Debug)]
pub(crate) struct OtherRelation {
    kind: Kind,
    name: String,
    oid: u32,
    /// The relations that it is computed from, directly or by way of views.
    sources: Vec<u32>,
}

/// Reads which there are, in the order of their names.
pub(crate) fn read_others(session: &Session) -> Result<Vec<OtherRelation>, StoreError> {
    let sql = format!(
        "WITH RECURSIVE step(relation, source) AS (
             SELECT r.ev_class, d.refobjid
               FROM pg_rewrite r
               JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
              WHERE r.rulename = '_RETURN' AND d.refclassid = 'pg_class'::regclass
                AND d.refobjid <> r.ev_class),
         use(relation, source) AS (
             SELECT s.relation, s.source FROM step s
              UNION
             SELECT u.relation, s.source FROM use u JOIN step s ON s.relation = u.source)
         SELECT c.relkind::text, c.relispartition, n.nspname::text, c.relname::text, c.oid,
                ARRAY(SELECT u.source FROM use u WHERE u.relation = c.oid)
           FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE (c.relkind IN ('v', 'm', 'f')
                 OR c.relkind IN ('r', 'p') AND c.relpersistence = 'u')
            AND c.relpersistence <> 't'
            AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', {})
            AND NOT EXISTS (SELECT FROM pg_depend e
                             WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid
                               AND e.deptype = 'e')
          ORDER BY 3, 4",
        literal(OWN_NAMESPACE)
    );
    let operation = "look for relations that are no tables";
    let mut found = Vec::new();
    for row in session.rows(operation, &sql, &[])? {
        let relkind: String = get(&row, 0)?;
        let kind = match (relkind.as_str(), get(&row, 1)?) {
            ("v", _) => Kind::View,
            ("m", _) => Kind::MaterialisedView,
            ("f", false) => Kind::ForeignTable,
            ("f", true) => Kind::ForeignPartition,
            _ => Kind::Unlogged,
        };
        let (namespace, relation): (String, String) = (get(&row, 2)?, get(&row, 3)?);
        found.push(OtherRelation {
            kind,
            name: display_name(&namespace, &relation),
            oid: get(&row, 4)?,
            sources: get(&row, 5)?,
        });
    }
    Ok(found)
}

/// What there is to say of them when the relations change for which `is_changed` holds. Unlogged
/// tables are named if the map has them, or there is none yet.
pub(crate) fn describe(
    others: &[OtherRelation],
    catalog: Option<&Catalog>,
    is_changed: impl Fn(u32) -> bool,
) -> Vec<OtherRelations> {
    let is_included = |oid: u32| {
        catalog.is_none_or(|catalog| {
            let table = catalog.by_oid(oid);
            table.is_some_and(|table| catalog.schema.table(table).tenancy != Tenancy::Excluded)
        })
    };
    let is_stale = |other: &OtherRelation| other.sources.iter().any(|&source| is_changed(source));
    type Test<'t> = &'t dyn Fn(&OtherRelation) -> bool;
    let rules: [(&str, &str, bool, Test<'_>); 6] = [
        (
            "foreign partitions",
            "lie on another server, where a merge could take nothing back: rows of their tables \
             are not written. Detach them for the time of a restore",
            true,
            &|other| other.kind == Kind::ForeignPartition && is_changed(other.oid),
        ),
        (
            "materialised views",
            "are computed from tables that a restore changes: REFRESH MATERIALIZED VIEW afterwards",
            false,
            &|other| other.kind == Kind::MaterialisedView && is_stale(other),
        ),
        (
            "other materialised views",
            "are computed from nothing that a restore changes, as far as the catalogue tells",
            false,
            &|other| other.kind == Kind::MaterialisedView && !is_stale(other),
        ),
        (
            "foreign tables",
            "hold rows of another server: they are neither captured nor restored",
            false,
            &|other| other.kind == Kind::ForeignTable,
        ),
        (
            "unlogged tables",
            "are captured and restored like others, and are empty after a crash of the server",
            false,
            &|other| other.kind == Kind::Unlogged && is_included(other.oid),
        ),
        ("views", "hold no rows of their own", false, &|other| {
            other.kind == Kind::View
        }),
    ];
    let said = rules.iter().map(|(what, treatment, is_obstacle, test)| {
        let names = others.iter().filter(|other| test(other));
        let names: Vec<&str> = names.map(|other| other.name.as_str()).collect();
        OtherRelations {
            relations: format!("{what} {}", listed(&names)),
            count: names.len(),
            treatment: (*treatment).to_owned(),
            is_obstacle: *is_obstacle,
        }
    });
    said.filter(|said| said.count > 0).collect()
}

/// Refuses to change tables of which a part is on another server.
pub(crate) fn check_others(
    session: &Session,
    is_changed: impl Fn(u32) -> bool,
) -> Result<(), StoreError> {
    let others = read_others(session)?;
    let said = describe(&others, None, is_changed);
    match said.iter().find(|said| said.is_obstacle) {
        None => Ok(()),
        Some(said) => {
            let message = format!("write rows: {} {}", said.relations, said.treatment);
            Err(StoreError::new(ErrorKind::Refused, message))
        }
    }
}

fn listed(names: &[&str]) -> String {
    let named = names[..names.len().min(NAMED_MAX)].join(", ");
    match names.len().checked_sub(NAMED_MAX) {
        None | Some(0) => named,
        Some(more) => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_names_are_listed_as_a_line_holds() {
        let names = ["n"; NAMED_MAX + 2];
        assert_eq!(listed(&names[..2]), "n, n");
        assert!(!listed(&names[..NAMED_MAX]).contains("more"));
        assert!(listed(&names).ends_with("n and 2 more"));
    }
}
