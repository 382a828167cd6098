//! Packet groups, addresses and protection records in words.

use keyfall_api::admin as api;

use super::named;
use crate::output::utc;

pub(in crate::admin) fn packets_set(set: &api::PacketsSet) -> String {
    let mut text = format!("{}: set and stored", named(&set.group));
    match &set.packets {
        Some(packets) => text += &settings(packets),
        None => text += "\n  no packet group",
    }
    if let (Some(epoch), Some(at)) = (set.epoch, set.activate_at) {
        text += &format!(
            "\n  epoch {epoch} with its search key is being sent, active at {}",
            utc(at)
        );
    }
    text
}

pub(in crate::admin) fn addresses_set(set: &api::AddressesSet) -> String {
    let warning = set.warning.as_ref();
    format!(
        "{}: set and stored{}{}{}",
        named(&set.terminal),
        addresses(&set.addresses),
        set.record.as_ref().map_or_else(String::new, record),
        warning.map_or_else(String::new, |warning| format!("\nwarning: {warning}"))
    )
}

/// "\n  routes 10.77.0.0/16; priority 5; MTU 1380; AES-256-GCM".
pub(super) fn settings(packets: &api::Packets) -> String {
    let networks = if packets.networks.is_empty() {
        "every destination".to_owned()
    } else {
        packets.networks.join(" ")
    };
    let mtu = match packets.mtu {
        Some(mtu) => format!("MTU {mtu}"),
        None => "MTU of the way".to_owned(),
    };
    let suite = packets.suite.as_deref().unwrap_or("AES-256-GCM");
    format!(
        "\n  routes {networks}; priority {}; {mtu}; {suite}",
        packets.priority
    )
}

pub(super) fn addresses(addresses: &api::Addresses) -> String {
    let speaks = if addresses.prefixes.is_empty() {
        "no address".to_owned()
    } else {
        addresses.prefixes.join(" ")
    };
    let heard = if addresses.endpoints.is_empty() {
        "no known endpoint".to_owned()
    } else {
        addresses.endpoints.join(" ")
    };
    format!("\n  speaks for {speaks}\n  heard at {heard}")
}

pub(super) fn record(record: &api::ProtectionRecord) -> String {
    let groups: Vec<_> = record.groups.iter().map(named).collect();
    format!(
        "\n  record {} of {} octets, good until {}, in {}",
        record.version,
        record.octets,
        utc(record.not_after),
        if groups.is_empty() {
            "no packet group".to_owned()
        } else {
            groups.join(", ")
        }
    )
}
