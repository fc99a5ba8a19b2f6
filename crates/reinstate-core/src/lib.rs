//! Values and ports of reinstate.
//!
//! This crate says what a tenant, a table, a row, a snapshot and a live store *are*. It holds no
//! I/O, no threads and no clock, so that everything above it can be tested against a store that
//! lives in memory.
//!
//! **Invariant:** nothing here opens a file, reads the time or starts a thread.

mod change;
mod clock;
mod copying;
mod digest;
mod error;
mod feed;
mod finding;
mod fit;
mod id;
mod keeping;
mod key;
mod manner;
mod observer;
mod owner;
mod port;
mod position;
mod row;
mod schema;
mod snapshot;
mod varint;
mod writer;

pub use change::{ChangeCounts, ConflictPolicy, Policy, RowRole, Switch};
pub use clock::Clock;
pub use copying::{UniqueKey, ValueKind};
pub use digest::{ContentDigest, Digest};
pub use error::{ErrorKind, RepositoryError, StoreError};
pub use feed::{
    Change, ChangeByKey, ChangeFeed, ChangeSink, Commit, FeedHealth, FeedProgress, FeedRow,
    FeedSource, FeedTables, FollowCost, OldRows,
};
pub use finding::{Hindrance, Lead, OtherRelations, SharedCreation, SideEffect, StrayReference};
pub use fit::{Filling, Fit};
pub use id::{CampaignId, JobId, ObjectId, ParseIdError, RepositoryId, SnapshotId, StoreId};
pub use keeping::{ObjectReader, ObjectWriter, Repository};
pub use key::{KeyForm, KeyPart, KeyWriter};
pub use manner::{QuestionCost, RowOrder};
pub use observer::{Cancellation, Event, Observer, Phase, Silent};
pub use owner::{Owner, ParseTenantError, TENANT_ID_BYTES_MAX, Tenant, TenantId, TenantKind};
pub use port::{
    CaptureView, Fingerprint, HeldKey, LiveStore, LiveView, OwnHold, OwnedRowStream, RowStream,
    SnapshotSource, TenantFence,
};
pub use position::{Position, PositionNotation, Timestamp};
pub use row::{
    OwnedRowBatch, ROW_BYTES_MAX, RowBatch, RowBuilder, RowError, RowRef, Values, compare_rows,
};
pub use schema::{
    ColumnIndex, ColumnOrigin, ColumnSchema, Reference, Route, RouteCondition, SchemaChange,
    SchemaChangeError, SchemaError, StoreSchema, TableIndex, TableName, TableOrigin, TableSchema,
    Tenancy,
};
pub use snapshot::{
    Encryption, SegmentDescription, SequenceValue, SnapshotDescription, StoreIdentity, TableTotals,
};
pub use varint::{read_varint, write_varint};
pub use writer::{ChangeSource, Committed, JournalEntry, SequenceRaise, TenantWriter};
