//! Recordings played back (REQUIREMENTS W-12, T-01; FORMATS section 2.1).

use std::collections::HashSet;
use std::time::Duration;

use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Class, Order};
use keyfall_protocol::terminal::{self, Input};
use keyfall_sim::{Captured, Config, LinkQuality, StationId, World};

use crate::{all_are_current, nothing_was_wrong};

/// A day of carousel with orders in it; the capture without exact doubles.
fn a_day() -> (World, StationId, Vec<Captured>) {
    let mut world = World::new(24, Config::default());
    let bob = world.enrol("bob", LinkQuality::PERFECT);
    let alice = world.enrol("alice", LinkQuality::PERFECT);
    let crew = world.create_group("crew", &[alice, bob], Cadence::new(1, 3600));
    let bridge = world.create_group("bridge", &[bob], None);
    for hour in 1..24 {
        let at = world.now().plus(Duration::from_secs(hour * 3600));
        match hour % 4 {
            0 => world.order_at(at, Order::RenewGroup { group: crew }),
            1 => world.order_at(at, Order::RenewGroup { group: bridge }),
            2 => world.order_at(at, Order::RenewDevices),
            _ => continue,
        };
    }
    world.run_for(Duration::from_secs(86_400));
    all_are_current(&world);
    // What is heard is stored: a relay's marks would do the same.
    let order = terminal::Order::Mark {
        group: crew,
        marks: Vec::new(),
    };
    world.feed(bob, Input::Order(order));
    world.run_for(Duration::from_secs(1));
    let mut seen = HashSet::new();
    let mut tape = world.frames().to_vec();
    tape.retain(|frame| seen.insert(frame.octets.clone()));
    (world, bob, tape)
}

fn dropped(world: &World, bob: StationId) -> u64 {
    let machine = world.station(bob).terminal().expect("it is on");
    machine.drops().iter().map(|(_, count, _)| count).sum()
}

/// Plays the tape in some order; nothing may change.
fn play(world: &mut World, bob: StationId, tape: &[Captured]) {
    let machine = world.station(bob).terminal().expect("it is on");
    let before = (machine.groups(), machine.fleet_generation());
    let stores = world.station(bob).stores();
    let told = world.station(bob).told().len();
    let drops = dropped(world, bob);
    for frame in tape {
        world.feed_frame(bob, &frame.octets);
    }
    let machine = world.station(bob).terminal().expect("it is on");
    let (mut after, mut was) = (machine.groups(), before.0);
    // Without trusted time a status has no next instant; the beacon on tape brings it back.
    after
        .iter_mut()
        .chain(&mut was)
        .for_each(|status| status.valid_until = None);
    assert_eq!((after, machine.fleet_generation()), (was, before.1));
    assert_eq!(world.station(bob).stores(), stores, "nothing to store");
    let renewals = world.station(bob).told()[told..]
        .iter()
        .filter(|told| !matches!(told.event, terminal::Event::TimeHeard { .. }))
        .count();
    assert_eq!(renewals, 0);
    // Every frame is a counted no-op, but the newest beacon, which says what is known.
    let newest = tape.iter().rfind(|frame| frame.item.class() == Class::Time);
    let beacons = u64::from(newest.is_some());
    assert_eq!(dropped(world, bob) - drops + beacons, tape.len() as u64);
}

#[test]
fn a_days_capture_in_any_order_changes_nothing() {
    let (mut world, bob, tape) = a_day();
    assert!(tape.len() > 8000, "{} frames", tape.len());
    let machine = world.station(bob).terminal().expect("it is on");
    let time = machine.time();
    play(&mut world, bob, &tape);
    let mut backwards = tape.clone();
    backwards.reverse();
    play(&mut world, bob, &backwards);
    for _ in 0..2 {
        let mut shuffled = tape.clone();
        world.rng().shuffle(&mut shuffled);
        play(&mut world, bob, &shuffled);
    }
    let machine = world.station(bob).terminal().expect("it is on");
    assert_eq!(machine.time(), time, "the clock is where it was");
    nothing_was_wrong(&world);
}

/// The same to a terminal that was switched off and on: its state is what its disk held.
#[test]
fn a_days_capture_changes_nothing_for_a_restarted_terminal() {
    let (mut world, bob, tape) = a_day();
    world.cut_link(bob, true);
    for _ in 0..2 {
        world.crash(bob);
        world.start(bob);
        // A boot is charged as powered-on time.
        world.run_for(Duration::from_secs(1));
        let disk = world.station(bob).synced().clone();
        let mut shuffled = tape.clone();
        world.rng().shuffle(&mut shuffled);
        play(&mut world, bob, &shuffled);
        assert_eq!(*world.station(bob).synced(), disk);
        let machine = world.station(bob).terminal().expect("it is on");
        assert!(machine.time() <= Some(world.wall()), "time ran ahead");
    }
    nothing_was_wrong(&world);
}
