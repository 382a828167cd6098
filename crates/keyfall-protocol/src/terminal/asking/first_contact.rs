//! First contact by a one-time token (FORMATS section 8; REQUIREMENTS R-036, R-015): who has nothing
//! but a token and the server's address asks who answers there, checks that against the root's hash in
//! the token, and fetches what an enrolment package would bring.
//!
//! ```text
//! ExpectIntroduction ──► ExpectKeyDis ──► a Terminal that stores, confirms, and asks on
//!   (HELLO)                (KEY-REQ)
//! ```

use std::collections::VecDeque;

use thiserror::Error;

use super::answer::{ExpectStore, KEY_DIS_INFO, pair_in};
use super::request::{COOKIES_MAX, ExpectIntroduction, KEY_REQ_INFO, padded_len};
use super::{Retry, State};
use crate::command::{KeySet, SignerClass, VerifyingKey};
use crate::enrolment::{EnrolmentPackage, PackageError};
use crate::ids::{Tick, UnixSeconds};
use crate::keys::{Secret, WrapKey};
use crate::rng::{Random, octets};
use crate::sharing::message::{
    AckStatus, Cookie, KeyDis, KeyReq, Message, Reference, RequestHash, hello, marked, message_in,
};
use crate::sharing::pair::{AckKey, Ask, Grant, Line, PlainHash, SignedGrant};
use crate::sharing::{Assembly, Introduction, KemPublic, KemSecret, datagrams};
use crate::stats::{DropCounters, DropReason};
use crate::terminal::Terminal;
use crate::terminal::budget::Budget;
use crate::token::{Token, UNKNOWN_G};

/// Somebody with a token. Driven as the machines are; what comes of it is a [`Terminal`].
#[derive(Debug)]
pub struct FirstContact {
    key: WrapKey,
    token: Token,
    step: Step,
    parts: Assembly<()>,
    /// Answers that strangers can make this look at.
    replies: Budget,
    /// What was wrong with an introduction that was not believed.
    fault: Option<FirstContactError>,
    drops: DropCounters,
    now: Tick,
    outputs: VecDeque<ContactOutput>,
}

/// What may be fed in.
#[derive(Debug)]
pub enum ContactInput<'a> {
    /// A datagram from where the server is, marker included; only what it proves counts.
    FromServer(&'a [u8]),
    /// The time of [`ContactOutput::Timeout`] has come, or any other moment.
    Timeout,
}

/// What the driver has to do.
#[must_use]
#[derive(Debug)]
pub enum ContactOutput {
    /// A datagram for the server, marker included.
    ToServer(Vec<u8>),
    /// The end: a terminal, whose first output is the store of its first snapshot. Once that is durable
    /// it confirms, and asks the server under its own key whether that was heard.
    Brought(Box<Terminal>),
    /// The end: nothing came.
    Ended(FirstContactError),
    /// Nothing more to do before `at`; `None`: after the end.
    Timeout { at: Option<Tick> },
}

/// Why nothing came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum FirstContactError {
    #[error(
        "nobody answers there: look at the address, at the way to it, and whether the server listens there"
    )]
    NoAnswer,
    #[error(
        "who answers there is not of the fleet that the token is of: look at the address, or take a token \
         of that fleet"
    )]
    OtherRoot,
    #[error(
        "who answers there shows a list of keys that the fleet's root did not sign: do not trust it, and look \
         at the address"
    )]
    KeySetNotSigned,
    #[error(
        "the fleet's root allows no suite in which a token counts (hpke, hpke-pq): enrol by a package"
    )]
    NoSuite,
    #[error(
        "the server does not take this token: it was used, has ended, or was taken back; ask for a new one, \
         made with `keyfall admin terminal add NAME --token`"
    )]
    NotKnown,
}

#[derive(Debug)]
enum Step {
    ExpectIntroduction(ExpectIntroduction),
    ExpectKeyDis(Box<Asked>),
    Ended,
}

/// Who answers, as far as the root has signed it.
#[derive(Clone, Debug)]
struct Known {
    root: VerifyingKey,
    key_set: KeySet,
    /// Public keys that were fetched and are listed.
    fetched: Vec<KemPublic>,
    /// To which is sealed.
    kem: KemPublic,
}

/// A request is on its way.
#[derive(Debug)]
struct Asked {
    known: Known,
    retry: Retry,
    /// The message as it was sent.
    message: Vec<u8>,
    hash: RequestHash,
    nonce: [u8; 16],
    fresh: KemSecret,
    cookie: Option<Cookie>,
    cookies: u32,
}

