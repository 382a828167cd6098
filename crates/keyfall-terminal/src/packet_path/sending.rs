//! How this terminal sends in a group, as the driver keeps it: under which key and suite, and in which
//! session.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::EspSuite;
use keyfall_protocol::terminal::{SessionBlock, Terminal};

use crate::packet_path::lanes::{LANES_MAX, Lane, every};
use crate::packet_path::restarts::Afresh;

#[derive(Default)]
pub(super) struct Sending {
    pub(super) suite: EspSuite,
    /// Since when suites are followed here.
    followed: Option<Instant>,
    /// Since when the own record names another one.
    other_suite: Option<Instant>,
    /// The one before, and when it ended.
    suite_before: Option<(EspSuite, Instant)>,
    /// Sessions were ordered, for that thread.
    ordered: Option<Lane>,
    /// Fresh sessions for the same key are wanted, at once.
    pub(super) afresh: Afresh,
    lanes: [OfLane; LANES_MAX],
}

/// The same of one of the threads that send.
#[derive(Default)]
struct OfLane {
    /// It had packets for the group.
    speaks: bool,
    /// Its own: receivers get ready for the one that follows the one in use (PROTOCOL 16.4).
    sessions: Option<SessionBlock>,
    told: Told,
    /// A sender for the same key is wanted, after the one in use.
    spare: bool,
    /// The same at once, since the first lane began one.
    afresh: bool,
    /// The two sessions that were given to it last: the one in use, perhaps, and the newest.
    given: [Option<EspSession>; 2],
}

/// What a thread was told of a group.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Told {
    #[default]
    Nothing,
    Key(KeyEpoch, Generation, EspSuite),
    Hold,
    Refuse(DropReason),
}

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// What is sent from now on.
    InUse,
    /// After the one in use.
    Spare,
}

impl Sending {
    /// The suite is another in the middle of traffic when all others have heard so.
    pub(super) fn follow_suite(&mut self, named: EspSuite, now: Instant) {
        self.followed.get_or_insert(now);
        if named == self.suite {
            self.other_suite = None;
            return;
        }
        let since = *self.other_suite.get_or_insert(now);
        if !self.sends(Lane::FIRST) || now.saturating_duration_since(since) >= SUITE_AFTER {
            let was_followed = self.told(Lane::FIRST) != Told::Nothing;
            self.suite_before = was_followed.then_some((self.suite, now));
            (self.suite, self.other_suite) = (named, None);
        }
    }

    /// In which suites others may begin sessions that heard of a change later than this terminal, which
    /// knows of none before it began.
    fn late_suites(&self, now: Instant) -> Vec<EspSuite> {
        let within = |at: Instant, long| now.saturating_duration_since(at) < long;
        if self.followed.is_some_and(|at| within(at, 2 * SUITE_AFTER)) {
            return EspSuite::ALL.to_vec();
        }
        let before = self.suite_before.filter(|it| within(it.1, SUITE_AFTER));
        let before = before.map(|(suite, _)| suite);
        [self.suite].into_iter().chain(before).collect()
    }

    /// Whether that thread sends in the group; the first one always does.
    pub(super) fn speaks(&self, lane: Lane) -> bool {
        lane == Lane::FIRST || self.of(lane).speaks
    }

    pub(super) fn begin(&mut self, lane: Lane) {
        self.of_mut(lane).speaks = true;
    }

    pub(super) fn told(&self, lane: Lane) -> Told {
        self.of(lane).told
    }

    /// Whether that thread has a session.
    pub(super) fn sends(&self, lane: Lane) -> bool {
        matches!(self.told(lane), Told::Key(..))
    }

    pub(super) fn tell(&mut self, lane: Lane, told: Told) {
        self.of_mut(lane).told = told;
    }

    pub(super) fn want_spare(&mut self, lane: Lane) {
        self.of_mut(lane).spare = true;
    }

    /// The newest session of the first thread.
    pub(super) fn given(&self) -> Option<EspSession> {
        self.of(Lane::FIRST).given[1]
    }

