//! One terminal with its disk, its link and its ear.

use std::collections::BTreeMap;
use std::time::Duration;

use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick};
use keyfall_protocol::keys::WrapKey;
use keyfall_protocol::terminal::{Event, Terminal};

use crate::link::Link;
use crate::media::Ear;
use crate::snapshot::Loot;

/// Names a station of a world.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct StationId(pub(crate) usize);

/// An event and when it was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    pub at: Tick,
    pub event: Event,
}

/// One terminal and what belongs to it.
pub struct Station {
    pub name: String,
    pub number: TerminalNumber,
    /// `None` while it is off.
    pub(crate) machine: Option<Terminal>,
    /// Counts power-ons: what was planned for an earlier one does not happen.
    pub(crate) boots: u32,
    /// The world's time at the machine's tick 0.
    pub(crate) booted: Tick,
    pub(crate) link: Link,
    pub(crate) ear: Ear,
    pub(crate) disk: Disk,
    pub(crate) wake: Option<Tick>,
    pub(crate) told: Vec<Told>,
    /// The newest key that it told of, for each group: never to be forgotten.
    pub(crate) promised: BTreeMap<GroupNumber, (KeyEpoch, Generation)>,
    /// Used-up wrap keys that memory still holds, and until when.
    pub(crate) kept_wraps: Vec<(WrapKey, Tick)>,
}

/// The synced snapshot, and the one last asked for.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) synced: Vec<u8>,
    /// What `synced` holds, for the witness.
    pub(crate) held: BTreeMap<GroupNumber, (KeyEpoch, Generation)>,
    pub(crate) asked: Vec<u8>,
    /// The disk does one thing after the other.
    pub(crate) busy_until: Tick,
    /// How often something was asked to be stored.
    pub(crate) stores: u64,
}

impl Station {
    /// The machine; `None` while it is off.
    #[must_use]
    pub fn terminal(&self) -> Option<&Terminal> {
        self.machine.as_ref()
    }

    /// Everything told since the first power-on.
    #[must_use]
    pub fn told(&self) -> &[Told] {
        &self.told
    }

    /// The snapshot that a power cut now would leave.
    #[must_use]
    pub fn synced(&self) -> &[u8] {
        &self.disk.synced
    }

    /// The newest snapshot, synced or not: with the memory what a thief finds.
    #[must_use]
    pub fn newest_snapshot(&self) -> &[u8] {
        &self.disk.asked
    }

    /// How often the machine asked for a store.
    #[must_use]
    pub fn stores(&self) -> u64 {
        self.disk.stores
    }

    /// The used-up wrap keys that memory holds at `now`.
    pub fn kept_wraps(&self, now: Tick) -> impl Iterator<Item = &WrapKey> {
        self.kept_wraps
            .iter()
            .filter(move |(_, until)| *until > now)
            .map(|(wrap, _)| wrap)
    }

    /// The machine's own clock at the world's `now`.
    pub(crate) fn tick(&self, now: Tick) -> Tick {
        Tick::default().plus(now.since(self.booted))
    }

    /// The world's time at the machine's `at`.
    pub(crate) fn world_time(&self, at: Tick) -> Tick {
        self.booted.plus(at.since(Tick::default()))
    }

    /// Notes the wrap key that a step of G has just replaced, from the snapshot before it.
    pub(crate) fn keep_wrap(&mut self, now: Tick) {
        let Some(machine) = &self.machine else { return };
        let keep = Duration::from_secs(u64::from(machine.identity().keep_time));
        let (generation, _) = machine.fleet_generation();
        match Loot::read(&self.disk.asked) {
            Ok(loot) if loot.wrap.generation() < generation => {
                self.kept_wraps.push((loot.wrap, now.plus(keep)));
            }
            Ok(_) | Err(_) => {}
        }
        let surplus = self.kept_wraps.len().saturating_sub(OLDER_MAX);
        self.kept_wraps.drain(..surplus);
    }
}

/// As many used-up generations as a terminal's ring keeps.
const OLDER_MAX: usize = 4;
