//! The sequence with one terminal, part by part (REQUIREMENTS F-07): what each side works for each
//! message, and how long both parts take over UDP on loopback.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keyfall_protocol::ids::{GroupNumber, Tick};
use keyfall_protocol::server::{ChangeMode, Input, Order};
use keyfall_protocol::sharing::SharingSuite;
use serde::Serialize;

use super::fleet::{Fleet, Member, Operated, STEPS_MAX};
use super::{median, micros};

/// Microseconds, medians.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Parts {
    /// The terminal makes KEY-REQ.
    pub(super) key_req: f64,
    /// The server opens it, grants, seals and signs KEY-DIS.
    pub(super) key_dis: f64,
    /// The terminal opens it, takes the key and makes ACK.
    pub(super) ack: f64,
    /// The server checks ACK.
    pub(super) ack_checked: f64,
    /// All of that.
    pub(super) until_ack: f64,
    /// The server signs STOP.
    pub(super) stop: f64,
    /// The terminal stops and renews.
    pub(super) stop_ack: f64,
    /// The server checks STOP-ACK and signs START.
    pub(super) start: f64,
    /// The terminal sends again.
    pub(super) start_ack: f64,
    /// The server checks START-ACK.
    pub(super) start_ack_checked: f64,
    /// All from STOP on.
    pub(super) stop_to_start: f64,
    /// From KEY-REQ until ACK arrived, by UDP on loopback.
    pub(super) udp_until_ack: f64,
    /// From STOP until START-ACK arrived, by UDP on loopback.
    pub(super) udp_stop_to_start: f64,
}

pub(super) fn measure(suite: SharingSuite, rounds: usize) -> anyhow::Result<Parts> {
    // The second member is there and never answers: nothing follows from the first one's ACK.
    let mut fleet = Fleet::found(&[suite], 2)?;
    fleet.make_current()?;
    let mut sharing = Vec::new();
    for _ in 0..rounds {
        sharing.push(share(&mut fleet)?);
    }
    let udp_until_ack = udp_sharing(&mut fleet, rounds)?;

    let mut fleet = Fleet::found(&[suite], 1)?;
    fleet.make_current()?;
    let group = fleet.group;
    let change = Some(ChangeMode::Barrier);
    fleet.desk.order(Order::SetGroup {
        group,
        change,
        stragglers: None,
        legacy: None,
    })?;
    let mut changing = Vec::new();
    for _ in 0..rounds {
        changing.push(halt(&mut fleet)?);
    }
    let udp_stop_to_start = udp_halts(&mut fleet, rounds)?;

    let [key_req, key_dis, ack, ack_checked] = medians(&sharing)?;
    let [stop, stop_ack, start, start_ack, start_ack_checked] = medians(&changing)?;
    Ok(Parts {
        key_req,
        key_dis,
        ack,
        ack_checked,
        until_ack: key_req + key_dis + ack + ack_checked,
        stop,
        stop_ack,
        start,
        start_ack,
        start_ack_checked,
        stop_to_start: stop + stop_ack + start + start_ack + start_ack_checked,
        udp_until_ack,
        udp_stop_to_start,
    })
}

/// Of each part over all rounds.
fn medians<const N: usize>(rounds: &[[f64; N]]) -> anyhow::Result<[f64; N]> {
    let mut each = [0.0; N];
    for (place, into) in each.iter_mut().enumerate() {
        *into = median(rounds.iter().map(|round| round[place])).context("some rounds")?;
    }
    Ok(each)
}

/// A fresh key is fetched. Where a cookie is asked for, its round trip is within the request.
fn share(fleet: &mut Fleet) -> anyhow::Result<[f64; 4]> {
    fleet.desk.let_pass(2);
    let group = fleet.group;
    fleet.desk.order(Order::RekeyGroup { group })?;
    let from = fleet.terminals[0].address;
    let (mut sent, mut key_req) = timed(|| fleet.ask(0))?;
    loop {
        let acks = fleet.desk.machine.desk_counts().acks;
        let answers = fleet.desk.machine.desk_counts().answers;
        let (replies, served) = timed(|| fleet.desk.answer(from, sent))?;
        let counts = fleet.desk.machine.desk_counts();
        anyhow::ensure!(!replies.is_empty() || counts.acks > acks, "no answer");
        let (more, took) = timed(|| fleet.take(0, &replies))?;
        if counts.answers > answers {
            let acks = counts.acks;
            let (_, checked) = timed(|| fleet.desk.answer(from, more))?;
            let confirmed = fleet.desk.machine.desk_counts().acks > acks;
            anyhow::ensure!(confirmed && fleet.is_current(0), "no ACK");
            return Ok([key_req, served, took, checked]);
        }
        key_req += served + took;
        sent = more;
    }
}

/// The group stops and starts under a renewed key.
fn halt(fleet: &mut Fleet) -> anyhow::Result<[f64; 5]> {
    let (from, group) = (fleet.terminals[0].address, fleet.group);
    let (stop, said) = stop_of(&mut fleet.desk, group)?;
    let (stop_ack, obeyed) = timed(|| fleet.take(0, &[stop]))?;
    let (start, turned) = timed(|| fleet.desk.answer(from, stop_ack))?;
    anyhow::ensure!(!start.is_empty(), "no START");
    let (start_ack, started) = timed(|| fleet.take(0, &start))?;
    let (_, checked) = timed(|| fleet.desk.answer(from, start_ack))?;
    is_done(&fleet.desk, group)?;
    Ok([said, obeyed, turned, started, checked])
}

