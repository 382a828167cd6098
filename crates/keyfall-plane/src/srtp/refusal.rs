//! Why a packet was not protected or not opened. Each cause is its own, so that it can be counted.

use thiserror::Error;

use crate::replay::Stale;

/// The octets are not an RTP or RTCP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
pub enum Malformed {
    #[error("shorter than its fixed parts")]
    TooShort,
    #[error("longer than a UDP datagram")]
    TooLong,
    #[error("not RTP version 2")]
    NotVersion2,
    /// CSRC list, header extension or an RTCP length points past the end.
    #[error("a length points past the end")]
    BeyondEnd,
}

/// Why a received packet was not delivered. Nothing changed, and the packet may be tried again under
/// another key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
pub enum Refused {
    #[error("malformed: {0}")]
    Malformed(Malformed),
    /// Sender number 0.
    #[error("the MKI names no sender")]
    BadMki,
    /// The sequence number lies outside the stretch n of the MKI (FORMATS section 6: n = index >> j).
    #[error("the sequence number is not in the stretch that the MKI names")]
    OutsideStretch,
    /// SSRC, sender or session belong to another receiver: the caller looked up the wrong one.
    #[error("a packet of another stream")]
    OtherStream,
    /// No session keys are held for this MKI, or the master key does not have its tag.
    #[error("no key for this MKI")]
    KeyUnknown,
    /// SRTCP without the E flag.
    #[error("an SRTCP packet that is not encrypted")]
    NotEncrypted,
    #[error("replayed")]
    Replayed,
    /// Before the replay window or under the stored mark.
    #[error("too old to tell whether it is a replay")]
    TooOld,
    #[error("authentication failed")]
    AuthenticationFailed,
}

impl From<Malformed> for Refused {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Stale> for Refused {
    fn from(stale: Stale) -> Self {
        match stale {
            Stale::Replayed => Self::Replayed,
            Stale::TooOld => Self::TooOld,
        }
    }
}

/// Why a local packet was not protected. Neither the packet nor the sender's indexes changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
pub enum ProtectRefused {
    #[error("malformed: {0}")]
    Malformed(Malformed),
    /// The caller looked up the wrong sender.
    #[error("a packet of another SSRC")]
    OtherSsrc,
    /// This index was protected before; once is enough, twice would repeat a nonce (INVARIANT 3).
    #[error("a duplicate of a packet that was sent")]
    Duplicate,
    /// The packet needs a new session, and a new sender for it.
    #[error("a new session is needed: {0}")]
    NewSession(NewSession),
}

/// What ended a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Error)]
pub enum NewSession {
    /// The application restarted its sequence numbers or jumped back.
    #[error("the sequence numbers jumped back")]
    SequenceJumped,
    /// n would pass 65,535, the packet index 2^48 or the SRTCP index 2^31.
    #[error("the packet indexes are used up")]
    IndexExhausted,
}

impl From<Malformed> for ProtectRefused {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<NewSession> for ProtectRefused {
    fn from(reason: NewSession) -> Self {
        Self::NewSession(reason)
    }
}
