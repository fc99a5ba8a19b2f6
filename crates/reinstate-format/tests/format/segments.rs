//! Segments: what was written is read, and nothing else is.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reinstate_core::{ContentDigest, ErrorKind, Owner, RepositoryId, RowBatch, RowRole};
use reinstate_format::{
    BlockLayout, BlockOpener, BlockSealer, COLUMNS_PLAIN_BYTES_MAX, FormatError, IndexBuilder,
    PART_BLOCKS_MAX, RunKey, SealedBlock, SegmentIdentity, segment_header, verify_segment,
};

use crate::sample::{IDENTITY, Rows, batch, open, read_all, run, segment, segment_of};

fn rows() -> impl Strategy<Value = Rows> {
    let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    let row = (
        proptest::collection::vec(any::<u8>(), 0..6),
        proptest::collection::vec(value, 0..4),
    );
    proptest::collection::vec(row, 1..8)
}

fn runs() -> impl Strategy<Value = Vec<(RunKey, Vec<RowBatch>)>> {
    let owner = proptest::collection::vec(0..4u8, 0..3);
    let role = proptest::sample::select(RowRole::ALL.to_vec());
    let blocks = proptest::collection::vec(rows().prop_map(|rows| batch(&rows)), 1..4);
    let key = (owner, 0..3u32, role).prop_map(|(owner, table, role)| run(&owner, table, role));
    proptest::collection::btree_map(key, blocks, 0..40)
        .prop_map(|runs: BTreeMap<_, _>| runs.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn runs_read_back_in_order_whatever_order_they_were_written_in(
        runs in runs(),
        layout in proptest::sample::select(&[BlockLayout::Rows, BlockLayout::Columns])
    ) {
        let (bytes, end) = segment_of(layout, &IDENTITY, &runs);
        let reader = open(bytes, &IDENTITY, &end.root).unwrap();
        verify_segment(&reader).unwrap();
        let expected: BTreeMap<_, _> = runs.into_iter().collect();
        let expected: Vec<_> = expected.into_iter().collect();
        prop_assert_eq!(&read_all(&reader).unwrap(), &expected);
        prop_assert_eq!(end.run_count, expected.len() as u64);
        let owners: Vec<Owner> = reader.owners().map(Result::unwrap).collect();
        prop_assert_eq!(end.owner_count, owners.len() as u64);
        prop_assert_eq!(owners.first().unwrap_or(&Owner::Shared), &end.first_owner);
        prop_assert_eq!(owners.last().unwrap_or(&Owner::Shared), &end.last_owner);
        for owner in &owners {
            let found = reader.runs_of(owner).unwrap();
            let of_owner = expected.iter().filter(|(key, _)| key.owner == *owner);
            prop_assert!(found.iter().map(|run| &run.key).eq(of_owner.map(|(key, _)| key)));
        }
        for (key, blocks) in &expected {
            let found = reader.find(key).unwrap().unwrap();
            prop_assert_eq!(found.blocks.len(), blocks.len());
            prop_assert_eq!(found.row_count, blocks.iter().map(|rows| rows.len() as u64).sum::<u64>());
        }
        prop_assert!(reader.find(&run(b"nobody", 0, RowRole::Image)).unwrap().is_none());
        prop_assert!(reader.runs_of(&Owner::from_bytes(b"nobody").unwrap()).unwrap().is_empty());
    }
}

/// A segment whose blocks all have the same length, so that bytes can be swapped in place.
fn uniform() -> Vec<(RunKey, Vec<RowBatch>)> {
    let rows = |seed: u8| {
        let value: Vec<u8> = (0..60u8).map(|byte| byte.wrapping_mul(37) ^ seed).collect();
        batch(&vec![(vec![seed], vec![Some(value), None])])
    };
    (0..24u8)
        .map(|tenant| {
            (
                run(&[b't', tenant], 0, RowRole::Image),
                vec![rows(tenant), rows(tenant + 99)],
            )
        })
        .collect()
}

#[test]
fn every_flipped_bit_is_found() {
    for layout in [BlockLayout::Rows, BlockLayout::Columns] {
        check_every_bit(layout);
    }
}

fn check_every_bit(layout: BlockLayout) {
    let runs: Vec<_> = uniform().into_iter().take(3).collect();
    let (bytes, end) = segment_of(layout, &IDENTITY, &runs);
    let check = |bytes: Vec<u8>| {
        let reader = open(bytes, &IDENTITY, &end.root)?;
        let read = read_all(&reader);
        if let Ok(read) = &read {
            assert_eq!(read, &runs, "damage changed what is read");
        }
        verify_segment(&reader)
    };
    check(bytes.clone()).unwrap();
    let mut damaged = bytes.clone();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            assert!(check(damaged.clone()).is_err(), "bit {bit} of byte {at}");
            damaged[at] ^= 1 << bit;
        }
    }
}

