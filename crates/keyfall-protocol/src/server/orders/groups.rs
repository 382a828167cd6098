//! Groups: who belongs to them, and their keys' generations and epochs.

use std::collections::BTreeSet;

use crate::command::{FreshEpoch, SEARCH_KEY_LEN};
use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use crate::keys::{MasterKey, Secret};
use crate::rng::Random;
use crate::schedule::{Cadence, Schedule, generation_bound};
use crate::server::orders::Prepared;
use crate::server::orders::enrolling::check_name;
use crate::server::{
    Batch, By, Change, ChangeCause, ChangeReport, Done, GroupPolicy, GroupRecord, JournalEntry,
    PacketSettings, Refusal, Server, Statement,
};

impl Server {
    pub(super) fn create_group(
        &self,
        name: &str,
        members: &[TerminalNumber],
        cadence: Option<Cadence>,
        packets: Option<PacketSettings>,
        (by, rng): (By, &mut dyn Random),
    ) -> Prepared {
        check_name(name)?;
        if let Some(packets) = &packets {
            packets.check()?;
        }
        if self.group_names.contains_key(name) {
            return Err(Refusal::NameTaken(name.to_owned()));
        }
        if members.is_empty() {
            return Err(Refusal::NoMembers);
        }
        for &member in members {
            self.trusted_terminal(member)?;
        }
        let number = self.next_group().ok_or(Refusal::NumbersUsedUp)?;
        let epoch = KeyEpoch::fresh(None, self.at.wall);
        let fresh = Secret::init_with(|into| rng.fill(into));
        let schedule = Schedule {
            generation: Generation::ZERO,
            activate_at: self.tick_before(cadence, self.at.wall),
            cadence,
        };
        let record = GroupRecord {
            number,
            name: name.to_owned(),
            members: members.iter().copied().collect::<BTreeSet<_>>(),
            master: MasterKey::new(number, epoch, Generation::ZERO, fresh),
            schedule,
            lease: self.fleet.key_set.limits.longest_lease,
            policy: GroupPolicy::default(),
            search_key: packets.as_ref().map(|_| search_key(rng)),
            packets,
            statements: vec![self.statement_of(epoch, schedule)],
        };
        let outcome = format!(
            "group {number} epoch {epoch}, {} members",
            record.members.len()
        );
        let batch = Batch {
            changes: vec![Change::Group(record)],
            audit: Some(self.audit(by, "group create", name, outcome)),
            journal: Some(JournalEntry::Epoch {
                group: number,
                epoch,
                name: name.to_owned(),
            }),
        };
        Ok((batch, Done::Group { number, epoch }))
    }

    pub(super) fn add_member(
        &self,
        number: GroupNumber,
        terminal: TerminalNumber,
        by: By,
    ) -> Prepared {
        let group = self.group(number)?;
        self.trusted_terminal(terminal)?;
        if group.members.contains(&terminal) {
            return Err(Refusal::AlreadyMember(terminal));
        }
        let renewed = self.renewed(group, self.next_by_order(group))?;
        let (epoch, generation) = (renewed.key.epoch(), renewed.key.generation());
        let cause = ChangeCause::Renewal {
            newcomer: Some(terminal),
        };
        let outcome = format!("terminal {terminal}, from generation {generation} on");
        let mut changes = renewed.restate(group);
        changes.push(Change::Member {
            group: number,
            terminal,
            from: self.at.wall,
        });
        changes.extend(self.begins(group, (epoch, generation), cause, &[]));
        let batch = Batch {
            changes,
            audit: Some(self.audit(by, "group add", &group.name, outcome)),
            journal: Some(JournalEntry::Member {
                group: number,
                terminal,
                epoch,
                generation,
            }),
        };
        Ok((
            batch,
            Done::Member {
                group: number,
                generation,
            },
        ))
    }

    /// Leaving is a fresh epoch: the one who goes could compute every later generation of the old
    /// one (FORMATS section 5.4).
    pub(super) fn remove_member(
        &self,
        number: GroupNumber,
        terminal: TerminalNumber,
        by: By,
        rng: &mut dyn Random,
    ) -> Prepared {
        let group = self.group(number)?;
        self.terminal(terminal)?;
        if !group.members.contains(&terminal) {
            return Err(Refusal::NotMember(terminal));
        }
        let at = self.at.wall.plus(self.lead(group, &[terminal]));
        let (fresh, rekeyed) = self.fresh_epoch(group, at, rng);
        let mut changes = vec![Change::Left {
            group: number,
            terminal,
            until: self.at.wall,
        }];
        changes.extend(rekeyed);
        let epoch = fresh.new;
        changes.extend(self.begins_fresh(group, epoch, ChangeCause::FreshEpoch, &[terminal]));
        let outcome = format!("terminal {terminal}, epoch {epoch} without it");
        let batch = Batch {
            changes,
            audit: Some(self.audit(by, "group remove", &group.name, outcome)),
            journal: Some(JournalEntry::Removal {
                group: number,
                terminals: vec![terminal],
                epoch,
            }),
        };
        let done = Done::Removed {
            group: number,
            terminal,
            epoch,
            at,
        };
        Ok((batch, done))
    }

