//! First contact by a token (FORMATS section 8; REQUIREMENTS ): what goes wrong on the way,
//! and who tries what.

use core::net::SocketAddr;
use std::time::Duration;

use keyfall_protocol::command::{Body, Unverified};
use keyfall_protocol::ids::{Generation, TerminalNumber, UnixSeconds};
use keyfall_protocol::server::{
    Done, Input, Order, PackageSealing, Refusal, SealedFor, TOKEN_LIFE, TerminalRecord,
};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::message::{Message, marked, type_of};
use keyfall_protocol::sharing::pair::{Ask, Line};
use keyfall_protocol::terminal::{AskOutcome, FirstContactError};
use keyfall_protocol::token::Token;

use crate::sharing::{ACK, Fate, KEY_DIS, Pair};

pub(crate) const KEY_REQ: u8 = 1;
pub(crate) const PART: u8 = 7;
const COOKIE: u8 = 2;
pub(crate) const HELLO: u8 = 9;
pub(crate) const INTRODUCTION: u8 = 10;
pub(crate) const FIRST: u16 = 50_001;
const SECOND: u16 = 50_002;

impl Pair {
    pub(crate) fn token_for(&mut self, name: &str, life: u32) -> Token {
        let order = Order::AddTerminal {
            name: name.to_owned(),
            sealing: PackageSealing::ByToken { life },
            wipe_roots: Vec::new(),
        };
        match self.order(order) {
            Ok(Done::Terminal {
                sealed: SealedFor::Token(text),
                package,
                ..
            }) if package.is_empty() => Token::parse(&text).expect("as it was shown"),
            other => panic!("{other:?}"),
        }
    }

    fn record(&self, name: &str) -> &TerminalRecord {
        self.server.terminal_named(name).expect("it was added")
    }

    /// The server and that terminal hold the same wrap key, with fresh octets in it.
    pub(crate) fn agree(&self, place: usize, name: &str) -> bool {
        let record = self.record(name);
        let machine = &self.askers[place].machine;
        machine.identity().number == record.number
            && record.mixed_at.is_some()
            && machine.wrap_key().map(|it| it.1) == Some(record.wrap.fingerprint())
    }

    fn audited(&self, action: &str) -> Vec<&str> {
        let entries = self.audit.iter().filter(|entry| entry.action == action);
        entries.map(|entry| &entry.outcome[..]).collect()
    }
}

fn terminal(n: u32) -> TerminalNumber {
    TerminalNumber::new(n).expect("not 0")
}

/// What was sent since, as types and lengths.
fn shapes(pair: &Pair) -> Vec<(bool, Option<u8>, usize)> {
    let shape = |(up, octets): &(bool, Vec<u8>)| (*up, type_of(octets), octets.len());
    pair.air.iter().map(shape).collect()
}

pub(crate) const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// in every list of suites that has one in which a token counts; the keys of its groups
/// come with it, and the token is used.
#[test]
fn a_terminal_enrols_by_its_token_and_holds_its_keys() {
    for suites in [
        &[SharingSuite::Hpke][..],
        &[SharingSuite::HpkePq],
        &[SharingSuite::HpkePq, SharingSuite::Hpke, SharingSuite::Psk],
        &[SharingSuite::Psk, SharingSuite::Hpke],
    ] {
        let mut pair = Pair::new(suites, 1);
        let token = pair.token_for("dave", TOKEN_LIFE);
        let group = pair.group(&[1, 2]);
        assert!(pair.record("dave").is_pending());
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.arrive(&token, FIRST);
        pair.run(SECONDS(5));
        assert_eq!(pair.askers.len(), 2, "{suites:?}");
        assert_eq!(pair.askers[1].ended, [AskOutcome::Current], "{suites:?}");
        assert!(pair.is_current(1, group), "{suites:?}");
        assert!(pair.agree(1, "dave"), "{suites:?}");
        let record = pair.record("dave");
        assert!(!record.is_pending() && record.token.as_ref().is_some_and(|it| it.key.is_none()));
        // KR-378: and where it was then.
        let from = pair.server.heard_from(record.number).expect("it was heard");
        assert_eq!(
            pair.audited("terminal enrolled"),
            [format!("by its token, which is used now, from {from}")]
        );
        // In the first in which a token counts; hpke-pq goes in parts.
        let first = pair.air.iter().find_map(|(_, octets)| {
            let message = Message::decode_datagram(octets).ok()?;
            if let Message::KeyReq { request, .. } = message {
                Some(request.suite())
            } else {
                None
            }
        });
        let hpke = suites.contains(&SharingSuite::Hpke) && suites[0] != SharingSuite::HpkePq;
        assert!(
            !hpke || first == Some(SharingSuite::Hpke),
            "{suites:?}: {first:?}"
        );
    }
}

