//! What recordings, altered messages and those that are not listed get from server and terminal.

use core::net::SocketAddr;
use std::time::Duration;

use keyfall_protocol::ids::TerminalNumber;
use keyfall_protocol::server::{self, Order};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::message::{Message, type_of};
use keyfall_protocol::terminal::{self, AskOutcome};

use crate::sharing::{ACK, ALL, COOKIE, Fate, KEY_DIS, KEY_REQ, Pair};

/// W-14, KR-364: before a cookie no answer is longer than what it answers, and a recorded request
/// is answered by a cookie.
#[test]
fn a_recorded_request_from_elsewhere_gets_no_long_answer() {
    let mut pair = Pair::new(&[SharingSuite::Psk], 1);
    for _ in 0..8 {
        pair.group(&[1]);
    }
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    let request = pair
        .air
        .iter()
        .find(|(up, _)| *up)
        .expect("it asked")
        .1
        .clone();
    let answers: usize = pair
        .air
        .iter()
        .filter(|(up, _)| !up)
        .map(|(_, o)| o.len())
        .sum();
    assert!(
        answers > request.len(),
        "the difference is longer than the request"
    );
    pair.let_pass(|_, _, _| Fate::Passes);
    let from = SocketAddr::from(([203, 0, 113, 9], 9));
    pair.feed_server(server::Input::Datagram {
        from,
        octets: request.clone(),
    });
    assert_eq!(pair.types(), [COOKIE]);
    assert!(pair.air[0].1.len() <= request.len());
}

/// KR-364: nor does a recording whose time is still near, of a request that was answered without a
/// cookie.
#[test]
fn a_fresh_recording_from_elsewhere_gets_no_long_answer() {
    let mut pair = Pair::new(&[SharingSuite::Psk], 1);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    for _ in 0..8 {
        pair.group(&[1]);
    }
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.ask(0);
    pair.run(Duration::from_secs(1));
    let types = pair.types();
    assert!(
        types.starts_with(&[KEY_REQ, KEY_DIS]),
        "no cookie was asked: {types:?}"
    );
    let (request, answer) = (pair.air[0].1.clone(), pair.air[1].1.len());
    assert!(answer > request.len());
    let from = SocketAddr::from(([203, 0, 113, 9], 9));
    pair.let_pass(|_, _, _| Fate::Passes);
    for _ in 0..3 {
        let octets = request.clone();
        pair.feed_server(server::Input::Datagram { from, octets });
    }
    assert_eq!(pair.types(), [COOKIE; 3]);
    assert!(pair.air.iter().all(|(_, it)| it.len() <= request.len()));
}

/// INVARIANT 6: who is excluded is a stranger at the desk, in whatever suite it asks.
#[test]
fn an_excluded_terminal_is_not_answered() {
    for suite in ALL {
        let mut pair = Pair::new(&[suite], 2);
        let group = pair.group(&[1, 2]);
        pair.ask(0);
        pair.run(Duration::from_secs(5));
        assert!(pair.is_current(0, group), "{suite:?}");
        let terminals = vec![TerminalNumber::new(1).expect("not 0")];
        pair.order(Order::Exclude { terminals }).expect("it may be");
        let (acks, answers) = (
            pair.server.desk_counts().acks,
            pair.server.desk_counts().answers,
        );
        pair.ask(0);
        pair.run(Duration::from_secs(60));
        let counts = pair.server.desk_counts();
        assert_eq!((counts.acks, counts.answers), (acks, answers), "{suite:?}");
        assert_eq!(
            pair.askers[0].ended.last(),
            Some(&AskOutcome::NotKnown),
            "{suite:?}"
        );
        assert!(!pair.is_current(0, group), "{suite:?}");
    }
}

