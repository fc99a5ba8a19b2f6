//! Where a drill restores to, beside the live store and never into it.
//!
//! For an embedded store a temporary file of the same database, for each tenant a new one. For PostgreSQL
//! another database, which the operator makes and names: its tables, types and constraints come from the
//! same statements as the live one's, so that what a restore would meet there is met here.

use std::path::PathBuf;
use std::time::Instant;

use reinstate::{
    Context, OwnerCheck, PlanRequest, StoredPlan, TenantImage, apply, plan, plan_undo,
};
use reinstate_core::{
    ContentDigest, ErrorKind, LiveStore, Policy, Repository, RowBatch, Silent, StoreId, TenantId,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_postgres::PostgresStore;
use reinstate_repository::LocalRepository;
use tempfile::TempDir;

use super::draw::Lot;
use super::stand_in::StandIn;
use crate::configuration::{PostgresConfiguration, StoreConfiguration};
use crate::failure::Failure;
use crate::session::{Session, new_job, now};

/// Where a drill restores to, with a repository of its own for its plans.
pub(super) struct Ground {
    directory: TempDir,
    plans: LocalRepository,
    scratch: Scratch,
}

enum Scratch {
    /// A new file for each tenant.
    Embedded { cache_bytes: usize },
    /// A database that was made for it.
    Postgres(Box<PostgresStore>),
}

/// A tenant that was brought back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proven {
    pub(super) rows: u64,
    pub(super) tables: usize,
    pub(super) proven_at: Instant,
}

impl Ground {
    /// Prepares it.
    ///
    /// # Errors
    /// Usage if the configuration names no database for a PostgreSQL store, or names the live one.
    pub(super) fn prepare(
        session: &Session<'_>,
        repository: &LocalRepository,
    ) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir_in(session.spill_directory())?;
        // Plans are bound to the repository that they restore from: a stand-in keeps them.
        let plans = LocalRepository::init(directory.path().join("plans"), repository.id(), now())?;
        let configuration = &session.configuration;
        let scratch = match (&configuration.store, &configuration.drill_into) {
            (StoreConfiguration::Embedded { .. }, None) => Scratch::Embedded {
                cache_bytes: session.cache_bytes(),
            },
            (StoreConfiguration::Embedded { .. }, Some(_)) => {
                let message = "drill.into: an embedded store is drilled in a temporary file";
                return Err(Failure::usage(message)
                    .next("take drill.into out of the configuration")
                    .into());
            }
            (StoreConfiguration::Postgres(_), None) => {
                let message = "a PostgreSQL store is drilled in another database, and the \
                               configuration names none";
                let next = "make one with the same tables (createdb drill; pg_dump --schema-only \
                            LIVE | psql drill; and the rows of everybody), and name it: [drill] \
                            into = { env = \"DRILL_DATABASE_URL\" }";
                return Err(Failure::usage(message).next(next).into());
            }
            (StoreConfiguration::Postgres(postgres), Some(url)) => {
                let scratch = PostgresConfiguration {
                    url: url.clone(),
                    // Nobody else has rows there.
                    unguarded: true,
                    ..postgres.as_ref().clone()
                };
                let store = crate::postgres::connect(&configuration.store_name, &scratch)?;
                // Also where no snapshot was taken from it yet. One that cannot be reached is not this one.
                if let Ok(live) = session.store() {
                    check_is_another(&store, live.identity().id)?;
                }
                Scratch::Postgres(Box::new(store))
            }
        };
        Ok(Self {
            directory,
            plans,
            scratch,
        })
    }

    /// What it is.
    pub(super) fn name(&self) -> &'static str {
        match self.scratch {
            Scratch::Embedded { .. } => "a temporary embedded store",
            Scratch::Postgres(_) => "the scratch database",
        }
    }

    /// Restores a tenant, compares it with its image, and takes it away again.
    ///
    /// # Errors
    /// Whatever keeps it from being restored or proven; `Unverified` if it is not what its image is.
    pub(super) fn restore(
        &self,
        session: &Session<'_>,
        lot: &Lot,
        image: &TenantImage,
    ) -> anyhow::Result<Proven> {
        let snapshot = lot.log.snapshot();
        match &self.scratch {
            Scratch::Embedded { cache_bytes } => {
                let path = self.path(lot);
                let mut options = EmbeddedOptions::default();
                options.cache_bytes = *cache_bytes;
                let store = EmbeddedStore::create(
                    &path,
                    &options,
                    snapshot.store.clone(),
                    snapshot.tenant_kind.clone(),
                    snapshot.schema.clone(),
                )?;
                let proven = self.bring_back(session, &store, image);
                drop(store);
                std::fs::remove_file(&path)?;
                Ok(proven?.1)
            }
            Scratch::Postgres(store) => {
                check_is_another(store.as_ref(), snapshot.store.id)?;
                store.prepare()?;
                let store = StandIn {
                    scratch: store.as_ref(),
                    identity: snapshot.store.clone(),
                };
                let (stored, proven) = self.bring_back(session, &store, image)?;
                self.take_away(session, &store, &stored, &image.tenant().id)?;
                Ok(proven)
            }
        }
    }

    fn path(&self, lot: &Lot) -> PathBuf {
        let position = lot.point.position;
        let name = format!("{}-{}.redb", position.commit, position.ordinal);
        self.directory.path().join(name)
    }

    fn bring_back(
        &self,
        session: &Session<'_>,
        store: &dyn LiveStore,
        image: &TenantImage,
    ) -> anyhow::Result<(StoredPlan, Proven)> {
        let context = session.context(&Silent);
        let request = self.request(session)?;
        let output = self.plans.create_object()?;
        let images = std::slice::from_ref(image);
        let written = plan(context, images, store, &request, output)?;
        let changes = written.description.tenants.iter();
        let is_there = changes.flat_map(|part| &part.tables).any(|table| {
            table.counts.deleted + table.counts.put_back + table.same + table.kept > 0
        });
        if is_there {
            let message = format!("{} has rows in the scratch store already", image.tenant());
            return Err(Failure::usage(message)
                .next("empty the scratch database, and leave it to drills alone")
                .into());
        }
        let stored = StoredPlan::open(&self.plans, written.object)?;
        let rows = self.apply(context, &stored, store)?;
        check_contents(context, store, image)?;
        let proven = Proven {
            rows,
            tables: image.tables().count(),
            proven_at: Instant::now(),
        };
        Ok((stored, proven))
    }

    /// Undoes what was brought back, so that the next drill finds room.
    fn take_away(
        &self,
        session: &Session<'_>,
        store: &dyn LiveStore,
        merged: &StoredPlan,
        tenant: &TenantId,
    ) -> anyhow::Result<()> {
        let context = session.context(&Silent);
        let request = self.request(session)?;
        let output = self.plans.create_object()?;
        let tenants = std::slice::from_ref(tenant);
        let written = plan_undo(context, merged, tenants, store, &request, output)?;
        let stored = StoredPlan::open(&self.plans, written.object)?;
        self.apply(context, &stored, store).map(drop)
    }

    /// Applies a plan of one tenant; returns how many rows were read back.
    fn apply(
        &self,
        context: Context<'_>,
        stored: &StoredPlan,
        store: &dyn LiveStore,
    ) -> anyhow::Result<u64> {
        let mut rows = 0;
        for outcome in apply(context, stored, store, &self.plans, now())? {
            match outcome.result?.verdict {
                reinstate::Verdict::Restored(proof) => rows += proof.row_count(),
                verdict => {
                    let message = format!(
                        "not proven: {}",
                        crate::render::findings(&verdict).join("; ")
                    );
                    return Err(Failure::new(ErrorKind::Unverified, message).into());
                }
            }
        }
        Ok(rows)
    }

    fn request(&self, session: &Session<'_>) -> anyhow::Result<PlanRequest<'static>> {
        Ok(PlanRequest {
            job: new_job()?,
            repository: self.plans.id(),
            policy: Policy::EXACT,
            drift: session.configuration.drift.clone(),
            check_owners: OwnerCheck::Off,
            planned_at: now(),
        })
    }
}

