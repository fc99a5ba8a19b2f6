//! The steps of writing, so that tests can stop or fail each of them.

use std::io;

/// What is about to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the temporary file.
    Create,
    /// Append bytes to it.
    Write,
    /// Bring its bytes to the disk.
    SyncFile,
    /// Give it its name.
    Link,
    /// Bring the name to the disk.
    SyncDirectory,
    /// Take the temporary name away.
    Unlink,
}

/// Comes by before every step; in a released program it does nothing.
#[cfg(not(test))]
#[inline]
pub(crate) fn reach(_step: Step) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use injected::{Fault, inject, reach};

#[cfg(test)]
mod injected {
    use std::cell::RefCell;

    use super::*;

    /// Decides about a step.
    pub(crate) type Fault = Box<dyn FnMut(Step) -> io::Result<()>>;

    thread_local! {
        static FAULT: RefCell<Option<Fault>> = const { RefCell::new(None) };
    }

    /// From now on this thread's steps are decided by `fault`.
    pub(crate) fn inject(fault: Option<Fault>) {
        FAULT.set(fault);
    }

    pub(crate) fn reach(step: Step) -> io::Result<()> {
        FAULT.with_borrow_mut(|fault| fault.as_mut().map_or(Ok(()), |fault| fault(step)))
    }
}
