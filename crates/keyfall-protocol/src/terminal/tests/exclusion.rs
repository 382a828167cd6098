//! EXCLUDE: nobody listens to the lost terminal any more, at once, and no one sends under a key
//! that it holds until the fresh one has come (REQUIREMENTS, W-01; FORMATS sections
//! 2.3 and 5.3).

use super::driven::Driven;
use super::fixture::{FOUNDED, Fleet, Stated, group, master, terminal_number};
use crate::command::{Body, ListedKey, SignerClass, SigningKey, Target, sign_together};
use crate::ids::{KeyEpoch, KeyName};
use crate::keys::Secret;
use crate::stats::DropReason;
use crate::terminal::{Event, GroupState, Input, Output, ReceiveKey, TerminalState, TrafficQuery};

/// What the relay asks for a packet of `sender` under `generation` of `epoch`.
fn query(epoch: u32, generation: u32, sender: u32) -> TrafficQuery {
    TrafficQuery {
        group: group(),
        tag: master(epoch, generation).tag(),
        sender: terminal_number(sender),
        source: 1,
    }
}

fn receives(bob: &mut Driven, epoch: u32, sender: u32) -> Result<(), DropReason> {
    let asked = bob.machine.receive_key(bob.now, query(epoch, 0, sender));
    asked.map(|key| assert!(matches!(key, ReceiveKey::Held(_))))
}

/// R-007 (a): the peers cut it off before anything is stored, and for good.
#[test]
fn peers_drop_an_excluded_sender_at_once() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    assert_eq!(receives(&mut bob, 7, 2), Ok(()));
    let frame = fleet.exclude(&[2], None, Stated::at(1, 0));
    let mut rng = super::fixture::counting();
    bob.machine
        .handle_input(bob.now, &mut rng, Input::Datagram(&frame))
        .expect("the contract");
    let told = Event::Excluded {
        terminals: vec![terminal_number(2)],
    };
    let first = bob.machine.poll_output();
    assert!(
        matches!(&first, Output::Event(event) if *event == told),
        "{first:?}"
    );
    assert_eq!(receives(&mut bob, 7, 2), Err(DropReason::ExcludedSender));
    // Also for session keys that were derived before.
    let cached = bob.machine.may_receive(group(), terminal_number(2));
    assert_eq!(cached, Err(DropReason::ExcludedSender));
    assert_eq!(receives(&mut bob, 7, 3), Ok(()), "nobody else");
    bob.drain();
    bob.store_all();
    for mut bob in [bob.restarted(), bob] {
        assert_eq!(receives(&mut bob, 7, 2), Err(DropReason::ExcludedSender));
        let mut repeat = frame.clone();
        *repeat.last_mut().expect("an octet") ^= 1;
        let refused = bob.hear(&repeat);
        assert_eq!(
            refused,
            Some(DropReason::NotNewer),
            "no signature is checked"
        );
        assert_eq!(
            bob.machine.excluded().collect::<Vec<_>>(),
            [terminal_number(2)]
        );
    }
}

/// FORMATS section 2.3: no sending until the new epoch has come, for exclude-wait at the most; then
/// it goes on and is shown as exposed.
#[test]
fn sending_waits_for_the_new_epoch_and_then_goes_on_exposed() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    // At the end of a step of powered-on time: what is charged already has not passed.
    bob.wait(59);
    bob.hear(&fleet.exclude(&[2], Some(9), Stated::at(1, 0)));
    assert_eq!(bob.sending(), None, "not even before it is stored");
    bob.store_all();
    assert_eq!(bob.status().state, GroupState::WaitsForKey);
    assert_eq!(bob.machine.why_not_sending(group()), DropReason::NewerEpoch);
    assert_eq!(
        receives(&mut bob, 7, 3),
        Ok(()),
        "what is sent meanwhile is heard"
    );
    // By powered-on time, no earlier than ten minutes, one step later at the most.
    bob.wait(599);
    bob.store_all();
    assert_eq!(bob.sending(), None);
    bob.wait(62);
    bob.store_all();
    assert_eq!(bob.status().state, GroupState::Exposed);
    assert_eq!(bob.sending(), Some(0));
    // The new epoch ends it.
    assert_eq!(bob.hear(&fleet.key_dist(9, Stated::at(2, 0))), None);
    bob.store_all();
    assert_eq!(bob.status().state, GroupState::Ready);
    assert_eq!((bob.epoch(), bob.sending()), (KeyEpoch::new(9), Some(0)));
}

