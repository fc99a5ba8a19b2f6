//! The report of a job: what the repository knows of its plan and of its merges.

use reinstate::{
    CommitReceipt, JobDescription, PlanDescription, PlanNote, ReceiptDescription, StoredPlan,
    TenantPlanDescription, job_of, plan_of, receipt_of,
};
use reinstate_core::{
    ChangeCounts, ErrorKind, JobId, Position, Repository, SequenceRaise, TenantId, Timestamp,
};

use super::data_loss_window;
use super::page::{Fact, Numbers, Page, Part, Status, Subject, TableLine, content};
use crate::failure::{Failure, one_line};
use crate::render::{count, counted, tenant};

/// What the outcome of a job rests on.
const PROOF: &str = "A merge is one transaction. Before it is committed, the rows that the store itself counted as changed \
    are compared with the plan, and every table of the tenant is read back inside of the transaction and compared with \
    the contents expected here; if anything differs, nothing is committed. A receipt is therefore a proof of what was \
    there at its commit. What was written to the tenant after that is not in it: reinstate verify JOB compares the \
    live store with it.";

/// Makes the page of a job, or of one tenant of it.
///
/// # Errors
/// `NotFound` if there is no such job, or the tenant is not in it; `Altered` if its plan is damaged.
pub(super) fn page(
    repository: &dyn Repository,
    job: JobId,
    only: Option<&TenantId>,
    store: &StoreAnswer<'_>,
    written_at: Timestamp,
) -> anyhow::Result<Page> {
    let noted = job_of(repository, job)?;
    let stored = plan_of(repository, job)?;
    let plan = stored.plan().description();
    let mut subjects = Vec::new();
    let mut all = Totals::default();
    let mut unasked = None;
    for (number, part) in plan.tenants.iter().enumerate() {
        if only.is_some_and(|only| *only != part.tenant) {
            continue;
        }
        let mut commit = receipt_of(repository, job, &part.tenant)?.map(Commit::from);
        if commit.is_none() && numbers(part).counts.total() > 0 {
            // The receipt may be lost, or the run have ended before it was kept.
            match store(&stored, &part.tenant) {
                Ok(found) => commit = found,
                Err(error) => unasked = Some(one_line(error.as_ref())),
            }
        }
        all.add(part, commit.as_ref());
        subjects.push(subject(number, plan, part, commit.as_ref()));
    }
    if let (Some(only), []) = (only, subjects.as_slice()) {
        let name = tenant(&plan.tenant_kind, only);
        let message = format!("job {} has no tenant {name}", job.short());
        return Err(Failure::new(ErrorKind::NotFound, message)
            .next("see who is in it: reinstate report JOB without --tenant")
            .into());
    }
    all.unasked = unasked;
    Ok(compose(&noted, &stored, subjects, &all, written_at))
}

/// What the store's own journal knows of the merge of a tenant, for one without a receipt.
pub(super) type StoreAnswer<'a> =
    dyn Fn(&StoredPlan, &TenantId) -> anyhow::Result<Option<Commit>> + 'a;

/// What is known of a commit.
#[derive(Clone, Debug)]
pub(super) struct Commit {
    position: Position,
    /// When its receipt was kept; none if the store's journal alone knows of it.
    noted: Option<Timestamp>,
    sequences_raised: Vec<SequenceRaise>,
}

impl From<ReceiptDescription> for Commit {
    fn from(receipt: ReceiptDescription) -> Self {
        Self {
            position: receipt.position,
            noted: Some(receipt.merged_at),
            sequences_raised: receipt.sequences_raised,
        }
    }
}

impl From<CommitReceipt> for Commit {
    fn from(committed: CommitReceipt) -> Self {
        Self {
            position: committed.position,
            noted: None,
            sequences_raised: committed.sequences_raised,
        }
    }
}

/// What all tenants of the report come to.
#[derive(Debug, Default)]
struct Totals {
    tenants: u64,
    committed: u64,
    unchanged: u64,
    left: u64,
    counts: ChangeCounts,
    /// Of how many commits there is no receipt.
    unkept: u64,
    /// Why the store could not be asked about those without a receipt, if it had to be.
    unasked: Option<String>,
}

impl Totals {
    fn add(&mut self, part: &TenantPlanDescription, commit: Option<&Commit>) {
        self.tenants += 1;
        let numbers = numbers(part);
        match commit {
            Some(commit) => {
                self.committed += 1;
                self.unkept += u64::from(commit.noted.is_none());
                self.counts += numbers.counts;
                self.left += numbers.left;
            }
            None if numbers.counts.total() == 0 => {
                self.unchanged += 1;
                self.left += numbers.left;
            }
            None => {}
        }
    }

