//! From a datagram to its answer.

use core::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::cookies::TIME_SLACK;
use super::job::{Job, Outcome, Task, Worked};
use super::{Answer, Asker, Open, Proof, cookie_message, sent_to};
use crate::command::{Body, Target, Time};
use crate::ids::{Generation, GroupNumber, KeyEpoch, KeyIdKind, TerminalNumber, UnixSeconds};
use crate::keys::WrapKey;
use crate::rng::Random;
use crate::server::callers::Caller;
use crate::server::compose::CLOCK_ERROR_MS;
use crate::server::{By, Order, Output, Server, TerminalRecord, TokenMisuse};
use crate::sharing::message::{
    AckStatus, Cookie, KeyDis, KeyReq, MARKER, Message, PART_OCTETS, Part, Reference, RequestHash,
    Requested, SealedAsk, marked, sha256, type_of,
};
use crate::sharing::pair::{Ask, Line};
use crate::sharing::{
    Introduction, KemPublic, KemSecret, KemSuite, SharingSuite, command_datagram,
};

/// A request that is being answered.
pub(super) struct Request<'m> {
    pub(super) from: SocketAddr,
    /// The message as it was sent.
    pub(super) message: &'m [u8],
    pub(super) hash: RequestHash,
    pub(super) requested: Requested,
    pub(super) cookie: Option<Cookie>,
    /// It showed that `from` receives.
    pub(super) returns: bool,
}

impl<'m> Request<'m> {
    /// One for which work began.
    pub(super) fn of(asker: &'m Asker) -> Self {
        Self {
            from: asker.from,
            message: &asker.message,
            hash: asker.hash,
            requested: asker.requested.clone(),
            cookie: asker.cookie,
            returns: asker.returns,
        }
    }

    /// What a COOKIE says of it, and how many octets it has.
    pub(super) fn named(&self) -> (Reference, usize) {
        (self.hash.reference(), self.message.len())
    }
}

impl Server {
    /// What came by UDP. Silence to what does not verify.
    pub(in crate::server) fn on_desk(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        rng: &mut dyn Random,
    ) {
        if matches!(type_of(datagram), Some(STOP_ACK | START_ACK | BUNDLE)) {
            return self.on_datagram(from, datagram);
        }
        if !self.may_answer() {
            return;
        }
        let Ok(message) = Message::decode_datagram(datagram) else {
            self.desk.counts.silent += 1;
            return;
        };
        match message {
            Message::KeyReq { .. } => {
                self.on_request(from, &datagram[4..], &message, rng);
            }
            Message::Part(part) => self.on_part(from, &part, rng),
            Message::Ack {
                suite,
                reference,
                status,
                mac,
            } => self.on_ack(from, (suite, reference), (status, &mac), rng),
            Message::Hello { piece, .. } => self.on_hello(from, piece, datagram.len()),
            Message::Cookie { .. }
            | Message::KeyDis { .. }
            | Message::Command { .. }
            | Message::Introduction { .. } => self.desk.counts.silent += 1,
        }
    }

    /// As for the carousel, but while a batch is being stored, too: what is told is what is stored.
    fn may_answer(&self) -> bool {
        self.restored.held.is_none()
            && self.sequence < self.fleet.sequence_reserved
            && self.at.wall <= self.signers_expire()
    }

    /// Public-key work is done.
    pub(in crate::server) fn on_worked(&mut self, worked: Worked, rng: &mut dyn Random) {
        let Some(asker) = self.desk.jobs.remove(&worked.number) else {
            return;
        };
        self.desk.legacy_jobs.remove(&worked.number);
        match worked.outcome {
            Outcome::Opened(Some(inner)) => self.on_opened(&asker, &inner, rng),
            Outcome::Sealed(Some((enc, ct))) => self.on_sealed(&asker, &enc, &ct),
            Outcome::OpenedLegacy(Some(id)) => self.on_legacy_opened(&asker, &id),
            Outcome::SealedLegacy(Some(sealed)) => self.on_legacy_sealed(&asker, sealed),
            Outcome::Opened(None)
            | Outcome::Sealed(None)
            | Outcome::OpenedLegacy(None)
            | Outcome::SealedLegacy(None) => self.desk.counts.silent += 1,
        }
    }

