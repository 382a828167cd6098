//! Last, the members send under the new key (REQUIREMENTS R-075).

use std::time::Duration;

use crate::command::Halt;
use crate::ids::{SequenceNumber, Tick, UnixSeconds};
use crate::server::changing::course::{Course, Retry};
use crate::server::changing::distributing::FIRST_PAUSE;
use crate::server::changing::{ChangeMode, Phase, Stragglers};
use crate::server::{CHANGE_LEAD, Moment};

/// START is said to all at once, to those that missed something, too.
#[derive(Debug)]
pub(super) struct Starting {
    pub(super) course: Course,
    pub(super) halt: Halt,
    pub(super) retry: Retry,
    stopped_until: Option<UnixSeconds>,
    deadline: Tick,
}

/// A START that is said to whoever missed it, as long as the key is not active by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct StandingStart {
    pub(super) halt: Halt,
    /// When the carousel says it first; `None`: not at all.
    pub(super) announced: Option<Tick>,
    /// Whoever has not heard it may be stopped until then.
    pub(super) stopped_until: Option<UnixSeconds>,
}

impl Starting {
    /// `stopped_until`: the deadline of the STOP before it.
    pub(super) fn begin(
        course: Course,
        transaction: SequenceNumber,
        stopped_until: Option<UnixSeconds>,
        at: Moment,
    ) -> Self {
        let (epoch, generation) = course.key;
        let deadline = course.activate_at.max(at.wall.plus(START_LIFE));
        let halt = Halt {
            group: course.group,
            transaction,
            epoch,
            generation,
            deadline: stopped_until.map_or(deadline, |until| until.max(deadline)),
        };
        Self {
            retry: Retry::new(at.now, FIRST_PAUSE, PATIENCE, course.members.len()),
            course,
            halt,
            stopped_until,
            deadline: at.now.plus(PATIENCE),
        }
    }

    pub(super) fn is_over(&self, now: Tick) -> bool {
        now >= self.deadline || self.course.members.all_done(Phase::Starting)
    }

    pub(super) fn due(&self) -> Tick {
        self.deadline.min(self.retry.at)
    }

    /// Members that only hear learn of it where they were stopped, or where the key becomes active
    /// much later. Where nobody stops they have the key's own time: who has heard no KEYDIST yet
    /// would be silent from START on.
    pub(super) fn standing(&self, now: Tick) -> StandingStart {
        let course = &self.course;
        let distributed = course.times.begun.plus(LEAD);
        let announced = match (course.mode, course.stragglers) {
            _ if course.is_urgent() || course.halted_before => Some(now),
            (ChangeMode::Barrier, _) => Some(now),
            (ChangeMode::Hitless, Stragglers::Wait) if course.is_fresh() => {
                Some(distributed.max(now))
            }
            (ChangeMode::Hitless, Stragglers::Wait | Stragglers::Follow | Stragglers::LeaveOut) => {
                None
            }
        };
        StandingStart {
            halt: self.halt,
            announced,
            stopped_until: self.stopped_until,
        }
    }

    /// The course when it ends.
    pub(super) fn over(mut self) -> Course {
        self.course.members.miss(Phase::Starting);
        self.course
    }
}

/// So long START is repeated to a member that does not confirm.
const PATIENCE: Duration = Duration::from_secs(5);
/// Seconds that a START counts at the least.
const START_LIFE: u32 = 60;
const LEAD: Duration = Duration::from_secs(CHANGE_LEAD as u64);
