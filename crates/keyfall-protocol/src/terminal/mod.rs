//! The terminal-side machine: obeys signed commands, keeps keys, answers which key opens or sends
//! traffic.
//!
//! Drive it as the crate's front page says: one [`Terminal::handle_input`], then
//! [`Terminal::poll_output`] until [`Output::Timeout`].

mod asking;
mod budget;
mod change;
mod compartment;
mod due;
mod exclusions;
mod group;
mod handing;
mod inspect;
mod locking;
mod obey;
mod packet_traffic;
mod packets;
mod paths;
mod settle;
mod snapshot;
mod status;
mod traffic;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use asking::Asking;
pub use asking::{AskOutcome, ContactInput, ContactOutput, FirstContact, FirstContactError};
use budget::Budget;
pub use budget::Source;
use compartment::{Held, Notes, User};
pub use due::TimeoutReason;
use exclusions::Exclusions;
pub use group::Mark;
use group::{Group, Lease};
use handing::Handing;
pub use handing::Unheard;
pub use inspect::{FrameVerdict, SealedVerdict, SignatureVerdict};
use locking::Lock;
use obey::Notified;
pub use packet_traffic::{OpenedSession, PacketQuery};
pub use packets::{NewStockSender, PacketMark, SessionBlock, StockSender};
use paths::{Arrival, Paths};
pub use paths::{PacketFrom, PathCounts, PathView, PeerView, Way, may_deliver};
pub use snapshot::{Snapshot, SnapshotError};
pub use status::{GroupState, GroupStatus, TerminalState};
pub use traffic::{ReceiveKey, TrafficQuery, Trial};

use crate::command::{KeySet, SignedRecord};
use crate::enrolment::{EnrolmentPackage, Identity, PackageError};
use crate::error::ApiMisuse;
use crate::ids::{
    EspSession, Generation, GroupNumber, Handle, KeyEpoch, SessionId, TerminalNumber, Tick,
    UnixSeconds,
};
use crate::keys::{ObeyKey, PinnedSpi};
use crate::receipt::Receipt;
use crate::rng::{Random, octets};
use crate::sharing::rsa_misty1::RsaSecret;
use crate::stats::{DropCounters, DropReason};
use crate::trusted_time::{PoweredOn, TrustedTime};

/// One terminal. Owns its keys; has no clock, file, socket or randomness.
#[derive(Debug)]
pub struct Terminal {
    identity: Identity,
    key_set: KeySet,
    /// Powered-on seconds when the KEYSET came.
    key_set_at: u64,
    /// `None` once everything was erased.
    obey: Option<ObeyKey>,
    obey_handle: Handle,
    /// The fleet's generation G.
    g: Generation,
    /// `None` while locked.
    user: Option<User>,
    /// The groups of the user compartment, known while it is closed, too.
    held: Held,
    notes: Notes,
    /// Notes that were carried out, until what they did is durable: by which store.
    carried_out: Option<(Option<StoreId>, Notes)>,
    lock: Lock,
    exclusions: Exclusions,
    /// The latest end of a lease that was ever stated: from it the dead man's time counts.
    last_lease: Lease,
    time: TrustedTime,
    powered: PoweredOn,
    /// The mark as the newest snapshot has it.
    stored_mark: UnixSeconds,
    held_trials: Budget,
    unheld_trials: Budget,
    /// Signatures that strangers can make this terminal check.
    verifications: Budget,
    notified: Option<Notified>,
    asking: Asking,
    paths: Paths,
    handing: Handing,
    drops: DropCounters,
    now: Tick,
    dirty: bool,
    store_asked: StoreId,
    store_done: StoreId,
    outputs: VecDeque<Output>,
    /// Events that must not be told before what they tell is durable.
    after_store: VecDeque<(StoreId, Event)>,
    /// Events of the present input.
    events: Vec<Event>,
}

