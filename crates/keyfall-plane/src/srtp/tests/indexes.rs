//! Indexes, stretches, wraps and their ends.

use super::{GCM, SSRC, master_key, rtcp, rtp, stream, stretch};
use crate::{
    Arrival, NewSession, ProtectRefused, Refused, SrtpReceiver, SrtpSender, StaticReceiver, Stretch,
};

/// Protects `sequence` and says its index.
fn sealed(sender: &mut SrtpSender, sequence: u16) -> (u64, Vec<u8>) {
    let mut packet = rtp(sequence, b"speech");
    let index = sender
        .protect_rtp(&master_key(0), &mut packet)
        .expect("a good packet");
    (index, packet)
}

#[test]
fn a_late_joiner_opens_the_first_packet_it_hears_after_the_roc_changed() {
    // FORMATS section 6: "a late joiner needs one packet".
    for j in [10, 13, 16] {
        let mut sender = SrtpSender::new(stream(GCM), stretch(j));
        let mut last = (0, Vec::new());
        for step in 0..7u32 {
            last = sealed(&mut sender, (step * 30_000) as u16);
        }
        let (index, packet) = last;
        assert_eq!(index, 180_000);
        let arrival = Arrival::of_srtp(GCM, &packet).expect("a good packet");
        assert_eq!(u64::from(arrival.mki.n()), index >> j);
        let mut joiner = SrtpReceiver::new(arrival.stream(GCM), stretch(j));
        let mut plain = Vec::new();
        assert_eq!(
            joiner.try_rtp(&master_key(0), &packet, &mut plain),
            Ok(index),
            "j = {j}"
        );
        assert_eq!(plain, rtp(180_000u32 as u16, b"speech"));
    }
}

#[test]
fn reordering_inside_the_window_loses_nothing() {
    let key = master_key(0);
    for j in [10, 16] {
        let mut sender = SrtpSender::new(stream(GCM), stretch(j));
        let mut receiver = SrtpReceiver::new(stream(GCM), stretch(j));
        // Across 65,536 and several n, each stretch of 500 heard backwards.
        let packets: Vec<_> = (0..3000u32)
            .map(|step| sealed(&mut sender, (64_000 + step) as u16))
            .collect();
        let mut plain = Vec::new();
        for burst in packets.chunks(500) {
            for (index, packet) in burst.iter().rev() {
                let opened = match receiver.unprotect_rtp(packet, &mut plain) {
                    Err(Refused::KeyUnknown) => receiver.try_rtp(&key, packet, &mut plain),
                    other => other,
                };
                assert_eq!(opened, Ok(*index));
            }
        }
    }
}

#[test]
fn the_oldest_packet_of_the_window_opens_and_the_one_before_it_does_not() {
    let key = master_key(0);
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    let mut receiver = SrtpReceiver::new(stream(GCM), Stretch::default());
    let packets: Vec<_> = (0..=8192).map(|step| sealed(&mut sender, step).1).collect();
    let mut plain = Vec::new();
    assert_eq!(receiver.try_rtp(&key, &packets[8192], &mut plain), Ok(8192));
    assert_eq!(
        receiver.unprotect_rtp(&packets[0], &mut plain),
        Err(Refused::TooOld)
    );
    assert_eq!(receiver.unprotect_rtp(&packets[1], &mut plain), Ok(1));
}

#[test]
fn the_index_runs_on_across_65536_n_and_generations() {
    // FORMATS section 6: "Within a session the index runs on across generations".
    let mut sender = SrtpSender::new(stream(GCM), stretch(12));
    let mut receiver = SrtpReceiver::new(stream(GCM), stretch(12));
    let mut plain = Vec::new();
    let mut trials = 0;
    for step in 0..140_000u32 {
        let generation = step / 50_000;
        let index = u64::from(step) + 100;
        // One in a hundred is enough to look at; the others are lost on the way.
        let mut packet = rtp(index as u16, b"speech");
        if step % 100 != 0 {
            continue;
        }
        let key = master_key(generation);
        assert_eq!(sender.protect_rtp(&key, &mut packet), Ok(index));
        let opened = receiver
            .unprotect_rtp(&packet, &mut plain)
            .or_else(|refused| {
                assert_eq!(refused, Refused::KeyUnknown);
                trials += 1;
                receiver.try_rtp(&key, &packet, &mut plain)
            });
        assert_eq!(opened, Ok(index));
    }
    assert_eq!(
        trials,
        140_100 / 4096 + 1 + 2,
        "one a stretch, one more a renewal within it"
    );
}

#[test]
fn a_packet_sent_late_goes_under_the_n_of_its_own_index() {
    let key = master_key(0);
    let mut sender = SrtpSender::new(stream(GCM), stretch(10));
    sealed(&mut sender, 1020);
    sealed(&mut sender, 1030);
    let (index, packet) = sealed(&mut sender, 1022);
    assert_eq!(index, 1022);
    let arrival = Arrival::of_srtp(GCM, &packet).expect("a good packet");
    assert_eq!(arrival.mki.n(), 0);
    let mut receiver = SrtpReceiver::new(stream(GCM), stretch(10));
    assert_eq!(receiver.try_rtp(&key, &packet, &mut Vec::new()), Ok(1022));
    let (_, packet) = sealed(&mut sender, 1031);
    assert_eq!(
        Arrival::of_srtp(GCM, &packet).map(|arrival| arrival.mki.n()),
        Ok(1)
    );
}

