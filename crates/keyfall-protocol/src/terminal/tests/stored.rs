//! Stored before sent (DESIGN section 11, invariants 2 and 5).

use std::time::Duration;

use super::fixture::{FOUNDED, Fleet, Stated, generation, group, master, terminal_number, trial};
use crate::command::{Floor, OrderKind, SignerClass};
use crate::error::ApiMisuse;
use crate::ids::{KeyEpoch, SessionId, Tick, UnixSeconds};
use crate::schedule::Cadence;
use crate::stats::DropReason;
use crate::terminal::compartment::Notes;
use crate::terminal::{Cause, Event, GroupState, Input, Mark, Order, StoreId, Terminal};
use crate::trusted_time::PoweredOn;

/// Invariant 2; REQUIREMENTS R-032.
#[test]
fn the_first_key_of_a_group_is_not_sent_with_before_it_is_stored() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.terminal();
    alice.hear(&fleet.time(0));
    alice.hear(&fleet.key_dist(7, Stated::at(0, 0)));
    assert!(alice.machine.holds(group()));
    assert_eq!(alice.sending(), None);
    assert_eq!(alice.machine.groups()[0].sending, None);
    alice.store_all();
    assert_eq!(alice.sending(), Some(0));
}

/// Invariant 5; FORMATS section 2.4: a newcomer too waits for activate-at.
#[test]
fn a_newcomer_does_not_send_before_the_key_is_active() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.terminal();
    alice.hear(&fleet.time(0));
    let stated = Stated {
        activate_at: FOUNDED.plus(10),
        ..Stated::at(0, 3)
    };
    alice.hear(&fleet.key_dist(7, stated));
    alice.store_all();
    assert_eq!(alice.sending(), None);
    alice.wait(10);
    assert_eq!(alice.sending(), Some(3));
}

/// Invariants 2 and 5.
#[test]
fn a_renewed_key_is_received_at_once_and_sent_with_when_stored_and_active() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    let stated = Stated {
        activate_at: FOUNDED.plus(10),
        ..Stated::at(5, 1)
    };
    alice.wait(5);
    alice.hear(&fleet.renew(7, stated));
    assert_eq!((alice.generation(), alice.sending()), (Some(1), Some(0)));
    alice.wait(20);
    assert_eq!(alice.sending(), Some(0), "active, but not stored");
    let told = |event: &Event| matches!(event, Event::Renewed { .. });
    assert!(!alice.events.iter().any(told), "told of what is not stored");
    alice.store_all();
    assert_eq!(alice.sending(), Some(1));
    assert!(alice.events.iter().any(told));
}

/// Invariants 2 and 5, after a power cut: a command that comes before the first beacon.
#[test]
fn a_key_that_came_before_the_first_beacon_waits_to_be_stored_and_active() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member().restarted();
    let stated = Stated {
        activate_at: FOUNDED.plus(10),
        ..Stated::at(0, 1)
    };
    alice.hear(&fleet.renew(7, stated));
    alice.hear(&fleet.time(1));
    assert_eq!(alice.generation(), Some(1));
    assert_eq!(alice.sending(), Some(0), "neither stored nor active");
    alice.wait(10);
    assert_eq!(alice.sending(), Some(0), "active, but not stored");
    alice.store_all();
    assert_eq!(alice.sending(), Some(1));
}

/// Invariant 2; REQUIREMENTS W-09.
#[test]
fn a_session_is_granted_only_when_it_is_recorded() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    alice.events.clear();
    alice.feed(Input::Order(Order::OpenSession { group: group() }));
    assert_eq!(alice.events, []);
    alice.store_all();
    let snapshot = alice.synced.user.clone();
    let [Event::SessionReady { session, .. }] = alice.events[..] else {
        panic!("{:?}", alice.events);
    };
    let octets: &[u8] = session.as_bytes();
    assert!(snapshot.windows(6).any(|window| window == octets));
    let restored = alice.restarted();
    let recorded: &[SessionId] = &restored.user().groups[&group()].sessions;
    assert_eq!(recorded, [session]);
}

/// Two orders within one second have one issued-at; the later one's schedule counts, else the
/// terminal falls behind when the link is cut (FORMATS section 2.1, REQUIREMENTS R-044).
#[test]
fn of_two_statements_of_one_second_the_newer_generation_sets_the_schedule() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    let cadence = Cadence::new(1, 600);
    let stated = |generation| Stated {
        cadence,
        ..Stated::at(1, generation)
    };
    alice.hear(&fleet.renew(7, stated(1)));
    alice.hear(&fleet.renew(7, stated(2)));
    alice.store_all();
    alice.wait(601);
    assert_eq!(alice.generation(), Some(3));
}

