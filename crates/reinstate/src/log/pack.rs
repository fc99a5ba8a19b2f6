//! Packs: the records of many runs in one, so that finding a log reads few files.
//!
//! The records stay as well, and what a pack holds is checked as they are. A pack that is missing or damaged
//! costs time and nothing else; one that is there replaces records that are gone.
//!
//! *Crash consistency*: one record, put if absent, of records that are published. Whoever packs the same
//! ones again writes the same bytes.

use std::collections::{BTreeSet, HashMap};

use reinstate_core::{ErrorKind, Repository};
use reinstate_format::{decode_log_pack, encode_log_pack, link_name, record_digest};

use super::chain::LOG_RECORD;
use crate::Error;
use crate::verify::chain;

/// Name of the kind of record that a pack is. It has the name of the first record that it holds.
const PACK_RECORD: &str = "log-pack";

/// A pack holds records up to the first with which they are this long.
const PACK_BYTES_TARGET: usize = 16 << 20;

/// The name of a record.
type Name = [u8; 16];

/// The records of logs, from packs where there are any.
pub(super) struct Records<'r> {
    repository: &'r dyn Repository,
    packs: BTreeSet<Name>,
    /// What packs that were read hold, and nobody asked for yet.
    unpacked: HashMap<Name, Vec<u8>>,
    /// Whether the record that was read last came from a pack.
    was_packed: bool,
}

/// A record, and whether it came from a pack.
pub(super) struct Record {
    pub(super) bytes: Vec<u8>,
    pub(super) is_packed: bool,
}

impl<'r> Records<'r> {
    pub(super) fn of(repository: &'r dyn Repository) -> Result<Self, Error> {
        let packs = repository.list(PACK_RECORD);
        Ok(Self {
            repository,
            packs: packs
                .map_err(Error::repository("list the packs of logs"))?
                .into_iter()
                .collect(),
            unpacked: HashMap::new(),
            was_packed: false,
        })
    }

    /// The record of this name; none if there is none.
    pub(super) fn read(&mut self, name: Name, operation: &str) -> Result<Option<Record>, Error> {
        if self.packs.remove(&name) {
            // A damaged one is verify's to name; the records that it holds are there too.
            if let Ok(records) = read_pack(self.repository, name) {
                self.unpacked.extend(records);
            }
        }
        let unpacked = self.unpacked.remove(&name);
        self.was_packed = unpacked.is_some();
        if let Some(bytes) = unpacked {
            return Ok(Some(Record {
                bytes,
                is_packed: true,
            }));
        }
        match self.repository.read(LOG_RECORD, name) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            read => Ok(Some(Record {
                bytes: read.map_err(Error::repository(operation))?,
                is_packed: false,
            })),
        }
    }

    /// Forgets what packs say, if the record that was read last came from one; whether it did.
    pub(super) fn distrust(&mut self) -> bool {
        self.unpacked.clear();
        std::mem::take(&mut self.was_packed)
    }
}

/// The records of a pack with their names.
fn read_pack(repository: &dyn Repository, name: Name) -> Result<Vec<(Name, Vec<u8>)>, Error> {
    let operation = "read a pack of a log";
    let bytes = repository
        .read(PACK_RECORD, name)
        .map_err(Error::repository(operation))?;
    let records =
        decode_log_pack(&bytes, repository.id(), name).map_err(Error::format(operation))?;
    let mut next = name;
    let named = records.into_iter().map(|record| {
        let digest = record_digest(&record).map_err(Error::format(operation))?;
        Ok((
            std::mem::replace(&mut next, link_name(repository.id(), &digest)),
            record,
        ))
    });
    named.collect()
}

/// Packs records that follow each other, as many at a time as a pack is to hold, while there are that
/// many. Returns how many are packed now.
///
/// # Errors
/// As the repository reports it. Nothing is lost then.
pub(super) fn pack(
    repository: &dyn Repository,
    names: &[Name],
    records_max: usize,
) -> Result<usize, Error> {
    let operation = "pack the records of a log";
    let mut packed = 0;
    while names.len() - packed >= records_max {
        let (mut records, mut bytes) = (Vec::new(), 0);
        for name in &names[packed..packed + records_max] {
            let record = repository.read(LOG_RECORD, *name);
            let record = record.map_err(Error::repository(operation))?;
            bytes += record.len();
            records.push(record);
            if bytes >= PACK_BYTES_TARGET {
                break;
            }
        }
        let first = names[packed];
        let pack = encode_log_pack(repository.id(), first, &records);
        match repository.publish(PACK_RECORD, first, &pack) {
            // Somebody packed more of them, or fewer.
            Err(error) if error.kind() == ErrorKind::Conflict => {}
            published => published.map_err(Error::repository(operation))?,
        }
        packed += records.len();
    }
    Ok(packed)
}

/// The packs that are not what their records are, with what is wrong.
///
/// *Cost*: reads all packs and all records of logs.
///
/// # Errors
/// As the repository reports it.
pub fn damaged_packs(repository: &dyn Repository) -> Result<Vec<([u8; 16], String)>, Error> {
    let names = repository.list(PACK_RECORD);
    let names = names.map_err(Error::repository("list the packs of logs"))?;
    let mut damaged = Vec::new();
    for name in names {
        let records = match read_pack(repository, name) {
            Ok(records) => records,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damaged.push((name, chain(&error)));
                continue;
            }
            Err(error) => return Err(error),
        };
        for (record, bytes) in records {
            match repository.read(LOG_RECORD, record) {
                Ok(found) if found == bytes => {}
                Ok(_) => damaged.push((name, "it is not what the records are".to_owned())),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(Error::repository("read the record of a run")(error)),
            }
        }
    }
    Ok(damaged)
}
