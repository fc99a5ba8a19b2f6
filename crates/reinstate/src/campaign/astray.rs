//! Which values lead nowhere: rows have them that refer to others, and none of those others has them.
//!
//! *Cost*: reads the rows that refer and those that are referred to once, and sorts 16 bytes for each, on
//! disk if need be; the rows that refer once more where some of them lead nowhere.

use std::collections::BTreeSet;

use rayon::ThreadPool;
use reinstate_core::{
    ColumnIndex, LiveView, RowBatch, RowBuilder, RowRef, RowStream, TableIndex, TenantId,
};

use super::run::CampaignRun;
use crate::Error;
use crate::sort::{Cursor, SortBudget, Sorted, Sorter};

/// The most values that are looked at closer together.
const VALUES_MAX: usize = 10_000;
/// The part of the memory that all sites that are under way may sort in.
const SORT_MEMORY_PART: usize = 8;
/// The first bytes of a value's hash, which tell it from others.
type Value = [u8; 16];

/// Values that a tenant's rows have in some columns of a table.
#[derive(Clone, Copy)]
pub(super) struct Values<'v> {
    pub(super) view: &'v dyn LiveView,
    pub(super) tenant: &'v TenantId,
    pub(super) table: TableIndex,
    pub(super) columns: &'v [ColumnIndex],
}

/// The first of these that has a value which is none of the `known` ones, if there are any, and of which
/// `is_elsewhere` does not say that all such rows lead somewhere else. That is asked with the place and
/// with rows, one for each of the values.
pub(super) fn first_astray(
    run: &CampaignRun<'_>,
    known: Option<Values<'_>>,
    referring: &[Values<'_>],
    mut is_elsewhere: impl FnMut(usize, &RowBatch) -> Result<bool, Error>,
) -> Result<Option<usize>, Error> {
    let stores = run.campaign.description().stores.iter();
    let at_once: usize = stores.map(|store| store.concurrency.max(1) as usize).sum();
    let resources = run.context.resources;
    let budget = SortBudget {
        memory_bytes_max: resources.memory_bytes_max() / SORT_MEMORY_PART / at_once,
        directory: resources.spill_directory().to_owned(),
    };
    let mut leads = Leads::new(resources.pool(), budget);
    if let Some(known) = known {
        known.each(run, |value, _| leads.add(0, value))?;
    }
    for (place, values) in (1..).zip(referring) {
        values.each(run, |value, _| leads.add(place, value))?;
    }
    leads.each_astray(referring.len(), VALUES_MAX, |place, mut values| {
        loop {
            let rows = referring[place].rows_with(run, &mut values)?;
            if rows.is_empty() {
                return Ok(true);
            }
            if !is_elsewhere(place, &rows)? {
                return Ok(false);
            }
        }
    })
}

impl Values<'_> {
    /// Hands each row's value over, but of rows in which a part of it is NULL.
    fn each(
        &self,
        run: &CampaignRun<'_>,
        mut each: impl FnMut(Value, RowRef<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rows = self.rows()?;
        let mut batch = RowBatch::new();
        while rows.next_batch(&mut batch).map_err(self.reading())? {
            run.context.check()?;
            for row in batch.iter() {
                if let Some(value) = value_of(row, self.columns) {
                    each(value, row)?;
                }
            }
        }
        Ok(())
    }

    /// A row for each of these values, which are taken out; as many as one batch has room for.
    fn rows_with(
        &self,
        run: &CampaignRun<'_>,
        values: &mut BTreeSet<Value>,
    ) -> Result<RowBatch, Error> {
        let mut found = RowBatch::new();
        let mut rows = self.rows()?;
        let mut batch = RowBatch::new();
        while !values.is_empty()
            && found.as_bytes().len() < RowBatch::TARGET_BYTES
            && rows.next_batch(&mut batch).map_err(self.reading())?
        {
            run.context.check()?;
            for row in batch.iter() {
                let value = value_of(row, self.columns);
                if value.is_some_and(|value| values.remove(&value)) {
                    found.push_row(row);
                }
            }
        }
        Ok(found)
    }

    fn rows(&self) -> Result<Box<dyn RowStream + '_>, Error> {
        let rows = self.view.tenant_rows(self.tenant, self.table);
        rows.map_err(self.reading())
    }

    fn reading(&self) -> impl FnOnce(reinstate_core::StoreError) -> Error {
        let name = &self.view.schema().table(self.table).name;
        Error::store(format!("read the live rows of {} in {name}", self.tenant))
    }
}

