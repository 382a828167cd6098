//! Where a terminal keeps its keys on disk: sealed, and forgotten with each new commit.
//!
//! Two snapshots, opaque here: of the *device* compartment, which the machine opens, and of the
//! *user* compartment, which a PIN or passphrase opens where one is set. Each is sealed under a key
//! that is drawn for it alone. That key, or the half of it that a passphrase does not give, lies in
//! one of two slots. Slots are overwritten in place: on ext4 that leaves no copy of the old octets,
//! while truncating or renaming a file leaves the old block behind. So whatever sealed snapshot
//! remains in a free block, nothing on the disk opens it (FORMATS section 9, "Erasing on disk").
//! A file system that copies on write, or flash that does so by itself, may still hold old slots.
//!
//! | File | Content |
//! | --- | --- |
//! | `root-slots` | eight blocks of 4096 octets: device slots A and B, user slots A and B, unlock records A and B, tries, end; what is unused is zero |
//! | `snapshot-a`, `snapshot-b` | what device slots A and B open, then perhaps dead octets |
//! | `user-a`, `user-b` | what user slots A and B open |
//! | `deleted` | after an erasure, instead of all others: what happened, as JSON |
//!
//! | Slot field | Octets | Meaning |
//! | --- | --- | --- |
//! | magic | 8 | `KF1 slot` |
//! | counter | 8 | number of the commit, big-endian; of two slots that are whole, the higher counts |
//! | length | 8 | octets of the sealed snapshot, tag included, big-endian |
//! | record | 8 | number of the unlock record that holds the user key; 0: there is no passphrase |
//! | part | 32 | the key (AES-256-GCM, for this one snapshot, so the nonce is zero), or with a record HKDF's salt over the user key |
//! | digest | 32 | SHA-256 of the sealed snapshot: whether it is whole is seen while it is locked |
//! | check | 32 | SHA-256 of what stands before: tells a slot from half a slot |
//!
//! A commit is three steps, each synced before the next: write the other slot, write the other
//! snapshot, zero the slot that was. A crash before the end of the second leaves the old snapshot
//! in force, because the new slot opens nothing yet; after it, the new one. The user compartment is
//! committed first.
//!
//! An unlock record holds the user key, 32 random octets, sealed under Argon2id of the passphrase;
//! a new passphrase means a new user key. A try is counted on the disk before it is made
//! ([`KeyStore::unlock`]); an erasure overwrites `root-slots` in one write before anything else
//! ([`KeyStore::erase`]).

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use keyfall_api::control::{Deleted, DeletionCause};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random;
use zeroize::Zeroizing;

use self::compartment::{Compartment, Half, Kind, UnderUserKey};
pub use self::erasure::Erasure;
pub use self::protection::{BoundSecretError, Guard, Protection, ProtectionError, TRY_LIMIT};
use self::protection::{UnlockRecord, count_try, forget_tries, tries};
use self::slots::SlotFile;
use crate::hardening::scrub_stack;

mod compartment;
mod erasure;
mod protection;
mod slots;
#[cfg(test)]
mod tests;

/// The two sealed snapshots of one terminal, in one directory, open in this process alone.
#[derive(Debug)]
pub struct KeyStore {
    /// The directory itself; locked for as long as the store is open.
    dir: File,
    dir_path: PathBuf,
    slots: SlotFile,
    device: Compartment,
    user: Compartment,
    /// None: the machine opens the user compartment.
    record: Option<UnlockRecord>,
    /// Where there is a record: held from the right passphrase until [`Self::lock`].
    user_key: Option<Secret<32>>,
    /// What was left of the store when it was erased.
    erased: Option<Deleted>,
}

/// What a store opens with.
#[derive(Debug)]
pub struct Opened {
    pub device: Zeroizing<Vec<u8>>,
    /// `None`: a passphrase is needed, [`KeyStore::unlock`].
    pub user: Option<Zeroizing<Vec<u8>>>,
}

