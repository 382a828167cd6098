//! A sequence as SVG: a line down for the server and each terminal, an arrow for each message, time from
//! top to bottom in steps, not to scale.

use std::net::SocketAddr;
use std::time::Duration;

use super::sequence::{Lifeline, Role, Sequence, Sort, Step, count};
use crate::chart::{LEFT, Sheet, WIDTH, escape};

pub(super) fn draw(sequence: &Sequence) -> String {
    let rows = rows(&sequence.steps);
    let bottom = rows.last().map_or(TOP, |(y, _)| *y) + 24.0;
    let (places, width) = places(&sequence.lifelines);
    let mut sheet = Sheet::sized(
        (width, bottom + 20.0),
        "Key sharing as it was captured, message by message",
        "Who said what to whom",
        &escape(&remark(sequence)),
    );
    let names = names(&sequence.lifelines);
    for ((lifeline, name), x) in sequence.lifelines.iter().zip(&names).zip(&places) {
        head(&mut sheet, *x, name, lifeline.address);
        sheet.line("axis", (*x, TOP - 32.0), (*x, bottom));
    }
    let mut before = Duration::ZERO;
    for (y, step) in rows {
        let waited = step.after.saturating_sub(before);
        if waited >= PAUSE {
            pause(&mut sheet, y - ROW, width, waited);
        }
        before = step.after;
        arrow(&mut sheet, &places, y, step);
    }
    sheet.end()
}

/// Each step with its height on the sheet.
fn rows(steps: &[Step]) -> Vec<(f64, &Step)> {
    let (mut y, mut before) = (TOP - ROW, Duration::ZERO);
    let mut rows = Vec::with_capacity(steps.len());
    for step in steps {
        let waited = step.after.saturating_sub(before) >= PAUSE;
        y += if waited { ROW + PAUSE_ROW } else { ROW };
        before = step.after;
        rows.push((y, step));
    }
    rows
}

fn remark(sequence: &Sequence) -> String {
    let number = |role| {
        let of_role = sequence.lifelines.iter().filter(|it| it.role == role);
        of_role.count()
    };
    let last = sequence.steps.last();
    let over = last.map_or_else(String::new, |step| time(step.after));
    let mut remark = format!(
        "{} in {over}, as captured (keyfall inspect --svg); octets of UDP, all parts of a message together",
        count(sequence.steps.len(), "message"),
    );
    if number(Role::Server) > 1 {
        remark += &format!("; {} servers", number(Role::Server));
    }
    if sequence.not_drawn > 0 {
        remark += &format!("; {} more not drawn", sequence.not_drawn);
    }
    remark
}

/// Where the lifelines stand, evenly, and the width of the sheet: that of every chart, or more where
/// addresses would run into each other.
fn places(lifelines: &[Lifeline]) -> (Vec<f64>, f64) {
    let addresses = lifelines.iter().map(|it| it.address.to_string());
    let widest = addresses.map(|it| width(&it, 11.0)).fold(0.0, f64::max);
    let gaps = lifelines.len().saturating_sub(1).max(1) as f64;
    let edge = (widest / 2.0 + 12.0).max(WIDTH - LAST);
    let apart = ((WIDTH - edge - FIRST) / gaps).max(widest + 16.0);
    let places = (0..lifelines.len()).map(|n| FIRST + apart * n as f64);
    (places.collect(), FIRST + apart * gaps + edge)
}

/// Terminals are numbered where there are several.
fn names(lifelines: &[Lifeline]) -> Vec<String> {
    let count = |role| lifelines.iter().filter(|it| it.role == role).count();
    let mut seen = [0, 0];
    let name = |it: &Lifeline| {
        let (place, word) = match it.role {
            Role::Server => (0, "server"),
            Role::Terminal => (1, "terminal"),
            Role::Collector => return "who collects".to_owned(),
            Role::Listeners => return "who listens".to_owned(),
            Role::Sought => return "who is sought".to_owned(),
        };
        seen[place] += 1;
        match count(it.role) {
            1 => word.to_owned(),
            _ => format!("{word} {}", seen[place]),
        }
    };
    lifelines.iter().map(name).collect()
}

fn head(sheet: &mut Sheet, x: f64, name: &str, address: SocketAddr) {
    let (y, below) = (TOP - 52.0, TOP - 38.0);
    sheet.push(format_args!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" font-weight=\"600\">{name}</text>\n\
         <text class=\"faint\" x=\"{x:.1}\" y=\"{below:.1}\" text-anchor=\"middle\" font-size=\"11\">{address}</text>\n"
    ));
}

