//! A repository in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reinstate_core::{
    ErrorKind, ObjectId, ObjectReader, ObjectWriter, Repository, RepositoryError, RepositoryId,
};

type Records = BTreeMap<(String, [u8; 16]), Vec<u8>>;

/// A repository that lives as long as it is held.
#[derive(Debug)]
pub struct MemoryRepository {
    id: RepositoryId,
    shelves: Mutex<Shelves>,
}

#[derive(Clone, Debug, Default)]
struct Shelves {
    objects: BTreeMap<ObjectId, Arc<[u8]>>,
    objects_made: u64,
    records: Records,
}

impl MemoryRepository {
    /// An empty repository of this id.
    #[must_use]
    pub fn new(id: RepositoryId) -> Self {
        Self {
            id,
            shelves: Mutex::new(Shelves::default()),
        }
    }

    /// Changes a sealed object's bytes, as a failing disk would. `false` if there is none.
    pub fn tamper_object(&self, object: ObjectId, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut shelves = self.lock();
        let Some(bytes) = shelves.objects.get_mut(&object) else {
            return false;
        };
        let mut changed = bytes.to_vec();
        change(&mut changed);
        *bytes = changed.into();
        true
    }

    /// Takes a sealed object away. `false` if there is none.
    pub fn remove_object(&self, object: ObjectId) -> bool {
        self.lock().objects.remove(&object).is_some()
    }

    /// Changes a record's bytes. `false` if there is none.
    pub fn tamper_record(
        &self,
        kind: &str,
        name: [u8; 16],
        change: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let mut shelves = self.lock();
        let record = shelves.records.get_mut(&(kind.to_owned(), name));
        record.map(change).is_some()
    }

    /// Takes a record away. `false` if there is none.
    pub fn remove_record(&self, kind: &str, name: [u8; 16]) -> bool {
        let mut shelves = self.lock();
        shelves.records.remove(&(kind.to_owned(), name)).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clone for MemoryRepository {
    /// Another repository of the same id that holds the same things.
    fn clone(&self) -> Self {
        Self {
            id: self.id,
            shelves: Mutex::new(self.lock().clone()),
        }
    }
}

impl Default for MemoryRepository {
    fn default() -> Self {
        Self::new(RepositoryId::from_bytes(*b"memory repo no 1"))
    }
}

impl Repository for MemoryRepository {
    fn id(&self) -> RepositoryId {
        self.id
    }

    fn create_object(&self) -> Result<Box<dyn ObjectWriter + '_>, RepositoryError> {
        Ok(Box::new(MemoryObjectWriter {
            repository: self,
            bytes: Vec::new(),
        }))
    }

    fn open_object(&self, object: ObjectId) -> Result<Box<dyn ObjectReader>, RepositoryError> {
        let bytes = self.lock().objects.get(&object).map(Arc::clone);
        match bytes {
            Some(bytes) => Ok(Box::new(MemoryObject { object, bytes })),
            None => {
                let message = format!("open object {object}: there is none");
                Err(RepositoryError::new(ErrorKind::NotFound, message))
            }
        }
    }

    fn list_objects(&self) -> Result<Vec<ObjectId>, RepositoryError> {
        Ok(self.lock().objects.keys().copied().collect())
    }

    fn publish(&self, kind: &str, name: [u8; 16], bytes: &[u8]) -> Result<(), RepositoryError> {
        let mut shelves = self.lock();
        let record = shelves.records.entry((kind.to_owned(), name));
        let record = record.or_insert_with(|| bytes.to_vec());
        if record == bytes {
            Ok(())
        } else {
            let message = format!("publish {kind}: another record has that name");
            Err(RepositoryError::new(ErrorKind::Conflict, message))
        }
    }

    fn read(&self, kind: &str, name: [u8; 16]) -> Result<Vec<u8>, RepositoryError> {
        let shelves = self.lock();
        let record = shelves.records.get(&(kind.to_owned(), name)).cloned();
        record.ok_or_else(|| {
            let message = format!("read {kind}: there is no such record");
            RepositoryError::new(ErrorKind::NotFound, message)
        })
    }

    fn list(&self, kind: &str) -> Result<Vec<[u8; 16]>, RepositoryError> {
        let shelves = self.lock();
        let names = shelves.records.keys().filter(|(of, _)| of == kind);
        Ok(names.map(|(_, name)| *name).collect())
    }
}

#[derive(Debug)]
struct MemoryObjectWriter<'a> {
    repository: &'a MemoryRepository,
    bytes: Vec<u8>,
}

impl ObjectWriter for MemoryObjectWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn seal(self: Box<Self>) -> Result<ObjectId, RepositoryError> {
        let mut shelves = self.repository.lock();
        shelves.objects_made += 1;
        let mut name = [0; 16];
        name[8..].copy_from_slice(&shelves.objects_made.to_be_bytes());
        let object = ObjectId::from_bytes(name);
        shelves.objects.insert(object, self.bytes.into());
        Ok(object)
    }
}

#[derive(Debug)]
struct MemoryObject {
    object: ObjectId,
    bytes: Arc<[u8]>,
}

impl ObjectReader for MemoryObject {
    fn byte_count(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), RepositoryError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let part = self
            .bytes
            .get(start..)
            .and_then(|rest| rest.get(..bytes.len()));
        let Some(part) = part else {
            let message = format!("read object {}: it ends before", self.object);
            return Err(RepositoryError::new(ErrorKind::Corrupt, message));
        };
        bytes.copy_from_slice(part);
        Ok(())
    }
}
