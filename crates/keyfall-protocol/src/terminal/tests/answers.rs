//! What a terminal takes of a KEY-DIS, and what it does not, though it opens and answers the request
//! that is open: the server's keys may be in wrong hands (INVARIANT 4, FORMATS sections 2.1, 2.2, 8).

use std::time::Duration;

use super::driven::Driven;
use super::fixture::{FOUNDED, Fleet, Stated, generation, group, master};
use crate::command::{KeyDistContents, SignerClass, SigningKey, Suites};
use crate::ids::GroupNumber;
use crate::keys::WrapKey;
use crate::sharing::SharingSuite;
use crate::sharing::message::{
    KeyReq, Message, RequestHash, SealedAsk, marked, message_in, type_of,
};
use crate::sharing::pair::{Grant, Line};
use crate::stats::DropReason;
use crate::terminal::{Input, Order};

/// A fleet whose terminals ask in `psk`, and one that is a member of the group, in epoch 7.
fn fleet() -> (Fleet, Driven) {
    let mut fleet = Fleet::new();
    let psk = Suites::new(&[SharingSuite::Psk]);
    fleet.record.key_set.limits.suites = psk.expect("one");
    fleet.sign_key_set();
    let bob = fleet.member();
    (fleet, bob)
}

/// bob asks.
fn ask(bob: &mut Driven) -> Vec<u8> {
    bob.store_all();
    bob.to_server.clear();
    let within = Duration::ZERO;
    bob.feed(Input::Order(Order::Ask { within }));
    bob.feed(Input::Timeout);
    let asked = bob.to_server.iter().rfind(|it| type_of(it) == Some(1));
    let asked = asked.expect("it asks at once");
    message_in(asked).expect("a datagram").to_vec()
}

fn sealed(request: &[u8]) -> SealedAsk<'_> {
    match Message::decode(request) {
        Ok(Message::KeyReq {
            request: KeyReq::Psk(ask),
            ..
        }) => ask,
        other => panic!("{other:?}"),
    }
}

/// The group's key of that epoch and generation, stated a second after the founding.
fn key(epoch: u32, at: u32) -> KeyDistContents {
    let stated = Stated::at(1, at);
    KeyDistContents {
        search_key: None,
        key: master(epoch, at),
        activate_at: stated.activate_at,
        cadence: None,
        lease_end: Some(stated.issued_at.plus(stated.lease)),
    }
}

/// The answer to `request` as `change` would have it.
fn answer_to(
    fleet: &mut Fleet,
    signer: &SigningKey,
    (request, wrap): (&[u8], &WrapKey),
    change: impl FnOnce(&mut Grant),
) -> Vec<u8> {
    let asked = sealed(request)
        .open(wrap, None)
        .expect("under its wrap key");
    let mut grant = Grant {
        nonce: asked.nonce,
        time: FOUNDED.plus(1),
        g: generation(0),
        keys: vec![key(8, 0)],
        gone: Vec::new(),
        more: false,
        first: None,
        package: None,
    };
    change(&mut grant);
    let line = Line {
        suite: SharingSuite::Psk,
        wrap,
    };
    grant
        .seal(line, &RequestHash::of(request), signer, &mut fleet.rng)
        .0
}

/// Answers what bob asked, as `change` would have it, signed by `signer`; for what it was dropped.
fn answer(
    (fleet, bob): (&mut Fleet, &mut Driven),
    signer: &SigningKey,
    change: impl FnOnce(&mut Grant),
) -> Option<DropReason> {
    let request = ask(bob);
    let wrap = bob.user().asking_key().duplicate();
    let message = answer_to(fleet, signer, (&request, &wrap), change);
    let before = bob.machine.drops.clone();
    bob.feed(Input::FromServer(&marked(&message)));
    let dropped = DropReason::ALL.iter().copied();
    let mut dropped = dropped.filter(|&it| bob.machine.drops.of(it) > before.of(it));
    dropped.next()
}

fn keys_key(fleet: &Fleet) -> SigningKey {
    SigningKey::from_seed(fleet.record.keys.seed().duplicate())
}