impl KeyStore {
    /// Makes a store in `dir`, which is created where it is missing (its parent is not) and becomes
    /// readable by its owner only. Both snapshots are in force, durably, when this returns, and the
    /// user compartment is open.
    ///
    /// # Errors
    /// [`KeyStoreError::AlreadyExists`], [`KeyStoreError::Deleted`] and nothing is changed;
    /// [`KeyStoreError::InUse`]; [`KeyStoreError::Io`]: there is no store then, and creating again
    /// is allowed; [`UnlockError::Memory`].
    pub fn create(
        dir: &Path,
        rng: &mut dyn Random,
        device: &[u8],
        user: &[u8],
        protection: Option<&Protection>,
    ) -> Result<Self, UnlockError> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => sync_parent(dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("make the directory", dir, error).into()),
        }
        let lock = lock_dir(dir)?;
        if let Some(deleted) = erasure::read_deleted(dir)? {
            return Err(deleted_error(dir, deleted).into());
        }
        let slots_path = dir.join(SLOTS);
        if slots_path
            .try_exists()
            .map_err(|e| io_error("look for", &slots_path, e))?
        {
            let dir = dir.to_owned();
            return Err(KeyStoreError::AlreadyExists { dir }.into());
        }
        lock.set_permissions(Permissions::from_mode(0o700))
            .map_err(|e| io_error("restrict the mode of", dir, e))?;

        // What a creation that did not end has left is overwritten in place, too.
        let new_slots_path = dir.join(SLOTS_NEW);
        let mut store = Self {
            slots: SlotFile {
                file: open_or_create(&new_slots_path)?,
                path: new_slots_path.clone(),
            },
            device: Compartment::create(dir, Kind::Device)?,
            user: Compartment::create(dir, Kind::User)?,
            dir: lock,
            dir_path: dir.to_owned(),
            record: None,
            user_key: None,
            erased: None,
        };
        store.slots.clear()?;
        if let Some(protection) = protection {
            store.seal_user_key(rng, Half::A, 1, protection)?;
        }
        store.commit(rng, device, Some(user))?;
        // The name appears last: a directory with this file holds a whole store.
        std::fs::rename(&new_slots_path, &slots_path)
            .map_err(|e| io_error("rename", &new_slots_path, e))?;
        store.slots.path = slots_path;
        store.dir.sync_all().map_err(|e| io_error("sync", dir, e))?;
        Ok(store)
    }

    /// Opens the store in `dir`, and ends a commit or an erasure that a crash interrupted.
    ///
    /// # Errors
    /// [`KeyStoreError::NotEnrolled`] where there is no store, [`KeyStoreError::Deleted`],
    /// [`KeyStoreError::InUse`], [`KeyStoreError::Corrupt`], [`KeyStoreError::Io`].
    pub fn open(dir: &Path) -> Result<(Self, Opened), KeyStoreError> {
        let not_enrolled = || KeyStoreError::NotEnrolled {
            dir: dir.to_owned(),
        };
        let slots_path = dir.join(SLOTS);
        let lock = match lock_dir(dir) {
            Err(KeyStoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(not_enrolled());
            }
            other => other?,
        };
        let slots = match OpenOptions::new().read(true).write(true).open(&slots_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let deleted = erasure::read_deleted(dir)?;
                return Err(deleted.map_or_else(not_enrolled, |it| deleted_error(dir, it)));
            }
            other => SlotFile {
                file: other.map_err(|e| io_error("open", &slots_path, e))?,
                path: slots_path,
            },
        };
        if let Some(erasure) = erasure::interrupted(&slots)? {
            let deleted = erasure::erase(dir, &slots, &erasure)?;
            return Err(deleted_error(dir, deleted));
        }

        let (device, sealed) = Compartment::open(dir, &slots, Kind::Device)?;
        let device_snapshot = sealed
            .open(None)
            .ok_or_else(|| corrupt(dir, Kind::Device))?;
        let (user, sealed) = Compartment::open(dir, &slots, Kind::User)?;
        let record = UnlockRecord::of(&slots, dir, sealed.record())?;
        if let Some(record) = &record
            && tries(&slots)? >= record.try_limit
        {
            // The last try was begun and no right one came of it: the power was cut in between.
            let tries_used_up = Erasure::of_keys(DeletionCause::Tries);
            let deleted = erasure::erase(dir, &slots, &tries_used_up)?;
            return Err(deleted_error(dir, deleted));
        }
        let user_snapshot = match record {
            Some(_) => None,
            None => Some(sealed.open(None).ok_or_else(|| corrupt(dir, Kind::User))?),
        };
        let store = Self {
            dir: lock,
            dir_path: dir.to_owned(),
            slots,
            device,
            user,
            record,
            user_key: None,
            erased: None,
        };
        store.user.end_commit(dir, &store.slots)?;
        store.device.end_commit(dir, &store.slots)?;
        store.end_set_protection()?;
        let opened = Opened {
            device: device_snapshot,
            user: user_snapshot,
        };
        Ok((store, opened))
    }

    /// Puts the snapshots in force instead of those before, whose keys are overwritten. Durable,
    /// and the old ones lost for good, when this returns. Without `user` that compartment stays as
    /// it is, which is allowed while it is locked.
    ///
    /// # Errors
    /// [`KeyStoreError::UserLocked`] and nothing has changed; [`KeyStoreError::Io`], as where the
    /// disk is full: of each compartment one of the two snapshots is in force, and committing again
    /// is allowed.
    pub fn commit(
        &mut self,
        rng: &mut dyn Random,
        device: &[u8],
        user: Option<&[u8]>,
    ) -> Result<(), KeyStoreError> {
        self.refuse_erased()?;
        if let Some(user) = user {
            self.commit_user(rng, user)?;
        }
        self.device
            .commit(&self.dir_path, &self.slots, rng, None, device)
    }

    /// Opens the user compartment, and keeps it open. Where no passphrase is set the machine opens
    /// it, whatever is given. The try is counted on the disk before the passphrase is looked at.
    ///
    /// # Errors
    /// [`UnlockError`]: all but `WrongPassphrase` and `Wiped` cost no try.
    pub fn unlock(&mut self, passphrase: &str) -> Result<Zeroizing<Vec<u8>>, UnlockError> {
        self.refuse_erased()?;
        let Some(record) = &self.record else {
            return Ok(self.open_user(None)?);
        };
        let means = record.means()?;
        let counted = count_try(&self.slots, record.try_limit)?;
        let user_key = record.check(&counted, means, passphrase);
        scrub_stack();
        let Some(user_key) = user_key else {
            if counted.left > 0 {
                return Err(UnlockError::WrongPassphrase { left: counted.left });
            }
            self.erase(&Erasure::of_keys(DeletionCause::Tries))?;
            return Err(UnlockError::Wiped);
        };
        forget_tries(&self.slots)?;
        let snapshot = self.open_user(Some(&user_key))?;
        self.user_key = Some(user_key);
        Ok(snapshot)
    }

    /// Forgets the user key: from here the user compartment takes nothing and gives nothing until
    /// it is unlocked. Without a passphrase there is none to forget.
    pub fn lock(&mut self) {
        self.user_key = None;
        scrub_stack();
    }

    /// Sets, changes or removes the passphrase; `old` is the one before, "" where there was none.
    /// Afterwards the compartment is as open or locked as it was. The old passphrase opens nothing
    /// on this disk any more when this returns.
    ///
    /// # Errors
    /// As [`Self::unlock`], where a wrong `old` counts as a try; [`UnlockError::Store`]: the old or
    /// the new one is in force, and setting it again is allowed.
    pub fn set_protection(
        &mut self,
        rng: &mut dyn Random,
        old: &str,
        new: Option<&Protection>,
    ) -> Result<(), UnlockError> {
        let was_locked = self.is_locked();
        let snapshot = self.unlock(old)?;
        let before = (self.record.take(), self.user_key.take());
        let active = self.user.active;
        let set = match new {
            Some(new) => {
                let record = before.0.as_ref();
                let (half, number) = record.map_or((Half::A, 1), |record| {
                    (record.half.other(), record.number + 1)
                });
                self.seal_user_key(rng, half, number, new)
            }
            None => Ok(()),
        };
        let set = set.and_then(|()| Ok(self.commit_user(rng, &snapshot)?));
        if set.is_err() && self.user.active == active {
            (self.record, self.user_key) = before;
        }
        if was_locked {
            self.lock();
        }
        scrub_stack();
        set?;
        Ok(self.end_set_protection()?)
    }

    /// Erases: first, in one write, all that opens anything; then what can be removed. Afterwards
    /// the store takes and gives nothing. Returns what happened, with what could not be removed.
    ///
    /// # Errors
    /// [`KeyStoreError::Io`]: erasing again is allowed and needed.
    pub fn erase(&mut self, erasure: &Erasure) -> Result<Deleted, KeyStoreError> {
        self.lock();
        if let Some(deleted) = &self.erased
            && !erasure.everything
        {
            return Ok(deleted.clone());
        }
        let deleted = erasure::erase(&self.dir_path, &self.slots, erasure)?;
        self.erased = Some(deleted.clone());
        Ok(deleted)
    }

    /// Takes back what [`Self::create`] made: the keys are overwritten, and the directory goes where nothing
    /// else is in it.
    ///
    /// # Errors
    /// [`KeyStoreError::Io`]: the keys open nothing any more, or nothing was done.
    pub(crate) fn discard(mut self) -> Result<(), KeyStoreError> {
        self.lock();
        erasure::discard(&self.dir_path, &self.slots)
    }

    /// Whether a passphrase is needed before the user compartment gives or takes anything.
    #[must_use]
    pub const fn is_locked(&self) -> bool {
        self.record.is_some() && self.user_key.is_none()
    }

    /// Who opens the user compartment.
    ///
    /// # Errors
    /// [`KeyStoreError::Io`]: the count of tries cannot be read.
    pub fn guard(&self) -> Result<Guard, KeyStoreError> {
        match &self.record {
            None => Ok(Guard::Machine),
            Some(record) => Ok(record.guard(tries(&self.slots)?)),
        }
    }

    fn commit_user(&mut self, rng: &mut dyn Random, user: &[u8]) -> Result<(), KeyStoreError> {
        let under = match (&self.record, &self.user_key) {
            (None, _) => None,
            (Some(record), Some(key)) => Some(UnderUserKey {
                record: record.number,
                key,
            }),
            (Some(_), None) => {
                let dir = self.dir_path.clone();
                return Err(KeyStoreError::UserLocked { dir });
            }
        };
        self.user
            .commit(&self.dir_path, &self.slots, rng, under, user)
    }

    fn open_user(
        &self,
        user_key: Option<&Secret<32>>,
    ) -> Result<Zeroizing<Vec<u8>>, KeyStoreError> {
        let sealed = self.user.read(&self.dir_path, &self.slots)?;
        sealed
            .open(user_key)
            .ok_or_else(|| corrupt(&self.dir_path, Kind::User))
    }

    /// Writes an unlock record beside the one in force; the next commit needs it.
    fn seal_user_key(
        &mut self,
        rng: &mut dyn Random,
        half: Half,
        number: u64,
        protection: &Protection,
    ) -> Result<(), UnlockError> {
        let (record, user_key) = UnlockRecord::seal(rng, number, half, protection)?;
        scrub_stack();
        record.write(&self.slots)?;
        self.record = Some(record);
        self.user_key = Some(user_key);
        Ok(())
    }

    /// SECURITY: zeroes the record that is not in force.
    fn end_set_protection(&self) -> Result<(), KeyStoreError> {
        for half in Half::BOTH {
            if self
                .record
                .as_ref()
                .is_none_or(|record| record.half != half)
            {
                UnlockRecord::zero(half, &self.slots)?;
            }
        }
        Ok(())
    }

    fn refuse_erased(&self) -> Result<(), KeyStoreError> {
        match &self.erased {
            Some(deleted) => Err(deleted_error(&self.dir_path, deleted.clone())),
            None => Ok(()),
        }
    }
}

