//! [`Disk`]: the file system of the operating system.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::folder::folder_of;
use super::storage::{Place, Storage};

/// The file system. Files that are being written are locked: so others know that their writer lives.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    type File = File;

    fn find(&self, path: &Path) -> io::Result<Place> {
        let target = follow(path.to_owned())?;
        match fs::metadata(&target) {
            Ok(found) if found.is_dir() => {
                Err(io::Error::new(io::ErrorKind::IsADirectory, "is a folder"))
            }
            Ok(found) if !found.is_file() => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "is no regular file"))
            }
            Ok(_) => Ok(Place { target, is_there: true }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Place { target, is_there: false })
            }
            Err(error) => Err(error),
        }
    }

    /// A private file is for its owner alone at first.
    fn create(&self, path: &Path, is_private: bool) -> io::Result<Option<File>> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if is_private {
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
        #[cfg(not(unix))]
        let _ = is_private;
        let file = match options.open(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            opened => opened?,
        };
        // Where files cannot be locked, nobody takes this one for abandoned. Whoever took it for abandoned before it
        // was locked holds the lock while it is removed.
        let _ = file.lock();
        match fs::exists(path) {
            Ok(is_there) => Ok(is_there.then_some(file)),
            Err(error) => {
                let _ = fs::remove_file(path);
                Err(error)
            }
        }
    }

    #[cfg(unix)]
    fn take_after(&self, file: &File, replaced: &Path) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

        let (own, replaced) = (file.metadata()?, fs::metadata(replaced)?);
        let mut mode = replaced.mode() & 0o7777;
        if own.uid() != replaced.uid() && fchown(file, Some(replaced.uid()), None).is_err() {
            // What runs as its owner or its group must not run as another.
            mode &= 0o1777;
        }
        if own.gid() != replaced.gid() && fchown(file, None, Some(replaced.gid())).is_err() {
            // Another group may do what anyone may.
            mode = mode & 0o1707 | (mode & 0o7) << 3;
        }
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    #[cfg(not(unix))]
    fn take_after(&self, _: &File, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    /// The new name is an entry of the folder, which has a cache of its own. Only Unix opens folders.
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_abandoned(&self, path: &Path) -> io::Result<()> {
        let file = File::open(path)?;
        match file.try_lock() {
            Ok(()) => fs::remove_file(path),
            Err(TryLockError::WouldBlock) => Ok(()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Links that lead on to others, as many as Linux follows.
const MOST_LINKS: usize = 40;

/// Returns what a path leads to by symbolic links, whether it is there or not.
fn follow(mut path: PathBuf) -> io::Result<PathBuf> {
    for _ in 0..=MOST_LINKS {
        let is_link = fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink());
        if !is_link {
            return Ok(path);
        }
        let next = fs::read_link(&path)?;
        // Where it is absolute, joining gives it alone.
        path = folder_of(&path).join(next);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "too many levels of symbolic links"))
}
