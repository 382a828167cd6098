//! What time it is, as far as signed beacons tell (FORMATS section 10), and how long this terminal
//! has been powered on, as far as it has stored it (FORMATS section 9).

use std::time::Duration;

use crate::command::{KeySet, SignerClass};
use crate::ids::{KeyName, Tick, UnixSeconds};
use crate::stats::DropReason;

/// The terminal's only notion of wall time: the newest beacon plus powered-on time.
#[derive(Debug)]
pub(crate) struct TrustedTime {
    /// It is not earlier: the KEYSET's issued-at, or the package's; stored.
    floor: UnixSeconds,
    /// No beacon of this key below this is accepted; of the listed keys; stored.
    marks: Vec<(KeyName, UnixSeconds)>,
    /// The first beacon since power-on or since the newest KEYSET: forward jumps are measured from
    /// it.
    first: Option<(Tick, UnixSeconds)>,
    newest: Option<Beacon>,
    /// Issued-at of the newest command that another class of key signed.
    corroborated: UnixSeconds,
}

#[derive(Clone, Copy, Debug)]
struct Beacon {
    heard: Tick,
    seconds: UnixSeconds,
    by: KeyName,
}

impl TrustedTime {
    /// With what was stored, or the enrolment package's time and no marks.
    #[must_use]
    pub(crate) fn new(floor: UnixSeconds, marks: Vec<(KeyName, UnixSeconds)>) -> Self {
        Self {
            floor,
            marks,
            first: None,
            newest: None,
            corroborated: floor,
        }
    }

    /// The lower bound without the marks, and the marks: what is stored.
    #[must_use]
    pub(crate) fn stored(&self) -> (UnixSeconds, &[(KeyName, UnixSeconds)]) {
        (self.floor, &self.marks)
    }

    /// No beacon below this is accepted.
    #[must_use]
    pub(crate) fn mark(&self) -> UnixSeconds {
        let marks = self.marks.iter().map(|&(_, mark)| mark);
        marks.max().map_or(self.floor, |mark| mark.max(self.floor))
    }

    /// A command of the keys class was issued then, so it is not earlier. A beacon may reach as
    /// far: both keys say it, and a recording that was played at power-on holds the clock no
    /// longer than until the next distribution.
    pub(crate) fn corroborate(&mut self, issued_at: UnixSeconds) {
        self.corroborated = self.corroborated.max(issued_at);
    }

    /// The root has spoken: what keys that it lists no more have said of the time is void, and the
    /// bound on forward jumps begins anew.
    pub(crate) fn on_key_set(&mut self, now: Tick, key_set: &KeySet) {
        let beats = |name: KeyName| {
            let listed = key_set.key(name);
            listed.is_some_and(|key| key.class == SignerClass::Beat)
        };
        self.floor = self.floor.max(key_set.issued_at);
        self.marks.retain(|&(name, _)| beats(name));
        self.corroborated = self.floor;
        self.first = None;
        self.newest = self.newest.filter(|beacon| beats(beacon.by));
        if let Some(known) = self.at(now)
            && let Some(beacon) = &mut self.newest
        {
            (beacon.heard, beacon.seconds) = (now, known.max(key_set.issued_at));
        }
    }

    /// The time at `now`; `None` until a beacon was heard since power-on.
    #[must_use]
    pub(crate) fn at(&self, now: Tick) -> Option<UnixSeconds> {
        self.newest
            .map(|beacon| beacon.seconds.plus(whole_seconds(now, beacon.heard)))
    }

    /// It is at least this late by the root's word, or the package's. Only this may wipe: online
    /// keys, one or all of them, end leases at the most.
    #[must_use]
    pub(crate) fn confirmed(&self) -> UnixSeconds {
        self.floor
    }

    /// When `due` will be; `None` until a beacon was heard.
    #[must_use]
    pub(crate) fn tick_of(&self, due: UnixSeconds) -> Option<Tick> {
        let beacon = self.newest?;
        let ahead = u64::from(due.since(beacon.seconds));
        Some(beacon.heard.plus(Duration::from_secs(ahead)))
    }

    /// Takes a beacon whose signature, class and signer's validity were checked.
    ///
    /// # Errors
    /// [`DropReason::TimeBackwards`] below the mark, [`DropReason::TimeTooFar`] beyond what
    /// powered-on time allows.
    pub(crate) fn accept(
        &mut self,
        now: Tick,
        seconds: UnixSeconds,
        by: KeyName,
    ) -> Result<(), DropReason> {
        if seconds < self.mark() {
            return Err(DropReason::TimeBackwards);
        }
        // A clock that runs already bounds what comes after a KEYSET, too.
        let known = self.at(now);
        let begins = (now, known.unwrap_or(seconds));
        let &mut (first_heard, first_seconds) = self.first.get_or_insert(begins);
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
        self.newest = Some(Beacon {
            heard: now,
            seconds: known.map_or(seconds, |known| known.max(seconds)),
            by,
        });
        match self.marks.iter_mut().find(|(name, _)| *name == by) {
            Some((_, mark)) => *mark = seconds,
            None => self.marks.push((by, seconds)),
        }
        Ok(())
    }
}

