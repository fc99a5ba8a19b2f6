//! `apply` and `restore`.

use reinstate::{Fences, NoteKind, PlanDescription};
use reinstate_core::{ErrorKind, LiveStore, Phase, Silent, Tenant, TenantId};

use super::copying::Target;
use super::plan::{Request, make};
use super::run::Run;
use super::tenants::parse_tenants;
use crate::adapters;
use crate::arguments::{Apply, Restore};
use crate::exit::Exit;
use crate::failure::Failure;
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
        tenants: parse_tenants(&arguments.whose)?,
        at: &arguments.at,
        policy: arguments.changes.policy(),
        check_owners: arguments.changes.check_owners,
        only_changed_by: &arguments.changes.only_changed_by,
        target: Target::parse(&arguments.copying, None)?,
        phases: &[Phase::Plan, Phase::Merge, Phase::Verify],
    };
    let fences = match arguments.fence {
        true => raise_fences(session, store.as_ref(), &request.tenants)?,
        false => Fences::default(),
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
    .run_behind(fences, &file, store.as_ref())
}

/// How many tenants can be fenced for a whole run: each takes a connection, and their users wait until the
/// last one is restored.
const FENCES_MAX: usize = 16;

fn raise_fences<'l>(
    session: &Session<'_>,
    store: &'l dyn LiveStore,
    tenants: &[Tenant],
) -> anyhow::Result<Fences<'l>> {
    if tenants.len() > FENCES_MAX {
        let message = format!(
            "--fence keeps every tenant's users waiting from the first plan to the last verdict: {} \
             tenants are more than {FENCES_MAX}",
            tenants.len()
        );
        let next = "restore them in smaller runs, or leave --fence out: where the fence is installed, \
                    each tenant is behind it while it is merged and verified";
        return Err(Failure::usage(message).next(next).into());
    }
    let ids: Vec<TenantId> = tenants.iter().map(|tenant| tenant.id.clone()).collect();
    let raised = Fences::raise(session.context(&Silent), store, &ids);
    raised.map_err(|error| match error.kind() {
        ErrorKind::Refused => {
            let next = "put it up on a PostgreSQL store: reinstate guard install --fence. An embedded \
                        store needs none: nobody but this program has its file open";
            let message = "--fence asks for a fence";
            let failure = Failure::new(ErrorKind::Refused, message).because(error);
            failure.next(next).into()
        }
        _ => error.into(),
    })
}

/// What success is called.
fn done(plan: &PlanDescription) -> &'static str {
    let is_copy = plan.notes.iter().any(|note| note.kind == NoteKind::Copied);
    if is_copy { "created" } else { "restored" }
}
