//! [`NewFile`]: a file that appears under its name only when it is complete.

mod disk;
mod folder;
mod storage;

use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

pub use self::disk::Disk;
use self::folder::folder_of;
pub use self::storage::{Place, Storage};

/// A file being written under a temporary name, which [`commit`](NewFile::commit) turns into its own.
///
/// Until then a file of that name stays as it was, and nobody sees a part of the new one. Dropping a
/// `NewFile` that was not committed removes the temporary file; that of a process that was killed goes when a file of
/// that name is next started. Several files that belong together are best all written first and committed one after
/// the other. What is written can be written over before it is committed, by `Seek`.
///
/// It lies on the [`Disk`], or in another [`Storage`], such as one that fails in a test.
///
/// A symbolic link stays one: what it leads to is replaced. The new file has the mode of the one that it replaces, and
/// its owner and group where the process may give them; other hard links keep the old one.
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
pub struct NewFile<S: Storage = Disk> {
    storage: S,
    file: BufWriter<S::File>,
    temporary: PathBuf,
    /// As it was given.
    path: PathBuf,
    /// What that leads to.
    target: PathBuf,
    committed: bool,
}

impl NewFile {
    /// Starts a file on the disk; its folder must exist.
    ///
    /// # Errors
    ///
    /// If `path` is a folder or a device, names no file, or is a link that leads nowhere; or if its folder does not
    /// let a file be made.
    pub fn create(path: impl Into<PathBuf>) -> io::Result<Self> {
        NewFile::create_in(Disk, path)
    }
}

impl<S: Storage> NewFile<S> {
    /// Starts a file in a storage; its folder must exist.
    ///
    /// # Errors
    ///
    /// As [`create`](NewFile::create).
    pub fn create_in(storage: S, path: impl Into<PathBuf>) -> io::Result<Self> {
        let path = path.into();
        let Place { target, is_there } = storage.find(&path)?;
        let Some(name) = target.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "names no file"));
        };
        let prefix = prefix(name);
        remove_stale(&storage, folder_of(&target), &prefix);
        let (file, temporary) = start(&storage, &target, &prefix, is_there)?;
        let file = BufWriter::new(file);
        let file = NewFile { storage, file, temporary, path, target, committed: false };
        if is_there {
            file.storage.take_after(file.file.get_ref(), &file.target)?;
        }
        Ok(file)
    }

    /// Returns the name that the file will have.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until all bytes are on the disk, then gives the file its name, in place of any that had it.
    ///
    /// # Errors
    ///
    /// If the disk is full or fails. A file that had the name is then as it was, unless syncing the folder failed, which
    /// comes last: then the new one has the name, and a power failure may bring the old one back.
    pub fn commit(mut self) -> io::Result<()> {
        self.sync()?;
        self.storage.rename(&self.temporary, &self.target)?;
        self.committed = true;
        self.storage.sync_folder(folder_of(&self.target))
    }

    /// Waits until all bytes written so far are on the disk, so that a later
    /// [`commit`](NewFile::commit) has little left to fail at.
    ///
    /// # Errors
    ///
    /// If the disk is full or fails.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.storage.sync(self.file.get_ref())
    }
}

/// Bytes of a file's name that its temporary files show. With the numbers they stay below the 255 of most systems.
const SHOWN_BYTES: usize = 200;

/// Returns what the names of the temporary files of a file start with: its own name, cut where it is long, and a number
/// that tells long names apart.
fn prefix(name: &OsStr) -> String {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let mut shown = name.to_string_lossy().into_owned();
    shown.truncate(shown.floor_char_boundary(SHOWN_BYTES));
    format!(".{shown}.{:016x}-", hasher.finish())
}

/// What the names of temporary files end with.
const SUFFIX: &str = ".tmp";

/// Makes a temporary file, of a name that no other has. One that is to replace another is for its owner alone at first.
fn start<S: Storage>(
    storage: &S,
    target: &Path,
    prefix: &str,
    is_private: bool,
) -> io::Result<(S::File, PathBuf)> {
    loop {
        // The operating system's random numbers are the standard library's seeds.
        let number = RandomState::new().build_hasher().finish();
        let temporary = target.with_file_name(format!("{prefix}{number:016x}{SUFFIX}"));
        if let Some(file) = storage.create(&temporary, is_private)? {
            return Ok((file, temporary));
        }
    }
}

/// Removes the temporary files that writers of this file left behind when they were killed. What cannot be removed stays.
fn remove_stale(storage: &impl Storage, folder: &Path, prefix: &str) {
    for name in storage.list(folder).into_iter().flatten() {
        let number = name.to_str().and_then(|name| name.strip_prefix(prefix)?.strip_suffix(SUFFIX));
        let is_number =
            |number: &str| number.len() == 16 && u64::from_str_radix(number, 16).is_ok();
        if number.is_some_and(is_number) {
            // The next writer tries again.
            let _ = storage.remove_abandoned(&folder.join(name));
        }
    }
}

