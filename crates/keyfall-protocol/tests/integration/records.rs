//! `interop/vectors/records.json`: protection records, and frames that are none.

use keyfall_protocol::DecodeError;
use keyfall_protocol::command::{
    Prefix, ProtectionRecord, RECORD_LIFE, RECORD_MAX, RecordGroup, UnverifiedRecord,
};
use keyfall_protocol::keys::EspSuite;
use serde_json::{Value, json};

use crate::cbor::Item;
use crate::fleet::{FOUNDED, P0, at, group, signing_key, terminal};
use crate::messages::made_named;
use crate::vectors::{check, hex};

#[test]
fn records_are_the_published_ones() {
    let shown: Vec<_> = [
        ("a host", host()),
        ("a gateway in three groups", gateway()),
        ("one that speaks for nothing any more", silent()),
    ]
    .map(|(name, record)| shown(name, record))
    .to_vec();
    let refused: Vec<_> = refused()
        .into_iter()
        .map(|(name, frame)| {
            assert!(UnverifiedRecord::decode(&frame).is_err(), "{name}");
            json!({"name": name, "frame": hex(&frame)})
        })
        .collect();
    check(
        "records.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Protection records\": COSE_Sign1 with external_aad KF1/rec, \
                      signed by the keys key of commands.json; and frames that are no record.",
            "records": shown,
            "refused": refused,
        }),
    );
}

/// Every other encoding of a record is refused (KR-009).
#[test]
fn every_other_encoding_of_a_record_is_refused() {
    let frame = gateway().signed_by(&signing_key("keys key"));
    let item = Item::decode(frame.frame());
    for other in item.other_encodings() {
        assert!(UnverifiedRecord::decode(&other.encode()).is_err());
    }
    let payload = gateway().encode();
    for other in Item::decode(&payload).other_encodings() {
        let mut whole = item.clone();
        replace_payload(&mut whole, other.encode());
        assert!(UnverifiedRecord::decode(&whole.encode()).is_err());
    }
    let mut longer = frame.frame().to_vec();
    longer.push(0);
    let trailing = UnverifiedRecord::decode(&longer).map(drop);
    assert_eq!(trailing, Err(DecodeError::TrailingOctets));
}

fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let key = signing_key("keys key");
    let frame = |change: &dyn Fn(&mut ProtectionRecord)| {
        let mut record = gateway();
        change(&mut record);
        record.signed_by(&key).frame().to_vec()
    };
    let networks: Vec<_> = (0..8).map(|n| prefix(&format!("fd77:{n}::/32"))).collect();
    let edited = |edit: &dyn Fn(&mut Vec<Item>)| {
        let mut payload = Item::decode(&host().encode());
        edit(payload.items());
        let mut whole = Item::decode(host().signed_by(&key).frame());
        replace_payload(&mut whole, payload.encode());
        whole.encode()
    };
    vec![
        ("a command", made_named("TIME").frame),
        ("a COSE_Sign", made_named("DELETE that two keys sign").frame),
        ("prefixes that fall", frame(&|it| it.prefixes.reverse())),
        (
            "a prefix twice",
            frame(&|it| it.prefixes[1] = it.prefixes[0]),
        ),
        ("groups that fall", frame(&|it| it.groups.reverse())),
        (
            "an endpoint twice",
            frame(&|it| it.endpoints.push(it.endpoints[0])),
        ),
        ("port 0", frame(&|it| it.endpoints[0].set_port(0))),
        ("an MTU of 575", frame(&|it| it.groups[0].mtu = Some(575))),
        (
            "longer than a record may be",
            frame(&|it| {
                it.groups
                    .iter_mut()
                    .for_each(|it| it.networks.clone_from(&networks));
                it.prefixes.clone_from(&networks);
            }),
        ),
        (
            "a prefix with bits behind its length",
            edited(&|fields| {
                let prefix = &mut fields[4].items()[0];
                prefix.items()[1] = Item::Uint(24);
            }),
        ),
        (
            "an address of five octets",
            edited(&|fields| {
                let prefix = &mut fields[4].items()[0];
                prefix.items()[0] = Item::Bytes(vec![10, 77, 0, 5, 0]);
            }),
        ),
        (
            "a suite that there is not",
            edited(&|fields| fields[6].items()[0].items()[3] = Item::Uint(4)),
        ),
        ("terminal 0", edited(&|fields| fields[0] = Item::Uint(0))),
        (
            "a field too many",
            edited(&|fields| fields.push(Item::Uint(0))),
        ),
    ]
}

