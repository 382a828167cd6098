//! Leaving and fresh epochs, and one device's own renewal (REQUIREMENTS; FORMATS
//! sections 3.1 and 5.4).

use super::desk::{Desk, add, add_terminal, create_group, exclude, group, opens, remove, terminal};
use crate::command::{Body, Command, Target};
use crate::ids::{Generation, KeyEpoch};
use crate::schedule::{Cadence, PER_SESSION_STEP};
use crate::server::{ACTIVATION_LEAD, Class, Done, Item, OFFSET_MAX, Order, Refusal};

fn opened(heard: &[(Item, Command)], desk: &Desk, number: u32) -> usize {
    let wrap = desk.wrap(number);
    let opens = |(_, command): &&(Item, Command)| match &command.body {
        Body::KeyDist(dist) => opens(&wrap, command, dist),
        Body::Time(_)
        | Body::Renew(_)
        | Body::Order(_)
        | Body::Exclude(_)
        | Body::KeySet(_)
        | Body::Stop(_)
        | Body::Start(_)
        | Body::Notify(_) => false,
    };
    heard.iter().filter(opens).count()
}

#[test]
fn whoever_leaves_is_in_no_later_distribution_and_the_group_has_a_fresh_epoch() {
    let mut desk = Desk::with_group(3);
    desk.carry_out(add(1, 3)).expect("free");
    desk.live(31);
    let heard = desk.heard();
    assert!(opened(&heard, &desk, 2) > 0, "the control");
    let before = desk.server.groups[&group(1)].master.duplicate();
    let Ok(Done::Removed { epoch, at, .. }) = desk.carry_out(remove(1, 2)) else {
        panic!("it was one");
    };
    assert_eq!(at, desk.at.wall.plus(ACTIVATION_LEAD));
    desk.live(61);
    let heard = desk.heard();
    assert_eq!(opened(&heard, &desk, 2), 0);
    assert!(opened(&heard, &desk, 1) > 0 && opened(&heard, &desk, 3) > 0);
    let after = &desk.server.groups[&group(1)].master;
    assert!(epoch > before.epoch() && after.epoch() == epoch);
    let derived = before.renew_to(Generation::new(100).expect("small"));
    assert_ne!(after.secret().expose(), derived.secret().expose());
    // Back again: a member like any other.
    desk.carry_out(add(1, 2)).expect("it is not excluded");
    desk.live(10);
    let heard = desk.heard();
    assert!(opened(&heard, &desk, 2) > 0);
    let memberships = &desk.server.terminals[&terminal(2)].memberships;
    let stretches: Vec<_> = memberships.iter().map(|it| it.until.is_some()).collect();
    assert_eq!(stretches, [true, false]);
}

/// A message of the KEYDIST that is gone leaves no turn behind, and comes back once.
#[test]
fn messages_come_and_go_with_the_members() {
    let mut desk = Desk::new();
    let members: Vec<u32> = (1..=18).collect();
    for n in &members {
        desk.carry_out(add_terminal(&format!("t{n}")))
            .expect("free");
    }
    desk.carry_out(create_group("crew", &members))
        .expect("free");
    let standing = |desk: &Desk| {
        let report = desk.server.carousel();
        report
            .iter()
            .find(|it| it.class == Class::KeyDist)
            .expect("always")
            .items
    };
    assert_eq!(standing(&desk), 2);
    for _ in 0..3 {
        desk.carry_out(remove(1, 4)).expect("a member");
        assert_eq!(standing(&desk), 1);
        desk.carry_out(add(1, 4)).expect("no member");
        assert_eq!(standing(&desk), 2);
    }
    for n in members {
        desk.carry_out(remove(1, n)).expect("a member");
    }
    assert_eq!(standing(&desk), 0);
}

#[test]
fn rekeying_gives_everyone_in_the_group_a_fresh_epoch() {
    let mut desk = Desk::with_group(3);
    let before = desk.server.groups[&group(1)].master.epoch();
    desk.live(10);
    let rekey = Order::RekeyGroup { group: group(1) };
    let mut epochs = vec![before];
    // Faster than the clock, too.
    for _ in 0..3 {
        let Ok(Done::Rekeyed { epoch, at, .. }) = desk.carry_out(rekey.clone()) else {
            panic!("it is");
        };
        assert_eq!(at, desk.at.wall.plus(ACTIVATION_LEAD));
        epochs.push(epoch);
    }
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    desk.sent.clear();
    desk.live(2);
    let heard = desk.heard();
    assert!(opened(&heard, &desk, 1) > 0 && opened(&heard, &desk, 2) > 0);
    assert_eq!(opened(&heard, &desk, 3), 0, "no member");
}

