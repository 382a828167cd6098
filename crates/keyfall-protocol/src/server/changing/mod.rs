//! Changing the key of a group that is at work, with the members that can answer (REQUIREMENTS
//! R-048, R-074 to R-081, A-20, A-21; FORMATS section 8).
//!
//! One struct a state, all members at once:
//!
//! ```text
//! Distributing: NOTIFY, RENEW    until all hold the key, or the deadline
//! Stopping:     STOP             at a barrier only; until all have confirmed, or the deadline
//! Starting:     START            until all have confirmed, or the deadline
//! ```
//!
//! Whoever hears nothing of it moves by the key's own activation time (X-05). A change lives in
//! memory only: where the server ends in the middle, each STOP ends by its own deadline.

mod confirming;
mod course;
mod distributing;
mod policy;
mod report;
mod starting;
mod stopping;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use confirming::ConfirmationCounts;
use course::{Course, Members};
use distributing::Distributing;
pub use policy::{ChangeMode, GroupPolicy, Stragglers};
pub use report::{ChangeReport, ChangeState, ChangeTimes, Phase, Straggler};
use starting::{StandingStart, Starting};
use stopping::Stopping;

use crate::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, TerminalNumber, Tick, UnixSeconds,
};
use crate::rng::Random;
use crate::server::orders::{ACTIVATION_LEAD, CHANGE_LEAD};
use crate::server::{By, Change, GroupRecord, Item, Order, Server};

/// A change that begins once it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChangeBegun {
    pub group: GroupNumber,
    /// What the group sends with after it.
    pub epoch: KeyEpoch,
    pub generation: Generation,
    pub mode: ChangeMode,
    pub cause: ChangeCause,
    pub at: UnixSeconds,
}

/// Why the key changes, and so what has to be done for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeCause {
    /// Members renew it themselves; a newcomer has to fetch it.
    Renewal { newcomer: Option<TerminalNumber> },
    /// All have to fetch it.
    FreshEpoch,
    /// The same, without the stragglers of the change before. Nobody is left out by it again.
    LeftOut,
    /// The exclusion with that number: nothing waits.
    Exclusion(u32),
    /// A signing key was stolen: nothing waits.
    Theft,
}

/// Changes that are at work, and what came of the last one of each group.
#[derive(Debug, Default)]
pub(super) struct Changing {
    running: BTreeMap<GroupNumber, (Tick, State)>,
    /// The same by when they have to be looked at.
    due: BTreeSet<(Tick, GroupNumber)>,
    ended: BTreeMap<GroupNumber, ChangeReport>,
    starts: BTreeMap<GroupNumber, StandingStart>,
    /// Members that came after START and have not heard it.
    late: BTreeSet<(GroupNumber, TerminalNumber)>,
    /// Groups whose members a restart may have left stopped.
    halted: BTreeSet<GroupNumber>,
    counts: ConfirmationCounts,
}

#[derive(Debug)]
enum State {
    Distributing(Distributing),
    Stopping(Stopping),
    Starting(Starting),
}

impl State {
    fn course(&self) -> &Course {
        match self {
            Self::Distributing(state) => &state.course,
            Self::Stopping(state) => &state.course,
            Self::Starting(state) => &state.course,
        }
    }

    fn course_mut(&mut self) -> &mut Course {
        match self {
            Self::Distributing(state) => &mut state.course,
            Self::Stopping(state) => &mut state.course,
            Self::Starting(state) => &mut state.course,
        }
    }

    const fn phase(&self) -> Phase {
        match self {
            Self::Distributing(_) => Phase::Distributing,
            Self::Stopping(_) => Phase::Stopping,
            Self::Starting(_) => Phase::Starting,
        }
    }

    fn is_over(&self, now: Tick) -> bool {
        match self {
            Self::Distributing(state) => state.is_over(now),
            Self::Stopping(state) => state.is_over(now),
            Self::Starting(state) => state.is_over(now),
        }
    }

    fn due(&self) -> Tick {
        match self {
            Self::Distributing(state) => state.due(),
            Self::Stopping(state) => state.due(),
            Self::Starting(state) => state.due(),
        }
    }

    /// One of those that it was said to has answered.
    fn answered(&mut self, now: Tick) {
        let retry = match self {
            Self::Distributing(state) => &mut state.retry,
            Self::Stopping(state) => &mut state.retry,
            Self::Starting(state) => &mut state.retry,
        };
        retry.answered(now);
    }

    /// What was due was said.
    fn said(&mut self, now: Tick) {
        let (retry, first) = match self {
            Self::Distributing(state) => (&mut state.retry, None),
            Self::Stopping(state) => (&mut state.retry, Some(&mut state.course.times.first_stop)),
            Self::Starting(state) => (&mut state.retry, Some(&mut state.course.times.first_start)),
        };
        retry.said(now);
        if let Some(first) = first {
            first.get_or_insert(now);
        }
    }
}

