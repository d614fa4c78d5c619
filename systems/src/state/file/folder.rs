//! Where a file lies.

use std::path::Path;

/// Returns the folder of a path: the current one if it names none.
pub(super) fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}
