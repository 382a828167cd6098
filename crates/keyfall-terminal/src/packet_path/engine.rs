//! The driver's side of the packet path: which keys, sessions and ways the threads have, and what the
//! machine has to be told for them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keyfall_plane::{EspReceiver, EspSender};
use keyfall_protocol::DropReason;
use keyfall_protocol::command::ProtectionRecord;
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick};
use keyfall_protocol::keys::{EspSuite, PinnedSpi};
use keyfall_protocol::terminal::{
    Order, PacketMark, PacketQuery, SessionBlock, Source, Terminal, Trial, Way,
};
use tokio::sync::mpsc::{self, Receiver};
use zeroize::Zeroize;

use crate::packet_path::counts::Counts;
use crate::packet_path::egress::{Egress, ToEgress};
use crate::packet_path::flows::{Ends, FlowWay};
use crate::packet_path::ingress::{Ingress, KnownSession, ToIngress};
use crate::packet_path::lanes::{Lane, Lanes, Queues, every};
use crate::packet_path::post::{self, Mailbox, Post};
use crate::packet_path::receiving::Receiving;
use crate::packet_path::restarts::{Answered, First, Text};
use crate::packet_path::sending::{Place, Sending, Suites, Told};
use crate::packet_path::sessions::{Received, Sessions, Settled, Under};
use crate::packet_path::stock::StockSenders;
use crate::packet_path::tun::Tun;
use crate::packet_path::wire::{Origin, Wire};
use crate::packet_path::{Ask, FlowReport, Heard, SessionName, SessionReport};

/// The threads, and what they were told.
pub(crate) struct PacketPath {
    own: TerminalNumber,
    tun: Arc<Tun>,
    wire: Arc<Wire>,
    /// Where peers hear: the port of datagrams to all members, and of probes.
    port: u16,
    egress: Lanes,
    /// To the first that receives, which carries it out for all.
    ingress: Post<ToIngress>,
    /// To the others, for the end.
    further: Vec<Post<ToIngress>>,
    threads: Vec<JoinHandle<()>>,
    inbox: Receiver<Ask>,
    counts: Arc<Counts>,
    groups: BTreeMap<GroupNumber, Sending>,
    sessions: Sessions,
    stock: StockSenders,
    answered: Answered,
    /// This terminal's own, as the threads that receive were told.
    record: Option<Arc<ProtectionRecord>>,
    scratch: Box<[u8]>,
}

/// What came of a packet of a session that was unknown.
#[derive(Default)]
pub(crate) struct Begun {
    /// To be fed: the key is of a newer generation.
    pub(crate) trial: Option<Trial>,
    /// No session began: the core has to find out who that is.
    pub(crate) stranger: Option<Heard>,
}

