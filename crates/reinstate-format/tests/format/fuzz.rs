//! Arbitrary bytes, and valid ones with arbitrary edits and right digests, for every parser.
//!
//! Each target is an ordinary test: it replays its corpus under `__fuzz__` and then tries some
//! hundred inputs of its own. `cargo bolero test fuzz::NAME` runs one for as long as one likes.
//! What a parser accepts must be written back as the same bytes, or read as the same value.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use reinstate_core::{Digest, Owner, RepositoryId, RowBatch, RowRole, SnapshotId, TableIndex};
use reinstate_format::{
    BlockDescriptor, BlockLayout, BlockOpener, FormatError, RunKey, SegmentReader, decode_job,
    decode_journal_payload, decode_receipt, decode_repository_header, decode_snapshot, encode_job,
    encode_journal_payload, encode_plan_end, encode_receipt, encode_repository_header,
    encode_snapshot, read_plan, verify_segment,
};

use crate::forge;
use crate::golden;
use crate::sample::{IDENTITY, Memory, open, read_all, run};

/// How many inputs each target tries of its own.
const ITERATIONS: usize = 500;
/// Says that each target is to run for so many seconds instead.
const SECONDS_VARIABLE: &str = "REINSTATE_FUZZ_SECONDS";

/// How many inputs a target tries, and for how long at most.
pub(crate) fn budget() -> (usize, Duration) {
    match std::env::var(SECONDS_VARIABLE) {
        Ok(seconds) => {
            let seconds = seconds.parse().expect("a number of seconds");
            (usize::MAX, Duration::from_secs(seconds))
        }
        Err(_) => (ITERATIONS, Duration::from_secs(600)),
    }
}

/// Runs a target on bytes as they come, on them as the payload of a valid frame, and on them as
/// edits of the payload of one.
fn frames(input: &[u8], valid: &[u8], target: impl Fn(&[u8])) {
    target(input);
    target(&forge::frame(valid, input));
    target(&forge::frame(
        valid,
        &forge::edit(forge::payload(valid), input),
    ));
}

#[test]
fn manifest() {
    let (repository, snapshot) = (
        IDENTITY.repository,
        SnapshotId::from_bytes(IDENTITY.container),
    );
    let valid = encode_snapshot(repository, &golden::snapshot());
    bolero::check!()
        .with_iterations(budget().0)
        .with_test_time(budget().1)
        .for_each(|input: &[u8]| {
            frames(input, &valid, |bytes| {
                if let Ok(found) = decode_snapshot(bytes, repository, snapshot) {
                    assert_eq!(encode_snapshot(repository, &found), bytes);
                }
            });
        });
}

#[test]
fn receipt() {
    let valid = encode_receipt(&golden::receipt());
    bolero::check!()
        .with_iterations(budget().0)
        .with_test_time(budget().1)
        .for_each(|input: &[u8]| {
            frames(input, &valid, |bytes| {
                if let Ok(found) = decode_receipt(bytes) {
                    assert_eq!(encode_receipt(&found), bytes);
                }
            });
        });
}

#[test]
fn small_records() {
    let journal = encode_journal_payload(&golden::journal_payload());
    let job = encode_job(&golden::job());
    let header = encode_repository_header(&golden::repository_header());
    bolero::check!()
        .with_iterations(budget().0)
        .with_test_time(budget().1)
        .for_each(|input: &[u8]| {
            frames(input, &journal, |bytes| {
                if let Ok(found) = decode_journal_payload(bytes) {
                    assert_eq!(encode_journal_payload(&found), bytes);
                }
            });
            frames(input, &job, |bytes| {
                if let Ok(found) = decode_job(bytes, golden::job().job) {
                    assert_eq!(encode_job(&found), bytes);
                }
            });
            frames(input, &header, |bytes| {
                if let Ok(found) = decode_repository_header(bytes) {
                    assert_eq!(encode_repository_header(&found), bytes);
                }
            });
        });
}

