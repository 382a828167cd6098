//! The audit log: one row an order, each chained to all before it.
//!
//! `link` = the [`Link`] of the log `audit` over the JSON array
//! `[entry,at,actor,action,subject,outcome,reason,ticket]` without spaces.

use std::path::Path;

use keyfall_protocol::server::AuditEntry;
use rusqlite::{Connection, OpenFlags, Row, Transaction, params};

use crate::chain::Link;
use crate::store::{Head, StoreError};

/// One row of the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuditRow {
    /// From 1, without gaps.
    pub entry: u64,
    /// Unix seconds.
    pub at: u32,
    pub actor: String,
    pub action: String,
    pub subject: String,
    pub outcome: String,
    pub reason: Option<String>,
    pub ticket: Option<String>,
    link: Link,
}

/// What verification found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Every entry hangs on the one before; this is the last link.
    Whole { entries: u64, link: Link },
    /// This entry was changed, or one before it was removed, or the end is missing.
    Broken { entry: u64 },
}

/// Chains `entry` to the log.
pub(super) fn append(
    transaction: &Transaction<'_>,
    head: Head,
    entry: &AuditEntry,
) -> Result<Head, StoreError> {
    let mut row = AuditRow {
        entry: head.entries + 1,
        at: entry.at.get(),
        actor: entry.actor.clone(),
        action: entry.action.to_owned(),
        subject: entry.subject.clone(),
        outcome: entry.outcome.clone(),
        reason: entry.reason.clone(),
        ticket: entry.ticket.clone(),
        link: head.link,
    };
    row.link = head.link.next(&row.hashed());
    transaction
        .prepare_cached(
            "INSERT INTO audit (entry, at, actor, action, subject, outcome, reason, ticket, link)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            row.entry.cast_signed(),
            row.at,
            row.actor,
            row.action,
            row.subject,
            row.outcome,
            row.reason,
            row.ticket,
            row.link.as_bytes(),
        ])?;
    Ok(Head {
        entries: row.entry,
        link: row.link,
    })
}

/// Whether a column holds what nobody writes into it, as opposed to a database that does not read.
fn not_a_row(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
    )
}

/// A reader of the log beside the one writer of the database.
#[derive(Debug)]
pub struct AuditReader {
    db: Connection,
}

impl AuditReader {
    /// # Errors
    /// [`StoreError::Sqlite`].
    pub fn open(database: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(database, flags)?;
        Ok(Self { db })
    }

    /// The last `count` entries, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`]; [`StoreError::Damaged`].
    pub fn last(&self, count: u32) -> Result<Vec<AuditRow>, StoreError> {
        let mut statement = self.db.prepare(
            "SELECT * FROM (SELECT entry, at, actor, action, subject, outcome, reason, ticket, link
             FROM audit ORDER BY entry DESC LIMIT ?1) ORDER BY entry",
        )?;
        let rows = statement.query_and_then([count], AuditRow::read)?;
        rows.collect()
    }

    /// Follows the chain from its first entry to the head that was stored with the last one.
    ///
    /// # Errors
    /// [`StoreError::Sqlite`]; [`StoreError::Damaged`].
    pub fn verify(&self) -> Result<Verdict, StoreError> {
        // One snapshot, while the server goes on writing.
        let snapshot = self.db.unchecked_transaction()?;
        let head = Head::read(&snapshot, "audit")?;
        let mut reached = Head::start("audit");
        let mut statement = snapshot.prepare(
            "SELECT entry, at, actor, action, subject, outcome, reason, ticket, link
             FROM audit ORDER BY entry",
        )?;
        let rows = statement.query_and_then([], AuditRow::read)?;
        for row in rows {
            let next = Verdict::Broken {
                entry: reached.entries + 1,
            };
            let row = match row {
                Err(StoreError::Sqlite(error)) if not_a_row(&error) => return Ok(next),
                other => other?,
            };
            let link = reached.link.next(&row.hashed());
            if row.entry != reached.entries + 1 || row.link != link {
                return Ok(next);
            }
            reached = Head {
                entries: row.entry,
                link,
            };
        }
        Ok(if reached == head {
            Verdict::Whole {
                entries: head.entries,
                link: head.link,
            }
        } else {
            Verdict::Broken {
                entry: reached.entries + 1,
            }
        })
    }
}

impl AuditRow {
    fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        Ok(Self {
            entry: row.get::<_, i64>(0)?.cast_unsigned(),
            at: row.get(1)?,
            actor: row.get(2)?,
            action: row.get(3)?,
            subject: row.get(4)?,
            outcome: row.get(5)?,
            reason: row.get(6)?,
            ticket: row.get(7)?,
            link: Link::from_octets(row.get(8)?),
        })
    }

    fn hashed(&self) -> Vec<u8> {
        let fields = (
            self.entry,
            self.at,
            &self.actor,
            &self.action,
            &self.subject,
            &self.outcome,
            &self.reason,
            &self.ticket,
        );
        serde_json::to_vec(&fields).expect("numbers and text are always JSON")
    }
}
