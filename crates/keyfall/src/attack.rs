//! `keyfall attack`: a theft in virtual time with the real machines, once for each answer of the
//! fleet, and what the thief can read then. Every number is measured in the run.

mod chart;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Args;
use keyfall_sim::{Answer, Cell, TheftPlan, TheftRun, keys_for_a_year, steal_preloaded};
use serde::Serialize;

use crate::explain::Code;
use crate::output::{Failure, Output};

/// Steal a terminal in virtual time, with all its keys, and show what the thief can read.
///
/// The machines of server and terminals are the real ones; a day passes in seconds, and nothing on
/// this machine or in any fleet is touched. The thief has recorded everything and tries every key.
///
/// Example: keyfall attack --svg theft.svg
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct AttackArgs {
    /// Write the chart to this file: the share of the traffic that the thief reads, over the time
    /// since the theft.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// All randomness of the run.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// The JSON document.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    seed: u64,
    plan: Plan,
    matrix: Vec<Row>,
    /// By keys, beyond what the matrix allows: must be 0.
    thief_opened: usize,
    thief_opened_allowed: usize,
    series: Vec<Series>,
    /// Octets that the stolen terminal had stored in all.
    terminal_octets: usize,
    preloaded: Preloaded,
}

/// Seconds, all of them.
#[derive(Debug, Serialize)]
struct Plan {
    renewal_period: u32,
    rank_one_keep_time: u32,
    theft_after_renewal: u32,
    order_after_theft: u32,
    exposure_bound: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    answer: &'static str,
    recorded_media: Count,
    recorded_distributions: Count,
    media_before_the_order: Count,
    media_after_the_order: Count,
    distributions_before_the_order: Count,
    distributions_after_the_order: Count,
    /// Of a group that is not the stolen terminal's.
    of_others: Count,
}

#[derive(Debug, Serialize)]
struct Count {
    recorded: usize,
    opened: usize,
    beyond: usize,
    /// Before the theft, of the oldest that opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_seconds: Option<u64>,
}

/// One curve of the chart.
#[derive(Debug, Serialize)]
struct Series {
    name: &'static str,
    remark: String,
    /// Hours since the theft at which the stretch begins, and the share of its traffic in per cent.
    points: Vec<(f64, f64)>,
    /// The same by the columns of the table.
    #[serde(skip)]
    stretches: Vec<f64>,
}

/// REQUIREMENTS R-110.
#[derive(Debug, Serialize)]
struct Preloaded {
    keys: usize,
    octets: usize,
}

pub(crate) fn run(args: &AttackArgs, output: &Output) -> Result<(), Failure> {
    let plan = TheftPlan::default();
    let runs = play_all(&plan, args.seed);
    let report = Report::of(&plan, args.seed, &runs);
    if let Some(file) = &args.svg {
        std::fs::write(file, chart::draw(&plan, &report.series)).map_err(|error| {
            let file = file.display();
            Failure::new(Code::Output, format!("cannot write {file}: {error}"))
        })?;
    }
    output.versioned(&report, Report::for_people)?;
    if report.ok {
        Ok(())
    } else {
        Err(Failure::shown(Code::Unexpected))
    }
}

/// One run for each answer, as many at a time as there are processors.
fn play_all(plan: &TheftPlan, seed: u64) -> BTreeMap<Answer, TheftRun> {
    let began = Instant::now();
    let waiting = Mutex::new(Answer::ALL.to_vec());
    let done = Mutex::new(BTreeMap::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers.min(Answer::ALL.len()) {
            scope.spawn(|| {
                while let Some(answer) = next(&waiting) {
                    let run = plan.run(seed, answer);
                    let mut done = done.lock().expect("no worker panics with the lock");
                    done.insert(answer, run);
                    tell_progress(began, done.len());
                }
            });
        }
    });
    done.into_inner().expect("no worker panics with the lock")
}

fn next(waiting: &Mutex<Vec<Answer>>) -> Option<Answer> {
    waiting
        .lock()
        .expect("no worker panics with the lock")
        .pop()
}

/// Whoever waits for longer than a second sees that it goes on.
fn tell_progress(began: Instant, done: usize) {
    if began.elapsed() > Duration::from_secs(1) {
        let all = Answer::ALL.len();
        // Where stderr is closed nobody waits.
        let _shown = writeln!(std::io::stderr(), "attack: {done} of {all} thefts played").is_ok();
    }
}

