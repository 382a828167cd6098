//! What is refused changes nothing.

use keyfall_protocol::ids::{EspSession, TerminalNumber};
use keyfall_protocol::keys::{EspSuite, PinnedSpi};
use proptest::prelude::*;

use super::{
    by_hand, ipv4, ipv6, master_key, opened, pinned_spi, receiver, sealed, sender, session,
    terminal, text,
};
use crate::{
    ESP_HEAD, ESP_PLACE_LEN, ESP_SEQUENCE_MAX, EspArrival, EspReceiver, EspRefused, EspSender,
    PinnedArrival, SealRefused, Spi, esp_len,
};

#[test]
fn a_change_of_any_octet_of_esp_is_refused_and_changes_nothing() {
    for suite in EspSuite::ALL {
        let (mut sender, mut receiver) = (sender(suite), receiver(suite));
        let first = sealed(&mut sender, &ipv4(30));
        assert!(opened(&mut receiver, &first).is_ok());
        let good = sealed(&mut sender, &ipv4(40));
        for place in 0..good.len() {
            for bit in [0x01, 0x80] {
                let mut bad = good.clone();
                bad[place] ^= bit;
                assert!(opened(&mut receiver, &bad).is_err(), "{suite:?} {place}");
            }
        }
        for len in 0..good.len() {
            assert!(opened(&mut receiver, &good[..len]).is_err(), "{len} octets");
        }
        assert_eq!(receiver.highest(), 1);
        assert_eq!(opened(&mut receiver, &good), Ok((ipv4(40), 2)), "still");
    }
}

#[test]
fn a_packet_of_another_key_sender_session_or_suite_does_not_open() {
    let suite = EspSuite::default();
    let packet = sealed(&mut sender(suite), &ipv4(30));
    let (key, other_key) = (master_key(1), master_key(17));
    assert_eq!(key.esp_tag(), other_key.esp_tag(), "modulo 16");
    let refused =
        |mut receiver: EspReceiver| opened(&mut receiver, &packet).expect_err("another's");
    let other = EspRefused::OtherSession;
    let new = EspReceiver::new;
    assert_eq!(
        refused(new(suite, &master_key(2), terminal(42), session(0))),
        other
    );
    assert_eq!(refused(new(suite, &key, terminal(41), session(0))), other);
    assert_eq!(refused(new(suite, &key, terminal(42), session(1))), other);
    let forged = EspRefused::AuthenticationFailed;
    assert_eq!(
        refused(new(suite, &other_key, terminal(42), session(0))),
        forged
    );
    assert_eq!(
        refused(new(EspSuite::Aes128Gcm, &key, terminal(42), session(0))),
        forged
    );
    assert_eq!(
        refused(new(
            EspSuite::ChaCha20Poly1305,
            &key,
            terminal(42),
            session(0)
        )),
        forged
    );
}

#[test]
fn a_replay_is_refused_within_and_before_the_window() {
    let suite = EspSuite::default();
    let (mut sender, mut receiver) = (sender(suite), receiver(suite));
    let packets: Vec<_> = (0..9000).map(|_| sealed(&mut sender, &ipv4(20))).collect();
    for packet in packets.iter().skip(1) {
        assert!(opened(&mut receiver, packet).is_ok());
    }
    for packet in &packets[9000 - 8192..] {
        assert_eq!(opened(&mut receiver, packet), Err(EspRefused::Replayed));
    }
    assert_eq!(opened(&mut receiver, &packets[0]), Err(EspRefused::TooOld));
    assert_eq!(receiver.highest(), 9000);
}

#[test]
fn nothing_up_to_the_stored_mark_is_delivered_again() {
    let suite = EspSuite::default();
    let mut sender = sender(suite);
    let packets: Vec<_> = (0..20).map(|_| sealed(&mut sender, &ipv4(20))).collect();
    let key = master_key(1);
    let mut receiver = EspReceiver::with_mark(suite, &key, terminal(42), session(0), 12);
    assert_eq!(receiver.highest(), 12);
    for (sequence, packet) in (1..).zip(&packets) {
        let expected = if sequence <= 12 {
            Err(EspRefused::TooOld)
        } else {
            Ok((ipv4(20), sequence))
        };
        assert_eq!(opened(&mut receiver, packet), expected);
    }
    let mut rested = receiver;
    rested.rest();
    for packet in &packets {
        assert!(opened(&mut rested, packet).is_err());
    }
    assert!(opened(&mut rested, &sealed(&mut sender, &ipv4(20))).is_ok());
}

