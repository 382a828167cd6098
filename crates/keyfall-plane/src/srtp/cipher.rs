//! The three suites on whole packets: what is encrypted, what is authenticated, what is appended.
//!
//! | suite | SRTP | SRTCP |
//! |---|---|---|
//! | AEAD_AES_*_GCM | header ‖ ciphertext ‖ tag 16 ‖ MKI | 8 ‖ ciphertext ‖ tag 16 ‖ E, index ‖ MKI |
//! | AES_CM_128_HMAC_SHA1_80 | header ‖ ciphertext ‖ MKI ‖ tag 10 | 8 ‖ ciphertext ‖ E, index ‖ MKI ‖ tag 10 |
//!
//! RFC 7714 sections 8 and 9, RFC 3711 sections 3.1 and 3.4. The MKI may be absent.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use aws_lc_rs::iv::FixedLength;
use keyfall_protocol::keys::{Secret, SrtpMaster, SrtpSuite};

use crate::srtp::header::RTCP_FIXED;
use crate::srtp::kdf::{Derivation, KeyUse};
use crate::srtp::{Malformed, Mki, Refused};

#[cfg(test)]
mod tests;

/// The session keys of one stretch: SRTP's and SRTCP's. Boxed by its holders; everything inside is
/// wiped on drop.
pub(super) struct SessionKeys {
    rtp: Protection,
    rtcp: Protection,
}

#[expect(clippy::large_enum_variant, reason = "both halves lie in one box")]
enum Protection {
    Gcm {
        key: LessSafeKey,
        salt: Secret<12>,
    },
    Cm {
        key: EncryptingKey,
        salt: Secret<14>,
        mac: hmac::Key,
    },
}

impl SessionKeys {
    pub(super) fn derive(master: &SrtpMaster) -> Box<Self> {
        let derivation = Derivation::new(master);
        let half = |encryption, authentication, salt| match master.suite() {
            SrtpSuite::AeadAes256Gcm => Protection::gcm_256(
                &Secret::init_with(|out| derivation.derive(encryption, out)),
                Secret::init_with(|out| derivation.derive(salt, out)),
            ),
            SrtpSuite::AeadAes128Gcm => Protection::gcm_128(
                &Secret::init_with(|out| derivation.derive(encryption, out)),
                Secret::init_with(|out| derivation.derive(salt, out)),
            ),
            SrtpSuite::AesCm128HmacSha1Tag80 => Protection::cm(
                &Secret::init_with(|out| derivation.derive(encryption, out)),
                &Secret::init_with(|out| derivation.derive(authentication, out)),
                Secret::init_with(|out| derivation.derive(salt, out)),
            ),
        };
        Box::new(Self {
            rtp: half(
                KeyUse::RtpEncryption,
                KeyUse::RtpAuthentication,
                KeyUse::RtpSalt,
            ),
            rtcp: half(
                KeyUse::RtcpEncryption,
                KeyUse::RtcpAuthentication,
                KeyUse::RtcpSalt,
            ),
        })
    }

    /// Protects an RTP packet in place. `index` must not have been used under these keys.
    #[inline]
    pub(super) fn protect_rtp(
        &self,
        ssrc: u32,
        index: u64,
        header_len: usize,
        packet: &mut Vec<u8>,
        mki: Option<&Mki>,
    ) {
        match &self.rtp {
            Protection::Gcm { key, salt } => {
                let (header, text) = packet.split_at_mut(header_len);
                let tag = key
                    .seal_in_place_separate_tag(
                        gcm_nonce(salt, ssrc, index),
                        Aad::from(header),
                        text,
                    )
                    .expect("a UDP datagram is far below the limit of GCM");
                packet.extend_from_slice(tag.as_ref());
                append_mki(packet, mki);
            }
            Protection::Cm { key, salt, mac } => {
                cm_apply(key, salt, ssrc, index, &mut packet[header_len..]);
                let tag = rtp_mac(mac, packet, index);
                append_mki(packet, mki);
                packet.extend_from_slice(&tag.as_ref()[..MAC_LEN]);
            }
        }
    }

    /// Opens an SRTP packet into `plain`, which is empty afterwards where it did not open. The
    /// caller has read the header from before the trailer of `mki_len` and [`rtp_overhead`] octets.
    #[inline]
    pub(super) fn unprotect_rtp(
        &self,
        ssrc: u32,
        index: u64,
        header_len: usize,
        packet: &[u8],
        mki_len: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match &self.rtp {
            Protection::Gcm { key, salt } => {
                let tag_end = packet.len() - mki_len;
                let (body, tag) = packet[..tag_end].split_at(tag_end - GCM_TAG_LEN);
                let (header, text) = body.split_at(header_len);
                let nonce = gcm_nonce(salt, ssrc, index);
                gcm_open(key, nonce, (header, header), text, tag, plain)
            }
            Protection::Cm { key, salt, mac } => {
                let (rest, tag) = packet.split_at(packet.len() - MAC_LEN);
                let body = &rest[..rest.len() - mki_len];
                let expected = rtp_mac(mac, body, index);
                verify_mac(expected, tag, plain)?;
                copy_into(plain, body);
                cm_apply(key, salt, ssrc, index, &mut plain[header_len..]);
                Ok(())
            }
        }
    }

