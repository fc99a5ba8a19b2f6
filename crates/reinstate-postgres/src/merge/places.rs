//! Rows that an update moves from one partition to another.
//!
//! The server counts such a move as a delete and an insert. To compare its counts with the plan,
//! the moves have to be known exactly.

use reinstate_core::StoreError;

use super::staging::Stage;
use super::statements::Target;
use crate::catalog::get;
use crate::session::Session;

/// In which partitions the staged rows are before the update.
#[derive(Debug)]
pub(super) struct Places {
    name: String,
}

impl Places {
    /// Notes them; none if the table has no partitions.
    pub(super) fn note(
        session: &Session,
        target: Target<'_>,
        stage: &Stage,
    ) -> Result<Option<Self>, StoreError> {
        if !target.relation().is_partitioned {
            return Ok(None);
        }
        let name = format!("{}_places", stage.name);
        let sql = format!(
            "CREATE TEMPORARY TABLE {name} ON COMMIT DROP AS
             SELECT t.tableoid AS \"reinstate place\", {} FROM {} AS t JOIN {} AS s ON {}",
            target.key_columns("t"),
            target.relation().sql_rows(),
            stage.name,
            target.same_key("t", "s")
        );
        session.run("note the partitions of rows", &sql)?;
        Ok(Some(Self { name }))
    }

    /// How many of the rows are in another partition now.
    pub(super) fn count_moved(
        &self,
        session: &Session,
        target: Target<'_>,
    ) -> Result<u64, StoreError> {
        let sql = format!(
            "SELECT count(*) FROM {} AS t JOIN {} AS p ON {}
              WHERE t.tableoid <> p.\"reinstate place\"",
            target.relation().sql_rows(),
            self.name,
            target.same_key("t", "p")
        );
        let row = session.row("count the rows that changed partitions", &sql, &[])?;
        Ok(get::<i64>(&row, 0)?.cast_unsigned())
    }
}