    fn of(&self, lane: Lane) -> &OfLane {
        &self.lanes[lane.number()]
    }

    fn of_mut(&mut self, lane: Lane) -> &mut OfLane {
        &mut self.lanes[lane.number()]
    }

    /// Whether sessions are to be ordered: for one thread at a time.
    pub(super) fn orders(&mut self) -> bool {
        if self.ordered.is_some() {
            return false;
        }
        let left = |of: &OfLane| of.sessions.as_ref().map_or(0, SessionBlock::left);
        let mut lanes = every(LANES_MAX).filter(|&lane| self.speaks(lane));
        self.ordered = lanes.find(|&lane| left(self.of(lane)) < SESSIONS_LEAST);
        self.ordered.is_some()
    }

    /// They came, or were refused.
    pub(super) fn on_sessions(&mut self, sessions: Option<SessionBlock>) {
        let lane = self.ordered.take().unwrap_or(Lane::FIRST);
        if sessions.is_some() {
            // A few of the block before are left: they are not used.
            self.of_mut(lane).sessions = sessions;
        }
    }

    /// How many threads send in the group.
    fn speakers(&self) -> u32 {
        let speak = self.lanes[1..].iter().filter(|it| it.speaks);
        speak.fold(1, |count, _| count + 1)
    }

    /// Takes a session where the thread needs one for that key; without one it is asked for again. The
    /// first thread is asked first.
    pub(super) fn next(
        &mut self,
        lane: Lane,
        key: (KeyEpoch, Generation),
        now: Instant,
    ) -> Option<(Place, EspSession)> {
        let place = self.wants(lane, key, now)?;
        let sessions = self.of_mut(lane).sessions.as_mut();
        let session = sessions.and_then(SessionBlock::take)?;
        self.give(lane, place, session, (key, now));
        Some((place, session))
    }

    fn wants(&self, lane: Lane, key: (KeyEpoch, Generation), now: Instant) -> Option<Place> {
        let of = self.of(lane);
        let under = Told::Key(key.0, key.1, self.suite);
        let is_due = || lane == Lane::FIRST && self.afresh.is_due(key, now, self.speakers());
        if of.told != under || of.afresh || is_due() {
            Some(Place::InUse)
        } else {
            of.spare.then_some(Place::Spare)
        }
    }

    fn give(
        &mut self,
        lane: Lane,
        place: Place,
        session: EspSession,
        (key, now): ((KeyEpoch, Generation), Instant),
    ) {
        let under = Told::Key(key.0, key.1, self.suite);
        let of = self.of_mut(lane);
        of.given = [of.given[1], Some(session)];
        of.spare = false;
        if place == Place::Spare {
            return;
        }
        (of.told, of.afresh, of.given[0]) = (under, false, None);
        // Who was restarted refuses what any of them sends.
        if lane == Lane::FIRST && self.afresh.begun(key, now, self.speakers()) {
            for other in &mut self.lanes[1..] {
                other.afresh = other.told == under;
            }
        }
    }

    /// A peer refuses a session of this terminal.
    pub(super) fn on_refused(&mut self, session: EspSession) {
        let mut given = self.lanes.iter().flat_map(|lane| lane.given);
        if given.any(|it| it == Some(session)) {
            self.afresh.want();
        }
    }
}

/// In which suites a sender's packets may come: as this terminal's record has it of their group, as the
/// sender's has it, which may be the newer or the older one, and for a while as it was. All are the
/// server's word.
pub(super) struct Suites(Vec<(GroupNumber, EspSuite)>);

