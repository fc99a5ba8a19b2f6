//! Unique values that move from one row to another: which rows give one up, and the statement that
//! lets them.

use reinstate_core::{StoreError, TableIndex};

use super::staging::Stage;
use super::statements::Target;
use crate::catalog::{Catalog, UniqueIndex};
use crate::sql::quote;

/// The keys of rows to be put back that have to be made anew, as a query: those that hold what another
/// of them gets, and those of which a column is another that only the server may update. None if there
/// can be no such row.
pub(super) fn givers(target: Target<'_>, stage: &Stage) -> Option<String> {
    let indexes = target.relation().unique_indexes.iter();
    let indexes = indexes
        .filter(|index| index.is_immediate && can_move(target.catalog, target.table, index))
        .filter(|_| stage.row_count > 1);
    let parts = indexes.map(|index| part(target, stage, index));
    let parts: Vec<String> = parts.chain(target.keys_unlike(stage)).collect();
    (!parts.is_empty()).then(|| parts.join(" UNION "))
}

/// Whether the values of an index can change while the key stays.
pub(crate) fn can_move(catalog: &Catalog, table: TableIndex, index: &UniqueIndex) -> bool {
    let key = &catalog.schema.table(table).key;
    let is_of_key = |columns: &Vec<_>| columns.iter().all(|column| key.contains(column));
    !index.is_primary && !index.columns.as_ref().is_some_and(is_of_key)
}

/// Why unique values cannot move among rows of the table, if they cannot.
pub(crate) fn obstacle(catalog: &Catalog, table: TableIndex) -> Option<String> {
    let remedy = "make the constraint DEFERRABLE, or restore while it is dropped";
    making_anew(catalog, table, remedy)
}

/// Why rows of the table cannot be deleted and made anew in one go, if they cannot, and what helps.
pub(crate) fn making_anew(catalog: &Catalog, table: TableIndex, remedy: &str) -> Option<String> {
    let (schema, relation) = catalog.table(table);
    if relation.is_put_back_quietly() {
        return None;
    }
    let mut triggers = relation.triggers.iter();
    if let Some(trigger) =
        triggers.find(|trigger| (trigger.on_insert || trigger.on_delete) && !trigger.is_allowed)
    {
        return Some(format!(
            "rows would have to be deleted and made anew, and trigger {0}.{1} would fire: \
             {remedy}, or add \"{0}.{1}\" to allowed_triggers",
            schema.name, trigger.name
        ));
    }
    let mut keys = catalog.foreign_keys.iter();
    let key = keys.find(|key| {
        key.reference.parent == table && (key.acts_on_delete || key.restricts_delete)
    })?;
    Some(format!(
        "rows would have to be deleted and made anew, and foreign key {} of {} would act on that: \
         {remedy}",
        key.name,
        catalog.schema.table(key.child).name
    ))
}

fn part(target: Target<'_>, stage: &Stage, index: &UniqueIndex) -> String {
    let relation = target.relation();
    let key = target.schema().key.iter();
    let key: Vec<String> = key
        .map(|column| format!("a.{}", quote(&relation.columns[column.get()].name)))
        .collect();
    format!(
        "SELECT {} FROM {stage} AS s
           JOIN {} a ON {}
           JOIN {} b ON {} AND NOT ({})",
        key.join(", "),
        index.sql_rows("t", &relation.sql_rows()),
        target.same_key("a", "s"),
        index.sql_rows("w", &index.sql_complete(&relation.generated, &stage.name)),
        index.sql_equal("b", "a"),
        target.same_key("a", "b"),
        stage = stage.name,
    )
}

/// Rows of one table that are written by one statement.
pub(super) struct Moving<'a> {
    /// Rows that are put back.
    pub stage: &'a Stage,
    /// The keys of those that are deleted and made anew.
    pub givers: Option<&'a Stage>,
    /// The keys of rows that are deleted.
    pub doomed: Option<&'a Stage>,
    /// Rows that are created.
    pub made: Option<&'a Stage>,
}

impl Moving<'_> {
    /// The statement: rows go, others are updated, givers come back, and rows are created, one after
    /// the other. Returns how many givers went, rows were updated, givers came back, rows were made,
    /// and doomed rows went.
    ///
    /// # Errors
    /// As [`Target::update`].
    pub(super) fn statement(&self, target: Target<'_>) -> Result<String, StoreError> {
        let mut parts: Vec<(&str, String)> = Vec::new();
        // A part that asks for the count of another begins when that one is through.
        let after = |parts: &[(&str, String)]| -> String {
            let through = parts.iter();
            through
                .map(|(part, _)| format!(" AND (SELECT count(*) FROM {part}) >= 0"))
                .collect()
        };
        if let Some(doomed) = self.doomed {
            parts.push(("doomed", target.delete(doomed, &[])?));
        }
        if let Some(givers) = self.givers {
            parts.push(("gone", target.delete(givers, &[])?));
        }
        let is_giver = self.givers.map(|givers| {
            let same_key = target.same_key("s", "g");
            format!("EXISTS (SELECT FROM {} AS g WHERE {same_key})", givers.name)
        });
        let unless = is_giver
            .iter()
            .map(|is_giver| format!(" AND NOT {is_giver}"));
        let unless: String = unless.collect();
        let update = format!("{}{unless}{}", target.update(self.stage)?, after(&parts));
        parts.push(("updated", update));
        if let Some(is_giver) = &is_giver {
            let insert = target.insert(self.stage, None)?;
            let again = format!("{insert} AND {is_giver}{}", after(&parts));
            parts.push(("again", again));
        }
        if let Some(made) = self.made {
            let create = format!("{}{}", target.insert(made, None)?, after(&parts));
            parts.push(("made", create));
        }
        let counts = ["gone", "updated", "again", "made", "doomed"].map(|name| {
            if parts.iter().any(|(part, _)| *part == name) {
                format!("(SELECT count(*) FROM {name})")
            } else {
                "0::int8".to_owned()
            }
        });
        let parts = parts.iter();
        let parts: Vec<String> = parts
            .map(|(name, sql)| format!("{name} AS ({sql} RETURNING 1)"))
            .collect();
        Ok(format!(
            "WITH {} SELECT {}",
            parts.join(", "),
            counts.join(", ")
        ))
    }
}
