//! A server and terminals that ask it, on one thread: every message is in the test's hand.

use core::net::SocketAddr;
use std::collections::VecDeque;
use std::time::Duration;

use keyfall_protocol::command::{Limits, SigningKey, Suites};
use keyfall_protocol::enrolment::{RequestKey, SealedPackage};
use keyfall_protocol::ids::{GroupNumber, TerminalNumber, Tick, UnixSeconds};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{
    self, AuditEntry, By, Done, FleetRecord, Founding, Moment, Order, OrderId, PackageSealing,
    Server,
};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::message::type_of;
use keyfall_protocol::terminal::{
    self, AskOutcome, ContactInput, Event, Snapshot, StoreId, Terminal,
};

use crate::newcomers::Newcomer;
use crate::stream::Stream;

/// What is done to each datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    Passes,
    Lost,
    Doubled,
}

/// Of the n-th datagram, from a terminal or not, with these octets.
type Judge = Box<dyn FnMut(usize, bool, &[u8]) -> Fate>;

/// One terminal of the pair.
pub(crate) struct Asker {
    pub(crate) machine: Terminal,
    pub(crate) address: SocketAddr,
    pub(crate) device: Vec<u8>,
    pub(crate) user: Vec<u8>,
    pub(crate) ended: Vec<AskOutcome>,
    pub(crate) wake: Option<Tick>,
}

/// Server and terminals with a clock of their own.
pub(crate) struct Pair {
    pub(crate) server: Server,
    pub(crate) askers: Vec<Asker>,
    /// Who comes with a token and is no asker yet.
    pub(crate) newcomers: Vec<Newcomer>,
    pub(crate) rng: Stream,
    pub(crate) now: Tick,
    /// Every datagram that was sent: from a terminal?
    pub(crate) air: Vec<(bool, Vec<u8>)>,
    /// What the server would send on its carriers; the test decides who hears it.
    pub(crate) frames: Vec<Vec<u8>>,
    fate: Judge,
    on_way: VecDeque<(Tick, Way, Vec<u8>)>,
    server_wake: Option<Tick>,
    orders: u64,
    pub(crate) done: Vec<Result<Done, server::Refusal>>,
    pub(crate) audit: Vec<AuditEntry>,
    /// What signs KEYSETs.
    pub(crate) root: SigningKey,
    /// Public-key work that was begun, and is done when the test says so where this is some.
    pub(crate) begun: usize,
    pub(crate) jobs: Option<Vec<server::Job>>,
    /// Whether the terminals' stores become durable at once.
    pub(crate) stores: bool,
    /// The newest store that is not.
    pub(crate) unstored: Option<StoreId>,
    /// The same of the server's.
    pub(crate) server_stores: bool,
    pub(crate) server_unstored: Option<server::StoreId>,
}

#[derive(Clone, Copy)]
pub(crate) enum Way {
    Up(SocketAddr),
    Down(SocketAddr),
}

pub(crate) const FOUNDED: UnixSeconds = UnixSeconds::new(1_800_000_000);

impl Pair {
    pub(crate) fn new(suites: &[SharingSuite], terminals: u32) -> Self {
        Self::with(suites, terminals, |_| {})
    }

    /// Of a fleet that differs from one just founded.
    pub(crate) fn with(
        suites: &[SharingSuite],
        terminals: u32,
        differ: impl FnOnce(&mut FleetRecord),
    ) -> Self {
        let mut rng = Stream::new("sharing pair");
        let [root, erase] =
            [0, 1].map(|_| SigningKey::from_seed(Secret::init_with(|into| rng.fill(into))));
        let founding = Founding {
            limits: Limits {
                suites: Suites::new(suites).expect("some, and none twice"),
                ..Limits::default()
            },
            listen: vec!["192.0.2.9:47900".to_owned()],
            ..Founding::default()
        };
        let mut fleet = FleetRecord::found(founding, &root, &erase.public(), FOUNDED, &mut rng);
        differ(&mut fleet);
        let now = Tick::default();
        let at = Moment { now, wall: FOUNDED };
        let server = Server::new(fleet, Vec::new(), Vec::new(), Vec::new(), at);
        let mut pair = Self {
            server,
            askers: Vec::new(),
            newcomers: Vec::new(),
            rng,
            now,
            air: Vec::new(),
            frames: Vec::new(),
            fate: Box::new(|_, _, _| Fate::Passes),
            on_way: VecDeque::new(),
            server_wake: None,
            orders: 0,
            done: Vec::new(),
            audit: Vec::new(),
            root,
            begun: 0,
            jobs: None,
            stores: true,
            unstored: None,
            server_stores: true,
            server_unstored: None,
        };
        pair.drain_server();
        for n in 1..=terminals {
            pair.enrol(n);
        }
        pair
    }

