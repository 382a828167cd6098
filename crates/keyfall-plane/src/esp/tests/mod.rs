//! Senders and receivers together.

use keyfall_protocol::ids::{EspSession, Generation, GroupNumber, KeyEpoch, TerminalNumber};
use keyfall_protocol::keys::{EspKeys, EspSuite, MasterKey, PinnedSpi, Secret};
use proptest::prelude::*;

use crate::{
    ESP_HEAD, ESP_SEQUENCE_MAX, ESP_TAIL_MAX, EspArrival, EspReceiver, EspRefused, EspSender,
    PinnedArrival, esp_len,
};

mod nonces;
mod refusals;

pub(super) fn master_key(generation: u32) -> MasterKey {
    let group = GroupNumber::new(7).expect("7 is a group number");
    let bytes = Secret::init_with(|out| out.fill(0x5a));
    MasterKey::new(group, KeyEpoch::new(3), Generation::ZERO, bytes)
        .renew_to(Generation::new(generation).expect("small"))
}

pub(super) fn terminal(number: u32) -> TerminalNumber {
    TerminalNumber::new(number).expect("a terminal number")
}

fn session(number: u8) -> EspSession {
    EspSession::new([9, 9, 9, 9, number])
}

fn sender(suite: EspSuite) -> EspSender {
    EspSender::new(suite, &master_key(1), terminal(42), session(0))
}

fn receiver(suite: EspSuite) -> EspReceiver {
    EspReceiver::new(suite, &master_key(1), terminal(42), session(0))
}

/// An IPv4 packet of `len` octets, at least 20.
pub(super) fn ipv4(len: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&len.to_be_bytes());
    packet.extend((4..len).map(|octet| octet as u8));
    packet
}

/// An IPv6 packet with `payload` octets behind the header.
fn ipv6(payload: u16) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&payload.to_be_bytes());
    packet.extend((6..40 + payload).map(|octet| octet as u8));
    packet
}

pub(super) fn sealed(sender: &mut EspSender, inner: &[u8]) -> Vec<u8> {
    let mut out = vec![0; esp_len(inner.len())];
    let len = sender.seal_from(inner, &mut out).expect("a whole packet");
    assert_eq!(len, out.len());
    out
}

pub(super) fn opened(
    receiver: &mut EspReceiver,
    packet: &[u8],
) -> Result<(Vec<u8>, u32), EspRefused> {
    let mut out = vec![0; packet.len()];
    let (len, sequence) = receiver.open_into(packet, &mut out)?;
    out.truncate(len);
    Ok((out, sequence))
}

/// RFC 7634 appendix A.
const RFC_7634: &str = "
    01020304 00000005 1011121314151617
    24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95dfab4c02f7
    2aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0
    76aaa8266b7fb0f7b11b369907e1ad43";

#[test]
fn the_packet_of_rfc_7634_appendix_a_opens() {
    let packet = crate::srtp::tests::octets(RFC_7634);
    let key_and_salt: Vec<u8> = (0x80..0xa4).collect();
    let keys = EspKeys::from_octets(EspSuite::ChaCha20Poly1305, &key_and_salt).expect("36");
    let arrival = PinnedArrival::read(&packet).expect("a stock sender's");
    assert_eq!((arrival.spi.get(), arrival.sequence), (0x0102_0304, 5));
    let (inner, sequence) =
        opened(&mut EspReceiver::pinned(&keys, arrival.spi, 0), &packet).expect("it opens");
    assert_eq!(sequence, 5);
    let expected = "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec1000073627";
    assert_eq!(inner[..36], crate::srtp::tests::octets(expected));
    assert!(inner[36..].iter().copied().eq(0x08..0x38));
}

#[test]
fn every_suite_brings_both_versions_back_as_they_were() {
    for suite in EspSuite::ALL {
        let (mut sender, mut receiver) = (sender(suite), receiver(suite));
        let packets = (20..90).map(ipv4).chain((0..70).map(ipv6));
        for (sequence, inner) in (1..).zip(packets) {
            let packet = sealed(&mut sender, &inner);
            assert_eq!(packet.len() % 4, 0, "RFC 4303 section 2.4");
            let arrival = EspArrival::read(&packet).expect("ours");
            assert_eq!(arrival.spi, sender.spi());
            assert_eq!(arrival.spi.sender(), terminal(42));
            assert_eq!(arrival.spi.tag(), master_key(1).esp_tag());
            assert_eq!(arrival.session, session(0));
            assert_eq!(arrival.sequence, sequence);
            assert_eq!(opened(&mut receiver, &packet), Ok((inner, sequence)));
            assert_eq!(receiver.highest(), sequence);
            assert_eq!(sender.remaining(), ESP_SEQUENCE_MAX - sequence);
        }
    }
}

