//! How packets pass through a terminal, on the command line and in words.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use keyfall_api::packets::{FlowStatus, PacketStatus, SessionStatus};
use keyfall_protocol::ids::TerminalNumber;
use keyfall_terminal::packet_path::{PacketOptions, SearchBy};

/// Packets between this host, or the hosts behind it, and other terminals.
#[derive(Args, Debug)]
#[command(next_help_heading = "Packets")]
pub(super) struct PacketArgs {
    /// No packets pass, although this terminal may have addresses in the fleet.
    #[arg(long, conflicts_with_all = ["tun", "listen", "gateway", "outside", "mtu", "search", "keepalive", "packet_threads", "peers"])]
    no_packets: bool,
    /// The name of the TUN interface; "%d" becomes a number.
    #[arg(long, value_name = "NAME", default_value = "keyfall%d")]
    tun: String,
    /// Where peers are heard, by UDP; without it port 4500 on all addresses.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// Protect the hosts behind this interface; without it this host alone. A gateway stays closed when
    /// this program ends: nothing crosses it, and nothing unprotected reaches its protected addresses. It
    /// says at its start how to open it then.
    #[arg(long, value_name = "INSIDE", requires = "outside")]
    gateway: Option<String>,
    /// The interface that leads to the other terminals.
    #[arg(long, value_name = "OUTSIDE")]
    outside: Option<String>,
    /// Octets of the longest packet inside; without it as long as the outside takes in one piece.
    #[arg(long, value_name = "OCTETS", value_parser = clap::value_parser!(u16).range(576..=65_000))]
    mtu: Option<u16>,
    /// What key searches travel in: datagrams to the packet port, or ICMP echo, where pings pass and
    /// such datagrams do not; it takes CAP_NET_RAW. Searches by echo are answered with "icmp" alone.
    #[arg(long, value_name = "WAY", value_enum, default_value = "udp")]
    search: SearchWay,
    /// Behind a NAT: so long after the last packet to a peer a dummy packet goes there, and so on, that
    /// the NAT goes on letting the peer in. Without it peers hear from this terminal only when it sends
    /// something, or when its own address changes.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=3_600))]
    keepalive: Option<u16>,
    /// Threads that send, and as many that receive; without it half as many as there are processors, at
    /// most 8. More than one are of use where many connections together send more than one processor
    /// can, or many peers do.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=8))]
    packet_threads: Option<u16>,
    /// Where a terminal is, as NUMBER=ADDR:PORT, where neither its record nor a key search tells; may
    /// be given several times.
    #[arg(long = "peer", value_name = "NUMBER=ADDR:PORT", value_parser = peer_at)]
    peers: Vec<(TerminalNumber, SocketAddr)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum SearchWay {
    Udp,
    Icmp,
}

impl PacketArgs {
    pub(super) fn options(self) -> Option<PacketOptions> {
        (!self.no_packets).then_some(PacketOptions {
            tun: self.tun,
            listen: self.listen,
            gateway: self.gateway,
            outside: self.outside,
            mtu: self.mtu,
            keepalive: self
                .keepalive
                .map(|seconds| Duration::from_secs(seconds.into())),
            search: match self.search {
                SearchWay::Udp => SearchBy::Udp,
                SearchWay::Icmp => SearchBy::IcmpEcho,
            },
            packet_threads: self.packet_threads.map(usize::from),
            peers: self.peers,
        })
    }
}

fn peer_at(text: &str) -> Result<(TerminalNumber, SocketAddr), String> {
    let parts = text.split_once('=').and_then(|(number, address)| {
        let number = TerminalNumber::new(number.parse().ok()?)?;
        Some((number, address.parse().ok()?))
    });
    parts.ok_or_else(|| "write it like 7=192.0.2.7:4500 or 7=[2001:db8::7]:4500".to_owned())
}

pub(super) fn packets_for_people(status: &PacketStatus) -> Vec<String> {
    let mut lines = Vec::new();
    let prefixes = status.prefixes.join(", ");
    match (status.state.as_str(), &status.failure) {
        ("running", _) => lines.push(format!(
            "packets pass for {prefixes} by {}, MTU {}, heard at {}; {} peers, {} searches",
            status.tun.as_deref().unwrap_or("no interface"),
            status.mtu.unwrap_or(0),
            status.listens.as_deref().unwrap_or("no address"),
            status.peers,
            status.searches
        )),
        (_, Some(failure)) => lines.push(failure.clone()),
        _ if prefixes.is_empty() => return lines,
        _ => lines.push(format!("packets of {prefixes} wait for a group's key")),
    }
    let refused = status.refused.iter();
    lines.extend(refused.map(|it| format!("  refused by the system, and tried again: {it}")));
    lines.extend(status.flows.iter().map(flow_for_people));
    lines.extend(status.sessions.iter().map(session_for_people));
    if !status.drops.is_empty() {
        let drop = |it: &keyfall_api::packets::PacketDrop| format!("{} {}", it.count, it.reason);
        let drops: Vec<_> = status.drops.iter().map(drop).collect();
        lines.push(format!("  dropped: {}", drops.join(", ")));
    }
    lines
}

fn flow_for_people(flow: &FlowStatus) -> String {
    let ends = format!("  {} → {}: ", flow.source, flow.destination);
    let counts = format!("{} packets, {} octets", flow.packets, flow.octets);
    let Some(group) = flow.group else {
        return format!("{ends}{}, {counts}", flow.way);
    };
    let to = match (flow.peer, &flow.endpoint) {
        (Some(peer), Some(endpoint)) => format!("terminal {peer} at {endpoint}"),
        (Some(peer), None) => format!("terminal {peer}"),
        (None, _) => "all members".to_owned(),
    };
    let key = match (flow.epoch, flow.generation) {
        (Some(epoch), Some(generation)) => format!("epoch {epoch} generation {generation}"),
        _ => "waits for the key".to_owned(),
    };
    let expires = flow
        .expires_in
        .map_or_else(String::new, |left| format!(", found, expires in {left} s"));
    format!("{ends}group {group}, {key}, to {to}{expires}, {counts}")
}

fn session_for_people(session: &SessionStatus) -> String {
    let ends = match (&session.source, &session.destination) {
        (Some(source), Some(destination)) => format!(", last {source} → {destination}"),
        _ => String::new(),
    };
    format!(
        "  from terminal {}: session {}, group {}, epoch {} generation {}{ends}, {} packets, {} octets",
        session.peer,
        session.session,
        session.group,
        session.epoch,
        session.generation,
        session.packets,
        session.octets
    )
}
