//! Senders and receivers together.

use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber};
use keyfall_protocol::keys::{MasterKey, Secret, SrtpSuite};

use crate::{Arrival, Refused, SrtpReceiver, SrtpSender, SrtpStream, StaticReceiver, Stretch};

mod indexes;
mod nonces;
mod refusals;

/// Octets from hexadecimal digits; blanks between them are for the eye.
pub(crate) fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).expect("hexadecimal") as u8)
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

const SSRC: u32 = 0x1234_5678;

pub(super) fn master_key(generation: u32) -> MasterKey {
    let group = GroupNumber::new(7).expect("7 is a group number");
    let bytes = Secret::init_with(|out| out.fill(0x5a));
    MasterKey::new(group, KeyEpoch::new(3), Generation::ZERO, bytes)
        .renew_to(Generation::new(generation).expect("small"))
}

const GCM: SrtpSuite = SrtpSuite::AeadAes256Gcm;

fn stretch(j: u8) -> Stretch {
    Stretch::new(j).expect("10 to 16")
}

pub(super) fn stream(suite: SrtpSuite) -> SrtpStream {
    SrtpStream {
        suite,
        sender: TerminalNumber::new(42).expect("42 is a terminal number"),
        session: SessionId::new(*b"sessio"),
        ssrc: SSRC,
    }
}

pub(super) fn rtp(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 160]);
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A receiver report with one report block.
pub(super) fn rtcp() -> Vec<u8> {
    let mut packet = vec![0x81, 201, 0, 7];
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.extend_from_slice(&[7; 24]);
    packet
}

#[test]
fn every_suite_brings_rtp_and_rtcp_back_as_they_were() {
    let key = master_key(1);
    for suite in SrtpSuite::ALL {
        let mut sender = SrtpSender::new(stream(suite), Stretch::default());
        let mut receiver = SrtpReceiver::new(stream(suite), Stretch::default());
        let mut plain = Vec::new();
        for sequence in 0..50u16 {
            let packet = rtp(sequence, &vec![sequence as u8; usize::from(sequence) * 7]);
            let mut sealed = packet.clone();
            assert_eq!(
                sender.protect_rtp(&key, &mut sealed),
                Ok(u64::from(sequence))
            );
            let opened = if sequence == 0 {
                assert_eq!(
                    receiver.unprotect_rtp(&sealed, &mut plain),
                    Err(Refused::KeyUnknown)
                );
                receiver.try_rtp(&key, &sealed, &mut plain)
            } else {
                receiver.unprotect_rtp(&sealed, &mut plain)
            };
            assert_eq!(opened, Ok(u64::from(sequence)));
            assert_eq!(plain, packet);

            let mut sealed = rtcp();
            assert_eq!(
                sender.protect_rtcp(&key, &mut sealed),
                Ok(u32::from(sequence))
            );
            assert_eq!(
                receiver.unprotect_rtcp(&sealed, &mut plain),
                Ok(u32::from(sequence))
            );
            assert_eq!(plain, rtcp());
        }
    }
}

#[test]
fn an_rtp_packet_grows_by_thirty_octets() {
    // FORMATS section 6: "Overhead 30 B".
    let mut sender = SrtpSender::new(stream(SrtpSuite::AeadAes256Gcm), Stretch::default());
    let mut packet = rtp(1, &[0; 160]);
    sender
        .protect_rtp(&master_key(0), &mut packet)
        .expect("a good packet");
    assert_eq!(packet.len(), 12 + 160 + 30);
}

#[test]
fn the_arrival_names_sender_session_n_and_ssrc() {
    let mut sender = SrtpSender::new(
        stream(SrtpSuite::AeadAes256Gcm),
        Stretch::new(10).expect("10 is allowed"),
    );
    let mut packet = rtp(5000, &[0; 160]);
    let key = master_key(300);
    sender
        .protect_rtp(&key, &mut packet)
        .expect("a good packet");
    let arrival = Arrival::of_srtp(SrtpSuite::AeadAes256Gcm, &packet).expect("a good packet");
    assert_eq!(
        arrival.stream(SrtpSuite::AeadAes256Gcm),
        stream(SrtpSuite::AeadAes256Gcm)
    );
    assert_eq!(arrival.mki.tag(), key.tag());
    assert_eq!(arrival.mki.n(), 5000 >> 10);
}

#[test]
fn a_static_stream_opens_without_mki_and_with_an_estimated_roc() {
    // FORMATS section 6, "Stock receivers".
    let key = master_key(2);
    for suite in SrtpSuite::ALL {
        let mut sender = SrtpSender::new_static(stream(suite), 0, false);
        let master = sender.params(&key).master;
        let mut receiver = StaticReceiver::new(&master, SSRC, 0);
        let mut plain = Vec::new();
        for step in 0..300u32 {
            let sequence = (65_400 + step) as u16;
            let mut packet = rtp(sequence, b"speech");
            sender
                .protect_rtp(&key, &mut packet)
                .expect("a good packet");
            assert_eq!(
                receiver.unprotect_rtp(&packet, &mut plain),
                Ok(u64::from(65_400 + step)),
                "the index runs on past 65,536"
            );
            assert_eq!(plain, rtp(sequence, b"speech"));
            assert_eq!(
                receiver.unprotect_rtp(&packet, &mut plain),
                Err(Refused::Replayed)
            );
        }
        assert_eq!(sender.params(&key).roc, 1);
        let mut packet = rtcp();
        sender
            .protect_rtcp(&key, &mut packet)
            .expect("a good packet");
        assert_eq!(receiver.unprotect_rtcp(&packet, &mut plain), Ok(0));
        assert_eq!(plain, rtcp());
        assert_eq!(
            receiver.unprotect_rtcp(&packet, &mut plain),
            Err(Refused::Replayed)
        );
    }
}

