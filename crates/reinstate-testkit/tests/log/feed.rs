//! A feed that hands out what was written down, a few transactions at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use reinstate::Log;
use reinstate_core::{
    Change, ChangeByKey, ChangeFeed, ChangeSink, ColumnIndex, Commit, ErrorKind, FeedProgress,
    FeedRow, Position, SchemaChange, StoreError, StoreSchema, TableIndex,
};

use crate::model::{Step, encode};

/// What was committed, and how far it was acknowledged.
#[derive(Clone, Debug)]
pub struct Script {
    pub schema: StoreSchema,
    pub transactions: Vec<(Commit, Vec<Step>)>,
    /// By the number of the first transaction that is written to other tables.
    pub changes: BTreeMap<usize, SchemaChange>,
    pub acknowledged: Arc<Mutex<u64>>,
    /// Whether old rows of tables with a key are told by it alone.
    pub is_by_key: bool,
}

/// A feed of a script.
pub struct ScriptFeed {
    script: Script,
    next: usize,
    schema: StoreSchema,
    /// How often the tables changed up to now.
    changes: usize,
    at_once: usize,
    /// Breaks in the middle of the transaction of this number.
    pub breaks_in: Option<usize>,
}

impl Script {
    pub fn feed(&self, log: &Log, at_once: usize) -> ScriptFeed {
        let after = log.through();
        assert!(*self.acknowledged.lock().unwrap() <= after.commit, "a gap");
        let is_past = |(commit, _): &(Commit, Vec<Step>)| commit.position <= after;
        let changes = log.versions().len();
        let last = changes.checked_sub(1);
        let last = last.and_then(|last| self.changes.values().nth(last));
        let schema = last.map_or(&self.schema, SchemaChange::schema);
        ScriptFeed {
            next: self.transactions.partition_point(is_past),
            schema: schema.clone(),
            changes,
            script: self.clone(),
            at_once,
            breaks_in: None,
        }
    }
}

impl ScriptFeed {
    fn hand_over(&self, step: &Step, sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        let schema = &self.schema;
        let row = |table: u32, values| encode(schema, table, values);
        fn plain(row: &reinstate_core::RowBuilder) -> FeedRow<'_> {
            FeedRow {
                owner: None,
                row: row.row(),
            }
        }
        if let Step::Update(table, ..) | Step::Delete(table, _) = step
            && self.script.is_by_key
            && schema.table(TableIndex(*table)).has_key()
        {
            return self.hand_over_by_key(step, sink);
        }
        match step {
            Step::Insert(table, values) => sink.change(Change::Insert {
                table: TableIndex(*table),
                row: plain(&row(*table, values)),
            }),
            Step::Update(table, before, after) => sink.change(Change::Update {
                table: TableIndex(*table),
                before: plain(&row(*table, before)),
                after: plain(&row(*table, after)),
            }),
            Step::Delete(table, before) => sink.change(Change::Delete {
                table: TableIndex(*table),
                before: plain(&row(*table, before)),
            }),
            Step::Truncate(table) => sink.change(Change::Truncate {
                table: TableIndex(*table),
            }),
        }
    }
}

impl ScriptFeed {
    /// Values that stay as they are, but for those of the key, are not told again.
    fn hand_over_by_key(&self, step: &Step, sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        let schema = &self.schema;
        match step {
            Step::Update(index, before, after) => {
                let table = TableIndex(*index);
                let key = &schema.table(table).key;
                let mut told = after.clone();
                let mut unchanged = Vec::new();
                for (place, was) in before.iter().enumerate() {
                    let column = ColumnIndex(u32::try_from(place).unwrap());
                    if *was == after[place] && !key.contains(&column) {
                        told[place] = None;
                        unchanged.push(column);
                    }
                }
                let after = encode(schema, *index, &told);
                let row = after.row();
                sink.change_by_key(ChangeByKey::Update {
                    table,
                    key: encode(schema, *index, before).row().key(),
                    after: FeedRow { owner: None, row },
                    unchanged: &unchanged,
                })
            }
            Step::Delete(index, before) => sink.change_by_key(ChangeByKey::Delete {
                table: TableIndex(*index),
                key: encode(schema, *index, before).row().key(),
            }),
            Step::Insert(..) | Step::Truncate(_) => unreachable!("told otherwise"),
        }
    }

    fn tell(&self, sink: &mut dyn ChangeSink) -> Result<(), StoreError> {
        let tables = self.schema.iter();
        let by_key = tables.filter(|(_, table)| self.script.is_by_key && table.has_key());
        let by_key: Vec<TableIndex> = by_key.map(|(index, _)| index).collect();
        sink.told_by_key(&by_key)
    }
}

impl ChangeFeed for ScriptFeed {
    fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    fn read(
        &mut self,
        _bytes_target: u64,
        sink: &mut dyn ChangeSink,
    ) -> Result<FeedProgress, StoreError> {
        let mut through = Position {
            commit: 0,
            ordinal: 0,
        };
        self.tell(sink)?;
        for _ in 0..self.at_once {
            let change = self.script.changes.iter().nth(self.changes);
            if let Some((_, change)) = change.filter(|(at, _)| **at == self.next) {
                sink.tables(change)?;
                self.schema = change.schema().clone();
                self.changes += 1;
                self.tell(sink)?;
            }
            let Some((commit, steps)) = self.script.transactions.get(self.next) else {
                break;
            };
            for step in steps {
                self.hand_over(step, sink)?;
            }
            if self.breaks_in == Some(self.next) {
                return Err(StoreError::new(
                    ErrorKind::Unavailable,
                    "the server went away",
                ));
            }
            sink.commit(*commit)?;
            through = commit.position;
            self.next += 1;
        }
        Ok(FeedProgress {
            through,
            has_more: self.next < self.script.transactions.len(),
        })
    }

    fn acknowledge(&mut self, position: Position) -> Result<(), StoreError> {
        *self.script.acknowledged.lock().unwrap() = position.commit;
        Ok(())
    }

    fn mark(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
