//! RTP and RTCP headers, read strictly by length (RFC 3550 sections 5.1, 5.3.1 and 6.4.1).

use crate::srtp::Malformed;

/// What SRTP needs of an RTP header.
#[derive(Clone, Copy, Debug)]
pub(super) struct RtpHeader {
    /// Octets of the header with CSRC list and extension: what is authenticated in clear.
    pub(super) len: usize,
    pub(super) sequence: u16,
    pub(super) ssrc: u32,
}

impl RtpHeader {
    /// Reads the header at the start of `octets`, which hold the packet without the trailer that
    /// SRTP appended.
    #[inline]
    pub(super) fn read(octets: &[u8]) -> Result<Self, Malformed> {
        if octets.len() > MAX_PACKET {
            return Err(Malformed::TooLong);
        }
        let Some((fixed, rest)) = octets.split_first_chunk::<RTP_FIXED>() else {
            return Err(Malformed::TooShort);
        };
        if fixed[0] >> 6 != 2 {
            return Err(Malformed::NotVersion2);
        }
        let mut len = RTP_FIXED + 4 * usize::from(fixed[0] & 0x0f);
        if fixed[0] & 0x10 != 0 {
            let extension = rest
                .get(len - RTP_FIXED..)
                .and_then(<[u8]>::first_chunk::<4>);
            let Some([_, _, high, low]) = extension else {
                return Err(Malformed::BeyondEnd);
            };
            len += 4 + 4 * usize::from(u16::from_be_bytes([*high, *low]));
        }
        if len > octets.len() {
            return Err(Malformed::BeyondEnd);
        }
        Ok(Self {
            len,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        })
    }
}

/// The SSRC of an RTP packet, protected or not.
///
/// # Errors
/// [`Malformed`] where it is no RTP packet.
pub fn rtp_ssrc(packet: &[u8]) -> Result<u32, Malformed> {
    RtpHeader::read(packet).map(|header| header.ssrc)
}

/// The SSRC of the sender of an RTCP packet, protected or not.
///
/// # Errors
/// [`Malformed`] where it is no RTCP packet.
pub fn rtcp_ssrc(packet: &[u8]) -> Result<u32, Malformed> {
    if packet.len() > MAX_PACKET {
        return Err(Malformed::TooLong);
    }
    let Some(fixed) = packet.first_chunk::<RTCP_FIXED>() else {
        return Err(Malformed::TooShort);
    };
    if fixed[0] >> 6 != 2 {
        return Err(Malformed::NotVersion2);
    }
    Ok(u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]))
}

/// Checks that the parts of a plain compound packet fill it exactly; returns its SSRC.
pub(super) fn read_compound(packet: &[u8]) -> Result<u32, Malformed> {
    let ssrc = rtcp_ssrc(packet)?;
    let mut rest = packet;
    while !rest.is_empty() {
        let Some([first, _, high, low]) = rest.first_chunk() else {
            return Err(Malformed::TooShort);
        };
        if first >> 6 != 2 {
            return Err(Malformed::NotVersion2);
        }
        let len = 4 + 4 * usize::from(u16::from_be_bytes([*high, *low]));
        rest = rest.get(len..).ok_or(Malformed::BeyondEnd)?;
    }
    Ok(ssrc)
}

/// Octets of an RTP header without CSRC list and extension.
const RTP_FIXED: usize = 12;
/// Octets of an RTCP packet that stay in clear: the first header and the sender's SSRC
/// (RFC 3711 section 3.4).
pub(super) const RTCP_FIXED: usize = 8;
/// No packet is longer than a UDP datagram; it also keeps AES-CM within 2^16 blocks (RFC 3711
/// section 4.1.1).
const MAX_PACKET: usize = 65_535;
