//! `interop/vectors/malformed.json`: what a decoder refuses, and by what name; and the same done to
//! every item of every message.

use aws_lc_rs::signature::Ed25519KeyPair;
use keyfall_protocol::command::{FRAME_MAX, Unverified};
use keyfall_protocol::enrolment::{PackageError, SealedPackage};
use keyfall_protocol::error::DecodeError;
use serde_json::{Value, json};

use crate::cbor::Item;
use crate::enrolment::package_under_code;
use crate::fleet::signing_key;
use crate::largest::largest;
use crate::messages::{all, made_named};
use crate::refused_orders;
use crate::stream::octets32;
use crate::vectors::{check, hex};

#[test]
fn malformed_messages_are_refused_under_the_published_names() {
    let mut refused = Vec::new();
    let frames = envelopes().into_iter().chain(payloads());
    for (name, octets) in frames.chain(refused_orders::frames()) {
        let fault = Unverified::decode(&octets).err();
        let fault = fault.unwrap_or_else(|| panic!("{name} was taken"));
        refused.push(shown("frame", &name, &octets, fault));
    }
    for (name, octets) in packages() {
        let Err(PackageError::Malformed(fault)) = SealedPackage::decode(&octets) else {
            panic!("{name} was taken");
        };
        refused.push(shown("package", &name, &octets, fault));
    }
    for (name, octets, fault) in crate::receipts::malformed() {
        refused.push(shown("receipt", name, &octets, fault));
    }
    refused.extend(crate::sealed_contents::refused());
    check(
        "malformed.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"What a decoder refuses\". Every frame here carries a \
                      good signature of the beat key over its payload, where it has one. Of \
                      `keydist-contents`, `order-contents` and `package-contents` the plain text \
                      is shown; sealed rightly, it does not open.",
            "signer_public": hex(signing_key("beat key").public().as_bytes()),
            "refused": refused,
        }),
    );
}

/// Every item of every message in every longer or indefinite form, and every map out of order:
/// one reading of a message, one encoding.
#[test]
fn every_other_encoding_of_every_message_is_refused() {
    let mut tried = 0;
    for made in all().iter().filter(|made| made.frame.len() < 600) {
        let whole = Item::decode(&made.frame);
        let payload = payload_of(&made.frame);
        let inside = payload
            .other_encodings()
            .into_iter()
            .map(|other| sealed(&other));
        for octets in whole
            .other_encodings()
            .iter()
            .map(Item::encode)
            .chain(inside)
        {
            assert!(
                Unverified::decode(&octets).is_err(),
                "{}: {}",
                made.name,
                hex(&octets)
            );
            tried += 1;
        }
    }
    assert!(tried > 1000, "{tried}");
}

/// A field too many, too few or doubled, in every map of every message.
#[test]
fn every_field_too_many_too_few_or_doubled_is_refused() {
    for made in all().iter().filter(|made| made.frame.len() < 600) {
        for other in other_fields(&payload_of(&made.frame)) {
            let octets = sealed(&other);
            let taken = Unverified::decode(&octets).is_ok();
            // Leaving out what is optional makes another good message.
            let left = payload_keys(&other, 7);
            let optional = (made.name.starts_with("TIME") && left == [1, 2])
                || (made.name.starts_with("KEYSET") && left == [1, 2, 3, 4, 8])
                || (made.name.starts_with("KEYSET")
                    && left.iter().filter(|field| **field == 8).count() == 1
                    && payload_keys(other.clone().at(&[7]), 8) == [1, 4, 5, 6, 7, 8]);
            assert!(!taken || optional, "{}: {}", made.name, hex(&octets));
        }
    }
}

#[test]
fn no_cut_and_no_addition_is_taken() {
    for made in all() {
        for len in 0..made.frame.len() {
            assert!(
                Unverified::decode(&made.frame[..len]).is_err(),
                "{} cut to {len}",
                made.name
            );
        }
        let longer = [&made.frame[..], &[0]].concat();
        assert!(Unverified::decode(&longer).is_err(), "{}", made.name);
    }
}

