//! Rows that a tenant has and did not have, on their way to be deleted.
//!
//! They are kept until it is known whose they were. As soon as one tenant of a plan has such rows in a
//! table, those of the tenants after it are looked up with them, so that the table of a snapshot is read
//! once for all of them. What a plan comes to does not depend on who else is in it.

use reinstate_core::{Digest, LiveView, RowBatch, RowRef, TableIndex};

use super::changes::TableChanges;
use super::compare::mapped_rows;
use super::cursor::{Ahead, RowCursor, Side, StreamCursor, Walk, live_rows};
use super::owners::{Claims, Known, Owners};
use super::since::By;
use crate::drift::TableMapping;
use crate::image::TenantImage;
use crate::layers::ImageRows;
use crate::{Context, Error};

/// Why a row that the tenant has now is not deleted.
const WAS_EVERYBODYS: &str = "everybody's in the snapshot, and no restore would bring it back";
/// The same. Not whose it was: that is nobody's business who restores this tenant.
const WAS_ANOTHERS: &str =
    "belonged to another tenant in the snapshot, and is not this one's to delete";
/// What a key takes besides its bytes until it is looked up.
const KEY_BYTES: usize = 128;

/// One table of a tenant, and of those after it in the plan.
#[derive(Clone, Copy)]
pub(super) struct Turn<'s> {
    pub(super) owners: &'s Owners<'s>,
    pub(super) view: &'s dyn LiveView,
    pub(super) table: TableIndex,
    /// What it is in the snapshot.
    pub(super) source: TableIndex,
    pub(super) mapping: &'s TableMapping,
    pub(super) image: &'s TenantImage,
    /// Those whose turn comes later; none if their rows are not looked for together.
    pub(super) later: &'s [TenantImage],
}

/// Rows of one table that the tenant has and did not have, on their way to be deleted.
pub(super) struct Newer<'s> {
    turn: Turn<'s>,
    everybodys: Everybodys<'s>,
    /// Whether others' rows are looked for; not if none could have the same key.
    are_looked_for: bool,
    /// Rows that others may have had, and whether each returns by itself.
    rows: RowBatch,
    return_by_themselves: Vec<bool>,
    /// What changed them last.
    by: Vec<By>,
}

impl<'s> Newer<'s> {
    pub(super) fn new(turn: Turn<'s>) -> Self {
        let table = turn.image.snapshot().schema.table(turn.source);
        Self {
            turn,
            everybodys: Everybodys::of(&turn, turn.image),
            are_looked_for: turn.owners.are_looked_for(table),
            rows: RowBatch::new(),
            return_by_themselves: Vec::new(),
            by: Vec::new(),
        }
    }

    /// Deletes the row, now or once it is known whose it was. Given rows in their order.
    pub(super) fn delete(
        &mut self,
        live: RowRef<'_>,
        returns: bool,
        changes: &mut TableChanges<'_, '_>,
    ) -> Result<(), Error> {
        if self.everybodys.had(live)? {
            changes.conflict(live.key(), WAS_EVERYBODYS);
            changes.stays(returns, live);
            return Ok(());
        }
        if !self.are_looked_for {
            return changes.delete(live);
        }
        self.rows.push_row(live);
        self.return_by_themselves.push(returns);
        self.by.push(changes.by);
        let held_bytes = self.rows.as_bytes().len() + KEY_BYTES * self.return_by_themselves.len();
        if held_bytes >= self.turn.bytes_max() {
            // Rows of the table are still being read: nobody else's are asked for.
            let had = self.turn.look_up_own(&self.rows)?;
            self.settle(&had, changes)?;
        }
        Ok(())
    }

    /// Deletes what is left to be deleted, once every row of the table was read.
    pub(super) fn finish(mut self, changes: &mut TableChanges<'_, '_>) -> Result<(), Error> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let had = self.turn.look_up(&self.rows)?;
        self.settle(&had, changes)
    }

    fn settle(&mut self, had: &[bool], changes: &mut TableChanges<'_, '_>) -> Result<(), Error> {
        let known = self.return_by_themselves.iter().zip(&self.by);
        for ((row, had), (returns, by)) in self.rows.iter().zip(had).zip(known) {
            if *had {
                changes.conflict(row.key(), WAS_ANOTHERS);
                changes.stays(*returns, row);
            } else {
                changes.by = *by;
                changes.delete(row)?;
            }
        }
        self.rows.clear();
        self.return_by_themselves.clear();
        self.by.clear();
        Ok(())
    }
}

