//! The message pair under the device key: what a terminal asks and what it is granted. Suite `psk`
//! sends it as it is; `hpke` and `hpke-pq` seal it once more (FORMATS section 8).
//!
//! Each key here serves one message in one direction: it is derived with the message's own IV, and
//! the answer's with the hash of the request, too.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::command::codec::{self, Reader, Writer};
use crate::command::{CONTENTS_MAX, KeyDistContents, SignedOctets, SigningKey, VerifyingKey};
use crate::error::DecodeError;
use crate::ids::{Generation, GroupNumber, KeyEpoch, KeyId, KeyName, TerminalNumber, UnixSeconds};
use crate::keys::{Secret, WrapKey};
use crate::rng::{Random, octets};
use crate::sharing::SharingSuite;
use crate::sharing::message::{
    AckStatus, Cookie, KeyDis, KeyReq, Message, Reference, RequestHash, Requested, SealedAsk,
    TAG_LEN, sha256,
};

/// What a terminal asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ask {
    /// `None`: first contact by a token, which has no number yet.
    pub terminal: Option<TerminalNumber>,
    /// Comes back in the answer.
    pub nonce: [u8; 16],
    /// 0 where the terminal knows none.
    pub time: UnixSeconds,
    /// The newest master key held of each group.
    pub held: Vec<Holding>,
    /// The public half of a key made for this request (hpke suites).
    pub fresh: Option<Vec<u8>>,
}

/// One key, by name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Holding {
    pub kid: KeyId,
    pub epoch: KeyEpoch,
    pub generation: Generation,
}

/// What the server grants: the difference.
#[derive(Debug)]
pub struct Grant {
    pub nonce: [u8; 16],
    pub time: UnixSeconds,
    pub g: Generation,
    /// Keys that the terminal lacks.
    pub keys: Vec<KeyDistContents>,
    /// Groups that it holds a key of and is no member of.
    pub gone: Vec<GroupNumber>,
    /// More is waiting: ask again.
    pub more: bool,
    /// Mixed into the wrap key at first contact, on both sides.
    pub first: Option<Secret<32>>,
    /// The contents of an enrolment package, for who asked by a token.
    pub package: Option<Zeroizing<Vec<u8>>>,
}

/// SHA-256 of the plaintext of a KEY-DIS: what an ACK confirms.
pub type PlainHash = [u8; 32];

/// Who asks and how: common to both messages of a pair.
#[derive(Clone, Copy, Debug)]
pub struct Line<'k> {
    pub suite: SharingSuite,
    /// The device key of FORMATS section 8: the wrap key at G + offset, or a token's.
    pub wrap: &'k WrapKey,
}

impl Ask {
    /// The sealed request as a message, without the cookie that it counts with: exactly `len` octets
    /// long, or where that is too short the next multiple of 64.
    #[must_use]
    pub fn seal(
        &self,
        line: Line<'_>,
        g: Generation,
        cookie: Option<Cookie>,
        len: usize,
        rng: &mut dyn Random,
    ) -> Vec<u8> {
        let iv: [u8; 12] = octets(rng);
        let id = line.wrap.key_req_id();
        let outside = message_of(line.suite, id, g, iv, &[]).len() - head(0);
        let plain = self.encode(padding(self.encode(0).len(), outside, len));
        let key = aead(&line.wrap.key_req_key(iv));
        let mut sealed = plain;
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(iv),
                Aad::from(ask_aad(line.suite, id, g, cookie)),
                &mut sealed[..],
            )
            .expect("a request is far below the limit of GCM");
        let ct = [&sealed[..], tag.as_ref()].concat();
        message_of(line.suite, id, g, iv, &ct)
    }

    fn encode(&self, pad: usize) -> Zeroizing<Vec<u8>> {
        let len = 128 + 24 * self.held.len() + self.fresh.as_ref().map_or(0, Vec::len) + pad;
        let mut plain = Zeroizing::new(Vec::with_capacity(len));
        codec::encode_into(&mut plain, |e| {
            e.array(6)?
                .u32(self.terminal.map_or(0, TerminalNumber::get))?;
            e.bytes(&self.nonce)?.u32(self.time.get())?;
            e.array(self.held.len() as u64)?;
            for held in &self.held {
                e.array(3)?.u64(held.kid.get())?.u32(held.epoch.get())?;
                e.u32(held.generation.get())?;
            }
            match &self.fresh {
                Some(public) => e.bytes(public)?,
                None => e.null()?,
            };
            e.bytes(&vec![0; pad])?;
            Ok(())
        });
        plain
    }

    fn read(plain: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(plain);
        r.array("request", 6)?;
        let terminal = TerminalNumber::new(r.uint32("terminal")?);
        let nonce = r.octets("nonce")?;
        let time = r.time("time")?;
        let mut held = Vec::new();
        for _ in 0..r.array_between("keys held", 0, HELD_MAX)? {
            r.array("key held", 3)?;
            held.push(Holding {
                kid: r.key_id()?,
                epoch: r.epoch()?,
                generation: r.generation()?,
            });
        }
        let fresh = r.nullable("fresh key", |r| r.bytes("fresh key"))?;
        let ask = Self {
            terminal,
            nonce,
            time,
            held,
            fresh: fresh.map(<[u8]>::to_vec),
        };
        let pad = r.bytes("padding")?.len();
        r.end()?;
        codec::deterministic(plain, &ask.encode(pad))?;
        Ok(ask)
    }
}