    /// Parts are kept only for who has shown a cookie.
    fn on_part(&mut self, from: SocketAddr, part: &Part<'_>, rng: &mut dyn Random) {
        let now = self.at.now;
        let cookies = self.desk.cookies(now, rng);
        let returns = part
            .cookie
            .is_some_and(|cookie| cookies.check(&cookie, from, now));
        if !returns {
            // The whole's name is the request's reference.
            if part.index == 0 {
                let asked = (Reference::new(part.whole), part.octets.len());
                self.send_cookie(from, SharingSuite::HpkePq, asked, rng);
            }
            return;
        }
        let Some(whole) = self.desk.parts.add(from, part, now) else {
            return;
        };
        match Message::decode(&whole) {
            Ok(message @ Message::KeyReq { .. }) => self.on_request(from, &whole, &message, rng),
            Ok(_) | Err(_) => self.desk.counts.silent += 1,
        }
    }

    fn on_request(
        &mut self,
        from: SocketAddr,
        octets: &[u8],
        message: &Message<'_>,
        rng: &mut dyn Random,
    ) {
        let &Message::KeyReq { request, cookie } = message else {
            return;
        };
        self.desk.counts.requests += 1;
        let now = self.at.now;
        let returns =
            cookie.is_some_and(|cookie| self.desk.cookies(now, rng).check(&cookie, from, now));
        let requested = Requested::new(octets);
        let asked = Request {
            from,
            message: octets,
            hash: requested.hash(),
            requested,
            cookie,
            returns,
        };
        if self.answers_again(&asked) {
            return;
        }
        let suite = request.suite();
        match request {
            KeyReq::Psk(ask) if suite == SharingSuite::Psk => {
                if let Some((caller, opened)) = self.open_ask(&asked, &ask, rng) {
                    if self.refuses(suite, caller.terminal()) {
                        return;
                    }
                    let first = self.is_near(opened.time)
                        && self.desk.cookies(now, rng).is_first(ask.iv, now);
                    if returns || first {
                        self.answer(&asked, suite, caller, &opened, rng);
                    } else {
                        self.send_cookie(from, suite, asked.named(), rng);
                    }
                }
            }
            KeyReq::Hpke { enc, ct, .. } => self.begin_opening(&asked, suite, enc, ct, rng),
            KeyReq::RsaMisty1(octets) => self.begin_legacy(&asked, octets, rng),
            // The pair of another suite stands alone only inside of it.
            KeyReq::Psk(_) => self.desk.counts.silent += 1,
        }
    }

    /// The same request, octet for octet, is answered alike or is being answered; a recording of it
    /// from elsewhere is judged anew.
    pub(super) fn answers_again(&mut self, asked: &Request<'_>) -> bool {
        let Some(open) = self.desk.open.get_mut(&asked.hash.reference()) else {
            return false;
        };
        if !asked.returns && open.from != asked.from {
            return false;
        }
        if let Some(answer) = &mut open.answer
            && answer.times < ANSWERS_MAX
        {
            answer.times += 1;
            let message = answer.message.clone();
            self.send_answer(asked.from, &message);
        }
        true
    }

    /// Who asks, and what, where the request is genuine. A name that is not known gets a cookie and
    /// the fleet's G with it, so that who slept steps and asks again.
    fn open_ask(
        &mut self,
        asked: &Request<'_>,
        ask: &SealedAsk<'_>,
        rng: &mut dyn Random,
    ) -> Option<(Caller, Ask)> {
        let g = self.fleet.fleet_generation;
        let caller = self.callers.find(ask.id, g, &self.terminals);
        // INVARIANT 2: nobody is told under a mixed key, or that it is not known, before it is stored;
        // nor is another one begun. It asks again.
        if self.desk.is_meeting(ask.id, caller.map(Caller::terminal)) {
            self.desk.counts.silent += 1;
            return None;
        }
        let wall = self.at.wall;
        let known = |caller| self.known_by(caller).filter(|(it, _)| it.may_ask(wall));
        let Some((caller, (terminal, key))) = caller.and_then(|it| Some((it, known(it)?))) else {
            if let Some(Caller::Token(number)) = caller
                && asked.returns
            {
                let from = asked.from;
                self.tell_of_token(number, TokenMisuse::Dead { from });
            }
            self.send_cookie(asked.from, ask.suite, asked.named(), rng);
            return None;
        };
        let number = match caller {
            Caller::Terminal(number) => Some(number),
            Caller::Token(_) => None,
        };
        // KR-390.
        let opened = ask.open(key, asked.cookie);
        let opened = opened.filter(|opened| opened.terminal == number);
        let Some(opened) = opened else {
            self.desk.counts.silent += 1;
            return None;
        };
        let number = terminal.number;
        match caller {
            Caller::Terminal(_) => Some((caller, opened)),
            // As to who is not known: what a token is worth, nobody learns without a good one.
            Caller::Token(_) if ask.suite == SharingSuite::Psk || !asked.returns => {
                if ask.suite == SharingSuite::Psk {
                    let from = asked.from;
                    self.desk.counts.downgrades += 1;
                    if asked.returns {
                        self.tell_of_token(number, TokenMisuse::Downgrade { from });
                    }
                }
                self.send_cookie(asked.from, ask.suite, asked.named(), rng);
                None
            }
            Caller::Token(_) => {
                (!self.is_held_by_another(number, asked.from)).then_some((caller, opened))
            }
        }
    }

