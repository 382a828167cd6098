//! The passphrase in front of the user compartment: what is stored for it, and the count of tries.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead;
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random;
use zeroize::Zeroizing;

use super::compartment::{Half, TAG_LEN, cipher, sha256, zero_nonce};
use super::slots::{Block, SlotFile};
use super::{KeyStoreError, Part, UnlockError};

/// A PIN or passphrase to be set, and what goes with it.
#[derive(Debug)]
pub struct Protection {
    passphrase: Zeroizing<String>,
    bound_secret: Option<BoundSecret>,
    try_limit: u8,
}

impl Protection {
    /// After `try_limit` wrong tries everything is erased. `bound_secret` names a file that only
    /// this machine can give (a TPM's, a service credential): the passphrase alone opens nothing
    /// without it.
    ///
    /// # Errors
    /// [`ProtectionError`]; nothing has changed.
    pub fn new(
        passphrase: Zeroizing<String>,
        bound_secret: Option<&Path>,
        try_limit: u8,
    ) -> Result<Self, ProtectionError> {
        let characters = passphrase.chars().count();
        if characters < PASSPHRASE_MIN {
            return Err(ProtectionError::TooShort);
        }
        if passphrase.len() > PASSPHRASE_MAX {
            return Err(ProtectionError::TooLong);
        }
        if !(TRY_LIMIT_MIN..=TRY_LIMIT_MAX).contains(&try_limit) {
            return Err(ProtectionError::TryLimit { got: try_limit });
        }
        Ok(Self {
            passphrase,
            bound_secret: bound_secret.map(BoundSecret::read).transpose()?,
            try_limit,
        })
    }

    /// Few characters, or digits alone: a computer tries them all.
    fn is_pin(&self) -> bool {
        self.passphrase.chars().count() < PIN_BELOW
            || self.passphrase.chars().all(|c| c.is_ascii_digit())
    }
}

/// Why a passphrase is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ProtectionError {
    #[error("a PIN has at least {PASSPHRASE_MIN} characters, a passphrase better 12 and more")]
    TooShort,
    #[error("a passphrase has at most {PASSPHRASE_MAX} octets")]
    TooLong,
    #[error("{got} tries: from {TRY_LIMIT_MIN} to {TRY_LIMIT_MAX} can be allowed")]
    TryLimit { got: u8 },
    #[error(transparent)]
    BoundSecret(#[from] BoundSecretError),
}

/// Why the bound secret is not there. It costs no try.
#[derive(Debug, thiserror::Error)]
pub enum BoundSecretError {
    #[error("cannot read the bound secret {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error(
        "the bound secret {} has {got} octets: it must have {BOUND_MIN} to {BOUND_MAX}",
        path.display()
    )]
    Length { path: PathBuf, got: usize },
    #[error("the path of the bound secret is longer than {BOUND_PATH_MAX} octets")]
    LongPath,
}

/// Who opens the user compartment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Guard {
    /// Nothing but the machine itself.
    Machine,
    Passphrase {
        /// Short enough to be found by trying, where the disk is copied.
        pin: bool,
        bound_secret: Option<PathBuf>,
        tries_left: u8,
        try_limit: u8,
    },
}

/// A secret that is mixed into the passphrase's, and where it was read.
struct BoundSecret {
    path: PathBuf,
    octets: Zeroizing<Vec<u8>>,
}

impl BoundSecret {
    fn read(path: &Path) -> Result<Self, BoundSecretError> {
        let unreadable = |source| BoundSecretError::Unreadable {
            path: path.to_owned(),
            source,
        };
        // Recorded, and read again from another working directory.
        let path = std::path::absolute(path).map_err(unreadable)?;
        if path.as_os_str().len() > BOUND_PATH_MAX {
            return Err(BoundSecretError::LongPath);
        }
        // Room for all from the start: a growing buffer would leave copies.
        let mut octets = Zeroizing::new(Vec::with_capacity(BOUND_MAX + 1));
        File::open(&path)
            .and_then(|file| file.take(BOUND_MAX as u64 + 1).read_to_end(&mut octets))
            .map_err(unreadable)?;
        if !(BOUND_MIN..=BOUND_MAX).contains(&octets.len()) {
            let got = octets.len();
            return Err(BoundSecretError::Length { path, got });
        }
        Ok(Self { path, octets })
    }
}

impl std::fmt::Debug for BoundSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BoundSecret({})", self.path.display())
    }
}

/// The user key, sealed under `Argon2id(passphrase, salt, secret = bound secret)`.
#[derive(Debug)]
pub(super) struct UnlockRecord {
    /// Which one, from 1; the slots of the user compartment name it.
    pub(super) number: u64,
    pub(super) half: Half,
    pin: bool,
    pub(super) try_limit: u8,
    cost: Cost,
    salt: [u8; SALT_LEN],
    sealed_key: [u8; SEALED_KEY_LEN],
    bound_path: Option<PathBuf>,
}

/// What a try costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    /// `None`: no costs that Argon2 knows, or more than a terminal has.
    fn params(self) -> Option<Params> {
        if self.memory_kib > COST_MEMORY_MAX_KIB {
            return None;
        }
        Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).ok()
    }
}

