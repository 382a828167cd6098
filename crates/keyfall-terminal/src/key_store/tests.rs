//! What is on the disk after each step, and what opens after a crash between any two of them.
//! That the steps come in this order, under kill and full disk: `e2e/key-store-crash`.

use std::collections::BTreeMap;
use std::fs;

use super::compartment::{SLOT_LEN, TAG_LEN, sha256};
use super::slots::{BLOCK_LEN, Block, FILE_LEN};
use super::*;

mod commits;
mod erasure;
mod passphrase;

/// Remembers everything that it handed out.
#[derive(Default)]
struct Recorder {
    drawn: Vec<Vec<u8>>,
}

impl Random for Recorder {
    fn fill(&mut self, into: &mut [u8]) {
        let seed = sha256(&self.drawn.len().to_be_bytes());
        into.iter_mut()
            .zip(seed.iter().cycle())
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

/// Both snapshots of a store without a passphrase.
fn opened(dir: &Path) -> (Vec<u8>, Vec<u8>) {
    let (_, opened) = KeyStore::open(dir).expect("a store");
    let user = opened.user.expect("there is no passphrase");
    (opened.device.to_vec(), user.to_vec())
}

fn protection(passphrase: &str) -> Protection {
    limited(passphrase, TRY_LIMIT)
}

fn limited(passphrase: &str, try_limit: u8) -> Protection {
    Protection::new(passphrase.to_owned().into(), None, try_limit).expect("long enough")
}

/// Whether 8 octets in a row of `secret` stand anywhere in `files`.
fn holds_a_piece_of(files: &Files, secret: &[u8]) -> bool {
    let pieces: std::collections::HashSet<&[u8]> = secret.windows(8).collect();
    files
        .values()
        .any(|content| content.windows(8).any(|window| pieces.contains(window)))
}

/// One block of the slot file.
fn block(files: &Files, block: Block) -> &[u8] {
    let at = block.offset() as usize;
    &files[SLOTS][at..at + BLOCK_LEN]
}

fn is_zero(octets: &[u8]) -> bool {
    octets.iter().all(|octet| *octet == 0)
}

/// One write: in which file, from where, how many octets.
type Step = (&'static str, usize, usize);

/// `before` with the octets of `after` in `at..at + len` of `name`.
fn with(before: &Files, after: &Files, (name, at, len): Step) -> Files {
    let mut state = before.clone();
    let file = state.entry(name.to_owned()).or_default();
    file.resize(file.len().max(at + len), 0);
    file[at..at + len].copy_from_slice(&after[name][at..at + len]);
    state
}

/// `before`, of a step whose octets in the end are those in `after`, each amount from 0 to all.
/// The length may be on the disk before the octets are, and the end before the beginning.
fn torn(before: &Files, after: &Files, step: Step) -> Vec<Files> {
    let (name, at, len) = step;
    let mut states = Vec::new();
    for written in [0, 8, 30, 56, len / 2, len - 1, len] {
        states.push(with(before, after, (name, at, written)));
        let mut backwards = with(before, after, (name, at + len - written, written));
        let file = backwards.get_mut(name).expect("just made");
        file.resize(file.len().max(at + len), 0);
        states.push(backwards);
    }
    states
}

/// The writes of the commit that was just done, in their order.
fn steps_of_commit(compartment: &Compartment, kind: Kind, len: usize) -> [Step; 3] {
    let next = compartment.active;
    [
        (SLOTS, kind.block(next).offset() as usize, SLOT_LEN),
        (kind.file_name(next), 0, len + TAG_LEN),
        (SLOTS, kind.block(next.other()).offset() as usize, SLOT_LEN),
    ]
}
