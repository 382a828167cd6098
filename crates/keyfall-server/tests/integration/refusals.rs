//! What is not done is said in one sentence with a code, and changes nothing.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use keyfall_protocol::ids::UnixSeconds;
use keyfall_protocol::server::Founding;
use keyfall_server::journal::{Entry, Journal};
use keyfall_server::store::StoreError;
use keyfall_server::{DirectoryError, InitError, RunError};
use serde_json::json;

use crate::orders::add;
use crate::served::{Home, Served, opened};

#[test]
fn what_does_not_read_is_answered_with_one_sentence() {
    let home = Home::founded();
    let server = home.serve();
    add(&server, "alice");
    server.order("/v1/groups", json!({"name": "ops", "members": ["alice"]}));
    let before = server.report("/v1/keys");
    let long = "x".repeat(501);
    for (path, body, status, code) in [
        ("/v1/terminals", "", 400, "KF-3301"),
        ("/v1/terminals", "{", 400, "KF-3301"),
        ("/v1/terminals", "{\"name\":7}", 400, "KF-3301"),
        (
            "/v1/terminals",
            "{\"name\":\"bob\",\"nmae\":1}",
            400,
            "KF-3301",
        ),
        ("/v1/terminals", "\u{0}\u{1}", 400, "KF-3301"),
        (
            "/v1/terminals",
            "{\"name\":\"bob\",\"why\":{\"reason\":\"a\\nb\"}}",
            400,
            "KF-3301",
        ),
        (
            "/v1/terminals",
            &format!("{{\"name\":\"bob\",\"why\":{{\"ticket\":\"{long}\"}}}}"),
            400,
            "KF-3301",
        ),
        ("/v1/nothing", "{}", 404, "KF-3302"),
        ("/v1/status", "{}", 404, "KF-3302"),
        ("/v1/terminals", "{\"name\":\"../up\"}", 400, "KF-3304"),
        ("/v1/terminals", "{\"name\":\"12\"}", 400, "KF-3304"),
        ("/v1/terminals", "{\"name\":\"alice\"}", 409, "KF-3305"),
        (
            "/v1/groups",
            "{\"name\":\"x\",\"members\":[\"nobody\"]}",
            404,
            "KF-3306",
        ),
        ("/v1/groups/nothing/renew", "{}", 404, "KF-3307"),
        ("/v1/groups/%FF/renew", "{}", 400, "KF-3301"),
        (
            "/v1/groups",
            "{\"name\":\"x\",\"members\":[]}",
            400,
            "KF-3308",
        ),
        (
            "/v1/groups/ops/members",
            "{\"terminal\":\"1\"}",
            409,
            "KF-3309",
        ),
        (
            "/v1/terminals",
            "{\"name\":\"bob\",\"request\":\"KF1-OOPS\"}",
            400,
            "KF-3311",
        ),
        (
            "/v1/groups",
            "{\"name\":\"x\",\"members\":[\"1\"],\"period\":599,\"step\":64}",
            400,
            "KF-3312",
        ),
    ] {
        let (got, answer) = server.post(path, body);
        assert_eq!(
            (got, &answer["code"]),
            (status, &json!(code)),
            "{path} {body}: {answer}"
        );
        let sentence = answer["sentence"].as_str().expect("a sentence");
        assert!(
            sentence.len() > 15 && !sentence.contains('\n'),
            "{sentence}"
        );
    }
    assert_eq!(server.report("/v1/keys"), before);
    assert_eq!(server.report("/v1/audit/verify")["whole"], true);
}

/// Refusals are audited too, under the name of whoever asked.
#[test]
fn a_refused_order_is_in_the_audit_log() {
    let home = Home::founded();
    let server = home.serve();
    let order = "{\"name\":\"x\",\"members\":[\"nobody\"],\"why\":{\"reason\":\"try\"}}";
    assert_eq!(server.post("/v1/groups", order).0, 404);
    let log = server.report("/v1/audit?last=1");
    let entry = &log["entries"][0];
    assert_eq!(entry["action"], "group create");
    assert_eq!(entry["subject"], "x");
    assert_eq!(entry["reason"], "try");
    assert_eq!(entry["outcome"], "refused: there is no terminal nobody");
    let actor = entry["actor"].as_str().expect("an actor");
    assert!(actor.starts_with("uid "), "{actor}");
}

