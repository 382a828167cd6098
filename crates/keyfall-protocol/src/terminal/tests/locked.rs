//! The closed user compartment: what a locked terminal obeys, what it cannot, what it gives away,
//! and what it makes good when it is unlocked (FORMATS section 9, "Compartments"; REQUIREMENTS
//! T-04).

use super::driven::Driven;
use super::fixture::{
    FOUNDED, Fleet, Stated, generation, group, master, renew_entry, terminal_number,
};
use crate::command::{Body, OrderKind, Renew, SignerClass, Target, Unverified};
use crate::error::ApiMisuse;
use crate::ids::{GroupNumber, KeyEpoch, Tick};
use crate::schedule::Cadence;
use crate::stats::DropReason;
use crate::terminal::{
    EraseCause, Event, GroupState, Input, Order, SealedVerdict, SnapshotError, Terminal,
    TerminalState,
};

/// A member after a power cut, before its PIN.
fn locked(fleet: &mut Fleet) -> Driven {
    let mut bob = fleet.member().restarted_locked();
    bob.feed(Input::Timeout);
    bob.store_all();
    bob
}

/// The issue: "a locked, stolen, rebooted terminal obeys".
#[test]
fn a_locked_terminal_obeys_what_needs_no_user() {
    let mut fleet = Fleet::new();
    let mut bob = locked(&mut fleet);
    assert_eq!(bob.machine.state(), TerminalState::Locked);
    assert_eq!(bob.hear(&fleet.time(50)), None);
    assert_eq!(bob.machine.time(), Some(FOUNDED.plus(50)));
    let key_set = fleet.next_key_set(60, |_| ());
    assert_eq!(bob.hear(&key_set), None);
    assert_eq!(bob.machine.key_set().version, fleet.record.key_set.version);
    assert_eq!(
        bob.hear(&fleet.exclude(&[3], None, Stated::at(61, 0))),
        None
    );
    assert!(bob.machine.is_excluded(terminal_number(3)));
    let stated = Stated {
        fleet: 4,
        ..Stated::at(62, 4)
    };
    bob.hear(&fleet.renew_fleet(stated));
    assert_eq!(bob.machine.fleet_generation(), generation(4));
    assert_eq!(bob.hear(&fleet.order(OrderKind::Lock, 1, 63)), None);
    assert!(!bob.machine.may_unlock());
    assert_eq!(bob.hear(&fleet.order(OrderKind::Unlock, 2, 64)), None);
    assert!(bob.machine.may_unlock());
    bob.store_all();
    for (kind, cause) in [
        (OrderKind::Delete, EraseCause::Delete),
        (OrderKind::Init, EraseCause::Init),
    ] {
        let mut stolen = bob.restarted_locked();
        assert_eq!(stolen.hear(&fleet.order(kind, 0, 70)), None);
        assert_eq!(stolen.erased.map(|it| it.cause), Some(cause));
    }
}

/// FORMATS section 9: "HEAL and KEYDIST wait for unlock".
#[test]
fn a_locked_terminal_opens_no_distribution_and_no_packet() {
    let mut fleet = Fleet::new();
    let mut bob = locked(&mut fleet);
    let before = bob.snapshot();
    let standing = fleet.key_dist(7, Stated::at(0, 0));
    let fresh = fleet.key_dist(8, Stated::at(1, 0));
    let ahead = Stated {
        fleet: 9,
        ..Stated::at(2, 0)
    };
    let next = fleet.key_dist(9, ahead);
    for frame in [&standing, &fresh, &next] {
        assert_eq!(bob.hear(frame), Some(DropReason::Locked));
        let read = Unverified::decode(frame).expect("a frame");
        assert_eq!(bob.machine.look_at(read).sealed, SealedVerdict::Locked);
    }
    assert_eq!((bob.snapshot(), &bob.asked[..]), (before, &[][..]));
    let peer = bob.machine.may_receive(group(), terminal_number(2));
    assert_eq!(peer, Err(DropReason::Locked));
    assert!(bob.machine.send_key(group()).is_none());
    assert_eq!(bob.machine.why_not_sending(group()), DropReason::Locked);
    assert!(bob.machine.groups().is_empty() && !bob.machine.holds(group()));
    assert!(bob.machine.keys_that_fit(master(7, 0).tag()).is_empty());
    bob.feed(Input::Order(Order::OpenSession { group: group() }));
    let refused = Event::SessionRefused { group: group() };
    assert!(bob.events.contains(&refused));
    // The positive control.
    assert_eq!(bob.unlock(), Ok(()));
    bob.store_all();
    assert_eq!(bob.hear(&next), None);
}

