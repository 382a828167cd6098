//! Commits of both compartments, where the machine opens both.

use super::*;

#[test]
fn a_store_opens_with_what_was_committed_last() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("alice");
    let rng = &mut Recorder::default();
    drop(KeyStore::create(&path, rng, b"enrolled", b"keys", None).expect("created"));
    assert_eq!(opened(&path), (b"enrolled".to_vec(), b"keys".to_vec()));
    for (tag, len) in (1..).zip([5000, 0, 1, 1 << 20, 70_000, 300, 300, 300]) {
        let (mut store, _) = KeyStore::open(&path).expect("opened");
        let (device, user) = (snapshot(tag, len), snapshot(tag + 100, len / 2));
        store
            .commit(rng, b"passing", Some(&user))
            .expect("committed");
        store.commit(rng, &device, None).expect("committed");
        drop(store);
        assert_eq!(opened(&path), (device, user), "{len} octets");
    }
    assert_eq!(rng.drawn.len(), 2 + 8 * 3, "a key for each snapshot");
}

#[test]
fn old_keys_and_plaintext_are_nowhere_on_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    let first = snapshot(1, 9000);
    let mut store = KeyStore::create(dir.path(), rng, &first, &first, None).expect("created");
    assert!(
        holds_a_piece_of(&files(dir.path()), &rng.drawn[0]),
        "the search finds a key"
    );
    for tag in 2..6 {
        let device = snapshot(tag, 9000 - usize::from(tag) * 1000);
        let user = snapshot(tag + 100, usize::from(tag) * 1000);
        store.commit(rng, &device, Some(&user)).expect("committed");
        let on_disk = files(dir.path());
        let [old @ .., user_key, device_key] = &rng.drawn[..] else {
            panic!("two keys for each commit")
        };
        assert!(old.iter().all(|key| !holds_a_piece_of(&on_disk, key)));
        for plaintext in [&device, &user, &first] {
            assert!(!holds_a_piece_of(&on_disk, plaintext));
        }
        assert_eq!(on_disk[SLOTS].len(), FILE_LEN);
        for (kind, active, key) in [
            (Kind::Device, store.device.active, device_key),
            (Kind::User, store.user.active, user_key),
        ] {
            assert_eq!(&block(&on_disk, kind.block(active))[32..64], key);
            let unused = block(&on_disk, kind.block(active.other()));
            assert!(is_zero(unused), "no octet of the old key");
        }
    }
}

#[test]
fn a_crash_anywhere_leaves_the_old_or_the_new_snapshot() {
    let (old, new) = (
        (snapshot(3, 3000), snapshot(103, 2000)),
        (snapshot(4, 4000), snapshot(104, 1000)),
    );
    // From A to B into an empty file, from B to A over a longer and over a shorter one.
    for before_that in [
        vec![],
        vec![snapshot(1, 9000)],
        vec![snapshot(1, 10), snapshot(2, 10)],
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let rng = &mut Recorder::default();
        let mut store = KeyStore::create(dir.path(), rng, b"enrolled", b"", None).expect("created");
        for snapshot in before_that {
            store
                .commit(rng, &snapshot, Some(&snapshot))
                .expect("committed");
        }
        store.commit(rng, &old.0, Some(&old.1)).expect("committed");
        let mut before = files(dir.path());
        store.commit(rng, &new.0, Some(&new.1)).expect("committed");
        let after = files(dir.path());
        let [.., old_user_key, old_device_key, _, _] = &rng.drawn.clone()[..] else {
            panic!("two keys for each commit")
        };

        let user_steps = steps_of_commit(&store.user, Kind::User, new.1.len());
        let device_steps = steps_of_commit(&store.device, Kind::Device, new.0.len());
        for (at, step) in user_steps.into_iter().chain(device_steps).enumerate() {
            for state in torn(&before, &after, step) {
                let crashed = laid_out(&state);
                let (device, user) = opened(crashed.path());
                // The user compartment's three steps come first.
                assert!(user == new.1 || (at < 2 && user == old.1), "step {at}");
                let device_is_new = device == new.0 && at >= 4;
                assert!(device_is_new || (at < 5 && device == old.0), "step {at}");
                // The key of what is not in force is gone once the store has been opened.
                let on_disk = files(crashed.path());
                for (is_new, key) in [
                    (user == new.1, old_user_key),
                    (device == new.0, old_device_key),
                ] {
                    assert_eq!(holds_a_piece_of(&on_disk, key), !is_new, "step {at}");
                }
                let unused = Half::BOTH.map(|half| {
                    [Kind::Device, Kind::User]
                        .map(|kind| is_zero(block(&on_disk, kind.block(half))))
                });
                assert_eq!(unused.concat().iter().filter(|zero| **zero).count(), 2);
                // And work goes on.
                let (mut store, _) = KeyStore::open(crashed.path()).expect("opened");
                store.commit(rng, b"later", Some(b"on")).expect("committed");
                drop(store);
                assert_eq!(opened(crashed.path()), (b"later".to_vec(), b"on".to_vec()));
            }
            before = with(&before, &after, step);
        }
        assert_eq!(before[SLOTS], after[SLOTS], "those were all steps");
    }
}

