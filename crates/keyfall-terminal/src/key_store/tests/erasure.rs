//! After an erasure nothing in any file is a key or half of one, whenever the power is cut.

use std::os::unix::fs::symlink;

use super::*;

fn names(dir: &Path) -> Vec<String> {
    files(dir).into_keys().collect()
}

fn delete() -> Erasure {
    let mut erasure = Erasure::of_keys(DeletionCause::Delete);
    erasure.deleted.receipt = Some("00ff".to_owned());
    erasure.deleted.at = Some(1_800_000_000);
    erasure
}

fn with_keys(dir: &Path, rng: &mut Recorder, protection: Option<&Protection>) -> KeyStore {
    let mut store = KeyStore::create(dir, rng, &snapshot(1, 9000), &snapshot(2, 9000), protection)
        .expect("created");
    store
        .commit(rng, &snapshot(3, 900), Some(&snapshot(4, 900)))
        .expect("committed");
    fs::write(dir.join("request-key"), [9; 32]).expect("written");
    store
}

/// R-066.
#[test]
fn no_key_nor_half_of_one_is_left() {
    for protection in [None, Some(protection("correct horse battery"))] {
        let dir = tempfile::tempdir().expect("a directory");
        let rng = &mut Recorder::default();
        let mut store = with_keys(dir.path(), rng, protection.as_ref());
        let before = files(dir.path());
        let found = rng.drawn.iter().filter(|it| holds_a_piece_of(&before, it));
        assert!(found.count() >= 2, "the search finds keys");
        // What an open file descriptor, and so the disk, still holds of files that are removed.
        let mut held = Vec::new();
        for name in before.keys() {
            held.push((
                name.clone(),
                File::open(dir.path().join(name)).expect("open"),
            ));
        }
        let deleted = store.erase(&delete()).expect("erased");
        assert_eq!(deleted, delete().deleted);
        assert_eq!(store.erase(&delete()).expect("again"), deleted, "no harm");
        assert_eq!(names(dir.path()), ["deleted"]);
        let mut on_disk = files(dir.path());
        for (name, mut file) in held {
            let mut octets = Vec::new();
            io::Read::read_to_end(&mut file, &mut octets).expect("read");
            assert_eq!(octets.len(), before[&name].len(), "in place, not truncated");
            on_disk.insert(format!("freed {name}"), octets);
        }
        for secret in rng.drawn.iter().chain([&vec![9; 32]]) {
            assert!(!holds_a_piece_of(&on_disk, secret));
        }
        for kept in ["freed user-a", "freed user-b", "freed snapshot-a"] {
            assert!(is_zero(&on_disk[kept]), "{kept}");
        }
        drop(store);
        let error = KeyStore::open(dir.path()).expect_err("nothing is left");
        let KeyStoreError::Deleted { deleted, .. } = error else {
            panic!("{error}")
        };
        assert_eq!(*deleted, delete().deleted);
        let anew = KeyStore::create(dir.path(), rng, b"keys", b"keys", None);
        let sentence = anew.expect_err("it stays deleted").to_string();
        assert!(sentence.ends_with(
            "were erased: the server ordered it; enrol this terminal anew in another directory"
        ));
    }
}

/// Old sealed records in free blocks open with nothing, because the slots are gone.
#[test]
fn an_erasure_goes_on_after_a_power_cut_at_any_write() {
    let rng = &mut Recorder::default();
    let dir = tempfile::tempdir().expect("a directory");
    let store = with_keys(dir.path(), rng, None);
    let whole = files(dir.path());
    // The one write of the slots, by blocks that reach the disk in any order.
    store
        .slots
        .erase(&{
            let erased = tempfile::tempdir().expect("a directory");
            let mut other = with_keys(erased.path(), &mut Recorder::default(), None);
            let slots = File::open(erased.path().join(SLOTS)).expect("open");
            other.erase(&delete()).expect("erased");
            let mut end = vec![0; BLOCK_LEN];
            std::os::unix::fs::FileExt::read_exact_at(&slots, &mut end, Block::End.offset())
                .expect("read");
            end
        })
        .expect("erased");
    let erased = files(dir.path());
    let blocks = [
        Block::DeviceA,
        Block::DeviceB,
        Block::UserA,
        Block::UserB,
        Block::End,
    ];
    for reached in 1..1 << blocks.len() {
        let mut state = whole.clone();
        for (at, it) in blocks.iter().enumerate() {
            if reached & (1 << at) != 0 {
                state = with(&state, &erased, (SLOTS, it.offset() as usize, BLOCK_LEN));
            }
        }
        if state[SLOTS] == whole[SLOTS] {
            continue;
        }
        let crashed = laid_out(&state);
        let error = KeyStore::open(crashed.path()).expect_err("it goes on");
        let KeyStoreError::Deleted { deleted, .. } = error else {
            panic!("{error}")
        };
        let end_reached = reached & 1 << 4 != 0;
        assert_eq!(deleted.cause == DeletionCause::Delete, end_reached);
        assert_eq!(deleted.cause == DeletionCause::Unknown, !end_reached);
        assert_eq!(names(crashed.path()), ["deleted"]);
    }
    // Then the snapshots go, the note is written, and the slots' name goes last.
    for gone in 0..6 {
        let mut state = erased.clone();
        for name in [
            "snapshot-a",
            "snapshot-b",
            "user-a",
            "user-b",
            "request-key",
        ]
        .iter()
        .take(gone)
        {
            state.remove(*name);
        }
        for note in [None, Some(&b"{\"cau"[..])] {
            if let Some(note) = note {
                state.insert("deleted".to_owned(), note.to_vec());
            }
            let crashed = laid_out(&state);
            let error = KeyStore::open(crashed.path()).expect_err("it goes on");
            assert!(matches!(error, KeyStoreError::Deleted { .. }));
            assert_eq!(names(crashed.path()), ["deleted"]);
            let text = fs::read_to_string(crashed.path().join("deleted")).expect("a note");
            assert_eq!(
                text,
                r#"{"cause":"delete","receipt":"00ff","at":1800000000}"#
            );
        }
    }
}

