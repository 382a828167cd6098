//! The server's side: keys, packages, and signed frames sent on a carrier for each terminal.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use keyfall_carrier::{CarrierAddress, MulticastSender};
use keyfall_protocol::command::{
    Body, Command, Halt, KeyDist, KeyDistContents, KeySet, Limits, ListedKey, OrderContents,
    OrderKind, Renew, RenewEntry, SealedOrder, SignerClass, SigningKey, Target, Time,
};
use keyfall_protocol::enrolment::{EnrolmentCode, EnrolmentPackage, Identity};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, StreamId, TerminalNumber, UnixSeconds,
};
use keyfall_protocol::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use keyfall_protocol::schedule::{FleetSchedule, Schedule};
use keyfall_terminal::OsRandom;
use keyfall_terminal::key_store::Protection;

pub(crate) const GROUP: u32 = 7;

pub(crate) struct Fleet {
    root: SigningKey,
    beat: SigningKey,
    pub(crate) keys: SigningKey,
    erase: SigningKey,
    pub(crate) now: UnixSeconds,
    sequence: Cell<u64>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        Self::signing_with([1, 2, 3])
    }

    /// A fleet with other keys.
    pub(crate) fn other() -> Self {
        Self::signing_with([4, 5, 6])
    }

    fn signing_with(keys: [u8; 3]) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let signing = |fill| SigningKey::from_seed(secret(fill));
        Self {
            root: signing(keys[0]),
            beat: signing(keys[1]),
            keys: signing(keys[2]),
            erase: signing(keys[0] + 50),
            now: UnixSeconds::new(u32::try_from(since.as_secs()).unwrap()),
            sequence: Cell::new(1),
        }
    }

    pub(crate) fn package(&self, number: u32, carrier: &CarrierAddress) -> EnrolmentPackage {
        let number = TerminalNumber::new(number).unwrap();
        EnrolmentPackage {
            identity: Identity {
                number,
                name: format!("terminal-{number}"),
                fleet: "test".to_owned(),
                root: self.root.public(),
                key_set_frame: self.root.sign(&self.command(Body::KeySet(self.key_set()))),
                streams: vec![STREAM],
                carriers: vec![carrier.to_string()],
                servers: Vec::new(),
                keep_time: 60,
                wipe_roots: Vec::new(),
            },
            obey: ObeyKey::new(number, secret(40)),
            wrap: wrap(number),
            issued_at: self.now,
            expires: self.now.plus(3600),
        }
    }

    /// Enrols in `dir`, opened by the machine.
    pub(crate) fn enrol(&self, dir: &Path, number: u32, carrier: &CarrierAddress) {
        enrol(dir, &self.package(number, carrier), None);
    }

    pub(crate) fn time(&self) -> Vec<u8> {
        let seconds = self.now;
        self.beat.sign(&self.command(Body::Time(Time {
            seconds,
            max_error_ms: 100,
            floors: Vec::new(),
        })))
    }

    /// The group's key at `generation` for these terminals.
    pub(crate) fn key_dist(&self, group: u32, generation: u32, to: &[u32]) -> Vec<u8> {
        let group = GroupNumber::new(group).unwrap();
        let key = MasterKey::new(group, epoch(self.now), Generation::ZERO, secret(77));
        let contents = KeyDistContents {
            search_key: None,
            key: key.renew_to(Generation::new(generation).unwrap()),
            activate_at: self.now,
            cadence: None,
            lease_end: Some(self.now.plus(3600)),
        };
        let wraps: Vec<_> = to
            .iter()
            .map(|&number| wrap(TerminalNumber::new(number).unwrap()))
            .collect();
        let key_dist = KeyDist::seal(&contents, wraps.iter(), &mut OsRandom);
        let mut command = self.command(Body::KeyDist(key_dist));
        command.target = Target::Handles;
        self.keys.sign(&command)
    }

    pub(crate) fn renew(&self, group: u32, generation: u32) -> Vec<u8> {
        let group = GroupNumber::new(group).unwrap();
        let entry = RenewEntry {
            kid: group.master_key_id(),
            epoch: epoch(self.now),
            schedule: Schedule {
                generation: Generation::new(generation).unwrap(),
                activate_at: self.now,
                cadence: None,
            },
            lease_end: Some(self.now.plus(3600)),
        };
        self.beat.sign(&self.command(Body::Renew(Renew {
            entries: vec![entry],
        })))
    }

    /// A change of the group's key to `generation`; a STOP ends by itself after `seconds`.
    pub(crate) fn halt(&self, transaction: u64, generation: u32, seconds: u32) -> Halt {
        Halt {
            group: GroupNumber::new(GROUP).unwrap(),
            transaction: SequenceNumber::new(transaction),
            epoch: epoch(self.now),
            generation: Generation::new(generation).unwrap(),
            deadline: self.now.plus(seconds),
        }
    }

    /// DELETE, INIT, LOCK or UNLOCK for terminal `number`.
    pub(crate) fn order(&self, kind: OrderKind, number: u32, version: Option<u32>) -> Vec<u8> {
        let terminal = TerminalNumber::new(number).unwrap();
        let contents = OrderContents {
            terminal,
            kind,
            version,
            receipt_wanted: kind == OrderKind::Delete,
        };
        let obey = ObeyKey::new(terminal, secret(40));
        let order = SealedOrder::seal(&contents, &obey, &mut OsRandom);
        let mut command = self.command(Body::Order(order));
        command.target = Target::Handles;
        self.erase.sign(&command)
    }

    pub(crate) fn command(&self, body: Body) -> Command {
        let sequence = self.sequence.replace(self.sequence.get() + 1);
        Command {
            stream: STREAM,
            sequence: SequenceNumber::new(sequence),
            issued_at: self.now,
            not_after: self.now.plus(3600),
            target: Target::All,
            body,
            fleet_generation: Generation::ZERO,
        }
    }

    fn key_set(&self) -> KeySet {
        let listed = |key: &SigningKey, class| ListedKey {
            public: key.public(),
            class,
            not_before: UnixSeconds::new(self.now.get() - 60),
            expires: self.now.plus(24 * 3600),
            groups: Vec::new(),
        };
        KeySet {
            version: 1,
            issued_at: self.now,
            keys: vec![
                listed(&self.beat, SignerClass::Beat),
                listed(&self.keys, SignerClass::Keys),
                listed(&self.erase, SignerClass::Erase),
            ],
            fleet_schedule: FleetSchedule {
                first: Generation::ZERO,
                from: self.now,
                period: 3600,
            },
            stolen: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// A carrier of one terminal, so that a test says who hears what.
pub(crate) struct Carrier {
    pub(crate) address: CarrierAddress,
    sender: MulticastSender,
}

impl Carrier {
    pub(crate) fn new() -> Self {
        let address = CarrierAddress::new(multicast(), Ipv4Addr::LOCALHOST, 0).unwrap();
        let sender = MulticastSender::open(&address).unwrap();
        Self { address, sender }
    }

    pub(crate) fn tell(&self, frame: &[u8]) {
        self.sender.send(frame).unwrap();
    }
}

/// A multicast group of its own, with a free port after it.
pub(crate) fn multicast() -> SocketAddrV4 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(2, Ordering::Relaxed);
    let process = u16::try_from(std::process::id() % 200).unwrap();
    let [_, low] = process.to_be_bytes();
    SocketAddrV4::new(Ipv4Addr::new(239, 255, 71, low), 40_000 + number)
}

pub(crate) fn enrol(dir: &Path, package: &EnrolmentPackage, protection: Option<&Protection>) {
    let code = EnrolmentCode::random(&mut OsRandom);
    let sealed = package.seal_under(&code, &mut OsRandom);
    keyfall_terminal::enrol(dir, &sealed, Some(&code), protection).unwrap();
}

fn wrap(number: TerminalNumber) -> WrapKey {
    let fill = u8::try_from(100 + number.get()).unwrap();
    WrapKey::new(number, Generation::ZERO, secret(fill))
}

fn secret(fill: u8) -> Secret<32> {
    Secret::init_with(|octets| octets.fill(fill))
}

/// An epoch was born before now.
fn epoch(now: UnixSeconds) -> KeyEpoch {
    KeyEpoch::fresh(None, now)
}

const STREAM: StreamId = StreamId::new([1, 2, 3, 4]);