impl Suites {
    pub(super) fn of(
        terminal: &Terminal,
        sender: TerminalNumber,
        groups: &BTreeMap<GroupNumber, Sending>,
    ) -> Self {
        let now = Instant::now();
        let own = terminal.own_record().map(|signed| signed.record());
        let records = [own, terminal.record_of(sender)].into_iter().flatten();
        let named = records.flat_map(|record| &record.groups);
        let named = named.map(|group| (group.group, group.suite));
        let late = groups.iter().flat_map(|(&number, sending)| {
            let late = sending.late_suites(now).into_iter();
            late.map(move |suite| (number, suite))
        });
        let mut suites = Vec::new();
        for group in named.chain(late) {
            if !suites.contains(&group) {
                suites.push(group);
            }
        }
        Self(suites)
    }

    pub(super) fn of_group(&self, group: GroupNumber) -> impl Iterator<Item = EspSuite> {
        let of = self.0.iter().filter(move |(it, _)| *it == group);
        of.map(|&(_, suite)| suite)
    }
}

/// With fewer recorded sessions the next ones are ordered.
const SESSIONS_LEAST: u32 = 4;
/// A changed record is said five times within 8 s.
const SUITE_AFTER: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: (KeyEpoch, Generation) = (KeyEpoch::new(1), Generation::ZERO);

    /// KR-563: a group's suite is the record's, at once where nothing is sent yet, and in the middle of
    /// traffic when the others have heard of it; what they begin meanwhile opens.
    #[test]
    fn a_suite_is_the_records_and_changes_when_all_have_heard_so() {
        let (new, old) = (EspSuite::ChaCha20Poly1305, EspSuite::Aes128Gcm);
        let start = Instant::now();
        let at = |second| start + Duration::from_secs(second);
        let mut sending = Sending::default();
        sending.follow_suite(old, start);
        assert_eq!(sending.suite, old);
        assert_eq!(sending.late_suites(at(19)), EspSuite::ALL, "who began");
        assert_eq!(sending.late_suites(at(20)), [old]);
        let start = at(100);
        let at = |second| start + Duration::from_secs(second);
        sending.tell(Lane::FIRST, Told::Key(KEY.0, KEY.1, old));
        let mut suites = Vec::new();
        for (second, named) in [
            (0, new),
            (9, new),
            (9, old),
            (10, new),
            (19, new),
            (20, new),
        ] {
            sending.follow_suite(named, at(second));
            suites.push(sending.suite);
        }
        assert_eq!(suites, [old, old, old, old, old, new]);
        assert_eq!(sending.late_suites(at(29)), [new, old], "others heard late");
        assert_eq!(sending.late_suites(at(30)), [new]);
        sending.tell(Lane::FIRST, Told::Hold);
        sending.follow_suite(old, at(40));
        assert_eq!(sending.late_suites(at(41)), [old, new], "who only listens");
    }

    /// R-101, PROTOCOL 16.4: a session that a peer refuses is left at once, or as soon as may be, also
    /// where a spare was wanted meanwhile; what was left before is nothing to go by.
    #[test]
    fn a_refused_session_is_left_and_the_wish_outlives_a_spare() {
        let first = EspSession::new([9; 5]);
        let (start, mut taken) = (Instant::now(), 0);
        let mut sending = Sending::default();
        sending.give(Lane::FIRST, Place::InUse, first, (KEY, start));
        let mut next = |sending: &mut Sending, key, second| {
            let now = start + Duration::from_secs(second);
            let place = sending.wants(Lane::FIRST, key, now)?;
            taken += 1;
            sending.give(Lane::FIRST, place, first.plus(taken), (key, now));
            Some(place)
        };
        assert_eq!(next(&mut sending, KEY, 0), None);
        sending.on_refused(first);
        assert_eq!(next(&mut sending, KEY, 0), Some(Place::InUse));
        sending.on_refused(first.plus(1));
        sending.want_spare(Lane::FIRST);
        assert_eq!(next(&mut sending, KEY, 1), Some(Place::Spare));
        sending.on_refused(first.plus(1));
        assert_eq!(next(&mut sending, KEY, 4), None);
        assert_eq!(next(&mut sending, KEY, 5), Some(Place::InUse));
        sending.on_refused(first.plus(1));
        assert_eq!(next(&mut sending, KEY, 60), None, "it was left already");
        let renewed = (KEY.0, Generation::ZERO.plus(1));
        assert_eq!(next(&mut sending, renewed, 61), Some(Place::InUse));
    }

    /// DESIGN invariant 3: whichever threads send, through changes of keys, spares and refusals, no
    /// session is given twice.
    #[test]
    fn no_two_threads_send_in_one_session() {
        let (start, mut blocks) = (Instant::now(), 0);
        let mut sending = Sending::default();
        let mut given = Vec::new();
        for round in 0..200u32 {
            let now = start + Duration::from_secs(u64::from(round) * 400);
            let key = (KEY.0, Generation::ZERO.plus(round / 3));
            let lane = every(LANES_MAX).nth(round as usize % LANES_MAX);
            let lane = lane.expect("there are so many");
            sending.begin(lane);
            sending.want_spare(lane);
            if let Some(&last) = given.last() {
                sending.on_refused(last);
            }
            while sending.orders() {
                let first = EspSession::new([9; 5]).plus(16 * blocks);
                sending.on_sessions(Some(SessionBlock::recorded(first, 16)));
                blocks += 1;
            }
            for lane in every(LANES_MAX) {
                if sending.speaks(lane) {
                    let next = sending.next(lane, key, now);
                    given.extend(next.map(|(_, session)| session));
                }
            }
        }
        let mut seen: Vec<_> = given.iter().map(ToString::to_string).collect();
        seen.sort_unstable();
        seen.dedup();
        assert!(given.len() > 500, "{}", given.len());
        assert_eq!(seen.len(), given.len());
    }

    /// R-101, KR-567: a thread has a session in a group when it has packets for it, and none of another
    /// thread; where a peer refuses the session of one, each begins another, and does so once.
    #[test]
    fn each_thread_that_sends_has_a_session_of_its_own() {
        let [one, two, three] = [0, 1, 2].map(|it| every(3).nth(it).expect("there are three"));
        let start = Instant::now();
        let mut sending = Sending::default();
        let mut taken = Vec::new();
        let mut next = |sending: &mut Sending, key, second| {
            let now = start + Duration::from_secs(second);
            let mut given = Vec::new();
            for lane in every(3)
                .filter(|&lane| sending.speaks(lane))
                .collect::<Vec<_>>()
            {
                if let Some(place) = sending.wants(lane, key, now) {
                    let session =
                        EspSession::new([9; 5]).plus(u32::try_from(taken.len()).expect("few"));
                    sending.give(lane, place, session, (key, now));
                    taken.push(session);
                    given.push((lane, place, session));
                }
            }
            given
        };
        let places = |given: &[(Lane, Place, EspSession)]| -> Vec<_> {
            given
                .iter()
                .map(|&(lane, place, _)| (lane, place))
                .collect()
        };
        let first = next(&mut sending, KEY, 0);
        assert_eq!(places(&first), [(one, Place::InUse)]);
        sending.begin(three);
        let second = next(&mut sending, KEY, 1);
        assert_eq!(places(&second), [(three, Place::InUse)]);
        assert_eq!(next(&mut sending, KEY, 2), []);
        let renewed = (KEY.0, Generation::ZERO.plus(1));
        let both = [(one, Place::InUse), (three, Place::InUse)];
        let third = next(&mut sending, renewed, 3);
        assert_eq!(places(&third), both);
        sending.on_refused(second[0].2);
        assert_eq!(next(&mut sending, renewed, 4), [], "it was left already");
        sending.on_refused(third[1].2);
        assert_eq!(places(&next(&mut sending, renewed, 5)), both);
        sending.on_refused(third[0].2);
        sending.on_refused(third[1].2);
        assert_eq!(next(&mut sending, renewed, 60), [], "of both");
        sending.want_spare(three);
        assert_eq!(
            places(&next(&mut sending, renewed, 61)),
            [(three, Place::Spare)]
        );
        assert!(!sending.speaks(two));
    }
}
