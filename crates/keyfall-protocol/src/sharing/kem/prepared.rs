//! Opening what was sealed to a key (RFC 9180, base mode). The private key stands ready in
//! aws-lc-rs, so that an opening costs one agreement, of X-Wing also one decapsulation, and never
//! an expansion of the key.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::agreement::{self, PrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::digest::{self, SHA3_256};
use aws_lc_rs::hkdf::{self, HKDF_SHA256};
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::kem::{self, ML_KEM_768};
use ml_kem::{FromSeed as _, MlKem768, Seed};
use shake::Shake256;
use shake::digest::{ExtendableOutput as _, Update as _, XofReader as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::KemSuite;
use crate::keys::Secret;

/// A private key, ready. aws-lc wipes both halves when they are dropped.
pub(super) struct Prepared {
    curve: PrivateKey,
    /// The public key of `curve`.
    public: [u8; CURVE_LEN],
    /// The ML-KEM-768 half of X-Wing.
    lattice: Option<kem::DecapsulationKey>,
}

impl Prepared {
    /// From what RFC 9180 calls SerializePrivateKey.
    pub(super) fn x25519(private: &[u8; 32]) -> Self {
        let curve = PrivateKey::from_private_key(&X25519, private);
        let curve = curve.expect("any 32 octets are a key of X25519");
        let public = curve.compute_public_key();
        let public = public.expect("every private key has a public one");
        let public = public.as_ref().try_into();
        Self {
            curve,
            public: public.expect("it has 32 octets"),
            lattice: None,
        }
    }

    /// `SHAKE256(private, 96)`: the seed of ML-KEM-768, then the key of X25519
    /// (draft-connolly-cfrg-xwing-kem section 5.2).
    pub(super) fn xwing(private: &[u8; 32]) -> Self {
        let mut shake = Shake256::default();
        shake.update(private);
        let mut expanded = shake.finalize_xof();
        let mut seed = Seed::default();
        expanded.read(&mut seed);
        let curve = Secret::<32>::init_with(|into| expanded.read(into));
        let lattice = lattice_of(&seed);
        seed.zeroize();
        Self {
            lattice: Some(lattice),
            ..Self::x25519(curve.expose())
        }
    }

    /// `None` where it was sealed to another key, or for something else.
    pub(super) fn open(&self, info: &[u8], enc: &[u8], ct: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (suite, shared) = match &self.lattice {
            None => (KemSuite::X25519, self.decap_x25519(enc)?),
            Some(lattice) => (KemSuite::XWing, self.decap_xwing(lattice, enc)?),
        };
        let (key, nonce) = key_schedule(suite, shared.expose(), info);
        let mut plain = Zeroizing::new(ct.to_vec());
        let opened = key.open_in_place(nonce, Aad::empty(), &mut plain).ok()?;
        let len = opened.len();
        plain.truncate(len);
        Some(plain)
    }

    /// RFC 9180 section 4.1, Decap.
    fn decap_x25519(&self, enc: &[u8]) -> Option<Secret<32>> {
        let suite = [b"KEM", &kem_id(KemSuite::X25519)[..]].concat();
        self.agree(enc, |dh| {
            let prk = labeled_extract(&suite, &[], b"eae_prk", dh);
            let context = [enc, &self.public].concat();
            Secret::init_with(|into| {
                labeled_expand(&suite, &prk, b"shared_secret", &context, into);
            })
        })
    }

    /// `SHA3-256(ML-KEM's secret, X25519's, its encapsulated key, its public key, label)`
    /// (draft-connolly-cfrg-xwing-kem sections 5.3 and 5.5).
    fn decap_xwing(&self, lattice: &kem::DecapsulationKey, enc: &[u8]) -> Option<Secret<32>> {
        let (lattice_enc, curve_enc) = enc.split_at_checked(enc.len().checked_sub(CURVE_LEN)?)?;
        let first = lattice.decapsulate(lattice_enc.into()).ok()?;
        self.agree(curve_enc, |second| {
            let mut context = digest::Context::new(&SHA3_256);
            for part in [first.as_ref(), second, curve_enc, &self.public, XWING_LABEL] {
                context.update(part);
            }
            let shared = context.finish();
            Secret::init_with(|into| into.copy_from_slice(shared.as_ref()))
        })
    }

    /// `None` where the octets are no key, or one with which nothing is agreed (RFC 9180 section
    /// 7.1.4).
    fn agree<T>(&self, with: &[u8], then: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let with = UnparsedPublicKey::new(&X25519, with);
        agreement::agree(&self.curve, with, (), |agreed| Ok(then(agreed))).ok()
    }
}

/// The key of that seed in the expanded form, the only one that aws-lc-rs takes; it is stored
/// nowhere.
#[expect(
    deprecated,
    reason = "expanded keys are not to be stored, says the library"
)]
fn lattice_of(seed: &Seed) -> kem::DecapsulationKey {
    use ml_kem::ExpandedKeyEncoding as _;

    let (key, _) = MlKem768::from_seed(seed);
    let mut octets = key.to_expanded_bytes();
    let lattice = kem::DecapsulationKey::new(&ML_KEM_768, &octets);
    octets.zeroize();
    lattice.expect("an expanded key has the length of one")
}

