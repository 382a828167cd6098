//! One type a rank: obey and wrap key (rank 1), master key (rank 2), SRTP master (rank 3).
//!
//! A pre-shared key is a key id, 32 octets, epoch and generation (REQUIREMENTS R-030); validity
//! and lease belong to the schedule beside it.

use std::fmt;
use std::marker::PhantomData;

use crate::ids::{Fingerprint, Generation, GroupNumber, Handle, KeyEpoch, KeyId, SessionId};
use crate::ids::{KeyIdKind, SequenceNumber, TerminalNumber};
use crate::keys::derive::{self, Context, Label};
use crate::keys::{KeyEncryptionKey, Secret, SrtpSuite};

/// A pre-shared key of the rank `R`. The bytes feed the derivation only.
pub struct PreSharedKey<R> {
    bytes: Secret<32>,
    kid: KeyId,
    epoch: KeyEpoch,
    generation: Generation,
    rank: PhantomData<R>,
}

/// Rank marker of [`ObeyKey`].
#[derive(Clone, Copy, Debug)]
pub enum Obey {}
/// Rank marker of [`WrapKey`].
#[derive(Clone, Copy, Debug)]
pub enum Wrap {}
/// Rank marker of [`MasterKey`].
#[derive(Clone, Copy, Debug)]
pub enum Master {}

/// Rank 1: hides commands to one terminal; never renewed, open to a locked terminal.
pub type ObeyKey = PreSharedKey<Obey>;
/// Rank 1: opens distributions; renewed with the fleet's generation G.
pub type WrapKey = PreSharedKey<Wrap>;
/// Rank 2: shared by the terminals of a group.
pub type MasterKey = PreSharedKey<Master>;

impl<R> PreSharedKey<R> {
    #[must_use]
    pub fn kid(&self) -> KeyId {
        self.kid
    }

    #[must_use]
    pub fn epoch(&self) -> KeyEpoch {
        self.epoch
    }

    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// `XL(K, "fingerprint", null, 8)`: what status and logs may show.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut out = [0; 8];
        self.expand(Label::Fingerprint, &Context::Null, &mut out);
        Fingerprint::new(out)
    }

    /// The bytes, for the seal of a store and for a distribution.
    #[must_use]
    pub fn secret(&self) -> &Secret<32> {
        &self.bytes
    }

    /// A second copy, asked for by name: grace slots and scratch trials.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            bytes: self.bytes.duplicate(),
            ..*self
        }
    }

    pub(super) fn expand(&self, label: Label, context: &Context, out: &mut [u8]) {
        derive::expand(
            self.bytes.expose(),
            label,
            (self.kid, self.epoch, self.generation),
            context,
            out,
        );
    }

    /// `K[e,g+1] = XL(K[e,g], "renew", null, 32)`, `steps` times. The old key is consumed and
    /// overwritten (REQUIREMENTS ).
    fn step(mut self, steps: u32) -> Self {
        let mut next = Secret::<32>::init_with(|_| ());
        for _ in 0..steps {
            self.expand(Label::Renew, &Context::Null, next.expose_mut());
            std::mem::swap(&mut self.bytes, &mut next);
            self.generation = self.generation.next();
        }
        self
    }

    /// Renews up to `target`; a key that is already there or beyond is returned as it is, because
    /// a generation never goes down (INVARIANT 1).
    #[must_use]
    pub fn renew_to(self, target: Generation) -> Self {
        let steps = target.steps_from(self.generation);
        self.step(steps)
    }

    /// One step.
    #[must_use]
    pub fn renew(self) -> Self {
        self.step(1)
    }
}

impl ObeyKey {
    #[must_use]
    pub fn new(terminal: TerminalNumber, bytes: Secret<32>) -> Self {
        Self {
            bytes,
            kid: terminal.obey_key_id(),
            epoch: KeyEpoch::RANK_ONE,
            generation: Generation::ZERO,
            rank: PhantomData,
        }
    }

    /// `XL(K, "handle", null, 5)`: never changes, since the key is never renewed.
    #[must_use]
    pub fn handle(&self) -> Handle {
        derive::handle(self.bytes.expose(), (self.kid, self.epoch, self.generation))
    }

    /// `XL(K, "to-terminal", [iv], 32)`: seals one command to this terminal.
    #[must_use]
    pub fn to_terminal(&self, iv: [u8; 12]) -> KeyEncryptionKey {
        KeyEncryptionKey::from_secret(Secret::init_with(|out| {
            self.expand(Label::ToTerminal, &Context::Iv(iv), out);
        }))
    }

    /// `XL(K, "receipt", [SHA-256(command)], 32)`: authenticates one receipt.
    #[must_use]
    pub fn receipt_key(&self, command: [u8; 32]) -> Secret<32> {
        Secret::init_with(|out| self.expand(Label::Receipt, &Context::Hash(command), out))
    }
}

impl WrapKey {
    /// A terminal's wrap key at its generation (G plus the terminal's own offset).
    #[must_use]
    pub fn new(terminal: TerminalNumber, generation: Generation, bytes: Secret<32>) -> Self {
        Self {
            bytes,
            kid: terminal.wrap_key_id(),
            epoch: KeyEpoch::RANK_ONE,
            generation,
            rank: PhantomData,
        }
    }

    /// The key of a one-time token: id 0, epoch 0, generation 0 (FORMATS section 8). It is never
    /// renewed, and opens no distribution.
    #[must_use]
    pub(crate) fn of_token(bytes: Secret<32>) -> Self {
        Self {
            bytes,
            kid: KeyId::ALL_RANK_ONE,
            epoch: KeyEpoch::RANK_ONE,
            generation: Generation::ZERO,
            rank: PhantomData,
        }
    }

