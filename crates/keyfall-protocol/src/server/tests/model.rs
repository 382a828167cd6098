//! The machine against a model that knows names, members and generations, and no cryptography:
//! random orders, stores that succeed and fail.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::desk::{Desk, add_terminal, create_group, group, terminal};
use crate::server::{Done, Order, OrderId, Refusal};

/// What an operator would say that there is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Model {
    terminals: Vec<String>,
    /// Name, members, generation; numbered from 1.
    groups: Vec<(String, BTreeSet<u32>, u32)>,
    fleet: u32,
}

impl Model {
    /// What the order would make of it; `None` where it must be refused.
    fn after(&self, order: &Order) -> Option<Self> {
        let mut next = self.clone();
        match order {
            Order::AddTerminal { name, .. } => {
                if self.terminals.contains(name) {
                    return None;
                }
                next.terminals.push(name.clone());
            }
            Order::CreateGroup { name, members, .. } => {
                let known = |number: &u32| *number as usize <= self.terminals.len();
                let members: BTreeSet<_> = members.iter().map(|number| number.get()).collect();
                let taken = self.groups.iter().any(|(other, ..)| other == name);
                if taken || members.is_empty() || !members.iter().all(known) {
                    return None;
                }
                next.groups.push((name.clone(), members, 0));
            }
            Order::AddMember { group, terminal } => {
                let known = terminal.get() as usize <= self.terminals.len();
                let (_, members, generation) = next.groups.get_mut(group.get() as usize - 1)?;
                if !known || !members.insert(terminal.get()) {
                    return None;
                }
                *generation += 1;
            }
            Order::RenewGroup { group } => {
                next.groups.get_mut(group.get() as usize - 1)?.2 += 1;
            }
            Order::RenewDevices => next.fleet += 1,
            Order::Scheduled => return None,
        }
        Some(next)
    }

    fn of(desk: &Desk) -> Self {
        let group = |it: &crate::server::GroupRecord| {
            let members = it.members.iter().map(|member| member.get()).collect();
            (it.name.clone(), members, it.master.generation().get())
        };
        Self {
            terminals: desk.server.terminals().map(|it| it.name.clone()).collect(),
            groups: desk.server.groups().map(group).collect(),
            fleet: desk.server.fleet().fleet_generation.get(),
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Give(Order),
    Stored,
    Failed,
    Wait(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let order = prop_oneof![
        2 => (0..6u8).prop_map(|n| add_terminal(&format!("t{n}"))),
        2 => (0..4u8, proptest::collection::vec(1..6u32, 0..4))
            .prop_map(|(n, members)| create_group(&format!("g{n}"), &members)),
        2 => (1..4u32, 1..6u32).prop_map(|(of, who)| Order::AddMember {
            group: group(of),
            terminal: terminal(who),
        }),
        3 => (1..4u32).prop_map(|of| Order::RenewGroup { group: group(of) }),
        1 => Just(Order::RenewDevices),
    ];
    prop_oneof![
        5 => order.prop_map(Step::Give),
        4 => Just(Step::Stored),
        1 => Just(Step::Failed),
        1 => (1..100u32).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_server_is_what_its_stored_orders_make_of_it(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut desk = Desk::new();
        let mut model = Model::default();
        // Orders that have not ended, in the order in which they were given.
        let mut open: BTreeMap<OrderId, Order> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Give(order) => {
                    let id = desk.give(order.clone());
                    open.insert(id, order);
                }
                Step::Stored => {
                    if let Some(id) = desk.asked.take() {
                        desk.feed(crate::server::Input::Stored(id));
                    }
                }
                Step::Failed => {
                    if desk.asked.is_some() {
                        desk.fail();
                    }
                }
                Step::Wait(seconds) => desk.wait(seconds),
            }
            for (id, outcome) in std::mem::take(&mut desk.done) {
                let order = open.remove(&id).expect("each ends once");
                prop_assert!(open.keys().all(|&later| later > id), "in line");
                match (model.after(&order), outcome) {
                    (Some(next), Ok(_)) => model = next,
                    (_, Err(Refusal::NotStored)) => {}
                    (None, Err(_)) => {}
                    (expected, got) => {
                        let got: Result<Done, Refusal> = got;
                        prop_assert!(false, "{order:?}: {expected:?}, {got:?}");
                    }
                }
            }
            prop_assert_eq!(Model::of(&desk), model.clone());
        }
        // Whatever waited comes to its end.
        for _ in 0..200 {
            desk.wait(2);
            desk.store();
        }
        prop_assert_eq!(desk.done.len(), open.len());
    }
}
