//! What is said of a change, to whom, and by which way: to single terminals at once, on the carousel
//! to whoever only hears.

use std::time::Duration;

use crate::command::{Body, FRESH_EPOCHS_MAX, Halt, Notify, NotifyEntry, Target};
use crate::ids::{GroupNumber, TerminalNumber};
use crate::rng::Random;
use crate::server::changing::starting::StandingStart;
use crate::server::changing::{CHANGE_LEAD, ChangeCause, Phase, State, WAIT_MAX};
use crate::server::{Class, Item, Output, Server};
use crate::sharing;

impl Server {
    /// START is repeated to whoever only hears, for as long as it counts.
    pub(super) fn stand_start(&mut self, group: GroupNumber, standing: StandingStart) {
        let item = Item::Start(group);
        if let Some(first) = standing.announced {
            self.carousel.announce(item, first);
            self.carousel.retire(|it| it == item);
            self.carousel.announce(item, first);
            self.carousel.stand(item, first.plus(Class::Change.pace()));
        }
        self.changing.starts.insert(group, standing);
    }

    /// START for members that a server which ended in the middle of a barrier has left stopped: of
    /// the key that the group has now, once those that only hear have probably got it.
    pub(super) fn restart(&mut self, group: GroupNumber) {
        let transaction = self.take_transaction();
        let Some(record) = self.groups.get(&group) else {
            return;
        };
        let distributed = self.at.now.plus(Duration::from_secs(CHANGE_LEAD.into()));
        let halt = Halt {
            group,
            transaction,
            epoch: record.master.epoch(),
            generation: record.master.generation(),
            deadline: self.at.wall.plus(WAIT_MAX.as_secs() as u32),
        };
        let standing = StandingStart {
            halt,
            announced: Some(distributed),
            stopped_until: Some(halt.deadline),
        };
        self.stand_start(group, standing);
    }

    /// What is said now, and to whom.
    pub(super) fn words(&self, group: GroupNumber) -> Vec<(Vec<Item>, Vec<TerminalNumber>)> {
        let Some(state) = self.changing.state(group) else {
            return Vec::new();
        };
        let course = state.course();
        let lacking = course.members.lacking(state.phase());
        match (state, course.cause) {
            (State::Distributing(_), ChangeCause::Renewal { .. }) => {
                let invited = lacking
                    .iter()
                    .map(|&newcomer| (vec![Item::Invite(newcomer)], vec![newcomer]));
                let renew = if course.halts() {
                    Vec::new()
                } else {
                    course.members.lacking(Phase::Starting)
                };
                let renew = (vec![Item::Group(group)], renew);
                std::iter::once(renew).chain(invited).collect()
            }
            (
                State::Distributing(_),
                ChangeCause::FreshEpoch
                | ChangeCause::LeftOut
                | ChangeCause::Exclusion(_)
                | ChangeCause::Theft,
            ) => vec![(vec![Item::Muster(group)], lacking)],
            (State::Stopping(_), _) => vec![(vec![Item::Stop(group)], lacking)],
            (State::Starting(_), ChangeCause::Exclusion(number)) => {
                let part = self.exclusion_part(number, group);
                vec![(
                    vec![Item::Exclude(number, part), Item::Start(group)],
                    lacking,
                )]
            }
            (State::Starting(_), ChangeCause::Theft) => {
                vec![(vec![Item::KeySet, Item::Start(group)], lacking)]
            }
            (
                State::Starting(_),
                ChangeCause::Renewal { .. } | ChangeCause::FreshEpoch | ChangeCause::LeftOut,
            ) => vec![(vec![Item::Start(group)], lacking)],
        }
    }

    /// Which message of the exclusion names the group's fresh epoch.
    pub(super) fn exclusion_part(&self, number: u32, group: GroupNumber) -> u32 {
        let groups = self.exclusions.get(&number).map(|it| &it.groups);
        let place = groups.and_then(|all| all.iter().position(|fresh| fresh.group == group));
        let part = place.unwrap_or(0) / FRESH_EPOCHS_MAX;
        u32::try_from(part).unwrap_or(0)
    }

