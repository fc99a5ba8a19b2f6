//! Replication slots: one for each feed, named after its snapshot and what its tables were like.

use reinstate_core::{ErrorKind, FeedHealth, Position, PositionNotation, SnapshotId, StoreError};
use tokio_postgres::types::Type;

use crate::catalog::get;
use crate::session::Session;

/// What the names of all slots start with.
pub(super) const SLOT_PREFIX: &str = "reinstate_";
/// Digits of a snapshot's id.
const ID_DIGITS: usize = 32;

/// A slot as the server sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub name: String,
    pub snapshot: SnapshotId,
    /// The facts of the snapshot; see [`super::facts`].
    pub digest: String,
    /// The process that reads it.
    pub reader: Option<i32>,
    /// Everything up to here was acknowledged.
    pub acknowledged: u64,
    pub kept_bytes: u64,
    /// Why it cannot be read any more.
    pub lost: Option<String>,
}

/// The name of the slot of a snapshot whose tables have these facts.
pub(super) fn slot_name(snapshot: SnapshotId, digest: &str) -> String {
    format!("{SLOT_PREFIX}{snapshot}_{digest}")
}

/// The slots of this database, by name.
pub(super) fn slots(session: &Session) -> Result<Vec<Slot>, StoreError> {
    let sql = "SELECT s.slot_name::text, s.active_pid,
                      coalesce(s.confirmed_flush_lsn - '0/0', 0)::int8,
                      coalesce(greatest(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()
                          THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                          s.restart_lsn), 0), 0)::int8,
                      s.wal_status,
                      coalesce(to_jsonb(s) ->> 'invalidation_reason', ''),
                      s.restart_lsn IS NULL, current_setting('max_slot_wal_keep_size')
                 FROM pg_replication_slots s
                WHERE s.database = current_database() AND s.slot_type = 'logical'
                  AND starts_with(s.slot_name, $1)
                ORDER BY 1";
    let rows = session.rows("look at the slots", sql, &[(&SLOT_PREFIX, Type::TEXT)])?;
    let mut slots = Vec::new();
    for row in &rows {
        let name: String = get(row, 0)?;
        let Some((snapshot, digest)) = parse_name(&name) else {
            continue;
        };
        let (status, reason): (Option<String>, String) = (get(row, 4)?, get(row, 5)?);
        let is_lost = status.as_deref() == Some("lost") || get(row, 6)? || !reason.is_empty();
        let limit: String = get(row, 7)?;
        let lost = is_lost.then(|| match reason.as_str() {
            "" | "wal_removed" => format!(
                "the server threw away log that was not read yet: it keeps \
                 max_slot_wal_keep_size = {limit} at most"
            ),
            reason => format!("the server gave the slot up: {reason}"),
        });
        slots.push(Slot {
            name,
            snapshot,
            digest,
            reader: get(row, 1)?,
            acknowledged: get::<i64>(row, 2)?.cast_unsigned(),
            kept_bytes: get::<i64>(row, 3)?.cast_unsigned(),
            lost,
        });
    }
    Ok(slots)
}

/// The slot of a snapshot.
///
/// # Errors
/// `NotFound` if there is none.
pub(super) fn find_slot(session: &Session, snapshot: SnapshotId) -> Result<Slot, StoreError> {
    let mut slots = slots(session)?.into_iter();
    slots.find(|slot| slot.snapshot == snapshot).ok_or_else(|| {
        let message = format!(
            "follow snapshot {snapshot}: the server has no replication slot for it (on a standby \
                 that was promoted, or a copy, there is none). Take a new snapshot"
        );
        StoreError::new(ErrorKind::NotFound, message)
    })
}

/// Drops a slot that nobody reads.
///
/// # Errors
/// `Locked` if somebody does.
pub(super) fn drop_slot(session: &Session, name: &str) -> Result<(), StoreError> {
    let sql = "SELECT pg_drop_replication_slot($1::text::name)";
    session
        .row("drop the slot", sql, &[(&name, Type::TEXT)])
        .map(drop)
}

impl Slot {
    /// The feed that the slot is for.
    pub(super) fn health(self) -> FeedHealth {
        FeedHealth {
            snapshot: self.snapshot,
            acknowledged: position(self.acknowledged),
            kept_bytes: self.kept_bytes,
            lost: self.lost,
        }
    }

    /// Refuses a slot that cannot go on from this position without a gap.
    ///
    /// # Errors
    /// `NotRecoverable`.
    pub(super) fn check(&self, after: Position) -> Result<(), StoreError> {
        if let Some(reason) = &self.lost {
            let message = format!(
                "follow snapshot {}: {reason}. What was committed after {} is in no log: take a new \
                 snapshot",
                self.snapshot,
                after.display(PositionNotation::Lsn)
            );
            return Err(StoreError::new(ErrorKind::NotRecoverable, message));
        }
        if self.acknowledged > after.commit {
            let message = format!(
                "follow snapshot {}: asked for what was committed after {}, but everything up to {} \
                 was acknowledged and is forgotten: take a new snapshot",
                self.snapshot,
                after.display(PositionNotation::Lsn),
                position(self.acknowledged).display(PositionNotation::Lsn)
            );
            return Err(StoreError::new(ErrorKind::NotRecoverable, message));
        }
        Ok(())
    }
}

/// A place in the log as a position.
pub(super) const fn position(commit: u64) -> Position {
    Position { commit, ordinal: 0 }
}

fn parse_name(name: &str) -> Option<(SnapshotId, String)> {
    let rest = name.strip_prefix(SLOT_PREFIX)?;
    let (id, digest) = rest.split_at_checked(ID_DIGITS)?;
    Some((id.parse().ok()?, digest.strip_prefix('_')?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_tells_its_snapshot_by_its_name() {
        let snapshot = SnapshotId::from_bytes([0xab; 16]);
        let name = slot_name(snapshot, "0123456789abcdef");
        assert!(name.len() < 64, "longer than the server keeps: {name}");
        let parsed = parse_name(&name).unwrap();
        assert_eq!(parsed, (snapshot, "0123456789abcdef".to_owned()));
        assert!(parse_name("reinstate_other").is_none());
    }
}
