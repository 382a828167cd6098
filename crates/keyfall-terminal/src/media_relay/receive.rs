//! The receive side: SRTP and SRTCP are opened, and plain RTP and RTCP go to a local application.
//!
//! What was heard is remembered for the whole terminal, not for a relay: a packet is delivered once,
//! whichever relay hears it, also when `media receive` is ended and begun again.
//!
//! Marks (FORMATS section 7, "The same for SRTP"): a stream's first mark is durable before its first
//! packet is delivered, and no packet beyond the durable mark is delivered at all. So marks run
//! ahead, by 64 packets or by two seconds at the present rate, and go on every second.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use keyfall_api::control::{ControlError, MediaReceive, Refusal, RelayStatus};
use keyfall_plane::{Arrival, Marks, Refused, SrtpReceiver, SrtpStream, Stretch};
use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick};
use keyfall_protocol::keys::{MasterKey, SrtpSuite};
use keyfall_protocol::terminal::{Mark, Order, ReceiveKey, Terminal, TrafficQuery, Trial};
use tokio::net::UdpSocket;

#[cfg(test)]
mod tests;

use crate::media_relay::counts::Counts;
use crate::media_relay::places::{Interfaces, Place};
use crate::media_relay::{
    Doors, Feed, Port, RelayNumber, kind_of, refused, send_now, stretch_of, suite_of,
};

/// One `media receive`.
pub(super) struct ReceiveRelay {
    number: RelayNumber,
    group: GroupNumber,
    suite: SrtpSuite,
    stretch: Stretch,
    from: Place,
    to: Place,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    out: UdpSocket,
    /// Of the session key that was derived last.
    newest: Option<Newest>,
    first_packet_opened: Option<bool>,
    streams: u32,
    counts: Counts,
}

#[derive(Clone, Copy)]
struct Newest {
    generation: Generation,
    n: u16,
}

impl ReceiveRelay {
    pub(super) fn open(
        number: RelayNumber,
        group: GroupNumber,
        interfaces: &Interfaces,
        request: &MediaReceive,
    ) -> Result<Self, ControlError> {
        let suite = suite_of(request.suite.as_deref())?;
        let stretch = stretch_of(request.rederive_after)?;
        let interface = interfaces.choose(request.interface.as_deref())?;
        let from = Place::parse(&request.from, "--from")?;
        let to = Place::parse(&request.rtp, "--rtp")?;
        if to.is_multicast() {
            // SECURITY: plain media is for one local application.
            let sentence = "--rtp is the local application that gets plain RTP: write its address, \
                            as in --rtp 127.0.0.1:6004";
            return Err(refused(Refusal::BadRequest, sentence.into()));
        }
        let (rtp, rtcp) = from.listen(interface)?;
        Ok(Self {
            number,
            group,
            suite,
            stretch,
            from,
            to,
            rtp,
            rtcp,
            out: to.sender(None, 0)?,
            newest: None,
            first_packet_opened: None,
            streams: 0,
            counts: Counts::default(),
        })
    }

    pub(super) fn number(&self) -> RelayNumber {
        self.number
    }

    pub(super) fn doors(&self) -> Doors<'_> {
        [
            (self.number, Port::Rtp, &self.rtp),
            (self.number, Port::Rtcp, &self.rtcp),
        ]
    }

    /// Whether both hear the same packets for the same group.
    pub(super) fn hears_as(&self, other: &Self) -> bool {
        (self.group, self.from) == (other.group, other.from)
    }

    pub(super) fn status(&self) -> RelayStatus {
        RelayStatus {
            relay: self.number,
            direction: "receive".to_owned(),
            group: self.group.get(),
            listens: self.from.rtp.to_string(),
            sends_to: self.to.rtp.to_string(),
            suite: self.suite.name().to_owned(),
            session: None,
            generation: self.newest.map(|newest| newest.generation.get()),
            stretch: self.newest.map(|newest| newest.n),
            packets: self.counts.packets,
            rtcp_packets: self.counts.rtcp_packets,
            streams: self.streams,
            waiting: 0,
            delayed: 0,
            drops: self.counts.drops(),
            first_packet_opened: self.first_packet_opened,
        }
    }

    fn deliver(&mut self, packet: &Plain) -> Result<(), DropReason> {
        let to = match packet.port {
            Port::Rtp => self.to.rtp_address(),
            Port::Rtcp => self.to.rtcp_address(),
        };
        send_now(&self.out, &packet.octets, to).map_err(|_| DropReason::NotSent)?;
        match packet.kind {
            Port::Rtp => self.counts.packets += 1,
            Port::Rtcp => self.counts.rtcp_packets += 1,
        }
        Ok(())
    }
}

