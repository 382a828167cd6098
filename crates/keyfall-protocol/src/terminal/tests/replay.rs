//! What was recorded and is played again, what was put back, and what nobody signed (FORMATS
//! sections 2.1 and 2.4; REQUIREMENTS R-068, W-13, A-31).

use std::collections::BTreeSet;

use super::driven::Driven;
use super::fixture::{
    FLEET_PERIOD, FOUNDED, Fleet, Stated, generation, group, halt, master, terminal_number,
};
use crate::command::{Body, Command, Floor, OrderKind, SignerClass, SigningKey, Target};
use crate::ids::{Generation, KeyEpoch, SessionId, Tick};
use crate::keys::Secret;
use crate::rng::{Random, octets};
use crate::schedule::Cadence;
use crate::stats::DropReason;
use crate::terminal::{Event, GroupState, Input, Order, Terminal};

/// A day of a carousel and one terminal that heard all of it: beacons with floors every ten minutes,
/// G, renewals and distributions every hour, an own offset, an exclusion with its fresh epoch, new
/// online keys at noon, a LOCK and its UNLOCK, three changes of a running key: by STOP and START, by
/// START alone, and one whose START was lost; a NOTIFY.
fn recorded_day(fleet: &mut Fleet) -> (Driven, Vec<Vec<u8>>) {
    let mut bob = fleet.member();
    let mut recorded = vec![fleet.time(0), fleet.key_dist(7, Stated::at(0, 0))];
    let (mut epoch, mut offset) = (7, 0);
    for tenth in 1..=144 {
        let seconds = tenth * 600;
        let g = seconds / FLEET_PERIOD;
        let mut frames = Vec::new();
        if tenth == 72 {
            fleet.replace_key(SignerClass::Beat, seconds);
            fleet.replace_key(SignerClass::Keys, seconds);
            frames.push(fleet.next_key_set(seconds, |_| ()));
        }
        if tenth == 40 {
            frames.push(fleet.order(OrderKind::Lock, 3, seconds));
            frames.push(fleet.order(OrderKind::Unlock, 4, seconds + 1));
        }
        let stated = Stated {
            cadence: Cadence::new(1, 3600),
            fleet: g,
            ..Stated::at(seconds, g)
        };
        let change = halt(tenth.into(), (epoch, g + 1), seconds + 30);
        if tenth == 80 {
            frames.extend([
                fleet.stop(change, seconds),
                fleet.start(change, seconds + 1),
            ]);
        }
        if tenth == 90 {
            frames.push(fleet.start(change, seconds));
        }
        if tenth == 100 {
            frames.push(fleet.stop(change, seconds));
            frames.push(fleet.notify(Target::All, &[(epoch, g + 2)], seconds));
        }
        if tenth == 50 {
            frames.push(fleet.exclude(&[5], Some(8), stated));
            epoch = 8;
        }
        if tenth == 60 {
            offset = 1;
            frames.push(fleet.offset(1, stated));
        }
        frames.push(fleet.beacon(FOUNDED.plus(seconds), vec![floor(epoch, g)], stated));
        if tenth % 6 == 0 || tenth == 51 {
            frames.push(fleet.renew_fleet(stated));
            frames.push(fleet.renew(epoch, stated));
            let wrap = fleet.wrap_key(1).renew_to(generation(g + offset));
            let body = fleet.key_dist_body(epoch, stated, &[&wrap]);
            let command = fleet.command(Target::Handles, body, stated);
            frames.push(fleet.record.keys.sign(&command));
        }
        bob.wait(600);
        for frame in &frames {
            bob.hear(frame);
            bob.store_all();
            if bob.machine.is_locked() && bob.machine.may_unlock() {
                assert_eq!(bob.unlock(), Ok(()));
                bob.store_all();
            }
        }
        recorded.extend(frames);
    }
    (bob, recorded)
}

fn floor(epoch: u32, at: u32) -> Floor {
    Floor {
        kid: group().master_key_id(),
        epoch: KeyEpoch::new(epoch),
        generation: generation(at),
    }
}

