#![expect(clippy::unwrap_used, reason = "tests")]
//! The codec by itself, and properties of whole commands. The published vectors, every changed
//! octet and every other encoding of each message are in `tests/integration`.

mod strategies;

use proptest::collection::vec;
use proptest::prelude::*;
use strategies::commands;

use super::codec::{Reader, encode};
use super::*;
use crate::ids::{KeyEpoch, KeyId, KeyName};
use crate::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use crate::rng::Random;
use crate::schedule::{Cadence, FleetSchedule, Schedule};
use crate::sharing::SharingSuite;

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
    let exclude = Exclude {
        terminals: vec![],
        groups: vec![],
    };
    assert_eq!(
        Body::Exclude(exclude).signer_class(),
        Some(SignerClass::Keys)
    );
    for halts in [Body::Stop, Body::Start] {
        assert_eq!(halts(a_halt()).signer_class(), Some(SignerClass::Keys));
    }
    let notify = Body::Notify(Notify {
        spread_ms: 0,
        entries: vec![],
    });
    assert_eq!(notify.signer_class(), Some(SignerClass::Beat));
    for kind in OrderKind::ALL {
        let order = Body::Order(an_order(kind));
        assert_eq!(order.signer_class(), Some(SignerClass::Erase));
        assert_eq!(order.name(), kind.name());
    }
}

/// FORMATS section 2: the type outside and the type inside are one; an order opens for its terminal
/// alone, and whole.
#[test]
fn an_order_opens_for_its_terminal_alone_and_says_inside_what_it_says_outside() {
    let terminal = TerminalNumber::new(5).unwrap();
    let obey = an_obey_key(terminal);
    for kind in OrderKind::ALL {
        let order = an_order(kind);
        let opened = order.open(&obey).unwrap();
        assert_eq!((opened.kind, opened.terminal), (kind, terminal));
        let other = TerminalNumber::new(6).unwrap();
        assert_eq!(order.open(&an_obey_key(other)), None);
        // What is sealed for another number under this terminal's key.
        let misnamed = OrderContents {
            terminal: other,
            ..opened
        };
        let sealed = SealedOrder::seal(&misnamed, &obey, &mut Counting(9));
        assert_eq!(sealed.open(&obey), None);
        // A relay that writes another type above it.
        for written in OrderKind::ALL.into_iter().filter(|&it| it != kind) {
            let mut payload = a_command(Body::Order(order.clone())).encode();
            let (from, to) = (kind.type_number(), written.type_number());
            let place = payload
                .windows(2)
                .position(|pair| pair == [5, from])
                .unwrap();
            payload[place + 1] = to;
            let Body::Order(relabelled) = Command::decode(&payload).unwrap().body else {
                panic!("an order");
            };
            assert_eq!((relabelled.kind(), relabelled.open(&obey)), (written, None));
        }
    }
}