#[test]
fn plan() {
    let valid = golden::plan_file();
    let (description, _, _) = read_plan(Arc::new(Memory(valid.clone()))).unwrap();
    let (segment, end) = valid.split_at(usize::try_from(description.segment.stored_bytes).unwrap());
    let (frame, tail) = end.split_at(end.len() - reinstate_format::PLAN_TAIL_BYTES);
    let read = |bytes: Vec<u8>| {
        if let Ok((found, digest, reader)) = read_plan(Arc::new(Memory(bytes))) {
            assert_eq!(encode_plan_end(&found).1, digest);
            let _ = verify_segment(&reader);
        }
    };
    bolero::check!()
        .with_iterations(budget().0)
        .with_test_time(budget().1)
        .for_each(|input: &[u8]| {
            read(input.to_vec());
            read(forge::edit(&valid, input));
            read([segment, frame, &forge::edit(tail, input)].concat());
            frames(input, frame, |frame| {
                let mut tail = tail.to_vec();
                tail[16..].copy_from_slice(&(frame.len() as u64).to_le_bytes());
                read([segment, frame, &tail].concat());
            });
        });
}

/// Uses a segment in every way; whatever it finds, it must neither panic nor allocate much.
fn explore(bytes: Vec<u8>, root: &Digest) {
    let Ok(reader) = open(bytes, &IDENTITY, root) else {
        return;
    };
    let _ = verify_segment(&reader);
    let _ = read_all(&reader);
    let _ = reader.owners().count();
    for owner in [b"".as_slice(), b"1", b"2", b"nobody"] {
        let owner = Owner::from_bytes(owner).unwrap();
        let runs = reader.runs_of(&owner).unwrap_or_default();
        let key = RunKey {
            owner,
            table: TableIndex(0),
            role: RowRole::Image,
        };
        let _ = reader.find(&key);
        let mut opener = BlockOpener::new();
        for run in runs {
            for block in &run.blocks {
                let _ = reader.read_block(&key, block, &mut opener);
            }
        }
    }
}

#[test]
fn segment_trailer() {
    let valid = golden::segment_file();
    let trailer = &valid[valid.len() - reinstate_format::SEGMENT_TRAILER_BYTES..];
    bolero::check!()
        .with_iterations(budget().0)
        .with_test_time(budget().1)
        .for_each(|input: &[u8]| {
            explore(input.to_vec(), &Digest::from_bytes([0; 32]));
            let (bytes, root) = forge::with_trailer(&valid, input);
            explore(bytes, &root);
            let (bytes, root) = forge::with_trailer(&valid, &forge::edit(trailer, input));
            explore(bytes, &root);
        });
}

#[test]
fn index_page() {
    let valid = golden::segment_file();
    let page = forge::root_page(&valid);
    bolero::check!()
        .with_iterations(budget().0)
        .with_test_time(budget().1)
        .for_each(|input: &[u8]| {
            for level in [0, 1, 40] {
                let (bytes, root) = forge::with_root_page(&IDENTITY, &valid, level, input);
                explore(bytes, &root);
            }
            let edited = forge::edit(page, input);
            let (bytes, root) = forge::with_root_page(&IDENTITY, &valid, 0, &edited);
            explore(bytes, &root);
        });
}

#[test]
fn an_unedited_page_in_a_forged_segment_reads() {
    // Otherwise the targets above would never get past the digests.
    let valid = golden::segment_file();
    let page = forge::root_page(&valid).to_vec();
    let (bytes, root) = forge::with_root_page(&IDENTITY, &valid, 0, &page);
    let reader = open(bytes, &IDENTITY, &root).unwrap();
    let original = golden::segment_root(&valid);
    let original = SegmentReader::open(Arc::new(Memory(valid)), &IDENTITY, &original).unwrap();
    assert_eq!(read_all(&reader).unwrap(), read_all(&original).unwrap());
}

/// Opens a block with a right digest, whatever is in it.
fn open_block(stored: &[u8], plain_bytes: u32, row_count: u32) -> Result<RowBatch, FormatError> {
    open_block_of(BlockLayout::Rows, stored, plain_bytes, row_count)
}

