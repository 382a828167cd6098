//! The operator's verbs when a terminal is lost: what they show, ask, do and refuse.

use std::fs;
use std::path::PathBuf;

use keyfall_protocol::enrolment::{EnrolmentCode, EnrolmentPackage, SealedPackage};
use keyfall_protocol::receipt::Receipt;
use serde_json::Value;

use crate::ran::{Background, Ran, keyfall_with};
use crate::server::Place;

/// A fleet with terminals alice, bob and carol, all in ops, alice in all, too.
struct Fleet {
    place: Place,
    packages: Vec<EnrolmentPackage>,
    _server: Background,
}

impl Fleet {
    fn new() -> Self {
        Self::with(&[])
    }

    fn with(options: &[&str]) -> Self {
        let place = Place::new();
        assert_eq!(place.init_with(options).exit, 0);
        let server = place.serve();
        let out = place.top.path().to_str().unwrap().to_owned();
        let added = place.told(&["terminal", "add", "alice", "bob", "carol", "--out", &out]);
        let packages = added["terminals"].as_array().unwrap().iter().map(opened);
        let packages = packages.collect();
        let all = ["alice", "bob", "carol"];
        let members: Vec<_> = all.iter().flat_map(|name| ["--member", name]).collect();
        place.told(&[&["group", "create", "ops"], &members[..]].concat());
        place.told(&["group", "create", "all", "--member", "alice"]);
        Self {
            place,
            packages,
            _server: server,
        }
    }

    fn erase_key(&self) -> String {
        self.key("erase.key")
    }

    fn key(&self, name: &str) -> String {
        self.place.dir.join(name).to_str().unwrap().to_owned()
    }

    fn admin(&self, words: &[&str]) -> Ran {
        self.place.admin(words)
    }

    fn told(&self, words: &[&str]) -> Value {
        self.place.told(words)
    }

    #[track_caller]
    fn says(&self, words: &[&str]) -> String {
        let ran = self.admin(words);
        assert_eq!(ran.exit, 0, "{words:?}: {}", ran.stderr);
        ran.stdout
    }

    /// What a terminal that obeyed the newest order would leave.
    fn receipt(&self, terminal: usize) -> Receipt {
        let package = &self.packages[terminal];
        let db = rusqlite::Connection::open(self.place.dir.join("keyfall.db")).unwrap();
        let newest = "SELECT hash FROM erase_orders ORDER BY id DESC LIMIT 1";
        let hash = db.query_row(newest, [], |row| row.get(0)).unwrap();
        Receipt::make(package.identity.number, hash, &package.obey)
    }
}

fn opened(terminal: &Value) -> EnrolmentPackage {
    let octets = fs::read(terminal["package"].as_str().unwrap()).unwrap();
    let code = EnrolmentCode::parse(terminal["code"].as_str().unwrap()).unwrap();
    SealedPackage::decode(&octets)
        .unwrap()
        .open_under(&code)
        .unwrap()
}