/// What may be fed in.
#[derive(Debug)]
pub enum Input<'a> {
    /// A frame from a carrier. Whoever sent it: only the signature counts.
    Datagram(&'a [u8]),
    /// A datagram from where the server is, marker included; only what it proves counts.
    FromServer(&'a [u8]),
    /// A datagram of the packet port that begins with the non-ESP marker: key search, or a signed
    /// command that a peer hands on. `destination`: the address it was sent to; `outside`: it did
    /// not come from what this terminal protects.
    Search {
        from: SocketAddr,
        destination: IpAddr,
        outside: bool,
        datagram: &'a [u8],
    },
    /// A member's packet opened. For the first of a session, of two inner addresses and of an outer
    /// address; never for each.
    PacketFrom(PacketFrom),
    /// A packet did not open, since its sender was excluded or is too far behind.
    Unheard(Unheard),
    /// The time of [`Output::Timeout`] has come, or any other moment: too early does no harm.
    Timeout,
    /// Everything up to that [`Output::Store`] is durable.
    Stored(StoreId),
    /// What the media relay asks.
    Order(Order),
    /// A packet opened under this trial: the server's key chain moves to it.
    Opened(Trial),
    /// Closes the user compartment. What was not stored yet is as after a power cut.
    Lock,
    /// The user compartment, opened by PIN or passphrase; look at [`Terminal::may_unlock`] before
    /// either is asked for.
    Unlock(&'a [u8]),
    /// A key of its own for asking in the suite rsa-misty1, in place of the one before. Comes to nothing
    /// while locked.
    LegacyKey(RsaSecret),
    /// Tamper, or the last try: as DELETE, without a signature.
    Erase(EraseCause),
}

/// What the local side asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// A fresh session for sending in a group; answered by [`Event::SessionReady`] once it is
    /// recorded, or by [`Event::SessionRefused`].
    OpenSession { group: GroupNumber },
    /// Fresh sessions for sending packets in a group; answered by [`Event::PacketSessionsReady`]
    /// once they are recorded, or by [`Event::PacketSessionsRefused`].
    OpenPacketSessions { group: GroupNumber },
    /// Nothing of these sessions up to these numbers will be delivered again; answered by
    /// [`Event::PacketMarksStored`].
    MarkPackets {
        group: GroupNumber,
        marks: Vec<PacketMark>,
    },
    /// A key for a stock sender; answered by [`Event::StockSenderReady`] once it is stored, or by
    /// [`Event::StockSenderRefused`].
    AddStockSender(NewStockSender),
    /// Nothing of this stock sender up to this number will be delivered again; answered by
    /// [`Event::StockMarkStored`].
    MarkStockSender {
        group: GroupNumber,
        spi: PinnedSpi,
        sequence: u32,
    },
    /// Nothing of these streams up to these indices will be delivered again; answered by
    /// [`Event::MarksStored`].
    Mark {
        group: GroupNumber,
        marks: Vec<Mark>,
    },
    /// There is a way to the server: fetch what is missing, after a random time within that span.
    /// From now on this terminal also asks by itself.
    Ask { within: Duration },
    /// Where that terminal is, as somebody wrote it down: it counts where it was not heard lately.
    PeerAt {
        peer: TerminalNumber,
        endpoint: Option<SocketAddr>,
    },
}

/// What the driver has to do.
#[must_use]
#[derive(Debug)]
pub enum Output {
    /// Make this snapshot durable, then feed [`Input::Stored`]. A later one replaces an earlier,
    /// each compartment for itself.
    Store(StoreId, Snapshot),
    /// A datagram for the server that answers this terminal, marker included.
    ToServer(Vec<u8>),
    /// A probe towards that address, marker included: by UDP to the packet port, or as the payload of
    /// an ICMP echo request.
    Probe { to: IpAddr, datagram: Vec<u8> },
    /// The answer to a probe, marker included: back to where the probe came from, or, of an echo request,
    /// as the payload with which it goes on.
    Answer { to: SocketAddr, datagram: Vec<u8> },
    /// What a peer missed, marker included.
    ToPeer { to: SocketAddr, datagram: Vec<u8> },
    /// Destroy what is stored, at once and for good: root secrets first. The machine holds no key
    /// any more and does nothing from now on.
    Erase(Erase),
    /// Something that the relay, the log or an operator wants to know.
    Event(Event),
    /// Nothing more to do before `at` (`None`: before the next input).
    Timeout {
        at: Option<Tick>,
        reason: TimeoutReason,
    },
}

/// The end of a terminal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Erase {
    /// The state directory and [`Identity::wipe_roots`] go, too; else only every key.
    pub everything: bool,
    pub cause: EraseCause,
    /// To be left behind where the server asked for it.
    pub receipt: Option<Receipt>,
}

