//! `plan`: what it takes to bring tenants back, saved to a file.

use std::path::{Path, PathBuf};

use reinstate::{
    Context, CopyRequest, OwnerCheck, PlanRequest, Since, TenantImage, WrittenPlan, plan_copy,
    plan_since,
};
use reinstate_core::{
    ErrorKind, LiveStore, Phase, Policy, Position, PositionNotation, Repository, RowRef, Silent,
    TableSchema, Tenant,
};
use serde::Serialize;

use super::copying::{RemapFile, Target};
use super::tenants::{extract_all, parse_tenants};
use crate::adapters;
use crate::arguments::{At, OnOff, Plan};
use crate::console::Console;
use crate::exit::{Exit, next_step};
use crate::failure::Failure;
use crate::point::PointInTime;
use crate::progress::Progress;
use crate::render::{bytes, counted, plan_head, plan_tables, record_plan, totals};
use crate::resolve::Match;
use crate::session::{Session, new_job, now};

/// `plan TENANT... --at T --out FILE`.
pub fn run(arguments: &Plan, session: &Session<'_>) -> anyhow::Result<Exit> {
    let repository = session.repository()?;
    let store = session.store()?;
    let request = Request {
        tenants: parse_tenants(&arguments.whose)?,
        at: &arguments.at,
        policy: arguments.changes.policy(),
        check_owners: arguments.changes.check_owners,
        only_changed_by: &arguments.changes.only_changed_by,
        target: Target::parse(&arguments.copying, Some(&arguments.out))?,
        phases: &[Phase::Plan],
    };
    let written = make(
        session,
        &repository,
        store.as_ref(),
        &request,
        &arguments.out,
    )?;
    let console = session.console;
    let file = arguments.out.display().to_string();
    record_plan(console, &written.description, written.digest, Some(&file));
    let all = totals(&written.description);
    console.line(format_args!("saved    {file}  {}", written.digest));
    if all.conflict > 0 {
        console.note(format_args!(
            "{}: plan again with --on-conflict keep-live, or look: reinstate show {file} \
             --rows",
            counted(all.conflict, "conflict", "conflicts")
        ));
    } else if all.changed() > 0 {
        console.note(format_args!("next: reinstate apply {file}"));
    }
    if arguments.detailed_exitcode && all.changed() + all.conflict > 0 {
        return Ok(Exit::Changes);
    }
    Ok(Exit::Done)
}

/// What is planned.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// Whose rows.
    pub tenants: Vec<Tenant>,
    /// When.
    pub at: &'a At,
    /// Which changes.
    pub policy: Policy,
    /// Whether rows to delete are looked for among other tenants'; as configured, if none.
    pub check_owners: Option<OnOff>,
    /// The transactions that are taken back; everything is, if none.
    pub only_changed_by: &'a [String],
    /// Where it is copied to, if it is.
    pub target: Option<Target>,
    /// The phases of the whole run, for the progress.
    pub phases: &'a [Phase],
}

/// Makes a plan, saves it to the file and shows it.
///
/// # Errors
/// See [`plan_since`] and [`extract_all`].
pub fn make(
    session: &Session<'_>,
    repository: &dyn Repository,
    store: &dyn LiveStore,
    request: &Request<'_>,
    out: &Path,
) -> anyhow::Result<WrittenPlan> {
    let point = PointInTime::parse(&request.at.at)?;
    let wanted = Match::of(request.at.nearest_before).exclusive(request.at.exclusive);
    let resolved = session.resolve(repository, Some(store), &point, wanted)?;
    let only = transactions(request, resolved.snapshot.notation)?;
    resolved.announce(session.console, &point);
    let context = session.context(&Silent);
    let images = extract_all(context, repository, &resolved, &request.tenants)?;
    let check_owners = match request.check_owners {
        Some(OnOff::Off) => OwnerCheck::Off,
        None if !session.configuration.check_owners => OwnerCheck::Off,
        Some(OnOff::On) | None => OwnerCheck::In(repository),
    };
    let plan_request = PlanRequest {
        job: new_job()?,
        repository: repository.id(),
        policy: request.policy,
        drift: session.configuration.drift.clone(),
        check_owners,
        planned_at: now(),
    };
    let progress = Progress::new(request.phases, images.len());
    let context = session.context(&progress);
    let written = match &request.target {
        None => {
            let output = adapters::create_plan_file(out)?;
            let since = Since {
                repository,
                log: &resolved.log,
                only: &only,
            };
            plan_since(context, &images, store, &plan_request, since, output)?
        }
        Some(target) => make_copy(
            session,
            context,
            &images,
            store,
            (&plan_request, target),
            out,
        )?,
    };
    progress.clear();
    let console = session.console;
    let description = &written.description;
    let head = plan_head(description)
        .into_iter()
        .chain(plan_tables(description));
    head.for_each(|line| console.line(line));
    show_cost(console, &images, written.owner_bytes_read);
    Ok(written)
}

