//! What `keyfall bench sharing` says.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde::Serialize;

use super::crowd::Simulated;
use super::desk::{Desk, Forged};
use super::legacy::RsaLength;
use super::network::Restart;
use super::parts::Parts;
use super::renewal::Renewal;
use super::stop::{Hitless, Stop};

/// The JSON document. Times end in their unit; where they do not, they are microseconds.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Every limit is met.
    pub(super) ok: bool,
    /// A few of everything: the figures say little.
    quick: bool,
    cores: usize,
    processor: String,
    limits: Vec<Limit>,
    barrier_1000_ms: f64,
    barrier_1000_server_ms: f64,
    /// By the wall clock; the others are processor time.
    barrier_1000_wall_ms: f64,
    sequential_1000_ms: f64,
    sequential_1000_with_routers_ms: f64,
    hitless_1000_lost: u64,
    key_req_per_second: BTreeMap<&'static str, f64>,
    fraction_of_raw_public_key_rate: BTreeMap<&'static str, f64>,
    /// By a real server's threads, the client on the same machine.
    key_req_per_second_udp: BTreeMap<&'static str, f64>,
    restart_1000_s: f64,
    /// Reckoned from the server's own work for each terminal, on one core.
    restart_100000_s: BTreeMap<&'static str, f64>,
    forged_key_req_us: Forged,
    pub(super) parts: BTreeMap<&'static str, Parts>,
    desk: BTreeMap<&'static str, Desk>,
    pub(super) stop: Vec<Stop>,
    /// The server's machine, and members that are its keys.
    simulated: Vec<Simulated>,
    hitless: Hitless,
    restart: Restart,
    pub(super) rsa_misty1: Vec<RsaLength>,
    pub(super) short_rsa: Vec<RsaLength>,
    renewals: Vec<Renewal>,
}

/// What was promised.
#[derive(Debug, Serialize)]
struct Limit {
    what: String,
    limit: f64,
    got: f64,
    met: bool,
}

/// What a report is made from.
pub(super) struct Measured {
    pub(super) quick: bool,
    pub(super) parts: BTreeMap<&'static str, Parts>,
    pub(super) desks: BTreeMap<&'static str, Desk>,
    pub(super) forged: Forged,
    pub(super) stops: Vec<Stop>,
    pub(super) simulated: Vec<Simulated>,
    pub(super) hitless: Hitless,
    pub(super) udp: BTreeMap<&'static str, f64>,
    pub(super) restart: Restart,
    pub(super) rsa: Vec<RsaLength>,
    pub(super) short_rsa: Vec<RsaLength>,
    pub(super) renewals: Vec<Renewal>,
}

impl Report {
    pub(super) fn of(it: Measured) -> anyhow::Result<Self> {
        let thousand = it.stops.iter().find(|stop| stop.members == 1_000);
        let thousand = thousand.context("a group of 1,000")?.clone();
        let served = |desk: &Desk| desk.key_req_us + desk.ack_us + desk.cookie_us;
        let all = it.desks.iter();
        let (rate, fraction, fleet) = (
            all.clone().map(|(&name, it)| (name, it.key_req_per_second)),
            all.clone()
                .filter_map(|(&name, it)| Some((name, it.fraction_of_raw_public_key_rate?))),
            all.map(|(&name, it)| (name, served(it) * 0.1)),
        );
        let key_req_per_second: BTreeMap<_, _> = rate.collect();
        let fraction_of_raw_public_key_rate: BTreeMap<_, _> = fraction.collect();
        let mut limits = vec![
            Limit::at_most("barrier of 1,000 members, ms", 150.0, thousand.barrier_ms),
            Limit::at_most(
                "the server's part of it, ms",
                20.0,
                thousand.barrier_server_ms,
            ),
            Limit::at_most(
                "packets lost or delayed, hitless",
                0.0,
                (it.hitless.lost + it.hitless.delayed) as f64,
            ),
            Limit::at_least(
                "KEY-REQ a second and core, psk",
                60_000.0,
                key_req_per_second.get("psk").copied().unwrap_or(0.0),
            ),
            Limit::at_most("1,000 restart at once, s", 2.0, it.restart.seconds),
        ];
        for (name, fraction) in &fraction_of_raw_public_key_rate {
            let what = format!("share of what raw operations allow, {name}");
            limits.push(Limit::at_least(&what, 0.8, *fraction));
        }
        let Forged {
            unknown_id,
            bad_tag,
            garbage,
        } = it.forged;
        for (what, took) in [
            ("unknown id", unknown_id),
            ("bad tag", bad_tag),
            ("garbage", garbage),
        ] {
            let what = format!("a forged KEY-REQ, {what}, µs");
            limits.push(Limit::at_most(&what, 2.0, took));
        }
        Ok(Self {
            ok: limits.iter().all(|limit| limit.met),
            quick: it.quick,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: processor(),
            limits,
            barrier_1000_ms: thousand.barrier_ms,
            barrier_1000_server_ms: thousand.barrier_server_ms,
            barrier_1000_wall_ms: thousand.barrier_wall_ms,
            sequential_1000_ms: thousand.sequential_ms,
            sequential_1000_with_routers_ms: thousand.sequential_with_routers_ms,
            hitless_1000_lost: it.hitless.lost,
            key_req_per_second,
            fraction_of_raw_public_key_rate,
            key_req_per_second_udp: it.udp,
            restart_1000_s: it.restart.seconds,
            restart_100000_s: fleet.collect(),
            forged_key_req_us: it.forged,
            parts: it.parts,
            desk: it.desks,
            stop: it.stops,
            simulated: it.simulated,
            hitless: it.hitless,
            restart: it.restart,
            rsa_misty1: it.rsa,
            short_rsa: it.short_rsa,
            renewals: it.renewals,
        })
    }

