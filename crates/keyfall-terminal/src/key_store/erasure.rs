//! Crypto-erase: what opens goes first, in one write; then what can be removed is removed. A power
//! cut in between is made up for when the store is opened next.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use keyfall_api::control::{Deleted, DeletionCause};
use serde::{Deserialize, Serialize};

use super::compartment::{Half, Kind, sha256, slots_are_zero};
use super::slots::{BLOCK_LEN, Block, SlotFile};
use super::{KeyStoreError, SLOTS_NEW, io_error, sync_parent};

/// What an order, a tamper switch or the last wrong try asks for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Erasure {
    /// Also the directory and `wipe_roots`, not only what holds keys.
    pub everything: bool,
    /// What is left to be read afterwards.
    pub deleted: Deleted,
    /// Absolute paths beside the directory; each is removed with all that is in it.
    pub wipe_roots: Vec<String>,
}

impl Erasure {
    /// Of the keys alone.
    #[must_use]
    pub const fn of_keys(cause: DeletionCause) -> Self {
        Self {
            everything: false,
            deleted: Deleted {
                cause,
                receipt: None,
                at: None,
                not_removed: Vec::new(),
            },
            wipe_roots: Vec::new(),
        }
    }
}

/// Does all of it; `dir` is locked by the caller. Returns what happened, with what could not be
/// removed.
pub(super) fn erase(
    dir: &Path,
    slots: &SlotFile,
    erasure: &Erasure,
) -> Result<Deleted, KeyStoreError> {
    // SECURITY: first, and before anything that could fail or take time.
    slots.erase(&end_block(erasure))?;
    let mut not_removed = Vec::new();
    for name in KEY_FILES {
        overwrite_and_remove(&dir.join(name), &mut not_removed);
    }
    let mut deleted = erasure.deleted.clone();
    if !erasure.everything {
        deleted.not_removed = not_removed;
        write_deleted(dir, &deleted)?;
        match std::fs::remove_file(&slots.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("remove", &slots.path, error));
            }
            Ok(()) | Err(_) => {}
        }
        sync_dir(dir)?;
        return Ok(deleted);
    }
    for root in &erasure.wipe_roots {
        remove_wipe_root(root, &mut not_removed);
    }
    remove_directory(dir, slots, &mut not_removed);
    deleted.not_removed = not_removed;
    Ok(deleted)
}

/// A store that comes to nothing leaves nothing behind.
pub(super) fn discard(dir: &Path, slots: &SlotFile) -> Result<(), KeyStoreError> {
    slots.erase(&end_block(&Erasure::of_keys(DeletionCause::Unknown)))?;
    let mut not_removed = Vec::new();
    for name in KEY_FILES {
        overwrite_and_remove(&dir.join(name), &mut not_removed);
    }
    std::fs::remove_file(&slots.path).map_err(|e| io_error("remove", &slots.path, e))?;
    // Others may have put something there.
    drop(std::fs::remove_dir(dir));
    for line in not_removed {
        tracing::warn!(line, "a file of the terminal could not be removed");
    }
    sync_parent(dir)
}

/// The erasure that was begun here and not ended.
pub(super) fn interrupted(slots: &SlotFile) -> Result<Option<Erasure>, KeyStoreError> {
    let mut octets = vec![0; BLOCK_LEN];
    slots.read(Block::End, &mut octets)?;
    if let Some(erasure) = decode_end(&octets) {
        return Ok(Some(erasure));
    }
    let begun = slots_are_zero(slots, Kind::Device)? || slots_are_zero(slots, Kind::User)?;
    Ok(begun.then(|| Erasure::of_keys(DeletionCause::Unknown)))
}

