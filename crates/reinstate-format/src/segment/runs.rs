//! Going through all runs of a segment.

use std::vec::IntoIter;

use reinstate_core::ContentDigest;

use super::page::{Page, PageLocation, WirePage, WireRun};
use super::{BlockDescriptor, RunEntry, SegmentReader};
use crate::FormatError;

/// All runs of a segment in order. Holds one page of each level. Ends after an error.
#[derive(Debug)]
pub struct Runs<'s> {
    reader: &'s SegmentReader,
    /// Pages still to be gone through, root first, each with its level.
    inner: Vec<(u8, IntoIter<WirePage>)>,
    leaf: IntoIter<WireRun>,
    failed: bool,
    page_count: u32,
    index_bytes: u64,
}

impl<'s> Runs<'s> {
    pub(super) fn new(reader: &'s SegmentReader) -> Self {
        let mut runs = Self {
            reader,
            inner: Vec::new(),
            leaf: Vec::new().into_iter(),
            failed: false,
            page_count: 0,
            index_bytes: 0,
        };
        runs.enter(reader.root().clone(), &reader.trailer().root);
        runs
    }

    /// Pages gone through so far, and their bytes.
    pub(super) fn pages_seen(&self) -> (u32, u64) {
        (self.page_count, self.index_bytes)
    }

    fn enter(&mut self, page: Page, location: &PageLocation) {
        self.page_count = self.page_count.saturating_add(1);
        self.index_bytes += u64::from(location.length);
        match page {
            Page::Leaf(runs) => self.leaf = runs.into_iter(),
            Page::Inner(pages) => self.inner.push((location.level, pages.into_iter())),
        }
    }

    fn next_part(&mut self) -> Result<Option<WireRun>, FormatError> {
        loop {
            if let Some(part) = self.leaf.next() {
                return Ok(Some(part));
            }
            let Some((level, pages)) = self.inner.last_mut() else {
                return Ok(None);
            };
            let Some(below) = pages.next() else {
                self.inner.pop();
                continue;
            };
            let location = below.location(level.saturating_sub(1));
            let page = self.reader.page(&location)?;
            self.enter(page, &location);
        }
    }

    fn next_run(&mut self) -> Result<Option<RunEntry>, FormatError> {
        let Some(first) = self.next_part()? else {
            return Ok(None);
        };
        merge_parts(self.reader, first, || self.next_part()).map(Some)
    }
}

impl Iterator for Runs<'_> {
    type Item = Result<RunEntry, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.next_run();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Puts the parts of a run together.
///
/// # Errors
/// `Part` if they do not fit; whatever `next` returns.
pub(super) fn merge_parts(
    reader: &SegmentReader,
    first: WireRun,
    mut next: impl FnMut() -> Result<Option<WireRun>, FormatError>,
) -> Result<RunEntry, FormatError> {
    let fault = |fact: &str| reader.fault("index", reader.trailer().root.offset, fact);
    let content = ContentDigest::from_parts(first.content_sum, first.content_rows);
    let mut run = RunEntry {
        key: first.run().map_err(|fact| fault(&fact))?,
        row_count: 0,
        plain_bytes: 0,
        stored_bytes: 0,
        content,
        blocks: Vec::with_capacity(first.blocks.len()),
    };
    let mut part = first;
    let mut expected = 0;
    loop {
        let fits = part.run().is_ok_and(|key| key == run.key)
            && ContentDigest::from_parts(part.content_sum, part.content_rows) == content
            && part.part == expected
            && !part.blocks.is_empty();
        if !fits {
            return Err(fault(&format!(
                "{}: its parts do not fit together",
                run.key
            )));
        }
        run.blocks
            .extend(part.blocks.iter().map(BlockDescriptor::from));
        if !part.more {
            break;
        }
        expected += 1;
        let missing = || fault(&format!("{}: a part of it is missing", run.key));
        part = next()?.ok_or_else(missing)?;
    }
    for block in &run.blocks {
        run.row_count += u64::from(block.row_count);
        run.plain_bytes += u64::from(block.plain_bytes);
        run.stored_bytes += u64::from(block.stored_bytes);
    }
    if run.row_count == content.row_count() {
        return Ok(run);
    }
    let (blocks, rows) = (run.row_count, content.row_count());
    Err(fault(&format!(
        "{}: blocks of {blocks} rows, contents of {rows}",
        run.key
    )))
}
