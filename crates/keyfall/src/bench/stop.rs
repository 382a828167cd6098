//! How long a group is silent while its key changes, against its size (REQUIREMENTS F-07): members
//! one after the other as published, all at once at a barrier, and without a stop. All machines are
//! real and on one thread; the network takes no time. None waits, so what passes on a machine that does
//! nothing else is the processor time of the thread, and that is what is told.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use keyfall_protocol::command::{Body, Command, Halt, HaltKind, Target};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SequenceNumber, Tick};
use keyfall_protocol::server::{ChangeMode, Input, Order};
use keyfall_protocol::sharing::message::{Message, marked};
use keyfall_protocol::sharing::{Confirmation, SharingSuite};
use keyfall_protocol::terminal;
use serde::Serialize;

use super::fleet::{Fleet, Operated, Served};
use super::median;
use super::speech::Speech;
use super::watch::{Span, Watch};

/// Milliseconds of silence in a group of that many members.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Stop {
    pub(super) members: u32,
    /// False: reckoned from the costs for each member of the largest group that was measured.
    pub(super) measured: bool,
    /// STOP, STOP-ACK, START, START-ACK with one after the other, as published.
    pub(super) sequential_ms: f64,
    /// The same with two routers in between, 0.2 ms for each crossing.
    pub(super) sequential_with_routers_ms: f64,
    /// From the first STOP to the last START-ACK.
    pub(super) barrier_ms: f64,
    /// The server's part of it.
    pub(super) barrier_server_ms: f64,
    /// The barrier by the wall clock, with all that the machine did beside it.
    pub(super) barrier_wall_ms: f64,
    pub(super) hitless_ms: f64,
}

/// A call that went on while the key of its group changed without a stop: by a renewal, and by a
/// fresh epoch.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Hitless {
    pub(super) members: u32,
    /// Packets sent, and how often one was to be heard.
    pub(super) packets: u64,
    pub(super) hearings: u64,
    /// Of these.
    pub(super) lost: u64,
    /// Packets that had to wait for a key.
    pub(super) delayed: u64,
}

/// The silence in a group of `members`.
pub(super) fn measure(members: u32, rounds: usize) -> anyhow::Result<Stop> {
    let mut fleet = Fleet::found(&[SharingSuite::Psk], members)?;
    fleet.make_current()?;
    set(&mut fleet.desk, fleet.group, ChangeMode::Barrier)?;
    let mut barriers = Vec::new();
    for _ in 0..rounds {
        barriers.push(barrier(&mut fleet)?);
    }
    let mut sequences = Vec::new();
    for round in 1..=rounds.min(SEQUENCES) {
        sequences.push(one_by_one(&mut fleet, round)?.cpu_ms());
    }
    let of = |part: fn(&(Span, Span)) -> f64| median(barriers.iter().map(part)).context("rounds");
    let sequential_ms = median(sequences).context("rounds")?;
    Ok(Stop {
        members,
        measured: true,
        sequential_ms,
        sequential_with_routers_ms: sequential_ms + ROUTERS_MS * f64::from(members),
        barrier_ms: of(|it| it.0.cpu_ms())?,
        barrier_server_ms: of(|it| it.1.cpu_ms())?,
        barrier_wall_ms: of(|it| it.0.wall_ms())?,
        hitless_ms: 0.0,
    })
}

/// The same for more members than fit here: every cost grows with their number.
pub(super) fn reckon(largest: &Stop, members: u32) -> Stop {
    let times = f64::from(members) / f64::from(largest.members);
    Stop {
        members,
        measured: false,
        sequential_ms: largest.sequential_ms * times,
        sequential_with_routers_ms: largest.sequential_with_routers_ms * times,
        barrier_ms: largest.barrier_ms * times,
        barrier_server_ms: largest.barrier_server_ms * times,
        barrier_wall_ms: largest.barrier_wall_ms * times,
        hitless_ms: 0.0,
    }
}

