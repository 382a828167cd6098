//! Groups of more members than fit here as machines (REQUIREMENTS F-07): the server's machine is the
//! product's, with a record for each, and its work is timed as it is done. A member is what it takes to
//! answer truly: its wrap key, from which come its requests, ACKs and confirmations, all of which the
//! server checks. Members work side by side on machines of their own, for as long as a real one was
//! measured to take; the network takes a fixed time and loses nothing. Time is virtual.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use keyfall_protocol::command::{Body, HaltKind, SigningKey, Unverified};
use keyfall_protocol::ids::{
    Generation, GroupNumber, SequenceNumber, TerminalNumber, Tick, UnixSeconds,
};
use keyfall_protocol::keys::{ObeyKey, WrapKey};
use keyfall_protocol::rng::octets;
use keyfall_protocol::server::{
    Addresses, ChangeMode, Done, FleetRecord, Input, Moment, Order, Server, TerminalRecord,
};
use keyfall_protocol::sharing::message::{
    AckStatus, Cookie, Message, RequestHash, marked, message_in,
};
use keyfall_protocol::sharing::pair::{AckKey, Ask, Line, SignedGrant};
use keyfall_protocol::sharing::{Confirmation, SharingSuite};
use keyfall_server::OsRandom;
use serde::Serialize;

use super::fleet::{Operated, Served, drawn, founding, wall};
use super::stop::{halt, set};
use super::watch::Watch;

/// Milliseconds of virtual time in a group of that many members.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Simulated {
    pub(super) members: u32,
    /// STOP, STOP-ACK, START, START-ACK with one after the other, as published.
    pub(super) sequential_ms: f64,
    /// From the first STOP to the last START-ACK.
    pub(super) barrier_ms: f64,
    /// The server's work in it.
    pub(super) barrier_server_ms: f64,
    /// No member stops: those that had not yet renewed when the first was told to send with the new key.
    pub(super) hitless_late: u64,
    /// From the order until the last START-ACK.
    pub(super) hitless_ms: f64,
    /// All are switched on at once and know no time: until the last had its key, suite psk.
    pub(super) restart_s: f64,
    /// Members that did not confirm, or did not get their key.
    pub(super) left: u64,
}

/// What a real member was measured to take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Work {
    pub(super) halt: Duration,
    pub(super) answer: Duration,
}

pub(super) fn simulate(members: u32, work: Work) -> anyhow::Result<Simulated> {
    let mut crowd = Crowd::found(members, work)?;
    let restart = crowd.restart()?;
    let mut left = u64::from(members) - crowd.current;
    set(&mut crowd.desk, crowd.group, ChangeMode::Barrier)?;
    let barrier = crowd.change(2)?;
    left += barrier.left;
    set(&mut crowd.desk, crowd.group, ChangeMode::Hitless)?;
    let hitless = crowd.change(1)?;
    left += hitless.left;
    let ms = |span: Duration| span.as_secs_f64() * 1e3;
    Ok(Simulated {
        members,
        sequential_ms: ms(crowd.one_by_one()?),
        barrier_ms: ms(barrier.silence),
        barrier_server_ms: ms(barrier.server),
        hitless_late: hitless.late,
        hitless_ms: ms(hitless.whole),
        restart_s: restart.as_secs_f64(),
        left,
    })
}

struct Crowd {
    desk: Operated,
    group: GroupNumber,
    members: Vec<Light>,
    work: Work,
    /// What is on its way, and when it is there.
    events: BinaryHeap<Reverse<(Tick, u64, Happens)>>,
    numbered: u64,
    /// The server is at work until then.
    free_at: Tick,
    /// When it wants to be woken: its last word counts.
    wakes: Option<Tick>,
    server: Duration,
    /// The command that was read last: one frame goes to all.
    read: Option<(Vec<u8>, Body)>,
    /// Members that have their key.
    current: u64,
    last_current: Tick,
}