/// REQUIREMENTS, W-18: the reach is shown before, nothing is done unasked, then it is one
/// order; with the erase key the deletion, too.
#[test]
fn a_lost_terminal_is_shut_out_and_told_to_delete() {
    let fleet = Fleet::new();
    let asked = fleet.admin(&["exclude", "alice"]);
    asked.refuses(2, "KF-3006", "--dry-run, then give --yes");
    fleet
        .admin(&["delete-keys", "alice", "--erase-key", &fleet.erase_key()])
        .refuses(2, "KF-3006", "--yes");
    let would = fleet.told(&["exclude", "alice", "--dry-run", "--exact"]);
    assert_eq!(
        (&would["dry_run"], &would["members"]),
        (&true.into(), &2.into())
    );
    let shown = fleet.says(&[
        "exclude",
        "alice",
        "--dry-run",
        "--erase-key",
        &fleet.erase_key(),
    ]);
    for words in [
        "alice (1) would be shut out for good; nothing is ordered",
        "ops (1) would get a fresh key",
        "for 2 members",
        "all (2) would get a fresh key",
        "for nobody",
        "octets",
        "ms on the link",
        "DELETE for alice (1)",
    ] {
        assert!(shown.contains(words), "{shown} lacks {words}");
    }
    assert!(!shown.contains("Sent:"), "{shown}");

    let told = fleet.says(&[
        "exclude",
        "alice",
        "--erase-key",
        &fleet.erase_key(),
        "--yes",
        "--reason",
        "stolen",
        "--ticket",
        "T-7",
    ]);
    for words in [
        "alice (1) is shut out for good",
        "Exact: fresh keys, wrapped for each other member by itself: 2 members.",
        "Sent: EXCLUDE and KEYDIST",
        "Probably received by everyone who hears the carrier",
        "Nobody has confirmed anything",
        "DELETE for alice (1): sent",
        "nothing is proved",
        "keyfall admin exposure alice",
    ] {
        assert!(told.contains(words), "{told} lacks {words}");
    }
    let shown = fleet.told(&["terminal", "show", "alice"]);
    assert!(shown["terminal"]["excluded_at"].is_u64());
    assert_eq!(shown["terminal"]["erasure"].get("proved_at"), None);
    assert_eq!(shown["groups"], Value::Array(Vec::new()));
    let list = fleet.says(&["terminal", "list"]);
    let row = list.lines().find(|line| line.contains("alice")).unwrap();
    assert!(
        row.contains("excluded since") && row.contains("deletion sent"),
        "{row}"
    );
    let row = list.lines().find(|line| line.contains("bob")).unwrap();
    assert!(
        row.ends_with("added"),
        "{row}: nobody knows whether it was enrolled"
    );
    let log = fleet.told(&["audit", "--last", "2"]);
    for (entry, action) in log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .zip(["exclude", "delete-keys"])
    {
        assert_eq!(entry["action"], action);
        assert_eq!(
            (&entry["reason"], &entry["ticket"]),
            (&"stolen".into(), &"T-7".into())
        );
    }

    // A receipt, as octets and as text, from a file and from stdin.
    let receipt = fleet.receipt(0);
    let file = fleet.place.top.path().join("alice.receipt");
    fs::write(&file, receipt.encode()).unwrap();
    let told = fleet.says(&["receipt", file.to_str().unwrap(), "--reason", "came home"]);
    assert!(
        told.contains("DELETE for alice (1): sent") && told.contains("proved"),
        "{told}"
    );
    let words = ["admin", "receipt", "-", "--dir", fleet.place.dir()];
    let again = keyfall_with(words, format!("{receipt}\n").as_bytes());
    again.refuses(3, "KF-3324", "proved already");
    keyfall_with(words, b"hello").refuses(1, "KF-3323", "KF1-RECEIPT-");
    let missing = fleet.admin(&["receipt", "/nowhere/receipt"]);
    missing.refuses(1, "KF-3003", "cannot read");
    let shown = fleet.says(&["terminal", "show", "alice"]);
    assert!(shown.contains("deletion proved"), "{shown}");
    let exposed = fleet.says(&["exposure", "alice"]);
    assert!(
        exposed.contains("DELETE is proved") && exposed.contains("it is excluded"),
        "{exposed}"
    );

    fleet
        .admin(&["exclude", "alice", "--yes"])
        .refuses(3, "KF-3319", "excluded for good");
    fleet
        .admin(&["exclude", "nobody", "--yes"])
        .refuses(1, "KF-3306", "no terminal nobody");
    fleet
        .admin(&["group", "add", "all", "alice"])
        .refuses(3, "KF-3319", "enrol the device anew");
    fleet
        .admin(&["exclude"])
        .refuses(2, "KF-3001", "<TERMINAL>");
    fleet
        .admin(&[
            "exclude",
            "bob",
            "--yes",
            "--erase-key",
            &fleet.key("seal.key"),
        ])
        .refuses(1, "KF-3007", "not an Ed25519 private key");
    let bob = fleet.told(&["terminal", "show", "bob"]);
    assert_eq!(bob["terminal"].get("excluded_at"), None, "nothing was done");
}