    /// What happens to the n-th datagram from now on; true: from a terminal.
    pub(crate) fn let_pass(&mut self, fate: impl FnMut(usize, bool, &[u8]) -> Fate + 'static) {
        self.air.clear();
        self.fate = Box::new(fate);
    }

    fn enrol(&mut self, n: u32) {
        let request = RequestKey::from_seed(Secret::init_with(|into| self.rng.fill(into)));
        let order = Order::AddTerminal {
            name: format!("t{n}"),
            sealing: PackageSealing::ToRequest(request.public()),
            wipe_roots: Vec::new(),
        };
        let Ok(Done::Terminal { package, .. }) = self.order(order) else {
            panic!("t{n} was not added");
        };
        let package = SealedPackage::decode(&package)
            .and_then(|sealed| sealed.open_with(&request))
            .expect("it was sealed to this key");
        let machine = Terminal::enrol(package, self.now).expect("the root signed");
        self.askers.push(Asker {
            machine,
            address: SocketAddr::from(([192, 0, 2, 1], 40_000 + n as u16)),
            device: Vec::new(),
            user: Vec::new(),
            ended: Vec::new(),
            wake: None,
        });
        self.drain_asker(self.askers.len() - 1);
    }

    pub(crate) fn order(&mut self, order: Order) -> Result<Done, server::Refusal> {
        self.orders += 1;
        let id = OrderId(self.orders);
        let by = By {
            actor: "test".to_owned(),
            reason: None,
            ticket: None,
        };
        self.feed_server(server::Input::Order { id, order, by });
        self.done.pop().expect("an order is answered at once here")
    }

