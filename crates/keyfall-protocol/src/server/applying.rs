//! A stored change becomes what the server is, and what it says from now on.

use std::time::Duration;

use crate::ids::{GroupNumber, KeyIdKind, TerminalNumber, Tick, UnixSeconds};
use crate::keys::WrapKey;
use crate::server::{
    Change, Class, Exclusion, GroupRecord, IssuedOrder, Item, Membership, NewKeys, RecordIssue,
    Server, TerminalRecord,
};

impl Server {
    pub(super) fn apply(&mut self, change: Change) {
        let now = self.at.now;
        self.schedule_moves = None;
        match change {
            Change::Sequence(until) => self.fleet.sequence_reserved = until,
            Change::Terminal(terminal) => self.list_terminal(terminal),
            Change::Group(group) => self.found_group(group),
            Change::Member {
                group,
                terminal,
                from,
            } => self.join(group, terminal, from),
            Change::Left {
                group,
                terminal,
                until,
            } => self.leave(group, terminal, until),
            Change::Master { key, schedule } => {
                let number = key.group();
                let ahead = schedule.activate_at.since(self.at.wall);
                let mut fresh = false;
                if let Some(group) = self.groups.get_mut(&number) {
                    fresh = group.master.epoch() != key.epoch();
                    group.master = key;
                    group.schedule = schedule;
                }
                self.forget_distributions(number);
                self.frames.remove(&Item::Group(number));
                // RENEW of an epoch silences whoever lacks its key: the KEYDISTs go first, where there is
                // time for them.
                let wait = if fresh { ahead } else { 0 };
                let first = now.plus(Duration::from_secs(wait.into()));
                self.carousel.announce(Item::Group(number), first);
                if fresh {
                    self.begin_epoch(number);
                }
            }
            Change::Begun(begun) => self.begin_change(begun),
            // It was said when it ended.
            Change::Ended(_) => {}
            Change::Policy { group, policy } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.policy = policy;
                }
            }
            Change::Packets { group, packets } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.packets = packets;
                }
            }
            Change::SearchKey { group: number, key } => {
                if let Some(group) = self.groups.get_mut(&number) {
                    group.search_key = key;
                }
                self.forget_distributions(number);
            }
            Change::Addresses {
                terminal,
                addresses,
            } => {
                if let Some(terminal) = self.terminals.get_mut(&terminal) {
                    terminal.addresses = addresses;
                }
            }
            Change::Recorded(records) => self.renew_records(&records),
            Change::Stated { group, statement } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.statements.push(statement);
                }
            }
            Change::Fleet { generation, wraps } => {
                self.fleet.fleet_generation = generation;
                for wrap in wraps {
                    self.put_wrap(wrap);
                }
                self.callers.clear();
                // Every standing statement names G: all are made anew (FORMATS section 3.1).
                self.frames.clear();
                self.desk.beacon = None;
                self.carousel.announce(Item::Fleet, now);
            }
            Change::Wrap(wrap) => self.renew_wrap(wrap),
            Change::Mixed { wrap, at } => {
                if let Some(number) = self.move_wrap(wrap)
                    && let Some(terminal) = self.terminals.get_mut(&number)
                {
                    terminal.mixed_at = Some(at);
                    if let Some(token) = &mut terminal.token {
                        token.key = None;
                    }
                    self.desk.mixed.remove(&number);
                    self.forget_distributions_to(number);
                }
            }
            Change::LegacyKey { terminal, key } => {
                if let Some(terminal) = self.terminals.get_mut(&terminal) {
                    terminal.legacy_key = key;
                }
            }
            Change::TokenVoid(number) => {
                let terminal = self.terminals.get_mut(&number);
                if let Some(token) = terminal.and_then(|it| it.token.as_mut()) {
                    token.key = None;
                }
            }
            Change::Excluded(exclusion) => {
                for &number in &exclusion.terminals {
                    if let Some(terminal) = self.terminals.get_mut(&number) {
                        terminal.excluded_at = Some(exclusion.at);
                    }
                    self.frames.remove(&Item::Device(number));
                    self.peers.forget(number);
                }
                let (number, parts) = (exclusion.number, exclusion.parts());
                self.list_exclusion(exclusion, now.plus(Class::Exclude.pace()));
                for part in 0..parts {
                    self.carousel.announce(Item::Exclude(number, part), now);
                }
            }
            Change::Ordered { terminal, issued } => self.stand_order(terminal, issued),
            Change::Proved { terminal, hash, at } => {
                let orders = self.terminals.get_mut(&terminal).map(|it| &mut it.orders);
                for order in orders.into_iter().flatten() {
                    if order.hash == hash {
                        order.proved_at = Some(at);
                    }
                }
            }
            Change::Keys(keys) => self.install(*keys),
            Change::Restored(restored) => self.set_restored(*restored),
        }
    }

    pub(super) fn list_terminal(&mut self, terminal: TerminalRecord) {
        let (number, now) = (terminal.number, self.at.now);
        if terminal.erasure().is_some() {
            self.carousel.stand(Item::Erase(number), now);
        }
        if terminal.lock().is_some() {
            self.carousel.stand(Item::Lock(number), now);
        }
        if self.offset(&terminal) > 0 {
            self.carousel.stand(Item::Device(number), now);
        }
        if terminal.record.is_some() && terminal.excluded_at.is_none() {
            self.carousel.stand(Item::Record(number), now);
        }
        self.callers.moved(None, &terminal);
        self.terminal_names.insert(terminal.name.clone(), number);
        self.terminals.insert(number, terminal);
    }

    pub(super) fn list_group(&mut self, group: GroupRecord) {
        let number = group.number;
        self.group_names.insert(group.name.clone(), number);
        self.groups.insert(number, group);
        self.firsts.remove(&number);
        self.carousel.stand(Item::Group(number), self.at.now);
        for shard in 0..self.shards(number) {
            self.carousel.stand(Item::Dist(number, shard), self.at.now);
        }
    }

    /// It stands on the carousel from `first` on.
    pub(super) fn list_exclusion(&mut self, exclusion: Exclusion, first: Tick) {
        for part in 0..exclusion.parts() {
            let item = Item::Exclude(exclusion.number, part);
            self.carousel.stand(item, first);
        }
        self.exclusions.insert(exclusion.number, exclusion);
    }

    /// A G that is ahead of the root's schedule keeps its lead; one that is behind makes good what
    /// was missed.
    pub(super) fn follow_schedule(&mut self) {
        let schedule = self.fleet.key_set.fleet_schedule;
        let scheduled = schedule.generation_at(self.at.wall);
        self.ticked = scheduled.min(self.fleet.fleet_generation);
    }

    fn found_group(&mut self, group: GroupRecord) {
        let (number, members) = (group.number, group.members.clone());
        let from = group
            .statements
            .first()
            .map_or(self.at.wall, |first| first.stated_at);
        self.list_group(group);
        for terminal in members {
            self.remember_membership(number, terminal, from);
        }
        self.announce_distributions(number);
    }

    fn join(&mut self, number: GroupNumber, terminal: TerminalNumber, from: UnixSeconds) {
        let now = self.at.now;
        let before = self.shards(number);
        if let Some(group) = self.groups.get_mut(&number) {
            group.members.insert(terminal);
        }
        self.firsts.remove(&number);
        self.remember_membership(number, terminal, from);
        self.forget_distributions(number);
        for shard in before..self.shards(number) {
            self.carousel
                .stand(Item::Dist(number, shard), now.plus(Class::KeyDist.pace()));
        }
        if let Some(shard) = self.shard_of(number, terminal) {
            self.carousel.announce(Item::Dist(number, shard), now);
        }
    }

    /// The fresh epoch comes next.
    fn leave(&mut self, number: GroupNumber, terminal: TerminalNumber, until: UnixSeconds) {
        self.desk.forget_held(terminal, number);
        if let Some(group) = self.groups.get_mut(&number) {
            group.members.remove(&terminal);
        }
        self.firsts.remove(&number);
        let memberships = self
            .terminals
            .get_mut(&terminal)
            .map(|it| &mut it.memberships);
        for membership in memberships.into_iter().flatten() {
            if membership.group == number && membership.until.is_none() {
                membership.until = Some(until);
            }
        }
    }

    /// Its distributions go to those who are left.
    fn begin_epoch(&mut self, number: GroupNumber) {
        let left = self.shards(number);
        self.carousel.retire(
            |item| matches!(item, Item::Dist(group, shard) if group == number && shard >= left),
        );
        self.announce_distributions(number);
    }

    fn remember_membership(
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

    fn renew_records(&mut self, records: &[(TerminalNumber, RecordIssue)]) {
        let later = self.at.now.plus(Class::Record.pace());
        for &(number, issue) in records {
            let item = Item::Record(number);
            self.frames.remove(&item);
            let terminal = self.terminals.get_mut(&number);
            let before = terminal.and_then(|terminal| terminal.record.replace(issue));
            if before.is_none() {
                self.carousel.stand(item, later);
            }
        }
        self.tell_records(records.iter().map(|(number, _)| *number).collect());
    }

    fn put_wrap(&mut self, wrap: WrapKey) -> Option<TerminalNumber> {
        let number = wrap.kid().kind().and_then(KeyIdKind::terminal)?;
        self.terminals.get_mut(&number)?.wrap = wrap;
        Some(number)
    }

    /// As [`Self::put_wrap`], where it changes its name at the desk, too.
    fn move_wrap(&mut self, wrap: WrapKey) -> Option<TerminalNumber> {
        let number = wrap.kid().kind().and_then(KeyIdKind::terminal)?;
        let before = self.terminals.get(&number)?.wrap.key_req_id();
        self.put_wrap(wrap)?;
        self.callers
            .moved(Some(before), self.terminals.get(&number)?);
        Some(number)
    }

    /// Its KEYDISTs are for the new key at once, and it is told so.
    fn renew_wrap(&mut self, wrap: WrapKey) {
        let now = self.at.now;
        let Some(number) = self.move_wrap(wrap) else {
            return;
        };
        let item = Item::Device(number);
        self.frames.remove(&item);
        self.carousel.retire(|standing| standing == item);
        self.carousel.stand(item, now.plus(Class::Renew.pace()));
        self.carousel.announce(item, now);
        self.forget_distributions_to(number);
    }

    /// Its KEYDISTs are for another key from now on.
    fn forget_distributions_to(&mut self, number: TerminalNumber) {
        let now = self.at.now;
        let member = |group: &&GroupRecord| group.members.contains(&number);
        let groups: Vec<_> = self
            .groups
            .values()
            .filter(member)
            .map(|it| it.number)
            .collect();
        for group in groups {
            self.forget_distributions(group);
            if let Some(shard) = self.shard_of(group, number) {
                self.carousel.announce(Item::Dist(group, shard), now);
            }
        }
    }

    fn stand_order(&mut self, number: TerminalNumber, issued: IssuedOrder) {
        let now = self.at.now;
        let item = if issued.erases() {
            Item::Erase(number)
        } else {
            Item::Lock(number)
        };
        if let Some(terminal) = self.terminals.get_mut(&number) {
            terminal.orders.push(issued);
        }
        self.carousel.retire(|standing| standing == item);
        self.carousel.stand(item, now.plus(Class::Erase.pace()));
        self.carousel.announce(item, now);
    }

    fn install(&mut self, keys: NewKeys) {
        let now = self.at.now;
        self.fleet.key_set_frame = keys.key_set_frame;
        self.fleet.key_set = keys.key_set;
        self.fleet.beat = keys.beat;
        self.fleet.keys = keys.keys;
        self.fleet.kem = keys.kem.or_else(|| self.fleet.kem.take());
        self.fleet.kem_pq = keys.kem_pq.or_else(|| self.fleet.kem_pq.take());
        self.fleet.rsa = keys.rsa;
        self.drafted = None;
        self.owners.by_new_keys();
        // All is signed by the new keys from now on, and the exclusions that a theft made doubtful
        // stand again.
        self.frames.clear();
        self.carousel
            .retire(|item| matches!(item, Item::Exclude(..)));
        for exclusion in self.exclusions.values() {
            for part in 0..exclusion.parts() {
                self.carousel
                    .stand(Item::Exclude(exclusion.number, part), now);
            }
        }
        self.carousel.announce(Item::KeySet, now);
        self.carousel.announce(Item::Time, now);
    }

    fn announce_distributions(&mut self, number: GroupNumber) {
        for shard in 0..self.shards(number) {
            self.carousel
                .announce(Item::Dist(number, shard), self.at.now);
        }
    }

    fn forget_distributions(&mut self, number: GroupNumber) {
        self.frames
            .retain(|item, _| !matches!(item, Item::Dist(group, _) if *group == number));
    }
}