impl FirstContact {
    /// Begins.
    #[must_use]
    pub fn new(token: Token, now: Tick, rng: &mut dyn Random) -> Self {
        let retry = Retry::first(now, rng);
        Self {
            key: token.key(),
            token,
            step: Step::ExpectIntroduction(ExpectIntroduction::begin(retry)),
            parts: Assembly::new(4, 64),
            replies: Budget::new(REPLIES, REPLIES),
            fault: None,
            drops: DropCounters::default(),
            now,
            outputs: VecDeque::from([ContactOutput::ToServer(hello(0))]),
        }
    }

    /// Takes one input. What does not verify changes nothing.
    pub fn handle_input(&mut self, now: Tick, rng: &mut dyn Random, input: ContactInput<'_>) {
        self.now = self.now.max(now);
        if let ContactInput::FromServer(datagram) = input
            && self.replies.take(self.now, 0)
            && let Err(reason) = self.on_datagram(datagram, rng)
        {
            // The true answer may still come.
            self.drops.count(self.now, reason);
        }
        self.turn(rng);
    }

    /// The next thing to do; call until [`ContactOutput::Timeout`].
    pub fn poll_output(&mut self) -> ContactOutput {
        let at = match &self.step {
            Step::ExpectIntroduction(state) => Some(state.retry.at),
            Step::ExpectKeyDis(asked) => Some(asked.retry.at),
            Step::Ended => None,
        };
        let next = self.outputs.pop_front();
        next.unwrap_or(ContactOutput::Timeout { at })
    }

