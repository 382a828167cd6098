//! For `malformed.json`: frames of several signatures, orders to one terminal, exclusions and
//! KEYSETs that a decoder refuses.

use crate::cbor::Item;
use crate::malformed::{frame_named, payload_of, sealed};

/// Each with its name.
pub(crate) fn frames() -> Vec<(String, Vec<u8>)> {
    let mut found = envelopes();
    found.extend(orders());
    found.extend(exclusions());
    found.extend(key_sets());
    found
}

fn envelopes() -> Vec<(String, Vec<u8>)> {
    let frame = &frame_named("DELETE that two keys sign");
    let change = |name: &str, change: &dyn Fn(&mut Vec<Item>)| {
        let mut whole = Item::decode(frame);
        change(whole.at(&[]).items());
        (format!("two signatures: {name}"), whole.encode())
    };
    let alone = Item::decode(&frame_named("DELETE that wants a receipt"));
    let Item::Tag(_, of_one) = alone else {
        panic!("a tag")
    };
    let mut long_tag = vec![0xd9, 0, 98];
    long_tag.extend_from_slice(&frame[2..]);
    vec![
        change("only one", &|parts| drop(parts[3].items().pop())),
        change("none", &|parts| parts[3].items().clear()),
        change("by falling name", &|parts| parts[3].items().swap(0, 1)),
        change("the first one twice", &|parts| {
            let first = parts[3].items()[0].clone();
            parts[3].items()[1] = first;
        }),
        change("five of them", &|parts| {
            let first = parts[3].items()[0].clone();
            parts[3].items().resize(5, first);
        }),
        change("a protected header for the body", &|parts| {
            parts[0] = parts[3].items()[0].items()[0].clone();
        }),
        change("an empty map as protected header of the body", &|parts| {
            parts[0] = Item::Bytes(vec![0xa0]);
        }),
        change("an unprotected field", &|parts| {
            parts[1] = Item::Map(vec![(Item::Uint(4), Item::Bytes(vec![0; 8]))]);
        }),
        change("an unprotected field beside one of them", &|parts| {
            let header = Item::Map(vec![(Item::Uint(4), Item::Bytes(vec![0; 8]))]);
            parts[3].items()[0].items()[1] = header;
        }),
        change("one without its protected header", &|parts| {
            parts[3].items()[0].items()[0] = Item::Bytes(Vec::new());
        }),
        change("one of 63 octets", &|parts| {
            parts[3].items()[1].items()[2] = Item::Bytes(vec![0; 63]);
        }),
        change("one of two parts", &|parts| {
            parts[3].items()[1].items().remove(1);
        }),
        change("detached payload", &|parts| parts[2] = Item::Null),
        ("two signatures: tag in three octets".to_owned(), long_tag),
        (
            "one signature under tag 98, as COSE_Sign1".to_owned(),
            Item::Tag(98, of_one).encode(),
        ),
    ]
}

fn orders() -> Vec<(String, Vec<u8>)> {
    let order = "DELETE that wants a receipt";
    let set = |name: &str, path: &[u64], to: Item| changed(order, name, path, to);
    let edit = |name: &str, change: &dyn Fn(&mut Item)| edited(order, name, change);
    let header = |pairs: Vec<(Item, Item)>| Item::Bytes(Item::Map(pairs).encode());
    let handle = || (Item::Uint(4), Item::Bytes(vec![7; 5]));
    let alg = || (Item::Uint(1), Item::Uint(3));
    vec![
        edit("without tag 16", &|payload| {
            let Item::Tag(_, inside) = payload.pairs()[6].1.clone() else {
                panic!("a tag")
            };
            payload.pairs()[6].1 = *inside;
        }),
        edit("under tag 96", &|payload| {
            let Item::Tag(_, inside) = payload.pairs()[6].1.clone() else {
                panic!("a tag")
            };
            payload.pairs()[6].1 = Item::Tag(96, inside);
        }),
        edit("four parts", &|payload| {
            payload.at(&[7]).items().push(Item::Null);
        }),
        set("empty protected header", &[7, 0], Item::Bytes(Vec::new())),
        set("no handle", &[7, 0], header(vec![alg()])),
        set("no algorithm", &[7, 0], header(vec![handle()])),
        set(
            "under A128GCM",
            &[7, 0],
            header(vec![(Item::Uint(1), Item::Uint(1)), handle()]),
        ),
        set(
            "handle of 4 octets",
            &[7, 0],
            header(vec![alg(), (Item::Uint(4), Item::Bytes(vec![7; 4]))]),
        ),
        set(
            "header fields out of order",
            &[7, 0],
            header(vec![handle(), alg()]),
        ),
        set(
            "long form in the header",
            &[7, 0],
            header(vec![(Item::Uint(1), Item::Raw(vec![0x18, 3])), handle()]),
        ),
        set("IV of 13 octets", &[7, 1, 5], Item::Bytes(vec![0; 13])),
        edit("the handle outside of the protected header", &|payload| {
            let mut unprotected = payload.at(&[7, 1]).pairs().clone();
            unprotected.insert(0, handle());
            *payload.at(&[7, 1]) = Item::Map(unprotected);
        }),
        set("detached content", &[7, 2], Item::Null),
        set("content longer than any", &[7, 2], Item::Bytes(vec![0; 65])),
        set("as an EXCLUDE", &[5], Item::Uint(6)),
        set("as a KEYDIST", &[5], Item::Uint(3)),
    ]
}

