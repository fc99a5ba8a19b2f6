//! `verify`: reading snapshots back, or what a job left in the live store.

use reinstate::{
    JobDescription, Log, Restored, SnapshotReport, damaged_packs, jobs, log_of, logs,
    merge_receipt_of, plan_of, snapshots, verify, verify_log, verify_snapshot,
};
use reinstate_core::{ErrorKind, JobId, ObjectId, Owner, Phase, SnapshotDescription};
use reinstate_repository::LocalRepository;
use serde::Serialize;

use crate::arguments::Verify;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::point::PREFIX_DIGITS_MIN;
use crate::progress::Progress;
use crate::render::{bytes, count, counted, outcome_line, outcome_record, tenant};
use crate::resolve::describe;
use crate::session::Session;

/// How many damaged parts are listed for people.
const LISTED_MAX: usize = 50;

/// `verify [SNAPSHOT|JOB]`.
pub fn run(arguments: &Verify, session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let all = snapshots(&repository)?;
    let Some(prefix) = &arguments.id else {
        if all.is_empty() {
            return Err(
                Failure::new(ErrorKind::NotFound, "there is nothing to verify yet")
                    .next("reinstate capture once")
                    .into(),
            );
        }
        return verify_all(session, &repository, &all);
    };
    match find(&all, &jobs(&repository)?, prefix)? {
        Found::Snapshot(snapshot) => verify_all(session, &repository, &[*snapshot]),
        Found::Job(job) => verify_job(session, &repository, job),
    }
}

enum Found {
    Snapshot(Box<SnapshotDescription>),
    Job(JobId),
}

fn find(
    snapshots: &[SnapshotDescription],
    jobs: &[JobDescription],
    prefix: &str,
) -> Result<Found, Failure> {
    let digits = prefix
        .trim_start_matches("snap:")
        .trim_start_matches("job:");
    let digits = digits.to_ascii_lowercase();
    if digits.len() < PREFIX_DIGITS_MIN {
        let message = format!("id {prefix:?}: at least {PREFIX_DIGITS_MIN} digits are needed");
        return Err(Failure::usage(message));
    }
    let snapshots = snapshots.iter().map(|found| {
        (
            found.id.to_string(),
            Found::Snapshot(Box::new(found.clone())),
        )
    });
    let jobs = jobs
        .iter()
        .map(|found| (found.job.to_string(), Found::Job(found.job)));
    let mut found: Vec<_> = snapshots
        .chain(jobs)
        .filter(|(id, _)| id.starts_with(&digits))
        .collect();
    if found.len() > 1 {
        let ids: Vec<_> = found.iter().map(|(id, _)| id.as_str()).collect();
        let message = format!(
            "{digits:?} begins several snapshots or jobs: {}",
            ids.join(", ")
        );
        return Err(Failure::new(ErrorKind::NotFound, message).next("type more digits"));
    }
    found.pop().map(|(_, found)| found).ok_or_else(|| {
        let message = format!("no snapshot and no job begins with {digits:?}");
        Failure::new(ErrorKind::NotFound, message).next("reinstate snapshots")
    })
}

#[derive(Serialize)]
struct VerifiedRecord {
    #[serde(rename = "type")]
    record: &'static str,
    snapshot: String,
    log_runs: Option<u64>,
    intact: bool,
    rows_checked: u64,
    bytes_checked: u64,
    damage: Vec<DamageRecord>,
}

#[derive(Serialize)]
struct DamageRecord {
    tenant: Option<String>,
    message: String,
}

fn verify_all(
    session: &Session<'_>,
    repository: &LocalRepository,
    snapshots: &[SnapshotDescription],
) -> anyhow::Result<Exit> {
    let mut damaged = 0;
    for snapshot in snapshots {
        let progress = Progress::new(&[Phase::Verify], 0);
        let report = verify_snapshot(session.context(&progress), repository, snapshot)?;
        progress.clear();
        damaged += usize::from(!show(session, snapshot, None, &report));
        let log = log_of(repository, snapshot.id)?;
        if log.runs().is_empty() && log.damage().is_none() {
            continue;
        }
        let report = verify_log(session.context(&progress), repository, &log)?;
        progress.clear();
        damaged += usize::from(!show(session, snapshot, Some(&log), &report));
    }
    damaged += lost(session, repository)?;
    for (name, what) in damaged_packs(repository)? {
        damaged += 1;
        session.console.line(format_args!(
            "DAMAGED   pack {} of a log: {what}. The records that it holds are used in its place, as long as \
             they are there",
            ObjectId::from_bytes(name)
        ));
    }
    if damaged == 0 {
        return Ok(Exit::Done);
    }
    let message = format!(
        "{} damaged; tenants that are not named can still be restored from the rest",
        counted(
            damaged as u64,
            "snapshot or log is",
            "snapshots or logs are"
        )
    );
    Err(Failure::new(ErrorKind::Corrupt, message)
        .next("take a new snapshot: reinstate capture once")
        .into())
}

