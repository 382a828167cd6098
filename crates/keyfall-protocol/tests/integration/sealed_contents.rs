//! What stands inside a seal is read as strictly as what stands outside: contents of KEYDISTs and
//! packages that are sealed rightly and are not what they must be.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keyfall_protocol::command::{Body, Command};
use keyfall_protocol::enrolment::{PackageError, SealedPackage};
use serde_json::{Value, json};

use crate::cbor::Item;
use crate::commands::{order_aad, plaintext, sealing_key};
use crate::enrolment::{code, package_under_code};
use crate::fleet::wrap_key;
use crate::malformed::shown;
use crate::messages::{Made, all, made_named};
use crate::vectors::hex;

/// Each of them, refused; for `malformed.json`.
pub(crate) fn refused() -> Vec<Value> {
    let mut found = Vec::new();
    for (name, plain) in keydist_contents() {
        assert!(!opens(&plain), "KEYDIST: {name} was taken");
        found.push(json!({
            "kind": "keydist-contents", "name": name, "octets": hex(&plain), "error": null,
            "what": null,
        }));
    }
    for (name, plain) in order_contents() {
        assert!(!opens_as_order(&plain), "order: {name} was taken");
        found.push(json!({
            "kind": "order-contents", "name": name, "octets": hex(&plain), "error": null,
            "what": null,
        }));
    }
    for (name, plain) in package_contents() {
        found.push(match open_package(&plain) {
            Err(PackageError::Malformed(fault)) => shown("package-contents", name, &plain, fault),
            Err(PackageError::KeySetNotSigned) => json!({
                "kind": "package-contents", "name": name, "octets": hex(&plain),
                "error": "KeySetNotSigned", "what": null,
            }),
            other => panic!("package: {name}: {other:?}"),
        });
    }
    found
}

#[test]
fn unharmed_contents_open() {
    assert!(opens(&dist_plain().0));
    assert!(opens_as_order(&order_plain().0));
    assert!(open_package(&package_plain()).is_ok());
}

/// No cut, no addition and no other encoding of contents opens.
#[test]
fn every_other_encoding_of_contents_is_refused() {
    let (plain, _) = dist_plain();
    for other in Item::decode(&plain).other_encodings() {
        assert!(!opens(&other.encode()), "{}", hex(&other.encode()));
    }
    for len in 0..plain.len() {
        assert!(!opens(&plain[..len]), "cut to {len}");
    }
    let (plain, _) = order_plain();
    for other in Item::decode(&plain).other_encodings() {
        assert!(!opens_as_order(&other.encode()), "{}", hex(&other.encode()));
    }
    for len in 0..plain.len() {
        assert!(!opens_as_order(&plain[..len]), "cut to {len}");
    }
}

/// Of a LOCK to terminal 2 that wants a receipt.
fn order_contents() -> Vec<(&'static str, Vec<u8>)> {
    let (plain, _) = order_plain();
    let set = |name, field: u64, to: Item| {
        let mut contents = Item::decode(&plain);
        *contents.at(&[field]) = to;
        (name, contents.encode())
    };
    let edit = |name, change: &dyn Fn(&mut Item)| {
        let mut contents = Item::decode(&plain);
        change(&mut contents);
        (name, contents.encode())
    };
    vec![
        ("nothing", Vec::new()),
        ("an octet after the end", [&plain[..], &[0]].concat()),
        set("terminal 0", 1, Item::Uint(0)),
        set("terminal of 25 bits", 1, Item::Uint(1 << 24)),
        set("type of an EXCLUDE", 2, Item::Uint(6)),
        set("type of a DELETE, which has no version", 2, Item::Uint(4)),
        set("version of 33 bits", 3, Item::Uint(1 << 32)),
        set("version null", 3, Item::Null),
        set("no receipt wanted, said aloud", 4, Item::Raw(vec![0xf4])),
        set("receipt wanted as a number", 4, Item::Uint(1)),
        edit("no version", &|c| {
            c.pairs().remove(2);
        }),
        edit("no type", &|c| {
            c.pairs().remove(1);
        }),
        edit("a path to wipe", &|c| {
            c.pairs().push((Item::Uint(5), Item::Text("/".to_owned())));
        }),
        edit("fields out of order", &|c| c.pairs().swap(0, 1)),
    ]
}

