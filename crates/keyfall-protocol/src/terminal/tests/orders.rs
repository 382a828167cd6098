//! DELETE, INIT, LOCK and UNLOCK: whom they reach, who may give them, what is left (REQUIREMENTS
//! W-17, W-18; FORMATS sections 2 and 2.2).

use super::driven::Driven;
use super::fixture::{Fleet, Stated, group, terminal_number};
use crate::command::{
    Body, Command, ListedKey, OrderContents, OrderKind, SealedOrder, SignerClass, SigningKey,
    Target, sign_together,
};
use crate::error::ApiMisuse;
use crate::ids::{Tick, UnixSeconds};
use crate::keys::Secret;
use crate::receipt::frame_hash;
use crate::stats::DropReason;
use crate::terminal::{
    Erase, EraseCause, Event, Input, Order, Output, Terminal, TerminalState, TimeoutReason,
};

/// Nothing of an erased terminal does anything any more.
fn is_gone(bob: &mut Driven, fleet: &mut Fleet) {
    assert_eq!(bob.machine.state(), TerminalState::Erased);
    assert!(bob.machine.obey.is_none() && bob.machine.user.is_none());
    assert!(bob.machine.send_key(group()).is_none());
    assert!(!bob.machine.holds(group()) && bob.machine.groups().is_empty());
    assert_eq!(bob.machine.wrap_key(), None);
    assert_eq!(bob.machine.obey_fingerprint(), None);
    let peer = bob.machine.may_receive(group(), terminal_number(2));
    assert_eq!(peer, Err(DropReason::Locked));
    bob.asked.clear();
    let erased = bob.erased.clone();
    let told = bob.events.len();
    let frames = [
        fleet.time(1),
        fleet.key_dist(9, Stated::at(1, 0)),
        fleet.order(OrderKind::Unlock, 9, 1),
        fleet.order(OrderKind::Delete, 0, 1),
        fleet.next_key_set(1, |_| ()),
    ];
    for frame in &frames {
        bob.hear(frame);
    }
    bob.feed(Input::Order(Order::OpenSession { group: group() }));
    bob.feed(Input::Unlock(&[]));
    bob.wait(100_000);
    assert_eq!((bob.asked.len(), bob.events.len()), (0, told));
    assert_eq!(bob.erased, erased);
    let last = bob.machine.poll_output();
    let idle = matches!(
        last,
        Output::Timeout {
            at: None,
            reason: TimeoutReason::Idle
        }
    );
    assert!(idle, "{last:?}");
}

/// every key goes, the obey key too; a receipt is left, which proves it.
#[test]
fn a_delete_destroys_every_key_and_leaves_a_receipt() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let frame = fleet.order(OrderKind::Delete, 0, 10);
    assert_eq!(bob.hear(&frame), None);
    let Some(Erase {
        everything: false,
        cause: EraseCause::Delete,
        receipt: Some(receipt),
    }) = bob.erased
    else {
        panic!("{:?}", bob.erased);
    };
    assert!(receipt.is_from(&Fleet::obey_key(1)));
    assert!(!receipt.is_from(&Fleet::obey_key(2)));
    assert_eq!(
        (receipt.terminal, receipt.command),
        (terminal_number(1), frame_hash(&frame))
    );
    is_gone(&mut bob, &mut fleet);
}

/// INIT, and what asks for no receipt, leave nothing.
#[test]
fn an_init_destroys_everything_and_leaves_nothing() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    assert_eq!(bob.hear(&fleet.order(OrderKind::Init, 0, 10)), None);
    let expected = Erase {
        everything: true,
        cause: EraseCause::Init,
        receipt: None,
    };
    assert_eq!(bob.erased, Some(expected));
    is_gone(&mut bob, &mut fleet);
}

/// What waits to be stored or told goes with the keys: nothing is written after the erasure.
#[test]
fn an_erasure_is_the_last_output() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    bob.hear(&fleet.renew(7, Stated::at(1, 1)));
    let delete = fleet.order(OrderKind::Delete, 0, 10);
    let mut rng = super::fixture::counting();
    bob.machine
        .handle_input(bob.now, &mut rng, Input::Datagram(&delete))
        .expect("the contract");
    assert!(matches!(bob.machine.poll_output(), Output::Erase(_)));
    assert!(matches!(
        bob.machine.poll_output(),
        Output::Timeout { at: None, .. }
    ));
    // The driver reports the store that was open: nothing comes of it.
    let (id, _) = bob.asked.pop().expect("a store");
    bob.feed(Input::Stored(id));
    assert_eq!((bob.asked.len(), bob.erased), (0, None));
}

