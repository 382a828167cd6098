#![expect(clippy::unwrap_used, reason = "tests")]

use super::block::ExpandedKey;
use super::tables::{S7, S9};
use super::*;
use crate::keys::Secret;

fn rfc_key() -> Secret<16> {
    Secret::init_with(|into| {
        for (octet, i) in into.iter_mut().zip(0..) {
            *octet = 0x11 * i;
        }
    })
}

/// RFC 2994 appendix A: plaintext, each block by itself, and in CBC mode under [`RFC_IV`].
const RFC_PLAIN: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
const RFC_ECB: [u64; 2] = [0x8b1d_a5f5_6ab3_d07c, 0x04b6_8240_b13b_e95d];
const RFC_IV: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];
const RFC_CBC: [u64; 2] = [0x461c_1e87_9c18_c27f, 0xb9ad_f2d8_0c89_031f];

fn octets(blocks: [u64; 2]) -> Vec<u8> {
    blocks.map(u64::to_be_bytes).concat()
}

#[test]
fn blocks_are_those_of_rfc_2994() {
    let key = ExpandedKey::new(&rfc_key());
    assert_eq!(RFC_PLAIN.map(|block| key.encrypt(block)), RFC_ECB);
    assert_eq!(RFC_ECB.map(|block| key.decrypt(block)), RFC_PLAIN);
}

#[test]
fn chained_blocks_are_those_of_rfc_2994() {
    let mut misty1 = Misty1::new(&rfc_key());
    let mut text = octets(RFC_PLAIN);
    misty1.encrypt(RFC_IV, &mut text).unwrap();
    assert_eq!(text, octets(RFC_CBC));
    misty1.decrypt(RFC_IV, &mut text).unwrap();
    assert_eq!(text, octets(RFC_PLAIN));
}

/// An entry that was copied wrongly is seen without another's tables: each table is a permutation,
/// and written as polynomials over its input bits it has degree 3 (S7) and 2 (S9), as its makers
/// say. One changed entry gives degree 7 or 9.
#[test]
fn the_tables_are_permutations_of_the_published_degree() {
    let degree = |table: &mut Vec<u16>| {
        let mut sorted = table.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..table.len() as u16));
        let mut bit = 1;
        while bit < table.len() {
            for i in 0..table.len() {
                if i & bit != 0 {
                    table[i] ^= table[i ^ bit];
                }
            }
            bit *= 2;
        }
        let present = (0..table.len()).filter(|&term| table[term] != 0);
        present.map(usize::count_ones).max()
    };
    assert_eq!(degree(&mut S7.map(u16::from).to_vec()), Some(3));
    assert_eq!(degree(&mut S9.to_vec()), Some(2));
}

/// KR-300.
#[test]
fn a_key_works_on_no_more_than_2_20_blocks() {
    let mut misty1 = Misty1::new(&rfc_key());
    let mut text = vec![0; 8 * (1 << 20) + 8];
    let refused = |blocks, left| Err(Misty1Error::KeyUsedUp { blocks, left });
    assert_eq!(
        misty1.encrypt(RFC_IV, &mut text),
        refused((1 << 20) + 1, 1 << 20)
    );
    assert!(text.iter().all(|&octet| octet == 0));

    let (most, rest) = text.split_at_mut(8 * ((1 << 20) - 2));
    misty1.encrypt(RFC_IV, most).unwrap();
    // Both directions count, and what was refused counts for nothing.
    misty1.decrypt(RFC_IV, &mut rest[..8]).unwrap();
    assert_eq!(misty1.decrypt(RFC_IV, &mut rest[..16]), refused(2, 1));
    misty1.encrypt(RFC_IV, &mut rest[..8]).unwrap();
    for _ in 0..2 {
        assert_eq!(misty1.encrypt(RFC_IV, &mut rest[..8]), refused(1, 0));
        assert_eq!(misty1.decrypt(RFC_IV, &mut rest[..8]), refused(1, 0));
    }
}

#[test]
fn a_text_of_no_whole_blocks_is_refused_and_left_alone() {
    let mut misty1 = Misty1::new(&rfc_key());
    for len in [1, 7, 9, 15] {
        let mut text = vec![3; len];
        let refused = Err(Misty1Error::NotWholeBlocks { len });
        assert_eq!(misty1.encrypt(RFC_IV, &mut text), refused);
        assert_eq!(misty1.decrypt(RFC_IV, &mut text), refused);
        assert_eq!(text, vec![3; len]);
    }
    misty1.encrypt(RFC_IV, &mut []).unwrap();
    assert_eq!(
        format!("{misty1:?}"),
        format!("MISTY1 key, {BLOCKS_MAX} blocks left")
    );
}