impl SealedAsk<'_> {
    /// `None` where this is not the key, or what is inside is no request, or none that was made to go
    /// with this cookie.
    #[must_use]
    pub fn open(&self, wrap: &WrapKey, cookie: Option<Cookie>) -> Option<Ask> {
        let mut buffer = Zeroizing::new(self.ct.to_vec());
        let plain = aead(&wrap.key_req_key(self.iv))
            .open_in_place(
                Nonce::assume_unique_for_key(self.iv),
                Aad::from(ask_aad(self.suite, self.id, self.g, cookie)),
                &mut buffer,
            )
            .ok()?;
        Ask::read(plain).ok()
    }
}

impl Grant {
    /// The sealed and signed answer as a message, and what its ACK confirms.
    #[must_use]
    pub fn seal(
        &self,
        line: Line<'_>,
        request: &RequestHash,
        signer: &SigningKey,
        rng: &mut dyn Random,
    ) -> (Vec<u8>, PlainHash) {
        let iv: [u8; 12] = octets(rng);
        let mut plain = self.encode();
        let hash = sha256(&[&plain]);
        let reference = request.reference();
        let key = aead(&line.wrap.key_dis_key(*request.as_bytes(), iv));
        let tag = key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(iv),
                Aad::from(grant_aad(line.suite, reference)),
                &mut plain[..],
            )
            .expect("an answer is far below the limit of GCM");
        let ct = [&plain[..], tag.as_ref()].concat();
        let payload = codec::encode(|e| {
            e.array(2)?.bytes(&iv)?.bytes(&ct)?;
            Ok(())
        });
        let signed = signer.sign_octets(&external_aad(request), &payload);
        let distribution = KeyDis::Psk {
            suite: line.suite,
            signed: &signed,
        };
        let message = Message::KeyDis {
            reference,
            distribution,
        };
        (message.encode(), hash)
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        // INVARIANT 10: one allocation, large enough, so that no copy is left in freed memory.
        let package = self.package.as_ref().map_or(0, |package| package.len());
        let len = 128 + CONTENTS_MAX * self.keys.len() + 8 * self.gone.len() + package;
        let mut plain = Zeroizing::new(Vec::with_capacity(len));
        codec::encode_into(&mut plain, |e| {
            e.array(8)?.bytes(&self.nonce)?.u32(self.time.get())?;
            e.u32(self.g.get())?.array(self.keys.len() as u64)?;
            for key in &self.keys {
                key.write(e)?;
            }
            e.array(self.gone.len() as u64)?;
            for group in &self.gone {
                e.u32(group.get())?;
            }
            e.bool(self.more)?;
            optional(e, self.first.as_ref().map(|first| &first.expose()[..]))?;
            optional(e, self.package.as_ref().map(|package| &package[..]))
        });
        plain
    }

    fn read(plain: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(plain);
        r.array("answer", 8)?;
        let nonce = r.octets("nonce")?;
        let time = r.time("time")?;
        let g = r.generation()?;
        let mut keys = Vec::new();
        for _ in 0..r.array_between("keys", 0, HELD_MAX)? {
            keys.push(KeyDistContents::read(&mut r)?);
        }
        let mut gone = Vec::new();
        for _ in 0..r.array_between("groups", 0, HELD_MAX)? {
            gone.push(r.group()?);
        }
        let more = r.boolean("more")?;
        let first = r.nullable("fresh octets", |r| {
            Secret::from_slice(r.bytes("fresh octets")?).ok_or(DecodeError::OutOfRange {
                what: "fresh octets",
            })
        })?;
        let package = r.nullable("package", |r| r.bytes("package"))?;
        let grant = Self {
            nonce,
            time,
            g,
            keys,
            gone,
            more,
            first,
            package: package.map(|octets| Zeroizing::new(octets.to_vec())),
        };
        r.end()?;
        codec::deterministic(plain, &grant.encode())?;
        Ok(grant)
    }
}

