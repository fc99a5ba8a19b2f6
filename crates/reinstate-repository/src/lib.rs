//! Snapshots and plans in a local directory.
//!
//! [`LocalRepository`] keeps immutable objects and the small records that name them;
//! [`create_file`] and [`open_file`] do the same for one file of the user's own, a plan.
//! `docs/format/repository.md` has the layout.
//!
//! # Consistency
//! What is published never changes and is never replaced. Nothing is visible under its name
//! before all of its bytes are on the disk, and nothing is reported as published before its name
//! is. Readers take no lock and see whole objects only.
//!
//! # Crash consistency
//! An unfinished object lies in `temporary/` and is locked by its writer. When the writer is
//! gone, [`LocalRepository::sweep_temporary`] takes it away; until then it is only in the way of
//! free space. A write or a sync that fails is final: the file is abandoned, never published.
//!
//! **Invariant:** nothing here is named by anything but random bytes or a record's own name;
//! nothing that was published is deleted.

mod directory;
mod draft;
mod failure;
mod file;
mod file_system;
mod layout;
mod local;
mod lock;
mod object;
mod record;
mod repository;
mod sweep;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod stopping;

pub use file::{FileObjectWriter, create_file, open_file};
pub use file_system::{DirectoryEntry, FileKind, FileStatus, FileSystem, OpenMode, StoredFile};
pub use layout::RECORD_BYTES_MAX;
pub use local::LocalFileSystem;
pub use lock::RepositoryLock;
pub use object::{FileObjectReader, LocalObjectWriter};
pub use repository::LocalRepository;
pub use sweep::Swept;
