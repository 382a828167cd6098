//! The send side: a local application's RTP and RTCP go out as SRTP and SRTCP.
//!
//! INVARIANT 3: a session is drawn for each relay and recorded before its first packet; within a
//! session there is one [`SrtpSender`] for each SSRC, and it is never made a second time: where the
//! table of SSRCs is full, or an application's numbers jump back, everything begins again under a
//! new session.

use std::collections::BTreeMap;

use keyfall_api::control::{ControlError, MediaSend, Refusal, RelayStatus, StreamPolicy};
use keyfall_plane::{ProtectRefused, SrtpSender, SrtpStream, Stretch, rtcp_ssrc, rtp_ssrc};
use keyfall_protocol::DropReason;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, Tick};
use keyfall_protocol::keys::SrtpSuite;
use keyfall_protocol::terminal::{Order, Terminal};
use tokio::net::UdpSocket;

use crate::media_relay::counts::Counts;
use crate::media_relay::places::{Interfaces, Place};
use crate::media_relay::waiting::Waiting;
use crate::media_relay::{
    Doors, Feed, Port, RelayNumber, kind_of, refused, send_now, stretch_of, suite_of,
};

/// One `media send`.
pub(super) struct SendRelay {
    number: RelayNumber,
    group: GroupNumber,
    suite: SrtpSuite,
    pace: Pace,
    listens: Place,
    to: Place,
    rtp: UdpSocket,
    rtcp: UdpSocket,
    out: UdpSocket,
    session: Session,
    senders: BTreeMap<u32, SrtpSender>,
    /// The packet that asked for a new session; it is the first of that session.
    held: Option<(Port, Vec<u8>)>,
    /// What came since the group was stopped.
    waiting: Waiting,
    /// Packets are protected in place here.
    scratch: Vec<u8>,
    /// Generation and n of the newest RTP packet.
    generation: Option<Generation>,
    stretch: Option<u16>,
    counts: Counts,
}

/// How session keys follow each other.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Rederives(Stretch),
    /// For stock receivers: one key, n = 0.
    Stock {
        mki: bool,
    },
}

/// INVARIANT 2: only a session that is recorded sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Session {
    /// Asked for; datagrams wait in the sockets meanwhile.
    Asked,
    /// The group's key has not come.
    WaitsForKey,
    Ready(SessionId),
}

impl SendRelay {
    pub(super) fn open(
        number: RelayNumber,
        group: GroupNumber,
        interfaces: &Interfaces,
        request: &MediaSend,
    ) -> Result<Self, ControlError> {
        let suite = suite_of(request.suite.as_deref())?;
        let pace = pace_of(request)?;
        let interface = interfaces.choose(request.interface.as_deref())?;
        let listens = Place::parse(&request.rtp, "--rtp")?;
        if listens.is_multicast() {
            let sentence = "--rtp is where the local application sends to: write an address of \
                            this machine, as in --rtp 127.0.0.1:5004";
            return Err(refused(Refusal::BadRequest, sentence.into()));
        }
        let to = Place::parse(&request.to, "--to")?;
        let (rtp, rtcp) = listens.listen(None)?;
        Ok(Self {
            number,
            group,
            suite,
            pace,
            listens,
            to,
            rtp,
            rtcp,
            out: to.sender(interface, request.ttl)?,
            session: Session::Asked,
            senders: BTreeMap::new(),
            held: None,
            waiting: Waiting::default(),
            scratch: Vec::new(),
            generation: None,
            stretch: None,
            counts: Counts::default(),
        })
    }

    pub(super) fn number(&self) -> RelayNumber {
        self.number
    }

    pub(super) fn group(&self) -> GroupNumber {
        self.group
    }

