//! Where the pieces of a saved plan are in its file.

use std::sync::Arc;

use reinstate_core::{Digest, ObjectReader};

use super::PlanDescription;
use super::wire::WirePlan;
use crate::FormatError;
use crate::frame::{FRAME_DIGEST_BYTES, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX, FrameKind};
use crate::segment::{Extent, SegmentIdentity, SegmentReader};

pub(crate) const PLAN: FrameKind = FrameKind {
    magic: *b"RNSTPLAN",
    version: 1,
    structure: "plan",
};
/// First bytes of the tail.
pub(crate) const TAIL_MAGIC: [u8; 8] = *b"RNSTPEND";
/// Bytes of the tail.
pub const PLAN_TAIL_BYTES: usize = 24;

/// Bytes of a frame around its payload.
const FRAME_EDGES_BYTES: usize = FRAME_HEADER_BYTES + FRAME_DIGEST_BYTES;

/// Writes what follows the segment of a plan, of `plan.segment.stored_bytes` bytes; returns it with
/// the digest that stands for the whole plan.
///
/// # Panics
/// If it takes more than [`FRAME_PAYLOAD_BYTES_MAX`]: millions of tenants.
#[must_use]
pub fn encode_plan_end(plan: &PlanDescription) -> (Vec<u8>, Digest) {
    let (mut bytes, digest) = PLAN.encode(&WirePlan::from(plan));
    let length = bytes.len() as u64;
    bytes.extend_from_slice(&TAIL_MAGIC);
    bytes.extend_from_slice(&plan.segment.stored_bytes.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    (bytes, digest)
}

/// Opens a saved plan: what it says, its digest, and its rows. What it says is checked here; the
/// rows are checked as they are read, or all by [`verify_segment`](crate::verify_segment).
///
/// # Errors
/// Any of the frame's and of [`SegmentReader::open`]'s; `Length` if the pieces do not make up the
/// file; `ReadPlan`.
pub fn read_plan(
    reader: Arc<dyn ObjectReader>,
) -> Result<(PlanDescription, Digest, SegmentReader), FormatError> {
    let (offset, length) = read_tail(reader.as_ref())?;
    let mut bytes = vec![0; length];
    read_at(reader.as_ref(), offset, &mut bytes)?;
    let (wire, digest) = PLAN.decode::<WirePlan>(&bytes)?;
    let plan = PlanDescription::try_from(wire)?;
    let expected = plan.segment.stored_bytes;
    if expected != offset {
        return Err(FormatError::Length {
            structure: "plan segment",
            expected,
            found: offset,
        });
    }
    let identity = SegmentIdentity {
        repository: plan.repository,
        container: *plan.job.as_bytes(),
        number: 0,
    };
    let extent = Extent::First(offset);
    let segment = SegmentReader::open_extent(reader, extent, &identity, &plan.segment.root)?;
    Ok((plan, digest, segment))
}

/// Where the frame is, and how long: it lies between the segment and the tail.
fn read_tail(reader: &dyn ObjectReader) -> Result<(u64, usize), FormatError> {
    let structure = PLAN.structure;
    let found = reader.byte_count();
    let frame_least = FRAME_EDGES_BYTES as u64;
    let Some(tail_offset) = found.checked_sub(PLAN_TAIL_BYTES as u64) else {
        let expected = frame_least + PLAN_TAIL_BYTES as u64;
        return Err(FormatError::Length {
            structure,
            expected,
            found,
        });
    };
    let mut tail = [0; PLAN_TAIL_BYTES];
    read_at(reader, tail_offset, &mut tail)?;
    let (magic, places) = tail.split_at(TAIL_MAGIC.len());
    let (offset, length) = places.split_at(8);
    if magic != TAIL_MAGIC {
        return Err(FormatError::WrongMagic { structure });
    }
    let number = |bytes: &[u8]| {
        bytes
            .iter()
            .rev()
            .fold(0, |sum, &byte| sum << 8 | u64::from(byte))
    };
    let (offset, length) = (number(offset), number(length));
    let limit = (FRAME_EDGES_BYTES + FRAME_PAYLOAD_BYTES_MAX) as u64;
    let fits = offset.checked_add(length) == Some(tail_offset);
    match usize::try_from(length) {
        Ok(bytes) if fits && (frame_least..=limit).contains(&length) => Ok((offset, bytes)),
        _ => Err(FormatError::Length {
            structure,
            expected: offset.saturating_add(length),
            found,
        }),
    }
}

fn read_at(reader: &dyn ObjectReader, offset: u64, bytes: &mut [u8]) -> Result<(), FormatError> {
    let length = bytes.len() as u64;
    reader
        .read_exact_at(offset, bytes)
        .map_err(|source| FormatError::ReadPlan {
            offset,
            length,
            source,
        })
}