    /// Protects an RTCP packet in place. `index` must not have been used under these keys.
    pub(super) fn protect_rtcp(
        &self,
        ssrc: u32,
        index: u32,
        packet: &mut Vec<u8>,
        mki: Option<&Mki>,
    ) {
        let e_index = (E_FLAG | index).to_be_bytes();
        match &self.rtcp {
            Protection::Gcm { key, salt } => {
                let (fixed, text) = packet.split_at_mut(RTCP_FIXED);
                let aad = rtcp_aad(fixed, e_index);
                let nonce = gcm_nonce(salt, ssrc, u64::from(index));
                let tag = key
                    .seal_in_place_separate_tag(nonce, Aad::from(aad), text)
                    .expect("a UDP datagram is far below the limit of GCM");
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&e_index);
                append_mki(packet, mki);
            }
            Protection::Cm { key, salt, mac } => {
                cm_apply(key, salt, ssrc, u64::from(index), &mut packet[RTCP_FIXED..]);
                packet.extend_from_slice(&e_index);
                let tag = hmac::sign(mac, packet);
                append_mki(packet, mki);
                packet.extend_from_slice(&tag.as_ref()[..MAC_LEN]);
            }
        }
    }

    /// Opens an SRTCP packet into `plain`, which is empty afterwards where it did not open. The
    /// caller has read the index with [`rtcp_index`].
    pub(super) fn unprotect_rtcp(
        &self,
        ssrc: u32,
        index: u32,
        packet: &[u8],
        mki_len: usize,
        plain: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        match &self.rtcp {
            Protection::Gcm { key, salt } => {
                let (sealed, e_index) = split_tail::<4>(&packet[..packet.len() - mki_len]);
                let (body, tag) = sealed.split_at(sealed.len() - GCM_TAG_LEN);
                let (fixed, text) = body.split_at(RTCP_FIXED);
                let aad = rtcp_aad(fixed, e_index);
                let nonce = gcm_nonce(salt, ssrc, u64::from(index));
                gcm_open(key, nonce, (fixed, &aad), text, tag, plain)
            }
            Protection::Cm { key, salt, mac } => {
                let (rest, tag) = packet.split_at(packet.len() - MAC_LEN);
                let authenticated = &rest[..rest.len() - mki_len];
                verify_mac(hmac::sign(mac, authenticated), tag, plain)?;
                copy_into(plain, &authenticated[..authenticated.len() - E_INDEX_LEN]);
                cm_apply(key, salt, ssrc, u64::from(index), &mut plain[RTCP_FIXED..]);
                Ok(())
            }
        }
    }
}

impl Protection {
    fn gcm_256(key: &Secret<32>, salt: Secret<12>) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key.expose()).expect("AES-256 takes 32 octets");
        Self::Gcm {
            key: LessSafeKey::new(key),
            salt,
        }
    }

    fn gcm_128(key: &Secret<16>, salt: Secret<12>) -> Self {
        let key = UnboundKey::new(&AES_128_GCM, key.expose()).expect("AES-128 takes 16 octets");
        Self::Gcm {
            key: LessSafeKey::new(key),
            salt,
        }
    }

    fn cm(key: &Secret<16>, mac: &Secret<20>, salt: Secret<14>) -> Self {
        let key = UnboundCipherKey::new(&AES_128, key.expose())
            .and_then(EncryptingKey::ctr)
            .expect("AES-128 takes 16 octets");
        Self::Cm {
            key,
            salt,
            mac: hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, mac.expose()),
        }
    }
}

/// Octets that SRTP adds beside the MKI.
#[inline]
pub(super) const fn rtp_overhead(suite: SrtpSuite) -> usize {
    match suite {
        SrtpSuite::AeadAes256Gcm | SrtpSuite::AeadAes128Gcm => GCM_TAG_LEN,
        SrtpSuite::AesCm128HmacSha1Tag80 => MAC_LEN,
    }
}

/// Octets that SRTCP adds beside the MKI.
pub(super) const fn rtcp_overhead(suite: SrtpSuite) -> usize {
    rtp_overhead(suite) + E_INDEX_LEN
}

/// Octets behind the MKI.
#[inline]
pub(super) const fn mac_len(suite: SrtpSuite) -> usize {
    match suite {
        SrtpSuite::AeadAes256Gcm | SrtpSuite::AeadAes128Gcm => 0,
        SrtpSuite::AesCm128HmacSha1Tag80 => MAC_LEN,
    }
}

