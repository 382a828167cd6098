//! The layout of the database, and the steps that lead to it.
//!
//! A step is SQL that is never changed again. All steps that are missing run in one transaction.

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use crate::store::StoreError;

/// The layout that this version writes: the number of steps.
pub const SCHEMA: u32 = STEPS.len() as u32;

/// Brings a database of the layout `held` to [`SCHEMA`].
pub(super) fn migrate(transaction: &Transaction<'_>, held: u32) -> Result<(), StoreError> {
    for (step, sql) in (1..).zip(STEPS).skip(held as usize) {
        transaction.execute_batch(sql)?;
        transaction.execute(
            "INSERT INTO schema_steps (step, applied_at) VALUES (?1, unixepoch())",
            [step],
        )?;
    }
    Ok(())
}

/// The layout of an existing database; 0 where it has none of ours.
pub(super) fn held(db: &Connection) -> Result<u32, StoreError> {
    let ours = db
        .query_row(
            "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'schema_steps'",
            [],
            |_| Ok(()),
        )
        .optional()?;
    if ours.is_none() {
        return Ok(0);
    }
    let newest = "SELECT coalesce(max(step), 0) FROM schema_steps";
    Ok(db.query_row(newest, [], |row| row.get(0))?)
}

const STEPS: [&str; 1] = ["
CREATE TABLE schema_steps (
    step INTEGER PRIMARY KEY,
    applied_at INTEGER NOT NULL
) STRICT;

CREATE TABLE fleet (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    stream BLOB NOT NULL,
    root BLOB NOT NULL,
    key_set BLOB NOT NULL,
    beat BLOB NOT NULL,
    keys BLOB NOT NULL,
    generation INTEGER NOT NULL,
    sequence_reserved INTEGER NOT NULL,
    keep_time INTEGER NOT NULL,
    bits_per_second INTEGER NOT NULL
) STRICT;

CREATE TABLE carriers (
    place INTEGER PRIMARY KEY,
    address TEXT NOT NULL
) STRICT;

CREATE TABLE terminals (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    obey BLOB NOT NULL,
    wrap BLOB NOT NULL,
    wrap_generation INTEGER NOT NULL,
    added_at INTEGER NOT NULL,
    package_expires INTEGER NOT NULL
) STRICT;

CREATE TABLE groups (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    master BLOB NOT NULL,
    epoch INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    activate_at INTEGER NOT NULL,
    step INTEGER,
    period INTEGER,
    lease INTEGER NOT NULL
) STRICT;

CREATE TABLE members (
    group_number INTEGER NOT NULL REFERENCES groups (number),
    terminal INTEGER NOT NULL REFERENCES terminals (number),
    PRIMARY KEY (group_number, terminal)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    entry INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT,
    ticket TEXT,
    link BLOB NOT NULL
) STRICT;

CREATE TABLE chains (
    log TEXT PRIMARY KEY,
    entries INTEGER NOT NULL,
    link BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"];