#[test]
fn a_creation_that_did_not_end_is_begun_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    let keys = snapshot(1, 500);
    drop(KeyStore::create(dir.path(), rng, &keys, &keys, None).expect("created"));
    let mut crashed = files(dir.path());
    let slots = crashed.remove(SLOTS).expect("slots");
    for left in [slots.clone(), slots[..30].to_vec(), Vec::new()] {
        let mut state = crashed.clone();
        state.insert(SLOTS_NEW.to_owned(), left);
        let crashed = laid_out(&state);
        let error = KeyStore::open(crashed.path()).expect_err("no store yet");
        assert!(matches!(error, KeyStoreError::NotEnrolled { .. }));
        drop(KeyStore::create(crashed.path(), rng, b"second", b"try", None).expect("created"));
        assert_eq!(
            opened(crashed.path()),
            (b"second".to_vec(), b"try".to_vec())
        );
        for key in &rng.drawn[..2] {
            assert!(!holds_a_piece_of(&files(crashed.path()), key));
        }
    }
}

#[test]
fn the_owner_alone_may_read() {
    let parent = tempfile::tempdir().expect("a directory");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    let new = parent.path().join("new");
    let rng = &mut Recorder::default();
    drop(KeyStore::create(&new, rng, b"keys", b"keys", None).expect("created"));
    let open_to_all = parent.path().join("open");
    fs::create_dir(&open_to_all).expect("made");
    fs::set_permissions(&open_to_all, Permissions::from_mode(0o755)).expect("set");
    drop(KeyStore::create(&open_to_all, rng, b"keys", b"keys", None).expect("created"));
    for dir in [new, open_to_all] {
        assert_eq!(mode(&dir), 0o700);
        let names: Vec<_> = files(&dir).into_keys().collect();
        assert_eq!(
            names,
            [SLOTS, "snapshot-a", "snapshot-b", "user-a", "user-b"]
        );
        assert!(names.iter().all(|name| mode(&dir.join(name)) == 0o600));
    }
}

#[test]
fn each_refusal_has_its_sentence() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("alice");
    let rng = &mut Recorder::default();
    let cleaned = |sentence: String| sentence.replace(&parent.path().display().to_string(), "/var");
    let sentence = |error: KeyStoreError| cleaned(error.to_string());
    let refused = |error: UnlockError| cleaned(error.to_string());

    let nothing = "/var/alice holds no keys: enrol this terminal first, with `keyfall terminal \
                   enrol DIR PACKAGE`";
    assert_eq!(
        sentence(KeyStore::open(&dir).expect_err("no directory")),
        nothing
    );
    fs::create_dir(&dir).expect("made");
    assert_eq!(
        sentence(KeyStore::open(&dir).expect_err("no store")),
        nothing
    );
    assert!(files(&dir).is_empty(), "nothing was made by looking");

    let store = KeyStore::create(&dir, rng, b"keys", b"more", None).expect("created");
    let in_use = "another process has the keys in /var/alice open: end it first, or ask it over \
                  its control socket";
    assert_eq!(sentence(KeyStore::open(&dir).expect_err("in use")), in_use);
    let again = KeyStore::create(&dir, rng, b"other", b"keys", None);
    assert_eq!(refused(again.expect_err("in use")), in_use);
    drop(store);
    let again = KeyStore::create(&dir, rng, b"other", b"keys", None);
    assert_eq!(
        refused(again.expect_err("there is one")),
        "/var/alice already holds the keys of a terminal: enrol into another directory"
    );
    assert_eq!(opened(&dir), (b"keys".to_vec(), b"more".to_vec()));

    let whole = files(&dir);
    let user = Block::UserA.offset() as usize;
    for (name, at, part) in [
        (SLOTS, 0, "the root slots"),
        (SLOTS, 30, "the root slots"),
        (SLOTS, 120, "the root slots"),
        ("snapshot-a", 0, "the snapshots"),
        ("snapshot-a", 19, "the snapshots"),
        (SLOTS, user + 40, "the root slots of the user compartment"),
        ("user-a", 7, "the snapshots of the user compartment"),
    ] {
        let mut damaged = whole.clone();
        damaged.get_mut(name).expect("a file of the store")[at] ^= 1;
        for (name, content) in &damaged {
            fs::write(dir.join(name), content).expect("written");
        }
        assert_eq!(
            sentence(KeyStore::open(&dir).expect_err("damaged")),
            format!(
                "{part} in /var/alice are damaged and their keys are lost: enrol this terminal \
                 anew in another directory"
            )
        );
        assert_eq!(files(&dir), damaged, "left as it was found");
    }
    let nowhere = parent.path().join("no/such");
    let created = KeyStore::create(&nowhere, rng, b"keys", b"keys", None);
    assert_eq!(
        refused(created.expect_err("no parent")),
        "cannot make the directory /var/no/such: No such file or directory (os error 2)"
    );
}
