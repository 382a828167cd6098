//! Leases, the dead man's time and the clock (FORMATS sections 9 and 10; REQUIREMENTS W-03, W-10,
//! with beacons that lie, with none, and with power cuts.

use super::driven::Driven;
use super::fixture::{FOUNDED, Fleet, Stated, group, terminal_number};
use crate::command::{ListedKey, SignerClass, Target};
use crate::ids::{Tick, UnixSeconds};
use crate::stats::DropReason;
use crate::terminal::{EraseCause, Event, GroupState, Input};

const DAY: u32 = 86_400;
const LEASE: u32 = 72 * 3600;
/// Until the keys of the first KEYSET end, and the default dead man's time.
const MONTH: u32 = 30 * DAY;

/// A fleet with a dead man's time of one day: less than a stolen beat key can push time by.
fn impatient_fleet() -> Fleet {
    let mut fleet = Fleet::new();
    fleet.record.key_set.limits.dead_man = DAY;
    fleet.sign_key_set();
    fleet
}

fn may_receive(bob: &Driven) -> Result<(), DropReason> {
    bob.machine.may_receive(group(), terminal_number(2))
}

/// W-10: a clock ten years ahead, ten years back, or at its last second.
#[test]
fn a_beacon_ten_years_off_or_at_maxint_changes_nothing() {
    let mut fleet = Fleet::new();
    let warm = fleet.member();
    let cold = warm.restarted();
    let decade = 10 * 365 * DAY;
    for mut bob in [warm, cold] {
        bob.feed(Input::Timeout);
        bob.store_all();
        let before = (bob.snapshot(), bob.sending(), bob.machine.time());
        let past = UnixSeconds::new(FOUNDED.get() - decade);
        for (seconds, reason) in [
            (past, DropReason::TimeBackwards),
            (FOUNDED.plus(decade), DropReason::TimeTooFar),
            (UnixSeconds::new(u32::MAX), DropReason::TimeTooFar),
        ] {
            let forged = fleet.beacon(seconds, vec![], Stated::at(0, 0));
            assert_eq!(bob.hear(&forged), Some(reason));
            let dated = Stated {
                issued_at: seconds,
                ..Stated::at(0, 0)
            };
            assert!(bob.hear(&fleet.beacon(seconds, vec![], dated)).is_some());
        }
        assert_eq!((bob.snapshot(), bob.sending(), bob.machine.time()), before);
        assert_eq!((bob.asked, bob.erased), (vec![], None));
    }
}

/// W-10: a monotonic clock that is turned back gives no lease back.
#[test]
fn a_clock_turned_back_gives_no_lease_back() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.wait(u64::from(LEASE) + 61);
    bob.store_all();
    assert_eq!(bob.status().state, GroupState::LeaseOver);
    bob.now = Tick::default();
    bob.wait(1);
    bob.hear(&fleet.time(0));
    assert_eq!(bob.status().state, GroupState::LeaseOver);
    assert_eq!(may_receive(&bob), Err(DropReason::LeaseOver));
    assert_eq!(bob.sending(), None);
}

/// The issue, W-10: a stolen beat key pushes time to its own end. Leases end, nothing is wiped, and
/// the next KEYSET makes the terminal whole.
#[test]
fn a_stolen_beat_key_ends_leases_and_wipes_nothing() {
    let mut fleet = impatient_fleet();
    let mut bob = fleet.member().restarted();
    let expires = FOUNDED.plus(MONTH);
    let pushed = fleet.beacon(expires, vec![], Stated::at(0, 0));
    assert_eq!(bob.hear(&pushed), None);
    assert_eq!(bob.machine.time(), Some(expires));
    bob.wait(3600);
    bob.store_all();
    assert_eq!(bob.status().state, GroupState::LeaseOver);
    assert_eq!(bob.sending(), None);
    assert_eq!(may_receive(&bob), Err(DropReason::LeaseOver));
    assert_eq!(bob.erased, None);

    let thief = fleet.replace_key(SignerClass::Beat, 3600);
    let key_set = fleet.next_key_set(3600, |it| it.stolen = vec![thief.public().name()]);
    assert_eq!(bob.hear(&key_set), None);
    assert_eq!(bob.machine.time(), None, "what it said of the time is void");
    bob.store_all();
    // Also after a power cut: the mark of the stolen key is gone from the disk.
    let restarted = bob.restarted();
    for mut bob in [bob, restarted] {
        assert_eq!(bob.hear(&fleet.time(3700)), None);
        assert_eq!(bob.machine.time(), Some(FOUNDED.plus(3700)));
        assert_eq!(bob.status().state, GroupState::Ready);
        bob.store_all();
        assert_eq!(bob.sending(), Some(0));
    }
}

