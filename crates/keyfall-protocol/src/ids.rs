//! Names and numbers that appear on the wire: one type for each meaning.
//!
//! No type here derefs to its integer; only the operations that make sense are offered
//! (FORMATS section 1, REQUIREMENTS A-03).

use std::fmt;
use std::time::Duration;

/// One enrolment of one terminal: 24 bits, from 1, never given again. Leaf of the fleet tree and
/// sender number on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TerminalNumber(u32);

impl TerminalNumber {
    /// The highest number: the tree has 24-bit leaves.
    pub const MAX: Self = Self(0x00ff_ffff);

    /// `None` for 0 and for what does not fit in 24 bits.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 || number > Self::MAX.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Three octets, network byte order, as in the MKI.
    #[must_use]
    pub const fn to_be_bytes3(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }

    /// The inverse of [`Self::to_be_bytes3`].
    #[must_use]
    pub const fn from_be_bytes3(octets: [u8; 3]) -> Option<Self> {
        Self::new(u32::from_be_bytes([0, octets[0], octets[1], octets[2]]))
    }

    /// Key id of this terminal's obey key.
    #[must_use]
    pub const fn obey_key_id(self) -> KeyId {
        KeyId(4 * self.0 as u64)
    }

    /// Key id of this terminal's wrap key.
    #[must_use]
    pub const fn wrap_key_id(self) -> KeyId {
        KeyId(4 * self.0 as u64 + 1)
    }
}

/// A group: the set of terminals with one master key. 30 bits, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupNumber(u32);

impl GroupNumber {
    /// The highest number: every key id fits in 32 bits, which keeps a RENEW within 170 octets.
    pub const MAX: Self = Self((1 << 30) - 1);

    /// `None` for 0 and for what does not fit in 30 bits.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 || number > Self::MAX.0 {
            None
        } else {
            Some(Self(number))
        }
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Key id of this group's master key.
    #[must_use]
    pub const fn master_key_id(self) -> KeyId {
        KeyId(4 * self.0 as u64 + 3)
    }
}

/// What a key id names. Key id = 4 · number + rank (FORMATS section 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyIdKind {
    /// Key id 0: all wrap and cover keys of the fleet at once.
    AllRankOne,
    /// A terminal's obey key.
    Obey(TerminalNumber),
    /// A terminal's wrap key.
    Wrap(TerminalNumber),
    /// A cover key of the fleet tree: 16 · node + mask.
    Cover(u32),
    /// A group's master key.
    Master(GroupNumber),
}

impl KeyIdKind {
    /// The group of a master key.
    #[must_use]
    pub const fn group(self) -> Option<GroupNumber> {
        match self {
            Self::Master(group) => Some(group),
            Self::AllRankOne | Self::Obey(_) | Self::Wrap(_) | Self::Cover(_) => None,
        }
    }

    /// The terminal of an obey or wrap key.
    #[must_use]
    pub const fn terminal(self) -> Option<TerminalNumber> {
        match self {
            Self::Obey(terminal) | Self::Wrap(terminal) => Some(terminal),
            Self::AllRankOne | Self::Cover(_) | Self::Master(_) => None,
        }
    }
}

/// The name of a pre-shared key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(u64);

impl KeyId {
    /// All wrap and cover keys.
    pub const ALL_RANK_ONE: Self = Self(0);

    /// `None` where the number behind the id is 0 or too large for its rank.
    #[must_use]
    pub const fn new(id: u64) -> Option<Self> {
        let candidate = Self(id);
        if id >> 32 != 0 || candidate.kind().is_none() {
            None
        } else {
            Some(candidate)
        }
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What this id names; `None` only while [`Self::new`] judges.
    #[must_use]
    pub const fn kind(self) -> Option<KeyIdKind> {
        if self.0 == 0 {
            return Some(KeyIdKind::AllRankOne);
        }
        let number = (self.0 / 4) as u32;
        match self.0 % 4 {
            0 => match TerminalNumber::new(number) {
                Some(terminal) => Some(KeyIdKind::Obey(terminal)),
                None => None,
            },
            1 => match TerminalNumber::new(number) {
                Some(terminal) => Some(KeyIdKind::Wrap(terminal)),
                None => None,
            },
            2 => Some(KeyIdKind::Cover(number)),
            _ => match GroupNumber::new(number) {
                Some(group) => Some(KeyIdKind::Master(group)),
                None => None,
            },
        }
    }
}

/// Which fresh key this is; a new epoch shares nothing with the one before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyEpoch(u32);

impl KeyEpoch {
    /// Rank-1 keys have one epoch: 0.
    pub const RANK_ONE: Self = Self(0);