/// KR-377: whatever is wrong with a token, the wire shows the same, and the one who comes with it learns
/// one thing.
#[test]
fn a_used_an_ended_an_unknown_and_a_revoked_token_look_alike() {
    for suite in [SharingSuite::Hpke, SharingSuite::HpkePq] {
        let mut seen = Vec::new();
        for case in ["used", "ended", "unknown", "revoked"] {
            let mut pair = Pair::new(&[suite], 0);
            let token = pair.token_for("dave", 60);
            match case {
                "used" => {
                    pair.arrive(&token, FIRST);
                    pair.run(SECONDS(5));
                    assert_eq!(pair.askers[0].ended, [AskOutcome::Current]);
                    pair.run(SECONDS(60));
                }
                "ended" => pair.run(SECONDS(62)),
                "revoked" => {
                    let terminals = vec![terminal(1)];
                    pair.order(Order::Exclude { terminals }).expect("it may be");
                    pair.run(SECONDS(5));
                }
                _ => pair.run(SECONDS(5)),
            }
            let token = match case {
                "unknown" => Token::random(&pair.server.fleet().root, &mut pair.rng),
                _ => token,
            };
            let before = pair.askers.len();
            pair.let_pass(|_, _, _| Fate::Passes);
            pair.newcomers.clear();
            pair.arrive(&token, SECOND);
            pair.run(SECONDS(5));
            assert_eq!(
                pair.newcomers[0].ended,
                Some(FirstContactError::NotKnown),
                "{case}"
            );
            assert_eq!(pair.askers.len(), before, "{case}");
            seen.push(shapes(&pair));
            let told = pair.audited("token");
            let expected: &[&str] = match case {
                "used" => &["refused from 192.0.2.1:50002: it was used before"],
                "ended" => &["refused from 192.0.2.1:50002: it has ended"],
                "revoked" => &["refused from 192.0.2.1:50002: the terminal is excluded"],
                _ => &[],
            };
            assert_eq!(told, expected, "{case}");
        }
        assert!(seen.windows(2).all(|two| two[0] == two[1]), "{seen:?}");
        let types: Vec<_> = seen[0].iter().filter_map(|(_, kind, _)| *kind).collect();
        assert!(
            types.contains(&COOKIE) && !types.contains(&KEY_DIS),
            "{types:?}"
        );
    }
}

/// T-05: loss of every message, and of every two: one terminal, current, and a token that is used once.
#[test]
fn whatever_is_lost_one_terminal_comes_of_one_token() {
    for suite in [SharingSuite::Hpke, SharingSuite::HpkePq] {
        let whole = {
            let mut pair = Pair::new(&[suite], 0);
            let token = pair.token_for("dave", TOKEN_LIFE);
            pair.group(&[1]);
            pair.let_pass(|_, _, _| Fate::Passes);
            pair.arrive(&token, FIRST);
            pair.run(SECONDS(5));
            pair.air.len()
        };
        for first in 0..whole {
            for second in first..whole {
                for fate in [Fate::Lost, Fate::Doubled] {
                    let mut pair = Pair::new(&[suite], 0);
                    let token = pair.token_for("dave", TOKEN_LIFE);
                    let group = pair.group(&[1]);
                    pair.let_pass(move |n, _, _| {
                        if n == first || n == second {
                            fate
                        } else {
                            Fate::Passes
                        }
                    });
                    pair.arrive(&token, FIRST);
                    pair.run(SECONDS(120));
                    let case = format!("{suite:?}: {first} and {second} {fate:?}");
                    assert_eq!(pair.askers.len(), 1, "{case}");
                    assert!(
                        pair.askers[0].ended.contains(&AskOutcome::Current),
                        "{case}"
                    );
                    assert!(pair.is_current(0, group), "{case}");
                    assert!(pair.agree(0, "dave"), "{case}");
                    assert_eq!(pair.audited("terminal enrolled").len(), 1, "{case}");
                }
            }
        }
    }
}

