//! The journal: what happened, as a chain of records that several processes append to.
//!
//! *Consistency*: a record's name follows from the digest of the one before, and is put if absent. Of
//! two that append at once one finds its name taken, reads what the other wrote, and goes behind it.
//! Entries that come while a record is being written go into the next one together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use reinstate_core::{Digest, ErrorKind, ObjectId, Repository};
use reinstate_format::{
    CampaignChain, CampaignEntry, CampaignRecord, EntryKind, decode_campaign_record,
    encode_campaign_record, link_name,
};

use super::record::{StoredCampaign, campaigns};
use crate::Error;
use crate::pace::PaceLimits;

/// Name of the kind of record that a chain is made of.
const JOURNAL_RECORD: &str = "campaign-log";

/// How often somebody else may be faster before an append gives up.
const RACES_MAX: u32 = 1000;

/// A chain, read to its end.
pub struct Journal<'r> {
    repository: &'r dyn Repository,
    chain: CampaignChain,
    tail: Mutex<Tail>,
    waiting: Mutex<Vec<CampaignEntry>>,
}

impl std::fmt::Debug for Journal<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Journal({:?})", self.chain)
    }
}

#[derive(Debug)]
struct Tail {
    number: u64,
    digest: Digest,
    entries: Vec<CampaignEntry>,
    /// The records' names, in order.
    names: Vec<[u8; 16]>,
    /// The last thing that somebody said to whoever runs the campaign.
    said: Option<EntryKind>,
    /// How fast somebody last said that each store may be written to.
    limits: BTreeMap<u32, PaceLimits>,
}

impl Tail {
    fn extend(&mut self, entries: &[CampaignEntry]) {
        let said = entries.iter().rev().map(|entry| entry.kind).find(|kind| {
            matches!(
                kind,
                EntryKind::Paused | EntryKind::Resumed | EntryKind::Aborted
            )
        });
        self.said = said.or(self.said);
        self.limits.extend(entries.iter().filter_map(limits_in));
        self.entries.extend_from_slice(entries);
    }
}

/// The journal of a campaign.
///
/// # Errors
/// `Corrupt` if a record is not what was written.
pub fn campaign_journal<'r>(
    repository: &'r dyn Repository,
    campaign: &StoredCampaign,
) -> Result<Journal<'r>, Error> {
    let chain = CampaignChain::Campaign {
        campaign: campaign.description().campaign,
        plan: campaign.digest(),
    };
    Journal::open(repository, chain)
}

/// The journal of what never became a campaign.
///
/// # Errors
/// `Corrupt` if a record is not what was written.
pub fn audit_journal(repository: &dyn Repository) -> Result<Journal<'_>, Error> {
    Journal::open(repository, CampaignChain::Audit)
}

/// Makes sure that no record of any journal of a repository was taken away from before another one,
/// and no campaign from before its records.
///
/// That the last records of a journal are gone cannot be seen here, but by whoever kept the digest of
/// its [head](Journal::head).
///
/// # Errors
/// `Corrupt` if records are there that nothing leads to.
pub fn check_journals(repository: &dyn Repository) -> Result<(), Error> {
    // Listed before the chains are read: what is appended meanwhile is in those only.
    let mut lost = repository
        .list(JOURNAL_RECORD)
        .map_err(Error::repository("list the records of journals"))?;
    let mut known: BTreeSet<[u8; 16]> = audit_journal(repository)?.names();
    for campaign in campaigns(repository)? {
        known.extend(campaign_journal(repository, &campaign)?.names());
    }
    lost.retain(|name| !known.contains(name));
    let Some(first) = lost.first() else {
        return Ok(());
    };
    let message = format!(
        "{} records of campaigns' journals follow nothing that is here: what was before record {} was \
         taken away or is damaged",
        lost.len(),
        ObjectId::from_bytes(*first)
    );
    Err(Error::new(ErrorKind::Corrupt, message))
}

impl<'r> Journal<'r> {
    fn names(&self) -> BTreeSet<[u8; 16]> {
        self.tail().names.iter().copied().collect()
    }

