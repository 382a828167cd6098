//! RENEW: where keys stand.

use super::time::announce;
use super::{Authority, allowed, within_bound};
use crate::command::{Command, Renew, RenewEntry};
use crate::ids::{GroupNumber, KeyEpoch, KeyIdKind, UnixSeconds};
use crate::schedule::Schedule;
use crate::stats::DropReason;
use crate::terminal::compartment::{OFFSET_MAX, RenewStatement};
use crate::terminal::group::{Announced, Lease, Statement};
use crate::terminal::{Cause, Event, Terminal};

impl Terminal {
    /// Repeats and what is about others end before any signature is checked.
    pub(super) fn look_at_renewal(
        &self,
        renew: &Renew,
        command: &Command,
    ) -> Result<(), DropReason> {
        let mut worst = DropReason::NotNewer;
        for entry in &renew.entries {
            let outcome = match self.offset_in(entry, command) {
                Some(offset) => self.look_at_offset(offset),
                None => renewed_group(entry).and_then(|number| {
                    let schedule = &entry.schedule;
                    self.judge_renewal(number, entry.epoch, schedule, command.issued_at)
                }),
            };
            match outcome {
                // A newer epoch is worth a verification: it stops sending.
                Ok(()) | Err(DropReason::NewerEpoch) => return Ok(()),
                Err(reason) => worst = reason,
            }
        }
        Err(worst)
    }

    /// Of the entries those that may be applied; the others are counted.
    pub(super) fn on_renew_command(
        &mut self,
        renew: &Renew,
        command: &Command,
        authority: &Authority,
    ) -> Result<(), DropReason> {
        let mut outcome = Err(DropReason::NotNewer);
        for entry in &renew.entries {
            let one = match self.offset_in(entry, command) {
                Some(offset) => self.on_offset(offset),
                None => self.on_entry(entry, command.issued_at, authority),
            };
            match one {
                Ok(()) => outcome = Ok(()),
                Err(reason) if outcome.is_err() => outcome = Err(reason),
                Err(reason) => self.drops.count(self.now, reason),
            }
        }
        outcome
    }

    fn on_entry(
        &mut self,
        entry: &RenewEntry,
        issued_at: UnixSeconds,
        authority: &Authority,
    ) -> Result<(), DropReason> {
        self.within_authority(entry, authority)?;
        let group = renewed_group(entry)?;
        let statement = RenewStatement {
            epoch: entry.epoch,
            schedule: entry.schedule,
            lease: self.lease(entry.lease_end, issued_at),
            issued_at,
            by: authority.name,
        };
        if self.user.is_some() {
            self.renew_one(group, &statement)
        } else {
            self.note_renewal(group, statement)
        }
    }

    fn within_authority(
        &mut self,
        entry: &RenewEntry,
        authority: &Authority,
    ) -> Result<(), DropReason> {
        let Some(KeyIdKind::Master(number)) = entry.kid.kind() else {
            return Ok(());
        };
        allowed(&authority.signer, number)?;
        let expires = authority.signer.expires;
        if !within_bound(entry.epoch, entry.schedule.generation, expires) {
            return Err(DropReason::AboveBound);
        }
        let groups = self.user.as_mut().map(|user| &mut user.groups);
        if let Some(group) = groups.and_then(|groups| groups.get_mut(&number))
            && entry.epoch > group.epoch()
        {
            self.dirty |= announce(&mut group.announced, entry.epoch, authority);
        }
        Ok(())
    }

    /// Whether a statement about a group's key would change anything; why not.
    fn judge_renewal(
        &self,
        number: GroupNumber,
        epoch: KeyEpoch,
        schedule: &Schedule,
        issued_at: UnixSeconds,
    ) -> Result<(), DropReason> {
        let group = self.group(number).ok_or(DropReason::NotHeld)?;
        if epoch > group.epoch() {
            return Err(DropReason::NewerEpoch);
        }
        let supersedes = self.supersedes(group.stated_by, issued_at);
        let newer = epoch == group.epoch()
            && (schedule.generation > group.newest()
                || group.is_newer(schedule, issued_at, supersedes));
        if newer {
            Ok(())
        } else {
            Err(DropReason::NotNewer)
        }
    }

