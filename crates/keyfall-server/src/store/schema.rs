//! The layout of the database, and the steps that lead to it.
//!
//! A step is SQL that is never changed again. All steps that are missing run in one transaction.

use rusqlite::{Connection, OptionalExtension as _, Transaction};

use crate::store::StoreError;

/// The oldest layout that this version still reads. Layout 1 knew neither exclusions nor when a
/// terminal belonged to a group; it was never released.
pub const OLDEST_SCHEMA: u32 = 2;
/// The layout that this version writes.
pub const SCHEMA: u32 = OLDEST_SCHEMA + STEPS.len() as u32 - 1;

/// Brings a new database, or one of the layout `held`, to [`SCHEMA`].
pub(super) fn migrate(transaction: &Transaction<'_>, held: u32) -> Result<(), StoreError> {
    for (step, sql) in (OLDEST_SCHEMA..).zip(STEPS) {
        if step > held {
            transaction.execute_batch(sql)?;
            transaction.execute(
                "INSERT INTO schema_steps (step, applied_at) VALUES (?1, unixepoch())",
                [step],
            )?;
        }
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

const STEPS: [&str; 8] = [
    "
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
    package_expires INTEGER NOT NULL,
    excluded_at INTEGER
) STRICT;

CREATE TABLE wipe_roots (
    terminal INTEGER NOT NULL REFERENCES terminals (number),
    place INTEGER NOT NULL,
    path TEXT NOT NULL,
    PRIMARY KEY (terminal, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE erase_orders (
    id INTEGER PRIMARY KEY,
    terminal INTEGER NOT NULL REFERENCES terminals (number),
    kind INTEGER NOT NULL,
    version INTEGER,
    frame BLOB NOT NULL,
    hash BLOB NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    receipt_wanted INTEGER NOT NULL,
    proved_at INTEGER
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

CREATE TABLE statements (
    id INTEGER PRIMARY KEY,
    group_number INTEGER NOT NULL REFERENCES groups (number),
    stated_at INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    activate_at INTEGER NOT NULL,
    step INTEGER,
    period INTEGER
) STRICT;

CREATE TABLE memberships (
    id INTEGER PRIMARY KEY,
    group_number INTEGER NOT NULL REFERENCES groups (number),
    terminal INTEGER NOT NULL REFERENCES terminals (number),
    from_at INTEGER NOT NULL,
    until_at INTEGER
) STRICT;

CREATE UNIQUE INDEX members ON memberships (group_number, terminal) WHERE until_at IS NULL;

CREATE TABLE exclusions (
    number INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE excluded_terminals (
    exclusion INTEGER NOT NULL REFERENCES exclusions (number),
    terminal INTEGER NOT NULL UNIQUE REFERENCES terminals (number),
    PRIMARY KEY (exclusion, terminal)
) STRICT, WITHOUT ROWID;

CREATE TABLE excluded_epochs (
    exclusion INTEGER NOT NULL REFERENCES exclusions (number),
    group_number INTEGER NOT NULL REFERENCES groups (number),
    old INTEGER NOT NULL,
    new INTEGER NOT NULL,
    PRIMARY KEY (exclusion, group_number)
) STRICT, WITHOUT ROWID;

CREATE TABLE key_set_draft (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    command BLOB NOT NULL,
    beat BLOB NOT NULL,
    keys BLOB NOT NULL
) STRICT;

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
",
    "
CREATE TABLE restored (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    held_at INTEGER,
    terminal_floor INTEGER NOT NULL,
    group_floor INTEGER NOT NULL,
    lock_floor INTEGER NOT NULL
) STRICT;

CREATE TABLE losses (
    place INTEGER PRIMARY KEY,
    sentence TEXT NOT NULL
) STRICT;

CREATE TABLE lost_terminals (
    terminal INTEGER PRIMARY KEY REFERENCES terminals (number)
) STRICT;
",
    "
ALTER TABLE groups ADD COLUMN change TEXT NOT NULL DEFAULT 'hitless';
ALTER TABLE groups ADD COLUMN stragglers TEXT NOT NULL DEFAULT 'follow';
ALTER TABLE groups ADD COLUMN legacy INTEGER NOT NULL DEFAULT 0;

CREATE TABLE key_changes (
    group_number INTEGER PRIMARY KEY REFERENCES groups (number),
    epoch INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    mode TEXT NOT NULL,
    begun_at INTEGER NOT NULL,
    state TEXT NOT NULL,
    reachable INTEGER NOT NULL,
    holding INTEGER NOT NULL,
    stopped INTEGER NOT NULL,
    started INTEGER NOT NULL,
    left_out INTEGER NOT NULL,
    first_stop INTEGER,
    last_stop_ack INTEGER,
    first_start INTEGER,
    last_start_ack INTEGER,
    ended INTEGER
) STRICT;

CREATE TABLE change_stragglers (
    group_number INTEGER NOT NULL REFERENCES groups (number),
    terminal INTEGER NOT NULL REFERENCES terminals (number),
    missed TEXT NOT NULL,
    caught_up INTEGER NOT NULL,
    PRIMARY KEY (group_number, terminal)
) STRICT, WITHOUT ROWID;
",
    "
ALTER TABLE fleet ADD COLUMN kem BLOB;
ALTER TABLE fleet ADD COLUMN kem_pq BLOB;
ALTER TABLE key_set_draft ADD COLUMN kem BLOB;
ALTER TABLE key_set_draft ADD COLUMN kem_pq BLOB;
ALTER TABLE terminals ADD COLUMN mixed_at INTEGER;

CREATE TABLE servers (
    place INTEGER PRIMARY KEY,
    address TEXT NOT NULL
) STRICT;

CREATE TABLE listens (
    place INTEGER PRIMARY KEY,
    address TEXT NOT NULL
) STRICT;
",
    "
ALTER TABLE terminals ADD COLUMN token_id BLOB;
ALTER TABLE terminals ADD COLUMN token BLOB;
",
    "
ALTER TABLE fleet ADD COLUMN rsa BLOB;
ALTER TABLE key_set_draft ADD COLUMN rsa BLOB;
ALTER TABLE terminals ADD COLUMN legacy_key BLOB;
",
    "
ALTER TABLE fleet ADD COLUMN epoch_life INTEGER NOT NULL DEFAULT 604800;
",
    "
ALTER TABLE groups ADD COLUMN search_key BLOB;
ALTER TABLE groups ADD COLUMN priority INTEGER;
ALTER TABLE groups ADD COLUMN mtu INTEGER;
ALTER TABLE groups ADD COLUMN suite INTEGER;
ALTER TABLE terminals ADD COLUMN record_version INTEGER;
ALTER TABLE terminals ADD COLUMN record_issued_at INTEGER;

CREATE TABLE networks (
    group_number INTEGER NOT NULL REFERENCES groups (number),
    place INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (group_number, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE prefixes (
    terminal INTEGER NOT NULL REFERENCES terminals (number),
    place INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (terminal, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE endpoints (
    terminal INTEGER NOT NULL REFERENCES terminals (number),
    place INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (terminal, place)
) STRICT, WITHOUT ROWID;
",
];