fn open_block_of(
    layout: BlockLayout,
    stored: &[u8],
    plain_bytes: u32,
    row_count: u32,
) -> Result<RowBatch, FormatError> {
    open_block_with(
        &mut BlockOpener::new(),
        layout,
        stored,
        plain_bytes,
        row_count,
    )
}

fn open_block_with(
    opener: &mut BlockOpener,
    layout: BlockLayout,
    stored: &[u8],
    plain_bytes: u32,
    row_count: u32,
) -> Result<RowBatch, FormatError> {
    let key = run(b"tenant", 1, RowRole::Image);
    let mut block = BlockDescriptor {
        number: 4,
        offset: 64,
        stored_bytes: u32::try_from(stored.len()).unwrap(),
        plain_bytes,
        row_count,
        crc: crc32fast::hash(stored),
        digest: Digest::from_bytes([0; 32]),
        layout,
        dictionary: 0,
    };
    block.digest = forge::block_digest(&IDENTITY, &key, &block, stored);
    // With room for what is too much.
    let mut batch = RowBatch::with_capacity(100);
    let opened = opener.open(&IDENTITY, &key, &block, stored, None, &mut batch);
    assert!(opened.is_ok() || batch.is_empty());
    opened.map(|()| batch)
}

#[test]
fn an_authentic_block_that_holds_no_rows_says_why() {
    let stored = zstd::bulk::compress(&[0xff; 10], 1).unwrap();
    let error = open_block(&stored, 10, 1).unwrap_err();
    assert!(error.to_string().ends_with("it holds no rows"), "{error}");
    let source = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(
        source.unwrap(),
        "row at byte 0: a length is malformed or points past the end"
    );
    let error = open_block(&stored, 1 << 30, 1).unwrap_err();
    assert!(error.to_string().contains("impossible"), "{error}");
    let error = open_block(&[7; 100], 10, 1).unwrap_err();
    assert!(
        error.to_string().contains("plain bytes instead of 10"),
        "{error}"
    );
}

/// A gibibyte of zeros in some kilobytes, in an authentic block: only an attacker makes one.
#[test]
fn a_block_that_unpacks_to_a_gibibyte_is_refused_before_it_does() {
    let mut bomb = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    io::copy(&mut io::repeat(0).take(1 << 30), &mut bomb).unwrap();
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1 << 20, "{} bytes", bomb.len());
    let before = memory_peak_bytes();
    for plain_bytes in [0, 1, 1_000, 1 << 20, 1 << 30, u32::MAX] {
        let error = open_block(&bomb, plain_bytes, 1).unwrap_err();
        println!("{plain_bytes}: {error}");
    }
    let grown = memory_peak_bytes() - before;
    assert!(grown < 256 << 20, "{grown} bytes more");
}

/// The most memory that this process had so far.
fn memory_peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.unwrap().trim().trim_end_matches(" kB");
    kibibytes.parse::<u64>().unwrap() * 1024
}

#[test]
fn block() {
    let rows = [3u8, 1, b'k', 2, b'v', 2, 0, 1, 0];
    let valid = zstd::bulk::compress(&rows, 3).unwrap();
    assert_eq!(open_block(&valid, 9, 2).unwrap().as_bytes(), rows);
    bolero::check!()
        .with_iterations(budget().0)
        .with_test_time(budget().1)
        .for_each(|input: &[u8]| {
            for (plain_bytes, row_count) in [(9, 2), (100_000, 1), (u32::MAX, u32::MAX)] {
                let _ = open_block(input, plain_bytes, row_count);
                let _ = open_block(&forge::edit(&valid, input), plain_bytes, row_count);
            }
        });
}

/// A single row of NULLs takes two bytes for each column, and less by itself than what a reader keeps of one.
#[test]
fn columns_are_no_more_than_their_limit() {
    let open = |count: u32| {
        let low = (count & 0x7f).to_le_bytes()[0] | 0x80;
        let mut content = vec![0, low, (count >> 7).to_le_bytes()[0]];
        content.extend((0..count).flat_map(|_| [0, 0]));
        // The lengths of the row take two bytes and one; the index says room for the content as well.
        let stored = zstd::bulk::compress(&content, 1).unwrap();
        let plain_bytes = u32::try_from(content.len()).unwrap();
        open_block_of(BlockLayout::Columns, &stored, plain_bytes, 1)
            .unwrap_err()
            .to_string()
    };
    let error = open(4096);
    assert!(error.contains("another length"), "{error}");
    let error = open(4097);
    assert!(error.contains("more columns than a block"), "{error}");
}

