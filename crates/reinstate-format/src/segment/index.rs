//! Building a segment's index while its blocks are written.
//!
//! *Cost*: a run is held with its blocks until its contents are known and all its rows placed,
//! then as one encoded entry of about 115 bytes, its owner and 64 bytes for each further block:
//! about 50 MB for 100,000 tenants with four tables each. The finished index takes about as much;
//! entries are let go as they move into it, in steps of a mebibyte, when runs were completed in
//! order. Runs may be completed in any order; sorted order sorts in one pass.

use std::collections::BTreeMap;

use reinstate_core::{ContentDigest, Digest, Owner, TableIndex};

use super::block::SealedBlock;
use super::dictionary::{DICTIONARIES_MAX, Dictionary, WireDictionary, dictionary_digest};
use super::page::{PART_BLOCKS_MAX, PageKey, WireBlock, WireRun};
use super::pages::PageWriter;
use super::trailer::{DirectoryLocation, SegmentTotals, Trailer, encode_trailer};
use super::{BlockDescriptor, RunKey, SEGMENT_TRAILER_BYTES, SegmentIdentity};
use crate::FormatError;
use crate::codec;
use crate::error::hash;

/// Entries are kept in pieces of about this size, so that they can be let go one by one.
const PIECE_BYTES: usize = 1 << 20;

/// What ends a segment, and what the manifest or plan keeps of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentEnd {
    /// Index and trailer, to be appended to the segment.
    pub bytes: Vec<u8>,
    /// The digest of the trailer.
    pub root: Digest,
    /// The length of the whole segment.
    pub segment_bytes: u64,
    /// Rows in it.
    pub row_count: u64,
    /// The first owner in it; [`Owner::Shared`] if there are no rows.
    pub first_owner: Owner,
    /// The last owner in it; [`Owner::Shared`] if there are no rows.
    pub last_owner: Owner,
    /// Runs in it.
    pub run_count: u64,
    /// Owners in it, [`Owner::Shared`] included.
    pub owner_count: u64,
    /// Bytes of stored blocks by table, in the order of the tables.
    pub stored_bytes_by_table: Vec<(TableIndex, u64)>,
}

/// Says where each block goes, and gathers the index.
#[derive(Debug)]
pub struct IndexBuilder {
    identity: SegmentIdentity,
    next_offset: u64,
    open: BTreeMap<RunKey, OpenRun>,
    settled: Settled,
    dictionaries: Vec<WireDictionary>,
    stored_bytes: BTreeMap<TableIndex, u64>,
    totals: SegmentTotals,
}

/// A run of which blocks or contents are still to come.
#[derive(Debug, Default)]
struct OpenRun {
    content: ContentDigest,
    row_count: u64,
    blocks: Vec<BlockDescriptor>,
}

impl IndexBuilder {
    /// An index without entries; the first block will start at `first_offset`, right after the
    /// header.
    #[must_use]
    pub fn new(identity: SegmentIdentity, first_offset: u64) -> Self {
        Self {
            identity,
            next_offset: first_offset,
            open: BTreeMap::new(),
            settled: Settled::default(),
            dictionaries: Vec::new(),
            stored_bytes: BTreeMap::new(),
            totals: SegmentTotals::default(),
        }
    }

    /// Gives a sealed block of this run its place; returns the offset at which its stored bytes
    /// must be written. Blocks, of whichever runs, follow each other without a gap in the order of
    /// these calls.
    pub fn place(&mut self, run: &RunKey, sealed: &SealedBlock) -> u64 {
        let offset = self.next_offset;
        let block = sealed.descriptor(offset);
        self.next_offset += u64::from(block.stored_bytes);
        self.totals.row_count += u64::from(block.row_count);
        self.totals.block_count += 1;
        self.totals.plain_bytes += u64::from(block.plain_bytes);
        self.totals.stored_bytes += u64::from(block.stored_bytes);
        *self.stored_bytes.entry(run.table).or_default() += u64::from(block.stored_bytes);
        self.change(run, |open| {
            open.row_count += u64::from(block.row_count);
            open.blocks.push(block);
        });
        offset
    }