    /// Stragglers leave as others do.
    pub(super) fn leave_out(
        &self,
        number: GroupNumber,
        terminals: &[TerminalNumber],
        by: By,
        rng: &mut dyn Random,
    ) -> Prepared {
        let group = self.group(number)?;
        let members = terminals.iter().copied();
        let left: Vec<_> = members.filter(|it| group.members.contains(it)).collect();
        if left.is_empty() {
            return Err(Refusal::NoMembers);
        }
        let at = self.at.wall.plus(self.lead(group, &left));
        let (fresh, rekeyed) = self.fresh_epoch(group, at, rng);
        let until = self.at.wall;
        let leaves = |&terminal| Change::Left {
            group: number,
            terminal,
            until,
        };
        let mut changes: Vec<_> = left.iter().map(leaves).collect();
        changes.extend(rekeyed);
        let epoch = fresh.new;
        changes.extend(self.begins_fresh(group, epoch, ChangeCause::LeftOut, &left));
        let numbers: Vec<_> = left.iter().map(ToString::to_string).collect();
        let outcome = format!(
            "terminals {}, epoch {epoch} without them",
            numbers.join(" ")
        );
        let batch = Batch {
            changes,
            audit: Some(self.audit(by, "left out", &group.name, outcome)),
            journal: Some(JournalEntry::Removal {
                group: number,
                terminals: left,
                epoch,
            }),
        };
        Ok((batch, Done::Nothing))
    }

    /// The change that begins with a fresh epoch.
    pub(super) fn begins_fresh(
        &self,
        group: &GroupRecord,
        epoch: KeyEpoch,
        cause: ChangeCause,
        leaving: &[TerminalNumber],
    ) -> Option<Change> {
        self.begins(group, (epoch, Generation::ZERO), cause, leaving)
    }

    pub(super) fn rekey_group(
        &self,
        group: &GroupRecord,
        by: By,
        rng: &mut dyn Random,
    ) -> Prepared {
        let at = self.at.wall.plus(self.lead(group, &[]));
        let (fresh, mut changes) = self.fresh_epoch(group, at, rng);
        let (number, epoch) = (group.number, fresh.new);
        changes.extend(self.begins_fresh(group, epoch, ChangeCause::FreshEpoch, &[]));
        let batch = Batch {
            changes,
            audit: Some(self.audit(by, "rekey", &group.name, format!("epoch {epoch}"))),
            journal: Some(JournalEntry::Epoch {
                group: number,
                epoch,
                name: group.name.clone(),
            }),
        };
        let done = Done::Rekeyed {
            group: number,
            epoch,
            at,
        };
        Ok((batch, done))
    }

    pub(super) fn renew_group(
        &self,
        group: &GroupRecord,
        target: Generation,
        action: &'static str,
        by: By,
    ) -> Prepared {
        let renewed = self.renewed(group, target)?;
        let (number, at) = (group.number, renewed.schedule.activate_at);
        let (epoch, generation) = (renewed.key.epoch(), renewed.key.generation());
        let outcome = format!("generation {generation}");
        let cause = ChangeCause::Renewal { newcomer: None };
        let mut changes = renewed.restate(group);
        changes.extend(self.begins(group, (epoch, generation), cause, &[]));
        let batch = Batch {
            changes,
            audit: Some(self.audit(by, action, &group.name, outcome)),
            journal: Some(JournalEntry::Renewal {
                group: number,
                epoch,
                generation,
            }),
        };
        Ok((
            batch,
            Done::Renewed {
                group: number,
                epoch,
                generation,
                at,
            },
        ))
    }

    /// Also what stays as it is goes through: who set it last stands in the audit log.
    pub(super) fn set_group(
        &self,
        group: &GroupRecord,
        policy: GroupPolicy,
        by: By,
    ) -> (Batch, Done) {
        let number = group.number;
        let batch = Batch {
            changes: vec![Change::Policy {
                group: number,
                policy,
            }],
            audit: Some(self.audit(by, "group set", &group.name, policy.to_string())),
            journal: Some(JournalEntry::Policy {
                group: number,
                policy,
            }),
        };
        let done = Done::GroupSet {
            group: number,
            before: group.policy,
            after: policy,
        };
        (batch, done)
    }

    /// The group's key at `target`, and the schedule that states it. By command it is active a
    /// little later, so that everyone holds it before anyone sends with it (INVARIANT 5).
    pub(super) fn renewed(
        &self,
        group: &GroupRecord,
        target: Generation,
    ) -> Result<Renewed, Refusal> {
        let held = &group.master;
        let expires = self.signers_expire();
        if target <= held.generation() || target > generation_bound(held.epoch(), expires) {
            return Err(Refusal::RenewedTooOften);
        }
        let wall = self.at.wall;
        let scheduled = group.schedule.generation_at(wall) == target;
        let (from, activate_at) = match group.schedule.cadence {
            // The instant at which the schedule reached this generation, or the tick of G before
            // it: what a command in between moved away from the ticks comes back to them.
            Some(cadence) if scheduled => {
                let elapsed = wall.since(group.schedule.activate_at);
                let reached = group
                    .schedule
                    .activate_at
                    .plus(elapsed - elapsed % cadence.period());
                (reached, self.tick_before(Some(cadence), reached))
            }
            Some(_) | None => (wall, wall.plus(ACTIVATION_LEAD)),
        };
        Ok(Renewed {
            key: held.duplicate().renew_to(target),
            schedule: Schedule {
                generation: target,
                activate_at,
                cadence: group.schedule.cadence,
            },
            from,
        })
    }