/// Behind the frame that says the size of the content there may be another one.
#[test]
fn a_second_frame_is_no_part_of_a_block() {
    let columns = [0u8, 1, 0, 2, b'v', b'w'];
    let rows = [2u8, 0, 2, b'v', 2, 0, 2, b'w'];
    let mut opener = BlockOpener::new();
    let mut open = |layout, frames: &[&[u8]], rows: u32| {
        let compress = |frame: &&[u8]| zstd::bulk::compress(frame, 1).unwrap();
        let stored: Vec<u8> = frames.iter().flat_map(compress).collect();
        open_block_with(&mut opener, layout, &stored, 4 * rows, rows)
            .map(|batch| batch.as_bytes().to_vec())
            .map_err(|error| error.to_string())
    };
    // A block of more columns leaves room for what is too much.
    let longer = [&[0, 1, 0, 2][..], &[b'v'; 40]].concat();
    open(BlockLayout::Columns, &[&longer], 40).unwrap();
    for (layout, content, why) in [
        (
            BlockLayout::Columns,
            &columns[..],
            "8 plain bytes instead of 6",
        ),
        (BlockLayout::Rows, &rows[..], "10 plain bytes instead of 8"),
    ] {
        assert_eq!(open(layout, &[content], 2).unwrap(), rows);
        let error = open(layout, &[content, &[7, 7]], 2).unwrap_err();
        assert!(error.contains(why), "{error}");
        assert_eq!(open(layout, &[content], 2).unwrap(), rows, "after an error");
    }
}

/// What is inside an authentic block of columns is anybody's: rows of the length that was said, or an error.
#[test]
fn columns() {
    // No key, one column with the marker 2 of both rows, and their values.
    let columns = [0u8, 1, 0, 2, b'v', b'w'];
    let rows = [2u8, 0, 2, b'v', 2, 0, 2, b'w'];
    let open = |content: &[u8], plain_bytes, row_count| {
        let stored = zstd::bulk::compress(content, 1).unwrap();
        open_block_of(BlockLayout::Columns, &stored, plain_bytes, row_count)
    };
    assert_eq!(open(&columns, 8, 2).unwrap().as_bytes(), rows);
    for (content, plain_bytes, row_count, why) in [
        (&columns[..], 9, 2, "another length"),
        (&columns[..5], 8, 2, "end early"),
        (&columns[..], 8, 1, "left over"),
        (&columns[..], 8, 5, "more rows than bytes"),
        (&[9, 1, 0, 2, b'v', b'w'], 8, 2, "form of their key"),
        (&[0, 1, 3, 2, b'v', b'w'], 8, 2, "form of a column"),
        (
            &[0, 1, 2, 0, 2, 0],
            8,
            2,
            "part of the key that there is not",
        ),
        (&[0, 9, 0, 2, b'v', b'w'], 8, 2, "more columns than bytes"),
    ] {
        let error = open(content, plain_bytes, row_count).unwrap_err();
        let source = error.to_string();
        assert!(source.contains(why), "{why}: {source}");
        assert_eq!(error.kind(), reinstate_core::ErrorKind::Corrupt);
    }
    let error = open(&columns, 3 << 20, 2).unwrap_err().to_string();
    assert!(error.contains("impossible"), "{error}");
    let error = open(&columns, 5, 2).unwrap_err().to_string();
    assert!(error.contains("6 plain bytes instead of 5"), "{error}");
    let decimal = [2u8, 1, 2, 0x90, 0x4e, 1, 2, 0];
    let valid = open(&decimal, 29, 2).unwrap();
    let texts: Vec<_> = valid
        .iter()
        .flat_map(|row| row.values().flatten())
        .collect();
    assert_eq!(texts, [&b"1"[..], b"5001"]);
    bolero::check!()
        .with_iterations(budget().0)
        .with_test_time(budget().1)
        .for_each(|input: &[u8]| {
            for content in [
                input.to_vec(),
                forge::edit(&columns, input),
                forge::edit(&decimal, input),
            ] {
                for (plain_bytes, row_count) in
                    [(8, 2), (29, 2), (100_000, 1), (u32::MAX, u32::MAX)]
                {
                    let _ = open(&content, plain_bytes, row_count);
                }
            }
        });
}

