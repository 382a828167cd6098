//! What is repeated when (FORMATS section 11): new statements at 0, 1, 2, 4, 8 s, then at the pace
//! of their class, fairly shared, within the link's bit rate.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use crate::ids::{GroupNumber, TerminalNumber, Tick};

/// One standing statement. The frame is composed when its turn comes, so it is never stale. Of what
/// is announced at one moment the former goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum Item {
    Time,
    KeySet,
    /// EXCLUDE of the exclusion with that number: this part of its groups.
    Exclude(u32, u32),
    /// The newest DELETE or INIT of a terminal.
    Erase(TerminalNumber),
    /// The newest LOCK or UNLOCK of a terminal.
    Lock(TerminalNumber),
    /// RENEW of key id 0: G.
    Fleet,
    /// RENEW of one terminal's wrap key: its own offset.
    Device(TerminalNumber),
    /// RENEW of a group.
    Group(GroupNumber),
    /// KEYDIST of a group: this shard of its members.
    Dist(GroupNumber, u32),
    /// NOTIFY to a group: where its key stands.
    Notify(GroupNumber),
    /// NOTIFY to members of a group, by name: all come, and say what they hold. Not on the carousel.
    Muster(GroupNumber),
    /// NOTIFY to one terminal. Not on the carousel.
    Invite(TerminalNumber),
    /// STOP of a group.
    Stop(GroupNumber),
    /// START of a group.
    Start(GroupNumber),
    /// RECORD of a terminal.
    Record(TerminalNumber),
}

/// A class of items with one pace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    Time,
    KeySet,
    Exclude,
    /// DELETE, INIT, LOCK, UNLOCK.
    Erase,
    Renew,
    KeyDist,
    /// NOTIFY, STOP, START.
    Change,
    /// RECORD.
    Record,
}

impl Item {
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Time => Class::Time,
            Self::KeySet => Class::KeySet,
            Self::Exclude(..) => Class::Exclude,
            Self::Erase(_) | Self::Lock(_) => Class::Erase,
            Self::Fleet | Self::Device(_) | Self::Group(_) => Class::Renew,
            Self::Dist(..) => Class::KeyDist,
            Self::Notify(_)
            | Self::Muster(_)
            | Self::Invite(_)
            | Self::Stop(_)
            | Self::Start(_) => Class::Change,
            Self::Record(_) => Class::Record,
        }
    }

    /// Whether it was signed elsewhere, and so needs no online key.
    pub(super) const fn is_signed_elsewhere(self) -> bool {
        matches!(self, Self::KeySet | Self::Erase(_) | Self::Lock(_))
    }
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 8] = [
        Self::Time,
        Self::KeySet,
        Self::Exclude,
        Self::Erase,
        Self::Renew,
        Self::KeyDist,
        Self::Change,
        Self::Record,
    ];

    /// How often an item of this class comes round where the link allows.
    #[must_use]
    pub const fn pace(self) -> Duration {
        match self {
            Self::Time | Self::KeySet => Duration::from_secs(10),
            Self::Renew => Duration::from_secs(60),
            Self::Record => Duration::from_secs(300),
            Self::Exclude | Self::Erase | Self::KeyDist | Self::Change => Duration::from_secs(30),
        }
    }

    /// The word in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Time => "TIME",
            Self::KeySet => "KEYSET",
            Self::Exclude => "EXCLUDE",
            Self::Erase => "ERASE",
            Self::Renew => "RENEW",
            Self::KeyDist => "KEYDIST",
            Self::Change => "CHANGE",
            Self::Record => "RECORD",
        }
    }
}

/// The carousel of one carrier.
#[derive(Debug)]
pub(super) struct Carousel {
    /// New statements: due, how often sent so far, what.
    fresh: BinaryHeap<Reverse<(Tick, u8, Item)>>,
    rotations: [Rotation; Class::ALL.len()],
    bits_per_second: u64,
    /// When the link has sent what it was given.
    free_at: Tick,
    /// Octets that each lane had of the link: one lane a class, then the new statements.
    had: [u64; LANES],
    /// The lane of the last turn, which is charged for it.
    turn_of: usize,
}

#[derive(Debug, Default)]
struct Rotation {
    queue: VecDeque<(Tick, Item)>,
    /// Octets of the last turn of each item, summed and counted: for the cycle report.
    sent_octets: u64,
    sent: u64,
}

