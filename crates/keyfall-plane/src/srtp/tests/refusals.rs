//! What is refused changes nothing.

use keyfall_protocol::keys::SrtpSuite;
use proptest::prelude::*;

use super::{GCM, SSRC, master_key, rtcp, rtp, stream, stretch};
use crate::{
    Arrival, Malformed, Marks, ProtectRefused, Refused, SrtpReceiver, SrtpSender, StaticReceiver,
    Stretch,
};

#[test]
fn a_change_of_any_octet_of_srtp_is_refused_and_changes_nothing() {
    let key = master_key(1);
    for suite in SrtpSuite::ALL {
        let mut sender = SrtpSender::new(stream(suite), Stretch::default());
        let mut receiver = SrtpReceiver::new(stream(suite), Stretch::default());
        let mut plain = Vec::new();
        let mut first = rtp(1, b"first");
        sender.protect_rtp(&key, &mut first).expect("a good packet");
        receiver
            .try_rtp(&key, &first, &mut plain)
            .expect("it opens");
        let mut good = rtp(2, b"second");
        sender.protect_rtp(&key, &mut good).expect("a good packet");
        for place in 0..good.len() {
            for bit in [0x01, 0x80] {
                let mut bad = good.clone();
                bad[place] ^= bit;
                assert!(
                    receiver.unprotect_rtp(&bad, &mut plain).is_err(),
                    "{suite:?} {place}"
                );
                assert!(
                    receiver.try_rtp(&key, &bad, &mut plain).is_err(),
                    "{suite:?} {place}"
                );
            }
        }
        assert_eq!(
            receiver.marks(),
            Marks {
                rtp: Some(1),
                rtcp: None
            }
        );
        assert_eq!(
            receiver.unprotect_rtp(&good, &mut plain),
            Ok(2),
            "still opens"
        );
        assert_eq!(plain, rtp(2, b"second"));
    }
}

#[test]
fn a_change_of_any_octet_of_srtcp_is_refused_and_changes_nothing() {
    let key = master_key(1);
    for suite in SrtpSuite::ALL {
        let mut sender = SrtpSender::new(stream(suite), Stretch::default());
        let mut receiver = SrtpReceiver::new(stream(suite), Stretch::default());
        let mut plain = Vec::new();
        let mut good = rtcp();
        sender.protect_rtcp(&key, &mut good).expect("a good packet");
        for place in 0..good.len() {
            for bit in [0x01, 0x80] {
                let mut bad = good.clone();
                bad[place] ^= bit;
                assert!(
                    receiver.try_rtcp(&key, &bad, &mut plain).is_err(),
                    "{suite:?} {place}"
                );
            }
        }
        assert_eq!(receiver.marks(), Marks::default());
        assert_eq!(
            receiver.try_rtcp(&key, &good, &mut plain),
            Ok(0),
            "still opens"
        );
    }
}

#[test]
fn a_replay_is_refused_also_under_a_fresh_trial() {
    let key = master_key(1);
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    let mut receiver = SrtpReceiver::new(stream(GCM), Stretch::default());
    let mut plain = Vec::new();
    let mut packet = rtp(7, b"once");
    sender
        .protect_rtp(&key, &mut packet)
        .expect("a good packet");
    receiver
        .try_rtp(&key, &packet, &mut plain)
        .expect("it opens");
    assert_eq!(
        receiver.unprotect_rtp(&packet, &mut plain),
        Err(Refused::Replayed)
    );
    assert_eq!(
        receiver.try_rtp(&key, &packet, &mut plain),
        Err(Refused::Replayed)
    );

    let mut packet = rtcp();
    sender
        .protect_rtcp(&key, &mut packet)
        .expect("a good packet");
    receiver
        .unprotect_rtcp(&packet, &mut plain)
        .expect("it opens");
    assert_eq!(
        receiver.unprotect_rtcp(&packet, &mut plain),
        Err(Refused::Replayed)
    );
    assert_eq!(
        receiver.try_rtcp(&key, &packet, &mut plain),
        Err(Refused::Replayed)
    );
}

