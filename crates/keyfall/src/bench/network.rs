//! A real server, its threads and its store, on loopback: what it serves, and a fleet that is
//! switched on at once. Terminals and server share the cores of this machine.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keyfall_protocol::ids::Tick;
use keyfall_protocol::rng::octets;
use keyfall_protocol::server::{Founding, Moment};
use keyfall_protocol::sharing::message::{Cookie, KeyReq, Message, marked, type_of};
use keyfall_protocol::sharing::pair::{Ask, Line};
use keyfall_protocol::sharing::{KemPublic, KemSecret, KemSuite, SharingSuite, datagrams};
use keyfall_protocol::terminal::{AskOutcome, Input};
use keyfall_server::store::Store;
use keyfall_server::{Directory, OsRandom, RunError};
use serde::Serialize;
use tokio::net;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::desk::{KEY_DIS, PART};
use super::fleet::{Fleet, Member, Operated, drawn, founding, wall};

/// A fleet that is switched on at once, in suite `psk`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Restart {
    pub(super) terminals: u32,
    /// Seconds until the last was current.
    pub(super) seconds: f64,
    pub(super) median_seconds: f64,
}

/// A server at work in a directory of its own, and the terminals that it knows.
pub(super) struct Running {
    pub(super) terminals: Vec<Member>,
    /// The same server as it was before it ran: what a client needs of it is in there.
    before: Operated,
    address: SocketAddr,
    end: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), RunError>>,
    _dir: tempfile::TempDir,
}

impl Running {
    pub(super) fn start(suite: SharingSuite, terminals: u32) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("keyfall-bench-")
            .tempdir()?;
        let path = dir.path().join("server");
        let port = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let founding = Founding {
            listen: vec![port.to_string()],
            ..founding(&[suite])?
        };
        keyfall_server::init(&path, founding, "bench".to_owned())?;
        let fleet = enrol(&path, terminals)?;
        let (end, ended) = oneshot::channel();
        let (ready, running) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(RunError::Thread)?;
            runtime.block_on(keyfall_server::run(
                &path,
                // The bench may have given up.
                move || ready.send(()).unwrap_or_default(),
                async move { drop(ended.await) },
            ))
        });
        if running.recv_timeout(PATIENCE).is_err() {
            let outcome = thread.join().map_err(|_| anyhow::anyhow!("a panic"))?;
            anyhow::bail!("the server does not run: {outcome:?}");
        }
        Ok(Self {
            terminals: fleet.terminals,
            before: fleet.desk,
            address: port,
            end,
            thread,
            _dir: dir,
        })
    }

    pub(super) fn stop(self) -> anyhow::Result<()> {
        // It may have ended by itself: its outcome says so.
        self.end.send(()).unwrap_or_default();
        let outcome = self.thread.join().map_err(|_| anyhow::anyhow!("a panic"))?;
        Ok(outcome?)
    }

    /// Requests that a server answers in a second, sent as fast as the answers come.
    pub(super) fn served(&self, suite: SharingSuite, count: usize) -> anyhow::Result<f64> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(self.address)?;
        socket.set_read_timeout(Some(LOSS_AFTER))?;
        let requests = self.requests(suite, count, &socket)?;
        let began = Instant::now();
        let (mut next, mut open, mut answered) = (requests.iter(), 0_usize, 0_usize);
        let mut buffer = [0; 2048];
        loop {
            while open < WINDOW
                && let Some(request) = next.next()
            {
                for octets in request {
                    socket.send(octets)?;
                }
                open += 1;
            }
            if open == 0 {
                break;
            }
            match socket.recv(&mut buffer) {
                // Of an answer in several parts the last counts.
                Ok(len) => match type_of(&buffer[..len]) {
                    Some(KEY_DIS) => (open, answered) = (open.saturating_sub(1), answered + 1),
                    Some(PART) if is_last(&buffer[..len]) => {
                        (open, answered) = (open.saturating_sub(1), answered + 1);
                    }
                    Some(_) | None => {}
                },
                // A datagram was lost: the window is open again.
                Err(_) => open = 0,
            }
        }
        let took = began.elapsed().as_secs_f64();
        anyhow::ensure!(
            answered * 10 >= count * 9,
            "{answered} of {count} requests were answered"
        );
        Ok(answered as f64 / took)
    }

    /// Fresh requests of all terminals in turn, as datagrams; with a cookie where public-key work
    /// asks for one.
    fn requests(
        &self,
        suite: SharingSuite,
        count: usize,
        socket: &UdpSocket,
    ) -> anyhow::Result<Vec<Vec<Vec<u8>>>> {
        let machine = &self.before.machine;
        let g = machine.fleet().fleet_generation;
        let records: Vec<_> = machine.terminals().collect();
        let kem = KemSuite::of(suite);
        let fresh = kem.map(|kem| KemSecret::from_seed(kem, drawn()));
        let server = [&machine.fleet().kem, &machine.fleet().kem_pq];
        let server = server.into_iter().flatten().map(KemSecret::public);
        let to = server.into_iter().find(|it| Some(it.suite()) == kem);
        let wall = wall()?;
        let mut cookie = None;
        let mut requests = Vec::new();
        for record in records.iter().cycle().take(count) {
            let ask = Ask {
                terminal: Some(record.number),
                nonce: octets(&mut OsRandom),
                time: wall,
                held: Vec::new(),
                fresh: fresh.as_ref().map(|it| it.public().octets().to_vec()),
            };
            let wrap = &record.wrap;
            let inner = |cookie| {
                let line = Line { suite, wrap };
                ask.seal(line, g, cookie, padded(suite), &mut OsRandom)
            };
            let Some(to) = to else {
                requests.push(vec![marked(&inner(None))]);
                continue;
            };
            let sealed = |cookie| sealed(to, suite, &inner(cookie), cookie);
            if cookie.is_none() {
                cookie = Some(cookie_for(socket, || sealed(None))?);
            }
            requests.push(datagrams(&sealed(cookie)?, cookie));
        }
        Ok(requests)
    }

    /// Everyone is switched on at once and asks at once.
    pub(super) fn restart(&mut self) -> anyhow::Result<Restart> {
        let mut terminals = std::mem::take(&mut self.terminals);
        for member in &mut terminals {
            member.restart(Tick::default())?;
        }
        let count = u32::try_from(terminals.len())?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let server = self.address;
        let mut times = runtime.block_on(async {
            let mut asking = JoinSet::new();
            let mut sockets = Vec::new();
            for _ in &terminals {
                let socket = net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
                socket.connect(server).await?;
                sockets.push(socket);
            }
            let began = Instant::now();
            for (member, socket) in terminals.into_iter().zip(sockets) {
                asking.spawn(until_current(member, socket, began));
            }
            let mut times = Vec::new();
            while let Some(done) = asking.join_next().await {
                times.push(done??.as_secs_f64());
            }
            anyhow::Ok(times)
        })?;
        times.sort_by(f64::total_cmp);
        Ok(Restart {
            terminals: count,
            seconds: times.last().copied().context("some terminals")?,
            median_seconds: times[times.len() / 2],
        })
    }
}

