#![expect(clippy::unwrap_used, reason = "tests")]
//! Round trips, limits, strictness, and who can have made a confirmation. The published vectors are
//! in `tests/integration/confirmations.rs`.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::ids::TerminalNumber;
use crate::keys::Secret;
use crate::sharing::message::DATAGRAM_MAX;

proptest! {
    /// encode ∘ decode = id, with and without the marker.
    #[test]
    fn confirmations_read_back_as_they_were(one in confirmations()) {
        prop_assert_eq!(Confirmation::decode(&one.encode()), Ok(one));
        prop_assert_eq!(Confirmation::read_message(&one.message()), Ok(one));
        prop_assert!(Confirmation::decode(&one.message()).is_err());
        prop_assert!(Confirmation::read_message(&one.encode()).is_err());
    }

    #[test]
    fn bundles_read_back_as_they_were(confirmations in vec(confirmations(), 1..=BUNDLE_MAX)) {
        let bundle = Bundle { confirmations };
        prop_assert!(bundle.encode().len() <= DATAGRAM_MAX);
        prop_assert_eq!(Bundle::decode(&bundle.encode()), Ok(bundle.clone()));
        prop_assert_eq!(Bundle::read_message(&bundle.message()), Ok(bundle.clone()));
        prop_assert!(Bundle::decode(&bundle.message()).is_err());
    }

    /// Bytes from the network never panic; what is taken is deterministic.
    #[test]
    fn changed_datagrams_never_panic_and_have_one_encoding(
        confirmations in vec(confirmations(), 1..4),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        for original in [confirmations[0].encode(), Bundle { confirmations }.encode()] {
            let mut octets = original.clone();
            for (place, octet) in &changes {
                let place = place.index(octets.len());
                octets[place] = *octet;
            }
            if let Ok(read) = Confirmation::decode(&octets) {
                prop_assert_eq!(read.encode(), octets.clone());
            }
            if let Ok(read) = Bundle::decode(&octets) {
                prop_assert_eq!(read.encode(), octets.clone());
            }
            let short = &original[..cut.index(original.len())];
            prop_assert!(Confirmation::decode(short).is_err() && Bundle::decode(short).is_err());
            let long = [&original[..], &[0]].concat();
            prop_assert!(Confirmation::decode(&long).is_err() && Bundle::decode(&long).is_err());
        }
    }

    #[test]
    fn arbitrary_octets_are_no_confirmation(octets in vec(any::<u8>(), 0..1300)) {
        prop_assert!(Confirmation::decode(&octets).is_err());
        prop_assert!(Bundle::decode(&octets).is_err());
    }
}

/// whoever lacks this terminal's wrap key at this generation makes none, and none can be
/// turned into another.
#[test]
fn a_confirmation_is_good_for_its_maker_and_for_what_it_says_alone() {
    let made = made(HaltKind::Stop);
    assert!(made.check(&wrap(2, 5)));
    assert!(!made.check(&wrap(2, 6)), "another generation");
    assert!(!made.check(&wrap(3, 5)), "another terminal");
    let other_octets = WrapKey::new(
        TerminalNumber::new(2).unwrap(),
        Generation::new(5).unwrap(),
        Secret::from_slice(&[9; 32]).unwrap(),
    );
    assert!(!made.check(&other_octets));
    let altered = [
        Confirmation {
            kind: HaltKind::Start,
            ..made
        },
        Confirmation {
            id: wrap(3, 5).key_req_id(),
            ..made
        },
        Confirmation {
            group: GroupNumber::new(8).unwrap(),
            ..made
        },
        Confirmation {
            transaction: made.transaction.plus(1),
            ..made
        },
        Confirmation {
            epoch: KeyEpoch::new(8),
            ..made
        },
        Confirmation {
            generation: made.generation.next(),
            ..made
        },
    ];
    for altered in altered {
        assert!(!altered.check(&wrap(2, 5)), "{altered:?}");
    }
    for bit in 0..256 {
        let mut altered = made;
        altered.mac[bit / 8] ^= 1 << (bit % 8);
        assert!(!altered.check(&wrap(2, 5)));
    }
}