#[test]
fn sealing_in_place_gives_the_same_octets() {
    for suite in EspSuite::ALL {
        let (mut one, mut other) = (sender(suite), sender(suite));
        for len in 20..60 {
            let inner = ipv4(len);
            let mut buffer = vec![0; ESP_HEAD + inner.len() + ESP_TAIL_MAX];
            buffer[ESP_HEAD..ESP_HEAD + inner.len()].copy_from_slice(&inner);
            let total = one.seal(&mut buffer, inner.len()).expect("a whole packet");
            assert_eq!(buffer[..total], sealed(&mut other, &inner));
        }
    }
}

#[test]
fn an_ipv4_packet_in_udp_grows_by_36_octets_and_its_padding() {
    // FORMATS section 7: "20 + 8 + 8 + 8 + 2 + pad + 16", of which 28 are the outer headers.
    for len in 20..100 {
        let added = esp_len(len) - len;
        assert_eq!(added, 34 + (4 - (len + 2) % 4) % 4);
        assert!(added <= ESP_HEAD + ESP_TAIL_MAX);
    }
}

#[test]
fn a_stock_senders_ivs_are_taken_as_they_come() {
    let keys = master_key(1).derive_esp_pinned(EspSuite::default(), pinned_spi(), [4; 16]);
    let mut receiver = EspReceiver::pinned(&keys, pinned_spi(), 0);
    for (sequence, iv) in [(1, [0; 8]), (2, [0xff; 8]), (u32::MAX, *b"anything")] {
        let packet = by_hand(&keys, pinned_spi().get(), sequence, iv, &text(&ipv4(20), 4));
        assert_eq!(opened(&mut receiver, &packet), Ok((ipv4(20), sequence)));
        assert_eq!(opened(&mut receiver, &packet), Err(EspRefused::Replayed));
    }
}

#[test]
fn padding_for_traffic_flow_confidentiality_is_cut_off() {
    // RFC 4303 section 2.7: it stands between the inner packet and the padding of ESP.
    let keys = master_key(1).derive_esp_pinned(EspSuite::default(), pinned_spi(), [4; 16]);
    let mut receiver = EspReceiver::pinned(&keys, pinned_spi(), 0);
    for (sequence, inner, next_header) in [(1, ipv4(33), 4), (2, ipv6(5), 41)] {
        let padded = [&inner[..], &[0; 500]].concat();
        let text = text(&padded, next_header);
        let packet = by_hand(&keys, pinned_spi().get(), sequence, [7; 8], &text);
        assert_eq!(opened(&mut receiver, &packet), Ok((inner, sequence)));
    }
}

proptest! {
    #[test]
    fn what_is_sealed_in_any_order_opens_once(
        lens in proptest::collection::vec(20u16..1600, 1..40),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..120),
        suite in prop::sample::select(EspSuite::ALL.to_vec()),
    ) {
        let (mut sender, mut receiver) = (sender(suite), receiver(suite));
        let packets: Vec<_> = lens.iter().map(|&len| sealed(&mut sender, &ipv4(len))).collect();
        let mut seen = std::collections::BTreeSet::new();
        for place in order {
            let place = place.index(packets.len());
            let expected = if seen.insert(place) {
                Ok((ipv4(lens[place]), place as u32 + 1))
            } else {
                Err(EspRefused::Replayed)
            };
            prop_assert_eq!(opened(&mut receiver, &packets[place]), expected);
        }
    }
}

fn pinned_spi() -> PinnedSpi {
    PinnedSpi::new(0x1001).expect("in bounds")
}

/// `payload ‖ 1, 2, … ‖ pad length ‖ next header`.
fn text(payload: &[u8], next_header: u8) -> Vec<u8> {
    let padding = (2 + 4 - payload.len() % 4) % 4;
    let mut text = payload.to_vec();
    text.extend(1..=padding as u8);
    text.extend([padding as u8, next_header]);
    text
}

/// A packet as RFC 4303 draws it, with any SPI, sequence number, IV and text.
fn by_hand(keys: &EspKeys, spi: u32, sequence: u32, iv: [u8; 8], text: &[u8]) -> Vec<u8> {
    let mut head = [0; ESP_HEAD];
    head[..4].copy_from_slice(&spi.to_be_bytes());
    head[4..8].copy_from_slice(&sequence.to_be_bytes());
    head[8..].copy_from_slice(&iv);
    let mut packet = vec![0; ESP_HEAD + text.len() + 16];
    packet[..ESP_HEAD].copy_from_slice(&head);
    let (out, icv) = packet[ESP_HEAD..].split_at_mut(text.len());
    super::cipher::Cipher::new(keys).seal(&head, text, out, &[], icv);
    packet
}