/// In an order of its own.
fn shuffled(recorded: &[Vec<u8>], seed: u64) -> Vec<Vec<u8>> {
    let mut rng = super::fixture::Counting::from(seed << 20);
    let mut draw = || u64::from_be_bytes(octets(&mut rng as &mut dyn Random));
    let mut keyed: Vec<_> = recorded.iter().map(|frame| (draw(), frame)).collect();
    keyed.sort();
    keyed.into_iter().map(|(_, frame)| frame.clone()).collect()
}

/// The issue, FORMATS section 2.1: replay is decided by state, never by order of arrival.
#[test]
fn a_recorded_day_played_again_in_any_order_changes_nothing() {
    let mut fleet = Fleet::new();
    let (mut bob, recorded) = recorded_day(&mut fleet);
    assert_eq!(
        (bob.epoch(), bob.generation()),
        (KeyEpoch::new(8), Some(24))
    );
    assert_eq!(bob.user().offset, 1);
    assert_eq!(bob.sending(), Some(24));
    assert!(recorded.len() > 200);
    let before = (bob.snapshot(), bob.sending(), bob.machine.time());
    let told = bob.events.len();
    for seed in 0..20 {
        for frame in shuffled(&recorded, seed) {
            bob.hear(&frame);
            assert_eq!((&bob.asked[..], bob.events.len()), (&[][..], told));
        }
        assert_eq!((bob.snapshot(), bob.sending(), bob.machine.time()), before);
    }
    // After a power cut, and locked: nothing but the newest beacon, which starts the clock.
    for mut bob in [bob.restarted(), bob.restarted_locked()] {
        bob.feed(Input::Timeout);
        bob.store_all();
        let before = bob.snapshot();
        for frame in shuffled(&recorded, 99) {
            bob.hear(&frame);
        }
        bob.store_all();
        if bob.machine.is_locked() {
            let notes = &bob.machine.notes;
            assert!(notes.epochs.is_empty() && notes.offset <= Some(1));
            assert_eq!(bob.unlock(), Ok(()));
            bob.store_all();
        }
        assert_eq!(
            bob.snapshot().1,
            before.1.or_else(|| Some(bob.synced.user.clone()))
        );
        assert_eq!(
            (bob.epoch(), bob.generation()),
            (KeyEpoch::new(8), Some(24))
        );
        assert_eq!(bob.user().offset, 1);
        assert_eq!(bob.machine.time(), Some(FOUNDED.plus(86_400)));
    }
}

/// The issue, R-068: the same after the terminal was enrolled anew, under another number: it gets
/// no key of the day, is neither locked nor erased, and steps nowhere.
#[test]
fn a_recorded_day_gives_nothing_to_a_terminal_that_was_enrolled_anew() {
    let mut fleet = Fleet::new();
    let (_, mut recorded) = recorded_day(&mut fleet);
    recorded.extend([
        fleet.order(OrderKind::Delete, 0, 80_000),
        fleet.order(OrderKind::Init, 0, 80_000),
    ]);
    let mut package = fleet.package(2);
    package.wrap = fleet.wrap_key(2).renew_to(generation(24));
    package.issued_at = FOUNDED.plus(86_401);
    let machine = Terminal::enrol(package, Tick::default()).expect("signed KEYSET");
    let mut again = Driven::new(machine);
    again.drain();
    again.store_all();
    let before = again.snapshot();
    for seed in 0..5 {
        for frame in shuffled(&recorded, seed) {
            assert!(again.hear(&frame).is_some());
        }
        assert_eq!(again.asked, []);
        assert_eq!(again.snapshot(), before);
    }
    assert_eq!((again.machine.time(), again.erased), (None, None));
}

