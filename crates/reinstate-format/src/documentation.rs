//! Holds the pages in `docs/format/` to the constants in the code.

use std::collections::BTreeMap;

use crate::frame::FrameKind;
use crate::{
    campaign, codec, frame, job, journal, log, manifest, plan, receipt, repository, schema, segment,
};

const PAGES: [&str; 5] = [
    include_str!("../../../docs/format/README.md"),
    include_str!("../../../docs/format/segment.md"),
    include_str!("../../../docs/format/records.md"),
    include_str!("../../../docs/format/log.md"),
    include_str!("../../../docs/format/campaign.md"),
];

/// The cells of each row of each table, with the cells of the table's first row.
fn rows() -> impl Iterator<Item = (Vec<&'static str>, Vec<&'static str>)> {
    let mut head = Vec::new();
    PAGES
        .into_iter()
        .flat_map(str::lines)
        .filter_map(move |line| {
            let Some(line) = line
                .strip_prefix('|')
                .and_then(|line| line.strip_suffix('|'))
            else {
                head.clear();
                return None;
            };
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            if head.is_empty() {
                head.clone_from(&cells);
                return None;
            }
            (!cells[0].starts_with("---")).then(|| (head.clone(), cells))
        })
}

fn text(magic: [u8; 8]) -> String {
    String::from_utf8(magic.to_vec()).unwrap()
}

fn numbers() -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("FRAME_HEADER_BYTES", frame::FRAME_HEADER_BYTES.to_string()),
        ("FRAME_DIGEST_BYTES", frame::FRAME_DIGEST_BYTES.to_string()),
        (
            "FRAME_PAYLOAD_BYTES_MAX",
            frame::FRAME_PAYLOAD_BYTES_MAX.to_string(),
        ),
        ("SEQUENCE_BYTES_MAX", codec::SEQUENCE_BYTES_MAX.to_string()),
        ("ROW_BYTES_MAX", reinstate_core::ROW_BYTES_MAX.to_string()),
        (
            "TENANT_ID_BYTES_MAX",
            reinstate_core::TENANT_ID_BYTES_MAX.to_string(),
        ),
        ("SEGMENT_VERSION", segment::SEGMENT_VERSION.to_string()),
        (
            "SEGMENT_HEADER_BYTES",
            segment::SEGMENT_HEADER_BYTES.to_string(),
        ),
        (
            "SEGMENT_TRAILER_BYTES",
            segment::SEGMENT_TRAILER_BYTES.to_string(),
        ),
        (
            "BLOCK_PLAIN_BYTES_TARGET",
            segment::BLOCK_PLAIN_BYTES_TARGET.to_string(),
        ),
        (
            "BLOCK_PLAIN_BYTES_MAX",
            segment::BLOCK_PLAIN_BYTES_MAX.to_string(),
        ),
        (
            "COLUMNS_PLAIN_BYTES_TARGET",
            segment::COLUMNS_PLAIN_BYTES_TARGET.to_string(),
        ),
        (
            "COLUMNS_PLAIN_BYTES_MAX",
            segment::COLUMNS_PLAIN_BYTES_MAX.to_string(),
        ),
        ("COLUMNS_FLAG", segment::constants::COLUMNS_FLAG.to_string()),
        (
            "COLUMN_COUNT_MAX",
            segment::constants::COLUMN_COUNT_MAX.to_string(),
        ),
        ("PAGE_BYTES_TARGET", segment::PAGE_BYTES_TARGET.to_string()),
        ("PAGE_BYTES_MAX", segment::PAGE_BYTES_MAX.to_string()),
        ("PART_BLOCKS_MAX", segment::PART_BLOCKS_MAX.to_string()),
        ("LEVELS_MAX", segment::constants::LEVELS_MAX.to_string()),
        (
            "WIRE_BLOCK_BYTES",
            segment::constants::WIRE_BLOCK_BYTES.to_string(),
        ),
        (
            "DICTIONARY_PLAIN_BYTES_LIMIT",
            segment::DICTIONARY_PLAIN_BYTES_LIMIT.to_string(),
        ),
        (
            "DICTIONARY_BYTES_MAX",
            segment::DICTIONARY_BYTES_MAX.to_string(),
        ),
        (
            "DICTIONARIES_MAX",
            segment::constants::DICTIONARIES_MAX.to_string(),
        ),
        ("PLAN_TAIL_BYTES", plan::PLAN_TAIL_BYTES.to_string()),
        ("CHANGE_PLACE_BYTES", log::CHANGE_PLACE_BYTES.to_string()),
        (
            "LOG_PACK_RECORDS_MAX",
            log::LOG_PACK_RECORDS_MAX.to_string(),
        ),
        ("LOG_COMMITS_MAX", log::LOG_COMMITS_MAX.to_string()),
        ("CONFLICTS_MAX", plan::CONFLICTS_MAX.to_string()),
        ("LAST_CHANGE_BYTES", plan::LAST_CHANGE_BYTES.to_string()),
    ])
}

