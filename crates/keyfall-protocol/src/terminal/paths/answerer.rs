//! The side that answers: only a member, only from outside, only where the record of each covers its
//! address; to all others it is silent (FORMATS section 8.1; REQUIREMENTS, W-06).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::found::Ends;
use super::{Arrival, PacketFrom};
use crate::command::{ProtectionRecord, UnverifiedRecord};
use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick};
use crate::rng::{Random, octets};
use crate::search::message::{Answer, Nonce, Probe, ProbeHash, Question};
use crate::stats::DropReason;
use crate::terminal::budget::Budget;
use crate::terminal::handing::{Lacks, Shown};
use crate::terminal::{Output, Terminal};

/// What was answered, and what may still be.
#[derive(Debug)]
pub(super) struct Answerer {
    /// Nonces of genuine probes: each is answered once.
    seen: BTreeSet<Nonce>,
    /// The same in their order.
    order: VecDeque<Nonce>,
    /// Answers whose first packet has not come yet.
    answered: VecDeque<Answered>,
    /// Probes that are looked at, by where they come from.
    looks: Budget,
    /// Genuine ones that are answered, by who asks.
    answers: Budget,
}

/// CE1–CE2 under that group, once a packet shows that the asker means it.
#[derive(Clone, Copy, Debug)]
struct Answered {
    ends: Ends,
    group: GroupNumber,
    peer: TerminalNumber,
    until: Tick,
}

impl Answerer {
    pub(super) fn new() -> Self {
        Self {
            seen: BTreeSet::new(),
            order: VecDeque::new(),
            answered: VecDeque::new(),
            looks: Budget::new(LOOKS_OF_SOURCE, LOOKS_A_SECOND),
            answers: Budget::new(ANSWERS_OF_MEMBER, ANSWERS_A_SECOND),
        }
    }

    /// Nonces and answers that are remembered.
    pub(super) fn remembered(&self) -> (usize, usize) {
        (self.seen.len(), self.answered.len())
    }

    /// False where it was seen before.
    fn see(&mut self, nonce: Nonce) -> bool {
        if !self.seen.insert(nonce) {
            return false;
        }
        self.order.push_back(nonce);
        if self.order.len() > NONCES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }

    fn remember(&mut self, answered: Answered) {
        if self.answered.len() >= ANSWERED_MAX {
            self.answered.pop_front();
        }
        self.answered.push_back(answered);
    }

    fn take(&mut self, packet: &PacketFrom, now: Tick) -> bool {
        while self.answered.front().is_some_and(|it| it.until <= now) {
            self.answered.pop_front();
        }
        let ends = (packet.source, packet.destination);
        let place = self
            .answered
            .iter()
            .position(|it| (it.ends, it.group, it.peer) == (ends, packet.group, packet.peer));
        place
            .and_then(|place| self.answered.remove(place))
            .is_some()
    }
}

impl Terminal {
    /// Answers a probe, or is silent and counts why. What costs little comes first; nothing is moved
    /// before handle and record are verified.
    pub(super) fn on_probe(
        &mut self,
        probe: &Probe<'_>,
        arrival: &Arrival<'_>,
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        if !arrival.outside {
            return Err(DropReason::ProbeFromInside);
        }
        let own = self.own_record().ok_or(DropReason::NoRecord)?.record();
        let ends = (probe.source, probe.destination);
        if arrival.destination != ends.1 || !own.speaks_for(ends.1) {
            return Err(DropReason::ProbeForOthers);
        }
        if !self.paths.answerer.looks.take(self.now, arrival.source()) {
            return Err(DropReason::SearchBudget);
        }
        let record = UnverifiedRecord::decode(probe.record).map_err(|_| DropReason::Malformed)?;
        let presented = record.record();
        let peer = presented.terminal;
        if self.is_excluded(peer) {
            // It gets no answer, but what the server wants it to hear.
            self.hand_to_excluded(peer, arrival.from);
        }
        self.look_at_record(presented)?;
        let newer = self.newer_than(presented);
        let lacks = self.lacking(&record);
        let judged = self.shown_by_probe(probe, newer.unwrap_or(presented));
        // Who is a member by what it presents hears that there is something newer, and no more.
        let shown = match judged {
            Err(reason) if lacks.record => {
                self.shown_by_probe(probe, presented).map_err(|_| reason)?
            }
            judged => judged?,
        };
        if !self.paths.answerer.see(probe.nonce) {
            return Err(DropReason::ProbeReplayed);
        }
        let source = peer.get().into();
        if !self.paths.answerer.answers.take(self.now, source) {
            return Err(DropReason::SearchBudget);
        }
        let taken = self.take_record(record, lacks.record);
        if matches!(taken, Ok(()) | Err(DropReason::UnknownSigner)) {
            // Before the answer, which it judges by its own record.
            self.hand_to_member(Shown { lacks, ..shown }, arrival.from);
        }
        if taken == Err(DropReason::UnknownSigner) && self.paths.doubts.take(self.now, source) {
            // Perhaps a KEYSET was missed here. Whoever is asked with a record of before hands it on.
            self.search_for((ends.1, ends.0)).map(|_| ())?;
        }
        taken?;
        let Shown { group, key, .. } = judged?;
        if let Err(reason) = self.step_by_search(group, key.1) {
            self.drops.count(self.now, reason);
        }
        self.answer(probe, arrival, (peer, group), rng)
    }

