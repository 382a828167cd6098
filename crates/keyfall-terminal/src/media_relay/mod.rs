//! The media relay: plain RTP and RTCP of local applications on one side, SRTP and SRTCP on the
//! other (FORMATS section 6).
//!
//! Every relay has two ports in: RTP, and RTCP on the next one. The driver polls all of them with
//! [`Relays::poll_arrival`] and hands each datagram to [`Relays::on_arrival`] together with the
//! terminal machine; what the machine has to be fed then comes back as [`Feed`].

mod counts;
mod places;
mod receive;
mod send;
mod waiting;

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use keyfall_api::control::{
    ControlError, MediaParams, MediaReceive, MediaSend, Refusal, RelayStatus,
};
use keyfall_plane::Stretch;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber, Tick};
use keyfall_protocol::keys::SrtpSuite;
use keyfall_protocol::terminal::{Mark, Order, Terminal, Trial};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

pub(crate) use places::Interfaces;
use receive::{Heard, ReceiveRelay};
use send::SendRelay;

/// All relays of a terminal.
pub(crate) struct Relays {
    sends: Vec<SendRelay>,
    receives: Vec<ReceiveRelay>,
    /// Streams heard, of all groups and receiving relays: their windows outlive the relays.
    heard: Heard,
    last_number: u32,
    /// Which relay is asked first next time, so that none starves another.
    turn: usize,
    buffer: Box<[u8]>,
}

/// Number of a relay, in the order of their starts.
pub(crate) type RelayNumber = u32;

/// One datagram; its octets lie in the buffer of [`Relays`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    relay: RelayNumber,
    port: Port,
    len: usize,
    source: SocketAddr,
}

/// Which of the two ports of a relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Port {
    Rtp,
    Rtcp,
}

/// What the terminal machine has to be fed after a packet or a tick.
#[derive(Debug)]
pub(crate) enum Feed {
    Order(Order),
    Opened(Trial),
}

impl Relays {
    pub(crate) fn new() -> Self {
        Self {
            sends: Vec::new(),
            receives: Vec::new(),
            heard: Heard::default(),
            last_number: 0,
            turn: 0,
            buffer: vec![0; DATAGRAM_MAX].into_boxed_slice(),
        }
    }

    /// Begins to send; the order asks for the session, and nothing is sent before it is ready.
    ///
    /// # Errors
    /// [`ControlError`]; nothing is open then.
    pub(crate) fn start_send(
        &mut self,
        terminal: &Terminal,
        interfaces: &Interfaces,
        request: &MediaSend,
    ) -> Result<(RelayNumber, Feed), ControlError> {
        self.check_room()?;
        let group = group_held(terminal, request.group, request.wait)?;
        let number = self.last_number + 1;
        let relay = SendRelay::open(number, group, interfaces, request)?;
        self.last_number = number;
        self.sends.push(relay);
        Ok((number, Feed::Order(Order::OpenSession { group })))
    }

    /// Begins to receive.
    ///
    /// # Errors
    /// [`ControlError`]; nothing is open then.
    pub(crate) fn start_receive(
        &mut self,
        terminal: &Terminal,
        interfaces: &Interfaces,
        request: &MediaReceive,
    ) -> Result<RelayNumber, ControlError> {
        self.check_room()?;
        let group = group_held(terminal, request.group, request.wait)?;
        let number = self.last_number + 1;
        let relay = ReceiveRelay::open(number, group, interfaces, request)?;
        if let Some(other) = self.receives.iter().find(|other| other.hears_as(&relay)) {
            let sentence = format!(
                "relay {} receives group {group} from {} already: end it first, because every \
                 packet is delivered once only",
                other.number(),
                request.from
            );
            return Err(refused(Refusal::Taken, sentence));
        }
        self.last_number = number;
        self.receives.push(relay);
        Ok(number)
    }

    /// Ends a relay and returns its last figures.
    pub(crate) fn stop(&mut self, number: RelayNumber) -> Option<RelayStatus> {
        let status = self.status_of(number);
        self.sends.retain(|relay| relay.number() != number);
        self.receives.retain(|relay| relay.number() != number);
        status
    }

    pub(crate) fn status_of(&self, number: RelayNumber) -> Option<RelayStatus> {
        self.statuses().find(|status| status.relay == number)
    }

