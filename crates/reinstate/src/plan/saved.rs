//! Plans that were saved: reading them, and keeping them for undo.

use std::collections::BTreeMap;
use std::sync::Arc;

use reinstate_core::{
    ChangeCounts, ChangeSource, Commit, Digest, ErrorKind, ObjectId, ObjectReader, Owner,
    Repository, RowBatch, RowRole, RowStream, StoreError, TableIndex, Tenancy, TenantId,
};
use reinstate_format::{
    LastChange, PlanDescription, RunKey, SegmentReader, TenantPlanDescription, read_plan,
    verify_segment,
};

use crate::run_stream::{RunPart, RunStream};
use crate::{Context, Error};

const COPY_BYTES: usize = 1 << 20;

/// A plan that was saved and is open for reading. Its description is checked; its rows are
/// checked as they are read.
#[derive(Clone)]
pub struct RestorePlan {
    description: Arc<PlanDescription>,
    digest: Digest,
    segment: Arc<SegmentReader>,
}

impl std::fmt::Debug for RestorePlan {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "RestorePlan({})", self.digest)
    }
}

impl RestorePlan {
    /// Opens a saved plan.
    ///
    /// # Errors
    /// `Altered` if its description is not what was written.
    pub fn open(reader: Arc<dyn ObjectReader>) -> Result<Self, Error> {
        let (description, digest, segment) = read_plan(reader).map_err(altered)?;
        let (description, segment) = (Arc::new(description), Arc::new(segment));
        Ok(Self {
            description,
            digest,
            segment,
        })
    }

    /// Reads every byte of the plan and checks it.
    ///
    /// # Errors
    /// `Altered` if any is not what was written.
    pub fn check(&self) -> Result<(), Error> {
        verify_segment(&self.segment).map_err(altered)
    }

    /// What the plan says.
    #[must_use]
    pub fn description(&self) -> &PlanDescription {
        &self.description
    }

    /// The digest that stands for all of it: what a reviewer approves.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The part of one tenant.
    #[must_use]
    pub fn tenant(&self, tenant: &TenantId) -> Option<&TenantPlanDescription> {
        self.description
            .tenants
            .iter()
            .find(|part| part.tenant == *tenant)
    }

    /// The rows of one tenant that change. They come at the context's pace: of a context without one, as
    /// fast as they are asked for.
    ///
    /// # Errors
    /// `NotFound` if the plan has no such tenant.
    pub fn changes<'c>(
        &'c self,
        context: Context<'c>,
        tenant: &TenantId,
    ) -> Result<TenantChanges<'c>, Error> {
        let part = self.tenant(tenant).ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                format!("the plan has no tenant {tenant}"),
            )
        })?;
        let changed = part.tables.iter().filter(|table| table.counts.total() > 0);
        let tables = changed.map(|table| table.table).collect();
        let shared = self.shared_counts(tenant)?;
        let created: Vec<TableIndex> = shared.keys().copied().collect();
        let schema = &self.description.schema;
        Ok(TenantChanges {
            context,
            plan: self,
            part,
            tables,
            shared_tables: schema.parents_first(&created),
            shared,
        })
    }

    /// How many rows of everybody a tenant's part creates, by table.
    ///
    /// # Errors
    /// `Altered` if the plan is damaged, or says so of a table whose rows are not everybody's.
    pub(super) fn shared_counts(
        &self,
        tenant: &TenantId,
    ) -> Result<BTreeMap<TableIndex, u64>, Error> {
        let owner = Owner::Tenant(tenant.clone());
        let runs = self.segment.runs_of(&owner).map_err(altered)?;
        let shared = runs
            .into_iter()
            .filter(|run| run.key.role == RowRole::SharedCreated);
        let mut counts = BTreeMap::new();
        for run in shared {
            let table = self.description.schema.get(run.key.table);
            if table.is_none_or(|table| table.tenancy != Tenancy::Shared) {
                let message = "the plan creates rows of everybody in a table that is not shared";
                return Err(Error::new(ErrorKind::Altered, message));
            }
            *counts.entry(run.key.table).or_insert(0) += run.row_count;
        }
        Ok(counts)
    }

    pub(super) fn run(
        &self,
        context: Context<'_>,
        tenant: &TenantId,
        table: TableIndex,
        role: RowRole,
    ) -> Result<RunStream, Error> {
        let key = RunKey {
            owner: Owner::Tenant(tenant.clone()),
            table,
            role,
        };
        let run = self.segment.find(&key).map_err(altered)?;
        let parts = run
            .map(|run| RunPart {
                reader: Arc::clone(&self.segment),
                run: Arc::new(run),
            })
            .into_iter()
            .collect();
        Ok(RunStream::new(context.resources, parts))
    }
}

fn altered(source: reinstate_format::FormatError) -> Error {
    // A plan that cannot be read right now, or not by this version, was not edited.
    if source.kind() != ErrorKind::Corrupt {
        return Error::format("read the plan")(source);
    }
    Error::altered(
        "the plan is not what was saved: it was edited, cut short or damaged. Make a new one",
        source,
    )
}

/// The changes of one tenant in a plan.
#[derive(Debug)]
pub struct TenantChanges<'p> {
    context: Context<'p>,
    plan: &'p RestorePlan,
    part: &'p TenantPlanDescription,
    tables: Vec<TableIndex>,
    shared_tables: Vec<TableIndex>,
    shared: BTreeMap<TableIndex, u64>,
}

