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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{KeyDistContents, SigningKey};
    use crate::enrolment::RequestKey;
    use crate::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber, UnixSeconds};
    use crate::keys::{MasterKey, ObeyKey, Ring, SrtpSuite, WrapKey};
    use crate::server::SealedFor;

    /// INVARIANT 10. Every secret here is made of one octet, so that it would be seen as decimal
    /// or hexadecimal digits.
    #[test]
    fn no_debug_print_shows_a_secret() {
        let secret = || Secret::<32>::init_with(|into| into.fill(0xab));
        let terminal = TerminalNumber::new(1).expect("not 0");
        let group = GroupNumber::new(1).expect("not 0");
        let master = || MasterKey::new(group, KeyEpoch::new(7), Generation::ZERO, secret());
        let contents = KeyDistContents {
            search_key: Some(Secret::init_with(|into| into.fill(0xab))),
            key: master(),
            activate_at: UnixSeconds::new(1),
            cadence: None,
            lease_end: None,
        };
        let session = SessionId::new([1; 6]);
        let derived = master().derive_srtp(SrtpSuite::default(), terminal, session, 0, 1);
        let key_octets = derived.key().to_vec();
        let prints = [
            format!("{:?}", secret()),
            format!("{:?}", ObeyKey::new(terminal, secret())),
            format!("{:?}", WrapKey::new(terminal, Generation::ZERO, secret())),
            format!("{:?} {:?}", master(), Ring::new(master())),
            format!("{:?}", SigningKey::from_seed(secret())),
            format!("{:?}", RequestKey::from_seed(secret())),
            format!("{contents:?} {derived:?}"),
            format!(
                "{:?}",
                SealedFor::Code("ABABABABABABABAB".to_owned().into())
            ),
            format!("{:?}", zeroize::Zeroizing::new(vec![0xabu8; 8])),
        ];
        let hex: String = key_octets
            .iter()
            .take(4)
            .map(|o| format!("{o:02x}"))
            .collect();
        let decimal = format!("{}, {}, {}", key_octets[0], key_octets[1], key_octets[2]);
        for print in prints {
            let lower = print.to_lowercase();
            for trace in ["abab", "171, 171", hex.as_str(), decimal.as_str()] {
                assert!(!lower.contains(trace), "{print}");
            }
        }
    }
}
