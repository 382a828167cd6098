//! The chart of REQUIREMENTS F-12 as SVG: one strip for each answer, time since the theft from left
//! to right, the share of traffic that the thief reads from 0 to 100 %.

use std::fmt::Write as _;

use keyfall_sim::TheftPlan;

use crate::attack::{BIN, Series};
use crate::chart::{LEFT, RIGHT, Sheet, escape};

pub(super) fn draw(plan: &TheftPlan, series: &[Series]) -> String {
    let bottom = TOP + STRIP * series.len() as f64;
    let height = bottom + 58.0;
    let mut svg = Sheet::new(
        height,
        "Share of the traffic that a thief reads, over the time since the theft",
        "What a thief reads who has a terminal, its keys and every recording",
        "share of the group's traffic, by the time at which it was sent; measured with the real machines \
         (keyfall attack)",
    );
    for (place, series) in series.iter().enumerate() {
        strip(&mut svg, TOP + STRIP * place as f64, place, series);
    }
    let order = f64::from(plan.reported_after) / 3600.0;
    for (hours, what) in [(0.0, "theft"), (order, "order")] {
        let x = x(hours);
        for place in 0..series.len() {
            let low = TOP + STRIP * place as f64 + NAME + AREA;
            svg.line("moment", (x, low - AREA), (x, low));
        }
        let y = TOP - 4.0;
        svg.push(
            format_args!(
                "<text class=\"moment-name\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{what}</text>\n"
            ),
        );
    }
    axis(&mut svg, bottom);
    svg.end()
}

/// One curve: its name and what it means above, its area below.
fn strip(svg: &mut Sheet, top: f64, place: usize, series: &Series) {
    let (high, low) = (top + NAME, top + NAME + AREA);
    let (name, remark) = (escape(series.name), escape(&series.remark));
    svg.push(format_args!(
        "<rect class=\"c{place}\" x=\"{LEFT}\" y=\"{:.1}\" width=\"10\" height=\"10\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\"><tspan font-weight=\"600\">{name}</tspan>\
             <tspan class=\"faint\" dx=\"8\">{remark}</tspan></text>\n",
        top + 9.0,
        LEFT + 16.0,
        top + 18.0
    ));
    for (share, y) in [(100, high), (0, low)] {
        svg.line("grid", (LEFT, y), (RIGHT, y));
        svg.push(
            format_args!(
                "<text class=\"faint\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\">{share} %</text>\n",
                LEFT - 6.0,
                y + 4.0
            ),
        );
    }
    let y = |share: f64| low - AREA * share / 100.0;
    let mut path = format!("M{:.1} {low:.1}", x(FROM));
    let mut before = 0.0;
    for &(hours, share) in series.points.iter().filter(|(hours, _)| *hours < UNTIL) {
        if share != before {
            let at = x(hours.max(FROM));
            push(&mut path, format_args!("H{at:.1}V{:.1}", y(share)));
            before = share;
        }
    }
    let last = series
        .points
        .last()
        .map_or(FROM, |&(hours, _)| hours + BIN as f64 / 3600.0);
    push(
        &mut path,
        format_args!("H{:.1}V{low:.1}Z", x(last.min(UNTIL))),
    );
    svg.push(format_args!("<path class=\"c{place}\" d=\"{path}\"/>\n"));
}

fn axis(svg: &mut Sheet, bottom: f64) {
    svg.line("axis", (LEFT, bottom), (RIGHT, bottom));
    for hours in (FROM as i32..=UNTIL as i32).step_by(2) {
        let at = x(f64::from(hours));
        svg.line("axis", (at, bottom), (at, bottom + 5.0));
        let sign = if hours > 0 { "+" } else { "" };
        let y = bottom + 20.0;
        svg.push(
            format_args!(
                "<text x=\"{at:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" font-size=\"11\">{sign}{hours}</text>\n"
            ),
        );
    }
    svg.push(format_args!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">hours since the theft</text>\n",
        (LEFT + RIGHT) / 2.0,
        bottom + 42.0
    ));
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a String takes everything");
}

/// The place of an hour.
fn x(hours: f64) -> f64 {
    LEFT + (hours - FROM) / (UNTIL - FROM) * (RIGHT - LEFT)
}

/// Hours.
const FROM: f64 = -6.0;
const UNTIL: f64 = 24.0;
const TOP: f64 = 80.0;
/// Of one strip: its name, its area, and air.
const STRIP: f64 = 78.0;
const NAME: f64 = 28.0;
const AREA: f64 = 38.0;
#[cfg(test)]
mod tests {
    use super::*;

    fn flat(name: &'static str, share: f64) -> Series {
        Series {
            name,
            remark: "a < b".to_owned(),
            points: (-24..96).map(|bin| (f64::from(bin) / 4.0, share)).collect(),
            stretches: Vec::new(),
        }
    }

    #[test]
    fn a_chart_is_whole_and_brings_nothing_from_elsewhere() {
        let svg = draw(
            &TheftPlan::default(),
            &[flat("all", 100.0), flat("none", 0.0)],
        );
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<path").count(), 2);
        assert!(svg.contains("a &lt; b") && svg.contains("hours since the theft"));
        for foreign in ["<script", "url(", "@import", "href"] {
            assert!(!svg.contains(foreign), "{foreign}");
        }
        // All of the strip is filled, and none of it.
        assert!(svg.contains("M56.0 146.0H56.0V108.0H836.0V146.0Z"));
        assert!(svg.contains("M56.0 224.0H836.0V224.0Z"));
    }
}
