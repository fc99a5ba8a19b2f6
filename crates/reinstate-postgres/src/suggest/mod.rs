//! A proposal whose rows the tables of a database hold, from its catalogue.
//!
//! The catalogue says which columns there are and which foreign keys are kept; it does not say
//! what they mean. So what follows from keys that every row has is proposed as a rule, and
//! everything else is left for a person to decide: a wrong owner would put rows of one tenant into
//! the restore of another.
//!
//! *Cost*: a few queries of the catalogue. Tables are read only to count them, if that is asked
//! for.

mod decide;
mod facts;
mod names;
mod render;
mod tenant;
mod undeclared;
mod ways;

pub(crate) use facts::estimates;
use std::collections::BTreeMap;

use reinstate_core::{StoreError, TenantKind};

use crate::others::{describe, read_others};
use crate::session::Session;
use crate::store::PostgresStore;
use crate::tenancy::TableRule;

/// What a proposal is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SuggestOptions {
    /// Columns that hold the tenant's id, the usual one first; none: the map's column or, without
    /// one, the likeliest.
    pub columns: Vec<String>,
    /// Whether rows are counted and the kinds of (type, id) pairs are read, which reads whole
    /// tables.
    pub count_rows: bool,
}

/// Whose rows every table of a database holds, as far as its catalogue tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenancyProposal {
    /// What kind of id a tenant has.
    pub kind: TenantKind,
    /// The column that holds the tenant's id.
    pub column: String,
    /// What is worth knowing about the choice of the column, and relations that are no tables.
    pub notes: Vec<String>,
    /// Triggers that were allowed already.
    pub allowed_triggers: Vec<String>,
    /// The silenced triggers that the configuration has, kept.
    pub silenced_triggers: Vec<String>,
    /// The tables in which the configuration lets rows of everybody be created, kept.
    pub create_missing: Vec<String>,
    /// The foreign keys that the configuration lets cross tenants, kept.
    pub crossing: Vec<String>,
    /// The counters that the configuration has, kept.
    pub counters: Vec<String>,
    /// The tenants' own sequences that the configuration has, kept.
    pub sequences: BTreeMap<String, String>,
    /// The search path that the configuration has, kept.
    pub search_path: Vec<String>,
    /// One proposal for each table, in the order of their names.
    pub tables: Vec<Proposal>,
}

/// Whose rows one table holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The table.
    pub table: String,
    /// What is proposed; the likeliest rule if it is unsure.
    pub decision: TableRule,
    /// Why.
    pub reason: String,
    /// Other rules that may be meant.
    pub alternatives: Vec<TableRule>,
    /// Whether a person has to decide.
    pub is_unsure: bool,
    /// Whether the table has the proposal's column, so that it is covered without a rule of its
    /// own.
    pub has_tenant_column: bool,
    /// How many rows it has.
    pub rows: RowCount,
}

/// How many rows a table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowCount {
    /// They were counted.
    Exact(u64),
    /// The server's own estimate.
    About(u64),
    /// The server has not looked yet.
    Unknown,
}

impl PostgresStore {
    /// Proposes whose rows the tables hold, from the catalogue. What the store's own map has a
    /// rule for is decided, and what follows from that is proposed; its column is the tenant's if
    /// the options name none. Needs no right but to connect; what `count_rows` reads is left out
    /// where the role may not read it.
    ///
    /// # Errors
    /// `Usage` if no column holds tenants' ids, or no table has a column that is named;
    /// `Unavailable` if the server does not answer.
    pub fn suggest_tenancy(&self, options: &SuggestOptions) -> Result<TenancyProposal, StoreError> {
        let session = Session::connect(self.settings())?;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
        session.run("begin a transaction", begin)?;
        let mut facts = facts::read(&session)?;
        let mut columns = options.columns.clone();
        if columns.is_empty() {
            columns.extend(self.map.column.clone());
        }
        let tenant = tenant::find(&facts, &columns)?;
        if options.count_rows {
            facts.count_rows(&session)?;
        }
        let kinds = undeclared::read_kinds(&facts, &session, options.count_rows)?;
        let tables = decide::decide(&facts, &tenant, &kinds, &self.map)?;
        let mut notes = tenant.notes(&facts);
        let others = describe(&read_others(&session)?, None, |_| true);
        let others = others.into_iter();
        notes.extend(others.map(|other| format!("{} {}", other.relations, other.treatment)));
        session.roll_back();
        Ok(TenancyProposal {
            kind: self.map.kind.clone(),
            column: tenant.columns[0].clone(),
            notes,
            allowed_triggers: self.map.allowed_triggers.clone(),
            silenced_triggers: self.map.silenced_triggers.clone(),
            create_missing: self.map.create_missing.clone(),
            crossing: self.map.crossing.clone(),
            counters: self.map.counters.clone(),
            sequences: self.map.sequences.clone(),
            search_path: self.map.search_path.clone(),
            tables,
        })
    }
}

impl TenancyProposal {
    /// The tables that a person has to decide about.
    pub fn unsure(&self) -> impl Iterator<Item = &Proposal> {
        self.tables.iter().filter(|proposal| proposal.is_unsure)
    }

    /// The proposal as a section `[tenancy]` of the configuration, with the reasons as comments.
    /// Tables that are to be decided stay unclassified in it, so that it is refused until they
    /// are.
    #[must_use]
    pub fn to_toml(&self) -> String {
        render::to_toml(self)
    }
}

impl TableRule {
    /// The rule as lines of the configuration, each with its line end.
    #[must_use]
    pub fn to_toml(&self) -> String {
        render::rule(self)
    }
}
