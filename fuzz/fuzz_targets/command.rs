//! The frame decoder: never panics; what it reads is written again octet for octet. The same for
//! receipts.
#![no_main]

use keyfall_protocol::command::{Command, SIGNERS_MAX, Unverified};
use keyfall_protocol::receipt::Receipt;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    if let Ok(frame) = Unverified::decode(octets) {
        assert_eq!(frame.octets(), octets);
        assert!((1..=SIGNERS_MAX).contains(&frame.signers().count()));
        assert!(frame.verify_with(|_| None).is_none());
    }
    if let Ok(command) = Command::decode(octets) {
        assert_eq!(command.encode(), octets);
    }
    if let Ok(receipt) = Receipt::decode(octets) {
        assert_eq!(Receipt::decode(receipt.to_string().as_bytes()), Ok(receipt));
    }
});
