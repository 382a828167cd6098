//! A compartment: two slots, two snapshot files, and which of the two is in force.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aws_lc_rs::{aead, digest, hkdf};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random;
use zeroize::Zeroizing;

use super::slots::{Block, SlotFile};
use super::{KeyStoreError, Part, io_error, open_or_create};

/// One compartment of an open store.
#[derive(Debug)]
pub(super) struct Compartment {
    kind: Kind,
    files: [File; 2],
    /// The half whose snapshot is in force.
    pub(super) active: Half,
    /// Number of the commit in force.
    counter: u64,
}

/// Which compartment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Opened by the machine.
    Device,
    /// Opened by the passphrase, where one is set.
    User,
}

/// A slot and the snapshot file that belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Half {
    A,
    B,
}

/// What the user compartment needs beside its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct UnderUserKey<'a> {
    /// Number of the unlock record that the user key is sealed in, from 1.
    pub(super) record: u64,
    pub(super) key: &'a Secret<32>,
}

impl Kind {
    pub(super) const fn block(self, half: Half) -> Block {
        match (self, half) {
            (Self::Device, Half::A) => Block::DeviceA,
            (Self::Device, Half::B) => Block::DeviceB,
            (Self::User, Half::A) => Block::UserA,
            (Self::User, Half::B) => Block::UserB,
        }
    }

    pub(super) const fn file_name(self, half: Half) -> &'static str {
        match (self, half) {
            (Self::Device, Half::A) => "snapshot-a",
            (Self::Device, Half::B) => "snapshot-b",
            (Self::User, Half::A) => "user-a",
            (Self::User, Half::B) => "user-b",
        }
    }

    const fn associated_data(self) -> &'static [u8] {
        match self {
            Self::Device => b"KF1 device store",
            Self::User => b"KF1 user store",
        }
    }

    const fn slots_part(self) -> Part {
        match self {
            Self::Device => Part::Slots,
            Self::User => Part::UserSlots,
        }
    }

    pub(super) const fn snapshot_part(self) -> Part {
        match self {
            Self::Device => Part::Snapshot,
            Self::User => Part::UserSnapshot,
        }
    }
}

impl Half {
    pub(super) const BOTH: [Self; 2] = [Self::A, Self::B];

    pub(super) const fn other(self) -> Self {
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
}

impl Compartment {
    /// An empty one, whose slots are zero; the first commit goes to half A.
    pub(super) fn create(dir: &Path, kind: Kind) -> Result<Self, KeyStoreError> {
        Ok(Self {
            kind,
            files: open_files(dir, kind)?,
            active: Half::B,
            counter: 0,
        })
    }

    /// The one in `dir`, with what is in force in it, still sealed. Changes nothing.
    pub(super) fn open(
        dir: &Path,
        slots: &SlotFile,
        kind: Kind,
    ) -> Result<(Self, Sealed), KeyStoreError> {
        let corrupt = |what| KeyStoreError::Corrupt {
            dir: dir.to_owned(),
            what,
        };
        let mut found = Vec::new();
        for half in Half::BOTH {
            found.extend(Slot::read(slots, kind, half)?.map(|slot| (half, slot)));
        }
        if found.is_empty() {
            return Err(corrupt(kind.slots_part()));
        }
        found.sort_by_key(|(_, slot)| std::cmp::Reverse(slot.counter));
        let files = open_files(dir, kind)?;
        for (active, slot) in found {
            let path = dir.join(kind.file_name(active));
            let octets = slot
                .read_sealed(&files[active.index()])
                .map_err(|e| io_error("read", &path, e))?;
            if let Some(octets) = octets {
                let compartment = Self {
                    kind,
                    files,
                    active,
                    counter: slot.counter,
                };
                return Ok((compartment, Sealed { kind, slot, octets }));
            }
        }
        Err(corrupt(kind.snapshot_part()))
    }

    /// What is in force, still sealed.
    pub(super) fn read(&self, dir: &Path, slots: &SlotFile) -> Result<Sealed, KeyStoreError> {
        let corrupt = |what| KeyStoreError::Corrupt {
            dir: dir.to_owned(),
            what,
        };
        let slot = Slot::read(slots, self.kind, self.active)?
            .ok_or_else(|| corrupt(self.kind.slots_part()))?;
        let path = dir.join(self.kind.file_name(self.active));
        let octets = slot
            .read_sealed(&self.files[self.active.index()])
            .map_err(|e| io_error("read", &path, e))?
            .ok_or_else(|| corrupt(self.kind.snapshot_part()))?;
        Ok(Sealed {
            kind: self.kind,
            slot,
            octets,
        })
    }

