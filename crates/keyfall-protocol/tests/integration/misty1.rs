//! `interop/vectors/misty1.json`: texts under MISTY1 in CBC mode, for another MISTY1 to read.

use keyfall_protocol::keys::Secret;
use keyfall_protocol::rng::{Random, octets};
use keyfall_protocol::sharing::misty1::{BLOCK_LEN, Misty1};
use serde_json::{Value, json};

use crate::stream::Stream;
use crate::vectors::{check, hex};

#[test]
fn misty1_texts_are_the_published_ones() {
    let mut stream = Stream::new("misty1");
    let texts: Vec<Value> = (0..TEXTS)
        .map(|i| {
            let key = Secret::init_with(|into| stream.fill(into));
            let iv = octets(&mut stream);
            let mut text = vec![0; BLOCK_LEN * (1 + i % 33)];
            stream.fill(&mut text);
            let plain = hex(&text);
            let mut misty1 = Misty1::new(&key);
            misty1.encrypt(iv, &mut text).unwrap();
            let cipher = hex(&text);
            misty1.decrypt(iv, &mut text).unwrap();
            assert_eq!(hex(&text), plain);
            json!({ "key": hex(key.expose()), "iv": hex(&iv), "plain": plain, "cipher": cipher })
        })
        .collect();
    check(
        "misty1.json",
        &json!({
            "about": "docs/PROTOCOL.md, \"Legacy suite rsa-misty1\": MISTY1 (RFC 2994) in CBC mode \
                      without padding. Octets are hex text. For each text the stream of \"misty1\" \
                      gives key, IV and plaintext.",
            "texts": texts,
        }),
    );
}

const TEXTS: usize = 66;
