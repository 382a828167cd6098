//! A server and the machines of its terminals in virtual time: some hear the carousel, some can be
//! spoken to, and any message may be lost.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::time::Duration;

use super::desk::{Counting, Desk, FOUNDED, add_terminal, create_group, group, terminal};
use crate::enrolment::{EnrolmentPackage, Identity};
use crate::ids::{Generation, KeyEpoch, TerminalNumber, Tick};
use crate::server::{ChangeReport, GroupPolicy, Input as ServerInput, Item, Moment, Order, Server};
use crate::sharing::Confirmation;
use crate::terminal::{Event, Input, Output, Terminal};

/// The group of every test here.
pub(super) const CREW: u32 = 1;
/// A message is so long on its way.
const LATENCY: Duration = Duration::from_millis(5);

/// One terminal.
pub(super) struct Unit {
    pub(super) machine: Terminal,
    rng: Counting,
    /// What is on the carousel comes here.
    pub(super) hears: bool,
    /// It is switched on.
    pub(super) on: bool,
    pub(super) events: Vec<Event>,
    timeout: Option<Tick>,
    /// Since when it cannot send in the group.
    quiet: Option<Tick>,
    /// The longest that it could not.
    pub(super) longest_quiet: Duration,
    /// Under what it sent at any look: epoch and generation, from when on.
    pub(super) sent: Vec<(Tick, KeyEpoch, Generation)>,
}

/// What is on its way.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Parcel {
    ToServer(TerminalNumber, Vec<u8>),
    ToTerminal(TerminalNumber, Vec<u8>),
    OnAir(TerminalNumber, Vec<u8>),
    /// KEY-REQ, KEY-DIS and ACK, which are tested elsewhere: the key comes, and the server hears so.
    Fetch(TerminalNumber),
}

/// Whether the message with that number is lost.
type Loses = Box<dyn FnMut(u64, &Parcel) -> bool>;

/// All of them.
pub(super) struct Crowd {
    pub(super) desk: Desk,
    pub(super) units: BTreeMap<TerminalNumber, Unit>,
    way: BTreeMap<(Tick, u64), Parcel>,
    parcels: u64,
    /// Whether the message with that number is lost.
    pub(super) loses: Loses,
    /// Datagrams to terminals and to the server since the start.
    pub(super) to_terminals: Vec<(Tick, TerminalNumber, Vec<u8>)>,
    pub(super) to_server: Vec<(Tick, TerminalNumber, Vec<u8>)>,
    /// Frames on the carousel.
    pub(super) on_air: Vec<(Tick, Item, Vec<u8>)>,
}

impl Crowd {
    /// Terminals 1 to `count`, all in the group, all sending, all heard by the server; they hear
    /// no carousel.
    pub(super) fn new(count: u32, policy: GroupPolicy) -> Self {
        let mut desk = Desk::new();
        for n in 1..=count {
            desk.carry_out(add_terminal(&format!("t{n}")))
                .expect("free");
        }
        let members: Vec<u32> = (1..=count).collect();
        desk.carry_out(create_group("crew", &members))
            .expect("free");
        desk.carry_out(set(policy)).expect("known");
        let units = desk.server.terminals().map(|it| it.number);
        let units: Vec<_> = units
            .map(|number| (number, enrol(&desk.server, number)))
            .collect();
        let mut crowd = Self {
            desk,
            units: units.into_iter().collect(),
            way: BTreeMap::new(),
            parcels: 0,
            loses: Box::new(|_, _| false),
            to_terminals: Vec::new(),
            to_server: Vec::new(),
            on_air: Vec::new(),
        };
        crowd.desk.live(20);
        let time = crowd.frame(Item::Time);
        for n in 1..=count {
            let number = terminal(n);
            crowd.feed(number, Input::Timeout);
            crowd.hear(number, &time);
            crowd.fetch(number);
        }
        crowd.look();
        crowd.forget_the_past();
        assert!(crowd.units.values().all(|unit| unit.quiet.is_none()));
        crowd
    }

    /// What was counted so far is not looked at.
    pub(super) fn forget_the_past(&mut self) {
        self.desk.sent.clear();
        self.to_terminals.clear();
        self.to_server.clear();
        self.on_air.clear();
        for unit in self.units.values_mut() {
            unit.events.clear();
            unit.sent.clear();
            unit.longest_quiet = Duration::ZERO;
        }
        self.look();
    }

    pub(super) fn now(&self) -> Tick {
        self.desk.at.now
    }

    pub(super) fn unit(&mut self, n: u32) -> &mut Unit {
        self.units.get_mut(&terminal(n)).expect("enrolled")
    }

    pub(super) fn report(&self) -> ChangeReport {
        self.desk.server.change_of(group(CREW)).expect("one began")
    }

    /// Gives an order and stores it; what follows of it is on its way.
    pub(super) fn order(&mut self, order: Order) {
        self.desk.carry_out(order).expect("it may be given");
        self.send();
    }

