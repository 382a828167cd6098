//! The fleet of the vectors: everything in it comes from a name by [`octets32`].

use keyfall_protocol::command::{
    Body, Command, KeyDist, KeyDistContents, KeySet, Limits, ListedKey, SignerClass, SigningKey,
    Target, VerifyingKey,
};
use keyfall_protocol::enrolment::{EnrolmentPackage, Identity};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, StreamId, TerminalNumber, UnixSeconds,
};
use keyfall_protocol::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use keyfall_protocol::rng::Random;
use keyfall_protocol::schedule::{Cadence, FleetSchedule};

use crate::stream::octets32;

/// 2026-09-21 13:33:20 UTC: the KEYSET's issued-at and t0.
pub(crate) const FOUNDED: u32 = 1_790_000_000;
/// Seconds between two generations G.
pub(crate) const P0: u32 = 3600;
/// The epoch of group 7.
pub(crate) const EPOCH: u32 = 22_774_400;

pub(crate) fn signing_key(name: &str) -> SigningKey {
    SigningKey::from_seed(secret(name))
}

pub(crate) fn secret(name: &str) -> Secret<32> {
    Secret::from_slice(&octets32(name)).unwrap()
}

pub(crate) fn terminal(number: u32) -> TerminalNumber {
    TerminalNumber::new(number).unwrap()
}

pub(crate) fn group(number: u32) -> GroupNumber {
    GroupNumber::new(number).unwrap()
}

pub(crate) fn generation(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

pub(crate) fn at(seconds: u32) -> UnixSeconds {
    UnixSeconds::new(seconds)
}

pub(crate) fn stream_id() -> StreamId {
    StreamId::new(*octets32("stream").first_chunk().unwrap())
}

pub(crate) fn obey_key(number: u32) -> ObeyKey {
    let octets = secret(&format!("obey key of terminal {number}"));
    ObeyKey::new(terminal(number), octets)
}

/// At generation G.
pub(crate) fn wrap_key(number: u32, g: u32) -> WrapKey {
    let octets = secret(&format!("wrap key of terminal {number}"));
    WrapKey::new(terminal(number), Generation::ZERO, octets).renew_to(generation(g))
}

pub(crate) fn master_key(number: u32, reached: u32) -> MasterKey {
    let octets = secret(&format!("master key of group {number}"));
    MasterKey::new(
        group(number),
        KeyEpoch::new(EPOCH),
        Generation::ZERO,
        octets,
    )
    .renew_to(generation(reached))
}

/// Four keys: one of each class.
pub(crate) fn key_set() -> KeySet {
    let listed = |name: &str, class, life| ListedKey {
        public: signing_key(name).public(),
        class,
        not_before: at(FOUNDED),
        expires: at(FOUNDED + life),
        groups: Vec::new(),
    };
    let kem = VerifyingKey::new(octets32("KEM key"));
    KeySet {
        version: FOUNDED - 1_767_225_600,
        issued_at: at(FOUNDED),
        keys: vec![
            listed("beat key", SignerClass::Beat, 30 * 86_400),
            listed("keys key", SignerClass::Keys, 30 * 86_400),
            listed("erase key", SignerClass::Erase, 5 * 366 * 86_400),
            ListedKey {
                public: kem,
                ..listed("", SignerClass::Kem, 5 * 366 * 86_400)
            },
        ],
        fleet_schedule: FleetSchedule {
            first: Generation::ZERO,
            from: at(FOUNDED),
            period: P0,
        },
        stolen: Vec::new(),
        limits: Limits::default(),
    }
}

pub(crate) fn command(
    sequence: u64,
    issued_at: u32,
    g: u32,
    target: Target,
    body: Body,
) -> Command {
    let life = if matches!(body, Body::KeySet(_)) {
        5 * 366 * 86_400
    } else {
        86_400
    };
    Command {
        stream: stream_id(),
        sequence: SequenceNumber::new(sequence),
        issued_at: at(issued_at),
        not_after: at(issued_at + life),
        target,
        body,
        fleet_generation: generation(g),
    }
}

pub(crate) fn key_set_frame() -> Vec<u8> {
    let body = Body::KeySet(key_set());
    signing_key("root").sign(&command(22_774_400_000, FOUNDED, 0, Target::All, body))
}

pub(crate) fn package(number: u32, name: &str, carriers: &[&str]) -> EnrolmentPackage {
    EnrolmentPackage {
        identity: Identity {
            number: terminal(number),
            name: name.to_owned(),
            fleet: "coast guard".to_owned(),
            root: signing_key("root").public(),
            key_set_frame: key_set_frame(),
            streams: vec![stream_id()],
            carriers: carriers.iter().map(|&carrier| carrier.to_owned()).collect(),
            servers: Vec::new(),
            keep_time: 120,
            wipe_roots: Vec::new(),
        },
        obey: obey_key(number),
        wrap: wrap_key(number, 5),
        issued_at: at(FOUNDED + 5 * P0),
        expires: at(FOUNDED + 5 * P0 + 7 * 86_400),
    }
}

/// What a KEYDIST of group 7 holds: generation 12, every hour, a lease of 72 h.
pub(crate) fn contents() -> KeyDistContents {
    KeyDistContents {
        search_key: None,
        key: master_key(7, 12),
        activate_at: at(FOUNDED + 5 * P0 + 2),
        cadence: Cadence::new(1, 3600),
        lease_end: Some(at(FOUNDED + 5 * P0 + 72 * 3600)),
    }
}

/// Sealed for terminals 1 to `recipients` at G.
pub(crate) fn key_dist(
    contents: &KeyDistContents,
    recipients: u32,
    g: u32,
    rng: &mut dyn Random,
) -> KeyDist {
    let keys: Vec<_> = (1..=recipients).map(|number| wrap_key(number, g)).collect();
    KeyDist::seal(contents, keys.iter(), rng)
}