/// What happened in `dir`, where its keys were erased.
pub(super) fn read_deleted(dir: &Path) -> Result<Option<Deleted>, KeyStoreError> {
    let path = dir.join(DELETED);
    match std::fs::read(&path) {
        Ok(octets) => {
            let deleted = serde_json::from_slice(&octets);
            let unknown = Erasure::of_keys(DeletionCause::Unknown).deleted;
            Ok(Some(deleted.unwrap_or(unknown)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", &path, error)),
    }
}

/// Length, JSON, SHA-256 of both.
fn end_block(erasure: &Erasure) -> Vec<u8> {
    let json = |erasure: &Erasure| {
        serde_json::to_vec(erasure).expect("an erasure is a map with text keys")
    };
    let mut text = json(erasure);
    if text.len() > BLOCK_LEN - END_OVERHEAD {
        // A power cut would forget the roots that do not fit; nothing else.
        let mut shorter = erasure.clone();
        while text.len() > BLOCK_LEN - END_OVERHEAD && shorter.wipe_roots.pop().is_some() {
            text = json(&shorter);
        }
    }
    let mut octets = Vec::with_capacity(BLOCK_LEN);
    octets.extend_from_slice(&(text.len() as u64).to_be_bytes());
    octets.extend_from_slice(&text);
    let check = sha256(&octets);
    octets.extend_from_slice(&check);
    octets
}

fn decode_end(octets: &[u8]) -> Option<Erasure> {
    let len = usize::try_from(u64::from_be_bytes(octets.get(..8)?.try_into().ok()?)).ok()?;
    let end = len.checked_add(8)?;
    let check = octets.get(end..end.checked_add(32)?)?;
    if sha256(&octets[..end]) != check {
        return None;
    }
    serde_json::from_slice(&octets[8..end]).ok()
}

/// The sealed octets open with nothing any more; they are overwritten all the same.
fn overwrite_and_remove(path: &Path, not_removed: &mut Vec<String>) {
    let overwritten = OpenOptions::new().write(true).open(path).and_then(|file| {
        let zeros = [0; BLOCK_LEN];
        let len = file.metadata()?.len();
        let mut at = 0;
        while at < len {
            let part = usize::try_from(len - at).map_or(BLOCK_LEN, |left| left.min(BLOCK_LEN));
            file.write_all_at(&zeros[..part], at)?;
            at += part as u64;
        }
        file.sync_data()
    });
    note(path, overwritten, not_removed);
    note(path, std::fs::remove_file(path), not_removed);
}

fn write_deleted(dir: &Path, deleted: &Deleted) -> Result<(), KeyStoreError> {
    let path = dir.join(DELETED);
    let text = serde_json::to_vec(deleted).expect("a map with text keys");
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| {
            file.write_all(&text)?;
            file.sync_all()
        })
        .map_err(|e| io_error("write", &path, e))?;
    sync_dir(dir)
}

/// No symbolic link is followed, neither the root itself nor on the way to it.
fn remove_wipe_root(root: &str, not_removed: &mut Vec<String>) {
    let path = Path::new(root);
    let mut parts = path.components().skip(1);
    let is_plain = |part| matches!(part, std::path::Component::Normal(_));
    if !path.is_absolute() || parts.clone().next().is_none() || !parts.all(is_plain) {
        not_removed.push(format!(
            "{root}: not an absolute path below the root directory"
        ));
        return;
    }
    match std::fs::canonicalize(path) {
        Ok(real) if real == path => remove_tree(path, not_removed),
        Ok(_) => not_removed.push(format!("{root}: a symbolic link is on the way to it")),
        Err(error) => note(path, Err(error), not_removed),
    }
}

/// All that can be removed below `path`, and `path`. The slots are last, because an erasure that is
/// interrupted goes on from them.
fn remove_directory(dir: &Path, slots: &SlotFile, not_removed: &mut Vec<String>) {
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
                if path != slots.path {
                    remove_tree(&path, not_removed);
                }
            }
        }
        Err(error) => note(dir, Err(error), not_removed),
    }
    note(&slots.path, std::fs::remove_file(&slots.path), not_removed);
    note(dir, std::fs::remove_dir(dir), not_removed);
    if let Err(error) = sync_parent(dir) {
        tracing::warn!(%error, "the removal of the directory may not be durable");
    }
}

/// Links are removed and not followed. What stands in the way is noted, and the rest goes.
fn remove_tree(path: &Path, not_removed: &mut Vec<String>) {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return note(path, std::fs::remove_file(path), not_removed),
        Err(error) => return note(path, Err(error), not_removed),
    }
    if std::fs::remove_dir_all(path).is_ok() {
        return;
    }
    // It stopped at the first that it could not remove.
    let before = not_removed.len();
    for child in std::fs::read_dir(path).into_iter().flatten().flatten() {
        remove_tree(&child.path(), not_removed);
    }
    if not_removed.len() == before {
        note(path, std::fs::remove_dir(path), not_removed);
    }
}

fn note(path: &Path, removed: io::Result<()>, not_removed: &mut Vec<String>) {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            not_removed.push(format!("{}: {error}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
}

fn sync_dir(dir: &Path) -> Result<(), KeyStoreError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| io_error("sync", dir, e))
}

/// What happened, after an erasure.
pub(super) const DELETED: &str = "deleted";
/// What holds or held keys beside the slots: `request-key` opens the enrolment package.
const KEY_FILES: [&str; 6] = [
    Kind::Device.file_name(Half::A),
    Kind::Device.file_name(Half::B),
    Kind::User.file_name(Half::A),
    Kind::User.file_name(Half::B),
    SLOTS_NEW,
    crate::enrolment::REQUEST_FILE,
];
const END_OVERHEAD: usize = 8 + 32;
