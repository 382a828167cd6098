//! What operators and the schedule order, judged before anything changes.

use std::collections::BTreeSet;

use thiserror::Error;
use zeroize::Zeroizing;

use crate::enrolment::{EnrolmentCode, EnrolmentPackage, Identity};
use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use crate::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use crate::rng::Random;
use crate::schedule::{Cadence, Schedule};
use crate::server::{
    AuditEntry, Batch, By, Change, GroupRecord, JournalEntry, Server, TerminalRecord,
};

/// What may be ordered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// Enrols a terminal and seals its package.
    AddTerminal {
        name: String,
        sealing: PackageSealing,
    },
    /// A group with a fresh epoch, distributed to its members.
    CreateGroup {
        name: String,
        members: Vec<TerminalNumber>,
        cadence: Option<Cadence>,
    },
    /// One renewal, so that the past stays closed, then a KEYDIST to the newcomer.
    AddMember {
        group: GroupNumber,
        terminal: TerminalNumber,
    },
    /// One generation further, by command.
    RenewGroup { group: GroupNumber },
    /// G one further: all wrap keys of the fleet.
    RenewDevices,
    /// The schedule says so: the group to where it should be by now.
    ScheduledGroup { group: GroupNumber },
    /// The root's schedule says so: G to where it should be by now.
    ScheduledDevices,
}

/// To whom a package is sealed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PackageSealing {
    /// The key that `terminal enrol --request` printed.
    ToRequest([u8; 32]),
    /// A fresh code, shown apart.
    UnderCode,
}

/// What came of an order, for the one who gave it.
#[derive(Debug)]
pub enum Done {
    Nothing,
    Terminal {
        number: TerminalNumber,
        package: Vec<u8>,
        sealed: SealedFor,
        expires: UnixSeconds,
    },
    Group {
        number: GroupNumber,
        epoch: KeyEpoch,
    },
    Member {
        group: GroupNumber,
        generation: Generation,
    },
    Renewed {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
        at: UnixSeconds,
    },
    FleetRenewed {
        generation: Generation,
    },
}

/// How a finished package is sealed.
#[derive(Debug)]
pub enum SealedFor {
    Request,
    /// The code that opens it: to be carried by another way than the package.
    Code(Zeroizing<String>),
}

/// Why an order was refused. Nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    #[error(
        "{0:?} is no name: use 1 to 64 letters, digits, dots, hyphens or underscores, and not digits alone"
    )]
    BadName(String),
    #[error("the name {0} is taken")]
    NameTaken(String),
    #[error("there is no terminal {0}")]
    NoSuchTerminal(String),
    #[error("there is no group {0}")]
    NoSuchGroup(String),
    #[error("a group needs at least one member")]
    NoMembers,
    #[error("terminal {0} is a member already")]
    AlreadyMember(TerminalNumber),
    #[error("every number is used up")]
    NumbersUsedUp,
    #[error(
        "that is not a request key: copy the whole line that `keyfall terminal enrol DIR --request` printed"
    )]
    BadRequestKey,
    #[error("the key was renewed as often as terminals accept until the online keys end")]
    RenewedTooOften,
    #[error("the store could not be written; nothing was changed")]
    NotStored,
}

type Prepared = Result<(Batch, Done), Refusal>;

impl Server {
    /// Judges an order and says what it would change.
    pub(super) fn prepare(&self, order: Order, by: By, rng: &mut dyn Random) -> Prepared {
        match order {
            Order::AddTerminal { name, sealing } => self.add_terminal(&name, &sealing, by, rng),
            Order::CreateGroup {
                name,
                members,
                cadence,
            } => self.create_group(&name, &members, cadence, by, rng),
            Order::AddMember { group, terminal } => self.add_member(group, terminal, by),
            Order::RenewGroup { group } => {
                let record = self.group(group)?;
                let target = record.master.generation().next();
                self.renew_group(record, target, "renew", by)
            }
            Order::ScheduledGroup { group } => {
                let record = self.group(group)?;
                let target = record.schedule.generation_at(self.at.wall);
                self.renew_group(record, target, "renew by validity", by)
            }
            Order::RenewDevices => {
                self.renew_devices(self.fleet.fleet_generation.next(), "renew devices", by)
            }
            Order::ScheduledDevices => {
                let target = self
                    .fleet
                    .key_set
                    .fleet_schedule
                    .generation_at(self.at.wall);
                self.renew_devices(target, "renew devices by validity", by)
            }
        }
    }

