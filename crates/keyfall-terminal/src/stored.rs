//! The terminal that a directory holds, while no process runs it.

use std::path::Path;

use keyfall_protocol::ids::Tick;
use keyfall_protocol::terminal::{SnapshotError, Terminal};

use crate::key_store::{KeyStore, KeyStoreError};

/// Why a directory gives no terminal.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    #[error("{0}: enrol this terminal anew in another directory")]
    Snapshot(#[from] SnapshotError),
}

/// The terminal in `dir` as it was stored last, to look at.
///
/// # Errors
/// [`StoredError`]; [`KeyStoreError::Locked`] where a process runs it: ask that.
pub fn restore(dir: &Path) -> Result<Terminal, StoredError> {
    restore_at(dir, Tick::default()).map(|(_, terminal)| terminal)
}

/// The terminal, switched on at `now`, and its store.
pub(crate) fn restore_at(dir: &Path, now: Tick) -> Result<(KeyStore, Terminal), StoredError> {
    let (store, snapshot) = KeyStore::open(dir)?;
    let terminal = Terminal::restore(&snapshot, now)?;
    Ok((store, terminal))
}
