//! Terminals that were off for long.

use std::time::Duration;

use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Founding, Item};
use keyfall_protocol::terminal::Event;
use keyfall_sim::{Captured, Config, LinkQuality, StationId, World};

use crate::{all_are_current, nothing_was_wrong};

/// A world whose keys all renew every `period` seconds, with one member that is off, and nothing
/// happening for `asleep`; then the server's first frames.
fn slept(period: u32, asleep: Duration) -> (World, StationId, Vec<Captured>) {
    let config = Config {
        founding: Founding {
            fleet_period: period,
            ..Founding::default()
        },
        ..Config::default()
    };
    let mut world = World::new(29, config);
    let bob = world.enrol("bob", LinkQuality::PERFECT);
    let alice = world.enrol("alice", LinkQuality::PERFECT);
    for name in ["one", "two", "three"] {
        world.create_group(name, &[alice, bob], Cadence::new(1, period));
    }
    world.run_for(Duration::from_secs(20));
    all_are_current(&world);
    world.crash(bob);
    // Alice is off too, so that nobody's timers run; the server does in one step what is due.
    world.crash(alice);
    world.crash_server();
    world.run_for(asleep);
    let before = world.frames().len();
    world.start_server();
    world.run_for(Duration::from_secs(61));
    let cycle = world.frames()[before..].to_vec();
    (world, bob, cycle)
}

/// REQUIREMENTS: off for 65,535 scheduled generations of master and
/// device keys, inside the KEYSET held.
#[test]
fn after_65535_scheduled_generations_one_command_is_enough() {
    let (mut world, bob, cycle) = slept(39, Duration::from_secs(65_535 * 39));
    let server = world.server().expect("it runs");
    assert!(server.fleet().fleet_generation.get() >= 65_535);
    let groups: Vec<_> = server.groups().map(|group| group.number).collect();
    for group in groups {
        // The RENEW of that group alone: its master key, and G.
        world.crash(bob);
        world.start(bob);
        let renew = cycle
            .iter()
            .rfind(|frame| frame.item == Item::Group(group))
            .expect("it is on the carousel");
        world.feed_frame(bob, &renew.octets);
        let server = world.server().expect("it runs");
        let stated = &server
            .group_named(&group.to_string())
            .expect("it is")
            .master;
        let machine = world.station(bob).terminal().expect("it is on");
        let held = machine.groups();
        let held = held.iter().find(|status| status.group == group);
        assert_eq!(
            held.map(|status| status.fingerprint),
            Some(stated.fingerprint())
        );
        let terminal = server.terminal_named("bob").expect("enrolled");
        assert_eq!(
            machine.wrap_key(),
            Some((terminal.wrap.generation(), terminal.wrap.fingerprint()))
        );
    }
    nothing_was_wrong(&world);
}

/// The same by a KEYDIST under the new G, and by a beacon with its floors.
#[test]
fn after_65535_scheduled_generations_a_distribution_or_a_beacon_is_enough() {
    let (mut world, bob, cycle) = slept(39, Duration::from_secs(65_535 * 39));
    for class in ["KEYDIST", "TIME"] {
        world.crash(bob);
        world.start(bob);
        let frames = cycle
            .iter()
            .filter(|frame| frame.item.class().name() == class);
        let newest: Vec<_> = match class {
            "TIME" => frames.rev().take(1).collect(),
            _ => frames.rev().take(3).collect(),
        };
        for frame in newest {
            world.feed_frame(bob, &frame.octets);
        }
        assert_eq!(world.lag(bob), None, "{class}");
    }
    nothing_was_wrong(&world);
}

/// FORMATS section 2.1: woken after 29 days into the middle of a carousel in any order.
#[test]
fn a_terminal_woken_after_29_days_is_current_after_a_cycle_in_any_order() {
    let (mut world, bob, cycle) = slept(3600, Duration::from_secs(29 * 86_400));
    for _ in 0..20 {
        world.crash(bob);
        world.start(bob);
        let mut shuffled = cycle.clone();
        world.rng().shuffle(&mut shuffled);
        for frame in &shuffled {
            world.feed_frame(bob, &frame.octets);
        }
        assert_eq!(world.lag(bob), None);
        let machine = world.station(bob).terminal().expect("it is on");
        let expected = world.server().map(|server| server.fleet().fleet_generation);
        assert_eq!(Some(machine.fleet_generation()), expected);
        assert_eq!(machine.fleet_generation().get(), 29 * 24);
    }
    // The leases had ended in the first three days; the statements extended them.
    world.run_for(Duration::from_secs(1));
    let machine = world.station(bob).terminal().expect("it is on");
    assert!(
        machine
            .groups()
            .iter()
            .all(|status| machine.send_key(status.group).is_some())
    );
    nothing_was_wrong(&world);
}

/// REQUIREMENTS: the link is cut after one command, and the terminals renew at the
/// same instants as the server, device keys as well.
#[test]
fn with_the_link_cut_everybody_renews_at_the_same_instants() {
    let mut world = World::new(3, Config::default());
    let stations = ["alice", "bob"].map(|name| world.enrol(name, LinkQuality::PERFECT));
    world.create_group("crew", &stations, Cadence::new(1, 600));
    world.run_for(Duration::from_secs(30));
    stations.iter().for_each(|&id| world.cut_link(id, true));
    for _ in 0..36 {
        world.run_for(Duration::from_secs(600));
        all_are_current(&world);
        let g = world.server().map(|server| server.fleet().fleet_generation);
        for id in stations {
            let machine = world.station(id).terminal().expect("it is on");
            assert_eq!(Some(machine.fleet_generation()), g);
        }
    }
    let renewals = |id| {
        let told = world.station(id).told().iter();
        told.filter(|told| matches!(told.event, Event::Renewed { .. }))
            .count()
    };
    assert_eq!(stations.map(renewals), [36, 36]);
}
