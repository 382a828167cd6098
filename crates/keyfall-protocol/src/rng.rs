//! Where randomness comes from: an argument. The operating system's in drivers, seeded in
//! simulation.

/// A source of unpredictable octets.
pub trait Random {
    /// Fills all of `into`.
    fn fill(&mut self, into: &mut [u8]);
}

/// `N` octets from `rng`.
pub fn octets<const N: usize>(rng: &mut dyn Random) -> [u8; N] {
    let mut out = [0; N];
    rng.fill(&mut out);
    out
}