/// The wait is counted through power cuts, where each boot costs a step.
#[test]
fn the_wait_after_an_exclusion_is_counted_through_power_cuts() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.exclude(&[2], Some(9), Stated::at(1, 0)));
    bob.store_all();
    for _ in 0..3 {
        bob = bob.restarted();
        bob.hear(&fleet.time(1));
        bob.wait(119);
        bob.store_all();
        assert_eq!(bob.sending(), None);
        assert_eq!(bob.status().state, GroupState::WaitsForKey);
    }
    bob.wait(480);
    bob.store_all();
    assert_eq!(bob.status().state, GroupState::Exposed);
}

/// The same where the root wants it to fail closed, and for a shorter wait.
#[test]
fn a_fleet_may_wait_without_end_or_not_at_all() {
    for (wait, state) in [
        (None, GroupState::WaitsForKey),
        (Some(0), GroupState::Exposed),
    ] {
        let mut fleet = Fleet::new();
        fleet.record.key_set.limits.exclude_wait = wait;
        fleet.sign_key_set();
        let mut bob = fleet.member();
        bob.hear(&fleet.exclude(&[2], Some(9), Stated::at(1, 0)));
        bob.wait(if wait.is_some() { 60 } else { 71 * 3600 });
        bob.store_all();
        assert_eq!(bob.status().state, state);
        assert_eq!(bob.sending().is_some(), wait.is_some());
    }
}

/// FORMATS section 2.3: "once the new epoch is held, the old one of that group is not received any
/// more", whichever came first; by the grace of policy where there is one.
#[test]
fn after_the_new_epoch_the_old_one_is_not_received() {
    for (grace, dist_first) in [(0, false), (0, true), (20, false), (20, true)] {
        let mut fleet = Fleet::new();
        fleet.record.key_set.limits.exclude_grace = grace;
        fleet.sign_key_set();
        let mut bob = fleet.member();
        let exclude = fleet.exclude(&[2], Some(9), Stated::at(1, 0));
        let dist = fleet.key_dist(9, Stated::at(1, 0));
        let frames = if dist_first {
            [&dist, &exclude]
        } else {
            [&exclude, &dist]
        };
        for (place, frame) in frames.into_iter().enumerate() {
            assert_eq!(receives(&mut bob, 7, 3), Ok(()), "{place}");
            assert_eq!(bob.hear(frame), None);
            bob.store_all();
        }
        if grace > 0 {
            bob.wait(u64::from(grace) - 1);
            assert_eq!(receives(&mut bob, 7, 3), Ok(()), "less than the usual 30");
            bob.wait(1);
        }
        assert_eq!(receives(&mut bob, 7, 3), Err(DropReason::UnknownTag));
        assert_eq!(bob.status().in_grace, 0);
        assert_eq!(receives(&mut bob, 9, 3), Ok(()));
        assert_eq!(bob.sending(), Some(0));
        assert_eq!(bob.hear(&exclude), Some(DropReason::NotNewer));
    }
    // The positive control: a rekey without an exclusion gives the usual grace.
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.key_dist(9, Stated::at(1, 0)));
    bob.store_all();
    assert_eq!(receives(&mut bob, 7, 3), Ok(()));
}

/// One exclusion comes in several frames: one that names only terminals which are known still tells
/// of its groups, also where another command told of the epoch, or its key has come.
#[test]
fn a_second_frame_of_an_exclusion_tells_of_its_groups() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.exclude(&[2], None, Stated::at(1, 0)));
    bob.store_all();
    let second = fleet.exclude(&[2], Some(9), Stated::at(1, 0));
    let mut renewed = bob.restarted();
    renewed.hear(&fleet.time(1));
    renewed.hear(&fleet.renew(9, Stated::at(1, 0)));
    assert_eq!(renewed.hear(&second), None);
    assert_eq!(renewed.hear(&second), Some(DropReason::NotNewer));
    renewed.wait(700);
    assert_eq!(renewed.status().state, GroupState::Exposed);
    bob.hear(&fleet.key_dist(9, Stated::at(1, 0)));
    bob.store_all();
    assert_eq!(receives(&mut bob, 7, 3), Ok(()));
    assert_eq!(bob.hear(&second), None);
    assert_eq!(receives(&mut bob, 7, 3), Err(DropReason::UnknownTag));
    assert_eq!(bob.hear(&second), Some(DropReason::NotNewer));
}

