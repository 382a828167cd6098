//! RSA keys of 2048 to 8192 bits, and RSAES-OAEP with SHA-256 in both places and an empty label
//! (RFC 8017 section 7.1).
//!
//! The randomness of OAEP, of blinding and of key generation is the library's own: aws-lc takes none
//! from outside. No other part of the core works so, and what a machine decides never depends on it.

use std::fmt;

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, OaepPublicEncryptingKey,
    PrivateDecryptingKey, PublicEncryptingKey,
};
use zeroize::Zeroizing;

use crate::command::{KeySet, ListedKey, SignerClass, VerifyingKey};
use crate::ids::KeyName;

/// A private RSA key: the server's, which opens KEY-REQs, or a terminal's, which opens KEY-DIS. The library
/// wipes it when it is dropped.
pub struct RsaSecret {
    key: PrivateDecryptingKey,
    public: RsaPublic,
}

/// A public RSA key.
#[derive(Clone)]
pub struct RsaPublic {
    key: PublicEncryptingKey,
    spki: Vec<u8>,
}

/// The sizes in which the library makes keys; others between 2048 and 8192 bits may be imported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RsaSize {
    Bits2048,
    Bits3072,
    Bits4096,
    Bits8192,
}

impl RsaSize {
    pub const ALL: [Self; 4] = [
        Self::Bits2048,
        Self::Bits3072,
        Self::Bits4096,
        Self::Bits8192,
    ];

    #[must_use]
    pub const fn bits(self) -> u16 {
        match self {
            Self::Bits2048 => 2048,
            Self::Bits3072 => 3072,
            Self::Bits4096 => 4096,
            Self::Bits8192 => 8192,
        }
    }

    /// `None` for a size in which no key is made here.
    #[must_use]
    pub fn of_bits(bits: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.bits() == bits)
    }
}

impl RsaSecret {
    /// A new key, from the library's own randomness. `None` where the library fails. A key of 8192 bits
    /// takes many seconds.
    #[must_use]
    pub fn generate(size: RsaSize) -> Option<Self> {
        let size = match size {
            RsaSize::Bits2048 => KeySize::Rsa2048,
            RsaSize::Bits3072 => KeySize::Rsa3072,
            RsaSize::Bits4096 => KeySize::Rsa4096,
            RsaSize::Bits8192 => KeySize::Rsa8192,
        };
        PrivateDecryptingKey::generate(size).ok().map(Self::new)
    }

    /// From PKCS #8 (RFC 5208) as DER; `None` where that is no consistent RSA key of 2048 to 8192 bits
    /// (KR-307).
    #[must_use]
    pub fn from_pkcs8(der: &[u8]) -> Option<Self> {
        PrivateDecryptingKey::from_pkcs8(der).ok().map(Self::new)
    }

    /// A second copy, asked for by name.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            key: self.key.clone(),
            public: self.public.clone(),
        }
    }

    /// PKCS #8 as DER, for the seal of a store; wiped on drop.
    #[must_use]
    pub fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        let der = self.key.as_der().expect("the library writes what it read");
        Zeroizing::new(der.as_ref().to_vec())
    }

    #[must_use]
    pub fn public(&self) -> &RsaPublic {
        &self.public
    }

    fn new(key: PrivateDecryptingKey) -> Self {
        let public = RsaPublic::new(key.public_key());
        Self { key, public }
    }

    /// Octets of what is sealed to this key: those of its modulus.
    pub(super) fn sealed_len(&self) -> usize {
        self.key.key_size_bytes()
    }

    /// What was sealed to this key. `None` whatever is wrong; the library takes the same time for it.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let key = OaepPrivateDecryptingKey::new(self.key.clone()).ok()?;
        let mut plain = Zeroizing::new(vec![0; key.min_output_size()]);
        let len = key
            .decrypt(&OAEP_SHA256_MGF1SHA256, sealed, &mut plain, None)
            .ok()?
            .len();
        plain.truncate(len);
        Some(plain)
    }
}

impl RsaPublic {
    /// From a SubjectPublicKeyInfo (RFC 5280 section 4.1) as DER; `None` where that is no RSA key of 2048 to
    /// 8192 bits, or written in another than the one allowed way, so that a key has one fingerprint
    /// (KR-307).
    #[must_use]
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        let public = Self::new(PublicEncryptingKey::from_der(der).ok()?);
        (public.spki == der).then_some(public)
    }

    /// The SubjectPublicKeyInfo as DER.
    #[must_use]
    pub fn as_spki(&self) -> &[u8] {
        &self.spki
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what a KEYSET lists.
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        sha256(&[&self.spki])
    }

    /// The fingerprint as a KEYSET lists it.
    #[must_use]
    pub fn listing(&self) -> VerifyingKey {
        VerifyingKey::new(self.fingerprint())
    }

    /// The fetched key, where `key_set` lists it as the server's.
    #[must_use]
    pub fn listed_in(key_set: &KeySet, spki: &[u8]) -> Option<Self> {
        Self::from_spki(spki).filter(|key| key.is_listed_in(key_set))
    }

    /// Whether `key_set` lists it as the server's.
    #[must_use]
    pub fn is_listed_in(&self, key_set: &KeySet) -> bool {
        let listed = |it: &ListedKey| it.class == SignerClass::Rsa && it.public == self.listing();
        key_set.keys.iter().any(listed)
    }

    /// Bits of the modulus.
    #[must_use]
    pub fn bits(&self) -> usize {
        self.key.key_size_bits()
    }

    /// The name of the key as in a KEYSET: the first 8 octets of SHA-256 of its fingerprint.
    #[must_use]
    pub fn name(&self) -> KeyName {
        KeyName::new(first8(&sha256(&[&self.fingerprint()])))
    }

    fn new(key: PublicEncryptingKey) -> Self {
        let der = key.as_der().expect("the library writes what it read");
        let spki = der.as_ref().to_vec();
        Self { key, spki }
    }

    /// Seals at most 190 octets: what OAEP leaves of 2048 bits.
    pub(super) fn seal(&self, plain: &[u8]) -> Vec<u8> {
        debug_assert!(plain.len() <= 190, "{} octets", plain.len());
        let key = OaepPublicEncryptingKey::new(self.key.clone())
            .expect("the library takes its own keys here");
        let mut sealed = vec![0; key.ciphertext_size()];
        key.encrypt(&OAEP_SHA256_MGF1SHA256, plain, &mut sealed, None)
            .expect("so few octets fit into 2048 bits");
        sealed
    }
}

/// Two halves of one pair are the same key.
impl PartialEq for RsaSecret {
    fn eq(&self, other: &Self) -> bool {
        self.public == other.public
    }
}

impl Eq for RsaSecret {}

impl PartialEq for RsaPublic {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for RsaPublic {}

impl fmt::Debug for RsaSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "private half of {:?}", self.public)
    }
}

impl fmt::Debug for RsaPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RSA key {}, {} bits", self.name(), self.bits())
    }
}

/// SHA-256 of the parts, one after another.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

pub(super) fn first8(hash: &[u8; 32]) -> [u8; 8] {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    first
}
