//! The thread that receives: UDP → ESP → TUN.
//!
//! It holds receivers, never a master key. Of a session that it does not know it asks the driver, and
//! the packet waits, still sealed. A packet above its session's durable mark waits, opened, until a
//! higher mark is durable.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use keyfall_plane::{EspArrival, EspReceiver, EspRefused};
use keyfall_protocol::DropReason;
use keyfall_protocol::command::ProtectionRecord;
use keyfall_protocol::ids::{GroupNumber, TerminalNumber};
use keyfall_protocol::keys::PinnedSpi;
use tokio::sync::mpsc::Sender;

use crate::packet_path::ahead::Ahead;
use crate::packet_path::counts::Counts;
use crate::packet_path::engine::source_of;
use crate::packet_path::flows::Ends;
use crate::packet_path::inner::Inner;
use crate::packet_path::join::Join;
use crate::packet_path::lanes::Queues;
use crate::packet_path::post::Mailbox;
use crate::packet_path::session::{
    Receiving, Session, TOLD_MAX, between_before, judge, look_ahead, tell,
};
use crate::packet_path::stock::{KnownStock, OpenedStock, StockReceivers};
use crate::packet_path::unknown::{Sealed, Unknown, WAIT_LONGEST, WAITING_MAX};
use crate::packet_path::waiting::Waiting;
use crate::packet_path::wire::{Arrivals, Origin, Wire};
use crate::packet_path::{Ask, SessionName, SessionReport};

/// What the driver tells this thread.
pub(super) enum ToIngress {
    /// A session, with the mark that is durable.
    Known(Box<KnownSession>),
    /// Nothing of that session opens for now.
    Unknown {
        name: SessionName,
        reason: DropReason,
    },
    /// Higher marks are durable.
    Marked(Vec<(SessionName, u32)>),
    /// These sessions go, as their keys do.
    Forget(Vec<SessionName>),
    /// Nobody listens to these any more.
    Exclude(Vec<TerminalNumber>),
    /// The records of the senders of these sessions.
    Records(Vec<(SessionName, Option<Arc<ProtectionRecord>>)>),
    /// What was refused of that sender is asked for again.
    AskAgain(TerminalNumber),
    OwnRecord(Option<Arc<ProtectionRecord>>),
    /// A stock sender, whose first mark is durable.
    Stock(Box<KnownStock>),
    /// A higher mark of a stock sender is durable.
    StockMarked {
        spi: PinnedSpi,
        mark: u32,
    },
    ForgetStock(PinnedSpi),
    Report(SyncSender<Vec<SessionReport>>),
    /// Every key and every packet goes.
    Wipe,
    End,
}

pub(super) struct KnownSession {
    pub(super) name: SessionName,
    pub(super) group: GroupNumber,
    pub(super) receiver: EspReceiver,
    pub(super) mark: u32,
    /// Packets a second that are expected.
    pub(super) rate: u32,
    /// What its sender's record says, where it is known.
    pub(super) record: Option<Arc<ProtectionRecord>>,
}

pub(super) struct Ingress {
    tun: Queues,
    wire: Arc<Wire>,
    orders: Mailbox<ToIngress>,
    asks: Sender<Ask>,
    counts: Arc<Counts>,
    own: TerminalNumber,
    own_record: Option<Arc<ProtectionRecord>>,
    sessions: Receiving,
    stock: StockReceivers,
    unknown: Unknown,
    /// Where each sender was heard last.
    heard_at: HashMap<TerminalNumber, IpAddr>,
    /// Opened packets above their session's mark.
    opened: Waiting<(SessionName, u32)>,
    join: Join,
    now: Instant,
}

impl Ingress {
    pub(super) fn new(
        tun: Queues,
        join: Join,
        wire: Arc<Wire>,
        orders: Mailbox<ToIngress>,
        asks: Sender<Ask>,
        counts: Arc<Counts>,
        own: TerminalNumber,
    ) -> Self {
        Self {
            join,
            tun,
            wire,
            orders,
            asks,
            own,
            own_record: None,
            sessions: HashMap::default(),
            stock: StockReceivers::new(Arc::clone(&counts)),
            unknown: Unknown::default(),
            heard_at: HashMap::new(),
            opened: Waiting::new(WAITING_MAX, WAIT_LONGEST),
            counts,
            now: Instant::now(),
        }
    }

