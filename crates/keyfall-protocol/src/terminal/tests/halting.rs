//! STOP and START: what sends when, what survives, and what nobody can do with a recording
//! (REQUIREMENTS, W-07).

use std::time::Duration;

use super::driven::Driven;
use super::fixture::{FOUNDED, Fleet, Stated, generation, group, halt, master, terminal_number};
use crate::command::{Body, Halt, HaltKind, OrderKind, SignerClass, Target};
use crate::ids::{GroupNumber, KeyEpoch, Tick};
use crate::keys::MasterKey;
use crate::server::{CHANGE_LEAD, GRACE_MIN};
use crate::sharing::Confirmation;
use crate::stats::DropReason;
use crate::terminal::{Event, GroupState, Input, ReceiveKey, ResumeCause, TrafficQuery};

/// Whether a packet under that key would be opened with a key that is held.
fn receives(bob: &mut Driven, key: &MasterKey) -> bool {
    let query = TrafficQuery {
        group: group(),
        tag: key.tag(),
        sender: terminal_number(2),
        source: 1,
    };
    let found = bob.machine.receive_key(bob.now, query);
    matches!(found, Ok(ReceiveKey::Held(_)))
}

/// The confirmations since the last look, which terminal 1 made of `change`.
fn confirmed(fleet: &Fleet, bob: &mut Driven, change: Halt) -> Vec<HaltKind> {
    let wrap = fleet.wrap_key(1);
    let read = |datagram: Vec<u8>| {
        let read = Confirmation::decode(&datagram).expect("its own");
        assert!(read.check(&wrap));
        assert_eq!(
            (read.group, read.transaction),
            (change.group, change.transaction)
        );
        assert_eq!(
            (read.epoch, read.generation),
            (change.epoch, change.generation)
        );
        read.kind
    };
    std::mem::take(&mut bob.to_server)
        .into_iter()
        .map(read)
        .collect()
}

fn resumed(bob: &Driven) -> Vec<ResumeCause> {
    let cause = |event: &Event| {
        if let Event::Resumed { cause, .. } = *event {
            Some(cause)
        } else {
            None
        }
    };
    bob.events.iter().filter_map(cause).collect()
}

fn why(bob: &Driven) -> DropReason {
    bob.machine.why_not_sending(group())
}

/// INVARIANTS 2 and 5: the barrier.
#[test]
fn stop_silences_at_once_and_start_sends_under_the_key_that_both_name() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.wait(10);
    let change = halt(5, (7, 1), 20);
    assert_eq!(bob.hear(&fleet.stop(change, 10)), None);
    // Silent at once; the word to the server waits for the disk.
    assert_eq!((bob.sending(), why(&bob)), (None, DropReason::Stopped));
    assert_eq!(bob.to_server, Vec::<Vec<u8>>::new());
    bob.store_all();
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Stop]);
    let status = bob.status();
    assert_eq!((status.state, status.sending), (GroupState::Stopped, None));
    assert_eq!(status.stopped_until, Some(FOUNDED.plus(20)));
    assert!(receives(&mut bob, &master(7, 0)) && receives(&mut bob, &master(7, 1)));
    // A stop of any length takes nothing of the old key's grace.
    bob.wait(3);
    assert_eq!(bob.hear(&fleet.start(change, 13)), None);
    assert_eq!(bob.sending(), Some(1));
    assert_eq!(bob.to_server, Vec::<Vec<u8>>::new(), "until it is stored");
    bob.store_all();
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Start]);
    assert_eq!(resumed(&bob), [ResumeCause::Start]);
    assert_eq!(bob.status().stopped_until, None);
    // The grace of the old one begins with START.
    bob.wait(29);
    assert!(receives(&mut bob, &master(7, 0)));
    bob.wait(2);
    assert!(!receives(&mut bob, &master(7, 0)));
    assert_eq!(bob.sending(), Some(1));
}

/// KR-391: at the shortest grace that a server drafts, who took a START at once hears those that heard none
/// and send under the older key until its lead is over.
#[test]
fn who_took_a_start_hears_who_did_not_at_the_shortest_grace() {
    let mut fleet = Fleet::new();
    fleet.record.key_set.limits.grace = GRACE_MIN;
    fleet.sign_key_set();
    let mut bob = fleet.member();
    bob.hear(&fleet.start(halt(5, (7, 1), 60), 0));
    bob.store_all();
    assert_eq!(bob.sending(), Some(1));
    bob.wait(CHANGE_LEAD.into());
    assert!(receives(&mut bob, &master(7, 0)));
    bob.wait(GRACE_MIN.into());
    assert!(!receives(&mut bob, &master(7, 0)));
}

