//! The signed envelope of every command: COSE_Sign1 (RFC 9052 section 4.2), or COSE_Sign (section
//! 4.1) where several sign; Ed25519 = −19 (RFC 9864), external_aad "KF1/cmd".
//!
//! The type tells what is known: [`Unverified`] was read and no more; [`Verified`] exists only
//! where a signature was checked, and the machines apply nothing else (INVARIANT 4).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use minicbor::data::Tag;

use crate::command::Command;
use crate::command::codec::{self, Reader};
use crate::error::DecodeError;
use crate::ids::KeyName;
use crate::keys::Secret;
use crate::receipt::frame_hash;

/// The longest frame on any carrier, in octets.
pub const FRAME_MAX: usize = 1200;

/// An Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    #[must_use]
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn has_signed(&self, signed: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(signed, signature)
            .is_ok()
    }

    /// The first 8 octets of SHA-256 of the key.
    #[must_use]
    pub fn name(&self) -> KeyName {
        let hash = digest::digest(&digest::SHA256, &self.0);
        let mut name = [0; 8];
        name.copy_from_slice(&hash.as_ref()[..8]);
        KeyName::new(name)
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({})", self.name())
    }
}

/// An Ed25519 signing key of the server.
pub struct SigningKey {
    seed: Secret<32>,
    pair: Ed25519KeyPair,
    /// The public half and its name: every signature says it.
    public: VerifyingKey,
    name: KeyName,
}

impl SigningKey {
    /// From a 32-octet seed (RFC 8032).
    #[must_use]
    pub fn from_seed(seed: Secret<32>) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .expect("every 32 octets are an Ed25519 seed");
        let mut octets = [0; 32];
        octets.copy_from_slice(pair.public_key().as_ref());
        let public = VerifyingKey(octets);
        Self {
            seed,
            pair,
            public,
            name: public.name(),
        }
    }

    /// The seed, for the seal of the store.
    #[must_use]
    pub fn seed(&self) -> &Secret<32> {
        &self.seed
    }

    #[must_use]
    pub fn public(&self) -> VerifyingKey {
        self.public
    }

    /// The frame of `command`, signed by this key alone.
    #[must_use]
    pub fn sign(&self, command: &Command) -> Vec<u8> {
        sign_together(command, &[self])
    }

    /// COSE_Sign1 over what is no command: `external_aad` says what it is.
    #[must_use]
    pub(crate) fn sign_octets(&self, external_aad: &[u8], payload: &[u8]) -> Vec<u8> {
        let signature = self.signature(external_aad, payload, Form::Alone);
        frame(payload, &[signature])
    }

    fn signature(&self, external_aad: &[u8], body: &[u8], form: Form) -> OneSignature<Vec<u8>> {
        let protected = protected_header(self.name);
        let signed = to_be_signed(form, external_aad, &protected, body);
        OneSignature {
            name: self.name,
            signature: self.pair.sign(&signed).as_ref().to_vec(),
            protected,
        }
    }
}

/// The frame of `command` with the signature of each of `keys`, 1 to [`SIGNERS_MAX`] of them: one
/// makes a COSE_Sign1, more a COSE_Sign.
///
/// # Panics
/// Where there is no key or there are too many.
#[must_use]
pub fn sign_together(command: &Command, keys: &[&SigningKey]) -> Vec<u8> {
    assert!(
        (1..=SIGNERS_MAX).contains(&keys.len()),
        "a frame has 1 to {SIGNERS_MAX} signatures"
    );
    let payload = command.encode();
    let form = Form::of(keys.len());
    let mut keys = keys.to_vec();
    keys.sort_by_key(|key| key.name);
    let signatures: Vec<_> = keys
        .iter()
        .map(|key| key.signature(EXTERNAL_AAD, &payload, form))
        .collect();
    frame(&payload, &signatures)
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.name)
    }
}

/// A frame that was read but whose signatures nobody has checked.
#[derive(Debug)]
pub struct Unverified<'b> {
    octets: &'b [u8],
    payload: &'b [u8],
    /// By rising key name, no name twice.
    signatures: Vec<OneSignature<&'b [u8]>>,
    command: Command,
}

#[derive(Debug)]
struct OneSignature<B> {
    name: KeyName,
    protected: B,
    signature: B,
}

/// Which of the two COSE structures.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Alone,
    Together,
}

impl Form {
    fn of(signatures: usize) -> Self {
        if signatures == 1 {
            Self::Alone
        } else {
            Self::Together
        }
    }
}

