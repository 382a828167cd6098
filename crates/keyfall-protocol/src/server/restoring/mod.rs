//! A server that was put back from a copy of its store: brought up to what it has ordered since,
//! and silent until an operator confirms it (FORMATS section 12; REQUIREMENTS A-32).
//!
//! Keys that were drawn after the copy are gone. So no number of theirs is used again, groups that
//! went on without us get a fresh epoch, and whoever was shut out stays out.

mod confirming;
mod gathered;

use std::collections::{BTreeMap, BTreeSet};

use crate::calendar::Utc;
use crate::command::{FreshEpoch, KeySet, SigningKey, Unverified};
use crate::ids::{GroupNumber, KeyEpoch, SequenceNumber, TerminalNumber, UnixSeconds};
use crate::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use crate::rng::Random;
use crate::schedule::{Schedule, generation_bound};
use crate::server::orders::search_key;
use crate::server::{
    Addresses, AuditEntry, Batch, By, Change, Exclusion, GroupRecord, JournalEntry, NewKeys,
    Refusal, Server, Statement, TerminalRecord,
};
use crate::sharing::KemSecret;
use crate::sharing::rsa_misty1::RsaSecret;
use gathered::Gathered;

/// What a server remembers of having been restored; a server that never was has the default.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Restored {
    /// While it is there nothing is sent.
    pub held: Option<Hold>,
    pub floors: Floors,
    /// Terminals that were enrolled after the copy: their keys are lost, and the keys in their
    /// records are nobody's.
    pub lost: BTreeSet<TerminalNumber>,
}

/// A restore that no operator has confirmed yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hold {
    /// When it was restored.
    pub at: UnixSeconds,
    /// What was lost and has to be done again, one sentence each, for the one who confirms.
    pub losses: Vec<String>,
}

/// Numbers that may have been used by what a restore lost: the next ones lie above.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Floors {
    pub terminal: u32,
    pub group: u32,
    /// Versions of LOCK and UNLOCK.
    pub lock: u32,
}

/// What is known of the time between the copy and now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Since {
    /// The newest moment that the copy knows of.
    pub copied_at: UnixSeconds,
    /// What the order journal has after that, in its order.
    pub entries: Vec<(UnixSeconds, JournalEntry)>,
    /// Sequence numbers below this may have been used.
    pub sequence: SequenceNumber,
    /// The journal, or its end, is lost: there may have been more.
    pub incomplete: bool,
}

/// What [`Server::catch_up`] did, for the one who restores.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CaughtUp {
    /// Excluded after the copy and excluded again.
    pub excluded: Vec<TerminalNumber>,
    /// Enrolled after the copy.
    pub lost: Vec<TerminalNumber>,
    /// Members that were taken out again, and put in again.
    pub left: usize,
    pub joined: usize,
    /// Groups with a fresh epoch.
    pub fresh: usize,
    /// Groups whose key went on by the one-way function.
    pub renewed: usize,
    pub losses: Vec<String>,
}

impl Server {
    /// Puts back what [`Change::Restored`] stored before a restart.
    pub fn resume_restored(&mut self, restored: Restored) {
        self.restored = restored;
    }

    /// What there is to know about its having been restored.
    #[must_use]
    pub fn restored(&self) -> &Restored {
        &self.restored
    }

    /// Whether the keys of that terminal were lost in a restore.
    #[must_use]
    pub fn is_lost(&self, terminal: TerminalNumber) -> bool {
        self.restored.lost.contains(&terminal)
    }

    /// The next number of a terminal; none that a restore may have lost.
    pub(in crate::server) fn next_terminal(&self) -> Option<TerminalNumber> {
        let last = self.terminals.keys().next_back();
        let last = last.map_or(0, |number| number.get());
        let next = last.max(self.restored.floors.terminal).checked_add(1);
        next.and_then(TerminalNumber::new)
    }

