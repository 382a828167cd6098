//! What a terminal tells of itself: numbers and fingerprints, never a key.

use crate::command::KeySet;
use crate::enrolment::Identity;
use crate::ids::{Fingerprint, Generation, GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use crate::keys::MasterKey;
use crate::stats::{DropCounters, DropReason};
use crate::terminal::Terminal;
use crate::terminal::group::Group;

/// One held key as status shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    pub group: GroupNumber,
    pub epoch: KeyEpoch,
    /// The newest generation held.
    pub generation: Generation,
    /// The generation that this terminal sends with; `None` while it waits for a newer epoch.
    pub sending: Option<Generation>,
    pub state: GroupState,
    /// The next instant at which it renews by itself.
    pub valid_until: Option<UnixSeconds>,
    pub lease_end: Option<UnixSeconds>,
    /// Where a STOP holds: when it ends by itself.
    pub stopped_until: Option<UnixSeconds>,
    pub fingerprint: Fingerprint,
    /// Older generations that are received.
    pub in_grace: usize,
}

/// How a group stands, in a word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GroupState {
    Ready,
    /// A newer epoch is known by name only.
    WaitsForKey,
    /// The same after an exclusion, for longer than may be waited: it sends under the old epoch,
    /// which the excluded terminal holds.
    Exposed,
    /// The key was brought by a signing key that was stolen.
    Distrusted,
    /// A STOP holds.
    Stopped,
    LeaseOver,
}

impl GroupState {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::WaitsForKey => "waits for its new key",
            Self::Exposed => "EXPOSED: sends under a key that an excluded terminal holds",
            Self::Distrusted => "waits for a key that is not the thief's",
            Self::Stopped => "stopped while its key changes",
            Self::LeaseOver => "lease over",
        }
    }
}

/// How the terminal stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TerminalState {
    /// No group's key has come yet.
    Enrolled,
    Ready,
    Locked,
    /// By a LOCK: only an UNLOCK of the server's ends it.
    LockedByServer,
    /// The server excluded this terminal.
    Excluded,
    /// Every key was erased.
    Erased,
}

impl TerminalState {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enrolled => "enrolled",
            Self::Ready => "ready",
            Self::Locked => "locked",
            Self::LockedByServer => "locked by the server",
            Self::Excluded => "excluded",
            Self::Erased => "erased",
        }
    }
}

impl Terminal {
    /// Who this terminal is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The keys that may command it.
    #[must_use]
    pub fn key_set(&self) -> &KeySet {
        &self.key_set
    }

    /// Why frames and packets came to nothing.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Counts what the relay dropped, beside the machine's own reasons.
    pub fn count_drop(&mut self, reason: DropReason) {
        self.drops.count(self.now, reason);
    }

    /// Wall time as beacons tell; `None` before the first since power-on.
    #[must_use]
    pub fn time(&self) -> Option<UnixSeconds> {
        self.time.at(self.now)
    }

    /// G as this terminal knows it.
    #[must_use]
    pub fn fleet_generation(&self) -> Generation {
        self.g
    }

    /// Generation and fingerprint of the wrap key; `None` while locked.
    #[must_use]
    pub fn wrap_key(&self) -> Option<(Generation, Fingerprint)> {
        let newest = self.user.as_ref()?.wrap.newest();
        Some((newest.generation(), newest.fingerprint()))
    }

    /// The fingerprint of the obey key; `None` once everything was erased.
    #[must_use]
    pub fn obey_fingerprint(&self) -> Option<Fingerprint> {
        self.obey.as_ref().map(|obey| obey.fingerprint())
    }

    /// Powered-on seconds that were charged since enrolment.
    #[must_use]
    pub fn powered_on(&self) -> u64 {
        self.powered.charged()
    }

    /// When this terminal wipes itself if nothing extends a lease before: dead man's time after
    /// the latest lease end.
    #[must_use]
    pub fn wipes_itself_at(&self) -> UnixSeconds {
        self.last_lease.end.plus(self.key_set.limits.dead_man)
    }

    #[must_use]
    pub fn state(&self) -> TerminalState {
        match &self.user {
            _ if self.obey.is_none() => TerminalState::Erased,
            _ if self.is_excluded(self.identity.number) => TerminalState::Excluded,
            None if self.lock.locked => TerminalState::LockedByServer,
            None => TerminalState::Locked,
            Some(user) if user.groups.is_empty() => TerminalState::Enrolled,
            Some(_) => TerminalState::Ready,
        }
    }

    /// Whether nobody listens to that terminal any more.
    #[must_use]
    pub fn is_excluded(&self, terminal: TerminalNumber) -> bool {
        self.exclusions.contains(terminal)
    }

    /// Everyone who was excluded, by number.
    pub fn excluded(&self) -> impl Iterator<Item = TerminalNumber> + '_ {
        self.exclusions.iter()
    }

    /// Every group held, by number; none while locked.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupStatus> {
        let time = self.time();
        let (passed, wait) = (self.powered.passed(), self.key_set.limits.exclude_wait);
        let status = |(&number, group): (&GroupNumber, &Group)| GroupStatus {
            group: number,
            epoch: group.epoch(),
            generation: group.newest(),
            sending: group.sending_key(passed, wait).map(MasterKey::generation),
            state: self.state_of(group),
            valid_until: time.and_then(|now| group.schedule.next_change(now)),
            lease_end: group.lease.map(|lease| lease.end),
            stopped_until: self.stopped_until(group),
            fingerprint: group.ring.newest().fingerprint(),
            in_grace: group.ring.all().count() - 1,
        };
        let groups = self.user.iter().flat_map(|user| &user.groups);
        groups.map(status).collect()
    }

    /// By the clock, rounded down; before the first beacon as the STOP says.
    fn stopped_until(&self, group: &Group) -> Option<UnixSeconds> {
        let change = group.change.as_ref().filter(|change| change.stopped)?;
        let end = change.until.zip(self.time()).map(|(until, now)| {
            let left = until.since(self.now).as_secs();
            now.plus(u32::try_from(left).unwrap_or(u32::MAX))
        });
        Some(end.unwrap_or(change.deadline))
    }

    fn state_of(&self, group: &Group) -> GroupState {
        let (passed, wait) = (self.powered.passed(), self.key_set.limits.exclude_wait);
        if group.lease_is_over(self.time(), self.powered.charged()) {
            GroupState::LeaseOver
        } else if group.distrusted {
            GroupState::Distrusted
        } else if group.is_stopped() {
            GroupState::Stopped
        } else if group.is_exposed(passed, wait) {
            GroupState::Exposed
        } else if group.announced.is_some() {
            GroupState::WaitsForKey
        } else {
            GroupState::Ready
        }
    }
}
