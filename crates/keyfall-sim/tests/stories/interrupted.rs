//! Power cuts at every step of the orders that matter after a theft (DESIGN section 11, invariants 1,
//! 2, 4, 6 and 8; REQUIREMENTS ): an exclusion, a deletion, new online keys, a lock and
//! its end.

use std::time::Duration;

use keyfall_protocol::command::OrderKind;
use keyfall_protocol::ids::{GroupNumber, Tick};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{KeySetDraft, OrderId};
use keyfall_protocol::terminal::TerminalState;
use keyfall_sim::{Config, Errand, LinkQuality, StationId, Thief, World};

use crate::{nothing_was_wrong, quickly_renewed};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Victim {
    Server,
    /// Stays in the group.
    Alice,
    /// Is excluded.
    Bob,
    /// Is to delete its keys.
    Dave,
    /// Is locked and unlocked.
    Erin,
}

struct Story {
    world: World,
    alice: StationId,
    carol: StationId,
    bob: StationId,
    dave: StationId,
    erin: StationId,
    crew: GroupNumber,
    /// What is ordered, and what came of it; in this order.
    errands: Vec<(Errand, OrderId)>,
    bobs: Thief,
}

impl Story {
    /// Five terminals in one group; the orders come within two seconds. Sending goes on through them.
    fn new() -> Self {
        let config = Config {
            founding: quickly_renewed(),
            ..Config::default()
        };
        let mut world = World::new(66, config);
        let names = ["alice", "carol", "bob", "dave", "erin"];
        let [alice, carol, bob, dave, erin] =
            names.map(|name| world.enrol(name, LinkQuality::PERFECT));
        let members = [alice, carol, bob, dave, erin];
        let crew = world.create_group("crew", &members, Cadence::new(1, 600));
        world.set_passphrase(erin);
        world.run_for(Duration::from_secs(15));
        let bobs = world.steal(bob);
        let stolen = world
            .server()
            .expect("it runs")
            .fleet()
            .beat
            .public()
            .name();
        let erase = |station, kind| Errand::Erase {
            station,
            kind,
            receipt_wanted: false,
        };
        let exclude = keyfall_protocol::server::Order::Exclude {
            terminals: vec![world.station(bob).number],
        };
        let errands = [
            (0, Errand::Order(exclude)),
            (400, erase(erin, OrderKind::Lock)),
            (401, erase(dave, OrderKind::Delete)),
            (900, Errand::SignKeys(Box::default())),
            (
                1200,
                Errand::SignKeys(Box::new(KeySetDraft {
                    stolen: vec![stolen],
                    ..KeySetDraft::default()
                })),
            ),
            (1700, erase(erin, OrderKind::Unlock)),
        ];
        let from = world.now();
        let errands = errands
            .into_iter()
            .map(|(millis, errand)| {
                let at = from.plus(Duration::from_millis(millis));
                (errand.clone(), world.order_at(at, errand))
            })
            .collect();
        Self {
            world,
            alice,
            carol,
            bob,
            dave,
            erin,
            crew,
            errands,
            bobs,
        }
    }

    fn cut_power(&mut self, victim: Victim) {
        match self.station(victim) {
            Some(id) => self.world.crash(id),
            None => self.world.crash_server(),
        }
    }

    fn restore_power(&mut self, victim: Victim) {
        match self.station(victim) {
            Some(id) => self.world.start(id),
            None => self.world.start_server(),
        }
    }

    fn station(&self, victim: Victim) -> Option<StationId> {
        match victim {
            Victim::Server => None,
            Victim::Alice => Some(self.alice),
            Victim::Bob => Some(self.bob),
            Victim::Dave => Some(self.dave),
            Victim::Erin => Some(self.erin),
        }
    }

    /// The operator gives again what got no answer: whether it was carried out or not, this does no
    /// harm, and what was reported as done still is.
    fn operator_insists(&mut self) {
        self.world.run_for(Duration::from_secs(1));
        for (errand, id) in std::mem::take(&mut self.errands) {
            if self.world.outcome(id).is_none() {
                // "Excluded for good" and "no such key" are answers, too.
                let _refused = self.world.order(errand).is_err();
                self.world.run_for(Duration::from_secs(1));
            }
        }
    }

