//! The two published figures, drawn again (REQUIREMENTS F-07, F-08): the parts of the sequence with
//! the time of silence against the size of a group, and the time until ACK against the length of RSA
//! keys.

use super::parts::Parts;
use super::report::Report;
use crate::chart::{LEFT, RIGHT, Sheet, escape};

pub(super) fn draw(report: &Report) -> String {
    let rows = 2 * report.parts.len();
    let silence = BARS + ROW * rows as f64 + GAP;
    let lengths = silence + PLOT + GAP;
    let mut sheet = Sheet::new(
        lengths + PLOT + 40.0,
        "Key sharing over UDP: parts of the sequence, silence of a group, time until ACK",
        "What key sharing takes",
        "measured with the real machines (keyfall bench sharing); both sides' work, without a network unless it is said",
    );
    parts(&mut sheet, report);
    stops(&mut sheet, silence, report);
    rsa(&mut sheet, lengths, report);
    sheet.end()
}

/// One bar for each part and suite.
fn parts(sheet: &mut Sheet, report: &Report) {
    heading(
        sheet,
        BARS - 28.0,
        "The sequence with one terminal, µs, part by part",
    );
    let longest = report
        .parts
        .values()
        .flat_map(|it| [it.until_ack, it.stop_to_start]);
    let scale = (RIGHT - WORDS - 60.0) / longest.fold(1.0, f64::max);
    let mut top = BARS;
    for (suite, it) in &report.parts {
        for (what, bars) in [
            ("KEY-REQ to ACK", sharing(it)),
            ("STOP to START", changing(it)),
        ] {
            text(sheet, "", (LEFT, top + 13.0), &format!("{suite}, {what}"));
            let mut at = WORDS;
            for (place, (name, took)) in bars.iter().enumerate() {
                let width = took * scale;
                sheet.push(format_args!(
                    "<rect class=\"c{place}\" x=\"{at:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{:.1}\"><title>{}: \
                     {took:.1} µs</title></rect>\n",
                    ROW - 8.0,
                    escape(name)
                ));
                at += width;
            }
            let all: f64 = bars.iter().map(|(_, took)| took).sum();
            text(sheet, "faint", (at + 6.0, top + 13.0), &format!("{all:.0}"));
            top += ROW;
        }
    }
    let mut at = LEFT;
    for (place, name) in [
        "terminal asks | server says STOP",
        "server answers | terminal stops",
        "terminal takes | server says START",
        "server checks ACK | terminal starts",
        "server checks",
    ]
    .into_iter()
    .enumerate()
    {
        sheet.push(format_args!(
            "<rect class=\"c{place}\" x=\"{at:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\"/>\n",
            top + 4.0
        ));
        small(sheet, (at + 13.0, top + 12.0), name);
        at += 170.0;
    }
}

fn sharing(it: &Parts) -> Vec<(&'static str, f64)> {
    vec![
        ("terminal makes KEY-REQ", it.key_req),
        ("server answers KEY-DIS", it.key_dis),
        ("terminal takes the key, ACK", it.ack),
        ("server checks ACK", it.ack_checked),
    ]
}

fn changing(it: &Parts) -> Vec<(&'static str, f64)> {
    vec![
        ("server signs STOP", it.stop),
        ("terminal stops", it.stop_ack),
        ("server checks, signs START", it.start),
        ("terminal starts", it.start_ack),
        ("server checks START-ACK", it.start_ack_checked),
    ]
}

/// Both axes by powers of ten.
fn stops(sheet: &mut Sheet, top: f64, report: &Report) {
    heading(
        sheet,
        top - 12.0,
        "Silence of a group, ms, over the number of its members",
    );
    let plot = Plot {
        top,
        x: Axis::Powers(1.0, 100_000.0),
        y: Axis::Powers(0.1, 1_000_000.0),
    };
    plot.frame(sheet, &[1.0, 10.0, 100.0, 1e3, 1e4, 1e5], "members");
    let curve = |of: fn(&super::stop::Stop) -> f64| -> Vec<(f64, f64)> {
        let all = report.stop.iter();
        all.map(|it| (f64::from(it.members), of(it))).collect()
    };
    // 4.1 ms each, as published.
    let published = report.stop.iter().map(|it| f64::from(it.members));
    let published: Vec<_> = published.map(|n| (n, 4.1 * n)).collect();
    let curves = [
        ("published: one by one, two routers", published, true),
        (
            "one by one, two routers",
            curve(|it| it.sequential_with_routers_ms),
            false,
        ),
        (
            "barrier, all members on one core",
            curve(|it| it.barrier_ms),
            false,
        ),
        (
            "the server's part of the barrier",
            curve(|it| it.barrier_server_ms),
            false,
        ),
    ];
    for (place, (name, points, dashed)) in curves.iter().enumerate() {
        plot.curve(sheet, place, points, *dashed);
        legend(sheet, top + 16.0 + 18.0 * place as f64, place, name);
    }
    let y = top + 16.0 + 18.0 * curves.len() as f64;
    small(sheet, (LEFT + 12.0, y), "hitless: 0 at every size");
    small(
        sheet,
        (LEFT + 12.0, y + 16.0),
        "beyond 1,000 members reckoned from the cost of each",
    );
}

