//! What is sent: KEY-REQ, and HELLO where a public key of the server is missing.

use super::{AskOutcome, Retry, State};
use crate::ids::Generation;
use crate::keys::{Secret, WrapKey};
use crate::rng::{Random, octets};
use crate::sharing::message::{Cookie, KeyReq, Message, Reference, RequestHash, hello, sha256};
use crate::sharing::pair::{Ask, Holding, Line};
use crate::sharing::{KemPublic, KemSecret, KemSuite, SharingSuite, datagrams};
use crate::stats::DropReason;
use crate::terminal::compartment::OFFSET_MAX;
use crate::terminal::{Output, Terminal};

/// The pieces of the introduction that have come.
#[derive(Debug)]
pub(super) struct ExpectIntroduction {
    pub(super) retry: Retry,
    hash: Option<[u8; 32]>,
    pieces: Vec<Option<Vec<u8>>>,
}

/// A request is on its way.
#[derive(Debug)]
pub(super) struct ExpectKeyDis {
    pub(super) retry: Retry,
    pub(super) suite: SharingSuite,
    /// The message as it was sent.
    pub(super) message: Vec<u8>,
    pub(super) hash: RequestHash,
    pub(super) nonce: [u8; 16],
    /// What opens the outer layer of the answer.
    pub(super) fresh: Option<KemSecret>,
    /// In the suite rsa-misty1: the KEY-REQ in the message.
    pub(super) legacy: Option<Vec<u8>>,
    /// The device key under which was asked.
    pub(super) wrap: WrapKey,
    pub(super) cookie: Option<Cookie>,
    /// The G at which the server did not know the key, and how often it said so.
    unplaced: (Generation, u32),
    cookies: u32,
    /// How far beyond its own offset this terminal asks, because orders may have been missed.
    beyond: u32,
}

impl ExpectIntroduction {
    pub(super) fn begin(retry: Retry) -> Self {
        Self {
            retry,
            hash: None,
            pieces: Vec::new(),
        }
    }

    /// The whole, where this was the last piece. Of two introductions the later is believed: its
    /// content is judged by the root's signature.
    pub(super) fn add(
        &mut self,
        piece: u8,
        pieces: u8,
        hash: [u8; 32],
        octets: &[u8],
    ) -> Option<Vec<u8>> {
        if pieces == 0 || pieces > PIECES_MAX || piece >= pieces {
            return None;
        }
        if self.hash != Some(hash) || self.pieces.len() != usize::from(pieces) {
            self.hash = Some(hash);
            self.pieces = vec![None; usize::from(pieces)];
        }
        self.pieces[usize::from(piece)] = Some(octets.to_vec());
        let whole: Option<Vec<_>> = self.pieces.iter().cloned().collect();
        let whole = whole?.concat();
        // Where its content is not believed, it is asked for anew.
        (self.hash, self.pieces) = (None, Vec::new());
        (sha256(&[&whole]) == hash).then_some(whole)
    }

    /// Exactly one piece has come.
    pub(super) fn is_fresh(&self) -> bool {
        self.pieces.iter().flatten().count() == 1
    }

    /// What has not come; the first piece where nothing has.
    pub(super) fn missing(&self) -> impl Iterator<Item = u8> + '_ {
        let none = self.pieces.is_empty().then_some(0);
        let some = (0..).zip(&self.pieces).filter(|(_, it)| it.is_none());
        none.into_iter().chain(some.map(|(place, _)| place))
    }
}

impl Terminal {
    /// A sequence begins: in the first suite that the root lists and this terminal can speak, and
    /// in no other, whoever wishes.
    pub(super) fn begin_asking(&mut self, rng: &mut dyn Random) {
        let Some(suite) = self.asks_in() else {
            self.end_asking(AskOutcome::NoSuite, rng);
            return;
        };
        let lacks_key = match suite {
            SharingSuite::Psk => false,
            SharingSuite::Hpke | SharingSuite::HpkePq => {
                KemSuite::of(suite).is_some_and(|kem| self.kem_key(kem).is_none())
            }
            SharingSuite::RsaMisty1 => self.rsa_key().is_none(),
        };
        if lacks_key {
            let retry = Retry::first(self.now, rng);
            self.asking.state = State::ExpectIntroduction(ExpectIntroduction::begin(retry));
            self.outputs.push_back(Output::ToServer(hello(0)));
            return;
        }
        let retry = Retry::first(self.now, rng);
        let beyond = self.asking.beyond;
        self.send_request(suite, retry, None, (self.g, 0, 0, beyond), rng);
    }

