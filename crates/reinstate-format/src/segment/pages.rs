//! Writing index pages: entries go in in order, pages come out as they fill.

use super::SegmentIdentity;
use super::page::{PAGE_BYTES_TARGET, PageKey, PageLocation, WirePage, page_digest};
use crate::codec;

/// Bytes of a page before its first entry: the count.
const PAGE_START_BYTES: usize = 8;

/// Builds the tree of pages from the bottom. Holds one open page a level besides the bytes that
/// are finished.
#[derive(Debug)]
pub(super) struct PageWriter {
    identity: SegmentIdentity,
    /// Where `bytes` will start in the segment.
    offset: u64,
    bytes: Vec<u8>,
    page_count: u32,
    levels: Vec<OpenPage>,
}

#[derive(Debug, Default)]
struct OpenPage {
    first: Option<PageKey>,
    entry_count: u64,
    entries: Vec<u8>,
}

impl PageWriter {
    pub(super) fn new(identity: SegmentIdentity, offset: u64) -> Self {
        let levels = vec![OpenPage::default()];
        Self {
            identity,
            offset,
            bytes: Vec::new(),
            page_count: 0,
            levels,
        }
    }

    /// Appends an encoded entry to the leaves. Entries must ascend.
    pub(super) fn push(&mut self, key: &PageKey, entry: &[u8]) {
        self.push_at(0, key, entry);
    }

    /// Closes all pages; returns them, the root's place and how many there are.
    pub(super) fn finish(mut self) -> (Vec<u8>, PageLocation, u32) {
        let mut level = 0;
        loop {
            let (first, location) = self.close(level);
            let above_is_empty = self
                .levels
                .get(level + 1)
                .is_none_or(|above| above.entry_count == 0);
            if above_is_empty {
                return (self.bytes, location, self.page_count);
            }
            let first = first.expect("BUG: a page below another is empty");
            self.push_page(level + 1, &first, &location);
            level += 1;
        }
    }

    fn push_at(&mut self, level: usize, key: &PageKey, entry: &[u8]) {
        let open = &self.levels[level];
        let entries_least = if level == 0 { 1 } else { 2 };
        let grown = PAGE_START_BYTES + open.entries.len() + entry.len();
        if open.entry_count >= entries_least && grown > PAGE_BYTES_TARGET {
            let (first, location) = self.close(level);
            let first = first.expect("BUG: a full page is empty");
            self.push_page(level + 1, &first, &location);
        }
        let open = &mut self.levels[level];
        open.first.get_or_insert_with(|| key.clone());
        open.entry_count += 1;
        open.entries.extend_from_slice(entry);
    }

    fn push_page(&mut self, level: usize, first: &PageKey, page: &PageLocation) {
        if self.levels.len() == level {
            self.levels.push(OpenPage::default());
        }
        self.push_at(level, first, &codec::encode(&WirePage::new(first, page)));
    }

    fn close(&mut self, level: usize) -> (Option<PageKey>, PageLocation) {
        let open = &mut self.levels[level];
        let start = self.bytes.len();
        self.bytes
            .extend_from_slice(&open.entry_count.to_le_bytes());
        self.bytes.extend_from_slice(&open.entries);
        let first = open.first.take();
        open.entry_count = 0;
        open.entries.clear();
        let page = &self.bytes[start..];
        let offset = self.offset + start as u64;
        let level = u8::try_from(level).expect("BUG: more than 255 levels of pages");
        let location = PageLocation {
            offset,
            length: u32::try_from(page.len()).expect("BUG: a page over 4 GiB"),
            level,
            digest: page_digest(&self.identity, offset, level, page),
        };
        self.page_count += 1;
        (first, location)
    }
}
