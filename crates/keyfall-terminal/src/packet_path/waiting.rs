//! Packets that wait: for the end of a STOP, for a session, for a way, for a mark. Bounded in octets
//! and in time; the oldest goes first (REQUIREMENTS R-080, W-21).

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// Packets in the order of their coming, each with what it waits for. They are wiped when they go.
pub(super) struct Waiting<T> {
    queue: VecDeque<Waits<T>>,
    room: Room,
    longest: Duration,
}

/// Octets that may wait: in one queue, or in several that have them together.
#[derive(Clone)]
pub(super) struct Room {
    taken: Arc<AtomicUsize>,
    octets_max: usize,
}

type Waits<T> = (Instant, T, Zeroizing<Vec<u8>>);

impl Room {
    pub(super) fn of(octets_max: usize) -> Self {
        Self {
            taken: Arc::default(),
            octets_max,
        }
    }

    /// The octets that are taken.
    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    fn take(&self, packet: &[u8]) {
        self.taken
            .fetch_add(packet.len() + OVERHEAD, Ordering::Relaxed);
    }

    fn give_back(&self, packet: &[u8]) {
        self.taken
            .fetch_sub(packet.len() + OVERHEAD, Ordering::Relaxed);
    }
}

impl<T> Waiting<T> {
    pub(super) fn new(octets_max: usize, longest: Duration) -> Self {
        Self::within(Room::of(octets_max), longest)
    }

    pub(super) fn within(room: Room, longest: Duration) -> Self {
        Self {
            queue: VecDeque::new(),
            room,
            longest,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Puts one in; what has to go for it is told. Where others take the room, that is the packet
    /// itself.
    pub(super) fn push(
        &mut self,
        now: Instant,
        what: T,
        packet: impl Into<Zeroizing<Vec<u8>>>,
        gone: &mut impl FnMut(T),
    ) {
        let packet = packet.into();
        self.room.take(&packet);
        self.queue.push_back((now, what, packet));
        while self.room.taken() > self.room.octets_max {
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

    /// The octets that they take, and those in other queues of the same room.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        self.room.taken()
    }

    /// All of them, to be tried again; those that still wait are put in with their first time.
    pub(super) fn take(&mut self) -> VecDeque<Waits<T>> {
        let taken = std::mem::take(&mut self.queue);
        for (_, _, packet) in &taken {
            self.room.give_back(packet);
        }
        taken
    }

    fn pop(&mut self) -> Option<T> {
        let (_, what, packet) = self.queue.pop_front()?;
        self.room.give_back(&packet);
        Some(what)
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        drop(self.take());
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
    /// KR-589: what one queue takes another one that has the room with it has not, and gets back when the
    /// packets go, whichever way.
    #[test]
    fn queues_that_have_a_room_together_hold_no_more_than_one_would() {
        let (now, mut gone) = (Instant::now(), Vec::new());
        let room = Room::of(3 * (OVERHEAD + 100));
        let [mut one, mut other] =
            [(); 2].map(|()| Waiting::within(room.clone(), Duration::from_secs(4)));
        let mut put = |queue: &mut Waiting<_>, number| {
            queue.push(now, number, vec![0; 100], &mut |it| gone.push(it));
        };
        for number in 0..3 {
            put(&mut one, number);
        }
        put(&mut other, 3);
        assert_eq!((one.len(), other.len()), (3, 0), "its own packet goes");
        put(&mut one, 4);
        assert_eq!(one.take().len(), 3);
        for number in 5..9 {
            put(&mut other, number);
        }
        drop(other);
        put(&mut one, 9);
        assert_eq!((one.len(), room.taken()), (1, OVERHEAD + 100));
        assert_eq!(gone, [3, 0, 5]);
    }
}
