//! Which way the packets to a terminal or an address take: asked by `keyfall terminal ping`, answered
//! at once where it is known, else after the key search that the question begins.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use keyfall_api::control::{Answer, ProtectedWay, Refusal, WayFound};
use keyfall_protocol::DropReason;
use keyfall_protocol::command::{Prefix, ProtectionRecord};
use keyfall_protocol::ids::TerminalNumber;
use keyfall_protocol::terminal::{Input, Terminal, Way};

use crate::control::{Client, ClientId};
use crate::driver::packets::Packets;
use crate::driver::{Driver, RunError};
use crate::packet_path::host;

/// Who waits for a key search.
#[derive(Default)]
pub(super) struct WaysAsked(Vec<WayAsked>);

struct WayAsked {
    client: Client,
    ends: (IpAddr, IpAddr),
    since: Instant,
}

/// Why there is no way, in a sentence that says what to do.
type Refused = (Refusal, String);

impl WaysAsked {
    pub(super) fn hung_up(&mut self, id: ClientId) {
        self.0.retain(|asked| asked.client.id != id);
    }
}

impl Driver {
    /// How packets to `to` are protected.
    pub(super) fn tell_way(&mut self, client: Client, to: &str) -> Result<(), RunError> {
        let since = Instant::now();
        let ends = match self.ends_to(to) {
            Ok(ends) => ends,
            Err((refusal, sentence)) => {
                client.refuse(refusal, sentence);
                return Ok(());
            }
        };
        let way = self.terminal.path(self.clock.tick(), ends.0, ends.1);
        if way == Way::Searching {
            if self.ways.0.len() >= ASKED_MAX {
                let sentence = "too many wait for a key search: try again in a moment";
                client.refuse(Refusal::TooMany, sentence.to_owned());
                return Ok(());
            }
            self.ways.0.push(WayAsked {
                client,
                ends,
                since,
            });
            // The probe leaves now.
            return self.feed(Input::Timeout);
        }
        let before = self.terminal.paths();
        let found = if before
            .into_iter()
            .any(|it| (it.source, it.destination) == ends)
        {
            WayFound::SearchBefore
        } else {
            WayFound::Record
        };
        self.answer_way(&client, ends, way, (found, since));
        Ok(())
    }

    /// A search for these two ends came to its end.
    pub(super) fn on_way_settled(&mut self, ends: (IpAddr, IpAddr), lost: Option<DropReason>) {
        let of_these = |asked: &mut WayAsked| asked.ends == ends;
        let settled: Vec<_> = self.ways.0.extract_if(.., of_these).collect();
        for asked in settled {
            let way = match lost {
                Some(reason) => Way::Drop(reason),
                None => self.terminal.path(self.clock.tick(), ends.0, ends.1),
            };
            let found = (WayFound::Search, asked.since);
            self.answer_way(&asked.client, ends, way, found);
        }
    }

    /// Once a second: a search that a lock or an erasure ended tells nobody.
    pub(super) fn on_ways_second(&mut self) {
        let late = |asked: &mut WayAsked| asked.since.elapsed() > SEARCH_LONGEST;
        for asked in self.ways.0.extract_if(.., late) {
            let sentence = "the key search was broken off: ask again";
            asked.client.refuse(Refusal::NoWay, sentence.to_owned());
        }
    }

    fn answer_way(
        &mut self,
        client: &Client,
        ends: (IpAddr, IpAddr),
        way: Way,
        found: (WayFound, Instant),
    ) {
        match self.protected_way(ends, way, found) {
            Ok(way) => client.tell(Answer::Way(way)),
            Err((refusal, sentence)) => client.refuse(refusal, sentence),
        }
    }

