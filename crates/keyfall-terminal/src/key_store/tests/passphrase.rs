//! The user compartment behind a passphrase: what opens without it, and what a try costs.

use super::*;

const RIGHT: &str = "correct horse battery";

fn with_passphrase(dir: &Path, rng: &mut Recorder, protection: &Protection) -> KeyStore {
    KeyStore::create(
        dir,
        rng,
        &snapshot(1, 900),
        &snapshot(2, 900),
        Some(protection),
    )
    .expect("created")
}

fn locked(dir: &Path) -> KeyStore {
    let (store, opened) = KeyStore::open(dir).expect("a store");
    assert_eq!(
        *opened.device,
        snapshot(1, 900),
        "the machine opens this one"
    );
    assert!(opened.user.is_none() && store.is_locked());
    store
}

fn left(error: UnlockError) -> u8 {
    match error {
        UnlockError::WrongPassphrase { left } => left,
        UnlockError::Wiped
        | UnlockError::BoundSecret(_)
        | UnlockError::Memory
        | UnlockError::Store(_) => panic!("{error}"),
    }
}

///
#[test]
fn the_user_compartment_opens_with_the_passphrase_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    drop(with_passphrase(dir.path(), rng, &protection(RIGHT)));
    let on_disk = files(dir.path());
    // Drawn: user key, salt, user part, device part.
    let [user_key, _, part, _] = &rng.drawn[..] else {
        panic!("four are drawn")
    };
    assert!(!holds_a_piece_of(&on_disk, user_key));
    assert!(!holds_a_piece_of(&on_disk, RIGHT.as_bytes()));
    assert!(holds_a_piece_of(&on_disk, part), "it dies with the slot");
    // With all that lies on the disk: the part alone, and as if there were no record.
    let store = locked(dir.path());
    let sealed = || store.user.read(dir.path(), &store.slots).expect("whole");
    assert!(sealed().open(None).is_none());
    for guess in [part, &vec![0; 32]] {
        let guess = Secret::from_slice(guess).expect("32 octets");
        assert!(sealed().open(Some(&guess)).is_none());
    }
    let right = Secret::from_slice(user_key).expect("32 octets");
    assert!(sealed().open(Some(&right)).is_some());
    drop(store);

    let mut store = locked(dir.path());
    let refused = store.commit(rng, b"device", Some(b"user"));
    assert!(matches!(refused, Err(KeyStoreError::UserLocked { .. })));
    store
        .commit(rng, &snapshot(1, 900), None)
        .expect("device alone");
    assert_eq!(*store.unlock(RIGHT).expect("opened"), snapshot(2, 900));
    assert!(!store.is_locked());
    let later = snapshot(3, 700);
    store
        .commit(rng, &snapshot(1, 900), Some(&later))
        .expect("committed");
    store.lock();
    assert!(store.commit(rng, b"device", Some(b"user")).is_err());
    assert_eq!(*store.unlock(RIGHT).expect("opened"), later);
    drop(store);
    assert_eq!(*locked(dir.path()).unlock(RIGHT).expect("opened"), later);
}

/// FORMATS section 9: the try counter is stored before the check.
#[test]
fn a_try_is_on_the_disk_before_the_passphrase_is_looked_at() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    let mut store = with_passphrase(dir.path(), rng, &limited(RIGHT, 4));
    let record = store.record.take().expect("there is one");
    for tries in 1..4 {
        // No passphrase can be checked without this proof; the power is cut as soon as it is there.
        let counted = count_try(&store.slots, record.try_limit).expect("counted");
        assert_eq!(counted.left, 4 - tries);
        assert_eq!(block(&files(dir.path()), Block::Tries)[0], tries);
    }
    drop(store);
    let tries_left = |store: &KeyStore| match store.guard().expect("read") {
        Guard::Passphrase { tries_left, .. } => tries_left,
        Guard::Machine => panic!("there is a passphrase"),
    };
    let mut store = locked(dir.path());
    assert_eq!(tries_left(&store), 1);
    store.unlock(RIGHT).expect("the last try is the right one");
    assert_eq!(tries_left(&store), 4, "and the count begins anew");
    assert_eq!(left(store.unlock("wrong horse").expect_err("wrong")), 3);
    assert!(!store.is_locked(), "a wrong one does not lock what is open");
    drop(store);
    assert_eq!(tries_left(&locked(dir.path())), 3);
}

