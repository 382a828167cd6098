//! What a packet's claim may cost and move (REQUIREMENTS W-04, A-11; FORMATS section 3.2).

use super::driven::Driven;
use super::fixture::{FOUNDED, Fleet, Stated, generation, group, master, terminal_number, trial};
use crate::keys::key_tag;
use crate::schedule::Cadence;
use crate::stats::DropReason;
use crate::terminal::{Input, ReceiveKey, Source, TrafficQuery};

/// What the relay asks for a packet under `generation` of epoch 7.
fn query(generation: u32, source: Source) -> TrafficQuery {
    TrafficQuery {
        group: group(),
        tag: master(7, generation).tag(),
        sender: terminal_number(2),
        source,
    }
}

/// Invariant 4: whatever is asked, nothing moves until a packet opened.
#[test]
fn a_flood_of_forged_generations_moves_nothing_and_costs_the_budget() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let before = bob.snapshot();
    let (mut of_one, mut of_many) = (0, 0);
    for n in 0..100_000u32 {
        let asked = bob.machine.receive_key(bob.now, query(1 + n % 64, 7));
        of_one += u32::from(matches!(asked, Ok(ReceiveKey::Trial(_))));
    }
    assert_eq!(of_one, 4, "a second's worth for one source");
    for n in 0..100_000u32 {
        let asked = bob
            .machine
            .receive_key(bob.now, query(1 + n % 64, 100 + u64::from(n)));
        of_many += u32::from(matches!(asked, Ok(ReceiveKey::Trial(_))));
    }
    assert_eq!(of_one + of_many, 64, "a second's worth over all");
    bob.wait(1);
    assert!(matches!(
        bob.machine.receive_key(bob.now, query(1, 8)),
        Ok(ReceiveKey::Trial(_))
    ));
    assert!(bob.machine.drops().of(DropReason::TrialBudget) > 199_000);
    assert_eq!(bob.snapshot(), before);
    assert_eq!(bob.asked, [], "nothing to store");
}

/// FORMATS section 3.2: first packets under a held generation, 64 a second for each source,
/// 20,000 over all.
#[test]
fn a_flood_of_forged_sessions_under_a_held_generation_costs_the_budget() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let before = bob.snapshot();
    let granted = |bob: &mut Driven, source| {
        let asked = bob.machine.receive_key(bob.now, query(0, source));
        u32::from(matches!(asked, Ok(ReceiveKey::Held(_))))
    };
    let of_one: u32 = (0..1000).map(|_| granted(&mut bob, 7)).sum();
    assert_eq!(of_one, 64);
    let of_many: u32 = (0..100_000)
        .map(|n| granted(&mut bob, 100 + n % 1000))
        .sum();
    assert_eq!(of_one + of_many, 20_000);
    assert_eq!(bob.snapshot(), before);
    // One budget does not starve the other.
    let _ = trial(&mut bob, 1);
}

/// Without a schedule: the last signed generation + 64, never one's own + 64.
#[test]
fn an_insider_moves_a_terminal_to_the_ceiling_and_no_further() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let to_ceiling = trial(&mut bob, 64);
    bob.feed(Input::Opened(to_ceiling));
    assert_eq!(bob.generation(), Some(64));
    for claimed in 65..=128 {
        bob.wait(1);
        let asked = bob.machine.receive_key(bob.now, query(claimed, 1));
        assert_eq!(asked.err(), Some(DropReason::AboveCeiling), "{claimed}");
    }
    bob.hear(&fleet.renew(7, Stated::at(1, 10)));
    assert_eq!(
        bob.generation(),
        Some(64),
        "the statement takes back nothing"
    );
    let raised = trial(&mut bob, 74);
    bob.feed(Input::Opened(raised));
    let asked = bob.machine.receive_key(bob.now, query(75, 1));
    assert_eq!(asked.err(), Some(DropReason::AboveCeiling));
}

/// With a schedule and trusted time: generation(now + 10 min).
#[test]
fn the_ceiling_of_a_schedule_is_ten_minutes_and_eight_commands_ahead() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let stated = Stated {
        cadence: Cadence::new(1, 300),
        ..Stated::at(1, 1)
    };
    bob.hear(&fleet.renew(7, stated));
    let _ = trial(&mut bob, 2);
    bob.wait(1);
    let asked = bob.machine.receive_key(bob.now, query(12, 1));
    assert_eq!(asked.err(), Some(DropReason::AboveCeiling));
    // At 1 s after the statement's second, 601 s are two periods; eight commands may be missed.
    let _ = trial(&mut bob, 11);
}

/// INVARIANT 1, A-08: the newer never goes back, and a trial that comes too late moves nothing.
#[test]
fn a_trial_that_was_overtaken_moves_nothing() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let late = trial(&mut bob, 3);
    let of_old_epoch = trial(&mut bob, 4);
    bob.hear(&fleet.renew(7, Stated::at(1, 5)));
    bob.feed(Input::Opened(late));
    assert_eq!(bob.generation(), Some(5));
    bob.hear(&fleet.key_dist(8, Stated::at(2, 0)));
    let before = bob.snapshot();
    bob.feed(Input::Opened(of_old_epoch));
    assert_eq!(bob.snapshot(), before);
}

/// the grace is receive-only, and it ends.
#[test]
fn an_old_generation_is_received_for_the_grace_and_never_sent_with() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.renew(7, Stated::at(0, 1)));
    bob.store_all();
    bob.wait(29);
    let held = bob.machine.receive_key(bob.now, query(0, 1));
    assert!(matches!(held, Ok(ReceiveKey::Held(key)) if key.generation() == generation(0)));
    assert_eq!(bob.sending(), Some(1));
    bob.wait(2);
    let gone = bob.machine.receive_key(bob.now, query(0, 1));
    assert_eq!(gone.err(), Some(DropReason::OlderGeneration));
}

/// Tags of other epochs and of generations that no gap reaches cost no derivation.
#[test]
fn tags_that_fit_nothing_cost_nothing() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    for low8 in 65..=255u8 {
        let [a, b] = key_tag(master(7, 0).kid(), master(7, 0).epoch());
        let tag = [a, b, low8];
        let asked = bob.machine.receive_key(
            bob.now,
            TrafficQuery {
                group: group(),
                tag,
                sender: terminal_number(2),
                source: 1,
            },
        );
        assert_eq!(asked.err(), Some(DropReason::OlderGeneration));
    }
    let other = TrafficQuery {
        group: group(),
        tag: master(8, 0).tag(),
        sender: terminal_number(2),
        source: 1,
    };
    let asked = bob.machine.receive_key(bob.now, other);
    assert_eq!(asked.err(), Some(DropReason::UnknownTag));
    assert_eq!(bob.machine.drops().of(DropReason::TrialBudget), 0);
    let _ = trial(&mut bob, 1);
}

/// after its lease a key neither sends nor receives; a newer statement extends it.
#[test]
fn after_its_lease_a_key_neither_sends_nor_receives_until_it_is_extended() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.wait(72 * 3600 + 1);
    assert_eq!(bob.sending(), None);
    let asked = bob.machine.receive_key(bob.now, query(0, 1));
    assert_eq!(asked.err(), Some(DropReason::LeaseOver));
    let stated = Stated {
        issued_at: FOUNDED.plus(72 * 3600),
        ..Stated::at(0, 0)
    };
    let stated = Stated {
        fleet: 72,
        ..stated
    };
    bob.hear(&fleet.renew(7, stated));
    assert_eq!(bob.sending(), Some(0));
}