impl PacketPath {
    /// Starts the threads: for each queue of the interface one that sends, by the first socket, and for
    /// each socket one that receives.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn start(
        own: TerminalNumber,
        queues: Vec<Tun>,
        wires: Vec<Wire>,
        keepalive: Option<Duration>,
    ) -> io::Result<Self> {
        let queues: Vec<_> = queues.into_iter().map(Arc::new).collect();
        let wires: Vec<_> = wires.into_iter().map(Arc::new).collect();
        let (Some(tun), Some(wire)) = (queues.first().cloned(), wires.first().cloned()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let (asks, inbox) = mpsc::channel(ASKS_MAX);
        let counts = Arc::new(Counts::default());
        let (egress, outward): (Vec<_>, Vec<_>) = posts(queues.len())?.into_iter().unzip();
        let (mut ingress, inward): (Vec<_>, Vec<_>) = posts(wires.len())?.into_iter().unzip();
        let further = ingress.split_off(1);
        // Where a thread cannot be started, those before it end with this.
        let mut path = Self {
            own,
            port: wire.local_address()?.port(),
            tun: Arc::clone(&tun),
            wire: Arc::clone(&wire),
            egress: Lanes::new(egress),
            ingress: ingress.remove(0),
            further,
            threads: Vec::new(),
            inbox,
            counts: Arc::clone(&counts),
            groups: BTreeMap::new(),
            sessions: Sessions::default(),
            stock: StockSenders::default(),
            answered: Answered::default(),
            record: None,
            scratch: vec![0; SCRATCH].into(),
        };
        for ((lane, queue), orders) in every(queues.len()).zip(&queues).zip(outward) {
            let sending = Egress::new(
                lane,
                Arc::clone(queue),
                Arc::clone(&wire),
                orders,
                asks.clone(),
                Arc::clone(&counts),
                keepalive,
            );
            let (name, ended) = (format!("packets-out-{}", lane.number()), asks.clone());
            path.run(name, move || say_why(|| sending.run(), "sends", &ended))?;
        }
        let receiving = Arc::new(Receiving::new(own, counts));
        let queues = Queues::new(queues);
        for ((lane, wire), orders) in every(wires.len()).zip(wires).zip(inward) {
            let thread = Ingress::new(
                lane,
                queues.clone(),
                tun.join(),
                wire,
                orders,
                asks.clone(),
                Arc::clone(&receiving),
            );
            let (name, ended) = (format!("packets-in-{}", lane.number()), asks.clone());
            path.run(name, move || say_why(|| thread.run(), "receives", &ended))?;
        }
        Ok(path)
    }

    fn run(&mut self, name: String, thread: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = thread::Builder::new().name(name).spawn(thread)?;
        self.threads.push(thread);
        Ok(())
    }

    pub(crate) async fn asked(&mut self) -> Option<Ask> {
        self.inbox.recv().await
    }

    /// One that waits already.
    pub(crate) fn next_ask(&mut self) -> Option<Ask> {
        self.inbox.try_recv().ok()
    }

    pub(crate) fn tun_name(&self) -> &str {
        self.tun.name()
    }

    /// The address that peers reach this terminal at.
    pub(crate) fn listens(&self) -> Option<String> {
        self.wire.local_address().ok().map(|it| it.to_string())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Tells the threads what has changed in the machine; what the machine has to be asked for.
    pub(crate) fn refresh(&mut self, terminal: &Terminal) -> Vec<Order> {
        let mut orders = Vec::new();
        let now = Instant::now();
        let own = own_record(terminal);
        if self.record.as_deref() != own {
            self.record = own.cloned().map(Arc::new);
            self.ingress.put(ToIngress::OwnRecord(self.record.clone()));
        }
        let named: Vec<_> = own.map_or_else(Vec::new, |own| {
            own.groups.iter().map(|group| group.group).collect()
        });
        for group in own.iter().flat_map(|own| &own.groups) {
            let sending = self.groups.entry(group.group).or_default();
            sending.follow_suite(group.suite, now);
        }
        for (&number, sending) in &mut self.groups {
            let key = terminal
                .send_key(number)
                .filter(|_| named.contains(&number));
            let egress = &self.egress;
            let Some(key) = key else {
                let reason = if named.contains(&number) {
                    terminal.why_not_sending(number)
                } else {
                    DropReason::NoRecord
                };
                let tell = if waits(reason) {
                    Told::Hold
                } else {
                    Told::Refuse(reason)
                };
                for lane in egress.each() {
                    if !sending.speaks(lane) || sending.told(lane) == tell {
                        continue;
                    }
                    sending.tell(lane, tell);
                    let order = match tell {
                        Told::Refuse(reason) => ToEgress::Refuse {
                            group: number,
                            reason,
                        },
                        Told::Hold | Told::Nothing | Told::Key(..) => {
                            ToEgress::Hold { group: number }
                        }
                    };
                    egress.put(lane, order);
                }
                continue;
            };
            for lane in egress.each() {
                if !sending.speaks(lane) {
                    continue;
                }
                match sending.next(lane, (key.epoch(), key.generation()), now) {
                    Some((place, session)) => {
                        let sender = EspSender::new(sending.suite, key, self.own, session);
                        let (group, sender) = (number, Box::new(sender));
                        let order = match place {
                            Place::InUse => ToEgress::Send { group, sender },
                            Place::Spare => ToEgress::Spare { group, sender },
                        };
                        egress.put(lane, order);
                    }
                    // The first session of a start is not recorded yet.
                    None if sending.told(lane) == Told::Nothing => {
                        sending.tell(lane, Told::Hold);
                        egress.put(lane, ToEgress::Hold { group: number });
                    }
                    None => {}
                }
            }
            if sending.orders() {
                orders.push(Order::OpenPacketSessions { group: number });
            }
        }
        self.forget_stock(terminal);
        orders.extend(self.stock.refresh(terminal));
        orders
    }

    /// A mark of a stock sender is durable; the first one lets it be received.
    pub(crate) fn on_stock_mark(&mut self, spi: PinnedSpi, mark: u32) {
        self.ingress.put(match self.stock.on_marked(spi) {
            Some(known) => ToIngress::Stock(Box::new(known)),
            None => ToIngress::StockMarked { spi, mark },
        });
    }

    /// The suite of that group, and the newest session in it that this terminal sends in.
    pub(crate) fn present(&self, group: GroupNumber) -> (EspSuite, Option<EspSession>) {
        let sending = self.groups.get(&group);
        sending.map_or_else(Default::default, |it| (it.suite, it.given()))
    }

    pub(crate) fn on_sessions(&mut self, group: GroupNumber, sessions: Option<SessionBlock>) {
        self.groups.entry(group).or_default().on_sessions(sessions);
    }

    pub(crate) fn want_spare(&mut self, lane: Lane, group: GroupNumber) {
        self.groups.entry(group).or_default().want_spare(lane);
    }

    /// That thread has packets for the group.
    pub(crate) fn want_session(&mut self, lane: Lane, group: GroupNumber) {
        self.groups.entry(group).or_default().begin(lane);
    }

    /// The machine's answer to [`Ask::Way`].
    pub(crate) fn on_way(&self, lane: Lane, ends: Ends, way: Way, at: impl Fn(Tick) -> Instant) {
        let soon = Instant::now() + DROPPED_FOR;
        let (way, until) = match way {
            Way::Protect {
                group,
                peer,
                endpoint,
                until,
            } => {
                let way = FlowWay::Protect {
                    group,
                    peer: Some(peer),
                    to: endpoint,
                };
                (way, at(until))
            }
            Way::ProtectMulticast { group, until } => {
                let way = FlowWay::Protect {
                    group,
                    peer: None,
                    to: SocketAddr::new(ends.1, self.port),
                };
                (way, at(until))
            }
            Way::Searching => (FlowWay::Searching, soon),
            // The routes lead nothing here that goes in clear.
            Way::Clear => (FlowWay::Drop(DropReason::NoWayThere), soon),
            Way::Drop(reason) => (FlowWay::Drop(reason), soon),
        };
        self.egress.put(lane, ToEgress::Way { ends, way, until });
    }

    /// The next packet asks for it, and so do those that wait.
    pub(crate) fn on_path_found(&self, ends: Ends) {
        self.egress.put_all(|| ToEgress::AskAgain(ends));
    }

    pub(crate) fn on_path_lost(&self, ends: Ends, reason: DropReason) {
        if reason == DropReason::PathExpired {
            self.egress.put_all(|| ToEgress::AskAgain(ends));
            return;
        }
        let way = FlowWay::Drop(reason);
        let until = Instant::now() + DROPPED_FOR;
        self.egress.put_all(|| ToEgress::Way { ends, way, until });
    }

    pub(crate) fn on_ways_changed(&self) {
        self.egress.put_all(|| ToEgress::WaysChanged);
    }

    pub(crate) fn on_peer_changed(&self, terminal: &Terminal, peer: TerminalNumber) {
        self.egress.put_all(|| ToEgress::PeerChanged(peer));
        let record = record_of(terminal, peer);
        let sessions = self.sessions.of(peer);
        let records = sessions.map(|(name, _)| (name, record.clone()));
        self.ingress.put(ToIngress::Records(records.collect()));
        self.ingress.put(ToIngress::AskAgain(peer));
    }

    /// A packet of an unknown session: which key opens it? Its receiver waits here for its first mark.
    ///
    /// # Errors
    /// Why none does.
    pub(crate) fn on_session(
        &mut self,
        terminal: &mut Terminal,
        now: Tick,
        name: SessionName,
        origin: Origin,
        rate: u32,
        sealed: &[u8],
    ) -> Result<Begun, DropReason> {
        if self.sessions.get(name).is_some() {
            return Ok(Begun::default());
        }
        let query = PacketQuery {
            tag: name.spi.tag(),
            sender: name.spi.sender(),
            session: name.session,
            source: source_of(origin.from.ip()),
        };
        let (sender, scratch) = (name.spi.sender(), &mut self.scratch);
        let suites = Suites::of(terminal, sender, &self.groups);
        let opened = terminal.receive_packet(now, query, |key, mark| {
            suites.of_group(key.group()).find_map(|suite| {
                let receiver =
                    |mark| EspReceiver::with_mark(suite, key, sender, name.session, mark);
                let first = First::open(sealed, mark, scratch, receiver)?;
                Some((first, receiver(mark), suite, mark))
            })
        });
        self.scratch[..sealed.len()].zeroize();
        match opened {
            Ok(opened) => {
                let (first, receiver, suite, mark) = opened.receiver;
                let (group, under) = (opened.group, (opened.epoch, opened.generation));
                let mut stranger = None;
                let refused = if !opened.is_recorded {
                    // SECURITY: a stranger costs no memory (KR-549).
                    stranger = first.text.packet().map(|inner| Heard {
                        group,
                        key: Some(under),
                        peer: name.spi.sender(),
                        ends: (inner.source, inner.destination),
                        from: origin.from,
                    });
                    Some(match terminal.record_of(name.spi.sender()) {
                        Some(_) => DropReason::NotInRecord,
                        None => DropReason::UnknownPeer,
                    })
                } else if first.is_below {
                    // It may have been delivered before a restart of this terminal. The answer is
                    // shorter than any packet.
                    let (refused, now) = ((name, origin.from.ip()), Instant::now());
                    let sending = self.groups.get(&group);
                    if first.text.packet().is_some()
                        && is_answered(sending, &mut self.answered, refused, now)
                    {
                        let refused = ToEgress::Refused {
                            group,
                            to: origin.from,
                            session: name.session,
                        };
                        self.egress.put(Lane::FIRST, refused);
                    }
                    Some(DropReason::Replayed)
                } else if !is_for(self.own, own_record(terminal), first.text) {
                    Some(DropReason::NotForUs)
                } else {
                    // Who begins anew was restarted, and would refuse the session in use.
                    if self.sessions.begins_anew(name) {
                        self.groups.entry(group).or_default().afresh.want();
                    }
                    self.begin(name, (group, under, suite), (receiver, rate), mark);
                    None
                };
                if let Some(reason) = refused {
                    self.ingress.put(ToIngress::Unknown { name, reason });
                }
                let trial = opened.trial;
                Ok(Begun { trial, stranger })
            }
            Err(reason) => {
                self.ingress.put(ToIngress::Unknown { name, reason });
                Err(reason)
            }
        }
    }

    /// The session after one that is half over, under the same key.
    pub(crate) fn on_next_session(&mut self, terminal: &Terminal, name: SessionName, rate: u32) {
        let next = SessionName {
            session: name.session.next(),
            ..name
        };
        let Some(held) = self.sessions.get(name) else {
            return;
        };
        let (group, under, suite) = (held.group, held.under, held.suite);
        if self.sessions.get(next).is_some() {
            return;
        }
        let sender = name.spi.sender();
        // SECURITY: it may have been heard before a restart; it begins where that ended (KR-557).
        let held = terminal.held_session(group, under, sender, next.session);
        let Ok((key, mark)) = held else {
            return;
        };
        let receiver = EspReceiver::with_mark(suite, key, sender, next.session, mark);
        self.begin(next, (group, under, suite), (receiver, rate), mark);
    }

    fn begin(
        &mut self,
        name: SessionName,
        under: Under,
        (receiver, rate): (EspReceiver, u32),
        mark: u32,
    ) {
        let gone = self.sessions.begin(name, under, (receiver, rate), mark);
        self.tell_forgotten(gone);
    }

    pub(crate) fn on_refused(&mut self, group: GroupNumber, session: EspSession) {
        if let Some(sending) = self.groups.get_mut(&group) {
            sending.on_refused(session);
        }
    }

    pub(crate) fn want_mark(&mut self, name: SessionName, sequence: u32) {
        self.sessions.want_mark(name, sequence);
    }

    pub(crate) fn next_marks(&mut self) -> Vec<Order> {
        self.sessions.next_marks()
    }

    pub(crate) fn on_marks_stored(
        &mut self,
        terminal: &Terminal,
        group: GroupNumber,
        stored: &[PacketMark],
        displaced: &[PacketMark],
    ) {
        let settled = self.sessions.settle(group, stored, displaced);
        let record = |sender| record_of(terminal, sender);
        for order in settled_orders(group, settled, record) {
            self.ingress.put(order);
        }
    }

    /// Keys of a generation that is not held any more go.
    pub(crate) fn on_retired(&mut self, group: GroupNumber, under: (KeyEpoch, Generation)) {
        self.forget(|_, held| (held.group, held.under) == (group, under));
    }

    pub(crate) fn on_removed(&mut self, group: GroupNumber) {
        self.forget(|_, held| held.group == group);
    }

    pub(crate) fn on_excluded(&mut self, terminals: &[TerminalNumber]) {
        self.forget(|name, _| terminals.contains(&name.spi.sender()));
        self.ingress.put(ToIngress::Exclude(terminals.to_vec()));
    }

    /// Once a second: a lease may have ended.
    pub(crate) fn on_second(&mut self, terminal: &Terminal) {
        let own = self.own;
        self.forget(|_, held| terminal.may_receive(held.group, own).is_err());
        self.forget_stock(terminal);
    }

    fn forget_stock(&mut self, terminal: &Terminal) {
        for spi in self.stock.retain(terminal) {
            self.ingress.put(ToIngress::ForgetStock(spi));
        }
    }

    fn forget(&mut self, goes: impl Fn(&SessionName, &Received) -> bool) {
        let gone = self.sessions.forget(goes);
        self.tell_forgotten(gone);
    }

    fn tell_forgotten(&self, gone: Vec<SessionName>) {
        if !gone.is_empty() {
            self.ingress.put(ToIngress::Forget(gone));
        }
    }

    /// The terminal is locked or erased: every key goes, and every packet that waits.
    pub(crate) fn wipe(&mut self) {
        self.sessions.clear();
        self.stock.wipe();
        self.answered = Answered::default();
        for sending in self.groups.values_mut() {
            *sending = Sending::default();
        }
        self.egress.put_all(|| ToEgress::Wipe);
        self.ingress.put(ToIngress::Wipe);
    }

    /// A message of key search, or for a peer.
    pub(crate) fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.wire.send_one(to, datagram)
    }

    pub(crate) fn report(&self) -> Report {
        let flows = self.egress.each().map(|lane| {
            let (told, flows) = sync_channel(1);
            self.egress.put(lane, ToEgress::Report(told));
            flows
        });
        let flows: Vec<_> = flows.collect();
        let (told, sessions) = sync_channel(1);
        self.ingress.put(ToIngress::Report(told));
        Report {
            flows: FlowReport::of_all(
                flows
                    .into_iter()
                    .map(|it| it.recv_timeout(REPORT_LONGEST).unwrap_or_default()),
            ),
            sessions: sessions.recv_timeout(REPORT_LONGEST).unwrap_or_default(),
            drops: self.counts.all().collect(),
        }
    }
}

