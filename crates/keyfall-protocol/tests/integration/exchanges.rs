//! `interop/vectors/sharing.json`: key sharing as server and terminal speak it, each message opened
//! again; and `interop/python/sharing.json`, which another program made.

use std::time::Duration;

use keyfall_protocol::command::{
    Body, HaltKind, KeyDistContents, SigningKey, Unverified, VerifyingKey,
};
use keyfall_protocol::ids::{Generation, GroupNumber, SequenceNumber, TerminalNumber, Tick};
use keyfall_protocol::keys::{Secret, WrapKey};
use keyfall_protocol::server::{self, Order};
use keyfall_protocol::sharing::message::{
    AckStatus, KeyDis, KeyReq, Message, RequestHash, SealedAsk, hello, marked, type_of,
};
use keyfall_protocol::sharing::pair::{AckKey, Ask, Grant, PlainHash, SignedGrant};
use keyfall_protocol::sharing::{
    Assembly, Bundle, Confirmation, KemPublic, KemSecret, KemSuite, SharingSuite, datagrams,
};
use keyfall_protocol::token::Token;
use serde_json::{Value, json};

use crate::cbor::{Item, wrap_in};
use crate::sharing::{Fate, Pair};
use crate::vectors::{check, from_top, hex};

/// One message with the datagrams that carried it.
#[derive(Clone)]
struct Sent {
    datagrams: Vec<Vec<u8>>,
    message: Vec<u8>,
}

/// The messages of one exchange.
struct Exchange {
    first: Option<Sent>,
    cookie: Option<Sent>,
    key_req: Sent,
    key_dis: Sent,
    ack: Sent,
}

/// A KEY-REQ that was opened.
struct OpenedAsk {
    inner: Vec<u8>,
    g: Generation,
    iv: [u8; 12],
    id: [u8; 8],
    cookie: Option<[u8; 16]>,
    plain: Vec<u8>,
    ask: Ask,
}

/// A KEY-DIS that was opened.
struct OpenedGrant {
    inner: Vec<u8>,
    iv: [u8; 12],
    plain: Vec<u8>,
    hash: PlainHash,
    grant: Grant,
}

#[test]
fn exchanges_are_the_published_ones() {
    let mut cases = Vec::new();
    for suite in [SharingSuite::Psk, SharingSuite::Hpke, SharingSuite::HpkePq] {
        cases.extend(cases_of(suite));
    }
    let fleet = Pair::new(&[SharingSuite::Psk], 1);
    let kem = |held: &Option<KemSecret>| secret_shown(held.as_ref().expect("drawn"));
    let record = fleet.server.fleet();
    let keys = &record.keys;
    check(
        "sharing.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Key sharing over UDP\": what a server and its terminals sent \
                      each other. The form stands at the top of interop/python/verify_sharing.py.",
            "signers": { "keys key": {
                "seed": hex(&keys.seed().expose()[..]),
                "public": hex(keys.public().as_bytes()),
                "name": keys.public().name().to_string(),
            }},
            "kem": { "2": kem(&record.kem), "3": kem(&record.kem_pq) },
            "cases": cases,
            "bundles": [bundle()],
            "commands": [command()],
            "introductions": [introduction()],
        }),
    );
}

