//! Reading a segment: the trailer, a path of pages, and the blocks asked for.
//!
//! *Cost*: opening reads the trailer and the root page, about 1.2 KiB. Finding a tenant among
//! 100,000 reads two to five pages of about 1 KiB.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use reinstate_core::{ContentDigest, Digest, ObjectReader, Owner, RowBatch};

use super::block::{BlockOpener, block_error, check_bounds};
use super::dictionaries::Dictionaries;
use super::page::{PAGE_BYTES_MAX, Page, PageKey, PageLocation, WireRun, decode_page};
use super::runs::{Runs, merge_parts};
use super::trailer::{SEGMENT_TRAILER_BYTES, Trailer, decode_trailer};
use super::{BlockDescriptor, RunKey, SEGMENT_HEADER_BYTES, SegmentIdentity};
use crate::FormatError;
use crate::error::BlockFault;

/// The longest stored block whose buffer is kept for the next one: blocks of one long row are rare.
const STORED_BYTES_KEPT: usize = 4 << 20;

/// A run: where its blocks are and what they contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEntry {
    /// Which rows.
    pub key: RunKey,
    /// How many.
    pub row_count: u64,
    /// How many bytes they take.
    pub plain_bytes: u64,
    /// How many bytes their blocks take.
    pub stored_bytes: u64,
    /// What they contain.
    pub content: ContentDigest,
    /// Their blocks, in the order of the rows.
    pub blocks: Vec<BlockDescriptor>,
}

/// A segment that is open for reading. Used from several threads at once.
pub struct SegmentReader {
    open: Arc<OpenSegment>,
    bytes_read: AtomicU64,
}

/// What all handles on one open segment share.
struct OpenSegment {
    object: Arc<dyn ObjectReader>,
    identity: SegmentIdentity,
    trailer: Trailer,
    root: Page,
    dictionaries: Dictionaries,
    /// The page of each level that was last looked into: who looks many owners up in their order
    /// finds most of them in the same pages.
    last_pages: Mutex<Vec<Option<LastPage>>>,
}

/// Where a page lies, and what it says.
type LastPage = (PageLocation, Arc<Page>);

impl fmt::Debug for SegmentReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SegmentReader({})", self.open.identity)
    }
}

/// Which bytes of an object are the segment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Extent {
    /// All.
    Whole,
    /// The first ones.
    First(u64),
}

impl SegmentReader {
    /// Opens the segment that is a whole object, given the root digest that its manifest keeps.
    ///
    /// # Errors
    /// `Length`, `Digest`, `Foreign`, `NewerVersion` or `Part` if trailer or root page are not
    /// what the manifest says; `Read`.
    pub fn open(
        object: Arc<dyn ObjectReader>,
        identity: &SegmentIdentity,
        expected_root: &Digest,
    ) -> Result<Self, FormatError> {
        Self::open_extent(object, Extent::Whole, identity, expected_root)
    }

    pub(crate) fn open_extent(
        object: Arc<dyn ObjectReader>,
        extent: Extent,
        identity: &SegmentIdentity,
        expected_root: &Digest,
    ) -> Result<Self, FormatError> {
        let structure = "segment";
        let found = object.byte_count();
        let length = match extent {
            Extent::Whole => found,
            Extent::First(length) => length,
        };
        let expected = (SEGMENT_HEADER_BYTES + SEGMENT_TRAILER_BYTES) as u64;
        if length < expected || found < length {
            return Err(FormatError::Length {
                structure,
                expected: expected.max(length),
                found,
            });
        }
        let mut bytes = [0; SEGMENT_TRAILER_BYTES];
        let offset = length - SEGMENT_TRAILER_BYTES as u64;
        read_at(object.as_ref(), identity, offset, &mut bytes)?;
        let trailer = decode_trailer(&bytes, identity, expected_root)?;
        let expected = trailer.totals.segment_bytes;
        if length != expected {
            return Err(FormatError::Length {
                structure,
                expected,
                found: length,
            });
        }
        let root_bytes = u64::from(trailer.root.length);
        let root = read_page(object.as_ref(), identity, &trailer, &trailer.root)?;
        let open = OpenSegment {
            object,
            identity: *identity,
            trailer,
            root,
            dictionaries: Dictionaries::default(),
            last_pages: Mutex::default(),
        };
        Ok(Self {
            open: Arc::new(open),
            bytes_read: AtomicU64::new(SEGMENT_TRAILER_BYTES as u64 + root_bytes),
        })
    }