    #[must_use]
    pub const fn new(epoch: u32) -> Self {
        Self(epoch)
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// A fresh epoch: `max(held + 1, seconds since 2026-01-01)` (FORMATS section 12).
    #[must_use]
    pub fn fresh(held: Option<Self>, wall: UnixSeconds) -> Self {
        let by_clock = wall.get().saturating_sub(YEAR_2026.get());
        Self(held.map_or(by_clock, |epoch| by_clock.max(epoch.0.saturating_add(1))))
    }

    /// The moment before which no key of this epoch existed: its number read as a clock.
    #[must_use]
    pub fn birth(self) -> UnixSeconds {
        UnixSeconds(YEAR_2026.get().saturating_add(self.0))
    }
}

/// How often a key was renewed by the one-way function since it was fresh.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(u32);

impl Generation {
    /// A fresh key.
    pub const ZERO: Self = Self(0);
    /// The last generation that is accepted.
    pub const MAX: Self = Self(1 << 31);

    /// `None` above 2^31.
    #[must_use]
    pub const fn new(generation: u32) -> Option<Self> {
        if generation > Self::MAX.0 {
            None
        } else {
            Some(Self(generation))
        }
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The next one, staying at [`Self::MAX`].
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// `steps` further, staying at [`Self::MAX`].
    #[must_use]
    pub const fn plus(self, steps: u32) -> Self {
        let sum = self.0.saturating_add(steps);
        if sum > Self::MAX.0 {
            Self::MAX
        } else {
            Self(sum)
        }
    }

    /// How many steps lead from `older` to this one; 0 where it is not newer.
    #[must_use]
    pub const fn steps_from(self, older: Self) -> u32 {
        self.0.saturating_sub(older.0)
    }

    /// The generation modulo 16, as it stands in an SPI.
    #[must_use]
    pub const fn low4(self) -> u8 {
        self.low8() & 0x0f
    }

    /// The generation modulo 256, as it stands in an SRTP key tag.
    #[must_use]
    pub const fn low8(self) -> u8 {
        self.0.to_be_bytes()[3]
    }
}

/// The number of one command within a stream: milliseconds since 2026-01-01 at the earliest
/// (FORMATS section 12). Names a command; never a reason to refuse one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceNumber(u64);

impl SequenceNumber {
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// `steps` further.
    #[must_use]
    pub const fn plus(self, steps: u64) -> Self {
        Self(self.0.saturating_add(steps))
    }

    /// The lowest number that a server which starts at `wall` may use.
    #[must_use]
    pub fn at(wall: UnixSeconds) -> Self {
        Self(u64::from(wall.get().saturating_sub(YEAR_2026.get())) * 1000)
    }
}

/// Seconds since 1970-01-01 UTC, up to 2106: a time that does not fit in 32 bits is malformed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixSeconds(u32);

/// 2026-01-01 00:00:00 UTC, from which epochs and sequence numbers count.
pub const YEAR_2026: UnixSeconds = UnixSeconds(1_767_225_600);

impl UnixSeconds {
    #[must_use]
    pub const fn new(seconds: u32) -> Self {
        Self(seconds)
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// `seconds` later, staying at the last moment there is.
    #[must_use]
    pub const fn plus(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(seconds))
    }

    /// Seconds from `earlier` to this; 0 where it is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A reading of the driver's monotonic clock in nanoseconds. Means nothing outside one process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Tick(u64);

impl Tick {
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `span` later.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// The span from `earlier` to this; zero where it is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

macro_rules! octets {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            #[must_use]
            pub const fn new(octets: [u8; $len]) -> Self {
                Self(octets)
            }

            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }
    };
}

octets!(
    /// Four random octets of one server instance; listed in the enrolment package.
    StreamId,
    4
);
octets!(
    /// The name of a signing key: the first 8 octets of the SHA-256 of its public key.
    KeyName,
    8
);
octets!(
    /// What a recipient is called in a KEYDIST; changes with every generation of its key.
    Handle,
    5
);
octets!(
    /// One stretch of sending by one terminal: 48 random bits, drawn at every start (FORMATS 6).
    SessionId,
    6
);
octets!(
    /// One stretch of at most 2^24 - 1 packets by one terminal: 40 bits, at random at every start
    /// (FORMATS 7).
    EspSession,
    5
);
octets!(
    /// What may be shown of a key: 8 derived octets (label "fingerprint").
    Fingerprint,
    8
);

impl EspSession {
    /// The session after this one. After the highest comes 0, as 40 bits count.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }

    /// So many sessions after this one.
    #[must_use]
    pub const fn plus(self, steps: u32) -> Self {
        let [_, _, _, octets @ ..] = self.number().wrapping_add(steps as u64).to_be_bytes();
        Self(octets)
    }

    /// How many sessions after this one `other` comes; it wraps at 40 bits.
    #[must_use]
    pub const fn steps_to(self, other: Self) -> u64 {
        other.number().wrapping_sub(self.number()) & ((1 << 40) - 1)
    }

    const fn number(self) -> u64 {
        let [a, b, c, d, e] = self.0;
        u64::from_be_bytes([0, 0, 0, a, b, c, d, e])
    }
}

macro_rules! shown_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )*};
}

shown_as_number!(
    TerminalNumber,
    GroupNumber,
    KeyId,
    KeyEpoch,
    Generation,
    SequenceNumber,
    UnixSeconds
);