/// The datagram that stops the one member, and what it costs to make it.
fn stop_of(desk: &mut Operated, group: GroupNumber) -> anyhow::Result<(Vec<u8>, f64)> {
    desk.let_pass(2);
    let began = Instant::now();
    let mut served = desk.begin(Order::RenewGroup { group })?;
    let mut took = micros(began.elapsed());
    for _ in 0..STEPS_MAX {
        if let Some((_, stop)) = served.datagrams.pop() {
            return Ok((stop, took));
        }
        let began = Instant::now();
        served = desk.serve(Input::Timeout)?;
        took = micros(began.elapsed());
    }
    anyhow::bail!("no STOP")
}

fn is_done(desk: &Operated, group: GroupNumber) -> anyhow::Result<()> {
    let report = desk.machine.change_of(group).context("a change began")?;
    let done = report.stopped == 1 && report.started == 1;
    anyhow::ensure!(done, "the change did not end: {report:?}");
    Ok(())
}

/// From KEY-REQ until ACK arrived, the terminal on a thread of its own.
fn udp_sharing(fleet: &mut Fleet, rounds: usize) -> anyhow::Result<f64> {
    let (own, far) = line()?;
    let group = fleet.group;
    let Fleet {
        desk, terminals, ..
    } = fleet;
    let member = terminals.first_mut().context("one is there")?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        desk.let_pass(2);
        desk.order(Order::RekeyGroup { group })?;
        let now = desk.clock.now;
        let took = thread::scope(|scope| {
            let asking = scope.spawn(|| -> anyhow::Result<Instant> {
                let began = Instant::now();
                send(&far, &member.ask(now)?.datagrams)?;
                respond(&far, member, now, |it| it.machine.asks() != "rest")?;
                Ok(began)
            });
            let acks = desk.machine.desk_counts().acks;
            serve(&own, desk, |desk| desk.machine.desk_counts().acks == acks)?;
            let ended = Instant::now();
            let began = asking.join().map_err(|_| anyhow::anyhow!("a panic"))??;
            anyhow::Ok(micros(ended.duration_since(began)))
        })?;
        times.push(took);
    }
    median(times).context("some rounds")
}

/// From STOP until START-ACK arrived.
fn udp_halts(fleet: &mut Fleet, rounds: usize) -> anyhow::Result<f64> {
    let (own, far) = line()?;
    let group = fleet.group;
    let Fleet {
        desk, terminals, ..
    } = fleet;
    let member = terminals.first_mut().context("one is there")?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        let (stop, said) = stop_of(desk, group)?;
        let now = desk.clock.now;
        let took = thread::scope(|scope| {
            let obeying = scope.spawn(|| {
                let mut heard = 0;
                respond(&far, member, now, |_| {
                    heard += 1;
                    heard <= 2
                })
            });
            let began = Instant::now();
            own.send(&stop)?;
            serve(&own, desk, |desk| is_done(desk, group).is_err())?;
            let took = micros(began.elapsed());
            obeying.join().map_err(|_| anyhow::anyhow!("a panic"))??;
            anyhow::Ok(said + took)
        })?;
        times.push(took);
    }
    median(times).context("some rounds")
}

/// The server's socket and the terminal's, each connected to the other.
fn line() -> anyhow::Result<(UdpSocket, UdpSocket)> {
    let [own, far] = [(); 2].map(|()| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
    let (own, far) = (own?, far?);
    own.connect(far.local_addr()?)?;
    far.connect(own.local_addr()?)?;
    for socket in [&own, &far] {
        socket.set_read_timeout(Some(PATIENCE))?;
    }
    Ok((own, far))
}

fn send(socket: &UdpSocket, datagrams: &[Vec<u8>]) -> anyhow::Result<()> {
    for octets in datagrams {
        socket.send(octets)?;
    }
    Ok(())
}

/// The server's side, until `goes_on` is false.
fn serve(
    socket: &UdpSocket,
    desk: &mut Operated,
    goes_on: impl Fn(&Operated) -> bool,
) -> anyhow::Result<()> {
    let from = socket.peer_addr()?;
    let mut buffer = [0; 2048];
    while goes_on(desk) {
        let len = socket.recv(&mut buffer).context("the terminal is silent")?;
        send(socket, &desk.answer(from, vec![buffer[..len].to_vec()])?)?;
    }
    Ok(())
}

/// The terminal's side, until `goes_on` is false.
fn respond(
    socket: &UdpSocket,
    member: &mut Member,
    now: Tick,
    mut goes_on: impl FnMut(&Member) -> bool,
) -> anyhow::Result<()> {
    let mut buffer = [0; 2048];
    while goes_on(member) {
        let len = socket.recv(&mut buffer).context("the server is silent")?;
        send(socket, &member.take(now, &[buffer[..len].to_vec()])?)?;
    }
    Ok(())
}

/// Microseconds of what is done.
fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(T, f64)> {
    let began = Instant::now();
    let done = work()?;
    Ok((done, micros(began.elapsed())))
}

const PATIENCE: Duration = Duration::from_secs(5);