/// The hash of a row's values in these columns; none if one of them is NULL.
fn value_of(row: RowRef<'_>, columns: &[ColumnIndex]) -> Option<Value> {
    let mut hasher = blake3::Hasher::new();
    for column in columns {
        let value = row.values().nth(column.get()).flatten()?;
        hasher.update(&(value.len() as u64).to_le_bytes());
        hasher.update(value);
    }
    hasher.finalize().as_bytes().first_chunk().copied()
}

/// Values with who has them: 0 who is referred to, others who refer. Sorted by value.
struct Leads<'p> {
    sorter: Sorter<'p>,
    row: RowBuilder,
    last: Option<(u32, Value)>,
}

impl<'p> Leads<'p> {
    fn new(pool: &'p ThreadPool, budget: SortBudget) -> Self {
        Self {
            sorter: Sorter::new(pool, budget),
            row: RowBuilder::new(),
            last: None,
        }
    }

    fn add(&mut self, who: u32, value: Value) -> Result<(), Error> {
        // Many that refer to one row often lie beside each other.
        if self.last.replace((who, value)) == Some((who, value)) {
            return Ok(());
        }
        let mut key = [0; 20];
        key[..16].copy_from_slice(&value);
        key[16..].copy_from_slice(&who.to_be_bytes());
        self.row.start(&key);
        self.sorter.push(&[], TableIndex(0), self.row.row())
    }

    /// Hands over the values that only those have who refer, at most so many of one at once, each once. The
    /// first of whom is said that it leads nowhere ends it.
    fn each_astray(
        self,
        referring_count: usize,
        values_max: usize,
        mut leads_on: impl FnMut(usize, BTreeSet<Value>) -> Result<bool, Error>,
    ) -> Result<Option<usize>, Error> {
        let mut sorted = Sorted::merge(vec![self.sorter.finish()?], 0)?;
        let mut astray: Vec<BTreeSet<Value>> = vec![BTreeSet::new(); referring_count];
        let (mut known, mut last) = (None, None);
        while sorted.advance()? {
            let key = sorted.current().row.key();
            let (value, who) = key.split_at(16);
            let value: Value = value.try_into().expect("BUG: 16 bytes");
            let who = u32::from_be_bytes(who.try_into().expect("BUG: 4 bytes"));
            if last.replace((who, value)) == Some((who, value)) {
                continue;
            }
            let Some(place) = (who as usize).checked_sub(1) else {
                known = Some(value);
                continue;
            };
            if known == Some(value) {
                continue;
            }
            astray[place].insert(value);
            if astray[place].len() >= values_max
                && !leads_on(place, std::mem::take(&mut astray[place]))?
            {
                return Ok(Some(place));
            }
        }
        for (place, values) in astray.into_iter().enumerate() {
            if !values.is_empty() && !leads_on(place, values)? {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(number: u8) -> Value {
        *blake3::hash(&[number]).as_bytes().first_chunk().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn exactly_what_nobody_has_leads_astray_whatever_the_memory(
            known in proptest::collection::vec(0_u8..12, 0..16),
            referring in proptest::collection::vec(
                proptest::collection::vec(0_u8..20, 0..24), 0..3),
            bad in 0_u8..24,
        ) {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            let has = |number: &u8| known.contains(number);
            let expected: Vec<BTreeSet<Value>> = referring
                .iter()
                .map(|numbers| numbers.iter().filter(|number| !has(number)).map(|n| value(*n)).collect())
                .collect();
            for (memory, values_max) in [(1, 1), (300, 3), (1 << 20, 1_000)] {
                let budget = SortBudget {
                    memory_bytes_max: memory,
                    directory: std::env::temp_dir(),
                };
                let leads = || {
                    let mut leads = Leads::new(&pool, budget.clone());
                    for (who, numbers) in (1..).zip(&referring) {
                        numbers.iter().for_each(|n| leads.add(who, value(*n)).unwrap());
                    }
                    known.iter().for_each(|n| leads.add(0, value(*n)).unwrap());
                    leads
                };
                let mut found = vec![BTreeSet::new(); referring.len()];
                let end = leads().each_astray(referring.len(), values_max, |place, values| {
                    assert!(values.len() <= values_max);
                    for value in values {
                        assert!(found[place].insert(value), "handed over twice");
                    }
                    Ok(true)
                });
                prop_assert_eq!(end.unwrap(), None);
                prop_assert_eq!(&found, &expected);
                // One that leads nowhere, wherever it is, is enough.
                let is_bad = |values: &BTreeSet<Value>| values.contains(&value(bad));
                let end = leads().each_astray(referring.len(), values_max, |_, values| {
                    Ok(!is_bad(&values))
                });
                prop_assert_eq!(end.unwrap().is_some(), expected.iter().any(is_bad));
            }
        }
    }
}
