//! The suite rsa-misty1 between the machines: the sequence of PROTOCOL 14 with the messages of 15.

use core::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use keyfall_protocol::command::Suites;
use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, TerminalNumber, Tick, UnixSeconds};
use keyfall_protocol::keys::{MasterKey, Secret};
use keyfall_protocol::rng::Random;
use keyfall_protocol::server::{AuditEntry, KeySetDraft, Order, Refusal};
use keyfall_protocol::sharing::SharingSuite;
use keyfall_protocol::sharing::message::{
    KeyDis, KeyReq, Message, Reference, RequestHash, marked, message_in, type_of,
};
use keyfall_protocol::sharing::rsa_misty1::{
    IdInformation, Request, RsaSecret, RsaSize, Sealed, open_key_req, seal_key_dis, seal_key_req,
};
use keyfall_protocol::terminal::{self, AskOutcome};

use crate::sharing::{ACK, COMMAND, COOKIE, Fate, KEY_DIS, KEY_REQ, Pair};

const HELLO: u8 = 9;
const INTRODUCTION: u8 = 10;
const FIRST: [SharingSuite; 3] = [
    SharingSuite::RsaMisty1,
    SharingSuite::Hpke,
    SharingSuite::Psk,
];
const SECOND: [SharingSuite; 3] = [
    SharingSuite::Hpke,
    SharingSuite::RsaMisty1,
    SharingSuite::Psk,
];

/// The server's and those of the terminals: made once, for making them takes long.
fn rsa(place: usize) -> RsaSecret {
    static KEYS: OnceLock<Vec<RsaSecret>> = OnceLock::new();
    let made = || RsaSecret::generate(RsaSize::Bits2048).unwrap();
    let keys = KEYS.get_or_init(|| (0..3).map(|_| made()).collect());
    keys[place].duplicate()
}

fn number(n: u32) -> TerminalNumber {
    TerminalNumber::new(n).unwrap()
}

/// A fleet whose root lists these suites, and that the terminals know of; each terminal has an RSA key.
fn pair_with(suites: &[SharingSuite], terminals: u32) -> Pair {
    let mut pair = Pair::new(&[SharingSuite::Psk], terminals);
    let draft = KeySetDraft {
        suites: Suites::new(suites),
        rsa: Some(Arc::new(rsa(0))),
        ..KeySetDraft::default()
    };
    let command = pair.server.draft_key_set(draft, &mut pair.rng).unwrap();
    let frame = pair.root.sign(&command);
    let install = Order::InstallKeys {
        frame: frame.clone(),
    };
    pair.order(install).unwrap();
    for place in 0..terminals as usize {
        pair.feed(place, terminal::Input::Datagram(&frame));
        let key = rsa(place + 1);
        let order = Order::SetLegacyKey {
            terminal: number(place as u32 + 1),
            key: Some(key.public().clone()),
        };
        pair.order(order).unwrap();
        pair.feed(place, terminal::Input::LegacyKey(key));
    }
    pair.begun = 0;
    pair
}

fn pair(terminals: u32) -> Pair {
    pair_with(&FIRST, terminals)
}

/// A group that allows the suite.
fn legacy_group(pair: &mut Pair, members: &[u32]) -> GroupNumber {
    let group = pair.group(members);
    allow(pair, group, true);
    group
}

fn allow(pair: &mut Pair, group: GroupNumber, legacy: bool) {
    let order = Order::SetGroup {
        group,
        change: None,
        stragglers: None,
        legacy: Some(legacy),
    };
    pair.order(order).unwrap();
}

/// The newest request that was sent, and how it is named.
fn request(pair: &Pair) -> (Vec<u8>, Reference) {
    let sent = pair.air.iter().rev();
    let mut requests = sent.filter(|(up, octets)| *up && type_of(octets) == Some(KEY_REQ));
    let datagram = requests.next().expect("it asked").1.clone();
    let reference = RequestHash::of(message_in(&datagram).unwrap()).reference();
    (datagram, reference)
}

/// A request in that terminal's name by somebody who has the server's public key only.
fn forged(of: u32, nonce: u8) -> Vec<u8> {
    let id = IdInformation {
        terminal: number(of),
        nonce: [nonce; 16],
        time: UnixSeconds::new(0),
    };
    seal_key_req(rsa(0).public(), &id)
}