/// Every length and number outside of what the page says is refused by its name.
#[test]
fn a_confirmation_of_another_form_is_refused() {
    let octets = made(HaltKind::Start).encode();
    let with = |place: usize, octet: u8| {
        let mut changed = octets.clone();
        changed[place] = octet;
        Confirmation::decode(&changed).unwrap_err()
    };
    let unexpected = |what| DecodeError::Unexpected { what };
    assert_eq!(with(0, 1), unexpected("marker"));
    assert_eq!(with(4, 0x88), unexpected("STOP-ACK or START-ACK"));
    assert_eq!(with(5, 2), unexpected("version"));
    assert_eq!(with(6, 1), unexpected("suite"));
    assert_eq!(with(7, 4), DecodeError::UnknownType(4));
    assert_eq!(
        with(17, 0),
        DecodeError::OutOfRange { what: "group" },
        "group 0"
    );
    let nobody = Bundle {
        confirmations: vec![],
    };
    let fault = DecodeError::OutOfRange { what: "messages" };
    assert_eq!(Bundle::decode(&nobody.encode()).unwrap_err(), fault);
    let too_many = Bundle {
        confirmations: vec![made(HaltKind::Stop); BUNDLE_MAX + 1],
    };
    assert_eq!(
        Bundle::read_message(&too_many.message()).unwrap_err(),
        fault
    );
    let too_long = DecodeError::TooLong {
        len: DATAGRAM_MAX + 1,
        max: DATAGRAM_MAX,
    };
    let long = vec![0; DATAGRAM_MAX + 1];
    assert_eq!(Confirmation::decode(&long).unwrap_err(), too_long);
    assert_eq!(Bundle::decode(&long).unwrap_err(), too_long);
}

/// The most that a bundle may hold fits at the largest numbers, and one more would not.
#[test]
fn the_largest_bundle_fits_a_datagram() {
    let largest = Confirmation {
        kind: HaltKind::Stop,
        id: [0xff; 8],
        group: GroupNumber::MAX,
        transaction: SequenceNumber::new(u64::MAX),
        epoch: KeyEpoch::new(u32::MAX),
        generation: Generation::MAX,
        mac: [0xff; 32],
    };
    let most = |count| {
        let confirmations = vec![largest; count];
        Bundle { confirmations }.encode().len()
    };
    assert!(most(BUNDLE_MAX) <= DATAGRAM_MAX, "{}", most(BUNDLE_MAX));
    assert!(most(BUNDLE_MAX + 1) > DATAGRAM_MAX);
}

fn made(kind: HaltKind) -> Confirmation {
    let stated = (KeyEpoch::new(7), Generation::new(3).unwrap());
    let group = GroupNumber::new(7).unwrap();
    Confirmation::make(&wrap(2, 5), kind, group, SequenceNumber::new(99), stated)
}

fn wrap(number: u32, generation: u32) -> WrapKey {
    let terminal = TerminalNumber::new(number).unwrap();
    let octets = Secret::from_slice(&[8; 32]).unwrap();
    WrapKey::new(terminal, Generation::new(generation).unwrap(), octets)
}

fn confirmations() -> impl Strategy<Value = Confirmation> {
    let kind = prop::sample::select(vec![HaltKind::Stop, HaltKind::Start]);
    let numbers = (
        1..=GroupNumber::MAX.get(),
        any::<u64>(),
        any::<u32>(),
        0..=Generation::MAX.get(),
    );
    let octets = (any::<[u8; 8]>(), any::<[u8; 32]>());
    (kind, numbers, octets).prop_map(|(kind, numbers, (id, mac))| {
        let (group, transaction, epoch, generation) = numbers;
        Confirmation {
            kind,
            id,
            group: GroupNumber::new(group).unwrap(),
            transaction: SequenceNumber::new(transaction),
            epoch: KeyEpoch::new(epoch),
            generation: Generation::new(generation).unwrap(),
            mac,
        }
    })
}