fn cases_of(suite: SharingSuite) -> Vec<Value> {
    let word = suite.name();
    let mut shown = Vec::new();
    let mut pair = Pair::new(&[suite], 2);
    let kept = pair.group(&[1, 2]);
    let left = pair.group(&[1]);
    let mut add = |pair: &Pair, name: &str, wrap: &WrapKey, exchange: &Exchange| {
        shown.push(shown_case(
            pair,
            &format!("{word}, {name}"),
            suite,
            wrap,
            exchange,
        ));
    };
    let (wrap, exchange) = exchange(&mut pair);
    assert!(
        exchange.first.is_some(),
        "{word}: a cookie where the time is unknown, and for fresh octets"
    );
    add(&pair, "the first request of a terminal", &wrap, &exchange);

    pair.order(Order::RenewGroup { group: kept })
        .expect("it may be");
    let terminal = TerminalNumber::new(1).expect("not 0");
    let remove = Order::RemoveMember {
        group: left,
        terminal,
    };
    pair.order(remove).expect("it may be");
    for _ in 0..40 {
        pair.group(&[1]);
    }
    let (wrap, second) = self::exchange(&mut pair);
    assert!(second.key_dis.datagrams.len() > 1, "{word}: in parts");
    add(&pair, "forty groups more and one less", &wrap, &second);

    if suite == SharingSuite::Hpke {
        // As many from one address as need no cookie, none of them genuine.
        let request = pair.air[0].1.clone();
        let from = pair.askers[0].address;
        for place in 0..4 {
            let mut octets = request.clone();
            octets[100 + place] ^= 1;
            pair.feed_server(server::Input::Datagram { from, octets });
        }
    }
    let (wrap, third) = self::exchange(&mut pair);
    let with_cookie = third.first.is_some();
    assert_eq!(with_cookie, suite != SharingSuite::Psk, "{word}");
    add(&pair, "nothing lacks", &wrap, &third);

    pair.order(Order::RenewDevices).expect("it may be");
    pair.ask(0);
    pair.run(Duration::from_secs(2));
    let (wrap, fourth) = self::exchange(&mut pair);
    add(&pair, "after a renewal of all devices", &wrap, &fourth);
    shown
}

/// Lets terminal 1 ask; its wrap key as the server has it before, and the messages.
fn exchange(pair: &mut Pair) -> (WrapKey, Exchange) {
    let terminal = pair.server.terminal_named("t1").expect("it is there");
    let wrap = terminal.wrap.duplicate();
    pair.now = pair.now.plus(Duration::from_millis(5));
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.ask(0);
    pair.run(Duration::from_millis(400));
    let (mut first, mut cookie, mut request, mut answer) = (None, None, None, None);
    for sent in messages(&pair.air) {
        match Message::decode(&sent.message).expect("ours") {
            Message::KeyReq { .. } => {
                first = request.replace(sent);
            }
            Message::Cookie { .. } => cookie = Some(sent),
            Message::KeyDis { .. } => answer = Some(sent),
            Message::Ack { .. } => {
                let exchange = Exchange {
                    first,
                    cookie,
                    key_req: request.expect("asked"),
                    key_dis: answer.expect("answered"),
                    ack: sent,
                };
                return (wrap, exchange);
            }
            Message::Part(_)
            | Message::Command { .. }
            | Message::Hello { .. }
            | Message::Introduction { .. } => {}
        }
    }
    panic!("the exchange came to no end: {:?}", pair.types());
}

/// What was sent, put together.
fn messages(air: &[(bool, Vec<u8>)]) -> Vec<Sent> {
    let mut assembly = Assembly::new(8, 64);
    let mut parts: Vec<Vec<u8>> = Vec::new();
    let mut made = Vec::new();
    // Confirmations of a change have vectors of their own.
    let asked = |datagram: &[u8]| !matches!(type_of(datagram), Some(5 | 6));
    for (up, datagram) in air.iter().filter(|(_, datagram)| asked(datagram)) {
        match Message::decode_datagram(datagram).expect("ours") {
            Message::Part(part) => {
                if part.index == 0 {
                    parts.clear();
                }
                parts.push(datagram.clone());
                if let Some(message) = assembly.add(*up, &part, Tick::default()) {
                    let datagrams = std::mem::take(&mut parts);
                    made.push(Sent { datagrams, message });
                }
            }
            Message::KeyReq { .. }
            | Message::Cookie { .. }
            | Message::KeyDis { .. }
            | Message::Ack { .. }
            | Message::Command { .. }
            | Message::Hello { .. }
            | Message::Introduction { .. } => made.push(Sent {
                datagrams: vec![datagram.clone()],
                message: datagram[4..].to_vec(),
            }),
        }
    }
    made
}

