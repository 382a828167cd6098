//! What the system is told: addresses, routes and rules. By the program `ip`, which every system with
//! such interfaces has; what it is told goes with the interface, but for a gateway's rules, which are
//! taken back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::{fs, io};

use keyfall_protocol::command::{Prefix, ProtectionRecord};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{ip_mtu, ipv6_mtu};
use rustix::net::{
    AddressFamily, RecvFlags, SocketFlags, SocketType, bind, connect_unspec, recv, socket_with,
};

use crate::packet_path::PacketOptions;
use crate::packet_path::gateway::Gateway;
use crate::packet_path::ip::{HostError, Refused, addressed, families, ip, is_of, undo};
use crate::packet_path::membership::Memberships;
use crate::packet_path::rules::{
    CLEAR_LIST, Rule, Rules, TABLE, add_rule, forget_closed, forget_rules, is_shown, rule, shown,
};
use crate::packet_path::unprotected::{self, From, Unprotected};
use crate::packet_path::wire::{MARK, PORT, mark};

/// Interfaces and rules of one packet path.
pub(crate) struct Host {
    tun: String,
    gateway: Option<Gateway>,
    /// That the system took, as the routes.
    addresses: Vec<Prefix>,
    routes: Vec<Route>,
    /// An address or a route was refused.
    incomplete: bool,
    /// Rules that were made, to be taken back.
    rules: Rules,
    /// Addresses of this machine outside, as they were when the system was told.
    underlay: Vec<IpAddr>,
    news: Option<AddressNews>,
    memberships: Memberships,
    unprotected: Unprotected,
    outside: Option<String>,
}

/// What the kernel tells when an address comes or goes, whichever it is.
struct AddressNews(OwnedFd);

impl AddressNews {
    fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, ADDRESS_GROUPS))?;
        Ok(Self(socket))
    }

    /// Whether it told of any since it was asked last.
    fn came(&self) -> bool {
        let mut came = false;
        let mut message = [0; 4096];
        loop {
            match recv(&self.0, &mut message, RecvFlags::empty()) {
                // What did not fit into the kernel's queue is lost, and that is news, too.
                Ok(_) | Err(Errno::NOBUFS) => came = true,
                Err(Errno::INTR) => {}
                Err(_) => return came,
            }
        }
    }
}

/// To a network of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Route {
    network: Prefix,
    /// The own address that packets get where their program chose none; `None`: it is told elsewhere.
    source: Option<IpAddr>,
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
            underlay: Vec::new(),
            news: AddressNews::open()
                .inspect_err(|error| tracing::warn!(%error, "new addresses of this machine are not heard of"))
                .ok(),
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
            let mut gateway = Gateway::new(inside, outside, port);
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
        self.underlay = underlay(self.outside.as_deref(), Some(&self.tun));
        refused.note(self.unprotected.apply(record, clear, &self.underlay));
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
        let mut networks = networks(record);
        networks.sort_unstable();
        networks.dedup();
        close_networks(&networks, refused);
        forget_closed(CLOSED_NETWORK, |shown| is_shown_of(shown, &networks));
        self.rules.become_these(host_rules(clear), refused);
        networks.retain(|network| !record.prefixes.contains(network));
        let routes: Vec<_> = networks
            .into_iter()
            .filter_map(|network| Route::to(network, &record.prefixes))
            .collect();
        self.put_on_tun(&record.prefixes, &routes, refused);
    }

    /// Whether the machine has other addresses outside than when the system was told.
    pub(crate) fn has_moved(&self) -> bool {
        let came = self.news.as_ref().is_some_and(AddressNews::came);
        came && underlay(self.outside.as_deref(), Some(&self.tun)) != self.underlay
    }

    /// What is there is not told again, since each takes a process; but where one was refused before the
    /// interface may have been down, and then routes are gone.
    fn put_on_tun(&mut self, addresses: &[Prefix], routes: &[Route], refused: &mut Refused) {
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
        let stays = |it: &Route| routes.iter().any(|route| route.network == it.network);
        for gone in self.routes.iter().filter(|it| !stays(it)) {
            let (kind, table) = match is_multicast_v6(&gone.network) {
                true => ("multicast", "local"),
                false => ("unicast", TABLE),
            };
            let gone = gone.network.to_string();
            undo(&["route", "del", kind, &gone, "dev", tun, "table", table]);
        }
        self.routes.retain(|it| routes.contains(it));
        for new in routes {
            let is_there = self.routes.contains(new);
            if is_there && !all {
                continue;
            }
            let taken = refused.note(new.add(tun));
            self.incomplete |= !taken;
            if taken && !is_there {
                self.routes.push(*new);
            }
        }
    }
}

