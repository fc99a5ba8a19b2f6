//! Many tenants in one plan, against one plan for each.

use reinstate::{Context, RestorePlan, StoredPlan};
use reinstate_core::{ChangeSource, RowBatch, RowRole, TableIndex, TenantId};

use super::history::History;
use super::run::Engine;
use super::suites::Story;
use crate::certification::{Fixture, Violation, ensure, tenant};

/// What a tenant's part of a plan says and holds does not depend on who else is in it.
pub(super) fn a_batch_is_planned_as_singles_are(
    fixture: &dyn Fixture,
    history: &History,
) -> Result<(), Violation> {
    let story = Story::tell(fixture, history)?;
    let (engine, policy) = (&story.engine, history.policy());
    let names = history.restored();
    let tenants: Vec<_> = names.iter().map(|name| engine.tenant(name)).collect();
    let context = engine.context();
    let images = reinstate::extract_all(context, &engine.repository, &story.snapshot, &tenants);
    ensure!(images.len() == names.len(), "{} images", images.len());
    let batch = engine.plan(&story.snapshot, &names, policy, 1)?;
    let stored = StoredPlan::open(&engine.repository, batch.object)?;
    for ((job, name), image) in (2..).zip(&names).zip(images) {
        let image = image?;
        let single = reinstate::extract(&engine.repository, &story.snapshot, image.tenant())?;
        ensure!(
            (image.digest(), image.stored_bytes()) == (single.digest(), single.stored_bytes()),
            "{name} of a batch is another than alone"
        );
        let single = engine.plan(&story.snapshot, &[name], policy, job)?;
        let alone = StoredPlan::open(&engine.repository, single.object)?;
        let tenant = tenant(name);
        let part = stored.plan().tenant(&tenant);
        ensure!(
            part == alone.plan().tenant(&tenant),
            "{name} in a batch: {part:?}, alone: {:?}",
            alone.plan().tenant(&tenant)
        );
        let tables = (0_u32..).zip(story.snapshot.schema.tables());
        for (table, _) in tables {
            let of = |plan| rows(engine, plan, &tenant, TableIndex(table));
            ensure!(
                of(stored.plan())? == of(alone.plan())?,
                "{name}: the batch's plan has other rows of table {table}"
            );
        }
    }
    Ok(())
}

/// Every row of one table that a plan changes for a tenant, by role.
fn rows(
    engine: &Engine<'_>,
    plan: &RestorePlan,
    tenant: &TenantId,
    table: TableIndex,
) -> Result<Vec<Vec<u8>>, Violation> {
    let context: Context<'_> = engine.context();
    let changes = plan.changes(context, tenant)?;
    let roles = [
        RowRole::Created,
        RowRole::PutBackBefore,
        RowRole::PutBackAfter,
        RowRole::Deleted,
    ];
    let mut rows = Vec::new();
    for role in roles {
        let mut stream = changes.rows(table, role)?;
        let mut batch = RowBatch::new();
        let mut all = Vec::new();
        while stream.next_batch(&mut batch)? {
            all.extend_from_slice(batch.as_bytes());
        }
        rows.push(all);
    }
    Ok(rows)
}