/// without a STOP nobody is silent for a moment, and nothing new is sent before it is stored.
#[test]
fn start_without_a_stop_changes_the_key_without_silence() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let change = halt(5, (7, 1), 60);
    assert_eq!(bob.hear(&fleet.start(change, 0)), None);
    assert_eq!(bob.sending(), Some(0), "the new one is not stored yet");
    assert!(receives(&mut bob, &master(7, 1)));
    assert_eq!(bob.to_server, Vec::<Vec<u8>>::new());
    bob.store_all();
    assert_eq!(bob.sending(), Some(1));
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Start]);
    assert_eq!(resumed(&bob), []);
    assert!(receives(&mut bob, &master(7, 0)));
}

/// INVARIANT 2 while a store is open: neither word is given for what is not in that store.
#[test]
fn a_confirmation_waits_for_the_store_that_holds_what_it_says() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.feed(Input::Order(crate::terminal::Order::OpenSession {
        group: group(),
    }));
    let open = bob.asked[0].0;
    let change = halt(5, (7, 1), 60);
    bob.hear(&fleet.stop(change, 0));
    bob.asked.clear();
    bob.feed(Input::Stored(open));
    assert_eq!(bob.to_server, Vec::<Vec<u8>>::new(), "an older store");
    // START overtakes the store of the generation: silent until that is stored.
    bob.hear(&fleet.start(change, 1));
    assert_eq!(bob.sending(), None);
    assert_eq!(why(&bob), DropReason::Stopped);
    let open = bob.asked[0].0;
    bob.asked.clear();
    bob.feed(Input::Stored(open));
    assert_eq!(bob.sending(), Some(1), "the generation is stored");
    assert_eq!(bob.to_server, Vec::<Vec<u8>>::new(), "the START is not");
    bob.store_all();
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Start]);
    // What was stored while the START was on its way holds nobody.
    let mut again = bob.restarted();
    again.hear(&fleet.time(2));
    assert_eq!(again.sending(), Some(1));
}

/// A lost STOP-ACK or START-ACK: the same question, the same answer, and nothing is stored for it.
#[test]
fn the_same_stop_or_start_again_is_confirmed_again() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let change = halt(5, (7, 1), 60);
    for frame in [fleet.stop(change, 0), fleet.start(change, 0)] {
        bob.hear(&frame);
        bob.store_all();
        let first = std::mem::take(&mut bob.to_server);
        assert_eq!(first.len(), 1);
        for _ in 0..3 {
            assert_eq!(bob.hear(&frame), None);
            assert_eq!(std::mem::take(&mut bob.to_server), first);
            assert_eq!(bob.asked, []);
        }
        // Also after a power cut.
        let mut again = bob.restarted();
        assert_eq!(again.hear(&frame), None);
        again.store_all();
        assert_eq!(again.to_server, first);
    }
    // Another key under the same transaction is no answer to anything.
    let other = halt(5, (7, 2), 60);
    let refused = Some(DropReason::NotNewer);
    assert_eq!(bob.hear(&fleet.start(other, 0)), refused);
    assert_eq!(bob.generation(), Some(1));
}

/// W-07: a recorded STOP stops nothing after its START, nor after its end, nor after a power cut;
/// an older transaction never does.
#[test]
fn a_recorded_stop_halts_nobody_again() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let (older, change, lost) = (
        halt(4, (7, 1), 50),
        halt(5, (7, 1), 50),
        halt(6, (7, 2), 50),
    );
    let recorded = [
        fleet.stop(older, 0),
        fleet.start(older, 0),
        fleet.stop(change, 0),
        fleet.stop(lost, 0),
    ];
    bob.hear(&recorded[2]);
    bob.hear(&fleet.start(change, 1));
    bob.store_all();
    assert_eq!(bob.sending(), Some(1));
    let refuse_all = |bob: &mut Driven, frames: &[Vec<u8>], sends: u32| {
        for frame in frames {
            assert_eq!(bob.hear(frame), Some(DropReason::NotNewer));
            assert_eq!(bob.sending(), Some(sends));
        }
        assert_eq!(bob.asked, []);
    };
    refuse_all(&mut bob, &recorded[..3], 1);
    let mut again = bob.restarted();
    again.hear(&fleet.time(2));
    again.store_all();
    refuse_all(&mut again, &recorded[..3], 1);
    // One whose START was lost.
    bob.hear(&recorded[3]);
    bob.store_all();
    assert_eq!(bob.sending(), None);
    bob.wait(51);
    bob.store_all();
    refuse_all(&mut bob, &recorded, 2);
    let mut again = bob.restarted();
    again.hear(&fleet.time(2));
    again.store_all();
    refuse_all(&mut again, &recorded, 2);
}

