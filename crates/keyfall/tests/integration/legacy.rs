//! The suite rsa-misty1 between the daemons, by UDP on loopback: off, turned on step by step, and off.

use std::net::UdpSocket;
use std::process::Stdio;

use serde_json::Value;

use crate::ran::{Background, Ran, command, keyfall, until};
use crate::server::Place;

/// A place whose server listens, with terminal `alice`, which hears no carrier, in group `ops`.
struct Legacy {
    place: Place,
    alice: String,
    public: String,
}

impl Legacy {
    fn new() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        drop(socket);
        let place = Place::new();
        let made = place.init_with(&["--listen", &address, "--address", &address]);
        assert_eq!(made.exit, 0, "{}", made.stderr);
        let file = |name: &str| place.top.path().join(name).to_str().unwrap().to_owned();
        Self {
            alice: file("alice"),
            public: file("alice.rsa"),
            place,
        }
    }

    fn enrol(&self) {
        let out = self.place.top.path().to_str().unwrap();
        let added = self.place.told(&["terminal", "add", "alice", "--out", out]);
        let terminal = &added["terminals"][0];
        let [package, code] = ["package", "code"].map(|it| terminal[it].as_str().unwrap());
        let ran = keyfall(["terminal", "enrol", &self.alice, package, "--code", code]);
        assert_eq!(ran.exit, 0, "{}", ran.stderr);
        self.place
            .told(&["group", "create", "ops", "--member", "alice"]);
    }

    fn legacy_key(&self, words: &[&str]) -> Ran {
        let all = ["terminal", "legacy-key", &self.alice, "--bits", "2048"];
        keyfall(all.into_iter().chain(words.iter().copied()))
    }

    fn sign_keys(&self, words: &[&str]) -> Ran {
        let root = self.place.dir.join("root.key");
        let all = [
            "server",
            "sign-keys",
            self.place.dir(),
            "--root",
            root.to_str().unwrap(),
        ];
        keyfall(all.into_iter().chain(words.iter().copied()))
    }

    /// Runs until it has asked, on a carrier that brings nothing.
    fn asked(&self) -> Value {
        let silence = "udp://239.255.72.2:39999?if=127.0.0.1&ttl=0";
        let running = command(["terminal", "run", &self.alice, "--carrier", silence])
            .stdin(Stdio::null())
            .spawn();
        let running = Background(running.unwrap());
        let status = || keyfall(["terminal", "status", &self.alice, "--json"]);
        let asking = |status: &Value| status["asking"].as_str().unwrap_or("").to_owned();
        until("it has asked", || {
            let ran = status();
            ran.exit == 0
                && asking(&ran.document()).starts_with("rest; in ")
                && !asking(&ran.document()).ends_with("nothing yet")
        });
        let shown = status().document();
        drop(running);
        shown
    }
}