/// The streams heard.
#[derive(Default)]
pub(super) struct Heard {
    streams: HashMap<(GroupNumber, SrtpStream), Stream>,
    /// Packets that wait for marks, in all streams.
    waiting: usize,
    plain: Vec<u8>,
}

/// One stream that was heard.
struct Stream {
    receiver: SrtpReceiver,
    stretch: Stretch,
    /// Up to where nothing is delivered again, durably.
    durable: Reach,
    /// The same, as it was asked for.
    asked: Reach,
    /// Where the newest packets were when marks went on last; `None` before the first time.
    last_second: Option<Reach>,
    /// Packets of the last full second.
    rate: Reach,
    waiting: VecDeque<(RelayNumber, u64, Plain)>,
    last_heard: Tick,
}

/// An opened packet.
struct Plain {
    /// Where it came in, and so where it goes out.
    port: Port,
    /// What it is: RTCP may come on the RTP port.
    kind: Port,
    octets: Vec<u8>,
}

/// Indexes below these are covered.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Reach {
    rtp: u64,
    rtcp: u64,
}

impl Heard {
    pub(super) fn on_packet(
        &mut self,
        relay: &mut ReceiveRelay,
        terminal: &mut Terminal,
        now: Tick,
        port: Port,
        source: SocketAddr,
        packet: &[u8],
    ) -> Vec<Feed> {
        let kind = kind_of(port, packet);
        let opened = self.open(relay, terminal, now, (kind, source), packet);
        // The machine counts what it refuses itself.
        if let Err(Dropped::Here(reason)) = opened {
            terminal.count_drop(reason);
        }
        if !matches!(opened, Err(Dropped::Here(DropReason::OwnPacket))) {
            let opens = opened.is_ok();
            relay.first_packet_opened.get_or_insert(opens);
        }
        match opened {
            Err(Dropped::Here(reason) | Dropped::ByMachine(reason)) => {
                relay.counts.drop(reason);
                Vec::new()
            }
            Ok(opened) => {
                let octets = std::mem::take(&mut self.plain);
                let plain = Plain { port, kind, octets };
                let order = self.pass_on(relay, terminal, now, &opened, plain);
                let trial = opened.trial.map(Feed::Opened);
                trial.into_iter().chain(order).collect()
            }
        }
    }

