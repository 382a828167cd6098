//! The side that searches: probes towards the destination until somebody on the way answers, or nobody
//! does (FORMATS section 8.1; REQUIREMENTS, W-06, W-21).

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::time::Duration;

use super::found::Ends;
use super::{Arrival, Way, rule};
use crate::command::{ProtectionRecord, SignedRecord, UnverifiedRecord};
use crate::ids::{GroupNumber, TerminalNumber, Tick};
use crate::rng::{Random, octets};
use crate::search::message::{Answer, Nonce, Probe, ProbeHash, Question};
use crate::stats::DropReason;
use crate::terminal::asking::jittered;
use crate::terminal::budget::Budget;
use crate::terminal::handing::{Lacks, Shown};
use crate::terminal::{Output, Source, Terminal};

/// Searches that are open, and those that came to nothing.
#[derive(Debug)]
pub(super) struct Searches {
    open: BTreeMap<Ends, Search>,
    denied: BTreeMap<Ends, Denied>,
    /// Searches that may begin, by the source that wants them.
    begun: Budget,
    /// Answers that are looked at.
    answers: Budget,
}

/// What waits for an answer.
#[derive(Debug)]
struct Search {
    /// When the next probe leaves, or the search ends.
    at: Tick,
    /// Every probe that left: whichever is answered ends the search.
    sent: Vec<(Nonce, ProbeHash)>,
}

/// Nobody answered: nothing is asked again until then.
#[derive(Clone, Copy, Debug)]
struct Denied {
    until: Tick,
    reason: DropReason,
}

impl Searches {
    pub(super) fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            denied: BTreeMap::new(),
            begun: Budget::new(SEARCHES_OF_SOURCE, SEARCHES_A_SECOND),
            answers: Budget::new(ANSWERS_OF_SOURCE, ANSWERS_A_SECOND),
        }
    }

    pub(super) fn due(&self) -> Option<Tick> {
        self.open.values().map(|search| search.at).min()
    }

    /// Searches that are open.
    pub(super) fn open(&self) -> impl Iterator<Item = &Ends> {
        self.open.keys()
    }

    pub(super) fn denied_len(&self) -> usize {
        self.denied.len()
    }

    /// Whoever is learned of is not denied any more.
    pub(super) fn allow_again(&mut self, destination: impl Fn(IpAddr) -> bool) {
        self.denied.retain(|ends, _| !destination(ends.1));
    }

    fn deny(&mut self, ends: Ends, denied: Denied, now: Tick) {
        if self.denied.len() >= DENIED_MAX {
            self.denied.retain(|_, held| held.until > now);
        }
        if self.denied.len() >= DENIED_MAX {
            let soonest = self.denied.iter().min_by_key(|(_, held)| held.until);
            if let Some(&ends) = soonest.map(|(ends, _)| ends) {
                self.denied.remove(&ends);
            }
        }
        self.denied.insert(ends, denied);
    }

    fn asked(&self, nonce: &Nonce) -> Option<(Ends, ProbeHash)> {
        self.open.iter().find_map(|(&ends, search)| {
            let sent = search.sent.iter().find(|(it, _)| it == nonce)?;
            Some((ends, sent.1))
        })
    }
}

impl Terminal {
    /// Searches, or tells why not.
    pub(super) fn search_for(&mut self, ends: Ends) -> Result<Way, DropReason> {
        let now = self.now;
        let searches = &mut self.paths.searches;
        if searches.open.contains_key(&ends) {
            return Ok(Way::Searching);
        }
        if let Some(denied) = searches.denied.get(&ends) {
            if now < denied.until {
                return Err(denied.reason);
            }
            searches.denied.remove(&ends);
        }
        let of_source = searches.open.keys().filter(|it| it.0 == ends.0).count();
        let full = searches.open.len() >= OPEN_MAX || of_source >= OPEN_OF_SOURCE;
        if full || !searches.begun.take(now, source_of(ends.0)) {
            return Err(DropReason::SearchBudget);
        }
        let search = Search {
            at: now,
            sent: Vec::new(),
        };
        searches.open.insert(ends, search);
        Ok(Way::Searching)
    }

    /// Sends the probes that are due; ends what was asked often enough.
    pub(super) fn turn_searches(&mut self, rng: &mut dyn Random) {
        let now = self.now;
        let due: Vec<_> = self
            .paths
            .searches
            .open
            .iter()
            .filter(|(_, search)| search.at <= now)
            .map(|(&ends, search)| (ends, search.sent.len()))
            .collect();
        for (ends, sent) in due {
            if sent >= TRIES {
                let reason = self.why_no_answer(ends);
                self.end_in_vain(ends, reason);
                continue;
            }
            let nonce = octets(rng);
            match self.probe(ends, nonce) {
                Ok(datagram) => {
                    let wait = jittered(FIRST_WAIT * (1 << sent), rng);
                    if let Some(search) = self.paths.searches.open.get_mut(&ends) {
                        search.at = now.plus(wait);
                        search.sent.push((nonce, ProbeHash::of(&datagram)));
                    }
                    let to = ends.1;
                    self.outputs.push_back(Output::Probe { to, datagram });
                }
                Err(reason) => self.end_in_vain(ends, reason),
            }
        }
    }