/// Every octet of every frame, changed in every bit: refused by the decoder or by the signature.
#[test]
fn no_changed_octet_survives() {
    for made in all().iter().filter(|made| made.frame.len() < 440) {
        let signers = made.signers.iter().map(|name| signing_key(name).public());
        let keys: Vec<_> = signers.collect();
        for place in 0..made.frame.len() {
            for bit in 0..8 {
                let mut changed = made.frame.clone();
                changed[place] ^= 1 << bit;
                let key = |name| keys.iter().copied().find(|key| key.name() == name);
                let survived = Unverified::decode(&changed)
                    .ok()
                    .and_then(|frame| frame.verify_with(key));
                assert!(
                    survived.is_none(),
                    "{}: octet {place}, bit {bit}",
                    made.name
                );
            }
        }
    }
}

fn envelopes() -> Vec<(String, Vec<u8>)> {
    let frame = &frame_named("RENEW of group 7");
    let change = |name: &str, change: &dyn Fn(&mut Vec<Item>)| {
        let mut whole = Item::decode(frame);
        change(whole.at(&[]).items());
        (name.to_owned(), whole.encode())
    };
    let raw = |name: &str, octets: Vec<u8>| (name.to_owned(), octets);
    let header = |pairs: Vec<(Item, Item)>| Item::Bytes(Item::Map(pairs).encode());
    let name = Item::Bytes(signing_key("beat key").public().name().as_bytes().to_vec());
    let (alg, kid) = ((Item::Uint(1), Item::Nint(18)), (Item::Uint(4), name));
    let eddsa = (Item::Uint(1), Item::Nint(7));
    let Item::Tag(_, inside) = Item::decode(frame) else {
        panic!("a tag")
    };
    let mut long = frame.clone();
    long.resize(FRAME_MAX + 1, 0);
    vec![
        raw("nothing", Vec::new()),
        raw("text", b"\x65hello".to_vec()),
        raw("longer than a frame", long),
        raw("without tag", inside.encode()),
        raw(
            "tag 98 around one signature",
            Item::Tag(98, inside.clone()).encode(),
        ),
        raw("an octet after the end", [&frame[..], &[0xf6]].concat()),
        raw("two frames", [&frame[..], frame].concat()),
        raw("cut by one octet", frame[..frame.len() - 1].to_vec()),
        raw("tag in two octets", [&[0xd8, 18][..], &frame[1..]].concat()),
        change("three parts", &|parts| {
            parts.pop();
        }),
        change("five parts", &|parts| parts.push(Item::Null)),
        change("empty protected header", &|parts| {
            parts[0] = Item::Bytes(Vec::new())
        }),
        change("protected header that is no map", &|parts| {
            parts[0] = Item::Bytes(Item::Uint(1).encode());
        }),
        change("algorithm -8", &|parts| {
            parts[0] = header(vec![eddsa.clone(), kid.clone()])
        }),
        change("no key name", &|parts| parts[0] = header(vec![alg.clone()])),
        change("no algorithm", &|parts| {
            parts[0] = header(vec![kid.clone()])
        }),
        change("key name of 7 octets", &|parts| {
            let short = (Item::Uint(4), Item::Bytes(vec![0; 7]));
            parts[0] = header(vec![alg.clone(), short]);
        }),
        change("header fields out of order", &|parts| {
            parts[0] = header(vec![kid.clone(), alg.clone()]);
        }),
        change("critical header", &|parts| {
            let crit = (Item::Uint(2), Item::Array(vec![Item::Uint(1)]));
            parts[0] = header(vec![alg.clone(), crit, kid.clone()]);
        }),
        change("octet after the header's end", &|parts| {
            let map = Item::Map(vec![alg.clone(), kid.clone()]).encode();
            parts[0] = Item::Bytes([&map[..], &[0]].concat());
        }),
        change("long form in the header", &|parts| {
            let long = (Item::Uint(1), Item::Raw(vec![0x39, 0, 18]));
            parts[0] = header(vec![long, kid.clone()]);
        }),
        change("unprotected field", &|parts| {
            parts[1] = Item::Map(vec![kid.clone()])
        }),
        change("unprotected header that is no map", &|parts| {
            parts[1] = Item::Array(Vec::new())
        }),
        change("detached payload", &|parts| parts[2] = Item::Null),
        change("signature of 63 octets", &|parts| {
            parts[3] = Item::Bytes(vec![0; 63])
        }),
        change("signature of 65 octets", &|parts| {
            parts[3] = Item::Bytes(vec![0; 65])
        }),
        change("signature in two pieces", &|parts| {
            let half = Item::Bytes(vec![0; 32]).encode();
            parts[3] = Item::Raw([&[0x5f][..], &half, &half, &[0xff]].concat());
        }),
    ]
}