/// The issue: with the beat and keys keys no terminal can be made to delete. What both together say
/// of the time ends leases and wipes nothing; the root's word does, a group at the end of its lease
/// and the dead man's time.
#[test]
fn what_both_online_keys_say_of_the_time_wipes_nothing() {
    let mut fleet = impatient_fleet();
    let mut bob = fleet.terminal();
    bob.hear(&fleet.time(0));
    let short = Stated {
        lease: 3600,
        ..Stated::at(0, 0)
    };
    bob.hear(&fleet.key_dist(7, short));
    bob.store_all();
    let mut bob = bob.restarted();

    let late = LEASE + DAY + 1;
    bob.hear(&fleet.time(late));
    bob.hear(&fleet.exclude(&[9], None, Stated::at(late, 0)));
    bob.store_all();
    assert_eq!(bob.status().state, GroupState::LeaseOver);
    assert!(bob.machine.holds(group()));
    assert_eq!(bob.erased, None);

    let root = fleet.next_key_set(2 * DAY, |_| ());
    bob.hear(&root);
    assert!(!bob.machine.holds(group()), "its lease ended a day before");
    let retired = |event: &Event| matches!(event, Event::Retired { .. });
    bob.store_all();
    assert!(bob.events.iter().any(retired), "derived keys must go, too");
    assert_eq!(bob.erased, None);
    let bob = bob.restarted();
    assert!(!bob.machine.holds(group()), "gone from the disk");
}

/// A lease that a stolen key stated far ahead keeps no honest one from extending powered-on time:
/// else the terminal would wipe itself while it hears its server.
#[test]
fn a_lease_stated_far_ahead_wipes_no_terminal_that_hears_its_server() {
    let mut fleet = impatient_fleet();
    let mut bob = fleet.member().restarted();
    bob.hear(&fleet.time(0));
    assert_eq!(bob.hear(&fleet.renew(7, Stated::at(20 * DAY, 0))), None);
    bob.store_all();
    let thief = fleet.record.beat.public().name();
    let key_set = fleet.next_key_set(1, |key_set| key_set.stolen = vec![thief]);
    assert_eq!(bob.hear(&key_set), None);
    for half_day in 1..20 {
        let seconds = half_day * (DAY / 2);
        bob.wait(u64::from(DAY / 2));
        bob.hear(&fleet.time(seconds));
        let stated = Stated {
            fleet: seconds / 3600,
            ..Stated::at(seconds, 0)
        };
        let fresh = fleet.key_dist(7 + half_day, stated);
        assert_eq!(bob.hear(&fresh), None);
        bob.store_all();
        assert_eq!(bob.erased, None, "after {half_day} half days");
    }
}

/// The same by the root's word: a KEYSET that was issued after it.
#[test]
fn what_the_root_says_of_the_time_wipes() {
    let mut fleet = impatient_fleet();
    let member = fleet.member();
    let mut bob = member.restarted();
    assert_eq!(bob.machine.wipes_itself_at(), FOUNDED.plus(LEASE + DAY));
    let at_the_end = fleet.next_key_set(LEASE + DAY, |_| ());
    bob.hear(&at_the_end);
    assert_eq!(bob.erased, None);
    let mut bob = member.restarted();
    let after_it = fleet.next_key_set(LEASE + DAY + 1, |_| ());
    bob.hear(&after_it);
    assert_eq!(bob.erased.map(|it| it.cause), Some(EraseCause::DeadMan));
}

