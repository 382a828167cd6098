//! The database as records. What was changed by hand is found where it is read.

use std::collections::{BTreeMap, BTreeSet};

use keyfall_protocol::command::{Command, FreshEpoch, KeySet, OrderKind, SigningKey, VerifyingKey};
use keyfall_protocol::ids::{
    Generation, GroupNumber, KeyEpoch, SequenceNumber, StreamId, TerminalNumber, UnixSeconds,
};
use keyfall_protocol::keys::{MasterKey, ObeyKey, Secret, WrapKey};
use keyfall_protocol::schedule::{Cadence, Schedule};
use keyfall_protocol::server::{
    ChangeMode, DraftedKeys, Exclusion, FleetRecord, GroupPolicy, GroupRecord, IssuedOrder,
    Membership, Statement, Stragglers, TerminalRecord,
};
use keyfall_protocol::sharing::rsa_misty1::{RsaPublic, RsaSecret};
use keyfall_protocol::sharing::{KemSecret, KemSuite};
use keyfall_protocol::token::TokenRecord;
use rusqlite::{Connection, Row};

use crate::seal::Sealer;
use crate::store::protecting::AllAddresses;
use crate::store::{State, StoreError, changes, protecting, restored};

/// Reads everything.
pub(super) fn state(db: &Connection, sealer: &Sealer) -> Result<State, StoreError> {
    let mut state = State {
        fleet: fleet(db, sealer)?,
        terminals: terminals(db, sealer)?,
        groups: groups(db, sealer)?,
        exclusions: exclusions(db)?,
        draft: draft(db, sealer)?,
        restored: restored::read(db)?,
        changes: changes::read(db)?,
    };
    memberships(db, &mut state)?;
    Ok(state)
}

fn fleet(db: &Connection, sealer: &Sealer) -> Result<FleetRecord, StoreError> {
    let [carriers, servers, listen] = ["carriers", "servers", "listens"].map(|table| {
        db.prepare(&format!("SELECT address FROM {table} ORDER BY place"))?
            .query_map([], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()
    });
    let mut statement = db.prepare(
        "SELECT name, stream, root, key_set, beat, keys, generation, sequence_reserved, keep_time,
             bits_per_second, kem, kem_pq, rsa, epoch_life
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
        key_set: KeySet::signed_by(&root, &key_set_frame)
            .ok_or_else(|| damaged("fleet/1/key_set"))?,
        key_set_frame,
        beat: SigningKey::from_seed(opened(sealer, row, 4, "fleet/1/beat")?),
        keys: SigningKey::from_seed(opened(sealer, row, 5, "fleet/1/keys")?),
        fleet_generation: generation(row, 6, "fleet/1/generation")?,
        sequence_reserved: SequenceNumber::new(row.get::<_, i64>(7)?.cast_unsigned()),
        kem: kem(sealer, row, 10, "fleet/1/kem", KemSuite::X25519)?,
        kem_pq: kem(sealer, row, 11, "fleet/1/kem_pq", KemSuite::XWing)?,
        rsa: rsa(sealer, row, 12, "fleet/1/rsa")?,
        carriers: carriers?,
        servers: servers?,
        listen: listen?,
        keep_time: row.get(8)?,
        epoch_life: row.get(13)?,
        bits_per_second: row.get::<_, i64>(9)?.cast_unsigned(),
    })
}

fn draft(db: &Connection, sealer: &Sealer) -> Result<Option<DraftedKeys>, StoreError> {
    let mut statement =
        db.prepare("SELECT command, beat, keys, kem, kem_pq, rsa FROM key_set_draft")?;
    let mut rows = statement.query([])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let command: Vec<u8> = row.get(0)?;
    let place = "key_set_draft/1";
    Ok(Some(DraftedKeys {
        command: Command::decode(&command).map_err(|_| damaged(place))?,
        beat: SigningKey::from_seed(opened(sealer, row, 1, &format!("{place}/beat"))?),
        keys: SigningKey::from_seed(opened(sealer, row, 2, &format!("{place}/keys"))?),
        kem: kem(sealer, row, 3, &format!("{place}/kem"), KemSuite::X25519)?,
        kem_pq: kem(sealer, row, 4, &format!("{place}/kem_pq"), KemSuite::XWing)?,
        rsa: rsa(sealer, row, 5, &format!("{place}/rsa"))?,
    }))
}