/// KR-378, T-08: of two who come at once the first is answered; the other hears nothing, and then that
/// the token is not taken.
#[test]
fn of_two_with_one_token_the_first_wins_and_the_audit_tells() {
    for suite in [SharingSuite::Hpke, SharingSuite::HpkePq] {
        let mut pair = Pair::new(&[suite], 0);
        let token = pair.token_for("dave", TOKEN_LIFE);
        let group = pair.group(&[1]);
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.stores = false;
        pair.arrive(&token, FIRST);
        pair.run(Duration::from_millis(300));
        // It has its answer, and has not confirmed it yet.
        let store = pair.unstored.take().expect("it stores");
        pair.arrive(&token, SECOND);
        pair.run(SECONDS(5));
        assert_eq!(pair.askers.len(), 1, "{suite:?}");
        assert_eq!(
            pair.audited("token"),
            ["192.0.2.1:50002 came with it after 192.0.2.1:50001"],
            "{suite:?}"
        );
        pair.stores = true;
        pair.feed(0, keyfall_protocol::terminal::Input::Stored(store));
        pair.run(SECONDS(60));
        assert_eq!(pair.askers.len(), 1, "{suite:?}");
        assert!(pair.agree(0, "dave") && pair.is_current(0, group));
        assert_eq!(
            pair.newcomers[1].ended,
            Some(FirstContactError::NotKnown),
            "{suite:?}"
        );
    }
}

/// Who fetched and never confirmed does not hold the token for long; when he confirms after another has,
/// he is told that he is not known.
#[test]
fn who_does_not_confirm_gives_way_and_is_told() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 0);
    let token = pair.token_for("dave", TOKEN_LIFE);
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.stores = false;
    pair.arrive(&token, FIRST);
    pair.run(SECONDS(16));
    let store = pair.unstored.take().expect("it stores");
    pair.stores = true;
    pair.arrive(&token, SECOND);
    pair.run(SECONDS(5));
    assert!(pair.agree(1, "dave"));
    let wrap = pair.record("dave").wrap.fingerprint();
    pair.feed(0, keyfall_protocol::terminal::Input::Stored(store));
    pair.run(SECONDS(60));
    assert_eq!(pair.askers[0].ended.first(), Some(&AskOutcome::NotKnown));
    assert_eq!(pair.record("dave").wrap.fingerprint(), wrap);
    assert_eq!(pair.audited("terminal enrolled").len(), 1);
    assert_eq!(
        pair.audited("token"),
        ["192.0.2.1:50002 came with it after 192.0.2.1:50001"]
    );
}