/// W-03, W-10: without any beacon, by powered-on time alone, through power cuts.
#[test]
fn powered_on_time_alone_ends_the_lease_and_wipes() {
    let mut fleet = impatient_fleet();
    let mut bob = fleet.member().restarted();
    // It heard of its lease within the first step; the second boot cost another.
    assert_eq!(bob.machine.powered_on(), 120);
    bob.wait(u64::from(LEASE) - 1);
    assert_eq!(may_receive(&bob), Ok(()));
    bob.wait(1);
    assert_eq!(may_receive(&bob), Err(DropReason::LeaseOver));
    bob.store_all();
    let mut bob = bob.restarted();
    bob.feed(Input::Timeout);
    assert_eq!(may_receive(&bob), Err(DropReason::LeaseOver));
    bob.store_all();
    assert_eq!(bob.machine.powered_on(), u64::from(LEASE) + 180);
    bob.wait(u64::from(DAY) - 61);
    assert_eq!(bob.erased, None);
    bob.wait(1);
    assert_eq!(bob.erased.map(|it| it.cause), Some(EraseCause::DeadMan));
}

/// What is left of a lease counts from its issue, not from the longest that may be.
#[test]
fn a_short_lease_is_short_in_powered_on_time_too() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.terminal();
    let short = Stated {
        lease: 3600,
        ..Stated::at(0, 0)
    };
    bob.hear(&fleet.key_dist(7, short));
    bob.store_all();
    bob.wait(3599);
    assert_eq!(may_receive(&bob), Ok(()));
    bob.wait(61);
    assert_eq!(may_receive(&bob), Err(DropReason::LeaseOver));
    assert_eq!(bob.machine.time(), None);
}

/// FORMATS section 9: a boot costs one step, stored before it passes: a thousand quick restarts
/// cost a thousand, and who restarts all the time ends his lease too.
#[test]
fn a_thousand_quick_reboots_cost_a_thousand_steps() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let before = bob.machine.powered_on();
    for n in 1..=1000 {
        bob = bob.restarted();
        bob.feed(Input::Timeout);
        bob.store_all();
        assert_eq!(bob.machine.powered_on(), before + 60 * n);
    }
    assert_eq!(may_receive(&bob), Ok(()));
    for _ in 0..u64::from(LEASE) / 60 + 1 - 1000 {
        bob = bob.restarted();
        bob.feed(Input::Timeout);
        bob.store_all();
    }
    assert_eq!(may_receive(&bob), Err(DropReason::LeaseOver));
}

/// The same while it runs: a power cut gives no second back.
#[test]
fn powered_on_time_is_on_disk_before_it_passes() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let mut passed = 0;
    for step in [59, 1, 61, 3600, 17, 240] {
        bob.wait(step);
        passed += step;
        bob.store_all();
        let restarted = bob.restarted().machine.powered_on();
        assert!(restarted > passed + 60, "{restarted} after {passed}");
        assert!(restarted <= passed + 120, "no more than that");
    }
}

