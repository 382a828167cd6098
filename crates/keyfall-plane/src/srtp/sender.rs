//! The sending half of one SSRC.

use std::fmt;

use keyfall_protocol::ids::{Generation, KeyEpoch, KeyId};
use keyfall_protocol::keys::{MasterKey, SrtpMaster};

use crate::srtp::cipher::SessionKeys;
use crate::srtp::header::{self, RtpHeader};
use crate::srtp::index::{MAX_INDEX, MAX_RTCP_INDEX, Sequencer};
use crate::srtp::{Mki, NewSession, ProtectRefused, SrtpStream, Stretch};

/// Protects the RTP and RTCP of one (sender, session, SSRC).
///
/// INVARIANT 3: the packet index and the SRTCP index run on through every generation, epoch and
/// stretch of the session and never come back, so no (key, nonce) repeats while there is one
/// sender object for each (sender, session, SSRC).
pub struct SrtpSender {
    stream: SrtpStream,
    pace: Pace,
    sequencer: Sequencer,
    /// The next SRTCP index; one past [`MAX_RTCP_INDEX`] at the end.
    next_rtcp: u32,
    /// Of the newest stretch, then of the one before: a packet that the application sent late may
    /// still belong to it.
    keys: [Option<StretchKeys>; 2],
}

enum Pace {
    /// n follows the index.
    Every(Stretch),
    /// For stock receivers: n stands still.
    Fixed { n: u16, send_mki: bool },
}

struct StretchKeys {
    source: (KeyId, KeyEpoch, Generation),
    n: u16,
    mki: Mki,
    keys: Box<SessionKeys>,
}

/// What a stock receiver must be told to open a stream (`media params`).
#[derive(Debug)]
pub struct StretchParams {
    pub master: SrtpMaster,
    pub mki: Mki,
    /// The rollover counter of the newest packet.
    pub roc: u32,
    /// How many packets may still follow the newest under this key.
    pub packets_left: u64,
}

impl SrtpSender {
    /// For Keyfall receivers: an MKI in every packet, the next session key after each stretch.
    #[must_use]
    pub fn new(stream: SrtpStream, stretch: Stretch) -> Self {
        Self::with_pace(stream, Pace::Every(stretch))
    }

    /// For stock receivers, which follow no re-derivation: n stands still, and the MKI is sent only
    /// where `send_mki` asks for it (FORMATS section 6, "Stock receivers").
    #[must_use]
    pub fn new_static(stream: SrtpStream, n: u16, send_mki: bool) -> Self {
        Self::with_pace(stream, Pace::Fixed { n, send_mki })
    }

    fn with_pace(stream: SrtpStream, pace: Pace) -> Self {
        Self {
            stream,
            pace,
            sequencer: Sequencer::new(),
            next_rtcp: 0,
            keys: [None, None],
        }
    }

    #[must_use]
    pub fn stream(&self) -> &SrtpStream {
        &self.stream
    }

    /// Protects an RTP packet in place and returns its index. The vector grows by 30 octets (GCM)
    /// or 24 (AES-CM); with room for them nothing is allocated.
    ///
    /// # Errors
    /// [`ProtectRefused`]; packet and indexes are as before.
    #[inline]
    pub fn protect_rtp(
        &mut self,
        key: &MasterKey,
        packet: &mut Vec<u8>,
    ) -> Result<u64, ProtectRefused> {
        let header = RtpHeader::read(packet)?;
        if header.ssrc != self.stream.ssrc {
            return Err(ProtectRefused::OtherSsrc);
        }
        let index = self.sequencer.place(header.sequence)?;
        let n = self.pace.number(index).ok_or(NewSession::IndexExhausted)?;
        let slot = self.keys_for(key, n);
        let keys = self.keys[slot].as_ref().expect("keys_for filled this slot");
        let mki = self.pace.sends_mki().then_some(&keys.mki);
        keys.keys
            .protect_rtp(header.ssrc, index, header.len, packet, mki);
        self.sequencer.enter(index);
        Ok(index)
    }

    /// Protects a compound RTCP packet in place and returns its SRTCP index. It goes under the n of
    /// the newest RTP packet, 0 before the first.
    ///
    /// # Errors
    /// [`ProtectRefused`]; packet and indexes are as before.
    pub fn protect_rtcp(
        &mut self,
        key: &MasterKey,
        packet: &mut Vec<u8>,
    ) -> Result<u32, ProtectRefused> {
        if header::read_compound(packet)? != self.stream.ssrc {
            return Err(ProtectRefused::OtherSsrc);
        }
        let index = self.next_rtcp;
        if index > MAX_RTCP_INDEX {
            return Err(NewSession::IndexExhausted.into());
        }
        let slot = self.keys_for(key, self.current_n());
        let keys = self.keys[slot].as_ref().expect("keys_for filled this slot");
        let mki = self.pace.sends_mki().then_some(&keys.mki);
        keys.keys.protect_rtcp(self.stream.ssrc, index, packet, mki);
        self.next_rtcp = index + 1;
        Ok(index)
    }