/// A member: its key, where it is, and what it has sent.
struct Light {
    wrap: WrapKey,
    address: SocketAddr,
    request: Vec<u8>,
    /// When it held the generation that is changed to, and when it was told to send with it.
    renewed: Option<Tick>,
    started: Option<Tick>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happens {
    AtServer(usize, Vec<u8>),
    AtMember(usize, Vec<u8>),
    ServerWakes,
}

struct Changed {
    silence: Duration,
    whole: Duration,
    server: Duration,
    late: u64,
    left: u64,
}

impl Crowd {
    /// A fleet whose terminals are enrolled by their records; one group of them all.
    fn found(count: u32, work: Work) -> anyhow::Result<Self> {
        let wall = wall()?;
        let [root, erase] = [(); 2].map(|()| SigningKey::from_seed(drawn()));
        let founding = founding(&[SharingSuite::Psk])?;
        let record = FleetRecord::found(founding, &root, &erase.public(), wall, &mut OsRandom);
        let numbers = || (1..=count).filter_map(TerminalNumber::new);
        let terminals: Vec<_> = numbers().map(|number| terminal(number, wall)).collect();
        let members = terminals.iter().map(|it| Light {
            wrap: it.wrap.duplicate(),
            address: address(it.number.get()),
            request: Vec::new(),
            renewed: None,
            started: None,
        });
        let members: Vec<_> = members.collect();
        let clock = Moment {
            now: Tick::from_secs(1),
            wall,
        };
        let machine = Server::new(record, terminals, Vec::new(), Vec::new(), clock);
        let mut desk = Operated::new(machine, clock);
        desk.serve(Input::Timeout)?;
        let order = Order::CreateGroup {
            name: "all".to_owned(),
            members: numbers().collect(),
            cadence: None,
            packets: None,
        };
        let Done::Group { number, .. } = desk.order(order)? else {
            anyhow::bail!("no group was made");
        };
        Ok(Self {
            desk,
            group: number,
            members,
            work,
            events: BinaryHeap::new(),
            numbered: 0,
            free_at: clock.now,
            wakes: None,
            server: Duration::ZERO,
            read: None,
            current: 0,
            last_current: clock.now,
        })
    }

    /// All ask at once, and know no time.
    fn restart(&mut self) -> anyhow::Result<Duration> {
        let began = self.desk.clock.now;
        for place in 0..self.members.len() {
            let octets = self.ask(place, None)?;
            self.plan(began.plus(ONE_WAY), Happens::AtServer(place, octets));
        }
        self.run(began.plus(PATIENCE), |_| false)?;
        Ok(self.last_current.since(began))
    }

    /// Until each member has confirmed `words` times.
    fn change(&mut self, words: u64) -> anyhow::Result<Changed> {
        self.events.clear();
        self.wakes = None;
        self.desk.move_to(self.free_at.plus(Duration::from_secs(5)));
        let began = self.desk.clock.now;
        (self.free_at, self.server) = (began, Duration::ZERO);
        for member in &mut self.members {
            (member.renewed, member.started) = (None, None);
        }
        let expected = words * self.members.len() as u64;
        let before = self.desk.machine.confirmations().taken;
        let watch = Watch::start();
        let group = self.group;
        let served = self.desk.begin(Order::RenewGroup { group })?;
        self.served(served, watch)?;
        let said = self.free_at;
        self.run(began.plus(PATIENCE), |crowd| {
            crowd.desk.machine.confirmations().taken - before >= expected
        })?;
        let taken = self.desk.machine.confirmations().taken - before;
        let first = self.members.iter().filter_map(|it| it.started).min();
        let late = self.members.iter().filter(|it| {
            let renewed = it.renewed.or(it.started);
            renewed.is_none_or(|at| first.is_none_or(|first| at > first))
        });
        Ok(Changed {
            silence: self.free_at.since(said),
            whole: self.free_at.since(began),
            server: self.server,
            late: late.count() as u64,
            left: expected - taken,
        })
    }

