//! A terminal that runs in its own thread, its control socket, and the local application's side.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keyfall_api::control::{Answer, MediaReceive, MediaSend, Request, TerminalStatus, Why};
use keyfall_terminal::{Ending, RunError, RunOptions, serve, socket_path};
use tokio::sync::oneshot;

use crate::fleet::{Carrier, Fleet, GROUP};

pub(crate) struct Running {
    pub(crate) dir: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    tamper: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<Ending, RunError>>>,
}

impl Running {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::start_with(dir, RunOptions::default())
    }

    pub(crate) fn start_with(dir: &Path, options: RunOptions) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (tamper, opened) = oneshot::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        let at = dir.to_owned();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(serve(
                at,
                options,
                |_| ready.send(()).unwrap(),
                async {
                    if opened.await.is_err() {
                        std::future::pending::<()>().await;
                    }
                },
                async {
                    drop(stopped.await);
                },
            ))
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self {
            dir: dir.to_owned(),
            stop: Some(stop),
            tamper: Some(tamper),
            thread: Some(thread),
        }
    }

    /// Enrolled, running, with the beacon heard and the group's key held.
    pub(crate) fn member(fleet: &Fleet, carrier: &Carrier, dir: &Path, number: u32) -> Self {
        fleet.enrol(dir, number, &carrier.address);
        let running = Self::start(dir);
        carrier.tell(&fleet.time());
        carrier.tell(&fleet.key_dist(GROUP, 0, &[number]));
        running.until("it sends", |status| {
            status.groups.iter().any(|g| g.sending.is_some())
        });
        running
    }

    pub(crate) fn status(&self) -> TerminalStatus {
        match ask(&self.dir, &Request::Status {}) {
            Answer::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn why(&self) -> Why {
        match ask(&self.dir, &Request::Why {}) {
            Answer::Why(why) => why,
            other => panic!("{other:?}"),
        }
    }

    /// How often something was dropped.
    pub(crate) fn drops(&self, reason: &str) -> u64 {
        let why = self.why();
        why.reasons
            .iter()
            .find(|r| r.reason == reason)
            .map_or(0, |r| r.count)
    }

    pub(crate) fn until(&self, what: &str, holds: impl Fn(&TerminalStatus) -> bool) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if holds(&self.status()) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("not in time: {what}: {:?}", self.status());
    }

    /// As the signal does.
    pub(crate) fn tamper(&mut self) {
        self.tamper.take().unwrap().send(()).unwrap();
    }

    /// Waits for an end that nobody here asked for.
    pub(crate) fn ending(mut self) -> Ending {
        self.thread.take().unwrap().join().unwrap().unwrap()
    }

    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let (Some(stop), Some(thread)) = (self.stop.take(), self.thread.take()) {
            let told = stop.send(());
            let outcome = thread.join();
            if !thread::panicking() {
                outcome.unwrap().unwrap();
                told.unwrap();
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// A connection to a control socket; a relay lives as long as it.
pub(crate) struct Talk {
    from: BufReader<UnixStream>,
}

impl Talk {
    pub(crate) fn to(dir: &Path) -> Self {
        let stream = UnixStream::connect(socket_path(dir)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            from: BufReader::new(stream),
        }
    }

    pub(crate) fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.from.get_mut().write_all(line.as_bytes()).unwrap();
    }

    pub(crate) fn close_writing(&self) {
        self.from
            .get_ref()
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
    }

    /// The next line; empty at the end.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        match self.from.read_line(&mut line) {
            // What the terminal did not read when it hung up.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            read => assert!(read.is_ok(), "{read:?}"),
        }
        line
    }

    pub(crate) fn hear(&mut self) -> Answer {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Answer {
        self.say(&serde_json::to_string(request).unwrap());
        self.hear()
    }
}

pub(crate) fn ask(dir: &Path, request: &Request) -> Answer {
    Talk::to(dir).ask(request)
}

/// Begins a relay; it ends when what is returned is dropped.
pub(crate) fn begin(dir: &Path, request: &Request) -> Talk {
    let mut talk = Talk::to(dir);
    match talk.ask(request) {
        Answer::Started(_) => talk,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn send_request(rtp: SocketAddrV4, to: SocketAddrV4) -> MediaSend {
    MediaSend {
        group: GROUP,
        rtp: rtp.to_string(),
        to: to.to_string(),
        interface: None,
        ttl: 0,
        suite: None,
        rederive_after: None,
        stock: false,
        mki: false,
        wait: false,
    }
}

pub(crate) fn receive_request(from: SocketAddrV4, rtp: SocketAddrV4) -> MediaReceive {
    MediaReceive {
        group: GROUP,
        from: from.to_string(),
        interface: None,
        rtp: rtp.to_string(),
        suite: None,
        rederive_after: None,
        wait: false,
    }
}

/// Two ports of a local application that takes RTP and RTCP.
pub(crate) struct Application {
    pub(crate) rtp: UdpSocket,
    pub(crate) rtcp: UdpSocket,
    pub(crate) place: SocketAddrV4,
}

impl Application {
    pub(crate) fn new() -> Self {
        let (rtp, rtcp, place) = two_ports();
        for socket in [&rtp, &rtcp] {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
        }
        Self { rtp, rtcp, place }
    }

    /// The next RTP packet.
    pub(crate) fn take(&self) -> Vec<u8> {
        take(&self.rtp).expect("a packet in time")
    }

    /// Nothing more comes.
    pub(crate) fn is_silent(&self) -> bool {
        self.rtp
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let silent = take(&self.rtp).is_none();
        self.rtp.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}

pub(crate) fn take(socket: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = [0; 2048];
    let len = socket.recv(&mut buffer).ok()?;
    Some(buffer[..len].to_vec())
}

/// A free RTP port with a free RTCP port after it; both are given up again.
pub(crate) fn free_place() -> SocketAddrV4 {
    two_ports().2
}

fn two_ports() -> (UdpSocket, UdpSocket, SocketAddrV4) {
    loop {
        let rtp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let SocketAddr::V4(place) = rtp.local_addr().unwrap() else {
            continue;
        };
        if place.port() < u16::MAX
            && let Ok(rtcp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, place.port() + 1))
        {
            return (rtp, rtcp, place);
        }
    }
}

/// A plain RTP packet, PCM, 20 ms.
pub(crate) fn rtp(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 11];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend((0..160u32).map(|i| (i + u32::from(sequence)).to_be_bytes()[3]));
    packet
}

/// A plain RTCP receiver report without blocks, which is a compound packet of one.
pub(crate) fn rtcp(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend(ssrc.to_be_bytes());
    packet
}

/// Hears all SRTP on a multicast group, as anybody can.
pub(crate) fn eavesdropper(group: SocketAddrV4) -> UdpSocket {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.set_multicast_all_v4(false).unwrap();
    socket.bind(&group.into()).unwrap();
    socket
        .join_multicast_v4(group.ip(), &Ipv4Addr::LOCALHOST)
        .unwrap();
    let socket: UdpSocket = socket.into();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends to a multicast group on loopback, as anybody can.
pub(crate) fn stranger() -> UdpSocket {
    let socket = socket2::Socket::from(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    socket.set_multicast_if_v4(&Ipv4Addr::LOCALHOST).unwrap();
    socket.into()
}

/// For a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(30);
