//! The asking side of key sharing: KEY-REQ, KEY-DIS, ACK (FORMATS section 8; REQUIREMENTS R-070 to
//! R-073, R-081). One struct a state, named for what it waits for; each has its timer, its retries
//! and its end.
//!
//! ```text
//! Rest ──► ExpectIntroduction ──► ExpectKeyDis ──► ExpectStore ──► Rest
//!            (public keys of        (COOKIE: ask      (then ACK)
//!             the server)            again with it)
//! ```

mod answer;
mod first_contact;
mod legacy;
mod request;

use std::time::Duration;

use answer::ExpectStore;
pub use first_contact::{ContactInput, ContactOutput, FirstContact, FirstContactError};
use request::{ExpectIntroduction, ExpectKeyDis};

use crate::ids::{Tick, UnixSeconds};
use crate::rng::{Random, octets};
use crate::sharing::message::{Message, Reference, hello, message_in};
use crate::sharing::rsa_misty1::RsaPublic;
use crate::sharing::{Assembly, Introduction, KemPublic, SharingSuite};
use crate::stats::DropReason;
use crate::terminal::{Event, Output, Terminal};

/// Where the sequence stands.
#[derive(Debug)]
pub(super) struct Asking {
    state: State,
    /// There is a way to the server: from the first [`Order::Ask`](super::Order::Ask) on.
    reachable: bool,
    /// The terminal is locked: a sequence begins with the unlock.
    waits: bool,
    /// When the next sequence begins by itself.
    next: Option<Tick>,
    /// Where that is for the time alone.
    for_time: Option<Tick>,
    /// How long to rest after the next sequence that comes to nothing.
    pause: Duration,
    /// How far beyond the own offset the next sequence begins: below it the server knew no key.
    beyond: u32,
    /// Wrap keys that were mixed in this sequence, and whose ACK came to nothing.
    mixed: u32,
    /// The last KEY-DIS that was taken, and the ACK that answers its repeats.
    answered: Option<(Reference, Vec<u8>)>,
    parts: Assembly<()>,
    /// Public keys of the server that are too long for a KEYSET, as far as they were fetched.
    kems: Vec<KemPublic>,
    /// Likewise, for the suite rsa-misty1.
    rsa: Option<RsaPublic>,
    /// Answers that strangers can make this terminal look at.
    replies: super::budget::Budget,
    /// Those among them that cost private-key work.
    openings: super::budget::Budget,
}

#[derive(Debug)]
enum State {
    Rest,
    ExpectIntroduction(ExpectIntroduction),
    ExpectKeyDis(Box<ExpectKeyDis>),
    ExpectStore(ExpectStore),
}

/// How a sequence came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskOutcome {
    /// What was missing is here, and durable.
    Current,
    /// Nobody answered.
    NoAnswer,
    /// The server does not know this terminal's key: its package was used elsewhere, it was
    /// excluded, or the server was founded anew.
    NotKnown,
    /// No suite that the root allows can be spoken.
    NoSuite,
}

impl AskOutcome {
    /// The word in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::NoAnswer => "no answer",
            Self::NotKnown => "not known to the server",
            Self::NoSuite => "no suite",
        }
    }
}

/// When what was sent is sent again: 0.5 s doubling to 8 s, a quarter earlier or later (R-081).
#[derive(Clone, Copy, Debug)]
struct Retry {
    tries: u32,
    at: Tick,
}

impl Retry {
    fn first(now: Tick, rng: &mut dyn Random) -> Self {
        Self {
            tries: 1,
            at: now.plus(jittered(FIRST_WAIT, rng)),
        }
    }

    /// `None` where it was tried often enough.
    fn again(self, now: Tick, rng: &mut dyn Random) -> Option<Self> {
        let wait = FIRST_WAIT * 2u32.pow(self.tries.min(4));
        (self.tries < TRIES).then(|| Self {
            tries: self.tries + 1,
            at: now.plus(jittered(wait, rng)),
        })
    }
}

impl Asking {
    pub(super) fn new() -> Self {
        Self {
            state: State::Rest,
            reachable: false,
            waits: false,
            next: None,
            for_time: None,
            pause: PAUSE_MIN,
            beyond: 0,
            mixed: 0,
            answered: None,
            parts: Assembly::new(4, 64),
            kems: Vec::new(),
            rsa: None,
            replies: super::budget::Budget::new(200, 200),
            openings: super::budget::Budget::new(OPENINGS, OPENINGS),
        }
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Tick> {
        match &self.state {
            State::Rest => self.next,
            State::ExpectIntroduction(state) => Some(state.retry.at),
            State::ExpectKeyDis(state) => Some(state.retry.at),
            State::ExpectStore(_) => None,
        }
    }

    /// What it waits for, for status and logs.
    pub(super) const fn state_name(&self) -> &'static str {
        match &self.state {
            State::Rest => "rest",
            State::ExpectIntroduction(_) => "expects INTRODUCTION",
            State::ExpectKeyDis(_) => "expects KEY-DIS",
            State::ExpectStore(_) => "expects store",
        }
    }

