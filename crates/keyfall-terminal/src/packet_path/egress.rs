//! The thread that sends: TUN → ESP → UDP.
//!
//! It holds senders, never a master key. What it does not know it asks the driver, and the packet waits.
//! Where there are several of it (see `lanes`), each has its own senders and flows.
//! Each says where this terminal is to those that it speaks to.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use keyfall_plane::{
    ESP_PLACE_LEN, ESP_REFUSAL_LEN, ESP_SEQUENCE_MAX, EspSender, SealRefused, esp_len,
};
use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};
use tokio::sync::mpsc::Sender;
use zeroize::{Zeroize as _, Zeroizing};

use crate::packet_path::counts::Counts;
use crate::packet_path::cut::Cut;
use crate::packet_path::flows::{Ends, Flow, FlowWay, Flows};
use crate::packet_path::head::WHOLE;
use crate::packet_path::here::{Due, Here, Peer, Spoken, source_towards};
use crate::packet_path::inner::Inner;
use crate::packet_path::keyed_hash::KeyedHash;
use crate::packet_path::lanes::Lane;
use crate::packet_path::path_mtu::PathMtus;
use crate::packet_path::post::Mailbox;
use crate::packet_path::too_big::too_big;
use crate::packet_path::tun::Tun;
use crate::packet_path::waiting::Waiting;
use crate::packet_path::wire::{Batch, Wire};
use crate::packet_path::{Ask, FlowReport};

/// What the driver tells this thread.
pub(super) enum ToEgress {
    /// From now on the group's packets go under this key.
    Send {
        group: GroupNumber,
        sender: Box<EspSender>,
    },
    /// For the same key, after the one in use.
    Spare {
        group: GroupNumber,
        sender: Box<EspSender>,
    },
    /// The group's packets wait: a STOP, or a key whose time has not come.
    Hold {
        group: GroupNumber,
    },
    /// The group's packets go nowhere; its keys are gone.
    Refuse {
        group: GroupNumber,
        reason: DropReason,
    },
    Way {
        ends: Ends,
        way: FlowWay,
        until: Instant,
    },
    /// There is a way now.
    AskAgain(Ends),
    /// Where that peer is may have changed, or what it may get.
    PeerChanged(TerminalNumber),
    WaysChanged,
    /// Packets of that session of the group, from there, are not delivered.
    Refused {
        group: GroupNumber,
        to: SocketAddr,
        session: EspSession,
    },
    Report(SyncSender<Vec<FlowReport>>),
    /// Every key and every packet goes.
    Wipe,
    End,
}

pub(super) struct Egress {
    lane: Lane,
    pub(super) tun: Arc<Tun>,
    pub(super) wire: Arc<Wire>,
    pub(super) orders: Mailbox<ToEgress>,
    pub(super) asks: Sender<Ask>,
    pub(super) counts: Arc<Counts>,
    flows: Flows,
    groups: HashMap<GroupNumber, Outgoing, KeyedHash>,
    paths: PathMtus,
    here: Here,
    batch: Batch,
    waiting: Waiting<Ends>,
    /// Something that packets wait for has come.
    try_again: bool,
    /// The last packets that were read go, too.
    wiped: bool,
    now: Instant,
}

/// How a group's packets go out.
enum Outgoing {
    Open {
        sender: Box<EspSender>,
        spare: Option<Box<EspSender>>,
        spare_asked: bool,
    },
    Held,
    Refused(DropReason),
}

/// What a dummy packet says.
enum Word {
    /// To that terminal: where this one is.
    Place(TerminalNumber),
    /// Packets of that session are not delivered.
    Refused(EspSession),
}

/// Packets of one flow.
trait Packets {
    /// All of them, the next first.
    fn whole(&self) -> &[u8];
    fn next_len(&self) -> Option<usize>;
    fn take_next(&mut self) -> Option<&[u8]>;
}

impl Packets for Cut<'_> {
    fn whole(&self) -> &[u8] {
        self.headers()
    }

    fn next_len(&self) -> Option<usize> {
        Cut::next_len(self)
    }

    fn take_next(&mut self) -> Option<&[u8]> {
        Cut::take_next(self)
    }
}

/// One that waited.
impl Packets for Option<&[u8]> {
    fn whole(&self) -> &[u8] {
        self.unwrap_or_default()
    }

    fn next_len(&self) -> Option<usize> {
        self.map(<[u8]>::len)
    }

    fn take_next(&mut self) -> Option<&[u8]> {
        self.take()
    }
}

