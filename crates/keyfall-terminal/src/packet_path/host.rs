//! What the system is told: addresses, routes and rules. By the program `ip`, which every system with
//! such interfaces has; what it is told goes with the interface, but for a gateway's rules, which are
//! taken back.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use keyfall_protocol::command::{Prefix, ProtectionRecord};

use crate::packet_path::PacketOptions;
use crate::packet_path::membership::Memberships;
use crate::packet_path::wire::MARK;

/// Interfaces and rules of one packet path.
pub(crate) struct Host {
    tun: String,
    gateway: Option<Gateway>,
    addresses: Vec<Prefix>,
    routes: Vec<Prefix>,
    /// Rules that were made, to be taken back.
    rules: Rules,
    memberships: Memberships,
}

/// Rules that are taken back when they are dropped.
#[derive(Default)]
struct Rules(Vec<Vec<String>>);

/// Between which interfaces a gateway stands.
struct Gateway {
    inside: String,
    outside: String,
    port: u16,
    /// What the rules are for: own prefixes, and those of the clear list.
    made_for: Option<(Vec<Prefix>, Vec<Prefix>)>,
    rules: Rules,
    /// Switches of the kernel as they were.
    switches: Vec<(String, String)>,
}

/// Why the system was not set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    #[error("`ip {arguments}` could not be run: {source}; install iproute2")]
    NoProgram {
        arguments: String,
        source: std::io::Error,
    },
    #[error("`ip {arguments}` was refused: {answer}")]
    Refused { arguments: String, answer: String },
    #[error("the multicast of a group's networks could not be joined: {0}")]
    Multicast(#[source] std::io::Error),
    #[error("{path} could not be written: {source}")]
    Switch {
        path: String,
        source: std::io::Error,
    },
}

impl Host {
    /// Brings the interface up.
    pub(crate) fn set_up(tun: &str, port: u16, options: &PacketOptions) -> Result<Self, HostError> {
        let mut host = Self {
            tun: tun.to_owned(),
            gateway: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            rules: Rules::default(),
            memberships: Memberships::new(options.outside.as_deref().and_then(index_of)),
        };
        // It speaks for the record's addresses alone: no link-local one, no router solicitations.
        ip(&["link", "set", "dev", tun, "addrgenmode", "none"])?;
        ip(&["link", "set", "dev", tun, "up"])?;
        if let (Some(inside), Some(outside)) = (&options.gateway, &options.outside) {
            let mut gateway = Gateway {
                inside: inside.clone(),
                outside: outside.clone(),
                port,
                made_for: None,
                rules: Rules::default(),
                switches: Vec::new(),
            };
            gateway.forward(tun)?;
            host.gateway = Some(gateway);
        } else {
            // Of a process that was killed.
            forget_rules(OWN_RULES);
            let mark = MARK.to_string();
            for family in families() {
                let others = ["not", "fwmark", &mark, "lookup", TABLE];
                host.rules.add(family, "4504", &others)?;
            }
        }
        Ok(host)
    }

    /// As the record and the clear list say now. `peers`: for which addresses others speak.
    pub(crate) fn apply(
        &mut self,
        record: &ProtectionRecord,
        clear: &[Prefix],
        peers: &[Prefix],
    ) -> Result<(), HostError> {
        self.memberships
            .apply(record)
            .map_err(HostError::Multicast)?;
        if let Some(gateway) = &mut self.gateway {
            return gateway.apply(&self.tun, &record.prefixes, clear);
        }
        let tun = self.tun.clone();
        let addresses = record.prefixes.clone();
        for gone in self.addresses.iter().filter(|it| !addresses.contains(it)) {
            ip(&["address", "del", &gone.to_string(), "dev", &tun])?;
        }
        for new in addresses.iter().filter(|it| !self.addresses.contains(it)) {
            let text = new.to_string();
            let mut arguments = vec!["address", "replace", &text, "dev", &tun];
            if new.address().is_ipv6() {
                arguments.push("nodad");
            }
            ip(&arguments)?;
        }
        let mut routes: Vec<Prefix> = Vec::new();
        for group in &record.groups {
            // Without networks of its own a group leads to its members' addresses.
            let networks = if group.networks.is_empty() {
                peers
            } else {
                &group.networks
            };
            routes.extend(networks);
        }
        routes.retain(|route| !clear.contains(route) && !addresses.contains(route));
        routes.sort_unstable();
        routes.dedup();
        for gone in self.routes.iter().filter(|it| !routes.contains(it)) {
            let gone = gone.to_string();
            ip(&["route", "del", &gone, "dev", &tun, "table", TABLE])?;
        }
        for new in routes.iter().filter(|it| !self.routes.contains(it)) {
            let own = addresses
                .iter()
                .find(|it| it.address().is_ipv4() == new.address().is_ipv4());
            let Some(own) = own.map(Prefix::address) else {
                continue;
            };
            let (route, own) = (new.to_string(), own.to_string());
            let way = ["dev", &tun, "src", &own, "table", TABLE];
            ip(&[&["route", "replace", &route][..], &way].concat())?;
        }
        (self.addresses, self.routes) = (addresses, routes);
        Ok(())
    }
}