    pub(crate) fn group(&mut self, members: &[u32]) -> GroupNumber {
        let members = members
            .iter()
            .map(|&n| TerminalNumber::new(n).expect("not 0"));
        let order = Order::CreateGroup {
            packets: None,
            name: format!("g{}", self.orders),
            members: members.collect(),
            cadence: None,
        };
        match self.order(order) {
            Ok(Done::Group { number, .. }) => number,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask(&mut self, place: usize) {
        let order = terminal::Order::Ask {
            within: Duration::ZERO,
        };
        self.feed(place, terminal::Input::Order(order));
        self.feed(place, terminal::Input::Timeout);
    }

    pub(crate) fn feed(&mut self, place: usize, input: terminal::Input<'_>) {
        let asker = &mut self.askers[place];
        asker
            .machine
            .handle_input(self.now, &mut self.rng, input)
            .expect("the test keeps the contract");
        self.drain_asker(place);
    }

    pub(crate) fn feed_server(&mut self, input: server::Input) {
        let at = self.moment();
        self.server
            .handle_input(at, &mut self.rng, input)
            .expect("the test keeps the contract");
        self.drain_server();
    }

    /// That datagram comes to the server at once.
    pub(crate) fn put(&mut self, from: SocketAddr, octets: Vec<u8>) {
        self.feed_server(server::Input::Datagram { from, octets });
    }

    pub(crate) fn moment(&self) -> Moment {
        let elapsed = u32::try_from(self.now.since(Tick::default()).as_secs()).expect("short");
        Moment {
            now: self.now,
            wall: FOUNDED.plus(elapsed),
        }
    }

    fn drain_server(&mut self) {
        loop {
            match self.server.poll_output() {
                server::Output::Store(id) => {
                    let batch = self.server.batch(id).expect("it was asked for");
                    self.audit.extend(batch.audit.clone());
                    if self.server_stores {
                        self.feed_server(server::Input::Stored(id));
                    } else {
                        self.server_unstored = Some(id);
                    }
                }
                server::Output::Transmit { frame, .. } => self.frames.push(frame),
                server::Output::Send { to, octets } => self.send(Way::Down(to), octets),
                server::Output::Work(job) => {
                    self.begun += 1;
                    match &mut self.jobs {
                        Some(jobs) => jobs.push(job),
                        None => {
                            let worked = job.run(&mut self.rng);
                            self.feed_server(server::Input::Worked(worked));
                        }
                    }
                }
                server::Output::Done { outcome, .. } => self.done.push(outcome),
                server::Output::Timeout { at } => {
                    self.server_wake = at;
                    return;
                }
            }
        }
    }

    pub(crate) fn drain_asker(&mut self, place: usize) {
        loop {
            let asker = &mut self.askers[place];
            match asker.machine.poll_output() {
                terminal::Output::Store(id, Snapshot { device, user }) => {
                    asker.device = device.to_vec();
                    if let Some(user) = user {
                        asker.user = user.to_vec();
                    }
                    if self.stores {
                        self.feed(place, terminal::Input::Stored(id));
                    } else {
                        self.unstored = Some(id);
                    }
                }
                terminal::Output::ToServer(octets) => {
                    let from = asker.address;
                    self.send(Way::Up(from), octets);
                }
                terminal::Output::Probe { .. }
                | terminal::Output::Answer { .. }
                | terminal::Output::ToPeer { .. } => {}
                terminal::Output::Event(Event::AskEnded { outcome }) => asker.ended.push(outcome),
                terminal::Output::Event(_) | terminal::Output::Erase(_) => {}
                terminal::Output::Timeout { at, .. } => {
                    asker.wake = at;
                    return;
                }
            }
        }
    }

    pub(crate) fn send(&mut self, way: Way, octets: Vec<u8>) {
        assert!(octets.len() <= 1200, "{} octets", octets.len());
        let up = matches!(way, Way::Up(_));
        let fate = (self.fate)(self.air.len(), up, &octets);
        self.air.push((up, octets.clone()));
        let copies = match fate {
            Fate::Passes => 1,
            Fate::Lost => 0,
            Fate::Doubled => 2,
        };
        for _ in 0..copies {
            let at = self.now.plus(Duration::from_millis(10));
            self.on_way.push_back((at, way, octets.clone()));
        }
    }

    /// Lets everything happen for `span`.
    pub(crate) fn run(&mut self, span: Duration) {
        let until = self.now.plus(span);
        loop {
            let arrival = self.on_way.front().map(|(at, ..)| *at);
            let wakes = self.askers.iter().filter_map(|it| it.wake);
            let wakes = wakes.chain(self.newcomers.iter().filter_map(|it| it.wake));
            let next = arrival.into_iter().chain(wakes).chain(self.server_wake);
            let Some(at) = next.min().filter(|&at| at <= until) else {
                self.now = until;
                return;
            };
            self.now = self.now.max(at);
            if arrival.is_some_and(|at| at <= self.now) {
                let (_, way, octets) = self.on_way.pop_front().expect("seen");
                match way {
                    Way::Up(from) => self.feed_server(server::Input::Datagram { from, octets }),
                    Way::Down(to) => {
                        let place = self.askers.iter().position(|it| it.address == to);
                        if let Some(place) = place {
                            self.feed(place, terminal::Input::FromServer(&octets));
                        }
                        let mut newcomers = self.newcomers.iter();
                        if let (None, Some(place)) =
                            (place, newcomers.position(|it| it.address == to))
                        {
                            self.feed_newcomer(place, ContactInput::FromServer(&octets));
                        }
                    }
                }
                continue;
            }
            for place in 0..self.askers.len() {
                if self.askers[place].wake.is_some_and(|at| at <= self.now) {
                    self.feed(place, terminal::Input::Timeout);
                }
            }
            for place in 0..self.newcomers.len() {
                if self.newcomers[place].wake.is_some_and(|at| at <= self.now) {
                    self.feed_newcomer(place, ContactInput::Timeout);
                }
            }
            if self.server_wake.is_some_and(|at| at <= self.now) {
                self.feed_server(server::Input::Timeout);
            }
        }
    }

    /// The terminal holds what the server has of that group.
    pub(crate) fn is_current(&self, place: usize, group: GroupNumber) -> bool {
        let key = &self
            .server
            .groups()
            .find(|it| it.number == group)
            .expect("it is there")
            .master;
        let held = self.askers[place].machine.groups();
        held.into_iter().any(|it| {
            it.group == group && it.epoch == key.epoch() && it.generation == key.generation()
        })
    }

    /// A power cut: what is stored is there.
    pub(crate) fn restart(&mut self, place: usize) {
        let asker = &mut self.askers[place];
        asker.machine = Terminal::restore(&asker.device, Some(&asker.user), self.now)
            .expect("it was stored by itself");
        asker.wake = None;
        self.drain_asker(place);
    }

    /// Another asker with what that one has stored, elsewhere.
    pub(crate) fn copy(&mut self, place: usize) {
        let asker = &self.askers[place];
        let (device, user) = (asker.device.clone(), asker.user.clone());
        self.askers.push(Asker {
            machine: Terminal::restore(&device, Some(&user), self.now).expect("a copy"),
            address: SocketAddr::from(([192, 0, 2, 2], 1)),
            device,
            user,
            ended: Vec::new(),
            wake: None,
        });
        self.drain_asker(self.askers.len() - 1);
    }

    pub(crate) fn types(&self) -> Vec<u8> {
        self.air
            .iter()
            .filter_map(|(_, octets)| type_of(octets))
            .collect()
    }
}

pub(crate) const ALL: [SharingSuite; 3] =
    [SharingSuite::Psk, SharingSuite::Hpke, SharingSuite::HpkePq];
pub(crate) const KEY_REQ: u8 = 1;
pub(crate) const COOKIE: u8 = 2;
pub(crate) const KEY_DIS: u8 = 3;
pub(crate) const ACK: u8 = 4;
pub(crate) const COMMAND: u8 = 8;

/// one terminal in three groups, one KEY-DIS.
#[test]
fn a_terminal_fetches_all_its_keys_at_once_in_every_suite() {
    for suite in ALL {
        let mut pair = Pair::new(&[suite], 2);
        let groups = [pair.group(&[1, 2]), pair.group(&[1]), pair.group(&[2])];
        pair.ask(0);
        pair.run(Duration::from_secs(5));
        let holds = |group| pair.is_current(0, group);
        assert!(holds(groups[0]) && holds(groups[1]), "{suite:?}");
        assert!(!holds(groups[2]), "{suite:?}: no member");
        assert_eq!(pair.askers[0].ended, [AskOutcome::Current], "{suite:?}");
        let terminal = TerminalNumber::new(1).expect("not 0");
        assert!(
            pair.server.confirmed(terminal, groups[0]).is_some(),
            "{suite:?}"
        );
        assert!(pair.server.heard_from(terminal).is_some());
    }
}

/// Only what is missing: a second request brings an empty answer, the third what is new.
#[test]
fn an_answer_brings_only_the_difference() {
    let mut pair = Pair::new(&[SharingSuite::Psk], 1);
    let group = pair.group(&[1]);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    let longest = |pair: &Pair| {
        let down = pair
            .air
            .iter()
            .filter(|(up, octets)| !up && type_of(octets) == Some(KEY_DIS));
        down.map(|(_, octets)| octets.len()).max()
    };
    let full = longest(&pair);
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(longest(&pair) < full, "{:?} < {full:?}", longest(&pair));
    pair.order(Order::RekeyGroup { group }).expect("it may be");
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(pair.is_current(0, group));
}

/// in one round trip where the generation is known, else in two.
#[test]
fn a_week_off_is_made_good_in_one_round_trip_or_two() {
    for (suite, renewals) in [
        (SharingSuite::Psk, 0),
        (SharingSuite::Psk, 3),
        (SharingSuite::Hpke, 3),
    ] {
        let mut pair = Pair::new(&[suite], 1);
        let group = pair.group(&[1]);
        pair.ask(0);
        pair.run(Duration::from_secs(5));
        for _ in 0..renewals {
            pair.order(Order::RenewDevices).expect("it may be");
        }
        pair.order(Order::RekeyGroup { group }).expect("it may be");
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.ask(0);
        pair.run(Duration::from_secs(2));
        assert!(pair.is_current(0, group), "{suite:?} {renewals}");
        // The change of the key goes on beside it.
        let mut types = pair.types();
        types.retain(|kind| (KEY_REQ..=ACK).contains(kind));
        let trips: &[u8] = if renewals == 0 {
            &[KEY_REQ, KEY_DIS, ACK]
        } else {
            &[KEY_REQ, COOKIE, KEY_REQ, KEY_DIS, ACK]
        };
        assert!(types.starts_with(trips), "{suite:?}: {types:?}");
    }
}

/// every single message and every pair of messages is lost.
#[test]
fn whatever_one_or_two_messages_are_lost_the_terminal_becomes_current() {
    for suite in ALL {
        let mut most = 0;
        for first in 0..16 {
            for second in first..16 {
                let mut pair = Pair::new(&[suite], 1);
                let group = pair.group(&[1]);
                pair.let_pass(move |n, _, _| {
                    if n == first || n == second {
                        Fate::Lost
                    } else {
                        Fate::Passes
                    }
                });
                pair.ask(0);
                pair.run(Duration::from_secs(40));
                let ended = pair.askers[0].ended.first();
                assert_eq!(
                    ended,
                    Some(&AskOutcome::Current),
                    "{suite:?} {first} {second}"
                );
                assert!(pair.is_current(0, group), "{suite:?} {first} {second}");
                most = most.max(pair.air.len());
            }
        }
        let parts = if suite == SharingSuite::HpkePq { 3 } else { 1 };
        assert!(most <= 28 * parts, "{suite:?}: {most} messages");
    }
}

/// A repeat or a double of any message does no harm.
#[test]
fn doubled_messages_change_nothing() {
    for suite in ALL {
        let mut pair = Pair::new(&[suite], 1);
        let group = pair.group(&[1]);
        pair.let_pass(|_, _, _| Fate::Doubled);
        pair.ask(0);
        pair.run(Duration::from_secs(40));
        assert!(pair.is_current(0, group), "{suite:?}");
        assert_eq!(pair.askers[0].ended, [AskOutcome::Current], "{suite:?}");
    }
}

/// Nobody is there: the sequence ends, and begins anew after a pause.
#[test]
fn a_sequence_without_an_answer_ends_and_begins_anew() {
    let mut pair = Pair::new(&[SharingSuite::Psk], 1);
    pair.let_pass(|_, _, _| Fate::Lost);
    pair.ask(0);
    pair.run(Duration::from_secs(60));
    assert_eq!(pair.askers[0].ended, [AskOutcome::NoAnswer]);
    let tries = pair.air.len();
    assert_eq!(tries, 6, "tries of the first sequence");
    pair.run(Duration::from_secs(120));
    assert!(
        pair.askers[0].ended.len() >= 2,
        "{:?}",
        pair.askers[0].ended
    );
}

/// The first ACK is held back, and comes after that of a second answer with other fresh octets: of
/// two only the newer counted, or the server would hold a wrap key that its terminal has given up.
#[test]
fn an_ack_that_was_held_back_does_not_lock_its_terminal_out() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 1);
    let group = pair.group(&[1]);
    let mut acks = 0;
    pair.let_pass(move |_, _, octets| {
        acks += usize::from(type_of(octets) == Some(ACK));
        if acks == 1 && type_of(octets) == Some(ACK) {
            Fate::Lost
        } else {
            Fate::Passes
        }
    });
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(pair.is_current(0, group));
    let held_back = |(_, octets): &&(bool, Vec<u8>)| type_of(octets) == Some(ACK);
    let first = pair.air.iter().find(held_back).expect("it was sent");
    let (from, octets) = (pair.askers[0].address, first.1.clone());
    pair.put(from, octets);
    pair.run(Duration::from_secs(1));
    pair.order(Order::RekeyGroup { group }).expect("it may be");
    pair.ask(0);
    pair.run(Duration::from_secs(30));
    assert!(pair.is_current(0, group));
    let all = pair.askers[0].ended.iter();
    assert!(all.clone().all(|it| *it == AskOutcome::Current), "{all:?}");
}