/// The issue, T-04: what the machine alone opens on a copied disk holds no octets of a wrap or
/// master key, nor halves of them, and opens no standing KEYDIST.
#[test]
fn the_device_compartment_holds_nothing_worth_stealing() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let stated = Stated {
        fleet: 2,
        ..Stated::at(1, 3)
    };
    bob.hear(&fleet.renew(7, stated));
    bob.hear(&fleet.offset(1, stated));
    bob.feed(Input::Order(Order::OpenSession { group: group() }));
    bob.store_all();
    let locked = {
        let mut it = bob.restarted_locked();
        it.hear(&fleet.renew(
            7,
            Stated {
                generation: 5,
                ..Stated::at(9, 5)
            },
        ));
        it.store_all();
        it
    };
    let secrets = |fleet: &Fleet| {
        let wrap = (0..12).map(|g| *fleet.wrap_key(1).renew_to(generation(g)).secret().expose());
        let group = (0..8).map(|g| *master(7, g).secret().expose());
        wrap.chain(group).collect::<Vec<[u8; 32]>>()
    };
    let holds = |octets: &[u8], secret: &[u8; 32]| {
        let (first, second) = secret.split_at(16);
        let found = |half: &[u8]| octets.windows(16).any(|window| window == half);
        found(first) || found(second)
    };
    for disk in [&bob.synced.device, &locked.synced.device] {
        for secret in secrets(&fleet) {
            assert!(!holds(disk, &secret));
        }
        assert!(
            holds(disk, Fleet::obey_key(1).secret().expose()),
            "the positive control"
        );
    }
    let wrap = fleet.wrap_key(1).renew_to(generation(3));
    assert!(
        holds(&bob.synced.user, wrap.secret().expose()),
        "the positive control"
    );
    assert!(holds(&bob.synced.user, master(7, 3).secret().expose()));
    assert!(!holds(
        &bob.synced.user,
        Fleet::obey_key(1).secret().expose()
    ));

    // The thief's copy of it, before every standing distribution.
    let copy = Terminal::restore(&bob.synced.device, None, Tick::default()).expect("its own");
    let mut copy = Driven::new(copy);
    for epoch in [7, 8] {
        let standing = fleet.key_dist(epoch, stated);
        assert_eq!(copy.hear(&standing), Some(DropReason::Locked));
    }
    assert_eq!(copy.machine.wrap_key(), None);
    assert_eq!(copy.unlock(), Err(ApiMisuse::NotTheUserCompartment));
}

/// FORMATS section 9: "RENEW targets and G are noted and carried out at unlock", through a power
/// cut too.
#[test]
fn unlocking_carries_out_what_was_noted() {
    let mut fleet = Fleet::new();
    let mut bob = locked(&mut fleet);
    let stated = |seconds, at| Stated {
        fleet: 3,
        cadence: Cadence::new(2, 600),
        ..Stated::at(seconds, at)
    };
    let newest = fleet.renew(7, stated(20, 6));
    assert_eq!(bob.hear(&newest), None);
    // Older statements, and such about groups that are not held, are no news.
    assert_eq!(
        bob.hear(&fleet.renew(7, stated(19, 5))),
        Some(DropReason::NotNewer)
    );
    assert_eq!(bob.hear(&newest), Some(DropReason::NotNewer));
    let strange = GroupNumber::new(99).expect("not 0");
    let body = Body::Renew(Renew {
        entries: vec![renew_entry(strange.master_key_id(), 7, stated(20, 6))],
    });
    let command = fleet.command(Target::All, body, stated(20, 6));
    let frame = fleet.record.beat.sign(&command);
    assert_eq!(bob.hear(&frame), Some(DropReason::NotHeld));
    assert_eq!(bob.hear(&fleet.offset(2, stated(21, 0))), None);
    assert_eq!(
        bob.hear(&fleet.offset(2, stated(22, 0))),
        Some(DropReason::NotNewer)
    );
    assert_eq!(
        bob.hear(&fleet.offset(1, stated(22, 0))),
        Some(DropReason::NotNewer)
    );
    let too_far = fleet.offset(65, stated(22, 0));
    assert_eq!(bob.hear(&too_far), Some(DropReason::AboveBound));
    bob.store_all();
    let restarted = bob.restarted_locked();
    // The machine that opens both by itself does the same at power-on.
    let opened = bob.restarted();
    for (mut bob, unlocks) in [(bob, true), (restarted, true), (opened, false)] {
        if unlocks {
            bob.events.clear();
            assert_eq!(bob.unlock(), Ok(()));
            bob.store_all();
            assert!(bob.events.contains(&Event::Unlocked));
        }
        bob.hear(&fleet.time(30));
        bob.store_all();
        assert_eq!((bob.generation(), bob.sending()), (Some(6), Some(6)));
        assert_eq!(bob.status().fingerprint, master(7, 6).fingerprint());
        assert_eq!(bob.status().lease_end, Some(FOUNDED.plus(20 + 72 * 3600)));
        assert_eq!(bob.status().valid_until, Some(FOUNDED.plus(620)));
        let wrap = fleet.wrap_key(1).renew_to(generation(5));
        let held = (generation(5), wrap.fingerprint());
        assert_eq!(bob.machine.wrap_key(), Some(held));
        assert!(bob.machine.notes.renewals.is_empty() && bob.machine.notes.offset.is_none());
        assert_eq!(bob.restarted().machine.wrap_key(), Some(held));
        // Once only: heard again, they are no news.
        assert_eq!(bob.hear(&newest), Some(DropReason::NotNewer));
    }
}

