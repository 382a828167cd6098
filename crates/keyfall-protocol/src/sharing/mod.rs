//! Key sharing over UDP: a terminal asks, a server answers, and both confirm (FORMATS section 8).
//!
//! KEY-REQ → (COOKIE) → KEY-DIS → ACK brings keys; STOP → STOP-ACK → START → START-ACK changes the
//! key of a running group. Every datagram is four zero octets, the marker, and then one message: a
//! deterministic CBOR array that begins with version, suite and type.

mod control;
mod introduction;
mod kem;
pub mod message;
pub mod misty1;
pub mod pair;
mod parts;
pub mod rsa_misty1;

pub(crate) use control::command_datagram;
pub use control::{BUNDLE_MAX, Bundle, Confirmation};
pub use introduction::Introduction;
pub use kem::{KemPublic, KemSecret, KemSuite, SealedToKem};
pub use parts::{Assembly, datagrams};

/// How the sequence is protected (FORMATS section 8): what the root's KEYSET lists, in its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum SharingSuite {
    /// The device key alone: symmetric, quantum-safe.
    Psk,
    /// The pair sealed once more by X25519: forward secret.
    Hpke,
    /// As `Hpke`, by X25519 and ML-KEM-768.
    HpkePq,
    /// RSA and MISTY1 as first published; off unless the root lists it.
    RsaMisty1,
}

impl SharingSuite {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Psk => 1,
            Self::Hpke => 2,
            Self::HpkePq => 3,
            Self::RsaMisty1 => 4,
        }
    }

    /// The word on the command line and in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Psk => "psk",
            Self::Hpke => "hpke",
            Self::HpkePq => "hpke-pq",
            Self::RsaMisty1 => "rsa-misty1",
        }
    }

    /// `None` for a number that is none.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Psk),
            2 => Some(Self::Hpke),
            3 => Some(Self::HpkePq),
            4 => Some(Self::RsaMisty1),
            _ => None,
        }
    }
}
