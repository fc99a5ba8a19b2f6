//! `tenancy`: whose rows the tables of a PostgreSQL store hold.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use reinstate_postgres::{
    PostgresStore, Proposal, RowCount, SuggestOptions, TableRule, TenancyProposal,
};
use serde::Serialize;

use crate::arguments::Tenancy;
use crate::configuration::StoreConfiguration;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::postgres;
use crate::render::counted;
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

/// `tenancy`.
pub fn run(arguments: &Tenancy, session: &Session<'_>) -> anyhow::Result<Exit> {
    let store = open(session)?;
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
    }
}

fn open(session: &Session<'_>) -> anyhow::Result<PostgresStore> {
    let configuration = &session.configuration;
    match &configuration.store {
        StoreConfiguration::Postgres { url, tenancy } => {
            postgres::connect(&configuration.store_name, url, tenancy)
        }
        StoreConfiguration::Embedded { .. } => {
            let message = "an embedded store keeps every row's owner beside the row: there is no \
                           map of its tables to find or to check";
            Err(Failure::usage(message).next("reinstate doctor").into())
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
        "next: put it in the place of [tenancy] in {path}, then: reinstate doctor"
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
