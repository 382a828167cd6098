//! The frame decoder: never panics; what it reads is written again octet for octet. The same for
//! receipts and protection records.
#![no_main]

use keyfall_protocol::command::{
    Command, RECORD_MAX, SIGNERS_MAX, Unverified, UnverifiedRecord, VerifyingKey,
};
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
    if let Ok(read) = UnverifiedRecord::decode(octets) {
        let record = read.record();
        assert!(octets.len() <= RECORD_MAX && octets.len() == record.frame_len());
        assert!(
            record
                .prefixes
                .iter()
                .all(|it| record.speaks_for(it.address()))
        );
        assert!(read.verify(&VerifyingKey::new([1; 32])).is_none());
    }
    if let Ok(receipt) = Receipt::decode(octets) {
        assert_eq!(Receipt::decode(receipt.to_string().as_bytes()), Ok(receipt));
    }
});
