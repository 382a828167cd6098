//! Multicast of the segment behind a gateway: what its hosts send to a group goes into the tunnel, and
//! what comes out of the tunnel goes to them. A system forwards no multicast by itself; here a thread
//! takes it on one interface and sends it, one hop older, by the other.
//!
//! Nothing is decided here about keys: into the tunnel goes what a thread that sends then judges like any
//! other packet, and out of it comes what a thread that receives has opened and judged.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::thread::{self, JoinHandle};

use keyfall_protocol::command::{Prefix, ProtectionRecord};
use rustix::event::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::packet_path::checksum;
use crate::packet_path::host::index_of;
use crate::packet_path::inner::{Inner, Layout};
use crate::packet_path::membership::Memberships;
use crate::packet_path::post::{self, Mailbox, Post};

/// The thread, and what is joined inside; both end when this is dropped.
pub(super) struct MulticastRelay {
    memberships: Memberships,
    post: Post<ToRelay>,
    thread: Option<JoinHandle<()>>,
}

enum ToRelay {
    /// The multicast of the groups.
    Networks(Vec<Prefix>),
    End,
}

impl MulticastRelay {
    /// Between the segment and the tunnel.
    ///
    /// # Errors
    /// What the system says; `PermissionDenied` without CAP_NET_RAW.
    pub(super) fn start(inside: &str, tun: &str) -> io::Result<Self> {
        let gone = || io::Error::from(ErrorKind::NotFound);
        let sides = [
            (inside, index_of(inside).ok_or_else(gone)?),
            (tun, index_of(tun).ok_or_else(gone)?),
        ];
        let mut ways = Vec::new();
        for (at, other) in [(0, 1), (1, 0)] {
            for family in [Family::V4, Family::V6] {
                ways.push(Way {
                    ear: family.ear(sides[at].1)?,
                    mouth: family.mouth(sides[other].0)?,
                    to: sides[other].1,
                });
            }
        }
        let (post, orders) = post::open()?;
        let relay = Relay {
            ways,
            orders,
            networks: Vec::new(),
        };
        let thread = thread::Builder::new()
            .name("multicast".to_owned())
            .spawn(move || relay.run())?;
        Ok(Self {
            memberships: Memberships::new(Some(sides[0].1)),
            post,
            thread: Some(thread),
        })
    }

    /// As the record says now.
    ///
    /// # Errors
    /// As [`Memberships::apply`].
    pub(super) fn apply(&mut self, record: &ProtectionRecord) -> Result<(), (IpAddr, io::Error)> {
        self.post.put(ToRelay::Networks(networks(record)));
        self.memberships.apply(record)
    }
}

impl Drop for MulticastRelay {
    fn drop(&mut self) {
        self.post.put(ToRelay::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that passes multicast on has failed");
        }
    }
}

/// The multicast of a record's groups.
pub(super) fn networks(record: &ProtectionRecord) -> Vec<Prefix> {
    let all = record.groups.iter().flat_map(|group| &group.networks);
    all.filter(|network| network.address().is_multicast())
        .copied()
        .collect()
}

/// The thread.
struct Relay {
    ways: Vec<Way>,
    orders: Mailbox<ToRelay>,
    networks: Vec<Prefix>,
}

