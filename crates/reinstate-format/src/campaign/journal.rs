//! A record of a chain: some things that happened, in order.
//!
//! Its name follows from the digest of the record before it, so that nothing can follow twice, and
//! one that is missing, altered or in another place is not found or does not open.

use reinstate_core::{CampaignId, Digest, RepositoryId};
use wincode::{SchemaRead, SchemaWrite};

use super::entry::CampaignEntry;
use super::wire::WireEntry;
use crate::FormatError;
use crate::frame::FrameKind;

pub(crate) const CAMPAIGN_RECORD: FrameKind = FrameKind {
    magic: *b"RNSTCMPJ",
    version: 1,
    structure: "campaign journal",
};
/// First bytes of what the chain of a repository starts with the hash of.
pub(crate) const AUDIT_TAG: [u8; 8] = *b"RNSTAUDT";

/// What a chain belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CampaignChain {
    /// A campaign. It starts with the digest of the campaign's plan.
    Campaign {
        /// Which.
        campaign: CampaignId,
        /// The digest of its plan.
        plan: Digest,
    },
    /// The repository as a whole: what never became a campaign.
    Audit,
}

impl CampaignChain {
    /// The digest that the first record follows.
    #[must_use]
    pub fn root(&self, repository: RepositoryId) -> Digest {
        match self {
            Self::Campaign { plan, .. } => *plan,
            Self::Audit => {
                let mut bytes = AUDIT_TAG.to_vec();
                bytes.extend_from_slice(repository.as_bytes());
                crate::error::hash(&bytes)
            }
        }
    }

    fn id(&self, repository: RepositoryId) -> [u8; 16] {
        match self {
            Self::Campaign { campaign, .. } => *campaign.as_bytes(),
            Self::Audit => *repository.as_bytes(),
        }
    }
}

/// Some things that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CampaignRecord {
    /// Its place in the chain, from zero.
    pub number: u64,
    /// The digest of the record before it, or the root of the chain.
    pub previous: Digest,
    /// What happened, in order.
    pub entries: Vec<CampaignEntry>,
}

#[derive(Clone, Debug, PartialEq, SchemaRead, SchemaWrite)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
struct WireRecord {
    repository: [u8; 16],
    chain: [u8; 16],
    number: u64,
    previous: [u8; 32],
    entries: Vec<WireEntry>,
}

/// Writes a record; returns it with its digest, which the next one holds.
#[must_use]
pub fn encode_campaign_record(
    repository: RepositoryId,
    chain: &CampaignChain,
    record: &CampaignRecord,
) -> (Vec<u8>, Digest) {
    let wire = WireRecord {
        repository: *repository.as_bytes(),
        chain: chain.id(repository),
        number: record.number,
        previous: *record.previous.as_bytes(),
        entries: record.entries.iter().map(WireEntry::from).collect(),
    };
    CAMPAIGN_RECORD.encode(&wire)
}

/// Reads the record of this chain that has this number and follows this digest.
///
/// # Errors
/// Any of the frame's; `Foreign` if it is another one; `Malformed` if a value cannot be.
pub fn decode_campaign_record(
    bytes: &[u8],
    repository: RepositoryId,
    chain: &CampaignChain,
    (number, previous): (u64, Digest),
) -> Result<(CampaignRecord, Digest), FormatError> {
    let (wire, digest) = CAMPAIGN_RECORD.decode::<WireRecord>(bytes)?;
    let structure = CAMPAIGN_RECORD.structure;
    let found = (wire.repository, wire.chain, wire.number, wire.previous);
    let id = chain.id(repository);
    if found != (*repository.as_bytes(), id, number, *previous.as_bytes()) {
        return Err(FormatError::Foreign {
            structure,
            expected: format!("record {number} of {}", CampaignId::from_bytes(id)),
            found: format!(
                "record {} of {}, or after another one",
                wire.number,
                CampaignId::from_bytes(wire.chain)
            ),
        });
    }
    let entries = wire.entries.into_iter();
    let record = CampaignRecord {
        number,
        previous,
        entries: entries
            .map(|entry| entry.into_entry(structure))
            .collect::<Result<_, _>>()?,
    };
    Ok((record, digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::check_frame_against_bincode;

    #[test]
    fn the_layout_is_that_of_bincode() {
        let golden = include_bytes!("../../tests/golden/v1/campaign_record");
        check_frame_against_bincode::<WireRecord>(&CAMPAIGN_RECORD, golden);
    }
}
