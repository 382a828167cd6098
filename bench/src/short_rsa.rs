//! Time until ACK with RSA keys that the product refuses: 512 and 1024 bits, and 2048 bits to tell
//! this library from the product's. The sequence is that of `rsa-misty1`: KEY-REQ sealed and opened,
//! KEY-DIS sealed and opened with one key under MISTY1, ACK made and checked. OAEP with SHA-256 does
//! not fit into 512 bits, so the padding is that of PKCS #1 v1.5 for all.

use std::time::Instant;

use anyhow::Context as _;
use aws_lc_rs::{digest, hmac};
use keyfall_protocol::keys::Secret;
use keyfall_protocol::sharing::misty1::Misty1;
use rsa::rand_core::{OsRng, RngCore as _};
use rsa::{Pkcs1v15Encrypt, RsaPrivateKey, RsaPublicKey};
use serde_json::{Value, json};

/// What `keyfall bench sharing --short-rsa` reads: microseconds, medians.
pub fn measure() -> anyhow::Result<Value> {
    let lengths = LENGTHS.iter().map(|&bits| {
        let until_ack = until_ack(bits)?;
        Ok(json!({"bits": bits, "until_ack": until_ack}))
    });
    lengths.collect()
}

/// Server and terminal have one key here, as in the product's figure.
fn until_ack(bits: usize) -> anyhow::Result<f64> {
    let private = RsaPrivateKey::new(&mut OsRng, bits)?;
    let public = private.to_public_key();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        sequence(&private, &public)?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times.get(ROUNDS / 2).copied().context("some rounds")
}

fn sequence(private: &RsaPrivateKey, public: &RsaPublicKey) -> anyhow::Result<()> {
    let mut id = [0; ID_LEN];
    OsRng.fill_bytes(&mut id);
    let key_req = public.encrypt(&mut OsRng, Pkcs1v15Encrypt, &id)?;
    let asked = private.decrypt_blinded(&mut OsRng, Pkcs1v15Encrypt, &key_req)?;
    anyhow::ensure!(asked == id, "KEY-REQ opens");

    let mut field = [0; FIELD_LEN];
    OsRng.fill_bytes(&mut field);
    let mut iv = [0; 8];
    OsRng.fill_bytes(&mut iv);
    let mut text = [0x5a; TEXT_LEN];
    let km = |field: &[u8]| Secret::from_slice(&field[..16]).context("16 octets");
    let sent = hash(&text);
    Misty1::new(&km(&field)?)
        .encrypt(iv, &mut text)
        .context("whole blocks")?;
    let key_dis = public.encrypt(&mut OsRng, Pkcs1v15Encrypt, &field)?;

    let opened = private.decrypt_blinded(&mut OsRng, Pkcs1v15Encrypt, &key_dis)?;
    Misty1::new(&km(&opened)?)
        .decrypt(iv, &mut text)
        .context("whole blocks")?;
    let ack = hmac::sign(&mac_key(&opened), hash(&text).as_ref());
    hmac::verify(&mac_key(&field), sent.as_ref(), ack.as_ref())?;
    Ok(())
}

fn mac_key(field: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &field[..16])
}

fn hash(text: &[u8]) -> digest::Digest {
    digest::digest(&digest::SHA256, text)
}

const LENGTHS: &[usize] = &[512, 1024, 2048];
const ROUNDS: usize = 101;
/// As in the product's messages: ID information, Km with its checksum, a MISTY1 field with one key.
const ID_LEN: usize = 24;
const FIELD_LEN: usize = 32;
const TEXT_LEN: usize = 64;
