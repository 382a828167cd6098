//! The server's memory: a SQLite database with one writer, and the order journal beside it.
//!
//! One [`Batch`] is one transaction. Its journal entry is appended first, durably, then the
//! transaction is committed (FORMATS section 12). A crash between the two leaves the journal one
//! entry ahead: nothing of that order was sent, and [`Store::open`] says so and goes on. A journal
//! that is further ahead, or behind, belongs to another state of the database.
//!
//! Secrets reach the database only as blobs that [`Sealer`] made.

mod audit;
mod changes;
mod copies;
mod load;
mod protecting;
mod restored;
mod schema;
mod write;

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keyfall_protocol::ids::{SequenceNumber, UnixSeconds};
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{
    AuditEntry, Batch, Change, ChangeReport, DraftedKeys, Exclusion, FleetRecord, GroupRecord,
    JournalEntry, Moment, Restored, Server, TerminalRecord,
};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

pub use audit::{AuditReader, AuditRow, Verdict};
pub(crate) use copies::{Copied, copy, examine, journalled_in};
pub use schema::{OLDEST_SCHEMA, SCHEMA};

use crate::chain::Link;
use crate::directory::Directory;
use crate::journal::{Entry, Journal, JournalError, TornLine};
use crate::seal::{NotOpened, SealKeyError, Sealer};

/// The open store: the only writer of its database and of its journal.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    sealer: Sealer,
    journal: Journal,
    audit: Head,
    /// The journal as far as the database knows of it.
    journalled: Head,
    /// Since the last [`Self::settle`], a key was replaced.
    stale: bool,
}

/// Where a chained log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Head {
    pub entries: u64,
    pub link: Link,
}

/// Everything that the server machine starts from.
#[derive(Debug)]
pub struct State {
    pub fleet: FleetRecord,
    pub terminals: Vec<TerminalRecord>,
    pub groups: Vec<GroupRecord>,
    pub exclusions: Vec<Exclusion>,
    /// A KEYSET that waits for the root's signature.
    pub draft: Option<DraftedKeys>,
    /// What is to be minded after a restore.
    pub restored: Restored,
    /// The last change of each group's key.
    pub changes: Vec<ChangeReport>,
}

impl State {
    /// The machine that goes on from here.
    #[must_use]
    pub fn start(self, at: Moment) -> Server {
        let mut machine = Server::new(self.fleet, self.terminals, self.groups, self.exclusions, at);
        if let Some(draft) = self.draft {
            machine.resume_draft(draft);
        }
        machine.resume_restored(self.restored);
        machine.resume_changes(self.changes);
        machine
    }
}

/// What a crash left and was put right at [`Store::open`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// The journal's last line was cut off in the middle.
    pub torn: Option<TornLine>,
    /// This journal entry was never carried out.
    pub void: Option<u64>,
}

/// Why the store does not open or a batch is not durable.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    SealKey(#[from] SealKeyError),
    #[error(transparent)]
    Sealed(#[from] NotOpened),
    #[error(
        "the database has layout {held} and this version knows {known}: run the version that wrote \
         it, or a newer one"
    )]
    UnknownSchema { held: u32, known: u32 },
    #[error(
        "the database has layout {held}, from before the first release, and this version reads \
         {oldest} and newer: found the fleet anew with `keyfall server init`"
    )]
    OldSchema { held: u32, oldest: u32 },
    #[error(
        "{} holds no server: `keyfall server init` was ended in the middle, or this is another file; \
         if it never ran, remove the directory and make it again",
        path.display()
    )]
    NotFounded { path: PathBuf },
    #[error("{place} in the database is not what this server wrote: put back a copy of it")]
    Damaged { place: String },
    #[error(
        "the database ends at entry {database} of the order journal and the journal at {journal}: \
         one of the two was put back from a copy, and numbers could be used twice; `keyfall server \
         restore` brings the database up to its journal"
    )]
    OutOfStep { database: u64, journal: u64 },
    #[error("cannot make {}: {source}", path.display())]
    Make { path: PathBuf, source: io::Error },
}

