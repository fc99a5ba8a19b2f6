//! How many rows to be written a store is asked about at once, and which of them are left then.

use std::collections::HashSet;

use reinstate_core::{LiveView, QuestionCost, RowBatch};

use crate::Context;

/// The part of the memory that rows may take which the store is to be asked about.
const MEMORY_PART: usize = 32;

/// How many bytes of rows to gather before the store is asked about them.
pub(super) fn question_bytes(context: Context<'_>, view: &dyn LiveView) -> usize {
    match view.question_cost() {
        QuestionCost::EachRow => RowBatch::TARGET_BYTES,
        QuestionCost::EachQuestion => {
            let bytes = context.resources.memory_bytes_max() / MEMORY_PART;
            bytes.max(RowBatch::TARGET_BYTES)
        }
    }
}

/// The rows but for those with these keys.
pub(super) fn without(rows: &RowBatch, keys: &HashSet<Vec<u8>>) -> RowBatch {
    let mut rest = RowBatch::new();
    let others = rows.iter().filter(|row| !keys.contains(row.key()));
    others.for_each(|row| rest.push_row(row));
    rest
}
