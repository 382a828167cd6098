//! The sending half of one session.

use std::fmt;

use keyfall_protocol::ids::{EspSession, Generation, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::{EspSuite, MasterKey};

use crate::esp::cipher::{Cipher, ICV_LEN};
use crate::esp::{ESP_HEAD, ESP_SEQUENCE_MAX, SealRefused, Spi, esp_len, inner};

/// Seals IP packets under the key of one (master key, sender, session).
///
/// INVARIANT 3: the sequence number counts from 1 and never comes back, and it stands in the IV. So
/// no (key, nonce) repeats while there is one sender object for each session.
pub struct EspSender {
    cipher: Cipher,
    suite: EspSuite,
    spi: Spi,
    session: EspSession,
    source: (KeyEpoch, Generation),
    /// The sequence number of the next packet; one past [`ESP_SEQUENCE_MAX`] at the end.
    next: u32,
}

impl EspSender {
    /// `session` was recorded durably and is given to this one sender only.
    #[must_use]
    pub fn new(
        suite: EspSuite,
        key: &MasterKey,
        sender: TerminalNumber,
        session: EspSession,
    ) -> Self {
        Self {
            cipher: Cipher::new(&key.derive_esp(suite, sender, session)),
            suite,
            spi: Spi::new(sender, key.esp_tag()),
            session,
            source: (key.epoch(), key.generation()),
            next: 1,
        }
    }

    #[must_use]
    pub fn spi(&self) -> Spi {
        self.spi
    }

    #[must_use]
    pub fn suite(&self) -> EspSuite {
        self.suite
    }

    #[must_use]
    pub fn session(&self) -> EspSession {
        self.session
    }

    /// Epoch and generation of the master key that this session's key was derived from.
    #[must_use]
    pub fn source(&self) -> (KeyEpoch, Generation) {
        self.source
    }

    /// How many packets this session can still protect.
    #[must_use]
    pub fn remaining(&self) -> u32 {
        ESP_SEQUENCE_MAX + 1 - self.next
    }

    /// Seals in place the IP packet of `inner_len` octets that lies at [`ESP_HEAD`] in `buffer`,
    /// which has room for [`ESP_TAIL_MAX`](crate::ESP_TAIL_MAX) octets behind it. Returns the length
    /// of the ESP packet, which begins at the buffer's first octet.
    ///
    /// # Errors
    /// [`SealRefused`]; buffer and sender are as before.
    #[inline]
    pub fn seal(&mut self, buffer: &mut [u8], inner_len: usize) -> Result<usize, SealRefused> {
        let total = esp_len(inner_len);
        let (head, rest) = buffer
            .get_mut(..total)
            .and_then(|buffer| buffer.split_first_chunk_mut::<ESP_HEAD>())
            .ok_or(SealRefused::NoRoom)?;
        let (text, tail) = rest.split_at_mut(inner_len);
        let next_header = next_header(text)?;
        *head = self.head()?;
        let (trailer, len) = trailer(inner_len, next_header);
        self.cipher.seal_in_place(head, text, &trailer[..len], tail);
        self.next += 1;
        Ok(total)
    }

    /// Seals the IP packet `inner` into `out` in one pass over the data, and returns the length of
    /// the ESP packet. `inner` is only read.
    ///
    /// # Errors
    /// [`SealRefused`]; `out` and sender are as before.
    #[inline]
    pub fn seal_from(&mut self, inner: &[u8], out: &mut [u8]) -> Result<usize, SealRefused> {
        let next_header = next_header(inner)?;
        self.seal_as(next_header, inner, out)
    }

    /// Seals a dummy packet (RFC 4303 section 2.6) of [`ESP_PLACE_LEN`](crate::ESP_PLACE_LEN) octets into `out`. It
    /// says to the terminal `to`, and to nobody else, that its sender is where it comes from.
    ///
    /// # Errors
    /// [`SealRefused`]; `out` and sender are as before.
    pub fn seal_place(&mut self, to: TerminalNumber, out: &mut [u8]) -> Result<usize, SealRefused> {
        self.seal_as(inner::DUMMY, &to.get().to_be_bytes(), out)
    }

    /// Seals a dummy packet of [`ESP_REFUSAL_LEN`](crate::ESP_REFUSAL_LEN) octets into `out`. It says that packets of the
    /// session `refused` are not delivered.
    ///
    /// # Errors
    /// [`SealRefused`]; `out` and sender are as before.
    pub fn seal_refusal(
        &mut self,
        refused: EspSession,
        out: &mut [u8],
    ) -> Result<usize, SealRefused> {
        self.seal_as(inner::DUMMY, refused.as_bytes(), out)
    }

    #[inline]
    pub(super) fn seal_as(
        &mut self,
        next_header: u8,
        inner: &[u8],
        out: &mut [u8],
    ) -> Result<usize, SealRefused> {
        let total = esp_len(inner.len());
        let (head, rest) = out
            .get_mut(..total)
            .and_then(|out| out.split_first_chunk_mut::<ESP_HEAD>())
            .ok_or(SealRefused::NoRoom)?;
        let (text, tail) = rest.split_at_mut(inner.len());
        *head = self.head()?;
        let (trailer, len) = trailer(inner.len(), next_header);
        self.cipher.seal(head, inner, text, &trailer[..len], tail);
        self.next += 1;
        Ok(total)
    }

    /// SPI, sequence number and IV of the next packet.
    #[inline]
    fn head(&self) -> Result<[u8; ESP_HEAD], SealRefused> {
        if self.next > ESP_SEQUENCE_MAX {
            return Err(SealRefused::NewSession);
        }
        let sequence = self.next.to_be_bytes();
        let mut head = [0; ESP_HEAD];
        head[..4].copy_from_slice(&self.spi.get().to_be_bytes());
        head[4..8].copy_from_slice(&sequence);
        head[8..13].copy_from_slice(self.session.as_bytes());
        head[13..].copy_from_slice(&sequence[1..]);
        Ok(head)
    }
}

impl fmt::Debug for EspSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EspSender")
            .field("suite", &self.suite)
            .field("spi", &self.spi)
            .field("session", &self.session)
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}

