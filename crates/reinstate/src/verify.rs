//! Verify: reading back what a merge left, and what a repository holds.
//!
//! Verifying reads and never writes. What it finds is data, not an error.

use std::collections::BTreeMap;
use std::fmt;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use reinstate_core::{
    ContentDigest, ErrorKind, Event, LiveStore, LiveView, Owner, Phase, Repository, RowBatch,
    SnapshotDescription, TableIndex, TableName, Tenant, TenantId,
};
use reinstate_format::{
    BlockOpener, RunEntry, SegmentReader, TenantPlanDescription, verify_layout,
};

use crate::catalogue::open_segment;
use crate::contents::digest_rows;
use crate::log::Log;
use crate::merge::MergeReceipt;
use crate::plan::RestorePlan;
use crate::{Context, Error};

/// What a restore came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Expected, applied and re-read are the same. Only [`verify`] can say so.
    Restored(Proof),
    /// The tenant is not what was asked for; the findings say where.
    Incomplete(Vec<Finding>),
    /// Rows of somebody else changed; the findings say where.
    IsolationViolated(Vec<Finding>),
}

/// That a restore is what it should be. Cannot be made by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    row_count: u64,
    table_count: usize,
}

impl Proof {
    /// How many rows of the tenant were read back and compared.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.row_count
    }

    /// In how many tables.
    #[must_use]
    pub fn table_count(&self) -> usize {
        self.table_count
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A table of the tenant does not hold what the plan says.
    Differs {
        /// The table.
        table: TableName,
        /// What it should hold.
        expected: ContentDigest,
        /// What it holds.
        found: ContentDigest,
    },
    /// Rows were left out as conflicts.
    LeftOut {
        /// The table.
        table: TableName,
        /// How many.
        rows: u64,
    },
    /// Rows of others carry the mark of the merge.
    ForeignRows {
        /// How many.
        rows: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Differs {
                table,
                expected,
                found,
            } => write!(
                formatter,
                "table {table} holds {} rows that are not the expected {}",
                found.row_count(),
                expected.row_count()
            ),
            Self::LeftOut { table, rows } => {
                write!(
                    formatter,
                    "table {table}: {rows} rows left out, their places are taken"
                )
            }
            Self::ForeignRows { rows } => {
                write!(
                    formatter,
                    "{rows} rows of other tenants carry the mark of this merge"
                )
            }
        }
    }
}

impl Verdict {
    /// Whether this is a success.
    #[must_use]
    pub const fn is_restored(&self) -> bool {
        matches!(self, Self::Restored(_))
    }

    /// What was found; empty for a success.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        match self {
            Self::Restored(_) => &[],
            Self::Incomplete(findings) | Self::IsolationViolated(findings) => findings,
        }
    }
}

/// Reads the live tenant and compares it with what the plan expects after its merge.
///
/// A tenant that its own users wrote to after the merge differs, and the verdict says so.
///
/// # Errors
/// As the store reports it.
pub fn verify(
    context: Context<'_>,
    plan: &RestorePlan,
    receipt: &MergeReceipt,
    live: &dyn LiveStore,
) -> Result<Verdict, Error> {
    let tenant = &receipt.tenant;
    let part = part_of(plan, tenant)?;
    let whose = Tenant {
        kind: plan.description().tenant_kind.clone(),
        id: tenant.clone(),
    };
    let expected: u64 = part
        .tables
        .iter()
        .map(|table| table.expected.row_count())
        .sum();
    context.observer.observe(Event::Started {
        phase: Phase::Verify,
        tenant: Some(&whose),
        rows_expected: Some(expected),
    });
    let mut findings = Vec::new();
    let mut proof = Proof {
        row_count: 0,
        table_count: part.tables.len(),
    };
    let is_untouched = compare_live(context, plan, receipt, live, &mut findings, &mut proof)?;
    // Before the commit, every row that it left was one of those that were read back.
    let foreign = !is_untouched && count_foreign(tenant, receipt, live, &mut findings)?;
    context.observer.observe(Event::Finished {
        phase: Phase::Verify,
        tenant: Some(&whose),
    });
    Ok(if foreign {
        Verdict::IsolationViolated(findings)
    } else if findings.is_empty() {
        Verdict::Restored(proof)
    } else {
        Verdict::Incomplete(findings)
    })
}

