//! The server-side machine: keeps every key, turns orders into changes, and composes what the
//! carousel sends.
//!
//! Store before send: an order becomes a [`Batch`], which the driver makes durable; only
//! [`Input::Stored`] applies it to memory, and only then anything of it is transmitted. A batch
//! that could not be stored ([`Input::NotStored`]) has never happened.

mod applying;
mod callers;
mod carousel;
mod changing;
mod compose;
mod desk;
mod exposure;
mod founding;
mod orders;
mod owners;
mod peers;
mod protecting;
mod records;
mod refusal;
mod restoring;
mod standing;

use core::net::SocketAddr;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use callers::Callers;
use carousel::Carousel;
pub use carousel::{Class, ClassReport, Item};
use changing::Changing;
pub use changing::{
    ChangeBegun, ChangeCause, ChangeMode, ChangeReport, ChangeState, ChangeTimes,
    ConfirmationCounts, GroupPolicy, Phase, Straggler, Stragglers,
};
use desk::Desk;
pub use desk::{DeskCounts, Job, Worked};
pub use exposure::{Deletion, Exposure, GroupExposure};
pub use founding::Founding;
pub use orders::{
    ACTIVATION_LEAD, AddressWish, CHANGE_LEAD, Done, DraftedKeys, EXCLUDED_A_DAY, GRACE_MIN,
    KeySetDraft, Order, PackageSealing, PacketWish, Reach, SealedFor, TOKEN_LIFE, TOKEN_LIFE_MAX,
    TOKEN_LIFE_MIN, TokenMisuse, WIPE_ROOTS_MAX,
};
use owners::Owners;
use peers::Peers;
pub use protecting::{Addresses, PacketSettings, RecordIssue};
pub use records::{
    AuditEntry, Batch, Change, Exclusion, FleetRecord, GroupRecord, IssuedOrder, JournalEntry,
    Membership, NewKeys, OFFSET_MAX, Statement, TerminalRecord,
};
pub use refusal::Refusal;
pub use restoring::{CaughtUp, Floors, Hold, Restored, Since};

use crate::error::ApiMisuse;
use crate::ids::{
    Generation, GroupNumber, KeyIdKind, SequenceNumber, TerminalNumber, Tick, UnixSeconds,
};
use crate::rng::Random;

/// The one authority over keys. Owns all of them; has no clock, file, socket or randomness.
#[derive(Debug)]
pub struct Server {
    fleet: FleetRecord,
    terminals: BTreeMap<TerminalNumber, TerminalRecord>,
    groups: BTreeMap<GroupNumber, GroupRecord>,
    exclusions: BTreeMap<u32, Exclusion>,
    peers: Peers,
    owners: Owners,
    callers: Callers,
    changing: Changing,
    /// Names in use, for orders that name things.
    terminal_names: HashMap<String, TerminalNumber>,
    group_names: HashMap<String, GroupNumber>,
    /// The next sequence number; below the reservation.
    sequence: SequenceNumber,
    carousel: Carousel,
    /// Composed frames of standing statements; emptied where the statement changed.
    frames: HashMap<Item, Composed>,
    /// Of each group the first member of each of its KEYDISTs; emptied where its members changed.
    firsts: HashMap<GroupNumber, Vec<TerminalNumber>>,
    /// A KEYSET that waits for the root's signature.
    drafted: Option<DraftedKeys>,
    desk: Desk,
    restored: Restored,
    waiting: VecDeque<(Option<OrderId>, Order, By)>,
    storing: Option<Storing>,
    store_asked: StoreId,
    /// G as the root's schedule had it when it last moved G.
    ticked: Generation,
    /// The two clocks when they last agreed.
    anchor: Moment,
    /// Seconds by which the wall clock has jumped ahead of the monotonic one since the start.
    jumped: u32,
    /// Before it no group whose epoch's life has ended gets a fresh one.
    next_aged: Tick,
    /// No schedule moves before then; `None`: to be reckoned.
    schedule_moves: Option<UnixSeconds>,
    /// Why the last scheduled renewal did not happen.
    schedule_refused: Option<Refusal>,
    /// Where the floors of the next beacon begin.
    floors_from: usize,
    /// After a batch that could not be stored, nothing new is begun before this.
    store_again: Tick,
    outputs: VecDeque<Output>,
    at: Moment,
}

#[derive(Debug)]
struct Composed {
    octets: Vec<u8>,
    issued_at: UnixSeconds,
}

