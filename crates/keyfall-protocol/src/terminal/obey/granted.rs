//! KEY-DIS: the difference to what this terminal holds, asked for by itself (FORMATS section 8). Its
//! content is judged as a KEYDIST's is.

use super::{Authority, allowed, within_bound};
use crate::command::{ListedKey, SignerClass};
use crate::ids::{GroupNumber, KeyName};
use crate::sharing::pair::Grant;
use crate::stats::DropReason;
use crate::terminal::{Event, Output, Terminal};

impl Terminal {
    /// Who signed an answer: listed, of the keys class, in its time; checking costs a token.
    pub(in crate::terminal) fn signer_of_answer(
        &mut self,
        name: KeyName,
    ) -> Result<ListedKey, DropReason> {
        let signer = self.key_set.key(name).ok_or(DropReason::UnknownSigner)?;
        if signer.class != SignerClass::Keys {
            return Err(DropReason::WrongClass);
        }
        if self.is_past(signer.expires) {
            return Err(DropReason::SignerExpired);
        }
        let signer = signer.clone();
        if self.verifications.take(self.now, 0) {
            Ok(signer)
        } else {
            Err(DropReason::VerifyBudget)
        }
    }

    /// What is wrong with the whole of it.
    pub(in crate::terminal) fn judge_answer(
        &self,
        grant: &Grant,
        signer: &ListedKey,
    ) -> Result<(), DropReason> {
        if !(signer.not_before..=signer.expires).contains(&grant.time) {
            return Err(DropReason::SignerExpired);
        }
        if grant.g > self.key_set.fleet_schedule.bound(signer.expires) {
            return Err(DropReason::AboveBound);
        }
        Ok(())
    }

    /// Takes every key that is newer and within its signer's bounds.
    ///
    /// # Errors
    /// [`DropReason`] of the first that was beyond; the others are taken all the same.
    pub(in crate::terminal) fn take_grant(
        &mut self,
        grant: Grant,
        signer: &ListedKey,
    ) -> Result<(), DropReason> {
        self.time.corroborate(grant.time);
        self.step_fleet(grant.g);
        let authority = Authority {
            signer: signer.clone(),
            name: signer.public.name(),
            co_signed: false,
        };
        let mut taken = Ok(());
        for contents in grant.keys {
            let (group, epoch) = (contents.key.group(), contents.key.epoch());
            let generation = contents.key.generation();
            let judged = allowed(signer, group).and_then(|()| {
                let fits = within_bound(epoch, generation, signer.expires);
                fits.then_some(()).ok_or(DropReason::AboveBound)
            });
            let lease = self.lease(contents.lease_end, grant.time);
            let activation = self.activation(contents.activate_at, grant.time);
            let result = judged
                .and_then(|()| self.take_key(contents, lease, activation, grant.time, &authority));
            match result {
                Ok(()) => {
                    self.extend_last_lease(lease);
                    self.dirty = true;
                }
                // It came by the carrier meanwhile.
                Err(DropReason::NotNewer) => {}
                Err(reason) => {
                    self.drops.count(self.now, reason);
                    taken = taken.and(Err(reason));
                }
            }
        }
        for group in grant.gone {
            if allowed(signer, group).is_ok() {
                self.leave(group);
            }
        }
        taken
    }

    /// The server says that this terminal is no member: the key goes.
    fn leave(&mut self, number: GroupNumber) {
        let Some(user) = self.user.as_mut() else {
            return;
        };
        let Some(group) = user.groups.remove(&number) else {
            return;
        };
        self.dirty = true;
        for key in group.ring.all() {
            let event = Event::Retired {
                group: number,
                epoch: key.epoch(),
                generation: key.generation(),
            };
            self.outputs.push_back(Output::Event(event));
        }
        self.events.push(Event::Removed { group: number });
        self.leave_paths_of(number);
    }
}
