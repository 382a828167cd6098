//! Segments of one flow joined to one super-packet, for one write to the kernel.
//!
//! A packet is opened straight to where it belongs: over the end of what is there already, so that
//! its payload follows the payload before and only its headers lie on top of it. Those few octets
//! are kept aside and put back. So what comes from the wire is touched once, by the cipher (KR-548).

use zeroize::Zeroize;

use crate::packet_path::checksum;
use crate::packet_path::head::{self, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, HEAD_LEN, Joined, WHOLE};
use crate::packet_path::inner::{HEADERS_MAX, Layout, Transport};

/// Packets that wait for the next of their flow.
#[derive(Debug)]
pub struct Join {
    /// The kernel's header, the super-packet, and room for a packet behind it.
    buffer: Box<[u8]>,
    /// Where the super-packet ends; [`HEAD_LEN`] when there is none.
    end: usize,
    open: Option<Open>,
    /// What lay where the next packet's headers are opened to.
    kept: [u8; HEADERS_MAX],
    tcp: bool,
    udp: bool,
}

/// A super-packet that takes more.
#[derive(Clone, Copy, Debug)]
struct Open {
    layout: Layout,
    /// Octets of payload of each segment but the last.
    size: usize,
    segments: u16,
    next_sequence: u32,
    /// Since it was shorter, or said PSH or FIN, nothing follows the last one.
    closed: bool,
}

impl Join {
    /// `tcp` and `udp` say what may be joined.
    #[must_use]
    pub fn new(tcp: bool, udp: bool) -> Self {
        Self {
            buffer: vec![0; HEAD_LEN + 2 * PACKET_MAX].into(),
            end: HEAD_LEN,
            open: None,
            kept: [0; HEADERS_MAX],
            tcp,
            udp,
        }
    }

    /// From now on each packet goes alone.
    pub fn never_join(&mut self) {
        (self.tcp, self.udp) = (false, false);
    }

    /// Where the next packet is opened to: 65,535 octets. [`Join::push`] or [`Join::give_up`] follows.
    pub fn slot(&mut self) -> &mut [u8] {
        let at = self.slot_at();
        let over = self.end - at;
        self.kept[..over].copy_from_slice(&self.buffer[at..self.end]);
        &mut self.buffer[at..at + PACKET_MAX]
    }

    /// The packet did not open: what was written to the slot is forgotten.
    pub fn give_up(&mut self) {
        let at = self.slot_at();
        self.put_back(at);
    }

    /// The packet in the slot is so long. `write` gets what is complete: the kernel's header and a
    /// packet.
    pub fn push(&mut self, length: usize, write: &mut impl FnMut(&mut [u8])) {
        let at = self.slot_at();
        let packet = at..at + length;
        if let Some(open) = self.open {
            let header = open.layout.payload_at;
            if let Some(joined) = self.joins(&open, packet.clone()) {
                let flags_at = open.layout.transport_at + 13;
                let flags = self.buffer[at + flags_at];
                self.put_back(at);
                // The flags of the last segment are those of the whole.
                if open.layout.transport == Transport::Tcp {
                    self.buffer[HEAD_LEN + flags_at] |= flags;
                }
                self.end = packet.end;
                self.open = Some(joined);
                return;
            }
            let mut headers = [0; HEADERS_MAX];
            let over = header.min(length);
            headers[..over].copy_from_slice(&self.buffer[at..at + over]);
            let rest = at + over..packet.end;
            self.put_back(at);
            // The packet lies behind the super-packet, which is written before it moves to the front.
            self.write_out(write);
            self.buffer[HEAD_LEN..HEAD_LEN + over].copy_from_slice(&headers[..over]);
            self.buffer.copy_within(rest, HEAD_LEN + over);
        }
        self.begin(length, write);
    }

    /// Writes what waits.
    pub fn flush(&mut self, write: &mut impl FnMut(&mut [u8])) {
        if self.open.is_some() {
            self.write_out(write);
        }
    }

