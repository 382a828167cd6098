//! Who steps when: the schedule of a key and the root's schedule of G.

use crate::ids::{Generation, KeyEpoch, UnixSeconds};

/// How often a key renews by itself: `step` generations every `period` seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cadence {
    step: u8,
    period: u32,
}

impl Cadence {
    /// `None` unless `1 <= step <= 64` and the pace is at most 64 generations for 600 seconds
    /// (FORMATS section 2.1), so that no signer can make terminals run through a chain.
    #[must_use]
    pub const fn new(step: u8, period: u32) -> Option<Self> {
        let in_bounds =
            step >= 1 && step <= 64 && period >= 1 && step as u64 * 600 <= 64 * period as u64;
        if in_bounds {
            Some(Self { step, period })
        } else {
            None
        }
    }

    #[must_use]
    pub const fn step(self) -> u8 {
        self.step
    }

    /// Seconds.
    #[must_use]
    pub const fn period(self) -> u32 {
        self.period
    }

    /// The policy "a generation for each session": the schedule makes the largest
    /// step, and sessions use up the generations between.
    #[must_use]
    pub const fn per_session(self) -> bool {
        self.step == PER_SESSION_STEP
    }
}

/// Generations of one period of a group that renews per session.
pub const PER_SESSION_STEP: u8 = 64;

/// The signed statement of where a key stands: `generation` from `activate_at`, then by the
/// cadence. generation(t) = gen + step · floor((t − activate-at) / period).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    pub generation: Generation,
    pub activate_at: UnixSeconds,
    /// `None`: renews only by command and by gap.
    pub cadence: Option<Cadence>,
}

impl Schedule {
    /// The generation at `t`; the stated one before `activate_at` and where there is no cadence.
    #[must_use]
    pub fn generation_at(&self, t: UnixSeconds) -> Generation {
        self.cadence.map_or(self.generation, |cadence| {
            let periods = t.since(self.activate_at) / cadence.period;
            self.generation
                .plus(periods.saturating_mul(u32::from(cadence.step)))
        })
    }

    /// When the generation after the one of `t` begins; `None` without a cadence.
    #[must_use]
    pub fn next_change(&self, t: UnixSeconds) -> Option<UnixSeconds> {
        self.cadence.map(|cadence| {
            if t < self.activate_at {
                self.activate_at.plus(cadence.period)
            } else {
                let periods = t.since(self.activate_at) / cadence.period + 1;
                self.activate_at
                    .plus(periods.saturating_mul(cadence.period))
            }
        })
    }

    /// When the first generation after `held` began, where that is at or before `t`; `None` also
    /// without a cadence.
    #[must_use]
    pub fn due_since(&self, held: Generation, t: UnixSeconds) -> Option<UnixSeconds> {
        let cadence = self.cadence?;
        let steps = held.steps_from(self.generation) / u32::from(cadence.step) + 1;
        let due = self.activate_at.plus(steps.saturating_mul(cadence.period));
        (self.generation_at(t) > held).then_some(due)
    }
}

/// The root's schedule of the rank-1 generation: [G0, t0, P0] in KEYSET (FORMATS section 3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FleetSchedule {
    pub first: Generation,
    pub from: UnixSeconds,
    /// Seconds, at least 1.
    pub period: u32,
}

impl FleetSchedule {
    /// G at `t` as scheduled.
    #[must_use]
    pub fn generation_at(&self, t: UnixSeconds) -> Generation {
        self.first.plus(t.since(self.from) / self.period.max(1))
    }

    /// When the scheduled G of `t` began.
    #[must_use]
    pub fn last_change(&self, t: UnixSeconds) -> UnixSeconds {
        let period = self.period.max(1);
        self.from.plus(t.since(self.from) / period * period)
    }

    /// When the scheduled G after the one of `t` begins.
    #[must_use]
    pub fn next_change(&self, t: UnixSeconds) -> UnixSeconds {
        if t < self.from {
            return self.from;
        }
        let period = self.period.max(1);
        self.from
            .plus((t.since(self.from) / period + 1).saturating_mul(period))
    }

    /// When the first scheduled G after `held` began, where that is at or before `t`.
    #[must_use]
    pub fn due_since(&self, held: Generation, t: UnixSeconds) -> Option<UnixSeconds> {
        // Below G0 the schedule itself is what is due: 0 ticks.
        let ticks = if held < self.first {
            0
        } else {
            held.next().steps_from(self.first)
        };
        let due = self.from.plus(ticks.saturating_mul(self.period.max(1)));
        (t >= due && self.generation_at(t) > held).then_some(due)
    }

