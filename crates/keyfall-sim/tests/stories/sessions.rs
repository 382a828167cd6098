//! Groups that renew for every call (REQUIREMENTS ).

use std::time::Duration;

use keyfall_protocol::ids::GroupNumber;
use keyfall_protocol::schedule::{Cadence, PER_SESSION_STEP};
use keyfall_sim::{CapturedPacket, Config, LinkQuality, Speaker, StationId, World};

use crate::{nothing_was_wrong, quickly_renewed};

struct Pair {
    world: World,
    alice: StationId,
    bob: StationId,
    group: GroupNumber,
}

const PERIOD: u32 = 3600;

impl Pair {
    fn new() -> Self {
        let config = Config {
            founding: quickly_renewed(),
            ..Config::default()
        };
        let mut world = World::new(49, config);
        let [alice, bob] = ["alice", "bob"].map(|name| world.enrol(name, LinkQuality::PERFECT));
        let cadence = Cadence::new(PER_SESSION_STEP, PERIOD);
        let group = world.create_group("calls", &[alice, bob], cadence);
        world.run_for(Duration::from_secs(30));
        Self {
            world,
            alice,
            bob,
            group,
        }
    }

    fn begin(&mut self, id: StationId) -> Speaker {
        let ssrc = self.world.packets().len() as u32;
        self.world.speaker(id, self.group, ssrc).expect("a member")
    }

    /// A word, which the other hears.
    fn say(&mut self, speaker: &mut Speaker) -> CapturedPacket {
        // Four trials a second are made for one source.
        self.world.run_for(Duration::from_millis(300));
        let packet = self.world.speak(speaker, b"speech").expect("it may");
        let other = if speaker.station == self.alice {
            self.bob
        } else {
            self.alice
        };
        let heard = self.world.hear(other, &packet);
        assert!(heard.is_ok(), "{heard:?}");
        packet
    }

    fn call(&mut self, id: StationId) -> u32 {
        let mut speaker = self.begin(id);
        self.say(&mut speaker).generation.get()
    }
}

/// two calls in a row use g and g + 1, whoever begins them, and the other side follows by
/// what it hears alone.
#[test]
fn two_calls_in_a_row_use_one_generation_each() {
    let mut pair = Pair::new();
    pair.world.cut_link(pair.bob, true);
    let (alice, bob) = (pair.alice, pair.bob);
    let calls = [alice, alice, bob, alice, bob, bob].map(|id| pair.call(id));
    let first = calls[0];
    assert_eq!(calls.map(|it| it - first), [0, 1, 2, 3, 4, 5]);
    assert!(first > 0, "the distributed generation is for no call");
    nothing_was_wrong(&pair.world);
}

/// both begin at once. Each steps by itself to the same generation or to the next; both are
/// heard, and so is what is still on its way when the other goes on.
#[test]
fn calls_that_begin_at_once_are_both_heard() {
    let mut pair = Pair::new();
    let (alice, bob) = (pair.alice, pair.bob);
    for _ in 0..10 {
        let mut one = pair.begin(alice);
        let mut two = pair.begin(bob);
        let first = pair.world.speak(&mut one, b"speech").expect("she may");
        let second = pair.world.speak(&mut two, b"speech").expect("he may");
        assert!(first.generation.get().abs_diff(second.generation.get()) <= 1);
        // Late, within the grace: while the other has gone on.
        pair.say(&mut one);
        pair.say(&mut two);
        assert!(pair.world.hear(bob, &first).is_ok());
        assert!(pair.world.hear(alice, &second).is_ok());
        pair.world.run_for(Duration::from_secs(40));
    }
    nothing_was_wrong(&pair.world);
}

/// At most 63 in a period; further calls share the last. The next period begins at its own
/// generation, and nobody is ahead of it.
#[test]
fn a_period_has_63_generations_for_calls() {
    let mut pair = Pair::new();
    let (alice, bob) = (pair.alice, pair.bob);
    let calls: Vec<_> = (0..70)
        .map(|n| pair.call(if n % 3 == 0 { bob } else { alice }))
        .collect();
    let begun = calls[0] - 1;
    let own: Vec<_> = (begun + 1..=begun + 63).collect();
    assert_eq!(calls[..63], own);
    assert!(calls[63..].iter().all(|&it| it == begun + 63));
    pair.world.run_for(Duration::from_secs(u64::from(PERIOD)));
    assert_eq!(pair.call(alice), begun + 64 + 1);
    assert_eq!(pair.call(bob), begun + 64 + 2);
    nothing_was_wrong(&pair.world);
}

/// The past of earlier calls is closed within the period, too: a thief of the terminal, without a
/// recorded distribution, opens the last call and none before it.
#[test]
fn a_thief_opens_the_last_call_only() {
    let mut pair = Pair::new();
    let alice = pair.alice;
    for _ in 0..10 {
        pair.call(alice);
        pair.world.run_for(Duration::from_secs(40));
    }
    let mut thief = pair.world.steal(pair.bob);
    let opened = thief.open(&[], pair.world.packets());
    assert_eq!(opened.packets, [9]);
    nothing_was_wrong(&pair.world);
}