    /// Puts the renewals that are due before everything else that waits.
    pub(super) fn schedule_renewals(&mut self) {
        if self.storing.is_some() {
            return;
        }
        let wall = self.at.wall;
        let by = || By {
            actor: "scheduler".to_owned(),
            reason: None,
            ticket: None,
        };
        let groups: Vec<_> = self
            .groups
            .values()
            .filter(|group| group.schedule.generation_at(wall) > group.master.generation())
            .map(|group| Order::ScheduledGroup {
                group: group.number,
            })
            .collect();
        let g = self.fleet.key_set.fleet_schedule.generation_at(wall);
        let devices = (g > self.fleet.fleet_generation).then_some(Order::ScheduledDevices);
        for order in groups.into_iter().chain(devices) {
            if !self.waiting.iter().any(|(_, waiting, _)| *waiting == order) {
                self.waiting.push_front((None, order, by()));
            }
        }
    }

    fn add_terminal(
        &self,
        name: &str,
        sealing: &PackageSealing,
        by: By,
        rng: &mut dyn Random,
    ) -> Prepared {
        check_name(name)?;
        if self.terminal_names.contains_key(name) {
            return Err(Refusal::NameTaken(name.to_owned()));
        }
        let last = self
            .terminals
            .keys()
            .next_back()
            .map_or(0, |number| number.get());
        let number = TerminalNumber::new(last + 1).ok_or(Refusal::NumbersUsedUp)?;
        let obey = ObeyKey::new(number, Secret::init_with(|into| rng.fill(into)));
        let fresh = Secret::init_with(|into| rng.fill(into));
        let wrap = WrapKey::new(number, self.fleet.fleet_generation, fresh);
        let wall = self.at.wall;
        let expires = wall.plus(PACKAGE_LIFE);
        let package = EnrolmentPackage {
            identity: Identity {
                number,
                name: name.to_owned(),
                fleet: self.fleet.name.clone(),
                root: self.fleet.root,
                key_set_frame: self.fleet.key_set_frame.clone(),
                streams: vec![self.fleet.stream],
                carriers: self.fleet.carriers.clone(),
                keep_time: self.fleet.keep_time,
            },
            obey: obey.duplicate(),
            wrap: wrap.duplicate(),
            issued_at: wall,
            expires,
        };
        let (sealed_package, sealed) = match sealing {
            PackageSealing::ToRequest(request) => {
                let octets = package
                    .seal_to(request, rng)
                    .map_err(|_| Refusal::BadRequestKey)?;
                (octets, SealedFor::Request)
            }
            PackageSealing::UnderCode => {
                let code = EnrolmentCode::random(rng);
                (
                    package.seal_under(&code, rng),
                    SealedFor::Code(code.shown()),
                )
            }
        };
        let record = TerminalRecord {
            number,
            name: name.to_owned(),
            obey,
            wrap,
            added_at: wall,
            package_expires: expires,
        };
        let batch = Batch {
            changes: vec![Change::Terminal(record)],
            audit: Some(self.audit(by, "terminal add", name, format!("terminal {number}"))),
            journal: Some(JournalEntry::Enrolment {
                terminal: number,
                name: name.to_owned(),
            }),
        };
        let done = Done::Terminal {
            number,
            package: sealed_package,
            sealed,
            expires,
        };
        Ok((batch, done))
    }

