//! How tenants of a run came out.

use reinstate::{Finding, Restored, Verdict};
use reinstate_core::PositionNotation;
use serde::Serialize;

use super::{count, counted};

/// How one tenant came out, for machines.
#[derive(Debug, Serialize)]
pub struct OutcomeRecord {
    #[serde(rename = "type")]
    record: &'static str,
    /// The tenant.
    pub tenant: String,
    /// `restored`, `incomplete` or `isolation_violated`.
    pub verdict: &'static str,
    /// Rows that the merge changed.
    pub rows_changed: u64,
    /// Rows that were read back and compared.
    pub rows_verified: Option<u64>,
    /// Where the commit is; absent when nothing had to be written.
    pub position: Option<String>,
    /// What is not as it should be.
    pub findings: Vec<String>,
    /// Counters that were raised: name, from, to.
    pub sequences_raised: Vec<(String, i64, i64)>,
}

/// The record of a tenant's outcome.
#[must_use]
pub fn outcome_record(
    tenant: &str,
    restored: &Restored,
    notation: PositionNotation,
) -> OutcomeRecord {
    let committed = restored.receipt.committed.as_ref();
    let raised = committed.map(|commit| commit.sequences_raised.as_slice());
    OutcomeRecord {
        record: "outcome",
        tenant: tenant.to_owned(),
        verdict: verdict_name(&restored.verdict),
        rows_changed: restored.receipt.changed_rows(),
        rows_verified: match &restored.verdict {
            Verdict::Restored(proof) => Some(proof.row_count()),
            _ => None,
        },
        position: committed.map(|commit| commit.position.display(notation)),
        findings: findings(&restored.verdict),
        sequences_raised: raised
            .unwrap_or_default()
            .iter()
            .map(|raise| (raise.name.clone(), raise.from, raise.to))
            .collect(),
    }
}

const fn verdict_name(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Restored(_) => "restored",
        Verdict::Incomplete(_) => "incomplete",
        Verdict::IsolationViolated(_) => "isolation_violated",
    }
}

/// The findings of a verdict, each in one line.
#[must_use]
pub fn findings(verdict: &Verdict) -> Vec<String> {
    verdict.findings().iter().map(finding_text).collect()
}

fn finding_text(finding: &Finding) -> String {
    match finding {
        Finding::Differs {
            table,
            expected,
            found,
        } => format!(
            "table {table} holds {} that are not the expected {}",
            counted(found.row_count(), "row", "rows"),
            count(expected.row_count())
        ),
        Finding::LeftOut { table, rows } => format!(
            "table {table}: {} left out as conflicts",
            counted(*rows, "row", "rows")
        ),
        Finding::ForeignRows { rows } => format!(
            "{} of other tenants carry the mark of this merge",
            counted(*rows, "row", "rows")
        ),
        other => format!("{other:?}"),
    }
}

/// A tenant's outcome in one line, for people. `done` is what success is called.
#[must_use]
pub fn outcome_line(
    done: &str,
    tenant: &str,
    restored: &Restored,
    notation: PositionNotation,
) -> String {
    let changed = counted(restored.receipt.changed_rows(), "row", "rows");
    let place = match &restored.receipt.committed {
        Some(commit) => format!("{changed} changed at {}", commit.position.display(notation)),
        None => "nothing to change".to_owned(),
    };
    match &restored.verdict {
        Verdict::Restored(proof) => format!(
            "{done} {tenant}    {place}, {} in {} read back and equal",
            counted(proof.row_count(), "row", "rows"),
            counted(proof.table_count() as u64, "table", "tables")
        ),
        Verdict::Incomplete(_) => format!(
            "INCOMPLETE {tenant}    {place}; {}",
            findings(&restored.verdict).join("; ")
        ),
        Verdict::IsolationViolated(_) => format!(
            "ISOLATION VIOLATED {tenant}    {place}; {}",
            findings(&restored.verdict).join("; ")
        ),
    }
}