#[test]
fn srtcp_goes_under_the_n_of_the_newest_rtp_packet_and_its_index_runs_on() {
    let mut sender = SrtpSender::new(stream(GCM), stretch(10));
    let mut receiver = SrtpReceiver::new(stream(GCM), stretch(10));
    let mut plain = Vec::new();
    for (expected, (sequence, generation, n)) in [
        (None, 0, 0),
        (Some(5000), 0, 4),
        (Some(4999), 0, 4),
        (Some(6200), 1, 6),
    ]
    .into_iter()
    .enumerate()
    {
        let key = master_key(generation);
        if let Some(sequence) = sequence {
            let mut packet = rtp(sequence, b"speech");
            sender
                .protect_rtp(&key, &mut packet)
                .expect("a good packet");
        }
        let mut packet = rtcp();
        assert_eq!(sender.protect_rtcp(&key, &mut packet), Ok(expected as u32));
        let arrival = Arrival::of_srtcp(GCM, &packet).expect("a good packet");
        assert_eq!((arrival.mki.n(), arrival.ssrc), (n, SSRC));
        assert_eq!(
            receiver.try_rtcp(&key, &packet, &mut plain),
            Ok(expected as u32)
        );
    }
}

#[test]
fn n_never_wraps_but_asks_for_a_new_session() {
    // FORMATS section 6: "Before n passes 65,535: new session".
    let key = master_key(0);
    let mut sender = SrtpSender::new(stream(GCM), stretch(10));
    let mut index = 0u64;
    loop {
        let mut packet = rtp(index as u16, b"");
        let before = packet.clone();
        match sender.protect_rtp(&key, &mut packet) {
            Ok(used) => assert_eq!(used, index),
            Err(refused) => {
                assert_eq!(
                    refused,
                    ProtectRefused::NewSession(NewSession::IndexExhausted)
                );
                assert_eq!(packet, before);
                break;
            }
        }
        index += 32_000;
    }
    assert!(index >= 1 << 26, "{index}");
    let last = ((1u64 << 26) - 1) as u16;
    let mut packet = rtp(last, b"");
    assert_eq!(
        sender.protect_rtp(&key, &mut packet),
        Ok((1 << 26) - 1),
        "the last one there is"
    );
    assert_eq!(
        Arrival::of_srtp(GCM, &packet).map(|arrival| arrival.mki.n()),
        Ok(u16::MAX)
    );
}

#[test]
fn an_application_that_starts_over_gets_a_new_session_within_eight_packets() {
    let key = master_key(0);
    for played in [50u16, 200, 5000, 40_000] {
        let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
        for sequence in 0..played {
            sealed(&mut sender, 900 + sequence);
        }
        let refused = (0..9)
            .map(|sequence| sender.protect_rtp(&key, &mut rtp(900 + sequence, b"again")))
            .find(|outcome| *outcome != Err(ProtectRefused::Duplicate));
        let expected = if played == 40_000 {
            // 900 looks like the number after the wrap: a jump forward, which costs indexes only.
            Ok(65_536 + 900)
        } else {
            Err(ProtectRefused::NewSession(NewSession::SequenceJumped))
        };
        assert_eq!(refused, Some(expected), "after {played}");
    }
}

#[test]
fn a_stream_that_arrives_twice_is_sent_once() {
    let key = master_key(0);
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    for sequence in 0..100 {
        sealed(&mut sender, sequence);
        let again = sender.protect_rtp(&key, &mut rtp(sequence, b"speech"));
        assert_eq!(again, Err(ProtectRefused::Duplicate));
    }
}

#[test]
fn a_first_packet_before_zero_asks_for_a_new_session() {
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    sealed(&mut sender, 3);
    assert_eq!(
        sender.protect_rtp(&master_key(0), &mut rtp(65_535, b"speech")),
        Err(ProtectRefused::NewSession(NewSession::SequenceJumped))
    );
}

#[test]
fn a_stock_receiver_survives_loss_and_reordering_across_the_wrap() {
    // RFC 3711 section 3.3.1.
    let key = master_key(0);
    let mut sender = SrtpSender::new_static(stream(GCM), 0, false);
    let mut receiver = StaticReceiver::new(&sender.params(&key).master, SSRC, 0);
    let packets: Vec<_> = (0..400u32)
        .map(|step| sealed(&mut sender, (65_300 + step) as u16))
        .collect();
    let mut plain = Vec::new();
    for burst in packets.chunks(40) {
        for (index, packet) in burst.iter().rev().filter(|(index, _)| index % 7 != 0) {
            assert_eq!(receiver.unprotect_rtp(packet, &mut plain), Ok(*index));
        }
    }
}