/// The SRTCP index of a protected packet.
///
/// # Errors
/// [`Refused::Malformed`] where it is too short for the suite, [`Refused::NotEncrypted`] where the
/// E flag is missing.
pub(super) fn rtcp_index(suite: SrtpSuite, packet: &[u8], mki_len: usize) -> Result<u32, Refused> {
    if packet.len() < RTCP_FIXED + rtcp_overhead(suite) + mki_len {
        return Err(Malformed::TooShort.into());
    }
    let (_, word) = split_tail::<4>(&packet[..packet.len() - mac_len(suite) - mki_len]);
    let word = u32::from_be_bytes(word);
    if word & E_FLAG == 0 {
        return Err(Refused::NotEncrypted);
    }
    Ok(word & !E_FLAG)
}

/// `salt XOR (0 16 ‖ SSRC 32 ‖ index 48)`: the IV of SRTP with index = ROC ‖ SEQ (RFC 7714
/// section 8.1) and of SRTCP with index = 0 ‖ SRTCP index (section 9.1).
#[inline]
fn gcm_nonce(salt: &Secret<12>, ssrc: u32, index: u64) -> Nonce {
    Nonce::assume_unique_for_key(gcm_iv(salt.expose(), ssrc, index))
}

#[inline]
pub(super) fn gcm_iv(salt: &[u8; 12], ssrc: u32, index: u64) -> [u8; 12] {
    let mut iv = [0; 12];
    let block = u128::from(ssrc) << 48 | u128::from(index);
    iv.copy_from_slice(&block.to_be_bytes()[4..]);
    for (octet, salt) in iv.iter_mut().zip(salt) {
        *octet ^= salt;
    }
    iv
}

/// Opens `text` behind a copy of `fixed`. Out of place, so that a packet that does not open under
/// one key is still whole for the next.
#[inline]
fn gcm_open(
    key: &LessSafeKey,
    nonce: Nonce,
    (fixed, aad): (&[u8], &[u8]),
    text: &[u8],
    tag: &[u8],
    plain: &mut Vec<u8>,
) -> Result<(), Refused> {
    plain.resize(fixed.len() + text.len(), 0);
    let (head, out) = plain.split_at_mut(fixed.len());
    head.copy_from_slice(fixed);
    key.open_separate_gather(nonce, Aad::from(aad), text, tag, out)
        .map_err(|_| {
            plain.clear();
            Refused::AuthenticationFailed
        })
}

/// `(salt · 2^16) XOR (SSRC · 2^64) XOR (index · 2^16)`, then AES in counter mode (RFC 3711
/// section 4.1.1).
fn cm_apply(key: &EncryptingKey, salt: &Secret<14>, ssrc: u32, index: u64, text: &mut [u8]) {
    let mut salted = [0; 16];
    salted[..14].copy_from_slice(salt.expose());
    let iv = u128::from_be_bytes(salted) ^ u128::from(ssrc) << 64 ^ u128::from(index) << 16;
    let iv = FixedLength::from(iv.to_be_bytes());
    key.less_safe_encrypt(text, EncryptionContext::Iv128(iv))
        .expect("counter mode takes any length");
}

/// `HMAC-SHA1(key, packet ‖ ROC)` (RFC 3711 section 4.2).
fn rtp_mac(key: &hmac::Key, packet: &[u8], index: u64) -> hmac::Tag {
    let mut mac = hmac::Context::with_key(key);
    mac.update(packet);
    mac.update(&((index >> 16) as u32).to_be_bytes());
    mac.sign()
}

fn verify_mac(expected: hmac::Tag, tag: &[u8], plain: &mut Vec<u8>) -> Result<(), Refused> {
    verify_slices_are_equal(&expected.as_ref()[..MAC_LEN], tag).map_err(|_| {
        plain.clear();
        Refused::AuthenticationFailed
    })
}

/// First header and SSRC, then E flag and index (RFC 7714 section 9.2).
fn rtcp_aad(fixed: &[u8], e_index: [u8; E_INDEX_LEN]) -> [u8; RTCP_FIXED + E_INDEX_LEN] {
    let mut aad = [0; RTCP_FIXED + E_INDEX_LEN];
    aad[..RTCP_FIXED].copy_from_slice(fixed);
    aad[RTCP_FIXED..].copy_from_slice(&e_index);
    aad
}

#[inline]
fn append_mki(packet: &mut Vec<u8>, mki: Option<&Mki>) {
    if let Some(mki) = mki {
        packet.extend_from_slice(mki.as_bytes());
    }
}

fn copy_into(plain: &mut Vec<u8>, octets: &[u8]) {
    plain.clear();
    plain.extend_from_slice(octets);
}

/// The last `N` octets and what stands before them; the caller has checked the length.
fn split_tail<const N: usize>(octets: &[u8]) -> (&[u8], [u8; N]) {
    let (rest, tail) = octets
        .split_last_chunk::<N>()
        .expect("rtcp_index has checked the length for the suite");
    (rest, *tail)
}

/// Octets of a GCM tag.
const GCM_TAG_LEN: usize = 16;
/// Octets of an 80-bit HMAC-SHA1 tag.
const MAC_LEN: usize = 10;
/// Octets of E flag and SRTCP index.
const E_INDEX_LEN: usize = 4;
/// Set where an SRTCP packet is encrypted.
const E_FLAG: u32 = 1 << 31;
