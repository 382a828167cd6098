//! A server with its database in the test's hand.

use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::digest;

use crate::command::{
    Command, FRAME_MAX, KeyDist, OrderKind, SigningKey, Unverified, sign_together,
};
use crate::ids::{GroupNumber, TerminalNumber, Tick, UnixSeconds};
use crate::keys::{Secret, WrapKey};
use crate::receipt::{Receipt, frame_hash};
use crate::rng::Random;
use crate::server::{
    AuditEntry, By, Change, ChangeReport, Done, FleetRecord, Founding, Input, Item, Job,
    JournalEntry, KeySetDraft, Moment, Order, OrderId, Output, PackageSealing, Refusal, Server,
    StoreId,
};

/// Octets that are as good as random and always the same.
pub(super) struct Counting(u64);

impl Counting {
    pub(super) const fn seeded(first: u64) -> Self {
        Self(first)
    }
}

impl Random for Counting {
    fn fill(&mut self, into: &mut [u8]) {
        for chunk in into.chunks_mut(32) {
            self.0 += 1;
            let block = digest::digest(&digest::SHA256, &self.0.to_be_bytes());
            chunk.copy_from_slice(&block.as_ref()[..chunk.len()]);
        }
    }
}

/// A server, its clocks, and what it asked for.
pub(super) struct Desk {
    pub(super) server: Server,
    pub(super) at: Moment,
    rng: Counting,
    orders: u64,
    /// The batch that is to be stored.
    pub(super) asked: Option<StoreId>,
    pub(super) sent: Vec<(Item, Vec<u8>)>,
    /// Datagrams to single terminals.
    pub(super) to_peers: Vec<(SocketAddr, Vec<u8>)>,
    /// Public-key work that nobody has done yet.
    pub(super) work: Vec<Job>,
    pub(super) done: Vec<(OrderId, Result<Done, Refusal>)>,
    pub(super) timeout: Option<Tick>,
    pub(super) root: SigningKey,
    pub(super) erase: SigningKey,
    /// Changes of groups' keys, as they are stored.
    pub(super) reports: BTreeMap<GroupNumber, ChangeReport>,
    /// The order journal.
    pub(super) journal: Vec<(UnixSeconds, JournalEntry)>,
    /// The audit log.
    pub(super) audits: Vec<AuditEntry>,
    /// Of the newest audit entry.
    pub(super) audited_at: UnixSeconds,
}

pub(super) const FOUNDED: UnixSeconds = UnixSeconds::new(1_800_000_000);

impl Desk {
    /// A founded fleet whose first sequence numbers are reserved.
    pub(super) fn new() -> Self {
        Self::founded(Founding::default())
    }

    pub(super) fn founded(founding: Founding) -> Self {
        let mut rng = Counting(0);
        let [root, erase] =
            [0, 1].map(|_| SigningKey::from_seed(Secret::init_with(|into| rng.fill(into))));
        let fleet = FleetRecord::found(founding, &root, &erase.public(), FOUNDED, &mut rng);
        let at = Moment {
            now: Tick::default(),
            wall: FOUNDED,
        };
        let server = Server::new(fleet, Vec::new(), Vec::new(), Vec::new(), at);
        let mut desk = Self {
            server,
            at,
            rng,
            orders: 0,
            asked: None,
            sent: Vec::new(),
            to_peers: Vec::new(),
            work: Vec::new(),
            done: Vec::new(),
            timeout: None,
            root,
            erase,
            reports: BTreeMap::new(),
            journal: Vec::new(),
            audits: Vec::new(),
            audited_at: FOUNDED,
        };
        desk.drain();
        desk.store();
        desk
    }

    /// With terminals 1 to `terminals`, and a group of the first two.
    pub(super) fn with_group(terminals: u32) -> Self {
        let mut desk = Self::new();
        for n in 1..=terminals {
            desk.carry_out(add_terminal(&format!("t{n}")))
                .expect("free");
        }
        desk.carry_out(create_group("crew", &[1, 2])).expect("free");
        desk
    }