    /// What a stock receiver needs to open the packets under `key` and the present n.
    #[must_use]
    pub fn params(&self, key: &MasterKey) -> StretchParams {
        let n = self.current_n();
        let index = self.sequencer.highest().unwrap_or(0);
        let last = match self.pace {
            Pace::Every(stretch) => (u64::from(n) + 1) * stretch.packets() - 1,
            Pace::Fixed { .. } => MAX_INDEX,
        };
        StretchParams {
            master: self.master(key, n),
            mki: self.mki(key, n),
            roc: (index >> 16) as u32,
            packets_left: last - index,
        }
    }

    /// Wipes the session keys whose master key is not kept any more.
    pub fn retain_keys(&mut self, mut keep: impl FnMut(KeyEpoch, Generation) -> bool) {
        for slot in &mut self.keys {
            slot.take_if(|keys| !keep(keys.source.1, keys.source.2));
        }
    }

    fn current_n(&self) -> u16 {
        // Only an index that has a number was ever entered; n of nothing yet is 0, or the fixed one.
        self.pace
            .number(self.sequencer.highest().unwrap_or(0))
            .unwrap_or(u16::MAX)
    }

    /// The slot that holds the session keys for `n` under `key`, derived where they are missing.
    #[inline]
    fn keys_for(&mut self, key: &MasterKey, n: u16) -> usize {
        let source = (key.kid(), key.epoch(), key.generation());
        let fits = |keys: &StretchKeys| keys.n == n && keys.source == source;
        match self
            .keys
            .iter()
            .position(|slot| slot.as_ref().is_some_and(fits))
        {
            Some(slot) => slot,
            None => self.derive(key, n),
        }
    }

    #[cold]
    fn derive(&mut self, key: &MasterKey, n: u16) -> usize {
        let source = (key.kid(), key.epoch(), key.generation());
        if self.keys.iter().flatten().any(|keys| keys.source != source) {
            self.keys = [None, None];
        }
        let slot = match &self.keys[0] {
            Some(newest) if newest.n > n => 1,
            _ => {
                self.keys[1] = self.keys[0].take();
                0
            }
        };
        let keys = SessionKeys::derive(&self.master(key, n));
        self.keys[slot] = Some(StretchKeys {
            source,
            n,
            mki: self.mki(key, n),
            keys,
        });
        slot
    }

    fn master(&self, key: &MasterKey, n: u16) -> SrtpMaster {
        let SrtpStream {
            suite,
            sender,
            session,
            ssrc,
        } = self.stream;
        key.derive_srtp(suite, sender, session, n, ssrc)
    }

    fn mki(&self, key: &MasterKey, n: u16) -> Mki {
        Mki::new(key.tag(), self.stream.sender, self.stream.session, n)
    }
}

impl fmt::Debug for SrtpSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpSender")
            .field("stream", &self.stream)
            .field("highest", &self.sequencer.highest())
            .finish_non_exhaustive()
    }
}

impl Pace {
    #[inline]
    fn number(&self, index: u64) -> Option<u16> {
        match *self {
            Self::Every(stretch) => stretch.number(index),
            Self::Fixed { n, .. } => Some(n),
        }
    }

    #[inline]
    fn sends_mki(&self) -> bool {
        match *self {
            Self::Every(_) => true,
            Self::Fixed { send_mki, .. } => send_mki,
        }
    }
}

#[cfg(test)]
mod tests {
    use keyfall_protocol::keys::SrtpSuite;

    use super::SrtpSender;
    use crate::srtp::tests::{master_key, rtcp, stream};
    use crate::{NewSession, ProtectRefused, Stretch};

    #[test]
    fn the_srtcp_index_never_wraps_but_asks_for_a_new_session() {
        // RFC 3711 section 3.4: 31 bits.
        let key = master_key(0);
        let mut sender = SrtpSender::new(stream(SrtpSuite::AeadAes256Gcm), Stretch::default());
        sender.next_rtcp = (1 << 31) - 1;
        assert_eq!(sender.protect_rtcp(&key, &mut rtcp()), Ok((1 << 31) - 1));
        for _ in 0..3 {
            let mut packet = rtcp();
            assert_eq!(
                sender.protect_rtcp(&key, &mut packet),
                Err(ProtectRefused::NewSession(NewSession::IndexExhausted))
            );
            assert_eq!(packet, rtcp());
        }
    }
}
