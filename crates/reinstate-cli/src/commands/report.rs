//! How a run came out: a line for each tenant, a summary, and the exit.

use anyhow::Chain;
use reinstate::{IsolationReport, PlanDescription, TenantOutcome, Verdict};
use reinstate_core::{ErrorKind, Owner};
use serde::Serialize;

use crate::console::Console;
use crate::exit::{Exit, kind_name};
use crate::failure::{Failure, next_step_of, one_line};
use crate::render::{count, counted, findings, outcome_line, outcome_record, tenant};

/// How many changed owners are named.
const NAMED_MAX: usize = 20;

/// What there is to report.
#[derive(Debug)]
pub struct Report<'a> {
    /// Where words go.
    pub console: &'a Console,
    /// The plan that was run.
    pub plan: &'a PlanDescription,
    /// How its tenants came out.
    pub outcomes: &'a [TenantOutcome],
    /// How the others compare, if that was asked for.
    pub isolation: Option<&'a Result<IsolationReport, reinstate::Error>>,
    /// What success is called.
    pub done: &'static str,
    /// How to go on after an interruption.
    pub resume: &'a str,
    /// How a process ends that was asked to stop.
    pub signal: Option<Exit>,
    /// How long it took.
    pub seconds: f64,
}

/// Reports, and says how the process ends.
///
/// # Errors
/// If any tenant is not proven to be what was asked for, or isolation was to be proven and is not.
pub fn report(report: &Report<'_>) -> anyhow::Result<Exit> {
    for outcome in report.outcomes {
        show_outcome(report, outcome);
    }
    let isolation = report
        .isolation
        .map(|isolation| show_isolation(report.console, isolation));
    let exit = overall(report.outcomes, report.signal);
    let is_isolated = isolation.unwrap_or(true);
    let exit = match exit {
        Exit::Done if !is_isolated => Exit::Unproven,
        other => other,
    };
    summarise(report, exit);
    if exit == Exit::Done {
        return Ok(exit);
    }
    Err(failure(report, exit, is_isolated).into())
}

#[derive(Serialize)]
struct FailedRecord<'a> {
    #[serde(rename = "type")]
    record: &'static str,
    tenant: &'a str,
    verdict: &'static str,
    exit_code: u8,
    kind: &'static str,
    message: String,
    next: &'static str,
}

fn show_outcome(report: &Report<'_>, outcome: &TenantOutcome) {
    let console = report.console;
    let notation = report.plan.notation;
    let name = tenant(&report.plan.tenant_kind, &outcome.tenant).to_string();
    let error = match &outcome.result {
        Ok(restored) => {
            console.line(outcome_line(report.done, &name, restored, notation));
            console.record(&outcome_record(&name, restored, notation));
            return;
        }
        Err(error) => error,
    };
    let kind = error.kind();
    let is_cancelled = kind == ErrorKind::Cancelled;
    if is_cancelled {
        console.line(format_args!(
            "NOT DONE {name}    stopped; nothing of it was written"
        ));
    } else {
        console.line(format_args!("FAILED {name}    {}", one_line(error)));
    }
    console.record(&FailedRecord {
        record: "outcome",
        tenant: &name,
        verdict: if is_cancelled { "not_done" } else { "failed" },
        exit_code: Exit::of(kind).code(),
        kind: kind_name(kind),
        message: one_line(error),
        next: next_step_of(kind, Chain::new(error)),
    });
}

#[derive(Serialize)]
struct IsolationRecord {
    #[serde(rename = "type")]
    record: &'static str,
    proven: bool,
    unchanged: Option<u64>,
    changed: Vec<String>,
}

/// Shows how the other tenants compare. Whether isolation is proven.
fn show_isolation(
    console: &Console,
    isolation: &Result<IsolationReport, reinstate::Error>,
) -> bool {
    let name = |owner: &Owner| match owner {
        Owner::Shared => "shared rows".to_owned(),
        Owner::Tenant(id) => id.to_string(),
    };
    let record = match isolation {
        Ok(report) => IsolationRecord {
            record: "isolation",
            proven: report.changed.is_empty(),
            unchanged: Some(report.unchanged),
            changed: report.changed.iter().map(name).collect(),
        },
        Err(_) => IsolationRecord {
            record: "isolation",
            proven: false,
            unchanged: None,
            changed: Vec::new(),
        },
    };
    console.record(&record);
    match isolation {
        Ok(report) if record.proven => console.line(format_args!(
            "isolation    {} hold the very same rows as before",
            counted(report.unchanged, "other owner", "other owners")
        )),
        Ok(report) => {
            let named = record
                .changed
                .iter()
                .take(NAMED_MAX)
                .cloned()
                .collect::<Vec<_>>();
            console.line(format_args!(
                "isolation    {} are the same, {} CHANGED: {}",
                count(report.unchanged),
                count(record.changed.len() as u64),
                named.join(", ")
            ));
        }
        Err(error) => console.line(format_args!("isolation    not proven: {}", one_line(error))),
    }
    record.proven
}