#[derive(Debug)]
struct Storing {
    id: StoreId,
    order: Option<OrderId>,
    batch: Batch,
    done: Done,
}

/// The driver's two clocks at one input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    pub now: Tick,
    pub wall: UnixSeconds,
}

/// What may be fed in.
#[derive(Debug)]
pub enum Input {
    /// The time of [`Output::Timeout`] has come, or any other moment.
    Timeout,
    /// An operator's order.
    Order { id: OrderId, order: Order, by: By },
    /// That batch is durable.
    Stored(StoreId),
    /// That batch could not be made durable; it has not happened.
    NotStored(StoreId),
    /// What came by UDP, marker included; only what it proves counts.
    Datagram { from: SocketAddr, octets: Vec<u8> },
    /// A job of [`Output::Work`] is done.
    Worked(Worked),
}

/// What the driver has to do.
#[must_use]
#[derive(Debug)]
pub enum Output {
    /// Make [`Server::batch`] durable, then feed [`Input::Stored`] or [`Input::NotStored`].
    Store(StoreId),
    /// Send on every carrier.
    Transmit { item: Item, frame: Vec<u8> },
    /// Send by UDP, to one.
    Send { to: SocketAddr, octets: Vec<u8> },
    /// Run it somewhere, then feed [`Input::Worked`]: now or later, in any order, or never.
    Work(Job),
    /// An order has ended.
    Done {
        id: OrderId,
        outcome: Result<Done, Refusal>,
    },
    /// Nothing more to do before `at`.
    Timeout { at: Option<Tick> },
}

/// Names one [`Output::Store`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct StoreId(u64);

/// Names one order; the driver chooses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct OrderId(pub u64);

/// Who orders, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct By {
    pub actor: String,
    pub reason: Option<String>,
    pub ticket: Option<String>,
}

impl Server {
    /// From what the store holds. Its first output reserves sequence numbers.
    #[must_use]
    pub fn new(
        fleet: FleetRecord,
        terminals: Vec<TerminalRecord>,
        groups: Vec<GroupRecord>,
        exclusions: Vec<Exclusion>,
        at: Moment,
    ) -> Self {
        let carousel = Carousel::new(fleet.bits_per_second);
        let mut server = Self {
            sequence: fleet.sequence_reserved.max(SequenceNumber::at(at.wall)),
            fleet,
            terminals: BTreeMap::new(),
            groups: BTreeMap::new(),
            exclusions: BTreeMap::new(),
            peers: Peers::default(),
            owners: Owners::default(),
            callers: Callers::default(),
            changing: Changing::default(),
            terminal_names: HashMap::new(),
            group_names: HashMap::new(),
            carousel,
            frames: HashMap::new(),
            firsts: HashMap::new(),
            drafted: None,
            desk: Desk::new(),
            restored: Restored::default(),
            waiting: VecDeque::new(),
            storing: None,
            store_asked: StoreId(0),
            ticked: Generation::ZERO,
            anchor: at,
            jumped: 0,
            next_aged: Tick::default(),
            schedule_moves: None,
            schedule_refused: None,
            floors_from: 0,
            store_again: at.now,
            outputs: VecDeque::new(),
            at,
        };
        server.follow_schedule();
        for item in [Item::Time, Item::KeySet, Item::Fleet] {
            server.carousel.stand(item, at.now);
        }
        // Terminals that were switched on with the server need not wait for the pace.
        server.carousel.announce(Item::Time, at.now);
        for terminal in terminals {
            server.list_terminal(terminal);
        }
        for group in groups {
            server.list_group(group);
        }
        for exclusion in exclusions {
            server.list_exclusion(exclusion, at.now);
        }
        server.fleet.sequence_reserved = server.sequence;
        server.reserve_sequence();
        server
    }

    /// Takes one input.
    ///
    /// # Errors
    /// [`ApiMisuse`] where the driver broke the contract; nothing changed then.
    pub fn handle_input(
        &mut self,
        at: Moment,
        rng: &mut dyn Random,
        input: Input,
    ) -> Result<(), ApiMisuse> {
        self.at = self.judge(at);
        match input {
            Input::Timeout => {}
            Input::Order { id, order, by } => self.waiting.push_back((Some(id), order, by)),
            Input::Stored(id) => self.on_stored(id)?,
            Input::NotStored(id) => self.on_not_stored(id)?,
            Input::Datagram { from, octets } => self.on_desk(from, &octets, rng),
            Input::Worked(worked) => self.on_worked(worked, rng),
        }
        self.schedule_renewals();
        self.begin_next(rng);
        self.turn_changes(rng);
        self.begin_next(rng);
        self.turn_owners(rng);
        self.turn_carousel(rng);
        Ok(())
    }

