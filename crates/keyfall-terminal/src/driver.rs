//! The loop around the terminal machine: wait for exactly one cause, feed it, drain, act, repeat.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use keyfall_api::control::{Answer, Deleted, DeletionCause, Passphrase, Request};
use keyfall_carrier::{AddressError, CarrierAddress, CarrierError, MulticastReceiver};
use keyfall_protocol::ApiMisuse;
use keyfall_protocol::ids::{Tick, UnixSeconds};
use keyfall_protocol::terminal::{
    AskOutcome, Erase, EraseCause, Event, Input, Order, Output, StoreId, Terminal,
};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use zeroize::Zeroizing;

use self::clock::Clock;
use self::log::{Told, log_event};
use self::packets::Packets;
use self::ways::WaysAsked;
use crate::collecting::{Collector, Through};
use crate::committing::{Committer, Locks, Task};
use crate::control::{self, Client, ClientId};
use crate::exporting::Exporting;
use crate::hardening::scrub_stack;
use crate::key_store::{Erasure, Guard, KeyStoreError, UnlockError};
use crate::media_relay::{Arrival, Feed, Interfaces, RelayNumber, Relays};
use crate::os_random::OsRandom;
use crate::packet_path::{PacketOptions, host};
use crate::server_line::ServerLine;
use crate::stored::{Stored, StoredError, restore_at};
use crate::tamper::TamperFile;

mod clock;
mod echoes;
mod log;
mod packets;
mod put_off;
mod requests;
mod ways;

/// What is said at the start beside the directory.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Heard instead of the carriers in the enrolment package, where there are any.
    pub carriers: Vec<CarrierAddress>,
    /// The interface by which all carriers are heard; without it each one's own.
    pub interface: Option<Ipv4Addr>,
    /// Where the server answers, as "HOST:PORT", instead of what the enrolment package says.
    pub servers: Vec<String>,
    /// Nobody is asked and nothing is confirmed, whatever the enrolment package says.
    pub one_way: bool,
    /// The member that confirmations go to, which collects them, instead of to the server.
    pub confirm_through: Option<SocketAddr>,
    /// Where confirmations of others are collected.
    pub collect: Option<SocketAddr>,
    /// Looked at every second: where it is there and says anything but 0, every key is erased.
    pub tamper_file: Option<PathBuf>,
    /// Whether the memory of this process is locked, for people to see.
    pub memory_locked: bool,
    /// How packets pass, where this terminal has addresses in the fleet; `None`: they do not.
    pub packets: Option<PacketOptions>,
}

/// How a terminal's process came to its end.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ending {
    /// It was asked to stop; the last snapshot is durable.
    Stopped,
    /// Everything was deleted on the server's order; there is nothing left to run.
    Initialized(Deleted),
}

/// Why a terminal does not start or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error("the enrolment package names the carrier {text:?}, which cannot be used: {source}")]
    PackageCarrier { text: String, source: AddressError },
    #[error("{0} cannot be the interface of a carrier: {1}")]
    Interface(Ipv4Addr, AddressError),
    #[error("no carrier is known: name one with --carrier, as in {EXAMPLE_CARRIER}")]
    NoCarrier,
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    #[error("confirmations cannot be collected at {address}: {source}")]
    Collect {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("confirmations cannot go through {address}: {source}")]
    Through {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("cannot open the control socket {}: {source}", path.display())]
    Control { path: PathBuf, source: io::Error },
    #[error("cannot start the thread of the key store: {0}")]
    Thread(io::Error),
    #[error("the last snapshot was not stored: {0}")]
    LastSnapshot(KeyStoreError),
    /// A fault of this program.
    #[error("the terminal was driven wrongly, which is a fault of this program: {0}")]
    Driven(#[from] ApiMisuse),
}

