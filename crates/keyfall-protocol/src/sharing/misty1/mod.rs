//! MISTY1, the block cipher of RFC 2994: 64-bit blocks, 128-bit key, 8 rounds.
//!
//! It is here because the suite `rsa-misty1` was published with it (REQUIREMENTS R-088), and no library
//! that Keyfall uses has it; nothing else may use it. Known against it (W-16): an attack on the whole
//! cipher that is better than trying all keys (Todo, CRYPTO 2015; about 2^69.5 steps with all 2^64
//! texts of one key by Bar-On and Keller, 2016), and blocks so short that two of them are expected
//! to be equal after some 2^32. Hence a key encrypts little: [`BLOCKS_MAX`].

mod block;
mod cbc;
mod tables;

pub use cbc::{BLOCK_LEN, BLOCKS_MAX, Misty1, Misty1Error};

#[cfg(test)]
mod tests;
