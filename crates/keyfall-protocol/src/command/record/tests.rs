#![expect(clippy::unwrap_used, reason = "tests")]
//! Records: one encoding, every bound, and whose signature counts.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::command::{Body, Command, Target, Time, Unverified};
use crate::ids::{Generation, SequenceNumber, StreamId};
use crate::keys::Secret;

#[test]
fn a_prefix_holds_what_begins_like_it() {
    let holds = |prefix: &str, address: &str| {
        let prefix: Prefix = prefix.parse().unwrap();
        prefix.contains(address.parse().unwrap())
    };
    assert!(holds("10.77.0.0/16", "10.77.255.1"));
    assert!(!holds("10.77.0.0/16", "10.78.0.0"));
    assert!(holds("0.0.0.0/0", "255.255.255.255"));
    assert!(!holds("0.0.0.0/0", "::1"));
    assert!(holds("::/0", "fd77::5"));
    assert!(!holds("::/0", "10.0.0.1"));
    assert!(holds("fd77::5", "fd77::5"));
    assert!(!holds("fd77::4/127", "fd77::6"));
    let overlap = |one: &str, two: &str| {
        let [one, two]: [Prefix; 2] = [one.parse().unwrap(), two.parse().unwrap()];
        assert_eq!(one.overlaps(&two), two.overlaps(&one));
        one.overlaps(&two)
    };
    assert!(overlap("10.0.0.0/8", "10.77.0.5/32"));
    assert!(!overlap("10.77.0.4/32", "10.77.0.5/32"));
    assert!(!overlap("0.0.0.0/0", "::/0"));
}

/// Each refusal says what to write instead.
#[test]
fn prefixes_are_read_strictly_and_faults_say_what_is_meant() {
    for good in ["10.77.0.0/16", "10.77.0.5/32", "fd77::/64", "0.0.0.0/0"] {
        assert_eq!(good.parse::<Prefix>().unwrap().to_string(), good);
    }
    assert_eq!(
        "10.77.0.5".parse::<Prefix>().unwrap().to_string(),
        "10.77.0.5/32"
    );
    for bad in [
        "",
        "10.0.0.0/33",
        "::/129",
        "10.0.0.0/+8",
        "10.0.0.0/",
        "x/8",
        "10/8",
    ] {
        assert_eq!(bad.parse::<Prefix>(), Err(PrefixFault::NotOne(bad.into())));
    }
    let fault = "10.77.3.5/16".parse::<Prefix>().unwrap_err();
    assert_eq!(
        fault.to_string(),
        "10.77.3.5/16 has bits set behind its length; the prefix is 10.77.0.0/16"
    );
}

/// FORMATS 8.1: the same list in another order, or twice the same, is another encoding.
#[test]
fn lists_have_one_order_and_bounds() {
    let reads = |record: &ProtectionRecord| {
        let read = ProtectionRecord::decode(&record.encode());
        assert!(read.is_err() || read.as_ref() == Ok(record));
        read.map(drop)
    };
    let out = |what| Err(DecodeError::OutOfRange { what });
    assert_eq!(reads(&a_record()), Ok(()));
    let with = |change: &dyn Fn(&mut ProtectionRecord)| {
        let mut record = a_record();
        change(&mut record);
        reads(&record)
    };
    assert_eq!(with(&|it| it.prefixes.reverse()), out("prefixes"));
    assert_eq!(with(&|it| it.prefixes.clear()), Ok(()));
    assert_eq!(with(&|it| it.prefixes[1] = it.prefixes[0]), out("prefixes"));
    assert_eq!(with(&|it| it.groups.reverse()), out("groups"));
    assert_eq!(with(&|it| it.groups[0].networks.reverse()), out("networks"));
    assert_eq!(
        with(&|it| it.endpoints.push(it.endpoints[0])),
        out("endpoints")
    );
    assert_eq!(with(&|it| it.endpoints[0].set_port(0)), out("port"));
    assert_eq!(with(&|it| it.groups[0].mtu = Some(575)), out("MTU"));
    assert_eq!(with(&|it| it.groups[0].mtu = Some(9217)), out("MTU"));
    let hosts = |count: u8| (0..count).map(|n| Prefix::host([10, 0, 0, n].into()));
    let many = |max: usize| hosts(u8::try_from(max).unwrap()).collect::<Vec<_>>();
    assert_eq!(with(&|it| it.prefixes = many(PREFIXES_MAX)), Ok(()));
    assert_eq!(
        with(&|it| it.prefixes = many(PREFIXES_MAX + 1)),
        out("prefixes")
    );
    assert_eq!(
        with(&|it| it.groups[0].networks = many(NETWORKS_MAX + 1)),
        out("networks")
    );
    let groups = |count| {
        let group = |number| RecordGroup {
            group: GroupNumber::new(number).unwrap(),
            priority: 0,
            mtu: None,
            suite: EspSuite::default(),
            networks: vec![],
        };
        (1..=count).map(group).collect::<Vec<_>>()
    };
    assert_eq!(with(&|it| it.groups = groups(16)), Ok(()));
    assert_eq!(with(&|it| it.groups = groups(17)), out("groups"));
}

