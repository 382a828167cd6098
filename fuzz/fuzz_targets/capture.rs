//! Captures, as `keyfall inspect` reads them: any octets end in datagrams or in a sentence.
#![no_main]

#[expect(dead_code, reason = "what the command needs beyond reading")]
#[path = "../../crates/keyfall/src/inspect/capture.rs"]
mod capture;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let begins = capture::is_capture(octets);
    match capture::read(octets) {
        Ok(read) => {
            let shown = read.datagrams.len() + read.others + read.cut;
            assert!(begins || octets.is_empty() || shown == 0);
            let mut before = 0;
            for datagram in &read.datagrams {
                assert!(datagram.packet > before && datagram.octets.len() <= octets.len());
                before = datagram.packet;
            }
        }
        Err(sentence) => assert!(!sentence.is_empty()),
    }
});
