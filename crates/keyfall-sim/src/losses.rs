//! The run that is repeated for a thousand seeds: 30 % loss in bursts, duplication, reordering,
//! power cuts and orders at any time; then everybody must be current soon.

use std::time::Duration;

use keyfall_protocol::ids::{GroupNumber, TerminalNumber, Tick};
use keyfall_protocol::schedule::Cadence;
use keyfall_protocol::server::{Founding, Order, PackageSealing};

use crate::link::LinkQuality;
use crate::seeded::Seeded;
use crate::witness::Violation;
use crate::world::{Config, World};

/// What became of one seed.
#[derive(Clone, Debug)]
pub struct LossOutcome {
    pub seed: u64,
    /// Carousel cycles from the last order until every terminal was current; `None`: not within
    /// the limit.
    pub cycles: Option<f64>,
    /// One terminal that was not current at the end, and what it lacked.
    pub lagging: Option<String>,
    pub violations: Vec<Violation>,
    pub terminals: usize,
    pub orders: usize,
    pub frames: usize,
}

impl LossOutcome {
    /// Everybody became current, and nothing that must never be has been.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.cycles.is_some() && self.violations.is_empty()
    }
}

/// Runs one seed; `limit` is the number of carousel cycles that may pass after the last order.
#[must_use]
pub fn survive_losses(seed: u64, limit: u32) -> LossOutcome {
    let mut choices = Seeded::new(seed ^ 0x6c6f_7373);
    let mut world = World::new(seed, config(&mut choices));
    let stations: Vec<_> = (0..3 + choices.below(6))
        .map(|n| world.enrol(&format!("terminal-{n}"), LinkQuality::lossy(300)))
        .collect();
    for n in 0..1 + choices.below(3) {
        let members: Vec<_> = some_of(&mut choices, &stations);
        world.create_group(&format!("group-{n}"), &members, cadence(&mut choices));
    }
    let numbers: Vec<_> = stations
        .iter()
        .map(|&id| world.station(id).number)
        .collect();
    let last = world.now().plus(ORDERING);
    let orders = 4 + choices.below(9) as usize;
    for n in 0..orders {
        let order = order(&mut choices, n, &numbers);
        let at = if n == 0 {
            last
        } else {
            within(&mut choices, &world, last)
        };
        world.order_at(at, order);
    }
    for &station in &some_of(&mut choices, &stations) {
        let off = within(&mut choices, &world, last);
        world.crash_at(off, station);
        world.start_at(
            off.plus(Duration::from_secs(1 + choices.below(120)))
                .min(last),
            station,
        );
    }
    world.run_until(last.plus(Duration::from_millis(100)));
    let cycles = until_current(&mut world, limit);
    LossOutcome {
        seed,
        cycles,
        lagging: world.stations().find_map(|id| world.lag(id)),
        violations: world.violations().to_vec(),
        terminals: stations.len(),
        orders,
        frames: world.frames().len(),
    }
}

/// Cycles until all are current at once.
fn until_current(world: &mut World, limit: u32) -> Option<f64> {
    let began = world.now();
    let cycle = world.cycle();
    for _ in 0..limit * SAMPLES {
        if world.stations().all(|id| world.lag(id).is_none()) {
            return Some(world.now().since(began).as_secs_f64() / cycle.as_secs_f64());
        }
        world.run_for(cycle / SAMPLES);
    }
    None
}

fn config(choices: &mut Seeded) -> Config {
    Config {
        founding: Founding {
            fleet_period: *choices.pick(&[120, 600, 3600]),
            bits_per_second: *choices.pick(&[20_000, 100_000, 1_000_000]),
            ..Founding::default()
        },
        ..Config::default()
    }
}

fn cadence(choices: &mut Seeded) -> Option<Cadence> {
    *choices.pick(&[
        None,
        Cadence::new(1, 60),
        Cadence::new(3, 300),
        Cadence::new(1, 600),
    ])
}

fn order(choices: &mut Seeded, n: usize, numbers: &[TerminalNumber]) -> Order {
    // Groups are numbered from 1 as they are created; an order for one that is not there yet is
    // refused, and that is one of the things to survive.
    let group = GroupNumber::new(1 + choices.below(4) as u32).expect("not 0");
    let terminal = *choices.pick(numbers);
    match choices.below(8) {
        0..=2 => Order::RenewGroup { group },
        3 => Order::RenewDevices,
        4 => Order::AddTerminal {
            name: format!("late-{n}"),
            sealing: PackageSealing::ToRequest([9; 32]),
            wipe_roots: Vec::new(),
        },
        5 => Order::CreateGroup {
            packets: None,
            name: format!("late-group-{n}"),
            members: some_of(choices, numbers),
            cadence: cadence(choices),
        },
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

/// Orders and power cuts come for so long.
const ORDERING: Duration = Duration::from_secs(300);
/// Looks in a cycle.
const SAMPLES: u32 = 20;
