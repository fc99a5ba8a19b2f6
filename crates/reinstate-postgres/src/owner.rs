//! SQL that finds the owner of a row.
//!
//! A table has the tenant in a column of its own or reaches it over foreign keys, parent by
//! parent. [`Ownership`] is that way as SQL, from a row that is called by an alias. Where a table
//! has several ways, each row is open to one of them at most, so that no row is found twice.

use reinstate_core::{ErrorKind, Reference, Route, StoreError, TableIndex, Tenancy, TenantId};

use crate::catalog::{Catalog, CatalogTable, TenantType};
use crate::sql::{literal, quote};

/// The tenant that the session's merge is about, as SQL; NULL or the empty text outside of one.
pub(crate) const TENANT_SETTING: &str = "pg_catalog.current_setting('reinstate.tenant', true)";

/// What compares values whose equality is the server's own.
pub(crate) const EQUAL: &str = "OPERATOR(pg_catalog.=)";

/// How the owner of a row is found.
#[derive(Clone, Debug)]
pub(crate) struct Ownership {
    /// At least one. Where it is the only one, it is open to every row.
    ways: Vec<Way>,
}

/// One way from a row to its tenant.
#[derive(Clone, Debug, Default)]
struct Way {
    /// Parents on the way, nearest first.
    hops: Vec<Hop>,
    /// The tenant column at the end, as SQL.
    column: String,
    tenant_type: Option<TenantType>,
    /// What the column is called, for messages.
    display_name: String,
}

/// A parent: what to read, under which alias, and what joins it to the one before.
#[derive(Clone, Debug)]
struct Hop {
    source: String,
    alias: String,
    condition: String,
}

/// A part of a statement: what to read beside the row, and what says which rows are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selection {
    /// Joins, or further items of a FROM or USING list, each after a comma.
    pub sources: String,
    pub condition: String,
}

/// The ways to the owner of rows of `table` that go by `alias`; none for a table that no tenant
/// owns. Other aliases start with the same one.
pub(crate) fn ownership(catalog: &Catalog, table: TableIndex, alias: &str) -> Option<Ownership> {
    let mut ways = Vec::new();
    let mut alias_count = 0;
    // A quoted name cannot be extended.
    let prefix = if alias.starts_with('"') {
        "reinstate_way"
    } else {
        alias
    };
    let mut waiting = vec![(table, alias.to_owned(), Way::default())];
    while let Some((table, here, mut way)) = waiting.pop() {
        let (schema, relation) = catalog.table(table);
        let mut extend = |reference: &Reference, operators: &[String], open: Vec<String>| {
            alias_count += 1;
            let there = format!("{prefix}_{alias_count}");
            let parent = &catalog.tables[reference.parent.get()];
            let mut way = way.clone();
            let equal = joined(relation, &here, parent, &there, reference, operators);
            way.hops.push(Hop {
                source: format!("{} AS {there}", parent.sql_rows()),
                alias: there.clone(),
                condition: equal
                    .into_iter()
                    .chain(open)
                    .collect::<Vec<_>>()
                    .join(" AND "),
            });
            (reference.parent, there, way)
        };
        match &schema.tenancy {
            Tenancy::Direct { column } => {
                let column = &relation.columns[column.get()];
                way.column = format!("{here}.{}", quote(&column.name));
                way.tenant_type = Some(column.tenant_type.clone()?);
                way.display_name = format!("{}.{}", schema.name, column.name);
                ways.push(way);
            }
            Tenancy::Via { reference } => {
                let operators = relation
                    .way_operators
                    .first()
                    .map_or(&[][..], Vec::as_slice);
                let next = extend(reference, operators, Vec::new());
                waiting.push(next);
            }
            Tenancy::OneOf { routes } => {
                for (place, route) in routes.iter().enumerate() {
                    let operators = relation.way_operators.get(place);
                    let operators = operators.map_or(&[][..], Vec::as_slice);
                    let open = opening(relation, &here, routes, place);
                    let next = extend(&route.reference, operators, open);
                    waiting.push(next);
                }
            }
            Tenancy::Native | Tenancy::Shared | Tenancy::Excluded => return None,
        }
    }
    (!ways.is_empty()).then_some(Ownership { ways })
}