    /// Until [`ToIngress::End`], or the socket is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        let wire = Arc::clone(&self.wire);
        let mut arrivals = Arrivals::default();
        let mut next_second = self.now + SECOND;
        loop {
            match wire.receive(&mut arrivals) {
                Ok(()) => {
                    for (origin, datagram) in arrivals.datagrams() {
                        self.on_datagram(origin, datagram);
                    }
                    self.flush();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.orders.wait(&*wire)?,
                // An ICMP error about what was sent before.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted | ErrorKind::ConnectionRefused
                    ) => {}
                Err(error) => return Err(error),
            }
            self.now = Instant::now();
            if !self.take_orders() {
                return Ok(());
            }
            if self.now >= next_second {
                next_second = self.now + SECOND;
                self.on_second();
            }
        }
    }

    fn on_datagram(&mut self, origin: Origin, datagram: &[u8]) {
        if datagram == KEEPALIVE {
            return;
        }
        if datagram.starts_with(&NON_ESP_MARKER) {
            let ask = Ask::Message {
                origin,
                datagram: datagram.to_vec(),
            };
            if self.asks.try_send(ask).is_err() {
                self.counts.add(DropReason::SearchQueue, 1);
            }
            return;
        }
        let arrival = match EspArrival::read(datagram) {
            Ok(arrival) => arrival,
            Err(refused) => {
                let opened = if refused == EspRefused::Pinned {
                    self.open_stock(datagram)
                } else {
                    Err(DropReason::NotEsp)
                };
                if let Err(reason) = opened {
                    self.counts.add(reason, 1);
                }
                return;
            }
        };
        let name = SessionName {
            spi: arrival.spi,
            session: arrival.session,
        };
        if let Err(reason) = self.open(name, origin, datagram) {
            self.counts.add(reason, 1);
        }
    }

    fn open(&mut self, name: SessionName, origin: Origin, sealed: &[u8]) -> Result<(), DropReason> {
        let Some(session) = self.sessions.get_mut(&name) else {
            return self.on_unknown(name, origin, sealed);
        };
        if std::mem::take(&mut session.resting) {
            session.heard = self.now;
        }
        let slot = self.join.slot();
        let opened = session.receiver.open_into(sealed, slot);
        let (length, sequence) = match opened {
            Ok(opened) => opened,
            Err(refused) => {
                self.join.give_up();
                if let EspRefused::Place(to) = refused {
                    let at = (origin.from, self.now);
                    let place = (self.own_record.as_deref(), to, sealed);
                    if let Some((ends, from)) = session.on_place(name, place, at, &self.asks)? {
                        self.tell(name, ends, from);
                    }
                } else if let EspRefused::Refusal(refused) = refused {
                    look_ahead(session, name, &self.asks, self.now);
                    if session.may_refuse(self.now) {
                        let (group, session) = (session.group, refused);
                        // Where the driver has no room, the peer says it again: nothing waits for that.
                        drop(self.asks.try_send(Ask::Refused { group, session }));
                    }
                }
                return why(refused).map_or(Ok(()), Err);
            }
        };
        session.heard = self.now;
        let own = self.own_record.as_deref();
        let judged = judge(session, own, origin.from, &slot[..length]);
        let news = match judged {
            Ok(news) => news,
            Err(reason) => {
                // Its record is not here, as after a restart, or an older one: the core searches for it.
                let to_search = matches!(reason, DropReason::UnknownPeer | DropReason::OtherGroup);
                let inner = Inner::read(slot).filter(|_| to_search && session.may_doubt(self.now));
                if let Some(inner) = inner {
                    let ends = (inner.source, inner.destination);
                    drop(
                        self.asks
                            .try_send(session.heard_from(name, ends, origin.from)),
                    );
                }
                self.join.give_up();
                return Err(reason);
            }
        };
        session.packets += 1;
        session.octets += length as u64;
        if session.ahead.covers(sequence) {
            let (tun, counts) = (&self.tun, &self.counts);
            self.join
                .push(length, &mut |octets| tun.write(counts, octets));
        } else {
            let packet = slot[..length].to_vec();
            self.join.give_up();
            let counts = &self.counts;
            let gone = &mut |_| counts.add(DropReason::Held, 1);
            self.opened.push(self.now, (name, sequence), packet, gone);
        }
        look_ahead(session, name, &self.asks, self.now);
        if let Some((ends, from)) = news {
            self.tell(name, ends, from);
        }
        Ok(())
    }

    fn open_stock(&mut self, sealed: &[u8]) -> Result<(), DropReason> {
        let slot = self.join.slot();
        let own = self
            .own_record
            .as_ref()
            .map_or(&[][..], |own| &own.prefixes);
        let opened = self.stock.open(sealed, slot, own, self.now);
        match opened {
            Ok(OpenedStock {
                deliver: Some(length),
                mark,
            }) => {
                let (tun, counts) = (&self.tun, &self.counts);
                self.join
                    .push(length, &mut |octets| tun.write(counts, octets));
                self.want_stock_mark(mark);
                Ok(())
            }
            Ok(OpenedStock {
                deliver: None,
                mark,
            }) => {
                self.join.give_up();
                self.want_stock_mark(mark);
                Ok(())
            }
            Err(reason) => {
                self.join.give_up();
                Err(reason)
            }
        }
    }

    fn want_stock_mark(&self, mark: Option<(PinnedSpi, u32)>) {
        if let Some((spi, mark)) = mark {
            tell(&self.asks, Ask::StockMark { spi, mark });
        }
    }

    /// The first packet of these addresses: the core learns where the peer is.
    fn tell(&mut self, name: SessionName, ends: Ends, from: SocketAddr) {
        let Some(session) = self.sessions.get_mut(&name) else {
            return;
        };
        if self.heard_at.len() >= HEARD_MAX {
            self.heard_at.clear();
        }
        self.heard_at.insert(name.spi.sender(), from.ip());
        if self
            .asks
            .try_send(session.heard_from(name, ends, from))
            .is_ok()
        {
            if session.told.len() >= TOLD_MAX {
                session.told.clear();
            }
            session.told.push((ends, from));
        }
    }

    fn on_unknown(
        &mut self,
        name: SessionName,
        origin: Origin,
        sealed: &[u8],
    ) -> Result<(), DropReason> {
        let sender = name.spi.sender();
        if sender == self.own {
            return Err(DropReason::OwnPacket);
        }
        let place = origin.from.ip();
        let heard = self.heard_at.get(&sender) == Some(&place);
        let tried = self
            .unknown
            .wants(name, source_of(place), heard, self.now)?;
        if tried {
            // After a change of keys it goes on as fast as before.
            let sessions = self.sessions.iter();
            let of_sender = sessions.filter(|(it, _)| it.spi.sender() == sender);
            let rate = of_sender.map(|(_, session)| session.ahead.rate()).max();
            let ask = Ask::Session {
                name,
                origin,
                rate: rate.unwrap_or(0),
                sealed: sealed.to_vec(),
            };
            self.asks
                .try_send(ask)
                .map_err(|_| DropReason::TrialBudget)?;
        }
        let counts = &self.counts;
        let gone = &mut |_| counts.add(DropReason::Held, 1);
        let what = Sealed {
            name,
            origin,
            tried,
        };
        self.unknown.keep(self.now, what, sealed.to_vec(), gone);
        Ok(())
    }

    /// False at the end.
    fn take_orders(&mut self) -> bool {
        let orders: Vec<_> = self.orders.take().collect();
        let mut try_sealed = false;
        let mut try_opened = false;
        for order in orders {
            match order {
                ToIngress::Known(known) => {
                    self.on_known(*known);
                    try_sealed = true;
                }
                ToIngress::Unknown { name, reason } => {
                    self.unknown.refused(name, reason, self.now);
                    try_sealed = true;
                }
                ToIngress::Marked(marks) => {
                    for (name, mark) in marks {
                        if let Some(session) = self.sessions.get_mut(&name) {
                            session.ahead.stored(mark);
                            look_ahead(session, name, &self.asks, self.now);
                        }
                    }
                    try_opened = true;
                }
                ToIngress::Forget(names) => {
                    for name in names {
                        self.sessions.remove(&name);
                    }
                    try_opened = true;
                }
                ToIngress::Exclude(terminals) => {
                    self.sessions
                        .retain(|name, _| !terminals.contains(&name.spi.sender()));
                    try_opened = true;
                }
                ToIngress::Records(sessions) => {
                    for (name, record) in sessions {
                        if let Some(session) = self.sessions.get_mut(&name) {
                            session.record = record;
                            session.judge_anew();
                        }
                    }
                }
                ToIngress::AskAgain(peer) => {
                    self.unknown.try_anew(peer);
                }
                ToIngress::OwnRecord(record) => {
                    self.own_record = record;
                    self.sessions.values_mut().for_each(Session::judge_anew);
                }
                ToIngress::Stock(known) => self.stock.put(*known, self.now),
                ToIngress::StockMarked { spi, mark } => {
                    let (tun, counts) = (&self.tun, &self.counts);
                    for packet in self.stock.marked(spi, mark) {
                        self.join.slot()[..packet.len()].copy_from_slice(&packet);
                        self.join
                            .push(packet.len(), &mut |octets| tun.write(counts, octets));
                    }
                    try_opened = true;
                }
                ToIngress::ForgetStock(spi) => self.stock.forget(spi),
                ToIngress::Report(to) => drop(to.try_send(self.report())),
                ToIngress::Wipe => self.wipe(),
                ToIngress::End => {
                    self.wipe();
                    return false;
                }
            }
        }
        if try_sealed {
            let counts = &self.counts;
            for (what, packet) in self.unknown.answered(|reason| counts.add(reason, 1)) {
                if let Err(reason) = self.open(what.name, what.origin, &packet) {
                    self.counts.add(reason, 1);
                }
            }
        }
        if try_opened {
            self.try_opened();
        }
        if try_sealed || try_opened {
            self.flush();
        }
        true
    }

    fn on_known(&mut self, known: KnownSession) {
        let KnownSession {
            name,
            group,
            receiver,
            mark,
            rate,
            record,
        } = known;
        self.unknown.begun(name);
        // One session has one window for as long as it is known.
        let (now, highest) = (self.now, receiver.highest());
        let between = between_before(&self.sessions, name.spi.sender(), group);
        self.sessions.entry(name).or_insert_with(|| {
            let ahead = Ahead::new(mark, highest, rate, now);
            Session::new(group, (receiver, ahead), record, between, now)
        });
    }

    /// What waited for a mark is delivered, or waits on.
    fn try_opened(&mut self) {
        for (since, (name, sequence), packet) in self.opened.take() {
            let Some(session) = self.sessions.get(&name) else {
                self.counts.add(DropReason::Held, 1);
                continue;
            };
            let (tun, counts) = (&self.tun, &self.counts);
            if session.ahead.covers(sequence) {
                self.join.slot()[..packet.len()].copy_from_slice(&packet);
                self.join
                    .push(packet.len(), &mut |octets| tun.write(counts, octets));
            } else {
                let gone = &mut |_| counts.add(DropReason::Held, 1);
                self.opened.push(since, (name, sequence), packet, gone);
            }
        }
    }

    fn flush(&mut self) {
        let (tun, counts) = (&self.tun, &self.counts);
        self.join.flush(&mut |octets| tun.write(counts, octets));
        if !tun.joins() {
            self.join.never_join();
        }
    }

    fn on_second(&mut self) {
        let now = self.now;
        for session in self.sessions.values_mut() {
            session.on_second(now);
        }
        let counts = &self.counts;
        self.unknown
            .expire(now, &mut |_| counts.add(DropReason::Held, 1));
        self.opened
            .expire(now, &mut |_| counts.add(DropReason::Held, 1));
        self.stock.expire(now);
    }

    fn wipe(&mut self) {
        self.sessions.clear();
        self.stock.wipe();
        self.unknown.clear();
        self.heard_at.clear();
        self.opened.take();
    }

    fn report(&self) -> Vec<SessionReport> {
        let mut sessions: Vec<_> = self.sessions.iter().collect();
        sessions.sort_unstable_by_key(|(_, session)| std::cmp::Reverse(session.octets));
        sessions.truncate(REPORTED_MAX);
        let report = |(&name, session): (&SessionName, &Session)| SessionReport {
            name,
            group: session.group,
            under: session.receiver.source(),
            ends: session.last.map(|(ends, _)| ends),
            packets: session.packets,
            octets: session.octets,
        };
        sessions.into_iter().map(report).collect()
    }
}

/// `None`: it hid that nothing was sent.
pub(super) fn why(refused: EspRefused) -> Option<DropReason> {
    Some(match refused {
        EspRefused::Dummy | EspRefused::Place(_) | EspRefused::Refusal(_) => return None,
        EspRefused::Replayed => DropReason::Replayed,
        EspRefused::TooOld => DropReason::BeforeWindow,
        EspRefused::AuthenticationFailed => DropReason::Authentication,
        EspRefused::NotIp => DropReason::Malformed,
        EspRefused::TooShort
        | EspRefused::ReservedSpi
        | EspRefused::Pinned
        | EspRefused::NotPinned
        | EspRefused::NoSender
        | EspRefused::BadSequence
        | EspRefused::OtherSession
        | EspRefused::NoRoom => DropReason::NotEsp,
    })
}

/// RFC 3948 section 2.3.
const KEEPALIVE: [u8; 1] = [0xff];
/// RFC 3948 section 2.2.
const NON_ESP_MARKER: [u8; 4] = [0; 4];
/// Senders whose place is remembered.
const HEARD_MAX: usize = 16_384;
const REPORTED_MAX: usize = 256;
const SECOND: Duration = Duration::from_secs(1);
