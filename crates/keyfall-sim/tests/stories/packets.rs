//! IP packets through power cuts and clones: no key and nonce twice, nothing delivered twice
//! (REQUIREMENTS W-08, W-09, T-01; FORMATS section 7, "Anti-replay").

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use keyfall_plane::{EspArrival, EspReceiver, EspSender, Spi, esp_len};
use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, Tick};
use keyfall_protocol::keys::{EspSuite, MasterKey};
use keyfall_protocol::server::Class;
use keyfall_protocol::terminal::{
    Event, Input, OpenedSession, Order, Output, PacketMark, PacketQuery, SessionBlock, Snapshot,
    StoreId, Terminal,
};
use keyfall_sim::{Config, DiskImage, LinkQuality, Loot, Seeded, StationId, World};

/// A machine whose disk is in the test's hand; the power may be cut at any moment.
struct Driven {
    machine: Terminal,
    rng: Seeded,
    disk: DiskImage,
    storing: Option<(StoreId, Snapshot)>,
    events: Vec<Event>,
}

impl Driven {
    fn switched_on(disk: &DiskImage, seed: u64, beacon: &[u8]) -> Self {
        let machine = Terminal::restore(&disk.device, Some(&disk.user), Tick::default());
        let mut driven = Self {
            machine: machine.expect("its own image"),
            rng: Seeded::new(seed),
            disk: disk.clone(),
            storing: None,
            events: Vec::new(),
        };
        driven.feed(Input::Datagram(beacon));
        driven
    }

    fn feed(&mut self, input: Input<'_>) {
        self.machine
            .handle_input(Tick::default(), &mut self.rng, input)
            .expect("the contract is kept");
        loop {
            match self.machine.poll_output() {
                Output::Store(id, snapshot) => self.storing = Some((id, snapshot)),
                Output::Event(event) => self.events.push(event),
                Output::ToServer(_) | Output::Erase(_) => {}
                Output::Probe { .. } | Output::Answer { .. } | Output::ToPeer { .. } => {}
                Output::Timeout { .. } => return,
            }
        }
    }

    /// What was to be stored is durable.
    fn sync(&mut self) {
        while let Some((id, snapshot)) = self.storing.take() {
            self.disk.device = snapshot.device.to_vec();
            if let Some(user) = snapshot.user {
                self.disk.user = user.to_vec();
            }
            self.feed(Input::Stored(id));
        }
    }

    fn sessions(&mut self, group: GroupNumber) -> SessionBlock {
        self.feed(Input::Order(Order::OpenPacketSessions { group }));
        let ready = |event: Event| {
            if let Event::PacketSessionsReady { sessions, .. } = event {
                Some(sessions)
            } else {
                None
            }
        };
        assert!(!self.events.drain(..).any(|event| ready(event).is_some()));
        self.sync();
        self.events.drain(..).find_map(ready).expect("recorded")
    }
}

fn world() -> (World, StationId, StationId, Vec<u8>) {
    let mut world = World::new(9, Config::default());
    let alice = world.enrol("alice", LinkQuality::PERFECT);
    let bob = world.enrol("bob", LinkQuality::PERFECT);
    world.create_group("crew", &[alice, bob], None);
    world.run_for(Duration::from_secs(12));
    let time = |frame: &&keyfall_sim::Captured| frame.item.class() == Class::Time;
    let beacon = world.frames().iter().rfind(time).expect("there was one");
    let beacon = beacon.octets.to_vec();
    (world, alice, bob, beacon)
}

fn chain(world: &World, id: StationId) -> MasterKey {
    let loot = Loot::read(world.station(id).newest_image());
    let user = loot.expect("an image").user;
    user.expect("it is open").masters.remove(0)
}

/// Sees every packet and derives its key anew from what the wire says.
#[derive(Default)]
struct Oracle(HashSet<(Vec<u8>, [u8; 8])>);

