//! Terminals that ask a running server by UDP: what its sockets and threads answer, and what of it is
//! in the database (REQUIREMENTS ).

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use keyfall_protocol::command::{Limits, Suites};
use keyfall_protocol::ids::Tick;
use keyfall_protocol::server::Founding;
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::terminal::{AskOutcome, Event, Input, Order, Output, Terminal};
use keyfall_server::store::{State, Store};
use keyfall_server::{Directory, OsRandom, RunError};
use serde_json::json;

use crate::orders::add;
use crate::served::{Home, Served, opened};

/// A terminal with a socket to the server.
struct Asker {
    machine: Terminal,
    socket: UdpSocket,
    began: Instant,
}

impl Asker {
    fn new(machine: Terminal, server: &str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.connect(server).expect("loopback");
        let wait = Some(Duration::from_millis(20));
        socket.set_read_timeout(wait).expect("a timeout");
        Self {
            machine,
            socket,
            began: Instant::now(),
        }
    }

    /// Asks until a sequence has ended.
    fn ask(&mut self) -> AskOutcome {
        let within = Duration::ZERO;
        self.feed(Input::Order(Order::Ask { within }));
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut octets = [0; 2048];
        loop {
            assert!(Instant::now() < deadline, "{}", self.machine.asks());
            let ended = match self.socket.recv(&mut octets) {
                Ok(len) => self.feed(Input::FromServer(&octets[..len])),
                Err(_) => self.feed(Input::Timeout),
            };
            if let Some(outcome) = ended {
                return outcome;
            }
        }
    }

    fn feed(&mut self, input: Input<'_>) -> Option<AskOutcome> {
        let mut ended = None;
        self.give(input);
        loop {
            match self.machine.poll_output() {
                Output::Store(id, _) => self.give(Input::Stored(id)),
                Output::ToServer(datagram) => {
                    let sent = self.socket.send(&datagram);
                    assert_eq!(sent.expect("loopback"), datagram.len());
                }
                Output::Event(Event::AskEnded { outcome }) => ended = Some(outcome),
                Output::Event(_)
                | Output::Probe { .. }
                | Output::Answer { .. }
                | Output::ToPeer { .. } => {}
                Output::Erase(_) => panic!("nobody ordered that"),
                Output::Timeout { .. } => return ended,
            }
        }
    }

    fn give(&mut self, input: Input<'_>) {
        let now = Tick::default().plus(self.began.elapsed());
        self.machine
            .handle_input(now, &mut OsRandom, input)
            .expect("the test keeps the contract");
    }
}

fn stored(home: &Home) -> State {
    let directory = Directory::open(&home.dir).expect("opens");
    let (store, _) = opened(|| Store::open(&directory));
    store.load().expect("reads")
}

/// In one process the thread that listened ends a moment after its server.
fn served_again(home: &Home) -> Served {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match Served::start(&home.dir) {
            Ok(served) => return served,
            Err(RunError::Listen { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => panic!("the server runs: {error}"),
        }
    }
}

/// An address on which nobody listens.
fn free_address() -> String {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound").to_string()
}

/// In every suite, over real sockets and through a restart of the server; what the first contact
/// changed is in the database, and no file holds the KEM keys in clear.
#[test]
fn a_terminal_fetches_its_keys_from_a_running_server_and_again_after_a_restart() {
    for suite in [SharingSuite::Psk, SharingSuite::Hpke, SharingSuite::HpkePq] {
        let address = free_address();
        let home = Home::with(Founding {
            servers: vec![address.clone(), "keys.example:47900".to_owned()],
            listen: vec![address.clone()],
            limits: Limits {
                suites: Suites::new(&[suite]).expect("one"),
                ..Limits::default()
            },
            ..Founding::default()
        });
        let server = home.serve();
        let package = add(&server, "alice");
        assert_eq!(package.identity.servers.len(), 2);
        let given = package.wrap.duplicate();
        server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
        let machine = Terminal::enrol(package, Tick::default()).expect("signed");
        let mut alice = Asker::new(machine, &address);
        assert_eq!(alice.ask(), AskOutcome::Current, "{suite:?}");
        assert_eq!(alice.machine.groups().len(), 1, "{suite:?}");
        server.end();

        let state = stored(&home);
        let fleet = &state.fleet;
        assert_eq!(fleet.listen.join(" "), address);
        assert_eq!(
            fleet.servers,
            [address.clone(), "keys.example:47900".to_owned()]
        );
        for (held, class) in [(&fleet.kem, 4), (&fleet.kem_pq, 5)] {
            let held = held.as_ref().expect("founded with it");
            let mut listed = fleet.key_set.keys.iter();
            let listed = listed.find(|key| key.public == held.public().listing());
            assert_eq!(listed.expect("listed").class.number(), class);
            let sought = held.seed().expose();
            let found = std::fs::read(home.file("keyfall.db")).expect("reads");
            assert!(!found.windows(32).any(|it| it == sought), "sealed");
        }
        let record = &state.terminals[0];
        let mixes = suite != SharingSuite::Psk;
        assert_eq!(record.mixed_at.is_some(), mixes, "{suite:?}");
        let held = given.renew_to(record.wrap.generation());
        assert_eq!(record.wrap.secret() != held.secret(), mixes, "{suite:?}");

        let server = served_again(&home);
        server.order("/v1/groups/ops/rekey", json!({}));
        let before = alice.machine.groups()[0].epoch;
        assert_eq!(alice.ask(), AskOutcome::Current, "{suite:?}, restarted");
        assert!(alice.machine.groups()[0].epoch > before, "{suite:?}");
        server.end();
    }
}

/// A server whose address another program has says so and does not run.
#[test]
fn an_address_that_is_taken_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let home = Home::with(Founding {
        listen: vec![address.clone()],
        ..Founding::default()
    });
    let refused = Served::start(&home.dir).err();
    let refused = refused.expect("somebody else has the port").to_string();
    assert!(
        refused.starts_with(&format!("cannot answer terminals at {address}: ")),
        "{refused}"
    );
}
