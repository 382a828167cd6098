//! Whether peers know where this terminal stands. A terminal that moves and says nothing is not reached
//! until it speaks; so it says so with dummy packets (RFC 4303 section 2.6): no more than that they are
//! authentic, and where they come from.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use keyfall_protocol::ids::{GroupNumber, TerminalNumber};

use crate::packet_path::flows::Ends;
use crate::packet_path::wire::mark;

/// A peer at its place, and the group in which it is spoken to.
pub(super) type Peer = (GroupNumber, SocketAddr);

/// From which address each peer was spoken to.
pub(super) struct Here {
    /// A dummy packet so long after the last packet, also where nothing changes, so that a NAT lets peers
    /// in.
    every: Option<Duration>,
    peers: HashMap<Peer, Said>,
}

/// What was sent to a peer last.
#[derive(Clone, Copy)]
pub(super) struct Spoken {
    pub(super) terminal: TerminalNumber,
    pub(super) ends: Ends,
    pub(super) used: Instant,
}

/// Who is to hear where this terminal is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Due {
    pub(super) peer: Peer,
    pub(super) terminal: TerminalNumber,
    /// A keepalive, which goes in place of a packet between these, and only where that would go.
    pub(super) instead_of: Option<Ends>,
}

struct Said {
    from: IpAddr,
    at: Instant,
    /// Times that it is still said.
    left: u8,
    last: Spoken,
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
        spoken_to: impl Iterator<Item = (Peer, Spoken)>,
        now: Instant,
        source: impl Fn(SocketAddr) -> Option<IpAddr>,
    ) -> Vec<Due> {
        let mut lately: HashMap<Peer, Spoken> = HashMap::new();
        for (peer, spoken) in spoken_to {
            let last = lately.entry(peer).or_insert(spoken);
            if last.used < spoken.used {
                *last = spoken;
            }
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        let elsewhere: HashSet<_> = lately.values().map(|it| it.terminal).collect();
        let waits = |last: &Spoken| {
            let is_elsewhere = elsewhere.contains(&last.terminal);
            self.every.is_some() && !is_elsewhere && since(last.used) < KEPT_FOR
        };
        self.peers
            .retain(|peer, said| lately.contains_key(peer) || waits(&said.last));
        let kept = self.peers.keys().filter(|it| !lately.contains_key(it));
        let mut kept: Vec<_> = kept.copied().collect();
        for (peer, last) in lately {
            if let Some(said) = self.peers.get_mut(&peer) {
                (said.at, said.last) = (said.at.max(last.used), last);
                continue;
            }
            if self.peers.len() >= PEERS_MAX {
                let Some(gone) = kept.pop() else {
                    continue;
                };
                self.peers.remove(&gone);
            }
            if let Some(from) = source(peer.1) {
                let said = Said {
                    from,
                    at: now,
                    left: 0,
                    last,
                };
                self.peers.insert(peer, said);
            }
        }
        let mut due = Vec::new();
        for (&peer, said) in &mut self.peers {
            // Without a way out it waits for one.
            if let Some(from) = source(peer.1).filter(|&from| from != said.from) {
                (said.from, said.left) = (from, TIMES);
            }
            let is_late = self.every.is_some_and(|every| since(said.at) >= every);
            if is_late || said.left > 0 {
                due.push(Due {
                    peer,
                    terminal: said.last.terminal,
                    instead_of: is_late.then_some(said.last.ends),
                });
            }
        }
        due
    }

    pub(super) fn clear(&mut self) {
        self.peers.clear();
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
/// A peer to which there has been no way for so long is called no more.
const KEPT_FOR: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> Peer {
        let group = GroupNumber::new(1).expect("not 0");
        (group, ([192, 0, 2, last], 4500).into())
    }

    fn spoken(number: u8, used: Instant) -> Spoken {
        Spoken {
            terminal: TerminalNumber::new(number.into()).expect("not 0"),
            ends: ([10, 0, 0, 1].into(), [10, 0, 0, number].into()),
            used,
        }
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
                let now = start + Duration::from_secs(second);
                let both = [(peer(1), spoken(1, start)), (peer(1), spoken(1, start))];
                let later = (second > 30).then(|| (peer(2), spoken(2, start)));
                let spoken_to = both.into_iter().chain(later);
                let due = here.due(spoken_to, now, |_| source.map(IpAddr::from));
                for Due { peer, .. } in due {
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
            let place = SocketAddr::from(([10, 1, high, low], 4500));
            ((peer(0).0, place), spoken(1, start))
        };
        let mut here = Here::new(None);
        let mut due = |from: usize, to: usize, own: u8| {
            let mut due = here.due((from..to).map(at), start, |_| Some([10, 0, 0, own].into()));
            due.sort_unstable_by_key(|due| due.peer);
            due
        };
        assert_eq!(due(0, PEERS_MAX, 1), []);
        assert_eq!(due(0, 3 * PEERS_MAX, 1), []);
        let due_at = |number| {
            let (peer, Spoken { terminal, .. }) = at(number);
            let instead_of = None;
            Due {
                peer,
                terminal,
                instead_of,
            }
        };
        let all: Vec<_> = (0..PEERS_MAX).map(due_at).collect();
        assert_eq!(due(0, 3 * PEERS_MAX, 2), all);
    }

    /// A keepalive is no more than what keeps a NAT open: none beside traffic, and it goes on where there
    /// is none any more, at the place where the peer was spoken to last.
    #[test]
    fn a_keepalive_goes_on_after_the_last_packet_and_never_beside_others() {
        let start = Instant::now();
        let second = |it: u64| start + Duration::from_secs(it);
        let told = |every: Option<u64>| {
            let mut here = Here::new(every.map(Duration::from_secs));
            let mut told = Vec::new();
            for it in 0..4_000 {
                // A packet each second, then none; the flow ends after five minutes. Another one goes
                // where the peer is meanwhile, for a moment.
                let flow = match it {
                    0..400 => Some((peer(1), spoken(1, second(it.min(100))))),
                    1_000 => Some((peer(2), spoken(1, second(it)))),
                    _ => None,
                };
                let due = here.due(flow.into_iter(), second(it), |_| Some([10, 0, 0, 1].into()));
                for due in due {
                    // Its way has to be asked first.
                    if it != 700 {
                        here.said(due.peer, second(it));
                        told.push((it, due));
                    }
                }
            }
            told
        };
        assert_eq!(told(None), []);
        let told = told(Some(200));
        let Spoken { ends, terminal, .. } = spoken(1, start);
        let places: Vec<_> = told.iter().map(|&(it, due)| (it, due.peer)).collect();
        let first = [300, 500, 701, 901].map(|it| (it, peer(1)));
        assert_eq!(places[..4], first);
        let after = (1_200..4_000).step_by(200).map(|it| (it, peer(2)));
        assert_eq!(places[4..], after.collect::<Vec<_>>());
        let of_flow = |due: &Due| (due.instead_of, due.terminal) == (Some(ends), terminal);
        assert!(told.iter().all(|(_, due)| of_flow(due)));
    }

    /// Who waits to be called is forgotten where somebody else is spoken to, or when there has been no way
    /// to him for an hour.
    #[test]
    fn who_is_kept_is_bounded() {
        let start = Instant::now();
        let mut here = Here::new(Some(Duration::from_secs(25)));
        let mut due = |numbers: std::ops::Range<usize>, it: u64| {
            let now = start + Duration::from_secs(it);
            let flow = |number: usize| {
                let [.., high, low] = number.to_be_bytes();
                let place = SocketAddr::from(([10, 1, high, low], 4500));
                let last = Spoken {
                    terminal: TerminalNumber::new(1 + u32::from(high) * 256 + u32::from(low))
                        .expect("not 0"),
                    ..spoken(1, now)
                };
                ((peer(0).0, place), last)
            };
            let due = here.due(numbers.map(flow), now, |_| Some([10, 0, 0, 1].into()));
            for &Due { peer, .. } in &due {
                here.said(peer, now);
            }
            due.len()
        };
        assert_eq!(due(0..PEERS_MAX, 0), 0);
        assert_eq!(due(0..0, 25), PEERS_MAX);
        assert_eq!(due(300..310, 26), 0);
        assert_eq!(due(0..0, 50), PEERS_MAX - 10);
        assert_eq!(due(0..0, 51), 10);
        assert_eq!(due(0..0, 3_700), 0);
    }

    #[test]
    fn the_address_towards_a_place_is_the_systems() {
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        assert_eq!(source_towards(to), Some([127, 0, 0, 1].into()));
    }
}
