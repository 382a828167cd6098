//! First, the members get the key.

use std::time::Duration;

use crate::ids::{SequenceNumber, Tick};
use crate::server::Moment;
use crate::server::changing::course::{Course, Retry};
use crate::server::changing::starting::Starting;
use crate::server::changing::stopping::Stopping;
use crate::server::changing::{ChangeCause, ChangeMode, Phase, State, Stragglers, WAIT_MAX};

/// Those that lack a fresh key are asked to fetch it; those that can renew it are told so.
#[derive(Debug)]
pub(super) struct Distributing {
    pub(super) course: Course,
    pub(super) retry: Retry,
    deadline: Tick,
    /// Also where everybody holds it, not earlier.
    not_before: Tick,
}

impl Distributing {
    pub(super) fn begin(mut course: Course, at: Moment) -> Self {
        let now = at.now;
        let after = |span| now.plus(span);
        let ahead = course.activate_at.since(at.wall);
        let active = after(Duration::from_secs(ahead.into()));
        let renewal = match course.cause {
            ChangeCause::Renewal { newcomer } => {
                for terminal in course.members.lacking(Phase::Distributing) {
                    if Some(terminal) != newcomer {
                        course.members.mark(terminal, Phase::Distributing);
                    }
                }
                true
            }
            ChangeCause::FreshEpoch
            | ChangeCause::LeftOut
            | ChangeCause::Exclusion(_)
            | ChangeCause::Theft => false,
        };
        let by_the_clock = renewal && course.mode == ChangeMode::Hitless;
        let (not_before, deadline) = if course.is_urgent() {
            (now, now)
        } else if by_the_clock || course.members.len() == 0 {
            // Nobody says that it has renewed: who sends with it waits as for a broadcast
            // (INVARIANT 5).
            (active, active)
        } else {
            let patience = match (course.stragglers, course.mode) {
                (Stragglers::Wait, _) => WAIT_MAX,
                (Stragglers::Follow | Stragglers::LeaveOut, ChangeMode::Hitless) => PATIENCE,
                (Stragglers::Follow | Stragglers::LeaveOut, ChangeMode::Barrier) => {
                    PATIENCE_BEFORE_STOP
                }
            };
            (now, after(patience))
        };
        let pause = if renewal { RENEWAL_PAUSE } else { FIRST_PAUSE };
        Self {
            retry: Retry::new(now, pause, deadline.since(now), course.members.len()),
            course,
            deadline,
            not_before,
        }
    }

    pub(super) fn is_over(&self, now: Tick) -> bool {
        let all = self.course.members.all_done(Phase::Distributing);
        now >= self.deadline || (all && now >= self.not_before)
    }

    /// When it has to be looked at next.
    pub(super) fn due(&self) -> Tick {
        let over = if self.course.members.all_done(Phase::Distributing) {
            self.not_before
        } else {
            self.deadline
        };
        over.min(self.retry.at)
    }

    /// The next state, for which `transaction` was drawn.
    pub(super) fn over(mut self, transaction: SequenceNumber, at: Moment) -> State {
        self.course.members.miss(Phase::Distributing);
        if self.course.halts() && self.course.members.len() > 0 {
            State::Stopping(Stopping::begin(self.course, transaction, at))
        } else {
            State::Starting(Starting::begin(self.course, transaction, None, at))
        }
    }
}

/// Members that can be reached have so long to fetch a fresh key: it becomes active later than that
/// by [`CHANGE_LEAD`](crate::server::CHANGE_LEAD).
const PATIENCE: Duration = Duration::from_secs(6);
/// STOP and START come before it becomes active, too.
const PATIENCE_BEFORE_STOP: Duration = Duration::from_secs(4);
/// The first repetition, where an answer is waited for.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The first repetition of a RENEW, which nobody answers.
const RENEWAL_PAUSE: Duration = Duration::from_secs(1);
