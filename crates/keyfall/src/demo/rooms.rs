//! Network namespaces for the chapter of private networks: rooms with cables between them, and what
//! an application does in one of them. They belong to this process alone and go with it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use socket2::{Domain, Protocol, Socket, Type};

/// One end of a cable.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) room: &'static str,
    pub(super) interface: &'static str,
    /// With its prefix length, as `ip` takes it.
    pub(super) address: &'static str,
}

/// Makes an empty room, where only its own loopback is.
pub(super) fn make(room: &str) -> anyhow::Result<()> {
    ip(&["netns", "add", room])?;
    ip(&["-n", room, "link", "set", "lo", "up"])
}

/// Lays a cable.
pub(super) fn connect(a: End, b: End) -> anyhow::Result<()> {
    ip(&[
        "link",
        "add",
        a.interface,
        "netns",
        a.room,
        "type",
        "veth",
        "peer",
        "name",
        b.interface,
        "netns",
        b.room,
    ])?;
    for end in [a, b] {
        ip(&[
            "-n",
            end.room,
            "address",
            "add",
            end.address,
            "dev",
            end.interface,
        ])?;
        ip(&["-n", end.room, "link", "set", end.interface, "up"])?;
    }
    Ok(())
}

/// Runs `ip` in the room that `words` name, or in this process's own.
pub(super) fn ip(words: &[&str]) -> anyhow::Result<()> {
    let run = Command::new("ip")
        .args(words)
        .output()
        .context("`ip` does not start: it is in Debian's package iproute2")?;
    let told = String::from_utf8_lossy(&run.stderr);
    ensure!(
        run.status.success(),
        "`ip {}`: {}",
        words.join(" "),
        told.trim()
    );
    Ok(())
}

/// Runs `act` in a thread of its own in `room`.
pub(super) fn within<T: Send + 'static>(
    room: &str,
    act: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> JoinHandle<anyhow::Result<T>> {
    let place = Path::new("/run/netns").join(room);
    std::thread::spawn(move || {
        let place = File::open(&place).with_context(|| format!("no room {}", place.display()))?;
        move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))
            .context("a thread cannot enter its room")?;
        act()
    })
}

/// The same, waited for.
pub(super) fn act_within<T: Send + 'static>(
    room: &str,
    act: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    match within(room, act).join() {
        Ok(done) => done,
        Err(_) => bail!("a thread in {room} ended badly"),
    }
}

/// Lets this room pass packets on.
pub(super) fn forward(room: &str) -> anyhow::Result<()> {
    act_within(room, || {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("no forwarding")
    })
}

/// A line of the document that is downloaded; it must not be seen on the way.
pub(super) const LINE: &str = "The depot's manifest, in plain HTTP. ";

/// A document of `octets` octets.
pub(super) fn document(octets: usize) -> Vec<u8> {
    LINE.bytes().cycle().take(octets).collect()
}

/// A plain web server in `room`, until this process ends.
pub(super) fn serve_document(room: &str, at: Ipv4Addr, octets: usize) -> anyhow::Result<()> {
    let listener = act_within(room, move || {
        TcpListener::bind((at, HTTP)).context("the web server does not start")
    })?;
    let body = document(octets);
    std::thread::spawn(move || {
        for visitor in listener.incoming().flatten() {
            // Who goes away early gets no more.
            answer(visitor, &body).unwrap_or_default();
        }
    });
    Ok(())
}

fn answer(mut visitor: TcpStream, body: &[u8]) -> std::io::Result<()> {
    visitor.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = [0; 1024];
    let _length = visitor.read(&mut request)?;
    write!(
        visitor,
        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    visitor.write_all(body)
}

/// Downloads the document: its octets and how long it took from the first packet on.
pub(super) fn download(from: Ipv4Addr, patience: Duration) -> anyhow::Result<(Vec<u8>, Duration)> {
    let began = Instant::now();
    let server = SocketAddr::from((from, HTTP));
    let mut line = TcpStream::connect_timeout(&server, patience).context("no connection")?;
    line.set_read_timeout(Some(patience))?;
    line.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = Vec::new();
    line.read_to_end(&mut page)
        .context("the download breaks off")?;
    let head = page
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .context("no page came")?;
    Ok((page.split_off(head + 4), began.elapsed()))
}

/// What came of a row of pings.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Pings {
    pub(super) sent: u32,
    pub(super) answered: u32,
}

