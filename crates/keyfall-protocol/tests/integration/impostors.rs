//! First contact by a token (FORMATS section 8; REQUIREMENTS ): who says that he is the server.

use std::time::Duration;

use keyfall_protocol::command::{Body, KeySet, SigningKey, Unverified, VerifyingKey};
use keyfall_protocol::ids::{Generation, GroupNumber};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::Random as _;
use keyfall_protocol::server::TOKEN_LIFE;
use keyfall_protocol::sharing::message::{
    KeyDis, KeyReq, Message, RequestHash, marked, message_in, type_of,
};
use keyfall_protocol::sharing::pair::{Grant, Line};
use keyfall_protocol::sharing::{Introduction, KemPublic, KemSuite, SharingSuite};
use keyfall_protocol::terminal::{AskOutcome, FirstContactError};
use keyfall_protocol::token::Token;

use crate::sharing::{Fate, KEY_DIS, Pair};
use crate::tokens::{FIRST, HELLO, INTRODUCTION, KEY_REQ, PART, SECONDS};

/// The server is one of another fleet (T-06).
#[test]
fn who_shows_another_root_is_not_asked() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 0);
    let token = Token::random(&VerifyingKey::new([9; 32]), &mut pair.rng);
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.arrive(&token, FIRST);
    pair.run(SECONDS(30));
    assert_eq!(pair.newcomers[0].ended, Some(FirstContactError::OtherRoot));
    assert!(
        pair.types()
            .iter()
            .all(|kind| [HELLO, INTRODUCTION].contains(kind))
    );
}

/// Somebody in between changes the introduction: nothing is asked, and the true one still counts.
#[test]
fn an_introduction_that_the_root_did_not_sign_is_not_believed() {
    let mut pair = Pair::new(&[SharingSuite::HpkePq], 0);
    let forger = SigningKey::from_seed(Secret::init_with(|into| pair.rng.fill(into)));
    let true_one = pair.server.introduction();
    let key_set = true_one.key_set().expect("signed");
    let other_keys = Introduction {
        key_set_frame: forged(&key_set, &true_one, &forger),
        ..true_one.clone()
    };
    let other_root = Introduction {
        root: forger.public(),
        ..other_keys.clone()
    };
    let other_kem = Introduction {
        long_keys: vec![vec![7; 1216]],
        ..true_one.clone()
    };
    for (forged, ends) in [
        (other_keys, FirstContactError::KeySetNotSigned),
        (other_root, FirstContactError::OtherRoot),
        (other_kem, FirstContactError::NoSuite),
    ] {
        for true_comes in [false, true] {
            let mut pair = Pair::new(&[SharingSuite::HpkePq], 0);
            let token = pair.token_for("dave", TOKEN_LIFE);
            pair.let_pass(move |_, up, octets| match type_of(octets) {
                Some(INTRODUCTION) if !up && !true_comes => Fate::Lost,
                _ => Fate::Passes,
            });
            pair.arrive(&token, FIRST);
            for datagram in pieces(&forged) {
                pair.tell_newcomer(0, &datagram);
            }
            pair.run(SECONDS(30));
            if true_comes {
                assert_eq!(pair.newcomers[0].ended, None, "{ends:?}");
                assert_eq!(pair.askers[0].ended, [AskOutcome::Current], "{ends:?}");
            } else {
                assert_eq!(pair.newcomers[0].ended, Some(ends));
                assert!(
                    pair.types()
                        .iter()
                        .all(|kind| *kind == HELLO || *kind == INTRODUCTION)
                );
            }
        }
    }
}

/// The KEYSET signed by somebody else.
fn forged(key_set: &KeySet, true_one: &Introduction, forger: &SigningKey) -> Vec<u8> {
    let unverified = Unverified::decode(&true_one.key_set_frame).expect("it reads");
    let mut command = unverified.command().clone();
    command.body = Body::KeySet(key_set.clone());
    forger.sign(&command)
}

fn pieces(introduction: &Introduction) -> Vec<Vec<u8>> {
    let whole = introduction.encode();
    let hash = *RequestHash::of(&whole).as_bytes();
    let pieces: Vec<_> = whole.chunks(1100).collect();
    let count = pieces.len() as u8;
    let message = |(piece, octets): (u8, &[u8])| {
        let message = Message::Introduction {
            piece,
            pieces: count,
            hash,
            octets,
        };
        marked(&message.encode())
    };
    (0..).zip(pieces).map(message).collect()
}