/// Who wanted it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EraseCause {
    /// A signed DELETE.
    Delete,
    /// A signed INIT.
    Init,
    /// The dead man's time after the last lease is over (W-03).
    DeadMan,
    /// The last try at PIN or passphrase failed.
    Tries,
    /// The case was opened.
    Tamper,
}

impl EraseCause {
    /// The word in files and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Init => "INIT",
            Self::DeadMan => "dead man's time",
            Self::Tries => "too many tries",
            Self::Tamper => "tamper",
        }
    }
}

/// Names one [`Output::Store`]; they count up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct StoreId(u64);

/// What happened. Where it tells of keys, it is told after they are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A KEYDIST brought a key.
    KeyReceived {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// A master key was renewed.
    Renewed {
        group: GroupNumber,
        from: Generation,
        to: Generation,
        cause: Cause,
    },
    /// The wrap key was renewed with G.
    FleetRenewed { from: Generation, to: Generation },
    /// The wrap key was renewed by an order to this terminal alone.
    OffsetRenewed { from: u32, to: u32 },
    /// From now on this terminal sends under this generation.
    Sending {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// A generation is held no longer; keys derived from it must go too.
    Retired {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// The session may be used.
    SessionReady {
        group: GroupNumber,
        session: SessionId,
    },
    /// The group is not held.
    SessionRefused { group: GroupNumber },
    /// The marks are durable.
    MarksStored {
        group: GroupNumber,
        marks: Vec<Mark>,
    },
    /// The sessions may be used.
    PacketSessionsReady {
        group: GroupNumber,
        sessions: SessionBlock,
    },
    /// The group is not held.
    PacketSessionsRefused { group: GroupNumber },
    /// The marks are durable, each as high as any that was stored of its session. Those of sessions
    /// that are refused by now are not among them.
    PacketMarksStored {
        group: GroupNumber,
        marks: Vec<PacketMark>,
        /// Sessions for which there is no room any more: nothing of them is delivered from now on.
        displaced: Vec<PacketMark>,
    },
    /// The key may be used until then.
    StockSenderReady {
        group: GroupNumber,
        spi: PinnedSpi,
        until: UnixSeconds,
    },
    /// The group's key is not sent with, or there are too many.
    StockSenderRefused {
        group: GroupNumber,
        reason: DropReason,
    },
    /// The mark is durable.
    StockMarkStored {
        group: GroupNumber,
        spi: PinnedSpi,
        sequence: u32,
    },
    /// Its time is over: what was made of its key must go, too.
    StockSenderEnded { group: GroupNumber, spi: PinnedSpi },
    /// The first beacon since power-on.
    TimeHeard { seconds: UnixSeconds },
    /// The root listed new keys.
    KeySetHeard { version: u32 },
    /// Nobody listens to these any more; told at once, so that their streams end.
    Excluded { terminals: Vec<TerminalNumber> },
    /// A stolen key had excluded them.
    Readmitted { terminals: Vec<TerminalNumber> },
    /// The user compartment is closed: every key of it, and all that was derived, must go. Told at
    /// once.
    Locked { by_server: bool },
    /// The user compartment is open.
    Unlocked,
    /// The server allows unlocking again.
    UnlockAllowed,
    /// A STOP: this terminal sends nothing in the group any more, at the longest until then. Told at
    /// once.
    Stopped {
        group: GroupNumber,
        deadline: UnixSeconds,
    },
    /// The STOP is over.
    Resumed {
        group: GroupNumber,
        cause: ResumeCause,
    },
    /// A STOP or START names a key that is not held and cannot be renewed to: it has to be fetched.
    KeyWanted {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// The server says another thing of this terminal's own addresses and packet groups, or says it
    /// anew.
    RecordChanged { version: u32 },
    /// The server says that this terminal is no member any more: the group's keys are gone.
    Removed { group: GroupNumber },
    /// A sequence of key sharing has ended.
    AskEnded { outcome: AskOutcome },
    /// The server asks to come and fetch, after a random time within `spread`.
    Notified { spread: Duration },
    /// A search ended well: [`Terminal::path`] has a way. Told at once, as all that follows.
    PathFound { source: IpAddr, destination: IpAddr },
    /// A search ended in vain, or a path that one found is not to be used any more: packets that wait
    /// for it are dropped for that reason; who goes on sending asks again.
    PathLost {
        source: IpAddr,
        destination: IpAddr,
        reason: DropReason,
    },
    /// Ways to that terminal may be others than were told: where it is, or what its record says.
    PeerChanged { peer: TerminalNumber },
    /// Every way may be another than was told.
    PathsChanged,
}

/// What ended a STOP.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResumeCause {
    Start,
    /// START did not come in time.
    Deadline,
    /// The root lists its signer no more.
    KeySet,
}

impl ResumeCause {
    /// The word in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Start => "START",
            Self::Deadline => "deadline",
            Self::KeySet => "KEYSET",
        }
    }
}

