//! The terminal-side machine: obeys signed commands, keeps keys, answers which key opens or sends
//! traffic.
//!
//! Drive it as the crate's front page says: one [`Terminal::handle_input`], then
//! [`Terminal::poll_output`] until [`Output::Timeout`].

mod budget;
mod group;
mod inspect;
mod obey;
mod snapshot;
mod traffic;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use zeroize::Zeroizing;

use budget::Budget;
pub use budget::Source;
use group::Group;
pub use group::Mark;
pub use inspect::{FrameVerdict, SealedVerdict, SignatureVerdict};
pub use snapshot::SnapshotError;
pub use traffic::{ReceiveKey, TrafficQuery, Trial};

use crate::command::{KeySet, ListedKey, SignerClass};
use crate::enrolment::{EnrolmentPackage, Identity, PackageError};
use crate::error::ApiMisuse;
use crate::ids::{
    Fingerprint, Generation, GroupNumber, Handle, KeyEpoch, SessionId, Tick, UnixSeconds,
};
use crate::keys::{MasterKey, ObeyKey, Ring, Wrap};
use crate::rng::{Random, octets};
use crate::stats::{DropCounters, DropReason};
use crate::trusted_time::TrustedTime;

/// One terminal. Owns its keys; has no clock, file, socket or randomness.
#[derive(Debug)]
pub struct Terminal {
    identity: Identity,
    key_set: KeySet,
    obey: ObeyKey,
    wrap: Ring<Wrap>,
    /// The handles under which distributions may name this terminal, for each wrap key held.
    handles: Vec<(Generation, Handle)>,
    groups: BTreeMap<GroupNumber, Group>,
    time: TrustedTime,
    /// The mark as the newest snapshot has it.
    stored_mark: UnixSeconds,
    held_trials: Budget,
    unheld_trials: Budget,
    /// Signatures that strangers can make this terminal check.
    verifications: Budget,
    drops: DropCounters,
    now: Tick,
    dirty: bool,
    store_asked: StoreId,
    store_done: StoreId,
    outputs: VecDeque<Output>,
    /// Events that must not be told before what they tell is durable.
    after_store: VecDeque<(StoreId, Event)>,
    /// Events of the present input.
    events: Vec<Event>,
}

/// What may be fed in.
#[derive(Debug)]
pub enum Input<'a> {
    /// A frame from a carrier. Whoever sent it: only the signature counts.
    Datagram(&'a [u8]),
    /// The time of [`Output::Timeout`] has come, or any other moment: too early does no harm.
    Timeout,
    /// Everything up to that [`Output::Store`] is durable.
    Stored(StoreId),
    /// What the media relay asks.
    Order(Order),
    /// A packet opened under this trial: the server's key chain moves to it.
    Opened(Trial),
}

/// What the local side asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Order {
    /// A fresh session for sending in a group; answered by [`Event::SessionReady`] once it is
    /// recorded, or by [`Event::SessionRefused`].
    OpenSession { group: GroupNumber },
    /// Nothing of these streams up to these indices will be delivered again; answered by
    /// [`Event::MarksStored`].
    Mark {
        group: GroupNumber,
        marks: Vec<Mark>,
    },
}

/// What the driver has to do.
#[must_use]
#[derive(Debug)]
pub enum Output {
    /// Make this snapshot durable, then feed [`Input::Stored`]. A later one replaces an earlier.
    Store(StoreId, Zeroizing<Vec<u8>>),
    /// Something that the relay, the log or an operator wants to know.
    Event(Event),
    /// Nothing more to do before `at` (`None`: before the next input).
    Timeout {
        at: Option<Tick>,
        reason: TimeoutReason,
    },
}

/// Names one [`Output::Store`]; they count up.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct StoreId(u64);

/// Why the machine wants to be called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeoutReason {
    /// Nothing is due.
    Idle,
    /// An old generation's grace ends: it is wiped.
    GraceEnd,
    /// A key renews by its validity period.
    Renewal,
    /// Sending moves to a generation that is held already.
    Activation,
    /// A key neither sends nor receives any more.
    LeaseEnd,
}