    /// What came and was not believed, and why.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    fn on_datagram(&mut self, datagram: &[u8], rng: &mut dyn Random) -> Result<(), DropReason> {
        let octets = message_in(datagram).map_err(|_| DropReason::Malformed)?;
        let message = Message::decode(octets).map_err(|_| DropReason::Malformed)?;
        let Message::Part(part) = message else {
            return self.on_message(&message, octets, rng);
        };
        match self.parts.add((), &part, self.now) {
            Some(whole) => {
                let message = Message::decode(&whole).map_err(|_| DropReason::Malformed)?;
                self.on_message(&message, &whole, rng)
            }
            None => Ok(()),
        }
    }

    fn on_message(
        &mut self,
        message: &Message<'_>,
        sent: &[u8],
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        match *message {
            Message::Introduction {
                piece,
                pieces,
                hash,
                octets,
            } => self.on_introduction((piece, pieces), hash, octets, rng),
            Message::Cookie {
                reference, cookie, ..
            } => self.on_cookie(reference, cookie, rng),
            Message::KeyDis {
                reference,
                distribution,
            } => self.on_answer(reference, distribution, sent),
            Message::KeyReq { .. }
            | Message::Ack { .. }
            | Message::Part(_)
            | Message::Hello { .. }
            | Message::Command { .. } => Err(DropReason::NotAsked),
        }
    }

    fn on_introduction(
        &mut self,
        (piece, pieces): (u8, u8),
        hash: [u8; 32],
        octets: &[u8],
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        let Step::ExpectIntroduction(state) = &mut self.step else {
            return Err(DropReason::NotAsked);
        };
        let Some(whole) = state.add(piece, pieces, hash, octets) else {
            if state.is_fresh() {
                let hellos = state.missing().map(hello).map(ContactOutput::ToServer);
                self.outputs.extend(hellos);
            }
            return Ok(());
        };
        let introduction = Introduction::decode(&whole).map_err(|_| DropReason::Malformed)?;
        match self.judge(&introduction) {
            Ok(known) => {
                self.fault = None;
                let retry = Retry::first(self.now, rng);
                self.ask(known, retry, None, 0, rng);
                Ok(())
            }
            Err(fault) => {
                self.fault = Some(fault);
                Err(DropReason::UnknownSigner)
            }
        }
    }

    /// The root is the token's, the KEYSET the root's, and the key to which is sealed one that the KEYSET
    /// lists, of the first suite in it of which it lists one (KR-375, KR-376).
    fn judge(&self, introduction: &Introduction) -> Result<Known, FirstContactError> {
        let root = introduction.root;
        if !self.token.is_of(&root) {
            return Err(FirstContactError::OtherRoot);
        }
        let key_set = introduction.key_set();
        let key_set = key_set.ok_or(FirstContactError::KeySetNotSigned)?;
        let fetched = introduction.long_keys.iter();
        let fetched: Vec<_> = fetched
            .filter_map(|octets| KemPublic::listed_in(&key_set, octets))
            .collect();
        // What came along beside the KEYSET nobody signed: that it is missing changes no suite.
        let suite = key_set.token_kem().ok_or(FirstContactError::NoSuite)?;
        let shown = fetched.iter().find(|key| key.suite() == suite);
        let kem = shown.cloned().or_else(|| key_set.kem_in_full(suite));
        let kem = kem.ok_or(FirstContactError::NoSuite)?;
        Ok(Known {
            root,
            key_set,
            fetched,
            kem,
        })
    }

    fn ask(
        &mut self,
        known: Known,
        retry: Retry,
        cookie: Option<Cookie>,
        cookies: u32,
        rng: &mut dyn Random,
    ) {
        let kem = known.kem.suite();
        let suite = kem.sharing();
        let fresh = KemSecret::from_seed(kem, Secret::init_with(|into| rng.fill(into)));
        let ask = Ask {
            terminal: None,
            nonce: octets(rng),
            time: UnixSeconds::new(0),
            held: Vec::new(),
            fresh: Some(fresh.public().octets().to_vec()),
        };
        let wrap = &self.key;
        let line = Line { suite, wrap };
        let inner = padded_len(suite).map(|len| ask.seal(line, UNKNOWN_G, cookie, len, rng));
        let sealed = inner.and_then(|inner| known.kem.seal(KEY_REQ_INFO, &inner, rng));
        let Some((enc, ct)) = sealed else {
            return self.end(FirstContactError::NoSuite);
        };
        let request = KeyReq::Hpke {
            suite,
            enc: &enc,
            ct: &ct,
        };
        let message = Message::KeyReq { request, cookie }.encode();
        self.send(&message, cookie);
        self.step = Step::ExpectKeyDis(Box::new(Asked {
            known,
            retry,
            hash: RequestHash::of(&message),
            message,
            nonce: ask.nonce,
            fresh,
            cookie,
            cookies,
        }));
    }

    fn send(&mut self, message: &[u8], cookie: Option<Cookie>) {
        let sent = datagrams(message, cookie);
        self.outputs
            .extend(sent.into_iter().map(ContactOutput::ToServer));
    }

    fn on_cookie(
        &mut self,
        reference: Reference,
        cookie: Cookie,
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        let asked = match &self.step {
            Step::ExpectKeyDis(asked) if asked.hash.reference() == reference => asked,
            Step::ExpectIntroduction(_) | Step::ExpectKeyDis(_) | Step::Ended => {
                return Err(DropReason::NotAsked);
            }
        };
        // The very cookie that was shown: it is good, so the token is not.
        if asked.cookie == Some(cookie) {
            self.end(FirstContactError::NotKnown);
            return Ok(());
        }
        if asked.cookies >= COOKIES_MAX {
            return Err(DropReason::NotAsked);
        }
        let (known, retry, cookies) = (asked.known.clone(), asked.retry, asked.cookies + 1);
        self.ask(known, retry, Some(cookie), cookies, rng);
        Ok(())
    }

    fn on_answer(
        &mut self,
        reference: Reference,
        distribution: KeyDis<'_>,
        sent: &[u8],
    ) -> Result<(), DropReason> {
        let asked = match &self.step {
            Step::ExpectKeyDis(asked) if asked.hash.reference() == reference => asked,
            Step::ExpectIntroduction(_) | Step::ExpectKeyDis(_) | Step::Ended => {
                return Err(DropReason::NotAsked);
            }
        };
        let (grant, plain) = asked.opened(&self.key, distribution)?;
        let (package, first) = asked.contents(&grant)?;
        let mixed = package.wrap.mix(first);
        let key = AckKey::new(&mixed, &asked.message, sent);
        let status = AckStatus::All;
        let ack = Message::Ack {
            suite: asked.known.kem.suite().sharing(),
            reference,
            status,
            mac: key.make(status, &plain),
        };
        let ack = marked(&ack.encode());
        let fetched = asked.known.fetched.clone();
        let terminal = Terminal::arrive(package, mixed, &grant, self.now)
            .map_err(|_| DropReason::Malformed)?
            .confirming(reference, ack, fetched);
        self.step = Step::Ended;
        self.outputs
            .push_back(ContactOutput::Brought(Box::new(terminal)));
        Ok(())
    }

    /// Timers.
    fn turn(&mut self, rng: &mut dyn Random) {
        let now = self.now;
        let again = match &self.step {
            Step::ExpectIntroduction(state) if state.retry.at <= now => state.retry.again(now, rng),
            Step::ExpectKeyDis(asked) if asked.retry.at <= now => asked.retry.again(now, rng),
            Step::ExpectIntroduction(_) | Step::ExpectKeyDis(_) | Step::Ended => return,
        };
        // Whoever else answers there has had his time, too.
        let again = again.filter(|retry| self.fault.is_none() || retry.tries <= FAULTY_TRIES);
        let Some(retry) = again else {
            return self.end(self.fault.unwrap_or(FirstContactError::NoAnswer));
        };
        let (message, cookie) = match &mut self.step {
            Step::ExpectIntroduction(state) => {
                state.retry = retry;
                let hellos = state.missing().map(hello).map(ContactOutput::ToServer);
                self.outputs.extend(hellos);
                return;
            }
            Step::ExpectKeyDis(asked) => {
                asked.retry = retry;
                (asked.message.clone(), asked.cookie)
            }
            Step::Ended => return,
        };
        self.send(&message, cookie);
    }

    fn end(&mut self, error: FirstContactError) {
        self.step = Step::Ended;
        self.outputs.push_back(ContactOutput::Ended(error));
    }
}

