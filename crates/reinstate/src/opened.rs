//! Segments of snapshots and runs of logs that are open, each opened once however many tenants are
//! read from it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use reinstate_core::{ObjectId, Repository, SegmentDescription, SnapshotDescription};
use reinstate_format::{SegmentIdentity, SegmentReader, log_run_identity};

use crate::Error;
use crate::capture::segment_identity;
use crate::catalogue::open_segment;
use crate::log::LogRun;

/// What is open of one repository. Used from several threads at once.
pub(crate) struct Opened<'r> {
    repository: &'r dyn Repository,
    /// By what they were opened as, too: an object that is named in the place of another is not what was
    /// opened, and has to be found out.
    readers: Mutex<HashMap<(ObjectId, SegmentIdentity), Arc<SegmentReader>>>,
}

impl<'r> Opened<'r> {
    /// Nothing of it, so far.
    pub(crate) fn of(repository: &'r dyn Repository) -> Self {
        Self {
            repository,
            readers: Mutex::default(),
        }
    }

    /// A handle on a segment of a snapshot.
    ///
    /// # Errors
    /// As [`open_segment`].
    pub(crate) fn segment(
        &self,
        snapshot: &SnapshotDescription,
        segment: &SegmentDescription,
    ) -> Result<Arc<SegmentReader>, Error> {
        let identity = segment_identity(self.repository, snapshot, segment.number);
        self.handle((segment.object, identity), || {
            open_segment(self.repository, snapshot, segment)
        })
    }

    /// A handle on the changes of a run of a log.
    ///
    /// # Errors
    /// As [`LogRun::open`].
    pub(crate) fn run(&self, run: &LogRun) -> Result<Arc<SegmentReader>, Error> {
        let identity = log_run_identity(self.repository.id(), &run.description.previous);
        let place = (run.changes_object(), identity);
        self.handle(place, || run.open(self.repository))
    }

    /// The first handle is the reader itself, which counts what opening it took; the others count
    /// what is read through them.
    fn handle(
        &self,
        place: (ObjectId, SegmentIdentity),
        open: impl FnOnce() -> Result<Arc<SegmentReader>, Error>,
    ) -> Result<Arc<SegmentReader>, Error> {
        // Whole entries are inserted, so that a panic elsewhere leaves nothing half-done. Held while a
        // segment is opened, so that nobody else opens it as well.
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        match readers.entry(place) {
            Entry::Occupied(reader) => Ok(Arc::new(reader.get().sibling())),
            Entry::Vacant(vacant) => Ok(Arc::clone(vacant.insert(open()?))),
        }
    }
}
