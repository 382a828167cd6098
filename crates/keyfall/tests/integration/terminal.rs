//! `keyfall terminal`, `keyfall media`, `keyfall explain`, and wrong usage.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use keyfall_protocol::enrolment::{EnrolmentCode, parse_request};
use keyfall_protocol::ids::UnixSeconds;
use keyfall_terminal::OsRandom;

use crate::fleet::{Carrier, Fleet, GROUP};
use crate::ran::{Background, command, keyfall, keyfall_with, until};

/// A package under a code, in a directory that goes with it.
pub(crate) struct Bench {
    pub(crate) fleet: Fleet,
    pub(crate) carrier: Carrier,
    pub(crate) code: String,
    package: PathBuf,
    pub(crate) dir: PathBuf,
    pub(crate) top: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let (fleet, carrier) = (Fleet::new(), Carrier::new());
        let top = tempfile::tempdir().unwrap();
        let code = EnrolmentCode::random(&mut OsRandom);
        let sealed = fleet
            .package(1, &carrier.address)
            .seal_under(&code, &mut OsRandom);
        let package = top.path().join("alice.package");
        std::fs::write(&package, sealed).unwrap();
        Self {
            fleet,
            carrier,
            code: code.shown().to_string(),
            package,
            dir: top.path().join("alice"),
            top,
        }
    }

    pub(crate) fn dir(&self) -> &str {
        self.dir.to_str().unwrap()
    }

    pub(crate) fn package(&self) -> &str {
        self.package.to_str().unwrap()
    }

    pub(crate) fn enrol(&self) {
        let ran = keyfall([
            "terminal",
            "enrol",
            self.dir(),
            self.package(),
            "--code",
            &self.code,
        ]);
        assert_eq!(ran.exit, 0, "{}", ran.stderr);
    }

    /// Runs it until it answers.
    pub(crate) fn run(&self) -> Background {
        let child = command(["terminal", "run", self.dir()])
            .stdin(Stdio::null())
            .spawn();
        let running = Background(child.unwrap());
        until("it answers", || {
            let ran = keyfall(["--json", "terminal", "status", self.dir()]);
            ran.exit == 0 && ran.document()["running"] == true
        });
        running
    }

    pub(crate) fn status(&self) -> serde_json::Value {
        keyfall(["terminal", "status", self.dir(), "--json"]).document()
    }
}

/// Nothing is changed by what is refused.
#[test]
fn package_that_cannot_be_is_refused_with_one_sentence() {
    let bench = Bench::new();
    let enrol = |more: &[&str]| keyfall([&["terminal", "enrol"], more].concat());
    let (dir, package) = (bench.dir(), bench.package());
    enrol(&[]).refuses(2, "KF-3001", "which terminal is meant");
    enrol(&[dir]).refuses(2, "KF-3001", "which terminal is meant");
    enrol(&[dir, "/nowhere"]).refuses(1, "KF-3003", "cannot read /nowhere");
    enrol(&[dir, package]).refuses(5, "KF-3104", "--code");
    enrol(&[dir, package, "--code", "short"]).refuses(5, "KF-3104", "sixteen letters and digits");
    let wrong = enrol(&[dir, package, "--code", "0000-0000-0000-0000"]);
    wrong.refuses(5, "KF-3104", "does not open with this code");
    for (name, octets) in [
        ("empty", &b""[..]),
        ("noise", &[0x84; 40]),
        ("long", &[0; 20_000]),
    ] {
        let path = bench.top.path().join(name);
        std::fs::write(&path, octets).unwrap();
        let bad = enrol(&[dir, path.to_str().unwrap(), "--code", &bench.code]);
        bad.refuses(1, "KF-3103", "not an enrolment package");
    }
    let whole = std::fs::read(package).unwrap();
    let cut = bench.top.path().join("cut");
    std::fs::write(&cut, &whole[..whole.len() - 1]).unwrap();
    let cut = enrol(&[dir, cut.to_str().unwrap(), "--code", &bench.code]);
    cut.refuses(1, "KF-3103", "fetch it again");
    assert!(!bench.dir.exists());

    bench.enrol();
    let before = std::fs::read(bench.dir.join("root-slots")).unwrap();
    enrol(&[dir, package, "--code", &bench.code]).refuses(3, "KF-3102", "another directory");
    enrol(&[dir, "--request"]).refuses(3, "KF-3102", "another directory");
    assert_eq!(std::fs::read(bench.dir.join("root-slots")).unwrap(), before);
}

/// whoever asks for the way is told why there is none, and what to do.
#[test]
fn ping_without_a_packet_path_says_what_to_do() {
    let bench = Bench::new();
    bench.enrol();
    let ping = |more: &[&str]| keyfall([&["terminal", "ping"], more].concat());
    ping(&["7"]).refuses(2, "KF-3001", "which terminal is meant");
    ping(&[bench.dir(), "7", "--interval", "0"]).refuses(2, "KF-3001", "");
    ping(&[bench.dir(), "7"]).refuses(4, "KF-3107", "keyfall terminal run");
    let running = bench.run();
    ping(&[bench.dir(), "7"]).refuses(1, "KF-3127", "no packets pass yet");
    drop(running);
    let child = command(["terminal", "run", bench.dir(), "--no-packets"])
        .stdin(Stdio::null())
        .spawn();
    let _running = Background(child.unwrap());
    until("it says why", || {
        let ran = ping(&[bench.dir(), "10.10.2.1"]);
        ran.exit == 1 && ran.stderr.contains("start it without")
    });
}

