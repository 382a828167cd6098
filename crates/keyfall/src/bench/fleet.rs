//! The machines that are measured: one server and its terminals, on one thread, every datagram in
//! the bench's hand. They are the product's; a driver is all that is left out.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use keyfall_protocol::command::{Limits, SigningKey, Suites};
use keyfall_protocol::enrolment::{RequestKey, SealedPackage};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber, Tick, UnixSeconds,
};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{
    self, By, Done, FleetRecord, Founding, Item, Job, Moment, Order, OrderId, PackageSealing,
    Server,
};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::terminal::{self, AskOutcome, Event, Terminal};
use keyfall_server::OsRandom;
use zeroize::Zeroizing;

/// A server, its terminals, and one group of them all.
pub(super) struct Fleet {
    pub(super) desk: Operated,
    pub(super) terminals: Vec<Member>,
    pub(super) group: GroupNumber,
}

/// A server machine and its clock, which the bench moves.
pub(super) struct Operated {
    pub(super) machine: Server,
    pub(super) clock: Moment,
    orders: u64,
}

/// One terminal and where it is heard from.
pub(super) struct Member {
    pub(super) machine: Terminal,
    pub(super) address: SocketAddr,
    /// What it stored last of both compartments.
    device: Zeroizing<Vec<u8>>,
    user: Zeroizing<Vec<u8>>,
}

/// What one input made a server do.
#[derive(Default)]
pub(super) struct Served {
    pub(super) datagrams: Vec<(SocketAddr, Vec<u8>)>,
    pub(super) jobs: Vec<Job>,
    pub(super) frames: Vec<(Item, Vec<u8>)>,
    /// When the machine has something to do by itself.
    pub(super) due: Option<Tick>,
    done: Option<Result<Done, server::Refusal>>,
}

/// What one input made a terminal do.
#[derive(Default)]
pub(super) struct Answered {
    pub(super) datagrams: Vec<Vec<u8>>,
    pub(super) ended: Option<AskOutcome>,
    pub(super) session: Option<SessionId>,
    /// When the machine has something to do by itself.
    pub(super) due: Option<Tick>,
}

impl Fleet {
    /// `count` terminals, enrolled and silent so far, in a server that speaks `suites` only.
    pub(super) fn found(suites: &[SharingSuite], count: u32) -> anyhow::Result<Self> {
        let wall = wall()?;
        let [root, erase] = [(); 2].map(|()| SigningKey::from_seed(drawn()));
        let founding = founding(suites)?;
        let record = FleetRecord::found(founding, &root, &erase.public(), wall, &mut OsRandom);
        let now = Tick::from_secs(1);
        let clock = Moment { now, wall };
        let machine = Server::new(record, Vec::new(), Vec::new(), Vec::new(), clock);
        Self::fill(Operated::new(machine, clock), count, &mut |_| Ok(()))
    }

    /// Enrols `count` terminals and makes one group of them; `store` makes each batch durable.
    pub(super) fn fill(
        desk: Operated,
        count: u32,
        store: &mut Storing<'_>,
    ) -> anyhow::Result<Self> {
        let mut fleet = Self {
            desk,
            terminals: Vec::new(),
            group: GroupNumber::new(1).context("1 is a group's number")?,
        };
        fleet.desk.serve_stored(server::Input::Timeout, store)?;
        for n in 1..=count {
            fleet.enrol(n, store)?;
        }
        let order = Order::CreateGroup {
            packets: None,
            name: "all".to_owned(),
            members: (1..=count).filter_map(TerminalNumber::new).collect(),
            cadence: None,
        };
        let Done::Group { number, .. } = fleet.desk.order_stored(order, store)? else {
            anyhow::bail!("no group was made");
        };
        fleet.group = number;
        Ok(fleet)
    }

    fn enrol(&mut self, n: u32, store: &mut Storing<'_>) -> anyhow::Result<()> {
        let request = RequestKey::from_seed(drawn());
        let order = Order::AddTerminal {
            name: format!("t{n}"),
            sealing: PackageSealing::ToRequest(request.public()),
            wipe_roots: Vec::new(),
        };
        let Done::Terminal { package, .. } = self.desk.order_stored(order, store)? else {
            anyhow::bail!("no terminal was added");
        };
        let package = SealedPackage::decode(&package)?.open_with(&request)?;
        let now = self.desk.clock.now;
        let machine = Terminal::enrol(package, now)?;
        // An address for each.
        let port = u16::try_from(1024 + n % 60_000)?;
        let host = u8::try_from(1 + n / 60_000)?;
        let address = SocketAddr::from((Ipv4Addr::new(192, 0, 2, host), port));
        let mut member = Member {
            machine,
            address,
            device: Zeroizing::default(),
            user: Zeroizing::default(),
        };
        member.feed(now, terminal::Input::Timeout)?;
        self.terminals.push(member);
        Ok(())
    }

