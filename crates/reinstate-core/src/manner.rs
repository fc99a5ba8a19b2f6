//! In which manner a view answers.

/// The order in which a view hands out a tenant's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RowOrder {
    /// As [`compare_rows`](crate::compare_rows) has it.
    Sorted,
    /// Any; the engine sorts.
    Any,
}

/// What a question about rows to be written takes a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuestionCost {
    /// About as much for each row, however many are asked about at once.
    EachRow,
    /// About as much for any number of rows: the store may have to read whole tables for one. The engine
    /// then gathers more of them, within its memory.
    EachQuestion,
}