#[test]
fn nothing_up_to_the_stored_marks_is_delivered_again() {
    // FORMATS section 7: "nothing delivered before is delivered again, through any crash".
    let key = master_key(1);
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    let mut receiver = SrtpReceiver::new(stream(GCM), Stretch::default());
    let mut plain = Vec::new();
    let mut heard = Vec::new();
    for sequence in 0..20 {
        let mut media = rtp(sequence, b"speech");
        sender.protect_rtp(&key, &mut media).expect("a good packet");
        let mut report = rtcp();
        sender
            .protect_rtcp(&key, &mut report)
            .expect("a good packet");
        receiver
            .try_rtp(&key, &media, &mut plain)
            .expect("it opens");
        receiver
            .try_rtcp(&key, &report, &mut plain)
            .expect("it opens");
        heard.push((media, report));
    }
    let marks = receiver.marks();
    assert_eq!(
        marks,
        Marks {
            rtp: Some(19),
            rtcp: Some(19)
        }
    );
    let mut after_crash = SrtpReceiver::with_marks(stream(GCM), Stretch::default(), marks);
    assert_eq!(after_crash.marks(), marks);
    for (media, report) in &heard {
        assert_eq!(
            after_crash.try_rtp(&key, media, &mut plain),
            Err(Refused::TooOld)
        );
        assert_eq!(
            after_crash.try_rtcp(&key, report, &mut plain),
            Err(Refused::TooOld)
        );
    }
    let mut next = rtp(20, b"speech");
    sender.protect_rtp(&key, &mut next).expect("a good packet");
    assert_eq!(after_crash.try_rtp(&key, &next, &mut plain), Ok(20));
}

#[test]
fn a_trial_under_another_generation_leaves_everything_as_it_was() {
    let (held, newer, newest) = (master_key(1), master_key(2), master_key(258));
    assert_eq!(
        newer.tag(),
        newest.tag(),
        "the generation is known modulo 256 only"
    );
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    let mut receiver = SrtpReceiver::new(stream(GCM), Stretch::default());
    let mut plain = Vec::new();
    let mut first = rtp(1, b"held");
    sender
        .protect_rtp(&held, &mut first)
        .expect("a good packet");
    receiver
        .try_rtp(&held, &first, &mut plain)
        .expect("it opens");

    let mut packet = rtp(2, b"newer");
    sender
        .protect_rtp(&newer, &mut packet)
        .expect("a good packet");
    assert_eq!(
        receiver.unprotect_rtp(&packet, &mut plain),
        Err(Refused::KeyUnknown)
    );
    assert_eq!(
        receiver.try_rtp(&held, &packet, &mut plain),
        Err(Refused::KeyUnknown)
    );
    let trial = receiver.try_rtp(&newest, &packet, &mut plain);
    assert_eq!(trial, Err(Refused::AuthenticationFailed));
    assert!(plain.is_empty(), "nothing unauthenticated is shown");
    assert_eq!(receiver.marks().rtp, Some(1));
    assert_eq!(
        receiver.unprotect_rtp(&packet, &mut plain),
        Err(Refused::KeyUnknown)
    );
    assert_eq!(receiver.try_rtp(&newer, &packet, &mut plain), Ok(2));
}

#[test]
fn a_key_whose_tag_comes_again_takes_the_place_of_the_held_one() {
    let (old, new) = (master_key(2), master_key(258));
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    let mut receiver = SrtpReceiver::new(stream(GCM), Stretch::default());
    let mut plain = Vec::new();
    let mut packet = rtp(1, b"old");
    sender
        .protect_rtp(&old, &mut packet)
        .expect("a good packet");
    receiver
        .try_rtp(&old, &packet, &mut plain)
        .expect("it opens");
    let mut packet = rtp(2, b"new");
    sender
        .protect_rtp(&new, &mut packet)
        .expect("a good packet");
    assert_eq!(
        receiver.unprotect_rtp(&packet, &mut plain),
        Err(Refused::AuthenticationFailed)
    );
    assert_eq!(receiver.try_rtp(&new, &packet, &mut plain), Ok(2));
    let mut packet = rtp(3, b"new");
    sender
        .protect_rtp(&new, &mut packet)
        .expect("a good packet");
    assert_eq!(receiver.unprotect_rtp(&packet, &mut plain), Ok(3));
}

