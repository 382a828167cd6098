//! The receiving half of one SSRC of one Keyfall sender.

use std::fmt;

use keyfall_protocol::ids::{Generation, KeyEpoch};
use keyfall_protocol::keys::MasterKey;

use crate::replay::ReplayWindow;
use crate::srtp::cipher::{self, SessionKeys};
use crate::srtp::header::RtpHeader;
use crate::srtp::{Arrival, MKI_LEN, Mki, Refused, SrtpStream, Stretch};

/// Opens the SRTP and SRTCP of one (sender, session, SSRC).
///
/// The index follows from the MKI and the sequence number, so the first packet opens, whenever it
/// comes. One replay window serves all generations and stretches of the session.
pub struct SrtpReceiver {
    stream: SrtpStream,
    stretch: Stretch,
    /// Newest use first, at most [`HELD_MAX`].
    held: Vec<HeldKeys>,
    rtp: ReplayWindow<WINDOW_BLOCKS>,
    rtcp: ReplayWindow<WINDOW_BLOCKS>,
}

struct HeldKeys {
    mki: Mki,
    source: (KeyEpoch, Generation),
    keys: Box<SessionKeys>,
}

/// The highest indexes seen: everything up to them is refused by a receiver made with them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Marks {
    pub rtp: Option<u64>,
    pub rtcp: Option<u32>,
}

impl SrtpReceiver {
    /// For a session of which nothing was delivered before. `stretch` is the group's policy.
    #[must_use]
    pub fn new(stream: SrtpStream, stretch: Stretch) -> Self {
        Self::with_marks(stream, stretch, Marks::default())
    }

    /// For a session that was heard before a restart.
    #[must_use]
    pub fn with_marks(stream: SrtpStream, stretch: Stretch, marks: Marks) -> Self {
        Self {
            stream,
            stretch,
            held: Vec::new(),
            rtp: marks
                .rtp
                .map_or_else(ReplayWindow::new, ReplayWindow::with_mark),
            rtcp: marks.rtcp.map_or_else(ReplayWindow::new, |mark| {
                ReplayWindow::with_mark(u64::from(mark))
            }),
        }
    }

    #[must_use]
    pub fn stream(&self) -> &SrtpStream {
        &self.stream
    }

    /// The highest indexes opened so far, or the initial marks.
    #[must_use]
    pub fn marks(&self) -> Marks {
        Marks {
            rtp: self.rtp.highest(),
            // An SRTCP index has 31 bits, an initial mark 32.
            rtcp: self.rtcp.highest().map(|mark| mark as u32),
        }
    }

    /// Opens an SRTP packet into `plain` with session keys that are held, and returns its index.
    /// `plain` is the plain packet afterwards, or empty or untouched after a refusal; kept by the
    /// caller from packet to packet it is allocated once.
    ///
    /// # Errors
    /// [`Refused`]; nothing changed. [`Refused::KeyUnknown`] asks for [`Self::try_rtp`].
    #[inline]
    pub fn unprotect_rtp(&mut self, packet: &[u8], plain: &mut Vec<u8>) -> Result<u64, Refused> {
        let (mki, header, index) = self.read_rtp(packet)?;
        let place = self.find(mki)?;
        let keys = &self.held[place].keys;
        keys.unprotect_rtp(header.ssrc, index, header.len, packet, MKI_LEN, plain)?;
        self.move_to_front(place);
        self.rtp.mark(index);
        Ok(index)
    }

