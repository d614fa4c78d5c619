//! [`NewFile`]: a file that appears under its name only when it is complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file being written under a temporary name, which [`commit`](NewFile::commit) turns into its own.
///
/// Until then a file of that name stays as it was, and nobody sees a part of the new one. Dropping a
/// `NewFile` that was not committed removes the temporary file. Several files that belong together are
/// best all written first and committed one after the other.
///
/// # Example
///
/// ```
/// # use std::io::Write;
/// # use neurarch_systems::state::file::NewFile;
/// # let folder = std::env::temp_dir().join(format!("neurarch-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// let path = folder.join("losses.csv");
/// let mut file = NewFile::create(&path)?;
/// writeln!(file, "step,loss")?;
/// assert!(!path.exists());
/// file.commit()?;
/// assert_eq!(std::fs::read_to_string(&path)?, "step,loss\n");
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct NewFile {
    file: BufWriter<File>,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl NewFile {
    /// Starts a file; its folder must exist.
    ///
    /// # Errors
    ///
    /// If `path` is a folder or names no file, or if its folder does not let a file be made.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        // Two threads that write the same path each get a temporary file of their own.
        static COUNT: AtomicU64 = AtomicU64::new(0);

        let path = path.into();
        if path.is_dir() {
            return Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder"));
        }
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "names no file"));
        };
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let hidden = format!(".{}.{}-{count}.tmp", name.to_string_lossy(), std::process::id());
        let temporary = path.with_file_name(hidden);
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        Ok(NewFile { file: BufWriter::new(file), temporary, path, committed: false })
    }

    /// Gives the name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until all bytes are on the disk, then gives the file its name, in place of any that had it.
    ///
    /// # Errors
    ///
    /// If the disk is full or fails. A file that had the name is then as it was.
    pub fn commit(mut self) -> io::Result<()> {
        self.sync()?;
        fs::rename(&self.temporary, &self.path)?;
        self.committed = true;
        sync_folder(&self.path)
    }

    /// Waits until all bytes written so far are on the disk, so that a later
    /// [`commit`](NewFile::commit) has little left to fail at.
    ///
    /// # Errors
    ///
    /// If the disk is full or fails.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()
    }
}

/// The new name is an entry of the folder, which has a cache of its own. Only Unix opens folders.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if cfg!(unix) { File::open(folder.unwrap_or(Path::new(".")))?.sync_all() } else { Ok(()) }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.committed {
            // There is nobody left to tell, and a stray temporary file harms no one.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of the test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let folder =
                std::env::temp_dir().join(format!("neurarch-{}-{test}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Folder(folder)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_that_is_not_committed_leaves_the_old_one_and_nothing_else() {
        let folder = Folder::new("abandoned");
        let path = folder.0.join("a.csv");
        fs::write(&path, "old").unwrap();
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(folder.names(), ["a.csv"]);
    }

    #[test]
    fn committing_replaces_the_old_file() {
        let folder = Folder::new("committed");
        let path = folder.0.join("a.csv");
        fs::write(&path, "old").unwrap();
        let mut file = NewFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(folder.names(), ["a.csv"]);
    }

    #[test]
    fn a_folder_is_no_place_for_a_file() {
        let folder = Folder::new("folder");
        let error = NewFile::create(&folder.0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
        assert!(NewFile::create(folder.0.join("missing").join("a.csv")).is_err());
    }
}
