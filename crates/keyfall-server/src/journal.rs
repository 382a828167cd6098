//! The order journal: what a restored server must not forget, in a file outside the database.
//!
//! A database that is put back from a copy has forgotten the numbers that were used since. They are
//! written here, durably, before anything that carries them is sent (FORMATS section 12). Only
//! numbers, names of terminals and public keys, no secrets.
//!
//! One JSON object a line, appended and never changed:
//!
//! ```text
//! {"seq":1,"time":1795300000,"kind":"enrolment","terminal":1,"name":"alice","hash":"64 digits"}
//! ```
//!
//! `hash` = the [`Link`] of the log `journal` over the octets of the line before `,"hash"`.

mod line;
mod replay;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use keyfall_protocol::command::{FreshEpoch, OrderKind};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, TerminalNumber, UnixSeconds,
};
use keyfall_protocol::server::{Addresses, GroupPolicy, PacketSettings};
use keyfall_protocol::sharing::rsa_misty1::RsaPublic;

use crate::chain::Link;
use line::Line;
pub use replay::{Replayed, ReplayedLine, replay};

/// What may be sent once it is in the journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A terminal number was given, once and for all.
    Enrolment {
        terminal: TerminalNumber,
        name: String,
    },
    /// A group has a fresh epoch, its first one too.
    Epoch {
        group: GroupNumber,
        epoch: KeyEpoch,
        name: String,
    },
    /// A terminal became a member of a group, whose master key was renewed before.
    Member {
        group: GroupNumber,
        terminal: TerminalNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// Terminals are members no more, and the group has a fresh epoch without them.
    Removal {
        group: GroupNumber,
        terminals: Vec<TerminalNumber>,
        epoch: KeyEpoch,
    },
    /// A group's master key stands at this generation.
    Renewal {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// What an operator set of a group, all of it.
    Policy {
        group: GroupNumber,
        policy: GroupPolicy,
    },
    /// The RSA key that an operator registered of a terminal; none: took away.
    LegacyKey {
        terminal: TerminalNumber,
        key: Option<RsaPublic>,
    },
    /// What an operator set of a packet group, all of it; none: it is none. With the fresh epoch that
    /// it began.
    Packets {
        group: GroupNumber,
        packets: Option<PacketSettings>,
        epoch: Option<KeyEpoch>,
    },
    /// For which addresses a terminal speaks and where it is heard, all of it.
    Addresses {
        terminal: TerminalNumber,
        addresses: Addresses,
    },
    /// Commands up to this number may be issued; the numbers count as used from now on.
    Sequence { through: SequenceNumber },
    /// All wrap and cover keys are stepped to this G.
    RankOne { g: Generation },
    /// A terminal's wrap key stands at this generation: G and its offset.
    Device {
        terminal: TerminalNumber,
        generation: Generation,
        offset: u32,
    },
    /// Terminals are shut out for good, and these groups have fresh epochs without them.
    Exclusion {
        terminals: Vec<TerminalNumber>,
        groups: Vec<FreshEpoch>,
    },
    /// DELETE, INIT, LOCK or UNLOCK was issued; the last two have versions.
    Erase {
        terminal: TerminalNumber,
        kind: OrderKind,
        version: Option<u32>,
    },
    /// A KEYSET is in force, G stands there, and these groups got fresh epochs with it.
    KeySet {
        version: u32,
        g: Generation,
        groups: Vec<FreshEpoch>,
        /// As the root signed it.
        frame: Vec<u8>,
    },
    /// The server was restored from a copy; G, and what each group whose key changed is at.
    Restored {
        g: Generation,
        keys: Vec<(GroupNumber, KeyEpoch, Generation)>,
        /// What was before this line is not whole.
        incomplete: bool,
    },
}

/// An open journal; no other process may open it meanwhile.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
    /// Octets of the whole lines.
    len: u64,
    /// Number of the last line; 0 where there is none.
    seq: u64,
    link: Link,
    link_before: Link,
}