fn shown_case(
    pair: &Pair,
    name: &str,
    suite: SharingSuite,
    wrap: &WrapKey,
    exchange: &Exchange,
) -> Value {
    let fleet = pair.server.fleet();
    let kem = KemSuite::of(suite);
    let server = kem.and_then(|kem| {
        let held = [&fleet.kem, &fleet.kem_pq].into_iter().flatten();
        held.into_iter().find(|key| key.public().suite() == kem)
    });
    let asked = open_ask(&exchange.key_req.message, wrap, server);
    let fresh = asked.ask.fresh.as_ref().map(|public| {
        let suite = kem.expect("only these suites have one");
        fresh_secret(pair, suite, public)
    });
    let given = open_grant(
        &exchange.key_dis.message,
        &exchange.key_req.message,
        wrap,
        fresh.as_ref(),
        &fleet.keys.public(),
    );
    let grant = &given.grant;
    assert_eq!(grant.nonce, asked.ask.nonce);
    let mixed = grant.first.as_ref().map(|first| wrap.mix(first));
    let ack_under = mixed.as_ref().unwrap_or(wrap);
    let ack = AckKey::new(
        ack_under,
        &exchange.key_req.message,
        &exchange.key_dis.message,
    );
    let Ok(Message::Ack { status, mac, .. }) = Message::decode(&exchange.ack.message) else {
        panic!("an ACK");
    };
    assert!(ack.check(status, &given.hash, &mac));
    let mut case = json!({
        "name": name,
        "suite": suite.number(),
        "terminal": 1,
        "wrap_key": key_shown(wrap),
        "g": asked.g.get(),
        "fresh": fresh.as_ref().map(secret_shown),
        "key_req": ask_shown(&exchange.key_req, &asked),
        "key_dis": {
            "datagrams": all_hex(&exchange.key_dis.datagrams),
            "message": hex(&exchange.key_dis.message),
            "inner": hex(&given.inner),
            "iv": hex(&given.iv),
            "plain": hex(&given.plain),
            "signer": "keys key",
            "nonce": hex(&grant.nonce),
            "time": grant.time.get(),
            "g": grant.g.get(),
            "groups": grant.keys.iter().map(entry_shown).collect::<Vec<_>>(),
            "not_member": grant.gone.iter().map(|group| group.get()).collect::<Vec<_>>(),
            "more": grant.more,
            "r": grant.first.as_ref().map(|first| hex(&first.expose()[..])),
            "package": Value::Null,
        },
        "ack": {
            "datagrams": all_hex(&exchange.ack.datagrams),
            "status": status.number(),
            "suite": suite.number(),
            "mac": hex(&mac),
            "wrap_key": key_shown(ack_under),
        },
        "confirmations": confirmations(wrap, grant),
    });
    if let (Some(first), Some(cookie)) = (&exchange.first, &exchange.cookie) {
        let opened = open_ask(&first.message, wrap, server);
        case["first"] = ask_shown(first, &opened);
        let own = opened.ask.fresh.as_ref().zip(kem);
        let own = own.map(|(public, suite)| fresh_secret(pair, suite, public));
        case["first"]["fresh"] = json!(own.as_ref().map(secret_shown));
        let Ok(Message::Cookie {
            suite,
            cookie: given,
            frame,
            ..
        }) = Message::decode(&cookie.message)
        else {
            panic!("a COOKIE");
        };
        case["cookie"] = json!({
            "datagrams": all_hex(&cookie.datagrams),
            "cookie": hex(&given),
            "frame": frame.map(hex),
            "suite": suite.number(),
        });
    }
    case
}

/// As the server opens it.
fn open_ask(message: &[u8], wrap: &WrapKey, server: Option<&KemSecret>) -> OpenedAsk {
    let Ok(Message::KeyReq { request, cookie }) = Message::decode(message) else {
        panic!("a KEY-REQ");
    };
    let inner = match (request, server) {
        (KeyReq::Psk(_), None) => {
            let bare = Message::KeyReq {
                request,
                cookie: None,
            };
            bare.encode()
        }
        (KeyReq::Hpke { enc, ct, .. }, Some(server)) => server
            .open(b"KF1/key-req", enc, ct)
            .expect("to this server")
            .to_vec(),
        other => panic!("{other:?}"),
    };
    let Ok(Message::KeyReq {
        request: KeyReq::Psk(sealed),
        ..
    }) = Message::decode(&inner)
    else {
        panic!("the pair");
    };
    OpenedAsk {
        g: sealed.g,
        iv: sealed.iv,
        id: sealed.id,
        cookie,
        plain: plain_of(&sealed, wrap, cookie),
        ask: sealed.open(wrap, cookie).expect("its own key"),
        inner,
    }
}

