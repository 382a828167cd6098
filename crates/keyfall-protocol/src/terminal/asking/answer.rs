//! What is made of a KEY-DIS: judged as a KEYDIST is, stored, and then confirmed.

use std::time::Duration;

use super::request::ExpectKeyDis;
use super::{AskOutcome, State};
use crate::command::ListedKey;
use crate::rng::Random;
use crate::sharing::SharingSuite;
use crate::sharing::message::{AckStatus, KeyDis, Message, Reference, marked};
use crate::sharing::pair::{AckKey, Grant, PlainHash, SignedGrant};
use crate::stats::DropReason;
use crate::terminal::{Output, StoreId, Terminal};

/// What a KEY-DIS brought is being made durable; then it is confirmed.
#[derive(Debug)]
pub(super) struct ExpectStore {
    /// `None` until the store is asked for.
    store: Option<StoreId>,
    reference: Reference,
    ack: Vec<u8>,
    /// The server has more, or is to show that it knows the mixed key.
    again: bool,
    /// It brought fresh octets.
    mixes: bool,
}

/// A KEY-DIS that opened.
struct Opened {
    grant: Grant,
    plain: PlainHash,
    signer: ListedKey,
}

impl ExpectStore {
    /// Of an answer with fresh octets; `ack` is the datagram that confirms it.
    pub(super) fn of_first(reference: Reference, ack: Vec<u8>) -> Self {
        Self {
            store: None,
            reference,
            ack,
            again: true,
            mixes: true,
        }
    }
}

impl Terminal {
    pub(super) fn on_answer(
        &mut self,
        reference: Reference,
        distribution: KeyDis<'_>,
        sent: &[u8],
    ) -> Result<(), DropReason> {
        if let Some((answered, ack)) = &self.asking.answered
            && *answered == reference
        {
            // Its ACK was lost.
            self.outputs.push_back(Output::ToServer(ack.clone()));
            return Ok(());
        }
        match &self.asking.state {
            State::ExpectKeyDis(open) if open.hash.reference() == reference => {}
            State::Rest
            | State::ExpectIntroduction(_)
            | State::ExpectKeyDis(_)
            | State::ExpectStore(_) => return Err(DropReason::NotAsked),
        }
        let State::ExpectKeyDis(open) = std::mem::replace(&mut self.asking.state, State::Rest)
        else {
            return Err(DropReason::NotAsked);
        };
        if let (Some(key_req), KeyDis::RsaMisty1(octets)) = (&open.legacy, distribution) {
            return match self.opened_legacy(&open, key_req, octets) {
                Ok(opened) => {
                    self.take_legacy(&open, opened);
                    Ok(())
                }
                Err(reason) => {
                    self.asking.state = State::ExpectKeyDis(open);
                    Err(reason)
                }
            };
        }
        match self.opened(&open, distribution) {
            Ok(opened) => {
                self.take_answer(&open, opened, sent);
                Ok(())
            }
            Err(reason) => {
                // The true answer may still come.
                self.asking.state = State::ExpectKeyDis(open);
                Err(reason)
            }
        }
    }

    /// Reference, signature, key and nonce hold, or nothing has happened (KR-360, INVARIANT 4).
    fn opened(
        &mut self,
        open: &ExpectKeyDis,
        distribution: KeyDis<'_>,
    ) -> Result<Opened, DropReason> {
        let inner;
        let distribution = match (&open.fresh, distribution) {
            (_, KeyDis::Psk { .. } | KeyDis::Hpke { .. }) if open.legacy.is_some() => {
                return Err(DropReason::OtherSuite);
            }
            (None, KeyDis::Psk { suite, .. }) if suite == open.suite => distribution,
            (Some(fresh), KeyDis::Hpke { suite, enc, ct }) if suite == open.suite => {
                let info = [KEY_DIS_INFO, &open.hash.as_bytes()[..]].concat();
                inner = fresh.open(&info, enc, ct).ok_or(DropReason::DoesNotOpen)?;
                pair_in(&inner, suite, open.hash.reference())?
            }
            // Another suite than was asked in is a downgrade, or a fault (KR-361).
            (_, KeyDis::Psk { .. } | KeyDis::Hpke { .. } | KeyDis::RsaMisty1(_)) => {
                return Err(DropReason::OtherSuite);
            }
        };
        let signed = SignedGrant::decode(distribution).map_err(|_| DropReason::Malformed)?;
        let signer = self.signer_of_answer(signed.signer())?;
        let verified = signed
            .verify(&open.hash, &signer.public)
            .ok_or(DropReason::BadSignature)?;
        let (grant, plain) = verified.open(&open.wrap).ok_or(DropReason::DoesNotOpen)?;
        if grant.nonce != open.nonce {
            return Err(DropReason::NotAsked);
        }
        self.judge_answer(&grant, &signer)?;
        Ok(Opened {
            grant,
            plain,
            signer,
        })
    }