/// The three instructions of renewal, and one for each session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    Command,
    Validity,
    Gap,
    Session,
}

impl Terminal {
    /// A freshly enrolled terminal. Its first output is the store of its first snapshot.
    ///
    /// # Errors
    /// [`PackageError::KeySetNotSigned`].
    pub fn enrol(package: EnrolmentPackage, now: Tick) -> Result<Self, PackageError> {
        let g = package.wrap.generation();
        let mut terminal = Self::begin(package, g, now)?;
        terminal.settle();
        Ok(terminal)
    }

    /// `g`: the fleet's generation when the package was made.
    fn begin(package: EnrolmentPackage, g: Generation, now: Tick) -> Result<Self, PackageError> {
        let key_set = package.identity.key_set()?;
        let floor = package.issued_at.max(key_set.issued_at);
        let powered = PoweredOn::boot(0, now);
        let longest = key_set.limits.longest_lease;
        let end = package.issued_at.plus(longest);
        let offset = package.wrap.generation().steps_from(g);
        Ok(Self::assemble(
            Parts {
                last_lease: Lease::stated(end, package.issued_at, longest, powered.charged()),
                time: TrustedTime::new(floor, Vec::new()),
                key_set_at: powered.charged(),
                powered,
                identity: package.identity,
                key_set,
                obey: package.obey,
                g,
                held: Held::new(),
                notes: Notes::default(),
                lock: Lock::default(),
                exclusions: Exclusions::default(),
                own_record: None,
            },
            Some(User::new(package.wrap, offset, BTreeMap::new())),
            now,
        ))
    }

    /// A boot costs one step of powered-on time, which is stored with the first input.
    fn assemble(parts: Parts, user: Option<User>, now: Tick) -> Self {
        Self {
            stored_mark: parts.time.mark(),
            obey_handle: parts.obey.handle(),
            identity: parts.identity,
            key_set: parts.key_set,
            key_set_at: parts.key_set_at,
            obey: Some(parts.obey),
            g: parts.g,
            user,
            held: parts.held,
            notes: parts.notes,
            carried_out: None,
            lock: parts.lock,
            exclusions: parts.exclusions,
            last_lease: parts.last_lease,
            time: parts.time,
            powered: parts.powered,
            // FORMATS section 3.2: first packets under a held generation, and trials of one that
            // is not held.
            held_trials: Budget::new(64, 20_000),
            unheld_trials: Budget::new(4, 64),
            verifications: Budget::new(VERIFICATIONS, VERIFICATIONS),
            notified: None,
            asking: Asking::new(),
            paths: Paths::new(parts.own_record),
            handing: Handing::new(),
            drops: DropCounters::default(),
            now,
            dirty: true,
            store_asked: StoreId(0),
            store_done: StoreId(0),
            outputs: VecDeque::new(),
            after_store: VecDeque::new(),
            events: Vec::new(),
        }
    }