impl<S: Storage> Write for NewFile<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What was written before can be written over: a header that says where the rest lies.
impl<S: Storage> Seek for NewFile<S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl<S: Storage> Drop for NewFile<S> {
    fn drop(&mut self) {
        if !self.committed {
            // There is nobody left to tell; the next writer tries again.
            let _ = self.storage.remove(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    /// Saves as users do.
    fn save(path: &Path, text: &str) -> io::Result<()> {
        let mut file = NewFile::create(path)?;
        file.write_all(text.as_bytes())?;
        file.commit()
    }

    #[test]
    fn names_are_as_long_as_the_file_system_lets_them_be() {
        let folder = Folder::new("long");
        for name in ["n".repeat(245), "n".repeat(255), "ü".repeat(127), "ü".repeat(100)] {
            save(&folder.0.join(&name), "a").unwrap();
            save(&folder.0.join(&name), "b").unwrap();
            assert_eq!(fs::read_to_string(folder.0.join(&name)).unwrap(), "b");
            fs::remove_file(folder.0.join(&name)).unwrap();
        }
        assert!(folder.names().is_empty());
        assert_ne!(prefix(OsStr::new(&"n".repeat(245))), prefix(OsStr::new(&"n".repeat(246))));
    }

    #[test]
    fn many_writers_of_one_file_leave_one_whole_file() {
        let folder = Folder::new("writers");
        let path = folder.0.join("a.csv");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        save(path, &writer.to_string().repeat(1000)).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.replace(&text[..1], "").len()), (1000, 0));
        assert_eq!(folder.names(), ["a.csv"]);
    }

    /// What a child process of the test below runs.
    #[test]
    fn writer_that_will_be_killed() {
        let Some(path) = std::env::var_os("NEURARCH_TEST_UNFINISHED_FILE") else { return };
        let mut file = NewFile::create(PathBuf::from(path)).unwrap();
        file.write_all(b"half").unwrap();
        file.flush().unwrap();
        loop {
            std::thread::park();
        }
    }

    #[test]
    fn what_a_killed_writer_left_goes_and_what_a_live_one_writes_stays() {
        let folder = Folder::new("killed");
        let path = folder.0.join("model.st");
        fs::write(&path, "old").unwrap();
        fs::write(folder.0.join(".model.st.1-0.tmp"), "another program's").unwrap();
        fs::write(folder.0.join(".model.st.backup.tmp"), "the user's").unwrap();
        let name = concat!(module_path!(), "::writer_that_will_be_killed");
        let name = name.split_once("::").unwrap().1;
        let mut child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env("NEURARCH_TEST_UNFINISHED_FILE", &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let unfinished = || -> Vec<String> {
            let all = folder.names().into_iter();
            all.filter(|name| name.starts_with(&prefix(OsStr::new("model.st")))).collect()
        };
        let is_written = |name: &String| fs::read(folder.0.join(name)).unwrap() == b"half";
        while !unfinished().iter().any(is_written) {
            assert!(child.try_wait().unwrap().is_none(), "the child waits to be killed");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let left = unfinished();
        save(&path, "first").unwrap();
        assert_eq!(unfinished(), left, "its writer lives");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "first", "half a file is none");
        save(&path, "second").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "second");
        assert_eq!(unfinished(), Vec::<String>::new(), "its writer is gone");
        assert_eq!(folder.names().len(), 3, "nothing else was touched");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_stays_one_and_what_it_leads_to_is_replaced() {
        use std::os::unix::fs::symlink;

        let folder = Folder::new("links");
        let at = |name: &str| folder.0.join(name);
        fs::create_dir(at("deep")).unwrap();
        fs::write(at("deep/file"), "old").unwrap();
        symlink("deep/file", at("relative")).unwrap();
        symlink(at("relative"), at("chain")).unwrap();
        symlink("deep/none", at("dangling")).unwrap();
        symlink("round", at("round")).unwrap();
        symlink("missing/none", at("nowhere")).unwrap();
        symlink("deep", at("folder")).unwrap();
        for (link, target) in
            [("relative", "deep/file"), ("chain", "deep/file"), ("dangling", "deep/none")]
        {
            save(&at(link), link).unwrap();
            assert!(at(link).is_symlink());
            assert!(!at(target).is_symlink());
            assert_eq!(fs::read_to_string(at(target)).unwrap(), link);
        }
        save(&at("folder/file"), "below").unwrap();
        assert_eq!(fs::read_to_string(at("deep/file")).unwrap(), "below");
        assert_eq!(save(&at("folder"), "").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert!(save(&at("round"), "").is_err() && save(&at("nowhere"), "").is_err());
        assert!(at("round").is_symlink() && at("nowhere").is_symlink());
    }

    #[cfg(unix)]
    #[test]
    fn the_mode_is_kept_and_a_device_is_no_place_for_a_file() {
        use std::os::unix::fs::PermissionsExt;

        let folder = Folder::new("modes");
        for mode in [0o600, 0o640, 0o444, 0o755] {
            let path = folder.0.join(format!("{mode:o}"));
            fs::write(&path, "old").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let file = NewFile::create(&path).unwrap();
            let temporary = fs::metadata(&file.temporary).unwrap().permissions().mode();
            assert_eq!(temporary & 0o7777, mode, "nor are the bytes shown to others before");
            file.commit().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        let error = NewFile::create("/dev/null").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
