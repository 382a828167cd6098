//! The same octets read by another COSE library (coset): it finds the values that we wrote, and
//! the signature input that it builds is the one that we signed.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use coset::cbor::value::Value;
use coset::{
    CborSerializable, CoseEncrypt, CoseSign1, RegisteredLabelWithPrivate, TaggedCborSerializable,
    iana,
};
use keyfall_protocol::command::Body;

use crate::cbor::Item;
use crate::commands::all;
use crate::fleet::signing_key;

#[test]
fn signed_commands_verify_in_another_cose_library() {
    for made in all() {
        let read = CoseSign1::from_tagged_slice(&made.frame).unwrap();
        let ed25519 = RegisteredLabelWithPrivate::Assigned(iana::Algorithm::Ed25519);
        assert_eq!(read.protected.header.alg, Some(ed25519), "{}", made.name);
        let key = signing_key(made.signer).public();
        assert_eq!(read.protected.header.key_id, key.name().as_bytes());
        assert!(read.unprotected.is_empty());
        assert_eq!(read.payload.as_deref(), Some(&made.command.encode()[..]));
        let verified = read.verify_signature(b"KF1/cmd", |signature, signed| {
            UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(signed, signature)
        });
        assert!(verified.is_ok(), "{}", made.name);
        let elsewhere = read.verify_signature(b"KF1/rec", |signature, signed| {
            UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(signed, signature)
        });
        assert!(elsewhere.is_err(), "{}", made.name);
        assert_eq!(read.to_tagged_vec().unwrap(), made.frame, "{}", made.name);
    }
}

#[test]
fn distributions_open_in_another_cose_library() {
    let mut opened = 0;
    for made in all() {
        let Body::KeyDist(key_dist) = &made.command.body else {
            continue;
        };
        let payload = Value::from_slice(&made.command.encode()).unwrap();
        let Value::Map(fields) = payload else {
            panic!("a map")
        };
        let body = fields
            .iter()
            .find(|(key, _)| *key == Value::from(7))
            .unwrap()
            .1
            .clone();
        let read = CoseEncrypt::from_tagged_slice(&body.to_vec().unwrap()).unwrap();
        let gcm = RegisteredLabelWithPrivate::Assigned(iana::Algorithm::A256GCM);
        assert_eq!(read.protected.header.alg, Some(gcm));
        assert_eq!(read.recipients.len(), key_dist.recipients().len());
        for (theirs, ours) in read.recipients.iter().zip(key_dist.recipients()) {
            let kw = RegisteredLabelWithPrivate::Assigned(iana::Algorithm::A256KW);
            assert_eq!(theirs.unprotected.alg, Some(kw));
            assert_eq!(theirs.unprotected.key_id, ours.handle.as_bytes());
            assert!(theirs.protected.is_empty());
        }
        let (_, _, rng) = made.distribution.as_ref().unwrap();
        let plain = read
            .decrypt_ciphertext(
                b"",
                || "no ciphertext",
                |ciphertext, aad| {
                    let key = UnboundKey::new(&AES_256_GCM, &rng.drawn[0]).unwrap();
                    let nonce = Nonce::try_assume_unique_for_key(&read.unprotected.iv).unwrap();
                    let mut buffer = ciphertext.to_vec();
                    LessSafeKey::new(key)
                        .open_in_place(nonce, Aad::from(aad), &mut buffer)
                        .map(|plain| plain.to_vec())
                        .map_err(|_| "does not open")
                },
            )
            .unwrap();
        let kid = Item::decode(&plain).at(&[1]).clone();
        assert!(matches!(kid, Item::Uint(kid) if kid % 4 == 3));
        opened += 1;
    }
    assert_eq!(opened, 7);
}
