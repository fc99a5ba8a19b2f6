//! Time that passes, for those who have to wait.

use std::time::Duration;

/// Says how much time passed, and lets some pass. The engine has no clock of its own: tests give it one
/// that only moves when it is waited for.
pub trait Clock: Send + Sync {
    /// The time since some moment that stays the same.
    fn elapsed(&self) -> Duration;

    /// Returns when at least this much time passed.
    fn wait(&self, duration: Duration);
}
