//! A database of an older layout, brought up where it is opened.

use keyfall_protocol::command::{
    Body, Command, KeySet, SignerClass, SigningKey, Suites, Unverified,
};
use keyfall_protocol::server::{FleetRecord, RequestKeys};
use keyfall_server::store::Store;
use keyfall_server::{Directory, key_file};
use serde_json::{Value, json};

use crate::loss::hex;
use crate::orders::{add, unhex};
use crate::refusals::sql;
use crate::served::{Home, Served, opened};

/// Takes back every step after layout 2, the first that was released.
pub(crate) const TO_LAYOUT_2: &str = "
    DELETE FROM schema_steps; INSERT INTO schema_steps (step, applied_at) VALUES (2, 0);
    DROP TABLE restored; DROP TABLE losses; DROP TABLE lost_terminals;
    ALTER TABLE groups DROP COLUMN change; ALTER TABLE groups DROP COLUMN stragglers;
    ALTER TABLE groups DROP COLUMN legacy;
    ALTER TABLE fleet DROP COLUMN kem; ALTER TABLE fleet DROP COLUMN kem_pq;
    ALTER TABLE fleet DROP COLUMN rsa;
    ALTER TABLE key_set_draft DROP COLUMN kem; ALTER TABLE key_set_draft DROP COLUMN kem_pq;
    ALTER TABLE key_set_draft DROP COLUMN rsa;
    ALTER TABLE terminals DROP COLUMN mixed_at;
    DROP TABLE servers; DROP TABLE listens;
";

/// A fleet of before key sharing has nothing to which a request could be sealed, and says so in its
/// KEYSET; the next one that the root signs brings the keys, which then stay.
#[test]
fn a_fleet_of_before_key_sharing_gets_its_request_keys_by_sign_keys() {
    let home = Home::founded();
    let root = root(&home);
    add_alice(&home);
    sql(&home, TO_LAYOUT_2);
    put_back_the_old_key_set(&home, &root);

    let server = home.serve();
    assert_eq!(server.report("/v1/status")["desk"], Value::Null);
    assert_eq!(
        server.report("/v1/terminals")["terminals"][0]["name"],
        "alice"
    );
    server.end();
    let before = fleet(&home);
    assert!(before.request_keys.kem.is_none() && before.request_keys.kem_pq.is_none());
    assert!(before.servers.is_empty() && before.listen.is_empty());
    assert_eq!(before.key_set.limits.suites, Suites::PSK_ALONE);

    // The draft outlives a restart, the keys in it too.
    let server = home.serve();
    let suites = json!({"suites": ["hpke-pq", "psk"]});
    let draft = server.order("/v1/key-set/draft", suites);
    server.end();
    let server = home.serve();
    install(&server, &root, &draft);
    let refused = server.post("/v1/key-set/draft", r#"{"suites":["psk","psk"]}"#);
    assert_eq!((refused.0, &refused.1["code"]), (400, &json!("KF-3326")));
    server.end();
    let after = fleet(&home);
    let names: Vec<_> = after
        .key_set
        .limits
        .suites
        .iter()
        .map(|suite| suite.name())
        .collect();
    assert_eq!(names, ["hpke-pq", "psk"]);
    let listed = listed(&after);
    assert_eq!(listed.len(), 2, "one of each KEM");

    // The monthly KEYSET changes neither keys nor suites.
    let server = home.serve();
    let draft = server.order("/v1/key-set/draft", json!({}));
    install(&server, &root, &draft);
    server.end();
    let later = fleet(&home);
    assert_ne!(later.key_set.version, after.key_set.version);
    assert_eq!(self::listed(&later), listed);
    assert_eq!(later.key_set.limits.suites, after.key_set.limits.suites);
}

fn add_alice(home: &Home) {
    let server = home.serve();
    add(&server, "alice");
    server.end();
}

fn root(home: &Home) -> SigningKey {
    let directory = Directory::open(&home.dir).expect("opens");
    key_file::read(&directory.root_key()).expect("a key")
}

fn fleet(home: &Home) -> FleetRecord {
    let directory = Directory::open(&home.dir).expect("opens");
    let (store, _) = opened(|| Store::open(&directory));
    store.load().expect("reads").fleet
}

/// What the KEYSET lists of request keys; each must be one of those that the store holds.
fn listed(fleet: &FleetRecord) -> Vec<(SignerClass, [u8; 32])> {
    let held = |keys: &RequestKeys| {
        let listings = keys.listings();
        listings
            .map(|(class, public)| (class, *public.as_bytes()))
            .collect::<Vec<_>>()
    };
    let keys = fleet
        .key_set
        .keys
        .iter()
        .filter(|key| key.class.is_sealed_to());
    let listed: Vec<_> = keys
        .map(|key| (key.class, *key.public.as_bytes()))
        .collect();
    assert_eq!(listed, held(&fleet.request_keys));
    listed
}

/// The KEYSET as the version before would have written it: no request keys, no suites.
fn put_back_the_old_key_set(home: &Home, root: &SigningKey) {
    let db = rusqlite::Connection::open(home.file("keyfall.db")).expect("opens");
    let frame: Vec<u8> = db
        .query_row("SELECT key_set FROM fleet", [], |row| row.get(0))
        .expect("a row");
    let frame = Unverified::decode(&frame).expect("a command");
    let command = frame.command();
    let key_set = match &command.body {
        Body::KeySet(key_set) => key_set.clone(),
        Body::Time(_)
        | Body::Renew(_)
        | Body::KeyDist(_)
        | Body::Order(_)
        | Body::Exclude(_)
        | Body::Stop(_)
        | Body::Start(_)
        | Body::Notify(_) => panic!("a KEYSET"),
    };
    let mut old = KeySet {
        keys: key_set
            .keys
            .iter()
            .filter(|key| !key.class.is_sealed_to())
            .cloned()
            .collect(),
        ..key_set
    };
    old.limits.suites = Suites::PSK_ALONE;
    let old = Command {
        body: Body::KeySet(old),
        ..command.clone()
    };
    db.execute("UPDATE fleet SET key_set = ?1", [root.sign(&old)])
        .expect("written");
}

fn install(server: &Served, root: &SigningKey, draft: &Value) {
    let command = Command::decode(&unhex(&draft["command"])).expect("a command");
    let frame = hex(&root.sign(&command));
    server.order("/v1/key-set/install", json!({ "frame": frame }));
}
