//! Protection records: what they are made of, when they are made anew, and what may not be in them
//! (FORMATS section 8.1; REQUIREMENTS ).
//!
//! Whatever a batch changes of a record is noticed here, in one place, so that no order can forget
//! it: the batch also stores the record's next version, before anything of it is sent.

use core::fmt;
use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::command::{
    ENDPOINTS_MAX, MTU_MAX, MTU_MIN, NETWORKS_MAX, PREFIXES_MAX, Prefix, ProtectionRecord,
    RECORD_GROUPS_MAX, RECORD_LIFE, RECORD_MAX, RecordGroup,
};
use crate::ids::{GroupNumber, KeyEpoch, TerminalNumber, UnixSeconds};
use crate::keys::EspSuite;
use crate::server::{Batch, By, Change, Done, GroupRecord, Refusal, Server, TerminalRecord};

/// What makes a group a packet group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PacketSettings {
    /// Of several common groups the highest protects.
    pub priority: u8,
    /// Octets of the longest inner packet; `None`: as the path has it.
    pub mtu: Option<u16>,
    /// How its packets are protected.
    pub suite: EspSuite,
    /// What is routed into the group, rising; empty: every destination of the gateways in it.
    pub networks: Vec<Prefix>,
}

/// For which addresses a terminal speaks, and where it is heard.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Addresses {
    /// Rising.
    pub prefixes: Vec<Prefix>,
    /// The best first.
    pub endpoints: Vec<SocketAddr>,
}

/// Which record of a terminal is the newest. With the rest of what is stored it gives the record's
/// frame, octet for octet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordIssue {
    /// Never goes down, whatever happens to the store: `max(held + 1, seconds since 2026-01-01)`.
    pub version: u32,
    pub issued_at: UnixSeconds,
}

impl PacketSettings {
    pub(super) fn check(&self) -> Result<(), Refusal> {
        if self.networks.len() > NETWORKS_MAX {
            return Err(Refusal::TooManyNetworks(self.networks.len()));
        }
        match self.mtu {
            Some(mtu) if !(MTU_MIN..=MTU_MAX).contains(&mtu) => Err(Refusal::BadMtu(mtu)),
            Some(_) | None => Ok(()),
        }
    }
}

/// As in the audit log.
impl fmt::Display for PacketSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packets, priority {}", self.priority)?;
        match self.mtu {
            Some(mtu) => write!(f, ", MTU {mtu}")?,
            None => write!(f, ", MTU of the path")?,
        }
        write!(f, ", {}", self.suite.name())?;
        if self.networks.is_empty() {
            return write!(f, ", every network");
        }
        write!(f, ", networks {}", listed(&self.networks))
    }
}

impl Addresses {
    /// In the order of a record.
    pub(super) fn check(&self, terminal: TerminalNumber) -> Result<(), Refusal> {
        if self.prefixes.len() > PREFIXES_MAX {
            return Err(Refusal::TooManyPrefixes(self.prefixes.len()));
        }
        if self.endpoints.len() > ENDPOINTS_MAX {
            return Err(Refusal::TooManyEndpoints(self.endpoints.len()));
        }
        if let Some(endpoint) = self.endpoints.iter().find(|it| is_no_endpoint(it)) {
            return Err(Refusal::BadEndpoint(*endpoint));
        }
        // Of prefixes in their order the first that overlaps another overlaps the next.
        for pair in self.prefixes.windows(2) {
            if pair[0].overlaps(&pair[1]) {
                return Err(Refusal::Overlapping {
                    held: (terminal, pair[0]),
                    wanted: (terminal, pair[1]),
                });
            }
        }
        Ok(())
    }
}

/// As in the audit log.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefixes.is_empty() {
            write!(f, "no addresses")?;
        } else {
            write!(f, "addresses {}", listed(&self.prefixes))?;
        }
        if self.endpoints.is_empty() {
            return write!(f, ", no endpoint");
        }
        write!(f, ", heard at {}", listed(&self.endpoints))
    }
}

impl RecordIssue {
    /// The one after `held`.
    pub(super) fn after(held: Option<Self>, wall: UnixSeconds) -> Self {
        let held = held.map(|it| KeyEpoch::new(it.version));
        Self {
            version: KeyEpoch::fresh(held, wall).get(),
            issued_at: wall,
        }
    }

