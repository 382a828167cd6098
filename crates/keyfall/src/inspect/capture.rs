//! The UDP datagrams of a capture, and the messages in its ICMP echoes, classic pcap or pcapng, as tcpdump, dumpcap and Wireshark write it.

use std::net::SocketAddr;
use std::time::Duration;

use etherparse::{EtherType, Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use keyfall_protocol::ids::Tick;
use keyfall_protocol::sharing::message::MARKER;
use pcap_parser::traits::PcapNGPacketBlock;
use pcap_parser::{
    Block, InterfaceDescriptionBlock, Linktype, parse_block_be, parse_block_le, parse_pcap_frame,
    parse_pcap_frame_be, parse_pcap_frame_modified, parse_pcap_header,
};

/// What a capture holds.
#[derive(Default, Debug)]
pub(crate) struct Capture {
    /// In the order of the file.
    pub(crate) datagrams: Vec<Datagram>,
    /// Packets that are neither a whole datagram of UDP nor an echo with a message of ours.
    pub(crate) others: usize,
    /// Packets of which the capture holds only the beginning.
    pub(crate) cut: usize,
}

#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Datagram {
    /// The number of its packet in the file, from 1, as Wireshark counts.
    pub(crate) packet: usize,
    /// Since 1970.
    pub(crate) at: Duration,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) octets: Vec<u8>,
}

impl Datagram {
    pub(crate) fn ends(&self) -> (SocketAddr, SocketAddr) {
        (self.from, self.to)
    }