/// Time in which nothing was said.
fn pause(sheet: &mut Sheet, y: f64, sheet_width: f64, long: Duration) {
    let end = sheet_width - LEFT / 2.0;
    sheet.line("grid again", (LEFT, y), (end, y));
    let long = format!("{} later", time(long));
    let x = FIRST + 120.0;
    let wide = width(&long, 11.0);
    under(sheet, (x - wide / 2.0, y - 7.0), wide);
    sheet.push(format_args!(
        "<text class=\"faint\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{long}</text>\n",
        y + 4.0
    ));
}

/// Paper under words, where a lifeline would go through them.
fn under(sheet: &mut Sheet, (x, y): (f64, f64), wide: f64) {
    let x = x - 4.0;
    let wide = wide + 8.0;
    sheet.push(format_args!(
        "<rect class=\"paper\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"14\"/>\n"
    ));
}

/// About as wide as words of this size are.
fn width(words: &str, size: f64) -> f64 {
    words.chars().count() as f64 * size * 0.56
}

/// The line, a head at each who gets it, and above it what it is.
fn arrow(sheet: &mut Sheet, places: &[f64], y: f64, step: &Step) {
    let (fill, stroke) = colour(step.sort);
    let place = |n: usize| places.get(n).copied().unwrap_or(FIRST);
    let start = place(step.from);
    let ends = step.to.iter().copied().map(place);
    let low = ends.clone().fold(start, f64::min);
    let high = ends.clone().fold(start, f64::max);
    let again = if step.repeat > 0 { " again" } else { "" };
    sheet.push(format_args!(
        "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\">{}</text>\n",
        LEFT + 34.0,
        y + 4.0,
        time(step.after)
    ));
    sheet.line(&format!("arrow {stroke}{again}"), (low, y), (high, y));
    for end in ends {
        let back = if end < start { HEAD } else { -HEAD };
        sheet.push(format_args!(
            "<path class=\"{fill}\" d=\"M{end:.1} {y:.1}l{back:.1} -4.5v9z\"/>\n"
        ));
    }
    let words = words(step);
    let wide = width(step.name, 15.0) + 7.0 + width(&words, 11.0);
    under(sheet, (low + 14.0, y - 17.0), wide);
    sheet.push(format_args!(
        "<circle class=\"{fill}\" cx=\"{start:.1}\" cy=\"{y:.1}\" r=\"3\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\"><tspan font-weight=\"600\">{}</tspan>\
         <tspan class=\"faint\" dx=\"7\" font-size=\"11\">{}</tspan></text>\n",
        low + 14.0,
        y - 6.0,
        step.name,
        escape(&words)
    ));
}

/// What stands behind the name.
fn words(step: &Step) -> String {
    let mut words = vec![];
    if !step.detail.is_empty() {
        words.push(step.detail.clone());
    }
    let octets = step.octets;
    words.push(match step.parts {
        None => format!("{octets} octets"),
        Some((seen, all)) if seen == all => format!("{octets} octets in {all} parts"),
        Some((seen, all)) => format!("{octets} octets, {seen} of {all} parts"),
    });
    if step.to_all {
        words.push("to all".to_owned());
    } else if step.to.len() > 1 {
        words.push(format!("to {}", step.to.len()));
    }
    if step.repeat > 0 {
        words.push(format!("again ({})", step.repeat + 1));
    }
    words.join(" · ")
}

fn time(after: Duration) -> String {
    if after < Duration::from_secs(1) {
        format!("{:.1} ms", after.as_secs_f64() * 1e3)
    } else {
        format!("{:.4} s", after.as_secs_f64())
    }
}

/// Of the head and of the line.
const fn colour(sort: Sort) -> (&'static str, &'static str) {
    match sort {
        Sort::Asks => ("c4", "s4"),
        Sort::BringsKeys => ("c2", "s2"),
        Sort::Confirms => ("c5", "s5"),
        Sort::Stops => ("c0", "s0"),
        Sort::Starts => ("c3", "s3"),
        Sort::Orders => ("c1", "s1"),
    }
}

/// Of the first lifeline, and of the last one where there is room.
const FIRST: f64 = 150.0;
const LAST: f64 = 770.0;
/// Of the first arrow.
const TOP: f64 = 132.0;
const ROW: f64 = 32.0;
/// Silence as long as this is said.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_ROW: f64 = 22.0;
/// Length of an arrow's head.
const HEAD: f64 = 9.0;
