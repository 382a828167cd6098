//! Renewal by validity on the server's side (REQUIREMENTS ).

use super::desk::{Desk, FOUNDED, add_terminal, create_group, exclude, group, remove, terminal};
use crate::schedule::Cadence;
use crate::server::{Founding, Input, Moment, Order};

/// Each group renews every ten minutes.
fn desk() -> Desk {
    living(0)
}

/// And gets a fresh epoch after so many seconds.
fn living(epoch_life: u32) -> Desk {
    let mut desk = Desk::founded(Founding {
        epoch_life,
        ..Founding::default()
    });
    for name in ["a", "b"] {
        desk.carry_out(add_terminal(name)).expect("free");
    }
    for name in ["one", "two", "three"] {
        let Order::CreateGroup { name, members, .. } = create_group(name, &[1, 2]) else {
            unreachable!("that is what it makes");
        };
        let cadence = Cadence::new(1, 600);
        let order = Order::CreateGroup {
            packets: None,
            name,
            members,
            cadence,
        };
        desk.carry_out(order).expect("free");
    }
    desk
}

fn generations(desk: &Desk) -> Vec<u32> {
    let generation = |it: &crate::server::GroupRecord| it.master.generation().get();
    desk.server.groups().map(generation).collect()
}

#[test]
fn everything_that_is_due_is_one_batch() {
    let mut desk = desk();
    desk.wait(3_600);
    assert_eq!(generations(&desk), [0, 0, 0], "not before it is stored");
    let asked = desk.asked.expect("due");
    let batch = desk.server.batch(asked).expect("asked for");
    assert_eq!(batch.changes.len(), 3);
    desk.store();
    assert!(generations(&desk).iter().all(|&it| it >= 1));
    while desk.asked.is_some() {
        desk.store();
    }
    desk.wait(1);
    while desk.asked.is_some() {
        desk.store();
    }
    assert_eq!(generations(&desk), [6, 6, 6]);
    assert_eq!(desk.server.fleet().fleet_generation.get(), 1);
}

/// FORMATS section 3.1: an order in between takes no tick of the schedule away, so the exposure of
/// the past stays within one period.
#[test]
fn devices_renewed_by_order_still_renew_at_every_tick() {
    let mut desk = desk();
    for _ in 0..5 {
        desk.carry_out(Order::RenewDevices).expect("within bounds");
    }
    for hour in 1..=3 {
        for _ in 0..60 {
            desk.wait(60);
            while desk.asked.is_some() {
                desk.store();
            }
        }
        assert_eq!(desk.server.fleet().fleet_generation.get(), 5 + hour);
    }
    let mut restarted = desk.restarted(FOUNDED.plus(4 * 3_600 - 60));
    while restarted.asked.is_some() {
        restarted.store();
    }
    assert_eq!(restarted.server.fleet().fleet_generation.get(), 8);
}

/// One wrong reading of the wall clock renews nothing ahead of its time.
#[test]
fn a_wall_clock_that_jumps_is_not_followed_until_a_restart() {
    let mut desk = desk();
    desk.wait(10);
    let week = 7 * 86_400;
    let jumped = Moment {
        wall: desk.at.wall.plus(week),
        ..desk.at
    };
    let before = desk.at;
    desk.at = jumped;
    desk.feed(Input::Timeout);
    assert!(desk.asked.is_none(), "nothing is due");
    assert!(desk.server.clock_jumped() > week - 700);
    assert_eq!(generations(&desk), [0, 0, 0]);
    desk.at = before;
    desk.feed(Input::Timeout);
    assert_eq!(desk.server.clock_jumped(), 0, "set right again");
    let restarted = desk.restarted(FOUNDED.plus(week));
    assert_eq!(restarted.server.clock_jumped(), 0);
}

