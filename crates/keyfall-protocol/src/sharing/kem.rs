//! Sealing to a key of the other side: single-shot HPKE in base mode (RFC 9180), with HKDF-SHA256
//! and AES-256-GCM, over X25519 (KEM 0x0020) or X-Wing, which is ML-KEM-768 and X25519 together
//! (KEM 0x647A).

use std::fmt;

use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::{Kem, X25519HkdfSha256, XWing};
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

use crate::command::{KeySet, SignerClass, VerifyingKey};
use crate::keys::Secret;
use crate::rng::{FromRandom, Random};
use crate::sharing::SharingSuite;
use crate::sharing::message::sha256;

/// Which KEM.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum KemSuite {
    /// X25519 with HKDF-SHA256.
    X25519,
    /// ML-KEM-768 with X25519: also against who has a quantum computer one day.
    XWing,
}

impl KemSuite {
    /// The KEM of a suite that has one.
    #[must_use]
    pub const fn of(suite: SharingSuite) -> Option<Self> {
        match suite {
            SharingSuite::Hpke => Some(Self::X25519),
            SharingSuite::HpkePq => Some(Self::XWing),
            SharingSuite::Psk | SharingSuite::RsaMisty1 => None,
        }
    }

    /// The suite that uses it.
    #[must_use]
    pub const fn sharing(self) -> SharingSuite {
        match self {
            Self::X25519 => SharingSuite::Hpke,
            Self::XWing => SharingSuite::HpkePq,
        }
    }

    /// How a KEYSET lists such a key.
    #[must_use]
    pub const fn class(self) -> SignerClass {
        match self {
            Self::X25519 => SignerClass::Kem,
            Self::XWing => SignerClass::KemPq,
        }
    }

    /// Octets of a public key.
    const fn public_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::XWing => 1216,
        }
    }

    /// Octets of an encapsulated key.
    pub(super) const fn encapsulated_len(self) -> usize {
        match self {
            Self::X25519 => 32,
            Self::XWing => 1120,
        }
    }
}

/// A private key, made from 32 octets (RFC 9180 DeriveKeyPair).
pub struct KemSecret {
    seed: Secret<32>,
    /// Parsed once: opening costs the operation alone.
    private: Private,
    public: KemPublic,
}

enum Private {
    X25519(Box<<X25519HkdfSha256 as Kem>::PrivateKey>),
    XWing(Box<<XWing as Kem>::PrivateKey>),
}

/// A public key, as the other side gave it; not yet known to be one of anybody.
#[derive(Clone, PartialEq, Eq)]
pub struct KemPublic {
    suite: KemSuite,
    octets: Vec<u8>,
}

/// Encapsulated key and ciphertext.
pub type SealedToKem = (Vec<u8>, Vec<u8>);

impl KemSecret {
    #[must_use]
    pub fn from_seed(suite: KemSuite, seed: Secret<32>) -> Self {
        let (private, octets) = match suite {
            KemSuite::X25519 => {
                let (private, public) = X25519HkdfSha256::derive_keypair(seed.expose());
                (
                    Private::X25519(Box::new(private)),
                    public.to_bytes().to_vec(),
                )
            }
            KemSuite::XWing => {
                let (private, public) = XWing::derive_keypair(seed.expose());
                (
                    Private::XWing(Box::new(private)),
                    public.to_bytes().to_vec(),
                )
            }
        };
        Self {
            seed,
            private,
            public: KemPublic { suite, octets },
        }
    }

    /// The seed, for the seal of a store.
    #[must_use]
    pub fn seed(&self) -> &Secret<32> {
        &self.seed
    }

    /// A second copy, asked for by name.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::from_seed(self.public.suite, self.seed.duplicate())
    }

    #[must_use]
    pub fn public(&self) -> &KemPublic {
        &self.public
    }

    /// `None` where it was sealed to another key, or for something else.
    #[must_use]
    pub fn open(&self, info: &[u8], enc: &[u8], ct: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        match &self.private {
            Private::X25519(private) => open_by::<X25519HkdfSha256>(private, info, enc, ct),
            Private::XWing(private) => open_by::<XWing>(private, info, enc, ct),
        }
    }
}

impl KemPublic {
    /// `None` where the length is another.
    #[must_use]
    pub fn new(suite: KemSuite, octets: &[u8]) -> Option<Self> {
        (octets.len() == suite.public_len()).then(|| Self {
            suite,
            octets: octets.to_vec(),
        })
    }

    /// The fetched key that `key_set` lists, whichever it is.
    #[must_use]
    pub fn listed_in(key_set: &KeySet, octets: &[u8]) -> Option<Self> {
        let key = Self::new(KemSuite::XWing, octets)?;
        let listed = |it: &crate::command::ListedKey| {
            it.class == key.suite.class() && it.public == key.listing()
        };
        key_set.keys.iter().any(listed).then_some(key)
    }

