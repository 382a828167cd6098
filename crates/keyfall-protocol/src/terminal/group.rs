//! One group as a terminal holds it.

use std::time::Duration;

use crate::command::SEARCH_KEY_LEN;
use crate::ids::{Generation, KeyEpoch, KeyName, SessionId, TerminalNumber, Tick, UnixSeconds};
use crate::keys::{Master, MasterKey, Ring, Secret};
use crate::schedule::{PER_SESSION_STEP, Schedule};
use crate::terminal::StoreId;
use crate::terminal::change::Change;
use crate::terminal::packets::Packets;

/// Keys, schedule, sessions and marks of one group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) ring: Ring<Master>,
    /// KS of the held epoch, where the group is a packet group; goes with the epoch.
    pub(super) search_key: Option<Secret<SEARCH_KEY_LEN>>,
    /// What this terminal sends with; follows the newest once that is stored and active. `None`
    /// until the first is.
    pub(super) sending: Option<(KeyEpoch, Generation)>,
    pub(super) activation: Option<Activation>,
    pub(super) schedule: Schedule,
    pub(super) lease: Option<Lease>,
    /// issued-at of the newest statement about this key, and who signed it.
    pub(super) issued_at: UnixSeconds,
    pub(super) stated_by: KeyName,
    /// Who signed the distribution that brought the epoch.
    pub(super) brought_by: KeyName,
    /// That key was stolen: nothing is sent until a newer distribution comes.
    pub(super) distrusted: bool,
    /// The highest generation that a signed statement of the held epoch named.
    pub(super) signed: Generation,
    /// A newer epoch that a signed command named and whose key has not come.
    pub(super) announced: Option<Announced>,
    /// The newest STOP or START.
    pub(super) change: Option<Change>,
    /// Own sessions, the newest last; a recorded one is never used again (FORMATS section 6).
    pub(super) sessions: Vec<SessionId>,
    /// How far received streams were delivered, the one heard last at the end.
    pub(super) marks: Vec<Mark>,
    pub(super) packets: Packets,
}

/// After its end a key neither sends nor receives, by the clock or by powered-on time, whichever
/// says so first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lease {
    pub(super) end: UnixSeconds,
    /// In powered-on seconds charged since enrolment.
    pub(super) powered_end: u64,
}

impl Lease {
    /// What a statement of `issued_at` gives at most: it was heard then at the earliest, so no
    /// more than this is left of it.
    pub(super) fn stated(
        end: UnixSeconds,
        issued_at: UnixSeconds,
        longest: u32,
        powered: u64,
    ) -> Self {
        let end = end.min(issued_at.plus(longest));
        Self {
            end,
            powered_end: powered.saturating_add(u64::from(end.since(issued_at))),
        }
    }

    /// The later end of two by the clock, and by powered-on time: a lease only moves forward. Each
    /// for itself, or an end that a stolen key put far ahead would keep honest statements from
    /// extending the other.
    pub(super) fn or_later(self, other: Self) -> Self {
        Self {
            end: self.end.max(other.end),
            powered_end: self.powered_end.max(other.powered_end),
        }
    }

    /// Whether it ended `after` seconds ago or earlier.
    pub(super) fn is_over(self, after: u32, time: Option<UnixSeconds>, powered: u64) -> bool {
        time.is_some_and(|now| now > self.end.plus(after))
            || powered > self.powered_end.saturating_add(u64::from(after))
    }
}

/// A newer epoch that is known by name only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Announced {
    pub(super) epoch: KeyEpoch,
    pub(super) by: KeyName,
    /// Powered-on seconds when an EXCLUDE named it; `None`: another command did.
    pub(super) excluded_at: Option<u64>,
}

impl Announced {
    /// Of two the newer epoch; that somebody was excluded meanwhile is not forgotten.
    pub(super) fn or_newer(self, other: Self) -> Self {
        if (other.epoch, other.excluded_at.is_some()) > (self.epoch, self.excluded_at.is_some()) {
            Self {
                excluded_at: other.excluded_at.or(self.excluded_at),
                ..other
            }
        } else {
            self
        }
    }
}

/// When sending moves to the newest generation: stored, and the time has come.
#[derive(Debug)]
pub(super) struct Activation {
    /// `None`: durable.
    pub(super) store: Option<StoreId>,
    /// `None`: at once.
    pub(super) at: Option<Tick>,
}

/// Nothing of this stream up to these indices is delivered again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    pub sender: TerminalNumber,
    pub session: SessionId,
    pub ssrc: u32,
    /// 48-bit SRTP index.
    pub rtp_index: u64,
    /// 31-bit SRTCP index.
    pub rtcp_index: u32,
}