/// The same, where a beacon's floor brought the newer generation before.
#[test]
fn a_statement_of_the_same_second_counts_also_where_its_generation_is_held() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    let cadence = Cadence::new(1, 600);
    let stated = |generation| Stated {
        cadence,
        ..Stated::at(1, generation)
    };
    alice.hear(&fleet.renew(7, stated(1)));
    let floor = Floor {
        kid: group().master_key_id(),
        epoch: KeyEpoch::new(7),
        generation: generation(2),
    };
    alice.hear(&fleet.time_with(1, vec![floor]));
    assert_eq!(alice.generation(), Some(2));
    alice.hear(&fleet.renew(7, stated(2)));
    alice.store_all();
    alice.wait(601);
    assert_eq!(alice.generation(), Some(3));
}

/// FORMATS section 2.1: sending stops for a newer epoch, through a power cut too.
#[test]
fn an_announced_epoch_stops_sending_also_after_a_restart() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    alice.hear(&fleet.renew(8, Stated::at(1, 0)));
    assert_eq!(alice.sending(), None);
    assert_eq!(
        alice.asked.last().expect("it is stored").1,
        alice.snapshot()
    );
    alice.store_all();
    let mut restored = alice.restarted();
    restored.hear(&fleet.time(2));
    assert_eq!(restored.sending(), None);
    assert_eq!(
        restored.machine.why_not_sending(group()),
        DropReason::NewerEpoch
    );
}

/// The same for the epoch after the next: the one between does not end the waiting.
#[test]
fn an_epoch_between_does_not_end_the_waiting_for_the_newest() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    alice.hear(&fleet.renew(9, Stated::at(1, 0)));
    alice.hear(&fleet.key_dist(8, Stated::at(2, 0)));
    alice.store_all();
    assert_eq!((alice.epoch(), alice.sending()), (KeyEpoch::new(8), None));
    alice.hear(&fleet.key_dist(9, Stated::at(3, 0)));
    alice.store_all();
    assert_eq!(
        (alice.epoch(), alice.sending()),
        (KeyEpoch::new(9), Some(0))
    );
}

/// FORMATS section 10: the mark is a stored lower bound, so that after a power cut no recorded
/// beacon from long before is taken.
#[test]
fn the_time_heard_is_stored_and_no_older_beacon_is_taken_after_a_restart() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    // Less than a period of G, so that nothing else asks for a store.
    for seconds in (10..=3500).step_by(10) {
        alice.wait(10);
        assert_eq!(alice.hear(&fleet.time(seconds)), None);
        alice.store_all();
    }
    let mut restored = alice.restarted();
    let refused = restored.hear(&fleet.time(2890));
    assert_eq!(refused, Some(DropReason::TimeBackwards));
    assert_eq!(restored.hear(&fleet.time(3500)), None);
}

/// W-10: who jams the carrier and plays the newest beacon again and again does not stop the clock.
#[test]
fn the_newest_beacon_played_again_and_again_does_not_hold_the_clock() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    let beacon = fleet.time(10);
    alice.wait(10);
    alice.hear(&beacon);
    for _ in 0..4000 {
        alice.now = alice.now.plus(Duration::from_millis(900));
        alice.hear(&beacon);
    }
    assert_eq!(alice.machine.time(), Some(FOUNDED.plus(10 + 3600)));
}

/// Invariant 1 and the promise of [`Event::Retired`]: keys derived from a generation that fell out
/// of a full ring are wiped too.
#[test]
#[expect(clippy::wildcard_enum_match_arm, reason = "one kind is looked for")]
fn every_generation_that_is_held_no_longer_is_told_as_retired() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    for n in 1..=9 {
        alice.hear(&fleet.renew(7, Stated::at(n, n)));
        alice.store_all();
    }
    // They become active, then their grace ends.
    alice.wait(40);
    alice.wait(40);
    let mut retired: Vec<_> = alice
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Retired { generation, .. } => Some(generation.get()),
            _ => None,
        })
        .collect();
    retired.sort_unstable();
    assert_eq!(retired, (0..9).collect::<Vec<_>>());
}

/// Renewals that come faster than they become active do not silence a terminal.
#[test]
fn the_sending_key_stays_while_many_newer_ones_wait_to_be_active() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    for n in 1..=9 {
        let stated = Stated {
            activate_at: FOUNDED.plus(100),
            ..Stated::at(n, n)
        };
        alice.hear(&fleet.renew(7, stated));
        alice.store_all();
        assert_eq!(alice.sending(), Some(0));
    }
    assert!(alice.machine.groups()[0].in_grace <= 4);
    alice.wait(100);
    assert_eq!(alice.sending(), Some(9));
}