/// One terminal with its socket and its clock, until it holds what it lacks.
async fn until_current(
    mut member: Member,
    socket: net::UdpSocket,
    began: Instant,
) -> anyhow::Result<Duration> {
    let now = || Tick::default().plus(began.elapsed());
    let mut answered = member.ask(now())?;
    let mut buffer = [0; 2048];
    loop {
        for octets in answered.datagrams {
            // What a full buffer drops is sent again.
            drop(socket.send(&octets).await);
        }
        match answered.ended {
            Some(AskOutcome::Current) => return Ok(began.elapsed()),
            Some(other) => anyhow::bail!("a terminal ended with: {}", other.name()),
            None => {}
        }
        let due = answered.due.map_or(PATIENCE, |due| due.since(now()));
        answered = match tokio::time::timeout(due, socket.recv(&mut buffer)).await {
            Ok(len) => member.feed(now(), Input::FromServer(&buffer[..len?]))?,
            Err(_) => member.feed(now(), Input::Timeout)?,
        };
        anyhow::ensure!(began.elapsed() < PATIENCE, "a terminal is not current");
    }
}

/// Fills the store of a server that does not run.
fn enrol(path: &Path, terminals: u32) -> anyhow::Result<Fleet> {
    let directory = Directory::open(path)?;
    let (mut store, _) = Store::open(&directory)?;
    let clock = Moment {
        now: Tick::from_secs(1),
        wall: wall()?,
    };
    let desk = Operated::new(store.load()?.start(clock), clock);
    Fleet::fill(desk, terminals, &mut |batch| {
        Ok(store.commit(batch, clock.wall, &mut OsRandom)?)
    })
}

/// As a terminal seals its request once more.
fn sealed(
    to: &KemPublic,
    suite: SharingSuite,
    inner: &[u8],
    cookie: Option<Cookie>,
) -> anyhow::Result<Vec<u8>> {
    let sealed = to.seal(b"KF1/key-req", inner, &mut OsRandom);
    let (enc, ct) = sealed.context("the server's own key")?;
    let request = KeyReq::Hpke {
        suite,
        enc: &enc,
        ct: &ct,
    };
    Ok(Message::KeyReq { request, cookie }.encode())
}

/// The cookie for this socket: a few requests are answered without one.
fn cookie_for(
    socket: &UdpSocket,
    request: impl Fn() -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<Cookie> {
    let mut buffer = [0; 2048];
    // At once: a few in a second are answered without.
    for _ in 0..TRIES {
        for octets in datagrams(&request()?, None) {
            socket.send(&octets)?;
        }
    }
    while let Ok(len) = socket.recv(&mut buffer) {
        if let Ok(Message::Cookie { cookie, .. }) = Message::decode_datagram(&buffer[..len]) {
            return Ok(cookie);
        }
    }
    anyhow::bail!("the server gave no cookie")
}

fn is_last(octets: &[u8]) -> bool {
    let part = Message::decode_datagram(octets);
    matches!(part, Ok(Message::Part(part)) if part.index + 1 == part.count)
}

/// As terminals pad.
const fn padded(suite: SharingSuite) -> usize {
    match suite {
        SharingSuite::Psk | SharingSuite::RsaMisty1 => 252,
        SharingSuite::Hpke => 184,
        SharingSuite::HpkePq => 1408,
    }
}

const PATIENCE: Duration = Duration::from_secs(20);
const LOSS_AFTER: Duration = Duration::from_millis(300);
/// Requests on their way: fewer than a socket's buffer holds.
const WINDOW: usize = 64;
const TRIES: usize = 12;
