//! Packets that wait: for the end of a STOP, for a session, for a way, for a mark. Bounded in octets
//! and in time; the oldest goes first (REQUIREMENTS R-080, W-21).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// Packets in the order of their coming, each with what it waits for. They are wiped when they go.
pub(super) struct Waiting<T> {
    queue: VecDeque<Waits<T>>,
    octets: usize,
    octets_max: usize,
    longest: Duration,
}

type Waits<T> = (Instant, T, Zeroizing<Vec<u8>>);

impl<T> Waiting<T> {
    pub(super) fn new(octets_max: usize, longest: Duration) -> Self {
        Self {
            queue: VecDeque::new(),
            octets: 0,
            octets_max,
            longest,
        }
    }

    /// Puts one in; what has to go for it is told.
    pub(super) fn push(
        &mut self,
        now: Instant,
        what: T,
        packet: impl Into<Zeroizing<Vec<u8>>>,
        gone: &mut impl FnMut(T),
    ) {
        let packet = packet.into();
        self.octets += packet.len() + OVERHEAD;
        self.queue.push_back((now, what, packet));
        while self.octets > self.octets_max {
            let Some(what) = self.pop() else {
                return;
            };
            gone(what);
        }
    }

    /// Those that have waited for too long.
    pub(super) fn expire(&mut self, now: Instant, gone: &mut impl FnMut(T)) {
        while let Some((since, ..)) = self.queue.front()
            && now.saturating_duration_since(*since) > self.longest
        {
            if let Some(what) = self.pop() {
                gone(what);
            }
        }
    }

    /// The octets that they take.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.octets
    }

    /// All of them, to be tried again; those that still wait are put in with their first time.
    pub(super) fn take(&mut self) -> VecDeque<Waits<T>> {
        self.octets = 0;
        std::mem::take(&mut self.queue)
    }

    fn pop(&mut self) -> Option<T> {
        let (_, what, packet) = self.queue.pop_front()?;
        self.octets -= packet.len() + OVERHEAD;
        Some(what)
    }
}

/// What an entry takes beside its octets.
const OVERHEAD: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_by_octets_and_by_time() {
        let (now, mut gone) = (Instant::now(), Vec::new());
        let mut waiting = Waiting::new(3 * (OVERHEAD + 100), Duration::from_secs(4));
        for number in 0..5 {
            let later = now + Duration::from_secs(number);
            waiting.push(later, number, vec![0; 100], &mut |it| gone.push(it));
        }
        assert_eq!(gone, [0, 1]);
        waiting.expire(now + Duration::from_secs(7), &mut |it| gone.push(it));
        assert_eq!(gone, [0, 1, 2]);
        assert_eq!(waiting.take().len(), 2);
        assert!(waiting.take().is_empty());
    }
}
