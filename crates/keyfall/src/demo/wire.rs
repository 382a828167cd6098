//! The way to the server and back, with somebody who listens on it: hands datagrams on between
//! terminals and the server, and notes what each of them is. He sees kinds and lengths, no key.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use keyfall_protocol::command::{HaltKind, Unverified};
use keyfall_protocol::sharing::message::Message;
use keyfall_protocol::sharing::{Bundle, Confirmation};

/// A UDP address that stands before the server's. Hands on until the process ends.
pub(super) struct Wire {
    pub(super) address: SocketAddr,
    passed: Arc<Mutex<Vec<Datagram>>>,
}

/// What passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Datagram {
    pub(super) kind: &'static str,
    pub(super) octets: usize,
}

impl Wire {
    pub(super) fn to(server: SocketAddr) -> anyhow::Result<Self> {
        let front = UdpSocket::bind("127.0.0.1:0").context("no socket before the server")?;
        let address = front
            .local_addr()
            .context("a bound socket has an address")?;
        let passed = Arc::default();
        let noted = Arc::clone(&passed);
        std::thread::spawn(move || {
            if let Err(fault) = hand_on(&front, server, &noted) {
                tracing::warn!("nothing comes to the server any more: {fault:#}");
            }
        });
        Ok(Self { address, passed })
    }

    /// All that passed, in its order.
    pub(super) fn passed(&self) -> Vec<Datagram> {
        self.passed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What terminals send goes to the server, from a port for each; what comes there goes back.
fn hand_on(
    front: &UdpSocket,
    server: SocketAddr,
    passed: &Arc<Mutex<Vec<Datagram>>>,
) -> anyhow::Result<()> {
    let mut terminals: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut buffer = [0; 2048];
    loop {
        let (len, from) = front.recv_from(&mut buffer)?;
        note(passed, &buffer[..len]);
        let back = match terminals.entry(from) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let back = UdpSocket::bind("127.0.0.1:0")?;
                back.connect(server)?;
                let (answers, front) = (back.try_clone()?, front.try_clone()?);
                let noted = Arc::clone(passed);
                std::thread::spawn(move || hand_back(&answers, &front, from, &noted));
                new.insert(back)
            }
        };
        // Where the server is not there, it is as if the datagram was lost.
        back.send(&buffer[..len]).map(drop).unwrap_or_default();
    }
}

fn hand_back(
    answers: &UdpSocket,
    front: &UdpSocket,
    to: SocketAddr,
    passed: &Mutex<Vec<Datagram>>,
) {
    let mut buffer = [0; 2048];
    loop {
        if let Ok(len) = answers.recv(&mut buffer) {
            note(passed, &buffer[..len]);
            front
                .send_to(&buffer[..len], to)
                .map(drop)
                .unwrap_or_default();
        }
    }
}

fn note(passed: &Mutex<Vec<Datagram>>, octets: &[u8]) {
    let datagram = Datagram {
        kind: kind(octets),
        octets: octets.len(),
    };
    let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
    passed.push(datagram);
}

/// A command that came so has the name of the command.
fn kind(octets: &[u8]) -> &'static str {
    match Message::decode_datagram(octets) {
        Ok(Message::Command { frame }) => {
            Unverified::decode(frame).map_or("COMMAND", |read| read.command().body.name())
        }
        Ok(message) => message.name(),
        Err(_) => match Confirmation::decode(octets) {
            Ok(said) => match said.kind {
                HaltKind::Stop => "STOP-ACK",
                HaltKind::Start => "START-ACK",
            },
            Err(_) => Bundle::decode(octets).map_or("?", |_| "BUNDLE"),
        },
    }
}

/// In the order in which they passed, with their octets: "KEY-REQ 244, KEY-DIS 294, ACK 52".
pub(super) fn listed(datagrams: &[Datagram]) -> String {
    let alike = datagrams.chunk_by(|one, next| one == next);
    let run = |run: &[Datagram]| {
        let (kind, octets) = run.first().map_or(("", 0), |one| (one.kind, one.octets));
        match run.len() {
            1 => format!("{kind} {octets}"),
            times => format!("{times} × {kind} {octets}"),
        }
    };
    alike.map(run).collect::<Vec<_>>().join(", ")
}
