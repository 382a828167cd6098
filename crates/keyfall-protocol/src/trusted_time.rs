//! What time it is, as far as signed beacons tell (FORMATS section 10).

use crate::ids::{Tick, UnixSeconds};
use crate::stats::DropReason;

/// The terminal's only notion of wall time: the newest beacon plus powered-on time.
#[derive(Debug)]
pub(crate) struct TrustedTime {
    /// No beacon below this is accepted; stored.
    mark: UnixSeconds,
    /// The first beacon since power-on: forward jumps are measured from it.
    first: Option<(Tick, UnixSeconds)>,
    newest: Option<(Tick, UnixSeconds)>,
    /// Issued-at of the newest command that another class of key signed.
    corroborated: UnixSeconds,
}

impl TrustedTime {
    /// With the stored mark, or the enrolment package's time.
    #[must_use]
    pub(crate) fn new(mark: UnixSeconds) -> Self {
        Self {
            mark,
            first: None,
            newest: None,
            corroborated: UnixSeconds::new(0),
        }
    }

    /// The stored lower bound.
    #[must_use]
    pub(crate) fn mark(&self) -> UnixSeconds {
        self.mark
    }

    /// A command of the keys class was issued then, so it is not earlier. A beacon may reach as
    /// far: both keys say it, and a recording that was played at power-on holds the clock no
    /// longer than until the next distribution.
    pub(crate) fn corroborate(&mut self, issued_at: UnixSeconds) {
        self.corroborated = self.corroborated.max(issued_at);
    }

    /// The time at `now`; `None` until a beacon was heard since power-on.
    #[must_use]
    pub(crate) fn at(&self, now: Tick) -> Option<UnixSeconds> {
        self.newest
            .map(|(heard, seconds)| seconds.plus(whole_seconds(now, heard)))
    }

    /// When `due` will be; `None` until a beacon was heard.
    #[must_use]
    pub(crate) fn tick_of(&self, due: UnixSeconds) -> Option<Tick> {
        let (heard, seconds) = self.newest?;
        let ahead = u64::from(due.since(seconds));
        Some(heard.plus(std::time::Duration::from_secs(ahead)))
    }

    /// Takes a beacon whose signature, class and signer's validity were checked.
    ///
    /// # Errors
    /// [`DropReason::TimeBackwards`] below the mark, [`DropReason::TimeTooFar`] beyond what
    /// powered-on time allows.
    pub(crate) fn accept(&mut self, now: Tick, seconds: UnixSeconds) -> Result<(), DropReason> {
        if seconds < self.mark {
            return Err(DropReason::TimeBackwards);
        }
        let &mut (first_heard, first_seconds) = self.first.get_or_insert((now, seconds));
        let elapsed = whole_seconds(now, first_heard);
        let furthest = first_seconds
            .plus(elapsed)
            .plus(elapsed / 10_000 + 1)
            .plus(FORWARD_SLACK);
        if seconds > furthest {
            if seconds > self.corroborated.plus(FORWARD_SLACK) {
                return Err(DropReason::TimeTooFar);
            }
            self.first = Some((now, seconds));
        }
        // A delayed beacon must not turn back what the powered-on clock already counted.
        let known = self.at(now).unwrap_or(seconds);
        self.newest = Some((now, seconds.max(known)));
        self.mark = seconds.max(self.mark);
        Ok(())
    }
}

fn whole_seconds(now: Tick, earlier: Tick) -> u32 {
    u32::try_from(now.since(earlier).as_secs()).unwrap_or(u32::MAX)
}

/// Seconds that beacons may run ahead of powered-on time in all.
const FORWARD_SLACK: u32 = 600;

#[cfg(test)]
mod tests {
    use super::*;

    fn t(seconds: u32) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    /// FORMATS section 10, REQUIREMENTS W-10: never backwards, forward jumps bounded, MAXINT never
    /// passes while powered.
    #[test]
    fn beacons_move_time_forward_within_the_powered_on_bound() {
        let mut time = TrustedTime::new(t(1_000));
        assert_eq!(time.at(Tick::from_secs(1)), None);
        assert_eq!(
            time.accept(Tick::from_secs(1), t(999)),
            Err(DropReason::TimeBackwards)
        );
        assert_eq!(time.accept(Tick::from_secs(1), t(5_000)), Ok(()));
        assert_eq!(time.at(Tick::from_secs(11)), Some(t(5_010)));
        assert_eq!(
            time.accept(Tick::from_secs(11), t(u32::MAX)),
            Err(DropReason::TimeTooFar)
        );
        assert_eq!(
            time.accept(Tick::from_secs(11), t(5_612)),
            Err(DropReason::TimeTooFar)
        );
        assert_eq!(time.accept(Tick::from_secs(11), t(5_611)), Ok(()));
        assert_eq!(time.mark(), t(5_611));
    }

    /// One recording at power-on holds the clock back no longer than until the next command of
    /// the keys class; a beat key alone moves nothing further (W-10).
    #[test]
    fn a_recorded_first_beacon_is_overcome_by_a_second_class_of_key() {
        let mut time = TrustedTime::new(t(0));
        assert_eq!(time.accept(Tick::from_secs(0), t(1_000)), Ok(()));
        let genuine = (Tick::from_secs(60), t(8_260));
        assert_eq!(
            time.accept(genuine.0, genuine.1),
            Err(DropReason::TimeTooFar)
        );
        time.corroborate(t(8_000));
        assert_eq!(
            time.accept(genuine.0, t(u32::MAX)),
            Err(DropReason::TimeTooFar)
        );
        assert_eq!(time.accept(genuine.0, genuine.1), Ok(()));
        assert_eq!(time.accept(Tick::from_secs(70), t(8_270)), Ok(()));
    }

    #[test]
    fn delayed_beacon_does_not_turn_the_clock_back() {
        let mut time = TrustedTime::new(t(0));
        assert_eq!(time.accept(Tick::from_secs(0), t(100)), Ok(()));
        assert_eq!(time.accept(Tick::from_secs(50), t(120)), Ok(()));
        assert_eq!(time.at(Tick::from_secs(50)), Some(t(150)));
    }
}