/// What happened. Where it tells of keys, it is told after they are durable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A KEYDIST brought a key.
    KeyReceived {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// A master key was renewed.
    Renewed {
        group: GroupNumber,
        from: Generation,
        to: Generation,
        cause: Cause,
    },
    /// The wrap key was renewed with G.
    FleetRenewed { from: Generation, to: Generation },
    /// From now on this terminal sends under this generation.
    Sending {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// A generation is held no longer; keys derived from it must go too.
    Retired {
        group: GroupNumber,
        epoch: KeyEpoch,
        generation: Generation,
    },
    /// The session may be used.
    SessionReady {
        group: GroupNumber,
        session: SessionId,
    },
    /// The group is not held.
    SessionRefused { group: GroupNumber },
    /// The marks are durable.
    MarksStored {
        group: GroupNumber,
        marks: Vec<Mark>,
    },
    /// The first beacon since power-on.
    TimeHeard { seconds: UnixSeconds },
}

/// The three instructions of renewal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    Command,
    Validity,
    Gap,
}

/// One held key as status shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupStatus {
    pub group: GroupNumber,
    pub epoch: KeyEpoch,
    /// The newest generation held.
    pub generation: Generation,
    /// The generation that this terminal sends with; `None` while it waits for a newer epoch.
    pub sending: Option<Generation>,
    /// The next instant at which it renews by itself.
    pub valid_until: Option<UnixSeconds>,
    pub lease_end: Option<UnixSeconds>,
    pub fingerprint: Fingerprint,
    /// Older generations that are received.
    pub in_grace: usize,
}

impl Terminal {
    /// A freshly enrolled terminal. Its first output is the store of its first snapshot.
    ///
    /// # Errors
    /// [`PackageError::KeySetNotSigned`].
    pub fn enrol(package: EnrolmentPackage, now: Tick) -> Result<Self, PackageError> {
        let key_set = package.identity.key_set()?;
        let mark = package.issued_at.max(key_set.issued_at);
        let mut terminal = Self::assemble(
            package.identity,
            key_set,
            package.obey,
            Ring::new(package.wrap),
            BTreeMap::new(),
            TrustedTime::new(mark),
            now,
        );
        terminal.dirty = true;
        terminal.settle();
        Ok(terminal)
    }

    fn assemble(
        identity: Identity,
        key_set: KeySet,
        obey: ObeyKey,
        wrap: Ring<Wrap>,
        groups: BTreeMap<GroupNumber, Group>,
        time: TrustedTime,
        now: Tick,
    ) -> Self {
        let mut terminal = Self {
            identity,
            key_set,
            obey,
            wrap,
            handles: Vec::new(),
            groups,
            stored_mark: time.mark(),
            time,
            // FORMATS section 3.2: first packets under a held generation, and trials of one that
            // is not held.
            held_trials: Budget::new(64, 20_000),
            unheld_trials: Budget::new(4, 64),
            verifications: Budget::new(VERIFICATIONS, VERIFICATIONS),
            drops: DropCounters::default(),
            now,
            dirty: false,
            store_asked: StoreId(0),
            store_done: StoreId(0),
            outputs: VecDeque::new(),
            after_store: VecDeque::new(),
            events: Vec::new(),
        };
        terminal.list_handles();
        terminal
    }

    /// Takes one input. What a peer did wrong is counted, not returned.
    ///
    /// # Errors
    /// [`ApiMisuse`] where the driver broke the contract; nothing changed then.
    pub fn handle_input(
        &mut self,
        now: Tick,
        rng: &mut dyn Random,
        input: Input<'_>,
    ) -> Result<(), ApiMisuse> {
        // Time that runs backwards is ignored.
        self.now = self.now.max(now);
        match input {
            Input::Datagram(octets) => {
                if let Err(reason) = self.on_frame(octets) {
                    self.drops.count(self.now, reason);
                }
            }
            Input::Timeout => {}
            Input::Stored(id) => self.on_stored(id)?,
            Input::Order(order) => self.on_order(order, rng),
            Input::Opened(trial) => self.on_opened(trial),
        }
        self.settle();
        Ok(())
    }