    /// Its signer was seen to be allowed to say so, now or when it was noted.
    pub(in crate::terminal) fn renew_one(
        &mut self,
        number: GroupNumber,
        stated: &RenewStatement,
    ) -> Result<(), DropReason> {
        let (schedule, issued_at) = (stated.schedule, stated.issued_at);
        self.judge_renewal(number, stated.epoch, &schedule, issued_at)?;
        let activation = self.activation(schedule.activate_at, issued_at);
        let until = self.grace_end();
        let stated_by = self.group(number).ok_or(DropReason::NotHeld)?.stated_by;
        let supersedes = self.supersedes(stated_by, issued_at);
        let group = self.group_mut(number).ok_or(DropReason::NotHeld)?;
        let to = schedule.generation;
        let mut renewed = None;
        if to > group.newest() {
            let from = group.newest();
            let next = group.ring.newest().duplicate().renew_to(to);
            group.install(next, activation, until);
            renewed = Some(Event::Renewed {
                group: number,
                from,
                to,
                cause: Cause::Command,
            });
        }
        let changed = group.take_statement(Statement {
            schedule,
            lease: stated.lease,
            issued_at,
            by: stated.by,
            supersedes,
        });
        self.dirty |= changed || renewed.is_some();
        self.events.extend(renewed);
        self.extend_last_lease(stated.lease);
        Ok(())
    }

    /// A locked terminal notes what is said of the groups it holds, to carry it out at unlock.
    fn note_renewal(
        &mut self,
        number: GroupNumber,
        stated: RenewStatement,
    ) -> Result<(), DropReason> {
        let &held = self.held.get(&number).ok_or(DropReason::NotHeld)?;
        let new = if stated.epoch > held {
            let announced = Announced {
                epoch: stated.epoch,
                by: stated.by,
                excluded_at: None,
            };
            self.notes.epoch(number, announced)
        } else {
            let (key_set, issued_at) = (&self.key_set, stated.issued_at);
            let supersedes = |held| key_set.key(held).is_none() && issued_at >= key_set.issued_at;
            stated.epoch == held && self.notes.renewal(number, stated, supersedes)
        };
        if !new {
            return Err(DropReason::NotNewer);
        }
        if stated.epoch == held {
            self.extend_last_lease(stated.lease);
        }
        self.dirty = true;
        Ok(())
    }

    /// The lease that a statement gives, by the root's limit.
    pub(super) fn lease(&self, end: Option<UnixSeconds>, issued_at: UnixSeconds) -> Option<Lease> {
        let longest = self.key_set.limits.longest_lease;
        let powered = self.powered.charged();
        end.map(|end| Lease::stated(end, issued_at, longest, powered))
    }

    pub(super) fn extend_last_lease(&mut self, lease: Option<Lease>) {
        let later = lease.map_or(self.last_lease, |lease| self.last_lease.or_later(lease));
        self.dirty |= later != self.last_lease;
        self.last_lease = later;
    }

    /// The offset that an entry states for this terminal's own wrap key: generation − G.
    fn offset_in(&self, entry: &RenewEntry, command: &Command) -> Option<u32> {
        let own = entry.kid == self.identity.number.wrap_key_id();
        let generation = entry.schedule.generation;
        own.then(|| generation.steps_from(command.fleet_generation))
    }

    fn look_at_offset(&self, offset: u32) -> Result<(), DropReason> {
        match &self.user {
            Some(user) if offset <= user.offset => Err(DropReason::NotNewer),
            None if self.notes.offset >= Some(offset) => Err(DropReason::NotNewer),
            Some(_) | None if offset > OFFSET_MAX => Err(DropReason::AboveBound),
            Some(_) | None => Ok(()),
        }
    }

    fn on_offset(&mut self, offset: u32) -> Result<(), DropReason> {
        self.look_at_offset(offset)?;
        if self.user.is_none() {
            self.notes.offset = Some(offset);
            self.dirty = true;
        } else {
            self.take_offset(offset);
        }
        Ok(())
    }

    /// The own wrap key goes ahead of the fleet's; what is not further or too far changes nothing.
    pub(in crate::terminal) fn take_offset(&mut self, offset: u32) {
        let Some(user) = self.user.as_mut() else {
            return;
        };
        if offset <= user.offset || offset > OFFSET_MAX {
            return;
        }
        let from = std::mem::replace(&mut user.offset, offset);
        self.events.push(Event::OffsetRenewed { from, to: offset });
        self.dirty = true;
        self.step_fleet(self.g);
    }
}

/// Whose key an entry is about; why none's that is renewed one by one.
fn renewed_group(entry: &RenewEntry) -> Result<GroupNumber, DropReason> {
    match entry.kid.kind() {
        Some(KeyIdKind::Master(number)) => Ok(number),
        // Key id 0 says what G in the same command says.
        Some(KeyIdKind::AllRankOne) => Err(DropReason::NotNewer),
        Some(KeyIdKind::Obey(_) | KeyIdKind::Wrap(_) | KeyIdKind::Cover(_)) | None => {
            Err(DropReason::NotHeld)
        }
    }
}
