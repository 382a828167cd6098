//! `AES-CM(master key, (label ‖ 0) XOR master salt)`: session keys from an SRTP master
//! (RFC 3711 section 4.3, RFC 6188 section 3 for AES-256, RFC 7714 section 11), rate 0.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use keyfall_protocol::keys::SrtpMaster;
use zeroize::Zeroizing;

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
    salt: Zeroizing<[u8; 16]>,
}

impl Derivation {
    pub(super) fn new(master: &SrtpMaster) -> Self {
        Self::from_parts(master.key(), master.salt())
    }

    /// `key` has 16 or 32 octets, `salt` at most 14.
    fn from_parts(key: &[u8], salt: &[u8]) -> Self {
        let algorithm = if key.len() == 32 { &AES_256 } else { &AES_128 };
        let prf = UnboundCipherKey::new(algorithm, key)
            .and_then(EncryptingKey::ctr)
            .expect("a master key is 16 or 32 octets by its suite");
        let mut padded = Zeroizing::new([0; 16]);
        padded[..salt.len()].copy_from_slice(salt);
        Self { prf, salt: padded }
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

#[cfg(test)]
mod tests {
    use super::{Derivation, KeyUse};
    use crate::srtp::tests::octets;

    fn derived(derivation: &Derivation, key_use: KeyUse, len: usize) -> Vec<u8> {
        let mut out = vec![0xff; len];
        derivation.derive(key_use, &mut out);
        out
    }

    #[test]
    fn rfc_3711_appendix_b_3_key_derivation() {
        let derivation = Derivation::from_parts(
            &octets("E1F97A0D3E018BE0D64FA32C06DE4139"),
            &octets("0EC675AD498AFEEBB6960B3AABE6"),
        );
        assert_eq!(
            derived(&derivation, KeyUse::RtpEncryption, 16),
            octets("C61E7A93744F39EE10734AFE3FF7A087")
        );
        assert_eq!(
            derived(&derivation, KeyUse::RtpSalt, 14),
            octets("30CBBC08863D8C85D49DB34A9AE1")
        );
        assert_eq!(
            derived(&derivation, KeyUse::RtpAuthentication, 94),
            octets(
                "CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCE
                 E049646C43D9327AD175578EF72270986371C10C9A369AC2F94A8C5FBCDDDC25
                 6D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2"
            )
        );
    }

    #[test]
    fn rfc_6188_section_7_2_key_derivation_with_256_bits() {
        let derivation = Derivation::from_parts(
            &octets("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6"),
            &octets("3b04803de51ee7c96423ab5b78d2"),
        );
        assert_eq!(
            derived(&derivation, KeyUse::RtpEncryption, 32),
            octets("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4")
        );
        assert_eq!(
            derived(&derivation, KeyUse::RtpSalt, 14),
            octets("fa31791685ca444a9e07c6c64e93")
        );
        assert_eq!(
            derived(&derivation, KeyUse::RtpAuthentication, 20),
            octets("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05")
        );
    }
}
