//! The packet path as the driver drives it: begun when this terminal's record has come, asked by its
//! threads, told what changes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use keyfall_api::packets::{PacketDrop, PacketStatus};
use keyfall_plane::esp_len;
use keyfall_protocol::DropReason;
use keyfall_protocol::ids::TerminalNumber;
use keyfall_protocol::terminal::{Event, Input, Order, PacketFrom, Terminal, Unheard, Way};

use crate::driver::echoes::EchoSearch;
use crate::driver::put_off::PutOff;
use crate::driver::{Driver, RunError};
use crate::packet_path::{
    Ask, Begun, FlowReport, Heard, Host, PacketOptions, PacketPath, SessionReport, Tun, Wire, host,
    how_many_lanes,
};

/// Whether packets pass.
pub(super) enum Packets {
    /// Nobody wants them to.
    Off,
    /// This terminal has no record yet that names its addresses and groups.
    Waiting(PacketOptions),
    Running(Box<Running>),
    /// They do not pass; the sentence says why.
    Failed(String),
}

pub(super) struct Running {
    pub(super) path: PacketPath,
    host: Host,
    options: PacketOptions,
    /// The interface that nothing from outside comes by.
    inside: Option<u32>,
    pub(super) echoes: Option<EchoSearch>,
    /// Routes and addresses are to be looked at.
    changed: bool,
    put_off: PutOff,
}

impl Running {
    /// What a thread asks, or what an ear of key search hears.
    async fn asked(&mut self) -> Option<Ask> {
        let Some(echoes) = &mut self.echoes else {
            return self.path.asked().await;
        };
        tokio::select! {
            ask = self.path.asked() => ask,
            ask = echoes.asked() => Some(ask),
        }
    }

    /// Hosts behind it are protected, too.
    pub(super) const fn is_gateway(&self) -> bool {
        self.options.gateway.is_some()
    }
}

impl Packets {
    /// The terminal as it was stored.
    pub(super) fn new(options: Option<PacketOptions>, terminal: &Terminal) -> Self {
        let Some(options) = options else {
            return Self::Off;
        };
        close(&options, terminal);
        if let (Some(inside), Some(outside)) = (&options.gateway, &options.outside)
            && let Err(error) = host::close_gateway(inside, outside)
        {
            let sentence = format!("packets do not pass, and nothing is protected: {error}");
            tracing::error!("{sentence}");
            return Self::Failed(sentence);
        }
        Self::Waiting(options)
    }

    pub(super) fn running(&mut self) -> Option<&mut Running> {
        match self {
            Self::Running(running) => Some(running),
            Self::Off | Self::Waiting(_) | Self::Failed(_) => None,
        }
    }

    /// Every key and every packet goes.
    pub(super) fn wipe(&mut self) {
        if let Some(running) = self.running() {
            running.path.wipe();
        }
    }

    /// For people.
    pub(super) fn status(&self, terminal: &Terminal) -> Option<PacketStatus> {
        let own = terminal.own_record().map(|signed| signed.record());
        let prefixes = own.map_or(&[][..], |own| &own.prefixes);
        let counts = terminal.path_counts();
        let mut status = PacketStatus {
            state: "waiting".to_owned(),
            failure: None,
            refused: Vec::new(),
            tun: None,
            mtu: None,
            listens: None,
            prefixes: prefixes.iter().map(ToString::to_string).collect(),
            flows: Vec::new(),
            sessions: Vec::new(),
            peers: counts.peers,
            searches: counts.searches,
            drops: Vec::new(),
        };
        match self {
            Self::Off => return None,
            Self::Waiting(_) => {}
            Self::Failed(sentence) => {
                "failed".clone_into(&mut status.state);
                status.failure = Some(sentence.clone());
            }
            Self::Running(running) => {
                "running".clone_into(&mut status.state);
                status.tun = Some(running.path.tun_name().to_owned());
                status.mtu = host::mtu_of(running.path.tun_name());
                status.listens = running.path.listens();
                status.refused = running.put_off.refused().to_vec();
                let report = running.path.report();
                let found: HashMap<_, _> = terminal
                    .paths()
                    .map(|path| ((path.source, path.destination), path.left.as_secs()))
                    .collect();
                let flow = |flow: FlowReport| flow.status(found.get(&flow.ends).copied());
                status.flows = report.flows.into_iter().map(flow).collect();
                let sessions = report.sessions.into_iter();
                status.sessions = sessions.filter_map(SessionReport::status).collect();
                let drop = |(reason, count): (DropReason, u64)| PacketDrop {
                    reason: reason.name().to_owned(),
                    code: reason.code().to_owned(),
                    count,
                };
                status.drops = report.drops.into_iter().map(drop).collect();
            }
        }
        Some(status)
    }

