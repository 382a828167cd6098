//! Randomness of the operating system.

use aws_lc_rs::rand;
use keyfall_protocol::rng::Random;

/// The operating system's randomness.
#[derive(Clone, Copy, Default, Debug)]
pub struct OsRandom;

impl Random for OsRandom {
    /// # Panics
    /// Where the operating system has no randomness: going on would mean keys that can be guessed.
    fn fill(&mut self, into: &mut [u8]) {
        rand::fill(into).expect("the operating system gives randomness");
    }
}