/// Why a key store does not open or does not take a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum KeyStoreError {
    #[error(
        "{} holds no keys: enrol this terminal first, with `keyfall terminal enrol DIR PACKAGE`",
        dir.display()
    )]
    NotEnrolled { dir: PathBuf },
    #[error(
        "{} already holds the keys of a terminal: enrol into another directory",
        dir.display()
    )]
    AlreadyExists { dir: PathBuf },
    #[error(
        "the keys in {} were erased: {}; enrol this terminal anew in another directory",
        dir.display(),
        deleted.cause.sentence()
    )]
    Deleted { dir: PathBuf, deleted: Box<Deleted> },
    #[error(
        "{what} in {} are damaged and their keys are lost: enrol this terminal anew in another \
         directory",
        dir.display()
    )]
    Corrupt { dir: PathBuf, what: Part },
    #[error(
        "another process has the keys in {} open: end it first, or ask it over its control socket",
        dir.display()
    )]
    InUse { dir: PathBuf },
    #[error(
        "the terminal in {} is locked: unlock it first, with `keyfall terminal unlock`",
        dir.display()
    )]
    UserLocked { dir: PathBuf },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Why the user compartment does not open, or its passphrase is not set.
#[derive(Debug, thiserror::Error)]
pub enum UnlockError {
    #[error("wrong passphrase: {} left, then every key in this terminal is erased", tries_text(*left))]
    WrongPassphrase { left: u8 },
    #[error(
        "wrong passphrase, and that was the last try: every key in this terminal is erased; enrol \
         it anew in another directory"
    )]
    Wiped,
    #[error("{0}; this used no try")]
    BoundSecret(#[from] BoundSecretError),
    #[error(
        "there is not enough memory to check a passphrase, 64 MiB are needed; this used no try"
    )]
    Memory,
    #[error(transparent)]
    Store(#[from] KeyStoreError),
}