/// tamper and the last try erase as DELETE does, by nobody's signature.
#[test]
fn tamper_and_the_last_try_erase_also_a_locked_terminal() {
    let mut fleet = Fleet::new();
    let member = fleet.member();
    for cause in [EraseCause::Tamper, EraseCause::Tries] {
        for mut bob in [member.restarted(), member.restarted_locked()] {
            bob.feed(Input::Erase(cause));
            let expected = Erase {
                everything: false,
                cause,
                receipt: None,
            };
            assert_eq!(bob.erased, Some(expected));
            is_gone(&mut bob, &mut fleet);
        }
    }
}

/// an order to another terminal does nothing here, and one that names this terminal under
/// the key of another, or the other way round, is none.
#[test]
fn an_order_to_another_terminal_changes_nothing() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let before = bob.snapshot();
    for kind in OrderKind::ALL {
        let body = fleet.order_body(kind, 2, 5);
        let frame = |fleet: &Fleet, to, body| {
            let target = Target::Terminal(terminal_number(to));
            fleet
                .erase
                .sign(&fleet.command(target, body, Stated::at(10, 0)))
        };
        let addressed_to = [frame(&fleet, 2, body.clone()), frame(&fleet, 1, body)];
        for frame in addressed_to {
            assert_eq!(bob.hear(&frame), Some(DropReason::NotAddressed));
        }
        // Bob's handle above what opens with another's key, and Bob's key with another's number.
        let contents = |terminal| OrderContents {
            terminal: terminal_number(terminal),
            kind,
            version: matches!(kind, OrderKind::Lock | OrderKind::Unlock).then_some(5),
            receipt_wanted: false,
        };
        let misnamed = SealedOrder::seal(&contents(2), &Fleet::obey_key(1), &mut fleet.rng);
        let frame = frame(&fleet, 1, Body::Order(misnamed));
        assert_eq!(bob.hear(&frame), Some(DropReason::DoesNotOpen));
    }
    assert_eq!(bob.snapshot(), before);
    assert_eq!((&bob.erased, &bob.asked[..]), (&None, &[][..]));
}

/// every order to the old number, played again after the terminal was enrolled anew.
#[test]
fn an_order_is_void_after_re_enrolment() {
    let mut fleet = Fleet::new();
    let recorded = OrderKind::ALL.map(|kind| fleet.order(kind, 5, 10));
    let mut bob = fleet.member();
    bob.hear(&recorded[0]);
    assert!(bob.erased.is_some());
    // The same device, the same octets of obey key even: another number.
    let mut package = fleet.package(2);
    let secret =
        Secret::init_with(|into| into.copy_from_slice(Fleet::obey_key(1).secret().expose()));
    package.obey = crate::keys::ObeyKey::new(terminal_number(2), secret);
    let machine = Terminal::enrol(package, Tick::default()).expect("signed KEYSET");
    let mut again = Driven::new(machine);
    again.drain();
    again.store_all();
    let before = again.snapshot();
    for frame in &recorded {
        assert_eq!(again.hear(frame), Some(DropReason::NotAddressed));
    }
    assert_eq!(again.snapshot(), before);
    assert_eq!((again.erased, again.asked), (None, vec![]));
}

/// The issue, W-18: with the beat and keys keys alone, together too, nothing is deleted,
/// initialized or locked.
#[test]
fn online_keys_alone_or_together_give_no_order() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let before = bob.snapshot();
    for kind in OrderKind::ALL {
        let command = fleet.order_to_sign(kind, 5, 10);
        let (beat, keys) = (&fleet.record.beat, &fleet.record.keys);
        for signers in [&[beat][..], &[keys], &[beat, keys]] {
            let frame = sign_together(&command, signers);
            assert_eq!(bob.hear(&frame), Some(DropReason::WrongClass));
        }
        // Not even beside the erase key.
        for online in [beat, keys] {
            let frame = sign_together(&command, &[online, &fleet.erase]);
            assert_eq!(bob.hear(&frame), Some(DropReason::WrongClass));
        }
    }
    assert_eq!(bob.snapshot(), before);
    assert_eq!((bob.erased, bob.asked), (None, vec![]));
}

