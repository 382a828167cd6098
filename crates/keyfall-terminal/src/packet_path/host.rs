//! What the system is told: addresses, routes and rules. By the program `ip`, which every system with
//! such interfaces has; what it is told goes with the interface, but for a gateway's rules, which are
//! taken back.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;

use keyfall_protocol::command::{Prefix, ProtectionRecord};
use rustix::net::sockopt::{ip_mtu, ipv6_mtu};

use crate::packet_path::PacketOptions;
use crate::packet_path::membership::Memberships;
use crate::packet_path::multicast::{self, MulticastRelay};
use crate::packet_path::unprotected::{self, From, Unprotected};
use crate::packet_path::wire::{MARK, PORT, mark};

/// Interfaces and rules of one packet path.
pub(crate) struct Host {
    tun: String,
    gateway: Option<Gateway>,
    /// That the system took, as the routes.
    addresses: Vec<Prefix>,
    routes: Vec<Prefix>,
    /// An address or a route was refused.
    incomplete: bool,
    /// Rules that were made, to be taken back.
    rules: Rules,
    memberships: Memberships,
    unprotected: Unprotected,
    outside: Option<String>,
}

/// What the system refused, in sentences.
#[derive(Default)]
struct Refused(Vec<String>);

/// Rules that are taken back when they are dropped.
#[derive(Default)]
struct Rules(Vec<Vec<String>>);

/// Between which interfaces a gateway stands.
struct Gateway {
    inside: String,
    outside: String,
    port: u16,
    rules: Rules,
    /// While a group names multicast.
    multicast: Option<MulticastRelay>,
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
    #[error("the multicast {0} of a group could not be joined: {1}")]
    Multicast(IpAddr, #[source] std::io::Error),
    #[error(
        "unprotected packets come in for protected addresses of this machine: {0}; install nftables, \
         or close them yourself"
    )]
    Unprotected(String),
    #[error(
        "multicast is not passed on between the segment and the tunnel: {0}; it needs CAP_NET_RAW \
         besides CAP_NET_ADMIN"
    )]
    Segment(#[source] std::io::Error),
    #[error("{path} could not be written: {source}")]
    Switch {
        path: String,
        source: std::io::Error,
    },
}

impl Host {
    /// Brings the interface up.
    pub(crate) fn set_up(tun: &str, port: u16, options: &PacketOptions) -> Result<Self, HostError> {
        let from = match (&options.gateway, &options.outside) {
            (Some(_), Some(outside)) => From::Outside(outside.clone()),
            (_, _) => From::AllBut(tun.to_owned()),
        };
        let mut host = Self {
            tun: tun.to_owned(),
            gateway: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            incomplete: false,
            rules: Rules::default(),
            memberships: Memberships::new(options.outside.as_deref().and_then(index_of)),
            unprotected: Unprotected::new(from, port),
            outside: options.outside.clone(),
        };
        if options.gateway.is_some() {
            // SECURITY: before a packet can come out of it; only own prefixes come first (KR-545).
            for family in families() {
                add_rule(&rule(family, CLOSED_TUN, &["iif", tun, "blackhole"]))?;
            }
        }
        // It speaks for the record's addresses alone: no link-local one, no router solicitations.
        ip(&["link", "set", "dev", tun, "addrgenmode", "none"])?;
        ip(&["link", "set", "dev", tun, "txqueuelen", QUEUE])?;
        ip(&["link", "set", "dev", tun, "up"])?;
        if let (Some(inside), Some(outside)) = (&options.gateway, &options.outside) {
            let mut gateway = Gateway {
                inside: inside.clone(),
                outside: outside.clone(),
                port,
                rules: Rules::default(),
                multicast: None,
                switches: Vec::new(),
            };
            gateway.forward(tun)?;
            host.gateway = Some(gateway);
        } else {
            // Of a process that was killed.
            forget_rules(OWN_RULES);
        }
        Ok(host)
    }

    /// As the record and the clear list say now: first what closes, and what the system refuses stops
    /// nothing else. What it refused, in sentences; not all of it where that is much.
    pub(crate) fn apply(&mut self, record: &ProtectionRecord, clear: &[Prefix]) -> Vec<String> {
        let mut refused = Refused::default();
        let underlay = underlay(self.outside.as_deref(), Some(&self.tun));
        refused.note(self.unprotected.apply(record, clear, &underlay));
        match &mut self.gateway {
            Some(gateway) => gateway.apply(&self.tun, &record.prefixes, clear, &mut refused),
            None => self.apply_to_host(record, clear, &mut refused),
        }
        let joined = self.memberships.apply(record);
        refused.note(joined.map_err(|(group, why)| HostError::Multicast(group, why)));
        if let Some(gateway) = &mut self.gateway {
            refused.note(gateway.pass_multicast(&self.tun, record));
        }
        refused.0
    }