fn tries_text(left: u8) -> String {
    match left {
        1 => "1 try".to_owned(),
        _ => format!("{left} tries"),
    }
}

/// The part of a store that is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// No device slot is whole.
    Slots,
    /// No device snapshot is what its slot is for.
    Snapshot,
    /// As `Slots`, of the user compartment.
    UserSlots,
    /// As `Snapshot`, of the user compartment.
    UserSnapshot,
    /// The unlock record that the user compartment needs is not whole.
    Unlock,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Slots => "the root slots",
            Self::Snapshot => "the snapshots",
            Self::UserSlots => "the root slots of the user compartment",
            Self::UserSnapshot => "the snapshots of the user compartment",
            Self::Unlock => "the unlock records",
        })
    }
}

fn corrupt(dir: &Path, kind: Kind) -> KeyStoreError {
    KeyStoreError::Corrupt {
        dir: dir.to_owned(),
        what: kind.snapshot_part(),
    }
}

fn deleted_error(dir: &Path, deleted: Deleted) -> KeyStoreError {
    KeyStoreError::Deleted {
        dir: dir.to_owned(),
        deleted: Box::new(deleted),
    }
}

fn lock_dir(dir: &Path) -> Result<File, KeyStoreError> {
    let file = File::open(dir).map_err(|e| io_error("open the directory", dir, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(KeyStoreError::InUse {
            dir: dir.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error("lock the directory", dir, error)),
    }
}

fn open_or_create(path: &Path) -> Result<File, KeyStoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| io_error("open", path, e))
}

/// A new directory is durable once the one it stands in is.
fn sync_parent(dir: &Path) -> Result<(), KeyStoreError> {
    let parent = match dir.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(parent)
        .and_then(|parent| parent.sync_all())
        .map_err(|e| io_error("sync the directory", parent, e))
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> KeyStoreError {
    KeyStoreError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

const SLOTS: &str = "root-slots";
/// The slot file of a creation that has not ended.
const SLOTS_NEW: &str = "root-slots.new";
