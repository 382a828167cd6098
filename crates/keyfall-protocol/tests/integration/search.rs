//! `interop/vectors/search.json`: probes and answers, and datagrams near to them that are refused.

use core::net::IpAddr;

use keyfall_protocol::DecodeError;
use keyfall_protocol::command::{
    Prefix, ProtectionRecord, RECORD_GROUPS_MAX, RECORD_MAX, RecordGroup, SEARCH_KEY_LEN,
    SignedRecord,
};
use keyfall_protocol::ids::{Generation, KeyEpoch};
use keyfall_protocol::keys::{EspSuite, Secret};
use keyfall_protocol::search::message::{Answer, Probe, ProbeHash, Question, SearchMessage};
use keyfall_protocol::sharing::message::DATAGRAM_MAX;
use serde_json::{Value, json};

use crate::cbor::Item;
use crate::fleet::{FOUNDED, at, group, secret, signing_key, terminal};
use crate::malformed;
use crate::vectors::{check, hex};

#[test]
fn searches_are_the_published_ones() {
    let shown = [
        searched("IPv4, two groups", "10.1.0.5", "10.2.0.9"),
        searched("IPv6, two groups", "fd77:1::5", "fd77:2::9"),
    ];
    let keys: Vec<_> = [1, 2]
        .into_iter()
        .map(|number| {
            json!({
                "group": number,
                "epoch": EPOCH,
                "search_key": hex(&search_key(number).expose()[..]),
            })
        })
        .collect();
    check(
        "search.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Key search\": `asker` asks who protects `destination`; the \
                      gateway on the way answers under `group`, the one that the rule gives for the \
                      two records.",
            "search_keys": keys,
            "searches": shown,
            "refused": refused(),
        }),
    );
}

/// KR-009.
#[test]
fn every_other_encoding_of_a_probe_or_answer_is_refused() {
    let (probe, answer) = (a_probe(&asker_record()), an_answer());
    let mut tried = 0;
    for datagram in [probe, answer] {
        assert!(SearchMessage::decode(&datagram).is_ok());
        for other in Item::decode(&datagram[4..]).other_encodings() {
            let octets = [&[0; 4][..], &other.encode()].concat();
            assert!(SearchMessage::decode(&octets).is_err(), "{}", hex(&octets));
            tried += 1;
        }
        for len in 0..datagram.len() {
            assert!(SearchMessage::decode(&datagram[..len]).is_err());
        }
    }
    assert!(tried > 30, "{tried}");
}

/// KR-530: as many handles as fit at the largest numbers, and never more than a datagram.
#[test]
fn probe_and_answer_stay_within_a_datagram_at_the_largest_numbers() {
    let record = vec![7; RECORD_MAX];
    let ends: [IpAddr; 2] = ["fd77:1::5", "fd77:2::9"].map(|text| text.parse().unwrap());
    let mut probe = Probe::new([1; 16], ends[0], ends[1], &record);
    let largest = (KeyEpoch::new(u32::MAX), Generation::MAX);
    let offered = (0..20).filter(|_| probe.offer(&search_key(1), terminal(1), largest));
    assert_eq!(offered.count(), 15);
    let octets = probe.encode();
    assert!(octets.len() <= DATAGRAM_MAX, "{}", octets.len());
    assert!(SearchMessage::decode(&octets).is_ok());
    let question = Question {
        probe: ProbeHash::of(&octets),
        source: ends[0],
        destination: ends[1],
    };
    let answered = (terminal(2), &record[..]);
    let answer = Answer::make(
        &search_key(1),
        &probe,
        &question,
        answered,
        [2; 16],
        largest,
    );
    assert_eq!(answer.encode().len(), 772);
    // Sixteen groups fit where the record is as short as such a one is.
    let short = vec![7; 500];
    let mut probe = Probe::new([1; 16], ends[0], ends[1], &short);
    let offered = (0..20).filter(|_| probe.offer(&search_key(1), terminal(1), largest));
    assert_eq!(offered.count(), RECORD_GROUPS_MAX);
}