/// All that a try needs, gathered before it is counted.
pub(super) struct Means {
    bound_secret: Option<BoundSecret>,
    params: Params,
    memory: Zeroizing<Vec<argon2::Block>>,
}

/// Proof that a try is counted on the disk: no passphrase is checked without it.
#[derive(Debug)]
pub(super) struct Counted {
    /// Tries that are left should this one be wrong.
    pub(super) left: u8,
}

impl UnlockRecord {
    /// Seals a fresh user key. Nothing is written yet.
    pub(super) fn seal(
        rng: &mut dyn Random,
        number: u64,
        half: Half,
        protection: &Protection,
    ) -> Result<(Self, Secret<32>), UnlockError> {
        let user_key = Secret::init_with(|octets| rng.fill(octets));
        let mut salt = [0; SALT_LEN];
        rng.fill(&mut salt);
        let bound = protection.bound_secret.as_ref();
        let mut record = Self {
            number,
            half,
            pin: protection.is_pin(),
            try_limit: protection.try_limit,
            cost: COST,
            salt,
            sealed_key: [0; SEALED_KEY_LEN],
            bound_path: bound.map(|bound| bound.path.clone()),
        };
        let params = COST.params().ok_or(UnlockError::Memory)?;
        let mut memory = reserve(&params)?;
        let under = record.stretch(&params, &mut memory, &protection.passphrase, bound);
        let (key, tag) = record.sealed_key.split_at_mut(32);
        key.copy_from_slice(user_key.expose());
        let sealed = cipher(&under)
            .seal_in_place_separate_tag(zero_nonce(), aead::Aad::from(AD), key)
            .expect("AES-GCM seals 32 octets");
        tag.copy_from_slice(sealed.as_ref());
        Ok((record, user_key))
    }

    /// Gathers what a try needs: where it is not to be had, no try is used up.
    pub(super) fn means(&self) -> Result<Means, UnlockError> {
        let bound_secret = self.bound_path.as_deref().map(BoundSecret::read);
        let params = self.cost.params().ok_or(UnlockError::Memory)?;
        Ok(Means {
            bound_secret: bound_secret.transpose()?,
            memory: reserve(&params)?,
            params,
        })
    }

    /// The user key; `None` for a wrong passphrase, or another bound secret.
    pub(super) fn check(
        &self,
        _: &Counted,
        mut means: Means,
        passphrase: &str,
    ) -> Option<Secret<32>> {
        let bound = means.bound_secret.as_ref();
        let under = self.stretch(&means.params, &mut means.memory, passphrase, bound);
        let mut octets = Zeroizing::new(self.sealed_key);
        let key = cipher(&under)
            .open_in_place(zero_nonce(), aead::Aad::from(AD), &mut octets[..])
            .ok()?;
        Secret::from_slice(key)
    }

    fn stretch(
        &self,
        params: &Params,
        memory: &mut [argon2::Block],
        passphrase: &str,
        bound: Option<&BoundSecret>,
    ) -> Secret<32> {
        let secret = bound.map_or(&[][..], |bound| &bound.octets);
        let argon2 =
            Argon2::new_with_secret(secret, Algorithm::Argon2id, Version::V0x13, params.clone())
                .expect("a bound secret is not as long as Argon2 allows");
        Secret::init_with(|out| {
            argon2
                .hash_password_into_with_memory(passphrase.as_bytes(), &self.salt, out, memory)
                .expect("lengths are bounded, and the memory is as large as the parameters say");
        })
    }

    pub(super) fn guard(&self, tries: u8) -> Guard {
        Guard::Passphrase {
            pin: self.pin,
            bound_secret: self.bound_path.clone(),
            tries_left: self.try_limit.saturating_sub(tries),
            try_limit: self.try_limit,
        }
    }

    pub(super) fn write(&self, slots: &SlotFile) -> Result<(), KeyStoreError> {
        slots.write(block(self.half), &self.encode())
    }

    /// SECURITY: the passphrase that it was for opens nothing any more.
    pub(super) fn zero(half: Half, slots: &SlotFile) -> Result<(), KeyStoreError> {
        slots.write(block(half), &[0; RECORD_LEN])
    }

    /// Record `number`; none for 0, which is no passphrase.
    pub(super) fn of(
        slots: &SlotFile,
        dir: &Path,
        number: u64,
    ) -> Result<Option<Self>, KeyStoreError> {
        if number == 0 {
            return Ok(None);
        }
        for half in Half::BOTH {
            let record = Self::read(slots, half)?.filter(|record| record.number == number);
            if record.is_some() {
                return Ok(record);
            }
        }
        Err(KeyStoreError::Corrupt {
            dir: dir.to_owned(),
            what: Part::Unlock,
        })
    }

    /// `None`: unused, or half written.
    fn read(slots: &SlotFile, half: Half) -> Result<Option<Self>, KeyStoreError> {
        let mut octets = [0; RECORD_LEN];
        slots.read(block(half), &mut octets)?;
        Ok(Self::decode(&octets, half))
    }

