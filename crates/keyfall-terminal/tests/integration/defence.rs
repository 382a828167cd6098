//! The terminal's own defence: PIN and passphrase, locks, orders that erase, tamper, excluded peers.

use std::path::Path;

use keyfall_api::control::{
    Answer, DeletionCause, NewPassphrase, Passphrase, Protect, Refusal, Request, TerminalStatus,
};
use keyfall_protocol::command::{Body, Exclude, FreshEpoch, OrderKind};
use keyfall_protocol::ids::{GroupNumber, KeyEpoch, TerminalNumber};
use keyfall_terminal::key_store::{KeyStoreError, Protection};
use keyfall_terminal::{Ending, RunOptions, StoredError, restore, stored_status};

use crate::fleet::{Carrier, Fleet, GROUP, enrol, multicast};
use crate::running::{
    Application, Running, ask, begin, free_place, receive_request, rtp, send_request,
};

const RIGHT: &str = "correct horse battery";

fn passphrase(text: &str) -> Request {
    let passphrase = Passphrase::new(text);
    Request::Unlock { passphrase }
}

fn status(answer: Answer) -> TerminalStatus {
    match answer {
        Answer::Status(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn refusal(dir: &Path, request: &Request) -> (Refusal, String) {
    match ask(dir, request) {
        Answer::Error(error) => (error.refusal, error.sentence),
        other => panic!("{other:?}"),
    }
}

/// Behind a passphrase, unlocked, with the group's key.
fn unlocked(fleet: &Fleet, carrier: &Carrier, dir: &Path) -> Running {
    let protection = Protection::new(RIGHT.to_owned().into(), None, 3).unwrap();
    let package = fleet.package(1, &carrier.address);
    enrol(dir, &package, Some(&protection));
    let alice = Running::start(dir);
    assert_eq!(status(ask(dir, &passphrase(RIGHT))).state, "enrolled");
    carrier.tell(&fleet.time());
    carrier.tell(&fleet.key_dist(GROUP, 0, &[1]));
    // What is sent with is stored.
    alice.until("it sends", |status| {
        status.groups.iter().any(|group| group.sending.is_some())
    });
    alice
}

/// Cuts `number` off; the group goes on to another epoch.
fn exclude(fleet: &Fleet, number: u32) -> Vec<u8> {
    let old = KeyEpoch::fresh(None, fleet.now);
    let exclude = Exclude {
        terminals: vec![TerminalNumber::new(number).unwrap()],
        groups: vec![FreshEpoch {
            group: GroupNumber::new(GROUP).unwrap(),
            old,
            new: KeyEpoch::fresh(Some(old), fleet.now),
        }],
    };
    fleet.keys.sign(&fleet.command(Body::Exclude(exclude)))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// locked when it is switched on, and from the moment it is told to; media waits meanwhile.
#[test]
fn a_locked_terminal_gives_nothing_and_goes_on_when_it_is_unlocked() {
    let fleet = Fleet::new();
    let (to_alice, to_bob) = (Carrier::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("alice");
    let alice = unlocked(&fleet, &to_alice, &dir);
    let bob = Running::member(&fleet, &to_bob, &dirs.path().join("bob"), 2);
    let (microphone, wire, application) = (free_place(), multicast(), Application::new());
    let receive = Request::MediaReceive(receive_request(wire, application.place));
    let _hears = begin(&bob.dir, &receive);
    let send = Request::MediaSend(send_request(microphone, wire));
    let _speaks = begin(&dir, &send);
    let say = |sequence| {
        let packet = rtp(sequence, 5);
        application.rtcp.send_to(&packet, microphone).unwrap();
    };
    say(1);
    assert_eq!(application.take(), rtp(1, 5));
    let session = alice.status().relays[0].session.clone();

    let locked = status(ask(&dir, &Request::Lock {}));
    assert_eq!(locked.state, "locked");
    assert!(locked.groups.is_empty() && locked.wrap_fingerprint.is_none());
    assert_eq!((locked.tries_left, locked.try_limit), (Some(3), Some(3)));
    say(2);
    alice.until("it is dropped", |status| {
        let drops = &status.relays[0].drops;
        drops.iter().any(|drop| drop.reason == "locked")
    });
    assert!(application.is_silent());
    let (refused, _) = refusal(&dir, &Request::MediaSend(send_request(free_place(), wire)));
    assert_eq!(refused, Refusal::Locked);

    let (refused, sentence) = refusal(&dir, &passphrase("wrong"));
    assert_eq!(refused, Refusal::WrongPassphrase);
    assert_eq!(
        sentence,
        "wrong passphrase: 2 tries left, then every key in this terminal is erased"
    );
    assert_eq!(alice.status().tries_left, Some(2));
    let open = status(ask(&dir, &passphrase(RIGHT)));
    assert_eq!((open.state.as_str(), open.tries_left), ("ready", Some(3)));
    alice.until("a session of its own", |status| {
        let now = &status.relays[0].session;
        now.is_some() && *now != session
    });
    say(3);
    assert_eq!(application.take(), rtp(3, 5));

    alice.stop();
    assert_eq!(stored_status(&dir).unwrap().state, "locked");
    let alice = Running::start(&dir);
    assert_eq!(alice.status().state, "locked");
    to_alice.tell(&fleet.time());
    to_alice.tell(&fleet.renew(GROUP, 30));
    alice.until("both are heard", |status| status.frames == 2);
    let open = status(ask(&dir, &passphrase(RIGHT)));
    assert_eq!(
        open.groups[0].generation, 30,
        "what was heard is carried out"
    );
}

/// FORMATS section 9: a locked, stolen, rebooted terminal obeys DELETE. R-066: it stays up to say so.
#[test]
fn a_locked_terminal_obeys_delete_and_says_so() {
    let (fleet, carrier) = (Fleet::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("alice");
    unlocked(&fleet, &carrier, &dir).stop();
    let alice = Running::start(&dir);
    carrier.tell(&fleet.order(OrderKind::Delete, 2, None));
    carrier.tell(&fleet.order(OrderKind::Delete, 1, None));
    alice.until("it is deleted", |status| status.state == "deleted");
    let deleted = alice.status().deleted.unwrap();
    assert_eq!(deleted.cause, DeletionCause::Delete);
    assert!(deleted.receipt.unwrap().starts_with("KF1-RECEIPT-"));
    for request in [passphrase(RIGHT), Request::Lock {}] {
        let (refused, sentence) = refusal(&dir, &request);
        assert_eq!(refused, Refusal::Deleted);
        assert_eq!(sentence, "the keys were erased: the server ordered it");
    }
    alice.stop();
    assert_eq!(names(&dir), ["deleted"]);
    let error = restore(&dir).unwrap_err();
    assert!(matches!(
        error,
        StoredError::Store(KeyStoreError::Deleted { .. })
    ));
}

///
#[test]
fn init_removes_everything_and_ends_the_process() {
    let (fleet, carrier) = (Fleet::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let place = dirs.path().canonicalize().unwrap();
    let (dir, app) = (place.join("alice"), place.join("app/data"));
    std::fs::create_dir_all(&app).unwrap();
    std::fs::write(app.join("contacts"), b"bob").unwrap();
    let mut package = fleet.package(1, &carrier.address);
    package.identity.wipe_roots = vec![app.display().to_string()];
    enrol(&dir, &package, None);
    let alice = Running::start(&dir);
    carrier.tell(&fleet.order(OrderKind::Init, 1, None));
    let Ending::Initialized(deleted) = alice.ending() else {
        panic!("nobody stopped it")
    };
    assert!(deleted.not_removed.is_empty(), "{deleted:?}");
    assert!(!dir.exists() && !app.exists() && place.join("app").exists());
    assert!(matches!(
        restore(&dir),
        Err(StoredError::Store(KeyStoreError::NotEnrolled { .. }))
    ));
}

/// T-04: a LOCK of the server's lasts through restarts, and no passphrase ends it.
#[test]
fn only_the_server_ends_its_own_lock() {
    let (fleet, carrier) = (Fleet::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("alice");
    let alice = unlocked(&fleet, &carrier, &dir);
    carrier.tell(&fleet.order(OrderKind::Lock, 1, Some(5)));
    alice.until("it is locked", |status| status.state == "locked-by-server");
    assert_eq!(refusal(&dir, &passphrase(RIGHT)).0, Refusal::LockedByServer);
    assert_eq!(alice.status().tries_left, Some(3), "it cost no try");
    alice.stop();
    let refused = keyfall_terminal::protect(&dir, RIGHT, None).unwrap_err();
    assert!(refused.to_string().starts_with("the server locked"));
    let alice = Running::start(&dir);
    assert_eq!(refusal(&dir, &passphrase(RIGHT)).0, Refusal::LockedByServer);
    carrier.tell(&fleet.order(OrderKind::Unlock, 1, Some(6)));
    alice.until("it may be unlocked", |status| status.state == "locked");
    assert_eq!(status(ask(&dir, &passphrase(RIGHT))).state, "ready");
}

/// Without a passphrase the machine opens everything, but not against the server's word.
#[test]
fn a_machine_that_opens_everything_still_obeys_lock_and_unlock() {
    let (fleet, carrier) = (Fleet::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("alice");
    let alice = Running::member(&fleet, &carrier, &dir, 1);
    assert!(
        alice
            .status()
            .protection
            .contains("the machine opens everything")
    );
    assert_eq!(refusal(&dir, &Request::Lock {}).0, Refusal::NotProtected);
    carrier.tell(&fleet.order(OrderKind::Lock, 1, Some(5)));
    alice.until("it is locked", |status| status.state == "locked-by-server");
    alice.stop();
    assert_eq!(stored_status(&dir).unwrap().state, "locked-by-server");
    let alice = Running::start(&dir);
    carrier.tell(&fleet.order(OrderKind::Unlock, 1, Some(6)));
    alice.until("it is open again", |status| status.state == "ready");
}

/// the last wrong try erases, whoever makes it.
#[test]
fn the_last_wrong_try_erases_everything() {
    let (fleet, carrier) = (Fleet::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("alice");
    let alice = unlocked(&fleet, &carrier, &dir);
    status(ask(&dir, &Request::Lock {}));
    let protect = Request::Protect(Protect {
        old: Passphrase::new("wrong"),
        new: None,
    });
    assert_eq!(refusal(&dir, &protect).0, Refusal::WrongPassphrase);
    assert_eq!(
        refusal(&dir, &passphrase("wrong")).0,
        Refusal::WrongPassphrase
    );
    let (refused, sentence) = refusal(&dir, &passphrase("wrong"));
    assert_eq!(refused, Refusal::Deleted);
    assert!(sentence.contains("that was the last try"), "{sentence}");
    alice.until("it is deleted", |status| status.state == "deleted");
    assert_eq!(alice.status().deleted.unwrap().cause, DeletionCause::Tries);
    alice.stop();
    assert_eq!(names(&dir), ["deleted"]);
}

/// Changes while it runs; a PIN without a bound secret is called what it is.
#[test]
fn a_passphrase_is_set_changed_and_removed_while_it_runs() {
    let (fleet, carrier) = (Fleet::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("alice");
    let alice = Running::member(&fleet, &carrier, &dir, 1);
    let protect = |old: &str, new: Option<&str>, bound_secret: Option<&Path>, tries| {
        Request::Protect(Protect {
            old: Passphrase::new(old),
            new: new.map(|new| NewPassphrase {
                passphrase: Passphrase::new(new),
                bound_secret: bound_secret.map(|path| path.display().to_string()),
                tries,
            }),
        })
    };
    let (refused, _) = refusal(&dir, &protect("", Some("123"), None, 10));
    assert_eq!(refused, Refusal::BadPassphrase);
    let pin = status(ask(&dir, &protect("", Some("4711"), None, 10)));
    assert_eq!(pin.state, "ready", "it is not locked by that");
    assert!(
        pin.protection
            .contains("no protection against a copied disk")
    );
    let secret = dirs.path().join("secret");
    std::fs::write(&secret, [7; 32]).unwrap();
    let bound = status(ask(&dir, &protect("4711", Some("4712"), Some(&secret), 5)));
    assert!(bound.protection.contains("bound secret") && bound.try_limit == Some(5));
    // What is stored from now on is behind it.
    carrier.tell(&fleet.renew(GROUP, 9));
    alice.until("renewed", |status| status.groups[0].sending == Some(9));
    alice.stop();
    let alice = Running::start(&dir);
    assert_eq!(alice.status().state, "locked");
    std::fs::rename(&secret, dirs.path().join("away")).unwrap();
    let (refused, sentence) = refusal(&dir, &passphrase("4712"));
    assert_eq!(refused, Refusal::Locked);
    assert!(sentence.ends_with("this used no try"), "{sentence}");
    std::fs::rename(dirs.path().join("away"), &secret).unwrap();
    let open = status(ask(&dir, &passphrase("4712")));
    assert_eq!(open.groups[0].generation, 9);
    let none = status(ask(&dir, &protect("4712", None, None, 10)));
    assert_eq!(none.tries_left, None);
    alice.stop();
    assert_eq!(stored_status(&dir).unwrap().state, "ready");
    keyfall_terminal::protect(&dir, "", None).unwrap();
}

/// the file, the signal, and what happened while it was off.
#[test]
fn an_opened_device_erases_its_keys_at_once() {
    let (fleet, carrier) = (Fleet::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let line = dirs.path().join("gpio");
    let watching = || RunOptions {
        tamper_file: Some(line.clone()),
        ..RunOptions::default()
    };
    let running = |name: &str| {
        std::fs::write(&line, "0\n").unwrap();
        let dir = dirs.path().join(name);
        fleet.enrol(&dir, 1, &carrier.address);
        let alice = Running::start_with(&dir, watching());
        alice.until("nothing happens", |status| status.state == "enrolled");
        (dir, alice)
    };
    let is_erased = |dir: &Path, alice: Running| {
        alice.until("it is deleted", |status| status.state == "deleted");
        let deleted = alice.status().deleted.unwrap();
        assert_eq!(deleted.cause, DeletionCause::Tamper);
        alice.stop();
        assert_eq!(names(dir), ["deleted"]);
    };

    let (dir, alice) = running("by-file");
    std::fs::write(&line, "1\n").unwrap();
    is_erased(&dir, alice);

    let (dir, mut alice) = running("by-signal");
    alice.tamper();
    is_erased(&dir, alice);

    let (dir, alice) = running("while-off");
    alice.stop();
    std::fs::write(&line, "1\n").unwrap();
    let refused = refused_start(&dir, watching());
    assert!(refused.contains("the device was opened"), "{refused}");
    assert_eq!(names(&dir), ["deleted"]);
}

fn refused_start(dir: &Path, options: RunOptions) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime.unwrap().block_on(keyfall_terminal::serve(
        dir.to_owned(),
        options,
        |_| panic!("it does not start"),
        std::future::pending(),
        std::future::pending(),
    ));
    served.unwrap_err().to_string()
}

/// whoever holds the order drops the excluded terminal's own packets at once.
#[test]
fn an_excluded_sender_is_cut_off_in_the_middle_of_a_call() {
    let fleet = Fleet::new();
    let (to_alice, to_bob) = (Carrier::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let alice = Running::member(&fleet, &to_alice, &dirs.path().join("alice"), 1);
    let bob = Running::member(&fleet, &to_bob, &dirs.path().join("bob"), 2);
    let (microphone, wire, application) = (free_place(), multicast(), Application::new());
    let _hears = begin(
        &bob.dir,
        &Request::MediaReceive(receive_request(wire, application.place)),
    );
    let _speaks = begin(
        &alice.dir,
        &Request::MediaSend(send_request(microphone, wire)),
    );
    let say = |sequence| {
        let packet = rtp(sequence, 5);
        application.rtcp.send_to(&packet, microphone).unwrap();
    };
    say(1);
    assert_eq!(application.take(), rtp(1, 5));
    to_bob.tell(&exclude(&fleet, 1));
    bob.until("bob knows", |status| status.excluded == [1]);
    say(2);
    bob.until("it is dropped", |_| bob.drops("excluded_sender") == 1);
    assert!(application.is_silent());
    assert_eq!(bob.status().groups[0].state, "waits-for-key");
    // And the excluded one, should it hear that, is silent itself.
    to_alice.tell(&exclude(&fleet, 1));
    alice.until("alice knows", |status| status.state == "excluded");
    say(3);
    alice.until("it is dropped", |_| alice.drops("excluded") > 0);
}