    /// As the core counts time.
    pub(crate) fn tick(&self) -> Tick {
        Tick::from_nanos(u64::try_from(self.at.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Whether it begins as a capture does.
pub(crate) fn is_capture(file: &[u8]) -> bool {
    file.starts_with(&SECTION.to_be_bytes()) || PCAP.iter().any(|magic| file.starts_with(magic))
}

/// Reads a whole capture; a sentence where it is damaged.
pub(crate) fn read(file: &[u8]) -> Result<Capture, String> {
    if file.starts_with(&SECTION.to_be_bytes()) {
        read_pcapng(file)
    } else {
        read_pcap(file)
    }
}

fn read_pcap(file: &[u8]) -> Result<Capture, String> {
    let (mut rest, header) =
        parse_pcap_header(file).map_err(|_| "this capture ends in its header".to_owned())?;
    let next = if header.is_modified_format() {
        parse_pcap_frame_modified
    } else if header.is_bigendian() {
        parse_pcap_frame_be
    } else {
        parse_pcap_frame
    };
    let unit = if header.is_nanosecond_precision() {
        1
    } else {
        1000
    };
    // The upper half says how long the checksum of a frame is.
    let link = Linktype(header.network.0 & 0xffff);
    let mut capture = Capture::default();
    let mut number = 0;
    while !rest.is_empty() {
        let (after, frame) = next(rest).map_err(|_| damaged(number))?;
        rest = after;
        number += 1;
        let nanos = u64::from(frame.ts_usec) * unit;
        let at = Duration::from_secs(frame.ts_sec.into()) + Duration::from_nanos(nanos);
        let whole = frame.caplen >= frame.origlen;
        capture.add(number, at, link, frame.data, whole);
    }
    Ok(capture)
}

fn read_pcapng(file: &[u8]) -> Result<Capture, String> {
    let mut capture = Capture::default();
    let mut interfaces: Vec<Interface> = Vec::new();
    let (mut rest, mut number, mut at) = (file, 0, Duration::ZERO);
    let mut order = Order::Little;
    while !rest.is_empty() {
        let (kind, block, after) = order.split(rest).ok_or_else(|| damaged(number))?;
        rest = after;
        // The others are passed over by their length alone: the library is not careful with all of them.
        if ![SECTION, INTERFACE, SIMPLE_PACKET, ENHANCED_PACKET].contains(&kind) {
            continue;
        }
        let parsed = match order {
            Order::Little => parse_block_le(block),
            Order::Big => parse_block_be(block),
        };
        let (_, block) = parsed.map_err(|_| damaged(number))?;
        let unlisted = || {
            let packet = number + 1;
            format!("packet {packet} of this capture names an interface that it does not describe")
        };
        match block {
            Block::SectionHeader(_) => interfaces.clear(),
            Block::InterfaceDescription(it) => interfaces.push(Interface::of(&it)),
            Block::EnhancedPacket(packet) => {
                let interface = interfaces.get(packet.if_id as usize);
                let interface = interface.ok_or_else(unlisted)?;
                number += 1;
                at = interface.time(u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low));
                let whole = packet.caplen >= packet.origlen;
                capture.add(number, at, interface.link, packet.packet_data(), whole);
            }
            Block::SimplePacket(packet) => {
                let interface = interfaces.first().ok_or_else(unlisted)?;
                number += 1;
                let octets = packet.packet_data();
                let whole = octets.len() >= packet.origlen as usize;
                // It has no time of its own.
                capture.add(number, at, interface.link, octets, whole);
            }
            Block::NameResolution(_)
            | Block::InterfaceStatistics(_)
            | Block::SystemdJournalExport(_)
            | Block::DecryptionSecrets(_)
            | Block::ProcessInformation(_)
            | Block::Custom(_)
            | Block::Unknown(_) => {}
        }
    }
    Ok(capture)
}

fn damaged(after: usize) -> String {
    format!(
        "this capture is damaged or cut off behind packet {after}: take what is whole with `editcap`"
    )
}

/// In which a section of a pcapng file is written.
#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    /// The kind of the first block, the block, and what stands behind it; a section begins in an order of its own.
    fn split<'f>(&mut self, file: &'f [u8]) -> Option<(u32, &'f [u8], &'f [u8])> {
        let word = |place: usize| file.get(place..)?.first_chunk::<4>().copied();
        if word(0)? == SECTION.to_be_bytes() {
            *self = match word(8)? {
                [0x1a, 0x2b, 0x3c, 0x4d] => Self::Big,
                _ => Self::Little,
            };
        }
        let number = match self {
            Self::Little => u32::from_le_bytes,
            Self::Big => u32::from_be_bytes,
        };
        let (kind, len) = (number(word(0)?), number(word(4)?) as usize);
        let (block, rest) = file.split_at_checked(len)?;
        (len >= BLOCK_MIN).then_some((kind, block, rest))
    }
}

/// Where packets of a pcapng section were taken.
struct Interface {
    link: Linktype,
    /// Of the clock in a second.
    units: u128,
    /// Seconds that are added to it.
    offset: i64,
}

impl Interface {
    fn of(described: &InterfaceDescriptionBlock<'_>) -> Self {
        // The highest bit: a power of 2, else one of 10. The library knows no powers of 2.
        let exponent = u32::from(described.if_tsresol & 0x7f);
        let base: u128 = if described.if_tsresol & 0x80 == 0 {
            10
        } else {
            2
        };
        Self {
            link: described.linktype,
            units: base.checked_pow(exponent).unwrap_or(u128::MAX),
            offset: described.if_tsoffset,
        }
    }

    /// Zero where it would be before 1970.
    fn time(&self, clock: u64) -> Duration {
        let (clock, second) = (u128::from(clock), 1_000_000_000);
        let part = (clock % self.units).saturating_mul(second) / self.units;
        let seconds = i128::try_from(clock / self.units).unwrap_or(i128::MAX);
        let seconds = u64::try_from(seconds.saturating_add(self.offset.into())).unwrap_or(0);
        Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(part).unwrap_or(0))
    }
}

impl Capture {
    fn add(&mut self, number: usize, at: Duration, link: Linktype, octets: &[u8], whole: bool) {
        match datagram(link, octets) {
            _ if !whole => self.cut += 1,
            None => self.others += 1,
            Some((from, to, octets)) => self.datagrams.push(Datagram {
                packet: number,
                at,
                from,
                to,
                octets: octets.to_vec(),
            }),
        }
    }
}