/// Whether the tenant is in the very state in which it was read back, and found as expected, before the
/// commit. Where that is not so, or not known, reads all of it.
fn compare_live(
    context: Context<'_>,
    plan: &RestorePlan,
    receipt: &MergeReceipt,
    live: &dyn LiveStore,
    findings: &mut Vec<Finding>,
    proof: &mut Proof,
) -> Result<bool, Error> {
    let part = part_of(plan, &receipt.tenant)?;
    let view = live
        .read_view_of(&receipt.tenant)
        .map_err(Error::store("read the live store"))?;
    let schema = &plan.description().schema;
    if view.schema() != schema {
        return Err(Error::new(
            ErrorKind::Stale,
            "the tables changed after the merge",
        ));
    }
    let is_untouched = is_as_read_back(receipt, view.as_ref())?;
    for table in &part.tables {
        let name = schema.table(table.table).name.clone();
        let found = if is_untouched {
            context.observer.observe(Event::Advanced {
                phase: Phase::Verify,
                rows: table.expected.row_count(),
                bytes: 0,
            });
            table.expected
        } else {
            live_content(context, view.as_ref(), &part.tenant, table.table)?
        };
        proof.row_count += found.row_count();
        if found != table.expected {
            let expected = table.expected;
            findings.push(Finding::Differs {
                table: name.clone(),
                expected,
                found,
            });
        }
        if table.conflicts > 0 {
            findings.push(Finding::LeftOut {
                table: name,
                rows: table.conflicts,
            });
        }
    }
    Ok(is_untouched)
}

fn is_as_read_back(receipt: &MergeReceipt, view: &dyn LiveView) -> Result<bool, Error> {
    let committed = receipt.committed.as_ref();
    let Some(state) = committed.and_then(|committed| committed.state.as_ref()) else {
        return Ok(false);
    };
    let tenant = &receipt.tenant;
    let reading = Error::store(format!("read the state of {tenant}"));
    Ok(view.fingerprint(tenant).map_err(reading)? == *state)
}

fn part_of<'p>(
    plan: &'p RestorePlan,
    tenant: &TenantId,
) -> Result<&'p TenantPlanDescription, Error> {
    plan.tenant(tenant).ok_or_else(|| {
        let message = format!("the plan has no tenant {tenant}");
        Error::new(ErrorKind::NotFound, message)
    })
}

/// What a live tenant's table contains.
pub(crate) fn live_content(
    context: Context<'_>,
    view: &dyn LiveView,
    tenant: &TenantId,
    table: TableIndex,
) -> Result<ContentDigest, Error> {
    let name = &view.schema().table(table).name;
    let reading = || Error::store(format!("read the live rows of {tenant} in {name}"));
    let mut rows = view.tenant_rows(tenant, table).map_err(reading())?;
    let failed = |error| reading()(error);
    digest_rows(context, rows.as_mut(), failed, |batch| {
        context.observer.observe(Event::Advanced {
            phase: Phase::Verify,
            rows: batch.len() as u64,
            bytes: batch.as_bytes().len() as u64,
        });
        context.check()
    })
}

fn count_foreign(
    tenant: &TenantId,
    receipt: &MergeReceipt,
    live: &dyn LiveStore,
    findings: &mut Vec<Finding>,
) -> Result<bool, Error> {
    let Some(committed) = &receipt.committed else {
        return Ok(false);
    };
    let rows = live
        .foreign_rows_written(tenant, &committed.mark)
        .map_err(Error::store(
            "count rows of others with the mark of the merge",
        ))?;
    if rows > 0 {
        findings.push(Finding::ForeignRows { rows });
    }
    Ok(rows > 0)
}

/// What verifying a snapshot found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Rows that are as they were written.
    pub rows_checked: u64,
    /// Bytes of the blocks that were read.
    pub bytes_checked: u64,
    /// What is damaged. Empty: everything is as it was written.
    pub damage: Vec<Damage>,
}

/// A damaged part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Whose rows are hit; none when a whole segment cannot be read.
    pub owner: Option<Owner>,
    /// What is wrong, with the object and the block.
    pub message: String,
}

/// Reads every byte of a snapshot back and checks it, on all threads of the context. Goes on
/// after damage, so that the report names all of it.
///
/// # Errors
/// `Cancelled`. Damage is a finding, not an error.
pub fn verify_snapshot(
    context: Context<'_>,
    repository: &dyn Repository,
    snapshot: &SnapshotDescription,
) -> Result<SnapshotReport, Error> {
    let rows_expected = Some(snapshot.totals.iter().map(|total| total.row_count).sum());
    context.observer.observe(Event::Started {
        phase: Phase::Verify,
        tenant: None,
        rows_expected,
    });
    let mut report = SnapshotReport::default();
    let mut totals: BTreeMap<TableIndex, u64> = BTreeMap::new();
    for segment in &snapshot.segments {
        let whole = |error: Error| Damage {
            owner: None,
            message: chain(&error),
        };
        match open_segment(repository, snapshot, segment) {
            Ok(reader) => verify_runs(context, &reader, &mut report, &mut totals)?,
            Err(error) => report.damage.push(whole(error)),
        }
    }
    for (index, total) in (0..).map(TableIndex).zip(&snapshot.totals) {
        let found = totals.get(&index).copied().unwrap_or(0);
        if found != total.row_count && report.damage.is_empty() {
            let name = snapshot
                .schema
                .get(index)
                .map_or("?", |table| table.name.as_str());
            let message = format!(
                "table {name}: {found} rows, the manifest says {}",
                total.row_count
            );
            report.damage.push(Damage {
                owner: None,
                message,
            });
        }
    }
    context.observer.observe(Event::Finished {
        phase: Phase::Verify,
        tenant: None,
    });
    Ok(report)
}

