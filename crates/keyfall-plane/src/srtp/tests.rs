//! Senders and receivers together.

use keyfall_protocol::ids::{Generation, GroupNumber, KeyEpoch, SessionId, TerminalNumber};
use keyfall_protocol::keys::{MasterKey, Secret, SrtpSuite};

use crate::{Arrival, Refused, SrtpReceiver, SrtpSender, SrtpStream, Stretch};

const SSRC: u32 = 0x1234_5678;

fn master_key(generation: u32) -> MasterKey {
    let group = GroupNumber::new(7).expect("7 is a group number");
    let bytes = Secret::init_with(|out| out.fill(0x5a));
    MasterKey::new(group, KeyEpoch::new(3), Generation::ZERO, bytes)
        .renew_to(Generation::new(generation).expect("small"))
}

fn stream(suite: SrtpSuite) -> SrtpStream {
    SrtpStream {
        suite,
        sender: TerminalNumber::new(42).expect("42 is a terminal number"),
        session: SessionId::new(*b"sessio"),
        ssrc: SSRC,
    }
}

fn rtp(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 96];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 160]);
    packet.extend_from_slice(&SSRC.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A receiver report with one report block.
fn rtcp() -> Vec<u8> {
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
