//! Damaged compartments are refused, never a panic; what is read can be driven.
#![no_main]

use keyfall_protocol::ids::Tick;
use keyfall_protocol::rng::Random;
use keyfall_protocol::terminal::{Input, Output, Terminal};
use libfuzzer_sys::fuzz_target;

struct Zeros;

impl Random for Zeros {
    fn fill(&mut self, into: &mut [u8]) {
        into.fill(0);
    }
}

fuzz_target!(|octets: &[u8]| {
    // The first two octets say where the user compartment begins.
    let Some((&place, octets)) = octets.split_first_chunk::<2>() else {
        return;
    };
    let place = usize::from(u16::from_be_bytes(place)).min(octets.len());
    let (device, user) = octets.split_at(place);
    let user = (!user.is_empty()).then_some(user);
    if let Ok(mut terminal) = Terminal::restore(device, user, Tick::default()) {
        for seconds in [0, 61, 100_000] {
            let now = Tick::from_secs(seconds);
            let _ = terminal.handle_input(now, &mut Zeros, Input::Timeout);
            while !matches!(terminal.poll_output(), Output::Timeout { .. }) {}
        }
    }
});