impl Group {
    /// A group whose first key has just come: received with at once, sent with when it is stored
    /// and `activate_at` has passed (INVARIANTS 2 and 5).
    pub(super) fn new(
        key: MasterKey,
        schedule: Schedule,
        lease: Option<Lease>,
        (issued_at, by): (UnixSeconds, KeyName),
        activate_at: Option<Tick>,
    ) -> Self {
        let generation = key.generation();
        Self {
            ring: Ring::new(key),
            search_key: None,
            sending: None,
            activation: Some(Activation {
                store: None,
                at: activate_at,
            }),
            schedule,
            lease,
            issued_at,
            stated_by: by,
            brought_by: by,
            distrusted: false,
            signed: generation,
            announced: None,
            change: None,
            sessions: Vec::new(),
            marks: Vec::new(),
            packets: Packets::default(),
        }
    }

    /// As read from disk: its key is stored.
    pub(super) fn stored(self) -> Self {
        Self {
            sending: Some((self.epoch(), self.newest())),
            activation: None,
            ..self
        }
    }

    /// The newest key is not active yet and not sent with before `at` (INVARIANT 5). One that came
    /// since the power cut also waits for its store, as before, and meanwhile the older one sends.
    pub(super) fn hold_until(&mut self, at: Tick) {
        let store = match self.activation.take() {
            Some(activation) => activation.store,
            None => Some(StoreId::default()),
        };
        if self.sending == Some((self.epoch(), self.newest())) {
            self.sending = None;
        }
        self.activation = Some(Activation {
            store,
            at: Some(at),
        });
    }

    pub(super) fn epoch(&self) -> KeyEpoch {
        self.ring.newest().epoch()
    }

    pub(super) fn newest(&self) -> Generation {
        self.ring.newest().generation()
    }

    /// A terminal was excluded, the new epoch has not come in time, and this one sends on under the
    /// old: to be shown to people. `wait`: powered-on seconds, `None` where it fails closed.
    pub(super) fn is_exposed(&self, passed: u64, wait: Option<u32>) -> bool {
        let since = self.announced.and_then(|announced| announced.excluded_at);
        matches!((since, wait), (Some(at), Some(wait)) if passed >= at.saturating_add(u64::from(wait)))
    }

    /// The key to send with, where there is one.
    pub(super) fn sending_key(&self, passed: u64, wait: Option<u32>) -> Option<&MasterKey> {
        let waits = self.announced.is_some() && !self.is_exposed(passed, wait);
        if waits || self.distrusted || self.is_stopped() {
            return None;
        }
        let (epoch, generation) = self.sending?;
        self.ring.at(epoch, generation)
    }

    /// Up to where a packet's claim may move this terminal: never one's own generation + 64,
    /// always the signed one's. Under a schedule: what it reaches in ten minutes, and the few
    /// renewals by command beside it that may have been missed (R-045; docs/DESIGN.md says why).
    pub(super) fn ceiling(&self, time: Option<UnixSeconds>) -> Generation {
        match (self.schedule.cadence, time) {
            (Some(cadence), Some(now)) => self
                .schedule
                .generation_at(now.plus(CEILING_AHEAD))
                .max(self.signed)
                .plus(if cadence.per_session() {
                    SESSIONS_A_PERIOD
                } else {
                    MISSED_COMMANDS
                }),
            (Some(_), None) | (None, _) => self.signed.plus(GAP_MAX),
        }
    }

    /// The generation for one more session, where this group renews per session: one
    /// further, at most 63 in a period.
    pub(super) fn next_for_session(&self, time: Option<UnixSeconds>) -> Option<Generation> {
        self.schedule.cadence.filter(|it| it.per_session())?;
        let next = self.newest().next();
        let highest = self.schedule.generation_at(time?).plus(SESSIONS_A_PERIOD);
        (next <= highest).then_some(next)
    }

    pub(super) fn lease_is_over(&self, time: Option<UnixSeconds>, powered: u64) -> bool {
        self.lease
            .is_some_and(|lease| lease.is_over(0, time, powered))
    }

    /// Moves to a newer key. The older one is received until its grace ends: from now where the
    /// new one is active, else from its activation, which no STOP lets come before its end.
    pub(super) fn install(&mut self, next: MasterKey, activate_at: Option<Tick>, until: Tick) {
        let activate_at = match self.stop_end() {
            Some(end) => Some(activate_at.map_or(end, |at| at.max(end))),
            None => activate_at,
        };
        let waits = activate_at.is_some();
        if !waits {
            self.ring.retire(until);
        }
        self.ring.replace(next, if waits { FAR } else { until });
        self.activation = Some(Activation {
            store: None,
            at: activate_at,
        });
    }

    /// Receives a fresh epoch that came after a newer one, while neither is sent with: who heard of
    /// the newer one late sends with it (INVARIANT 5). True where that is new.
    pub(super) fn take_passed(&mut self, key: MasterKey) -> bool {
        let sent = self.sending;
        sent.is_some_and(|sent| sent.0 < key.epoch() && self.ring.slip_in(key, sent))
    }

    /// Whether nothing of an older epoch is held.
    pub(super) fn left_nothing(&self) -> bool {
        self.ring.all().all(|key| key.epoch() == self.epoch())
    }