/// Sends ICMP echo requests to `to` every `pause` until `count` are sent; counts who is answered.
pub(super) fn ping(to: Ipv4Addr, count: u16, pause: Duration) -> anyhow::Result<Pings> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
        .context("no socket for pings")?;
    socket.connect(&SocketAddr::from((to, 0)).into())?;
    let socket = UdpSocket::from(socket);
    let ears = socket.try_clone()?;
    ears.set_read_timeout(Some(Duration::from_millis(500)))?;
    let listens = std::thread::spawn(move || {
        let mut seen = std::collections::BTreeSet::new();
        let mut packet = [0; 256];
        // Ends when nothing came for a while: the asker has ended, or the path has.
        while seen.len() < usize::from(count) {
            let Ok(length) = ears.recv(&mut packet) else {
                break;
            };
            let reply = etherparse::Ipv4Slice::from_slice(&packet[..length]).ok();
            let reply = reply.and_then(|ip| {
                etherparse::Icmpv4Slice::from_slice(ip.payload().payload)
                    .ok()
                    .map(|icmp| icmp.icmp_type())
            });
            if let Some(etherparse::Icmpv4Type::EchoReply(header)) = reply {
                seen.insert(header.seq);
            }
        }
        seen.len()
    });
    for seq in 1..=count {
        let header = etherparse::IcmpEchoHeader { id: 7, seq };
        let payload = [0x5a; 32];
        let echo = etherparse::Icmpv4Header::with_checksum(
            etherparse::Icmpv4Type::EchoRequest(header),
            &payload,
        );
        let mut packet = echo.to_bytes().to_vec();
        packet.extend(payload);
        // What a gateway drops is not answered; that is the count's business.
        let _sent = socket.send(&packet);
        std::thread::sleep(pause);
    }
    let answered = listens
        .join()
        .map_err(|_| anyhow::anyhow!("the thread of the pings ended badly"))?;
    Ok(Pings {
        sent: u32::from(count),
        answered: u32::try_from(answered)?,
    })
}

/// Somebody who sees every frame that passes in a room.
pub(super) struct Tap {
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    pub(super) fn on(room: &str) -> anyhow::Result<Self> {
        Ok(Self::hearing(act_within(room, tap)?))
    }

    /// In the room of this process itself.
    pub(super) fn on_own_room() -> anyhow::Result<Self> {
        Ok(Self::hearing(tap()?))
    }

    fn hearing(socket: Socket) -> Self {
        let heard: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let noted = Arc::clone(&heard);
        std::thread::spawn(move || {
            let mut frame = vec![0; 70_000];
            let mut socket = socket;
            while let Ok(length) = socket.read(&mut frame) {
                let mut heard = noted.lock().unwrap_or_else(PoisonError::into_inner);
                if heard.len() < FRAMES_MAX {
                    heard.push(frame[..length].to_vec());
                }
            }
        });
        Self { heard }
    }

    /// What passed since it was asked last.
    pub(super) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn tap() -> anyhow::Result<Socket> {
    let every = i32::from(ETH_P_ALL.to_be());
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(every)))
        .context("nobody can listen in this room")?;
    socket.set_recv_buffer_size(16 << 20)?;
    Ok(socket)
}

/// In how many frames the document can be read.
pub(super) fn readable(frames: &[Vec<u8>]) -> usize {
    let needle = LINE.as_bytes();
    frames
        .iter()
        .filter(|frame| frame.windows(needle.len()).any(|piece| piece == needle))
        .count()
}

const HTTP: u16 = 80;
/// Every protocol (linux/if_ether.h).
const ETH_P_ALL: u16 = 3;
const FRAMES_MAX: usize = 200_000;
