//! What operators order is stored, audited, and on the air.

use std::path::Path;

use keyfall_protocol::command::{Body, Unverified};
use keyfall_protocol::enrolment::{
    EnrolmentCode, EnrolmentPackage, RequestKey, SealedPackage, request_text,
};
use keyfall_protocol::keys::Secret;
use serde_json::{Value, json};

use crate::served::{Home, Served, frames_until};

pub(crate) fn add(server: &Served, name: &str) -> EnrolmentPackage {
    let added = server.order("/v1/terminals", json!({"name": name}));
    let code = EnrolmentCode::parse(added["code"].as_str().expect("a code")).expect("a code");
    let sealed = SealedPackage::decode(&unhex(&added["package"])).expect("a package");
    sealed.open_under(&code).expect("the code opens it")
}

pub(crate) fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().expect("text").as_bytes();
    let octet = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    text.chunks(2).map(octet).collect()
}

/// REQUIREMENTS: enrol, distribute and renew over a real carrier.
#[test]
fn orders_are_heard_on_the_carrier_and_open_with_the_package() {
    let home = Home::founded();
    let server = home.serve();
    let alice = add(&server, "alice");
    let bob = add(&server, "bob");
    let root = alice.identity.root;
    assert_eq!(alice.identity.carriers, [home.carrier.to_string()]);

    let mut group = Value::Null;
    let order = json!({"name": "ops", "members": ["alice", "2"], "period": 3600,
                       "why": {"reason": "first", "ticket": "T-1"}});
    let create = || group = server.order("/v1/groups", order);
    let frames = frames_until(home.carrier, create, |frame| {
        matches!(body_of(frame), Body::KeyDist(_))
    });
    let Body::KeyDist(distribution) = body_of(frames.last().expect("frames")) else {
        unreachable!("it was waited for")
    };
    assert_eq!(group["number"], 1);
    assert_eq!(
        group["distribution"]["octets"],
        frames.last().expect("frames").len()
    );
    assert_eq!(group["distribution"]["recipients"], 2);
    let for_alice = distribution.open(&alice.wrap).expect("alice is in it");
    let for_bob = distribution.open(&bob.wrap).expect("bob is in it");
    let shown = server.report("/v1/groups/ops");
    let fingerprint = &shown["group"]["key"]["fingerprint"];
    assert_eq!(*fingerprint, for_alice.key.fingerprint().to_string());
    assert_eq!(*fingerprint, for_bob.key.fingerprint().to_string());

    let mut renewed = Value::Null;
    let renew = || renewed = server.order("/v1/groups/1/renew", json!({}));
    let frames = frames_until(home.carrier, renew, |frame| match body_of(frame) {
        Body::Renew(renew) => renew.entries[0].kid == for_alice.key.kid(),
        Body::Time(_)
        | Body::KeyDist(_)
        | Body::Order(_)
        | Body::Exclude(_)
        | Body::KeySet(_)
        | Body::Stop(_)
        | Body::Start(_)
        | Body::Notify(_) => false,
    });
    assert_eq!(renewed["octets"], frames.last().expect("frames").len());
    assert_eq!(renewed["generation"], 1);
    assert_eq!(renewed["members"], 2);
    let shown = server.report("/v1/groups/ops");
    let next = for_alice.key.renew();
    assert_eq!(
        shown["group"]["key"]["fingerprint"],
        next.fingerprint().to_string()
    );
    for frame in frames
        .iter()
        .filter(|frame| matches!(body_of(frame), Body::KeySet(_)))
    {
        assert!(
            Unverified::decode(frame)
                .expect("ours")
                .verify(&root)
                .is_some()
        );
    }
}

fn body_of(frame: &[u8]) -> Body {
    let frame = Unverified::decode(frame).expect("a command");
    frame.command().body.clone()
}

/// REQUIREMENTS R-035: sealed to a key that only the terminal has.
#[test]
fn a_package_for_a_request_key_has_no_code() {
    let home = Home::founded();
    let server = home.serve();
    let request = RequestKey::from_seed(Secret::from_slice(&[7; 32]).expect("32 octets"));
    let order = json!({"name": "carol", "request": request_text(&request.public())});
    let added = server.order("/v1/terminals", order);
    assert_eq!(added.get("code"), None);
    let sealed = SealedPackage::decode(&unhex(&added["package"])).expect("a package");
    let package = sealed.open_with(&request).expect("the key opens it");
    assert_eq!(package.identity.name, "carol");
}

