//! A fair queue before the store's only writer.
//!
//! redb lets one transaction write at a time, and its own lock is unfair: a loop of restores
//! would keep everybody else waiting. Here writers are let through in the order they came.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The queue. Each writer draws a number and waits for its turn.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    turns: Mutex<Turns>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct Turns {
    drawn: u64,
    serving: u64,
}

/// A turn. The next writer's begins when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'g>(&'g Gate);

impl Gate {
    /// Waits for the caller's turn.
    pub(crate) fn enter(&self) -> Turn<'_> {
        let mut turns = self.lock();
        let number = turns.drawn;
        turns.drawn += 1;
        while turns.serving != number {
            turns = self
                .moved
                .wait(turns)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Turn(self)
    }

    /// How many turns were asked for so far.
    #[cfg(test)]
    pub(crate) fn drawn(&self) -> u64 {
        self.lock().drawn
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        // The counters are whole at every moment, so a panic elsewhere leaves them usable.
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Whether somebody waits for this turn to end.
    pub(crate) fn is_awaited(&self) -> bool {
        let turns = self.0.lock();
        turns.drawn > turns.serving + 1
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().serving += 1;
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;

    #[test]
    fn a_turn_is_awaited_from_the_moment_that_the_next_writer_comes() {
        let gate = Gate::default();
        let turn = gate.enter();
        assert!(!turn.is_awaited());
        thread::scope(|scope| {
            let next = scope.spawn(|| gate.enter().is_awaited());
            while !turn.is_awaited() {
                thread::yield_now();
            }
            drop(turn);
            assert!(!next.join().unwrap());
        });
    }

    #[test]
    fn a_busy_loop_does_not_keep_others_out() {
        let gate = Gate::default();
        let loops = AtomicU64::new(0);
        thread::scope(|scope| {
            let other = scope.spawn(|| {
                for _ in 0..100 {
                    // Between two turns of the loop below there is one of this thread's.
                    let before = loops.load(Ordering::SeqCst);
                    let turn = gate.enter();
                    let waited = loops.load(Ordering::SeqCst) - before;
                    drop(turn);
                    assert!(waited <= 2, "{waited} turns of the loop went before");
                }
            });
            while !other.is_finished() {
                let turn = gate.enter();
                loops.fetch_add(1, Ordering::SeqCst);
                thread::yield_now();
                drop(turn);
            }
            other.join().unwrap();
        });
    }
}
