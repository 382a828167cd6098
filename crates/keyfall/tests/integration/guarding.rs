//! `keyfall terminal lock`, `unlock` and `protect`, and what is left of a terminal that was erased.

use std::path::Path;

use keyfall_protocol::command::OrderKind;

use crate::ran::{Background, Ran, command, keyfall, keyfall_with, until};
use crate::terminal::Bench;

const RIGHT: &str = "correct horse battery\n";

fn terminal(verb: &str, dir: &str, more: &[&str], stdin: &str) -> Ran {
    keyfall_with([&["terminal", verb, dir], more].concat(), stdin.as_bytes())
}

pub(crate) fn unlock(dir: &str, passphrase: &str) -> Ran {
    terminal("unlock", dir, &["--passphrase-file", "-"], passphrase)
}

fn unlocked(dir: &str, passphrase: &str) -> serde_json::Value {
    terminal(
        "unlock",
        dir,
        &["--passphrase-file", "-", "--json"],
        passphrase,
    )
    .document()
}

/// Enrolled behind a passphrase, with so many tries.
pub(crate) fn behind_a_passphrase(tries: &str) -> Bench {
    let bench = Bench::new();
    let file = bench.top.path().join("passphrase");
    std::fs::write(&file, RIGHT).unwrap();
    let file = file.to_str().unwrap();
    let ran = keyfall([
        "terminal",
        "enrol",
        bench.dir(),
        bench.package(),
        "--code",
        &bench.code,
        "--passphrase-file",
        file,
        "--tries",
        tries,
    ]);
    assert_eq!(ran.exit, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("Then: keyfall terminal unlock"),
        "{}",
        ran.stdout
    );
    bench
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// R-038, T-04.
#[test]
fn a_protected_terminal_starts_locked_and_opens_by_its_passphrase() {
    let bench = behind_a_passphrase("5");
    let dir = bench.dir();
    assert_eq!(bench.status()["state"], "locked");
    unlock(dir, RIGHT).refuses(4, "KF-3107", "start it with");
    let locked = terminal("lock", dir, &["--json"], "").document();
    assert_eq!(
        (&locked["state"], &locked["running"]),
        (&"locked".into(), &false.into())
    );

    let _running = bench.run();
    let ran = terminal("unlock", dir, &[], "");
    ran.refuses(5, "KF-3116", "--passphrase-file");
    let nowhere = terminal("unlock", dir, &["--passphrase-file", "/nowhere"], "");
    nowhere.refuses(1, "KF-3003", "cannot read /nowhere");
    unlock(dir, "wrong").refuses(5, "KF-3118", "4 tries left");
    let media = [
        "media",
        "send",
        "--dir",
        dir,
        "--group",
        "7",
        "--rtp",
        "127.0.0.1:5004",
    ];
    let media = keyfall([&media[..], &["--to", "239.255.71.9:5004"]].concat());
    media.refuses(5, "KF-3116", "keyfall terminal unlock");
    let open = unlocked(dir, RIGHT);
    assert_eq!(
        (&open["state"], &open["tries_left"]),
        (&"enrolled".into(), &5.into())
    );
    let again = unlocked(dir, "");
    assert_eq!(again["state"], "enrolled", "it is open already");
    assert_eq!(
        terminal("lock", dir, &["--json"], "").document()["state"],
        "locked"
    );
    let shown = terminal("status", dir, &[], "").stdout;
    for words in [
        "locked: `keyfall terminal unlock`",
        "wrap key closed",
        "5 of 5 tries left",
    ] {
        assert!(shown.contains(words), "{shown} lacks {words:?}");
    }
}

#[test]
fn protection_is_set_changed_and_removed_and_said_as_it_is() {
    let bench = Bench::new();
    bench.enrol();
    let dir = bench.dir();
    terminal("lock", dir, &[], "").refuses(3, "KF-3120", "keyfall terminal protect");
    terminal("protect", dir, &[], "").refuses(5, "KF-3116", "--passphrase-file");
    let from_stdin = ["--passphrase-file", "-"];
    terminal("protect", dir, &from_stdin, "123").refuses(2, "KF-3119", "at least 4 characters");
    let tries = [&from_stdin[..], &["--tries", "2"]].concat();
    terminal("protect", dir, &tries, "1234").refuses(2, "KF-3119", "from 3 to 100");
    let bound = [&from_stdin[..], &["--bound-secret", "/nowhere"]].concat();
    terminal("protect", dir, &bound, "1234").refuses(2, "KF-3119", "/nowhere");
    let pin = terminal("protect", dir, &from_stdin, "4711\n");
    assert!(
        pin.stdout.contains("no protection against a copied disk"),
        "{}",
        pin.stdout
    );

    let old = bench.top.path().join("old");
    std::fs::write(&old, "4711\n").unwrap();
    let change = [
        "--old-passphrase-file",
        old.to_str().unwrap(),
        "--passphrase-file",
        "-",
        "--json",
    ];
    let running = bench.run();
    let changed = terminal("protect", dir, &change, RIGHT).document();
    assert_eq!(
        (&changed["running"], &changed["tries_left"]),
        (&true.into(), &10.into())
    );
    let wrong = terminal("protect", dir, &change[..4], RIGHT);
    wrong.refuses(5, "KF-3118", "9 tries left");
    drop(running);
    let remove = ["--old-passphrase-file", "-", "--remove", "--json"];
    let removed = terminal("protect", dir, &remove, RIGHT).document();
    assert_eq!(removed["try_limit"], serde_json::Value::Null);
    assert_eq!(bench.status()["state"], "enrolled");
}

/// it stays up to say so, and what is left says so too.
#[test]
fn a_deleted_terminal_says_what_happened() {
    let bench = behind_a_passphrase("5");
    let dir = bench.dir();
    let running = bench.run();
    bench
        .carrier
        .tell(&bench.fleet.order(OrderKind::Delete, 1, None));
    until("it is deleted", || bench.status()["state"] == "deleted");
    unlock(dir, RIGHT).refuses(1, "KF-3121", "the server ordered it");
    let receipt = bench.status()["deleted"]["receipt"].clone();
    drop(running);
    let left = bench.status();
    assert_eq!(
        (&left["state"], &left["running"]),
        (&"deleted".into(), &false.into())
    );
    assert_eq!(left["deleted"]["receipt"], receipt);
    let shown = terminal("status", dir, &[], "").stdout;
    for words in [
        "was erased",
        "the server ordered it",
        receipt.as_str().unwrap(),
    ] {
        assert!(shown.contains(words), "{shown} lacks {words:?}");
    }
    terminal("run", dir, &[], "").refuses(1, "KF-3121", "the server ordered it");
    let again = keyfall([
        "terminal",
        "enrol",
        dir,
        bench.package(),
        "--code",
        &bench.code,
    ]);
    again.refuses(1, "KF-3121", "another directory");
}

#[test]
fn the_last_wrong_try_erases_and_init_ends_the_process() {
    let bench = behind_a_passphrase("3");
    let running = bench.run();
    for left in ["2 tries left", "1 try left"] {
        unlock(bench.dir(), "wrong").refuses(5, "KF-3118", left);
    }
    unlock(bench.dir(), "wrong").refuses(1, "KF-3121", "that was the last try");
    until("it is erased", || bench.status()["state"] == "deleted");
    assert!(!names(&bench.dir).contains(&"root-slots".to_owned()));
    drop(running);

    let bench = behind_a_passphrase("3");
    let mut running = bench.run();
    bench
        .carrier
        .tell(&bench.fleet.order(OrderKind::Init, 1, None));
    assert!(running.0.wait().unwrap().success());
    assert!(!bench.dir.exists());
    terminal("status", bench.dir(), &[], "").refuses(1, "KF-3101", "enrol this terminal first");
}

/// the file and the signal.
#[test]
fn tamper_erases_while_it_runs() {
    for by_signal in [false, true] {
        let bench = Bench::new();
        bench.enrol();
        let file = bench.top.path().join("tamper");
        let run = [
            "terminal",
            "run",
            bench.dir(),
            "--tamper-file",
            file.to_str().unwrap(),
        ];
        let child = command(run).spawn().unwrap();
        let pid = child.id().to_string();
        let _running = Background(child);
        until("it runs", || bench.status()["running"] == true);
        if by_signal {
            let mut kill = std::process::Command::new("kill");
            assert!(kill.args(["-USR1", &pid]).status().unwrap().success());
        } else {
            std::fs::write(&file, "").unwrap();
        }
        until("it is erased", || bench.status()["state"] == "deleted");
        assert_eq!(bench.status()["deleted"]["cause"], "tamper");
        assert!(!names(&bench.dir).contains(&"root-slots".to_owned()));
    }
}