/// FORMATS section 9: only RENEW and KEYDIST extend a lease, never TIME; at most to issued-at and
/// the longest lease; its end moves only forward, and no recording gives powered-on time back.
#[test]
fn a_lease_is_extended_by_newer_statements_only_and_by_the_roots_limit() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let first = FOUNDED.plus(LEASE);
    assert_eq!(bob.status().lease_end, Some(first));
    bob.wait(3600);
    bob.hear(&fleet.time(3600));
    assert_eq!(bob.status().lease_end, Some(first));
    assert_eq!(bob.machine.wipes_itself_at(), first.plus(MONTH));
    bob.hear(&fleet.key_dist(
        8,
        Stated {
            fleet: 1,
            ..Stated::at(3500, 0)
        },
    ));
    let first = FOUNDED.plus(3500 + LEASE);
    assert_eq!(bob.machine.wipes_itself_at(), first.plus(MONTH));
    assert_eq!(bob.status().lease_end, Some(first));
    let shorter = Stated {
        lease: 60,
        fleet: 1,
        ..Stated::at(3600, 1)
    };
    bob.hear(&fleet.renew(8, shorter));
    assert_eq!(bob.status().lease_end, Some(first), "never back");
    let endless = Stated {
        lease: u32::MAX,
        fleet: 1,
        ..Stated::at(3601, 1)
    };
    let recorded = fleet.renew(8, endless);
    bob.hear(&recorded);
    let longest = FOUNDED.plus(3601 + LEASE);
    assert_eq!(bob.status().lease_end, Some(longest));
    assert_eq!(bob.machine.wipes_itself_at(), longest.plus(MONTH));
    bob.store_all();
    // Played again for ever without beacons: it ends in powered-on time.
    let mut deaf = bob.restarted();
    for _ in 0..100 {
        deaf.wait(3600);
        deaf.hear(&recorded);
        deaf.hear(&fleet.key_dist(8, Stated::at(3500, 0)));
        deaf.store_all();
    }
    assert_eq!(may_receive(&deaf), Err(DropReason::LeaseOver));
}

/// The issue, A-13: off for a month, then the carousel: current and sending, and nobody came by.
#[test]
fn after_a_month_off_the_carousel_makes_a_terminal_current() {
    let mut fleet = Fleet::new();
    let member = fleet.member();
    // The online keys were replaced on day 25; the root's schedule goes on.
    fleet.replace_key(SignerClass::Beat, 25 * DAY);
    fleet.replace_key(SignerClass::Keys, 25 * DAY);
    let key_set = fleet.next_key_set(25 * DAY, |_| ());
    let (now, g) = (31 * DAY, 31 * 24);
    let stated = Stated {
        fleet: g,
        ..Stated::at(now, 700)
    };
    let same_epoch = fleet.renew(7, stated);
    let fresh_epoch = fleet.key_dist(8, stated);
    for (frame, epoch) in [(same_epoch, 7), (fresh_epoch, 8)] {
        let mut bob = member.restarted();
        let refused = bob.hear(&frame);
        assert_eq!(refused, Some(DropReason::UnknownSigner));
        assert_eq!(bob.hear(&key_set), None);
        bob.hear(&fleet.time(now));
        bob.store_all();
        assert_eq!(bob.status().state, GroupState::LeaseOver);
        assert_eq!(bob.hear(&frame), None);
        bob.store_all();
        assert_eq!(bob.machine.fleet_generation().get(), g);
        assert_eq!((bob.epoch().get(), bob.sending()), (epoch, Some(700)));
        assert_eq!(bob.status().state, GroupState::Ready);
    }
}

/// FORMATS sections 2.1 and 10: "its exp counts in powered-on time too": a terminal that hears no
/// beacon obeys no recording of a key that ended.
#[test]
fn a_signing_key_ends_in_powered_on_time_too() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member().restarted();
    let recorded = fleet.renew(7, Stated::at(100, 1));
    bob.wait(u64::from(MONTH) - 600);
    assert_eq!(bob.machine.time(), None);
    bob.store_all();
    assert_eq!(bob.hear(&recorded), None, "it has not ended yet");
    let later = fleet.renew(7, Stated::at(101, 2));
    bob.wait(700);
    bob.store_all();
    assert_eq!(bob.hear(&later), Some(DropReason::SignerExpired));
    // The next KEYSET counts anew.
    let key_set = fleet.next_key_set(MONTH + 1, |_| ());
    assert_eq!(bob.hear(&key_set), None);
    assert_eq!(bob.hear(&later), Some(DropReason::SignerExpired));
    fleet.replace_key(SignerClass::Beat, MONTH);
    let key_set = fleet.next_key_set(MONTH + 2, |_| ());
    assert_eq!(bob.hear(&key_set), None);
    let stated = Stated {
        fleet: 720,
        ..Stated::at(MONTH + 3, 3)
    };
    assert_eq!(bob.hear(&fleet.renew(7, stated)), None);
}

