//! Any octets from anywhere: no panic, and no change unless they are authentic (DESIGN section 11,
//! invariants 4 and 9; REQUIREMENTS R-051).

use std::cell::RefCell;

use proptest::prelude::*;

use super::driven::Driven;
use super::fixture::{Fleet, Stated};
use crate::command::FRAME_MAX;
use crate::ids::Tick;
use crate::terminal::{Input, Terminal};

/// A member, the frames that it has heard, and some that would change it.
fn member_and_frames() -> (Driven, Vec<Vec<u8>>) {
    let mut fleet = Fleet::new();
    let bob = fleet.member();
    let stated = Stated {
        fleet: 3,
        ..Stated::at(60, 9)
    };
    let frames = vec![
        fleet.time(60),
        fleet.renew(7, stated),
        fleet.renew(8, stated),
        fleet.key_dist(7, stated),
        fleet.key_dist(8, stated),
        fleet.renew_fleet(stated),
        fleet.record.key_set_frame.clone(),
    ];
    (bob, frames)
}

/// How a frame is spoilt.
#[derive(Clone, Debug)]
enum Damage {
    Flip(usize, u8),
    Set(usize, u8),
    Cut(usize),
    Append(Vec<u8>),
    Insert(usize, u8),
    Remove(usize),
    /// Goes on with another frame from there.
    Splice(usize, usize),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<usize>(), 0..8u8).prop_map(|(place, bit)| Damage::Flip(place, bit)),
        2 => any::<(usize, u8)>().prop_map(|(place, octet)| Damage::Set(place, octet)),
        1 => any::<usize>().prop_map(Damage::Cut),
        1 => proptest::collection::vec(any::<u8>(), 1..20).prop_map(Damage::Append),
        1 => any::<(usize, u8)>().prop_map(|(place, octet)| Damage::Insert(place, octet)),
        1 => any::<usize>().prop_map(Damage::Remove),
        1 => any::<(usize, usize)>().prop_map(|(place, other)| Damage::Splice(place, other)),
    ]
}

fn spoil(frames: &[Vec<u8>], octets: &mut Vec<u8>, damage: &Damage) {
    let len = octets.len().max(1);
    match *damage {
        Damage::Flip(place, bit) => {
            if let Some(octet) = octets.get_mut(place % len) {
                *octet ^= 1 << bit;
            }
        }
        Damage::Set(place, value) => {
            if let Some(octet) = octets.get_mut(place % len) {
                *octet = value;
            }
        }
        Damage::Cut(place) => octets.truncate(place % len),
        Damage::Append(ref more) => octets.extend_from_slice(more),
        Damage::Insert(place, value) => octets.insert((place % len).min(octets.len()), value),
        Damage::Remove(place) => {
            if place % len < octets.len() {
                octets.remove(place % len);
            }
        }
        Damage::Splice(place, other) => {
            let from = &frames[other % frames.len()];
            let place = (place % len).min(from.len());
            octets.truncate(place);
            octets.extend_from_slice(&from[place..]);
        }
    }
}

thread_local! {
    static MEMBER: RefCell<(Driven, Vec<Vec<u8>>)> = RefCell::new(member_and_frames());
}

/// Feeds what is no genuine frame; nothing may change.
fn changes_nothing(octets: &[u8]) -> Result<(), TestCaseError> {
    MEMBER.with_borrow_mut(|(bob, _)| {
        let before = bob.snapshot();
        bob.feed(Input::Datagram(octets));
        prop_assert_eq!(bob.snapshot(), before);
        prop_assert!(bob.asked.is_empty());
        Ok(())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn arbitrary_octets_change_nothing(
        octets in proptest::collection::vec(any::<u8>(), 0..FRAME_MAX + 100),
    ) {
        changes_nothing(&octets)?;
    }

    #[test]
    fn damaged_frames_change_nothing(
        which in any::<usize>(),
        damages in proptest::collection::vec(damage(), 1..6),
    ) {
        let frames = MEMBER.with_borrow(|(_, frames)| frames.clone());
        let mut octets = frames[which % frames.len()].clone();
        for damage in &damages {
            spoil(&frames, &mut octets, damage);
        }
        prop_assume!(!frames.contains(&octets));
        changes_nothing(&octets)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What the disk gives back may be damaged in spite of its seal: refused or read, no panic, and
    /// what was read can be driven.
    #[test]
    fn damaged_snapshots_are_refused_or_read(
        of_user in any::<bool>(),
        damages in proptest::collection::vec(damage(), 1..4),
    ) {
        let (snapshot, frames) =
            MEMBER.with_borrow(|(bob, frames)| (bob.snapshot(), frames.clone()));
        let (mut device, user) = snapshot;
        let mut user = user.expect("unlocked");
        for damage in &damages {
            spoil(&frames, if of_user { &mut user } else { &mut device }, damage);
        }
        if let Ok(machine) = Terminal::restore(&device, Some(&user), Tick::default()) {
            let mut driven = Driven::new(machine);
            driven.drain();
            for frame in &frames {
                driven.feed(Input::Datagram(frame));
            }
            driven.store_all();
            driven.wait(1000);
        }
    }
}

/// The positive control: undamaged, the same frames do change it.
#[test]
fn genuine_frames_change_something() {
    let (mut bob, frames) = member_and_frames();
    let before = bob.snapshot();
    for frame in &frames {
        bob.feed(Input::Datagram(frame));
    }
    assert_ne!(bob.snapshot(), before);
    assert_eq!(bob.machine.groups()[0].epoch.get(), 8);
}