impl Route {
    /// `None`: no packet of this host could go there protected; the rule of the network drops it.
    fn to(network: Prefix, own: &[Prefix]) -> Option<Self> {
        let v4 = network.address().is_ipv4();
        let own = own.iter().map(Prefix::address);
        let source = own.into_iter().find(|it| it.is_ipv4() == v4);
        if is_multicast_v6(&network) {
            return Some(Self {
                network,
                source: None,
            });
        }
        source.map(|own| Self {
            network,
            source: Some(own),
        })
    }

    /// What goes to a network of a group goes by the tunnel.
    fn add(&self, tun: &str) -> Result<(), HostError> {
        let to = self.network.to_string();
        let Some(source) = self.source.map(|it| it.to_string()) else {
            // The kernel's own route for all multicast of IPv6 comes before every other table.
            let route = ["route", "replace", "multicast", &to];
            let way = ["dev", tun, "table", "local"];
            return ip(&[&route[..], &way].concat()).map(drop);
        };
        // Linux keeps what it worked out for a route with all routes that are like it but for the
        // destination: unicast would go with the one hop of multicast.
        let metric = if self.network.address().is_multicast() {
            "2"
        } else {
            "1"
        };
        let way = ["dev", tun, "src", &source, "table", TABLE, "metric", metric];
        ip(&[&["route", "replace", &to][..], &way].concat()).map(drop)
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
        // To tell each anew would take a process for each.
        let there = shown(family, CLOSED_NETWORK);
        let is_closed = |rule: &str, it| rule.contains("blackhole") && is_shown_of(rule, &[it]);
        let is_there = |it: &Prefix| there.lines().any(|rule| is_closed(rule, *it));
        for network in networks.iter().filter(|it| is_of(family, it)) {
            if !is_there(network) {
                let closed = ["to", &network.to_string(), "blackhole"];
                refused.note(add_rule(&rule(family, CLOSED_NETWORK, &closed)));
            }
        }
    }
}

/// Whether a rule that `ip` shows is for one of these networks.
fn is_shown_of(shown: &str, networks: &[Prefix]) -> bool {
    let mut networks = networks.iter();
    networks.any(|it| is_shown(shown, "to", &it.to_string()))
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
    path_mtu_by(&asking_socket(to).ok()?, to)
}

/// A socket of that family, by which nothing is sent.
pub(super) fn asking_socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    mark(&socket);
    Ok(socket)
}

/// The same by a socket that asked for other places before: it forgets each, and the own address that went
/// with it.
pub(super) fn path_mtu_by(socket: &UdpSocket, to: SocketAddr) -> Option<u32> {
    socket.connect(to).ok()?;
    let mtu = match to {
        SocketAddr::V4(_) => ip_mtu(socket),
        SocketAddr::V6(_) => ipv6_mtu(socket),
    };
    connect_unspec(socket).ok()?;
    mtu.ok()
}

/// Packets that wait for the thread that sends: a moment in which the machine does something else, as 80
/// ms at 50,000 a second. (The system's own 500 are 10 ms.)
const QUEUE: &str = "4000";
/// Preferences of the rules that go with this program.
const OWN_RULES: &[&str] = &[
    "4499", "4500", "4501", "4502", CLEAR_LIST, "4504", "4505", "4506",
];
/// Of those of a gateway that stay: from inside, from outside, out of the tunnel.
const CLOSED: &[&str] = &["4510", "4511"];
const CLOSED_TUN: &str = "4512";
/// Of those of a host that stay: what this program sends itself, and networks of its groups.
const OWN_WORDS: &str = "4509";
const CLOSED_NETWORK: &str = "4513";
/// RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

#[cfg(test)]
mod tests {
    use keyfall_protocol::command::RecordGroup;
    use keyfall_protocol::ids::{GroupNumber, TerminalNumber, UnixSeconds};
    use keyfall_protocol::keys::EspSuite;