/// Refuses the store that is live, or that the snapshot was taken from.
fn check_is_another(scratch: &dyn LiveStore, live: StoreId) -> Result<(), Failure> {
    if scratch.identity().id != live {
        return Ok(());
    }
    let message = "drill.into names the live database itself. Nothing was written";
    Err(Failure::usage(message).next("name another database, made for drills"))
}

/// Compares what the store holds of a tenant with its image, table by table.
fn check_contents(
    context: Context<'_>,
    store: &dyn LiveStore,
    image: &TenantImage,
) -> anyhow::Result<()> {
    let view = store.read_view()?;
    let tenant = &image.tenant().id;
    for table in image.tables() {
        let schema = image.snapshot().schema.table(table);
        let Some((live, _)) = view.schema().find(schema.name.as_str()) else {
            continue;
        };
        if view.schema().table(live).columns != schema.columns {
            // The table changed since: the proof is in the terms of the live one.
            continue;
        }
        let mut rows = view.tenant_rows(tenant, live)?;
        let (mut found, mut batch) = (ContentDigest::EMPTY, RowBatch::new());
        while rows.next_batch(&mut batch)? {
            context.cancellation.check()?;
            batch.iter().for_each(|row| found.add(row));
        }
        if found != image.content(table) {
            let message = format!(
                "table {} of {} holds {} rows that are not the {} of its image",
                schema.name,
                image.tenant(),
                found.row_count(),
                image.row_count(table)
            );
            return Err(Failure::new(ErrorKind::Unverified, message).into());
        }
    }
    Ok(())
}