/// W-15, W-16: nothing of it is on in a new fleet; each of the switches is told of.
#[test]
fn two_daemons_speak_the_legacy_suite_once_every_switch_is_on() {
    let it = Legacy::new();
    let server = it.place.serve();
    let refused = it.sign_keys(&["--suites", "hpke,rsa-misty1,psk"]);
    refused.refuses(2, "KF-3326", "only where it stands first");
    let refused = it.sign_keys(&["--suites", "hpke,psk", "--rsa-bits", "2048"]);
    refused.refuses(2, "KF-3326", "for the suite rsa-misty1 alone");
    let signed = it.sign_keys(&["--suites", "rsa-misty1,hpke,psk", "--rsa-bits", "2048"]);
    assert_eq!(signed.exit, 0, "{}", signed.stderr);
    assert!(
        signed.stdout.contains("the cipher is weak"),
        "{}",
        signed.stdout
    );
    it.enrol();

    // Without a key of its own it asks in the next suite.
    let status = it.asked();
    assert_eq!(status["asking"], "rest; in hpke; last: current");
    assert_eq!(status["groups"].as_array().unwrap().len(), 1);

    let made = it.legacy_key(&["--out", &it.public, "--json"]).document();
    it.legacy_key(&["--out", &it.public])
        .refuses(1, "KF-3003", "is there already");
    std::fs::remove_file(&it.public).unwrap();
    let again = it.legacy_key(&["--out", &it.public, "--json"]).document();
    assert_eq!(made["key"], again["key"], "the one that is there");
    let register = ["terminal", "legacy-key", "alice", &it.public];
    let noise = it.place.top.path().join("noise");
    std::fs::write(&noise, [0x30; 300]).unwrap();
    let wrong = ["terminal", "legacy-key", "alice", noise.to_str().unwrap()];
    it.place.admin(&wrong).refuses(2, "KF-3301", "no RSA key");
    let set = it.place.told(&register);
    assert_eq!(set["key"]["name"], made["key"]);
    assert_eq!(set["key"]["bits"], 2048);
    let shown = it.place.told(&["terminal", "show", "alice"]);
    assert_eq!(shown["terminal"]["legacy_key"]["name"], made["key"]);

    let exposed = it.place.told(&["exposure", "alice"])["notes"].to_string();
    assert!(exposed.contains("opens with its RSA key"), "{exposed}");

    // The group does not allow it: nothing comes.
    it.place.told(&["rekey", "ops"]);
    let epoch = |of: &Value| of["groups"][0]["epoch"].as_u64().unwrap();
    let fresh = it.place.told(&["group", "show", "ops"])["group"]["key"]["epoch"].clone();
    let status = it.asked();
    assert_eq!(status["asking"], "rest; in rsa-misty1; last: current");
    assert_eq!(status["legacy_key"], made["key"]);
    assert_ne!(Some(epoch(&status)), fresh.as_u64());
    let set = it
        .place
        .told(&["group", "set", "ops", "--legacy-sharing", "on"]);
    assert!(set["warning"].as_str().unwrap().contains("forward secrecy"));
    let status = it.asked();
    assert_eq!(Some(epoch(&status)), fresh.as_u64());
    let told = it.place.told(&["status"]);
    let warnings = told["warnings"].to_string();
    assert!(warnings.contains("ask in rsa-misty1"), "{warnings}");
    let desk = told["desk"].clone();
    assert!(desk["acks"].as_u64().unwrap() >= 3, "{desk}");

    // And through a restart of the server, whose key and whose registrations are stored.
    drop(server);
    let _server = it.place.serve();
    it.place.told(&["rekey", "ops"]);
    let fresh = it.place.told(&["group", "show", "ops"])["group"]["key"]["epoch"].clone();
    assert_eq!(Some(epoch(&it.asked())), fresh.as_u64());
    let removed = it
        .place
        .told(&["terminal", "legacy-key", "alice", "--remove"]);
    assert_eq!(removed["key"], Value::Null);
    let log = it.place.told(&["audit", "--last", "1"]);
    assert_eq!(log["entries"][0]["action"], "terminal legacy-key");
    assert_eq!(log["entries"][0]["outcome"], "no RSA key is registered");
}

/// The key lies with the wrap key, behind the passphrase, and stays until another is wanted.
#[test]
fn a_protected_terminal_makes_its_rsa_key_by_its_passphrase() {
    let it = Legacy::new();
    let _server = it.place.serve();
    it.enrol();
    let file = |name: &str, text: &str| {
        let path = it.place.top.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let right = file("right", "correct horse battery");
    let wrong = file("wrong", "correct horse staple");
    let ran = keyfall([
        "terminal",
        "protect",
        &it.alice,
        "--passphrase-file",
        &right,
    ]);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    let to = ["--out", &it.public];
    it.legacy_key(&to)
        .refuses(5, "KF-3116", "--passphrase-file");
    let by = |pass: &str, more: &[&str]| {
        let pass = ["--out", &it.public, "--passphrase-file", pass, "--json"];
        let ran = it.legacy_key(&[&pass[..], more].concat());
        drop(std::fs::remove_file(&it.public));
        ran
    };
    assert_ne!(by(&wrong, &[]).exit, 0);
    let made = by(&right, &[]).document()["key"].clone();
    assert_eq!(by(&right, &[]).document()["key"], made);
    assert_ne!(by(&right, &["--renew"]).document()["key"], made);
}

/// A fleet is founded without it.
#[test]
fn a_new_fleet_does_not_have_the_legacy_suite() {
    let place = Place::new();
    let refused = place.init_with(&["--suites", "rsa-misty1,psk"]);
    assert_eq!(refused.exit, 2, "{}", refused.stdout);
    assert!(
        refused.stdout.contains("off in a new fleet"),
        "{}",
        refused.stdout
    );
}
