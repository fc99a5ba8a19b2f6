//! Merge: the only function that writes to a live store.
//!
//! One tenant, one transaction, all or nothing: the rows, and the journal's entry that says so.
//! Before the commit the store's own count of what changed is compared with the plan, and the
//! tenant is read back inside the transaction.
//!
//! *Crash consistency*: the plan, which holds every row as it is before, lies durably in the
//! repository before the first write: [`StoredPlan`] is the proof. A process that dies before the
//! commit changed nothing; one that dies after it finds the journal's entry.

use std::time::Duration;

use reinstate_core::{
    ChangeCounts, ChangeSource, Committed, ContentDigest, Digest, ErrorKind, Event, Fingerprint,
    JobId, JournalEntry, LiveStore, Phase, Position, Repository, SequenceRaise, SnapshotId,
    StoreError, TableIndex, TableName, Tenant, TenantFence, TenantId, TenantWriter, Timestamp,
};
use reinstate_format::{
    JournalPayload, NoteKind, PlanDescription, ReceiptDescription, TenantPlanDescription,
    encode_journal_payload, encode_receipt,
};

use crate::contents::digest_rows;
use crate::plan::{StoredPlan, are_unchanged, is_blocked, obstacles};
use crate::{Context, Error};

/// Name of the kind of record that a receipt is.
pub(crate) const RECEIPT_RECORD: &str = "receipt";

/// How often a merge is tried when other writers come in the way.
const ATTEMPTS_MAX: u32 = 5;
/// The wait before the second attempt; each next one waits twice as long.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// How often the journal is asked when a commit gave no answer.
const JOURNAL_READS_MAX: u32 = 20;
/// The wait after each time that it could not be read.
const JOURNAL_PAUSE: Duration = Duration::from_millis(500);

/// What a merge did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergeReceipt {
    /// The run.
    pub job: JobId,
    /// Whose rows.
    pub tenant: TenantId,
    /// The plan that was applied.
    pub plan: Digest,
    /// The snapshot it came from.
    pub snapshot: SnapshotId,
    /// What changed, by table, as the store counted it.
    pub applied: Vec<(TableIndex, TableName, ChangeCounts)>,
    /// The commit; none if there was nothing to write, so that nothing was.
    pub committed: Option<CommitReceipt>,
}

/// The commit of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitReceipt {
    /// Where in the store's order it is.
    pub position: Position,
    /// What marks its rows.
    pub mark: Vec<u8>,
    /// Counters that were raised.
    pub sequences_raised: Vec<SequenceRaise>,
    /// The state of the tenant, as [`state_read_back`](TenantWriter::state_read_back) told it; none if that
    /// is not known, or not any more.
    pub state: Option<Fingerprint>,
}

impl From<Committed> for CommitReceipt {
    fn from(committed: Committed) -> Self {
        Self {
            position: committed.position,
            mark: committed.commit_mark,
            sequences_raised: committed.sequences_raised,
            state: None,
        }
    }
}

impl MergeReceipt {
    /// How many rows changed.
    #[must_use]
    pub fn changed_rows(&self) -> u64 {
        self.applied
            .iter()
            .map(|(_, _, counts)| counts.total())
            .sum()
    }
}

/// Applies one tenant's part of a stored plan to the live store.
///
/// Writes nothing at all when the plan has no change for the tenant. Waits for the context's pace before
/// the transaction begins; inside of it only where nobody has to wait meanwhile.
///
/// # Errors
/// `Stale` if the live tenant or the tables changed since the plan was made; `Altered` if the
/// plan is damaged or belongs to another store, or the job was already applied; `Conflict` if the
/// plan has conflicts that its policy does not settle; `Refused` if the plan notes an obstacle, or
/// what changed is not what the plan says; `OutcomeUnknown` if the store went away during the commit and does not come back.
/// With every error but the last nothing was written.
pub fn merge(
    context: Context<'_>,
    plan: &StoredPlan,
    tenant: &TenantId,
    live: &dyn LiveStore,
) -> Result<MergeReceipt, Error> {
    merge_behind(context, plan, tenant, live, &mut None)
}

