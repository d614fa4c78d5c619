//! What a checkpoint looks like as bytes: the header, and how sections lie behind it. `docs/checkpoint.md` draws it.

use crc_fast::CrcAlgorithm;

/// What every checkpoint begins with.
const MAGIC: [u8; 8] = *b"neurarch";

/// The version of the format that is written here.
pub(super) const VERSION: u32 = 1;

/// Written as this machine writes numbers: reads otherwise on one that writes them the other way round.
const BYTE_ORDER: u32 = 0x0102_0304;

/// The header's bytes, which are zero behind its fields. The first section begins there.
pub(super) const HEADER_BYTES: usize = 4096;

/// What sections of at least so many bytes are aligned to: a page.
pub(super) const PAGE_BYTES: u64 = 4096;

/// What shorter sections are aligned to: a cache line.
pub(super) const LINE_BYTES: u64 = 64;

/// How many bytes have a checksum together; of the sections, the last one's are fewer.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// Bytes of the header's fields; the checksum over all of the header is the last one.
const FIELDS_BYTES: usize = 48;

/// Where the checksum lies.
const SUM_AT: usize = FIELDS_BYTES - 8;

/// What a section of so many bytes is aligned to.
pub(super) fn alignment(bytes: u64) -> u64 {
    if bytes >= PAGE_BYTES { PAGE_BYTES } else { LINE_BYTES }
}

/// Computes the checksum of some bytes.
///
/// Source: CRC-64/NVME.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes)
}

/// The first bytes of a file, written last: where the index is, and its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Where the index begins, which is where the sections end.
    pub(super) index_at: u64,
    /// Its bytes. The file ends with it.
    pub(super) index_bytes: u64,
    /// Its checksum.
    pub(super) index_sum: u64,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// The file does not begin as checkpoints do.
    #[error("is no checkpoint: it does not begin with the word 'neurarch'")]
    Magic,
    /// It is shorter than a header.
    #[error("is no checkpoint: expected a header of {HEADER_BYTES} bytes, got a file of {0}")]
    Short(u64),
    /// It was written by another version.
    #[error("expected a checkpoint of version {VERSION}, got one of version {0}")]
    Version(u32),
    /// It was written by a machine that writes numbers the other way round.
    #[error("was written by a machine of the other byte order")]
    ByteOrder,
    /// The header's bytes have another checksum.
    #[error("the header was changed: its checksum is wrong")]
    Sum,
    /// The file ends elsewhere than the index does.
    #[error("expected a file of {expected} bytes, got {given}")]
    Length {
        /// Where the index ends.
        expected: u64,
        /// Where the file does.
        given: u64,
    },
}

impl Header {
    /// Writes it.
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&BYTE_ORDER.to_ne_bytes());
        put(&self.index_at.to_le_bytes());
        put(&self.index_bytes.to_le_bytes());
        put(&self.index_sum.to_le_bytes());
        let sum = sum_of(&bytes);
        bytes[SUM_AT..FIELDS_BYTES].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// Reads and checks it, in a file of so many bytes.
    pub(super) fn from_bytes(bytes: &[u8], file_bytes: u64) -> Result<Self, HeaderError> {
        let bytes = bytes.first_chunk::<HEADER_BYTES>().ok_or(HeaderError::Short(file_bytes))?;
        if bytes[..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        if bytes[12..16] != BYTE_ORDER.to_ne_bytes() {
            let is_swapped = bytes[12..16] == BYTE_ORDER.swap_bytes().to_ne_bytes();
            return Err(if is_swapped { HeaderError::ByteOrder } else { HeaderError::Sum });
        }
        if number(bytes, SUM_AT) != sum_of(bytes) {
            return Err(HeaderError::Sum);
        }
        let version = number(bytes, 8) as u32;
        if version != VERSION {
            return Err(HeaderError::Version(version));
        }
        let [index_at, index_bytes, index_sum] = [16, 24, 32].map(|at| number(bytes, at));
        let expected = index_at.saturating_add(index_bytes);
        if expected != file_bytes || index_at < HEADER_BYTES as u64 {
            return Err(HeaderError::Length { expected, given: file_bytes });
        }
        Ok(Header { index_at, index_bytes, index_sum })
    }
}

/// Computes the checksum of a header, its own field taken as zeros.
fn sum_of(bytes: &[u8; HEADER_BYTES]) -> u64 {
    let mut bytes = *bytes;
    bytes[SUM_AT..FIELDS_BYTES].fill(0);
    checksum(&bytes)
}

fn number(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
