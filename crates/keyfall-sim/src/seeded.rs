//! All randomness of a run, from one number.

use keyfall_protocol::rng::Random;
use rand::rngs::ChaCha12Rng;
use rand::seq::SliceRandom;
use rand::{Rng, RngExt, SeedableRng};

/// A stream of numbers that its seed determines.
#[derive(Debug)]
pub struct Seeded(ChaCha12Rng);

impl Seeded {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(ChaCha12Rng::seed_from_u64(seed))
    }

    /// Another stream, so that one part of a run does not shift the numbers of the next.
    #[must_use]
    pub fn branch(&mut self) -> Self {
        Self(ChaCha12Rng::seed_from_u64(self.0.next_u64()))
    }

    /// One of `0..bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            self.0.random_range(0..bound)
        }
    }

    /// True `per_mille` times out of 1000.
    pub fn chance(&mut self, per_mille: u16) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        let place = self.below(choices.len() as u64) as usize;
        &choices[place]
    }

    /// Any order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.0);
    }
}

impl Random for Seeded {
    fn fill(&mut self, into: &mut [u8]) {
        self.0.fill_bytes(into);
    }
}
