//! Whether peers know where this terminal stands. A terminal that moves and says nothing is not reached
//! until it speaks; so it says so with dummy packets (RFC 4303 section 2.6): no more than that they are
//! authentic, and where they come from.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use keyfall_protocol::ids::GroupNumber;

use crate::packet_path::wire::mark;

/// A peer at its place, and the group in which it is spoken to.
pub(super) type Peer = (GroupNumber, SocketAddr);

/// From which address each peer was spoken to.
pub(super) struct Here {
    /// A dummy packet so often, also where nothing changes.
    every: Option<Duration>,
    peers: HashMap<Peer, Said>,
}

struct Said {
    from: IpAddr,
    at: Instant,
    /// Times that it is still said.
    left: u8,
}

impl Here {
    pub(super) fn new(every: Option<Duration>) -> Self {
        Self {
            every,
            peers: HashMap::new(),
        }
    }

    /// Once a second: who is to hear where this terminal is. `spoken_to`: lately. `source`: the address
    /// from which the system sends there.
    pub(super) fn due(
        &mut self,
        spoken_to: impl Iterator<Item = Peer>,
        now: Instant,
        source: impl Fn(SocketAddr) -> Option<IpAddr>,
    ) -> Vec<Peer> {
        let spoken_to: HashSet<Peer> = spoken_to.collect();
        self.peers.retain(|peer, _| spoken_to.contains(peer));
        for peer in spoken_to {
            let held = self.peers.remove(&peer);
            if held.is_none() && self.peers.len() >= PEERS_MAX {
                continue;
            }
            // Without a way out it waits for one.
            let Some(from) = source(peer.1).or_else(|| held.as_ref().map(|said| said.from)) else {
                continue;
            };
            let mut said = held.unwrap_or(Said {
                from,
                at: now,
                left: 0,
            });
            if said.from != from {
                (said.from, said.left) = (from, TIMES);
            }
            self.peers.insert(peer, said);
        }
        let late = |said: &Said| {
            let since = now.saturating_duration_since(said.at);
            self.every.is_some_and(|every| since >= every)
        };
        let due = self.peers.iter().filter(|(_, it)| it.left > 0 || late(it));
        due.map(|(&peer, _)| peer).collect()
    }

    /// One was told.
    pub(super) fn said(&mut self, peer: Peer, now: Instant) {
        if let Some(said) = self.peers.get_mut(&peer) {
            said.left = said.left.saturating_sub(1);
            said.at = now;
        }
    }
}

/// The address from which the system sends there, past the tunnel.
pub(super) fn source_towards(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Nothing is sent by it.
    let socket = UdpSocket::bind(any).ok()?;
    mark(&socket);
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Of more than these the rest is told by its own packets.
const PEERS_MAX: usize = 256;
/// Datagrams are lost, above all where an address is new.
const TIMES: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Peer {
        let group = GroupNumber::new(1).expect("not 0");
        (group, ([192, 0, 2, last], 4500).into())
    }

    /// who moves tells those that it spoke to lately, three times, and nobody else; who stays says
    /// nothing, but at the pace that was asked for.
    #[test]
    fn who_moves_says_so_and_who_stays_says_nothing() {
        let start = Instant::now();
        let told = |every: Option<u64>| {
            let mut here = Here::new(every.map(Duration::from_secs));
            let mut told = Vec::new();
            for second in 0..60 {
                let source = match second {
                    // For a moment there is no way out.
                    9 => None,
                    0..=8 => Some([10, 0, 0, 1]),
                    _ => Some([10, 9, 9, 9]),
                };
                let spoken_to = [peer(1), peer(1)].into_iter();
                let spoken_to = spoken_to.chain((second > 30).then(|| peer(2)));
                let now = start + Duration::from_secs(second);
                let due = here.due(spoken_to, now, |_| source.map(IpAddr::from));
                for peer in due {
                    // Its group's packets wait, so that nothing can be said.
                    if second != 11 {
                        here.said(peer, now);
                        told.push((second, peer));
                    }
                }
            }
            told
        };
        let moved = [(10, peer(1)), (12, peer(1)), (13, peer(1))];
        assert_eq!(told(None), moved);
        let paced = told(Some(25));
        assert_eq!(paced[..3], moved);
        let mut rest = paced[3..].to_vec();
        rest.sort_unstable();
        assert_eq!(rest, [(38, peer(1)), (56, peer(2))]);
    }

    /// Who is known stays known, however many others are spoken to, and hears of a move.
    #[test]
    fn so_many_peers_are_told_and_always_the_same() {
        let start = Instant::now();
        let at = |number: usize| {
            let [.., high, low] = number.to_be_bytes();
            (peer(0).0, SocketAddr::from(([10, 1, high, low], 4500)))
        };
        let mut here = Here::new(None);
        let mut due = |from: usize, to: usize, own: u8| {
            let mut due = here.due((from..to).map(at), start, |_| Some([10, 0, 0, own].into()));
            due.sort_unstable();
            due
        };
        assert_eq!(due(0, PEERS_MAX, 1), []);
        assert_eq!(due(0, 3 * PEERS_MAX, 1), []);
        let all: Vec<_> = (0..PEERS_MAX).map(at).collect();
        assert_eq!(due(0, 3 * PEERS_MAX, 2), all);
    }

    #[test]
    fn the_address_towards_a_place_is_the_systems() {
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(source_towards(to), Some([127, 0, 0, 1].into()));
    }
}
