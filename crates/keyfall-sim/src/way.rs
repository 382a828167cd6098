//! A way back: datagrams from a station to the server and from the server to it, through a NAT that
//! may give it another address at any time.

use core::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use keyfall_protocol::ids::Tick;

use crate::link::{Link, LinkQuality};
use crate::seeded::Seeded;
use crate::station::StationId;

/// How bad the two directions are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WayQuality {
    /// To the server.
    pub up: LinkQuality,
    /// From the server.
    pub down: LinkQuality,
}

impl From<LinkQuality> for WayQuality {
    /// Both directions alike.
    fn from(quality: LinkQuality) -> Self {
        Self {
            up: quality,
            down: quality,
        }
    }
}

/// Which way a datagram goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    ToServer,
    FromServer,
}

/// A datagram as somebody on the path sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CapturedDatagram {
    pub at: Tick,
    pub direction: Direction,
    /// Whose path it is on.
    pub station: StationId,
    /// The station's address as the server sees it.
    pub address: SocketAddr,
    /// Marker included.
    pub octets: Rc<[u8]>,
}

/// Somebody on every path: for each datagram, with all that were sent before it, what goes on in its
/// place, and how much later.
pub type Interceptor =
    Box<dyn FnMut(&CapturedDatagram, &[CapturedDatagram]) -> Vec<(Duration, CapturedDatagram)>>;

/// One station's way back.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) up: Link,
    pub(crate) down: Link,
    /// As the server sees it.
    pub(crate) address: SocketAddr,
    /// Since when the machine is in a sequence of key sharing that has not ended.
    pub(crate) asking_since: Option<Tick>,
    is_cut: bool,
    rebinds: u16,
}

impl Way {
    pub(crate) fn new(id: StationId, quality: WayQuality, rng: &mut Seeded) -> Self {
        Self {
            up: Link::new(quality.up, rng.branch()),
            down: Link::new(quality.down, rng.branch()),
            address: address(id, 0),
            asking_since: None,
            is_cut: false,
            rebinds: 0,
        }
    }

    /// The NAT forgets, and gives the next address.
    pub(crate) fn rebind(&mut self, id: StationId) {
        self.rebinds += 1;
        self.address = address(id, self.rebinds);
    }

    pub(crate) fn cut(&mut self, cut: bool) {
        self.is_cut = cut;
        self.up.cut(cut);
        self.down.cut(cut);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }
}

/// IPv4 for one half of the stations, IPv6 for the other; another port after each rebinding.
fn address(id: StationId, rebinds: u16) -> SocketAddr {
    let [.., a, b, c] = (id.0 as u32).to_be_bytes();
    let port = 40_000 + rebinds;
    match id.0 % 2 {
        0 => SocketAddr::from(([10, a, b, c], port)),
        _ => {
            let host = u16::from_be_bytes([b, c]);
            SocketAddr::from(([0x2001, 0xdb8, u16::from(a), host, 0, 0, 0, 1], port))
        }
    }
}
