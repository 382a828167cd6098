//! Simulated disks: what was not synced is lost in a crash.

use std::collections::BTreeMap;
use std::time::Duration;

use keyfall_protocol::command::SigningKey;
use keyfall_protocol::ids::{GroupNumber, KeyIdKind, TerminalNumber, UnixSeconds};
use keyfall_protocol::keys::{PreSharedKey, Secret, WrapKey};
use keyfall_protocol::server::{
    Batch, Change, Exclusion, FleetRecord, GroupRecord, Membership, NewKeys, TerminalRecord,
};
use keyfall_protocol::sharing::KemSecret;
use keyfall_protocol::sharing::rsa_misty1::RsaSecret;
use keyfall_protocol::token::TokenRecord;

/// How long a store takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StoreDelay {
    /// From asking to being durable.
    pub write: Duration,
    /// From being durable to `Stored`.
    pub confirm: Duration,
}

impl Default for StoreDelay {
    fn default() -> Self {
        Self {
            write: Duration::from_millis(5),
            confirm: Duration::from_millis(1),
        }
    }
}

/// The server's database, as far as it was committed.
#[derive(Debug)]
pub struct ServerDisk {
    fleet: FleetRecord,
    terminals: BTreeMap<TerminalNumber, TerminalRecord>,
    groups: BTreeMap<GroupNumber, GroupRecord>,
    exclusions: BTreeMap<u32, Exclusion>,
}

/// What a server that starts reads.
pub type Stored = (
    FleetRecord,
    Vec<TerminalRecord>,
    Vec<GroupRecord>,
    Vec<Exclusion>,
);

impl ServerDisk {
    /// What `server init` wrote.
    #[must_use]
    pub fn new(fleet: FleetRecord) -> Self {
        Self {
            fleet,
            terminals: BTreeMap::new(),
            groups: BTreeMap::new(),
            exclusions: BTreeMap::new(),
        }
    }

    /// The same once more.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        let (fleet, terminals, groups, exclusions) = self.load();
        Self {
            fleet,
            terminals: terminals.into_iter().map(|it| (it.number, it)).collect(),
            groups: groups.into_iter().map(|it| (it.number, it)).collect(),
            exclusions: exclusions.into_iter().map(|it| (it.number, it)).collect(),
        }
    }

    /// Commits a batch: all of it.
    pub fn commit(&mut self, batch: &Batch) {
        for change in &batch.changes {
            self.write(change);
        }
    }

    /// What a server that starts now reads.
    #[must_use]
    pub fn load(&self) -> Stored {
        let terminals = self.terminals.values().map(copy_terminal).collect();
        let groups = self.groups.values().map(copy_group).collect();
        let exclusions = self.exclusions.values().cloned().collect();
        (copy_fleet(&self.fleet), terminals, groups, exclusions)
    }

    #[must_use]
    pub fn fleet(&self) -> &FleetRecord {
        &self.fleet
    }

    #[must_use]
    pub fn group(&self, number: GroupNumber) -> Option<&GroupRecord> {
        self.groups.get(&number)
    }

    #[must_use]
    pub fn terminal(&self, number: TerminalNumber) -> Option<&TerminalRecord> {
        self.terminals.get(&number)
    }

    pub fn exclusions(&self) -> impl Iterator<Item = &Exclusion> {
        self.exclusions.values()
    }

    fn write(&mut self, change: &Change) {
        match change {
            Change::Sequence(until) => self.fleet.sequence_reserved = *until,
            Change::Terminal(terminal) => {
                self.terminals
                    .insert(terminal.number, copy_terminal(terminal));
            }
            Change::Group(group) => {
                self.groups.insert(group.number, copy_group(group));
                let from = group.statements.first().map(|first| first.stated_at);
                for &member in &group.members {
                    self.begin_membership(group.number, member, from.unwrap_or(EARLIEST));
                }
            }
            Change::Member {
                group,
                terminal,
                from,
            } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.members.insert(*terminal);
                }
                self.begin_membership(*group, *terminal, *from);
            }
            Change::Left {
                group,
                terminal,
                until,
            } => self.end_membership(*group, *terminal, *until),
            Change::Master { key, schedule } => {
                if let Some(group) = self.groups.get_mut(&key.group()) {
                    group.master = key.duplicate();
                    group.schedule = *schedule;
                }
            }
            Change::Packets { group, packets } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.packets.clone_from(packets);
                }
            }
            Change::SearchKey { group, key } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.search_key = key.as_ref().map(Secret::duplicate);
                }
            }
            Change::Addresses {
                terminal,
                addresses,
            } => {
                if let Some(terminal) = self.terminals.get_mut(terminal) {
                    terminal.addresses.clone_from(addresses);
                }
            }
            Change::Recorded(records) => {
                for (number, issue) in records {
                    if let Some(terminal) = self.terminals.get_mut(number) {
                        terminal.record = Some(*issue);
                    }
                }
            }
            // What came of it is for people.
            Change::Begun(_) | Change::Ended(_) => {}
            Change::Policy { group, policy } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.policy = *policy;
                }
            }
            Change::Mixed { wrap, at } => {
                self.put_wrap(wrap);
                let number = wrap.kid().kind().and_then(KeyIdKind::terminal);
                if let Some(terminal) = number.and_then(|it| self.terminals.get_mut(&it)) {
                    terminal.mixed_at = Some(*at);
                    if let Some(token) = &mut terminal.token {
                        token.key = None;
                    }
                }
            }
            Change::Stated { group, statement } => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.statements.push(*statement);
                }
            }
            Change::Fleet { generation, wraps } => {
                self.fleet.fleet_generation = *generation;
                wraps.iter().for_each(|wrap| self.put_wrap(wrap));
            }
            Change::Wrap(wrap) => self.put_wrap(wrap),
            Change::LegacyKey { terminal, key } => {
                if let Some(terminal) = self.terminals.get_mut(terminal) {
                    terminal.legacy_key = key.clone();
                }
            }
            Change::TokenVoid(number) => {
                let terminal = self.terminals.get_mut(number);
                if let Some(token) = terminal.and_then(|it| it.token.as_mut()) {
                    token.key = None;
                }
            }
            Change::Excluded(exclusion) => {
                for number in &exclusion.terminals {
                    if let Some(terminal) = self.terminals.get_mut(number) {
                        terminal.excluded_at = Some(exclusion.at);
                    }
                }
                self.exclusions.insert(exclusion.number, exclusion.clone());
            }
            Change::Ordered { terminal, issued } => {
                if let Some(terminal) = self.terminals.get_mut(terminal) {
                    terminal.orders.push(issued.clone());
                }
            }
            Change::Proved { terminal, hash, at } => {
                let terminal = self.terminals.get_mut(terminal);
                let orders = terminal.map(|terminal| &mut terminal.orders);
                for order in orders.into_iter().flatten() {
                    if order.hash == *hash {
                        order.proved_at = Some(*at);
                    }
                }
            }
            Change::Keys(keys) => self.install(keys),
            // No server of the simulation is restored.
            Change::Restored(_) => {}
        }
    }

    fn begin_membership(
        &mut self,
        group: GroupNumber,
        terminal: TerminalNumber,
        from: UnixSeconds,
    ) {
        if let Some(terminal) = self.terminals.get_mut(&terminal) {
            terminal.memberships.push(Membership {
                group,
                from,
                until: None,
            });
        }
    }

    fn end_membership(
        &mut self,
        number: GroupNumber,
        terminal: TerminalNumber,
        until: UnixSeconds,
    ) {
        if let Some(group) = self.groups.get_mut(&number) {
            group.members.remove(&terminal);
        }
        let terminal = self.terminals.get_mut(&terminal);
        let memberships = terminal.map(|terminal| &mut terminal.memberships);
        for membership in memberships.into_iter().flatten() {
            if membership.group == number && membership.until.is_none() {
                membership.until = Some(until);
            }
        }
    }

    fn put_wrap(&mut self, wrap: &WrapKey) {
        let owner = wrap.kid().kind().and_then(KeyIdKind::terminal);
        let owner = owner.and_then(|number| self.terminals.get_mut(&number));
        if let Some(owner) = owner {
            owner.wrap = wrap.duplicate();
        }
    }

    fn install(&mut self, keys: &NewKeys) {
        self.fleet.key_set_frame.clone_from(&keys.key_set_frame);
        self.fleet.key_set = keys.key_set.clone();
        self.fleet.beat = copy_signer(&keys.beat);
        self.fleet.keys = copy_signer(&keys.keys);
        self.fleet.rsa = keys.rsa.as_ref().map(RsaSecret::duplicate);
        for (held, next) in [
            (&mut self.fleet.kem, &keys.kem),
            (&mut self.fleet.kem_pq, &keys.kem_pq),
        ] {
            if let Some(next) = next {
                *held = Some(next.duplicate());
            }
        }
    }
}