#[test]
fn package_past_its_end_is_refused_by_policy() {
    let bench = Bench::new();
    let code = EnrolmentCode::parse(&bench.code).unwrap();
    let mut package = bench.fleet.package(1, &bench.carrier.address);
    package.issued_at = UnixSeconds::new(bench.fleet.now.get() - 8 * 86_400);
    package.expires = UnixSeconds::new(bench.fleet.now.get() - 86_400);
    std::fs::write(&bench.package, package.seal_under(&code, &mut OsRandom)).unwrap();
    let ran = keyfall([
        "terminal",
        "enrol",
        bench.dir(),
        bench.package(),
        "--code",
        &bench.code,
    ]);
    ran.refuses(3, "KF-3105", "this device's clock says");
    assert!(!bench.dir.exists());
}

/// sealed to the terminal's own key, with DIR from the environment and the package on stdin.
#[test]
fn request_then_package_enrols_without_a_code() {
    let bench = Bench::new();
    let request = keyfall(["--json", "terminal", "enrol", bench.dir(), "--request"]).document();
    let text = request["request_key"].as_str().unwrap();
    assert!(request["next"].as_str().unwrap().contains(text));
    let key = parse_request(text).unwrap();
    let package = bench.fleet.package(1, &bench.carrier.address);
    let sealed = package.seal_to(&key, &mut OsRandom).unwrap();
    let elsewhere = bench.top.path().join("bob");
    let ran = keyfall_with(
        ["terminal", "enrol", elsewhere.to_str().unwrap(), "-"],
        &sealed,
    );
    ran.refuses(5, "KF-3104", "--request made the key");

    let mut enrol = command(["--json", "terminal", "enrol", bench.package()]);
    std::fs::write(&bench.package, sealed).unwrap();
    let output = enrol.env("KEYFALL_DIR", bench.dir()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&done["terminal"], &done["name"]),
        (&1.into(), &"terminal-1".into())
    );
    assert!(Path::new(bench.dir()).join("root-slots").exists());
}

#[test]
fn what_is_not_there_or_not_running_is_told_apart() {
    let bench = Bench::new();
    let dir = bench.dir();
    keyfall(["terminal", "status", dir]).refuses(1, "KF-3101", "enrol this terminal first");
    keyfall(["terminal", "run", dir]).refuses(1, "KF-3101", "enrol this terminal first");
    keyfall(["terminal", "why", dir]).refuses(4, "KF-3107", "keyfall terminal run");
    bench.enrol();
    let status = bench.status();
    assert_eq!(
        (&status["running"], &status["state"]),
        (&false.into(), &"enrolled".into())
    );
    keyfall(["terminal", "why", dir]).refuses(4, "KF-3107", "keyfall terminal run");
    let media = ["media", "params", "--dir", dir];
    keyfall(media).refuses(4, "KF-3107", "keyfall terminal run");
    let run = |more: &[&str]| keyfall([&["terminal", "run", dir], more].concat());
    run(&["--if", "192.0.2.7"]).refuses(4, "KF-3108", "no interface of this machine");
    run(&["--if", "0.0.0.0"]).refuses(4, "KF-3108", "cannot be the interface");
    run(&["--carrier", "udp://10.0.0.1:5?if=127.0.0.1"]).refuses(2, "KF-3001", "not a multicast");
}

