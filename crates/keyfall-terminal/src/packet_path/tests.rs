#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr};

use proptest::collection::vec;
use proptest::prelude::*;

use super::cut::Cut;
use super::head::{self, HEAD_LEN, Load};
use super::inner::{Inner, Layout, Transport};
use super::join::Join;

/// A packet with right lengths and checksums.
#[derive(Clone, Debug)]
struct Made {
    v6: bool,
    transport: Transport,
    flow: u8,
    id: u16,
    dont_fragment: bool,
    sequence: u32,
    flags: u8,
    options: usize,
    payload: Vec<u8>,
}

impl Made {
    fn packet(&self) -> Vec<u8> {
        let mut packet = if self.v6 {
            let mut head = vec![0x60, 0, 0, 0, 0, 0, 0, 64];
            head.extend([0xfd; 16]);
            head.extend([0xfe; 16]);
            head
        } else {
            let [high, low] = self.id.to_be_bytes();
            let flags = if self.dont_fragment { 0x40 } else { 0 };
            let mut head = vec![0x45, 0, 0, 0, high, low, flags, 0, 64, 0, 0, 0];
            head.extend([10, 0, 0, 1, 10, 0, 0, 2]);
            head
        };
        packet[if self.v6 { 6 } else { 9 }] = match self.transport {
            Transport::Tcp => 6,
            Transport::Udp => 17,
        };
        packet.extend([0x10, 0x00, 0x20, self.flow]);
        match self.transport {
            Transport::Tcp => {
                packet.extend(self.sequence.to_be_bytes());
                packet.extend([0, 0, 0, 7]);
                let words = u8::try_from(5 + self.options).unwrap();
                packet.extend([words << 4, self.flags, 1, 0, 0, 0, 0, 0]);
                packet.extend(std::iter::repeat_n(1, self.options * 4));
            }
            Transport::Udp => packet.extend([0, 0, 0, 0]),
        }
        packet.extend(&self.payload);
        let layout = Layout::read(&packet).unwrap();
        layout.write_lengths(&mut packet);
        layout.write_checksum(&mut packet);
        packet
    }
}

fn made() -> impl Strategy<Value = Made> {
    let shape = (any::<bool>(), any::<bool>(), 0..2u8, 0..3usize);
    let numbers = (0..3u16, any::<bool>(), 0..3u32);
    let flags = prop_oneof![8 => Just(0x10u8), 1 => Just(0x18), 1 => Just(0x11), 1 => Just(0x02)];
    let payload = prop_oneof![vec(any::<u8>(), 0..4), vec(any::<u8>(), 200..203)];
    (shape, numbers, flags, payload).prop_map(|(shape, numbers, flags, payload)| Made {
        v6: shape.0,
        transport: if shape.1 {
            Transport::Tcp
        } else {
            Transport::Udp
        },
        flow: shape.2,
        options: shape.3,
        id: numbers.0,
        dont_fragment: numbers.1,
        sequence: numbers.2 * 200,
        flags,
        payload,
    })
}

/// Everything that is written, cut as the kernel would.
#[derive(Default)]
struct Kernel {
    packets: Vec<Vec<u8>>,
    writes: usize,
}

impl Kernel {
    fn write(&mut self, octets: &mut [u8]) {
        self.writes += 1;
        let (head, packet) = octets.split_first_chunk_mut::<HEAD_LEN>().unwrap();
        let mut cut = Cut::new(head::read(head), packet).unwrap();
        while let Some(length) = cut.next_len() {
            let packet = cut.take_next().unwrap();
            assert_eq!(packet.len(), length);
            self.packets.push(packet.to_vec());
        }
    }
}

fn join_all(packets: &[Vec<u8>], garbage: &[u8]) -> Kernel {
    let mut kernel = Kernel::default();
    let mut join = Join::new(true, true);
    for packet in packets {
        // What does not open leaves no trace.
        join.slot()[..garbage.len()].copy_from_slice(garbage);
        join.give_up();
        join.slot()[..packet.len()].copy_from_slice(packet);
        join.push(packet.len(), &mut |octets| kernel.write(octets));
    }
    join.flush(&mut |octets| kernel.write(octets));
    kernel
}

