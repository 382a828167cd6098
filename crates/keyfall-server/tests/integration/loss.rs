//! The loss of a terminal, as a server serves it: exclusion, erase orders, receipts, exposure.

use keyfall_protocol::command::{
    Body, Command, OrderKind, SigningKey, Unverified, VerifyingKey, sign_together,
};
use keyfall_protocol::ids::KeyName;
use keyfall_protocol::receipt::{Receipt, frame_hash};
use keyfall_protocol::server::Founding;
use keyfall_server::{Directory, key_file};
use serde_json::{Value, json};

use crate::orders::{add, unhex};
use crate::served::{Home, Served, frames_until};

pub(crate) fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

pub(crate) fn erase_key(home: &Home, number: u8) -> SigningKey {
    let directory = Directory::open(&home.dir).expect("opens");
    key_file::read(&directory.erase_key(number)).expect("a key")
}

/// Drafts, signs and issues.
fn issue(server: &Served, order: Value, keys: &[&SigningKey]) -> (u16, Value, Vec<u8>) {
    let draft = server.order("/v1/erase/draft", order);
    let command = Command::decode(&unhex(&draft["command"])).expect("a command");
    let frame = sign_together(&command, keys);
    let order = json!({"frame": hex(&frame), "why": {"reason": "lost", "ticket": "T-9"}});
    let (status, answer) = server.post("/v1/erase/issue", &order.to_string());
    (status, answer, frame)
}

fn body_of(frame: &[u8]) -> Body {
    let frame = Unverified::decode(frame).expect("a command");
    frame.command().body.clone()
}

/// REQUIREMENTS R-007, W-01: one order shuts a terminal out of every group, for good, and a restart
/// forgets none of it.
#[test]
fn an_exclusion_is_heard_with_fresh_keys_for_the_others_only() {
    let home = Home::founded();
    let server = home.serve();
    let (alice, bob) = (add(&server, "alice"), add(&server, "bob"));
    for group in ["ops", "all"] {
        let order = json!({"name": group, "members": ["alice", "bob"], "period": 3600});
        server.order("/v1/groups", order);
    }
    server.order("/v1/groups", json!({"name": "rest", "members": ["bob"]}));
    let would = server.order(
        "/v1/exclude",
        json!({"terminals": ["alice"], "dry_run": true}),
    );
    assert_eq!(
        server.report("/v1/terminals/alice")["terminal"].get("excluded_at"),
        None
    );

    let mut excluded = Value::Null;
    let order = json!({"terminals": ["1"], "why": {"reason": "stolen", "ticket": "T-7"}});
    let exclude = || excluded = server.order("/v1/exclude", order);
    let (mut notices, mut fresh) = (Vec::new(), Vec::new());
    frames_until(home.carrier, exclude, |frame| {
        match body_of(frame) {
            Body::Exclude(exclude) => notices.push(exclude),
            Body::KeyDist(dist) if !notices.is_empty() => fresh.push((dist, frame.len())),
            Body::KeyDist(_)
            | Body::Time(_)
            | Body::Renew(_)
            | Body::Order(_)
            | Body::KeySet(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => {}
        }
        fresh.len() == 2
    });
    assert_eq!(notices[0].terminals, [alice.identity.number]);
    for (dist, _) in &fresh {
        let (group, fresh) = (
            dist.open(&bob.wrap).expect("bob is in it"),
            &notices[0].groups,
        );
        let epoch = fresh
            .iter()
            .find(|it| it.group == group.key.group())
            .expect("listed");
        assert_eq!(group.key.epoch(), epoch.new);
        assert!(epoch.new > epoch.old);
        assert!(dist.open(&alice.wrap).is_none(), "alice is not");
    }
    // What it says before is what it does.
    for field in ["groups", "members"] {
        let groups = |of: &Value| of[field].as_array().map_or(0, Vec::len);
        assert_eq!(groups(&would), groups(&excluded), "{would} {excluded}");
    }
    assert_eq!(would["reach"]["frames"], excluded["reach"]["frames"]);
    assert_eq!(would["reach"]["octets"], excluded["reach"]["octets"]);
    assert_eq!(excluded["reach"]["frames"], 3);
    assert_eq!(excluded["members"], 1);
    assert!(excluded["reach"]["link_seconds"].as_f64().expect("seconds") > 0.0);

    let shown = server.report("/v1/terminals/alice");
    let at = shown["terminal"]["excluded_at"].clone();
    assert!(at.is_u64() && shown["groups"] == json!([]), "{shown}");
    let entries = server.report("/v1/audit?last=1");
    let entry = &entries["entries"][0];
    assert_eq!(
        (&entry["reason"], &entry["ticket"]),
        (&json!("stolen"), &json!("T-7"))
    );
    assert_eq!(
        (&entry["action"], &entry["subject"]),
        (&json!("exclude"), &json!("alice"))
    );
    for (path, order) in [
        ("/v1/exclude", json!({"terminals": ["alice"]})),
        ("/v1/groups/rest/members", json!({"terminal": "alice"})),
        ("/v1/groups", json!({"name": "new", "members": ["alice"]})),
    ] {
        let (status, problem) = server.post(path, &order.to_string());
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("KF-3319")),
            "{problem}"
        );
    }
    let before = [
        server.report("/v1/keys")["keys"].clone(),
        server.report("/v1/groups"),
    ];
    server.end();

    let server = home.serve();
    let after = [
        server.report("/v1/keys")["keys"].clone(),
        server.report("/v1/groups"),
    ];
    assert_eq!(before, after);
    assert_eq!(
        server.report("/v1/terminals/alice")["terminal"]["excluded_at"],
        at
    );
    // And it is still said.
    frames_until(
        home.carrier,
        || {},
        |frame| matches!(body_of(frame), Body::Exclude(_)),
    );
}

