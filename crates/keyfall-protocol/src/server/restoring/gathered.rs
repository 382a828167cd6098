//! What the journal says of the time after a copy, gathered entry by entry.

use std::collections::BTreeMap;

use crate::command::{FreshEpoch, KeySet, OrderKind};
use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use crate::schedule::{FleetSchedule, Schedule};
use crate::server::restoring::{Floors, Since};
use crate::server::{
    Addresses, GroupPolicy, GroupRecord, JournalEntry, PacketSettings, Server, Statement,
};
use crate::sharing::rsa_misty1::RsaPublic;

/// An exclusion as it was journalled: when, who, and the epochs that it began.
pub(super) type Shut = (UnixSeconds, Vec<TerminalNumber>, Vec<FreshEpoch>);

/// Where everything stood when the server was lost, as far as that is known.
pub(super) struct Gathered {
    /// G: as high as it can have been, by the root's schedule and the orders on top of it.
    pub(super) generation: Generation,
    pub(super) floors: Floors,
    /// Terminals that the copy does not know: name and time.
    pub(super) enrolled: BTreeMap<TerminalNumber, (String, UnixSeconds)>,
    /// Groups that the copy does not know.
    pub(super) founded: BTreeMap<GroupNumber, String>,
    pub(super) exclusions: Vec<Shut>,
    /// The newest epoch of each group that was mentioned.
    pub(super) epochs: BTreeMap<GroupNumber, KeyEpoch>,
    /// The newest order of each kind: DELETE and INIT, LOCK and UNLOCK.
    pub(super) orders: BTreeMap<(TerminalNumber, bool), (OrderKind, UnixSeconds)>,
    /// What was set last of each group.
    pub(super) policies: BTreeMap<GroupNumber, GroupPolicy>,
    /// What was registered last of each terminal.
    pub(super) legacy_keys: BTreeMap<TerminalNumber, Option<RsaPublic>>,
    /// What was set last of each packet group and of each terminal's addresses.
    pub(super) packets: BTreeMap<GroupNumber, Option<PacketSettings>>,
    pub(super) addresses: BTreeMap<TerminalNumber, Addresses>,
    /// Version of the newest KEYSET.
    pub(super) key_set: Option<u32>,
    pub(super) incomplete: bool,
    /// The last word on who belongs where: member or not, since when.
    members: BTreeMap<(GroupNumber, TerminalNumber), (bool, UnixSeconds)>,
    /// What each group of the copy was said to be at.
    stated: BTreeMap<GroupNumber, Vec<Statement>>,
    /// Who was excluded when.
    shut_out: BTreeMap<TerminalNumber, UnixSeconds>,
    offsets: BTreeMap<TerminalNumber, u32>,
    /// A KEYSET with another schedule put all offsets back to 0.
    offsets_ended: bool,
}

/// G as it goes on by a schedule, with the lead that orders gave it.
struct Ticking {
    generation: Generation,
    schedule: FleetSchedule,
    at: UnixSeconds,
}

impl Gathered {
    /// `key_sets`: those of the KEYSET entries, in their order.
    pub(super) fn of(
        machine: &Server,
        since: &Since,
        key_sets: &[KeySet],
        wall: UnixSeconds,
    ) -> Self {
        let fleet = machine.fleet();
        let mut ticking = Ticking {
            generation: fleet.fleet_generation,
            schedule: fleet.key_set.fleet_schedule,
            at: since.copied_at,
        };
        let mut gathered = Self {
            generation: fleet.fleet_generation,
            floors: machine.restored().floors,
            enrolled: BTreeMap::new(),
            founded: BTreeMap::new(),
            exclusions: Vec::new(),
            epochs: BTreeMap::new(),
            orders: BTreeMap::new(),
            policies: BTreeMap::new(),
            legacy_keys: BTreeMap::new(),
            packets: BTreeMap::new(),
            addresses: BTreeMap::new(),
            key_set: None,
            incomplete: since.incomplete,
            members: BTreeMap::new(),
            stated: BTreeMap::new(),
            shut_out: BTreeMap::new(),
            offsets: BTreeMap::new(),
            offsets_ended: false,
        };
        let mut key_sets = key_sets.iter();
        for (at, entry) in &since.entries {
            ticking.advance(*at);
            if matches!(entry, JournalEntry::KeySet { .. })
                && let Some(key_set) = key_sets.next()
            {
                if ticking.schedule != key_set.fleet_schedule {
                    gathered.offsets_ended = true;
                    gathered.offsets.clear();
                }
                ticking.schedule = key_set.fleet_schedule;
            }
            gathered.note(machine, *at, entry, &mut ticking);
        }
        ticking.advance(wall);
        gathered.generation = ticking.generation;
        if gathered.incomplete {
            gathered.reckon_with_the_unknown(machine, &ticking);
        }
        gathered
    }

