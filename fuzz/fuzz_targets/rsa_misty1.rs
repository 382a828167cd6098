//! Messages of the legacy suite: whatever comes, nothing opens and nothing panics.
#![no_main]

use std::sync::LazyLock;

use keyfall_protocol::rng::Random;
use keyfall_protocol::sharing::rsa_misty1::{
    Request, RsaPublic, RsaSecret, RsaSize, open_key_dis, open_key_req, seal_key_dis, sealed_for,
};
use libfuzzer_sys::fuzz_target;

static OWN: LazyLock<RsaSecret> =
    LazyLock::new(|| RsaSecret::generate(RsaSize::Bits2048).expect("the library has randomness"));

struct Sevens;

impl Random for Sevens {
    fn fill(&mut self, into: &mut [u8]) {
        into.fill(7);
    }
}

fuzz_target!(|octets: &[u8]| {
    // The first octet says whether lengths and references are put right, so that OAEP is reached.
    let Some((choice, octets)) = octets.split_first() else {
        return;
    };
    let key_req = b"a request".as_slice();
    let request = Request {
        key_req,
        nonce: [7; 16],
    };
    let sealed = seal_key_dis(OWN.public(), request, &[], &mut Sevens).expect("no key is no fault");
    let mut message = octets.to_vec();
    match choice % 3 {
        0 => {}
        1 => {
            let behind = octets.len().min(1024);
            let rsa = [
                &b"KF\x01\x01\x01\x00\x00\x00"[..],
                OWN.public().name().as_bytes(),
            ]
            .concat();
            message = [&rsa, &octets[..behind]].concat();
            message.resize(16 + 256, 0);
        }
        _ => {
            message = sealed.key_dis[..16 + 256].to_vec();
            message.extend_from_slice(&octets[..octets.len().min(32)]);
            message.resize(sealed.key_dis.len(), 0);
        }
    }
    assert!(open_key_req(&OWN, &message).is_none());
    assert!(open_key_dis(&OWN, request, &message).is_none());
    assert!(sealed.exchange.check_ack(&message).is_none());
    let _name = sealed_for(&message);
    let _public = RsaPublic::from_spki(octets);
});