    #[must_use]
    pub fn suite(&self) -> KemSuite {
        self.suite
    }

    #[must_use]
    pub fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// What a KEYSET lists: the key itself, or SHA-256 of one that is longer.
    #[must_use]
    pub fn listing(&self) -> VerifyingKey {
        let listed = match self.suite {
            KemSuite::X25519 => self.octets.as_slice().try_into().ok(),
            KemSuite::XWing => None,
        };
        VerifyingKey::new(listed.unwrap_or_else(|| sha256(&[&self.octets])))
    }

    /// `None` where the octets are no public key.
    #[must_use]
    pub fn seal(&self, info: &[u8], plain: &[u8], rng: &mut dyn Random) -> Option<SealedToKem> {
        match self.suite {
            KemSuite::X25519 => seal_to::<X25519HkdfSha256>(&self.octets, info, plain, rng),
            KemSuite::XWing => seal_to::<XWing>(&self.octets, info, plain, rng),
        }
    }
}

impl KeySet {
    /// The listed key of that KEM, where the list holds all of it.
    #[must_use]
    pub fn kem_in_full(&self, suite: KemSuite) -> Option<KemPublic> {
        match suite {
            KemSuite::X25519 => {
                let listed = self.first_of(suite.class())?;
                KemPublic::new(suite, listed.public.as_bytes())
            }
            KemSuite::XWing => None,
        }
    }

    /// Whether a key of that KEM is listed.
    #[must_use]
    pub fn lists_kem(&self, suite: KemSuite) -> bool {
        self.first_of(suite.class()).is_some()
    }

    /// In which a token counts: of the first suite with a KEM of which a key is listed (KR-376).
    #[must_use]
    pub fn token_kem(&self) -> Option<KemSuite> {
        let suites = self.limits.suites.iter();
        let mut kems = suites.filter_map(|&suite| KemSuite::of(suite));
        kems.find(|&kem| self.lists_kem(kem))
    }
}

fn seal_to<K: Kem>(
    public: &[u8],
    info: &[u8],
    plain: &[u8],
    rng: &mut dyn Random,
) -> Option<SealedToKem> {
    let public = K::PublicKey::from_bytes(public).ok()?;
    let (enc, ct) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, K>(
        &OpModeS::Base,
        &public,
        info,
        plain,
        &[],
        &mut FromRandom(rng),
    )
    .ok()?;
    Some((enc.to_bytes().to_vec(), ct))
}

fn open_by<K: Kem>(
    private: &K::PrivateKey,
    info: &[u8],
    enc: &[u8],
    ct: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let enc = K::EncappedKey::from_bytes(enc).ok()?;
    hpke::single_shot_open::<AesGcm256, HkdfSha256, K>(&OpModeR::Base, private, &enc, info, ct, &[])
        .map(Zeroizing::new)
        .ok()
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemSecret({:?})", self.public)
    }
}

impl fmt::Debug for KemPublic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KemPublic({:?}, {})", self.suite, self.listing().name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting(u8);

    impl Random for Counting {
        fn fill(&mut self, into: &mut [u8]) {
            for octet in into {
                self.0 = self.0.wrapping_mul(73).wrapping_add(41);
                *octet = self.0;
            }
        }
    }

    fn secret(suite: KemSuite, octet: u8) -> KemSecret {
        KemSecret::from_seed(suite, Secret::init_with(|into| into.fill(octet)))
    }

    #[test]
    fn what_is_sealed_to_a_key_opens_with_it_for_the_same_purpose_and_in_no_other_way() {
        for suite in [KemSuite::X25519, KemSuite::XWing] {
            let (key, other) = (secret(suite, 1), secret(suite, 2));
            let sealed = key.public().seal(b"info", b"plain", &mut Counting(3));
            let (enc, mut ct) = sealed.expect("a good key");
            let open = |by: &KemSecret, info: &[u8], ct: &[u8]| by.open(info, &enc, ct);
            assert_eq!(
                open(&key, b"info", &ct).as_deref(),
                Some(&b"plain".to_vec())
            );
            assert_eq!(open(&other, b"info", &ct), None);
            assert_eq!(open(&key, b"other", &ct), None);
            ct[0] ^= 1;
            assert_eq!(open(&key, b"info", &ct), None);
        }
    }

    #[test]
    fn octets_that_are_no_public_key_seal_nothing() {
        assert!(KemPublic::new(KemSuite::X25519, &[1; 31]).is_none());
        assert!(KemPublic::new(KemSuite::XWing, &[1; 32]).is_none());
        let zero = KemPublic::new(KemSuite::X25519, &[0; 32]).expect("32 octets");
        assert!(
            zero.seal(b"", b"plain", &mut Counting(1)).is_none(),
            "RFC 9180 section 7.1.4"
        );
    }
}