/// The commits that `--only-changed-by` names.
fn transactions(request: &Request<'_>, notation: PositionNotation) -> Result<Vec<u64>, Failure> {
    let mut commits = Vec::with_capacity(request.only_changed_by.len());
    for text in request.only_changed_by {
        match PointInTime::parse(text)? {
            PointInTime::Commit {
                commit,
                notation: found,
            } if found == notation => commits.push(commit),
            _ => {
                let shown = Position {
                    commit: 1,
                    ordinal: 0,
                }
                .display(notation);
                let message = format!(
                    "--only-changed-by {text:?}: expected the position of a transaction, as in \
                     {shown}"
                );
                let next = "see which ones changed the tenant: reinstate diff TENANT@TIME live";
                return Err(Failure::usage(message).next(next));
            }
        }
    }
    if !commits.is_empty() && request.target.is_some() {
        let message = "--into creates rows and nothing else: --only-changed-by does not go with it";
        return Err(Failure::usage(message).next("reinstate plan --help"));
    }
    Ok(commits)
}

/// Plans a copy, and writes down which key became which.
fn make_copy(
    session: &Session<'_>,
    context: Context<'_>,
    images: &[TenantImage],
    store: &dyn LiveStore,
    (request, target): (&PlanRequest<'_>, &Target),
    out: &Path,
) -> anyhow::Result<WrittenPlan> {
    let [image] = images else {
        let message = "--into: one tenant can be copied at a time";
        return Err(Failure::usage(message).next("reinstate plan --help").into());
    };
    let exact = Policy {
        on_conflict: request.policy.on_conflict,
        ..Policy::EXACT
    };
    if request.policy != exact {
        let message = "--into creates rows and nothing else: --create, --put-back and --delete do \
                       not go with it";
        return Err(Failure::usage(message).next("reinstate plan --help").into());
    }
    let ids = (image.snapshot_id(), request.job);
    let create = |path: &PathBuf| RemapFile::create(path, image.tenant(), &target.tenant, ids);
    let remap = target.remap.as_ref().map(create).transpose()?;
    let output = adapters::create_plan_file(out)?;
    let copy = CopyRequest {
        tenant: target.tenant.clone(),
        rules: session.configuration.into.clone(),
    };
    let write = |table: &TableSchema, old: RowRef<'_>, new: RowRef<'_>| match &remap {
        Some(remap) => remap.write(table, old, new),
        None => Ok(()),
    };
    let written = plan_copy(context, image, store, request, &copy, &write, output);
    let written = written.map_err(|error| {
        let kind = error.kind();
        let message = format!("copy {} under the id {}", image.tenant(), target.tenant);
        let failure = Failure::new(kind, message).because(error);
        match kind {
            ErrorKind::Conflict => failure.next("choose another id: --into side:NEWID"),
            ErrorKind::Refused | ErrorKind::Usage => failure
                .next("docs/configuration.md has the section [into]; then run the command again"),
            kind => failure.next(next_step(kind)),
        }
    })?;
    if let Some(remap) = remap {
        let path = remap.seal()?;
        session
            .console
            .note(format_args!("new keys {}", path.display()));
    }
    Ok(written)
}

#[derive(Serialize)]
struct CostRecord {
    #[serde(rename = "type")]
    record: &'static str,
    bytes_read: u64,
    stored_bytes: u64,
    owner_bytes_read: u64,
}

fn show_cost(console: &Console, images: &[TenantImage], owner_bytes_read: u64) {
    let of_images: u64 = images.iter().map(TenantImage::bytes_read).sum();
    let bytes_read = of_images + owner_bytes_read;
    let stored_bytes = images.iter().map(TenantImage::stored_bytes).sum();
    console.record(&CostRecord {
        record: "cost",
        bytes_read,
        stored_bytes,
        owner_bytes_read,
    });
    let others = match owner_bytes_read {
        0 => String::new(),
        read => format!("; {} to find out whose rows to delete were", bytes(read)),
    };
    console.line(format_args!(
        "cost     {} read from the repository (the tenants' own: {}{others})",
        bytes(bytes_read),
        bytes(stored_bytes)
    ));
}