/// Status, why and media of a running terminal.
#[test]
fn running_terminal_answers() {
    let bench = Bench::new();
    bench.enrol();
    let running = bench.run();
    let dir = bench.dir();
    keyfall(["terminal", "run", dir]).refuses(5, "KF-3106", "another process");
    assert_eq!(bench.status()["time"], serde_json::Value::Null);
    bench.carrier.tell(&bench.fleet.time());
    bench.carrier.tell(&bench.fleet.key_dist(GROUP, 3, &[1]));
    bench.carrier.tell(&bench.fleet.key_dist(9, 3, &[2]));
    until("all was heard", || bench.status()["frames"] == 3);
    // Sent with means stored.
    until("it is stored", || {
        bench.status()["groups"][0]["sending"] == 3
    });
    let status = bench.status();
    let group = &status["groups"][0];
    assert_eq!(
        (&group["group"], &group["generation"]),
        (&GROUP.into(), &3.into())
    );
    assert_eq!(group["fingerprint"].as_str().unwrap().len(), 16);
    assert_eq!(status["schema"], 1);
    let people = keyfall(["terminal", "status", dir]).stdout;
    for words in [
        "running",
        "group 7: epoch",
        "generation 3",
        "no PIN or passphrase",
        "UTC",
    ] {
        assert!(people.contains(words), "{people}");
    }
    let why = keyfall(["--json", "terminal", "why", dir]).document();
    assert_eq!(why["reasons"][0]["code"], "KF-1008");
    assert!(
        keyfall(["terminal", "why", dir])
            .stdout
            .contains("for others")
    );

    let send = |group: &str, rtp: &str| {
        let to = "239.255.71.250:5004";
        keyfall([
            "media", "send", "--dir", dir, "--group", group, "--rtp", rtp, "--to", to,
        ])
    };
    send("9", "127.0.0.1:5004").refuses(3, "KF-3110", "no key of group 9");
    send("7", "127.0.0.1").refuses(2, "KF-3001", "--rtp 127.0.0.1:5004");
    send("7", "192.0.2.1:5004").refuses(4, "KF-3111", "no address of this machine");
    send("x", "127.0.0.1:5004").refuses(2, "KF-3001", "invalid value");
    keyfall(["media", "params", "--dir", dir]).refuses(1, "KF-3112", "keyfall media send");
    keyfall(["media", "stop", "--dir", dir, "--relay", "4"]).refuses(1, "KF-3112", "no relay 4");
    drop(running);
    // Killed, not ended: the socket that is left over disturbs nobody.
    assert_eq!(bench.status()["groups"][0]["generation"], 3);
    let _running = bench.run();
}

/// In front until it is interrupted; then the last figures are the one document.
#[test]
fn media_relay_ends_on_interrupt() {
    let bench = Bench::new();
    bench.enrol();
    let _running = bench.run();
    bench.carrier.tell(&bench.fleet.time());
    bench.carrier.tell(&bench.fleet.key_dist(GROUP, 0, &[1]));
    until("a key", || bench.status()["groups"][0]["sending"] == 0);
    let receive = command([
        "--json",
        "media",
        "receive",
        "--dir",
        bench.dir(),
        "--group",
        "7",
        "--from",
        "239.255.71.251:5004",
        "--if",
        "127.0.0.1",
        "--rtp",
        "127.0.0.1:6004",
    ]);
    let mut receive = receive_piped(receive);
    until("it runs", || {
        bench.status()["relays"].as_array().unwrap().len() == 1
    });
    let pid = rustix::process::Pid::from_child(&receive.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let mut stdout = String::new();
    std::io::Read::read_to_string(&mut receive.0.stdout.take().unwrap(), &mut stdout).unwrap();
    assert!(receive.0.wait().unwrap().success());
    let document: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&document["direction"], &document["packets"]),
        (&"receive".into(), &0.into())
    );
    until("it ended", || {
        bench.status()["relays"].as_array().unwrap().is_empty()
    });
}

fn receive_piped(mut command: std::process::Command) -> Background {
    Background(
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    )
}

#[test]
fn wrong_usage_is_one_sentence_and_exit_2() {
    for args in [
        &[][..],
        &["fly"],
        &["terminal"],
        &["terminal", "status", "a", "b"],
        &["explain", "x"],
    ] {
        let ran = keyfall(args);
        assert_eq!(ran.exit, 2, "{args:?}");
        assert!(
            ran.stderr.ends_with("(KF-3001)\n") && ran.stderr.lines().count() == 1,
            "{args:?}"
        );
        let ran = keyfall([args, &["--json"]].concat());
        assert_eq!(ran.exit, 2, "{args:?}");
        let document: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(
            (&document["ok"], &document["exit"]),
            (&false.into(), &2.into())
        );
        assert_eq!(
            (&document["code"], &document["schema"]),
            (&"KF-3001".into(), &1.into())
        );
    }
}

/// Every command has an example in its help.
#[test]
fn help_has_an_example() {
    for command in [
        "terminal",
        "terminal enrol",
        "terminal run",
        "terminal status",
        "terminal why",
        "terminal ping",
        "media",
        "media send",
        "media receive",
        "media params",
        "media stop",
        "inspect",
        "explain",
    ] {
        let ran = keyfall(command.split(' ').chain(["--help"]));
        assert_eq!(ran.exit, 0, "{command}");
        assert!(ran.stdout.contains("Example:\n  keyfall "), "{command}");
    }
}

#[test]
fn explain_knows_every_code_it_lists() {
    let all = keyfall(["--json", "explain"]).document();
    for entry in all["codes"].as_array().unwrap() {
        let code = entry["code"].as_str().unwrap();
        let one = keyfall(["explain", code]);
        assert_eq!(one.exit, 0, "{code}");
        assert!(
            one.stdout.contains(entry["remedy"].as_str().unwrap()),
            "{code}"
        );
    }
    assert_eq!(
        keyfall(["explain", "1004"]).stdout,
        keyfall(["explain", "kf-1004"]).stdout
    );
}

/// DESIGN section 9: a reader who went away is no failure.
#[test]
fn broken_pipe_is_success() {
    let mut explain = command(["explain"]);
    let mut child = explain
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0));
}
