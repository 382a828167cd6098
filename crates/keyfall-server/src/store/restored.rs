//! What the database holds of having been restored.

use keyfall_protocol::ids::{TerminalNumber, UnixSeconds};
use keyfall_protocol::server::{Floors, Hold, Restored};
use rusqlite::{Connection, Transaction, params};

use crate::store::StoreError;

/// Replaces what was stored before.
pub(super) fn write(transaction: &Transaction<'_>, restored: &Restored) -> Result<(), StoreError> {
    let Floors {
        terminal,
        group,
        lock,
    } = restored.floors;
    let held_at = restored.held.as_ref().map(|held| held.at.get());
    transaction.execute(
        "INSERT INTO restored (id, held_at, terminal_floor, group_floor, lock_floor)
         VALUES (1, ?1, ?2, ?3, ?4)
         ON CONFLICT (id) DO UPDATE
         SET held_at = ?1, terminal_floor = ?2, group_floor = ?3, lock_floor = ?4",
        params![held_at, terminal, group, lock],
    )?;
    transaction.execute("DELETE FROM losses", [])?;
    let losses = restored.held.iter().flat_map(|held| &held.losses);
    for (place, sentence) in (1..).zip(losses) {
        transaction
            .prepare_cached("INSERT INTO losses (place, sentence) VALUES (?1, ?2)")?
            .execute(params![place, sentence])?;
    }
    for terminal in &restored.lost {
        transaction
            .prepare_cached("INSERT OR IGNORE INTO lost_terminals (terminal) VALUES (?1)")?
            .execute([terminal.get()])?;
    }
    Ok(())
}

/// Reads it; the default where the server was never restored.
pub(super) fn read(db: &Connection) -> Result<Restored, StoreError> {
    let mut statement =
        db.prepare("SELECT held_at, terminal_floor, group_floor, lock_floor FROM restored")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Ok(Restored::default());
    };
    let losses = db
        .prepare("SELECT sentence FROM losses ORDER BY place")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let lost = db
        .prepare("SELECT terminal FROM lost_terminals")?
        .query_map([], |row| row.get(0))?
        .map(|number| {
            TerminalNumber::new(number?).ok_or_else(|| StoreError::Damaged {
                place: "lost_terminals".to_owned(),
            })
        })
        .collect::<Result<_, _>>()?;
    let held_at: Option<u32> = row.get(0)?;
    Ok(Restored {
        held: held_at.map(|at| Hold {
            at: UnixSeconds::new(at),
            losses,
        }),
        floors: Floors {
            terminal: row.get(1)?,
            group: row.get(2)?,
            lock: row.get(3)?,
        },
        lost,
    })
}