/// KR-362: the suites of the KEYSET, and no other.
#[test]
fn a_suite_that_the_root_does_not_list_is_not_answered() {
    let mut strict = Pair::new(&[SharingSuite::Hpke], 1);
    let mut weak = Pair::new(&[SharingSuite::Psk], 1);
    // The same names and draws make the same keys: the weak one's request would be genuine.
    strict.group(&[1]);
    weak.group(&[1]);
    weak.ask(0);
    let request = weak.air[0].1.clone();
    let from = strict.askers[0].address;
    strict.let_pass(|_, _, _| Fate::Passes);
    strict.feed_server(server::Input::Datagram {
        from,
        octets: request,
    });
    assert!(strict.air.is_empty(), "{:?}", strict.types());
    assert_eq!(strict.server.desk_counts().downgrades, 1);
}

/// T-08: one altered octet in any message of the sequence and nothing comes of it.
#[test]
fn altered_messages_are_met_with_silence_and_move_nothing() {
    for suite in [SharingSuite::Psk, SharingSuite::Hpke] {
        let mut pair = Pair::new(&[suite], 1);
        let group = pair.group(&[1]);
        pair.let_pass(|_, _, octets| match type_of(octets) {
            Some(KEY_DIS | ACK) => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.ask(0);
        pair.run(Duration::from_millis(100));
        let answer = pair.air.last().expect("it was sent").1.clone();
        assert_eq!(type_of(&answer), Some(KEY_DIS), "{suite:?}");
        for place in 0..answer.len() {
            let mut altered = answer.clone();
            altered[place] ^= 1;
            // Strangers' datagrams have a budget.
            pair.now = pair.now.plus(Duration::from_millis(10));
            pair.feed(0, terminal::Input::FromServer(&altered));
            assert!(!pair.is_current(0, group), "{suite:?} octet {place}");
            assert!(!pair.types().contains(&ACK), "{suite:?} octet {place}");
        }
        pair.feed(0, terminal::Input::FromServer(&answer));
        let mut acks = pair.air.iter().filter(|(_, it)| type_of(it) == Some(ACK));
        let ack = acks
            .next_back()
            .expect("the true answer still counts")
            .1
            .clone();
        let told = suite == SharingSuite::Psk;
        assert_eq!(pair.is_current(0, group), told, "{suite:?}: KR-371");
        let from = pair.askers[0].address;
        for place in 0..ack.len() {
            let mut altered = ack.clone();
            altered[place] ^= 1;
            pair.feed_server(server::Input::Datagram {
                from,
                octets: altered,
            });
        }
        assert_eq!(pair.server.desk_counts().acks, 0);
        pair.feed_server(server::Input::Datagram { from, octets: ack });
        assert_eq!(pair.server.desk_counts().acks, 1);
    }
}

/// T-09: an answer of yesterday to the same terminal is no answer to today's request.
#[test]
fn a_recorded_answer_answers_no_other_request() {
    let mut pair = Pair::new(&[SharingSuite::Psk], 1);
    let group = pair.group(&[1]);
    pair.let_pass(|_, up, _| if up { Fate::Passes } else { Fate::Lost });
    pair.ask(0);
    pair.run(Duration::from_millis(100));
    let yesterday = pair.air[1].1.clone();
    pair.restart(0);
    pair.let_pass(|_, _, _| Fate::Lost);
    pair.ask(0);
    pair.feed(0, terminal::Input::FromServer(&yesterday));
    assert!(!pair.is_current(0, group));
}

/// T-05: who holds a copied device key cannot feed its owner keys, and a server's own message does
/// not come back as an answer to itself.
#[test]
fn nothing_without_the_servers_signature_is_taken() {
    let mut pair = Pair::new(&[SharingSuite::Psk], 1);
    let mut other = Pair::new(&[SharingSuite::Psk], 1);
    let group = pair.group(&[1]);
    other.group(&[1]);
    pair.let_pass(|_, _, _| Fate::Lost);
    pair.ask(0);
    let request = pair.air[0].1.clone();
    // Reflected.
    pair.feed(0, terminal::Input::FromServer(&request));
    let Ok(Message::KeyReq { .. }) = Message::decode_datagram(&request) else {
        panic!("a request");
    };
    assert!(!pair.is_current(0, group));
}
