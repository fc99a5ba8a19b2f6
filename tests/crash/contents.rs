//! The bytes of a file, in pages that copies share.

use std::io;
use std::sync::Arc;

const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// What a file holds. A copy costs a pointer a page.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    pages: Vec<Option<Arc<Page>>>,
    length: usize,
}

impl Contents {
    pub fn len(&self) -> usize {
        self.length
    }

    /// Makes it this long; what is new is zeros.
    pub fn set_length(&mut self, length: usize) {
        self.pages.resize(length.div_ceil(PAGE_BYTES), None);
        let in_last = length % PAGE_BYTES;
        if length < self.length
            && in_last > 0
            && let Some(Some(page)) = self.pages.last_mut()
        {
            Arc::make_mut(page)[in_last..].fill(0);
        }
        self.length = length;
    }

    /// Writes bytes; the file grows as it has to.
    pub fn write(&mut self, mut offset: usize, mut bytes: &[u8]) {
        if offset + bytes.len() > self.length {
            self.set_length(offset + bytes.len());
        }
        while !bytes.is_empty() {
            let start = offset % PAGE_BYTES;
            let count = bytes.len().min(PAGE_BYTES - start);
            let page = &mut self.pages[offset / PAGE_BYTES];
            let page = page.get_or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[start..start + count].copy_from_slice(&bytes[..count]);
            (offset, bytes) = (offset + count, &bytes[count..]);
        }
    }

    /// Reads what there is from this place on.
    pub fn read(&self, mut offset: usize, out: &mut [u8]) -> usize {
        let total = out.len().min(self.length.saturating_sub(offset));
        let mut rest = &mut out[..total];
        while !rest.is_empty() {
            let start = offset % PAGE_BYTES;
            let count = rest.len().min(PAGE_BYTES - start);
            let (part, after) = rest.split_at_mut(count);
            match &self.pages[offset / PAGE_BYTES] {
                Some(page) => part.copy_from_slice(&page[start..start + count]),
                None => part.fill(0),
            }
            (offset, rest) = (offset + count, after);
        }
        total
    }

    /// All of its bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        self.read(0, &mut bytes);
        bytes
    }

    /// Reads all of these bytes.
    pub fn read_exact(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        if self.read(offset, out) == out.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
}
