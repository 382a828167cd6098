//! What recordings, altered messages and those that are not listed get from server and terminal.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use keyfall_protocol::ids::{Generation, GroupNumber, TerminalNumber, Tick};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random as _;
use keyfall_protocol::server::{Order, TOKEN_LIFE};
use keyfall_protocol::sharing::message::{KeyReq, Message, Part, SealedAsk, marked, type_of};
use keyfall_protocol::sharing::pair::{Ask, Line};
use keyfall_protocol::sharing::{Assembly, KemSecret, KemSuite, SharingSuite, datagrams};
use keyfall_protocol::terminal::{self, AskOutcome};

use crate::sharing::{ACK, ALL, COOKIE, Fate, KEY_DIS, KEY_REQ, Pair};
use crate::tokens::FIRST;

const ELSEWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)), 9);

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
    pair.put(ELSEWHERE, request.clone());
    assert_eq!(pair.types(), [COOKIE]);
    assert!(pair.air[0].1.len() <= request.len());
}

/// KR-363, KR-364: nor does a recording whose time is still near, of a request that was answered without a
/// cookie, whether the answer was confirmed or is still open.
#[test]
fn a_fresh_recording_from_elsewhere_gets_no_long_answer() {
    for confirmed in [true, false] {
        let mut pair = Pair::new(&[SharingSuite::Psk], 1);
        pair.ask(0);
        pair.run(Duration::from_secs(5));
        for _ in 0..8 {
            pair.group(&[1]);
        }
        pair.let_pass(move |_, _, octets| match type_of(octets) {
            Some(ACK) if !confirmed => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.ask(0);
        pair.run(Duration::from_secs(1));
        let types = pair.types();
        assert!(
            types.starts_with(&[KEY_REQ, KEY_DIS]),
            "no cookie was asked: {types:?}"
        );
        let (request, answer) = (pair.air[0].1.clone(), pair.air[1].1.len());
        assert!(answer > request.len());
        pair.let_pass(|_, _, _| Fate::Passes);
        for _ in 0..3 {
            pair.put(ELSEWHERE, request.clone());
        }
        assert_eq!(pair.types(), [COOKIE; 3], "confirmed: {confirmed}");
        assert!(pair.air.iter().all(|(_, it)| it.len() <= request.len()));
    }
}

/// KR-363: one request brings one piece of work and so many answers, however often it comes.
#[test]
fn a_request_is_answered_eight_times_at_the_most() {
    for suite in [SharingSuite::Psk, SharingSuite::Hpke] {
        let mut pair = Pair::new(&[suite], 1);
        pair.let_pass(|_, _, octets| match type_of(octets) {
            Some(ACK) => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.ask(0);
        pair.run(Duration::from_millis(100));
        let answer = pair.types().iter().position(|&it| it == KEY_DIS);
        let mut before = pair.air[..answer.expect("it is answered")].iter().rev();
        let request = before.find(|(up, _)| *up).expect("it asked").1.clone();
        let (answers, begun) = (pair.server.desk_counts().answers, pair.begun);
        pair.let_pass(|_, _, _| Fate::Lost);
        let from = pair.askers[0].address;
        for _ in 0..20 {
            pair.put(from, request.clone());
        }
        assert_eq!(pair.server.desk_counts().answers, answers + 7, "{suite:?}");
        assert_eq!(pair.begun, begun, "{suite:?}");
    }
}

/// KR-364: no piece of the introduction is longer than the HELLO that asks for it.
#[test]
fn a_short_hello_brings_no_introduction() {
    let mut pair = Pair::new(&[SharingSuite::HpkePq], 1);
    let mut brought = Vec::new();
    for pad in 0..=1188 {
        let hello = marked(&Message::Hello { piece: 0, pad }.encode());
        pair.let_pass(|_, _, _| Fate::Lost);
        pair.put(ELSEWHERE, hello.clone());
        if let Some((_, piece)) = pair.air.first() {
            assert!(
                piece.len() <= hello.len(),
                "{} for {}",
                piece.len(),
                hello.len()
            );
            brought.push(hello.len());
        }
    }
    assert_eq!(brought.last(), Some(&1200));
}

/// KR-364: no part is kept of who has shown no cookie with it.
#[test]
fn no_part_is_kept_without_a_cookie() {
    for bare in 0..3 {
        let mut pair = Pair::new(&[SharingSuite::HpkePq], 1);
        let has_cookie = |octets: &[u8]| match Message::decode_datagram(octets) {
            Ok(Message::Part(part)) => part.cookie.is_some(),
            _ => false,
        };
        pair.let_pass(move |_, _, octets| match has_cookie(octets) {
            true => Fate::Lost,
            false => Fate::Passes,
        });
        pair.ask(0);
        pair.run(Duration::from_millis(100));
        let parts = pair.air.iter().map(|(_, octets)| octets.clone());
        let mut parts: Vec<_> = parts.filter(|octets| has_cookie(octets)).collect();
        assert_eq!(parts.len(), 3);
        let whole = parts.remove(bare);
        let Ok(Message::Part(part)) = Message::decode_datagram(&whole) else {
            panic!("a part");
        };
        let part = Part {
            cookie: None,
            ..part
        };
        let from = pair.askers[0].address;
        pair.let_pass(|_, _, _| Fate::Lost);
        pair.put(from, marked(&Message::Part(part).encode()));
        for part in parts {
            pair.put(from, part);
        }
        assert_eq!(pair.begun, 0, "without part {bare}");
        let cookies: &[u8] = if bare == 0 { &[COOKIE] } else { &[] };
        assert_eq!(pair.types(), cookies);
        pair.put(from, whole);
        assert!(pair.begun > 0);
    }
}

/// KR-369: nor is work done in hpke-pq for who has shown none: what does not open may come in one datagram.
#[test]
fn no_work_in_hpke_pq_is_done_without_a_cookie() {
    let mut pair = Pair::new(&[SharingSuite::HpkePq], 1);
    let request = KeyReq::Hpke {
        suite: SharingSuite::HpkePq,
        enc: &[1; 1120],
        ct: &[1; 16],
    };
    let message = |cookie| marked(&Message::KeyReq { request, cookie }.encode());
    let cookie = cookie_for(&mut pair, message(None));
    assert_eq!(pair.begun, 0);
    pair.put(ELSEWHERE, message(Some(cookie)));
    assert_eq!(pair.begun, 1);
}

/// What a request without a cookie from elsewhere is met with: no more than a cookie.
fn cookie_for(pair: &mut Pair, request: Vec<u8>) -> [u8; 16] {
    pair.let_pass(|_, _, _| Fate::Lost);
    let len = request.len();
    pair.put(ELSEWHERE, request);
    let [(false, answer)] = &pair.air[..] else {
        panic!("one answer: {:?}", pair.types());
    };
    assert!(answer.len() <= len);
    match Message::decode_datagram(answer) {
        Ok(Message::Cookie { cookie, .. }) => cookie,
        other => panic!("{other:?}"),
    }
}

/// In psk, under a name that nobody has, with so many octets of ciphertext.
fn nobodys_request(len: usize) -> Vec<u8> {
    let request = KeyReq::Psk(SealedAsk {
        suite: SharingSuite::Psk,
        id: [9; 8],
        g: Generation::ZERO,
        iv: [9; 12],
        ct: &vec![9; len],
    });
    let cookie = None;
    marked(&Message::KeyReq { request, cookie }.encode())
}

/// KR-364: no COOKIE is longer than what it answers, whatever is asked, in whatever suite.
#[test]
fn a_short_request_brings_no_cookie() {
    let mut pair = Pair::new(&[SharingSuite::Psk, SharingSuite::Hpke], 1);
    let hpke = |len: usize| {
        let request = KeyReq::Hpke {
            suite: SharingSuite::Hpke,
            enc: &[9; 32],
            ct: &vec![9; len],
        };
        let cookie = None;
        marked(&Message::KeyReq { request, cookie }.encode())
    };
    let mut shortest = [usize::MAX; 2];
    for len in 16..200 {
        for (place, request) in [nobodys_request(len), hpke(len)].into_iter().enumerate() {
            pair.let_pass(|_, _, _| Fate::Lost);
            // The first four of hpke are opened.
            for _ in 0..5 {
                pair.put(ELSEWHERE, request.clone());
            }
            for (_, cookie) in &pair.air {
                assert!(cookie.len() <= request.len(), "{len}");
                shortest[place] = shortest[place].min(request.len());
            }
        }
    }
    // What terminals send is longer.
    assert!(shortest[0] < 256 && shortest[1] < 244, "{shortest:?}");
}

/// KR-365, KR-392, T-09: a recorded request moves no address, and with a cookie that its player was given
/// it is none: that stands outside of the seal.
#[test]
fn a_recorded_request_moves_no_address() {
    for suite in [SharingSuite::Psk, SharingSuite::Hpke] {
        let mut pair = Pair::new(&[suite], 1);
        pair.ask(0);
        pair.run(Duration::from_secs(5));
        let heard = |pair: &Pair| {
            pair.server
                .heard_from(TerminalNumber::new(1).expect("not 0"))
        };
        let home = Some(pair.askers[0].address);
        assert_eq!(heard(&pair), home, "{suite:?}");
        pair.let_pass(|_, _, _| Fate::Lost);
        pair.ask(0);
        let recorded = pair.air[0].1.clone();
        let with_his = with_a_players_cookie(&mut pair, &recorded);
        for (octets, answers) in [(recorded, &[KEY_DIS][..]), (with_his, &[])] {
            pair.let_pass(|_, _, _| Fate::Lost);
            pair.put(ELSEWHERE, octets);
            assert_eq!(pair.types(), answers, "{suite:?}");
            assert_eq!(heard(&pair), home, "{suite:?}");
        }
    }
}

/// A recorded request with a cookie that its player was given.
fn with_a_players_cookie(pair: &mut Pair, recorded: &[u8]) -> Vec<u8> {
    let Ok(Message::KeyReq { request, .. }) = Message::decode_datagram(recorded) else {
        panic!("a request");
    };
    let cookie = Some(cookie_for(pair, nobodys_request(200)));
    marked(&Message::KeyReq { request, cookie }.encode())
}

/// KR-392, T-09: a terminal's first requests were recorded and never answered. Played between its answer
/// and its ACK, with whichever cookie, they bring no newer answer, and that ACK counts.
#[test]
fn a_recorded_request_voids_no_first_contact() {
    for suite in ALL {
        let (mut pair, group) = before_first_contact(suite);
        let mut sent = Vec::new();
        for of_cookie in [false, true] {
            // In psk it asks under the mixed key first, which the server does not know.
            let mut unknown = usize::from(suite == SharingSuite::Psk);
            pair.let_pass(move |_, up, octets| {
                let has_cookie = up && cookie_of(octets).is_some();
                let passes = of_cookie && (!has_cookie || unknown > 0);
                unknown -= usize::from(passes && has_cookie);
                if passes { Fate::Passes } else { Fate::Lost }
            });
            pair.ask(0);
            pair.run(Duration::from_millis(100));
            sent.extend(pair.air.iter().filter(|(up, _)| *up).cloned());
            pair.restart(0);
        }
        let his = cookie_for(&mut pair, nobodys_request(200));
        let mut played = Vec::new();
        let requests = requests_of(&sent);
        let with = |has_cookie| requests.iter().any(|it| it.1.is_some() == has_cookie);
        assert!(with(true) && with(false), "{suite:?}");
        for (message, cookie) in requests {
            let Ok(Message::KeyReq { request, .. }) = Message::decode(&message) else {
                panic!("a request");
            };
            assert_eq!(request.suite(), suite);
            played.extend(datagrams(&message, cookie));
            let cookie = Some(his);
            // In parts the cookie of each stands beside that of the message.
            played.extend(datagrams(&message, cookie));
            played.extend(datagrams(
                &Message::KeyReq { request, cookie }.encode(),
                cookie,
            ));
        }
        pair.let_pass(|_, _, octets| match type_of(octets) {
            Some(ACK) => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.ask(0);
        pair.run(Duration::from_millis(100));
        let mut acks = pair.air.iter().filter(|(_, it)| type_of(it) == Some(ACK));
        let ack = acks.next_back().expect("it is answered").1.clone();
        let before = pair.server.desk_counts();
        pair.let_pass(|_, _, _| Fate::Lost);
        for octets in played {
            pair.put(ELSEWHERE, octets);
        }
        let counts = pair.server.desk_counts();
        assert_eq!(counts.answers, before.answers, "{suite:?}");
        // With his cookie they do not open.
        assert!(counts.silent > before.silent, "{suite:?}");
        let from = pair.askers[0].address;
        pair.let_pass(|_, _, _| Fate::Passes);
        pair.put(from, ack);
        assert_eq!(pair.server.desk_counts().acks, 1, "{suite:?}");
        pair.run(Duration::from_secs(5));
        assert!(pair.is_current(0, group), "{suite:?}");
    }
}

/// A terminal that has fresh octets to come: in psk that is one that came by a token and could not confirm.
fn before_first_contact(suite: SharingSuite) -> (Pair, GroupNumber) {
    if suite != SharingSuite::Psk {
        let mut pair = Pair::new(&[suite], 1);
        let group = pair.group(&[1]);
        return (pair, group);
    }
    let mut pair = Pair::new(&[suite, SharingSuite::Hpke], 0);
    let token = pair.token_for("dave", TOKEN_LIFE);
    let group = pair.group(&[1]);
    pair.let_pass(|_, _, octets| match type_of(octets) {
        Some(ACK) => Fate::Lost,
        _ => Fate::Passes,
    });
    pair.arrive(&token, FIRST);
    pair.run(Duration::from_millis(150));
    pair.restart(0);
    pair.newcomers.clear();
    (pair, group)
}

fn cookie_of(octets: &[u8]) -> Option<[u8; 16]> {
    match Message::decode_datagram(octets) {
        Ok(Message::KeyReq { cookie, .. }) => cookie,
        Ok(Message::Part(part)) => part.cookie,
        _ => None,
    }
}

/// The whole requests in what was sent, with the cookies of their datagrams.
fn requests_of(sent: &[(bool, Vec<u8>)]) -> Vec<(Vec<u8>, Option<[u8; 16]>)> {
    let mut parts = Assembly::new(8, 8);
    let whole = |(_, octets): &(bool, Vec<u8>)| {
        let message = match Message::decode_datagram(octets) {
            Ok(Message::Part(part)) => parts.add((), &part, Tick::default())?,
            Ok(message @ Message::KeyReq { .. }) => message.encode(),
            _ => return None,
        };
        Some((message, cookie_of(octets)))
    };
    sent.iter().filter_map(whole).collect()
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

/// KR-362: the suites of the KEYSET, and no other; no key is used for it.
#[test]
fn a_suite_that_the_root_does_not_list_is_not_answered() {
    for (listed, spoken) in [
        (SharingSuite::Hpke, SharingSuite::Psk),
        (SharingSuite::Psk, SharingSuite::Hpke),
    ] {
        let mut strict = Pair::new(&[listed], 1);
        let mut other = Pair::new(&[spoken], 1);
        // The same names and draws make the same keys: the other one's request would be genuine.
        strict.group(&[1]);
        other.group(&[1]);
        other.ask(0);
        let request = other.air[0].1.clone();
        let from = strict.askers[0].address;
        strict.let_pass(|_, _, _| Fate::Passes);
        strict.put(from, request);
        assert!(strict.air.is_empty(), "{spoken:?}: {:?}", strict.types());
        assert_eq!(strict.begun, 0, "{spoken:?}");
        assert_eq!(strict.server.desk_counts().downgrades, 1, "{spoken:?}");
    }
}

/// KR-390, T-06: a request is its caller's: under another number than that whose key seals it, or under
/// none, it is met with silence.
#[test]
fn a_request_under_anothers_number_is_not_answered() {
    let mut pair = Pair::new(&[SharingSuite::Psk], 2);
    for said in [None, TerminalNumber::new(2), TerminalNumber::new(1)] {
        let request = sealed_by_the_first(&mut pair, SharingSuite::Psk, said, None);
        pair.let_pass(|_, _, _| Fate::Lost);
        pair.put(ELSEWHERE, marked(&request));
        let answers: &[u8] = if said == TerminalNumber::new(1) {
            &[KEY_DIS]
        } else {
            &[]
        };
        assert_eq!(pair.types(), answers, "{said:?}");
    }
}

/// KR-390, T-07: nor where the suite inside is not the one that is spoken: nothing can be put on or taken
/// off on the way, not by who holds the key either.
#[test]
fn a_request_in_another_suite_inside_than_outside_is_not_answered() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 1);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    let seed = Secret::init_with(|into| pair.rng.fill(into));
    let fresh = KemSecret::from_seed(KemSuite::X25519, seed);
    let suite = SharingSuite::Hpke;
    for inside in [SharingSuite::Psk, SharingSuite::HpkePq, suite] {
        let fresh = Some(fresh.public().octets().to_vec());
        let number = TerminalNumber::new(1);
        let inner = sealed_by_the_first(&mut pair, inside, number, fresh);
        let kem = pair.server.fleet().kem.as_ref().expect("founded with it");
        let sealed = kem.public().seal(b"KF1/key-req", &inner, &mut pair.rng);
        let (enc, ct) = sealed.expect("a key");
        let (enc, ct) = (&enc[..], &ct[..]);
        let request = KeyReq::Hpke { suite, enc, ct };
        let cookie = None;
        pair.let_pass(|_, _, _| Fate::Lost);
        pair.put(
            ELSEWHERE,
            marked(&Message::KeyReq { request, cookie }.encode()),
        );
        let answers: &[u8] = if inside == suite { &[KEY_DIS] } else { &[] };
        assert_eq!(pair.types(), answers, "{inside:?}");
    }
}

/// The pair's request under the first terminal's key.
fn sealed_by_the_first(
    pair: &mut Pair,
    suite: SharingSuite,
    terminal: Option<TerminalNumber>,
    fresh: Option<Vec<u8>>,
) -> Vec<u8> {
    let wrap = pair
        .server
        .terminals()
        .next()
        .expect("one")
        .wrap
        .duplicate();
    let ask = Ask {
        terminal,
        nonce: [1; 16],
        time: pair.moment().wall,
        held: Vec::new(),
        fresh,
    };
    let line = Line { suite, wrap: &wrap };
    ask.seal(line, Generation::ZERO, None, 252, &mut pair.rng)
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
            pair.put(from, altered);
        }
        assert_eq!(pair.server.desk_counts().acks, 0);
        pair.put(from, ack);
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