#[test]
fn nothing_is_founded_over_anything_and_nothing_is_left_of_a_failure() {
    let home = Home::founded();
    let found = |path: &Path| keyfall_server::init(path, Founding::default(), "test".to_owned());
    let error = found(&home.dir).expect_err("there is a server");
    assert!(
        matches!(error, InitError::Directory(DirectoryError::NotEmpty { .. })),
        "{error}"
    );
    let error = found(&home.file("journal")).expect_err("a file");
    let not_a_directory = DirectoryError::NotADirectory {
        path: home.file("journal"),
    };
    assert_eq!(error.to_string(), not_a_directory.to_string());
    home.serve().end();

    let empty = home.dir.with_file_name("empty");
    fs::create_dir(&empty).expect("made");
    found(&empty).expect("an empty directory is taken");
    let nowhere = home.dir.with_file_name("no").join("where");
    found(&nowhere).expect_err("no parent");
    assert!(!home.dir.with_file_name("no").exists());
}

#[test]
fn a_directory_that_others_may_look_into_is_refused() {
    let home = Home::founded();
    for (file, open, closed) in [
        ("", 0o755, 0o700),
        ("keyfall.db", 0o644, 0o600),
        ("seal.key", 0o640, 0o600),
    ] {
        let set = |mode| {
            fs::set_permissions(home.file(file), fs::Permissions::from_mode(mode)).expect("set");
        };
        set(open);
        let error = Served::start(&home.dir).err().expect("too open");
        assert!(error.to_string().contains("chmod"), "{error}");
        set(closed);
    }
    home.serve().end();
    let modes = ["keyfall.db", "seal.key", "journal", "root.key", "erase.key"].map(|file| {
        let metadata = fs::metadata(home.file(file)).expect("a file");
        metadata.permissions().mode() & 0o777
    });
    assert_eq!(modes, [0o600; 5]);
}

#[test]
fn there_is_one_server_in_a_directory_at_most() {
    let home = Home::founded();
    let server = home.serve();
    let error = Served::start_at_once(&home.dir).err().expect("one runs");
    assert!(error.to_string().contains("another process"), "{error}");
    assert_eq!(
        server.report("/v1/status")["schema"],
        1,
        "the first one is untouched"
    );
}

#[test]
fn no_server_and_a_strange_database_are_told_apart() {
    let home = Home::founded();
    let error = Served::start(&home.dir.join("none"))
        .err()
        .expect("nothing there");
    assert!(
        matches!(error, RunError::Directory(DirectoryError::NoServer { .. })),
        "{error}"
    );

    sql(
        &home,
        "INSERT INTO schema_steps (step, applied_at) VALUES (99, 0)",
    );
    let error = Served::start(&home.dir).err().expect("a newer layout");
    let newer = matches!(
        error,
        RunError::Store(StoreError::UnknownSchema { held: 99, .. })
    );
    assert!(newer, "{error}");
    sql(
        &home,
        "DELETE FROM schema_steps; INSERT INTO schema_steps (step, applied_at) VALUES (1, 0)",
    );
    let error = Served::start(&home.dir).err().expect("an older layout");
    assert_eq!(
        error.to_string(),
        "the database has layout 1, from before the first release, and this version reads 2 and \
         newer: found the fleet anew with `keyfall server init`"
    );
    // Older layouts are brought up: those before packet groups, before epochs ended, before the legacy suite, before tokens,
    // before key sharing,
    // before policies of groups, before restores.
    let without_packets =
        "ALTER TABLE groups DROP COLUMN search_key; ALTER TABLE groups DROP COLUMN priority;
         ALTER TABLE groups DROP COLUMN mtu; ALTER TABLE groups DROP COLUMN suite;
         ALTER TABLE terminals DROP COLUMN record_version;
         ALTER TABLE terminals DROP COLUMN record_issued_at; DROP TABLE networks;
         DROP TABLE prefixes; DROP TABLE endpoints;";
    let without_ends = "ALTER TABLE fleet DROP COLUMN epoch_life;";
    let without_legacy =
        "ALTER TABLE fleet DROP COLUMN rsa; ALTER TABLE key_set_draft DROP COLUMN rsa;
         ALTER TABLE terminals DROP COLUMN legacy_key;";
    let without_tokens =
        "ALTER TABLE terminals DROP COLUMN token_id; ALTER TABLE terminals DROP COLUMN token;";
    let without_sharing = "ALTER TABLE fleet DROP COLUMN kem; ALTER TABLE fleet DROP COLUMN kem_pq;
         ALTER TABLE key_set_draft DROP COLUMN kem; ALTER TABLE key_set_draft DROP COLUMN kem_pq;
         ALTER TABLE terminals DROP COLUMN mixed_at; DROP TABLE servers; DROP TABLE listens;";
    let without_policies = "ALTER TABLE groups DROP COLUMN change;
         ALTER TABLE groups DROP COLUMN stragglers; ALTER TABLE groups DROP COLUMN legacy;
         DROP TABLE change_stragglers; DROP TABLE key_changes;";
    let without_restores = "DROP TABLE restored; DROP TABLE losses; DROP TABLE lost_terminals;";
    let undone = [
        without_packets,
        without_ends,
        without_legacy,
        without_tokens,
        without_sharing,
        without_policies,
        without_restores,
    ];
    for layout in [8, 7, 6, 5, 4, 3, 2_u32] {
        let undone = undone[..9 - layout as usize].concat();
        let step = format!("INSERT INTO schema_steps (step, applied_at) VALUES ({layout}, 0)");
        sql(&home, &format!("{undone} DELETE FROM schema_steps; {step}"));
        let server = home.serve();
        add(&server, &format!("with-layout-{layout}"));
        server.end();
        let db = rusqlite::Connection::open(home.file("keyfall.db")).expect("opens");
        let steps = "SELECT count(*) FROM schema_steps";
        let steps: u32 = db.query_row(steps, [], |row| row.get(0)).expect(steps);
        assert_eq!(steps, 10 - layout, "layouts {layout} to 9");
    }

    sql(&home, "UPDATE groups SET step = 1; DROP TABLE schema_steps");
    let error = Served::start(&home.dir).err().expect("not ours");
    assert!(
        matches!(error, RunError::Store(StoreError::NotFounded { .. })),
        "{error}"
    );
}