#[test]
fn heads_that_no_sender_writes_are_refused_before_any_cryptography() {
    let good = sealed(&mut sender(EspSuite::default()), &ipv4(30));
    let head = |spi: u32, sequence: u32, low: [u8; 3]| {
        let mut packet = good.clone();
        packet[..4].copy_from_slice(&spi.to_be_bytes());
        packet[4..8].copy_from_slice(&sequence.to_be_bytes());
        packet[13..16].copy_from_slice(&low);
        packet
    };
    let spi = Spi::new(terminal(42), 3).get();
    for (packet, expected) in [
        (head(0, 1, [0, 0, 1]), EspRefused::ReservedSpi),
        (head(0xff, 1, [0, 0, 1]), EspRefused::ReservedSpi),
        (head(0x100, 1, [0, 0, 1]), EspRefused::Pinned),
        (head(0x7fff_ffff, 1, [0, 0, 1]), EspRefused::Pinned),
        (head(0x8000_0000, 1, [0, 0, 1]), EspRefused::NoSender),
        (head(0x8000_007f, 1, [0, 0, 1]), EspRefused::NoSender),
        (head(spi, 0, [0, 0, 0]), EspRefused::BadSequence),
        (head(spi, 1, [0, 0, 2]), EspRefused::BadSequence),
        (head(spi, 1 << 24, [0, 0, 0]), EspRefused::BadSequence),
        (head(spi, 1 << 24 | 1, [0, 0, 1]), EspRefused::BadSequence),
    ] {
        assert_eq!(EspArrival::read(&packet), Err(expected));
    }
    assert_eq!(PinnedArrival::read(&good), Err(EspRefused::NotPinned));
    let unnumbered = head(0x100, 0, [0; 3]);
    assert_eq!(
        PinnedArrival::read(&unnumbered),
        Err(EspRefused::BadSequence)
    );
    let shortest = ESP_HEAD + 2 + 16;
    assert_eq!(
        EspArrival::read(&good[..shortest - 1]),
        Err(EspRefused::TooShort)
    );
}

#[test]
fn authentic_packets_that_hold_no_ip_packet_are_refused_and_are_replays_afterwards() {
    let keys = master_key(1).derive_esp_pinned(EspSuite::default(), pinned_spi(), [4; 16]);
    let mut receiver = EspReceiver::pinned(&keys, pinned_spi(), 0);
    let mut too_much_padding = text(&ipv4(20), 4);
    let place = too_much_padding.len() - 2;
    too_much_padding[place] = 23;
    let mut longer = ipv4(20);
    longer[3] = 21;
    let mut shorter = ipv4(20);
    shorter[3] = 19;
    let cases = [
        (text(&ipv4(20), 41), EspRefused::NotIp),
        (text(&ipv6(0), 4), EspRefused::NotIp),
        (text(&ipv4(20), 6), EspRefused::NotIp),
        (text(&[0x55; 40], 4), EspRefused::NotIp),
        (text(&ipv6(0)[..39], 41), EspRefused::NotIp),
        (text(&longer, 4), EspRefused::NotIp),
        (text(&shorter, 4), EspRefused::NotIp),
        (text(&[0x45], 4), EspRefused::NotIp),
        (text(&[], 4), EspRefused::NotIp),
        (too_much_padding, EspRefused::NotIp),
        (text(&[], 59), EspRefused::Dummy),
        (text(&[1; 700], 59), EspRefused::Dummy),
        (text(&[1; 4], 59), EspRefused::Dummy),
        (text(&[0; 4], 59), EspRefused::Dummy),
        (text(&[0, 0, 7], 59), EspRefused::Dummy),
        (text(&[0, 0, 0, 7], 59), EspRefused::Place(terminal(7))),
        (
            text(&[1; 5], 59),
            EspRefused::Refusal(EspSession::new([1; 5])),
        ),
    ];
    for (sequence, (text, expected)) in (1..).zip(cases) {
        let packet = by_hand(&keys, pinned_spi().get(), sequence, [1; 8], &text);
        assert_eq!(opened(&mut receiver, &packet), Err(expected), "{sequence}");
        assert_eq!(opened(&mut receiver, &packet), Err(EspRefused::Replayed));
    }
    let packet = by_hand(
        &keys,
        pinned_spi().get() + 1,
        99,
        [1; 8],
        &text(&ipv4(20), 4),
    );
    assert_eq!(
        opened(&mut receiver, &packet),
        Err(EspRefused::OtherSession)
    );
}

#[test]
fn what_is_no_whole_ip_packet_is_not_sealed_and_takes_no_number() {
    let mut sender = sender(EspSuite::default());
    let mut long = ipv4(40);
    long.push(0);
    let mut out = vec![0; 200];
    for bad in [
        &[][..],
        &[0x45; 3],
        &[0x33; 60],
        &long,
        &ipv4(40)[..39],
        &ipv6(4)[..43],
    ] {
        assert_eq!(sender.seal_from(bad, &mut out), Err(SealRefused::NotIp));
        let mut buffer = vec![0; ESP_HEAD];
        buffer.extend_from_slice(bad);
        buffer.resize(200, 0);
        let before = buffer.clone();
        assert_eq!(sender.seal(&mut buffer, bad.len()), Err(SealRefused::NotIp));
        assert_eq!(buffer, before);
    }
    let inner = ipv4(40);
    let mut short = vec![0; esp_len(40) - 1];
    assert_eq!(
        sender.seal_from(&inner, &mut short),
        Err(SealRefused::NoRoom)
    );
    assert_eq!(sender.seal(&mut short, 40), Err(SealRefused::NoRoom));
    assert_eq!(sender.seal(&mut [], 40), Err(SealRefused::NoRoom));
    assert_eq!(sender.remaining(), ESP_SEQUENCE_MAX);
}

