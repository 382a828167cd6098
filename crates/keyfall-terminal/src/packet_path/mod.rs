//! The packet path: IP packets from a TUN interface to peers as ESP in UDP, and back.
//!
//! Two threads carry packets; they hold session keys and no more. The driver owns the machine: it tells
//! the threads what has changed ([`ToEgress`], [`ToIngress`]), and they ask it what they do not know
//! ([`Ask`]). Packets wait meanwhile, within bounds.
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
//! | `inner`, `checksum` | headers of inner packets |
//! | `egress`, `flows` | the thread that sends |
//! | `ingress`, `ahead` | the thread that receives, and how far marks run ahead |
//! | `waiting`, `post`, `counts` | packets that wait, orders to threads, what was dropped |

mod ahead;
mod checksum;
mod counts;
mod cut;
mod egress;
mod flows;
mod head;
mod ingress;
mod inner;
mod join;
mod post;
mod tun;
mod waiting;
mod wire;

use std::net::SocketAddr;

use keyfall_plane::Spi;
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};

pub use cut::Cut;
use flows::{Ends, FlowWay};
pub use inner::Inner;
pub use join::Join;
pub use tun::Tun;
pub use wire::{Arrivals, Batch, Origin, Wire, wait};

#[cfg(test)]
mod tests;

/// What the threads ask or tell the driver.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Whereto, and under which group?
    Way {
        ends: Ends,
    },
    /// The session that the group sends in is half over: one more for the same key.
    Spare {
        group: GroupNumber,
    },
    /// A packet of a session that is not known.
    Session {
        name: SessionName,
        origin: Origin,
        sealed: Vec<u8>,
    },
    /// A higher mark.
    Mark {
        name: SessionName,
        mark: u32,
    },
    /// Half of the session is over: the one after it will come.
    NextSession {
        name: SessionName,
    },
    Heard(Heard),
    /// Key search, or what a peer hands on.
    Message {
        origin: Origin,
        datagram: Vec<u8>,
    },
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
    group: GroupNumber,
    key: Option<(KeyEpoch, Generation)>,
    peer: TerminalNumber,
    ends: Ends,
    from: SocketAddr,
}

/// A flow, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowReport {
    ends: Ends,
    way: FlowWay,
    under: Option<(KeyEpoch, Generation)>,
    packets: u64,
    octets: u64,
}

/// A session that is received, for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionReport {
    peer: TerminalNumber,
    group: GroupNumber,
    under: Option<(KeyEpoch, Generation)>,
    ends: Option<Ends>,
    packets: u64,
    octets: u64,
}