/// REQUIREMENTS W-17: m different keys of the fleet; too few are told in one sentence.
#[test]
fn several_people_sign_what_deletes() {
    let fleet = Fleet::with(&["--erase-quorum", "2", "--erase-keys", "3"]);
    let (one, two) = (fleet.key("erase.key"), fleet.key("erase-2.key"));
    let delete = ["delete-keys", "bob", "--yes", "--erase-key", &one];
    let more = |further: &[&str]| fleet.admin(&[&delete[..], further].concat());
    more(&[]).refuses(
        3,
        "KF-3321",
        "2 of this fleet's erase keys must sign and 1 did",
    );
    more(&["--erase-key", &one]).refuses(2, "KF-3001", "a different one each time");
    more(&["--erase-key", &fleet.key("root.key")]).refuses(3, "KF-3321", "not an erase key");
    more(&["--erase-key", "/nowhere/erase.key"]).refuses(1, "KF-3007", "cannot read the key");
    let told = more(&["--erase-key", &two, "--receipt"]);
    assert_eq!(told.exit, 0, "{}", told.stderr);
    assert!(
        told.stdout.contains("keyfall admin receipt FILE"),
        "{}",
        told.stdout
    );
    let wanted = ["delete-keys", "bob"];
    fleet.admin(&wanted).refuses(2, "KF-3001", "--erase-key");

    let place = Place::new();
    let init = place.init_with(&["--erase-quorum", "2"]);
    assert_eq!(init.exit, 2);
    assert!(
        init.stdout.contains("give --erase-keys 2 or more"),
        "{}",
        init.stdout
    );
    assert_eq!(place.init_with(&["--erase-keys", "5"]).exit, 2);
    assert!(!place.dir.exists());
}

