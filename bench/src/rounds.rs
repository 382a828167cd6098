//! Interleaved rounds: every contender runs in every round, so that a busy machine slows all alike.

use std::time::Instant;

use serde_json::{Value, json};

/// Something that is measured: runs its work `n` times.
pub struct Contender<'a> {
    pub name: &'static str,
    pub run: Box<dyn FnMut(u32) + 'a>,
}

/// Nanoseconds for one piece of work.
#[derive(Clone, Debug)]
pub struct Timing {
    pub name: &'static str,
    pub best: f64,
    pub median: f64,
}

/// A figure held against its limit.
pub struct Limit {
    pub sentence: String,
    pub limit: f64,
    pub measured: f64,
    pub met: bool,
}

/// What a group of benchmarks brings back.
pub struct Report {
    pub group: &'static str,
    pub tables: Vec<Table>,
    pub limits: Vec<Limit>,
}

pub struct Table {
    pub title: String,
    pub timings: Vec<Timing>,
    /// The row that the ratios are to.
    pub reference: &'static str,
}

impl<'a> Contender<'a> {
    pub fn new(name: &'static str, run: impl FnMut(u32) + 'a) -> Self {
        Self {
            name,
            run: Box::new(run),
        }
    }
}

/// Runs all contenders in `ROUNDS` rounds. A round goes through many short slices, one of each
/// contender in turn, and counts as the median of its slices: a disturbance hits few of them.
pub fn interleave(contenders: &mut [Contender<'_>], slice: u32) -> Vec<Timing> {
    for contender in &mut *contenders {
        (contender.run)(slice);
    }
    let mut rounds = vec![Vec::with_capacity(ROUNDS); contenders.len()];
    for _ in 0..ROUNDS {
        let mut slices = vec![Vec::with_capacity(SLICES); contenders.len()];
        for _ in 0..SLICES {
            for (contender, slices) in contenders.iter_mut().zip(&mut slices) {
                let began = Instant::now();
                (contender.run)(slice);
                slices.push(began.elapsed().as_nanos() as f64 / f64::from(slice));
            }
        }
        for (round, slices) in rounds.iter_mut().zip(slices) {
            round.push(median(slices));
        }
    }
    contenders
        .iter()
        .zip(rounds)
        .map(|(contender, round)| Timing {
            name: contender.name,
            best: round.iter().copied().fold(f64::INFINITY, f64::min),
            median: median(round),
        })
        .collect()
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

impl Limit {
    /// `measured` must not be above `limit`.
    pub fn at_most(sentence: impl Into<String>, limit: f64, measured: f64) -> Self {
        Self {
            sentence: sentence.into(),
            limit,
            measured,
            met: measured <= limit,
        }
    }

    /// `measured` must not be below `limit`.
    pub fn at_least(sentence: impl Into<String>, limit: f64, measured: f64) -> Self {
        Self {
            sentence: sentence.into(),
            limit,
            measured,
            met: measured >= limit,
        }
    }
}

impl Table {
    /// The best round of the row `name`.
    pub fn best(&self, name: &str) -> Option<f64> {
        self.timings
            .iter()
            .find(|timing| timing.name == name)
            .map(|timing| timing.best)
    }
}

impl Report {
    pub fn print(&self) {
        for table in &self.tables {
            println!("{}", table.title);
            println!(
                "  {:<30}{:>14}{:>14}   to {}",
                "", "best ns", "median ns", table.reference
            );
            let reference = table.best(table.reference).unwrap_or(f64::NAN);
            for Timing { name, best, median } in &table.timings {
                println!(
                    "  {name:<30}{best:>14.1}{median:>14.1}   {:.2}x",
                    best / reference
                );
            }
            println!();
        }
        for Limit {
            sentence,
            limit,
            measured,
            met,
        } in &self.limits
        {
            let word = if *met { "ok    " } else { "MISSED" };
            println!("  {word} {sentence}: {measured:.2}, limit {limit:.2}");
        }
        println!();
    }

    pub fn json(&self) -> Value {
        let tables: Vec<_> = self
            .tables
            .iter()
            .map(|table| {
                let rows: Vec<_> = table
                    .timings
                    .iter()
                    .map(|row| json!({"name": row.name, "best_ns": row.best, "median_ns": row.median}))
                    .collect();
                json!({"title": table.title, "rows": rows})
            })
            .collect();
        let limits: Vec<_> = self
            .limits
            .iter()
            .map(|limit| {
                json!({"sentence": limit.sentence, "limit": limit.limit,
                       "measured": limit.measured, "met": limit.met})
            })
            .collect();
        json!({"group": self.group, "ok": self.met(), "tables": tables, "limits": limits})
    }

    pub fn met(&self) -> bool {
        self.limits.iter().all(|limit| limit.met)
    }
}

/// "As best of 5".
pub const ROUNDS: usize = 5;
/// Slices of each contender in one round.
const SLICES: usize = 201;
