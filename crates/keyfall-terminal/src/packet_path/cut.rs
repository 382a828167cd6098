//! A super-packet as the kernel hands it over, cut into the packets that it stands for.
//!
//! Each packet is made where its payload lies: its headers are written before it, over the end of the
//! payload before, which has gone out. So nothing is copied, and the cipher is the first that moves it.

use crate::packet_path::checksum;
use crate::packet_path::head::Load;
use crate::packet_path::inner::{HEADERS_MAX, Layout, Transport};

/// The packets of one read, one after the other.
#[derive(Debug)]
pub struct Cut<'a> {
    packet: &'a mut [u8],
    /// `None`: it goes as it is.
    segments: Option<Segments>,
    /// Where the next payload begins; the packet's length when nothing is left.
    at: usize,
}

/// What the headers of each segment are made of.
#[derive(Clone, Copy, Debug)]
struct Segments {
    layout: Layout,
    size: usize,
    /// Those of the whole. Lengths and checksums are 0, and of IPv4 the identification, too.
    headers: [u8; HEADERS_MAX],
    /// Of the IPv4 header.
    ip_sum: u64,
    /// Of addresses, protocol and transport header, but for TCP's sequence number and flags.
    transport_sum: u64,
    /// IPv4's identification and TCP's sequence number of the next segment, and the flags of the whole.
    id: u16,
    sequence: u32,
    flags: u8,
    /// Nothing was cut off yet.
    first: bool,
}

impl<'a> Cut<'a> {
    /// `None`: the kernel's header does not fit the packet, which then cannot be sent.
    pub(super) fn new(load: Load, packet: &'a mut [u8]) -> Option<Self> {
        let segments = match load {
            Load::Whole => None,
            Load::Unsummed { start, offset } => {
                let after = packet.get_mut(start..)?;
                let mut sum = checksum::finish(checksum::add(0, after));
                if sum == [0, 0] {
                    sum = [0xff, 0xff];
                }
                after.get_mut(offset..offset + 2)?.copy_from_slice(&sum);
                None
            }
            Load::Segments { size } => Some(Segments::read(packet, size)?),
        };
        Some(Self {
            at: segments.map_or(0, |it| it.layout.payload_at),
            packet,
            segments,
        })
    }

    /// Headers as they are in each packet but for lengths, numbers and checksums; to be read before
    /// the first packet is taken.
    #[must_use]
    pub fn headers(&self) -> &[u8] {
        self.packet
    }

    /// How many packets are not taken yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        let octets = self.packet.len() - self.at;
        let count = self.segments.map_or(1, |it| octets.div_ceil(it.size));
        if octets == 0 { 0 } else { count as u64 }
    }

    /// Octets of the next packet; `None` when all are taken.
    #[must_use]
    pub fn next_len(&self) -> Option<usize> {
        let left = self.packet.len() - self.at;
        if left == 0 {
            return None;
        }
        Some(match &self.segments {
            None => left,
            Some(segments) => segments.layout.payload_at + left.min(segments.size),
        })
    }

    /// The next packet, of [`Cut::next_len`] octets.
    pub fn take_next(&mut self) -> Option<&[u8]> {
        let length = self.next_len()?;
        let Some(segments) = &mut self.segments else {
            self.at = self.packet.len();
            return Some(self.packet);
        };
        let from = self.at - segments.layout.payload_at;
        self.at = from + length;
        let last = self.at == self.packet.len();
        let packet = &mut self.packet[from..self.at];
        segments.write_headers(packet, last);
        Some(packet)
    }
}

impl Segments {
    fn read(packet: &[u8], size: usize) -> Option<Self> {
        let layout = Layout::read(packet)?;
        if size == 0 || layout.payload_at >= packet.len() {
            return None;
        }
        let mut headers = [0; HEADERS_MAX];
        let whole = headers.get_mut(..layout.payload_at)?;
        whole.copy_from_slice(&packet[..layout.payload_at]);
        let (ip, transport) = whole.split_at_mut(layout.transport_at);
        let mut id = 0;
        if layout.v6 {
            ip[4..6].fill(0);
        } else {
            id = u16::from_be_bytes([ip[4], ip[5]]);
            ip[2..6].fill(0);
            ip[10..12].fill(0);
        }
        let ip_sum = checksum::add(0, ip);
        let at = layout.transport.checksum_at();
        transport[at..at + 2].fill(0);
        let (mut sequence, mut flags) = (0, 0);
        match layout.transport {
            Transport::Tcp => {
                sequence =
                    u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
                flags = transport[13];
                transport[4..8].fill(0);
                transport[13] = 0;
            }
            Transport::Udp => transport[4..6].fill(0),
        }
        let transport_sum = checksum::add(0, transport);
        // The length of what follows comes with each segment.
        let transport_sum = transport_sum + layout.pseudo_header(packet, 0);
        Some(Self {
            layout,
            size,
            headers,
            ip_sum,
            transport_sum,
            id,
            sequence,
            flags,
            first: true,
        })
    }

    /// Before the payload that lies in `packet`.
    #[inline]
    fn write_headers(&mut self, packet: &mut [u8], last: bool) {
        let Layout {
            v6,
            transport,
            transport_at,
            payload_at,
        } = self.layout;
        let (out, payload) = packet.split_at_mut(payload_at);
        let mut sum = checksum::add(self.transport_sum, payload);
        let length = of_packet(payload_at + payload.len());
        let after = of_packet(payload_at - transport_at + payload.len());
        out.copy_from_slice(&self.headers[..payload_at]);
        let (ip, head) = out.split_at_mut(transport_at);
        if v6 {
            ip[4..6].copy_from_slice(&after.to_be_bytes());
        } else {
            ip[2..4].copy_from_slice(&length.to_be_bytes());
            ip[4..6].copy_from_slice(&self.id.to_be_bytes());
            let sum = checksum::add_u16(checksum::add_u16(self.ip_sum, length), self.id);
            ip[10..12].copy_from_slice(&checksum::finish(sum));
            self.id = self.id.wrapping_add(1);
        }
        sum = checksum::add_u16(sum, after);
        match transport {
            Transport::Tcp => {
                let mut flags = self.flags;
                if !self.first {
                    flags &= !TCP_CWR;
                }
                if !last {
                    flags &= !(TCP_FIN | TCP_PSH);
                }
                head[4..8].copy_from_slice(&self.sequence.to_be_bytes());
                head[13] = flags;
                sum = checksum::add(sum, &self.sequence.to_be_bytes());
                sum = checksum::add_u16(sum, u16::from(flags));
                // A TCP that counts on wraps.
                let passed = u32::from(of_packet(payload.len()));
                self.sequence = self.sequence.wrapping_add(passed);
                head[16..18].copy_from_slice(&checksum::finish(sum));
            }
            Transport::Udp => {
                head[4..6].copy_from_slice(&after.to_be_bytes());
                sum = checksum::add_u16(sum, after);
                head[6..8].copy_from_slice(&checksum::finish_udp(sum));
            }
        }
        self.first = false;
    }
}

/// A length within an IP packet.
fn of_packet(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

const TCP_FIN: u8 = 0x01;
const TCP_PSH: u8 = 0x08;
const TCP_CWR: u8 = 0x80;
