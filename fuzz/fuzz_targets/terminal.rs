//! Arbitrary datagrams into a whole terminal: no panic, and no change without a signature.
#![no_main]

use keyfall_protocol::command::SigningKey;
use keyfall_protocol::enrolment::{EnrolmentPackage, Identity};
use keyfall_protocol::ids::{Generation, GroupNumber, TerminalNumber, Tick, UnixSeconds};
use keyfall_protocol::keys::{ObeyKey, Secret, WrapKey};
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{FleetRecord, Founding};
use keyfall_protocol::terminal::{Input, Output, StoreId, Terminal, TrafficQuery};
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

fn terminal() -> (Terminal, StoreId) {
    let mut rng = Counter(1);
    let seed = |octet: u8| SigningKey::from_seed(Secret::init_with(|into| into.fill(octet)));
    let wall = UnixSeconds::new(1_800_000_000);
    let (root, erase) = (seed(1), seed(2));
    let fleet = FleetRecord::found(Founding::default(), &root, &erase.public(), wall, &mut rng);
    let number = TerminalNumber::new(1).expect("not 0");
    let package = EnrolmentPackage {
        identity: Identity {
            number,
            name: "fuzz".into(),
            fleet: "fuzz".into(),
            root: root.public(),
            key_set_frame: fleet.key_set_frame.clone(),
            streams: vec![fleet.stream],
            carriers: Vec::new(),
            keep_time: 60,
        },
        obey: ObeyKey::new(number, Secret::init_with(|into| into.fill(3))),
        wrap: WrapKey::new(
            number,
            Generation::ZERO,
            Secret::init_with(|into| into.fill(4)),
        ),
        issued_at: wall,
        expires: wall,
    };
    let mut terminal = Terminal::enrol(package, Tick::default()).expect("signed by its root");
    let Output::Store(id, _) = terminal.poll_output() else {
        panic!("the first store")
    };
    (terminal, id)
}

fuzz_target!(|octets: &[u8]| {
    let (mut terminal, first) = terminal();
    let mut rng = Counter(9);
    terminal
        .handle_input(Tick::default(), &mut rng, Input::Stored(first))
        .expect("it was handed out");
    for (step, datagram) in octets.chunks(600).enumerate() {
        let now = Tick::from_secs(step as u64);
        terminal
            .handle_input(now, &mut rng, Input::Datagram(datagram))
            .expect("no misuse");
        if let (Some(&[a, b, c]), Some(group)) = (
            datagram.first_chunk(),
            GroupNumber::new(u32::from(datagram[0])),
        ) {
            let query = TrafficQuery {
                group,
                tag: [a, b, c],
                source: 0,
            };
            assert!(terminal.receive_key(now, query).is_err());
        }
        loop {
            match terminal.poll_output() {
                Output::Store(..) => panic!("state changed without a signature"),
                Output::Event(_) => {}
                Output::Timeout { .. } => break,
            }
        }
    }
});
