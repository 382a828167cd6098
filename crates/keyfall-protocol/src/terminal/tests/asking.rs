//! Asking by itself: what makes a terminal ask, and which of its two wrap keys it asks under and
//! listens with after a first contact (FORMATS section 8).

use std::time::Duration;

use super::driven::Driven;
use super::fixture::{Fleet, Stated, halt};
use crate::command::Target;
use crate::keys::{Secret, WrapKey};
use crate::sharing::message::type_of;
use crate::stats::DropReason;
use crate::terminal::{AskOutcome, Event, Input, Order};

/// KEY-REQs since the last look.
fn asked(bob: &mut Driven) -> usize {
    let sent = std::mem::take(&mut bob.to_server);
    sent.iter().filter(|it| type_of(it) == Some(1)).count()
}

/// There is a way to the server, where nobody answers; the first sequence is over.
fn with_a_way(bob: &mut Driven) {
    let within = Duration::ZERO;
    bob.feed(Input::Order(Order::Ask { within }));
    bob.feed(Input::Timeout);
    assert_eq!(asked(bob), 1);
    for _ in 0..40 {
        bob.wait(1);
    }
    let ended = Event::AskEnded {
        outcome: AskOutcome::NoAnswer,
    };
    assert!(bob.events.contains(&ended), "{:?}", bob.events);
    assert_eq!(asked(bob), 5, "six tries in all");
    assert_eq!(bob.machine.asks(), "rest");
}

#[test]
fn a_notify_and_a_start_with_an_unknown_key_make_a_terminal_ask() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    assert_eq!(bob.hear(&fleet.notify(Target::All, &[(7, 1)], 1)), None);
    assert_eq!(asked(&mut bob), 0, "there is no way to the server");
    with_a_way(&mut bob);
    bob.wait(5);
    assert_eq!(asked(&mut bob), 0, "it rests");
    let notify = fleet.notify(Target::All, &[(7, 1)], 50);
    assert_eq!(bob.hear(&notify), None);
    bob.wait(2);
    assert_eq!(asked(&mut bob), 1, "within the spread");

    let mut bob = fleet.member();
    with_a_way(&mut bob);
    bob.hear(&fleet.start(halt(5, (8, 0), 60), 50));
    bob.feed(Input::Timeout);
    assert_eq!(asked(&mut bob), 1, "at once");
}

#[test]
fn a_locked_terminal_asks_after_the_unlock() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member().restarted_locked();
    let within = Duration::ZERO;
    bob.feed(Input::Order(Order::Ask { within }));
    bob.wait(10);
    bob.store_all();
    assert_eq!(asked(&mut bob), 0);
    bob.unlock().expect("its own");
    bob.feed(Input::Timeout);
    assert_eq!(asked(&mut bob), 1);
    bob.feed(Input::Lock);
    bob.wait(60);
    assert_eq!(asked(&mut bob), 0, "nothing is repeated without the key");
}

/// Terminal 1 mixed fresh octets into its wrap key, and the ACK may be lost.
fn mixed(bob: &mut Driven, held: &WrapKey) -> WrapKey {
    let mixed = held.mix(&Secret::init_with(|into| into.fill(9)));
    let user = bob.machine.user.as_mut().expect("unlocked");
    user.mix(held, mixed.duplicate());
    bob.machine.dirty = true;
    bob.feed(Input::Timeout);
    bob.store_all();
    mixed
}

/// KR-367, INVARIANT 2: no power cut between the store and the ACK makes a terminal deaf.
#[test]
fn the_key_before_the_mixed_one_opens_until_the_server_has_shown_that_it_knows_the_mixed_one() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let held = fleet.wrap_key(1);
    let mixed = mixed(&mut bob, &held);
    let mut bob = bob.restarted();
    assert_eq!(bob.user().asking_key().secret(), mixed.secret());
    assert!(bob.user().has_key_before());
    assert_eq!(bob.hear(&fleet.time(1)), None);
    assert_eq!(bob.hear(&fleet.key_dist(8, Stated::at(2, 0))), None);
    assert_eq!(bob.epoch().get(), 8, "under the key before");
    let user = bob.machine.user.as_mut().expect("unlocked");
    assert!(user.confirm_key(&mixed));
    bob.machine.dirty = true;
    bob.feed(Input::Timeout);
    bob.store_all();
    let mut bob = bob.restarted();
    assert!(!bob.user().has_key_before(), "it is gone for good");
    bob.hear(&fleet.time(3));
    let refused = bob.hear(&fleet.key_dist(9, Stated::at(4, 0)));
    assert_eq!(refused, Some(DropReason::NotAddressed));
    let body = fleet.key_dist_body(9, Stated::at(5, 0), &[&mixed]);
    let command = fleet.command(Target::Handles, body, Stated::at(5, 0));
    assert_eq!(bob.hear(&fleet.record.keys.sign(&command)), None);
    assert_eq!(bob.epoch().get(), 9, "under the mixed one");
}

/// The server never got the ACK: it is asked under the key before, and where it answers under that,
/// the mixed key is forgotten.
#[test]
fn a_server_that_does_not_know_the_mixed_key_is_asked_under_the_one_before() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let held = fleet.wrap_key(1);
    mixed(&mut bob, &held);
    let user = bob.machine.user.as_mut().expect("unlocked");
    assert!(user.turn_to_key_before());
    assert!(!user.turn_to_key_before(), "there is one only");
    assert_eq!(user.asking_key().secret(), held.secret());
    assert!(user.confirm_key(&held));
    assert_eq!(user.asking_key().secret(), held.secret());
    assert!(user.before().is_none());
}
