#![expect(clippy::unwrap_used, reason = "tests")]
//! The codec by itself, and properties of whole commands. The published vectors, every changed
//! octet and every other encoding of each message are in `tests/integration`.

use proptest::collection::vec;
use proptest::prelude::*;

use super::codec::{Reader, encode};
use super::*;
use crate::ids::{KeyEpoch, KeyId};
use crate::keys::{MasterKey, Secret, WrapKey};
use crate::rng::Random;
use crate::schedule::{Cadence, FleetSchedule, Schedule};

/// RFC 8949 section 4.2.1: a number in a longer form reads, and is caught by writing it again.
#[test]
fn numbers_read_in_every_width_and_are_written_in_the_shortest() {
    for octets in [&[0x05][..], &[0x18, 5], &[0x19, 0, 5], &[0x1a, 0, 0, 0, 5]] {
        let mut reader = Reader::new(octets);
        assert_eq!(reader.uint("a number"), Ok(5));
        assert_eq!(reader.end(), Ok(()));
        let written = encode(|e| e.u64(5).map(drop));
        let judged = codec::deterministic(octets, &written);
        assert_eq!(judged.is_ok(), octets.len() == 1, "{octets:?}");
    }
}

#[test]
fn reader_names_the_field_and_the_fault() {
    let unexpected = |what| Err(DecodeError::Unexpected { what });
    assert_eq!(Reader::new(&[0x20]).uint("age"), unexpected("age"));
    assert_eq!(Reader::new(&[0x61, b'a']).uint("age"), unexpected("age"));
    assert_eq!(Reader::new(&[]).uint("age"), unexpected("age"));
    assert_eq!(
        Reader::new(&[0x1b, 0, 0, 0, 1, 0, 0, 0, 0]).uint32("age"),
        Err(DecodeError::OutOfRange { what: "age" })
    );
    assert_eq!(
        Reader::new(&[0x43, 1, 2, 3]).octets::<4>("name"),
        Err(DecodeError::OutOfRange { what: "name" })
    );
    assert_eq!(
        Reader::new(&[0x62, 0xc3, 0x28]).text("word"),
        Err(DecodeError::Unexpected { what: "word" })
    );
    assert_eq!(Reader::new(&[1, 2]).end(), Err(DecodeError::TrailingOctets));
}