impl Oracle {
    fn sees(&mut self, key: &MasterKey, packet: &[u8]) -> bool {
        let arrival = EspArrival::read(packet).expect("sealed a moment ago");
        let keys = key.derive_esp(SUITE, arrival.spi.sender(), arrival.session);
        let iv = packet[8..16].try_into().expect("eight octets");
        self.0.insert((keys.key_and_salt().to_vec(), iv))
    }
}

fn packet(sender: &mut EspSender, number: u32) -> Vec<u8> {
    let mut inner = vec![
        0x45, 0, 0, 24, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ];
    inner.extend_from_slice(&number.to_be_bytes());
    let mut out = vec![0; esp_len(inner.len())];
    sender
        .seal_from(&inner, &mut out)
        .expect("numbers are left");
    out
}

/// One state directory, switched on again and copied a thousand times each; all of them send.
#[test]
fn a_thousand_restarts_and_clones_repeat_no_key_and_nonce_of_packets() {
    let (world, alice, _, beacon) = world();
    let (mut chain, mut oracle) = (chain(&world, alice), Oracle::default());
    let group = chain.group();
    let old = world.station(alice).synced().clone();
    let mut present = old.clone();
    for seed in 0..2000 {
        let restarted = seed % 2 == 0;
        let image = if restarted { &present } else { &old };
        let mut driven = Driven::switched_on(image, 77_000 + seed, &beacon);
        driven.sync();
        let number = driven.machine.identity().number;
        let mut sessions = driven.sessions(group);
        let key = driven.machine.send_key(group).expect("stored and active");
        chain = key.duplicate();
        for _ in 0..2 {
            let session = sessions.take().expect("sixteen");
            let mut sender = EspSender::new(SUITE, key, number, session);
            for number in 0..3 {
                let packet = packet(&mut sender, number);
                assert!(oracle.sees(&chain, &packet), "start {seed}");
            }
        }
        if restarted {
            // The power may go before more was recorded, or after.
            present = driven.disk;
        }
    }
    assert_eq!(oracle.0.len(), 12_000);
}

/// A receiver as the drive contract has it: nothing is delivered beyond what is marked durably.
struct Receiver {
    driven: Driven,
    open: HashMap<(Spi, EspSession), Open>,
    /// Opened, and waiting for a mark: sessions and numbers.
    held: Vec<(EspSession, u32)>,
}

struct Open {
    receiver: EspReceiver,
    group: GroupNumber,
    durable: u32,
    asked: u32,
}

impl Receiver {
    fn new(driven: Driven) -> Self {
        Self {
            driven,
            open: HashMap::new(),
            held: Vec::new(),
        }
    }

    /// The session and number of what is delivered at once.
    fn hear(&mut self, packet: &[u8]) -> Option<(EspSession, u32)> {
        let EspArrival { spi, session, .. } = EspArrival::read(packet).expect("sealed by us");
        let mut out = vec![0; packet.len()];
        let place = (spi, session);
        let sequence = match self.open.get_mut(&place) {
            Some(open) => open.receiver.open_into(packet, &mut out).ok()?.1,
            None => self.first(packet, &mut out)?,
        };
        let open = &self.open[&place];
        if sequence <= open.durable {
            return Some((session, sequence));
        }
        self.held.push((session, sequence));
        self.mark(place, sequence);
        None
    }

    fn first(&mut self, packet: &[u8], out: &mut [u8]) -> Option<u32> {
        let EspArrival { spi, session, .. } = EspArrival::read(packet).expect("sealed by us");
        let query = PacketQuery {
            tag: spi.tag(),
            sender: spi.sender(),
            session,
            source: u64::from(self.driven.rng.below(1 << 40) as u32),
        };
        let mut sequence = None;
        let opened = self
            .driven
            .machine
            .receive_packet(Tick::default(), query, |key, mark| {
                let mut receiver = EspReceiver::with_mark(SUITE, key, spi.sender(), session, mark);
                let (_, found) = receiver.open_into(packet, out).ok()?;
                sequence = Some(found);
                Some((receiver, mark))
            });
        let OpenedSession {
            group,
            receiver: (receiver, durable),
            trial,
            ..
        } = opened.ok()?;
        if let Some(trial) = trial {
            self.driven.feed(Input::Opened(trial));
        }
        let open = Open {
            receiver,
            group,
            durable,
            asked: durable,
        };
        self.open.insert((spi, session), open);
        sequence
    }