/// Invariant 1, through power cuts: a snapshot gives back what was stored, whatever was heard.
#[test]
fn a_restored_terminal_is_the_one_that_was_stored() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    let stated = Stated {
        cadence: Cadence::new(2, 600),
        ..Stated::at(1, 5)
    };
    alice.hear(&fleet.renew(7, stated));
    alice.feed(Input::Order(Order::OpenSession { group: group() }));
    alice.store_all();
    let restored = alice.restarted();
    assert_eq!(restored.snapshot().1, alice.snapshot().1);
    let (status, before) = (restored.machine.groups(), alice.machine.groups());
    assert_eq!(status[0].fingerprint, before[0].fingerprint);
    assert_eq!(status[0].generation, generation(5));
    assert_eq!(status[0].fingerprint, master(7, 5).fingerprint());
}

/// The same with everything that a terminal may have to remember, in both compartments, and with
/// the notes of a locked one.
#[test]
fn every_field_of_both_compartments_survives() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    let stated = Stated {
        cadence: Cadence::new(64, 600),
        fleet: 2,
        ..Stated::at(1, 5)
    };
    alice.hear(&fleet.renew(7, stated));
    alice.hear(&fleet.offset(3, stated));
    alice.feed(Input::Order(Order::OpenSession { group: group() }));
    let mark = Mark {
        sender: terminal_number(2),
        session: SessionId::new([5; 6]),
        ssrc: 6,
        rtp_index: 1 << 40,
        rtcp_index: 7,
    };
    let marks = vec![mark];
    alice.feed(Input::Order(Order::Mark {
        group: group(),
        marks,
    }));
    alice.hear(&fleet.exclude(&[2, 3], Some(9), Stated::at(2, 0)));
    let stolen = fleet.replace_key(SignerClass::Keys, 3);
    alice.wait(200);
    alice.hear(&fleet.next_key_set(3, |it| it.stolen = vec![stolen.public().name()]));
    alice.hear(&fleet.exclude(&[4], Some(10), Stated::at(4, 0)));
    alice.store_all();
    alice.hear(&fleet.order(OrderKind::Lock, 5, 5));
    alice.hear(&fleet.order(OrderKind::Unlock, 6, 6));
    alice.store_all();
    assert_eq!(alice.unlock(), Ok(()));
    alice.store_all();
    let status = alice.status();
    assert!(status.state == GroupState::Distrusted && alice.machine.marks(group()) == [mark]);
    alice.feed(Input::Lock);
    let noted = Stated {
        fleet: 4,
        ..Stated::at(300, 9)
    };
    alice.hear(&fleet.renew(7, noted));
    alice.hear(&fleet.renew(11, noted));
    alice.hear(&fleet.offset(4, noted));
    alice.store_all();
    let (device, user) = (alice.synced.device.clone(), alice.synced.user.clone());
    let paid = alice.machine.powered_on() - 60;
    let mut closed = alice.restarted_locked();
    closed.machine.powered = PoweredOn::boot(paid, Tick::default());
    assert_eq!(closed.snapshot(), (device, None));
    // What was noted is carried out: without notes the compartment is as it was.
    closed.machine.notes = Notes::default();
    closed.machine.g = generation(2);
    closed.unlock().expect("its own");
    closed.machine.events.clear();
    assert_eq!(closed.snapshot().1, Some(user));
    assert_eq!(closed.status().state, GroupState::Distrusted);
}

/// REQUIREMENTS R-045: a gap that traffic closed is stored before it is sent with.
#[test]
fn a_generation_found_in_traffic_is_stored_before_it_is_sent_with() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let trial = trial(&mut bob, 1);
    assert_eq!(bob.generation(), Some(0), "a trial alone moves nothing");
    bob.feed(Input::Opened(trial));
    assert_eq!((bob.generation(), bob.sending()), (Some(1), Some(0)));
    bob.store_all();
    assert_eq!(bob.sending(), Some(1));
    let gap = |event: &Event| {
        matches!(event, Event::Renewed { cause: Cause::Gap, from, to, .. }
            if (from.get(), to.get()) == (0, 1))
    };
    assert!(bob.events.iter().any(gap));
}