/// FORMATS section 3.1: the ticks of a group fall on ticks of G where its period allows, and come
/// back to them after commands, fresh epochs and exclusions.
#[test]
fn a_group_whose_period_allows_it_ticks_with_g() {
    let mut desk = Desk::new();
    for name in ["a", "b", "c"] {
        desk.carry_out(add_terminal(name)).expect("free");
    }
    desk.live(1234);
    let order = Order::CreateGroup {
        packets: None,
        name: "hourly".to_owned(),
        members: [1, 2, 3].map(terminal).into(),
        cadence: Cadence::new(1, 7200),
    };
    desk.carry_out(order).expect("free");
    let phase = |desk: &Desk| {
        let group = desk.server.group_named("hourly").expect("it is");
        group.schedule.activate_at.since(FOUNDED) % 3600
    };
    assert_eq!(phase(&desk), 0);
    let renew = Order::RenewGroup { group: group(1) };
    let rekey = Order::RekeyGroup { group: group(1) };
    for order in [renew, rekey, remove(1, 3)] {
        desk.carry_out(order).expect("known");
        assert_ne!(phase(&desk), 0, "by command it has its lead");
        desk.live(7203);
        assert_eq!(phase(&desk), 0);
        desk.live(1234);
    }
    desk.carry_out(exclude(&[2])).expect("known");
    assert_eq!(phase(&desk), 0, "without a lead");
}

/// FORMATS section 9: whatever was copied of a group's key reads nothing for longer than an epoch
/// lives, whether or not anybody noticed. One group after the other; by the scheduler, in audit and
/// journal; counted anew from every fresh epoch.
#[test]
fn a_group_gets_a_fresh_epoch_when_the_life_of_its_epoch_ends() {
    assert_eq!(Founding::default().epoch_life, 7 * 86_400);
    let life = 86_400;
    let mut desk = living(life);
    let epochs = |desk: &Desk| -> Vec<_> {
        let epoch = |it: &crate::server::GroupRecord| it.master.epoch();
        desk.server.groups().map(epoch).collect()
    };
    let first = epochs(&desk);
    desk.live(life / 2);
    let rekey = Order::RekeyGroup { group: group(2) };
    desk.carry_out(rekey).expect("known");
    desk.live(life / 2 - 3_600);
    let before = epochs(&desk);
    assert_eq!(
        (before[0], before[2]),
        (first[0], first[2]),
        "not before its time"
    );
    desk.live(2 * 3_600);
    let after = epochs(&desk);
    assert!(after[0] > first[0] && after[2] > first[2]);
    assert_eq!(after[1], before[1], "an order began its life anew");
    desk.live(life / 2);
    let later = epochs(&desk);
    assert!(later[1] > after[1]);
    assert_eq!((later[0], later[2]), (after[0], after[2]));
}

/// Where nobody is in the group, or the operator wants none, there is none.
#[test]
fn no_fresh_epoch_where_nobody_wants_one() {
    let never = living(0);
    let mut empty = living(86_400);
    for order in (1..=3).flat_map(|group| [remove(group, 1), remove(group, 2)]) {
        empty.carry_out(order).expect("a member");
    }
    for mut desk in [never, empty] {
        let epoch = |desk: &Desk| desk.server.groups().map(|it| it.master.epoch()).max();
        let before = epoch(&desk);
        desk.live(2 * 86_400);
        assert_eq!(epoch(&desk), before);
    }
}

/// where the disk takes nothing when a life ends, it is tried again after a pause, and the server
/// listens meanwhile.
#[test]
fn an_end_that_cannot_be_stored_is_tried_again_after_a_pause() {
    let life = 86_400;
    let mut desk = living(life);
    let epochs = |desk: &Desk| -> Vec<_> {
        let epoch = |it: &crate::server::GroupRecord| it.master.epoch();
        desk.server.groups().map(epoch).collect()
    };
    let before = epochs(&desk);
    desk.live(life - 5);
    for _ in 0..30 {
        desk.at.now = desk.at.now.plus(core::time::Duration::from_secs(1));
        desk.at.wall = desk.at.wall.plus(1);
        desk.feed(Input::Timeout);
        if desk.asked.is_some() {
            desk.fail();
        }
        assert!(
            desk.timeout.is_none_or(|at| at > desk.at.now),
            "it would not listen"
        );
    }
    assert_eq!(epochs(&desk), before);
    desk.live(60);
    let after = epochs(&desk);
    assert!(after.iter().zip(&before).all(|(new, old)| new > old));
}