/// A call of two speakers through a renewal and a fresh epoch.
pub(super) fn hitless(members: u32) -> anyhow::Result<Hitless> {
    let mut fleet = Fleet::found(&[SharingSuite::Psk], members)?;
    fleet.make_current()?;
    set(&mut fleet.desk, fleet.group, ChangeMode::Hitless)?;
    let group = fleet.group;
    let mut speech = Speech::begin(&mut fleet)?;
    let every = usize::try_from(members / PACKETS_A_PHASE)?.max(1);
    for order in [Order::RenewGroup { group }, Order::RekeyGroup { group }] {
        let before = fleet.desk.newest(group);
        speech.say(&mut fleet)?;
        let mut air = Air::new(&mut fleet);
        let began = air.fleet.desk.clock.now;
        let served = air.fleet.desk.begin(order)?;
        air.on_its_way(served);
        let mut turns = 0;
        // Until all have confirmed, and the key's own time has come.
        while air.fleet.desk.clock.now.since(began) < CALL {
            air.turn()?;
            turns += 1;
            if turns % every == 0 || air.down.is_empty() {
                speech.say(air.fleet)?;
            }
        }
        let moved = fleet.desk.newest(group) > before;
        let all = (0..fleet.terminals.len()).all(|place| fleet.is_current(place));
        anyhow::ensure!(moved && all, "the group has no new key");
    }
    let under_the_new = speech.sends_under(&fleet);
    anyhow::ensure!(under_the_new, "a speaker kept the old key");
    Ok(Hitless {
        members,
        packets: speech.packets,
        hearings: speech.hearings,
        lost: speech.lost,
        delayed: speech.delayed,
    })
}

pub(super) fn set(desk: &mut Operated, group: GroupNumber, mode: ChangeMode) -> anyhow::Result<()> {
    desk.order(Order::SetGroup {
        group,
        change: Some(mode),
        stragglers: None,
        legacy: None,
    })?;
    Ok(())
}

/// From the first STOP to the last START-ACK, and the server's part.
fn barrier(fleet: &mut Fleet) -> anyhow::Result<(Span, Span)> {
    fleet.desk.let_pass(2);
    let group = fleet.group;
    let members = u64::try_from(fleet.terminals.len())?;
    let expected = fleet.desk.machine.confirmations().taken + 2 * members;
    let mut air = Air::new(fleet);
    // The order is within it: STOP is said as soon as it is stored.
    let all = Watch::start();
    let served = air.fleet.desk.begin(Order::RenewGroup { group })?;
    let mut server = all.read();
    air.on_its_way(served);
    while air.fleet.desk.machine.confirmations().taken < expected {
        anyhow::ensure!(!air.down.is_empty(), "a member did not confirm");
        server += air.turn()?;
    }
    let all = all.read();
    let current = (0..fleet.terminals.len()).all(|place| fleet.is_current(place));
    anyhow::ensure!(current, "a member did not renew");
    Ok((all, server))
}

/// As published: the server signs for each member and goes on to the next when it sends again.
fn one_by_one(fleet: &mut Fleet, round: usize) -> anyhow::Result<Span> {
    fleet.desk.let_pass(2);
    let (epoch, generation) = fleet.desk.newest(fleet.group).context("a group")?;
    let key = (epoch, generation.plus(u32::try_from(round)?));
    let now = fleet.desk.clock.now;
    let watch = Watch::start();
    for place in 0..fleet.terminals.len() {
        // Above every number that the machine itself has given away.
        let sequence = SequenceNumber::new(u64::MAX - 0xFFFF + round as u64);
        for kind in [HaltKind::Stop, HaltKind::Start] {
            let frame = halt(&fleet.desk, fleet.group, kind, sequence, key);
            let said = marked(&Message::Command { frame: &frame }.encode());
            let answers = fleet.terminals[place].take(now, &[said])?;
            let answer = answers.first().context("a member did not confirm")?;
            let confirmed = Confirmation::decode(answer)?;
            let number = fleet.terminals[place].machine.identity().number;
            let named = fleet.desk.machine.terminal_named(&number.to_string());
            let wrap = &named.context("it is enrolled")?.wrap;
            anyhow::ensure!(confirmed.check(wrap), "a confirmation is not genuine");
        }
    }
    Ok(watch.read())
}

