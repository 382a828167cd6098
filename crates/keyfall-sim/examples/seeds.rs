//! Runs the loss scenario for many seeds and prints one line of figures.
//!
//! Usage: cargo run --release -p keyfall-sim --example seeds -- [COUNT]      default 1000
//! KEYFALL_SEED=N replays one. Exits with 1 where a seed fails, and names it.

#![expect(clippy::print_stdout, reason = "the figures are its output")]

use std::process::ExitCode;
use std::time::Instant;

use keyfall_sim::{LossOutcome, survive_losses};

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
    let mut good: Vec<LossOutcome> = Vec::new();
    let mut failed = 0;
    for seed in seeds {
        let outcome = survive_losses(seed, CYCLES);
        if outcome.is_good() {
            good.push(outcome);
        } else {
            failed += 1;
            println!("seed {seed} failed; KEYFALL_SEED={seed} replays it");
            outcome.lagging.iter().for_each(|lag| println!("  {lag}"));
            outcome
                .violations
                .iter()
                .take(5)
                .for_each(|violation| println!("  {violation}"));
        }
        if (seed + 1) % 100 == 0 {
            println!("{} seeds, {:.0} s", seed + 1, began.elapsed().as_secs_f64());
        }
    }
    let mut cycles: Vec<f64> = good.iter().filter_map(|outcome| outcome.cycles).collect();
    cycles.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (cycles.len() as f64 * share) as usize;
        cycles
            .get(place.min(cycles.len().saturating_sub(1)))
            .copied()
            .unwrap_or(f64::NAN)
    };
    println!(
        "30 % loss: {} seeds good, {failed} failed; current after {:.2} cycles (median), {:.2} (99 %), {:.2} (worst), limit {CYCLES}; {} terminals, {} orders, {} frames; {:.1} s",
        good.len(),
        at(0.5),
        at(0.99),
        at(1.0),
        good.iter().map(|outcome| outcome.terminals).sum::<usize>(),
        good.iter().map(|outcome| outcome.orders).sum::<usize>(),
        good.iter().map(|outcome| outcome.frames).sum::<usize>(),
        began.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}

const CYCLES: u32 = 16;