fn plain_of(sealed: &SealedAsk<'_>, wrap: &WrapKey, cookie: Option<[u8; 16]>) -> Vec<u8> {
    let aad = Item::Array(vec![
        Item::Text("KF1/key-req".to_owned()),
        Item::Uint(sealed.suite.number().into()),
        Item::Bytes(sealed.id.to_vec()),
        Item::Uint(sealed.g.get().into()),
        cookie.map_or(Item::Null, |cookie| Item::Bytes(cookie.to_vec())),
    ]);
    opened(
        &wrap.key_req_key(sealed.iv),
        sealed.iv,
        &aad.encode(),
        sealed.ct,
    )
}

fn opened(key: &Secret<32>, iv: [u8; 12], aad: &[u8], ct: &[u8]) -> Vec<u8> {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.expose()).expect("32 octets"));
    let mut buffer = ct.to_vec();
    let nonce = Nonce::assume_unique_for_key(iv);
    let plain = key.open_in_place(nonce, Aad::from(aad), &mut buffer);
    plain.expect("it opens").to_vec()
}

/// As the terminal opens it.
fn open_grant(
    message: &[u8],
    request: &[u8],
    wrap: &WrapKey,
    fresh: Option<&KemSecret>,
    signer: &VerifyingKey,
) -> OpenedGrant {
    let hash = RequestHash::of(request);
    let Ok(Message::KeyDis {
        reference,
        distribution,
    }) = Message::decode(message)
    else {
        panic!("a KEY-DIS");
    };
    assert_eq!(reference, hash.reference());
    let inner = match (distribution, fresh) {
        (KeyDis::Psk { .. }, None) => message.to_vec(),
        (KeyDis::Hpke { enc, ct, .. }, Some(fresh)) => {
            let info = [b"KF1/key-dis", &hash.as_bytes()[..]].concat();
            fresh
                .open(&info, enc, ct)
                .expect("to this terminal")
                .to_vec()
        }
        other => panic!("{other:?}"),
    };
    let Ok(Message::KeyDis {
        distribution: distribution @ KeyDis::Psk { suite, signed },
        ..
    }) = Message::decode(&inner)
    else {
        panic!("the pair");
    };
    let read = SignedGrant::decode(distribution).expect("signed");
    assert_eq!(read.signer(), signer.name());
    let verified = read.verify(&hash, signer).expect("by that key");
    let (grant, plain_hash) = verified.open(wrap).expect("its own key");
    let mut cose = Item::decode(signed);
    let Item::Bytes(payload) = cose.at(&[2]).clone() else {
        panic!("a payload");
    };
    let mut payload = Item::decode(&payload);
    let (Item::Bytes(iv), Item::Bytes(ct)) = (payload.at(&[0]).clone(), payload.at(&[1]).clone())
    else {
        panic!("IV and ciphertext");
    };
    let iv: [u8; 12] = iv.try_into().expect("12 octets");
    let aad = Item::Array(vec![
        Item::Text("KF1/key-dis".to_owned()),
        Item::Uint(suite.number().into()),
        Item::Bytes(reference.as_bytes().to_vec()),
    ]);
    let plain = opened(
        &wrap.key_dis_key(*hash.as_bytes(), iv),
        iv,
        &aad.encode(),
        &ct,
    );
    OpenedGrant {
        inner,
        iv,
        plain,
        hash: plain_hash,
        grant,
    }
}

/// The key that the terminal made for this request: it was drawn, so it is among what was drawn.
fn fresh_secret(pair: &Pair, suite: KemSuite, public: &[u8]) -> KemSecret {
    let drawn = pair.rng.drawn.iter().rev().filter(|it| it.len() == 32);
    let mut made = drawn
        .map(|octets| KemSecret::from_seed(suite, Secret::from_slice(octets).expect("32 octets")));
    made.find(|made| made.public().octets() == public)
        .expect("it was drawn")
}

fn ask_shown(sent: &Sent, opened: &OpenedAsk) -> Value {
    let hash = RequestHash::of(&sent.message);
    let held = opened
        .ask
        .held
        .iter()
        .map(|it| json!([it.kid.get(), it.epoch.get(), it.generation.get()]));
    let plain = Item::decode(&opened.plain).at(&[5]).clone();
    let Item::Bytes(pad) = plain else {
        panic!("padding");
    };
    json!({
        "datagrams": all_hex(&sent.datagrams),
        "message": hex(&sent.message),
        "sha256": hex(hash.as_bytes()),
        "ref": hash.reference().to_string(),
        "id": hex(&opened.id),
        "iv": hex(&opened.iv),
        "cookie": opened.cookie.map(|cookie| hex(&cookie)),
        "inner": hex(&opened.inner),
        "plain": hex(&opened.plain),
        "nonce": hex(&opened.ask.nonce),
        "time": opened.ask.time.get(),
        "held": held.collect::<Vec<_>>(),
        "pad": pad.len(),
    })
}

