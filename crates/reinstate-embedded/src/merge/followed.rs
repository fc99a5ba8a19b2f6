//! What a large restore changes, for those who follow the store.
//!
//! It is found by comparing the rows in use with those that were built aside: both stay as they are
//! until the switch, or the switch does not happen. So it does not matter whether somebody began to
//! follow the store before the restore or in the middle of it.

use std::cmp::Ordering;

use redb::ReadableDatabase;
use reinstate_core::{StoreError, TableIndex, compare_rows};

use super::EmbeddedWriter;
use super::aside::Aside;
use super::plan_rows::PlanRows;
use crate::error::During;
use crate::feed::{AsideRecorder, NotedAside, RowChange};
use crate::key::{FACTS, Place};
use crate::scan::Scan;
use crate::store::is_followed;
use crate::view::PlaceRows;

impl EmbeddedWriter<'_> {
    /// Notes what the switch is going to change, if anybody follows the store.
    ///
    /// *Cost*: reads the changed tables of the tenant twice, as they are and as they will be.
    pub(super) fn note_changes(&self, aside: &Aside) -> Result<Option<NotedAside>, StoreError> {
        let operation = "compare the restored rows";
        let transaction = self.store.database.begin_read().during(operation)?;
        if !is_followed(&transaction.open_table(FACTS).during(operation)?)? {
            return Ok(None);
        }
        let mut recorder = AsideRecorder::new(self.store);
        for (table, old, new) in aside.places() {
            self.note_table(&transaction, table, [old, new], &mut recorder)?;
        }
        recorder.finish().map(Some)
    }

    fn note_table(
        &self,
        transaction: &redb::ReadTransaction,
        table: TableIndex,
        places: [&Place; 2],
        recorder: &mut AsideRecorder<'_>,
    ) -> Result<(), StoreError> {
        let has_key = self.store.schema.table(table).has_key();
        let open = |place: &Place| {
            let scan = Scan::new(place.clone(), !has_key);
            let rows = PlaceRows::open(transaction, table, scan)?;
            let mut rows = PlanRows::over(Box::new(rows));
            rows.advance()?;
            Ok::<_, StoreError>(rows)
        };
        let (mut old, mut new) = (open(places[0])?, open(places[1])?);
        let owner = self.tenant.as_bytes();
        loop {
            let (order, change) = match (old.row(), new.row()) {
                (None, None) => return Ok(()),
                (Some(old), None) => (Ordering::Less, Some(RowChange::Delete(old.into()))),
                (None, Some(new)) => (Ordering::Greater, Some(RowChange::Insert(new.into()))),
                (Some(old), Some(new)) if has_key && old.key() == new.key() => {
                    let is_changed = old.columns() != new.columns();
                    let change = is_changed.then(|| RowChange::Update {
                        before: old.into(),
                        after: new.into(),
                    });
                    (Ordering::Equal, change)
                }
                (Some(old), Some(new)) => match compare_rows(old, new) {
                    Ordering::Less => (Ordering::Less, Some(RowChange::Delete(old.into()))),
                    Ordering::Equal => (Ordering::Equal, None),
                    Ordering::Greater => (Ordering::Greater, Some(RowChange::Insert(new.into()))),
                },
            };
            if let Some(change) = change {
                recorder.push(table, owner, change)?;
            }
            if order.is_le() {
                old.advance()?;
            }
            if order.is_ge() {
                new.advance()?;
            }
        }
    }
}
