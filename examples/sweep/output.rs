//! The folder with the results: all files or none.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use neurarch::state::file::NewFile;

/// The files of a sweep.
pub const NAMES: [&str; 4] =
    ["results.csv", "sweep.svg", "population.safetensors", "best.safetensors"];

/// A result could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", .path.display())]
pub struct OutputError {
    path: PathBuf,
    source: io::Error,
}

/// Makes the folder and finds out whether files can be made in it, before hours of training rather
/// than after.
pub fn check(folder: &Path) -> Result<(), OutputError> {
    let failed = |path: &Path, source| OutputError { path: path.to_owned(), source };
    fs::create_dir_all(folder).map_err(|source| failed(folder, source))?;
    for path in NAMES.map(|name| folder.join(name)) {
        NewFile::create(&path).map_err(|source| failed(&path, source))?;
    }
    Ok(())
}

/// Writes a text to the disk, all but its name.
pub fn write(path: PathBuf, text: &[u8]) -> Result<NewFile, OutputError> {
    let written = NewFile::create(&path).and_then(|mut file| {
        file.write_all(text)?;
        file.sync()?;
        Ok(file)
    });
    written.map_err(|source| OutputError { path, source })
}

/// Gives each file its name.
pub fn commit(files: impl IntoIterator<Item = NewFile>) -> Result<(), OutputError> {
    for file in files {
        let path = file.path().to_owned();
        file.commit().map_err(|source| OutputError { path, source })?;
    }
    Ok(())
}
