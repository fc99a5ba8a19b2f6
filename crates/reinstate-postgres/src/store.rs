//! The store itself.

use std::fmt;
use std::sync::Arc;

use reinstate_core::{
    CaptureView, Committed, ErrorKind, Fingerprint, JobId, JournalEntry, LiveStore, LiveView,
    Position, PositionNotation, SnapshotSource, StoreError, StoreId, StoreIdentity, StoreSchema,
    TenantFence, TenantId, TenantKind, TenantWriter,
};

use crate::capture::PostgresCapture;
use crate::catalog::get;
use crate::connections::Connections;
use crate::feed::{timeline, timeline_end};
use crate::guard::is_fence_installed;
use crate::journal;
use crate::lease;
use crate::merge::{MergeSession, PostgresFence, PostgresWriter};
use crate::session::Session;
use crate::settings::ConnectionSettings;
use crate::tenancy::TenancyMap;
use crate::view::PostgresView;

/// The oldest server that is supported, as it numbers itself.
const VERSION_MIN: i32 = 150_000;

/// A PostgreSQL database that is captured from and restored into.
///
/// Each view, capture and writer has a connection of its own. What read only leaves its connection
/// to the next: up to two are kept open until the last clone of the store is dropped.
#[derive(Clone)]
pub struct PostgresStore {
    connections: Arc<Connections>,
    pub(crate) map: TenancyMap,
    id: StoreId,
}

impl PostgresStore {
    /// Connects once, to learn which database this is.
    ///
    /// # Errors
    /// `Unavailable` if the server does not answer; `Refused` if it does not let the role in or
    /// is older than PostgreSQL 15; `Usage` if the URL is malformed.
    pub fn connect(settings: ConnectionSettings, map: TenancyMap) -> Result<Self, StoreError> {
        let session = Session::connect(&settings)?;
        let sql = "SELECT current_setting('server_version_num')::int4,
                          (SELECT system_identifier FROM pg_control_system()),
                          (SELECT oid FROM pg_database WHERE datname = current_database())";
        let row = session.row("identify the database", sql, &[])?;
        let version: i32 = get(&row, 0)?;
        if version < VERSION_MIN {
            let message = format!(
                "store {}: PostgreSQL {} is too old: 15 or newer is needed",
                settings.name,
                version / 10_000
            );
            return Err(StoreError::new(ErrorKind::Refused, message));
        }
        let (system, database): (i64, u32) = (get(&row, 1)?, get(&row, 2)?);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&system.to_be_bytes());
        id[12..].copy_from_slice(&database.to_be_bytes());
        Ok(Self {
            connections: Arc::new(Connections::new(settings)),
            map,
            id: StoreId::from_bytes(id),
        })
    }
}

impl PostgresStore {
    /// How the database is reached.
    pub(crate) fn settings(&self) -> &ConnectionSettings {
        self.connections.settings()
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("PostgresStore")
            .field("name", &self.settings().name)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl SnapshotSource for PostgresStore {
    fn begin_capture(&self) -> Result<Box<dyn CaptureView + '_>, StoreError> {
        Ok(Box::new(PostgresCapture::open(self.settings(), &self.map)?))
    }
}

impl LiveStore for PostgresStore {
    fn identity(&self) -> StoreIdentity {
        StoreIdentity {
            id: self.id,
            name: self.settings().name.clone(),
        }
    }

    fn tenant_kind(&self) -> &TenantKind {
        &self.map.kind
    }

    fn notation(&self) -> PositionNotation {
        PositionNotation::Lsn
    }

    fn timeline(&self) -> Result<Option<u32>, StoreError> {
        timeline(&Session::connect(self.settings())?)
    }

    fn timeline_end(&self, earlier: u32) -> Result<Option<Position>, StoreError> {
        timeline_end(self, &Session::connect(self.settings())?, earlier)
    }

    fn prepare(&self) -> Result<(), StoreError> {
        // Nearly always it is there, which is seen without another connection.
        if journal::is_prepared(&*self.connections.reader()?)? {
            return Ok(());
        }
        journal::prepare(&Session::connect(self.settings())?)
    }

    fn read_view(&self) -> Result<Box<dyn LiveView + '_>, StoreError> {
        let view = PostgresView::open(&self.connections, &self.map, None)?;
        Ok(Box::new(view))
    }

    fn read_view_of(&self, tenant: &TenantId) -> Result<Box<dyn LiveView + '_>, StoreError> {
        let view = PostgresView::open(&self.connections, &self.map, Some(tenant))?;
        Ok(Box::new(view))
    }

    fn begin_merge(
        &self,
        tenant: &TenantId,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError> {
        let session = MergeSession::Own(Box::new(self.connections.make_room(lease::session)?));
        let (connections, map) = (&self.connections, &self.map);
        let writer = PostgresWriter::open(session, connections, map, tenant, expected, schema)?;
        Ok(Box::new(writer))
    }

    /// Where [`install_fence`](PostgresStore::install_fence) put it up on any table. One connection for
    /// each.
    fn fence(&self, tenant: &TenantId) -> Result<Option<Box<dyn TenantFence + '_>>, StoreError> {
        if !is_fence_installed(&*self.connections.reader()?)? {
            return Ok(None);
        }
        let fence = PostgresFence::raise(&self.connections, &self.map, tenant)?;
        Ok(Some(Box::new(fence)))
    }

    fn journal_entry(
        &self,
        job: JobId,
        tenant: &TenantId,
    ) -> Result<Option<JournalEntry>, StoreError> {
        journal::read(&*self.connections.reader()?, job, &self.map.kind, tenant)
    }

    fn committed(&self, job: JobId, tenant: &TenantId) -> Result<Option<Committed>, StoreError> {
        journal::committed(&*self.connections.reader()?, job, tenant)
    }

    fn foreign_rows_written(
        &self,
        tenant: &TenantId,
        commit_mark: &[u8],
    ) -> Result<u64, StoreError> {
        crate::merge::count_foreign_rows(&self.connections, &self.map, tenant, commit_mark)
    }

    fn merges_at_once(&self) -> usize {
        self.settings().merges_at_once.get()
    }

    /// A commit that changes nothing and still has to reach the disk.
    fn probe(&self) -> Result<(), StoreError> {
        let sql = "SELECT pg_logical_emit_message(true, 'reinstate', '')::text";
        let session = self.connections.reader()?;
        session.row("probe the database", sql, &[]).map(drop)
    }
}
