//! The RSA key of a terminal that is to speak the suite rsa-misty1: made here, and its public half shown,
//! for the server to register. While no process runs the terminal.

use std::path::Path;

use keyfall_protocol::error::ApiMisuse;
use keyfall_protocol::ids::Tick;
use keyfall_protocol::sharing::rsa_misty1::{RsaPublic, RsaSecret, RsaSize};
use keyfall_protocol::terminal::{Input, Output, Snapshot, Terminal};

use crate::hardening::scrub_stack;
use crate::key_store::{KeyStoreError, UnlockError};
use crate::os_random::OsRandom;
use crate::stored::{LOCKED_BY_SERVER, Stored, StoredError, restore_at};

/// The public half of the key of the terminal in `dir`; `passphrase` opens it, "" for none. Makes a key
/// of that size where there is none, and with `renew` in any case.
///
/// # Errors
/// [`LegacyKeyError`]; then the key is as it was. A wrong `passphrase` costs a try.
pub fn legacy_key(
    dir: &Path,
    passphrase: &str,
    size: RsaSize,
    renew: bool,
) -> Result<RsaPublic, LegacyKeyError> {
    let Stored {
        mut store,
        mut terminal,
        ..
    } = restore_at(dir, Tick::default())?;
    if !terminal.may_unlock() {
        return Err(LegacyKeyError::LockedByServer);
    }
    if terminal.wrap_key().is_none() {
        let user = store.unlock(passphrase)?;
        feed(&mut terminal, Input::Unlock(&user))?;
    }
    if let Some(held) = terminal.legacy_key().filter(|_| !renew) {
        return Ok(held.clone());
    }
    let key = RsaSecret::generate(size).ok_or(LegacyKeyError::NotMade)?;
    let public = key.public().clone();
    let snapshot = feed(&mut terminal, Input::LegacyKey(key))?;
    let snapshot = snapshot.ok_or(LegacyKeyError::NotMade)?;
    let user = snapshot.user.as_ref().map(|user| &user[..]);
    store.commit(&mut OsRandom, &snapshot.device, user)?;
    scrub_stack();
    Ok(public)
}

/// What is to be stored after `input`.
fn feed(terminal: &mut Terminal, input: Input<'_>) -> Result<Option<Snapshot>, LegacyKeyError> {
    let now = Tick::default();
    terminal.handle_input(now, &mut OsRandom, input)?;
    let mut newest = None;
    loop {
        match terminal.poll_output() {
            // One at a time: the next holds what came after. Only the last is made durable, and nobody
            // is told of one before.
            Output::Store(id, snapshot) => {
                newest = Some(snapshot);
                terminal.handle_input(now, &mut OsRandom, Input::Stored(id))?;
            }
            Output::Timeout { .. } => return Ok(newest),
            // Nobody listens.
            Output::ToServer(_) | Output::Erase(_) | Output::Event(_) => {}
            Output::Probe { .. } | Output::Answer { .. } | Output::ToPeer { .. } => {}
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum LegacyKeyError {
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    #[error("{LOCKED_BY_SERVER}")]
    LockedByServer,
    #[error("no RSA key could be made: try again")]
    NotMade,
    #[error("the machine refused an input: {0}")]
    Driven(#[from] ApiMisuse),
}

impl From<KeyStoreError> for LegacyKeyError {
    fn from(error: KeyStoreError) -> Self {
        Self::Stored(error.into())
    }
}