    /// Nobody is there, or somebody with whom no group is common: there are no others than strangers.
    fn why_no_answer(&self, ends: Ends) -> DropReason {
        let (peers, time) = (&self.paths.peers, self.record_time());
        let own = self.own_record().map(SignedRecord::record);
        let strangers = peers.speaking_for(ends.1, time).next().is_some()
            && own.is_some_and(|own| peers.protecting(own, ends, time).is_none());
        if strangers {
            DropReason::NoCommonGroup
        } else {
            DropReason::NoAnswer
        }
    }

    fn end_in_vain(&mut self, ends: Ends, reason: DropReason) {
        let now = self.now;
        self.paths.searches.open.remove(&ends);
        self.drops.count(now, reason);
        let denied = Denied {
            until: now.plus(DENIED_FOR),
            reason,
        };
        self.paths.searches.deny(ends, denied, now);
        self.lose(ends.0, ends.1, reason);
    }

    /// With the handle of every group that this terminal may send in, as many as fit.
    fn probe(&self, (source, destination): Ends, nonce: Nonce) -> Result<Vec<u8>, DropReason> {
        let own = self.own_record().ok_or(DropReason::NoRecord)?;
        let mut probe = Probe::new(nonce, source, destination, own.frame());
        for number in rule::in_order(own.record(), source, destination) {
            let Some(group) = self.group(number) else {
                continue;
            };
            if let Some(key) = self.search_key(number)
                && !probe.offer(key, self.identity.number, (group.epoch(), group.newest()))
            {
                break;
            }
        }
        if probe.handles.is_empty() {
            return Err(DropReason::NotHeld);
        }
        Ok(probe.encode())
    }

    /// Judges an answer; what is wrong changes nothing, and the search stays open.
    pub(super) fn on_search_answer(
        &mut self,
        answer: &Answer<'_>,
        arrival: &Arrival<'_>,
    ) -> Result<(), DropReason> {
        let asked = self.paths.searches.asked(&answer.nonce);
        let (ends, probe) = asked.ok_or(DropReason::NotAsked)?;
        if !self.paths.searches.answers.take(self.now, arrival.source()) {
            return Err(DropReason::SearchBudget);
        }
        let question = Question {
            probe,
            source: ends.0,
            destination: ends.1,
        };
        let record = UnverifiedRecord::decode(answer.record).map_err(|_| DropReason::Malformed)?;
        let presented = record.record();
        self.look_at_record(presented)?;
        let newer = self.newer_than(presented);
        let lacks = self.lacking(&record);
        let judged = self.shown_by_answer(answer, &question, newer.unwrap_or(presented));
        // Who is a member by what it presents hears that there is something newer, and no more.
        let shown = match judged {
            Err(reason) if lacks.record => self
                .shown_by_answer(answer, &question, presented)
                .map_err(|_| reason)?,
            judged => judged?,
        };
        self.take_record(record, lacks.record)?;
        self.hand_to_member(Shown { lacks, ..shown }, arrival.from);
        let Shown {
            peer, group, key, ..
        } = judged?;
        if let Err(reason) = self.step_by_search(group, key.1) {
            self.drops.count(self.now, reason);
        }
        self.paths.searches.open.remove(&ends);
        self.paths.peers.hear(peer, arrival.from, self.now);
        self.enter_path(ends, group, peer);
        Ok(())
    }

    /// Whether its sender, by that record of it, speaks for whom was asked, and answered under the group
    /// that the rule gives.
    fn shown_by_answer(
        &self,
        answer: &Answer<'_>,
        question: &Question,
        theirs: &ProtectionRecord,
    ) -> Result<Shown, DropReason> {
        let peer = theirs.terminal;
        let ends = (question.source, question.destination);
        let group = self.group_with(theirs, question.destination, ends)?;
        self.answered_under(answer, question, peer, group)?;
        Ok(Shown {
            peer,
            group,
            key: (answer.epoch, answer.generation),
            lacks: Lacks::default(),
        })
    }

    /// Whether the answer was made under the group that the rule gives (KR-534).
    fn answered_under(
        &self,
        answer: &Answer<'_>,
        question: &Question,
        number: TerminalNumber,
        group: GroupNumber,
    ) -> Result<(), DropReason> {
        let made_under = |group: GroupNumber| {
            let held = self.group(group).map(|it| it.epoch());
            held == Some(answer.epoch)
                && self
                    .search_key(group)
                    .is_some_and(|key| answer.check(key, question, number))
        };
        if made_under(group) {
            return Ok(());
        }
        let own = self.own_record().map(SignedRecord::record);
        let mut others = own.into_iter().flat_map(|own| own.groups.iter());
        if others.any(|other| made_under(other.group)) {
            Err(DropReason::OtherGroup)
        } else {
            Err(DropReason::SearchForged)
        }
    }
}

/// For a budget: one host, or one /64.
fn source_of(address: IpAddr) -> Source {
    match address {
        IpAddr::V4(address) => Source::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as Source,
    }
}

/// Probes of one search.
const TRIES: usize = 4;
/// Before the second; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// How long a search that came to nothing is remembered.
const DENIED_FOR: Duration = Duration::from_secs(30);
/// Searches that came to nothing and are remembered.
pub(super) const DENIED_MAX: usize = 4096;
/// Searches at once.
pub(super) const OPEN_MAX: usize = 256;
/// Those among them that one source may want.
pub(super) const OPEN_OF_SOURCE: usize = 64;
const SEARCHES_OF_SOURCE: u32 = 32;
const SEARCHES_A_SECOND: u32 = 256;
const ANSWERS_OF_SOURCE: u32 = 200;
const ANSWERS_A_SECOND: u32 = 2000;