    /// When it is signed again, so that nobody is left without: at a third of its life.
    fn ages_at(self) -> UnixSeconds {
        self.issued_at.plus(RECORD_LIFE / 3)
    }
}

impl Server {
    /// The newest record of a terminal, as it is sent. `None`: it has none, or is excluded.
    #[must_use]
    pub fn protection_record(&self, terminal: TerminalNumber) -> Option<ProtectionRecord> {
        let record = self.terminals.get(&terminal)?;
        let issue = record.record.filter(|_| record.excluded_at.is_none())?;
        Some(Outlook::now(self).record(record, issue))
    }

    /// Notes which records a batch changes.
    ///
    /// # Errors
    /// [`Refusal`] where one of them could not be sent, or two would speak for one address.
    pub(super) fn follow_records(&self, batch: &mut Batch) -> Result<(), Refusal> {
        let outlook = Outlook::after(self, &batch.changes);
        let news = outlook.affected(&batch.changes);
        outlook.judge(&news)?;
        // What the online key signed is signed by the new one.
        let signed_anew = batch.changes.iter().any(|it| matches!(it, Change::Keys(_)));
        let records = if signed_anew {
            let all = self.terminals.values();
            let all = all.filter(|it| it.record.is_some()).map(|it| it.number);
            outlook.issues(all.chain(news.iter().copied()).collect())
        } else {
            outlook.issues(news)
        };
        if !records.is_empty() {
            batch.changes.push(Change::Recorded(records));
        }
        Ok(())
    }

    /// As [`Self::follow_records`] for every record there is: a server that was put back from a copy
    /// has perhaps sent `lost` later ones, and clocks of `ahead` seconds later.
    pub(super) fn records_after_restore(
        &self,
        changes: &[Change],
        lost: u32,
        ahead: u32,
    ) -> Option<Change> {
        let outlook = Outlook::after(self, changes);
        let known = self.terminals.values();
        let known = known.filter(|it| it.record.is_some()).map(|it| it.number);
        let all = known.chain(outlook.affected(changes)).collect();
        let mut records = outlook.issues(all);
        for (_, issue) in &mut records {
            issue.version = issue.version.saturating_add(lost).saturating_add(ahead);
        }
        (!records.is_empty()).then_some(Change::Recorded(records))
    }

    /// When the first record has to be signed again.
    pub(super) fn record_ages_at(&self) -> Option<UnixSeconds> {
        self.standing_records().map(|(_, it)| it.ages_at()).min()
    }

    pub(super) fn records_age(&self) -> bool {
        self.record_ages_at().is_some_and(|at| at <= self.at.wall)
    }

    /// All that are older than half the age at which that has to be: so they come together.
    pub(super) fn sign_records(&self, by: By) -> (Batch, Done) {
        let wall = self.at.wall;
        let old = |issue: &RecordIssue| wall.since(issue.issued_at) >= RECORD_LIFE / 6;
        let records: Vec<_> = self
            .standing_records()
            .filter(|(_, issue)| old(issue))
            .map(|(terminal, issue)| (terminal, RecordIssue::after(Some(issue), wall)))
            .collect();
        let outcome = format!("{} protection records", records.len());
        let batch = Batch {
            changes: vec![Change::Recorded(records)],
            audit: Some(self.audit(by, "sign records", "all that age", outcome)),
            // Versions go on by the clock.
            journal: None,
        };
        (batch, Done::Nothing)
    }

    pub(super) fn standing_records(
        &self,
    ) -> impl Iterator<Item = (TerminalNumber, RecordIssue)> + '_ {
        self.terminals
            .values()
            .filter(|it| it.excluded_at.is_none())
            .filter_map(|it| Some((it.number, it.record?)))
    }
}

/// The fleet as it will be once a batch is stored.
struct Outlook<'a> {
    server: &'a Server,
    founded: BTreeMap<GroupNumber, &'a GroupRecord>,
    packets: BTreeMap<GroupNumber, Option<&'a PacketSettings>>,
    addresses: BTreeMap<TerminalNumber, &'a Addresses>,
    joined: BTreeSet<(TerminalNumber, GroupNumber)>,
    left: BTreeSet<(TerminalNumber, GroupNumber)>,
    excluded: BTreeSet<TerminalNumber>,
}