impl Report {
    fn of(plan: &TheftPlan, seed: u64, runs: &BTreeMap<Answer, TheftRun>) -> Self {
        let of_matrix = || Answer::MATRIX.iter().filter_map(|answer| runs.get(answer));
        let thief_opened = of_matrix().map(TheftRun::opened_beyond).sum();
        let quiet = runs.values().all(|run| run.violations.is_empty());
        let preloaded = steal_preloaded(plan, keys_for_a_year(plan.period), seed);
        let mut series: Vec<_> = CURVES
            .iter()
            .filter_map(|&(answer, name)| {
                let run = runs.get(&answer)?;
                Some(Series::of(plan, name, remark(answer), &run.traffic))
            })
            .collect();
        let stock = format!(
            "{} keys for a year: {} octets in each terminal, for each group; no order helps",
            preloaded.keys,
            thousands(preloaded.stored)
        );
        let name = "preloaded keys";
        series.push(Series::of(plan, name, stock, &preloaded.traffic));
        Self {
            ok: thief_opened == 0 && quiet,
            seed,
            plan: Plan {
                renewal_period: plan.period,
                rank_one_keep_time: plan.keep_time,
                theft_after_renewal: plan.phase,
                order_after_theft: plan.reported_after,
                exposure_bound: plan.bound().as_secs(),
            },
            matrix: of_matrix().map(Row::of).collect(),
            thief_opened,
            thief_opened_allowed: of_matrix().map(TheftRun::opened_allowed).sum(),
            series,
            terminal_octets: runs.values().map(|run| run.stored).max().unwrap_or(0),
            preloaded: Preloaded {
                keys: preloaded.keys,
                octets: preloaded.stored,
            },
        }
    }

    fn for_people(&self) -> String {
        let plan = &self.plan;
        let mut text = format!(
            "A theft in virtual time, with the real machines. Keys renew after {}; rank-1 keys are kept {} longer.\nBob's terminal is stolen with its memory and its disk {} s after a renewal, the worst moment; the \
             order comes {} later.\nThe thief has recorded everything and tries every key.\n\n",
            clock(plan.renewal_period.into()),
            clock(plan.rank_one_keep_time.into()),
            plan.theft_after_renewal,
            clock(plan.order_after_theft.into()),
        );
        text += &line(
            "",
            [
                "recorded media",
                "recorded distributions",
                "media after the order",
            ],
        );
        for row in &self.matrix {
            let cells = [
                &row.recorded_media,
                &row.recorded_distributions,
                &row.media_after_the_order,
            ];
            text += &line(
                row.answer,
                cells.map(Count::for_people).each_ref().map(String::as_str),
            );
        }
        text += &format!(
            "\nTimes: before the theft, of the oldest that opened; at most max(grace, period + keep time) = {}, and as \
             much longer as\na terminal's clock is behind, 2 s at most.\n\n\
             thief_opened          {:>6}   beyond the matrix; must be 0\n\
             thief_opened_allowed  {:>6}   within it\n\n",
            clock(plan.exposure_bound),
            self.thief_opened,
            self.thief_opened_allowed,
        );
        text += "The share of the group's traffic that the thief reads, by when it was sent, in per cent:\n";
        text += &format!("{:<36}", "");
        for (name, ..) in STRETCHES {
            text += &format!("{name:>14}");
        }
        text += "\n";
        for series in &self.series {
            text += &format!("{:<36}", series.name);
            for share in &series.stretches {
                text += &format!("{share:>14.1}");
            }
            text += "\n";
        }
        text += &format!(
            "\nStored in the stolen terminal: {} octets in all. Keys put in beforehand to last a year: {} octets for each \
             group.\n",
            thousands(self.terminal_octets),
            thousands(self.preloaded.octets)
        );
        text
    }
}

impl Row {
    fn of(run: &TheftRun) -> Self {
        Self {
            answer: row_name(run.answer),
            recorded_media: Count::past(&run.recorded_media),
            recorded_distributions: Count::past(&run.recorded_distributions),
            media_before_the_order: Count::of(&run.media_before_the_order),
            media_after_the_order: Count::of(&run.media_after_the_order),
            distributions_before_the_order: Count::of(&run.distributions_before_the_order),
            distributions_after_the_order: Count::of(&run.distributions_after_the_order),
            of_others: Count::of(&run.of_others),
        }
    }
}

impl Count {
    fn of(cell: &Cell) -> Self {
        Self {
            recorded: cell.recorded,
            opened: cell.opened(),
            beyond: cell.beyond,
            oldest_seconds: None,
        }
    }

    fn past(cell: &Cell) -> Self {
        Self {
            oldest_seconds: cell.oldest.map(|oldest| oldest.as_secs()),
            ..Self::of(cell)
        }
    }

