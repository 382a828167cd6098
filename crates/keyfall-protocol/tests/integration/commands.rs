//! `interop/vectors/commands.json`: every command of this release, at ordinary and at the largest
//! numbers, with what is needed to make it again; and frames that no terminal may obey.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use keyfall_protocol::command::{
    Body, Command, KeyDist, KeySet, OrderContents, RECIPIENTS_MAX, Target, Unverified,
};
use keyfall_protocol::ids::{TerminalNumber, UnixSeconds};
use keyfall_protocol::keys::ObeyKey;
use keyfall_protocol::schedule::Cadence;
use serde_json::{Map, Value, json};

use crate::cbor::Item;
use crate::fleet::{command, obey_key, signing_key, terminal, wrap_key};
use crate::messages::{Distribution, Made, SealedFor, all};
use crate::stream::octets32;
use crate::unauthorised;
use crate::vectors::{check, hex};

#[test]
fn commands_are_the_published_ones() {
    let messages: Vec<_> = all().iter().map(shown).collect();
    let seeds: Map<_, _> = SIGNERS
        .into_iter()
        .map(|name| {
            let key = signing_key(name);
            let value = json!({
                "seed": hex(&octets32(name)),
                "public": hex(key.public().as_bytes()),
                "name": hex(key.public().name().as_bytes()),
            });
            (name.to_owned(), value)
        })
        .collect();
    check(
        "commands.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Commands\": every message of this release. Octets are \
                      hex text. A 32-octet secret is SHA-256 of its name and four zero octets; \
                      terminal N's wrap key is that of \"wrap key of terminal N\", renewed G \
                      times and as often as its offset says. `drawn` is what a KEYDIST drew: \
                      key-encryption key, then IV; or the IV of an order to one terminal. What is \
                      under `not_obeyed` is well formed, and a terminal that holds the KEYSET named \
                      must not obey it.",
            "signers": seeds,
            "messages": messages,
            "not_obeyed": unauthorised::shown(),
        }),
    );
}

/// Every published frame reads, verifies, and reads to what was signed.
#[test]
fn frames_read_back_to_what_was_signed() {
    for made in all() {
        let keys: Vec<_> = made.signers.iter().map(|name| signing_key(name)).collect();
        let public = |name| {
            let mut keys = keys.iter().map(|key| key.public());
            keys.find(|key| key.name() == name)
        };
        let frame = Unverified::decode(&made.frame).unwrap();
        assert!(
            frame
                .signers()
                .eq(keys.iter().map(|key| key.public().name()))
        );
        let verified = frame.verify_with(public).unwrap();
        assert_eq!(*verified.command(), made.command, "{}", made.name);
        // Every signature counts: with another key in the place of one, none of it does.
        for wrong in &keys {
            let one = |name| {
                let wrong = name == wrong.public().name();
                let other = || signing_key("another key").public();
                if wrong { Some(other()) } else { public(name) }
            };
            let frame = Unverified::decode(&made.frame).unwrap();
            assert!(frame.verify_with(one).is_none(), "{}", made.name);
        }
        if keys.len() > 1 {
            let frame = Unverified::decode(&made.frame).unwrap();
            assert!(frame.verify(&keys[0].public()).is_none(), "{}", made.name);
        }
    }
}

/// REQUIREMENTS: each named one opens alone, a stranger opens nothing.
#[test]
fn distribution_opens_for_the_named_and_for_nobody_else() {
    for made in all() {
        let (Body::KeyDist(key_dist), Some(distribution)) =
            (&made.command.body, &made.distribution)
        else {
            continue;
        };
        let contents = &distribution.contents;
        for &(number, reached) in &distribution.recipients {
            let opened = key_dist.open(&wrap_key(number, reached)).unwrap();
            assert_eq!(opened.key.secret(), contents.key.secret());
            assert_eq!(opened.schedule(), contents.schedule());
            assert_eq!(opened.lease_end, contents.lease_end);
            // The right terminal at another generation has another handle and another key.
            let later = wrap_key(number, reached + 1);
            assert!(key_dist.open(&later).is_none() && key_dist.open_any(&later).is_none());
            let carol = wrap_key(99, reached);
            assert!(key_dist.open(&carol).is_none() && key_dist.open_any(&carol).is_none());
        }
    }
    assert_eq!(RECIPIENTS_MAX, 17);
}