/// G alone is carried out, too, also before any beacon.
#[test]
fn unlocking_steps_the_wrap_key_to_the_fleets_generation() {
    let mut fleet = Fleet::new();
    let mut bob = locked(&mut fleet);
    let stated = Stated {
        fleet: 3,
        ..Stated::at(5, 0)
    };
    bob.hear(&fleet.renew_fleet(stated));
    assert_eq!(bob.machine.time(), None);
    assert_eq!(bob.unlock(), Ok(()));
    let wrap = fleet.wrap_key(1).renew_to(generation(3));
    let held = (generation(3), wrap.fingerprint());
    assert_eq!(bob.machine.wrap_key(), Some(held));
    bob.store_all();
    assert_eq!(bob.hear(&fleet.key_dist(8, stated)), None);
    assert_eq!(bob.user().offset, 0);
}

/// What is noted is absolute: an offset or an epoch below the one held takes nothing back.
#[test]
fn a_note_below_what_is_held_changes_nothing() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.offset(5, Stated::at(1, 0)));
    bob.hear(&fleet.renew(7, Stated::at(2, 4)));
    bob.store_all();
    let before = bob.synced.user.clone();
    bob.feed(Input::Lock);
    assert_eq!(
        bob.hear(&fleet.renew(6, Stated::at(3, 9))),
        Some(DropReason::NotNewer)
    );
    bob.hear(&fleet.renew(7, Stated::at(1, 3)));
    bob.hear(&fleet.offset(3, Stated::at(3, 0)));
    bob.store_all();
    assert_eq!(bob.unlock(), Ok(()));
    bob.store_all();
    assert_eq!(bob.synced.user, before);
    assert_eq!((bob.user().offset, bob.generation()), (5, Some(4)));
}

/// an exclusion that was heard while locked holds from the unlocking on; so does an epoch
/// that a RENEW named.
#[test]
fn unlocking_stops_sending_where_a_newer_epoch_was_told_of() {
    let mut fleet = Fleet::new();
    let locked = locked(&mut fleet);
    let excluded = fleet.exclude(&[2], Some(9), Stated::at(5, 0));
    let renewed = fleet.renew(9, Stated::at(5, 0));
    for (frames, state) in [
        (vec![&excluded], DropReason::NewerEpoch),
        (vec![&renewed], DropReason::NewerEpoch),
        (vec![&renewed, &excluded], DropReason::NewerEpoch),
    ] {
        let mut bob = locked.restarted_locked();
        for frame in &frames {
            assert_eq!(bob.hear(frame), None);
            assert_eq!(bob.hear(frame), Some(DropReason::NotNewer));
        }
        bob.store_all();
        let mut bob = bob.restarted_locked();
        for frame in &frames {
            assert_eq!(bob.hear(frame), Some(DropReason::NotNewer));
        }
        assert_eq!(bob.unlock(), Ok(()));
        bob.hear(&fleet.time(6));
        bob.store_all();
        assert_eq!(bob.sending(), None);
        assert_eq!(bob.machine.why_not_sending(group()), state);
        let by_exclusion = frames.contains(&&excluded);
        assert_eq!(bob.machine.is_excluded(terminal_number(2)), by_exclusion);
        // Ten minutes later it sends on, and says so, after an exclusion; else it waits.
        bob.wait(700);
        let state = if by_exclusion {
            GroupState::Exposed
        } else {
            GroupState::WaitsForKey
        };
        assert_eq!(bob.status().state, state);
        assert_eq!(bob.hear(&fleet.key_dist(9, Stated::at(6, 0))), None);
        bob.store_all();
        assert_eq!((bob.epoch(), bob.sending()), (KeyEpoch::new(9), Some(0)));
    }
}

