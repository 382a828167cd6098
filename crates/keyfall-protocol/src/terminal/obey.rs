//! What signed commands do (FORMATS sections 2.1 to 2.4). Each rule has a row in docs/RULES.md.

use crate::command::{
    Body, Command, Floor, KeyDist, ListedKey, Renew, RenewEntry, SignerClass, Target, Time,
    Unverified, Verified,
};
use crate::ids::{Generation, GroupNumber, KeyEpoch, KeyIdKind, UnixSeconds};
use crate::schedule::generation_bound;
use crate::stats::DropReason;
use crate::terminal::group::Group;
use crate::terminal::{Cause, Event, Terminal};

impl Terminal {
    /// Looks first, verifies, then acts; whatever is wrong changes nothing (INVARIANT 4).
    pub(super) fn on_frame(&mut self, octets: &[u8]) -> Result<(), DropReason> {
        let frame = Unverified::decode(octets).map_err(|_| DropReason::Malformed)?;
        self.look(frame.command())?;
        let (verified, signer) = self.authorise(frame)?;
        let command = verified.command();
        self.step_fleet(command.fleet_generation);
        match &command.body {
            Body::Time(time) => self.on_time(time, &signer),
            Body::Renew(renew) => self.on_renew(renew, command, &signer),
            Body::KeyDist(key_dist) => self.on_key_dist(key_dist, command, &signer),
            Body::Order(_) | Body::Exclude(_) => Err(DropReason::NotAddressed),
            Body::KeySet(_) => Err(DropReason::KeySetNotNewer),
        }
    }