    /// Puts `snapshot` in force instead of the one before, whose key is overwritten.
    pub(super) fn commit(
        &mut self,
        dir: &Path,
        slots: &SlotFile,
        rng: &mut dyn Random,
        under: Option<UnderUserKey<'_>>,
        snapshot: &[u8],
    ) -> Result<(), KeyStoreError> {
        let next = self.active.other();
        let (slot, sealed) = Slot::seal(rng, self.kind, self.counter + 1, under, snapshot);
        slots.write(self.kind.block(next), slot.encode().expose())?;
        let file = &self.files[next.index()];
        file.write_all_at(&sealed, 0)
            .and_then(|()| file.sync_data())
            .map_err(|e| io_error("write", &dir.join(self.kind.file_name(next)), e))?;
        // INVARIANT: from here the new slot is never overwritten before a newer one is whole, also
        // where zeroing the old one fails.
        self.active = next;
        self.counter = slot.counter;
        self.zero_old_slot(slots)
    }

    /// After a crash: what is in force may be written and not synced, and the old key may still
    /// be there.
    pub(super) fn end_commit(&self, dir: &Path, slots: &SlotFile) -> Result<(), KeyStoreError> {
        self.files[self.active.index()]
            .sync_data()
            .map_err(|e| io_error("sync", &dir.join(self.kind.file_name(self.active)), e))?;
        self.zero_old_slot(slots)
    }

    /// SECURITY: in place and synced; this is what makes the past unreadable.
    fn zero_old_slot(&self, slots: &SlotFile) -> Result<(), KeyStoreError> {
        slots.write(self.kind.block(self.active.other()), &[0; SLOT_LEN])
    }
}

/// Whether an erasure has begun: in a store in use one of the two slots is always written.
pub(super) fn slots_are_zero(slots: &SlotFile, kind: Kind) -> Result<bool, KeyStoreError> {
    let mut both_zero = true;
    for half in Half::BOTH {
        let octets = Secret::<SLOT_LEN>::try_init_with(|into| slots.read(kind.block(half), into))?;
        both_zero &= octets.expose().iter().all(|octet| *octet == 0);
    }
    Ok(both_zero)
}

/// A snapshot whose octets are whole, and the slot that opens it.
#[derive(Debug)]
pub(super) struct Sealed {
    kind: Kind,
    slot: Slot,
    octets: Zeroizing<Vec<u8>>,
}

impl Sealed {
    /// Number of the unlock record that is needed beside the slot; 0: none.
    pub(super) const fn record(&self) -> u64 {
        self.slot.record
    }

    /// The snapshot; `None` where the keys are others.
    pub(super) fn open(mut self, user_key: Option<&Secret<32>>) -> Option<Zeroizing<Vec<u8>>> {
        let aad = aead::Aad::from(self.kind.associated_data());
        let len = cipher(&self.slot.snapshot_key(user_key))
            .open_in_place(zero_nonce(), aad, &mut self.octets)
            .ok()?
            .len();
        self.octets.truncate(len);
        Some(self.octets)
    }
}

/// What a slot says: the key of one snapshot, or the part of it that dies with the slot.
#[derive(Debug)]
struct Slot {
    counter: u64,
    /// Octets of the sealed snapshot, tag included.
    sealed_len: u64,
    /// As in [`UnderUserKey`]; 0: the key is `part` itself.
    record: u64,
    part: Secret<32>,
    /// SHA-256 of the sealed snapshot: whether it is whole can be told without its key.
    digest: [u8; 32],
}

impl Slot {
    /// `AES-256-GCM[fresh key, nonce 0, AD](snapshot)`, and the slot that opens it.
    fn seal(
        rng: &mut dyn Random,
        kind: Kind,
        counter: u64,
        under: Option<UnderUserKey<'_>>,
        snapshot: &[u8],
    ) -> (Self, Vec<u8>) {
        let mut slot = Self {
            counter,
            sealed_len: (snapshot.len() + TAG_LEN) as u64,
            record: under.map_or(0, |under| under.record),
            part: Secret::init_with(|octets| rng.fill(octets)),
            digest: [0; 32],
        };
        // Room for the tag from the start: a growing buffer would leave plaintext behind.
        let mut sealed = Vec::with_capacity(snapshot.len() + TAG_LEN);
        sealed.extend_from_slice(snapshot);
        cipher(&slot.snapshot_key(under.map(|under| under.key)))
            .seal_in_place_append_tag(
                zero_nonce(),
                aead::Aad::from(kind.associated_data()),
                &mut sealed,
            )
            .expect("memory holds no snapshot beyond the 64 GiB of AES-GCM");
        slot.digest = sha256(&sealed);
        (slot, sealed)
    }

