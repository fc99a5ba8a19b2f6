//! Storage in memory that outlives its store, writes down what is done to it, and fails on demand.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

/// Clones are the same storage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    bytes: Vec<u8>,
    log: Vec<Operation>,
    is_logged: bool,
    done: u64,
    fails_at: Option<u64>,
}

/// Something that changes what a later process finds.
#[derive(Clone, Debug)]
enum Operation {
    Write(usize, Vec<u8>),
    SetLength(usize),
    Sync,
}

impl Operation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => bytes[*offset..*offset + data.len()].copy_from_slice(data),
            Self::SetLength(length) => bytes.resize(*length, 0),
            Self::Sync => {}
        }
    }
}

impl Disk {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap()
    }

    fn with(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        disk.contents().bytes = bytes;
        disk
    }

    /// Another disk with the same bytes.
    pub(crate) fn copy(&self) -> Self {
        Self::with(self.contents().bytes.clone())
    }

    /// Runs `work` on a copy; returns what a process finds if the one at work is killed after its
    /// first operation, its second, and so on.
    pub(crate) fn states_during(&self, work: impl FnOnce(Self)) -> impl Iterator<Item = Self> {
        let copy = self.copy();
        copy.contents().is_logged = true;
        work(copy.clone());
        let log = std::mem::take(&mut copy.contents().log);
        let mut bytes = self.contents().bytes.clone();
        log.into_iter().map(move |operation| {
            operation.apply(&mut bytes);
            Self::with(bytes.clone())
        })
    }

    /// How many operations were written down.
    pub(crate) fn logged(&self) -> usize {
        self.contents().log.len()
    }

    /// From this many operations on, there is no more room.
    pub(crate) fn fail_at(&self, operation: Option<u64>) {
        let mut contents = self.contents();
        contents.done = 0;
        contents.fails_at = operation;
    }

    fn change(&self, operation: Operation) -> io::Result<()> {
        let mut contents = self.contents();
        contents.done += 1;
        let done = contents.done;
        if contents.fails_at.is_some_and(|limit| done > limit) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        operation.apply(&mut contents.bytes);
        if contents.is_logged {
            contents.log.push(operation);
        }
        Ok(())
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.contents().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        let contents = self.contents();
        let found = contents.bytes.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.change(Operation::SetLength(usize::try_from(length).unwrap()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.change(Operation::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).unwrap();
        self.change(Operation::Write(offset, data.to_vec()))
    }
}
