//! What the driver orders of those that receive. The first of them carries it out for all; the others are
//! told of the end alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use keyfall_plane::EspReceiver;
use keyfall_protocol::DropReason;
use keyfall_protocol::command::ProtectionRecord;
use keyfall_protocol::ids::{GroupNumber, TerminalNumber};
use keyfall_protocol::keys::PinnedSpi;

use crate::packet_path::ingress::{Ingress, Inside};
use crate::packet_path::lanes::Lane;
use crate::packet_path::session::{Session, look_ahead};
use crate::packet_path::stock::KnownStock;
use crate::packet_path::unknown::Unknown;
use crate::packet_path::{SessionName, SessionReport};

/// What the driver tells the threads that receive.
pub(in crate::packet_path) enum ToIngress {
    /// Sessions, with the marks that are durable.
    Known(Vec<KnownSession>),
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

pub(in crate::packet_path) struct KnownSession {
    pub(in crate::packet_path) name: SessionName,
    pub(in crate::packet_path) group: GroupNumber,
    pub(in crate::packet_path) receiver: EspReceiver,
    pub(in crate::packet_path) mark: u32,
    /// Packets a second that are expected.
    pub(in crate::packet_path) rate: u32,
    /// What its sender's record says, where it is known.
    pub(in crate::packet_path) record: Option<Arc<ProtectionRecord>>,
}

impl<T: Inside> Ingress<T> {
    /// False at the end.
    pub(super) fn take_orders(&mut self) -> bool {
        let orders: Vec<_> = self.orders.take().collect();
        let mut try_sealed = false;
        for order in orders {
            match order {
                ToIngress::Known(known) => self.on_known(known),
                ToIngress::Unknown { name, reason } => {
                    self.receiving.unknown().refused(name, reason, self.now);
                    try_sealed = true;
                }
                ToIngress::Marked(marks) => {
                    for (name, mark) in marks {
                        self.on_marked(name, mark);
                    }
                }
                ToIngress::Forget(names) => self.receiving.forget(names),
                ToIngress::Exclude(terminals) => self.receiving.forget_senders(&terminals),
                ToIngress::Records(sessions) => {
                    for (name, record) in sessions {
                        self.receiving.with(name, |session| {
                            session.records.theirs = record;
                            session.judge_anew();
                        });
                    }
                }
                ToIngress::AskAgain(peer) => self.receiving.unknown().try_anew(peer),
                ToIngress::OwnRecord(record) => self.receiving.set_own_record(record),
                ToIngress::Stock(known) => self.receiving.stock().put(*known, self.now),
                ToIngress::StockMarked { spi, mark } => self.on_stock_marked(spi, mark),
                ToIngress::ForgetStock(spi) => self.receiving.stock().forget(spi),
                ToIngress::Report(to) => drop(to.try_send(self.receiving.report())),
                ToIngress::Wipe => self.receiving.wipe(),
                ToIngress::End => {
                    if self.lane == Lane::FIRST {
                        self.receiving.wipe();
                    }
                    return false;
                }
            }
            self.tell_owed();
        }
        if try_sealed {
            let receiving = Arc::clone(&self.receiving);
            self.try_sealed(&mut receiving.unknown(), &mut HashMap::new());
            self.tell_owed();
        }
        true
    }

    /// What waited for them is delivered before any other thread knows them: nothing overtakes it.
    fn on_known(&mut self, known: Vec<KnownSession>) {
        let receiving = Arc::clone(&self.receiving);
        let mut unknown = receiving.unknown();
        let mut begun = HashMap::new();
        for known in known {
            let name = known.name;
            unknown.begun(name);
            if let Some(session) = receiving.made_of(known, self.now) {
                begun.insert(name, session);
            }
        }
        self.try_sealed(&mut unknown, &mut begun);
        receiving.begin(begun);
    }

    /// What waited for an answer is opened in the sessions that begin, or asked for anew.
    fn try_sealed(&mut self, unknown: &mut Unknown, begun: &mut HashMap<SessionName, Session>) {
        let counts = Arc::clone(&self.counts);
        for (what, packet) in unknown.answered(|reason| counts.add(reason, 1)) {
            let (name, origin) = (what.name, what.origin);
            match begun.get_mut(&name) {
                Some(session) => self.receive(session, name, origin, &packet),
                None => self.on_unknown(unknown, name, origin, &packet),
            }
        }
        for (&name, session) in begun {
            look_ahead(session, name, &mut self.owed, self.now);
        }
        self.flush();
    }

    /// What waited for the mark is delivered, or waits on.
    fn on_marked(&mut self, name: SessionName, mark: u32) {
        let receiving = Arc::clone(&self.receiving);
        receiving.with(name, |session| {
            session.ahead.stored(mark);
            let ahead = &session.ahead;
            for (_, packet) in session.opened.release(|sequence| ahead.covers(sequence)) {
                self.deliver_copy(&packet);
            }
            look_ahead(session, name, &mut self.owed, self.now);
            self.flush();
        });
    }

    fn on_stock_marked(&mut self, spi: PinnedSpi, mark: u32) {
        let receiving = Arc::clone(&self.receiving);
        let mut stock = receiving.stock();
        for packet in stock.marked(spi, mark) {
            self.deliver_copy(&packet);
        }
        self.flush();
    }

    fn deliver_copy(&mut self, packet: &[u8]) {
        self.join.slot()[..packet.len()].copy_from_slice(packet);
        self.deliver(packet.len());
    }
}