impl Journal {
    /// Makes an empty journal in a new file at `path`.
    ///
    /// # Errors
    /// [`JournalError::AlreadyExists`] and the file there is untouched; [`JournalError::Io`].
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        let made = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path);
        let file = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(JournalError::AlreadyExists {
                    path: path.to_owned(),
                });
            }
            other => other.map_err(|e| io_error("make", path, e))?,
        };
        lock(&file, path)?;
        file.sync_all()
            .and_then(|()| crate::durable::sync_parent(path))
            .map_err(|e| io_error("write", path, e))?;
        Ok(Self::before_the_first_line(file, path))
    }

    /// Opens the journal at `path` and verifies all of it. A last line that a crash cut off in the
    /// middle of [`Self::append`] is removed and reported: nothing was sent on its word.
    ///
    /// # Errors
    /// [`JournalError::Missing`], [`JournalError::Broken`], [`JournalError::Unknown`],
    /// [`JournalError::Locked`], [`JournalError::Io`]. None of them changes the file.
    pub fn open(path: &Path) -> Result<(Self, Option<TornLine>), JournalError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(JournalError::Missing {
                    path: path.to_owned(),
                });
            }
            other => other.map_err(|e| io_error("open", path, e))?,
        };
        lock(&file, path)?;
        let mut reader = BufReader::new(file.try_clone().map_err(|e| io_error("open", path, e))?);
        let mut journal = Self::before_the_first_line(file, path);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            let octets = read.map_err(|e| io_error("read", path, e))? as u64;
            match line.split_last() {
                None => return Ok((journal, None)),
                Some((b'\n', line)) => drop(journal.take_line(line, octets)?),
                Some(_) => break,
            }
        }
        journal
            .cut_after_last_line()
            .map_err(|e| io_error("remove a torn line from", path, e))?;
        let torn = TornLine {
            number: journal.seq + 1,
            octets: line.len(),
        };
        Ok((journal, Some(torn)))
    }

    /// Writes `entry`, durably; what it says may be sent when this returns.
    ///
    /// # Errors
    /// [`JournalError::Io`], as where the disk is full: what the entry says must not be sent.
    /// Appending again is allowed.
    pub fn append(&mut self, time: UnixSeconds, entry: &Entry) -> Result<(), JournalError> {
        let seq = self.seq + 1;
        let content = Line {
            seq,
            time: time.get(),
            order: entry.into(),
        };
        let mut line = serde_json::to_vec(&content).expect("numbers and text are always JSON");
        line.pop();
        let link = self.link.next(&line);
        line.extend_from_slice(format!("{HASH_FIELD}{link}\"}}\n").as_bytes());
        // Also where an append failed before, the file ends with the last whole line.
        self.file
            .set_len(self.len)
            .and_then(|()| self.file.write_all_at(&line, self.len))
            .and_then(|()| self.file.sync_data())
            .map_err(|e| io_error("write", &self.path, e))?;
        self.len += line.len() as u64;
        self.seq = seq;
        self.link_before = std::mem::replace(&mut self.link, link);
        Ok(())
    }

    /// The link of the last line. Kept elsewhere too, it shows a journal that was cut.
    #[must_use]
    pub const fn link(&self) -> Link {
        self.link
    }

    /// The number of the last line; 0 where there is none.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.seq
    }

    /// The link of the line before the last one.
    #[must_use]
    pub const fn link_before(&self) -> Link {
        self.link_before
    }

    fn before_the_first_line(file: File, path: &Path) -> Self {
        let link = Link::start("journal");
        Self {
            file,
            path: path.to_owned(),
            len: 0,
            seq: 0,
            link,
            link_before: link,
        }
    }

    /// Verifies the next `line`; `octets` counts its end too.
    fn take_line(
        &mut self,
        line: &[u8],
        octets: u64,
    ) -> Result<(UnixSeconds, Entry), JournalError> {
        let number = self.seq + 1;
        let broken = || JournalError::Broken {
            path: self.path.clone(),
            line: number,
        };
        let end = line
            .len()
            .checked_sub(HASH_FIELD.len() + 64 + 2)
            .ok_or_else(broken)?;
        let (hashed, hash) = line.split_at(end);
        let link = self.link.next(hashed);
        if hash != format!("{HASH_FIELD}{link}\"}}").as_bytes() {
            return Err(broken());
        }
        let said = serde_json::from_slice::<Line>(line)
            .ok()
            .filter(|line| line.seq == number)
            .and_then(|line| {
                let entry = Entry::try_from(line.order).ok()?;
                Some((UnixSeconds::new(line.time), entry))
            })
            .ok_or_else(|| JournalError::Unknown {
                path: self.path.clone(),
                line: number,
            })?;
        self.len += octets;
        self.seq = number;
        self.link_before = std::mem::replace(&mut self.link, link);
        Ok(said)
    }

    fn cut_after_last_line(&self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.sync_all()
    }
}

/// A last line that was removed because a crash had cut it off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TornLine {
    pub number: u64,
    pub octets: usize,
}

/// Why a journal does not open or does not take an entry.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error(
        "{} already exists: the journal of a server is never begun anew, move it away first",
        path.display()
    )]
    AlreadyExists { path: PathBuf },
    #[error(
        "the order journal {} is missing: put it back from where it is kept, for without it \
         numbers would be used twice",
        path.display()
    )]
    Missing { path: PathBuf },
    #[error(
        "line {line} of the order journal {} was changed, or one before it was removed: put the \
         journal back from where it is kept",
        path.display()
    )]
    Broken { path: PathBuf, line: u64 },
    #[error(
        "line {line} of the order journal {} says what this version does not know: run the version \
         that wrote it, or a newer one",
        path.display()
    )]
    Unknown { path: PathBuf, line: u64 },
    #[error("another process has the order journal {} open: end that server first", path.display())]
    Locked { path: PathBuf },
    #[error("cannot {doing} the order journal {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

fn lock(file: &File, path: &Path) -> Result<(), JournalError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(JournalError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", path, error)),
    }
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> JournalError {
    JournalError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// What stands between the octets that are hashed and the 64 digits of their hash.
const HASH_FIELD: &str = ",\"hash\":\"";