    /// Time goes on.
    pub(super) fn live(&mut self, span: Duration) {
        let until = self.now().plus(span);
        loop {
            let parcel = self.way.first_key_value().map(|(&(at, _), _)| at);
            let units = self.units.values().filter(|unit| unit.on);
            let due = units.filter_map(|unit| unit.timeout).min();
            let next = [parcel, due, self.desk.timeout].into_iter().flatten().min();
            let next = next.unwrap_or(until).max(self.now());
            self.advance(next.min(until));
            if next > until {
                break;
            }
            self.step();
        }
        self.look();
    }

    /// Everything that is due now happens.
    fn step(&mut self) {
        let now = self.now();
        while let Some(entry) = self.way.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let parcel = entry.remove();
            self.arrive(parcel);
        }
        if self.desk.timeout.is_some_and(|at| at <= now) {
            self.tell_server(ServerInput::Timeout);
        }
        let due = |unit: &Unit| unit.on && unit.timeout.is_some_and(|at| at <= now);
        let due: Vec<_> = self.units.iter().filter(|(_, unit)| due(unit)).collect();
        let due: Vec<_> = due.into_iter().map(|(&number, _)| number).collect();
        for number in due {
            self.feed(number, Input::Timeout);
        }
        self.look();
    }

    fn advance(&mut self, to: Tick) {
        let passed = to.as_nanos() / 1_000_000_000;
        self.desk.at = Moment {
            now: to,
            wall: FOUNDED.plus(u32::try_from(passed).expect("short")),
        };
    }

    fn arrive(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::ToServer(number, octets) => {
                let from = address(number);
                self.tell_server(ServerInput::Datagram { from, octets });
            }
            Parcel::ToTerminal(number, octets) => {
                // A COMMAND: marker, head and length, then the frame.
                let frame = frame_in(&octets);
                self.hear(number, &frame);
            }
            Parcel::OnAir(number, frame) => self.hear(number, &frame),
            Parcel::Fetch(number) => self.fetch(number),
        }
    }

    pub(super) fn tell_server(&mut self, input: ServerInput) {
        self.desk.feed(input);
        self.desk.store();
        self.send();
    }

    /// What the server gave out is on its way.
    fn send(&mut self) {
        let now = self.now();
        for (item, frame) in std::mem::take(&mut self.desk.sent) {
            let ears = self.units.iter().filter(|(_, unit)| unit.hears);
            let ears: Vec<_> = ears.map(|(&number, _)| number).collect();
            for number in ears {
                self.post(Parcel::OnAir(number, frame.clone()));
            }
            self.on_air.push((now, item, frame));
        }
        for (to, octets) in std::mem::take(&mut self.desk.to_peers) {
            let number = terminal(to.port().into());
            self.to_terminals.push((now, number, octets.clone()));
            self.post(Parcel::ToTerminal(number, octets));
        }
    }

    pub(super) fn post(&mut self, parcel: Parcel) {
        self.parcels += 1;
        if !(self.loses)(self.parcels, &parcel) {
            let at = self.now().plus(LATENCY);
            self.way.insert((at, self.parcels), parcel);
        }
    }

    /// How many messages there were.
    pub(super) fn posted(&self) -> u64 {
        self.parcels
    }

    pub(super) fn hear(&mut self, number: TerminalNumber, frame: &[u8]) {
        self.feed(number, Input::Datagram(frame));
    }

    fn feed(&mut self, number: TerminalNumber, input: Input<'_>) {
        let now = self.now();
        let unit = self.units.get_mut(&number).expect("enrolled");
        if !unit.on {
            return;
        }
        unit.machine
            .handle_input(now, &mut unit.rng, input)
            .expect("the test keeps the contract");
        let mut parcels = Vec::new();
        let mut stored = None;
        loop {
            match unit.machine.poll_output() {
                Output::Store(id, _) => stored = Some(id),
                Output::ToServer(octets) => parcels.push(Parcel::ToServer(number, octets)),
                Output::Probe { .. } | Output::Answer { .. } | Output::ToPeer { .. } => {}
                Output::Event(event) => {
                    if matches!(event, Event::Notified { .. } | Event::KeyWanted { .. }) {
                        parcels.push(Parcel::Fetch(number));
                    }
                    unit.events.push(event);
                }
                Output::Erase(_) => panic!("nobody orders that"),
                Output::Timeout { at, .. } => {
                    unit.timeout = at;
                    if let Some(id) = stored.take() {
                        unit.machine
                            .handle_input(now, &mut unit.rng, Input::Stored(id))
                            .expect("it was asked for");
                        continue;
                    }
                    break;
                }
            }
        }
        for parcel in parcels {
            if let Parcel::ToServer(number, octets) = &parcel {
                self.to_server.push((now, *number, octets.clone()));
            }
            self.post(parcel);
        }
    }

    /// KEY-REQ to ACK in one.
    pub(super) fn fetch(&mut self, number: TerminalNumber) {
        if !self.units[&number].on {
            return;
        }
        let server = &self.desk.server;
        let Some(shard) = server.shard_of(group(CREW), number) else {
            return;
        };
        let frame = self.frame(Item::Dist(group(CREW), shard));
        self.hear(number, &frame);
        let (epoch, generation) = self.held(number);
        let (from, now) = (address(number), self.now());
        let server = &mut self.desk.server;
        server.peers.heard(number, from, now);
        server.on_holding(number, group(CREW), epoch, generation);
        self.tell_server(ServerInput::Timeout);
    }

    /// The newest that it holds of the group.
    pub(super) fn held(&self, number: TerminalNumber) -> (KeyEpoch, Generation) {
        let groups = self.units[&number].machine.groups();
        groups
            .first()
            .map_or((KeyEpoch::new(0), Generation::ZERO), |it| {
                (it.epoch, it.generation)
            })
    }

    fn frame(&mut self, item: Item) -> Vec<u8> {
        let mut rng = super::desk::counting();
        self.desk
            .server
            .frame_of(item, &mut rng)
            .expect("it stands")
    }

    /// Who sends with what at this moment.
    fn look(&mut self) {
        let now = self.desk.at.now;
        for unit in self.units.values_mut().filter(|unit| unit.on) {
            let sends = unit.machine.send_key(group(CREW));
            if let Some(key) = sends {
                if let Some(since) = unit.quiet.take() {
                    unit.longest_quiet = unit.longest_quiet.max(now.since(since));
                }
                let place = (key.epoch(), key.generation());
                let same = |&(_, epoch, generation): &(_, _, _)| (epoch, generation) == place;
                if !unit.sent.last().is_some_and(same) {
                    unit.sent.push((now, place.0, place.1));
                }
            } else {
                unit.quiet.get_or_insert(now);
            }
        }
    }

    /// What the terminal sends with.
    pub(super) fn sends(&self, n: u32) -> Option<(KeyEpoch, Generation)> {
        let key = self.units[&terminal(n)].machine.send_key(group(CREW))?;
        Some((key.epoch(), key.generation()))
    }

    /// What the group has now.
    pub(super) fn key(&self) -> (KeyEpoch, Generation) {
        let master = &self.desk.server.groups[&group(CREW)].master;
        (master.epoch(), master.generation())
    }

    /// When a terminal began to send with what the group has now.
    pub(super) fn moved_at(&self, n: u32) -> Option<Tick> {
        let key = self.key();
        let sent = &self.units[&terminal(n)].sent;
        let with = |&&(_, epoch, generation): &&(Tick, _, _)| (epoch, generation) == key;
        sent.iter().find(with).map(|&(at, ..)| at)
    }

    /// The server ends in the middle, and starts again a second later.
    pub(super) fn restart(&mut self) {
        self.live(Duration::from_secs(1));
        let desk = std::mem::replace(&mut self.desk, Desk::new());
        let at = desk.at;
        self.desk = desk.restarted(at.wall);
        self.desk.store();
        self.way
            .retain(|_, parcel| !matches!(parcel, Parcel::ToServer(..)));
        self.send();
    }

    /// Confirmations that a terminal sent.
    pub(super) fn confirmations(&self, n: u32) -> Vec<Confirmation> {
        let of = terminal(n);
        let own = self
            .to_server
            .iter()
            .filter(|&&(_, number, _)| number == of);
        own.filter_map(|(_, _, octets)| Confirmation::decode(octets).ok())
            .collect()
    }
}