    fn encode(&self) -> [u8; RECORD_LEN] {
        let path = self
            .bound_path
            .as_ref()
            .map(|path| path.as_os_str().as_bytes());
        let path = path.unwrap_or_default();
        let mut octets = Vec::with_capacity(RECORD_LEN);
        octets.extend_from_slice(&MAGIC);
        octets.extend_from_slice(&self.number.to_be_bytes());
        octets.extend_from_slice(&[u8::from(self.pin), self.try_limit]);
        for cost in [self.cost.memory_kib, self.cost.passes, self.cost.lanes] {
            octets.extend_from_slice(&cost.to_be_bytes());
        }
        octets.extend_from_slice(&self.salt);
        octets.extend_from_slice(&self.sealed_key);
        let path_len = u16::try_from(path.len()).expect("at most BOUND_PATH_MAX");
        octets.extend_from_slice(&path_len.to_be_bytes());
        octets.extend_from_slice(path);
        octets.resize(CHECKED_LEN, 0);
        let check = sha256(&octets);
        octets.extend_from_slice(&check);
        octets.try_into().expect("its parts have that length")
    }

    fn decode(octets: &[u8; RECORD_LEN], half: Half) -> Option<Self> {
        let (checked, check) = octets.split_at(CHECKED_LEN);
        if sha256(checked) != check {
            return None;
        }
        let mut rest = checked;
        let mut take = |len: usize| {
            let (part, after) = rest.split_at_checked(len)?;
            rest = after;
            Some(part)
        };
        let four = |part: &[u8]| Some(u32::from_be_bytes(part.try_into().ok()?));
        if take(8)? != MAGIC {
            return None;
        }
        let number = u64::from_be_bytes(take(8)?.try_into().ok()?);
        let [pin, try_limit] = take(2)?.try_into().ok()?;
        let cost = Cost {
            memory_kib: four(take(4)?)?,
            passes: four(take(4)?)?,
            lanes: four(take(4)?)?,
        };
        let salt = take(SALT_LEN)?.try_into().ok()?;
        let sealed_key = take(SEALED_KEY_LEN)?.try_into().ok()?;
        let path_len = usize::from(u16::from_be_bytes(take(2)?.try_into().ok()?));
        let path = take(path_len)?;
        Some(Self {
            number,
            half,
            pin: pin != 0,
            try_limit,
            cost,
            salt,
            sealed_key,
            bound_path: (!path.is_empty())
                .then(|| std::ffi::OsString::from_vec(path.to_vec()).into()),
        })
    }
}

/// How many tries were begun since the last right one. One octet: it cannot be half written.
pub(super) fn tries(slots: &SlotFile) -> Result<u8, KeyStoreError> {
    let mut octet = [0];
    slots.read(Block::Tries, &mut octet)?;
    Ok(octet[0])
}

/// Counts one more, durably, before any passphrase is looked at.
pub(super) fn count_try(slots: &SlotFile, try_limit: u8) -> Result<Counted, KeyStoreError> {
    let count = tries(slots)?.saturating_add(1);
    slots.write(Block::Tries, &[count])?;
    Ok(Counted {
        left: try_limit.saturating_sub(count),
    })
}

/// After a right one.
pub(super) fn forget_tries(slots: &SlotFile) -> Result<(), KeyStoreError> {
    slots.write(Block::Tries, &[0])
}

fn reserve(params: &Params) -> Result<Zeroizing<Vec<argon2::Block>>, UnlockError> {
    let mut memory = Vec::new();
    memory
        .try_reserve_exact(params.block_count())
        .map_err(|_| UnlockError::Memory)?;
    memory.resize(params.block_count(), argon2::Block::default());
    Ok(Zeroizing::new(memory))
}

const fn block(half: Half) -> Block {
    match half {
        Half::A => Block::UnlockA,
        Half::B => Block::UnlockB,
    }
}

/// The second choice of RFC 9106 section 4 for who has little memory: about 0.2 s.
const COST: Cost = Cost {
    memory_kib: 64 * 1024,
    passes: 3,
    lanes: 4,
};
/// A record that asks for more is none of ours.
const COST_MEMORY_MAX_KIB: u32 = 1024 * 1024;
const PASSPHRASE_MIN: usize = 4;
const PASSPHRASE_MAX: usize = 1024;
/// Fewer characters than this are a PIN.
const PIN_BELOW: usize = 12;
/// Wrong tries until everything is erased, where nothing else is said.
pub const TRY_LIMIT: u8 = 10;
const TRY_LIMIT_MIN: u8 = 3;
const TRY_LIMIT_MAX: u8 = 100;
const BOUND_MIN: usize = 16;
const BOUND_MAX: usize = 4096;
const BOUND_PATH_MAX: usize = 1024;
const SALT_LEN: usize = 32;
const SEALED_KEY_LEN: usize = 32 + TAG_LEN;
const MAGIC: [u8; 8] = *b"KF1 lock";
const AD: &[u8] = b"KF1 unlock";
const CHECKED_LEN: usize = 8 + 8 + 2 + 12 + SALT_LEN + SEALED_KEY_LEN + 2 + BOUND_PATH_MAX;
const RECORD_LEN: usize = CHECKED_LEN + 32;
