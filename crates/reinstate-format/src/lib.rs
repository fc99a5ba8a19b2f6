//! Every byte that reinstate persists: blocks, segments, manifests, plans and receipts.
//!
//! Bytes in, values out. Bytes are hostile: every length is compared with a named limit before it
//! allocates, and what is corrupt is an error that names the object, the place and the owner.
//! `docs/format/` describes every structure byte by byte.
//!
//! **Invariant:** nothing here opens a file, starts a thread or reads a clock. Segments and plans
//! are read through core's `ObjectReader`.

mod campaign;
mod codec;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod documentation;
mod error;
mod frame;
mod job;
mod journal;
mod log;
mod manifest;
mod plan;
mod receipt;
mod repository;
mod schema;
mod segment;
mod wire;

pub use campaign::{
    BatchPlan, CampaignAction, CampaignBatch, CampaignChain, CampaignCheck, CampaignDescription,
    CampaignEntry, CampaignGate, CampaignLink, CampaignMode, CampaignPart, CampaignRecord,
    CampaignStep, CampaignStore, CampaignTenant, EntryKind, decode_campaign,
    decode_campaign_record, encode_campaign, encode_campaign_record,
};
pub use error::{BlockError, BlockFault, FormatError};
pub use frame::{FRAME_DIGEST_BYTES, FRAME_HEADER_BYTES, FRAME_PAYLOAD_BYTES_MAX};
pub use job::{JobDescription, decode_job, encode_job};
pub use journal::{JournalPayload, decode_journal_payload, encode_journal_payload};
pub use log::{
    CHANGE_PLACE_BYTES, ChangeKind, FamilyMove, LOG_COMMITS_MAX, LOG_PACK_RECORDS_MAX, LogBase,
    LogRunDescription, LogRunExtent, LogVersionDescription, LoggedChange, LoggedCommit, Truncation,
    decode_commits, decode_log_base, decode_log_origin, decode_log_pack, decode_log_run,
    decode_log_version, encode_commits, encode_log_base, encode_log_origin, encode_log_pack,
    encode_log_run, encode_log_version, is_log_version, link_name, log_run_identity,
    log_run_previous, log_version_place, open_log_run, push_change, record_digest,
};
pub use manifest::{decode_snapshot, encode_snapshot, segments_digest};
pub use plan::{
    CONFLICTS_MAX, Conflict, LAST_CHANGE_BYTES, LastChange, NoteKind, PLAN_TAIL_BYTES,
    PlanDescription, PlanNote, PlanSegment, TablePlan, TenantPlanDescription, encode_plan_end,
    push_last_change, read_plan,
};
pub use receipt::{ReceiptDescription, decode_receipt, encode_receipt};
pub use repository::{RepositoryHeader, decode_repository_header, encode_repository_header};
pub use schema::schema_digest;
pub use segment::{
    BLOCK_PLAIN_BYTES_MAX, BLOCK_PLAIN_BYTES_TARGET, BlockDescriptor, BlockLayout, BlockOpener,
    BlockSealer, COLUMNS_PLAIN_BYTES_MAX, COLUMNS_PLAIN_BYTES_TARGET, DICTIONARY_BYTES_MAX,
    DICTIONARY_PLAIN_BYTES_LIMIT, Dictionary, IndexBuilder, PAGE_BYTES_MAX, PAGE_BYTES_TARGET,
    PART_BLOCKS_MAX, RunEntry, RunKey, Runs, SEGMENT_HEADER_BYTES, SEGMENT_TRAILER_BYTES,
    SEGMENT_VERSION, SealedBlock, SegmentEnd, SegmentIdentity, SegmentReader, segment_header,
    train_dictionary, verify_layout, verify_run, verify_segment,
};