    /// G_max = G0 + ceil((exp − t0) / P0) + 64: what a signer whose key ends at `exp` may claim.
    #[must_use]
    pub fn bound(&self, exp: UnixSeconds) -> Generation {
        self.first.plus(
            exp.since(self.from)
                .div_ceil(self.period.max(1))
                .saturating_add(64),
        )
    }
}

/// The highest generation of an epoch that a signer whose key ends at `expires` may claim:
/// 64 · (1 + ceil((exp − birth of the epoch) / 600 s)) (FORMATS section 2.1).
#[must_use]
pub fn generation_bound(epoch: KeyEpoch, expires: UnixSeconds) -> Generation {
    let spans = expires.since(epoch.birth()).div_ceil(600).saturating_add(1);
    Generation::ZERO.plus(spans.saturating_mul(64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u32) -> UnixSeconds {
        UnixSeconds::new(seconds)
    }

    /// REQUIREMENTS.
    #[test]
    fn schedule_counts_whole_periods_and_stands_still_without_cadence() {
        let generation = Generation::new(5).expect("small");
        let mut schedule = Schedule {
            generation,
            activate_at: at(1000),
            cadence: Cadence::new(2, 60),
        };
        assert_eq!(schedule.generation_at(at(0)).get(), 5);
        assert_eq!(schedule.generation_at(at(1059)).get(), 5);
        assert_eq!(schedule.generation_at(at(1060)).get(), 7);
        assert_eq!(schedule.generation_at(at(1000 + 600)).get(), 25);
        assert_eq!(schedule.next_change(at(1060)), Some(at(1120)));
        schedule.cadence = None;
        assert_eq!(schedule.generation_at(at(u32::MAX)).get(), 5);
        assert_eq!(schedule.next_change(at(7)), None);
    }

    #[test]
    fn what_is_due_is_due_since_the_first_generation_that_is_missing() {
        let generation = |n| Generation::new(n).expect("small");
        let mut schedule = Schedule {
            generation: generation(5),
            activate_at: at(1000),
            cadence: Cadence::new(2, 60),
        };
        assert_eq!(schedule.due_since(generation(5), at(1059)), None);
        assert_eq!(schedule.due_since(generation(5), at(1060)), Some(at(1060)));
        assert_eq!(schedule.due_since(generation(5), at(5000)), Some(at(1060)));
        assert_eq!(schedule.due_since(generation(9), at(1179)), None);
        assert_eq!(schedule.due_since(generation(9), at(1181)), Some(at(1180)));
        schedule.cadence = None;
        assert_eq!(schedule.due_since(generation(5), at(u32::MAX)), None);

        let fleet = FleetSchedule {
            first: generation(10),
            from: at(100),
            period: 60,
        };
        assert_eq!(fleet.due_since(generation(10), at(159)), None);
        assert_eq!(fleet.due_since(generation(10), at(300)), Some(at(160)));
        assert_eq!(fleet.due_since(generation(12), at(300)), Some(at(280)));
        assert_eq!(fleet.due_since(generation(3), at(300)), Some(at(100)));
        assert_eq!(fleet.due_since(generation(3), at(99)), None);
    }

    /// FORMATS section 2.1: step/period at most 64 for 600 s.
    #[test]
    fn cadence_faster_than_the_bound_is_refused() {
        assert!(Cadence::new(64, 600).is_some());
        assert!(Cadence::new(64, 599).is_none());
        assert!(Cadence::new(1, 9).is_none());
        assert!(Cadence::new(1, 10).is_some());
        assert!(Cadence::new(0, 600).is_none());
        assert!(Cadence::new(65, 6000).is_none());
    }

    #[test]
    fn fleet_bound_counts_started_periods_and_a_slack_of_64() {
        let schedule = FleetSchedule {
            first: Generation::new(10).expect("small"),
            from: at(100),
            period: 60,
        };
        assert_eq!(schedule.bound(at(100)).get(), 74);
        assert_eq!(schedule.bound(at(161)).get(), 76);
        assert_eq!(schedule.generation_at(at(220)).get(), 12);
        assert_eq!(schedule.next_change(at(220)), at(280));
    }
}