    pub(super) fn for_people(&self) -> String {
        let mut text = format!(
            "Key sharing, measured with the real machines; {} cores, {}.{}\n\n",
            self.cores,
            self.processor,
            if self.quick {
                " Quick: the figures say little."
            } else {
                ""
            }
        );
        self.tell_parts(&mut text);
        self.tell_stops(&mut text);
        self.tell_simulated(&mut text);
        self.tell_desk(&mut text);
        self.tell_renewals(&mut text);
        for limit in &self.limits {
            let met = if limit.met { "ok" } else { "MISSED" };
            text += &format!(
                "{:<46}{:>12} {:>12}  {met}\n",
                limit.what,
                figure(limit.got),
                format!("of {}", figure(limit.limit)),
            );
        }
        text
    }

    fn tell_parts(&self, text: &mut String) {
        let suites = self.parts.keys();
        let head = suites.map(|name| format!("{name:>12}")).collect::<String>();
        *text += &format!(
            "{:<46}{head}\n",
            "The sequence with one terminal, µs, medians"
        );
        let rows: [Row; 13] = [
            ("terminal makes KEY-REQ", |it| it.key_req),
            ("server opens it, grants, signs KEY-DIS", |it| it.key_dis),
            ("terminal takes the key, makes ACK", |it| it.ack),
            ("server checks ACK", |it| it.ack_checked),
            ("  until ACK", |it| it.until_ack),
            ("  the same by UDP on loopback", |it| it.udp_until_ack),
            ("server signs STOP", |it| it.stop),
            ("terminal stops, renews", |it| it.stop_ack),
            ("server checks STOP-ACK, signs START", |it| it.start),
            ("terminal sends again", |it| it.start_ack),
            ("server checks START-ACK", |it| it.start_ack_checked),
            ("  STOP to START", |it| it.stop_to_start),
            ("  the same by UDP on loopback", |it| it.udp_stop_to_start),
        ];
        for (what, part) in rows {
            let cells = self.parts.values().map(part);
            let cells = cells.map(|it| format!("{it:>12.1}")).collect::<String>();
            *text += &format!("{what:<46}{cells}\n");
        }
        *text += "\nrsa-misty1 until ACK, RSA bits and µs: ";
        let lengths = self.rsa_misty1.iter();
        let lengths = lengths.map(|it| format!("{} {:.0}", it.bits, it.until_ack));
        *text += &format!("{}\n\n", lengths.collect::<Vec<_>>().join(", "));
    }

