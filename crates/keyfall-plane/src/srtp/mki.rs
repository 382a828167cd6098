//! The MKI: all that a late joiner needs, in 14 octets (FORMATS section 6).
//!
//! | octets | meaning (network byte order) |
//! |---|---|
//! | 3 | key tag: two of the hash of key id and epoch, then the generation modulo 256 |
//! | 3 | sender: terminal number |
//! | 6 | session |
//! | 2 | n, the stretch number |

use std::fmt;

use keyfall_protocol::ids::{SessionId, TerminalNumber};
use keyfall_protocol::keys::SrtpSuite;

use crate::srtp::header::{self, RTCP_FIXED, RtpHeader};
use crate::srtp::{Malformed, Refused, cipher};

/// Whose traffic a session key protects, but for n: the SSRC is the application's own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SrtpStream {
    pub suite: SrtpSuite,
    pub sender: TerminalNumber,
    pub session: SessionId,
    pub ssrc: u32,
}

/// Octets of an MKI.
pub const MKI_LEN: usize = 14;

/// Which key protects a packet, as the packet says it. Not authenticated until the packet is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mki([u8; MKI_LEN]);

impl Mki {
    /// `tag` is the master key's ([`keyfall_protocol::keys::MasterKey::tag`]).
    #[must_use]
    pub fn new(tag: [u8; 3], sender: TerminalNumber, session: SessionId, n: u16) -> Self {
        let mut octets = [0; MKI_LEN];
        octets[..3].copy_from_slice(&tag);
        octets[3..6].copy_from_slice(&sender.to_be_bytes3());
        octets[6..12].copy_from_slice(session.as_bytes());
        octets[12..].copy_from_slice(&n.to_be_bytes());
        Self(octets)
    }

    /// `None` where the sender number is 0.
    #[must_use]
    pub fn from_bytes(octets: [u8; MKI_LEN]) -> Option<Self> {
        TerminalNumber::from_be_bytes3([octets[3], octets[4], octets[5]])?;
        Some(Self(octets))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; MKI_LEN] {
        &self.0
    }

    /// Two octets of the tag hash, then the generation modulo 256.
    #[must_use]
    pub fn tag(&self) -> [u8; 3] {
        [self.0[0], self.0[1], self.0[2]]
    }

    #[must_use]
    pub fn sender(&self) -> TerminalNumber {
        TerminalNumber::from_be_bytes3([self.0[3], self.0[4], self.0[5]])
            .expect("both constructors have seen a sender number")
    }

    #[must_use]
    pub fn session(&self) -> SessionId {
        let [_, _, _, _, _, _, a, b, c, d, e, f, _, _] = self.0;
        SessionId::new([a, b, c, d, e, f])
    }

    /// The stretch number.
    #[must_use]
    pub fn n(&self) -> u16 {
        u16::from_be_bytes([self.0[12], self.0[13]])
    }
}

impl fmt::Debug for Mki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, low8] = self.tag();
        write!(
            f,
            "Mki(tag {a:02x}{b:02x} generation {low8} mod 256, sender {}, session {}, n {})",
            self.sender(),
            self.session(),
            self.n()
        )
    }
}

/// Who a received packet says it is from. Nothing in it is authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub mki: Mki,
    pub ssrc: u32,
}

impl Arrival {
    /// Reads an SRTP packet.
    ///
    /// # Errors
    /// [`Refused::Malformed`] or [`Refused::BadMki`].
    pub fn of_srtp(suite: SrtpSuite, packet: &[u8]) -> Result<Self, Refused> {
        Self::read_srtp(suite, packet).map(|(arrival, _)| arrival)
    }

    /// Reads an SRTCP packet.
    ///
    /// # Errors
    /// [`Refused::Malformed`] or [`Refused::BadMki`].
    pub fn of_srtcp(suite: SrtpSuite, packet: &[u8]) -> Result<Self, Refused> {
        if packet.len() < RTCP_FIXED + cipher::rtcp_overhead(suite) + MKI_LEN {
            return Err(Malformed::TooShort.into());
        }
        let ssrc = header::rtcp_ssrc(packet)?;
        Ok(Self {
            mki: read_mki(suite, packet)?,
            ssrc,
        })
    }

    /// The stream that this packet belongs to.
    #[must_use]
    pub fn stream(&self, suite: SrtpSuite) -> SrtpStream {
        SrtpStream {
            suite,
            sender: self.mki.sender(),
            session: self.mki.session(),
            ssrc: self.ssrc,
        }
    }

    #[inline]
    pub(super) fn read_srtp(suite: SrtpSuite, packet: &[u8]) -> Result<(Self, RtpHeader), Refused> {
        let trailer = cipher::rtp_overhead(suite) + MKI_LEN;
        let Some(body) = packet.len().checked_sub(trailer) else {
            return Err(Malformed::TooShort.into());
        };
        let header = RtpHeader::read(&packet[..body])?;
        Ok((
            Self {
                mki: read_mki(suite, packet)?,
                ssrc: header.ssrc,
            },
            header,
        ))
    }
}

/// The MKI stands last, but for the HMAC tag of AES-CM (RFC 3711 sections 3.1 and 3.4, RFC 7714
/// sections 8.2 and 9.2). The caller has checked the length.
#[inline]
fn read_mki(suite: SrtpSuite, packet: &[u8]) -> Result<Mki, Refused> {
    let before_mac = &packet[..packet.len() - cipher::mac_len(suite)];
    let octets = before_mac
        .last_chunk::<MKI_LEN>()
        .ok_or(Malformed::TooShort)?;
    Mki::from_bytes(*octets).ok_or(Refused::BadMki)
}