/// The drive contract: a driver that reports what was not asked for, or twice, is told so, and
/// nothing changes.
#[test]
fn reports_of_stores_that_were_not_asked_for_change_nothing() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    alice.hear(&fleet.renew(7, Stated::at(0, 1)));
    let (open, _) = *alice.asked.last().expect("a store");
    let mut report = |id| {
        let mut rng = super::fixture::counting();
        alice
            .machine
            .handle_input(alice.now, &mut rng, Input::Stored(id))
    };
    for wrong in [StoreId(0), StoreId(open.0 - 1), StoreId(open.0 + 1)] {
        let misuse = ApiMisuse::NotStoring {
            got: wrong.0,
            expected: Some(open.0),
        };
        assert_eq!(report(wrong), Err(misuse));
    }
    assert_eq!(report(open), Ok(()));
    let misuse = ApiMisuse::NotStoring {
        got: open.0,
        expected: None,
    };
    assert_eq!(report(open), Err(misuse));
    assert_eq!(alice.sending(), Some(1));
}

/// The drive contract: time that runs backwards is ignored.
#[test]
fn a_monotonic_clock_that_runs_backwards_is_ignored() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    let stated = Stated {
        cadence: Cadence::new(1, 600),
        ..Stated::at(1, 0)
    };
    alice.hear(&fleet.renew(7, stated));
    alice.wait(1201);
    alice.store_all();
    let before = (alice.snapshot(), alice.machine.time());
    alice.now = Tick::default();
    alice.wait(1);
    alice.hear(&fleet.time(0));
    assert_eq!((alice.snapshot(), alice.machine.time()), before);
    assert_eq!((alice.generation(), alice.sending()), (Some(2), Some(2)));
}

/// INVARIANT 10: the buffer of a snapshot never grows while keys are in it.
#[test]
fn a_snapshot_of_the_largest_identity_fits_its_first_allocation() {
    let mut fleet = Fleet::new();
    let mut package = fleet.package(1);
    let long = "x".repeat(200);
    package.identity.name.clone_from(&long);
    package.identity.fleet.clone_from(&long);
    package.identity.carriers = vec![long; 16];
    package.identity.streams = vec![fleet.record.stream; 16];
    let frame = &package.identity.key_set_frame;
    let slack = crate::command::FRAME_MAX - frame.len();
    let machine = Terminal::enrol(package, Tick::default()).expect("signed KEYSET");
    let mut alice = super::driven::Driven::new(machine);
    alice.drain();
    alice.hear(&fleet.key_dist(7, Stated::at(0, 0)));
    let snapshot = alice.machine.snapshot().device;
    let free = snapshot.capacity() - snapshot.len();
    assert!(
        free >= slack,
        "{free} octets free of {}",
        snapshot.capacity()
    );
    assert!(snapshot.capacity() < 16_384, "grown");
}

/// PROTOCOL 6.10, KR-021: without a beacon the lease cannot be judged, so nothing is sent; held
/// keys are received with.
#[test]
fn nothing_is_sent_before_the_first_beacon_since_power_on() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.store_all();
    assert_eq!(bob.sending(), Some(0));
    let mut restarted = bob.restarted();
    assert!(
        restarted.machine.holds(group())
            && restarted
                .machine
                .may_receive(group(), terminal_number(2))
                .is_ok()
    );
    assert_eq!(restarted.sending(), None);
    assert_eq!(
        restarted.machine.why_not_sending(group()),
        DropReason::NoBeacon
    );
    assert_eq!(restarted.hear(&fleet.time(1)), None);
    assert_eq!(restarted.sending(), Some(0));
}

/// INVARIANT 5: a power cut between receipt and activation does not make a terminal send early,
/// and a clock that lags does not keep it waiting longer than the server gave.
#[test]
fn a_restart_before_the_activation_does_not_send_early() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.store_all();
    let stated = Stated {
        activate_at: FOUNDED.plus(40),
        ..Stated::at(10, 1)
    };
    bob.hear(&fleet.renew(7, stated));
    bob.store_all();
    assert_eq!(bob.sending(), Some(0));
    let mut restarted = bob.restarted();
    restarted.hear(&fleet.time(15));
    assert_eq!(
        restarted.sending(),
        None,
        "the older key is gone, the newer not active"
    );
    restarted.wait(24);
    assert_eq!(restarted.sending(), None);
    restarted.wait(1);
    assert_eq!(restarted.sending(), Some(1));
}

/// W-10: an activation far ahead keeps an old generation for an hour at the most.
#[test]
fn an_activation_waits_no_longer_than_the_bound() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.store_all();
    let stated = Stated {
        activate_at: UnixSeconds::new(u32::MAX),
        ..Stated::at(10, 1)
    };
    bob.hear(&fleet.renew(7, stated));
    bob.store_all();
    bob.wait(3_599);
    assert_eq!(bob.sending(), Some(0));
    bob.wait(1);
    assert_eq!(bob.sending(), Some(1));
    bob.wait(31);
    assert_eq!(bob.machine.groups()[0].in_grace, 0, "the old key is gone");
}
