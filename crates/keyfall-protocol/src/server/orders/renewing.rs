//! Renewal by the schedules, and of the devices' own keys.

use core::time::Duration;

use crate::ids::{Generation, GroupNumber, TerminalNumber, UnixSeconds};
use crate::server::orders::Prepared;
use crate::server::{
    Batch, By, Change, Done, GroupRecord, JournalEntry, OFFSET_MAX, Refusal, Server, TerminalRecord,
};

impl Server {
    pub(super) fn is_due(&self) -> bool {
        let wall = self.at.wall;
        let due = |group: &GroupRecord| group.is_due(wall);
        self.ticks_due() > 0 || self.groups.values().any(due)
    }

    /// When the next schedule moves after `wall`.
    pub(super) fn next_move(&self, wall: UnixSeconds) -> Option<UnixSeconds> {
        let groups = self.groups.values();
        let fleet = self.fleet.key_set.fleet_schedule.next_change(wall);
        // An end that has come is looked at whenever something was stored, or was not.
        let ends = |group| self.epoch_ends_at(group).filter(|&at| at > wall);
        groups
            .flat_map(|group| [group.schedule.next_change(wall), ends(group)])
            .flatten()
            .chain(std::iter::once(fleet))
            .chain(self.record_ages_at())
            .min()
    }

    /// When the group gets a fresh epoch by itself (FORMATS section 9): what was copied of the key
    /// before reads nothing any more, whether or not anybody noticed. `None`: nobody is there, or never.
    #[must_use]
    pub fn epoch_ends_at(&self, group: &GroupRecord) -> Option<UnixSeconds> {
        let life = self.fleet.epoch_life;
        let ends = life > 0 && !group.members.is_empty();
        ends.then(|| group.epoch_drawn_at().plus(life))
    }

    /// How long the next group's fresh epoch waits for this one's: its KEYDISTs, twice over, fit the
    /// carousel meanwhile, so that no thin link has more groups in the air than it can serve.
    pub(super) fn time_to_distribute(&self, group: GroupNumber) -> Duration {
        let members = self.groups.get(&group).map_or(0, |it| it.members.len()) as u64;
        let bits = members * DISTRIBUTED_BITS * 2;
        Duration::from_secs(1 + bits / self.fleet.bits_per_second.max(1))
    }

    /// The group whose epoch has been at an end for longest; not one whose key is changing.
    pub(super) fn aged(&self) -> Option<GroupNumber> {
        let wall = self.at.wall;
        let idle = |group: &&GroupRecord| !self.changing.is_at_work(group.number);
        let ended = self.groups.values().filter(idle).filter_map(|group| {
            let ended = self.epoch_ends_at(group).filter(|&at| at <= wall)?;
            Some((ended, group.number))
        });
        ended.min().map(|(_, number)| number)
    }

    /// How many ticks of the root's schedule have passed since the last that moved G. Orders in
    /// between do not count: G keeps the lead that they gave it, and no tick is swallowed.
    fn ticks_due(&self) -> u32 {
        let schedule = self.fleet.key_set.fleet_schedule;
        schedule.generation_at(self.at.wall).steps_from(self.ticked)
    }

    /// Since when G is behind the root's schedule; `None` where it is not.
    #[must_use]
    pub fn devices_due_since(&self, wall: UnixSeconds) -> Option<UnixSeconds> {
        let schedule = self.fleet.key_set.fleet_schedule;
        schedule.due_since(self.ticked, wall)
    }

    /// The generation to which an order renews: the next, or beyond all that sessions of the present
    /// period may have used, so that whoever joins reads nothing of them.
    pub(super) fn next_by_order(&self, group: &GroupRecord) -> Generation {
        let held = group.master.generation();
        let per_session = group.schedule.cadence.filter(|it| it.per_session());
        match per_session {
            Some(cadence) => {
                let scheduled = group.schedule.generation_at(self.at.wall);
                held.max(scheduled).plus(u32::from(cadence.step()))
            }
            None => held.next(),
        }
    }

    pub(super) fn scheduled(&self, by: By) -> Prepared {
        let wall = self.at.wall;
        let (mut changes, mut groups) = (Vec::new(), 0);
        let mut refusal = None;
        for group in self.groups.values().filter(|group| group.is_due(wall)) {
            match self.renewed(group, group.schedule.generation_at(wall)) {
                Ok(renewed) => {
                    groups += 1;
                    changes.extend(renewed.restate(group));
                }
                Err(refused) => refusal = Some(refused),
            }
        }
        let ticks = self.ticks_due();
        let target = self.fleet.fleet_generation.plus(ticks);
        if ticks > 0 {
            match self.renewed_devices(target) {
                Ok(change) => changes.push(change),
                Err(refused) => refusal = Some(refused),
            }
        }
        if let (true, Some(refusal)) = (changes.is_empty(), refusal) {
            return Err(refusal);
        }
        let g = if ticks > 0 {
            format!(", G {target}")
        } else {
            String::new()
        };
        let outcome = format!("{groups} groups{g}");
        let batch = Batch {
            changes,
            audit: Some(self.audit(by, "renew by validity", "all that is due", outcome)),
            // A restored server reads it from the schedules again.
            journal: None,
        };
        Ok((batch, Done::Scheduled { ticks }))
    }

    pub(super) fn renew_devices(
        &self,
        target: Generation,
        action: &'static str,
        by: By,
    ) -> Prepared {
        let batch = Batch {
            changes: vec![self.renewed_devices(target)?],
            audit: Some(self.audit(by, action, "all", format!("G {target}"))),
            journal: Some(JournalEntry::FleetGeneration { generation: target }),
        };
        Ok((batch, Done::FleetRenewed { generation: target }))
    }

    /// Every wrap key steps with G and keeps its own offset.
    fn renewed_devices(&self, target: Generation) -> Result<Change, Refusal> {
        let schedule = self.fleet.key_set.fleet_schedule;
        if target <= self.fleet.fleet_generation || target > schedule.bound(self.signers_expire()) {
            return Err(Refusal::RenewedTooOften);
        }
        let step = |terminal: &TerminalRecord| {
            let own = target.plus(self.offset(terminal));
            terminal.wrap.duplicate().renew_to(own)
        };
        Ok(Change::Fleet {
            generation: target,
            wraps: self.terminals.values().map(step).collect(),
        })
    }

    pub(super) fn renew_device(&self, number: TerminalNumber, by: By) -> Prepared {
        let terminal = self.trusted_terminal(number)?;
        let offset = self.offset(terminal) + 1;
        if offset > OFFSET_MAX {
            return Err(Refusal::DeviceRenewedTooOften(number));
        }
        let wrap = terminal.wrap.duplicate().renew();
        let generation = wrap.generation();
        let outcome = format!("generation {generation}, {offset} beyond G");
        let batch = Batch {
            changes: vec![Change::Wrap(wrap)],
            audit: Some(self.audit(by, "renew device", &terminal.name, outcome)),
            journal: Some(JournalEntry::Device {
                terminal: number,
                generation,
                offset,
            }),
        };
        let done = Done::DeviceRenewed {
            terminal: number,
            offset,
            generation,
        };
        Ok((batch, done))
    }

    /// By how much the terminal's wrap key is beyond G.
    #[must_use]
    pub fn offset(&self, terminal: &TerminalRecord) -> u32 {
        let generation = terminal.wrap.generation();
        generation.steps_from(self.fleet.fleet_generation)
    }
}

/// About what a KEYDIST takes for each recipient.
const DISTRIBUTED_BITS: u64 = 60 * 8;
