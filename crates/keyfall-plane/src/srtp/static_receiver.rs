//! The receiving half for a stock sender: one given key, no MKI, an estimated ROC.

use std::fmt;

use keyfall_protocol::keys::{SrtpMaster, SrtpSuite};

use crate::replay::ReplayWindow;
use crate::srtp::cipher::{self, SessionKeys};
use crate::srtp::header::{self, RtpHeader};
use crate::srtp::receiver::WINDOW_BLOCKS;
use crate::srtp::{Malformed, Refused, index};

/// Opens what a stock sender sends under one SRTP master key, without an MKI.
///
/// The ROC is estimated (RFC 3711 section 3.3.1) and so must be known at the start: a receiver that
/// joins after the sequence number wrapped needs it from outside.
pub struct StaticReceiver {
    suite: SrtpSuite,
    ssrc: u32,
    keys: Box<SessionKeys>,
    /// The ROC of the first packet.
    roc: u32,
    rtp: ReplayWindow<WINDOW_BLOCKS>,
    rtcp: ReplayWindow<WINDOW_BLOCKS>,
}

impl StaticReceiver {
    #[must_use]
    pub fn new(master: &SrtpMaster, ssrc: u32, roc: u32) -> Self {
        Self {
            suite: master.suite(),
            ssrc,
            keys: SessionKeys::derive(master),
            roc,
            rtp: ReplayWindow::new(),
            rtcp: ReplayWindow::new(),
        }
    }

    /// Opens an SRTP packet into `plain` and returns its index.
    ///
    /// # Errors
    /// [`Refused`]; nothing changed but `plain`.
    pub fn unprotect_rtp(&mut self, packet: &[u8], plain: &mut Vec<u8>) -> Result<u64, Refused> {
        let body = packet
            .len()
            .checked_sub(cipher::rtp_overhead(self.suite))
            .ok_or(Malformed::TooShort)?;
        let header = RtpHeader::read(&packet[..body])?;
        if header.ssrc != self.ssrc {
            return Err(Refused::OtherStream);
        }
        let index = match self.rtp.highest() {
            None => u64::from(self.roc) << 16 | u64::from(header.sequence),
            Some(highest) => index::nearest(highest, header.sequence).ok_or(Refused::TooOld)?,
        };
        self.rtp.check(index)?;
        self.keys
            .unprotect_rtp(header.ssrc, index, header.len, packet, 0, plain)?;
        self.rtp.mark(index);
        Ok(index)
    }

    /// Opens an SRTCP packet into `plain` and returns its SRTCP index.
    ///
    /// # Errors
    /// [`Refused`]; nothing changed but `plain`.
    pub fn unprotect_rtcp(&mut self, packet: &[u8], plain: &mut Vec<u8>) -> Result<u32, Refused> {
        if header::rtcp_ssrc(packet)? != self.ssrc {
            return Err(Refused::OtherStream);
        }
        let index = cipher::rtcp_index(self.suite, packet, 0)?;
        self.rtcp.check(u64::from(index))?;
        self.keys
            .unprotect_rtcp(self.ssrc, index, packet, 0, plain)?;
        self.rtcp.mark(u64::from(index));
        Ok(index)
    }
}

impl fmt::Debug for StaticReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticReceiver")
            .field("ssrc", &self.ssrc)
            .finish_non_exhaustive()
    }
}
