//! `undo`: taking a restore back, as far as nobody changed the rows since.

use reinstate::{DriftRules, JobDescription, OwnerCheck, PlanRequest, jobs, plan_undo_of};
use reinstate_core::{ErrorKind, JobId, Phase, Policy, Repository};

use super::run::Run;
use crate::adapters;
use crate::arguments::Undo;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::point::PREFIX_DIGITS_MIN;
use crate::progress::Progress;
use crate::render::{plan_head, plan_tables, record_plan};
use crate::session::{Session, new_job, now};

const PHASES: [Phase; 3] = [Phase::Plan, Phase::Merge, Phase::Verify];

/// `undo JOB`.
pub fn run(arguments: &Undo, session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let job = find_job(&jobs(&repository)?, &arguments.job)?;
    let store = session.store()?;
    let directory = tempfile::tempdir_in(session.spill_directory())?;
    let kept = arguments.out.as_deref();
    let temporary = directory.path().join("undo.plan");
    let file = kept.unwrap_or(&temporary);
    let request = PlanRequest {
        job: new_job()?,
        repository: repository.id(),
        policy: Policy {
            on_conflict: arguments.on_conflict.into(),
            ..Policy::EXACT
        },
        drift: DriftRules::default(),
        check_owners: OwnerCheck::Off,
        planned_at: now(),
    };
    let progress = Progress::new(&PHASES, 0);
    let output = adapters::create_plan_file(file)?;
    let context = session.context(&progress);
    let written = plan_undo_of(context, &repository, store.as_ref(), job, &request, output)?;
    progress.clear();
    let console = session.console;
    let description = &written.description;
    let file_text = kept.map(|file| file.display().to_string());
    record_plan(console, description, written.digest, file_text.as_deref());
    let lines = plan_head(description)
        .into_iter()
        .chain(plan_tables(description));
    lines.for_each(|line| console.line(line));
    if let Some(file) = file_text {
        console.line(format_args!("saved    {file}  {}", written.digest));
        console.note(format_args!("next: reinstate apply {file}"));
        return Ok(Exit::Done);
    }
    let short = job.short();
    Run {
        session,
        repository: &repository,
        approval: &arguments.approval,
        pacing: &arguments.pacing,
        prove_isolation: false,
        phases: &PHASES,
        done: "undone",
        approve_next: &format!(
            "make the plan a file, and approve its digest: reinstate undo {short} --out FILE"
        ),
        resume: &format!("reinstate undo {short}"),
    }
    .run(file, store.as_ref())
}

/// Chooses a job by the first digits of its id.
///
/// # Errors
/// `NotFound` if none or several begin like that; the message names the candidates.
pub fn find_job(jobs: &[JobDescription], prefix: &str) -> Result<JobId, Failure> {
    let digits = prefix
        .strip_prefix("job:")
        .unwrap_or(prefix)
        .to_ascii_lowercase();
    if digits.len() < PREFIX_DIGITS_MIN {
        let message = format!("job {prefix:?}: at least {PREFIX_DIGITS_MIN} digits are needed");
        return Err(Failure::usage(message));
    }
    let found: Vec<_> = jobs
        .iter()
        .filter(|job| job.job.to_string().starts_with(&digits))
        .collect();
    match found.as_slice() {
        [job] => Ok(job.job),
        [] => {
            let known: Vec<_> = jobs
                .iter()
                .rev()
                .take(5)
                .map(|job| job.job.short())
                .collect();
            let next = match known.as_slice() {
                [] => "there are no jobs yet".to_owned(),
                known => format!("the latest jobs are {}", known.join(", ")),
            };
            let message = format!("no job begins with {digits:?}");
            Err(Failure::new(ErrorKind::NotFound, message).next(next))
        }
        several => {
            let ids: Vec<_> = several.iter().map(|job| job.job.to_string()).collect();
            let message = format!("{digits:?} begins several jobs: {}", ids.join(", "));
            Err(Failure::new(ErrorKind::NotFound, message).next("type more digits"))
        }
    }
}