/// Reads every byte of a log back and checks it, as [`verify_snapshot`] does.
///
/// # Errors
/// `Cancelled`. Damage is a finding, not an error.
pub fn verify_log(
    context: Context<'_>,
    repository: &dyn Repository,
    log: &Log,
) -> Result<SnapshotReport, Error> {
    let mut report = SnapshotReport::default();
    let whole = |message: String| Damage {
        owner: None,
        message,
    };
    for run in log.runs() {
        let number = run.description.number;
        let extent = &run.description.extent;
        if let Err(error) = run.commits(repository) {
            report.damage.push(whole(chain(&error)));
        }
        let reader = match run.open(repository) {
            Ok(reader) => reader,
            Err(error) => {
                report.damage.push(whole(chain(&error)));
                continue;
            }
        };
        let before = (report.rows_checked, report.damage.len());
        verify_runs(context, &reader, &mut report, &mut BTreeMap::new())?;
        let found = report.rows_checked - before.0;
        if found != extent.change_count && report.damage.len() == before.1 {
            report.damage.push(whole(format!(
                "log run {number}: {found} changes, its record says {}",
                extent.change_count
            )));
        }
    }
    let damage = log.damage().map(|damage| whole(damage.to_owned()));
    report.damage.extend(damage);
    Ok(report)
}

/// Runs checked at once: enough for all threads, few enough to stay small.
const RUNS_AT_ONCE: usize = 256;

fn verify_runs(
    context: Context<'_>,
    reader: &SegmentReader,
    report: &mut SnapshotReport,
    totals: &mut BTreeMap<TableIndex, u64>,
) -> Result<(), Error> {
    let is_index_read = verify_blocks(context, reader, report, totals)?;
    // Also what no restore needs to read: damage there is a sign of more to come. Where the index
    // cannot be read, that was said.
    if let (true, Err(error)) = (is_index_read, verify_layout(reader)) {
        report.damage.push(Damage {
            owner: None,
            message: chain(&error),
        });
    }
    Ok(())
}

/// Reads every block of a segment. Whether all of its index could be read.
fn verify_blocks(
    context: Context<'_>,
    reader: &SegmentReader,
    report: &mut SnapshotReport,
    totals: &mut BTreeMap<TableIndex, u64>,
) -> Result<bool, Error> {
    let mut runs = reader.runs();
    loop {
        context.check()?;
        let mut group = Vec::new();
        for run in runs.by_ref().take(RUNS_AT_ONCE) {
            match run {
                Ok(run) => group.push(run),
                Err(error) => {
                    let message = chain(&error);
                    report.damage.push(Damage {
                        owner: None,
                        message,
                    });
                    return Ok(false);
                }
            }
        }
        if group.is_empty() {
            return Ok(true);
        }
        let results: Vec<_> = context.resources.pool().install(|| {
            group
                .into_par_iter()
                .map(|run| (verify_run(reader, &run), run))
                .collect()
        });
        for (result, run) in results {
            match result {
                Ok(()) => {
                    report.rows_checked += run.row_count;
                    report.bytes_checked += run.stored_bytes;
                    *totals.entry(run.key.table).or_default() += run.row_count;
                }
                Err(message) => {
                    report.damage.push(Damage {
                        owner: Some(run.key.owner.clone()),
                        message,
                    });
                }
            }
            context.observer.observe(Event::Advanced {
                phase: Phase::Verify,
                rows: run.row_count,
                bytes: run.stored_bytes,
            });
        }
    }
}

fn verify_run(reader: &SegmentReader, run: &RunEntry) -> Result<(), String> {
    let mut opener = BlockOpener::new();
    let mut batch = RowBatch::new();
    let mut content = ContentDigest::EMPTY;
    for block in &run.blocks {
        reader
            .read_block_into(&run.key, block, &mut opener, &mut batch)
            .map_err(|error| chain(&error))?;
        for row in batch.iter() {
            content.add(row);
        }
    }
    if content == run.content {
        return Ok(());
    }
    Err(format!(
        "tenant {}, table {}: the rows are not those that the index describes",
        run.key.owner, run.key.table.0
    ))
}

pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(": ");
        message.push_str(&cause.to_string());
        source = cause.source();
    }
    message
}
