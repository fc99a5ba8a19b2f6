//! A file that is being written and has no name yet that anybody looks for.
//!
//! # Crash consistency
//! The order is: make, lock, write, sync the file, link it to its name, sync the directory, take
//! the temporary name away. A crash before the link leaves a temporary file; a crash after it
//! leaves the whole file under its name, and perhaps the temporary name too.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::directory::parent;
use crate::file_system::{FileSystem, OpenMode, StoredFile};
use crate::layout::digits;

/// How much is gathered before it goes to the operating system.
const BUFFER_BYTES: usize = 256 * 1024;

/// How often a sweep may come between making a file and locking it.
const CREATE_ATTEMPTS_MAX: u32 = 16;

/// A locked temporary file. Dropping it takes the temporary name away.
#[derive(Debug)]
pub(crate) struct Draft {
    files: Arc<dyn FileSystem>,
    writer: BufWriter<Appender>,
    path: PathBuf,
    name: [u8; 16],
    byte_count: u64,
    // After a failed write or sync nobody knows what is on the disk: that is final.
    is_failed: bool,
}

impl Draft {
    /// Makes a file at the place that `path_of` gives to 32 random digits.
    pub(crate) fn create(
        files: &Arc<dyn FileSystem>,
        path_of: impl Fn(&str) -> PathBuf,
    ) -> io::Result<Self> {
        for _ in 0..CREATE_ATTEMPTS_MAX {
            let mut name = [0; 16];
            files.draw_name(&mut name)?;
            let path = path_of(&digits(name));
            let file = files.open(&path, OpenMode::CreateNew)?;
            match file.try_lock() {
                // A sweep may have come first and gone with the file.
                Ok(true) if file.status()?.link_count == 0 => {}
                Ok(true) => {
                    return Ok(Self {
                        files: Arc::clone(files),
                        writer: BufWriter::with_capacity(BUFFER_BYTES, Appender(file)),
                        path,
                        name,
                        byte_count: 0,
                        is_failed: false,
                    });
                }
                Ok(false) => {}
                Err(error) => {
                    let _ = files.remove(&path);
                    return Err(error);
                }
            }
        }
        Err(io::Error::other("temporary files vanish as they are made"))
    }

    /// The random bytes that its place was made from.
    pub(crate) fn name(&self) -> [u8; 16] {
        self.name
    }

    /// Where it is for now.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unless_failed(|draft| {
            draft.writer.write_all(bytes)?;
            draft.byte_count += bytes.len() as u64;
            Ok(())
        })
    }

    /// Brings every byte to the disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.unless_failed(|draft| {
            draft.writer.flush()?;
            let file = &draft.writer.get_ref().0;
            file.sync()?;
            if file.status()?.byte_count == draft.byte_count {
                Ok(())
            } else {
                Err(io::Error::other(
                    "the file is not as long as what was written",
                ))
            }
        })
    }

    /// Gives the file its name; the caller syncs the directory. It must have been synced itself.
    /// `AlreadyExists` if the name is taken; whoever has it is left alone.
    pub(crate) fn link(&mut self, destination: &Path) -> io::Result<()> {
        self.unless_failed(|draft| draft.files.link(&draft.path, destination))
    }

    /// Makes the file durable under a name that nobody knows of before this returns: if the last
    /// step fails, the name is taken away again.
    pub(crate) fn publish(mut self, destination: &Path) -> io::Result<()> {
        self.sync()?;
        self.link(destination)?;
        self.files
            .sync_directory(parent(destination))
            .inspect_err(|_| {
                let _ = self.files.remove(destination);
            })
    }

    fn unless_failed<T>(
        &mut self,
        operation: impl FnOnce(&mut Self) -> io::Result<T>,
    ) -> io::Result<T> {
        if self.is_failed {
            return Err(io::Error::other("an earlier write to this file failed"));
        }
        // Set first, so that it stays set if the operation fails or panics.
        self.is_failed = true;
        let result = operation(self)?;
        self.is_failed = false;
        Ok(result)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // What stays behind is found by a sweep.
        let _ = self.files.remove(&self.path);
    }
}

/// A file as the standard library writes to one.
#[derive(Debug)]
struct Appender(Box<dyn StoredFile>);

impl Write for Appender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.append(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
