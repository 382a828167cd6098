//! Bytes that must not be copied, printed or left behind.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// `N` secret octets on the heap: zeroed on drop, compared in constant time, never printed.
///
/// Boxed, so that a move copies a pointer and not the key.
pub struct Secret<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Lets `fill` write the octets in place, so that no copy stays on the stack.
    pub fn init_with(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut octets = Box::new([0; N]);
        fill(&mut octets);
        Self(octets)
    }

    /// As [`Self::init_with`], where filling may fail.
    ///
    /// # Errors
    /// Whatever `fill` returns; what it wrote is wiped.
    pub fn try_init_with<E>(fill: impl FnOnce(&mut [u8; N]) -> Result<(), E>) -> Result<Self, E> {
        let mut secret = Self(Box::new([0; N]));
        fill(&mut secret.0)?;
        Ok(secret)
    }

    /// A copy of `octets`; `None` where the length is wrong.
    #[must_use]
    pub fn from_slice(octets: &[u8]) -> Option<Self> {
        (octets.len() == N).then(|| Self::init_with(|into| into.copy_from_slice(octets)))
    }

    /// The octets. SECURITY: every caller feeds them to a key derivation, a cipher or the seal.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }

    /// A second copy, asked for by name so that it is seen in review.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::init_with(|into| into.copy_from_slice(&self.0[..]))
    }

    /// Overwrites in place.
    pub(crate) fn expose_mut(&mut self) -> &mut [u8; N] {
        &mut self.0
    }
}

impl<const N: usize> Drop for Secret<N> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0[..].ct_eq(&other.0[..]).into()
    }
}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>")
    }
}
