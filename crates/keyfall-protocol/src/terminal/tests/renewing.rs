//! The three instructions of renewal, for device and master keys alike (REQUIREMENTS R-040 to
//! the server's command, the validity period, the gap.

use super::driven::Driven;
use super::fixture::{FLEET_PERIOD, Fleet, Stated, generation, group, master, trial};
use crate::command::Floor;
use crate::ids::KeyEpoch;
use crate::schedule::Cadence;
use crate::stats::DropReason;
use crate::terminal::{Cause, Event, Input};

/// The master key is at `at` of epoch 7, as the server's chain has it.
fn master_is_at(driven: &Driven, at: u32) {
    let status = &driven.machine.groups()[0];
    assert_eq!(status.generation, generation(at));
    assert_eq!(status.fingerprint, master(7, at).fingerprint());
}

/// The wrap key is at `at`, as the server's chain has it.
fn device_is_at(driven: &Driven, fleet: &Fleet, at: u32) {
    let expected = fleet.wrap_key(1).renew_to(generation(at));
    let held = (generation(at), expected.fingerprint());
    assert_eq!(driven.machine.wrap_key(), Some(held));
    assert_eq!(driven.machine.fleet_generation(), generation(at));
}

#[expect(clippy::wildcard_enum_match_arm, reason = "one kind is looked for")]
fn causes(driven: &Driven) -> Vec<Cause> {
    driven
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Renewed { cause, .. } => Some(*cause),
            _ => None,
        })
        .collect()
}

/// R-042 for master keys: the stated target, absolutely.
#[test]
fn a_master_key_renews_by_command() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let renew = fleet.renew(7, Stated::at(1, 3));
    for _ in 0..5 {
        bob.hear(&renew);
        bob.store_all();
    }
    master_is_at(&bob, 3);
    assert_eq!(causes(&bob), [Cause::Command]);
    let floor = Floor {
        kid: group().master_key_id(),
        epoch: KeyEpoch::new(7),
        generation: generation(5),
    };
    bob.hear(&fleet.time_with(2, vec![floor]));
    master_is_at(&bob, 5);
}

/// R-044 for master keys: with the link cut after one command, at the same instants n times.
#[test]
fn a_master_key_renews_by_validity_with_the_link_cut() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let stated = Stated {
        cadence: Cadence::new(2, 600),
        ..Stated::at(0, 1)
    };
    bob.hear(&fleet.renew(7, stated));
    for period in 1..=50 {
        bob.wait(599);
        bob.store_all();
        master_is_at(&bob, 1 + 2 * (period - 1));
        bob.wait(1);
        master_is_at(&bob, 1 + 2 * period);
        assert!(bob.timeout.is_some(), "it asks to be woken for the next");
    }
    bob.store_all();
    assert!(
        causes(&bob)[1..]
            .iter()
            .all(|&cause| cause == Cause::Validity)
    );
}

/// without a validity only the other two instructions renew; without time heard nothing is
/// due.
#[test]
fn nothing_renews_by_validity_without_a_period_or_without_time() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.wait(86_400);
    master_is_at(&bob, 0);
    let stated = Stated {
        cadence: Cadence::new(1, 600),
        ..Stated::at(0, 0)
    };
    let mut deaf = fleet.terminal();
    deaf.hear(&fleet.key_dist(7, stated));
    deaf.wait(86_400);
    master_is_at(&deaf, 0);
    device_is_at(&deaf, &fleet, 0);
}

/// R-045 for master keys, up to the packet; with real packets in the simulator's tests.
#[test]
fn a_master_key_renews_by_the_gap_in_traffic() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let opened = trial(&mut bob, 4);
    bob.feed(Input::Opened(opened));
    master_is_at(&bob, 4);
    bob.store_all();
    assert_eq!(causes(&bob), [Cause::Gap]);
}

/// for device keys: RENEW of key id 0, and G in any verified command.
#[test]
fn a_device_key_renews_by_command() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let stated = Stated {
        fleet: 2,
        ..Stated::at(1, 2)
    };
    bob.hear(&fleet.renew_fleet(stated));
    device_is_at(&bob, &fleet, 2);
    bob.store_all();
    let told = Event::FleetRenewed {
        from: generation(0),
        to: generation(2),
    };
    assert!(bob.events.contains(&told));
    // A command about a group that he does not hold names G too.
    let mut carol = fleet.terminal();
    let stated = Stated { fleet: 3, ..stated };
    assert_eq!(
        carol.hear(&fleet.renew(7, stated)),
        Some(DropReason::NotHeld)
    );
    device_is_at(&carol, &fleet, 3);
}

/// for device keys: the root's schedule in the KEYSET held, with the link cut.
#[test]
fn a_device_key_renews_by_validity_with_the_link_cut() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    for period in 1..=20 {
        bob.wait(u64::from(FLEET_PERIOD) - 1);
        device_is_at(&bob, &fleet, period - 1);
        assert!(bob.timeout.is_some(), "it asks to be woken for the next");
        bob.wait(1);
        device_is_at(&bob, &fleet, period);
        bob.store_all();
    }
    let disk = (bob.synced.device.clone(), Some(bob.synced.user.clone()));
    assert_eq!(disk, bob.snapshot(), "each is stored");
}

/// The root's schedule says nothing after the keys that it lists: no terminal runs ahead of the
/// next KEYSET for ever.
#[test]
fn a_device_key_stands_still_when_the_keyset_held_has_ended() {
    let mut fleet = Fleet::new();
    fleet.record.key_set.limits.dead_man = 365 * 86_400;
    fleet.sign_key_set();
    let mut bob = fleet.member();
    bob.wait(30 * 86_400);
    device_is_at(&bob, &fleet, 720);
    bob.wait(90 * 86_400);
    device_is_at(&bob, &fleet, 720);
}

/// for device keys: the gap between server and terminal, noticed in a distribution
/// under a newer G.
#[test]
fn a_device_key_renews_by_the_gap_to_a_distribution() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.terminal();
    let stated = Stated {
        fleet: 40,
        ..Stated::at(1, 6)
    };
    bob.hear(&fleet.key_dist(7, stated));
    device_is_at(&bob, &fleet, 40);
    master_is_at(&bob, 6);
}

/// A-13 and the issue: off for 65,535 generations, current after one command each.
#[test]
fn after_65535_generations_one_command_is_enough() {
    let mut fleet = Fleet::new();
    fleet.record.key_set.fleet_schedule.period = 39;
    let stated = Stated {
        fleet: 65_535,
        ..Stated::at(65_535 * 39, 65_535)
    };
    fleet.sign_key_set();
    let member = fleet.member();
    let (mut bob, mut by_dist) = (member.restarted(), member.restarted());
    assert_eq!(bob.hear(&fleet.renew(7, stated)), None);
    master_is_at(&bob, 65_535);
    device_is_at(&bob, &fleet, 65_535);
    assert_eq!(by_dist.hear(&fleet.key_dist(8, stated)), None);
    device_is_at(&by_dist, &fleet, 65_535);
    assert_eq!(by_dist.machine.groups()[0].epoch, KeyEpoch::new(8));
}
