//! ICMP echo (RFC 792, RFC 4443 section 4) as whole IP packets: what a key search by echo travels in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet_path::checksum;
use crate::packet_path::inner::Inner;

/// One echo request or reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Echo<'p> {
    pub(crate) is_request: bool,
    pub(crate) name: EchoName,
    pub(crate) payload: &'p [u8],
}

/// What names an exchange: who asks whom, by which numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct EchoName {
    /// Who sent the request.
    pub(crate) asker: IpAddr,
    /// Whom it was sent to.
    pub(crate) asked: IpAddr,
    pub(crate) id: u16,
    pub(crate) seq: u16,
}

impl<'p> Echo<'p> {
    /// `None`: it is no echo, or a fragment, or has options of IP.
    pub(crate) fn read(packet: &'p [u8]) -> Option<Self> {
        let inner = Inner::read(packet)?;
        let (at, protocol) = match packet.first()? {
            0x45 if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff == 0 => (20, packet[9]),
            first if first >> 4 == 6 => (40, packet[6]),
            _ => return None,
        };
        let [kind, 0, _, _, i, d, s, q, payload @ ..] = packet.get(at..inner.length)? else {
            return None;
        };
        let (asker, asked, is_request) = match (protocol, *kind) {
            (ICMP, REQUEST) | (ICMP_V6, REQUEST_V6) => (inner.source, inner.destination, true),
            (ICMP, REPLY) | (ICMP_V6, REPLY_V6) => (inner.destination, inner.source, false),
            _ => return None,
        };
        let name = EchoName {
            asker,
            asked,
            id: u16::from_be_bytes([*i, *d]),
            seq: u16::from_be_bytes([*s, *q]),
        };
        Some(Self {
            is_request,
            name,
            payload,
        })
    }

    /// The packet; `None` where it is too long for IP, or its addresses are of two families.
    pub(crate) fn write(&self) -> Option<Vec<u8>> {
        let EchoName {
            asker,
            asked,
            id,
            seq,
        } = self.name;
        let (source, destination) = if self.is_request {
            (asker, asked)
        } else {
            (asked, asker)
        };
        let length = u16::try_from(8 + self.payload.len()).ok()?;
        let (mut packet, kind) = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let kinds = [REPLY, REQUEST];
                let head = head_v4(source, destination, length)?;
                (head, kinds[usize::from(self.is_request)])
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let kinds = [REPLY_V6, REQUEST_V6];
                let head = head_v6(source, destination, length);
                (head, kinds[usize::from(self.is_request)])
            }
            _ => return None,
        };
        let at = packet.len();
        packet.extend([kind, 0, 0, 0]);
        packet.extend(id.to_be_bytes());
        packet.extend(seq.to_be_bytes());
        packet.extend(self.payload);
        let mut sum = 0;
        if at == 40 {
            // RFC 4443 section 2.3: the pseudo header is under it, too.
            sum = checksum::add(0, &packet[8..40]);
            sum = checksum::add_u16(sum, length);
            sum = checksum::add_u16(sum, u16::from(ICMP_V6));
        }
        let sum = checksum::finish(checksum::add(sum, &packet[at..]));
        packet[at + 2..at + 4].copy_from_slice(&sum);
        Some(packet)
    }
}

fn head_v4(source: Ipv4Addr, destination: Ipv4Addr, length: u16) -> Option<Vec<u8>> {
    let [high, low] = length.checked_add(20)?.to_be_bytes();
    let mut head = vec![0x45, 0, high, low, 0, 0, 0, 0, HOPS, ICMP, 0, 0];
    head.extend(source.octets());
    head.extend(destination.octets());
    let sum = checksum::finish(checksum::add(0, &head));
    head[10..12].copy_from_slice(&sum);
    Some(head)
}

fn head_v6(source: Ipv6Addr, destination: Ipv6Addr, length: u16) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    let mut head = vec![0x60, 0, 0, 0, high, low, ICMP_V6, HOPS];
    head.extend(source.octets());
    head.extend(destination.octets());
    head
}

pub(super) const ICMP: u8 = 1;
pub(super) const ICMP_V6: u8 = 58;
pub(super) const REPLY: u8 = 0;
pub(super) const REQUEST: u8 = 8;
pub(super) const REQUEST_V6: u8 = 128;
pub(super) const REPLY_V6: u8 = 129;
const HOPS: u8 = 64;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn name(asker: &str, asked: &str) -> EchoName {
        EchoName {
            asker: asker.parse().unwrap(),
            asked: asked.parse().unwrap(),
            id: 0x1234,
            seq: 7,
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_its_checksum_holds() {
        for (asker, asked) in [("192.0.2.1", "10.10.2.7"), ("2001:db8::1", "fd10:2::7")] {
            for is_request in [true, false] {
                let echo = Echo {
                    is_request,
                    name: name(asker, asked),
                    payload: b"odd",
                };
                let packet = echo.write().unwrap();
                assert_eq!(Echo::read(&packet), Some(echo));
                let v6 = asker.contains(':');
                let mut sum = checksum::add(0, &packet[if v6 { 40 } else { 20 }..]);
                if v6 {
                    let pseudo = checksum::add(0, &packet[8..40]);
                    sum += checksum::add_u16(checksum::add_u16(pseudo, 11), 58);
                } else {
                    assert!(checksum::holds(checksum::add(0, &packet[..20])));
                }
                assert!(checksum::holds(sum));
            }
        }
    }

    #[test]
    fn fragments_errors_and_other_protocols_are_no_echo() {
        let echo = Echo {
            is_request: true,
            name: name("192.0.2.1", "10.10.2.7"),
            payload: &[0; 16],
        };
        let packet = echo.write().unwrap();
        for (at, octet) in [(6, 0x20), (7, 1), (9, 17), (20, 3), (21, 1), (0, 0x46)] {
            let mut other = packet.clone();
            other[at] = octet;
            assert_eq!(Echo::read(&other), None, "octet {at}");
        }
        for length in 0..packet.len() {
            assert_eq!(Echo::read(&packet[..length]), None, "{length}");
        }
        // Whatever one octet says, it is read or refused.
        for at in 0..packet.len() {
            for octet in 0..=255 {
                let mut other = packet.clone();
                other[at] = octet;
                if let Some(echo) = Echo::read(&other) {
                    assert!(echo.payload.len() <= 16, "octet {at} is {octet}");
                }
            }
        }
        let two_families = Echo {
            name: name("192.0.2.1", "fd10:2::7"),
            ..echo
        };
        assert_eq!(two_families.write(), None);
    }
}