    /// Opens into `self.plain`.
    fn open(
        &mut self,
        relay: &mut ReceiveRelay,
        terminal: &mut Terminal,
        now: Tick,
        (kind, source): (Port, SocketAddr),
        packet: &[u8],
    ) -> Result<Opened, Dropped> {
        let arrival = match kind {
            Port::Rtp => Arrival::of_srtp(relay.suite, packet),
            Port::Rtcp => Arrival::of_srtcp(relay.suite, packet),
        }
        .map_err(drop_reason)?;
        if arrival.mki.sender() == terminal.identity().number {
            return Err(Dropped::Here(DropReason::OwnPacket));
        }
        terminal
            .may_receive(relay.group, arrival.mki.sender())
            .map_err(Dropped::Here)?;
        let key = (relay.group, arrival.stream(relay.suite));
        if let Some(stream) = self.streams.get_mut(&key)
            && stream.stretch == relay.stretch
        {
            match stream.unprotect(kind, packet, &mut self.plain) {
                Ok(index) => return Ok(Opened::new(key, index, None)),
                Err(Refused::KeyUnknown) => {}
                Err(refused) => return Err(drop_reason(refused)),
            }
        }
        let query = TrafficQuery {
            group: relay.group,
            tag: arrival.mki.tag(),
            sender: arrival.mki.sender(),
            source: source_number(source, arrival.ssrc),
        };
        let receive_key = terminal
            .receive_key(now, query)
            .map_err(Dropped::ByMachine)?;
        let (master, trial) = match receive_key {
            ReceiveKey::Held(master) => (master.duplicate(), None),
            ReceiveKey::Trial(trial) => (trial.key().duplicate(), Some(trial)),
        };
        let old = self.streams.remove(&key);
        let (known, other) = match old {
            Some(stream) if stream.stretch == relay.stretch => (Some(stream), None),
            other => (None, other),
        };
        let is_new = known.is_none();
        let marks = terminal.marks(relay.group);
        let mut stream = known.unwrap_or_else(|| Stream::new(marks, key.1, relay.stretch));
        let tried = stream.attempt(&master, kind, packet, &mut self.plain);
        if tried.is_ok() || !is_new {
            // A stream that another relay read with another stretch ends only for one that opens.
            self.waiting -= other.map_or(0, |other| other.waiting.len());
            self.make_room();
            self.streams.insert(key, stream);
        } else if let Some(other) = other {
            self.streams.insert(key, other);
        }
        let index = tried.map_err(drop_reason)?;
        relay.streams += u32::from(is_new);
        relay.newest = Some(Newest {
            generation: master.generation(),
            n: arrival.mki.n(),
        });
        Ok(Opened::new(key, index, trial))
    }

    /// Delivers what the durable mark covers; the rest waits for a mark that is asked for.
    fn pass_on(
        &mut self,
        relay: &mut ReceiveRelay,
        terminal: &mut Terminal,
        now: Tick,
        opened: &Opened,
        plain: Plain,
    ) -> Option<Feed> {
        let stream = self.streams.get_mut(&opened.key)?;
        stream.last_heard = now;
        let covered = opened.index < stream.durable.of(plain.kind);
        if covered && stream.waiting.is_empty() {
            if let Err(reason) = relay.deliver(&plain) {
                relay.counts.drop(reason);
                terminal.count_drop(reason);
            }
            // Its allocation serves the next packet.
            self.plain = plain.octets;
            return None;
        }
        if stream.waiting.len() == WAITING_MAX || self.waiting == WAITING_MAX_OVERALL {
            relay.counts.drop(DropReason::Held);
            terminal.count_drop(DropReason::Held);
            return None;
        }
        let asks = opened.index >= stream.asked.of(plain.kind);
        self.waiting += 1;
        stream
            .waiting
            .push_back((relay.number, opened.index, plain));
        asks.then(|| {
            let marks = vec![stream.next_mark()];
            let group = relay.group;
            Feed::Order(Order::Mark { group, marks })
        })
    }

    /// Marks are durable: delivers what they cover.
    pub(super) fn on_marks_stored(
        &mut self,
        relays: &mut [ReceiveRelay],
        group: GroupNumber,
        marks: &[Mark],
    ) -> Option<Feed> {
        let mut further = Vec::new();
        for ((of_group, id), stream) in &mut self.streams {
            let same = |mark: &&Mark| {
                *of_group == group
                    && (mark.sender, mark.session, mark.ssrc) == (id.sender, id.session, id.ssrc)
            };
            let Some(mark) = marks.iter().find(same) else {
                continue;
            };
            stream.durable.rise_to(mark);
            while let Some((number, index, plain)) = stream.waiting.pop_front() {
                if index >= stream.durable.of(plain.kind) {
                    if index >= stream.asked.of(plain.kind) {
                        further.push(stream.next_mark());
                    }
                    stream.waiting.push_front((number, index, plain));
                    break;
                }
                self.waiting -= 1;
                let relay = relays.iter_mut().find(|relay| relay.number == number);
                if let Some(relay) = relay
                    && let Err(reason) = relay.deliver(&plain)
                {
                    relay.counts.drop(reason);
                }
            }
        }
        let marks = further;
        (!marks.is_empty()).then_some(Feed::Order(Order::Mark { group, marks }))
    }