/// Host bits are refused on the wire, too: a prefix has one writing.
#[test]
fn a_prefix_with_host_bits_is_refused() {
    let mut payload = a_record().encode();
    let place = payload
        .windows(5)
        .position(|octets| octets == [0x44, 10, 77, 0, 0])
        .unwrap();
    payload[place + 4] = 1;
    let fault = DecodeError::OutOfRange { what: "networks" };
    assert_eq!(ProtectionRecord::decode(&payload), Err(fault));
}

/// KR-500: what its key did not sign as a record is none.
#[test]
fn a_record_that_was_forged_or_altered_is_refused() {
    let key = signing_key(7);
    let signed = a_record().signed_by(&key);
    let read = UnverifiedRecord::decode(signed.frame()).unwrap();
    assert_eq!(
        (read.signer(), read.record()),
        (key.public().name(), &a_record())
    );
    assert_eq!(read.verify(&key.public()).as_ref(), Some(&signed));
    let verified = |frame: &[u8], key: &SigningKey| {
        UnverifiedRecord::decode(frame)
            .ok()
            .and_then(|it| it.verify(&key.public()))
    };
    assert!(verified(signed.frame(), &signing_key(8)).is_none());
    for place in 0..signed.frame().len() {
        let mut altered = signed.frame().to_vec();
        altered[place] ^= 1;
        assert!(verified(&altered, &key).is_none(), "{place}");
    }
}

/// KR-501: a signature over the same octets as something else makes no record, and a record's
/// signature makes no command.
#[test]
fn a_signature_for_another_purpose_makes_no_record() {
    let key = signing_key(7);
    for other in [&b"KF1/cmd"[..], b"KF1/dis", b"KF1/rec ", b""] {
        let frame = key.sign_octets(other, &a_record().encode());
        let read = UnverifiedRecord::decode(&frame).unwrap();
        assert!(read.verify(&key.public()).is_none());
    }
    let time = Time {
        seconds: UnixSeconds::new(1),
        max_error_ms: 0,
        floors: vec![],
    };
    let command = Command {
        stream: StreamId::new([1; 4]),
        sequence: SequenceNumber::new(2),
        issued_at: UnixSeconds::new(3),
        not_after: UnixSeconds::new(4),
        target: Target::All,
        body: Body::Time(time),
        fleet_generation: Generation::ZERO,
    };
    assert!(UnverifiedRecord::decode(&key.sign(&command)).is_err());
    let as_record = key.sign_octets(EXTERNAL_AAD, &command.encode());
    assert!(UnverifiedRecord::decode(&as_record).is_err());
    let read = Unverified::decode(&as_record).unwrap();
    assert!(read.verify(&key.public()).is_none());
}

