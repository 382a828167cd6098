//! RTP in, SRTP over multicast, RTP out.

use keyfall_api::control::{Answer, MediaReceive, Request, TerminalStatus};
use keyfall_plane::{MKI_LEN, StaticReceiver};
use keyfall_protocol::keys::{SrtpMaster, SrtpSuite};

use crate::fleet::{Carrier, Fleet, GROUP, multicast};
use crate::running::{
    Application, Running, ask, begin, eavesdropper, free_place, receive_request, rtcp, rtp,
    send_request, take,
};

/// Alice sends, bob receives, each hears a carrier of its own.
pub(crate) struct Call {
    pub(crate) fleet: Fleet,
    pub(crate) to_alice: Carrier,
    pub(crate) to_bob: Carrier,
    pub(crate) alice: Running,
    pub(crate) bob: Running,
    /// Where the sending application sends to.
    pub(crate) microphone: std::net::SocketAddrV4,
    pub(crate) wire: std::net::SocketAddrV4,
    pub(crate) application: Application,
    dirs: tempfile::TempDir,
}

impl Call {
    pub(crate) fn new() -> Self {
        let fleet = Fleet::new();
        let (to_alice, to_bob) = (Carrier::new(), Carrier::new());
        let dirs = tempfile::tempdir().unwrap();
        let alice = Running::member(&fleet, &to_alice, &dirs.path().join("alice"), 1);
        let bob = Running::member(&fleet, &to_bob, &dirs.path().join("bob"), 2);
        Self {
            fleet,
            to_alice,
            to_bob,
            alice,
            bob,
            microphone: free_place(),
            wire: multicast(),
            application: Application::new(),
            dirs,
        }
    }

    pub(crate) fn send_request(&self) -> Request {
        Request::MediaSend(send_request(self.microphone, self.wire))
    }

    pub(crate) fn receive_request(&self) -> Request {
        Request::MediaReceive(receive_request(self.wire, self.application.place))
    }

    /// Speaks one packet; the application's own socket sends.
    pub(crate) fn speak(&self, packet: &[u8]) {
        self.application
            .rtcp
            .send_to(packet, self.microphone)
            .unwrap();
    }

    /// Speaks and hears the same.
    pub(crate) fn passes(&self, sequences: impl IntoIterator<Item = u16>) {
        for sequence in sequences {
            self.speak(&rtp(sequence, SSRC));
            assert_eq!(self.application.take(), rtp(sequence, SSRC), "{sequence}");
        }
    }
}

/// R-020, with RTCP.
#[test]
fn what_is_spoken_is_heard_and_nothing_of_it_is_on_the_wire() {
    let call = Call::new();
    let ear = eavesdropper(call.wire);
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &call.send_request());
    call.passes(65_500..=65_535);
    call.passes(0..=20);
    let protected = take(&ear).unwrap();
    assert_eq!(protected.len(), rtp(0, SSRC).len() + 30);
    assert_ne!(protected[12..172], rtp(65_500, SSRC)[12..172]);

    let mut rtcp_in = call.microphone;
    rtcp_in.set_port(rtcp_in.port() + 1);
    call.application.rtp.send_to(&rtcp(SSRC), rtcp_in).unwrap();
    assert_eq!(take(&call.application.rtcp).unwrap(), rtcp(SSRC));
    let status = call.bob.status();
    assert_eq!(status.relays[0].first_packet_opened, Some(true));
    assert_eq!(
        (status.relays[0].packets, status.relays[0].rtcp_packets),
        (57, 1)
    );
    assert!(status.relays[0].drops.is_empty(), "{status:?}");
}

/// A stranger's packet to a second relay, which reads with another stretch, takes nothing from the
/// stream that the first one hears.
#[test]
fn forged_packet_for_another_stretch_ends_no_stream() {
    let call = Call::new();
    let ear = eavesdropper(call.wire);
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let (second, place) = (Application::new(), free_place());
    let other = Request::MediaReceive(MediaReceive {
        rederive_after: Some(1024),
        ..receive_request(place, second.place)
    });
    let _other = begin(&call.bob.dir, &other);
    let _send = begin(&call.alice.dir, &call.send_request());
    call.passes(0..20);
    let mut forged = take(&ear).unwrap();
    forged[20] ^= 1;
    for _ in 0..3 {
        call.application.rtcp.send_to(&forged, place).unwrap();
    }
    call.bob.until("the forgeries were refused", |status| {
        let drops = status.relays.iter().flat_map(|relay| &relay.drops);
        drops.map(|drop| drop.count).sum::<u64>() >= 3
    });
    call.passes(20..60);
}