    /// As published: the server goes on to the next when the one before sends again.
    fn one_by_one(&mut self) -> anyhow::Result<Duration> {
        let (epoch, generation) = self.desk.newest(self.group).context("a group")?;
        let key = (epoch, generation.next());
        let sequence = SequenceNumber::new(u64::MAX - 1);
        let mut passed = Duration::ZERO;
        for place in 0..self.members.len() {
            for kind in [HaltKind::Stop, HaltKind::Start] {
                let watch = Watch::start();
                let frame = halt(&self.desk, self.group, kind, sequence, key);
                let said = marked(&Message::Command { frame: &frame }.encode());
                passed += watch.read().cpu();
                let answer = self.member_hears(place, &said, self.desk.clock.now)?;
                let answer = answer.context("a member did not confirm")?;
                let watch = Watch::start();
                let confirmed = Confirmation::decode(&answer)?;
                let number = self.members[place].wrap.kid();
                let genuine = confirmed.check(&self.members[place].wrap);
                anyhow::ensure!(genuine, "{number:?}: a confirmation is not genuine");
                passed += watch.read().cpu() + self.work.halt + 2 * ONE_WAY;
            }
        }
        Ok(passed)
    }

    fn run(&mut self, until: Tick, done: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        while let Some(Reverse((at, _, happens))) = self.events.pop() {
            if at > until || done(self) {
                return Ok(());
            }
            match happens {
                Happens::AtServer(place, octets) => {
                    let from = self.members[place].address;
                    self.at_server(at, Input::Datagram { from, octets })?;
                }
                Happens::ServerWakes if self.wakes == Some(at) => {
                    self.wakes = None;
                    self.at_server(at, Input::Timeout)?;
                }
                Happens::ServerWakes => {}
                Happens::AtMember(place, octets) => {
                    if let Some(answer) = self.member_hears(place, &octets, at)? {
                        let work = match Confirmation::decode(&answer) {
                            Ok(_) => self.work.halt,
                            Err(_) => self.work.answer,
                        };
                        let there = at.plus(work).plus(ONE_WAY);
                        self.plan(there, Happens::AtServer(place, answer));
                    }
                }
            }
        }
        Ok(())
    }

    /// One after the other, each when the one before is done.
    fn at_server(&mut self, at: Tick, input: Input) -> anyhow::Result<()> {
        self.free_at = self.free_at.max(at);
        self.desk.move_to(self.free_at);
        let watch = Watch::start();
        let served = self.desk.serve(input)?;
        self.served(served, watch)
    }

    fn served(&mut self, served: Served, watch: Watch) -> anyhow::Result<()> {
        let took = watch.read().cpu();
        self.server += took;
        self.free_at = self.free_at.plus(took);
        for (to, octets) in served.datagrams {
            let place = place(to).context("it went to a member")?;
            self.plan(self.free_at.plus(ONE_WAY), Happens::AtMember(place, octets));
        }
        let wakes = served.due.map(|due| due.max(self.free_at));
        let before = std::mem::replace(&mut self.wakes, wakes);
        if let Some(at) = wakes.filter(|_| wakes != before) {
            self.plan(at, Happens::ServerWakes);
        }
        Ok(())
    }

    fn plan(&mut self, at: Tick, happens: Happens) {
        self.numbered += 1;
        self.events.push(Reverse((at, self.numbered, happens)));
    }

    /// What a member answers to a datagram, as a terminal does.
    fn member_hears(
        &mut self,
        place: usize,
        datagram: &[u8],
        at: Tick,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        let sent = message_in(datagram)?;
        match Message::decode(sent)? {
            Message::Cookie { cookie, .. } => Ok(Some(self.ask(place, Some(cookie))?)),
            Message::KeyDis {
                reference,
                distribution,
            } => {
                let member = &self.members[place];
                let hash = RequestHash::of(&member.request);
                let public = self.desk.machine.fleet().keys.public();
                let signed = SignedGrant::decode(distribution)?;
                let verified = signed.verify(&hash, &public).context("the server signed")?;
                let (grant, plain) = verified.open(&member.wrap).context("its own key")?;
                anyhow::ensure!(grant.keys.len() == 1, "a member lacks one key");
                let key = AckKey::new(&member.wrap, &member.request, sent);
                let status = AckStatus::All;
                let ack = Message::Ack {
                    suite: SharingSuite::Psk,
                    reference,
                    status,
                    mac: key.make(status, &plain),
                };
                self.current += 1;
                self.last_current = at.plus(self.work.answer);
                Ok(Some(marked(&ack.encode())))
            }
            Message::Command { frame } => self.member_obeys(place, frame, at),
            Message::KeyReq { .. }
            | Message::Ack { .. }
            | Message::Part(_)
            | Message::Hello { .. }
            | Message::Introduction { .. } => Ok(None),
        }
    }

