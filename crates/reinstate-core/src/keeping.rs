//! The port of repositories: where snapshots, logs, plans and what was done are kept.

use crate::{ObjectId, RepositoryError, RepositoryId};

/// A place that keeps immutable objects and the small records that name them.
///
/// An object is invisible until sealed and never changes after. A record is put if absent.
pub trait Repository: Send + Sync {
    /// Which repository this is.
    fn id(&self) -> RepositoryId;

    /// Starts an object. It is visible to nobody until sealed.
    ///
    /// # Errors
    /// As the medium reports it.
    fn create_object(&self) -> Result<Box<dyn ObjectWriter + '_>, RepositoryError>;

    /// Opens a sealed object.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name.
    fn open_object(&self, object: ObjectId) -> Result<Box<dyn ObjectReader>, RepositoryError>;

    /// The names of all sealed objects.
    ///
    /// # Errors
    /// Any error means that the list is unknown, never that it is empty.
    fn list_objects(&self) -> Result<Vec<ObjectId>, RepositoryError>;

    /// Publishes a record under a name, durably, unless there is one already. Publishing the same
    /// bytes again does nothing and succeeds.
    ///
    /// # Errors
    /// `Conflict` if another record has that name.
    fn publish(&self, kind: &str, name: [u8; 16], bytes: &[u8]) -> Result<(), RepositoryError>;

    /// Reads a record.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name.
    fn read(&self, kind: &str, name: [u8; 16]) -> Result<Vec<u8>, RepositoryError>;

    /// The names of all records of a kind.
    ///
    /// # Errors
    /// Any error means that the list is unknown, never that it is empty.
    fn list(&self, kind: &str) -> Result<Vec<[u8; 16]>, RepositoryError>;
}

/// An object that is being written.
pub trait ObjectWriter: Send {
    /// Appends bytes.
    ///
    /// # Errors
    /// `Full` if there is no room; the object is then of no further use.
    fn write(&mut self, bytes: &[u8]) -> Result<(), RepositoryError>;

    /// Makes the object durable and visible.
    ///
    /// # Errors
    /// As the medium reports it; the object is then not visible.
    fn seal(self: Box<Self>) -> Result<ObjectId, RepositoryError>;
}

/// A sealed object.
pub trait ObjectReader: Send + Sync {
    /// Its length.
    fn byte_count(&self) -> u64;

    /// Fills `bytes` from this offset on.
    ///
    /// # Errors
    /// `Corrupt` if the object ends before.
    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), RepositoryError>;
}
