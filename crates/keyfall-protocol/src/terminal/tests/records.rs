//! RECORD in a terminal: who speaks for which addresses, as the server said it last and nobody else
//! (REQUIREMENTS, W-06; FORMATS section 8.1).

use super::driven::Driven;
use super::fixture::{FOUNDED, Fleet, Stated, group, terminal_number};
use crate::command::{
    Body, KeyDist, KeyDistContents, ProtectionRecord, RECORD_LIFE, RecordGroup, SignedRecord,
    SignerClass, SigningKey, Target,
};
use crate::ids::{GroupNumber, KeyEpoch};
use crate::keys::{EspSuite, Secret};
use crate::stats::DropReason;
use crate::terminal::{Event, Input};

const DAY: u32 = 86_400;

/// What the server would say of a terminal `seconds` after the founding: version and time fit.
fn record(number: u32, seconds: u32) -> ProtectionRecord {
    let issued_at = FOUNDED.plus(seconds);
    ProtectionRecord {
        terminal: terminal_number(number),
        version: issued_at.since(KeyEpoch::new(0).birth()),
        issued_at,
        not_after: issued_at.plus(RECORD_LIFE),
        prefixes: vec![format!("10.77.0.{number}/32").parse().expect("a prefix")],
        endpoints: vec![],
        groups: vec![RecordGroup {
            group: group(),
            priority: 0,
            mtu: None,
            suite: EspSuite::default(),
            networks: vec![],
        }],
    }
}

fn frame(record: ProtectionRecord, key: &SigningKey) -> Vec<u8> {
    record.signed_by(key).frame().to_vec()
}

fn version(bob: &Driven, number: u32) -> Option<u32> {
    let own = bob.machine.own_record().filter(|_| number == 1);
    let record = bob.machine.record_of(terminal_number(number));
    let record = own.map(SignedRecord::record).or(record);
    record.map(|it| it.version)
}

/// The own record outlives a power cut, and is told once it is stored; others live in memory.
#[test]
fn the_own_record_is_durable_and_others_are_heard_again() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let keys = &fleet.record.keys;
    let (own, other) = (record(1, 10), record(2, 10));
    assert_eq!(bob.hear(&frame(own.clone(), keys)), None);
    assert_eq!(bob.hear(&frame(other.clone(), keys)), None);
    let changed = Event::RecordChanged {
        version: own.version,
    };
    assert!(!bob.events.contains(&changed), "not before it is stored");
    bob.store_all();
    assert!(bob.events.contains(&changed));
    let held = bob.machine.own_record().expect("held");
    assert_eq!(*held.record(), own);
    assert_eq!(version(&bob, 2), Some(other.version));
    let mut bob = bob.restarted();
    assert_eq!(version(&bob, 1), Some(own.version));
    assert_eq!(version(&bob, 2), None);
    // A locked terminal hears them too: nothing in them is secret.
    bob.feed(Input::Lock);
    let newer = record(1, 20);
    assert_eq!(bob.hear(&frame(newer.clone(), &fleet.record.keys)), None);
    bob.store_all();
    assert_eq!(version(&bob.restarted(), 1), Some(newer.version));
}

/// KR-502: a version below the highest seen is a recording, and costs no signature.
#[test]
fn an_older_or_repeated_record_changes_nothing() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let keys = &fleet.record.keys;
    for number in [1, 2] {
        let (first, second) = (record(number, 10), record(number, 20));
        assert_eq!(bob.hear(&frame(first.clone(), keys)), None);
        assert_eq!(bob.hear(&frame(second.clone(), keys)), None);
        let refusals = [DropReason::OlderRecord, DropReason::NotNewer];
        for (repeat, reason) in [&first, &second].into_iter().zip(refusals) {
            let mut forged = frame(repeat.clone(), keys);
            *forged.last_mut().expect("an octet") ^= 1;
            let refused = Some(reason);
            assert_eq!(bob.hear(&frame(repeat.clone(), keys)), refused);
            assert_eq!(bob.hear(&forged), refused, "no signature is checked");
        }
        assert_eq!(version(&bob, number), Some(second.version));
    }
    bob.store_all();
    let mut bob = bob.restarted();
    let refused = bob.hear(&frame(record(1, 10), keys));
    assert_eq!(
        refused,
        Some(DropReason::OlderRecord),
        "after a power cut, too"
    );
}