#[test]
fn every_truncation_and_every_added_byte_is_found() {
    let (bytes, end) = segment(&IDENTITY, &uniform()[..2]);
    for length in 0..bytes.len() {
        assert!(
            open(bytes[..length].to_vec(), &IDENTITY, &end.root).is_err(),
            "{length}"
        );
    }
    let longer = [bytes.as_slice(), &[0]].concat();
    assert!(open(longer, &IDENTITY, &end.root).is_err());
}

#[test]
fn blocks_that_changed_places_do_not_open() {
    let runs = uniform();
    let (bytes, end) = segment(&IDENTITY, &runs);
    let reader = open(bytes.clone(), &IDENTITY, &end.root).unwrap();
    let blocks: Vec<_> = reader
        .runs()
        .map(Result::unwrap)
        .flat_map(|run| {
            run.blocks
                .clone()
                .into_iter()
                .map(move |block| (run.key.clone(), block))
        })
        .collect();
    let mut opener = BlockOpener::new();
    let mut rows = RowBatch::new();
    for (left_run, left) in &blocks {
        for (right_run, right) in &blocks {
            if left.number == right.number {
                continue;
            }
            let place = |block: &reinstate_format::BlockDescriptor| {
                let start = usize::try_from(block.offset).unwrap();
                start..start + block.stored_bytes as usize
            };
            assert_eq!(
                left.stored_bytes, right.stored_bytes,
                "the test needs equal lengths"
            );
            let mut swapped = bytes.clone();
            let kept = swapped[place(left)].to_vec();
            swapped.copy_within(place(right), place(left).start);
            swapped[place(right)].copy_from_slice(&kept);
            let swapped = open(swapped, &IDENTITY, &end.root).unwrap();
            let error = swapped.read_block(left_run, left, &mut opener).unwrap_err();
            assert!(
                error
                    .to_string()
                    .contains(&format!("block {}", left.number)),
                "{error}"
            );
            // Not even with everything that the index says of the other block.
            if left_run != right_run {
                let stored = &bytes[place(right)];
                let result = opener.open(&IDENTITY, left_run, right, stored, None, &mut rows);
                let error = result.unwrap_err().to_string();
                assert!(error.contains("not those of this block"), "{error}");
            }
        }
    }
}

#[test]
fn pages_that_changed_places_are_found() {
    let (bytes, end) = segment(&IDENTITY, &uniform());
    // Two leaves of one length, found by their counts: 24 runs of 2 blocks, 5 or 6 to a page.
    let index = bytes.len() - end.bytes.len();
    let count = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let per_page = count(index);
    let entry = 8 + 2 + 4 + 1 + 4 + 1 + 16 + 8 + 8 + 2 * 64;
    let page = 8 + usize::try_from(per_page).unwrap() * entry;
    assert_eq!(
        count(index + page),
        per_page,
        "the test needs two equal pages"
    );
    let mut swapped = bytes.clone();
    swapped[index..index + 2 * page].rotate_left(page);
    assert_ne!(swapped, bytes);
    let reader = open(swapped, &IDENTITY, &end.root).unwrap();
    assert!(read_all(&reader).is_err());
    let error = reader
        .runs_of(&run(b"t\0", 0, RowRole::Image).owner)
        .unwrap_err();
    assert!(matches!(error, FormatError::Part { .. }), "{error}");
}