/// Names the runs that no log leads to; returns how many.
fn lost(session: &Session<'_>, repository: &LocalRepository) -> anyhow::Result<usize> {
    let (_, unreachable) = logs(repository)?;
    for lost in &unreachable {
        let place = lost.place.map_or_else(
            || "which cannot be read".to_owned(),
            |(snapshot, number)| format!("run {number} of the log of {}", snapshot.short()),
        );
        session.console.line(format_args!(
            "DAMAGED   log record {}, {place}: a record before it is missing",
            ObjectId::from_bytes(lost.name)
        ));
    }
    Ok(unreachable.len())
}

/// Shows what was found in a snapshot, or in its log; returns whether all is well.
fn show(
    session: &Session<'_>,
    snapshot: &SnapshotDescription,
    log: Option<&Log>,
    report: &SnapshotReport,
) -> bool {
    let console = session.console;
    let owner = |owner: &Owner| match owner {
        Owner::Shared => "shared rows".to_owned(),
        Owner::Tenant(id) => tenant(&snapshot.tenant_kind, id).to_string(),
    };
    let damage: Vec<_> = report
        .damage
        .iter()
        .map(|damage| DamageRecord {
            tenant: damage.owner.as_ref().map(owner),
            message: damage.message.clone(),
        })
        .collect();
    let intact = damage.is_empty();
    let what = match log {
        None => describe(snapshot),
        Some(log) => format!(
            "{} of its log, through {}",
            counted(log.runs().len() as u64, "run", "runs"),
            log.through().display(snapshot.notation)
        ),
    };
    console.line(format_args!(
        "{}    {what}: {} {}, {} read back{}",
        if intact { "intact" } else { "DAMAGED" },
        count(report.rows_checked),
        if log.is_none() { "rows" } else { "changes" },
        bytes(report.bytes_checked),
        if intact {
            ""
        } else {
            " and good; the rest is not"
        }
    ));
    for part in damage.iter().take(LISTED_MAX) {
        let whose = part.tenant.as_deref().unwrap_or("a whole segment");
        console.line(format_args!("  ! {whose}: {}", part.message));
    }
    if damage.len() > LISTED_MAX {
        console.line(format_args!("  ! and {} more", damage.len() - LISTED_MAX));
    }
    console.record(&VerifiedRecord {
        record: "verified",
        snapshot: snapshot.id.to_string(),
        log_runs: log.map(|log| log.runs().len() as u64),
        intact,
        rows_checked: report.rows_checked,
        bytes_checked: report.bytes_checked,
        damage,
    });
    intact
}

fn verify_job(
    session: &Session<'_>,
    repository: &LocalRepository,
    job: JobId,
) -> anyhow::Result<Exit> {
    let console = session.console;
    let store = session.store()?;
    let plan = plan_of(repository, job)?;
    let description = plan.plan().description();
    let progress = Progress::new(&[Phase::Verify], description.tenants.len());
    let context = session.context(&progress);
    let (mut proven, mut applied) = (0, 0);
    for part in &description.tenants {
        let name = tenant(&description.tenant_kind, &part.tenant).to_string();
        let Some(entry) = store.journal_entry(job, &part.tenant)? else {
            progress.clear();
            console.line(format_args!(
                "not changed {name}    the job committed nothing of it"
            ));
            continue;
        };
        applied += 1;
        let receipt = merge_receipt_of(&plan, store.as_ref(), repository, &entry)?;
        let verdict = verify(context, plan.plan(), &receipt, store.as_ref())?;
        proven += usize::from(verdict.is_restored());
        let restored = Restored { receipt, verdict };
        progress.clear();
        console.line(outcome_line(
            "as left",
            &name,
            &restored,
            description.notation,
        ));
        console.record(&outcome_record(&name, &restored, description.notation));
    }
    if proven == applied {
        console.line(format_args!(
            "job {}    {} as the job left it",
            job.short(),
            counted(applied as u64, "tenant is", "tenants are")
        ));
        return Ok(Exit::Done);
    }
    let message = format!(
        "{} of {applied} tenants are not as job {} left them: their users may have written since",
        applied - proven,
        job.short()
    );
    let next = "see what differs: reinstate diff TENANT@latest live --rows";
    Err(Failure::new(ErrorKind::Unverified, message)
        .next(next)
        .into())
}