    fn missing(&self) -> u64 {
        self.tenants - self.committed - self.unchanged
    }
}

fn numbers(part: &TenantPlanDescription) -> Numbers {
    let mut all = Numbers::default();
    part.tables
        .iter()
        .for_each(|table| all.add(Numbers::of(table)));
    all
}

fn compose(
    noted: &JobDescription,
    stored: &StoredPlan,
    subjects: Vec<Subject>,
    all: &Totals,
    written_at: Timestamp,
) -> Page {
    let plan = stored.plan().description();
    let is_undo = plan.undoes.is_some();
    let status = match (all.missing(), all.left, all.committed) {
        (0, ..) if all.unkept > 0 => Status::warn("Committed, not known to be verified"),
        (0, 0, _) if is_undo => Status::good("Taken back"),
        (0, 0, _) => Status::good("Restored"),
        (0, _, _) => Status::warn("Restored in part"),
        (_, _, 0) => Status::bad("Not restored"),
        (missing, ..) => Status::bad(format!(
            "{} of {} missing",
            count(missing),
            count(all.tenants)
        )),
    };
    let whom = match subjects.as_slice() {
        [only] => only.name.clone(),
        _ => counted(all.tenants, "tenant", "tenants"),
    };
    let (kind, title) = match is_undo {
        true => ("Report of an undo", format!("Undo for {whom}")),
        false => ("Report of a restore", format!("Restore of {whom}")),
    };
    let mut evidence = vec![
        Fact::new("Job", noted.job),
        Fact::new("Plan, as it was approved and applied", noted.plan),
        Fact::new("Repository", plan.repository),
    ];
    evidence.extend(plan.undoes.map(|job| Fact::new("Takes back job", job)));
    Page {
        version: env!("CARGO_PKG_VERSION"),
        written_at: written_at.to_string(),
        kind,
        title,
        status,
        lede: lede(plan, all, is_undo),
        figures: vec![
            Fact::new("Rows created", count(all.counts.created)),
            Fact::new("Rows put back", count(all.counts.put_back)),
            Fact::new(
                if is_undo {
                    "Rows deleted"
                } else {
                    "Newer rows deleted"
                },
                count(all.counts.deleted),
            ),
            Fact::new("Left as they are", count(all.left)),
        ],
        cautions: cautions(plan, all, is_undo),
        moment: moment(noted, plan),
        each: "Tenant",
        subjects,
        proof: PROOF,
        evidence,
    }
}

fn lede(plan: &PlanDescription, all: &Totals, is_undo: bool) -> String {
    let done = all.committed + all.unchanged;
    let store = &plan.store.name;
    let whom = match (done, all.tenants) {
        (1, 1) => "The tenant is".to_owned(),
        (done, of) if done == of => format!("All {} are", counted(of, "tenant", "tenants")),
        (0, 1) => "The tenant is not".to_owned(),
        (done, of) => format!(
            "{} of {} are",
            count(done),
            counted(of, "tenant", "tenants")
        ),
    };
    match is_undo {
        true => format!("{whom} back in store {store} as before the job that was taken back."),
        false => format!("{whom} back in store {store} as of {}.", plan.point_time),
    }
}

/// What is lost, and what is missing.
fn cautions(plan: &PlanDescription, all: &Totals, is_undo: bool) -> Vec<String> {
    let mut cautions = Vec::new();
    let tenants = |count: u64| counted(count, "tenant", "tenants");
    match &all.unasked {
        Some(why) => cautions.push(format!(
            "There is no receipt for {}: nothing was committed for them, or the run ended before it was noted. \
             The store's journal knows, and could not be asked: {why}.",
            tenants(all.missing())
        )),
        None if all.missing() > 0 => cautions.push(format!(
            "There is no receipt for {}, and the store's journal knows of no commit: nothing was committed for them.",
            tenants(all.missing())
        )),
        None => {}
    }
    if all.unkept > 0 {
        cautions.push(format!(
            "There is no receipt for {}, of which the store's own journal knows that its rows were committed: the \
             run ended before the receipt was kept, or it is lost. Whether they were read back afterwards is not \
             known: reinstate verify JOB does it.",
            tenants(all.unkept)
        ));
    }
    if !is_undo && all.counts.total() > 0 {
        cautions.push(data_loss_window(
            plan.point_time,
            plan.planned_at,
            all.counts,
            "Both are kept in the plan: reinstate undo brings them back.",
        ));
    }
    if all.left > 0 {
        cautions.push(format!(
            "{} differ from what they were and were left alone; the tables say where.",
            counted(all.left, "row", "rows")
        ));
    }
    cautions
}

