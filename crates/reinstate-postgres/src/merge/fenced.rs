//! A tenant behind its fence, and the session that a merge has.
//!
//! The fence belongs to a session, not to a transaction: it is up before the merge begins, and still
//! there when it has committed, until what it left is verified. The merge runs in that same session. So
//! the server ends both together when their client is gone or says nothing for too long, and whoever
//! takes the tenant over ends both.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use reinstate_core::{Fingerprint, StoreError, StoreSchema, TenantFence, TenantId, TenantWriter};

use super::PostgresWriter;
use crate::connections::Connections;
use crate::lease;
use crate::session::Session;
use crate::tenancy::TenancyMap;

/// One tenant whose users wait, until this is dropped.
pub(crate) struct PostgresFence<'s> {
    session: Session,
    connections: &'s Arc<Connections>,
    map: &'s TenancyMap,
    tenant: TenantId,
}

impl<'s> PostgresFence<'s> {
    /// Puts the fence up, once no transaction is open that wrote to the tenant.
    ///
    /// # Errors
    /// `Locked` if another run holds the tenant; `Contended` if such a transaction does not end within
    /// the lock timeout.
    pub(crate) fn raise(
        connections: &'s Arc<Connections>,
        map: &'s TenancyMap,
        tenant: &TenantId,
    ) -> Result<Self, StoreError> {
        let session = connections.make_room(lease::session)?;
        lease::raise_fence(&session, &map.kind, tenant)?;
        Ok(Self {
            session,
            connections,
            map,
            tenant: tenant.clone(),
        })
    }
}

impl TenantFence for PostgresFence<'_> {
    fn begin_merge(
        &mut self,
        expected: &Fingerprint,
        schema: &StoreSchema,
    ) -> Result<Box<dyn TenantWriter + '_>, StoreError> {
        let session = MergeSession::Fenced(&mut self.session);
        let (connections, map, tenant) = (self.connections, self.map, &self.tenant);
        let writer = PostgresWriter::open(session, connections, map, tenant, expected, schema)?;
        Ok(Box::new(writer))
    }
}

impl Drop for PostgresFence<'_> {
    fn drop(&mut self) {
        self.session.unlock();
    }
}

impl fmt::Debug for PostgresFence<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = formatter.debug_struct("PostgresFence");
        text.field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// The session of a merge.
pub(crate) enum MergeSession<'s> {
    /// Its own; its locks go with it.
    Own(Box<Session>),
    /// That of a fence, which stays up.
    Fenced(&'s mut Session),
}

impl MergeSession<'_> {
    /// Takes the lease on a tenant, and its fence where that is not up.
    ///
    /// # Errors
    /// As [`PostgresFence::raise`].
    pub(super) fn take(&self, map: &TenancyMap, tenant: &TenantId) -> Result<(), StoreError> {
        lease::take(self, &map.kind, tenant)?;
        if let Self::Own(session) = self {
            lease::raise_fence(session, &map.kind, tenant).inspect_err(|_| session.unlock())?;
        }
        Ok(())
    }

    /// Lets go of what [`take`](Self::take) took. A fence stays up, and its session may have another merge.
    pub(super) fn let_go(&self, tenant: &TenantId) {
        match self {
            Self::Own(session) => session.unlock(),
            Self::Fenced(session) => lease::let_go(session, tenant),
        }
    }
}

impl Deref for MergeSession<'_> {
    type Target = Session;

    fn deref(&self) -> &Session {
        match self {
            Self::Own(session) => session,
            Self::Fenced(session) => session,
        }
    }
}
