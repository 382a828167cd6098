//! `server init`: founds a fleet in a new directory, or leaves nothing behind.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use keyfall_protocol::command::SigningKey;
use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{AuditEntry, FleetRecord, Founding};
use zeroize::Zeroizing;

use crate::clock;
use crate::directory::{Directory, DirectoryError};
use crate::durable::sync_parent;
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
/// journal, `root.key` and `erase.key`.
///
/// # Errors
/// [`InitError`]; then everything is as it was.
pub fn init(path: &Path, founding: Founding, actor: String) -> Result<Founded, InitError> {
    let wall = clock::wall();
    if wall < keyfall_protocol::ids::YEAR_2026 {
        return Err(InitError::ClockBehind);
    }
    let (directory, made) = Directory::make(path)?;
    let rng = &mut OsRandom;
    let root = SigningKey::from_seed(Secret::init_with(|into| rng.fill(into)));
    let erase = SigningKey::from_seed(Secret::init_with(|into| rng.fill(into)));
    let fleet = FleetRecord::found(founding, &root, &erase.public(), wall, rng);
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
    write_key(&directory.erase_key(), &erase)?;
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

/// Writes a signing key as PKCS #8 PEM (RFC 8410 section 7), for the eyes of its owner only.
fn write_key(path: &Path, key: &SigningKey) -> Result<(), InitError> {
    let pem = pkcs8_pem(key.seed());
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(pem.as_bytes())?;
            file.sync_all()
        })
        .map_err(|source| InitError::KeyFile {
            path: path.to_owned(),
            source,
        })
}

fn pkcs8_pem(seed: &Secret<32>) -> Zeroizing<String> {
    let mut der = Zeroizing::new([0; 48]);
    der[..16].copy_from_slice(&ED25519_PKCS8);
    der[16..].copy_from_slice(seed.expose());
    let mut pem = Zeroizing::new(String::with_capacity(160));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    // 48 octets are 64 letters of base 64, without padding: one line.
    for three in der.chunks_exact(3) {
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for shift in [18, 12, 6, 0] {
            pem.push(char::from(BASE64[(bits >> shift & 63) as usize]));
        }
    }
    pem.push_str("\n-----END PRIVATE KEY-----\n");
    pem
}

/// PrivateKeyInfo of an Ed25519 key up to its 32 octets (RFC 8410 section 10.3).
const ED25519_PKCS8: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410 section 10.3, the first private key.
    #[test]
    fn a_key_file_is_the_one_of_the_standard() {
        let seed = [
            0xd4, 0xee, 0x72, 0xdb, 0xf9, 0x13, 0x58, 0x4a, 0xd5, 0xb6, 0xd8, 0xf1, 0xf7, 0x69,
            0xf8, 0xad, 0x3a, 0xfe, 0x7c, 0x28, 0xcb, 0xf1, 0xd4, 0xfb, 0xe0, 0x97, 0xa8, 0x8f,
            0x44, 0x75, 0x58, 0x42,
        ];
        let pem = pkcs8_pem(&Secret::from_slice(&seed).expect("32 octets"));
        assert_eq!(
            pem.as_str(),
            "-----BEGIN PRIVATE KEY-----\n\
             MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
             -----END PRIVATE KEY-----\n"
        );
    }
}