/// What the loop waits for.
#[derive(Debug)]
pub(crate) enum Waking {
    /// A carrier brought a frame.
    Frame(Vec<u8>),
    /// A datagram from the server's address.
    FromServer(Vec<u8>),
    /// An address of the server was resolved, or not.
    Connected {
        server: String,
        connected: io::Result<UdpSocket>,
    },
    /// A BUNDLE of what was collected.
    Collected(Vec<u8>),
    Stored(StoreId),
    /// The sentence says why; it is tried again.
    StoreFailed(String),
    Asked {
        client: Client,
        request: Request,
    },
    HungUp(ClientId),
    /// What came of [`Task::Unlock`].
    Unlocked {
        client: Option<Client>,
        outcome: Result<Zeroizing<Vec<u8>>, UnlockError>,
        /// `None`: it could not be read.
        guard: Option<Guard>,
        locks: Locks,
    },
    /// What came of [`Task::Protect`].
    Protected {
        client: Client,
        outcome: Result<(), UnlockError>,
        guard: Option<Guard>,
    },
    /// Nothing on the disk opens anything any more.
    Erased(Deleted),
}

/// Runs the terminal in `dir` until `shutdown` completes, or everything was deleted on order; its
/// last snapshot is durable then. When `tamper` completes, every key is erased. `on_ready` is called
/// once, when its carriers are heard and its control socket answers.
///
/// # Errors
/// [`RunError`], most of them at the start, before anything is heard.
pub async fn serve(
    dir: PathBuf,
    options: RunOptions,
    on_ready: impl FnOnce(&Terminal),
    tamper: impl Future<Output = ()>,
    shutdown: impl Future<Output = ()>,
) -> Result<Ending, RunError> {
    let clock = Clock::start();
    let Stored {
        mut store,
        terminal,
        guard,
    } = take_over(&dir, clock).await?;
    let mut tamper_file = options.tamper_file.clone().map(TamperFile::new);
    if tamper_file.as_mut().is_some_and(TamperFile::says_opened) {
        let deleted = store
            .erase(&Erasure::of_keys(DeletionCause::Tamper))
            .map_err(StoredError::from)?;
        let deleted = Box::new(deleted);
        return Err(StoredError::from(KeyStoreError::Deleted { dir, deleted }).into());
    }
    let carriers = choose_carriers(&terminal, &options)?;
    let (wakings, inbox) = mpsc::channel(WAKINGS_MAX);
    for carrier in &carriers {
        let receiver = MulticastReceiver::open(carrier)?;
        tokio::spawn(hear(receiver, wakings.clone()));
    }
    let socket = control::socket_path(&dir);
    let door = control::open(&socket, wakings.clone()).map_err(|source| RunError::Control {
        path: socket,
        source,
    })?;
    let servers = servers_of(&terminal, &options);
    let server_line = ServerLine::new(servers, wakings.clone());
    let mut collector = None;
    if let Some(address) = options.collect {
        let opened = Collector::open(address, wakings.clone()).await;
        let opened = opened.map_err(|source| RunError::Collect { address, source })?;
        tracing::info!(address = %opened.address, "confirmations of others are collected");
        collector = Some(opened);
    }
    let mut through = None;
    if let Some(address) = options.confirm_through {
        let opened = Through::open(address).await;
        through = Some(opened.map_err(|source| RunError::Through { address, source })?);
    }
    let committer = Committer::start(store, wakings).map_err(RunError::Thread)?;
    let packets = Packets::new(options.packets, &terminal);
    let driver = Driver {
        _door: door,
        clock,
        terminal,
        guard,
        committer,
        relays: Relays::new(),
        exporting: Exporting::default(),
        interfaces: Interfaces {
            of_carrier: carriers.first().map(CarrierAddress::interface),
        },
        carriers: carriers.iter().map(ToString::to_string).collect(),
        server_line,
        through,
        collector,
        last_ask: None,
        owners: BTreeMap::new(),
        machine_due: None,
        next_second: Instant::now() + SECOND,
        flush_due: None,
        frames: 0,
        storing: None,
        store_failure: None,
        tamper_file,
        memory_locked: options.memory_locked,
        packets,
        ways: WaysAsked::default(),
        deleted: None,
        erased: false,
        told: Told::default(),
        log_due: Instant::now() + LOG_EVERY,
    };
    tracing::info!(terminal = %driver.terminal.identity().number, "the terminal runs");
    if driver.terminal.is_locked() {
        tracing::info!("the terminal is locked: `keyfall terminal unlock` opens it");
    }
    on_ready(&driver.terminal);
    driver.run(inbox, tamper, shutdown).await
}

