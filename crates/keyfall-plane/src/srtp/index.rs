//! The packet index: ROC and sequence number in one (RFC 3711 section 3.3.1), and the stretch
//! number n made of it.

use crate::replay::{ReplayWindow, Stale};
use crate::srtp::{NewSession, ProtectRefused};

/// j: a session key serves 2^j packets, then the next one is derived (REQUIREMENTS ).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Stretch(u8);

impl Stretch {
    /// `None` outside 10..=16.
    #[must_use]
    pub const fn new(j: u8) -> Option<Self> {
        if j >= 10 && j <= 16 {
            Some(Self(j))
        } else {
            None
        }
    }

    #[must_use]
    pub const fn j(self) -> u8 {
        self.0
    }

    /// 2^j.
    #[must_use]
    pub const fn packets(self) -> u64 {
        1 << self.0
    }

    /// n = index >> j; `None` past 65,535, where the session ends.
    #[inline]
    pub(super) fn number(self, index: u64) -> Option<u16> {
        u16::try_from(index >> self.0).ok()
    }

    /// The one index in stretch `n` whose low 16 bits are `sequence`, where there is one:
    /// ROC = n >> (16 - j), and the high bits of the sequence number are the low bits of n.
    #[inline]
    pub(super) fn index(self, n: u16, sequence: u16) -> Option<u64> {
        let roc = u64::from(n) >> (16 - self.0);
        let index = roc << 16 | u64::from(sequence);
        (index >> self.0 == u64::from(n)).then_some(index)
    }
}

impl Default for Stretch {
    /// j = 16: n is the ROC.
    fn default() -> Self {
        Self(16)
    }
}

/// The index that `sequence` most likely has when `highest` is the highest so far (RFC 3711
/// section 3.3.1); `None` before 0 and past 2^48.
#[inline]
pub(super) fn nearest(highest: u64, sequence: u16) -> Option<u64> {
    let s_l = highest as u16;
    let same_roc = highest - u64::from(s_l) + u64::from(sequence);
    let index = if s_l < 0x8000 {
        if i32::from(sequence) - i32::from(s_l) > 0x8000 {
            same_roc.checked_sub(0x1_0000)?
        } else {
            same_roc
        }
    } else if i32::from(s_l) - 0x8000 > i32::from(sequence) {
        same_roc + 0x1_0000
    } else {
        same_roc
    };
    (index <= MAX_INDEX).then_some(index)
}

/// Gives every packet of a local application an index that no packet had before (INVARIANT 3).
#[derive(Debug)]
pub(super) struct Sequencer {
    used: ReplayWindow<REORDER_BLOCKS>,
    duplicates_in_a_row: u8,
}

impl Sequencer {
    pub(super) fn new() -> Self {
        Self {
            used: ReplayWindow::new(),
            duplicates_in_a_row: 0,
        }
    }

    /// The index for `sequence`; the caller enters it with [`Self::enter`] once the packet is
    /// protected. The first packet has ROC 0.
    #[inline]
    pub(super) fn place(&mut self, sequence: u16) -> Result<u64, ProtectRefused> {
        let Some(highest) = self.used.highest() else {
            return Ok(u64::from(sequence));
        };
        let Some(index) = nearest(highest, sequence) else {
            let ahead = highest >= MAX_INDEX - 0xffff && sequence < 0x8000;
            return Err(if ahead {
                NewSession::IndexExhausted.into()
            } else {
                NewSession::SequenceJumped.into()
            });
        };
        match self.used.check(index) {
            Ok(()) => Ok(index),
            Err(Stale::TooOld) => Err(NewSession::SequenceJumped.into()),
            Err(Stale::Replayed) => {
                self.duplicates_in_a_row += 1;
                if self.duplicates_in_a_row == RESTART_AFTER_DUPLICATES {
                    self.duplicates_in_a_row = 0;
                    return Err(NewSession::SequenceJumped.into());
                }
                Err(ProtectRefused::Duplicate)
            }
        }
    }

    /// `index` is used from now on.
    #[inline]
    pub(super) fn enter(&mut self, index: u64) {
        self.used.mark(index);
        self.duplicates_in_a_row = 0;
    }

    pub(super) fn highest(&self) -> Option<u64> {
        self.used.highest()
    }
}

/// The last index of SRTP: 32 bits of ROC, 16 of sequence number.
pub(super) const MAX_INDEX: u64 = (1 << 48) - 1;
/// The last index of SRTCP (RFC 3711 section 3.4).
pub(super) const MAX_RTCP_INDEX: u32 = (1 << 31) - 1;
/// A local application reorders within 128 packets or it has restarted.
const REORDER_BLOCKS: usize = 3;
/// A stream that was sent twice brings a duplicate beside each new packet; one that started over
/// brings nothing but duplicates.
const RESTART_AFTER_DUPLICATES: u8 = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{MAX_INDEX, Sequencer, Stretch, nearest};
    use crate::{NewSession, ProtectRefused};

    #[test]
    fn a_static_stream_ends_at_the_last_index() {
        let mut sequencer = Sequencer::new();
        sequencer.enter(MAX_INDEX - 2);
        assert_eq!(sequencer.place(0xffff), Ok(MAX_INDEX));
        sequencer.enter(MAX_INDEX);
        assert_eq!(
            sequencer.place(0),
            Err(ProtectRefused::NewSession(NewSession::IndexExhausted))
        );
    }

    proptest! {
        #[test]
        fn n_and_sequence_give_back_the_index(j in 10u8..=16, index in 0u64..1 << 32) {
            let stretch = Stretch::new(j).expect("10 to 16");
            if let Some(n) = stretch.number(index) {
                prop_assert_eq!(stretch.index(n, index as u16), Some(index));
            }
        }

        #[test]
        fn an_index_is_given_back_only_inside_its_stretch(
            j in 10u8..=16, n in any::<u16>(), sequence in any::<u16>(),
        ) {
            let stretch = Stretch::new(j).expect("10 to 16");
            if let Some(index) = stretch.index(n, sequence) {
                prop_assert_eq!(stretch.number(index), Some(n));
                prop_assert_eq!(index as u16, sequence);
            }
        }

        #[test]
        fn the_nearest_index_is_never_more_than_half_a_round_away(
            highest in 0u64..=MAX_INDEX, sequence in any::<u16>(),
        ) {
            if let Some(index) = nearest(highest, sequence) {
                prop_assert_eq!(index as u16, sequence);
                prop_assert!(index.abs_diff(highest) <= 0x8000);
            }
        }
    }
}