    fn apply_to_host(
        &mut self,
        record: &ProtectionRecord,
        clear: &[Prefix],
        refused: &mut Refused,
    ) {
        let mut routes = networks(record);
        routes.sort_unstable();
        routes.dedup();
        close_networks(&routes, refused);
        forget_closed(CLOSED_NETWORK, |shown| {
            routes
                .iter()
                .any(|it| is_shown(shown, "to", &it.to_string()))
        });
        self.rules.become_these(host_rules(clear), refused);
        routes.retain(|route| !record.prefixes.contains(route));
        self.put_on_tun(&record.prefixes, &routes, refused);
    }

    /// What is there is not told again, since each takes a process; but where one was refused before the
    /// interface may have been down, and then routes are gone.
    fn put_on_tun(&mut self, addresses: &[Prefix], routes: &[Prefix], refused: &mut Refused) {
        let tun = &*self.tun;
        let all = std::mem::take(&mut self.incomplete);
        for gone in self.addresses.iter().filter(|it| !addresses.contains(it)) {
            undo(&["address", "del", &gone.to_string(), "dev", tun]);
        }
        self.addresses.retain(|it| addresses.contains(it));
        for new in addresses {
            let is_there = self.addresses.contains(new);
            if is_there && !all {
                continue;
            }
            let taken = refused.note(add_address(tun, new));
            self.incomplete |= !taken;
            if taken && !is_there {
                self.addresses.push(*new);
            }
        }
        for gone in self.routes.iter().filter(|it| !routes.contains(it)) {
            let (kind, table) = match is_multicast_v6(gone) {
                true => ("multicast", "local"),
                false => ("unicast", TABLE),
            };
            let gone = gone.to_string();
            undo(&["route", "del", kind, &gone, "dev", tun, "table", table]);
        }
        self.routes.retain(|it| routes.contains(it));
        for new in routes {
            let is_there = self.routes.contains(new);
            if is_there && !all {
                continue;
            }
            let taken = refused.note(add_route(tun, new, addresses));
            self.incomplete |= !taken;
            if taken && !is_there {
                self.routes.push(*new);
            }
        }
    }
}

fn add_address(tun: &str, address: &Prefix) -> Result<(), HostError> {
    let text = address.to_string();
    let mut arguments = vec!["address", "replace", &text, "dev", tun];
    if address.address().is_ipv6() {
        arguments.push("nodad");
    }
    ip(&arguments).map(drop)
}

/// What goes to a network of a group goes by the tunnel.
fn add_route(tun: &str, network: &Prefix, addresses: &[Prefix]) -> Result<(), HostError> {
    let to = network.to_string();
    if is_multicast_v6(network) {
        // The kernel's own route for all multicast of IPv6 comes before every other table.
        let route = ["route", "replace", "multicast", &to];
        let way = ["dev", tun, "table", "local"];
        return ip(&[&route[..], &way].concat()).map(drop);
    }
    let own = addresses
        .iter()
        .find(|it| it.address().is_ipv4() == network.address().is_ipv4());
    let Some(own) = own.map(|own| own.address().to_string()) else {
        // No packet of this host could go there protected; the rule of the network drops it.
        return Ok(());
    };
    // Linux keeps what it worked out for a route with all routes that are like it but for the
    // destination: unicast would go with the one hop of multicast.
    let metric = if network.address().is_multicast() {
        "2"
    } else {
        "1"
    };
    let way = ["dev", tun, "src", &own, "table", TABLE, "metric", metric];
    ip(&[&["route", "replace", &to][..], &way].concat()).map(drop)
}

/// The addresses of this machine outside; where it was not said what that is, of all interfaces but the
/// tunnel.
fn underlay(outside: Option<&str>, tun: Option<&str>) -> Vec<IpAddr> {
    let of = addressed(outside).into_iter();
    let outside = of.filter(|(device, ..)| Some(&**device) != tun && device != "lo");
    outside.map(|(_, address, _)| address).collect()
}