/// From one side to the other, one family.
struct Way {
    /// Hears the multicast that comes in by one interface.
    ear: Socket,
    /// Sends by the other.
    mouth: Socket,
    to: u32,
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Relay {
    fn run(mut self) {
        let mut buffer = vec![0; PACKET_MAX];
        loop {
            let ears = self.ways.iter().map(|way| way.ear.as_fd());
            let mut doors: Vec<_> = ears
                .chain([self.orders.as_fd()])
                .map(|door| PollFd::from_borrowed_fd(door, PollFlags::IN))
                .collect();
            poll(&mut doors, None).ok();
            self.orders.hush();
            for order in self.orders.take() {
                match order {
                    ToRelay::Networks(networks) => self.networks = networks,
                    ToRelay::End => return,
                }
            }
            for way in &self.ways {
                for _ in 0..READS_MAX {
                    let Ok(length) = rustix::io::read(&way.ear, &mut buffer[..]) else {
                        break;
                    };
                    way.pass_on(&mut buffer[..length], &self.networks);
                }
            }
        }
    }
}

impl Way {
    fn pass_on(&self, packet: &mut [u8], networks: &[Prefix]) {
        let Some((length, group)) = one_hop_older(packet, networks) else {
            return;
        };
        let to = match group {
            IpAddr::V4(_) => SocketAddr::new(group, 0),
            IpAddr::V6(group) => std::net::SocketAddrV6::new(group, 0, 0, self.to).into(),
        };
        if let Err(error) = self.mouth.send_to(&packet[..length], &to.into()) {
            tracing::debug!(%error, %group, "a multicast packet was not passed on");
        }
    }
}

/// The packet's length and group, where it may go on to another segment.
fn one_hop_older(packet: &mut [u8], networks: &[Prefix]) -> Option<(usize, IpAddr)> {
    let Inner {
        destination,
        length,
        ..
    } = Inner::read(packet)?;
    let is_ours = networks.iter().any(|it| it.contains(destination));
    let stays = match destination {
        // RFC 5771: never forwarded. RFC 4291 section 2.7: of this host or link.
        IpAddr::V4(group) => group.octets()[..3] == [224, 0, 0],
        IpAddr::V6(group) => group.octets()[1] & 0xf <= 2,
    };
    if !is_ours || stays {
        return None;
    }
    let packet = &mut packet[..length];
    // Of a sender on the same machine the kernel has not summed it up yet.
    if let Some(layout) = Layout::read(packet) {
        let at = layout.transport_at + layout.transport.checksum_at();
        let begun = checksum::fold(layout.pseudo_header(packet, length - layout.transport_at));
        if packet[at..at + 2] == begun {
            layout.write_checksum(packet);
        }
    }
    let hops = &mut packet[if destination.is_ipv4() { 8 } else { 7 }];
    if *hops <= 1 {
        return None;
    }
    // The kernel sums IPv4's header up.
    *hops -= 1;
    Some((length, destination))
}

impl Family {
    fn ear(self, interface: u32) -> io::Result<Socket> {
        let (ethertype, first, mask, is) = match self {
            Self::V4 => (0x0800_u16, 16, 0xf0, 0xe0),
            Self::V6 => (0x86dd_u16, 24, 0xff, 0xff),
        };
        let protocol = Protocol::from(i32::from(ethertype.to_be()));
        let ear = Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol))?;
        ear.set_nonblocking(true)?;
        // It hears every interface; multicast of this one is kept.
        ear.attach_filter(&[
            SockFilter::new(LOAD_WORD, 0, 0, INTERFACE_INDEX),
            SockFilter::new(IF_EQUAL, 0, 4, interface),
            SockFilter::new(LOAD_OCTET, 0, 0, first),
            SockFilter::new(AND, 0, 0, mask),
            SockFilter::new(IF_EQUAL, 0, 1, is),
            SockFilter::new(ANSWER, 0, 0, u32::MAX),
            SockFilter::new(ANSWER, 0, 0, 0),
        ])?;
        // SECURITY: what came before the filter stood may be of any interface.
        let mut one = [0; 1];
        while rustix::io::read(&ear, &mut one).is_ok() {}
        Ok(ear)
    }

    /// It takes whole packets, with their own source addresses.
    fn mouth(self, interface: &str) -> io::Result<Socket> {
        let raw = Some(Protocol::from(IPPROTO_RAW));
        let mouth = match self {
            Self::V4 => {
                let mouth = Socket::new(Domain::IPV4, Type::RAW, raw)?;
                mouth.set_multicast_loop_v4(false)?;
                mouth
            }
            Self::V6 => {
                let mouth = Socket::new(Domain::IPV6, Type::RAW, raw)?;
                mouth.set_multicast_loop_v6(false)?;
                // The tunnel has no address for the kernel to choose; what stands in the packets counts.
                mouth.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into())?;
                mouth
            }
        };
        mouth.bind_device(Some(interface.as_bytes()))?;
        mouth.set_nonblocking(true)?;
        Ok(mouth)
    }
}