    /// Every relay, senders first.
    pub(crate) fn statuses(&self) -> impl Iterator<Item = RelayStatus> {
        let sends = self.sends.iter().map(SendRelay::status);
        sends.chain(self.receives.iter().map(ReceiveRelay::status))
    }

    /// What stock receivers need to open the senders' streams; of one relay or of all.
    pub(crate) fn params(&self, terminal: &Terminal, relay: Option<RelayNumber>) -> MediaParams {
        let asked = self
            .sends
            .iter()
            .filter(|send| relay.is_none_or(|number| number == send.number()));
        MediaParams {
            policies: asked.flat_map(|send| send.policies(terminal)).collect(),
        }
    }

    /// The next datagram on any port of any relay that wants one.
    pub(crate) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Arrival> {
        let doors: Vec<_> = self
            .sends
            .iter()
            .filter_map(SendRelay::doors)
            .chain(self.receives.iter().map(ReceiveRelay::doors))
            .flatten()
            .collect();
        for place in 0..doors.len() {
            let (relay, port, socket) = doors[(place + self.turn) % doors.len()];
            let mut into = ReadBuf::new(&mut self.buffer);
            match socket.poll_recv_from(cx, &mut into) {
                Poll::Ready(Ok(source)) => {
                    let len = into.filled().len();
                    self.turn = (place + self.turn + 1) % doors.len();
                    return Poll::Ready(Arrival {
                        relay,
                        port,
                        len,
                        source,
                    });
                }
                // An error of a datagram socket tells of a packet sent before, or of an interface
                // that went away; the socket stays usable, and polling again asks for its waker.
                Poll::Ready(Err(error)) => {
                    tracing::debug!(%error, "a media socket reports an error");
                    cx.waker().wake_by_ref();
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Protects or opens what arrived, and passes it on.
    pub(crate) fn on_arrival(
        &mut self,
        terminal: &mut Terminal,
        now: Tick,
        arrival: &Arrival,
    ) -> Vec<Feed> {
        let packet = &self.buffer[..arrival.len];
        if let Some(send) = self.sends.iter_mut().find(|s| s.number() == arrival.relay) {
            let feed = send.on_packet(terminal, now, arrival.port, packet);
            return feed.into_iter().collect();
        }
        let receive = self
            .receives
            .iter_mut()
            .find(|r| r.number() == arrival.relay);
        let Some(receive) = receive else {
            return Vec::new();
        };
        self.heard
            .on_packet(receive, terminal, now, arrival.port, arrival.source, packet)
    }

    /// A session is recorded: the first relay of the group that waits for one takes it.
    pub(crate) fn on_session(
        &mut self,
        terminal: &mut Terminal,
        now: Tick,
        group: GroupNumber,
        session: SessionId,
    ) -> Option<Feed> {
        let waiting = |send: &&mut SendRelay| send.waits_for_session(group);
        let send = self.sends.iter_mut().find(waiting)?;
        send.on_session(terminal, now, session)
    }

    /// Whether packets wait that may go out now: call [`Self::flush`] soon, and again while this is
    /// so.
    pub(crate) fn can_flush(&self, terminal: &Terminal) -> bool {
        self.sends.iter().any(|send| send.can_flush(terminal))
    }

    /// A few of the packets that waited for the end of a STOP.
    pub(crate) fn flush(&mut self, terminal: &mut Terminal, now: Tick) -> Vec<Feed> {
        let sends = self.sends.iter_mut();
        sends.filter_map(|send| send.flush(terminal, now)).collect()
    }

    /// The group is not held: its relays ask again when its key comes.
    pub(crate) fn on_session_refused(&mut self, group: GroupNumber) {
        let waiting = |send: &&mut SendRelay| send.waits_for_session(group);
        if let Some(send) = self.sends.iter_mut().find(waiting) {
            send.on_session_refused();
        }
    }

    /// A key of the group came: relays that waited for it ask for their sessions.
    pub(crate) fn on_key(&mut self, group: GroupNumber) -> Vec<Feed> {
        let asked = self.sends.iter_mut().map(|send| send.ask_again(group));
        asked
            .filter(|&waited| waited)
            .map(|_| Feed::Order(Order::OpenSession { group }))
            .collect()
    }

    /// A generation is not held any more: session keys derived from it go.
    pub(crate) fn on_retired(
        &mut self,
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    ) {
        for send in &mut self.sends {
            send.on_retired(group, epoch, generation);
        }
        self.heard.on_retired(group, epoch, generation);
    }

    /// These were excluded: their streams end, session keys and packets that wait included.
    pub(crate) fn on_excluded(&mut self, terminals: &[TerminalNumber]) {
        self.heard.forget_senders(terminals);
    }

    /// The terminal is locked: every session key goes, and what was opened and not delivered.
    /// Relays go on without, and ask for their sessions again in [`Self::on_unlocked`].
    pub(crate) fn drop_keys(&mut self) {
        for send in &mut self.sends {
            send.drop_keys();
        }
        self.heard.drop_keys();
    }

    /// Every relay that waited asks for its session.
    pub(crate) fn on_unlocked(&mut self) -> Vec<Feed> {
        let groups: BTreeSet<_> = self.sends.iter().map(SendRelay::group).collect();
        groups
            .into_iter()
            .flat_map(|group| self.on_key(group))
            .collect()
    }

    /// Marks are durable: what waited for them goes out.
    pub(crate) fn on_marks_stored(&mut self, group: GroupNumber, marks: &[Mark]) -> Option<Feed> {
        self.heard.on_marks_stored(&mut self.receives, group, marks)
    }

    /// Once a second: marks go ahead of the streams.
    pub(crate) fn on_second(&mut self) -> Vec<Feed> {
        self.heard.mark_ahead()
    }

    fn check_room(&self) -> Result<(), ControlError> {
        if self.sends.len() + self.receives.len() < RELAYS_MAX {
            return Ok(());
        }
        let sentence =
            format!("{RELAYS_MAX} relays run already: end one with `keyfall media stop`");
        Err(refused(Refusal::TooMany, sentence))
    }
}

/// The two sockets of a relay, as [`Relays::poll_arrival`] asks them.
type Doors<'r> = [(RelayNumber, Port, &'r UdpSocket); 2];

fn group_held(terminal: &Terminal, number: u32, wait: bool) -> Result<GroupNumber, ControlError> {
    let group = GroupNumber::new(number).ok_or_else(|| {
        refused(
            Refusal::BadRequest,
            "0 is no group: groups have numbers from 1".into(),
        )
    })?;
    if wait || terminal.holds(group) {
        return Ok(group);
    }
    if terminal.is_locked() {
        let sentence = "this terminal is locked: unlock it with `keyfall terminal unlock`, or begin \
                        with --wait";
        return Err(refused(Refusal::Locked, sentence.into()));
    }
    let sentence = format!(
        "this terminal holds no key of group {group}: it is not a member, or the key has not been \
         heard yet, and then --wait begins at once and waits for it"
    );
    Err(refused(Refusal::NotAMember, sentence))
}

fn refused(refusal: Refusal, sentence: String) -> ControlError {
    ControlError { refusal, sentence }
}

fn suite_of(name: Option<&str>) -> Result<SrtpSuite, ControlError> {
    let Some(name) = name else {
        return Ok(SrtpSuite::default());
    };
    let found = SrtpSuite::ALL
        .into_iter()
        .find(|suite| suite.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let names: Vec<_> = SrtpSuite::ALL.iter().map(|suite| suite.name()).collect();
        let sentence = format!(
            "{name:?} is not an SRTP suite: there are {}",
            names.join(", ")
        );
        refused(Refusal::BadRequest, sentence)
    })
}

fn stretch_of(packets: Option<u32>) -> Result<Stretch, ControlError> {
    let Some(packets) = packets else {
        return Ok(Stretch::default());
    };
    let stretch = packets
        .is_power_of_two()
        .then(|| Stretch::new(packets.ilog2() as u8))
        .flatten();
    stretch.ok_or_else(|| {
        let sentence = format!(
            "a session key cannot serve {packets} packets: write a power of two from 1024 to 65536"
        );
        refused(Refusal::BadRequest, sentence)
    })
}

/// RTCP on the RTP port: payload types 64 to 95 are RTCP packet types (RFC 5761 section 4).
fn kind_of(port: Port, packet: &[u8]) -> Port {
    match (port, packet.get(1)) {
        (Port::Rtp, Some(192..=223)) => Port::Rtcp,
        (port, _) => port,
    }
}

/// Sends without waiting.
fn send_now(socket: &UdpSocket, packet: &[u8], to: SocketAddr) -> io::Result<()> {
    socket.try_send_to(packet, to).map(|_| ())
}

/// No datagram is longer.
const DATAGRAM_MAX: usize = 65_536;
/// Relays that run at a time.
const RELAYS_MAX: usize = 64;