fn moment(noted: &JobDescription, plan: &PlanDescription) -> Vec<Fact> {
    let shown = |position: Position| position.display(plan.notation);
    let mut facts = vec![Fact::new("Store", &plan.store.name)];
    match plan.undoes {
        Some(job) => facts.push(Fact::new("As before job", job.short())),
        None => facts.extend([
            Fact::new("Went back to", plan.point_time),
            Fact::new("Which is position", shown(plan.point)),
            Fact::new("From snapshot", plan.snapshot.short()),
        ]),
    }
    facts.extend([
        Fact::new("Compared with the store of", plan.planned_at),
        Fact::new("Which is position", shown(plan.live_position)),
        Fact::new("Applied from", noted.started_at),
    ]);
    facts
}

fn subject(
    number: usize,
    plan: &PlanDescription,
    part: &TenantPlanDescription,
    commit: Option<&Commit>,
) -> Subject {
    let all = numbers(part);
    let is_undo = plan.undoes.is_some();
    let (status, remark) = match commit {
        None if all.counts.total() > 0 => (
            Status::bad("Not restored"),
            "No receipt: nothing was committed, as far as is known.",
        ),
        Some(Commit { noted: None, .. }) => (
            Status::warn("Committed"),
            "No receipt: the store's own journal says so.",
        ),
        _ if all.left > 0 => (
            Status::warn("Restored in part"),
            "Some rows differ and were left alone.",
        ),
        None => (
            Status::still("Nothing to change"),
            "The tenant was as it should be already.",
        ),
        Some(_) if is_undo => (Status::good("Taken back"), ""),
        Some(_) => (Status::good("Restored"), ""),
    };
    let changed = commit.map_or(0, |_| all.counts.total());
    Subject {
        anchor: format!("tenant-{number}"),
        name: tenant(&plan.tenant_kind, &part.tenant).to_string(),
        status,
        rows_changed: count(changed),
        remark: remark.to_owned(),
        parts: vec![tenant_part(plan, part, commit)],
        gates: Vec::new(),
    }
}

/// A tenant of one stored plan, with what is known of its commit.
pub(super) fn tenant_part(
    plan: &PlanDescription,
    part: &TenantPlanDescription,
    commit: Option<&Commit>,
) -> Part {
    let name = |table| plan.schema.table(table).name.to_string();
    let mut facts = Vec::new();
    let mut evidence = Vec::new();
    if plan.undoes.is_none() {
        evidence.push(Fact::new("Image in the snapshot", part.image_digest));
    }
    if let Some(commit) = commit {
        let position = commit.position.display(plan.notation);
        facts.push(Fact::new("Committed at", position));
        facts.extend(commit.noted.map(|at| Fact::new("Noted", at)));
    }
    let tables = part.tables.iter();
    let expected = tables
        .clone()
        .filter(|table| table.expected.row_count() > 0);
    evidence.extend(expected.map(|table| {
        let name = format!("Contents of {} after", name(table.table));
        Fact::new(name, content(table.expected))
    }));
    let raised = commit.iter().flat_map(|commit| &commit.sequences_raised);
    let mut missing: Vec<String> = part
        .notes
        .iter()
        .chain(&plan.notes)
        .map(note_text)
        .collect();
    missing.extend(conflicts(plan, part));
    missing.extend(raised.map(|raise| {
        format!(
            "Counter {} was raised, so that restored numbers are not handed out again.",
            raise.name
        )
    }));
    Part {
        name: String::new(),
        facts,
        tables: tables
            .map(|table| TableLine {
                name: name(table.table),
                numbers: Numbers::of(table).cells(),
            })
            .collect(),
        totals: numbers(part).cells(),
        missing,
        evidence,
    }
}

/// Rows whose place was taken: how many, in which table, by what; not which.
fn conflicts(plan: &PlanDescription, part: &TenantPlanDescription) -> Vec<String> {
    let mut reasons = std::collections::BTreeMap::new();
    for conflict in &part.conflicts {
        let place = (conflict.table, conflict.constraint.as_str());
        *reasons.entry(place).or_insert(0_u64) += 1;
    }
    let lines = reasons.into_iter().map(|((table, reason), rows)| {
        let table = &plan.schema.table(table).name;
        format!(
            "{table}: {} left out: {reason}",
            counted(rows, "row", "rows")
        )
    });
    lines.collect()
}

fn note_text(note: &PlanNote) -> String {
    match note.count {
        0 => format!("{}: {}", note.object, note.detail),
        rows => format!(
            "{}: {} ({})",
            note.object,
            note.detail,
            counted(rows, "row", "rows")
        ),
    }
}