    /// The next thing to do; call until [`Output::Timeout`].
    pub fn poll_output(&mut self) -> Output {
        self.outputs
            .pop_front()
            .unwrap_or_else(|| self.next_timeout())
    }

    /// The transaction that is being stored.
    #[must_use]
    pub fn batch(&self, id: StoreId) -> Option<&Batch> {
        self.storing
            .as_ref()
            .filter(|storing| storing.id == id)
            .map(|storing| &storing.batch)
    }

    /// The fleet's record.
    #[must_use]
    pub fn fleet(&self) -> &FleetRecord {
        &self.fleet
    }

    /// Every terminal, by number.
    pub fn terminals(&self) -> impl Iterator<Item = &TerminalRecord> {
        self.terminals.values()
    }

    /// Every group, by number.
    pub fn groups(&self) -> impl Iterator<Item = &GroupRecord> {
        self.groups.values()
    }

    /// The terminal of that name or number.
    #[must_use]
    pub fn terminal_named(&self, name: &str) -> Option<&TerminalRecord> {
        let number = self
            .terminal_names
            .get(name)
            .copied()
            .or_else(|| name.parse().ok().and_then(TerminalNumber::new))?;
        self.terminals.get(&number)
    }

    /// The group of that name or number.
    #[must_use]
    pub fn group_named(&self, name: &str) -> Option<&GroupRecord> {
        let number = self
            .group_names
            .get(name)
            .copied()
            .or_else(|| name.parse().ok().and_then(GroupNumber::new))?;
        self.groups.get(&number)
    }

    /// Every exclusion, in the order in which they were ordered.
    pub fn exclusions(&self) -> impl Iterator<Item = &Exclusion> {
        self.exclusions.values()
    }

    /// What the carousel repeats, class by class.
    #[must_use]
    pub fn carousel(&self) -> Vec<ClassReport> {
        self.carousel.report()
    }

    /// Seconds by which the wall clock jumped ahead and was not followed; 0 where it did not. A
    /// restart is the operator's word that the clock is right now.
    #[must_use]
    pub fn clock_jumped(&self) -> u32 {
        self.jumped
    }

    /// Why a renewal that the schedule asks for does not happen.
    #[must_use]
    pub fn schedule_refused(&self) -> Option<&Refusal> {
        self.schedule_refused.as_ref()
    }

    /// Neither clock is let run backwards within one process, and a wall clock that jumps ahead of
    /// the monotonic one is not followed: one wrong reading would renew every key of the fleet
    /// ahead of its time, and there is no way back from a one-way step.
    fn judge(&mut self, at: Moment) -> Moment {
        let now = self.at.now.max(at.now);
        let elapsed = u32::try_from(now.since(self.anchor.now).as_secs()).unwrap_or(u32::MAX);
        let expected = self.anchor.wall.plus(elapsed);
        self.jumped = at.wall.since(expected.plus(CLOCK_JUMP));
        let wall = if self.jumped > 0 { expected } else { at.wall };
        let judged = Moment {
            now,
            wall: self.at.wall.max(wall),
        };
        if self.jumped == 0 {
            self.anchor = judged;
        }
        judged
    }

    fn on_stored(&mut self, id: StoreId) -> Result<(), ApiMisuse> {
        let storing = self.take_storing(id)?;
        for change in storing.batch.changes {
            self.apply(change);
        }
        if let Done::Scheduled { ticks } = storing.done {
            self.ticked = self.ticked.plus(ticks);
            self.schedule_moves = None;
            self.schedule_refused = None;
        }
        if let Done::KeysInstalled { .. } = storing.done {
            // Only now G stands where the new list's schedule has it.
            self.follow_schedule();
        }
        if let Some(order) = storing.order {
            self.outputs.push_back(Output::Done {
                id: order,
                outcome: Ok(storing.done),
            });
        }
        Ok(())
    }

