//! A thread that receives: UDP → ESP → TUN. There may be several, each with a socket of its own.
//!
//! It holds receivers, never a master key. Of a session that it does not know it asks the driver, and
//! the packet waits, still sealed. A packet above its session's durable mark waits, opened, until a
//! higher mark is durable.

mod orders;
#[cfg(test)]
mod tests;

use std::io::{self, ErrorKind};
use std::iter::Peekable;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyfall_plane::{EspArrival, EspRefused};
use keyfall_protocol::DropReason;
use keyfall_protocol::ids::TerminalNumber;
use tokio::sync::mpsc::Sender;

use crate::packet_path::counts::Counts;
use crate::packet_path::engine::source_of;
use crate::packet_path::flows::Ends;
use crate::packet_path::inner::Inner;
use crate::packet_path::join::Join;
use crate::packet_path::lanes::Lane;
use crate::packet_path::post::Mailbox;
use crate::packet_path::receiving::{Receiving, SessionCell};
use crate::packet_path::session::{Session, TOLD_MAX, judge, look_ahead};
use crate::packet_path::stock::{OpenedStock, StockReceivers};
use crate::packet_path::unknown::{Sealed, Unknown};
use crate::packet_path::wire::{Arrivals, Origin, Wire};
use crate::packet_path::{Ask, SessionName};

pub(super) use orders::{KnownSession, ToIngress};

/// Where packets that came go.
pub(super) trait Inside {
    /// What [`Join`] made.
    fn write(&self, counts: &Counts, octets: &mut [u8]);

    /// Whether joined packets are still taken.
    fn joins(&self) -> bool;
}

pub(super) struct Ingress<T> {
    lane: Lane,
    inside: T,
    join: Join,
    wire: Arc<Wire>,
    orders: Mailbox<ToIngress>,
    asks: Sender<Ask>,
    /// What the driver has to hear, if need be after a wait: it is told when no lock is held.
    owed: Vec<Ask>,
    counts: Arc<Counts>,
    /// As many have reached this thread.
    wipes: u32,
    own: TerminalNumber,
    receiving: Arc<Receiving>,
    now: Instant,
}

/// What a datagram carries.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Carried {
    Nothing,
    /// Of key search, or what a peer hands on.
    Message,
    /// A packet of a session.
    Sealed(SessionName),
    /// One of a stock sender.
    Stock,
    Unknown,
}

type Datagram<'a> = (Origin, &'a [u8]);

impl<T: Inside> Ingress<T> {
    pub(super) fn new(
        lane: Lane,
        inside: T,
        join: Join,
        wire: Arc<Wire>,
        orders: Mailbox<ToIngress>,
        asks: Sender<Ask>,
        receiving: Arc<Receiving>,
    ) -> Self {
        Self {
            lane,
            inside,
            join,
            wire,
            orders,
            asks,
            owed: Vec::new(),
            counts: receiving.counts(),
            wipes: 0,
            own: receiving.own(),
            receiving,
            now: Instant::now(),
        }
    }

    /// Until [`ToIngress::End`], the socket is gone, or another thread has ended.
    pub(super) fn run(mut self) -> io::Result<()> {
        let _ends_all = self.receiving.take_part();
        let wire = Arc::clone(&self.wire);
        let mut arrivals = Arrivals::default();
        let mut next_second = self.now + SECOND;
        loop {
            match wire.receive(&mut arrivals) {
                Ok(()) => self.on_datagrams(arrivals.datagrams()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.orders.wait(&*wire)?,
                // An ICMP error about what was sent before, or somebody's `ss -K`.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::Interrupted
                            | ErrorKind::ConnectionRefused
                            | ErrorKind::ConnectionAborted
                    ) => {}
                Err(error) => return Err(error),
            }
            self.now = Instant::now();
            let ends = !self.take_orders();
            if !self.heed() || ends {
                return Ok(());
            }
            if self.lane == Lane::FIRST && self.now >= next_second {
                next_second = self.now + SECOND;
                self.receiving.on_second(self.now);
            }
        }
    }

