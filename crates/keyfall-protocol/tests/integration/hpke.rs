//! `interop/vectors/hpke.json`: what is sealed to a key of either KEM, from the seed on.

use keyfall_protocol::sharing::{KemSecret, KemSuite};
use serde_json::{Value, json};

use crate::fleet::secret;
use crate::stream::Stream;
use crate::vectors::{check, hex};

#[test]
fn what_is_sealed_to_a_kem_key_is_as_published() {
    let suites = [KemSuite::X25519, KemSuite::XWing];
    let sealed = suites.map(|suite| TEXTS.map(|(info, plain)| shown(suite, info, plain)));
    check(
        "hpke.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Vectors and captured runs\": single-shot HPKE, base mode, \
                      HKDF-SHA256, AES-256-GCM, empty AAD. `seed` is the IKM of DeriveKeyPair; the \
                      sender drew `drawn`. `info` and `plain` are octets.",
            "sealed": sealed.concat(),
        }),
    );
}

fn shown(suite: KemSuite, info: &[u8], plain: &[u8]) -> Value {
    let (name, kem) = match suite {
        KemSuite::X25519 => ("hpke", 0x0020),
        KemSuite::XWing => ("hpke-pq", 0x647a),
    };
    let seed = secret(&format!("KEM key of {name}"));
    let key = KemSecret::from_seed(suite, seed.duplicate());
    let from = format!("sealed to {name}, {} octets", plain.len());
    let mut rng = Stream::new(&from);
    let (enc, ct) = key.public().seal(info, plain, &mut rng).unwrap();
    assert_eq!(key.open(info, &enc, &ct).unwrap()[..], plain[..]);
    json!({
        "suite": name,
        "kem": kem,
        "seed": hex(&seed.expose()[..]),
        "public": hex(key.public().octets()),
        "listed": hex(key.public().listing().as_bytes()),
        "info": hex(info),
        "plain": hex(plain),
        "drawn_from": from,
        "drawn": rng.drawn.iter().map(|drawn| hex(drawn)).collect::<Vec<_>>(),
        "enc": hex(&enc),
        "ct": hex(&ct),
    })
}

const TEXTS: [(&[u8], &[u8]); 3] = [
    (b"KF1/key-req", b"what a terminal asks"),
    (b"KF1/key-dis", b""),
    (b"", &[0x5a; 300]),
];