impl<'a> Outlook<'a> {
    fn now(server: &'a Server) -> Self {
        Self::after(server, &[])
    }

    fn after(server: &'a Server, changes: &'a [Change]) -> Self {
        let mut outlook = Self {
            server,
            founded: BTreeMap::new(),
            packets: BTreeMap::new(),
            addresses: BTreeMap::new(),
            joined: BTreeSet::new(),
            left: BTreeSet::new(),
            excluded: BTreeSet::new(),
        };
        for change in changes {
            outlook.note(change);
        }
        outlook
    }

    fn note(&mut self, change: &'a Change) {
        match change {
            Change::Group(group) => {
                self.founded.insert(group.number, group);
                let members = group.members.iter();
                self.joined.extend(members.map(|&it| (it, group.number)));
            }
            Change::Packets { group, packets } => {
                self.packets.insert(*group, packets.as_ref());
            }
            Change::Addresses {
                terminal,
                addresses,
            } => {
                self.addresses.insert(*terminal, addresses);
            }
            Change::Member {
                group, terminal, ..
            } => {
                self.left.remove(&(*terminal, *group));
                self.joined.insert((*terminal, *group));
            }
            Change::Left {
                group, terminal, ..
            } => {
                self.joined.remove(&(*terminal, *group));
                self.left.insert((*terminal, *group));
            }
            Change::Excluded(exclusion) => self.excluded.extend(&exclusion.terminals),
            Change::Sequence(_)
            | Change::Terminal(_)
            | Change::Master { .. }
            | Change::SearchKey { .. }
            | Change::Recorded(_)
            | Change::Begun(_)
            | Change::Ended(_)
            | Change::Policy { .. }
            | Change::Stated { .. }
            | Change::Fleet { .. }
            | Change::Wrap(_)
            | Change::Mixed { .. }
            | Change::LegacyKey { .. }
            | Change::TokenVoid(_)
            | Change::Ordered { .. }
            | Change::Proved { .. }
            | Change::Keys(_)
            | Change::Restored(_) => {}
        }
    }

    /// Whose records say something else then.
    fn affected(&self, changes: &[Change]) -> BTreeSet<TerminalNumber> {
        let moved = self.joined.iter().chain(&self.left);
        let moved = moved.filter(|(_, group)| self.settings(*group).is_some());
        let mut affected: BTreeSet<_> = moved.map(|(terminal, _)| *terminal).collect();
        affected.extend(self.addresses.keys());
        for change in changes {
            if let Change::Packets { group, .. } = change {
                affected.extend(self.members(*group));
            }
        }
        affected
    }

    /// The next record of each that has one, or will.
    fn issues(&self, terminals: BTreeSet<TerminalNumber>) -> Vec<(TerminalNumber, RecordIssue)> {
        let wall = self.server.at.wall;
        let records = terminals.into_iter().filter_map(|number| {
            let record = self.server.terminals.get(&number)?;
            let admitted = record.excluded_at.is_none() && !self.excluded.contains(&number);
            let speaks = !self.addresses(record).prefixes.is_empty();
            (admitted && (speaks || record.record.is_some()))
                .then(|| (number, RecordIssue::after(record.record, wall)))
        });
        records.collect()
    }

    /// Records that fit a frame, no address that two members of one group speak for, and no host in a
    /// group without networks.
    fn judge(&self, affected: &BTreeSet<TerminalNumber>) -> Result<(), Refusal> {
        let mut groups: BTreeSet<_> = self.founded.keys().copied().collect();
        groups.extend(self.packets.keys());
        for &number in affected {
            let Some(record) = self.server.terminals.get(&number) else {
                continue;
            };
            let own = self.packet_groups(number);
            if own.len() > RECORD_GROUPS_MAX {
                return Err(Refusal::TooManyPacketGroups(number));
            }
            groups.extend(own.iter().map(|group| group.group));
            // As long as it can get: the version and the times take five octets each.
            let issue = RecordIssue::after(None, UnixSeconds::new(u32::MAX - RECORD_LIFE));
            let octets = self.record(record, issue).frame_len();
            if octets > RECORD_MAX {
                return Err(Refusal::RecordTooLong {
                    terminal: number,
                    octets,
                });
            }
        }
        groups.into_iter().try_for_each(|it| self.judge_group(it))
    }

