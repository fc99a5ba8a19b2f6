//! `tenancy`: whose rows the tables of a PostgreSQL store hold.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use reinstate_core::ErrorKind;
use reinstate_postgres::{
    Proposal, RowCount, SuggestOptions, TableRule, TenancyCheck, TenancyFault, TenancyFinding,
    TenancyProposal,
};
use serde::Serialize;

use crate::arguments::Tenancy;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::postgres;
use crate::progress::Progress;
use crate::render::{count, counted};
use crate::session::Session;

#[derive(Serialize)]
struct TableRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    table: &'a str,
    decision: &'static str,
    unsure: bool,
    reason: &'a str,
    rows: Option<u64>,
    rows_counted: bool,
    rule: String,
    alternatives: Vec<String>,
}

#[derive(Serialize)]
struct ProposalRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    column: &'a str,
    tables: usize,
    unsure: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<String>,
    toml: &'a str,
}

#[derive(Serialize)]
struct FindingRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    table: &'a str,
    fault: &'static str,
    reference: Option<&'a str>,
    rows: u64,
    key_columns: &'a [String],
    keys: &'a [Vec<String>],
}

#[derive(Serialize)]
struct OthersRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    relations: &'a str,
    count: usize,
    treatment: &'a str,
}

#[derive(Serialize)]
struct CheckRecord {
    #[serde(rename = "type")]
    record: &'static str,
    tables: usize,
    references: usize,
    findings: usize,
}

/// `tenancy`.
pub fn run(arguments: &Tenancy, session: &Session<'_>) -> anyhow::Result<Exit> {
    let what = "an embedded store keeps every row's owner beside the row: there is no map of its \
                tables to find or to check";
    let store = postgres::needed(session, what)?;
    match arguments {
        Tenancy::Suggest {
            columns,
            count,
            out,
        } => {
            let mut options = SuggestOptions::default();
            options.columns.clone_from(columns);
            options.count_rows = *count;
            let proposal = store.suggest_tenancy(&options)?;
            suggested(&proposal, out.as_deref(), session)?;
            Ok(Exit::Done)
        }
        Tenancy::Check => {
            let progress = Progress::of("check the map");
            let cancellation = session.interruption.cancellation();
            let check = store.check_tenancy(&progress, cancellation)?;
            progress.clear();
            checked(&check, session)
        }
    }
}

fn suggested(
    proposal: &TenancyProposal,
    out: Option<&Path>,
    session: &Session<'_>,
) -> anyhow::Result<()> {
    let console = session.console;
    let text = proposal.to_toml();
    if let Some(path) = out {
        write_new(path, &text)?;
        console.line(format_args!("proposal  {} written", path.display()));
    } else if !console.is_json() {
        console.bytes(text.as_bytes());
    }
    for table in &proposal.tables {
        console.record(&record_of(table));
    }
    let unsure = proposal.unsure().count();
    console.record(&ProposalRecord {
        record: "tenancy_proposal",
        column: &proposal.column,
        tables: proposal.tables.len(),
        unsure,
        out: out.map(|path| path.display().to_string()),
        toml: &text,
    });
    console.note(format_args!(
        "{}, {} to be decided",
        counted(proposal.tables.len() as u64, "table", "tables"),
        counted(unsure as u64, "table", "tables"),
    ));
    let path = session.configuration.path.display();
    console.note(format_args!(
        "next: put it in the place of [tenancy] in {path}, then: reinstate tenancy check"
    ));
    Ok(())
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let writing = |error| {
        Failure::usage(format!("write the proposal to {}", path.display()))
            .because(error)
            .next("choose another --out")
    };
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = file.map_err(writing)?;
    file.write_all(text.as_bytes()).map_err(writing)
}