#[test]
fn session_keys_are_gone_when_their_generation_is_not_kept() {
    // REQUIREMENTS A-10: after the grace time the old key opens nothing.
    let (old, new) = (master_key(1), master_key(2));
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    let mut receiver = SrtpReceiver::new(stream(GCM), Stretch::default());
    let mut plain = Vec::new();
    let mut packets = Vec::new();
    for (sequence, key) in [(1, &old), (2, &old), (3, &new), (4, &new)] {
        let mut packet = rtp(sequence, b"speech");
        sender.protect_rtp(key, &mut packet).expect("a good packet");
        packets.push(packet);
    }
    receiver
        .try_rtp(&old, &packets[0], &mut plain)
        .expect("it opens");
    receiver
        .try_rtp(&new, &packets[2], &mut plain)
        .expect("it opens");
    receiver
        .retain_keys(|epoch, generation| epoch == new.epoch() && generation == new.generation());
    assert_eq!(
        receiver.unprotect_rtp(&packets[1], &mut plain),
        Err(Refused::KeyUnknown)
    );
    assert_eq!(
        receiver.unprotect_rtp(&packets[0], &mut plain),
        Err(Refused::Replayed)
    );
    assert_eq!(receiver.unprotect_rtp(&packets[3], &mut plain), Ok(4));

    sender.retain_keys(|_, _| false);
    let mut packet = rtp(5, b"speech");
    assert_eq!(
        sender.protect_rtp(&new, &mut packet),
        Ok(5),
        "derived again when needed"
    );
}

#[test]
fn a_packet_of_another_stream_is_refused() {
    let key = master_key(1);
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    let mut packet = rtp(1, b"speech");
    sender
        .protect_rtp(&key, &mut packet)
        .expect("a good packet");
    let mut plain = Vec::new();
    let mut other_ssrc = stream(GCM);
    other_ssrc.ssrc ^= 1;
    let mut receiver = SrtpReceiver::new(other_ssrc, Stretch::default());
    assert_eq!(
        receiver.try_rtp(&key, &packet, &mut plain),
        Err(Refused::OtherStream)
    );

    let mut sender = SrtpSender::new(other_ssrc, Stretch::default());
    let plain_packet = rtp(1, b"speech");
    let mut packet = plain_packet.clone();
    assert_eq!(
        sender.protect_rtp(&key, &mut packet),
        Err(ProtectRefused::OtherSsrc)
    );
    assert_eq!(packet, plain_packet);
    assert_eq!(
        sender.protect_rtcp(&key, &mut rtcp()),
        Err(ProtectRefused::OtherSsrc)
    );
}

#[test]
fn a_sequence_number_outside_the_stretch_of_the_mki_is_refused() {
    // FORMATS section 6: n = index >> j.
    let key = master_key(1);
    let mut sender = SrtpSender::new(stream(GCM), stretch(10));
    let mut packet = rtp(1023, b"speech");
    sender
        .protect_rtp(&key, &mut packet)
        .expect("a good packet");
    packet[2..4].copy_from_slice(&1024u16.to_be_bytes());
    let mut receiver = SrtpReceiver::new(stream(GCM), stretch(10));
    let mut plain = Vec::new();
    assert_eq!(
        receiver.try_rtp(&key, &packet, &mut plain),
        Err(Refused::OutsideStretch)
    );
}

