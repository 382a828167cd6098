//! What a request costs the server: genuine ones by suite beside the bare public-key operations,
//! and forged ones. One core, the machine alone.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use keyfall_protocol::ids::{Generation, TerminalNumber};
use keyfall_protocol::keys::WrapKey;
use keyfall_protocol::rng::Random as _;
use keyfall_protocol::server::{Input, Order};
use keyfall_protocol::sharing::message::{marked, type_of};
use keyfall_protocol::sharing::pair::{Ask, Line};
use keyfall_protocol::sharing::{KemSecret, KemSuite, SealedToKem, SharingSuite};
use keyfall_server::OsRandom;
use serde::Serialize;

use super::fleet::{Fleet, STEPS_MAX, drawn};
use super::{median, micros};

/// One suite's requests.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Desk {
    pub(super) key_req_per_second: f64,
    /// Of the requests that its raw public-key operations would allow; none for `psk`.
    pub(super) fraction_of_raw_public_key_rate: Option<f64>,
    pub(super) key_req_us: f64,
    pub(super) raw_public_key_us: Option<f64>,
    /// A terminal that knows no time is asked for a cookie first; 0 where so few asked at once that
    /// none was.
    pub(super) cookie_us: f64,
    pub(super) ack_us: f64,
}

/// Microseconds of the server for each forged request.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Forged {
    pub(super) unknown_id: f64,
    pub(super) bad_tag: f64,
    pub(super) garbage: f64,
}

/// Microseconds, one by one, of several times of the run: a median of them says little of what else the
/// machine does.
#[derive(Default)]
pub(super) struct Times {
    answered: Vec<f64>,
    cookies: Vec<f64>,
    acks: Vec<f64>,
    raw: Vec<f64>,
}

impl Times {
    pub(super) fn medians(self) -> anyhow::Result<Desk> {
        let key_req_us = median(self.answered).context("requests were answered")?;
        let raw_public_key_us = median(self.raw);
        Ok(Desk {
            key_req_per_second: 1e6 / key_req_us,
            fraction_of_raw_public_key_rate: raw_public_key_us.map(|raw| raw / key_req_us),
            key_req_us,
            raw_public_key_us,
            cookie_us: median(self.cookies).unwrap_or(0.0),
            ack_us: median(self.acks).context("answers were confirmed")?,
        })
    }
}

pub(super) fn measure(
    suite: SharingSuite,
    terminals: u32,
    rounds: usize,
    times: &mut Times,
) -> anyhow::Result<()> {
    let mut fleet = Fleet::found(&[suite], terminals)?;
    let raw = KemSuite::of(suite).map(Raw::new).transpose()?;
    // First contact: the time, the server's keys, the fresh octets.
    fleet.make_current()?;
    for _ in 0..rounds {
        round(&mut fleet, raw.as_ref(), times)?;
    }
    // All are switched on: nobody knows the time.
    let mut restarted = Times::default();
    let now = fleet.desk.clock.now;
    for member in &mut fleet.terminals {
        member.restart(now)?;
    }
    round(&mut fleet, None, &mut restarted)?;
    times.cookies.append(&mut restarted.cookies);
    Ok(())
}

/// Every terminal lacks a key, asks, takes and confirms.
fn round(fleet: &mut Fleet, raw: Option<&Raw>, times: &mut Times) -> anyhow::Result<()> {
    fleet.desk.let_pass(2);
    let group = fleet.group;
    fleet.desk.order(Order::RekeyGroup { group })?;
    let mut asked = Vec::new();
    for place in 0..fleet.terminals.len() {
        asked.push((place, fleet.ask(place)?));
    }
    for _ in 0..STEPS_MAX {
        // The server alone, one request after the other: what terminals do with the answers would empty its
        // caches.
        let mut answered = Vec::new();
        for (place, datagrams) in std::mem::take(&mut asked) {
            let from = fleet.terminals[place].address;
            let confirms = datagrams.first().and_then(|it| type_of(it)) == Some(ACK);
            // Side by side, so that a busy machine changes the ratio little, and taking turns: who is
            // first finds the caches cold.
            let raw = raw.filter(|_| !confirms);
            let first = place % 2 == 0;
            if let Some(raw) = raw.filter(|_| first) {
                times.raw.push(micros(raw.once()?));
            }
            let began = Instant::now();
            let replies = fleet.desk.answer(from, datagrams)?;
            let took = began.elapsed();
            if let Some(raw) = raw.filter(|_| !first) {
                times.raw.push(micros(raw.once()?));
            }
            let sum = match replies.first().and_then(|it| type_of(it)) {
                None if confirms => Some(&mut times.acks),
                Some(COOKIE) => Some(&mut times.cookies),
                Some(KEY_DIS | PART) => Some(&mut times.answered),
                // An introduction is fetched once.
                Some(_) | None => None,
            };
            if let Some(sum) = sum {
                sum.push(micros(took));
            }
            answered.push((place, replies));
        }
        for (place, replies) in answered {
            let more = fleet.take(place, &replies)?;
            if !more.is_empty() {
                asked.push((place, more));
            }
        }
        if asked.is_empty() {
            let current = (0..fleet.terminals.len()).all(|place| fleet.is_current(place));
            anyhow::ensure!(current, "a terminal did not get its key");
            return Ok(());
        }
    }
    anyhow::bail!("a sequence goes on for ever")
}

