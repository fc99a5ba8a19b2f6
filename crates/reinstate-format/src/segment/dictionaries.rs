//! Reading a segment's dictionaries, each when a block first needs it.

use std::sync::OnceLock;

use reinstate_core::TableIndex;

use super::SegmentReader;
use super::dictionary::{
    DICTIONARIES_MAX, DICTIONARY_BYTES_MAX, Dictionary, WireDictionary, dictionary_digest,
};
use super::trailer::DirectoryLocation;
use crate::FormatError;
use crate::codec;
use crate::error::hash;

/// What was read of a segment's dictionaries so far; the directory by id.
#[derive(Debug, Default)]
pub(super) struct Dictionaries(OnceLock<Vec<Slot>>);

/// An entry of the directory, and the dictionary once it was read.
#[derive(Debug)]
struct Slot {
    entry: WireDictionary,
    dictionary: OnceLock<Dictionary>,
}

impl SegmentReader {
    /// The dictionary with this id, if the segment has one.
    pub(super) fn dictionary(&self, id: u32) -> Result<Option<&Dictionary>, FormatError> {
        let slots = self.slots()?;
        let Ok(index) = slots.binary_search_by_key(&id, |slot| slot.entry.id) else {
            return Ok(None);
        };
        let slot = &slots[index];
        if let Some(dictionary) = slot.dictionary.get() {
            return Ok(Some(dictionary));
        }
        let dictionary = self.load_dictionary(&slot.entry)?;
        Ok(Some(slot.dictionary.get_or_init(|| dictionary)))
    }

    /// Reads and checks every dictionary; returns how many bytes they take.
    pub(super) fn check_dictionaries(&self) -> Result<u64, FormatError> {
        let mut bytes = 0;
        for slot in self.slots()? {
            self.load_dictionary(&slot.entry)?;
            bytes += u64::from(slot.entry.length);
        }
        Ok(bytes)
    }

    fn slots(&self) -> Result<&[Slot], FormatError> {
        let Dictionaries(slots) = self.dictionaries();
        if let Some(slots) = slots.get() {
            return Ok(slots);
        }
        let directory = match &self.trailer().dictionaries {
            None => Vec::new(),
            Some(location) => self.load_directory(location)?,
        };
        let fresh = directory.into_iter().map(|entry| Slot {
            entry,
            dictionary: OnceLock::new(),
        });
        Ok(slots.get_or_init(|| fresh.collect()))
    }

    fn load_directory(
        &self,
        location: &DirectoryLocation,
    ) -> Result<Vec<WireDictionary>, FormatError> {
        let part = "dictionary directory";
        let offset = location.offset;
        if location.length as usize > (DICTIONARIES_MAX + 1) * size_of::<WireDictionary>() {
            return Err(self.fault(part, offset, "it is too long"));
        }
        let mut bytes = vec![0; location.length as usize];
        self.read(offset, &mut bytes)?;
        if hash(&bytes) != location.digest {
            return Err(self.fault(part, offset, "digest mismatch"));
        }
        let mut directory: Vec<WireDictionary> = codec::decode(part, &bytes)?;
        directory.sort_by_key(|entry| entry.id);
        if directory.is_sorted_by(|left, right| left.id < right.id) {
            Ok(directory)
        } else {
            Err(self.fault(part, offset, "two dictionaries have one id"))
        }
    }

    fn load_dictionary(&self, entry: &WireDictionary) -> Result<Dictionary, FormatError> {
        let part = "dictionary";
        if !self.has_bytes(entry.offset, entry.length)
            || entry.length as usize > DICTIONARY_BYTES_MAX
        {
            return Err(self.fault(part, entry.offset, "its length or place is impossible"));
        }
        let mut bytes = vec![0; entry.length as usize];
        self.read(entry.offset, &mut bytes)?;
        let table = TableIndex(entry.table);
        if dictionary_digest(self.identity(), entry.id, table, &bytes) != entry.digest {
            return Err(self.fault(part, entry.offset, "digest mismatch"));
        }
        Dictionary::new(entry.id, table, bytes)
            .ok_or_else(|| self.fault(part, entry.offset, "it is empty or has no id"))
    }
}
