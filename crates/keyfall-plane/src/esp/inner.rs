//! What the packet inside says of itself: which next header it goes under, and how long it is.

/// An IP version and its number in the next header field (RFC 4303 section 2.6).
const IPV4: u8 = 4;
const IPV6: u8 = 41;
/// "No next header": a dummy packet.
pub(super) const DUMMY: u8 = 59;

/// The next header and the length of the IP packet at the start of `octets`. Octets may follow it:
/// padding for traffic flow confidentiality (RFC 4303 section 2.7). `None` where it is no whole
/// IP packet.
#[inline]
pub(super) fn read(octets: &[u8]) -> Option<(u8, usize)> {
    let (next_header, shortest, len) = match octets.first()? >> 4 {
        4 => {
            let [_, _, a, b, ..] = *octets else {
                return None;
            };
            (IPV4, 20, usize::from(u16::from_be_bytes([a, b])))
        }
        6 => {
            let [_, _, _, _, a, b, ..] = *octets else {
                return None;
            };
            (IPV6, 40, 40 + usize::from(u16::from_be_bytes([a, b])))
        }
        _ => return None,
    };
    (shortest <= len && len <= octets.len()).then_some((next_header, len))
}