    fn for_people(&self) -> String {
        let mut text = match self.opened {
            0 => format!("nothing of {}", self.recorded),
            opened => format!("{opened} of {}", self.recorded),
        };
        if let Some(oldest) = self.oldest_seconds {
            text += &format!(", {}", clock(oldest));
        }
        if self.beyond > 0 {
            text += &format!(", {} BEYOND", self.beyond);
        }
        text
    }
}

impl Series {
    fn of(plan: &TheftPlan, name: &'static str, remark: String, traffic: &[(i64, bool)]) -> Self {
        let mut bins: BTreeMap<i64, Vec<bool>> = BTreeMap::new();
        for &(since, read) in traffic {
            bins.entry(since.div_euclid(BIN)).or_default().push(read);
        }
        let order = i64::from(plan.reported_after);
        let stretches = STRETCHES.iter().map(|&(_, from, until)| {
            let (from, until) = (from(order), until(order));
            let within = traffic
                .iter()
                .filter(|(since, _)| (from..until).contains(since));
            share(within.map(|&(_, read)| read))
        });
        let points = bins.iter().map(|(&bin, read)| {
            let hours = (bin * BIN) as f64 / 3600.0;
            (hours, share(read.iter().copied()))
        });
        Self {
            name,
            remark,
            points: points.collect(),
            stretches: stretches.collect(),
        }
    }
}

/// Per cent that are true; 0 of nothing.
fn share(read: impl Iterator<Item = bool>) -> f64 {
    let (mut all, mut opened) = (0_u32, 0_u32);
    for read in read {
        all += 1;
        opened += u32::from(read);
    }
    f64::from(opened) * 100.0 / f64::from(all.max(1))
}

fn line(name: &str, cells: [&str; 3]) -> String {
    let [media, distributions, after] = cells;
    format!("{name:<32}{media:<26}{distributions:<26}{after}\n")
}

/// `280,320`.
fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1:01:59`, or `2 min`, whichever says it shorter.
fn clock(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, 0) => format!("{minutes} min"),
        (hours, 0, 0) => format!("{hours} h"),
        (hours, minutes, seconds) => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

fn row_name(answer: Answer) -> &'static str {
    match answer {
        Answer::NoRenewal => "no renewal",
        Answer::RenewOnly => "renewal only",
        Answer::DeleteHeard => "deletion heard",
        Answer::DeleteJammed => "deletion jammed",
        Answer::ExcludeHeard => "exclusion heard, no deletion",
        Answer::ExcludeJammed => "exclusion, terminal jammed",
    }
}

fn remark(answer: Answer) -> String {
    let remark = match answer {
        Answer::NoRenewal => "one key for ever: everything, before and after",
        Answer::RenewOnly => "the past is closed but for the exposure; the future is open",
        Answer::DeleteHeard => {
            "heard before the case is opened; until then the terminal works for the thief"
        }
        Answer::DeleteJammed => "the thief keeps the order away: as without it",
        Answer::ExcludeHeard | Answer::ExcludeJammed => {
            "a fresh key that the thief does not get, whether or not the terminal hears of it"
        }
    };
    remark.to_owned()
}

/// What the chart shows, from top to bottom; the preloaded keys come last.
const CURVES: [(Answer, &str); 5] = [
    (Answer::NoRenewal, "no renewal"),
    (Answer::RenewOnly, "renewal only"),
    (Answer::DeleteJammed, "renewal + deletion, jammed"),
    (Answer::DeleteHeard, "renewal + deletion, heard"),
    (Answer::ExcludeJammed, "renewal + exclusion, jammed"),
];

/// A column of the table: from when until when, for a given time of the order.
type Stretch = (&'static str, fn(i64) -> i64, fn(i64) -> i64);

const STRETCHES: [Stretch; 5] = [
    ("-6 to -2 h", |_| -6 * 3600, |_| -2 * 3600),
    ("-2 to -1 h", |_| -2 * 3600, |_| -3600),
    ("-1 h to theft", |_| -3600, |_| 0),
    ("to the order", |_| 0, |order| order),
    ("after it", |order| order + 1, |_| i64::MAX),
];
/// Seconds of one stretch of the chart.
const BIN: i64 = 900;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_are_shown_for_people() {
        assert_eq!(
            [0, 627, 1000, 280_320].map(thousands),
            ["0", "627", "1,000", "280,320"]
        );
        assert_eq!(
            [0, 120, 3600, 3719].map(clock),
            ["0 min", "2 min", "1 h", "1:01:59"]
        );
    }

    /// A stretch without traffic reads as nothing read.
    #[test]
    fn a_share_is_of_what_was_sent() {
        assert_eq!(share([true, false, false, false].into_iter()), 25.0);
        assert_eq!(share(std::iter::empty()), 0.0);
    }
}