/// A KEY-DIS of the pair, read, whose signature nobody has checked.
#[derive(Debug)]
pub struct SignedGrant<'b> {
    suite: SharingSuite,
    signed: SignedOctets<'b>,
}

/// A KEY-DIS whose signature was checked: the only way to its content (INVARIANT 4).
#[derive(Debug)]
pub struct VerifiedGrant<'b> {
    suite: SharingSuite,
    iv: [u8; 12],
    ct: &'b [u8],
    request: RequestHash,
}

impl<'b> SignedGrant<'b> {
    /// The signed part of a KEY-DIS of the pair.
    ///
    /// # Errors
    /// [`DecodeError`] where it is none.
    pub fn decode(distribution: KeyDis<'b>) -> Result<Self, DecodeError> {
        match distribution {
            KeyDis::Psk { suite, signed } => Ok(Self {
                suite,
                signed: SignedOctets::decode(signed)?,
            }),
            KeyDis::Hpke { .. } | KeyDis::RsaMisty1(_) => {
                Err(DecodeError::Unexpected { what: "KEY-DIS" })
            }
        }
    }

    /// Who claims to have signed.
    #[must_use]
    pub fn signer(&self) -> KeyName {
        self.signed.signer()
    }

    /// Checks the signature over this answer to that request.
    #[must_use]
    pub fn verify(self, request: &RequestHash, key: &VerifyingKey) -> Option<VerifiedGrant<'b>> {
        let suite = self.suite;
        let payload = self.signed.verify(&external_aad(request), key)?;
        let mut r = Reader::new(payload);
        r.array("payload", 2).ok()?;
        let (iv, ct) = (r.octets("IV").ok()?, r.bytes("ciphertext").ok()?);
        r.end().ok()?;
        Some(VerifiedGrant {
            suite,
            iv,
            ct,
            request: *request,
        })
    }
}

impl VerifiedGrant<'_> {
    /// Opens it; `None` where `wrap` is not the key.
    #[must_use]
    pub fn open(&self, wrap: &WrapKey) -> Option<(Grant, PlainHash)> {
        let mut buffer = Zeroizing::new(self.ct.to_vec());
        let plain = aead(&wrap.key_dis_key(*self.request.as_bytes(), self.iv))
            .open_in_place(
                Nonce::assume_unique_for_key(self.iv),
                Aad::from(grant_aad(self.suite, self.request.reference())),
                &mut buffer,
            )
            .ok()?;
        let hash = sha256(&[plain]);
        Some((Grant::read(plain).ok()?, hash))
    }
}

/// What an ACK says under the key of one exchange. The key is derived when an ACK is made or comes, so
/// that an answer does not cost what many answers never need.
#[derive(Debug)]
pub struct AckKey {
    wrap: WrapKey,
    exchange: [u8; 32],
}

impl AckKey {
    /// `request` and `answer` are the messages as they were sent.
    #[must_use]
    pub fn new(wrap: &WrapKey, request: &[u8], answer: &[u8]) -> Self {
        Self {
            wrap: wrap.duplicate(),
            exchange: sha256(&[request, answer]),
        }
    }

