//! The outer form of enrolment packages, request keys and codes.
#![no_main]

use keyfall_protocol::enrolment::{EnrolmentCode, RequestKey, SealedPackage};
use keyfall_protocol::keys::Secret;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(package @ SealedPackage::ToRequest { .. }) = SealedPackage::decode(octets) {
        let request = RequestKey::from_seed(Secret::init_with(|into| into.fill(7)));
        assert!(package.open_with(&request).is_err());
    }
    if let Ok(text) = std::str::from_utf8(octets) {
        if let Some(code) = EnrolmentCode::parse(text) {
            assert!(EnrolmentCode::parse(&code.shown()).is_some());
        }
    }
});
