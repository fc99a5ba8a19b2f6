//! What a stream of rows contains: read by the caller, digested by the workers.

use std::sync::mpsc::channel;

use reinstate_core::{ContentDigest, RowBatch, RowStream, StoreError};

use crate::Context;

/// Batches that workers digest at the same time as the next is read.
const BATCHES_AHEAD: usize = 4;
/// Batches with fewer bytes are digested at once: handing them over costs more.
const BATCH_BYTES_MIN: usize = 32 * 1024;
/// And so are those with more, which hold a long row: not several of them are to be in memory.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Reads a stream to its end; tells `each` how many rows and bytes every batch has.
///
/// # Errors
/// As the stream and `each` report it.
pub(crate) fn digest_rows<E>(
    context: Context<'_>,
    rows: &mut dyn RowStream,
    failed: impl Fn(StoreError) -> E,
    mut each: impl FnMut(&RowBatch) -> Result<(), E>,
) -> Result<ContentDigest, E> {
    let mut content = ContentDigest::EMPTY;
    let (sender, receiver) = channel();
    let mut ahead = 0;
    let mut batch = RowBatch::new();
    let mut spare = Vec::new();
    let take = |content: &mut ContentDigest, spare: &mut Vec<RowBatch>| {
        // A sender is held here, so the channel never closes.
        let (part, used) = receiver.recv().expect("BUG: the channel closed");
        content.merge(part);
        spare.push(used);
    };
    while rows.next_batch(&mut batch).map_err(&failed)? {
        each(&batch)?;
        if !(BATCH_BYTES_MIN..=BATCH_BYTES_MAX).contains(&batch.as_bytes().len()) {
            content.merge(digest(&batch));
            continue;
        }
        let full = std::mem::replace(&mut batch, spare.pop().unwrap_or_default());
        let sender = sender.clone();
        context.resources.pool_handle().spawn(move || {
            let part = digest(&full);
            // Nobody listens any more when the reading went wrong: that is fine.
            let _ = sender.send((part, full));
        });
        ahead += 1;
        if ahead == BATCHES_AHEAD {
            take(&mut content, &mut spare);
            ahead -= 1;
        }
    }
    for _ in 0..ahead {
        take(&mut content, &mut spare);
    }
    Ok(content)
}

fn digest(batch: &RowBatch) -> ContentDigest {
    let mut content = ContentDigest::EMPTY;
    batch.iter().for_each(|row| content.add(row));
    content
}
