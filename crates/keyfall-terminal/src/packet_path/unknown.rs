//! Sessions that no thread that receives knows yet: which packets the driver tries, and what waits for
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
use zeroize::Zeroizing;

use crate::packet_path::SessionName;
use crate::packet_path::waiting::Waiting;
use crate::packet_path::wire::Origin;

pub(super) struct Unknown {
    /// The driver was asked with a packet of them.
    asked: HashMap<SessionName, Instant>,
    /// How many packets were tried within this second.
    tried: HashMap<Whose, u32>,
    /// When it began.
    since: Option<Instant>,
    /// Why the last packet that was tried did not begin them, and when one came last.
    refused: HashMap<SessionName, (DropReason, Instant)>,
    /// Sealed packets of sessions that the driver was asked about.
    waiting: Waiting<Sealed>,
}

/// Whose packets are counted.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Whose {
    Source(Source),
    /// Of all names, where it is heard.
    Sender(TerminalNumber),
    NameOfSource(SessionName, Source),
    /// Of all sources where the sender is not heard.
    Name(SessionName),
}

/// A sealed packet.
#[derive(Clone, Copy)]
pub(super) struct Sealed {
    pub(super) name: SessionName,
    pub(super) origin: Origin,
    /// The driver was asked with it.
    pub(super) tried: bool,
}

impl Whose {
    fn name(self) -> Option<SessionName> {
        match self {
            Self::Source(_) | Self::Sender(_) => None,
            Self::NameOfSource(name, _) | Self::Name(name) => Some(name),
        }
    }
}

