//! One change of the stream, on its way to the sink.

use reinstate_core::{Change, ChangeByKey, ChangeSink, ColumnIndex, StoreError, StoreSchema};

use super::message::{RowChange, Tuples};
use super::relations::{Followed, stale};
use super::row_maker::RowMaker;

/// The change that is being handed over, and whether its transaction is left out.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub tuples: Tuples,
    before: RowMaker,
    after: RowMaker,
    unchanged: Vec<ColumnIndex>,
    pub is_known: bool,
    /// Whether the sink has changes without their commit.
    pub is_open: bool,
}

impl Transaction {
    /// Hands over the change whose tuples were read last.
    pub(super) fn hand_over(
        &mut self,
        schema: &StoreSchema,
        relation: &Followed,
        change: RowChange,
        message: &[u8],
        sink: &mut dyn ChangeSink,
    ) -> Result<(), StoreError> {
        let table = relation.table;
        let (old, new) = (&self.tuples.old, &self.tuples.new);
        let is_whole = !self.tuples.is_key && !old.is_empty();
        if change != RowChange::Insert && !is_whole && !relation.is_without_columns() {
            if relation.is_by_key() {
                return self.hand_over_by_key(relation, change, message, sink);
            }
            let name = &schema.table(table).name;
            return Err(stale(&format!(
                "an old row of table {name} is not told whole (REPLICA IDENTITY FULL)"
            )));
        }
        sink.change(match change {
            RowChange::Insert => Change::Insert {
                table,
                row: self.after.make(relation, message, new, &[])?,
            },
            RowChange::Update => Change::Update {
                table,
                before: self.before.make(relation, message, old, &[])?,
                after: self.after.make(relation, message, new, old)?,
            },
            RowChange::Delete => Change::Delete {
                table,
                before: self.before.make(relation, message, old, &[])?,
            },
        })
    }

    /// The same, where of the old row only its key was told, or nothing because the key is the new one's.
    fn hand_over_by_key(
        &mut self,
        relation: &Followed,
        change: RowChange,
        message: &[u8],
        sink: &mut dyn ChangeSink,
    ) -> Result<(), StoreError> {
        let table = relation.table;
        let (old, new) = (&self.tuples.old, &self.tuples.new);
        if change == RowChange::Delete {
            let key = self.before.make_key(relation, message, old)?;
            return sink.change_by_key(ChangeByKey::Delete { table, key });
        }
        let unchanged = &mut self.unchanged;
        let after = self
            .after
            .make_part(relation, message, (new, old), unchanged)?;
        let key = if old.is_empty() {
            after.row.key()
        } else {
            self.before.make_key(relation, message, old)?
        };
        sink.change_by_key(ChangeByKey::Update {
            table,
            key,
            after,
            unchanged,
        })
    }
}