impl Asked {
    /// As a terminal opens an answer (KR-360): by the fresh key, signed by a listed key of the class
    /// keys in its time, under the token, to this request.
    fn opened(
        &self,
        key: &WrapKey,
        distribution: KeyDis<'_>,
    ) -> Result<(Grant, PlainHash), DropReason> {
        let suite = self.known.kem.suite().sharing();
        let (enc, ct) = match distribution {
            KeyDis::Hpke {
                suite: spoken,
                enc,
                ct,
            } if spoken == suite => (enc, ct),
            KeyDis::Psk { .. } | KeyDis::Hpke { .. } | KeyDis::RsaMisty1(_) => {
                return Err(DropReason::OtherSuite);
            }
        };
        let info = [KEY_DIS_INFO, &self.hash.as_bytes()[..]].concat();
        let inner = self.fresh.open(&info, enc, ct);
        let inner = inner.ok_or(DropReason::DoesNotOpen)?;
        let pair = pair_in(&inner, suite, self.hash.reference())?;
        let signed = SignedGrant::decode(pair).map_err(|_| DropReason::Malformed)?;
        let key_set = &self.known.key_set;
        let signer = key_set.key(signed.signer());
        let signer = signer.ok_or(DropReason::UnknownSigner)?;
        if signer.class != SignerClass::Keys {
            return Err(DropReason::WrongClass);
        }
        let verified = signed.verify(&self.hash, &signer.public);
        let verified = verified.ok_or(DropReason::BadSignature)?;
        let (grant, plain) = verified.open(key).ok_or(DropReason::DoesNotOpen)?;
        if grant.nonce != self.nonce {
            return Err(DropReason::NotAsked);
        }
        if !(signer.not_before..=signer.expires).contains(&grant.time) {
            return Err(DropReason::SignerExpired);
        }
        if grant.g > key_set.fleet_schedule.bound(signer.expires) {
            return Err(DropReason::AboveBound);
        }
        Ok((grant, plain))
    }

    /// What a package would bring, of the same root and no older KEYSET, with fresh octets beside it.
    fn contents<'g>(
        &self,
        grant: &'g Grant,
    ) -> Result<(EnrolmentPackage, &'g Secret<32>), DropReason> {
        let package = grant.package.as_ref().ok_or(DropReason::Malformed)?;
        let package = EnrolmentPackage::decode(package).map_err(|_| DropReason::Malformed)?;
        let first = grant.first.as_ref().ok_or(DropReason::Malformed)?;
        let identity = &package.identity;
        let key_set = identity.key_set().map_err(|_| DropReason::Malformed)?;
        let fits = identity.root == self.known.root
            && key_set.version >= self.known.key_set.version
            && package.wrap.generation() >= grant.g;
        fits.then_some((package, first))
            .ok_or(DropReason::Malformed)
    }
}

impl Terminal {
    /// As [`Self::enrol`], with the fresh octets mixed in, by which no other who had the token knows its
    /// key. The key before stays beside it until the server has shown that it knows the mixed one.
    fn arrive(
        package: EnrolmentPackage,
        mixed: WrapKey,
        grant: &Grant,
        now: Tick,
    ) -> Result<Self, PackageError> {
        let before = package.wrap.duplicate();
        let mut terminal = Self::begin(package, grant.g, now)?;
        if let Some(user) = &mut terminal.user {
            user.mix(&before, mixed);
        }
        Ok(terminal)
    }

    /// It stores first, then sends `ack`, and then asks on.
    fn confirming(mut self, reference: Reference, ack: Vec<u8>, fetched: Vec<KemPublic>) -> Self {
        self.asking.reachable = true;
        self.asking.kems = fetched;
        self.asking.state = State::ExpectStore(ExpectStore::of_first(reference, ack));
        self.settle();
        self
    }
}

/// Datagrams that are looked at in a second.
const REPLIES: u32 = 200;
/// So often is asked where somebody else answered.
const FAULTY_TRIES: u32 = 3;