/// What the device's own RENEW says: by how much it is beyond the G of the same command.
fn stated(heard: &[(Item, Command)], number: u32) -> Vec<u32> {
    let mut offsets = Vec::new();
    for (item, command) in heard {
        if let (Item::Device(of), Body::Renew(renew)) = (item, &command.body) {
            assert_eq!(
                (*of, command.target),
                (terminal(number), Target::Terminal(*of))
            );
            let entry = renew.entries[0];
            assert_eq!(entry.kid, terminal(number).wrap_key_id());
            assert_eq!(entry.epoch, KeyEpoch::RANK_ONE);
            let generation = entry.schedule.generation;
            offsets.push(generation.steps_from(command.fleet_generation));
        }
    }
    offsets
}

#[test]
fn a_device_that_is_renewed_alone_keeps_its_lead() {
    let mut desk = Desk::with_group(2);
    let renew = Order::RenewDevice {
        terminal: terminal(1),
    };
    let old = desk.wrap(1);
    for offset in 1..=2 {
        let Ok(Done::DeviceRenewed {
            offset: said,
            generation,
            ..
        }) = desk.carry_out(renew.clone())
        else {
            panic!("it is");
        };
        assert_eq!((said, generation.get()), (offset, offset));
    }
    desk.sent.clear();
    desk.live(9);
    let heard = desk.heard();
    assert_eq!(stated(&heard, 1), [2; 5], "at 0, 1, 2, 4, 8 s");
    // Its distributions are for the new key, those of others as before.
    let dist = heard
        .iter()
        .find_map(|(item, command)| match &command.body {
            Body::KeyDist(dist) if item.class() == Class::KeyDist => Some(dist),
            Body::KeyDist(_)
            | Body::Time(_)
            | Body::Renew(_)
            | Body::Order(_)
            | Body::Exclude(_)
            | Body::KeySet(_)
            | Body::Stop(_)
            | Body::Start(_)
            | Body::Notify(_) => None,
        });
    let dist = dist.expect("announced, too");
    assert!(dist.open_any(&old).is_none());
    assert!(dist.open(&desk.wrap(1)).is_some() && dist.open(&desk.wrap(2)).is_some());
    // G moves all; the lead stays, through a restart as well.
    desk.carry_out(Order::RenewDevices).expect("free");
    assert_eq!(desk.wrap(1).generation().get(), 3);
    assert_eq!(desk.wrap(2).generation().get(), 1);
    let wall = desk.at.wall;
    let mut desk = desk.restarted(wall);
    desk.store();
    desk.live(61);
    let heard = desk.heard();
    let said = stated(&heard, 1);
    assert!(said.len() > 1 && said.iter().all(|&offset| offset == 2));
    // Nothing is for one that is excluded.
    desk.carry_out(exclude(&[1])).expect("known");
    desk.live(61);
    let heard = desk.heard();
    assert!(stated(&heard, 1).is_empty());
}

/// FORMATS section 2.1: no more than terminals accept.
#[test]
fn a_device_is_renewed_alone_64_times_and_not_once_more() {
    let mut desk = Desk::with_group(2);
    let renew = Order::RenewDevice {
        terminal: terminal(1),
    };
    for _ in 0..OFFSET_MAX {
        assert!(desk.carry_out(renew.clone()).is_ok());
    }
    let refused = desk.carry_out(renew);
    assert!(
        matches!(refused, Err(Refusal::DeviceRenewedTooOften(_))),
        "{refused:?}"
    );
}

/// whoever joins a group that renews for each session gets a generation that no session
/// of the present period can have used.
#[test]
fn joining_closes_the_sessions_of_the_period() {
    let mut desk = Desk::with_group(3);
    let order = Order::CreateGroup {
        packets: None,
        name: "calls".to_owned(),
        members: vec![terminal(1), terminal(2)],
        cadence: Cadence::new(PER_SESSION_STEP, 86_400),
    };
    let Ok(Done::Group { number, .. }) = desk.carry_out(order) else {
        panic!("made");
    };
    let stood = |desk: &Desk| desk.server.groups[&number].master.generation();
    for (order, step) in [
        (
            Order::AddMember {
                group: number,
                terminal: terminal(3),
            },
            64,
        ),
        (Order::RenewGroup { group: number }, 128),
    ] {
        desk.carry_out(order).expect("within bounds");
        assert!(stood(&desk).get() >= step, "{}", stood(&desk));
    }
}
