//! Why a packet was not sealed or not opened. Each cause is its own, so that it can be counted.

use keyfall_protocol::ids::{EspSession, TerminalNumber};
use thiserror::Error;

use crate::replay::Stale;

/// Why a received packet was not delivered. But for the last four, which are told of authentic
/// packets only, nothing changed, and the packet may be tried again under another key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
pub enum EspRefused {
    #[error("shorter than the fixed parts of ESP")]
    TooShort,
    /// SPI 0 to 255: no ESP, the non-ESP marker where it is 0.
    #[error("a reserved SPI")]
    ReservedSpi,
    /// Of a stock sender, where a session was looked for.
    #[error("the SPI of a stock sender")]
    Pinned,
    /// Of a session, where a stock sender was looked for.
    #[error("not the SPI of a stock sender")]
    NotPinned,
    /// Sender number 0.
    #[error("the SPI names no sender")]
    NoSender,
    /// 0, or in a session above 2^24 - 1 or not the one in the IV.
    #[error("a sequence number that no sender uses")]
    BadSequence,
    /// SPI or session belong to another receiver: the caller looked up the wrong one.
    #[error("a packet of another session")]
    OtherSession,
    #[error("replayed")]
    Replayed,
    /// Before the replay window or under the stored mark.
    #[error("too old to tell whether it is a replay")]
    TooOld,
    /// The caller's buffer is shorter than the text.
    #[error("the buffer for the inner packet is too short")]
    NoRoom,
    #[error("authentication failed")]
    AuthenticationFailed,
    /// An authentic packet whose padding, next header, version or length do not fit each other.
    #[error("what is inside is no IP packet")]
    NotIp,
    /// An authentic packet with next header 59, which hides that nothing is sent (RFC 4303
    /// section 2.6).
    #[error("a dummy packet")]
    Dummy,
    /// An authentic dummy packet that says to this terminal where its sender is.
    #[error("a dummy packet that says a place")]
    Place(TerminalNumber),
    /// An authentic dummy packet whose sender refuses packets of this session, since it may have
    /// delivered them before it was restarted.
    #[error("a refusal of a session")]
    Refusal(EspSession),
}

impl From<Stale> for EspRefused {
    fn from(stale: Stale) -> Self {
        match stale {
            Stale::Replayed => Self::Replayed,
            Stale::TooOld => Self::TooOld,
        }
    }
}

/// Why a packet was not sealed. Neither the packet nor the sender changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
pub enum SealRefused {
    /// The packet needs a new session, and a new sender for it.
    #[error("a new session is needed: the sequence numbers are used up")]
    NewSession,
    /// Version or length say that it is no whole IPv4 or IPv6 packet.
    #[error("not an IP packet")]
    NotIp,
    /// The buffer has no room for head and tail.
    #[error("the buffer is too short")]
    NoRoom,
}
