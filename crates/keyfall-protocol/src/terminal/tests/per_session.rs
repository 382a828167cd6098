//! A generation for each session (REQUIREMENTS; FORMATS section 3.2), and the
//! generations of one terminal's own wrap key (R-046; FORMATS section 3.1).

use super::driven::Driven;
use super::fixture::{
    FLEET_PERIOD, Fleet, Stated, generation, group, master, terminal_number, trial,
};
use crate::command::{Body, Target};
use crate::keys::WrapKey;
use crate::schedule::Cadence;
use crate::stats::DropReason;
use crate::terminal::{Cause, Event, Input, Order, ReceiveKey, TrafficQuery};

/// Seconds of one period of the schedule.
const PERIOD: u32 = 3600;

/// A member of a group that renews per session, stored; other members have the same key.
fn member(fleet: &mut Fleet) -> Driven {
    let mut bob = fleet.member();
    let stated = Stated {
        cadence: Cadence::new(64, PERIOD),
        ..Stated::at(0, 1)
    };
    bob.hear(&fleet.renew(7, stated));
    bob.store_all();
    assert_eq!(bob.sending(), Some(1));
    bob
}

/// A call begins.
fn call(bob: &mut Driven) {
    bob.events.clear();
    bob.feed(Input::Order(Order::OpenSession { group: group() }));
    let ready = |event: &Event| matches!(event, Event::SessionReady { .. });
    assert!(!bob.events.iter().any(ready), "not before it is stored");
    bob.store_all();
    assert!(bob.events.iter().any(ready));
}

fn hears(bob: &mut Driven, at: u32) -> Result<(), DropReason> {
    let query = TrafficQuery {
        group: group(),
        tag: master(7, at).tag(),
        sender: terminal_number(2),
        source: 1,
    };
    match bob.machine.receive_key(bob.now, query)? {
        ReceiveKey::Held(_) => Ok(()),
        ReceiveKey::Trial(trial) => {
            bob.feed(Input::Opened(trial));
            bob.store_all();
            Ok(())
        }
    }
}

/// two calls in a row use generations g and g + 1.
#[test]
fn two_calls_in_a_row_use_two_generations() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    for expected in 2..=5 {
        call(&mut bob);
        assert_eq!(
            (bob.generation(), bob.sending()),
            (Some(expected), Some(expected))
        );
        let renewed = Event::Renewed {
            group: group(),
            from: generation(expected - 1),
            to: generation(expected),
            cause: Cause::Session,
        };
        assert!(bob.events.contains(&renewed));
    }
    assert_eq!(bob.status().fingerprint, master(7, 5).fingerprint());
    assert_eq!(bob.restarted().generation(), Some(5));
    // Another group's call goes on as ever.
    let mut plain = fleet.member();
    call(&mut plain);
    assert_eq!(plain.sending(), Some(0));
}

/// both begin at once, or one fails; the higher generation wins, and both accept both within
/// the grace.
#[test]
fn calls_that_begin_at_once_agree() {
    let mut fleet = Fleet::new();
    let (mut alice, mut bob) = (member(&mut fleet), member(&mut fleet));
    call(&mut alice);
    call(&mut bob);
    assert_eq!((alice.sending(), bob.sending()), (Some(2), Some(2)));
    assert_eq!(hears(&mut alice, 2), Ok(()));
    assert_eq!(hears(&mut bob, 2), Ok(()));
    // Alice calls twice more; the first fails. What Bob still sends under 2 is heard.
    call(&mut alice);
    call(&mut alice);
    assert_eq!(hears(&mut alice, 2), Ok(()));
    assert_eq!(hears(&mut bob, 4), Ok(()));
    assert_eq!((alice.sending(), bob.sending()), (Some(4), Some(4)));
    assert_eq!(
        hears(&mut bob, 3),
        Err(DropReason::OlderGeneration),
        "never held"
    );
    assert_eq!(hears(&mut bob, 2), Ok(()), "held, in grace");
    bob.wait(31);
    assert_eq!(hears(&mut bob, 2), Err(DropReason::OlderGeneration));
}

/// A-09, FORMATS section 3.2: at most 63 in a period; the next period begins above all of them.
#[test]
fn a_period_has_63_generations_for_sessions() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    for expected in 2..=64 {
        call(&mut bob);
        assert_eq!(bob.sending(), Some(expected));
    }
    for _ in 0..3 {
        call(&mut bob);
        assert_eq!(bob.sending(), Some(64), "as many as there are");
    }
    let mut silent = member(&mut fleet);
    for it in [&mut bob, &mut silent] {
        it.wait(u64::from(PERIOD));
        it.store_all();
        assert_eq!((it.generation(), it.sending()), (Some(65), Some(65)));
    }
    call(&mut silent);
    assert_eq!(silent.sending(), Some(66));
}