    /// `None` while a session is awaited: the sockets' buffers hold what comes.
    pub(super) fn doors(&self) -> Option<Doors<'_>> {
        (self.session != Session::Asked).then_some([
            (self.number, Port::Rtp, &self.rtp),
            (self.number, Port::Rtcp, &self.rtcp),
        ])
    }

    pub(super) fn waits_for_session(&self, group: GroupNumber) -> bool {
        self.group == group && self.session == Session::Asked
    }

    pub(super) fn on_session(
        &mut self,
        terminal: &mut Terminal,
        now: Tick,
        session: SessionId,
    ) -> Option<Feed> {
        tracing::info!(group = %self.group, %session, "a media session begins");
        self.session = Session::Ready(session);
        let (port, packet) = self.held.take()?;
        if self.is_stopped(terminal) {
            self.waiting.push_first(now, port, packet);
            return None;
        }
        self.send(terminal, port, &packet)
    }

    pub(super) fn on_session_refused(&mut self) {
        self.session = Session::WaitsForKey;
    }

    /// True where it waited for that group's key; it waits for its session now.
    pub(super) fn ask_again(&mut self, group: GroupNumber) -> bool {
        let waited = self.group == group && self.session == Session::WaitsForKey;
        if waited {
            self.session = Session::Asked;
        }
        waited
    }

    /// The session ends: what was not stored of it is as after a power cut.
    pub(super) fn drop_keys(&mut self) {
        self.session = Session::WaitsForKey;
        self.senders.clear();
        self.held = None;
        self.waiting = Waiting::default();
        self.scratch = Vec::new();
    }

    pub(super) fn on_retired(
        &mut self,
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    ) {
        if group == self.group {
            for sender in self.senders.values_mut() {
                sender.retain_keys(|e, g| (e, g) != (epoch, generation));
            }
        }
    }

    /// Sends it, or lets it wait behind what waits while the group is stopped.
    pub(super) fn on_packet(
        &mut self,
        terminal: &mut Terminal,
        now: Tick,
        port: Port,
        packet: &[u8],
    ) -> Option<Feed> {
        if self.waiting.is_empty() && !self.is_stopped(terminal) {
            return self.send(terminal, port, packet);
        }
        let driven_out = self.waiting.push(now, port, packet);
        self.count_driven_out(terminal, driven_out);
        // Two for each that comes: what waits becomes less, however fast the application speaks.
        self.flush_some(terminal, 2)
    }

    /// Whether packets wait that may go out now.
    pub(super) fn can_flush(&self, terminal: &Terminal) -> bool {
        let ready = matches!(self.session, Session::Ready(_));
        ready && !self.waiting.is_empty() && !self.is_stopped(terminal)
    }

    /// A few of the packets that wait, in their order, where they may go out; those that waited for
    /// too long go in any case.
    pub(super) fn flush(&mut self, terminal: &mut Terminal, now: Tick) -> Option<Feed> {
        let driven_out = self.waiting.expire(now);
        self.count_driven_out(terminal, driven_out);
        self.flush_some(terminal, FLUSHED_AT_ONCE)
    }

    fn flush_some(&mut self, terminal: &mut Terminal, most: usize) -> Option<Feed> {
        if !self.can_flush(terminal) {
            return None;
        }
        for _ in 0..most {
            let (port, packet) = self.waiting.pop()?;
            self.counts.delayed += 1;
            let feed = self.send(terminal, port, &packet);
            if feed.is_some() {
                return feed;
            }
        }
        None
    }

    fn count_driven_out(&mut self, terminal: &mut Terminal, count: u64) {
        self.counts.drop_many(DropReason::StopQueue, count);
        for _ in 0..count {
            terminal.count_drop(DropReason::StopQueue);
        }
    }

    /// Only a STOP keeps this relay from sending.
    fn is_stopped(&self, terminal: &Terminal) -> bool {
        matches!(self.session, Session::Ready(_))
            && terminal.send_key(self.group).is_none()
            && terminal.why_not_sending(self.group) == DropReason::Stopped
    }

    fn send(&mut self, terminal: &mut Terminal, port: Port, packet: &[u8]) -> Option<Feed> {
        match self.forward(terminal, port, packet) {
            Ok(()) => None,
            Err(Stopped::Dropped(reason)) => {
                self.counts.drop(reason);
                terminal.count_drop(reason);
                None
            }
            Err(Stopped::NewSession) => {
                self.session = Session::Asked;
                self.senders.clear();
                self.held = Some((port, packet.to_vec()));
                let group = self.group;
                Some(Feed::Order(Order::OpenSession { group }))
            }
        }
    }

    fn forward(&mut self, terminal: &Terminal, port: Port, packet: &[u8]) -> Result<(), Stopped> {
        let Session::Ready(session) = self.session else {
            return Err(Stopped::Dropped(terminal.why_not_sending(self.group)));
        };
        let kind = kind_of(port, packet);
        let ssrc = match kind {
            Port::Rtp => rtp_ssrc(packet),
            Port::Rtcp => rtcp_ssrc(packet),
        };
        let ssrc = ssrc.map_err(|_| Stopped::Dropped(DropReason::NotMedia))?;
        let Some(key) = terminal.send_key(self.group) else {
            return Err(Stopped::Dropped(terminal.why_not_sending(self.group)));
        };
        if self.senders.len() == SSRCS_MAX && !self.senders.contains_key(&ssrc) {
            return Err(Stopped::NewSession);
        }
        let stream = SrtpStream {
            suite: self.suite,
            sender: terminal.identity().number,
            session,
            ssrc,
        };
        let pace = self.pace;
        let sender = self
            .senders
            .entry(ssrc)
            .or_insert_with(|| pace.sender(stream));
        self.scratch.clear();
        self.scratch.extend_from_slice(packet);
        match kind {
            Port::Rtp => {
                let index = sender.protect_rtp(key, &mut self.scratch)?;
                self.stretch = Some(pace.number(index));
            }
            Port::Rtcp => {
                sender.protect_rtcp(key, &mut self.scratch)?;
            }
        }
        self.generation = Some(key.generation());
        let to = match port {
            Port::Rtp => self.to.rtp_address(),
            Port::Rtcp => self.to.rtcp_address(),
        };
        send_now(&self.out, &self.scratch, to)
            .map_err(|_| Stopped::Dropped(DropReason::NotSent))?;
        match kind {
            Port::Rtp => self.counts.packets += 1,
            Port::Rtcp => self.counts.rtcp_packets += 1,
        }
        Ok(())
    }

    /// What a stock receiver needs, one policy an SSRC.
    pub(super) fn policies(&self, terminal: &Terminal) -> Vec<StreamPolicy> {
        let Some(key) = terminal.send_key(self.group) else {
            return Vec::new();
        };
        let groups = terminal.groups();
        let ends_at = groups
            .iter()
            .find(|status| status.group == self.group)
            .and_then(|status| status.valid_until)
            .map(|until| until.get());
        let policy = |(ssrc, sender): (&u32, &SrtpSender)| {
            let params = sender.params(key);
            StreamPolicy {
                relay: self.number,
                group: self.group.get(),
                ssrc: format!("{ssrc:08x}"),
                suite: self.suite.name().to_owned(),
                key: hex(params.master.key()),
                salt: hex(params.master.salt()),
                mki: self.pace.sends_mki().then(|| hex(params.mki.as_bytes())),
                roc: params.roc,
                epoch: key.epoch().get(),
                generation: key.generation().get(),
                stretch: params.mki.n(),
                packets_left: params.packets_left,
                ends_at,
            }
        };
        self.senders.iter().map(policy).collect()
    }

    pub(super) fn status(&self) -> RelayStatus {
        RelayStatus {
            relay: self.number,
            direction: "send".to_owned(),
            group: self.group.get(),
            listens: self.listens.rtp.to_string(),
            sends_to: self.to.rtp.to_string(),
            suite: self.suite.name().to_owned(),
            session: match self.session {
                Session::Ready(session) => Some(session.to_string()),
                Session::Asked | Session::WaitsForKey => None,
            },
            generation: self.generation.map(Generation::get),
            stretch: self.stretch,
            packets: self.counts.packets,
            rtcp_packets: self.counts.rtcp_packets,
            streams: u32::try_from(self.senders.len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(self.waiting.len()).unwrap_or(u32::MAX),
            delayed: self.counts.delayed,
            drops: self.counts.drops(),
            first_packet_opened: None,
        }
    }
}