/// What an operator sees of one class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassReport {
    pub class: Class,
    pub items: usize,
    /// Octets of one turn, from the mean frame so far.
    pub octets: u64,
    /// The time one turn takes.
    pub cycle: Duration,
    /// Frames sent so far.
    pub sent: u64,
}

impl Carousel {
    pub(super) fn new(bits_per_second: u64) -> Self {
        Self {
            fresh: BinaryHeap::new(),
            rotations: Default::default(),
            bits_per_second: bits_per_second.max(1),
            free_at: Tick::default(),
            had: [0; LANES],
            turn_of: FRESH,
        }
    }

    /// Adds a standing item; its first turn is at `first`.
    pub(super) fn stand(&mut self, item: Item, first: Tick) {
        self.rotation(item.class()).queue.push_back((first, item));
    }

    /// Repeats a new statement quickly: at 0, 1, 2, 4, 8 s.
    pub(super) fn announce(&mut self, item: Item, now: Tick) {
        // Said anew: what was left of the last announcement would say the same.
        self.fresh
            .retain(|&Reverse((_, _, waiting))| waiting != item);
        self.fresh.push(Reverse((now, 0, item)));
    }

    /// What was announced is not said again.
    pub(super) fn hush(&mut self, item: Item) {
        self.fresh
            .retain(|&Reverse((_, _, waiting))| waiting != item);
    }

    /// Puts standing items before the others of their class.
    pub(super) fn restart(&mut self, now: Tick, again: impl Fn(Item) -> bool) {
        for rotation in &mut self.rotations {
            let turns = rotation.queue.drain(..);
            let (first, rest): (Vec<_>, Vec<_>) = turns.partition(|&(_, it)| again(it));
            let first = first.into_iter().map(|(at, it)| (at.min(now), it));
            rotation.queue = first.chain(rest).collect();
        }
    }

    /// Takes out every standing item that `gone` names.
    pub(super) fn retire(&mut self, gone: impl Fn(Item) -> bool) {
        for rotation in &mut self.rotations {
            rotation.queue.retain(|&(_, item)| !gone(item));
        }
        self.fresh.retain(|&Reverse((_, _, item))| !gone(item));
    }

    /// The item whose turn it is, or when the next turn comes.
    ///
    /// # Errors
    /// The tick to wait for; `None` where nothing stands.
    pub(super) fn next(&mut self, now: Tick) -> Result<Item, Option<Tick>> {
        match self.next_at() {
            Some(at) if at <= now => {}
            waits => return Err(waits),
        }
        // Start-time fair queueing: of the lanes that have something due, the one that had the
        // least of the link; a lane that had nothing to send gains no credit for it.
        let due = |at: Option<Tick>| at.is_some_and(|at| at <= now);
        let mut lanes = [false; LANES];
        for (lane, rotation) in lanes.iter_mut().zip(&self.rotations) {
            *lane = due(rotation.queue.front().map(|&(at, _)| at));
        }
        lanes[FRESH] = due(self.fresh.peek().map(|Reverse((at, ..))| *at));
        let chosen = (0..LANES)
            .filter(|&lane| lanes[lane])
            .min_by_key(|&lane| self.had[lane])
            .ok_or(None)?;
        for lane in (0..LANES).filter(|&lane| !lanes[lane]) {
            self.had[lane] = self.had[lane].max(self.had[chosen]);
        }
        self.turn_of = chosen;
        match Class::ALL.get(chosen) {
            Some(&class) => Ok(self.turn(class, now)),
            None => Ok(self.fresh_turn(now)),
        }
    }

    /// When something is due and the link is free.
    pub(super) fn next_at(&self) -> Option<Tick> {
        self.next_due().map(|at| at.max(self.free_at))
    }

    /// Charges the link for a frame of `item`.
    pub(super) fn sent(&mut self, item: Item, octets: usize, now: Tick) {
        let rotation = self.rotation(item.class());
        rotation.sent += 1;
        rotation.sent_octets += octets as u64;
        self.had[self.turn_of] += octets as u64 + LINK_OVERHEAD;
        let nanos = (octets as u64 + LINK_OVERHEAD) * 8 * 1_000_000_000 / self.bits_per_second;
        self.free_at = self.free_at.max(now).plus(Duration::from_nanos(nanos));
    }

    /// How long the link takes for so many frames.
    pub(super) fn link_time(&self, frames: u64, octets: u64) -> Duration {
        let octets = octets + frames * LINK_OVERHEAD;
        Duration::from_millis(octets * 8 * 1000 / self.bits_per_second)
    }

