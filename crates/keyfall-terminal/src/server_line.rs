//! The way to the server and back: one UDP socket, to the first of its addresses that answers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::driver::Waking;
use crate::packet_path;

/// Where the server is said to be, and the socket to it.
#[derive(Debug)]
pub(crate) struct ServerLine {
    /// "HOST:PORT", in the order in which they are tried.
    servers: Vec<String>,
    next: usize,
    line: Option<Line>,
    wakings: mpsc::Sender<Waking>,
    /// What was sent before the name was resolved.
    waiting: Vec<Vec<u8>>,
    resolving: bool,
    pub(crate) sent: u64,
}

#[derive(Debug)]
struct Line {
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    hears: JoinHandle<()>,
}

impl ServerLine {
    pub(crate) fn new(servers: Vec<String>, wakings: mpsc::Sender<Waking>) -> Self {
        Self {
            servers,
            next: 0,
            line: None,
            wakings,
            waiting: Vec::new(),
            resolving: false,
            sent: 0,
        }
    }

    /// Whether there is an address at all.
    pub(crate) fn is_known(&self) -> bool {
        !self.servers.is_empty()
    }

    /// The address that is spoken to.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.line.as_ref().map(|line| line.to)
    }

    /// Sends, as soon as there is a socket. What does not go out is sent again by the machine.
    pub(crate) fn send(&mut self, datagram: Vec<u8>) {
        match &self.line {
            Some(line) => {
                self.sent += 1;
                if let Err(error) = line.socket.try_send(&datagram) {
                    tracing::debug!(%error, "a datagram to the server was not taken");
                }
            }
            None => {
                if self.waiting.len() < WAITING_MAX {
                    self.waiting.push(datagram);
                }
                self.resolve();
            }
        }
    }

    /// Nobody answered: the next address is tried, resolved anew.
    pub(crate) fn turn(&mut self) {
        if let Some(line) = self.line.take() {
            line.hears.abort();
        }
        self.next = (self.next + 1) % self.servers.len().max(1);
    }

    fn resolve(&mut self) {
        let Some(server) = self.servers.get(self.next).cloned() else {
            return;
        };
        if std::mem::replace(&mut self.resolving, true) {
            return;
        }
        let wakings = self.wakings.clone();
        tokio::spawn(async move {
            let connected = connect(&server).await;
            // The loop may have ended.
            drop(wakings.send(Waking::Connected { server, connected }).await);
        });
    }

    /// What came of resolving.
    pub(crate) fn on_connected(&mut self, server: &str, connected: io::Result<UdpSocket>) {
        self.resolving = false;
        let connected = connected.and_then(|socket| socket.peer_addr().map(|to| (socket, to)));
        match connected {
            Ok((socket, to)) => {
                tracing::info!(server, address = %to, "the server is spoken to");
                let socket = Arc::new(socket);
                let hears = tokio::spawn(hear(socket.clone(), self.wakings.clone()));
                self.line = Some(Line { socket, to, hears });
                for datagram in std::mem::take(&mut self.waiting) {
                    self.send(datagram);
                }
            }
            Err(error) => {
                tracing::warn!(server, %error, "the server's address cannot be used");
                self.waiting.clear();
                self.turn();
            }
        }
    }
}

impl Drop for ServerLine {
    fn drop(&mut self) {
        if let Some(line) = self.line.take() {
            line.hears.abort();
        }
    }
}

async fn connect(server: &str) -> io::Result<UdpSocket> {
    let mut refused = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in lookup_host(server).await? {
        let own: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(own).await?;
        packet_path::mark(&socket);
        match socket.connect(address).await {
            Ok(()) => return Ok(socket),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

/// Passes what the server sends on until the loop ends. The socket is connected: nobody else is
/// heard on it.
async fn hear(socket: Arc<UdpSocket>, wakings: mpsc::Sender<Waking>) {
    let mut buffer = [0u8; 2048];
    loop {
        match socket.recv(&mut buffer).await {
            Ok(len) => {
                let answer = Waking::FromServer(buffer[..len].to_vec());
                if wakings.send(answer).await.is_err() {
                    return;
                }
            }
            // Nobody listens there now: the machine asks again.
            Err(error) => {
                tracing::debug!(%error, "the server is not heard");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

/// Datagrams that wait for a name to be resolved.
const WAITING_MAX: usize = 64;
