//! Where words go: the result to stdout, everything for people to stderr.
//!
//! With `--json` stdout holds one JSON object a line and nothing else.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use console::Style;
use serde::Serialize;

use crate::failure::Shown;

/// The two streams, and which form the result takes.
#[derive(Debug)]
pub struct Console {
    json: bool,
    closed: AtomicBool,
    broken: Mutex<Option<io::Error>>,
}

impl Console {
    /// A console whose result is JSON, or text.
    #[must_use]
    pub const fn new(json: bool) -> Self {
        Self {
            json,
            closed: AtomicBool::new(false),
            broken: Mutex::new(None),
        }
    }

    /// Whether the result is JSON.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.json
    }

    /// Whether nobody reads the result any more, as with `| head`.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// A line of the result, for people. Nothing with `--json`.
    pub fn line(&self, text: impl fmt::Display) {
        if !self.json {
            self.write(|out| writeln!(out, "{text}"));
        }
    }

    /// A record of the result, for machines. Nothing without `--json`.
    pub fn record(&self, record: &impl Serialize) {
        if self.json {
            self.write(|out| write_record(out, record));
        }
    }

    /// Bytes of the result as they are, in either form.
    pub fn bytes(&self, bytes: &[u8]) {
        self.write(|out| out.write_all(bytes));
    }

    /// A line for people beside the result.
    pub fn note(&self, text: impl fmt::Display) {
        // Nothing can be done, and nothing is lost, if nobody listens.
        let _ = writeln!(io::stderr(), "{text}");
    }

    /// A line that must not be overlooked.
    pub fn warn(&self, text: impl fmt::Display) {
        let mark = Style::new()
            .for_stderr()
            .yellow()
            .bold()
            .apply_to("warning:");
        self.note(format_args!("{mark} {text}"));
    }

    /// Shows why the process ends: as a record with `--json`, in words on stderr always.
    pub fn failure(&self, shown: &Shown) {
        self.record(shown);
        let mark = Style::new().for_stderr().red().bold().apply_to("error:");
        self.note(format_args!("{mark} {}", shown.message));
        for cause in &shown.causes {
            self.note(format_args!("  because: {cause}"));
        }
        if !shown.next.is_empty() {
            self.note(format_args!("  next: {}", shown.next));
        }
    }

    fn write(&self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) {
        if self.is_closed() {
            return;
        }
        let mut out = io::stdout().lock();
        if let Err(error) = write(&mut out) {
            self.closed.store(true, Ordering::Relaxed);
            // A reader that went away ends the output, not the work; a full disk is an error.
            if error.kind() != io::ErrorKind::BrokenPipe {
                *self.broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
        }
    }

    /// Ends the output.
    ///
    /// # Errors
    /// If the result could not be written, though somebody was there to read it.
    pub fn finish(&self) -> io::Result<()> {
        self.write(|out| out.flush());
        let mut broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner);
        broken.take().map_or(Ok(()), Err)
    }
}

fn write_record(out: &mut dyn Write, record: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, record)?;
    out.write_all(b"\n")
}
