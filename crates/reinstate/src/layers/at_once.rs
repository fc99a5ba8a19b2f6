//! All rows of tables with keys at a position, in any order, by all threads.
//!
//! The stored blocks are cut into stretches. Whoever reads a stretch handles what became of its rows and what
//! lies between them. What lies between two stretches was inserted, or something is missing: it follows at
//! the end.

use reinstate_core::{ContentDigest, RowBatch, RowStream, StoreError, TableIndex};
use reinstate_format::{BlockDescriptor, BlockOpener};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::changed::{ChangedRows, contradiction};
use super::delta::{DeltaCursor, Fate};
use super::table::TableDelta;
use crate::image::{read_block, share};
use crate::plan::RowCursor;
use crate::run_stream::RunPart;
use crate::{Context, Error};

/// Blocks that follow each other, one after the other.
struct Blocks<'b> {
    context: Context<'b>,
    part: &'b RunPart,
    left: &'b [BlockDescriptor],
    opener: &'b mut BlockOpener,
    ends: Ends,
}

/// The keys of the first and the last row of a stretch.
#[derive(Default)]
struct Ends {
    first: Option<Vec<u8>>,
    last: Vec<u8>,
}

impl RowStream for Blocks<'_> {
    fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
        let Some((block, left)) = self.left.split_first() else {
            batch.clear();
            return Ok(false);
        };
        self.context.check().map_err(Error::into_store_error)?;
        read_block(self.part, block, self.opener, batch).map_err(Error::into_store_error)?;
        self.left = left;
        if self.ends.first.is_none() {
            self.ends.first = batch.iter().next().map(|row| row.key().to_vec());
        }
        if left.is_empty() {
            let last = batch.iter().last();
            self.ends.last = last.map_or_else(Vec::new, |row| row.key().to_vec());
        }
        Ok(true)
    }
}

/// A table with keys, of which rows changed since.
pub(crate) struct KeyedTable<'t> {
    pub(super) index: TableIndex,
    pub(super) parts: &'t [RunPart],
    pub(super) delta: &'t TableDelta,
}

/// What there was in a stretch.
struct Read {
    ends: Ends,
    /// The first row behind it of which something became.
    next_fate: Option<Vec<u8>>,
    /// How what stays of the blocks differs from what they contain.
    difference: ContentDigest,
}

/// Hands out every row of these tables.
///
/// # Errors
/// `Corrupt` if a block is damaged, or if the changes do not fit to the rows.
pub(crate) fn for_each_batch(
    context: Context<'_>,
    tables: &[KeyedTable<'_>],
    each: impl Fn(TableIndex, &RowBatch) + Sync,
) -> Result<(), Error> {
    let threads = context.resources.threads();
    let stretches: Vec<_> = tables
        .iter()
        .flat_map(|table| table.parts.iter().map(move |part| (table, part)))
        .flat_map(|(table, part)| share(part, threads).map(move |stretch| (table, stretch)))
        .collect();
    // Rayon reports one of the errors, not the first: sort them out by collecting.
    let read: Vec<Result<Read, Error>> = context.resources.pool().install(|| {
        stretches
            .par_iter()
            .map_init(
                || (BlockOpener::new(), RowBatch::new()),
                |(opener, batch), (table, (part, blocks))| {
                    let blocks = Blocks {
                        context,
                        part,
                        left: &part.run.blocks[blocks.clone()],
                        opener,
                        ends: Ends::default(),
                    };
                    let mut rows = ChangedRows::stretch(blocks, table.delta.fates.clone());
                    while rows.next(batch)? {
                        each(table.index, batch);
                    }
                    Ok(Read {
                        next_fate: rows.next_key().map(<[u8]>::to_vec),
                        difference: rows.difference(),
                        ends: rows.into_base().ends,
                    })
                },
            )
            .collect()
    });
    let mut read = read.into_iter();
    for table in tables {
        let stretch_count = stretches
            .iter()
            .filter(|(of, _)| of.index == table.index)
            .count();
        let read = read.by_ref().take(stretch_count);
        between(table, read, |batch| each(table.index, batch))?;
    }
    Ok(())
}

/// Hands out what lies between the stretches of a table, before and behind them, and checks that it is all.
fn between(
    table: &KeyedTable<'_>,
    stretches: impl Iterator<Item = Result<Read, Error>>,
    each: impl Fn(&RowBatch),
) -> Result<(), Error> {
    let delta = table.delta;
    let (mut content, stays) = delta.content;
    let mut end: Option<(Vec<u8>, Option<Vec<u8>>)> = None;
    for stretch in stretches {
        let stretch = stretch?;
        content.merge(stretch.difference);
        let Some(first) = stretch.ends.first else {
            continue;
        };
        let nothing = end.as_ref().is_some_and(|(_, next_fate)| {
            let mut next_fate = next_fate.iter();
            next_fate.all(|next_fate| *next_fate >= first)
        });
        if !nothing {
            let end = end.as_ref().map(|(last, _)| last.as_slice());
            inserted(delta, end, Some(&first), &each)?;
        }
        end = Some((stretch.ends.last, stretch.next_fate));
    }
    let end = end.as_ref().map(|(last, _)| last.as_slice());
    inserted(delta, end, None, &each)?;
    if content == stays {
        Ok(())
    } else {
        Err(contradiction())
    }
}

/// The rows behind one key and before another: none of them is stored.
fn inserted(
    delta: &TableDelta,
    behind: Option<&[u8]>,
    before: Option<&[u8]>,
    each: &impl Fn(&RowBatch),
) -> Result<(), Error> {
    let mut cursor = DeltaCursor::new(delta.fates.clone());
    let mut batch = RowBatch::new();
    let mut more = match behind {
        None => cursor.advance()?,
        Some(key) => cursor.advance_to(key)?,
    };
    if more && behind == Some(cursor.key()) {
        more = cursor.advance()?;
    }
    while more {
        let Fate::Keyed { key, was, is } = cursor.fate() else {
            return Err(contradiction());
        };
        if before.is_some_and(|before| key >= before) {
            break;
        }
        if was {
            return Err(contradiction());
        }
        if let Some(row) = is {
            batch.push_row(row);
        }
        if batch.as_bytes().len() >= RowBatch::TARGET_BYTES {
            each(&batch);
            batch.clear();
        }
        more = cursor.advance()?;
    }
    if !batch.is_empty() {
        each(&batch);
    }
    Ok(())
}
