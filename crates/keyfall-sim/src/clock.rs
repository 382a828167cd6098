//! Virtual time: it moves to what happens next, and no further than it is let.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use keyfall_protocol::ids::{Tick, UnixSeconds};

/// What is to come, in order of time; what comes at one instant comes in the order it was planned.
#[derive(Debug)]
pub struct Clock<H> {
    now: Tick,
    began: UnixSeconds,
    planned: u64,
    queue: BinaryHeap<Reverse<Planned<H>>>,
}

#[derive(Debug)]
struct Planned<H> {
    at: Tick,
    order: u64,
    what: H,
}

impl<H> Clock<H> {
    /// Tick 0 is `began` on everybody's wall.
    #[must_use]
    pub fn new(began: UnixSeconds) -> Self {
        Self {
            now: Tick::default(),
            began,
            planned: 0,
            queue: BinaryHeap::new(),
        }
    }

    #[must_use]
    pub fn now(&self) -> Tick {
        self.now
    }

    /// Wall time, whole seconds.
    #[must_use]
    pub fn wall(&self) -> UnixSeconds {
        self.wall_at(self.now)
    }

    /// Wall time at `at`.
    #[must_use]
    pub fn wall_at(&self, at: Tick) -> UnixSeconds {
        let seconds = at.since(Tick::default()).as_secs();
        self.began.plus(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// Plans `what` for `at`, or for now where that is past.
    pub fn plan(&mut self, at: Tick, what: H) {
        self.planned += 1;
        self.queue.push(Reverse(Planned {
            at: at.max(self.now),
            order: self.planned,
            what,
        }));
    }

    /// Plans `what` for a while from now.
    pub fn plan_after(&mut self, span: Duration, what: H) {
        self.plan(self.now.plus(span), what);
    }

    /// Moves to the next thing planned up to `until` and hands it out; moves to `until` where
    /// there is none.
    pub fn next(&mut self, until: Tick) -> Option<H> {
        let due = self
            .queue
            .peek()
            .is_some_and(|Reverse(planned)| planned.at <= until);
        if !due {
            self.now = self.now.max(until);
            return None;
        }
        self.queue.pop().map(|Reverse(planned)| {
            self.now = planned.at;
            planned.what
        })
    }
}

impl<H> PartialEq for Planned<H> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl<H> Eq for Planned<H> {}

impl<H> PartialOrd for Planned<H> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<H> Ord for Planned<H> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_the_order_of_time_and_then_of_planning() {
        let mut clock = Clock::new(UnixSeconds::new(100));
        clock.plan(Tick::from_secs(5), "late");
        clock.plan(Tick::from_secs(3), "first");
        clock.plan(Tick::from_secs(3), "second");
        assert_eq!(clock.next(Tick::from_secs(4)), Some("first"));
        assert_eq!(clock.next(Tick::from_secs(4)), Some("second"));
        assert_eq!(clock.next(Tick::from_secs(4)), None);
        assert_eq!(clock.wall(), UnixSeconds::new(104));
        clock.plan(Tick::from_secs(1), "overdue");
        assert_eq!(clock.next(Tick::from_secs(9)), Some("overdue"));
        assert_eq!(clock.next(Tick::from_secs(9)), Some("late"));
        assert_eq!(clock.now(), Tick::from_secs(5));
    }
}
