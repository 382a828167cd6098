//! What a change is about and who takes part, through all of its states.

use std::time::Duration;

use crate::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick, UnixSeconds};
use crate::server::changing::{
    ChangeCause, ChangeMode, ChangeReport, ChangeState, ChangeTimes, Phase, Straggler, Stragglers,
};

/// One change of one group's key.
#[derive(Debug)]
pub(super) struct Course {
    pub(super) group: GroupNumber,
    /// What the group sends with after it.
    pub(super) key: (KeyEpoch, Generation),
    pub(super) mode: ChangeMode,
    pub(super) stragglers: Stragglers,
    pub(super) cause: ChangeCause,
    pub(super) begun_at: UnixSeconds,
    /// From then on whoever holds the key sends with it, whatever it heard.
    pub(super) activate_at: UnixSeconds,
    /// Members may be stopped by the change that was at work before.
    pub(super) halted_before: bool,
    pub(super) members: Members,
    pub(super) times: ChangeTimes,
}

/// Who takes part: members that can be reached, by rising number.
#[derive(Debug, Default)]
pub(super) struct Members {
    all: Vec<Member>,
    /// How many have done it, by [`Phase`].
    done: [usize; Phase::ALL.len()],
}

/// One of them: what it has done, and what not in time, by [`Phase`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Member {
    terminal: TerminalNumber,
    done: [bool; Phase::ALL.len()],
    missed: [bool; Phase::ALL.len()],
}

impl Course {
    /// Whether the key shares nothing with the one before, so that it has to be fetched.
    pub(super) const fn is_fresh(&self) -> bool {
        match self.cause {
            ChangeCause::Renewal { .. } => false,
            ChangeCause::FreshEpoch
            | ChangeCause::LeftOut
            | ChangeCause::Exclusion(_)
            | ChangeCause::Theft => true,
        }
    }

    /// Whether nothing waits for anybody: the key is active at once.
    pub(super) const fn is_urgent(&self) -> bool {
        match self.cause {
            ChangeCause::Exclusion(_) | ChangeCause::Theft => true,
            ChangeCause::Renewal { .. } | ChangeCause::FreshEpoch | ChangeCause::LeftOut => false,
        }
    }

    /// Whether all stop before they start.
    pub(super) fn halts(&self) -> bool {
        self.mode == ChangeMode::Barrier && !self.is_urgent()
    }

    pub(super) fn report(&self, state: ChangeState) -> ChangeReport {
        let (epoch, generation) = self.key;
        let [holding, stopped, started] = self.members.done;
        ChangeReport {
            group: self.group,
            epoch,
            generation,
            mode: self.mode,
            begun_at: self.begun_at,
            state,
            reachable: self.members.len(),
            holding,
            stopped,
            started,
            stragglers: self.members.stragglers(),
            left_out: false,
            times: self.times,
        }
    }
}

impl Members {
    /// `reachable` rises.
    pub(super) fn of(reachable: impl Iterator<Item = TerminalNumber>) -> Self {
        Self {
            all: reachable.map(Member::new).collect(),
            done: [0; Phase::ALL.len()],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether everybody has done it.
    pub(super) fn all_done(&self, phase: Phase) -> bool {
        self.done[phase as usize] == self.all.len()
    }

    pub(super) fn has_done(&self, terminal: TerminalNumber, phase: Phase) -> bool {
        let place = self.place(terminal);
        place.is_ok_and(|place| self.all[place].done[phase as usize])
    }

    /// It did; who was not known to be reachable takes part from now on.
    pub(super) fn mark(&mut self, terminal: TerminalNumber, phase: Phase) {
        let place = self.join(terminal);
        let done = &mut self.all[place].done[phase as usize];
        if !*done {
            *done = true;
            self.done[phase as usize] += 1;
        }
    }

    /// It takes part.
    pub(super) fn join(&mut self, terminal: TerminalNumber) -> usize {
        self.place(terminal).unwrap_or_else(|place| {
            self.all.insert(place, Member::new(terminal));
            place
        })
    }

    /// Who has not done it yet.
    pub(super) fn lacking(&self, phase: Phase) -> Vec<TerminalNumber> {
        let lacking = self.all.iter().filter(|it| !it.done[phase as usize]);
        lacking.map(|it| it.terminal).collect()
    }

    /// The deadline: whoever has not done it by now has missed it.
    pub(super) fn miss(&mut self, phase: Phase) {
        for member in &mut self.all {
            member.missed[phase as usize] |= !member.done[phase as usize];
        }
    }

    fn place(&self, terminal: TerminalNumber) -> Result<usize, usize> {
        self.all.binary_search_by_key(&terminal, |it| it.terminal)
    }

    /// Silence to NOTIFY alone proves nothing: a KEYDIST may have brought the key.
    fn stragglers(&self) -> Vec<Straggler> {
        let straggler = |member: &Member| {
            let caught_up = member.done[Phase::Starting as usize];
            let missed = Phase::ALL
                .into_iter()
                .filter(|&phase| !(caught_up && phase == Phase::Distributing))
                .find(|&phase| member.missed[phase as usize])?;
            Some(Straggler {
                terminal: member.terminal,
                missed,
                caught_up,
            })
        };
        self.all.iter().filter_map(straggler).collect()
    }
}

impl Member {
    const fn new(terminal: TerminalNumber) -> Self {
        Self {
            terminal,
            done: [false; Phase::ALL.len()],
            missed: [false; Phase::ALL.len()],
        }
    }
}

/// When something is said again to those that have not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) at: Tick,
    /// Answers put it off until then at the most.
    latest: Tick,
    pause: Duration,
    /// What the answers of all take at the most.
    answers: Duration,
    /// From then on no answer puts it off: who heard nothing still has time to.
    in_time: Tick,
}

impl Retry {
    /// At once, then after `pause`, twice as long each time. Answers are waited for as long as `patience`.
    pub(super) fn new(now: Tick, pause: Duration, patience: Duration, members: usize) -> Self {
        let answers = members.saturating_mul(1_000) / ANSWERS_A_SECOND;
        Self {
            at: now,
            latest: now,
            pause,
            answers: Duration::from_millis(answers as u64),
            in_time: now.plus(patience / 2),
        }
    }

