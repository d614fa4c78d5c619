//! [`Map`]: a file in memory without being read.
#![expect(unsafe_code, reason = "a file that is mapped can be changed by others")]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

/// The bytes of a file, which the operating system reads when they are looked at.
#[derive(Debug)]
pub(super) struct Map(Mmap);

impl Map {
    /// Maps a file.
    ///
    /// # Errors
    ///
    /// If it cannot be opened or mapped.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: the bytes are those of a file, and a reference to them asks that they stay as they are: nobody may write to
        // the file or cut it while it is mapped. This crate never does, for it replaces files by others of the same name.
        // That no other program does is what `Checkpoint::open` asks of its caller, in its first paragraph; `Checkpoint::read`
        // needs no such trust.
        unsafe { Mmap::map(&file) }.map(Map)
    }

    /// Views the bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}
