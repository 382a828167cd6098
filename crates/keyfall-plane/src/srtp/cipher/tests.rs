//! Published packets, under the session keys that the RFCs give.

use keyfall_protocol::keys::{Secret, SrtpSuite};

use super::{Protection, SessionKeys, cm_apply, rtcp_index};
use crate::srtp::Refused;
use crate::srtp::tests::octets;

fn secret<const N: usize>(hex: &str) -> Secret<N> {
    Secret::from_slice(&octets(hex)).expect("the vector has this length")
}

/// RFC 7714 sections 16 and 17 use one key and salt for SRTP and SRTCP alike.
fn rfc_7714_keys(suite: SrtpSuite) -> SessionKeys {
    let half = || {
        let salt = secret("517569642070726f2071756f");
        match suite {
            SrtpSuite::AeadAes256Gcm => Protection::gcm_256(
                &secret("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"),
                salt,
            ),
            SrtpSuite::AeadAes128Gcm => {
                Protection::gcm_128(&secret("000102030405060708090a0b0c0d0e0f"), salt)
            }
            SrtpSuite::AesCm128HmacSha1Tag80 => unreachable!("not a suite of RFC 7714"),
        }
    };
    SessionKeys {
        rtp: half(),
        rtcp: half(),
    }
}

const RTP_HEADER: &str = "8040f17b8041f8d35501a0b2";
const RTP_SSRC: u32 = 0x5501_a0b2;
const RTP_INDEX: u64 = 0xf17b;
const RTP_PAYLOAD: &str = "47616c6c696120657374206f6d6e697320646976697361
                           20696e207061727465732074726573";

const RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e930
                    4c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";
const RTCP_SSRC: u32 = 0x4d61_7273;
const RTCP_INDEX: u32 = 0x5d4;

fn check_rtp(suite: SrtpSuite, sealed_payload: &str) {
    let keys = rfc_7714_keys(suite);
    let plain = octets(&format!("{RTP_HEADER}{RTP_PAYLOAD}"));
    let mut packet = plain.clone();
    keys.protect_rtp(RTP_SSRC, RTP_INDEX, 12, &mut packet, None);
    assert_eq!(packet, octets(&format!("{RTP_HEADER}{sealed_payload}")));

    let mut opened = Vec::new();
    assert_eq!(
        keys.unprotect_rtp(RTP_SSRC, RTP_INDEX, 12, &packet, 0, &mut opened),
        Ok(())
    );
    assert_eq!(opened, plain);
}

#[test]
fn rfc_7714_section_16_1_srtp_aead_aes_128_gcm() {
    check_rtp(
        SrtpSuite::AeadAes128Gcm,
        "f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51c7d19b36de3adf8833
         899d7f27beb16a9152cf765ee4390cce",
    );
}

#[test]
fn rfc_7714_section_16_2_srtp_aead_aes_256_gcm() {
    check_rtp(
        SrtpSuite::AeadAes256Gcm,
        "32b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276ffae0f1ba63799b87b
         7aa3db36dfffd6b0f9bb7878d7a76c13",
    );
}

fn check_rtcp(suite: SrtpSuite, sealed: &str) {
    let keys = rfc_7714_keys(suite);
    let mut packet = octets(RTCP);
    keys.protect_rtcp(RTCP_SSRC, RTCP_INDEX, &mut packet, None);
    assert_eq!(packet, octets(&format!("81c8000d4d617273{sealed}800005d4")));

    assert_eq!(rtcp_index(suite, &packet, 0), Ok(RTCP_INDEX));
    let mut opened = Vec::new();
    assert_eq!(
        keys.unprotect_rtcp(RTCP_SSRC, RTCP_INDEX, &packet, 0, &mut opened),
        Ok(())
    );
    assert_eq!(opened, octets(RTCP));
}

#[test]
fn rfc_7714_section_17_1_srtcp_aead_aes_128_gcm() {
    check_rtcp(
        SrtpSuite::AeadAes128Gcm,
        "63e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4ce09b4686303ded0bb9275b
         c84aa45896cf4d2fc5abf87245d9eade",
    );
}

#[test]
fn rfc_7714_section_17_3_srtcp_aead_aes_256_gcm() {
    check_rtcp(
        SrtpSuite::AeadAes256Gcm,
        "d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be8415f658c61de0476f1b6fad
         1d1eb30c4446839f57ff6f6cb26ac3be",
    );
}

#[test]
fn rfc_3711_appendix_b_2_aes_cm_keystream() {
    let Protection::Cm { key, salt, .. } = Protection::cm(
        &secret("2B7E151628AED2A6ABF7158809CF4F3C"),
        &Secret::init_with(|_| ()),
        secret("F0F1F2F3F4F5F6F7F8F9FAFBFCFD"),
    ) else {
        unreachable!("cm makes a Cm")
    };
    let mut keystream = vec![0; 0xff02 * 16];
    cm_apply(&key, &salt, 0, 0, &mut keystream);
    for (block, expected) in [
        (0, "E03EAD0935C95E80E166B16DD92B4EB4"),
        (1, "D23513162B02D0F72A43A2FE4A5F97AB"),
        (2, "41E95B3BB0A2E8DD477901E4FCA894C0"),
        (0xfeff, "EC8CDF7398607CB0F2D21675EA9EA1E4"),
        (0xff00, "362B7C3C6773516318A077D7FC5073AE"),
        (0xff01, "6A2CC3787889374FBEB4C81B17BA6C44"),
    ] {
        assert_eq!(
            keystream[block * 16..][..16],
            octets(expected)[..],
            "block {block:#x}"
        );
    }
}

#[test]
fn srtcp_without_the_e_flag_is_refused() {
    let keys = rfc_7714_keys(SrtpSuite::AeadAes256Gcm);
    let mut packet = octets(RTCP);
    keys.protect_rtcp(RTCP_SSRC, RTCP_INDEX, &mut packet, None);
    let e_flag = packet.len() - 4;
    packet[e_flag] &= 0x7f;
    assert_eq!(
        rtcp_index(SrtpSuite::AeadAes256Gcm, &packet, 0),
        Err(Refused::NotEncrypted)
    );
}
