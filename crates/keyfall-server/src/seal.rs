//! Keys at rest: what of the server's database is secret is sealed under a key that is not in it.
//!
//! The seal key lies in a file of mode 0600 beside the database. That guards backups and copies of
//! the database, not the machine: who reads the server's files reads this one too.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::{aead, hkdf};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::{Random, octets};
use zeroize::Zeroizing;

#[cfg(test)]
mod tests;

/// What seals and opens secrets of the database.
///
/// Blob = salt 24 ‖ ciphertext ‖ tag 16, where `AES-256-GCM[key, nonce, AD = place](secret)` with
/// key 32 ‖ nonce 12 = `HKDF-Expand-SHA256(seal key, "KF1 seal" ‖ salt, 44)`. The salt is random
/// and makes a key for each blob, so that no count of blobs is too many.
#[derive(Debug)]
pub struct Sealer {
    key: Secret<32>,
}

impl Sealer {
    /// Draws a seal key and writes it to a new file at `path`, durably.
    ///
    /// # Errors
    /// [`SealKeyError::AlreadyExists`] and the file there is untouched; [`SealKeyError::Io`].
    pub fn create(path: &Path, rng: &mut dyn Random) -> Result<Self, SealKeyError> {
        let made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let mut file = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(SealKeyError::AlreadyExists {
                    path: path.to_owned(),
                });
            }
            other => other.map_err(|e| io_error("make", path, e))?,
        };
        let key = Secret::init_with(|octets| rng.fill(octets));
        file.write_all(key.expose())
            .and_then(|()| file.sync_all())
            .and_then(|()| crate::durable::sync_parent(path))
            .map_err(|e| io_error("write", path, e))?;
        Ok(Self { key })
    }

    /// Reads the seal key from `path`.
    ///
    /// # Errors
    /// [`SealKeyError::TooOpen`] where others may read the file; [`SealKeyError::Missing`],
    /// [`SealKeyError::Damaged`], [`SealKeyError::Io`].
    pub fn read(path: &Path) -> Result<Self, SealKeyError> {
        let mut file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SealKeyError::Missing {
                    path: path.to_owned(),
                });
            }
            other => other.map_err(|e| io_error("open", path, e))?,
        };
        let metadata = file.metadata().map_err(|e| io_error("look at", path, e))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(SealKeyError::TooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        if metadata.len() != 32 {
            return Err(SealKeyError::Damaged {
                path: path.to_owned(),
                len: metadata.len(),
            });
        }
        let key = Secret::try_init_with(|octets| file.read_exact(octets))
            .map_err(|e| io_error("read", path, e))?;
        Ok(Self { key })
    }

    /// Seals `secret` for its one place, written `table/row/column`. It opens nowhere else, so
    /// sealed blobs cannot be swapped within the database.
    #[must_use]
    pub fn seal(&self, rng: &mut dyn Random, place: &str, secret: &[u8]) -> Vec<u8> {
        let salt: [u8; SALT_LEN] = octets(rng);
        let (cipher, nonce) = self.cipher(&salt);
        let mut blob = Vec::with_capacity(SALT_LEN + secret.len() + TAG_LEN);
        blob.extend_from_slice(&salt);
        blob.extend_from_slice(secret);
        let tag = cipher
            .seal_in_place_separate_tag(nonce, aead::Aad::from(place), &mut blob[SALT_LEN..])
            .expect("memory holds no secret beyond the 64 GiB of AES-GCM");
        blob.extend_from_slice(tag.as_ref());
        blob
    }

    /// The secret that was sealed for `place`.
    ///
    /// # Errors
    /// [`NotOpened`] for any other key, place or content, and for a blob that is too short.
    pub fn open(&self, place: &str, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotOpened> {
        let not_opened = || NotOpened {
            place: place.to_owned(),
        };
        let (salt, sealed) = blob.split_first_chunk().ok_or_else(not_opened)?;
        let (cipher, nonce) = self.cipher(salt);
        let mut octets = Zeroizing::new(sealed.to_vec());
        let len = cipher
            .open_in_place(nonce, aead::Aad::from(place), &mut octets)
            .map_err(|_| not_opened())?
            .len();
        octets.truncate(len);
        Ok(octets)
    }

    fn cipher(&self, salt: &[u8; SALT_LEN]) -> (aead::LessSafeKey, aead::Nonce) {
        let keys: Secret<44> = Secret::init_with(|out| {
            hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, self.key.expose())
                .expand(&[LABEL, salt], KeyAndNonce)
                .and_then(|okm| okm.fill(out))
                .expect("44 octets are two blocks");
        });
        let (key, nonce) = keys.expose().split_at(32);
        let key = aead::UnboundKey::new(&aead::AES_256_GCM, key);
        let nonce = aead::Nonce::try_assume_unique_for_key(nonce);
        (
            aead::LessSafeKey::new(key.expect("32 octets are an AES-256 key")),
            nonce.expect("12 octets are a nonce"),
        )
    }
}

/// Why there is no seal key.
#[derive(Debug, thiserror::Error)]
pub enum SealKeyError {
    #[error(
        "{} already exists and may be the only key to a database: move it away first",
        path.display()
    )]
    AlreadyExists { path: PathBuf },
    #[error(
        "{} is missing: put it back from where you keep it, for nothing else opens the database",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error(
        "{} has mode {mode:04o} and others may read the key to all keys: chmod 600 {}",
        path.display(),
        path.display()
    )]
    TooOpen { path: PathBuf, mode: u32 },
    #[error(
        "{} has {len} octets instead of 32: put it back from where you keep it",
        path.display()
    )]
    Damaged { path: PathBuf, len: u64 },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// A sealed blob that does not open.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "what is sealed at {place} does not open: seal.key belongs to another database, or the \
     database was changed"
)]
pub struct NotOpened {
    pub place: String,
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> SealKeyError {
    SealKeyError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

struct KeyAndNonce;

impl hkdf::KeyType for KeyAndNonce {
    fn len(&self) -> usize {
        44
    }
}

const LABEL: &[u8] = b"KF1 seal";
const SALT_LEN: usize = 24;
const TAG_LEN: usize = 16;