    /// The terminal and the key by which it calls.
    fn known_by(&self, caller: Caller) -> Option<(&TerminalRecord, &WrapKey)> {
        let terminal = self.terminals.get(&caller.terminal())?;
        let key = match caller {
            Caller::Terminal(_) => &terminal.wrap,
            Caller::Token(_) => terminal.token.as_ref()?.key.as_ref()?,
        };
        Some((terminal, key))
    }

    /// Of two who come with one token the first is answered, and the other hears nothing: it is held
    /// for that address while the first may still confirm (KR-378).
    fn is_held_by_another(&mut self, number: TerminalNumber, from: SocketAddr) -> bool {
        let reference = self.desk.first.get(&number);
        let Some(open) = reference.and_then(|reference| self.desk.open.get(reference)) else {
            return false;
        };
        let first = open.from;
        let held = self.at.now.since(open.at) < TOKEN_HELD;
        if first == from {
            return false;
        }
        self.tell_of_token(number, TokenMisuse::Shared { first, then: from });
        self.desk.counts.silent += u64::from(held);
        held
    }

    /// Once for each terminal, kind of misuse and run of the server.
    fn tell_of_token(&mut self, terminal: TerminalNumber, misuse: TokenMisuse) {
        let kind = core::mem::discriminant(&misuse);
        if self.desk.told_token.insert((terminal, kind)) {
            let by = By {
                actor: "somebody with its token".to_owned(),
                reason: None,
                ticket: None,
            };
            let order = Order::NoteToken { terminal, misuse };
            self.waiting.push_back((None, order, by));
        }
    }

    /// Nothing is answered in a suite that the root does not list, whoever asks (KR-362).
    fn refuses(&mut self, suite: SharingSuite, terminal: TerminalNumber) -> bool {
        if self.fleet.key_set.limits.suites.contains(suite) {
            return false;
        }
        self.note_downgrade_of(Some(terminal), format!("terminal {terminal}"), suite);
        true
    }

    /// Counted each time, and written down once.
    pub(super) fn note_downgrade_of(
        &mut self,
        terminal: Option<TerminalNumber>,
        actor: String,
        suite: SharingSuite,
    ) {
        self.desk.counts.downgrades += 1;
        if self.desk.told_downgrade.insert(terminal) {
            let by = By {
                actor,
                reason: None,
                ticket: None,
            };
            self.waiting
                .push_back((None, Order::NoteDowngrade { terminal, suite }, by));
        }
    }

    fn begin_opening(
        &mut self,
        asked: &Request<'_>,
        suite: SharingSuite,
        enc: &[u8],
        ct: &[u8],
        rng: &mut dyn Random,
    ) {
        let listed = self.fleet.key_set.limits.suites.contains(suite);
        let key = KemSuite::of(suite).and_then(|kem| self.kem_secret(kem));
        let Some(key) = key.filter(|_| listed) else {
            self.desk.counts.downgrades += u64::from(!listed);
            self.desk.counts.silent += 1;
            return;
        };
        let now = self.at.now;
        let idle = self.desk.jobs.len() < BUSY;
        let begins = asked.returns
            || (idle && suite == SharingSuite::Hpke && {
                let from = asked.from;
                self.desk.cookies(now, rng).may_begin_bare(from, now)
            });
        if !begins {
            self.send_cookie(asked.from, suite, asked.named(), rng);
            return;
        }
        let (enc, ct) = (enc.to_vec(), ct.to_vec());
        self.begin_job(asked, Task::Open { key, enc, ct });
    }

