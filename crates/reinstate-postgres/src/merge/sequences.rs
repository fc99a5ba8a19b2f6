//! Sequences that must not hand out a restored value again.
//!
//! Sequences do not obey transactions: others take values at the same time, and what is raised
//! stays raised after a rollback, as it does for everybody. So a sequence is raised only just
//! before the commit, and never lowered.

use std::collections::BTreeMap;

use reinstate_core::{
    ChangeSource, ColumnIndex, ErrorKind, RowRef, SequenceRaise, StoreError, TenantId,
};
use tokio_postgres::types::{ToSql, Type};

use crate::catalog::{Catalog, CatalogTable, OwnedSequence, display_name, get};
use crate::session::Session;
use crate::sql::{literal, qualified};
use crate::tenancy::TenancyMap;

/// Up to how many values a sequence is raised by taking them one by one, which nobody can come
/// in the way of.
const TAKEN_MAX: i64 = 1_000;

/// Adds the sequences that the tenant has of its own to what the catalogue knows.
///
/// # Errors
/// `Usage` if the map names a column that there is not; `Refused` if a sequence is gone: nothing is
/// ever created.
pub(super) fn add_own_sequences(
    session: &Session,
    map: &TenancyMap,
    catalog: &mut Catalog,
    tenant: &TenantId,
    changes: &dyn ChangeSource,
) -> Result<(), StoreError> {
    for (pattern, name) in &map.sequences {
        let (table, column) = catalog.counting_column(name, "sequences")?;
        let counts = changes.counts(table);
        if counts.created + counts.put_back == 0 {
            continue;
        }
        let mut sequence = find_own_sequence(session, pattern, name, tenant)?;
        sequence.column = column;
        catalog.tables[table.get()].sequences.push(sequence);
    }
    Ok(())
}

/// The sequence that a tenant has of its own for what `name` names, of no column yet.
///
/// # Errors
/// `Refused` if there is none.
pub(crate) fn find_own_sequence(
    session: &Session,
    pattern: &str,
    name: &str,
    tenant: &TenantId,
) -> Result<OwnedSequence, StoreError> {
    let id = String::from_utf8_lossy(tenant.as_bytes());
    let (namespace, relation) = pattern.split_once('.').unwrap_or(("public", pattern));
    let named = |part: &str| part.replace("{tenant}", &id);
    let (namespace, relation) = (named(namespace), named(relation));
    let display = display_name(&namespace, &relation);
    let sql = "SELECT s.seqincrement, s.seqmax, s.seqcycle
                 FROM pg_sequence s
                 JOIN pg_class c ON c.oid = s.seqrelid
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = $1 AND c.relname = $2";
    let values: [(&(dyn ToSql + Sync), Type); 2] =
        [(&namespace, Type::TEXT), (&relation, Type::TEXT)];
    let found = session.rows("look for the tenant's own sequences", sql, &values)?;
    let Some(row) = found.first() else {
        let message = format!(
            "sequence {display} of {tenant} is gone, and {name} takes its numbers from it: \
             CREATE SEQUENCE {} first",
            qualified(&namespace, &relation)
        );
        return Err(StoreError::new(ErrorKind::Refused, message));
    };
    Ok(OwnedSequence {
        namespace,
        relation,
        display_name: display,
        column: ColumnIndex(0),
        increment: get(row, 0)?,
        value_max: get(row, 1)?,
        is_cycle: get(row, 2)?,
    })
}

/// The greatest restored value of each sequence.
#[derive(Debug, Default)]
pub(super) struct RestoredValues {
    by_name: BTreeMap<String, Restored>,
}

/// What a sequence must have handed out.
#[derive(Debug)]
struct Restored {
    sequence: OwnedSequence,
    greatest: i64,
    /// From where on it has nothing more to give.
    last: Option<i64>,
}

/// The columns of one table that take their values from sequences.
pub(super) struct SequenceColumns<'r> {
    values: &'r mut RestoredValues,
    /// Columns with what their sequences are called, and the greatest value so far.
    columns: Vec<(usize, OwnedSequence, Option<i64>)>,
    /// Where each sequence ends, in their order.
    lasts: Vec<Option<i64>>,
}

impl RestoredValues {
    /// Notes the values of rows that are written to this table.
    pub(super) fn of<'r>(&'r mut self, table: &CatalogTable) -> SequenceColumns<'r> {
        let rising = table
            .sequences
            .iter()
            .filter(|sequence| sequence.increment > 0);
        SequenceColumns {
            values: self,
            lasts: rising
                .clone()
                .map(|sequence| sequence.last_of(table))
                .collect(),
            columns: rising
                .map(|sequence| (sequence.column.get(), sequence.clone(), None))
                .collect(),
        }
    }

    /// Notes nothing.
    pub(super) fn of_none(&mut self) -> SequenceColumns<'_> {
        SequenceColumns {
            values: self,
            columns: Vec::new(),
            lasts: Vec::new(),
        }
    }

    /// Raises the sequences that lag behind.
    ///
    /// # Errors
    /// `Refused` if the role may not use one of them.
    pub(super) fn raise(&self, session: &Session) -> Result<Vec<SequenceRaise>, StoreError> {
        for restored in self.by_name.values() {
            check_end(session, restored)?;
        }
        let mut raised = Vec::new();
        for restored in self.by_name.values() {
            raised.extend(raise(session, &restored.sequence, restored.greatest)?);
        }
        Ok(raised)
    }
}

