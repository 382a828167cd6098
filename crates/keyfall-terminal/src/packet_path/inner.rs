//! What stands at the front of an inner packet, as far as a packet path has to know.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet_path::checksum;

/// The parts of an inner packet that choose its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inner {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// Octets of the whole packet, as its header says.
    pub length: usize,
}

impl Inner {
    /// `None`: it is no IPv4 or IPv6 packet, or shorter than it says.
    #[must_use]
    pub fn read(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => {
                let head = packet.first_chunk::<20>()?;
                let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
                let header = usize::from(head[0] & 0xf) * 4;
                if header < 20 || length < header || packet.len() < length {
                    return None;
                }
                Some(Self {
                    source: Ipv4Addr::new(head[12], head[13], head[14], head[15]).into(),
                    destination: Ipv4Addr::new(head[16], head[17], head[18], head[19]).into(),
                    length,
                })
            }
            6 => {
                let head = packet.first_chunk::<40>()?;
                let length = 40 + usize::from(u16::from_be_bytes([head[4], head[5]]));
                if packet.len() < length {
                    return None;
                }
                let address = |at: usize| {
                    let octets = head[at..at + 16].try_into().expect("16 of 40 octets");
                    IpAddr::V6(Ipv6Addr::from_octets(octets))
                };
                Some(Self {
                    source: address(8),
                    destination: address(24),
                    length,
                })
            }
            _ => None,
        }
    }
}

/// The protocols whose segments go together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum stands after the start of the transport header.
    pub(super) const fn checksum_at(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Where the headers of a TCP or UDP packet end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Layout {
    pub(super) v6: bool,
    pub(super) transport: Transport,
    /// Where the transport header begins.
    pub(super) transport_at: usize,
    /// Where the payload begins.
    pub(super) payload_at: usize,
}

impl Layout {
    /// `None`: fragments, options of IP, other protocols, and what is too short. Those go as they are.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let (v6, protocol, transport_at) = match packet.first()? {
            0x45 => {
                let head = packet.first_chunk::<20>()?;
                if u16::from_be_bytes([head[6], head[7]]) & 0x3fff != 0 {
                    return None;
                }
                (false, head[9], 20)
            }
            first if first >> 4 == 6 => (true, *packet.get(6)?, 40),
            _ => return None,
        };
        let after = packet.get(transport_at..)?;
        let (transport, header) = match protocol {
            6 => (Transport::Tcp, usize::from(after.get(12)? >> 4) * 4),
            17 => (Transport::Udp, 8),
            _ => return None,
        };
        let least = match transport {
            Transport::Tcp => 20,
            Transport::Udp => 8,
        };
        if header < least || after.len() < header {
            return None;
        }
        Some(Self {
            v6,
            transport,
            transport_at,
            payload_at: transport_at + header,
        })
    }

    /// The sum of the pseudo header, for so many octets of transport header and payload.
    pub(super) fn pseudo_header(&self, packet: &[u8], length: usize) -> u64 {
        let addresses = if self.v6 {
            &packet[8..40]
        } else {
            &packet[12..20]
        };
        let sum = checksum::add(0, addresses);
        let sum = checksum::add_u16(sum, u16::from(self.transport.number()));
        // At most 65,535: an IP packet holds no more.
        checksum::add_u16(sum, u16::try_from(length).unwrap_or(u16::MAX))
    }

    /// Writes the lengths of IP and UDP, and IPv4's checksum, for the packet as it is now.
    pub(super) fn write_lengths(&self, packet: &mut [u8]) {
        let length = u16::try_from(packet.len()).unwrap_or(u16::MAX);
        let transport_at = u16::try_from(self.transport_at).unwrap_or(u16::MAX);
        let after = length.saturating_sub(transport_at);
        if self.v6 {
            packet[4..6].copy_from_slice(&after.to_be_bytes());
        } else {
            packet[2..4].copy_from_slice(&length.to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum::finish(checksum::add(0, &packet[..20]));
            packet[10..12].copy_from_slice(&sum);
        }
        if self.transport == Transport::Udp {
            let at = self.transport_at + 4;
            packet[at..at + 2].copy_from_slice(&after.to_be_bytes());
        }
    }

    /// Writes the checksum of the transport over the whole packet.
    pub(super) fn write_checksum(&self, packet: &mut [u8]) {
        let at = self.transport_at + self.transport.checksum_at();
        packet[at..at + 2].fill(0);
        let after = &packet[self.transport_at..];
        let sum = self.pseudo_header(packet, after.len());
        let sum = checksum::add(sum, after);
        let sum = match self.transport {
            Transport::Tcp => checksum::finish(sum),
            Transport::Udp => checksum::finish_udp(sum),
        };
        packet[at..at + 2].copy_from_slice(&sum);
    }

    pub(super) fn has_right_checksum(&self, packet: &[u8]) -> bool {
        let after = &packet[self.transport_at..];
        let sum = self.pseudo_header(packet, after.len());
        checksum::holds(checksum::add(sum, after))
    }
}

/// Octets of the longest headers: IPv6, and TCP with all its options.
pub(super) const HEADERS_MAX: usize = 40 + 60;