    /// Its number; `None` where too many are out.
    pub(super) fn begin_job(&mut self, asked: &Request<'_>, task: Task) -> Option<u64> {
        if self.desk.jobs.len() >= JOBS_MAX {
            self.desk.counts.overload += 1;
            return None;
        }
        self.desk.last_job += 1;
        let number = self.desk.last_job;
        let asker = Asker {
            from: asked.from,
            message: asked.message.to_vec(),
            hash: asked.hash,
            requested: asked.requested.clone(),
            cookie: asked.cookie,
            returns: asked.returns,
        };
        self.desk.jobs.insert(number, asker);
        self.outputs.push_back(Output::Work(Job { number, task }));
        Some(number)
    }

    fn on_opened(&mut self, asker: &Asker, inner: &Zeroizing<Vec<u8>>, rng: &mut dyn Random) {
        let asked = Request::of(asker);
        let spoken = match Message::decode(&asker.message) {
            Ok(Message::KeyReq { request, .. }) => request.suite(),
            Ok(_) | Err(_) => return,
        };
        match Message::decode(inner) {
            Ok(Message::KeyReq {
                request: KeyReq::Psk(ask),
                cookie: None,
            }) if ask.suite == spoken => {
                // Another copy of it may have been answered while this one was opened.
                if self.answers_again(&asked) {
                    return;
                }
                if let Some((caller, opened)) = self.open_ask(&asked, &ask, rng) {
                    self.answer(&asked, spoken, caller, &opened, rng);
                }
            }
            Ok(_) | Err(_) => self.desk.counts.silent += 1,
        }
    }

    fn answer(
        &mut self,
        asked: &Request<'_>,
        suite: SharingSuite,
        caller: Caller,
        ask: &Ask,
        rng: &mut dyn Random,
    ) {
        let now = self.at.now;
        let fresh = match (KemSuite::of(suite), &ask.fresh) {
            (None, None) => None,
            (Some(kem), Some(octets)) => match KemPublic::new(kem, octets) {
                Some(fresh) => Some(fresh),
                None => return,
            },
            (None, Some(_)) | (Some(_), None) => return,
        };
        let Some((terminal, under)) = self.known_by(caller) else {
            return;
        };
        let number = terminal.number;
        let grant = match caller {
            Caller::Terminal(_) => self.grant(terminal, ask, suite, rng),
            Caller::Token(_) => self.grant_package(terminal, ask, rng),
        };
        // Of several answers with fresh octets the newest counts: a recording without a cookie would
        // make void what the terminal was given (KR-392).
        if grant.first.is_some() && !asked.returns {
            return self.send_cookie(asked.from, suite, asked.named(), rng);
        }
        let wrap = &terminal.wrap;
        let line = Line { suite, wrap: under };
        let (message, plain) = grant.seal(line, &asked.hash, &self.fleet.keys, rng);
        let mixed = grant.first.as_ref().map(|first| wrap.mix(first));
        let told = grant.keys.iter().map(|it| {
            let key = &it.key;
            (key.group(), key.epoch(), key.generation())
        });
        let held = ask.held.iter().filter_map(|it| {
            let group = it.kid.kind().and_then(KeyIdKind::group)?;
            // It gives up what it is no member of, and the ACK says so.
            let keeps = !grant.gone.contains(&group);
            keeps.then_some((group, it.epoch, it.generation))
        });
        let told: Vec<_> = held.chain(told).collect();
        let ack_under = mixed.as_ref().unwrap_or(wrap);
        let finished = fresh.is_none().then(|| Answer {
            proof: Proof::Pair(ack_under.duplicate(), asked.requested.clone(), plain),
            message: message.clone(),
            times: 1,
        });
        let reference = asked.hash.reference();
        let open = Open {
            terminal: number,
            from: asked.from,
            at: now,
            suite,
            answer: finished,
            plain: fresh.is_some().then_some(plain),
            lacks_time: !self.is_near(ask.time),
            told,
            mixed,
        };
        let brings_fresh = open.mixed.is_some();
        if !self.desk.remember(reference, open) {
            return;
        }
        if brings_fresh {
            self.desk.first.insert(number, reference);
        }
        match fresh {
            None => self.send_answer(asked.from, &message),
            Some(to) => {
                let info = [KEY_DIS_INFO, &asked.hash.as_bytes()[..]].concat();
                let inner = Zeroizing::new(message);
                let task = Task::Seal { to, info, inner };
                self.begin_job(asked, task);
            }
        }
    }