/// KR-503: the keys class alone speaks of addresses: no other class, no member, nobody unlisted.
#[test]
fn only_the_keys_class_signs_records() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let stranger = SigningKey::from_seed(Secret::init_with(|into| into.fill(3)));
    let of = |key: &SigningKey| frame(record(2, 10), key);
    for (key, reason) in [
        (&fleet.record.beat, DropReason::WrongClass),
        (&fleet.erase, DropReason::WrongClass),
        (&fleet.root, DropReason::UnknownSigner),
        (&stranger, DropReason::UnknownSigner),
    ] {
        assert_eq!(bob.hear(&of(key)), Some(reason));
    }
    // In the listed key's name, by another.
    let named = of(&fleet.record.keys);
    let mut forged = of(&stranger);
    let signature = forged.split_off(forged.len() - 64);
    let mut forged = named[..named.len() - 64].to_vec();
    forged.extend(signature);
    assert_eq!(bob.hear(&forged), Some(DropReason::BadSignature));
    assert_eq!(version(&bob, 2), None);
    assert_eq!(bob.hear(&named), None);
}

/// KR-504: signed within its signer's time, not past its own end, and no longer than a record lives.
#[test]
fn a_record_outside_its_time_is_refused_and_one_that_ended_counts_no_more() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let refused = |bob: &mut Driven, keys: &SigningKey, change: &dyn Fn(&mut ProtectionRecord)| {
        let mut record = record(2, 10);
        change(&mut record);
        bob.hear(&frame(record, keys))
    };
    let keys = SigningKey::from_seed(fleet.record.keys.seed().duplicate());
    let late = |it: &mut ProtectionRecord| it.issued_at = FOUNDED.plus(31 * DAY);
    assert_eq!(
        refused(&mut bob, &keys, &late),
        Some(DropReason::SignerExpired)
    );
    let long = |it: &mut ProtectionRecord| it.not_after = it.not_after.plus(1);
    assert_eq!(
        refused(&mut bob, &keys, &long),
        Some(DropReason::AboveBound)
    );
    let far = |it: &mut ProtectionRecord| it.version = u32::MAX;
    assert_eq!(refused(&mut bob, &keys, &far), Some(DropReason::AboveBound));
    assert_eq!(refused(&mut bob, &keys, &|_| ()), None);
    assert_eq!(bob.hear(&frame(record(1, 10), &keys)), None);
    bob.store_all();
    // Trusted time ends them: what is held, and what is played.
    bob.wait(u64::from(RECORD_LIFE) + 11);
    bob.hear(&fleet.time(RECORD_LIFE + 11));
    assert_eq!((version(&bob, 1), version(&bob, 2)), (None, None));
    assert_eq!(
        bob.hear(&frame(record(3, 10), &keys)),
        Some(DropReason::PastNotAfter)
    );
    assert_eq!(bob.hear(&frame(record(2, RECORD_LIFE), &keys)), None);
}

