//! One block under one key (RFC 2994 sections 2.2 and 2.3).
//!
//! SECURITY: the substitutions are tables that are read at secret places, 1,152 octets in all. Whoever
//! runs code on the same processor may learn of the key by the cache. The suite that uses it has one key
//! for one message, and is off by default.

use zeroize::Zeroize;

use super::tables::{S7, S9};
use crate::keys::Secret;

/// `EK[0..16]` of RFC 2994 section 2.2: the key in eight words, then each of them through FI. Wiped on
/// drop. The RFC's `EK[16..32]` are parts of these words, which [`fi`] takes out itself.
pub(super) struct ExpandedKey(Box<[u16; 16]>);

impl ExpandedKey {
    pub(super) fn new(key: &Secret<16>) -> Self {
        let mut words = Self(Box::new([0; 16]));
        for (word, octets) in words.0.iter_mut().zip(key.expose().as_chunks().0) {
            *word = u16::from_be_bytes(*octets);
        }
        for i in 0..8 {
            words.0[i + 8] = fi(words.key(i), words.key(i + 1));
        }
        words
    }

    pub(super) fn encrypt(&self, block: u64) -> u64 {
        let (mut left, mut right) = halves(block);
        for round in (0..8).step_by(2) {
            left = self.fl(left, round);
            right = self.fl(right, round + 1);
            right ^= self.fo(left, round);
            left ^= self.fo(right, round + 1);
        }
        left = self.fl(left, 8);
        right = self.fl(right, 9);
        joined(right, left)
    }

    pub(super) fn decrypt(&self, block: u64) -> u64 {
        let (mut right, mut left) = halves(block);
        left = self.fl_inverse(left, 8);
        right = self.fl_inverse(right, 9);
        for round in (0..8).step_by(2).rev() {
            left ^= self.fo(right, round + 1);
            right ^= self.fo(left, round);
            right = self.fl_inverse(right, round + 1);
            left = self.fl_inverse(left, round);
        }
        joined(left, right)
    }

    /// FO: three FI, each after a word of the key.
    fn fo(&self, half: u32, k: usize) -> u32 {
        let (mut t0, mut t1) = words(half);
        t0 = fi(t0 ^ self.key(k), self.mixed(k + 5)) ^ t1;
        t1 = fi(t1 ^ self.key(k + 2), self.mixed(k + 1)) ^ t0;
        t0 = fi(t0 ^ self.key(k + 7), self.mixed(k + 3)) ^ t1;
        t1 ^= self.key(k + 4);
        from_words(t1, t0)
    }

    /// FL: linear for a given key.
    fn fl(&self, half: u32, k: usize) -> u32 {
        let (mut d0, mut d1) = words(half);
        let (and, or) = self.of_fl(k);
        d1 ^= d0 & and;
        d0 ^= d1 | or;
        from_words(d0, d1)
    }

    fn fl_inverse(&self, half: u32, k: usize) -> u32 {
        let (mut d0, mut d1) = words(half);
        let (and, or) = self.of_fl(k);
        d0 ^= d1 | or;
        d1 ^= d0 & and;
        from_words(d0, d1)
    }

    /// The two words that FL number `k` takes.
    fn of_fl(&self, k: usize) -> (u16, u16) {
        let i = k / 2;
        if k.is_multiple_of(2) {
            (self.key(i), self.mixed(i + 6))
        } else {
            (self.mixed(i + 2), self.key(i + 4))
        }
    }

    fn key(&self, i: usize) -> u16 {
        self.0[i % 8]
    }

    fn mixed(&self, i: usize) -> u16 {
        self.0[i % 8 + 8]
    }
}

impl Drop for ExpandedKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// FI: 16 bits as 9 and 7, through S9, S7 and S9.
fn fi(input: u16, key: u16) -> u16 {
    let (mut d9, mut d7) = (input >> 7, input & 0x7f);
    d9 = s9(d9) ^ d7;
    d7 = (s7(d7) ^ d9) & 0x7f;
    d7 ^= key >> 9;
    d9 ^= key & 0x1ff;
    d9 = s9(d9) ^ d7;
    d7 << 9 | d9
}

fn s7(bits: u16) -> u16 {
    u16::from(S7[usize::from(bits & 0x7f)])
}

fn s9(bits: u16) -> u16 {
    S9[usize::from(bits & 0x1ff)]
}

fn halves(block: u64) -> (u32, u32) {
    ((block >> 32) as u32, block as u32)
}

fn joined(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn words(half: u32) -> (u16, u16) {
    ((half >> 16) as u16, half as u16)
}

fn from_words(high: u16, low: u16) -> u32 {
    u32::from(high) << 16 | u32::from(low)
}