    /// The server's key of that suite: in the KEYSET, or fetched.
    fn kem_key(&self, kem: KemSuite) -> Option<KemPublic> {
        let fetched = self.asking.kems.iter().find(|key| {
            key.suite() == kem && KemPublic::listed_in(&self.key_set, key.octets()).is_some()
        });
        fetched.cloned().or_else(|| self.key_set.kem_in_full(kem))
    }

    fn send_request(
        &mut self,
        suite: SharingSuite,
        retry: Retry,
        cookie: Option<Cookie>,
        (unplaced_at, unplaced, cookies, beyond): (Generation, u32, u32, u32),
        rng: &mut dyn Random,
    ) {
        let Some(user) = self.user.as_ref() else {
            return;
        };
        let newest = user.asking_key();
        let wrap = newest
            .duplicate()
            .renew_to(newest.generation().plus(beyond));
        let kem = KemSuite::of(suite);
        let fresh =
            kem.map(|kem| KemSecret::from_seed(kem, Secret::init_with(|into| rng.fill(into))));
        let (nonce, time) = (octets(rng), self.asked_time());
        let held = user.groups.values().map(|group| Holding {
            kid: group.ring.newest().kid(),
            epoch: group.epoch(),
            generation: group.newest(),
        });
        let ask = Ask {
            terminal: Some(self.identity.number),
            nonce,
            time,
            held: held.take(HELD_TOLD).collect(),
            fresh: fresh.as_ref().map(|fresh| fresh.public().octets().to_vec()),
        };
        let (message, legacy) = match padded_len(suite) {
            Some(len) => {
                let line = Line { suite, wrap: &wrap };
                let inner = ask.seal(line, self.g, cookie, len, rng);
                (self.sealed_outside(kem, &inner, cookie, rng), None)
            }
            None => self.legacy_request(nonce, time, cookie).unzip(),
        };
        let Some(message) = message else {
            self.end_asking(AskOutcome::NoSuite, rng);
            return;
        };
        for datagram in datagrams(&message, cookie) {
            self.outputs.push_back(Output::ToServer(datagram));
        }
        self.asking.state = State::ExpectKeyDis(Box::new(ExpectKeyDis {
            retry,
            suite,
            hash: RequestHash::of(&message),
            message,
            nonce,
            fresh,
            legacy,
            wrap,
            cookie,
            unplaced: (unplaced_at, unplaced),
            cookies,
            beyond,
        }));
    }

    fn sealed_outside(
        &self,
        kem: Option<KemSuite>,
        inner: &[u8],
        cookie: Option<Cookie>,
        rng: &mut dyn Random,
    ) -> Option<Vec<u8>> {
        let Some(kem) = kem else {
            let Ok(Message::KeyReq { request, .. }) = Message::decode(inner) else {
                return None;
            };
            return Some(Message::KeyReq { request, cookie }.encode());
        };
        let (enc, ct) = self.kem_key(kem)?.seal(KEY_REQ_INFO, inner, rng)?;
        let request = KeyReq::Hpke {
            suite: kem.sharing(),
            enc: &enc,
            ct: &ct,
        };
        Some(Message::KeyReq { request, cookie }.encode())
    }

    /// The same request, octet for octet: the server answers alike.
    pub(super) fn ask_again(&mut self, mut state: Box<ExpectKeyDis>, rng: &mut dyn Random) {
        match state.retry.again(self.now, rng) {
            Some(retry) => {
                state.retry = retry;
                for datagram in datagrams(&state.message, state.cookie) {
                    self.outputs.push_back(Output::ToServer(datagram));
                }
                self.asking.state = State::ExpectKeyDis(state);
            }
            None => {
                // A server with other keys cannot open what it gets: its next introduction says.
                self.asking.kems.clear();
                self.asking.rsa = None;
                self.end_asking(AskOutcome::NoAnswer, rng);
            }
        }
    }