/// FORMATS section 3.2: the ceiling is what the schedule reaches in ten minutes, and 63.
#[test]
fn the_ceiling_per_session_is_the_schedule_and_63() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    assert_eq!(hears(&mut bob, 65), Err(DropReason::AboveCeiling));
    assert_eq!(hears(&mut bob, 64), Ok(()));
    for above in 65..=128 {
        bob.wait(1);
        assert_eq!(
            hears(&mut bob, above),
            Err(DropReason::AboveCeiling),
            "{above}"
        );
    }
    bob.wait(u64::from(PERIOD) - 700);
    assert_eq!(hears(&mut bob, 65), Err(DropReason::AboveCeiling));
    bob.wait(100);
    assert_eq!(
        hears(&mut bob, 128),
        Ok(()),
        "ten minutes before the next period"
    );
}

/// without trusted time nobody knows the period, and calls go on under the present
/// generation.
#[test]
fn without_time_a_call_takes_no_generation() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet).restarted();
    call(&mut bob);
    assert_eq!(bob.generation(), Some(1));
    bob.hear(&fleet.time(1));
    call(&mut bob);
    assert_eq!(bob.generation(), Some(2));
}

/// The group's key for terminal 1, whose wrap key the server has at `offset` beyond G.
fn dist_at(fleet: &mut Fleet, epoch: u32, offset: u32, stated: Stated) -> Vec<u8> {
    let wrap = fleet
        .wrap_key(1)
        .renew_to(generation(stated.fleet + offset));
    let body = fleet.key_dist_body(epoch, stated, &[&wrap]);
    let command = fleet.command(Target::Handles, body, stated);
    fleet.record.keys.sign(&command)
}

fn wrap_is(bob: &Driven, fleet: &Fleet, at: u32) {
    let expected: WrapKey = fleet.wrap_key(1).renew_to(generation(at));
    let held = (expected.generation(), expected.fingerprint());
    assert_eq!(bob.machine.wrap_key(), Some(held));
}

/// R-046, FORMATS section 3.1: `renew --device T` is stated absolutely, and G goes on beside it.
#[test]
fn an_order_to_one_terminal_renews_its_wrap_key_ahead_of_the_fleet() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let first = fleet.offset(1, Stated::at(1, 0));
    assert_eq!(bob.hear(&first), None);
    wrap_is(&bob, &fleet, 1);
    assert_eq!(bob.machine.fleet_generation(), generation(0));
    bob.store_all();
    assert!(
        bob.events
            .contains(&Event::OffsetRenewed { from: 0, to: 1 })
    );
    for frame in [&first, &fleet.offset(1, Stated::at(2, 0))] {
        assert_eq!(bob.hear(frame), Some(DropReason::NotNewer));
    }
    bob.wait(u64::from(FLEET_PERIOD));
    wrap_is(&bob, &fleet, 2);
    bob.store_all();
    let stated = Stated {
        fleet: 1,
        ..Stated::at(FLEET_PERIOD, 3)
    };
    // One that he did not hear of: stated absolutely, the next is enough.
    assert_eq!(bob.hear(&fleet.offset(3, stated)), None);
    wrap_is(&bob, &fleet, 4);
    bob.store_all();
    let frame = dist_at(&mut fleet, 8, 3, stated);
    let mut restarted = bob.restarted();
    wrap_is(&restarted, &fleet, 4);
    assert_eq!(restarted.hear(&frame), None);
    assert_eq!(bob.hear(&frame), None);
    // Another's is not his.
    let entry = super::fixture::renew_entry(terminal_number(2).wrap_key_id(), 0, stated);
    let body = Body::Renew(crate::command::Renew {
        entries: vec![entry],
    });
    let command = fleet.command(Target::Terminal(terminal_number(2)), body, stated);
    let refused = bob.hear(&fleet.record.beat.sign(&command));
    assert_eq!(refused, Some(DropReason::NotHeld));
}

/// FORMATS section 3.1: "T keeps handles for the next 8 offsets": as many orders may be missed, and
/// the next distribution tells of them.
#[test]
fn up_to_eight_missed_offsets_are_found_in_a_distribution() {
    for (missed, found) in [(1, true), (8, true), (9, false)] {
        for g in [0, 5] {
            let mut fleet = Fleet::new();
            let mut bob = fleet.terminal();
            bob.hear(&fleet.time(0));
            let stated = Stated {
                fleet: g,
                ..Stated::at(1, 0)
            };
            let frame = dist_at(&mut fleet, 7, missed, stated);
            if found {
                assert_eq!(bob.hear(&frame), None, "{missed} under {g}");
                wrap_is(&bob, &fleet, g + missed);
                assert_eq!(bob.user().offset, missed);
                bob.store_all();
                assert_eq!(bob.sending(), Some(0));
                wrap_is(&bob.restarted(), &fleet, g + missed);
            } else {
                assert_eq!(bob.hear(&frame), Some(DropReason::NotAddressed));
                wrap_is(&bob, &fleet, g);
            }
        }
    }
}

