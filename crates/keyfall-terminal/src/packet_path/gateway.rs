//! The system of a gateway: what crosses it, and which way.

use std::fs;

use keyfall_protocol::command::{Prefix, ProtectionRecord};

use crate::packet_path::ip::{HostError, Refused, attached, families, ip, is_of};
use crate::packet_path::multicast::{self, MulticastRelay};
use crate::packet_path::rules::{CLEAR_LIST, Rules, TABLE, rule};
use crate::packet_path::wire::MARK;

/// Between which interfaces a gateway stands.
pub(super) struct Gateway {
    inside: String,
    outside: String,
    port: u16,
    rules: Rules,
    /// While a group names multicast.
    multicast: Option<MulticastRelay>,
    /// Switches of the kernel as they were.
    switches: Vec<(String, String)>,
}

impl Gateway {
    pub(super) fn new(inside: &str, outside: &str, port: u16) -> Self {
        Self {
            inside: inside.to_owned(),
            outside: outside.to_owned(),
            port,
            rules: Rules::default(),
            multicast: None,
            switches: Vec::new(),
        }
    }

    pub(super) fn forward(&mut self, tun: &str) -> Result<(), HostError> {
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
    pub(super) fn apply(
        &mut self,
        tun: &str,
        own: &[Prefix],
        clear: &[Prefix],
        refused: &mut Refused,
    ) {
        let port = self.port.to_string();
        let mark = MARK.to_string();
        let attached = attached(&self.inside);
        let mut rules = Vec::new();
        for family in families() {
            let mut add = |preference, what: &[&str]| rules.push(rule(family, preference, what));
            // What this program sends itself goes by the outside, under whatever address.
            add("4499", &["iif", "lo", "fwmark", &mark, "lookup", "main"]);
            for own in own.iter().filter(|it| is_of(family, it)) {
                let prefix = own.to_string();
                let from_outside = ["iif", &self.outside, "to", &prefix];
                let asked = ["ipproto", "udp", "dport", &port, "lookup", LOCAL_TABLE];
                add("4500", &[&from_outside[..], &asked].concat());
                add("4501", &[&from_outside[..], &["blackhole"]].concat());
                // SECURITY: by a route to inside alone, not by one that leads anywhere.
                let around = attached.iter().filter(|it| it.contains(own.address()));
                let shortest = around.map(Prefix::length).chain([own.length()]).min();
                let too_short = shortest.unwrap_or(0).saturating_sub(1).to_string();
                let inside = ["lookup", "main", "suppress_prefixlength", &too_short];
                for from in [tun, &*self.inside, "lo"] {
                    let to = ["iif", from, "to", &prefix];
                    add("4502", &[&to[..], &inside].concat());
                }
                // This machine's own words under a protected address, as errors about the path.
                add("4505", &["iif", "lo", "from", &prefix, "lookup", TABLE]);
                add("4506", &["iif", "lo", "to", &prefix, "blackhole"]);
            }
            for prefix in clear.iter().filter(|it| is_of(family, it)) {
                for from in [&*self.inside, "lo"] {
                    let to = ["iif", from, "to", &prefix.to_string(), "lookup", "main"];
                    add(CLEAR_LIST, &to);
                }
            }
            add("4504", &["iif", &self.inside, "lookup", TABLE]);
        }
        self.rules.become_these(rules, refused);
        for family in families() {
            let tunnel = [family, "route", "replace", "default", "dev", tun, "table"];
            let local = [family, "route", "replace", "local", "default", "dev", "lo"];
            refused.note(ip(&[&tunnel[..], &[TABLE]].concat()));
            refused.note(ip(&[&local[..], &["table", LOCAL_TABLE]].concat()));
        }
    }

    pub(super) fn pass_multicast(
        &mut self,
        tun: &str,
        record: &ProtectionRecord,
    ) -> Result<(), HostError> {
        if multicast::networks(record).is_empty() {
            self.multicast = None;
            return Ok(());
        }
        let relay = match &mut self.multicast {
            Some(relay) => relay,
            none => {
                let relay = MulticastRelay::start(&self.inside, tun);
                none.insert(relay.map_err(HostError::Segment)?)
            }
        };
        let joined = relay.apply(record);
        joined.map_err(|(group, why)| HostError::Multicast(group, why))
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

/// Probes for protected addresses are for this machine.
const LOCAL_TABLE: &str = "4501";
