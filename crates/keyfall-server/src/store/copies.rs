//! Copies of the database: one is made while the server runs, and one is brought up to an order
//! journal that went on without it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use keyfall_protocol::ids::UnixSeconds;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::journal::Journal;
use crate::seal::Sealer;
use crate::store::{
    AuditReader, BUSY_TIMEOUT, Head, State, Store, StoreError, Verdict, connect, load, ready,
    schema,
};

/// What a copy was found to hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Copied {
    /// The order journal as far as the copy knows of it.
    pub(crate) journalled: Head,
    pub(crate) audit: Head,
    /// The newest moment that it knows of.
    pub(crate) newest: UnixSeconds,
}

/// Writes a consistent copy of `database` to the new file `to`, durably. Whoever writes to the
/// database meanwhile does not wait.
///
/// # Errors
/// [`StoreError::Make`] where `to` is there already, and it is untouched; [`StoreError::Sqlite`].
pub(crate) fn copy(database: &Path, to: &Path) -> Result<(), StoreError> {
    let make = |source| StoreError::Make {
        path: to.to_owned(),
        source,
    };
    // Made here, because SQLite would let others read it.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(make)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(database, flags)?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    let into = to.to_str().ok_or_else(|| {
        make(std::io::Error::new(
            std::io::ErrorKind::InvalidFilename,
            "its name is not UTF-8",
        ))
    })?;
    db.execute("VACUUM INTO ?1", [into])?;
    file.sync_all()
        .and_then(|()| crate::durable::sync_parent(to))
        .map_err(make)
}

/// Reads all of a copy: its pages, its audit chain, and with a `sealer` every key in it.
///
/// # Errors
/// [`StoreError`].
pub(crate) fn examine(path: &Path, sealer: Option<&Sealer>) -> Result<Copied, StoreError> {
    let damaged = |place: &str| StoreError::Damaged {
        place: place.to_owned(),
    };
    // What is only read may still need what a crash left in the write-ahead log.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    let held = ready(&db, path)?;
    let whole: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if whole != "ok" {
        return Err(damaged("a page"));
    }
    if let Verdict::Broken { entry } = AuditReader::open(path)?.verify()? {
        return Err(damaged(&format!("audit/{entry}")));
    }
    // An older layout is opened after it was brought up.
    if let Some(sealer) = sealer.filter(|_| held == schema::SCHEMA) {
        load::state(&db, sealer)?;
    }
    copied(&db)
}

/// The journal's head in the database at `path`; `None` where it does not read.
pub(crate) fn journalled_in(path: &Path) -> Option<Head> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags).ok()?;
    Head::read(&db, "journal").ok()
}

fn copied(db: &Connection) -> Result<Copied, StoreError> {
    let newest: Option<u32> = db.query_row("SELECT max(at) FROM audit", [], |row| row.get(0))?;
    Ok(Copied {
        journalled: Head::read(db, "journal")?,
        audit: Head::read(db, "audit")?,
        newest: UnixSeconds::new(newest.unwrap_or(0)),
    })
}

impl Store {
    /// Opens the copy at `path`, which nobody else has, and reads all of it.
    ///
    /// # Errors
    /// [`StoreError`], as [`StoreError::Sealed`] where `sealer` is of another server.
    pub(crate) fn of_copy(
        path: &Path,
        sealer: Sealer,
        journal: Journal,
    ) -> Result<(Self, State, Copied), StoreError> {
        let mut db = connect(path)?;
        let held = ready(&db, path)?;
        if held < schema::SCHEMA {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            schema::migrate(&transaction, held)?;
            transaction.commit()?;
        }
        let found = copied(&db)?;
        let state = load::state(&db, &sealer)?;
        let store = Self {
            audit: found.audit,
            journalled: found.journalled,
            db,
            sealer,
            journal,
            stale: false,
        };
        Ok((store, state, found))
    }

    /// Takes the journal as it is: what it has beyond the copy is dealt with by the caller.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub(crate) fn adopt_journal(&mut self) -> Result<(), StoreError> {
        let head = Head::of(&self.journal);
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        head.write(&transaction, "journal")?;
        transaction.commit()?;
        self.journalled = head;
        Ok(())
    }

    /// Leaves the database as one file, durable, and gives the journal back with its lock.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) fn close_as_one_file(self, path: &Path) -> Result<Journal, StoreError> {
        let mode: String = self
            .db
            .query_row("PRAGMA journal_mode = delete", [], |row| row.get(0))?;
        if mode != "delete" {
            return Err(StoreError::Damaged {
                place: format!("journal mode {mode}"),
            });
        }
        self.db.close().map_err(|(_, error)| error)?;
        File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(|source| StoreError::Make {
                path: path.to_owned(),
                source,
            })?;
        Ok(self.journal)
    }
}
