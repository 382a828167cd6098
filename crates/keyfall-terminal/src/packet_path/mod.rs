//! The packet path: IP packets from a TUN interface to peers as ESP in UDP, and back.
//!
//! One thread or several receive, and as many send; they hold session keys and no more. The driver tells
//! them from the machine what has changed (`ToEgress`, `ToIngress`), and they ask it what they do not know
//! (`Ask`). Packets wait meanwhile, within bounds.
//!
//! ```text
//! TUN ─► egress:  cut ─► flow ─► sender ─► batch ─► UDP
//! TUN ◄─ ingress: join ◄─ addresses ◄─ mark ◄─ receiver ◄─ UDP
//! ```
//!
//! | File | What is in it |
//! | --- | --- |
//! | `tun`, `head`, `cut`, `join` | super-packets of the kernel, cut and joined |
//! | `wire` | many datagrams with one call |
//! | `host`, `gateway`, `ip`, `rules` | addresses, routes and rules of the system |
//! | `unprotected` | what does not come in |
//! | `membership`, `multicast` | which multicast is heard, and passed on by a gateway |
//! | `path_mtu`, `too_big` | how much a path takes, and what inner senders hear of it |
//! | `inner`, `checksum` | headers of inner packets |
//! | `egress`, `flows`, `here` | a thread that sends, and says where this terminal is |
//! | `ingress`, `session`, `unknown`, `ahead` | a thread that receives, its sessions, those that begin, and how far marks run ahead |
//! | `lanes`, `receiving`, `by_sender` | several of them, what those that receive have in common, and whose sessions are whose |
//! | `stock` | senders that know nothing of Keyfall |
//! | `echo`, `echoes`, `echo_wire` | key search by ICMP echo |
//! | `waiting`, `post`, `counts` | packets that wait, orders to threads, what was dropped |
//! | `keyed_hash` | what is looked up with each packet |

mod ahead;
mod by_sender;
mod checksum;
mod counts;
mod cut;
pub(crate) mod echo;
pub(crate) mod echo_wire;
pub(crate) mod echoes;
mod egress;
mod engine;
mod flows;
mod gateway;
mod head;
mod here;
pub(crate) mod host;
mod ingress;
mod inner;
mod ip;
mod join;
mod keyed_hash;
mod lanes;
mod membership;
mod multicast;
mod path_mtu;
mod post;
mod receiving;
mod restarts;
mod rules;
mod sending;
mod session;
mod sessions;
mod stock;
mod too_big;
mod tun;
mod unknown;
mod unprotected;
mod waiting;
mod wire;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::time::Duration;

use keyfall_api::packets::{FlowStatus, SessionStatus};
use keyfall_plane::Spi;
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::PinnedSpi;

pub use cut::Cut;
pub(crate) use echo_wire::{By, EchoWire, Side};
pub(crate) use echoes::Echoes;
pub(crate) use engine::{Begun, PacketPath};
use flows::{Ends, FlowWay};
pub(crate) use host::Host;
pub use inner::Inner;
pub use join::Join;
pub(crate) use lanes::{Lane, how_many as how_many_lanes};
pub use tun::Tun;
pub(crate) use wire::mark;
pub use wire::{Arrivals, Batch, Came, Origin, Wire, wait};

#[cfg(test)]
mod tests;

/// How packets pass.
#[derive(Clone, Debug)]
pub struct PacketOptions {
    /// The name of the TUN interface; the system chooses a number for "%d".
    pub tun: String,
    /// Where peers are heard; `None`: port 4500 on all addresses.
    pub listen: Option<SocketAddr>,
    /// The interface of the hosts that are protected; `None`: this host alone.
    pub gateway: Option<String>,
    /// The interface to the other terminals.
    pub outside: Option<String>,
    /// Octets of the longest inner packet; `None`: as the outside has it.
    pub mtu: Option<u16>,
    /// How long after the last packet a peer hears from this terminal again, whether or not it moved.
    pub keepalive: Option<Duration>,
    pub search: SearchBy,
    /// How many threads send, and how many receive; `None`: as the machine has processors.
    pub packet_threads: Option<usize>,
    /// Where terminals are, as somebody wrote it down.
    pub peers: Vec<(TerminalNumber, SocketAddr)>,
}

/// What probes of key search travel in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SearchBy {
    #[default]
    Udp,
    /// Echo requests; those of others are answered, too.
    IcmpEcho,
}

impl Default for PacketOptions {
    fn default() -> Self {
        Self {
            tun: "keyfall%d".to_owned(),
            listen: None,
            gateway: None,
            outside: None,
            mtu: None,
            keepalive: None,
            search: SearchBy::default(),
            packet_threads: None,
            peers: Vec::new(),
        }
    }
}