    /// New marks for the streams that went on since the last second, one order a group.
    pub(super) fn mark_ahead(&mut self) -> Vec<Feed> {
        let mut by_group = BTreeMap::<GroupNumber, Vec<Mark>>::new();
        for ((group, _), stream) in &mut self.streams {
            if let Some(mark) = stream.on_second() {
                by_group.entry(*group).or_default().push(mark);
            }
        }
        let order = |(group, marks)| Feed::Order(Order::Mark { group, marks });
        by_group.into_iter().map(order).collect()
    }

    pub(super) fn on_retired(
        &mut self,
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    ) {
        for ((of_group, _), stream) in &mut self.streams {
            if *of_group == group {
                stream
                    .receiver
                    .retain_keys(|e, g| (e, g) != (epoch, generation));
            }
        }
    }

    /// Their streams, and what was opened of them and waits.
    pub(super) fn forget_senders(&mut self, senders: &[TerminalNumber]) {
        self.streams
            .retain(|(_, stream), _| !senders.contains(&stream.sender));
        self.waiting = self.streams.values().map(|it| it.waiting.len()).sum();
    }

    /// Windows stay: what was delivered is not delivered again. Marks that were asked for are not
    /// told of any more.
    pub(super) fn drop_keys(&mut self) {
        for stream in self.streams.values_mut() {
            stream.receiver.retain_keys(|_, _| false);
            stream.waiting.clear();
            stream.asked = stream.durable;
        }
        self.waiting = 0;
        self.plain = Vec::new();
    }

    /// Forgets the stream that was silent for longest where there are too many. Its marks stay with
    /// the machine: should it come again, nothing is delivered twice.
    fn make_room(&mut self) {
        if self.streams.len() < STREAMS_MAX {
            return;
        }
        let oldest = self
            .streams
            .iter()
            .min_by_key(|(_, stream)| stream.last_heard)
            .map(|(&key, _)| key);
        if let Some(stream) = oldest.and_then(|key| self.streams.remove(&key)) {
            self.waiting -= stream.waiting.len();
        }
    }
}

/// A packet that opened.
struct Opened {
    key: (GroupNumber, SrtpStream),
    index: u64,
    trial: Option<Trial>,
}

/// Why one was dropped.
enum Dropped {
    Here(DropReason),
    /// The machine has counted it already.
    ByMachine(DropReason),
}

impl Opened {
    fn new(key: (GroupNumber, SrtpStream), index: u64, trial: Option<Trial>) -> Self {
        Self { key, index, trial }
    }
}

impl Stream {
    /// `known` are the marks that the machine holds of the group's streams.
    fn new(known: &[Mark], id: SrtpStream, stretch: Stretch) -> Self {
        let same = |mark: &&Mark| {
            (mark.sender, mark.session, mark.ssrc) == (id.sender, id.session, id.ssrc)
        };
        let mark = known.iter().find(same);
        let marks = mark.map_or_else(Marks::default, |mark| Marks {
            rtp: Some(mark.rtp_index),
            rtcp: Some(mark.rtcp_index),
        });
        Self {
            receiver: SrtpReceiver::with_marks(id, stretch, marks),
            stretch,
            // What the machine holds may not be durable yet: then it waits for the next mark.
            durable: Reach::default(),
            asked: Reach::default(),
            last_second: None,
            rate: Reach::default(),
            waiting: VecDeque::new(),
            last_heard: Tick::default(),
        }
    }

