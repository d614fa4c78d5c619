//! What a file of tensors is, by its first bytes.

use std::io::{self, Read, Seek, SeekFrom};

/// A kind of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileKind {
    /// What `torch.save` writes since 1.6: a zip archive.
    TorchZip,
    /// What it wrote before.
    TorchLegacy,
    /// Anything else: safetensors have no magic number.
    Other,
}

/// What a zip archive starts with.
const ZIP: &[u8] = b"PK\x03\x04";

/// What a legacy file starts with, as protocol 2 writes it: a magic number.
const LEGACY: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

impl FileKind {
    /// Looks at the first bytes, and goes back to the start.
    pub(super) fn read(file: &mut (impl Read + Seek)) -> io::Result<Self> {
        let mut start = Vec::new();
        file.by_ref().take(LEGACY.len() as u64).read_to_end(&mut start)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(if start.starts_with(ZIP) {
            FileKind::TorchZip
        } else if start == LEGACY {
            FileKind::TorchLegacy
        } else {
            FileKind::Other
        })
    }
}
