//! `keyfall inspect`: every message of the wire, with and without a terminal's keys.

use keyfall_plane::{SrtpSender, SrtpStream, Stretch};
use keyfall_protocol::command::{Body, OrderKind};
use keyfall_protocol::enrolment::EnrolmentCode;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber};
use keyfall_protocol::keys::{MasterKey, Secret, SrtpSuite};
use keyfall_protocol::sharing::message::{Message, marked};
use keyfall_protocol::terminal::{Input, Output, Terminal};
use keyfall_terminal::OsRandom;
use keyfall_terminal::key_store::KeyStore;
use serde_json::Value;

use crate::fleet::{Carrier, Fleet, GROUP};
use crate::ran::{keyfall, keyfall_with};

/// Each message by its name and fields, from raw octets and from hexadecimal.
#[test]
fn every_frame_is_readable() {
    let fleet = Fleet::new();
    let carrier = Carrier::new();
    let package = fleet.package(1, &carrier.address);
    let halt = fleet.halt(5, 1, 60);
    let signed = |body| fleet.keys.sign(&fleet.command(body));
    let frames = [
        ("TIME", fleet.time(), "error at most"),
        ("RENEW", fleet.renew(GROUP, 70_000), "master key of group 7"),
        ("KEYDIST", fleet.key_dist(GROUP, 1, &[1, 2]), "handle"),
        ("STOP", signed(Body::Stop(halt)), "transaction"),
        ("START", signed(Body::Start(halt)), "deadline"),
        (
            "KEYSET",
            package.identity.key_set_frame.clone(),
            "listed key",
        ),
        ("SRTP", srtp(false), "session"),
        ("SRTCP", srtp(true), "session"),
    ];
    for (kind, octets, words) in &frames {
        let raw = keyfall_with(["--json", "inspect"], octets).document();
        assert_eq!(raw["messages"][0]["kind"], *kind);
        assert_eq!(raw["messages"][0]["octets"], octets.len());
        let people = keyfall_with(["inspect", "-"], hex(octets).as_bytes()).stdout;
        assert!(
            people.starts_with(kind) && people.contains(words),
            "{people}"
        );
    }
    let code = EnrolmentCode::random(&mut OsRandom);
    let sealed = package.seal_under(&code, &mut OsRandom);
    let shown = keyfall_with(["inspect"], &sealed).stdout;
    assert!(
        shown.starts_with("enrolment package") && shown.contains("under a code"),
        "{shown}"
    );

    // A capture: one on each line, noise among them.
    let mut capture: String = frames
        .iter()
        .map(|(_, octets, _)| hex(octets) + "\n")
        .collect();
    capture.push_str("00ff\n");
    let shown = keyfall_with(["--json", "inspect"], capture.as_bytes()).document();
    let kinds: Vec<_> = shown["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["kind"])
        .collect();
    assert_eq!(
        kinds,
        [
            "TIME", "RENEW", "KEYDIST", "STOP", "START", "KEYSET", "SRTP", "SRTCP", "unknown"
        ]
    );
    // A dump of one message, wrapped.
    let dump = hex(&frames[2].1);
    let wrapped = dump.as_bytes().chunks(32).collect::<Vec<_>>().join(&b'\n');
    let shown = keyfall_with(["--json", "inspect"], &wrapped).document();
    assert_eq!(shown["messages"][0]["kind"], "KEYDIST");
}

/// Every command of `interop/vectors`, each under its own name and without a key in it.
#[test]
fn every_published_command_is_readable() {
    let published = vectors("commands.json");
    let mut capture = String::new();
    let messages = published["messages"].as_array().unwrap();
    for message in messages {
        capture += message["frame"].as_str().unwrap();
        capture.push('\n');
    }
    let shown = keyfall_with(["--json", "inspect"], capture.as_bytes()).document();
    let shown = shown["messages"].as_array().unwrap();
    assert_eq!(shown.len(), messages.len());
    for (shown, message) in shown.iter().zip(messages) {
        let name = message["name"].as_str().unwrap();
        let kind = name.split([' ', ',']).next().unwrap();
        assert_eq!(shown["kind"], kind, "{name}");
        let fields = shown["fields"].as_array().unwrap();
        let signers = fields.iter().filter(|field| field["name"] == "signer");
        let signatures = message["signatures"].as_array().unwrap();
        assert_eq!(signers.count(), signatures.len(), "{name}");
    }
    let fields = |wanted: &str| {
        let place = |message: &Value| message["name"] == wanted;
        let frame = messages.iter().find(|it| place(it)).unwrap();
        let hex = frame["frame"].as_str().unwrap();
        keyfall_with(["inspect"], hex.as_bytes()).stdout
    };
    let excluded = fields("EXCLUDE");
    assert!(
        excluded.contains("7 goes on from epoch 22774400 to"),
        "{excluded}"
    );
    let stolen = fields("KEYSET with stolen keys");
    assert!(stolen.contains("stolen key"), "{stolen}");
    assert!(fields("DELETE").contains("SHA-256"));
    let notify = fields("NOTIFY of two groups");
    assert!(
        notify.contains("2000 ms") && notify.contains("8 at epoch 22774400 generation 13"),
        "{notify}"
    );
}

/// what members answer to STOP and START.
#[test]
fn a_confirmation_is_readable() {
    let published = vectors("confirmations.json");
    let kinds = [
        ("confirmations", 0, "STOP-ACK"),
        ("confirmations", 1, "START-ACK"),
        ("bundles", 0, "BUNDLE"),
    ];
    for (list, place, kind) in kinds {
        let message = &published[list][place];
        let datagram = message["datagram"].as_str().unwrap();
        let shown = keyfall_with(["inspect"], datagram.as_bytes()).stdout;
        assert!(shown.starts_with(kind), "{shown}");
        let transaction = &published["confirmations"][0]["transaction"];
        assert!(shown.contains(&transaction.to_string()), "{shown}");
    }
}

/// what anybody on the path reads of a key search, the record of each side in it.
#[test]
fn a_key_search_is_readable() {
    let published = vectors("search.json");
    let search = &published["searches"][0];
    for (field, kind, record) in [
        ("probe", "PROBE", "10.1.0.0/16"),
        ("answer", "ANSWER", "10.2.0.0/16"),
    ] {
        let datagram = search[field].as_str().unwrap();
        let shown = keyfall_with(["inspect"], datagram.as_bytes()).stdout;
        assert!(shown.starts_with(kind), "{shown}");
        for part in ["RECORD", record, "34000000"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }
}

/// a receipt as text and as octets; that it is genuine only the server can say.
#[test]
fn a_receipt_is_readable() {
    let published = vectors("receipts.json");
    let receipt = &published["receipts"][0];
    for form in ["text", "octets"] {
        let text = receipt[form].as_str().unwrap().to_owned() + "\n";
        let shown = keyfall_with(["inspect"], text.as_bytes()).stdout;
        assert!(
            shown.starts_with("receipt") && shown.contains("terminal         2"),
            "{shown}"
        );
        assert!(shown.contains(receipt["hash"].as_str().unwrap()), "{shown}");
        assert!(shown.contains("keyfall admin receipt"), "{shown}");
    }
}

pub(crate) fn vectors(name: &str) -> Value {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = dir.join("../../interop/vectors").join(name);
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn what_is_none_of_ours_is_refused_in_one_sentence() {
    let fleet = Fleet::new();
    let mut cut = fleet.time();
    cut.pop();
    for octets in [&b"hello, world"[..], &[0xff; 300], &cut, &[0; 2000]] {
        keyfall_with(["inspect"], octets).refuses(1, "KF-3003", "no command");
    }
    keyfall_with(["inspect"], b"").refuses(1, "KF-3003", "stdin is empty");
    keyfall(["inspect", "/nowhere"]).refuses(1, "KF-3003", "cannot read /nowhere");
    keyfall(["inspect", "--suite", "x"]).refuses(2, "KF-3001", "not an SRTP suite");
    let stretch = ["inspect", "--rederive-after", "1000"];
    keyfall(stretch).refuses(2, "KF-3001", "power of two");
    keyfall(["inspect", "--dir", "/nowhere"]).refuses(1, "KF-3101", "enrol this terminal first");
}

/// who is addressed opens it, and nobody else does. No key is shown.
#[test]
fn terminals_keys_say_whether_it_opens() {
    let fleet = Fleet::new();
    let carrier = Carrier::new();
    let top = tempfile::tempdir().unwrap();
    let (alice, carol) = (top.path().join("alice"), top.path().join("carol"));
    fleet.enrol(&alice, 1, &carrier.address);
    fleet.enrol(&carol, 3, &carrier.address);
    let key_dist = fleet.key_dist(GROUP, 5, &[1, 2]);
    hears(&alice, &key_dist);
    let inspect = |dir: &std::path::Path, octets: &[u8]| {
        let dir = dir.to_str().unwrap();
        let shown = keyfall_with(["--json", "inspect", "--dir", dir], octets).document();
        let terminal = &shown["messages"][0]["terminal"];
        let signature = terminal["signature"].as_str().unwrap_or("none").to_owned();
        (signature, terminal["sentence"].as_str().unwrap().to_owned())
    };
    let (signature, sentence) = inspect(&alice, &key_dist);
    let fingerprint = master(&fleet, 5).fingerprint();
    assert_eq!(signature, "valid");
    assert!(sentence.starts_with("opens: group 7 epoch "), "{sentence}");
    assert!(
        sentence.ends_with(&format!("generation 5 fingerprint {fingerprint}")),
        "{sentence}"
    );
    let refused = (
        "valid".to_owned(),
        "not addressed to this terminal".to_owned(),
    );
    assert_eq!(inspect(&carol, &key_dist), refused);
    // The same to one terminal alone, over UDP.
    let command = marked(&Message::Command { frame: &key_dist }.encode());
    let words = ["--json", "inspect", "--dir", alice.to_str().unwrap()];
    let shown = keyfall_with(words, &command).document();
    let inside = &shown["messages"][0]["inside"];
    assert_eq!(inside["kind"], "KEYDIST");
    assert_eq!(inside["terminal"]["sentence"], sentence);
    let lock = fleet.order(OrderKind::Lock, 1, Some(9));
    let opened = (
        "valid".to_owned(),
        "opens: LOCK version 9 for terminal 1".to_owned(),
    );
    assert_eq!(inspect(&alice, &lock), opened);
    assert_eq!(inspect(&carol, &lock), refused);
    let stranger = Fleet::other().time();
    assert_eq!(inspect(&alice, &stranger).0, "unknown signer");
    let mut forged = fleet.time();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(inspect(&alice, &forged).0, "bad");

    let key = master(&fleet, 6);
    let mut packet = srtp_of(&key);
    assert!(
        inspect(&alice, &packet)
            .1
            .starts_with("opens: group 7 epoch")
    );
    assert!(inspect(&carol, &packet).1.starts_with("does not open"));
    packet[20] ^= 1;
    assert!(inspect(&alice, &packet).1.starts_with("does not open"));
}

/// The terminal in `dir` obeys a frame while nobody runs it.
fn hears(dir: &std::path::Path, frame: &[u8]) {
    let (mut store, opened) = KeyStore::open(dir).unwrap();
    let user = opened.user.unwrap();
    let mut terminal = Terminal::restore(&opened.device, Some(&user), Default::default()).unwrap();
    terminal
        .handle_input(Default::default(), &mut OsRandom, Input::Datagram(frame))
        .unwrap();
    let Output::Store(_, snapshot) = terminal.poll_output() else {
        panic!("not obeyed");
    };
    let user = snapshot.user.as_ref().map(|user| &user[..]);
    store.commit(&mut OsRandom, &snapshot.device, user).unwrap();
}

fn master(fleet: &Fleet, generation: u32) -> MasterKey {
    let group = GroupNumber::new(GROUP).unwrap();
    let key = Secret::init_with(|octets| octets.fill(77));
    let fresh = MasterKey::new(
        group,
        KeyEpoch::fresh(None, fleet.now),
        Generation::ZERO,
        key,
    );
    fresh.renew_to(Generation::new(generation).unwrap())
}

fn srtp(rtcp: bool) -> Vec<u8> {
    let key = master(&Fleet::new(), 0);
    if !rtcp {
        return srtp_of(&key);
    }
    let mut packet = vec![0x80, 201, 0, 1, 0, 0, 0, 9];
    sender().protect_rtcp(&key, &mut packet).unwrap();
    packet
}

fn srtp_of(key: &MasterKey) -> Vec<u8> {
    let mut packet = vec![0x80, 11, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9];
    packet.extend([42; 160]);
    sender().protect_rtp(key, &mut packet).unwrap();
    packet
}

fn sender() -> SrtpSender {
    let stream = SrtpStream {
        suite: SrtpSuite::AeadAes256Gcm,
        sender: TerminalNumber::new(2).unwrap(),
        session: SessionId::new([6; 6]),
        ssrc: 9,
    };
    SrtpSender::new(stream, Stretch::default())
}

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
