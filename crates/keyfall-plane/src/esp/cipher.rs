//! The three suites on one packet: `nonce = salt 4 ‖ IV 8`, `AAD = SPI ‖ sequence number`
//! (RFC 4106 sections 3, 4 and 5, RFC 7634 section 2.1; no extended sequence numbers).

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey,
};
use keyfall_protocol::keys::{EspKeys, EspSuite, Secret};

use crate::esp::ESP_HEAD;

/// Key and salt of one session or stock sender. Everything inside is wiped on drop.
pub(super) struct Cipher {
    key: LessSafeKey,
    salt: Secret<{ EspSuite::SALT_LEN }>,
}

impl Cipher {
    pub(super) fn new(keys: &EspKeys) -> Self {
        let algorithm = match keys.suite() {
            EspSuite::Aes256Gcm => &AES_256_GCM,
            EspSuite::Aes128Gcm => &AES_128_GCM,
            EspSuite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, keys.key()).expect("the key is as long as its suite");
        Self {
            key: LessSafeKey::new(key),
            salt: Secret::init_with(|salt| salt.copy_from_slice(keys.salt())),
        }
    }

    /// Encrypts `inner ‖ trailer` behind `head` into `text`, `trailer` and ICV into `tail`, in one
    /// pass. The head's sequence number and IV must not have been used under this key.
    #[inline]
    pub(super) fn seal(
        &self,
        head: &[u8; ESP_HEAD],
        inner: &[u8],
        text: &mut [u8],
        trailer: &[u8],
        tail: &mut [u8],
    ) {
        let (nonce, aad) = self.nonce(head);
        self.key
            .seal_out_of_place_scatter(nonce, aad, inner, text, trailer, tail)
            .expect("lengths fit, and an IP packet is far below the limits of the suites");
    }

    /// As [`Self::seal`], where `text` is the inner packet.
    #[inline]
    pub(super) fn seal_in_place(
        &self,
        head: &[u8; ESP_HEAD],
        text: &mut [u8],
        trailer: &[u8],
        tail: &mut [u8],
    ) {
        let (nonce, aad) = self.nonce(head);
        self.key
            .seal_in_place_scatter(nonce, aad, text, trailer, tail)
            .expect("lengths fit, and an IP packet is far below the limits of the suites");
    }

    /// Opens what follows `head` into `plain`, which is as long as `text`, in one pass. False where
    /// it is not authentic; then `plain` holds nothing of it.
    #[inline]
    pub(super) fn open(
        &self,
        head: &[u8; ESP_HEAD],
        text: &[u8],
        icv: &[u8],
        plain: &mut [u8],
    ) -> bool {
        let (nonce, aad) = self.nonce(head);
        self.key
            .open_separate_gather(nonce, aad, text, icv, plain)
            .is_ok()
    }

    #[inline]
    fn nonce(&self, head: &[u8; ESP_HEAD]) -> (Nonce, Aad<[u8; 8]>) {
        let [a, b, c, d, e, f, g, h, iv @ ..] = *head;
        let mut nonce = [0; 12];
        nonce[..EspSuite::SALT_LEN].copy_from_slice(self.salt.expose());
        nonce[EspSuite::SALT_LEN..].copy_from_slice(&iv);
        (
            Nonce::assume_unique_for_key(nonce),
            Aad::from([a, b, c, d, e, f, g, h]),
        )
    }
}

/// Octets of the integrity check value, in every suite.
pub(super) const ICV_LEN: usize = 16;
