//! Bringing what was built aside to the disk while it is read back.
//!
//! The switch is durable, and so is everything that was written before it: whoever switches waits for
//! all of that. Reading back needs nothing but the processor meanwhile, so a thread of its own makes a
//! durable commit of nothing first, in its turn, and leaves the switch little to write.
//!
//! *Crash consistency*: nobody sees what is brought to the disk before the switch, and it is recorded as
//! garbage. It is what the next commit of any other writer would have done.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use reinstate_core::StoreError;

use crate::EmbeddedStore;
use crate::error::During;

/// Bytes that the switch brings to the disk by itself: one more sync takes as long. More than that
/// are only left while nobody else writes.
const BYTES_MIN: usize = 4 * 1024 * 1024;

/// A commit under way on a thread of its own, which ends before this does.
pub(super) struct Flush(Option<JoinHandle<Result<(), StoreError>>>);

impl Flush {
    /// Begins it, if much is not on the disk yet.
    pub(super) fn begin(store: &EmbeddedStore) -> Self {
        if store.backlog.bytes() < BYTES_MIN {
            return Self(None);
        }
        let (database, gate) = (Arc::clone(&store.database), Arc::clone(&store.gate));
        let backlog = Arc::clone(&store.backlog);
        let flush = move || {
            let operation = "bring restored rows to the disk";
            let _turn = gate.enter();
            if backlog.bytes() < BYTES_MIN {
                // Somebody else's commit did.
                return Ok(());
            }
            let transaction = database.begin_write().during(operation)?;
            transaction.commit().during(operation)?;
            backlog.committed();
            Ok(())
        };
        // Without a thread the switch does it.
        Self(Builder::new().spawn(flush).ok())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// As the file's storage reported it.
    pub(super) fn wait(mut self) -> Result<(), StoreError> {
        match self.0.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(flushed)) => flushed,
            Some(Err(panic)) => resume_unwind(panic),
        }
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // The merge is given up: what became of the rows matters to nobody.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use redb::StorageBackend;
    use redb::backends::InMemoryBackend;
    use reinstate_core::{Digest, JobId, JournalEntry, LiveStore, TenantId, TenantWriter};

    use super::*;
    use crate::testing::{Create, store, store_on};

    /// Nine megabytes: not so many that building them brings any to the disk.
    const ROWS: u64 = 30_000;

    fn tenant() -> TenantId {
        TenantId::try_new("a").unwrap()
    }

    fn built(store: &EmbeddedStore, rows: u64) -> Box<dyn TenantWriter + '_> {
        let fingerprint = store.read_view().unwrap().fingerprint(&tenant()).unwrap();
        let mut writer = store
            .begin_merge(&tenant(), &fingerprint, store.schema())
            .unwrap();
        writer.apply(&Create(rows)).unwrap();
        writer
    }

    /// Storage that can be told to bring nothing to the disk any more.
    #[derive(Debug)]
    struct Failing {
        inner: InMemoryBackend,
        fails: Arc<AtomicBool>,
    }

    impl StorageBackend for Failing {
        fn len(&self) -> io::Result<u64> {
            self.inner.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.inner.read(offset, out)
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            self.inner.set_len(length)
        }

        fn sync_data(&self) -> io::Result<()> {
            match self.fails.load(Ordering::SeqCst) {
                true => Err(io::Error::other("the disk is gone")),
                false => self.inner.sync_data(),
            }
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.inner.write(offset, data)
        }
    }

    #[test]
    fn much_is_on_the_disk_before_the_switch_and_little_is_left_to_it() {
        let store = store();
        // The end of a writer waits for the commit on the other thread.
        drop(built(&store, ROWS));
        assert_eq!(store.backlog.bytes(), 0);
        drop(built(&store, ROWS / 5));
        assert!(store.backlog.bytes() > 0);
    }

    #[test]
    fn nothing_is_committed_if_bringing_it_to_the_disk_goes_wrong() {
        let fails = Arc::new(AtomicBool::new(false));
        let store = store_on(Failing {
            inner: InMemoryBackend::new(),
            fails: Arc::clone(&fails),
        });
        // The file grows, which is brought to the disk, and has room after that.
        drop(built(&store, ROWS));
        store.probe().unwrap();
        store.probe().unwrap();
        fails.store(true, Ordering::SeqCst);
        let writer = built(&store, ROWS);
        let entry = JournalEntry {
            job: JobId::from_bytes([1; 16]),
            tenant: tenant(),
            plan: Digest::from_bytes([1; 32]),
            payload: Vec::new(),
        };
        let error = writer.commit(&entry).unwrap_err().to_string();
        assert!(error.contains("bring restored rows to the disk"), "{error}");
    }
}
