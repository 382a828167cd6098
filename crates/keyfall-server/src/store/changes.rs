//! What came of the last change of each group's key.

use std::collections::BTreeMap;

use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick, UnixSeconds};
use keyfall_protocol::server::{
    ChangeMode, ChangeReport, ChangeState, ChangeTimes, Phase, Straggler,
};
use rusqlite::{Connection, Row, Transaction, params};

use crate::store::StoreError;

/// Replaces what was stored of the group's change before. Times count from its beginning.
pub(super) fn write(
    transaction: &Transaction<'_>,
    report: &ChangeReport,
) -> Result<(), StoreError> {
    let number = report.group.get();
    let times = report.times.since_begin();
    let [stop, stop_ack, start, start_ack, ended] = [
        times.first_stop,
        times.last_stop_ack,
        times.first_start,
        times.last_start_ack,
        times.ended,
    ]
    .map(|at| at.map(|at| at.as_nanos().cast_signed()));
    // Members of one group fit in 24 bits.
    let [reachable, holding, stopped, started] = [
        report.reachable,
        report.holding,
        report.stopped,
        report.started,
    ]
    .map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    transaction.execute(
        "DELETE FROM change_stragglers WHERE group_number = ?1",
        [number],
    )?;
    transaction.execute(
        "INSERT OR REPLACE INTO key_changes (group_number, epoch, generation, mode, begun_at,
             state, reachable, holding, stopped, started, left_out, first_stop, last_stop_ack,
             first_start, last_start_ack, ended)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
        params![
            number,
            report.epoch.get(),
            report.generation.get(),
            report.mode.name(),
            report.begun_at.get(),
            report.state.name(),
            reachable,
            holding,
            stopped,
            started,
            report.left_out,
            stop,
            stop_ack,
            start,
            start_ack,
            ended,
        ],
    )?;
    for straggler in &report.stragglers {
        transaction
            .prepare_cached(
                "INSERT INTO change_stragglers (group_number, terminal, missed, caught_up)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                number,
                straggler.terminal.get(),
                straggler.missed.name(),
                straggler.caught_up,
            ])?;
    }
    Ok(())
}

/// Reads them all.
pub(super) fn read(db: &Connection) -> Result<Vec<ChangeReport>, StoreError> {
    let mut stragglers = stragglers(db)?;
    let mut statement = db.prepare(
        "SELECT group_number, epoch, generation, mode, begun_at, state, reachable, holding,
             stopped, started, left_out, first_stop, last_stop_ack, first_start, last_start_ack,
             ended
         FROM key_changes ORDER BY group_number",
    )?;
    let mut rows = statement.query([])?;
    let mut reports = Vec::new();
    while let Some(row) = rows.next()? {
        let number: u32 = row.get(0)?;
        let report = report(row, stragglers.remove(&number).unwrap_or_default())?;
        reports.push(report.ok_or_else(|| StoreError::Damaged {
            place: format!("key_changes/{number}"),
        })?);
    }
    Ok(reports)
}

/// `None` where a column says what there is not.
fn report(
    row: &Row<'_>,
    stragglers: Vec<Straggler>,
) -> Result<Option<ChangeReport>, rusqlite::Error> {
    let (mode, state): (String, String) = (row.get(3)?, row.get(5)?);
    let known = GroupNumber::new(row.get(0)?)
        .zip(Generation::new(row.get(2)?))
        .zip(ChangeMode::named(&mode).zip(ChangeState::named(&state)));
    let Some(((group, generation), (mode, state))) = known else {
        return Ok(None);
    };
    let tick = |column| {
        let nanos: Option<i64> = row.get(column)?;
        Ok::<_, rusqlite::Error>(nanos.map(|at| Tick::from_nanos(at.cast_unsigned())))
    };
    let count = |column| Ok::<_, rusqlite::Error>(row.get::<_, u32>(column)? as usize);
    Ok(Some(ChangeReport {
        group,
        epoch: KeyEpoch::new(row.get(1)?),
        generation,
        mode,
        begun_at: UnixSeconds::new(row.get(4)?),
        state,
        reachable: count(6)?,
        holding: count(7)?,
        stopped: count(8)?,
        started: count(9)?,
        stragglers,
        left_out: row.get(10)?,
        times: ChangeTimes {
            begun: Tick::default(),
            first_stop: tick(11)?,
            last_stop_ack: tick(12)?,
            first_start: tick(13)?,
            last_start_ack: tick(14)?,
            ended: tick(15)?,
        },
    }))
}

fn stragglers(db: &Connection) -> Result<BTreeMap<u32, Vec<Straggler>>, StoreError> {
    let mut statement = db.prepare(
        "SELECT group_number, terminal, missed, caught_up FROM change_stragglers
         ORDER BY group_number, terminal",
    )?;
    let mut rows = statement.query([])?;
    let mut stragglers: BTreeMap<_, Vec<_>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (number, missed): (u32, String) = (row.get(0)?, row.get(2)?);
        let known = TerminalNumber::new(row.get(1)?).zip(Phase::named(&missed));
        let (terminal, missed) = known.ok_or_else(|| StoreError::Damaged {
            place: format!("change_stragglers/{number}"),
        })?;
        stragglers.entry(number).or_default().push(Straggler {
            terminal,
            missed,
            caught_up: row.get(3)?,
        });
    }
    Ok(stragglers)
}
