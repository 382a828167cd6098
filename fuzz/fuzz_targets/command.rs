//! The frame decoder: never panics; what it reads is written again octet for octet.
#![no_main]

use keyfall_protocol::command::{Command, Unverified};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let _ = Unverified::decode(octets);
    if let Ok(command) = Command::decode(octets) {
        assert_eq!(command.encode(), octets);
    }
});
