//! The receiving half of one session of one sender, or of one stock sender.

use std::fmt;

use keyfall_protocol::ids::{EspSession, Generation, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::{EspKeys, EspSuite, MasterKey, PinnedSpi};

use crate::esp::cipher::{Cipher, ICV_LEN};
use crate::esp::{ESP_HEAD, EspArrival, EspRefused, PinnedArrival, Spi, inner};
use crate::replay::ReplayWindow;

/// Opens the packets of one (master key, sender, session), or of one stock sender.
///
/// The first packet opens, whichever it is: nothing is negotiated. The packet is read, never
/// written, so that after any refusal it can be tried under another key.
pub struct EspReceiver {
    cipher: Cipher,
    of: Of,
    window: ReplayWindow<WINDOW_BLOCKS>,
}

/// Whose packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    Session {
        spi: Spi,
        session: EspSession,
        source: (KeyEpoch, Generation),
    },
    Pinned(PinnedSpi),
}

impl EspReceiver {
    /// For a session of which nothing was delivered before.
    #[must_use]
    pub fn new(
        suite: EspSuite,
        key: &MasterKey,
        sender: TerminalNumber,
        session: EspSession,
    ) -> Self {
        Self::with_mark(suite, key, sender, session, 0)
    }

    /// For a session that was heard before a restart: everything up to the sequence number `mark`
    /// is refused.
    #[must_use]
    pub fn with_mark(
        suite: EspSuite,
        key: &MasterKey,
        sender: TerminalNumber,
        session: EspSession,
        mark: u32,
    ) -> Self {
        Self {
            cipher: Cipher::new(&key.derive_esp(suite, sender, session)),
            of: Of::Session {
                spi: Spi::new(sender, key.esp_tag()),
                session,
                source: (key.epoch(), key.generation()),
            },
            window: ReplayWindow::with_mark(u64::from(mark)),
        }
    }

    /// For a stock sender, whose IVs are taken as they come. Everything up to `mark` is refused.
    #[must_use]
    pub fn pinned(keys: &EspKeys, spi: PinnedSpi, mark: u32) -> Self {
        Self {
            cipher: Cipher::new(keys),
            of: Of::Pinned(spi),
            window: ReplayWindow::with_mark(u64::from(mark)),
        }
    }

    /// Epoch and generation of the master key that the session's key was derived from; `None` of a
    /// stock sender.
    #[must_use]
    pub fn source(&self) -> Option<(KeyEpoch, Generation)> {
        match self.of {
            Of::Session { source, .. } => Some(source),
            Of::Pinned(_) => None,
        }
    }

    /// The highest sequence number opened so far, or the initial mark.
    #[must_use]
    pub fn highest(&self) -> u32 {
        // Both are sequence numbers of 32 bits, and the window was made with a mark.
        self.window.highest().map_or(0, |highest| highest as u32)
    }

    /// Gives the memory of the window back where nothing was heard for a while: what is missing up
    /// to the highest sequence number is refused from now on.
    pub fn rest(&mut self) {
        self.window.rest();
    }

    /// Opens `packet`, from the octet after the UDP header on, into `out` in one pass over the
    /// data. Returns the length of the inner IP packet, which lies at the start of `out`, and the
    /// sequence number. `out` has to be as long as the packet without [`ESP_HEAD`] and ICV; behind
    /// the inner packet the trailer is left in it.
    ///
    /// # Errors
    /// [`EspRefused`]. Nothing changed, but for [`EspRefused::NotIp`], [`EspRefused::Dummy`],
    /// [`EspRefused::Place`] and [`EspRefused::Refusal`]:
    /// those packets are authentic and will be replays from now on.
    #[inline]
    pub fn open_into(&mut self, packet: &[u8], out: &mut [u8]) -> Result<(usize, u32), EspRefused> {
        let sequence = self.read(packet)?;
        let (head, rest) = packet
            .split_first_chunk::<ESP_HEAD>()
            .ok_or(EspRefused::TooShort)?;
        let (text, icv) = rest
            .split_at_checked(rest.len().saturating_sub(ICV_LEN))
            .ok_or(EspRefused::TooShort)?;
        let plain = out.get_mut(..text.len()).ok_or(EspRefused::NoRoom)?;
        if !self.cipher.open(head, text, icv, plain) {
            return Err(EspRefused::AuthenticationFailed);
        }
        self.window.mark(u64::from(sequence));
        inner_len(plain).map(|len| (len, sequence))
    }

    /// The sequence number of a packet that is of this receiver and no replay.
    #[inline]
    fn read(&self, packet: &[u8]) -> Result<u32, EspRefused> {
        let (ours, sequence) = match self.of {
            Of::Session { spi, session, .. } => {
                let arrival = EspArrival::read(packet)?;
                (
                    (arrival.spi, arrival.session) == (spi, session),
                    arrival.sequence,
                )
            }
            Of::Pinned(spi) => {
                let arrival = PinnedArrival::read(packet)?;
                (arrival.spi == spi, arrival.sequence)
            }
        };
        if !ours {
            return Err(EspRefused::OtherSession);
        }
        self.window.check(u64::from(sequence))?;
        Ok(sequence)
    }
}

/// Takes the trailer apart: `inner ‖ padding ‖ its length ‖ next header`.
#[inline]
fn inner_len(plain: &[u8]) -> Result<usize, EspRefused> {
    let [payload @ .., padding, next_header] = plain else {
        return Err(EspRefused::TooShort);
    };
    let len = payload
        .len()
        .checked_sub(usize::from(*padding))
        .ok_or(EspRefused::NotIp);
    if *next_header == inner::DUMMY {
        return Err(len.map_or(EspRefused::Dummy, |len| hidden(&payload[..len])));
    }
    let len = len?;
    match inner::read(&payload[..len]) {
        Some((expected, len)) if expected == *next_header => Ok(len),
        Some(_) | None => Err(EspRefused::NotIp),
    }
}

/// What the text of a dummy packet says.
#[cold]
fn hidden(text: &[u8]) -> EspRefused {
    if let Ok(session) = text.try_into() {
        return EspRefused::Refusal(EspSession::new(session));
    }
    let number = text.try_into().ok().map(u32::from_be_bytes);
    let place = number.and_then(TerminalNumber::new);
    place.map_or(EspRefused::Dummy, EspRefused::Place)
}

impl fmt::Debug for EspReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EspReceiver")
            .field("of", &self.of)
            .field("highest", &self.highest())
            .finish_non_exhaustive()
    }
}

/// 8192 packets wide (FORMATS section 7, "Anti-replay").
pub(super) const WINDOW_BLOCKS: usize = 129;
