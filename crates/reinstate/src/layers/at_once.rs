//! All rows of a table with keys at a position, in any order, by all threads.
//!
//! The stored blocks are cut into stretches. Whoever reads a stretch handles what became of its rows and what
//! lies between them. What lies between two stretches was inserted, or something is missing: it follows at
//! the end.

use reinstate_core::{ContentDigest, RowBatch, RowStream, StoreError};
use reinstate_format::{BlockDescriptor, BlockOpener};

use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use super::changed::{ChangedRows, contradiction, push_counted};
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

/// Hands out every row of a table of which these are the stored parts, in order.
///
/// # Errors
/// `Corrupt` if a block is damaged, or if the changes do not fit to the rows.
pub(super) fn for_each_batch(
    context: Context<'_>,
    parts: &[RunPart],
    delta: &TableDelta,
    each: impl Fn(&RowBatch) + Sync,
) -> Result<(), Error> {
    let threads = context.resources.threads();
    let stretches: Vec<_> = parts.iter().flat_map(|part| share(part, threads)).collect();
    // Rayon reports one of the errors, not the first: sort them out by collecting.
    let read: Vec<Result<(Ends, ContentDigest), Error>> = context.resources.pool().install(|| {
        stretches
            .par_iter()
            .map_init(
                || (BlockOpener::new(), RowBatch::new()),
                |(opener, batch), (part, blocks)| {
                    let blocks = Blocks {
                        context,
                        part,
                        left: &part.run.blocks[blocks.clone()],
                        opener,
                        ends: Ends::default(),
                    };
                    let mut rows = ChangedRows::stretch(blocks, delta.fates.clone());
                    while rows.next(batch)? {
                        each(batch);
                    }
                    let difference = rows.difference();
                    Ok((rows.into_base().ends, difference))
                },
            )
            .collect()
    });
    let (before, after) = delta.content;
    let mut content = before;
    let mut end: Option<Vec<u8>> = None;
    for stretch in read {
        let (ends, difference) = stretch?;
        content.merge(difference);
        let Some(first) = ends.first else {
            continue;
        };
        content.merge(inserted(delta, end.as_deref(), Some(&first), &each)?);
        end = Some(ends.last);
    }
    content.merge(inserted(delta, end.as_deref(), None, &each)?);
    if content == after {
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
) -> Result<ContentDigest, Error> {
    let mut cursor = DeltaCursor::new(delta.fates.clone());
    let mut content = ContentDigest::EMPTY;
    let mut batch = RowBatch::new();
    let mut more = match behind {
        None => cursor.advance()?,
        Some(key) => cursor.advance_to(key)?,
    };
    if more && behind == Some(cursor.place().key()) {
        more = cursor.advance()?;
    }
    while more {
        let key = cursor.place().key();
        if before.is_some_and(|before| key >= before) {
            break;
        }
        let (Fate::Keyed { was: false, is }, _) = cursor.fate() else {
            return Err(contradiction());
        };
        if let Some(columns) = is {
            push_counted(&mut batch, &mut content, key, columns);
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
    Ok(content)
}