/// What the thief of an online key said is noted; once the root drops him, what is issued from then
/// on is noted over it, also where he is not named.
#[test]
fn a_note_of_a_dropped_key_gives_way_to_a_newer_statement() {
    let mut fleet = Fleet::new();
    let mut bob = locked(&mut fleet);
    let far = Stated {
        issued_at: FOUNDED.plus(30 * 86_400),
        ..Stated::at(0, 40)
    };
    assert_eq!(bob.hear(&fleet.renew(7, far)), None);
    let genuine = Stated {
        cadence: Cadence::new(1, 600),
        ..Stated::at(100, 8)
    };
    assert_eq!(
        bob.hear(&fleet.renew(7, genuine)),
        Some(DropReason::NotNewer)
    );
    fleet.replace_key(SignerClass::Beat, 90);
    assert_eq!(bob.hear(&fleet.next_key_set(90, |_| ())), None);
    assert_eq!(bob.hear(&fleet.renew(7, genuine)), None);
    bob.store_all();
    assert_eq!(bob.unlock(), Ok(()));
    bob.hear(&fleet.time(101));
    assert_eq!(bob.status().valid_until, Some(FOUNDED.plus(700)));
    assert_eq!(bob.generation(), Some(8));
}

/// Locking drops every key at once, and what was not stored is as after a power cut: nobody was
/// told of it (DESIGN invariant 2).
#[test]
fn locking_drops_every_key_and_loses_none_that_was_told_of() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.renew(7, Stated::at(1, 1)));
    assert_eq!(bob.asked.len(), 1, "a store is open");
    // These change what the next store would hold.
    bob.hear(&fleet.key_dist(8, Stated::at(2, 0)));
    bob.feed(Input::Order(Order::OpenSession { group: group() }));
    bob.events.clear();
    bob.feed(Input::Lock);
    assert_eq!(bob.events, [Event::Locked { by_server: false }]);
    assert!(bob.machine.user.is_none());
    assert_eq!(bob.machine.state(), TerminalState::Locked);
    bob.store_all();
    let only = [Event::Locked { by_server: false }];
    assert_eq!(bob.events, only, "what was open is told by nobody's relay");
    // Locking again, or a second time, is nothing.
    bob.events.clear();
    bob.feed(Input::Lock);
    assert_eq!(bob.events, []);
    assert_eq!(bob.unlock(), Ok(()));
    bob.store_all();
    assert_eq!((bob.epoch(), bob.generation()), (KeyEpoch::new(7), Some(1)));
    // The carousel repeats what was lost.
    assert_eq!(bob.hear(&fleet.key_dist(8, Stated::at(2, 0))), None);
}

/// DESIGN invariant 5: a key that is not active yet is not sent with after an unlocking either.
#[test]
fn unlocking_sends_with_no_key_before_its_activation() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let stated = Stated {
        activate_at: FOUNDED.plus(40),
        ..Stated::at(1, 1)
    };
    bob.hear(&fleet.renew(7, stated));
    bob.store_all();
    assert_eq!(bob.sending(), Some(0));
    bob.feed(Input::Lock);
    bob.wait(10);
    assert_eq!(bob.unlock(), Ok(()));
    bob.store_all();
    assert_eq!(
        bob.sending(),
        None,
        "the older key is gone, the newer not active"
    );
    bob.wait(30);
    assert_eq!(bob.sending(), Some(1));
}

