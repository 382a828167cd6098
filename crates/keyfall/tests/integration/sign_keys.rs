//! `keyfall server sign-keys`: with a server that runs, with one that does not, and with a root that
//! stays elsewhere.

use std::fs;

use crate::ran::{Ran, keyfall};
use crate::server::Place;

fn sign_keys(place: &Place, words: &[&str]) -> Ran {
    let all = ["server", "sign-keys", place.dir()];
    keyfall(all.into_iter().chain(words.iter().copied()))
}

fn root(place: &Place) -> String {
    place.dir.join("root.key").to_str().unwrap().to_owned()
}

fn in_use(place: &Place) -> Vec<String> {
    let keys = place.told(&["keys"]);
    let signers = keys["signers"].as_array().unwrap().iter();
    let used = signers.filter(|signer| signer["in_use"] == true);
    used.map(|signer| signer["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_next_keys_are_signed_while_the_server_runs_and_while_it_does_not() {
    let place = Place::new();
    place.init();
    let root = root(&place);
    // A root that was moved away, as it should be.
    let away = place.top.path().join("usb.key");
    fs::rename(&root, &away).unwrap();
    let root = away.to_str().unwrap();
    sign_keys(&place, &[]).refuses(2, "KF-3001", "--root");
    let erase = place.dir.join("erase.key");
    let wrong = ["--root", erase.to_str().unwrap()];
    sign_keys(&place, &wrong).refuses(3, "KF-3327", "not this fleet's root");

    let stopped = sign_keys(&place, &["--root", root, "--life", "1h"]);
    assert_eq!(stopped.exit, 0, "{}", stopped.stderr);
    assert!(
        stopped.stdout.contains("will be sent when the server runs"),
        "{}",
        stopped.stdout
    );
    let server = place.serve();
    let first = in_use(&place);
    let running = sign_keys(&place, &["--root", root, "--reason", "monthly", "--json"]).document();
    assert_eq!(running["fresh_epochs"], 0);
    let second = in_use(&place);
    assert!(
        first.iter().all(|name| !second.contains(name)),
        "{first:?} {second:?}"
    );
    let log = place.told(&["audit", "--last", "1"]);
    assert_eq!(log["entries"][0]["reason"], "monthly");
    assert_eq!(
        place.told(&["status"])["signers_expire"],
        running["expires"]
    );

    sign_keys(&place, &wrong).refuses(3, "KF-3327", "take the root.key");
    let ran = sign_keys(&place, &["--root", root, "--stolen", "nobody"]);
    ran.refuses(1, "KF-3325", "16 hexadecimal digits");
    let stolen = [
        "--root",
        root,
        "--stolen",
        &second[1],
        "--reason",
        "laptop lost",
    ];
    let ran = sign_keys(&place, &stolen);
    assert!(
        ran.stdout.contains(&format!("Stolen: {}", second[1])),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
    for life in ["30m", "31d"] {
        sign_keys(&place, &["--root", root, "--life", life]).refuses(2, "KF-3001", "1h to 30d");
    }
    drop(server);
    let nowhere = ["server", "sign-keys", "/nowhere", "--root", root];
    keyfall(nowhere).refuses(1, "KF-3201", "no server in /nowhere");
}

/// The root key is on a machine that has never seen the server.
#[test]
fn a_root_that_stays_elsewhere_signs_a_file() {
    let place = Place::new();
    place.init();
    let file = place.top.path().join("next.keyset");
    let file = file.to_str().unwrap();
    let drafted = sign_keys(&place, &["--draft", file, "--json"]).document();
    assert_eq!(drafted["file"], file);
    sign_keys(&place, &["--draft", file]).refuses(1, "KF-3003", "is there already");
    sign_keys(&place, &["--install", file]).refuses(1, "KF-3216", "is not signed yet");
    // Meanwhile the server was started, ended and started again.
    drop(place.serve());
    let _server = place.serve();
    let root = root(&place);
    let sign = ["server", "sign-keys", "--sign", file, "--root", &root];
    let signed = keyfall(sign.into_iter().chain(["--json"])).document();
    assert_eq!(
        (&signed["version"], &signed["ok"]),
        (&drafted["version"], &true.into())
    );
    assert_eq!(signed["keys"].as_array().unwrap().len(), 7);
    keyfall(sign).refuses(1, "KF-3216", "signed already");
    let installed = sign_keys(&place, &["--install", file, "--json"]).document();
    assert_eq!(installed["version"], drafted["version"]);
    sign_keys(&place, &["--install", file]).refuses(3, "KF-3322", "draft and sign it again");
    let junk = place.top.path().join("junk");
    fs::write(&junk, "hello").unwrap();
    let junk = junk.to_str().unwrap();
    sign_keys(&place, &["--install", junk]).refuses(1, "KF-3216", "holds no KEYSET");
    keyfall(["server", "sign-keys", "--sign", junk, "--root", &root]).refuses(
        1,
        "KF-3216",
        "no KEYSET",
    );
    assert_eq!(fs::read(junk).unwrap(), b"hello");
    let both = sign_keys(&place, &["--install", file, "--draft", file]);
    both.refuses(2, "KF-3001", "cannot be used with");
}

impl Place {
    /// Longest lease, wait after an exclusion, dead man's time, erase signatures, of the KEYSET in
    /// force.
    fn told_limits(&self) -> Vec<String> {
        let db = rusqlite::Connection::open(self.dir.join("keyfall.db")).unwrap();
        let frame: Vec<u8> = db
            .query_row("SELECT key_set FROM fleet", [], |row| row.get(0))
            .unwrap();
        let file = self.top.path().join("key_set");
        fs::write(&file, frame).unwrap();
        let shown = keyfall(["inspect", file.to_str().unwrap(), "--json"]).document();
        let fields = shown["messages"][0]["fields"].as_array().unwrap().clone();
        let of = |name: &str| {
            let field = fields.iter().find(|field| field["name"] == name).unwrap();
            let value = field["value"].as_str().unwrap();
            value.trim_end_matches(" s").to_owned()
        };
        let names = [
            "longest lease",
            "no sending after an exclusion",
            "dead man's time",
            "erase signatures",
        ];
        names.map(of).into()
    }
}

/// What `server init` decides about leases and exclusions stands in the KEYSET that the root signs.
#[test]
fn limits_are_the_roots() {
    let place = Place::new();
    let options = [
        "--longest-lease",
        "4h",
        "--dead-man",
        "7d",
        "--fail-closed",
        "--erase-keys",
        "3",
        "--erase-quorum",
        "2",
    ];
    let made = place.init_with(&options).document();
    assert_eq!(made["erase_quorum"], 2);
    let files = made["erase_keys"].as_array().unwrap();
    assert_eq!(files.len(), 3);
    assert!(
        files
            .iter()
            .all(|file| fs::metadata(file.as_str().unwrap()).is_ok())
    );
    assert_eq!(
        place.told_limits(),
        ["14400", "until the new epoch is there", "604800", "2"]
    );
    let other = Place::new();
    let ran = other.init_with(&["--fail-closed", "--exclude-wait", "5m"]);
    assert_eq!(ran.exit, 2, "{}", ran.stdout);
    other.init_with(&["--exclude-wait", "5m"]).document();
    assert_eq!(other.told_limits(), ["259200", "300", "2592000", "1"]);
}
