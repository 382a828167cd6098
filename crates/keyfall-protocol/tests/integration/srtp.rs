//! `interop/vectors/srtp.json`: SRTP masters and MKIs for each suite, whole packets, and what
//! index, n, ROC and sequence number have to do with each other.

use keyfall_plane::{Mki, SrtpSender, SrtpStream, Stretch};
use keyfall_protocol::ids::SessionId;
use keyfall_protocol::keys::{MasterKey, SrtpSuite};
use serde_json::{Value, json};

use crate::fleet::{master_key, terminal};
use crate::vectors::{check, hex};

const SENDER: u32 = 2;
const SESSION: [u8; 6] = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5];
const SSRC: u32 = 0xdead_beef;

#[test]
fn media_keys_and_packets_are_the_published_ones() {
    let masters: Vec<_> = SrtpSuite::ALL
        .into_iter()
        .flat_map(|suite| [0, 12, 300].map(|generation| (suite, generation)))
        .flat_map(|(suite, generation)| [0, 3, 65_535].map(|n| (suite, generation, n)))
        .map(|(suite, generation, n)| master(suite, &master_key(7, generation), n))
        .collect();
    let packets: Vec<_> = SrtpSuite::ALL.into_iter().flat_map(packets).collect();
    let indexes: Vec<_> = [
        (16, 0u64),
        (16, 65_536),
        (16, (65_536 << 16) - 1),
        (10, 1023),
    ]
    .into_iter()
    .chain([
        (10, 1024),
        (10, 70_000),
        (10, (65_536 << 10) - 1),
        (13, 1_000_000),
    ])
    .map(|(j, index)| {
        json!({
            "j": j, "index": index, "n": index >> j, "roc": index >> 16, "seq": index & 0xffff,
        })
    })
    .collect();
    check(
        "srtp.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Media\": under the master key of group 7 in \
                      derivations.json's epoch, of which `master_key` is the generation at hand.",
            "sender": SENDER,
            "session": hex(&SESSION),
            "ssrc": SSRC,
            "masters": masters,
            "packets": packets,
            "indexes": indexes,
        }),
    );
}

fn master(suite: SrtpSuite, key: &MasterKey, n: u16) -> Value {
    let session = SessionId::new(SESSION);
    let made = key.derive_srtp(suite, terminal(SENDER), session, n, SSRC);
    json!({
        "suite": suite.number(),
        "suite_name": suite.name(),
        "kid": key.kid().get(),
        "epoch": key.epoch().get(),
        "generation": key.generation().get(),
        "master_key": hex(&key.secret().expose()[..]),
        "n": n,
        "key": hex(made.key()),
        "salt": hex(made.salt()),
        "mki": hex(Mki::new(key.tag(), terminal(SENDER), session, n).as_bytes()),
    })
}

/// A call of four RTP packets across a re-derivation (j = 10) and a renewal, RTCP before, between
/// and after; then a static stream (`n` stands still, no MKI).
fn packets(suite: SrtpSuite) -> Vec<Value> {
    let stream = SrtpStream {
        suite,
        sender: terminal(SENDER),
        session: SessionId::new(SESSION),
        ssrc: SSRC,
    };
    let (early, late) = (master_key(7, 12), master_key(7, 13));
    let mut call = SrtpSender::new(stream, Stretch::new(10).unwrap());
    let mut made = vec![rtcp(&mut call, &early, "before the first RTP packet", 0)];
    for (key, seq, n) in [
        (&early, 1022, 0),
        (&early, 1023, 0),
        (&early, 1024, 1),
        (&late, 1025, 1),
    ] {
        made.push(rtp(&mut call, key, "in a call", seq, n));
    }
    made.push(rtcp(&mut call, &late, "in a call", 1));
    let mut fixed = SrtpSender::new_static(stream, 5, false);
    made.push(rtp(&mut fixed, &early, "static, without MKI", 60_000, 5));
    made.push(rtcp(&mut fixed, &early, "static, without MKI", 5));
    made
}

fn rtp(sender: &mut SrtpSender, key: &MasterKey, what: &str, seq: u16, n: u16) -> Value {
    // Version 2, marker, payload type 96, one CSRC: 16 octets of header.
    let header = [
        &[0x81, 0xe0][..],
        &seq.to_be_bytes(),
        &0x0001_0000u32.to_be_bytes(),
        &SSRC.to_be_bytes(),
        &7u32.to_be_bytes(),
    ]
    .concat();
    let plain = [&header[..], format!("speech, packet {seq}").as_bytes()].concat();
    let mut packet = plain.clone();
    let index = sender.protect_rtp(key, &mut packet).unwrap();
    let kind = json!({"protocol": "SRTP", "header": header.len()});
    shown(sender, key, what, (index, n), kind, (&plain, &packet))
}

fn rtcp(sender: &mut SrtpSender, key: &MasterKey, what: &str, n: u16) -> Value {
    // A receiver report with no blocks, then a source description.
    let plain = [
        &[0x80, 201, 0, 1][..],
        &SSRC.to_be_bytes(),
        &[0x81, 202, 0, 3],
        &SSRC.to_be_bytes(),
        &[1, 5],
        b"alice",
        &[0],
    ]
    .concat();
    let mut packet = plain.clone();
    let index = sender.protect_rtcp(key, &mut packet).unwrap();
    let kind = json!({"protocol": "SRTCP", "header": 8});
    shown(
        sender,
        key,
        what,
        (index.into(), n),
        kind,
        (&plain, &packet),
    )
}

fn shown(
    sender: &SrtpSender,
    key: &MasterKey,
    what: &str,
    (index, n): (u64, u16),
    kind: Value,
    (plain, packet): (&[u8], &[u8]),
) -> Value {
    let mut value = json!({
        "what": what,
        "suite": sender.stream().suite.number(),
        "generation": key.generation().get(),
        "master_key": hex(&key.secret().expose()[..]),
        "index": index,
        "n": n,
        "mki": !what.starts_with("static"),
        "plain": hex(plain),
        "packet": hex(packet),
    });
    value["protocol"] = kind["protocol"].clone();
    value["header"] = kind["header"].clone();
    value
}
