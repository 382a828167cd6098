//! KEYDIST: a fresh key, or the present one for somebody who has not got it.

use super::{Authority, allowed, within_bound};
use crate::command::{Command, KeyDist, KeyDistContents};
use crate::ids::{Generation, Tick, UnixSeconds};
use crate::stats::DropReason;
use crate::terminal::compartment::{OFFSET_MAX, Place};
use crate::terminal::group::{Group, Lease, Statement};
use crate::terminal::{Event, Terminal};

impl Terminal {
    /// Under which of its wrap key's generations this terminal is named.
    pub(super) fn place_in(&self, key_dist: &KeyDist, g: Generation) -> Result<Place, DropReason> {
        let user = self.user.as_ref().ok_or(DropReason::Locked)?;
        let named = |place: &Place| {
            let recipients = key_dist.recipients();
            recipients.iter().any(|it| it.handle == place.handle)
        };
        let mut places = user.places(g, self.g);
        places.find(named).ok_or(DropReason::NotAddressed)
    }

    pub(super) fn on_key_dist(
        &mut self,
        key_dist: &KeyDist,
        command: &Command,
        authority: &Authority,
    ) -> Result<(), DropReason> {
        let contents = self.open_key_dist(key_dist, command)?;
        let signer = &authority.signer;
        let (epoch, generation) = (contents.key.epoch(), contents.key.generation());
        allowed(signer, contents.key.group())?;
        if !within_bound(epoch, generation, signer.expires) {
            return Err(DropReason::AboveBound);
        }
        let lease = self.lease(contents.lease_end, command.issued_at);
        let activation = self.activation(contents.activate_at, command.issued_at);
        self.take_key(contents, lease, activation, command.issued_at, authority)?;
        self.extend_last_lease(lease);
        self.dirty = true;
        Ok(())
    }

    /// Opens it; one that was made under a later offset of this terminal's own tells of that.
    fn open_key_dist(
        &mut self,
        key_dist: &KeyDist,
        command: &Command,
    ) -> Result<KeyDistContents, DropReason> {
        let g = command.fleet_generation;
        let place = self.place_in(key_dist, g)?;
        let user = self.user.as_ref().ok_or(DropReason::Locked)?;
        if let Some(key) = user.key_of(place) {
            return key_dist.open(key).ok_or(DropReason::DoesNotOpen);
        }
        let newest = user.wrap.newest();
        if place.generation < newest.generation() {
            return Err(DropReason::NotAddressed);
        }
        let offset = place.generation.steps_from(g);
        if offset > OFFSET_MAX {
            return Err(DropReason::AboveBound);
        }
        let scratch = newest.duplicate().renew_to(place.generation);
        let contents = key_dist.open(&scratch).ok_or(DropReason::DoesNotOpen)?;
        self.take_offset(offset);
        Ok(contents)
    }

    pub(super) fn take_key(
        &mut self,
        contents: KeyDistContents,
        lease: Option<Lease>,
        activation: Option<Tick>,
        issued_at: UnixSeconds,
        authority: &Authority,
    ) -> Result<(), DropReason> {
        let schedule = contents.schedule();
        let (key, search_key) = (contents.key, contents.search_key);
        let (number, epoch, generation) = (key.group(), key.epoch(), key.generation());
        let by = authority.name;
        let event = Event::KeyReceived {
            group: number,
            epoch,
            generation,
        };
        let Some(held) = self.group(number) else {
            let groups = self.user.as_ref().map_or(0, |user| user.groups.len());
            if groups >= GROUPS_HELD_MAX {
                return Err(DropReason::AboveBound);
            }
            let mut group = Group::new(key, schedule, lease, (issued_at, by), activation);
            group.search_key = search_key;
            if let Some(user) = self.user.as_mut() {
                user.groups.insert(number, group);
            }
            self.events.push(event);
            self.leave_paths_of(number);
            return Ok(());
        };
        let outlived = self.supersedes(held.brought_by, issued_at);
        let statement = Statement {
            schedule,
            lease,
            issued_at,
            by,
            supersedes: self.supersedes(held.stated_by, issued_at),
        };
        let fresh = if epoch == held.epoch() {
            // The same number for another key: of two that were given it, the thief's is dropped.
            outlived && held.distrusted
        } else {
            epoch > held.epoch() || outlived
        };
        let announced = held.announced.filter(|announced| {
            announced.epoch > epoch && !self.supersedes(announced.by, issued_at)
        });
        let after_exclusion = held
            .announced
            .is_some_and(|it| it.excluded_at.is_some() && it.epoch <= epoch);
        let (grace, exclude_grace) = (
            self.grace_end(),
            Group::grace_end(self.now, self.key_set.limits.exclude_grace),
        );
        let group = self.group_mut(number).ok_or(DropReason::NotHeld)?;
        if fresh {
            group.install(key, activation, grace);
            if after_exclusion || group.distrusted {
                group.cut_off_older(exclude_grace);
            }
            group.begin_epoch(statement, search_key, announced);
            self.events.push(event);
            self.leave_paths_of(number);
            return Ok(());
        }
        if epoch != group.epoch() {
            if epoch < group.epoch() && group.take_passed(key) {
                self.events.push(event);
                return Ok(());
            }
            return Err(DropReason::NotNewer);
        }
        let newer = generation > group.newest();
        if newer {
            group.install(key, activation, grace);
        }
        let mut changed = group.take_statement(statement);
        if group.search_key.is_none() && search_key.is_some() {
            // The key itself came in a message that has no place for it.
            group.search_key = search_key;
            changed = true;
        }
        if newer {
            self.events.push(event);
        }
        if newer || changed {
            Ok(())
        } else {
            Err(DropReason::NotNewer)
        }
    }
}

/// Groups that one terminal holds at the most, as many as its snapshot takes.
const GROUPS_HELD_MAX: usize = 65_536;