fn entry_shown(contents: &KeyDistContents) -> Value {
    let key = &contents.key;
    json!({
        "kid": key.kid().get(),
        "epoch": key.epoch().get(),
        "generation": key.generation().get(),
        "key": hex(&key.secret().expose()[..]),
        "activate_at": contents.activate_at.get(),
        "schedule": contents.cadence.map(|it| json!([it.step(), it.period()])),
        "lease_end": contents.lease_end.map(|it| it.get()),
    })
}

fn key_shown(wrap: &WrapKey) -> Value {
    json!({
        "octets": hex(&wrap.secret().expose()[..]),
        "kid": wrap.kid().get(),
        "generation": wrap.generation().get(),
    })
}

fn secret_shown(secret: &KemSecret) -> Value {
    json!({
        "ikm": hex(&secret.seed().expose()[..]),
        "public": hex(secret.public().octets()),
    })
}

fn all_hex(datagrams: &[Vec<u8>]) -> Vec<String> {
    datagrams.iter().map(|one| hex(one)).collect()
}

/// Of the first key that was granted.
fn confirmations(wrap: &WrapKey, grant: &Grant) -> Vec<Value> {
    let Some(contents) = grant.keys.first() else {
        return Vec::new();
    };
    let transaction = SequenceNumber::at(grant.time);
    let key = (contents.key.epoch(), contents.key.generation());
    let shown = [(HaltKind::Stop, 5), (HaltKind::Start, 6)].map(|(kind, number)| {
        let group = contents.key.group();
        let made = Confirmation::make(wrap, kind, group, transaction, key);
        json!({
            "datagrams": [hex(&made.encode())],
            "suite": 0,
            "type": number,
            "id": hex(&made.id),
            "group": group.get(),
            "transaction": transaction.get(),
            "epoch": key.0.get(),
            "generation": key.1.get(),
            "mac": hex(&made.mac),
        })
    });
    shown.into()
}

fn bundle() -> Value {
    let confirmations = (1..=16).map(|number| {
        let group = GroupNumber::new(7).expect("not 0");
        let key = (
            keyfall_protocol::ids::KeyEpoch::new(crate::fleet::EPOCH),
            crate::fleet::generation(12),
        );
        let transaction = SequenceNumber::at(crate::fleet::at(crate::fleet::FOUNDED));
        let wrap = crate::fleet::wrap_key(number, 5);
        Confirmation::make(&wrap, HaltKind::Stop, group, transaction, key)
    });
    let bundle = Bundle {
        confirmations: confirmations.collect(),
    };
    let messages = bundle.confirmations.iter().map(|one| hex(&one.message()));
    json!({
        "datagrams": [hex(&bundle.encode())],
        "messages": messages.collect::<Vec<_>>(),
    })
}

/// The beacon of a COOKIE, as a message of its own.
fn command() -> Value {
    let mut pair = Pair::new(&[SharingSuite::Psk], 1);
    pair.ask(0);
    pair.run(Duration::from_secs(1));
    let cookie = pair.air.iter().find(|(_, it)| type_of(it) == Some(2));
    let Ok(Message::Cookie {
        frame: Some(frame), ..
    }) = Message::decode_datagram(&cookie.expect("a cookie").1)
    else {
        panic!("with a beacon");
    };
    let read = Unverified::decode(frame).expect("ours");
    let Body::Time(time) = &read.command().body else {
        panic!("TIME");
    };
    json!({
        "datagrams": [hex(&marked(&Message::Command { frame }.encode()))],
        "frame": hex(frame),
        "type": 1,
        "body": {
            "seconds": time.seconds.get(),
            "max_error_ms": time.max_error_ms,
            "floors": [],
        },
    })
}

