//! Power cuts and crashes at every step (DESIGN section 11, invariants 1 and 2).

use std::time::Duration;

use keyfall_protocol::ids::{GroupNumber, TerminalNumber, Tick};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Done, Order, OrderId, PackageSealing};
use keyfall_sim::{Config, LinkQuality, StationId, World};

use crate::{nothing_was_wrong, seeds};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Victim {
    Server,
    Alice,
}

/// Two groups, three terminals, and orders that store all kinds of things.
fn story() -> (World, Vec<OrderId>, StationId) {
    let config = Config {
        founding: keyfall_protocol::server::Founding {
            fleet_period: 20,
            ..Default::default()
        },
        ..Config::default()
    };
    let mut world = World::new(12, config);
    let [alice, bob, carol] =
        ["alice", "bob", "carol"].map(|name| world.enrol(name, LinkQuality::PERFECT));
    let crew = world.create_group("crew", &[alice, bob], Cadence::new(1, 10));
    world.run_for(Duration::from_secs(1));
    let from = world.now();
    let at = |millis| from.plus(Duration::from_millis(millis));
    let terminal = world.station(carol).number;
    let members = vec![world.station(alice).number, terminal];
    let orders = [
        (100, Order::RenewGroup { group: crew }),
        (101, Order::RenewDevices),
        (
            102,
            Order::CreateGroup {
                packets: None,
                name: "bridge".to_owned(),
                members,
                cadence: None,
            },
        ),
        (
            103,
            Order::AddMember {
                group: crew,
                terminal,
            },
        ),
        (2000, Order::RenewGroup { group: crew }),
        (
            2001,
            Order::AddTerminal {
                name: "dave".to_owned(),
                sealing: PackageSealing::ToRequest([9; 32]),
                wipe_roots: Vec::new(),
            },
        ),
    ];
    let orders = orders
        .into_iter()
        .map(|(millis, order)| world.order_at(at(millis), order))
        .collect();
    (world, orders, alice)
}

/// What was reported as done is on disk.
fn done_is_kept(world: &World, orders: &[OrderId]) {
    let disk = world.server_disk();
    for &id in orders {
        let Some(Ok(done)) = world.outcome(id) else {
            continue;
        };
        let generation = |group: GroupNumber| disk.group(group).map(|it| it.master.generation());
        let epoch = |group: GroupNumber| disk.group(group).map(|it| it.master.epoch());
        let terminal = |number: TerminalNumber| disk.terminal(number);
        let kept = match done {
            Done::Nothing | Done::Scheduled { .. } => true,
            Done::Terminal { number, .. } => terminal(*number).is_some(),
            Done::Group {
                number,
                epoch: stated,
            } => epoch(*number) >= Some(*stated),
            Done::Removed {
                group,
                epoch: stated,
                ..
            }
            | Done::Rekeyed {
                group,
                epoch: stated,
                ..
            } => epoch(*group) >= Some(*stated),
            Done::Member {
                group,
                generation: stated,
            } => generation(*group) >= Some(*stated),
            Done::Renewed {
                group,
                epoch: of,
                generation: stated,
                ..
            } => (epoch(*group), generation(*group)) >= (Some(*of), Some(*stated)),
            Done::FleetRenewed { generation: stated } => disk.fleet().fleet_generation >= *stated,
            Done::DeviceRenewed {
                terminal: number,
                generation: stated,
                ..
            } => terminal(*number).is_some_and(|it| it.wrap.generation() >= *stated),
            Done::Excluded { number, groups, .. } => {
                disk.exclusions().any(|it| it.number == *number)
                    && groups.iter().all(|it| epoch(it.group) >= Some(it.new))
            }
            Done::Issued {
                terminal: number,
                hash,
                ..
            } => terminal(*number)
                .is_some_and(|it| it.orders.iter().any(|order| order.hash == *hash)),
            Done::Proved {
                terminal: number, ..
            } => terminal(*number)
                .is_some_and(|it| it.orders.iter().any(|order| order.proved_at.is_some())),
            Done::KeysInstalled { version, .. } => disk.fleet().key_set.version >= *version,
            Done::GroupSet { group, after, .. } => {
                disk.group(*group).is_some_and(|it| it.policy == *after)
            }
            Done::PacketsSet { group, packets, .. } => {
                disk.group(*group).is_some_and(|it| it.packets == *packets)
            }
            Done::AddressesSet {
                terminal: number,
                addresses,
            } => terminal(*number).is_some_and(|it| it.addresses == *addresses),
            Done::Confirmed { .. } => true,
        };
        assert!(kept, "{done:?} was lost");
    }
}

