//! A fleet whose signing keys the tests hold, and a terminal in it.

use aws_lc_rs::digest;

use crate::command::{
    Body, Command, Floor, KeyDist, KeyDistContents, Renew, RenewEntry, SigningKey, Target, Time,
};
use crate::enrolment::{EnrolmentPackage, Identity};
use crate::ids::{
    Generation, GroupNumber, KeyEpoch, KeyId, SequenceNumber, TerminalNumber, Tick, UnixSeconds,
};
use crate::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use crate::rng::Random;
use crate::schedule::{Cadence, Schedule};
use crate::server::{FleetRecord, Founding};
use crate::stats::DropReason;
use crate::terminal::{Event, Input, Output, ReceiveKey, StoreId, Terminal, TrafficQuery, Trial};

/// When every fixture's fleet was founded.
pub(super) const FOUNDED: UnixSeconds = UnixSeconds::new(1_800_000_000);
/// Seconds between two scheduled G.
pub(super) const FLEET_PERIOD: u32 = 3600;

/// Octets that are as good as random and always the same.
pub(super) struct Counting(u64);

impl Random for Counting {
    fn fill(&mut self, into: &mut [u8]) {
        for chunk in into.chunks_mut(32) {
            self.0 += 1;
            let block = digest::digest(&digest::SHA256, &self.0.to_be_bytes());
            chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        }
    }
}

/// Randomness for an input that must not use it.
pub(super) fn counting() -> Counting {
    Counting(1 << 40)
}

/// The server's side: every signing key.
pub(super) struct Fleet {
    pub(super) record: FleetRecord,
    pub(super) root: SigningKey,
    pub(super) erase: SigningKey,
    pub(super) rng: Counting,
}

/// What a test leaves open in a statement.
#[derive(Clone, Copy)]
pub(super) struct Stated {
    pub(super) generation: u32,
    pub(super) issued_at: UnixSeconds,
    pub(super) activate_at: UnixSeconds,
    pub(super) cadence: Option<Cadence>,
    /// G.
    pub(super) fleet: u32,
}

impl Stated {
    /// Issued and active at `seconds` after the founding, under G 0, without a cadence.
    pub(super) fn at(seconds: u32, generation: u32) -> Self {
        Self {
            generation,
            issued_at: FOUNDED.plus(seconds),
            activate_at: FOUNDED.plus(seconds),
            cadence: None,
            fleet: 0,
        }
    }
}

impl Fleet {
    pub(super) fn new() -> Self {
        let mut rng = Counting(0);
        let root = signing_key(&mut rng);
        let erase = signing_key(&mut rng);
        let founding = Founding {
            fleet_period: FLEET_PERIOD,
            ..Founding::default()
        };
        let record = FleetRecord::found(founding, &root, &erase.public(), FOUNDED, &mut rng);
        Self {
            record,
            root,
            erase,
            rng,
        }
    }

    /// Signs the KEYSET of `record` anew, for a test that changed it.
    pub(super) fn sign_key_set(&mut self) {
        let body = Body::KeySet(self.record.key_set.clone());
        let command = self.command(Target::All, body, Stated::at(0, 0));
        self.record.key_set_frame = self.root.sign(&command);
    }

    pub(super) fn wrap_key(&self, number: u32) -> WrapKey {
        let secret = Secret::init_with(|into| into.fill(number.to_be_bytes()[3]));
        WrapKey::new(terminal_number(number), generation(0), secret)
    }

    pub(super) fn package(&self, number: u32) -> EnrolmentPackage {
        let obey = Secret::init_with(|into| into.fill(0xe0));
        EnrolmentPackage {
            identity: Identity {
                number: terminal_number(number),
                name: format!("terminal-{number}"),
                fleet: "fleet".to_owned(),
                root: self.root.public(),
                key_set_frame: self.record.key_set_frame.clone(),
                streams: vec![self.record.stream],
                carriers: Vec::new(),
                keep_time: 120,
            },
            obey: ObeyKey::new(terminal_number(number), obey),
            wrap: self.wrap_key(number),
            issued_at: FOUNDED,
            expires: FOUNDED.plus(86_400),
        }
    }