    pub(super) fn feed(&mut self, input: Input) {
        self.server
            .handle_input(self.at, &mut self.rng, input)
            .expect("the test keeps the contract");
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            match self.server.poll_output() {
                Output::Store(id) => {
                    assert!(self.asked.is_none(), "one batch at a time");
                    self.asked = Some(id);
                }
                Output::Transmit { item, frame } => self.sent.push((item, frame)),
                Output::Send { to, octets } => self.to_peers.push((to, octets)),
                Output::Work(job) => self.work.push(job),
                Output::Done { id, outcome } => self.done.push((id, outcome)),
                Output::Timeout { at } => {
                    self.timeout = at;
                    return;
                }
            }
        }
    }

    /// Gives an order and stores nothing.
    pub(super) fn give(&mut self, order: Order) -> OrderId {
        self.orders += 1;
        let id = OrderId(self.orders);
        let by = By {
            actor: "uid 0".to_owned(),
            reason: None,
            ticket: None,
        };
        self.feed(Input::Order { id, order, by });
        id
    }

    /// The batch is durable, and whatever is asked for next.
    pub(super) fn store(&mut self) {
        while let Some(id) = self.asked.take() {
            let batch = self.server.batch(id).expect("it was asked for");
            for change in &batch.changes {
                let report = if let Change::Begun(begun) = change {
                    ChangeReport::from(begun)
                } else if let Change::Ended(report) = change {
                    (**report).clone()
                } else {
                    continue;
                };
                self.reports.insert(report.group, report);
            }
            if let Some(entry) = &batch.journal {
                self.journal.push((self.at.wall, entry.clone()));
            }
            if let Some(entry) = &batch.audit {
                self.audited_at = entry.at;
                self.audits.push(entry.clone());
            }
            self.feed(Input::Stored(id));
        }
    }

    /// The batch could not be stored.
    pub(super) fn fail(&mut self) {
        let id = self.asked.take().expect("something is asked for");
        self.feed(Input::NotStored(id));
    }

    /// Gives an order and stores it.
    pub(super) fn carry_out(&mut self, order: Order) -> Result<Done, Refusal> {
        let id = self.give(order);
        self.store();
        self.outcome(id).expect("it has ended")
    }

    /// Takes the end of an order.
    pub(super) fn outcome(&mut self, id: OrderId) -> Option<Result<Done, Refusal>> {
        let place = self.done.iter().position(|&(of, _)| of == id)?;
        Some(self.done.remove(place).1)
    }

    /// Time goes on; whenever the server asks for it, it is woken. Nothing is stored.
    pub(super) fn wait(&mut self, seconds: u32) {
        self.pass(seconds, false);
    }

    /// The same with a store that takes no time.
    pub(super) fn live(&mut self, seconds: u32) {
        self.pass(seconds, true);
    }

    fn pass(&mut self, seconds: u32, stores: bool) {
        let (from, until) = (
            self.at,
            self.at.now.plus(Duration::from_secs(seconds.into())),
        );
        loop {
            let next = self
                .timeout
                .map_or(until, |at| at.max(self.at.now).min(until));
            let passed = u32::try_from(next.since(from.now).as_secs()).expect("short");
            self.at = Moment {
                now: next,
                wall: from.wall.plus(passed),
            };
            self.feed(Input::Timeout);
            if stores {
                self.store();
            }
            if next == until {
                return;
            }
        }
    }

    /// The server after a crash, from what was stored, with its wall clock at `wall`.
    pub(super) fn restarted(self, wall: UnixSeconds) -> Self {
        let at = Moment { wall, ..self.at };
        let Server {
            fleet,
            terminals,
            groups,
            exclusions,
            restored,
            ..
        } = self.server;
        let mut server = Server::new(
            fleet,
            terminals.into_values().collect(),
            groups.into_values().collect(),
            exclusions.into_values().collect(),
            at,
        );
        server.resume_restored(restored);
        server.resume_changes(self.reports.values().cloned().collect());
        let mut desk = Self {
            server,
            at,
            asked: None,
            sent: Vec::new(),
            to_peers: Vec::new(),
            work: Vec::new(),
            done: Vec::new(),
            timeout: None,
            ..self
        };
        desk.drain();
        desk
    }

    /// Everything that the server is, keys included, but its line of waiting orders.
    pub(super) fn state(&self) -> Vec<String> {
        let key =
            |secret: &Secret<32>| secret.expose().map(|octet| format!("{octet:02x}")).concat();
        let fleet = &self.server.fleet;
        let mut lines = vec![
            format!(
                "G {} reserved {}",
                fleet.fleet_generation, fleet.sequence_reserved
            ),
            format!("{:?} {:?} {:?}", fleet.key_set, fleet.beat, fleet.keys),
        ];
        lines.extend(self.server.terminals().map(|it| {
            let (obey, wrap) = (key(it.obey.secret()), key(it.wrap.secret()));
            format!(
                "{} {} {obey} {wrap} {} {:?} {:?} {:?} {:?} {:?}",
                it.number,
                it.name,
                it.wrap.generation(),
                it.excluded_at,
                it.memberships,
                it.orders,
                it.addresses,
                it.record
            )
        }));
        lines.extend(self.server.groups().map(|it| {
            let (key, of) = (key(it.master.secret()), &it.master);
            let place = format!("{}.{} {:?}", of.epoch(), of.generation(), it.schedule);
            format!(
                "{} {} {:?} {key} {place} {:?} {:?} {:?} {:?}",
                it.number,
                it.name,
                it.members,
                it.statements,
                it.policy,
                it.packets,
                it.search_key.as_ref().map(Secret::expose)
            )
        }));
        lines.extend(self.server.exclusions().map(|it| format!("{it:?}")));
        lines
    }

    /// The frames sent since the last look, with what stands in them.
    pub(super) fn heard(&mut self) -> Vec<(Item, Command)> {
        let read = |(item, frame): (Item, Vec<u8>)| {
            assert!(frame.len() <= FRAME_MAX, "{item:?}");
            let read = Unverified::decode(&frame).expect("ours");
            (item, read.command().clone())
        };
        std::mem::take(&mut self.sent)
            .into_iter()
            .map(read)
            .collect()
    }

    /// Drafts an order to a terminal and signs it with the erase key.
    pub(super) fn signed(&mut self, number: u32, kind: OrderKind, receipt: bool) -> Vec<u8> {
        let command = self
            .server
            .draft_order(terminal(number), kind, receipt, &mut self.rng)
            .expect("it may be drafted");
        sign_together(&command, &[&self.erase])
    }

    /// Drafts a KEYSET and has the root sign it.
    pub(super) fn key_set(&mut self, draft: KeySetDraft) -> Result<Vec<u8>, Refusal> {
        let command = self.server.draft_key_set(draft, &mut self.rng)?;
        Ok(self.root.sign(&command))
    }

    /// The terminal's wrap key.
    pub(super) fn wrap(&self, number: u32) -> WrapKey {
        self.server.terminals[&terminal(number)].wrap.duplicate()
    }

    /// The order that a terminal obeyed last, as its receipt says.
    pub(super) fn receipt(&self, number: u32, frame: &[u8]) -> Receipt {
        let obey = &self.server.terminals[&terminal(number)].obey;
        Receipt::make(terminal(number), frame_hash(frame), obey)
    }
}

