//! The world: one server, its stations, and what happens between them.

mod drive;
mod operator;
mod speech;
mod way;

use core::net::SocketAddr;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use keyfall_protocol::command::{Body, Command, Limits, SigningKey, Unverified, VerifyingKey};
use keyfall_protocol::enrolment::{RequestKey, SealedPackage};
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, Tick, UnixSeconds};
use keyfall_protocol::keys::{MasterKey, Secret};
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{
    self, Done, FleetRecord, Founding, GroupRecord, Order, OrderId, PackageSealing, Refusal, Server,
};
use keyfall_protocol::terminal::{
    Erase, EraseCause, GroupState, GroupStatus, Input, SnapshotError, StoreId, Terminal, Trial,
};
pub use operator::Errand;

use crate::capture::{Captured, CapturedPacket};
use crate::clock::Clock;
use crate::disk::{ServerDisk, StoreDelay};
use crate::link::{Link, LinkQuality};
use crate::media::Ear;
use crate::memory::Memory;
use crate::seeded::Seeded;
use crate::snapshot::{DiskImage, Loot};
use crate::station::{Disk, Station, StationId};
use crate::thief::Thief;
use crate::way::{CapturedDatagram, Interceptor};
use crate::witness::{Violation, Witness};

/// What a world begins with.
#[derive(Clone, Debug)]
pub struct Config {
    pub founding: Founding,
    /// What the first KEYSET says beside the keys.
    pub limits: Limits,
    /// Seconds; 0: a fresh epoch comes when a story orders it.
    pub epoch_life: u32,
    pub server_disk: StoreDelay,
    pub station_disk: StoreDelay,
    /// Up to so long the server's public-key work takes.
    pub work: Duration,
    /// Everybody's wall at the beginning.
    pub began: UnixSeconds,
    /// Whether frames and datagrams are kept on tape; long runs need the memory.
    pub capture: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            founding: Founding::default(),
            limits: Limits::default(),
            epoch_life: 0,
            server_disk: StoreDelay::default(),
            station_disk: StoreDelay::default(),
            work: Duration::ZERO,
            began: UnixSeconds::new(1_800_000_000),
            capture: true,
        }
    }
}

/// The whole run.
pub struct World {
    config: Config,
    clock: Clock<Happening>,
    rng: Seeded,
    root: SigningKey,
    erase: SigningKey,
    server: Option<Server>,
    server_disk: ServerDisk,
    server_boots: u32,
    server_wake: Option<Tick>,
    server_busy_until: Tick,
    /// So many of the next commits fail.
    commits_to_fail: u32,
    stations: Vec<Station>,
    /// Who is behind which address.
    ways: HashMap<SocketAddr, StationId>,
    interceptor: Option<Interceptor>,
    datagrams: Vec<CapturedDatagram>,
    datagrams_sent: u64,
    frames: Vec<Captured>,
    packets: Vec<CapturedPacket>,
    witness: Witness,
    orders: u64,
    done: HashMap<OrderId, Result<Done, Refusal>>,
    happened: u64,
}

/// What may happen. Whatever belongs to a power-on that has ended does not.
enum Happening {
    ServerWakes,
    ServerCommits(u32, server::StoreId),
    ServerCommitted(u32, server::StoreId),
    ServerStarts,
    ServerCrashes,
    /// Public-key work of that power-on is done.
    ServerWorked(u32, server::Worked),
    OrderComes(OrderId, Errand),
    StationWakes(StationId),
    StationWrites(StationId, u32, StoreId, DiskImage),
    StationWrote(StationId, u32, StoreId),
    /// Its root secrets are destroyed.
    StationDestroys(StationId, u32, Erase),
    /// What else lay on its disk is gone.
    StationErased(StationId, u32),
    StationUnlocks(StationId, u32),
    LinkTurns(StationId, bool),
    StationStarts(StationId),
    StationCrashes(StationId),
    FrameArrives(StationId, Rc<[u8]>),
    DatagramArrives(CapturedDatagram),
    Rebinds(StationId),
    WayTurns(StationId, bool),
}

impl World {
    /// A founded fleet with its server running and nobody enrolled.
    #[must_use]
    pub fn new(seed: u64, config: Config) -> Self {
        let mut rng = Seeded::new(seed);
        let root = signing_key(&mut rng);
        let erase = signing_key(&mut rng);
        let fleet = found(&config, &root, &erase.public(), &mut rng);
        let mut world = Self {
            clock: Clock::new(config.began),
            config,
            rng,
            root,
            erase,
            server: None,
            server_disk: ServerDisk::new(fleet),
            server_boots: 0,
            server_wake: None,
            server_busy_until: Tick::default(),
            commits_to_fail: 0,
            stations: Vec::new(),
            ways: HashMap::new(),
            interceptor: None,
            datagrams: Vec::new(),
            datagrams_sent: 0,
            frames: Vec::new(),
            packets: Vec::new(),
            witness: Witness::default(),
            orders: 0,
            done: HashMap::new(),
            happened: 0,
        };
        world.start_server();
        world
    }

