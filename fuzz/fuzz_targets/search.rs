//! Arbitrary datagrams, and genuine probes and answers that were tampered with, into two gateways that
//! search each other: no panic, one encoding, bounded tables; whoever is found is found by the rule.
#![no_main]

use std::net::{IpAddr, SocketAddr};

use keyfall_protocol::command::{
    Body, Command, KeyDist, KeyDistContents, Prefix, ProtectionRecord, RecordGroup, SigningKey,
    Target, Time,
};
use keyfall_protocol::enrolment::{EnrolmentPackage, Identity};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, TerminalNumber, Tick, UnixSeconds,
};
use keyfall_protocol::keys::{EspSuite, MasterKey, ObeyKey, Secret, WrapKey};
use keyfall_protocol::rng::Random;
use keyfall_protocol::search::message::SearchMessage;
use keyfall_protocol::server::{FleetRecord, Founding};
use keyfall_protocol::terminal::{Input, Output, PacketFrom, Terminal, Unheard, Way};
use libfuzzer_sys::fuzz_target;

struct Counter(u64);

impl Random for Counter {
    fn fill(&mut self, into: &mut [u8]) {
        for octet in into {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            *octet = (self.0 >> 56) as u8;
        }
    }
}

struct Gate {
    machine: Terminal,
    rng: Counter,
    /// To whom, and what.
    sent: Vec<(IpAddr, Vec<u8>)>,
}

impl Gate {
    fn feed(&mut self, now: Tick, input: Input<'_>) {
        self.machine
            .handle_input(now, &mut self.rng, input)
            .expect("the contract is kept");
        let mut stored = None;
        loop {
            match self.machine.poll_output() {
                Output::Store(id, _) => stored = Some(id),
                Output::Probe { to, datagram } => self.sent.push((to, datagram)),
                Output::Answer { to, datagram } | Output::ToPeer { to, datagram } => {
                    self.sent.push((to.ip(), datagram));
                }
                Output::Erase(_) => panic!("nobody signed that"),
                Output::ToServer(_) | Output::Event(_) => {}
                Output::Timeout { .. } => break,
            }
        }
        if let Some(id) = stored {
            self.feed(now, Input::Stored(id));
        }
    }
}