/// A fleet whose root asks for `wanted` of three erase keys.
fn fleet_of_three(wanted: u8) -> (Fleet, [SigningKey; 2]) {
    let mut fleet = Fleet::new();
    let more = [2, 3].map(|fill| SigningKey::from_seed(Secret::init_with(|into| into.fill(fill))));
    let key_set = &mut fleet.record.key_set;
    let erase = key_set.keys[2].clone();
    for key in &more {
        key_set.keys.push(ListedKey {
            public: key.public(),
            ..erase.clone()
        });
    }
    key_set.limits.erase_signatures = wanted;
    fleet.sign_key_set();
    (fleet, more)
}

/// W-17: DELETE, INIT, LOCK and UNLOCK need as many signatures of the erase class as the root says,
/// each by another key.
#[test]
fn an_order_needs_the_signatures_that_the_root_asks_for() {
    let (mut fleet, [second, third]) = fleet_of_three(2);
    let stranger = SigningKey::from_seed(Secret::init_with(|into| into.fill(0xaa)));
    let member = fleet.member();
    for (place, kind) in OrderKind::ALL.into_iter().enumerate() {
        let mut bob = member.restarted();
        bob.feed(Input::Timeout);
        bob.store_all();
        let before = bob.snapshot();
        let command = fleet.order_to_sign(kind, 5, 10);
        let first = &fleet.erase;
        for (signers, reason) in [
            (&[first][..], DropReason::TooFewSignatures),
            (&[&second], DropReason::TooFewSignatures),
            // The same key twice is no second one.
            (&[first, first], DropReason::Malformed),
            (&[first, &stranger], DropReason::UnknownSigner),
            (&[first, &fleet.record.keys], DropReason::WrongClass),
            (
                &[first, &second, &fleet.record.beat],
                DropReason::WrongClass,
            ),
        ] {
            let frame = sign_together(&command, signers);
            assert_eq!(bob.hear(&frame), Some(reason), "{}", kind.name());
        }
        // One good signature and one that is not.
        for altered in [0, 82] {
            let mut frame = sign_together(&command, &[first, &second]);
            let place = frame.len() - 1 - altered;
            frame[place] ^= 1;
            assert_eq!(bob.hear(&frame), Some(DropReason::BadSignature));
        }
        assert_eq!(bob.snapshot(), before);
        assert_eq!((&bob.erased, &bob.asked[..]), (&None, &[][..]));
        let enough = [
            &[first, &second][..],
            &[&second, &third],
            &[first, &second, &third],
        ];
        let frame = sign_together(&command, enough[place % 3]);
        assert_eq!(bob.hear(&frame), None, "{}", kind.name());
        let locks = matches!(kind, OrderKind::Lock | OrderKind::Unlock);
        assert_eq!(bob.erased.is_none(), locks);
    }
}

/// FORMATS section 9, T-04: after a LOCK no PIN is taken until a newer UNLOCK, through power cuts,
/// and whatever was recorded before does nothing.
#[test]
fn a_lock_holds_until_a_newer_unlock() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let old = fleet.order(OrderKind::Unlock, 4, 9);
    assert_eq!(bob.hear(&old), None);
    bob.store_all();
    let lock = fleet.order(OrderKind::Lock, 5, 10);
    bob.events.clear();
    assert_eq!(bob.hear(&lock), None);
    assert_eq!(bob.events, [Event::Locked { by_server: true }]);
    bob.store_all();
    let same_number = fleet.order(OrderKind::Unlock, 5, 11);
    for restart in 0..3 {
        if restart > 0 {
            // The machine could open both compartments; it does not after a LOCK.
            bob = if restart == 1 {
                bob.restarted()
            } else {
                bob.restarted_locked()
            };
            bob.feed(Input::Timeout);
            bob.store_all();
        }
        assert_eq!(bob.machine.state(), TerminalState::LockedByServer);
        assert!(!bob.machine.may_unlock() && bob.machine.is_locked());
        for replayed in [&old, &lock, &same_number] {
            assert_eq!(bob.hear(replayed), Some(DropReason::NotNewer));
        }
        assert_eq!(bob.unlock(), Err(ApiMisuse::MayNotUnlock));
        assert!(bob.machine.is_locked());
    }
    let unlock = fleet.order(OrderKind::Unlock, 6, 12);
    assert_eq!(bob.hear(&unlock), None);
    bob.store_all();
    assert!(bob.events.contains(&Event::UnlockAllowed));
    assert!(bob.machine.is_locked(), "an UNLOCK opens nothing by itself");
    assert_eq!(bob.machine.state(), TerminalState::Locked);
    assert_eq!(bob.hear(&lock), Some(DropReason::NotNewer), "played again");
    assert_eq!(bob.unlock(), Ok(()));
    bob.hear(&fleet.time(13));
    bob.store_all();
    assert_eq!(bob.sending(), Some(0));
    assert_eq!(bob.hear(&lock), Some(DropReason::NotNewer));
    assert_eq!(bob.sending(), Some(0));
}