    /// Takes one input. What a peer did wrong is counted, not returned.
    ///
    /// # Errors
    /// [`ApiMisuse`] where the driver broke the contract; nothing changed then.
    pub fn handle_input(
        &mut self,
        now: Tick,
        rng: &mut dyn Random,
        input: Input<'_>,
    ) -> Result<(), ApiMisuse> {
        // Time that runs backwards is ignored.
        self.now = self.now.max(now);
        if self.obey.is_none() {
            return Ok(());
        }
        match input {
            Input::Datagram(octets) => {
                if let Err(reason) = self.on_frame(octets) {
                    self.drops.count(self.now, reason);
                }
            }
            Input::FromServer(datagram) => {
                if let Err(reason) = self.on_server_datagram(datagram, rng) {
                    self.drops.count(self.now, reason);
                }
            }
            Input::Search {
                from,
                destination,
                outside,
                datagram,
            } => {
                let arrival = Arrival {
                    from,
                    destination,
                    outside,
                    datagram,
                };
                if let Err(reason) = self.on_search(&arrival, rng) {
                    self.drops.count(self.now, reason);
                }
            }
            Input::PacketFrom(packet) => {
                if let Err(reason) = self.on_packet_from(&packet) {
                    self.drops.count(self.now, reason);
                }
            }
            Input::Unheard(unheard) => self.on_unheard(&unheard),
            Input::Timeout => {}
            Input::Stored(id) => self.on_stored(id)?,
            Input::Order(order) => self.on_order(order, rng),
            Input::Opened(trial) => self.on_opened(trial),
            Input::Lock => self.close(false),
            Input::Unlock(snapshot) => self.open(snapshot)?,
            Input::LegacyKey(key) => self.take_legacy_key(key),
            Input::Erase(cause) => self.erase(false, cause, None),
        }
        self.turn_asking(rng);
        self.turn_paths(rng);
        self.settle();
        self.confirm_answer(rng);
        Ok(())
    }

