//! Values to write, and objects in memory to read them from.

use std::sync::Arc;

use reinstate_core::{
    ContentDigest, Digest, ErrorKind, ObjectReader, Owner, RepositoryError, RepositoryId, RowBatch,
    RowRole, TableIndex,
};
use reinstate_format::{
    BlockLayout, BlockOpener, BlockSealer, FormatError, IndexBuilder, RunKey, SegmentEnd,
    SegmentIdentity, SegmentReader, segment_header,
};

pub(crate) const IDENTITY: SegmentIdentity = SegmentIdentity {
    repository: RepositoryId::from_bytes([0x11; 16]),
    container: [0x22; 16],
    number: 3,
};

/// Rows of a run: keys and values.
pub(crate) type Rows = Vec<(Vec<u8>, Vec<Option<Vec<u8>>>)>;

/// An object that lives in memory.
pub(crate) struct Memory(pub(crate) Vec<u8>);

impl ObjectReader for Memory {
    fn byte_count(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), RepositoryError> {
        let ended = || RepositoryError::new(ErrorKind::Corrupt, "the object ends before");
        let start = usize::try_from(offset).map_err(|_| ended())?;
        let stop = start.checked_add(bytes.len()).ok_or_else(ended)?;
        bytes.copy_from_slice(self.0.get(start..stop).ok_or_else(ended)?);
        Ok(())
    }
}

pub(crate) fn run(owner: &[u8], table: u32, role: RowRole) -> RunKey {
    let owner = Owner::from_bytes(owner).unwrap();
    RunKey {
        owner,
        table: TableIndex(table),
        role,
    }
}

pub(crate) fn batch(rows: &Rows) -> RowBatch {
    let mut batch = RowBatch::new();
    for (key, values) in rows {
        batch.push(key, values.iter().map(Option::as_deref));
    }
    batch
}

pub(crate) fn content(batch: &RowBatch) -> ContentDigest {
    let mut content = ContentDigest::EMPTY;
    for row in batch.iter() {
        content.add(row);
    }
    content
}

/// Writes a segment of runs given as batches, one a block. Blocks of different runs interleave.
pub(crate) fn segment(
    identity: &SegmentIdentity,
    runs: &[(RunKey, Vec<RowBatch>)],
) -> (Vec<u8>, SegmentEnd) {
    segment_of(BlockLayout::Rows, identity, runs)
}

/// The same, with blocks laid out like this.
pub(crate) fn segment_of(
    layout: BlockLayout,
    identity: &SegmentIdentity,
    runs: &[(RunKey, Vec<RowBatch>)],
) -> (Vec<u8>, SegmentEnd) {
    let mut bytes = segment_header(identity);
    let mut sealer = BlockSealer::new(3).unwrap();
    sealer.use_layout(layout);
    let mut index = IndexBuilder::new(*identity, bytes.len() as u64);
    let mut number = 0;
    let longest = runs
        .iter()
        .map(|(_, blocks)| blocks.len())
        .max()
        .unwrap_or(0);
    for place in 0..longest {
        for (key, blocks) in runs {
            let Some(block) = blocks.get(place) else {
                continue;
            };
            let sealed = sealer.seal(identity, number, key, block).unwrap();
            assert_eq!(index.place(key, &sealed), bytes.len() as u64);
            bytes.extend_from_slice(&sealed.stored);
            number += 1;
        }
    }
    for (key, blocks) in runs {
        for block in blocks {
            index.content(key, content(block));
        }
    }
    let end = index.finish().unwrap();
    bytes.extend_from_slice(&end.bytes);
    assert_eq!(end.segment_bytes, bytes.len() as u64);
    (bytes, end)
}

pub(crate) fn open(
    bytes: Vec<u8>,
    identity: &SegmentIdentity,
    root: &Digest,
) -> Result<SegmentReader, FormatError> {
    SegmentReader::open(Arc::new(Memory(bytes)), identity, root)
}

/// Everything in a segment, by runs and blocks.
pub(crate) fn read_all(
    reader: &SegmentReader,
) -> Result<Vec<(RunKey, Vec<RowBatch>)>, FormatError> {
    let mut opener = BlockOpener::new();
    let mut runs = Vec::new();
    for run in reader.runs() {
        let run = run?;
        let blocks: Result<Vec<_>, _> = run
            .blocks
            .iter()
            .map(|block| reader.read_block(&run.key, block, &mut opener))
            .collect();
        runs.push((run.key.clone(), blocks?));
    }
    Ok(runs)
}
