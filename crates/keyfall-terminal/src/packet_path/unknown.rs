//! Sessions that the receiving thread does not know: which packets the driver tries, and what waits for
//! its answer.
//!
//! A packet's name (SPI and session) stands in clear, so that anybody can forge one. A forged packet
//! must not shut out the session whose name it has: others of that name are tried, too, within bounds
//! for each source and for each name (KR-560).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use keyfall_protocol::DropReason;
use keyfall_protocol::ids::TerminalNumber;
use keyfall_protocol::terminal::Source;

use crate::packet_path::SessionName;
use crate::packet_path::waiting::Waiting;
use crate::packet_path::wire::Origin;

pub(super) struct Unknown {
    /// The driver was asked with a packet of them.
    asked: HashMap<SessionName, Instant>,
    /// What was tried within a second: of a source, and of all those where their sender is not heard.
    tried: HashMap<(SessionName, Option<Source>), Tried>,
    /// Why the last packet that was tried did not begin them.
    refused: HashMap<SessionName, DropReason>,
    /// Sealed packets of sessions that the driver was asked about.
    waiting: Waiting<Sealed>,
}

/// A sealed packet.
#[derive(Clone, Copy)]
pub(super) struct Sealed {
    pub(super) name: SessionName,
    pub(super) origin: Origin,
    /// The driver was asked with it.
    pub(super) tried: bool,
}

struct Tried {
    since: Instant,
    packets: u32,
}

impl Default for Unknown {
    fn default() -> Self {
        Self {
            asked: HashMap::new(),
            tried: HashMap::new(),
            refused: HashMap::new(),
            waiting: Waiting::new(WAITING_MAX, WAIT_LONGEST),
        }
    }
}

impl Unknown {
    /// Whether the driver is to be asked with this packet, or an answer is on its way already. `heard`:
    /// other sessions of the sender come from there; strangers do not use that up.
    ///
    /// # Errors
    /// Why the packet is not tried.
    pub(super) fn wants(
        &mut self,
        name: SessionName,
        source: Source,
        heard: bool,
        now: Instant,
    ) -> Result<bool, DropReason> {
        if self.asked.contains_key(&name) {
            return Ok(false);
        }
        if self.asked.len() >= ASKED_MAX {
            return Err(DropReason::TrialBudget);
        }
        let of_source = self.may_try((name, Some(source)), OF_SOURCE_MAX, now);
        if of_source && (heard || self.may_try((name, None), OF_NAME_MAX, now)) {
            return Ok(true);
        }
        let why = self.refused.get(&name).copied();
        Err(why.unwrap_or(DropReason::TrialBudget))
    }

    fn may_try(&mut self, whose: (SessionName, Option<Source>), max: u32, now: Instant) -> bool {
        if self.tried.len() >= TRIED_MAX && !self.tried.contains_key(&whose) {
            // The machine's own budgets hold meanwhile.
            self.tried.clear();
        }
        let fresh = Tried {
            since: now,
            packets: 0,
        };
        let tried = self.tried.entry(whose).or_insert(fresh);
        if !is_lately(tried.since, now) {
            (tried.since, tried.packets) = (now, 0);
        }
        let may = tried.packets < max;
        tried.packets += u32::from(may);
        may
    }

    /// One that waits for an answer; what has to go for it is told.
    pub(super) fn keep(
        &mut self,
        since: Instant,
        what: Sealed,
        packet: Vec<u8>,
        gone: &mut impl FnMut(Sealed),
    ) {
        if what.tried {
            self.asked.insert(what.name, since);
        }
        self.waiting.push(since, what, packet, gone);
    }

    /// The session has begun.
    pub(super) fn begun(&mut self, name: SessionName) {
        self.asked.remove(&name);
        self.refused.remove(&name);
        self.tried.retain(|(it, _), _| *it != name);
    }

    /// The packet that was tried did not begin it.
    pub(super) fn refused(&mut self, name: SessionName, reason: DropReason) {
        self.asked.remove(&name);
        if self.refused.len() >= ASKED_MAX {
            self.refused.clear();
        }
        self.refused.insert(name, reason);
    }

    /// Something about that sender is another now.
    pub(super) fn try_anew(&mut self, sender: TerminalNumber) {
        self.refused.retain(|name, _| name.spi.sender() != sender);
        self.tried.retain(|(it, _), _| it.spi.sender() != sender);
    }

    /// What waited and whose name has an answer; the rest waits on. Those that were tried in vain are
    /// told instead.
    pub(super) fn answered(
        &mut self,
        mut in_vain: impl FnMut(DropReason),
    ) -> Vec<(Sealed, Vec<u8>)> {
        let mut answered = Vec::new();
        for (since, what, packet) in self.waiting.take() {
            if self.asked.contains_key(&what.name) {
                // They fit before, too.
                self.waiting.push(since, what, packet, &mut |_| {});
            } else if let Some(&reason) = self.refused.get(&what.name).filter(|_| what.tried) {
                in_vain(reason);
            } else {
                answered.push((what, packet));
            }
        }
        answered
    }

