//! `AES-CM(master key, (label ‖ 0) XOR master salt)`: session keys from an SRTP master
//! (RFC 3711 section 4.3, RFC 6188 section 3 for AES-256, RFC 7714 section 11), rate 0.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use keyfall_protocol::keys::SrtpMaster;

/// What a session key or salt is for. The rate is 0, so the index is not part of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyUse {
    RtpEncryption = 0,
    RtpAuthentication = 1,
    RtpSalt = 2,
    RtcpEncryption = 3,
    RtcpAuthentication = 4,
    RtcpSalt = 5,
}

/// The key schedule of the derivation, made once for the six values of a master.
pub(super) struct Derivation {
    prf: EncryptingKey,
    /// The master salt, 96 bits padded with zeros to 112 (RFC 7714 section 11), then the 16 bits
    /// of the block counter.
    salt: zeroize::Zeroizing<[u8; 16]>,
}

impl Derivation {
    pub(super) fn new(master: &SrtpMaster) -> Self {
        let key = master.key();
        let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
        let prf = UnboundCipherKey::new(algorithm, key)
            .and_then(EncryptingKey::ctr)
            .expect("a master key is 16 or 32 octets by its suite");
        let mut salt = zeroize::Zeroizing::new([0; 16]);
        salt[..master.salt().len()].copy_from_slice(master.salt());
        Self { prf, salt }
    }

    /// Fills `out` with the key or salt for `key_use`.
    pub(super) fn derive(&self, key_use: KeyUse, out: &mut [u8]) {
        let mut iv = *self.salt;
        // key_id = label ‖ 48 zero bits, right-aligned in the 14 octets of the salt.
        iv[7] ^= key_use as u8;
        out.fill(0);
        self.prf
            .less_safe_encrypt(out, EncryptionContext::Iv128(FixedLength::from(iv)))
            .expect("counter mode takes any length");
    }
}