    fn tell_stops(&self, text: &mut String) {
        *text += &format!(
            "{:<16}{:>16}{:>18}{:>12}{:>14}{:>10}{:>16}\n",
            "Silence, ms",
            "one by one",
            "with 2 routers",
            "barrier",
            "server's",
            "hitless",
            "barrier, wall"
        );
        for stop in &self.stop {
            let reckoned = if stop.measured { "" } else { " (reckoned)" };
            *text += &format!(
                "{:<16}{:>16.2}{:>18.2}{:>12.2}{:>14.2}{:>10.0}{:>16.2}{reckoned}\n",
                format!("{} members", stop.members),
                stop.sequential_ms,
                stop.sequential_with_routers_ms,
                stop.barrier_ms,
                stop.barrier_server_ms,
                stop.hitless_ms,
                stop.barrier_wall_ms,
            );
        }
        *text += &format!(
            "All members on one core: processor time, and beside it the wall clock with what else the machine did.\n\
             Hitless, {} members: {} packets, {} times to be heard, {} lost, {} delayed.\n\n",
            self.hitless.members,
            self.hitless.packets,
            self.hitless.hearings,
            self.hitless.lost,
            self.hitless.delayed,
        );
    }

    fn tell_simulated(&self, text: &mut String) {
        *text += &format!(
            "{:<16}{:>16}{:>12}{:>14}{:>16}{:>16}{:>12}{:>10}\n",
            "Simulated, ms",
            "one by one",
            "barrier",
            "server's",
            "hitless, whole",
            "hitless, late",
            "restart, s",
            "left"
        );
        for it in &self.simulated {
            *text += &format!(
                "{:<16}{:>16.2}{:>12.2}{:>14.2}{:>16.2}{:>16}{:>12.2}{:>10}\n",
                format!("{} members", it.members),
                it.sequential_ms,
                it.barrier_ms,
                it.barrier_server_ms,
                it.hitless_ms,
                it.hitless_late,
                it.restart_s,
                it.left,
            );
        }
        *text += "The server's machine on one core, each member on a machine of its own, 0.2 ms each way, nothing lost.\n\n";
    }

    fn tell_desk(&self, text: &mut String) {
        *text += &format!(
            "{:<12}{:>16}{:>12}{:>12}{:>12}{:>16}{:>16}{:>20}\n",
            "KEY-REQ",
            "a second, core",
            "µs",
            "raw µs",
            "of raw",
            "a second, UDP",
            "COOKIE, ACK µs",
            "100,000 restart, s"
        );
        for (name, desk) in &self.desk {
            let raw = desk
                .raw_public_key_us
                .map_or_else(|| "-".to_owned(), figure);
            let of_raw = desk.fraction_of_raw_public_key_rate;
            let of_raw = of_raw.map_or_else(|| "-".to_owned(), |it| format!("{:.0} %", it * 100.0));
            let udp = self.key_req_per_second_udp.get(name).copied();
            let fleet = self.restart_100000_s.get(name).copied();
            *text += &format!(
                "{name:<12}{:>16.0}{:>12.1}{raw:>12}{of_raw:>12}{:>16.0}{:>16}{:>20.1}\n",
                desk.key_req_per_second,
                desk.key_req_us,
                udp.unwrap_or(0.0),
                format!("{:.1}, {:.1}", desk.cookie_us, desk.ack_us),
                fleet.unwrap_or(0.0),
            );
        }
        *text += &format!(
            "{} terminals restart at once (psk, by UDP): half are current after {:.2} s, all after {:.2} s.\n\n",
            self.restart.terminals, self.restart.median_seconds, self.restart.seconds
        );
    }

    fn tell_renewals(&self, text: &mut String) {
        *text += &format!(
            "{:<30}{:>12}{:>16}{:>18}{:>16}\n",
            "One renewal", "terminals", "messages", "octets", "keys"
        );
        for row in &self.renewals {
            *text += &format!(
                "{:<30}{:>12}{:>16}{:>18}{:>16}\n",
                row.method, row.terminals, row.messages, row.octets, row.keys
            );
        }
        text.push('\n');
    }
}

impl Limit {
    fn at_most(what: &str, limit: f64, got: f64) -> Self {
        Self {
            what: what.to_owned(),
            limit,
            got,
            met: got <= limit,
        }
    }

    fn at_least(what: &str, limit: f64, got: f64) -> Self {
        Self {
            met: got >= limit,
            ..Self::at_most(what, limit, got)
        }
    }
}

/// What the system calls it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let name = name.map(|it| it.trim_start_matches([' ', '\t', ':']));
    name.unwrap_or("processor unknown").to_owned()
}

/// As many digits as a reader needs.
fn figure(value: f64) -> String {
    if value >= 100.0 || value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// A line of the table: what it is, and where the figure stands.
type Row = (&'static str, fn(&Parts) -> f64);