#[test]
fn ten_wrong_passphrases_wipe() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    drop(with_passphrase(dir.path(), rng, &protection(RIGHT)));
    for tries in 1..TRY_LIMIT {
        // A restart between any two of them changes nothing.
        let error = locked(dir.path()).unlock("wrong").expect_err("wrong");
        assert_eq!(left(error), TRY_LIMIT - tries);
    }
    let mut store = locked(dir.path());
    assert!(matches!(store.unlock("wrong"), Err(UnlockError::Wiped)));
    assert!(matches!(
        store.unlock(RIGHT),
        Err(UnlockError::Store(KeyStoreError::Deleted { .. }))
    ));
    assert!(store.commit(rng, b"device", None).is_err());
    drop(store);
    assert_eq!(
        files(dir.path()).into_keys().collect::<Vec<_>>(),
        ["deleted"]
    );
    let error = KeyStore::open(dir.path()).expect_err("erased");
    assert!(error.to_string().contains("too many wrong passphrases"));
}

/// A power cut after the last try was counted: there is no further one.
#[test]
fn a_count_that_is_used_up_wipes_when_the_store_is_opened() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    let store = with_passphrase(dir.path(), rng, &limited(RIGHT, 3));
    store.slots.write(Block::Tries, &[3]).expect("written");
    drop(store);
    let error = KeyStore::open(dir.path()).expect_err("erased");
    assert!(matches!(error, KeyStoreError::Deleted { .. }));
    assert_eq!(
        files(dir.path()).into_keys().collect::<Vec<_>>(),
        ["deleted"]
    );
}

#[test]
fn a_changed_passphrase_leaves_nothing_of_the_old_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    let (device, user) = (snapshot(1, 900), snapshot(2, 900));
    drop(KeyStore::create(dir.path(), rng, &device, &user, None).expect("created"));
    let (mut store, opened) = KeyStore::open(dir.path()).expect("opened");
    assert!(opened.user.is_some());
    assert_eq!(store.guard().expect("read"), Guard::Machine);
    let unprotected_part = rng.drawn[0].clone();

    store
        .set_protection(rng, "", Some(&protection(RIGHT)))
        .expect("set");
    assert!(!store.is_locked(), "it was open and stays so");
    store.commit(rng, &device, Some(&user)).expect("committed");
    assert!(!holds_a_piece_of(&files(dir.path()), &unprotected_part));
    drop(store);

    let mut store = locked(dir.path());
    let record_before = block(&files(dir.path()), Block::UnlockA).to_vec();
    let wrong = store.set_protection(rng, "wrong", Some(&protection("another")));
    assert_eq!(left(wrong.expect_err("wrong")), TRY_LIMIT - 1);
    store
        .set_protection(rng, RIGHT, Some(&protection("4711")))
        .expect("set");
    assert!(store.is_locked(), "it was locked and stays so");
    let on_disk = files(dir.path());
    assert!(is_zero(block(&on_disk, Block::UnlockA)));
    assert!(!holds_a_piece_of(&on_disk, &record_before[30..100]));
    assert!(matches!(
        store.guard().expect("read"),
        Guard::Passphrase {
            pin: true,
            bound_secret: None,
            tries_left: TRY_LIMIT,
            ..
        }
    ));
    drop(store);
    assert!(locked(dir.path()).unlock(RIGHT).is_err());
    assert_eq!(*locked(dir.path()).unlock("4711").expect("opened"), user);

    locked(dir.path())
        .set_protection(rng, "4711", None)
        .expect("removed");
    assert_eq!(super::opened(dir.path()), (device, user));
    assert!(is_zero(block(&files(dir.path()), Block::UnlockB)));
}