/// SECURITY: closes a gateway before anything is known: nothing crosses it but what the rules of
/// [`Host::apply`] say, which come first. It stays closed when this program ends, however that is, and
/// is never open while it starts again (KR-545).
///
/// # Errors
/// What the system refused first.
pub(crate) fn close_gateway(inside: &str, outside: &str) -> Result<(), HostError> {
    for family in families() {
        for (preference, interface) in CLOSED.iter().zip([inside, outside]) {
            add_rule(&rule(family, preference, &["iif", interface, "blackhole"]))?;
        }
    }
    for (preference, interface) in CLOSED.iter().zip([inside, outside]) {
        forget_closed(preference, |shown| is_shown(shown, "iif", interface));
    }
    // Of a process that was killed.
    forget_rules(OWN_RULES);
    let rules = CLOSED.join(" ");
    tracing::info!(
        "the gateway is closed and stays so when this program ends; then `for it in {rules} \
         {CLOSED_TUN}; do ip rule del pref $it; ip -6 rule del pref $it; done; nft delete table inet \
         {}` makes the machine a router again",
        unprotected::TABLE
    );
    Ok(())
}

/// SECURITY: closes this machine to unprotected packets before it has keys: in a gateway, whose own
/// protected addresses are there at any time (KR-561); in a host, to what goes to a network of its groups,
/// which goes into the tunnel by rules that come first, or nowhere, also when this program has ended
/// (KR-545).
///
/// What the system refused, in sentences.
pub(crate) fn close(
    options: &PacketOptions,
    record: &ProtectionRecord,
    clear: &[Prefix],
) -> Vec<String> {
    let mut refused = Refused::default();
    if let (Some(_), Some(outside)) = (&options.gateway, &options.outside) {
        let port = options.listen.map_or(PORT, |listen| listen.port());
        let underlay = underlay(Some(outside), None);
        let mut table = Unprotected::new(From::Outside(outside.clone()), port);
        refused.note(table.apply(record, clear, &underlay));
    } else {
        close_networks(&networks(record), &mut refused);
    }
    refused.0
}

/// Nothing is protected here any more: everything was erased on order.
pub(crate) fn open_host() {
    forget_rules(&[CLOSED_NETWORK, OWN_WORDS]);
}

fn networks(record: &ProtectionRecord) -> Vec<Prefix> {
    let groups = record.groups.iter();
    groups.flat_map(|group| &group.networks).copied().collect()
}

fn close_networks(networks: &[Prefix], refused: &mut Refused) {
    let mark = MARK.to_string();
    for family in families() {
        // What this program sends itself goes outside, also to an address in a network. (A rule with
        // "not" would turn all of its conditions around, not one.)
        let own = ["fwmark", &mark, "lookup", "main"];
        refused.note(add_rule(&rule(family, OWN_WORDS, &own)));
        for network in networks.iter().filter(|it| is_of(family, it)) {
            let closed = ["to", &network.to_string(), "blackhole"];
            refused.note(add_rule(&rule(family, CLOSED_NETWORK, &closed)));
        }
    }
}

fn host_rules(clear: &[Prefix]) -> Vec<Rule> {
    let mark = MARK.to_string();
    let mut rules = Vec::new();
    for family in families() {
        for prefix in clear.iter().filter(|it| is_of(family, it)) {
            let to = ["to", &prefix.to_string(), "lookup", "main"];
            rules.push(rule(family, CLEAR_LIST, &to));
        }
        let others = ["not", "fwmark", &mark, "lookup", TABLE];
        rules.push(rule(family, "4504", &others));
    }
    rules
}

fn is_multicast_v6(prefix: &Prefix) -> bool {
    prefix.address().is_ipv6() && prefix.address().is_multicast()
}

fn is_of(family: &str, prefix: &Prefix) -> bool {
    prefix.address().is_ipv6() == (family == "-6")
}

fn forget_rules(preferences: &[&str]) {
    for family in families() {
        for preference in preferences {
            while ip(&[family, "rule", "del", "pref", preference]).is_ok() {}
        }
    }
}

/// Takes rules away that an earlier process left, but for those that `stays` says.
fn forget_closed(preference: &str, stays: impl Fn(&str) -> bool) {
    for family in families() {
        let shown = ip(&[family, "rule", "show", "pref", preference]).unwrap_or_default();
        for line in shown.lines().filter(|line| !stays(line)) {
            for key in ["iif", "to"] {
                if let Some(value) = value_of(line, key) {
                    undo(&[family, "rule", "del", "pref", preference, key, value]);
                }
            }
        }
    }
}