    /// The next thing to do; call until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        self.outputs
            .pop_front()
            .unwrap_or_else(|| self.next_timeout())
    }

    /// Who this terminal is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The keys that may command it.
    #[must_use]
    pub fn key_set(&self) -> &KeySet {
        &self.key_set
    }

    /// Why frames and packets came to nothing.
    #[must_use]
    pub fn drops(&self) -> &DropCounters {
        &self.drops
    }

    /// Counts what the relay dropped, beside the machine's own reasons.
    pub fn count_drop(&mut self, reason: DropReason) {
        self.drops.count(self.now, reason);
    }

    /// Wall time as beacons tell; `None` before the first since power-on.
    #[must_use]
    pub fn time(&self) -> Option<UnixSeconds> {
        self.time.at(self.now)
    }

    /// G as this terminal holds it, and the fingerprint of its wrap key.
    #[must_use]
    pub fn fleet_generation(&self) -> (Generation, Fingerprint) {
        let newest = self.wrap.newest();
        (newest.generation(), newest.fingerprint())
    }

    /// The fingerprint of the obey key.
    #[must_use]
    pub fn obey_fingerprint(&self) -> Fingerprint {
        self.obey.fingerprint()
    }

    /// One word for people.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        if self.groups.is_empty() {
            "enrolled"
        } else {
            "ready"
        }
    }

    /// Every group held, by number.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupStatus> {
        let time = self.time();
        let status = |(&number, group): (&GroupNumber, &Group)| GroupStatus {
            group: number,
            epoch: group.epoch(),
            generation: group.newest(),
            sending: group.sending_key().map(MasterKey::generation),
            valid_until: time.and_then(|now| group.schedule.next_change(now)),
            lease_end: group.lease_end,
            fingerprint: group.ring.newest().fingerprint(),
            in_grace: group.ring.all().count() - 1,
        };
        self.groups.iter().map(status).collect()
    }

    fn on_stored(&mut self, id: StoreId) -> Result<(), ApiMisuse> {
        if id > self.store_asked || id <= self.store_done {
            let open = self.store_asked > self.store_done;
            let expected = open.then(|| self.store_done.0 + 1);
            return Err(ApiMisuse::NotStoring {
                got: id.0,
                expected,
            });
        }
        self.store_done = id;
        while self
            .after_store
            .front()
            .is_some_and(|&(store, _)| store <= id)
        {
            if let Some((_, event)) = self.after_store.pop_front() {
                self.outputs.push_back(Output::Event(event));
            }
        }
        Ok(())
    }

    fn on_order(&mut self, order: Order, rng: &mut dyn Random) {
        match order {
            Order::OpenSession { group: number } => {
                let Some(group) = self.groups.get_mut(&number) else {
                    self.events.push(Event::SessionRefused { group: number });
                    return;
                };
                let mut session = SessionId::new(octets(rng));
                while !group.record_session(session) {
                    session = SessionId::new(octets(rng));
                }
                self.dirty = true;
                self.events.push(Event::SessionReady {
                    group: number,
                    session,
                });
            }
            Order::Mark {
                group: number,
                marks,
            } => {
                if let Some(group) = self.groups.get_mut(&number) {
                    for &mark in &marks {
                        group.record_mark(mark);
                    }
                    self.dirty = true;
                }
                self.events.push(Event::MarksStored {
                    group: number,
                    marks,
                });
            }
        }
    }

    /// What follows every input: renewals that are due, graces that ended, sending that moves, and
    /// one store for all of it.
    fn settle(&mut self) {
        let time = self.time();
        let until = self.grace_end();
        if let Some(now) = time {
            let scheduled = now.min(self.signers_expire());
            self.step_fleet(self.key_set.fleet_schedule.generation_at(scheduled));
        }
        for (&number, group) in &mut self.groups {
            if let Some(now) = time {
                let due = group.schedule.generation_at(now);
                if due > group.newest() {
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
            let held: Vec<_> = group
                .ring
                .all()
                .map(|key| (key.epoch(), key.generation()))
                .collect();
            group.ring.expire(self.now);
            for (epoch, generation) in held {
                if group.ring.at(epoch, generation).is_none() {
                    let event = Event::Retired {
                        group: number,
                        epoch,
                        generation,
                    };
                    self.outputs.push_back(Output::Event(event));
                }
            }
        }
        if self.wrap.expire(self.now) {
            self.list_handles();
        }
        self.ask_store();
        for (&number, group) in &mut self.groups {
            if group.settle_activation(self.store_done, self.now, until) {
                let event = Event::Sending {
                    group: number,
                    epoch: group.epoch(),
                    generation: group.newest(),
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
            for group in self.groups.values_mut() {
                if let Some(activation) = &mut group.activation {
                    activation.store.get_or_insert(self.store_asked);
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

    fn next_timeout(&self) -> Output {
        let time = self.time();
        let tick = |due: Option<UnixSeconds>| due.and_then(|due| self.time.tick_of(due));
        let grace = self
            .groups
            .values()
            .filter_map(|group| group.ring.next_expiry())
            .chain(self.wrap.next_expiry())
            .filter(|&at| at < Tick::from_nanos(u64::MAX))
            .min();
        let renewal = self
            .groups
            .values()
            .filter_map(|group| time.and_then(|now| group.schedule.next_change(now)))
            .chain(time.map(|now| self.key_set.fleet_schedule.next_change(now)))
            .filter_map(|due| tick(Some(due)))
            .min();
        let activation = self
            .groups
            .values()
            .filter_map(|group| group.activation.as_ref())
            .filter(|activation| activation.store.is_some_and(|id| id <= self.store_done))
            .filter_map(|activation| activation.at)
            .min();
        let lease = self
            .groups
            .values()
            .filter_map(|group| group.lease_end)
            .filter(|&end| time.is_some_and(|now| now <= end))
            .filter_map(|end| tick(Some(end.plus(1))))
            .min();
        let due = [
            (grace, TimeoutReason::GraceEnd),
            (renewal, TimeoutReason::Renewal),
            (activation, TimeoutReason::Activation),
            (lease, TimeoutReason::LeaseEnd),
        ];
        due.into_iter()
            .filter_map(|(at, reason)| at.map(|at| (at, reason)))
            .min_by_key(|&(at, _)| at)
            .map_or(
                Output::Timeout {
                    at: None,
                    reason: TimeoutReason::Idle,
                },
                |(at, reason)| Output::Timeout {
                    at: Some(at),
                    reason,
                },
            )
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

    /// When sending moves to a key that is active at `activate_at`: by trusted time, but no longer
    /// after receipt than the server gave it, so that a clock that was made to lag (W-10) cannot
    /// keep this terminal on an old generation. `None`: at once, also without trusted time.
    fn activation(&self, activate_at: UnixSeconds, issued_at: UnixSeconds) -> Option<Tick> {
        let wait = activate_at
            .since(self.time()?)
            .min(activate_at.since(issued_at))
            .min(ACTIVATION_MAX);
        let span = Duration::from_secs(u64::from(wait));
        (wait > 0).then(|| self.now.plus(span))
    }

    fn grace_end(&self) -> Tick {
        Group::grace_end(self.now, self.key_set.limits.grace)
    }

    fn keep_end(&self) -> Tick {
        self.now
            .plus(Duration::from_secs(u64::from(self.identity.keep_time)))
    }

    fn list_handles(&mut self) {
        self.handles = self
            .wrap
            .all()
            .map(|key| (key.generation(), key.handle()))
            .collect();
    }
}

/// Seconds that a key may wait for its activation.
const ACTIVATION_MAX: u32 = 3600;
/// Signatures that are checked in a second.
const VERIFICATIONS: u32 = 1000;

#[cfg(test)]
mod tests;