/// Powered-on seconds, charged in advance: stored before they pass, so that no power cut gives
/// them back.
#[derive(Debug)]
pub(crate) struct PoweredOn {
    charged: u64,
    step_began: Tick,
}

impl PoweredOn {
    /// Switched on at `now`: a boot costs one step.
    #[must_use]
    pub(crate) fn boot(stored: u64, now: Tick) -> Self {
        Self {
            charged: stored.saturating_add(CHARGE),
            step_began: now,
        }
    }

    /// Seconds charged so far.
    #[must_use]
    pub(crate) fn charged(&self) -> u64 {
        self.charged
    }

    /// Seconds that have passed for certain: all but the step that has begun.
    #[must_use]
    pub(crate) fn passed(&self) -> u64 {
        self.charged.saturating_sub(CHARGE)
    }

    /// Charges what has begun by `now`; true where that has to be stored.
    pub(crate) fn charge(&mut self, now: Tick) -> bool {
        let steps = now.since(self.step_began).as_secs() / CHARGE;
        self.charged = self.charged.saturating_add(steps * CHARGE);
        self.step_began = self.step_began.plus(Duration::from_secs(steps * CHARGE));
        steps > 0
    }

    /// When the next step begins.
    #[must_use]
    pub(crate) fn next_charge(&self) -> Tick {
        self.step_began.plus(Duration::from_secs(CHARGE))
    }
}

fn whole_seconds(now: Tick, earlier: Tick) -> u32 {
    u32::try_from(now.since(earlier).as_secs()).unwrap_or(u32::MAX)
}

/// Seconds that beacons may run ahead of powered-on time in all, for each KEYSET.
const FORWARD_SLACK: u32 = 600;
/// Seconds of one step of powered-on time.
const CHARGE: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: KeyName = KeyName::new([1; 8]);

    fn t(seconds: u32) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    fn new(floor: u32) -> TrustedTime {
        TrustedTime::new(t(floor), Vec::new())
    }

    /// FORMATS section 10, REQUIREMENTS W-10: never backwards, forward jumps bounded, MAXINT never
    /// passes while powered.
    #[test]
    fn beacons_move_time_forward_within_the_powered_on_bound() {
        let mut time = new(1_000);
        assert_eq!(time.at(Tick::from_secs(1)), None);
        let mut accept = |at, seconds| time.accept(Tick::from_secs(at), t(seconds), BEAT);
        assert_eq!(accept(1, 999), Err(DropReason::TimeBackwards));
        assert_eq!(accept(1, 5_000), Ok(()));
        assert_eq!(accept(11, u32::MAX), Err(DropReason::TimeTooFar));
        assert_eq!(accept(11, 5_612), Err(DropReason::TimeTooFar));
        assert_eq!(accept(11, 5_611), Ok(()));
        assert_eq!(time.at(Tick::from_secs(11)), Some(t(5_611)));
        assert_eq!(time.mark(), t(5_611));
    }

    /// One recording at power-on holds the clock back no longer than until the next command of
    /// the keys class; a beat key alone moves nothing further (W-10).
    #[test]
    fn a_recorded_first_beacon_is_overcome_by_a_second_class_of_key() {
        let mut time = new(0);
        assert_eq!(time.accept(Tick::from_secs(0), t(1_000), BEAT), Ok(()));
        let genuine = (Tick::from_secs(60), t(8_260));
        let too_far = Err(DropReason::TimeTooFar);
        assert_eq!(time.accept(genuine.0, genuine.1, BEAT), too_far);
        time.corroborate(t(8_000));
        assert_eq!(time.accept(genuine.0, t(u32::MAX), BEAT), too_far);
        assert_eq!(time.accept(genuine.0, genuine.1, BEAT), Ok(()));
        assert_eq!(time.accept(Tick::from_secs(70), t(8_270), BEAT), Ok(()));
    }

    #[test]
    fn delayed_beacon_does_not_turn_the_clock_back() {
        let mut time = new(0);
        assert_eq!(time.accept(Tick::from_secs(0), t(100), BEAT), Ok(()));
        assert_eq!(time.accept(Tick::from_secs(50), t(120), BEAT), Ok(()));
        assert_eq!(time.at(Tick::from_secs(50)), Some(t(150)));
    }

    /// FORMATS section 9; the issue: with the online keys alone no terminal can be made to delete.
    #[test]
    fn online_keys_confirm_no_time() {
        let mut time = new(1_000);
        assert_eq!(time.accept(Tick::from_secs(0), t(90_000), BEAT), Ok(()));
        time.corroborate(t(95_000));
        assert_eq!(time.confirmed(), t(1_000));
    }

    /// FORMATS section 9: charged in advance in steps of 60 s; a boot costs one.
    #[test]
    fn powered_on_time_is_charged_in_advance() {
        let mut on = PoweredOn::boot(120, Tick::from_secs(5));
        assert_eq!(on.charged(), 180);
        assert!(!on.charge(Tick::from_secs(64)));
        assert!(on.charge(Tick::from_secs(65)));
        assert_eq!(on.charged(), 240);
        assert!(on.charge(Tick::from_secs(65 + 600)));
        assert_eq!(on.charged(), 840);
        assert_eq!(on.next_charge(), Tick::from_secs(725));
    }
}
