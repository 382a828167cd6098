//! Power cuts at every step of key sharing, on both sides (REQUIREMENTS; DESIGN section
//! 11, invariants 1 and 2): the first contact, at which the wrap key takes in what no package holds,
//! and a fresh epoch after it.

use std::time::Duration;

use keyfall_protocol::ids::GroupNumber;
use keyfall_protocol::server::Order;
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::terminal::AskOutcome;
use keyfall_sim::{Config, StationId, StoreDelay, World};

use crate::asking::{ALL, NEAR, answering, ends, world_with};
use crate::nothing_was_wrong;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Victim {
    Server,
    Terminal,
    /// Both, the terminal first and the server so many happenings later.
    Both(u64),
}

struct Story {
    world: World,
    alice: StationId,
    bob: StationId,
    crew: GroupNumber,
}

impl Story {
    /// Two terminals that have never asked, and are about to.
    fn new(suite: SharingSuite, server_disk: Duration) -> Self {
        let mut world = world_with(
            6,
            &[suite],
            Config {
                server_disk: StoreDelay {
                    write: server_disk,
                    ..StoreDelay::default()
                },
                ..Config::default()
            },
        );
        let stations = answering(&mut world, 2, NEAR);
        let (alice, bob) = (stations[0], stations[1]);
        let crew = world.create_group("crew", &stations, None);
        Self {
            world,
            alice,
            bob,
            crew,
        }
    }

    /// Both become current and can ask again, whatever was before.
    fn ends_well(&mut self, at: &str) {
        // The longest pause between two sequences, and a sequence.
        self.world.run_for(Duration::from_secs(800));
        let group = self.crew;
        for round in 0..2 {
            self.world
                .order(Order::RekeyGroup { group })
                .expect("it may be");
            let told = [self.alice, self.bob].map(|id| self.world.station(id).told().len());
            for id in [self.alice, self.bob] {
                self.world.ask(id);
            }
            self.world.run_for(Duration::from_secs(20));
            for (id, told) in [self.alice, self.bob].into_iter().zip(told) {
                assert_eq!(self.world.lag(id), None, "{at}, round {round}");
                let ended = ends(&self.world, id, told);
                let all = ended.iter().all(|it| *it == AskOutcome::Current);
                assert!(all && !ended.is_empty(), "{at}, round {round}: {ended:?}");
            }
            assert!(self.world.split_groups().is_empty(), "{at}");
        }
        nothing_was_wrong(&self.world);
    }
}

/// False where the sequence is over before that step.
fn cut_at_step(suite: SharingSuite, server_disk: Duration, victim: Victim, step: u64) -> bool {
    let mut story = Story::new(suite, server_disk);
    let (began, end) = (story.world.happened(), story.world.now().plus(SEQUENCE));
    let until = |story: &mut Story, step: u64| {
        while story.world.happened() - began < step {
            if !story.world.step(end) {
                return false;
            }
        }
        true
    };
    if !until(&mut story, step) {
        return false;
    }
    match victim {
        Victim::Server => story.world.crash_server(),
        Victim::Terminal => story.world.crash(story.alice),
        Victim::Both(later) => {
            story.world.crash(story.alice);
            let alice = story.alice;
            let at = story.world.now().plus(Duration::from_millis(40));
            story.world.start_at(at, alice);
            until(&mut story, step + later);
            story.world.crash_server();
        }
    }
    story.world.run_for(Duration::from_secs(3));
    story.world.start(story.alice);
    story.world.start_server();
    story.ends_well(&format!("{suite:?} {victim:?} at step {step}"));
    true
}

fn at_every_step(suites: &[SharingSuite], server_disk: Duration, victims: &[Victim]) {
    let stride = if cfg!(debug_assertions) { 5 } else { 1 };
    for &suite in suites {
        for &victim in victims {
            let steps = (0..)
                .step_by(stride)
                .take_while(|&step| cut_at_step(suite, server_disk, victim, step))
                .count();
            assert!(steps * stride > 20, "{suite:?} {victim:?}: {steps} steps");
        }
    }
}

#[test]
fn without_a_power_cut_both_become_current() {
    for suite in ALL {
        let mut story = Story::new(suite, QUICK);
        story.world.run_for(SEQUENCE);
        for id in [story.alice, story.bob] {
            assert_eq!(ends(&story.world, id, 0), [AskOutcome::Current]);
        }
        story.ends_well("no power cut");
    }
}

#[test]
fn the_server_may_be_killed_at_any_step_of_a_sequence() {
    at_every_step(&ALL, QUICK, &[Victim::Server]);
}

#[test]
fn a_terminal_may_be_killed_at_any_step_of_a_sequence() {
    at_every_step(&ALL, QUICK, &[Victim::Terminal]);
}

/// The server's store takes a second: a power cut between the ACK and the mixed key's store, and
/// requests under a key that is not stored yet.
#[test]
fn mixed_keys_find_together_again_whatever_is_killed() {
    for server_disk in [QUICK, Duration::from_secs(1)] {
        let both = [1, 3, 6, 10, 15, 21, 28].map(Victim::Both);
        at_every_step(&[SharingSuite::Hpke], server_disk, &both);
        let each = [Victim::Server, Victim::Terminal];
        at_every_step(&[SharingSuite::Hpke], server_disk, &each);
    }
}

const QUICK: Duration = Duration::from_millis(5);
/// The first sequences of both are over by then.
const SEQUENCE: Duration = Duration::from_secs(4);