/// A group that everybody left stays, and takes members again.
#[test]
fn a_group_may_become_empty() {
    let home = Home::founded();
    let server = home.serve();
    let alice = add(&server, "alice");
    server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
    let removed = server.order(
        "/v1/groups/ops/members/remove",
        json!({"terminal": "alice"}),
    );
    assert_eq!(removed["epoch"]["members"], 0);
    assert!(removed["epoch"]["new_epoch"].as_u64() > removed["epoch"]["old_epoch"].as_u64());
    let (status, problem) = server.post(
        "/v1/groups/ops/members/remove",
        &json!({"terminal": "alice"}).to_string(),
    );
    assert_eq!((status, &problem["code"]), (409, &json!("KF-3317")));
    server.end();
    let server = home.serve();
    assert_eq!(server.report("/v1/groups/ops")["members"], json!([]));
    let rekeyed = server.order("/v1/groups/ops/rekey", json!({}));
    assert_eq!(rekeyed["epoch"]["old_epoch"], removed["epoch"]["new_epoch"]);
    let added = || {
        server.order("/v1/groups/ops/members", json!({"terminal": "alice"}));
    };
    let frames = frames_until(home.carrier, added, |frame| {
        matches!(body_of(frame), Body::KeyDist(_))
    });
    let Body::KeyDist(dist) = body_of(frames.last().expect("frames")) else {
        unreachable!("it was waited for")
    };
    assert!(dist.open(&alice.wrap).is_some());
}

/// REQUIREMENTS: the erase key signs elsewhere, the server repeats, a receipt
/// proves.
#[test]
fn a_deletion_is_sent_until_a_receipt_proves_it() {
    let home = Home::founded();
    let server = home.serve();
    let (alice, bob) = (add(&server, "alice"), add(&server, "bob"));
    let erase = erase_key(&home, 1);
    let mut issued = (0, Value::Null, Vec::new());
    let order = json!({"terminal": "alice", "kind": "delete", "receipt": true});
    let frames = frames_until(
        home.carrier,
        || issued = issue(&server, order, &[&erase]),
        |frame| matches!(body_of(frame), Body::Order(_)),
    );
    let (status, answer, frame) = issued;
    assert_eq!(
        (status, &answer["kind"]),
        (200, &json!("delete")),
        "{answer}"
    );
    assert_eq!(answer["reach"]["octets"], frame.len());
    assert_eq!(frames.last().expect("frames"), &frame);
    let Body::Order(sealed) = body_of(&frame) else {
        unreachable!("it was waited for")
    };
    let contents = sealed.open(&alice.obey).expect("for alice");
    assert_eq!(
        (contents.kind, contents.receipt_wanted),
        (OrderKind::Delete, true)
    );
    assert!(sealed.open(&bob.obey).is_none());

    let state =
        |server: &Served| server.report("/v1/terminals/alice")["terminal"]["erasure"].clone();
    assert_eq!(state(&server).get("proved_at"), None, "sent is not proved");
    let forged = Receipt::make(
        alice.identity.number,
        frame_hash(&frame),
        &bob_as(&alice, &bob),
    );
    let true_one = Receipt::make(alice.identity.number, frame_hash(&frame), &alice.obey);
    let about_nothing = Receipt::make(alice.identity.number, [7; 32], &alice.obey);
    let take = |receipt: &Receipt| {
        let order = json!({"receipt": hex(&receipt.encode()), "why": {"ticket": "T-9"}});
        server.post("/v1/receipts", &order.to_string())
    };
    for bad in [&forged, &about_nothing] {
        assert_eq!(take(bad).1["code"], "KF-3323");
    }
    let (status, taken) = take(&true_one);
    assert_eq!((status, &taken["kind"]), (200, &json!("delete")), "{taken}");
    assert_eq!(take(&true_one).1["code"], "KF-3324");
    let proved = state(&server);
    assert!(proved["proved_at"].is_u64(), "{proved}");
    server.end();
    let server = home.serve();
    assert_eq!(state(&server), proved);
    let exposure = server.report("/v1/terminals/alice/exposure");
    assert_eq!(exposure["deletion"], proved);
    let log = server.report("/v1/audit");
    let entries = log["entries"].as_array().expect("entries");
    let of = |action: &str| {
        entries
            .iter()
            .filter(|entry| entry["action"] == action)
            .count()
    };
    assert_eq!((of("delete-keys"), of("receipt")), (1, 4));
}