pub(super) fn halt(
    desk: &Operated,
    group: GroupNumber,
    kind: HaltKind,
    transaction: SequenceNumber,
    (epoch, generation): (KeyEpoch, Generation),
) -> Vec<u8> {
    let (record, wall) = (desk.machine.fleet(), desk.clock.wall);
    let halt = Halt {
        group,
        transaction,
        epoch,
        generation,
        deadline: wall.plus(10),
    };
    let body = match kind {
        HaltKind::Stop => Body::Stop(halt),
        HaltKind::Start => Body::Start(halt),
    };
    record.keys.sign(&Command {
        stream: record.stream,
        sequence: transaction,
        issued_at: wall,
        not_after: wall.plus(10),
        target: Target::Group(group),
        body,
        fleet_generation: record.fleet_generation,
    })
}

/// What is between the server and the members.
struct Air<'f> {
    fleet: &'f mut Fleet,
    places: HashMap<SocketAddr, usize>,
    down: VecDeque<(SocketAddr, Vec<u8>)>,
    /// When each member has something to do by itself, and the server.
    dues: Vec<Option<Tick>>,
    server_due: Option<Tick>,
}

impl<'f> Air<'f> {
    fn new(fleet: &'f mut Fleet) -> Self {
        let addresses = fleet.terminals.iter().map(|it| it.address);
        Self {
            places: addresses.enumerate().map(|(n, it)| (it, n)).collect(),
            down: VecDeque::new(),
            dues: vec![None; fleet.terminals.len()],
            server_due: None,
            fleet,
        }
    }

    fn on_its_way(&mut self, served: Served) {
        self.down.extend(served.datagrams);
        self.server_due = served.due;
    }

    /// One datagram arrives and what is answered to it, too; where none is on its way, the time
    /// moves. What the server took for it.
    fn turn(&mut self) -> anyhow::Result<Span> {
        let Some((to, octets)) = self.down.pop_front() else {
            return self.move_time();
        };
        let place = *self.places.get(&to).context("it went to a member")?;
        self.feed(place, terminal::Input::FromServer(&octets))
    }

    fn feed(&mut self, place: usize, input: terminal::Input<'_>) -> anyhow::Result<Span> {
        let member = &mut self.fleet.terminals[place];
        let from = member.address;
        let answered = member.feed(self.fleet.desk.clock.now, input)?;
        self.dues[place] = answered.due;
        let mut server = Span::default();
        for octets in answered.datagrams {
            let watch = Watch::start();
            let served = self.fleet.desk.serve(Input::Datagram { from, octets })?;
            server += watch.read();
            self.on_its_way(served);
        }
        Ok(server)
    }

    fn move_time(&mut self) -> anyhow::Result<Span> {
        let now = self.fleet.desk.clock.now;
        let dues = self.dues.iter().flatten().copied();
        let next = dues.chain(self.server_due).min();
        // No further than a second, so that who listens sees it pass.
        let most = now.plus(Duration::from_secs(1));
        let to = next.map_or(most, |next| next.clamp(now, most));
        self.fleet.desk.move_to(to);
        for place in 0..self.dues.len() {
            if self.dues[place].is_some_and(|due| due <= to) {
                self.feed(place, terminal::Input::Timeout)?;
            }
        }
        let watch = Watch::start();
        let served = self.fleet.desk.serve(Input::Timeout)?;
        let took = watch.read();
        self.on_its_way(served);
        Ok(took)
    }
}

/// Two routers, crossed both ways for STOP and for START.
const ROUTERS_MS: f64 = 0.8;
const SEQUENCES: usize = 5;
const PACKETS_A_PHASE: u32 = 20;
/// Longer than a fresh epoch takes to become active by itself.
const CALL: Duration = Duration::from_secs(40);
