//! One server, one terminal, one group, and every message in the hand of whoever explores what may
//! happen: the rig of the model of key sharing and of gap sync.
//!
//! The machines cannot be copied, so a state is the list of [`Step`]s that led to it, and is made again
//! by taking them again from the [`Ground`]. Randomness is drawn from what a machine has been through:
//! two orders of steps that differ in nothing that a machine sees are one state.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::Duration;

use keyfall_protocol::command::{Limits, Suites};
use keyfall_protocol::ids::{Fingerprint, Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick};
use keyfall_protocol::server::{self, By, DeskCounts, Item, Moment, OrderId, Server};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::message::type_of;
use keyfall_protocol::terminal::{self, AskOutcome, Event, StoreId, Terminal};

use crate::disk::ServerDisk;
use crate::link::LinkQuality;
use crate::seeded::Seeded;
use crate::snapshot::{DiskImage, Loot};
use crate::world::{Config, World};

/// Where every run begins: a group with one member that has never asked.
pub struct Ground {
    disk: ServerDisk,
    image: DiskImage,
    group: GroupNumber,
    terminal: TerminalNumber,
    config: Config,
}

/// How much of each may still happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Bounds {
    /// Datagrams that are lost.
    pub lost: u8,
    pub doubled: u8,
    /// Recorded datagrams that somebody sends again.
    pub replayed: u8,
    /// Copies with one bit altered that somebody sends beside a datagram.
    pub forged: u8,
    /// Power cuts of the terminal.
    pub crashes: u8,
    pub server_crashes: u8,
    /// Renewals, fresh epochs and renewals of device keys that are ordered.
    pub orders: u8,
    /// Timers that fire before what is on its way has come.
    pub timeouts: u8,
    /// Frames of the carrier that reach the terminal.
    pub carried: u8,
}

/// What may happen next. Places count from 0 in what is on its way, or was ever seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Step {
    Deliver(usize),
    Lose(usize),
    Double(usize),
    Replay(usize),
    Forge(usize),
    /// The terminal's disk has done what was asked.
    TerminalStores,
    ServerStores,
    /// Whether what was being written is there afterwards.
    TerminalCrashes {
        written: bool,
    },
    ServerCrashes {
        written: bool,
    },
    TerminalWakes,
    ServerWakes,
    RenewGroup,
    RekeyGroup,
    RenewDevices,
    /// The newest frame of that item reaches the terminal.
    Carry(Item),
}

/// A run.
pub struct Exchange<'g> {
    ground: &'g Ground,
    now: Tick,
    left: Bounds,
    server: Server,
    disk: ServerDisk,
    server_stores: Option<server::StoreId>,
    server_wakes: Option<Tick>,
    terminal: Terminal,
    image: DiskImage,
    terminal_stores: Option<(StoreId, DiskImage)>,
    terminal_wakes: Option<Tick>,
    booted: Tick,
    boots: u32,
    /// What each machine has been through, terminal first.
    past: [u64; 2],
    /// What was committed since the beginning.
    committed: u64,
    air: Vec<Flight>,
    /// Everything that was ever on its way, each once.
    tape: Vec<Flight>,
    frames: BTreeMap<Item, Rc<[u8]>>,
    /// The server's key when the present sequence began.
    floor: Option<Name>,
    /// What the terminal's disk holds.
    durable: Option<Name>,
    /// Every key that the server stored.
    made: BTreeMap<Name, Fingerprint>,
    ended: Option<AskOutcome>,
    faults: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Flight {
    to_server: bool,
    octets: Rc<[u8]>,
}

type Name = (KeyEpoch, Generation);

impl Ground {
    /// A fleet whose root lists that suite.
    #[must_use]
    pub fn new(suite: SharingSuite) -> Self {
        let config = Config {
            limits: Limits {
                suites: Suites::new(&[suite]).expect("one"),
                ..Limits::default()
            },
            ..Config::default()
        };
        let mut world = World::new(1, config.clone());
        let station = world.enrol("alice", LinkQuality::PERFECT);
        world.cut_link(station, true);
        let group = world.create_group("crew", &[station], None);
        Self {
            image: world.station(station).synced().clone(),
            terminal: world.station(station).number,
            disk: world.server_disk().duplicate(),
            group,
            config,
        }
    }

    /// The run that these steps make.
    #[must_use]
    pub fn after(&self, bounds: Bounds, steps: &[Step]) -> Exchange<'_> {
        let mut run = Exchange::begin(self, bounds);
        steps.iter().for_each(|&step| run.take(step));
        run
    }
}