/// KR-505: a key that is limited to groups speaks of nobody's membership in others; and what a stolen
/// key said is not believed any more.
#[test]
fn records_are_held_within_their_signers_groups_and_gone_with_a_stolen_key() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    for number in [1, 2] {
        assert_eq!(
            bob.hear(&frame(record(number, 10), &fleet.record.keys)),
            None
        );
    }
    // Highest that the thief could write.
    let mut highest = record(3, 10);
    highest.version = FOUNDED.plus(30 * DAY).since(KeyEpoch::new(0).birth());
    assert_eq!(bob.hear(&frame(highest.clone(), &fleet.record.keys)), None);
    let stolen = fleet.replace_key(SignerClass::Keys, 20);
    assert_eq!(bob.hear(&fleet.next_key_set(20, |_| ())), None);
    assert!(version(&bob, 2).is_some(), "replaced is not stolen");
    assert_eq!(
        bob.hear(&frame(record(2, 30), &stolen)),
        Some(DropReason::UnknownSigner)
    );
    // What is said now wins over what a key said that is listed no more, also by a lower number.
    assert_eq!(bob.hear(&frame(record(3, 30), &fleet.record.keys)), None);
    assert_eq!(version(&bob, 3), Some(record(3, 30).version));
    let named = fleet.next_key_set(40, |key_set| {
        key_set.stolen = vec![stolen.public().name()];
        key_set.keys[1].groups = vec![GroupNumber::new(5).expect("not 0")];
    });
    assert_eq!(bob.hear(&named), None);
    bob.store_all();
    assert_eq!((version(&bob, 1), version(&bob, 2)), (None, None));
    assert_eq!(
        version(&bob, 3),
        Some(record(3, 30).version),
        "by the new key"
    );
    assert!(bob.restarted().machine.own_record().is_none());
    assert_eq!(
        bob.hear(&frame(record(2, 50), &fleet.record.keys)),
        Some(DropReason::GroupNotAllowed)
    );
}

/// KR-506: nobody finds the way to a terminal that is excluded.
#[test]
fn an_excluded_terminals_record_is_dropped_and_not_taken_again() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    for number in [2, 3] {
        assert_eq!(
            bob.hear(&frame(record(number, 10), &fleet.record.keys)),
            None
        );
    }
    assert_eq!(
        bob.hear(&fleet.exclude(&[2], None, Stated::at(11, 0))),
        None
    );
    assert_eq!(version(&bob, 2), None);
    let again = bob.hear(&frame(record(2, 20), &fleet.record.keys));
    assert_eq!(again, Some(DropReason::ExcludedSender));
    assert!(version(&bob, 3).is_some());
}

/// FORMATS 8.1: KS comes with the epoch, is stored with it and goes with it; while locked nobody has
/// it.
#[test]
fn a_search_key_lives_as_long_as_its_epoch() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.terminal();
    bob.hear(&fleet.time(0));
    let dist = |fleet: &mut Fleet, epoch: u32, fill: Option<u8>, seconds: u32| {
        let stated = Stated::at(seconds, 0);
        let contents = KeyDistContents {
            key: super::fixture::master(epoch, 0),
            search_key: fill.map(|fill| Secret::init_with(|into| into.fill(fill))),
            activate_at: stated.activate_at,
            cadence: None,
            lease_end: Some(stated.issued_at.plus(stated.lease)),
        };
        let wrap = fleet.wrap_key(1);
        let body = KeyDist::seal(&contents, std::iter::once(&wrap), &mut fleet.rng);
        let command = fleet.command(Target::Handles, Body::KeyDist(body), stated);
        fleet.record.keys.sign(&command)
    };
    let held = |bob: &Driven| {
        let key = bob.machine.search_key(group())?;
        Some((bob.epoch().get(), key.expose()[0]))
    };
    assert_eq!(bob.hear(&dist(&mut fleet, 7, Some(1), 0)), None);
    bob.store_all();
    assert_eq!(held(&bob), Some((7, 1)));
    let mut bob = bob.restarted();
    assert_eq!(held(&bob), Some((7, 1)));
    // Of one epoch there is one: what is said again changes nothing.
    let repeat = bob.hear(&dist(&mut fleet, 7, Some(2), 1));
    assert!(repeat.is_none() || repeat == Some(DropReason::NotNewer));
    assert_eq!(held(&bob), Some((7, 1)));
    bob.hear(&fleet.renew(7, Stated::at(2, 3)));
    assert_eq!(held(&bob), Some((7, 1)), "a renewal keeps it");
    assert_eq!(bob.hear(&dist(&mut fleet, 9, Some(3), 3)), None);
    assert_eq!(held(&bob), Some((9, 3)));
    assert_eq!(bob.hear(&dist(&mut fleet, 11, None, 4)), None);
    assert_eq!(held(&bob), None, "no packet group any more");
    assert_eq!(bob.hear(&dist(&mut fleet, 13, Some(4), 5)), None);
    bob.store_all();
    bob.feed(Input::Lock);
    assert_eq!(held(&bob), None);
}
