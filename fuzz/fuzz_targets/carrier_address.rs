//! Carrier addresses: what parses is shown as what parses again.
#![no_main]

use keyfall_carrier::CarrierAddress;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    if let Ok(address) = text.parse::<CarrierAddress>() {
        let shown = address.to_string();
        assert_eq!(
            shown
                .parse::<CarrierAddress>()
                .map(|again| again.to_string()),
            Ok(shown)
        );
    }
});
