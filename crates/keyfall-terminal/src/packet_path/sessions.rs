//! Which sessions of others the driver lets the threads that receive have, and the marks that have to be
//! durable first.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Instant;

use keyfall_plane::{ESP_SEQUENCE_MAX, EspReceiver};
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::EspSuite;
use keyfall_protocol::terminal::{Order, PacketMark};

use crate::packet_path::SessionName;
use crate::packet_path::ahead::reach;
use crate::packet_path::by_sender::BySender;

/// Sessions that are received, and those whose first mark is on its way.
#[derive(Default)]
pub(super) struct Sessions {
    held: HashMap<SessionName, Received>,
    by_sender: BySender,
    /// Marks to be asked for with the next order.
    marks: BTreeMap<GroupNumber, Vec<(SessionName, PacketMark)>>,
    /// Those of the orders that are open, in their order.
    ordered: VecDeque<(GroupNumber, Vec<(SessionName, PacketMark)>)>,
}

pub(super) struct Received {
    pub(super) group: GroupNumber,
    pub(super) under: (KeyEpoch, Generation),
    pub(super) suite: EspSuite,
    /// Until its first mark is durable: the receiver, and the rate that is expected.
    waits: Option<(EspReceiver, u32)>,
    /// When a mark of it was wanted last.
    marked: Instant,
}

/// The key of a session: of which group, which of its keys, and for which suite.
pub(super) type Under = (GroupNumber, (KeyEpoch, Generation), EspSuite);

/// What durable marks mean to the threads.
#[derive(Default)]
pub(super) struct Settled {
    /// They may be received from now on, up to that mark; with the rate that is expected.
    pub(super) begun: Vec<(SessionName, (EspReceiver, u32), u32)>,
    pub(super) raised: Vec<(SessionName, u32)>,
    /// Nothing of them is received any more.
    pub(super) refused: Vec<SessionName>,
}

impl Sessions {
    pub(super) fn get(&self, name: SessionName) -> Option<&Received> {
        self.held.get(&name)
    }

    pub(super) fn of(
        &self,
        peer: TerminalNumber,
    ) -> impl Iterator<Item = (SessionName, &Received)> {
        let names = self.by_sender.of(peer);
        names.filter_map(|name| Some((name, self.held.get(&name)?)))
    }

    /// Whether a sender begins anew: others of it are received, and this one belongs to none of their
    /// starts. A receiver does not hear of all sessions of a start: some go to others, some are not used.
    pub(super) fn begins_anew(&self, name: SessionName) -> bool {
        let of_sender = self.by_sender.of(name.spi.sender());
        let mut others = of_sender.filter(|it| it.spi == name.spi).peekable();
        let steps = |it: SessionName| {
            let there = it.session.steps_to(name.session);
            there.min(name.session.steps_to(it.session))
        };
        others.peek().is_some() && others.all(|it| steps(it) > OF_A_START)
    }

    /// One more; it waits for its first mark. Of too many the one goes that was idle longest: its mark
    /// stays, and it begins there when it is heard again.
    #[must_use]
    pub(super) fn begin(
        &mut self,
        name: SessionName,
        (group, under, suite): Under,
        (receiver, rate): (EspReceiver, u32),
        mark: u32,
    ) -> Vec<SessionName> {
        let mut gone = Vec::new();
        if self.held.len() >= SESSIONS_MAX {
            let idle = self.held.iter().min_by_key(|(_, held)| held.marked);
            let idle = idle.map(|(&name, _)| name);
            gone = self.forget(|name, _| Some(*name) == idle);
        }
        let received = Received {
            group,
            under,
            suite,
            waits: Some((receiver, rate)),
            marked: Instant::now(),
        };
        if self.held.insert(name, received).is_none() {
            self.by_sender.add(name);
        }
        self.want_mark(name, mark.saturating_add(reach(rate)));
        gone
    }

    pub(super) fn want_mark(&mut self, name: SessionName, sequence: u32) {
        let Some(held) = self.held.get_mut(&name) else {
            return;
        };
        held.marked = Instant::now();
        let mark = PacketMark {
            epoch: held.under.0,
            generation: held.under.1,
            sender: name.spi.sender(),
            session: name.session,
            sequence: sequence.min(ESP_SEQUENCE_MAX),
        };
        self.marks.entry(held.group).or_default().push((name, mark));
    }