fn introduction() -> Value {
    let mut pair = Pair::new(&[SharingSuite::HpkePq], 1);
    pair.ask(0);
    pair.run(Duration::from_secs(1));
    let of = |kind: u8| {
        let sent = pair.air.iter().map(|(_, it)| it);
        sent.filter(|it| type_of(it) == Some(kind))
            .collect::<Vec<_>>()
    };
    let (hellos, pieces) = (of(9), of(10));
    assert_eq!(hellos.len(), pieces.len(), "one answer each");
    for (place, asked) in (0..).zip(&hellos) {
        assert_eq!(**asked, hello(place));
    }
    let introduction = pair.server.introduction();
    let whole = introduction.encode();
    let public = &introduction.long_keys[0];
    let listed = KemPublic::listed_in(&introduction.key_set().expect("signed"), public);
    assert!(listed.is_some());
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &whole);
    json!({
        "hello": hellos.iter().map(|it| hex(it)).collect::<Vec<_>>(),
        "datagrams": pieces.iter().map(|it| hex(it)).collect::<Vec<_>>(),
        "whole": hex(&whole),
        "hash": hex(hash.as_ref()),
        "root": hex(introduction.root.as_bytes()),
        "key_set_frame": hex(&introduction.key_set_frame),
        "kem_publics": [hex(public)],
    })
}

/// What Python made from the document alone, both sides of it.
#[test]
fn every_exchange_that_python_made_opens() {
    let text =
        std::fs::read_to_string(from_top("interop/python/sharing.json")).expect("it is there");
    let file: Value = serde_json::from_str(&text).expect("JSON");
    let seed = un(&file["signers"]["keys key"]["seed"]);
    let signer = SigningKey::from_seed(Secret::from_slice(&seed).expect("32 octets"));
    let (mut opened, mut by_token) = (0, 0);
    for case in file["cases"].as_array().expect("cases") {
        python_case(&file, case, &signer.public());
        opened += 1;
        by_token += usize::from(case["terminal"] == 0);
    }
    assert_eq!((opened, by_token), (22, 2));
    for introduction in file["introductions"].as_array().expect("introductions") {
        let whole = un(&introduction["whole"]);
        let read = keyfall_protocol::sharing::Introduction::decode(&whole).expect("ours");
        assert!(read.key_set().is_some());
    }
    for bundle in file["bundles"].as_array().expect("bundles") {
        let read = Bundle::decode(&un(&bundle["datagrams"][0])).expect("ours");
        assert_eq!(
            read.confirmations.len(),
            bundle["messages"].as_array().expect("some").len()
        );
    }
    let mut judged_later = 0;
    for entry in file["refused"].as_array().expect("refused") {
        let (name, datagram) = (
            entry["name"].as_str().expect("text"),
            un(&entry["datagram"]),
        );
        // A frame inside is judged as one from a carrier: by its signature.
        if ["COOKIE: ", "COMMAND: "]
            .iter()
            .any(|it| name.starts_with(it))
        {
            judged_later += 1;
            continue;
        }
        let read = Message::decode_datagram(&datagram);
        if name == "PART alone" {
            let Ok(Message::Part(part)) = read else {
                panic!("{name}: {read:?}");
            };
            assert_eq!(Assembly::new(1, 64).add((), &part, Tick::default()), None);
            continue;
        }
        assert!(read.is_err(), "{name}");
        assert!(Confirmation::decode(&datagram).is_err(), "{name}");
        assert!(Bundle::decode(&datagram).is_err(), "{name}");
    }
    assert_eq!(judged_later, 4);
}