/// What became of packets; of [`Fate::Waits`] and [`Fate::Dropped`] it is those that are left.
enum Fate {
    Gone,
    Waits,
    Dropped(DropReason),
}

impl Egress {
    pub(super) fn new(
        lane: Lane,
        tun: Arc<Tun>,
        wire: Arc<Wire>,
        orders: Mailbox<ToEgress>,
        asks: Sender<Ask>,
        counts: Arc<Counts>,
        keepalive: Option<Duration>,
    ) -> Self {
        Self {
            lane,
            tun,
            wire,
            orders,
            asks,
            counts,
            flows: Flows::default(),
            groups: HashMap::default(),
            paths: PathMtus::default(),
            here: Here::new(keepalive),
            batch: Batch::default(),
            waiting: Waiting::new(WAITING_MAX, WAIT_LONGEST),
            try_again: false,
            wiped: false,
            now: Instant::now(),
        }
    }

    /// Until [`ToEgress::End`], or the interface is gone.
    pub(super) fn run(mut self) -> io::Result<()> {
        let tun = Arc::clone(&self.tun);
        let mut buffer = Tun::buffer();
        let mut next_second = self.now + SECOND;
        loop {
            for _ in 0..READS_MAX {
                match tun.read(&mut buffer) {
                    Ok(Some(cut)) => self.on_packets(cut),
                    Ok(None) => self.counts.add(DropReason::Malformed, 1),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.flush();
                        self.orders.wait(&*tun)?;
                        break;
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            self.now = Instant::now();
            if !self.take_orders() {
                self.flush();
                return Ok(());
            }
            if std::mem::take(&mut self.wiped) {
                // SECURITY: they lie there as they were read (KR-588).
                buffer.zeroize();
            }
            if self.try_again {
                self.try_waiting();
            }
            if self.now >= next_second {
                next_second = self.now + SECOND;
                self.flows.expire(self.now);
                let counts = &self.counts;
                let gone = &mut |_| counts.add(DropReason::StopQueue, 1);
                self.waiting.expire(self.now, gone);
                self.say_here();
            }
        }
    }

    /// Peers that were spoken to lately hear where this terminal is now.
    fn say_here(&mut self) {
        let spoken_to = self
            .flows
            .iter()
            .filter_map(|(&ends, flow)| match flow.way {
                FlowWay::Protect {
                    group,
                    peer: Some(terminal),
                    to,
                } => {
                    let used = flow.used;
                    let spoken = Spoken {
                        terminal,
                        ends,
                        used,
                    };
                    Some(((group, to), spoken))
                }
                FlowWay::Protect { .. } | FlowWay::Searching | FlowWay::Drop(_) => None,
            });
        let due = self.here.due(spoken_to, self.now, source_towards);
        for Due {
            peer,
            terminal,
            instead_of,
        } in due
        {
            let goes_there = instead_of.is_none_or(|ends| self.goes_to(ends, peer));
            if goes_there && self.say(peer, Word::Place(terminal)) {
                self.here.said(peer, self.now);
            }
        }
        self.flush();
    }

    /// Whether a packet between these addresses would go to that peer now; where that is to be asked
    /// again, it is.
    fn goes_to(&mut self, ends: Ends, there: Peer) -> bool {
        let Some((flow, ask)) = self.flows.find(ends, self.now) else {
            return false;
        };
        let lane = self.lane;
        if ask && self.asks.try_send(Ask::Way { lane, ends }).is_err() {
            flow.asked_not();
        }
        matches!(flow.way, FlowWay::Protect { group, to, .. } if (group, to) == there)
    }

    /// False where the group's packets wait, or go nowhere.
    fn say(&mut self, (group, to): Peer, word: Word) -> bool {
        self.flush();
        let Some(Outgoing::Open { sender, .. }) = self.groups.get_mut(&group) else {
            return false;
        };
        let sealed = match word {
            Word::Refused(session) => self
                .batch
                .slot(to, ESP_REFUSAL_LEN)
                .map(|slot| sender.seal_refusal(session, slot)),
            Word::Place(terminal) => self
                .batch
                .slot(to, ESP_PLACE_LEN)
                .map(|slot| sender.seal_place(terminal, slot)),
        };
        let Some(Ok(size)) = sealed else {
            return false;
        };
        self.batch.add(to, size);
        true
    }

    /// False at the end.
    fn take_orders(&mut self) -> bool {
        let orders: Vec<_> = self.orders.take().collect();
        if !orders.is_empty() {
            // What was sealed under the key before goes before.
            self.flush();
        }
        for order in orders {
            match order {
                ToEgress::Send { group, sender } => {
                    let open = Outgoing::Open {
                        sender,
                        spare: None,
                        spare_asked: false,
                    };
                    self.groups.insert(group, open);
                    self.try_again = true;
                }
                ToEgress::Spare { group, sender } => self.on_spare(group, sender),
                ToEgress::Hold { group } => {
                    self.groups.insert(group, Outgoing::Held);
                }
                ToEgress::Refuse { group, reason } => {
                    self.groups.insert(group, Outgoing::Refused(reason));
                    self.try_again = true;
                }
                ToEgress::Way { ends, way, until } => {
                    self.flows.set(ends, way, until);
                    self.try_again |= way != FlowWay::Searching;
                }
                ToEgress::AskAgain(ends) => {
                    self.flows.ask_again(self.now, |it, _| *it == ends);
                    self.try_again = true;
                }
                ToEgress::PeerChanged(changed) => self.flows.ask_again(self.now, |_, way| {
                    let FlowWay::Protect { peer, .. } = way else {
                        return true;
                    };
                    *peer == Some(changed)
                }),
                ToEgress::WaysChanged => self.flows.ask_again(self.now, |_, _| true),
                ToEgress::Refused { group, to, session } => {
                    // It can be said: the driver asks for it only where this thread was given a session.
                    self.say((group, to), Word::Refused(session));
                }
                ToEgress::Report(to) => drop(to.try_send(self.report())),
                ToEgress::Wipe => {
                    self.groups.clear();
                    self.here.clear();
                    self.flows.clear();
                    self.waiting.take();
                    self.wiped = true;
                }
                ToEgress::End => return false,
            }
        }
        true
    }

    fn on_spare(&mut self, group: GroupNumber, sender: Box<EspSender>) {
        match self.groups.get_mut(&group) {
            Some(Outgoing::Open {
                sender: current,
                spare,
                ..
            }) if current.source() == sender.source() => {
                *spare = Some(sender);
                self.try_again = true;
            }
            // The key has changed meanwhile: the spare belonged to the one before.
            Some(Outgoing::Open { .. } | Outgoing::Held | Outgoing::Refused(_)) | None => {}
        }
    }

    /// What one read brought: packets of one flow.
    fn on_packets(&mut self, mut cut: Cut<'_>) {
        let Some(inner) = Inner::read(cut.headers()) else {
            self.counts.add(DropReason::Malformed, 1);
            return;
        };
        let ends = (inner.source, inner.destination);
        match self.pass(ends, &mut cut) {
            Fate::Gone => {}
            Fate::Waits => {
                while let Some(packet) = cut.take_next() {
                    let packet = packet.to_vec().into();
                    self.keep(self.now, ends, packet);
                }
            }
            Fate::Dropped(reason) => self.counts.add(reason, cut.left()),
        }
    }

    /// Seals packets of one flow, as many as there is a way and a key for.
    fn pass(&mut self, ends: Ends, packets: &mut impl Packets) -> Fate {
        let Some((flow, ask)) = self.flows.find(ends, self.now) else {
            return Fate::Dropped(DropReason::SearchQueue);
        };
        let lane = self.lane;
        if ask && self.asks.try_send(Ask::Way { lane, ends }).is_err() {
            flow.asked_not();
        }
        let (group, to) = match flow.way {
            FlowWay::Protect { group, to, peer } => {
                if let Some(length) = packets.next_len().filter(|&it| it > ALWAYS_FITS)
                    && peer.is_some()
                {
                    let fits = self.paths.fits(to, self.now);
                    if length > fits && tell_sender(&self.tun, packets.whole(), length, fits) {
                        return Fate::Dropped(DropReason::TooBig);
                    }
                }
                (group, to)
            }
            FlowWay::Searching if flow.waiting < OF_FLOW_MAX => {
                flow.waiting += 1;
                return Fate::Waits;
            }
            FlowWay::Searching => return Fate::Dropped(DropReason::SearchQueue),
            FlowWay::Drop(reason) => return Fate::Dropped(reason),
        };
        let (sender, spare, spare_asked) = match self.groups.get_mut(&group) {
            Some(Outgoing::Open {
                sender,
                spare,
                spare_asked,
            }) => (sender, spare, spare_asked),
            Some(Outgoing::Held) => return Fate::Waits,
            Some(Outgoing::Refused(reason)) => return Fate::Dropped(*reason),
            None if self.lane == Lane::FIRST => return Fate::Dropped(DropReason::NotHeld),
            None => {
                if self.asks.try_send(Ask::Begin { lane, group }).is_ok() {
                    self.groups.insert(group, Outgoing::Held);
                }
                return Fate::Waits;
            }
        };
        while let Some(length) = packets.next_len() {
            if sender.remaining() == 0 {
                let Some(next) = spare.take() else {
                    return Fate::Waits;
                };
                *sender = next;
                *spare_asked = false;
            }
            let size = esp_len(length);
            if self.batch.slot(to, size).is_none() {
                send(&self.wire, &mut self.batch, &self.counts);
            }
            let Some(slot) = self.batch.slot(to, size) else {
                return Fate::Dropped(DropReason::NotSent);
            };
            let Some(packet) = packets.take_next() else {
                break;
            };
            match sender.seal_from(packet, slot) {
                Ok(size) => {
                    self.batch.add(to, size);
                    flow.packets += 1;
                    flow.octets += length as u64;
                }
                Err(SealRefused::NotIp | SealRefused::NoRoom | SealRefused::NewSession) => {
                    self.counts.add(DropReason::Malformed, 1);
                }
            }
        }
        if sender.remaining() < ESP_SEQUENCE_MAX / 2 && !*spare_asked {
            // The next session is there long before it is needed.
            *spare_asked = self.asks.try_send(Ask::Spare { lane, group }).is_ok();
        }
        Fate::Gone
    }

    fn keep(&mut self, since: Instant, ends: Ends, packet: Zeroizing<Vec<u8>>) {
        let counts = &self.counts;
        let gone = &mut |_| counts.add(DropReason::StopQueue, 1);
        self.waiting.push(since, ends, packet, gone);
    }

    /// What waited goes out in its order, or waits on.
    fn try_waiting(&mut self) {
        self.try_again = false;
        self.flows.none_wait();
        for (since, ends, packet) in self.waiting.take() {
            let mut one = Some(packet.as_slice());
            match self.pass(ends, &mut one) {
                Fate::Gone => {}
                Fate::Waits => self.keep(since, ends, packet),
                Fate::Dropped(reason) => self.counts.add(reason, 1),
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        send(&self.wire, &mut self.batch, &self.counts);
    }

    fn report(&self) -> Vec<FlowReport> {
        let mut flows: Vec<_> = self.flows.iter().collect();
        // The busiest are told; thousands would not be read.
        flows.sort_unstable_by_key(|(_, flow)| std::cmp::Reverse(flow.octets));
        flows.truncate(REPORTED_MAX);
        let report = |(&ends, flow): (&Ends, &Flow)| FlowReport {
            ends,
            way: flow.way,
            under: self.under(flow),
            packets: flow.packets,
            octets: flow.octets,
        };
        flows.into_iter().map(report).collect()
    }

    fn under(&self, flow: &Flow) -> Option<(KeyEpoch, Generation)> {
        let FlowWay::Protect { group, .. } = flow.way else {
            return None;
        };
        match self.groups.get(&group)? {
            Outgoing::Open { sender, .. } => Some(sender.source()),
            Outgoing::Held | Outgoing::Refused(_) => None,
        }
    }
}

/// Whether the sender was told that its packet is too long for the way there; else that goes in
/// fragments.
fn tell_sender(tun: &Tun, packet: &[u8], length: usize, fits: usize) -> bool {
    let Some(error) = too_big(packet, length, fits) else {
        return false;
    };
    tun.write(&mut [&WHOLE[..], &error].concat()).is_ok()
}

fn send(wire: &Wire, batch: &mut Batch, counts: &Counts) {
    if wire.send(batch).is_err() {
        counts.add(DropReason::NotSent, 1);
    }
}

/// Reads between two looks at the orders.
const READS_MAX: usize = 64;
/// The least IPv4 packet that every link carries, 576 octets, less the headers: nothing is asked.
const ALWAYS_FITS: usize = 508;
/// Octets that wait: a second at 64 Mbit/s, four seconds of speech for a hundred.
const WAITING_MAX: usize = 8 << 20;
/// A STOP may last so long that TCP survives it (REQUIREMENTS R-080).
const WAIT_LONGEST: Duration = Duration::from_secs(10);
/// Packets of one flow that wait for a search.
const OF_FLOW_MAX: u16 = 64;
const REPORTED_MAX: usize = 256;
const SECOND: Duration = Duration::from_secs(1);