impl<'s> Turn<'s> {
    fn context(&self) -> Context<'s> {
        self.owners.context
    }

    /// The most bytes of rows and keys that are held until they are looked up.
    fn bytes_max(&self) -> usize {
        self.context().resources.memory_bytes_max() / 8
    }

    /// Which of these rows others had.
    fn look_up_own(&self, rows: &RowBatch) -> Result<Vec<bool>, Error> {
        let mut claims = Claims::default();
        claims.of(self.image);
        for row in rows.iter() {
            claims.add(row.key());
        }
        self.owners.had(self.image, self.source, &claims)
    }

    /// Which of these rows, all that the tenant has to be looked up, others had. Those of later tenants
    /// are looked up with them.
    fn look_up(&self, rows: &RowBatch) -> Result<Vec<bool>, Error> {
        let tenant = &self.image.tenant().id;
        match self.owners.take_known(tenant, self.table) {
            Some(known) if known.keys == digest(rows.iter().map(RowRef::key)) => {
                return Ok(known.had);
            }
            // It has other rows by now: some that were left behind are its own again.
            Some(_) => return self.look_up_own(rows),
            None if self.later.is_empty() => return self.look_up_own(rows),
            None => {}
        }
        let (later, keys_of_later) = self.gather_later(rows)?;
        let mut claims = Claims::default();
        claims.of(self.image);
        for row in rows.iter() {
            claims.add(row.key());
        }
        let mut counts = Vec::with_capacity(later.len());
        for (image, keys) in later.iter().zip(&keys_of_later) {
            claims.of(image);
            if !keys.iter().all(|key| claims.add(key)) {
                break;
            }
            counts.push(keys.ends.len());
        }
        let mut had = self.owners.had(self.image, self.source, &claims)?;
        let mut of_later = had.split_off(rows.len());
        for ((image, keys), count) in later.iter().zip(&keys_of_later).zip(counts) {
            let rest = of_later.split_off(count);
            let known = Known {
                keys: digest(keys.iter()),
                had: std::mem::replace(&mut of_later, rest),
            };
            let tenant = &image.tenant().id;
            self.owners.keep_known(tenant, self.table, known);
        }
        Ok(had)
    }

    /// The keys of the tenants after this one, as many of them as there is room for beside these rows.
    fn gather_later(&self, rows: &RowBatch) -> Result<(&'s [TenantImage], Vec<Keys>), Error> {
        let mut held_bytes = rows.as_bytes().len() + KEY_BYTES * rows.len();
        let mut gathered = Vec::new();
        for image in self.later {
            let room = self.bytes_max().saturating_sub(held_bytes);
            let Some(keys) = self.keys_of(image, room)? else {
                break;
            };
            held_bytes += keys.held_bytes();
            gathered.push(keys);
        }
        Ok((&self.later[..gathered.len()], gathered))
    }

    /// The keys of rows that a tenant has and did not have, unless they take too much room.
    fn keys_of(&self, image: &TenantImage, room: usize) -> Result<Option<Keys>, Error> {
        let context = self.context();
        let mut keys = Keys::default();
        let now = live_rows(context, self.view, &image.tenant().id, self.table, &[])?;
        let mut now = Ahead::of(now);
        if !now.has_row()? {
            return Ok(Some(keys));
        }
        let then = mapped_rows(context, image, self.view, self.table, self.mapping)?;
        let mut everybodys = Everybodys::of(self, image);
        let mut walk = Walk::start(then, Box::new(now), self.mapping.shape.as_ref())?;
        while let Some(side) = walk.side() {
            if side == Side::Right && !everybodys.had(walk.now())? {
                keys.push(walk.now().key());
                if keys.held_bytes() > room {
                    return Ok(None);
                }
            }
            walk.pass(side)?;
        }
        context.check()?;
        Ok(Some(keys))
    }
}

/// Keys one behind the other.
#[derive(Default)]
struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    fn push(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.ends.push(self.bytes.len());
    }

    fn held_bytes(&self) -> usize {
        self.bytes.len() + KEY_BYTES * self.ends.len()
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.bytes[start..end])
    }
}

/// What tells whether two tenants' worth of keys are the same.
fn digest<'k>(keys: impl Iterator<Item = &'k [u8]>) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for key in keys {
        hasher.update(&(key.len() as u64).to_le_bytes());
        hasher.update(key);
    }
    Digest::from_bytes(*hasher.finalize().as_bytes())
}

/// The rows of everybody that a snapshot has of one table, passed by in order.
struct Everybodys<'s> {
    context: Context<'s>,
    image: &'s TenantImage,
    source: TableIndex,
    /// Those that are left, with whether there is a current one; none if nobody asked yet.
    rows: Option<(StreamCursor<ImageRows>, bool)>,
}

impl<'s> Everybodys<'s> {
    fn of(turn: &Turn<'s>, image: &'s TenantImage) -> Self {
        Self {
            context: turn.context(),
            image,
            source: turn.source,
            rows: None,
        }
    }

    /// Whether the row was everybody's. Rows without a key are not told apart from others that are the
    /// same, and are nobody's in particular.
    fn had(&mut self, live: RowRef<'_>) -> Result<bool, Error> {
        if live.key().is_empty() {
            return Ok(false);
        }
        let (rows, has_row) = match &mut self.rows {
            Some(rows) => rows,
            none => {
                let stream = self.image.rows_of_everybody(self.context, self.source)?;
                let operation = "read the snapshot's rows of everybody".to_owned();
                let mut rows = StreamCursor::new(stream, operation);
                let has_row = rows.advance()?;
                none.insert((rows, has_row))
            }
        };
        while *has_row && rows.row().key() < live.key() {
            *has_row = rows.advance()?;
        }
        Ok(*has_row && rows.row().key() == live.key())
    }
}