    /// The next number of a group; none that a restore may have lost.
    pub(in crate::server) fn next_group(&self) -> Option<GroupNumber> {
        let last = self.groups.keys().next_back();
        let last = last.map_or(0, |number| number.get());
        let next = last.max(self.restored.floors.group).checked_add(1);
        next.and_then(GroupNumber::new)
    }

    /// The one batch that brings a server up which was put back from a copy, and holds it. To be
    /// asked of a machine that was made from the copy and has done nothing yet; it does not apply
    /// the batch.
    ///
    /// # Errors
    /// [`Refusal::NotTheRoot`] where a KEYSET in `since` is not signed by the root.
    pub fn catch_up(
        &self,
        since: &Since,
        by: By,
        rng: &mut dyn Random,
    ) -> Result<(Batch, CaughtUp), Refusal> {
        let wall = self.at.wall;
        let key_sets = self.read_key_sets(&since.entries)?;
        let gathered = Gathered::of(self, since, &key_sets, wall);
        let mut changes = Vec::new();
        let mut done = CaughtUp::default();
        if let Some(keys) = self.newest_keys(&since.entries, &key_sets) {
            changes.push(Change::Keys(Box::new(keys)));
        }
        changes.extend(self.nobodies(&gathered, rng));
        done.lost = gathered.enrolled.keys().copied().collect();

        // Each may have been used since: whoever has it would be a second one (KR-379).
        let pending = self.terminals.values().filter(|it| it.is_pending());
        changes.extend(pending.map(|it| Change::TokenVoid(it.number)));

        changes.extend(self.policies_after(&gathered));
        changes.extend(self.legacy_keys_after(&gathered));
        changes.extend(self.settings_after(&gathered));
        let mut keys = Vec::new();
        let mut fresh = BTreeMap::new();
        let mut rekeyed = Vec::new();
        for group in self.groups.values() {
            changes.extend(gathered.statements(group.number).map(|statement| {
                let group = group.number;
                Change::Stated { group, statement }
            }));
            let Some((key, schedule)) = self.key_after(group, &gathered, rng) else {
                continue;
            };
            if key.epoch() == group.master.epoch() {
                done.renewed += 1;
            } else {
                done.fresh += 1;
                fresh.insert(group.number, key.epoch());
            }
            keys.push((group.number, key.epoch(), key.generation()));
            let packets = gathered.packets.get(&group.number);
            let packets = packets.unwrap_or(&group.packets).is_some();
            rekeyed.extend(self.caught_up(group, packets, (key, schedule), rng));
        }
        for exclusion in self.exclusions_after(&gathered, &fresh) {
            done.excluded.extend(&exclusion.terminals);
            changes.push(Change::Excluded(exclusion));
        }
        let moves = self.memberships_after(&gathered);
        let left = |change: &&Change| matches!(change, Change::Left { .. });
        done.left = moves.iter().filter(left).count();
        done.joined = moves.len() - done.left;
        changes.extend(moves);
        changes.extend(rekeyed);
        changes.push(Change::Fleet {
            generation: gathered.generation,
            wraps: self.wraps_after(&gathered),
        });
        changes.push(Change::Sequence(
            since.sequence.max(self.fleet.sequence_reserved),
        ));

        // Each entry raised a version by one at the most, beyond what the clock gave it.
        let lost = u32::try_from(since.entries.len()).unwrap_or(u32::MAX);
        let ahead = if since.incomplete { UNKNOWN_EPOCHS } else { 0 };
        changes.extend(self.records_after_restore(&changes, lost, ahead));

        let before = self.restored.held.iter().flat_map(|held| &held.losses);
        done.losses = before
            .cloned()
            .chain(self.losses(since, &gathered))
            .collect();
        let mut restored = self.restored.clone();
        restored.lost.extend(&done.lost);
        restored.floors = gathered.floors;
        restored.held = Some(Hold {
            at: wall,
            losses: done.losses.clone(),
        });
        changes.push(Change::Restored(Box::new(restored)));
        let batch = Batch {
            changes,
            audit: Some(self.restore_audit(since, &done, by)),
            journal: Some(JournalEntry::Restored {
                generation: gathered.generation,
                keys,
                incomplete: since.incomplete,
            }),
        };
        Ok((batch, done))
    }