fn record_of(table: &Proposal) -> TableRecord<'_> {
    let (rows, rows_counted) = match table.rows {
        RowCount::Exact(number) => (Some(number), true),
        RowCount::About(number) => (Some(number), false),
        RowCount::Unknown => (None, false),
    };
    TableRecord {
        record: "table_proposal",
        table: &table.table,
        decision: match &table.decision {
            TableRule::Direct { .. } => "column",
            TableRule::Via { .. } => "via",
            TableRule::OneOf { .. } => "one_of",
            TableRule::Shared => "shared",
            TableRule::Excluded => "excluded",
        },
        unsure: table.is_unsure,
        reason: &table.reason,
        rows,
        rows_counted,
        rule: table.decision.to_toml(),
        alternatives: table.alternatives.iter().map(TableRule::to_toml).collect(),
    }
}

fn checked(check: &TenancyCheck, session: &Session<'_>) -> anyhow::Result<Exit> {
    let console = session.console;
    let mut table = "";
    for finding in &check.findings {
        if finding.table != table {
            table = &finding.table;
            console.line(table);
        }
        console.line(format_args!("  {}", finding_text(finding)));
        if !finding.keys.is_empty() {
            console.line(format_args!("      {}", keys_text(finding)));
        }
        console.record(&FindingRecord {
            record: "tenancy_finding",
            table: &finding.table,
            fault: fault_name(finding.fault),
            reference: finding.reference.as_deref(),
            rows: finding.row_count,
            key_columns: &finding.key_columns,
            keys: &finding.keys,
        });
    }
    for other in &check.others {
        console.line(format_args!("{} {}", other.relations, other.treatment));
        console.record(&OthersRecord {
            record: "tenancy_relations",
            relations: &other.relations,
            count: other.count,
            treatment: &other.treatment,
        });
    }
    console.record(&CheckRecord {
        record: "tenancy_check",
        tables: check.owned_table_count,
        references: check.reference_count,
        findings: check.findings.len(),
    });
    let looked_at = format!(
        "{} of tenants and {} that could cross",
        counted(check.owned_table_count as u64, "table", "tables"),
        counted(check.reference_count as u64, "reference", "references"),
    );
    if check.findings.is_empty() {
        console.line(format_args!(
            "{looked_at}: every row has one owner, and none refers to another tenant's"
        ));
        return Ok(Exit::Done);
    }
    let found = counted(check.findings.len() as u64, "finding", "findings");
    let message = format!("{found} in {looked_at}: the data does not agree with the map");
    let next = "correct the rows or the map, then: reinstate tenancy check";
    let exit = Exit::of(ErrorKind::Refused);
    Err(Failure::ending(exit, "tenancy_findings", message)
        .next(next)
        .into())
}

fn finding_text(finding: &TenancyFinding) -> String {
    let rows = counted(finding.row_count, "row", "rows");
    let reference = finding.reference.as_deref().unwrap_or_default();
    match finding.fault {
        TenancyFault::Unowned => format!("{rows} without an owner: no way of theirs ends at a row"),
        TenancyFault::RoutesDisagree => {
            format!("{rows} with two owners: {reference} leads to another tenant than the map does")
        }
        TenancyFault::CrossesTenants => {
            format!("{rows} of one tenant with a row of another: {reference}")
        }
        TenancyFault::SharedRefersToOwned => {
            format!("{rows} of everybody's with a row of a tenant's: {reference}")
        }
        _ => format!("{rows} that are wrong: {reference}"),
    }
}

/// The keys of the first rows, as `id: 4, 9, 12`.
fn keys_text(finding: &TenancyFinding) -> String {
    let keys = finding.keys.iter().map(|key| match key.as_slice() {
        [value] => value.clone(),
        values => format!("({})", values.join(", ")),
    });
    let keys: Vec<String> = keys.collect();
    let more = finding.row_count.saturating_sub(keys.len() as u64);
    let more = match more {
        0 => String::new(),
        more => format!(" and {} more", count(more)),
    };
    format!(
        "{}: {}{more}",
        finding.key_columns.join(", "),
        keys.join(", ")
    )
}

const fn fault_name(fault: TenancyFault) -> &'static str {
    match fault {
        TenancyFault::Unowned => "unowned",
        TenancyFault::RoutesDisagree => "routes_disagree",
        TenancyFault::CrossesTenants => "crosses_tenants",
        TenancyFault::SharedRefersToOwned => "shared_refers_to_owned",
        _ => "other",
    }
}
