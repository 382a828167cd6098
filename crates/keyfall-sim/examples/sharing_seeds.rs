//! Runs the scenario of key sharing for many seeds and prints one line of figures.
//!
//! Usage: cargo run --release -p keyfall-sim --example sharing_seeds -- [COUNT]      default 1000
//! KEYFALL_SEED=N replays one. Exits with 1 where a seed fails, and names it.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use keyfall_sim::{SharingOutcome, survive_sharing};

fn main() -> ExitCode {
    let count: u64 = std::env::args()
        .nth(1)
        .map_or(1000, |count| count.parse().expect("COUNT is a number"));
    let seeds = match std::env::var("KEYFALL_SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("KEYFALL_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..count,
    };
    let began = Instant::now();
    let good: Mutex<Vec<SharingOutcome>> = Mutex::default();
    let (left, failed) = (Mutex::new(seeds), Mutex::new(0));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = left.lock().expect("nobody panics").next();
                    let Some(seed) = seed else { return };
                    let outcome = survive_sharing(seed);
                    if outcome.is_good() {
                        good.lock().expect("nobody panics").push(outcome);
                    } else {
                        *failed.lock().expect("nobody panics") += 1;
                        tell(&outcome);
                    }
                }
            });
        }
    });
    let (good, failed) = (
        good.into_inner().expect("nobody panics"),
        failed.into_inner().expect("nobody panics"),
    );
    let settled = good.iter().filter_map(|outcome| outcome.settled);
    let mut settled: Vec<_> = settled.map(|span| span.as_secs_f64()).collect();
    settled.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (settled.len() as f64 * share) as usize;
        settled
            .get(place.min(settled.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    };
    println!(
        "key sharing, 30 % loss: {} seeds good, {failed} failed; all current after {:.0} s (median), {:.0} s (99 %), {:.0} s (worst) of virtual time; {} terminals, {} datagrams; {:.1} s",
        good.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        good.iter().map(|outcome| outcome.terminals).sum::<usize>(),
        good.iter().map(|outcome| outcome.datagrams).sum::<u64>(),
        began.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}

fn tell(outcome: &SharingOutcome) {
    let seed = outcome.seed;
    println!("seed {seed} failed; KEYFALL_SEED={seed} replays it");
    outcome.lagging.iter().for_each(|lag| println!("  {lag}"));
    outcome.split.iter().for_each(|split| println!("  {split}"));
    let violations = outcome.violations.iter().take(5);
    violations.for_each(|violation| println!("  {violation}"));
}
