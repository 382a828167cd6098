//! Arbitrary datagrams into a whole terminal, open and locked, through power cuts and unlockings:
//! no panic, and nothing of its keys, its authority or its locks changes without a signature.
#![no_main]

use keyfall_protocol::command::SigningKey;
use keyfall_protocol::enrolment::{EnrolmentPackage, Identity};
use keyfall_protocol::ids::{
    Fingerprint, Generation, GroupNumber, SessionId, TerminalNumber, Tick, UnixSeconds,
};
use keyfall_protocol::keys::{ObeyKey, Secret, WrapKey};
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{FleetRecord, Founding};
use keyfall_protocol::terminal::{
    Input, Mark, Order, Output, Terminal, TerminalState, TrafficQuery,
};
use libfuzzer_sys::fuzz_target;

struct Counter(u8);

impl Random for Counter {
    fn fill(&mut self, into: &mut [u8]) {
        for octet in into {
            self.0 = self.0.wrapping_mul(5).wrapping_add(113);
            *octet = self.0;
        }
    }
}

/// A terminal, and what its disk holds.
struct Driven {
    terminal: Terminal,
    device: Vec<u8>,
    user: Vec<u8>,
    now: Tick,
    rng: Counter,
    wrap: Option<(Generation, Fingerprint)>,
    key_set: u32,
}

impl Driven {
    fn enrolled() -> Self {
        let mut rng = Counter(1);
        let seed = |octet: u8| SigningKey::from_seed(Secret::init_with(|into| into.fill(octet)));
        let wall = UnixSeconds::new(1_800_000_000);
        let (root, erase) = (seed(1), seed(2));
        let fleet = FleetRecord::found(Founding::default(), &root, &erase.public(), wall, &mut rng);
        let number = TerminalNumber::new(1).expect("not 0");
        let secret = |octet: u8| Secret::init_with(|into| into.fill(octet));
        let package = EnrolmentPackage {
            identity: Identity {
                number,
                name: "fuzz".into(),
                fleet: "fuzz".into(),
                root: root.public(),
                key_set_frame: fleet.key_set_frame.clone(),
                streams: vec![fleet.stream],
                carriers: Vec::new(),
                servers: Vec::new(),
                keep_time: 60,
                wipe_roots: Vec::new(),
            },
            obey: ObeyKey::new(number, secret(3)),
            wrap: WrapKey::new(number, Generation::ZERO, secret(4)),
            issued_at: wall,
            expires: wall,
        };
        let terminal = Terminal::enrol(package, Tick::default()).expect("signed by its root");
        let mut driven = Self {
            wrap: terminal.wrap_key(),
            key_set: terminal.key_set().version,
            terminal,
            device: Vec::new(),
            user: Vec::new(),
            now: Tick::default(),
            rng: Counter(9),
        };
        driven.drain();
        driven
    }

    fn feed(&mut self, input: Input<'_>) {
        let _ = self.terminal.handle_input(self.now, &mut self.rng, input);
        self.drain();
    }

    /// Stores what is to be stored, and sees that nothing but its own time, locks and sessions
    /// changed.
    fn drain(&mut self) {
        loop {
            match self.terminal.poll_output() {
                Output::Store(id, snapshot) => {
                    self.device = snapshot.device.to_vec();
                    if let Some(user) = snapshot.user {
                        self.user = user.to_vec();
                    }
                    let stored = Input::Stored(id);
                    self.terminal
                        .handle_input(self.now, &mut self.rng, stored)
                        .expect("it was handed out");
                }
                Output::Event(_) | Output::ToServer(_) => {}
                out @ (Output::Probe { .. } | Output::Answer { .. } | Output::ToPeer { .. }) => {
                    panic!("{out:?} from a terminal without addresses")
                }
                Output::Erase(erase) => panic!("{erase:?} without a signature"),
                Output::Timeout { .. } => break,
            }
        }
        let terminal = &self.terminal;
        let state = terminal.state();
        assert!(matches!(
            state,
            TerminalState::Enrolled | TerminalState::Locked
        ));
        assert!(terminal.is_locked() || terminal.wrap_key() == self.wrap);
        assert_eq!(terminal.key_set().version, self.key_set);
        assert_eq!(terminal.fleet_generation(), Generation::ZERO);
        assert_eq!((terminal.time(), terminal.excluded().count()), (None, 0));
        assert!(terminal.may_unlock() && terminal.groups().is_empty());
    }

    fn restart(&mut self, user: bool) {
        let user = user.then_some(&self.user[..]);
        self.terminal = Terminal::restore(&self.device, user, self.now).expect("its own snapshot");
        assert_eq!(self.terminal.is_locked(), user.is_none());
        self.feed(Input::Timeout);
    }

    fn ask(&mut self, octets: &[u8]) {
        let Some(&[a, b, c]) = octets.first_chunk() else {
            return;
        };
        let group = GroupNumber::new(u32::from(a)).unwrap_or(GroupNumber::MAX);
        let sender = TerminalNumber::new(u32::from(b)).unwrap_or(TerminalNumber::MAX);
        let query = TrafficQuery {
            group,
            tag: [a, b, c],
            sender,
            source: u64::from(c),
        };
        assert!(self.terminal.receive_key(self.now, query).is_err());
        self.feed(Input::Order(Order::OpenSession { group }));
        let marks = vec![Mark {
            sender,
            session: SessionId::new([a; 6]),
            ssrc: u32::from(b),
            rtp_index: u64::from(c),
            rtcp_index: u32::from(c),
        }];
        self.feed(Input::Order(Order::Mark { group, marks }));
    }
}

fuzz_target!(|octets: &[u8]| {
    let mut driven = Driven::enrolled();
    let mut rest = octets;
    // An octet that says what happens, for a datagram its length in two more, and its octets.
    while let Some((&what, after)) = rest.split_first() {
        rest = after;
        match what % 16 {
            0 => driven.feed(Input::Lock),
            1 => {
                let user = driven.user.clone();
                driven.feed(Input::Unlock(&user));
            }
            2 => {
                let was_locked = driven.terminal.is_locked();
                let fake = &rest[..rest.len().min(usize::from(what))];
                driven.feed(Input::Unlock(fake));
                assert_eq!(driven.terminal.is_locked(), was_locked);
            }
            3 => driven.restart(true),
            4 => driven.restart(false),
            5 => {
                driven.now = driven
                    .now
                    .plus(std::time::Duration::from_secs(u64::from(what)));
                driven.feed(Input::Timeout);
            }
            6 => driven.ask(rest),
            _ => {
                let Some((&[high, low], after)) = rest.split_first_chunk() else {
                    break;
                };
                let len = usize::from(u16::from_be_bytes([high, low])).min(after.len());
                let (datagram, after) = after.split_at(len);
                rest = after;
                if what & 0x80 == 0 {
                    driven.feed(Input::Datagram(datagram));
                } else {
                    driven.feed(Input::Search {
                        from: ([192, 0, 2, what], 4500).into(),
                        destination: [10, 0, 0, what].into(),
                        outside: what & 0x40 == 0,
                        datagram,
                    });
                }
            }
        }
    }
});