/// FORMATS section 10: the issued-at of the KEYSET is a stored lower bound.
#[test]
fn no_beacon_from_before_the_keyset_is_taken_also_after_a_restart() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.next_key_set(5000, |_| ()));
    bob.store_all();
    assert_eq!(
        bob.machine.time(),
        Some(FOUNDED.plus(5000)),
        "it is not earlier"
    );
    let mut restarted = bob.restarted();
    for bob in [&mut bob, &mut restarted] {
        let refused = bob.hear(&fleet.time(4999));
        assert_eq!(refused, Some(DropReason::TimeBackwards));
    }
    assert_eq!(restarted.hear(&fleet.time(5001)), None);
}

/// FORMATS section 2.1: past its end a command is refused, also before the first beacon since
/// power-on, by what is stored of the time.
#[test]
fn a_command_past_its_end_is_refused_before_any_beacon() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.wait(1200);
    assert_eq!(bob.hear(&fleet.time(1200)), None);
    bob.store_all();
    let stated = Stated::at(10, 1);
    let body = Fleet::renew_body(7, stated);
    let mut command = fleet.command(Target::Group(group()), body, stated);
    let mut bob = bob.restarted();
    for (end, refused) in [(1199, Some(DropReason::PastNotAfter)), (1200, None)] {
        command.not_after = FOUNDED.plus(end);
        let frame = fleet.record.beat.sign(&command);
        assert_eq!(bob.hear(&frame), refused);
    }
    assert_eq!(bob.machine.time(), None);
}

/// FORMATS section 10: the mark is kept for each beat key: when one is dropped, only what it said
/// is void.
#[test]
fn the_mark_of_each_beat_key_is_its_own() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let first = fleet.replace_key(SignerClass::Beat, 0);
    let both = fleet.next_key_set(1, |key_set| {
        let listed = key_set.keys[0].clone();
        key_set.keys.push(ListedKey {
            public: first.public(),
            ..listed
        });
    });
    assert_eq!(bob.hear(&both), None);
    assert_eq!(bob.hear(&fleet.time(200)), None);
    let second = std::mem::replace(&mut fleet.record.beat, first);
    assert_eq!(bob.hear(&fleet.time(500)), None);
    let dropped = fleet.next_key_set(2, |key_set| key_set.keys.truncate(3));
    assert_eq!(bob.hear(&dropped), None);
    fleet.record.beat = second;
    bob.store_all();
    for mut bob in [bob.restarted(), bob] {
        let refused = bob.hear(&fleet.time(199));
        assert_eq!(refused, Some(DropReason::TimeBackwards));
        assert_eq!(bob.hear(&fleet.time(201)), None);
    }
}

/// W-10: what a stolen keys key said of the time lets no beat key run ahead after the KEYSET that
/// drops it.
#[test]
fn a_dropped_keys_key_confirms_no_beacon() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let far = 20 * DAY;
    let excluded = fleet.exclude(&[9], None, Stated::at(far, 0));
    assert_eq!(bob.hear(&excluded), None);
    fleet.replace_key(SignerClass::Keys, 10);
    let mut whole = bob.restarted();
    assert_eq!(whole.hear(&fleet.time(5)), None);
    for bob in [&mut bob, &mut whole] {
        let next = fleet.next_key_set(10, |_| ());
        assert_eq!(bob.hear(&next), None);
        assert_eq!(bob.hear(&fleet.time(far)), Some(DropReason::TimeTooFar));
        assert_eq!(bob.hear(&fleet.time(20)), None);
    }
}

/// FORMATS section 10: forward jumps are bounded anew for each KEYSET, by 10 minutes and not by
/// what was said before.
#[test]
fn each_keyset_allows_ten_minutes_of_running_ahead() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    assert_eq!(bob.hear(&fleet.time(600)), None);
    assert_eq!(bob.hear(&fleet.time(602)), Some(DropReason::TimeTooFar));
    bob.hear(&fleet.next_key_set(100, |_| ()));
    assert_eq!(bob.hear(&fleet.time(1200)), None);
    assert_eq!(bob.hear(&fleet.time(1202)), Some(DropReason::TimeTooFar));
}
