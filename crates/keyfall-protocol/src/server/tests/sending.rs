//! What goes on the carrier.

use std::collections::{BTreeMap, BTreeSet};

use super::desk::{Desk, add, add_terminal, create_group, exclude, group};
use crate::command::{Body, FRAME_MAX, OrderKind, Target, Unverified};
use crate::ids::UnixSeconds;
use crate::server::{Class, Founding, Item, KeySetDraft, Order};

/// the issue: more than 17 recipients go as self-contained signed messages, each
/// member named once, no frame too long.
#[test]
fn every_member_of_a_large_group_is_named_in_one_of_its_messages() {
    let mut desk = Desk::new();
    let members: Vec<u32> = (1..=100).collect();
    for n in &members {
        desk.carry_out(add_terminal(&format!("t{n}")))
            .expect("free");
    }
    desk.carry_out(create_group("crew", &members))
        .expect("free");
    desk.sent.clear();
    for _ in 0..60 {
        desk.wait(1);
    }
    let mut named = BTreeSet::new();
    let mut shards = BTreeSet::new();
    for (item, frame) in &desk.sent {
        assert!(frame.len() <= FRAME_MAX);
        let read = Unverified::decode(frame).expect("ours");
        let signer = match item.class() {
            Class::KeyDist => &desk.server.fleet.keys,
            Class::Time | Class::Renew => &desk.server.fleet.beat,
            Class::KeySet | Class::Exclude | Class::Erase | Class::Change | Class::Record => {
                continue;
            }
        };
        let verified = read.verify(&signer.public()).expect("signed by its class");
        if let (Body::KeyDist(dist), Item::Dist(_, shard)) = (&verified.command().body, item) {
            assert_eq!(verified.command().target, Target::Handles);
            shards.insert(*shard);
            named.extend(dist.recipients().iter().map(|recipient| recipient.handle));
        }
    }
    assert_eq!(shards.len(), 100usize.div_ceil(17));
    let handles: BTreeSet<_> = desk.server.terminals().map(|it| it.wrap.handle()).collect();
    assert_eq!(named, handles);
}

/// each is named once where members came and went since the messages were made.
#[test]
fn who_comes_and_goes_between_messages_leaves_nobody_out() {
    let mut desk = Desk::new();
    for n in 1..=101 {
        desk.carry_out(add_terminal(&format!("t{n}")))
            .expect("free");
    }
    let odd: Vec<u32> = (1..=101).step_by(2).collect();
    desk.carry_out(create_group("crew", &odd)).expect("free");
    let (group, terminal) = (group(1), super::desk::terminal);
    let orders = [
        Order::AddMember {
            group,
            terminal: terminal(2),
        },
        Order::RemoveMember {
            group,
            terminal: terminal(33),
        },
        Order::AddMember {
            group,
            terminal: terminal(100),
        },
    ];
    for order in orders {
        for _ in 0..40 {
            desk.wait(1);
        }
        desk.carry_out(order).expect("it may");
        desk.sent.clear();
        for _ in 0..60 {
            desk.wait(1);
        }
        let mut named = BTreeMap::new();
        for (item, frame) in &desk.sent {
            let read = Unverified::decode(frame).expect("ours");
            if let Body::KeyDist(dist) = &read.command().body {
                let handles = dist.recipients().iter().map(|it| it.handle);
                named.insert(*item, handles.collect::<Vec<_>>());
            }
        }
        let mut named: Vec<_> = named.into_values().flatten().collect();
        named.sort_unstable();
        let members = &desk.server.group_named("crew").expect("it is").members;
        let members = members
            .iter()
            .map(|it| desk.server.terminals[it].wrap.handle());
        let mut members: Vec<_> = members.collect();
        members.sort_unstable();
        assert_eq!(named, members);
    }
}

/// RENEW has one size, and no key octet in it.
#[test]
fn a_renewal_has_one_size_and_no_key_in_it() {
    let sizes: BTreeSet<usize> = [2, 60]
        .map(|terminals| {
            let mut desk = Desk::with_group(2);
            for n in 3..=terminals {
                desk.carry_out(add_terminal(&format!("t{n}")))
                    .expect("free");
                let order = Order::AddMember {
                    group: group(1),
                    terminal: super::desk::terminal(n),
                };
                desk.carry_out(order).expect("free");
            }
            let generation = |desk: &Desk| {
                let group = desk.server.group_named("crew").expect("it is");
                group.master.generation().get()
            };
            while generation(&desk) < 100 {
                desk.carry_out(Order::RenewGroup { group: group(1) })
                    .expect("free");
            }
            desk.sent.clear();
            desk.wait(1);
            let key = desk
                .server
                .group_named("crew")
                .expect("it is")
                .master
                .secret();
            let renew = desk
                .sent
                .iter()
                .find(|(item, _)| *item == Item::Group(group(1)));
            let frame = &renew.expect("announced").1;
            assert!(
                !frame
                    .windows(8)
                    .any(|window| key.expose().windows(8).any(|it| it == window))
            );
            frame.len()
        })
        .into();
    assert_eq!(sizes.len(), 1, "{sizes:?}");
    assert!(sizes.iter().all(|&size| size <= 170), "{sizes:?}");
}