fn searched(name: &str, source: &str, destination: &str) -> Value {
    let [asker, answerer] = [asker_record(), answerer_record()];
    let ends: [IpAddr; 2] = [source, destination].map(|text| text.parse().unwrap());
    let mut probe = Probe::new(nonce(1), ends[0], ends[1], asker.frame());
    for (number, generation) in [(1, 3), (2, 0)] {
        let at = (KeyEpoch::new(EPOCH), self::generation(generation));
        assert!(probe.offer(&search_key(number), terminal(1), at));
    }
    let sent = probe.encode();
    let Ok(SearchMessage::Probe(read)) = SearchMessage::decode(&sent) else {
        panic!("{name}")
    };
    assert_eq!(read, probe);
    let question = Question {
        probe: ProbeHash::of(&sent),
        source: ends[0],
        destination: ends[1],
    };
    let answer = Answer::make(
        &search_key(2),
        &probe,
        &question,
        (terminal(2), answerer.frame()),
        nonce(2),
        (KeyEpoch::new(EPOCH), generation(4)),
    );
    assert!(answer.check(&search_key(2), &question, terminal(2)));
    assert!(!answer.check(&search_key(1), &question, terminal(2)));
    assert!(!answer.check(&search_key(2), &question, terminal(3)));
    let datagram = answer.encode();
    let read = SearchMessage::decode(&datagram);
    assert_eq!(read, Ok(SearchMessage::Answer(answer)));
    json!({
        "name": name,
        "source": source,
        "destination": destination,
        "asker": 1,
        "asker_record": hex(asker.frame()),
        "handles": [
            {"group": 1, "epoch": EPOCH, "generation": 3},
            {"group": 2, "epoch": EPOCH, "generation": 0},
        ],
        "nonce": hex(&nonce(1)),
        "probe": hex(&sent),
        "probe_size": sent.len(),
        "answerer": 2,
        "answerer_record": hex(answerer.frame()),
        "answer_nonce": hex(&nonce(2)),
        "group": 2,
        "epoch": EPOCH,
        "generation": 4,
        "answer": hex(&datagram),
        "answer_size": datagram.len(),
    })
}

/// Each with its name of "What a decoder refuses".
fn refused() -> Vec<Value> {
    let (probe, answer) = (a_probe(&asker_record()), an_answer());
    let change = |name: &'static str, whole: &[u8], change: &dyn Fn(&mut Item)| {
        let mut item = Item::decode(&whole[4..]);
        change(&mut item);
        (name, [&[0; 4][..], &item.encode()].concat())
    };
    let octets = |len: usize| Item::Bytes(vec![0; len]);
    let uint = Item::Uint;
    let in_probe = |name, edit: &dyn Fn(&mut Item)| change(name, &probe, edit);
    let in_answer = |name, edit: &dyn Fn(&mut Item)| change(name, &answer, edit);
    let cases = [
        ("nothing", Vec::new()),
        ("without the marker", probe[4..].to_vec()),
        ("an octet after the end", [&probe[..], &[0]].concat()),
        in_probe("version 2", &|it| *it.at(&[0]) = uint(2)),
        in_probe("a suite", &|it| *it.at(&[1]) = uint(1)),
        in_probe("a probe of the answer's type", &|it| {
            *it.at(&[2]) = uint(13)
        }),
        in_probe("nonce of 15 octets", &|it| *it.at(&[3]) = octets(15)),
        in_probe("address of 5 octets", &|it| *it.at(&[4]) = octets(5)),
        in_probe("addresses of two families", &|it| *it.at(&[5]) = octets(16)),
        in_probe("record of 701 octets", &|it| *it.at(&[6]) = octets(701)),
        in_probe("no handle", &|it| it.at(&[7]).items().clear()),
        in_probe("seventeen handles", &|it| {
            let first = it.at(&[7, 0]).clone();
            *it.at(&[6]) = octets(10);
            *it.at(&[7]).items() = vec![first; 17];
        }),
        in_probe("handle of 8 octets", &|it| *it.at(&[7, 0, 0]) = octets(8)),
        in_probe("epoch of 33 bits", &|it| *it.at(&[7, 0, 1]) = uint(1 << 32)),
        in_probe("generation above 2^31", &|it| {
            *it.at(&[7, 0, 2]) = uint((1 << 31) + 1);
        }),
        in_probe("one item too many", &|it| it.items().push(Item::Null)),
        in_answer("an answer of the probe's type", &|it| {
            *it.at(&[2]) = uint(12)
        }),
        in_answer("authentication value of 32 octets", &|it| {
            *it.at(&[8]) = octets(32);
        }),
        in_answer("an answer without its nonce", &|it| {
            it.items().remove(4);
        }),
    ];
    let fault = |octets: &[u8]| SearchMessage::decode(octets).err();
    let shown = |(name, octets): &(&str, Vec<u8>)| {
        let fault: DecodeError = fault(octets).unwrap_or_else(|| panic!("{name} was taken"));
        malformed::shown("search", name, octets, fault)
    };
    cases.iter().map(shown).collect()
}