impl<'b> Unverified<'b> {
    /// Reads a frame strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not exactly one deterministic signed command.
    pub fn decode(octets: &'b [u8]) -> Result<Self, DecodeError> {
        if octets.len() > FRAME_MAX {
            return Err(DecodeError::TooLong {
                len: octets.len(),
                max: FRAME_MAX,
            });
        }
        let mut r = Reader::new(octets);
        let (payload, signatures) = match r.tag_of("COSE_Sign1", &[TAG_SIGN1, TAG_SIGN])? {
            TAG_SIGN1 => read_alone(&mut r)?,
            _ => read_together(&mut r)?,
        };
        r.end()?;
        codec::deterministic(octets, &frame(payload, &signatures))?;
        let command = Command::decode(payload)?;
        Ok(Self {
            octets,
            payload,
            signatures,
            command,
        })
    }

    /// Who claims to have signed; of several the one with the lowest name.
    #[must_use]
    pub fn signer(&self) -> KeyName {
        self.signatures[0].name
    }

    /// Everyone who claims to have signed: 1 to [`SIGNERS_MAX`], each once.
    pub fn signers(&self) -> impl Iterator<Item = KeyName> + '_ {
        self.signatures.iter().map(|signature| signature.name)
    }

    /// The frame.
    #[must_use]
    pub fn octets(&self) -> &'b [u8] {
        self.octets
    }

    /// What it claims. Look, do not apply.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Checks a frame that one key signed.
    #[must_use]
    pub fn verify(self, key: &VerifyingKey) -> Option<Verified> {
        let alone = self.signatures.len() == 1;
        self.verify_with(|_| alone.then_some(*key))
    }

    /// Checks every signature with the key of its name; one that fails, or has no key, fails the
    /// frame. With [`Self::verify`] the only way to a [`Verified`].
    #[must_use]
    pub fn verify_with(self, key: impl Fn(KeyName) -> Option<VerifyingKey>) -> Option<Verified> {
        let form = Form::of(self.signatures.len());
        let holds = |one: &OneSignature<&[u8]>| {
            let signed = to_be_signed(form, EXTERNAL_AAD, one.protected, self.payload);
            key(one.name).is_some_and(|key| key.has_signed(&signed, one.signature))
        };
        let verified = self.signatures.iter().all(holds);
        verified.then(|| Verified {
            signers: self.signatures.iter().map(|one| one.name).collect(),
            frame_hash: frame_hash(self.octets),
            command: self.command,
        })
    }
}

/// A command whose signatures were checked.
#[derive(Debug)]
pub struct Verified {
    signers: Vec<KeyName>,
    frame_hash: [u8; 32],
    command: Command,
}

impl Verified {
    /// Who signed, each once.
    #[must_use]
    pub fn signers(&self) -> &[KeyName] {
        &self.signers
    }

    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// SHA-256 of the frame: its name in a receipt.
    #[must_use]
    pub fn frame_hash(&self) -> [u8; 32] {
        self.frame_hash
    }
}

/// A COSE_Sign1 over what is no command, whose signature nobody has checked.
#[derive(Debug)]
pub(crate) struct SignedOctets<'b> {
    payload: &'b [u8],
    signature: OneSignature<&'b [u8]>,
}

impl<'b> SignedOctets<'b> {
    /// Reads it strictly.
    ///
    /// # Errors
    /// [`DecodeError`] where the octets are not exactly one deterministic COSE_Sign1.
    pub(crate) fn decode(octets: &'b [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(octets);
        r.tag("COSE_Sign1", TAG_SIGN1)?;
        let (payload, mut signatures) = read_alone(&mut r)?;
        r.end()?;
        codec::deterministic(octets, &frame(payload, &signatures))?;
        let signature = signatures
            .pop()
            .ok_or(DecodeError::Missing { what: "signature" })?;
        Ok(Self { payload, signature })
    }

    /// Octets of a COSE_Sign1 over so many.
    pub(crate) fn frame_len(payload: usize) -> usize {
        let head = match payload {
            0..24 => 1,
            24..256 => 2,
            _ => 3,
        };
        AROUND_PAYLOAD + head + payload
    }

    /// Who claims to have signed.
    pub(crate) fn signer(&self) -> KeyName {
        self.signature.name
    }

    /// The payload as it claims to be. Look, do not rely on it.
    pub(crate) fn claimed(&self) -> &'b [u8] {
        self.payload
    }

    /// The payload, where `key` has signed it as `external_aad` says.
    pub(crate) fn verify(self, external_aad: &[u8], key: &VerifyingKey) -> Option<&'b [u8]> {
        let protected = self.signature.protected;
        let signed = to_be_signed(Form::Alone, external_aad, protected, self.payload);
        key.has_signed(&signed, self.signature.signature)
            .then_some(self.payload)
    }
}

