//! A fleet whose signing keys the tests hold, and a terminal in it.

use aws_lc_rs::digest;

use super::driven::Driven;
use crate::command::{
    Body, Command, Exclude, Floor, FreshEpoch, Halt, KeyDist, KeyDistContents, KeySet, Notify,
    NotifyEntry, OrderContents, OrderKind, Renew, RenewEntry, SealedOrder, SignerClass, SigningKey,
    Target, Time,
};
use crate::enrolment::{EnrolmentPackage, Identity};
use crate::ids::{
    Generation, GroupNumber, KeyEpoch, KeyId, SequenceNumber, TerminalNumber, Tick, UnixSeconds,
};
use crate::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use crate::rng::Random;
use crate::schedule::{Cadence, Schedule};
use crate::server::{FleetRecord, Founding};
use crate::terminal::{ReceiveKey, Terminal, TrafficQuery, Trial};

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

impl From<u64> for Counting {
    fn from(first: u64) -> Self {
        Self(first)
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
    /// Seconds from issued-at to the end of the lease.
    pub(super) lease: u32,
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
            lease: 72 * 3600,
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

    /// The next KEYSET of the root's, issued at `seconds` after the founding: signing keys other
    /// than now, limits, a schedule.
    pub(super) fn next_key_set(
        &mut self,
        seconds: u32,
        change: impl FnOnce(&mut KeySet),
    ) -> Vec<u8> {
        let key_set = &mut self.record.key_set;
        key_set.version += 1;
        key_set.issued_at = FOUNDED.plus(seconds);
        change(key_set);
        self.sign_key_set();
        self.record.key_set_frame.clone()
    }

    /// The next KEYSET lists a fresh key of a class in place of the present one, for 30 days from
    /// `seconds` after the founding; returns that one, which the thief may have.
    pub(super) fn replace_key(&mut self, class: SignerClass, seconds: u32) -> SigningKey {
        let fresh = signing_key(&mut self.rng);
        let held = self.record.key_set.keys.iter_mut();
        let listed = held.into_iter().find(|key| key.class == class);
        let listed = listed.expect("one of each class");
        listed.public = fresh.public();
        listed.not_before = FOUNDED.plus(seconds);
        if class != SignerClass::Erase {
            listed.expires = FOUNDED.plus(seconds + 30 * 86_400);
        }
        let place = match class {
            SignerClass::Beat => &mut self.record.beat,
            SignerClass::Keys => &mut self.record.keys,
            SignerClass::Erase => &mut self.erase,
            SignerClass::Kem | SignerClass::KemPq | SignerClass::Rsa => panic!("it signs nothing"),
        };
        std::mem::replace(place, fresh)
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

    pub(super) fn obey_key(number: u32) -> ObeyKey {
        let secret = Secret::init_with(|into| into.fill(0xe0 ^ number.to_be_bytes()[3]));
        ObeyKey::new(terminal_number(number), secret)
    }

    pub(super) fn package(&self, number: u32) -> EnrolmentPackage {
        EnrolmentPackage {
            identity: Identity {
                number: terminal_number(number),
                name: format!("terminal-{number}"),
                fleet: "fleet".to_owned(),
                root: self.root.public(),
                key_set_frame: self.record.key_set_frame.clone(),
                streams: vec![self.record.stream],
                carriers: Vec::new(),
                servers: Vec::new(),
                keep_time: 120,
                wipe_roots: Vec::new(),
            },
            obey: Self::obey_key(number),
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

    /// TIME that says any second, with or without floors, and whatever else is stated.
    pub(super) fn beacon(
        &self,
        seconds: UnixSeconds,
        floors: Vec<Floor>,
        stated: Stated,
    ) -> Vec<u8> {
        let body = Body::Time(Time {
            seconds,
            max_error_ms: 0,
            floors,
        });
        let command = self.command(Target::All, body, stated);
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
            search_key: None,
            key: master(epoch, stated.generation),
            activate_at: stated.activate_at,
            cadence: stated.cadence,
            lease_end: Some(stated.issued_at.plus(stated.lease)),
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

    /// DELETE, INIT, LOCK or UNLOCK for a terminal.
    pub(super) fn order_body(&mut self, kind: OrderKind, to: u32, version: u32) -> Body {
        let versioned = matches!(kind, OrderKind::Lock | OrderKind::Unlock);
        let contents = OrderContents {
            terminal: terminal_number(to),
            kind,
            version: versioned.then_some(version),
            receipt_wanted: kind == OrderKind::Delete,
        };
        let obey = Self::obey_key(to);
        Body::Order(SealedOrder::seal(&contents, &obey, &mut self.rng))
    }

    /// An order to terminal 1, `seconds` after the founding, not signed yet.
    pub(super) fn order_to_sign(&mut self, kind: OrderKind, version: u32, seconds: u32) -> Command {
        let body = self.order_body(kind, 1, version);
        let target = Target::Terminal(terminal_number(1));
        self.command(target, body, Stated::at(seconds, 0))
    }

    /// The same, signed by the erase key.
    pub(super) fn order(&mut self, kind: OrderKind, version: u32, seconds: u32) -> Vec<u8> {
        let command = self.order_to_sign(kind, version, seconds);
        self.erase.sign(&command)
    }

    /// EXCLUDE of terminals; the group goes from epoch 7 on to `epoch`, where there is one.
    pub(super) fn exclude_body(terminals: &[u32], epoch: Option<u32>) -> Body {
        let fresh = |epoch| FreshEpoch {
            group: group(),
            old: KeyEpoch::new(7),
            new: KeyEpoch::new(epoch),
        };
        Body::Exclude(Exclude {
            terminals: terminals.iter().map(|&n| terminal_number(n)).collect(),
            groups: epoch.into_iter().map(fresh).collect(),
        })
    }

    pub(super) fn exclude(&self, terminals: &[u32], epoch: Option<u32>, stated: Stated) -> Vec<u8> {
        let body = Self::exclude_body(terminals, epoch);
        let command = self.command(Target::All, body, stated);
        self.record.keys.sign(&command)
    }

    /// RENEW of terminal 1's own wrap key alone: so many generations ahead of G.
    pub(super) fn offset(&self, offset: u32, stated: Stated) -> Vec<u8> {
        let ahead = Stated {
            generation: stated.fleet + offset,
            ..stated
        };
        let kid = terminal_number(1).wrap_key_id();
        let body = Body::Renew(Renew {
            entries: vec![renew_entry(kid, 0, ahead)],
        });
        let command = self.command(Target::Terminal(terminal_number(1)), body, stated);
        self.record.beat.sign(&command)
    }

    /// STOP of the group, issued at `seconds` after the founding.
    pub(super) fn stop(&self, halt: Halt, seconds: u32) -> Vec<u8> {
        self.halting(Body::Stop(halt), seconds)
    }

    pub(super) fn start(&self, halt: Halt, seconds: u32) -> Vec<u8> {
        self.halting(Body::Start(halt), seconds)
    }

    fn halting(&self, body: Body, seconds: u32) -> Vec<u8> {
        let command = self.command(Target::Group(group()), body, Stated::at(seconds, 0));
        self.record.keys.sign(&command)
    }

    /// NOTIFY that lists these epochs and generations of the group.
    pub(super) fn notify(&self, target: Target, listed: &[(u32, u32)], seconds: u32) -> Vec<u8> {
        let command = self.command(target, notify_body(listed), Stated::at(seconds, 0));
        self.record.beat.sign(&command)
    }

    /// The key whose class may sign that.
    pub(super) fn signer_of(&self, body: &Body) -> &SigningKey {
        match body.signer_class() {
            Some(SignerClass::Beat) => &self.record.beat,
            Some(SignerClass::Keys) => &self.record.keys,
            Some(SignerClass::Erase) => &self.erase,
            Some(SignerClass::Kem | SignerClass::KemPq | SignerClass::Rsa) | None => &self.root,
        }
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

pub(super) fn group() -> GroupNumber {
    GroupNumber::new(1).expect("not 0")
}

/// A change of the group's key, which ends by itself at `deadline` seconds after the founding.
pub(super) fn halt(transaction: u64, (epoch, at): (u32, u32), deadline: u32) -> Halt {
    Halt {
        group: group(),
        transaction: SequenceNumber::new(transaction),
        epoch: KeyEpoch::new(epoch),
        generation: generation(at),
        deadline: FOUNDED.plus(deadline),
    }
}

/// Whoever comes spreads over two seconds.
pub(super) fn notify_body(listed: &[(u32, u32)]) -> Body {
    let entry = |&(epoch, at): &(u32, u32)| NotifyEntry {
        group: group(),
        epoch: KeyEpoch::new(epoch),
        generation: generation(at),
    };
    Body::Notify(Notify {
        spread_ms: 2000,
        entries: listed.iter().map(entry).collect(),
    })
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
        lease_end: Some(stated.issued_at.plus(stated.lease)),
    }
}

/// The trial of a newer generation of epoch 7.
pub(super) fn trial(driven: &mut Driven, generation: u32) -> Trial {
    let query = TrafficQuery {
        group: group(),
        tag: master(7, generation).tag(),
        sender: terminal_number(2),
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
