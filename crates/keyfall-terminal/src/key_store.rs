//! Where a terminal keeps its keys on disk: sealed, and forgotten with each new commit.
//!
//! One snapshot, opaque here, sealed under a key that is drawn for it alone. The key lies in one of
//! two root slots. Slots are overwritten in place: on ext4 that leaves no copy of the old octets,
//! while truncating or renaming a file leaves the old block behind. So whatever sealed snapshot
//! remains in a free block, nothing on the disk opens it (FORMATS section 9, "Erasing on disk").
//! A file system that copies on write, or flash that does so by itself, may still hold old slots.
//!
//! | File | Content |
//! | --- | --- |
//! | `root-slots` | slot A at 0, slot B at 4096; an unused slot is all zero |
//! | `snapshot-a`, `snapshot-b` | what slot A and slot B open, then perhaps dead octets |
//!
//! | Slot field | Octets | Meaning |
//! | --- | --- | --- |
//! | magic | 8 | `KF1 root` |
//! | counter | 8 | number of the commit, big-endian; of two slots that open, the higher counts |
//! | length | 8 | octets of the sealed snapshot, tag included, big-endian |
//! | key | 32 | AES-256-GCM, for this one snapshot, so the nonce is zero |
//! | check | 32 | SHA-256 of what stands before: tells a slot from half a slot |
//!
//! A commit is three steps, each synced before the next: write the other slot, write the other
//! snapshot, zero the slot that was. A crash before the end of the second leaves the old snapshot
//! in force, because the new slot opens nothing yet; after it, the new one.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::{aead, digest};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random;
use zeroize::Zeroizing;

#[cfg(test)]
mod tests;

/// The sealed snapshot of one terminal, in one directory, open in this process alone.
#[derive(Debug)]
pub struct KeyStore {
    /// The directory itself; locked for as long as the store is open.
    dir: File,
    dir_path: PathBuf,
    slots: File,
    snapshots: [File; 2],
    /// The half whose snapshot is in force.
    active: Half,
    /// Number of the commit in force.
    counter: u64,
}

impl KeyStore {
    /// Makes a store in `dir`, which is created where it is missing (its parent is not) and becomes
    /// readable by its owner only. `snapshot` is in force, durably, when this returns.
    ///
    /// # Errors
    /// [`KeyStoreError::AlreadyExists`] and nothing is changed; [`KeyStoreError::Locked`];
    /// [`KeyStoreError::Io`]: there is no store then, and creating again is allowed.
    pub fn create(
        dir: &Path,
        rng: &mut dyn Random,
        snapshot: &[u8],
    ) -> Result<Self, KeyStoreError> {
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => sync_parent(dir)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(io_error("make the directory", dir, error)),
        }
        let lock = lock(dir)?;
        let slots_path = dir.join(SLOTS);
        if slots_path
            .try_exists()
            .map_err(|e| io_error("look for", &slots_path, e))?
        {
            return Err(KeyStoreError::AlreadyExists {
                dir: dir.to_owned(),
            });
        }
        lock.set_permissions(Permissions::from_mode(0o700))
            .map_err(|e| io_error("restrict the mode of", dir, e))?;

