//! Proving isolation: what every other tenant holds, before and after.

use std::collections::{BTreeMap, HashMap};

use reinstate_core::{
    ContentDigest, Event, LiveStore, OwnedRowBatch, Owner, Phase, TableIndex, Tenancy, TenantId,
};

use crate::{Context, Error};

/// What every owner's rows contain, table by table. About 100 bytes for each owner and table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreDigests {
    owners: HashMap<Box<[u8]>, BTreeMap<TableIndex, ContentDigest>>,
}

/// How the owners that were not restored compare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IsolationReport {
    /// Owners that hold the very same rows.
    pub unchanged: u64,
    /// Owners whose rows differ, the shared rows among them. If others wrote in between, these
    /// are their own writes or somebody else's: the digests cannot tell.
    pub changed: Vec<Owner>,
}

/// Reads the whole store at one position.
///
/// *Cost*: one pass over every table; meant for those who ask for proof.
///
/// # Errors
/// As the store reports it.
pub fn store_digests(context: Context<'_>, live: &dyn LiveStore) -> Result<StoreDigests, Error> {
    let view = live
        .begin_capture()
        .map_err(Error::store("open the store for reading"))?;
    context.observer.observe(Event::Started {
        phase: Phase::Verify,
        tenant: None,
        rows_expected: None,
    });
    let mut digests = StoreDigests::default();
    let mut batch = OwnedRowBatch::new();
    for (index, table) in view.schema().iter() {
        if table.tenancy == Tenancy::Excluded {
            continue;
        }
        let reading = || Error::store(format!("read table {}", table.name));
        let mut rows = view.table_rows(index).map_err(reading())?;
        while rows.next_batch(&mut batch).map_err(reading())? {
            context.check()?;
            for (owner, row) in batch.iter() {
                digests.table(owner, index).add(row);
            }
            context.observer.observe(Event::Advanced {
                phase: Phase::Verify,
                rows: batch.len() as u64,
                bytes: batch.byte_count() as u64,
            });
        }
    }
    context.observer.observe(Event::Finished {
        phase: Phase::Verify,
        tenant: None,
    });
    Ok(digests)
}

impl StoreDigests {
    fn table(&mut self, owner: &[u8], table: TableIndex) -> &mut ContentDigest {
        if !self.owners.contains_key(owner) {
            self.owners.insert(owner.into(), BTreeMap::new());
        }
        let tables = self.owners.get_mut(owner).expect("BUG: inserted just now");
        tables.entry(table).or_default()
    }

    /// How many owners there are, shared rows counted as one.
    #[must_use]
    pub fn owner_count(&self) -> usize {
        self.owners.len()
    }

    /// Compares every owner but the restored ones with what it held `before`.
    #[must_use]
    pub fn compare(&self, before: &Self, restored: &[TenantId]) -> IsolationReport {
        let mut report = IsolationReport::default();
        let is_restored = |owner: &[u8]| restored.iter().any(|tenant| tenant.as_bytes() == owner);
        let vanished = before
            .owners
            .keys()
            .filter(|owner| !self.owners.contains_key(*owner));
        for owner in self.owners.keys().chain(vanished) {
            if is_restored(owner) {
                continue;
            }
            if self.owners.get(owner) == before.owners.get(owner) {
                report.unchanged += 1;
            } else if let Ok(owner) = Owner::from_bytes(owner) {
                report.changed.push(owner);
            }
        }
        report.changed.sort();
        report
    }
}
