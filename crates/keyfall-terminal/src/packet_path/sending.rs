//! How this terminal sends in a group, as the driver keeps it: under which key and suite, and in which
//! session.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::EspSuite;
use keyfall_protocol::terminal::{SessionBlock, Terminal};

use crate::packet_path::restarts::Afresh;

#[derive(Default)]
pub(super) struct Sending {
    pub(super) sessions: Option<SessionBlock>,
    pub(super) suite: EspSuite,
    /// Since when suites are followed here.
    followed: Option<Instant>,
    /// Since when the own record names another one.
    other_suite: Option<Instant>,
    /// The one before, and when it ended.
    suite_before: Option<(EspSuite, Instant)>,
    /// Sessions were ordered.
    pub(super) ordered: bool,
    pub(super) told: Told,
    /// A sender for the same key is wanted, after the one in use.
    pub(super) spare: bool,
    /// The same at once.
    pub(super) afresh: Afresh,
    /// The newest session that was given to the thread.
    pub(super) given: Option<EspSession>,
}

/// What the thread was told of a group.
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
        let sends = matches!(self.told, Told::Key(..));
        if !sends || now.saturating_duration_since(since) >= SUITE_AFTER {
            let was_followed = self.told != Told::Nothing;
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

    /// Takes a session where the thread needs one for that key; without one it is asked for again.
    pub(super) fn next(
        &mut self,
        key: (KeyEpoch, Generation),
        now: Instant,
    ) -> Option<(Place, EspSession)> {
        let place = self.wants(key, now)?;
        let session = self.sessions.as_mut().and_then(SessionBlock::take)?;
        self.give(place, session, (key, now));
        Some((place, session))
    }

    fn wants(&self, key: (KeyEpoch, Generation), now: Instant) -> Option<Place> {
        let under = Told::Key(key.0, key.1, self.suite);
        if self.told != under || self.afresh.is_due(key, now) {
            Some(Place::InUse)
        } else {
            self.spare.then_some(Place::Spare)
        }
    }

    fn give(
        &mut self,
        place: Place,
        session: EspSession,
        (key, now): ((KeyEpoch, Generation), Instant),
    ) {
        self.given = Some(session);
        self.spare = false;
        if place == Place::InUse {
            self.told = Told::Key(key.0, key.1, self.suite);
            self.afresh.begun(key, now);
        }
    }

    /// A peer refuses a session of this terminal.
    pub(super) fn on_refused(&mut self, session: EspSession) {
        // The one in use is the newest, or a spare stands before it.
        if self.given.is_some_and(|given| session.steps_to(given) <= 1) {
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
        sending.told = Told::Key(KEY.0, KEY.1, old);
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
        sending.told = Told::Hold;
        sending.follow_suite(old, at(40));
        assert_eq!(sending.late_suites(at(41)), [old, new], "who only listens");
    }

    /// R-101, PROTOCOL 16.4: a session that a peer refuses is left at once, or as soon as may be, also
    /// where a spare was wanted meanwhile; what was left before is nothing to go by.
    #[test]
    fn a_refused_session_is_left_and_the_wish_outlives_a_spare() {
        let first = EspSession::new([9; 5]);
        let (start, mut taken) = (Instant::now(), 0);
        let mut sending = Sending {
            told: Told::Key(KEY.0, KEY.1, EspSuite::default()),
            given: Some(first),
            ..Sending::default()
        };
        let mut next = |sending: &mut Sending, key, second| {
            let now = start + Duration::from_secs(second);
            let place = sending.wants(key, now)?;
            taken += 1;
            sending.give(place, first.plus(taken), (key, now));
            Some(place)
        };
        assert_eq!(next(&mut sending, KEY, 0), None);
        sending.on_refused(first);
        assert_eq!(next(&mut sending, KEY, 0), Some(Place::InUse));
        sending.on_refused(first.plus(1));
        sending.spare = true;
        assert_eq!(next(&mut sending, KEY, 1), Some(Place::Spare));
        sending.on_refused(first.plus(1));
        assert_eq!(next(&mut sending, KEY, 4), None);
        assert_eq!(next(&mut sending, KEY, 5), Some(Place::InUse));
        sending.on_refused(first.plus(1));
        assert_eq!(next(&mut sending, KEY, 60), None, "it was left already");
        let renewed = (KEY.0, Generation::ZERO.plus(1));
        assert_eq!(next(&mut sending, renewed, 61), Some(Place::InUse));
    }
}