/// The number of one with the key of the other.
fn bob_as(
    alice: &keyfall_protocol::enrolment::EnrolmentPackage,
    bob: &keyfall_protocol::enrolment::EnrolmentPackage,
) -> keyfall_protocol::keys::ObeyKey {
    keyfall_protocol::keys::ObeyKey::new(alice.identity.number, bob.obey.secret().duplicate())
}

/// REQUIREMENTS W-17: m of the erase keys, and nobody else's.
#[test]
fn an_erase_order_needs_as_many_listed_keys_as_the_fleet_asks_for() {
    let mut founding = Founding::default();
    founding.limits.erase_signatures = 2;
    let home = Home::with_erase_keys(founding, 3);
    let server = home.serve();
    add(&server, "alice");
    let keys = [1, 2, 3].map(|number| erase_key(&home, number));
    let directory = Directory::open(&home.dir).expect("opens");
    let root = key_file::read(&directory.root_key()).expect("a key");
    let order = || json!({"terminal": "alice", "kind": "lock"});
    let draft = server.order("/v1/erase/draft", order());
    assert_eq!(draft["signatures"], 2);
    let names: Vec<_> = keys
        .iter()
        .map(|key| key.public().name().to_string())
        .collect();
    assert_eq!(draft["erase_keys"], json!(names));
    for (signers, code) in [
        (vec![&keys[0]], "KF-3321"),
        (vec![&keys[0], &root], "KF-3321"),
        (vec![&root], "KF-3321"),
    ] {
        let (status, problem, _) = issue(&server, order(), &signers);
        assert_eq!((status, &problem["code"]), (403, &json!(code)), "{problem}");
    }
    let (status, answer, frame) = issue(&server, order(), &[&keys[2], &keys[0]]);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["reach"]["octets"], draft["reach"]["octets"]);
    let listed = |name: KeyName| -> Option<VerifyingKey> {
        keys.iter()
            .map(SigningKey::public)
            .find(|key| key.name() == name)
    };
    let read = Unverified::decode(&frame).expect("a frame");
    assert_eq!(read.verify_with(listed).expect("signed").signers().len(), 2);
    let terminal = server.report("/v1/terminals/alice")["terminal"].clone();
    assert_eq!(terminal["lock"]["kind"], "lock");
    for (body, status, code) in [
        (json!({"frame": "zz"}), 400, "KF-3301"),
        (json!({"frame": "00"}), 409, "KF-3322"),
        (json!({"frame": hex(&frame)}), 409, "KF-3322"),
    ] {
        let (got, problem) = server.post("/v1/erase/issue", &body.to_string());
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{problem}");
    }
    let delete = json!({"terminal": "alice", "kind": "init", "receipt": true});
    assert_eq!(server.post("/v1/erase/draft", &delete.to_string()).0, 400);
}