    /// Nothing is left of what was written. What waits is forgotten.
    pub fn wipe(&mut self) {
        self.buffer.zeroize();
        self.kept.zeroize();
        (self.end, self.open) = (HEAD_LEN, None);
    }

    fn slot_at(&self) -> usize {
        self.end - self.open.map_or(0, |open| open.layout.payload_at)
    }

    fn put_back(&mut self, at: usize) {
        let over = self.end - at;
        self.buffer[at..self.end].copy_from_slice(&self.kept[..over]);
    }

    /// The first packet of what may become a super-packet, at the front of the buffer.
    fn begin(&mut self, length: usize, write: &mut impl FnMut(&mut [u8])) {
        let packet = &self.buffer[HEAD_LEN..HEAD_LEN + length];
        let layout = Layout::read(packet).filter(|layout| self.may_open(layout, packet));
        self.end = HEAD_LEN + length;
        let Some(layout) = layout else {
            self.end = HEAD_LEN;
            self.buffer[..HEAD_LEN].copy_from_slice(&WHOLE);
            write(&mut self.buffer[..HEAD_LEN + length]);
            return;
        };
        let size = length - layout.payload_at;
        let transport = &packet[layout.transport_at..];
        let sequence = u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
        self.open = Some(Open {
            layout,
            size,
            segments: 1,
            next_sequence: sequence.wrapping_add(u32::try_from(size).unwrap_or(u32::MAX)),
            closed: layout.transport == Transport::Tcp && transport[13] & (FIN | PSH) != 0,
        });
    }

    fn may_open(&self, layout: &Layout, packet: &[u8]) -> bool {
        let allowed = match layout.transport {
            Transport::Tcp => self.tcp && packet[layout.transport_at + 13] & !(FIN | PSH) == ACK,
            // A gateway passes multicast on packet by packet.
            Transport::Udp => {
                self.udp && has_checksum(layout, packet) && !is_multicast(layout, packet)
            }
        };
        allowed
            && layout.payload_at <= HEADERS_MAX
            && layout.payload_at < packet.len()
            && is_sound(layout, packet)
            && layout.has_right_checksum(packet)
    }

    /// What the super-packet is with this packet; `None`: it does not follow.
    fn joins(&self, open: &Open, packet: std::ops::Range<usize>) -> Option<Open> {
        let whole = self.end + packet.len();
        let (first, packet) = (&self.buffer[HEAD_LEN..self.end], &self.buffer[packet]);
        let layout = open.layout;
        if open.closed
            || open.segments >= SEGMENTS_MAX
            || packet.len() <= layout.payload_at
            || whole - layout.payload_at > HEAD_LEN + PACKET_MAX
            || Layout::read(packet) != Some(layout)
        {
            return None;
        }
        let payload = packet.len() - layout.payload_at;
        if payload > open.size || !is_sound(&layout, packet) {
            return None;
        }
        // The first headers may lie under the slot when there is one short segment only.
        let at = self.slot_at() - HEAD_LEN;
        let same = |range: std::ops::Range<usize>| {
            if range.end <= at {
                first[range.clone()] == packet[range]
            } else {
                range
                    .clone()
                    .all(|place| self.first_octet(at, place) == packet[place])
            }
        };
        let ip = if layout.v6 {
            same(0..4) && same(6..40)
        } else {
            // Version, TOS; flags; TTL, protocol; addresses. The identification counts on where the
            // packet is cut again; one that may not be cut to fragments needs none (RFC 6864).
            let id = |high: u8, low: u8| u16::from_be_bytes([high, low]);
            let begun = id(self.first_octet(at, 4), self.first_octet(at, 5));
            let counts_on = id(packet[4], packet[5]) == begun.wrapping_add(open.segments);
            let whole = packet[6] & DONT_FRAGMENT != 0;
            same(0..2) && same(6..10) && same(12..20) && (counts_on || whole)
        };
        let at = layout.transport_at;
        let joined = match layout.transport {
            Transport::Tcp => {
                let header = &packet[at..];
                let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                let flags = header[13];
                let fits = ip
                    && same(at..at + 4)
                    && sequence == open.next_sequence
                    && same(at + 8..at + 13)
                    && same(at + 14..at + 16)
                    && same(at + 18..layout.payload_at)
                    && flags & !(FIN | PSH) == ACK;
                fits.then(|| Open {
                    next_sequence: sequence
                        .wrapping_add(u32::try_from(payload).unwrap_or(u32::MAX)),
                    closed: payload < open.size || flags & (FIN | PSH) != 0,
                    segments: open.segments + 1,
                    ..*open
                })
            }
            Transport::Udp => {
                (ip && same(at..at + 4) && has_checksum(&layout, packet)).then(|| Open {
                    closed: payload < open.size,
                    segments: open.segments + 1,
                    ..*open
                })
            }
        };
        joined.filter(|_| layout.has_right_checksum(packet))
    }

