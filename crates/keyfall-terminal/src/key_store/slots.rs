//! `root-slots`: everything that opens anything, in one small file that is overwritten in place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::{KeyStoreError, io_error};

/// The open file, and its path for errors.
#[derive(Debug)]
pub(super) struct SlotFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
}

/// One block each: writing one cannot tear another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Block {
    DeviceA,
    DeviceB,
    UserA,
    UserB,
    UnlockA,
    UnlockB,
    /// One octet: how often a passphrase was tried since the last right one.
    Tries,
    /// After an erasure: what is still to be removed.
    End,
}

impl Block {
    pub(super) const fn offset(self) -> u64 {
        self as u64 * BLOCK_LEN as u64
    }
}

impl SlotFile {
    /// Zeros from end to end, so that every block has its place on the disk. Not synced.
    pub(super) fn clear(&self) -> Result<(), KeyStoreError> {
        self.file
            .write_all_at(&[0; FILE_LEN], 0)
            .map_err(|e| io_error("write", &self.path, e))
    }

    /// In place, and durable when this returns.
    pub(super) fn write(&self, block: Block, octets: &[u8]) -> Result<(), KeyStoreError> {
        debug_assert!(octets.len() <= BLOCK_LEN, "it would reach the next block");
        self.file
            .write_all_at(octets, block.offset())
            .and_then(|()| self.file.sync_data())
            .map_err(|e| io_error("write", &self.path, e))
    }

    /// Zeros over everything, and `end` in the last block: one write, one sync.
    /// SECURITY: from here nothing on the disk opens anything.
    pub(super) fn erase(&self, end: &[u8]) -> Result<(), KeyStoreError> {
        let mut octets = vec![0; FILE_LEN];
        let at = FILE_LEN - BLOCK_LEN;
        octets[at..at + end.len()].copy_from_slice(end);
        self.file
            .write_all_at(&octets, 0)
            .and_then(|()| self.file.sync_data())
            .map_err(|e| io_error("erase the keys in", &self.path, e))
    }

    /// The beginning of a block; what lies past the end of the file reads as zero.
    pub(super) fn read(&self, block: Block, into: &mut [u8]) -> Result<(), KeyStoreError> {
        into.fill(0);
        let mut done = 0;
        while done < into.len() {
            match self
                .file
                .read_at(&mut into[done..], block.offset() + done as u64)
            {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io_error("read", &self.path, error)),
            }
        }
        Ok(())
    }
}

pub(super) const BLOCK_LEN: usize = 4096;
pub(super) const FILE_LEN: usize = 8 * BLOCK_LEN;
