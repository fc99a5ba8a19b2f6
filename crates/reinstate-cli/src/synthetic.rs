//! Making synthetic stores: in a file of the embedded database, with progress.

use std::path::Path;

use reinstate_core::{
    Cancellation, CaptureView, Event, Observer, OwnedRowBatch, OwnedRowStream, Phase, Position,
    SequenceValue, SnapshotSource, StoreError, StoreId, StoreIdentity, StoreSchema, TableIndex,
    Timestamp,
};
use reinstate_embedded::{EmbeddedOptions, EmbeddedStore};
use reinstate_synthetic::SyntheticStore;

use crate::session::random;

/// Makes a new file of the embedded database that holds the synthetic store.
///
/// # Errors
/// Usage if the file exists; otherwise as the store reports it. The file is then gone again.
pub fn create_embedded(
    path: &Path,
    name: &str,
    synthetic: &SyntheticStore,
    cache_bytes: usize,
    observer: &dyn Observer,
    cancellation: &Cancellation,
) -> anyhow::Result<EmbeddedStore> {
    let mut options = EmbeddedOptions::default();
    options.cache_bytes = cache_bytes;
    let identity = StoreIdentity {
        id: StoreId::from_bytes(random()?),
        name: name.to_owned(),
    };
    let schema = synthetic.schema().clone();
    let store = EmbeddedStore::create(path, &options, identity, synthetic.tenant_kind(), schema)?;
    let view = synthetic.begin_capture()?;
    let spec = synthetic.spec();
    observer.observe(Event::Started {
        phase: Phase::Write,
        tenant: None,
        rows_expected: Some(spec.row_count),
    });
    let watched = Watched {
        view: view.as_ref(),
        observer,
        cancellation,
    };
    if let Err(error) = store.load(&watched) {
        // Half a store is of no use to anybody, and only this function knows of it.
        drop(store);
        std::fs::remove_file(path)?;
        return Err(error.into());
    }
    observer.observe(Event::Finished {
        phase: Phase::Write,
        tenant: None,
    });
    Ok(store)
}

/// A view that tells an observer how far its reader has come, and stops when it is asked to.
struct Watched<'v> {
    view: &'v dyn CaptureView,
    observer: &'v dyn Observer,
    cancellation: &'v Cancellation,
}

impl CaptureView for Watched<'_> {
    fn schema(&self) -> &StoreSchema {
        self.view.schema()
    }

    fn position(&self) -> Position {
        self.view.position()
    }

    fn taken_at(&self) -> Option<Timestamp> {
        self.view.taken_at()
    }

    fn sequences(&self) -> &[SequenceValue] {
        self.view.sequences()
    }

    fn lanes(&self) -> usize {
        self.view.lanes()
    }

    fn table_rows(&self, table: TableIndex) -> Result<Box<dyn OwnedRowStream + '_>, StoreError> {
        Ok(Box::new(WatchedRows {
            rows: self.view.table_rows(table)?,
            observer: self.observer,
            cancellation: self.cancellation,
        }))
    }
}

struct WatchedRows<'v> {
    rows: Box<dyn OwnedRowStream + 'v>,
    observer: &'v dyn Observer,
    cancellation: &'v Cancellation,
}

impl OwnedRowStream for WatchedRows<'_> {
    fn next_batch(&mut self, batch: &mut OwnedRowBatch) -> Result<bool, StoreError> {
        self.cancellation.check()?;
        let more = self.rows.next_batch(batch)?;
        self.observer.observe(Event::Advanced {
            phase: Phase::Write,
            rows: batch.len() as u64,
            bytes: batch.byte_count() as u64,
        });
        Ok(more)
    }
}