/// T-06: who has the token, and even the server's KEM key, cannot answer for the server without one of
/// its signing keys; the true answer still counts.
#[test]
fn an_answer_that_no_listed_key_signed_is_not_believed() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 0);
    let token = pair.token_for("dave", TOKEN_LIFE);
    pair.let_pass(|_, up, octets| match type_of(octets) {
        Some(KEY_DIS | PART) if !up => Fate::Lost,
        _ => Fate::Passes,
    });
    pair.arrive(&token, FIRST);
    pair.run(Duration::from_millis(200));
    let mut requests = pair
        .air
        .iter()
        .filter(|(up, octets)| *up && type_of(octets) == Some(KEY_REQ));
    let request = requests.next_back().expect("it asked").1.clone();
    let message = message_in(&request).expect("a datagram");
    let Ok(Message::KeyReq {
        request: KeyReq::Hpke { enc, ct, .. },
        cookie,
    }) = Message::decode(message)
    else {
        panic!("suite hpke");
    };
    let kem = pair.server.fleet().kem.as_ref().expect("founded with it");
    let inner = kem.open(b"KF1/key-req", enc, ct).expect("to the server");
    let Ok(Message::KeyReq {
        request: KeyReq::Psk(sealed),
        ..
    }) = Message::decode(&inner)
    else {
        panic!("the pair's");
    };
    let key = token.key();
    let ask = sealed.open(&key, cookie).expect("under the token");
    let fresh = KemPublic::new(KemSuite::X25519, &ask.fresh.expect("hpke")).expect("a key");
    let forger = SigningKey::from_seed(Secret::init_with(|into| pair.rng.fill(into)));
    let hash = RequestHash::of(message);
    for (signer, nonce) in [
        (&forger, ask.nonce),
        (&pair.server.fleet().beat, ask.nonce),
        (&pair.server.fleet().keys, [0; 16]),
    ] {
        let grant = Grant {
            nonce,
            time: pair.moment().wall,
            g: Generation::ZERO,
            keys: Vec::new(),
            gone: Vec::<GroupNumber>::new(),
            more: true,
            first: Some(Secret::init_with(|into| into.fill(1))),
            package: None,
        };
        let suite = SharingSuite::Hpke;
        let line = Line { suite, wrap: &key };
        let mut rng = crate::stream::Stream::new("forger");
        let (answer, _) = grant.seal(line, &hash, signer, &mut rng);
        let info = [b"KF1/key-dis", &hash.as_bytes()[..]].concat();
        let (enc, ct) = fresh.seal(&info, &answer, &mut rng).expect("a key");
        let reference = hash.reference();
        let distribution = KeyDis::Hpke {
            suite,
            enc: &enc,
            ct: &ct,
        };
        let forged = Message::KeyDis {
            reference,
            distribution,
        };
        let datagram = marked(&forged.encode());
        pair.newcomers[0].contact.handle_input(
            pair.now,
            &mut rng,
            keyfall_protocol::terminal::ContactInput::FromServer(&datagram),
        );
    }
    assert!(pair.askers.is_empty());
    pair.let_pass(|_, _, _| Fate::Passes);
    pair.run(SECONDS(10));
    assert!(pair.agree(0, "dave"));
}

/// T-06: one false introduction before the true one does not spoil what goes on well.
#[test]
fn a_false_introduction_is_forgotten_once_the_true_one_came() {
    let mut pair = Pair::new(&[SharingSuite::Hpke], 0);
    let token = pair.token_for("dave", TOKEN_LIFE);
    let forger = SigningKey::from_seed(Secret::init_with(|into| pair.rng.fill(into)));
    let forged = Introduction {
        root: forger.public(),
        ..pair.server.introduction()
    };
    let mut lost = 0;
    pair.let_pass(move |_, up, octets| match type_of(octets) {
        Some(KEY_DIS | PART) if !up && lost < 4 => {
            lost += 1;
            Fate::Lost
        }
        _ => Fate::Passes,
    });
    pair.arrive(&token, FIRST);
    for datagram in pieces(&forged) {
        pair.tell_newcomer(0, &datagram);
    }
    pair.run(SECONDS(60));
    assert_eq!(pair.newcomers[0].ended, None);
    assert!(pair.agree(0, "dave"));
}

/// KR-376: no signature covers the public keys beside the KEYSET. Who leaves one out changes no suite.
#[test]
fn who_withholds_a_public_key_changes_no_suite() {
    for true_comes in [false, true] {
        let mut pair = Pair::new(&[SharingSuite::HpkePq, SharingSuite::Hpke], 0);
        let token = pair.token_for("dave", TOKEN_LIFE);
        let forged = Introduction {
            long_keys: Vec::new(),
            ..pair.server.introduction()
        };
        pair.let_pass(move |_, up, octets| match type_of(octets) {
            Some(INTRODUCTION) if !up && !true_comes => Fate::Lost,
            _ => Fate::Passes,
        });
        pair.arrive(&token, FIRST);
        for datagram in pieces(&forged) {
            pair.tell_newcomer(0, &datagram);
        }
        pair.run(SECONDS(30));
        // hpke-pq goes in parts.
        assert!(!pair.types().contains(&KEY_REQ), "nothing in hpke");
        let ended = (!true_comes).then_some(FirstContactError::NoSuite);
        assert_eq!(pair.newcomers[0].ended, ended);
        assert_eq!(pair.askers.len(), usize::from(true_comes));
    }
}