impl Store {
    /// Makes the files of a new server: database, seal key and journal.
    ///
    /// # Errors
    /// [`StoreError`]; what was made so far is left to the caller.
    pub fn create(
        directory: &Directory,
        fleet: &FleetRecord,
        founded: &AuditEntry,
        rng: &mut dyn Random,
    ) -> Result<(), StoreError> {
        let sealer = Sealer::create(&directory.seal_key(), rng)?;
        let mut journal = Journal::create(&directory.journal())?;
        let path = directory.database();
        // SQLite gives its other files the mode of this one.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|source| StoreError::Make {
                path: path.clone(),
                source,
            })?;
        journal.append(founded.at, &sequence_entry(fleet.sequence_reserved))?;
        let mut db = connect(&path)?;
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        schema::migrate(&transaction, 0)?;
        write::fleet(&transaction, &sealer, fleet, rng)?;
        audit::append(&transaction, Head::start("audit"), founded)?.write(&transaction, "audit")?;
        Head::of(&journal).write(&transaction, "journal")?;
        transaction.commit()?;
        db.close().map_err(|(_, error)| error)?;
        Ok(())
    }

    /// Opens the store of a server. Nobody else may have it open.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is changed but what [`Recovered`] names.
    pub fn open(directory: &Directory) -> Result<(Self, Recovered), StoreError> {
        let (journal, torn) = Journal::open(&directory.journal())?;
        let sealer = Sealer::read(&directory.seal_key())?;
        let mut db = connect(&directory.database())?;
        let held = ready(&db, &directory.database())?;
        if held < SCHEMA {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            schema::migrate(&transaction, held)?;
            transaction.commit()?;
        }
        let mut store = Self {
            audit: Head::read(&db, "audit")?,
            journalled: Head::read(&db, "journal")?,
            db,
            sealer,
            journal,
            stale: false,
        };
        let void = store.catch_up()?;
        Ok((store, Recovered { torn, void }))
    }

    /// Reads the whole state.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] and [`StoreError::Damaged`] name the place; [`StoreError::Sqlite`].
    pub fn load(&self) -> Result<State, StoreError> {
        load::state(&self.db, &self.sealer)
    }

    /// Makes `batch` durable, with its journal and audit entries.
    ///
    /// # Errors
    /// [`StoreError`]: it has not happened.
    pub fn commit(
        &mut self,
        batch: &Batch,
        at: UnixSeconds,
        rng: &mut dyn Random,
    ) -> Result<(), StoreError> {
        // What an earlier batch journalled in vain is settled first, so that the journal is never
        // more than one entry ahead.
        self.catch_up()?;
        if let Some(entry) = journal_entry(batch) {
            self.journal.append(at, &entry)?;
        }
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in &batch.changes {
            write::change(&transaction, &self.sealer, change, rng)?;
        }
        let audit = match &batch.audit {
            Some(entry) => audit::append(&transaction, self.audit, entry)?,
            None => self.audit,
        };
        let journalled = Head::of(&self.journal);
        audit.write(&transaction, "audit")?;
        journalled.write(&transaction, "journal")?;
        transaction.commit()?;
        self.audit = audit;
        self.journalled = journalled;
        self.stale |= batch.changes.iter().any(replaces_a_key);
        Ok(())
    }

    /// Stores an audit entry alone: for what was refused and for what the server itself does.
    ///
    /// # Errors
    /// [`StoreError`]: it is not stored.
    pub fn note(&mut self, entry: &AuditEntry) -> Result<(), StoreError> {
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let audit = audit::append(&transaction, self.audit, entry)?;
        audit.write(&transaction, "audit")?;
        transaction.commit()?;
        self.audit = audit;
        Ok(())
    }

    /// Stores the KEYSET that waits for the root's signature, instead of the one before.
    ///
    /// # Errors
    /// [`StoreError`]: it is not stored.
    pub fn keep_draft(
        &mut self,
        drafted: &DraftedKeys,
        noted: &AuditEntry,
        rng: &mut dyn Random,
    ) -> Result<(), StoreError> {
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        write::draft(&transaction, &self.sealer, drafted, rng)?;
        let audit = audit::append(&transaction, self.audit, noted)?;
        audit.write(&transaction, "audit")?;
        transaction.commit()?;
        self.audit = audit;
        self.stale = true;
        Ok(())
    }

    /// Empties the write-ahead log where a key was replaced since: its old sealed form is then in
    /// no page any more (`secure_delete`). A reader may hold it up until the next time.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`]; nothing is lost.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        if self.stale {
            // The carousel does not wait for a reader of the audit log.
            self.db.busy_timeout(Duration::ZERO)?;
            let busy = self
                .db
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0));
            self.db.busy_timeout(BUSY_TIMEOUT)?;
            self.stale = busy?;
        }
        Ok(())
    }

    /// Whether a key was replaced since the last [`Self::settle`].
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        self.stale
    }

    /// Where the audit log ends.
    #[must_use]
    pub const fn audit(&self) -> Head {
        self.audit
    }

    /// Where the order journal ends.
    #[must_use]
    pub const fn journalled(&self) -> Head {
        self.journalled
    }

    /// Settles with a journal that is one entry ahead; its number, where it was.
    fn catch_up(&mut self) -> Result<Option<u64>, StoreError> {
        let journal = Head::of(&self.journal);
        if journal == self.journalled {
            return Ok(None);
        }
        let one_ahead = journal.entries == self.journalled.entries + 1
            && self.journal.link_before() == self.journalled.link;
        if !one_ahead {
            return Err(StoreError::OutOfStep {
                database: self.journalled.entries,
                journal: journal.entries,
            });
        }
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        journal.write(&transaction, "journal")?;
        transaction.commit()?;
        self.journalled = journal;
        Ok(Some(journal.entries))
    }
}