/// REQUIREMENTS R-065: an order opens for the one terminal, whatever G is, and for nobody else.
#[test]
fn order_opens_for_the_one_terminal_and_for_nobody_else() {
    let mut opened = 0;
    for made in all() {
        let (Body::Order(order), Some(sealed)) = (&made.command.body, &made.order) else {
            continue;
        };
        assert_eq!(
            order.open(&sealed.obey),
            Some(sealed.contents),
            "{}",
            made.name
        );
        assert_eq!(order.handle(), sealed.obey.handle());
        assert_eq!(order.open(&obey_key(99)), None);
        // The right octets under another number are another terminal's key.
        let carol = ObeyKey::new(terminal(3), sealed.obey.secret().duplicate());
        assert_eq!(order.open(&carol), None);
        opened += 1;
    }
    assert_eq!(opened, 11);
}

fn shown(made: &Made) -> Value {
    let Item::Tag(tag, inside) = Item::decode(&made.frame) else {
        panic!("a tag")
    };
    let Item::Array(parts) = *inside else {
        panic!("an array")
    };
    let payload = octets_of(&parts[2]);
    // Protected header and signature of each signer.
    let signatures: Vec<_> = match (tag, &parts[3]) {
        (18, signature) => vec![(octets_of(&parts[0]), octets_of(signature))],
        (98, Item::Array(several)) => several
            .iter()
            .map(|one| {
                let Item::Array(one) = one else {
                    panic!("{one:?} is no COSE_Signature")
                };
                (octets_of(&one[0]), octets_of(&one[2]))
            })
            .collect(),
        other => panic!("{other:?} is no signed frame"),
    };
    let signatures = made
        .signers
        .iter()
        .zip(signatures)
        .map(|(signer, (protected, signature))| {
            json!({
                "signer": signer,
                "protected": hex(&protected),
                "to_be_signed": hex(&to_be_signed(tag, &protected, &payload)),
                "signature": hex(&signature),
            })
        });
    let mut value = json!({
        "name": made.count.map_or_else(|| made.name.to_owned(), |n| format!("{} ({n})", made.name)),
        "command": command_shown(&made.command),
        "payload": hex(&payload),
        "signatures": signatures.collect::<Vec<_>>(),
        "frame": hex(&made.frame),
        "size": made.frame.len(),
    });
    if let Some(distribution) = &made.distribution {
        value["distribution"] = distribution_shown(made, distribution);
    }
    if let Some(order) = &made.order {
        value["order"] = order_shown(made, order);
    }
    value
}

fn octets_of(item: &Item) -> Vec<u8> {
    let Item::Bytes(octets) = item else {
        panic!("{item:?} is no octet string")
    };
    octets.clone()
}

/// Sig_structure (RFC 9052 section 4.4), made by nothing of ours.
fn to_be_signed(tag: u64, protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let octets = |octets: &[u8]| Item::Bytes(octets.to_vec());
    let mut parts = if tag == 18 {
        vec![Item::Text("Signature1".to_owned())]
    } else {
        vec![Item::Text("Signature".to_owned()), octets(b"")]
    };
    parts.extend([octets(protected), octets(b"KF1/cmd"), octets(payload)]);
    Item::Array(parts).encode()
}

fn command_shown(command: &Command) -> Value {
    let target = match command.target {
        Target::All => json!([0]),
        Target::Group(group) => json!([1, group.get()]),
        Target::Terminal(terminal) => json!([2, terminal.get()]),
        Target::Handles => json!([3]),
    };
    json!({
        "stream": hex(command.stream.as_bytes()),
        "sequence": command.sequence.get(),
        "issued_at": command.issued_at.get(),
        "not_after": command.not_after.get(),
        "type": command.body.type_number(),
        "target": target,
        "body": body_shown(&command.body),
        "g": command.fleet_generation.get(),
    })
}

