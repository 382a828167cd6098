//! Key search by ICMP echo as the driver does it: probes leave as echo requests; what comes is fed to
//! the machine; its answers go home in the reply of an unmodified host, or in its place.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use keyfall_protocol::DropReason;
use keyfall_protocol::rng::octets;
use keyfall_protocol::search::message::SearchMessage;
use keyfall_protocol::terminal::Input;
use tokio::time::sleep_until;

use crate::driver::{Driver, RunError};
use crate::os_random::OsRandom;
use crate::packet_path::echo::{Echo, EchoName};
use crate::packet_path::{Ask, By, EchoWire, Echoes, PacketOptions, SearchBy, Side, host};

/// The sockets, and the exchanges that are open.
pub(super) struct EchoSearch {
    wire: EchoWire,
    planted: Echoes,
    /// There are unmodified hosts, which may answer themselves.
    is_gateway: bool,
    /// The request that the machine looks at now.
    asked: Option<EchoName>,
    id: u16,
    seq: u16,
}

impl EchoSearch {
    /// `None`: searches go by UDP.
    pub(super) fn begin(options: &PacketOptions, tun: &str) -> Result<Option<Self>, String> {
        if options.search == SearchBy::Udp {
            return Ok(None);
        }
        let index = |name: &str| {
            host::index_of(name)
                .ok_or_else(|| format!("packets do not pass: there is no interface {name}"))
        };
        let outside = match &options.outside {
            Some(outside) => By::Only(index(outside)?),
            None => By::AllBut(index(tun)?),
        };
        let inside = options.gateway.as_deref().map(index).transpose()?;
        let wire = EchoWire::open(outside, inside).map_err(|error| no_sockets(&error))?;
        Ok(Some(Self {
            wire,
            planted: Echoes::default(),
            is_gateway: inside.is_some(),
            asked: None,
            id: u16::from_be_bytes(octets(&mut OsRandom)),
            seq: 0,
        }))
    }

    /// What is heard next, or that a host is silent.
    pub(super) async fn asked(&mut self) -> Ask {
        let due = self.planted.due();
        let late = due.unwrap_or_else(Instant::now);
        tokio::select! {
            (side, packet) = self.wire.heard() => Ask::Echo { side, packet },
            () = sleep_until(late.into()), if due.is_some() => Ask::EchoesDue,
        }
    }

    /// A probe leaves.
    pub(super) fn ask(&mut self, to: IpAddr, probe: &[u8]) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        self.wire.ask(to, (self.id, self.seq), probe)
    }

    pub(super) fn are_between(&self, ends: (IpAddr, IpAddr)) -> bool {
        self.planted.are_between(ends.0, ends.1)
    }

    /// The machine has answered the request that it looks at.
    fn answer(&mut self, name: EchoName, answer: Vec<u8>) -> io::Result<()> {
        let packet = if self.is_gateway {
            self.planted.plant(name, answer, Instant::now())
        } else {
            let reply = Echo {
                is_request: false,
                name,
                payload: &answer,
            };
            reply.write()
        };
        self.wire.send(&packet.ok_or(io::ErrorKind::InvalidInput)?)
    }
}

impl Driver {
    pub(super) fn on_echo(&mut self, side: Side, packet: &[u8]) -> Result<(), RunError> {
        let Some(running) = self.packets.running() else {
            return Ok(());
        };
        let (port, Some(echoes)) = (running.path.port(), &mut running.echoes) else {
            return Ok(());
        };
        let Some(echo) = Echo::read(packet) else {
            return Ok(());
        };
        if side == Side::Inside {
            if let Some(reply) = echoes.planted.complete(&echo) {
                self.send_echo(&reply);
            }
            return Ok(());
        }
        // A request that is no probe is a ping of somebody; a reply with a probe is one of ours that no
        // gateway met.
        let fits = match SearchMessage::decode(echo.payload) {
            Ok(SearchMessage::Probe(_)) => echo.is_request,
            Ok(SearchMessage::Answer(_)) => !echo.is_request,
            Err(_) => false,
        };
        if !fits {
            return Ok(());
        }
        let EchoName { asker, asked, .. } = echo.name;
        let from = if echo.is_request { asker } else { asked };
        echoes.asked = echo.is_request.then_some(echo.name);
        let outcome = self.feed(Input::Search {
            // Echoes have no port: who answers is spoken to where it was asked, at the packet port.
            from: SocketAddr::new(from, port),
            destination: if echo.is_request { asked } else { asker },
            outside: true,
            datagram: echo.payload,
        });
        if let Some(echoes) = self.packets.running().and_then(|it| it.echoes.as_mut()) {
            echoes.asked = None;
        }
        outcome
    }

    pub(super) fn on_echoes_due(&mut self) {
        let running = self.packets.running();
        let Some(echoes) = running.and_then(|it| it.echoes.as_mut()) else {
            return;
        };
        for reply in echoes.planted.overdue(Instant::now()) {
            self.send_echo(&reply);
        }
    }

    /// An answer goes back as its probe came.
    pub(super) fn send_answer(&mut self, to: SocketAddr, answer: Vec<u8>) {
        let running = self.packets.running();
        let echoes = running.and_then(|it| it.echoes.as_mut());
        let asked = echoes.and_then(|it| it.asked.take().map(|name| (it, name)));
        let Some((echoes, name)) = asked else {
            return self.send_message(to, &answer);
        };
        if let Err(error) = echoes.answer(name, answer) {
            tracing::debug!(%error, %to, "an answer was not sent");
            self.terminal.count_drop(DropReason::NotSent);
        }
    }

    fn send_echo(&mut self, packet: &[u8]) {
        let running = self.packets.running();
        let echoes = running.and_then(|it| it.echoes.as_ref());
        if let Some(Err(error)) = echoes.map(|it| it.wire.send(packet)) {
            tracing::debug!(%error, "an answer was not sent");
            self.terminal.count_drop(DropReason::NotSent);
        }
    }
}

fn no_sockets(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "packets do not pass: key search by ICMP echo needs CAP_NET_RAW; give it with `setcap \
         cap_net_admin,cap_net_raw+ep`, run as root, or search by UDP"
            .to_owned()
    } else {
        format!("packets do not pass: there are no sockets for key search by ICMP echo: {error}")
    }
}