/// FORMATS section 3.1: at every tick of G or of a master key the standing KEYDISTs are made anew,
/// so that the old ones open with used-up keys only.
#[test]
fn distributions_are_made_anew_with_every_generation() {
    let mut desk = Desk::with_group(2);
    let dist = |desk: &mut Desk| {
        desk.sent.clear();
        desk.wait(31);
        let found = desk
            .sent
            .iter()
            .rfind(|(item, _)| item.class() == Class::KeyDist);
        found.expect("it stands").1.clone()
    };
    let first = dist(&mut desk);
    assert_eq!(dist(&mut desk), first, "standing");
    desk.carry_out(Order::RenewGroup { group: group(1) })
        .expect("free");
    let renewed = dist(&mut desk);
    assert_ne!(renewed, first);
    desk.carry_out(Order::RenewDevices).expect("free");
    let under_new_g = dist(&mut desk);
    assert_ne!(under_new_g, renewed);
    let read = Unverified::decode(&under_new_g).expect("ours");
    assert_eq!(read.command().fleet_generation.get(), 1);
    let Body::KeyDist(dist) = &read.command().body else {
        panic!("a KEYDIST");
    };
    let wrap = &desk.server.terminals().next().expect("it is").wrap;
    let contents = dist.open(wrap).expect("it is for t1");
    assert_eq!(contents.key.generation().get(), 1);
}

/// FORMATS section 9: after the online keys nothing is sent but what others signed.
#[test]
fn only_what_others_signed_is_sent_when_the_online_keys_have_ended() {
    let mut desk = Desk::with_group(2);
    let frame = desk.signed(1, OrderKind::Delete, false);
    desk.carry_out(Order::Issue { frame }).expect("signed");
    desk.wait(30 * 86_400);
    desk.store();
    desk.wait(1);
    desk.sent.clear();
    for _ in 0..100 {
        desk.wait(10);
        desk.store();
    }
    let items: BTreeSet<_> = desk.sent.iter().map(|(item, _)| *item).collect();
    let signed_elsewhere = [Item::KeySet, Item::Erase(super::desk::terminal(1))];
    assert_eq!(items, signed_elsewhere.into());
}

/// Whatever stands is said again after a restart, and the same.
#[test]
fn a_restarted_server_says_everything_that_stood() {
    let mut desk = Desk::with_group(40);
    for who in 3..=40 {
        desk.carry_out(add(1, who)).expect("known");
    }
    desk.carry_out(exclude(&[5, 6])).expect("known");
    desk.carry_out(exclude(&[7])).expect("known");
    for (who, kind) in [
        (5, OrderKind::Delete),
        (6, OrderKind::Init),
        (1, OrderKind::Lock),
        (2, OrderKind::Unlock),
    ] {
        let frame = desk.signed(who, kind, false);
        desk.carry_out(Order::Issue { frame }).expect("signed");
    }
    let order = Order::RenewDevice {
        terminal: super::desk::terminal(8),
    };
    desk.carry_out(order).expect("known");
    let frame = desk.key_set(KeySetDraft::default()).expect("always");
    desk.carry_out(Order::InstallKeys { frame })
        .expect("signed");
    desk.live(61);
    let said = |desk: &mut Desk| {
        desk.sent.clear();
        desk.live(61);
        let items: BTreeSet<_> = desk.sent.iter().map(|(item, _)| *item).collect();
        let frames: BTreeSet<_> = desk
            .sent
            .iter()
            .filter(|(item, _)| matches!(item.class(), Class::KeySet | Class::Erase))
            .cloned()
            .collect();
        (items, frames)
    };
    let before = said(&mut desk);
    // KEYSET, TIME, two exclusions, four orders, G, a device, a group, three of its distributions.
    assert_eq!(before.0.len(), 14, "{:?}", before.0);
    let wall = desk.at.wall;
    let mut desk = desk.restarted(wall);
    desk.store();
    assert_eq!(said(&mut desk), before);
}

/// What stands for days is made anew before it expires.
#[test]
fn nothing_is_sent_past_its_end() {
    let mut desk = Desk::founded(Founding {
        fleet_period: 30 * 86_400,
        bits_per_second: 2_000,
        ..Founding::default()
    });
    for name in ["a", "b", "c"] {
        desk.carry_out(add_terminal(name)).expect("free");
    }
    desk.carry_out(create_group("crew", &[1, 2])).expect("free");
    desk.carry_out(exclude(&[3])).expect("known");
    let mut issued = BTreeSet::new();
    for _ in 0..50 {
        desk.live(4_000);
        for (item, command) in desk.heard() {
            let sent_after = UnixSeconds::new(desk.at.wall.get() - 4_000);
            assert!(sent_after <= command.not_after, "{item:?}");
            if item.class() == Class::Exclude {
                issued.insert(command.issued_at.get());
            }
        }
    }
    assert!(issued.len() >= 4, "{issued:?}");
}
