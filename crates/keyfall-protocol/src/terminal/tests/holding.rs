//! What is held, and when it is gone (DESIGN section 11, invariant 7; REQUIREMENTS,
//! W-05; FORMATS sections 3 and 3.1), seen from inside the machine.

use super::driven::Driven;
use super::fixture::{
    FLEET_PERIOD, FOUNDED, Fleet, Stated, generation, group, master, terminal_number,
};
use crate::stats::DropReason;
use crate::terminal::{ReceiveKey, TrafficQuery};

/// Which of these epochs' packets are opened.
fn received(bob: &mut Driven, epochs: [u32; 3]) -> [bool; 3] {
    epochs.map(|epoch| {
        let query = TrafficQuery {
            group: group(),
            tag: master(epoch, 0).tag(),
            sender: terminal_number(2),
            source: 1,
        };
        let found = bob.machine.receive_key(bob.now, query);
        matches!(found, Ok(ReceiveKey::Held(_)))
    })
}

/// FORMATS section 3.1: used-up wrap keys open distributions for the keep time, then they are
/// wiped.
#[test]
fn an_old_wrap_key_is_gone_when_the_keep_time_ends() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.terminal();
    bob.hear(&fleet.time(0));
    let in_flight = fleet.key_dist(7, Stated::at(10, 0));
    let too_late = fleet.key_dist(8, Stated::at(11, 0));
    let renewed = Stated {
        fleet: 1,
        ..Stated::at(20, 0)
    };
    bob.hear(&fleet.renew_fleet(renewed));
    assert_eq!(bob.user().wrap.all().count(), 2);
    bob.wait(119);
    assert_eq!(bob.hear(&in_flight), None, "still opened");
    bob.wait(1);
    assert_eq!(bob.user().wrap.all().count(), 1);
    assert_eq!(bob.hear(&too_late), Some(DropReason::NotAddressed));
    assert_eq!(bob.user().wrap.newest().generation(), generation(1));
    assert_eq!(bob.places(generation(0)), []);
    assert_eq!(bob.places(generation(1)).len(), 9, "its own and eight more");
}

/// Through many generations, by command and by validity, no more is kept than the keep time says.
#[test]
fn memory_never_holds_a_wrap_key_that_ended_before_the_keep_time() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    for second in 1..5 * FLEET_PERIOD {
        bob.wait(1);
        if second % 100 == 0 {
            // Sixty faster than the schedule allows for the hour: the ring is bounded.
            let g = bob.machine.fleet_generation().get() + 1;
            let renewed = Stated {
                fleet: g,
                ..Stated::at(second, 0)
            };
            bob.hear(&fleet.renew_fleet(renewed));
        }
        bob.store_all();
        let since_step = second % 100;
        let held = bob.user().wrap.all().count();
        assert!(
            held <= if since_step < 20 { 4 } else { 3 },
            "{held} at {second}"
        );
    }
}

/// master keys of ended generations are in memory for the grace, and then not.
#[test]
fn an_old_master_key_is_gone_when_the_grace_ends() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    for n in 1..=20 {
        bob.hear(&fleet.renew(7, Stated::at(n, n)));
        bob.store_all();
        bob.wait(20);
    }
    let ring = &bob.user().groups[&group()].ring;
    assert_eq!(ring.all().count(), 2, "the newest and one in grace");
    bob.wait(30);
    let ring = &bob.user().groups[&group()].ring;
    assert_eq!(ring.all().count(), 1);
}

/// FORMATS section 3: "the old key is overwritten on disk at once".
#[test]
fn a_snapshot_holds_no_key_that_was_used_up() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let stated = Stated {
        fleet: 2,
        ..Stated::at(1, 3)
    };
    bob.hear(&fleet.renew(7, stated));
    bob.store_all();
    let disk = [&bob.synced.device[..], &bob.synced.user].concat();
    let contains = |secret: &[u8]| disk.windows(32).any(|window| window == secret);
    for g in 0..2 {
        let used_up = fleet.wrap_key(1).renew_to(generation(g));
        assert!(!contains(used_up.secret().expose()), "G {g}");
    }
    for g in 0..3 {
        assert!(!contains(master(7, g).secret().expose()), "generation {g}");
    }
    let present = fleet.wrap_key(1).renew_to(generation(2));
    assert!(contains(present.secret().expose()), "the positive control");
    assert!(contains(master(7, 3).secret().expose()));
}

/// KR-389, INVARIANT 5: two fresh epochs within one activation lead, in any order. Who heard of the second
/// late sends with the first, and who has the second sends with what was before both.
#[test]
fn of_two_fresh_epochs_both_are_received_until_the_second_is_active() {
    for swapped in [false, true] {
        let mut fleet = Fleet::new();
        let mut bob = fleet.member();
        let active = |second, at: u32| Stated {
            activate_at: FOUNDED.plus(at),
            ..Stated::at(second, 0)
        };
        let mut frames = [
            fleet.key_dist(8, active(0, 8)),
            fleet.key_dist(9, active(5, 13)),
        ];
        if swapped {
            frames.reverse();
        }
        bob.wait(5);
        bob.hear(&frames[0]);
        bob.wait(1);
        assert_eq!(bob.hear(&frames[1]), None, "swapped: {swapped}");
        bob.store_all();
        for second in 6..13 {
            assert_eq!(received(&mut bob, [7, 8, 9]), [true; 3], "{second}");
            let sent = bob.machine.send_key(group()).map(|key| key.epoch().get());
            assert_eq!(sent, Some(7), "{second}");
            bob.wait(1);
        }
        let sent = bob.machine.send_key(group()).map(|key| key.epoch().get());
        assert_eq!(sent, Some(9));
        // The grace of both begins when the second is active.
        bob.wait(29);
        assert_eq!(received(&mut bob, [7, 8, 9]), [true; 3]);
        bob.wait(1);
        assert_eq!(received(&mut bob, [7, 8, 9]), [false, false, true]);
        for frame in &frames {
            assert_eq!(bob.hear(frame), Some(DropReason::NotNewer));
        }
    }
}

/// KR-389: what came late is received no longer than what is sent with, and only where it lies between
/// that and the newest.
#[test]
fn an_epoch_that_was_passed_by_is_received_as_long_as_the_one_sent_with() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let waits = |second, at: u32| Stated {
        activate_at: FOUNDED.plus(at),
        ..Stated::at(second, 0)
    };
    let [older, passed] = [6, 8].map(|epoch| fleet.key_dist(epoch, waits(0, 8)));
    bob.hear(&fleet.exclude(&[3], Some(9), Stated::at(1, 0)));
    bob.hear(&fleet.key_dist(9, waits(1, 3)));
    bob.store_all();
    // Somebody was excluded: nothing from before is received.
    assert_eq!(bob.hear(&passed), Some(DropReason::NotNewer));
    assert_eq!(received(&mut bob, [7, 8, 9]), [false, false, true]);
    let mut bob = fleet.member();
    bob.hear(&fleet.key_dist(9, waits(1, 9)));
    bob.store_all();
    assert_eq!(bob.hear(&older), Some(DropReason::NotNewer));
    assert_eq!(received(&mut bob, [6, 7, 9]), [false, true, true]);
    assert_eq!(bob.hear(&passed), None);
    assert_eq!(bob.hear(&passed), Some(DropReason::NotNewer), "once");
}
