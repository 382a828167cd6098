//! Packets that wait: for the end of a STOP, for a session, for a way, for a mark. Bounded in octets
//! and in time; of a queue the oldest goes first (REQUIREMENTS R-080, W-21). Several queues may have one
//! room together: none takes more than half of it, and where it is full a queue gives way to the others with
//! its own packets.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

/// Packets in the order of their coming, each with what it waits for. They are wiped when they go.
pub(super) struct Waiting<T> {
    queue: VecDeque<Waits<T>>,
    room: Room,
    /// Octets of the room that this queue takes, and may take.
    taken: usize,
    taken_max: usize,
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
}

impl<T> Waiting<T> {
    pub(super) fn new(octets_max: usize, longest: Duration) -> Self {
        Self::part_of(Room::of(octets_max), octets_max, longest)
    }

    /// In a room that others have, too.
    pub(super) fn within(room: Room, longest: Duration) -> Self {
        let half = room.octets_max / 2;
        Self::part_of(room, half, longest)
    }

    fn part_of(room: Room, taken_max: usize, longest: Duration) -> Self {
        Self {
            queue: VecDeque::new(),
            room,
            taken: 0,
            taken_max,
            longest,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Puts one in; what has to go for it is told. Where others take the room, that may be the packet
    /// itself.
    pub(super) fn push(
        &mut self,
        now: Instant,
        what: T,
        packet: impl Into<Zeroizing<Vec<u8>>>,
        gone: &mut impl FnMut(T),
    ) {
        let packet = packet.into();
        let octets = octets_of(&packet);
        self.taken += octets;
        self.room.taken.fetch_add(octets, Ordering::Relaxed);
        self.queue.push_back((now, what, packet));
        while self.taken > self.taken_max || self.room.taken() > self.room.octets_max {
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
        self.give_back(self.taken);
        std::mem::take(&mut self.queue)
    }

    /// Those that need not wait any more, in their order. The others stay where they are.
    pub(super) fn release(
        &mut self,
        mut is_ready: impl FnMut(T) -> bool,
    ) -> Vec<(T, Zeroizing<Vec<u8>>)>
    where
        T: Copy,
    {
        let mut ready = Vec::new();
        self.queue.retain_mut(|(_, what, packet)| {
            let is_ready = is_ready(*what);
            if is_ready {
                ready.push((*what, std::mem::take(packet)));
            }
            !is_ready
        });
        for (_, packet) in &ready {
            self.give_back(octets_of(packet));
        }
        ready
    }

    fn pop(&mut self) -> Option<T> {
        let (_, what, packet) = self.queue.pop_front()?;
        self.give_back(octets_of(&packet));
        Some(what)
    }

    fn give_back(&mut self, octets: usize) {
        self.taken -= octets;
        self.room.taken.fetch_sub(octets, Ordering::Relaxed);
    }
}

impl<T> Drop for Waiting<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

fn octets_of(packet: &[u8]) -> usize {
    packet.len() + OVERHEAD
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

    /// What need not wait any more comes out, and the rest keeps its place and its time.
    #[test]
    fn the_others_stay_where_they_are() {
        let (now, mut gone) = (Instant::now(), Vec::new());
        let mut waiting = Waiting::new(10 * (OVERHEAD + 100), Duration::from_secs(4));
        for number in 0..6 {
            let later = now + Duration::from_secs(number);
            waiting.push(later, number, vec![0; 100], &mut |it| gone.push(it));
        }
        let ready = waiting.release(|number| number % 2 == 1);
        assert!(ready.iter().map(|(number, _)| *number).eq([1, 3, 5]));
        assert!(ready.iter().all(|(_, packet)| packet.len() == 100));
        assert_eq!(waiting.octets(), 3 * (OVERHEAD + 100));
        waiting.expire(now + Duration::from_secs(7), &mut |it| gone.push(it));
        assert_eq!(gone, [0, 2]);
        assert_eq!(waiting.take().len(), 1);
        assert_eq!(waiting.octets(), 0);
    }

    /// KR-589: what one queue takes another one that has the room with it has not, and gets back when the
    /// packets go, whichever way. One alone takes no more than half, whoever sends it what can wait.
    #[test]
    fn queues_that_have_a_room_together_hold_no_more_than_one_would() {
        let (now, mut gone) = (Instant::now(), Vec::new());
        let room = Room::of(6 * (OVERHEAD + 100));
        let [mut one, mut other, mut third] =
            [(); 3].map(|()| Waiting::within(room.clone(), Duration::from_secs(4)));
        let mut put = |queue: &mut Waiting<_>, number| {
            queue.push(now, number, vec![0; 100], &mut |it| gone.push(it));
        };
        for number in 0..4 {
            put(&mut one, number);
        }
        for number in 4..7 {
            put(&mut other, number);
        }
        assert_eq!((one.len(), other.len()), (3, 3), "half each");
        put(&mut third, 7);
        assert_eq!(third.len(), 0, "its own packet goes");
        assert_eq!(one.release(|number| number == 2).len(), 1);
        put(&mut third, 8);
        assert_eq!(one.take().len(), 2);
        put(&mut third, 9);
        drop(other);
        assert_eq!((third.len(), room.taken()), (2, 2 * (OVERHEAD + 100)));
        assert_eq!(gone, [0, 7]);
    }
}