fn a_probe(record: &SignedRecord) -> Vec<u8> {
    let ends: [IpAddr; 2] = ["10.1.0.5", "10.2.0.9"].map(|text| text.parse().unwrap());
    let mut probe = Probe::new(nonce(1), ends[0], ends[1], record.frame());
    let at = (KeyEpoch::new(EPOCH), generation(3));
    assert!(probe.offer(&search_key(1), terminal(1), at));
    probe.encode()
}

fn an_answer() -> Vec<u8> {
    let record = asker_record();
    let sent = a_probe(&record);
    let Ok(SearchMessage::Probe(probe)) = SearchMessage::decode(&sent) else {
        panic!("a probe")
    };
    let question = Question {
        probe: ProbeHash::of(&sent),
        source: probe.source,
        destination: probe.destination,
    };
    let answered = answerer_record();
    let answered = (terminal(2), answered.frame());
    let at = (KeyEpoch::new(EPOCH), generation(3));
    Answer::make(&search_key(1), &probe, &question, answered, nonce(2), at).encode()
}

fn asker_record() -> SignedRecord {
    signed(1, ["10.1.0.0/16", "fd77:1::/32"], &[(1, 0), (2, 5)])
}

fn answerer_record() -> SignedRecord {
    signed(2, ["10.2.0.0/16", "fd77:2::/32"], &[(1, 0), (2, 5)])
}

fn signed(number: u32, prefixes: [&str; 2], groups: &[(u32, u8)]) -> SignedRecord {
    let prefix = |text: &str| text.parse::<Prefix>().unwrap();
    let record = ProtectionRecord {
        terminal: terminal(number),
        version: 5,
        issued_at: at(FOUNDED),
        not_after: at(FOUNDED + 7 * 86_400),
        prefixes: prefixes.iter().map(|text| prefix(text)).collect(),
        endpoints: Vec::new(),
        groups: groups
            .iter()
            .map(|&(number, priority)| RecordGroup {
                group: group(number),
                priority,
                mtu: None,
                suite: EspSuite::default(),
                networks: Vec::new(),
            })
            .collect(),
    };
    record.signed_by(&signing_key("keys key"))
}

/// The first 16 octets of what the fleet of the vectors calls its secret.
fn search_key(number: u32) -> Secret<SEARCH_KEY_LEN> {
    let named = secret(&format!("search key of group {number}"));
    Secret::from_slice(&named.expose()[..SEARCH_KEY_LEN]).unwrap()
}

fn generation(number: u32) -> Generation {
    Generation::new(number).unwrap()
}

fn nonce(number: u8) -> [u8; 16] {
    let named = secret(&format!("nonce {number} of a search"));
    named.expose()[..16].try_into().unwrap()
}

const EPOCH: u32 = 34_000_000;