struct Driver {
    /// First, so that it is gone before the store is free for the next process.
    _door: control::Door,
    clock: Clock,
    terminal: Terminal,
    /// Who opens the user compartment.
    guard: Guard,
    committer: Committer,
    relays: Relays,
    exporting: Exporting,
    interfaces: Interfaces,
    carriers: Vec<String>,
    server_line: ServerLine,
    through: Option<Through>,
    collector: Option<Collector>,
    /// How the last request for keys ended.
    last_ask: Option<AskOutcome>,
    /// Who started a relay: progress goes there, and the relay ends with it.
    owners: BTreeMap<RelayNumber, Client>,
    /// When the machine wants to be called.
    machine_due: Option<Instant>,
    next_second: Instant,
    /// When packets that waited for the end of a STOP go on.
    flush_due: Option<Instant>,
    frames: u64,
    /// The store that is open.
    storing: Option<StoreId>,
    store_failure: Option<String>,
    tamper_file: Option<TamperFile>,
    memory_locked: bool,
    packets: Packets,
    ways: WaysAsked,
    /// What happened, from the moment at which the keys went out of this process.
    deleted: Option<Deleted>,
    /// They are gone from the disk, too.
    erased: bool,
    told: Told,
    log_due: Instant,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Waking>,
        tamper: impl Future<Output = ()>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Ending, RunError> {
        let mut shutdown = pin!(shutdown);
        let mut tamper = pin!(tamper);
        let mut opened = false;
        let mut timer = pin!(sleep_until(self.next_second));
        self.feed(Input::Timeout)?;
        if self.server_line.is_known() {
            let within = ASK_WITHIN;
            self.feed(Input::Order(Order::Ask { within }))?;
        }
        loop {
            let due = self.due();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                () = &mut shutdown => break,
                () = &mut tamper, if !opened => {
                    opened = true;
                    self.feed(Input::Erase(EraseCause::Tamper))?;
                }
                Some(waking) = inbox.recv() => self.on_waking(waking)?,
                Some(ask) = self.packets.asked() => self.on_asks(ask)?,
                arrival = poll_fn(|cx| self.relays.poll_arrival(cx)) => self.on_arrival(&arrival)?,
                () = &mut timer => self.on_time()?,
            }
            if self.flush_due.is_none() && self.relays.can_flush(&self.terminal) {
                self.flush_due = Some(Instant::now() + FLUSH_PAUSE);
            }
            // SECURITY: at the end of each input (docs/THREATS.md).
            scrub_stack();
            if self.is_initialized() {
                break;
            }
        }
        tracing::info!("the terminal stops");
        self.packets = Packets::Off;
        if self.is_initialized() {
            host::open_host();
        }
        self.store_the_rest(&mut inbox).await?;
        // The committer's thread must not wait for room in an inbox that nobody empties.
        drop(inbox);
        self.committer.finish().map_err(RunError::LastSnapshot)?;
        let initialized = self.is_initialized();
        Ok(match self.deleted {
            Some(deleted) if initialized => Ending::Initialized(deleted),
            Some(_) | None => Ending::Stopped,
        })
    }

    /// Nothing is left to run.
    fn is_initialized(&self) -> bool {
        let cause = self.deleted.as_ref().map(|deleted| deleted.cause);
        self.erased && cause == Some(DeletionCause::Initialize)
    }

    /// What changed while a store was open goes into the next: a LOCK that was obeyed last holds after
    /// the restart. Where the disk does not take it, finishing says so.
    async fn store_the_rest(&mut self, inbox: &mut mpsc::Receiver<Waking>) -> Result<(), RunError> {
        while self.storing.is_some() {
            match inbox.recv().await {
                Some(Waking::Stored(id)) => self.on_waking(Waking::Stored(id))?,
                Some(Waking::StoreFailed(_)) | None => break,
                // Nobody is listened to any more.
                Some(
                    Waking::Frame(_)
                    | Waking::FromServer(_)
                    | Waking::Connected { .. }
                    | Waking::Collected(_)
                    | Waking::Asked { .. }
                    | Waking::HungUp(_)
                    | Waking::Unlocked { .. }
                    | Waking::Protected { .. }
                    | Waking::Erased(_),
                ) => {}
            }
        }
        Ok(())
    }

    fn on_waking(&mut self, waking: Waking) -> Result<(), RunError> {
        match waking {
            Waking::Frame(octets) => {
                self.frames += 1;
                self.feed(Input::Datagram(&octets))
            }
            Waking::Stored(id) => {
                if self.store_failure.take().is_some() {
                    tracing::info!("the key store takes snapshots again");
                }
                self.storing.take_if(|storing| *storing <= id);
                self.feed(Input::Stored(id))
            }
            Waking::StoreFailed(sentence) => {
                if self.store_failure.as_ref() != Some(&sentence) {
                    tracing::error!(error = sentence, "the key store cannot be written");
                }
                self.store_failure = Some(sentence);
                Ok(())
            }
            Waking::Asked { client, request } => self.on_request(client, request),
            Waking::FromServer(datagram) => self.feed(Input::FromServer(&datagram)),
            Waking::Connected { server, connected } => {
                self.server_line.on_connected(&server, connected);
                Ok(())
            }
            Waking::Collected(bundle) => {
                self.send_to_server(bundle);
                Ok(())
            }
            Waking::HungUp(id) => {
                self.ways.hung_up(id);
                let owned = self.owners.iter().filter(|(_, client)| client.id == id);
                let relays: Vec<_> = owned.map(|(&relay, _)| relay).collect();
                for relay in relays {
                    self.end_relay(relay);
                }
                Ok(())
            }
            Waking::Unlocked {
                client,
                outcome,
                guard,
                locks,
            } => {
                self.guard = guard.unwrap_or_else(|| self.guard.clone());
                self.on_unlocked(client.as_ref(), outcome, locks)
            }
            Waking::Protected {
                client,
                outcome,
                guard,
            } => {
                self.guard = guard.unwrap_or_else(|| self.guard.clone());
                self.on_protected(&client, outcome)
            }
            Waking::Erased(deleted) => {
                self.store_failure = None;
                for left in &deleted.not_removed {
                    tracing::error!(error = left, "something could not be removed");
                }
                self.erased = true;
                self.deleted = Some(deleted);
                Ok(())
            }
        }
    }

    fn on_arrival(&mut self, arrival: &Arrival) -> Result<(), RunError> {
        let now = self.clock.tick();
        let feeds = self.relays.on_arrival(&mut self.terminal, now, arrival);
        self.feed_all(feeds)
    }

    /// The machine's timer, and what is done every second.
    fn on_time(&mut self) -> Result<(), RunError> {
        let now = Instant::now();
        if self.machine_due.is_some_and(|due| due <= now) {
            self.feed(Input::Timeout)?;
        }
        if self.flush_due.take_if(|due| *due <= now).is_some() {
            self.flush()?;
        }
        if self.next_second <= now {
            self.next_second = now + SECOND;
            self.flush()?;
            // Timers of the system do not count sleep, the machine's clock does: leases and graces
            // that ended meanwhile end now.
            self.feed(Input::Timeout)?;
            if let Some(file) = &mut self.tamper_file
                && file.says_opened()
            {
                self.tamper_file = None;
                self.feed(Input::Erase(EraseCause::Tamper))?;
            }
            self.on_packets_second();
            self.on_ways_second();
            let feeds = self.relays.on_second();
            self.feed_all(feeds)?;
            for (&relay, client) in &self.owners {
                if let Some(status) = self.relays.status_of(relay) {
                    client.tell(Answer::Progress(status));
                }
            }
        }
        if self.log_due <= now {
            self.log_due = now + LOG_EVERY;
            self.told.tell_more(self.terminal.drops());
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), RunError> {
        let now = self.clock.tick();
        let feeds = self.relays.flush(&mut self.terminal, now);
        self.feed_all(feeds)
    }

    fn due(&self) -> Instant {
        [self.machine_due, self.flush_due]
            .into_iter()
            .flatten()
            .fold(self.next_second, Instant::min)
    }

    fn feed_all(&mut self, feeds: Vec<Feed>) -> Result<(), RunError> {
        for feed in feeds {
            match feed {
                Feed::Order(order) => self.feed(Input::Order(order))?,
                Feed::Opened(trial) => self.feed(Input::Opened(trial))?,
            }
        }
        Ok(())
    }

    /// One input, then every output until `Timeout`; what the relays want to feed then comes after.
    fn feed(&mut self, input: Input<'_>) -> Result<(), RunError> {
        self.terminal
            .handle_input(self.clock.tick(), &mut OsRandom, input)?;
        let mut feeds = Vec::new();
        loop {
            match self.terminal.poll_output() {
                Output::Store(id, snapshot) => {
                    self.storing = Some(id);
                    self.committer.commit(id, snapshot);
                }
                Output::Erase(erase) => self.on_erase(&erase),
                Output::ToServer(datagram) => self.send_to_server(datagram),
                Output::Probe { to, datagram } => self.send_probe(to, &datagram),
                Output::Answer { to, datagram } => self.send_answer(to, datagram),
                Output::ToPeer { to, datagram } => self.send_message(to, &datagram),
                Output::Event(event) => {
                    self.tell_packets(&event);
                    feeds.extend(self.on_event(&event));
                }
                Output::Timeout { at, .. } => {
                    self.machine_due = at.map(|at| self.clock.instant(at));
                    break;
                }
            }
        }
        self.feed_all(feeds)?;
        self.refresh_packets()
    }

    /// By the member that collects, where there is one and it takes it.
    fn send_to_server(&mut self, datagram: Vec<u8>) {
        let now = Instant::now();
        let through = self.through.as_mut();
        if !through.is_some_and(|it| it.takes(&datagram, now)) {
            self.server_line.send(datagram);
        }
    }

    fn on_event(&mut self, event: &Event) -> Vec<Feed> {
        log_event(event);
        match *event {
            Event::KeyReceived { group, .. } => self.relays.on_key(group),
            Event::Retired {
                group,
                epoch,
                generation,
            } => {
                self.relays.on_retired(group, epoch, generation);
                Vec::new()
            }
            Event::SessionReady { group, session } => {
                let now = self.clock.tick();
                let feed = self
                    .relays
                    .on_session(&mut self.terminal, now, group, session);
                feed.into_iter().collect()
            }
            Event::SessionRefused { group } => {
                self.relays.on_session_refused(group);
                Vec::new()
            }
            Event::MarksStored { group, ref marks } => {
                let feed = self.relays.on_marks_stored(group, marks);
                feed.into_iter().collect()
            }
            Event::Excluded { ref terminals } => {
                if terminals.contains(&self.terminal.identity().number) {
                    self.relays.drop_keys();
                }
                self.relays.on_excluded(terminals);
                Vec::new()
            }
            Event::StockSenderReady { spi, .. } => {
                self.exporting.on_ready(&self.terminal, spi);
                Vec::new()
            }
            Event::StockSenderRefused { reason, .. } => {
                self.exporting.on_refused(reason);
                Vec::new()
            }
            Event::Locked { .. } => {
                self.exporting.on_locked();
                self.committer.lock();
                self.relays.drop_keys();
                Vec::new()
            }
            Event::Unlocked | Event::Readmitted { .. } => self.relays.on_unlocked(),
            Event::UnlockAllowed => {
                self.open_by_machine();
                Vec::new()
            }
            Event::AskEnded { outcome } => {
                if outcome == AskOutcome::NoAnswer {
                    self.server_line.turn();
                }
                self.last_ask = Some(outcome);
                Vec::new()
            }
            // Senders take the machine's key for every packet, so a change needs no order.
            Event::Sending { .. }
            | Event::Renewed { .. }
            | Event::FleetRenewed { .. }
            | Event::OffsetRenewed { .. }
            | Event::KeySetHeard { .. }
            | Event::TimeHeard { .. }
            // What waits for the end of a STOP goes by its own timer.
            | Event::Stopped { .. }
            | Event::Resumed { .. }
            | Event::KeyWanted { .. }
            | Event::RecordChanged { .. }
            | Event::Removed { .. }
            | Event::PacketSessionsReady { .. }
            | Event::PacketSessionsRefused { .. }
            | Event::PacketMarksStored { .. }
            | Event::StockMarkStored { .. }
            | Event::StockSenderEnded { .. }
            | Event::Notified { .. }
            | Event::PathFound { .. }
            | Event::PathLost { .. }
            | Event::PeerChanged { .. }
            | Event::PathsChanged => Vec::new(),
        }
    }

    /// After the server's UNLOCK, where no passphrase is needed.
    fn open_by_machine(&self) {
        if self.guard == Guard::Machine && self.terminal.is_locked() {
            let task = Task::Unlock {
                client: None,
                passphrase: Passphrase::new(""),
            };
            if !self.committer.take_on(task) {
                tracing::warn!("the user compartment could not be opened: restart the terminal");
            }
        }
    }

    /// The machine holds no key any more. What the relays derived goes now, what is on the disk as
    /// soon as the thread of the key store gets to it.
    fn on_erase(&mut self, erase: &Erase) {
        let relays: Vec<_> = self.relays.statuses().map(|it| it.relay).collect();
        for relay in relays {
            self.end_relay(relay);
        }
        self.relays = Relays::new();
        self.packets.wipe();
        let deleted = Deleted {
            cause: deletion_cause(erase.cause),
            receipt: erase.receipt.map(|receipt| receipt.to_string()),
            at: self.terminal.time().map(UnixSeconds::get),
            not_removed: Vec::new(),
        };
        let (cause, receipt) = (erase.cause.name(), deleted.receipt.as_deref());
        tracing::warn!(cause, receipt, "every key is erased");
        self.deleted = Some(deleted.clone());
        self.storing = None;
        self.committer.erase(Erasure {
            everything: erase.everything,
            deleted,
            wipe_roots: self.terminal.identity().wipe_roots.clone(),
        });
    }
}