    // Time.

    #[must_use]
    pub fn now(&self) -> Tick {
        self.clock.now()
    }

    #[must_use]
    pub fn wall(&self) -> UnixSeconds {
        self.clock.wall()
    }

    /// The wall at another time.
    #[must_use]
    pub fn wall_at(&self, at: Tick) -> UnixSeconds {
        self.clock.wall_at(at)
    }

    /// Lets everything happen up to `until`.
    pub fn run_until(&mut self, until: Tick) {
        while self.step(until) {}
    }

    /// Lets everything happen for `span`.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.now().plus(span));
    }

    /// Lets one thing happen; false where nothing is left up to `until`.
    pub fn step(&mut self, until: Tick) -> bool {
        let Some(happening) = self.clock.next(until) else {
            return false;
        };
        self.happened += 1;
        self.happen(happening);
        true
    }

    /// How many things have happened.
    #[must_use]
    pub fn happened(&self) -> u64 {
        self.happened
    }

    // People and accidents.

    /// Enrols a terminal and switches it on: order, sealed package, import.
    pub fn enrol(&mut self, name: &str, quality: LinkQuality) -> StationId {
        let request = RequestKey::from_seed(Secret::init_with(|into| self.rng.fill(into)));
        let order = Order::AddTerminal {
            name: name.to_owned(),
            sealing: PackageSealing::ToRequest(request.public()),
            wipe_roots: Vec::new(),
        };
        let package = match self.order(order) {
            Ok(Done::Terminal { package, .. }) => package,
            other => panic!("{name} was not added: {other:?}"),
        };
        let package = SealedPackage::decode(&package)
            .and_then(|sealed| sealed.open_with(&request))
            .expect("the server has just sealed it to this key");
        let id = StationId(self.stations.len());
        let number = package.identity.number;
        let machine =
            Terminal::enrol(package, Tick::default()).expect("the root signed its KEYSET");
        self.stations.push(Station {
            name: name.to_owned(),
            number,
            machine: Some(machine),
            boots: 1,
            booted: self.now(),
            link: Link::new(quality, self.rng.branch()),
            way: None,
            ear: Ear::default(),
            disk: Disk::default(),
            has_passphrase: false,
            memory: Memory::default(),
            wake: None,
            told: Vec::new(),
            key_set: 0,
            promised: BTreeMap::new(),
        });
        self.drain_station(id);
        // Enrolment ends when it is durable.
        while self.stations[id.0].disk.synced.is_empty() {
            assert!(self.step(FAR), "{name} was not stored");
        }
        id
    }

    /// Plans a power cut.
    pub fn crash_at(&mut self, at: Tick, id: StationId) {
        self.clock.plan(at, Happening::StationCrashes(id));
    }

    /// Plans a power-on.
    pub fn start_at(&mut self, at: Tick, id: StationId) {
        self.clock.plan(at, Happening::StationStarts(id));
    }

    /// Plans a crash of the server.
    pub fn crash_server_at(&mut self, at: Tick) {
        self.clock.plan(at, Happening::ServerCrashes);
    }

    /// Plans a start of the server.
    pub fn start_server_at(&mut self, at: Tick) {
        self.clock.plan(at, Happening::ServerStarts);
    }

    /// Cuts the power: memory is lost, and so is what was not synced.
    pub fn crash(&mut self, id: StationId) {
        let station = &mut self.stations[id.0];
        station.machine = None;
        station.forget();
        station.wake = None;
        station.boots += 1;
        if let Some(way) = &mut station.way {
            way.asking_since = None;
        }
    }

    /// Switches on what is off, with what its disk holds.
    pub fn start(&mut self, id: StationId) {
        let now = self.now();
        let station = &mut self.stations[id.0];
        if station.machine.is_some() {
            return;
        }
        station.boots += 1;
        station.booted = now;
        station.disk.busy_until = now;
        if station.disk.destroyed.is_some() {
            // What an erasure had begun goes on.
            self.finish_erasure(id);
            return;
        }
        station.disk.asked = station.disk.synced.clone();
        match restore(&station.disk.synced, station.has_passphrase) {
            Ok(machine) => station.machine = Some(machine),
            Err(error) => {
                let what = format!("{}: {error}", station.name);
                self.witness.note(now, "invariant 2", what);
                return;
            }
        }
        if let Ok(loot) = Loot::read(&station.readable_image()) {
            station.memory.sees(&loot);
        }
        // As the daemon does: the boot is charged as powered-on time at once.
        self.feed(id, Input::Timeout);
        self.ask(id);
    }

    /// From now on the station's user compartment opens only to a passphrase: by [`Self::unlock`],
    /// not at power-on.
    pub fn set_passphrase(&mut self, id: StationId) {
        self.stations[id.0].has_passphrase = true;
    }

    /// The user locks.
    pub fn lock(&mut self, id: StationId) {
        self.feed(id, Input::Lock);
    }

    /// The user gives the right passphrase, where it is asked for. What is being written is
    /// finished first.
    pub fn unlock(&mut self, id: StationId) {
        while self.stations[id.0].disk.busy_until > self.now() {
            assert!(self.step(FAR), "a disk is never busy for ever");
        }
        let station = &self.stations[id.0];
        let asked = |machine: &Terminal| machine.is_locked() && machine.may_unlock();
        if station.machine.as_ref().is_some_and(asked) {
            let user = station.disk.synced.user.clone();
            self.feed(id, Input::Unlock(&user));
        }
    }

    /// The case is opened.
    pub fn tamper(&mut self, id: StationId) {
        self.feed(id, Input::Erase(EraseCause::Tamper));
    }

    /// Puts an image on the disk of a station that is off: an old copy that was made of it.
    pub fn put_disk(&mut self, id: StationId, image: DiskImage) {
        let station = &mut self.stations[id.0];
        assert!(station.machine.is_none(), "{} is on", station.name);
        station.disk.held = match Loot::read(&image) {
            Ok(loot) => holds(&loot),
            Err(error) => panic!("{}: {error}", station.name),
        };
        // Who puts an old disk in takes what was told of later keys away with the new one.
        station.promised.clear();
        station.disk.synced = image;
    }

    /// Stops the server at once.
    pub fn crash_server(&mut self) {
        self.server = None;
        self.server_wake = None;
        self.server_boots += 1;
    }

    /// Starts the server from what was committed.
    pub fn start_server(&mut self) {
        if self.server.is_some() {
            return;
        }
        self.server_boots += 1;
        self.server_busy_until = self.now();
        let (fleet, terminals, groups, exclusions) = self.server_disk.load();
        let server = Server::new(fleet, terminals, groups, exclusions, self.moment());
        self.server = Some(server);
        self.drain_server();
    }

    /// The next `count` commits of the server fail.
    pub fn fail_commits(&mut self, count: u32) {
        self.commits_to_fail = count;
    }

    /// Plans that a station's link is cut, or mended.
    pub fn cut_link_at(&mut self, at: Tick, id: StationId, cut: bool) {
        self.clock.plan(at, Happening::LinkTurns(id, cut));
    }

    /// Cuts a station's link, or mends it.
    pub fn cut_link(&mut self, id: StationId, cut: bool) {
        self.stations[id.0].link.cut(cut);
    }

    /// Feeds a station anything that a driver might.
    pub fn feed(&mut self, id: StationId, input: Input<'_>) {
        let now = self.now();
        let station = &mut self.stations[id.0];
        let tick = station.tick(now);
        let Some(machine) = &mut station.machine else {
            return;
        };
        if let Err(misuse) = machine.handle_input(tick, &mut self.rng, input) {
            let what = format!("{}: {misuse}", station.name);
            self.witness.note(now, "the drive contract", what);
        }
        self.drain_station(id);
        self.witness.sees_station(now, &mut self.stations[id.0]);
    }

    /// A frame out of the air, from whoever.
    pub fn feed_frame(&mut self, id: StationId, octets: &[u8]) {
        self.feed(id, Input::Datagram(octets));
    }

    /// A packet opened under `trial` at that station.
    pub fn feed_opened(&mut self, id: StationId, trial: Trial) {
        self.feed(id, Input::Opened(trial));
    }

    // Looking.

    #[must_use]
    pub fn station(&self, id: StationId) -> &Station {
        &self.stations[id.0]
    }

    /// A thief with everything out of a station: its disk as far as it opens without a passphrase,
    /// and every key in its memory.
    #[must_use]
    pub fn steal(&self, id: StationId) -> Thief {
        let station = &self.stations[id.0];
        let mut thief = Thief::default();
        for image in [&station.disk.asked, &station.disk.synced] {
            let image = match station.has_passphrase {
                true => image.device_only(),
                false => image.clone(),
            };
            if !image.is_empty() {
                // An unreadable one was noted when it was written.
                let _unreadable = thief.take_disk(&image).err();
            }
        }
        if let Some(machine) = &station.machine {
            thief.take_wraps(station.memory.wraps(machine).iter());
            thief.take_masters(station.memory.masters(machine).iter());
        }
        thief
    }

    /// Every station.
    pub fn stations(&self) -> impl Iterator<Item = StationId> + use<> {
        (0..self.stations.len()).map(StationId)
    }

    /// The server; `None` while it is down.
    #[must_use]
    pub fn server(&self) -> Option<&Server> {
        self.server.as_ref()
    }

    #[must_use]
    pub fn server_disk(&self) -> &ServerDisk {
        &self.server_disk
    }

    /// The offline root and erase key, for tests that sign what a server never would.
    #[must_use]
    pub fn offline_keys(&self) -> (&SigningKey, &SigningKey) {
        (&self.root, &self.erase)
    }

    /// Every frame on the air so far.
    #[must_use]
    pub fn frames(&self) -> &[Captured] {
        &self.frames
    }

    /// Every packet on the air so far.
    #[must_use]
    pub fn packets(&self) -> &[CapturedPacket] {
        &self.packets
    }

    /// The world's randomness, for the choices of a test.
    pub fn rng(&mut self) -> &mut Seeded {
        &mut self.rng
    }

    /// What must never have been.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.witness.violations
    }

    /// The time in which the carousel comes round once, for every class.
    #[must_use]
    pub fn cycle(&self) -> Duration {
        let classes = self.server.as_ref().map(Server::carousel);
        classes
            .into_iter()
            .flatten()
            .map(|class| class.cycle)
            .max()
            .unwrap_or(Duration::ZERO)
    }

    /// What a station lacks to be current: for each group of its own the epoch, generation and
    /// fingerprint that the server holds, and no group beside but those that have gone on without
    /// it or that a thief told it of and it does not send in; `None` where it is.
    #[must_use]
    pub fn lag(&self, id: StationId) -> Option<String> {
        let station = &self.stations[id.0];
        let Some(machine) = &station.machine else {
            return Some(format!("{} is off", station.name));
        };
        let Some(server) = &self.server else {
            return Some("the server is down".to_owned());
        };
        let left = |status: &GroupStatus| {
            let apart = |group: &&GroupRecord| !group.members.contains(&station.number);
            let group = server.groups().find(|it| it.number == status.group);
            let newer = |group: &GroupRecord| group.master.epoch() > status.epoch;
            let void = status.state != GroupState::Ready;
            group.filter(apart).is_some_and(|it| void || newer(it))
        };
        let mine: BTreeMap<_, _> = machine
            .groups()
            .into_iter()
            .filter(|status| !left(status))
            .map(|status| {
                (
                    status.group,
                    (status.epoch, status.generation, status.fingerprint),
                )
            })
            .collect();
        let stated: BTreeMap<_, _> = server
            .groups()
            .filter(|group| group.members.contains(&station.number))
            .map(|group| {
                let key = &group.master;
                let state = (key.epoch(), key.generation(), key.fingerprint());
                (group.number, state)
            })
            .collect();
        (mine != stated).then(|| format!("{} holds {mine:?}, not {stated:?}", station.name))
    }
}

