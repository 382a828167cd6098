//! Stored before applied, applied before sent (DESIGN section 11, invariants 1 and 2).

use super::desk::{Desk, add, add_terminal, create_group, exclude, group, remove, terminal};
use crate::command::{OrderKind, Unverified};
use crate::error::ApiMisuse;
use crate::ids::{SequenceNumber, UnixSeconds};
use crate::server::{Done, Input, KeySetDraft, Moment, Order, PackageSealing, Refusal, StoreId};

/// One of each order that changes something, made for the desk that it is given to.
fn orders() -> Vec<fn(&mut Desk) -> Order> {
    vec![
        |_| add_terminal("new"),
        |_| create_group("other", &[1, 3]),
        |_| add(1, 3),
        |_| remove(1, 2),
        |_| Order::RenewGroup { group: group(1) },
        |_| Order::RekeyGroup { group: group(1) },
        |_| Order::RenewDevices,
        |_| Order::RenewDevice {
            terminal: terminal(1),
        },
        |_| exclude(&[1, 3]),
        |desk| Order::Issue {
            frame: desk.signed(1, OrderKind::Delete, true),
        },
        |desk| Order::Issue {
            frame: desk.signed(2, OrderKind::Lock, false),
        },
        |desk| {
            let frame = desk.signed(3, OrderKind::Delete, true);
            let receipt = desk.receipt(3, &frame);
            desk.carry_out(Order::Issue { frame }).expect("signed");
            Order::Receipt { receipt }
        },
        |desk| Order::InstallKeys {
            frame: desk.key_set(KeySetDraft::default()).expect("signed"),
        },
        |desk| {
            let stolen = vec![desk.server.fleet.keys.public().name()];
            let draft = KeySetDraft {
                stolen,
                ..KeySetDraft::default()
            };
            Order::InstallKeys {
                frame: desk.key_set(draft).expect("signed"),
            }
        },
    ]
}

#[test]
fn a_batch_that_could_not_be_stored_leaves_everything_as_it_was() {
    for make in orders() {
        let mut desk = Desk::with_group(3);
        let order = make(&mut desk);
        let before = desk.state();
        let id = desk.give(order.clone());
        assert_eq!(desk.state(), before, "before it is stored: {order:?}");
        desk.fail();
        assert_eq!(desk.state(), before, "{order:?}");
        let outcome = desk.outcome(id);
        assert!(
            matches!(outcome, Some(Err(Refusal::NotStored))),
            "{outcome:?}"
        );
        // The same order can be given again.
        desk.wait(2);
        assert!(desk.carry_out(order).is_ok());
        assert_ne!(desk.state(), before);
    }
}

#[test]
fn nothing_is_sent_while_a_batch_is_being_stored() {
    for make in orders() {
        let mut desk = Desk::with_group(3);
        let order = make(&mut desk);
        let _ = desk.give(order);
        desk.sent.clear();
        for _ in 0..120 {
            desk.wait(1);
        }
        assert_eq!(desk.sent.len(), 0);
        desk.store();
        desk.wait(61);
        assert!(desk.sent.len() > 3);
    }
}

/// R-042, invariant 2: what is sent after the store states the new generation, and before it the
/// old one.
#[test]
fn a_renewal_is_announced_after_it_is_stored_and_not_before() {
    let mut desk = Desk::with_group(2);
    desk.wait(61);
    let _ = desk.give(Order::RenewGroup { group: group(1) });
    let stated = |frames: &[(crate::server::Item, Vec<u8>)]| {
        let mut generations: Vec<u32> = frames
            .iter()
            .filter_map(|(_, frame)| {
                match &Unverified::decode(frame).expect("ours").command().body {
                    crate::command::Body::Renew(renew) => Some(renew.entries[0]),
                    crate::command::Body::Time(_)
                    | crate::command::Body::KeyDist(_)
                    | crate::command::Body::Order(_)
                    | crate::command::Body::Exclude(_)
                    | crate::command::Body::KeySet(_)
                    | crate::command::Body::Stop(_)
                    | crate::command::Body::Start(_)
                    | crate::command::Body::Notify(_) => None,
                }
            })
            .filter(|entry| entry.kid == group(1).master_key_id())
            .map(|entry| entry.schedule.generation.get())
            .collect();
        generations.dedup();
        generations
    };
    assert_eq!(stated(&desk.sent), [0]);
    desk.sent.clear();
    desk.store();
    desk.wait(1);
    assert_eq!(stated(&desk.sent), [1]);
}