/// Lengths are promises of strangers: nothing is allocated for them, nothing is read past the end.
#[test]
fn lengths_past_the_end_are_refused() {
    for head in [0x40u8, 0x60] {
        let huge = [head | 27, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(Reader::new(&huge).bytes("octets").is_err());
        assert!(Reader::new(&huge).text("text").is_err());
    }
    let huge = [0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(Reader::new(&huge).array_between("list", 0, 12).is_err());
    let huge = [0xbb, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(Reader::new(&huge).map("map").is_err());
}

#[test]
fn indefinite_lengths_are_refused() {
    assert!(Reader::new(&[0x5f, 0x41, 1, 0xff]).bytes("octets").is_err());
    assert!(Reader::new(&[0x7f, 0x61, b'a', 0xff]).text("text").is_err());
    assert!(Reader::new(&[0x9f, 1, 0xff]).array("list", 1).is_err());
    assert!(Reader::new(&[0xbf, 1, 1, 0xff]).map("map").is_err());
}

/// Deeply nested octets: our messages have a fixed depth, so nothing recurses.
#[test]
fn nesting_is_refused_without_recursion() {
    for octet in [0x81u8, 0xa1, 0xc1, 0xd2] {
        assert!(Command::decode(&vec![octet; 100_000]).is_err());
        assert!(Unverified::decode(&vec![octet; FRAME_MAX]).is_err());
    }
    let too_long = DecodeError::TooLong {
        len: FRAME_MAX + 1,
        max: FRAME_MAX,
    };
    assert_eq!(
        Unverified::decode(&vec![0; FRAME_MAX + 1]).unwrap_err(),
        too_long
    );
}

/// Which class may sign what (FORMATS section 2.2).
#[test]
fn every_type_has_its_signer() {
    let time = Body::Time(Time {
        seconds: UnixSeconds::new(1),
        max_error_ms: 0,
        floors: vec![],
    });
    assert_eq!(time.signer_class(), Some(SignerClass::Beat));
    let renew = Body::Renew(Renew { entries: vec![] });
    assert_eq!(renew.signer_class(), Some(SignerClass::Beat));
    let (key_dist, key_set) = (a_key_dist(1), a_key_set());
    assert_eq!(
        Body::KeyDist(key_dist).signer_class(),
        Some(SignerClass::Keys)
    );
    assert_eq!(Body::KeySet(key_set).signer_class(), None);
}

/// A KEYDIST to nobody is no message.
#[test]
fn distribution_without_recipients_is_refused() {
    let to_nobody = KeyDist::seal(&some_contents(), std::iter::empty(), &mut Counting(0));
    let refused = Command::decode(&a_command(Body::KeyDist(to_nobody)).encode());
    let fault = DecodeError::OutOfRange { what: "recipients" };
    assert_eq!(refused, Err(fault));
    assert!(a_key_dist(1).open(&a_wrap_key(1)).is_some());
}

proptest! {
    /// encode ∘ decode = id, on every command there is.
    #[test]
    fn commands_read_back_as_they_were(command in commands()) {
        let octets = command.encode();
        let read = Command::decode(&octets);
        prop_assert_eq!(read.as_ref(), Ok(&command));
        prop_assert_eq!(read.unwrap().encode(), octets);
    }

    #[test]
    fn frames_read_back_and_verify(command in commands()) {
        let key = a_signing_key();
        let frame = key.sign(&command);
        prop_assume!(frame.len() <= FRAME_MAX);
        let read = Unverified::decode(&frame).unwrap();
        prop_assert_eq!(read.signer(), key.public().name());
        let verified = read.verify(&key.public()).unwrap();
        prop_assert_eq!(verified.command(), &command);
    }

    /// Bytes from the network never panic; what is taken is deterministic.
    #[test]
    fn arbitrary_octets_never_panic(octets in vec(any::<u8>(), 0..1300)) {
        if let Ok(command) = Command::decode(&octets) {
            prop_assert_eq!(command.encode(), octets.clone());
        }
        prop_assert!(Unverified::decode(&octets).is_err());
    }

    /// The same near to what is good, where a random octet string never comes.
    #[test]
    fn changed_commands_never_panic_and_have_one_encoding(
        command in commands(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut octets = command.encode();
        for (place, octet) in changes {
            let place = place.index(octets.len());
            octets[place] = octet;
        }
        if let Ok(read) = Command::decode(&octets) {
            prop_assert_eq!(read.encode(), octets.clone());
        }
        octets.truncate(cut.index(octets.len()));
        prop_assert!(Command::decode(&octets).is_err());
    }

    #[test]
    fn changed_frames_are_refused_by_decoder_or_signature(
        command in commands(),
        place in any::<prop::sample::Index>(),
        flip in 1u8..,
    ) {
        let key = a_signing_key();
        let mut frame = key.sign(&command);
        prop_assume!(frame.len() <= FRAME_MAX);
        let place = place.index(frame.len());
        frame[place] ^= flip;
        let survived = Unverified::decode(&frame).ok().and_then(|f| f.verify(&key.public()));
        prop_assert!(survived.is_none());
    }
}

fn commands() -> impl Strategy<Value = Command> {
    let head = (
        any::<[u8; 4]>(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        generations(),
    );
    (head, targets(), bodies()).prop_map(
        |((stream, sequence, issued_at, not_after, fleet_generation), target, body)| Command {
            stream: StreamId::new(stream),
            sequence: SequenceNumber::new(sequence),
            issued_at: UnixSeconds::new(issued_at),
            not_after: UnixSeconds::new(not_after),
            target,
            body,
            fleet_generation,
        },
    )
}

fn targets() -> impl Strategy<Value = Target> {
    prop_oneof![
        Just(Target::All),
        groups().prop_map(Target::Group),
        (1..=TerminalNumber::MAX.get())
            .prop_map(|number| Target::Terminal(TerminalNumber::new(number).unwrap())),
        Just(Target::Handles),
    ]
}

fn bodies() -> impl Strategy<Value = Body> {
    let floors = vec(
        (key_ids(), any::<u32>(), generations()),
        0..=FLOORS_MAX as usize,
    );
    let time = (any::<u32>(), any::<u32>(), floors).prop_map(|(seconds, max_error_ms, floors)| {
        let floors = floors.into_iter().map(|(kid, epoch, generation)| Floor {
            kid,
            epoch: KeyEpoch::new(epoch),
            generation,
        });
        Body::Time(Time {
            seconds: UnixSeconds::new(seconds),
            max_error_ms,
            floors: floors.collect(),
        })
    });
    let renew = vec(entries(), 1..=RENEW_ENTRIES_MAX as usize)
        .prop_map(|entries| Body::Renew(Renew { entries }));
    let key_dist = (1u32..=17).prop_map(|recipients| Body::KeyDist(a_key_dist(recipients)));
    prop_oneof![time, renew, key_dist, key_sets().prop_map(Body::KeySet)]
}

fn entries() -> impl Strategy<Value = RenewEntry> {
    let lease = prop::option::of(any::<u32>());
    (key_ids(), any::<u32>(), schedules(), lease).prop_map(|(kid, epoch, schedule, lease)| {
        RenewEntry {
            kid,
            epoch: KeyEpoch::new(epoch),
            schedule,
            lease_end: lease.map(UnixSeconds::new),
        }
    })
}

fn key_sets() -> impl Strategy<Value = KeySet> {
    let limits = (any::<u32>(), any::<u32>());
    let schedule = (generations(), any::<u32>(), 1..=u32::MAX);
    (any::<u32>(), any::<u32>(), listed_keys(), schedule, limits).prop_map(
        |(version, issued_at, keys, (first, from, period), (longest_lease, grace))| KeySet {
            version,
            issued_at: UnixSeconds::new(issued_at),
            keys,
            fleet_schedule: FleetSchedule {
                first,
                from: UnixSeconds::new(from),
                period,
            },
            limits: Limits {
                longest_lease,
                grace,
            },
        },
    )
}

fn listed_keys() -> impl Strategy<Value = Vec<ListedKey>> {
    let class = prop::sample::select(vec![
        SignerClass::Beat,
        SignerClass::Keys,
        SignerClass::Erase,
        SignerClass::Kem,
    ]);
    let key = (
        any::<u32>(),
        0u32..=30 * 86_400,
        class,
        vec(groups(), 0..=4),
    );
    vec(key, 1..=12).prop_map(|keys| {
        let listed = |(place, (begin, life, class, groups)): (usize, (u32, u32, _, _))| ListedKey {
            // Distinct by their first octet.
            public: VerifyingKey::new([place as u8; 32]),
            class,
            not_before: UnixSeconds::new(begin),
            expires: UnixSeconds::new(begin).plus(life),
            groups,
        };
        keys.into_iter().enumerate().map(listed).collect()
    })
}

fn key_ids() -> impl Strategy<Value = KeyId> {
    prop_oneof![
        Just(KeyId::ALL_RANK_ONE),
        any::<u32>().prop_filter_map("no such key id", |id| KeyId::new(id.into())),
        groups().prop_map(GroupNumber::master_key_id),
    ]
}

fn groups() -> impl Strategy<Value = GroupNumber> {
    (1..=GroupNumber::MAX.get()).prop_map(|number| GroupNumber::new(number).unwrap())
}

fn generations() -> impl Strategy<Value = Generation> {
    (0..=Generation::MAX.get()).prop_map(|number| Generation::new(number).unwrap())
}

fn schedules() -> impl Strategy<Value = Schedule> {
    let cadence = prop::option::of((1u8..=64, 600..=u32::MAX));
    (generations(), any::<u32>(), cadence).prop_map(|(generation, activate_at, cadence)| Schedule {
        generation,
        activate_at: UnixSeconds::new(activate_at),
        cadence: cadence.map(|(step, period)| Cadence::new(step, period).unwrap()),
    })
}

fn a_command(body: Body) -> Command {
    Command {
        stream: StreamId::new([1; 4]),
        sequence: SequenceNumber::new(2),
        issued_at: UnixSeconds::new(3),
        not_after: UnixSeconds::new(4),
        target: Target::All,
        body,
        fleet_generation: Generation::ZERO,
    }
}

fn a_signing_key() -> SigningKey {
    SigningKey::from_seed(Secret::from_slice(&[7; 32]).unwrap())
}

fn a_wrap_key(number: u32) -> WrapKey {
    let terminal = TerminalNumber::new(number).unwrap();
    let mut octets = [9; 32];
    octets[..4].copy_from_slice(&number.to_be_bytes());
    WrapKey::new(
        terminal,
        Generation::ZERO,
        Secret::from_slice(&octets).unwrap(),
    )
}

fn some_contents() -> KeyDistContents {
    let group = GroupNumber::new(7).unwrap();
    let octets = Secret::from_slice(&[8; 32]).unwrap();
    KeyDistContents {
        key: MasterKey::new(group, KeyEpoch::new(5), Generation::ZERO, octets),
        activate_at: UnixSeconds::new(6),
        cadence: None,
        lease_end: None,
    }
}

fn a_key_dist(recipients: u32) -> KeyDist {
    let keys: Vec<_> = (1..=recipients).map(a_wrap_key).collect();
    KeyDist::seal(&some_contents(), keys.iter(), &mut Counting(0))
}

fn a_key_set() -> KeySet {
    KeySet {
        version: 1,
        issued_at: UnixSeconds::new(2),
        keys: vec![],
        fleet_schedule: FleetSchedule {
            first: Generation::ZERO,
            from: UnixSeconds::new(2),
            period: 60,
        },
        limits: Limits::default(),
    }
}

/// Counts instead of drawing.
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, into: &mut [u8]) {
        for octet in into {
            self.0 = self.0.wrapping_add(1);
            *octet = self.0;
        }
    }
}
