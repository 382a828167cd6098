//! Packet groups, and the addresses for which terminals speak in them.

use core::str::FromStr;

use keyfall_api::admin as api;
use keyfall_protocol::command::Prefix;
use keyfall_protocol::keys::EspSuite;
use keyfall_protocol::server::{
    AddressWish, By, Done, GroupRecord, Order, PacketSettings, PacketWish, Server, TerminalRecord,
};

use crate::admin::orders::{
    OrderError, asked, existing, just_stored, known, shortened, unexpected,
};
use crate::admin::reports::{named_group, named_member};
use crate::driver::{Handle, View};

/// Sets what `order` names of a packet group.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn set_packets(
    driver: &Handle,
    by: By,
    name: String,
    order: api::SetPackets,
) -> Result<api::PacketsSet, OrderError> {
    let wish = PacketWish {
        packets: order.packets,
        priority: order.priority,
        mtu: order.mtu.map(|mtu| (mtu != 0).then_some(mtu)),
        suite: order.suite.as_deref().map(suite).transpose()?,
        networks: order.networks.as_deref().map(prefixes).transpose()?,
    };
    if wish == PacketWish::default() {
        return Err(OrderError::NoPacketSetting);
    }
    let asked = asked("group set", &name, by);
    let prepare = move |machine: &Server| {
        let group = existing(machine, &name)?.number;
        Ok(Order::SetPackets { group, wish })
    };
    let answer = |view: &View<'_>, done| {
        let Done::PacketsSet {
            group,
            packets,
            fresh,
        } = done
        else {
            unexpected()
        };
        api::PacketsSet {
            schema: api::SCHEMA,
            group: named_group(just_stored(view, group.get())),
            packets: packets.as_ref().map(shown),
            epoch: fresh.map(|(epoch, _)| epoch.get()),
            activate_at: fresh.map(|(_, at)| at.get()),
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// Sets what `order` names of a terminal's addresses.
///
/// # Errors
/// [`OrderError`].
pub(crate) async fn set_addresses(
    driver: &Handle,
    by: By,
    name: String,
    order: api::SetAddresses,
) -> Result<api::AddressesSet, OrderError> {
    let endpoint = |text: &String| {
        let bad = || OrderError::NotAnEndpoint(shortened(text));
        text.parse().map_err(|_| bad())
    };
    let endpoints = order.endpoints.as_deref();
    let wish = AddressWish {
        prefixes: order.prefixes.as_deref().map(prefixes).transpose()?,
        endpoints: endpoints
            .map(|all| all.iter().map(endpoint).collect())
            .transpose()?,
    };
    if wish == AddressWish::default() {
        return Err(OrderError::NoAddressSetting);
    }
    let asked = asked("terminal set", &name, by);
    let prepare = move |machine: &Server| {
        let terminal = known(machine, &name)?.number;
        Ok(Order::SetAddresses { terminal, wish })
    };
    let answer = |view: &View<'_>, done| {
        let Done::AddressesSet { terminal, .. } = done else {
            unexpected()
        };
        let record = view.machine.terminal_named(&terminal.to_string());
        let record = record.expect("the machine applies what was stored before it says so");
        let protection = protection_record(view, record);
        let in_none = protection.as_ref().is_some_and(|it| it.groups.is_empty());
        let speaks = !record.addresses.prefixes.is_empty();
        api::AddressesSet {
            schema: api::SCHEMA,
            terminal: named_member(view, terminal),
            addresses: addresses(record).unwrap_or_default(),
            record: protection,
            warning: (in_none && speaks).then(|| IN_NO_GROUP.to_owned()),
        }
    };
    Ok(driver.order(asked, prepare, answer).await??)
}

/// What a new group is to be.
///
/// # Errors
/// [`OrderError::NotAPrefix`], [`OrderError::NotAnEspSuite`].
pub(super) fn settings(packets: api::Packets) -> Result<PacketSettings, OrderError> {
    let mut networks = prefixes(&packets.networks)?;
    networks.sort_unstable();
    networks.dedup();
    Ok(PacketSettings {
        priority: packets.priority,
        mtu: packets.mtu,
        suite: packets
            .suite
            .as_deref()
            .map(suite)
            .transpose()?
            .unwrap_or_default(),
        networks,
    })
}

pub(super) fn shown(packets: &PacketSettings) -> api::Packets {
    api::Packets {
        priority: packets.priority,
        mtu: packets.mtu,
        suite: Some(packets.suite.name().to_owned()),
        networks: packets.networks.iter().map(Prefix::to_string).collect(),
    }
}

/// `None` where nothing was ever set.
pub(super) fn addresses(terminal: &TerminalRecord) -> Option<api::Addresses> {
    let held = &terminal.addresses;
    let any = !held.prefixes.is_empty() || !held.endpoints.is_empty();
    any.then(|| api::Addresses {
        prefixes: held.prefixes.iter().map(ToString::to_string).collect(),
        endpoints: held.endpoints.iter().map(ToString::to_string).collect(),
    })
}

pub(super) fn protection_record(
    view: &View<'_>,
    terminal: &TerminalRecord,
) -> Option<api::ProtectionRecord> {
    let record = view.machine.protection_record(terminal.number)?;
    let group = |number: u32| view.machine.group_named(&number.to_string());
    let named = |it: Option<&GroupRecord>| it.map(named_group);
    Some(api::ProtectionRecord {
        version: record.version,
        issued_at: record.issued_at.get(),
        not_after: record.not_after.get(),
        octets: record.frame_len() as u64,
        groups: record
            .groups
            .iter()
            .filter_map(|it| named(group(it.group.get())))
            .collect(),
    })
}

fn suite(name: &str) -> Result<EspSuite, OrderError> {
    EspSuite::named(name).ok_or_else(|| OrderError::NotAnEspSuite(shortened(name)))
}

pub(super) fn prefixes(texts: &[String]) -> Result<Vec<Prefix>, OrderError> {
    let read = |text: &String| Prefix::from_str(text).map_err(OrderError::NotAPrefix);
    texts.iter().map(read).collect()
}

const IN_NO_GROUP: &str = "this terminal is in no packet group, so nobody protects traffic to it: make \
                           one of its groups a packet group with `keyfall admin group set GROUP --packets`";