/// R-042, INVARIANT 5: nothing is lost at a change of generation.
#[test]
fn renewal_in_mid_stream_loses_no_packet() {
    let call = Call::new();
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &call.send_request());
    call.passes(0..50);
    for generation in 1..=5 {
        let frame = call.fleet.renew(GROUP, generation);
        call.to_bob.tell(&frame);
        call.to_alice.tell(&frame);
        let from = u16::try_from(generation).unwrap() * 50;
        call.passes(from..from + 50);
        let sends = |status: &TerminalStatus| status.groups[0].sending == Some(generation);
        call.alice.until("alice sends under it", sends);
        call.bob.until("bob holds it", sends);
    }
    call.passes(300..320);
    assert_eq!(call.bob.status().relays[0].generation, Some(5));
}

/// who missed a RENEW learns of it from the traffic.
#[test]
fn who_missed_renewals_catches_up_from_the_traffic() {
    let call = Call::new();
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &call.send_request());
    call.passes(0..10);
    call.to_alice.tell(&call.fleet.renew(GROUP, 9));
    call.alice
        .until("alice sends", |status| status.groups[0].sending == Some(9));
    call.passes(10..20);
    call.bob.until("bob is at it too", |status| {
        status.groups[0].generation == 9 && status.groups[0].sending == Some(9)
    });
    let (alice, bob) = (call.alice.status(), call.bob.status());
    assert_eq!(alice.groups[0].fingerprint, bob.groups[0].fingerprint);
}

/// R-064, FORMATS section 6: a receiver that joins late opens the first packet it hears, also after re-derivations.
#[test]
fn late_joiner_hears_from_the_first_packet() {
    let call = Call::new();
    let Request::MediaSend(mut send) = call.send_request() else {
        unreachable!()
    };
    send.rederive_after = Some(1024);
    let Request::MediaReceive(mut receive) = call.receive_request() else {
        unreachable!()
    };
    receive.rederive_after = Some(1024);
    let _send = begin(&call.alice.dir, &Request::MediaSend(send));
    for (spoken, sequence) in (1..).zip(60_000..=u16::MAX) {
        call.speak(&rtp(sequence, SSRC));
        // No faster than the relay, however busy the machine is.
        if spoken % 100 == 0 || sequence == u16::MAX {
            let sent = |status: &TerminalStatus| status.relays[0].packets == spoken;
            call.alice.until("all are sent", sent);
        }
    }
    call.speak(&rtp(0, SSRC));
    call.alice.until("after the wrap", |status| {
        status.relays[0].stretch == Some(64)
    });
    let _receive = begin(&call.bob.dir, &Request::MediaReceive(receive));
    call.passes(1..2100);
    let relay = &call.bob.status().relays[0];
    assert_eq!(
        (relay.first_packet_opened, relay.stretch),
        (Some(true), Some(66))
    );
}

/// FORMATS section 6: numbers that jump back begin a new session, and no packet is lost for it.
#[test]
fn application_that_starts_over_gets_a_new_session() {
    let call = Call::new();
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &call.send_request());
    call.passes(1000..1050);
    let first = call.alice.status().relays[0].session.clone();
    call.passes(0..50);
    let second = call.alice.status().relays[0].session.clone();
    assert!(first.is_some() && second.is_some() && first != second);
    // Two SSRCs share the session and nothing else.
    call.speak(&rtp(7, 99));
    assert_eq!(call.application.take(), rtp(7, 99));
    assert_eq!(call.alice.status().relays[0].streams, 2);
}

/// who holds no key of the group is refused at both ends, and hears nothing.
#[test]
fn stranger_to_the_group_is_refused() {
    let call = Call::new();
    let carol_hears = Carrier::new();
    let dir = call.dirs.path().join("carol");
    call.fleet.enrol(&dir, 3, &carol_hears.address);
    let carol = Running::start(&dir);
    carol_hears.tell(&call.fleet.time());
    carol_hears.tell(&call.fleet.key_dist(GROUP, 0, &[1, 2]));
    for request in [call.send_request(), call.receive_request()] {
        match ask(&dir, &request) {
            Answer::Error(error) => assert!(error.sentence.contains("no key of group 7")),
            other => panic!("{other:?}"),
        }
    }
    let Request::MediaReceive(mut receive) = call.receive_request() else {
        unreachable!()
    };
    receive.wait = true;
    let _hears = begin(&dir, &Request::MediaReceive(receive));
    let _send = begin(&call.alice.dir, &call.send_request());
    for sequence in 0..20 {
        call.speak(&rtp(sequence, SSRC));
    }
    carol.until("carol dropped all", |status| {
        status.relays[0]
            .drops
            .iter()
            .any(|drop| drop.code == "KF-1010" && drop.count == 20)
    });
    assert!(call.application.is_silent());
    assert_eq!(carol.drops("not_addressed"), 1);
}