    /// Marks go together: while some are being stored the next ones gather.
    pub(super) fn next_marks(&mut self) -> Vec<Order> {
        if !self.ordered.is_empty() {
            return Vec::new();
        }
        let mut orders = Vec::new();
        for (group, marks) in std::mem::take(&mut self.marks) {
            orders.push(Order::MarkPackets {
                group,
                marks: marks.iter().map(|(_, mark)| *mark).collect(),
            });
            self.ordered.push_back((group, marks));
        }
        orders
    }

    /// The machine's answer to the group's order that is open: what is `stored`, and whom it `displaced`.
    pub(super) fn settle(
        &mut self,
        group: GroupNumber,
        stored: &[PacketMark],
        displaced: &[PacketMark],
    ) -> Settled {
        let mut settled = Settled::default();
        let place = self.ordered.iter().position(|(it, _)| *it == group);
        let ordered = place.and_then(|place| self.ordered.remove(place));
        // The first of each counts.
        let stored = stored.iter().rev().map(|it| (key_of(it), it.sequence));
        let stored: HashMap<_, _> = stored.collect();
        for (name, mark) in ordered.into_iter().flat_map(|(_, marks)| marks) {
            let Some(held) = self.held.get_mut(&name) else {
                continue;
            };
            let durable = stored.get(&key_of(&mark));
            match (durable, held.waits.take()) {
                (Some(_), None) => settled.raised.push((name, mark.sequence)),
                // SECURITY: a receiver that began below what is stored would deliver again (KR-557).
                (Some(&durable), Some(waits)) if durable == mark.sequence => {
                    settled.begun.push((name, waits, mark.sequence));
                }
                (_, _) => {
                    self.held.remove(&name);
                    self.by_sender.remove(name);
                    settled.refused.push(name);
                }
            }
        }
        if !displaced.is_empty() {
            let gone = self.forget(|name, held| {
                held.group == group
                    && displaced.iter().any(|mark| {
                        (mark.epoch, mark.generation) == held.under
                            && (mark.sender, mark.session) == (name.spi.sender(), name.session)
                    })
            });
            settled.refused.extend(gone);
        }
        settled
    }