    /// A key that shares nothing with the one before.
    pub(super) fn fresh_epoch(
        &self,
        group: &GroupRecord,
        activate_at: UnixSeconds,
        rng: &mut dyn Random,
    ) -> (FreshEpoch, Vec<Change>) {
        self.fresh_epoch_of(group, group.packets.is_some(), activate_at, rng)
    }

    /// As [`Self::fresh_epoch`]; `packets`: of a packet group, and so with a search key.
    pub(super) fn fresh_epoch_of(
        &self,
        group: &GroupRecord,
        packets: bool,
        activate_at: UnixSeconds,
        rng: &mut dyn Random,
    ) -> (FreshEpoch, Vec<Change>) {
        let (number, old) = (group.number, group.master.epoch());
        let new = KeyEpoch::fresh(Some(old), self.at.wall);
        let secret = Secret::init_with(|into| rng.fill(into));
        let schedule = Schedule {
            generation: Generation::ZERO,
            activate_at,
            cadence: group.schedule.cadence,
        };
        let mut changes = vec![
            Change::Master {
                key: MasterKey::new(number, new, Generation::ZERO, secret),
                schedule,
            },
            Change::Stated {
                group: number,
                statement: self.statement_of(new, schedule),
            },
        ];
        if packets || group.search_key.is_some() {
            changes.push(Change::SearchKey {
                group: number,
                key: packets.then(|| search_key(rng)),
            });
        }
        let fresh = FreshEpoch {
            group: number,
            old,
            new,
        };
        (fresh, changes)
    }

    /// From when on a key counts that is active at once: the last tick of G where the group's
    /// period is a whole number of the root's, so that a KEYDIST under one G never carries a
    /// generation from before that G (FORMATS section 3.1).
    pub(in crate::server) fn tick_before(
        &self,
        cadence: Option<Cadence>,
        t: UnixSeconds,
    ) -> UnixSeconds {
        let ticks = self.fleet.key_set.fleet_schedule;
        let in_step = |cadence: Cadence| cadence.period().is_multiple_of(ticks.period.max(1));
        if cadence.is_some_and(in_step) && t >= ticks.from {
            ticks.last_change(t)
        } else {
            t
        }
    }

    fn statement_of(&self, epoch: KeyEpoch, schedule: Schedule) -> Statement {
        Statement {
            stated_at: self.at.wall,
            epoch,
            schedule,
        }
    }
}

/// A fresh KS (FORMATS section 8.1).
pub(in crate::server) fn search_key(rng: &mut dyn Random) -> Secret<SEARCH_KEY_LEN> {
    Secret::init_with(|into| rng.fill(into))
}

/// What came of a change, for the store.
pub(super) fn note_change(report: Box<ChangeReport>) -> Batch {
    Batch {
        changes: vec![Change::Ended(report)],
        audit: None,
        journal: None,
    }
}

/// A group's key after a renewal.
pub(super) struct Renewed {
    key: MasterKey,
    schedule: Schedule,
    from: UnixSeconds,
}

impl Renewed {
    /// The changes that make it so: the statement is noted where it is no continuation.
    pub(super) fn restate(self, group: &GroupRecord) -> Vec<Change> {
        let statement = Statement {
            stated_at: self.from,
            epoch: self.key.epoch(),
            schedule: self.schedule,
        };
        let mut changes = vec![Change::Master {
            key: self.key,
            schedule: self.schedule,
        }];
        if !continues(&group.schedule, &self.schedule) {
            changes.push(Change::Stated {
                group: group.number,
                statement,
            });
        }
        changes
    }
}

/// Whether `next` says no more than `held` said of that time.
fn continues(held: &Schedule, next: &Schedule) -> bool {
    let (Some(cadence), true) = (held.cadence, held.cadence == next.cadence) else {
        return false;
    };
    let elapsed = next.activate_at.since(held.activate_at);
    next.activate_at >= held.activate_at
        && elapsed.is_multiple_of(cadence.period())
        && held.generation_at(next.activate_at) == next.generation
}

/// Seconds from a renewal by command to its activation.
pub const ACTIVATION_LEAD: u32 = 2;
/// Seconds from a fresh epoch to its activation where members fetch it and confirm: all that hear
/// no START move then.
pub const CHANGE_LEAD: u32 = 8;
/// Seconds of grace at the least: who takes a START keeps what others, who hear none, send with until the
/// lead is over; and some for clocks and the way.
pub const GRACE_MIN: u32 = CHANGE_LEAD + ACTIVATION_LEAD;