    fn on_sealed(&mut self, asker: &Asker, enc: &[u8], ct: &[u8]) {
        let reference = asker.hash.reference();
        let Some(open) = self.desk.open.get_mut(&reference) else {
            return;
        };
        let Some(terminal) = self.terminals.get(&open.terminal) else {
            return;
        };
        let suite = open.suite;
        let message = Message::KeyDis {
            reference,
            distribution: KeyDis::Hpke { suite, enc, ct },
        };
        let message = message.encode();
        let Some(plain) = open.plain.take() else {
            return;
        };
        let under = open.mixed.as_ref().unwrap_or(&terminal.wrap);
        open.answer = Some(Answer {
            proof: Proof::Pair(under.duplicate(), asker.requested.clone(), plain),
            message: message.clone(),
            times: 1,
        });
        self.send_answer(asker.from, &message);
    }

    pub(super) fn send_answer(&mut self, to: SocketAddr, message: &[u8]) {
        self.desk.counts.answers += 1;
        for (to, octets) in sent_to(to, message) {
            self.outputs.push_back(Output::Send { to, octets });
        }
    }

    /// Only who opened the answer can say so (KR-370, T-06), and nothing changes before (KR-365).
    fn on_ack(
        &mut self,
        from: SocketAddr,
        (suite, reference): (SharingSuite, Reference),
        (status, mac): (AckStatus, &[u8; 32]),
        rng: &mut dyn Random,
    ) {
        let genuine = self.desk.open.get(&reference).is_some_and(|open| {
            let answer = open.answer.as_ref();
            let under = |answer: &Answer| answer.is_confirmed_by(status, mac);
            // Who asked anew under the old key may have mixed in what the newer answer brings: of two
            // only the newer counts.
            let first = self.desk.first.get(&open.terminal);
            let newest = open.mixed.is_none() || first == Some(&reference);
            open.suite == suite && newest && answer.is_some_and(under)
        });
        if !genuine {
            self.desk.counts.silent += 1;
            return;
        }
        let Some(open) = self.desk.open.remove(&reference) else {
            return;
        };
        self.desk.legacy_open.remove(&reference);
        self.desk.counts.acks += 1;
        self.peers.heard(open.terminal, from, self.at.now);
        if open.lacks_time {
            // Without the time it would send in no group. Its address has shown that it receives.
            let octets = command_datagram(&self.time_for_one());
            self.outputs.push_back(Output::Send { to: from, octets });
        }
        self.send_records(open.terminal, from, rng);
        if status != AckStatus::All {
            self.desk.counts.refused_acks += 1;
            return;
        }
        for (group, epoch, generation) in open.told {
            let confirmed = self.desk.confirmed.entry((open.terminal, group));
            let newest = confirmed.or_insert((epoch, generation));
            *newest = (*newest).max((epoch, generation));
            self.on_holding(open.terminal, group, epoch, generation);
        }
        if let Some(mixed) = open.mixed {
            let by = By {
                actor: format!("terminal {}", open.terminal),
                reason: None,
                ticket: None,
            };
            self.desk.first.remove(&open.terminal);
            self.desk.mixed.insert(open.terminal, mixed);
            let terminal = open.terminal;
            let order = Order::FirstContact { terminal, from };
            self.waiting.push_back((None, order, by));
        }
    }

    fn on_hello(&mut self, from: SocketAddr, piece: u8, asked: usize) {
        let version = self.fleet.key_set.version;
        if self
            .desk
            .introduction
            .as_ref()
            .is_none_or(|(of, _)| *of != version)
        {
            let whole = self.introduction().encode();
            let hash = sha256(&[&whole]);
            let pieces: Vec<_> = whole.chunks(PART_OCTETS).collect();
            let count = u8::try_from(pieces.len()).unwrap_or(u8::MAX);
            let messages = (0..count).zip(pieces).map(|(piece, octets)| {
                let message = Message::Introduction {
                    piece,
                    pieces: count,
                    hash,
                    octets,
                };
                marked(&message.encode())
            });
            self.desk.introduction = Some((version, messages.collect()));
        }
        let pieces = self.desk.introduction.as_ref().map(|(_, pieces)| pieces);
        let octets = pieces.and_then(|pieces| pieces.get(usize::from(piece)));
        match octets.filter(|octets| octets.len() <= asked) {
            Some(octets) => {
                let octets = octets.clone();
                self.outputs.push_back(Output::Send { to: from, octets });
            }
            None => self.desk.counts.silent += 1,
        }
    }