impl Changing {
    fn put(&mut self, state: State, now: Tick) {
        let group = state.course().group;
        let due = if state.is_over(now) { now } else { state.due() };
        self.due.insert((due, group));
        self.running.insert(group, (due, state));
    }

    fn take(&mut self, group: GroupNumber) -> Option<State> {
        let (due, state) = self.running.remove(&group)?;
        self.due.remove(&(due, group));
        Some(state)
    }

    pub(super) fn is_at_work(&self, group: GroupNumber) -> bool {
        self.running.contains_key(&group)
    }

    fn state(&self, group: GroupNumber) -> Option<&State> {
        self.running.get(&group).map(|(_, state)| state)
    }

    /// When the next of them has to be looked at.
    pub(super) fn next_at(&self) -> Option<Tick> {
        let waits = self.late.is_empty() && self.halted.is_empty();
        let at_once = (!waits).then_some(Tick::default());
        let due = self.due.first().map(|&(due, _)| due);
        at_once.or(due)
    }
}

impl Server {
    /// How the change of the group's key goes, or how the last one went.
    #[must_use]
    pub fn change_of(&self, group: GroupNumber) -> Option<ChangeReport> {
        let running = self.changing.state(group);
        running.map_or_else(
            || self.changing.ended.get(&group).cloned(),
            |state| Some(state.course().report(ChangeState::At(state.phase()))),
        )
    }

    /// Puts back what [`Change::Begun`] and [`Change::Ended`] stored before a restart. What was at
    /// work then is over: to members that a barrier may have left stopped START is said.
    pub fn resume_changes(&mut self, reports: Vec<ChangeReport>) {
        for mut report in reports {
            if let ChangeState::At(_) = report.state {
                report.state = ChangeState::Interrupted;
                let waited = self.at.wall.since(report.begun_at) < WAIT_MAX.as_secs() as u32;
                if report.mode == ChangeMode::Barrier && waited {
                    self.changing.halted.insert(report.group);
                }
            }
            self.changing.ended.insert(report.group, report);
        }
    }

    /// The change that begins with a group's new key, where somebody can answer, or where a change
    /// is at work that this one ends.
    pub(super) fn begins(
        &self,
        group: &GroupRecord,
        (epoch, generation): (KeyEpoch, Generation),
        cause: ChangeCause,
        leaving: &[TerminalNumber],
    ) -> Option<Change> {
        let newcomer = match cause {
            ChangeCause::Renewal { newcomer } => newcomer,
            ChangeCause::FreshEpoch
            | ChangeCause::LeftOut
            | ChangeCause::Exclusion(_)
            | ChangeCause::Theft => None,
        };
        let number = group.number;
        let at_work = self.changing.state(number).is_some() || self.may_be_stopped(number);
        let begins = at_work
            || self.has_reachable(group, leaving)
            || newcomer.is_some_and(|it| self.is_reachable(it));
        begins.then_some(Change::Begun(ChangeBegun {
            group: number,
            epoch,
            generation,
            mode: group.policy.change,
            cause,
            at: self.at.wall,
        }))
    }

    /// Seconds until a fresh epoch is active: longer where somebody fetches it and confirms.
    pub(super) fn lead(&self, group: &GroupRecord, leaving: &[TerminalNumber]) -> u32 {
        if !self.has_reachable(group, leaving) {
            ACTIVATION_LEAD
        } else if leaving.is_empty() && group.policy.stragglers == Stragglers::Wait {
            WAIT_MAX.as_secs() as u32
        } else {
            // Nobody who leaves reads on for an hour because another does not answer.
            CHANGE_LEAD
        }
    }

    /// Whether members may wait for a START that they have not heard.
    fn may_be_stopped(&self, group: GroupNumber) -> bool {
        let start = self.changing.starts.get(&group);
        let until = start.and_then(|start| start.stopped_until);
        until.is_some_and(|until| self.at.wall < until) || self.changing.halted.contains(&group)
    }

    fn has_reachable(&self, group: &GroupRecord, leaving: &[TerminalNumber]) -> bool {
        let mut members = group.members.iter();
        members.any(|member| !leaving.contains(member) && self.is_reachable(*member))
    }

    fn is_reachable(&self, terminal: TerminalNumber) -> bool {
        self.peers.reachable(terminal, self.at.now).is_some()
    }