#[test]
fn a_segment_is_bound_to_its_repository_snapshot_and_number() {
    let (bytes, end) = segment(&IDENTITY, &uniform());
    for other in [
        SegmentIdentity {
            repository: RepositoryId::from_bytes([9; 16]),
            ..IDENTITY
        },
        SegmentIdentity {
            container: [9; 16],
            ..IDENTITY
        },
        SegmentIdentity {
            number: 9,
            ..IDENTITY
        },
    ] {
        let error = open(bytes.clone(), &other, &end.root).unwrap_err();
        assert!(matches!(error, FormatError::Foreign { .. }), "{error}");
    }
}

#[test]
fn the_same_rows_under_another_root_are_refused() {
    let (_, end) = segment(&IDENTITY, &uniform());
    let (bytes, _) = segment(&IDENTITY, &uniform()[1..]);
    let error = open(bytes, &IDENTITY, &end.root).unwrap_err();
    assert!(matches!(error, FormatError::Foreign { .. }), "{error}");
}

#[test]
fn an_empty_segment_reads_back() {
    let (bytes, end) = segment(&IDENTITY, &[]);
    let reader = open(bytes, &IDENTITY, &end.root).unwrap();
    verify_segment(&reader).unwrap();
    assert_eq!(reader.runs().count(), 0);
    assert_eq!((end.row_count, end.first_owner), (0, Owner::Shared));
}

#[test]
fn contents_that_are_not_those_of_the_blocks_are_refused_when_writing() {
    let rows = batch(&vec![(vec![1], vec![])]);
    let key = run(b"a", 0, RowRole::Image);
    let mut index = IndexBuilder::new(IDENTITY, segment_header(&IDENTITY).len() as u64);
    let mut sealer = BlockSealer::new(1).unwrap();
    index.place(&key, &sealer.seal(&IDENTITY, 0, &key, &rows).unwrap());
    assert!(matches!(index.finish(), Err(FormatError::Malformed { .. })));
}

/// Stands in for blocks where only the index matters.
fn hollow(number: u32) -> SealedBlock {
    SealedBlock {
        number,
        stored: vec![0; 4],
        plain_bytes: 10,
        row_count: 1000,
        crc: 0,
        digest: reinstate_core::Digest::from_bytes([7; 32]),
        layout: BlockLayout::Rows,
        dictionary: 0,
    }
}

#[test]
fn a_run_of_a_hundred_million_rows_has_an_entry_and_its_neighbours_stay_cheap() {
    let blocks: u32 = 100_000;
    let mut bytes = segment_header(&IDENTITY);
    let mut index = IndexBuilder::new(IDENTITY, bytes.len() as u64);
    let keys = [b"a", b"b", b"c"].map(|owner| run(owner, 0, RowRole::Image));
    index.place(&keys[0], &hollow(0));
    index.content(&keys[0], ContentDigest::from_parts(1, 1000));
    index.content(
        &keys[1],
        ContentDigest::from_parts(2, u64::from(blocks) * 1000),
    );
    for number in 1..=blocks {
        index.place(&keys[1], &hollow(number));
    }
    index.place(&keys[2], &hollow(blocks + 1));
    index.content(&keys[2], ContentDigest::from_parts(3, 1000));
    let end = index.finish().unwrap();
    bytes.resize(bytes.len() + 4 * (blocks as usize + 2), 0);
    bytes.extend_from_slice(&end.bytes);
    let reader = open(bytes, &IDENTITY, &end.root).unwrap();
    let before = reader.bytes_read();
    assert_eq!(reader.find(&keys[0]).unwrap().unwrap().row_count, 1000);
    assert_eq!(reader.find(&keys[2]).unwrap().unwrap().row_count, 1000);
    assert!(
        reader.bytes_read() - before < 8000,
        "{}",
        reader.bytes_read() - before
    );
    let huge = reader.find(&keys[1]).unwrap().unwrap();
    assert_eq!(huge.blocks.len(), blocks as usize);
    assert!(huge.blocks.len() > PART_BLOCKS_MAX);
    assert_eq!(huge.row_count, 100_000_000);
    assert!((1..=blocks).eq(huge.blocks.iter().map(|block| block.number)));
    assert_eq!(reader.runs().map(Result::unwrap).nth(1), Some(huge));
}