/// What requests are sealed to; none in a database of before key sharing.
fn kem(
    sealer: &Sealer,
    row: &Row<'_>,
    column: usize,
    place: &str,
    suite: KemSuite,
) -> Result<Option<KemSecret>, StoreError> {
    let sealed: Option<Vec<u8>> = row.get(column)?;
    let seed = sealed.map(|_| opened(sealer, row, column, place));
    Ok(seed
        .transpose()?
        .map(|seed| KemSecret::from_seed(suite, seed)))
}

/// What requests in the suite rsa-misty1 are sealed to.
fn rsa(
    sealer: &Sealer,
    row: &Row<'_>,
    column: usize,
    place: &str,
) -> Result<Option<RsaSecret>, StoreError> {
    let Some(sealed) = row.get::<_, Option<Vec<u8>>>(column)? else {
        return Ok(None);
    };
    let der = sealer.open(place, &sealed)?;
    let key = RsaSecret::from_pkcs8(&der).ok_or_else(|| damaged(place))?;
    Ok(Some(key))
}

fn terminals(db: &Connection, sealer: &Sealer) -> Result<Vec<TerminalRecord>, StoreError> {
    let mut statement = db.prepare(
        "SELECT number, name, obey, wrap, wrap_generation, added_at, package_expires, excluded_at,
             mixed_at, token_id, token, legacy_key, record_version, record_issued_at
         FROM terminals ORDER BY number",
    )?;
    let (mut wipe_roots, mut orders) = (wipe_roots(db)?, orders(db)?);
    let mut addresses = AllAddresses::read(db)?;
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
            wipe_roots: wipe_roots.remove(&number).unwrap_or_default(),
            token: token(sealer, row, &place("token"))?,
            mixed_at: row.get::<_, Option<u32>>(8)?.map(UnixSeconds::new),
            legacy_key: legacy_key(row, 11, &place("legacy_key"))?,
            addresses: addresses.of(number),
            record: protecting::record_of(row, 12)?,
            excluded_at: row.get::<_, Option<u32>>(7)?.map(UnixSeconds::new),
            memberships: Vec::new(),
            orders: orders.remove(&number).unwrap_or_default(),
        });
    }
    Ok(records)
}

fn legacy_key(row: &Row<'_>, column: usize, place: &str) -> Result<Option<RsaPublic>, StoreError> {
    let spki: Option<Vec<u8>> = row.get(column)?;
    let read = |spki: Vec<u8>| RsaPublic::from_spki(&spki).ok_or_else(|| damaged(place));
    spki.map(read).transpose()
}

/// The token that a terminal is enrolled by, and its key as long as it may be used.
fn token(sealer: &Sealer, row: &Row<'_>, place: &str) -> Result<Option<TokenRecord>, StoreError> {
    let Some(id) = row.get::<_, Option<[u8; 8]>>(9)? else {
        return Ok(None);
    };
    let sealed: Option<Vec<u8>> = row.get(10)?;
    let key = sealed.map(|_| opened(sealer, row, 10, place)).transpose()?;
    Ok(Some(TokenRecord::restored(id, key)))
}

fn wipe_roots(db: &Connection) -> Result<BTreeMap<TerminalNumber, Vec<String>>, StoreError> {
    let mut statement =
        db.prepare("SELECT terminal, path FROM wipe_roots ORDER BY terminal, place")?;
    let mut rows = statement.query([])?;
    let mut roots: BTreeMap<_, Vec<String>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let terminal = TerminalNumber::new(row.get(0)?).ok_or_else(|| damaged("wipe_roots"))?;
        roots.entry(terminal).or_default().push(row.get(1)?);
    }
    Ok(roots)
}