fn datagram(key_req: &[u8], cookie: Option<[u8; 16]>) -> Vec<u8> {
    let request = KeyReq::RsaMisty1(key_req);
    marked(&Message::KeyReq { request, cookie }.encode())
}

/// How often the first terminal dropped something for that reason.
fn drops(pair: &Pair, name: &str) -> u64 {
    let counts = pair.askers[0].machine.drops().iter();
    let named = counts.filter(|(reason, ..)| reason.name() == name);
    named.map(|(_, count, _)| count).sum()
}

/// The cookie in the last datagram.
fn cookie(pair: &Pair) -> [u8; 16] {
    let last = &pair.air.last().expect("something came").1;
    match Message::decode_datagram(last) {
        Ok(Message::Cookie { cookie, .. }) => cookie,
        other => panic!("{other:?}"),
    }
}

/// the whole sequence; the key is that of the broadcasts, and those renew it.
#[test]
fn a_group_keyed_by_the_legacy_suite_is_renewed_by_broadcast() {
    let mut pair = pair(2);
    let group = legacy_group(&mut pair, &[1, 2]);
    assert_eq!(
        pair.askers[0].machine.asks_in(),
        Some(SharingSuite::RsaMisty1)
    );
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(pair.is_current(0, group), "{:?}", pair.types());
    assert_eq!(pair.askers[0].ended, [AskOutcome::Current]);
    let mut types = pair.types();
    types.dedup();
    let whole = [
        HELLO,
        INTRODUCTION,
        HELLO,
        INTRODUCTION,
        KEY_REQ,
        COOKIE,
        KEY_REQ,
        KEY_DIS,
        ACK,
    ];
    assert_eq!(types, whole);
    assert!(pair.server.confirmed(number(1), group).is_some());
    assert!(pair.server.heard_from(number(1)).is_some());

    // One way from here on.
    pair.let_pass(|_, _, _| Fate::Lost);
    pair.frames.clear();
    pair.order(Order::RenewGroup { group }).unwrap();
    pair.run(Duration::from_secs(2));
    assert!(!pair.is_current(0, group));
    for frame in std::mem::take(&mut pair.frames) {
        pair.feed(0, terminal::Input::Datagram(&frame));
    }
    assert!(pair.is_current(0, group), "RENEW is later than what came");
    let held = pair.askers[0].machine.groups();
    assert!(held[0].lease_end.is_some());
}

/// every single message and every pair of messages is lost, or doubled.
#[test]
fn whatever_is_lost_or_doubled_the_terminal_becomes_current() {
    for (fate, places) in [(Fate::Lost, 14), (Fate::Doubled, 1)] {
        for first in 0..places {
            for second in first..places {
                let mut pair = pair(1);
                let group = legacy_group(&mut pair, &[1]);
                pair.let_pass(move |n, _, _| {
                    if n == first || n == second || fate == Fate::Doubled {
                        fate
                    } else {
                        Fate::Passes
                    }
                });
                pair.ask(0);
                pair.run(Duration::from_secs(40));
                let ended = pair.askers[0].ended.first();
                let case = format!("{fate:?} {first} {second}: {:?}", pair.types());
                assert_eq!(ended, Some(&AskOutcome::Current), "{case}");
                assert!(pair.is_current(0, group), "{case}");
                // One opening and one sealing for each request, however often it came.
                assert!(pair.begun <= 4, "{} jobs, {case}", pair.begun);
            }
        }
    }
}

/// KR-383, W-16: a group gives its key to this suite only where the operator said so.
#[test]
fn a_group_that_does_not_allow_the_suite_gives_nothing_to_it() {
    let mut pair = pair(1);
    let allowed = legacy_group(&mut pair, &[1]);
    let new = pair.group(&[1]);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(pair.is_current(0, allowed));
    assert!(!pair.is_current(0, new), "off in a new group");
    assert_eq!(pair.server.confirmed(number(1), new), None);
    allow(&mut pair, allowed, false);
    pair.order(Order::RekeyGroup { group: allowed }).unwrap();
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(!pair.is_current(0, allowed), "taken back");
}