        // What a creation that did not end has left is overwritten in place, too.
        let new_slots_path = dir.join(SLOTS_NEW);
        let mut store = Self {
            slots: open_or_create(&new_slots_path)?,
            snapshots: [
                open_or_create(&dir.join(Half::A.snapshot_name()))?,
                open_or_create(&dir.join(Half::B.snapshot_name()))?,
            ],
            dir: lock,
            dir_path: dir.to_owned(),
            active: Half::B,
            counter: 0,
        };
        for half in [Half::A, Half::B] {
            let block = [0; SLOT_SPACING as usize];
            store
                .slots
                .write_all_at(&block, half.slot_offset())
                .map_err(|e| io_error("write", &new_slots_path, e))?;
        }
        store.commit(rng, snapshot)?;
        // The name appears last: a directory with this file holds a whole store.
        std::fs::rename(&new_slots_path, &slots_path)
            .map_err(|e| io_error("rename", &new_slots_path, e))?;
        store.dir.sync_all().map_err(|e| io_error("sync", dir, e))?;
        Ok(store)
    }

    /// Opens the store in `dir` and its snapshot, and ends a commit that a crash interrupted.
    ///
    /// # Errors
    /// [`KeyStoreError::NotEnrolled`] where there is no store, [`KeyStoreError::Locked`],
    /// [`KeyStoreError::Corrupt`], [`KeyStoreError::Io`]. None of them changes the store.
    pub fn open(dir: &Path) -> Result<(Self, Zeroizing<Vec<u8>>), KeyStoreError> {
        let not_enrolled = || KeyStoreError::NotEnrolled {
            dir: dir.to_owned(),
        };
        let slots_path = dir.join(SLOTS);
        let lock = match lock(dir) {
            Err(KeyStoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(not_enrolled());
            }
            other => other?,
        };
        let slots = match OpenOptions::new().read(true).write(true).open(&slots_path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_enrolled()),
            other => other.map_err(|e| io_error("open", &slots_path, e))?,
        };
        let corrupt = |what| KeyStoreError::Corrupt {
            dir: dir.to_owned(),
            what,
        };

        let mut found = Vec::new();
        for half in [Half::A, Half::B] {
            let slot = read_slot(&slots, half).map_err(|e| io_error("read", &slots_path, e))?;
            found.extend(slot.map(|slot| (half, slot)));
        }
        if found.is_empty() {
            return Err(corrupt(Part::Slots));
        }
        found.sort_by_key(|(_, slot)| std::cmp::Reverse(slot.counter));

        let snapshots = [
            open_or_create(&dir.join(Half::A.snapshot_name()))?,
            open_or_create(&dir.join(Half::B.snapshot_name()))?,
        ];
        for (active, slot) in found {
            let file = &snapshots[active.index()];
            let read = |e| io_error("read", &dir.join(active.snapshot_name()), e);
            if let Some(snapshot) = slot.open_snapshot(file).map_err(read)? {
                let dir_path = dir.to_owned();
                let counter = slot.counter;
                let store = Self {
                    dir: lock,
                    dir_path,
                    slots,
                    snapshots,
                    active,
                    counter,
                };
                store.end_commit()?;
                return Ok((store, snapshot));
            }
        }
        Err(corrupt(Part::Snapshot))
    }

    /// Puts `snapshot` in force instead of the one before, whose key is overwritten. Durable, and
    /// the old one lost for good, when this returns.
    ///
    /// # Errors
    /// [`KeyStoreError::Io`], as where the disk is full: one of the two snapshots is in force, and
    /// committing again is allowed.
    pub fn commit(&mut self, rng: &mut dyn Random, snapshot: &[u8]) -> Result<(), KeyStoreError> {
        let next = self.active.other();
        let (slot, sealed) = Slot::seal_snapshot(rng, self.counter + 1, snapshot);
        self.slots
            .write_all_at(slot.encode().expose(), next.slot_offset())
            .and_then(|()| self.slots.sync_data())
            .map_err(|e| io_error("write", &self.dir_path.join(SLOTS), e))?;
        let file = &self.snapshots[next.index()];
        file.write_all_at(&sealed, 0)
            .and_then(|()| file.sync_data())
            .map_err(|e| io_error("write", &self.dir_path.join(next.snapshot_name()), e))?;
        // INVARIANT: from here the new slot is never overwritten before a newer one is whole, also
        // where zeroing the old one fails.
        self.active = next;
        self.counter = slot.counter;
        self.zero_old_slot()
    }

    /// After a crash: what is in force may be written and not synced, and the old key may still
    /// be there.
    fn end_commit(&self) -> Result<(), KeyStoreError> {
        self.snapshots[self.active.index()]
            .sync_data()
            .map_err(|e| io_error("sync", &self.dir_path.join(self.active.snapshot_name()), e))?;
        self.zero_old_slot()
    }

    /// SECURITY: in place and synced; this is what makes the past unreadable.
    fn zero_old_slot(&self) -> Result<(), KeyStoreError> {
        self.slots
            .write_all_at(&[0; SLOT_LEN], self.active.other().slot_offset())
            .and_then(|()| self.slots.sync_data())
            .map_err(|e| io_error("erase the old key in", &self.dir_path.join(SLOTS), e))
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
        "{what} in {} are damaged and their keys are lost: enrol this terminal anew in another \
         directory",
        dir.display()
    )]
    Corrupt { dir: PathBuf, what: Part },
    #[error(
        "another process has the keys in {} open: end it first, or ask it over its control socket",
        dir.display()
    )]
    Locked { dir: PathBuf },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// The part of a store that is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// No root slot is whole.
    Slots,
    /// No snapshot opens with the key in its slot.
    Snapshot,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Slots => "the root slots",
            Self::Snapshot => "the snapshots",
        })
    }
}