#[test]
fn a_record_longer_than_its_bound_is_refused() {
    let mut record = a_record();
    let networks: Vec<_> = (0..8u16)
        .map(|n| Prefix::host([0xfd77, n, 0, 0, 0, 0, 0, 1].into()))
        .collect();
    record.groups = (1..=8)
        .map(|number| RecordGroup {
            group: GroupNumber::new(number).unwrap(),
            priority: 1,
            mtu: None,
            suite: EspSuite::default(),
            networks: networks.clone(),
        })
        .collect();
    let frame = record.signed_by(&signing_key(7)).frame;
    let fault = DecodeError::TooLong {
        len: frame.len(),
        max: RECORD_MAX,
    };
    assert_eq!(UnverifiedRecord::decode(&frame).unwrap_err(), fault);
}

proptest! {
    /// encode ∘ decode = id.
    #[test]
    fn records_read_back_as_they_were(record in records()) {
        let read = ProtectionRecord::decode(&record.encode());
        prop_assert_eq!(read.as_ref(), Ok(&record));
        let octets = record.frame_len();
        prop_assert_eq!(record.signed_by(&signing_key(7)).frame().len(), octets);
    }

    /// Bytes from the network never panic; what is taken has one encoding.
    #[test]
    fn changed_records_never_panic_and_have_one_encoding(
        record in records(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut payload = record.encode();
        for (place, octet) in changes {
            let place = place.index(payload.len());
            payload[place] = octet;
        }
        if let Ok(read) = ProtectionRecord::decode(&payload) {
            prop_assert_eq!(read.encode(), payload);
        }
    }
}

fn records() -> impl Strategy<Value = ProtectionRecord> {
    let numbers = (1..=TerminalNumber::MAX.get(), any::<[u32; 3]>());
    let endpoint = (addresses(), 1u16..).prop_map(|(address, port)| SocketAddr::new(address, port));
    let endpoints = btree_set(endpoint, 0..=ENDPOINTS_MAX);
    let group = (
        any::<u8>(),
        prop::option::of(MTU_MIN..=MTU_MAX),
        prop::sample::select(EspSuite::ALL.to_vec()),
        prefixes(NETWORKS_MAX),
    );
    let groups = prop::collection::btree_map(1..=GroupNumber::MAX.get(), group, 0..=16);
    (numbers, prefixes(PREFIXES_MAX), endpoints, groups).prop_map(
        |((terminal, [version, issued_at, not_after]), prefixes, endpoints, groups)| {
            let group = |(number, (priority, mtu, suite, networks))| RecordGroup {
                group: GroupNumber::new(number).unwrap(),
                priority,
                mtu,
                suite,
                networks,
            };
            ProtectionRecord {
                terminal: TerminalNumber::new(terminal).unwrap(),
                version,
                issued_at: UnixSeconds::new(issued_at),
                not_after: UnixSeconds::new(not_after),
                prefixes,
                endpoints: endpoints.into_iter().collect(),
                groups: groups.into_iter().map(group).collect(),
            }
        },
    )
}

fn prefixes(max: usize) -> impl Strategy<Value = Vec<Prefix>> {
    let prefix = (addresses(), any::<u8>()).prop_map(|(address, length)| {
        Prefix::around(address, length % (bits(address) + 1)).unwrap()
    });
    btree_set(prefix, 0..=max).prop_map(|set| set.into_iter().collect())
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

fn a_record() -> ProtectionRecord {
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    let group = |number, networks: &[&str]| RecordGroup {
        group: GroupNumber::new(number).unwrap(),
        priority: 5,
        mtu: Some(1380),
        suite: EspSuite::default(),
        networks: networks.iter().map(|text| prefix(text)).collect(),
    };
    ProtectionRecord {
        terminal: TerminalNumber::new(5).unwrap(),
        version: 3,
        issued_at: UnixSeconds::new(1_800_000_000),
        not_after: UnixSeconds::new(1_800_604_800),
        prefixes: vec![prefix("10.77.0.5/32"), prefix("fd77::5/128")],
        endpoints: vec!["203.0.113.9:4500".parse().unwrap()],
        groups: vec![
            group(7, &["10.77.0.0/16", "fd77::/64"]),
            group(8, &["192.168.0.0/16"]),
        ],
    }
}

fn signing_key(fill: u8) -> SigningKey {
    SigningKey::from_seed(Secret::from_slice(&[fill; 32]).unwrap())
}