/// A newcomer's group is renewed first, and a dry run changes nothing.
#[test]
fn a_newcomer_begins_with_the_next_generation() {
    let home = Home::founded();
    let server = home.serve();
    for name in ["alice", "bob"] {
        add(&server, name);
    }
    server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
    let before = server.report("/v1/keys");
    let dry = server.order("/v1/groups/ops/renew", json!({"dry_run": true}));
    assert_eq!(
        (&dry["dry_run"], &dry["generation"]),
        (&json!(true), &json!(1))
    );
    let dry = server.order("/v1/devices/renew", json!({"dry_run": true}));
    assert_eq!(
        (&dry["terminals"], &dry["distributions"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(
        server.report("/v1/keys"),
        before,
        "a dry run changes nothing"
    );

    let added = server.order("/v1/groups/ops/members", json!({"terminal": "bob"}));
    assert_eq!(
        (&added["generation"], &added["members"]),
        (&json!(1), &json!(2))
    );
    let renewed = server.order("/v1/devices/renew", json!({}));
    assert_eq!(
        (&renewed["generation"], &renewed["dry_run"]),
        (&json!(1), &json!(false))
    );
    let keys = server.report("/v1/keys");
    assert_eq!(keys["fleet_generation"], 1);
    let wraps = keys["keys"].as_array().expect("keys").iter();
    for key in wraps.filter(|key| key["kind"] == "wrap") {
        assert_eq!((&key["rank"], &key["generation"]), (&json!(1), &json!(1)));
    }
}

/// INVARIANT 2: what was answered is there after any restart.
#[test]
fn a_restart_keeps_everything() {
    let home = Home::founded();
    let server = home.serve();
    for name in ["alice", "bob", "carol"] {
        add(&server, name);
    }
    let order = json!({"name": "ops", "members": ["alice", "bob"], "period": 600, "step": 2});
    server.order("/v1/groups", order);
    server.order("/v1/groups/ops/renew", json!({"why": {"ticket": "T-9"}}));
    server.order("/v1/devices/renew", json!({}));
    let reports = [
        "/v1/keys",
        "/v1/terminals",
        "/v1/groups/ops",
        "/v1/terminals/carol",
    ];
    let before = reports.map(|path| server.report(path));
    let journal = server.report("/v1/status")["journal"]["entries"].clone();
    server.end();
    assert!(
        !Path::new(&home.file("admin.sock")).exists(),
        "it takes its socket away"
    );

    let server = home.serve();
    assert_eq!(reports.map(|path| server.report(path)), before);
    let status = server.report("/v1/status");
    let expected = journal.as_u64().expect("a number") + 1;
    assert_eq!(
        status["journal"]["entries"], expected,
        "the sequence numbers of this start"
    );
    assert_eq!(status["warnings"], json!([]));
    assert_eq!(server.report("/v1/audit/verify")["whole"], true);
}

/// FORMATS section 11, on what is really standing.
#[test]
fn the_carousel_report_predicts_and_claims_nothing() {
    let home = Home::founded();
    let server = home.serve();
    add(&server, "alice");
    server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
    let report = server.report("/v1/carousel?loss=0.5");
    assert_eq!(
        (&report["turns"], &report["loss"]),
        (&json!(20), &json!(0.5))
    );
    let classes = report["classes"].as_array().expect("classes");
    let items: Vec<_> = classes
        .iter()
        .map(|class| (&class["class"], &class["items"]))
        .collect();
    assert_eq!(
        items,
        [
            (&json!("TIME"), &json!(1)),
            (&json!("KEYSET"), &json!(1)),
            (&json!("EXCLUDE"), &json!(0)),
            (&json!("ERASE"), &json!(0)),
            (&json!("RENEW"), &json!(2)),
            (&json!("KEYDIST"), &json!(1)),
            (&json!("CHANGE"), &json!(0)),
            (&json!("RECORD"), &json!(0)),
        ]
    );
    assert_eq!(report["carriers"][0]["address"], home.carrier.to_string());
    assert_eq!(report["carriers"][0]["failed"], 0);
    assert_eq!(server.get("/v1/carousel?loss=1").0, 400);
    assert_eq!(server.get("/v1/carousel?loss=often").0, 400);
}
