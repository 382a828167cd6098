//! What comes in as it is, for addresses that are protected, goes nowhere. Rules of routing cannot say
//! so: what is for an address of this machine is delivered before they are asked. So nftables is told,
//! by the program `nft`, in a table of its own.

use std::fmt::Write;
use std::net::IpAddr;

use keyfall_protocol::command::{Prefix, ProtectionRecord};

use crate::packet_path::ip::{HostError, run};

/// The table. A host's goes when this is dropped, as its addresses do; a gateway's stays.
pub(super) struct Unprotected {
    from: From,
    /// Of ESP in UDP, and of probes for protected addresses.
    port: u16,
    /// What nftables took last.
    told: String,
}

/// Where unprotected packets come from.
pub(super) enum From {
    /// In a gateway: by that interface.
    Outside(String),
    /// In a host: by all interfaces but the tunnel and the loopback.
    AllBut(String),
}

impl Unprotected {
    pub(super) const fn new(from: From, port: u16) -> Self {
        Self {
            from,
            port,
            told: String::new(),
        }
    }

    /// SECURITY: from now on nothing comes in as it is for an address that this terminal speaks for, or
    /// for multicast of its groups (KR-561). Open stay the port of ESP in UDP, what the root's clear
    /// list names, and the addresses that this machine has in the `underlay`.
    ///
    /// # Errors
    /// [`HostError::Unprotected`]: what it took before holds.
    pub(super) fn apply(
        &mut self,
        record: &ProtectionRecord,
        clear: &[Prefix],
        underlay: &[IpAddr],
    ) -> Result<(), HostError> {
        let networks = record.groups.iter().flat_map(|group| &group.networks);
        let multicast = networks.filter(|network| network.address().is_multicast());
        let closed: Vec<_> = record.prefixes.iter().chain(multicast).copied().collect();
        let mut open = underlay.to_vec();
        open.retain(|address| closed.iter().any(|it| it.contains(*address)));
        let table = table(&self.from, self.port, &closed, clear, &open);
        if self.told == table {
            return Ok(());
        }
        nft(&table).map_err(HostError::Unprotected)?;
        self.told = table;
        for address in open {
            tracing::warn!(
                %address,
                "unprotected packets come in, since the outside has this protected address, too: \
                 give the terminal addresses of its own"
            );
        }
        Ok(())
    }
}

impl Drop for Unprotected {
    fn drop(&mut self) {
        if matches!(self.from, From::AllBut(_))
            && !self.told.is_empty()
            && let Err(why) = nft(&format!("delete table inet {TABLE}\n"))
        {
            tracing::debug!("the table of nftables was gone: {why}");
        }
    }
}

/// The table as one transaction: there is the one before until there is this one.
fn table(from: &From, port: u16, closed: &[Prefix], clear: &[Prefix], open: &[IpAddr]) -> String {
    let family = |v6: bool| if v6 { "ip6" } else { "ip" };
    let mut rules = vec![
        match from {
            From::Outside(outside) => format!("iifname != \"{outside}\" accept"),
            From::AllBut(tun) => format!("iifname {{ \"{tun}\", \"lo\" }} accept"),
        },
        format!("udp dport {port} accept"),
        // Later fragments name no port; without the first, which is judged, they are nothing.
        "ip frag-off & 0x1fff != 0 accept".to_owned(),
        "frag frag-off != 0 accept".to_owned(),
        // Who asks routers and switches who listens asks at the group's own address.
        "ip protocol igmp accept".to_owned(),
        "icmpv6 type { 130, 131, 132, 143 } accept".to_owned(),
    ];
    for address in open {
        rules.push(format!(
            "{} daddr {address} accept",
            family(address.is_ipv6())
        ));
    }
    for prefix in clear {
        for end in ["saddr", "daddr"] {
            rules.push(format!(
                "{} {end} {prefix} accept",
                family(prefix.address().is_ipv6())
            ));
        }
    }
    for prefix in closed {
        rules.push(format!(
            "{} daddr {prefix} drop",
            family(prefix.address().is_ipv6())
        ));
    }
    let mut text = format!(
        "table inet {TABLE}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n  chain unprotected \
         {{\n    type filter hook prerouting priority raw\n"
    );
    for rule in rules {
        writeln!(text, "    {rule}").expect("a string takes it");
    }
    text + "  }\n}\n"
}

fn nft(text: &str) -> Result<(), String> {
    let said = run("nft", &["-f", "-"], text)
        .map_err(|error| format!("`nft` could not be run: {error}"))?;
    if said.status.success() {
        return Ok(());
    }
    let answer = String::from_utf8_lossy(&said.stderr);
    let first = answer.lines().next().unwrap_or("it does not say why");
    let why = first.rsplit("Error: ").next().unwrap_or(first);
    Err(format!("`nft` was refused: {}", why.trim()))
}

pub(super) const TABLE: &str = "keyfall";

#[cfg(test)]
mod tests {
    use super::*;

    /// KR-561: what stays open comes first, or the rules that close would take it.
    #[test]
    fn what_stays_open_stands_before_what_is_closed() {
        let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
        let closed = ["10.0.0.0/8", "fd00::1/128", "239.7.7.7/32"].map(prefix);
        let clear = [prefix("198.51.100.0/24")];
        let open = [IpAddr::from([10, 1, 2, 3])];
        let text = table(&From::AllBut("tun0".into()), 4_500, &closed, &clear, &open);
        let rules: Vec<_> = text.lines().skip(5).map(str::trim).collect();
        let wanted = [
            "iifname { \"tun0\", \"lo\" } accept",
            "udp dport 4500 accept",
            "ip frag-off & 0x1fff != 0 accept",
            "frag frag-off != 0 accept",
            "ip protocol igmp accept",
            "icmpv6 type { 130, 131, 132, 143 } accept",
            "ip daddr 10.1.2.3 accept",
            "ip saddr 198.51.100.0/24 accept",
            "ip daddr 198.51.100.0/24 accept",
            "ip daddr 10.0.0.0/8 drop",
            "ip6 daddr fd00::1/128 drop",
            "ip daddr 239.7.7.7/32 drop",
            "}",
            "}",
        ];
        assert_eq!(rules, wanted);
        let text = table(&From::Outside("out".into()), 4_500, &closed, &[], &[]);
        assert!(text.contains("iifname != \"out\" accept"));
    }
}