    fn judge_group(&self, group: GroupNumber) -> Result<(), Refusal> {
        let Some(settings) = self.settings(group) else {
            return Ok(());
        };
        let mut spoken_for = Vec::new();
        for number in self.members(group) {
            if let Some(record) = self.server.terminals.get(&number) {
                let prefixes = self.addresses(record).prefixes.iter();
                // SECURITY: a host closes itself to networks; it would send in clear to members that it
                // has not heard of (KR-562).
                if settings.networks.is_empty() && prefixes.clone().any(Prefix::is_host) {
                    return Err(Refusal::NoNetworks {
                        group,
                        terminal: number,
                    });
                }
                spoken_for.extend(prefixes.map(|&prefix| (prefix, number)));
            }
        }
        // Prefixes lie in each other or apart: in their order the first that holds others holds the
        // next.
        spoken_for.sort_unstable();
        for pair in spoken_for.windows(2) {
            let [(held, one), (wanted, two)] = [pair[0], pair[1]];
            if one != two && held.overlaps(&wanted) {
                return Err(Refusal::Overlapping {
                    held: (one, held),
                    wanted: (two, wanted),
                });
            }
        }
        Ok(())
    }

    fn record(&self, terminal: &TerminalRecord, issue: RecordIssue) -> ProtectionRecord {
        let addresses = self.addresses(terminal);
        // Who speaks for nothing says so, and takes back what was said.
        let speaks = !addresses.prefixes.is_empty();
        ProtectionRecord {
            terminal: terminal.number,
            version: issue.version,
            issued_at: issue.issued_at,
            not_after: issue.issued_at.plus(RECORD_LIFE),
            prefixes: addresses.prefixes.clone(),
            endpoints: addresses.endpoints.clone(),
            groups: if speaks {
                self.packet_groups(terminal.number)
            } else {
                Vec::new()
            },
        }
    }

    fn addresses<'s>(&'s self, terminal: &'s TerminalRecord) -> &'s Addresses {
        let set = self.addresses.get(&terminal.number).copied();
        set.unwrap_or(&terminal.addresses)
    }

    fn settings(&self, group: GroupNumber) -> Option<&PacketSettings> {
        if let Some(set) = self.packets.get(&group) {
            return *set;
        }
        let founded = self.founded.get(&group).copied();
        let record = founded.or_else(|| self.server.groups.get(&group));
        record.and_then(|it| it.packets.as_ref())
    }

    fn members(&self, group: GroupNumber) -> impl Iterator<Item = TerminalNumber> + '_ {
        let held = self.server.groups.get(&group).map(|it| &it.members);
        let held = held.into_iter().flatten().copied();
        let joined = self.joined.iter().filter(move |(_, into)| *into == group);
        held.chain(joined.map(|(terminal, _)| *terminal))
            .filter(move |it| !self.left.contains(&(*it, group)) && !self.excluded.contains(it))
    }

    fn packet_groups(&self, terminal: TerminalNumber) -> Vec<RecordGroup> {
        let mut groups: BTreeSet<_> = self.server.groups_of(terminal).into_iter().collect();
        let first = GroupNumber::new(1).expect("1 is a number");
        let range = (terminal, first)..=(terminal, GroupNumber::MAX);
        groups.extend(self.joined.range(range.clone()).map(|(_, group)| *group));
        for (_, group) in self.left.range(range) {
            groups.remove(group);
        }
        let named = |group| {
            let settings = self.settings(group)?;
            Some(RecordGroup {
                group,
                priority: settings.priority,
                mtu: settings.mtu,
                suite: settings.suite,
                networks: settings.networks.clone(),
            })
        };
        groups.into_iter().filter_map(named).collect()
    }
}

/// Nobody is heard at no address, at port 0, or at an address that only one link knows.
fn is_no_endpoint(endpoint: &SocketAddr) -> bool {
    let address = endpoint.ip();
    let scoped = matches!(endpoint, SocketAddr::V6(it) if it.scope_id() != 0);
    endpoint.port() == 0 || address.is_unspecified() || address.is_multicast() || scoped
}

fn listed<T: fmt::Display>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(" ")
}
