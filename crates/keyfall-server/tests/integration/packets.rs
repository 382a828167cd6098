//! Packet groups and addresses: ordered, stored, and on the air as protection records.

use keyfall_protocol::command::{Body, KeyDistContents, SignerClass, Unverified, UnverifiedRecord};
use serde_json::{Value, json};

use crate::orders::add;
use crate::served::{Home, Served, frames_until};

/// REQUIREMENTS: one order for a group, one for each terminal; every member hears who
/// speaks for what, signed, and finds the search key beside the group's key.
#[test]
fn a_packet_group_and_its_members_addresses_are_heard_on_the_carrier() {
    let home = Home::founded();
    let server = home.serve();
    let alice = add(&server, "alice");
    add(&server, "hub");
    server.order(
        "/v1/groups",
        json!({"name": "net", "members": ["alice", "hub"]}),
    );

    let mut set = Value::Null;
    let order = json!({"packets": true, "networks": ["10.77.0.0/16"], "priority": 5, "mtu": 1380});
    let mut contents: Option<KeyDistContents> = None;
    frames_until(
        home.carrier,
        || set = server.order("/v1/groups/net/packets", order),
        |frame| {
            let Ok(read) = Unverified::decode(frame) else {
                return false;
            };
            if let Body::KeyDist(dist) = &read.command().body {
                contents = dist.open(&alice.wrap).filter(|it| it.search_key.is_some());
            }
            contents.is_some()
        },
    );
    let contents = contents.expect("it was waited for");
    assert_eq!(set["epoch"], contents.key.epoch().get(), "a fresh epoch");
    assert_eq!(set["packets"]["networks"], json!(["10.77.0.0/16"]));

    let mut set = Value::Null;
    let order =
        json!({"prefixes": ["192.168.5.0/24", "10.77.0.1"], "endpoints": ["203.0.113.9:4500"]});
    let frames = frames_until(
        home.carrier,
        || set = server.order("/v1/terminals/hub/addresses", order),
        |frame| UnverifiedRecord::decode(frame).is_ok(),
    );
    let read = UnverifiedRecord::decode(frames.last().expect("frames")).expect("a record");
    let key_set = alice.identity.key_set().expect("signed");
    let signer = key_set.key(read.signer()).expect("listed");
    assert_eq!(signer.class, SignerClass::Keys);
    let signed = read.verify(&signer.public).expect("genuine");
    let record = signed.record();
    assert_eq!(set["record"]["version"], record.version);
    assert_eq!(set["record"]["octets"], signed.frame().len());
    let prefixes: Vec<_> = record.prefixes.iter().map(ToString::to_string).collect();
    assert_eq!(prefixes, ["10.77.0.1/32", "192.168.5.0/24"]);
    let group = record.groups.first().expect("net");
    assert_eq!((group.priority, group.mtu), (5, Some(1380)));

    // What was ordered outlives a restart, and the record is the same to the octet.
    let before = shown(&server);
    let search_key = contents.search_key.expect("it was waited for");
    server.end();
    let (mut again, mut repeated) = (None, None);
    let mut server = None;
    frames_until(
        home.carrier,
        || server = Some(home.serve()),
        |frame| {
            if UnverifiedRecord::decode(frame).is_ok() {
                repeated = Some(frame.to_vec());
            } else if let Ok(read) = Unverified::decode(frame)
                && let Body::KeyDist(dist) = &read.command().body
            {
                again = dist.open(&alice.wrap).and_then(|it| it.search_key);
            }
            again.is_some() && repeated.is_some()
        },
    );
    assert_eq!(again, Some(search_key));
    assert_eq!(repeated.as_deref(), Some(signed.frame()));
    assert_eq!(shown(&server.expect("it was begun")), before);
}

fn shown(server: &Served) -> Value {
    let group = &server.report("/v1/groups/net")["group"]["packets"];
    let terminal = &server.report("/v1/terminals/hub")["terminal"];
    json!([group, terminal["addresses"], terminal["record"]])
}

/// Each refusal has its code and a sentence that says what to do.
#[test]
fn what_cannot_be_is_refused_in_words() {
    let home = Home::founded();
    let server = home.serve();
    for name in ["alice", "bob"] {
        add(&server, name);
    }
    let members = json!(["alice", "bob"]);
    server.order(
        "/v1/groups",
        json!({"name": "net", "members": members, "packets": {"networks": ["10.77.0.0/16"]}}),
    );
    server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
    let addresses = |name: &str| format!("/v1/terminals/{name}/addresses");
    server.order(&addresses("alice"), json!({"prefixes": ["10.77.0.1/32"]}));
    for (path, order, status, code, word) in [
        (
            addresses("bob"),
            json!({"prefixes": ["10.77.0.0/24"]}),
            409,
            "KF-3334",
            "of terminal 1 overlap",
        ),
        (
            addresses("bob"),
            json!({"prefixes": ["10.77.0.1/24"]}),
            400,
            "KF-3333",
            "the prefix is 10.77.0.0/24",
        ),
        (
            addresses("bob"),
            json!({"endpoints": ["203.0.113.9"]}),
            400,
            "KF-3333",
            "write ADDRESS:PORT",
        ),
        (
            addresses("bob"),
            json!({}),
            400,
            "KF-3301",
            "name what to set",
        ),
        (
            "/v1/groups/ops/packets".to_owned(),
            json!({"priority": 1}),
            400,
            "KF-3333",
            "make it one with --packets",
        ),
        (
            "/v1/groups/net/packets".to_owned(),
            json!({"mtu": 80}),
            400,
            "KF-3333",
            "576 to 9216",
        ),
    ] {
        let (found, answer) = server.post(&path, &order.to_string());
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{answer}");
        let sentence = answer["sentence"].as_str().expect("a sentence");
        assert!(sentence.contains(word), "{sentence}");
    }
}