/// W-14, KR-363, KR-382: without a cookie nothing is done but what is symmetric, nor for a repeat, and no
/// answer is longer than what it answers.
#[test]
fn without_a_cookie_no_rsa_work_is_done() {
    let mut pair = pair(1);
    legacy_group(&mut pair, &[1]);
    let from = pair.askers[0].address;
    pair.let_pass(|_, _, _| Fate::Lost);
    for n in 0..100 {
        let octets = datagram(&forged(1, n), (n % 2 == 0).then_some([n; 16]));
        let len = octets.len();
        pair.put(from, octets);
        let (_, answer) = pair.air.last().unwrap();
        assert_eq!(type_of(answer), Some(COOKIE));
        assert!(answer.len() <= len, "{} for {len}", answer.len());
    }
    assert_eq!(pair.begun, 0);

    let cookie = cookie(&pair);
    pair.jobs = Some(Vec::new());
    let octets = datagram(&forged(1, 1), Some(cookie));
    for _ in 0..10 {
        pair.put(from, octets.clone());
    }
    assert_eq!(pair.begun, 1, "the same request again");
    for n in 2..100 {
        pair.put(from, datagram(&forged(1, n), Some(cookie)));
    }
    assert_eq!(pair.begun, 8, "for one host");
    for host in 2..100 {
        let from = SocketAddr::from(([192, 0, 2, host], 1));
        pair.put(from, datagram(&forged(1, host), None));
        let cookie = self::cookie(&pair);
        pair.put(from, datagram(&forged(1, host), Some(cookie)));
    }
    assert_eq!(pair.begun, 64, "for all");
    assert!(pair.server.desk_counts().overload > 0);
}

/// W-14, KR-386: who writes requests in a terminal's name, one after another, has a share of the open
/// answers, and none of the work beyond; the terminal itself is answered meanwhile.
#[test]
fn requests_in_anothers_name_fill_no_table() {
    let mut pair = pair(1);
    let group = legacy_group(&mut pair, &[1]);
    let from = SocketAddr::from(([203, 0, 113, 9], 9));
    pair.put(from, datagram(&forged(1, 0), None));
    let cookie = cookie(&pair);
    pair.let_pass(|_, _, _| Fate::Passes);
    for n in 0..200 {
        pair.put(from, datagram(&forged(1, n), Some(cookie)));
    }
    let counts = pair.server.desk_counts();
    assert_eq!((counts.answers, counts.overload), (64, 136));
    assert_eq!(pair.begun, 128, "opened and sealed");
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(pair.is_current(0, group));
    assert_eq!(pair.server.desk_counts().acks, 1);
}

/// T-06, KR-381: no key registered, or one taken away, or excluded: silence.
#[test]
fn who_has_no_registered_key_is_not_answered() {
    let mut pair = pair(2);
    let group = legacy_group(&mut pair, &[1, 2]);
    let none = Order::SetLegacyKey {
        terminal: number(1),
        key: None,
    };
    pair.order(none).unwrap();
    let terminals = vec![number(2)];
    pair.order(Order::Exclude { terminals }).unwrap();
    for place in 0..2 {
        pair.ask(place);
    }
    pair.run(Duration::from_secs(59));
    let counts = pair.server.desk_counts();
    assert_eq!((counts.answers, counts.acks), (0, 0));
    for place in 0..2 {
        assert_eq!(pair.askers[place].ended, [AskOutcome::NoAnswer]);
        assert!(!pair.is_current(place, group));
    }
    let key = Some(rsa(2).public().clone());
    let excluded = Order::SetLegacyKey {
        terminal: number(2),
        key,
    };
    assert_eq!(
        pair.order(excluded).err(),
        Some(Refusal::Excluded(number(2)))
    );
}

/// T-06: a request says a name and proves nothing. Who wrote it gets what only the named one opens, and
/// nothing is known of that one before its ACK.
#[test]
fn a_request_in_anothers_name_tells_nothing_and_moves_nothing() {
    let mut pair = pair(1);
    let group = legacy_group(&mut pair, &[1]);
    let from = SocketAddr::from(([203, 0, 113, 9], 9));
    pair.let_pass(|_, _, _| Fate::Lost);
    pair.put(from, datagram(&forged(1, 7), None));
    let cookie = cookie(&pair);
    pair.put(from, datagram(&forged(1, 7), Some(cookie)));
    let (_, answer) = pair.air.last().unwrap();
    assert_eq!(type_of(answer), Some(KEY_DIS));
    assert_eq!(pair.server.heard_from(number(1)), None);
    assert_eq!(pair.server.confirmed(number(1), group), None);
    assert_eq!(pair.server.desk_counts().acks, 0);
}