/// Either passphrase is in force after a power cut at any step of changing it.
#[test]
fn a_crash_while_the_passphrase_is_changed_leaves_the_old_or_the_new_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    let user = snapshot(2, 900);
    let mut store = with_passphrase(dir.path(), rng, &protection(RIGHT));
    let mut before = files(dir.path());
    store
        .set_protection(rng, RIGHT, Some(&protection("another long one")))
        .expect("set");
    let after = files(dir.path());
    let commit = steps_of_commit(&store.user, Kind::User, user.len());
    let steps = [
        (SLOTS, Block::UnlockB.offset() as usize, 1200),
        commit[0],
        commit[1],
        commit[2],
        (SLOTS, Block::UnlockA.offset() as usize, 1200),
    ];
    for (at, step) in steps.into_iter().enumerate() {
        for state in [
            with(&before, &after, (step.0, step.1, step.2 / 2)),
            with(&before, &after, step),
        ] {
            let crashed = laid_out(&state);
            let mut store = locked(crashed.path());
            let on_disk = files(crashed.path());
            let records = [Block::UnlockA, Block::UnlockB].map(|it| is_zero(block(&on_disk, it)));
            assert_eq!(
                records.iter().filter(|zero| **zero).count(),
                1,
                "one record"
            );
            let old_opens = store.unlock(RIGHT).is_ok_and(|it| *it == user);
            let new_opens = store.unlock("another long one").is_ok_and(|it| *it == user);
            assert!(old_opens != new_opens, "step {at}: exactly one");
            assert_eq!(
                new_opens,
                at > 2 || (at == 2 && state == with(&before, &after, step))
            );
        }
        before = with(&before, &after, step);
    }
    assert_eq!(before[SLOTS], after[SLOTS], "those were all steps");
}

#[test]
fn a_bound_secret_is_needed_too_and_its_absence_costs_no_try() {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, file) = (dir.path().join("alice"), dir.path().join("secret"));
    let rng = &mut Recorder::default();
    let set = |pin: &str| Protection::new(pin.to_owned().into(), Some(&file), TRY_LIMIT);
    assert!(matches!(
        set("123456"),
        Err(ProtectionError::BoundSecret(
            BoundSecretError::Unreadable { .. }
        ))
    ));
    fs::write(&file, [7; 15]).expect("written");
    let short = set("123456").expect_err("15 octets");
    assert!(
        short
            .to_string()
            .contains("has 15 octets: it must have 16 to 4096")
    );
    fs::write(&file, [7; 16]).expect("written");
    drop(with_passphrase(
        &path,
        rng,
        &set("123456").expect("16 octets"),
    ));

    let mut store = locked(&path);
    let guard = store.guard().expect("read");
    assert!(matches!(
        &guard,
        Guard::Passphrase { pin: true, bound_secret: Some(at), .. } if *at == file
    ));
    fs::rename(&file, dir.path().join("elsewhere")).expect("moved");
    let without = store.unlock("123456").expect_err("no bound secret");
    assert!(
        without.to_string().ends_with("this used no try"),
        "{without}"
    );
    assert_eq!(store.guard().expect("read"), guard, "no try was counted");
    // A copied disk in another machine: the right PIN with another secret.
    fs::write(&file, [8; 16]).expect("written");
    assert_eq!(
        left(store.unlock("123456").expect_err("another")),
        TRY_LIMIT - 1
    );
    fs::write(&file, [7; 16]).expect("written");
    assert_eq!(*store.unlock("123456").expect("opened"), snapshot(2, 900));
}

#[test]
fn what_is_no_passphrase_is_refused() {
    let refused = |passphrase: &str, limit| {
        Protection::new(passphrase.to_owned().into(), None, limit)
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(
        refused("123", 10),
        "a PIN has at least 4 characters, a passphrase better 12 and more"
    );
    assert_eq!(
        refused(&"x".repeat(1025), 10),
        "a passphrase has at most 1024 octets"
    );
    assert_eq!(refused("1234", 2), "2 tries: from 3 to 100 can be allowed");
    for (passphrase, pin) in [
        ("1234", true),
        ("123456789012345", true),
        ("elevenchars", true),
        ("twelve chars", false),
        ("größere Ufer", false),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let store = with_passphrase(
            dir.path(),
            &mut Recorder::default(),
            &protection(passphrase),
        );
        let is_pin = matches!(store.guard(), Ok(Guard::Passphrase { pin: true, .. }));
        assert_eq!(is_pin, pin, "{passphrase}");
    }
}
