//! A damaged snapshot is refused, never a panic.
#![no_main]

use keyfall_protocol::ids::Tick;
use keyfall_protocol::terminal::Terminal;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|octets: &[u8]| {
    let _ = Terminal::restore(octets, Tick::default());
});