fn payloads() -> Vec<(String, Vec<u8>)> {
    let set = |of: &'static str, name: &str, path: &[u64], to: Item| {
        let mut payload = payload_of(&frame_named(of));
        *payload.at(path) = to;
        (format!("{of}: {name}"), sealed(&payload))
    };
    let edit = |of: &'static str, name: &str, change: &dyn Fn(&mut Item)| {
        let mut payload = payload_of(&frame_named(of));
        change(&mut payload);
        (format!("{of}: {name}"), sealed(&payload))
    };
    let octets = |len: usize| Item::Bytes(vec![0; len]);
    let uint = Item::Uint;
    let pair = |a, b| Item::Array(vec![uint(a), uint(b)]);
    let suites = |numbers: &[u64]| Item::Array(numbers.iter().copied().map(Item::Uint).collect());
    let (time, renew, dist, keys) = (
        "TIME with floors",
        "RENEW of group 7",
        "KEYDIST to two",
        "KEYSET with four keys",
    );
    let (stop, notify) = ("STOP", "NOTIFY of two groups");
    vec![
        set(time, "stream of 3 octets", &[1], octets(3)),
        set(time, "sequence below zero", &[2], Item::Nint(0)),
        set(time, "issued in 2106", &[3], uint(1 << 32)),
        set(
            time,
            "not-after as text",
            &[4],
            Item::Text("never".to_owned()),
        ),
        set(time, "type 9", &[5], uint(9)),
        set(time, "type 4 with the body of a TIME", &[5], uint(4)),
        set(time, "type 2 with the body of a TIME", &[5], uint(2)),
        set(time, "target 4", &[6], Item::Array(vec![uint(4)])),
        set(time, "target all with a number", &[6], pair(0, 1)),
        set(time, "target group 0", &[6], pair(1, 0)),
        set(time, "target group of 31 bits", &[6], pair(1, 1 << 30)),
        set(time, "target group of 33 bits", &[6], pair(1, 1 << 32)),
        set(time, "target terminal 0", &[6], pair(2, 0)),
        set(time, "target terminal of 25 bits", &[6], pair(2, 1 << 24)),
        set(
            time,
            "target without a group",
            &[6],
            Item::Array(vec![uint(1)]),
        ),
        set(time, "target is a number", &[6], uint(0)),
        set(time, "G above 2^31", &[8], uint((1 << 31) + 1)),
        set(time, "time of 33 bits", &[7, 1], uint(1 << 32)),
        set(
            time,
            "time with a fraction",
            &[7, 1],
            Item::Raw(vec![0xfb, 0x41, 0xda, 0xab, 0, 0, 0, 0, 0]),
        ),
        set(
            time,
            "no floors in the list",
            &[7, 3],
            Item::Array(Vec::new()),
        ),
        set(time, "floor of two numbers", &[7, 3, 0], pair(31, 1)),
        set(time, "floor of wrap key 0", &[7, 3, 0, 0], uint(1)),
        set(
            time,
            "floor of a key id of 33 bits",
            &[7, 3, 0, 0],
            uint(1 << 32),
        ),
        edit(time, "one floor more than fits", &|payload| {
            let floors = payload.at(&[7, 3]).items();
            let small = Item::Array(vec![uint(31), uint(1), uint(1)]);
            *floors =
                vec![small; 1 + usize::try_from(keyfall_protocol::command::FLOORS_MAX).unwrap()];
        }),
        edit(time, "a field of a later version", &|payload| {
            payload.pairs().push((uint(9), uint(0)));
        }),
        edit(time, "a field of a later version in the body", &|payload| {
            payload.at(&[7]).pairs().push((uint(4), uint(0)));
        }),
        edit(time, "no G", &|payload| {
            payload.pairs().pop();
        }),
        edit(time, "sequence twice", &|payload| {
            payload.pairs().insert(2, (uint(2), uint(1)));
        }),
        edit(time, "fields out of order", &|payload| {
            payload.pairs().swap(0, 1)
        }),
        edit(time, "long form of a field's number", &|payload| {
            payload.pairs()[0].0 = Item::Raw(vec![0x18, 1]);
        }),
        edit(time, "long form of a number", &|payload| {
            *payload.at(&[2]) = Item::Raw(vec![0x18, 2]);
        }),
        edit(time, "map of indefinite length", &|payload| {
            let mut octets = payload.encode();
            octets[0] = 0xbf;
            octets.push(0xff);
            *payload = Item::Raw(octets);
        }),
        edit(time, "octet after the end", &|payload| {
            *payload = Item::Raw([&payload.encode()[..], &[0]].concat());
        }),
        edit(time, "field named by text", &|payload| {
            payload.pairs()[0].0 = Item::Text("1".to_owned());
        }),
        set(renew, "no entries", &[7, 1], Item::Array(Vec::new())),
        edit(renew, "one entry more than fits", &|payload| {
            let entries = payload.at(&[7, 1]).items();
            let small: Vec<_> = [3, 0, 0, 0]
                .map(uint)
                .into_iter()
                .chain(vec![Item::Null; 3])
                .collect();
            let most = usize::try_from(keyfall_protocol::command::RENEW_ENTRIES_MAX).unwrap();
            *entries = vec![Item::Array(small); most + 1];
        }),
        edit(renew, "entry of six", &|payload| {
            payload.at(&[7, 1, 0]).items().pop();
        }),
        set(renew, "master key of group 0", &[7, 1, 0, 0], uint(3)),
        set(renew, "epoch of 33 bits", &[7, 1, 0, 1], uint(1 << 32)),
        set(
            renew,
            "generation above 2^31",
            &[7, 1, 0, 2],
            uint((1 << 31) + 1),
        ),
        set(renew, "step without period", &[7, 1, 0, 5], Item::Null),
        set(renew, "period without step", &[7, 1, 0, 4], Item::Null),
        set(renew, "step 0", &[7, 1, 0, 4], uint(0)),
        set(renew, "step 65", &[7, 1, 0, 4], uint(65)),
        set(renew, "faster than 64 in 600 s", &[7, 1, 0, 5], uint(9)),
        set(renew, "period 0", &[7, 1, 0, 5], uint(0)),
        set(
            renew,
            "lease end undefined",
            &[7, 1, 0, 6],
            Item::Raw(vec![0xf7]),
        ),
        edit(dist, "without tag 96", &|payload| {
            let Item::Tag(_, inside) = payload.pairs()[6].1.clone() else {
                panic!("a tag")
            };
            payload.pairs()[6].1 = *inside;
        }),
        set(
            dist,
            "content under A128GCM",
            &[7, 0],
            Item::Bytes(vec![0xa1, 1, 1]),
        ),
        set(dist, "IV of 11 octets", &[7, 1, 5], octets(11)),
        edit(dist, "content header of two fields", &|payload| {
            payload.at(&[7, 1]).pairs().push((uint(6), octets(12)));
        }),
        set(dist, "detached content", &[7, 2], Item::Null),
        set(dist, "content longer than any", &[7, 2], octets(145)),
        set(dist, "no recipients", &[7, 3], Item::Array(Vec::new())),
        edit(dist, "eighteen recipients", &|payload| {
            let first = payload.at(&[7, 3, 0]).clone();
            *payload.at(&[7, 3]).items() = vec![first; 18];
        }),
        set(
            dist,
            "recipient with a protected header",
            &[7, 3, 0, 0],
            Item::Bytes(vec![0xa0]),
        ),
        set(dist, "wrapped with A128KW", &[7, 3, 0, 1, 1], Item::Nint(2)),
        set(dist, "handle of 4 octets", &[7, 3, 0, 1, 4], octets(4)),
        set(dist, "wrapped key of 39 octets", &[7, 3, 0, 2], octets(39)),
        set(stop, "group 0", &[7, 1], uint(0)),
        set(stop, "transaction below zero", &[7, 2], Item::Nint(0)),
        set(stop, "epoch of 33 bits", &[7, 3], uint(1 << 32)),
        set(stop, "generation above 2^31", &[7, 4], uint((1 << 31) + 1)),
        set(stop, "deadline of 33 bits", &[7, 5], uint(1 << 32)),
        edit(stop, "no deadline", &|payload| {
            payload.at(&[7]).pairs().pop();
        }),
        edit(stop, "a field of a later version", &|payload| {
            payload.at(&[7]).pairs().push((uint(6), uint(0)));
        }),
        set(stop, "type 12 with the body of a STOP", &[5], uint(12)),
        set(notify, "type 10 with the body of a NOTIFY", &[5], uint(10)),
        set(notify, "spread of 33 bits", &[7, 1], uint(1 << 32)),
        set(notify, "no list", &[7, 2], Item::Null),
        set(notify, "entry of two", &[7, 2, 0], pair(7, 1)),
        set(notify, "group of 31 bits", &[7, 2, 0, 0], uint(1 << 30)),
        edit(notify, "one entry more than fits", &|payload| {
            let entry = Item::Array(vec![uint(7), uint(1), uint(1)]);
            let most = usize::try_from(keyfall_protocol::command::NOTIFY_ENTRIES_MAX).unwrap();
            *payload.at(&[7, 2]).items() = vec![entry; most + 1];
        }),
        set(keys, "no keys", &[7, 3], Item::Array(Vec::new())),
        edit(keys, "thirteen keys", &|payload| {
            let first = payload.at(&[7, 3, 0]).clone();
            *payload.at(&[7, 3]).items() = vec![first; 13];
        }),
        edit(keys, "one key in two classes", &|payload| {
            let mut again = payload.at(&[7, 3, 0]).clone();
            *again.at(&[2]) = uint(2);
            payload.at(&[7, 3]).items().push(again);
        }),
        set(
            keys,
            "a name that is not the key's",
            &[7, 3, 0, 0],
            octets(8),
        ),
        set(keys, "class 0", &[7, 3, 0, 2], uint(0)),
        set(keys, "class 7", &[7, 3, 0, 2], uint(7)),
        edit(
            keys,
            "beat key that lives 30 days and a second",
            &|payload| {
                let Item::Uint(expires) = payload.at(&[7, 3, 0, 4]) else {
                    panic!("a time")
                };
                *expires += 1;
            },
        ),
        set(keys, "expires before it begins", &[7, 3, 2, 4], uint(1)),
        set(
            keys,
            "key for group 0",
            &[7, 3, 0, 5],
            Item::Array(vec![uint(0)]),
        ),
        set(keys, "P0 of 0 s", &[7, 4, 2], uint(0)),
        edit(keys, "no limits", &|payload| {
            payload.at(&[7]).pairs().pop();
        }),
        set(keys, "no suites", &[7, 8, 3], suites(&[])),
        set(keys, "five suites", &[7, 8, 3], suites(&[4, 3, 2, 1, 4])),
        set(keys, "one suite twice", &[7, 8, 3], suites(&[2, 1, 2])),
        set(keys, "suite 0", &[7, 8, 3], suites(&[2, 0])),
        set(keys, "suite 5", &[7, 8, 3], suites(&[5, 2])),
        set(keys, "psk alone, said aloud", &[7, 8, 3], suites(&[1])),
        edit(keys, "a limit of a later version", &|payload| {
            payload.at(&[7, 8]).pairs().push((uint(9), uint(0)));
        }),
    ]
}