/// A power cut after the first store and before the ACK: the terminal goes on by itself, by the key that
/// the package brought. After the token's end it does not.
#[test]
fn a_terminal_that_stored_and_could_not_confirm_goes_on_after_a_power_cut() {
    for (suites, ends) in [
        (&[SharingSuite::Hpke][..], false),
        (&[SharingSuite::Psk, SharingSuite::Hpke], false),
        (&[SharingSuite::Hpke], true),
    ] {
        let mut pair = Pair::new(suites, 0);
        let token = pair.token_for("dave", 60);
        pair.let_pass(|_, up, octets| match type_of(octets) {
            Some(ACK) if up => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.arrive(&token, FIRST);
        pair.run(Duration::from_millis(150));
        assert!(!pair.agree(0, "dave") && pair.record("dave").is_pending());
        pair.restart(0);
        pair.newcomers.clear();
        pair.let_pass(|_, _, _| Fate::Passes);
        if ends {
            pair.run(SECONDS(62));
        }
        pair.ask(0);
        pair.run(SECONDS(30));
        assert_eq!(pair.agree(0, "dave"), !ends, "{suites:?}");
        assert_eq!(pair.record("dave").is_pending(), ends);
        let expected = if ends {
            AskOutcome::NotKnown
        } else {
            AskOutcome::Current
        };
        assert_eq!(pair.askers[0].ended, [expected], "{suites:?}");
    }
}

/// T-09: whatever was sent is sent again, from there and from elsewhere, at every moment: nothing more
/// comes of it.
#[test]
fn what_is_replayed_enrols_nobody() {
    for suite in [SharingSuite::Hpke, SharingSuite::HpkePq] {
        let mut pair = Pair::new(&[suite], 0);
        let token = pair.token_for("dave", TOKEN_LIFE);
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.arrive(&token, FIRST);
        pair.run(SECONDS(5));
        let wrap = pair.record("dave").wrap.fingerprint();
        let sent: Vec<_> = pair.air.iter().filter(|(up, _)| *up).cloned().collect();
        for port in [FIRST, SECOND] {
            for (_, octets) in &sent {
                let from = SocketAddr::from(([192, 0, 2, 1], port));
                let octets = octets.clone();
                pair.feed_server(Input::Datagram { from, octets });
                pair.run(SECONDS(1));
            }
        }
        pair.run(SECONDS(30));
        assert_eq!(pair.record("dave").wrap.fingerprint(), wrap, "{suite:?}");
        assert_eq!(pair.audited("terminal enrolled").len(), 1);
        assert_eq!(pair.askers.len(), 1);
    }
}

/// KR-376: in psk a token counts for nothing, as if it were not known; who tried is named.
#[test]
fn a_token_does_not_count_in_psk() {
    let mut pair = Pair::new(&[SharingSuite::Psk, SharingSuite::Hpke], 0);
    let token = pair.token_for("dave", TOKEN_LIFE);
    let ask = Ask {
        terminal: None,
        nonce: [1; 16],
        time: UnixSeconds::new(0),
        held: Vec::new(),
        fresh: None,
    };
    let key = token.key();
    let line = Line {
        suite: SharingSuite::Psk,
        wrap: &key,
    };
    let mut cookie = None;
    for _ in 0..2 {
        let sealed = ask.seal(line, Generation::ZERO, cookie, 252, &mut pair.rng);
        let Ok(Message::KeyReq { request, .. }) = Message::decode(&sealed) else {
            panic!("it is one");
        };
        let octets = marked(&Message::KeyReq { request, cookie }.encode());
        let from = SocketAddr::from(([192, 0, 2, 1], FIRST));
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.feed_server(Input::Datagram { from, octets });
        let [(false, answer)] = &pair.air[..] else {
            panic!("one answer: {:?}", pair.types());
        };
        // Without a cookie the address may be anybody's.
        assert_eq!(pair.audited("token").len(), usize::from(cookie.is_some()));
        match Message::decode_datagram(answer) {
            Ok(Message::Cookie { cookie: given, .. }) => cookie = Some(given),
            other => panic!("{other:?}"),
        }
    }
    let psk = "refused from 192.0.2.1:50001: suite psk, in which no token counts";
    assert_eq!(pair.audited("token"), [psk]);
    assert!(pair.record("dave").is_pending());
    // Another misuse of the same token is told, too.
    let terminals = vec![terminal(1)];
    pair.order(Order::Exclude { terminals }).expect("it may be");
    pair.arrive(&token, SECOND);
    pair.run(SECONDS(5));
    let dead = "refused from 192.0.2.1:50002: the terminal is excluded";
    assert_eq!(pair.audited("token"), [psk, dead]);
}

/// KR-376: nor without a cookie: who asks from an address that is not his neither uses nor holds it.
#[test]
fn a_token_does_not_count_without_a_cookie() {
    for suite in [SharingSuite::Hpke, SharingSuite::HpkePq] {
        let mut pair = Pair::new(&[suite], 0);
        let token = pair.token_for("dave", TOKEN_LIFE);
        pair.let_pass(|_, _, octets| match type_of(octets) {
            Some(COOKIE) => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.arrive(&token, FIRST);
        pair.run(SECONDS(10));
        let counts = pair.server.desk_counts();
        assert!(counts.cookies > 0 && counts.answers == 0, "{counts:?}");
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.arrive(&token, SECOND);
        pair.run(SECONDS(5));
        assert!(pair.agree(0, "dave"), "{suite:?}");
    }
}

/// G steps while nobody has come yet, and the terminal's own key, too: what is fetched is what stands.
#[test]
fn a_token_brings_the_keys_as_they_stand_when_it_is_used() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 0);
    let token = pair.token_for("dave", TOKEN_LIFE);
    let group = pair.group(&[1]);
    for _ in 0..3 {
        pair.order(Order::RenewDevices).expect("it may be");
    }
    let number = terminal(1);
    pair.order(Order::RenewDevice { terminal: number })
        .expect("it may be");
    pair.arrive(&token, FIRST);
    pair.run(SECONDS(5));
    assert!(pair.agree(0, "dave") && pair.is_current(0, group));
    pair.order(Order::RenewDevices).expect("it may be");
    pair.order(Order::RekeyGroup { group }).expect("it may be");
    pair.ask(0);
    pair.run(SECONDS(5));
    assert!(pair.agree(0, "dave") && pair.is_current(0, group));
}

#[test]
fn a_token_that_nobody_could_use_is_refused() {
    let order = |life| Order::AddTerminal {
        name: "dave".to_owned(),
        sealing: PackageSealing::ByToken { life },
        wipe_roots: Vec::new(),
    };
    let mut pair = Pair::new(&[SharingSuite::Psk], 0);
    let refused = pair.order(order(TOKEN_LIFE)).expect_err("psk alone");
    assert_eq!(refused, Refusal::NoSuiteForToken);
    let mut pair = Pair::new(&[SharingSuite::Hpke], 0);
    for life in [0, 59, 30 * 86_400 + 1] {
        let refused = pair.order(order(life)).expect_err("too short or too long");
        assert_eq!(refused, Refusal::BadTokenLife(life));
    }
    pair.order(order(60)).expect("it may be");
}

/// KR-371: who does not use the token up, or does not ask first with his copy of a package, gets no keys:
/// neither from the desk nor from what is sent to all.
#[test]
fn who_does_not_confirm_gets_no_keys() {
    for suites in [
        &[SharingSuite::Hpke][..],
        &[SharingSuite::HpkePq],
        &[SharingSuite::Psk, SharingSuite::Hpke],
    ] {
        let mut pair = Pair::new(suites, 1);
        let token = pair.token_for("dave", TOKEN_LIFE);
        pair.group(&[1, 2]);
        pair.let_pass(|_, up, octets| match type_of(octets) {
            Some(ACK) if up => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.arrive(&token, FIRST);
        pair.run(SECONDS(60));
        assert!(pair.record("dave").is_pending(), "{suites:?}");
        assert!(pair.askers[1].machine.groups().is_empty(), "{suites:?}");
        if suites[0] != SharingSuite::Psk {
            pair.ask(0);
            pair.run(SECONDS(60));
            assert!(pair.record("t1").mixed_at.is_none(), "{suites:?}");
            assert!(pair.askers[0].machine.groups().is_empty(), "{suites:?}");
        }
    }
}

/// KR-371: a KEYDIST names who came by a package, whether it asks or not, and who waits for its token only
/// once that is used.
#[test]
fn what_is_sent_to_all_names_nobody_who_waits_for_a_token() {
    let named = |pair: &mut Pair| {
        let frames = std::mem::take(&mut pair.frames).into_iter();
        let counts = frames.filter_map(|frame| {
            let unverified = Unverified::decode(&frame).expect("it reads");
            if let Body::KeyDist(dist) = &unverified.command().body {
                Some(dist.recipients().len())
            } else {
                None
            }
        });
        counts.collect::<std::collections::BTreeSet<_>>()
    };
    let mut pair = Pair::new(&[SharingSuite::Hpke], 1);
    let token = pair.token_for("dave", TOKEN_LIFE);
    let alone = pair.group(&[2]);
    pair.run(SECONDS(3600));
    pair.order(Order::RekeyGroup { group: alone })
        .expect("it may be");
    pair.run(SECONDS(3600));
    assert_eq!(named(&mut pair), [].into());
    pair.group(&[1, 2]);
    pair.run(SECONDS(3600));
    assert_eq!(named(&mut pair), [1].into());
    pair.arrive(&token, FIRST);
    pair.run(SECONDS(60));
    assert!(pair.agree(1, "dave") && pair.is_current(1, alone));
    pair.frames.clear();
    // Long after it was announced: it stands.
    pair.run(SECONDS(3600));
    assert_eq!(named(&mut pair), [1, 2].into());
}

/// KR-376: nor is a token given where the server holds no key of the suite that it would be asked in.
#[test]
fn no_token_is_given_for_a_suite_without_its_key() {
    for (suites, given) in [
        ([SharingSuite::HpkePq, SharingSuite::Hpke], false),
        ([SharingSuite::Hpke, SharingSuite::HpkePq], true),
    ] {
        let mut pair = Pair::with(&suites, 0, |fleet| fleet.kem_pq = None);
        let order = Order::AddTerminal {
            name: "dave".to_owned(),
            sealing: PackageSealing::ByToken { life: TOKEN_LIFE },
            wipe_roots: Vec::new(),
        };
        let outcome = pair.order(order);
        assert_eq!(outcome.is_ok(), given, "{outcome:?}");
    }
}

/// INVARIANT 10: neither the token nor the code is printed with what an order brought.
#[test]
fn a_token_and_a_code_are_not_printed() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 0);
    for sealing in [
        PackageSealing::UnderCode,
        PackageSealing::ByToken { life: TOKEN_LIFE },
    ] {
        let order = Order::AddTerminal {
            name: format!("t{}", pair.server.terminals().count() + 1),
            sealing,
            wipe_roots: Vec::new(),
        };
        let done = pair.order(order).expect("it may be");
        let printed = format!("{done:?}");
        let Done::Terminal { sealed, .. } = done else {
            panic!("{printed}");
        };
        match sealed {
            SealedFor::Code(secret) | SealedFor::Token(secret) => {
                assert!(!printed.contains(&secret[..]), "{}", printed.len());
            }
            SealedFor::Request => panic!("{printed}"),
        }
    }
}
