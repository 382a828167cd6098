//! The terminal that a directory holds, while no process runs it.

use std::path::Path;

use keyfall_api::control::TerminalStatus;
use keyfall_protocol::ids::Tick;
use keyfall_protocol::terminal::{SnapshotError, Terminal};

use crate::key_store::{Guard, KeyStore, KeyStoreError, Protection, UnlockError};
use crate::os_random::OsRandom;
use crate::status::status;

/// Why a directory gives no terminal.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error(transparent)]
    Store(#[from] KeyStoreError),
    #[error("{0}: enrol this terminal anew in another directory")]
    Snapshot(#[from] SnapshotError),
}

/// The terminal in `dir` as it was stored last, to look at: locked where a passphrase is needed.
///
/// # Errors
/// [`StoredError`]; [`KeyStoreError::InUse`] where a process runs it: ask that.
pub fn restore(dir: &Path) -> Result<Terminal, StoredError> {
    restore_at(dir, Tick::default()).map(|stored| stored.terminal)
}

/// What people are shown of the terminal in `dir`.
///
/// # Errors
/// As [`restore`].
pub fn stored_status(dir: &Path) -> Result<TerminalStatus, StoredError> {
    let stored = restore_at(dir, Tick::default())?;
    Ok(status(&stored.terminal, &stored.guard))
}

/// Sets, changes or removes the passphrase of the terminal in `dir`; `old` is the one before, "" for
/// none. Returns who opens it now.
///
/// # Errors
/// [`ProtectError`]. A wrong `old` costs a try.
pub fn protect(dir: &Path, old: &str, new: Option<&Protection>) -> Result<Guard, ProtectError> {
    let Stored {
        mut store,
        terminal,
        ..
    } = restore_at(dir, Tick::default())?;
    if !terminal.may_unlock() {
        return Err(ProtectError::LockedByServer);
    }
    store.set_protection(&mut OsRandom, old, new)?;
    Ok(store.guard()?)
}

/// Why the passphrase is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ProtectError {
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    #[error("{LOCKED_BY_SERVER}")]
    LockedByServer,
}

impl From<KeyStoreError> for ProtectError {
    fn from(error: KeyStoreError) -> Self {
        Self::Stored(error.into())
    }
}

/// An open store, and what it gave.
pub(crate) struct Stored {
    pub(crate) store: KeyStore,
    pub(crate) terminal: Terminal,
    pub(crate) guard: Guard,
}

/// The terminal, switched on at `now`.
pub(crate) fn restore_at(dir: &Path, now: Tick) -> Result<Stored, StoredError> {
    let (store, opened) = KeyStore::open(dir)?;
    let user = opened.user.as_ref().map(|user| &user[..]);
    let terminal = Terminal::restore(&opened.device, user, now)?;
    let guard = store.guard()?;
    Ok(Stored {
        store,
        terminal,
        guard,
    })
}

pub(crate) const LOCKED_BY_SERVER: &str = "the server locked this terminal: only an UNLOCK of the \
                                           server's ends that, as `keyfall admin unlock` gives it";
