//! Jobs: which plan a run applies, noted before its first write so that undo finds it.

use reinstate_core::{
    ErrorKind, JobId, JournalEntry, LiveStore, ObjectWriter, Repository, TenantId, Timestamp,
};
use reinstate_format::{
    JobDescription, ReceiptDescription, decode_job, decode_receipt, encode_job,
};

use crate::merge::{CommitReceipt, MergeReceipt, RECEIPT_RECORD, planned_counts, receipt_name};
use crate::plan::{PlanRequest, StoredPlan, WrittenPlan, plan_undo};
use crate::{Context, Error};

/// Name of the kind of record that a job is.
const JOB_RECORD: &str = "job";

/// Notes in the repository which plan the job applies.
pub(crate) fn store_job(
    repository: &dyn Repository,
    plan: &StoredPlan,
    started_at: Timestamp,
) -> Result<(), Error> {
    let description = plan.plan().description();
    let job = description.job;
    if let Ok(noted) = job_of(repository, job) {
        // A run that is repeated, perhaps after a crash. The same job means the same plan.
        if noted.plan == plan.plan().digest() {
            return Ok(());
        }
        let message = format!("job {job} belongs to another plan");
        return Err(Error::new(ErrorKind::Altered, message));
    }
    let record = JobDescription {
        job,
        plan: plan.plan().digest(),
        plan_object: plan.object(),
        started_at,
        undoes: description.undoes,
    };
    repository
        .publish(JOB_RECORD, *job.as_bytes(), &encode_job(&record))
        .map_err(Error::repository(format!("note job {job}")))
}

/// What is noted of a job.
///
/// # Errors
/// `NotFound` if there is no such job; `Corrupt` if the record is damaged.
pub fn job_of(repository: &dyn Repository, job: JobId) -> Result<JobDescription, Error> {
    let operation = || format!("read job {job}");
    let bytes = repository
        .read(JOB_RECORD, *job.as_bytes())
        .map_err(Error::repository(operation()))?;
    decode_job(&bytes, job).map_err(Error::format(operation()))
}

/// Every job of the repository.
///
/// # Errors
/// `Corrupt` if a record is damaged.
pub fn jobs(repository: &dyn Repository) -> Result<Vec<JobDescription>, Error> {
    let names = repository
        .list(JOB_RECORD)
        .map_err(Error::repository("list jobs"))?;
    let mut jobs = names
        .into_iter()
        .map(|name| job_of(repository, JobId::from_bytes(name)))
        .collect::<Result<Vec<_>, _>>()?;
    jobs.sort_by_key(|job| (job.started_at, job.job));
    Ok(jobs)
}

/// The plan that a job applied.
///
/// # Errors
/// `NotFound` if there is no such job; `Altered` if its plan is damaged, or is another one than the
/// job noted.
pub fn plan_of(repository: &dyn Repository, job: JobId) -> Result<StoredPlan, Error> {
    let noted = job_of(repository, job)?;
    let plan = StoredPlan::open(repository, noted.plan_object)?;
    if plan.plan().digest() == noted.plan {
        return Ok(plan);
    }
    let message = format!(
        "read the plan of job {job}: object {} holds plan {}, and the job applied {}",
        noted.plan_object,
        plan.plan().digest(),
        noted.plan
    );
    Err(Error::new(ErrorKind::Altered, message))
}

/// The receipt of one tenant of a job, if its merge was committed.
///
/// # Errors
/// `Corrupt` if it is damaged, or is the receipt of another job, tenant or plan.
pub fn receipt_of(
    repository: &dyn Repository,
    job: JobId,
    tenant: &TenantId,
) -> Result<Option<ReceiptDescription>, Error> {
    let operation = || format!("read the receipt of {tenant} in job {job}");
    match repository.read(RECEIPT_RECORD, receipt_name(job, tenant)) {
        Ok(bytes) => {
            let receipt = decode_receipt(&bytes).map_err(Error::format(operation()))?;
            // Where the job itself is damaged, that is said when the job is read.
            let is_noted = job_of(repository, job).map_or(true, |noted| noted.plan == receipt.plan);
            if receipt.job == job && receipt.tenant == *tenant && is_noted {
                return Ok(Some(receipt));
            }
            let message = format!("{}: it is the receipt of something else", operation());
            Err(Error::new(ErrorKind::Corrupt, message))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::repository(operation())(error)),
    }
}

/// The receipt of a merge that was committed before, whatever became of the run that did it: the one that
/// was kept, or what the merge's own transaction noted.
///
/// # Errors
/// If the repository or the store cannot be read; `Corrupt` if the store does not know the commit.
pub fn merge_receipt_of(
    plan: &StoredPlan,
    live: &dyn LiveStore,
    repository: &dyn Repository,
    entry: &JournalEntry,
) -> Result<MergeReceipt, Error> {
    let (applied, committed) = match receipt_of(repository, entry.job, &entry.tenant)? {
        Some(kept) => {
            let committed = CommitReceipt {
                position: kept.position,
                mark: kept.commit_mark,
                sequences_raised: kept.sequences_raised,
                state: None,
            };
            (kept.counts, committed)
        }
        // The process died between the commit and the receipt.
        None => {
            let committed = live.committed(entry.job, &entry.tenant);
            let committed = committed.map_err(Error::store("read the store's journal"))?;
            let committed = committed.ok_or_else(|| {
                let message = format!(
                    "the store's journal knows the merge of {}, and nothing of its commit",
                    entry.tenant
                );
                Error::new(ErrorKind::Corrupt, message)
            })?;
            // What the store counted had to be this before it could commit.
            let description = plan.plan().description();
            let part = plan.plan().tenant(&entry.tenant);
            let applied = part.map(|part| planned_counts(description, part));
            (applied.unwrap_or_default(), committed.into())
        }
    };
    Ok(MergeReceipt {
        job: entry.job,
        tenant: entry.tenant.clone(),
        plan: entry.plan,
        snapshot: plan.plan().description().snapshot,
        applied,
        committed: Some(committed),
    })
}

/// Plans the undo of a job: of every tenant whose merge the *store's* journal says was committed,
/// whatever became of the engine after it.
///
/// # Errors
/// `NotFound` if there is no such job or none of its tenants was changed; otherwise as
/// [`plan_undo`].
pub fn plan_undo_of(
    context: Context<'_>,
    repository: &dyn Repository,
    live: &dyn LiveStore,
    job: JobId,
    request: &PlanRequest<'_>,
    output: Box<dyn ObjectWriter + '_>,
) -> Result<WrittenPlan, Error> {
    let merged = plan_of(repository, job)?;
    let mut tenants = Vec::new();
    for part in &merged.plan().description().tenants {
        let entry = live
            .journal_entry(job, &part.tenant)
            .map_err(Error::store("read the store's journal"))?;
        if entry.is_some_and(|entry| entry.plan == merged.plan().digest()) {
            tenants.push(part.tenant.clone());
        }
    }
    if tenants.is_empty() {
        let message = format!("job {job} changed nothing in this store: there is nothing to undo");
        return Err(Error::new(ErrorKind::NotFound, message));
    }
    plan_undo(context, &merged, &tenants, live, request, output)
}