    /// `XL(K, "handle", null, 5)`.
    #[must_use]
    pub fn handle(&self) -> Handle {
        derive::handle(self.bytes.expose(), (self.kid, self.epoch, self.generation))
    }

    /// A second copy at the same generation into which fresh octets are mixed: `HKDF-Expand(
    /// HKDF-Extract(salt = K, IKM = first), ["KF1", "first", kid, 0, gen, null, 32], 32)`. Whoever
    /// copied `K` before does not know it (FORMATS section 8).
    #[must_use]
    pub fn mix(&self, first: &Secret<32>) -> Self {
        let bytes = Secret::init_with(|out| {
            derive::mix(
                self.bytes.expose(),
                first.expose(),
                (self.kid, self.epoch, self.generation),
                out,
            );
        });
        Self { bytes, ..*self }
    }

    /// `XL(K, "key-req-id", null, 8)`: what a server knows who asks by, at this generation.
    #[must_use]
    pub fn key_req_id(&self) -> [u8; 8] {
        let mut out = [0; 8];
        self.expand(Label::KeyReqId, &Context::Null, &mut out);
        out
    }

    /// `XL(K, "key-req", [iv], 32)`: seals one KEY-REQ.
    #[must_use]
    pub fn key_req_key(&self, iv: [u8; 12]) -> Secret<32> {
        Secret::init_with(|out| self.expand(Label::KeyReq, &Context::Iv(iv), out))
    }

    /// `XL(K, "key-dis", [SHA-256(KEY-REQ), iv], 32)`: seals the answer to that request.
    #[must_use]
    pub fn key_dis_key(&self, request: [u8; 32], iv: [u8; 12]) -> Secret<32> {
        let context = Context::Answer { request, iv };
        Secret::init_with(|out| self.expand(Label::KeyDis, &context, out))
    }

    /// `XL(K, "ack", [SHA-256(KEY-REQ ‖ KEY-DIS)], 32)`: authenticates the ACK of that answer.
    #[must_use]
    pub fn ack_key(&self, exchange: [u8; 32]) -> Secret<32> {
        Secret::init_with(|out| self.expand(Label::Ack, &Context::Hash(exchange), out))
    }

    /// `XL(K, "control", [transaction], 32)`: authenticates STOP-ACK and START-ACK.
    #[must_use]
    pub fn control_key(&self, transaction: SequenceNumber) -> Secret<32> {
        let context = Context::Transaction(transaction.get());
        Secret::init_with(|out| self.expand(Label::Control, &context, out))
    }

    /// `XL(K, "wrap", null, 32)`: the AES-KW key of this generation.
    pub(super) fn wrapping_key(&self) -> Secret<32> {
        Secret::init_with(|out| self.expand(Label::Wrap, &Context::Null, out))
    }
}

impl MasterKey {
    #[must_use]
    pub fn new(
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
        bytes: Secret<32>,
    ) -> Self {
        Self {
            bytes,
            kid: group.master_key_id(),
            epoch,
            generation,
            rank: PhantomData,
        }
    }

    #[must_use]
    pub fn group(&self) -> GroupNumber {
        match self.kid.kind() {
            Some(KeyIdKind::Master(group)) => group,
            Some(
                KeyIdKind::AllRankOne
                | KeyIdKind::Obey(_)
                | KeyIdKind::Wrap(_)
                | KeyIdKind::Cover(_),
            )
            | None => unreachable!("a master key is made from a group number only"),
        }
    }

    /// The three octets that begin an MKI: two of the tag hash, then the generation modulo 256.
    #[must_use]
    pub fn tag(&self) -> [u8; 3] {
        let [a, b] = derive::key_tag(self.kid, self.epoch);
        [a, b, self.generation.low8()]
    }

    /// `XL(K, "srtp", [suite, sender, session, n, SSRC], L)`: SRTP master key ‖ salt.
    #[must_use]
    pub fn derive_srtp(
        &self,
        suite: SrtpSuite,
        sender: TerminalNumber,
        session: SessionId,
        n: u16,
        ssrc: u32,
    ) -> SrtpMaster {
        let mut octets = Secret::<44>::init_with(|_| ());
        let len = suite.key_len() + suite.salt_len();
        let context = Context::Media {
            suite,
            sender,
            session,
            n,
            ssrc,
        };
        self.expand(Label::Srtp, &context, &mut octets.expose_mut()[..len]);
        SrtpMaster { octets, suite }
    }
}

impl<R> fmt::Debug for PreSharedKey<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "key {} epoch {} generation {}",
            self.kid, self.epoch, self.generation
        )
    }
}

/// Rank 3: SRTP master key and salt of one (sender, session, n, SSRC). Never sent, never stored.
#[derive(Debug)]
pub struct SrtpMaster {
    octets: Secret<44>,
    suite: SrtpSuite,
}

impl SrtpMaster {
    /// From given octets, key then salt; `None` where the length does not fit the suite. For
    /// vectors and for stock receivers that are given a key.
    #[must_use]
    pub fn from_octets(suite: SrtpSuite, key_and_salt: &[u8]) -> Option<Self> {
        let len = suite.key_len() + suite.salt_len();
        (key_and_salt.len() == len).then(|| Self {
            octets: Secret::init_with(|into| into[..len].copy_from_slice(key_and_salt)),
            suite,
        })
    }

    #[must_use]
    pub fn suite(&self) -> SrtpSuite {
        self.suite
    }

    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.octets.expose()[..self.suite.key_len()]
    }

    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.octets.expose()[self.suite.key_len()..self.suite.key_len() + self.suite.salt_len()]
    }
}
