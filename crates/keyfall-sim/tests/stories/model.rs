//! A model of key sharing and of gap sync, explored breadth first by `stateright`: its transitions are
//! taken by the product's own machines. `--no-capture` shows how many states were explored, and
//! `KEYFALL_STATES` sets how many at the most.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::time::Instant;

use keyfall_protocol::sharing::SharingSuite;
use keyfall_sim::{Bounds, Ground, Step};
use stateright::{Checker, Model, Property};

/// The machines cannot be copied: a state is how it came about, and made again from it.
#[derive(Clone, Debug)]
struct State {
    steps: Vec<Step>,
    name: u64,
    /// What may happen next.
    next: Vec<Step>,
    /// What must never be, and was.
    fault: Option<String>,
    /// What keeps it from settling, where nobody meddles any more.
    stuck: Option<String>,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.name.hash(hasher);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

struct Sharing {
    suite: SharingSuite,
    bounds: Bounds,
}

thread_local! {
    /// Each thread has grounds of its own: the machines' keys do not go from one to the other.
    static GROUNDS: [Ground; 2] = [
        Ground::new(SharingSuite::Psk),
        Ground::new(SharingSuite::Hpke),
    ];
    /// What was found out of states that were met before, by another way.
    static SETTLED: RefCell<HashMap<(Bounds, SharingSuite, u64), Option<String>>> = RefCell::default();
}

impl Sharing {
    fn state(&self, steps: Vec<Step>) -> State {
        GROUNDS.with(|grounds| {
            let ground = &grounds[usize::from(self.suite == SharingSuite::Hpke)];
            let run = ground.after(self.bounds, &steps);
            let (name, next) = (run.name(), run.steps());
            let fault = run.faults().first().cloned();
            let met = (self.bounds, self.suite, name);
            let known = SETTLED.with(|settled| settled.borrow().get(&met).cloned());
            let stuck = known.unwrap_or_else(|| run.settles().err());
            SETTLED.with(|settled| settled.borrow_mut().insert(met, stuck.clone()));
            State {
                steps,
                name,
                next,
                fault,
                stuck,
            }
        })
    }
}

impl Model for Sharing {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![self.state(Vec::new())]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        actions.extend(&state.next);
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let steps = last.steps.iter().copied().chain([step]).collect();
        Some(self.state(steps))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(
                "agreement, no stale key, nothing goes down",
                |_, state: &State| state.fault.is_none(),
            ),
            Property::always("no deadlock: it settles", |_, state: &State| {
                state.stuck.is_none()
            }),
        ]
    }
}

/// Explores until nothing new is found, or so many states.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the figures of the note")]
fn explore(what: &str, suite: SharingSuite, bounds: Bounds, at_most: usize) {
    let at_most = match std::env::var("KEYFALL_STATES") {
        Ok(states) => states.parse().expect("KEYFALL_STATES is a number"),
        Err(_) if cfg!(debug_assertions) => 300,
        Err(_) => at_most,
    };
    let began = Instant::now();
    let checker = Sharing { suite, bounds }
        .checker()
        .threads(2)
        .target_state_count(at_most)
        .spawn_bfs()
        .join();
    let explored = checker.state_count();
    let extent = if explored < at_most {
        "all"
    } else {
        "the first"
    };
    println!(
        "{what}, {}: {extent} {explored} states, {} of them different, {} steps deep, {:.1} s",
        suite.name(),
        checker.unique_state_count(),
        checker.max_depth(),
        began.elapsed().as_secs_f64()
    );
    if let Some((property, path)) = checker.discoveries().into_iter().next() {
        let last = path.last_state();
        panic!(
            "{what}: {property}: {:?} {:?} after {:#?}",
            last.fault, last.stuck, last.steps
        );
    }
}

/// In both suites, to the end.
#[track_caller]
fn explore_all(what: &str, bounds: Bounds) {
    explore(what, SharingSuite::Psk, bounds, usize::MAX);
    explore(what, SharingSuite::Hpke, bounds, usize::MAX);
}

/// In both suites as far as time allows; KEYFALL_STATES says how far else.
#[track_caller]
fn explore_some(what: &str, bounds: Bounds) {
    explore(what, SharingSuite::Psk, bounds, 10_000);
    explore(what, SharingSuite::Hpke, bounds, 4_000);
}

const NOTHING: Bounds = Bounds {
    lost: 0,
    doubled: 0,
    replayed: 0,
    forged: 0,
    crashes: 0,
    server_crashes: 0,
    orders: 0,
    timeouts: 0,
    carried: 0,
};

/// Loss, doubling and any order, with a timer between any two messages; then an order of the
/// operator's, too.
#[test]
fn under_loss_and_doubling_the_terminal_becomes_current() {
    let bounds = Bounds {
        lost: 1,
        doubled: 1,
        timeouts: 1,
        ..NOTHING
    };
    explore_some("loss, doubling, timers", bounds);
    explore_all(
        "loss, orders",
        Bounds {
            doubled: 0,
            timeouts: 0,
            orders: 1,
            ..bounds
        },
    );
}

/// Somebody who replays what was ever sent, and injects what is altered; then across an order of the
/// operator's.
#[test]
fn who_replays_and_injects_brings_no_stale_key() {
    let bounds = Bounds {
        lost: 1,
        replayed: 1,
        forged: 1,
        ..NOTHING
    };
    explore_all("loss, replays, forgeries", bounds);
    explore_some(
        "replays, orders",
        Bounds {
            lost: 0,
            forged: 0,
            orders: 1,
            ..bounds
        },
    );
}

/// Power cuts of both between any two steps: with `hpke` the wrap key is mixed meanwhile.
#[test]
fn power_cuts_of_both_leave_them_able_to_meet() {
    let bounds = Bounds {
        crashes: 1,
        server_crashes: 1,
        ..NOTHING
    };
    explore_all("power cuts", bounds);
    explore_some(
        "power cuts, loss, timers",
        Bounds {
            lost: 1,
            timeouts: 1,
            ..bounds
        },
    );
}

/// Gap sync: frames of a carrier and answers of the server, of different ages, in any order; then
/// with two orders, a power cut and somebody who replays.
#[test]
fn frames_and_answers_of_any_age_agree() {
    let bounds = Bounds {
        orders: 1,
        carried: 1,
        ..NOTHING
    };
    explore_all("gap sync", bounds);
    explore_some(
        "gap sync, replays, power cuts",
        Bounds {
            replayed: 1,
            crashes: 1,
            orders: 2,
            carried: 2,
            ..bounds
        },
    );
}