/// What an operator changed by hand is named, not served.
#[test]
fn a_changed_row_is_named() {
    for (change, place) in [
        (
            "UPDATE terminals SET wrap = zeroblob(72) WHERE number = 1",
            "terminals/1/wrap",
        ),
        (
            "UPDATE terminals SET obey = (SELECT obey FROM terminals WHERE number = 2)
             WHERE number = 1",
            "terminals/1/obey",
        ),
        (
            "UPDATE groups SET step = 200 WHERE number = 1",
            "groups/1/period",
        ),
        (
            "UPDATE groups SET generation = 4000000000 WHERE number = 1",
            "groups/1/generation",
        ),
        (
            "UPDATE groups SET stragglers = 'flee' WHERE number = 1",
            "groups/1/policy",
        ),
        ("UPDATE fleet SET key_set = zeroblob(9)", "fleet/1/key_set"),
        ("DELETE FROM fleet", "fleet/1"),
        ("DELETE FROM chains WHERE log = 'audit'", "chains/audit"),
    ] {
        let home = Home::founded();
        let server = home.serve();
        add(&server, "alice");
        add(&server, "bob");
        server.order(
            "/v1/groups",
            json!({"name": "ops", "members": ["1"], "period": 60}),
        );
        server.end();
        sql(&home, change);
        let error = Served::start(&home.dir).err().expect("changed");
        assert!(error.to_string().contains(place), "{change}: {error}");
    }
}

/// FORMATS section 12: a crash between journal and database is harmless, another state is not.
#[test]
fn a_journal_that_is_one_entry_ahead_is_said_and_served() {
    let home = Home::founded();
    let server = home.serve();
    add(&server, "alice");
    server.end();
    let copy = fs::read(home.file("journal")).expect("read");
    let ahead = |count: u32| {
        let (mut journal, _) = opened(|| Ok(Journal::open(&home.file("journal"))?));
        for number in 0..count {
            let entry = Entry::Enrolment {
                terminal: keyfall_protocol::ids::TerminalNumber::new(2).expect("a number"),
                name: format!("bob{number}"),
            };
            journal
                .append(UnixSeconds::new(1_795_300_000), &entry)
                .expect("appended");
        }
    };

    ahead(2);
    let error = Served::start(&home.dir).err().expect("two ahead");
    assert!(
        matches!(error, RunError::Store(StoreError::OutOfStep { .. })),
        "{error}"
    );
    fs::write(home.file("journal"), &copy).expect("put back");

    ahead(1);
    let server = home.serve();
    let outcome = server.report("/v1/audit?last=1")["entries"][0]["outcome"].clone();
    let outcome = outcome.as_str().expect("text");
    assert!(outcome.contains("was not carried out"), "{outcome}");
    add(&server, "bob");
    server.end();
    home.serve().end();

    fs::write(home.file("journal"), &copy).expect("put back");
    let error = Served::start(&home.dir)
        .err()
        .expect("the journal is older");
    assert!(
        matches!(error, RunError::Store(StoreError::OutOfStep { .. })),
        "{error}"
    );
    fs::remove_file(home.file("journal")).expect("removed");
    let error = Served::start(&home.dir).err().expect("no journal");
    assert!(error.to_string().contains("is missing"), "{error}");
}

