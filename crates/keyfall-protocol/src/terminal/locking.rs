//! LOCK, UNLOCK, and the user's own lock (FORMATS section 9; REQUIREMENTS R-038, T-04).

use crate::error::ApiMisuse;
use crate::ids::{KeyEpoch, KeyName, UnixSeconds};
use crate::stats::DropReason;
use crate::terminal::group::Announced;
use crate::terminal::{Event, Output, Terminal};

/// What the server said last of locking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Lock {
    pub(super) version: u32,
    pub(super) locked: bool,
    /// Who signed it; `None`: nobody has.
    pub(super) by: Option<KeyName>,
}

impl Terminal {
    /// Whether PIN or passphrase may be asked for: not after a LOCK, until a newer UNLOCK.
    #[must_use]
    pub fn may_unlock(&self) -> bool {
        self.obey.is_some() && !self.lock.locked
    }

    /// Whether the user compartment is closed.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.user.is_none()
    }

    /// A verified LOCK or UNLOCK of `issued_at`; versions are bounded like epochs.
    pub(super) fn on_lock(
        &mut self,
        locked: bool,
        version: u32,
        issued_at: UnixSeconds,
        (by, expires): (KeyName, UnixSeconds),
    ) -> Result<(), DropReason> {
        if KeyEpoch::new(version).birth() > expires {
            return Err(DropReason::AboveBound);
        }
        let held_by = self.lock.by;
        let superseded = held_by.is_some_and(|held| self.supersedes(held, issued_at));
        if version <= self.lock.version && !superseded {
            return Err(DropReason::NotNewer);
        }
        self.lock = Lock {
            version,
            locked,
            by: Some(by),
        };
        self.dirty = true;
        if locked {
            self.close(true);
        } else {
            self.events.push(Event::UnlockAllowed);
        }
        Ok(())
    }

    /// Drops the user compartment: what was not stored is as after a power cut, which loses no key
    /// that was told of (INVARIANT 2).
    pub(super) fn close(&mut self, by_server: bool) {
        if self.user.take().is_none() {
            return;
        }
        if let Some((_, notes)) = self.carried_out.take() {
            // What they did was not durable yet, and went with the compartment.
            self.notes = notes;
            self.dirty = true;
        }
        self.events.clear();
        self.after_store.clear();
        self.paths.close();
        let event = Event::Locked { by_server };
        self.outputs.push_back(Output::Event(event));
    }

    /// Takes the user compartment in, and carries out what was noted meanwhile.
    ///
    /// # Errors
    /// [`ApiMisuse::MayNotUnlock`], [`ApiMisuse::NotTheUserCompartment`]; nothing has changed then.
    pub(super) fn open(&mut self, snapshot: &[u8]) -> Result<(), ApiMisuse> {
        if !self.may_unlock() || self.user.is_some() {
            return Err(ApiMisuse::MayNotUnlock);
        }
        self.read_user(snapshot)
            .map_err(|_| ApiMisuse::NotTheUserCompartment)?;
        self.carry_out_notes();
        self.hold_what_is_not_active();
        self.dirty = true;
        self.events.push(Event::Unlocked);
        Ok(())
    }

    /// After the user compartment has come back, from the disk at power-on or by unlocking.
    pub(super) fn carry_out_notes(&mut self) {
        let notes = std::mem::take(&mut self.notes);
        self.carried_out = Some((None, notes.clone()));
        if let Some(offset) = notes.offset {
            self.take_offset(offset);
        }
        self.step_fleet(self.g);
        // An exclusion is heard before the renewal of what comes after it.
        for (group, announced) in notes.epochs {
            self.leave_epoch(group, announced);
        }
        for (&group, noted) in &notes.renewals {
            match self.renew_one(group, noted) {
                // The compartment is older than what was known of it when this was noted.
                Err(DropReason::NewerEpoch) => {
                    let announced = Announced {
                        epoch: noted.epoch,
                        by: noted.by,
                        excluded_at: None,
                    };
                    self.leave_epoch(group, announced);
                }
                Err(reason) => self.drops.count(self.now, reason),
                Ok(()) => {}
            }
        }
        let stolen = self.key_set.stolen.clone();
        self.distrust(&stolen);
    }
}
