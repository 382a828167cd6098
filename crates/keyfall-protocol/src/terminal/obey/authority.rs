//! KEYSET: the root's word on who may say what. It outlives whatever a stolen key wrote
//! (FORMATS sections 2.1, 2.2; REQUIREMENTS W-17).

use crate::command::{Body, Unverified};
use crate::ids::{KeyName, UnixSeconds};
use crate::stats::DropReason;
use crate::terminal::{Event, Terminal};

impl Terminal {
    /// Judged by the root's signature and the version alone, never by the clock.
    pub(super) fn on_key_set(&mut self, frame: Unverified<'_>) -> Result<(), DropReason> {
        let root = self.identity.root;
        if frame.signer() != root.name() {
            return Err(DropReason::UnknownSigner);
        }
        if !self.verifications.take(self.now, 0) {
            return Err(DropReason::VerifyBudget);
        }
        let octets = frame.octets();
        let verified = frame.verify(&root).ok_or(DropReason::BadSignature)?;
        let Body::KeySet(key_set) = &verified.command().body else {
            return Err(DropReason::WrongClass);
        };
        self.identity.key_set_frame = octets.to_vec();
        self.key_set = key_set.clone();
        self.key_set_at = self.powered.charged();
        self.time.on_key_set(self.now, key_set);
        self.fold_offset();
        let stolen = key_set.stolen.clone();
        let terminals = self.exclusions.void(&stolen);
        if !terminals.is_empty() {
            self.events.push(Event::Readmitted { terminals });
        }
        self.notes.void(&stolen);
        self.distrust(&stolen);
        self.forget_records_by(&stolen);
        self.end_stops_of_dropped_signers();
        self.dirty = true;
        let version = key_set.version;
        self.events.push(Event::KeySetHeard { version });
        Ok(())
    }

    /// G goes to where the root's schedule begins, after a theft beyond all that an old key may have
    /// claimed; the offset that brought a wrap key ahead of the fleet is overtaken with it. A
    /// schedule that is known already overtakes nothing.
    fn fold_offset(&mut self) {
        let first = self.key_set.fleet_schedule.first;
        let overtaken = first.steps_from(self.g);
        match self.user.as_mut() {
            Some(user) => user.offset = user.offset.saturating_sub(overtaken),
            // The compartment that is closed is told when it is read.
            None => self.notes.offset = None,
        }
        self.step_fleet(first);
    }

    /// Groups whose key a stolen key brought send no more until a newer one comes; epochs that one
    /// announced are not waited for.
    pub(in crate::terminal) fn distrust(&mut self, stolen: &[KeyName]) {
        let groups = self
            .user
            .iter_mut()
            .flat_map(|user| user.groups.values_mut());
        for group in groups {
            if stolen.contains(&group.brought_by) && !group.distrusted {
                group.distrusted = true;
                self.dirty = true;
            }
            if group.announced.is_some_and(|it| stolen.contains(&it.by)) {
                group.announced = None;
                self.dirty = true;
            }
        }
    }

    /// What a key said that is listed no more loses to what is said now, even by a lower number.
    pub(in crate::terminal) fn supersedes(&self, held_by: KeyName, issued_at: UnixSeconds) -> bool {
        self.key_set.key(held_by).is_none() && issued_at >= self.key_set.issued_at
    }
}
