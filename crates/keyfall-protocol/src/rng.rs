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

/// Lends a [`Random`] to the HPKE library.
pub(crate) struct FromRandom<'r>(pub(crate) &'r mut dyn Random);

impl hpke::rand_core::TryRng for FromRandom<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(u32::from_le_bytes(octets(self.0)))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(u64::from_le_bytes(octets(self.0)))
    }

    fn try_fill_bytes(&mut self, into: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(into);
        Ok(())
    }
}

impl hpke::rand_core::TryCryptoRng for FromRandom<'_> {}