    pub(super) fn ask_introduction_again(
        &mut self,
        mut state: ExpectIntroduction,
        rng: &mut dyn Random,
    ) {
        match state.retry.again(self.now, rng) {
            Some(retry) => {
                state.retry = retry;
                for piece in state.missing() {
                    self.outputs.push_back(Output::ToServer(hello(piece)));
                }
                self.asking.state = State::ExpectIntroduction(state);
            }
            None => self.end_asking(AskOutcome::NoAnswer, rng),
        }
    }

    /// The server wants to see that this address receives, or does not know the key at this G.
    pub(super) fn on_cookie(
        &mut self,
        reference: Reference,
        cookie: Cookie,
        frame: Option<&[u8]>,
        rng: &mut dyn Random,
    ) -> Result<(), DropReason> {
        let expected = match &self.asking.state {
            State::ExpectKeyDis(state) => state.hash.reference() == reference,
            State::Rest | State::ExpectIntroduction(_) | State::ExpectStore(_) => false,
        };
        if !expected {
            return Err(DropReason::NotAsked);
        }
        let heard = frame.map(|frame| self.on_frame(frame));
        let State::ExpectKeyDis(state) = std::mem::replace(&mut self.asking.state, State::Rest)
        else {
            return Err(DropReason::NotAsked);
        };
        // Who can see the requests can forge these: a few are followed, no more.
        if state.cookies >= COOKIES_MAX {
            self.asking.state = State::ExpectKeyDis(state);
            return Err(DropReason::NotAsked);
        }
        // The very cookie that was shown: it is good, and so the key is not known. Another one says no
        // more than that the one shown was not: the server began anew, or the address changed.
        let refused = state.cookie == Some(cookie);
        let (at, times) = state.unplaced;
        let unplaced = match (refused, at == self.g) {
            (true, true) => (self.g, times + 1),
            (true, false) => (self.g, 0),
            (false, _) => (self.g, times),
        };
        // Asked with a cookie, at the fleet's G, and still not known: an order to this terminal alone
        // may have been missed.
        let beyond = if unplaced.1 > 0 {
            state.beyond + 1
        } else {
            state.beyond
        };
        let mixed = self.user.as_ref().is_some_and(|user| user.has_key_before());
        if beyond > OFFSETS_TRIED.min(OFFSET_MAX) || (beyond > 0 && mixed) {
            self.try_the_key_before(rng);
            return Ok(());
        }
        self.asking.beyond = beyond;
        let next = (unplaced.0, unplaced.1, state.cookies + 1, beyond);
        self.send_request(state.suite, state.retry, Some(cookie), next, rng);
        match heard {
            None | Some(Ok(()) | Err(DropReason::NotNewer | DropReason::TimeBackwards)) => Ok(()),
            Some(Err(reason)) => Err(reason),
        }
    }

    /// The server never confirmed the mixed wrap key: the one before is tried; else it does not know
    /// this terminal, and the next sequence begins with the mixed one.
    fn try_the_key_before(&mut self, rng: &mut dyn Random) {
        self.asking.beyond = 0;
        let turned = self
            .user
            .as_mut()
            .is_some_and(|user| user.turn_to_key_before());
        if turned {
            self.dirty = true;
            self.begin_asking(rng);
        } else {
            if let Some(user) = self.user.as_mut() {
                user.turn_to_mixed_key();
            }
            self.end_asking(AskOutcome::NotKnown, rng);
        }
    }
}

/// Octets of the pair's request, which is padded (FORMATS section 8); marker included the datagram of
/// psk has 256. `None` where there is no pair.
pub(super) const fn padded_len(suite: SharingSuite) -> Option<usize> {
    match suite {
        SharingSuite::Psk => Some(252),
        // The sealed whole is longer by the encapsulated key and a tag.
        SharingSuite::Hpke => Some(184),
        // With the fresh key inside; the sealed whole takes three datagrams.
        SharingSuite::HpkePq => Some(1408),
        SharingSuite::RsaMisty1 => None,
    }
}

pub(super) const KEY_REQ_INFO: &[u8] = b"KF1/key-req";
/// Keys that a request names: those that are left out come again, and are no harm.
const HELD_TOLD: usize = 400;
pub(super) const COOKIES_MAX: u32 = 12;
const OFFSETS_TRIED: u32 = 8;
const PIECES_MAX: u8 = 8;
