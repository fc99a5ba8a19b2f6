//! What a live store has to say about changes that are planned.

use crate::{ColumnIndex, TableIndex, TenantId};

/// Something that the store does by itself when rows change: a trigger, a rule, a foreign key that
/// acts on rows of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideEffect {
    /// What does it.
    pub object: String,
    /// What it is and, if it is not allowed, how to allow it.
    pub detail: String,
    /// Whether an operator said that it harms nobody, so that a merge lets it happen.
    pub is_allowed: bool,
}

/// Relations of a store, all of one kind, that are no ordinary tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherRelations {
    /// What they are and what some of them are called, as in `views a, b and 3 more`.
    pub relations: String,
    /// How many there are.
    pub count: usize,
    /// What becomes of them when a tenant is restored.
    pub treatment: String,
    /// Whether a merge is refused because of them.
    pub is_obstacle: bool,
}

/// A reference of rows to be written that leads astray.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StrayReference {
    /// The reference: its columns and the parent's.
    pub reference: String,
    /// The table that it leads to.
    pub parent: TableIndex,
    /// The columns there that it names.
    pub parent_columns: Vec<ColumnIndex>,
    /// What the rows hold in its own columns, in the same order.
    pub values: Vec<String>,
    /// Where it leads.
    pub lead: Lead,
    /// How many of the rows hold it.
    pub row_count: u64,
}

/// What would keep the store from letting rows be written: rows of others that refer to them, or a rule
/// that they do not satisfy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hindrance {
    /// What it is: a reference, a constraint.
    pub object: String,
    /// What it would do, and how to help.
    pub detail: String,
    /// How many rows are concerned.
    pub row_count: u64,
    /// Whose rows they are, if they are one tenant's who was asked about.
    pub of: Option<TenantId>,
}

/// Whether a plan may create rows of everybody that are gone, in one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SharedCreation {
    /// Nobody said that it may.
    NotAllowed,
    /// The operator says so, but it cannot be done; why, and what to do.
    Refused(String),
    /// It may.
    Allowed,
}

/// Where a stray reference leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lead {
    /// To a row that is not there, and that no plan for a tenant can create.
    Nowhere,
    /// To a row of another tenant.
    ToAnother,
    /// To a row that is not there, and that a plan for the tenant may create. Said only of references
    /// that the store guards without having looked at all of its rows.
    Unfound,
}