/// a lost START. At the deadline, and not before, with the newest key.
#[test]
fn a_group_whose_start_was_lost_sends_again_at_the_deadline() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let change = halt(5, (7, 1), 10);
    bob.hear(&fleet.stop(change, 0));
    bob.store_all();
    assert_eq!(bob.timeout, Some(Tick::from_secs(10)));
    bob.wait(9);
    assert_eq!((bob.sending(), resumed(&bob)), (None, vec![]));
    bob.wait(1);
    assert_eq!(bob.sending(), Some(1));
    assert_eq!(resumed(&bob), [ResumeCause::Deadline]);
    assert!(receives(&mut bob, &master(7, 0)));
    // A START that comes late is confirmed still.
    bob.store_all();
    bob.to_server.clear();
    assert_eq!(bob.hear(&fleet.start(change, 11)), None);
    bob.store_all();
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Start]);
}

/// W-07: whatever its signer wrote, a STOP holds for an hour at the most, for no longer than the
/// server gave it, and for no longer than until its deadline where it comes late.
#[test]
fn no_stop_holds_for_longer_than_an_hour_or_than_it_was_given() {
    let mut fleet = Fleet::new();
    let holds = |bob: &mut Driven, seconds: u64| {
        assert_eq!(bob.sending(), None);
        let end = bob.now.plus(Duration::from_secs(seconds));
        assert!(
            bob.timeout.is_some_and(|at| at <= end),
            "it asks to be called"
        );
        bob.wait(seconds - 1);
        assert_eq!(bob.sending(), None);
        bob.wait(1);
        assert!(bob.sending().is_some());
    };
    let mut bob = fleet.member();
    bob.hear(&fleet.stop(halt(5, (7, 0), 20 * 86_400), 0));
    holds(&mut bob, 3600);
    // Late.
    let mut bob = fleet.member();
    let late = fleet.stop(halt(5, (7, 0), 100), 0);
    bob.wait(60);
    bob.hear(&late);
    holds(&mut bob, 40);
    // Too late.
    let mut bob = fleet.member();
    bob.wait(100);
    assert_eq!(bob.hear(&late), Some(DropReason::PastNotAfter));
    assert_eq!(bob.sending(), Some(0));
    // A clock that is held back a day (W-10) gives it no second more.
    let mut bob = fleet.member();
    bob.hear(&fleet.stop(halt(5, (7, 0), 86_430), 86_400));
    holds(&mut bob, 30);
    // Nor does the same again, or a stop that ended before it began.
    let mut bob = fleet.member();
    let stop = fleet.stop(halt(5, (7, 0), 100), 0);
    bob.hear(&stop);
    bob.wait(99);
    assert_eq!(bob.hear(&stop), None);
    holds(&mut bob, 1);
    let ended = fleet.stop(halt(6, (7, 0), 80), 90);
    assert_eq!(bob.hear(&ended), Some(DropReason::PastNotAfter));
}

/// A newer transaction takes the place of the one that holds, with its own end and its own key.
#[test]
fn a_newer_stop_takes_the_place_of_an_older() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.stop(halt(5, (7, 1), 100), 0));
    bob.store_all();
    let change = halt(6, (7, 2), 50);
    bob.to_server.clear();
    bob.hear(&fleet.stop(change, 1));
    bob.store_all();
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Stop]);
    let refused = Some(DropReason::NotNewer);
    assert_eq!(bob.hear(&fleet.start(halt(5, (7, 1), 100), 2)), refused);
    assert_eq!(bob.sending(), None);
    bob.wait(50);
    assert_eq!(bob.sending(), Some(2), "at its own deadline");
    // A START of a newer transaction ends a stop, too.
    bob.hear(&fleet.stop(halt(7, (7, 3), 100), 51));
    bob.store_all();
    bob.hear(&fleet.start(halt(8, (7, 4), 100), 52));
    bob.store_all();
    assert_eq!(bob.sending(), Some(4));
}