/// W-13: the state directory of yesterday. Floors make it step, or stop where the epoch is another;
/// nothing is discarded, and nothing is sent under a key and session that were used before.
#[test]
fn a_state_put_back_steps_or_stops_and_repeats_no_session() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let yesterday = bob.restarted();
    let mut used: BTreeSet<(u32, u32, SessionId)> = BTreeSet::new();
    let open = |bob: &mut Driven, used: &mut BTreeSet<_>| {
        bob.events.clear();
        bob.feed(Input::Order(Order::OpenSession { group: group() }));
        bob.store_all();
        let session = bob.events.iter().find_map(|event| {
            if let Event::SessionReady { session, .. } = *event {
                Some(session)
            } else {
                None
            }
        });
        let key = bob
            .machine
            .send_key(group())
            .map(|key| (key.epoch().get(), key.generation().get()));
        if let (Some(session), Some((epoch, at))) = (session, key) {
            assert!(used.insert((epoch, at, session)), "{session:?}");
        }
    };
    for hour in 1..=24 {
        open(&mut bob, &mut used);
        bob.wait(3600);
        let stated = Stated {
            fleet: hour,
            ..Stated::at(hour * 3600, hour)
        };
        bob.hear(&fleet.time(hour * 3600));
        bob.hear(&fleet.renew(7, stated));
        bob.store_all();
    }
    assert_eq!((used.len(), bob.sending()), (24, Some(24)));

    // Before it hears anything it sends nothing. The driver's randomness is another each time.
    let mut back = yesterday.restarted();
    back.reseed(2);
    assert_eq!(back.sending(), None);
    // A recording of yesterday lets it send under yesterday's key: under sessions of its own.
    back.hear(&fleet.time(0));
    back.store_all();
    assert_eq!(back.sending(), Some(0));
    open(&mut back, &mut used);
    // Today's beacon moves it on.
    let stated = Stated {
        fleet: 24,
        ..Stated::at(86_400, 0)
    };
    let mut back = yesterday.restarted();
    back.reseed(3);
    assert_eq!(
        back.hear(&fleet.beacon(FOUNDED.plus(86_400), vec![floor(7, 24)], stated)),
        None
    );
    assert_eq!(back.sending(), Some(0), "until it is stored");
    back.store_all();
    assert_eq!((back.generation(), back.sending()), (Some(24), Some(24)));
    assert_eq!(back.machine.fleet_generation(), generation(24));
    open(&mut back, &mut used);
    // A newer epoch stops it until its key comes.
    let mut back = yesterday.restarted();
    back.reseed(4);
    back.hear(&fleet.beacon(FOUNDED.plus(86_400), vec![floor(9, 0)], stated));
    back.store_all();
    assert_eq!(back.sending(), None);
    assert_eq!(back.status().state, GroupState::WaitsForKey);
    assert_eq!(back.generation(), Some(0), "nothing is discarded");
    assert_eq!(back.hear(&fleet.key_dist(9, stated)), None);
    back.store_all();
    assert_eq!(back.sending(), Some(0));
    open(&mut back, &mut used);
    assert_eq!(used.len(), 27);
}

/// The same where the compartments are of different days.
#[test]
fn compartments_of_different_days_go_on_together() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let old = bob.synced.clone();
    let stated = Stated {
        fleet: 3,
        ..Stated::at(10, 3)
    };
    bob.hear(&fleet.renew(7, stated));
    bob.hear(&fleet.offset(2, stated));
    bob.store_all();
    let new = bob.synced.clone();
    for (device, user) in [(&new.device, &old.user), (&old.device, &new.user)] {
        let machine = Terminal::restore(device, Some(user), Tick::default()).expect("its own");
        let mut mixed = Driven::new(machine);
        mixed.hear(&fleet.time(11));
        mixed.hear(&fleet.offset(2, stated));
        mixed.hear(&fleet.renew(7, stated));
        mixed.store_all();
        assert_eq!(mixed.machine.fleet_generation(), generation(3));
        assert_eq!(mixed.sending(), Some(3));
        let wrap = fleet.wrap_key(1).renew_to(generation(5));
        assert_eq!(
            mixed.machine.wrap_key(),
            Some((generation(5), wrap.fingerprint()))
        );
    }
}