#[test]
fn a_static_receiver_that_is_told_the_roc_joins_late() {
    let key = master_key(0);
    let mut sender = SrtpSender::new_static(stream(GCM), 0, false);
    let mut packet = Vec::new();
    for sequence in [0u16, 30_000, 60_000, 20_000] {
        packet = rtp(sequence, b"speech");
        sender
            .protect_rtp(&key, &mut packet)
            .expect("a good packet");
    }
    let params = sender.params(&key);
    assert_eq!(params.roc, 1);
    let mut plain = Vec::new();
    let mut told = StaticReceiver::new(&params.master, SSRC, params.roc);
    assert_eq!(told.unprotect_rtp(&packet, &mut plain), Ok(65_536 + 20_000));
    let mut untold = StaticReceiver::new(&params.master, SSRC, 0);
    assert_eq!(
        untold.unprotect_rtp(&packet, &mut plain),
        Err(Refused::AuthenticationFailed)
    );
}

#[test]
fn params_say_when_the_stretch_ends() {
    let key = master_key(0);
    let mut sender = SrtpSender::new(stream(GCM), stretch(10));
    assert_eq!(
        sender.params(&key).packets_left,
        1023,
        "before the first packet"
    );
    let mut packet = rtp(1030, b"speech");
    sender
        .protect_rtp(&key, &mut packet)
        .expect("a good packet");
    let params = sender.params(&key);
    assert_eq!(params.mki.n(), 1);
    assert_eq!(params.packets_left, 2047 - 1030);
}

#[test]
fn csrc_list_and_extension_stay_in_clear_and_are_authenticated() {
    // RFC 3711 section 3.1.
    let key = master_key(0);
    let mut packet = rtp(9, &[]);
    packet[0] |= 0x10 | 2;
    packet.extend_from_slice(b"csrccsrc");
    packet.extend_from_slice(&[0xbe, 0xde, 0, 1, 1, 2, 3, 4]);
    packet.extend_from_slice(b"payload");
    let clear = packet.len() - b"payload".len();
    let plain = packet.clone();
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    sender
        .protect_rtp(&key, &mut packet)
        .expect("a good packet");
    assert_eq!(packet[..clear], plain[..clear]);
    assert_ne!(packet[clear..clear + 7], plain[clear..]);
    let mut receiver = SrtpReceiver::new(stream(GCM), Stretch::default());
    let mut opened = Vec::new();
    assert_eq!(receiver.try_rtp(&key, &packet, &mut opened), Ok(9));
    assert_eq!(opened, plain);
}

#[test]
fn a_packet_with_room_for_the_trailer_is_not_moved() {
    // No allocation for each packet.
    let key = master_key(0);
    for suite in SrtpSuite::ALL {
        let mut sender = SrtpSender::new(stream(suite), Stretch::default());
        let mut receiver = SrtpReceiver::new(stream(suite), Stretch::default());
        let mut packet = Vec::with_capacity(1500);
        let mut plain = Vec::with_capacity(1500);
        for sequence in 0..3 {
            packet.clear();
            packet.extend_from_slice(&rtp(sequence, &[3; 1200]));
            let (at, plain_at) = (packet.as_ptr(), plain.as_ptr());
            sender
                .protect_rtp(&key, &mut packet)
                .expect("a good packet");
            receiver
                .try_rtp(&key, &packet, &mut plain)
                .expect("it opens");
            assert_eq!((packet.as_ptr(), plain.as_ptr()), (at, plain_at));
        }
    }
}

#[test]
fn senders_and_receivers_may_move_to_another_thread_and_print_no_key() {
    fn moves<T: Send>(_: &T) {}
    let key = master_key(0);
    let mut sender = SrtpSender::new(stream(GCM), Stretch::default());
    let mut packet = rtp(1, b"speech");
    sender
        .protect_rtp(&key, &mut packet)
        .expect("a good packet");
    let mut receiver = SrtpReceiver::new(stream(GCM), Stretch::default());
    receiver
        .try_rtp(&key, &packet, &mut Vec::new())
        .expect("it opens");
    let given = StaticReceiver::new(&sender.params(&key).master, SSRC, 0);
    moves(&sender);
    moves(&receiver);
    moves(&given);
    for shown in [
        format!("{sender:?}"),
        format!("{receiver:?}"),
        format!("{given:?}"),
    ] {
        assert!(!shown.contains("key") && shown.len() < 300, "{shown}");
    }
}