#[test]
fn orders_wait_in_line_and_are_judged_by_what_is_stored() {
    let mut desk = Desk::with_group(3);
    let first = desk.give(create_group("other", &[1]));
    let second = desk.give(create_group("other", &[2]));
    let third = desk.give(Order::RenewGroup { group: group(2) });
    assert_eq!(desk.done.len(), 0, "one batch at a time");
    desk.store();
    assert!(matches!(desk.outcome(first), Some(Ok(Done::Group { .. }))));
    assert!(matches!(
        desk.outcome(second),
        Some(Err(Refusal::NameTaken(_)))
    ));
    assert!(matches!(
        desk.outcome(third),
        Some(Ok(Done::Renewed { .. }))
    ));

    let mut desk = Desk::with_group(3);
    let first = desk.give(create_group("other", &[1]));
    let second = desk.give(create_group("other", &[2]));
    desk.fail();
    desk.wait(2);
    desk.store();
    assert!(matches!(desk.outcome(first), Some(Err(Refusal::NotStored))));
    assert!(matches!(desk.outcome(second), Some(Ok(Done::Group { .. }))));
    let members = &desk.server.group_named("other").expect("it is").members;
    assert!(members.contains(&terminal(2)) && members.len() == 1);
}

#[test]
fn a_refused_order_changes_nothing_and_asks_for_no_store() {
    let mut desk = Desk::with_group(3);
    let before = desk.state();
    for order in [
        add_terminal("t1"),
        add_terminal(""),
        add_terminal("../etc"),
        add_terminal("-x"),
        add_terminal("123"),
        add_terminal(&"x".repeat(65)),
        wiping("new", &["/"]),
        wiping("new", &["relative"]),
        wiping("new", &["/a/../b"]),
        wiping("new", &["/a"; 9]),
        create_group("crew", &[1]),
        create_group("no one", &[1]),
        create_group("empty", &[]),
        create_group("strangers", &[1, 99]),
        add(1, 1),
        add(1, 99),
        add(9, 1),
        remove(1, 3),
        remove(1, 99),
        remove(9, 1),
        Order::RenewGroup { group: group(9) },
        Order::RekeyGroup { group: group(9) },
        Order::RenewDevice {
            terminal: terminal(99),
        },
        exclude(&[]),
        exclude(&[1, 99]),
        exclude(&(1..=65).collect::<Vec<_>>()),
    ] {
        let id = desk.give(order.clone());
        assert!(desk.asked.is_none(), "{order:?}");
        assert!(matches!(desk.outcome(id), Some(Err(_))), "{order:?}");
        assert_eq!(desk.state(), before);
    }
}

fn wiping(name: &str, roots: &[&str]) -> Order {
    Order::AddTerminal {
        name: name.to_owned(),
        sealing: PackageSealing::UnderCode,
        wipe_roots: roots.iter().map(|&root| root.to_owned()).collect(),
    }
}

/// FORMATS section 2.1: the server orders nothing that terminals would refuse.
#[test]
fn renewals_stop_at_the_bound_that_terminals_accept() {
    let mut desk = Desk::with_group(2);
    let bound = 30 * 24 + 64;
    for _ in 0..bound {
        assert!(desk.carry_out(Order::RenewDevices).is_ok());
    }
    let over = desk.carry_out(Order::RenewDevices);
    assert!(matches!(over, Err(Refusal::RenewedTooOften)), "{over:?}");
    assert_eq!(desk.server.fleet().fleet_generation.get(), bound);
}