    pub(super) fn command(&self, target: Target, body: Body, stated: Stated) -> Command {
        Command {
            stream: self.record.stream,
            sequence: SequenceNumber::new(1),
            issued_at: stated.issued_at,
            not_after: stated.issued_at.plus(40 * 86_400),
            target,
            body,
            fleet_generation: generation(stated.fleet),
        }
    }

    /// TIME, `seconds` after the founding.
    pub(super) fn time(&self, seconds: u32) -> Vec<u8> {
        self.time_with(seconds, Vec::new())
    }

    pub(super) fn time_with(&self, seconds: u32, floors: Vec<Floor>) -> Vec<u8> {
        let body = Body::Time(Time {
            seconds: FOUNDED.plus(seconds),
            max_error_ms: 0,
            floors,
        });
        let command = self.command(Target::All, body, Stated::at(seconds, 0));
        self.record.beat.sign(&command)
    }

    pub(super) fn renew_body(epoch: u32, stated: Stated) -> Body {
        Body::Renew(Renew {
            entries: vec![renew_entry(group().master_key_id(), epoch, stated)],
        })
    }

    /// RENEW of the group.
    pub(super) fn renew(&self, epoch: u32, stated: Stated) -> Vec<u8> {
        let body = Self::renew_body(epoch, stated);
        let command = self.command(Target::Group(group()), body, stated);
        self.record.beat.sign(&command)
    }

    /// RENEW of key id 0.
    pub(super) fn renew_fleet(&self, stated: Stated) -> Vec<u8> {
        let body = Body::Renew(Renew {
            entries: vec![renew_entry(KeyId::ALL_RANK_ONE, 0, stated)],
        });
        let command = self.command(Target::All, body, stated);
        self.record.beat.sign(&command)
    }

    /// The contents of a KEYDIST, in clear.
    pub(super) fn key_dist_body(&mut self, epoch: u32, stated: Stated, to: &[&WrapKey]) -> Body {
        let contents = KeyDistContents {
            key: master(epoch, stated.generation),
            activate_at: stated.activate_at,
            cadence: stated.cadence,
            lease_end: Some(stated.issued_at.plus(72 * 3600)),
        };
        Body::KeyDist(KeyDist::seal(&contents, to.iter().copied(), &mut self.rng))
    }

    /// KEYDIST of the group's key to terminal 1, whose wrap key is at the stated G.
    pub(super) fn key_dist(&mut self, epoch: u32, stated: Stated) -> Vec<u8> {
        let wrap = self.wrap_key(1).renew_to(generation(stated.fleet));
        let body = self.key_dist_body(epoch, stated, &[&wrap]);
        let command = self.command(Target::Handles, body, stated);
        self.record.keys.sign(&command)
    }

    /// Terminal 1, enrolled and stored, at tick 0.
    pub(super) fn terminal(&self) -> Driven {
        let machine = Terminal::enrol(self.package(1), Tick::default()).expect("signed KEYSET");
        let mut driven = Driven::new(machine);
        driven.drain();
        driven.store_all();
        driven
    }

    /// Terminal 1 as a member of the group at epoch 7 generation 0, with time heard; all of it
    /// stored.
    pub(super) fn member(&mut self) -> Driven {
        let mut driven = self.terminal();
        driven.hear(&self.time(0));
        driven.hear(&self.key_dist(7, Stated::at(0, 0)));
        driven.store_all();
        driven
    }
}

/// A terminal with its disk in the test's hand.
pub(super) struct Driven {
    pub(super) machine: Terminal,
    pub(super) now: Tick,
    rng: Counting,
    /// Asked for and not yet reported as stored.
    pub(super) asked: Vec<(StoreId, Vec<u8>)>,
    /// What disk holds.
    pub(super) synced: Vec<u8>,
    pub(super) events: Vec<Event>,
    pub(super) timeout: Option<Tick>,
}