    /// What costs no cryptography: repeats and what is for others end here (KR-010, KR-011).
    fn look(&self, command: &Command) -> Result<(), DropReason> {
        let held = self.wrap.newest().generation();
        let g = command.fleet_generation;
        match &command.body {
            Body::KeyDist(key_dist) if g <= held => {
                let handle = self
                    .handles
                    .iter()
                    .find(|&&(generation, _)| generation == g);
                let (_, handle) = handle.ok_or(DropReason::NotAddressed)?;
                let named = key_dist.recipients().iter().any(|r| r.handle == *handle);
                if named {
                    Ok(())
                } else {
                    Err(DropReason::NotAddressed)
                }
            }
            Body::Renew(renew) if g <= held => {
                let mut worst = DropReason::NotNewer;
                for entry in &renew.entries {
                    match self.renew_target(entry, command.issued_at) {
                        // A newer epoch is worth a verification: it stops sending.
                        Ok(_) | Err(DropReason::NewerEpoch) => return Ok(()),
                        Err(reason) => worst = reason,
                    }
                }
                Err(worst)
            }
            Body::KeySet(key_set) if key_set.version <= self.key_set.version => {
                Err(DropReason::KeySetNotNewer)
            }
            Body::Time(time) if time.seconds < self.time.mark() => Err(DropReason::TimeBackwards),
            Body::Time(_)
            | Body::Renew(_)
            | Body::KeyDist(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::KeySet(_) => Ok(()),
        }
    }

    /// Signer known, of the right class, for that group, in its time; G within its bound; not past
    /// the end; then the signature (KR-001 to KR-007).
    fn authorise(&mut self, frame: Unverified<'_>) -> Result<(Verified, ListedKey), DropReason> {
        let command = frame.command();
        let Some(class) = command.body.signer_class() else {
            // A newer KEYSET comes with the root's next signature; none is taken from others.
            return Err(DropReason::KeySetNotNewer);
        };
        let signer = self
            .key_set
            .key(frame.signer())
            .ok_or(DropReason::UnknownSigner)?
            .clone();
        if signer.class != class || signer.class == SignerClass::Kem {
            return Err(DropReason::WrongClass);
        }
        let signed_in_time = (signer.not_before..=signer.expires).contains(&command.issued_at);
        if !signed_in_time || self.time().is_some_and(|now| now > signer.expires) {
            return Err(DropReason::SignerExpired);
        }
        if self.time().is_some_and(|now| now > command.not_after) {
            return Err(DropReason::PastNotAfter);
        }
        if command.fleet_generation > self.key_set.fleet_schedule.bound(signer.expires) {
            return Err(DropReason::AboveBound);
        }
        if let Target::Group(group) = command.target {
            allowed(&signer, group)?;
        }
        if !self.verifications.take(self.now, 0) {
            return Err(DropReason::VerifyBudget);
        }
        let verified = frame
            .verify(&signer.public)
            .ok_or(DropReason::BadSignature)?;
        if signer.class == SignerClass::Keys {
            self.time.corroborate(verified.command().issued_at);
        }
        Ok((verified, signer))
    }

    /// G is the server's statement in every verified command, and the root's schedule says
    /// it too.
    pub(super) fn step_fleet(&mut self, g: Generation) {
        let from = self.wrap.newest().generation();
        if g > from {
            let until = self.keep_end();
            self.wrap.renew_to(g, until);
            self.list_handles();
            self.dirty = true;
            self.events.push(Event::FleetRenewed { from, to: g });
        }
    }

    fn on_time(&mut self, time: &Time, signer: &ListedKey) -> Result<(), DropReason> {
        if !(signer.not_before..=signer.expires).contains(&time.seconds) {
            return Err(DropReason::TimeTooFar);
        }
        let first = self.time().is_none();
        // SECURITY: the newest beacon says nothing new of the time. Taken again and again it would
        // hold the clock within its second (W-10).
        if first || time.seconds != self.time.mark() {
            self.time.accept(self.now, time.seconds)?;
        }
        // The stored mark follows, so that a power cut does not turn time back by much.
        self.dirty |= self.time.mark().since(self.stored_mark) >= MARK_STEP;
        if first {
            self.hold_what_is_not_active();
            self.events.push(Event::TimeHeard {
                seconds: time.seconds,
            });
        }
        for floor in &time.floors {
            self.on_floor(floor, signer);
        }
        Ok(())
    }

    /// After a power cut the newest key is held, active or not; only now the time tells which.
    fn hold_what_is_not_active(&mut self) {
        let waits: Vec<_> = self
            .groups
            .iter()
            .filter(|(_, group)| group.schedule.generation == group.newest())
            .filter_map(|(&number, group)| {
                let at = self.activation(group.schedule.activate_at, group.issued_at)?;
                Some((number, at))
            })
            .collect();
        for (number, at) in waits {
            if let Some(group) = self.groups.get_mut(&number) {
                group.hold_until(at);
            }
        }
    }

    /// A floor makes a terminal step or stop sending; it discards nothing.
    fn on_floor(&mut self, floor: &Floor, signer: &ListedKey) {
        let Some(KeyIdKind::Master(number)) = floor.kid.kind() else {
            return;
        };
        if allowed(signer, number).is_err()
            || !within_bound(floor.epoch, floor.generation, signer.expires)
        {
            self.drops.count(self.now, DropReason::AboveBound);
            return;
        }
        let until = self.grace_end();
        let Some(group) = self.groups.get_mut(&number) else {
            return;
        };
        if floor.epoch > group.epoch() {
            self.dirty |= announce(group, floor.epoch);
            return;
        }
        if floor.epoch == group.epoch() && floor.generation > group.signed {
            // The server's word raises the ceiling, also where the terminal is there already.
            group.signed = floor.generation;
            self.dirty = true;
        }
        if floor.epoch == group.epoch() && floor.generation > group.newest() {
            let from = group.newest();
            let next = group.ring.newest().duplicate().renew_to(floor.generation);
            group.install(next, None, until);
            self.dirty = true;
            let (to, cause) = (floor.generation, Cause::Command);
            self.events.push(Event::Renewed {
                group: number,
                from,
                to,
                cause,
            });
        }
    }

    fn on_renew(
        &mut self,
        renew: &Renew,
        command: &Command,
        signer: &ListedKey,
    ) -> Result<(), DropReason> {
        let mut outcome = Err(DropReason::NotNewer);
        for entry in &renew.entries {
            match self.renew_one(entry, command, signer) {
                Ok(()) => outcome = Ok(()),
                Err(reason) if outcome.is_err() => outcome = Err(reason),
                Err(reason) => self.drops.count(self.now, reason),
            }
        }
        outcome
    }

    /// Which group an entry would change; why none.
    fn renew_target(
        &self,
        entry: &RenewEntry,
        issued_at: UnixSeconds,
    ) -> Result<GroupNumber, DropReason> {
        let number = match entry.kid.kind() {
            Some(KeyIdKind::Master(number)) => number,
            // Key id 0 says what G in the same command says.
            Some(KeyIdKind::AllRankOne) => return Err(DropReason::NotNewer),
            Some(KeyIdKind::Obey(_) | KeyIdKind::Wrap(_) | KeyIdKind::Cover(_)) | None => {
                return Err(DropReason::NotHeld);
            }
        };
        let group = self.groups.get(&number).ok_or(DropReason::NotHeld)?;
        if entry.epoch > group.epoch() {
            return Err(DropReason::NewerEpoch);
        }
        let newer = entry.epoch == group.epoch()
            && (entry.schedule.generation > group.newest()
                || group.is_newer(&entry.schedule, issued_at));
        if newer {
            Ok(number)
        } else {
            Err(DropReason::NotNewer)
        }
    }

    fn renew_one(
        &mut self,
        entry: &RenewEntry,
        command: &Command,
        signer: &ListedKey,
    ) -> Result<(), DropReason> {
        let target = self.renew_target(entry, command.issued_at);
        if let Some(KeyIdKind::Master(number)) = entry.kid.kind() {
            allowed(signer, number)?;
            if !within_bound(entry.epoch, entry.schedule.generation, signer.expires) {
                return Err(DropReason::AboveBound);
            }
            if target == Err(DropReason::NewerEpoch)
                && let Some(group) = self.groups.get_mut(&number)
            {
                self.dirty |= announce(group, entry.epoch);
            }
        }
        let number = target?;
        let activation = self.activation(entry.schedule.activate_at, command.issued_at);
        let until = self.grace_end();
        let longest_lease = self.key_set.limits.longest_lease;
        let group = self.groups.get_mut(&number).ok_or(DropReason::NotHeld)?;
        let to = entry.schedule.generation;
        if to > group.newest() {
            let from = group.newest();
            let next = group.ring.newest().duplicate().renew_to(to);
            group.install(next, activation, until);
            self.dirty = true;
            self.events.push(Event::Renewed {
                group: number,
                from,
                to,
                cause: Cause::Command,
            });
        }
        let changed = group.take_statement(
            entry.schedule,
            entry.lease_end,
            command.issued_at,
            longest_lease,
        );
        self.dirty |= changed;
        Ok(())
    }

    fn on_key_dist(
        &mut self,
        key_dist: &KeyDist,
        command: &Command,
        signer: &ListedKey,
    ) -> Result<(), DropReason> {
        let g = command.fleet_generation;
        let key = self
            .wrap
            .at(KeyEpoch::RANK_ONE, g)
            .ok_or(DropReason::NotAddressed)?;
        let handle = key.handle();
        if !key_dist
            .recipients()
            .iter()
            .any(|recipient| recipient.handle == handle)
        {
            return Err(DropReason::NotAddressed);
        }
        let contents = key_dist.open(key).ok_or(DropReason::DoesNotOpen)?;
        let number = contents.key.group();
        allowed(signer, number)?;
        let (epoch, generation) = (contents.key.epoch(), contents.key.generation());
        if !within_bound(epoch, generation, signer.expires) {
            return Err(DropReason::AboveBound);
        }
        let longest_lease = self.key_set.limits.longest_lease;
        let lease_end = contents
            .lease_end
            .map(|end| end.min(command.issued_at.plus(longest_lease)));
        let schedule = contents.schedule();
        let activation = self.activation(contents.activate_at, command.issued_at);
        let until = self.grace_end();
        let event = Event::KeyReceived {
            group: number,
            epoch,
            generation,
        };
        match self.groups.get_mut(&number) {
            None => {
                let issued_at = command.issued_at;
                let group = Group::new(contents.key, schedule, lease_end, issued_at, activation);
                self.groups.insert(number, group);
                self.events.push(event);
            }
            Some(group) if epoch > group.epoch() => {
                group.install(contents.key, activation, until);
                group.schedule = schedule;
                group.lease_end = lease_end;
                group.issued_at = command.issued_at;
                group.signed = generation;
                group.announced = group.announced.filter(|&announced| announced > epoch);
                self.events.push(event);
            }
            Some(group) if epoch == group.epoch() => {
                let newer = generation > group.newest();
                if newer {
                    group.install(contents.key, activation, until);
                    self.events.push(event);
                }
                let changed =
                    group.take_statement(schedule, lease_end, command.issued_at, longest_lease);
                if !newer && !changed {
                    return Err(DropReason::NotNewer);
                }
            }
            Some(_) => return Err(DropReason::NotNewer),
        }
        self.dirty = true;
        Ok(())
    }
}

/// KR-006: a signing key speaks for its groups only.
fn allowed(signer: &ListedKey, group: GroupNumber) -> Result<(), DropReason> {
    if signer.groups.is_empty() || signer.groups.contains(&group) {
        Ok(())
    } else {
        Err(DropReason::GroupNotAllowed)
    }
}

/// KR-008: epochs at most seconds since 2026-01-01 until exp, generations within their bound.
fn within_bound(epoch: KeyEpoch, generation: Generation, expires: UnixSeconds) -> bool {
    epoch.birth() <= expires && generation <= generation_bound(epoch, expires)
}

/// Sending in the group stops until the KEYDIST of the newer epoch comes. True where that is new.
fn announce(group: &mut Group, epoch: KeyEpoch) -> bool {
    let is_new = group.announced.is_none_or(|held| epoch > held);
    if is_new {
        group.announced = Some(epoch);
    }
    is_new
}

/// Seconds that the time heard may run ahead of the stored mark.
const MARK_STEP: u32 = 600;