    /// Tries to open an SRTP packet with session keys derived from `key`, and keeps them if it
    /// opens. Costs one derivation and one opening.
    ///
    /// # Errors
    /// [`Refused`]; nothing changed.
    pub fn try_rtp(
        &mut self,
        key: &MasterKey,
        packet: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<u64, Refused> {
        let (mki, header, index) = self.read_rtp(packet)?;
        let trial = self.derive(key, mki)?;
        trial
            .keys
            .unprotect_rtp(header.ssrc, index, header.len, packet, MKI_LEN, plain)?;
        self.hold(trial);
        self.rtp.mark(index);
        Ok(index)
    }

    /// Opens an SRTCP packet, as [`Self::unprotect_rtp`] does SRTP, and returns its SRTCP index.
    ///
    /// # Errors
    /// [`Refused`]; nothing changed. [`Refused::KeyUnknown`] asks for [`Self::try_rtcp`].
    pub fn unprotect_rtcp(&mut self, packet: &[u8], plain: &mut Vec<u8>) -> Result<u32, Refused> {
        let (mki, index) = self.read_rtcp(packet)?;
        let place = self.find(mki)?;
        let keys = &self.held[place].keys;
        keys.unprotect_rtcp(self.stream.ssrc, index, packet, MKI_LEN, plain)?;
        self.move_to_front(place);
        self.rtcp.mark(u64::from(index));
        Ok(index)
    }

    /// Tries to open an SRTCP packet with session keys derived from `key`, and keeps them if it
    /// opens.
    ///
    /// # Errors
    /// [`Refused`]; nothing changed.
    pub fn try_rtcp(
        &mut self,
        key: &MasterKey,
        packet: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<u32, Refused> {
        let (mki, index) = self.read_rtcp(packet)?;
        let trial = self.derive(key, mki)?;
        trial
            .keys
            .unprotect_rtcp(self.stream.ssrc, index, packet, MKI_LEN, plain)?;
        self.hold(trial);
        self.rtcp.mark(u64::from(index));
        Ok(index)
    }

    /// Wipes the session keys whose master key is not kept any more. The windows stay.
    pub fn retain_keys(&mut self, mut keep: impl FnMut(KeyEpoch, Generation) -> bool) {
        self.held.retain(|held| keep(held.source.0, held.source.1));
    }

    /// MKI, header and index of a packet that is of this stream and no replay.
    #[inline]
    fn read_rtp(&self, packet: &[u8]) -> Result<(Mki, RtpHeader, u64), Refused> {
        let (arrival, header) = Arrival::read_srtp(self.stream.suite, packet)?;
        self.check_stream(&arrival)?;
        let index = self
            .stretch
            .index(arrival.mki.n(), header.sequence)
            .ok_or(Refused::OutsideStretch)?;
        self.rtp.check(index)?;
        Ok((arrival.mki, header, index))
    }

    fn read_rtcp(&self, packet: &[u8]) -> Result<(Mki, u32), Refused> {
        let arrival = Arrival::of_srtcp(self.stream.suite, packet)?;
        self.check_stream(&arrival)?;
        let index = cipher::rtcp_index(self.stream.suite, packet, MKI_LEN)?;
        self.rtcp.check(u64::from(index))?;
        Ok((arrival.mki, index))
    }

    #[inline]
    fn check_stream(&self, arrival: &Arrival) -> Result<(), Refused> {
        let ours = self.stream.ssrc == arrival.ssrc
            && self.stream.sender == arrival.mki.sender()
            && self.stream.session == arrival.mki.session();
        if ours {
            Ok(())
        } else {
            Err(Refused::OtherStream)
        }
    }

    /// The place of the keys for `mki`.
    #[inline]
    fn find(&self, mki: Mki) -> Result<usize, Refused> {
        self.held
            .iter()
            .position(|held| held.mki == mki)
            .ok_or(Refused::KeyUnknown)
    }

    #[inline]
    fn move_to_front(&mut self, place: usize) {
        if place > 0 {
            self.held[..=place].rotate_right(1);
        }
    }

    fn derive(&self, key: &MasterKey, mki: Mki) -> Result<HeldKeys, Refused> {
        if key.tag() != mki.tag() {
            return Err(Refused::KeyUnknown);
        }
        let SrtpStream {
            suite,
            sender,
            session,
            ssrc,
        } = self.stream;
        let master = key.derive_srtp(suite, sender, session, mki.n(), ssrc);
        let keys = SessionKeys::derive(&master);
        Ok(HeldKeys {
            mki,
            source: (key.epoch(), key.generation()),
            keys,
        })
    }

    /// Keeps keys that opened a packet, in place of others under the same MKI (a tag is 24 bits and
    /// may come again) or of those unused for longest.
    fn hold(&mut self, trial: HeldKeys) {
        self.held.retain(|held| held.mki != trial.mki);
        self.held.truncate(HELD_MAX - 1);
        self.held.insert(0, trial);
    }
}

/// Two generations, and for each the stretches that reordered packets still come from.
const HELD_MAX: usize = 8;
impl fmt::Debug for SrtpReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SrtpReceiver")
            .field("stream", &self.stream)
            .field("marks", &self.marks())
            .finish_non_exhaustive()
    }
}

/// 8192 packets wide (FORMATS section 7, "Anti-replay").
pub(super) const WINDOW_BLOCKS: usize = 129;
