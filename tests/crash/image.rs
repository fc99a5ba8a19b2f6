//! What a disk may hold after a crash: all that was synced, and any part of what was not.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::disk::{Holds, Node, Operation, State, contents};
use crate::random::Random;

/// What a disk writes at once: less than this is never torn.
const SECTOR_BYTES: usize = 512;

/// How a disk treats what programs ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Honesty {
    /// What was synced is there after a crash.
    Honest,
    /// Syncs of files but this one do nothing: for proving that a test would see it.
    ForgetsFilesBut(Node),
    /// Syncs of directories do nothing.
    ForgetsDirectories,
    /// Syncs of this file do nothing.
    Forgets(Node),
}

/// A disk at one moment of its log: what a crash cannot take, and what it can.
#[derive(Clone, Debug)]
pub struct Moment {
    pub durable: State,
    pub pending: Vec<Operation>,
    honesty: Honesty,
}

impl Moment {
    /// A disk on which everything is synced.
    pub fn new(durable: State, honesty: Honesty) -> Self {
        Self {
            durable,
            pending: Vec::new(),
            honesty,
        }
    }

    /// Goes one step on.
    pub fn advance(&mut self, operation: &Operation) {
        match operation {
            Operation::Make { .. } => operation.apply(&mut self.durable),
            Operation::Sync { node } if self.keeps(*node) => {
                let durable = &mut self.durable;
                self.pending.retain(|pending| {
                    let is_synced = pending.node() == Some(*node);
                    if is_synced {
                        pending.apply(durable);
                    }
                    !is_synced
                });
            }
            Operation::Sync { .. } | Operation::Promise(_) => {}
            _ => self.pending.push(operation.clone()),
        }
    }

    /// Whether what was synced of this node stays.
    fn keeps(&self, node: Node) -> bool {
        let is_directory = matches!(&*self.durable[node], Holds::Directory(_));
        match self.honesty {
            Honesty::Honest => true,
            Honesty::ForgetsDirectories => !is_directory,
            Honesty::ForgetsFilesBut(kept) => is_directory || node == kept,
            Honesty::Forgets(file) => node != file,
        }
    }

    /// What is found after a crash at this moment, by these choices, with a number that tells images
    /// of one moment apart. A piece of a write is there or not, whatever was written after it.
    pub fn image(&self, random: &mut Random) -> (State, u64) {
        let mut state = self.durable.clone();
        let mut chosen = DefaultHasher::new();
        let kept = [0, 1, 4, 7, 8][random.below(5)];
        for (index, operation) in self.pending.iter().enumerate() {
            let Operation::Write {
                file,
                offset,
                bytes,
            } = operation
            else {
                if random.in_eight(kept) {
                    index.hash(&mut chosen);
                    operation.apply(&mut state);
                }
                continue;
            };
            for (at, piece) in pieces(*offset, bytes) {
                if random.in_eight(kept) {
                    (index, at).hash(&mut chosen);
                    contents(&mut state, *file).write(at, piece);
                }
            }
        }
        (state, chosen.finish())
    }
}

/// The parts of a write that reach the disk by themselves, with their places.
fn pieces(offset: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let first = (SECTOR_BYTES - offset % SECTOR_BYTES).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    let rest = rest.chunks(SECTOR_BYTES).enumerate();
    let rest = rest.map(move |(index, piece)| (offset + first + index * SECTOR_BYTES, piece));
    std::iter::once((offset, head)).chain(rest)
}