    pub(super) fn report(&self) -> Vec<ClassReport> {
        let turn_octets = |rotation: &Rotation| {
            let mean = rotation.sent_octets.checked_div(rotation.sent).unwrap_or(0);
            mean * rotation.queue.len() as u64
        };
        let all: u64 = self.rotations.iter().map(turn_octets).sum();
        let link_cycle = Duration::from_millis(all * 8 * 1000 / self.bits_per_second);
        self.rotations
            .iter()
            .zip(Class::ALL)
            .map(|(rotation, class)| ClassReport {
                class,
                items: rotation.queue.len(),
                octets: turn_octets(rotation),
                cycle: class.pace().max(link_cycle),
                sent: rotation.sent,
            })
            .collect()
    }

    fn next_due(&self) -> Option<Tick> {
        let fresh = self.fresh.peek().map(|Reverse((at, ..))| *at);
        self.rotations
            .iter()
            .filter_map(|rotation| rotation.queue.front().map(|&(at, _)| at))
            .chain(fresh)
            .min()
    }

    fn turn(&mut self, class: Class, now: Tick) -> Item {
        let rotation = self.rotation(class);
        let (_, item) = rotation
            .queue
            .pop_front()
            .expect("the caller saw its front");
        rotation.queue.push_back((now.plus(class.pace()), item));
        item
    }

    fn fresh_turn(&mut self, now: Tick) -> Item {
        let Reverse((_, times, item)) = self.fresh.pop().expect("the caller saw its top");
        if let Some(&wait) = FRESH_REPEATS.get(usize::from(times)) {
            self.fresh.push(Reverse((
                now.plus(Duration::from_secs(wait)),
                times + 1,
                item,
            )));
        }
        item
    }

    fn rotation(&mut self, class: Class) -> &mut Rotation {
        &mut self.rotations[class as usize]
    }
}

/// Gaps between the first five sendings: 0, 1, 2, 4, 8 s.
const FRESH_REPEATS: [u64; 4] = [1, 1, 2, 4];
/// One lane for each class, and one for the new statements.
const LANES: usize = Class::ALL.len() + 1;
const FRESH: usize = Class::ALL.len();
/// IPv4 and UDP headers.
const LINK_OVERHEAD: u64 = 28;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(carousel: &mut Carousel, until: Tick, octets: usize) -> Vec<(u64, Item)> {
        let mut sent = Vec::new();
        let mut now = Tick::default();
        loop {
            match carousel.next(now) {
                Ok(item) => {
                    carousel.sent(item, octets, now);
                    sent.push((now.as_nanos() / 1_000_000, item));
                }
                Err(Some(at)) if at <= until => now = at,
                Err(_) => return sent,
            }
        }
    }

    /// FORMATS section 11: new command at 0, 1, 2, 4, 8 s, then the pace of its class.
    #[test]
    fn new_statement_is_repeated_quickly_and_then_at_its_pace() {
        let mut carousel = Carousel::new(10_000_000);
        let group = Item::Group(GroupNumber::new(1).expect("not 0"));
        carousel.announce(group, Tick::default());
        carousel.stand(group, Tick::from_secs(60));
        let times: Vec<u64> = run(&mut carousel, Tick::from_secs(130), 170)
            .iter()
            .map(|&(ms, _)| ms)
            .collect();
        assert_eq!(times, [0, 1000, 2000, 4000, 8000, 60_000, 120_000]);
    }

    /// A large cover neither starves TIME nor passes the link's bit rate.
    #[test]
    fn many_shards_share_the_link_fairly_with_time() {
        let mut carousel = Carousel::new(100_000);
        let group = GroupNumber::new(1).expect("not 0");
        carousel.stand(Item::Time, Tick::default());
        (0..2000).for_each(|shard| carousel.stand(Item::Dist(group, shard), Tick::default()));
        let sent = run(&mut carousel, Tick::from_secs(600), 1172);
        let bits = sent.len() as u64 * 1200 * 8;
        assert!(bits <= 100_000 * 601, "{bits} bits in 600 s");
        let times = sent.iter().filter(|(_, item)| *item == Item::Time).count();
        assert!((55..=61).contains(&times), "{times} TIME in 600 s");
        let shards = sent
            .iter()
            .filter(|(_, item)| item.class() == Class::KeyDist)
            .count();
        assert!(shards > 5500, "{shards} shards");
    }
}
