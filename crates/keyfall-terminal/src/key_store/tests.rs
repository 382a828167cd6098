//! What is on the disk after each step, and what opens after a crash between any two of them.
//! That the steps come in this order, under kill and full disk: `e2e/key-store-crash`.

use std::collections::BTreeMap;
use std::fs;

use super::*;

/// Remembers every key that it handed out.
#[derive(Default)]
struct Recorder {
    drawn: Vec<Vec<u8>>,
}

impl Random for Recorder {
    fn fill(&mut self, into: &mut [u8]) {
        let seed = digest::digest(&digest::SHA256, &self.drawn.len().to_be_bytes());
        into.iter_mut()
            .zip(seed.as_ref().iter().cycle())
            .for_each(|(to, from)| *to = *from);
        self.drawn.push(into.to_vec());
    }
}

/// A snapshot that is recognised wherever a piece of it lies.
fn snapshot(tag: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| tag ^ (at % 251) as u8).collect()
}

type Files = BTreeMap<String, Vec<u8>>;

fn files(dir: &Path) -> Files {
    let entries = fs::read_dir(dir)
        .expect("the directory")
        .map(|entry| entry.expect("an entry"));
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().expect("a name of ours");
            (name, fs::read(entry.path()).expect("a file"))
        })
        .collect()
}

fn laid_out(files: &Files) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, content) in files {
        fs::write(dir.path().join(name), content).expect("written");
    }
    dir
}

fn opened(dir: &Path) -> Vec<u8> {
    KeyStore::open(dir).expect("a store").1.to_vec()
}

/// Whether 8 octets in a row of `secret` stand anywhere in `files`.
fn holds_a_piece_of(files: &Files, secret: &[u8]) -> bool {
    let pieces: std::collections::HashSet<&[u8]> = secret.windows(8).collect();
    files
        .values()
        .any(|content| content.windows(8).any(|window| pieces.contains(window)))
}

#[test]
fn a_store_opens_with_what_was_committed_last() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("alice");
    let rng = &mut Recorder::default();
    drop(KeyStore::create(&path, rng, b"enrolled").expect("created"));
    assert_eq!(opened(&path), b"enrolled");
    for (tag, len) in (1..).zip([5000, 0, 1, 1 << 20, 70_000, 300, 300, 300]) {
        let (mut store, _) = KeyStore::open(&path).expect("opened");
        store.commit(rng, b"passing").expect("committed");
        store.commit(rng, &snapshot(tag, len)).expect("committed");
        drop(store);
        assert_eq!(opened(&path), snapshot(tag, len), "{len} octets");
    }
    assert_eq!(rng.drawn.len(), 17, "a key for each commit");
}

#[test]
fn old_keys_and_plaintext_are_nowhere_on_the_disk() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    let first = snapshot(1, 9000);
    let mut store = KeyStore::create(dir.path(), rng, &first).expect("created");
    assert!(
        holds_a_piece_of(&files(dir.path()), &rng.drawn[0]),
        "the search finds a key"
    );
    for tag in 2..6 {
        let plaintext = snapshot(tag, 9000 - usize::from(tag) * 1000);
        store.commit(rng, &plaintext).expect("committed");
        let on_disk = files(dir.path());
        let (current, old) = rng.drawn.split_last().expect("keys");
        assert!(old.iter().all(|key| !holds_a_piece_of(&on_disk, key)));
        assert!(!holds_a_piece_of(&on_disk, &plaintext));
        assert!(!holds_a_piece_of(&on_disk, &first));
        let slots = &on_disk[SLOTS];
        assert_eq!(slots.len() as u64, 2 * SLOT_SPACING);
        let (used, unused) = match store.active {
            Half::A => slots.split_at(SLOT_SPACING as usize),
            Half::B => {
                let (a, b) = slots.split_at(SLOT_SPACING as usize);
                (b, a)
            }
        };
        assert_eq!(&used[24..56], current);
        assert!(
            unused.iter().all(|octet| *octet == 0),
            "no octet of the old key"
        );
    }
}

/// Everything that `after` differs from `before` in `name`, from 0 octets to all of them.
fn torn(before: &Files, after: &Files, name: &str, at: usize, len: usize) -> Vec<Files> {
    let lengths = [0, 8, 30, 56, len / 2, len - 1, len];
    let mut states = Vec::new();
    for written in lengths {
        let mut state = before.clone();
        let file = state.get_mut(name).expect("a file of the store");
        let end = at + written;
        file.resize(file.len().max(end), 0);
        file[at..end].copy_from_slice(&after[name][at..end]);
        // The length may be on the disk before the octets are, and the end before the beginning.
        let mut backwards = before.clone();
        let file = backwards.get_mut(name).expect("a file of the store");
        file.resize(file.len().max(at + len), 0);
        file[at + len - written..at + len]
            .copy_from_slice(&after[name][at + len - written..at + len]);
        states.push(state);
        states.push(backwards);
    }
    states
}