#[test]
fn one_tenant_of_a_hundred_thousand_is_found_in_under_eight_kilobytes() {
    let mut bytes = segment_header(&IDENTITY);
    let mut index = IndexBuilder::new(IDENTITY, bytes.len() as u64);
    let owner = |tenant: u32| format!("{tenant:08}").into_bytes();
    let mut number = 0;
    for tenant in 0..100_000 {
        for table in 0..4 {
            let key = run(&owner(tenant), table, RowRole::Image);
            index.place(&key, &hollow(number));
            index.content(&key, ContentDigest::from_parts(1, 1000));
            number += 1;
        }
    }
    let end = index.finish().unwrap();
    assert_eq!((end.owner_count, end.run_count), (100_000, 400_000));
    bytes.resize(bytes.len() + 4 * number as usize, 0);
    bytes.extend_from_slice(&end.bytes);
    for tenant in [0, 1, 4711, 99_999] {
        let reader = open(bytes.clone(), &IDENTITY, &end.root).unwrap();
        let owner = Owner::from_bytes(&owner(tenant)).unwrap();
        assert_eq!(reader.runs_of(&owner).unwrap().len(), 4);
        assert!(
            reader.bytes_read() < 8000,
            "{tenant}: {} bytes",
            reader.bytes_read()
        );
    }
}

/// A writer that wants columns gets them, but for rows that are long or would take more bytes; whoever wants rows gets rows.
#[test]
fn blocks_are_laid_out_as_they_were_asked_for() {
    let key = run(b"tenant", 1, RowRole::Image);
    let layout_of = |wanted: Option<BlockLayout>, rows: &Rows| {
        let mut sealer = BlockSealer::new(1).unwrap();
        if let Some(wanted) = wanted {
            sealer.use_layout(wanted);
        }
        sealer
            .seal(&IDENTITY, 0, &key, &batch(rows))
            .unwrap()
            .layout
    };
    let row = |value: Vec<u8>| (vec![1], vec![Some(value), None]);
    let alike = vec![row(vec![7; 50]); 20];
    let columns = Some(BlockLayout::Columns);
    assert_eq!(layout_of(None, &alike), BlockLayout::Rows);
    assert_eq!(
        layout_of(Some(BlockLayout::Rows), &alike),
        BlockLayout::Rows
    );
    assert_eq!(layout_of(columns, &alike), BlockLayout::Columns);
    let mut unlike = alike.clone();
    unlike.push((vec![1], vec![None]));
    assert_eq!(layout_of(columns, &unlike), BlockLayout::Rows);
    let long = vec![row(vec![7; COLUMNS_PLAIN_BYTES_MAX / 2]); 2];
    assert_eq!(layout_of(columns, &long), BlockLayout::Rows);
    let shorter = vec![row(vec![7; COLUMNS_PLAIN_BYTES_MAX / 2 - 100]); 2];
    assert_eq!(layout_of(columns, &shorter), BlockLayout::Columns);
    // The forms of a key and of two columns take more than what they spare.
    let short = vec![(vec![1], vec![None, Some(vec![])])];
    assert_eq!(layout_of(columns, &short), BlockLayout::Rows);
}

#[test]
fn a_damaged_block_is_an_error_that_names_it() {
    let key = run(b"tenant-7", 1, RowRole::Image);
    let rows = batch(&vec![(vec![1], vec![Some(vec![7; 50])])]);
    let mut sealer = BlockSealer::new(1).unwrap();
    let sealed = sealer.seal(&IDENTITY, 5, &key, &rows).unwrap();
    let block = sealed.descriptor(64);
    let mut stored = sealed.stored;
    stored[9] ^= 1;
    let (mut opener, mut batch) = (BlockOpener::new(), rows);
    let error = opener
        .open(&IDENTITY, &key, &block, &stored, None, &mut batch)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("block 5 at byte 64 of segment 2222"),
        "{text}"
    );
    assert!(
        text.contains("/3, tenant-7, table 1: its bytes are damaged (CRC-32"),
        "{text}"
    );
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(batch.is_empty(), "no rows of before are left");
}