    /// What a thread asks; never, where there is none.
    pub(super) async fn asked(&mut self) -> Option<Ask> {
        match self.running() {
            Some(running) => running.asked().await,
            None => std::future::pending().await,
        }
    }
}

impl Driver {
    /// After each input: the threads hear what is new.
    pub(super) fn refresh_packets(&mut self) -> Result<(), RunError> {
        for order in self.begin_packets() {
            self.feed(Input::Order(order))?;
        }
        let Some(running) = self.packets.running() else {
            return Ok(());
        };
        if std::mem::take(&mut running.changed)
            && let Some(own) = self.terminal.own_record()
        {
            let clear: Vec<_> = self.terminal.clear_list().copied().collect();
            let refused = running.host.apply(own.record(), &clear);
            running.put_off.came_out(refused, Instant::now());
        }
        let mut orders = running.path.refresh(&self.terminal);
        orders.extend(running.path.next_marks());
        for order in orders {
            self.feed(Input::Order(order))?;
        }
        Ok(())
    }

    fn begin_packets(&mut self) -> Vec<Order> {
        let Packets::Waiting(options) = &self.packets else {
            return Vec::new();
        };
        let own = self.terminal.own_record().map(|signed| signed.record());
        let Some(own) = own.filter(|own| own.groups.iter().any(|it| self.terminal.holds(it.group)))
        else {
            return Vec::new();
        };
        let v6 = host::has_v6(&own.prefixes);
        let named = own.groups.iter().filter_map(|group| group.mtu).min();
        let mtu = options.mtu(v6, named);
        let begun = begin(self.terminal.identity().number, options, mtu);
        self.packets = match begun {
            Ok(running) => {
                let (tun, port) = (running.path.tun_name(), running.path.port());
                tracing::info!(tun, port, mtu, "packets pass from now on");
                Packets::Running(Box::new(running))
            }
            Err(sentence) => {
                tracing::warn!("{sentence}");
                Packets::Failed(sentence)
            }
        };
        let Some(running) = self.packets.running() else {
            return Vec::new();
        };
        let peers = running.options.peers.iter();
        let order = |&(peer, endpoint)| Order::PeerAt {
            peer,
            endpoint: Some(endpoint),
        };
        peers.map(order).collect()
    }

    pub(super) fn on_asks(&mut self, first: Ask) -> Result<(), RunError> {
        self.on_ask(first)?;
        for _ in 0..ASKS_AT_ONCE {
            let Some(ask) = self.packets.running().and_then(|it| it.path.next_ask()) else {
                break;
            };
            self.on_ask(ask)?;
        }
        self.refresh_packets()
    }

