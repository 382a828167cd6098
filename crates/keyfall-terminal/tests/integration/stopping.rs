//! The key of a running call changes: by STOP and START, and by START alone (REQUIREMENTS R-074,
//!

use keyfall_api::control::{RelayStatus, TerminalStatus};
use keyfall_protocol::command::{Body, Halt};

use crate::fleet::GROUP;
use crate::relay::{Call, SSRC};
use crate::running::{begin, eavesdropper, rtp, take};

impl Call {
    /// Both hear it.
    fn order(&self, body: Body) {
        let frame = self.fleet.keys.sign(&self.fleet.command(body));
        self.to_bob.tell(&frame);
        self.to_alice.tell(&frame);
    }

    fn stops(&self, halt: Halt) {
        self.order(Body::Stop(halt));
        let stopped = |status: &TerminalStatus| status.groups[0].state == "stopped";
        self.alice.until("alice is silent", stopped);
        self.bob.until("bob is silent", stopped);
    }

    fn speaks(&self, sequences: impl IntoIterator<Item = u16>) {
        for sequence in sequences {
            self.speak(&rtp(sequence, SSRC));
        }
    }

    fn hears(&self, sequences: impl IntoIterator<Item = u16>) {
        for sequence in sequences {
            assert_eq!(self.application.take(), rtp(sequence, SSRC), "{sequence}");
        }
    }
}

fn relay(status: &TerminalStatus) -> &RelayStatus {
    &status.relays[0]
}

/// what is spoken between STOP and START waits, and nothing of it leaves under the old key;
/// then all of it goes out, in order.
#[test]
fn what_is_spoken_during_a_stop_is_heard_after_start_in_its_order() {
    let call = Call::new();
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &call.send_request());
    call.passes(0..50);
    let ear = eavesdropper(call.wire);
    let halt = call.fleet.halt(1, 1, 60);
    call.stops(halt);
    let status = call.alice.status();
    assert_eq!(status.groups[0].sending, None);
    assert!(status.groups[0].stopped_until.is_some());
    call.speaks(50..350);
    call.alice
        .until("all of it waits", |status| relay(status).waiting == 300);
    assert!(call.application.is_silent());
    ear.set_nonblocking(true).unwrap();
    assert_eq!(take(&ear), None, "nothing was on the wire");
    call.order(Body::Start(halt));
    // What is spoken while those go out is heard after them.
    call.speaks(350..500);
    call.hears(50..500);
    call.passes(500..520);
    let status = call.alice.status();
    assert_eq!((relay(&status).waiting, relay(&status).packets), (0, 520));
    assert!(relay(&status).delayed >= 300, "{status:?}");
    assert_eq!(relay(&status).generation, Some(1));
    assert!(relay(&status).drops.is_empty(), "{status:?}");
    assert_eq!(status.groups[0].stopped_until, None);
}

/// the START is lost, and the call goes on by itself.
#[test]
fn a_call_whose_start_was_lost_goes_on_at_the_deadline() {
    let call = Call::new();
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &call.send_request());
    call.passes(0..10);
    call.stops(call.fleet.halt(1, 1, 3));
    call.speaks(10..40);
    call.hears(10..40);
    call.passes(40..50);
    assert_eq!(relay(&call.alice.status()).generation, Some(1));
}

/// hitless. Nobody is silent, nothing is lost.
#[test]
fn start_alone_in_mid_stream_loses_and_delays_no_packet() {
    let call = Call::new();
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &call.send_request());
    call.passes(0..50);
    for generation in 1..=5 {
        let halt = call.fleet.halt(u64::from(generation), generation, 60);
        call.order(Body::Start(halt));
        let from = u16::try_from(generation).unwrap() * 50;
        call.passes(from..from + 50);
        let sends = |status: &TerminalStatus| status.groups[0].sending == Some(generation);
        call.alice.until("alice sends under it", sends);
        call.bob.until("bob sends under it", sends);
    }
    call.passes(300..310);
    let status = call.alice.status();
    assert_eq!((relay(&status).packets, relay(&status).waiting), (310, 0));
    assert_eq!(relay(&status).delayed, 0);
    assert!(relay(&status).drops.is_empty());
}

/// more than the queue holds. The oldest go, they are counted, and the rest keeps its order.
#[test]
fn of_more_than_the_queue_holds_the_oldest_go_and_are_counted() {
    let call = Call::new();
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &call.send_request());
    call.passes(0..10);
    let halt = call.fleet.halt(1, 1, 60);
    call.stops(halt);
    let queued = |status: &TerminalStatus| {
        let gone = relay(status)
            .drops
            .iter()
            .map(|drop| drop.count)
            .sum::<u64>();
        u64::from(relay(status).waiting) + gone
    };
    for from in (10..610).step_by(50) {
        call.speaks(from..from + 50);
        let so_far = u64::from(from + 50 - 10);
        call.alice
            .until("they came", |status| queued(status) == so_far);
    }
    let lost = call.alice.drops("stop_queue");
    assert!(lost >= 600 - 512, "{lost}");
    call.order(Body::Start(halt));
    let first = 10 + u16::try_from(lost).unwrap();
    call.hears(first..610);
    call.passes(610..620);
}

/// W-07: the members hold the group's key, and halt nobody with it. Nor does a recording.
#[test]
fn nobody_but_the_server_stops_a_call_and_no_recording_does() {
    let call = Call::new();
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &call.send_request());
    let halt = call.fleet.halt(1, 1, 60);
    let stop = call.fleet.keys.sign(&call.fleet.command(Body::Stop(halt)));
    call.to_alice.tell(&stop);
    call.to_alice
        .tell(&call.fleet.keys.sign(&call.fleet.command(Body::Start(halt))));
    call.alice.until("it was changed", |status| {
        status.groups[0].sending == Some(1)
    });
    let stranger = crate::fleet::Fleet::other();
    let forged = stranger
        .keys
        .sign(&stranger.command(Body::Stop(call.fleet.halt(2, 1, 60))));
    for _ in 0..3 {
        call.to_alice.tell(&stop);
        call.to_alice.tell(&forged);
    }
    call.passes(0..20);
    call.alice.until("both were refused", |_| {
        call.alice.drops("unknown_signer") >= 3 && call.alice.drops("not_newer") >= 3
    });
    call.passes(20..30);
    assert_eq!(call.alice.status().groups[0].group, GROUP);
}
