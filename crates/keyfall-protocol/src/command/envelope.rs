//! The signed envelope of every command: COSE_Sign1 (RFC 9052 section 4.2), Ed25519 = −19
//! (RFC 9864), external_aad "KF1/cmd".
//!
//! The type tells what is known: [`Unverified`] was read and no more; [`Verified`] exists only
//! where a signature was checked, and the machines apply nothing else (INVARIANT 4).

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::command::Command;
use crate::command::codec::{self, Reader};
use crate::error::DecodeError;
use crate::ids::KeyName;
use crate::keys::Secret;

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
}

impl SigningKey {
    /// From a 32-octet seed (RFC 8032).
    #[must_use]
    pub fn from_seed(seed: Secret<32>) -> Self {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.expose())
            .expect("every 32 octets are an Ed25519 seed");
        Self { seed, pair }
    }

    /// The seed, for the seal of the store.
    #[must_use]
    pub fn seed(&self) -> &Secret<32> {
        &self.seed
    }

    #[must_use]
    pub fn public(&self) -> VerifyingKey {
        let mut octets = [0; 32];
        octets.copy_from_slice(self.pair.public_key().as_ref());
        VerifyingKey(octets)
    }

    /// The frame of `command`.
    #[must_use]
    pub fn sign(&self, command: &Command) -> Vec<u8> {
        let payload = command.encode();
        let protected = protected_header(self.public().name());
        let signature = self.pair.sign(&to_be_signed(&protected, &payload));
        frame(&protected, &payload, signature.as_ref())
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().name())
    }
}

/// A frame that was read but whose signature nobody has checked.
#[derive(Debug)]
pub struct Unverified<'b> {
    signer: KeyName,
    protected: &'b [u8],
    payload: &'b [u8],
    signature: &'b [u8],
    command: Command,
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
        r.tag("COSE_Sign1", 18)?;
        r.array("COSE_Sign1", 4)?;
        let protected = r.bytes("protected header")?;
        r.map("unprotected header")?.end()?;
        let payload = r.bytes("payload")?;
        let signature = r.bytes("signature")?;
        if signature.len() != SIGNATURE_LEN {
            return Err(DecodeError::OutOfRange { what: "signature" });
        }
        r.end()?;
        let signer = read_protected(protected)?;
        codec::deterministic(octets, &frame(protected, payload, signature))?;
        let command = Command::decode(payload)?;
        Ok(Self {
            signer,
            protected,
            payload,
            signature,
            command,
        })
    }

    /// Who claims to have signed.
    #[must_use]
    pub fn signer(&self) -> KeyName {
        self.signer
    }

    /// What it claims. Look, do not apply.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Checks the signature: the only way to a [`Verified`].
    #[must_use]
    pub fn verify(self, key: &VerifyingKey) -> Option<Verified> {
        let signed = to_be_signed(self.protected, self.payload);
        UnparsedPublicKey::new(&ED25519, key.as_bytes())
            .verify(&signed, self.signature)
            .ok()
            .map(|()| Verified {
                signer: self.signer,
                command: self.command,
            })
    }
}

/// A command whose signature was checked.
#[derive(Debug)]
pub struct Verified {
    signer: KeyName,
    command: Command,
}

impl Verified {
    #[must_use]
    pub fn signer(&self) -> KeyName {
        self.signer
    }

    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }
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

fn frame(protected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
    codec::encode(|e| {
        e.tag(minicbor::data::Tag::new(18))?
            .array(4)?
            .bytes(protected)?
            .map(0)?;
        e.bytes(payload)?.bytes(signature)?;
        Ok(())
    })
}

/// Sig_structure (RFC 9052 section 4.4).
fn to_be_signed(protected: &[u8], payload: &[u8]) -> Vec<u8> {
    codec::encode(|e| {
        e.array(4)?
            .str("Signature1")?
            .bytes(protected)?
            .bytes(EXTERNAL_AAD)?
            .bytes(payload)?;
        Ok(())
    })
}

const EXTERNAL_AAD: &[u8] = b"KF1/cmd";
const ALG_ED25519: i64 = -19;
const SIGNATURE_LEN: usize = 64;