    /// Another handle on the same open segment, which counts what is read through it. Reads nothing.
    #[must_use]
    pub fn sibling(&self) -> Self {
        Self {
            open: Arc::clone(&self.open),
            bytes_read: AtomicU64::new(0),
        }
    }

    /// Which segment this is.
    #[must_use]
    pub fn identity(&self) -> &SegmentIdentity {
        &self.open.identity
    }

    /// How many rows it holds.
    #[must_use]
    pub fn row_count(&self) -> u64 {
        self.open.trailer.totals.row_count
    }

    /// How many runs it holds.
    #[must_use]
    pub fn run_count(&self) -> u64 {
        self.open.trailer.totals.run_count
    }

    /// How many owners have rows in it.
    #[must_use]
    pub fn owner_count(&self) -> u64 {
        self.open.trailer.totals.owner_count
    }

    /// Bytes read from the object through this handle so far: trailer, pages, dictionaries and
    /// blocks.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The runs of one owner, by table and role; none if it has no rows here.
    ///
    /// # Errors
    /// `Part` or `Malformed` if the index is damaged; `Read`.
    pub fn runs_of(&self, owner: &Owner) -> Result<Vec<RunEntry>, FormatError> {
        self.runs_between(
            &PageKey::first_of_owner(owner),
            &PageKey::last_of_owner(owner),
        )
    }

    /// One run, if there is one.
    ///
    /// # Errors
    /// As [`runs_of`](Self::runs_of).
    pub fn find(&self, key: &RunKey) -> Result<Option<RunEntry>, FormatError> {
        let first = PageKey::of_run(key, 0);
        let last = PageKey::of_run(key, u32::MAX);
        Ok(self.runs_between(&first, &last)?.pop())
    }

