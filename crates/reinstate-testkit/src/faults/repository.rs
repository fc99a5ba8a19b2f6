//! A repository that fails, or hands out bytes that were never written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use reinstate_core::{
    ErrorKind, ObjectId, ObjectReader, ObjectWriter, Repository, RepositoryError, RepositoryId,
};

/// What a repository does wrong, and when. Operations and reads are counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryFault {
    /// Nothing; it only counts.
    None,
    /// One operation fails.
    Fail {
        /// Which: creating, writing, sealing, opening, reading, listing and publishing count.
        operation: u64,
        /// How.
        kind: ErrorKind,
    },
    /// Everything fails from one operation on, as after a crash.
    FailFrom {
        /// Which.
        operation: u64,
        /// How.
        kind: ErrorKind,
    },
    /// One read hands out other bytes than were written.
    Damage {
        /// Which: reads of objects and of records count.
        read: u64,
        /// In what way.
        damage: Damage,
    },
}

/// How bytes differ from what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Damage {
    /// The lowest bit of the byte in the middle is flipped.
    FlipBit,
    /// The second half reads as zeros.
    ZeroTail,
    /// The two halves change places.
    SwapHalves,
    /// The bytes end in the middle: an object says so, a record is shorter.
    Truncate,
}

impl Damage {
    /// Every kind of damage.
    pub const ALL: [Self; 4] = [
        Self::FlipBit,
        Self::ZeroTail,
        Self::SwapHalves,
        Self::Truncate,
    ];

    fn change(self, bytes: &mut [u8]) {
        let half = bytes.len() / 2;
        match self {
            Self::FlipBit | Self::Truncate => {
                if let Some(byte) = bytes.get_mut(half) {
                    *byte ^= 1;
                }
            }
            Self::ZeroTail => bytes[half..].fill(0),
            Self::SwapHalves => bytes.rotate_left(half),
        }
    }
}

/// A repository around another that does one thing wrong.
#[derive(Clone)]
pub struct FaultyRepository {
    inner: Arc<dyn Repository>,
    faults: Arc<Faults>,
}

#[derive(Debug)]
struct Faults {
    fault: RepositoryFault,
    operations: AtomicU64,
    reads: AtomicU64,
}

impl std::fmt::Debug for FaultyRepository {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "FaultyRepository({:?})", self.faults)
    }
}

impl FaultyRepository {
    /// A repository that holds what `inner` holds.
    #[must_use]
    pub fn new(inner: Arc<dyn Repository>, fault: RepositoryFault) -> Self {
        Self {
            inner,
            faults: Arc::new(Faults {
                fault,
                operations: AtomicU64::new(0),
                reads: AtomicU64::new(0),
            }),
        }
    }

    /// How many operations there were.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        self.faults.operations.load(Ordering::Relaxed)
    }

    /// How many of them were reads of an object or a record.
    #[must_use]
    pub fn read_count(&self) -> u64 {
        self.faults.reads.load(Ordering::Relaxed)
    }
}

impl Faults {
    fn operate(&self, what: &str) -> Result<(), RepositoryError> {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            RepositoryFault::Fail { operation, kind } if operation == number => {
                Err(injected(kind, what, number))
            }
            RepositoryFault::FailFrom { operation, kind } if operation <= number => {
                Err(injected(kind, what, number))
            }
            _ => Ok(()),
        }
    }

    /// The damage of the read that comes now.
    fn read(&self, what: &str) -> Result<Option<Damage>, RepositoryError> {
        self.operate(what)?;
        let number = self.reads.fetch_add(1, Ordering::Relaxed);
        Ok(match self.fault {
            RepositoryFault::Damage { read, damage } if read == number => Some(damage),
            _ => None,
        })
    }
}

fn injected(kind: ErrorKind, what: &str, number: u64) -> RepositoryError {
    RepositoryError::new(
        kind,
        format!("{what}: injected fault at operation {number}"),
    )
}

impl Repository for FaultyRepository {
    fn id(&self) -> RepositoryId {
        self.inner.id()
    }

    fn create_object(&self) -> Result<Box<dyn ObjectWriter + '_>, RepositoryError> {
        self.faults.operate("create object")?;
        Ok(Box::new(FaultyWriter {
            inner: self.inner.create_object()?,
            faults: &self.faults,
        }))
    }

    fn open_object(&self, object: ObjectId) -> Result<Box<dyn ObjectReader>, RepositoryError> {
        self.faults.operate("open object")?;
        Ok(Box::new(FaultyReader {
            inner: self.inner.open_object(object)?,
            faults: Arc::clone(&self.faults),
        }))
    }

    fn list_objects(&self) -> Result<Vec<ObjectId>, RepositoryError> {
        self.faults.operate("list objects")?;
        self.inner.list_objects()
    }

    fn publish(&self, kind: &str, name: [u8; 16], bytes: &[u8]) -> Result<(), RepositoryError> {
        self.faults.operate("publish")?;
        self.inner.publish(kind, name, bytes)
    }

    fn read(&self, kind: &str, name: [u8; 16]) -> Result<Vec<u8>, RepositoryError> {
        let damage = self.faults.read("read record")?;
        let mut bytes = self.inner.read(kind, name)?;
        if let Some(damage) = damage {
            damage.change(&mut bytes);
            if damage == Damage::Truncate {
                bytes.truncate(bytes.len() / 2);
            }
        }
        Ok(bytes)
    }

    fn list(&self, kind: &str) -> Result<Vec<[u8; 16]>, RepositoryError> {
        self.faults.operate("list records")?;
        self.inner.list(kind)
    }
}

struct FaultyWriter<'a> {
    inner: Box<dyn ObjectWriter + 'a>,
    faults: &'a Faults,
}

impl ObjectWriter for FaultyWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), RepositoryError> {
        self.faults.operate("write object")?;
        self.inner.write(bytes)
    }

    fn seal(self: Box<Self>) -> Result<ObjectId, RepositoryError> {
        self.faults.operate("seal object")?;
        self.inner.seal()
    }
}

struct FaultyReader {
    inner: Box<dyn ObjectReader>,
    faults: Arc<Faults>,
}

impl ObjectReader for FaultyReader {
    fn byte_count(&self) -> u64 {
        self.inner.byte_count()
    }

    fn read_exact_at(&self, offset: u64, bytes: &mut [u8]) -> Result<(), RepositoryError> {
        let damage = self.faults.read("read object")?;
        if damage == Some(Damage::Truncate) {
            let message = "read object: injected fault: it ends before";
            return Err(RepositoryError::new(ErrorKind::Corrupt, message));
        }
        self.inner.read_exact_at(offset, bytes)?;
        if let Some(damage) = damage {
            damage.change(bytes);
        }
        Ok(())
    }
}