impl Drop for PacketPath {
    fn drop(&mut self) {
        // A thread that waits for room in the inbox goes on when there is none.
        self.inbox.close();
        self.egress.put_all(|| ToEgress::End);
        for post in std::iter::once(&self.ingress).chain(&self.further) {
            post.put(ToIngress::End);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the packet path failed");
            }
        }
    }
}

/// What the threads tell of themselves.
pub(crate) struct Report {
    pub(crate) flows: Vec<FlowReport>,
    pub(crate) sessions: Vec<SessionReport>,
    pub(crate) drops: Vec<(DropReason, u64)>,
}

/// What the threads hear of stored marks: nothing that would let them take their locks in vain.
fn settled_orders(
    group: GroupNumber,
    settled: Settled,
    record: impl Fn(TerminalNumber) -> Option<Arc<ProtectionRecord>>,
) -> Vec<ToIngress> {
    let Settled {
        begun,
        raised,
        refused,
    } = settled;
    let known = begun.into_iter();
    let known = known.map(|(name, (receiver, rate), mark)| KnownSession {
        name,
        group,
        receiver,
        mark,
        rate,
        record: record(name.spi.sender()),
    });
    let known: Vec<_> = known.collect();
    let mut orders = Vec::new();
    if !known.is_empty() {
        orders.push(ToIngress::Known(known));
    }
    if !raised.is_empty() {
        orders.push(ToIngress::Marked(raised));
    }
    if !refused.is_empty() {
        let reason = DropReason::RefusedSession;
        let unknown = |&name| ToIngress::Unknown { name, reason };
        orders.extend(refused.iter().map(unknown));
        orders.push(ToIngress::Forget(refused));
    }
    orders
}

