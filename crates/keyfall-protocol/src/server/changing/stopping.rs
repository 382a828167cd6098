//! At a barrier, the members leave off sending (REQUIREMENTS ).

use std::time::Duration;

use crate::command::Halt;
use crate::ids::{SequenceNumber, Tick};
use crate::server::Moment;
use crate::server::changing::course::{Course, Retry};
use crate::server::changing::distributing::FIRST_PAUSE;
use crate::server::changing::starting::Starting;
use crate::server::changing::{Phase, State, Stragglers, WAIT_MAX};

/// STOP is said to all at once, until all have confirmed.
#[derive(Debug)]
pub(super) struct Stopping {
    pub(super) course: Course,
    pub(super) halt: Halt,
    pub(super) retry: Retry,
    deadline: Tick,
}

impl Stopping {
    pub(super) fn begin(course: Course, transaction: SequenceNumber, at: Moment) -> Self {
        let waited = at.now.since(course.times.begun);
        let (patience, hold) = match course.stragglers {
            Stragglers::Follow | Stragglers::LeaveOut => (PATIENCE, HOLD),
            Stragglers::Wait => {
                let left = WAIT_MAX.saturating_sub(waited).max(PATIENCE);
                (left, left.max(HOLD))
            }
        };
        let (epoch, generation) = course.key;
        let hold = u32::try_from(hold.as_secs()).unwrap_or(u32::MAX);
        let halt = Halt {
            group: course.group,
            transaction,
            epoch,
            generation,
            deadline: at.wall.plus(hold),
        };
        Self {
            retry: Retry::new(at.now, FIRST_PAUSE, patience, course.members.len()),
            course,
            halt,
            deadline: at.now.plus(patience),
        }
    }

    pub(super) fn is_over(&self, now: Tick) -> bool {
        now >= self.deadline || self.course.members.all_done(Phase::Stopping)
    }

    pub(super) fn due(&self) -> Tick {
        self.deadline.min(self.retry.at)
    }

    pub(super) fn over(mut self, at: Moment) -> State {
        self.course.members.miss(Phase::Stopping);
        let transaction = self.halt.transaction;
        let stopped_until = Some(self.halt.deadline);
        State::Starting(Starting::begin(self.course, transaction, stopped_until, at))
    }
}

/// So long the others wait for a member that does not confirm.
const PATIENCE: Duration = Duration::from_secs(3);
/// So long a STOP holds where no START is heard: longer than the server waits before it says START.
const HOLD: Duration = Duration::from_secs(10);
