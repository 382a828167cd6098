//! Packet groups, addresses and protection records: as SQL and back.

use core::str::FromStr;
use std::collections::BTreeMap;

use keyfall_protocol::command::{Prefix, SEARCH_KEY_LEN};
use keyfall_protocol::ids::{GroupNumber, TerminalNumber, UnixSeconds};
use keyfall_protocol::keys::{EspSuite, Secret};
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{Addresses, PacketSettings, RecordIssue};
use rusqlite::{Connection, Row, Transaction, params};

use crate::seal::Sealer;
use crate::store::StoreError;
use crate::store::write::one_row;

/// What makes a group a packet group.
pub(super) fn packets(
    transaction: &Transaction<'_>,
    group: GroupNumber,
    packets: Option<&PacketSettings>,
) -> Result<(), StoreError> {
    let rows = transaction.execute(
        "UPDATE groups SET priority = ?2, mtu = ?3, suite = ?4 WHERE number = ?1",
        params![
            group.get(),
            packets.map(|it| it.priority),
            packets.and_then(|it| it.mtu),
            packets.map(|it| it.suite.number()),
        ],
    )?;
    one_row(rows, format!("groups/{group}"))?;
    let networks = packets.map_or(&[][..], |it| &it.networks);
    list(transaction, NETWORKS, group.get(), networks)
}

/// KS, sealed for its place.
pub(super) fn search_key(
    transaction: &Transaction<'_>,
    sealer: &Sealer,
    group: GroupNumber,
    key: Option<&Secret<SEARCH_KEY_LEN>>,
    rng: &mut dyn Random,
) -> Result<(), StoreError> {
    let place = format!("groups/{group}/search_key");
    let sealed = key.map(|key| sealer.seal(rng, &place, &key.expose()[..]));
    let rows = transaction.execute(
        "UPDATE groups SET search_key = ?2 WHERE number = ?1",
        params![group.get(), sealed],
    )?;
    one_row(rows, place)
}

pub(super) fn addresses(
    transaction: &Transaction<'_>,
    terminal: TerminalNumber,
    addresses: &Addresses,
) -> Result<(), StoreError> {
    list(transaction, PREFIXES, terminal.get(), &addresses.prefixes)?;
    list(transaction, ENDPOINTS, terminal.get(), &addresses.endpoints)
}

pub(super) fn recorded(
    transaction: &Transaction<'_>,
    records: &[(TerminalNumber, RecordIssue)],
) -> Result<(), StoreError> {
    let mut update = transaction.prepare_cached(
        "UPDATE terminals SET record_version = ?2, record_issued_at = ?3 WHERE number = ?1",
    )?;
    for (terminal, issue) in records {
        let rows = update.execute([terminal.get(), issue.version, issue.issued_at.get()])?;
        one_row(rows, format!("terminals/{terminal}"))?;
    }
    Ok(())
}

/// What was listed of a group or a terminal, in its order.
pub(super) struct Listed<T>(BTreeMap<u32, Vec<T>>);

impl<T: FromStr> Listed<T> {
    fn read(db: &Connection, table: Table) -> Result<Self, StoreError> {
        let Table { name, owner } = table;
        let mut query = db.prepare(&format!(
            "SELECT {owner}, text FROM {name} ORDER BY {owner}, place"
        ))?;
        let mut rows = query.query([])?;
        let mut listed: BTreeMap<_, Vec<T>> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let (number, text): (u32, String) = (row.get(0)?, row.get(1)?);
            let read = text.parse().map_err(|_| StoreError::Damaged {
                place: format!("{name}/{number}"),
            })?;
            listed.entry(number).or_default().push(read);
        }
        Ok(Self(listed))
    }

    fn take(&mut self, number: u32) -> Vec<T> {
        self.0.remove(&number).unwrap_or_default()
    }
}

/// The networks of every packet group.
pub(super) fn networks(db: &Connection) -> Result<Listed<Prefix>, StoreError> {
    Listed::read(db, NETWORKS)
}

/// What `packets` wrote: priority, MTU and suite stand at `column` and the next two.
pub(super) fn packets_of(
    row: &Row<'_>,
    column: usize,
    group: GroupNumber,
    networks: &mut Listed<Prefix>,
) -> Result<Option<PacketSettings>, StoreError> {
    let (priority, mtu) = (row.get(column)?, row.get(column + 1)?);
    let networks = networks.take(group.get());
    let Some(priority) = priority else {
        return Ok(None);
    };
    let suite = EspSuite::from_number(row.get(column + 2)?);
    let suite = suite.ok_or_else(|| StoreError::Damaged {
        place: format!("groups/{group}/suite"),
    })?;
    Ok(Some(PacketSettings {
        priority,
        mtu,
        suite,
        networks,
    }))
}

pub(super) fn search_key_of(
    sealer: &Sealer,
    row: &Row<'_>,
    column: usize,
    group: GroupNumber,
) -> Result<Option<Secret<SEARCH_KEY_LEN>>, StoreError> {
    let Some(sealed) = row.get::<_, Option<Vec<u8>>>(column)? else {
        return Ok(None);
    };
    let place = format!("groups/{group}/search_key");
    let octets = sealer.open(&place, &sealed)?;
    let key = Secret::from_slice(&octets);
    key.map(Some).ok_or(StoreError::Damaged { place })
}

/// Prefixes and endpoints of every terminal.
pub(super) struct AllAddresses(Listed<Prefix>, Listed<core::net::SocketAddr>);

impl AllAddresses {
    pub(super) fn read(db: &Connection) -> Result<Self, StoreError> {
        let prefixes = Listed::read(db, PREFIXES)?;
        Ok(Self(prefixes, Listed::read(db, ENDPOINTS)?))
    }

    pub(super) fn of(&mut self, terminal: TerminalNumber) -> Addresses {
        Addresses {
            prefixes: self.0.take(terminal.get()),
            endpoints: self.1.take(terminal.get()),
        }
    }
}

/// What `recorded` wrote: version and time stand at `column` and the next.
pub(super) fn record_of(row: &Row<'_>, column: usize) -> Result<Option<RecordIssue>, StoreError> {
    let version: Option<u32> = row.get(column)?;
    let issued_at: Option<u32> = row.get(column + 1)?;
    let both = version.zip(issued_at);
    Ok(both.map(|(version, issued_at)| RecordIssue {
        version,
        issued_at: UnixSeconds::new(issued_at),
    }))
}

fn list<T: ToString>(
    transaction: &Transaction<'_>,
    table: Table,
    number: u32,
    items: &[T],
) -> Result<(), StoreError> {
    let Table { name, owner } = table;
    transaction.execute(&format!("DELETE FROM {name} WHERE {owner} = ?1"), [number])?;
    let sql = format!("INSERT INTO {name} ({owner}, place, text) VALUES (?1, ?2, ?3)");
    for (place, item) in (1..).zip(items) {
        transaction.execute(&sql, params![number, place, item.to_string()])?;
    }
    Ok(())
}

/// Lines of text that belong to a group or a terminal.
#[derive(Clone, Copy)]
struct Table {
    name: &'static str,
    owner: &'static str,
}

const NETWORKS: Table = Table {
    name: "networks",
    owner: "group_number",
};
const PREFIXES: Table = Table {
    name: "prefixes",
    owner: "terminal",
};
const ENDPOINTS: Table = Table {
    name: "endpoints",
    owner: "terminal",
};
