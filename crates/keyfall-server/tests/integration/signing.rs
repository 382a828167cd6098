//! New online keys: drafted, signed by a root that the server never sees, put in force.

use std::fs;
use std::path::Path;

use keyfall_api::admin as api;
use keyfall_protocol::command::{Body, Command, SignerClass, SigningKey, Unverified};
use keyfall_protocol::keys::Secret;
use keyfall_server::store::Store;
use keyfall_server::{Directory, Stopped, key_file};
use serde_json::{Value, json};

use crate::loss::hex;
use crate::orders::{add, unhex};
use crate::secrets::files;
use crate::served::{Home, Served, frames_until, opened};

fn root(home: &Home) -> SigningKey {
    let directory = Directory::open(&home.dir).expect("opens");
    key_file::read(&directory.root_key()).expect("a key")
}

/// What the root makes of a draft.
fn signed(root: &SigningKey, draft: &Value) -> String {
    let command = Command::decode(&unhex(&draft["command"])).expect("a command");
    hex(&root.sign(&command))
}

/// Seeds of the online keys in force, and of those that are drafted.
fn seeds(dir: &Path) -> [Vec<Vec<u8>>; 2] {
    let directory = Directory::open(dir).expect("opens");
    let (store, _) = opened(|| Store::open(&directory));
    let state = store.load().expect("reads");
    let octets = |key: &SigningKey| key.seed().expose().to_vec();
    let draft = state.draft.as_ref();
    [
        vec![octets(&state.fleet.beat), octets(&state.fleet.keys)],
        draft.map_or_else(Vec::new, |draft| {
            vec![octets(&draft.beat), octets(&draft.keys)]
        }),
    ]
}

/// The sealed form of the online keys in force, and of those that are drafted.
fn sealed(home: &Home, table: &str) -> Vec<Vec<u8>> {
    let db = rusqlite::Connection::open(home.file("keyfall.db")).expect("opens");
    let query = format!("SELECT beat, keys FROM {table}");
    db.query_row(&query, [], |row| Ok(vec![row.get(0)?, row.get(1)?]))
        .expect("a row")
}

fn holds(files: &[(String, Vec<u8>)], wanted: &[u8]) -> Option<String> {
    let found = files
        .iter()
        .find(|(_, octets)| octets.windows(wanted.len()).any(|window| window == wanted));
    found.map(|(name, _)| name.clone())
}

/// FORMATS section 2, INVARIANT 10: a root that is far away may take its time, the server may end
/// meanwhile; no raw key is in any file, and of the replaced ones not even the sealed form.
#[test]
fn a_draft_outlives_a_restart_and_old_keys_are_gone_from_every_file() {
    let home = Home::founded();
    let root = root(&home);
    let server = home.serve();
    add(&server, "alice");
    server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
    let forgotten = server.order("/v1/key-set/draft", json!({}));
    let old_sealed = [sealed(&home, "fleet"), sealed(&home, "key_set_draft")].concat();
    let draft = server.order("/v1/key-set/draft", json!({"life": 86_400}));
    assert_eq!(draft["root"], root.public().name().to_string());
    server.end();
    let [old, drafted] = seeds(&home.dir);
    assert_eq!((old.len(), drafted.len()), (2, 2));

    let server = home.serve();
    let install = |frame: String| {
        server.post(
            "/v1/key-set/install",
            &json!({"frame": frame,
        "why": {"reason": "monthly"}})
            .to_string(),
        )
    };
    let (status, problem) = install(signed(&root, &forgotten));
    assert_eq!((status, &problem["code"]), (409, &json!("KF-3322")));
    let stranger = SigningKey::from_seed(Secret::from_slice(&[5; 32]).expect("32 octets"));
    let (status, problem) = install(signed(&stranger, &draft));
    assert_eq!((status, &problem["code"]), (403, &json!("KF-3327")));
    let (status, installed) = install(signed(&root, &draft));
    assert_eq!(status, 200, "{installed}");
    assert_eq!(
        (&installed["version"], &installed["expires"]),
        (&draft["version"], &draft["expires"])
    );
    let (status, problem) = install(signed(&root, &draft));
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("KF-3322")),
        "once only"
    );

    // What is sent from now on, the new keys sign.
    let keys = server.report("/v1/keys");
    let in_use: Vec<_> = keys["signers"]
        .as_array()
        .expect("signers")
        .iter()
        .filter(|signer| signer["in_use"] == true)
        .map(|signer| signer["name"].as_str().expect("a name").to_owned())
        .collect();
    assert_eq!(in_use.len(), 2);
    assert_eq!(
        keys["signers"].as_array().expect("signers").len(),
        7,
        "the old ones stay listed, and what requests are sealed to"
    );
    let mut heard = [false; 3];
    frames_until(
        home.carrier,
        || {},
        |frame| {
            let frame = Unverified::decode(frame).expect("a command");
            let by = frame.signer().to_string();
            match &frame.command().body {
                Body::KeySet(set) => heard[0] |= draft["version"] == set.version,
                Body::Time(_) => heard[1] |= by == in_use[0],
                Body::KeyDist(_) => heard[2] |= by == in_use[1],
                Body::Renew(_)
                | Body::Order(_)
                | Body::Exclude(_)
                | Body::Stop(_)
                | Body::Start(_)
                | Body::Notify(_) => {}
            }
            heard == [true; 3]
        },
    );
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while let Some(name) = old_sealed
        .iter()
        .find_map(|blob| holds(&files(&home), &blob[..24]))
    {
        assert!(
            std::time::Instant::now() < deadline,
            "{name} still holds what was replaced"
        );
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    server.end();
    let [now, none] = seeds(&home.dir);
    assert_eq!((now, none.len()), (drafted.clone(), 0));
    let at_rest = files(&home);
    for seed in old.iter().chain(&drafted) {
        for half in seed.chunks(16) {
            assert_eq!(holds(&at_rest, half), None, "a raw key");
        }
    }
    let log = home.serve().report("/v1/audit?last=3");
    let entry = &log["entries"][1];
    assert_eq!(
        (&entry["action"], &entry["reason"]),
        (&json!("sign-keys"), &json!("monthly"))
    );
}

