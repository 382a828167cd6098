//! The AEAD calls alone: one seal and one open in place.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{HEADER_LEN, MASTER_KEY, rtp_packet};

pub fn contender(octets: usize) -> impl FnMut(u32) {
    let key = UnboundKey::new(&AES_256_GCM, &MASTER_KEY).expect("AES-256 takes 32 octets");
    let key = LessSafeKey::new(key);
    let packet = rtp_packet(octets);
    let mut text = packet[HEADER_LEN..].to_vec();
    text.reserve(16);
    let aad: [u8; HEADER_LEN] = packet[..HEADER_LEN]
        .try_into()
        .expect("a header is 12 octets");
    let mut counter = 0u64;
    move |n| {
        for _ in 0..n {
            counter += 1;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&counter.to_be_bytes());
            key.seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(&aad),
                &mut text,
            )
            .expect("short enough");
            let opened = key
                .open_in_place(
                    Nonce::assume_unique_for_key(nonce),
                    Aad::from(&aad),
                    &mut text,
                )
                .expect("sealed a moment ago")
                .len();
            text.truncate(opened);
        }
    }
}