    pub(super) fn expire(&mut self, now: Instant, gone: &mut impl FnMut(Sealed)) {
        let idle = |since: Instant| now.saturating_duration_since(since);
        self.asked.retain(|_, since| idle(*since) < ASK_LONGEST);
        self.tried.retain(|_, tried| is_lately(tried.since, now));
        let tried = &self.tried;
        self.refused
            .retain(|name, _| tried.contains_key(&(*name, None)));
        self.waiting.expire(now, gone);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn is_lately(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < SECOND
}

/// Octets that wait: 30 ms at 8 Gbit/s, in which a mark is stored.
pub(super) const WAITING_MAX: usize = 32 << 20;
pub(super) const WAIT_LONGEST: Duration = Duration::from_secs(5);
/// Sessions that the driver is asked about at a time.
const ASKED_MAX: usize = 1_024;
/// After it the driver is asked again.
const ASK_LONGEST: Duration = Duration::from_secs(5);
/// Packets of one name that are tried in a second: from one source,
const OF_SOURCE_MAX: u32 = 8;
/// and from all sources where its sender is not heard.
const OF_NAME_MAX: u32 = 32;
const TRIED_MAX: usize = 16_384;
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use keyfall_plane::Spi;
    use keyfall_protocol::ids::EspSession;

    use super::*;

    fn name() -> SessionName {
        let sender = TerminalNumber::new(2).expect("not 0");
        SessionName {
            spi: Spi::new(sender, 7),
            session: EspSession::new([1, 2, 3, 4, 5]),
        }
    }

    fn origin(source: u8) -> Origin {
        Origin {
            from: ([192, 0, 2, source], 4500).into(),
            to: None,
            interface: None,
        }
    }

    /// A packet as the thread treats it: the driver is asked with it, or it waits or goes.
    fn come(unknown: &mut Unknown, source: u8, heard: bool, now: Instant) -> bool {
        let Ok(tried) = unknown.wants(name(), source.into(), heard, now) else {
            return false;
        };
        let what = Sealed {
            name: name(),
            origin: origin(source),
            tried,
        };
        unknown.keep(now, what, vec![source], &mut |_| {});
        tried
    }

    /// KR-560: someone on the way forges a packet with the name of a session that is about to begin; it
    /// was tried first, and for a second nothing of that name was tried any more.
    #[test]
    fn a_forged_packet_does_not_shut_out_the_session_whose_name_it_has() {
        let now = Instant::now();
        let mut unknown = Unknown::default();
        assert!(come(&mut unknown, 66, false, now), "the forged one");
        assert!(!come(&mut unknown, 2, false, now), "an answer is awaited");
        unknown.refused(name(), DropReason::Authentication);
        let mut in_vain = Vec::new();
        let waited = unknown.answered(|reason| in_vain.push(reason));
        let waited: Vec<_> = waited.into_iter().map(|(_, packet)| packet).collect();
        assert_eq!(
            (in_vain, waited),
            (vec![DropReason::Authentication], vec![vec![2]])
        );
        assert!(come(&mut unknown, 2, false, now));
        // From the same place, too.
        unknown.refused(name(), DropReason::Authentication);
        assert!(come(&mut unknown, 2, false, now));
        unknown.begun(name());
        assert!(unknown.tried.is_empty() && unknown.refused.is_empty());
    }

    /// W-04, KR-560: so many forged packets are tried, whoever sends them; what comes from where the
    /// sender is heard is tried in spite of all others.
    #[test]
    fn a_flood_of_forged_packets_is_tried_within_bounds() {
        let now = Instant::now();
        let mut unknown = Unknown::default();
        let mut try_all = |sources: &mut dyn Iterator<Item = u8>, heard, now| {
            let tried = sources.filter(|&source| {
                let tried = come(&mut unknown, source, heard, now);
                unknown.refused(name(), DropReason::Authentication);
                tried
            });
            tried.count()
        };
        assert_eq!(try_all(&mut std::iter::repeat_n(66, 1_000), false, now), 8);
        assert_eq!(try_all(&mut (100..=255), false, now), 24);
        assert_eq!(try_all(&mut std::iter::repeat_n(2, 1_000), true, now), 8);
        let later = now + SECOND;
        assert_eq!(try_all(&mut std::iter::once(3), false, later), 1);
        let why = unknown.wants(name(), 66, false, now);
        assert_eq!(why, Err(DropReason::Authentication));
        unknown.expire(later + SECOND, &mut |_| {});
        assert!(unknown.tried.is_empty() && unknown.refused.is_empty());
    }
}
