//! The run that is repeated for ten thousand seeds: key sharing over ways that lose 30 %, double and
//! reorder, with other addresses, orders and power cuts on both sides at any time; then everybody must
//! be current, and every sequence must have come to an end.

use std::time::Duration;

use keyfall_protocol::command::{Limits, Suites};
use keyfall_protocol::ids::{GroupNumber, TerminalNumber, Tick};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{ChangeMode, Founding, Order, Stragglers};
use keyfall_protocol::sharing::SharingSuite;

use crate::disk::StoreDelay;
use crate::link::LinkQuality;
use crate::seeded::Seeded;
use crate::station::StationId;
use crate::witness::Violation;
use crate::world::{Config, World};

/// What became of one seed.
#[derive(Clone, Debug)]
pub struct SharingOutcome {
    pub seed: u64,
    /// From the last disturbance until everybody was current; `None`: not within the limit.
    pub settled: Option<Duration>,
    /// One terminal that was not current at the end, and what it lacked.
    pub lagging: Option<String>,
    /// Groups whose members do not hold one key at the end.
    pub split: Vec<String>,
    pub violations: Vec<Violation>,
    pub terminals: usize,
    pub datagrams: u64,
}

impl SharingOutcome {
    /// Everybody became current, no group is split, and nothing that must never be has been.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.settled.is_some() && self.split.is_empty() && self.violations.is_empty()
    }
}

/// Runs one seed.
#[must_use]
pub fn survive_sharing(seed: u64) -> SharingOutcome {
    let mut choices = Seeded::new(seed ^ 0x7368_6172);
    let mut world = World::new(seed, config(&mut choices));
    world.watch_keys();
    let stations: Vec<_> = (0..1 + choices.below(4))
        .map(|n| world.enrol(&format!("terminal-{n}"), LinkQuality::lossy(300)))
        .collect();
    // Half of the fleets have no carrier at all.
    let one_way = choices.chance(500);
    for &id in &stations {
        world.cut_link(id, !one_way);
        world.open_way_back(id, bad(&mut choices));
    }
    let numbers: Vec<_> = stations
        .iter()
        .map(|&id| world.station(id).number)
        .collect();
    for n in 0..1 + choices.below(2) {
        let members = some_of(&mut choices, &stations);
        let cadence = *choices.pick(&[None, Cadence::new(1, 60), Cadence::new(1, 600)]);
        let group = world.create_group(&format!("group-{n}"), &members, cadence);
        let change = *choices.pick(&ChangeMode::ALL);
        let stragglers = *choices.pick(&[Stragglers::Follow, Stragglers::Wait]);
        let set = Order::SetGroup {
            group,
            change: Some(change),
            stragglers: Some(stragglers),
            legacy: None,
        };
        world.order_at(world.now(), set);
    }
    let last = world.now().plus(DISTURBED);
    disturb(&mut world, &mut choices, &stations, &numbers, last);
    world.run_until(last.plus(Duration::from_millis(100)));
    let settled = until_current(&mut world, &stations);
    SharingOutcome {
        seed,
        settled,
        lagging: world.stations().find_map(|id| world.lag(id)),
        split: world.split_groups(),
        violations: world.violations().to_vec(),
        terminals: stations.len(),
        datagrams: world.datagrams_sent(),
    }
}

/// Orders, power cuts and other addresses, up to `last`.
fn disturb(
    world: &mut World,
    choices: &mut Seeded,
    stations: &[StationId],
    numbers: &[TerminalNumber],
    last: Tick,
) {
    for n in 0..3 + choices.below(6) {
        let order = order(choices, numbers);
        let at = if n == 0 {
            last
        } else {
            within(choices, world, last)
        };
        world.order_at(at, order);
    }
    for &id in &some_of(choices, stations) {
        let off = within(choices, world, last);
        let on = off.plus(Duration::from_secs(choices.below(20)));
        world.crash_at(off, id);
        world.start_at(on.min(last), id);
    }
    for &id in &some_of(choices, stations) {
        let at = within(choices, world, last);
        world.rebind_at(at, id);
    }
    if choices.chance(500) {
        let off = within(choices, world, last);
        let on = off.plus(Duration::from_secs(choices.below(10)));
        world.crash_server_at(off);
        world.start_server_at(on.min(last));
    }
}

/// How long it took until all were current at once. Who knows of nothing that it lacks is asked to
/// ask, as its driver does at power-on.
fn until_current(world: &mut World, stations: &[StationId]) -> Option<Duration> {
    let began = world.now();
    for second in 0..SETTLES_WITHIN.as_secs() {
        let lagging = stations.iter().any(|&id| world.lag(id).is_some());
        if !lagging && world.split_groups().is_empty() {
            return Some(world.now().since(began));
        }
        if second % 60 == 0 {
            stations.iter().for_each(|&id| world.ask(id));
        }
        world.run_for(Duration::from_secs(1));
    }
    None
}

fn config(choices: &mut Seeded) -> Config {
    use SharingSuite::{Hpke, HpkePq, Psk};
    let suites = *choices.pick(&[
        &[Psk][..],
        &[Hpke],
        &[HpkePq],
        &[HpkePq, Hpke, Psk],
        &[Psk, Hpke],
    ]);
    Config {
        founding: Founding {
            fleet_period: *choices.pick(&[60, 600, 3600]),
            bits_per_second: 20_000,
            ..Founding::default()
        },
        limits: Limits {
            suites: Suites::new(suites).expect("some, and none twice"),
            ..Limits::default()
        },
        server_disk: StoreDelay {
            write: Duration::from_millis(*choices.pick(&[1, 5, 50, 500])),
            ..StoreDelay::default()
        },
        work: Duration::from_millis(*choices.pick(&[0, 5, 200])),
        capture: false,
        ..Config::default()
    }
}

/// 30 % lost, alone or in bursts, every tenth doubled, and reordered.
fn bad(choices: &mut Seeded) -> LinkQuality {
    LinkQuality {
        burst: *choices.pick(&[1, 1, 3]),
        delay: Duration::from_millis(*choices.pick(&[1, 40, 270])),
        jitter: Duration::from_millis(*choices.pick(&[5, 100, 2000])),
        ..LinkQuality::lossy(300)
    }
}

fn order(choices: &mut Seeded, numbers: &[TerminalNumber]) -> Order {
    // An order for what is not there is refused, and that is one of the things to survive.
    let group = GroupNumber::new(1 + choices.below(2) as u32).expect("not 0");
    let terminal = *choices.pick(numbers);
    match choices.below(9) {
        0..=1 => Order::RenewGroup { group },
        2..=3 => Order::RekeyGroup { group },
        4 => Order::RenewDevices,
        5 => Order::RenewDevice { terminal },
        6 => Order::RemoveMember { group, terminal },
        _ => Order::AddMember { group, terminal },
    }
}

/// At least one of `all`.
fn some_of<T: Copy>(choices: &mut Seeded, all: &[T]) -> Vec<T> {
    let mut some = all.to_vec();
    choices.shuffle(&mut some);
    some.truncate(1 + choices.below(all.len() as u64) as usize);
    some
}

fn within(choices: &mut Seeded, world: &World, last: Tick) -> Tick {
    let span = last.since(world.now()).as_millis() as u64;
    world.now().plus(Duration::from_millis(choices.below(span)))
}

/// Disturbances come for so long.
const DISTURBED: Duration = Duration::from_secs(60);
/// Then everybody is current within this time.
const SETTLES_WITHIN: Duration = Duration::from_secs(900);
