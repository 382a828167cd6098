//! Paths that a search found: CE1–CE2, the group and the peer, pinned until it expires (REQUIREMENTS
//!

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::peers::{HARD_LIFE, IDLE_LIFE};
use crate::ids::{GroupNumber, KeyEpoch, TerminalNumber, Tick};

/// Source and destination of a flow, as this terminal sends it.
pub(super) type Ends = (IpAddr, IpAddr);

#[derive(Debug, Default)]
pub(super) struct Found(BTreeMap<Ends, FoundPath>);

#[derive(Clone, Copy, Debug)]
pub(super) struct FoundPath {
    pub(super) group: GroupNumber,
    pub(super) peer: TerminalNumber,
    /// A change of it ends the path.
    pub(super) epoch: KeyEpoch,
    pub(super) since: Tick,
    pub(super) used: Tick,
}

impl FoundPath {
    /// When it ends if nothing uses it any more.
    pub(super) fn ends(&self) -> Tick {
        self.hard_end().min(self.used.plus(IDLE_LIFE))
    }

    pub(super) fn hard_end(&self) -> Tick {
        self.since.plus(HARD_LIFE)
    }
}

impl Found {
    /// Enters one. A peer that fills its share, or all together, pushes out the path that was idle
    /// longest; that one comes back.
    pub(super) fn enter(&mut self, ends: Ends, path: FoundPath) -> Option<Ends> {
        let before = self.0.insert(ends, path);
        if before.is_some() {
            return None;
        }
        let share = self.0.values().filter(|it| it.peer == path.peer).count();
        let of_peer_only = share > FOUND_OF_PEER_MAX;
        if !of_peer_only && self.0.len() <= FOUND_MAX {
            return None;
        }
        let others = self
            .0
            .iter()
            .filter(|&(&it, held)| it != ends && (!of_peer_only || held.peer == path.peer));
        let gone = others
            .min_by_key(|(_, held)| held.used)
            .map(|(&it, _)| it)?;
        self.0.remove(&gone);
        Some(gone)
    }

    /// The path between two ends, where it has not expired.
    pub(super) fn get(&self, ends: Ends, now: Tick) -> Option<&FoundPath> {
        self.0.get(&ends).filter(|path| now < path.ends())
    }

    pub(super) fn use_at(&mut self, ends: Ends, now: Tick) {
        if let Some(path) = self.0.get_mut(&ends) {
            path.used = path.used.max(now);
        }
    }

    pub(super) fn remove(&mut self, ends: Ends) -> bool {
        self.0.remove(&ends).is_some()
    }

    /// Takes out what `gone` says, and returns it.
    pub(super) fn drop_where(&mut self, gone: impl Fn(&FoundPath) -> bool) -> Vec<Ends> {
        let lost: Vec<_> = self
            .0
            .iter()
            .filter(|(_, path)| gone(path))
            .map(|(&ends, _)| ends)
            .collect();
        for ends in &lost {
            self.0.remove(ends);
        }
        lost
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Ends, &FoundPath)> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Paths found that are remembered.
pub(super) const FOUND_MAX: usize = 4096;
/// Those among them that one peer may fill.
pub(super) const FOUND_OF_PEER_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    fn path(peer: u32, used: u64) -> FoundPath {
        FoundPath {
            group: GroupNumber::new(1).expect("not 0"),
            peer: TerminalNumber::new(peer).expect("not 0"),
            epoch: KeyEpoch::new(7),
            since: Tick::default(),
            used: Tick::from_secs(used),
        }
    }

    fn ends(n: u32) -> Ends {
        (n.to_be_bytes().into(), [10, 0, 0, 1].into())
    }

    /// W-21: a member that fills the table pushes out its own paths, the idle ones first, and no
    /// other's; all together stay within the bound.
    #[test]
    fn one_peer_fills_no_more_than_its_share() {
        let mut found = Found::default();
        assert_eq!(found.enter(ends(0), path(3, 0)), None);
        for n in 1..=512 {
            assert_eq!(found.enter(ends(n), path(1, u64::from(n))), None);
        }
        assert_eq!(found.enter(ends(513), path(1, 513)), Some(ends(1)));
        assert_eq!(found.enter(ends(513), path(1, 514)), None, "no second one");
        assert!(found.get(ends(0), Tick::default()).is_some());
        for n in 1000..10_000 {
            found.enter(ends(n), path(n / 100, 1));
        }
        assert_eq!(found.iter().count(), FOUND_MAX);
    }
}
