//! The server's ear and hands for terminals that ask: UDP sockets, and threads for public-key work.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use keyfall_protocol::server::{Job, Worked};
use socket2::{Domain, Protocol, Socket, Type};

use crate::os_random::OsRandom;

/// Datagrams that came together, each with where it is from and by which socket it came.
pub(crate) type Heard = Vec<(SocketAddr, usize, Vec<u8>)>;

/// The sockets at which terminals ask.
pub(crate) struct Doors {
    sockets: Vec<UdpSocket>,
    addresses: Vec<String>,
    /// By which socket an address was heard last: the answer leaves by the same.
    by: HashMap<SocketAddr, usize>,
    /// Datagrams that the driver has not taken yet.
    waiting: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    pub(crate) sent: u64,
    pub(crate) not_sent: u64,
}

impl Doors {
    /// Opens every address, or none.
    ///
    /// # Errors
    /// The address and what is wrong with it.
    pub(crate) fn open(addresses: &[String]) -> Result<Self, (String, io::Error)> {
        let mut sockets = Vec::new();
        for address in addresses {
            sockets.push(bound(address).map_err(|error| (address.clone(), error))?);
        }
        Ok(Self {
            sockets,
            addresses: addresses.to_vec(),
            by: HashMap::new(),
            waiting: Arc::new(AtomicUsize::new(0)),
            ends: Arc::new(AtomicBool::new(false)),
            sent: 0,
            not_sent: 0,
        })
    }

    /// One thread a socket hands what comes to `hand`, until that returns false. Of a flood only as
    /// much is kept as the driver takes within milliseconds: commands do not wait for it.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub(crate) fn listen(
        &self,
        hand: impl Fn(Heard) -> bool + Clone + Send + 'static,
    ) -> io::Result<()> {
        for (place, socket) in self.sockets.iter().enumerate() {
            let socket = socket.try_clone()?;
            // So that the thread ends with the driver.
            socket.set_read_timeout(Some(Duration::from_millis(500)))?;
            let (hand, waiting, ends) = (hand.clone(), self.waiting.clone(), self.ends.clone());
            tracing::info!(address = %self.addresses[place], "terminals are answered");
            thread::Builder::new()
                .name("asked".to_owned())
                .spawn(move || hear(&socket, place, &waiting, &ends, hand))?;
        }
        Ok(())
    }

    /// Notes what the driver has taken, and by which socket to answer.
    pub(crate) fn taken(&mut self, heard: &Heard) {
        self.waiting.fetch_sub(heard.len(), Ordering::Relaxed);
        for &(from, socket, _) in heard {
            if self.sockets.len() > 1 {
                if self.by.len() >= REMEMBERED_MAX {
                    self.by.clear();
                }
                self.by.insert(from, socket);
            }
        }
    }

    pub(crate) fn send(&mut self, to: SocketAddr, octets: &[u8]) {
        let fits = |socket: &&UdpSocket| {
            let own = socket.local_addr();
            own.is_ok_and(|own| own.is_ipv4() == to.is_ipv4())
        };
        let heard_by = self.by.get(&to).and_then(|&place| self.sockets.get(place));
        let socket = heard_by.or_else(|| self.sockets.iter().find(fits));
        match socket.map(|socket| socket.send_to(octets, to)) {
            Some(Ok(_)) => self.sent += 1,
            Some(Err(_)) | None => self.not_sent += 1,
        }
    }

    pub(crate) fn addresses(&self) -> &[String] {
        &self.addresses
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

fn bound(address: &str) -> io::Result<UdpSocket> {
    let address: SocketAddr = address.parse().map_err(|_| {
        let sentence = "write an address and a port, as in 0.0.0.0:47900 or [::]:47900";
        io::Error::new(io::ErrorKind::InvalidInput, sentence)
    })?;
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A fleet that restarts at once comes within a second; the system may give less.
    drop(socket.set_recv_buffer_size(RECEIVE_BUFFER));
    drop(socket.set_send_buffer_size(RECEIVE_BUFFER));
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn hear(
    socket: &UdpSocket,
    place: usize,
    waiting: &AtomicUsize,
    ends: &AtomicBool,
    hand: impl Fn(Heard) -> bool,
) {
    let mut buffer = [0u8; 2048];
    while !ends.load(Ordering::Relaxed) {
        let mut heard = Heard::new();
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) => heard.push((from, place, buffer[..len].to_vec())),
            Err(_) => continue,
        }
        // What has come meanwhile goes with it.
        drop(socket.set_nonblocking(true));
        while heard.len() < BATCH {
            match socket.recv_from(&mut buffer) {
                Ok((len, from)) => heard.push((from, place, buffer[..len].to_vec())),
                Err(_) => break,
            }
        }
        drop(socket.set_nonblocking(false));
        if waiting.load(Ordering::Relaxed) >= WAITING_MAX {
            continue;
        }
        waiting.fetch_add(heard.len(), Ordering::Relaxed);
        if !hand(heard) {
            return;
        }
    }
}

/// Threads that do public-key work, as many as there are cores.
pub(crate) struct Workers(Sender<Job>);

impl Workers {
    /// `hand` gets what is done, until it returns false.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub(crate) fn start(
        hand: impl Fn(Worked) -> bool + Clone + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, jobs) = channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..cores {
            let (jobs, hand) = (jobs.clone(), hand.clone());
            thread::Builder::new()
                .name("public keys".to_owned())
                .spawn(move || work(&jobs, hand))?;
        }
        Ok(Self(sender))
    }

    /// The machine bounds how many are out.
    pub(crate) fn take_on(&self, job: Job) {
        // The threads end only with the driver.
        drop(self.0.send(job));
    }
}

fn work(jobs: &Mutex<Receiver<Job>>, hand: impl Fn(Worked) -> bool) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else {
            return;
        };
        if !hand(job.run(&mut OsRandom)) {
            return;
        }
    }
}

const BATCH: usize = 64;
/// A few milliseconds of the driver's time.
const WAITING_MAX: usize = 4096;
const REMEMBERED_MAX: usize = 262_144;
const RECEIVE_BUFFER: usize = 4 << 20;