    fn unprotect(
        &mut self,
        kind: Port,
        packet: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<u64, Refused> {
        match kind {
            Port::Rtp => self.receiver.unprotect_rtp(packet, plain),
            Port::Rtcp => self.receiver.unprotect_rtcp(packet, plain).map(u64::from),
        }
    }

    fn attempt(
        &mut self,
        key: &MasterKey,
        kind: Port,
        packet: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<u64, Refused> {
        match kind {
            Port::Rtp => self.receiver.try_rtp(key, packet, plain),
            Port::Rtcp => self.receiver.try_rtcp(key, packet, plain).map(u64::from),
        }
    }

    /// One past the newest packets that opened.
    fn reached(&self) -> Reach {
        let marks = self.receiver.marks();
        Reach {
            rtp: marks.rtp.map_or(0, |index| index.saturating_add(1)),
            rtcp: marks.rtcp.map_or(0, |index| u64::from(index) + 1),
        }
    }

    /// The mark to ask for now.
    fn next_mark(&mut self) -> Mark {
        let reached = self.reached();
        let since = reached.beyond(self.last_second.unwrap_or(reached));
        let ahead = |since: u64, rate: u64| {
            let two_seconds = since.max(rate).saturating_mul(2);
            two_seconds.clamp(AHEAD_MIN, AHEAD_MAX)
        };
        let id = self.receiver.stream();
        let rtcp_index = last_below(reached.rtcp, ahead(since.rtcp, self.rate.rtcp));
        let mark = Mark {
            sender: id.sender,
            session: id.session,
            ssrc: id.ssrc,
            rtp_index: last_below(reached.rtp, ahead(since.rtp, self.rate.rtp)),
            rtcp_index: u32::try_from(rtcp_index).unwrap_or(u32::MAX),
        };
        self.asked.rise_to(&mark);
        mark
    }

    /// A second has passed: the mark to ask for, where the stream went on.
    fn on_second(&mut self) -> Option<Mark> {
        let reached = self.reached();
        let before = self.last_second.unwrap_or_default();
        if reached == before {
            self.rate = Reach::default();
            return None;
        }
        if self.last_second.is_some() {
            self.rate = reached.beyond(before);
        }
        let mark = self.next_mark();
        self.last_second = Some(reached);
        Some(mark)
    }
}

impl Reach {
    fn of(self, kind: Port) -> u64 {
        match kind {
            Port::Rtp => self.rtp,
            Port::Rtcp => self.rtcp,
        }
    }

    fn beyond(self, earlier: Self) -> Self {
        Self {
            rtp: self.rtp.saturating_sub(earlier.rtp),
            rtcp: self.rtcp.saturating_sub(earlier.rtcp),
        }
    }

    fn rise_to(&mut self, mark: &Mark) {
        self.rtp = self.rtp.max(mark.rtp_index.saturating_add(1));
        self.rtcp = self.rtcp.max(u64::from(mark.rtcp_index) + 1);
    }
}

/// The last index of the `ahead` ones from `reached` on; 0 where nothing was heard.
fn last_below(reached: u64, ahead: u64) -> u64 {
    if reached == 0 {
        return 0;
    }
    reached.saturating_add(ahead) - 1
}

fn drop_reason(refused: Refused) -> Dropped {
    Dropped::Here(match refused {
        Refused::Malformed(_) | Refused::BadMki | Refused::NotEncrypted | Refused::OtherStream => {
            DropReason::NotMedia
        }
        Refused::OutsideStretch | Refused::AuthenticationFailed => DropReason::Authentication,
        Refused::KeyUnknown => DropReason::UnknownTag,
        Refused::Replayed => DropReason::Replayed,
        Refused::TooOld => DropReason::BeforeWindow,
    })
}

/// Who asks for a trial, for the budget: address, port and SSRC.
fn source_number(source: SocketAddr, ssrc: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (source, ssrc).hash(&mut hasher);
    hasher.finish()
}

/// How far a mark is ahead of its stream, in packets (FORMATS section 7).
const AHEAD_MIN: u64 = 64;
/// A jump in the numbers is not a rate.
const AHEAD_MAX: u64 = 65_536;
/// Streams that are remembered, of all groups.
const STREAMS_MAX: usize = 1024;
/// Packets of one stream that wait for its mark: all that a sender kept during a STOP may come at
/// once.
const WAITING_MAX: usize = 640;
/// The same, of all streams.
const WAITING_MAX_OVERALL: usize = 2048;