/// Both ends for so many threads.
fn posts<T>(count: usize) -> io::Result<Vec<(Post<T>, Mailbox<T>)>> {
    (0..count).map(|_| post::open()).collect()
}

/// Whether packets wait for the reason to pass (REQUIREMENTS R-080), or go nowhere.
fn waits(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::Stopped | DropReason::NotActive | DropReason::NewerEpoch | DropReason::NoBeacon
    )
}

fn own_record(terminal: &Terminal) -> Option<&ProtectionRecord> {
    terminal.own_record().map(|signed| signed.record())
}

fn record_of(terminal: &Terminal, peer: TerminalNumber) -> Option<Arc<ProtectionRecord>> {
    terminal.record_of(peer).cloned().map(Arc::new)
}

/// Whether what is refused is answered. Just after a start it cannot be said yet: it is counted as said only
/// where the thread that says it has a session.
fn is_answered(
    sending: Option<&Sending>,
    answered: &mut Answered,
    (name, from): (SessionName, IpAddr),
    now: Instant,
) -> bool {
    sending.is_some_and(|it| it.sends(Lane::FIRST)) && answered.may_tell(name, from, now)
}

/// Who stands between two others can feed a third the packets of each.
fn is_for(own: TerminalNumber, record: Option<&ProtectionRecord>, text: Text) -> bool {
    match text {
        Text::Packet(inner) => {
            let to = inner.destination;
            to.is_multicast() || record.is_some_and(|own| own.speaks_for(to))
        }
        Text::Place(to) => to == own,
        Text::Nothing => true,
    }
}

/// For a budget: one host, or one /64.
pub(super) fn source_of(address: IpAddr) -> Source {
    match address {
        IpAddr::V4(address) => Source::from(address.to_bits()),
        IpAddr::V6(address) => (address.to_bits() >> 64) as Source,
    }
}

/// A thread runs to its end; where that is none it was told of, the driver hears why.
fn say_why(run: impl FnOnce() -> io::Result<()>, does: &str, asks: &mpsc::Sender<Ask>) {
    // What the thread had is gone with it, whichever way it ended.
    let why = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "this is a defect, please report it".to_owned(),
    };
    let sentence = format!("the thread that {does} packets has ended: {why}");
    drop(asks.blocking_send(Ask::Ended { sentence }));
}

/// Questions that wait for the driver.
const ASKS_MAX: usize = 1_024;
/// After it a flow that goes nowhere asks again.
const DROPPED_FOR: Duration = Duration::from_secs(1);
/// A thread answers in microseconds, between two batches.
const REPORT_LONGEST: Duration = Duration::from_millis(200);
const SCRATCH: usize = 65_536;

#[cfg(test)]
mod tests;
