//! What a terminal tells of ways: for status, and for tests that count.

use core::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::command::ProtectionRecord;
use crate::ids::{GroupNumber, TerminalNumber};
use crate::terminal::Terminal;

/// A path that a search found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PathView {
    /// CE1.
    pub source: IpAddr,
    /// CE2.
    pub destination: IpAddr,
    pub group: GroupNumber,
    /// EU2.
    pub peer: TerminalNumber,
    /// Until it expires, where nothing uses it.
    pub left: Duration,
}

/// A terminal whose record is held.
#[derive(Clone, Copy, Debug)]
pub struct PeerView<'t> {
    pub record: &'t ProtectionRecord,
    /// Where it is sent to; `None`: a search finds it.
    pub endpoint: Option<SocketAddr>,
}

/// How much is remembered of ways; each number has its bound (W-21).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PathCounts {
    /// Records of others.
    pub peers: usize,
    /// Paths that searches found.
    pub found: usize,
    /// Searches that are open.
    pub searches: usize,
    /// Searches that came to nothing.
    pub denied: usize,
    /// Nonces of probes that were answered.
    pub nonces: usize,
    /// Answers whose first packet has not come.
    pub answered: usize,
}

impl Terminal {
    #[must_use]
    pub fn path_counts(&self) -> PathCounts {
        let (nonces, answered) = self.paths.answerer.remembered();
        PathCounts {
            peers: self.paths.peers.iter().count(),
            found: self.paths.found.iter().count(),
            searches: self.paths.searches.open().count(),
            denied: self.paths.searches.denied_len(),
            nonces,
            answered,
        }
    }

    /// Every path that a search found, by source and destination.
    pub fn paths(&self) -> impl Iterator<Item = PathView> + '_ {
        let alive = self.paths.found.iter();
        let view = alive.map(|(&(source, destination), path)| PathView {
            source,
            destination,
            group: path.group,
            peer: path.peer,
            left: path.ends().since(self.now),
        });
        view.filter(|path| !path.left.is_zero())
    }

    /// Every terminal whose record is held, by number.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> + '_ {
        let held = self.paths.peers.iter();
        held.map(|peer| PeerView {
            record: peer.record(),
            endpoint: self.paths.peers.endpoint(peer.record().terminal, self.now),
        })
    }

    /// The flows for which a search is open.
    pub fn searches(&self) -> impl Iterator<Item = (IpAddr, IpAddr)> + '_ {
        self.paths.searches.open().copied()
    }
}