impl Driven {
    pub(super) fn new(machine: Terminal) -> Self {
        Self {
            machine,
            now: Tick::default(),
            rng: Counting(1 << 32),
            asked: Vec::new(),
            synced: Vec::new(),
            events: Vec::new(),
            timeout: None,
        }
    }

    pub(super) fn feed(&mut self, input: Input<'_>) {
        self.machine
            .handle_input(self.now, &mut self.rng, input)
            .expect("the test keeps the contract");
        self.drain();
    }

    /// A frame; what it was dropped for, if it was.
    pub(super) fn hear(&mut self, frame: &[u8]) -> Option<DropReason> {
        let before = self.machine.drops.clone();
        self.feed(Input::Datagram(frame));
        DropReason::ALL
            .iter()
            .copied()
            .find(|&reason| self.machine.drops.of(reason) > before.of(reason))
    }

    /// Time goes on by `seconds`.
    pub(super) fn wait(&mut self, seconds: u64) {
        self.now = self.now.plus(std::time::Duration::from_secs(seconds));
        self.feed(Input::Timeout);
    }

    pub(super) fn drain(&mut self) {
        loop {
            match self.machine.poll_output() {
                Output::Store(id, snapshot) => self.asked.push((id, snapshot.to_vec())),
                Output::Event(event) => self.events.push(event),
                Output::Timeout { at, .. } => {
                    self.timeout = at;
                    return;
                }
            }
        }
    }

    /// Everything asked for becomes durable.
    pub(super) fn store_all(&mut self) {
        while let Some((id, snapshot)) = self.asked.pop() {
            self.asked.clear();
            self.synced = snapshot;
            self.feed(Input::Stored(id));
        }
    }

    /// What disk would hold if all of memory that survives were stored now.
    pub(super) fn snapshot(&self) -> Vec<u8> {
        self.machine.snapshot().to_vec()
    }

    /// The same terminal after a power cut.
    pub(super) fn restarted(&self) -> Self {
        let machine = Terminal::restore(&self.synced, Tick::default()).expect("own snapshot");
        let mut driven = Self::new(machine);
        driven.drain();
        driven
    }

    /// The newest generation of the group.
    pub(super) fn generation(&self) -> Option<u32> {
        let status = self.machine.groups().into_iter().next()?;
        Some(status.generation.get())
    }

    /// The generation that it sends with.
    pub(super) fn sending(&self) -> Option<u32> {
        self.machine
            .send_key(group())
            .map(|key| key.generation().get())
    }
}

pub(super) fn group() -> GroupNumber {
    GroupNumber::new(1).expect("not 0")
}

pub(super) fn terminal_number(number: u32) -> TerminalNumber {
    TerminalNumber::new(number).expect("not 0")
}

pub(super) fn generation(number: u32) -> Generation {
    Generation::new(number).expect("small")
}

/// The group's key, from a fixed one for each epoch.
pub(super) fn master(epoch: u32, at: u32) -> MasterKey {
    let secret = Secret::init_with(|into| into.fill(epoch.to_be_bytes()[3]));
    MasterKey::new(group(), KeyEpoch::new(epoch), generation(0), secret).renew_to(generation(at))
}

pub(super) fn renew_entry(kid: KeyId, epoch: u32, stated: Stated) -> RenewEntry {
    RenewEntry {
        kid,
        epoch: KeyEpoch::new(epoch),
        schedule: Schedule {
            generation: generation(stated.generation),
            activate_at: stated.activate_at,
            cadence: stated.cadence,
        },
        lease_end: Some(stated.issued_at.plus(72 * 3600)),
    }
}

/// The trial of a newer generation of epoch 7.
pub(super) fn trial(driven: &mut Driven, generation: u32) -> Trial {
    let query = TrafficQuery {
        group: group(),
        tag: master(7, generation).tag(),
        source: 1,
    };
    match driven.machine.receive_key(driven.now, query) {
        Ok(ReceiveKey::Trial(trial)) => trial,
        other => panic!("{other:?}"),
    }
}

fn signing_key(rng: &mut Counting) -> SigningKey {
    SigningKey::from_seed(Secret::init_with(|into| rng.fill(into)))
}
