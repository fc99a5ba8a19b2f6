//! Rows that the server changes by itself because they refer to a value that is put back.
//!
//! A key with ON UPDATE CASCADE, SET NULL or SET DEFAULT changes the rows that refer to another value
//! than before, and keys on their columns change others in turn. They are in the plan and put back
//! themselves afterwards, which is a second update: the first ones are counted before they happen.
//!
//! Rows that are deleted and made anew change nobody, and no row that the same statement puts back
//! follows: it has its own value by the time the server looks.

use std::collections::BTreeMap;

use reinstate_core::{ColumnIndex, ErrorKind, StoreError, TableIndex};

use super::Apply;
use crate::catalog::{ForeignKey, get};
use crate::merge::staging::Stage;
use crate::owner::{joined, ownership};
use crate::sql::quote;

/// Rows that change, as SQL.
struct Changing {
    table: TableIndex,
    alias: String,
    /// The rows, and what they are reached over.
    from: String,
    /// For each column that changes, when it does.
    columns: BTreeMap<ColumnIndex, String>,
    /// The keys on the way here.
    way: Vec<usize>,
}

/// What a statement puts back.
#[derive(Clone, Copy)]
struct Statement<'s> {
    table: TableIndex,
    stage: &'s Stage,
}

impl Apply<'_> {
    /// Counts the rows that follow when the staged ones are put back, but for the givers, which are
    /// deleted and made anew.
    ///
    /// # Errors
    /// `Refused` if rows that are not the tenant's would follow.
    pub(super) fn count_followers(
        &mut self,
        table: TableIndex,
        stage: &Stage,
        givers: Option<&Stage>,
    ) -> Result<(), StoreError> {
        let keys = &self.staging.catalog.foreign_keys;
        let acts = |key: &ForeignKey| key.acts_on_update && key.reference.parent == table;
        if self.is_quiet(table) || !keys.iter().any(acts) {
            return Ok(());
        }
        let target = self.target(table);
        let rows = target.relation().sql_rows();
        let mut from = format!(
            "{rows} AS k0 JOIN {} AS s ON {}",
            stage.name,
            target.same_key("k0", "s")
        );
        if let Some(givers) = givers {
            let same_key = target.same_key("s", "g");
            let giver = format!("SELECT FROM {} AS g WHERE {same_key}", givers.name);
            from.push_str(&format!(" AND NOT EXISTS ({giver})"));
        }
        let columns = (0..).map(ColumnIndex).zip(&target.relation().columns);
        let columns = columns.filter(|(column, _)| !target.schema().key.contains(column));
        let differ = columns.map(|(column, catalog)| {
            let name = quote(&catalog.name);
            (column, format!("k0.{name} IS DISTINCT FROM s.{name}"))
        });
        let mut waiting = vec![Changing {
            table,
            alias: "k0".to_owned(),
            from,
            columns: differ.collect(),
            way: Vec::new(),
        }];
        while let Some(changing) = waiting.pop() {
            waiting.extend(self.follow(Statement { table, stage }, &changing)?);
        }
        Ok(())
    }

    /// Counts the rows that follow those that change, key by key. Returns them where there are any.
    fn follow(
        &mut self,
        statement: Statement<'_>,
        changing: &Changing,
    ) -> Result<Vec<Changing>, StoreError> {
        let catalog = self.staging.catalog;
        let mut found = Vec::new();
        for (place, key) in catalog.foreign_keys.iter().enumerate() {
            if !key.acts_on_update
                || key.reference.parent != changing.table
                || changing.way.contains(&place)
            {
                continue;
            }
            let referred_to = key.reference.parent_columns.iter();
            let differs = referred_to.filter_map(|column| changing.columns.get(column));
            let differs: Vec<&str> = differs.map(String::as_str).collect();
            if differs.is_empty() {
                continue;
            }
            let next = self.following(statement, changing, (place, key));
            if self.count(key, &next, &differs.join(" OR "))? > 0 {
                found.push(next);
            }
        }
        Ok(found)
    }

    /// The rows that follow by one key.
    fn following(
        &self,
        statement: Statement<'_>,
        changing: &Changing,
        (place, key): (usize, &ForeignKey),
    ) -> Changing {
        let catalog = self.staging.catalog;
        let (here, there) = (&catalog.tables[key.child.get()], &changing.alias);
        let parent = &catalog.tables[changing.table.get()];
        let alias = format!("k{}", changing.way.len() + 1);
        let mut equal = joined(here, &alias, parent, there, &key.reference, &key.operators);
        if key.child == statement.table {
            let same_key = self.target(key.child).same_key(&alias, "z");
            let staged = format!("SELECT FROM {} AS z WHERE {same_key}", statement.stage.name);
            equal.push(format!("NOT EXISTS ({staged})"));
        }
        let pairs = key.reference.columns.iter();
        let pairs = pairs.zip(&key.reference.parent_columns);
        let columns = pairs.filter_map(|(column, parent_column)| {
            // What is not handed down becomes NULL or the default.
            let differs = match key.cascades_update {
                true => changing.columns.get(parent_column)?.clone(),
                false => "true".to_owned(),
            };
            Some((*column, differs))
        });
        Changing {
            table: key.child,
            from: format!(
                "{} JOIN {} AS {alias} ON {}",
                changing.from,
                here.sql_rows(),
                equal.join(" AND ")
            ),
            columns: columns.collect(),
            way: changing.way.iter().copied().chain([place]).collect(),
            alias,
        }
    }

    /// Counts rows that follow, all of them the tenant's.
    fn count(
        &mut self,
        key: &ForeignKey,
        following: &Changing,
        differs: &str,
    ) -> Result<u64, StoreError> {
        let (catalog, session) = (self.staging.catalog, self.staging.session);
        let Changing { from, alias, .. } = following;
        let Some(owned) = ownership(catalog, key.child, alias) else {
            return Ok(0);
        };
        let operation = format!("count the rows that follow by {}", key.name);
        let own = owned.joined(self.tenant)?;
        let sql = format!(
            "SELECT (SELECT count(*) FROM {from} WHERE {differs}),
                    (SELECT count(*) FROM {from}{} WHERE ({differs}) AND {})",
            own.sources, own.condition
        );
        let row = session.row(&operation, &sql, &[])?;
        let (all, own): (i64, i64) = (get(&row, 0)?, get(&row, 1)?);
        if all != own {
            let message = format!(
                "{operation}: {} rows of {} that are not the tenant's would change with it",
                all - own,
                catalog.schema.table(key.child).name
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        let all = all.cast_unsigned();
        if all > 0 {
            *self.updates.entry(key.child).or_default() += all;
        }
        Ok(all)
    }
}