    fn on_ask(&mut self, ask: Ask) -> Result<(), RunError> {
        let Some(running) = self.packets.running() else {
            return Ok(());
        };
        let now = self.clock.tick();
        match ask {
            Ask::Way { lane, ends } => {
                let echoes = running.echoes.as_ref();
                let way = if echoes.is_some_and(|it| it.are_between(ends)) {
                    Way::Drop(DropReason::NoWayThere)
                } else {
                    self.terminal.path(now, ends.0, ends.1)
                };
                let clock = self.clock;
                running
                    .path
                    .on_way(lane, ends, way, |tick| clock.instant(tick).into_std());
                if way == Way::Searching {
                    self.feed(Input::Timeout)?;
                }
            }
            Ask::Begin { lane, group } => running.path.want_session(lane, group),
            Ask::Spare { lane, group } => running.path.want_spare(lane, group),
            Ask::Session {
                name,
                origin,
                rate,
                sealed,
            } => {
                let terminal = &mut self.terminal;
                match running
                    .path
                    .on_session(terminal, now, name, origin, rate, &sealed)
                {
                    Ok(Begun { trial, stranger }) => {
                        if let Some(trial) = trial {
                            self.feed(Input::Opened(trial))?;
                        }
                        if let Some(heard) = stranger {
                            self.on_heard(heard)?;
                        }
                    }
                    // A peer that was excluded or lags behind is told what it has missed.
                    Err(reason) if is_unheard(reason) => {
                        let groups = self.terminal.own_record().map(|own| own.record());
                        let group = groups.and_then(|own| own.groups.first());
                        if let Some(group) = group.map(|it| it.group) {
                            self.feed(Input::Unheard(Unheard {
                                group,
                                peer: name.spi.sender(),
                                endpoint: origin.from,
                            }))?;
                        }
                    }
                    Err(_) => {}
                }
            }
            Ask::Mark { name, mark } => running.path.want_mark(name, mark),
            Ask::NextSession { name, rate } => {
                running.path.on_next_session(&self.terminal, name, rate);
            }
            Ask::StockMark { spi, mark } => {
                let mut senders = self.terminal.stock_senders();
                let group = senders
                    .find(|(_, it)| it.spi == spi)
                    .map(|(group, _)| group);
                drop(senders);
                if let Some(group) = group {
                    self.feed(Input::Order(Order::MarkStockSender {
                        group,
                        spi,
                        sequence: mark,
                    }))?;
                }
            }
            Ask::Heard(heard) => self.on_heard(heard)?,
            Ask::Refused { group, session } => running.path.on_refused(group, session),
            Ask::Message { origin, datagram } => {
                let outside = origin.interface != running.inside;
                if let Some(destination) = origin.to {
                    self.feed(Input::Search {
                        from: origin.from,
                        destination,
                        outside,
                        datagram: &datagram,
                    })?;
                }
            }
            Ask::Echo { side, packet } => self.on_echo(side, &packet)?,
            Ask::EchoesDue => self.on_echoes_due(),
            Ask::Ended { sentence } => {
                tracing::error!("{sentence}");
                self.packets = Packets::Failed(sentence);
            }
        }
        Ok(())
    }

    fn on_heard(&mut self, heard: Heard) -> Result<(), RunError> {
        let Some(key) = heard.key else {
            return Ok(());
        };
        self.feed(Input::PacketFrom(PacketFrom {
            group: heard.group,
            key,
            peer: heard.peer,
            source: heard.ends.0,
            destination: heard.ends.1,
            endpoint: heard.from,
        }))
    }

    pub(super) fn on_packets_second(&mut self) {
        if let Some(running) = self.packets.running() {
            running.path.on_second(&self.terminal);
            running.changed |= running.put_off.is_due(Instant::now()) || running.host.has_moved();
        }
    }

    /// What an event means to the threads.
    pub(super) fn tell_packets(&mut self, event: &Event) {
        if let Packets::Waiting(options) = &self.packets
            && matches!(
                event,
                Event::KeySetHeard { .. } | Event::RecordChanged { .. }
            )
        {
            close(options, &self.terminal);
        }
        let Some(running) = self.packets.running() else {
            return;
        };
        let (path, terminal) = (&mut running.path, &self.terminal);
        match *event {
            Event::Retired {
                group,
                epoch,
                generation,
            } => path.on_retired(group, (epoch, generation)),
            Event::Removed { group } => path.on_removed(group),
            Event::Excluded { ref terminals } => {
                path.on_excluded(terminals);
                if terminals.contains(&terminal.identity().number) {
                    path.wipe();
                }
            }
            Event::Locked { .. } => path.wipe(),
            Event::PacketSessionsReady {
                group,
                ref sessions,
            } => path.on_sessions(group, Some(sessions.clone())),
            Event::PacketSessionsRefused { group } => path.on_sessions(group, None),
            Event::PacketMarksStored {
                group,
                ref marks,
                ref displaced,
            } => path.on_marks_stored(terminal, group, marks, displaced),
            Event::StockMarkStored { spi, sequence, .. } => path.on_stock_mark(spi, sequence),
            Event::PathFound {
                source,
                destination,
            } => {
                path.on_path_found((source, destination));
                self.on_way_settled((source, destination), None);
            }
            Event::PathLost {
                source,
                destination,
                reason,
            } => {
                path.on_path_lost((source, destination), reason);
                self.on_way_settled((source, destination), Some(reason));
            }
            Event::PeerChanged { peer } => path.on_peer_changed(terminal, peer),
            Event::PathsChanged => {
                path.on_ways_changed();
                running.changed = true;
            }
            Event::KeySetHeard { .. } | Event::RecordChanged { .. } => running.changed = true,
            Event::KeyReceived { .. }
            | Event::Renewed { .. }
            | Event::FleetRenewed { .. }
            | Event::OffsetRenewed { .. }
            | Event::Sending { .. }
            | Event::SessionReady { .. }
            | Event::SessionRefused { .. }
            | Event::MarksStored { .. }
            | Event::StockSenderReady { .. }
            | Event::StockSenderRefused { .. }
            | Event::StockSenderEnded { .. }
            | Event::TimeHeard { .. }
            | Event::Readmitted { .. }
            | Event::Unlocked
            | Event::UnlockAllowed
            | Event::Stopped { .. }
            | Event::Resumed { .. }
            | Event::KeyWanted { .. }
            | Event::AskEnded { .. }
            | Event::Notified { .. } => {}
        }
    }