/// The spec: a KEYSET that drops its signer ends a STOP, and takes a stolen key's transaction, which
/// no honest one could follow, out of the way.
#[test]
fn a_keyset_that_drops_its_signer_ends_a_stop_and_its_transaction() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let thiefs = fleet.stop(halt(u64::MAX, (7, 3), 3600), 0);
    bob.hear(&thiefs);
    bob.store_all();
    let honest = halt(9, (7, 4), 100);
    let refused = Some(DropReason::NotNewer);
    assert_eq!(bob.hear(&fleet.stop(honest, 1)), refused);
    let others = fleet.next_key_set(2, |_| ());
    bob.hear(&others);
    assert_eq!(bob.sending(), None, "its signer is listed still");
    fleet.replace_key(SignerClass::Keys, 3);
    bob.hear(&fleet.next_key_set(3, |_| ()));
    bob.store_all();
    assert_eq!(bob.sending(), Some(3));
    assert_eq!(resumed(&bob), [ResumeCause::KeySet]);
    bob.to_server.clear();
    assert_eq!(bob.hear(&fleet.stop(honest, 4)), None);
    bob.store_all();
    assert_eq!(confirmed(&fleet, &mut bob, honest), [HaltKind::Stop]);
    assert_eq!(bob.hear(&fleet.start(honest, 5)), None);
    bob.store_all();
    assert_eq!(bob.sending(), Some(4));
}

/// R-074 through a power cut: what was silent stays silent until START or the deadline by the
/// first TIME, and an hour from it at the most.
#[test]
fn a_power_cut_ends_no_stop_and_a_deadline_does() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let change = halt(5, (7, 1), 100);
    bob.hear(&fleet.stop(change, 0));
    bob.store_all();

    let mut again = bob.restarted();
    assert_eq!(again.sending(), None);
    again.hear(&fleet.time(40));
    again.store_all();
    assert_eq!((again.sending(), why(&again)), (None, DropReason::Stopped));
    assert_eq!(again.status().stopped_until, Some(FOUNDED.plus(100)));
    again.wait(59);
    assert_eq!(again.sending(), None);
    again.wait(1);
    assert_eq!(again.sending(), Some(1));
    assert_eq!(resumed(&again), [ResumeCause::Deadline]);

    let mut again = bob.restarted();
    again.hear(&fleet.time(40));
    assert_eq!(again.hear(&fleet.start(change, 41)), None);
    again.store_all();
    assert_eq!(again.sending(), Some(1));
    assert_eq!(confirmed(&fleet, &mut again, change), [HaltKind::Start]);

    // START before the first TIME; a key that came since waits for nothing either.
    let mut again = bob.restarted();
    assert_eq!(again.hear(&fleet.start(change, 41)), None);
    again.hear(&fleet.time(40));
    again.store_all();
    assert_eq!(again.sending(), Some(1));

    // The deadline passed while it was off.
    let mut again = bob.restarted();
    again.hear(&fleet.time(101));
    again.store_all();
    assert_eq!(again.sending(), Some(1));

    // After START the power cut finds nothing to hold.
    bob.hear(&fleet.start(change, 1));
    bob.store_all();
    let mut again = bob.restarted();
    again.hear(&fleet.time(40));
    assert_eq!(again.sending(), Some(1));
}

/// A key that comes during a stop, renewed or distributed, is not sent with before it ends, and
/// START waits for no activation time.
#[test]
fn start_overrides_the_activation_time_and_a_stop_delays_it() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let later = Stated {
        activate_at: FOUNDED.plus(600),
        ..Stated::at(0, 1)
    };
    bob.hear(&fleet.renew(7, later));
    bob.store_all();
    assert_eq!(bob.sending(), Some(0));
    let change = halt(5, (7, 1), 60);
    bob.hear(&fleet.start(change, 0));
    bob.store_all();
    assert_eq!(bob.sending(), Some(1));

    // It was to be active while a STOP holds.
    let mut bob = fleet.member();
    let soon = Stated {
        activate_at: FOUNDED.plus(5),
        ..Stated::at(0, 1)
    };
    bob.hear(&fleet.renew(7, soon));
    bob.store_all();
    bob.hear(&fleet.stop(halt(5, (7, 1), 60), 0));
    bob.store_all();
    bob.wait(5);
    bob.wait(45);
    assert!(receives(&mut bob, &master(7, 0)), "its grace has not begun");
    bob.wait(10);
    assert_eq!(bob.sending(), Some(1));

    // Now the other way round: active in 5 s, stopped for 60.
    let mut bob = fleet.member();
    let change = halt(6, (8, 0), 70);
    bob.wait(10);
    bob.hear(&fleet.stop(change, 10));
    bob.store_all();
    bob.to_server.clear();
    let soon = Stated {
        activate_at: FOUNDED.plus(15),
        ..Stated::at(10, 0)
    };
    bob.hear(&fleet.key_dist(8, soon));
    bob.store_all();
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Stop]);
    bob.events.clear();
    bob.wait(5);
    bob.wait(35);
    assert_eq!(bob.sending(), None);
    // No grace ran meanwhile: who has not heard the STOP is heard still.
    assert!(receives(&mut bob, &master(7, 0)));
    let moved = |event: &Event| matches!(event, Event::Sending { .. } | Event::Resumed { .. });
    assert!(!bob.events.iter().any(moved));
    bob.hear(&fleet.start(change, 11));
    assert_eq!(bob.epoch(), KeyEpoch::new(8));
    assert_eq!(bob.sending(), Some(0));
}