/// the honest device in a thief's hands stops by itself.
#[test]
fn an_excluded_terminal_neither_sends_nor_receives() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    assert_eq!(
        bob.hear(&fleet.exclude(&[1], Some(9), Stated::at(1, 0))),
        None
    );
    bob.store_all();
    for mut bob in [bob.restarted(), bob] {
        bob.hear(&fleet.time(2));
        bob.store_all();
        assert_eq!(bob.machine.state(), TerminalState::Excluded);
        assert_eq!(bob.sending(), None);
        bob.wait(3600);
        assert_eq!(bob.sending(), None, "no wait ends that");
        assert_eq!(bob.machine.why_not_sending(group()), DropReason::Excluded);
        assert_eq!(receives(&mut bob, 7, 3), Err(DropReason::Excluded));
        let cached = bob.machine.may_receive(group(), terminal_number(3));
        assert_eq!(cached, Err(DropReason::Excluded));
    }
}

/// W-01: what tells of a newer epoch opens nothing of it: only its KEYDIST does, which the excluded
/// terminal gets none of.
#[test]
fn an_exclusion_gives_no_key_of_the_new_epoch() {
    let mut fleet = Fleet::new();
    let mut mallory = fleet.member();
    mallory.hear(&fleet.exclude(&[1], Some(9), Stated::at(1, 0)));
    let exact = [fleet.wrap_key(2), fleet.wrap_key(3)];
    let stated = Stated::at(1, 0);
    let body = fleet.key_dist_body(9, stated, &[&exact[0], &exact[1]]);
    let Body::KeyDist(key_dist) = &body else {
        unreachable!("made above");
    };
    // All that she can ever derive of her wrap key.
    let mut wrap = mallory.user().wrap.newest().duplicate();
    for _ in 0..2000 {
        assert!(key_dist.open_any(&wrap).is_none());
        wrap = wrap.renew();
    }
    assert!(
        key_dist.open_any(&exact[0]).is_some(),
        "the positive control"
    );
    let frame = fleet
        .record
        .keys
        .sign(&fleet.command(Target::Handles, body, stated));
    assert_eq!(mallory.hear(&frame), Some(DropReason::NotAddressed));
    assert_eq!(mallory.epoch(), KeyEpoch::new(7));
}

/// FORMATS section 2.3: 256 in a powered-on day from one key of the keys class; more only where the
/// erase class signs too, as many of it as the root asks for.
#[test]
fn one_key_excludes_no_more_than_a_day_allows_unless_the_erase_class_signs_too() {
    let mut fleet = Fleet::new();
    let second = SigningKey::from_seed(Secret::init_with(|into| into.fill(2)));
    let erase = fleet.record.key_set.keys[2].clone();
    fleet.record.key_set.keys.push(ListedKey {
        public: second.public(),
        ..erase
    });
    fleet.record.key_set.limits.erase_signatures = 2;
    fleet.sign_key_set();
    let mut bob = fleet.member();
    for block in 0..4 {
        let names: Vec<_> = (10 + 64 * block..74 + 64 * block).collect();
        assert_eq!(
            bob.hear(&fleet.exclude(&names, None, Stated::at(1, 0))),
            None
        );
        bob.store_all();
    }
    let command = |fleet: &Fleet, first| {
        let body = Fleet::exclude_body(&[first, first + 1], Some(9));
        fleet.command(Target::All, body, Stated::at(2, 0))
    };
    let more = fleet.exclude(&[400], None, Stated::at(2, 0));
    let before = bob.snapshot();
    assert_eq!(bob.hear(&more), Some(DropReason::ExcludeBudget));
    let (keys, first) = (&fleet.record.keys, &fleet.erase);
    let wrong = command(&fleet, 500);
    for signers in [
        &[keys, first][..],
        &[first, &second],
        &[keys, &fleet.record.beat],
        &[keys, first, &fleet.record.beat],
        &[keys, first, &second, &fleet.record.beat],
    ] {
        let frame = sign_together(&wrong, signers);
        assert_eq!(bob.hear(&frame), Some(DropReason::WrongClass));
    }
    assert_eq!(bob.snapshot(), before);
    assert_eq!(bob.sending(), Some(0), "no epoch of it either");
    let together = sign_together(&command(&fleet, 500), &[keys, first, &second]);
    assert_eq!(bob.hear(&together), None);
    assert!(bob.machine.is_excluded(terminal_number(501)));
    bob.store_all();
    // The day counts powered-on time, through power cuts.
    let mut bob = bob.restarted();
    assert_eq!(bob.hear(&more), Some(DropReason::ExcludeBudget));
    // The fresh epoch is true also where so many may not be cut off at a time.
    let mut told = bob.restarted();
    told.hear(&fleet.exclude(&[400], Some(9), Stated::at(2, 0)));
    assert!(!told.machine.is_excluded(terminal_number(400)));
    assert_eq!(told.status().state, GroupState::WaitsForKey);
    bob.wait(86_400 - 200);
    bob.store_all();
    assert_eq!(bob.hear(&more), Some(DropReason::ExcludeBudget));
    bob.wait(200);
    bob.store_all();
    assert_eq!(bob.hear(&more), None);
}