    /// A message of key search, or for a peer.
    pub(super) fn send_message(&mut self, to: SocketAddr, datagram: &[u8]) {
        let Some(running) = self.packets.running() else {
            return;
        };
        if let Err(error) = running.path.send(to, datagram) {
            tracing::debug!(%error, %to, "a message to a peer was not sent");
            self.terminal.count_drop(DropReason::NotSent);
        }
    }

    /// A probe leaves towards the destination itself.
    pub(super) fn send_probe(&mut self, to: IpAddr, datagram: &[u8]) {
        let Some(running) = self.packets.running() else {
            return;
        };
        let port = running.path.port();
        if let Some(echoes) = &mut running.echoes {
            if let Err(error) = echoes.ask(to, datagram) {
                tracing::debug!(%error, %to, "a probe was not sent");
                self.terminal.count_drop(DropReason::NotSent);
            }
        } else {
            self.send_message(SocketAddr::new(to, port), datagram);
        }
    }
}

/// SECURITY: what may be closed without a key is (KR-545, KR-561), by the record that came last, whether or
/// not it still counts, and by the clear list of now.
fn close(options: &PacketOptions, terminal: &Terminal) {
    let Some(own) = terminal.stored_record() else {
        return;
    };
    let clear: Vec<_> = terminal.clear_list().copied().collect();
    for error in host::close(options, own.record(), &clear) {
        tracing::warn!(error, "not everything is closed until packets pass");
    }
}

fn begin(own: TerminalNumber, options: &PacketOptions, mtu: u16) -> Result<Running, String> {
    let lanes = how_many_lanes(options.packet_threads);
    let queues = Tun::open_queues(&options.tun, mtu, lanes).map_err(|error| no_tun(&error))?;
    let tun = queues.first().expect("there is one at least");
    if options.gateway.is_none() {
        tun.fit_batches(mtu, esp_len(usize::from(mtu)));
    }
    let wires = Wire::open_any(options.listen, lanes)
        .map_err(|error| format!("packets do not pass: the UDP port cannot be opened: {error}"))?;
    if let Some(outside) = options.outside.as_deref().and_then(host::index_of) {
        wires[0].send_multicast_by(outside).map_err(|error| {
            format!("packets do not pass: no multicast by the outside: {error}")
        })?;
    }
    let name = tun.name().to_owned();
    let path = PacketPath::start(own, queues, wires, options.keepalive)
        .map_err(|error| format!("packets do not pass: no thread for them: {error}"))?;
    let host = Host::set_up(&name, path.port(), options)
        .map_err(|error| format!("packets do not pass: {error}"))?;
    let echoes = EchoSearch::begin(options, &name)?;
    let inside = options.gateway.as_deref().unwrap_or(&name);
    Ok(Running {
        inside: host::index_of(inside),
        path,
        host,
        echoes,
        options: options.clone(),
        changed: true,
        put_off: PutOff::default(),
    })
}

fn no_tun(error: &std::io::Error) -> String {
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        "packets do not pass: a TUN interface needs CAP_NET_ADMIN; give it with `setcap \
         cap_net_admin+ep` or run as root, or say --no-packets; everything else works"
            .to_owned()
    } else {
        format!("packets do not pass: there is no TUN interface: {error}")
    }
}

/// Whether its sender may not know what everybody else does.
fn is_unheard(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::ExcludedSender | DropReason::OlderGeneration | DropReason::UnknownTag
    )
}

/// Questions that are answered before something else gets its turn.
const ASKS_AT_ONCE: usize = 256;