    /// Commands to single terminals, each signed once for all of them.
    pub(in crate::server) fn tell(
        &mut self,
        items: &[Item],
        terminals: &[TerminalNumber],
        rng: &mut dyn Random,
    ) {
        if terminals.is_empty() {
            return;
        }
        for &item in items {
            let Some(frame) = self.frame_of(item, rng) else {
                continue;
            };
            let datagram = sharing::command_datagram(&frame);
            for &terminal in terminals {
                if let Some(to) = self.peers.reachable(terminal, self.at.now) {
                    let octets = datagram.clone();
                    self.outputs.push_back(Output::Send { to, octets });
                }
            }
        }
    }

    /// Whatever was said of the group's change is said no more.
    pub(super) fn forget_words(&mut self, group: GroupNumber) {
        let words = [Item::Notify(group), Item::Stop(group), Item::Start(group)];
        for item in words {
            self.carousel.hush(item);
        }
        if self.changing.starts.contains_key(&group) {
            self.carousel.retire(|it| it == Item::Start(group));
        }
        self.frames.remove(&Item::Start(group));
        self.forget_frames_of_words(group);
    }

    pub(super) fn forget_frames_of_words(&mut self, group: GroupNumber) {
        for item in [Item::Notify(group), Item::Muster(group), Item::Stop(group)] {
            self.frames.remove(&item);
        }
    }

    /// NOTIFY, STOP and START as they stand.
    pub(in crate::server) fn word(&self, item: Item) -> Option<(Target, Body)> {
        let wall = self.at.wall;
        match item {
            Item::Notify(group) | Item::Muster(group) => {
                let State::Distributing(state) = self.changing.state(group)? else {
                    return None;
                };
                let (epoch, generation) = state.course.key;
                let entry = NotifyEntry {
                    group,
                    epoch,
                    generation,
                };
                // Those that are asked by name come also where a KEYDIST was faster: so the server
                // hears that they hold the key.
                let by_name = matches!(item, Item::Muster(_));
                let notify = Notify {
                    spread_ms: spread(state.course.members.len()),
                    entries: if by_name { Vec::new() } else { vec![entry] },
                };
                Some((Target::Group(group), Body::Notify(notify)))
            }
            Item::Invite(terminal) => {
                let notify = Notify {
                    spread_ms: 0,
                    entries: Vec::new(),
                };
                Some((Target::Terminal(terminal), Body::Notify(notify)))
            }
            Item::Stop(group) => {
                let State::Stopping(state) = self.changing.state(group)? else {
                    return None;
                };
                Some((Target::Group(group), Body::Stop(state.halt)))
            }
            Item::Start(group) => {
                let standing = self.changing.starts.get(&group)?;
                let newest = self.groups.get(&group)?.master.epoch();
                let counts = wall < standing.halt.deadline && newest == standing.halt.epoch;
                counts.then_some((Target::Group(group), Body::Start(standing.halt)))
            }
            Item::Time
            | Item::KeySet
            | Item::Exclude(..)
            | Item::Erase(_)
            | Item::Lock(_)
            | Item::Fleet
            | Item::Device(_)
            | Item::Group(_)
            | Item::Dist(..)
            | Item::Record(_) => None,
        }
    }
}

/// Milliseconds over which so many spread themselves: as fast as a server surely answers.
fn spread(members: usize) -> u32 {
    let spread = members.saturating_mul(1_000) / ANSWERS_A_SECOND;
    u32::try_from(spread).unwrap_or(u32::MAX).min(SPREAD_MAX)
}

/// Requests for keys that any server serves in a second.
const ANSWERS_A_SECOND: usize = 10_000;
/// Milliseconds.
const SPREAD_MAX: u32 = 2_000;