/// What START said stands when the time is heard later: a terminal that comes back in the middle of a
/// change, and confirmed, does not fall silent until the activation time.
#[test]
fn the_first_beacon_does_not_undo_a_start() {
    let mut fleet = Fleet::new();
    let later = Stated {
        activate_at: FOUNDED.plus(600),
        ..Stated::at(0, 0)
    };
    let distribution = fleet.key_dist(8, later);
    let change = halt(5, (8, 0), 60);
    for started in [false, true] {
        let mut bob = fleet.member().restarted();
        bob.hear(&distribution);
        if started {
            bob.hear(&fleet.start(change, 0));
        }
        bob.store_all();
        bob.hear(&fleet.time(2));
        bob.store_all();
        assert_eq!(bob.sending().is_some(), started);
        // Nor does the first after a power cut.
        let mut again = bob.restarted();
        again.hear(&fleet.time(3));
        again.store_all();
        assert_eq!(again.sending().is_some(), started);
    }
}

/// INVARIANT 5: START names a generation below one that is on its way with a time of its own.
#[test]
fn start_moves_to_the_key_it_names_and_to_no_newer_one() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let later = |at: u32, seconds: u32| Stated {
        activate_at: FOUNDED.plus(seconds),
        ..Stated::at(at, at)
    };
    bob.hear(&fleet.renew(7, later(1, 300)));
    bob.hear(&fleet.renew(7, later(2, 600)));
    let change = halt(5, (7, 1), 60);
    bob.hear(&fleet.start(change, 2));
    assert_eq!(bob.sending(), Some(0), "nothing of it is stored");
    bob.store_all();
    assert_eq!((bob.sending(), bob.generation()), (Some(1), Some(2)));
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Start]);
    bob.wait(600);
    assert_eq!(bob.sending(), Some(2), "at its own time");
    // What is below everything held moves nothing, and is confirmed.
    let change = halt(6, (7, 1), 700);
    bob.hear(&fleet.start(change, 601));
    bob.store_all();
    assert_eq!(bob.sending(), Some(2));
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Start]);
}

/// Who lacks the epoch is silent, asks for the key, and confirms once it came, at the generation
/// that was named.
#[test]
fn who_lacks_the_epoch_confirms_when_its_key_came() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let change = halt(5, (8, 2), 60);
    bob.hear(&fleet.stop(change, 0));
    bob.store_all();
    let wanted = Event::KeyWanted {
        group: group(),
        epoch: KeyEpoch::new(8),
        generation: generation(2),
    };
    assert!(bob.events.contains(&wanted));
    assert_eq!((bob.sending(), bob.to_server.len()), (None, 0));
    bob.hear(&fleet.stop(change, 0));
    assert_eq!(bob.to_server.len(), 0, "asked again, not held still");
    bob.hear(&fleet.key_dist(8, Stated::at(1, 0)));
    assert_eq!(bob.generation(), Some(2));
    bob.store_all();
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Stop]);
    bob.hear(&fleet.start(change, 2));
    bob.store_all();
    assert_eq!((bob.epoch(), bob.sending()), (KeyEpoch::new(8), Some(2)));

    // START says that the others have gone on: nothing is sent under the old epoch any more.
    let mut bob = fleet.member();
    bob.hear(&fleet.start(change, 0));
    bob.store_all();
    assert!(bob.events.contains(&wanted));
    assert_eq!((bob.sending(), why(&bob)), (None, DropReason::NewerEpoch));
    bob.hear(&fleet.key_dist(8, Stated::at(1, 0)));
    bob.store_all();
    assert_eq!(bob.sending(), Some(2));
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Start]);

    // The deadline of a STOP whose key never came: the old epoch sends on.
    let mut bob = fleet.member();
    bob.hear(&fleet.stop(change, 0));
    bob.wait(60);
    bob.store_all();
    assert_eq!((bob.epoch(), bob.sending()), (KeyEpoch::new(7), Some(0)));
    bob.hear(&fleet.key_dist(8, Stated::at(61, 0)));
    bob.store_all();
    assert_eq!((bob.sending(), bob.to_server.len()), (Some(0), 0));
    assert_eq!(bob.generation(), Some(0), "that change is over");
}

