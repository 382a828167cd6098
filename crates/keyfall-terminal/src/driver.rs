//! The loop around the terminal machine: wait for exactly one cause, feed it, drain, act, repeat.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use keyfall_api::control::{Answer, ControlError, Refusal, RelayStatus, Request};
use keyfall_carrier::{AddressError, CarrierAddress, CarrierError, MulticastReceiver};
use keyfall_protocol::ids::Tick;
use keyfall_protocol::terminal::{Cause, Event, Input, Output, StoreId, Terminal};
use keyfall_protocol::{ApiMisuse, DropReason};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use crate::committing::Committer;
use crate::control::{self, Client, ClientId};
use crate::hardening::scrub_stack;
use crate::inspection::inspect;
use crate::key_store::{KeyStore, KeyStoreError};
use crate::media_relay::{Arrival, Feed, Interfaces, RelayNumber, Relays};
use crate::os_random::OsRandom;
use crate::status::{status, why};
use crate::stored::{StoredError, restore_at};

/// What is said at the start beside the directory.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Heard instead of the carriers in the enrolment package, where there are any.
    pub carriers: Vec<CarrierAddress>,
    /// The interface by which all carriers are heard; without it each one's own.
    pub interface: Option<Ipv4Addr>,
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
    Stored(StoreId),
    /// The sentence says why; it is tried again.
    StoreFailed(String),
    Asked {
        client: Client,
        request: Request,
    },
    HungUp(ClientId),
}

/// Runs the terminal in `dir` until `shutdown` completes; its last snapshot is durable then.
/// `on_ready` is called once, when its carriers are heard and its control socket answers.
///
/// # Errors
/// [`RunError`], most of them at the start, before anything is heard.
pub async fn serve(
    dir: PathBuf,
    options: RunOptions,
    on_ready: impl FnOnce(&Terminal),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let clock = Clock::start();
    let (store, terminal) = take_over(&dir, clock).await?;
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
    let committer = Committer::start(store, wakings).map_err(RunError::Thread)?;
    let driver = Driver {
        _door: door,
        clock,
        terminal,
        committer,
        relays: Relays::new(),
        interfaces: Interfaces {
            of_carrier: carriers.first().map(CarrierAddress::interface),
        },
        carriers: carriers.iter().map(ToString::to_string).collect(),
        owners: BTreeMap::new(),
        machine_due: None,
        next_second: Instant::now() + SECOND,
        frames: 0,
        store_failure: None,
        logged: BTreeMap::new(),
        log_due: Instant::now() + LOG_EVERY,
    };
    tracing::info!(terminal = %driver.terminal.identity().number, "the terminal runs");
    on_ready(&driver.terminal);
    driver.run(inbox, shutdown).await
}

struct Driver {
    /// First, so that it is gone before the store is free for the next process.
    _door: control::Door,
    clock: Clock,
    terminal: Terminal,
    committer: Committer,
    relays: Relays,
    interfaces: Interfaces,
    carriers: Vec<String>,
    /// Who started a relay: progress goes there, and the relay ends with it.
    owners: BTreeMap<RelayNumber, Client>,
    /// When the machine wants to be called.
    machine_due: Option<Instant>,
    next_second: Instant,
    frames: u64,
    store_failure: Option<String>,
    /// Drop counters as the log told them last.
    logged: BTreeMap<DropReason, u64>,
    log_due: Instant,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Waking>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RunError> {
        let mut shutdown = pin!(shutdown);
        let mut timer = pin!(sleep_until(self.next_second));
        self.feed(Input::Timeout)?;
        loop {
            let due = self.due();
            if timer.deadline() != due {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                () = &mut shutdown => break,
                Some(waking) = inbox.recv() => self.on_waking(waking)?,
                arrival = poll_fn(|cx| self.relays.poll_arrival(cx)) => self.on_arrival(&arrival)?,
                () = &mut timer => self.on_time()?,
            }
            // SECURITY: at the end of each input (docs/THREATS.md).
            scrub_stack();
        }
        tracing::info!("the terminal stops");
        // The committer's thread must not wait for room in an inbox that nobody empties.
        drop(inbox);
        self.committer.finish().map_err(RunError::LastSnapshot)
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
                self.feed(Input::Stored(id))
            }
            Waking::StoreFailed(sentence) => {
                if self.store_failure.as_ref() != Some(&sentence) {
                    tracing::error!(error = sentence, "the key store does not take the snapshot");
                }
                self.store_failure = Some(sentence);
                Ok(())
            }
            Waking::Asked { client, request } => self.on_request(client, request),
            Waking::HungUp(id) => {
                let owned = self.owners.iter().filter(|(_, client)| client.id == id);
                let relays: Vec<_> = owned.map(|(&relay, _)| relay).collect();
                for relay in relays {
                    self.end_relay(relay);
                }
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
        if self.next_second <= now {
            self.next_second = now + SECOND;
            // Timers of the system do not count sleep, the machine's clock does: leases and graces
            // that ended meanwhile end now.
            self.feed(Input::Timeout)?;
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
            self.log_drops();
        }
        Ok(())
    }

