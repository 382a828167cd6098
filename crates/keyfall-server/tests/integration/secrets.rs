//! INVARIANT 10, R-025: no file of a server but its seal key helps who reads it.

use std::fs;
use std::time::{Duration, Instant};

use keyfall_protocol::ids::Generation;
use keyfall_server::Directory;
use keyfall_server::store::Store;
use serde_json::json;

use crate::orders::add;
use crate::served::{Home, opened};

#[test]
fn no_file_holds_a_raw_secret() {
    let home = Home::founded();
    let server = home.serve();
    let alice = add(&server, "alice");
    let bob = add(&server, "bob");
    server.order(
        "/v1/groups",
        json!({"name": "ops", "members": ["alice", "bob"]}),
    );
    server.order("/v1/groups/ops/renew", json!({}));
    let while_running = files(&home);
    server.order("/v1/devices/renew", json!({}));
    server.order(
        "/v1/groups/ops/members",
        json!({"terminal": add(&server, "carol").identity.number.get()
        .to_string()}),
    );
    let after_renewals = files(&home);
    server.end();

    let one = Generation::new(1).expect("small");
    let mut secrets = Vec::new();
    for package in [&alice, &bob] {
        secrets.push(package.obey.secret().expose().to_vec());
        secrets.push(package.wrap.secret().expose().to_vec());
        secrets.push(
            package
                .wrap
                .duplicate()
                .renew_to(one)
                .secret()
                .expose()
                .to_vec(),
        );
    }
    let directory = Directory::open(&home.dir).expect("opens");
    let (store, _) = opened(|| Store::open(&directory));
    let state = store.load().expect("reads");
    secrets.push(state.fleet.beat.seed().expose().to_vec());
    secrets.push(state.fleet.keys.seed().expose().to_vec());
    secrets.extend(
        state
            .groups
            .iter()
            .map(|group| group.master.secret().expose().to_vec()),
    );
    assert_eq!(secrets.len(), 9);
    drop(store);
    let wrap = state.terminals[0].wrap.secret();
    assert_eq!(
        *wrap,
        *alice.wrap.renew_to(one).secret(),
        "what is searched for is what is used"
    );

    let at_rest = files(&home);
    for (when, files) in [
        ("running", while_running),
        ("renewed", after_renewals),
        ("ended", at_rest),
    ] {
        assert!(files.len() >= 2, "{when}: {} files", files.len());
        for (name, octets) in &files {
            for secret in &secrets {
                for half in secret.chunks(16) {
                    let found = octets.windows(16).any(|window| window == half);
                    assert!(!found, "{when}: {name} holds a secret");
                }
            }
        }
        // The search does find what is there.
        let (_, database) = &files[files
            .iter()
            .position(|(name, _)| name == "keyfall.db")
            .expect("it")];
        let root = alice.identity.root.as_bytes();
        assert!(database.windows(32).any(|window| window == root), "{when}");
    }
}

/// What a renewal replaced is not in the database any more, not even sealed.
#[test]
fn a_replaced_key_leaves_the_database_sealed_form_and_all() {
    let home = Home::founded();
    let server = home.serve();
    add(&server, "alice");
    server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
    let sealed = |column: &str, table: &str| -> Vec<u8> {
        let db = rusqlite::Connection::open(home.file("keyfall.db")).expect("opens");
        let query = format!("SELECT {column} FROM {table}");
        db.query_row(&query, [], |row| row.get(0)).expect("a row")
    };
    let before = [sealed("master", "groups"), sealed("wrap", "terminals")];
    server.order("/v1/groups/ops/renew", json!({}));
    server.order("/v1/devices/renew", json!({}));
    let held = || {
        let files = files(&home);
        let holds = |octets: &[u8], blob: &[u8]| octets.windows(24).any(|window| window == blob);
        files.into_iter().find_map(|(name, octets)| {
            let found = before.iter().any(|blob| holds(&octets, &blob[..24]));
            found.then_some(name)
        })
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while let Some(name) = held() {
        assert!(
            Instant::now() < deadline,
            "{name} still holds what was replaced"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every file of the directory but the seal key and the two that are to be moved away.
pub(crate) fn files(home: &Home) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(&home.dir).expect("a directory");
    entries
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.file_type().expect("a type").is_file())
        .map(|entry| {
            (
                entry.file_name().into_string().expect("a name"),
                entry.path(),
            )
        })
        .filter(|(name, _)| !["seal.key", "root.key", "erase.key"].contains(&name.as_str()))
        .map(|(name, path)| (name, fs::read(path).expect("read")))
        .collect()
}