    /// Everyone asks, takes and confirms until all are current; the time and the server's public
    /// keys are known from then on.
    pub(super) fn make_current(&mut self) -> anyhow::Result<()> {
        // The first answer in an hpke suite brings fresh octets, the second the keys.
        for _ in 0..2 {
            for place in 0..self.terminals.len() {
                let mut asked = self.ask(place)?;
                for _ in 0..STEPS_MAX {
                    let replies = self.desk.answer(self.terminals[place].address, asked)?;
                    asked = self.take(place, &replies)?;
                }
            }
            self.desk.let_pass(1);
        }
        let mut places = 0..self.terminals.len();
        anyhow::ensure!(
            places.all(|place| self.is_current(place)),
            "a terminal did not get its key"
        );
        Ok(())
    }

    /// The datagrams of a new request.
    pub(super) fn ask(&mut self, place: usize) -> anyhow::Result<Vec<Vec<u8>>> {
        Ok(self.terminals[place].ask(self.desk.clock.now)?.datagrams)
    }

    /// What a terminal answers to these datagrams.
    pub(super) fn take(
        &mut self,
        place: usize,
        datagrams: &[Vec<u8>],
    ) -> anyhow::Result<Vec<Vec<u8>>> {
        self.terminals[place].take(self.desk.clock.now, datagrams)
    }

    /// The terminal holds what the server has.
    pub(super) fn is_current(&self, place: usize) -> bool {
        let newest = self.desk.newest(self.group);
        newest.is_some() && self.terminals[place].newest(self.group) == newest
    }
}

impl Operated {
    pub(super) fn new(machine: Server, clock: Moment) -> Self {
        Self {
            machine,
            clock,
            orders: 0,
        }
    }

    /// A little later, so that no budget of a second is used up.
    pub(super) fn let_pass(&mut self, seconds: u32) {
        self.move_to(self.clock.now.plus(Duration::from_secs(seconds.into())));
    }

    /// Both clocks move on to `to`.
    pub(super) fn move_to(&mut self, to: Tick) {
        let whole = |at: Tick| at.as_nanos() / 1_000_000_000;
        let to = to.max(self.clock.now);
        let seconds = whole(to) - whole(self.clock.now);
        self.clock.now = to;
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        self.clock.wall = self.clock.wall.plus(seconds);
    }

    pub(super) fn order(&mut self, order: Order) -> anyhow::Result<Done> {
        self.order_stored(order, &mut |_| Ok(()))
    }

    fn order_stored(&mut self, order: Order, store: &mut Storing<'_>) -> anyhow::Result<Done> {
        let served = self.ordered(order, store)?;
        let done = served.done.context("an order is answered at once")?;
        Ok(done?)
    }

    fn ordered(&mut self, order: Order, store: &mut Storing<'_>) -> anyhow::Result<Served> {
        self.orders += 1;
        let id = OrderId(self.orders);
        let by = By {
            actor: "bench".to_owned(),
            reason: None,
            ticket: None,
        };
        self.serve_stored(server::Input::Order { id, order, by }, store)
    }

    /// Gives an order and returns what it lets out at once.
    pub(super) fn begin(&mut self, order: Order) -> anyhow::Result<Served> {
        let mut served = self.ordered(order, &mut |_| Ok(()))?;
        let done = served.done.take();
        done.context("an order is answered at once")??;
        Ok(served)
    }

    /// Feeds one input and does what follows; stores cost nothing.
    pub(super) fn serve(&mut self, input: server::Input) -> anyhow::Result<Served> {
        self.serve_stored(input, &mut |_| Ok(()))
    }

    /// What is answered to these datagrams of one terminal, public-key work done at once; what is
    /// said to others is lost.
    pub(super) fn answer(
        &mut self,
        from: SocketAddr,
        datagrams: Vec<Vec<u8>>,
    ) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut replies = Vec::new();
        for octets in datagrams {
            let mut served = self.serve(server::Input::Datagram { from, octets })?;
            while let Some(job) = served.jobs.pop() {
                let more = self.serve(server::Input::Worked(job.run(&mut OsRandom)))?;
                served.jobs.extend(more.jobs);
                served.datagrams.extend(more.datagrams);
            }
            let own = served.datagrams.into_iter().filter(|(to, _)| *to == from);
            replies.extend(own.map(|(_, octets)| octets));
        }
        Ok(replies)
    }

    fn serve_stored(
        &mut self,
        input: server::Input,
        store: &mut Storing<'_>,
    ) -> anyhow::Result<Served> {
        let mut served = Served::default();
        let mut next = Some(input);
        while let Some(input) = next.take() {
            self.machine
                .handle_input(self.clock, &mut OsRandom, input)?;
            loop {
                match self.machine.poll_output() {
                    server::Output::Store(id) => {
                        let batch = self.machine.batch(id).context("it was asked for")?;
                        store(batch)?;
                        next = Some(server::Input::Stored(id));
                    }
                    server::Output::Transmit { item, frame } => served.frames.push((item, frame)),
                    server::Output::Send { to, octets } => served.datagrams.push((to, octets)),
                    server::Output::Work(job) => served.jobs.push(job),
                    server::Output::Done { outcome, .. } => served.done = Some(outcome),
                    server::Output::Timeout { at } => {
                        served.due = at;
                        break;
                    }
                }
            }
        }
        Ok(served)
    }

    /// The key that the group sends with.
    pub(super) fn newest(&self, group: GroupNumber) -> Option<(KeyEpoch, Generation)> {
        let group = self.machine.groups().find(|it| it.number == group)?;
        Some((group.master.epoch(), group.master.generation()))
    }
}

