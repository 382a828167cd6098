//! Changes as SQL. A secret is sealed for its place `table/row/column`.

use keyfall_protocol::ids::{GroupNumber, KeyIdKind, TerminalNumber, UnixSeconds};
use keyfall_protocol::keys::{MasterKey, WrapKey};
use keyfall_protocol::rng::Random;
use keyfall_protocol::schedule::{Cadence, Schedule};
use keyfall_protocol::server::{
    Change, ChangeReport, DraftedKeys, Exclusion, FleetRecord, GroupPolicy, GroupRecord,
    IssuedOrder, NewKeys, Statement, TerminalRecord,
};
use keyfall_protocol::sharing::KemSecret;
use keyfall_protocol::sharing::rsa_misty1::{RsaPublic, RsaSecret};
use rusqlite::{Transaction, params};

use crate::seal::Sealer;
use crate::store::{StoreError, changes, protecting, restored};

/// Writes what `server init` decided.
pub(super) fn fleet(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    fleet: &FleetRecord,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO fleet (id, name, stream, root, key_set, beat, keys, generation,
             sequence_reserved, keep_time, bits_per_second, kem, kem_pq, rsa, epoch_life)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
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
            kem_seed(sealer, rng, "fleet/1/kem", fleet.kem.as_ref()),
            kem_seed(sealer, rng, "fleet/1/kem_pq", fleet.kem_pq.as_ref()),
            rsa(sealer, rng, "fleet/1/rsa", fleet.rsa.as_ref()),
            fleet.epoch_life,
        ],
    )?;
    let tables = [
        ("carriers", &fleet.carriers),
        ("servers", &fleet.servers),
        ("listens", &fleet.listen),
    ];
    for (table, addresses) in tables {
        let sql = format!("INSERT INTO {table} (place, address) VALUES (?1, ?2)");
        for (place, address) in (1..).zip(addresses) {
            transaction.execute(&sql, params![place, address])?;
        }
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
        Change::Member {
            group,
            terminal,
            from,
        } => member(transaction, *group, *terminal, *from),
        Change::Left {
            group,
            terminal,
            until,
        } => left(transaction, *group, *terminal, *until),
        Change::Master { key, schedule } => master(transaction, sealer, key, schedule, rng),
        Change::Begun(begun) => changes::write(transaction, &ChangeReport::from(begun)),
        Change::Ended(report) => changes::write(transaction, report),
        Change::Policy { group, policy } => set(transaction, *group, policy),
        Change::Packets { group, packets } => {
            protecting::packets(transaction, *group, packets.as_ref())
        }
        Change::SearchKey { group, key } => {
            protecting::search_key(transaction, sealer, *group, key.as_ref(), rng)
        }
        Change::Addresses {
            terminal,
            addresses,
        } => protecting::addresses(transaction, *terminal, addresses),
        Change::Recorded(records) => protecting::recorded(transaction, records),
        Change::Stated { group, statement } => stated(transaction, *group, statement),
        Change::Fleet { generation, wraps } => {
            transaction.execute("UPDATE fleet SET generation = ?1", [generation.get()])?;
            for key in wraps {
                wrap(transaction, sealer, key, rng)?;
            }
            Ok(())
        }
        Change::Wrap(key) => wrap(transaction, sealer, key, rng),
        Change::Mixed { wrap: key, at } => {
            wrap(transaction, sealer, key, rng)?;
            let number = key.kid().kind().and_then(KeyIdKind::terminal);
            let rows = transaction.execute(
                "UPDATE terminals SET mixed_at = ?2, token = NULL WHERE number = ?1",
                params![number.map(TerminalNumber::get), at.get()],
            )?;
            one_row(rows, "terminals".to_owned())
        }
        Change::LegacyKey { terminal, key } => {
            let rows = transaction.execute(
                "UPDATE terminals SET legacy_key = ?2 WHERE number = ?1",
                params![terminal.get(), key.as_ref().map(RsaPublic::as_spki)],
            )?;
            one_row(rows, format!("terminals/{terminal}"))
        }
        Change::TokenVoid(number) => {
            let void = "UPDATE terminals SET token = NULL WHERE number = ?1";
            let rows = transaction.execute(void, [number.get()])?;
            one_row(rows, format!("terminals/{number}"))
        }
        Change::Excluded(exclusion) => excluded(transaction, exclusion),
        Change::Ordered { terminal, issued } => ordered(transaction, *terminal, issued),
        Change::Proved { terminal, hash, at } => proved(transaction, *terminal, hash, *at),
        Change::Keys(keys) => new_keys(transaction, sealer, keys, rng),
        Change::Restored(it) => restored::write(transaction, it),
    }
}