    /// A sequence begins within `spread`, or earlier where one was to begin anyway.
    fn plan(&mut self, now: Tick, spread: Duration, rng: &mut dyn Random) {
        let at = now.plus(part_of(spread, rng));
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

impl Terminal {
    /// What the asking side waits for.
    #[must_use]
    pub fn asks(&self) -> &'static str {
        self.asking.state_name()
    }

    /// The suite in which it asks; `None` where it can speak none of those that the root lists, or is
    /// locked.
    #[must_use]
    pub fn asks_in(&self) -> Option<SharingSuite> {
        let user = self.user.as_ref()?;
        self.key_set.suite_spoken(user.legacy_key.is_some())
    }

    /// The local side says that there is a way to the server, and that it is time to use it.
    pub(super) fn on_ask(&mut self, within: Duration, rng: &mut dyn Random) {
        self.asking.reachable = true;
        self.asking.plan(self.now, within, rng);
    }

    /// A datagram from where the server is; only what it proves counts.
    pub(super) fn on_server_datagram(
        &mut self,
        datagram: &[u8],
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        if !self.asking.replies.take(self.now, 0) {
            return Err(DropReason::VerifyBudget);
        }
        let octets = message_in(datagram).map_err(|_| DropReason::Malformed)?;
        let message = Message::decode(octets).map_err(|_| DropReason::Malformed)?;
        let Message::Part(part) = message else {
            return self.on_message(&message, octets, rng);
        };
        match self.asking.parts.add((), &part, self.now) {
            Some(whole) => {
                let message = Message::decode(&whole).map_err(|_| DropReason::Malformed)?;
                self.on_message(&message, &whole, rng)
            }
            None => Ok(()),
        }
    }

    /// `sent`: the message as it was sent, put together where it came in parts.
    fn on_message(
        &mut self,
        message: &Message<'_>,
        sent: &[u8],
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        match *message {
            Message::Command { frame } => self.on_frame(frame),
            Message::Cookie {
                reference,
                cookie,
                frame,
                ..
            } => self.on_cookie(reference, cookie, frame, rng),
            Message::KeyDis {
                reference,
                distribution,
            } => self.on_answer(reference, distribution, sent),
            Message::Introduction {
                piece,
                pieces,
                hash,
                octets,
            } => self.on_introduction(piece, pieces, hash, octets, rng),
            Message::KeyReq { .. }
            | Message::Ack { .. }
            | Message::Part(_)
            | Message::Hello { .. } => Err(DropReason::NotAddressed),
        }
    }

    /// Timers, and what has to be asked for by itself.
    pub(super) fn turn_asking(&mut self, rng: &mut dyn Random) {
        if !self.asking.reachable || self.obey.is_none() {
            return;
        }
        if self.user.is_none() {
            // What was asked for waits for the unlock, when a fresh request is made.
            self.asking.waits = true;
            (self.asking.state, self.asking.next) = (State::Rest, None);
            return;
        }
        if std::mem::take(&mut self.asking.waits) {
            self.asking.next = Some(self.now);
        }
        self.ask_for_what_lacks(rng);
        let now = self.now;
        if self.asking.due().is_none_or(|due| due > now) {
            return;
        }
        match std::mem::replace(&mut self.asking.state, State::Rest) {
            State::Rest if self.asks_for_time_it_has() => {
                self.asking.next = Some(now.plus(jittered(ASK_EVERY, rng)));
            }
            State::Rest => {
                self.asking.next = None;
                self.begin_asking(rng);
            }
            State::ExpectIntroduction(state) => self.ask_introduction_again(state, rng),
            State::ExpectKeyDis(state) => self.ask_again(state, rng),
            State::ExpectStore(state) => self.asking.state = State::ExpectStore(state),
        }
    }

    /// Only the time was to be asked for, and it has come meanwhile.
    fn asks_for_time_it_has(&mut self) -> bool {
        let for_time = self.asking.for_time.take();
        for_time.is_some() && for_time == self.asking.next && self.time().is_some()
    }

    /// After an unlock, a NOTIFY, a START that names an unknown key, an EXCLUDE: the events of this
    /// input say so.
    fn ask_for_what_lacks(&mut self, rng: &mut dyn Random) {
        let mut spread = None::<Duration>;
        for output in &self.outputs {
            let Output::Event(event) = output else {
                continue;
            };
            let wanted = match event {
                Event::Notified { spread } => *spread,
                Event::KeyWanted { .. } => Duration::ZERO,
                // By a carrier: the server does not know it yet, and others may wait for that.
                Event::KeyReceived { .. } if matches!(self.asking.state, State::Rest) => {
                    RECEIVED_SPREAD
                }
                Event::KeyReceived { .. }
                | Event::Renewed { .. }
                | Event::FleetRenewed { .. }
                | Event::OffsetRenewed { .. }
                | Event::Sending { .. }
                | Event::Retired { .. }
                | Event::SessionReady { .. }
                | Event::SessionRefused { .. }
                | Event::MarksStored { .. }
                | Event::PacketSessionsReady { .. }
                | Event::PacketSessionsRefused { .. }
                | Event::PacketMarksStored { .. }
                | Event::StockSenderReady { .. }
                | Event::StockSenderRefused { .. }
                | Event::StockMarkStored { .. }
                | Event::StockSenderEnded { .. }
                | Event::TimeHeard { .. }
                | Event::KeySetHeard { .. }
                | Event::Excluded { .. }
                | Event::Readmitted { .. }
                | Event::Locked { .. }
                | Event::Unlocked
                | Event::UnlockAllowed
                | Event::Stopped { .. }
                | Event::Resumed { .. }
                | Event::RecordChanged { .. }
                | Event::Removed { .. }
                | Event::AskEnded { .. }
                | Event::PathFound { .. }
                | Event::PathLost { .. }
                | Event::PeerChanged { .. }
                | Event::PathsChanged => continue,
            };
            spread = Some(spread.map_or(wanted, |sooner| sooner.min(wanted)));
        }
        let announced = self
            .user
            .iter()
            .flat_map(|user| user.groups.values())
            .any(|group| group.announced.is_some());
        if announced && self.asking.next.is_none() && matches!(self.asking.state, State::Rest) {
            spread = Some(spread.unwrap_or(ANNOUNCED_SPREAD));
        }
        if let Some(spread) = spread {
            self.asking.plan(self.now, spread, rng);
        }
    }

    /// The sequence is over. What came to nothing begins anew after a pause that doubles.
    fn end_asking(&mut self, outcome: AskOutcome, rng: &mut dyn Random) {
        self.asking.state = State::Rest;
        self.asking.mixed = 0;
        let pause = if outcome == AskOutcome::Current {
            self.asking.pause = PAUSE_MIN;
            let knows_time = self.time().is_some();
            jittered(if knows_time { ASK_EVERY } else { TIME_WITHIN }, rng)
        } else {
            let pause = self.asking.pause;
            self.asking.pause = (pause * 2).min(PAUSE_MAX);
            jittered(pause, rng)
        };
        let at = self.now.plus(pause);
        let lacks_time = outcome == AskOutcome::Current && self.time().is_none();
        self.asking.for_time = lacks_time.then_some(at);
        self.asking.next = Some(self.asking.next.map_or(at, |next| next.min(at)));
        self.outputs
            .push_back(Output::Event(Event::AskEnded { outcome }));
    }

    /// The time as a request states it.
    fn asked_time(&self) -> UnixSeconds {
        self.time().unwrap_or(UnixSeconds::new(0))
    }

    fn on_introduction(
        &mut self,
        piece: u8,
        pieces: u8,
        hash: [u8; 32],
        octets: &[u8],
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        let State::ExpectIntroduction(state) = &mut self.asking.state else {
            return Err(DropReason::NotAsked);
        };
        let Some(whole) = state.add(piece, pieces, hash, octets) else {
            let missing: Vec<_> = state.missing().map(hello).collect();
            if state.is_fresh() {
                let hellos = missing.into_iter().map(Output::ToServer);
                self.outputs.extend(hellos);
            }
            return Ok(());
        };
        let introduction = Introduction::decode(&whole).map_err(|_| DropReason::Malformed)?;
        // Newer signing and KEM keys may be in it; the root's signature alone counts.
        match self.on_frame(&introduction.key_set_frame) {
            Ok(()) | Err(DropReason::KeySetNotNewer) => {}
            Err(reason) => return Err(reason),
        }
        let long = introduction.long_keys.iter();
        let kems = long
            .clone()
            .filter_map(|key| KemPublic::listed_in(&self.key_set, key));
        let mut rsas = long.filter_map(|key| RsaPublic::listed_in(&self.key_set, key));
        (self.asking.kems, self.asking.rsa) = (kems.collect(), rsas.next());
        self.asking.state = State::Rest;
        self.begin_asking(rng);
        Ok(())
    }
}

/// A random part of `span`.
fn part_of(span: Duration, rng: &mut dyn Random) -> Duration {
    let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
    let drawn = u64::from_be_bytes(octets(rng));
    Duration::from_nanos(((u128::from(drawn) * u128::from(nanos)) >> 64) as u64)
}

/// `span`, a quarter shorter or longer.
pub(super) fn jittered(span: Duration, rng: &mut dyn Random) -> Duration {
    span * 3 / 4 + part_of(span / 2, rng)
}

/// RSA operations in a second: of 8192 bits they are a tenth of one core.
const OPENINGS: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(500);
const TRIES: u32 = 6;
/// Rest after a sequence that came to nothing.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(600);
/// Over this time terminals tell of a key that came by a carrier.
const RECEIVED_SPREAD: Duration = Duration::from_millis(1000);
/// So often a terminal that lacks nothing asks.
const ASK_EVERY: Duration = Duration::from_secs(3600);
/// The server's TIME, or a beacon, comes within this time; else it is asked again (KR-399).
const TIME_WITHIN: Duration = Duration::from_secs(15);
/// Over this time terminals ask for an epoch that a command named: a KEYDIST may be on its way.
const ANNOUNCED_SPREAD: Duration = Duration::from_secs(4);
