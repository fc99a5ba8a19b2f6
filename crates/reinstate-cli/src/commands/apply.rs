//! `apply` and `restore`.

use reinstate::{NoteKind, PlanDescription};
use reinstate_core::Phase;

use super::copying::Target;
use super::plan::{Request, make};
use super::run::Run;
use crate::adapters;
use crate::arguments::{Apply, Restore};
use crate::exit::Exit;
use crate::render::{plan_head, plan_tables, record_plan};
use crate::session::Session;

/// `apply FILE`.
pub fn run(arguments: &Apply, session: &Session<'_>) -> anyhow::Result<Exit> {
    let file = &arguments.file;
    let (_, plan) = adapters::open_plan_file(file)?;
    let description = plan.description();
    let console = session.console;
    record_plan(
        console,
        description,
        plan.digest(),
        Some(&file.display().to_string()),
    );
    let lines = plan_head(description)
        .into_iter()
        .chain(plan_tables(description));
    lines.for_each(|line| console.line(line));
    console.line(format_args!("plan     {}", plan.digest()));
    let repository = session.repository()?;
    let store = session.store()?;
    let digest = plan.digest().short();
    let file_text = file.display();
    Run {
        session,
        repository: &repository,
        approval: &arguments.approval,
        pacing: &arguments.pacing,
        prove_isolation: arguments.prove_isolation,
        phases: &[Phase::Merge, Phase::Verify],
        done: done(description),
        approve_next: &format!("reinstate apply {file_text} --confirm-digest {digest}"),
        resume: &format!("reinstate apply {file_text}"),
    }
    .run(file, store.as_ref())
}

/// `restore TENANT... --at T`.
pub fn restore(arguments: &Restore, session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let store = session.store()?;
    let directory = tempfile::tempdir_in(session.spill_directory())?;
    let file = directory.path().join("restore.plan");
    let request = Request {
        whose: &arguments.whose,
        at: &arguments.at,
        policy: arguments.changes.policy(),
        check_owners: arguments.changes.check_owners,
        only_changed_by: &arguments.changes.only_changed_by,
        target: Target::parse(&arguments.copying, None)?,
        phases: &[Phase::Plan, Phase::Merge, Phase::Verify],
    };
    let written = make(session, &repository, store.as_ref(), &request, &file)?;
    record_plan(session.console, &written.description, written.digest, None);
    Run {
        session,
        repository: &repository,
        approval: &arguments.approval,
        pacing: &arguments.pacing,
        prove_isolation: arguments.prove_isolation,
        phases: request.phases,
        done: done(&written.description),
        approve_next: "make the plan a file, and approve its digest: reinstate plan ... --out FILE",
        resume: "run the same command again: what is restored stays",
    }
    .run(&file, store.as_ref())
}

/// What success is called.
fn done(plan: &PlanDescription) -> &'static str {
    let is_copy = plan.notes.iter().any(|note| note.kind == NoteKind::Copied);
    if is_copy { "created" } else { "restored" }
}