    fn due(&self) -> Instant {
        let machine = self.machine_due.unwrap_or(self.next_second);
        machine.min(self.next_second)
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
                Output::Store(id, snapshot) => self.committer.commit(id, snapshot),
                Output::Event(event) => feeds.extend(self.on_event(&event)),
                Output::Timeout { at, .. } => {
                    self.machine_due = at.map(|at| self.clock.instant(at));
                    break;
                }
            }
        }
        self.feed_all(feeds)
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
                let feed = self.relays.on_session(&mut self.terminal, group, session);
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
            // Senders take the machine's key for every packet, so a change needs no order.
            Event::Sending { .. }
            | Event::Renewed { .. }
            | Event::FleetRenewed { .. }
            | Event::TimeHeard { .. } => Vec::new(),
        }
    }

    fn on_request(&mut self, client: Client, request: Request) -> Result<(), RunError> {
        match request {
            Request::Status {} => {
                let mut status = status(&self.terminal);
                status.running = true;
                status.relays = self.relays.statuses().collect();
                status.carriers.clone_from(&self.carriers);
                status.frames = self.frames;
                status.store_failure.clone_from(&self.store_failure);
                client.tell(Answer::Status(Box::new(status)));
            }
            Request::Why {} => client.tell(Answer::Why(why(&self.terminal, self.clock.tick()))),
            Request::MediaSend(request) => {
                let begun = self
                    .relays
                    .start_send(&self.terminal, &self.interfaces, &request);
                match begun {
                    Ok((relay, feed)) => {
                        self.own(client, relay);
                        self.feed_all(vec![feed])?;
                    }
                    Err(error) => client.tell(Answer::Error(error)),
                }
            }
            Request::MediaReceive(request) => {
                let begun = self
                    .relays
                    .start_receive(&self.terminal, &self.interfaces, &request);
                match begun {
                    Ok(relay) => self.own(client, relay),
                    Err(error) => client.tell(Answer::Error(error)),
                }
            }
            Request::MediaParams { relay } => {
                let params = self.relays.params(&self.terminal, relay);
                client.tell(Answer::Params(params));
            }
            Request::MediaStop { relay } => client.tell(match self.end_relay(relay) {
                Some(status) => Answer::Stopped(status),
                None => Answer::Error(ControlError {
                    refusal: Refusal::NoSuchRelay,
                    sentence: format!(
                        "no relay {relay} runs: `keyfall terminal status` lists those that do"
                    ),
                }),
            }),
            Request::Inspect { octets, stretch } => {
                client.tell(inspect(&self.terminal, &octets, stretch).map_or_else(
                    |sentence| {
                        Answer::Error(ControlError {
                            refusal: Refusal::BadRequest,
                            sentence,
                        })
                    },
                    Answer::Inspected,
                ));
            }
        }
        Ok(())
    }

    /// The relay belongs to the client that started it.
    fn own(&mut self, client: Client, relay: RelayNumber) {
        if let Some(status) = self.relays.status_of(relay) {
            tracing::info!(group = status.group, "a media relay begins");
            client.tell(Answer::Started(status));
        }
        self.owners.insert(relay, client);
    }

    fn end_relay(&mut self, relay: RelayNumber) -> Option<RelayStatus> {
        let status = self.relays.stop(relay)?;
        tracing::info!(
            group = status.group,
            packets = status.packets,
            "a media relay ends"
        );
        if let Some(owner) = self.owners.remove(&relay) {
            owner.tell(Answer::Ended(status.clone()));
        }
        Some(status)
    }

    /// One line a reason, at most every ten seconds (docs/LOGGING.md).
    fn log_drops(&mut self) {
        for (reason, count, _) in self.terminal.drops().iter() {
            let logged = self.logged.entry(reason).or_default();
            let more = count - *logged;
            *logged = count;
            if more == 0 {
                continue;
            }
            let (name, code, count) = (reason.name(), reason.code(), more);
            if AT_WORK.contains(&reason) {
                tracing::debug!(reason = name, code, count, "dropped, as it should be");
            } else {
                tracing::warn!(reason = name, code, count, "dropped");
            }
        }
    }
}