#[test]
fn row_batch() {
    let valid = [3u8, 1, b'k', 2, b'v', 2, 0, 1, 0];
    bolero::check!()
        .with_iterations(budget().0)
        .with_test_time(budget().1)
        .for_each(|input: &[u8]| {
            for plain in [input.to_vec(), forge::edit(&valid, input)] {
                let stored = zstd::bulk::compress(&plain, 1).unwrap();
                let length = u32::try_from(plain.len()).unwrap();
                match RowBatch::try_from_bytes(plain) {
                    Ok(rows) => {
                        let count = u32::try_from(rows.len()).unwrap();
                        assert_eq!(open_block(&stored, length, count).unwrap(), rows);
                        assert!(open_block(&stored, length, count + 1).is_err());
                    }
                    Err(_) => assert!(open_block(&stored, length, 1).is_err()),
                }
            }
        });
}

#[test]
fn a_repository_header_of_another_kind_of_frame_is_refused() {
    let receipt = encode_receipt(&golden::receipt());
    assert!(decode_repository_header(&receipt).is_err());
    assert!(
        decode_snapshot(
            &receipt,
            RepositoryId::from_bytes([0; 16]),
            SnapshotId::from_bytes([0; 16])
        )
        .is_err()
    );
}

/// Asserts that the golden segment with this change to its root page, digests put right, opens
/// and is refused on reading.
#[track_caller]
fn check_forged_page(change: impl FnOnce(&mut [u8]), expected: &str) {
    let valid = golden::segment_file();
    let mut page = forge::root_page(&valid).to_vec();
    change(&mut page);
    let (bytes, root) = forge::with_root_page(&IDENTITY, &valid, 0, &page);
    let reader = open(bytes, &IDENTITY, &root).unwrap();
    let error = verify_segment(&reader).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

/// Offsets in the first entry of the golden segment's root page, whose owner is one byte.
const ENTRY: usize = 8 + 8 + 1;

#[test]
fn an_index_that_contradicts_itself_or_the_rows_is_refused() {
    let (role, part, more, sum, rows) = (ENTRY + 4, ENTRY + 5, ENTRY + 9, ENTRY + 10, ENTRY + 26);
    check_forged_page(|page| page[role] = 9, "unknown role 9");
    check_forged_page(|page| page[part] = 1, "its parts do not fit together");
    check_forged_page(|page| page[more] = 1, "its parts do not fit together");
    check_forged_page(|page| page[sum] ^= 1, "its rows contain");
    check_forged_page(|page| page[rows] = 2, "contents of 2");
    // Its own valid page once more is a page that nothing in the totals counts.
    check_forged_page(|_| {}, "its totals are not those of the segment");
}

#[test]
fn a_trailer_with_other_totals_is_refused_on_verifying() {
    let valid = golden::segment_file();
    let trailer = &valid[valid.len() - reinstate_format::SEGMENT_TRAILER_BYTES..];
    for at in (160..220).step_by(8) {
        let mut trailer = trailer.to_vec();
        trailer[at] ^= 1;
        let (bytes, root) = forge::with_trailer(&valid, &trailer);
        let reader = open(bytes, &IDENTITY, &root).unwrap();
        let error = verify_segment(&reader).unwrap_err();
        let said = error.to_string();
        assert!(said.contains("its totals are not"), "{at}: {said}");
        let FormatError::Part { part, offset, .. } = error else {
            panic!("{at}: {said}")
        };
        // Where it is, or would be if the length of the segment were what it says.
        let place = (valid.len() - trailer.len()) as u64;
        assert!(part == "trailer" && offset.abs_diff(place) <= 1, "{said}");
    }
}
