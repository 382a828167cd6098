//! What a terminal's memory holds beside its newest keys, seen from outside: a machine tells nobody
//! its keys, but each stood in a snapshot once, and it says when it wipes one.

use std::time::Duration;

use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, Tick};
use keyfall_protocol::keys::{MasterKey, WrapKey};

use crate::snapshot::Loot;

/// Every key in one terminal's memory: what a thief reads who takes it while it is on.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    masters: Vec<MasterKey>,
    /// Used-up ones, and until when they are kept.
    wraps: Vec<(WrapKey, Tick)>,
    newest_wrap: Option<WrapKey>,
}

impl Memory {
    /// The machine asked for this to be stored, or was restored from it.
    pub(crate) fn sees(&mut self, loot: &Loot, now: Tick, keep: Duration) {
        for key in loot.masters() {
            let name = name(key);
            if !self.masters.iter().any(|held| self::name(held) == name) {
                self.masters.push(key.duplicate());
            }
        }
        let Some(user) = &loot.user else { return };
        let next = user.wrap.duplicate();
        let old = self.newest_wrap.replace(next);
        let used_up = old.filter(|old| old.generation() < user.wrap.generation());
        self.wraps
            .extend(used_up.map(|wrap| (wrap, now.plus(keep))));
        let surplus = self.wraps.len().saturating_sub(OLDER_MAX);
        self.wraps.drain(..surplus);
    }

    /// It said that it holds that key no more.
    pub(crate) fn retires(&mut self, group: GroupNumber, epoch: KeyEpoch, generation: Generation) {
        self.masters
            .retain(|key| name(key) != (group, epoch, generation));
    }

    /// Every master key, those in grace too.
    pub(crate) fn masters(&self) -> impl Iterator<Item = &MasterKey> {
        self.masters.iter()
    }

    /// Every wrap key at `now`.
    pub(crate) fn wraps(&self, now: Tick) -> impl Iterator<Item = &WrapKey> {
        let kept = self.wraps.iter().filter(move |(_, until)| *until > now);
        kept.map(|(wrap, _)| wrap).chain(&self.newest_wrap)
    }
}

fn name(key: &MasterKey) -> (GroupNumber, KeyEpoch, Generation) {
    (key.group(), key.epoch(), key.generation())
}

/// As many used-up generations as a terminal's ring keeps.
const OLDER_MAX: usize = 4;