impl Default for Unknown {
    fn default() -> Self {
        Self {
            asked: HashMap::new(),
            tried: HashMap::new(),
            since: None,
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
        if self.awaits(name) {
            return Ok(false);
        }
        if self.asked.len() >= ASKED_MAX {
            return Err(DropReason::TrialBudget);
        }
        if !self.since.is_some_and(|since| is_lately(since, now)) {
            self.since = Some(now);
            self.tried.clear();
        }
        // Who is heard goes on where strangers without number fill the table, and however many are heard
        // from one address, as when all behind it change their keys.
        let (room, of_all_names, of_all_sources) = if heard {
            let of_sender = (Whose::Sender(name.spi.sender()), OF_HEARD_MAX);
            (HEARD_TRIED_MAX, of_sender, None)
        } else {
            let of_source = (Whose::Source(source), OF_ALL_NAMES_MAX);
            (TRIED_MAX, of_source, Some((Whose::Name(name), OF_NAME_MAX)))
        };
        let of_name = (Whose::NameOfSource(name, source), OF_SOURCE_MAX);
        let bounds = [Some(of_name), Some(of_all_names), of_all_sources];
        let bounds = || bounds.into_iter().flatten();
        let has_room = |(whose, max)| self.tried.get(&whose).is_none_or(|&tried| tried < max);
        // What is not tried uses up nothing: else one name takes what others of its source need.
        if self.tried.len() < room && bounds().all(has_room) {
            for (whose, _) in bounds() {
                *self.tried.entry(whose).or_default() += 1;
            }
            return Ok(true);
        }
        let why = self.refused.get_mut(&name);
        Err(why.map_or(DropReason::TrialBudget, |(reason, came)| {
            *came = now;
            *reason
        }))
    }

    /// Whether the driver was asked, and has not answered.
    pub(super) fn awaits(&self, name: SessionName) -> bool {
        self.asked.contains_key(&name)
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
    }

    /// The packet that was tried did not begin it.
    pub(super) fn refused(&mut self, name: SessionName, reason: DropReason, now: Instant) {
        self.asked.remove(&name);
        if self.refused.len() >= ASKED_MAX {
            self.refused.clear();
        }
        self.refused.insert(name, (reason, now));
    }

    /// Something about that sender is another now.
    pub(super) fn try_anew(&mut self, sender: TerminalNumber) {
        self.refused.retain(|name, _| name.spi.sender() != sender);
        let is_of = |name: SessionName| name.spi.sender() == sender;
        self.tried
            .retain(|whose, _| !whose.name().is_some_and(is_of));
    }

    /// What waited and whose name has an answer; the rest waits on. Those that were tried in vain are
    /// told instead.
    pub(super) fn answered(
        &mut self,
        mut in_vain: impl FnMut(DropReason),
    ) -> Vec<(Sealed, Zeroizing<Vec<u8>>)> {
        let (asked, refused) = (&self.asked, &self.refused);
        let waiting = &mut self.waiting;
        let mut answered = waiting.release(|it| !asked.contains_key(&it.name));
        answered.retain(|(what, _)| {
            let why = refused.get(&what.name).filter(|_| what.tried);
            if let Some(&(reason, _)) = why {
                in_vain(reason);
            }
            why.is_none()
        });
        answered
    }

    pub(super) fn expire(&mut self, now: Instant, gone: &mut impl FnMut(Sealed)) {
        let idle = |since: Instant| now.saturating_duration_since(since);
        self.asked.retain(|_, since| idle(*since) < ASK_LONGEST);
        self.refused
            .retain(|_, (_, came)| idle(*came) < TOLD_LONGEST);
        if !self.since.is_some_and(|since| is_lately(since, now)) {
            self.tried.clear();
        }
        self.waiting.expire(now, gone);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn is_lately(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < SECOND
}

/// Octets that wait: 30 ms at 8 Gbit/s, in which a mark is stored; opened ones of one session half of it.
pub(super) const WAITING_MAX: usize = 32 << 20;
pub(super) const WAIT_LONGEST: Duration = Duration::from_secs(5);
/// Sessions that the driver is asked about at a time.
const ASKED_MAX: usize = 1_024;
/// After it the driver is asked again.
const ASK_LONGEST: Duration = Duration::from_secs(5);
/// Why a session did not begin is told so long after its last packet.
const TOLD_LONGEST: Duration = Duration::from_secs(2);
/// Packets of one name that are tried in a second: from one source,
const OF_SOURCE_MAX: u32 = 8;
/// and from all sources where its sender is not heard.
const OF_NAME_MAX: u32 = 32;
/// Of all names from one source where their senders are not heard,
const OF_ALL_NAMES_MAX: u32 = 64;
/// and of one sender where it is heard: so many groups and threads change their keys at once.
const OF_HEARD_MAX: u32 = 128;
/// As many strangers as there are trials in a second.
const TRIED_MAX: usize = 65_536;
const HEARD_TRIED_MAX: usize = 2 * TRIED_MAX;
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

    /// A packet as a thread treats it: the driver is asked with it, or it waits or goes.
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
        unknown.refused(name(), DropReason::Authentication, now);
        let mut in_vain = Vec::new();
        let waited = unknown.answered(|reason| in_vain.push(reason));
        let waited: Vec<_> = waited.iter().map(|(_, packet)| packet.to_vec()).collect();
        assert_eq!(
            (in_vain, waited),
            (vec![DropReason::Authentication], vec![vec![2]])
        );
        assert!(come(&mut unknown, 2, false, now));
        // From the same place, too.
        unknown.refused(name(), DropReason::Authentication, now);
        assert!(come(&mut unknown, 2, false, now));
        unknown.begun(name());
        assert_eq!((unknown.asked.len(), unknown.refused.len()), (0, 0));
    }

    /// For a second the true reason was told, and then that too much was tried: a peer that is heard, and
    /// that its record takes out of the group, seemed to flood.
    #[test]
    fn why_a_heard_peer_is_refused_is_told_as_long_as_it_sends() {
        let (start, mut unknown) = (Instant::now(), Unknown::default());
        let mut told = HashMap::new();
        for hundredth in 1..=1_000 {
            let now = start + Duration::from_millis(hundredth * 10);
            match unknown.wants(name(), 2, true, now) {
                Ok(_) => unknown.refused(name(), DropReason::NotInRecord, now),
                Err(reason) => *told.entry(reason).or_insert(0) += 1,
            }
            if hundredth % 100 == 50 {
                unknown.expire(now, &mut |_| {});
            }
        }
        // Eight are tried in each second.
        assert_eq!(told, HashMap::from([(DropReason::NotInRecord, 920)]));
        // None is, since the sender's other sessions use up what it has.
        for second in 11..20 {
            let now = start + SECOND * second;
            for number in 1..=OF_HEARD_MAX {
                let session = name().session.plus(number);
                let other = SessionName { session, ..name() };
                assert_eq!(unknown.wants(other, 2, true, now), Ok(true));
            }
            let why = unknown.wants(name(), 2, true, now);
            assert_eq!(why, Err(DropReason::NotInRecord));
            unknown.expire(now, &mut |_| {});
        }
        unknown.expire(start + SECOND * 22, &mut |_| {});
        assert!(unknown.refused.is_empty());
    }

    /// W-04, W-21, KR-560: names are forged without number, by one or by all; the driver is not asked for
    /// each, and a sender that is heard goes on.
    #[test]
    fn a_flood_of_forged_names_is_tried_within_bounds() {
        let now = Instant::now();
        let mut unknown = Unknown::default();
        let numbered = |number: u32| SessionName {
            session: EspSession::new([0; 5]).plus(number),
            ..name()
        };
        let of_one = (0..10_000).filter(|&number| {
            let name = numbered(number);
            let wants = unknown.wants(name, 66, false, now) == Ok(true);
            unknown.refused(name, DropReason::UnknownTag, now);
            wants
        });
        assert_eq!(of_one.count(), 64);
        for number in 0..70_000 {
            unknown
                .wants(numbered(number), number.into(), false, now)
                .ok();
        }
        assert!(unknown.tried.len() < TRIED_MAX + 3);
        let of_new = unknown.wants(numbered(7), 77_777, false, now);
        assert_eq!(of_new, Err(DropReason::TrialBudget));
        assert_eq!(unknown.wants(name(), 2, true, now), Ok(true));
        let of_heard = (0..10_000).filter(|&number| {
            let name = numbered(100_000 + number);
            unknown.wants(name, 88_888, true, now) == Ok(true)
        });
        assert_eq!(of_heard.count(), 127, "after the first one");
        let other = TerminalNumber::new(3).expect("not 0");
        let of_other = SessionName {
            spi: Spi::new(other, 7),
            ..name()
        };
        let tried = unknown.wants(of_other, 88_888, true, now);
        assert_eq!(tried, Ok(true), "another one behind the same address");
        let later = now + SECOND;
        assert_eq!(unknown.wants(name(), 77_777, false, later), Ok(true));
    }

    /// W-04, KR-560: so many forged packets are tried, whoever sends them; what comes from where the
    /// sender is heard is tried in spite of all others.
    #[test]
    fn a_flood_of_forged_packets_is_tried_within_bounds() {
        let now = Instant::now();
        let mut unknown = Unknown::default();
        let try_all = |unknown: &mut Unknown, sources: &mut dyn Iterator<Item = u8>, heard, now| {
            let tried = sources.filter(|&source| {
                let tried = come(unknown, source, heard, now);
                unknown.refused(name(), DropReason::Authentication, now);
                tried
            });
            tried.count()
        };
        assert_eq!(
            try_all(
                &mut unknown,
                &mut std::iter::repeat_n(66, 1_000),
                false,
                now
            ),
            8
        );
        assert_eq!(try_all(&mut unknown, &mut (100..=255), false, now), 24);
        assert_eq!(
            try_all(&mut unknown, &mut std::iter::repeat_n(2, 1_000), true, now),
            8
        );
        let why = unknown.wants(name(), 66, false, now);
        assert_eq!(why, Err(DropReason::Authentication));
        let session = EspSession::new([9; 5]);
        let fresh = SessionName { session, ..name() };
        let tried = unknown.wants(fresh, 66, false, now);
        assert_eq!(tried, Ok(true), "a fresh session from there");
        let later = now + SECOND;
        assert_eq!(
            try_all(&mut unknown, &mut std::iter::once(3), false, later),
            1
        );
        for seconds in [1, 2] {
            unknown.expire(later + seconds * SECOND, &mut |_| {});
        }
        let named = unknown.tried.keys().filter(|whose| whose.name().is_some());
        assert_eq!((named.count(), unknown.refused.len()), (0, 0));
    }
}