/// The columns of a table that say which parent a row belongs to, as SQL, if rows that have the same of these
/// are one tenant's: none where a row is told otherwise, or where values that are written otherwise may be equal,
/// so that two rows that count as the same could belong to two parents.
pub(crate) fn columns_of_parent(catalog: &Catalog, table: TableIndex) -> Option<String> {
    let (schema, relation) = catalog.table(table);
    let Tenancy::Via { reference } = &schema.tenancy else {
        return None;
    };
    let columns = reference.columns.iter().map(|column| {
        relation.exact_kind(schema, *column)?;
        Some(quote(&relation.columns[column.get()].name))
    });
    let columns = columns.collect::<Option<Vec<_>>>()?;
    Some(columns.join(", "))
}

/// That two rows are joined by a reference, column by column.
pub(crate) fn joined(
    child: &CatalogTable,
    here: &str,
    parent: &CatalogTable,
    there: &str,
    reference: &Reference,
    operators: &[String],
) -> Vec<String> {
    let pairs = reference.columns.iter().zip(&reference.parent_columns);
    pairs
        .zip(operators)
        .map(|((column, parent_column), operator)| {
            let column = quote(&child.columns[column.get()].name);
            let parent_column = quote(&parent.columns[parent_column.get()].name);
            format!("{there}.{parent_column} {operator} {here}.{column}")
        })
        .collect()
}

/// That a row may go a way and none of those before. That its columns are not NULL goes without
/// saying: they equal the parent's.
pub(crate) fn opening(
    child: &CatalogTable,
    here: &str,
    routes: &[Route],
    place: usize,
) -> Vec<String> {
    let holds = |route: &Route| {
        route.condition.as_ref().map(|condition| {
            let column = quote(&child.columns[condition.column.get()].name);
            let value = literal(&condition.value);
            format!("({here}.{column}::text COLLATE \"C\" = {value}) IS TRUE")
        })
    };
    let own = &routes[place];
    let excludes = |other: &&Route| match (&own.condition, &other.condition) {
        // Not open to the same row anyway.
        (Some(own), Some(other)) => own.column != other.column || own.value == other.value,
        _ => true,
    };
    let earlier = routes[..place].iter().filter(excludes).map(|route| {
        let columns = route.reference.columns.iter();
        let filled = columns.map(|column| {
            let column = quote(&child.columns[column.get()].name);
            format!("{here}.{column} IS NOT NULL")
        });
        let open: Vec<String> = holds(route).into_iter().chain(filled).collect();
        format!("NOT ({})", open.join(" AND "))
    });
    holds(own).into_iter().chain(earlier).collect()
}

impl Way {
    /// The parents as joins of the kind `JOIN` or `LEFT JOIN`.
    fn joins(&self, kind: &str) -> Vec<String> {
        let hops = self.hops.iter();
        hops.map(|hop| format!(" {kind} {} ON {}", hop.source, hop.condition))
            .collect()
    }

    /// That the end of the way is the tenant; none if it never can be.
    ///
    /// The tenant is named twice, once so that the server does not see whom before it has decided how
    /// to find the rows. It then reckons with what it knows of this tenant and with an average one
    /// besides. Its statistics may be of the time when the rows were gone, by which there are none: it
    /// would read a whole table again for each of them.
    fn is_owner(&self, tenant: &TenantId) -> Option<String> {
        let value = self.tenant_type.as_ref()?.sql_value(tenant)?;
        Some(format!(
            "{} = ANY (ARRAY[{value}, (SELECT {value})])",
            self.column
        ))
    }

    /// The same, where the server takes no subquery: it has nothing to decide there.
    fn is_owner_plainly(&self, tenant: &TenantId) -> Option<String> {
        let value = self.tenant_type.as_ref()?.sql_value(tenant)?;
        Some(format!("{} = {value}", self.column))
    }

    fn conditions(&self, is_owner: String) -> String {
        let hops = self.hops.iter().map(|hop| hop.condition.clone());
        hops.chain([is_owner]).collect::<Vec<_>>().join(" AND ")
    }

    fn sources(&self) -> Vec<&str> {
        self.hops.iter().map(|hop| hop.source.as_str()).collect()
    }
}

