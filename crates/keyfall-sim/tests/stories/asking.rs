//! Fleets that can answer: keyed over UDP, by broadcast, and by both (REQUIREMENTS,
//!

use std::time::Duration;

use keyfall_protocol::command::{Limits, Suites};
use keyfall_protocol::ids::GroupNumber;
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Founding, Order};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::message::type_of;
use keyfall_protocol::terminal::{AskOutcome, Event};
use keyfall_sim::{Config, Direction, LinkQuality, StationId, World};

use crate::{all_are_current, nothing_was_wrong};

/// A world whose root lists these suites.
pub(crate) fn world_of(seed: u64, suites: &[SharingSuite]) -> World {
    world_with(seed, suites, Config::default())
}

/// The same, beginning with `config` in all else.
pub(crate) fn world_with(seed: u64, suites: &[SharingSuite], config: Config) -> World {
    let limits = Limits {
        suites: Suites::new(suites).expect("some, and none twice"),
        ..config.limits
    };
    let mut world = World::new(seed, Config { limits, ..config });
    world.watch_keys();
    world
}

/// Terminals with a way back and no carrier.
pub(crate) fn answering(world: &mut World, count: usize, quality: LinkQuality) -> Vec<StationId> {
    let stations: Vec<_> = (0..count)
        .map(|n| world.enrol(&format!("terminal-{n}"), LinkQuality::PERFECT))
        .collect();
    for &id in &stations {
        world.cut_link(id, true);
        world.open_way_back(id, quality);
    }
    stations
}

/// Ten milliseconds each way.
pub(crate) const NEAR: LinkQuality = LinkQuality {
    delay: Duration::from_millis(10),
    ..LinkQuality::PERFECT
};

pub(crate) const ALL: [SharingSuite; 3] =
    [SharingSuite::Psk, SharingSuite::Hpke, SharingSuite::HpkePq];

/// The ends of a station's sequences since `from` events were told.
pub(crate) fn ends(world: &World, id: StationId, from: usize) -> Vec<AskOutcome> {
    let told = &world.station(id).told()[from..];
    told.iter().filter_map(|told| end(&told.event)).collect()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever else is told is no end"
)]
fn end(event: &Event) -> Option<AskOutcome> {
    match event {
        Event::AskEnded { outcome } => Some(*outcome),
        _ => None,
    }
}

/// Everybody is current, no group is split, and the server knows who is.
#[track_caller]
fn all_have_confirmed(world: &World, group: GroupNumber) {
    all_are_current(world);
    assert!(world.split_groups().is_empty());
    let server = world.server().expect("it runs");
    let key = &server
        .groups()
        .find(|it| it.number == group)
        .expect("it is there")
        .master;
    for id in world.stations() {
        let station = world.station(id);
        let told = server.confirmed(station.number, group);
        let newest = Some((key.epoch(), key.generation()));
        assert_eq!(told, newest, "{}", station.name);
    }
}

/// no frame of any carrier reaches anybody, and the fleet is keyed, renewed, given a fresh
/// epoch and new members all the same.
#[test]
fn a_fleet_is_keyed_and_renewed_over_udp_alone() {
    for suite in ALL {
        let mut world = world_of(1, &[suite]);
        let stations = answering(&mut world, 5, NEAR);
        let group = world.create_group("crew", &stations[..4], Cadence::new(1, 3600));
        let late = world.station(stations[4]).number;
        let add = Order::AddMember {
            group,
            terminal: late,
        };
        for order in [
            Order::RenewGroup { group },
            Order::RekeyGroup { group },
            add,
            Order::RenewDevices,
            Order::RenewDevice { terminal: late },
        ] {
            world.order(order).expect("it may be");
            stations.iter().for_each(|&id| world.ask(id));
            world.run_for(Duration::from_secs(8));
        }
        all_have_confirmed(&world, group);
        for &id in &stations {
            let ended = ends(&world, id, 0);
            assert!(
                ended.iter().all(|it| *it == AskOutcome::Current),
                "{suite:?}: {ended:?}"
            );
        }
        let renewed = world.server().expect("it runs").fleet().fleet_generation;
        assert!(renewed.get() > 0);
    }
}

/// what came by UDP is renewed by broadcast, then the other way round, twice; the keys
/// are the same ones, and they are spoken under.
#[test]
fn udp_and_broadcast_renew_what_the_other_brought() {
    for suite in ALL {
        let mut world = world_of(2, &[suite]);
        let stations = answering(&mut world, 4, NEAR);
        let group = world.create_group("crew", &stations, Cadence::new(1, 3600));
        stations.iter().for_each(|&id| world.ask(id));
        world.run_for(Duration::from_secs(5));
        all_have_confirmed(&world, group);
        for round in 0..4 {
            let by_udp = round % 2 == 1;
            for &id in &stations {
                world.cut_link(id, by_udp);
                world.cut_way_back(id, !by_udp);
            }
            for order in [
                Order::RenewDevices,
                Order::RenewGroup { group },
                Order::RekeyGroup { group },
                Order::RenewGroup { group },
            ] {
                world.order(order).expect("it may be");
                world.run_for(Duration::from_secs(1));
            }
            if by_udp {
                stations.iter().for_each(|&id| world.ask(id));
                world.run_for(Duration::from_secs(10));
                all_have_confirmed(&world, group);
            } else {
                world.run_for(Duration::from_secs(30));
            }
            all_are_current(&world);
            let ssrc = 1 + round;
            let mut speaker = world.speaker(stations[0], group, ssrc).expect("a member");
            let packet = world.speak(&mut speaker, b"speech").expect("she may");
            for &id in &stations[1..] {
                assert!(world.hear(id, &packet).is_ok(), "{suite:?}, round {round}");
            }
        }
        nothing_was_wrong(&world);
    }
}