    fn protected_way(
        &mut self,
        (source, destination): (IpAddr, IpAddr),
        way: Way,
        (found, since): (WayFound, Instant),
    ) -> Result<ProtectedWay, Refused> {
        let (group, peer, endpoint) = match way {
            Way::Protect {
                group,
                peer,
                endpoint,
                ..
            } => (group, peer, endpoint),
            Way::ProtectMulticast { .. } => {
                return Err(no_way(format!(
                    "{destination} is many at once: ping one of them"
                )));
            }
            Way::Searching => {
                return Err(no_way("a key search is on its way: ask again".to_owned()));
            }
            Way::Clear => {
                return Err(no_way(format!(
                    "packets to {destination} go unprotected, as the root's clear list says: the \
                     system's own ping measures them"
                )));
            }
            Way::Drop(reason) => {
                return Err(no_way(format!(
                    "packets to {destination} go nowhere: {}: {}",
                    reason,
                    lowered(reason.sentence())
                )));
            }
        };
        let key = self.terminal.send_key(group).ok_or_else(|| {
            let reason = self.terminal.why_not_sending(group);
            no_way(format!(
                "group {group} protects {destination}, and waits: {reason}: {}",
                lowered(reason.sentence())
            ))
        })?;
        let (epoch, generation) = (key.epoch().get(), key.generation().get());
        let running = self.packets.running().ok_or_else(not_running)?;
        let took = since.elapsed().as_micros();
        let report = running.path.report();
        let mut flows = report.flows.iter();
        let flow = flows.find(|flow| flow.ends == (source, destination));
        let tun = running.path.tun_name().to_owned();
        Ok(ProtectedWay {
            source: source.to_string(),
            destination: destination.to_string(),
            terminal: peer.get(),
            endpoint: endpoint.to_string(),
            mtu: host::mtu_of(&tun),
            tun,
            group: group.get(),
            epoch,
            generation,
            suite: running.path.present(group).0.name().to_owned(),
            found,
            took_us: u64::try_from(took).unwrap_or(u64::MAX),
            path_mtu: host::path_mtu(endpoint),
            packets: flow.map(|flow| flow.packets()),
        })
    }

    /// Which own address, and which of the other side.
    fn ends_to(&self, to: &str) -> Result<(IpAddr, IpAddr), Refused> {
        match &self.packets {
            Packets::Running(_) => {}
            Packets::Off => {
                let sentence = "no packets pass through this terminal, since it was started with \
                                --no-packets: start it without";
                return Err(no_way(sentence.to_owned()));
            }
            Packets::Waiting(_) => {
                let sentence = "no packets pass yet: this terminal has no address and packet group \
                                of which it holds the key; give it both with `keyfall admin terminal \
                                set` and `keyfall admin group create --packets`, or wait for the carrier";
                return Err(no_way(sentence.to_owned()));
            }
            Packets::Failed(sentence) => return Err(no_way(sentence.clone())),
        }
        if self.terminal.is_locked() {
            let sentence = "the terminal is locked: `keyfall terminal unlock` opens it";
            return Err((Refusal::Locked, sentence.to_owned()));
        }
        let own = self.terminal.own_record().map(|signed| signed.record());
        let own = own.ok_or_else(|| {
            let reason = DropReason::NoRecord;
            no_way(format!("no packets pass: {}", lowered(reason.sentence())))
        })?;
        let destinations = destinations(&self.terminal, own, to)?;
        let addresses = host::own_addresses();
        let ours = |it: &&IpAddr| own.speaks_for(**it);
        let pair = destinations.iter().find_map(|&destination| {
            let same = |it: &&IpAddr| it.is_ipv4() == destination.is_ipv4();
            let source = addresses.iter().filter(ours).find(same)?;
            Some((*source, destination))
        });
        let (source, destination) = pair.ok_or_else(|| {
            let prefixes: Vec<_> = own.prefixes.iter().map(ToString::to_string).collect();
            no_way(format!(
                "this machine has no address of that family in {}: give its inside interface one, or \
                 ping from a host behind it",
                prefixes.join(", ")
            ))
        })?;
        if own.speaks_for(destination) {
            let sentence = format!("{destination} is this terminal's own: nothing is sent there");
            return Err(no_way(sentence));
        }
        let is_gateway = matches!(&self.packets, Packets::Running(it) if it.is_gateway());
        if !is_gateway && !is_routed(&self.terminal, own, destination) {
            return Err(no_way(format!(
                "{destination} is in no network of this terminal's groups, so packets there go \
                 unprotected by the system's own routes: give a packet group that network if they are \
                 not to"
            )));
        }
        Ok((source, destination))
    }
}