/// A slot and the snapshot file that belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Half {
    A,
    B,
}

impl Half {
    const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }

    const fn slot_offset(self) -> u64 {
        match self {
            Self::A => 0,
            Self::B => SLOT_SPACING,
        }
    }

    const fn snapshot_name(self) -> &'static str {
        match self {
            Self::A => "snapshot-a",
            Self::B => "snapshot-b",
        }
    }
}

/// What a root slot says: the one key of one snapshot.
struct Slot {
    counter: u64,
    /// Octets of the sealed snapshot, tag included.
    sealed_len: u64,
    key: Secret<32>,
}

impl Slot {
    /// `AES-256-GCM[fresh key, nonce 0, AD "KF1 store"](snapshot)`, and the slot that opens it.
    fn seal_snapshot(rng: &mut dyn Random, counter: u64, snapshot: &[u8]) -> (Self, Vec<u8>) {
        let key = Secret::init_with(|octets| rng.fill(octets));
        // Room for the tag from the start: a growing buffer would leave plaintext behind.
        let mut sealed = Vec::with_capacity(snapshot.len() + TAG_LEN);
        sealed.extend_from_slice(snapshot);
        cipher(&key)
            .seal_in_place_append_tag(nonce(), aead::Aad::from(AD), &mut sealed)
            .expect("memory holds no snapshot beyond the 64 GiB of AES-GCM");
        (
            Self {
                counter,
                sealed_len: sealed.len() as u64,
                key,
            },
            sealed,
        )
    }

    /// The snapshot in `file`; `None` where this slot does not open it.
    fn open_snapshot(&self, file: &File) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        if self.sealed_len > file.metadata()?.len() {
            return Ok(None);
        }
        let Ok(sealed_len) = usize::try_from(self.sealed_len) else {
            return Ok(None);
        };
        let mut octets = Zeroizing::new(vec![0; sealed_len]);
        file.read_exact_at(&mut octets, 0)?;
        let opened = cipher(&self.key)
            .open_in_place(nonce(), aead::Aad::from(AD), &mut octets)
            .map(|snapshot| snapshot.len());
        Ok(opened.ok().map(|len| {
            octets.truncate(len);
            octets
        }))
    }

    fn encode(&self) -> Secret<SLOT_LEN> {
        Secret::init_with(|octets| {
            octets[..8].copy_from_slice(&MAGIC);
            octets[8..16].copy_from_slice(&self.counter.to_be_bytes());
            octets[16..24].copy_from_slice(&self.sealed_len.to_be_bytes());
            octets[24..56].copy_from_slice(self.key.expose());
            let check = digest::digest(&digest::SHA256, &octets[..56]);
            octets[56..].copy_from_slice(check.as_ref());
        })
    }

    /// `None` for an unused slot and for half a slot.
    fn decode(octets: &[u8; SLOT_LEN]) -> Option<Self> {
        let (content, check) = octets.split_at(56);
        let (magic, content) = content.split_at(8);
        let (counter, content) = content.split_at(8);
        let (sealed_len, key) = content.split_at(8);
        let whole =
            magic == MAGIC && digest::digest(&digest::SHA256, &octets[..56]).as_ref() == check;
        whole.then_some(Self {
            counter: u64::from_be_bytes(counter.try_into().ok()?),
            sealed_len: u64::from_be_bytes(sealed_len.try_into().ok()?),
            key: Secret::from_slice(key)?,
        })
    }
}

fn read_slot(slots: &File, half: Half) -> io::Result<Option<Slot>> {
    let mut octets = Zeroizing::new([0; SLOT_LEN]);
    match slots.read_exact_at(&mut octets[..], half.slot_offset()) {
        Ok(()) => Ok(Slot::decode(&octets)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn cipher(key: &Secret<32>) -> aead::LessSafeKey {
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, key.expose());
    aead::LessSafeKey::new(key.expect("32 octets are an AES-256 key"))
}

/// Zero: the key is drawn for one message.
fn nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

fn lock(dir: &Path) -> Result<File, KeyStoreError> {
    let file = File::open(dir).map_err(|e| io_error("open the directory", dir, e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(KeyStoreError::Locked {
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
/// Each slot has a disk block of its own: writing one cannot tear the other.
const SLOT_SPACING: u64 = 4096;
const SLOT_LEN: usize = 88;
const MAGIC: [u8; 8] = *b"KF1 root";
const AD: &[u8] = b"KF1 store";
const TAG_LEN: usize = 16;