/// The same, behind a fence that is up already; or behind one that it puts up before its transaction
/// begins, where the store has one, and leaves up if something was committed.
///
/// # Errors
/// As [`merge`].
pub(crate) fn merge_behind<'l>(
    context: Context<'_>,
    plan: &StoredPlan,
    tenant: &TenantId,
    live: &'l dyn LiveStore,
    fence: &mut Option<Box<dyn TenantFence + 'l>>,
) -> Result<MergeReceipt, Error> {
    let description = plan.plan().description();
    let part = check_request(plan, tenant, live)?;
    let planned: ChangeCounts = part
        .tables
        .iter()
        .fold(ChangeCounts::NONE, |mut sum, table| {
            sum += table.counts;
            sum
        });
    let mut receipt = MergeReceipt {
        job: description.job,
        tenant: tenant.clone(),
        plan: plan.plan().digest(),
        snapshot: description.snapshot,
        applied: planned_counts(description, part),
        committed: None,
    };
    if planned.total() == 0 {
        check_unchanged(part, live)?;
        return Ok(receipt);
    }
    let whose = Tenant {
        kind: description.tenant_kind.clone(),
        id: tenant.clone(),
    };
    context.observer.observe(Event::Started {
        phase: Phase::Merge,
        tenant: Some(&whose),
        rows_expected: Some(planned.total()),
    });
    let entry = JournalEntry {
        job: description.job,
        tenant: tenant.clone(),
        plan: plan.plan().digest(),
        payload: encode_journal_payload(&JournalPayload {
            snapshot: description.snapshot,
            plan_object: plan.object(),
            counts: planned,
        }),
    };
    let committed = attempt(context, plan, part, live, fence, &entry)?;
    context.observer.observe(Event::Finished {
        phase: Phase::Merge,
        tenant: Some(&whose),
    });
    receipt.committed = Some(committed);
    Ok(receipt)
}

fn check_request<'p>(
    plan: &'p StoredPlan,
    tenant: &TenantId,
    live: &dyn LiveStore,
) -> Result<&'p TenantPlanDescription, Error> {
    let description = plan.plan().description();
    let identity = live.identity();
    if description.store.id != identity.id {
        let message = format!(
            "the plan was made for store {} ({}), this one is {} ({})",
            description.store.name, description.store.id, identity.name, identity.id
        );
        return Err(Error::new(ErrorKind::Altered, message));
    }
    let part = plan.plan().tenant(tenant).ok_or_else(|| {
        Error::new(
            ErrorKind::NotFound,
            format!("the plan has no tenant {tenant}"),
        )
    })?;
    if is_blocked(description.policy, part) {
        let conflicts: u64 = part.tables.iter().map(|table| table.conflicts).sum();
        let message = format!(
            "{conflicts} rows of {tenant} conflict: see them with `reinstate show --rows`, then \
             plan again with --on-conflict keep-live to leave them out"
        );
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    let obstacles: Vec<_> = obstacles(description, part)
        .map(|note| format!("{} {}", note.object, note.detail))
        .collect();
    if !obstacles.is_empty() {
        let message = format!("restore {tenant}: {}", obstacles.join("; "));
        return Err(Error::new(ErrorKind::Refused, message));
    }
    let found = live
        .journal_entry(description.job, tenant)
        .map_err(Error::store("read the store's journal"))?;
    if found.is_some() {
        let message = format!("the plan was already applied to {tenant}. Make a new one");
        return Err(Error::new(ErrorKind::Stale, message));
    }
    Ok(part)
}

