//! `keyfall server` and `keyfall admin`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use keyfall_protocol::enrolment::{EnrolmentCode, SealedPackage};
use rustix::process::{Pid, Signal, kill_process};

use crate::ran::{Background, Ran, command, keyfall, until};

/// A place for a server and its packages.
pub(crate) struct Place {
    pub(crate) top: tempfile::TempDir,
    pub(crate) dir: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("fleet");
        Self { top, dir }
    }

    pub(crate) fn dir(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    pub(crate) fn init(&self) -> Ran {
        self.init_with(&[])
    }

    pub(crate) fn init_with(&self, options: &[&str]) -> Ran {
        // Loopback only, and heard by nobody else's test.
        let carrier = format!(
            "udp://239.255.72.1:{}?if=127.0.0.1&ttl=0",
            40_000 + std::process::id() % 20_000
        );
        let words = [
            "server",
            "init",
            self.dir(),
            "--carrier",
            &carrier,
            "--json",
        ];
        keyfall(words.into_iter().chain(options.iter().copied()))
    }

    pub(crate) fn serve(&self) -> Background {
        let server = command(["server", "run", self.dir()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Background(server);
        until("the server answers", || self.admin(&["status"]).exit == 0);
        server
    }

    pub(crate) fn admin(&self, words: &[&str]) -> Ran {
        let mut all = vec!["admin"];
        all.extend_from_slice(words);
        all.extend_from_slice(&["--dir", self.dir()]);
        keyfall(all)
    }

    /// With --json, and done.
    #[track_caller]
    pub(crate) fn told(&self, words: &[&str]) -> serde_json::Value {
        let mut all = words.to_vec();
        all.push("--json");
        self.admin(&all).document()
    }
}

/// From nothing to a renewed group, in the words of the README.
#[test]
fn a_fleet_is_founded_filled_and_renewed() {
    let place = Place::new();
    let made = place.init().document();
    assert_eq!(made["ok"], true);
    assert_eq!(made["seal"], "file");
    for file in [&made["root_key"], &made["erase_key"]] {
        let key = fs::read_to_string(file.as_str().unwrap()).unwrap();
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----\n"), "{key}");
    }
    let _server = place.serve();

    let out = place.top.path().join("packages");
    fs::create_dir(&out).unwrap();
    let out = out.to_str().unwrap();
    let added = place.told(&["terminal", "add", "alice", "bob", "--out", out]);
    for (terminal, name) in added["terminals"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["alice", "bob"])
    {
        let path = terminal["package"].as_str().unwrap();
        assert_eq!(path, format!("{out}/{name}.enrol"));
        let mode = fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let sealed = SealedPackage::decode(&fs::read(path).unwrap()).unwrap();
        let code = EnrolmentCode::parse(terminal["code"].as_str().unwrap()).unwrap();
        assert_eq!(sealed.open_under(&code).unwrap().identity.name, name);
    }

    let group = place.told(&[
        "group", "create", "ops", "--member", "alice", "--member", "bob",
    ]);
    assert_eq!(
        (&group["number"], &group["members"]),
        (&1.into(), &2.into())
    );
    let dry = place.told(&["renew", "--group", "ops", "--dry-run"]);
    let renewed = place.told(&[
        "renew", "--group", "1", "--reason", "weekly", "--ticket", "T-7",
    ]);
    assert_eq!(dry["generation"], renewed["generation"]);
    assert!(renewed["octets"].as_u64().unwrap() <= 170);
    let told = place.admin(&["renew", "--group", "ops"]);
    assert_eq!(told.exit, 0);
    assert!(told.stdout.contains("reaches 2 members"), "{}", told.stdout);
    assert!(
        told.stdout.contains("never excludes anyone"),
        "{}",
        told.stdout
    );
    assert!(!told.stdout.contains("received"), "{}", told.stdout);
    place.told(&["renew", "--all-devices"]);
    let keys = place.told(&["keys"]);
    let mut ids: Vec<_> = keys["keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| &key["id"])
        .collect();
    ids.sort_by_key(|id| id.as_u64());
    assert_eq!(ids, [4, 5, 7, 8, 9]);
    let log = place.told(&["audit", "--last", "3"]);
    assert_eq!(log["entries"][0]["reason"], "weekly");
    assert_eq!(log["entries"][0]["ticket"], "T-7");
    assert_eq!(place.told(&["audit", "verify"])["whole"], true);
    assert_eq!(place.told(&["carousel", "--loss", "0.01"])["turns"], 3);
}

#[test]
fn every_report_reads_in_words_too() {
    let place = Place::new();
    place.init();
    let _server = place.serve();
    for (words, says) in [
        (&["terminal", "list"][..], "no terminals yet"),
        (&["group", "list"], "no groups yet"),
        (
            &[
                "terminal",
                "add",
                "alice",
                "bob",
                "--out",
                place.top.path().to_str().unwrap(),
            ],
            "code ",
        ),
        (
            &[
                "group", "create", "ops", "--member", "alice", "--period", "10m",
            ],
            "group 1",
        ),
        (&["group", "add", "ops", "bob"], "reads nothing from before"),
        (&["terminal", "list"], "NUMBER"),
        (&["terminal", "show", "alice"], "member of ops (1)"),
        (
            &["group", "set", "ops", "--change", "barrier", "--dry-run"],
            "change: hitless would become barrier",
        ),
        (
            &["group", "set", "ops", "--stragglers", "leave-out"],
            "stragglers: leave-out, was follow",
        ),
        (
            &["group", "set", "ops", "--legacy-sharing", "on"],
            "warning: MISTY1",
        ),
        (&["group", "list"], "leave-out"),
        (&["group", "show", "1"], "alice (1), bob (2)"),
        (
            &["group", "show", "1"],
            "changes its key: hitless; stragglers: leave-out; legacy sharing: on",
        ),
        (&["renew", "--all-devices", "--dry-run"], "would be sent"),
        (&["keys"], "LEASE"),
        (&["audit"], "group create"),
        (&["audit", "verify"], "each hangs on the one before"),
        (&["carousel"], "Nobody has confirmed anything"),
        (&["status"], "2 terminals, 1 groups"),
    ] {
        let ran = place.admin(words);
        assert_eq!(ran.exit, 0, "{words:?}: {}", ran.stderr);
        assert!(ran.stdout.contains(says), "{words:?}: {}", ran.stdout);
    }
}

/// KR-388. What `--listen` says goes into packages where `--address` is not given.
#[test]
fn a_server_that_cannot_be_asked_is_not_founded() {
    let place = Place::new();
    let init = |options: &[&str]| {
        let words = ["server", "init", place.dir()];
        keyfall(words.into_iter().chain(options.iter().copied()))
    };
    for address in [
        "0.0.0.0:47900",
        "[::]:47900",
        "keys.example:0",
        "keys.example",
    ] {
        let ran = init(&["--listen", "127.0.0.1:47900", "--address", address]);
        ran.refuses(2, "KF-3001", "write HOST:PORT as a terminal reaches it");
    }
    for listen in ["0.0.0.0:47900", "[::]:47900", "127.0.0.1:0"] {
        let ran = init(&["--listen", listen]);
        ran.refuses(2, "KF-3001", "say with --address HOST:PORT how they reach");
    }
    assert!(!place.dir.exists());
    let address = [
        "--listen",
        "0.0.0.0:47900",
        "--address",
        "keys.example:47900",
    ];
    assert_eq!(place.init_with(&address).exit, 0);
}

/// DESIGN section 9: the exit codes, and one sentence with a code.
#[test]
fn refusals_have_their_exit_codes() {
    let place = Place::new();
    let init = ["server", "init", place.dir()];
    keyfall(["server", "run", place.dir()]).refuses(1, "KF-3201", "keyfall server init");
    place
        .admin(&["status"])
        .refuses(4, "KF-3204", "`keyfall server run ");
    keyfall(["server", "init"]).refuses(2, "KF-3001", "which server is meant?");
    for (option, value) in [
        ("--carrier", "udp://10.0.0.1:5?if=127.0.0.1"),
        ("--rate", "fast"),
        ("--signer-life", "31d"),
        ("--fleet-period", "0"),
        ("--name", ""),
    ] {
        let ran = keyfall(init.into_iter().chain([option, value]));
        ran.refuses(2, "KF-3001", option);
        assert!(!place.dir.exists());
    }
    assert_eq!(place.init().exit, 0);
    keyfall(init).refuses(3, "KF-3202", "not empty");

    let server = place.serve();
    keyfall(["server", "run", place.dir()]).refuses(5, "KF-3203", "end that server first");
    let out = place.top.path().to_str().unwrap();
    let add = |names: &[&str]| {
        let mut words = vec!["terminal", "add", "--out", out];
        words.extend_from_slice(names);
        place.admin(&words)
    };
    assert_eq!(add(&["alice"]).exit, 0);
    add(&["alice"]).refuses(1, "KF-3215", "is there already");
    fs::remove_file(place.top.path().join("alice.enrol")).unwrap();
    add(&["alice"]).refuses(3, "KF-3305", "alice is taken");
    assert!(!place.top.path().join("alice.enrol").exists());
    add(&["7"]).refuses(2, "KF-3304", "is no name");
    add(&["a/b"]).refuses(2, "KF-3304", "slash");
    add(&["x", "--for", "KF1-7"]).refuses(2, "KF-3311", "not a request key");
    add(&["x", "y", "--for", "KF1-7"]).refuses(2, "KF-3001", "name one terminal");
    let group = |words: &[&str]| place.admin(&[&["group"], words].concat());
    group(&["create", "g", "--member", "nobody"]).refuses(1, "KF-3306", "no terminal nobody");
    group(&["create", "g"]).refuses(2, "KF-3001", "--member");
    group(&[
        "create", "g", "--member", "1", "--period", "1s", "--step", "9",
    ])
    .refuses(2, "KF-3312", "64 in 600 s");
    assert_eq!(
        group(&["create", "g", "--member", "1", "--period", "never"]).exit,
        0
    );
    group(&["add", "g", "alice"]).refuses(3, "KF-3309", "a member already");
    group(&["show", "../g"]).refuses(1, "KF-3307", "no group ../g");
    place.admin(&["renew"]).refuses(2, "KF-3001", "--group");
    place
        .admin(&["carousel", "--loss", "1"])
        .refuses(2, "KF-3301", "less than 1");
    let refused = place.admin(&["renew", "--group", "none", "--json"]);
    let document: serde_json::Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(refused.exit, 1);
    assert_eq!(document["code"], "KF-3307");

    drop(server);
    place
        .admin(&["renew", "--all-devices"])
        .refuses(4, "KF-3204", "keyfall server run");
    fs::set_permissions(
        place.dir.join("seal.key"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    keyfall(["server", "run", place.dir()]).refuses(3, "KF-3205", "chmod 600");
    fs::remove_file(place.dir.join("seal.key")).unwrap();
    keyfall(["server", "run", place.dir()]).refuses(5, "KF-3206", "put it back");
    fs::remove_file(place.dir.join("journal")).unwrap();
    keyfall(["server", "run", place.dir()]).refuses(1, "KF-3209", "is missing");
}

/// The codes of packages that were made before a failure are shown: they are known nowhere else.
#[test]
fn what_was_added_before_a_failure_is_told() {
    let place = Place::new();
    place.init();
    let _server = place.serve();
    let out = place.top.path().to_str().unwrap();
    let ran = place.admin(&[
        "terminal",
        "add",
        "alice",
        "not a name",
        "bob",
        "--out",
        out,
    ]);
    assert_eq!(ran.exit, 2);
    assert!(ran.stdout.contains("alice: terminal 1") && ran.stdout.contains("code "));
    assert!(ran.stderr.contains("KF-3304"), "{}", ran.stderr);

    fs::remove_file(place.top.path().join("alice.enrol")).unwrap();
    let ran = place.admin(&["terminal", "add", "carol", "alice", "--out", out, "--json"]);
    assert_eq!(ran.exit, 3);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(document["ok"], false);
    assert_eq!(document["terminals"][0]["name"], "carol");
    assert!(document["stopped"].as_str().unwrap().contains("alice"));
    let left: Vec<_> = ["alice", "bob", "carol"]
        .map(|name| place.top.path().join(format!("{name}.enrol")).exists())
        .into();
    assert_eq!(left, [false, false, true]);
}

#[test]
fn a_changed_audit_log_is_told_by_the_exit_code() {
    let place = Place::new();
    place.init();
    let _server = place.serve();
    rusqlite::Connection::open(place.dir.join("keyfall.db"))
        .and_then(|db| db.execute_batch("UPDATE audit SET actor = 'nobody' WHERE entry = 1"))
        .unwrap();
    let ran = place.admin(&["audit", "verify", "--json"]);
    assert_eq!(ran.exit, 1, "{}", ran.stdout);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&document["whole"], &document["broken_at"]),
        (&false.into(), &1.into())
    );
    let ran = place.admin(&["audit", "verify"]);
    assert!(ran.stdout.contains("entry 1 was changed"), "{}", ran.stdout);
}

#[test]
fn a_server_says_when_it_is_ready_and_ends_by_signal() {
    let place = Place::new();
    place.init();
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = command(["server", "run", "--json"])
            .env("KEYFALL_DIR", &place.dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = server.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let document: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(document["ok"], true);
        assert!(PathBuf::from(document["admin"].as_str().unwrap()).exists());
        let ran = command(["admin", "status", "--json"])
            .env("KEYFALL_DIR", &place.dir)
            .output()
            .unwrap();
        assert!(ran.status.success());
        kill_process(Pid::from_child(&server), signal).unwrap();
        assert_eq!(server.wait().unwrap().code(), Some(0));
        assert!(!place.dir.join("admin.sock").exists());
    }
}

#[test]
fn every_command_has_an_example() {
    for words in [
        "server init",
        "server run",
        "server backup",
        "server restore",
        "admin confirm",
        "server sign-keys",
        "admin terminal add",
        "admin terminal list",
        "admin terminal show",
        "admin group create",
        "admin group add",
        "admin group remove",
        "admin group list",
        "admin group show",
        "admin renew",
        "admin rekey",
        "admin exclude",
        "admin delete-keys",
        "admin initialize",
        "admin lock",
        "admin unlock",
        "admin receipt",
        "admin exposure",
        "admin keys",
        "admin audit",
        "admin audit verify",
        "admin carousel",
        "admin status",
    ] {
        let ran = keyfall(words.split(' ').chain(["--help"]));
        assert_eq!(ran.exit, 0, "{words}: {}", ran.stderr);
        let example = format!("keyfall {words}");
        assert!(
            ran.stdout.contains("Example:\n  keyfall "),
            "{}",
            ran.stdout
        );
        assert!(ran.stdout.contains(&example), "{words}: {}", ran.stdout);
    }
}

/// Packet groups in the words of the command line.
#[test]
fn packet_groups_and_addresses_are_set_and_shown() {
    let place = Place::new();
    assert_eq!(place.init().exit, 0);
    let _server = place.serve();
    let out = place.top.path().to_str().unwrap();
    place.told(&["terminal", "add", "truck1", "hub", "--out", out]);
    let created = place.admin(&[
        "group",
        "create",
        "net",
        "--member",
        "truck1",
        "--packets",
        "--network",
        "10.77.0.0/16",
        "--priority",
        "5",
    ]);
    assert_eq!(created.exit, 0, "{}", created.stderr);
    let set = place.admin(&["group", "set", "net", "--mtu", "1380"]);
    assert!(set.stdout.contains("AES-256-GCM"), "{}", set.stdout);
    let set = place.admin(&["group", "set", "net", "--suite", "chacha20-poly1305"]);
    for word in [
        "routes 10.77.0.0/16",
        "priority 5",
        "MTU 1380",
        "ChaCha20-Poly1305",
    ] {
        assert!(set.stdout.contains(word), "{}", set.stdout);
    }
    let set = place.admin(&[
        "terminal",
        "set",
        "truck1",
        "--address",
        "10.77.0.5/32",
        "--address",
        "fd77::5",
        "--endpoint",
        "203.0.113.9:4500",
    ]);
    for word in [
        "speaks for 10.77.0.5/32 fd77::5/128",
        "heard at 203.0.113.9:4500",
        "in net (1)",
    ] {
        assert!(set.stdout.contains(word), "{}", set.stdout);
    }
    let alone = place.admin(&["terminal", "set", "hub", "--prefix", "192.168.5.0/24"]);
    assert!(
        alone
            .stdout
            .contains("warning: this terminal is in no packet group")
    );
    let shown = place.admin(&["terminal", "show", "truck1"]);
    assert!(shown.stdout.contains("speaks for 10.77.0.5/32 fd77::5/128"));
    let shown = place.admin(&["group", "show", "net"]);
    assert!(shown.stdout.contains("packet group"), "{}", shown.stdout);
    let none = place.told(&["terminal", "set", "truck1", "--no-endpoint"]);
    assert_eq!(none["addresses"]["endpoints"], serde_json::json!([]));
    // A network is no address, and the settings of a group need one.
    let wrong = place.admin(&["terminal", "set", "hub", "--address", "10.0.0.0/8"]);
    assert_ne!(wrong.exit, 0);
    assert!(
        wrong.stderr.contains("name it with --prefix"),
        "{}",
        wrong.stderr
    );
    let wrong = place.admin(&["group", "set", "net", "--network", "10.77.1.0/16"]);
    assert!(
        wrong.stderr.contains("the prefix is 10.77.0.0/16"),
        "{}",
        wrong.stderr
    );
    let off = place.admin(&["group", "set", "net", "--no-packets"]);
    assert!(off.stdout.contains("no packet group"), "{}", off.stdout);
}