fn python_case(file: &Value, case: &Value, signer: &VerifyingKey) {
    let name = &case["name"];
    let number = u8::try_from(case["suite"].as_u64().expect("a number")).expect("small");
    let suite = SharingSuite::from_number(number).expect("a suite");
    let kem = KemSuite::of(suite);
    let secret = |entry: &Value| {
        let ikm = Secret::from_slice(&un(&entry["ikm"])).expect("32 octets");
        let secret = KemSecret::from_seed(kem.expect("of this suite"), ikm);
        assert_eq!(secret.public().octets(), un(&entry["public"]), "{name}");
        secret
    };
    let server = kem.map(|_| secret(&file["kem"][number.to_string()]));
    let fresh = kem.map(|_| secret(&case["fresh"]));
    let by_token = case["terminal"] == 0;
    let wrap = if by_token {
        token(file).key()
    } else {
        key(&case["wrap_key"])
    };
    let whole = |entry: &Value| {
        let sent = entry["datagrams"].as_array().expect("some").iter();
        let sent: Vec<_> = sent.map(|it| (true, un(it))).collect();
        let mut made = messages(&sent);
        assert_eq!(made.len(), 1, "{name}");
        made.remove(0).message
    };
    let request = whole(&case["key_req"]);
    let asked = open_ask(&request, &wrap, server.as_ref());
    assert_eq!(asked.plain, un(&case["key_req"]["plain"]), "{name}");
    assert_eq!(asked.ask.time.get(), case["key_req"]["time"], "{name}");
    let made = asked.ask.held.len();
    assert_eq!(
        made,
        case["key_req"]["held"].as_array().expect("some").len()
    );
    let mut line = asked.inner.len();
    if suite == SharingSuite::Psk {
        line += 4;
    }
    assert!(line > 100, "{name}");
    if case["cookie"].is_object() {
        let answer = whole(&case["cookie"]);
        let first = whole(&case["first"]);
        let Ok(Message::Cookie { reference, .. }) = Message::decode(&answer) else {
            panic!("{name}: a COOKIE");
        };
        assert_eq!(reference, RequestHash::of(&first).reference(), "{name}");
    }
    let answer = whole(&case["key_dis"]);
    let given = open_grant(&answer, &request, &wrap, fresh.as_ref(), signer);
    assert_eq!(given.plain, un(&case["key_dis"]["plain"]), "{name}");
    let groups: Vec<_> = given.grant.keys.iter().map(entry_shown).collect();
    assert_eq!(Value::from(groups), case["key_dis"]["groups"], "{name}");
    // By a token the wrap key comes along (PROTOCOL 14.10).
    let package = given.grant.package.as_ref();
    assert_eq!(package.is_some(), by_token, "{name}");
    let before = package.map_or_else(|| wrap.duplicate(), |package| wrap_in(package));
    let mixed = given.grant.first.as_ref().map(|first| before.mix(first));
    let under = mixed.as_ref().unwrap_or(&wrap);
    assert_eq!(
        under.secret(),
        key(&case["ack"]["wrap_key"]).secret(),
        "{name}"
    );
    let Ok(Message::Ack { status, mac, .. }) = Message::decode(&whole(&case["ack"])) else {
        panic!("{name}: an ACK");
    };
    assert_eq!(status.number(), case["ack"]["status"], "{name}");
    let ack = AckKey::new(under, &request, &answer);
    assert!(ack.check(status, &given.hash, &mac), "{name}");
    let other = if status == AckStatus::All {
        AckStatus::OutOfBounds
    } else {
        AckStatus::All
    };
    assert!(!ack.check(other, &given.hash, &mac), "{name}");
    for entry in case["confirmations"].as_array().expect("some") {
        let read = Confirmation::decode(&un(&entry["datagrams"][0])).expect("ours");
        assert!(read.check(&wrap), "{name}");
    }
    // Split alike: the parts of both programs are the same.
    let parts = datagrams(&answer, None);
    assert_eq!(
        Value::from(all_hex(&parts)),
        case["key_dis"]["datagrams"],
        "{name}"
    );
}

/// The token that Python made, as it is typed.
fn token(file: &Value) -> Token {
    let entry = &file["tokens"][0];
    let typed = entry["text"].as_str().expect("text").to_lowercase();
    let token = Token::parse(&typed).expect("a token");
    let root = un(&entry["root"]).try_into().expect("32 octets");
    assert!(token.is_of(&VerifyingKey::new(root)));
    assert_eq!(hex(&token.key().secret().expose()[..]), entry["key"]);
    token
}

fn key(entry: &Value) -> WrapKey {
    let kid = u32::try_from(entry["kid"].as_u64().expect("a number")).expect("32 bits");
    let terminal = TerminalNumber::new(kid / 4).expect("not 0");
    let generation = u32::try_from(entry["generation"].as_u64().expect("a number"));
    let generation = Generation::new(generation.expect("32 bits")).expect("in range");
    let octets = Secret::from_slice(&un(&entry["octets"])).expect("32 octets");
    WrapKey::new(terminal, generation, octets)
}

fn un(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("text").as_bytes();
    let octet = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("hexadecimal");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    text.chunks(2).map(octet).collect()
}