impl<'g> Exchange<'g> {
    fn begin(ground: &'g Ground, left: Bounds) -> Self {
        let now = Tick::from_secs(10);
        let at = Moment {
            now,
            wall: ground.config.began.plus(10),
        };
        let disk = ground.disk.duplicate();
        let image = ground.image.clone();
        let (fleet, terminals, groups, exclusions) = disk.load();
        let mut run = Self {
            ground,
            now,
            left,
            server: Server::new(fleet, terminals, groups, exclusions, at),
            disk,
            server_stores: None,
            server_wakes: None,
            terminal: restored(&image),
            image,
            terminal_stores: None,
            terminal_wakes: None,
            booted: now,
            boots: 0,
            past: [0; 2],
            committed: 0,
            air: Vec::new(),
            tape: Vec::new(),
            frames: BTreeMap::new(),
            floor: None,
            durable: None,
            made: BTreeMap::new(),
            ended: None,
            faults: Vec::new(),
        };
        run.notes_made();
        run.drain_server();
        run.finishes_first_store();
        run.starts_terminal();
        run
    }

    /// What may happen now.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let left = self.left;
        for (place, flight) in self.air.iter().enumerate() {
            if self.air[..place].contains(flight) {
                continue;
            }
            steps.push(Step::Deliver(place));
            steps.extend((left.lost > 0).then_some(Step::Lose(place)));
            steps.extend((left.doubled > 0).then_some(Step::Double(place)));
            steps.extend((left.forged > 0).then_some(Step::Forge(place)));
        }
        if left.replayed > 0 {
            let past = self.tape.iter().enumerate();
            let past = past.filter(|(_, flight)| !self.air.contains(flight));
            steps.extend(past.map(|(place, _)| Step::Replay(place)));
        }
        let written = |pending: bool| [false, true].into_iter().filter(move |it| !it | pending);
        if left.crashes > 0 {
            let pending = self.terminal_stores.is_some();
            steps.extend(written(pending).map(|written| Step::TerminalCrashes { written }));
        }
        if left.server_crashes > 0 {
            let pending = self.server_stores.is_some();
            steps.extend(written(pending).map(|written| Step::ServerCrashes { written }));
        }
        let stores = self.terminal_stores.is_some();
        steps.extend(stores.then_some(Step::TerminalStores));
        let stores = self.server_stores.is_some();
        steps.extend(stores.then_some(Step::ServerStores));
        if left.timeouts > 0 {
            let soon = |wakes: Option<Tick>| wakes.is_some_and(|at| at < self.now.plus(SOON));
            steps.extend(soon(self.terminal_wakes).then_some(Step::TerminalWakes));
            steps.extend(soon(self.server_wakes).then_some(Step::ServerWakes));
        }
        if left.orders > 0 && self.server_stores.is_none() {
            steps.extend([Step::RenewGroup, Step::RekeyGroup, Step::RenewDevices]);
        }
        if left.carried > 0 {
            steps.extend(self.frames.keys().copied().map(Step::Carry));
        }
        steps
    }

    /// Takes one of [`Self::steps`].
    pub fn take(&mut self, step: Step) {
        match step {
            Step::Deliver(place) => {
                let flight = self.air.remove(place);
                self.deliver(&flight);
            }
            Step::Lose(place) => {
                self.left.lost -= 1;
                self.air.remove(place);
            }
            Step::Double(place) => {
                self.left.doubled -= 1;
                let flight = self.air[place].clone();
                self.air.push(flight);
            }
            Step::Replay(place) => {
                self.left.replayed -= 1;
                let flight = self.tape[place].clone();
                self.deliver(&flight);
            }
            Step::Forge(place) => {
                self.left.forged -= 1;
                let mut flight = self.air[place].clone();
                let mut octets = flight.octets.to_vec();
                let middle = octets.len() * 2 / 3;
                octets[middle] ^= 1;
                flight.octets = Rc::from(octets);
                self.deliver(&flight);
            }
            Step::TerminalStores => self.store_terminal(),
            Step::ServerStores => self.store_server(),
            Step::TerminalCrashes { written } => {
                self.left.crashes -= 1;
                self.crash_terminal(written);
            }
            Step::ServerCrashes { written } => {
                self.left.server_crashes -= 1;
                self.crash_server(written);
            }
            Step::TerminalWakes => {
                self.left.timeouts -= 1;
                self.wake_terminal();
            }
            Step::ServerWakes => {
                self.left.timeouts -= 1;
                self.wake_server();
            }
            Step::RenewGroup => self.order(server::Order::RenewGroup {
                group: self.ground.group,
            }),
            Step::RekeyGroup => self.order(server::Order::RekeyGroup {
                group: self.ground.group,
            }),
            Step::RenewDevices => self.order(server::Order::RenewDevices),
            Step::Carry(item) => {
                self.left.carried -= 1;
                if let Some(frame) = self.frames.get(&item).cloned() {
                    self.feed_terminal("frame", &frame, terminal::Input::Datagram(&frame));
                }
            }
        }
        self.judge();
    }

    /// Names the state: two with one name have one future.
    #[must_use]
    pub fn name(&self) -> u64 {
        let mut air = self.air.clone();
        air.sort();
        let mut tape = self.tape.clone();
        tape.sort();
        tape.retain(|_| self.left.replayed > 0);
        let pending = self.terminal_stores.as_ref();
        let pending = pending.map(|(_, image)| (&image.device, &image.user));
        let disks = (
            &self.image.device,
            &self.image.user,
            pending,
            self.committed,
        );
        let clock = (self.now, self.booted, self.server_stores.is_some());
        let frames: Vec<_> = self.frames.iter().collect();
        let carried = (self.left.carried > 0).then_some(frames);
        hash_of((self.left, air, tape, disks, clock, self.past, carried))
    }

    /// What must never be, and was.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// How the last sequence ended.
    #[must_use]
    pub fn ended(&self) -> Option<AskOutcome> {
        self.ended
    }

    /// From here on nothing is lost any more and nobody meddles: the terminal asks, and becomes current
    /// within an hour.
    ///
    /// # Errors
    /// What keeps it from that.
    pub fn settles(mut self) -> Result<(), String> {
        let within = Duration::ZERO;
        let ask = terminal::Order::Ask { within };
        self.feed_terminal("ask", &[], terminal::Input::Order(ask));
        let end = self.now.plus(Duration::from_secs(3600));
        for _ in 0..SETTLES_WITHIN {
            self.judge();
            if let Some(fault) = self.faults.first() {
                return Err(fault.clone());
            }
            if self.terminal_stores.is_some() {
                self.store_terminal();
            } else if self.server_stores.is_some() {
                self.store_server();
            } else if !self.air.is_empty() {
                let flight = self.air.remove(0);
                self.deliver(&flight);
            } else if self.terminal.asks() == "rest" && self.is_current() {
                return Ok(());
            } else {
                let wakes = [self.terminal_wakes, self.server_wakes];
                match wakes.into_iter().flatten().min() {
                    Some(at) if at > end => break,
                    Some(at) if self.terminal_wakes == Some(at) => self.wake_terminal(),
                    Some(_) => self.wake_server(),
                    None => return Err("nothing is due, and it is not current".to_owned()),
                }
            }
        }
        let (asks, held, stated) = (self.terminal.asks(), self.held(), self.stated());
        Err(format!(
            "{asks}, {:?}, holds {held:?}, not {stated:?}",
            self.ended
        ))
    }

    fn is_current(&self) -> bool {
        self.held() == self.stated()
    }

    fn held(&self) -> Option<Name> {
        let groups = self.terminal.groups().into_iter();
        let mut own = groups.filter(|it| it.group == self.ground.group);
        own.next().map(|it| (it.epoch, it.generation))
    }

    /// The server's key, as it is stored.
    fn stated(&self) -> Option<Name> {
        let group = self.disk.group(self.ground.group);
        group.map(|it| (it.master.epoch(), it.master.generation()))
    }

    fn moment(&self) -> Moment {
        let seconds = self.now.since(Tick::default()).as_secs();
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        Moment {
            now: self.now,
            wall: self.ground.config.began.plus(seconds),
        }
    }

    fn judge(&mut self) {
        let held = self.held();
        if held < self.durable {
            let durable = self.durable;
            self.fault(format!(
                "a key goes down: {held:?}, and {durable:?} was stored"
            ));
        }
        let groups = self.terminal.groups().into_iter();
        for status in groups.filter(|it| it.group == self.ground.group) {
            let name = (status.epoch, status.generation);
            if self.made.get(&name) != Some(&status.fingerprint) {
                self.fault(format!("{name:?} is not the server's key"));
            }
        }
        let told = self
            .server
            .confirmed(self.ground.terminal, self.ground.group);
        if told > self.durable {
            let durable = self.durable;
            self.fault(format!(
                "{told:?} is confirmed, and {durable:?} is what is stored"
            ));
        }
    }

    fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    fn order(&mut self, order: server::Order) {
        self.left.orders -= 1;
        let by = By {
            actor: "model".to_owned(),
            reason: None,
            ticket: None,
        };
        let name = format!("{order:?}");
        let id = OrderId(0);
        self.feed_server(name.as_bytes(), server::Input::Order { id, order, by });
    }

    fn deliver(&mut self, flight: &Flight) {
        let octets = flight.octets.clone();
        if flight.to_server {
            let input = server::Input::Datagram {
                from: ADDRESS,
                octets: octets.to_vec(),
            };
            self.feed_server(&octets, input);
        } else {
            let input = terminal::Input::FromServer(&octets);
            self.feed_terminal("datagram", &octets, input);
        }
    }

    fn wake_terminal(&mut self) {
        self.now = self.now.max(self.terminal_wakes.unwrap_or(self.now));
        self.feed_terminal("timeout", &[], terminal::Input::Timeout);
    }

    fn wake_server(&mut self) {
        self.now = self.now.max(self.server_wakes.unwrap_or(self.now));
        self.feed_server(b"timeout", server::Input::Timeout);
    }

    fn store_terminal(&mut self) {
        if let Some((id, image)) = self.terminal_stores.take() {
            self.writes(image);
            self.feed_terminal("stored", &[], terminal::Input::Stored(id));
        }
    }

    fn writes(&mut self, image: DiskImage) {
        match Loot::read(&image) {
            Ok(loot) => self.durable = loot.held(self.ground.group),
            Err(error) => self.fault(error.to_string()),
        }
        self.image = image;
    }

    fn store_server(&mut self) {
        if let Some(id) = self.server_stores.take() {
            self.commits(id);
            self.feed_server(b"stored", server::Input::Stored(id));
        }
    }

    fn commits(&mut self, id: server::StoreId) {
        if let Some(batch) = self.server.batch(id) {
            self.disk.commit(batch);
            self.committed = hash_of((self.committed, self.past[1]));
            self.notes_made();
        }
    }

    fn notes_made(&mut self) {
        if let Some(group) = self.disk.group(self.ground.group) {
            let key = &group.master;
            let name = (key.epoch(), key.generation());
            self.made.insert(name, key.fingerprint());
        }
    }

    fn crash_terminal(&mut self, written: bool) {
        if let Some((_, image)) = self.terminal_stores.take().filter(|_| written) {
            self.writes(image);
        }
        self.starts_terminal();
    }

    fn starts_terminal(&mut self) {
        self.boots += 1;
        self.booted = self.now;
        self.terminal = restored(&self.image);
        self.terminal_wakes = None;
        self.floor = None;
        self.past[0] = hash_of((self.boots, &self.image.device, &self.image.user));
        let within = Duration::ZERO;
        let ask = terminal::Order::Ask { within };
        self.feed_terminal("ask", &[], terminal::Input::Order(ask));
        // It lies before the first message that may be lost.
        self.store_terminal();
        self.feed_terminal("timeout", &[], terminal::Input::Timeout);
    }

    fn crash_server(&mut self, written: bool) {
        if let Some(id) = self.server_stores.take().filter(|_| written) {
            self.commits(id);
        }
        self.boots += 1;
        let (fleet, terminals, groups, exclusions) = self.disk.load();
        self.server = Server::new(fleet, terminals, groups, exclusions, self.moment());
        self.server_wakes = None;
        self.past[1] = hash_of((self.boots, self.committed));
        self.drain_server();
        self.finishes_first_store();
    }

    /// Sequence numbers are reserved before anything else.
    fn finishes_first_store(&mut self) {
        if let Some(id) = self.server_stores.take() {
            if let Some(batch) = self.server.batch(id) {
                self.disk.commit(batch);
            }
            self.feed_server(b"reserved", server::Input::Stored(id));
        }
    }

    fn feed_server(&mut self, name: &[u8], input: server::Input) {
        let before = (self.past[1], self.desk_counts());
        self.past[1] = hash_of((self.past[1], self.now, name));
        let mut rng = Seeded::new(self.past[1]);
        let at = self.moment();
        if let Err(misuse) = self.server.handle_input(at, &mut rng, input) {
            self.fault(misuse.to_string());
        }
        let quiet = self.drain_server();
        if quiet && before.1 == self.desk_counts() {
            // Silence: nothing remains of it.
            self.past[1] = before.0;
        }
    }

    /// All that a message can change without an answer.
    fn desk_counts(&self) -> DeskCounts {
        DeskCounts {
            silent: 0,
            ..self.server.desk_counts()
        }
    }

    /// True where nothing came of it.
    fn drain_server(&mut self) -> bool {
        let mut quiet = true;
        loop {
            match self.server.poll_output() {
                server::Output::Store(id) => self.server_stores = Some(id),
                server::Output::Transmit { item, frame } => {
                    if matches!(
                        item,
                        Item::Time | Item::Fleet | Item::Group(_) | Item::Dist(..)
                    ) {
                        self.frames.insert(item, Rc::from(frame));
                    }
                }
                server::Output::Send { octets, .. } => self.flies(false, octets),
                server::Output::Work(job) => {
                    let mut rng = Seeded::new(hash_of((self.past[1], "work")));
                    let worked = job.run(&mut rng);
                    let input = server::Input::Worked(worked);
                    if let Err(misuse) = self.server.handle_input(self.moment(), &mut rng, input) {
                        self.fault(misuse.to_string());
                    }
                }
                server::Output::Done { .. } => {}
                server::Output::Timeout { at } => {
                    quiet &= self.server_wakes == at;
                    self.server_wakes = at;
                    return quiet;
                }
            }
            quiet = false;
        }
    }

    fn feed_terminal(&mut self, what: &str, octets: &[u8], input: terminal::Input<'_>) {
        let (past, asks) = (self.past[0], self.terminal.asks());
        self.past[0] = hash_of((past, self.now, what, octets));
        let mut rng = Seeded::new(self.past[0]);
        let tick = Tick::default().plus(self.now.since(self.booted));
        let held = self.held();
        if let Err(misuse) = self.terminal.handle_input(tick, &mut rng, input) {
            self.fault(misuse.to_string());
        }
        let quiet = self.drain_terminal();
        if quiet && asks == self.terminal.asks() && held == self.held() {
            // Counted and dropped: nothing remains of it.
            self.past[0] = past;
        }
    }

    fn drain_terminal(&mut self) -> bool {
        let mut quiet = true;
        loop {
            match self.terminal.poll_output() {
                terminal::Output::Store(id, snapshot) => {
                    let image = self.image.after(&snapshot);
                    self.terminal_stores = Some((id, image));
                }
                terminal::Output::ToServer(octets) => {
                    if type_of(&octets) == Some(KEY_REQ) && self.floor.is_none() {
                        self.floor = self.stated();
                    }
                    self.flies(true, octets);
                }
                terminal::Output::Probe { .. }
                | terminal::Output::Answer { .. }
                | terminal::Output::ToPeer { .. } => {
                    self.fault("nobody asked for a path".to_owned());
                }
                terminal::Output::Event(Event::AskEnded { outcome }) => {
                    self.ended = Some(outcome);
                    let floor = self.floor.take();
                    if outcome == AskOutcome::Current && self.held() < floor {
                        let held = self.held();
                        self.fault(format!("current with {held:?}, asked at {floor:?}"));
                    }
                }
                terminal::Output::Event(_) => {}
                terminal::Output::Erase(_) => self.fault("it erases itself".to_owned()),
                terminal::Output::Timeout { at, .. } => {
                    let since_boot = |at: Tick| at.since(Tick::default());
                    let at = at.map(|at| self.booted.plus(since_boot(at)));
                    quiet &= self.terminal_wakes == at;
                    self.terminal_wakes = at;
                    return quiet;
                }
            }
            quiet = false;
        }
    }

    fn flies(&mut self, to_server: bool, octets: Vec<u8>) {
        let flight = Flight {
            to_server,
            octets: Rc::from(octets),
        };
        if !self.tape.contains(&flight) {
            self.tape.push(flight.clone());
        }
        self.air.push(flight);
    }
}

fn restored(image: &DiskImage) -> Terminal {
    Terminal::restore(&image.device, Some(&image.user), Tick::default())
        .expect("it was stored by itself")
}

fn hash_of(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

const ADDRESS: SocketAddr = SocketAddr::new(
    core::net::IpAddr::V4(core::net::Ipv4Addr::new(192, 0, 2, 1)),
    40_000,
);
/// Timers that are farther away do not fire while something is explored.
const SOON: Duration = Duration::from_secs(90);
/// Happenings until everything has settled, at the most.
const SETTLES_WITHIN: usize = 600;
const KEY_REQ: u8 = 1;