#[test]
fn an_answer_of_the_server_brings_the_key_that_is_newer() {
    let (mut fleet, mut bob) = fleet();
    let signer = keys_key(&fleet);
    assert_eq!(answer((&mut fleet, &mut bob), &signer, |_| ()), None);
    assert_eq!(bob.epoch().get(), 8);
}

/// W-04: forged answers to an open request cost a bounded number of signature checks, out of the same
/// budget as frames; the true one is taken a second later.
#[test]
fn a_flood_of_forged_answers_costs_a_bounded_number_of_signature_checks() {
    let (mut fleet, mut bob) = fleet();
    bob.wait(1);
    let request = ask(&mut bob);
    let wrap = bob.user().asking_key().duplicate();
    let signer = keys_key(&fleet);
    let genuine = marked(&answer_to(&mut fleet, &signer, (&request, &wrap), |_| ()));
    let drops = |bob: &Driven, reason| bob.machine.drops.of(reason);
    let mut forged = genuine.clone();
    let end = forged.len() - 2;
    for n in 0..1100u16 {
        forged[end..].copy_from_slice(&n.to_be_bytes());
        bob.feed(Input::FromServer(&forged));
    }
    assert_eq!(drops(&bob, DropReason::BadSignature), 200);

    bob.wait(1);
    let mut frame = fleet.renew(7, Stated::at(10, 1));
    let end = frame.len() - 2;
    for n in 0..1100u16 {
        frame[end..].copy_from_slice(&n.to_be_bytes());
        bob.feed(Input::Datagram(&frame));
    }
    let spent = drops(&bob, DropReason::VerifyBudget);
    bob.feed(Input::FromServer(&genuine));
    assert_eq!(drops(&bob, DropReason::VerifyBudget), spent + 1);
    assert_eq!(bob.epoch().get(), 7);

    bob.wait(1);
    bob.feed(Input::FromServer(&genuine));
    assert_eq!(bob.epoch().get(), 8);
}

/// The nonce ties an answer to the request also for who would hash two requests alike.
#[test]
fn an_answer_with_another_nonce_is_none() {
    let (mut fleet, mut bob) = fleet();
    let signer = keys_key(&fleet);
    let other = |grant: &mut Grant| grant.nonce[0] ^= 1;
    let dropped = answer((&mut fleet, &mut bob), &signer, other);
    assert_eq!(
        (dropped, bob.epoch().get()),
        (Some(DropReason::NotAsked), 7)
    );
}

/// KR-002: of a stolen beat or erase key no master key is taken.
#[test]
fn an_answer_that_a_key_of_another_class_signed_brings_nothing() {
    for is_beat in [true, false] {
        let (mut fleet, mut bob) = fleet();
        let stolen = if is_beat {
            &fleet.record.beat
        } else {
            &fleet.erase
        };
        let stolen = SigningKey::from_seed(stolen.seed().duplicate());
        let dropped = answer((&mut fleet, &mut bob), &stolen, |_| ());
        assert_eq!(dropped, Some(DropReason::WrongClass), "{is_beat}");
        assert_eq!(bob.epoch().get(), 7, "{is_beat}");
    }
    let (mut fleet, mut bob) = fleet();
    let stranger = SigningKey::from_seed(fleet.wrap_key(9).secret().duplicate());
    let dropped = answer((&mut fleet, &mut bob), &stranger, |_| ());
    assert_eq!(dropped, Some(DropReason::UnknownSigner));
    assert_eq!(bob.epoch().get(), 7);
}

/// KR-008: a stolen keys key writes no epoch and no generation beyond what it may claim.
#[test]
fn keys_beyond_the_bound_of_their_signer_are_not_taken_and_the_others_are() {
    let (mut fleet, mut bob) = fleet();
    let signer = keys_key(&fleet);
    for beyond in [(u32::MAX, 0), (8, 1 << 30)] {
        let dropped = answer((&mut fleet, &mut bob), &signer, |grant| {
            grant.keys = vec![key(beyond.0, 0)];
            let held = &grant.keys[0].key;
            let (secret, epoch) = (held.secret().duplicate(), held.epoch());
            let at = generation(beyond.1);
            grant.keys[0].key = crate::keys::MasterKey::new(group(), epoch, at, secret);
        });
        assert_eq!(dropped, Some(DropReason::AboveBound), "{beyond:?}");
        assert_eq!(bob.epoch().get(), 7, "{beyond:?}");
    }
}