impl SequenceColumns<'_> {
    /// Looks at one row.
    pub(super) fn note(&mut self, row: RowRef<'_>) {
        for (column, sequence, greatest) in &mut self.columns {
            let value = row.values().nth(*column).flatten();
            let value = value.and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok());
            // A value that the sequence never reaches is not in its way.
            let value = value.filter(|value| *value <= sequence.value_max);
            *greatest = (*greatest).max(value);
        }
    }
}

impl Drop for SequenceColumns<'_> {
    fn drop(&mut self) {
        let lasts = std::mem::take(&mut self.lasts);
        for ((_, sequence, greatest), last) in self.columns.drain(..).zip(lasts) {
            if let Some(greatest) = greatest {
                let name = sequence.sql_name();
                let known = self.values.by_name.entry(name).or_insert(Restored {
                    sequence,
                    greatest,
                    last,
                });
                known.greatest = known.greatest.max(greatest);
            }
        }
    }
}

/// What a sequence handed out last, as a query.
fn state(sequence: &OwnedSequence) -> String {
    format!(
        "SELECT CASE WHEN q.is_called THEN q.last_value ELSE q.last_value - {} END FROM {} q",
        sequence.increment,
        sequence.sql_name()
    )
}

/// Whether a value would take a sequence to its end, where nobody gets another one. Its last value is
/// asked for only if that is so.
pub(crate) fn is_at_end(
    session: &Session,
    sequence: &OwnedSequence,
    last: Option<i64>,
    restored: i64,
) -> Result<bool, StoreError> {
    if last.is_none_or(|last| restored > last || restored <= last - sequence.increment) {
        return Ok(false);
    }
    let operation = format!("look at sequence {}", sequence.display_name);
    let handed_out: i64 = get(&session.row(&operation, &state(sequence), &[])?, 0)?;
    Ok(handed_out < restored)
}

/// What to do about a sequence that would be at its end.
pub(crate) const AT_END: &str = "would be at its end, so that nobody gets a number from it any more: give \
     it and its column a larger type or MAXVALUE, or another number to the row that has the last one, first";

fn check_end(session: &Session, restored: &Restored) -> Result<(), StoreError> {
    let Restored {
        sequence,
        greatest,
        last,
    } = restored;
    if is_at_end(session, sequence, *last, *greatest)? {
        let message = format!("sequence {} {AT_END}", sequence.display_name);
        return Err(StoreError::new(ErrorKind::Refused, message));
    }
    Ok(())
}

fn raise(
    session: &Session,
    sequence: &OwnedSequence,
    restored: i64,
) -> Result<Option<SequenceRaise>, StoreError> {
    let operation = format!("raise sequence {}", sequence.display_name);
    let name = sequence.sql_name();
    let state = state(sequence);
    let last = || -> Result<i64, StoreError> { get(&session.row(&operation, &state, &[])?, 0) };
    let from = last()?;
    if from >= restored {
        return Ok(None);
    }
    let distance = i128::from(restored) - i128::from(from);
    let steps = (distance + i128::from(sequence.increment) - 1) / i128::from(sequence.increment);
    let regclass = literal(&name);
    match i64::try_from(steps) {
        Ok(steps) if steps <= TAKEN_MAX => {
            let sql = format!("SELECT max(nextval({regclass})) FROM generate_series(1, {steps})");
            session.row(&operation, &sql, &[])?;
        }
        // Others would have to take a thousand values between the condition and the call. A merge of another
        // tenant can raise it by more at once, and waits here.
        _ => {
            let lock = format!(
                "hashtextextended('reinstate sequence ' || {regclass}::regclass::oid, 5213974402857)"
            );
            session.row(&operation, &format!("SELECT pg_advisory_lock({lock})"), &[])?;
            let sql =
                format!("SELECT setval({regclass}, $1) FROM {name} q WHERE q.last_value < $1");
            session.rows(&operation, &sql, &[(&restored, Type::INT8)])?;
            // An error ends the session, and the lock with it.
            let unlock = format!("SELECT pg_advisory_unlock({lock})");
            session.row(&operation, &unlock, &[])?;
        }
    }
    Ok(Some(SequenceRaise {
        name: sequence.display_name.clone(),
        from,
        to: last()?,
    }))
}