/// Writes the one draft of a KEYSET.
pub(super) fn draft(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    drafted: &DraftedKeys,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO key_set_draft (id, command, beat, keys, kem, kem_pq, rsa)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET command = ?1, beat = ?2, keys = ?3, kem = ?4, kem_pq = ?5,
             rsa = ?6",
        params![
            drafted.command.encode(),
            sealer.seal(rng, "key_set_draft/1/beat", drafted.beat.seed().expose()),
            sealer.seal(rng, "key_set_draft/1/keys", drafted.keys.seed().expose()),
            kem_seed(sealer, rng, "key_set_draft/1/kem", drafted.kem.as_ref()),
            kem_seed(
                sealer,
                rng,
                "key_set_draft/1/kem_pq",
                drafted.kem_pq.as_ref()
            ),
            rsa(sealer, rng, "key_set_draft/1/rsa", drafted.rsa.as_ref()),
        ],
    )?;
    Ok(())
}

/// Replaces the online keys: the old ones are overwritten in place.
fn new_keys(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    keys: &NewKeys,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    transaction.execute("DELETE FROM key_set_draft", [])?;
    let rows = transaction.execute(
        "UPDATE fleet SET key_set = ?1, beat = ?2, keys = ?3, kem = coalesce(?4, kem),
             kem_pq = coalesce(?5, kem_pq), rsa = ?6",
        params![
            keys.key_set_frame,
            sealer.seal(rng, "fleet/1/beat", keys.beat.seed().expose()),
            sealer.seal(rng, "fleet/1/keys", keys.keys.seed().expose()),
            kem_seed(sealer, rng, "fleet/1/kem", keys.kem.as_ref()),
            kem_seed(sealer, rng, "fleet/1/kem_pq", keys.kem_pq.as_ref()),
            rsa(sealer, rng, "fleet/1/rsa", keys.rsa.as_ref()),
        ],
    )?;
    one_row(rows, "fleet/1".to_owned())
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
    let token_key = record.token.as_ref().and_then(|token| token.key.as_ref());
    transaction
        .prepare_cached(
            "INSERT INTO terminals (number, name, obey, wrap, wrap_generation, added_at,
                 package_expires, token_id, token)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            number.get(),
            record.name,
            sealer.seal(rng, &format!("terminals/{number}/obey"), obey),
            sealer.seal(rng, &format!("terminals/{number}/wrap"), wrap),
            record.wrap.generation().get(),
            record.added_at.get(),
            record.package_expires.get(),
            record.token.as_ref().map(|token| token.id),
            token_key.map(|key| {
                let place = format!("terminals/{number}/token");
                sealer.seal(rng, &place, key.secret().expose())
            }),
        ])?;
    for (place, path) in (1..).zip(&record.wipe_roots) {
        transaction
            .prepare_cached("INSERT INTO wipe_roots (terminal, place, path) VALUES (?1, ?2, ?3)")?
            .execute(params![number.get(), place, path])?;
    }
    Ok(())
}

fn excluded(transaction: &Transaction<'_>, exclusion: &Exclusion) -> Result<(), StoreError> {
    let (number, at) = (exclusion.number, exclusion.at.get());
    transaction.execute(
        "INSERT INTO exclusions (number, at) VALUES (?1, ?2)",
        [number, at],
    )?;
    for terminal in &exclusion.terminals {
        transaction.execute(
            "INSERT INTO excluded_terminals (exclusion, terminal) VALUES (?1, ?2)",
            [number, terminal.get()],
        )?;
        let rows = transaction.execute(
            "UPDATE terminals SET excluded_at = ?2 WHERE number = ?1",
            [terminal.get(), at],
        )?;
        one_row(rows, format!("terminals/{terminal}"))?;
    }
    for fresh in &exclusion.groups {
        transaction.execute(
            "INSERT INTO excluded_epochs (exclusion, group_number, old, new)
             VALUES (?1, ?2, ?3, ?4)",
            [number, fresh.group.get(), fresh.old.get(), fresh.new.get()],
        )?;
    }
    Ok(())
}

