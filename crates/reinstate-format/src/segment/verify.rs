//! Reading every byte of a segment back and checking it.

use reinstate_core::{ContentDigest, RowBatch};

use super::header::{SEGMENT_HEADER_BYTES, check_header};
use super::{BlockOpener, RunEntry, SEGMENT_TRAILER_BYTES, SegmentReader};
use crate::FormatError;

/// Reads the header, every page, every dictionary and every block of a segment; checks digests,
/// the contents of each run and all totals. On one thread, with the memory of one block.
///
/// A caller with several threads calls [`verify_layout`], and [`verify_run`] for the runs.
///
/// # Errors
/// The first thing that is not what was written; `Read`.
pub fn verify_segment(reader: &SegmentReader) -> Result<(), FormatError> {
    let mut opener = BlockOpener::new();
    for run in reader.runs() {
        verify_run(reader, &run?, &mut opener)?;
    }
    verify_layout(reader)
}

/// Reads the header, every page and every dictionary of a segment, all but its blocks, and checks that
/// these and the blocks are all that there is.
///
/// # Errors
/// The first thing that is not what was written; `Read`.
pub fn verify_layout(reader: &SegmentReader) -> Result<(), FormatError> {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    reader.read(0, &mut header)?;
    check_header(&header, reader.identity())?;
    let mut counted = super::trailer::SegmentTotals::default();
    let mut owner = None;
    let mut runs = reader.runs();
    for run in &mut runs {
        let run = run?;
        if owner.as_ref() != Some(&run.key.owner) {
            counted.owner_count += 1;
            owner = Some(run.key.owner.clone());
        }
        counted.run_count += 1;
        counted.row_count += run.row_count;
        counted.block_count += run.blocks.len() as u64;
        counted.plain_bytes += run.plain_bytes;
        counted.stored_bytes += run.stored_bytes;
    }
    let mut other_bytes = (SEGMENT_HEADER_BYTES + SEGMENT_TRAILER_BYTES) as u64;
    other_bytes += reader.check_dictionaries()?;
    let trailer = reader.trailer();
    other_bytes += trailer
        .dictionaries
        .map_or(0, |directory| u64::from(directory.length));
    (counted.page_count, counted.index_bytes) = runs.pages_seen();
    // Every byte has its use, so none can be changed without being found.
    counted.segment_bytes = other_bytes + counted.stored_bytes + counted.index_bytes;
    if counted == trailer.totals {
        Ok(())
    } else {
        let offset = trailer.totals.segment_bytes - SEGMENT_TRAILER_BYTES as u64;
        Err(reader.fault("trailer", offset, "its totals are not those of the segment"))
    }
}

/// Reads every block of a run and compares what they contain with the index.
///
/// # Errors
/// The first block that is not what was written; `Part` if the contents are others; `Read`.
pub fn verify_run(
    reader: &SegmentReader,
    run: &RunEntry,
    opener: &mut BlockOpener,
) -> Result<(), FormatError> {
    let mut batch = RowBatch::new();
    let mut content = ContentDigest::EMPTY;
    for block in &run.blocks {
        reader.read_block_into(&run.key, block, opener, &mut batch)?;
        for row in batch.iter() {
            content.add(row);
        }
    }
    if content == run.content {
        return Ok(());
    }
    let offset = run.blocks.first().map_or(0, |block| block.offset);
    let fact = format!("its rows contain {content}, the index says {}", run.content);
    Err(reader.fault("run", offset, &fact))
}