/// Where that terminal is.
pub(super) fn address(number: TerminalNumber) -> SocketAddr {
    let port = u16::try_from(number.get()).expect("few");
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// The signed command in a COMMAND.
pub(super) fn frame_in(datagram: &[u8]) -> Vec<u8> {
    assert_eq!(datagram[..8], [0, 0, 0, 0, 0x84, 1, 0, 8]);
    let head = match datagram[8] {
        0x58 => 10,
        0x59 => 11,
        other => panic!("{other:#x} begins no frame"),
    };
    datagram[head..].to_vec()
}

pub(super) fn set(policy: GroupPolicy) -> Order {
    Order::SetGroup {
        group: group(CREW),
        change: Some(policy.change),
        stragglers: Some(policy.stragglers),
        legacy: None,
    }
}

fn enrol(server: &Server, number: TerminalNumber) -> Unit {
    let (fleet, record) = (server.fleet(), &server.terminals[&number]);
    let package = EnrolmentPackage {
        identity: Identity {
            number,
            name: record.name.clone(),
            fleet: fleet.name.clone(),
            root: fleet.root,
            key_set_frame: fleet.key_set_frame.clone(),
            streams: vec![fleet.stream],
            carriers: Vec::new(),
            servers: Vec::new(),
            keep_time: fleet.keep_time,
            wipe_roots: Vec::new(),
        },
        obey: record.obey.duplicate(),
        wrap: record.wrap.duplicate(),
        issued_at: FOUNDED,
        expires: FOUNDED.plus(86_400),
    };
    let machine = Terminal::enrol(package, Tick::default()).expect("our root");
    Unit {
        machine,
        rng: Counting::seeded(u64::from(number.get()) << 32),
        hears: false,
        on: true,
        events: Vec::new(),
        timeout: None,
        quiet: None,
        longest_quiet: Duration::ZERO,
        sent: Vec::new(),
    }
}
