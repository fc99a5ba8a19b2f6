//! Crash images: whatever part of what was not synced is on the disk, nothing that was promised is lost.
//!
//! A life of a store and its repository runs once on a disk that writes down every step. Then, for
//! every step of it, disks are made as a crash at that moment may leave them: all that was synced, and
//! of the rest any pieces of 512 bytes, any names, in any order. Each is opened as the next process
//! would, and all of it read.

#[path = "crash/contents.rs"]
mod contents;
#[path = "crash/damage.rs"]
mod damage;
#[path = "crash/disk.rs"]
mod disk;
#[path = "crash/facts.rs"]
mod facts;
#[path = "crash/failed.rs"]
mod failed;
#[path = "crash/failing.rs"]
mod failing;
#[path = "crash/image.rs"]
mod image;
#[path = "crash/images.rs"]
mod images;
#[path = "crash/life.rs"]
mod life;
#[path = "crash/making.rs"]
mod making;
#[path = "crash/random.rs"]
mod random;
#[path = "crash/sabotage.rs"]
mod sabotage;