fn rsa(sheet: &mut Sheet, top: f64, report: &Report) {
    heading(
        sheet,
        top - 12.0,
        "Time until ACK, ms, over the length of RSA keys, bits",
    );
    let plot = Plot {
        top,
        x: Axis::Even(0.0, 8_704.0),
        y: Axis::Powers(0.01, 1_000.0),
    };
    let ticks = [512.0, 1024.0, 2048.0, 3072.0, 4096.0, 8192.0];
    plot.frame(sheet, &ticks, "bits");
    let points = |all: &[super::legacy::RsaLength]| -> Vec<(f64, f64)> {
        all.iter()
            .map(|it| (f64::from(it.bits), it.until_ack / 1e3))
            .collect()
    };
    plot.curve(sheet, 0, &points(&report.rsa_misty1), false);
    legend(sheet, top + 16.0, 0, "rsa-misty1, the product");
    if !report.short_rsa.is_empty() {
        plot.curve(sheet, 1, &points(&report.short_rsa), true);
        legend(
            sheet,
            top + 34.0,
            1,
            "shorter keys, by another library (bench)",
        );
    }
    for (place, (suite, it)) in report.parts.iter().enumerate() {
        let took = it.until_ack / 1e3;
        let y = plot.y(took);
        sheet.line(&format!("s{}", place + 3), (LEFT, y), (RIGHT, y));
        sheet.push(format_args!(
            "<text class=\"c{}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\">{suite} {took:.2}</text>\n",
            place + 3,
            RIGHT,
            y - 3.0
        ));
    }
}

/// An area with two axes.
struct Plot {
    top: f64,
    x: Axis,
    y: Axis,
}

#[derive(Clone, Copy)]
enum Axis {
    Even(f64, f64),
    /// By powers of ten.
    Powers(f64, f64),
}

impl Axis {
    /// 0 to 1.
    fn place(self, value: f64) -> f64 {
        let (from, until, value) = match self {
            Self::Even(from, until) => (from, until, value),
            Self::Powers(from, until) => (from.log10(), until.log10(), value.max(from).log10()),
        };
        ((value - from) / (until - from)).clamp(0.0, 1.0)
    }

    /// Where lines stand across.
    fn lines(self) -> Vec<f64> {
        match self {
            Self::Even(from, until) => vec![from, until],
            Self::Powers(from, until) => {
                let (from, until) = (from.log10().round() as i32, until.log10().round() as i32);
                (from..=until).map(|power| 10_f64.powi(power)).collect()
            }
        }
    }
}

impl Plot {
    fn x(&self, value: f64) -> f64 {
        LEFT + self.x.place(value) * (RIGHT - LEFT)
    }

    fn y(&self, value: f64) -> f64 {
        self.top + PLOT - GAP - self.y.place(value) * (PLOT - GAP)
    }

    fn frame(&self, sheet: &mut Sheet, ticks: &[f64], unit: &str) {
        for value in self.y.lines() {
            let y = self.y(value);
            sheet.line("grid", (LEFT, y), (RIGHT, y));
            sheet.push(format_args!(
                "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"10\">{value}</text>\n",
                LEFT - 5.0,
                y + 4.0
            ));
        }
        let bottom = self.top + PLOT - GAP;
        sheet.line("axis", (LEFT, bottom), (RIGHT, bottom));
        for &tick in ticks {
            let x = self.x(tick);
            sheet.line("axis", (x, bottom), (x, bottom + 5.0));
            sheet.push(format_args!(
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-size=\"11\">{tick}</text>\n",
                bottom + 18.0
            ));
        }
        sheet.push(format_args!(
            "<text class=\"faint\" x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\">{unit}</text>\n",
            bottom + 32.0
        ));
    }

    fn curve(&self, sheet: &mut Sheet, place: usize, points: &[(f64, f64)], dashed: bool) {
        let at = |&(x, y): &(f64, f64)| (self.x(x), self.y(y));
        let path = points.iter().map(at);
        let path = path.map(|(x, y)| format!("{x:.1},{y:.1}"));
        let dashed = if dashed { " reckoned" } else { "" };
        sheet.push(format_args!(
            "<polyline class=\"s{place}{dashed}\" points=\"{}\"/>\n",
            path.collect::<Vec<_>>().join(" ")
        ));
        for (x, y) in points.iter().map(at) {
            sheet.push(format_args!(
                "<circle class=\"c{place}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>\n"
            ));
        }
    }
}

fn heading(sheet: &mut Sheet, y: f64, words: &str) {
    sheet.push(format_args!(
        "<text x=\"{LEFT}\" y=\"{y:.1}\" font-weight=\"600\">{}</text>\n",
        escape(words)
    ));
}

fn legend(sheet: &mut Sheet, y: f64, place: usize, words: &str) {
    let x = LEFT + 12.0;
    sheet.push(format_args!(
        "<rect class=\"c{place}\" x=\"{x:.1}\" y=\"{:.1}\" width=\"9\" height=\"9\"/>\n",
        y - 9.0
    ));
    small(sheet, (x + 14.0, y), words);
}

fn small(sheet: &mut Sheet, (x, y): (f64, f64), words: &str) {
    sheet.push(format_args!(
        "<text class=\"faint\" x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"11\">{}</text>\n",
        escape(words)
    ));
}

fn text(sheet: &mut Sheet, class: &str, (x, y): (f64, f64), words: &str) {
    sheet.push(format_args!(
        "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>\n",
        escape(words)
    ));
}

/// Where the bars begin, from above and after their names.
const BARS: f64 = 96.0;
const WORDS: f64 = 220.0;
const ROW: f64 = 26.0;
/// Of a plot with what stands under it.
const PLOT: f64 = 300.0;
const GAP: f64 = 64.0;