/// Somebody is excluded while a group is stopped: the fresh epoch wins, START ends the stop.
#[test]
fn an_epoch_that_comes_during_a_stop_is_not_undone_by_its_start() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let change = halt(5, (7, 1), 600);
    bob.hear(&fleet.stop(change, 0));
    bob.hear(&fleet.exclude(&[3], Some(9), Stated::at(1, 0)));
    bob.hear(&fleet.key_dist(9, Stated::at(1, 0)));
    bob.store_all();
    bob.to_server.clear();
    bob.hear(&fleet.start(change, 2));
    bob.store_all();
    assert_eq!((bob.epoch(), bob.sending()), (KeyEpoch::new(9), Some(0)));
    let key = bob.machine.send_key(group()).expect("it sends");
    assert_eq!(key.epoch(), KeyEpoch::new(9));
    assert_eq!(confirmed(&fleet, &mut bob, change), [HaltKind::Start]);
}

/// Not for a group that is not held, nor for a terminal that is locked; the bounds are those of
/// RENEW, and a signer's groups count whatever the target says.
#[test]
fn a_stop_is_judged_by_group_bounds_and_lock() {
    let mut fleet = Fleet::new();
    let mut stranger = fleet.terminal();
    stranger.hear(&fleet.time(0));
    let change = halt(5, (7, 1), 60);
    let not_held = Some(DropReason::NotHeld);
    assert_eq!(stranger.hear(&fleet.stop(change, 0)), not_held);
    assert_eq!(stranger.hear(&fleet.start(change, 0)), not_held);

    let mut bob = fleet.member();
    let expires = fleet.record.key_set.keys[0].expires;
    let unborn = expires.since(KeyEpoch::new(0).birth()) + 1;
    let spans = expires.since(KeyEpoch::new(7).birth()).div_ceil(600) + 1;
    for key in [(unborn, 0), (7, 64 * spans + 1)] {
        let above = halt(5, key, 60);
        for frame in [fleet.stop(above, 0), fleet.start(above, 0)] {
            assert_eq!(bob.hear(&frame), Some(DropReason::AboveBound));
        }
    }
    assert_eq!((bob.sending(), &bob.asked[..]), (Some(0), &[][..]));

    let other = GroupNumber::new(2).expect("not 0");
    let next = fleet.next_key_set(1, |key_set| key_set.keys[1].groups = vec![other]);
    bob.hear(&next);
    for body in [Body::Stop(change), Body::Start(change)] {
        let command = fleet.command(Target::All, body, Stated::at(2, 0));
        let frame = fleet.record.keys.sign(&command);
        assert_eq!(bob.hear(&frame), Some(DropReason::GroupNotAllowed));
    }
    assert_eq!(bob.sending(), Some(0));

    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.stop(change, 0));
    bob.store_all();
    bob.hear(&fleet.order(OrderKind::Lock, 1, 1));
    bob.store_all();
    bob.to_server.clear();
    let locked = Some(DropReason::Locked);
    assert_eq!(bob.hear(&fleet.start(change, 2)), locked);
    assert_eq!(bob.hear(&fleet.stop(halt(6, (7, 2), 60), 2)), locked);
    assert_eq!(bob.hear(&fleet.notify(Target::All, &[], 2)), locked);
    bob.hear(&fleet.order(OrderKind::Unlock, 2, 3));
    assert_eq!(bob.unlock(), Ok(()));
    bob.store_all();
    assert_eq!((bob.sending(), why(&bob)), (None, DropReason::Stopped));
    bob.wait(60);
    assert_eq!(bob.sending(), Some(1));
}