    fn take_answer(&mut self, open: &ExpectKeyDis, opened: Opened, sent: &[u8]) {
        let Opened {
            grant,
            plain,
            signer,
        } = opened;
        let mixed = grant.first.as_ref().map(|first| open.wrap.mix(first));
        let mixes = mixed.is_some();
        let again = grant.more || mixes;
        // Who was given fresh octets shows that it mixed them in.
        let key = AckKey::new(mixed.as_ref().unwrap_or(&open.wrap), &open.message, sent);
        // The server holds the key that was asked under at its G: the own offset, where orders to this
        // terminal alone were missed.
        let offset = open.wrap.generation().steps_from(grant.g);
        let status = match self.take_grant(grant, &signer) {
            Ok(()) => AckStatus::All,
            Err(_) => AckStatus::OutOfBounds,
        };
        self.take_offset(offset);
        self.asking.beyond = 0;
        if let Some(user) = self.user.as_mut() {
            match mixed {
                Some(mixed) => {
                    user.mix(&open.wrap, mixed);
                    self.dirty = true;
                }
                None => self.dirty |= user.confirm_key(&open.wrap),
            }
        }
        let mac = key.make(status, &plain);
        self.expect_store(open, status, mac, (again, mixes));
    }

    /// `again`, `mixes`: of [`ExpectStore`].
    pub(super) fn expect_store(
        &mut self,
        open: &ExpectKeyDis,
        status: AckStatus,
        mac: [u8; 32],
        (again, mixes): (bool, bool),
    ) {
        let ack = Message::Ack {
            suite: open.suite,
            reference: open.hash.reference(),
            status,
            mac,
        };
        self.asking.state = State::ExpectStore(ExpectStore {
            store: None,
            reference: open.hash.reference(),
            ack: marked(&ack.encode()),
            again,
            mixes,
        });
    }

    /// The ACK goes out once what it confirms is durable (KR-366, INVARIANT 2).
    pub(in crate::terminal) fn confirm_answer(&mut self, rng: &mut dyn Random) {
        let (asked, done, dirty) = (self.store_asked, self.store_done, self.dirty);
        let State::ExpectStore(state) = &mut self.asking.state else {
            return;
        };
        if state.store.is_none() && !dirty {
            state.store = Some(asked);
        }
        if state.store.is_none_or(|store| store > done) {
            return;
        }
        let State::ExpectStore(state) = std::mem::replace(&mut self.asking.state, State::Rest)
        else {
            return;
        };
        self.outputs.push_back(Output::ToServer(state.ack.clone()));
        self.asking.answered = Some((state.reference, state.ack));
        if state.mixes {
            self.asking.mixed += 1;
        }
        if self.asking.mixed > MIXED_MAX {
            // The keys are here; that they are, the server does not hear.
            self.end_asking(AskOutcome::NoAnswer, rng);
        } else if state.again {
            self.asking.next = Some(self.now.plus(STORED_WITHIN));
        } else {
            self.end_asking(AskOutcome::Current, rng);
        }
    }
}

/// The pair's answer inside of what HPKE hid, which says there what it says outside (KR-390).
pub(super) fn pair_in(
    inner: &[u8],
    suite: SharingSuite,
    answers: Reference,
) -> Result<KeyDis<'_>, DropReason> {
    match Message::decode(inner) {
        Ok(Message::KeyDis {
            reference,
            distribution: within @ KeyDis::Psk { suite: spoken, .. },
        }) if reference == answers && spoken == suite => Ok(within),
        Ok(_) | Err(_) => Err(DropReason::Malformed),
    }
}

/// What an ACK brings about is durable at the server after this time.
const STORED_WITHIN: Duration = Duration::from_millis(200);
/// Answers with fresh octets that one sequence takes.
const MIXED_MAX: u32 = 3;
pub(super) const KEY_DIS_INFO: &[u8] = b"KF1/key-dis";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_says_another_inside_than_outside_is_malformed() {
        let [ours, other] = [[1; 8], [2; 8]].map(Reference::new);
        let is_read = |suite, reference| {
            let distribution = KeyDis::Psk { suite, signed: b"" };
            let message = Message::KeyDis {
                reference,
                distribution,
            };
            pair_in(&message.encode(), SharingSuite::Hpke, ours).is_ok()
        };
        assert!(is_read(SharingSuite::Hpke, ours));
        assert!(!is_read(SharingSuite::Hpke, other));
        for suite in [SharingSuite::Psk, SharingSuite::HpkePq] {
            assert!(!is_read(suite, ours), "{suite:?}");
        }
    }
}