    fn mark(&mut self, place: (Spi, EspSession), sequence: u32) {
        let open = self.open.get_mut(&place).expect("it opened");
        if sequence <= open.asked {
            return;
        }
        let (epoch, generation) = open.receiver.source().expect("a session's");
        open.asked = PacketMark::ahead(sequence, 0);
        let mark = PacketMark {
            epoch,
            generation,
            sender: place.0.sender(),
            session: place.1,
            sequence: open.asked,
        };
        self.driven.feed(Input::Order(Order::MarkPackets {
            group: open.group,
            marks: vec![mark],
        }));
    }

    /// What became deliverable when the disk was done.
    fn sync(&mut self) -> Vec<(EspSession, u32)> {
        self.driven.sync();
        for event in self.driven.events.drain(..) {
            let Event::PacketMarksStored { marks, .. } = event else {
                continue;
            };
            for mark in marks {
                let of =
                    |it: &&mut Open| it.receiver.source() == Some((mark.epoch, mark.generation));
                let opens = self
                    .open
                    .iter_mut()
                    .filter(|(place, _)| place.1 == mark.session);
                opens
                    .map(|(_, open)| open)
                    .filter(of)
                    .for_each(|open| open.durable = open.durable.max(mark.sequence));
            }
        }
        let durable: BTreeMap<_, _> = self
            .open
            .iter()
            .map(|((_, session), open)| (*session, open.durable))
            .collect();
        let ready =
            |&mut (session, sequence): &mut (EspSession, u32)| sequence <= durable[&session];
        self.held.extract_if(.., ready).collect()
    }
}

/// The power is cut at any moment, and everything that was ever sent is played to the receiver again,
/// in any order, across a renewal that it learns of by the packets.
#[test]
fn a_receiver_killed_at_any_moment_delivers_nothing_twice() {
    let (world, alice, bob, beacon) = world();
    let chain = chain(&world, alice);
    let number = world.station(alice).number;
    let mut tape = Vec::new();
    for generation in 0..3 {
        let key = chain
            .duplicate()
            .renew_to(Generation::new(generation).expect("small"));
        for start in 0..4 {
            let session = EspSession::new([generation as u8, 1, 1, 1, start]);
            let mut sender = EspSender::new(SUITE, &key, number, session);
            tape.extend((0..150).map(|number| packet(&mut sender, number)));
        }
    }
    let mut rng = Seeded::new(5);
    let mut delivered = HashSet::new();
    let mut deliver = |what: (EspSession, u32)| {
        assert!(delivered.insert(what), "{what:?} is delivered twice");
    };
    let image = world.station(bob).synced().clone();
    let mut receiver = Receiver::new(Driven::switched_on(&image, 1, &beacon));
    let mut sent = 40;
    for step in 0..60_000u64 {
        match rng.below(400) {
            0 => {
                let disk = receiver.driven.disk.clone();
                receiver = Receiver::new(Driven::switched_on(&disk, step, &beacon));
            }
            1..40 => receiver.sync().into_iter().for_each(&mut deliver),
            40..60 => sent = (sent + 5).min(tape.len() as u64),
            60..200 => {
                let newest = sent - 1 - rng.below(20);
                receiver
                    .hear(&tape[newest as usize])
                    .into_iter()
                    .for_each(&mut deliver);
            }
            _ => {
                let any = rng.below(sent) as usize;
                receiver.hear(&tape[any]).into_iter().for_each(&mut deliver);
            }
        }
    }
    assert_eq!(sent, tape.len() as u64);
    assert!(
        delivered.len() > 300,
        "only {} were delivered at all",
        delivered.len()
    );
    let machine = &receiver.driven.machine;
    assert_eq!(machine.groups()[0].generation.get(), 2, "by gap sync");
}

const SUITE: EspSuite = EspSuite::Aes256Gcm;
