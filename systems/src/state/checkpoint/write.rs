//! [`Sections`]: the bytes of a checkpoint on their way into a file, with the checksum of each MiB.

use std::io::Write;
use std::path::Path;

use super::error::CheckpointError;
use super::format::{BLOCK_BYTES, HEADER_BYTES, alignment, checksum};
use super::index::Section;

/// Writes sections one behind the other. It holds a MiB at a time, whatever the size of the file.
pub(super) struct Sections<'a, W> {
    file: &'a mut W,
    /// The file's name, for errors.
    path: &'a Path,
    /// Where the next byte goes.
    at: u64,
    block: Vec<u8>,
    sums: Vec<u64>,
}

impl<'a, W: Write> Sections<'a, W> {
    /// Begins behind a header, for which it leaves room.
    pub(super) fn begin(file: &'a mut W, path: &'a Path) -> Result<Self, CheckpointError> {
        let block = Vec::with_capacity(BLOCK_BYTES);
        let mut sections =
            Sections { file, path, at: HEADER_BYTES as u64, block, sums: Vec::new() };
        sections.write(&[0; HEADER_BYTES])?;
        Ok(sections)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), CheckpointError> {
        self.file.write_all(bytes).map_err(|error| CheckpointError::io(self.path, error))
    }

    /// Begins a section of so many bytes, which [`put`](Sections::put) writes.
    pub(super) fn section(&mut self, bytes: u64) -> Result<Section, CheckpointError> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let padding = self.at.next_multiple_of(alignment(bytes)) - self.at;
        self.put(&ZEROS[..padding as usize])?;
        Ok(Section { at: self.at, bytes })
    }

    /// Writes the next bytes of a section.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), CheckpointError> {
        self.at += bytes.len() as u64;
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK_BYTES {
                self.end_block()?;
            }
        }
        Ok(())
    }

    /// Writes a section as a whole.
    pub(super) fn put_section(&mut self, bytes: &[u8]) -> Result<Section, CheckpointError> {
        let section = self.section(bytes.len() as u64)?;
        self.put(bytes)?;
        Ok(section)
    }

    fn end_block(&mut self) -> Result<(), CheckpointError> {
        self.sums.push(checksum(&self.block));
        let mut block = std::mem::take(&mut self.block);
        self.write(&block)?;
        block.clear();
        self.block = block;
        Ok(())
    }

    /// Ends the last section; gives where it ends, and the checksums.
    pub(super) fn finish(mut self) -> Result<(u64, Vec<u64>), CheckpointError> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        Ok((self.at, self.sums))
    }
}