fn orders(db: &Connection) -> Result<BTreeMap<TerminalNumber, Vec<IssuedOrder>>, StoreError> {
    let mut statement = db.prepare(
        "SELECT terminal, kind, version, frame, hash, at, not_after, receipt_wanted, proved_at
         FROM erase_orders ORDER BY id",
    )?;
    let mut rows = statement.query([])?;
    let mut orders: BTreeMap<_, Vec<IssuedOrder>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let terminal = TerminalNumber::new(row.get(0)?).ok_or_else(|| damaged("erase_orders"))?;
        let kind: u8 = row.get(1)?;
        let kind = OrderKind::ALL
            .into_iter()
            .find(|known| known.type_number() == kind)
            .ok_or_else(|| damaged(&format!("erase_orders/{terminal}/kind")))?;
        orders.entry(terminal).or_default().push(IssuedOrder {
            kind,
            version: row.get(2)?,
            frame: row.get(3)?,
            hash: row.get(4)?,
            at: UnixSeconds::new(row.get(5)?),
            not_after: UnixSeconds::new(row.get(6)?),
            receipt_wanted: row.get(7)?,
            proved_at: row.get::<_, Option<u32>>(8)?.map(UnixSeconds::new),
        });
    }
    Ok(orders)
}

fn groups(db: &Connection, sealer: &Sealer) -> Result<Vec<GroupRecord>, StoreError> {
    let mut statement = db.prepare(
        "SELECT number, name, master, epoch, generation, activate_at, step, period, lease,
             change, stragglers, legacy, priority, mtu, suite, search_key
         FROM groups ORDER BY number",
    )?;
    let (mut statements, mut networks) = (statements(db)?, protecting::networks(db)?);
    let mut rows = statement.query([])?;
    let mut records = Vec::new();
    while let Some(row) = rows.next()? {
        let number = GroupNumber::new(row.get(0)?).ok_or_else(|| damaged("groups"))?;
        let place = |column| format!("groups/{number}/{column}");
        let bytes = opened(sealer, row, 2, &place("master"))?;
        let epoch = KeyEpoch::new(row.get(3)?);
        let generation = generation(row, 4, &place("generation"))?;
        let cadence = cadence(row.get(6)?, row.get(7)?).ok_or_else(|| damaged(&place("period")))?;
        records.push(GroupRecord {
            number,
            name: row.get(1)?,
            members: BTreeSet::new(),
            master: MasterKey::new(number, epoch, generation, bytes),
            schedule: Schedule {
                generation,
                activate_at: UnixSeconds::new(row.get(5)?),
                cadence,
            },
            lease: row.get(8)?,
            policy: policy(row)?.ok_or_else(|| damaged(&place("policy")))?,
            packets: protecting::packets_of(row, 12, number, &mut networks)?,
            search_key: protecting::search_key_of(sealer, row, 15, number)?,
            statements: statements.remove(&number).unwrap_or_default(),
        });
    }
    Ok(records)
}

/// `None` where a column has a word that we do not know.
fn policy(row: &Row<'_>) -> Result<Option<GroupPolicy>, StoreError> {
    let (change, stragglers): (String, String) = (row.get(9)?, row.get(10)?);
    let known = ChangeMode::named(&change).zip(Stragglers::named(&stragglers));
    let legacy = row.get(11)?;
    Ok(known.map(|(change, stragglers)| GroupPolicy {
        change,
        stragglers,
        legacy,
    }))
}

