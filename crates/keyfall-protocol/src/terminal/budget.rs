//! What strangers may cost: token buckets for trial derivations (REQUIREMENTS W-04).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::Tick;

/// Who asks: a number the driver makes from source address and SSRC.
pub type Source = u64;

/// A bucket for each source and one over all.
#[derive(Debug)]
pub(super) struct Budget {
    per_source: u32,
    overall: Bucket,
    overall_rate: u32,
    sources: BTreeMap<Source, Bucket>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Millionths of a token, so that refilling by nanoseconds loses nothing that matters.
    micro_tokens: u64,
    filled: Tick,
}

impl Budget {
    /// `per_source` and `overall` openings a second; a second's worth may come at once.
    pub(super) fn new(per_source: u32, overall: u32) -> Self {
        Self {
            per_source,
            overall: Bucket::full(overall, Tick::default()),
            overall_rate: overall,
            sources: BTreeMap::new(),
        }
    }

    /// Takes one token of the source's and one of all; false where either is empty.
    pub(super) fn take(&mut self, now: Tick, source: Source) -> bool {
        self.overall.refill(self.overall_rate, now);
        if self.overall.micro_tokens < TOKEN {
            return false;
        }
        if self.sources.len() >= SOURCES_MAX && !self.sources.contains_key(&source) {
            // A full bucket forgets nothing that limits anybody.
            let rate = self.per_source;
            self.sources.retain(|_, bucket| {
                bucket.refill(rate, now);
                bucket.micro_tokens < u64::from(rate) * TOKEN
            });
            if self.sources.len() >= SOURCES_MAX {
                return false;
            }
        }
        let rate = self.per_source;
        let bucket = self
            .sources
            .entry(source)
            .or_insert_with(|| Bucket::full(rate, now));
        bucket.refill(rate, now);
        if bucket.micro_tokens < TOKEN {
            return false;
        }
        bucket.micro_tokens -= TOKEN;
        self.overall.micro_tokens -= TOKEN;
        true
    }
}

impl Bucket {
    fn full(rate: u32, now: Tick) -> Self {
        Self {
            micro_tokens: u64::from(rate) * TOKEN,
            filled: now,
        }
    }

    fn refill(&mut self, rate: u32, now: Tick) {
        let elapsed = now.since(self.filled).min(Duration::from_secs(1));
        let gained = u64::from(rate) * u64::try_from(elapsed.as_micros()).unwrap_or(0);
        if gained > 0 {
            self.micro_tokens = (self.micro_tokens + gained).min(u64::from(rate) * TOKEN);
            self.filled = now;
        }
    }
}

const TOKEN: u64 = 1_000_000;
/// Sources that are told apart at a time.
const SOURCES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// FORMATS section 3.2: 4 a second for each source, 64 over all.
    #[test]
    fn flood_from_one_or_many_sources_is_held_to_the_rates() {
        let mut budget = Budget::new(4, 64);
        let now = Tick::from_secs(10);
        assert_eq!((0..100).filter(|_| budget.take(now, 1)).count(), 4);
        assert_eq!(
            (0..1000)
                .filter(|&source| budget.take(now, 100 + source))
                .count(),
            60
        );
        let later = Tick::from_secs(11);
        assert_eq!((0..100).filter(|_| budget.take(later, 1)).count(), 4);
    }

    #[test]
    fn memory_for_sources_is_bounded() {
        let mut budget = Budget::new(64, 20_000);
        for source in 0..100_000u64 {
            budget.take(Tick::from_nanos(source * 1_000_000), source);
        }
        assert!(budget.sources.len() <= SOURCES_MAX);
    }
}