/// where a beacon told G before, one round trip; else the COOKIE tells it, and it takes two.
/// Orders to this terminal alone, and fresh epochs, were missed meanwhile.
#[test]
fn after_a_week_off_one_round_trip_or_two_are_enough() {
    for (hears_first, types) in [
        (true, &[KEY_REQ, KEY_DIS, ACK][..]),
        (false, &[KEY_REQ, COOKIE, KEY_REQ, KEY_DIS, ACK][..]),
    ] {
        let mut world = World::new(
            3,
            Config {
                founding: Founding {
                    fleet_period: 600,
                    ..Founding::default()
                },
                ..Config::default()
            },
        );
        world.watch_keys();
        let stations = answering(&mut world, 2, NEAR);
        let group = world.create_group("crew", &stations, Cadence::new(1, 600));
        stations.iter().for_each(|&id| world.ask(id));
        world.run_for(Duration::from_secs(10));
        all_have_confirmed(&world, group);
        // Nobody's timers run; the server does in one step what is due.
        stations.iter().for_each(|&id| world.crash(id));
        world.crash_server();
        world.run_for(Duration::from_secs(7 * 86_400));
        world.start_server();
        world.run_for(Duration::from_secs(1));
        for order in [Order::RekeyGroup { group }, Order::RenewGroup { group }] {
            world.order(order).expect("it may be");
        }
        let bob = stations[0];
        let (told, sent) = (world.station(bob).told().len(), world.datagrams().len());
        world.cut_way_back(bob, true);
        world.start(bob);
        if hears_first {
            let beacon = world.frames().iter().rev();
            let mut beacon = beacon.filter(|it| it.item == keyfall_protocol::server::Item::Time);
            let beacon = beacon.next().expect("it beats").octets.clone();
            world.feed_frame(bob, &beacon);
        }
        world.cut_way_back(bob, false);
        world.run_for(Duration::from_secs(2));
        assert_eq!(world.lag(bob), None);
        assert_eq!(ends(&world, bob, told), [AskOutcome::Current]);
        let seen = world.datagrams()[sent..].iter();
        let seen: Vec<_> = seen.filter_map(|it| type_of(&it.octets)).collect();
        assert_eq!(seen, types, "hears first: {hears_first}");
        nothing_was_wrong(&world);
    }
}

/// the NAT forgets after the k-th datagram, for every k; in each suite.
#[test]
fn the_nat_may_rebind_after_any_datagram() {
    for suite in ALL {
        let mut k = 0;
        loop {
            let mut world = world_of(4, &[suite]);
            let id = answering(&mut world, 1, NEAR)[0];
            let group = world.create_group("crew", &[id], None);
            let end = world.now().plus(Duration::from_secs(60));
            while world.datagrams_sent() < k && world.step(end) {}
            let reached = world.datagrams_sent() >= k;
            world.rebind(id);
            world.run_until(end);
            all_have_confirmed(&world, group);
            let first = world.datagrams()[0].address;
            let last = world.datagrams().iter().rev();
            let mut last = last.filter(|it| it.direction == Direction::ToServer);
            let last = last.next().expect("it asked").address;
            assert!(k == 0 || !reached || first != last || world.datagrams_sent() == k);
            if !reached {
                break;
            }
            k += 1;
        }
        assert!(k > 3, "{suite:?}: {k} datagrams");
    }
}

/// 1,000 terminals restart at once and ask over UDP; time is the world's, 20 ms for each round trip
/// and up to half a second before a terminal asks.
#[test]
fn a_thousand_terminals_that_restart_at_once_are_soon_current() {
    let count = if cfg!(debug_assertions) { 60 } else { 1000 };
    let mut world = world_of(5, &[SharingSuite::Psk]);
    let stations = answering(&mut world, count, NEAR);
    let group = world.create_group("all", &stations, None);
    stations.iter().for_each(|&id| world.ask(id));
    world.run_for(Duration::from_secs(10));
    all_have_confirmed(&world, group);
    stations.iter().for_each(|&id| world.crash(id));
    world.order(Order::RekeyGroup { group }).expect("it may be");
    world.run_for(Duration::from_secs(1));
    stations.iter().for_each(|&id| world.start(id));
    let began = world.now();
    while stations.iter().any(|&id| world.lag(id).is_some()) {
        world.run_for(Duration::from_millis(20));
        let passed = world.now().since(began);
        assert!(passed < Duration::from_secs(2), "{passed:?}");
    }
    let passed = world.now().since(began);
    world.run_for(Duration::from_secs(1));
    all_have_confirmed(&world, group);
    assert!(passed <= Duration::from_millis(800), "{passed:?}");
}

const KEY_REQ: u8 = 1;
const COOKIE: u8 = 2;
const KEY_DIS: u8 = 3;
const ACK: u8 = 4;