impl Head {
    fn start(log: &str) -> Self {
        Self {
            entries: 0,
            link: Link::start(log),
        }
    }

    fn of(journal: &Journal) -> Self {
        Self {
            entries: journal.number(),
            link: journal.link(),
        }
    }

    fn read(db: &Connection, log: &str) -> Result<Self, StoreError> {
        let mut statement = db.prepare("SELECT entries, link FROM chains WHERE log = ?1")?;
        let mut rows = statement.query([log])?;
        let row = rows.next()?.ok_or_else(|| StoreError::Damaged {
            place: format!("chains/{log}"),
        })?;
        Ok(Self {
            entries: row.get::<_, i64>(0)?.cast_unsigned(),
            link: Link::from_octets(row.get(1)?),
        })
    }

    fn write(self, transaction: &Transaction<'_>, log: &str) -> Result<(), StoreError> {
        transaction
            .prepare_cached(
                "INSERT INTO chains (log, entries, link) VALUES (?1, ?2, ?3)
                 ON CONFLICT (log) DO UPDATE SET entries = ?2, link = ?3",
            )?
            .execute(params![
                log,
                self.entries.cast_signed(),
                self.link.as_bytes()
            ])?;
        Ok(())
    }
}

/// The layout of a database that this version reads.
fn ready(db: &Connection, path: &Path) -> Result<u32, StoreError> {
    let held = schema::held(db)?;
    if held == 0 {
        let path = path.to_owned();
        return Err(StoreError::NotFounded { path });
    }
    if held > SCHEMA {
        let known = SCHEMA;
        return Err(StoreError::UnknownSchema { held, known });
    }
    if held < OLDEST_SCHEMA {
        let oldest = OLDEST_SCHEMA;
        return Err(StoreError::OldSchema { held, oldest });
    }
    Ok(held)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open(path)?;
    // Readers of the audit log come and go.
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.pragma_update(None, "journal_mode", "wal")?;
    db.pragma_update(None, "synchronous", "full")?;
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "secure_delete", true)?;
    Ok(db)
}