type ReadSignatures<'b> = (&'b [u8], Vec<OneSignature<&'b [u8]>>);

fn read_alone<'b>(r: &mut Reader<'b>) -> Result<ReadSignatures<'b>, DecodeError> {
    r.array("COSE_Sign1", 4)?;
    let protected = r.bytes("protected header")?;
    r.map("unprotected header")?.end()?;
    let payload = r.bytes("payload")?;
    let signature = read_signature(r, protected)?;
    Ok((payload, vec![signature]))
}

fn read_together<'b>(r: &mut Reader<'b>) -> Result<ReadSignatures<'b>, DecodeError> {
    r.array("COSE_Sign", 4)?;
    if !r.bytes("protected header")?.is_empty() {
        return Err(DecodeError::OutOfRange {
            what: "protected header",
        });
    }
    r.map("unprotected header")?.end()?;
    let payload = r.bytes("payload")?;
    let mut signatures: Vec<OneSignature<_>> = Vec::new();
    for _ in 0..r.array_between("signatures", 2, SIGNERS_MAX as u64)? {
        r.array("signature", 3)?;
        let protected = r.bytes("protected header")?;
        r.map("unprotected header")?.end()?;
        let one = read_signature(r, protected)?;
        // By rising name: two signatures of one key would count as two signers.
        if signatures.last().is_some_and(|last| one.name <= last.name) {
            return Err(DecodeError::OutOfRange { what: "signatures" });
        }
        signatures.push(one);
    }
    Ok((payload, signatures))
}

fn read_signature<'b>(
    r: &mut Reader<'b>,
    protected: &'b [u8],
) -> Result<OneSignature<&'b [u8]>, DecodeError> {
    let signature = r.bytes("signature")?;
    if signature.len() != SIGNATURE_LEN {
        return Err(DecodeError::OutOfRange { what: "signature" });
    }
    Ok(OneSignature {
        name: read_protected(protected)?,
        protected,
        signature,
    })
}

fn protected_header(name: KeyName) -> Vec<u8> {
    codec::encode(|e| {
        e.map(2)?
            .u8(1)?
            .i64(ALG_ED25519)?
            .u8(4)?
            .bytes(name.as_bytes())?;
        Ok(())
    })
}

fn read_protected(octets: &[u8]) -> Result<KeyName, DecodeError> {
    let mut r = Reader::new(octets);
    let mut map = r.map("protected header")?;
    map.key(&mut r, 1, "algorithm")?;
    r.int("algorithm", ALG_ED25519)?;
    map.key(&mut r, 4, "key name")?;
    let name = KeyName::new(r.octets("key name")?);
    map.end()?;
    r.end()?;
    codec::deterministic(octets, &protected_header(name))?;
    Ok(name)
}

fn frame<B: AsRef<[u8]>>(payload: &[u8], signatures: &[OneSignature<B>]) -> Vec<u8> {
    codec::encode(|e| match signatures {
        [one] => {
            e.tag(Tag::new(TAG_SIGN1))?.array(4)?;
            e.bytes(one.protected.as_ref())?.map(0)?;
            e.bytes(payload)?.bytes(one.signature.as_ref())?;
            Ok(())
        }
        several => {
            e.tag(Tag::new(TAG_SIGN))?.array(4)?.bytes(&[])?.map(0)?;
            e.bytes(payload)?.array(several.len() as u64)?;
            for one in several {
                e.array(3)?.bytes(one.protected.as_ref())?.map(0)?;
                e.bytes(one.signature.as_ref())?;
            }
            Ok(())
        }
    })
}

/// Sig_structure (RFC 9052 section 4.4).
fn to_be_signed(form: Form, external_aad: &[u8], protected: &[u8], payload: &[u8]) -> Vec<u8> {
    codec::encode(|e| {
        match form {
            Form::Alone => e.array(4)?.str("Signature1")?.bytes(protected)?,
            // The body of a COSE_Sign has an empty protected header.
            Form::Together => e.array(5)?.str("Signature")?.bytes(&[])?.bytes(protected)?,
        };
        e.bytes(external_aad)?.bytes(payload)?;
        Ok(())
    })
}

/// Signatures that one frame may have.
pub const SIGNERS_MAX: usize = 4;
const TAG_SIGN1: u64 = 18;
const TAG_SIGN: u64 = 98;
const EXTERNAL_AAD: &[u8] = b"KF1/cmd";
const ALG_ED25519: i64 = -19;
const SIGNATURE_LEN: usize = 64;
/// Tag, array, protected header of 13 octets, empty map, and the signature with its head.
const AROUND_PAYLOAD: usize = 1 + 1 + 14 + 1 + 2 + SIGNATURE_LEN;