const PACKET_MAX: usize = 65_535;
/// Packets of one way before the others have their turn.
const READS_MAX: usize = 64;
const IPPROTO_RAW: i32 = 255;
// Instructions of a packet filter.
const LOAD_WORD: u16 = 0x20;
const LOAD_OCTET: u16 = 0x30;
const AND: u16 = 0x54;
const IF_EQUAL: u16 = 0x15;
const ANSWER: u16 = 0x06;
/// Where the kernel shows a filter by which interface the packet came.
const INTERFACE_INDEX: u32 = 0xffff_f000 + 8;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn networks() -> Vec<Prefix> {
        ["239.7.0.0/16", "ff15::7:7/128", "224.0.0.0/24", "ff02::/16"]
            .map(|it| it.parse().unwrap())
            .to_vec()
    }

    fn v4(group: [u8; 4], hops: u8) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0, 0, hops, 17, 0, 0, 10, 10, 1, 2];
        packet.extend(group);
        packet.extend([0x10, 0, 0x20, 0, 0, 0, 0, 0]);
        packet.extend(b"news");
        finished(packet)
    }

    fn v6(group: &str, hops: u8) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, hops];
        packet.extend([0xfd; 16]);
        packet.extend(group.parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([0x10, 0, 0x20, 0, 0, 0, 0, 0]);
        packet.extend(b"news");
        finished(packet)
    }

    fn finished(mut packet: Vec<u8>) -> Vec<u8> {
        let layout = Layout::read(&packet).unwrap();
        layout.write_lengths(&mut packet);
        layout.write_checksum(&mut packet);
        packet
    }

    #[test]
    fn only_multicast_of_the_groups_goes_on_and_grows_older() {
        for (packet, hops_at) in [(v4([239, 7, 7, 7], 8), 8), (v6("ff15::7:7", 8), 7)] {
            // A device may hand over padding behind a packet.
            let mut heard = [packet.clone(), vec![0; 6]].concat();
            let (length, _) = one_hop_older(&mut heard, &networks()).unwrap();
            assert_eq!((length, heard[hops_at]), (packet.len(), 7));
            assert_eq!(heard[hops_at + 4..length], packet[hops_at + 4..]);
        }
        let stay = [
            v4([239, 8, 7, 7], 8),
            v4([239, 7, 7, 7], 1),
            v4([239, 7, 7, 7], 0),
            v4([224, 0, 0, 251], 8),
            v4([10, 10, 2, 2], 8),
            v6("ff15::7:8", 8),
            v6("ff15::7:7", 1),
            v6("ff02::fb", 8),
        ];
        for mut packet in stay {
            assert_eq!(one_hop_older(&mut packet, &networks()), None);
        }
    }

    #[test]
    fn a_checksum_that_the_kernel_only_began_is_finished() {
        for whole in [v4([239, 7, 7, 7], 8), v6("ff15::7:7", 8)] {
            let layout = Layout::read(&whole).unwrap();
            let mut packet = whole.clone();
            let begun = layout.pseudo_header(&packet, packet.len() - layout.transport_at);
            let at = layout.transport_at + 6;
            packet[at..at + 2].copy_from_slice(&checksum::fold(begun));
            let (length, _) = one_hop_older(&mut packet, &networks()).unwrap();
            assert!(layout.has_right_checksum(&packet[..length]));
            // A wrong one stays wrong.
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            one_hop_older(&mut damaged, &networks()).unwrap();
            assert!(!layout.has_right_checksum(&damaged));
        }
    }
}
