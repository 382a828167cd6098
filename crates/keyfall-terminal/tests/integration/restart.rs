//! What holds across restarts: marks, sessions, keys.

use keyfall_api::control::Request;

use crate::fleet::{Carrier, Fleet, GROUP, multicast};
use crate::running::{
    Application, Running, begin, eavesdropper, free_place, receive_request, rtp, send_request,
    stranger, take,
};

/// FORMATS section 7: nothing delivered before is delivered again, through any restart; and a
/// restarted sender never uses a session again (INVARIANT 3).
#[test]
fn nothing_is_delivered_twice_and_no_session_returns() {
    let fleet = Fleet::new();
    let (to_alice, to_bob) = (Carrier::new(), Carrier::new());
    let dirs = tempfile::tempdir().unwrap();
    let (alice_dir, bob_dir) = (dirs.path().join("alice"), dirs.path().join("bob"));
    let alice = Running::member(&fleet, &to_alice, &alice_dir, 1);
    let bob = Running::member(&fleet, &to_bob, &bob_dir, 2);
    let (microphone, wire, application) = (free_place(), multicast(), Application::new());
    let ear = eavesdropper(wire);
    let receive = Request::MediaReceive(receive_request(wire, application.place));
    let send = Request::MediaSend(send_request(microphone, wire));
    let hears = begin(&bob_dir, &receive);
    let speaks = begin(&alice_dir, &send);
    let recorded: Vec<_> = (0..300u16)
        .map(|sequence| {
            application
                .rtcp
                .send_to(&rtp(sequence, 5), microphone)
                .unwrap();
            assert_eq!(application.take(), rtp(sequence, 5));
            take(&ear).unwrap()
        })
        .collect();

    // Ended and begun again within one run: every packet is known.
    drop(hears);
    bob.until("the relay ends", |status| status.relays.is_empty());
    let hears = begin(&bob_dir, &receive);
    let thief = stranger();
    for packet in &recorded {
        thief.send_to(packet, wire).unwrap();
    }
    bob.until("all are refused", |status| {
        status.relays[0]
            .drops
            .iter()
            .map(|drop| drop.count)
            .sum::<u64>()
            == 300
    });
    assert!(application.is_silent());

    // Through a restart of the receiver: all are under the mark, and what is far enough ahead is
    // delivered.
    drop(hears);
    bob.stop();
    let bob = Running::start(&bob_dir);
    to_bob.tell(&fleet.time());
    let _hears = begin(&bob_dir, &receive);
    for packet in &recorded {
        thief.send_to(packet, wire).unwrap();
    }
    bob.until("all are refused", |status| {
        status.relays[0]
            .drops
            .iter()
            .map(|drop| drop.count)
            .sum::<u64>()
            == 300
    });
    assert!(application.is_silent());
    let say = |sequence| {
        application
            .rtcp
            .send_to(&rtp(sequence, 5), microphone)
            .unwrap();
    };
    say(5000);
    assert_eq!(application.take(), rtp(5000, 5));

    // Through a restart of the sender: another session, and the same key.
    let session = alice.status().relays[0].session.clone();
    let fingerprint = alice.status().groups[0].fingerprint.clone();
    drop(speaks);
    alice.stop();
    let alice = Running::start(&alice_dir);
    to_alice.tell(&fleet.time());
    alice.until("the beacon", |status| status.time.is_some());
    let _speaks = begin(&alice_dir, &send);
    say(0);
    assert_eq!(application.take(), rtp(0, 5));
    let status = alice.status();
    assert!(status.relays[0].session.is_some() && status.relays[0].session != session);
    assert_eq!(status.groups[0].fingerprint, fingerprint);
}

/// A terminal that was off while its group was renewed sends under the newest at once.
#[test]
fn what_was_renewed_is_what_is_stored() {
    let fleet = Fleet::new();
    let carrier = Carrier::new();
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("alice");
    let alice = Running::member(&fleet, &carrier, &dir, 1);
    carrier.tell(&fleet.renew(GROUP, 40));
    alice.until("renewed", |status| status.groups[0].sending == Some(40));
    alice.stop();
    let status = keyfall_terminal::stored_status(&dir).unwrap();
    assert!(!status.running);
    assert_eq!(
        (status.groups[0].generation, status.groups[0].sending),
        (40, Some(40))
    );
}