impl Member {
    /// A power cut: what is stored is there, the time is not.
    pub(super) fn restart(&mut self, now: Tick) -> anyhow::Result<()> {
        self.machine = Terminal::restore(&self.device, Some(&self.user), now)?;
        self.feed(now, terminal::Input::Timeout)?;
        Ok(())
    }

    /// A new request.
    pub(super) fn ask(&mut self, now: Tick) -> anyhow::Result<Answered> {
        let within = Duration::ZERO;
        let order = terminal::Input::Order(terminal::Order::Ask { within });
        let at_once = self.feed(now, order)?.datagrams;
        let mut asked = self.feed(now, terminal::Input::Timeout)?;
        asked.datagrams.splice(0..0, at_once);
        Ok(asked)
    }

    /// What it answers to these datagrams.
    pub(super) fn take(
        &mut self,
        now: Tick,
        datagrams: &[Vec<u8>],
    ) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut answers = Vec::new();
        for octets in datagrams {
            let input = terminal::Input::FromServer(octets);
            answers.extend(self.feed(now, input)?.datagrams);
        }
        Ok(answers)
    }

    /// The newest key held of the group.
    pub(super) fn newest(&self, group: GroupNumber) -> Option<(KeyEpoch, Generation)> {
        let held = self.machine.groups();
        let held = held.into_iter().find(|it| it.group == group)?;
        Some((held.epoch, held.generation))
    }

    /// Feeds one input and does what follows; what it stores is durable at once.
    pub(super) fn feed(
        &mut self,
        now: Tick,
        input: terminal::Input<'_>,
    ) -> anyhow::Result<Answered> {
        let mut answered = Answered::default();
        self.machine.handle_input(now, &mut OsRandom, input)?;
        loop {
            match self.machine.poll_output() {
                terminal::Output::Store(id, snapshot) => {
                    self.device = snapshot.device;
                    self.user = snapshot
                        .user
                        .unwrap_or_else(|| std::mem::take(&mut self.user));
                    let stored = terminal::Input::Stored(id);
                    self.machine.handle_input(now, &mut OsRandom, stored)?;
                }
                terminal::Output::ToServer(octets) => answered.datagrams.push(octets),
                terminal::Output::Event(Event::AskEnded { outcome }) => {
                    answered.ended = Some(outcome);
                }
                terminal::Output::Event(Event::SessionReady { session, .. }) => {
                    answered.session = Some(session);
                }
                terminal::Output::Event(_) | terminal::Output::Erase(_) => {}
                terminal::Output::Probe { .. }
                | terminal::Output::Answer { .. }
                | terminal::Output::ToPeer { .. } => {}
                terminal::Output::Timeout { at, .. } => {
                    answered.due = at;
                    return Ok(answered);
                }
            }
        }
    }
}

/// What a founder decides: keys that live through a bench, a carrier that is not what is measured.
pub(super) fn founding(suites: &[SharingSuite]) -> anyhow::Result<Founding> {
    Ok(Founding {
        name: "bench".to_owned(),
        bits_per_second: 10_000_000_000,
        limits: Limits {
            suites: Suites::new(suites).context("some suites, and none twice")?,
            ..Limits::default()
        },
        ..Founding::default()
    })
}

pub(super) fn drawn() -> Secret<32> {
    Secret::init_with(|into| OsRandom.fill(into))
}

pub(super) fn wall() -> anyhow::Result<UnixSeconds> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(UnixSeconds::new(u32::try_from(since.as_secs())?))
}

/// Makes a batch durable.
pub(super) type Storing<'s> = dyn FnMut(&server::Batch) -> anyhow::Result<()> + 's;

/// A sequence has fewer messages of a terminal.
pub(super) const STEPS_MAX: usize = 12;
