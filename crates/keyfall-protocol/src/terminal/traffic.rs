//! Which key opens or sends a packet (FORMATS sections 3.2 and 6; REQUIREMENTS,
//! W-04).

use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick};
use crate::keys::{MasterKey, key_tag};
use crate::stats::DropReason;
use crate::terminal::budget::Source;
use crate::terminal::group::{GAP_MAX, Group};
use crate::terminal::{Cause, Event, Terminal};

/// What a packet of an unknown session says about itself.
#[derive(Clone, Copy, Debug)]
pub struct TrafficQuery {
    pub group: GroupNumber,
    /// The first three octets of the MKI.
    pub tag: [u8; 3],
    /// Who it says sent it.
    pub sender: TerminalNumber,
    pub source: Source,
}

/// The key that may open it.
#[derive(Debug)]
pub enum ReceiveKey<'t> {
    /// A held generation.
    Held(&'t MasterKey),
    /// A newer generation, derived in scratch. If the packet opens under it, feed
    /// [`Input::Opened`](crate::terminal::Input::Opened); else drop it, and nothing has happened.
    Trial(Trial),
}

/// A generation that a packet claims and nobody has confirmed.
#[derive(Debug)]
pub struct Trial {
    key: MasterKey,
}

impl Trial {
    pub(super) fn of(key: MasterKey) -> Self {
        Self { key }
    }

    /// The scratch key.
    #[must_use]
    pub fn key(&self) -> &MasterKey {
        &self.key
    }
}

impl Terminal {
    /// The key to send with in `group`: stored, active, inside its lease. `None` where the group
    /// is not held, waits for a newer epoch or is stopped, and before the first beacon since power-on, because
    /// the lease cannot be judged without (FORMATS section 10, KR-021).
    #[must_use]
    pub fn send_key(&self, group: GroupNumber) -> Option<&MasterKey> {
        let group = self.group(group)?;
        let now = self.time()?;
        let powered = self.powered.charged();
        let stopped = self.is_excluded(self.identity.number);
        if stopped || group.lease_is_over(Some(now), powered) {
            None
        } else {
            group.sending_key(self.powered.passed(), self.key_set.limits.exclude_wait)
        }
    }

    /// Why [`Self::send_key`] gives none; told only where it gives none.
    #[must_use]
    pub fn why_not_sending(&self, group: GroupNumber) -> DropReason {
        let powered = self.powered.charged();
        match self.group(group) {
            _ if self.is_locked() => DropReason::Locked,
            _ if self.is_excluded(self.identity.number) => DropReason::Excluded,
            None => DropReason::NotHeld,
            Some(_) if self.time().is_none() => DropReason::NoBeacon,
            Some(group) if group.lease_is_over(self.time(), powered) => DropReason::LeaseOver,
            Some(group) if group.distrusted => DropReason::Distrusted,
            Some(group) if group.is_stopped() => DropReason::Stopped,
            Some(group) if group.announced.is_some() => DropReason::NewerEpoch,
            Some(_) => DropReason::NotActive,
        }
    }

    /// Whether session keys that were derived before may still open packets of `group` that name
    /// `sender`.
    ///
    /// # Errors
    /// [`DropReason::NotHeld`], [`DropReason::Locked`], [`DropReason::LeaseOver`],
    /// [`DropReason::ExcludedSender`], [`DropReason::Excluded`]; nothing is counted.
    pub fn may_receive(
        &self,
        group: GroupNumber,
        sender: TerminalNumber,
    ) -> Result<(), DropReason> {
        if self.is_locked() {
            return Err(DropReason::Locked);
        }
        if self.is_excluded(self.identity.number) {
            return Err(DropReason::Excluded);
        }
        if self.is_excluded(sender) {
            return Err(DropReason::ExcludedSender);
        }
        let group = self.group(group).ok_or(DropReason::NotHeld)?;
        if group.lease_is_over(self.time(), self.powered.charged()) {
            return Err(DropReason::LeaseOver);
        }
        Ok(())
    }

    /// Whether a group's key is held.
    #[must_use]
    pub fn holds(&self, group: GroupNumber) -> bool {
        self.group(group).is_some()
    }

    pub(super) fn group(&self, number: GroupNumber) -> Option<&Group> {
        self.user.as_ref()?.groups.get(&number)
    }

    pub(super) fn group_mut(&mut self, number: GroupNumber) -> Option<&mut Group> {
        self.user.as_mut()?.groups.get_mut(&number)
    }

    /// The stored marks of a group's received streams: nothing up to them is delivered again.
    #[must_use]
    pub fn marks(&self, group: GroupNumber) -> &[super::Mark] {
        self.group(group).map_or(&[], |group| &group.marks)
    }

    /// Finds the key for a packet of a session that the relay does not know yet. Costs one token
    /// of the budget and, for a generation not held, a derivation in scratch.
    ///
    /// # Errors
    /// The reason why no key may be tried; it is counted already.
    pub fn receive_key(
        &mut self,
        now: Tick,
        query: TrafficQuery,
    ) -> Result<ReceiveKey<'_>, DropReason> {
        self.now = self.now.max(now);
        match self.choose(query) {
            Ok(Choice::Held(epoch, generation)) => Ok(self
                .group(query.group)
                .and_then(|group| group.ring.at(epoch, generation))
                .map(ReceiveKey::Held)
                .expect("choose found it in the ring")),
            Ok(Choice::Derive(generation)) => Ok(self
                .group(query.group)
                .map(|group| group.ring.newest().duplicate().renew_to(generation))
                .map(|key| ReceiveKey::Trial(Trial::of(key)))
                .expect("choose found the group")),
            Err(reason) => {
                self.drops.count(self.now, reason);
                Err(reason)
            }
        }
    }

    fn choose(&mut self, query: TrafficQuery) -> Result<Choice, DropReason> {
        self.may_receive(query.group, query.sender)?;
        let time = self.time();
        let group = self.group(query.group).ok_or(DropReason::NotHeld)?;
        let held = group.ring.all().find(|key| key.tag() == query.tag);
        if let Some(choice) = held.map(|key| Choice::Held(key.epoch(), key.generation())) {
            let granted = self.held_trials.take(self.now, query.source);
            return if granted {
                Ok(choice)
            } else {
                Err(DropReason::TrialBudget)
            };
        }
        let newest = group.ring.newest();
        let [hash @ .., low8] = query.tag;
        if hash != key_tag(newest.kid(), newest.epoch()) {
            return Err(DropReason::UnknownTag);
        }
        let ahead = u32::from(low8.wrapping_sub(newest.generation().low8()));
        if ahead > GAP_MAX {
            return Err(DropReason::OlderGeneration);
        }
        let claimed = newest.generation().plus(ahead);
        if claimed > group.ceiling(time) {
            return Err(DropReason::AboveCeiling);
        }
        if !self.unheld_trials.take(self.now, query.source) {
            return Err(DropReason::TrialBudget);
        }
        Ok(Choice::Derive(claimed))
    }

    /// A member's packet opened: the older side renews. Sending follows when it is stored.
    pub(super) fn on_opened(&mut self, trial: Trial) {
        let until = self.grace_end();
        let number = trial.key.group();
        let Some(group) = self.group_mut(number) else {
            return;
        };
        let (from, to) = (group.newest(), trial.key.generation());
        if trial.key.epoch() != group.epoch() || to <= from {
            return;
        }
        group.install(trial.key, None, until);
        self.dirty = true;
        self.events.push(Event::Renewed {
            group: number,
            from,
            to,
            cause: Cause::Gap,
        });
    }
}

enum Choice {
    Held(KeyEpoch, Generation),
    Derive(Generation),
}