/// SECURITY: closes a gateway before anything is known: nothing crosses it but what the rules of
/// [`Host::apply`] say, which come first. It stays closed when this program ends, however that is
/// (KR-545).
pub(crate) fn close_gateway(inside: &str, outside: &str) -> Result<(), HostError> {
    // Of a process that was killed.
    forget_rules(OWN_RULES);
    forget_rules(CLOSED);
    for family in families() {
        for (preference, interface) in CLOSED.iter().zip([inside, outside]) {
            let closed = ["iif", interface, "blackhole"];
            ip(&[&[family, "rule", "add", "pref", preference][..], &closed].concat())?;
        }
    }
    Ok(())
}

fn forget_rules(preferences: &[&str]) {
    for family in families() {
        for preference in preferences {
            while ip(&[family, "rule", "del", "pref", preference]).is_ok() {}
        }
    }
}

impl Rules {
    fn add(&mut self, family: &str, preference: &str, what: &[&str]) -> Result<(), HostError> {
        let head = [family, "rule", "add", "pref", preference];
        ip(&[&head[..], what].concat())?;
        let back = [family, "rule", "del", "pref", preference];
        let back = back.iter().chain(what).map(|&it| it.to_owned());
        self.0.push(back.collect());
        Ok(())
    }

    fn take_back(&mut self) {
        for rule in self.0.drain(..).rev() {
            let arguments: Vec<_> = rule.iter().map(String::as_str).collect();
            if let Err(error) = ip(&arguments) {
                tracing::warn!(%error, "a rule is left");
            }
        }
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        self.take_back();
    }
}

fn families() -> impl Iterator<Item = &'static str> {
    let v6 = fs::exists("/proc/sys/net/ipv6").unwrap_or(false);
    ["-4", "-6"].into_iter().take(if v6 { 2 } else { 1 })
}

impl Gateway {
    fn forward(&mut self, tun: &str) -> Result<(), HostError> {
        self.switch("/proc/sys/net/ipv4/ip_forward", "1")?;
        if fs::exists("/proc/sys/net/ipv6/conf/all/forwarding").unwrap_or(false) {
            self.switch("/proc/sys/net/ipv6/conf/all/forwarding", "1")?;
        }
        // What comes out of the tunnel has sources that the main table looks for outside.
        self.switch(&format!("/proc/sys/net/ipv4/conf/{tun}/rp_filter"), "2")
    }

