//! Changes as SQL. A secret is sealed for its place `table/row/column`.

use keyfall_protocol::ids::KeyIdKind;
use keyfall_protocol::keys::{MasterKey, WrapKey};
use keyfall_protocol::rng::Random;
use keyfall_protocol::schedule::{Cadence, Schedule};
use keyfall_protocol::server::{Change, FleetRecord, GroupRecord, TerminalRecord};
use rusqlite::{Transaction, params};

use crate::seal::Sealer;
use crate::store::StoreError;

/// Writes what `server init` decided.
pub(super) fn fleet(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    fleet: &FleetRecord,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO fleet (id, name, stream, root, key_set, beat, keys, generation,
             sequence_reserved, keep_time, bits_per_second)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        params![
            fleet.name,
            fleet.stream.as_bytes(),
            fleet.root.as_bytes(),
            fleet.key_set_frame,
            sealer.seal(rng, "fleet/1/beat", fleet.beat.seed().expose()),
            sealer.seal(rng, "fleet/1/keys", fleet.keys.seed().expose()),
            fleet.fleet_generation.get(),
            fleet.sequence_reserved.get().cast_signed(),
            fleet.keep_time,
            fleet.bits_per_second.cast_signed(),
        ],
    )?;
    for (place, address) in (1..).zip(&fleet.carriers) {
        transaction.execute(
            "INSERT INTO carriers (place, address) VALUES (?1, ?2)",
            params![place, address],
        )?;
    }
    Ok(())
}

/// Writes one change of the server machine.
pub(super) fn change(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    change: &Change,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    match change {
        Change::Sequence(until) => {
            transaction
                .prepare_cached("UPDATE fleet SET sequence_reserved = ?1")?
                .execute([until.get().cast_signed()])?;
            Ok(())
        }
        Change::Terminal(record) => terminal(transaction, sealer, record, rng),
        Change::Group(record) => group(transaction, sealer, record, rng),
        Change::Member { group, terminal } => member(transaction, group.get(), terminal.get()),
        Change::Master { key, schedule } => master(transaction, sealer, key, schedule, rng),
        Change::Fleet { generation, wraps } => {
            transaction.execute("UPDATE fleet SET generation = ?1", [generation.get()])?;
            for key in wraps {
                wrap(transaction, sealer, key, rng)?;
            }
            Ok(())
        }
    }
}

fn terminal(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    record: &TerminalRecord,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    let number = record.number;
    let obey = record.obey.secret().expose();
    let wrap = record.wrap.secret().expose();
    transaction
        .prepare_cached(
            "INSERT INTO terminals (number, name, obey, wrap, wrap_generation, added_at,
                 package_expires)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            number.get(),
            record.name,
            sealer.seal(rng, &format!("terminals/{number}/obey"), obey),
            sealer.seal(rng, &format!("terminals/{number}/wrap"), wrap),
            record.wrap.generation().get(),
            record.added_at.get(),
            record.package_expires.get(),
        ])?;
    Ok(())
}

fn group(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    record: &GroupRecord,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    let number = record.number;
    let master = record.master.secret().expose();
    let (step, period) = columns(record.schedule.cadence);
    transaction.execute(
        "INSERT INTO groups (number, name, master, epoch, generation, activate_at, step, period,
             lease)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            number.get(),
            record.name,
            sealer.seal(rng, &format!("groups/{number}/master"), master),
            record.master.epoch().get(),
            record.master.generation().get(),
            record.schedule.activate_at.get(),
            step,
            period,
            record.lease,
        ],
    )?;
    for terminal in &record.members {
        member(transaction, number.get(), terminal.get())?;
    }
    Ok(())
}

fn member(transaction: &Transaction<'_>, group: u32, terminal: u32) -> Result<(), StoreError> {
    transaction
        .prepare_cached("INSERT INTO members (group_number, terminal) VALUES (?1, ?2)")?
        .execute([group, terminal])?;
    Ok(())
}

fn master(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    key: &MasterKey,
    schedule: &Schedule,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    let number = key.group();
    let (step, period) = columns(schedule.cadence);
    let place = format!("groups/{number}/master");
    let rows = transaction
        .prepare_cached(
            "UPDATE groups SET master = ?2, epoch = ?3, generation = ?4, activate_at = ?5,
                 step = ?6, period = ?7
             WHERE number = ?1",
        )?
        .execute(params![
            number.get(),
            sealer.seal(rng, &place, key.secret().expose()),
            key.epoch().get(),
            key.generation().get(),
            schedule.activate_at.get(),
            step,
            period,
        ])?;
    one_row(rows, place)
}

fn wrap(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    key: &WrapKey,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    let terminal = key.kid().kind().and_then(KeyIdKind::terminal);
    let number = terminal.expect("a wrap key is made from a terminal number only");
    let place = format!("terminals/{number}/wrap");
    let rows = transaction
        .prepare_cached("UPDATE terminals SET wrap = ?2, wrap_generation = ?3 WHERE number = ?1")?
        .execute(params![
            number.get(),
            sealer.seal(rng, &place, key.secret().expose()),
            key.generation().get(),
        ])?;
    one_row(rows, place)
}

/// The machine changes only what the database holds.
fn one_row(rows: usize, place: String) -> Result<(), StoreError> {
    if rows == 1 {
        Ok(())
    } else {
        Err(StoreError::Damaged { place })
    }
}

fn columns(cadence: Option<Cadence>) -> (Option<u8>, Option<u32>) {
    cadence
        .map(|cadence| (cadence.step(), cadence.period()))
        .unzip()
}
