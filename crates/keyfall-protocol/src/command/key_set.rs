//! KEYSET: which keys may sign what until when, signed by the root alone (FORMATS section 2).

use crate::command::codec::{Reader, Writer, Written};
use crate::command::envelope::SIGNERS_MAX;
use crate::command::{Body, Prefix, Unverified, VerifyingKey};
use crate::error::DecodeError;
use crate::ids::{GroupNumber, KeyName, UnixSeconds};
use crate::schedule::FleetSchedule;
use crate::sharing::{KemSuite, SharingSuite};

/// The root's list of online keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeySet {
    /// Rises with every KEYSET of one root.
    pub version: u32,
    pub issued_at: UnixSeconds,
    pub keys: Vec<ListedKey>,
    pub fleet_schedule: FleetSchedule,
    /// Keys that were stolen: every EXCLUDE that they signed is void, and master keys that they
    /// brought send no more until a newer one comes.
    pub stolen: Vec<KeyName>,
    pub limits: Limits,
}

/// One online key and its bounds, which terminals enforce.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListedKey {
    /// Of `KemPq` and `Rsa` the SHA-256 of the key, which is longer.
    pub public: VerifyingKey,
    pub class: SignerClass,
    pub not_before: UnixSeconds,
    pub expires: UnixSeconds,
    /// Empty: all groups.
    pub groups: Vec<GroupNumber>,
}

/// Three classes that never share a key, and the keys of the server to which key requests are
/// sealed, which sign nothing and may live as long as the root (FORMATS section 2.2; KR-310).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignerClass {
    /// TIME, RENEW, NOTIFY.
    Beat,
    /// KEYDIST, HEAL, EXCLUDE, STOP, START, POLICY.
    Keys,
    /// DELETE, INIT, LOCK, UNLOCK.
    Erase,
    /// Not a signing key: the X25519 key to which terminals seal key requests.
    Kem,
    /// Not a signing key: SHA-256 of the X-Wing key to which terminals seal key requests.
    KemPq,
    /// Not a signing key: SHA-256 of the RSA key (SubjectPublicKeyInfo) of the suite `rsa-misty1`.
    Rsa,
}

impl SignerClass {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Beat => 1,
            Self::Keys => 2,
            Self::Erase => 3,
            Self::Kem => 4,
            Self::KemPq => 5,
            Self::Rsa => 6,
        }
    }

    /// The word in messages to people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Beat => "beat",
            Self::Keys => "keys",
            Self::Erase => "erase",
            Self::Kem => "KEM",
            Self::KemPq => "KEM-PQ",
            Self::Rsa => "RSA",
        }
    }

    /// Held by the machine that sends, and so of short life.
    const fn is_online(self) -> bool {
        match self {
            Self::Beat | Self::Keys => true,
            Self::Erase | Self::Kem | Self::KemPq | Self::Rsa => false,
        }
    }

    const fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Beat),
            2 => Some(Self::Keys),
            3 => Some(Self::Erase),
            4 => Some(Self::Kem),
            5 => Some(Self::KemPq),
            6 => Some(Self::Rsa),
            _ => None,
        }
    }
}

/// Fleet limits that only the root sets; policy may tighten them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Seconds from issued-at to lease end at the most.
    pub longest_lease: u32,
    /// How terminals may ask for keys; no other suite is spoken, whoever wishes.
    pub suites: Suites,
    /// Where packets go as they are; nothing else ever lets one.
    pub clear: ClearList,
    /// Seconds that an old generation is received.
    pub grace: u32,
    /// Seconds that the old epoch is received after an exclusion, once the new one is held.
    pub exclude_grace: u32,
    /// Powered-on seconds that a member does not send after an EXCLUDE while the new epoch has not
    /// come; `None`: until it comes, however long that is (fail closed).
    pub exclude_wait: Option<u32>,
    /// Seconds after the latest lease end at which a terminal that heard nothing wipes itself.
    pub dead_man: u32,
    /// Keys of the erase class that must sign DELETE, INIT, LOCK and UNLOCK (W-17); at least 1.
    pub erase_signatures: u8,
}