/// KR-005: an answer moves G no further than the root's schedule allows its signer.
#[test]
fn an_answer_with_an_absurd_g_moves_nothing() {
    let (mut fleet, mut bob) = fleet();
    let signer = keys_key(&fleet);
    let key_set = &bob.machine.key_set;
    let listed = key_set.first_of(SignerClass::Keys).expect("it is listed");
    let bound = key_set.fleet_schedule.bound(listed.expires);
    let absurd = |grant: &mut Grant| grant.g = bound.plus(1);
    let dropped = answer((&mut fleet, &mut bob), &signer, absurd);
    assert_eq!(dropped, Some(DropReason::AboveBound));
    assert_eq!(bob.machine.g, generation(0));
    assert_eq!(bob.epoch().get(), 7);
}

/// KR-004: an answer that says a time at which its signer was not valid is none.
#[test]
fn an_answer_from_outside_its_signers_time_is_none() {
    let (mut fleet, mut bob) = fleet();
    let signer = keys_key(&fleet);
    let late = |grant: &mut Grant| grant.time = FOUNDED.plus(31 * 86_400);
    let dropped = answer((&mut fleet, &mut bob), &signer, late);
    assert_eq!(dropped, Some(DropReason::SignerExpired));
    assert_eq!(bob.epoch().get(), 7);
}

/// KR-360, KR-004: nor is one that a key signed whose end is past, whatever time it says; also of a
/// terminal that has heard no beacon since it began.
#[test]
fn an_answer_by_a_key_whose_end_is_past_is_none() {
    for has_time in [true, false] {
        let (mut fleet, warm) = fleet();
        let mut bob = if has_time { warm } else { warm.restarted() };
        let signer = keys_key(&fleet);
        bob.wait(31 * 86_400);
        assert_eq!(bob.machine.time().is_some(), has_time);
        let dropped = answer((&mut fleet, &mut bob), &signer, |_| ());
        assert_eq!(dropped, Some(DropReason::SignerExpired), "{has_time}");
        assert_eq!(bob.epoch().get(), 7, "{has_time}");
    }
}

/// KR-006: a signing key that speaks for other groups neither brings this one's key nor takes it.
#[test]
fn an_answer_speaks_for_the_groups_of_its_signer_only() {
    let mut fleet = Fleet::new();
    let psk = Suites::new(&[SharingSuite::Psk]);
    fleet.record.key_set.limits.suites = psk.expect("one");
    fleet.sign_key_set();
    let mut bob = fleet.member();
    let other = GroupNumber::new(2).expect("not 0");
    let limited = fleet.next_key_set(1, |key_set| {
        let listed = key_set.keys.iter_mut();
        let keys = listed.into_iter().find(|it| it.class == SignerClass::Keys);
        keys.expect("one").groups = vec![other];
    });
    assert_eq!(bob.hear(&limited), None);
    let signer = keys_key(&fleet);
    let brings = answer((&mut fleet, &mut bob), &signer, |_| ());
    assert_eq!(brings, Some(DropReason::GroupNotAllowed));
    assert_eq!(bob.epoch().get(), 7);
    let takes = |grant: &mut Grant| (grant.keys, grant.gone) = (Vec::new(), vec![group()]);
    answer((&mut fleet, &mut bob), &signer, takes);
    assert!(bob.machine.holds(group()), "it is another's to take");
}

/// who is a member no more is told so, and holds the key no longer.
#[test]
fn a_group_that_is_gone_is_left() {
    let (mut fleet, mut bob) = fleet();
    let signer = keys_key(&fleet);
    let takes = |grant: &mut Grant| (grant.keys, grant.gone) = (Vec::new(), vec![group()]);
    assert_eq!(answer((&mut fleet, &mut bob), &signer, takes), None);
    assert!(!bob.machine.holds(group()));
    bob.store_all();
    assert!(!bob.restarted().machine.holds(group()), "for good");
}