const fn deletion_cause(cause: EraseCause) -> DeletionCause {
    match cause {
        EraseCause::Delete => DeletionCause::Delete,
        EraseCause::Init => DeletionCause::Initialize,
        EraseCause::DeadMan => DeletionCause::DeadMan,
        EraseCause::Tries => DeletionCause::Tries,
        EraseCause::Tamper => DeletionCause::Tamper,
    }
}

/// The terminal and its store. Whoever only looks (`terminal status`) has the store open for a
/// moment: that is waited for.
async fn take_over(dir: &Path, clock: Clock) -> Result<Stored, StoredError> {
    loop {
        match restore_at(dir, clock.tick()) {
            Err(StoredError::Store(KeyStoreError::InUse { .. }))
                if clock.tick() < Tick::default().plus(LOOK_MAX) =>
            {
                sleep(Duration::from_millis(20)).await;
            }
            other => return other,
        }
    }
}

/// Passes frames on until the loop ends.
async fn hear(mut receiver: MulticastReceiver, wakings: mpsc::Sender<Waking>) {
    loop {
        let frame = match receiver.recv().await {
            Ok(frame) => Waking::Frame(frame.to_vec()),
            Err(error) => {
                tracing::warn!(%error, "the carrier is not heard");
                sleep(SECOND).await;
                continue;
            }
        };
        if wakings.send(frame).await.is_err() {
            return;
        }
    }
}