/// Refuses a plan without changes for a tenant that changed since it was made.
fn check_unchanged(part: &TenantPlanDescription, live: &dyn LiveStore) -> Result<(), Error> {
    let tenant = &part.tenant;
    let view = live
        .read_view_of(tenant)
        .map_err(Error::store("read the live store"))?;
    let fingerprint = view
        .fingerprint(tenant)
        .map_err(Error::store(format!("read the state of {tenant}")))?;
    if fingerprint == part.fingerprint {
        return Ok(());
    }
    let message = format!("the rows of {tenant} changed after the plan was made. Make a new plan");
    Err(Error::new(ErrorKind::Stale, message))
}

/// How many rows a plan changes for a tenant, by table.
pub(crate) fn planned_counts(
    description: &PlanDescription,
    part: &TenantPlanDescription,
) -> Vec<(TableIndex, TableName, ChangeCounts)> {
    let changed = part.tables.iter().filter(|table| table.counts.total() > 0);
    changed
        .map(|table| {
            let name = description.schema.table(table.table).name.clone();
            (table.table, name, table.counts)
        })
        .collect()
}

/// Tries the whole transaction again when other writers came in the way.
fn attempt<'l>(
    context: Context<'_>,
    plan: &StoredPlan,
    part: &TenantPlanDescription,
    live: &'l dyn LiveStore,
    fence: &mut Option<Box<dyn TenantFence + 'l>>,
    entry: &JournalEntry,
) -> Result<CommitReceipt, Error> {
    again_if_contended(context, || {
        let was_up = fence.is_some();
        let committed = transact(context, plan, part, live, fence, entry);
        if committed.is_err() && !was_up {
            // Whoever came in the way is let through before the next attempt.
            *fence = None;
        }
        committed
    })
}

/// Tries again, after a while, when other writers came in the way.
pub(crate) fn again_if_contended<T>(
    context: Context<'_>,
    mut attempt: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut backoff = BACKOFF_FIRST;
    for _ in 1..ATTEMPTS_MAX {
        match attempt() {
            Err(error) if error.kind() == ErrorKind::Contended => std::thread::sleep(backoff),
            settled => return settled,
        }
        backoff *= 2;
        context.check()?;
    }
    attempt()
}

fn transact<'l>(
    context: Context<'_>,
    plan: &StoredPlan,
    part: &TenantPlanDescription,
    live: &'l dyn LiveStore,
    fence: &mut Option<Box<dyn TenantFence + 'l>>,
    entry: &JournalEntry,
) -> Result<CommitReceipt, Error> {
    let tenant = &part.tenant;
    let description = plan.plan().description();
    check_left_behind(context, plan, part, live)?;
    wait_for_turn(context, tenant)?;
    let opening = || Error::store(format!("open {tenant} for writing"));
    if fence.is_none() {
        *fence = live.fence(tenant).map_err(opening())?;
    }
    let begun = match fence {
        Some(fence) => fence.begin_merge(&part.fingerprint, &description.schema),
        None => live.begin_merge(tenant, &part.fingerprint, &description.schema),
    };
    let mut writer = begun.map_err(opening())?;
    // A transaction that writes does not wait in the middle: what it wrote is paid for afterwards.
    let in_between = context.pace.filter(|_| live.writes_between_batches());
    let rows_context = Context {
        pace: in_between,
        ..context
    };
    let changes = plan.plan().changes(rows_context, tenant)?;
    let shared = if changes.shared_tables().is_empty() {
        Vec::new()
    } else {
        let operation = format!("create rows of everybody that {tenant} refers to");
        let created = writer.create_shared(&changes);
        created.map_err(Error::store(operation))?
    };
    let counted = writer
        .apply(&changes)
        .map_err(Error::store(format!("write the rows of {tenant}")))?;
    if let (Some(pace), None) = (context.pace, in_between) {
        pace.wrote(counted.iter().map(|(_, counts)| counts.total()).sum());
    }
    check_counts(description, part, &shared, &counted, |table| {
        writer.suspects(table, &changes)
    })?;
    for table in &part.tables {
        let found = read_back(context, writer.as_mut(), table.table).map_err(Error::store(
            format!("read {tenant} back before the commit"),
        ))?;
        if found != table.expected {
            let name = &description.schema.table(table.table).name;
            let message = format!(
                "merge {tenant}: table {name} would hold {} rows that are not the expected {}: a \
                 trigger or rule of the store changed them, or somebody wrote in between. \
                 Nothing was committed",
                found.row_count(),
                table.expected.row_count()
            );
            return Err(Error::new(ErrorKind::Refused, message));
        }
    }
    context.check()?;
    let state = writer.state_read_back();
    match writer.commit(entry) {
        Ok(committed) => Ok(CommitReceipt {
            state,
            ..committed.into()
        }),
        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => ask_journal(live, entry, error),
        Err(error) => Err(Error::store(format!("commit the rows of {tenant}"))(error)),
    }
}