/// FORMATS section 2.1: versions are bounded like epochs, and what a stolen erase key wrote is
/// outlived by the next KEYSET, but by nothing that was issued before it.
#[test]
fn a_lock_of_a_stolen_erase_key_is_outlived() {
    let (mut fleet, [second, _]) = fleet_of_three(1);
    let mut bob = fleet.member();
    let expires = fleet.record.key_set.keys[2].expires;
    let last = expires.since(UnixSeconds::new(1_767_225_600));
    let beyond = fleet.order(OrderKind::Lock, last + 1, 10);
    let before = bob.snapshot();
    assert_eq!(bob.hear(&beyond), Some(DropReason::AboveBound));
    assert_eq!(bob.snapshot(), before);
    let signed = |fleet: &mut Fleet, kind, version, seconds, by: &SigningKey| {
        let command: Command = fleet.order_to_sign(kind, version, seconds);
        by.sign(&command)
    };
    // An UNLOCK of another erase key, recorded before the theft.
    let recorded = signed(&mut fleet, OrderKind::Unlock, 3, 5, &second);
    assert_eq!(bob.hear(&fleet.order(OrderKind::Lock, last, 11)), None);
    fleet.replace_key(SignerClass::Erase, 100);
    assert_eq!(bob.hear(&fleet.next_key_set(100, |_| ())), None);
    bob.store_all();
    assert_eq!(bob.hear(&recorded), Some(DropReason::NotNewer));
    let older = signed(&mut fleet, OrderKind::Unlock, 7, 99, &second);
    assert_eq!(bob.hear(&older), Some(DropReason::NotNewer));
    assert!(!bob.machine.may_unlock());
    let newer = signed(&mut fleet, OrderKind::Unlock, 7, 100, &second);
    assert_eq!(bob.hear(&newer), None);
    assert!(bob.machine.may_unlock());
    assert_eq!(bob.hear(&recorded), Some(DropReason::NotNewer));
}

/// an order is looked up whatever G is, also by a terminal that slept for long (FORMATS
/// section 2: "the obey handle never changes").
#[test]
fn an_order_reaches_a_terminal_at_any_generation() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member().restarted();
    let body = fleet.order_body(OrderKind::Delete, 1, 0);
    let stated = Stated {
        fleet: 600,
        ..Stated::at(600 * 3600, 0)
    };
    let command = fleet.command(Target::Terminal(terminal_number(1)), body, stated);
    assert_eq!(bob.hear(&fleet.erase.sign(&command)), None);
    assert_eq!(bob.erased.map(|it| it.cause), Some(EraseCause::Delete));
}

/// What is signed once and repeated for months says nothing of G: a stolen erase key, which lives
/// for years, runs no chain ahead.
#[test]
fn an_order_moves_no_fleet_generation() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member().restarted();
    let before = bob.machine.fleet_generation();
    let body = fleet.order_body(OrderKind::Lock, 1, 1);
    let stated = Stated {
        fleet: 600,
        ..Stated::at(600 * 3600, 0)
    };
    let command = fleet.command(Target::Terminal(terminal_number(1)), body, stated);
    assert_eq!(bob.hear(&fleet.erase.sign(&command)), None);
    assert!(bob.machine.is_locked());
    assert_eq!(bob.machine.fleet_generation(), before);
}
