//! `keyfall server backup`, `server restore` and `admin confirm`, with real servers and terminals
//! (FORMATS section 12; REQUIREMENTS A-32).

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::ran::{Background, Ran, command, keyfall, until};

/// A founded server, and what lies outside of it.
struct Place {
    top: tempfile::TempDir,
    dir: PathBuf,
}

impl Place {
    fn founded() -> Self {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("fleet");
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Loopback only, and heard by nobody else's test.
        let port = 21_000 + NEXT.fetch_add(1, Ordering::Relaxed);
        let [a, b, ..] = std::process::id().to_le_bytes();
        let carrier = format!("udp://239.255.{a}.{b}:{port}?if=127.0.0.1&ttl=0");
        let place = Self { top, dir };
        let made = keyfall(["server", "init", place.dir(), "--carrier", &carrier]);
        assert_eq!(made.exit, 0, "{}", made.stderr);
        place
    }

    fn dir(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.top.path().join(name).to_str().unwrap().to_owned()
    }

    fn serve(&self) -> Background {
        let server = command(["server", "run", self.dir()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Background(server);
        until("the server answers", || self.admin(&["status"]).exit == 0);
        server
    }

    fn admin(&self, words: &[&str]) -> Ran {
        let mut all = vec!["admin"];
        all.extend_from_slice(words);
        all.extend_from_slice(&["--dir", self.dir()]);
        keyfall(all)
    }

    /// With --json, and done.
    #[track_caller]
    fn told(&self, words: &[&str]) -> Value {
        let mut all = words.to_vec();
        all.push("--json");
        self.admin(&all).document()
    }

    /// A terminal of that name, whose package is sealed to its request.
    #[track_caller]
    fn add(&self, name: &str) {
        let dir = self.path(name);
        let request = keyfall(["terminal", "enrol", &dir, "--request", "--json"]).document();
        let request = request["request_key"].as_str().unwrap();
        let out = self.path("");
        self.told(&["terminal", "add", name, "--for", request, "--out", &out]);
        let package = self.path(&format!("{name}.enrol"));
        assert_eq!(keyfall(["terminal", "enrol", &dir, &package]).exit, 0);
    }

    fn switch_on(&self, name: &str) -> Background {
        let terminal = command(["terminal", "run", &self.path(name)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Background(terminal.unwrap())
    }

    /// The epoch of group 1 that a terminal holds.
    fn epoch_of(&self, name: &str) -> Option<u64> {
        let ran = keyfall(["terminal", "status", &self.path(name), "--json"]);
        let status: Value = serde_json::from_str(&ran.stdout).ok()?;
        status["groups"][0]["epoch"].as_u64()
    }

    fn epoch(&self) -> u64 {
        let shown = self.told(&["group", "show", "1"]);
        shown["group"]["key"]["epoch"].as_u64().unwrap()
    }

    fn backup(&self, name: &str) -> String {
        let file = self.path(name);
        let made = keyfall(["server", "backup", self.dir(), &file]);
        assert_eq!(made.exit, 0, "{}", made.stderr);
        file
    }

    fn restore(&self, words: &[&str]) -> Ran {
        let mut all = vec!["server", "restore", self.dir()];
        all.extend_from_slice(words);
        keyfall(all)
    }

    fn terminals(&self) -> Vec<(u64, String)> {
        let all = self.told(&["terminal", "list"]);
        let rows = all["terminals"].as_array().unwrap().iter();
        rows.map(|row| {
            let name = row["name"].as_str().unwrap();
            (row["number"].as_u64().unwrap(), name.to_owned())
        })
        .collect()
    }

    /// Names of those that are excluded.
    fn excluded(&self) -> Vec<String> {
        let all = self.told(&["terminal", "list"]);
        let rows = all["terminals"].as_array().unwrap().iter();
        rows.filter(|row| row.get("excluded_at").is_some())
            .map(|row| row["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

/// Ends it as an operator does.
fn end(mut server: Background) {
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    assert_eq!(server.0.wait().unwrap().code(), Some(0));
}

/// Copies the files of a server that does not run.
fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// From the loss to the last terminal: what was ordered after the backup stands, nothing is sent
/// before the word of an operator, and then the terminals of before follow.
#[test]
fn a_restored_server_is_held_and_then_everybody_follows_but_who_was_shut_out() {
    let place = Place::founded();
    let server = place.serve();
    for name in ["alice", "bob", "carol"] {
        place.add(name);
    }
    let running = ["alice", "bob", "carol"].map(|name| place.switch_on(name));
    let members = ["--member", "alice", "--member", "bob", "--member", "carol"];
    place.told(&[&["group", "create", "ops"][..], &members].concat());
    until("all have the first key", || {
        let epoch = Some(place.epoch());
        ["alice", "bob", "carol"]
            .iter()
            .all(|name| place.epoch_of(name) == epoch)
    });
    // The server runs.
    let file = place.path("fleet.backup");
    let made = keyfall(["server", "backup", place.dir(), &file]);
    assert!(
        made.stdout
            .contains("without that file this backup opens nothing")
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    keyfall(["server", "backup", place.dir(), &file]).refuses(1, "KF-3003", "is there already");

    place.told(&["exclude", "bob", "--yes"]);
    until("carol has the key without bob", || {
        place.epoch_of("carol") == Some(place.epoch())
    });
    place.add("dave");
    place.told(&["group", "add", "ops", "dave"]);
    place.told(&["group", "remove", "ops", "carol"]);
    let lost = place.epoch();
    place
        .restore(&["--from", &file])
        .refuses(5, "KF-3203", "a server runs");
    end(server);

    let restored = place.restore(&["--from", &file, "--json"]).document();
    assert_eq!(restored["excluded_again"], serde_json::json!(["bob"]));
    assert_eq!(
        restored["losses"].as_array().unwrap().len(),
        1,
        "{restored}"
    );
    assert!(place.dir.join("replaced-1/keyfall.db").exists(), "kept");
    assert!(!place.dir.join("restoring").exists());

    let server = place.serve();
    let status = place.admin(&["status"]);
    assert!(
        status.stdout.contains("warning: held: restored at 20"),
        "{}",
        status.stdout
    );
    assert!(
        status
            .stdout
            .contains("sends nothing until `keyfall admin confirm`")
    );
    assert!(place.epoch() > lost);
    assert_eq!(place.excluded(), ["bob"]);
    assert_eq!(place.terminals()[3], (4, "dave.lost-4".to_owned()));
    let list = place.admin(&["terminal", "list"]);
    let state = "unknown: enrolled after the backup, its keys are lost";
    assert!(list.stdout.contains(state), "{}", list.stdout);
    place
        .admin(&["group", "add", "ops", "dave.lost-4"])
        .refuses(3, "KF-3329", "enrol the device anew");
    // Orders are taken, and it is said that nothing of them is sent.
    let added = place.admin(&["group", "add", "ops", "carol"]);
    assert_eq!(added.exit, 0);
    assert!(
        added.stderr.contains("held since it was restored"),
        "{}",
        added.stderr
    );
    let shown = place.admin(&["confirm", "--dry-run"]);
    assert!(
        shown
            .stdout
            .contains("Excluded, for good:\n  bob (2) since"),
        "{}",
        shown.stdout
    );
    assert!(
        shown
            .stdout
            .contains("terminal dave (4) was enrolled at 20"),
        "{}",
        shown.stdout
    );
    assert_eq!(
        place.admin(&["confirm"]).exit,
        2,
        "nobody is there to be asked"
    );
    end(server);

    // A restart does not let it send.
    let server = place.serve();
    std::thread::sleep(Duration::from_millis(1_500));
    let status = place.told(&["status"]);
    assert_eq!(status["carriers"][0]["sent"], 0);
    assert!(status["held_since"].is_u64());
    let confirmed = place.told(&["confirm", "--yes", "--reason", "list checked"]);
    assert_eq!(confirmed["excluded"], 1);
    until("alice and carol follow", || {
        let epoch = Some(place.epoch());
        ["alice", "carol"]
            .iter()
            .all(|name| place.epoch_of(name) == epoch)
    });
    assert!(
        place.epoch_of("bob").is_none_or(|epoch| epoch < lost),
        "bob is out"
    );
    place
        .admin(&["confirm", "--yes"])
        .refuses(3, "KF-3330", "sends already");
    let log = place.admin(&["audit", "--last", "4"]).stdout;
    assert!(
        log.contains("confirm") && log.contains("list checked"),
        "{log}"
    );
    assert_eq!(place.told(&["audit", "verify"])["whole"], true);
    place.add("erin");
    assert_eq!(place.terminals()[4], (5, "erin".to_owned()));
    end(server);
    drop(running);
}

/// One clear sentence for each reason not to restore; nothing has changed then.
#[test]
fn without_the_right_journal_and_seal_key_nothing_is_restored() {
    let place = Place::founded();
    let server = place.serve();
    place.add("alice");
    let old = place.backup("old.backup");
    place.told(&["exclude", "alice", "--yes"]);
    let new = place.backup("new.backup");
    end(server);
    let journal = place.dir.join("journal");
    let whole = fs::read(&journal).unwrap();
    let database = fs::read(place.dir.join("keyfall.db")).unwrap();
    let from = |file: &str| place.restore(&["--from", file]);

    from(&place.path("none")).refuses(1, "KF-3217", "there is no backup");
    fs::write(
        place.path("junk"),
        b"not a database, but long enough to be looked at",
    )
    .unwrap();
    from(&place.path("junk")).refuses(1, "KF-3217", "is no whole backup");
    keyfall(["server", "restore", &place.path("nowhere"), "--from", &old]).refuses(
        1,
        "KF-3201",
        "put seal.key and the order journal into it",
    );

    let seal = fs::read(place.dir.join("seal.key")).unwrap();
    fs::write(place.dir.join("seal.key"), [7; 32]).unwrap();
    from(&old).refuses(5, "KF-3206", "seal.key belongs to another database");
    fs::write(place.dir.join("seal.key"), &seal).unwrap();

    fs::remove_file(&journal).unwrap();
    from(&old).refuses(3, "KF-3218", "or --journal-lost if there is none any more");
    // An older journal than the backup, one that lost its end, one that was changed.
    let lines: Vec<_> = whole.split_inclusive(|octet| *octet == b'\n').collect();
    fs::write(&journal, lines[..3].concat()).unwrap();
    from(&new).refuses(3, "KF-3218", "does not have entry");
    fs::write(&journal, lines[..lines.len() - 1].concat()).unwrap();
    from(&old).refuses(3, "KF-3218", "its end was cut off");
    let changed = String::from_utf8(whole.clone()).unwrap();
    let changed = changed.replacen("exclusion", "exclusiom", 1);
    fs::write(&journal, changed).unwrap();
    from(&old).refuses(3, "KF-3218", "counts all after that line as lost");
    assert_eq!(fs::read(place.dir.join("keyfall.db")).unwrap(), database);
    assert!(!place.dir.join("replaced-1").exists());

    // The journal from another place; its last line was cut off by a crash.
    let mirror = place.path("mirror");
    fs::write(&mirror, [&whole[..], br#"{"seq":99,"ti"#].concat()).unwrap();
    let given = ["--from", &old, "--journal", &mirror, "--json"];
    let restored = place.restore(&given).document();
    assert_eq!(
        restored["torn_line"],
        u64::try_from(lines.len() + 1).unwrap()
    );
    assert_eq!(restored["excluded_again"], serde_json::json!(["alice"]));
    let moved = fs::read_to_string(place.dir.join("replaced-1/journal")).unwrap();
    assert!(moved.contains("exclusiom"), "the broken one is kept");
    // The same command once more: the journal in the directory goes on after the given one.
    let again = place.restore(&given).document();
    assert_eq!(again["excluded_again"], serde_json::json!(["alice"]));
    assert!(place.dir.join("replaced-2/keyfall.db").exists());
    let server = place.serve();
    assert_eq!(place.excluded(), ["alice"]);
    end(server);
}

/// Without the journal: fresh epochs for all, numbers far above, and a list to be completed.
#[test]
fn with_the_journal_lost_numbers_go_on_at_the_next_million() {
    let place = Place::founded();
    let server = place.serve();
    for name in ["alice", "bob"] {
        place.add(name);
    }
    place.told(&[
        "group", "create", "ops", "--member", "alice", "--member", "bob",
    ]);
    let backup = place.backup("fleet.backup");
    place.told(&["exclude", "bob", "--yes"]);
    let lost = place.epoch();
    end(server);
    let mut text = fs::read_to_string(place.dir.join("journal")).unwrap();
    text.push_str("{\"seq\":0}\n");
    fs::write(place.dir.join("journal"), text).unwrap();
    // What is whole of it counts.
    let words = ["--from", &backup, "--journal-lost", "--json"];
    let restored = place.restore(&words).document();
    assert_eq!(restored["excluded_again"], serde_json::json!(["bob"]));
    fs::remove_file(place.dir.join("journal")).unwrap();
    let restored = place.restore(&words).document();
    assert_eq!(restored["excluded_again"], serde_json::json!([]));
    assert_eq!(restored["fresh_epochs"], 1);
    assert!(
        restored["losses"][0]
            .as_str()
            .unwrap()
            .contains("exclude again"),
        "{restored}"
    );

    let server = place.serve();
    assert!(place.epoch() > lost);
    place.told(&["exclude", "bob", "--yes"]);
    place.told(&["confirm", "--yes"]);
    place.add("carol");
    assert_eq!(place.terminals()[2], (1 << 20, "carol".to_owned()));
    end(server);
}

/// Killed at any moment, the server is the old one or the restored one, and the same command leads
/// to the end.
#[test]
fn a_restore_that_is_killed_is_given_again() {
    let place = Place::founded();
    let server = place.serve();
    for name in ["alice", "bob"] {
        place.add(name);
    }
    place.told(&[
        "group", "create", "ops", "--member", "alice", "--member", "bob",
    ]);
    let backup = place.backup("fleet.backup");
    place.told(&["exclude", "bob", "--yes"]);
    end(server);
    let mut ended = false;
    for round in 0_u64.. {
        assert!(round < 1_000, "it never comes to its end");
        let dir = place.top.path().join("again");
        copy_dir(&place.dir, &dir);
        let words = [
            "server",
            "restore",
            dir.to_str().unwrap(),
            "--from",
            &backup,
        ];
        let mut killed = command(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(3 * round));
        ended |= killed.try_wait().unwrap().is_some();
        killed.kill().unwrap();
        killed.wait().unwrap();
        let ran = keyfall(words.into_iter().chain(["--json"]));
        let document = ran.document();
        assert_eq!(
            document["excluded_again"],
            serde_json::json!(["bob"]),
            "{round}"
        );
        let db = rusqlite::Connection::open(dir.join("keyfall.db")).unwrap();
        let held = "SELECT held_at IS NOT NULL FROM restored";
        assert!(db.query_row(held, [], |row| row.get::<_, bool>(0)).unwrap());
        let members = "SELECT count(*) FROM memberships WHERE until_at IS NULL";
        assert_eq!(
            db.query_row(members, [], |row| row.get::<_, i64>(0))
                .unwrap(),
            1
        );
        drop(db);
        // Whatever was replaced is kept, and its write-ahead log with it.
        assert!(dir.join("replaced-1/keyfall.db").exists(), "{round}");
        fs::remove_dir_all(&dir).unwrap();
        if ended {
            return;
        }
    }
}
