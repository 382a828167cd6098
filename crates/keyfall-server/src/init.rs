//! `server init`: founds a fleet in a new directory, or leaves nothing behind.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keyfall_protocol::command::SigningKey;
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{AuditEntry, FleetRecord, Founding};

use crate::clock;
use crate::directory::{Directory, DirectoryError};
use crate::durable::sync_parent;
use crate::key_file;
use crate::os_random::OsRandom;
use crate::store::{Store, StoreError};

/// What was made.
#[derive(Clone, Debug)]
pub struct Founded {
    pub directory: Directory,
    /// When the first online key ends.
    pub signers_expire: UnixSeconds,
}

/// Why no server was made; nothing is left behind.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot write {}: {source}", path.display())]
    KeyFile { path: PathBuf, source: io::Error },
    #[error("the clock of this machine stands before 2026: set it, for epochs are counted by it")]
    ClockBehind,
}

/// Makes root, erase and online keys, signs the first KEYSET, and writes database, seal key,
/// journal, `root.key` and `erase.key`; as many erase keys as `erase_keys` says go into
/// `erase-2.key` and so on.
///
/// # Errors
/// [`InitError`]; then everything is as it was.
pub fn init_with(
    path: &Path,
    mut founding: Founding,
    erase_keys: u8,
    actor: String,
) -> Result<Founded, InitError> {
    let wall = clock::wall();
    if wall < keyfall_protocol::ids::YEAR_2026 {
        return Err(InitError::ClockBehind);
    }
    let (directory, made) = Directory::make(path)?;
    let rng = &mut OsRandom;
    let root = SigningKey::from_seed(Secret::init_with(|into| rng.fill(into)));
    let erase: Vec<_> = (0..erase_keys.max(1))
        .map(|_| SigningKey::from_seed(Secret::init_with(|into| rng.fill(into))))
        .collect();
    founding.further_erase = erase[1..].iter().map(SigningKey::public).collect();
    let fleet = FleetRecord::found(founding, &root, &erase[0].public(), wall, rng);
    let founded = AuditEntry {
        at: wall,
        actor,
        action: "server init",
        subject: fleet.name.clone(),
        outcome: format!("stream {}, root {}", fleet.stream, fleet.root.name()),
        reason: None,
        ticket: None,
    };
    // The database comes last: where there is one, there is all of it.
    let first = write_key(&directory.root_key(), &root);
    if let Err(InitError::KeyFile { source, .. }) = &first
        && source.kind() == io::ErrorKind::AlreadyExists
    {
        // Another `init` runs in the same directory: what is there is its own.
        return Err(first.expect_err("it was looked at"));
    }
    let unfinished = Unfinished {
        directory: &directory,
        made,
    };
    first?;
    for (number, key) in (1..).zip(&erase) {
        write_key(&directory.erase_key(number), key)?;
    }
    Store::create(&directory, &fleet, &founded, rng)?;
    let durable = sync_parent(&directory.database()).and_then(|()| sync_parent(path));
    durable.map_err(|source| InitError::KeyFile {
        path: path.to_owned(),
        source,
    })?;
    std::mem::forget(unfinished);
    Ok(Founded {
        signers_expire: fleet.signers_expire(),
        directory,
    })
}

/// [`init_with`] one erase key.
///
/// # Errors
/// [`InitError`]; then everything is as it was.
pub fn init(path: &Path, founding: Founding, actor: String) -> Result<Founded, InitError> {
    init_with(path, founding, 1, actor)
}

/// Takes away again what was made so far, unless `init` came to its end.
struct Unfinished<'d> {
    directory: &'d Directory,
    made: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let path = self.directory.path();
        let outcome = if self.made {
            fs::remove_dir_all(path)
        } else {
            // It was there before, and empty.
            fs::read_dir(path).and_then(|mut entries| {
                entries.try_for_each(|entry| fs::remove_file(entry?.path()))
            })
        };
        if let Err(error) = outcome {
            tracing::warn!(path = %path.display(), %error, "what was begun could not be removed");
        }
    }
}

fn write_key(path: &Path, key: &SigningKey) -> Result<(), InitError> {
    key_file::write(path, key).map_err(|source| InitError::KeyFile {
        path: path.to_owned(),
        source,
    })
}