    /// After an exclusion: nothing older is received any longer than until `until`.
    pub(super) fn cut_off_older(&mut self, until: Tick) {
        self.ring.retire(until);
    }

    /// Whether a statement about the held epoch is newer than the one that its schedule is from.
    /// Two of one second are told apart by their generations. `supersedes`: the signer of that one
    /// is listed no more, so that a lower number wins, too.
    pub(super) fn is_newer(
        &self,
        schedule: &Schedule,
        issued_at: UnixSeconds,
        supersedes: bool,
    ) -> bool {
        supersedes || (issued_at, schedule.generation) > (self.issued_at, self.schedule.generation)
    }

    /// Takes the schedule, lease and floor of a signed statement about the held epoch. True where
    /// anything changed.
    pub(super) fn take_statement(&mut self, statement: Statement) -> bool {
        let mut changed = false;
        let Statement {
            schedule,
            lease,
            issued_at,
            by,
            supersedes,
        } = statement;
        if schedule.generation > self.signed {
            self.signed = schedule.generation;
            changed = true;
        }
        if self.is_newer(&schedule, issued_at, supersedes) {
            self.issued_at = issued_at;
            changed |= self.schedule != schedule || self.stated_by != by;
            self.schedule = schedule;
            self.stated_by = by;
            let later = match (self.lease, lease) {
                (Some(held), Some(stated)) => Some(held.or_later(stated)),
                (held, stated) => held.or(stated),
            };
            changed |= later != self.lease;
            self.lease = later;
        }
        changed
    }

    /// A fresh epoch has just been installed: what is stated of it replaces all that was.
    pub(super) fn begin_epoch(
        &mut self,
        statement: Statement,
        search_key: Option<Secret<SEARCH_KEY_LEN>>,
        announced: Option<Announced>,
    ) {
        self.search_key = search_key;
        self.schedule = statement.schedule;
        self.lease = statement.lease;
        self.issued_at = statement.issued_at;
        self.stated_by = statement.by;
        self.brought_by = statement.by;
        self.distrusted = false;
        self.signed = self.newest();
        self.announced = announced;
    }

    /// Sending follows the newest once that is durable and its time has come.
    pub(super) fn settle_activation(
        &mut self,
        stored: StoreId,
        now: Tick,
        grace_until: Tick,
    ) -> bool {
        let ready = self.activation.as_ref().is_some_and(|activation| {
            let durable = activation.store.is_some_and(|store| store <= stored);
            durable && activation.at.is_none_or(|at| now >= at)
        });
        if ready {
            self.activation = None;
            self.sending = Some((self.epoch(), self.newest()));
            self.ring.retire(grace_until);
        }
        ready
    }

    /// A fresh session id that was never recorded for this group. The list is bounded by dropping
    /// the oldest: 48 random bits keep a repeat of those at 2^-48.
    pub(super) fn record_session(&mut self, candidate: SessionId) -> bool {
        if self.sessions.contains(&candidate) {
            return false;
        }
        if self.sessions.len() == SESSIONS_MAX {
            self.sessions.remove(0);
        }
        self.sessions.push(candidate);
        true
    }

    /// Records how far streams were delivered; marks only rise.
    pub(super) fn record_mark(&mut self, mark: Mark) {
        let same = |held: &Mark| {
            (held.sender, held.session, held.ssrc) == (mark.sender, mark.session, mark.ssrc)
        };
        let mut newest = mark;
        if let Some(place) = self.marks.iter().position(same) {
            let held = self.marks.remove(place);
            newest.rtp_index = newest.rtp_index.max(held.rtp_index);
            newest.rtcp_index = newest.rtcp_index.max(held.rtcp_index);
        } else if self.marks.len() == MARKS_MAX {
            // The stream that was idle longest.
            self.marks.remove(0);
        }
        self.marks.push(newest);
    }

    /// The grace for late packets.
    pub(super) fn grace_end(now: Tick, grace: u32) -> Tick {
        now.plus(Duration::from_secs(u64::from(grace)))
    }
}

/// What a RENEW or KEYDIST says of a held key beside its generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement {
    pub(super) schedule: Schedule,
    pub(super) lease: Option<Lease>,
    pub(super) issued_at: UnixSeconds,
    pub(super) by: KeyName,
    pub(super) supersedes: bool,
}

/// A gap that one packet may close.
pub(super) const GAP_MAX: u32 = 64;
/// Renewals by command beside the schedule that traffic alone makes good.
const MISSED_COMMANDS: u32 = 8;
/// Sessions of one period that get a generation of their own.
const SESSIONS_A_PERIOD: u32 = PER_SESSION_STEP as u32 - 1;
/// Seconds that a schedule is read ahead for the ceiling.
const CEILING_AHEAD: u32 = 600;
/// Own sessions that are remembered for each group.
const SESSIONS_MAX: usize = 4096;
/// Received streams that are remembered for each group.
const MARKS_MAX: usize = 1024;
/// "Until activation."
pub(super) const FAR: Tick = Tick::from_nanos(u64::MAX);