/// Why a packet was not sent.
enum Stopped {
    Dropped(DropReason),
    NewSession,
}

impl From<ProtectRefused> for Stopped {
    fn from(refused: ProtectRefused) -> Self {
        match refused {
            ProtectRefused::NewSession(_) => Self::NewSession,
            ProtectRefused::Duplicate => Self::Dropped(DropReason::Replayed),
            ProtectRefused::Malformed(_) | ProtectRefused::OtherSsrc => {
                Self::Dropped(DropReason::NotMedia)
            }
        }
    }
}

impl Pace {
    fn sender(self, stream: SrtpStream) -> SrtpSender {
        match self {
            Self::Rederives(stretch) => SrtpSender::new(stream, stretch),
            Self::Stock { mki } => SrtpSender::new_static(stream, 0, mki),
        }
    }

    /// n of the packet with that index.
    fn number(self, index: u64) -> u16 {
        match self {
            Self::Rederives(stretch) => (index >> stretch.j()) as u16,
            Self::Stock { .. } => 0,
        }
    }

    fn sends_mki(self) -> bool {
        match self {
            Self::Rederives(_) => true,
            Self::Stock { mki } => mki,
        }
    }
}

fn pace_of(request: &MediaSend) -> Result<Pace, ControlError> {
    let sentence = match (request.stock, request.mki, request.rederive_after) {
        (false, false, packets) => return stretch_of(packets).map(Pace::Rederives),
        (true, mki, None) => return Ok(Pace::Stock { mki }),
        (false, true, _) => "every packet carries an MKI but with --static: leave --mki away",
        (true, _, Some(_)) => "--static keeps one session key: leave --rederive-after away",
    };
    Err(refused(Refusal::BadRequest, sentence.into()))
}

fn hex(octets: &[u8]) -> String {
    let mut text = String::with_capacity(2 * octets.len());
    for octet in octets {
        for digit in [octet >> 4, octet & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    text
}

/// SSRCs of one session of one relay.
const SSRCS_MAX: usize = 64;
/// Packets of one relay that go out without a pause after a STOP: receivers, whose marks have to run
/// ahead of the stream, have to keep up.
const FLUSHED_AT_ONCE: usize = 8;