fn packages() -> Vec<(String, Vec<u8>)> {
    let package = package_under_code();
    let change = |name: &str, change: &dyn Fn(&mut Vec<Item>)| {
        let mut whole = Item::decode(&package);
        change(whole.items());
        (name.to_owned(), whole.encode())
    };
    vec![
        ("nothing".to_owned(), Vec::new()),
        (
            "longer than a package".to_owned(),
            vec![0x85; 16 * 1024 + 1],
        ),
        (
            "an octet after the end".to_owned(),
            [&package[..], &[0]].concat(),
        ),
        change("another first word", &|parts| {
            parts[0] = Item::Text("KF2/enrol".to_owned())
        }),
        change("form 3", &|parts| parts[1] = Item::Uint(3)),
        change("form 1 with five parts", &|parts| parts[1] = Item::Uint(1)),
        change("long form of the form", &|parts| {
            parts[1] = Item::Raw(vec![0x18, 2])
        }),
        change("salt of 15 octets", &|parts| {
            parts[2] = Item::Bytes(vec![0; 15])
        }),
        change("IV of 11 octets", &|parts| {
            parts[3] = Item::Bytes(vec![0; 11])
        }),
        change("without ciphertext", &|parts| {
            parts.pop();
        }),
    ]
}

/// A frame around any payload, signed by the beat key: only the payload is at fault.
pub(crate) fn sealed(payload: &Item) -> Vec<u8> {
    let mut whole = Item::decode(&frame_named("RENEW of group 7"));
    let Item::Bytes(protected) = whole.at(&[0]).clone() else {
        panic!("a header")
    };
    let payload = payload.encode();
    let signed = Item::Array(vec![
        Item::Text("Signature1".to_owned()),
        Item::Bytes(protected),
        Item::Bytes(b"KF1/cmd".to_vec()),
        Item::Bytes(payload.clone()),
    ]);
    let key = Ed25519KeyPair::from_seed_unchecked(&octets32("beat key")).unwrap();
    *whole.at(&[2]) = Item::Bytes(payload);
    *whole.at(&[3]) = Item::Bytes(key.sign(&signed.encode()).as_ref().to_vec());
    whole.encode()
}

