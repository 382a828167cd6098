#![expect(clippy::unwrap_used, reason = "tests")]
//! Writes and checks `interop/vectors/derivations.json`: three keys × generations × every label.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{Context, Label, encode_info, expand, key_tag};
use crate::ids::TerminalNumber;
use crate::ids::{EspSession, Generation, GroupNumber, KeyEpoch, KeyId, SessionId};
use crate::keys::{EspSuite, MasterKey, ObeyKey, PreSharedKey, Secret, SrtpSuite, WrapKey};

const GENERATIONS: [u32; 5] = [0, 1, 2, 1000, 65_535];

/// FORMATS section 3: "publish vectors: three keys × generations 0, 1, 2, 1000, 65535 × every
/// label". The obey key's later generations exist here only.
#[test]
fn derivations_are_the_published_ones() {
    let bob = TerminalNumber::new(2).unwrap();
    let group = GroupNumber::new(7).unwrap();
    let keys = [
        key_vectors("obey key of terminal 2", || {
            ObeyKey::new(bob, first_octets("obey key of terminal 2"))
        }),
        key_vectors("wrap key of terminal 2", || {
            let octets = first_octets("wrap key of terminal 2");
            WrapKey::new(bob, Generation::ZERO, octets)
        }),
        key_vectors("master key of group 7, epoch 22774400", || {
            let octets = first_octets("master key of group 7");
            MasterKey::new(group, KeyEpoch::new(22_774_400), Generation::ZERO, octets)
        }),
    ];
    let largest = (
        KeyId::new(u64::from(u32::MAX)).unwrap(),
        KeyEpoch::new(u32::MAX),
    );
    let tags: Vec<_> = [
        (group.master_key_id(), KeyEpoch::new(22_774_400)),
        (group.master_key_id(), KeyEpoch::new(22_774_401)),
        (
            GroupNumber::new(8).unwrap().master_key_id(),
            KeyEpoch::new(22_774_400),
        ),
        largest,
    ]
    .into_iter()
    .map(|(kid, epoch)| {
        json!({
            "kid": kid.get(),
            "epoch": epoch.get(),
            "tag_hash": hex(&key_tag(kid, epoch)),
        })
    })
    .collect();
    check(&json!({
        "about": "docs/PROTOCOL.md, \"Key schedule\": XL for three keys, five generations and every \
                  label; the first two octets of key tags. A key's first octets are SHA-256 of its \
                  name and four zero octets.",
        "keys": keys,
        "tags": tags,
    }));
}

fn key_vectors<R>(name: &str, first: impl Fn() -> PreSharedKey<R>) -> Value {
    let generations: Vec<_> = GENERATIONS
        .into_iter()
        .map(|generation| {
            let key = first().renew_to(Generation::new(generation).unwrap());
            let values: Vec<_> = cases().iter().map(|case| value(&key, case)).collect();
            json!({
                "generation": generation,
                "key": hex(&key.secret().expose()[..]),
                "values": values,
            })
        })
        .collect();
    let key = first();
    json!({
        "name": name,
        "kid": key.kid().get(),
        "epoch": key.epoch().get(),
        "generations": generations,
    })
}

struct Case {
    label: Label,
    context: Context,
    /// The context as JSON: octet strings as hex text.
    shown: Value,
    len: usize,
}

fn cases() -> Vec<Case> {
    let null = |label, len| Case {
        label,
        context: Context::Null,
        shown: Value::Null,
        len,
    };
    let iv = *b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b";
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, b"a frame").as_ref());
    let mut cases = vec![
        null(Label::Renew, 32),
        Case {
            label: Label::ToTerminal,
            context: Context::Iv(iv),
            shown: json!([hex(&iv)]),
            len: 32,
        },
        null(Label::Handle, 5),
        null(Label::Wrap, 32),
        null(Label::Fingerprint, 8),
        Case {
            label: Label::Receipt,
            context: Context::Hash(hash),
            shown: json!([hex(&hash)]),
            len: 32,
        },
        null(Label::KeyReqId, 8),
        Case {
            label: Label::KeyReq,
            context: Context::Iv(iv),
            shown: json!([hex(&iv)]),
            len: 32,
        },
        Case {
            label: Label::KeyDis,
            context: Context::Answer { request: hash, iv },
            shown: json!([hex(&hash), hex(&iv)]),
            len: 32,
        },
        Case {
            label: Label::Ack,
            context: Context::Hash(hash),
            shown: json!([hex(&hash)]),
            len: 32,
        },
        Case {
            label: Label::Control,
            context: Context::Transaction(22_774_400_000),
            shown: json!([22_774_400_000u64]),
            len: 32,
        },
    ];
    for suite in SrtpSuite::ALL {
        let session = [0xa0, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5];
        let (sender, n, ssrc) = (2, 3, 0xdead_beef);
        cases.push(Case {
            label: Label::Srtp,
            context: Context::Media {
                suite,
                sender: TerminalNumber::new(sender).unwrap(),
                session: SessionId::new(session),
                n,
                ssrc,
            },
            shown: json!([suite.number(), sender, hex(&session), n, ssrc]),
            len: suite.key_len() + suite.salt_len(),
        });
    }
    for suite in EspSuite::ALL {
        let session = [0xb0, 0xb1, 0xb2, 0xb3, 0xb4];
        let sender = 2;
        let len = suite.key_len() + EspSuite::SALT_LEN;
        cases.push(Case {
            label: Label::Esp,
            context: Context::Packets {
                suite,
                sender: TerminalNumber::new(sender).unwrap(),
                session: EspSession::new(session),
            },
            shown: json!([suite.number(), sender, hex(&session), 0, 0]),
            len,
        });
        let (spi, random) = (0x7fff_ffff, *b"sixteen octets..");
        cases.push(Case {
            label: Label::EspPinned,
            context: Context::Pinned { suite, spi, random },
            shown: json!([suite.number(), spi, hex(&random)]),
            len,
        });
    }
    cases
}

fn value<R>(key: &PreSharedKey<R>, case: &Case) -> Value {
    let id = (key.kid(), key.epoch(), key.generation());
    let mut info = [0u8; 128];
    let rest = {
        let mut rest = &mut info[..];
        encode_info(&mut rest, case.label, id, &case.context, case.len).unwrap();
        rest.len()
    };
    let info = &info[..info.len() - rest];
    let mut out = vec![0; case.len];
    expand(
        key.secret().expose(),
        case.label,
        id,
        &case.context,
        &mut out,
    );
    json!({
        "label": case.label.text(),
        "ctx": case.shown,
        "len": case.len,
        "info": hex(info),
        "out": hex(&out),
    })
}

fn first_octets(name: &str) -> Secret<32> {
    let text = [name.as_bytes(), &[0; 4]].concat();
    Secret::from_slice(digest(&SHA256, &text).as_ref()).unwrap()
}

/// Byte for byte; `KEYFALL_WRITE_VECTORS=1` writes the file anew.
fn check(content: &Value) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../interop/vectors/derivations.json");
    let text = serde_json::to_string_pretty(content).unwrap() + "\n";
    if std::env::var_os("KEYFALL_WRITE_VECTORS").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    let held = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        held == text,
        "interop/vectors/derivations.json is not what the code says; KEYFALL_WRITE_VECTORS=1 \
         writes it anew, and docs/PROTOCOL.md has to follow"
    );
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}