impl ChangeSource for TenantChanges<'_> {
    fn tables(&self) -> &[TableIndex] {
        &self.tables
    }

    fn counts(&self, table: TableIndex) -> ChangeCounts {
        let found = self.part.tables.iter().find(|plan| plan.table == table);
        found.map_or(ChangeCounts::NONE, |plan| plan.counts)
    }

    fn shared_tables(&self) -> &[TableIndex] {
        &self.shared_tables
    }

    fn shared_count(&self, table: TableIndex) -> u64 {
        self.shared.get(&table).copied().unwrap_or(0)
    }

    fn rows(
        &self,
        table: TableIndex,
        role: RowRole,
    ) -> Result<Box<dyn RowStream + '_>, StoreError> {
        let stream = self
            .plan
            .run(self.context, &self.part.tenant, table, role)
            .map_err(Error::into_store_error)?;
        Ok(Box::new(Cancellable {
            context: self.context,
            stream,
        }))
    }
}

impl TenantChanges<'_> {
    /// What changed the rows of one role last, row by row in their order: of those created, put back
    /// or deleted.
    ///
    /// # Errors
    /// `Altered` if the plan is damaged.
    pub fn last_changes(&self, table: TableIndex, role: RowRole) -> Result<LastChanges, Error> {
        let tenant = &self.part.tenant;
        let rows = self
            .plan
            .run(self.context, tenant, table, RowRole::LastChange)?;
        Ok(LastChanges {
            rows,
            role,
            batch: RowBatch::new(),
            next: 0,
        })
    }
}

/// What changed rows last.
#[derive(Debug)]
pub struct LastChanges {
    rows: RunStream,
    role: RowRole,
    batch: RowBatch,
    next: usize,
}

impl LastChanges {
    /// The transaction that changed the next row last; none if nobody knows.
    ///
    /// # Errors
    /// `Altered` if the plan is damaged.
    pub fn advance(&mut self) -> Result<Option<Commit>, Error> {
        loop {
            let Some((row, next)) = self.batch.row_at(self.next) else {
                self.next = 0;
                if !self.rows.next(&mut self.batch)? {
                    self.batch.clear();
                    return Ok(None);
                }
                continue;
            };
            self.next = next;
            let change = LastChange::read(row).map_err(altered)?;
            if change.role == self.role {
                return Ok(change.commit);
            }
        }
    }
}

/// A stream that ends with an error when the caller asked to stop, and keeps to the context's pace.
struct Cancellable<'p> {
    context: Context<'p>,
    stream: RunStream,
}

impl RowStream for Cancellable<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        self.context.cancellation.check()?;
        if let Some(pace) = self.context.pace {
            pace.wait(self.context.cancellation)?;
        }
        let more = self.stream.next_batch(batch)?;
        if let Some(pace) = self.context.pace {
            pace.wrote(batch.len() as u64);
        }
        self.context
            .observer
            .observe(reinstate_core::Event::Advanced {
                phase: reinstate_core::Phase::Merge,
                rows: batch.len() as u64,
                bytes: batch.as_bytes().len() as u64,
            });
        Ok(more)
    }
}

/// A plan that lies durably in the repository: the only kind that can be merged, so that what is
/// needed to undo a merge is always there before its first write.
#[derive(Clone, Debug)]
pub struct StoredPlan {
    plan: RestorePlan,
    object: ObjectId,
}

impl StoredPlan {
    /// Opens a plan that lies in the repository.
    ///
    /// # Errors
    /// `NotFound` if there is no such object; `Altered` if it is damaged; `Usage` if the plan was
    /// made for another repository.
    pub fn open(repository: &dyn Repository, object: ObjectId) -> Result<Self, Error> {
        let reader = repository
            .open_object(object)
            .map_err(Error::repository(format!("open plan {object}")))?;
        let plan = RestorePlan::open(Arc::from(reader))?;
        check_repository(repository, &plan)?;
        Ok(Self { plan, object })
    }

    /// The plan itself.
    #[must_use]
    pub fn plan(&self) -> &RestorePlan {
        &self.plan
    }

    /// Where it lies.
    #[must_use]
    pub fn object(&self) -> ObjectId {
        self.object
    }
}

/// Copies a saved plan into the repository, after checking every byte of it.
///
/// # Errors
/// `Altered` if the plan is not what was saved; `Usage` if it was made for another repository;
/// `Full`. Nothing is published then.
pub fn store_plan(
    repository: &dyn Repository,
    reader: &Arc<dyn ObjectReader>,
) -> Result<StoredPlan, Error> {
    let original = RestorePlan::open(Arc::clone(reader))?;
    check_repository(repository, &original)?;
    original.check()?;
    let operation = "keep the plan in the repository";
    let mut writer = repository
        .create_object()
        .map_err(Error::repository(operation))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    while offset < reader.byte_count() {
        let left = reader.byte_count() - offset;
        let length = usize::try_from(left).map_or(COPY_BYTES, |left| left.min(COPY_BYTES));
        reader
            .read_exact_at(offset, &mut buffer[..length])
            .map_err(Error::repository("read the plan"))?;
        writer
            .write(&buffer[..length])
            .map_err(Error::repository(operation))?;
        offset += length as u64;
    }
    let object = writer.seal().map_err(Error::repository(operation))?;
    let stored = StoredPlan::open(repository, object)?;
    // The file may have been replaced between the check and the copy: the digest says.
    if stored.plan.digest != original.digest {
        return Err(Error::new(
            ErrorKind::Altered,
            "the plan changed while it was read",
        ));
    }
    Ok(stored)
}

fn check_repository(repository: &dyn Repository, plan: &RestorePlan) -> Result<(), Error> {
    if plan.description.repository == repository.id() {
        return Ok(());
    }
    let message = format!(
        "the plan was made for repository {}, this one is {}",
        plan.description.repository,
        repository.id()
    );
    Err(Error::new(ErrorKind::Usage, message))
}
