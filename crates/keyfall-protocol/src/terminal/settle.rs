//! What follows every input: powered-on time, renewals and ends that are due, sending that moves,
//! and one store for all of it.

use crate::command::{ListedKey, SignerClass};
use crate::ids::{Generation, GroupNumber, KeyEpoch, UnixSeconds};
use crate::schedule::generation_bound;
use crate::terminal::group::Group;
use crate::terminal::{Cause, EraseCause, Event, Output, Terminal};

impl Terminal {
    pub(super) fn settle(&mut self) {
        if self.obey.is_none() {
            return;
        }
        self.dirty |= self.powered.charge(self.now);
        if self.is_dead_man() {
            self.erase(false, EraseCause::DeadMan, None);
            return;
        }
        if let Some(now) = self.time() {
            let scheduled = now.min(self.signers_expire());
            self.step_fleet(self.key_set.fleet_schedule.generation_at(scheduled));
        }
        self.renew_by_validity();
        self.end_stops();
        self.follow_changes();
        self.wipe_what_ended();
        self.end_stock_senders();
        self.ask_store();
        self.move_sending();
        self.confirm_changes();
    }

    /// The time since the last lease has passed: by what the root says of the clock, or by powered-on
    /// time (FORMATS section 9).
    fn is_dead_man(&self) -> bool {
        let time = Some(self.time.confirmed());
        let dead_man = self.key_set.limits.dead_man;
        self.last_lease
            .is_over(dead_man, time, self.powered.charged())
    }

    fn renew_by_validity(&mut self) {
        let (until, expires) = (self.grace_end(), self.signers_expire());
        let (Some(now), Some(user)) = (self.time(), self.user.as_mut()) else {
            return;
        };
        for (&number, group) in &mut user.groups {
            // SECURITY: no schedule, however far back it begins, runs a terminal through a longer
            // chain than its signer could have named (FORMATS section 2.1).
            let bound = generation_bound(group.epoch(), expires);
            let due = group.schedule.generation_at(now).min(bound);
            if due <= group.newest() {
                continue;
            }
            let from = group.newest();
            let next = group.ring.newest().duplicate().renew_to(due);
            group.install(next, None, until);
            self.dirty = true;
            let cause = Cause::Validity;
            self.events.push(Event::Renewed {
                group: number,
                from,
                to: due,
                cause,
            });
        }
    }

    /// Generations past their grace, and keys whose lease and dead man's time are over.
    fn wipe_what_ended(&mut self) {
        let confirmed = Some(self.time.confirmed());
        let (powered, dead_man) = (self.powered.charged(), self.key_set.limits.dead_man);
        let Some(user) = self.user.as_mut() else {
            return;
        };
        let mut gone = Vec::new();
        for (&number, group) in &mut user.groups {
            let held = names(number, group);
            if group.ring.expire(self.now) {
                let ring = &group.ring;
                group
                    .packets
                    .forget(|epoch, generation| ring.at(epoch, generation).is_some());
            }
            gone.extend(
                held.into_iter()
                    .filter(|&(_, epoch, generation)| group.ring.at(epoch, generation).is_none()),
            );
        }
        let ended = |group: &Group| {
            let lease = group.lease;
            lease.is_some_and(|lease| lease.is_over(dead_man, confirmed, powered))
        };
        let before = user.groups.len();
        for (&number, group) in user.groups.iter().filter(|(_, group)| ended(group)) {
            gone.extend(names(number, group));
        }
        user.groups.retain(|_, group| !ended(group));
        self.dirty |= user.groups.len() < before;
        if user.wrap.expire(self.now) {
            user.list_handles();
        }
        for (group, epoch, generation) in gone {
            let event = Event::Retired {
                group,
                epoch,
                generation,
            };
            self.outputs.push_back(Output::Event(event));
        }
    }

    fn move_sending(&mut self) {
        let until = self.grace_end();
        let Some(user) = self.user.as_mut() else {
            return;
        };
        for (&number, group) in &mut user.groups {
            let mut moved = group.settle_activation(self.store_done, self.now, until);
            moved |= group.move_to_started(self.store_done);
            if let (true, Some((epoch, generation))) = (moved, group.sending) {
                let event = Event::Sending {
                    group: number,
                    epoch,
                    generation,
                };
                self.outputs.push_back(Output::Event(event));
            }
        }
    }

    /// One store at a time: what changes while one is open goes, with its events, into the next.
    fn ask_store(&mut self) {
        let open = self.store_asked > self.store_done;
        if self.dirty && open {
            return;
        }
        if self.dirty {
            self.dirty = false;
            self.store_asked.0 += 1;
            self.stored_mark = self.time.mark();
            if let Some((by, _)) = &mut self.carried_out {
                by.get_or_insert(self.store_asked);
            }
            if let Some(user) = self.user.as_mut() {
                self.held = user
                    .groups
                    .iter()
                    .map(|(&number, group)| (number, group.epoch()))
                    .collect();
                for group in user.groups.values_mut() {
                    if let Some(activation) = &mut group.activation {
                        activation.store.get_or_insert(self.store_asked);
                    }
                    let change = group.change.as_mut();
                    if let Some(owed) = change.and_then(|change| change.owed.as_mut()) {
                        owed.store.get_or_insert(self.store_asked);
                    }
                }
            }
            self.outputs
                .push_back(Output::Store(self.store_asked, self.snapshot()));
        }
        let told_after = self.store_asked;
        for event in self.events.drain(..) {
            if told_after > self.store_done {
                self.after_store.push_back((told_after, event));
            } else {
                self.outputs.push_back(Output::Event(event));
            }
        }
    }

    /// When the last of the keys ends that may name G: the root's schedule says nothing after it.
    fn signers_expire(&self) -> UnixSeconds {
        let names_g = |key: &&ListedKey| matches!(key.class, SignerClass::Beat | SignerClass::Keys);
        let listed = self.key_set.keys.iter().filter(names_g);
        listed
            .map(|key| key.expires)
            .max()
            .unwrap_or(self.key_set.issued_at)
    }
}

fn names(number: GroupNumber, group: &Group) -> Vec<(GroupNumber, KeyEpoch, Generation)> {
    let name = |key: &crate::keys::MasterKey| (number, key.epoch(), key.generation());
    group.ring.all().map(name).collect()
}