    /// Of two changes of one group the newer wins.
    pub(super) fn begin_change(&mut self, begun: ChangeBegun) {
        let (number, at) = (begun.group, self.at);
        let before = self.changing.take(number);
        let mut halted_before = self.may_be_stopped(number);
        self.changing.halted.remove(&number);
        if let Some(state) = before {
            let course = state.course();
            halted_before |= course.halted_before || course.times.first_stop.is_some();
            self.end_change(state.course().report(ChangeState::Superseded));
        }
        self.forget_words(number);
        self.changing.starts.remove(&number);
        self.changing.late.retain(|&(of, _)| of != number);
        let Some(group) = self.groups.get(&number) else {
            return;
        };
        let reachable = group.members.iter().copied();
        let reachable = reachable.filter(|&member| self.is_reachable(member));
        let stragglers = match begun.cause {
            ChangeCause::Renewal { .. } | ChangeCause::FreshEpoch => group.policy.stragglers,
            ChangeCause::LeftOut | ChangeCause::Exclusion(_) | ChangeCause::Theft => {
                Stragglers::Follow
            }
        };
        let course = Course {
            group: number,
            key: (begun.epoch, begun.generation),
            mode: begun.mode,
            stragglers,
            cause: begun.cause,
            begun_at: begun.at,
            activate_at: group.schedule.activate_at,
            halted_before,
            members: Members::of(reachable),
            times: ChangeTimes {
                begun: at.now,
                ..ChangeTimes::default()
            },
        };
        if course.is_fresh() && course.members.len() > 0 {
            self.carousel.announce(Item::Notify(number), at.now);
        }
        let state = State::Distributing(Distributing::begin(course, at));
        self.changing.put(state, at.now);
    }

    /// Says what is due, as long as it may be sent.
    pub(super) fn turn_changes(&mut self, rng: &mut dyn Random) {
        if self.signers_ended() {
            self.abandon_changes();
        }
        while self.may_send() {
            if let Some(group) = self.changing.halted.pop_first() {
                self.restart(group);
                continue;
            }
            if let Some((group, terminal)) = self.changing.late.pop_first() {
                self.tell(&[Item::Start(group)], &[terminal], rng);
                continue;
            }
            match self.changing.due.first() {
                Some(&(due, group)) if due <= self.at.now => self.turn_change(group, rng),
                Some(_) | None => return,
            }
        }
    }

    /// The online keys have ended: nothing of a change can be signed any more.
    fn abandon_changes(&mut self) {
        self.changing.late.clear();
        self.changing.halted.clear();
        while let Some(&(_, group)) = self.changing.due.first() {
            let Some(state) = self.changing.take(group) else {
                return;
            };
            self.forget_words(group);
            self.end_change(state.course().report(ChangeState::Interrupted));
        }
    }

    fn turn_change(&mut self, group: GroupNumber, rng: &mut dyn Random) {
        let now = self.at.now;
        let over = self.changing.state(group).is_some_and(|it| it.is_over(now));
        if over {
            if let Some(state) = self.changing.take(group) {
                self.leave_state(state);
            }
            return;
        }
        for (items, terminals) in self.words(group) {
            self.tell(&items, &terminals, rng);
        }
        if let Some(mut state) = self.changing.take(group) {
            state.said(now);
            self.changing.put(state, now);
        }
    }

    fn leave_state(&mut self, state: State) {
        let at = self.at;
        let group = state.course().group;
        let next = match state {
            State::Distributing(state) => {
                self.carousel.hush(Item::Notify(group));
                let transaction = self.take_transaction();
                state.over(transaction, at)
            }
            State::Stopping(state) => {
                self.carousel.hush(Item::Stop(group));
                state.over(at)
            }
            State::Starting(state) => {
                let course = state.over();
                self.finish(course);
                return;
            }
        };
        match &next {
            State::Distributing(_) => {}
            State::Stopping(_) => self.carousel.announce(Item::Stop(group), at.now),
            State::Starting(state) => {
                let standing = state.standing(at.now);
                self.stand_start(group, standing);
            }
        }
        self.changing.put(next, at.now);
    }

    /// A number as sequences have: it rises for ever, through restarts too.
    fn take_transaction(&mut self) -> SequenceNumber {
        let transaction = self.sequence;
        self.sequence = transaction.plus(1);
        transaction
    }

    fn finish(&mut self, course: Course) {
        let mut report = course.report(ChangeState::Finished);
        let silent: Vec<_> = report.silent().collect();
        for &terminal in &silent {
            self.peers.forget(terminal);
        }
        // Where nobody at all answered, it is the server that is cut off.
        let leaves_out = course.stragglers == Stragglers::LeaveOut && report.started > 0;
        if leaves_out && !silent.is_empty() {
            report.left_out = true;
            let order = Order::LeaveOut {
                group: report.group,
                terminals: silent,
            };
            self.waiting.push_back((None, order, by_itself()));
        }
        self.forget_frames_of_words(report.group);
        self.end_change(report);
    }

    fn end_change(&mut self, mut report: ChangeReport) {
        report.times.ended = Some(self.at.now);
        // What supersedes a change is stored in its place already.
        if report.state != ChangeState::Superseded {
            let note = Order::NoteChange(Box::new(report.clone()));
            self.waiting.push_front((None, note, by_itself()));
        }
        self.changing.ended.insert(report.group, report);
    }
}

fn by_itself() -> By {
    By {
        actor: "scheduler".to_owned(),
        reason: None,
        ticket: None,
    }
}

/// So long a group waits for stragglers at the most, and a STOP holds.
const WAIT_MAX: Duration = Duration::from_secs(3_600);