    fn note(
        &mut self,
        machine: &Server,
        at: UnixSeconds,
        entry: &JournalEntry,
        ticking: &mut Ticking,
    ) {
        match entry {
            JournalEntry::Enrolment { terminal, name } => {
                if !machine.terminals.contains_key(terminal) {
                    self.enrolled.insert(*terminal, (name.clone(), at));
                }
            }
            JournalEntry::Epoch { group, epoch, name } => {
                if !machine.groups.contains_key(group) {
                    self.founded.insert(*group, name.clone());
                    self.floors.group = self.floors.group.max(group.get());
                }
                self.state(machine, at, *group, *epoch, Generation::ZERO);
            }
            JournalEntry::Member {
                group,
                terminal,
                epoch,
                generation,
            } => {
                self.members.insert((*group, *terminal), (true, at));
                self.state(machine, at, *group, *epoch, *generation);
            }
            JournalEntry::Removal {
                group,
                terminals,
                epoch,
            } => {
                for &terminal in terminals {
                    self.members.insert((*group, terminal), (false, at));
                }
                self.state(machine, at, *group, *epoch, Generation::ZERO);
            }
            JournalEntry::Renewal {
                group,
                epoch,
                generation,
            } => self.state(machine, at, *group, *epoch, *generation),
            JournalEntry::Policy { group, policy } => {
                self.policies.insert(*group, *policy);
            }
            JournalEntry::LegacyKey { terminal, key } => {
                self.legacy_keys.insert(*terminal, key.clone());
            }
            JournalEntry::Packets {
                group,
                packets,
                epoch,
            } => {
                self.packets.insert(*group, packets.clone());
                if let Some(epoch) = epoch {
                    self.state(machine, at, *group, *epoch, Generation::ZERO);
                }
            }
            JournalEntry::Addresses {
                terminal,
                addresses,
            } => {
                self.addresses.insert(*terminal, addresses.clone());
            }
            JournalEntry::FleetGeneration { generation } => ticking.raise(*generation),
            JournalEntry::Device {
                terminal, offset, ..
            } => {
                self.offsets.insert(*terminal, *offset);
            }
            JournalEntry::Exclusion { terminals, groups } => {
                for &terminal in terminals {
                    self.shut_out.entry(terminal).or_insert(at);
                }
                self.exclusions
                    .push((at, terminals.clone(), groups.clone()));
                self.begin(machine, at, groups);
            }
            JournalEntry::Order {
                terminal,
                kind,
                version,
            } => {
                let erases = matches!(kind, OrderKind::Delete | OrderKind::Init);
                self.orders.insert((*terminal, erases), (*kind, at));
                self.floors.lock = self.floors.lock.max(version.unwrap_or(0));
            }
            JournalEntry::KeySet {
                version,
                generation,
                groups,
                ..
            } => {
                self.key_set = self.key_set.max(Some(*version));
                ticking.raise(*generation);
                self.begin(machine, at, groups);
            }
            JournalEntry::Restored {
                generation,
                keys,
                incomplete,
            } => {
                ticking.raise(*generation);
                for &(group, epoch, generation) in keys {
                    self.state(machine, at, group, epoch, generation);
                }
                self.incomplete |= incomplete;
            }
        }
    }

    fn begin(&mut self, machine: &Server, at: UnixSeconds, groups: &[FreshEpoch]) {
        for fresh in groups {
            self.state(machine, at, fresh.group, fresh.new, Generation::ZERO);
        }
    }

    fn state(
        &mut self,
        machine: &Server,
        at: UnixSeconds,
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    ) {
        let newest = self.epochs.entry(group).or_insert(epoch);
        *newest = epoch.max(*newest);
        if let Some(record) = machine.groups.get(&group) {
            let schedule = Schedule {
                generation,
                activate_at: at,
                cadence: record.schedule.cadence,
            };
            self.stated.entry(group).or_default().push(Statement {
                stated_at: at,
                epoch,
                schedule,
            });
        }
    }