    /// All runs in order, page by page; a run with more than 1,024 blocks is held whole.
    pub fn runs(&self) -> Runs<'_> {
        Runs::new(self)
    }

    /// All owners in order, each once.
    pub fn owners(&self) -> impl Iterator<Item = Result<Owner, FormatError>> + '_ {
        let mut last = None;
        self.runs().filter_map(move |run| match run {
            Err(error) => Some(Err(error)),
            Ok(run) if last.as_ref() == Some(&run.key.owner) => None,
            Ok(run) => {
                last = Some(run.key.owner.clone());
                Some(Ok(run.key.owner))
            }
        })
    }

    /// Reads, checks and decompresses a block into a fresh batch.
    ///
    /// # Errors
    /// As [`read_block_into`](Self::read_block_into).
    pub fn read_block(
        &self,
        run: &RunKey,
        block: &BlockDescriptor,
        opener: &mut BlockOpener,
    ) -> Result<RowBatch, FormatError> {
        let mut batch = RowBatch::new();
        self.read_block_into(run, block, opener, &mut batch)?;
        Ok(batch)
    }

    /// Replaces what is in `batch` by the rows of a block, reusing its buffer.
    ///
    /// # Errors
    /// `Block` if the bytes are not those that the index promises for this block of this run;
    /// `Read`. The batch is empty then.
    pub fn read_block_into(
        &self,
        run: &RunKey,
        block: &BlockDescriptor,
        opener: &mut BlockOpener,
        batch: &mut RowBatch,
    ) -> Result<(), FormatError> {
        batch.clear();
        let bounds = if self.has_bytes(block.offset, block.stored_bytes) {
            check_bounds(block)
        } else {
            Err(BlockFault::Bounds("outside the segment"))
        };
        bounds.map_err(|fault| block_error(&self.open.identity, run, block, fault))?;
        let dictionary = match block.dictionary {
            0 => None,
            id => Some(self.dictionary(id)?.ok_or_else(|| {
                block_error(&self.open.identity, run, block, BlockFault::Dictionary(id))
            })?),
        };
        let mut stored = std::mem::take(&mut opener.stored);
        // Only ever grows, so that a reused buffer is not cleared for every block.
        let length = block.stored_bytes as usize;
        if stored.len() < length {
            stored.resize(length, 0);
        }
        let result = self
            .read(block.offset, &mut stored[..length])
            .and_then(|()| {
                opener.open(
                    &self.open.identity,
                    run,
                    block,
                    &stored[..length],
                    dictionary,
                    batch,
                )
            });
        if stored.capacity() <= STORED_BYTES_KEPT {
            opener.stored = stored;
        }
        result
    }

    pub(super) fn trailer(&self) -> &Trailer {
        &self.open.trailer
    }

    pub(super) fn root(&self) -> &Page {
        &self.open.root
    }

    pub(super) fn dictionaries(&self) -> &Dictionaries {
        &self.open.dictionaries
    }

    /// Whether these bytes lie inside the segment.
    pub(super) fn has_bytes(&self, offset: u64, length: u32) -> bool {
        has_bytes(&self.open.trailer, offset, length)
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), FormatError> {
        read_at(
            self.open.object.as_ref(),
            &self.open.identity,
            offset,
            bytes,
        )?;
        self.bytes_read
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Reads and checks a page.
    pub(super) fn page(&self, location: &PageLocation) -> Result<Page, FormatError> {
        let open = &self.open;
        let page = read_page(
            open.object.as_ref(),
            &open.identity,
            &open.trailer,
            location,
        )?;
        self.bytes_read
            .fetch_add(u64::from(location.length), Ordering::Relaxed);
        Ok(page)
    }

    /// A page, read and checked unless it was the last of its level that was looked into.
    fn page_of_lookup(&self, location: &PageLocation) -> Result<Arc<Page>, FormatError> {
        let level = usize::from(location.level);
        let last_pages = || {
            // Whole entries are replaced, so that a panic elsewhere leaves nothing half-done.
            let last_pages = self.open.last_pages.lock();
            last_pages.unwrap_or_else(PoisonError::into_inner)
        };
        if let Some(Some((place, page))) = last_pages().get(level)
            && place == location
        {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(self.page(location)?);
        let mut last_pages = last_pages();
        if last_pages.len() <= level {
            last_pages.resize(level + 1, None);
        }
        last_pages[level] = Some((*location, Arc::clone(&page)));
        Ok(page)
    }

    pub(super) fn fault(&self, part: &'static str, offset: u64, fact: &str) -> FormatError {
        FormatError::Part {
            part,
            offset,
            segment: self.open.identity,
            fact: fact.to_owned(),
        }
    }

    /// The runs with a part between two keys, both included.
    fn runs_between(&self, first: &PageKey, last: &PageKey) -> Result<Vec<RunEntry>, FormatError> {
        let mut parts = Vec::new();
        self.collect(
            &self.open.root,
            self.open.trailer.root.level,
            first,
            last,
            &mut parts,
        )?;
        let mut runs = Vec::new();
        let mut parts = parts.into_iter();
        while let Some(part) = parts.next() {
            runs.push(merge_parts(self, part, || Ok(parts.next()))?);
        }
        Ok(runs)
    }

    /// Descends only into pages that can hold a key between the two. Ends after as many levels
    /// as the trailer says.
    fn collect(
        &self,
        page: &Page,
        level: u8,
        first: &PageKey,
        last: &PageKey,
        parts: &mut Vec<WireRun>,
    ) -> Result<(), FormatError> {
        match page {
            Page::Leaf(runs) => {
                let between = |run: &&WireRun| (first..=last).contains(&&run.key());
                parts.extend(runs.iter().filter(between).cloned());
            }
            Page::Inner(pages) => {
                for (index, below) in pages.iter().enumerate() {
                    let ends_before = pages
                        .get(index + 1)
                        .is_some_and(|next| next.key() <= *first);
                    if ends_before {
                        continue;
                    }
                    if below.key() > *last {
                        break;
                    }
                    let level = level.saturating_sub(1);
                    let page = self.page_of_lookup(&below.location(level))?;
                    self.collect(&page, level, first, last, parts)?;
                }
            }
        }
        Ok(())
    }
}

/// Whether these bytes lie inside the segment.
fn has_bytes(trailer: &Trailer, offset: u64, length: u32) -> bool {
    let stop = offset.checked_add(u64::from(length));
    stop.is_some_and(|stop| stop <= trailer.totals.segment_bytes)
}

fn read_page(
    object: &dyn ObjectReader,
    identity: &SegmentIdentity,
    trailer: &Trailer,
    location: &PageLocation,
) -> Result<Page, FormatError> {
    let is_possible = has_bytes(trailer, location.offset, location.length)
        && location.length as usize <= PAGE_BYTES_MAX;
    if !is_possible {
        return Err(FormatError::Part {
            part: "index page",
            offset: location.offset,
            segment: *identity,
            fact: "its length or place is impossible".to_owned(),
        });
    }
    let mut bytes = vec![0; location.length as usize];
    read_at(object, identity, location.offset, &mut bytes)?;
    decode_page(identity, location, &bytes)
}

fn read_at(
    object: &dyn ObjectReader,
    segment: &SegmentIdentity,
    offset: u64,
    bytes: &mut [u8],
) -> Result<(), FormatError> {
    let (segment, length) = (*segment, bytes.len() as u64);
    object
        .read_exact_at(offset, bytes)
        .map_err(|source| FormatError::Read {
            offset,
            length,
            segment,
            source,
        })
}
