//! `interop/vectors/esp.json`: SPIs, ESP keys and whole packets of sessions and of stock senders.

use keyfall_plane::{EspSender, Spi, esp_len};
use keyfall_protocol::ids::EspSession;
use keyfall_protocol::keys::{EspKeys, EspSuite, MasterKey, PinnedSpi};
use serde_json::{Value, json};

use crate::fleet::{master_key, terminal};
use crate::vectors::{check, hex};

const SENDER: u32 = 2;
const SESSION: EspSession = EspSession::new([0xb0, 0xb1, 0xb2, 0xb3, 0xff]);
const SPI: u32 = 0x1001;
const RANDOM: [u8; 16] = *b"sixteen octets..";

#[test]
fn packet_keys_and_packets_are_the_published_ones() {
    let cases = || {
        EspSuite::ALL
            .into_iter()
            .flat_map(|suite| [0, 12, 300].map(|generation| (suite, master_key(7, generation))))
    };
    let sessions: Vec<_> = cases().map(|(suite, key)| session(suite, &key)).collect();
    let pinned: Vec<_> = cases().map(|(suite, key)| pinned(suite, &key)).collect();
    let packets: Vec<_> = EspSuite::ALL.into_iter().flat_map(packets).collect();
    check(
        "esp.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Packets\": under the master key of group 7 in \
                      derivations.json's epoch, of which `master_key` is the generation at hand.",
            "sender": SENDER,
            "session": hex(SESSION.as_bytes()),
            "sessions": sessions,
            "pinned": pinned,
            "packets": packets,
        }),
    );
}

fn session(suite: EspSuite, key: &MasterKey) -> Value {
    let keys = key.derive_esp(suite, terminal(SENDER), SESSION);
    let mut value = shown(key, &keys);
    value["spi"] = json!(Spi::new(terminal(SENDER), key.esp_tag()).get());
    value
}

fn pinned(suite: EspSuite, key: &MasterKey) -> Value {
    let spi = PinnedSpi::new(SPI).expect("in bounds");
    let mut value = shown(key, &key.derive_esp_pinned(suite, spi, RANDOM));
    value["spi"] = json!(SPI);
    value["random"] = json!(hex(&RANDOM));
    value
}

fn shown(key: &MasterKey, keys: &EspKeys) -> Value {
    json!({
        "suite": keys.suite().number(),
        "suite_name": keys.suite().name(),
        "kid": key.kid().get(),
        "epoch": key.epoch().get(),
        "generation": key.generation().get(),
        "master_key": hex(&key.secret().expose()[..]),
        "key": hex(keys.key()),
        "salt": hex(keys.salt()),
    })
}

/// Packets of each length of padding, of both versions, and across the end of a session.
fn packets(suite: EspSuite) -> Vec<Value> {
    let key = master_key(7, 12);
    let mut session = SESSION;
    let mut sender = EspSender::new(suite, &key, terminal(SENDER), session);
    let mut made = Vec::new();
    for (sequence, inner) in (1..).zip((28..32).map(ipv4).chain([ipv6(11)])) {
        made.push(packet(&mut sender, &key, &inner, sequence));
    }
    session = session.next();
    sender = EspSender::new(suite, &key, terminal(SENDER), session);
    made.push(packet(&mut sender, &key, &ipv4(100), 1));
    made
}

fn packet(sender: &mut EspSender, key: &MasterKey, inner: &[u8], sequence: u32) -> Value {
    let mut out = vec![0; esp_len(inner.len())];
    sender.seal_from(inner, &mut out).expect("a whole packet");
    json!({
        "suite": sender.suite().number(),
        "generation": key.generation().get(),
        "master_key": hex(&key.secret().expose()[..]),
        "session": hex(sender.session().as_bytes()),
        "sequence": sequence,
        "inner": hex(inner),
        "packet": hex(&out),
    })
}

fn ipv4(len: u16) -> Vec<u8> {
    // From 10.1.0.1 to 10.1.0.2, protocol 253 (for experiments); its checksum is not looked at.
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&len.to_be_bytes());
    packet.extend_from_slice(&[0, 7, 0x40, 0, 64, 253, 0, 0, 10, 1, 0, 1, 10, 1, 0, 2]);
    packet.resize(usize::from(len), b'p');
    packet
}

fn ipv6(payload: u16) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&payload.to_be_bytes());
    packet.extend_from_slice(&[253, 64]);
    for last in [1, 2] {
        packet.extend_from_slice(&[0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.resize(40 + usize::from(payload), b'q');
    packet
}