impl PacketOptions {
    /// `named`: what the packet groups ask for. `v6`: inner packets are of IPv6, too, which needs 1,280
    /// octets; a datagram that is too long for the outside then goes in fragments.
    pub(crate) fn mtu(&self, v6: bool, named: Option<u16>) -> u16 {
        let outside = self.outside.as_deref().and_then(host::mtu_of);
        let outer_v6 = self.listen.is_none_or(|it| it.is_ipv6());
        let fits = host::inner_mtu(outside.unwrap_or(ETHERNET), outer_v6);
        let chosen = self.mtu.unwrap_or(fits);
        chosen
            .min(named.unwrap_or(u16::MAX))
            .max(if v6 { 1_280 } else { 576 })
    }
}

/// What the threads ask or tell the driver.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Whereto, and under which group?
    Way {
        lane: Lane,
        ends: Ends,
    },
    /// A lane has packets for a group for the first time: a session for it.
    Begin {
        lane: Lane,
        group: GroupNumber,
    },
    /// The session that the group sends in is half over: one more for the same key.
    Spare {
        lane: Lane,
        group: GroupNumber,
    },
    /// A packet of a session that is not known.
    Session {
        name: SessionName,
        origin: Origin,
        /// Packets a second that its sender sent before.
        rate: u32,
        sealed: Vec<u8>,
    },
    /// A higher mark.
    Mark {
        name: SessionName,
        mark: u32,
    },
    /// A higher mark of a stock sender.
    StockMark {
        spi: PinnedSpi,
        mark: u32,
    },
    /// Half of the session is over: the one after it will come.
    NextSession {
        name: SessionName,
        rate: u32,
    },
    Heard(Heard),
    /// A peer refuses a session of this terminal's in that group.
    Refused {
        group: GroupNumber,
        session: EspSession,
    },
    /// Key search, or what a peer hands on.
    Message {
        origin: Origin,
        datagram: Vec<u8>,
    },
    /// An echo that may belong to a key search.
    Echo {
        side: Side,
        packet: Vec<u8>,
    },
    /// Hosts have not answered what was planted.
    EchoesDue,
    /// A thread has ended.
    Ended {
        sentence: String,
    },
}

/// A session as its packets name it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SessionName {
    pub(crate) spi: Spi,
    pub(crate) session: EspSession,
}

/// The first packet of a session, of two inner addresses or of an outer address has opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    pub(crate) group: GroupNumber,
    pub(crate) key: Option<(KeyEpoch, Generation)>,
    pub(crate) peer: TerminalNumber,
    pub(crate) ends: Ends,
    pub(crate) from: SocketAddr,
}

/// A flow, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowReport {
    pub(crate) ends: Ends,
    way: FlowWay,
    under: Option<(KeyEpoch, Generation)>,
    packets: u64,
    octets: u64,
}

impl FlowReport {
    /// What several threads report: of two addresses each may have some connections.
    fn of_all(reports: impl Iterator<Item = Vec<Self>>) -> Vec<Self> {
        let mut flows: Vec<Self> = Vec::new();
        let mut places = HashMap::new();
        for flow in reports.flatten() {
            match places.entry(flow.ends) {
                Entry::Vacant(entry) => {
                    entry.insert(flows.len());
                    flows.push(flow);
                }
                Entry::Occupied(entry) => {
                    let first = &mut flows[*entry.get()];
                    first.packets += flow.packets;
                    first.octets += flow.octets;
                }
            }
        }
        flows
    }

    pub(crate) const fn packets(&self) -> u64 {
        self.packets
    }

    /// `expires_in`: where a key search found it.
    pub(crate) fn status(&self, expires_in: Option<u64>) -> FlowStatus {
        let (way, group, peer, endpoint) = match self.way {
            FlowWay::Searching => ("searching", None, None, None),
            FlowWay::Drop(reason) => (reason.name(), None, None, None),
            FlowWay::Protect { group, peer, to } => {
                ("protected", Some(group), peer, Some(to.to_string()))
            }
        };
        FlowStatus {
            source: self.ends.0.to_string(),
            destination: self.ends.1.to_string(),
            way: way.to_owned(),
            group: group.map(GroupNumber::get),
            peer: peer.map(TerminalNumber::get),
            endpoint,
            epoch: self.under.map(|(epoch, _)| epoch.get()),
            generation: self.under.map(|(_, generation)| generation.get()),
            expires_in,
            packets: self.packets,
            octets: self.octets,
        }
    }
}

/// A session that is received, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionReport {
    name: SessionName,
    group: GroupNumber,
    under: Option<(KeyEpoch, Generation)>,
    ends: Option<Ends>,
    packets: u64,
    octets: u64,
}

impl SessionReport {
    pub(crate) fn status(self) -> Option<SessionStatus> {
        let (epoch, generation) = self.under?;
        Some(SessionStatus {
            peer: self.name.spi.sender().get(),
            group: self.group.get(),
            session: self.name.session.to_string(),
            epoch: epoch.get(),
            generation: generation.get(),
            source: self.ends.map(|ends| ends.0.to_string()),
            destination: self.ends.map(|ends| ends.1.to_string()),
            packets: self.packets,
            octets: self.octets,
        })
    }
}

/// Octets of an Ethernet packet.
const ETHERNET: u16 = 1_500;