fn replace_payload(frame: &mut Item, payload: Vec<u8>) {
    let Item::Tag(_, inner) = frame else {
        panic!("a tag")
    };
    inner.items()[2] = Item::Bytes(payload);
}

fn shown(name: &str, record: ProtectionRecord) -> Value {
    let texts =
        |prefixes: &[Prefix]| -> Vec<_> { prefixes.iter().map(Prefix::to_string).collect() };
    let groups: Vec<_> = record
        .groups
        .iter()
        .map(|it| {
            json!({
                "group": it.group.get(), "priority": it.priority, "mtu": it.mtu,
                "suite": it.suite.number(), "networks": texts(&it.networks),
            })
        })
        .collect();
    let endpoints: Vec<_> = record.endpoints.iter().map(ToString::to_string).collect();
    let payload = record.encode();
    let signed = record.clone().signed_by(&signing_key("keys key"));
    assert!(signed.frame().len() <= RECORD_MAX);
    let read = UnverifiedRecord::decode(signed.frame()).unwrap();
    let verified = read.verify(&signing_key("keys key").public()).unwrap();
    assert_eq!(*verified.record(), record);
    json!({
        "name": name,
        "signer": "keys key",
        "terminal": record.terminal.get(),
        "version": record.version,
        "issued_at": record.issued_at.get(),
        "not_after": record.not_after.get(),
        "prefixes": texts(&record.prefixes),
        "endpoints": endpoints,
        "groups": groups,
        "payload": hex(&payload),
        "frame": hex(signed.frame()),
    })
}

/// Host mode: its own two addresses.
fn host() -> ProtectionRecord {
    ProtectionRecord {
        terminal: terminal(2),
        version: 22_792_407,
        issued_at: at(FOUNDED + 5 * P0 + 7),
        not_after: at(FOUNDED + 5 * P0 + 7 + RECORD_LIFE),
        prefixes: vec![prefix("10.77.0.5/32"), prefix("fd77::5/128")],
        endpoints: vec![],
        groups: vec![RecordGroup {
            group: group(7),
            priority: 0,
            mtu: None,
            suite: EspSuite::default(),
            networks: vec![],
        }],
    }
}

/// Gateway mode: two subnets behind it.
fn gateway() -> ProtectionRecord {
    let of = |number, priority, mtu, suite, networks: &[&str]| RecordGroup {
        group: group(number),
        priority,
        mtu,
        suite,
        networks: networks.iter().map(|text| prefix(text)).collect(),
    };
    ProtectionRecord {
        terminal: terminal(3),
        version: 22_792_408,
        prefixes: vec![prefix("192.168.5.0/24"), prefix("fd77:5::/64")],
        endpoints: vec![
            "203.0.113.9:4500".parse().unwrap(),
            "[2001:db8::9]:4500".parse().unwrap(),
        ],
        groups: vec![
            of(
                7,
                5,
                Some(1380),
                EspSuite::Aes256Gcm,
                &["10.77.0.0/16", "192.168.0.0/16"],
            ),
            of(8, 0, None, EspSuite::Aes128Gcm, &["fd77::/16"]),
            of(300, 255, Some(9000), EspSuite::ChaCha20Poly1305, &[]),
        ],
        ..host()
    }
}

fn silent() -> ProtectionRecord {
    ProtectionRecord {
        version: 22_792_409,
        prefixes: vec![],
        endpoints: vec![],
        groups: vec![],
        ..gateway()
    }
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}