fn texts() -> BTreeMap<&'static str, String> {
    let magic = |kind: &FrameKind| {
        assert_eq!(kind.version, 1, "{}", kind.structure);
        text(kind.magic)
    };
    BTreeMap::from([
        ("HEADER_MAGIC", text(segment::constants::HEADER_MAGIC)),
        ("TRAILER_MAGIC", text(segment::constants::TRAILER_MAGIC)),
        ("BLOCK_TAG", text(segment::constants::BLOCK_TAG)),
        ("PAGE_TAG", text(segment::constants::PAGE_TAG)),
        ("DICTIONARY_TAG", text(segment::constants::DICTIONARY_TAG)),
        ("MANIFEST_MAGIC", magic(&manifest::MANIFEST)),
        ("PLAN_MAGIC", magic(&plan::PLAN)),
        ("PLAN_TAIL_MAGIC", text(plan::TAIL_MAGIC)),
        ("RECEIPT_MAGIC", magic(&receipt::RECEIPT)),
        ("JOB_MAGIC", magic(&job::JOB)),
        ("JOURNAL_MAGIC", magic(&journal::JOURNAL)),
        ("REPOSITORY_MAGIC", magic(&repository::REPOSITORY)),
        ("SCHEMA_TAG", text(schema::SCHEMA_TAG)),
        ("LOG_RUN_MAGIC", magic(&log::LOG_RUN)),
        ("LOG_BASE_MAGIC", magic(&log::LOG_BASE)),
        ("LOG_ORIGIN_MAGIC", magic(&log::LOG_ORIGIN)),
        ("LOG_VERSION_MAGIC", magic(&log::LOG_VERSION)),
        ("LOG_PACK_MAGIC", magic(&log::LOG_PACK)),
        ("COMMITS_MAGIC", magic(&log::COMMITS)),
        ("LINK_TAG", text(log::LINK_TAG)),
        ("CAMPAIGN_MAGIC", magic(&campaign::CAMPAIGN)),
        ("CAMPAIGN_RECORD_MAGIC", magic(&campaign::CAMPAIGN_RECORD)),
        ("AUDIT_TAG", text(campaign::AUDIT_TAG)),
        ("TREE_TAG", text(manifest::TREE_TAG)),
    ])
}

#[test]
fn the_constants_on_the_pages_are_those_of_the_code() {
    let mut code = numbers();
    code.extend(texts());
    let pages: BTreeMap<_, _> = rows()
        .filter(|(head, _)| head[..] == ["constant", "value"])
        .map(|(_, cells)| {
            (
                cells[0].trim_matches('`'),
                cells[1].trim_matches('`').to_owned(),
            )
        })
        .collect();
    assert_eq!(pages, code);
}

#[test]
fn the_notes_on_the_pages_are_those_of_the_code() {
    let code = plan::NoteKind::ALL.map(|kind| {
        let obstacle = if kind.is_obstacle() { "yes" } else { "no" };
        let name = format!("`{}`", kind.name());
        vec![(kind as u8).to_string(), name, obstacle.to_owned()]
    });
    let pages: Vec<Vec<_>> = rows()
        .filter(|(head, _)| head[0] == "note")
        .map(|(_, cells)| cells.into_iter().map(str::to_owned).collect())
        .collect();
    assert_eq!(pages, code);
}

#[test]
fn the_entries_of_a_campaign_on_the_page_are_those_of_the_code() {
    let code = campaign::EntryKind::ALL
        .map(|kind| vec![(kind as u8).to_string(), format!("`{}`", kind.name())]);
    let pages: Vec<Vec<_>> = rows()
        .filter(|(head, _)| head[..] == ["kind", "name"])
        .map(|(_, cells)| cells.into_iter().map(str::to_owned).collect())
        .collect();
    assert_eq!(pages, code);
}

#[test]
fn the_offsets_on_the_pages_follow_from_the_lengths() {
    let mut tables = 0;
    let mut next: Option<u32> = None;
    for (head, cells) in rows().filter(|(head, _)| head[0] == "offset") {
        assert_eq!(head[1], "bytes");
        // A table that contains a part of variable length ends the sum.
        let (offset, bytes) = (cells[0].parse().ok(), cells[1].parse::<u32>().ok());
        match offset {
            Some(0) => tables += 1,
            Some(offset) => assert_eq!(next, Some(offset), "{cells:?}"),
            None => {}
        }
        next = offset.zip(bytes).map(|(offset, bytes)| offset + bytes);
    }
    assert_eq!(
        tables, 7,
        "frame, header, block, trailer, tail of a plan, a last change, place of a change"
    );
}

#[test]
fn every_magic_and_tag_is_unlike_all_others() {
    let values: Vec<_> = texts().into_values().collect();
    let distinct: std::collections::BTreeSet<_> = values.iter().collect();
    assert_eq!(distinct.len(), 24);
    assert_eq!(values.len(), 24);
}
