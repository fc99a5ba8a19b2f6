//! Whether the data agrees with the tenancy map.
//!
//! The catalogue cannot say whether a row's two ways to a tenant end at the same one, or whether
//! a reference leads to somebody else's row: few databases have keys that hold the tenant too. So
//! every other reference to a tenant-owned table is followed from every row.
//!
//! *Consistency*: one transaction, which sees all tables at the same moment.
//!
//! *Cost*: one query for each reference, and one for each table that does not hold the tenant
//! itself; each reads its tables once, joined with those on the way to the tenant. Nothing is
//! kept but five keys of each finding.

mod edge;
mod question;

use reinstate_core::{Cancellation, Event, Observer, OtherRelations, Phase, StoreError};

use crate::catalog::Catalog;
use crate::others::{describe, read_others};
use crate::session::Session;
use crate::snapshot::{Access, begin};
use crate::store::PostgresStore;
use crate::suggest::estimates;
use edge::{edges, of_edge};
use question::{ask, of_unowned};

/// What came of checking a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenancyCheck {
    /// Tables that belong to tenants.
    pub owned_table_count: usize,
    /// References that could lead from one tenant to another, and were followed.
    pub reference_count: usize,
    /// Relations that are no ordinary tables, and what a restore does about them.
    pub others: Vec<OtherRelations>,
    /// What is wrong, by table and reference; empty if nothing is.
    pub findings: Vec<TenancyFinding>,
}

/// Rows of one table that are wrong in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenancyFinding {
    /// The table.
    pub table: String,
    /// What is wrong with its rows.
    pub fault: TenancyFault,
    /// The reference they go wrong by, as `customer_id -> customers.id`; none if it is about all
    /// of their ways.
    pub reference: Option<String>,
    /// How many rows.
    pub row_count: u64,
    /// The columns of the primary key; empty if there is none.
    pub key_columns: Vec<String>,
    /// The keys of the first rows, at most five, as text.
    pub keys: Vec<Vec<String>>,
}

/// What is wrong with rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TenancyFault {
    /// They reach no row that says whose they are.
    Unowned,
    /// A reference that could say whose they are leads to another tenant than the map does.
    RoutesDisagree,
    /// They refer to a row of another tenant.
    CrossesTenants,
    /// They are everybody's, and refer to a tenant's row.
    SharedRefersToOwned,
}

impl PostgresStore {
    /// Checks every row against the store's tenancy map. Writes nothing.
    ///
    /// # Errors
    /// `Unclassified` with every table that no rule covers; `Usage` if a rule names what does not
    /// exist; `Refused` if a rule cannot be relied on, or rows are hidden from the role;
    /// `Cancelled` if somebody asked to stop, between two questions.
    pub fn check_tenancy(
        &self,
        observer: &dyn Observer,
        cancellation: &Cancellation,
    ) -> Result<TenancyCheck, StoreError> {
        let session = Session::connect(self.settings())?;
        let catalog = begin(&session, &self.map, Access::ReadOnly)?.catalog;
        let is_owned = |oid| {
            let table = catalog.by_oid(oid);
            table.is_some_and(|table| catalog.schema.table(table).tenancy.is_tenant_owned())
        };
        let mut check = TenancyCheck {
            others: describe(&read_others(&session)?, Some(&catalog), is_owned),
            owned_table_count: 0,
            reference_count: 0,
            findings: Vec::new(),
        };
        let mut questions = Vec::new();
        for (index, schema, _) in catalog.iter() {
            if schema.tenancy.is_tenant_owned() {
                check.owned_table_count += 1;
                questions.extend(of_unowned(&catalog, index));
            }
        }
        for edge in edges(&catalog, &self.map)? {
            check.reference_count += 1;
            questions.extend(of_edge(&catalog, &edge));
        }
        // By table, so that whoever reads the findings goes through the tables once.
        questions.sort_by_key(|question| question.table);
        let sizes = sizes(&session, &catalog)?;
        let size_of = |question: &question::Question| sizes[question.table.get()];
        let phase = Phase::Verify;
        observer.observe(Event::Started {
            phase,
            tenant: None,
            rows_expected: Some(questions.iter().map(size_of).sum()),
        });
        for question in &questions {
            cancellation.check()?;
            check.findings.extend(ask(&session, &catalog, question)?);
            observer.observe(Event::Advanced {
                phase,
                rows: size_of(question),
                bytes: 0,
            });
        }
        observer.observe(Event::Finished {
            phase,
            tenant: None,
        });
        session.roll_back();
        Ok(check)
    }
}

/// How many rows each table has, about.
fn sizes(session: &Session, catalog: &Catalog) -> Result<Vec<u64>, StoreError> {
    let estimates = estimates(session)?;
    let tables = catalog.tables.iter();
    Ok(tables
        .map(|table| estimates.get(&table.oid).copied().unwrap_or(0))
        .collect())
}