/// Waits until the pace lets another merge begin.
fn wait_for_turn(context: Context<'_>, tenant: &TenantId) -> Result<(), Error> {
    let Some(pace) = context.pace else {
        return Ok(());
    };
    let operation = || format!("wait until {tenant} may be written");
    pace.wait(context.cancellation)
        .map_err(Error::store(operation()))
}

/// Refuses a plan that counts rows in which were left behind and are not there as they were.
fn check_left_behind(
    context: Context<'_>,
    plan: &StoredPlan,
    part: &TenantPlanDescription,
    live: &dyn LiveStore,
) -> Result<(), Error> {
    let mut notes = part.notes.iter();
    if !notes.any(|note| note.kind == NoteKind::LeftBehind) {
        return Ok(());
    }
    let view = live
        .read_view()
        .map_err(Error::store("read the live store"))?;
    let is_same_schema = *view.schema() == plan.plan().description().schema;
    if is_same_schema && are_unchanged(context, plan.plan(), part, view.as_ref())? {
        return Ok(());
    }
    let message = format!(
        "rows that were left behind, and that are {}'s again with this plan, changed after the plan \
         was made. Make a new plan",
        part.tenant
    );
    Err(Error::new(ErrorKind::Stale, message))
}

fn read_back(
    context: Context<'_>,
    writer: &mut dyn TenantWriter,
    table: TableIndex,
) -> Result<ContentDigest, StoreError> {
    let mut rows = writer.read_back(table)?;
    let failed = |error| error;
    digest_rows(context, rows.as_mut(), failed, |_| {
        context.cancellation.check()
    })
}

/// What the store counted must be the plan, and what was created for everybody, table by table, and no
/// other table.
fn check_counts(
    description: &PlanDescription,
    part: &TenantPlanDescription,
    shared: &[(TableName, u64)],
    counted: &[(TableName, ChangeCounts)],
    suspects: impl FnOnce(&TableName) -> Vec<String>,
) -> Result<(), Error> {
    let planned = planned_counts(description, part);
    let planned_for = |name: &TableName| {
        let found = planned.iter().find(|(_, planned, _)| planned == name);
        let mut counts = found.map_or(ChangeCounts::NONE, |(_, _, counts)| *counts);
        let created = shared.iter().filter(|(shared, _)| shared == name);
        counts.created += created.map(|(_, created)| created).sum::<u64>();
        counts
    };
    let counted_for = |name: &TableName| {
        let found = counted.iter().find(|(counted, _)| counted == name);
        found.map_or(ChangeCounts::NONE, |(_, counts)| *counts)
    };
    let names = planned
        .iter()
        .map(|(_, name, _)| name)
        .chain(shared.iter().map(|(name, _)| name))
        .chain(counted.iter().map(|(name, _)| name));
    for name in names {
        let (expected, found) = (planned_for(name), counted_for(name));
        if expected != found {
            let text = |counts: ChangeCounts| {
                let ChangeCounts {
                    created,
                    put_back,
                    deleted,
                } = counts;
                format!("{created} created, {put_back} put back, {deleted} deleted")
            };
            let suspects = suspects(name);
            let look = match suspects.is_empty() {
                true => "triggers, rules and cascading keys".to_owned(),
                false => suspects.join(", "),
            };
            let message = format!(
                "merge {}: the store counted other changes than planned in table {name}: {} \
                 instead of {}. Nothing was committed; look at {look}",
                part.tenant,
                text(found),
                text(expected)
            );
            return Err(Error::new(ErrorKind::Refused, message));
        }
    }
    Ok(())
}

