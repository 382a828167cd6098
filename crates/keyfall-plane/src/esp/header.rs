//! SPI, sequence number and IV: all that names the key, in 16 octets (FORMATS section 7).
//!
//! | octets | of a session | of a stock sender |
//! |---|---|---|
//! | 4 | SPI = 1 ‖ sender 24 ‖ tag 7 | SPI 0x100 to 0x7fff_ffff |
//! | 4 | sequence number, from 1, at most 2^24 - 1 | sequence number |
//! | 8 | IV = session 5 ‖ the low three octets of the sequence number | IV as it comes |

use std::fmt;

use keyfall_protocol::ids::{EspSession, TerminalNumber};
use keyfall_protocol::keys::PinnedSpi;

use crate::esp::cipher::ICV_LEN;
use crate::esp::{ESP_HEAD, EspRefused};

/// Who sent a packet of a session and under which key: not authenticated until the packet is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Spi(u32);

impl Spi {
    /// `tag` is the master key's ([`keyfall_protocol::keys::MasterKey::esp_tag`]), 7 bits.
    #[must_use]
    pub const fn new(sender: TerminalNumber, tag: u8) -> Self {
        Self(SESSION_BIT | sender.get() << 7 | (tag & 0x7f) as u32)
    }

    /// `None` where the highest bit is not set or the sender number is 0.
    #[must_use]
    pub const fn from_u32(spi: u32) -> Option<Self> {
        if spi & SESSION_BIT == 0 || TerminalNumber::new((spi & !SESSION_BIT) >> 7).is_none() {
            None
        } else {
            Some(Self(spi))
        }
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    #[must_use]
    pub fn sender(self) -> TerminalNumber {
        TerminalNumber::new((self.0 & !SESSION_BIT) >> 7)
            .expect("both constructors have seen a sender number")
    }

    /// Three bits of the tag hash, then the generation modulo 16.
    #[must_use]
    pub const fn tag(self) -> u8 {
        (self.0 & 0x7f) as u8
    }
}

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Spi({self}: sender {}, tag {:02x})",
            self.sender(),
            self.tag()
        )
    }
}

/// What a received packet of a session says of itself. Nothing in it is authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EspArrival {
    pub spi: Spi,
    pub session: EspSession,
    /// From 1, 24 bits.
    pub sequence: u32,
}

impl EspArrival {
    /// Reads an ESP packet, from the octet after the UDP header on.
    ///
    /// # Errors
    /// [`EspRefused::TooShort`], [`EspRefused::ReservedSpi`], [`EspRefused::Pinned`],
    /// [`EspRefused::NoSender`], [`EspRefused::BadSequence`].
    #[inline]
    pub fn read(packet: &[u8]) -> Result<Self, EspRefused> {
        let (spi, sequence, iv) = read_head(packet)?;
        if spi & SESSION_BIT == 0 {
            return Err(EspRefused::Pinned);
        }
        let spi = Spi::from_u32(spi).ok_or(EspRefused::NoSender)?;
        let [a, b, c, d, e, low @ ..] = iv;
        let [high, rest @ ..] = sequence.to_be_bytes();
        if high != 0 || rest != low || sequence == 0 {
            return Err(EspRefused::BadSequence);
        }
        Ok(Self {
            spi,
            session: EspSession::new([a, b, c, d, e]),
            sequence,
        })
    }
}

/// What a received packet of a stock sender says of itself. Nothing in it is authenticated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PinnedArrival {
    pub spi: PinnedSpi,
    pub sequence: u32,
}

impl PinnedArrival {
    /// Reads an ESP packet, from the octet after the UDP header on.
    ///
    /// # Errors
    /// [`EspRefused::TooShort`], [`EspRefused::ReservedSpi`], [`EspRefused::NotPinned`],
    /// [`EspRefused::BadSequence`].
    pub fn read(packet: &[u8]) -> Result<Self, EspRefused> {
        let (spi, sequence, _) = read_head(packet)?;
        let spi = PinnedSpi::new(spi).ok_or(EspRefused::NotPinned)?;
        if sequence == 0 {
            return Err(EspRefused::BadSequence);
        }
        Ok(Self { spi, sequence })
    }
}

/// SPI, sequence number and IV of a packet that is long enough to be one.
#[inline]
fn read_head(packet: &[u8]) -> Result<(u32, u32, [u8; 8]), EspRefused> {
    let head = packet
        .first_chunk::<ESP_HEAD>()
        .filter(|_| packet.len() >= ESP_HEAD + 2 + ICV_LEN)
        .ok_or(EspRefused::TooShort)?;
    let [a, b, c, d, e, f, g, h, iv @ ..] = *head;
    let spi = u32::from_be_bytes([a, b, c, d]);
    if spi < FIRST_SPI {
        return Err(EspRefused::ReservedSpi);
    }
    Ok((spi, u32::from_be_bytes([e, f, g, h]), iv))
}

/// Set in the SPI of every session.
const SESSION_BIT: u32 = 1 << 31;
/// Those below are reserved, 0 is the non-ESP marker (RFC 4303 section 2.1, RFC 3948 section 2.2).
const FIRST_SPI: u32 = 0x100;