#[test]
fn a_crash_anywhere_leaves_the_old_or_the_new_snapshot() {
    let (old, new) = (snapshot(3, 3000), snapshot(4, 4000));
    // From A to B into an empty file, from B to A over a longer and over a shorter one.
    for before_that in [
        vec![],
        vec![snapshot(1, 9000)],
        vec![snapshot(1, 10), snapshot(2, 10)],
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let rng = &mut Recorder::default();
        let mut store = KeyStore::create(dir.path(), rng, b"enrolled").expect("created");
        for snapshot in before_that {
            store.commit(rng, &snapshot).expect("committed");
        }
        store.commit(rng, &old).expect("committed");
        let before = files(dir.path());
        store.commit(rng, &new).expect("committed");
        let after = files(dir.path());
        let [.., old_key, _] = &rng.drawn.clone()[..] else {
            panic!("two keys at least")
        };

        let next = store.active;
        let slot_at = next.slot_offset() as usize;
        let old_at = next.other().slot_offset() as usize;
        let name = next.snapshot_name();
        let mut until_snapshot = torn(&before, &after, SLOTS, slot_at, SLOT_LEN);
        let with_slot = {
            let mut state = before.clone();
            let slot = &after[SLOTS][slot_at..slot_at + SLOT_LEN];
            state.get_mut(SLOTS).expect("slots")[slot_at..slot_at + SLOT_LEN].copy_from_slice(slot);
            state
        };
        until_snapshot.extend(torn(&with_slot, &after, name, 0, new.len() + TAG_LEN));
        let with_snapshot = {
            let mut state = with_slot;
            state.insert(name.to_owned(), after[name].clone());
            state
        };
        let until_zero = torn(&with_snapshot, &after, SLOTS, old_at, SLOT_LEN);

        let mut opened_new = 0;
        for (state, may_be_old) in until_snapshot
            .iter()
            .map(|state| (state, true))
            .chain(until_zero.iter().map(|state| (state, false)))
        {
            let crashed = laid_out(state);
            let found = opened(crashed.path());
            assert!(found == new || (may_be_old && found == old));
            opened_new += u32::from(found == new);
            // The key of what is not in force is gone once the store has been opened.
            let on_disk = files(crashed.path());
            if found == new {
                assert!(!holds_a_piece_of(&on_disk, old_key));
            } else {
                assert!(
                    on_disk[SLOTS][slot_at..slot_at + SLOT_LEN]
                        .iter()
                        .all(|o| *o == 0)
                );
            }
            // And work goes on.
            let (mut store, _) = KeyStore::open(crashed.path()).expect("opened");
            store.commit(rng, b"later").expect("committed");
            drop(store);
            assert_eq!(opened(crashed.path()), b"later");
        }
        // The last of step 2, in both directions, and all of step 3.
        assert_eq!(opened_new as usize, 2 + until_zero.len());
    }
}

#[test]
fn a_creation_that_did_not_end_is_begun_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let rng = &mut Recorder::default();
    drop(KeyStore::create(dir.path(), rng, &snapshot(1, 500)).expect("created"));
    let mut crashed = files(dir.path());
    let slots = crashed.remove(SLOTS).expect("slots");
    for left in [slots.clone(), slots[..30].to_vec(), Vec::new()] {
        let mut state = crashed.clone();
        state.insert(SLOTS_NEW.to_owned(), left);
        let crashed = laid_out(&state);
        let error = KeyStore::open(crashed.path()).expect_err("no store yet");
        assert!(matches!(error, KeyStoreError::NotEnrolled { .. }));
        drop(KeyStore::create(crashed.path(), rng, b"second").expect("created"));
        assert_eq!(opened(crashed.path()), b"second");
        assert!(!holds_a_piece_of(&files(crashed.path()), &rng.drawn[0]));
    }
}

#[test]
fn the_owner_alone_may_read() {
    let parent = tempfile::tempdir().expect("a directory");
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
    let new = parent.path().join("new");
    let rng = &mut Recorder::default();
    drop(KeyStore::create(&new, rng, b"keys").expect("created"));
    let open_to_all = parent.path().join("open");
    fs::create_dir(&open_to_all).expect("made");
    fs::set_permissions(&open_to_all, Permissions::from_mode(0o755)).expect("set");
    drop(KeyStore::create(&open_to_all, rng, b"keys").expect("created"));
    for dir in [new, open_to_all] {
        assert_eq!(mode(&dir), 0o700);
        let names: Vec<_> = files(&dir).into_keys().collect();
        assert_eq!(names, [SLOTS, "snapshot-a", "snapshot-b"]);
        assert!(names.iter().all(|name| mode(&dir.join(name)) == 0o600));
    }
}

#[test]
fn each_refusal_has_its_sentence() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("alice");
    let rng = &mut Recorder::default();
    let sentence = |error: KeyStoreError| {
        error
            .to_string()
            .replace(&parent.path().display().to_string(), "/var")
    };

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

    let store = KeyStore::create(&dir, rng, b"keys").expect("created");
    let locked = "another process has the keys in /var/alice open: end it first, or ask it over \
                  its control socket";
    assert_eq!(sentence(KeyStore::open(&dir).expect_err("locked")), locked);
    assert_eq!(
        sentence(KeyStore::create(&dir, rng, b"other").expect_err("locked")),
        locked
    );
    drop(store);
    assert_eq!(
        sentence(KeyStore::create(&dir, rng, b"other").expect_err("there is one")),
        "/var/alice already holds the keys of a terminal: enrol into another directory"
    );
    assert_eq!(opened(&dir), b"keys");

    let whole = files(&dir);
    for (name, at, part) in [
        (SLOTS, 0, "the root slots"),
        (SLOTS, 30, "the root slots"),
        (SLOTS, 80, "the root slots"),
        ("snapshot-a", 0, "the snapshots"),
        ("snapshot-a", 19, "the snapshots"),
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
    assert_eq!(
        sentence(KeyStore::create(&nowhere, rng, b"keys").expect_err("no parent")),
        "cannot make the directory /var/no/such: No such file or directory (os error 2)"
    );
}