pub(super) fn add_terminal(name: &str) -> Order {
    Order::AddTerminal {
        name: name.to_owned(),
        sealing: PackageSealing::ToRequest([9; 32]),
        wipe_roots: Vec::new(),
    }
}

pub(super) fn create_group(name: &str, members: &[u32]) -> Order {
    Order::CreateGroup {
        packets: None,
        name: name.to_owned(),
        members: members.iter().map(|&number| terminal(number)).collect(),
        cadence: None,
    }
}

pub(super) fn exclude(numbers: &[u32]) -> Order {
    Order::Exclude {
        terminals: numbers.iter().map(|&number| terminal(number)).collect(),
    }
}

pub(super) fn terminal(number: u32) -> TerminalNumber {
    TerminalNumber::new(number).expect("not 0")
}

pub(super) fn group(number: u32) -> GroupNumber {
    GroupNumber::new(number).expect("not 0")
}

pub(super) fn remove(of: u32, who: u32) -> Order {
    Order::RemoveMember {
        group: group(of),
        terminal: terminal(who),
    }
}

pub(super) fn add(of: u32, who: u32) -> Order {
    Order::AddMember {
        group: group(of),
        terminal: terminal(who),
    }
}

/// Whether a wrap key, or what it is renewed to, opens a distribution in any of its wraps.
pub(super) fn opens(wrap: &WrapKey, command: &Command, dist: &KeyDist) -> bool {
    let stepped = wrap.duplicate().renew_to(command.fleet_generation);
    [wrap, &stepped, &stepped.duplicate().renew()]
        .into_iter()
        .any(|key| dist.open_any(key).is_some())
}

/// Randomness for an input that must not use it.
pub(super) fn counting() -> Counting {
    Counting(1 << 40)
}
