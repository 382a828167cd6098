//! The control socket: malformed requests, strangers' relays, ends.

use std::os::unix::fs::PermissionsExt;

use keyfall_api::control::{Answer, Refusal, Request};

use crate::fleet::{Carrier, Fleet, multicast};
use crate::running::{
    Application, Running, Talk, ask, begin, free_place, receive_request, send_request,
};

struct One {
    alice: Running,
    carrier: Carrier,
    _dirs: tempfile::TempDir,
}

fn one() -> One {
    let (fleet, carrier) = (Fleet::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let alice = Running::member(&fleet, &carrier, &dirs.path().join("alice"), 1);
    One {
        alice,
        carrier,
        _dirs: dirs,
    }
}

/// What a program got wrong is told once.
#[test]
fn malformed_request_gets_one_error_line_and_the_end() {
    let one = one();
    let long = format!("{{\"request\":\"{}\"}}", "x".repeat(20_000));
    for line in [
        "",
        "nonsense",
        "{}",
        "[1,2",
        "{\"request\":\"fly\"}",
        "{\"request\":\"media-stop\"}",
        "{\"request\":\"media-stop\",\"relay\":-1}",
        "{\"request\":\"status\",\"and\":1}",
        "{\"request\":\"media-send\",\"group\":7,\"rtp\":\"127.0.0.1:5004\",\"to\":\"x\",\"ttl\":999}",
        &long,
    ] {
        let mut talk = Talk::to(&one.alice.dir);
        talk.say(line);
        match talk.hear() {
            Answer::Error(error) => assert_eq!(error.refusal, Refusal::BadRequest, "{line}"),
            other => panic!("{line}: {other:?}"),
        }
        assert_eq!(talk.line(), "", "{line}");
    }
    // Nothing changed, and it still answers.
    assert!(one.alice.status().relays.is_empty());
}

/// A script that pipes its request in and closes gets its answer; a relay ends with that.
#[test]
fn half_closed_connection_is_answered() {
    let one = one();
    let mut talk = Talk::to(&one.alice.dir);
    talk.say("{\"request\":\"status\"}");
    talk.close_writing();
    assert!(matches!(talk.hear(), Answer::Status(_)));
    assert_eq!(talk.line(), "");
    let mut talk = begin(
        &one.alice.dir,
        &Request::MediaSend(send_request(free_place(), multicast())),
    );
    talk.close_writing();
    while !matches!(talk.hear(), Answer::Ended(_)) {}
    assert_eq!(talk.line(), "");
}

/// Noise, another fleet's commands and cut ones are counted by reason and change nothing.
#[test]
fn why_counts_what_the_carrier_brought_in_vain() {
    let one = one();
    let before = one.alice.status();
    let other = Fleet::other();
    let mut cut = other.time();
    cut.pop();
    for frame in [
        other.time(),
        other.renew(7, 9),
        cut,
        vec![0; 1200],
        Vec::new(),
    ] {
        one.carrier.tell(&frame);
    }
    one.alice
        .until("all are heard", |status| status.frames == before.frames + 5);
    assert_eq!(
        (
            one.alice.drops("unknown_signer"),
            one.alice.drops("malformed")
        ),
        (2, 3)
    );
    for reason in one.alice.why().reasons {
        assert!(reason.code.starts_with("KF-1") && reason.sentence.len() > 20);
    }
    assert_eq!(one.alice.status().groups, before.groups);
}

/// Each wrong value is told in one sentence, and nothing is open afterwards.
#[test]
fn media_request_that_cannot_be_is_refused_in_one_sentence() {
    let one = one();
    let taken = Application::new();
    let good_send = || send_request(free_place(), multicast());
    let good_receive = || receive_request(multicast(), free_place());
    let mut wrong = Vec::new();
    let mut send = |change: &dyn Fn(&mut keyfall_api::control::MediaSend), words, refusal| {
        let mut request = good_send();
        change(&mut request);
        wrong.push((Request::MediaSend(request), words, refusal));
    };
    send(&|r| r.group = 0, "0 is no group", Refusal::BadRequest);
    send(&|r| r.group = 8, "no key of group 8", Refusal::NotAMember);
    send(
        &|r| r.rtp = "here".into(),
        "write --rtp as in",
        Refusal::BadRequest,
    );
    send(
        &|r| r.rtp = "127.0.0.1:0".into(),
        "leaves none for RTCP",
        Refusal::BadRequest,
    );
    send(
        &|r| r.rtp = "127.0.0.1:65535".into(),
        "leaves none for RTCP",
        Refusal::BadRequest,
    );
    send(
        &|r| r.rtp = "239.1.1.1:5004".into(),
        "address of this machine",
        Refusal::BadRequest,
    );
    send(
        &|r| r.rtp = taken.place.to_string(),
        "listens on",
        Refusal::Address,
    );
    send(
        &|r| r.rtp = "192.0.2.1:5004".into(),
        "no address of this machine",
        Refusal::Address,
    );
    send(
        &|r| r.suite = Some("rot13".into()),
        "not an SRTP suite",
        Refusal::BadRequest,
    );
    send(
        &|r| r.rederive_after = Some(1000),
        "power of two",
        Refusal::BadRequest,
    );
    send(
        &|r| r.rederive_after = Some(512),
        "power of two",
        Refusal::BadRequest,
    );
    send(
        &|r| r.interface = Some("eth0".into()),
        "--if 127.0.0.1",
        Refusal::BadRequest,
    );
    send(
        &|r| r.interface = Some("192.0.2.1".into()),
        "cannot send to",
        Refusal::Address,
    );
    send(&|r| r.mki = true, "leave --mki away", Refusal::BadRequest);
    send(
        &|r| (r.stock, r.rederive_after) = (true, Some(1024)),
        "leave --rederive-after away",
        Refusal::BadRequest,
    );
    let mut plain_to_many = good_receive();
    plain_to_many.rtp = "239.1.1.1:6004".into();
    let words = "the local application";
    wrong.push((
        Request::MediaReceive(plain_to_many),
        words,
        Refusal::BadRequest,
    ));
    wrong.push((
        Request::MediaStop { relay: 9 },
        "no relay 9 runs",
        Refusal::NoSuchRelay,
    ));
    let octets = "zz".to_owned();
    let inspect = Request::Inspect {
        octets,
        stretch: None,
    };
    wrong.push((inspect, "not hexadecimal", Refusal::BadRequest));

    for (request, words, refusal) in wrong {
        match ask(&one.alice.dir, &request) {
            Answer::Error(error) => {
                assert!(
                    error.sentence.contains(words),
                    "{request:?}: {}",
                    error.sentence
                );
                assert_eq!(error.refusal, refusal, "{request:?}");
                assert!(!error.sentence.contains('\n'));
            }
            other => panic!("{request:?}: {other:?}"),
        }
    }
    assert!(one.alice.status().relays.is_empty());
}

#[test]
fn relay_ends_with_its_connection_or_by_request() {
    let one = one();
    let place = free_place();
    let send = Request::MediaSend(send_request(place, multicast()));
    let talk = begin(&one.alice.dir, &send);
    drop(talk);
    one.alice
        .until("the relay ends", |status| status.relays.is_empty());

    // Its ports are free again, and somebody else may end it.
    let mut talk = begin(&one.alice.dir, &send);
    assert!(matches!(talk.hear(), Answer::Progress(_)));
    let stopped = ask(&one.alice.dir, &Request::MediaStop { relay: 2 });
    assert!(matches!(stopped, Answer::Stopped(_)), "{stopped:?}");
    loop {
        match talk.hear() {
            Answer::Progress(_) => {}
            Answer::Ended(status) => break assert_eq!(status.relay, 2),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn same_packets_are_not_received_twice_at_a_time() {
    let one = one();
    let wire = multicast();
    let receive = || Request::MediaReceive(receive_request(wire, free_place()));
    let _first = begin(&one.alice.dir, &receive());
    match ask(&one.alice.dir, &receive()) {
        Answer::Error(error) => assert_eq!(error.refusal, Refusal::Taken),
        other => panic!("{other:?}"),
    }
}

#[test]
fn socket_and_directory_are_for_their_owner_only() {
    let one = one();
    for (path, mode) in [
        (one.alice.dir.join("control.sock"), 0o600),
        (one.alice.dir.clone(), 0o700),
    ] {
        let permissions = std::fs::metadata(path).unwrap().permissions();
        assert_eq!(permissions.mode() & 0o777, mode);
    }
    let dir = one.alice.dir.clone();
    one.alice.stop();
    assert!(!dir.join("control.sock").exists());
}