    fn restore_audit(&self, since: &Since, done: &CaughtUp, by: By) -> AuditEntry {
        let journal = if since.incomplete {
            "the order journal is lost"
        } else {
            "by the order journal"
        };
        let outcome = format!(
            "from a copy of {}, {journal}: {} excluded again, {} fresh epochs, {} losses; held",
            Utc(since.copied_at),
            done.excluded.len(),
            done.fresh,
            done.losses.len()
        );
        self.audit(by, "server restore", "server", outcome)
    }

    /// Every KEYSET in the journal, read. The journal has no key of its own: the root's signature is
    /// what counts.
    fn read_key_sets(
        &self,
        entries: &[(UnixSeconds, JournalEntry)],
    ) -> Result<Vec<KeySet>, Refusal> {
        let frames = entries.iter().filter_map(|(_, entry)| frame_of(entry));
        frames
            .map(|frame| KeySet::signed_by(&self.fleet.root, frame).ok_or(Refusal::NotTheRoot))
            .collect()
    }

    /// The newest KEYSET, which terminals hold. Its online keys waited in the copy for the root's
    /// signature, or they are lost: then the old ones stay, and sign as long as it lists them.
    fn newest_keys(
        &self,
        entries: &[(UnixSeconds, JournalEntry)],
        key_sets: &[KeySet],
    ) -> Option<NewKeys> {
        let frame = entries
            .iter()
            .rev()
            .find_map(|(_, entry)| frame_of(entry))?;
        let key_set = key_sets.last()?;
        let command = Unverified::decode(frame).ok()?.command().clone();
        let drafted = self.drafted.as_ref();
        let drafted = drafted.filter(|drafted| drafted.command == command);
        let (beat, keys) = drafted.map_or((&self.fleet.beat, &self.fleet.keys), |drafted| {
            (&drafted.beat, &drafted.keys)
        });
        Some(NewKeys {
            key_set_frame: frame.to_vec(),
            key_set: key_set.clone(),
            beat: SigningKey::from_seed(beat.seed().duplicate()),
            keys: SigningKey::from_seed(keys.seed().duplicate()),
            kem: drafted
                .and_then(|it| it.kem.as_ref())
                .map(KemSecret::duplicate),
            kem_pq: drafted
                .and_then(|it| it.kem_pq.as_ref())
                .map(KemSecret::duplicate),
            rsa: drafted
                .and_then(|it| it.rsa.as_ref())
                .or(self.fleet.rsa.as_ref())
                .filter(|it| it.public().is_listed_in(key_set))
                .map(RsaSecret::duplicate),
        })
    }

    /// Records for terminals whose keys are lost: their numbers are used, and they can be excluded.
    fn nobodies(&self, gathered: &Gathered, rng: &mut dyn Random) -> Vec<Change> {
        let mut names: BTreeSet<&str> = self.terminal_names.keys().map(String::as_str).collect();
        let mut changes = Vec::new();
        for (&number, (name, added_at)) in &gathered.enrolled {
            // The name itself is free for the device when it is enrolled anew.
            let mut shown = format!("{name}.lost-{number}");
            while names.contains(shown.as_str()) {
                shown.push('_');
            }
            let mut secret = || Secret::init_with(|into| rng.fill(into));
            changes.push(Change::Terminal(TerminalRecord {
                number,
                name: shown,
                obey: ObeyKey::new(number, secret()),
                wrap: WrapKey::new(number, gathered.generation, secret()),
                added_at: *added_at,
                package_expires: *added_at,
                wipe_roots: Vec::new(),
                token: None,
                mixed_at: None,
                legacy_key: None,
                addresses: Addresses::default(),
                record: None,
                excluded_at: None,
                memberships: Vec::new(),
                orders: Vec::new(),
            }));
            names.insert(name);
        }
        changes
    }

