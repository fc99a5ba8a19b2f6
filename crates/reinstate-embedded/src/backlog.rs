//! What a restore wrote that is not on the disk yet.
//!
//! redb brings it there with the next durable commit, whoever makes it: the restore must not leave
//! more to another writer than that one can be asked to wait for.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes that may be left to a writer who comes now and then. About 3 ms of a plain disk.
const BYTES_MAX: usize = 1024 * 1024;
/// Bytes that may be left while nobody writes: the first who comes waits for them once.
const QUIET_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long nobody else must have committed for the store to be quiet.
const QUIET: Duration = Duration::from_secs(1);

/// The bytes, and when somebody else last had to wait for them. Changed by whose turn it is.
#[derive(Debug)]
pub(crate) struct Backlog {
    bytes: AtomicUsize,
    opened: Instant,
    /// Milliseconds from `opened` to the application's last commit, plus one; 0 before the first.
    last_commit_ms: AtomicU64,
}

impl Backlog {
    pub(crate) fn new() -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            opened: Instant::now(),
            last_commit_ms: AtomicU64::new(0),
        }
    }

    /// Notes that everything is on the disk, by a commit of the application.
    pub(crate) fn application_committed(&self) {
        let milliseconds = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last_commit_ms
            .store(milliseconds + 1, Ordering::Relaxed);
        self.committed();
    }

    /// Notes that everything is on the disk.
    pub(crate) fn committed(&self) {
        self.bytes.store(0, Ordering::Relaxed);
    }

    /// How many bytes are not on the disk yet.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Notes bytes that are about to be committed; whether they must be brought to the disk.
    pub(crate) fn add(&self, bytes: usize) -> bool {
        let bytes = self.bytes() + bytes;
        self.bytes.store(bytes, Ordering::Relaxed);
        bytes >= self.bytes_max()
    }

    fn bytes_max(&self) -> usize {
        let last = self.last_commit_ms.load(Ordering::Relaxed);
        let is_quiet = last == 0 || self.opened.elapsed() > Duration::from_millis(last) + QUIET;
        if is_quiet { QUIET_BYTES_MAX } else { BYTES_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_left_to_others_once_they_write() {
        let backlog = Backlog::new();
        assert!(!backlog.add(BYTES_MAX));
        backlog.application_committed();
        assert!(!backlog.add(BYTES_MAX - 1));
        assert!(backlog.add(1));
    }

    #[test]
    fn a_long_backlog_is_brought_to_the_disk_even_if_nobody_writes() {
        let backlog = Backlog::new();
        assert!(backlog.add(QUIET_BYTES_MAX));
        backlog.committed();
        assert!(!backlog.add(QUIET_BYTES_MAX - 1));
    }
}