fn copy_signer(key: &SigningKey) -> SigningKey {
    SigningKey::from_seed(key.seed().duplicate())
}

fn copy_fleet(fleet: &FleetRecord) -> FleetRecord {
    FleetRecord {
        name: fleet.name.clone(),
        stream: fleet.stream,
        root: fleet.root,
        key_set_frame: fleet.key_set_frame.clone(),
        key_set: fleet.key_set.clone(),
        beat: copy_signer(&fleet.beat),
        keys: copy_signer(&fleet.keys),
        kem: fleet.kem.as_ref().map(KemSecret::duplicate),
        kem_pq: fleet.kem_pq.as_ref().map(KemSecret::duplicate),
        rsa: fleet.rsa.as_ref().map(RsaSecret::duplicate),
        fleet_generation: fleet.fleet_generation,
        sequence_reserved: fleet.sequence_reserved,
        carriers: fleet.carriers.clone(),
        servers: fleet.servers.clone(),
        listen: fleet.listen.clone(),
        keep_time: fleet.keep_time,
        epoch_life: fleet.epoch_life,
        bits_per_second: fleet.bits_per_second,
    }
}

fn copy_terminal(terminal: &TerminalRecord) -> TerminalRecord {
    TerminalRecord {
        number: terminal.number,
        name: terminal.name.clone(),
        obey: PreSharedKey::duplicate(&terminal.obey),
        wrap: PreSharedKey::duplicate(&terminal.wrap),
        added_at: terminal.added_at,
        package_expires: terminal.package_expires,
        wipe_roots: terminal.wipe_roots.clone(),
        token: terminal.token.as_ref().map(|token| TokenRecord {
            id: token.id,
            key: token.key.as_ref().map(PreSharedKey::duplicate),
        }),
        mixed_at: terminal.mixed_at,
        legacy_key: terminal.legacy_key.clone(),
        addresses: terminal.addresses.clone(),
        record: terminal.record,
        excluded_at: terminal.excluded_at,
        memberships: terminal.memberships.clone(),
        orders: terminal.orders.clone(),
    }
}

fn copy_group(group: &GroupRecord) -> GroupRecord {
    GroupRecord {
        number: group.number,
        name: group.name.clone(),
        members: group.members.clone(),
        master: group.master.duplicate(),
        schedule: group.schedule,
        lease: group.lease,
        policy: group.policy,
        packets: group.packets.clone(),
        search_key: group.search_key.as_ref().map(Secret::duplicate),
        statements: group.statements.clone(),
    }
}

/// Every group has a first statement.
const EARLIEST: UnixSeconds = UnixSeconds::new(0);