fn keydist_contents() -> Vec<(&'static str, Vec<u8>)> {
    let (plain, _) = dist_plain();
    let set = |name, field: u64, to: Item| {
        let mut contents = Item::decode(&plain);
        *contents.at(&[field]) = to;
        (name, contents.encode())
    };
    let edit = |name, change: &dyn Fn(&mut Item)| {
        let mut contents = Item::decode(&plain);
        change(&mut contents);
        (name, contents.encode())
    };
    let pair = |a, b| Item::Array(vec![Item::Uint(a), Item::Uint(b)]);
    vec![
        ("nothing", Vec::new()),
        ("an octet after the end", [&plain[..], &[0]].concat()),
        set("kid of a wrap key", 1, Item::Uint(9)),
        set("kid of an obey key", 1, Item::Uint(8)),
        set("kid 0", 1, Item::Uint(0)),
        set("epoch of 33 bits", 2, Item::Uint(1 << 32)),
        set("generation above 2^31", 3, Item::Uint((1 << 31) + 1)),
        set("key of 31 octets", 4, Item::Bytes(vec![1; 31])),
        set("key of 33 octets", 4, Item::Bytes(vec![1; 33])),
        set("step 0", 7, pair(0, 3600)),
        set("faster than 64 in 600 s", 7, pair(1, 9)),
        set(
            "schedule of nulls",
            7,
            Item::Array(vec![Item::Null, Item::Null]),
        ),
        set("lease end null", 8, Item::Null),
        edit("no key", &|c| {
            c.pairs().remove(3);
        }),
        edit("no activate-at", &|c| {
            c.pairs().remove(4);
        }),
        edit("a search key of 15 octets", &|c| {
            c.pairs()
                .insert(4, (Item::Uint(5), Item::Bytes(vec![0; 15])));
        }),
        edit("a policy version, which a later version has", &|c| {
            c.pairs().push((Item::Uint(9), Item::Uint(1)));
        }),
        edit("fields out of order", &|c| c.pairs().swap(0, 1)),
    ]
}

fn package_contents() -> Vec<(&'static str, Vec<u8>)> {
    let plain = package_plain();
    let set = |name, path: &[u64], to: Item| {
        let mut contents = Item::decode(&plain);
        *contents.at(path) = to;
        (name, contents.encode())
    };
    let text = |text: &str| Item::Text(text.to_owned());
    let beacon = all()
        .into_iter()
        .find(|made| made.name == "TIME")
        .unwrap()
        .frame;
    let Item::Bytes(mut key_set) = Item::decode(&plain).at(&[0, 4]).clone() else {
        panic!("KEYSET")
    };
    let last = key_set.len() - 1;
    key_set[last] ^= 1;
    let wipe = |name, path: &str| set(name, &[0, 8], Item::Array(vec![text(path)]));
    let streams = |count: usize| Item::Array(vec![Item::Bytes(vec![0; 4]); count]);
    vec![
        ("nothing", Vec::new()),
        ("an octet after the end", [&plain[..], &[0]].concat()),
        set("terminal number 0", &[0, 0], Item::Uint(0)),
        set("terminal number of 25 bits", &[0, 0], Item::Uint(1 << 24)),
        set("empty name", &[0, 1], text("")),
        set("name of two lines", &[0, 1], text("a\nb")),
        set("name of 201 octets", &[0, 1], text(&"x".repeat(201))),
        set(
            "name that is no UTF-8",
            &[0, 1],
            Item::Raw(vec![0x62, 0xc3, 0x28]),
        ),
        set("fleet name with an escape", &[0, 2], text("a\u{9b}b")),
        set("root of 31 octets", &[0, 3], Item::Bytes(vec![0; 31])),
        set("another root", &[0, 3], Item::Bytes(vec![3; 32])),
        set(
            "KEYSET with a changed signature",
            &[0, 4],
            Item::Bytes(key_set),
        ),
        set(
            "a TIME in the place of the KEYSET",
            &[0, 4],
            Item::Bytes(beacon),
        ),
        set("no KEYSET", &[0, 4], Item::Bytes(Vec::new())),
        set("no streams", &[0, 5], streams(0)),
        set("seventeen streams", &[0, 5], streams(17)),
        set(
            "seventeen carriers",
            &[0, 6],
            Item::Array(vec![text("udp://"); 17]),
        ),
        set("keep time of 33 bits", &[0, 7], Item::Uint(1 << 32)),
        set("nine wipe roots", &[0, 8], Item::Array(vec![text("/a"); 9])),
        wipe("empty wipe root", ""),
        wipe("wipe root that is not absolute", "var/lib"),
        wipe("everything as wipe root", "/"),
        wipe("everything in other words", "/.//"),
        wipe("wipe root that goes up", "/a/../etc"),
        wipe("wipe root of two lines", "/a\nb"),
        set("obey key of 31 octets", &[1], Item::Bytes(vec![0; 31])),
        set("wrap key of 33 octets", &[2], Item::Bytes(vec![0; 33])),
        set("generation above 2^31", &[3], Item::Uint((1 << 31) + 1)),
        set(
            "long form of the generation",
            &[3],
            Item::Raw(vec![0x18, 5]),
        ),
        set("issued in 2106", &[4], Item::Uint(1 << 32)),
    ]
}

