//! Dictionaries: smaller blocks, read only when needed, bound to their segment.

use reinstate_core::{RowBatch, RowRole, TableIndex};
use reinstate_format::{
    BlockOpener, BlockSealer, Dictionary, IndexBuilder, RunKey, SegmentEnd, segment_header,
    train_dictionary, verify_segment,
};

use crate::sample::{IDENTITY, batch, content, open, run};

fn small_tenant(tenant: u32) -> (RunKey, RowBatch) {
    let rows = (0..6u32).map(|row| {
        let text = format!(
            "{{\"status\":\"open\",\"assignee\":\"user-{}\",\"title\":\"cannot log in after {}\"}}",
            (tenant * 7 + row) % 13,
            tenant * 31 + row
        );
        let values = vec![Some(row.to_string().into_bytes()), Some(text.into_bytes())];
        (row.to_be_bytes().to_vec(), values)
    });
    let key = run(&tenant.to_be_bytes(), tenant % 2, RowRole::Image);
    (key, batch(&rows.collect()))
}

fn trained(id: u32, table: u32) -> Dictionary {
    let samples: Vec<_> = (0..200)
        .map(|tenant| small_tenant(tenant * 2 + table).1)
        .collect();
    let samples: Vec<&[u8]> = samples.iter().map(RowBatch::as_bytes).collect();
    let bytes = train_dictionary(&samples, 4096).unwrap();
    assert!(bytes.len() <= 4096);
    Dictionary::new(id, TableIndex(table), bytes).unwrap()
}

/// A segment of 40 tenants, with dictionaries for the tables given.
fn write(dictionaries: &[Dictionary]) -> (Vec<u8>, SegmentEnd) {
    let mut bytes = segment_header(&IDENTITY);
    let mut index = IndexBuilder::new(IDENTITY, bytes.len() as u64);
    let mut sealer = BlockSealer::new(3).unwrap();
    for dictionary in dictionaries {
        assert_eq!(index.place_dictionary(dictionary), bytes.len() as u64);
        bytes.extend_from_slice(dictionary.bytes());
        sealer.use_dictionary(dictionary).unwrap();
    }
    for tenant in 0..40 {
        let (key, rows) = small_tenant(tenant);
        let sealed = sealer.seal(&IDENTITY, tenant, &key, &rows).unwrap();
        index.place(&key, &sealed);
        index.content(&key, content(&rows));
        bytes.extend_from_slice(&sealed.stored);
    }
    let end = index.finish().unwrap();
    bytes.extend_from_slice(&end.bytes);
    (bytes, end)
}

#[test]
fn blocks_with_and_without_a_dictionary_read_back() {
    let dictionary = trained(9, 1);
    let (bytes, end) = write(std::slice::from_ref(&dictionary));
    let (plain, _) = write(&[]);
    let gain = plain.len() - (bytes.len() - dictionary.bytes().len());
    assert!(
        gain > plain.len() / 10,
        "{} bytes without, {gain} fewer with",
        plain.len()
    );
    let reader = open(bytes.clone(), &IDENTITY, &end.root).unwrap();
    verify_segment(&reader).unwrap();
    let reader = open(bytes, &IDENTITY, &end.root).unwrap();
    let mut opener = BlockOpener::new();
    let mut read = |tenant: u32| {
        let (key, rows) = small_tenant(tenant);
        let entry = reader.find(&key).unwrap().unwrap();
        let before = reader.bytes_read();
        let found = reader
            .read_block(&key, &entry.blocks[0], &mut opener)
            .unwrap();
        assert_eq!(found, rows);
        let extra = reader.bytes_read() - before - entry.stored_bytes;
        (entry.blocks[0].dictionary, extra)
    };
    assert_eq!(read(2), (0, 0), "a table without one reads none");
    let (id, extra) = read(3);
    assert_eq!(id, 9);
    assert!(extra >= dictionary.bytes().len() as u64);
    assert_eq!(read(5), (9, 0), "read once only");
}

#[test]
fn damage_anywhere_in_a_segment_with_dictionaries_is_found() {
    let (bytes, end) = write(&[trained(1, 0), trained(2, 1)]);
    let mut damaged = bytes.clone();
    for at in 0..bytes.len() {
        let bit = 1 << (at % 8);
        damaged[at] ^= bit;
        let reader = open(damaged.clone(), &IDENTITY, &end.root);
        let noticed = reader.and_then(|reader| verify_segment(&reader)).is_err();
        assert!(noticed, "byte {at} of {}", bytes.len());
        damaged[at] ^= bit;
    }
}

#[test]
fn two_dictionaries_with_one_id_are_refused() {
    let (bytes, end) = write(&[trained(1, 0), trained(1, 1)]);
    let reader = open(bytes, &IDENTITY, &end.root).unwrap();
    assert!(verify_segment(&reader).is_err());
}

#[test]
fn too_few_samples_train_nothing() {
    assert_eq!(train_dictionary(&[], 4096), None);
    assert_eq!(train_dictionary(&[b"a"], 4096), None);
}

#[test]
fn a_dictionary_needs_an_id_and_bytes() {
    assert!(Dictionary::new((1 << 31) - 1, TableIndex(0), vec![1]).is_some());
    let flag = Dictionary::new(1 << 31, TableIndex(0), vec![1]);
    assert!(flag.is_none(), "it would be read as a layout");
    assert!(Dictionary::new(0, TableIndex(0), vec![1]).is_none());
    assert!(Dictionary::new(1, TableIndex(0), vec![]).is_none());
}