    /// Gives a dictionary its place; returns the offset at which its bytes must be written.
    pub fn place_dictionary(&mut self, dictionary: &Dictionary) -> u64 {
        let offset = self.next_offset;
        let bytes = dictionary.bytes();
        let (id, table) = (dictionary.id(), dictionary.table());
        self.next_offset += bytes.len() as u64;
        self.dictionaries.push(WireDictionary {
            id,
            table: table.0,
            offset,
            length: u32::try_from(bytes.len()).expect("BUG: a dictionary over its limit"),
            digest: dictionary_digest(&self.identity, id, table, bytes),
        });
        offset
    }

    /// Adds to what a run contains, before or after its blocks are placed. All that is added to
    /// a run must be all of its rows in the end.
    pub fn content(&mut self, run: &RunKey, content: ContentDigest) {
        if content != ContentDigest::EMPTY {
            self.change(run, |open| open.content.merge(content));
        }
    }

    /// Changes an open run; settles it when contents and blocks have the same rows.
    fn change(&mut self, run: &RunKey, change: impl FnOnce(&mut OpenRun)) {
        if let Some(open) = self.open.get_mut(run) {
            change(open);
            if open.row_count != open.content.row_count() {
                return;
            }
            let open = self.open.remove(run).expect("BUG: found just now");
            self.settled.push(run, &open);
        } else {
            let mut open = OpenRun::default();
            change(&mut open);
            self.open.insert(run.clone(), open);
        }
    }

    /// Ends the index.
    ///
    /// # Errors
    /// `Malformed` if the contents of a run are not those of all its blocks, or there are too
    /// many dictionaries.
    pub fn finish(self) -> Result<SegmentEnd, FormatError> {
        if let Some((run, open)) = self.open.iter().next() {
            let fact = format!(
                "{run}: blocks of {} rows, but contents of {}",
                open.row_count,
                open.content.row_count()
            );
            return Err(FormatError::malformed("segment index", fact));
        }
        if self.dictionaries.len() > DICTIONARIES_MAX {
            let fact = format!("{} dictionaries", self.dictionaries.len());
            return Err(FormatError::malformed("segment index", fact));
        }
        let mut bytes = Vec::new();
        let mut directory = None;
        if !self.dictionaries.is_empty() {
            bytes = codec::encode(&self.dictionaries);
            directory = Some(DirectoryLocation {
                offset: self.next_offset,
                length: u32::try_from(bytes.len()).expect("BUG: a directory over its limit"),
                digest: hash(&bytes),
            });
        }
        let pages_offset = self.next_offset + bytes.len() as u64;
        let written = self
            .settled
            .write(PageWriter::new(self.identity, pages_offset));
        let (pages, root, page_count) = written.pages.finish();
        let mut totals = self.totals;
        totals.run_count = written.run_count;
        totals.owner_count = written.owner_count;
        totals.index_bytes = pages.len() as u64;
        totals.page_count = page_count;
        totals.segment_bytes = pages_offset + totals.index_bytes + SEGMENT_TRAILER_BYTES as u64;
        if bytes.is_empty() {
            // Most indexes: not copied, as they may be large.
            bytes = pages;
        } else {
            bytes.extend_from_slice(&pages);
        }
        let trailer = Trailer {
            root,
            dictionaries: directory,
            totals,
        };
        let (trailer, root) = encode_trailer(&self.identity, &trailer);
        bytes.extend_from_slice(&trailer);
        let (first_owner, last_owner) = written.owners.unwrap_or((Owner::Shared, Owner::Shared));
        Ok(SegmentEnd {
            bytes,
            root,
            segment_bytes: totals.segment_bytes,
            row_count: totals.row_count,
            first_owner,
            last_owner,
            run_count: totals.run_count,
            owner_count: totals.owner_count,
            stored_bytes_by_table: self.stored_bytes.into_iter().collect(),
        })
    }
}

/// Runs that are complete, encoded.
#[derive(Debug, Default)]
struct Settled {
    pieces: Vec<Piece>,
    entries: Vec<Place>,
}

#[derive(Debug, Default)]
struct Piece {
    bytes: Vec<u8>,
    entries_left: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    piece: u32,
    start: u32,
    length: u32,
}

struct Written {
    pages: PageWriter,
    run_count: u64,
    owner_count: u64,
    owners: Option<(Owner, Owner)>,
}

