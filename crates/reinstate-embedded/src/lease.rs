//! Who may write to a tenant: the lease of a merge, and the fence before its users' writes.
//!
//! One process has a store's file open at a time, and keeps it until it ends, however it does. So a
//! lease is a matter between threads: one that hangs is taken over by [`EmbeddedStore::take_over`], and
//! finds out inside its next transaction, wherever it goes on. Each lease has a number of its own, and
//! a merge commits only while its number is the tenant's.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reinstate_core::{ErrorKind, StoreError, TenantId};

use crate::EmbeddedStore;

/// The leases and fences of a store.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// How many leases there were.
    taken: u64,
    /// By tenant, the number of the lease that counts.
    held: HashMap<Vec<u8>, u64>,
    /// Tenants that were taken over from a merge which may be in the middle of a transaction.
    revoked: HashSet<Vec<u8>>,
    /// By tenant, how many fences there are.
    fenced: HashMap<Vec<u8>, usize>,
}

/// That no other merge of this process may write to the tenant.
#[derive(Debug)]
pub(crate) struct Lease<'s> {
    leases: &'s Leases,
    tenant: TenantId,
    number: u64,
}

/// While it lives, the application cannot write to a tenant. See [`EmbeddedStore::fence`].
#[derive(Debug)]
#[must_use = "the fence falls when it is dropped"]
pub struct Fence<'s> {
    leases: &'s Leases,
    tenant: Vec<u8>,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is whole at once, so a panic elsewhere leaves it usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the application may not write to this tenant at present.
    pub(crate) fn is_fenced(&self, owner: &[u8]) -> bool {
        self.lock().fenced.contains_key(owner)
    }
}

impl EmbeddedStore {
    /// Takes a tenant away from the merge that has it, in whatever thread: that one can write and commit
    /// nothing from now on, and another can begin. Whether there was one.
    ///
    /// Waits for a commit of that merge that is under way; its journal entry says that it happened.
    /// A merge that hangs in the middle of a transaction goes on keeping every other writer of the store
    /// waiting: only ending the process helps against that.
    pub fn take_over(&self, tenant: &TenantId) -> bool {
        let mut state = self.leases.lock();
        let had = state.held.remove(tenant.as_bytes()).is_some();
        if had {
            state.revoked.insert(tenant.as_bytes().to_vec());
        }
        had
    }

    /// Keeps the application from writing to a tenant until the fence is dropped: what it tries to write is
    /// refused as `Locked`, since a writer that waited would keep everybody else waiting. Merges are not
    /// refused. Waits for the transaction that is under way, so that none is left which wrote to the tenant
    /// before.
    ///
    /// Put up before the plan is made and dropped after the result is verified, it lets nobody come in
    /// between: the plan cannot become stale, and the verdict is about the restore alone. Must not be
    /// called from inside [`write`](Self::write).
    pub fn fence(&self, tenant: &TenantId) -> Fence<'_> {
        let _turn = self.gate.enter();
        let tenant = tenant.as_bytes().to_vec();
        *self.leases.lock().fenced.entry(tenant.clone()).or_default() += 1;
        Fence {
            leases: &self.leases,
            tenant,
        }
    }
}

impl Drop for Fence<'_> {
    fn drop(&mut self) {
        let mut state = self.leases.lock();
        if let Some(count) = state.fenced.get_mut(&self.tenant) {
            *count -= 1;
            if *count == 0 {
                state.fenced.remove(&self.tenant);
            }
        }
    }
}

impl<'s> Lease<'s> {
    /// Takes the lease on a tenant.
    ///
    /// # Errors
    /// `Locked` if another merge has it.
    pub(crate) fn take(store: &'s EmbeddedStore, tenant: &TenantId) -> Result<Self, StoreError> {
        let leases = &store.leases;
        let mut state = leases.lock();
        if state.held.contains_key(tenant.as_bytes()) {
            let message = format!("another merge has tenant {tenant}: wait for it to end");
            return Err(StoreError::new(ErrorKind::Locked, message));
        }
        state.taken += 1;
        let number = state.taken;
        state.held.insert(tenant.as_bytes().to_vec(), number);
        let was_revoked = state.revoked.remove(tenant.as_bytes());
        drop(state);
        if was_revoked {
            // What the one before it was writing aside when it lost the tenant is recorded after this.
            drop(store.gate.enter());
        }
        Ok(Self {
            leases,
            tenant: tenant.clone(),
            number,
        })
    }

    fn counts(&self, state: &State) -> bool {
        state.held.get(self.tenant.as_bytes()) == Some(&self.number)
    }

    /// Whether nobody took the tenant over.
    pub(crate) fn is_held(&self) -> bool {
        self.counts(&self.leases.lock())
    }

    /// Makes sure that nobody took the tenant over. Called inside of each transaction.
    ///
    /// # Errors
    /// `Locked` if somebody did.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.hold().map(drop)
    }

    /// The same, and nobody can until the result is dropped.
    ///
    /// # Errors
    /// `Locked` if somebody did.
    pub(crate) fn hold(&self) -> Result<Held<'s>, StoreError> {
        let state = self.leases.lock();
        if self.counts(&state) {
            return Ok(Held { _state: state });
        }
        let tenant = &self.tenant;
        let message = format!(
            "tenant {tenant} was taken over from this merge: it can write nothing any more, and did \
             not commit"
        );
        Err(StoreError::new(ErrorKind::Locked, message))
    }
}

/// As long as it lives, no lease changes hands.
pub(crate) struct Held<'s> {
    _state: MutexGuard<'s, State>,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut state = self.leases.lock();
        if self.counts(&state) {
            state.held.remove(self.tenant.as_bytes());
        }
    }
}
