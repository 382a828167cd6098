//! `server restore`: a database that is put back from a copy, brought up to the order journal that
//! went on without it (FORMATS section 12; REQUIREMENTS A-32).
//!
//! Everything is made in `DIR/restoring` first. Then the files that are there are moved into a
//! directory `DIR/replaced-N`, the database last, and the new ones take their places, the database
//! last again. Killed at any moment, the same command leads to the end.

mod paths;

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use keyfall_protocol::calendar::Utc;
use keyfall_protocol::ids::{SequenceNumber, Tick, UnixSeconds};
use keyfall_protocol::server::{By, CaughtUp, JournalEntry, Moment, Refusal, Since};

use crate::clock;
use crate::directory::{Directory, DirectoryError};
use crate::journal::{Entry, Journal, JournalError, Replayed, ReplayedLine, TornLine, replay};
use crate::os_random::OsRandom;
use crate::seal::Sealer;
use crate::store::{Copied, Store, StoreError, examine, journalled_in};
use paths::Paths;

/// What is to be restored.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The server's directory, with the seal key in it.
    pub dir: PathBuf,
    /// The backup.
    pub from: PathBuf,
    /// The order journal; `None`: the one in the directory.
    pub journal: Option<PathBuf>,
    /// Go on without the journal, or without its end.
    pub journal_lost: bool,
    pub by: By,
}

/// A server that was restored, and is held until an operator confirms it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoredServer {
    /// The newest moment that the backup knew of.
    pub copied_at: UnixSeconds,
    /// Journal entries after the backup that were carried out again.
    pub replayed: usize,
    /// Where the files are that were there before; `None` where there were none.
    pub replaced: Option<PathBuf>,
    /// A last line of the journal that was cut off.
    pub torn: Option<TornLine>,
    pub caught_up: CaughtUp,
    /// Names of those that were excluded again.
    pub excluded: Vec<String>,
}

