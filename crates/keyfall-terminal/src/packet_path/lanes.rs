//! Several threads send, and several receive, where the machine has the processors for it.
//!
//! Each that sends is a lane: it reads a queue of its own of the TUN interface and sends in sessions of
//! its own, so that no two threads count up one sequence number, and the packets of a flow stay in their
//! order. A lane after the first begins a session in a group when it has a packet for it: peers that are
//! spoken to little hear of one session, as without lanes. Each that receives has a socket of its own, to
//! which all comes that some peers send.

use std::hash::BuildHasher;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::available_parallelism;

use keyfall_protocol::DropReason;

use crate::packet_path::counts::Counts;
use crate::packet_path::egress::ToEgress;
use crate::packet_path::head::HEAD_LEN;
use crate::packet_path::ingress::Inside;
use crate::packet_path::inner::{Inner, Layout};
use crate::packet_path::keyed_hash::KeyedHash;
use crate::packet_path::post::Post;
use crate::packet_path::tun::Tun;

/// One of the threads that send, or of those that receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lane(usize);

impl Lane {
    /// It has a session in every group, and answers what is refused; or it carries out orders for all.
    pub(super) const FIRST: Self = Self(0);

    pub(super) fn number(self) -> usize {
        self.0
    }
}

/// Where the lanes get their orders.
pub(super) struct Lanes(Vec<Post<ToEgress>>);

impl Lanes {
    pub(super) fn new(posts: Vec<Post<ToEgress>>) -> Self {
        Self(posts)
    }

    pub(super) fn each(&self) -> impl Iterator<Item = Lane> + use<> {
        every(self.0.len())
    }

    pub(super) fn put(&self, lane: Lane, order: ToEgress) {
        if let Some(post) = self.0.get(lane.0) {
            post.put(order);
        }
    }

    pub(super) fn put_all(&self, order: impl Fn() -> ToEgress) {
        for post in &self.0 {
            post.put(order());
        }
    }
}

pub(super) fn every(count: usize) -> impl Iterator<Item = Lane> {
    (0..count).map(Lane)
}

/// How many threads send, and how many receive: as many as were asked for, or half as many as there are
/// processors.
pub(crate) fn how_many(asked: Option<usize>) -> usize {
    let there = available_parallelism().map_or(1, NonZeroUsize::get);
    asked.unwrap_or(there / 2).clamp(1, LANES_MAX)
}

/// The queues of the interface, as threads that receive write to them.
///
/// The kernel reads the answers to a packet from the queue that the packet was written to. So flows are
/// spread here, each to one queue, whichever thread writes.
#[derive(Clone)]
pub(super) struct Queues {
    queues: Vec<Arc<Tun>>,
    places: KeyedHash,
}

impl Queues {
    pub(super) fn new(queues: Vec<Arc<Tun>>) -> Self {
        Self {
            queues,
            places: KeyedHash::default(),
        }
    }
}

impl Inside for Queues {
    fn write(&self, counts: &Counts, octets: &mut [u8]) {
        let queue = match &self.queues[..] {
            [one] => one,
            several => &several[place(&self.places, &octets[HEAD_LEN..]) % several.len()],
        };
        if queue.write(octets).is_err() {
            counts.add(DropReason::NotSent, 1);
        }
    }

    fn joins(&self) -> bool {
        self.queues.iter().all(|queue| queue.joins())
    }
}

/// The same for all packets of a flow.
fn place(places: &KeyedHash, packet: &[u8]) -> usize {
    let Some(inner) = Inner::read(packet) else {
        return 0;
    };
    let ports = Layout::read(packet).map(|layout| layout.transport_at);
    let ports = ports.and_then(|at| packet[at..].first_chunk::<4>());
    let hash = places.hash_one((inner.source, inner.destination, ports));
    // The high half depends on all of it.
    (hash >> 32) as usize
}

/// Receivers remember 64 sessions of a sender at a time.
pub(crate) const LANES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(port: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0];
        packet.extend([10, 1, 0, 5, 10, 2, 0, 9]);
        packet.extend(port.to_be_bytes());
        packet.extend([0, 53, 0, 8, 0, 0]);
        packet
    }

    #[test]
    fn flows_are_spread_over_the_queues_and_each_stays_in_one() {
        let places = KeyedHash::default();
        let place = |packet: &[u8]| place(&places, packet);
        for queues in 2..=LANES_MAX {
            let mut packets = vec![0; queues];
            for port in 40_000..41_000 {
                assert_eq!(place(&udp(port)), place(&udp(port)));
                packets[place(&udp(port)) % queues] += 1;
            }
            let even = 1_000 / queues;
            let fair = |&it: &usize| it > even / 2 && it < even * 2;
            assert!(packets.iter().all(fair), "{packets:?}");
        }
        // What has no ports stays in one, too.
        let mut fragment = udp(40_000);
        fragment[6] = 0x20;
        let mut other = fragment.clone();
        other[20] ^= 1;
        assert_eq!(place(&fragment), place(&other));
    }

    #[test]
    fn there_is_always_a_thread_each_way_and_never_too_many() {
        assert_eq!([0, 1, 3, 100].map(|it| how_many(Some(it))), [1, 1, 3, 8]);
        assert!((1..=LANES_MAX).contains(&how_many(None)));
    }
}