    /// SECURITY: what comes from inside goes into the tunnel, or as it is to where the root's clear list
    /// says; the kernel has no other route for it. What comes from outside in clear for a host that is
    /// protected goes nowhere (KR-545).
    fn apply(&mut self, tun: &str, own: &[Prefix], clear: &[Prefix]) -> Result<(), HostError> {
        let made_for = (own.to_vec(), clear.to_vec());
        if self.made_for.as_ref() == Some(&made_for) {
            return Ok(());
        }
        self.made_for = None;
        self.rules.take_back();
        let (inside, outside) = (self.inside.clone(), self.outside.clone());
        let port = self.port.to_string();
        for family in families() {
            let tunnel = [family, "route", "replace", "default", "dev", tun, "table"];
            let local = [family, "route", "replace", "local", "default", "dev", "lo"];
            let v6 = family == "-6";
            ip(&[&tunnel[..], &[TABLE]].concat())?;
            ip(&[&local[..], &["table", LOCAL_TABLE]].concat())?;
            let of_family = |it: &&Prefix| it.address().is_ipv6() == v6;
            for prefix in own.iter().filter(of_family).map(Prefix::to_string) {
                let asked = ["ipproto", "udp", "dport", &port, "lookup", LOCAL_TABLE];
                let from_outside = ["iif", &outside, "to", &prefix];
                self.rules
                    .add(family, "4500", &[&from_outside[..], &asked].concat())?;
                self.rules.add(
                    family,
                    "4501",
                    &[&from_outside[..], &["blackhole"]].concat(),
                )?;
                for from in [&*inside, "lo"] {
                    self.rules.add(
                        family,
                        "4502",
                        &["iif", from, "to", &prefix, "lookup", "main"],
                    )?;
                }
                // This machine's own words under a protected address, as errors about the path.
                let own_words = ["iif", "lo", "from", &prefix, "lookup", TABLE];
                self.rules.add(family, "4505", &own_words)?;
            }
            for prefix in clear.iter().filter(of_family).map(Prefix::to_string) {
                for from in [&*inside, "lo"] {
                    let clear = ["iif", from, "to", &prefix, "lookup", "main"];
                    self.rules.add(family, "4503", &clear)?;
                }
            }
            self.rules
                .add(family, "4504", &["iif", &inside, "lookup", TABLE])?;
        }
        self.made_for = Some(made_for);
        Ok(())
    }

    fn switch(&mut self, path: &str, value: &str) -> Result<(), HostError> {
        let fault = |source| HostError::Switch {
            path: path.to_owned(),
            source,
        };
        let before = fs::read_to_string(path).map_err(fault)?;
        if before.trim() != value {
            fs::write(path, value).map_err(fault)?;
            self.switches.push((path.to_owned(), before));
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        for family in families() {
            drop(ip(&[family, "route", "flush", "table", LOCAL_TABLE]));
        }
        for (path, before) in self.switches.drain(..).rev() {
            // The interface's own went with it.
            drop(fs::write(path, before));
        }
    }
}

/// Octets of the longest inner packet whose datagram fits an underlay of so many.
pub(crate) fn inner_mtu(underlay: u16, v6: bool) -> u16 {
    let outer = if v6 { 40 + 8 } else { 20 + 8 };
    // SPI, sequence number, IV; ICV. Text, padding and its two octets fill words of four.
    let text = underlay.saturating_sub(outer + 16 + 16) / 4 * 4;
    text.saturating_sub(2)
}

/// The MTU of an interface.
pub(crate) fn mtu_of(interface: &str) -> Option<u16> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/mtu")).ok()?;
    text.trim().parse().ok()
}

/// The number of an interface.
pub(crate) fn index_of(interface: &str) -> Option<u32> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?;
    text.trim().parse().ok()
}

/// Whether the prefixes need IPv6's least MTU.
pub(crate) fn has_v6(prefixes: &[Prefix]) -> bool {
    prefixes
        .iter()
        .any(|it| matches!(it.address(), IpAddr::V6(_)))
}

fn ip(arguments: &[&str]) -> Result<(), HostError> {
    let text = || arguments.join(" ");
    let outcome = Command::new("ip").args(arguments).output();
    let outcome = outcome.map_err(|source| HostError::NoProgram {
        arguments: text(),
        source,
    })?;
    if outcome.status.success() {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&outcome.stderr);
    Err(HostError::Refused {
        arguments: text(),
        answer: answer.trim().to_owned(),
    })
}

/// Everything into the tunnel.
const TABLE: &str = "4500";
/// Probes for protected addresses are for this machine.
const LOCAL_TABLE: &str = "4501";
/// Preferences of the rules that go with this program.
const OWN_RULES: &[&str] = &["4500", "4501", "4502", "4503", "4504", "4505"];
/// Of those that stay.
const CLOSED: &[&str] = &["4510", "4511"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_with_the_longest_inner_packet_fills_the_underlay() {
        for (underlay, v6) in [(1_500, false), (1_500, true), (9_000, false), (1_280, true)] {
            let outer = if v6 { 48 } else { 28 };
            let inner = inner_mtu(underlay, v6);
            let longest = keyfall_plane::esp_len(usize::from(inner)) + outer;
            let longer = keyfall_plane::esp_len(usize::from(inner) + 1) + outer;
            assert!(longest <= usize::from(underlay) && longer > usize::from(underlay));
        }
        assert_eq!(inner_mtu(1_500, false), 1_438);
        assert_eq!(inner_mtu(1_500, true), 1_418);
    }
}