/// A terminal's number, or an address; those of a terminal in the order of its record, IPv4 first.
fn destinations(
    terminal: &Terminal,
    own: &ProtectionRecord,
    to: &str,
) -> Result<Vec<IpAddr>, Refused> {
    if let Ok(address) = to.parse() {
        return Ok(vec![address]);
    }
    if to == terminal.identity().name || to.parse() == Ok(own.terminal.get()) {
        return Err(no_way(format!("{to} is this terminal itself")));
    }
    let number = to.parse().ok().and_then(TerminalNumber::new);
    let record = number.and_then(|number| terminal.record_of(number));
    let Some(record) = record else {
        let known: Vec<_> = terminal.peers().map(|it| known(it.record)).collect();
        let known = match known.as_slice() {
            [] => "it knows none yet: give an address, which a key search finds".to_owned(),
            [first @ .., last] if first.len() < KNOWN_SHOWN => {
                let all = [first, std::slice::from_ref(last)].concat();
                format!("it knows {}", all.join(", "))
            }
            many => format!(
                "it knows {} and {} more",
                many[..KNOWN_SHOWN].join(", "),
                many.len() - KNOWN_SHOWN
            ),
        };
        return Err(no_way(format!(
            "this terminal knows no {to:?}; terminals know each other by number and address: {known}"
        )));
    };
    let mut addresses: Vec<_> = record.prefixes.iter().map(first_host).collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    Ok(addresses)
}

fn known(record: &ProtectionRecord) -> String {
    let prefixes: Vec<_> = record.prefixes.iter().map(ToString::to_string).collect();
    format!("{} ({})", record.terminal, prefixes.join(", "))
}

/// The address of a host, or the first one of a subnet, which its gateway has as a rule.
fn first_host(prefix: &Prefix) -> IpAddr {
    match prefix.address() {
        address if prefix.is_host() => address,
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() | 1).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() | 1).into(),
    }
}

/// Whether a terminal in host mode has a route into the tunnel for that address.
fn is_routed(terminal: &Terminal, own: &ProtectionRecord, address: IpAddr) -> bool {
    let groups = || own.groups.iter();
    let mut networks = groups().flat_map(|group| &group.networks);
    if networks.any(|network| network.contains(address)) {
        return true;
    }
    groups().any(|group| group.networks.is_empty())
        && terminal.peers().any(|it| it.record.speaks_for(address))
}

fn no_way(sentence: String) -> Refused {
    (Refusal::NoWay, sentence)
}

fn not_running() -> Refused {
    no_way("no packets pass any more: `keyfall terminal status` says why".to_owned())
}

/// A sentence after a colon, without its full stop.
fn lowered(sentence: &str) -> String {
    let sentence = sentence.trim_end_matches('.');
    let mut letters = sentence.chars();
    let first = letters.next().map(|it| it.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}

/// Questions that wait for a search.
const ASKED_MAX: usize = 64;
/// A search ends by itself before.
const SEARCH_LONGEST: Duration = Duration::from_secs(15);
const KNOWN_SHOWN: usize = 16;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_subnet_is_pinged_at_its_first_address() {
        let first = |address: &str, length| {
            let prefix = Prefix::new(address.parse().unwrap(), length).unwrap();
            first_host(&prefix).to_string()
        };
        assert_eq!(first("10.10.2.0", 24), "10.10.2.1");
        assert_eq!(first("10.99.0.5", 32), "10.99.0.5");
        assert_eq!(first("fd10:2::", 64), "fd10:2::1");
        assert_eq!(first("fd99::4", 128), "fd99::4");
    }

    #[test]
    fn a_sentence_goes_on_after_a_colon() {
        assert_eq!(lowered("The two share no group."), "the two share no group");
        assert_eq!(lowered(""), "");
    }
}
