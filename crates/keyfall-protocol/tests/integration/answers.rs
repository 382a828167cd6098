//! What counts in key sharing and when: lengths, the ACK, suites (FORMATS section 8).

use std::time::Duration;

use keyfall_protocol::DropReason;
use keyfall_protocol::ids::TerminalNumber;
use keyfall_protocol::server;
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::message::{KeyDis, Message, marked, type_of};
use keyfall_protocol::terminal::{self, AskOutcome};

use crate::sharing::{ACK, ALL, COMMAND, Fate, KEY_DIS, KEY_REQ, Pair};

/// A request is as long as its suite's, whatever is asked; the numbers are those of
/// docs/PROTOCOL.md section 14.
#[test]
fn a_request_has_the_length_of_its_suite_whatever_it_holds() {
    for (suite, lengths) in [
        (SharingSuite::Psk, &[256][..]),
        (SharingSuite::Hpke, &[244]),
        (SharingSuite::HpkePq, &[1123, 1123, 377]),
    ] {
        for groups in [0, 1, 3] {
            let mut pair = Pair::new(&[suite], 1);
            for _ in 0..groups {
                pair.group(&[1]);
            }
            pair.ask(0);
            pair.run(Duration::from_secs(5));
            pair.let_pass(|_, _, _| Fate::Lost);
            pair.ask(0);
            pair.run(Duration::from_millis(100));
            let sent = pair.air.iter().filter(|(up, _)| *up);
            let found: Vec<_> = sent.map(|(_, octets)| octets.len()).collect();
            assert_eq!(found, lengths, "{suite:?}, {groups} groups");
        }
    }
}

/// KR-365: nothing of the fleet changes, and nothing counts as confirmed, before an ACK.
#[test]
fn nothing_changes_at_the_server_before_an_ack() {
    for suite in ALL {
        let mut pair = Pair::new(&[suite], 1);
        let group = pair.group(&[1]);
        let wrap = |pair: &Pair| {
            let record = pair.server.terminals().next().expect("one");
            (*record.wrap.secret().expose(), record.mixed_at)
        };
        let before = wrap(&pair);
        pair.let_pass(|_, _, octets| match type_of(octets) {
            Some(ACK) => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.ask(0);
        pair.run(Duration::from_millis(300));
        let told = suite == SharingSuite::Psk;
        assert_eq!(pair.is_current(0, group), told, "{suite:?}: KR-371");
        let terminal = TerminalNumber::new(1).expect("not 0");
        assert_eq!(wrap(&pair), before, "{suite:?}");
        assert_eq!(pair.server.confirmed(terminal, group), None, "{suite:?}");
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.ask(0);
        pair.run(Duration::from_secs(60));
        let after = wrap(&pair);
        let mixes = suite != SharingSuite::Psk;
        assert_eq!(after.1.is_some(), mixes, "{suite:?}: first contact");
        assert_eq!(after.0 != before.0, mixes, "{suite:?}");
        assert!(pair.server.confirmed(terminal, group).is_some());
    }
}

/// who hears no carrier learns the time by asking, in every suite, and so may send; who knows it
/// is told nothing more.
#[test]
fn who_asks_without_the_time_is_told_it() {
    for suite in ALL {
        let mut pair = Pair::new(&[suite], 1);
        let group = pair.group(&[1]);
        pair.ask(0);
        pair.run(Duration::from_secs(5));
        pair.restart(0);
        let knows = |pair: &Pair| pair.askers[0].machine.time().is_some();
        assert!(!knows(&pair), "{suite:?}");
        pair.ask(0);
        pair.run(Duration::from_secs(1));
        assert!(knows(&pair), "{suite:?}");
        assert!(pair.askers[0].machine.send_key(group).is_some());
        let commands = |pair: &Pair| pair.types().iter().filter(|&&it| it == COMMAND).count();
        let before = commands(&pair);
        pair.ask(0);
        pair.run(Duration::from_secs(1));
        assert_eq!(commands(&pair), before, "{suite:?}");
    }
}

/// KR-399: where that is lost, it is asked for again before long; where it came, nothing is.
#[test]
fn who_still_lacks_the_time_asks_again() {
    for loses in [false, true] {
        let mut pair = Pair::new(&[SharingSuite::Hpke], 1);
        pair.group(&[1]);
        pair.ask(0);
        pair.run(Duration::from_secs(5));
        pair.restart(0);
        pair.let_pass(move |_, up, octets| {
            let told = !up && type_of(octets) == Some(COMMAND);
            if loses && told {
                Fate::Lost
            } else {
                Fate::Passes
            }
        });
        pair.ask(0);
        pair.run(Duration::from_secs(5));
        let knows = |pair: &Pair| pair.askers[0].machine.time().is_some();
        assert_eq!(knows(&pair), !loses);
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.run(Duration::from_secs(20));
        assert!(knows(&pair));
        assert_eq!(pair.air.is_empty(), !loses, "{:?}", pair.types());
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.run(Duration::from_secs(60));
        assert!(pair.air.is_empty(), "{:?}", pair.types());
    }
}

/// KR-366, INVARIANT 2: what an ACK confirms is durable.
#[test]
fn an_ack_waits_for_the_store() {
    let mut pair = Pair::new(&[SharingSuite::Psk], 1);
    pair.group(&[1]);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    pair.group(&[1]);
    pair.stores = false;
    pair.ask(0);
    pair.run(Duration::from_millis(300));
    assert_eq!(pair.askers[0].machine.asks(), "expects store");
    let acks = |pair: &Pair| pair.types().iter().filter(|&&it| it == ACK).count();
    let before = acks(&pair);
    pair.stores = true;
    let id = pair.unstored.take().expect("asked for");
    pair.feed(0, terminal::Input::Stored(id));
    assert_eq!(acks(&pair), before + 1);
}

/// KR-371, INVARIANT 2: while the mixed key is being stored nobody is answered, under that key or the one
/// before, nor told that he is not known.
#[test]
fn nobody_is_answered_while_a_mixed_key_is_being_stored() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 1);
    let group = pair.group(&[1]);
    pair.copy(0);
    pair.server_stores = false;
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.ask(0);
    pair.run(Duration::from_millis(100));
    pair.ask(1);
    pair.run(Duration::from_secs(2));
    let types = pair.types();
    let ack = types.iter().position(|&it| it == ACK).expect("it mixed");
    let mut after: Vec<_> = types[ack + 1..].to_vec();
    // Who asked without the time is told it.
    after.retain(|&it| it != COMMAND);
    assert!(after.len() >= 4, "both ask, and again: {types:?}");
    assert!(after.iter().all(|&it| it == KEY_REQ), "{types:?}");
    pair.server_stores = true;
    let id = pair.server_unstored.take().expect("asked for");
    pair.feed_server(server::Input::Stored(id));
    pair.run(Duration::from_secs(60));
    assert!(pair.is_current(0, group) && !pair.is_current(1, group));
    let ended = [0, 1].map(|place| pair.askers[place].ended.first().copied());
    assert_eq!(
        ended,
        [Some(AskOutcome::Current), Some(AskOutcome::NotKnown)]
    );
}

