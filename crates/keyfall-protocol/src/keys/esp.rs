//! What the packet plane takes from a master key: the tag in an SPI, and ESP key and salt
//! (FORMATS section 7).

use std::fmt;

use crate::ids::{EspSession, KeyEpoch, KeyId, TerminalNumber};
use crate::keys::derive::{Context, Label, key_tag};
use crate::keys::{EspSuite, MasterKey, Secret};

impl MasterKey {
    /// The seven low bits of an SPI: three of the tag hash, then the generation modulo 16.
    #[must_use]
    pub fn esp_tag(&self) -> u8 {
        esp_tag_hash(self.kid(), self.epoch()) << 4 | self.generation().low4()
    }

    /// `XL(K, "esp", [suite, sender, session, 0, 0], L)`: ESP key ‖ salt of one session.
    #[must_use]
    pub fn derive_esp(
        &self,
        suite: EspSuite,
        sender: TerminalNumber,
        session: EspSession,
    ) -> EspKeys {
        let context = Context::Packets {
            suite,
            sender,
            session,
        };
        self.esp_keys(suite, Label::Esp, &context)
    }

    /// `XL(K, "esp-pinned", [suite, SPI, random], L)`: ESP key ‖ salt of one stock sender.
    #[must_use]
    pub fn derive_esp_pinned(&self, suite: EspSuite, spi: PinnedSpi, random: [u8; 16]) -> EspKeys {
        let context = Context::Pinned {
            suite,
            spi: spi.get(),
            random,
        };
        self.esp_keys(suite, Label::EspPinned, &context)
    }

    fn esp_keys(&self, suite: EspSuite, label: Label, context: &Context) -> EspKeys {
        let len = suite.key_len() + EspSuite::SALT_LEN;
        EspKeys {
            octets: Secret::init_with(|out| self.expand(label, context, &mut out[..len])),
            suite,
        }
    }
}

/// The three bits of an SPI that stand for key id and epoch: the low ones of the second octet of
/// the key tag.
#[must_use]
pub fn esp_tag_hash(kid: KeyId, epoch: KeyEpoch) -> u8 {
    key_tag(kid, epoch)[1] & 0x07
}

/// The SPI of a stock sender: 0x100 to 0x7fff_ffff, so that it is neither reserved (RFC 4303
/// section 2.1) nor that of a session, which has its highest bit set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinnedSpi(u32);

impl PinnedSpi {
    /// `None` below 0x100 and above 0x7fff_ffff.
    #[must_use]
    pub const fn new(spi: u32) -> Option<Self> {
        if spi < 0x100 || spi > 0x7fff_ffff {
            None
        } else {
            Some(Self(spi))
        }
    }

    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for PinnedSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for PinnedSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedSpi({self})")
    }
}

/// Rank 3: ESP key and salt of one session or one stock sender. Never sent.
#[derive(Debug)]
pub struct EspKeys {
    octets: Secret<36>,
    suite: EspSuite,
}

impl EspKeys {
    /// From given octets, key then salt; `None` where the length does not fit the suite. For what
    /// was stored for a stock sender.
    #[must_use]
    pub fn from_octets(suite: EspSuite, key_and_salt: &[u8]) -> Option<Self> {
        let len = suite.key_len() + EspSuite::SALT_LEN;
        (key_and_salt.len() == len).then(|| Self {
            octets: Secret::init_with(|into| into[..len].copy_from_slice(key_and_salt)),
            suite,
        })
    }

    #[must_use]
    pub fn suite(&self) -> EspSuite {
        self.suite
    }

    /// Key, then salt, as other people's tools want it.
    #[must_use]
    pub fn key_and_salt(&self) -> &[u8] {
        &self.octets.expose()[..self.suite.key_len() + EspSuite::SALT_LEN]
    }

    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.octets.expose()[..self.suite.key_len()]
    }

    #[must_use]
    pub fn salt(&self) -> &[u8] {
        &self.key_and_salt()[self.suite.key_len()..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Generation, GroupNumber};
    use crate::keys::SrtpSuite;

    fn key(generation: u32) -> MasterKey {
        MasterKey::new(
            GroupNumber::new(7).expect("not 0"),
            KeyEpoch::new(22_774_400),
            Generation::new(generation).expect("below the maximum"),
            Secret::init_with(|into| into.fill(9)),
        )
    }

    fn sender(number: u32) -> TerminalNumber {
        TerminalNumber::new(number).expect("not 0")
    }

    #[test]
    fn the_tag_of_an_spi_is_three_bits_of_the_hash_and_four_of_the_generation() {
        for generation in [0, 1, 15, 16, 1000] {
            let key = key(generation);
            let [_, second, _] = key.tag();
            let expected = u32::from(second & 7) * 16 + generation % 16;
            assert_eq!(u32::from(key.esp_tag()), expected);
            assert!(key.esp_tag() < 128);
        }
    }

    #[test]
    fn two_suites_senders_sessions_generations_or_uses_never_share_a_key() {
        let session = EspSession::new([1, 2, 3, 4, 5]);
        let mut seen = Vec::new();
        let mut take = |keys: EspKeys| {
            let octets = keys.key_and_salt()[..20].to_vec();
            assert!(!seen.contains(&octets), "{keys:?}");
            seen.push(octets);
        };
        for suite in EspSuite::ALL {
            take(key(0).derive_esp(suite, sender(2), session));
            take(key(1).derive_esp(suite, sender(2), session));
            take(key(0).derive_esp(suite, sender(3), session));
            take(key(0).derive_esp(suite, sender(2), session.next()));
            let spi = PinnedSpi::new(0x100).expect("in bounds");
            take(key(0).derive_esp_pinned(suite, spi, [0; 16]));
            take(key(0).derive_esp_pinned(suite, spi, [1; 16]));
        }
        let media = crate::ids::SessionId::new([0, 1, 2, 3, 4, 5]);
        let srtp = key(0).derive_srtp(SrtpSuite::AeadAes256Gcm, sender(2), media, 0, 0);
        assert!(!seen.iter().any(|octets| octets[..16] == srtp.key()[..16]));
    }

    #[test]
    fn key_and_salt_have_the_lengths_of_rfc_4106_and_rfc_7634() {
        let session = EspSession::new([0; 5]);
        for (suite, len) in EspSuite::ALL.into_iter().zip([32, 16, 32]) {
            assert_eq!(EspSuite::from_number(suite.number()), Some(suite));
            let keys = key(0).derive_esp(suite, sender(2), session);
            assert_eq!((keys.key().len(), keys.salt().len()), (len, 4));
            let again = EspKeys::from_octets(suite, keys.key_and_salt()).expect("that length");
            assert_eq!(again.key_and_salt(), keys.key_and_salt());
            assert!(EspKeys::from_octets(suite, keys.key()).is_none());
        }
        assert_eq!(EspSuite::from_number(0), None);
        assert_eq!(EspSuite::from_number(4), None);
    }

    #[test]
    fn the_spi_of_a_stock_sender_is_neither_reserved_nor_that_of_a_session() {
        for (spi, taken) in [(0, false), (255, false), (256, true), (0x7fff_ffff, true)] {
            assert_eq!(PinnedSpi::new(spi).is_some(), taken, "{spi:#x}");
        }
        assert_eq!(PinnedSpi::new(0x8000_0000), None);
    }

    #[test]
    fn sessions_count_by_one_and_wrap_at_40_bits() {
        let session = |octets| EspSession::new(octets);
        assert_eq!(session([0, 0, 0, 0, 255]).next(), session([0, 0, 0, 1, 0]));
        assert_eq!(session([255; 5]).next(), session([0; 5]));
    }
}
