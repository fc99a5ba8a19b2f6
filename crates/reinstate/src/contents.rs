//! What a stream of rows contains: read by the caller, digested by the workers.

use std::iter::repeat_with;
use std::mem::replace;
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
    let mut batch = RowBatch::new();
    // Read, and digested when it is known whether another one follows.
    let mut last: Option<RowBatch> = None;
    let mut spare: Vec<_> = repeat_with(RowBatch::new).take(BATCHES_AHEAD).collect();
    while rows.next_batch(&mut batch).map_err(&failed)? {
        each(&batch)?;
        if let Some(full) = last.take() {
            let sender = sender.clone();
            context.resources.pool_handle().spawn(move || {
                let part = digest(&full);
                // Nobody listens any more when the reading went wrong: that is fine.
                let _ = sender.send((part, full));
            });
        }
        if !(BATCH_BYTES_MIN..=BATCH_BYTES_MAX).contains(&batch.as_bytes().len()) {
            content.merge(digest(&batch));
            continue;
        }
        let next = spare.pop().unwrap_or_else(|| {
            // A sender is held here, so the channel is open.
            let (part, used) = receiver.recv().expect("BUG: the channel closed");
            content.merge(part);
            used
        });
        last = Some(replace(&mut batch, next));
    }
    drop(sender);
    // With nothing left to read the caller would only wait for a worker.
    if let Some(last) = last {
        content.merge(digest(&last));
    }
    receiver.iter().for_each(|(part, _)| content.merge(part));
    Ok(content)
}

fn digest(batch: &RowBatch) -> ContentDigest {
    let mut content = ContentDigest::EMPTY;
    batch.iter().for_each(|row| content.add(row));
    content
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use reinstate_core::{Cancellation, Silent};

    use super::*;
    use crate::{ResourceOptions, Resources};

    /// Batches of one row each, with so many bytes in its only column. Counts the batches that were never
    /// filled before.
    struct Lengths {
        lengths: Vec<usize>,
        fresh: usize,
    }

    impl RowStream for Lengths {
        fn next_batch(&mut self, batch: &mut RowBatch) -> Result<bool, StoreError> {
            self.fresh += usize::from(batch.capacity() == 0);
            batch.clear();
            let Some(length) = self.lengths.pop() else {
                return Ok(false);
            };
            push(batch, length, self.lengths.len());
            Ok(true)
        }
    }

    fn push(batch: &mut RowBatch, length: usize, number: usize) {
        batch.push(&number.to_be_bytes(), [Some(vec![7; length].as_slice())]);
    }

    #[test]
    fn batches_of_any_size_are_all_in_the_digest() {
        let resources = Resources::try_new(ResourceOptions::default()).unwrap();
        let cancellation = Cancellation::new();
        let context = Context::new(&resources, &Silent, &cancellation);
        let sizes = [1, BATCH_BYTES_MIN, 2 * BATCH_BYTES_MIN, BATCH_BYTES_MAX + 1];
        // More than are handed over at the same time, and fewer; and each size is the last.
        let counts = [0, 1, BATCHES_AHEAD - 1, 5 * BATCHES_AHEAD];
        let cases = counts
            .into_iter()
            .flat_map(|count| [0, 1, 2, 3].map(|skip| (count, skip)));
        for (count, skip) in cases {
            let sizes = sizes.iter().copied().cycle().skip(skip);
            let lengths: Vec<usize> = sizes.take(count).collect();
            let mut all = RowBatch::new();
            for (number, length) in lengths.iter().enumerate() {
                push(&mut all, *length, number);
            }
            let mut expected = ContentDigest::EMPTY;
            all.iter().for_each(|row| expected.add(row));
            let mut bytes = 0;
            let mut rows = Lengths { lengths, fresh: 0 };
            let found = digest_rows(
                context,
                &mut rows,
                |error| panic!("{error}"),
                |batch| {
                    bytes += batch.as_bytes().len();
                    Ok::<(), Infallible>(())
                },
            );
            assert_eq!(found.unwrap(), expected, "{count} batches");
            assert_eq!(bytes, all.as_bytes().len());
            assert!(rows.fresh <= BATCHES_AHEAD + 1, "{} batches", rows.fresh);
        }
    }
}