/// Who was taken out confirms that it gave the key up: nothing is kept as confirmed of it.
#[test]
fn a_key_that_was_given_up_is_not_confirmed() {
    let mut pair = Pair::new(&[SharingSuite::Psk], 2);
    let group = pair.group(&[1, 2]);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    let terminal = TerminalNumber::new(1).expect("not 0");
    assert!(pair.server.confirmed(terminal, group).is_some());
    let leave = Order::RemoveMember { group, terminal };
    pair.order(leave).expect("it may be");
    assert_eq!(pair.server.confirmed(terminal, group), None);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(pair.askers[0].machine.groups().is_empty());
    assert_eq!(pair.server.confirmed(terminal, group), None);
}

/// No ACK ever arrives: the server never learns that fresh octets were mixed in, and brings others to
/// each request, and no keys. The sequence ends all the same.
#[test]
fn a_sequence_whose_acks_are_all_lost_ends() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 1);
    let group = pair.group(&[1]);
    pair.let_pass(|_, _, octets| match type_of(octets) {
        Some(ACK) => Fate::Lost,
        _ => Fate::Passes,
    });
    pair.ask(0);
    pair.run(Duration::from_secs(30));
    assert!(!pair.is_current(0, group));
    assert_eq!(pair.askers[0].ended, [AskOutcome::NoAnswer]);
    assert!(pair.air.len() < 40, "{} messages", pair.air.len());
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.run(Duration::from_secs(90));
    assert_eq!(pair.askers[0].ended.last(), Some(&AskOutcome::Current));
    assert!(pair.is_current(0, group));
}