    /// What concerns every thread. False at the end.
    fn heed(&mut self) -> bool {
        let wipes = self.receiving.wipes();
        if self.wipes != wipes {
            self.wipes = wipes;
            // SECURITY: the last packets lie there, opened (KR-588).
            self.join.wipe();
        }
        !self.receiving.is_over()
    }

    fn on_datagrams<'a>(&mut self, datagrams: impl Iterator<Item = Datagram<'a>>) {
        let mut rest = datagrams.peekable();
        while let Some((origin, datagram)) = rest.next() {
            match Carried::read(datagram) {
                Carried::Nothing => {}
                Carried::Message => {
                    let ask = Ask::Message {
                        origin,
                        datagram: datagram.to_vec(),
                    };
                    // Anybody can send these: sessions that begin have the other half.
                    let has_room = self.asks.capacity() > self.asks.max_capacity() / 2;
                    if !has_room || self.asks.try_send(ask).is_err() {
                        self.counts.add(DropReason::SearchQueue, 1);
                    }
                }
                Carried::Sealed(name) => self.on_session(name, (origin, datagram), &mut rest),
                Carried::Stock => self.on_stock(datagram, &mut rest),
                Carried::Unknown => self.counts.add(DropReason::NotEsp, 1),
            }
            self.tell_owed();
        }
    }

    /// The driver's inbox is full only when it has no time: it is waited for. Whoever calls this holds no
    /// lock.
    fn tell_owed(&mut self) {
        for ask in self.owed.drain(..) {
            drop(self.asks.blocking_send(ask));
        }
    }

    /// A packet of a session, and those of the same one that follow it in `rest`.
    fn on_session<'a>(
        &mut self,
        name: SessionName,
        (origin, sealed): Datagram<'a>,
        rest: &mut Peekable<impl Iterator<Item = Datagram<'a>>>,
    ) {
        while let Some(cell) = self.find(name, origin, sealed) {
            let mut session = cell.lock();
            let Some(session) = &mut *session else {
                // It has gone just now.
                continue;
            };
            self.receive(session, name, origin, sealed);
            let next = |rest: &mut Peekable<_>| {
                rest.next_if(|&(_, it): &Datagram<'_>| Carried::read(it) == Carried::Sealed(name))
            };
            while let Some((origin, sealed)) = next(rest) {
                self.receive(session, name, origin, sealed);
            }
            look_ahead(session, name, &mut self.owed, self.now);
            cell.note_rate(session.ahead.rate());
            self.flush();
            return;
        }
    }

    /// `None`: the packet waits until the session is known, or goes.
    fn find(
        &mut self,
        name: SessionName,
        origin: Origin,
        sealed: &[u8],
    ) -> Option<Arc<SessionCell>> {
        let found = self.receiving.find(name);
        if found.is_some() {
            return found;
        }
        if name.spi.sender() == self.own {
            self.counts.add(DropReason::OwnPacket, 1);
            return None;
        }
        let receiving = Arc::clone(&self.receiving);
        let mut unknown = receiving.unknown();
        // It may have begun meanwhile, and what waited for it was delivered.
        let found = receiving.find(name);
        if found.is_none() {
            self.on_unknown(&mut unknown, name, origin, sealed);
        }
        found
    }

    fn receive(&mut self, session: &mut Session, name: SessionName, origin: Origin, sealed: &[u8]) {
        if let Err(reason) = self.open(session, name, origin, sealed) {
            self.counts.add(reason, 1);
        }
    }

    fn open(
        &mut self,
        session: &mut Session,
        name: SessionName,
        origin: Origin,
        sealed: &[u8],
    ) -> Result<(), DropReason> {
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
                    let place = (to, sealed);
                    if let Some((ends, from)) = session.on_place(name, place, at, &mut self.owed)? {
                        self.tell(session, name, ends, from);
                    }
                } else if let EspRefused::Refusal(refused) = refused {
                    look_ahead(session, name, &mut self.owed, self.now);
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
        let judged = judge(session, origin.from, &slot[..length]);
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
            self.deliver(length);
        } else {
            let packet = slot[..length].to_vec();
            self.join.give_up();
            let counts = &self.counts;
            let gone = &mut |_| counts.add(DropReason::Held, 1);
            session.opened.push(self.now, sequence, packet, gone);
        }
        if let Some((ends, from)) = news {
            self.tell(session, name, ends, from);
        }
        Ok(())
    }

    /// A packet of a stock sender, and those of others that follow it in `rest`.
    fn on_stock<'a>(
        &mut self,
        sealed: &[u8],
        rest: &mut Peekable<impl Iterator<Item = Datagram<'a>>>,
    ) {
        let receiving = Arc::clone(&self.receiving);
        let mut stock = receiving.stock();
        self.receive_stock(&mut stock, sealed);
        while let Some((_, sealed)) = rest.next_if(|&(_, it)| Carried::read(it) == Carried::Stock) {
            self.receive_stock(&mut stock, sealed);
        }
        self.flush();
    }

    fn receive_stock(&mut self, stock: &mut StockReceivers, sealed: &[u8]) {
        let opened = stock.open(sealed, self.join.slot(), self.now);
        match opened {
            Ok(OpenedStock { deliver, mark }) => {
                match deliver {
                    Some(length) => self.deliver(length),
                    None => self.join.give_up(),
                }
                if let Some((spi, mark)) = mark {
                    self.owed.push(Ask::StockMark { spi, mark });
                }
            }
            Err(reason) => {
                self.join.give_up();
                self.counts.add(reason, 1);
            }
        }
    }

    /// The first packet of these addresses: the core learns where the peer is.
    fn tell(&self, session: &mut Session, name: SessionName, ends: Ends, from: SocketAddr) {
        self.receiving.note_place(name.spi.sender(), from.ip());
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

    fn on_unknown(&self, unknown: &mut Unknown, name: SessionName, origin: Origin, sealed: &[u8]) {
        if let Err(reason) = self.ask(unknown, name, origin, sealed) {
            self.counts.add(reason, 1);
        }
    }

    fn ask(
        &self,
        unknown: &mut Unknown,
        name: SessionName,
        origin: Origin,
        sealed: &[u8],
    ) -> Result<(), DropReason> {
        let sender = name.spi.sender();
        let place = origin.from.ip();
        let heard = self.receiving.is_heard_at(sender, place);
        let room = self.asks.try_reserve();
        // What the driver cannot hear of is not tried, and uses up nothing (KR-560).
        if room.is_err() && !unknown.awaits(name) {
            return Err(DropReason::TrialBudget);
        }
        let tried = unknown.wants(name, source_of(place), heard, self.now)?;
        if let Some(room) = room.ok().filter(|_| tried) {
            room.send(Ask::Session {
                name,
                origin,
                // After a change of keys it goes on as fast as before.
                rate: self.receiving.rate_of(sender),
                sealed: sealed.to_vec(),
            });
        }
        let counts = &self.counts;
        let gone = &mut |_| counts.add(DropReason::Held, 1);
        let what = Sealed {
            name,
            origin,
            tried,
        };
        unknown.keep(self.now, what, sealed.to_vec(), gone);
        Ok(())
    }

    /// What was opened into the slot of `join` is so long.
    fn deliver(&mut self, length: usize) {
        let (inside, counts) = (&self.inside, &self.counts);
        self.join
            .push(length, &mut |octets| inside.write(counts, octets));
    }

    fn flush(&mut self) {
        let (inside, counts) = (&self.inside, &self.counts);
        self.join.flush(&mut |octets| inside.write(counts, octets));
        if !inside.joins() {
            self.join.never_join();
        }
    }
}

impl Carried {
    #[inline]
    fn read(datagram: &[u8]) -> Self {
        if datagram == KEEPALIVE {
            return Self::Nothing;
        }
        if datagram.starts_with(&NON_ESP_MARKER) {
            return Self::Message;
        }
        match EspArrival::read(datagram) {
            Ok(arrival) => Self::Sealed(SessionName {
                spi: arrival.spi,
                session: arrival.session,
            }),
            Err(EspRefused::Pinned) => Self::Stock,
            Err(_) => Self::Unknown,
        }
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
const SECOND: Duration = Duration::from_secs(1);