/// R-067, A-33.
#[test]
fn initialization_removes_the_directory_and_the_wipe_roots() {
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path().canonicalize().expect("there");
    let (dir, app, kept) = (place.join("alice"), place.join("app"), place.join("kept"));
    for path in [&app, &kept] {
        fs::create_dir_all(path.join("deep/er")).expect("made");
        fs::write(path.join("deep/er/log"), b"data").expect("written");
    }
    symlink(&kept, app.join("deep/link")).expect("linked");
    symlink(&kept, place.join("linked")).expect("linked");
    fs::write(place.join("file"), b"data").expect("written");
    let rng = &mut Recorder::default();
    let mut store = with_keys(&dir, rng, None);
    fs::create_dir(dir.join("own")).expect("made");
    fs::write(dir.join("own/notes"), b"data").expect("written");
    let root = |path: &Path| path.display().to_string();
    let erasure = Erasure {
        everything: true,
        wipe_roots: vec![
            root(&app),
            root(&place.join("file")),
            root(&place.join("never-was")),
            root(&place.join("linked")),
            root(&place.join("linked/deep")),
            "/".to_owned(),
            "//".to_owned(),
            "relative".to_owned(),
            format!("{}/../kept", root(&app)),
        ],
        ..Erasure::of_keys(DeletionCause::Initialize)
    };
    let deleted = store.erase(&erasure).expect("erased");
    assert_eq!(deleted.cause, DeletionCause::Initialize);
    assert!(!dir.exists() && !app.exists() && !place.join("file").exists());
    assert!(kept.join("deep/er/log").exists(), "links are not followed");
    let refused: Vec<_> = deleted
        .not_removed
        .iter()
        .map(|line| line.replace(&root(&place), ""))
        .collect();
    assert_eq!(
        refused,
        [
            "/linked: a symbolic link is on the way to it",
            "/linked/deep: a symbolic link is on the way to it",
            "/: not an absolute path below the root directory",
            "//: not an absolute path below the root directory",
            "relative: not an absolute path below the root directory",
            "/app/../kept: not an absolute path below the root directory",
        ]
    );
    drop(store);
    assert!(matches!(
        KeyStore::open(&dir),
        Err(KeyStoreError::NotEnrolled { .. })
    ));
    drop(KeyStore::create(&dir, rng, b"new", b"keys", None).expect("as before enrolment"));
}

#[test]
fn an_interrupted_initialization_still_knows_its_wipe_roots() {
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path().canonicalize().expect("there");
    let (dir, app) = (place.join("alice"), place.join("app"));
    fs::create_dir(&app).expect("made");
    let mut store = with_keys(&dir, &mut Recorder::default(), None);
    let before = files(&dir);
    let slots = File::open(dir.join(SLOTS)).expect("open");
    let mut erasure = Erasure {
        everything: true,
        wipe_roots: vec![app.display().to_string()],
        ..Erasure::of_keys(DeletionCause::Initialize)
    };
    // As long as eight roots may be, and longer: what does not fit is done at once all the same.
    let long = format!("{}/{}", app.display(), "\\".repeat(160));
    erasure.wipe_roots.extend(std::iter::repeat_n(long, 12));
    store.erase(&erasure).expect("erased");
    assert!(!app.exists() && !dir.exists());

    fs::create_dir(&dir).expect("made");
    fs::create_dir(&app).expect("made");
    for (name, octets) in &before {
        fs::write(dir.join(name), octets).expect("written");
    }
    let mut octets = vec![0; FILE_LEN];
    std::os::unix::fs::FileExt::read_exact_at(&slots, &mut octets, 0).expect("read");
    fs::write(dir.join(SLOTS), octets).expect("written");
    let error = KeyStore::open(&dir).expect_err("it goes on");
    assert!(matches!(error, KeyStoreError::Deleted { .. }));
    assert!(!app.exists() && !dir.exists());
}
