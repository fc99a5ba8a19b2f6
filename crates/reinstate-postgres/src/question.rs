//! Statements of an operator's own: checks that read, and actions that write.
//!
//! They run in a session and a transaction of their own, with a limit of time, as the role that the
//! store is reached with. Nothing of a merge depends on them.

use std::time::Duration;

use reinstate_core::{ErrorKind, StoreError, TenantId};

use crate::session::Session;
use crate::sql::literal;
use crate::store::PostgresStore;

use self::fill::fill;

mod fill;

/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

impl PostgresStore {
    /// Asks the database something about a tenant: `$1` in the query is its id, written as a quoted
    /// text. The answer is text: columns are separated by tabs, rows by line ends; NULL is empty.
    ///
    /// The transaction is read only. Where policies of row-level security apply to the role, it sees the rows that
    /// they show: all, of the tables of tenants, or no plan is made.
    ///
    /// # Errors
    /// As the server reports it; `Refused` if the answer takes longer than that, or is longer than
    /// 64 KiB; `Usage` if the id is not UTF-8, or `$1` stands inside of quotes.
    pub fn ask(
        &self,
        query: &str,
        tenant: &TenantId,
        timeout: Duration,
    ) -> Result<String, StoreError> {
        // It sees the rows that the operator's own sessions see: with the setting of ours, a table with policies
        // could not be read at all.
        let begin = "BEGIN READ ONLY; SET LOCAL row_security TO DEFAULT";
        self.state(begin, query, tenant, timeout)
    }

    /// Runs a statement about a tenant, as [`ask`](Self::ask) does, in a transaction that writes.
    ///
    /// # Errors
    /// As [`ask`](Self::ask); also if policies of row-level security apply to a table that it names, which would let
    /// it pass by the rows that it is about. Nothing was changed then, unless the connection was lost at the very end.
    pub fn tell(
        &self,
        statement: &str,
        tenant: &TenantId,
        timeout: Duration,
    ) -> Result<String, StoreError> {
        self.state("BEGIN", statement, tenant, timeout)
    }

    fn state(
        &self,
        begin: &str,
        statement: &str,
        tenant: &TenantId,
        timeout: Duration,
    ) -> Result<String, StoreError> {
        let operation = format!("run a statement about {tenant}");
        let text = std::str::from_utf8(tenant.as_bytes()).map_err(|error| {
            let message = format!("{operation}: its id is not UTF-8");
            StoreError::new(ErrorKind::Usage, message).because(error)
        })?;
        let statement = fill(statement, &literal(text)).ok_or_else(|| {
            let message = format!(
                "{operation}: $1 stands inside of quotes, which the id would end: \
                 it is a quoted text itself, so write it outside of them"
            );
            StoreError::new(ErrorKind::Usage, message)
        })?;
        let session = Session::connect(self.settings())?;
        let limit = timeout.as_millis().max(1);
        // The operator's statements name tables as the operator's own sessions do.
        let settings = format!(
            "{begin}; SET LOCAL statement_timeout = {limit}; SET LOCAL search_path TO DEFAULT;"
        );
        session.begin(&operation, &settings)?;
        let answered = session.answer(&operation, &statement, ANSWER_BYTES_MAX);
        let answer = answered.map_err(|error| match error.kind() {
            ErrorKind::Contended => {
                let message =
                    format!("{operation}: no answer within {timeout:?}, or others came in the way");
                StoreError::new(ErrorKind::Refused, message).because(error)
            }
            _ => error,
        })?;
        session.run(&operation, "COMMIT")?;
        Ok(answer)
    }
}