    /// It was said.
    pub(super) fn said(&mut self, now: Tick) {
        self.at = now.plus(self.pause);
        self.latest = self.at.max(self.at.plus(self.answers).min(self.in_time));
        self.pause = (self.pause * 2).min(RETRY_MAX);
    }

    /// One answered: while others do, nobody is asked again whose answer waits to be read.
    pub(super) fn answered(&mut self, now: Tick) {
        self.at = self.at.max(now.plus(QUIET).min(self.latest));
    }
}

/// The longest pause.
const RETRY_MAX: Duration = Duration::from_secs(8);
/// Without an answer for so long, no more of them wait.
const QUIET: Duration = Duration::from_millis(100);
/// As many as any server takes in a second.
const ANSWERS_A_SECOND: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(3);

    fn at(millis: u64) -> Tick {
        Tick::default().plus(Duration::from_millis(millis))
    }

    /// What was said to so many.
    fn said(members: usize) -> Retry {
        let mut retry = Retry::new(at(0), Duration::from_millis(250), PATIENCE, members);
        retry.said(at(0));
        retry
    }

    /// F-07: in a group of any size nobody is asked again while the answers of others come, nor waits for
    /// ever where a few trickle in.
    #[test]
    fn nobody_is_asked_again_while_answers_come() {
        let mut all = said(100_000);
        assert_eq!(all.at, at(250));
        for (answered, again) in [(1, 250), (149, 250), (200, 300), (900, 1_000)] {
            all.answered(at(answered));
            assert_eq!(all.at, at(again));
        }
        all.said(at(1_000));
        assert_eq!(all.at, at(1_500));
        let mut few = said(200);
        few.answered(at(240));
        assert_eq!(few.at, at(270), "the answers of 200 take 20 ms at the most");
    }

    /// F-07: STOP did not reach one of many, and answers of others come until the patience ends. It is said
    /// again early enough for an answer, however many they are; and where a server reads answers as fast
    /// as it can, hardly anybody answers twice for that.
    #[test]
    fn who_heard_nothing_is_asked_again_in_time() {
        for members in [1_000, 27_500, 100_000, 1_000_000] {
            let mut retry = said(members);
            let mut again = Vec::new();
            for millis in 0..PATIENCE.as_millis() as u64 {
                if at(millis) >= retry.at {
                    retry.said(at(millis));
                    again.push(millis);
                }
                retry.answered(at(millis));
            }
            let late = again.iter().filter(|&&it| it > 1_500);
            assert!(
                again[0] <= 1_500 && late.count() <= 1,
                "{members}: {again:?}"
            );
        }
        // Answers that wait to be read when it is said again, at so many thousand a second.
        let superfluous = |members: usize, a_milli: usize| {
            let mut retry = said(members);
            let (mut left, mut millis, mut superfluous) = (members, 50, 0);
            while left > 0 && at(millis) < at(0).plus(PATIENCE) {
                if at(millis) >= retry.at {
                    retry.said(at(millis));
                    superfluous += left;
                }
                left = left.saturating_sub(a_milli);
                retry.answered(at(millis));
                millis += 1;
            }
            superfluous
        };
        assert_eq!(superfluous(100_000, 100), 0);
        assert_eq!(superfluous(100_000, 70), 0);
        // Such a server does not read all of them before the patience ends.
        assert_eq!(superfluous(100_000, 30), 56_500 + 41_500);
    }
}