impl Settled {
    fn push(&mut self, run: &RunKey, open: &OpenRun) {
        let entry = codec::encode(&wire_run(run, 0, open.content, &open.blocks));
        let full = self
            .pieces
            .last()
            .is_none_or(|piece| piece.bytes.len() >= PIECE_BYTES);
        if full {
            self.pieces.push(Piece::default());
        }
        let index = self.pieces.len() - 1;
        let piece = &mut self.pieces[index];
        let fits = "BUG: an index over its limit";
        self.entries.push(Place {
            piece: u32::try_from(index).expect(fits),
            start: u32::try_from(piece.bytes.len()).expect(fits),
            length: u32::try_from(entry.len()).expect(fits),
        });
        piece.bytes.extend_from_slice(&entry);
        piece.entries_left += 1;
    }

    fn bytes(&self, place: Place) -> &[u8] {
        let start = place.start as usize;
        &self.pieces[place.piece as usize].bytes[start..start + place.length as usize]
    }

    /// Owner, table and role, which an entry starts with, in the order of the index.
    fn key(&self, place: Place) -> (&[u8], u32, u8) {
        let invariant = "BUG: an entry of our own is cut short";
        let bytes = self.bytes(place);
        let (length, rest) = bytes.split_first_chunk().expect(invariant);
        let length = usize::try_from(u64::from_le_bytes(*length)).expect(invariant);
        let (owner, rest) = rest.split_at(length);
        let (table, rest) = rest.split_first_chunk().expect(invariant);
        (owner, u32::from_le_bytes(*table), rest[0])
    }

    /// Lets go of an entry, and of its piece after the last one.
    fn release(&mut self, place: Place) {
        let piece = &mut self.pieces[place.piece as usize];
        piece.entries_left -= 1;
        if piece.entries_left == 0 {
            piece.bytes = Vec::new();
        }
    }

    fn write(mut self, pages: PageWriter) -> Written {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by(|&left, &right| self.key(left).cmp(&self.key(right)));
        let mut written = Written {
            pages,
            run_count: 0,
            owner_count: 0,
            owners: None,
        };
        let mut rest = entries.as_slice();
        while let Some(&first) = rest.first() {
            let same = rest.partition_point(|&place| self.key(place) == self.key(first));
            let (group, after) = rest.split_at(same);
            written.run(&self, group);
            for &place in group {
                self.release(place);
            }
            rest = after;
        }
        written
    }
}

impl Written {
    /// Writes one run, which may have been settled in several steps.
    fn run(&mut self, settled: &Settled, group: &[Place]) {
        let decode = |place: &Place| -> WireRun {
            codec::decode("entry", settled.bytes(*place)).expect("BUG: an entry of our own")
        };
        let mut run = decode(&group[0]);
        for more in &group[1..] {
            let more = decode(more);
            run.content_sum = run.content_sum.wrapping_add(more.content_sum);
            run.content_rows += more.content_rows;
            run.blocks.extend(more.blocks);
        }
        let blocks = std::mem::take(&mut run.blocks);
        let mut parts = blocks.chunks(PART_BLOCKS_MAX).peekable();
        while let Some(part) = parts.next() {
            run.more = parts.peek().is_some();
            run.blocks = part.to_vec();
            self.pages.push(&run.key(), &codec::encode(&run));
            run.part += 1;
        }
        let owner = run.run().expect("BUG: a run of our own").owner;
        self.run_count += 1;
        match &mut self.owners {
            None => {
                self.owner_count = 1;
                self.owners = Some((owner.clone(), owner));
            }
            Some((_, last)) if *last != owner => {
                self.owner_count += 1;
                *last = owner;
            }
            Some(_) => {}
        }
    }
}

fn wire_run(
    run: &RunKey,
    part: u32,
    content: ContentDigest,
    blocks: &[BlockDescriptor],
) -> WireRun {
    let PageKey {
        owner,
        table,
        role,
        part,
    } = PageKey::of_run(run, part);
    WireRun {
        owner,
        table,
        role,
        part,
        more: false,
        content_sum: content.sum(),
        content_rows: content.row_count(),
        blocks: blocks.iter().map(WireBlock::from).collect(),
    }
}
