//! [`LogFile`]: a file that records are appended to, whole ones also after an error.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::report::log::LogError;

/// Records wait for so long, or until there are so many bytes of them.
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_BYTES: usize = 1 << 16;

/// A file, and what is not written to it yet.
pub(super) struct LogFile {
    pub(super) path: PathBuf,
    file: Box<dyn Write + Send + Sync>,
    waiting: Vec<u8>,
    flushed: Instant,
}

impl LogFile {
    /// Opens a file.
    pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Self, LogError> {
        let path = path.to_owned();
        match options.open(&path) {
            Ok(file) => Ok(LogFile {
                path,
                file: Box::new(file),
                waiting: Vec::new(),
                flushed: Instant::now(),
            }),
            Err(source) => Err(LogError::Write { path, source }),
        }
    }

    /// Appends a record.
    pub(super) fn append(&mut self, record: &[u8]) -> Result<(), LogError> {
        self.waiting.extend_from_slice(record);
        let is_due = self.waiting.len() >= MOST_BYTES || self.flushed.elapsed() >= PATIENCE;
        if is_due { self.flush() } else { Ok(()) }
    }

    /// Writes what waits. After an error, the next call goes on where this one stopped, so that no record is torn.
    pub(super) fn flush(&mut self) -> Result<(), LogError> {
        self.flushed = Instant::now();
        let written = self.write_waiting();
        written.map_err(|source| LogError::Write { path: self.path.clone(), source })
    }

    fn write_waiting(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.file.write(&self.waiting) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.file.flush()
    }
}

impl Drop for LogFile {
    fn drop(&mut self) {
        // Who wants to know of errors flushes before.
        let _ = self.flush();
    }
}

impl fmt::Debug for LogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogFile").field(&self.path).finish()
    }
}