    /// An octet of the first packet, of which the end from `at` on lies in `kept`.
    fn first_octet(&self, at: usize, place: usize) -> u8 {
        if place < at {
            self.buffer[HEAD_LEN + place]
        } else {
            self.kept[place - at]
        }
    }

    /// Writes the super-packet and forgets it.
    fn write_out(&mut self, write: &mut impl FnMut(&mut [u8])) {
        let Some(open) = self.open.take() else {
            return;
        };
        let end = std::mem::replace(&mut self.end, HEAD_LEN);
        if open.segments == 1 {
            self.buffer[..HEAD_LEN].copy_from_slice(&WHOLE);
            write(&mut self.buffer[..end]);
            return;
        }
        let layout = open.layout;
        let packet = &mut self.buffer[HEAD_LEN..end];
        layout.write_lengths(packet);
        let offset = layout.transport.checksum_at();
        let sum = layout.pseudo_header(packet, packet.len() - layout.transport_at);
        let at = layout.transport_at + offset;
        packet[at..at + 2].copy_from_slice(&checksum::fold(sum));
        let joined = head::write(&Joined {
            gso_type: match (layout.transport, layout.v6) {
                (Transport::Tcp, false) => GSO_TCPV4,
                (Transport::Tcp, true) => GSO_TCPV6,
                (Transport::Udp, _) => GSO_UDP_L4,
            },
            header: layout.payload_at,
            size: open.size,
            checksum_start: layout.transport_at,
            checksum_offset: offset,
        });
        self.buffer[..HEAD_LEN].copy_from_slice(&joined);
        write(&mut self.buffer[..end]);
    }
}

/// RFC 768: zero says that there is no checksum, and a joined packet would get one.
fn has_checksum(layout: &Layout, packet: &[u8]) -> bool {
    let at = layout.transport_at + 6;
    packet[at..at + 2] != [0, 0]
}

fn is_multicast(layout: &Layout, packet: &[u8]) -> bool {
    if layout.v6 {
        packet[24] == 0xff
    } else {
        matches!(packet[16], 224..240)
    }
}

/// Whether lengths in the headers, and IPv4's checksum, are right: a joined packet gets its own.
fn is_sound(layout: &Layout, packet: &[u8]) -> bool {
    let number = |at: usize| usize::from(u16::from_be_bytes([packet[at], packet[at + 1]]));
    let ip = if layout.v6 { number(4) + 40 } else { number(2) };
    let udp = layout.transport != Transport::Udp
        || number(layout.transport_at + 4) == packet.len() - layout.transport_at;
    let header = layout.v6 || checksum::holds(checksum::add(0, &packet[..20]));
    ip == packet.len() && udp && header
}

/// The largest IP packet.
pub(super) const PACKET_MAX: usize = 65_535;
/// As many as the kernel's UDP takes.
const SEGMENTS_MAX: u16 = 64;
const DONT_FRAGMENT: u8 = 0x40;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const ACK: u8 = 0x10;