/// RFC 6864: the identification of a packet that may not be cut says nothing.
fn without_idle_id(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet.len() >= 20 && packet[0] == 0x45 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

fn compared(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    packets.iter().map(|it| without_idle_id(it)).collect()
}

proptest! {
    /// Whatever comes, the kernel gets the same packets in the same order.
    #[test]
    fn join_then_cut_gives_the_same_packets(
        packets in vec(prop_oneof![9 => made().prop_map(|it| it.packet()), 1 => vec(any::<u8>(), 1..90)], 0..40),
        garbage in vec(any::<u8>(), 0..300),
    ) {
        let kernel = join_all(&packets, &garbage);
        prop_assert_eq!(compared(&kernel.packets), compared(&packets));
    }

    /// A wrong octet anywhere is not hidden by a fresh checksum.
    #[test]
    fn what_was_broken_stays_broken(place in 0..252usize, flip in 1..=255u8, v6 in any::<bool>()) {
        let mut packets = run(v6, Transport::Tcp, 3, 200);
        let octets = &mut packets[1];
        let place = place % octets.len();
        octets[place] ^= flip;
        let kernel = join_all(&packets, &[]);
        prop_assert_eq!(compared(&kernel.packets), compared(&packets));
    }

    /// Cut, then joined: the super-packet is what it was, and one write.
    #[test]
    fn cut_then_join_gives_the_same_super_packet(
        v6 in any::<bool>(),
        tcp in any::<bool>(),
        size in 1..1500usize,
        payload in 1..40_000usize,
        options in 0..10usize,
        push in any::<bool>(),
    ) {
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        let payload = payload.min(size * 64);
        let whole = Made {
            v6,
            transport,
            flow: 1,
            id: 65_530,
            dont_fragment: true,
            sequence: u32::MAX - 1_000,
            flags: if push { 0x18 } else { 0x10 },
            options,
            payload: (0..payload).map(|it| u8::try_from(it % 251).unwrap()).collect(),
        }
        .packet();
        let mut super_packet = whole.clone();
        let mut cut = Cut::new(Load::Segments { size }, &mut super_packet).unwrap();
        let mut packets = Vec::new();
        prop_assert_eq!(cut.left(), u64::try_from(payload.div_ceil(size)).unwrap());
        while let Some(length) = cut.next_len() {
            let packet = cut.take_next().unwrap().to_vec();
            prop_assert_eq!(packet.len(), length);
            prop_assert_eq!(Inner::read(&packet).unwrap().length, length);
            prop_assert!(Layout::read(&packet).unwrap().has_right_checksum(&packet));
            packets.push(packet);
        }
        prop_assert_eq!(packets.len(), payload.div_ceil(size));
        let mut written = Vec::new();
        let mut join = Join::new(true, true);
        for packet in &packets {
            join.slot()[..packet.len()].copy_from_slice(packet);
            join.push(packet.len(), &mut |octets| written.push(octets.to_vec()));
        }
        join.flush(&mut |octets| written.push(octets.to_vec()));
        prop_assert_eq!(written.len(), 1);
        let mut joined = written.remove(0).split_off(HEAD_LEN);
        let layout = Layout::read(&joined).unwrap();
        layout.write_checksum(&mut joined);
        prop_assert_eq!(joined, whole);
    }
}

fn run(v6: bool, transport: Transport, count: u16, size: usize) -> Vec<Vec<u8>> {
    let packet = |index: u16| {
        Made {
            v6,
            transport,
            flow: 1,
            id: index,
            dont_fragment: false,
            sequence: u32::from(index) * u32::try_from(size).unwrap(),
            flags: 0x10,
            options: 3,
            payload: vec![u8::try_from(index).unwrap(); size],
        }
        .packet()
    };
    (0..count).map(packet).collect()
}

#[test]
fn a_run_is_one_write_and_a_stranger_ends_it() {
    for (v6, transport) in [(false, Transport::Tcp), (true, Transport::Udp)] {
        let mut packets = run(v6, transport, 40, 1_000);
        assert_eq!(join_all(&packets, &[]).writes, 1);
        packets.insert(20, run(!v6, transport, 1, 500).remove(0));
        assert_eq!(join_all(&packets, &[]).writes, 3);
    }
}

#[test]
fn fragments_and_udp_without_a_checksum_go_alone() {
    let mut packets = run(false, Transport::Udp, 2, 100);
    for packet in &mut packets {
        packet[26..28].fill(0);
    }
    assert_eq!(join_all(&packets, &[]).writes, 2);
    let mut packets = run(false, Transport::Tcp, 2, 100);
    for packet in &mut packets {
        packet[6] = 0x20;
        let layout = Layout {
            v6: false,
            transport: Transport::Tcp,
            transport_at: 20,
            payload_at: 40,
        };
        layout.write_lengths(packet);
    }
    assert_eq!(join_all(&packets, &[]).writes, 2);
}

#[test]
fn addresses_are_read_and_short_packets_are_not() {
    let packet = run(false, Transport::Udp, 1, 10).remove(0);
    let inner = Inner::read(&packet).unwrap();
    assert_eq!(inner.source, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
    assert_eq!(inner.destination, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
    for length in 0..packet.len() {
        assert_eq!(Inner::read(&packet[..length]), None);
    }
}
