//! One terminal with its disk, its link and its ear.

use std::collections::BTreeMap;

use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick};
use keyfall_protocol::terminal::{Erase, Event, Terminal};

use crate::link::Link;
use crate::media::Ear;
use crate::memory::Memory;
use crate::snapshot::DiskImage;
use crate::way::Way;

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
    /// Where it can answer.
    pub(crate) way: Option<Way>,
    pub(crate) ear: Ear,
    pub(crate) disk: Disk,
    /// The user compartment opens only to a passphrase.
    pub(crate) has_passphrase: bool,
    pub(crate) memory: Memory,
    pub(crate) wake: Option<Tick>,
    pub(crate) told: Vec<Told>,
    /// The version of the KEYSET that it held last.
    pub(crate) key_set: u32,
    /// The newest key that it told of, for each group: never to be forgotten.
    pub(crate) promised: BTreeMap<GroupNumber, (KeyEpoch, Generation)>,
}

/// The state directory as it is synced, and as it was last asked for.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) synced: DiskImage,
    /// What `synced` holds, for the witness.
    pub(crate) held: BTreeMap<GroupNumber, (KeyEpoch, Generation)>,
    pub(crate) asked: DiskImage,
    /// The disk does one thing after the other.
    pub(crate) busy_until: Tick,
    /// How often something was asked to be stored.
    pub(crate) stores: u64,
    /// The root secrets are destroyed, and nothing that lies there opens any more.
    pub(crate) destroyed: Option<Erase>,
    /// The rest is gone, too.
    pub(crate) erased: bool,
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

    /// What a power cut now would leave, as its owner could open it; empty once it was erased.
    #[must_use]
    pub fn synced(&self) -> &DiskImage {
        &self.disk.synced
    }

    /// The newest image, synced or not: with the memory what a thief finds.
    #[must_use]
    pub fn newest_image(&self) -> &DiskImage {
        &self.disk.asked
    }

    /// How often the machine asked for a store.
    #[must_use]
    pub fn stores(&self) -> u64 {
        self.disk.stores
    }

    /// Why and how it was erased, once every key on its disk is destroyed.
    #[must_use]
    pub fn erasure(&self) -> Option<&Erase> {
        self.disk.destroyed.as_ref()
    }

    /// Whether an erasure has come to its end.
    #[must_use]
    pub fn is_erased(&self) -> bool {
        self.disk.erased
    }

    /// The machine's own clock at the world's `now`.
    pub(crate) fn tick(&self, now: Tick) -> Tick {
        Tick::default().plus(now.since(self.booted))
    }

    /// The world's time at the machine's `at`.
    pub(crate) fn world_time(&self, at: Tick) -> Tick {
        self.booted.plus(at.since(Tick::default()))
    }

    /// What the driver reads at power-on: without the passphrase nothing of the user compartment.
    pub(crate) fn readable_image(&self) -> DiskImage {
        let open = self
            .machine
            .as_ref()
            .is_some_and(|machine| !machine.is_locked());
        match open {
            true => self.disk.synced.clone(),
            false => self.disk.synced.device_only(),
        }
    }

    /// Keys and all that was derived of them leave the memory.
    pub(crate) fn forget(&mut self) {
        self.ear = Ear::default();
        self.memory = Memory::default();
    }
}