/// REQUIREMENTS W-17: a stolen online key is undone by the next KEYSET, without a visit.
#[test]
fn a_stolen_key_is_listed_no_more_and_every_group_gets_a_fresh_epoch() {
    let home = Home::founded();
    let root = root(&home);
    let server = home.serve();
    add(&server, "alice");
    server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
    let keys = server.report("/v1/keys");
    let stolen = keys["signers"]
        .as_array()
        .expect("signers")
        .iter()
        .find(|signer| signer["class"] == SignerClass::Keys.name())
        .expect("one")["name"]
        .clone();
    for (bad, status) in [("alice", 404), ("", 404)] {
        let order = json!({"stolen": [bad]}).to_string();
        let (got, problem) = server.post("/v1/key-set/draft", &order);
        assert_eq!(
            (got, &problem["code"]),
            (status, &json!("KF-3325")),
            "{problem}"
        );
    }
    assert_eq!(
        server.post("/v1/key-set/draft", "{\"life\":2592001}").0,
        400
    );
    let log = server.report("/v1/audit?last=1");
    let refused = log["entries"][0]["outcome"].as_str().expect("text");
    assert!(
        refused.starts_with("refused: online keys live"),
        "{refused}"
    );
    let draft = server.order("/v1/key-set/draft", json!({"stolen": [stolen]}));
    let installed = server.order(
        "/v1/key-set/install",
        json!({"frame": signed(&root, &draft)}),
    );
    assert_eq!(installed["fresh_epochs"], 1);
    // G goes on by the new schedule, and nothing is made good that never was.
    assert_eq!(server.report("/v1/status")["warnings"], json!([]));
    let after = server.report("/v1/keys");
    assert_eq!(after["fleet_generation"], installed["fleet_generation"]);
    assert!(installed["fleet_generation"].as_u64() > keys["fleet_generation"].as_u64());
    assert!(after["keys"][0]["epoch"].as_u64() > keys["keys"][0]["epoch"].as_u64());
    let signers = after["signers"].as_array().expect("signers");
    assert!(
        signers.iter().all(|signer| signer["name"] != stolen),
        "{signers:?}"
    );
    server.end();
    let server = home.serve();
    assert_eq!(server.report("/v1/keys")["keys"], after["keys"]);
}

/// Online keys are signed while nobody runs the server, also when they have ended.
#[test]
fn a_stopped_server_takes_new_keys() {
    let home = Home::with(keyfall_protocol::server::Founding {
        signer_life: 1,
        ..keyfall_protocol::server::Founding::default()
    });
    let root = root(&home);
    let server = home.serve();
    let stopped = Stopped::open(&home.dir, "test".to_owned());
    let refused = stopped.expect_err("it runs").to_string();
    assert!(refused.contains("end that server first"), "{refused}");
    let ended = |server: &Served| {
        let status = server.report("/v1/status");
        let warning = status["warnings"][0]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        warning.starts_with("the online keys have ended")
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !ended(&server) {
        assert!(std::time::Instant::now() < deadline, "they do not end");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    server.end();

    let draft = {
        let mut stopped = open_stopped(&home);
        assert_eq!(stopped.root(), root.public().name());
        let wanted = api::DraftKeySet::default();
        stopped.draft_key_set(&wanted).expect("drafted")
    };
    let command = Command::decode(&unhex(&json!(draft.command))).expect("a command");
    let why = api::Why {
        reason: Some("found it again".to_owned()),
        ticket: None,
    };
    let bad = api::InstallKeySet {
        frame: "00".to_owned(),
        why: why.clone(),
    };
    let good = api::InstallKeySet {
        frame: hex(&root.sign(&command)),
        why,
    };
    let mut stopped = open_stopped(&home);
    let refused = stopped.install_key_set(&bad).expect_err("no frame");
    assert!(
        refused
            .to_string()
            .contains("not signed by this fleet's root"),
        "{refused}"
    );
    let installed = stopped.install_key_set(&good).expect("installed");
    assert_eq!(installed.expires, draft.expires);
    drop(stopped);
    let left = fs::metadata(home.file("keyfall.db-wal")).map_or(0, |wal| wal.len());
    assert_eq!(left, 0, "what was replaced is in no file");

    let server = home.serve();
    assert_eq!(server.report("/v1/status")["warnings"], json!([]));
    let log = server.report("/v1/audit?last=4");
    let outcomes: Vec<_> = log["entries"]
        .as_array()
        .expect("entries")
        .iter()
        .filter(|entry| entry["action"] == "sign-keys")
        .map(|entry| (entry["actor"].as_str(), entry["reason"].as_str()))
        .collect();
    assert_eq!(
        outcomes,
        [
            (Some("test"), None),
            (Some("test"), Some("found it again")),
            (Some("test"), Some("found it again")),
        ]
    );
}

/// A child of another test has our locks too, from its fork until it has become its program.
fn open_stopped(home: &Home) -> Stopped {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        match Stopped::open(&home.dir, "test".to_owned()) {
            Ok(stopped) => return stopped,
            Err(error) => assert!(std::time::Instant::now() < deadline, "{error}"),
        }
    }
}
