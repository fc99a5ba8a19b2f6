//! How many rows to be written a store is asked about at once.

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
