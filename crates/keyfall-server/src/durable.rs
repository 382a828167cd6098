//! What makes a new file survive a power failure.

use std::fs::File;
use std::io;
use std::path::Path;

/// Syncs the directory that `path` stands in: a new name is durable only after that.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}
