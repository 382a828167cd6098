//! Fleets with protection records: who only hears, over lossy links, and who only asks (REQUIREMENTS
//! FORMATS section 8.1).

use std::time::Duration;

use keyfall_protocol::command::Prefix;
use keyfall_protocol::ids::{GroupNumber, TerminalNumber};
use keyfall_protocol::server::{AddressWish, Order, PacketWish};
use keyfall_sim::{Config, LinkQuality, StationId, World};

use crate::{nothing_was_wrong, quickly_renewed};

/// Members of one packet group, the n-th of them with the address 10.77.0.n.
fn fleet(seed: u64, members: usize, quality: LinkQuality) -> (World, Vec<StationId>, GroupNumber) {
    let config = Config {
        founding: quickly_renewed(),
        ..Config::default()
    };
    let mut world = World::new(seed, config);
    let members: Vec<_> = (0..members)
        .map(|n| world.enrol(&format!("unit-{n}"), quality))
        .collect();
    let group = world.create_group("net", &members, None);
    let subnets = Prefix::new([10, 77, 0, 0].into(), 16).expect("a network");
    let wish = PacketWish {
        packets: Some(true),
        networks: Some(vec![subnets]),
        ..PacketWish::default()
    };
    world
        .order(Order::SetPackets { group, wish })
        .expect("it may be one");
    for &id in &members {
        speaks(&mut world, id, 0);
    }
    (world, members, group)
}

/// Its address in that subnet.
fn speaks(world: &mut World, id: StationId, subnet: u8) {
    let terminal = number(world, id);
    let wish = AddressWish {
        prefixes: Some(vec![address(terminal, subnet)]),
        endpoints: None,
    };
    let order = Order::SetAddresses { terminal, wish };
    world.order(order).expect("it is free");
}

fn number(world: &World, id: StationId) -> TerminalNumber {
    world.station(id).number
}

fn address(terminal: TerminalNumber, subnet: u8) -> Prefix {
    let [.., low] = terminal.get().to_be_bytes();
    Prefix::host([10, 77, subnet, low].into())
}

/// How many of the others' records each holds, beside its own.
fn known(world: &World, members: &[StationId]) -> Vec<(bool, usize)> {
    let held = |&id: &StationId| {
        let terminal = world.station(id).terminal().expect("it is on");
        let others = members.iter().filter(|&&other| other != id);
        let others = others.filter(|&&other| terminal.record_of(number(world, other)).is_some());
        (terminal.own_record().is_some(), others.count())
    };
    members.iter().map(held).collect()
}

/// Without a way back, at 30 % loss: each has its own record and learns all the others'; a crash loses
/// no own record, and an excluded one is known no more.
#[test]
fn who_only_hears_learns_everybody_over_a_lossy_link() {
    let (mut world, members, group) = fleet(71, 12, LinkQuality::lossy(300));
    world.run_for(Duration::from_secs(3600));
    assert_eq!(known(&world, &members), vec![(true, 11); 12]);
    for &id in &members {
        let terminal = world.station(id).terminal().expect("it is on");
        assert!(terminal.record_of(number(&world, id)).is_none(), "its own");
        let own = terminal.own_record().expect("held").record();
        assert_eq!(own.prefixes, [address(number(&world, id), 0)]);
        assert_eq!(own.groups.first().map(|it| it.group), Some(group));
    }
    // What changes is heard, and the version before is gone.
    speaks(&mut world, members[3], 1);
    world.run_for(Duration::from_secs(1800));
    let moved = number(&world, members[3]);
    for &id in members.iter().filter(|&&id| id != members[3]) {
        let terminal = world.station(id).terminal().expect("it is on");
        let record = terminal.record_of(moved).expect("held");
        assert_eq!(record.prefixes, [address(moved, 1)]);
    }
    world.crash(members[0]);
    world.start(members[0]);
    world.run_for(Duration::from_secs(1));
    assert_eq!(known(&world, &members[..1]), [(true, 0)]);
    world.exclude(&members[1..2]).expect("known");
    world.run_for(Duration::from_secs(3600));
    let gone = number(&world, members[1]);
    for &id in members.iter().filter(|&&id| id != members[1]) {
        let terminal = world.station(id).terminal().expect("it is on");
        assert!(terminal.record_of(gone).is_none());
    }
    nothing_was_wrong(&world);
}

/// With a way back and no carrier at all: what an ask brings is enough, and records are signed again
/// before they end.
#[test]
fn who_hears_no_carousel_is_told_by_the_desk() {
    let (mut world, members, _) = fleet(72, 6, LinkQuality::PERFECT);
    for &id in &members {
        world.cut_link(id, true);
        world.open_way_back(id, LinkQuality::lossy(100));
    }
    world.run_for(Duration::from_secs(60));
    for &id in &members {
        world.ask(id);
    }
    world.run_for(Duration::from_secs(600));
    assert_eq!(known(&world, &members), vec![(true, 5); 6]);
    let version = |world: &World| {
        let terminal = world.station(members[0]).terminal().expect("it is on");
        terminal.own_record().map(|own| own.record().version)
    };
    let before = version(&world);
    world.run_for(Duration::from_secs(3 * 86_400));
    assert!(version(&world) > before, "told again without asking");
    nothing_was_wrong(&world);
}