    /// `part`, or HKDF-SHA-256 with salt `part` over the user key, info "KF1 user".
    fn snapshot_key(&self, user_key: Option<&Secret<32>>) -> Secret<32> {
        let Some(user_key) = user_key else {
            return self.part.duplicate();
        };
        let extracted =
            hkdf::Salt::new(hkdf::HKDF_SHA256, self.part.expose()).extract(user_key.expose());
        Secret::init_with(|octets| {
            extracted
                .expand(&[b"KF1 user"], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(octets))
                .expect("32 octets are one block of SHA-256");
        })
    }

    /// The octets in `file`; `None` where they are not those that this slot is for.
    fn read_sealed(&self, file: &File) -> std::io::Result<Option<Zeroizing<Vec<u8>>>> {
        if self.sealed_len > file.metadata()?.len() {
            return Ok(None);
        }
        let Ok(sealed_len) = usize::try_from(self.sealed_len) else {
            return Ok(None);
        };
        let mut octets = Zeroizing::new(vec![0; sealed_len]);
        file.read_exact_at(&mut octets, 0)?;
        Ok((sha256(&octets) == self.digest).then_some(octets))
    }

    /// `None`: unused, or half written.
    fn read(slots: &SlotFile, kind: Kind, half: Half) -> Result<Option<Self>, KeyStoreError> {
        let octets = Secret::<SLOT_LEN>::try_init_with(|into| slots.read(kind.block(half), into))?;
        Ok(Self::decode(&octets))
    }

    fn encode(&self) -> Secret<SLOT_LEN> {
        Secret::init_with(|octets| {
            octets[..8].copy_from_slice(&MAGIC);
            octets[8..16].copy_from_slice(&self.counter.to_be_bytes());
            octets[16..24].copy_from_slice(&self.sealed_len.to_be_bytes());
            octets[24..32].copy_from_slice(&self.record.to_be_bytes());
            octets[32..64].copy_from_slice(self.part.expose());
            octets[64..CHECKED_LEN].copy_from_slice(&self.digest);
            let check = sha256(&octets[..CHECKED_LEN]);
            octets[CHECKED_LEN..].copy_from_slice(&check);
        })
    }

    fn decode(octets: &Secret<SLOT_LEN>) -> Option<Self> {
        let (checked, check) = octets.expose().split_at(CHECKED_LEN);
        if checked[..8] != MAGIC || sha256(checked) != check {
            return None;
        }
        let number = |at: usize| {
            Some(u64::from_be_bytes(
                checked.get(at..at + 8)?.try_into().ok()?,
            ))
        };
        Some(Self {
            counter: number(8)?,
            sealed_len: number(16)?,
            record: number(24)?,
            part: Secret::from_slice(&checked[32..64])?,
            digest: checked[64..].try_into().ok()?,
        })
    }
}

pub(super) fn cipher(key: &Secret<32>) -> aead::LessSafeKey {
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, key.expose());
    aead::LessSafeKey::new(key.expect("32 octets are an AES-256 key"))
}

/// Every key here is drawn for one message.
pub(super) fn zero_nonce() -> aead::Nonce {
    aead::Nonce::assume_unique_for_key([0; aead::NONCE_LEN])
}

pub(super) fn sha256(octets: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
    out
}

fn open_files(dir: &Path, kind: Kind) -> Result<[File; 2], KeyStoreError> {
    Ok([
        open_or_create(&dir.join(kind.file_name(Half::A)))?,
        open_or_create(&dir.join(kind.file_name(Half::B)))?,
    ])
}

pub(super) const SLOT_LEN: usize = 128;
/// All but the check.
const CHECKED_LEN: usize = 96;
const MAGIC: [u8; 8] = *b"KF1 slot";
pub(super) const TAG_LEN: usize = 16;