#[derive(Serialize)]
struct Summary {
    #[serde(rename = "type")]
    record: &'static str,
    job: String,
    tenants: usize,
    proven: usize,
    rows_changed: u64,
    seconds: f64,
    exit_code: u8,
}

fn summarise(report: &Report<'_>, exit: Exit) {
    let Report {
        console,
        plan,
        outcomes,
        ..
    } = report;
    let proven = outcomes
        .iter()
        .filter(|outcome| outcome.is_restored())
        .count();
    let restored = outcomes
        .iter()
        .filter_map(|outcome| outcome.result.as_ref().ok());
    let rows_changed = restored
        .map(|restored| restored.receipt.changed_rows())
        .sum();
    console.record(&Summary {
        record: "summary",
        job: plan.job.to_string(),
        tenants: outcomes.len(),
        proven,
        rows_changed,
        seconds: report.seconds,
        exit_code: exit.code(),
    });
    console.line(format_args!(
        "job {}    {proven} of {} {} and proven, {} changed, {:.1} s",
        plan.job.short(),
        counted(outcomes.len() as u64, "tenant", "tenants"),
        report.done,
        counted(rows_changed, "row", "rows"),
        report.seconds
    ));
    if rows_changed > 0 {
        console.note(format_args!(
            "to take it back: reinstate undo {}",
            plan.job.short()
        ));
    }
}

/// How the process ends, from how the tenants came out.
fn overall(outcomes: &[TenantOutcome], signal: Option<Exit>) -> Exit {
    let exits: Vec<Exit> = outcomes.iter().map(exit_of).collect();
    let failed: Vec<Exit> = exits
        .iter()
        .copied()
        .filter(|&exit| exit != Exit::Done)
        .collect();
    let violated = outcomes.iter().any(|outcome| {
        let verdict = outcome.result.as_ref().map(|restored| &restored.verdict);
        matches!(verdict, Ok(Verdict::IsolationViolated(_)))
    });
    match failed.first() {
        None => Exit::Done,
        Some(_) if violated => Exit::Unproven,
        Some(_) if failed.contains(&Exit::Interrupted) => signal.unwrap_or(Exit::Interrupted),
        Some(_) if failed.len() < exits.len() => Exit::Partial,
        Some(first) if failed.iter().all(|exit| exit == first) => *first,
        Some(_) => Exit::Other,
    }
}

fn exit_of(outcome: &TenantOutcome) -> Exit {
    match &outcome.result {
        Ok(restored) if restored.verdict.is_restored() => Exit::Done,
        Ok(_) => Exit::Unproven,
        Err(error) => Exit::of(error.kind()),
    }
}

/// What the process says at its end when not all is well.
fn failure(report: &Report<'_>, exit: Exit, is_isolated: bool) -> Failure {
    let outcomes = report.outcomes;
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|outcome| !outcome.is_restored())
        .collect();
    let job = report.plan.job.short();
    let first = failed.first();
    let errors = || {
        failed
            .iter()
            .filter_map(|outcome| outcome.result.as_ref().err())
    };
    let first_error = errors().next();
    let kind = first_error.map_or(ErrorKind::Unverified, reinstate::Error::kind);
    if failed.is_empty() && !is_isolated {
        let message = "isolation is not proven: other tenants hold other rows than before. \
                       Their own users may have written meanwhile; the digests cannot tell";
        return Failure::ending(exit, "isolation_not_proven", message)
            .next(format!("reinstate verify {job}"));
    }
    let message = match (first, outcomes) {
        (Some(_), [only]) => {
            let name = tenant(&report.plan.tenant_kind, &only.tenant);
            match &only.result {
                Ok(restored) => format!(
                    "{name} is not proven to be {}: {}",
                    report.done,
                    findings(&restored.verdict).join("; ")
                ),
                Err(error) => format!("{name} is not {}: {}", report.done, one_line(error)),
            }
        }
        _ => format!(
            "{} of {} tenants are not {}",
            failed.len(),
            outcomes.len(),
            report.done
        ),
    };
    let is_cancelled = errors().any(|error| error.kind() == ErrorKind::Cancelled);
    let next = if is_cancelled {
        report.resume.to_owned()
    } else if exit == Exit::Unproven {
        format!("reinstate verify {job}, or take it back: reinstate undo {job}")
    } else {
        let chain = first_error.into_iter().flat_map(|error| Chain::new(error));
        next_step_of(kind, chain).to_owned()
    };
    let name = if exit == Exit::Partial {
        "partial"
    } else {
        kind_name(kind)
    };
    Failure::ending(exit, name, message).next(next)
}