/// The story with a crash after `step` happenings, and a start some seconds later.
fn crash_at_step(victim: Victim, step: u64) -> bool {
    let (mut world, orders, alice) = story();
    let (began, end) = (world.happened(), world.now().plus(Duration::from_secs(12)));
    while world.happened() - began < step {
        if !world.step(end) {
            return false;
        }
    }
    match victim {
        Victim::Server => world.crash_server(),
        Victim::Alice => world.crash(alice),
    }
    world.run_for(Duration::from_secs(3));
    match victim {
        Victim::Server => world.start_server(),
        Victim::Alice => world.start(alice),
    }
    world.run_for(Duration::from_secs(60));
    let current = becomes_current(&mut world);
    let lag = world.stations().find_map(|id| world.lag(id));
    assert!(current, "{victim:?} at step {step}: {lag:?}");
    done_is_kept(&world, &orders);
    nothing_was_wrong(&world);
    true
}

fn at_every_step(victim: Victim) {
    let stride = if cfg!(debug_assertions) { 3 } else { 1 };
    let steps = (0..)
        .step_by(stride)
        .take_while(|&step| crash_at_step(victim, step))
        .count();
    assert!(steps * stride > 60, "{steps} steps");
}

/// Invariants 1 and 2: whenever the server crashes, nothing that it sent or reported is lost, no
/// sequence number names two commands, no generation goes down.
#[test]
fn a_server_that_crashes_at_any_step_loses_nothing_that_it_announced() {
    at_every_step(Victim::Server);
}

/// Invariants 1 and 2: the same for a terminal.
#[test]
fn a_terminal_that_crashes_at_any_step_loses_nothing_that_it_told() {
    at_every_step(Victim::Alice);
}

/// Random orders, crashes of everybody, slow disks.
#[test]
fn through_random_orders_and_crashes_generations_never_go_down() {
    for seed in seeds(30, 300) {
        let mut world = World::new(seed, slow(seed));
        let stations: Vec<_> = (0..4)
            .map(|n| world.enrol(&format!("terminal-{n}"), LinkQuality::lossy(200)))
            .collect();
        let crew = world.create_group("crew", &stations[..3], Cadence::new(2, 60));
        let bridge = world.create_group("bridge", &stations[1..2], None);
        let numbers: Vec<_> = stations
            .iter()
            .map(|&id| world.station(id).number)
            .collect();
        let (from, mut orders) = (world.now(), Vec::new());
        let last = from.plus(Duration::from_secs(240));
        for n in 0..60 {
            let at = from.plus(Duration::from_millis(world.rng().below(240_000)));
            let soon = at.plus(Duration::from_millis(world.rng().below(20_000)));
            let victim = *world.rng().pick(&stations);
            let terminal = *world.rng().pick(&numbers);
            let group = *world.rng().pick(&[crew, bridge]);
            match world.rng().below(6) {
                0 => orders.push(world.order_at(at, Order::RenewGroup { group })),
                1 => orders.push(world.order_at(at, Order::RenewDevices)),
                2 => orders.push(world.order_at(at, Order::AddMember { group, terminal })),
                3 if n % 3 == 0 => {
                    world.crash_server_at(at);
                    world.start_server_at(soon);
                }
                _ => {
                    world.crash_at(at, victim);
                    world.start_at(soon, victim);
                }
            }
        }
        let end = last.plus(Duration::from_secs(30));
        world.run_until(end);
        world.start_server();
        stations.iter().for_each(|&id| world.start(id));
        let current = becomes_current(&mut world);
        let lag = world.stations().find_map(|id| world.lag(id));
        let violations: Vec<_> = world.violations().iter().map(ToString::to_string).collect();
        assert!(
            current && violations.is_empty(),
            "KEYFALL_SEED={seed}: {lag:?} {violations:#?}"
        );
        done_is_kept(&world, &orders);
    }
}

/// Within 16 cycles, at one of the looks: in the second of a scheduled renewal somebody is ahead.
fn becomes_current(world: &mut World) -> bool {
    (0..16 * 15).any(|_| {
        world.run_for(Duration::from_secs(4));
        world.stations().all(|id| world.lag(id).is_none())
    })
}

/// Disks that take up to two seconds, so that crashes fall between asking and syncing.
fn slow(seed: u64) -> Config {
    let mut config = Config::default();
    config.founding.fleet_period = 90;
    config.station_disk.write = Duration::from_millis(200 * (seed % 10));
    config.station_disk.confirm = Duration::from_millis(100 * (seed % 7));
    config.server_disk.write = Duration::from_millis(100 * (seed % 8));
    config.server_disk.confirm = Duration::from_millis(100 * (seed % 5));
    config
}

/// `Input::NotStored`: a batch that could not be stored has never happened, and nothing of it is
/// sent.
#[test]
fn orders_that_could_not_be_stored_have_never_happened() {
    let (mut world, orders, _) = story();
    world.fail_commits(3);
    world.run_for(Duration::from_secs(150));
    let refused = orders
        .iter()
        .filter(|&&id| matches!(world.outcome(id), Some(Err(_))))
        .count();
    assert!(refused > 0, "some failed");
    done_is_kept(&world, &orders);
    crate::all_are_current(&world);
    assert!(world.now() > Tick::from_secs(150));
}
