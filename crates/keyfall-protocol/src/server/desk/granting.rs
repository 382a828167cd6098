//! What a terminal is granted: of all its groups only what it lacks.

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet};

use crate::command::KeyDistContents;
use crate::ids::{GroupNumber, KeyIdKind, TerminalNumber};
use crate::keys::Secret;
use crate::rng::{Random, octets};
use crate::server::{Item, Output, Server, TerminalRecord};
use crate::sharing::pair::{Ask, Grant};
use crate::sharing::{SharingSuite, command_datagram};

impl Server {
    /// The difference between what `terminal` should hold and what it says that it holds.
    pub(super) fn grant(
        &self,
        terminal: &TerminalRecord,
        ask: &Ask,
        suite: SharingSuite,
        rng: &mut dyn Random,
    ) -> Grant {
        let forward_secret = matches!(suite, SharingSuite::Hpke | SharingSuite::HpkePq);
        // Who came by a token has its wrap key by HPKE: the octets are hidden in psk, too, and the token
        // has to be used up.
        let hidden = forward_secret || terminal.is_pending();
        let first = (hidden && terminal.mixed_at.is_none())
            .then(|| Secret::init_with(|into| rng.fill(into)));
        // Who has yet to mix them in gets no keys before: he would have them without a trace (KR-371).
        let (keys, more) = match first {
            Some(_) => (Vec::new(), true),
            None => self.lacking(terminal, ask),
        };
        let named = ask.held.iter().filter_map(|it| it.kid.kind());
        let gone = named.filter_map(KeyIdKind::group);
        let gone = gone.filter(|group| !self.is_member(*group, terminal.number));
        Grant {
            nonce: ask.nonce,
            time: self.at.wall,
            g: self.fleet.fleet_generation,
            keys,
            gone: gone.collect(),
            more,
            first,
            package: None,
        }
    }

    /// Keys that it should hold and does not name, as many as one answer has; whether there are more.
    fn lacking(&self, terminal: &TerminalRecord, ask: &Ask) -> (Vec<KeyDistContents>, bool) {
        let held: BTreeMap<_, _> = ask
            .held
            .iter()
            .map(|it| (it.kid, (it.epoch, it.generation)))
            .collect();
        let mut keys = Vec::new();
        for group in self.groups_of(terminal.number) {
            let Some(group) = self.groups.get(&group) else {
                continue;
            };
            let key = &group.master;
            let newest = (key.epoch(), key.generation());
            if held.get(&key.kid()).is_some_and(|&held| held >= newest) {
                continue;
            }
            if keys.len() == KEYS_A_GRANT {
                return (keys, true);
            }
            keys.push(KeyDistContents {
                key: key.duplicate(),
                search_key: group.search_key.as_ref().map(Secret::duplicate),
                activate_at: group.schedule.activate_at,
                cadence: group.schedule.cadence,
                lease_end: Some(self.at.wall.plus(self.lease(group))),
            });
        }
        (keys, false)
    }

    /// Who comes by a token gets what an enrolment package would bring, and asks for its keys under the
    /// wrap key in it.
    pub(super) fn grant_package(
        &self,
        terminal: &TerminalRecord,
        ask: &Ask,
        rng: &mut dyn Random,
    ) -> Grant {
        Grant {
            nonce: ask.nonce,
            time: self.at.wall,
            g: self.fleet.fleet_generation,
            keys: Vec::new(),
            gone: Vec::new(),
            more: true,
            first: Some(Secret::init_with(|into| rng.fill(into))),
            package: Some(self.package_of(terminal).encode()),
        }
    }

    /// Its own protection record and then those of the members of its packet groups, beginning anywhere,
    /// so that who asks often hears all. To who has shown that it receives.
    pub(super) fn send_records(
        &mut self,
        terminal: TerminalNumber,
        to: SocketAddr,
        rng: &mut dyn Random,
    ) {
        let packets = |group: &GroupNumber| {
            let group = self.groups.get(group);
            group.filter(|group| group.packets.is_some())
        };
        let groups = self.groups_of(terminal);
        let groups: Vec<_> = groups.iter().filter_map(packets).collect();
        let members = groups.iter().flat_map(|it| &it.members);
        let count: usize = groups.iter().map(|it| it.members.len()).sum();
        let granted = count.min(RECORDS_A_GRANT);
        let granted = self.desk.may_send_records(granted, self.at.now);
        let begin = if granted < count {
            u32::from_be_bytes(octets(rng)) as usize % count
        } else {
            0
        };
        let others: BTreeSet<_> = members
            .cycle()
            .skip(begin)
            .take(granted)
            .filter(|it| **it != terminal)
            .copied()
            .collect();
        for number in std::iter::once(terminal).chain(others) {
            if let Some(frame) = self.frame_of(Item::Record(number), rng) {
                let octets = command_datagram(&frame);
                self.outputs.push_back(Output::Send { to, octets });
            }
        }
    }

    /// The groups that a terminal is a member of now.
    pub(in crate::server) fn groups_of(&self, terminal: TerminalNumber) -> Vec<GroupNumber> {
        let memberships = self.terminals.get(&terminal).map(|it| &it.memberships);
        let mut groups: Vec<_> = memberships
            .into_iter()
            .flatten()
            .filter(|it| it.until.is_none())
            .map(|it| it.group)
            .collect();
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    fn is_member(&self, group: GroupNumber, terminal: TerminalNumber) -> bool {
        let group = self.groups.get(&group);
        group.is_some_and(|group| group.members.contains(&terminal))
    }
}

/// Records of others that one ask brings.
const RECORDS_A_GRANT: usize = 48;
/// Keys in one KEY-DIS; who lacks more asks again.
const KEYS_A_GRANT: usize = 256;
