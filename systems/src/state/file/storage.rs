//! [`Storage`]: what saving asks of a file system.

use std::ffi::OsString;
use std::fmt::Debug;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

/// Where files are written: a [`Disk`](super::Disk), or what a test has in its place, which fails or forgets what was not
/// synced.
///
/// A call that fails may have done its deed in part.
pub trait Storage {
    /// A file that is open for writing. Others see that its writer lives until it is dropped.
    type File: Write + Seek + Debug;

    /// Finds what a path leads to by symbolic links, and whether a file is there.
    ///
    /// # Errors
    ///
    /// If something else is there, or links lead nowhere.
    fn find(&self, path: &Path) -> io::Result<Place>;

    /// Makes an empty file; `None` if there is one of that name, or the new one was removed at once by somebody who took it
    /// for abandoned.
    ///
    /// # Errors
    ///
    /// If the folder does not let it be made.
    fn create(&self, path: &Path, is_private: bool) -> io::Result<Option<Self::File>>;

    /// Returns a file the owner, the group and the mode of the one that it is to replace, as far as they can be given.
    ///
    /// # Errors
    ///
    /// If the mode cannot be set.
    fn take_after(&self, file: &Self::File, replaced: &Path) -> io::Result<()>;

    /// Waits until the bytes of a file are where they outlive a power failure.
    ///
    /// # Errors
    ///
    /// If there is no room, or the disk fails.
    fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Gives a file another name in its folder, in place of any file that has it: never a part of one.
    ///
    /// # Errors
    ///
    /// If the folder does not let it be.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Waits until the names in a folder are where they outlive a power failure.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// Lists the names in a folder.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// If the folder does not let it be.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a file whose writer is gone; leaves it if the writer lives.
    ///
    /// # Errors
    ///
    /// If the folder does not let it be.
    fn remove_abandoned(&self, path: &Path) -> io::Result<()>;
}

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The path of a file that is no link, or of none.
    pub target: PathBuf,
    /// Whether the file is there.
    pub is_there: bool,
}
