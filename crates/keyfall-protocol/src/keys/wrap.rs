//! The double wrap of a distribution: a key-encryption key per message, wrapped once for each
//! recipient (REQUIREMENTS; FORMATS section 4).

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrap};
use zeroize::Zeroizing;

use crate::keys::{Secret, WrapKey};
use crate::rng::Random;

/// Octets of an AES-KW output over a 32-octet key.
pub const WRAPPED_LEN: usize = 40;

/// The content-encryption key of one message: made fresh for a KEYDIST, derived for what goes to one
/// terminal. Used once, then dropped.
#[derive(Debug)]
pub struct KeyEncryptionKey(Secret<32>);

/// Content sealed under a [`KeyEncryptionKey`]: A256GCM with a random 12-octet IV.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sealed {
    pub iv: [u8; 12],
    /// Ciphertext then tag.
    pub ciphertext: Vec<u8>,
}

impl KeyEncryptionKey {
    #[must_use]
    pub fn random(rng: &mut dyn Random) -> Self {
        Self(Secret::init_with(|into| rng.fill(into)))
    }

    /// A key that was derived for one message.
    pub(super) fn from_secret(secret: Secret<32>) -> Self {
        Self(secret)
    }

    /// AES-KW (RFC 3394) under the recipient's `XL(wrap key, "wrap", null, 32)`.
    #[must_use]
    pub fn wrap_for(&self, recipient: &WrapKey) -> [u8; WRAPPED_LEN] {
        let mut out = [0; WRAPPED_LEN];
        let kek = AesKek::new(&AES_256, recipient.wrapping_key().expose())
            .expect("AES-256 takes 32 octets");
        kek.wrap(self.0.expose(), &mut out)
            .expect("40 octets hold a wrapped 32-octet key");
        out
    }

    /// `None` where this recipient's key does not open the wrap.
    #[must_use]
    pub fn unwrap_by(recipient: &WrapKey, wrapped: &[u8; WRAPPED_LEN]) -> Option<Self> {
        let kek = AesKek::new(&AES_256, recipient.wrapping_key().expose()).ok()?;
        // The library wants room for the integrity check value beside the key.
        let mut out = Zeroizing::new([0u8; WRAPPED_LEN]);
        let opened = kek.unwrap(wrapped, &mut out[..]).ok()?;
        Secret::from_slice(opened).map(Self)
    }

    /// Seals `plain` with `aad` (a COSE Enc_structure) and wipes it.
    #[must_use]
    pub fn seal(&self, iv: [u8; 12], aad: &[u8], mut plain: Zeroizing<Vec<u8>>) -> Sealed {
        let mut ciphertext = Vec::with_capacity(plain.len() + AES_256_GCM.tag_len());
        let tag = self
            .aead()
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(iv),
                Aad::from(aad),
                &mut plain[..],
            )
            .expect("a command is far below the limit of GCM");
        ciphertext.extend_from_slice(&plain);
        ciphertext.extend_from_slice(tag.as_ref());
        Sealed { iv, ciphertext }
    }

    /// `None` where the tag is wrong.
    #[must_use]
    pub fn open(&self, aad: &[u8], sealed: &Sealed) -> Option<Zeroizing<Vec<u8>>> {
        let mut buffer = Zeroizing::new(sealed.ciphertext.clone());
        let len = self
            .aead()
            .open_in_place(
                Nonce::assume_unique_for_key(sealed.iv),
                Aad::from(aad),
                &mut buffer,
            )
            .ok()?
            .len();
        buffer.truncate(len);
        Some(buffer)
    }

    fn aead(&self) -> LessSafeKey {
        LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, self.0.expose()).expect("AES-256 takes 32 octets"),
        )
    }
}