pub(crate) fn frame_named(name: &str) -> Vec<u8> {
    made_named(name).frame
}

pub(crate) fn payload_of(frame: &[u8]) -> Item {
    let mut whole = Item::decode(frame);
    let Item::Bytes(payload) = whole.at(&[2]) else {
        panic!("a payload")
    };
    Item::decode(payload)
}

/// The fields of `field`, where the payload still has it.
fn payload_keys(payload: &Item, field: u64) -> Vec<u64> {
    let body = payload
        .clone()
        .pairs()
        .iter()
        .find(|(key, _)| *key == Item::Uint(field))
        .cloned();
    let Some((_, Item::Map(pairs))) = body else {
        return Vec::new();
    };
    let number = |(key, _)| {
        if let Item::Uint(number) = key {
            number
        } else {
            99
        }
    };
    pairs.into_iter().map(number).collect()
}

/// `item` with a field left out, doubled or added, in each map that it holds.
fn other_fields(item: &Item) -> Vec<Item> {
    let mut found = Vec::new();
    match item {
        Item::Map(pairs) => {
            for place in 0..pairs.len() {
                let mut without = pairs.clone();
                without.remove(place);
                let mut doubled = pairs.clone();
                doubled.insert(place, pairs[place].clone());
                found.extend([Item::Map(without), Item::Map(doubled)]);
                for other in other_fields(&pairs[place].1) {
                    let mut pairs = pairs.clone();
                    pairs[place].1 = other;
                    found.push(Item::Map(pairs));
                }
            }
            for added in [0, 23, 1000, u64::MAX] {
                let mut more = pairs.clone();
                let place = more.partition_point(|(key, _)| *key < Item::Uint(added));
                more.insert(place, (Item::Uint(added), Item::Uint(0)));
                found.push(Item::Map(more));
            }
        }
        Item::Array(items) => {
            for (place, inside) in items.iter().enumerate() {
                for other in other_fields(inside) {
                    let mut items = items.clone();
                    items[place] = other;
                    found.push(Item::Array(items));
                }
            }
        }
        Item::Tag(tag, inside) => {
            let others = other_fields(inside).into_iter();
            found.extend(others.map(|other| Item::Tag(*tag, Box::new(other))));
        }
        Item::Uint(_)
        | Item::Nint(_)
        | Item::Bytes(_)
        | Item::Text(_)
        | Item::Null
        | Item::Raw(_) => {}
    }
    found
}

pub(crate) fn shown(kind: &str, name: &str, octets: &[u8], fault: DecodeError) -> Value {
    let (error, what) = match fault {
        DecodeError::TooLong { .. } => ("TooLong", None),
        DecodeError::Unexpected { what } => ("Unexpected", Some(what)),
        DecodeError::Missing { what } => ("Missing", Some(what)),
        DecodeError::OutOfRange { what } => ("OutOfRange", Some(what)),
        DecodeError::UnknownField => ("UnknownField", None),
        DecodeError::UnknownType(_) => ("UnknownType", None),
        DecodeError::TrailingOctets => ("TrailingOctets", None),
        DecodeError::NotDeterministic => ("NotDeterministic", None),
    };
    json!({"kind": kind, "name": name, "octets": hex(octets), "error": error, "what": what})
}

/// What was refused above is refused for its own fault: the same frames, unharmed, are taken.
#[test]
fn unharmed_messages_are_taken() {
    for made in largest().iter().chain(&all()) {
        let again = sealed(&payload_of(&made.frame));
        assert!(Unverified::decode(&again).is_ok(), "{}", made.name);
    }
}