/// That parents lead to a tenant, as SQL.
fn exists(hops: &[Hop], is_owner: &str) -> String {
    let sources: Vec<&str> = hops.iter().map(|hop| hop.source.as_str()).collect();
    let conditions = hops.iter().map(|hop| hop.condition.as_str());
    let conditions: Vec<&str> = conditions.chain([is_owner]).collect();
    format!(
        "EXISTS (SELECT FROM {} WHERE {})",
        sources.join(", "),
        conditions.join(" AND ")
    )
}

impl Selection {
    /// All rows.
    pub(crate) fn everything() -> Self {
        Self {
            sources: String::new(),
            condition: "true".to_owned(),
        }
    }
}

impl Ownership {
    /// That the row is the tenant's, if its own columns say so.
    ///
    /// # Errors
    /// As [`joined`](Self::joined).
    pub(crate) fn by_row_alone(&self, tenant: &TenantId) -> Result<Option<String>, StoreError> {
        self.is_owner(tenant)?;
        Ok(match self.ways.as_slice() {
            [way] if way.hops.is_empty() => way.is_owner_plainly(tenant),
            _ => None,
        })
    }

    /// The tenant's rows, by joins.
    ///
    /// # Errors
    /// `NotFound` if the tenant's id is not a value of the tenant's column.
    pub(crate) fn joined(&self, tenant: &TenantId) -> Result<Selection, StoreError> {
        let condition = self.is_owner(tenant)?;
        Ok(Selection {
            sources: match self.ways.as_slice() {
                [way] => way.joins("JOIN").concat(),
                _ => String::new(),
            },
            condition,
        })
    }

    /// The tenant's rows, by joins, for a statement of a merge: see [`near`](Self::near).
    ///
    /// # Errors
    /// As [`joined`](Self::joined).
    pub(crate) fn joined_while_writing(&self, tenant: &TenantId) -> Result<Selection, StoreError> {
        let selection = self.joined(tenant)?;
        let Some((first, rest)) = self.near() else {
            return Ok(selection);
        };
        let is_owner = self.ways[0].is_owner(tenant).unwrap_or_default();
        Ok(Selection {
            sources: format!(" JOIN {} ON {}", first.source, first.condition),
            condition: format!(
                "({}.xmin = (SELECT pg_current_xact_id()::xid) OR {})",
                first.alias,
                exists(rest, &is_owner)
            ),
        })
    }

    /// That the row is not that of the tenant in the variable `tenant`, with what it takes before a WHERE.
    /// In the transaction of a merge, whose number is in the variable `own`; see [`near`](Self::near).
    pub(crate) fn is_foreign_while_writing(&self) -> (String, String) {
        let Some((first, rest)) = self.near() else {
            let (joins, owner) = self.captured();
            return (
                joins,
                format!("({owner}) COLLATE \"C\" IS DISTINCT FROM tenant"),
            );
        };
        let is_owner = format!("{}::text COLLATE \"C\" = tenant", self.ways[0].column);
        (
            format!(" LEFT JOIN {} ON {}", first.source, first.condition),
            format!(
                "CASE WHEN {}.xmin = own THEN false ELSE NOT {} END",
                first.alias,
                exists(rest, &is_owner)
            ),
        )
    }

    /// The parent of a row and those above it, where there are some. Of a parent that the transaction of the
    /// merge itself wrote it is known whose it is, and nobody has to look further: every statement writes rows
    /// of the tenant alone, those above it included, and the guards see to that for all that triggers and
    /// cascades do besides.
    ///
    /// A row of a transaction 2^32 earlier has the same number; it can be taken for one of this merge.
    fn near(&self) -> Option<(&Hop, &[Hop])> {
        let [way] = self.ways.as_slice() else {
            return None;
        };
        let (first, rest) = way.hops.split_first()?;
        (!rest.is_empty()).then_some((first, rest))
    }

    /// The tenant's rows, by further items of a FROM or USING list.
    ///
    /// # Errors
    /// As [`joined`](Self::joined).
    pub(crate) fn listed(&self, tenant: &TenantId) -> Result<Selection, StoreError> {
        let is_owner = self.is_owner(tenant)?;
        Ok(match self.ways.as_slice() {
            [way] => Selection {
                sources: way
                    .sources()
                    .iter()
                    .map(|source| format!(", {source}"))
                    .collect(),
                condition: way.conditions(is_owner),
            },
            _ => Selection {
                sources: String::new(),
                condition: is_owner,
            },
        })
    }