    fn open(repository: &'r dyn Repository, chain: CampaignChain) -> Result<Self, Error> {
        let tail = Tail {
            number: 0,
            digest: chain.root(repository.id()),
            entries: Vec::new(),
            names: Vec::new(),
            said: None,
            limits: BTreeMap::new(),
        };
        let journal = Self {
            repository,
            chain,
            tail: Mutex::new(tail),
            waiting: Mutex::default(),
        };
        journal.refresh()?;
        Ok(journal)
    }

    /// Reads what others appended since.
    ///
    /// # Errors
    /// `Corrupt` if a record is not what was written.
    pub fn refresh(&self) -> Result<(), Error> {
        self.read_on(&mut self.tail())
    }

    /// Everything that happened, as far as it was read, in order.
    #[must_use]
    pub fn entries(&self) -> Vec<CampaignEntry> {
        self.tail().entries.clone()
    }

    /// Looks at everything that happened, as far as it was read.
    pub fn look<T>(&self, look: impl FnOnce(&[CampaignEntry]) -> T) -> T {
        look(&self.tail().entries)
    }

    /// The last thing that somebody said to whoever runs the campaign: paused, resumed or aborted.
    pub(super) fn said(&self) -> Option<EntryKind> {
        self.tail().said
    }

    /// How fast somebody last said that a store may be written to; none if nobody said.
    #[must_use]
    pub fn limits(&self, store: u32) -> Option<PaceLimits> {
        self.tail().limits.get(&store).copied()
    }

    /// The digest of the last record: whoever keeps it can tell that none was taken away.
    #[must_use]
    pub fn head(&self) -> Digest {
        self.tail().digest
    }

    /// Appends entries, durably. They stay together and in order.
    ///
    /// # Errors
    /// As the repository reports it. They may be there or not; nothing depends on them but what is
    /// said of the campaign.
    pub fn append(&self, entries: Vec<CampaignEntry>) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        lock(&self.waiting).extend(entries);
        let mut tail = self.tail();
        // Whoever held the tail before may have written these as well.
        let entries = std::mem::take(&mut *lock(&self.waiting));
        if entries.is_empty() {
            return Ok(());
        }
        let written = self.write(&mut tail, &entries);
        if written.is_err() {
            // Some may be of others, who were told nothing yet: the next one tries again.
            lock(&self.waiting).splice(0..0, entries);
        }
        written
    }

    fn write(&self, tail: &mut Tail, entries: &[CampaignEntry]) -> Result<(), Error> {
        for _ in 0..RACES_MAX {
            let record = CampaignRecord {
                number: tail.number,
                previous: tail.digest,
                entries: entries.to_vec(),
            };
            let (bytes, digest) =
                encode_campaign_record(self.repository.id(), &self.chain, &record);
            match self
                .repository
                .publish(JOURNAL_RECORD, self.name(tail), &bytes)
            {
                Ok(()) => {
                    tail.names.push(self.name(tail));
                    tail.number += 1;
                    tail.digest = digest;
                    tail.extend(entries);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Conflict => self.read_on(tail)?,
                Err(error) => {
                    return Err(Error::repository("write the campaign's journal")(error));
                }
            }
        }
        let message = "write the campaign's journal: others were faster again and again";
        Err(Error::new(ErrorKind::Contended, message))
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        lock(&self.tail)
    }

    fn name(&self, tail: &Tail) -> [u8; 16] {
        link_name(self.repository.id(), &tail.digest)
    }

    fn read_on(&self, tail: &mut Tail) -> Result<(), Error> {
        loop {
            let bytes = match self.repository.read(JOURNAL_RECORD, self.name(tail)) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(Error::repository("read the campaign's journal")(error)),
            };
            let place = (tail.number, tail.digest);
            let (record, digest) =
                decode_campaign_record(&bytes, self.repository.id(), &self.chain, place)
                    .map_err(Error::format("read the campaign's journal"))?;
            tail.names.push(self.name(tail));
            tail.number += 1;
            tail.digest = digest;
            tail.extend(&record.entries);
        }
    }
}

/// The store that an entry limits, and to what.
fn limits_in(entry: &CampaignEntry) -> Option<(u32, PaceLimits)> {
    let is_limit = entry.kind == EntryKind::Paced;
    // Only this program writes them, and nobody can change them in a chain.
    let limits = is_limit.then(|| entry.detail.parse().ok()).flatten();
    Some((entry.store?, limits?))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
