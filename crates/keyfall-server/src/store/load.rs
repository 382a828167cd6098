//! The database as records. What was changed by hand is found where it is read.

use std::collections::BTreeSet;

use keyfall_protocol::command::{Body, KeySet, SigningKey, Unverified, VerifyingKey};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, StreamId, TerminalNumber, UnixSeconds,
};
use keyfall_protocol::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use keyfall_protocol::schedule::{Cadence, Schedule};
use keyfall_protocol::server::{FleetRecord, GroupRecord, TerminalRecord};
use rusqlite::{Connection, Row};

use crate::seal::Sealer;
use crate::store::{State, StoreError};

/// Reads everything.
pub(super) fn state(db: &Connection, sealer: &Sealer) -> Result<State, StoreError> {
    Ok(State {
        fleet: fleet(db, sealer)?,
        terminals: terminals(db, sealer)?,
        groups: groups(db, sealer)?,
    })
}

fn fleet(db: &Connection, sealer: &Sealer) -> Result<FleetRecord, StoreError> {
    let carriers = db
        .prepare("SELECT address FROM carriers ORDER BY place")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<Vec<String>, _>>()?;
    let mut statement = db.prepare(
        "SELECT name, stream, root, key_set, beat, keys, generation, sequence_reserved, keep_time,
             bits_per_second
         FROM fleet WHERE id = 1",
    )?;
    let mut rows = statement.query([])?;
    let row = rows.next()?.ok_or_else(|| damaged("fleet/1"))?;
    let root = VerifyingKey::new(row.get(2)?);
    let key_set_frame: Vec<u8> = row.get(3)?;
    Ok(FleetRecord {
        name: row.get(0)?,
        stream: StreamId::new(row.get(1)?),
        root,
        key_set: key_set(&key_set_frame, &root).ok_or_else(|| damaged("fleet/1/key_set"))?,
        key_set_frame,
        beat: SigningKey::from_seed(opened(sealer, row, 4, "fleet/1/beat")?),
        keys: SigningKey::from_seed(opened(sealer, row, 5, "fleet/1/keys")?),
        fleet_generation: generation(row, 6, "fleet/1/generation")?,
        sequence_reserved: SequenceNumber::new(row.get::<_, i64>(7)?.cast_unsigned()),
        carriers,
        keep_time: row.get(8)?,
        bits_per_second: row.get::<_, i64>(9)?.cast_unsigned(),
    })
}

fn key_set(frame: &[u8], root: &VerifyingKey) -> Option<KeySet> {
    let verified = Unverified::decode(frame).ok()?.verify(root)?;
    match &verified.command().body {
        Body::KeySet(key_set) => Some(key_set.clone()),
        Body::Time(_) | Body::Renew(_) | Body::KeyDist(_) | Body::Order(_) | Body::Exclude(_) => {
            None
        }
    }
}

fn terminals(db: &Connection, sealer: &Sealer) -> Result<Vec<TerminalRecord>, StoreError> {
    let mut statement = db.prepare(
        "SELECT number, name, obey, wrap, wrap_generation, added_at, package_expires
         FROM terminals ORDER BY number",
    )?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let number = TerminalNumber::new(row.get(0)?).ok_or_else(|| damaged("terminals"))?;
        let place = |column| format!("terminals/{number}/{column}");
        let wrap = opened(sealer, row, 3, &place("wrap"))?;
        records.push(TerminalRecord {
            number,
            name: row.get(1)?,
            obey: ObeyKey::new(number, opened(sealer, row, 2, &place("obey"))?),
            wrap: WrapKey::new(number, generation(row, 4, &place("wrap_generation"))?, wrap),
            added_at: UnixSeconds::new(row.get(5)?),
            package_expires: UnixSeconds::new(row.get(6)?),
        });
    }
    Ok(records)
}

fn groups(db: &Connection, sealer: &Sealer) -> Result<Vec<GroupRecord>, StoreError> {
    let mut statement = db.prepare(
        "SELECT number, name, master, epoch, generation, activate_at, step, period, lease
         FROM groups ORDER BY number",
    )?;
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let number = GroupNumber::new(row.get(0)?).ok_or_else(|| damaged("groups"))?;
        let place = |column| format!("groups/{number}/{column}");
        let bytes = opened(sealer, row, 2, &place("master"))?;
        let epoch = KeyEpoch::new(row.get(3)?);
        let generation = generation(row, 4, &place("generation"))?;
        let cadence = match (row.get(6)?, row.get(7)?) {
            (None, None) => None,
            (Some(step), Some(period)) => {
                Some(Cadence::new(step, period).ok_or_else(|| damaged(&place("period")))?)
            }
            (Some(_), None) | (None, Some(_)) => return Err(damaged(&place("period"))),
        };
        records.push(GroupRecord {
            number,
            name: row.get(1)?,
            members: members(db, number)?,
            master: MasterKey::new(number, epoch, generation, bytes),
            schedule: Schedule {
                generation,
                activate_at: UnixSeconds::new(row.get(5)?),
                cadence,
            },
            lease: row.get(8)?,
        });
    }
    Ok(records)
}

fn members(db: &Connection, group: GroupNumber) -> Result<BTreeSet<TerminalNumber>, StoreError> {
    let mut statement = db
        .prepare_cached("SELECT terminal FROM members WHERE group_number = ?1 ORDER BY terminal")?;
    let mut rows = statement.query([group.get()])?;
    let mut members = BTreeSet::new();
    while let Some(row) = rows.next()? {
        let number = TerminalNumber::new(row.get(0)?);
        members.insert(number.ok_or_else(|| damaged(&format!("members/{group}")))?);
    }
    Ok(members)
}

fn opened(
    sealer: &Sealer,
    row: &Row<'_>,
    column: usize,
    place: &str,
) -> Result<Secret<32>, StoreError> {
    let blob: Vec<u8> = row.get(column)?;
    let octets = sealer.open(place, &blob)?;
    Secret::from_slice(&octets).ok_or_else(|| damaged(place))
}

fn generation(row: &Row<'_>, column: usize, place: &str) -> Result<Generation, StoreError> {
    Generation::new(row.get(column)?).ok_or_else(|| damaged(place))
}

fn damaged(place: &str) -> StoreError {
    StoreError::Damaged {
        place: place.to_owned(),
    }
}
