//! How far the mark of a received session runs ahead of what was delivered (FORMATS section 7): by 64
//! packets or by two seconds at the present rate, whichever is more (KR-547).

use std::time::{Duration, Instant};

/// The marks of one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    /// Nothing above is delivered before a higher mark is durable.
    durable: u32,
    /// The same, as it was asked for.
    asked: u32,
    /// Packets a second, as of the last mark that was asked for.
    rate: u32,
    /// When the measurement began.
    since: Instant,
    /// The highest number when the measurement began.
    from: u32,
}

impl Ahead {
    /// `rate`: packets a second that are expected.
    pub(super) fn new(durable: u32, highest: u32, rate: u32, now: Instant) -> Self {
        Self {
            durable,
            asked: durable,
            rate,
            since: now,
            from: highest,
        }
    }

    /// Whether a packet with that number may be delivered.
    pub(super) fn covers(&self, sequence: u32) -> bool {
        sequence <= self.durable
    }

    /// The mark to ask for now that so high a number opened; `None`: there is enough, or one is on its
    /// way.
    pub(super) fn wanted(&mut self, highest: u32, now: Instant) -> Option<u32> {
        if self.asked > self.durable || highest <= self.asked.saturating_sub(self.reach() / 2) {
            return None;
        }
        // `None`: every number there is is covered.
        let next = self.asked.checked_add(1)?;
        let passed = now.saturating_duration_since(self.since);
        let packets = f64::from(highest.saturating_sub(self.from));
        // At most 2^32 packets in at least a second: it fits, and a cast saturates.
        self.rate = (packets / passed.max(SHORTEST).as_secs_f64()) as u32;
        if passed >= SHORTEST {
            (self.since, self.from) = (now, highest);
        }
        self.asked = highest.saturating_add(self.reach()).max(next);
        Some(self.asked)
    }

    pub(super) fn stored(&mut self, mark: u32) {
        self.durable = self.durable.max(mark);
        self.asked = self.asked.max(mark);
    }

    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    fn reach(&self) -> u32 {
        reach(self.rate)
    }
}

/// How far a mark stands before what came last, at so many packets a second.
pub(super) fn reach(rate: u32) -> u32 {
    LEAST.max(rate.saturating_mul(2))
}

pub(super) const LEAST: u32 = 64;
/// No rate is measured over less: packets that waited together are not one. A session that begins fast
/// doubles its reach with each mark.
const SHORTEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_session_stays_64_ahead_and_a_fast_one_two_seconds() {
        let start = Instant::now();
        let mut ahead = Ahead::new(LEAST, 0, 0, start);
        assert!(ahead.covers(64) && !ahead.covers(65));
        assert_eq!(ahead.wanted(32, start), None);
        let second = start + Duration::from_secs(10);
        assert_eq!(ahead.wanted(33, second), Some(33 + 64));
        // One at a time.
        assert_eq!(ahead.wanted(60, second), None);
        ahead.stored(97);
        // 100,000 packets in a second.
        let later = second + Duration::from_secs(1);
        assert_eq!(ahead.wanted(100_033, later), Some(100_033 + 200_000));
        ahead.stored(300_033);
        assert_eq!(ahead.wanted(190_000, later), None);
        let later = later + Duration::from_secs(1);
        assert_eq!(ahead.wanted(200_034, later), Some(200_034 + 200_002));
    }

    /// what waited for a session's first mark comes at once, and is no rate: after a restart the
    /// session would be deaf to everything below such a mark.
    #[test]
    fn packets_that_waited_together_do_not_raise_a_mark_beyond_reach() {
        let start = Instant::now();
        let mut ahead = Ahead::new(LEAST, 0, 0, start);
        let soon = start + Duration::from_millis(1);
        assert_eq!(ahead.wanted(33, soon), Some(33 + 66));
        ahead.stored(99);
        assert_eq!(ahead.wanted(60, soon), None);
        // It stays fast: twice as far each time, and soon as far as two seconds take.
        let (mut highest, mut marks) = (33, 0);
        for millisecond in 2..1_000 {
            highest += 100;
            let now = start + Duration::from_millis(millisecond);
            if let Some(mark) = ahead.wanted(highest, now) {
                assert!(mark <= highest * 3, "{mark} after {highest}");
                ahead.stored(mark);
                marks += 1;
            }
        }
        assert!(marks < 20, "{marks} marks");
        assert!(ahead.covers(highest));
    }

    #[test]
    fn a_session_at_the_last_number_asks_for_no_further_mark() {
        let now = Instant::now();
        let mut ahead = Ahead::new(u32::MAX - 10, u32::MAX - 70, 0, now);
        assert_eq!(ahead.wanted(u32::MAX - 20, now), Some(u32::MAX));
        ahead.stored(u32::MAX);
        assert_eq!(ahead.wanted(u32::MAX, now), None);
    }
}