/// FORMATS section 2, W-17: COSE_Sign holds each signer once, by rising name, and every signature
/// counts.
#[test]
fn frames_that_several_sign_hold_every_signer_once() {
    let command = a_command(Body::Order(an_order(OrderKind::Delete)));
    let mut keys: Vec<_> = (1..=4).map(signing_key).collect();
    keys.sort_by_key(|key| key.public().name());
    let public = |name| {
        keys.iter()
            .map(SigningKey::public)
            .find(|key| key.name() == name)
    };
    for count in 2..=SIGNERS_MAX {
        let some: Vec<_> = keys[..count].iter().rev().collect();
        let frame = sign_together(&command, &some);
        let read = Unverified::decode(&frame).unwrap();
        let names: Vec<_> = keys[..count]
            .iter()
            .map(|key| key.public().name())
            .collect();
        assert_eq!(read.signers().collect::<Vec<_>>(), names);
        assert_eq!(read.verify_with(public).unwrap().signers(), names);
        // One key is no judge of a frame that several sign, and none of them may be unknown.
        let read = Unverified::decode(&frame).unwrap();
        assert!(read.verify(&keys[0].public()).is_none());
        let read = Unverified::decode(&frame).unwrap();
        let all_but_one = |name| public(name).filter(|key| *key != keys[count - 1].public());
        assert!(read.verify_with(all_but_one).is_none());
        // Every octet of every signature counts.
        let signatures = frame.len() - count * SIGNATURE_OCTETS;
        for place in signatures..frame.len() {
            let mut altered = frame.clone();
            altered[place] ^= 1;
            let read = Unverified::decode(&altered).ok();
            assert!(
                read.and_then(|it| it.verify_with(public)).is_none(),
                "{place}"
            );
        }
    }
    let twice = sign_together(&command, &[&keys[0], &keys[0]]);
    let fault = DecodeError::OutOfRange { what: "signatures" };
    assert_eq!(Unverified::decode(&twice).unwrap_err(), fault);
    let mut swapped = sign_together(&command, &[&keys[0], &keys[1]]);
    let (start, len) = (swapped.len() - 2 * SIGNATURE_OCTETS, SIGNATURE_OCTETS);
    assert_eq!(
        swapped[start..start + 2],
        [0x83, 0x4d],
        "the first signature"
    );
    let first: Vec<_> = swapped.drain(start..start + len).collect();
    swapped.extend(first);
    assert_eq!(Unverified::decode(&swapped).unwrap_err(), fault);
}

/// A signature of a COSE_Sign1 is none of a COSE_Sign, and the other way round (RFC 9052 section
/// 4.4): what one signed alone counts nowhere as one of several.
#[test]
fn a_signature_given_alone_is_none_among_several() {
    let command = a_command(Body::Order(an_order(OrderKind::Delete)));
    let (one, two) = (signing_key(1), signing_key(2));
    let alone = [one.sign(&command), two.sign(&command)];
    let mut together = sign_together(&command, &[&one, &two]);
    let mut keys = [one.public(), two.public()];
    keys.sort_by_key(VerifyingKey::name);
    for (place, key) in keys.iter().enumerate() {
        let own = alone
            .iter()
            .find(|frame| Unverified::decode(frame).unwrap().signer() == key.name());
        let signature = &own.unwrap()[own.unwrap().len() - 64..];
        let end = together.len() - (1 - place) * SIGNATURE_OCTETS;
        together[end - 64..end].copy_from_slice(signature);
    }
    let read = Unverified::decode(&together).unwrap();
    let public = |name| keys.iter().copied().find(|key| key.name() == name);
    assert!(read.verify_with(public).is_none());
}

/// FORMATS section 2.3: at most 64 terminals, rising, each once; epochs go on.
#[test]
fn an_exclude_names_each_terminal_once_and_every_epoch_goes_on() {
    let numbers = |range: &[u32]| -> Vec<_> {
        let number = |&n: &u32| TerminalNumber::new(n).unwrap();
        range.iter().map(number).collect()
    };
    let reads = |terminals, old, new| {
        let groups = vec![FreshEpoch {
            group: GroupNumber::new(1).unwrap(),
            old: KeyEpoch::new(old),
            new: KeyEpoch::new(new),
        }];
        let body = Body::Exclude(Exclude { terminals, groups });
        Command::decode(&a_command(body).encode()).is_ok()
    };
    let most: Vec<_> = (1..=64).collect();
    let more: Vec<_> = (1..=65).collect();
    assert!(reads(numbers(&most), 1, 2));
    assert!(!reads(numbers(&more), 1, 2));
    assert!(!reads(numbers(&[]), 1, 2));
    assert!(!reads(numbers(&[3, 3]), 1, 2));
    assert!(!reads(numbers(&[3, 2]), 1, 2));
    assert!(!reads(numbers(&[3]), 2, 2));
    assert!(!reads(numbers(&[3]), 2, 1));
}