    /// Those go, with what was wanted for them; who they were.
    #[must_use]
    pub(super) fn forget(
        &mut self,
        goes: impl Fn(&SessionName, &Received) -> bool,
    ) -> Vec<SessionName> {
        let gone = self.held.extract_if(|name, held| goes(name, held));
        let gone: Vec<_> = gone.map(|(name, _)| name).collect();
        for &name in &gone {
            self.by_sender.remove(name);
        }
        if !gone.is_empty() {
            for marks in self.marks.values_mut() {
                marks.retain(|(name, _)| self.held.contains_key(name));
            }
        }
        gone
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whose mark it is, within a group.
fn key_of(mark: &PacketMark) -> (KeyEpoch, Generation, TerminalNumber, EspSession) {
    (mark.epoch, mark.generation, mark.sender, mark.session)
}

/// The first session of a start is drawn from 2^40: so near to another one it is hardly ever.
const OF_A_START: u64 = 1 << 16;
/// Sessions that are received at a time.
const SESSIONS_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use keyfall_plane::Spi;
    use keyfall_protocol::keys::{MasterKey, Secret};

    use super::*;

    const UNDER: (KeyEpoch, Generation) = (KeyEpoch::new(1), Generation::ZERO);

    fn group() -> GroupNumber {
        GroupNumber::new(1).expect("not 0")
    }

    fn key() -> MasterKey {
        let secret = Secret::init_with(|into| into.fill(5));
        MasterKey::new(group(), UNDER.0, UNDER.1, secret)
    }

    fn name(number: u32) -> SessionName {
        let sender = TerminalNumber::new(2).expect("not 0");
        let [a, b, c, d] = number.to_be_bytes();
        SessionName {
            spi: Spi::new(sender, key().esp_tag()),
            session: EspSession::new([1, a, b, c, d]),
        }
    }

    fn begin(sessions: &mut Sessions, number: u32, mark: u32) -> Vec<SessionName> {
        let name = name(number);
        let (suite, sender) = (EspSuite::default(), name.spi.sender());
        let receiver = EspReceiver::with_mark(suite, &key(), sender, name.session, mark);
        sessions.begin(name, (group(), UNDER, suite), (receiver, 0), mark)
    }

    fn ordered(sessions: &mut Sessions) -> Vec<PacketMark> {
        let orders = sessions.next_marks().into_iter();
        let marks = orders.flat_map(|order| {
            let Order::MarkPackets { marks, .. } = order else {
                panic!("{order:?}");
            };
            marks
        });
        marks.collect()
    }

    /// W-12: what is stored of a session stands above where its receiver began.
    #[test]
    fn a_receiver_that_began_below_the_stored_mark_is_refused() {
        let mut sessions = Sessions::default();
        assert_eq!(begin(&mut sessions, 1, 0), []);
        assert_eq!(begin(&mut sessions, 2, 0), []);
        let mut marks = ordered(&mut sessions);
        assert_eq!(marks[1].sequence, 64);
        marks[1].sequence = 500;
        let settled = sessions.settle(group(), &marks, &[]);
        let begun: Vec<_> = settled.begun.iter().map(|it| (it.0, it.2)).collect();
        assert_eq!(begun, [(name(1), 64)]);
        assert_eq!(settled.refused, [name(2)]);
        assert!(sessions.get(name(2)).is_none(), "it may be asked for again");
        sessions.want_mark(name(1), 200);
        let marks = ordered(&mut sessions);
        let settled = sessions.settle(group(), &marks, &[]);
        assert_eq!(settled.raised, [(name(1), 200)]);
    }

    /// a sender that was restarted draws its first session; what lies near to one that is held is
    /// of the same start, also where sessions between went to others. Else fresh sessions bred fresh
    /// sessions.
    #[test]
    fn sessions_that_are_skipped_are_no_restart() {
        let mut sessions = Sessions::default();
        assert!(!sessions.begins_anew(name(5_000_000)), "nothing is held");
        assert_eq!(begin(&mut sessions, 5_000_000, 0), []);
        for (number, anew) in [
            (5_000_001, false),
            (5_000_016, false),
            (5_065_536, false),
            (4_999_990, false),
            (5_065_537, true),
            (77, true),
        ] {
            assert_eq!(sessions.begins_anew(name(number)), anew, "{number}");
        }
        assert_eq!(begin(&mut sessions, 77, 0), []);
        assert!(!sessions.begins_anew(name(80)));
    }

    /// W-21: whoever holds a group's key can begin sessions without end.
    #[test]
    fn sessions_are_bounded_and_the_one_idle_longest_goes() {
        let mut sessions = Sessions::default();
        let most = u32::try_from(SESSIONS_MAX).expect("it fits");
        for number in 0..most {
            assert_eq!(begin(&mut sessions, number, 0), []);
        }
        sessions.want_mark(name(0), 90);
        assert_eq!(begin(&mut sessions, most, 0), [name(1)]);
        assert_eq!(sessions.held.len(), SESSIONS_MAX);
        let marks = ordered(&mut sessions);
        assert!(marks.iter().all(|mark| mark.session != name(1).session));
        let sender = name(0).spi.sender();
        assert_eq!(sessions.of(sender).count(), SESSIONS_MAX);
        assert_eq!(sessions.forget(|_, _| true).len(), SESSIONS_MAX);
        assert_eq!(sessions.of(sender).count(), 0);
    }

    /// FORMATS section 7: who is displaced is received no more.
    #[test]
    fn a_displaced_session_is_received_no_more() {
        let mut sessions = Sessions::default();
        for number in 1..=3 {
            assert_eq!(begin(&mut sessions, number, 0), []);
        }
        let marks = ordered(&mut sessions);
        let settled = sessions.settle(group(), &marks, &marks[..1]);
        assert_eq!(settled.begun.len(), 3);
        assert_eq!(settled.refused, [name(1)]);
        assert!(sessions.get(name(1)).is_none());
        assert!(sessions.get(name(3)).is_some());
    }
}
