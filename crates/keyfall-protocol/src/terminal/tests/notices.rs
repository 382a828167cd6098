//! NOTIFY: who comes, and how often (REQUIREMENTS ).

use std::time::Duration;

use super::driven::Driven;
use super::fixture::{Fleet, Stated, group, notify_body, terminal_number};
use crate::command::Target;
use crate::ids::GroupNumber;
use crate::stats::DropReason;
use crate::terminal::Event;

/// How often it was told to come since the last look.
fn told(bob: &mut Driven) -> usize {
    let spread = Duration::from_secs(2);
    let notified = |event: &Event| *event == Event::Notified { spread };
    let count = bob.events.iter().filter(|event| notified(event)).count();
    bob.events.clear();
    count
}

#[test]
fn a_notify_calls_only_those_who_lack_something() {
    let mut fleet = Fleet::new();
    let not_newer = Some(DropReason::NotNewer);
    for (listed, lacks) in [
        (&[][..], true),
        (&[(7, 0)], false),
        (&[(6, 9)], false),
        (&[(7, 1)], true),
        (&[(8, 0)], true),
        (&[(7, 0), (8, 0)], true),
    ] {
        let mut bob = fleet.member();
        let heard = bob.hear(&fleet.notify(Target::All, listed, 1));
        assert_eq!(heard, if lacks { None } else { not_newer }, "{listed:?}");
        assert_eq!(told(&mut bob), usize::from(lacks), "{listed:?}");
        assert_eq!(bob.asked, [], "a hint changes nothing");
    }
}

/// A fleet of many groups: whoever is in another one stays where it is, but where it is named.
#[test]
fn a_notify_is_for_whom_it_names() {
    let mut fleet = Fleet::new();
    let own = Target::Terminal(terminal_number(1));
    let other = Target::Terminal(terminal_number(2));
    let other_group = Target::Group(GroupNumber::new(2).expect("not 0"));
    let not_addressed = Some(DropReason::NotAddressed);
    for (target, heard) in [
        (own, None),
        (Target::Group(group()), None),
        (Target::All, None),
        (other, not_addressed),
        (Target::Handles, not_addressed),
        (other_group, Some(DropReason::NotHeld)),
    ] {
        let mut bob = fleet.member();
        assert_eq!(bob.hear(&fleet.notify(target, &[], 1)), heard);
        assert_eq!(told(&mut bob), usize::from(heard.is_none()));
    }
    // Of a group that it does not hold.
    for (target, calls) in [(own, 1), (Target::All, 0)] {
        let mut stranger = fleet.terminal();
        stranger.hear(&fleet.notify(target, &[(7, 0)], 1));
        assert_eq!(told(&mut stranger), calls);
    }
}

/// Neither a recording nor a flood makes a terminal come again: once in ten seconds, and once for
/// each that the server issued.
#[test]
fn a_recorded_notify_calls_nobody_again() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    let not_newer = Some(DropReason::NotNewer);
    let first = fleet.notify(Target::All, &[], 1);
    assert_eq!(bob.hear(&first), None);
    assert_eq!(bob.hear(&first), not_newer);
    let second = fleet.notify(Target::All, &[], 2);
    assert_eq!(bob.hear(&second), not_newer, "too soon");
    bob.wait(10);
    assert_eq!(bob.hear(&first), not_newer, "a recording");
    assert_eq!(bob.hear(&second), None, "now it counts");
    bob.wait(10);
    assert_eq!(bob.hear(&second), not_newer);
    assert_eq!(told(&mut bob), 2);
}

/// A stolen beat key that issued one in the future blocks nobody for longer than it is listed; one
/// that may not speak for a group lists it in vain.
#[test]
fn a_notify_outlives_no_signer() {
    let mut fleet = Fleet::new();
    let mut bob = fleet.member();
    assert_eq!(bob.hear(&fleet.notify(Target::All, &[], 86_400)), None);
    bob.wait(10);
    let honest = Some(DropReason::NotNewer);
    assert_eq!(bob.hear(&fleet.notify(Target::All, &[], 10)), honest);
    fleet.replace_key(crate::command::SignerClass::Beat, 11);
    bob.hear(&fleet.next_key_set(11, |_| ()));
    assert_eq!(bob.hear(&fleet.notify(Target::All, &[], 12)), None);

    let other = GroupNumber::new(2).expect("not 0");
    let next = fleet.next_key_set(13, |key_set| key_set.keys[0].groups = vec![other]);
    bob.hear(&next);
    bob.wait(10);
    let command = fleet.command(Target::All, notify_body(&[(8, 0)]), Stated::at(14, 0));
    let frame = fleet.record.beat.sign(&command);
    assert_eq!(bob.hear(&frame), Some(DropReason::NotNewer));
    assert_eq!(told(&mut bob), 2);
}