fn statements(db: &Connection) -> Result<BTreeMap<GroupNumber, Vec<Statement>>, StoreError> {
    let mut query = db.prepare(
        "SELECT group_number, stated_at, epoch, generation, activate_at, step, period
         FROM statements ORDER BY id",
    )?;
    let mut rows = query.query([])?;
    let mut statements: BTreeMap<_, Vec<Statement>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let group = GroupNumber::new(row.get(0)?).ok_or_else(|| damaged("statements"))?;
        let place = format!("statements/{group}");
        statements.entry(group).or_default().push(Statement {
            stated_at: UnixSeconds::new(row.get(1)?),
            epoch: KeyEpoch::new(row.get(2)?),
            schedule: Schedule {
                generation: generation(row, 3, &place)?,
                activate_at: UnixSeconds::new(row.get(4)?),
                cadence: cadence(row.get(5)?, row.get(6)?).ok_or_else(|| damaged(&place))?,
            },
        });
    }
    Ok(statements)
}

/// Who belonged where, into the records of both sides. One reading for all: there may be many.
fn memberships(db: &Connection, state: &mut State) -> Result<(), StoreError> {
    let mut terminals: BTreeMap<_, _> = state
        .terminals
        .iter_mut()
        .map(|record| (record.number.get(), record))
        .collect();
    let mut groups: BTreeMap<_, _> = state
        .groups
        .iter_mut()
        .map(|record| (record.number.get(), record))
        .collect();
    let mut statement = db
        .prepare("SELECT group_number, terminal, from_at, until_at FROM memberships ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (number, terminal): (u32, u32) = (row.get(0)?, row.get(1)?);
        let place = || damaged(&format!("memberships/{number}/{terminal}"));
        let group = groups.get_mut(&number).ok_or_else(place)?;
        let terminal = terminals.get_mut(&terminal).ok_or_else(place)?;
        let until = row.get::<_, Option<u32>>(3)?.map(UnixSeconds::new);
        if until.is_none() {
            group.members.insert(terminal.number);
        }
        terminal.memberships.push(Membership {
            group: group.number,
            from: UnixSeconds::new(row.get(2)?),
            until,
        });
    }
    Ok(())
}

fn exclusions(db: &Connection) -> Result<Vec<Exclusion>, StoreError> {
    let mut statement = db.prepare("SELECT number, at FROM exclusions ORDER BY number")?;
    let mut rows = statement.query([])?;
    let mut exclusions = Vec::new();
    while let Some(row) = rows.next()? {
        let number: u32 = row.get(0)?;
        exclusions.push(Exclusion {
            number,
            at: UnixSeconds::new(row.get(1)?),
            terminals: excluded_terminals(db, number)?,
            groups: excluded_epochs(db, number)?,
        });
    }
    Ok(exclusions)
}

fn excluded_terminals(db: &Connection, number: u32) -> Result<Vec<TerminalNumber>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT terminal FROM excluded_terminals WHERE exclusion = ?1 ORDER BY terminal",
    )?;
    let mut rows = statement.query([number])?;
    let mut terminals = Vec::new();
    while let Some(row) = rows.next()? {
        let terminal = TerminalNumber::new(row.get(0)?);
        terminals.push(terminal.ok_or_else(|| damaged(&format!("exclusions/{number}")))?);
    }
    Ok(terminals)
}

fn excluded_epochs(db: &Connection, number: u32) -> Result<Vec<FreshEpoch>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT group_number, old, new FROM excluded_epochs WHERE exclusion = ?1
         ORDER BY group_number",
    )?;
    let mut rows = statement.query([number])?;
    let mut groups = Vec::new();
    while let Some(row) = rows.next()? {
        let group = GroupNumber::new(row.get(0)?);
        groups.push(FreshEpoch {
            group: group.ok_or_else(|| damaged(&format!("exclusions/{number}")))?,
            old: KeyEpoch::new(row.get(1)?),
            new: KeyEpoch::new(row.get(2)?),
        });
    }
    Ok(groups)
}

/// `None` where the two columns are no cadence and not the absence of one.
fn cadence(step: Option<u8>, period: Option<u32>) -> Option<Option<Cadence>> {
    match (step, period) {
        (None, None) => Some(None),
        (Some(step), Some(period)) => Cadence::new(step, period).map(Some),
        (Some(_), None) | (None, Some(_)) => None,
    }
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