/// The machine's clock: nanoseconds since the start, those that the device slept too, because
/// leases and beacons go on meanwhile.
#[derive(Clone, Copy)]
struct Clock {
    started: u64,
}

impl Clock {
    fn start() -> Self {
        Self {
            started: since_boot(),
        }
    }

    fn tick(self) -> Tick {
        Tick::from_nanos(since_boot().saturating_sub(self.started))
    }

    fn instant(self, tick: Tick) -> Instant {
        // A far tick must not overflow the clock of the system.
        Instant::now() + tick.since(self.tick()).min(FAR)
    }
}

/// Nanoseconds since the machine was switched on.
fn since_boot() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

/// The terminal and its store. Whoever only looks (`terminal status`) has the store open for a
/// moment: that is waited for.
async fn take_over(dir: &Path, clock: Clock) -> Result<(KeyStore, Terminal), StoredError> {
    loop {
        match restore_at(dir, clock.tick()) {
            Err(StoredError::Store(KeyStoreError::Locked { .. }))
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
    if carriers.is_empty() {
        return Err(RunError::NoCarrier);
    }
    Ok(carriers)
}

/// The fields are those of docs/LOGGING.md.
fn log_event(event: &Event) {
    match event {
        Event::KeyReceived {
            group,
            epoch,
            generation,
        } => {
            let cause = "distribution";
            tracing::info!(%group, %epoch, %generation, cause, "a group's key was received");
        }
        Event::Renewed {
            group,
            from,
            to,
            cause,
        } => {
            let cause = match cause {
                Cause::Command => "command",
                Cause::Validity => "schedule",
                Cause::Gap => "gap",
            };
            tracing::info!(%group, %from, %to, cause, "a group's key was renewed");
        }
        Event::FleetRenewed { from, to } => {
            tracing::info!(%from, %to, "the fleet's generation was renewed");
        }
        Event::Sending {
            group,
            epoch,
            generation,
        } => tracing::info!(%group, %epoch, %generation, "a key is sent with from now on"),
        Event::Retired {
            group,
            epoch,
            generation,
        } => tracing::info!(%group, %epoch, %generation, "an old generation was wiped"),
        Event::TimeHeard { .. } => tracing::info!("the first beacon was heard"),
        Event::SessionRefused { group } => {
            tracing::info!(%group, "a media relay waits for its group's key");
        }
        Event::SessionReady { .. } | Event::MarksStored { .. } => {}
    }
}

/// What a terminal drops that is at work and not in trouble.
const AT_WORK: [DropReason; 4] = [
    DropReason::NotNewer,
    DropReason::NotAddressed,
    DropReason::KeySetNotNewer,
    DropReason::OwnPacket,
];
const SECOND: Duration = Duration::from_secs(1);
/// docs/LOGGING.md: at most once in ten seconds for each reason.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Frames, requests and commits that wait at a time.
const WAKINGS_MAX: usize = 64;
/// For so long others may look into the store while this terminal starts.
const LOOK_MAX: Duration = Duration::from_secs(2);
/// Timers further ahead are set again when this is over.
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
const EXAMPLE_CARRIER: &str = "--carrier 'udp://239.255.70.77:47700?if=127.0.0.1'";