    /// Numbers go on where nobody can have been, and G beyond what operators can have added to it.
    fn reckon_with_the_unknown(&mut self, machine: &Server, ticking: &Ticking) {
        let terminals = machine.terminals.keys().chain(self.enrolled.keys());
        let terminal = terminals.map(|number| number.get()).max().unwrap_or(0);
        self.floors.terminal = before_next_million(terminal.max(self.floors.terminal));
        let group = machine.groups.keys().map(|number| number.get()).max();
        self.floors.group = before_next_million(group.unwrap_or(0).max(self.floors.group));
        let bound = ticking.schedule.bound(machine.signers_expire());
        let far = self.generation.plus(UNKNOWN_STEPS).min(bound);
        self.generation = self.generation.max(far);
    }

    /// The generation that nobody can be beyond, in the epoch that the copy holds: one period
    /// further than counted from each statement, for renewals come back to the ticks of G.
    pub(super) fn generation_of(&self, group: &GroupRecord, wall: UnixSeconds) -> Generation {
        let held = group.master.generation();
        let cadence = group.schedule.cadence;
        let counted = group.schedule.generation_at(wall);
        let mut target = if counted > held {
            counted.plus(cadence.map_or(0, |it| it.step().into()))
        } else {
            held
        };
        for statement in self.statements(group.number) {
            let renewed = statement.schedule.generation > held;
            if renewed && statement.epoch == group.master.epoch() {
                let counted = statement.schedule.generation_at(wall);
                target = target.max(counted.plus(cadence.map_or(0, |it| it.step().into())));
            }
        }
        target
    }

    /// What the group was at between the copy and now.
    pub(super) fn statements(&self, group: GroupNumber) -> impl Iterator<Item = Statement> + '_ {
        self.stated.get(&group).into_iter().flatten().copied()
    }

    /// Whether a terminal that is lost holds the group's key.
    pub(super) fn has_lost_member(&self, group: GroupNumber) -> bool {
        self.joined(group)
            .any(|(terminal, _)| self.enrolled.contains_key(&terminal))
    }

    /// Who was added and not taken out again.
    pub(super) fn joined(
        &self,
        group: GroupNumber,
    ) -> impl Iterator<Item = (TerminalNumber, UnixSeconds)> + '_ {
        let first = TerminalNumber::new(1).expect("1 is a number");
        self.members
            .range((group, first)..=(group, TerminalNumber::MAX))
            .filter(|((_, terminal), (member, _))| *member && !self.shut_out.contains_key(terminal))
            .map(|(&(_, terminal), &(_, at))| (terminal, at))
    }

    /// When a member of the copy left, and did not come back.
    pub(super) fn left(&self, group: GroupNumber, terminal: TerminalNumber) -> Option<UnixSeconds> {
        if let Some(&at) = self.shut_out.get(&terminal) {
            return Some(at);
        }
        match self.members.get(&(group, terminal)) {
            Some(&(false, at)) => Some(at),
            Some((true, _)) | None => None,
        }
    }

    /// By how much that wrap key was beyond G; `copied` in the copy.
    pub(super) fn offset_of(&self, terminal: TerminalNumber, copied: u32) -> u32 {
        let before = if self.offsets_ended { 0 } else { copied };
        self.offsets.get(&terminal).copied().unwrap_or(before)
    }
}

impl Ticking {
    /// As many ticks as the schedule has between two moments: what was on top of it stays so.
    fn advance(&mut self, to: UnixSeconds) {
        let then = self.schedule.generation_at(self.at);
        let ticks = self.schedule.generation_at(to).steps_from(then);
        self.generation = self.generation.plus(ticks);
        self.at = self.at.max(to);
    }

    fn raise(&mut self, to: Generation) {
        self.generation = self.generation.max(to);
    }
}

/// The last number before the next multiple of 2^20.
const fn before_next_million(number: u32) -> u32 {
    number | (NUMBERS_LEFT - 1)
}

/// Where the journal is lost, numbers go on at the next multiple of this (FORMATS section 12).
const NUMBERS_LEFT: u32 = 1 << 20;
/// How much operators may have added to G; as much as a signer may claim beyond the schedule.
const UNKNOWN_STEPS: u32 = 64;
