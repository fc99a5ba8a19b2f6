//! Ctrl-C and SIGTERM: the first asks to stop, the second stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use reinstate_core::Cancellation;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::Exit;

/// Which signal asked to stop, if any.
#[derive(Clone, Debug, Default)]
pub struct Interruption {
    cancellation: Cancellation,
    signal: Arc<AtomicI32>,
    is_silent: Arc<AtomicBool>,
}

impl Interruption {
    /// Listens from now on.
    ///
    /// # Errors
    /// As the operating system reports it.
    pub fn listen() -> std::io::Result<Self> {
        let interruption = Self::default();
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let heard = interruption.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    heard.hear(signal);
                }
            })?;
        Ok(interruption)
    }

    fn hear(&self, signal: i32) {
        if self.signal.swap(signal, Ordering::Relaxed) != 0 {
            // Whatever is open is rolled back by the store when this process is gone.
            std::process::exit(i32::from(exit_of(signal).code()));
        }
        self.cancellation.cancel();
        if self.is_silent.load(Ordering::Relaxed) {
            return;
        }
        eprintln!(
            "stopping: the tenant in progress is finished or rolled back; \
             once more to stop at once"
        );
    }

    /// Says nothing when it is asked to stop: nothing is written that would have to be finished.
    pub fn say_nothing(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    /// What the engine looks at.
    #[must_use]
    pub fn cancellation(&self) -> &Cancellation {
        &self.cancellation
    }

    /// How a process ends that was asked to stop.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(exit_of(signal)),
        }
    }
}

fn exit_of(signal: i32) -> Exit {
    if signal == SIGINT {
        Exit::SignalInterrupt
    } else {
        Exit::SignalTerminate
    }
}