fn exclusions() -> Vec<(String, Vec<u8>)> {
    let exclude = "EXCLUDE";
    let set = |name: &str, path: &[u64], to: Item| changed(exclude, name, path, to);
    let edit = |name: &str, change: &dyn Fn(&mut Item)| edited(exclude, name, change);
    let numbers = |numbers: &[u64]| Item::Array(numbers.iter().map(|&it| Item::Uint(it)).collect());
    vec![
        set("nobody", &[7, 1], numbers(&[])),
        set("terminal 0", &[7, 1], numbers(&[0])),
        set("terminal of 25 bits", &[7, 1], numbers(&[1 << 24])),
        set("falling", &[7, 1], numbers(&[1000, 2])),
        set("one of them twice", &[7, 1], numbers(&[2, 2])),
        set("sixty-five", &[7, 1], numbers(&Vec::from_iter(1..=65))),
        set("group 0", &[7, 2, 0, 0], Item::Uint(0)),
        set("epoch of 33 bits", &[7, 2, 0, 2], Item::Uint(1 << 32)),
        edit("the epoch that it had", &|payload| {
            let old = payload.at(&[7, 2, 0, 1]).clone();
            *payload.at(&[7, 2, 0, 2]) = old;
        }),
        set(
            "a heal generation of a later version",
            &[7, 2, 0, 3],
            Item::Uint(64),
        ),
        edit("entry of three", &|payload| {
            payload.at(&[7, 2, 0]).items().pop();
        }),
        edit("thirty-seven groups", &|payload| {
            let small = Item::Array(vec![
                Item::Uint(1),
                Item::Uint(0),
                Item::Uint(1),
                Item::Null,
            ]);
            *payload.at(&[7, 2]) = Item::Array(vec![small; 37]);
        }),
        edit("a heal seed's number of a later version", &|payload| {
            payload
                .at(&[7])
                .pairs()
                .push((Item::Uint(3), Item::Uint(1)));
        }),
        edit("no groups at all", &|payload| {
            payload.at(&[7]).pairs().pop();
        }),
    ]
}

fn key_sets() -> Vec<(String, Vec<u8>)> {
    let keys = "KEYSET with stolen keys";
    let set = |name: &str, path: &[u64], to: Item| changed(keys, name, path, to);
    let edit = |name: &str, change: &dyn Fn(&mut Item)| edited(keys, name, change);
    let name = || Item::Bytes(vec![9; 8]);
    vec![
        set(
            "no stolen keys in the list",
            &[7, 6],
            Item::Array(Vec::new()),
        ),
        set("nine stolen keys", &[7, 6], Item::Array(vec![name(); 9])),
        set(
            "stolen key's name of 7 octets",
            &[7, 6, 0],
            Item::Bytes(vec![9; 7]),
        ),
        edit("a next root, which a later version has", &|payload| {
            let root = Item::Bytes(vec![1; 32]);
            payload.at(&[7]).pairs().insert(4, (Item::Uint(5), root));
        }),
        edit("floors, which a later version has", &|payload| {
            let none = Item::Array(Vec::new());
            payload.at(&[7]).pairs().insert(5, (Item::Uint(7), none));
        }),
        set("dead man's time null", &[7, 8, 7], Item::Null),
        set("wait of 33 bits", &[7, 8, 6], Item::Uint(1 << 32)),
        set("no erase signatures", &[7, 8, 8], Item::Uint(0)),
        set("five erase signatures", &[7, 8, 8], Item::Uint(5)),
        edit("no grace after an exclusion", &|payload| {
            payload.at(&[7, 8]).pairs().remove(3);
        }),
        edit("two limits only, as an earlier version", &|payload| {
            payload.at(&[7, 8]).pairs().truncate(2);
        }),
    ]
}

fn changed(of: &str, name: &str, path: &[u64], to: Item) -> (String, Vec<u8>) {
    edited(of, name, &|payload| *payload.at(path) = to.clone())
}

fn edited(of: &str, name: &str, change: &dyn Fn(&mut Item)) -> (String, Vec<u8>) {
    let mut payload = payload_of(&frame_named(of));
    change(&mut payload);
    (format!("{of}: {name}"), sealed(&payload))
}