/// Whether a KEYDIST with these contents opens for terminal 1.
fn opens(plain: &[u8]) -> bool {
    let (_, made) = dist_plain();
    let rng = &made.distribution.as_ref().unwrap().rng;
    let aad = b"\x83\x67Encrypt\x43\xa1\x01\x03\x40";
    let mut payload = Item::decode(&made.command.encode());
    *payload.at(&[7, 2]) = Item::Bytes(sealed(&rng.drawn[0], &rng.drawn[1], aad, plain));
    let command = Command::decode(&payload.encode()).unwrap();
    let Body::KeyDist(key_dist) = &command.body else {
        panic!("a KEYDIST")
    };
    let wrap = wrap_key(1, 5);
    assert_eq!(
        key_dist.open(&wrap).is_some(),
        key_dist.open_any(&wrap).is_some()
    );
    key_dist.open(&wrap).is_some()
}

/// Whether a LOCK with these contents opens for terminal 2.
fn opens_as_order(plain: &[u8]) -> bool {
    let (_, made) = order_plain();
    let sealed_for = made.order.as_ref().unwrap();
    let (obey, iv) = (&sealed_for.obey, &sealed_for.rng.drawn[0]);
    let ciphertext = sealed(&sealing_key(obey, iv), iv, &order_aad(obey), plain);
    let mut payload = Item::decode(&made.command.encode());
    *payload.at(&[7, 2]) = Item::Bytes(ciphertext);
    let command = Command::decode(&payload.encode()).unwrap();
    let Body::Order(order) = &command.body else {
        panic!("an order")
    };
    order.open(obey).is_some()
}

/// Contents of a LOCK that wants a receipt, which none published does, and the published LOCK.
fn order_plain() -> (Vec<u8>, Made) {
    let made = made_named("LOCK");
    let version = made.order.as_ref().unwrap().contents.version.unwrap();
    let contents = Item::Map(vec![
        (Item::Uint(1), Item::Uint(2)),
        (Item::Uint(2), Item::Uint(15)),
        (Item::Uint(3), Item::Uint(version.into())),
        (Item::Uint(4), Item::Raw(vec![0xf5])),
    ]);
    (contents.encode(), made)
}

/// The contents of a published KEYDIST.
fn dist_plain() -> (Vec<u8>, Made) {
    let made = all()
        .into_iter()
        .find(|made| made.name == "KEYDIST to two")
        .unwrap();
    let Body::KeyDist(key_dist) = &made.command.body else {
        panic!("a KEYDIST")
    };
    let rng = &made.distribution.as_ref().unwrap().rng;
    let aad = b"\x83\x67Encrypt\x43\xa1\x01\x03\x40";
    (plaintext(key_dist, &rng.drawn[0], &rng.drawn[1], aad), made)
}

fn open_package(plain: &[u8]) -> Result<(), PackageError> {
    let mut package = Item::decode(&package_under_code());
    let (salt, iv) = salt_and_iv(&mut package);
    *package.at(&[4]) = Item::Bytes(sealed(&code_key(&salt), &iv, b"KF1/enrol", plain));
    SealedPackage::decode(&package.encode())?
        .open_under(&code())
        .map(drop)
}

/// The contents of a published package.
fn package_plain() -> Vec<u8> {
    let mut package = Item::decode(&package_under_code());
    let (salt, iv) = salt_and_iv(&mut package);
    let Item::Bytes(mut buffer) = package.at(&[4]).clone() else {
        panic!("ciphertext")
    };
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &code_key(&salt)).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(&iv).unwrap();
    key.open_in_place(nonce, Aad::from(b"KF1/enrol"), &mut buffer)
        .unwrap()
        .to_vec()
}

fn salt_and_iv(package: &mut Item) -> (Vec<u8>, Vec<u8>) {
    let Item::Bytes(salt) = package.at(&[2]).clone() else {
        panic!("salt")
    };
    let Item::Bytes(iv) = package.at(&[3]).clone() else {
        panic!("IV")
    };
    (salt, iv)
}

fn code_key(salt: &[u8]) -> Vec<u8> {
    let mut key = vec![0; 32];
    let letters = code().shown().replace('-', "");
    Argon2::new(
        Algorithm::Argon2id,
        Version::V0x13,
        Params::new(19_456, 2, 1, None).unwrap(),
    )
    .hash_password_into(letters.as_bytes(), salt, &mut key)
    .unwrap();
    key
}

fn sealed(key: &[u8], iv: &[u8], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let mut buffer = plain.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(iv).unwrap();
    key.seal_in_place_append_tag(nonce, Aad::from(aad), &mut buffer)
        .unwrap();
    buffer
}