/// REQUIREMENTS: initialize, lock and unlock; a lock asks nobody, it can be undone.
#[test]
fn a_terminal_is_locked_unlocked_and_initialized() {
    let fleet = Fleet::new();
    let key = fleet.erase_key();
    let told = fleet.says(&["lock", "bob", "--erase-key", &key, "--reason", "missing"]);
    assert!(
        told.contains("LOCK for bob (2): sent") && told.contains("nothing is proved"),
        "{told}"
    );
    let state = |fleet: &Fleet| {
        fleet.told(&["terminal", "show", "bob"])["terminal"]["lock"]["kind"].clone()
    };
    assert_eq!(state(&fleet), "lock");
    assert!(
        fleet
            .says(&["terminal", "show", "bob"])
            .contains("state: lock sent")
    );
    fleet.told(&["unlock", "2", "--erase-key", &key]);
    assert_eq!(state(&fleet), "unlock");
    let dry = fleet.told(&["initialize", "bob", "--erase-key", &key, "--dry-run"]);
    assert_eq!(
        (&dry["dry_run"], &dry["kind"]),
        (&true.into(), &"init".into())
    );
    assert_eq!(
        fleet.told(&["terminal", "show", "bob"])["terminal"].get("erasure"),
        None
    );
    fleet.told(&[
        "initialize",
        "bob",
        "--erase-key",
        &key,
        "--yes",
        "--reason",
        "scrapped",
    ]);
    let log = fleet.told(&["audit", "--last", "3"]);
    let actions: Vec<_> = log["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["lock", "unlock", "initialize"]);
}

/// The server's own limit is met before anything is done, and is called what it is.
#[test]
fn a_mass_deletion_stops_before_it_begins() {
    let fleet = Fleet::new();
    let key = fleet.erase_key();
    for _ in 0..9 {
        fleet.told(&["delete-keys", "alice", "--erase-key", &key, "--yes"]);
    }
    let exclude = ["exclude", "bob", "carol", "--erase-key", &key, "--yes"];
    let stopped = fleet.admin(&exclude);
    stopped.refuses(3, "KF-3328", "no security boundary");
    assert_eq!(
        fleet.told(&["terminal", "show", "bob"])["terminal"].get("excluded_at"),
        None
    );
    let done = fleet.told(&[&exclude[..], &["--force"]].concat());
    assert_eq!(done["deletions"].as_array().unwrap().len(), 2);
    fleet
        .admin(&["delete-keys", "bob", "--erase-key", &key, "--yes"])
        .refuses(3, "KF-3328", "--force or wait");
}

/// Leaving and rekeying: a fresh epoch each, said before and after.
#[test]
fn members_leave_and_groups_are_rekeyed() {
    let fleet = Fleet::new();
    let epoch = |fleet: &Fleet| {
        let group = fleet.told(&["group", "show", "ops"]);
        group["group"]["key"]["epoch"].as_u64().unwrap()
    };
    let first = epoch(&fleet);
    let dry = fleet.says(&["group", "remove", "ops", "bob", "--dry-run"]);
    assert!(
        dry.contains("Not ordered") && dry.contains("for 2 members"),
        "{dry}"
    );
    assert!(
        fleet
            .says(&["rekey", "ops", "--dry-run"])
            .contains("would get a fresh key")
    );
    assert_eq!(epoch(&fleet), first);
    fleet
        .admin(&["group", "remove", "all", "alice", "bob"])
        .refuses(3, "KF-3317", "terminal 2 is not a member");
    assert_eq!(
        fleet.told(&["group", "show", "all"])["group"]["members"],
        1,
        "all or none"
    );
    let removed = fleet.told(&[
        "group", "remove", "ops", "bob", "carol", "--reason", "moved",
    ]);
    assert_eq!(removed["removed"].as_array().unwrap().len(), 2);
    let second = epoch(&fleet);
    assert!(second > first);
    let told = fleet.says(&["rekey", "ops", "--reason", "quarterly"]);
    assert!(
        told.contains("ops (1) gets a fresh key") && told.contains("for 1 member\n"),
        "{told}"
    );
    assert!(epoch(&fleet) > second);
    assert_eq!(
        fleet.told(&["group", "remove", "ops", "alice"])["removed"][0]["epoch"]["members"],
        0
    );
    assert!(fleet.says(&["group", "show", "ops"]).contains("0 members"));
    fleet.told(&["group", "add", "ops", "carol"]);
}

/// REQUIREMENTS R-046: one device alone.
#[test]
fn one_device_is_renewed_alone() {
    let fleet = Fleet::new();
    assert!(
        fleet
            .says(&["renew", "--device", "bob", "--dry-run"])
            .contains("would be sent")
    );
    let told = fleet.says(&["renew", "--device", "bob"]);
    assert!(
        told.contains("G + 1, stored") && told.contains("never excludes anyone"),
        "{told}"
    );
    assert!(fleet.says(&["keys"]).contains("1 (G + 1)"));
    fleet
        .admin(&["renew", "--device", "bob", "--all-devices"])
        .refuses(2, "KF-3001", "cannot be used with");
    fleet.admin(&["renew"]).refuses(2, "KF-3001", "--device");
}

/// What a thief has, as a table for people and as JSON; what INIT wipes is declared at enrolment.
#[test]
fn exposure_and_wipe_roots_are_shown() {
    let fleet = Fleet::new();
    let shown = fleet.says(&["exposure", "alice"]);
    for words in [
        "A thief who took alice (1) at",
        "OPENS FROM",
        "no end",
        "only exclusion ends it, renewing does not: keyfall admin exclude alice",
        "no deletion was ordered: keyfall admin delete-keys alice --erase-key FILE",
        "leases hold honest devices only",
    ] {
        assert!(shown.contains(words), "{shown} lacks {words}");
    }
    let past = fleet.told(&["exposure", "alice", "--at", "2026-01-01 00:01"]);
    assert_eq!(past["at"], 1_767_225_660);
    fleet
        .admin(&["exposure", "alice", "--at", "yesterday"])
        .refuses(2, "KF-3001", "write it in UTC");

    let out: PathBuf = fleet.place.top.path().to_owned();
    let out = out.to_str().unwrap();
    let add = |name: &str, root: &str| {
        fleet.admin(&["terminal", "add", name, "--wipe-root", root, "--out", out])
    };
    for bad in ["relative/path", "/", "/var/../etc"] {
        add("dave", bad).refuses(2, "KF-3318", "absolute path");
    }
    assert_eq!(add("dave", "/var/lib/radio").exit, 0);
    let shown = fleet.says(&["terminal", "show", "dave"]);
    assert!(
        shown.contains("initialize wipes /var/lib/radio, too"),
        "{shown}"
    );
}