/// A relay that begins before the key came works from its coming on.
#[test]
fn relay_that_waits_begins_with_the_key() {
    let fleet = Fleet::new();
    let carrier = Carrier::new();
    let dirs = tempfile::tempdir().unwrap();
    let dir = dirs.path().join("alice");
    fleet.enrol(&dir, 1, &carrier.address);
    let alice = Running::start(&dir);
    let (microphone, wire) = (free_place(), multicast());
    let ear = eavesdropper(wire);
    let mut send = send_request(microphone, wire);
    send.wait = true;
    let _send = begin(&dir, &Request::MediaSend(send));
    let application = Application::new();
    application.rtp.send_to(&rtp(0, SSRC), microphone).unwrap();
    alice.until("dropped", |status| !status.relays[0].drops.is_empty());
    carrier.tell(&fleet.key_dist(GROUP, 0, &[1]));
    alice.until("a session", |status| status.relays[0].session.is_some());
    // Before the first beacon nothing is sent (FORMATS section 10).
    application.rtp.send_to(&rtp(1, SSRC), microphone).unwrap();
    alice.until("no beacon", |status| {
        status.relays[0]
            .drops
            .iter()
            .any(|drop| drop.code == "KF-2012")
    });
    carrier.tell(&fleet.time());
    alice.until("beacon", |status| status.time.is_some());
    application.rtp.send_to(&rtp(2, SSRC), microphone).unwrap();
    let protected = take(&ear).unwrap();
    assert_eq!(protected[..4], rtp(2, SSRC)[..4]);
}

/// Stock receivers (FORMATS section 6): one key, no MKI, and `media params` says all they need.
#[test]
fn static_stream_opens_with_the_printed_parameters() {
    let call = Call::new();
    let ear = eavesdropper(call.wire);
    let Request::MediaSend(mut send) = call.send_request() else {
        unreachable!()
    };
    send.stock = true;
    send.suite = Some("aes_cm_128_hmac_sha1_80".to_owned());
    let _send = begin(&call.alice.dir, &Request::MediaSend(send.clone()));
    let protected: Vec<_> = [65_535, 0, 1]
        .into_iter()
        .map(|sequence| {
            call.speak(&rtp(sequence, SSRC));
            take(&ear).unwrap()
        })
        .collect();
    assert_eq!(protected[0].len(), rtp(0, SSRC).len() + 10);
    let params = match ask(&call.alice.dir, &Request::MediaParams { relay: None }) {
        Answer::Params(params) => params,
        other => panic!("{other:?}"),
    };
    let policy = &params.policies[0];
    assert_eq!(
        (policy.roc, policy.ssrc.as_str(), &policy.mki),
        (1, "12345678", &None)
    );
    let suite = SrtpSuite::AesCm128HmacSha1Tag80;
    let octets = unhex(&format!("{}{}", policy.key, policy.salt));
    let master = SrtpMaster::from_octets(suite, &octets).unwrap();
    let mut receiver = StaticReceiver::new(&master, SSRC, policy.roc);
    let mut plain = Vec::new();
    receiver.unprotect_rtp(&protected[1], &mut plain).unwrap();
    assert_eq!(plain, rtp(0, SSRC));

    // With --mki the packets name the key, and ours open them, too.
    drop(_send);
    call.alice
        .until("the relay ends", |status| status.relays.is_empty());
    send.mki = true;
    send.suite = None;
    let _receive = begin(&call.bob.dir, &call.receive_request());
    let _send = begin(&call.alice.dir, &Request::MediaSend(send));
    call.passes(100..110);
    let packet = take(&ear).unwrap();
    let params = match ask(&call.alice.dir, &Request::MediaParams { relay: Some(2) }) {
        Answer::Params(params) => params,
        other => panic!("{other:?}"),
    };
    let mki = unhex(params.policies[0].mki.as_ref().unwrap());
    assert_eq!(packet[packet.len() - MKI_LEN..], mki);
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

pub(crate) const SSRC: u32 = 0x1234_5678;
