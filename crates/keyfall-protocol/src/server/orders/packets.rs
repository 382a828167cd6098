//! Packet groups and the addresses of their members: what operators set, and protection records are
//! made of.

use core::net::SocketAddr;

use crate::command::Prefix;
use crate::ids::TerminalNumber;
use crate::keys::EspSuite;
use crate::rng::Random;
use crate::server::orders::Prepared;
use crate::server::{
    Addresses, Batch, By, Change, ChangeCause, Done, GroupRecord, JournalEntry, PacketSettings,
    Refusal, Server,
};

/// What an operator names of a group's [`PacketSettings`]; the rest stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PacketWish {
    /// Whether it is a packet group.
    pub packets: Option<bool>,
    pub priority: Option<u8>,
    /// `Some(None)`: as the path has it.
    pub mtu: Option<Option<u16>>,
    pub suite: Option<EspSuite>,
    /// In place of those before.
    pub networks: Option<Vec<Prefix>>,
}

/// What an operator names of a terminal's [`Addresses`]; the rest stays.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AddressWish {
    /// In place of those before.
    pub prefixes: Option<Vec<Prefix>>,
    /// In place of those before.
    pub endpoints: Option<Vec<SocketAddr>>,
}

impl PacketWish {
    /// `None`: no packet group.
    fn of(self, held: Option<&PacketSettings>) -> Result<Option<PacketSettings>, Refusal> {
        let named = self.priority.is_some()
            || self.mtu.is_some()
            || self.suite.is_some()
            || self.networks.is_some();
        if !self.packets.unwrap_or_else(|| held.is_some()) {
            return if named {
                Err(Refusal::NoPacketGroup)
            } else {
                Ok(None)
            };
        }
        let held = held.cloned().unwrap_or_default();
        let settings = PacketSettings {
            priority: self.priority.unwrap_or(held.priority),
            mtu: self.mtu.unwrap_or(held.mtu),
            suite: self.suite.unwrap_or(held.suite),
            networks: self.networks.map_or(held.networks, in_order),
        };
        settings.check()?;
        Ok(Some(settings))
    }
}

impl Server {
    pub(super) fn set_packets(
        &self,
        group: &GroupRecord,
        wish: PacketWish,
        by: By,
        rng: &mut dyn Random,
    ) -> Prepared {
        let number = group.number;
        let packets = wish.of(group.packets.as_ref())?;
        let mut changes = vec![Change::Packets {
            group: number,
            packets: packets.clone(),
        }];
        let mut fresh = None;
        if packets.is_some() && group.search_key.is_none() {
            // KS comes with an epoch, for the past's members must not know it.
            let at = self.at.wall.plus(self.lead(group, &[]));
            let (epoch, rekeyed) = self.fresh_epoch_of(group, true, at, rng);
            changes.extend(rekeyed);
            let cause = ChangeCause::FreshEpoch;
            changes.extend(self.begins_fresh(group, epoch.new, cause, &[]));
            fresh = Some((epoch.new, at));
        }
        if packets.is_none() && group.search_key.is_some() {
            changes.push(Change::SearchKey {
                group: number,
                key: None,
            });
        }
        let mut outcome = packets
            .as_ref()
            .map_or_else(|| "no packets".to_owned(), ToString::to_string);
        if let Some((epoch, _)) = fresh {
            outcome += &format!("; epoch {epoch}");
        }
        let batch = Batch {
            changes,
            audit: Some(self.audit(by, "group set", &group.name, outcome)),
            journal: Some(JournalEntry::Packets {
                group: number,
                packets: packets.clone(),
                epoch: fresh.map(|(epoch, _)| epoch),
            }),
        };
        let done = Done::PacketsSet {
            group: number,
            packets,
            fresh,
        };
        Ok((batch, done))
    }

    pub(super) fn set_addresses(
        &self,
        number: TerminalNumber,
        wish: AddressWish,
        by: By,
    ) -> Prepared {
        let terminal = self.trusted_terminal(number)?;
        let held = terminal.addresses.clone();
        let mut endpoints = Vec::new();
        for endpoint in wish.endpoints.unwrap_or(held.endpoints) {
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        let addresses = Addresses {
            prefixes: wish.prefixes.map_or(held.prefixes, in_order),
            endpoints,
        };
        addresses.check(number)?;
        let outcome = addresses.to_string();
        let batch = Batch {
            changes: vec![Change::Addresses {
                terminal: number,
                addresses: addresses.clone(),
            }],
            audit: Some(self.audit(by, "terminal set", &terminal.name, outcome)),
            journal: Some(JournalEntry::Addresses {
                terminal: number,
                addresses: addresses.clone(),
            }),
        };
        let done = Done::AddressesSet {
            terminal: number,
            addresses,
        };
        Ok((batch, done))
    }
}

/// As a record has them.
fn in_order(mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
    prefixes.sort_unstable();
    prefixes.dedup();
    prefixes
}