#[test]
fn reports_of_stores_that_were_not_asked_for_change_nothing() {
    let mut desk = Desk::with_group(2);
    let _ = desk.give(Order::RenewGroup { group: group(1) });
    let open = desk.asked.expect("it is to be stored");
    let before = desk.state();
    for wrong in [StoreId(0), StoreId(open.0 - 1), StoreId(open.0 + 1)] {
        for input in [Input::Stored(wrong), Input::NotStored(wrong)] {
            let misuse = desk
                .server
                .handle_input(desk.at, &mut super::desk::counting(), input);
            let expected = ApiMisuse::NotStoring {
                got: wrong.0,
                expected: Some(open.0),
            };
            assert_eq!(misuse, Err(expected));
            assert_eq!(desk.state(), before);
        }
    }
    desk.store();
    let misuse =
        desk.server
            .handle_input(desk.at, &mut super::desk::counting(), Input::Stored(open));
    assert!(misuse.is_err(), "twice");
}

/// Invariant 1; FORMATS section 12: whatever restarts, no sequence number is used twice, and none
/// that was not reserved on disk before.
#[test]
fn sequence_numbers_are_reserved_before_they_are_used() {
    let mut desk = Desk::with_group(2);
    // Close to the end of the block: the next one is stored before it is needed.
    desk.server.sequence = SequenceNumber::new(desk.server.fleet.sequence_reserved.get() - 3);
    desk.sent.clear();
    desk.wait(11);
    assert!(desk.asked.is_some(), "a block is asked for");
    assert!(desk.sent.is_empty());
    desk.store();
    desk.wait(60);
    let reserved = desk.server.fleet.sequence_reserved;
    for (_, frame) in &desk.sent {
        let sequence = Unverified::decode(frame).expect("ours").command().sequence;
        assert!(sequence < reserved);
    }
    // The block's end with a store that fails: nothing more is sent than was reserved.
    desk.server.sequence = desk.server.fleet.sequence_reserved;
    desk.sent.clear();
    for _ in 0..30 {
        desk.wait(10);
        if desk.asked.is_some() {
            desk.fail();
        }
    }
    assert!(
        desk.sent
            .iter()
            .all(|(item, _)| *item == crate::server::Item::KeySet),
        "only what was signed long ago"
    );
}

/// Invariant 1; FORMATS section 12: a server that restarts at once, or with its clock set back,
/// uses no number again.
#[test]
fn a_restarted_server_begins_at_its_reservation_whatever_its_clock_says() {
    let mut desk = Desk::with_group(2);
    let (mut highest, mut used) = (SequenceNumber::new(0), 0);
    for back in [0, 0, 5, 86_400, 0] {
        desk.wait(70);
        for (item, frame) in &desk.sent {
            let sequence = Unverified::decode(frame).expect("ours").command().sequence;
            if *item != crate::server::Item::KeySet {
                highest = highest.max(sequence);
                used += 1;
            }
        }
        let wall = UnixSeconds::new(desk.at.wall.get() - back);
        let state = desk.state();
        desk = desk.restarted(wall);
        assert!(
            desk.sent.is_empty(),
            "nothing before the next block is stored"
        );
        desk.wait(10);
        assert!(desk.sent.is_empty());
        desk.store();
        desk.wait(70);
        for (item, frame) in &desk.sent {
            let sequence = Unverified::decode(frame).expect("ours").command().sequence;
            let standing = *item == crate::server::Item::KeySet;
            assert!(standing || sequence > highest, "{sequence} after {highest}");
        }
        assert_eq!(desk.state()[1..], state[1..], "all but the reservation");
    }
    assert!(used > 50, "{used}");
}

/// Wall time that runs backwards within a process is ignored: no statement is issued before an
/// earlier one.
#[test]
fn a_clock_that_is_set_back_makes_no_older_statements() {
    let mut desk = Desk::with_group(2);
    desk.wait(3600);
    desk.store();
    desk.sent.clear();
    desk.at = Moment {
        wall: UnixSeconds::new(desk.at.wall.get() - 3000),
        ..desk.at
    };
    let floor = desk.server.at.wall;
    for _ in 0..20 {
        desk.wait(10);
    }
    assert!(desk.sent.len() > 20);
    for (item, frame) in &desk.sent {
        let issued_at = Unverified::decode(frame).expect("ours").command().issued_at;
        let standing = *item == crate::server::Item::KeySet;
        assert!(standing || issued_at >= floor, "{item:?}");
    }
}