/// The driver's contract: an unlocking needs this terminal's own compartment, whole, and a closed
/// one.
#[test]
fn an_unlocking_that_fails_changes_nothing() {
    let mut fleet = Fleet::new();
    let mut bob = locked(&mut fleet);
    let another = {
        let mut package = fleet.package(2);
        package.wrap = fleet.wrap_key(2);
        let machine = Terminal::enrol(package, Tick::default()).expect("signed KEYSET");
        let mut another = Driven::new(machine);
        another.drain();
        another.store_all();
        another.synced
    };
    let own = bob.synced.clone();
    let before = bob.snapshot();
    for wrong in [
        &another.user[..],
        &own.user[1..],
        &own.user[..own.user.len() - 1],
        &own.device,
        &[],
    ] {
        let refused = bob.try_feed(Input::Unlock(wrong));
        assert_eq!(refused, Err(ApiMisuse::NotTheUserCompartment));
        assert!(bob.machine.is_locked());
    }
    assert_eq!(bob.snapshot(), before);
    assert_eq!(bob.unlock(), Ok(()));
    assert_eq!(bob.unlock(), Err(ApiMisuse::MayNotUnlock), "it is open");
    let mixed = Terminal::restore(&own.device, Some(&another.user), Tick::default());
    assert_eq!(mixed.err(), Some(SnapshotError::Mixed));
}

/// Locked or not, powered-on time is charged, leases end and are extended, and the dead man's time
/// is kept (FORMATS section 9).
#[test]
fn a_locked_terminal_keeps_the_dead_mans_time() {
    let mut fleet = Fleet::new();
    fleet.record.key_set.limits.dead_man = 86_400;
    fleet.sign_key_set();
    let member = fleet.member();
    let (lease, dead_man) = (72 * 3600, 86_400);
    let mut deaf = member.restarted_locked();
    deaf.wait(lease + dead_man - 1);
    deaf.store_all();
    assert_eq!(deaf.erased, None);
    deaf.wait(1);
    assert_eq!(deaf.erased.map(|it| it.cause), Some(EraseCause::DeadMan));
    // A RENEW that a locked terminal notes extends it.
    let mut bob = member.restarted_locked();
    bob.wait(7200);
    assert_eq!(bob.hear(&fleet.renew(7, Stated::at(7200, 0))), None);
    let end = FOUNDED.plus(7200 + 72 * 3600);
    assert_eq!(bob.machine.wipes_itself_at(), end.plus(86_400));
    bob.store_all();
    bob.wait(lease + dead_man - 3600);
    bob.store_all();
    assert_eq!(bob.erased, None);
    let mut bob = bob.restarted_locked();
    assert_eq!(bob.unlock(), Ok(()));
    assert_eq!(bob.status().lease_end, Some(end));
    let state = bob.status().state;
    assert_eq!(
        state,
        GroupState::LeaseOver,
        "a note gives no powered-on time back"
    );
    bob.wait(7200);
    assert_eq!(bob.erased.map(|it| it.cause), Some(EraseCause::DeadMan));
}

/// Locked before what it heard was stored: the committer drops what waits of the user compartment.
fn lock_before_the_store(bob: &mut Driven) {
    bob.feed(Input::Lock);
    for (_, (_, user)) in &mut bob.asked {
        *user = None;
    }
    bob.store_all();
}

/// A KEYSET with another schedule overtakes the own offset also where the compartment was closed
/// before that was stored: else its wrap key would be ahead of the server's for good.
#[test]
fn a_lock_before_the_store_loses_no_new_schedule() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.offset(2, Stated::at(1, 0)));
    bob.store_all();
    let key_set = fleet.next_key_set(2, |key_set| {
        key_set.fleet_schedule.first = generation(500);
        key_set.fleet_schedule.from = FOUNDED.plus(2);
    });
    assert_eq!(bob.hear(&key_set), None);
    lock_before_the_store(&mut bob);
    for mut bob in [bob.restarted_locked(), bob] {
        assert_eq!(bob.unlock(), Ok(()));
        assert_eq!(bob.user().offset, 0);
        let wrap = bob.machine.wrap_key().map(|(generation, _)| generation);
        assert_eq!(wrap, Some(generation(500)));
    }
}

/// What was noted stays noted until what it did is durable.
#[test]
fn a_lock_before_the_store_loses_no_note() {
    let mut fleet = Fleet::new();
    let mut bob = locked(&mut fleet);
    assert_eq!(bob.hear(&fleet.offset(2, Stated::at(20, 0))), None);
    assert_eq!(bob.hear(&fleet.renew(7, Stated::at(20, 3))), None);
    bob.store_all();
    assert_eq!(bob.unlock(), Ok(()));
    assert_eq!(bob.generation(), Some(3));
    lock_before_the_store(&mut bob);
    for mut bob in [bob.restarted_locked(), bob] {
        assert_eq!(bob.unlock(), Ok(()));
        assert_eq!((bob.user().offset, bob.generation()), (2, Some(3)));
        bob.store_all();
        assert!(bob.machine.notes.renewals.is_empty() && bob.machine.carried_out.is_none());
    }
}