    /// The end is that of a run without power cuts.
    fn ends_well(&mut self, at: &str) {
        let Self {
            alice,
            carol,
            bob,
            dave,
            erin,
            ..
        } = *self;
        assert!(self.world.station(dave).is_erased(), "{at}: dave");
        assert!(self.world.station(dave).synced().is_empty(), "{at}: dave");
        let machine = self.world.station(erin).terminal();
        let state = machine.map(keyfall_protocol::terminal::Terminal::state);
        assert_eq!(state, Some(TerminalState::Locked), "{at}: erin");
        self.world.unlock(erin);
        self.world.run_for(Duration::from_secs(35));
        let excluded = self.world.station(bob).number;
        for id in [alice, carol, erin] {
            assert_eq!(self.world.lag(id), None, "{at}");
            let machine = self.world.station(id).terminal().expect("it is on");
            assert!(machine.is_excluded(excluded), "{at}: {id:?}");
            assert!(machine.send_key(self.crew).is_some(), "{at}: {id:?}");
        }
        let mut speaker = self.world.speaker(alice, self.crew, 1).expect("a member");
        let packet = self.world.speak(&mut speaker, b"speech").expect("she may");
        for id in [carol, erin] {
            let heard = self.world.hear(id, &packet);
            assert!(heard.is_ok(), "{at}: {id:?} {heard:?}");
        }
        self.bobs.join(&self.world.steal(bob));
        let opened = self.bobs.open(self.world.frames(), &[packet]);
        assert!(opened.packets.is_empty(), "{at}: the excluded one reads on");
        nothing_was_wrong(&self.world);
    }
}

/// False where the story is over before that step.
fn cut_at_step(victim: Victim, step: u64) -> bool {
    let mut story = Story::new();
    let (began, end) = (story.world.happened(), story.world.now().plus(ORDERS));
    while story.world.happened() - began < step {
        if !story.world.step(end) {
            return false;
        }
    }
    story.cut_power(victim);
    story.world.run_for(Duration::from_secs(3));
    story.restore_power(victim);
    story.world.run_until(end.plus(Duration::from_secs(5)));
    story.operator_insists();
    story.world.run_for(Duration::from_secs(65));
    story.ends_well(&format!("{victim:?} at step {step}"));
    true
}

fn at_every_step(victim: Victim) {
    let stride = if cfg!(debug_assertions) { 23 } else { 1 };
    let steps = (0..)
        .step_by(stride)
        .take_while(|&step| cut_at_step(victim, step))
        .count();
    assert!(steps * stride > 200, "{steps} steps");
}

#[test]
fn without_a_power_cut_the_orders_end_well() {
    let mut story = Story::new();
    story.world.run_for(ORDERS);
    assert!(story.world.now() > Tick::default());
    for (errand, id) in &story.errands {
        let outcome = story.world.outcome(*id);
        assert!(matches!(outcome, Some(Ok(_))), "{errand:?}: {outcome:?}");
    }
    story.world.run_for(Duration::from_secs(65));
    story.ends_well("no power cut");
}

#[test]
fn the_server_may_lose_its_power_at_any_step() {
    at_every_step(Victim::Server);
}

#[test]
fn a_member_may_lose_its_power_at_any_step() {
    at_every_step(Victim::Alice);
}

#[test]
fn an_excluded_terminal_may_lose_its_power_at_any_step() {
    at_every_step(Victim::Bob);
}

/// Invariant 8: a deletion that is interrupted goes on.
#[test]
fn a_terminal_that_deletes_may_lose_its_power_at_any_step() {
    at_every_step(Victim::Dave);
}

#[test]
fn a_terminal_that_is_locked_may_lose_its_power_at_any_step() {
    at_every_step(Victim::Erin);
}

/// Orders come for so long.
const ORDERS: Duration = Duration::from_millis(2500);