/// The public-key operations that one request cannot do without: open and seal once.
struct Raw {
    server: KemSecret,
    terminal: KemSecret,
    sealed: SealedToKem,
    answer: Vec<u8>,
}

impl Raw {
    fn new(kem: KemSuite) -> anyhow::Result<Self> {
        let [server, terminal] = [(); 2].map(|()| KemSecret::from_seed(kem, drawn()));
        let request = vec![0; 256 + terminal.public().octets().len()];
        let sealed = server.public().seal(b"raw", &request, &mut OsRandom);
        Ok(Self {
            sealed: sealed.context("its own key")?,
            answer: vec![0; 320],
            server,
            terminal,
        })
    }

    fn once(&self) -> anyhow::Result<Duration> {
        let (enc, ct) = &self.sealed;
        let began = Instant::now();
        let opened = self.server.open(b"raw", enc, ct);
        let public = self.terminal.public();
        let sealed = public.seal(b"raw", &self.answer, &mut OsRandom);
        let took = began.elapsed();
        anyhow::ensure!(opened.is_some() && sealed.is_some(), "its own keys");
        Ok(took)
    }
}

/// Requests of strangers.
pub(super) fn forge(terminals: u32, count: usize) -> anyhow::Result<Forged> {
    let mut fleet = Fleet::found(&[SharingSuite::Psk], terminals)?;
    fleet.make_current()?;
    let g = fleet.desk.machine.fleet().fleet_generation;
    let number = TerminalNumber::new(1).context("not 0")?;
    let request = || {
        let stranger = WrapKey::new(number, Generation::ZERO, drawn());
        let (suite, wrap) = (SharingSuite::Psk, &stranger);
        let mut nonce = [0; 16];
        OsRandom.fill(&mut nonce);
        let ask = Ask {
            terminal: Some(number),
            nonce,
            time: fleet.desk.clock.wall,
            held: Vec::new(),
            fresh: None,
        };
        marked(&ask.seal(Line { suite, wrap }, g, None, 252, &mut OsRandom))
    };
    let unknown: Vec<_> = (0..count).map(|_| request()).collect();
    let mut bad = Vec::new();
    let genuine = fleet.ask(0)?.pop().context("a terminal asks")?;
    for _ in 0..count {
        let mut octets = genuine.clone();
        let tag = octets.len() - 16;
        OsRandom.fill(&mut octets[tag..]);
        bad.push(octets);
    }
    let mut garbage = Vec::new();
    for kind in 0..count {
        let mut octets = genuine.clone();
        // Of two kinds: nothing at all, and what begins well.
        let from = if kind % 2 == 0 { 0 } else { 8 };
        OsRandom.fill(&mut octets[from..]);
        garbage.push(octets);
    }
    Ok(Forged {
        unknown_id: refused(&mut fleet, unknown)?,
        bad_tag: refused(&mut fleet, bad)?,
        garbage: refused(&mut fleet, garbage)?,
    })
}

/// Microseconds for each, the median of slices.
fn refused(fleet: &mut Fleet, datagrams: Vec<Vec<u8>>) -> anyhow::Result<f64> {
    let from = fleet.terminals[0].address;
    let mut slices = Vec::new();
    let before = fleet.desk.machine.desk_counts().answers;
    let mut datagrams = datagrams.into_iter();
    loop {
        let slice: Vec<_> = datagrams.by_ref().take(SLICE).collect();
        if slice.len() < SLICE {
            break;
        }
        let began = Instant::now();
        for octets in slice {
            fleet.desk.serve(Input::Datagram { from, octets })?;
        }
        slices.push(micros(began.elapsed()) / SLICE as f64);
    }
    let answers = fleet.desk.machine.desk_counts().answers - before;
    anyhow::ensure!(answers == 0, "a forged request was answered");
    median(slices).context("enough forged requests")
}

const COOKIE: u8 = 2;
pub(super) const KEY_DIS: u8 = 3;
const ACK: u8 = 4;
pub(super) const PART: u8 = 7;
const SLICE: usize = 50;