fn choose_carriers(
    terminal: &Terminal,
    options: &RunOptions,
) -> Result<Vec<CarrierAddress>, RunError> {
    let mut carriers = options.carriers.clone();
    if carriers.is_empty() {
        for text in &terminal.identity().carriers {
            let parsed = text.parse().map_err(|source| RunError::PackageCarrier {
                text: text.clone(),
                source,
            })?;
            carriers.push(parsed);
        }
    }
    if let Some(interface) = options.interface {
        for carrier in &mut carriers {
            *carrier = carrier
                .by_interface(interface)
                .map_err(|error| RunError::Interface(interface, error))?;
        }
    }
    if carriers.is_empty() && servers_of(terminal, options).is_empty() {
        return Err(RunError::NoCarrier);
    }
    Ok(carriers)
}

fn servers_of(terminal: &Terminal, options: &RunOptions) -> Vec<String> {
    if options.one_way {
        Vec::new()
    } else if options.servers.is_empty() {
        terminal.identity().servers.clone()
    } else {
        options.servers.clone()
    }
}

/// Between two bursts of packets that waited.
const FLUSH_PAUSE: Duration = Duration::from_millis(5);
/// After the start the server is asked within this time: a fleet that is switched on at once does
/// not come at one moment.
const ASK_WITHIN: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);
/// docs/LOGGING.md: at most once in ten seconds for each reason.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Frames, requests and commits that wait at a time.
const WAKINGS_MAX: usize = 64;
/// For so long others may look into the store while this terminal starts.
const LOOK_MAX: Duration = Duration::from_secs(2);
const EXAMPLE_CARRIER: &str = "--carrier 'udp://239.255.70.77:47700?if=127.0.0.1'";