fn value_of<'a>(shown: &'a str, key: &str) -> Option<&'a str> {
    shown.split_whitespace().skip_while(|&it| it != key).nth(1)
}

/// Whether a rule that `ip` shows is for this; it shows hosts without their length.
fn is_shown(shown: &str, key: &str, value: &str) -> bool {
    let host = |text: &str| {
        let end = if text.contains(':') { "/128" } else { "/32" };
        text.strip_suffix(end).unwrap_or(text).to_owned()
    };
    value_of(shown, key).is_some_and(|it| host(it) == host(value))
}

/// The family of addresses, the preference, and what the rule says.
type Rule = Vec<String>;

fn rule(family: &str, preference: &str, what: &[&str]) -> Rule {
    let words = [&[family, preference][..], what].concat();
    words.into_iter().map(str::to_owned).collect()
}

fn rule_words<'a>(rule: &'a Rule, verb: &'a str) -> Vec<&'a str> {
    let mut words: Vec<_> = rule.iter().map(String::as_str).collect();
    words.splice(1..1, ["rule", verb, "pref"]);
    words
}

/// A rule that is there is as good as a new one.
fn add_rule(rule: &Rule) -> Result<(), HostError> {
    match ip(&rule_words(rule, "add")) {
        Err(HostError::Refused { answer, .. }) if answer.contains("File exists") => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// What is to go may be gone.
fn undo(arguments: &[&str]) {
    if let Err(error) = ip(arguments) {
        tracing::debug!(%error, "there was nothing to take back");
    }
}

impl Refused {
    /// Whether it was taken.
    fn note<T>(&mut self, outcome: Result<T, HostError>) -> bool {
        if let Err(error) = &outcome
            && self.0.len() < TOLD_MAX
        {
            self.0.push(error.to_string());
        }
        outcome.is_ok()
    }
}

impl Rules {
    /// New ones first, and old ones go when all of these are there: no rule is ever missing between.
    /// SECURITY: but what the clear list no longer says goes at once.
    fn become_these(&mut self, wanted: Vec<Rule>, refused: &mut Refused) {
        let mut all = true;
        for new in &wanted {
            if self.0.contains(new) {
                continue;
            }
            if refused.note(add_rule(new)) {
                self.0.push(new.clone());
            } else {
                all = false;
            }
        }
        self.0.retain(|it| {
            let opens = it.get(1).is_some_and(|it| it == CLEAR_LIST);
            let stays = wanted.contains(it) || !all && !opens;
            if !stays {
                undo(&rule_words(it, "del"));
            }
            stays
        });
    }

    fn take_back(&mut self) {
        for rule in self.0.drain(..).rev() {
            undo(&rule_words(&rule, "del"));
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
    fn apply(&mut self, tun: &str, own: &[Prefix], clear: &[Prefix], refused: &mut Refused) {
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

    fn pass_multicast(&mut self, tun: &str, record: &ProtectionRecord) -> Result<(), HostError> {
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

/// The addresses of this machine.
pub(crate) fn own_addresses() -> Vec<IpAddr> {
    let every = addressed(None).into_iter();
    every.map(|(_, address, _)| address).collect()
}

/// Octets of the longest datagram that goes there in one piece, IP's header with it, as far as the
/// system knows.
pub(crate) fn path_mtu(to: SocketAddr) -> Option<u32> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    mark(&socket);
    socket.connect(to).ok()?;
    match to {
        SocketAddr::V4(_) => ip_mtu(&socket).ok(),
        SocketAddr::V6(_) => ipv6_mtu(&socket).ok(),
    }
}

/// The subnets of an interface.
fn attached(interface: &str) -> Vec<Prefix> {
    let of = addressed(Some(interface)).into_iter();
    of.filter_map(|(_, address, length)| Prefix::around(address, length))
        .collect()
}

/// Addresses of an interface, or of all, with the interface and the length of the subnet.
fn addressed(interface: Option<&str>) -> Vec<(String, IpAddr, u8)> {
    let mut arguments = vec!["-o", "address", "show"];
    arguments.extend(interface.iter().flat_map(|it| ["dev", it]));
    let shown = ip(&arguments).unwrap_or_default();
    let read = |line: &str| {
        let device = line.split_whitespace().nth(1)?;
        let (address, length) = value_of(line, "inet")
            .or_else(|| value_of(line, "inet6"))?
            .split_once('/')?;
        Some((
            device.to_owned(),
            address.parse().ok()?,
            length.parse().ok()?,
        ))
    };
    shown.lines().filter_map(read).collect()
}

/// What it prints.
fn ip(arguments: &[&str]) -> Result<String, HostError> {
    let text = || arguments.join(" ");
    let outcome = Command::new("ip").args(arguments).output();
    let outcome = outcome.map_err(|source| HostError::NoProgram {
        arguments: text(),
        source,
    })?;
    if outcome.status.success() {
        return Ok(String::from_utf8_lossy(&outcome.stdout).into_owned());
    }
    let answer = String::from_utf8_lossy(&outcome.stderr);
    Err(HostError::Refused {
        arguments: text(),
        answer: answer.trim().to_owned(),
    })
}

/// Packets that wait for the thread that sends: a moment in which the machine does something else, as 80
/// ms at 50,000 a second. (The system's own 500 are 10 ms.)
const QUEUE: &str = "4000";
/// Sentences about what was refused; with more nobody sees the first.
const TOLD_MAX: usize = 4;
/// Everything into the tunnel.
const TABLE: &str = "4500";
/// Probes for protected addresses are for this machine.
const LOCAL_TABLE: &str = "4501";
/// Preferences of the rules that go with this program.
const OWN_RULES: &[&str] = &[
    "4499", "4500", "4501", "4502", CLEAR_LIST, "4504", "4505", "4506",
];
/// As it is to where the root says.
const CLEAR_LIST: &str = "4503";
/// Of those of a gateway that stay: from inside, from outside, out of the tunnel.
const CLOSED: &[&str] = &["4510", "4511"];
const CLOSED_TUN: &str = "4512";
/// Of those of a host that stay: what this program sends itself, and networks of its groups.
const OWN_WORDS: &str = "4509";
const CLOSED_NETWORK: &str = "4513";

#[cfg(test)]
mod tests {
    use std::slice;

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

    /// KR-578, KR-545: rules that no system takes.
    #[test]
    fn old_rules_stay_until_all_new_ones_are_taken_but_for_the_clear_list() {
        let none = |preference, what| rule("-4", preference, &["to", what, "nowhere"]);
        let [old, clear] = [none("4502", "old"), none(CLEAR_LIST, "old")];
        let mut rules = Rules(vec![old.clone(), clear.clone()]);
        let mut refused = Refused::default();
        rules.become_these(vec![clear.clone(), none("4502", "new")], &mut refused);
        assert_eq!(rules.0, [old.clone(), clear]);
        assert_eq!(refused.0.len(), 1);
        rules.become_these(vec![none("4502", "new")], &mut refused);
        assert_eq!(rules.0, slice::from_ref(&old));
        rules.become_these(vec![old.clone()], &mut refused);
        assert_eq!(rules.0, [old]);
        rules.become_these(Vec::new(), &mut refused);
        assert!(rules.0.is_empty() && refused.0.len() == 2);
    }

    /// KR-578: what was refused elsewhere, as by nftables, makes nothing of this new; where one of these
    /// was, the interface may have been down and the others are gone.
    #[test]
    fn addresses_and_routes_are_told_again_where_one_was_refused() {
        let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
        let addresses = ["10.0.0.1/32", "10.0.0.2/32"].map(prefix);
        let routes = ["10.1.0.0/16", "10.2.0.0/16"].map(prefix);
        let mut host = Host {
            // All that is told is refused.
            tun: "no-such-tun-here-at-all".to_owned(),
            gateway: None,
            addresses: addresses[..1].to_vec(),
            routes: routes[..1].to_vec(),
            incomplete: false,
            rules: Rules::default(),
            memberships: Memberships::new(None),
            unprotected: Unprotected::new(From::AllBut("none".to_owned()), PORT),
            outside: None,
        };
        let mut told = |count: usize| {
            let mut refused = Refused::default();
            host.put_on_tun(&addresses[..count], &routes[..count], &mut refused);
            assert_eq!(
                (&*host.addresses, &*host.routes),
                (&addresses[..1], &routes[..1])
            );
            refused.0.len()
        };
        assert_eq!([told(1), told(2), told(2), told(1)], [0, 2, 4, 2]);
    }
}