/// FORMATS section 3.1: the wrap key of an ended G opens nothing that names a later one, though it
/// is kept for what is on its way.
#[test]
fn a_distribution_is_looked_up_under_the_g_that_it_names() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.terminal();
    bob.hear(&fleet.time(0));
    let stated = Stated {
        fleet: 1,
        ..Stated::at(1, 0)
    };
    bob.hear(&fleet.renew_fleet(stated));
    bob.store_all();
    let wrap = fleet.wrap_key(1);
    let body = fleet.key_dist_body(7, stated, &[&wrap]);
    let command = fleet.command(Target::Handles, body, stated);
    let frame = fleet.record.keys.sign(&command);
    assert_eq!(bob.hear(&frame), Some(DropReason::NotAddressed));
    let on_its_way = fleet.key_dist(7, Stated::at(1, 0));
    assert_eq!(bob.hear(&on_its_way), None, "the positive control");
}

/// Only what is sent now tells of an offset: a recording under an older G does not, nor does a
/// distribution that names the handle and does not open.
#[test]
fn an_old_distribution_tells_of_no_offset() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.terminal();
    bob.hear(&fleet.time(0));
    let recorded = dist_at(&mut fleet, 7, 4, Stated::at(1, 0));
    let stated = Stated {
        fleet: 2,
        ..Stated::at(2, 0)
    };
    bob.hear(&fleet.renew_fleet(stated));
    bob.store_all();
    assert_eq!(bob.hear(&recorded), Some(DropReason::NotAddressed));
    wrap_is(&bob, &fleet, 2);
    // Nobody's word but the server's: the same, signed by a member.
    let wrap = fleet.wrap_key(1).renew_to(generation(6));
    let body = fleet.key_dist_body(7, stated, &[&wrap]);
    let command = fleet.command(Target::Handles, body, stated);
    let refused = bob.hear(&fleet.erase.sign(&command));
    assert_eq!(refused, Some(DropReason::WrongClass));
    wrap_is(&bob, &fleet, 2);
    assert_eq!(bob.user().offset, 0);
}

/// FORMATS section 3.1 and KEYSET: the root's next schedule overtakes own offsets; where it begins
/// only a little further, what is left of them stays.
#[test]
fn the_roots_next_schedule_overtakes_own_offsets() {
    for (first, left, at) in [(3, 4, 7), (7, 0, 7), (20, 0, 20)] {
        for locked in [false, true] {
            let mut fleet = Fleet::new();
            let mut bob = fleet.member();
            bob.hear(&fleet.offset(7, Stated::at(1, 0)));
            bob.store_all();
            if locked {
                bob.feed(Input::Lock);
            }
            let key_set = fleet.next_key_set(10, |key_set| {
                key_set.fleet_schedule.first = generation(first);
                key_set.fleet_schedule.from = key_set.issued_at;
            });
            // The root's word alone, also before any beacon.
            let mut cold = bob.restarted();
            assert_eq!(cold.hear(&key_set), None);
            wrap_is(&cold, &fleet, at);
            assert_eq!(bob.hear(&key_set), None);
            bob.store_all();
            if locked {
                assert_eq!(bob.unlock(), Ok(()));
            }
            assert_eq!(bob.machine.fleet_generation(), generation(first));
            assert_eq!(bob.user().offset, left);
            wrap_is(&bob, &fleet, at);
            // The same schedule again overtakes nothing more.
            let again = fleet.next_key_set(11, |_| ());
            assert_eq!(bob.hear(&again), None);
            assert_eq!(bob.user().offset, left);
            bob.store_all();
            wrap_is(&bob.restarted(), &fleet, at);
        }
    }
}

/// What a member's packet claims moves a per-session group by the same rules as any other.
#[test]
fn a_trial_in_a_group_per_session_is_stored_before_it_is_sent_with() {
    let mut fleet = Fleet::new();
    let mut bob = member(&mut fleet);
    let claimed = trial(&mut bob, 9);
    bob.feed(Input::Opened(claimed));
    assert_eq!((bob.generation(), bob.sending()), (Some(9), Some(1)));
    bob.store_all();
    assert_eq!(bob.sending(), Some(9));
    call(&mut bob);
    assert_eq!(bob.sending(), Some(10));
}