/// RFC 9180 section 5.1, KeySchedule in base mode, and the nonce of the first message.
fn key_schedule(kem: KemSuite, shared: &[u8; 32], info: &[u8]) -> (LessSafeKey, Nonce) {
    let suite = [b"HPKE", &kem_id(kem)[..], &KDF_ID, &AEAD_ID].concat();
    let psk_id_hash = labeled_extract(&suite, &[], b"psk_id_hash", &[]);
    let info_hash = labeled_extract(&suite, &[], b"info_hash", info);
    let context = [&[MODE_BASE], psk_id_hash.as_ref(), info_hash.as_ref()].concat();
    let secret = labeled_extract(&suite, shared, b"secret", &[]);
    let key = Secret::<32>::init_with(|into| {
        labeled_expand(&suite, &secret, b"key", &context, into);
    });
    let mut nonce = [0; NONCE_LEN];
    labeled_expand(&suite, &secret, b"base_nonce", &context, &mut nonce);
    let key = UnboundKey::new(&AES_256_GCM, key.expose()).expect("32 octets are a key");
    (LessSafeKey::new(key), Nonce::assume_unique_for_key(nonce))
}

/// RFC 9180 section 4, LabeledExtract.
fn labeled_extract(suite: &[u8], salt: &[u8], label: &[u8], ikm: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, salt));
    for part in [VERSION, suite, label, ikm] {
        context.update(part);
    }
    context.sign()
}

/// RFC 9180 section 4, LabeledExpand.
fn labeled_expand(suite: &[u8], prk: &hmac::Tag, label: &[u8], info: &[u8], out: &mut [u8]) {
    let len = u16::try_from(out.len()).expect("a key is shorter than 64 KiB");
    let info = [&len.to_be_bytes()[..], VERSION, suite, label, info];
    hkdf::Prk::new_less_safe(HKDF_SHA256, prk.as_ref())
        .expand(&info, OutLen(out.len()))
        .and_then(|okm| okm.fill(out))
        .expect("a key is shorter than 255 blocks");
}

struct OutLen(usize);

impl hkdf::KeyType for OutLen {
    fn len(&self) -> usize {
        self.0
    }
}

const fn kem_id(suite: KemSuite) -> [u8; 2] {
    match suite {
        KemSuite::X25519 => [0x00, 0x20],
        KemSuite::XWing => [0x64, 0x7a],
    }
}

const VERSION: &[u8] = b"HPKE-v1";
const MODE_BASE: u8 = 0;
/// HKDF-SHA256.
const KDF_ID: [u8; 2] = [0, 1];
/// AES-256-GCM.
const AEAD_ID: [u8; 2] = [0, 2];
const XWING_LABEL: &[u8] = br"\.//^\";
/// Octets of a public or encapsulated key of X25519.
const CURVE_LEN: usize = 32;