/// The issue, FORMATS section 2.4: a G that nobody signed steps nothing, not even in scratch: two
/// thousand million steps would not end in this test's time.
#[test]
fn an_absurd_g_that_nobody_signed_costs_no_step() {
    let mut fleet = Fleet::new();
    let stranger = SigningKey::from_seed(Secret::init_with(|into| into.fill(0xaa)));
    let member = fleet.member();
    for mut bob in [member.restarted(), member.restarted_locked(), member] {
        bob.feed(Input::Timeout);
        bob.store_all();
        let before = bob.snapshot();
        let handles = |bob: &Driven| {
            let user = bob.machine.user.as_ref();
            user.map(|user| {
                user.wrap
                    .all()
                    .map(|key| key.generation())
                    .collect::<Vec<_>>()
            })
        };
        let held = handles(&bob);
        for g in [1, 785, 1 << 20, Generation::MAX.get()] {
            let stated = Stated {
                fleet: g,
                ..Stated::at(1, 9)
            };
            let fresh = fleet.key_dist_body(9, Stated::at(1, 0), &[&fleet.wrap_key(1)]);
            let order = fleet.order_body(OrderKind::Lock, 1, 9);
            for (target, body) in [
                (Target::All, Fleet::renew_body(7, stated)),
                (Target::Handles, fresh),
                (Target::Terminal(terminal_number(1)), order),
                (Target::All, Fleet::exclude_body(&[9], Some(9))),
            ] {
                let command: Command = fleet.command(target, body, stated);
                let unsigned = stranger.sign(&command);
                let refused = bob.hear(&unsigned);
                let reasons = [DropReason::UnknownSigner, DropReason::Locked];
                assert!(
                    refused.is_some_and(|it| reasons.contains(&it)),
                    "{refused:?}"
                );
                let mut forged = fleet.signer_of(&command.body).sign(&command);
                let last = forged.len() - 1;
                forged[last] ^= 1;
                let refused = bob.hear(&forged);
                let reasons = [
                    DropReason::BadSignature,
                    DropReason::AboveBound,
                    DropReason::Locked,
                ];
                assert!(
                    refused.is_some_and(|it| reasons.contains(&it)),
                    "{refused:?}"
                );
                if g > 784 && !matches!(command.body, Body::Order(_)) {
                    // Above the bound not even the genuine signature counts.
                    let signed = fleet.signer_of(&command.body).sign(&command);
                    assert!(bob.hear(&signed).is_some());
                }
            }
            assert_eq!(bob.machine.fleet_generation(), generation(0));
            assert_eq!(handles(&bob), held);
        }
        assert_eq!((bob.snapshot(), &bob.asked[..]), (before, &[][..]));
    }
}

/// who joins gets the key as it stands and reads nothing of before; nor does the key that was
/// in force when he was enrolled.
#[test]
fn a_joiner_reads_nothing_from_before_he_joined() {
    let mut fleet = Fleet::new();
    let mut alice = fleet.member();
    for at in 1..=5 {
        alice.hear(&fleet.renew(7, Stated::at(at, at)));
        alice.store_all();
    }
    // The server renews, then hands the newcomer that key.
    let stated = Stated::at(10, 6);
    alice.hear(&fleet.renew(7, stated));
    let mut newcomer = fleet.terminal();
    newcomer.hear(&fleet.time(9));
    assert_eq!(newcomer.hear(&fleet.key_dist(7, stated)), None);
    newcomer.store_all();
    assert_eq!(newcomer.status().fingerprint, master(7, 6).fingerprint());
    let held: Vec<_> = newcomer.user().groups[&group()]
        .ring
        .all()
        .map(|key| key.generation().get())
        .collect();
    assert_eq!(held, [6]);
    for before in 0..6 {
        let fits = newcomer.machine.keys_that_fit(master(7, before).tag());
        let opens =
            |key: &crate::keys::MasterKey| key.fingerprint() == master(7, before).fingerprint();
        assert!(!fits.iter().any(opens), "{before}");
    }
    // Statements of before, played to him, take nothing back.
    for before in 0..6 {
        newcomer.hear(&fleet.renew(7, Stated::at(before, before)));
        newcomer.hear(&fleet.key_dist(7, Stated::at(before, before)));
    }
    assert_eq!(newcomer.generation(), Some(6));
}