    /// What the server says of itself to whoever asks.
    #[must_use]
    pub fn introduction(&self) -> Introduction {
        let kem_pq = self.fleet.kem_pq.iter();
        let kem_pq = kem_pq.map(|key| key.public().octets().to_vec());
        let rsa = self.fleet.rsa.iter();
        let rsa = rsa.map(|key| key.public().as_spki().to_vec());
        Introduction {
            root: self.fleet.root,
            key_set_frame: self.fleet.key_set_frame.clone(),
            long_keys: kem_pq.chain(rsa).collect(),
        }
    }

    /// No longer than the request or part, which has `len` octets (KR-364): else nothing.
    pub(super) fn send_cookie(
        &mut self,
        to: SocketAddr,
        suite: SharingSuite,
        (reference, len): (Reference, usize),
        rng: &mut dyn Random,
    ) {
        let now = self.at.now;
        let cookie = self.desk.cookies(now, rng).make(to, now);
        let frame = self.time_for_one();
        let octets = cookie_message(suite, reference, cookie, Some(&frame));
        if octets.len() > MARKER.len() + len {
            self.desk.counts.silent += 1;
            return;
        }
        self.desk.counts.cookies += 1;
        self.outputs.push_back(Output::Send { to, octets });
    }

    /// Whether a time is the server's, give or take what a terminal without beacons drifts.
    pub(super) fn is_near(&self, time: UnixSeconds) -> bool {
        let wall = self.at.wall;
        time.since(wall) <= TIME_SLACK && wall.since(time) <= TIME_SLACK
    }

    /// A beacon without floors, signed once a second at the most.
    fn time_for_one(&mut self) -> Vec<u8> {
        let wall = self.at.wall;
        if let Some((at, frame)) = &self.desk.beacon
            && *at == wall
        {
            return frame.clone();
        }
        let time = Time {
            seconds: wall,
            max_error_ms: CLOCK_ERROR_MS,
            floors: Vec::new(),
        };
        let frame = self.sign_for(Target::All, Body::Time(time));
        self.sequence = self.sequence.plus(1);
        self.desk.beacon = Some((wall, frame.clone()));
        frame
    }

    fn kem_secret(&mut self, kem: KemSuite) -> Option<Arc<KemSecret>> {
        let version = self.fleet.key_set.version;
        if self.desk.kems.as_ref().is_none_or(|(of, _)| *of != version) {
            let held = [&self.fleet.kem, &self.fleet.kem_pq];
            let held = held.into_iter().flatten();
            let held = held.map(|key| Arc::new(key.duplicate())).collect();
            self.desk.kems = Some((version, held));
        }
        let (_, held) = self.desk.kems.as_ref()?;
        held.iter().find(|key| key.public().suite() == kem).cloned()
    }

    /// What a terminal has confirmed since the start: it holds that key of the group.
    #[must_use]
    pub fn confirmed(
        &self,
        terminal: TerminalNumber,
        group: GroupNumber,
    ) -> Option<(KeyEpoch, Generation)> {
        self.desk.confirmed.get(&(terminal, group)).copied()
    }

    /// Where a terminal was heard last, where it answers.
    #[must_use]
    pub fn heard_from(&self, terminal: TerminalNumber) -> Option<SocketAddr> {
        self.peers.reachable(terminal, self.at.now)
    }

    /// What came to the desk.
    #[must_use]
    pub fn desk_counts(&self) -> super::DeskCounts {
        self.desk.counts
    }
}

const STOP_ACK: u8 = 5;
const START_ACK: u8 = 6;
const BUNDLE: u8 = 11;
const KEY_DIS_INFO: &[u8] = b"KF1/key-dis";
/// Jobs that are out when the server asks everybody for a cookie first.
const BUSY: usize = 64;
const JOBS_MAX: usize = 8192;
/// For so long nobody else is answered by the token that an open answer was given to.
const TOKEN_HELD: Duration = Duration::from_secs(15);
/// How often one answer is sent.
const ANSWERS_MAX: u8 = 8;