#[test]
fn what_is_no_rtp_is_named_and_left_alone() {
    let key = master_key(1);
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    let mut version_1 = rtp(1, b"speech");
    version_1[0] = 0x40;
    let mut csrc_beyond_end = rtp(1, b"");
    csrc_beyond_end[0] |= 1;
    let mut extension_beyond_end = rtp(1, &[0xbe, 0xde, 0, 2, 1, 2, 3, 4]);
    extension_beyond_end[0] |= 0x10;
    let mut extension_cut = rtp(1, &[0xbe, 0xde]);
    extension_cut[0] |= 0x10;
    for (packet, cause) in [
        (vec![], Malformed::TooShort),
        (rtp(1, b"")[..11].to_vec(), Malformed::TooShort),
        (version_1, Malformed::NotVersion2),
        (csrc_beyond_end, Malformed::BeyondEnd),
        (extension_beyond_end, Malformed::BeyondEnd),
        (extension_cut, Malformed::BeyondEnd),
        (rtp(1, &[0; 65_536]), Malformed::TooLong),
    ] {
        let mut sealed = packet.clone();
        assert_eq!(
            sender.protect_rtp(&key, &mut sealed),
            Err(ProtectRefused::Malformed(cause)),
            "{cause:?}"
        );
        assert_eq!(sealed, packet);
    }
    let mut cut = rtcp();
    cut.pop();
    let mut trailing = rtcp();
    trailing.push(0);
    let mut version_1 = rtcp();
    version_1[0] = 0x41;
    for (packet, cause) in [
        (vec![0x81, 201, 0, 0, 1, 2, 3], Malformed::TooShort),
        (cut, Malformed::BeyondEnd),
        (trailing, Malformed::TooShort),
        (version_1, Malformed::NotVersion2),
    ] {
        let mut sealed = packet.clone();
        assert_eq!(
            sender.protect_rtcp(&key, &mut sealed),
            Err(ProtectRefused::Malformed(cause)),
            "{cause:?}"
        );
        assert_eq!(sealed, packet);
    }
    let mut receiver = SrtpReceiver::new(stream(GCM), Stretch::default());
    let mut packet = rtp(1, b"");
    sender
        .protect_rtp(&key, &mut packet)
        .expect("an empty payload is legal");
    let too_short = Err(Refused::Malformed(Malformed::TooShort));
    assert_eq!(
        receiver.try_rtp(&key, &packet[1..], &mut Vec::new()),
        too_short
    );
    let mut no_sender = packet.clone();
    let sender_at = packet.len() - 11;
    no_sender[sender_at..sender_at + 3].fill(0);
    assert_eq!(Arrival::of_srtp(GCM, &no_sender), Err(Refused::BadMki));
}

proptest! {
    #[test]
    fn arbitrary_octets_never_panic(
        octets in proptest::collection::vec(any::<u8>(), 0..200),
        suite in proptest::sample::select(&SrtpSuite::ALL[..]),
        j in 10u8..=16,
    ) {
        let key = master_key(0);
        let mut plain = Vec::new();
        let mut receiver = SrtpReceiver::new(stream(suite), stretch(j));
        prop_assert!(receiver.try_rtp(&key, &octets, &mut plain).is_err());
        prop_assert!(receiver.try_rtcp(&key, &octets, &mut plain).is_err());
        prop_assert!(receiver.unprotect_rtp(&octets, &mut plain).is_err());
        prop_assert!(receiver.unprotect_rtcp(&octets, &mut plain).is_err());
        if let Ok(arrival) = Arrival::of_srtp(suite, &octets) {
            let mut receiver = SrtpReceiver::new(arrival.stream(suite), stretch(j));
            prop_assert!(receiver.try_rtp(&key, &octets, &mut plain).is_err());
        }
        if let Ok(arrival) = Arrival::of_srtcp(suite, &octets) {
            let mut receiver = SrtpReceiver::new(arrival.stream(suite), stretch(j));
            prop_assert!(receiver.try_rtcp(&key, &octets, &mut plain).is_err());
        }
        let master = SrtpSender::new(stream(suite), stretch(j)).params(&key).master;
        let mut receiver = StaticReceiver::new(&master, SSRC, 0);
        prop_assert!(receiver.unprotect_rtp(&octets, &mut plain).is_err());
        prop_assert!(receiver.unprotect_rtcp(&octets, &mut plain).is_err());
    }

    #[test]
    fn a_local_packet_of_any_octets_is_protected_or_left_alone(
        first in any::<u8>(),
        rest in proptest::collection::vec(any::<u8>(), 0..64),
        suite in proptest::sample::select(&SrtpSuite::ALL[..]),
    ) {
        let key = master_key(0);
        let mut packet = vec![0x80 | first & 0x3f];
        packet.extend_from_slice(&rest);
        if let Some(ssrc) = packet.get_mut(8..12) {
            ssrc.copy_from_slice(&SSRC.to_be_bytes());
        }
        let mut sender = SrtpSender::new(stream(suite), Stretch::default());
        let mut receiver = SrtpReceiver::new(stream(suite), Stretch::default());
        let mut sealed = packet.clone();
        let mut plain = Vec::new();
        if sender.protect_rtp(&key, &mut sealed).is_ok() {
            prop_assert!(receiver.try_rtp(&key, &sealed, &mut plain).is_ok());
            prop_assert_eq!(plain, packet);
        } else {
            prop_assert_eq!(sealed, packet);
        }
    }
}