/// The datagram in a packet, or what an ICMP echo carries, which has port 0. Checksums are not looked at: on the sending machine they are often not made yet.
fn datagram<'p>(link: Linktype, octets: &'p [u8]) -> Option<(SocketAddr, SocketAddr, &'p [u8])> {
    let by_ether_type = |at: usize, payload: usize| {
        let number = octets.get(at..)?.first_chunk().copied()?;
        let ether_type = EtherType(u16::from_be_bytes(number));
        SlicedPacket::from_ether_type(ether_type, octets.get(payload..)?).ok()
    };
    let sliced = match link {
        Linktype::ETHERNET => SlicedPacket::from_ethernet(octets).ok(),
        Linktype::LINUX_SLL => by_ether_type(14, 16),
        Linktype::LINUX_SLL2 => by_ether_type(0, 20),
        // The number of the family depends on the system; the packet itself says which it is.
        Linktype::NULL | Linktype::LOOP => SlicedPacket::from_ip(octets.get(4..)?).ok(),
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | Linktype(12 | 14) => {
            SlicedPacket::from_ip(octets).ok()
        }
        _ => None,
    }?;
    let (source, target) = match sliced.net? {
        NetSlice::Ipv4(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
        ),
        NetSlice::Arp(_) => return None,
    };
    let echo = |payload: &'p [u8]| {
        let ends = (SocketAddr::new(source, 0), SocketAddr::new(target, 0));
        payload
            .starts_with(&MARKER)
            .then_some((ends.0, ends.1, payload))
    };
    match sliced.transport? {
        TransportSlice::Udp(udp) => Some((
            SocketAddr::new(source, udp.source_port()),
            SocketAddr::new(target, udp.destination_port()),
            udp.payload(),
        )),
        TransportSlice::Icmpv4(icmp) => matches!(
            icmp.icmp_type(),
            Icmpv4Type::EchoRequest(_) | Icmpv4Type::EchoReply(_)
        )
        .then(|| echo(icmp.payload()))
        .flatten(),
        TransportSlice::Icmpv6(icmp) => matches!(
            icmp.icmp_type(),
            Icmpv6Type::EchoRequest(_) | Icmpv6Type::EchoReply(_)
        )
        .then(|| echo(icmp.payload()))
        .flatten(),
        TransportSlice::Tcp(_) | TransportSlice::Igmp(_) => None,
    }
}

/// Blocks of a pcapng file. The first reads alike in both orders.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Kind, and length before and behind.
const BLOCK_MIN: usize = 12;
/// Microseconds, nanoseconds, and a form that some kernels wrote.
const PCAP: [[u8; 4]; 5] = [
    0xa1b2_c3d4_u32.to_be_bytes(),
    0xa1b2_c3d4_u32.to_le_bytes(),
    0xa1b2_3c4d_u32.to_be_bytes(),
    0xa1b2_3c4d_u32.to_le_bytes(),
    0xa1b2_cd34_u32.to_le_bytes(),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy that broke off ends in a sentence, or at the end of a packet.
    #[test]
    fn every_beginning_of_a_capture_is_read_or_refused() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/capture");
        for file in std::fs::read_dir(seeds).expect("the folder is there") {
            let path = file.expect("readable").path();
            let whole = std::fs::read(&path).expect("readable");
            let all = read(&whole).expect("a seed is whole").datagrams;
            assert!(!all.is_empty(), "{}", path.display());
            let ends = (4..whole.len())
                .filter_map(|len| read(&whole[..len]).ok())
                .inspect(|read| assert!(all.starts_with(&read.datagrams)));
            let packets = all.len() + 2;
            assert!(ends.count() <= packets, "{}", path.display());
        }
    }

    /// The library took 12 from the length of a block that says it has 8. Found by fuzzing.
    #[test]
    fn a_block_shorter_than_its_head_is_damage() {
        let seed = include_bytes!("../../../../fuzz/seeds/capture/pcapng");
        let section = &seed[..28];
        for kind in [
            SECTION,
            INTERFACE,
            SIMPLE_PACKET,
            ENHANCED_PACKET,
            0x8000_0001,
        ] {
            for len in [0u32, 8, 11, 13, u32::MAX] {
                let block = [kind.to_le_bytes(), len.to_le_bytes(), [0; 4]].concat();
                let refused = read(&[section, &block].concat()).expect_err("damage");
                assert!(refused.contains("behind packet 0"), "{refused}");
            }
        }
    }
}