/// Why nothing was restored. What was there is as it was, or moved aside where it says so; giving
/// the same command again is allowed.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error("a server runs in {}: end it first", path.display())]
    Runs { path: PathBuf },
    #[error(
        "there is no directory {}: make it with mode 700, and put seal.key and the order journal into it",
        path.display()
    )]
    NoDirectory { path: PathBuf },
    #[error("there is no backup {}", path.display())]
    NoBackup { path: PathBuf },
    #[error("{} is no whole backup: {source}", path.display())]
    Backup { path: PathBuf, source: StoreError },
    #[error(
        "the order journal {} is missing, and without it numbers would be used twice and excluded \
         terminals readmitted: give its place with --journal, or --journal-lost if there is none any \
         more",
        path.display()
    )]
    NoJournal { path: PathBuf },
    #[error("{source}; or go on with --journal-lost, which counts all after that line as lost")]
    BrokenJournal { source: JournalError },
    #[error(
        "the order journal {} does not have entry {entry} of the backup: it is of another server or \
         older than the backup; give the right one with --journal, or --journal-lost if there is none \
         any more",
        path.display()
    )]
    ForeignJournal { path: PathBuf, entry: u64 },
    #[error(
        "the order journal {} ends at entry {journal}, and the database that is there knew of \
         {database}: its end was cut off; give the whole one with --journal, or --journal-lost if \
         there is none any more",
        path.display()
    )]
    CutJournal {
        path: PathBuf,
        journal: u64,
        database: u64,
    },
    #[error(
        "the clock of this machine stands at {}, before the newest entry of what is restored ({}): \
         set the clock, for numbers are counted by it",
        Utc(*now),
        Utc(*newest)
    )]
    ClockBehind {
        now: UnixSeconds,
        newest: UnixSeconds,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("a KEYSET in the order journal is not signed by this fleet's root: {0}")]
    Refused(#[from] Refusal),
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

/// Restores a server. It sends nothing until it is confirmed.
///
/// # Errors
/// [`RestoreError`].
pub fn restore(order: Restore) -> Result<RestoredServer, RestoreError> {
    let paths = Paths::of(&order.dir)?;
    if UnixStream::connect(paths.directory.admin_socket()).is_ok() {
        return Err(RestoreError::Runs { path: order.dir });
    }
    let sealer = Sealer::read(&paths.directory.seal_key()).map_err(StoreError::from)?;
    if !order.from.is_file() {
        return Err(RestoreError::NoBackup { path: order.from });
    }
    // The lock of the directory, as long as this goes on.
    let mut live = Live::lock(&paths.directory)?;
    paths.clear()?;
    paths.stage_copy(&order.from)?;
    let backup = |source| RestoreError::Backup {
        path: order.from.clone(),
        source,
    };
    let copied = examine(&paths.database, None).map_err(backup)?;
    let source = Source::find(&order, &paths, &live, &copied)?;
    let wall = clock::wall();
    let newest = source
        .since
        .last()
        .map_or(copied.newest, |line| line.at.max(copied.newest));
    if wall < newest {
        return Err(RestoreError::ClockBehind { now: wall, newest });
    }
    let journal = source.open(&paths, &mut live)?;

    let (mut store, state, _) =
        Store::of_copy(&paths.database, sealer, journal).map_err(|error| {
            // Whether it is the backup or the seal key that is of another server, nobody knows.
            if matches!(error, StoreError::Sealed(_)) {
                RestoreError::Store(error)
            } else {
                backup(error)
            }
        })?;
    let since = source.since(&copied);
    let at = Moment {
        now: Tick::default(),
        wall,
    };
    let machine = state.start(at);
    let (batch, caught_up) = machine.catch_up(&since, order.by, &mut OsRandom)?;
    let named = |number| {
        let record = machine.terminal_named(&format!("{number}"));
        record.map_or_else(|| format!("terminal {number}"), |it| it.name.clone())
    };
    let excluded = caught_up.excluded.iter().map(named).collect();
    store.adopt_journal()?;
    store.commit(&batch, wall, &mut OsRandom)?;
    // Its lock goes with the last of the new files.
    let _journal = store.close_as_one_file(&paths.database)?;
    let replaced = paths.swap(source.staged)?;
    Ok(RestoredServer {
        copied_at: copied.newest,
        replayed: since.entries.len(),
        replaced,
        torn: source.torn,
        caught_up,
        excluded,
    })
}

/// The journal in the directory, which is its lock.
enum Live {
    Whole(Journal, Option<TornLine>),
    /// Broken, or it goes on elsewhere.
    Unused,
}

impl Live {
    fn lock(directory: &Directory) -> Result<Self, RestoreError> {
        match Journal::open(&directory.journal()) {
            Ok((journal, torn)) => Ok(Self::Whole(journal, torn)),
            Err(
                JournalError::Missing { .. }
                | JournalError::Broken { .. }
                | JournalError::Unknown { .. },
            ) => Ok(Self::Unused),
            Err(error) => Err(error.into()),
        }
    }
}

/// The journal that is replayed.
struct Source {
    /// `None`: nothing of it is left.
    path: Option<PathBuf>,
    /// Octets of the whole lines.
    octets: u64,
    /// Its lines after the backup.
    since: Vec<ReplayedLine>,
    /// Above every sequence number that any line reserved.
    sequence: SequenceNumber,
    torn: Option<TornLine>,
    incomplete: bool,
    /// It goes on in a new file instead of the one in the directory.
    staged: bool,
}

impl Source {
    fn find(
        order: &Restore,
        paths: &Paths,
        live: &Live,
        copied: &Copied,
    ) -> Result<Self, RestoreError> {
        let lost = order.journal_lost;
        let in_place = paths.directory.journal();
        let given = order
            .journal
            .as_ref()
            .filter(|given| !goes_on(given, &in_place));
        let path = given.unwrap_or(&in_place).clone();
        let mut read = match replay(&path) {
            Ok(read) => read,
            Err(JournalError::Missing { .. }) if lost && given.is_none() => {
                return Ok(Self::nothing());
            }
            Err(JournalError::Missing { path }) => return Err(RestoreError::NoJournal { path }),
            Err(error) => return Err(error.into()),
        };
        let head = copied.journalled;
        let known = usize::try_from(head.entries).unwrap_or(usize::MAX);
        let last_known = known.checked_sub(1).and_then(|place| read.lines.get(place));
        let fits = last_known.is_some_and(|line| line.link == head.link);
        match (lost, read.broken.take()) {
            (false, Some(source)) => return Err(RestoreError::BrokenJournal { source }),
            (true, _) if !fits => return Ok(Self::nothing()),
            (false, None) if !fits => {
                let entry = head.entries;
                return Err(RestoreError::ForeignJournal { path, entry });
            }
            (false, None) => cut_off(&path, &read, &paths.directory)?,
            (true, _) => {}
        }
        let torn = match live {
            Live::Whole(_, torn) if given.is_none() => *torn,
            Live::Whole(..) | Live::Unused => read.torn,
        };
        let sequence = read.lines.iter().map(|line| {
            if let Entry::Sequence { through } = line.entry {
                through.plus(1)
            } else {
                SequenceNumber::new(0)
            }
        });
        Ok(Self {
            path: Some(path),
            octets: read.octets,
            sequence: sequence.max().unwrap_or(SequenceNumber::new(0)),
            since: read.lines.into_iter().skip(known).collect(),
            torn,
            incomplete: lost,
            staged: lost || given.is_some(),
        })
    }

    const fn nothing() -> Self {
        Self {
            path: None,
            octets: 0,
            since: Vec::new(),
            sequence: SequenceNumber::new(0),
            torn: None,
            incomplete: true,
            staged: true,
        }
    }

    /// The journal that goes on from here. `live` keeps the lock where that is another one.
    fn open(&self, paths: &Paths, live: &mut Live) -> Result<Journal, RestoreError> {
        if !self.staged
            && let Live::Whole(journal, _) = std::mem::replace(live, Live::Unused)
        {
            return Ok(journal);
        }
        match &self.path {
            Some(from) => {
                paths.stage_journal(from, self.octets)?;
                Ok(Journal::open(&paths.journal)?.0)
            }
            None => Ok(Journal::create(&paths.journal)?),
        }
    }

    fn since(&self, copied: &Copied) -> Since {
        let entries = self
            .since
            .iter()
            .flat_map(|line| said(&line.entry).into_iter().map(|entry| (line.at, entry)));
        Since {
            copied_at: copied.newest,
            entries: entries.collect(),
            sequence: self.sequence,
            incomplete: self.incomplete,
        }
    }
}

/// Whether the journal `live` has all of `given`: then it is the newer one of the two.
fn goes_on(given: &Path, live: &Path) -> bool {
    let (Ok(given), Ok(live)) = (replay(given), replay(live)) else {
        return false;
    };
    let place = given.lines.len().checked_sub(1);
    place.is_some_and(|place| {
        let link = given.lines[place].link;
        live.lines.get(place).is_some_and(|line| line.link == link)
    })
}

/// A journal that lost its end hangs together as well; the database that is replaced may tell.
fn cut_off(path: &Path, read: &Replayed, directory: &Directory) -> Result<(), RestoreError> {
    let journal = read.lines.len() as u64;
    match journalled_in(&directory.database()) {
        Some(head) if head.entries > journal => Err(RestoreError::CutJournal {
            path: path.to_owned(),
            journal,
            database: head.entries,
        }),
        Some(_) | None => Ok(()),
    }
}

/// What a line says to the machine; nothing where it is about numbers of commands.
fn said(entry: &Entry) -> Vec<JournalEntry> {
    let one = match entry.clone() {
        Entry::Sequence { .. } => return Vec::new(),
        Entry::Removal {
            group,
            terminals,
            epoch,
        } => JournalEntry::Removal {
            group,
            terminals,
            epoch,
        },
        Entry::Enrolment { terminal, name } => JournalEntry::Enrolment { terminal, name },
        Entry::Epoch { group, epoch, name } => JournalEntry::Epoch { group, epoch, name },
        Entry::Member {
            group,
            terminal,
            epoch,
            generation,
        } => JournalEntry::Member {
            group,
            terminal,
            epoch,
            generation,
        },
        Entry::Renewal {
            group,
            epoch,
            generation,
        } => JournalEntry::Renewal {
            group,
            epoch,
            generation,
        },
        Entry::Policy { group, policy } => JournalEntry::Policy { group, policy },
        Entry::LegacyKey { terminal, key } => JournalEntry::LegacyKey { terminal, key },
        Entry::Packets {
            group,
            packets,
            epoch,
        } => JournalEntry::Packets {
            group,
            packets,
            epoch,
        },
        Entry::Addresses {
            terminal,
            addresses,
        } => JournalEntry::Addresses {
            terminal,
            addresses,
        },
        Entry::RankOne { g } => JournalEntry::FleetGeneration { generation: g },
        Entry::Device {
            terminal,
            generation,
            offset,
        } => JournalEntry::Device {
            terminal,
            generation,
            offset,
        },
        Entry::Exclusion { terminals, groups } => JournalEntry::Exclusion { terminals, groups },
        Entry::Erase {
            terminal,
            kind,
            version,
        } => JournalEntry::Order {
            terminal,
            kind,
            version,
        },
        Entry::KeySet {
            version,
            g,
            groups,
            frame,
        } => JournalEntry::KeySet {
            version,
            generation: g,
            groups,
            frame,
        },
        Entry::Restored {
            g,
            keys,
            incomplete,
        } => JournalEntry::Restored {
            generation: g,
            keys,
            incomplete,
        },
    };
    vec![one]
}
