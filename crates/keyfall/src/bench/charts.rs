//! The two published figures, drawn again (REQUIREMENTS F-07, F-08): the parts of the sequence with
//! the time of silence against the size of a group, and the time until ACK against the length of RSA
//! keys.

use super::parts::Parts;
use super::report::Report;
use super::stop::Stop;
use crate::chart::{LEFT, RIGHT, Sheet, escape};

pub(super) fn draw(report: &Report) -> String {
    let rows = 2 * report.parts.len();
    let silence = BARS + ROW * rows as f64 + LEGENDS + HEADING;
    let lengths = silence + PLOT + TICKS + HEADING;
    let mut sheet = Sheet::new(
        lengths + PLOT + TICKS,
        "Key sharing over UDP: parts of the sequence, silence of a group, time until ACK",
        "What key sharing takes",
        "measured with the real machines (keyfall bench sharing); the work of both sides, the network takes no time",
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
        BARS - 12.0,
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
    for (line, (part, names)) in [
        ("KEY-REQ to ACK", &SHARING[..]),
        ("STOP to START", &CHANGING[..]),
    ]
    .into_iter()
    .enumerate()
    {
        let y = top + 14.0 + 17.0 * line as f64;
        small(sheet, (LEFT, y), part);
        for (place, name) in names.iter().enumerate() {
            key(sheet, (LEFT + 104.0 + 136.0 * place as f64, y), place, name);
        }
    }
}

fn sharing(it: &Parts) -> Vec<(&'static str, f64)> {
    let took = [it.key_req, it.key_dis, it.ack, it.ack_checked];
    SHARING.into_iter().zip(took).collect()
}

fn changing(it: &Parts) -> Vec<(&'static str, f64)> {
    let took = [
        it.stop,
        it.stop_ack,
        it.start,
        it.start_ack,
        it.start_ack_checked,
    ];
    CHANGING.into_iter().zip(took).collect()
}

/// Both axes by powers of ten.
fn stops(sheet: &mut Sheet, top: f64, report: &Report) {
    heading(
        sheet,
        top - 14.0,
        "Silence of a group while its key changes, over the number of its members",
    );
    let plot = Plot {
        top,
        x: Axis::Powers(1.0, 100_000.0),
        y: Axis::Powers(0.1, 1_000_000.0),
    };
    plot.frame(sheet, &[1.0, 10.0, 100.0, 1e3, 1e4, 1e5], "members");
    let all = &report.stop;
    let measured = all.iter().filter(|it| it.measured).count();
    let curves: [(&str, usize, Silence); 5] = [
        // It was measured by its authors, with one member.
        ("one by one as published, 4.1 ms each", 1, |it| {
            4.1 * f64::from(it.members)
        }),
        ("one by one, across two routers", measured, |it| {
            it.sequential_with_routers_ms
        }),
        ("barrier, all members on one core", measured, |it| {
            it.barrier_ms
        }),
        ("the server's part of the barrier", measured, |it| {
            it.barrier_server_ms
        }),
        ("hitless: none, at every size", measured, |it| it.hitless_ms),
    ];
    for (place, (name, measured, of)) in curves.into_iter().enumerate() {
        let points: Vec<_> = all
            .iter()
            .map(|it| (f64::from(it.members), of(it)))
            .collect();
        plot.curve(sheet, place, &points, measured);
        key(
            sheet,
            (LEFT + 12.0, top + 16.0 + 18.0 * place as f64),
            place,
            name,
        );
    }
    let below = (LEFT + 440.0, plot.y(2.5));
    small(
        sheet,
        below,
        "dashed and hollow: reckoned from the cost of each member",
    );
}

fn rsa(sheet: &mut Sheet, top: f64, report: &Report) {
    heading(
        sheet,
        top - 14.0,
        "Time until ACK with one terminal, over the length of RSA keys",
    );
    let plot = Plot {
        top,
        x: Axis::Even(0.0, 8_704.0),
        y: Axis::Powers(0.01, 1_000.0),
    };
    let ticks = [512.0, 1024.0, 2048.0, 3072.0, 4096.0, 8192.0];
    plot.frame(sheet, &ticks, "bits");
    let short = (
        1,
        &report.short_rsa,
        "shorter keys, by another library (bench)",
    );
    let own = (0, &report.rsa_misty1, "rsa-misty1, the product");
    for (line, (place, all, name)) in [own, short].into_iter().enumerate() {
        if all.is_empty() {
            continue;
        }
        let points = all
            .iter()
            .map(|it| (f64::from(it.bits), it.until_ack / 1e3));
        let points: Vec<_> = points.collect();
        plot.curve(sheet, place, &points, points.len());
        key(
            sheet,
            (LEFT + 12.0, top + 16.0 + 18.0 * line as f64),
            place,
            name,
        );
    }
    for (place, (suite, it)) in report.parts.iter().enumerate() {
        let y = plot.y(it.until_ack / 1e3);
        sheet.line(&format!("s{}", place + 3), (LEFT, y), (RIGHT, y));
        sheet.push(format_args!(
            "<text class=\"c{}\" x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\">{suite}: {:.0} µs</text>\n",
            place + 3,
            y - 4.0,
            it.until_ack,
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
        self.top + PLOT - self.y.place(value) * PLOT
    }

    fn frame(&self, sheet: &mut Sheet, ticks: &[f64], unit: &str) {
        for value in self.y.lines() {
            let y = self.y(value);
            sheet.line("grid", (LEFT, y), (RIGHT, y));
            sheet.push(format_args!(
                "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\">{}</text>\n",
                LEFT - 5.0,
                y + 4.0,
                span(value)
            ));
        }
        let bottom = self.top + PLOT;
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

    /// The first points are `measured`, the others reckoned.
    fn curve(&self, sheet: &mut Sheet, place: usize, points: &[(f64, f64)], measured: usize) {
        let at = |&(x, y): &(f64, f64)| (self.x(x), self.y(y));
        let (solid, more) = (&points[..measured], &points[measured.saturating_sub(1)..]);
        for (class, points) in [("", solid), (" reckoned", more)] {
            let path = points.iter().map(at);
            let path = path.map(|(x, y)| format!("{x:.1},{y:.1}"));
            let path = path.collect::<Vec<_>>().join(" ");
            if points.len() > 1 {
                sheet.push(format_args!(
                    "<polyline class=\"s{place}{class}\" points=\"{path}\"/>\n"
                ));
            }
        }
        for (n, (x, y)) in points.iter().map(at).enumerate() {
            let class = if n < measured { "c" } else { "paper s" };
            sheet.push(format_args!(
                "<circle class=\"{class}{place}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>\n"
            ));
        }
    }
}

/// Milliseconds, as people say them.
fn span(ms: f64) -> String {
    match ms {
        ..1.0 => format!("{} µs", ms * 1e3),
        ..1_000.0 => format!("{ms} ms"),
        _ => format!("{} s", ms / 1e3),
    }
}

fn heading(sheet: &mut Sheet, y: f64, words: &str) {
    sheet.push(format_args!(
        "<text x=\"{LEFT}\" y=\"{y:.1}\" font-weight=\"600\">{}</text>\n",
        escape(words)
    ));
}

/// What a colour means.
fn key(sheet: &mut Sheet, (x, y): (f64, f64), place: usize, words: &str) {
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

/// How long a group is silent in one of the ways, ms.
type Silence = fn(&Stop) -> f64;

/// What the bars are made of.
const SHARING: [&str; 4] = [
    "terminal asks",
    "server answers",
    "terminal takes",
    "server checks",
];
const CHANGING: [&str; 5] = [
    "server says STOP",
    "terminal stops",
    "server says START",
    "terminal starts",
    "server checks",
];

/// Where the bars begin, from above and after their names.
const BARS: f64 = 88.0;
const WORDS: f64 = 240.0;
const ROW: f64 = 26.0;
/// Heights: of what the colours of the bars mean, of a heading, of a plot, of what stands under it.
const LEGENDS: f64 = 36.0;
const HEADING: f64 = 52.0;
const PLOT: f64 = 236.0;
const TICKS: f64 = 44.0;
