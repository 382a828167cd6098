//! A link that goes one way: it loses in bursts, doubles, delays and reorders, as its seed says.

use std::time::Duration;

use crate::seeded::Seeded;

/// How bad a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LinkQuality {
    /// Frames lost of 1000, in the mean; below 1000.
    pub loss: u16,
    /// Frames lost in a row, in the mean; at least 1.
    pub burst: u16,
    /// Frames of 1000 that arrive twice.
    pub duplicated: u16,
    /// What every frame takes.
    pub delay: Duration,
    /// Up to this much more for some frames: what makes them overtake each other.
    pub jitter: Duration,
}

impl LinkQuality {
    /// Everything arrives at once and in order.
    pub const PERFECT: Self = Self {
        loss: 0,
        burst: 1,
        duplicated: 0,
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
    };

    /// `loss` of 1000 lost in bursts of three, every tenth doubled, a satellite's delay, and jitter
    /// enough to reorder what the carousel sends within two seconds.
    #[must_use]
    pub const fn lossy(loss: u16) -> Self {
        Self {
            loss,
            burst: 3,
            duplicated: 100,
            delay: Duration::from_millis(270),
            jitter: Duration::from_secs(2),
        }
    }
}

/// One receiver's way from the sender.
#[derive(Debug)]
pub struct Link {
    quality: LinkQuality,
    rng: Seeded,
    losing: bool,
    cut: bool,
}

impl Link {
    #[must_use]
    pub fn new(quality: LinkQuality, rng: Seeded) -> Self {
        Self {
            quality,
            rng,
            losing: false,
            cut: false,
        }
    }

    /// Nothing passes while it is cut.
    pub fn cut(&mut self, cut: bool) {
        self.cut = cut;
    }

    /// After how long each copy of the next frame arrives; none where it is lost.
    pub fn pass(&mut self) -> Vec<Duration> {
        self.turn();
        if self.losing || self.cut {
            return Vec::new();
        }
        let copies = if self.rng.chance(self.quality.duplicated) {
            2
        } else {
            1
        };
        (0..copies).map(|_| self.delay()).collect()
    }

    /// Gilbert's model: a good and a losing state. The mean stay in the losing one is `burst`
    /// frames, and the share of time spent there is `loss`.
    fn turn(&mut self) {
        let LinkQuality { loss, burst, .. } = self.quality;
        let (loss, burst) = (u64::from(loss.min(999)), u64::from(burst.max(1)));
        let leaves = if self.losing {
            self.rng.below(burst) == 0
        } else {
            self.rng.below((1000 - loss) * burst) < loss
        };
        self.losing ^= leaves;
    }

    fn delay(&mut self) -> Duration {
        let jitter = u64::try_from(self.quality.jitter.as_nanos()).unwrap_or(u64::MAX);
        self.quality.delay + Duration::from_nanos(self.rng.below(jitter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lossy_link_loses_doubles_and_reorders_as_much_as_it_says() {
        let mut link = Link::new(LinkQuality::lossy(300), Seeded::new(1));
        let arrivals: Vec<_> = (0..100_000).map(|_| link.pass()).collect();
        let lost = arrivals.iter().filter(|copies| copies.is_empty()).count();
        let doubled = arrivals.iter().filter(|copies| copies.len() == 2).count();
        let bursts = arrivals
            .windows(2)
            .filter(|pair| !pair[0].is_empty() && pair[1].is_empty())
            .count();
        assert!((28_000..32_000).contains(&lost), "{lost} lost");
        assert!((6_500..7_500).contains(&doubled), "{doubled} doubled");
        assert!((2..=4).contains(&(lost / bursts)), "{bursts} bursts");
        let late = arrivals.iter().flatten().max();
        assert!(late > Some(&Duration::from_millis(2_200)), "{late:?}");
    }

    #[test]
    fn a_perfect_link_passes_everything_once_and_a_cut_one_nothing() {
        let mut link = Link::new(LinkQuality::PERFECT, Seeded::new(1));
        assert!((0..1000).all(|_| link.pass() == [Duration::ZERO]));
        link.cut(true);
        assert!((0..1000).all(|_| link.pass().is_empty()));
    }
}