/// Both gateways, in one group; each has heard the time, its key and its own record.
fn gates() -> [Gate; 2] {
    let wall = UnixSeconds::new(1_800_000_000);
    let seed = |octet: u8| SigningKey::from_seed(Secret::init_with(|into| into.fill(octet)));
    let (root, erase) = (seed(1), seed(2));
    let mut rng = Counter(1);
    let fleet = FleetRecord::found(Founding::default(), &root, &erase.public(), wall, &mut rng);
    let group = GroupNumber::new(1).expect("not 0");
    let epoch = KeyEpoch::fresh(None, wall);
    [1u8, 2].map(|n| {
        let number = TerminalNumber::new(n.into()).expect("not 0");
        let secret = |octet: u8| Secret::init_with(|into| into.fill(octet));
        let wrap = || WrapKey::new(number, Generation::ZERO, secret(4));
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
            wrap: wrap(),
            issued_at: wall,
            expires: wall,
        };
        let machine = Terminal::enrol(package, Tick::default()).expect("signed by its root");
        let mut gate = Gate {
            machine,
            rng: Counter(n.into()),
            sent: Vec::new(),
        };
        let command = |target, body| Command {
            stream: fleet.stream,
            sequence: SequenceNumber::new(1),
            issued_at: wall,
            not_after: wall.plus(86_400),
            target,
            body,
            fleet_generation: Generation::ZERO,
        };
        let time = Time {
            seconds: wall,
            max_error_ms: 0,
            floors: Vec::new(),
        };
        let contents = KeyDistContents {
            key: MasterKey::new(group, epoch, Generation::ZERO, secret(5)),
            search_key: Secret::from_slice(&[6; 16]),
            activate_at: wall,
            cadence: None,
            lease_end: None,
        };
        let key_dist = KeyDist::seal(&contents, std::iter::once(&wrap()), &mut rng);
        let record = ProtectionRecord {
            terminal: number,
            version: epoch.get(),
            issued_at: wall,
            not_after: wall.plus(86_400),
            prefixes: vec![Prefix::around([10, n, 0, 0].into(), 16).expect("short")],
            endpoints: Vec::new(),
            groups: vec![RecordGroup {
                group,
                priority: 0,
                mtu: None,
                suite: EspSuite::default(),
                networks: Vec::new(),
            }],
        };
        let frames = [
            fleet.beat.sign(&command(Target::All, Body::Time(time))),
            fleet
                .keys
                .sign(&command(Target::Handles, Body::KeyDist(key_dist))),
            record.signed_by(&fleet.keys).frame().to_vec(),
        ];
        for frame in &frames {
            gate.feed(Tick::default(), Input::Datagram(frame));
        }
        assert!(gate.machine.own_record().is_some() && gate.machine.holds(group));
        gate
    })
}

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = SearchMessage::decode(data) {
        assert_eq!(message.encode(), data);
    }
    let mut gates = gates();
    let mut now = Tick::from_secs(1);
    let ends = |one: usize| -> [IpAddr; 2] {
        let address = |n: usize| IpAddr::from([10, n as u8 + 1, 0, 5]);
        [address(one), address(1 - one)]
    };
    let outer = |n: usize| SocketAddr::new([192, 0, 2, n as u8 + 1].into(), 4500);
    let mut octets = data.iter().copied();
    while let Some(step) = octets.next() {
        let at = usize::from(step & 1);
        match step >> 1 & 7 {
            0 => {
                let [source, destination] = ends(at);
                let way = gates[at].machine.path(now, source, destination);
                let good = match way {
                    Way::Protect { group, peer, .. } => {
                        group.get() == 1 && peer.get() as usize == 2 - at
                    }
                    Way::Searching | Way::Drop(_) => true,
                    Way::Clear | Way::ProtectMulticast { .. } => false,
                };
                assert!(good, "{way:?}");
            }
            1 => {
                now = now.plus(std::time::Duration::from_millis(
                    u64::from(octets.next().unwrap_or(0)) * 40,
                ));
                gates[at].feed(now, Input::Timeout);
            }
            // What was sent arrives as it is, or with one octet changed.
            2 | 3 => {
                let Some((to, mut datagram)) = gates[at].sent.pop() else {
                    continue;
                };
                let changed = step >> 1 & 7 == 3;
                if changed {
                    let place = usize::from(octets.next().unwrap_or(0)) * 5 % datagram.len();
                    datagram[place] ^= 1 << (step >> 5);
                }
                let input = Input::Search {
                    from: outer(at),
                    destination: to,
                    outside: step & 0x40 == 0,
                    datagram: &datagram,
                };
                let before = gates[1 - at].machine.path_counts();
                gates[1 - at].feed(now, input);
                let after = gates[1 - at].machine.path_counts();
                assert!(!changed || (before.peers, before.found) == (after.peers, after.found));
            }
            4 => {
                let packet = PacketFrom {
                    group: GroupNumber::new(1).expect("not 0"),
                    key: (
                        KeyEpoch::new(octets.next().unwrap_or(0).into()),
                        Generation::ZERO,
                    ),
                    peer: TerminalNumber::new(2 - at as u32).expect("not 0"),
                    source: ends(at)[1],
                    destination: ends(at)[0],
                    endpoint: outer(1 - at),
                };
                gates[at].feed(now, Input::PacketFrom(packet));
            }
            5 => {
                let unheard = Unheard {
                    group: GroupNumber::new(1).expect("not 0"),
                    peer: TerminalNumber::new(u32::from(octets.next().unwrap_or(0)) + 1)
                        .expect("not 0"),
                    endpoint: outer(1 - at),
                };
                gates[at].feed(now, Input::Unheard(unheard));
            }
            // Octets of a stranger.
            _ => {
                let rest: Vec<u8> = octets.by_ref().take(usize::from(step) * 4).collect();
                let datagram = [&[0; 4][..], &rest].concat();
                let input = Input::Search {
                    from: outer(9),
                    destination: ends(at)[0],
                    outside: true,
                    datagram: &datagram,
                };
                let before = gates[at].machine.path_counts();
                gates[at].feed(now, input);
                assert_eq!(gates[at].machine.path_counts(), before);
            }
        }
    }
    for gate in &gates {
        let counts = gate.machine.path_counts();
        assert!(
            counts.peers <= 1 && counts.found <= 2 && counts.searches <= 2,
            "{counts:?}"
        );
    }
});