    /// Whether its sender, by that record of it, speaks for who asks, and is a member of the group that
    /// the rule gives.
    fn shown_by_probe(
        &self,
        probe: &Probe<'_>,
        theirs: &ProtectionRecord,
    ) -> Result<Shown, DropReason> {
        let peer = theirs.terminal;
        let ends = (probe.source, probe.destination);
        let group = self.group_with(theirs, probe.source, ends)?;
        Ok(Shown {
            peer,
            group,
            key: self.claimed_in(probe, peer, group)?,
            lacks: Lacks::default(),
        })
    }

    /// Where the asker claims to stand by its handle under that group.
    fn claimed_in(
        &self,
        probe: &Probe<'_>,
        asker: TerminalNumber,
        group: GroupNumber,
    ) -> Result<(KeyEpoch, Generation), DropReason> {
        let epoch = self.group(group).ok_or(DropReason::NotHeld)?.epoch();
        let key = self.search_key(group).ok_or(DropReason::NotHeld)?;
        probe
            .handle_of(key, asker, epoch)
            .map(|handle| (epoch, handle.generation))
            .ok_or(DropReason::SearchForged)
    }

    fn answer(
        &mut self,
        probe: &Probe<'_>,
        arrival: &Arrival<'_>,
        (peer, number): (TerminalNumber, GroupNumber),
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        let group = self.group(number).ok_or(DropReason::NotHeld)?;
        let key = self.search_key(number).ok_or(DropReason::NotHeld)?;
        let own = self.own_record().ok_or(DropReason::NoRecord)?;
        let question = Question {
            probe: ProbeHash::of(arrival.datagram),
            source: probe.source,
            destination: probe.destination,
        };
        let answer = Answer::make(
            key,
            probe,
            &question,
            (self.identity.number, own.frame()),
            octets(rng),
            (group.epoch(), group.newest()),
        );
        let datagram = answer.encode();
        self.paths.answerer.remember(Answered {
            ends: (probe.source, probe.destination),
            group: number,
            peer,
            until: self.now.plus(ANSWER_LIFE),
        });
        let to = arrival.from;
        self.outputs.push_back(Output::Answer { to, datagram });
        Ok(())
    }

    /// The asker's packet opened under the group of the answer: the way back is known (KR-536).
    pub(super) fn complete_answered(&mut self, packet: &PacketFrom) {
        if self.paths.answerer.take(packet, self.now) {
            let back = (packet.destination, packet.source);
            self.enter_path(back, packet.group, packet.peer);
        }
    }
}

/// Nonces that are remembered.
pub(super) const NONCES_MAX: usize = 16_384;
/// Answers that wait for their first packet.
pub(super) const ANSWERED_MAX: usize = 1024;
const ANSWER_LIFE: Duration = Duration::from_secs(60);
const LOOKS_OF_SOURCE: u32 = 64;
const LOOKS_A_SECOND: u32 = 2000;
const ANSWERS_OF_MEMBER: u32 = 32;
const ANSWERS_A_SECOND: u32 = 200;