/// INVARIANT 2: an order that cannot be stored has not happened, and the next one may.
#[test]
fn an_order_that_cannot_be_stored_has_not_happened() {
    let home = Home::founded();
    let server = home.serve();
    add(&server, "alice");
    server.order(
        "/v1/groups",
        json!({"name": "ops", "members": ["alice"], "period": 3600}),
    );
    let before = server.report("/v1/keys");
    let mut other = rusqlite::Connection::open(home.file("keyfall.db")).expect("opens");
    let locked = other
        .transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)
        .expect("locked");
    let (status, answer) = server.post("/v1/groups/ops/renew", "{}");
    assert_eq!(
        (status, &answer["code"]),
        (500, &json!("KF-3314")),
        "{answer}"
    );
    assert_eq!(server.report("/v1/keys"), before);
    let warnings = server.report("/v1/status")["warnings"].to_string();
    assert!(
        warnings.contains("the store could not be written"),
        "{warnings}"
    );

    drop(locked);
    let renewed = server.order("/v1/groups/ops/renew", json!({}));
    assert_eq!(renewed["generation"], 1);
    assert_eq!(server.report("/v1/status")["warnings"], json!([]));
    assert_eq!(server.report("/v1/audit/verify")["whole"], true);
    server.end();
    home.serve().end();
}

/// What needs an operator stands in the status, in words.
#[test]
fn a_server_warns_of_what_ends_and_of_what_does_not_send() {
    let home = Home::founded();
    sql(
        &home,
        "INSERT INTO carriers (place, address) VALUES (2, 'udp://239.255.1.1:5000?if=192.0.2.1')",
    );
    let server = home.serve();
    let status = server.report("/v1/status");
    let warnings = status["warnings"].as_array().expect("warnings");
    let fault = warnings[0].as_str().expect("text");
    assert!(
        fault.contains("no interface of this machine has the address 192.0.2.1"),
        "{fault}"
    );
    assert_eq!(
        status["carriers"][0].get("fault"),
        None,
        "the other one sends"
    );
    add(&server, "alice");
    let order = json!({"name": "fast", "members": ["1"], "period": 60});
    let created = server.order("/v1/groups", order);
    let warning = created["warning"].as_str().expect("a warning");
    assert!(warning.contains("3720 s of recorded traffic"), "{warning}");
}

/// The online keys' last third, and their end, stand in the status with the command that mends it.
#[test]
fn a_server_warns_in_the_last_third_of_its_online_keys() {
    let home = Home::with(Founding {
        signer_life: 6,
        ..Founding::default()
    });
    let server = home.serve();
    for path in ["/v1/status", "/v1/keys"] {
        assert_eq!(server.report(path)["warnings"], json!([]));
    }
    for says in [
        "the online keys end in 0 h: keyfall server sign-keys DIR --root FILE",
        "the online keys have ended and nothing new is sent: keyfall server sign-keys DIR --root FILE",
    ] {
        for path in ["/v1/status", "/v1/keys"] {
            let deadline = Instant::now() + Duration::from_secs(30);
            while server.report(path)["warnings"][0] != says {
                assert!(Instant::now() < deadline, "{}", server.report(path));
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

pub(crate) fn sql(home: &Home, change: &str) {
    let db = rusqlite::Connection::open(home.file("keyfall.db")).expect("opens");
    db.execute_batch(change).expect(change);
}

/// A client that sent half a request and stopped does not keep a server up.
#[test]
fn half_a_request_does_not_keep_a_server_up() {
    let home = Home::founded();
    let served = home.serve();
    let mut half = std::os::unix::net::UnixStream::connect(home.file("admin.sock")).expect("open");
    let request = "POST /v1/terminals HTTP/1.1\r\nhost: keyfall\r\ncontent-length: 100\r\n\r\n{";
    half.write_all(request.as_bytes()).expect("taken");
    let began = std::time::Instant::now();
    served.end();
    assert!(began.elapsed() < std::time::Duration::from_secs(30));
    assert!(!home.file("admin.sock").exists());
}