fn body_shown(body: &Body) -> Value {
    match body {
        Body::Time(time) => json!({
            "seconds": time.seconds.get(),
            "max_error_ms": time.max_error_ms,
            "floors": time.floors.iter().map(|floor| json!([
                floor.kid.get(), floor.epoch.get(), floor.generation.get(),
            ])).collect::<Vec<_>>(),
        }),
        Body::Renew(renew) => json!({
            "entries": renew.entries.iter().map(|entry| json!([
                entry.kid.get(),
                entry.epoch.get(),
                entry.schedule.generation.get(),
                entry.schedule.activate_at.get(),
                entry.schedule.cadence.map(Cadence::step),
                entry.schedule.cadence.map(Cadence::period),
                entry.lease_end.map(UnixSeconds::get),
            ])).collect::<Vec<_>>(),
        }),
        Body::KeyDist(key_dist) => json!({
            "handles": key_dist.recipients().iter()
                .map(|recipient| hex(recipient.handle.as_bytes())).collect::<Vec<_>>(),
        }),
        Body::Order(order) => json!({
            "handle": hex(order.handle().as_bytes()),
        }),
        Body::Exclude(exclude) => json!({
            "terminals": exclude.terminals.iter().map(|it| it.get()).collect::<Vec<_>>(),
            "groups": exclude.groups.iter().map(|fresh| json!([
                fresh.group.get(), fresh.old.get(), fresh.new.get(), null,
            ])).collect::<Vec<_>>(),
        }),
        Body::KeySet(key_set) => key_set_shown(key_set),
        Body::Stop(halt) | Body::Start(halt) => json!({
            "group": halt.group.get(),
            "transaction": halt.transaction.get(),
            "epoch": halt.epoch.get(),
            "generation": halt.generation.get(),
            "deadline": halt.deadline.get(),
        }),
        Body::Notify(notify) => json!({
            "spread_ms": notify.spread_ms,
            "entries": notify.entries.iter().map(|entry| json!([
                entry.group.get(), entry.epoch.get(), entry.generation.get(),
            ])).collect::<Vec<_>>(),
        }),
    }
}