/// REQUIREMENTS W-18: ten an hour, unless it is told again; LOCK is not counted.
#[test]
fn a_mass_deletion_meets_the_servers_own_limit() {
    let home = Home::founded();
    let server = home.serve();
    let erase = erase_key(&home, 1);
    add(&server, "alice");
    let order = |kind: &str| json!({"terminal": "1", "kind": kind});
    for _ in 0..10 {
        assert_eq!(issue(&server, order("delete"), &[&erase]).0, 200);
    }
    let (status, problem, frame) = issue(&server, order("init"), &[&erase]);
    assert_eq!((status, &problem["code"]), (403, &json!("KF-3328")));
    let sentence = problem["sentence"].as_str().expect("text");
    assert!(sentence.contains("no security boundary"), "{sentence}");
    let draft = server.order("/v1/erase/draft", order("delete"));
    assert_eq!(draft["limit"], json!({"an_hour": 10, "issued": 10}));
    assert_eq!(issue(&server, order("lock"), &[&erase]).0, 200);
    let log = server.report("/v1/audit?last=2");
    let refused = &log["entries"][0];
    assert_eq!(
        (&refused["action"], &refused["reason"]),
        (&json!("initialize"), &json!("lost"))
    );
    server.order(
        "/v1/erase/issue",
        json!({"frame": hex(&frame), "force": true}),
    );
}

/// REQUIREMENTS R-046: one device alone, beyond the others, and its offset is shown and kept.
#[test]
fn one_device_is_renewed_beyond_the_others() {
    let home = Home::founded();
    let server = home.serve();
    let (alice, _) = (add(&server, "alice"), add(&server, "bob"));
    let dry = server.order("/v1/terminals/alice/renew", json!({"dry_run": true}));
    let renewed = server.order("/v1/terminals/1/renew", json!({}));
    assert_eq!(
        (&dry["generation"], &renewed["generation"]),
        (&json!(1), &json!(1))
    );
    let keys = |server: &Served| server.report("/v1/terminals/alice")["keys"][1].clone();
    let wrap = keys(&server);
    let next = alice.wrap.renew();
    assert_eq!(
        (&wrap["offset"], &wrap["fingerprint"]),
        (&json!(1), &json!(next.fingerprint().to_string()))
    );
    assert_eq!(
        server.report("/v1/terminals/bob")["keys"][1].get("offset"),
        None
    );
    server.end();
    assert_eq!(keys(&home.serve()), wrap);
}

/// FORMATS section 3.1: what a thief has, in the terms of the theft matrix.
#[test]
fn exposure_says_from_when_and_until_when() {
    let home = Home::founded();
    let server = home.serve();
    for name in ["alice", "bob"] {
        add(&server, name);
    }
    let order = json!({"name": "ops", "members": ["alice", "bob"], "period": 3600});
    server.order("/v1/groups", order);
    let exposed = server.report("/v1/terminals/alice/exposure");
    let keys = exposed["keys"].as_array().expect("keys");
    let kinds: Vec<_> = keys.iter().map(|key| &key["kind"]).collect();
    assert_eq!(kinds, ["obey", "wrap", "master"]);
    assert!(keys[2].get("until").is_none() && keys[2]["lease_end"].is_u64());
    let notes = exposed["notes"].to_string();
    assert!(notes.contains("only exclusion ends it"), "{notes}");
    assert!(notes.contains("no deletion was ordered"), "{notes}");
    let added = server.report("/v1/terminals/alice")["terminal"]["added_at"].clone();
    // Every second is another one for the clock of epochs.
    let later = std::time::Instant::now() + std::time::Duration::from_millis(1_100);
    while std::time::Instant::now() < later {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    server.order("/v1/exclude", json!({"terminals": ["alice"]}));
    let exposed = server.report("/v1/terminals/alice/exposure");
    let keys = exposed["keys"].as_array().expect("keys");
    assert_eq!(keys[2]["until"], exposed["excluded_at"]);
    assert!(keys[2]["from"].as_u64() >= added.as_u64());
    assert!(keys[2]["from"].as_u64() < keys[2]["until"].as_u64());
    assert!(
        exposed["notes"]
            .to_string()
            .contains("nothing of the new epochs opens")
    );
    assert_eq!(
        server.get("/v1/terminals/nobody/exposure").1["code"],
        "KF-3306"
    );
    assert_eq!(server.get("/v1/terminals/alice/exposure?at=often").0, 400);
    let past = server.report("/v1/terminals/alice/exposure?at=1");
    assert_eq!(past["at"], 1);
}
