//! `server backup`: a copy of the database that was read again before it counts.

use std::fs;
use std::path::{Path, PathBuf};

use keyfall_protocol::ids::UnixSeconds;

use crate::directory::{Directory, DirectoryError};
use crate::seal::Sealer;
use crate::store::{StoreError, copy, examine};

/// A backup that was made and read again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BackedUp {
    pub octets: u64,
    /// The newest moment that it knows of.
    pub newest: UnixSeconds,
    /// The order journal as far as it knows of it.
    pub journal_entries: u64,
    pub audit_entries: u64,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("{} is there already: name a new file, for a backup never replaces another", path.display())]
    Exists { path: PathBuf },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the copy does not read and was removed: {0}")]
    Unread(StoreError),
}

/// Copies the database of the server in `dir`, which may run, to the new file `file` of mode 0600,
/// and opens every key in the copy with the seal key.
///
/// # Errors
/// [`BackupError`]; no file is left then.
pub fn backup(dir: &Path, file: &Path) -> Result<BackedUp, BackupError> {
    let directory = Directory::open(dir)?;
    let sealer = Sealer::read(&directory.seal_key()).map_err(StoreError::from)?;
    if file.exists() {
        return Err(BackupError::Exists {
            path: file.to_owned(),
        });
    }
    let copied = copy(&directory.database(), file)
        .map_err(BackupError::Store)
        .and_then(|()| examine(file, Some(&sealer)).map_err(BackupError::Unread));
    let octets = fs::metadata(file).map_or(0, |metadata| metadata.len());
    match copied {
        Ok(copied) => Ok(BackedUp {
            octets,
            newest: copied.newest,
            journal_entries: copied.journalled.entries,
            audit_entries: copied.audit.entries,
        }),
        Err(error) => {
            let another = matches!(&error, BackupError::Store(StoreError::Make { source, .. })
                if source.kind() == std::io::ErrorKind::AlreadyExists);
            if !another {
                // Half a backup must not be taken for one.
                drop(fs::remove_file(file));
            }
            Err(error)
        }
    }
}
