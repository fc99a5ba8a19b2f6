//! Bytes as an attacker writes them: digests and CRC-32s are right, values are not.
//!
//! Written from `docs/format/` alone, so that it also checks what stands there.

use reinstate_core::Digest;
use reinstate_format::{
    BlockDescriptor, BlockLayout, RunKey, SEGMENT_TRAILER_BYTES, SegmentIdentity,
};

const FRAME_HEADER: usize = 16;
const FRAME_DIGEST: usize = 32;

/// A frame of the kind of `like`, with another payload.
pub(crate) fn frame(like: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut bytes = like[..12].to_vec();
    bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(payload);
    let digest = blake3::hash(&bytes);
    bytes.extend_from_slice(digest.as_bytes());
    bytes
}

/// The payload of a frame.
pub(crate) fn payload(frame: &[u8]) -> &[u8] {
    &frame[FRAME_HEADER..frame.len() - FRAME_DIGEST]
}

/// A damaged copy: each four bytes of `edits` set, flip, insert or cut at one place.
pub(crate) fn edit(valid: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for edit in edits.chunks_exact(4).take(16) {
        let place = usize::from(edit[0]) | usize::from(edit[1]) << 8;
        let place = place % (bytes.len() + 1);
        match edit[2] % 8 {
            0..=2 if place < bytes.len() => bytes[place] = edit[3],
            3..=5 if place < bytes.len() => bytes[place] ^= 1 << (edit[3] % 8),
            6 => bytes.insert(place, edit[3]),
            7 => bytes.truncate(place),
            _ => {}
        }
    }
    bytes
}

/// The digest that a block with these stored bytes has.
pub(crate) fn block_digest(
    identity: &SegmentIdentity,
    run: &RunKey,
    block: &BlockDescriptor,
    stored: &[u8],
) -> Digest {
    let mut bytes = b"RNSTBLCK".to_vec();
    bytes.extend_from_slice(&identity_bytes(identity));
    bytes.extend_from_slice(&block.number.to_le_bytes());
    bytes.extend_from_slice(&run.table.0.to_le_bytes());
    bytes.push(run.role as u8);
    for number in [
        block.stored_bytes,
        block.plain_bytes,
        block.row_count,
        block.dictionary | u32::from(block.layout == BlockLayout::Columns) << 31,
    ] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let owner = run.owner.as_bytes();
    bytes.extend_from_slice(&u32::try_from(owner.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(owner);
    bytes.extend_from_slice(blake3::hash(stored).as_bytes());
    Digest::from_bytes(*blake3::hash(&bytes).as_bytes())
}

fn identity_bytes(identity: &SegmentIdentity) -> Vec<u8> {
    let mut bytes = identity.repository.as_bytes().to_vec();
    bytes.extend_from_slice(&identity.container);
    bytes.extend_from_slice(&identity.number.to_le_bytes());
    bytes
}

/// Offsets in a trailer.
const ROOT_LEVEL: usize = 27;
const SEGMENT_BYTES: usize = 64;
const ROOT_OFFSET: usize = 72;
const ROOT_LENGTH: usize = 80;
const ROOT_DIGEST: usize = 84;
const CRC: usize = SEGMENT_TRAILER_BYTES - 4;

/// The same segment with another trailer, its CRC-32 put right; and its root.
pub(crate) fn with_trailer(segment: &[u8], trailer: &[u8]) -> (Vec<u8>, Digest) {
    let mut trailer = trailer.to_vec();
    trailer.resize(SEGMENT_TRAILER_BYTES, 0);
    let crc = crc32fast::hash(&trailer[..CRC]);
    trailer[CRC..].copy_from_slice(&crc.to_le_bytes());
    let root = Digest::from_bytes(*blake3::hash(&trailer).as_bytes());
    let mut bytes = segment[..segment.len() - SEGMENT_TRAILER_BYTES].to_vec();
    bytes.extend_from_slice(&trailer);
    (bytes, root)
}

/// The root page of a segment.
pub(crate) fn root_page(segment: &[u8]) -> &[u8] {
    let trailer = &segment[segment.len() - SEGMENT_TRAILER_BYTES..];
    let start = usize::try_from(number(trailer, ROOT_OFFSET, 8)).unwrap();
    &segment[start..start + usize::try_from(number(trailer, ROOT_LENGTH, 4)).unwrap()]
}

/// The same segment with this root page appended in place of the old one; and its root.
pub(crate) fn with_root_page(
    identity: &SegmentIdentity,
    segment: &[u8],
    level: u8,
    page: &[u8],
) -> (Vec<u8>, Digest) {
    let end = segment.len() - SEGMENT_TRAILER_BYTES;
    let mut trailer = segment[end..].to_vec();
    let length = u32::try_from(page.len()).unwrap();
    let mut signed = b"RNSTPAGE".to_vec();
    signed.extend_from_slice(&identity_bytes(identity));
    signed.extend_from_slice(&(end as u64).to_le_bytes());
    signed.extend_from_slice(&length.to_le_bytes());
    signed.push(level);
    signed.extend_from_slice(page);
    let total = (segment.len() + page.len()) as u64;
    trailer[ROOT_LEVEL] = level;
    trailer[SEGMENT_BYTES..SEGMENT_BYTES + 8].copy_from_slice(&total.to_le_bytes());
    trailer[ROOT_OFFSET..ROOT_OFFSET + 8].copy_from_slice(&(end as u64).to_le_bytes());
    trailer[ROOT_LENGTH..ROOT_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
    trailer[ROOT_DIGEST..ROOT_DIGEST + 32].copy_from_slice(blake3::hash(&signed).as_bytes());
    let mut bytes = segment[..end].to_vec();
    bytes.extend_from_slice(page);
    bytes.extend_from_slice(&segment[end..]);
    with_trailer(&bytes, &trailer)
}

fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    bytes[at..at + length]
        .iter()
        .rev()
        .fold(0, |sum, &byte| sum << 8 | u64::from(byte))
}