/// The NAT forgets while the terminal asks under its mixed key for the first time: the cookie of the
/// old address is met with another one, and that says nothing of the key that is asked under.
#[test]
fn a_cookie_of_the_old_address_is_no_unknown_key() {
    let mut pair = Pair::new(&[SharingSuite::HpkePq], 1);
    let group = pair.group(&[1]);
    let (mut acks, mut cookies) = (0, 0);
    pair.let_pass(move |_, up, octets| {
        acks += usize::from(type_of(octets) == Some(ACK));
        cookies += usize::from(acks == 1 && type_of(octets) == Some(COOKIE));
        if up && cookies == 1 {
            Fate::Lost
        } else {
            Fate::Passes
        }
    });
    pair.ask(0);
    pair.run(Duration::from_secs(1));
    assert_eq!(pair.askers[0].machine.asks(), "expects KEY-DIS");
    pair.askers[0].address = SocketAddr::from(([192, 0, 2, 1], 50_000));
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.run(Duration::from_secs(10));
    assert!(pair.is_current(0, group));
    assert_eq!(pair.askers[0].ended, [AskOutcome::Current]);
}

/// FORMATS section 8: of two copies of a package the first that asks wins, the other is told.
#[test]
fn of_two_copies_of_a_package_the_first_to_ask_wins() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 1);
    let group = pair.group(&[1]);
    pair.copy(0);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(pair.is_current(0, group));
    pair.ask(1);
    pair.run(Duration::from_secs(30));
    assert_eq!(pair.askers[1].ended, [AskOutcome::NotKnown]);
    assert!(!pair.is_current(1, group));
    // The genuine one goes on, through a restart, too.
    pair.order(Order::RekeyGroup { group }).expect("it may be");
    pair.restart(0);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(pair.is_current(0, group));
}

/// STOP, STOP-ACK, START, START-ACK after the members have fetched the fresh key.
#[test]
fn a_fresh_key_is_changed_to_behind_a_barrier() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 3);
    let group = pair.group(&[1, 2, 3]);
    for place in 0..3 {
        pair.ask(place);
    }
    pair.run(Duration::from_secs(5));
    let order = Order::SetGroup {
        group,
        change: Some(server::ChangeMode::Barrier),
        stragglers: None,
        legacy: None,
    };
    pair.order(order).expect("it may be");
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.order(Order::RekeyGroup { group }).expect("it may be");
    pair.run(Duration::from_secs(4));
    let count = |kind| pair.types().iter().filter(|&&it| it == kind).count();
    let drops: Vec<_> = pair.askers[0].machine.drops().iter().collect();
    assert_eq!(
        (count(5), count(6)),
        (3, 3),
        "{:?} {drops:?} {:?}",
        pair.types(),
        pair.askers[0].machine.groups()
    );
    assert!((0..3).all(|place| pair.is_current(place, group)));
}