/// T-07, KR-380: where the root would have another suite, a request in this one is a downgrade: refused
/// before any RSA work, and written down once, of who has shown that he is where he says.
#[test]
fn a_downgrade_to_the_legacy_suite_is_refused_and_audited() {
    let mut pair = pair_with(&SECOND, 1);
    legacy_group(&mut pair, &[1]);
    let spoken = pair.askers[0].machine.asks_in();
    assert_eq!(spoken, Some(SharingSuite::Hpke), "the first that it can");
    pair.audit.clear();
    pair.let_pass(|_, _, _| Fate::Lost);
    let somebody = SocketAddr::from(([203, 0, 113, 9], 9));
    for n in 0..3 {
        pair.put(somebody, datagram(&forged(1, n), None));
        pair.put(somebody, datagram(&forged(1, n), Some([n; 16])));
    }
    let told = |pair: &Pair| {
        let of = |it: &AuditEntry| format!("{}: {}", it.actor, it.outcome);
        pair.audit.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(told(&pair), [""; 0], "from an address that may be forged");
    assert_eq!(pair.server.desk_counts().downgrades, 0);

    let from = pair.askers[0].address;
    pair.put(from, datagram(&forged(1, 3), None));
    let cookie = cookie(&pair);
    for n in 3..6 {
        pair.put(from, datagram(&forged(1, n), Some(cookie)));
    }
    assert!(pair.types().iter().all(|&it| it == COOKIE));
    assert_eq!((pair.begun, pair.server.desk_counts().downgrades), (0, 3));
    let refused = "somebody at 192.0.2.1: refused: the KEYSET does not begin with suite rsa-misty1";
    assert_eq!(told(&pair), [refused]);
}

/// W-14, KR-364, KR-382: what names the server's key and is shorter than a COOKIE gets none, and with a cookie
/// it brings no work about.
#[test]
fn a_request_of_the_legacy_suite_without_its_rsa_field_is_met_with_silence() {
    for suites in [&FIRST, &SECOND] {
        let mut pair = pair_with(suites, 1);
        let from = pair.askers[0].address;
        pair.let_pass(|_, _, _| Fate::Lost);
        let mut short = forged(1, 1)[..16].to_vec();
        short[4..6].fill(0);
        pair.put(from, datagram(&short, None));
        assert!(pair.air.is_empty(), "{:?}", pair.types());
        pair.put(from, datagram(&forged(1, 1), None));
        let cookie = Some(cookie(&pair));
        pair.put(from, datagram(&short, cookie));
        assert_eq!((pair.begun, pair.server.desk_counts().downgrades), (0, 0));
    }
}

/// T-07, KR-361: a terminal that asked in this suite believes no other, nor the other way round; without
/// a key of its own it takes the next suite of the root's.
#[test]
fn an_answer_in_another_suite_than_rsa_misty1_is_refused() {
    let mut pair = pair(1);
    let group = legacy_group(&mut pair, &[1]);
    pair.let_pass(without_answers);
    pair.ask(0);
    pair.run(Duration::from_millis(400));
    let (_, reference) = request(&pair);
    for distribution in [
        KeyDis::Psk {
            suite: SharingSuite::Psk,
            signed: &[0x84],
        },
        KeyDis::Hpke {
            suite: SharingSuite::Hpke,
            enc: &[0; 32],
            ct: &[0; 32],
        },
    ] {
        let message = Message::KeyDis {
            reference,
            distribution,
        };
        pair.feed(0, terminal::Input::FromServer(&marked(&message.encode())));
    }
    assert_eq!(drops(&pair, "other_suite"), 2);
    let answer = pair.air.iter().find(|(_, it)| type_of(it) == Some(KEY_DIS));
    let answer = answer.expect("it was sent").1.clone();
    pair.feed(0, terminal::Input::FromServer(&answer));
    assert!(pair.is_current(0, group), "the true one still counts");

    let mut other = Pair::new(&FIRST, 1);
    let spoken = other.askers[0].machine.asks_in();
    assert_eq!(spoken, Some(SharingSuite::Hpke), "no RSA key is listed");
    other.feed(0, terminal::Input::LegacyKey(rsa(1)));
    let spoken = other.askers[0].machine.asks_in();
    assert_eq!(spoken, Some(SharingSuite::Hpke));
}

/// T-08, KR-385: one altered octet in KEY-DIS or ACK and nothing comes of it; of many only a few cost
/// private-key work.
#[test]
fn altered_messages_of_the_legacy_suite_move_nothing() {
    let mut pair = pair(1);
    let group = legacy_group(&mut pair, &[1]);
    pair.let_pass(|_, _, octets| match type_of(octets) {
        Some(KEY_DIS | ACK) => Fate::Lost,
        _ => Fate::Passes,
    });
    pair.ask(0);
    pair.run(Duration::from_millis(400));
    let answer = pair.air.iter().find(|(_, it)| type_of(it) == Some(KEY_DIS));
    let answer = answer.expect("it was sent").1.clone();
    // Every octet is altered in the tests of the messages.
    for place in (0..answer.len()).step_by(7) {
        let mut altered = answer.clone();
        altered[place] ^= 1;
        pair.now = pair.now.plus(Duration::from_millis(150));
        pair.feed(0, terminal::Input::FromServer(&altered));
        assert!(!pair.is_current(0, group), "octet {place}");
    }
    let mut altered = answer.clone();
    *altered.last_mut().unwrap() ^= 1;
    for _ in 0..50 {
        pair.feed(0, terminal::Input::FromServer(&altered));
    }
    assert!(drops(&pair, "verify_budget") >= 40);
    pair.now = pair.now.plus(Duration::from_secs(1));
    pair.feed(0, terminal::Input::FromServer(&answer));
    assert!(pair.is_current(0, group));
    let (_, ack) = pair.air.last().unwrap().clone();
    assert_eq!(type_of(&ack), Some(ACK));
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

/// KR-387, INVARIANT 5: a fresh epoch is sent with after its lead, for the answer does not say who else has
/// it; nor does a power cut meanwhile begin it earlier.
#[test]
fn a_fresh_epoch_of_the_legacy_suite_is_not_sent_with_at_once() {
    for cut in [false, true] {
        let mut pair = pair(1);
        let group = legacy_group(&mut pair, &[1]);
        pair.ask(0);
        pair.run(Duration::from_secs(5));
        let sends = |pair: &Pair| {
            let key = pair.askers[0].machine.send_key(group);
            key.map(MasterKey::epoch)
        };
        let first = sends(&pair).expect("where none was held, it sends at once");
        // No START comes.
        pair.let_pass(|_, _, octets| match type_of(octets) {
            Some(COMMAND) => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.order(Order::RekeyGroup { group }).unwrap();
        pair.ask(0);
        pair.run(Duration::from_secs(1));
        assert!(pair.is_current(0, group));
        assert_eq!(sends(&pair), Some(first));
        if cut {
            pair.restart(0);
            pair.ask(0);
            pair.run(Duration::from_secs(1));
            assert_eq!(sends(&pair), None, "the older one was not marked as in use");
        }
        pair.run(Duration::from_secs(9));
        let epoch = pair.askers[0].machine.groups()[0].epoch;
        assert!(epoch > first);
        assert_eq!(sends(&pair), Some(epoch), "cut: {cut}");
    }
}

/// KR-384: nobody signed the answer, so it moves a group no further than a key of class keys could: who
/// has the server's RSA key cannot run a terminal years ahead.
#[test]
fn a_key_beyond_what_the_online_keys_may_say_is_not_taken() {
    let mut pair = pair(1);
    let group = legacy_group(&mut pair, &[1]);
    pair.let_pass(without_answers);
    pair.ask(0);
    pair.run(Duration::from_millis(400));
    // 64 generations in 600 s are allowed, for 30 days and not for five years.
    let far = Generation::new(64 * 6 * 24 * 40).unwrap();
    let sealed = answer(&mut pair, group, far);
    assert!(pair.askers[0].machine.groups().is_empty());
    let (_, ack) = pair.air.last().unwrap();
    let Ok(Message::Ack { status, mac, .. }) = Message::decode_datagram(ack) else {
        panic!("{:?}", pair.types());
    };
    assert_eq!(status.number(), 1, "out of bounds");
    assert!(sealed.exchange.check_mac(1, &mac));
}

/// KR-384: nor does it bring anything after the end of the last key of class keys, which the RSA key
/// outlives by years.
#[test]
fn an_answer_after_the_end_of_the_online_keys_brings_nothing() {
    const ONLINE: Duration = Duration::from_secs(30 * 86_400);
    for (at, is_taken) in [
        (ONLINE - Duration::from_secs(60), true),
        (ONLINE + Duration::from_secs(60), false),
    ] {
        let mut pair = pair(1);
        let group = legacy_group(&mut pair, &[1]);
        pair.let_pass(without_answers);
        pair.ask(0);
        pair.run(Duration::from_millis(400));
        pair.now = Tick::default().plus(at);
        pair.ask(0);
        answer(&mut pair, group, Generation::ZERO);
        assert_eq!(pair.askers[0].machine.groups().len(), usize::from(is_taken));
        assert_eq!(drops(&pair, "signer_expired"), u64::from(!is_taken));
    }
}

fn without_answers(_: usize, _: bool, octets: &[u8]) -> Fate {
    match type_of(octets) {
        Some(KEY_DIS) => Fate::Lost,
        _ => Fate::Passes,
    }
}

/// To the newest request, by who has the server's RSA key: a key of that group.
fn answer(pair: &mut Pair, group: GroupNumber, generation: Generation) -> Sealed {
    let (asked, reference) = request(pair);
    let Ok(Message::KeyReq {
        request: KeyReq::RsaMisty1(key_req),
        ..
    }) = Message::decode_datagram(&asked)
    else {
        panic!("it asked in another suite");
    };
    let nonce = open_key_req(&rsa(0), key_req).unwrap().nonce;
    let epoch = KeyEpoch::fresh(None, crate::sharing::FOUNDED);
    let secret = Secret::init_with(|into| pair.rng.fill(into));
    let keys = [MasterKey::new(group, epoch, generation, secret)];
    let asked = Request { key_req, nonce };
    let sealed = seal_key_dis(rsa(1).public(), asked, &keys, &mut pair.rng).unwrap();
    let message = Message::KeyDis {
        reference,
        distribution: KeyDis::RsaMisty1(&sealed.key_dis),
    };
    pair.feed(0, terminal::Input::FromServer(&marked(&message.encode())));
    sealed
}

/// The RSA key outlives a power cut, with the wrap key and under the same seal.
#[test]
fn the_rsa_key_of_a_terminal_is_stored() {
    let mut pair = pair(1);
    let group = legacy_group(&mut pair, &[1]);
    let before = pair.askers[0].machine.legacy_key().cloned();
    pair.restart(0);
    assert_eq!(pair.askers[0].machine.legacy_key().cloned(), before);
    pair.ask(0);
    pair.run(Duration::from_secs(5));
    assert!(pair.is_current(0, group));
}

/// The suite needs an RSA key of the server's; without the suite there is none, listed or held.
#[test]
fn an_rsa_key_is_listed_with_the_suite_and_goes_with_it() {
    let mut pair = pair(1);
    assert!(pair.server.fleet().rsa.is_some());
    let draft = KeySetDraft::default();
    let command = pair.server.draft_key_set(draft, &mut pair.rng).unwrap();
    let frame = pair.root.sign(&command);
    pair.order(Order::InstallKeys { frame }).unwrap();
    let held = pair.server.fleet().rsa.as_ref().expect("it stays");
    assert!(held.public().is_listed_in(&pair.server.fleet().key_set));
    let draft = KeySetDraft {
        suites: Suites::new(&[SharingSuite::Hpke]),
        ..KeySetDraft::default()
    };
    let command = pair.server.draft_key_set(draft, &mut pair.rng).unwrap();
    let frame = pair.root.sign(&command);
    pair.order(Order::InstallKeys { frame }).unwrap();
    assert!(pair.server.fleet().rsa.is_none());
    assert!(!rsa(0).public().is_listed_in(&pair.server.fleet().key_set));
    let draft = KeySetDraft {
        suites: Suites::new(&FIRST),
        ..KeySetDraft::default()
    };
    let refused = pair.server.draft_key_set(draft, &mut pair.rng).err();
    assert_eq!(refused, Some(Refusal::NoRsaKey));
}