/// Suites of key sharing in order of preference: one to four, none twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Suites([Option<SharingSuite>; 4]);

impl Suites {
    /// `None` where there is none, one stands twice, or there are too many.
    #[must_use]
    pub fn new(suites: &[SharingSuite]) -> Option<Self> {
        let mut listed = [None; 4];
        for (place, suite) in suites.iter().enumerate() {
            if suites[..place].contains(suite) {
                return None;
            }
            *listed.get_mut(place)? = Some(*suite);
        }
        (!suites.is_empty()).then_some(Self(listed))
    }

    /// What a KEYSET means that names none, as those of before key sharing (KR-312).
    pub const PSK_ALONE: Self = Self([Some(SharingSuite::Psk), None, None, None]);

    pub fn iter(&self) -> impl Iterator<Item = &SharingSuite> {
        self.0.iter().flatten()
    }

    #[must_use]
    pub fn contains(&self, suite: SharingSuite) -> bool {
        self.0.contains(&Some(suite))
    }

    fn write(self, e: &mut Writer<'_>) -> Written {
        e.array(self.iter().count() as u64)?;
        for suite in self.iter() {
            e.u8(suite.number())?;
        }
        Ok(())
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut suites = Vec::new();
        for _ in 0..r.array_between("suites", 1, 4)? {
            let suite = u8::try_from(r.uint("suites")?).ok();
            let suite = suite.and_then(SharingSuite::from_number);
            suites.push(suite.ok_or(DecodeError::OutOfRange { what: "suites" })?);
        }
        Self::new(&suites).ok_or(DecodeError::OutOfRange { what: "suites" })
    }
}

/// Prefixes to which packets go unprotected: up to eight, rising.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClearList([Option<Prefix>; CLEAR_MAX]);