#[test]
fn a_buffer_that_is_too_short_is_said_before_the_packet_counts() {
    let (mut sender, mut receiver) = (sender(EspSuite::default()), receiver(EspSuite::default()));
    let packet = sealed(&mut sender, &ipv4(40));
    let text = packet.len() - ESP_HEAD - 16;
    let mut out = vec![0; text];
    let refused = receiver.open_into(&packet, &mut out[..text - 1]);
    assert_eq!(refused, Err(EspRefused::NoRoom));
    assert_eq!(receiver.open_into(&packet, &mut out), Ok((40, 1)));
}

#[test]
fn a_forged_packet_leaves_no_plain_text_behind() {
    let (mut sender, mut receiver) = (sender(EspSuite::default()), receiver(EspSuite::default()));
    let mut packet = sealed(&mut sender, &ipv4(60));
    *packet.last_mut().expect("not empty") ^= 1;
    let mut out = [0; 200];
    let refused = receiver.open_into(&packet, &mut out);
    assert_eq!(refused, Err(EspRefused::AuthenticationFailed));
    assert!(!out.windows(8).any(|window| window == &ipv4(60)[4..12]));
}

#[test]
fn no_debug_print_shows_a_key() {
    let sender = sender(EspSuite::default());
    let prints = format!("{sender:?} {:?}", receiver(EspSuite::default()));
    let keys = master_key(1).derive_esp(EspSuite::default(), terminal(42), session(0));
    let shown: String = keys.key()[..3].iter().map(|o| format!("{o:02x}")).collect();
    assert!(
        !prints.contains(&shown) && prints.contains("Spi("),
        "{prints}"
    );
}

proptest! {
    #[test]
    fn octets_of_strangers_never_open(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(PinnedArrival { spi, .. }) = PinnedArrival::read(&octets) {
            prop_assert!(spi.get() >> 31 == 0);
        }
        if let Ok(arrival) = EspArrival::read(&octets) {
            let EspArrival { spi, session, .. } = arrival;
            prop_assert_eq!(Spi::from_u32(spi.get()), Some(spi));
            let mut receiver =
                EspReceiver::new(EspSuite::default(), &master_key(1), spi.sender(), session);
            prop_assert!(opened(&mut receiver, &octets).is_err());
        }
    }

    #[test]
    fn an_spi_says_what_it_was_made_of(sender in 1u32..=0xff_ffff, tag in 0u8..128) {
        let spi = Spi::new(terminal(sender), tag);
        prop_assert_eq!((spi.sender(), spi.tag()), (terminal(sender), tag));
        prop_assert_eq!(spi.get(), 1 << 31 | sender << 7 | u32::from(tag));
        prop_assert_eq!(PinnedSpi::new(spi.get()), None);
    }

    #[test]
    fn no_text_makes_an_authentic_packet_panic(text in proptest::collection::vec(any::<u8>(), 2..90)) {
        let keys = master_key(1).derive_esp_pinned(EspSuite::default(), pinned_spi(), [4; 16]);
        let packet = by_hand(&keys, pinned_spi().get(), 1, [1; 8], &text);
        let mut receiver = EspReceiver::pinned(&keys, pinned_spi(), 0);
        if let Ok((inner, _)) = opened(&mut receiver, &packet) {
            prop_assert!(text.starts_with(&inner) && matches!(inner[0] >> 4, 4 | 6));
        }
    }
}

#[test]
fn two_sessions_of_one_sender_share_nothing() {
    let key = master_key(1);
    let suite = EspSuite::default();
    let first = EspSession::new([0xff; 5]);
    let mut one = EspSender::new(suite, &key, terminal(42), first);
    let mut two = EspSender::new(suite, &key, terminal(42), first.next());
    let (a, b) = (sealed(&mut one, &ipv4(64)), sealed(&mut two, &ipv4(64)));
    assert_eq!(a[..8], b[..8], "SPI and sequence number are the same");
    assert_ne!(a[8..16], b[8..16]);
    assert_ne!(a[16..], b[16..]);
}

/// RFC 4303 section 2.6: a dummy packet is authentic, takes a number, and counts once. KR-564: it names
/// whom it tells a place.
#[test]
fn a_dummy_packet_opens_as_one_and_once() {
    for suite in EspSuite::ALL {
        let (mut sender, mut receiver) = (sender(suite), receiver(suite));
        let mut packet = vec![0; ESP_PLACE_LEN];
        let sealed = sender.seal_place(TerminalNumber::MAX, &mut packet);
        assert_eq!(sealed, Ok(packet.len()));
        let mut out = [0; 64];
        for refused in [EspRefused::Place(TerminalNumber::MAX), EspRefused::Replayed] {
            assert_eq!(receiver.open_into(&packet, &mut out), Err(refused));
        }
        assert_eq!(sender.remaining(), crate::ESP_SEQUENCE_MAX - 1);
    }
}
