//! The machine against a model that knows names, members, epochs and generations, and no
//! cryptography: random orders, stores that succeed and fail, restarts.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::desk::{Desk, add_terminal, create_group, exclude, group, terminal};
use crate::command::{Body, OrderKind, Unverified};
use crate::ids::{Generation, GroupNumber, KeyEpoch, SequenceNumber, TerminalNumber};
use crate::server::{
    ChangeMode, Done, GroupPolicy, GroupRecord, Item, KeySetDraft, Order, OrderId, Refusal,
    Stragglers, TerminalRecord,
};

/// What an operator would say that there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Model {
    /// Numbered from 1.
    terminals: Vec<Unit>,
    /// Numbered from 1.
    groups: Vec<Crew>,
    fleet: u32,
    exclusions: usize,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Unit {
    name: String,
    excluded: bool,
    offset: u32,
    /// Kind and version of what was issued.
    orders: Vec<(OrderKind, Option<u32>)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Crew {
    name: String,
    members: BTreeSet<u32>,
    /// How many epochs it has had.
    epochs: usize,
    generation: u32,
    policy: GroupPolicy,
}

impl Crew {
    fn rekey(&mut self) {
        self.epochs += 1;
        self.generation = 0;
    }
}

/// An order with what only the one who gave it knows.
#[derive(Clone, Debug)]
struct Given {
    order: Order,
    /// Of [`Order::Issue`]: to whom, what, which version.
    issue: Option<(u32, OrderKind, Option<u32>)>,
    /// Of [`Order::InstallKeys`]: whether a key was stolen.
    theft: bool,
}

impl Model {
    fn trusted(&mut self, number: TerminalNumber) -> Option<&mut Unit> {
        let unit = self.terminals.get_mut(number.get() as usize - 1)?;
        (!unit.excluded).then_some(unit)
    }

    fn crew(&mut self, number: GroupNumber) -> Option<&mut Crew> {
        self.groups.get_mut(number.get() as usize - 1)
    }

    /// What the order would make of it; `None` where it must be refused.
    fn after(&self, given: &Given) -> Option<Self> {
        let mut next = self.clone();
        match &given.order {
            Order::AddTerminal { name, .. } => {
                if self.terminals.iter().any(|unit| unit.name == *name) {
                    return None;
                }
                next.terminals.push(Unit {
                    name: name.clone(),
                    ..Unit::default()
                });
            }
            Order::CreateGroup { name, members, .. } => {
                let known = members.iter().all(|&it| next.trusted(it).is_some());
                let members: BTreeSet<_> = members.iter().map(|number| number.get()).collect();
                let taken = self.groups.iter().any(|crew| crew.name == *name);
                if taken || members.is_empty() || !known {
                    return None;
                }
                next.groups.push(Crew {
                    name: name.clone(),
                    members,
                    epochs: 1,
                    generation: 0,
                    policy: GroupPolicy::default(),
                });
            }
            Order::AddMember { group, terminal } => {
                next.trusted(*terminal)?;
                let crew = next.crew(*group)?;
                if !crew.members.insert(terminal.get()) {
                    return None;
                }
                crew.generation += 1;
            }
            Order::RemoveMember { group, terminal } => {
                let crew = next.crew(*group)?;
                if !crew.members.remove(&terminal.get()) {
                    return None;
                }
                crew.rekey();
            }
            Order::RenewGroup { group } => next.crew(*group)?.generation += 1,
            Order::RekeyGroup { group } => next.crew(*group)?.rekey(),
            Order::SetGroup {
                group,
                change,
                stragglers,
                legacy,
            } => {
                let crew = next.crew(*group)?;
                crew.policy = crew.policy.with(*change, *stragglers, *legacy);
            }
            Order::SetLegacyKey { terminal, .. } => {
                next.trusted(*terminal)?;
            }
            Order::RenewDevices => next.fleet += 1,
            Order::RenewDevice { terminal } => next.trusted(*terminal)?.offset += 1,
            Order::Exclude { terminals } => {
                let named: BTreeSet<_> = terminals.iter().map(|number| number.get()).collect();
                for &number in terminals {
                    next.trusted(number)?;
                }
                if named.is_empty() {
                    return None;
                }
                for &number in &named {
                    next.terminals[number as usize - 1].excluded = true;
                }
                for crew in &mut next.groups {
                    let before = crew.members.len();
                    crew.members.retain(|member| !named.contains(member));
                    if crew.members.len() < before {
                        crew.rekey();
                    }
                }
                next.exclusions += 1;
            }
            Order::Issue { .. } => {
                let (number, kind, version) = given.issue?;
                let orders = &mut next.terminals[number as usize - 1].orders;
                let held = orders.iter().filter_map(|&(_, version)| version).max();
                if version.is_some() && version <= held {
                    return None;
                }
                orders.push((kind, version));
            }
            Order::InstallKeys { .. } if given.theft => {
                next.terminals.iter_mut().for_each(|unit| unit.offset = 0);
                next.groups.iter_mut().for_each(Crew::rekey);
            }
            Order::InstallKeys { .. } => {}
            Order::Receipt { .. }
            | Order::SetPackets { .. }
            | Order::SetAddresses { .. }
            | Order::SignRecords
            | Order::Confirm
            | Order::LeaveOut { .. }
            | Order::NoteChange(_)
            | Order::Scheduled
            | Order::FirstContact { .. }
            | Order::NoteToken { .. }
            | Order::NoteDowngrade { .. } => return None,
        }
        Some(next)
    }

    fn of(desk: &Desk) -> Self {
        let crew = |it: &GroupRecord| Crew {
            name: it.name.clone(),
            members: it.members.iter().map(|member| member.get()).collect(),
            epochs: it
                .statements
                .iter()
                .map(|statement| statement.epoch)
                .collect::<BTreeSet<_>>()
                .len(),
            generation: it.master.generation().get(),
            policy: it.policy,
        };
        let unit = |it: &TerminalRecord| Unit {
            name: it.name.clone(),
            excluded: it.excluded_at.is_some(),
            offset: desk.server.offset(it),
            orders: it
                .orders
                .iter()
                .map(|order| (order.kind, order.version))
                .collect(),
        };
        Self {
            terminals: desk.server.terminals().map(unit).collect(),
            groups: desk.server.groups().map(crew).collect(),
            fleet: desk.server.fleet().fleet_generation.get(),
            exclusions: desk.server.exclusions().count(),
        }
    }
}

/// DESIGN section 11, invariant 1: what never goes down and never comes again.
#[derive(Debug, Default)]
struct Highest {
    g: Option<Generation>,
    wraps: BTreeMap<TerminalNumber, Generation>,
    masters: BTreeMap<GroupNumber, (KeyEpoch, Generation)>,
    /// The one command that has it.
    sequences: BTreeMap<SequenceNumber, Vec<u8>>,
    key_set: u32,
}

impl Highest {
    fn look(&mut self, desk: &Desk) {
        let fleet = desk.server.fleet();
        assert!(self.g.replace(fleet.fleet_generation) <= Some(fleet.fleet_generation));
        assert!(self.key_set <= fleet.key_set.version);
        self.key_set = fleet.key_set.version;
        for it in desk.server.terminals() {
            let generation = it.wrap.generation();
            assert!(self.wraps.insert(it.number, generation) <= Some(generation));
        }
        for it in desk.server.groups() {
            let place = (it.master.epoch(), it.master.generation());
            assert!(self.masters.insert(it.number, place) <= Some(place));
            for membership in desk.server.terminals().flat_map(|it| &it.memberships) {
                assert!(
                    membership
                        .until
                        .is_none_or(|until| until >= membership.from)
                );
            }
        }
        for (item, frame) in &desk.sent {
            let sequence = Unverified::decode(frame).expect("ours").command().sequence;
            assert!(sequence < fleet.sequence_reserved || *item == Item::KeySet);
            self.used(sequence, frame);
        }
    }

    fn used(&mut self, sequence: SequenceNumber, frame: &[u8]) {
        let held = self
            .sequences
            .entry(sequence)
            .or_insert_with(|| frame.to_vec());
        assert_eq!(held, frame, "one number, two commands");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Give(Order),
    Erase(u32, OrderKind),
    Sign { theft: bool },
    Stored,
    Failed,
    Wait(u32),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![
        3 => (0..6u8).prop_map(|n| add_terminal(&format!("t{n}"))),
        2 => (0..4u8, proptest::collection::vec(1..6u32, 0..4))
            .prop_map(|(n, members)| create_group(&format!("g{n}"), &members)),
        2 => (1..4u32, 1..6u32).prop_map(|(of, who)| Order::AddMember {
            group: group(of),
            terminal: terminal(who),
        }),
        1 => (1..4u32, 1..6u32).prop_map(|(of, who)| Order::RemoveMember {
            group: group(of),
            terminal: terminal(who),
        }),
        3 => (1..4u32).prop_map(|of| Order::RenewGroup { group: group(of) }),
        1 => (1..4u32).prop_map(|of| Order::RekeyGroup { group: group(of) }),
        2 => (1..4u32, any::<[Option<bool>; 3]>()).prop_map(|(of, [barrier, wait, legacy])| {
            Order::SetGroup {
                group: group(of),
                change: barrier.map(|it| ChangeMode::ALL[usize::from(it)]),
                stragglers: wait.map(|it| Stragglers::ALL[usize::from(it)]),
                legacy,
            }
        }),
        1 => Just(Order::RenewDevices),
        1 => (1..6u32).prop_map(|who| Order::RenewDevice { terminal: terminal(who) }),
        1 => proptest::collection::vec(1..6u32, 0..3).prop_map(|named| exclude(&named)),
    ];
    let kind = proptest::sample::select(OrderKind::ALL.to_vec());
    prop_oneof![
        14 => order.prop_map(Step::Give),
        2 => (1..6u32, kind).prop_map(|(who, kind)| Step::Erase(who, kind)),
        1 => any::<bool>().prop_map(|theft| Step::Sign { theft }),
        12 => Just(Step::Stored),
        2 => Just(Step::Failed),
        2 => (1..100u32).prop_map(Step::Wait),
        1 => Just(Step::Restart),
    ]
}

/// Signs a DELETE, INIT, LOCK or UNLOCK, where there is the terminal.
fn issue(desk: &mut Desk, who: u32, kind: OrderKind) -> Option<Given> {
    let known = desk.server.terminals().any(|it| it.number == terminal(who));
    let frame = known.then(|| desk.signed(who, kind, false))?;
    let read = Unverified::decode(&frame).expect("ours");
    let Body::Order(order) = &read.command().body else {
        panic!("an order");
    };
    let obey = &desk.server.terminals[&terminal(who)].obey;
    let version = order.open(obey).expect("it is for it").version;
    Some(Given {
        issue: Some((who, kind, version)),
        order: Order::Issue { frame },
        theft: false,
    })
}

/// Has a KEYSET signed.
fn sign(desk: &mut Desk, theft: bool) -> Option<Given> {
    let name = desk.server.fleet().keys.public().name();
    let draft = KeySetDraft {
        stolen: theft.then_some(name).into_iter().collect(),
        ..KeySetDraft::default()
    };
    let frame = desk.key_set(draft).ok()?;
    Some(Given {
        order: Order::InstallKeys { frame },
        issue: None,
        theft,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_server_is_what_its_stored_orders_make_of_it(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut desk = Desk::new();
        let mut model = Model::default();
        let mut highest = Highest::default();
        // Orders that have not ended, in the order in which they were given.
        let mut open: BTreeMap<OrderId, Given> = BTreeMap::new();
        for step in steps {
            let given = match step {
                Step::Give(order) => Some(Given { order, issue: None, theft: false }),
                Step::Erase(who, kind) => issue(&mut desk, who, kind),
                Step::Sign { theft } => sign(&mut desk, theft),
                Step::Stored => {
                    if let Some(id) = desk.asked.take() {
                        desk.feed(crate::server::Input::Stored(id));
                    }
                    None
                }
                Step::Failed => {
                    if desk.asked.is_some() {
                        desk.fail();
                    }
                    None
                }
                Step::Wait(seconds) => {
                    desk.wait(seconds);
                    None
                }
                Step::Restart => {
                    highest.look(&desk);
                    let wall = desk.at.wall;
                    desk = desk.restarted(wall);
                    open.clear();
                    desk.store();
                    None
                }
            };
            if let Some(given) = given {
                if let Order::Issue { frame } | Order::InstallKeys { frame } = &given.order {
                    let read = Unverified::decode(frame).expect("ours");
                    highest.used(read.command().sequence, frame);
                }
                open.insert(desk.give(given.order.clone()), given);
            }
            for (id, outcome) in std::mem::take(&mut desk.done) {
                let given = open.remove(&id).expect("each ends once");
                prop_assert!(open.keys().all(|&later| later > id), "in line");
                match (model.after(&given), outcome) {
                    (Some(next), Ok(done)) => {
                        model = next;
                        if let Done::KeysInstalled { generation, .. } = done {
                            model.fleet = generation.get();
                        }
                    }
                    (_, Err(Refusal::NotStored)) => {}
                    // Another was drafted meanwhile.
                    (_, Err(Refusal::NotTheDraft | Refusal::NoSuchKey(_))) => {}
                    (None, Err(_)) => {}
                    (expected, got) => {
                        let got: Result<Done, Refusal> = got;
                        prop_assert!(false, "{given:?}: {expected:?}, {got:?}");
                    }
                }
            }
            prop_assert_eq!(Model::of(&desk), model.clone());
            highest.look(&desk);
        }
        // Whatever waited comes to its end.
        for _ in 0..200 {
            desk.wait(2);
            desk.store();
        }
        prop_assert_eq!(desk.done.len(), open.len());
        highest.look(&desk);
    }
}