/// A commit that gave no answer happened or did not: the journal's entry is in the same
/// transaction, so it knows.
fn ask_journal(
    live: &dyn LiveStore,
    entry: &JournalEntry,
    unknown: StoreError,
) -> Result<CommitReceipt, Error> {
    for _ in 0..JOURNAL_READS_MAX {
        let found = live.journal_entry(entry.job, &entry.tenant);
        match found.and_then(|found| match found {
            Some(found) if found.plan == entry.plan => live.committed(entry.job, &entry.tenant),
            _ => Ok(None),
        }) {
            Ok(Some(committed)) => return Ok(committed.into()),
            Ok(None) => {
                let message = format!(
                    "commit the rows of {}: the store went away, and its journal says that \
                     nothing was committed",
                    entry.tenant
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            Err(error) if may_pass(error.kind()) => std::thread::sleep(JOURNAL_PAUSE),
            // Waiting does not help: the store has to be opened again, or somebody has to look at it.
            Err(_) => break,
        }
    }
    Err(Error::store(format!(
        "commit the rows of {}: no answer, and the journal cannot be read. Run the same command \
         again when the store is back: it reads the journal first",
        entry.tenant
    ))(unknown))
}

/// Whether what went wrong may be over when it is tried again a little later.
fn may_pass(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unavailable | ErrorKind::Contended | ErrorKind::Locked
    )
}

/// Keeps a receipt in the repository, for people who ask later what was done. Nothing depends on
/// it: the store's journal says what was committed, and the job's record says which plan.
///
/// Does nothing for a merge that had nothing to write, and leaves a receipt that is there.
///
/// # Errors
/// As the repository reports it.
pub fn keep_receipt(
    repository: &dyn Repository,
    plan: &StoredPlan,
    receipt: &MergeReceipt,
    merged_at: Timestamp,
) -> Result<(), Error> {
    let Some(committed) = &receipt.committed else {
        return Ok(());
    };
    let description = plan.plan().description();
    let bytes = encode_receipt(&ReceiptDescription {
        job: receipt.job,
        plan: receipt.plan,
        plan_object: plan.object(),
        store: description.store.clone(),
        tenant_kind: description.tenant_kind.clone(),
        tenant: receipt.tenant.clone(),
        snapshot: receipt.snapshot,
        position: committed.position,
        notation: description.notation,
        commit_mark: committed.mark.clone(),
        merged_at,
        counts: receipt.applied.clone(),
        sequences_raised: committed.sequences_raised.clone(),
        undoes: description.undoes,
    });
    let name = receipt_name(receipt.job, &receipt.tenant);
    match repository.publish(RECEIPT_RECORD, name, &bytes) {
        // Of the same merge, noted at another time.
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
        kept => kept.map_err(Error::repository(format!(
            "keep the receipt of {}",
            receipt.tenant
        ))),
    }
}

/// The receipt's name, from the job and the tenant alone, so that a repeated run finds its own.
pub(crate) fn receipt_name(job: JobId, tenant: &TenantId) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new_derive_key("reinstate 2026 receipt name v1");
    hasher.update(job.as_bytes()).update(tenant.as_bytes());
    *hasher
        .finalize()
        .as_bytes()
        .first_chunk()
        .expect("BUG: a digest of less than 16 bytes")
}