impl ClearList {
    /// `None` where there are too many.
    #[must_use]
    pub fn new(prefixes: &[Prefix]) -> Option<Self> {
        let mut sorted = prefixes.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        let mut listed = [None; CLEAR_MAX];
        for (place, prefix) in sorted.into_iter().enumerate() {
            *listed.get_mut(place)? = Some(prefix);
        }
        Some(Self(listed))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Prefix> {
        self.0.iter().flatten()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    fn write(self, e: &mut Writer<'_>) -> Written {
        e.array(self.iter().count() as u64)?;
        self.iter().try_for_each(|prefix| prefix.write(e))
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut prefixes = Vec::new();
        for _ in 0..r.array_between("clear list", 1, CLEAR_MAX as u64)? {
            prefixes.push(Prefix::read(r, "clear list")?);
        }
        // Another order, or one twice, is written otherwise and so refused.
        Self::new(&prefixes).ok_or(DecodeError::OutOfRange { what: "clear list" })
    }
}

impl Default for Suites {
    /// Forward secret where it costs one round trip, quantum-safe where that is listed first.
    fn default() -> Self {
        Self([
            Some(SharingSuite::Hpke),
            Some(SharingSuite::HpkePq),
            Some(SharingSuite::Psk),
            None,
        ])
    }
}

impl Default for Limits {
    /// FORMATS sections 2.3 and 9: 72 h lease, 30 s grace, none after an exclusion, 10 min without
    /// sending, 30 days until the dead man's wipe, one signature.
    fn default() -> Self {
        Self {
            longest_lease: 72 * 3600,
            suites: Suites::default(),
            clear: ClearList::default(),
            grace: 30,
            exclude_grace: 0,
            exclude_wait: Some(600),
            dead_man: 30 * 86_400,
            erase_signatures: 1,
        }
    }
}

impl KeySet {
    /// What the frame says, where it is a KEYSET and `root` signed it; the only way to one that may
    /// be relied on.
    #[must_use]
    pub fn signed_by(root: &VerifyingKey, frame: &[u8]) -> Option<Self> {
        let verified = Unverified::decode(frame).ok()?.verify(root)?;
        match &verified.command().body {
            Body::KeySet(key_set) => Some(key_set.clone()),
            Body::Time(_)
            | Body::Renew(_)
            | Body::KeyDist(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => None,
        }
    }

    /// The listed key of that name.
    #[must_use]
    pub fn key(&self, name: KeyName) -> Option<&ListedKey> {
        self.keys.iter().find(|key| key.public.name() == name)
    }

    /// How that key is listed. Names are hashes, and this asks for none.
    #[must_use]
    pub fn listed(&self, public: &VerifyingKey) -> Option<&ListedKey> {
        self.keys.iter().find(|key| key.public == *public)
    }

    /// The suite in which a terminal asks: the first that is listed and can be spoken. `own_rsa`: it
    /// has an RSA key.
    #[must_use]
    pub fn suite_spoken(&self, own_rsa: bool) -> Option<SharingSuite> {
        let speaks = |suite: &SharingSuite| match suite {
            SharingSuite::Psk => true,
            SharingSuite::Hpke | SharingSuite::HpkePq => {
                KemSuite::of(*suite).is_some_and(|kem| self.lists_kem(kem))
            }
            SharingSuite::RsaMisty1 => own_rsa && self.first_of(SignerClass::Rsa).is_some(),
        };
        self.limits.suites.iter().copied().find(speaks)
    }

    /// The first listed key of a class.
    #[must_use]
    pub fn first_of(&self, class: SignerClass) -> Option<&ListedKey> {
        self.keys.iter().find(|key| key.class == class)
    }

    pub(super) fn write(&self, e: &mut Writer<'_>) -> Written {
        e.map(if self.stolen.is_empty() { 5 } else { 6 })?
            .u8(1)?
            .u32(self.version)?
            .u8(2)?
            .u32(self.issued_at.get())?;
        e.u8(3)?.array(self.keys.len() as u64)?;
        for key in &self.keys {
            e.array(6)?
                .bytes(key.public.name().as_bytes())?
                .bytes(key.public.as_bytes())?;
            e.u8(key.class.number())?;
            e.u32(key.not_before.get())?.u32(key.expires.get())?;
            e.array(key.groups.len() as u64)?;
            for group in &key.groups {
                e.u32(group.get())?;
            }
        }
        e.u8(4)?.array(3)?.u32(self.fleet_schedule.first.get())?;
        e.u32(self.fleet_schedule.from.get())?
            .u32(self.fleet_schedule.period)?;
        if !self.stolen.is_empty() {
            e.u8(6)?.array(self.stolen.len() as u64)?;
            for name in &self.stolen {
                e.bytes(name.as_bytes())?;
            }
        }
        e.u8(8)?;
        self.limits.write(e)
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = r.map("KEYSET")?;
        map.key(r, 1, "version")?;
        let version = r.uint32("version")?;
        map.key(r, 2, "issued-at")?;
        let issued_at = r.time("issued-at")?;
        map.key(r, 3, "keys")?;
        let mut keys = Vec::new();
        for _ in 0..r.array_between("keys", 1, KEYS_MAX)? {
            let key = ListedKey::read(r)?;
            // Classes never share a key (FORMATS section 2.2).
            if keys
                .iter()
                .any(|listed: &ListedKey| listed.public == key.public)
            {
                return Err(DecodeError::OutOfRange { what: "keys" });
            }
            keys.push(key);
        }
        map.key(r, 4, "fleet schedule")?;
        r.array("fleet schedule", 3)?;
        let fleet_schedule = FleetSchedule {
            first: r.generation()?,
            from: r.time("t0")?,
            period: r.uint32("P0")?,
        };
        if fleet_schedule.period == 0 {
            return Err(DecodeError::OutOfRange { what: "P0" });
        }
        let mut stolen = Vec::new();
        if map.key_if(r, 6)? {
            for _ in 0..r.array_between("stolen keys", 1, STOLEN_MAX)? {
                stolen.push(r.key_name()?);
            }
        }
        map.key(r, 8, "limits")?;
        let limits = Limits::read(r)?;
        map.end()?;
        Ok(Self {
            version,
            issued_at,
            keys,
            fleet_schedule,
            stolen,
            limits,
        })
    }
}

impl Limits {
    fn write(self, e: &mut Writer<'_>) -> Written {
        let psk_alone = self.suites == Suites::PSK_ALONE;
        let optional = u64::from(!psk_alone) + u64::from(!self.clear.is_empty());
        e.map(6 + optional)?;
        e.u8(1)?.u32(self.longest_lease)?;
        if !self.clear.is_empty() {
            e.u8(2)?;
            self.clear.write(e)?;
        }
        if !psk_alone {
            e.u8(3)?;
            self.suites.write(e)?;
        }
        e.u8(4)?.u32(self.grace)?;
        e.u8(5)?.u32(self.exclude_grace)?.u8(6)?;
        match self.exclude_wait {
            Some(seconds) => e.u32(seconds)?,
            None => e.null()?,
        };
        e.u8(7)?.u32(self.dead_man)?;
        e.u8(8)?.u8(self.erase_signatures)?;
        Ok(())
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut map = r.map("limits")?;
        map.key(r, 1, "longest lease")?;
        let longest_lease = r.uint32("longest lease")?;
        let clear = if map.key_if(r, 2)? {
            ClearList::read(r)?
        } else {
            ClearList::default()
        };
        let suites = if map.key_if(r, 3)? {
            Suites::read(r)?
        } else {
            Suites::PSK_ALONE
        };
        map.key(r, 4, "grace")?;
        let grace = r.uint32("grace")?;
        map.key(r, 5, "grace after an exclusion")?;
        let exclude_grace = r.uint32("grace after an exclusion")?;
        map.key(r, 6, "wait after an exclusion")?;
        let exclude_wait = r.nullable("wait after an exclusion", |r| {
            r.uint32("wait after an exclusion")
        })?;
        map.key(r, 7, "dead man's time")?;
        let dead_man = r.uint32("dead man's time")?;
        map.key(r, 8, "erase signatures")?;
        let erase_signatures = u8::try_from(r.uint("erase signatures")?)
            .ok()
            .filter(|m| (1..=SIGNERS_MAX).contains(&usize::from(*m)))
            .ok_or(DecodeError::OutOfRange {
                what: "erase signatures",
            })?;
        map.end()?;
        Ok(Self {
            longest_lease,
            suites,
            clear,
            grace,
            exclude_grace,
            exclude_wait,
            dead_man,
            erase_signatures,
        })
    }
}

impl ListedKey {
    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        r.array("listed key", 6)?;
        let name = r.key_name()?;
        let public = VerifyingKey::new(r.octets("public key")?);
        if public.name() != name {
            return Err(DecodeError::OutOfRange { what: "key name" });
        }
        let class = SignerClass::from_number(r.uint("class")?)
            .ok_or(DecodeError::OutOfRange { what: "class" })?;
        let not_before = r.time("not before")?;
        let expires = r.time("expires")?;
        if expires < not_before
            || (class.is_online() && expires.since(not_before) > ONLINE_LIFE_MAX)
        {
            return Err(DecodeError::OutOfRange { what: "expires" });
        }
        let mut groups = Vec::new();
        for _ in 0..r.array_between("groups", 0, GROUPS_MAX)? {
            groups.push(
                GroupNumber::new(r.uint32("group")?)
                    .ok_or(DecodeError::OutOfRange { what: "group" })?,
            );
        }
        Ok(Self {
            public,
            class,
            not_before,
            expires,
            groups,
        })
    }
}

/// Seconds that a beat or keys key may live: 30 days (FORMATS section 9).
const ONLINE_LIFE_MAX: u32 = 30 * 86_400;
const KEYS_MAX: u64 = 12;
const GROUPS_MAX: u64 = 64;
/// Prefixes on the clear list.
pub const CLEAR_MAX: usize = 8;
/// Stolen keys that one KEYSET names at a time.
const STOLEN_MAX: u64 = 8;