/// What `server init` writes, under a KEYSET with the configured limits.
fn found(
    config: &Config,
    root: &SigningKey,
    erase: &VerifyingKey,
    rng: &mut Seeded,
) -> FleetRecord {
    let founding = config.founding.clone();
    let mut fleet = FleetRecord::found(founding, root, erase, config.began, rng);
    fleet.key_set.limits = config.limits;
    fleet.epoch_life = config.epoch_life;
    let first = Unverified::decode(&fleet.key_set_frame).expect("the root has just signed it");
    fleet.key_set_frame = root.sign(&Command {
        body: Body::KeySet(fleet.key_set.clone()),
        ..first.command().clone()
    });
    fleet
}

/// What a terminal's driver does at power-on: it opens the user compartment by itself where it can
/// and may.
fn restore(image: &DiskImage, has_passphrase: bool) -> Result<Terminal, SnapshotError> {
    let locked = Terminal::restore(&image.device, None, Tick::default())?;
    if has_passphrase || !locked.may_unlock() {
        return Ok(locked);
    }
    Terminal::restore(&image.device, Some(&image.user), Tick::default())
}

/// Epoch and generation of each group's key.
fn holds(loot: &Loot) -> BTreeMap<GroupNumber, (KeyEpoch, Generation)> {
    let held = |key: &MasterKey| (key.group(), (key.epoch(), key.generation()));
    loot.masters().map(held).collect()
}

fn signing_key(rng: &mut Seeded) -> SigningKey {
    SigningKey::from_seed(Secret::init_with(|into| rng.fill(into)))
}

/// Longer than any run.
const FAR: Tick = Tick::from_secs(1_000_000_000);