    fn on_not_stored(&mut self, id: StoreId) -> Result<(), ApiMisuse> {
        let storing = self.take_storing(id)?;
        self.store_again = self.at.now.plus(STORE_PAUSE);
        for change in &storing.batch.changes {
            if let Change::Mixed { wrap, .. } = change {
                self.meets_again(wrap.kid().kind().and_then(KeyIdKind::terminal));
            }
        }
        // What the schedules ask for is asked for again.
        self.schedule_moves = None;
        if let Some(order) = storing.order {
            let outcome = Err(Refusal::NotStored);
            self.outputs.push_back(Output::Done { id: order, outcome });
        }
        Ok(())
    }

    fn take_storing(&mut self, id: StoreId) -> Result<Storing, ApiMisuse> {
        match self.storing.take() {
            Some(storing) if storing.id == id => Ok(storing),
            other => {
                let expected = other.as_ref().map(|storing| storing.id.0);
                self.storing = other;
                Err(ApiMisuse::NotStoring {
                    got: id.0,
                    expected,
                })
            }
        }
    }

    /// One batch at a time: what the next order is judged by is what is stored.
    fn begin_next(&mut self, rng: &mut dyn Random) {
        while self.storing.is_none() && self.at.now >= self.store_again {
            if self.sequence_low() {
                self.reserve_sequence();
                return;
            }
            let Some((id, order, by)) = self.waiting.pop_front() else {
                return;
            };
            let scheduled = order == Order::Scheduled;
            let met = order.met();
            let prepared = self.prepare(order, by, rng);
            let prepared = prepared.and_then(|(mut batch, done)| {
                self.follow_records(&mut batch)?;
                Ok((batch, done))
            });
            match prepared {
                Ok((batch, done)) => self.store(id, batch, done),
                Err(refusal) => match id {
                    Some(id) => self.outputs.push_back(Output::Done {
                        id,
                        outcome: Err(refusal),
                    }),
                    None if scheduled => self.schedule_refused = Some(refusal),
                    // What a change asked for by itself is not wanted any more.
                    None => self.meets_again(met),
                },
            }
        }
    }

    /// Its mixed wrap key was not stored: it begins anew under the one before.
    fn meets_again(&mut self, terminal: Option<TerminalNumber>) {
        if let Some(number) = terminal {
            self.desk.mixed.remove(&number);
        }
    }

    fn sequence_low(&self) -> bool {
        self.sequence.plus(SEQUENCE_LOW) >= self.fleet.sequence_reserved
    }

    fn reserve_sequence(&mut self) {
        let until = self
            .sequence
            .max(self.fleet.sequence_reserved)
            .plus(SEQUENCE_BLOCK);
        let changes = vec![Change::Sequence(until)];
        self.store(
            None,
            Batch {
                changes,
                audit: None,
                journal: None,
            },
            Done::Nothing,
        );
    }

    fn store(&mut self, order: Option<OrderId>, batch: Batch, done: Done) {
        self.store_asked.0 += 1;
        let id = self.store_asked;
        self.storing = Some(Storing {
            id,
            order,
            batch,
            done,
        });
        self.outputs.push_back(Output::Store(id));
    }

    fn next_timeout(&mut self) -> Output {
        if self.storing.is_some() {
            // Stored or NotStored comes next, whatever is due.
            return Output::Timeout { at: None };
        }
        let tick = |due: UnixSeconds| {
            let ahead = u64::from(due.since(self.at.wall));
            self.at.now.plus(Duration::from_secs(ahead))
        };
        let renewal = self.schedule_moves.map(tick);
        let turn = match self.carousel.next_at() {
            Some(at) if self.may_send() => Some(at),
            Some(_) | None => None,
        };
        let change = self.changing.next_at().filter(|_| self.may_send());
        let change = change.map(|at| at.max(self.at.now));
        let owners = self.owners.next_at().filter(|_| self.may_send());
        let owners = owners.map(|at| at.max(self.at.now));
        let stalled = self.sequence_low() || !self.waiting.is_empty();
        let again = stalled.then_some(self.store_again);
        Output::Timeout {
            at: [renewal, turn, change, owners, again]
                .into_iter()
                .flatten()
                .min(),
        }
    }
}

/// Sequence numbers that are reserved at a time, and how few may be left.
const SEQUENCE_BLOCK: u64 = 65_536;
const SEQUENCE_LOW: u64 = 8_192;
/// Seconds that the wall clock may run ahead of the monotonic one between two inputs: leap
/// seconds, small corrections.
const CLOCK_JUMP: u32 = 600;
/// A store that cannot be written is tried again this much later, by the schedule too.
const STORE_PAUSE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