    use super::*;
    use crate::packet_path::ip::refusing;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a prefix")
    }

    /// Whatever it tells the system is refused.
    fn host_on(tun: &str) -> Host {
        Host {
            tun: tun.to_owned(),
            gateway: None,
            addresses: Vec::new(),
            routes: Vec::new(),
            underlay: Vec::new(),
            news: None,
            incomplete: false,
            rules: Rules::default(),
            memberships: Memberships::new(None),
            unprotected: Unprotected::new(From::AllBut("none".to_owned()), PORT),
            outside: None,
        }
    }

    fn record() -> ProtectionRecord {
        ProtectionRecord {
            terminal: TerminalNumber::new(1).expect("not 0"),
            version: 1,
            issued_at: UnixSeconds::new(0),
            not_after: UnixSeconds::new(u32::MAX),
            prefixes: vec![prefix("10.0.0.1/32")],
            endpoints: Vec::new(),
            groups: vec![RecordGroup {
                group: GroupNumber::new(1).expect("not 0"),
                priority: 0,
                mtu: None,
                suite: EspSuite::default(),
                networks: vec![prefix("10.1.0.0/16")],
            }],
        }
    }

    fn clear() -> [Prefix; 1] {
        [prefix("10.1.9.0/24")]
    }

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

    /// KR-578: what was refused elsewhere, as by nftables, makes nothing of this new; where one of these
    /// was, the interface may have been down and the others are gone.
    #[test]
    fn addresses_and_routes_are_told_again_where_one_was_refused() {
        let addresses = ["10.0.0.1/32", "10.0.0.2/32"].map(prefix);
        let routes = ["10.1.0.0/16", "10.2.0.0/16"].map(prefix);
        let routes = routes.map(|it| Route::to(it, &addresses).expect("of its family"));
        let mut host = host_on("no-such-tun");
        host.addresses.push(addresses[0]);
        host.routes.push(routes[0]);
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
        host.incomplete = false;
        let elsewhere = Route::to(routes[0].network, &addresses[1..]).expect("of its family");
        let mut refused = Refused::default();
        host.put_on_tun(&addresses[..1], &[elsewhere], &mut refused);
        assert_eq!(refused.0.len(), 1, "by another own address");
    }

    /// KR-578: also where all of it is refused, a host is told first what closes it: nftables, then the rules
    /// of its networks; what the clear list opens and the interface come after that.
    #[test]
    fn what_closes_is_told_first_to_a_host() {
        let mut host = host_on("no-such-tun");
        let refused = host.apply(&record(), &clear());
        let told = refusing::told();
        assert!(!refused.is_empty());
        let place = |what: &str| {
            let place = told.iter().position(|it| it.contains(what));
            place.unwrap_or_else(|| panic!("{what} is not among {told:#?}"))
        };
        let steps = [
            "nft",
            "rule add pref 4513 to 10.1.0.0/16 blackhole",
            "rule add pref 4503 to 10.1.9.0/24 lookup main",
            "address replace 10.0.0.1/32",
            "route replace 10.1.0.0/16",
        ];
        let places = steps.map(place);
        assert!(places.is_sorted(), "{places:?} in {told:#?}");
        let changes = |told: &&String| !told.contains(" show");
        assert!(
            told.iter()
                .find(changes)
                .is_some_and(|it| it.starts_with("nft"))
        );
    }

    /// KR-578, KR-545: nothing of a gateway is told, and its interface does not come up, before it is closed.
    #[test]
    fn what_closes_is_told_first_to_a_gateway() {
        let options = PacketOptions {
            gateway: Some("in".to_owned()),
            outside: Some("out".to_owned()),
            ..PacketOptions::default()
        };
        let closing = |rule: &str| vec![format!("ip -4 rule add {rule} blackhole")];
        assert!(close_gateway("in", "out").is_err());
        assert_eq!(refusing::told(), closing("pref 4510 iif in"));
        assert!(Host::set_up("tun", PORT, &options).is_err());
        assert_eq!(refusing::told(), closing("pref 4512 iif tun"));
        let mut host = host_on("tun");
        host.gateway = Some(Gateway::new("in", "out", PORT));
        host.apply(&record(), &clear());
        let told = refusing::told();
        let changes: Vec<_> = told.iter().filter(|it| !it.contains(" show")).collect();
        let place = |what: &str| changes.iter().position(|it| it.contains(what));
        let closed = place("rule add pref 4501 iif out to 10.0.0.1/32 blackhole");
        let into_tunnel = place("route replace default dev tun");
        assert_eq!(place("nft"), Some(0));
        assert!(closed.is_some() && closed < into_tunnel, "{changes:#?}");
    }

    /// KR-578: a route whose own address goes, or which gets one later, is told anew.
    #[test]
    fn a_route_follows_the_own_addresses_of_its_family() {
        let (v4, v6) = (prefix("10.1.0.0/16"), prefix("fd00::/16"));
        let [one, other, own_v6] = ["10.0.0.1/32", "10.0.0.2/32", "fd01::1/128"].map(prefix);
        let before = Route::to(v4, &[one, other]);
        assert_eq!(before.and_then(|it| it.source), Some(one.address()));
        assert_eq!(Route::to(v4, &[one, own_v6]), before);
        assert_ne!(Route::to(v4, &[other]), before, "another source is told");
        assert_eq!(Route::to(v6, &[one]), None, "none yet");
        let later = Route::to(v6, &[one, own_v6]);
        assert_eq!(later.and_then(|it| it.source), Some(own_v6.address()));
        let multicast = Route::to(prefix("ff15::7/128"), &[one]);
        assert_eq!(multicast.map(|it| it.source), Some(None));
    }
}