    fn member_obeys(
        &mut self,
        place: usize,
        frame: &[u8],
        at: Tick,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        if self.read.as_ref().is_none_or(|(read, _)| read != frame) {
            let body = Unverified::decode(frame)?.command().body.clone();
            self.read = Some((frame.to_vec(), body));
        }
        let done = at.plus(self.work.halt);
        let member = &mut self.members[place];
        let (kind, halt) = match self.read.as_ref().map(|(_, body)| body) {
            Some(Body::Stop(halt)) => (HaltKind::Stop, halt),
            Some(Body::Start(halt)) => (HaltKind::Start, halt),
            Some(Body::Renew(_)) => {
                member.renewed.get_or_insert(done);
                return Ok(None);
            }
            Some(
                Body::Time(_)
                | Body::KeyDist(_)
                | Body::KeySet(_)
                | Body::Order(_)
                | Body::Exclude(_)
                | Body::Notify(_),
            )
            | None => return Ok(None),
        };
        if kind == HaltKind::Start {
            member.started.get_or_insert(at);
        }
        member.renewed.get_or_insert(done);
        let (group, transaction) = (halt.group, halt.transaction);
        let key = (halt.epoch, halt.generation);
        let made = Confirmation::make(&member.wrap, kind, group, transaction, key);
        Ok(Some(made.encode()))
    }

    fn ask(&mut self, place: usize, cookie: Option<Cookie>) -> anyhow::Result<Vec<u8>> {
        let g = self.desk.machine.fleet().fleet_generation;
        let number = TerminalNumber::new(u32::try_from(place)? + 1);
        let member = &mut self.members[place];
        let ask = Ask {
            terminal: number,
            nonce: octets(&mut OsRandom),
            time: UnixSeconds::new(0),
            held: Vec::new(),
            fresh: None,
        };
        let (suite, wrap) = (SharingSuite::Psk, &member.wrap);
        let inner = ask.seal(Line { suite, wrap }, g, cookie, REQUEST_LEN, &mut OsRandom);
        let Message::KeyReq { request, .. } = Message::decode(&inner)? else {
            anyhow::bail!("a member asks by KEY-REQ");
        };
        member.request = Message::KeyReq { request, cookie }.encode();
        Ok(marked(&member.request))
    }
}

fn terminal(number: TerminalNumber, wall: UnixSeconds) -> TerminalRecord {
    TerminalRecord {
        number,
        name: format!("t{number}"),
        obey: ObeyKey::new(number, drawn()),
        wrap: WrapKey::new(number, Generation::ZERO, drawn()),
        added_at: wall,
        package_expires: wall.plus(86_400),
        wipe_roots: Vec::new(),
        token: None,
        mixed_at: None,
        legacy_key: None,
        addresses: Addresses::default(),
        record: None,
        excluded_at: None,
        memberships: Vec::new(),
        orders: Vec::new(),
    }
}

/// An address for each number.
fn address(number: u32) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from_bits(FIRST_ADDRESS + number), 4500))
}

fn place(address: SocketAddr) -> Option<usize> {
    let SocketAddr::V4(address) = address else {
        return None;
    };
    let number = address.ip().to_bits().checked_sub(FIRST_ADDRESS)?;
    usize::try_from(number.checked_sub(1)?).ok()
}

/// Two routers are crossed.
const ONE_WAY: Duration = Duration::from_micros(200);
/// Longer than any change takes.
const PATIENCE: Duration = Duration::from_secs(60);
/// As terminals pad.
const REQUEST_LEN: usize = 252;
/// 10.0.0.0
const FIRST_ADDRESS: u32 = 10 << 24;