/// FORMATS sections 2.1 and 2.2: an EXCLUDE stops nobody in groups that its signer does not speak
/// for, nor by epochs beyond its bound; whom it names is cut off all the same.
#[test]
fn an_exclusion_stops_sending_within_its_signers_bounds_only() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let unborn = FOUNDED
        .plus(30 * 86_400 + 1)
        .since(KeyEpoch::new(0).birth());
    bob.hear(&fleet.exclude(&[2], Some(unborn), Stated::at(1, 0)));
    assert_eq!(bob.machine.drops().of(DropReason::AboveBound), 1);
    assert!(bob.machine.is_excluded(terminal_number(2)));
    bob.store_all();
    assert_eq!(bob.sending(), Some(0));
    let narrow = fleet.next_key_set(2, |key_set| {
        key_set.keys[1].groups = vec![crate::ids::GroupNumber::new(5).expect("not 0")];
    });
    bob.hear(&narrow);
    bob.hear(&fleet.exclude(&[3], Some(9), Stated::at(3, 0)));
    assert_eq!(bob.machine.drops().of(DropReason::GroupNotAllowed), 1);
    assert!(bob.machine.is_excluded(terminal_number(3)));
    bob.store_all();
    assert_eq!(bob.sending(), Some(0));
}

/// FORMATS section 2, KEYSET 6: the root takes back what a stolen key excluded, and nothing else.
#[test]
fn the_root_readmits_whom_a_stolen_key_excluded() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    assert_eq!(
        bob.hear(&fleet.exclude(&[2, 3], Some(9), Stated::at(1, 0))),
        None
    );
    let stolen = fleet.replace_key(SignerClass::Keys, 10);
    assert_eq!(bob.hear(&fleet.next_key_set(10, |_| ())), None);
    assert!(
        bob.machine.is_excluded(terminal_number(2)),
        "replaced is not stolen"
    );
    assert_eq!(
        bob.hear(&fleet.exclude(&[4], None, Stated::at(11, 0))),
        None
    );
    assert_eq!(bob.sending(), None);
    bob.store_all();
    let other = KeyName::new([9; 8]);
    let named = fleet.next_key_set(12, |key_set| {
        key_set.stolen = vec![other, stolen.public().name()]
    });
    assert_eq!(bob.hear(&named), None);
    bob.store_all();
    let terminals = vec![terminal_number(2), terminal_number(3)];
    assert!(bob.events.contains(&Event::Readmitted { terminals }));
    assert_eq!(
        bob.machine.excluded().collect::<Vec<_>>(),
        [terminal_number(4)]
    );
    assert_eq!(receives(&mut bob, 7, 2), Ok(()));
    assert_eq!(receives(&mut bob, 7, 4), Err(DropReason::ExcludedSender));
    // The epoch of the thief's is not waited for; but the key that he brought is not sent with.
    assert_eq!(bob.status().state, GroupState::Distrusted);
    let restarted = bob.restarted();
    assert_eq!(
        restarted.machine.excluded().collect::<Vec<_>>(),
        [terminal_number(4)]
    );
    // Signed again by the new key, from the order journal, it counts.
    assert_eq!(
        bob.hear(&fleet.exclude(&[2], Some(9), Stated::at(13, 0))),
        None
    );
    assert!(bob.machine.is_excluded(terminal_number(2)));
}