    /// The next thing to do; call until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        self.outputs
            .pop_front()
            .unwrap_or_else(|| self.next_timeout())
    }

    fn on_stored(&mut self, id: StoreId) -> Result<(), ApiMisuse> {
        if id > self.store_asked || id <= self.store_done {
            let open = self.store_asked > self.store_done;
            let expected = open.then(|| self.store_done.0 + 1);
            return Err(ApiMisuse::NotStoring {
                got: id.0,
                expected,
            });
        }
        self.store_done = id;
        let durable = |(by, _): &(Option<StoreId>, Notes)| by.is_some_and(|by| by <= id);
        if self.carried_out.take_if(|it| durable(it)).is_some() {
            self.dirty = true;
        }
        while self
            .after_store
            .front()
            .is_some_and(|&(store, _)| store <= id)
        {
            if let Some((_, event)) = self.after_store.pop_front() {
                self.outputs.push_back(Output::Event(event));
            }
        }
        Ok(())
    }

    fn on_order(&mut self, order: Order, rng: &mut dyn Random) {
        match order {
            Order::OpenSession { group: number } => self.open_session(number, rng),
            Order::OpenPacketSessions { group } => self.open_packet_sessions(group, rng),
            Order::MarkPackets { group, marks } => self.mark_packets(group, marks),
            Order::AddStockSender(wanted) => self.add_stock_sender(wanted, rng),
            Order::MarkStockSender {
                group,
                spi,
                sequence,
            } => self.mark_stock_sender(group, spi, sequence),
            Order::Ask { within } => self.on_ask(within, rng),
            Order::PeerAt { peer, endpoint } => self.configure_peer(peer, endpoint),
            Order::Mark {
                group: number,
                marks,
            } => {
                let groups = self.user.as_mut().map(|user| &mut user.groups);
                if let Some(group) = groups.and_then(|groups| groups.get_mut(&number)) {
                    for &mark in &marks {
                        group.record_mark(mark);
                    }
                    self.dirty = true;
                }
                self.events.push(Event::MarksStored {
                    group: number,
                    marks,
                });
            }
        }
    }

    fn open_session(&mut self, number: GroupNumber, rng: &mut dyn Random) {
        let time = self.time();
        let until = self.grace_end();
        let groups = self.user.as_mut().map(|user| &mut user.groups);
        let Some(group) = groups.and_then(|groups| groups.get_mut(&number)) else {
            self.events.push(Event::SessionRefused { group: number });
            return;
        };
        if let Some(to) = group.next_for_session(time) {
            let from = group.newest();
            let next = group.ring.newest().duplicate().renew_to(to);
            group.install(next, None, until);
            let cause = Cause::Session;
            self.events.push(Event::Renewed {
                group: number,
                from,
                to,
                cause,
            });
        }
        let mut session = SessionId::new(octets(rng));
        while !group.record_session(session) {
            session = SessionId::new(octets(rng));
        }
        self.dirty = true;
        self.events.push(Event::SessionReady {
            group: number,
            session,
        });
    }

    /// The sessions after those of this start, at first at random (FORMATS section 7).
    fn open_packet_sessions(&mut self, number: GroupNumber, rng: &mut dyn Random) {
        let event = match self.group_mut(number) {
            Some(group) => Event::PacketSessionsReady {
                group: number,
                sessions: group.packets.open_block(|| EspSession::new(octets(rng))),
            },
            None => Event::PacketSessionsRefused { group: number },
        };
        self.dirty |= matches!(event, Event::PacketSessionsReady { .. });
        self.events.push(event);
    }

    fn mark_packets(&mut self, number: GroupNumber, mut marks: Vec<PacketMark>) {
        let mut displaced = Vec::new();
        match self.group_mut(number) {
            Some(group) => marks.retain_mut(|mark| {
                let Some(recorded) = group.packets.record(*mark) else {
                    return false;
                };
                mark.sequence = recorded.sequence;
                let idle = recorded.displaced;
                displaced.extend(idle.map(|session| PacketMark { session, ..*mark }));
                true
            }),
            None => marks.clear(),
        }
        self.dirty |= !marks.is_empty();
        self.events.push(Event::PacketMarksStored {
            group: number,
            marks,
            displaced,
        });
    }

    /// The end: every key goes now, from memory here and from the disk by the driver. Nothing is
    /// obeyed any more.
    fn erase(&mut self, everything: bool, cause: EraseCause, receipt: Option<Receipt>) {
        self.close(false);
        self.outputs.clear();
        self.obey = None;
        self.notes = Notes::default();
        self.carried_out = None;
        self.dirty = false;
        self.outputs.push_back(Output::Erase(Erase {
            everything,
            cause,
            receipt,
        }));
    }

    fn grace_end(&self) -> Tick {
        Group::grace_end(self.now, self.key_set.limits.grace)
    }

    fn keep_end(&self) -> Tick {
        self.now
            .plus(Duration::from_secs(u64::from(self.identity.keep_time)))
    }
}

/// What a terminal is beside its user compartment.
struct Parts {
    identity: Identity,
    key_set: KeySet,
    key_set_at: u64,
    obey: ObeyKey,
    g: Generation,
    held: Held,
    notes: Notes,
    lock: Lock,
    exclusions: Exclusions,
    own_record: Option<SignedRecord>,
    last_lease: Lease,
    time: TrustedTime,
    powered: PoweredOn,
}

/// Signatures that are checked in a second.
const VERIFICATIONS: u32 = 1000;

#[cfg(test)]
mod tests;
