//! Enrolment by a one-time token, over the network (FORMATS section 8; REQUIREMENTS ).
//! One socket, one thread, until the server has shown that it knows the terminal.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use keyfall_protocol::ids::Tick;
use keyfall_protocol::terminal::{
    AskOutcome, ContactInput, ContactOutput, Event, FirstContact, FirstContactError, Input, Output,
    Terminal,
};
use keyfall_protocol::token::Token;

use crate::enrolment::{EnrolmentError, forget_request_key, refuse_enrolled};
use crate::hardening::scrub_stack;
use crate::key_store::{KeyStore, Protection};
use crate::os_random::OsRandom;
use crate::packet_path;

/// What a first contact made.
#[derive(Debug)]
pub struct Arrived {
    /// To be shown to people; it is stored and not running.
    pub terminal: Terminal,
    /// The server has shown that it knows the terminal; else that is found out when it runs.
    pub confirmed: bool,
    /// It has said that it does not. Nobody signed that, so the terminal is kept.
    pub denied: bool,
}

/// Fetches by `token` from `server`, "HOST" or "HOST:PORT", what an enrolment package would bring, and
/// makes the terminal in `dir`.
///
/// # Errors
/// [`EnrolmentError`]; nothing has changed then.
pub fn enrol_by_token(
    dir: &Path,
    server: &str,
    token: &str,
    protection: Option<&Protection>,
) -> Result<Arrived, EnrolmentError> {
    refuse_enrolled(dir)?;
    let unusable = |source| EnrolmentError::Server {
        server: server.to_owned(),
        source,
    };
    let addresses = resolved(server).map_err(unusable)?;
    let mut ended = Err(unusable(io::ErrorKind::NotFound.into()));
    for address in addresses {
        let token = Token::parse(token)?;
        let mut line = match Line::to(address) {
            Ok(line) => line,
            Err(source) => {
                ended = Err(unusable(source));
                continue;
            }
        };
        ended = line.first_contact(token);
        // Another address of the same name may be the one that is reached.
        if !matches!(
            ended,
            Err(EnrolmentError::FirstContact(FirstContactError::NoAnswer))
        ) {
            let terminal = ended?;
            return line.settle(terminal, dir, protection);
        }
    }
    ended.map(|terminal| Arrived {
        terminal,
        confirmed: false,
        denied: false,
    })
}

fn resolved(server: &str) -> io::Result<Vec<SocketAddr>> {
    let bare = server.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, PORT)]);
    }
    let addresses = if server.contains(':') {
        server.to_socket_addrs()
    } else {
        (server, PORT).to_socket_addrs()
    };
    addresses.map(Iterator::collect)
}

/// The way to the server.
struct Line {
    socket: UdpSocket,
    began: Instant,
    buffer: Box<[u8; 2048]>,
}

impl Line {
    /// Connected: nobody else is heard on it.
    fn to(address: SocketAddr) -> io::Result<Self> {
        let own: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(own)?;
        packet_path::mark(&socket);
        socket.connect(address)?;
        Ok(Self {
            socket,
            began: Instant::now(),
            buffer: Box::new([0; 2048]),
        })
    }

    fn first_contact(&mut self, token: Token) -> Result<Terminal, EnrolmentError> {
        let mut contact = FirstContact::new(token, self.now(), &mut OsRandom);
        loop {
            let due = loop {
                match contact.poll_output() {
                    ContactOutput::ToServer(datagram) => self.send(&datagram),
                    ContactOutput::Brought(terminal) => return Ok(*terminal),
                    ContactOutput::Ended(error) => return Err(error.into()),
                    ContactOutput::Timeout { at } => break at,
                }
            };
            let heard = self.hear(due);
            let input = match heard {
                Some(len) => ContactInput::FromServer(&self.buffer[..len]),
                None => ContactInput::Timeout,
            };
            let now = self.now();
            contact.handle_input(now, &mut OsRandom, input);
            scrub_stack();
        }
    }

    /// Stores, confirms, and waits until the server answers under the terminal's own key.
    fn settle(
        &mut self,
        mut terminal: Terminal,
        dir: &Path,
        protection: Option<&Protection>,
    ) -> Result<Arrived, EnrolmentError> {
        let mut store: Option<KeyStore> = None;
        let end = Instant::now() + SETTLED_WITHIN;
        let mut outcome = None;
        loop {
            let due = loop {
                match terminal.poll_output() {
                    Output::Store(id, snapshot) => {
                        let user = snapshot.user.as_ref().map(|user| &user[..]);
                        let (device, rng) = (&snapshot.device[..], &mut OsRandom);
                        match &mut store {
                            Some(store) => store.commit(rng, device, user)?,
                            None => {
                                let user = user.expect("a fresh terminal is unlocked");
                                let made = KeyStore::create(dir, rng, device, user, protection)?;
                                forget_request_key(dir);
                                store = Some(made);
                            }
                        }
                        let now = self.now();
                        terminal
                            .handle_input(now, &mut OsRandom, Input::Stored(id))
                            .expect("it asked for that");
                    }
                    Output::ToServer(datagram) => self.send(&datagram),
                    Output::Event(Event::AskEnded { outcome: it }) => outcome = Some(it),
                    Output::Event(_)
                    | Output::Probe { .. }
                    | Output::Answer { .. }
                    | Output::ToPeer { .. } => {}
                    // An order to delete its keys has come at once.
                    Output::Erase(_) => {
                        if let Some(store) = store {
                            store.discard()?;
                        }
                        return Err(EnrolmentError::TakenBack);
                    }
                    Output::Timeout { at, .. } => break at,
                }
            };
            scrub_stack();
            match outcome {
                None if Instant::now() < end => {}
                Some(_) | None => {
                    return Ok(Arrived {
                        terminal,
                        confirmed: outcome == Some(AskOutcome::Current),
                        denied: outcome == Some(AskOutcome::NotKnown),
                    });
                }
            }
            let heard = self.hear(due);
            let input = match heard {
                Some(len) => Input::FromServer(&self.buffer[..len]),
                None => Input::Timeout,
            };
            let now = self.now();
            terminal
                .handle_input(now, &mut OsRandom, input)
                .expect("a datagram or a timeout is always allowed");
        }
    }

    fn now(&self) -> Tick {
        Tick::default().plus(self.began.elapsed())
    }

    /// What does not go out is sent again by the machine.
    fn send(&self, datagram: &[u8]) {
        if let Err(error) = self.socket.send(datagram) {
            tracing::debug!(%error, "a datagram to the server was not taken");
        }
    }

    /// The length of a datagram that came before `due`.
    fn hear(&mut self, due: Option<Tick>) -> Option<usize> {
        let wait = due.map_or(WAIT_MAX, |due| due.since(self.now()));
        let wait = wait.clamp(Duration::from_millis(1), WAIT_MAX);
        let heard = self
            .socket
            .set_read_timeout(Some(wait))
            .and_then(|()| self.socket.recv(&mut self.buffer[..]));
        match heard {
            Ok(len) => Some(len),
            Err(error) => {
                // Nobody listens there now: the machine asks again.
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    std::thread::sleep(Duration::from_millis(20));
                }
                None
            }
        }
    }
}

/// Where a server is asked, unless it says otherwise.
const PORT: u16 = 47_900;
const WAIT_MAX: Duration = Duration::from_secs(1);
/// A server that confirms at all does it within this time.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
