//! Where terminals were heard last: what is said to one of them goes there.

use core::net::SocketAddr;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::ids::{TerminalNumber, Tick};

/// Addresses of terminals that sent something which only they can have made. Bounded.
#[derive(Debug, Default)]
pub(super) struct Peers {
    heard: HashMap<TerminalNumber, (SocketAddr, Tick)>,
    /// Who was heard longest ago stands first.
    by_time: BTreeSet<(Tick, TerminalNumber)>,
}

impl Peers {
    /// A verified message of `terminal` came from there. Recordings must not come so far: whoever
    /// plays one would be answered in the terminal's place.
    pub(super) fn heard(&mut self, terminal: TerminalNumber, from: SocketAddr, now: Tick) {
        if let Some((_, before)) = self.heard.insert(terminal, (from, now)) {
            self.by_time.remove(&(before, terminal));
        }
        self.by_time.insert((now, terminal));
        while self.heard.len() > PEERS_MAX
            && let Some((_, oldest)) = self.by_time.pop_first()
        {
            self.heard.remove(&oldest);
        }
    }

    /// Where it is, if it was heard in the last day and has not been silent since.
    pub(super) fn reachable(&self, terminal: TerminalNumber, now: Tick) -> Option<SocketAddr> {
        let &(at, heard) = self.heard.get(&terminal)?;
        (now.since(heard) <= PEER_LIFE).then_some(at)
    }

    /// It was asked and did not answer: until it is heard again nobody waits for it.
    pub(super) fn forget(&mut self, terminal: TerminalNumber) {
        if let Some((_, heard)) = self.heard.remove(&terminal) {
            self.by_time.remove(&(heard, terminal));
        }
    }
}

/// Terminals whose address is kept, about 100 octets each.
const PEERS_MAX: usize = 1 << 18;
/// No longer an address counts, whatever came from it.
const PEER_LIFE: Duration = Duration::from_secs(86_400);

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u32) -> TerminalNumber {
        TerminalNumber::new(n).expect("not 0")
    }

    fn place(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_terminal_is_where_it_was_heard_last() {
        let mut peers = Peers::default();
        let at = Tick::from_secs;
        peers.heard(number(1), place(1), at(0));
        peers.heard(number(2), place(2), at(1));
        peers.heard(number(1), place(3), at(2));
        assert_eq!(peers.reachable(number(1), at(3)), Some(place(3)));
        assert_eq!(peers.reachable(number(3), at(3)), None);
        // A day of silence, and a command that was not answered.
        assert_eq!(peers.reachable(number(1), at(86_402)), Some(place(3)));
        assert_eq!(peers.reachable(number(1), at(86_403)), None);
        peers.forget(number(2));
        assert_eq!(peers.reachable(number(2), at(3)), None);
        peers.heard(number(2), place(4), at(4));
        assert_eq!(peers.reachable(number(2), at(4)), Some(place(4)));
        assert_eq!(peers.heard.len(), peers.by_time.len());
    }

    #[test]
    fn as_many_as_there_is_room_for_and_the_oldest_go_first() {
        let mut peers = Peers::default();
        let many = u32::try_from(PEERS_MAX).expect("fits") + 2;
        for n in 1..=many {
            peers.heard(number(n), place(1), Tick::from_nanos(n.into()));
        }
        assert_eq!(
            (peers.heard.len(), peers.by_time.len()),
            (PEERS_MAX, PEERS_MAX)
        );
        let now = Tick::from_secs(1);
        let known = [1, 2, 3, many].map(|n| peers.reachable(number(n), now).is_some());
        assert_eq!(known, [false, false, true, true]);
    }
}