fn key_set_shown(key_set: &KeySet) -> Value {
    let limits = key_set.limits;
    json!({
        "version": key_set.version,
        "issued_at": key_set.issued_at.get(),
        "keys": key_set.keys.iter().map(|key| json!({
            "name": hex(key.public.name().as_bytes()),
            "public": hex(key.public.as_bytes()),
            "class": key.class.number(),
            "not_before": key.not_before.get(),
            "expires": key.expires.get(),
            "groups": key.groups.iter().map(|group| group.get()).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "fleet_schedule": [
            key_set.fleet_schedule.first.get(),
            key_set.fleet_schedule.from.get(),
            key_set.fleet_schedule.period,
        ],
        "stolen": key_set.stolen.iter().map(|name| hex(name.as_bytes())).collect::<Vec<_>>(),
        "limits": {
            "longest_lease": limits.longest_lease,
            "suites": limits.suites.iter().map(|suite| suite.number()).collect::<Vec<_>>(),
            "grace": limits.grace,
            "exclude_grace": limits.exclude_grace,
            "exclude_wait": limits.exclude_wait,
            "dead_man": limits.dead_man,
            "erase_signatures": limits.erase_signatures,
        },
    })
}

fn distribution_shown(made: &Made, distribution: &Distribution) -> Value {
    let Body::KeyDist(key_dist) = &made.command.body else {
        panic!("a KEYDIST")
    };
    let contents = &distribution.contents;
    let (kek, iv) = (&distribution.rng.drawn[0], &distribution.rng.drawn[1]);
    let enc_structure = b"\x83\x67Encrypt\x43\xa1\x01\x03\x40";
    json!({
        "drawn": [hex(kek), hex(iv)],
        "enc_structure": hex(enc_structure),
        "plaintext": hex(&plaintext(key_dist, kek, iv, enc_structure)),
        "contents": {
            "kid": contents.key.kid().get(),
            "epoch": contents.key.epoch().get(),
            "generation": contents.key.generation().get(),
            "key": hex(&contents.key.secret().expose()[..]),
            "search_key": contents.search_key.as_ref().map(|key| hex(&key.expose()[..])),
            "activate_at": contents.activate_at.get(),
            "step": contents.cadence.map(Cadence::step),
            "period": contents.cadence.map(Cadence::period),
            "lease_end": contents.lease_end.map(UnixSeconds::get),
        },
        "recipients": distribution.recipients.iter().map(|&(number, reached)| {
            let key = wrap_key(number, reached);
            json!({
                "terminal": number,
                "wrap_generation": reached,
                "wrap_key": hex(&key.secret().expose()[..]),
                "handle": hex(key.handle().as_bytes()),
            })
        }).collect::<Vec<_>>(),
    })
}

fn order_shown(made: &Made, sealed: &SealedFor) -> Value {
    let OrderContents {
        terminal,
        kind,
        version,
        receipt_wanted,
    } = sealed.contents;
    let iv = &sealed.rng.drawn[0];
    let (key, enc_structure) = (sealing_key(&sealed.obey, iv), order_aad(&sealed.obey));
    let ciphertext = octets_of(Item::decode(&made.command.encode()).at(&[7, 2]));
    json!({
        "drawn": [hex(iv)],
        "obey_key": hex(&sealed.obey.secret().expose()[..]),
        "sealed_under": hex(&key),
        "enc_structure": hex(&enc_structure),
        "plaintext": hex(&opened(&key, iv, &enc_structure, ciphertext)),
        "contents": {
            "terminal": terminal.get(),
            "type": kind.type_number(),
            "version": version,
            "receipt_wanted": receipt_wanted,
        },
    })
}

/// XL(obey, "to-terminal", [iv], 32), by nothing of ours but the derivation.
pub(crate) fn sealing_key(obey: &ObeyKey, iv: &[u8]) -> Vec<u8> {
    let uint = Item::Uint;
    let text = |text: &str| Item::Text(text.to_owned());
    let info = Item::Array(vec![
        text("KF1"),
        text("to-terminal"),
        uint(obey.kid().get()),
        uint(0),
        uint(0),
        Item::Array(vec![Item::Bytes(iv.to_vec())]),
        uint(32),
    ]);
    let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, obey.secret().expose());
    let mut key = vec![0; 32];
    prk.expand(&[&info.encode()], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key))
        .unwrap();
    key
}

/// Enc_structure of an order under that key.
pub(crate) fn order_aad(obey: &ObeyKey) -> Vec<u8> {
    let handle = Item::Bytes(obey.handle().as_bytes().to_vec());
    let header = Item::Map(vec![
        (Item::Uint(1), Item::Uint(3)),
        (Item::Uint(4), handle),
    ]);
    let parts = vec![
        Item::Text("Encrypt0".to_owned()),
        Item::Bytes(header.encode()),
        Item::Bytes(Vec::new()),
    ];
    Item::Array(parts).encode()
}

/// Opened with what was drawn, by nothing of ours.
pub(crate) fn plaintext(key_dist: &KeyDist, kek: &[u8], iv: &[u8], aad: &[u8]) -> Vec<u8> {
    let command = command(0, 0, 0, Target::Handles, Body::KeyDist(key_dist.clone()));
    let ciphertext = octets_of(Item::decode(&command.encode()).at(&[7, 2]));
    opened(kek, iv, aad, ciphertext)
}

fn opened(key: &[u8], iv: &[u8], aad: &[u8], mut ciphertext: Vec<u8>) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(iv).unwrap();
    key.open_in_place(nonce, Aad::from(aad), &mut ciphertext)
        .unwrap()
        .to_vec()
}

/// The names in the vectors that other files use too.
#[test]
fn secrets_of_the_vectors_come_from_their_names() {
    assert_eq!(
        obey_key(2).secret().expose(),
        &octets32("obey key of terminal 2")
    );
    assert_eq!(terminal(2).obey_key_id().get(), 8);
    assert!(TerminalNumber::new(0).is_none());
}

/// Whose seeds the file shows.
const SIGNERS: [&str; 9] = [
    "root",
    "beat key",
    "keys key",
    "erase key",
    "second beat key",
    "second keys key",
    "second erase key",
    "third erase key",
    "fourth erase key",
];