    /// The group's key where it has to go on: a fresh epoch where somebody holds one that is lost,
    /// or holds this one and should not; else the generation beyond any that was ever sent.
    fn key_after(
        &self,
        group: &GroupRecord,
        gathered: &Gathered,
        rng: &mut dyn Random,
    ) -> Option<(MasterKey, Schedule)> {
        let wall = self.at.wall;
        let (held, cadence) = (&group.master, group.schedule.cadence);
        let newest = gathered.epochs.get(&group.number);
        let newest = newest.copied().max(Some(held.epoch()));
        let target = gathered.generation_of(group, wall);
        let bound = generation_bound(held.epoch(), self.signers_expire());
        let fresh = newest > Some(held.epoch())
            || gathered.incomplete
            || gathered.has_lost_member(group.number)
            || target > bound;
        if !fresh && target == held.generation() {
            return None;
        }
        let key = if fresh {
            // What is not known may have begun epochs up to this second.
            let ahead = if gathered.incomplete {
                UNKNOWN_EPOCHS
            } else {
                0
            };
            let epoch = KeyEpoch::fresh(newest, wall.plus(ahead));
            let secret = Secret::init_with(|into| rng.fill(into));
            MasterKey::new(group.number, epoch, crate::ids::Generation::ZERO, secret)
        } else {
            held.duplicate().renew_to(target)
        };
        let schedule = Schedule {
            generation: key.generation(),
            activate_at: self.tick_before(cadence, wall),
            cadence,
        };
        Some((key, schedule))
    }

    /// What makes it so, with a search key where an epoch begins in a packet group.
    fn caught_up(
        &self,
        group: &GroupRecord,
        packets: bool,
        (key, schedule): (MasterKey, Schedule),
        rng: &mut dyn Random,
    ) -> Vec<Change> {
        let begins = key.epoch() != group.master.epoch();
        let search = (begins && (packets || group.search_key.is_some())).then(|| {
            let key = packets.then(|| search_key(rng));
            Change::SearchKey {
                group: group.number,
                key,
            }
        });
        let group = group.number;
        let statement = Statement {
            stated_at: self.at.wall,
            epoch: key.epoch(),
            schedule,
        };
        let restated = [
            Change::Master { key, schedule },
            Change::Stated { group, statement },
        ];
        restated.into_iter().chain(search).collect()
    }

    /// What was set of packet groups and addresses last. What is not known stays as the copy has it.
    fn settings_after(&self, gathered: &Gathered) -> Vec<Change> {
        let packets = gathered.packets.iter().flat_map(|(&group, packets)| {
            let record = self.groups.get(&group);
            // No packet group any more: its search key goes at once, as it did then.
            let gone = record.filter(|it| packets.is_none() && it.search_key.is_some());
            let gone = gone.map(|_| Change::SearchKey { group, key: None });
            let packets = packets.clone();
            let set = record.map(|_| Change::Packets { group, packets });
            set.into_iter().chain(gone)
        });
        let addresses = gathered.addresses.iter().filter_map(|(number, addresses)| {
            let addresses = addresses.clone();
            let terminal = self.terminals.get(number)?.number;
            Some(Change::Addresses {
                terminal,
                addresses,
            })
        });
        packets.chain(addresses).collect()
    }

    /// Each group as it was set last. What is not known was perhaps the end of legacy sharing.
    fn policies_after(&self, gathered: &Gathered) -> Vec<Change> {
        let mut changes = Vec::new();
        for group in self.groups.values() {
            let set = gathered.policies.get(&group.number);
            let mut policy = set.copied().unwrap_or(group.policy);
            policy.legacy &= !gathered.incomplete;
            if policy != group.policy {
                let group = group.number;
                changes.push(Change::Policy { group, policy });
            }
        }
        changes
    }

    /// Each terminal's legacy key as it was registered last. What is not known was perhaps that one is
    /// in wrong hands.
    fn legacy_keys_after(&self, gathered: &Gathered) -> Vec<Change> {
        let mut changes = Vec::new();
        for record in self.terminals.values() {
            let set = gathered.legacy_keys.get(&record.number);
            let key = set.unwrap_or(&record.legacy_key);
            let key = key.clone().filter(|_| !gathered.incomplete);
            if key != record.legacy_key {
                let terminal = record.number;
                changes.push(Change::LegacyKey { terminal, key });
            }
        }
        changes
    }