/// KR-368: whoever wishes for a suite that the root does not list is written down, once.
#[test]
fn a_wish_for_another_suite_stands_in_the_audit_once() {
    let mut strict = Pair::new(&[SharingSuite::Hpke], 1);
    let mut weak = Pair::new(&[SharingSuite::Psk], 1);
    let from = strict.askers[0].address;
    for _ in 0..2 {
        weak.let_pass(|_, _, _| Fate::Lost);
        weak.ask(0);
        let request = weak.air.pop().expect("it asked").1;
        strict.feed_server(server::Input::Datagram {
            from,
            octets: request,
        });
        weak.run(Duration::from_secs(200));
    }
    assert_eq!(strict.server.desk_counts().downgrades, 2);
    let noted = strict.audit.iter().filter(|it| it.action == "key request");
    let noted: Vec<_> = noted.collect();
    assert_eq!(noted.len(), 1);
    assert_eq!(noted[0].actor, "terminal 1");
    assert_eq!(
        noted[0].outcome,
        "refused: suite psk is not listed in the KEYSET"
    );
}

/// T-07, KR-361: somebody on the way answers in another suite than was asked in.
#[test]
fn an_answer_in_another_suite_is_refused() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 1);
    let group = pair.group(&[1]);
    pair.let_pass(|_, _, octets| match type_of(octets) {
        Some(KEY_DIS) => Fate::Lost,
        _ => Fate::Passes,
    });
    pair.ask(0);
    pair.run(Duration::from_millis(100));
    let sent = pair.air.iter().find(|(_, it)| type_of(it) == Some(KEY_DIS));
    let answer = sent.expect("it was answered").1.clone();
    let Ok(Message::KeyDis { reference, .. }) = Message::decode_datagram(&answer) else {
        panic!("a KEY-DIS");
    };
    let of = DropReason::OtherSuite;
    let before = pair.askers[0].machine.drops().of(of);
    let signed = b"anything";
    let bare = |suite| KeyDis::Psk { suite, signed };
    let stronger = KeyDis::Hpke {
        suite: SharingSuite::HpkePq,
        enc: &[1; 1120],
        ct: &[1; 16],
    };
    for distribution in [bare(SharingSuite::Psk), bare(SharingSuite::Hpke), stronger] {
        let answer = Message::KeyDis {
            reference,
            distribution,
        };
        let answer = marked(&answer.encode());
        pair.feed(0, terminal::Input::FromServer(&answer));
    }
    assert_eq!(pair.askers[0].machine.drops().of(of), before + 3);
    assert!(!pair.is_current(0, group));
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.feed(0, terminal::Input::FromServer(&answer));
    assert_eq!(pair.types(), [ACK], "the true answer still counts");
    pair.run(Duration::from_secs(5));
    assert!(pair.is_current(0, group));
}
