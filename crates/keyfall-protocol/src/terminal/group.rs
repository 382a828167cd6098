//! One group as a terminal holds it.

use std::time::Duration;

use crate::ids::{Generation, KeyEpoch, SessionId, TerminalNumber, Tick, UnixSeconds};
use crate::keys::{Master, MasterKey, Ring};
use crate::schedule::Schedule;
use crate::terminal::StoreId;

/// Keys, schedule, sessions and marks of one group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) ring: Ring<Master>,
    /// What this terminal sends with; follows the newest once that is stored and active. `None`
    /// until the first is.
    pub(super) sending: Option<(KeyEpoch, Generation)>,
    pub(super) activation: Option<Activation>,
    pub(super) schedule: Schedule,
    pub(super) lease_end: Option<UnixSeconds>,
    /// issued-at of the newest statement about this key.
    pub(super) issued_at: UnixSeconds,
    /// The highest generation that a signed statement of the held epoch named.
    pub(super) signed: Generation,
    /// A newer epoch that a signed command named and whose key has not come.
    pub(super) announced: Option<KeyEpoch>,
    /// Own sessions, the newest last; a recorded one is never used again (FORMATS section 6).
    pub(super) sessions: Vec<SessionId>,
    /// How far received streams were delivered, the one heard last at the end.
    pub(super) marks: Vec<Mark>,
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
        lease_end: Option<UnixSeconds>,
        issued_at: UnixSeconds,
        activate_at: Option<Tick>,
    ) -> Self {
        let generation = key.generation();
        Self {
            ring: Ring::new(key),
            sending: None,
            activation: Some(Activation {
                store: None,
                at: activate_at,
            }),
            schedule,
            lease_end,
            issued_at,
            signed: generation,
            announced: None,
            sessions: Vec::new(),
            marks: Vec::new(),
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

    /// The key to send with, where there is one.
    pub(super) fn sending_key(&self) -> Option<&MasterKey> {
        if self.announced.is_some() {
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
            (Some(_), Some(now)) => self
                .schedule
                .generation_at(now.plus(CEILING_AHEAD))
                .max(self.signed)
                .plus(MISSED_COMMANDS),
            (Some(_), None) | (None, _) => self.signed.plus(GAP_MAX),
        }
    }

    pub(super) fn lease_is_over(&self, time: Option<UnixSeconds>) -> bool {
        matches!((self.lease_end, time), (Some(end), Some(now)) if now > end)
    }

    /// Moves to a newer key. The older one is received until its grace ends: from now where the
    /// new one is active, else from its activation.
    pub(super) fn install(&mut self, next: MasterKey, activate_at: Option<Tick>, until: Tick) {
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

    /// Whether a statement about the held epoch is newer than the one that its schedule is from.
    /// Two of one second are told apart by their generations.
    pub(super) fn is_newer(&self, schedule: &Schedule, issued_at: UnixSeconds) -> bool {
        (issued_at, schedule.generation) > (self.issued_at, self.schedule.generation)
    }

    /// Takes the schedule, lease and floor of a signed statement about the held epoch. The lease
    /// only moves forward, at most to issued-at + the longest lease. True where anything changed.
    pub(super) fn take_statement(
        &mut self,
        schedule: Schedule,
        lease_end: Option<UnixSeconds>,
        issued_at: UnixSeconds,
        longest_lease: u32,
    ) -> bool {
        let mut changed = false;
        if schedule.generation > self.signed {
            self.signed = schedule.generation;
            changed = true;
        }
        if self.is_newer(&schedule, issued_at) {
            self.issued_at = issued_at;
            changed |= self.schedule != schedule;
            self.schedule = schedule;
            let end = lease_end.map(|end| end.min(issued_at.plus(longest_lease)));
            if end > self.lease_end {
                self.lease_end = end;
                changed = true;
            }
        }
        changed
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

/// A gap that one packet may close.
pub(super) const GAP_MAX: u32 = 64;
/// Renewals by command beside the schedule that traffic alone makes good.
const MISSED_COMMANDS: u32 = 8;
/// Seconds that a schedule is read ahead for the ceiling.
const CEILING_AHEAD: u32 = 600;
/// Own sessions that are remembered for each group.
const SESSIONS_MAX: usize = 4096;
/// Received streams that are remembered for each group.
const MARKS_MAX: usize = 1024;
/// "Until activation."
const FAR: Tick = Tick::from_nanos(u64::MAX);