    fn create_group(
        &self,
        name: &str,
        members: &[TerminalNumber],
        cadence: Option<Cadence>,
        by: By,
        rng: &mut dyn Random,
    ) -> Prepared {
        check_name(name)?;
        if self.group_names.contains_key(name) {
            return Err(Refusal::NameTaken(name.to_owned()));
        }
        if members.is_empty() {
            return Err(Refusal::NoMembers);
        }
        if let Some(stranger) = members
            .iter()
            .find(|member| !self.terminals.contains_key(member))
        {
            return Err(Refusal::NoSuchTerminal(stranger.to_string()));
        }
        let last = self
            .groups
            .keys()
            .next_back()
            .map_or(0, |number| number.get());
        let number = last
            .checked_add(1)
            .and_then(GroupNumber::new)
            .ok_or(Refusal::NumbersUsedUp)?;
        let wall = self.at.wall;
        let epoch = KeyEpoch::fresh(None, wall);
        let fresh = Secret::init_with(|into| rng.fill(into));
        let record = GroupRecord {
            number,
            name: name.to_owned(),
            members: members.iter().copied().collect::<BTreeSet<_>>(),
            master: MasterKey::new(number, epoch, Generation::ZERO, fresh),
            schedule: Schedule {
                generation: Generation::ZERO,
                activate_at: wall,
                cadence,
            },
            lease: self.fleet.key_set.limits.longest_lease,
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

    fn add_member(&self, number: GroupNumber, terminal: TerminalNumber, by: By) -> Prepared {
        let group = self.group(number)?;
        if !self.terminals.contains_key(&terminal) {
            return Err(Refusal::NoSuchTerminal(terminal.to_string()));
        }
        if group.members.contains(&terminal) {
            return Err(Refusal::AlreadyMember(terminal));
        }
        let (renewal, schedule) = self.renewed(group, group.master.generation().next())?;
        let (epoch, generation) = (renewal.epoch(), renewal.generation());
        let outcome = format!("terminal {terminal}, from generation {generation} on");
        let batch = Batch {
            changes: vec![
                Change::Master {
                    key: renewal,
                    schedule,
                },
                Change::Member {
                    group: number,
                    terminal,
                },
            ],
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

    fn renew_group(
        &self,
        group: &GroupRecord,
        target: Generation,
        action: &'static str,
        by: By,
    ) -> Prepared {
        let (key, schedule) = self.renewed(group, target)?;
        let (number, epoch, generation) = (group.number, key.epoch(), key.generation());
        let outcome = format!("generation {generation}");
        let batch = Batch {
            changes: vec![Change::Master { key, schedule }],
            audit: Some(self.audit(by, action, &group.name, outcome)),
            journal: Some(JournalEntry::Renewal {
                group: number,
                epoch,
                generation,
            }),
        };
        let at = schedule.activate_at;
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

    /// The group's key at `target`, and the schedule that states it. By command it is active a
    /// little later, so that everyone holds it before anyone sends with it (INVARIANT 5).
    fn renewed(
        &self,
        group: &GroupRecord,
        target: Generation,
    ) -> Result<(MasterKey, Schedule), Refusal> {
        let held = &group.master;
        let expires = self.signers_expire();
        let spans = expires
            .since(held.epoch().birth())
            .div_ceil(600)
            .saturating_add(1);
        if target <= held.generation() || target.get() > spans.saturating_mul(64) {
            return Err(Refusal::RenewedTooOften);
        }
        let wall = self.at.wall;
        let scheduled = group.schedule.generation_at(wall) == target;
        let activate_at = match group.schedule.cadence {
            // The instant at which the schedule reached this generation.
            Some(cadence) if scheduled => {
                let elapsed = wall.since(group.schedule.activate_at);
                group
                    .schedule
                    .activate_at
                    .plus(elapsed - elapsed % cadence.period())
            }
            Some(_) | None => wall.plus(ACTIVATION_LEAD),
        };
        let key = held.duplicate().renew_to(target);
        let schedule = Schedule {
            generation: target,
            activate_at,
            cadence: group.schedule.cadence,
        };
        Ok((key, schedule))
    }

    fn renew_devices(&self, target: Generation, action: &'static str, by: By) -> Prepared {
        let bound = self
            .fleet
            .key_set
            .fleet_schedule
            .bound(self.signers_expire());
        if target <= self.fleet.fleet_generation || target > bound {
            return Err(Refusal::RenewedTooOften);
        }
        let wraps = self
            .terminals
            .values()
            .map(|terminal| terminal.wrap.duplicate().renew_to(target))
            .collect();
        let batch = Batch {
            changes: vec![Change::Fleet {
                generation: target,
                wraps,
            }],
            audit: Some(self.audit(by, action, "all", format!("G {target}"))),
            journal: Some(JournalEntry::FleetGeneration { generation: target }),
        };
        Ok((batch, Done::FleetRenewed { generation: target }))
    }

    fn group(&self, number: GroupNumber) -> Result<&GroupRecord, Refusal> {
        self.groups
            .get(&number)
            .ok_or_else(|| Refusal::NoSuchGroup(number.to_string()))
    }

    fn audit(&self, by: By, action: &'static str, subject: &str, outcome: String) -> AuditEntry {
        AuditEntry {
            at: self.at.wall,
            actor: by.actor,
            action,
            subject: subject.to_owned(),
            outcome,
            reason: by.reason,
            ticket: by.ticket,
        }
    }
}

/// Names are words for people and parts of file names.
fn check_name(name: &str) -> Result<(), Refusal> {
    let good = (1..=64).contains(&name.len())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        && !name.starts_with(['.', '-'])
        && !name.chars().all(|c| c.is_ascii_digit());
    if good {
        Ok(())
    } else {
        Err(Refusal::BadName(name.chars().take(80).collect()))
    }
}

/// Seconds from a renewal by command to its activation.
pub const ACTIVATION_LEAD: u32 = 2;
/// A package expires after seven days.
const PACKAGE_LIFE: u32 = 7 * 86_400;