    /// Everybody else's rows, and nobody's, by joins.
    ///
    /// # Errors
    /// As [`joined`](Self::joined).
    pub(crate) fn of_others(&self, tenant: &TenantId) -> Result<Selection, StoreError> {
        let is_owner = self.is_owner(tenant)?;
        Ok(Selection {
            sources: match self.ways.as_slice() {
                [way] => way.joins("LEFT JOIN").concat(),
                _ => String::new(),
            },
            condition: format!("({is_owner}) IS NOT TRUE"),
        })
    }

    /// Every row with its owner, as SQL: the empty text if it reaches a row that is everybody's,
    /// NULL if it finds no parent.
    pub(crate) fn captured(&self) -> (String, String) {
        let mut joins = Vec::new();
        for join in self.ways.iter().flat_map(|way| way.joins("LEFT JOIN")) {
            // Ways that part later have their first steps in common.
            if !joins.contains(&join) {
                joins.push(join);
            }
        }
        let cases = self.ways.iter().map(|way| {
            let Way { column, hops, .. } = way;
            match hops.last() {
                Some(Hop { alias, .. }) => {
                    format!("WHEN {alias}.tableoid IS NOT NULL THEN coalesce({column}::text, '')")
                }
                None => format!("WHEN true THEN coalesce({column}::text, '')"),
            }
        });
        // A row that has a parent is everybody's if that one is. Whether the parent may reach
        // nobody is the business of the parent's own rule.
        let mut parents: Vec<String> = Vec::new();
        for way in self.ways.iter().filter(|way| way.hops.len() > 1) {
            let case = format!("WHEN {}.tableoid IS NOT NULL THEN ''", way.hops[0].alias);
            if !parents.contains(&case) {
                parents.push(case);
            }
        }
        let cases: Vec<String> = cases.chain(parents).collect();
        let owner = format!("CASE {} END", cases.join(" "));
        (joins.concat(), owner)
    }

    /// That the row is the tenant's that the session's setting names, as SQL that stands by itself.
    pub(crate) fn is_named_by_setting(&self) -> String {
        let ways = self.ways.iter().map(|way| {
            let column = &way.column;
            let is_owner = format!("{column}::text COLLATE \"C\" = {TENANT_SETTING}");
            if way.hops.is_empty() {
                return is_owner;
            }
            let (sources, condition) = (way.sources().join(", "), way.conditions(is_owner));
            format!("EXISTS (SELECT FROM {sources} WHERE {condition})")
        });
        ways.collect::<Vec<_>>().join(" OR ")
    }

    /// That the row finds no parent by any of its ways, as SQL; nothing if its own column says whose
    /// it is.
    pub(crate) fn finds_nobody(&self) -> Option<String> {
        let mut steps = Vec::new();
        for way in &self.ways {
            let hop = way.hops.first()?;
            let Hop {
                source, condition, ..
            } = hop;
            let step = format!("NOT EXISTS (SELECT FROM {source} WHERE {condition})");
            // Ways that part later have their first step in common.
            if !steps.contains(&step) {
                steps.push(step);
            }
        }
        Some(steps.join(" AND "))
    }

    /// That the row is the tenant's. With one way, its joins must be there.
    fn is_owner(&self, tenant: &TenantId) -> Result<String, StoreError> {
        let found = self.ways.iter().map(|way| (way, way.is_owner(tenant)));
        let found: Vec<(&Way, String)> = found
            .filter_map(|(way, is_owner)| Some((way, is_owner?)))
            .collect();
        match found.as_slice() {
            [] => {
                let names = self.ways.iter().map(|way| way.display_name.as_str());
                let message = format!(
                    "there is no tenant {tenant}: column {} cannot hold that id",
                    names.collect::<Vec<_>>().join(" or ")
                );
                Err(StoreError::new(ErrorKind::NotFound, message))
            }
            [(_, is_owner)] if self.ways.len() == 1 => Ok(is_owner.clone()),
            found => {
                let exists = found.iter().map(|(way, is_owner)| {
                    format!(
                        "EXISTS (SELECT FROM {} WHERE {})",
                        way.sources().join(", "),
                        way.conditions(is_owner.clone())
                    )
                });
                Ok(format!("({})", exists.collect::<Vec<_>>().join(" OR ")))
            }
        }
    }
}