    /// The same from a request that was hashed when it came.
    #[must_use]
    pub(crate) fn of(wrap: &WrapKey, request: &Requested, answer: &[u8]) -> Self {
        Self {
            wrap: wrap.duplicate(),
            exchange: request.with(answer),
        }
    }

    /// `HMAC-SHA-256(key, ["ACK", status, SHA-256(plaintext)])`.
    #[must_use]
    pub fn make(&self, status: AckStatus, plain: &PlainHash) -> [u8; 32] {
        let mut mac = [0; 32];
        mac.copy_from_slice(hmac::sign(&self.key(), &confirmed(status, plain)).as_ref());
        mac
    }

    /// Whether `mac` is that.
    #[must_use]
    pub fn check(&self, status: AckStatus, plain: &PlainHash, mac: &[u8; 32]) -> bool {
        hmac::verify(&self.key(), &confirmed(status, plain), mac).is_ok()
    }

    fn key(&self) -> hmac::Key {
        let key = self.wrap.ack_key(self.exchange);
        hmac::Key::new(hmac::HMAC_SHA256, key.expose())
    }
}

/// KR-374: how many octets of padding make the message `len` octets long. `plain`: the plaintext without
/// any; `outside`: the message without its ciphertext. Some lengths cannot be reached, because the
/// heads grow with what they hold.
fn padding(plain: usize, outside: usize, len: usize) -> usize {
    let whole = |pad: usize| {
        let ct = plain - head(0) + head(pad) + pad + TAG_LEN;
        outside + head(ct) + ct
    };
    let mut len = len;
    loop {
        let most = len.saturating_sub(whole(0));
        let least = most.saturating_sub(HEADS_GROW);
        if let Some(pad) = (least..=most).find(|&pad| whole(pad) == len) {
            return pad;
        }
        len = (len + 1).next_multiple_of(PADDED_TO);
    }
}

/// Octets of the head of a byte string in CBOR (RFC 8949 section 3.1).
const fn head(len: usize) -> usize {
    match len {
        0..24 => 1,
        24..256 => 2,
        256..65_536 => 3,
        _ => 5,
    }
}

fn message_of(suite: SharingSuite, id: [u8; 8], g: Generation, iv: [u8; 12], ct: &[u8]) -> Vec<u8> {
    let ask = SealedAsk {
        suite,
        id,
        g,
        iv,
        ct,
    };
    let request = KeyReq::Psk(ask);
    let message = Message::KeyReq {
        request,
        cookie: None,
    };
    message.encode()
}

fn confirmed(status: AckStatus, plain: &PlainHash) -> Vec<u8> {
    codec::encode(|e| {
        e.array(3)?.str("ACK")?.u8(status.number())?.bytes(plain)?;
        Ok(())
    })
}

/// SECURITY: the cookie stands outside of the seal, and whoever plays a recording has one of his own:
/// with that it opens no more (KR-392).
fn ask_aad(suite: SharingSuite, id: [u8; 8], g: Generation, cookie: Option<Cookie>) -> Vec<u8> {
    codec::encode(|e| {
        e.array(5)?.str("KF1/key-req")?.u8(suite.number())?;
        e.bytes(&id)?.u32(g.get())?;
        optional(e, cookie.as_ref().map(|cookie| &cookie[..]))
    })
}

fn grant_aad(suite: SharingSuite, reference: Reference) -> Vec<u8> {
    codec::encode(|e| {
        e.array(3)?.str("KF1/key-dis")?.u8(suite.number())?;
        e.bytes(reference.as_bytes())?;
        Ok(())
    })
}

fn external_aad(request: &RequestHash) -> Vec<u8> {
    [b"KF1/dis", &request.as_bytes()[..]].concat()
}

fn optional(e: &mut Writer<'_>, octets: Option<&[u8]>) -> codec::Written {
    match octets {
        Some(octets) => e.bytes(octets)?,
        None => e.null()?,
    };
    Ok(())
}

fn aead(key: &Secret<32>) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("AES-256 takes 32 octets"))
}

/// Keys that one message names; what is beyond waits for the next.
pub const HELD_MAX: u64 = 400;
/// What is longer than asked for is padded to a multiple of this.
const PADDED_TO: usize = 64;
/// Octets by which the heads of ciphertext and padding may grow.
const HEADS_GROW: usize = 8;