fn ordered(
    transaction: &Transaction<'_>,
    terminal: TerminalNumber,
    issued: &IssuedOrder,
) -> Result<(), StoreError> {
    transaction.execute(
        "INSERT INTO erase_orders (terminal, kind, version, frame, hash, at, not_after,
             receipt_wanted, proved_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![
            terminal.get(),
            issued.kind.type_number(),
            issued.version,
            issued.frame,
            issued.hash,
            issued.at.get(),
            issued.not_after.get(),
            issued.receipt_wanted,
            issued.proved_at.map(UnixSeconds::get),
        ],
    )?;
    Ok(())
}

fn proved(
    transaction: &Transaction<'_>,
    terminal: TerminalNumber,
    hash: &[u8; 32],
    at: UnixSeconds,
) -> Result<(), StoreError> {
    let rows = transaction.execute(
        "UPDATE erase_orders SET proved_at = ?3 WHERE terminal = ?1 AND hash = ?2",
        params![terminal.get(), hash, at.get()],
    )?;
    one_row(rows, format!("erase_orders/{terminal}"))
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
             lease, change, stragglers, legacy)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
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
            record.policy.change.name(),
            record.policy.stragglers.name(),
            record.policy.legacy,
        ],
    )?;
    for statement in &record.statements {
        stated(transaction, number, statement)?;
    }
    let from = record.statements.first().map(|first| first.stated_at);
    let from = from.ok_or_else(|| StoreError::Damaged {
        place: format!("statements/{number}"),
    })?;
    protecting::packets(transaction, number, record.packets.as_ref())?;
    protecting::search_key(transaction, sealer, number, record.search_key.as_ref(), rng)?;
    for &terminal in &record.members {
        member(transaction, number, terminal, from)?;
    }
    Ok(())
}

fn set(
    transaction: &Transaction<'_>,
    group: GroupNumber,
    policy: &GroupPolicy,
) -> Result<(), StoreError> {
    let rows = transaction.execute(
        "UPDATE groups SET change = ?2, stragglers = ?3, legacy = ?4 WHERE number = ?1",
        params![
            group.get(),
            policy.change.name(),
            policy.stragglers.name(),
            policy.legacy,
        ],
    )?;
    one_row(rows, format!("groups/{group}"))
}

fn member(
    transaction: &Transaction<'_>,
    group: GroupNumber,
    terminal: TerminalNumber,
    from: UnixSeconds,
) -> Result<(), StoreError> {
    transaction
        .prepare_cached(
            "INSERT INTO memberships (group_number, terminal, from_at) VALUES (?1, ?2, ?3)",
        )?
        .execute([group.get(), terminal.get(), from.get()])?;
    Ok(())
}

fn left(
    transaction: &Transaction<'_>,
    group: GroupNumber,
    terminal: TerminalNumber,
    until: UnixSeconds,
) -> Result<(), StoreError> {
    let rows = transaction
        .prepare_cached(
            "UPDATE memberships SET until_at = ?3
             WHERE group_number = ?1 AND terminal = ?2 AND until_at IS NULL",
        )?
        .execute([group.get(), terminal.get(), until.get()])?;
    one_row(rows, format!("memberships/{group}/{terminal}"))
}

fn stated(
    transaction: &Transaction<'_>,
    group: GroupNumber,
    statement: &Statement,
) -> Result<(), StoreError> {
    let (step, period) = columns(statement.schedule.cadence);
    transaction
        .prepare_cached(
            "INSERT INTO statements (group_number, stated_at, epoch, generation, activate_at, step,
                 period)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            group.get(),
            statement.stated_at.get(),
            statement.epoch.get(),
            statement.schedule.generation.get(),
            statement.schedule.activate_at.get(),
            step,
            period,
        ])?;
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

/// A KEM key's seed, sealed for its place.
fn kem_seed(
    sealer: &Sealer,
    rng: &mut dyn Random,
    place: &str,
    key: Option<&KemSecret>,
) -> Option<Vec<u8>> {
    key.map(|key| sealer.seal(rng, place, key.seed().expose()))
}

/// As PKCS #8.
fn rsa(
    sealer: &Sealer,
    rng: &mut dyn Random,
    place: &str,
    key: Option<&RsaSecret>,
) -> Option<Vec<u8>> {
    key.map(|key| sealer.seal(rng, place, &key.to_pkcs8()))
}

/// The machine changes only what the database holds.
pub(super) fn one_row(rows: usize, place: String) -> Result<(), StoreError> {
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