/// The next header for `inner`, which has to be one whole IP packet.
#[inline]
fn next_header(inner: &[u8]) -> Result<u8, SealRefused> {
    match inner::read(inner) {
        Some((next_header, len)) if len == inner.len() => Ok(next_header),
        Some(_) | None => Err(SealRefused::NotIp),
    }
}

/// Octets of padding, so that text and trailer fill words of 4 octets (RFC 4303 section 2.4).
pub(super) const fn padding(inner_len: usize) -> usize {
    (2 + 4 - inner_len % 4) % 4
}

/// Padding 1, 2, 3, its length, and the next header, and how many octets they are.
#[inline]
fn trailer(inner_len: usize, next_header: u8) -> ([u8; 5], usize) {
    let trailer = match padding(inner_len) {
        0 => [0, next_header, 0, 0, 0],
        1 => [1, 1, next_header, 0, 0],
        2 => [1, 2, 2, next_header, 0],
        _ => [1, 2, 3, 3, next_header],
    };
    (trailer, padding(inner_len) + 2)
}

// The smallest ESP packet holds what a receiver takes apart.
const _: () = assert!(esp_len(0) > ESP_HEAD + ICV_LEN);

#[cfg(test)]
mod tests {
    use keyfall_protocol::ids::EspSession;
    use keyfall_protocol::keys::EspSuite;

    use super::EspSender;
    use crate::esp::tests::{ipv4, master_key, opened, sealed, terminal};
    use crate::{ESP_HEAD, ESP_SEQUENCE_MAX, EspReceiver, SealRefused};

    #[test]
    fn a_session_ends_after_its_last_number_and_never_wraps() {
        let (key, suite) = (master_key(0), EspSuite::default());
        let session = EspSession::new([1; 5]);
        let mut sender = EspSender::new(suite, &key, terminal(42), session);
        let mut receiver = EspReceiver::new(suite, &key, terminal(42), session);
        assert_eq!(sender.remaining(), (1 << 24) - 1);
        sender.next = ESP_SEQUENCE_MAX;
        assert_eq!(sender.remaining(), 1);
        let last = sealed(&mut sender, &ipv4(20));
        assert_eq!(opened(&mut receiver, &last), Ok((ipv4(20), (1 << 24) - 1)));
        for _ in 0..3 {
            let mut buffer = vec![0; ESP_HEAD];
            buffer.extend_from_slice(&ipv4(20));
            buffer.resize(100, 0);
            let before = buffer.clone();
            assert_eq!(sender.seal(&mut buffer, 20), Err(SealRefused::NewSession));
            let refused = sender.seal_from(&ipv4(20), &mut buffer);
            assert_eq!(refused, Err(SealRefused::NewSession));
            assert_eq!(buffer, before);
            assert_eq!(sender.remaining(), 0);
        }
    }
}