/// What of a batch goes into the journal.
fn journal_entry(batch: &Batch) -> Option<Entry> {
    let ordered = batch.journal.as_ref().map(|entry| match entry.clone() {
        JournalEntry::Enrolment { terminal, name } => Entry::Enrolment { terminal, name },
        JournalEntry::Epoch { group, epoch, name } => Entry::Epoch { group, epoch, name },
        JournalEntry::Member {
            group,
            terminal,
            epoch,
            generation,
        } => Entry::Member {
            group,
            terminal,
            epoch,
            generation,
        },
        JournalEntry::Renewal {
            group,
            epoch,
            generation,
        } => Entry::Renewal {
            group,
            epoch,
            generation,
        },
        JournalEntry::Policy { group, policy } => Entry::Policy { group, policy },
        JournalEntry::LegacyKey { terminal, key } => Entry::LegacyKey { terminal, key },
        JournalEntry::Packets {
            group,
            packets,
            epoch,
        } => Entry::Packets {
            group,
            packets,
            epoch,
        },
        JournalEntry::Addresses {
            terminal,
            addresses,
        } => Entry::Addresses {
            terminal,
            addresses,
        },
        JournalEntry::FleetGeneration { generation } => Entry::RankOne { g: generation },
        JournalEntry::Removal {
            group,
            terminals,
            epoch,
        } => Entry::Removal {
            group,
            terminals,
            epoch,
        },
        JournalEntry::Device {
            terminal,
            generation,
            offset,
        } => Entry::Device {
            terminal,
            generation,
            offset,
        },
        JournalEntry::Exclusion { terminals, groups } => Entry::Exclusion { terminals, groups },
        JournalEntry::Order {
            terminal,
            kind,
            version,
        } => Entry::Erase {
            terminal,
            kind,
            version,
        },
        JournalEntry::KeySet {
            version,
            generation,
            groups,
            frame,
        } => Entry::KeySet {
            version,
            g: generation,
            groups,
            frame,
        },
        JournalEntry::Restored {
            generation,
            keys,
            incomplete,
        } => Entry::Restored {
            g: generation,
            keys,
            incomplete,
        },
    });
    ordered.or_else(|| {
        batch.changes.iter().find_map(|change| match change {
            Change::Sequence(until) => Some(sequence_entry(*until)),
            Change::Terminal(_)
            | Change::Group(_)
            | Change::Member { .. }
            | Change::Left { .. }
            | Change::Master { .. }
            | Change::Begun(_)
            | Change::Ended(_)
            | Change::Policy { .. }
            | Change::Packets { .. }
            | Change::SearchKey { .. }
            | Change::Addresses { .. }
            | Change::Recorded(_)
            | Change::Stated { .. }
            | Change::Fleet { .. }
            | Change::Wrap(_)
            | Change::Mixed { .. }
            | Change::LegacyKey { .. }
            | Change::TokenVoid(_)
            | Change::Excluded(_)
            | Change::Ordered { .. }
            | Change::Proved { .. }
            | Change::Keys(_)
            | Change::Restored(_) => None,
        })
    })
}

/// All numbers below `until` count as used.
fn sequence_entry(until: SequenceNumber) -> Entry {
    Entry::Sequence {
        through: SequenceNumber::new(until.get().saturating_sub(1)),
    }
}

fn replaces_a_key(change: &Change) -> bool {
    match change {
        Change::Master { .. }
        | Change::SearchKey { .. }
        | Change::Fleet { .. }
        | Change::Wrap(_)
        | Change::Mixed { .. }
        | Change::TokenVoid(_)
        | Change::Keys(_) => true,
        Change::Sequence(_)
        | Change::Terminal(_)
        | Change::Group(_)
        | Change::Member { .. }
        | Change::Left { .. }
        | Change::Begun(_)
        | Change::Ended(_)
        | Change::Policy { .. }
        | Change::Packets { .. }
        | Change::Addresses { .. }
        | Change::Recorded(_)
        | Change::Stated { .. }
        | Change::LegacyKey { .. }
        | Change::Excluded(_)
        | Change::Ordered { .. }
        | Change::Proved { .. }
        | Change::Restored(_) => false,
    }
}

/// How long an order waits for a reader that has the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
