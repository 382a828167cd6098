//! The same octets read by another COSE library (coset): it finds the values that we wrote, and
//! the signature input that it builds is the one that we signed.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use coset::cbor::value::Value;
use coset::{
    CborSerializable, CoseEncrypt, CoseEncrypt0, CoseSign, CoseSign1, RegisteredLabelWithPrivate,
    TaggedCborSerializable, iana,
};
use keyfall_protocol::command::{Body, Command, VerifyingKey};

use crate::cbor::Item;
use crate::commands::sealing_key;
use crate::fleet::signing_key;
use crate::messages::all;

#[test]
fn signed_commands_verify_in_another_cose_library() {
    for made in all().iter().filter(|made| made.signers.len() == 1) {
        let read = CoseSign1::from_tagged_slice(&made.frame).unwrap();
        assert_eq!(
            read.protected.header.alg,
            Some(ED25519_ALG),
            "{}",
            made.name
        );
        let key = signing_key(made.signers[0]).public();
        assert_eq!(read.protected.header.key_id, key.name().as_bytes());
        assert!(read.unprotected.is_empty());
        assert_eq!(read.payload.as_deref(), Some(&made.command.encode()[..]));
        let verified = read.verify_signature(b"KF1/cmd", verifier(&key));
        assert!(verified.is_ok(), "{}", made.name);
        let elsewhere = read.verify_signature(b"KF1/rec", verifier(&key));
        assert!(elsewhere.is_err(), "{}", made.name);
        assert_eq!(read.to_tagged_vec().unwrap(), made.frame, "{}", made.name);
    }
}

/// W-17: the same of frames that several sign.
#[test]
fn frames_of_several_verify_in_another_cose_library() {
    let mut signatures = 0;
    for made in all().iter().filter(|made| made.signers.len() > 1) {
        let read = CoseSign::from_tagged_slice(&made.frame).unwrap();
        assert!(read.protected.is_empty() && read.unprotected.is_empty());
        assert_eq!(read.payload.as_deref(), Some(&made.command.encode()[..]));
        assert_eq!(read.signatures.len(), made.signers.len());
        for (which, signer) in made.signers.iter().enumerate() {
            let one = &read.signatures[which];
            let key = signing_key(signer).public();
            assert_eq!(one.protected.header.alg, Some(ED25519_ALG), "{}", made.name);
            assert_eq!(one.protected.header.key_id, key.name().as_bytes());
            assert!(one.unprotected.is_empty());
            let verified = read.verify_signature(which, b"KF1/cmd", verifier(&key));
            assert!(verified.is_ok(), "{}", made.name);
            let elsewhere = read.verify_signature(which, b"KF1/rec", verifier(&key));
            assert!(elsewhere.is_err(), "{}", made.name);
            signatures += 1;
        }
        assert_eq!(read.to_tagged_vec().unwrap(), made.frame, "{}", made.name);
    }
    assert!(signatures >= 10, "{signatures}");
}

/// REQUIREMENTS R-065: what is sealed to one terminal.
#[test]
fn orders_open_in_another_cose_library() {
    let mut opened = 0;
    for made in all() {
        let (Body::Order(order), Some(sealed)) = (&made.command.body, &made.order) else {
            continue;
        };
        let read = CoseEncrypt0::from_tagged_slice(&body_of(&made.command)).unwrap();
        let gcm = RegisteredLabelWithPrivate::Assigned(iana::Algorithm::A256GCM);
        assert_eq!(read.protected.header.alg, Some(gcm));
        assert_eq!(read.protected.header.key_id, order.handle().as_bytes());
        assert_eq!(read.unprotected.iv, sealed.rng.drawn[0]);
        let key = sealing_key(&sealed.obey, &read.unprotected.iv);
        let plain = read
            .decrypt_ciphertext(
                b"",
                || "no ciphertext",
                |ciphertext, aad| open(&key, &read.unprotected.iv, aad, ciphertext),
            )
            .unwrap();
        let terminal = Item::decode(&plain).at(&[1]).clone();
        let expected = u64::from(sealed.contents.terminal.get());
        assert_eq!(terminal, Item::Uint(expected), "{}", made.name);
        opened += 1;
    }
    assert_eq!(opened, 11);
}

#[test]
fn distributions_open_in_another_cose_library() {
    let mut opened = 0;
    for made in all() {
        let Body::KeyDist(key_dist) = &made.command.body else {
            continue;
        };
        let read = CoseEncrypt::from_tagged_slice(&body_of(&made.command)).unwrap();
        let gcm = RegisteredLabelWithPrivate::Assigned(iana::Algorithm::A256GCM);
        assert_eq!(read.protected.header.alg, Some(gcm));
        assert_eq!(read.recipients.len(), key_dist.recipients().len());
        for (theirs, ours) in read.recipients.iter().zip(key_dist.recipients()) {
            let kw = RegisteredLabelWithPrivate::Assigned(iana::Algorithm::A256KW);
            assert_eq!(theirs.unprotected.alg, Some(kw));
            assert_eq!(theirs.unprotected.key_id, ours.handle.as_bytes());
            assert!(theirs.protected.is_empty());
        }
        let rng = &made.distribution.as_ref().unwrap().rng;
        let plain = read
            .decrypt_ciphertext(
                b"",
                || "no ciphertext",
                |ciphertext, aad| open(&rng.drawn[0], &read.unprotected.iv, aad, ciphertext),
            )
            .unwrap();
        let kid = Item::decode(&plain).at(&[1]).clone();
        assert!(matches!(kid, Item::Uint(kid) if kid % 4 == 3));
        opened += 1;
    }
    assert_eq!(opened, 9);
}

/// Field 7 of the payload, as the other library writes it.
fn body_of(command: &Command) -> Vec<u8> {
    let payload = Value::from_slice(&command.encode()).unwrap();
    let Value::Map(fields) = payload else {
        panic!("a map")
    };
    let body = fields.into_iter().find(|(key, _)| *key == Value::from(7));
    body.unwrap().1.to_vec().unwrap()
}

fn verifier(
    key: &VerifyingKey,
) -> impl FnOnce(&[u8], &[u8]) -> Result<(), aws_lc_rs::error::Unspecified> {
    |signature, signed| UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(signed, signature)
}

fn open(key: &[u8], iv: &[u8], aad: &[u8], ciphertext: &[u8]) -> Result<Vec<u8>, &'static str> {
    let key = UnboundKey::new(&AES_256_GCM, key).unwrap();
    let nonce = Nonce::try_assume_unique_for_key(iv).unwrap();
    let mut buffer = ciphertext.to_vec();
    LessSafeKey::new(key)
        .open_in_place(nonce, Aad::from(aad), &mut buffer)
        .map(|plain| plain.to_vec())
        .map_err(|_| "does not open")
}

const ED25519_ALG: coset::Algorithm =
    RegisteredLabelWithPrivate::Assigned(iana::Algorithm::Ed25519);