    /// Who was excluded since is excluded again. EXCLUDE names the epochs that come now: those that
    /// it named are lost.
    fn exclusions_after(
        &self,
        gathered: &Gathered,
        fresh: &BTreeMap<GroupNumber, KeyEpoch>,
    ) -> Vec<Exclusion> {
        let mut number = self.exclusions.keys().next_back().copied().unwrap_or(0);
        let mut shut_out = BTreeSet::new();
        let mut exclusions = Vec::new();
        for (at, terminals, groups) in &gathered.exclusions {
            let new = |terminal: &&TerminalNumber| self.is_new_outcast(**terminal, gathered);
            let terminals: Vec<_> = terminals
                .iter()
                .filter(new)
                .filter(|&&terminal| shut_out.insert(terminal))
                .copied()
                .collect();
            if terminals.is_empty() {
                continue;
            }
            number += 1;
            let epochs = groups.iter().filter_map(|left| {
                fresh.get(&left.group).map(|&new| FreshEpoch {
                    group: left.group,
                    old: left.old,
                    new,
                })
            });
            exclusions.push(Exclusion {
                number,
                at: *at,
                terminals,
                groups: epochs.collect(),
            });
        }
        exclusions
    }

    /// Known, or lost, and not excluded in the copy.
    fn is_new_outcast(&self, terminal: TerminalNumber, gathered: &Gathered) -> bool {
        match self.terminals.get(&terminal) {
            Some(record) => record.excluded_at.is_none(),
            None => gathered.enrolled.contains_key(&terminal),
        }
    }

    fn memberships_after(&self, gathered: &Gathered) -> Vec<Change> {
        let mut changes = Vec::new();
        for group in self.groups.values() {
            let number = group.number;
            for &terminal in &group.members {
                if let Some(until) = gathered.left(number, terminal) {
                    changes.push(Change::Left {
                        group: number,
                        terminal,
                        until,
                    });
                }
            }
            for (terminal, from) in gathered.joined(number) {
                let trusted = self
                    .terminals
                    .get(&terminal)
                    .is_some_and(|record| record.excluded_at.is_none() && !self.is_lost(terminal));
                if trusted && !group.members.contains(&terminal) {
                    changes.push(Change::Member {
                        group: number,
                        terminal,
                        from,
                    });
                }
            }
        }
        changes
    }

    /// Every wrap key at G and its own offset, as it was ordered last.
    fn wraps_after(&self, gathered: &Gathered) -> Vec<WrapKey> {
        let step = |terminal: &TerminalRecord| {
            let offset = gathered.offset_of(terminal.number, self.offset(terminal));
            let own = gathered.generation.plus(offset);
            terminal.wrap.duplicate().renew_to(own)
        };
        self.terminals.values().map(step).collect()
    }
}

fn frame_of(entry: &JournalEntry) -> Option<&[u8]> {
    match entry {
        JournalEntry::KeySet { frame, .. } => Some(frame),
        JournalEntry::Enrolment { .. }
        | JournalEntry::Epoch { .. }
        | JournalEntry::Member { .. }
        | JournalEntry::Removal { .. }
        | JournalEntry::Renewal { .. }
        | JournalEntry::Policy { .. }
        | JournalEntry::LegacyKey { .. }
        | JournalEntry::Packets { .. }
        | JournalEntry::Addresses { .. }
        | JournalEntry::FleetGeneration { .. }
        | JournalEntry::Device { .. }
        | JournalEntry::Exclusion { .. }
        | JournalEntry::Order { .. }
        | JournalEntry::Restored { .. } => None,
    }
}

/// Seconds, and so epochs, that a server whose journal is lost leaves out.
const UNKNOWN_EPOCHS: u32 = 60;
