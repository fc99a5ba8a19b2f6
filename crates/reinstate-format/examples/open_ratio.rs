//! How fast blocks are checked and decoded, beside bare zstd decoding of the same blocks.
//!
//! `cargo run --release -p reinstate-format --example open_ratio`. One thread, everything in
//! memory; the best of several rounds for each block, so that a busy machine disturbs little.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reinstate_core::{
    ContentDigest, Digest, ErrorKind, ObjectReader, Owner, RepositoryError, RepositoryId, RowBatch,
    RowRole, TableIndex, TenantId,
};
use reinstate_format::{
    BLOCK_PLAIN_BYTES_TARGET, BlockOpener, BlockSealer, IndexBuilder, RunKey, SegmentIdentity,
    SegmentReader, segment_header,
};

const ROWS: u64 = 200_000;
const ROUNDS: usize = 20;

struct Memory(Vec<u8>);

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

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let identity = SegmentIdentity {
        repository: RepositoryId::from_bytes([1; 16]),
        container: [2; 16],
        number: 0,
    };
    let owner = Owner::Tenant(TenantId::try_new(*b"acme-0042")?);
    let run = RunKey {
        owner,
        table: TableIndex(0),
        role: RowRole::Image,
    };
    let (bytes, root) = write(&identity, &run)?;
    let reader = SegmentReader::open(Arc::new(Memory(bytes.clone())), &identity, &root)?;
    let entry = reader.find(&run)?.ok_or("the run is missing")?;
    println!(
        "{} rows, {} blocks, {} plain bytes, {} stored bytes",
        entry.row_count,
        entry.blocks.len(),
        entry.plain_bytes,
        entry.stored_bytes
    );
    let stored = |offset: u64, length: u32| -> &[u8] {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        &bytes[start..start + length as usize]
    };
    let mut bare = zstd::bulk::Decompressor::new()?;
    let mut plain = Vec::with_capacity(2 * BLOCK_PLAIN_BYTES_TARGET);
    let mut opener = BlockOpener::new();
    let mut batch = RowBatch::new();
    let mut best = vec![[Duration::MAX; 3]; entry.blocks.len()];
    for _ in 0..ROUNDS {
        for (block, best) in entry.blocks.iter().zip(&mut best) {
            let stored = stored(block.offset, block.stored_bytes);
            let start = Instant::now();
            bare.decompress_to_buffer(stored, &mut plain)?;
            best[0] = best[0].min(start.elapsed());
            let start = Instant::now();
            opener.open(&identity, &run, block, stored, None, &mut batch)?;
            best[1] = best[1].min(start.elapsed());
            let start = Instant::now();
            reader.read_block_into(&run, block, &mut opener, &mut batch)?;
            best[2] = best[2].min(start.elapsed());
        }
    }
    let [zstd, open, read] = [0, 1, 2].map(|way| best.iter().map(|best| best[way]).sum());
    let speed = |time: Duration| entry.plain_bytes as f64 / time.as_secs_f64() / 1e6;
    println!("bare zstd        {:7.0} MB/s", speed(zstd));
    println!(
        "open             {:7.0} MB/s  {:.3}",
        speed(open),
        speed(open) / speed(zstd)
    );
    println!(
        "read_block_into  {:7.0} MB/s  {:.3}",
        speed(read),
        speed(read) / speed(zstd)
    );
    Ok(())
}

fn write(
    identity: &SegmentIdentity,
    run: &RunKey,
) -> Result<(Vec<u8>, Digest), Box<dyn std::error::Error>> {
    let mut bytes = segment_header(identity);
    let mut index = IndexBuilder::new(*identity, bytes.len() as u64);
    let mut sealer = BlockSealer::new(3)?;
    let (mut batch, mut content, mut number) = (RowBatch::new(), ContentDigest::EMPTY, 0);
    for id in 0..ROWS {
        push_row(&mut batch, id);
        if batch.as_bytes().len() >= BLOCK_PLAIN_BYTES_TARGET || id + 1 == ROWS {
            for row in batch.iter() {
                content.add(row);
            }
            let sealed = sealer.seal(identity, number, run, &batch)?;
            index.place(run, &sealed);
            bytes.extend_from_slice(&sealed.stored);
            number += 1;
            batch.clear();
        }
    }
    index.content(run, content);
    let end = index.finish()?;
    bytes.extend_from_slice(&end.bytes);
    Ok((bytes, end.root))
}

/// A row of about 275 bytes, like an issue tracker's, that compresses about 2.3 times.
fn push_row(batch: &mut RowBatch, id: u64) {
    const WORDS: [&str; 16] = [
        "restore", "tenant", "window", "please", "the", "of", "billing", "customer", "crashes",
        "after", "update", "when", "saving", "report", "invoice", "error",
    ];
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let token = format!("{:016x}{:016x}", next(), next());
    let text: Vec<_> = (0..14)
        .map(|_| format!("{}{}", WORDS[(next() % 16) as usize], next() % 100))
        .collect();
    let text = text.join(" ");
    let created = format!(
        "2026-04-{:02} {:02}:{:02}:07.{:06}",
        next() % 28 + 1,
        next() % 24,
        next() % 60,
        next() % 1_000_000
    );
    let json = format!(
        "{{\"p\":{},\"s\":{},\"u\":\"{:08x}\"}}",
        next() % 5,
        next() % 9,
        next() >> 32
    );
    let id_text = id.to_string();
    let values: [&str; 7] = [
        &id_text,
        "acme-0042",
        &token,
        &created,
        &text,
        &json,
        "open",
    ];
    batch.push(
        &id.to_be_bytes(),
        values.map(|value| Some(value.as_bytes())),
    );
}
