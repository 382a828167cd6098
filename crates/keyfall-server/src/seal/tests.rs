use std::fs::{self, Permissions};

use super::*;

/// Octets 0, 1, 2 ... over all calls.
#[derive(Default)]
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, into: &mut [u8]) {
        for octet in into {
            *octet = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

fn sealer() -> Sealer {
    let mut rng = Counting::default();
    Sealer {
        key: Secret::init_with(|octets| rng.fill(octets)),
    }
}

#[test]
fn what_is_sealed_opens_at_its_place_only() {
    let rng = &mut Counting(0);
    let sealer = sealer();
    let secret = [0xa5; 32];
    let blob = sealer.seal(rng, "master/7/key", &secret);
    assert_eq!(blob.len(), 24 + 32 + 16);
    assert_eq!(
        sealer.open("master/7/key", &blob).expect("opens")[..],
        secret
    );
    let error = sealer
        .open("master/8/key", &blob)
        .expect_err("another place");
    assert_eq!(
        error.to_string(),
        "what is sealed at master/8/key does not open: seal.key belongs to another database, or \
         the database was changed"
    );
    let other = Sealer {
        key: Secret::init_with(|octets| octets.fill(9)),
    };
    assert!(other.open("master/7/key", &blob).is_err());
    for at in 0..blob.len() {
        let mut changed = blob.clone();
        changed[at] ^= 1;
        assert!(sealer.open("master/7/key", &changed).is_err(), "octet {at}");
        assert!(
            sealer.open("master/7/key", &blob[..at]).is_err(),
            "cut at {at}"
        );
    }
    let again = sealer.seal(rng, "master/7/key", &secret);
    assert_ne!(again[24..], blob[24..], "another salt, another key");
    let empty = sealer.seal(rng, "note/1/text", b"");
    assert!(
        sealer
            .open("note/1/text", &empty)
            .expect("opens")
            .is_empty()
    );
}

/// Seal key 00 01 … 1f, salt 00 01 … 17, made with another library (python cryptography).
#[test]
fn a_blob_is_what_the_formula_says() {
    let blob = sealer().seal(
        &mut Counting(0),
        "terminal/1/wrap",
        b"thirty-two octets of a wrap key.",
    );
    let hex: String = blob.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(
        hex,
        concat!(
            "000102030405060708090a0b0c0d0e0f1011121314151617ad1d0121f018eee2221eda65",
            "f7e8d7e5b1caa2a2a168d9e34031445e67d5ad45bea77bc8f08e247ceeb7dcea13d3ce26"
        )
    );
}

#[test]
fn a_seal_key_is_made_once_and_read_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("seal.key");
    let rng = &mut Counting(7);
    let made = Sealer::create(&path, rng).expect("made");
    assert_eq!(
        fs::metadata(&path).expect("there").permissions().mode() & 0o777,
        0o600
    );
    assert_eq!(fs::metadata(&path).expect("there").len(), 32);
    let blob = made.seal(rng, "a/1/b", b"secret");
    let read = Sealer::read(&path).expect("read");
    assert_eq!(read.open("a/1/b", &blob).expect("opens")[..], *b"secret");
    assert_eq!(format!("{read:?}"), "Sealer { key: Secret<32> }");
}

#[test]
fn each_refusal_of_a_key_file_has_its_sentence() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("seal.key");
    let sentence = |error: SealKeyError| {
        error
            .to_string()
            .replace(&dir.path().display().to_string(), "/srv")
    };
    assert_eq!(
        sentence(Sealer::read(&path).expect_err("missing")),
        "/srv/seal.key is missing: put it back from where you keep it, for nothing else opens the \
         database"
    );
    Sealer::create(&path, &mut Counting(0)).expect("made");
    assert_eq!(
        sentence(Sealer::create(&path, &mut Counting(1)).expect_err("there is one")),
        "/srv/seal.key already exists and may be the only key to a database: move it away first"
    );
    for (mode, shown) in [
        (0o644, "0644"),
        (0o640, "0640"),
        (0o604, "0604"),
        (0o620, "0620"),
    ] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("set");
        assert_eq!(
            sentence(Sealer::read(&path).expect_err("too open")),
            format!(
                "/srv/seal.key has mode {shown} and others may read the key to all keys: chmod \
                 600 /srv/seal.key"
            )
        );
    }
    fs::set_permissions(&path, Permissions::from_mode(0o400)).expect("set");
    Sealer::read(&path).expect("read-only is narrow enough");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("set");
    for len in [0, 31, 33] {
        fs::write(&path, vec![1; len]).expect("written");
        assert_eq!(
            sentence(Sealer::read(&path).expect_err("damaged")),
            format!(
                "/srv/seal.key has {len} octets instead of 32: put it back from where you keep it"
            )
        );
    }
}