/// KR-312: a KEYSET of before key sharing still reads, and opens nothing that its root did not know.
#[test]
fn limits_that_name_no_suites_mean_psk_alone() {
    let mut key_set = a_key_set();
    key_set.keys.push(ListedKey {
        public: VerifyingKey::new([1; 32]),
        class: SignerClass::Beat,
        not_before: UnixSeconds::new(2),
        expires: UnixSeconds::new(3),
        groups: vec![],
    });
    let read = |key_set: &KeySet| {
        let octets = a_command(Body::KeySet(key_set.clone())).encode();
        match Command::decode(&octets).unwrap().body {
            Body::KeySet(read) => (octets.len(), read.limits.suites),
            other @ (Body::Time(_)
            | Body::Renew(_)
            | Body::KeyDist(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_)) => panic!("{}", other.name()),
        }
    };
    let (named, suites) = read(&key_set);
    assert_eq!(suites, Suites::default());
    key_set.limits.suites = Suites::PSK_ALONE;
    let (unnamed, suites) = read(&key_set);
    assert_eq!(suites, Suites::PSK_ALONE);
    assert_eq!(named - unnamed, 5, "field 3 is left out");
    assert_eq!(suites.iter().collect::<Vec<_>>(), [&SharingSuite::Psk]);
}

/// FORMATS section 2.2 and W-17: what the root cannot have meant is refused whole.
#[test]
fn a_keyset_with_a_key_in_two_classes_or_too_long_a_life_is_refused() {
    let listed = |fill: u8, class, life: u32| ListedKey {
        public: VerifyingKey::new([fill; 32]),
        class,
        not_before: UnixSeconds::new(100),
        expires: UnixSeconds::new(100 + life),
        groups: vec![],
    };
    let reads = |keys, erase_signatures| {
        let mut key_set = a_key_set();
        key_set.keys = keys;
        key_set.limits.erase_signatures = erase_signatures;
        Command::decode(&a_command(Body::KeySet(key_set)).encode()).is_ok()
    };
    let month = 30 * 86_400;
    let (beat, keys) = (SignerClass::Beat, SignerClass::Keys);
    assert!(reads(
        vec![listed(1, beat, month), listed(2, keys, month)],
        1
    ));
    assert!(!reads(
        vec![listed(1, beat, month), listed(1, keys, month)],
        1
    ));
    assert!(!reads(vec![listed(1, beat, month + 1)], 1));
    assert!(!reads(vec![listed(1, keys, month + 1)], 1));
    let sealed_to = [SignerClass::Kem, SignerClass::KemPq, SignerClass::Rsa];
    for class in [SignerClass::Erase].into_iter().chain(sealed_to) {
        assert!(reads(vec![listed(1, class, 60 * month)], 1));
    }
    for (signatures, taken) in [(0, false), (1, true), (4, true), (5, false)] {
        assert_eq!(reads(vec![listed(1, beat, month)], signatures), taken);
    }
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
    signing_key(7)
}

fn signing_key(fill: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_slice(&[fill; 32]).unwrap())
}

/// To terminal 5.
fn an_order(kind: OrderKind) -> SealedOrder {
    let contents = OrderContents {
        terminal: TerminalNumber::new(5).unwrap(),
        kind,
        version: matches!(kind, OrderKind::Lock | OrderKind::Unlock).then_some(3),
        receipt_wanted: false,
    };
    SealedOrder::seal(&contents, &an_obey_key(contents.terminal), &mut Counting(0))
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

fn an_obey_key(terminal: TerminalNumber) -> ObeyKey {
    ObeyKey::new(terminal, Secret::from_slice(&[6; 32]).unwrap())
}

fn some_contents() -> KeyDistContents {
    let group = GroupNumber::new(7).unwrap();
    let octets = Secret::from_slice(&[8; 32]).unwrap();
    KeyDistContents {
        search_key: None,
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

fn a_halt() -> Halt {
    Halt {
        group: GroupNumber::new(7).unwrap(),
        transaction: SequenceNumber::new(5),
        epoch: KeyEpoch::new(5),
        generation: Generation::ZERO,
        deadline: UnixSeconds::new(9),
    }
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
        stolen: vec![],
        limits: Limits::default(),
    }
}

/// Octets of one signature of a COSE_Sign: array, protected header of 13, no other, signature.
const SIGNATURE_OCTETS: usize = 1 + 14 + 1 + 66;

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
